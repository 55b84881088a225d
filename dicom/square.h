/* square.h: pixels that are not square to pixels that are.
 *
 * A pixel twice as high as wide means an image half as wide as its matrix says (PS3.3 C.7.6.3.1.7).
 * The axis with the finer pixels is shrunk by area averaging; nothing is invented on the other one.
 * Weights are integers, sums 64 bits, halves round up: the same image gives the same values on every
 * machine.
 */
#ifndef CARZEROD_DICOM_SQUARE_H
#define CARZEROD_DICOM_SQUARE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct square {
	size_t from_width, from_height;
	size_t width, height; /* one of them is less than it was */
};

/* vertical, horizontal: height and width of a pixel, positive.  A side may come out as 0. */
struct square square_of(size_t width, size_t height, double vertical, double horizontal);

/* from: [from_height][from_width], ret: [height][width]; a width and height of at least 1. */
void square_average(const struct square *s, const int32_t *from, int32_t *ret);

#ifdef __cplusplus
}
#endif
#endif
