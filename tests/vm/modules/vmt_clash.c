// Exports names that are renamed, to others of the same length, to those of exports elsewhere.
#include "vmt.h"

int vmt_a(void);
int vmt_a(void)
{
	return 1;
}
EXPORT_SYMBOL(vmt_a);

VMT();
