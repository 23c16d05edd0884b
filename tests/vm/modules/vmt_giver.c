// Exports in each of the ways.
#include <linux/version.h>
#include "vmt.h"

int vmt_first(void)
{
	return 1;
}
EXPORT_SYMBOL(vmt_first);

int vmt_second(void)
{
	return 2;
}
EXPORT_SYMBOL_GPL(vmt_second);

int vmt_spaced(void)
{
	return 3;
}
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
EXPORT_SYMBOL_NS(vmt_spaced, VMT);
#else
EXPORT_SYMBOL_NS(vmt_spaced, "VMT");
#endif

VMT();
