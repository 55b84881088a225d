/* scan.h: what a stored object says about its own shape, read before anything else may read it.
 *
 * scan_file() walks a whole Part 10 file in memory without recursion and without allocating by
 * what the file claims.  It finds the elements that describe the pixels and the pixel data itself,
 * and it bounds everything that has hurt DCMTK 3.6.7: nesting (a stack overflow at 10 KB of file),
 * items, elements, fragments (33 s for 214,000 of them) and lengths that point outside.
 *
 * The geometry that it reports is the only one in use: later stages do not ask DCMTK again, so two
 * readers cannot disagree.  All pointers point into the caller's bytes or into `inflated`.
 */
#ifndef CARZEROD_DICOM_SCAN_H
#define CARZEROD_DICOM_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

#include "dicom/image.h"

#ifdef __cplusplus
extern "C" {
#endif

enum scan_encoding { SCAN_IMPLICIT_LE, SCAN_EXPLICIT_LE, SCAN_EXPLICIT_BE };

struct scan {
	enum image_reason reason;    /* IMAGE_OK, IMAGE_NOT_DICOM, IMAGE_NO_PIXELS or IMAGE_TOO_LARGE */
	char why[IMAGE_WHY_MAX];
	char syntax[UID_MAX];        /* Transfer Syntax UID, "" when there was none */
	enum scan_encoding encoding; /* of data_set, after inflation */
	const uint8_t *data_set;     /* NULL when the walk did not come that far */
	size_t header_size;          /* of data_set: the elements before Pixel Data, safe to parse;
				      * 0 when they are not */

	/* Image Pixel Module (PS3.3 C.7.6.3) at top level; 0 when absent. */
	unsigned rows, columns, samples, frames, bits_allocated, bits_stored, high_bit;
	bool is_signed;
	bool has_high_bit;

	bool encapsulated;           /* pixels: fragments, to be gathered; else the native value */
	bool words;                  /* native value has VR OW */
	const uint8_t *pixels;
	size_t pixels_size;
	unsigned fragments;          /* without the offset table */

	uint8_t *inflated;           /* owned: the data set of a deflated file */
};

/* 0 with ret filled (to be freed), or -ENOMEM.  A refusal is a reason, not an error. */
int scan_file(const void *file, size_t n, const struct dicom_limits *limits, struct scan *ret);
void scan_free(struct scan *s);

/* The fragments of a single-frame image as one run of bytes, malloc'd. */
int scan_gather(const struct scan *s, uint8_t **ret, size_t *ret_n);

#ifdef __cplusplus
}
#endif
#endif
