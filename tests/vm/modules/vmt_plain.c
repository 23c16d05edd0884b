// Needs nothing but printk: what is wrong with it, was made wrong afterwards.
#include "vmt.h"

VMT(pr_info("here\n"));
