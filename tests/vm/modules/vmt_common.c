// Compiled with -fcommon, this is a common symbol, which no loader takes.
#include "vmt.h"

int vmt_shared;

VMT(vmt_shared = 1; pr_info("%d\n", vmt_shared));
