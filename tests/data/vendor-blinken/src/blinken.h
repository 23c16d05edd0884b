/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLINKEN_H
#define BLINKEN_H

#include <linux/device.h>

struct class *blinken_class(void);
int blinken_lamps(void);
void blinken_copy_name(char *target, const char *name, size_t size);

#endif
