/* fuzz_scan.c: any bytes as a stored file, and as a compressed frame.
 *
 * Holds: no crash; what scan_file() points to lies inside the file or its inflation; gathering and
 * checking frames never reads outside.
 */
#include <assert.h>

#include "base/mem.h"

#include "dicom/frame.h"
#include "dicom/scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool inside(const void *p, size_t n, const void *from, size_t size)
{
	uintptr_t at = (uintptr_t)p, begin = (uintptr_t)from;

	return at >= begin && n <= size && at - begin <= size - n;
}

static void check_frames(const uint8_t *p, size_t n)
{
	static const enum frame_coding codings[] = { FRAME_JPEG_BASELINE, FRAME_JPEG_EXTENDED, FRAME_JPEG_LOSSLESS,
						     FRAME_JPEG_LS };
	CLEANUP(free) uint8_t *frame = malloc(n + 1);
	uint16_t samples[64];
	char why[IMAGE_WHY_MAX];
	unsigned precision;

	if (frame == NULL)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(codings); i++) {
		memcpy(frame, p, n); /* a check may settle a byte in it */
		precision = 0;
		if (frame_check(codings[i], frame, n, 66, 70, 16, &precision, why) == IMAGE_OK)
			assert(precision >= 2 && precision <= 16);
	}
	(void)frame_decode_rle(p, n, ARRAY_SIZE(samples), 1, samples, why);
	(void)frame_decode_rle(p, n, ARRAY_SIZE(samples), 2, samples, why);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct dicom_limits limits = {
		.side = 4096, .pixels = 1 << 20, .min_side = 16, .depth = 16, .items = 1000, .fragments = 100,
	};
	CLEANUP(free) uint8_t *frame = NULL;
	struct scan s;
	size_t n;

	check_frames(data, size);
	if (scan_file(data, size, &limits, &s) < 0)
		return 0;
	if (s.data_set != NULL && s.inflated == NULL)
		assert(inside(s.data_set, s.header_size, data, size));
	if (s.pixels != NULL) {
		if (s.inflated == NULL)
			assert(inside(s.pixels, s.pixels_size, data, size));
		if (s.reason == IMAGE_OK && s.encapsulated && scan_gather(&s, &frame, &n) == 0) {
			assert(n <= s.pixels_size);
			check_frames(frame, n);
		}
	}
	assert(s.reason == IMAGE_OK || s.why[0] != '\0');
	scan_free(&s);
	return 0;
}
