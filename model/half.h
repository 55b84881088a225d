/* half.h: IEEE 754 binary16 in memory: half the bytes, 11 bits of precision, in the machine's order.
 */
#ifndef CARZEROD_MODEL_HALF_H
#define CARZEROD_MODEL_HALF_H

#include <stddef.h>
#include <stdint.h>

/* To the nearest, ties to even.  -ERANGE when one is no number or rounds beyond 65504; ret is then undefined. */
int half_from_float(const float *x, uint16_t *ret, size_t n);
/* Exact.  -ERANGE when one is an infinity or no number. */
int half_to_float(const uint16_t *x, float *ret, size_t n);

#endif
