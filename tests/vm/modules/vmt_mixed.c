// Uses what vmt_giver exports in all the ways, and a GPL-only symbol of the kernel.
#include <linux/kobject.h>
#include <linux/version.h>
#include "vmt.h"

VMT(pr_info("%d %d\n", vmt_first() + vmt_second() + vmt_spaced(), kernel_kobj == NULL));
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
MODULE_IMPORT_NS(VMT);
#else
MODULE_IMPORT_NS("VMT");
#endif
