// SPDX-License-Identifier: GPL-2.0
#include <linux/device.h>
#include <linux/err.h>
#include <linux/module.h>

#include "blinken.h"
#include "config.h"

static struct class *lamps;

struct class *blinken_class(void)
{
	return lamps;
}
EXPORT_SYMBOL_GPL(blinken_class);

int blinken_lamps(void)
{
	return BLINKEN_LAMPS;
}
EXPORT_SYMBOL_GPL(blinken_lamps);

static int __init blinken_start(void)
{
	lamps = class_create("blinken");
	return PTR_ERR_OR_ZERO(lamps);
}

static void __exit blinken_stop(void)
{
	class_destroy(lamps);
}

module_init(blinken_start);
module_exit(blinken_stop);
MODULE_DESCRIPTION("Lamps that do nothing");
MODULE_LICENSE("GPL");
