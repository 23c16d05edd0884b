// Uses what vmt_giver exports to everybody.
#include "vmt.h"

VMT(pr_info("%d\n", vmt_first()));
