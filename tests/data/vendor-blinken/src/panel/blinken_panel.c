// SPDX-License-Identifier: GPL-2.0
#include <asm/unaligned.h>
#include <linux/module.h>
#include <linux/platform_device.h>

#include "blinken.h"

static u8 pattern[5];

static int panel_probe(struct platform_device *pdev)
{
	char name[8];

	blinken_copy_name(name, dev_name(&pdev->dev), sizeof(name));
	put_unaligned_le32(blinken_lamps(), pattern + 1);
	return blinken_class() ? 0 : -ENODEV;
}

static int panel_remove(struct platform_device *pdev)
{
	put_unaligned_le32(0, pattern + 1);
	return 0;
}

static struct platform_driver panel_driver = {
	.probe = panel_probe,
	.remove = panel_remove,
	.driver = { .name = "blinken-panel" },
};

module_platform_driver(panel_driver);
MODULE_DESCRIPTION("A panel of lamps that do nothing");
MODULE_LICENSE("GPL");
