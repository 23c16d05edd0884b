// dma_buf_put is in the namespace DMA_BUF.
#include <linux/dma-buf.h>
#include <linux/version.h>
#include "vmt.h"

VMT(pr_info("%p\n", dma_buf_put));
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
MODULE_IMPORT_NS(DMA_BUF);
#else
MODULE_IMPORT_NS("DMA_BUF");
#endif
