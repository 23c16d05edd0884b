/* SPDX-License-Identifier: GPL-2.0 */
#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/module.h>

int vmt_first(void);
int vmt_second(void);
int vmt_spaced(void);

#define VMT(init_body)                                       \
	static int __init vmt_init(void)                     \
	{                                                    \
		init_body;                                   \
		return 0;                                    \
	}                                                    \
	static void __exit vmt_exit(void)                    \
	{                                                    \
	}                                                    \
	module_init(vmt_init);                               \
	module_exit(vmt_exit);                               \
	MODULE_LICENSE("GPL");                               \
	MODULE_DESCRIPTION("made to be inserted by tests")
