// Two weak undefined symbols: one that every kernel exports, and one that none does.
#include <linux/kobject.h>
#include "vmt.h"

extern struct kobject *kernel_kobj __attribute__((weak));
extern int vmt_nowhere(void) __attribute__((weak));

VMT(pr_info("%d %d\n", &kernel_kobj == NULL, vmt_nowhere ? vmt_nowhere() : 0));
