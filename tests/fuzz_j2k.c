/* fuzz_j2k.c: any bytes as a JPEG 2000 or HTJ2K frame.
 *
 * Holds: no crash; what j2k_check() passes lies inside its input and has the geometry that was asked
 * for; whatever the codec then makes of it, it writes exactly the pixels of that geometry.
 *
 * The geometry is the frame's own where its first bytes tell one (a raw codestream), so that a corpus
 * of several sizes gets behind the check.
 */
#include <assert.h>

#include "base/mem.h"

#include "dicom/j2k.h"

#define SIDE_MAX 256
#define PAINT 0xa5a5

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned side_at(const uint8_t *data, size_t size, size_t at)
{
	unsigned side = size > at + 1 ? (unsigned)data[at] << 8 | data[at + 1] : 0;

	return side > 0 && side <= SIDE_MAX ? side : 64;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned columns = side_at(data, size, 10), rows = side_at(data, size, 14); /* low words of Xsiz, Ysiz */
	size_t n = (size_t)rows * columns;
	CLEANUP(free) uint16_t *values = NULL;
	char why[IMAGE_WHY_MAX] = "";
	struct j2k_frame frame;

	if (j2k_check(data, size, rows, columns, 16, &frame, why) != IMAGE_OK) {
		assert(why[0] != '\0');
		return 0;
	}
	assert(frame.p >= data && frame.n <= size && (size_t)(frame.p - data) <= size - frame.n);
	assert(frame.rows == rows && frame.columns == columns && frame.precision >= 1 && frame.precision <= 16);
	values = xcalloc(n + 1, sizeof(*values));
	values[n] = PAINT;
	if (j2k_decode(&frame, 12, values) == 0)
		for (size_t i = 0; i < n; i++)
			assert(values[i] >> frame.precision == 0);
	assert(values[n] == PAINT);
	return 0;
}
