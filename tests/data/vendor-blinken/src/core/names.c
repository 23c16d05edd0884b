// SPDX-License-Identifier: GPL-2.0
#include <linux/export.h>
#include <linux/string.h>

#include "blinken.h"

#ifdef CONFIG_COMPAT_STRLCPY
#define strlcpy strscpy
#endif

void blinken_copy_name(char *target, const char *name, size_t size)
{
	strlcpy(target, name, size);
}
EXPORT_SYMBOL_GPL(blinken_copy_name);
