/* preprocess.h: from grey levels to the square that the model takes, to the last rounding.
 *
 * Pure functions, integer and float32 arithmetic without contraction; no libraries, no state.
 * carzero.md section 2 is the specification; results equal OpenCV's INTER_AREA byte for byte.
 */
#ifndef CARZEROD_MODEL_PREPROCESS_H
#define CARZEROD_MODEL_PREPROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PREPROCESS_SIDE_MAX 32768 /* largest width or height taken */

/* Where a picture came to lie in its square, to map results back:
 * source x = (square x - left) / scale_x, likewise y. */
struct letterbox {
	size_t side, left, top, width, height;
	double scale_x, scale_y;
};

/* Where a picture of this size comes to lie; errors as below. */
int preprocess_place(size_t width, size_t height, size_t side, struct letterbox *ret);

/* What the middle of the square, of side `crop`, shows of the picture: a rectangle in the picture's pixels,
 * 0,0 the outer corner of the first one.  It reaches beyond the picture where the square has zeros. */
struct seen {
	double x, y, width, height;
};
struct seen preprocess_seen(const struct letterbox *box, size_t crop);

/* gray: [height][width] 8-bit.  ret: [side][side], zero outside the picture.
 * -EBADMSG when a side is 0 or the aspect ratio leaves no pixel, -E2BIG over PREPROCESS_SIDE_MAX, -ENOMEM. */
int preprocess_letterbox(const uint8_t *gray, size_t width, size_t height, size_t side, uint8_t *ret,
			 struct letterbox *ret_box);

/* Recipe `mimic` (carzero.md 2.1): min-max of the stored values to 0..255 by truncation, complement
 * for MONOCHROME1, histogram equalisation as cv2.equalizeHist.
 * stored: [n] values after masking and sign extension.  ret: [n]. */
void preprocess_mimic(const int32_t *stored, size_t n, bool monochrome1, uint8_t *ret);

/* cv2.equalizeHist in place. */
void preprocess_equalize(uint8_t *gray, size_t n);

#endif
