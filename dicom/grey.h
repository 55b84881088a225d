/* grey.h: from stored values to grey levels as the hospital would see them.
 *
 * PS3.4 N.2.1, by hand: Modality LUT or rescale, VOI LUT or window, inversion, 0..255 rounded.
 * Done as one table over all stored values, in double, so that the same image gives the same bytes
 * everywhere.  DCMTK's DicomImage is not used: it truncates and lets Presentation LUT Shape override
 * the photometric interpretation.
 */
#ifndef CARZEROD_DICOM_GREY_H
#define CARZEROD_DICOM_GREY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GREY_BITS_MAX 16

struct grey_lut {               /* PS3.3 C.11.1.1; absent when n == 0 */
	size_t n;
	int32_t first;          /* input that takes data[0]; smaller ones do too */
	unsigned bits;          /* of the output: 0 .. 2^bits - 1 */
	const uint16_t *data;   /* [n] */
};

enum grey_function { GREY_LINEAR, GREY_LINEAR_EXACT, GREY_SIGMOID }; /* (0028,1056) */

struct grey {
	unsigned bits;          /* stored: values of this many bits */
	bool is_signed;
	struct grey_lut modality; /* instead of slope and intercept */
	double slope, intercept;
	struct grey_lut voi;    /* instead of the window */
	bool has_window;
	double center, width;
	enum grey_function function;
	bool invert;            /* low is white */
	bool has_padding;       /* stored values low..high are not part of the image */
	int32_t padding_low, padding_high;
};

enum grey_how { GREY_BY_LUT, GREY_BY_WINDOW, GREY_BY_PERCENTILE };

/* stored, ret: [n].  Padding becomes 0.  A window that is missing, impossible or that leaves one
 * level only is replaced by the one from the 0.5th to the 99.5th percentile of the image.
 * -ENODATA when the image has one level only, or padding only. */
int grey_render(const struct grey *g, const int32_t *stored, size_t n, uint8_t *ret, enum grey_how *ret_how);

#ifdef __cplusplus
}
#endif
#endif
