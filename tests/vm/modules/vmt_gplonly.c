// kernel_kobj is exported for GPL modules only.
#include <linux/kobject.h>
#include "vmt.h"

VMT(pr_info("%d\n", kernel_kobj == NULL));
