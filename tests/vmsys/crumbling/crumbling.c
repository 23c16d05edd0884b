#include <linux/module.h>

static int __init crumbling_init(void)
{
	return a_function_that_was_removed();
}
module_init(crumbling_init);
MODULE_LICENSE("GPL");
