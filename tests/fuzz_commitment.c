/* fuzz_commitment.c: any bytes as an N-EVENT-REPORT's data set; the first chooses the VR. */
#include <assert.h>
#include <stdint.h>

#include "dicom/commitment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct commitment c;
	size_t i;

	if (size == 0 || commitment_read(data + 1, size - 1, data[0] % 2 == 0, &c) < 0)
		return 0;
	assert(uid_valid(c.transaction) && c.n <= COMMITMENT_ITEMS_MAX);
	for (i = 0; i < c.n; i++)
		assert(uid_valid(c.item[i].sop_uid) && (c.item[i].sop_class[0] == '\0' || uid_valid(c.item[i].sop_class)));
	return 0;
}
