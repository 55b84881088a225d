/* fuzz_image.c: any bytes through the whole decoder and the gate.
 *
 * Holds: no crash; either all of the image or a reason with its text; texts are printable.
 */
#include <assert.h>
#include <ctype.h>

#include "base/log.h"
#include "base/mem.h"

#include "dicom/dicom.h"
#include "dicom/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void start(void)
{
	static bool started;
	struct err e;

	if (started)
		return;
	if (dicom_init(true, &e) < 0)
		fatal(FATAL_CONFIG, "%s", e.text);
	dicom_image_warm_up();
	started = true;
}

static void check_text(const char *text)
{
	for (; *text != '\0'; text++)
		assert(isprint((unsigned char)*text));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct dicom_limits limits = {
		.side = 1024, .pixels = 1 << 18, .min_side = 1, .depth = 16, .items = 1000, .fragments = 100,
	};
	const struct gate_rules rules = { .check_view = true, .min_age = 18 };
	char why[IMAGE_WHY_MAX];
	struct dicom_image *image;

	start();
	if (dicom_image_decode(data, size, &limits, &image) < 0)
		return 0;
	if (image->reason == IMAGE_OK) {
		size_t n = image->width * image->height;
		unsigned sum = 0;

		assert(n > 0 && n <= limits.pixels && image->stored != NULL && image->window != NULL);
		for (size_t i = 0; i < n; i++)
			sum += image->window[i] + (unsigned)image->stored[i];
		assert(sum + 1 != sum); /* every byte was read */
	} else
		assert(image->stored == NULL && image->window == NULL && image->why[0] != '\0');
	check_text(image->why);
	check_text(image->note);
	check_text(image->facts.body_part);
	(void)gate_decide(&rules, &image->facts, why);
	check_text(why);
	dicom_image_free(image);
	return 0;
}
