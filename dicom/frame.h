/* frame.h: one compressed frame before a codec sees it, and the codec that is our own.
 *
 * Codecs size their buffers by the frame's own header, not by the data set's: 17 KB of JPEG-LS can
 * ask for 4 GB, and a TEM marker sends a scanner round for ever.  So the header is compared with
 * what the data set promised, and the marker segments are walked to their end, first.
 */
#ifndef CARZEROD_DICOM_FRAME_H
#define CARZEROD_DICOM_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "dicom/image.h"

#ifdef __cplusplus
extern "C" {
#endif

enum frame_coding {
	FRAME_JPEG_BASELINE, /* 8 bits: SOF0 */
	FRAME_JPEG_EXTENDED, /* 8 or 12 bits: SOF0, SOF1 */
	FRAME_JPEG_LOSSLESS, /* 2 to 16 bits: SOF3 */
	FRAME_JPEG_LS,       /* 2 to 16 bits: SOF55 */
};

/* IMAGE_OK with the precision, or a reason with its text.  One grey component is asked for.  The
 * spectral selection of a sequential JPEG scan is set to the one that it must have. */
enum image_reason frame_check(enum frame_coding coding, uint8_t *p, size_t n, unsigned rows,
			      unsigned columns, unsigned bits_allocated, unsigned *ret_precision,
			      char why[IMAGE_WHY_MAX]);

/* PS3.5 annex G: RLE of one grey frame with 1 or 2 bytes a sample.  ret: [samples], host order.
 * IMAGE_OK or IMAGE_BROKEN with its text. */
enum image_reason frame_decode_rle(const uint8_t *p, size_t n, size_t samples, unsigned bytes,
				   uint16_t *ret, char why[IMAGE_WHY_MAX]);

#ifdef __cplusplus
}
#endif
#endif
