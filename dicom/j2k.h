/* j2k.h: one JPEG 2000 or HTJ2K frame, checked by ourselves and decoded by OpenJPEG.
 *
 * OpenJPEG sizes everything by the codestream: tiles, precincts, code-blocks, layers, each claimed by
 * a few bytes.  So the markers (ITU-T T.800 annex A) are walked to the end first and compared with
 * what the data set promised; what passes has one grey component of this size, every tile, an end,
 * and amounts within the limits of j2k.c.  A JP2 file around the codestream, which DICOM does not
 * allow (PS3.5 A.4.4) and some writers leave there, is walked over; OpenJPEG never sees its boxes.
 */
#ifndef CARZEROD_DICOM_J2K_H
#define CARZEROD_DICOM_J2K_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dicom/image.h"

#ifdef __cplusplus
extern "C" {
#endif

struct j2k_frame {
	const uint8_t *p;       /* the codestream, SOC to EOC, inside the caller's bytes */
	size_t n;
	unsigned rows, columns;
	unsigned precision;     /* 1 to 16 bits */
	bool is_signed;
	bool irreversible;      /* a wavelet that cannot be lossless */
};

/* IMAGE_OK with ret, or a reason with its text. */
enum image_reason j2k_check(const uint8_t *p, size_t n, unsigned rows, unsigned columns,
			    unsigned bits_allocated, struct j2k_frame *ret, char why[IMAGE_WHY_MAX]);

/* ret: [rows * columns], values of `precision` bits, two's complement when signed.  Lossy coding
 * overshoots: values are clamped to `bits`, when that is less than the precision.  -EBADMSG when
 * OpenJPEG fails or warns: half an image is none. */
int j2k_decode(const struct j2k_frame *frame, unsigned bits, uint16_t *ret);

#ifdef __cplusplus
}
#endif
#endif
