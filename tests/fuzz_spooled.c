/* fuzz_spooled.c: no bytes of a spool file's head may make its readers read outside it, or accept a seal
 * that is not whole.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fdio.h"
#include "base/str.h"

#include "dicom/scp.h"
#include "dicom/spooled.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void believe(const struct spooled *s, size_t size)
{
	if (!uid_valid(s->sop_class) || !uid_valid(s->sop_uid) || !uid_valid(s->syntax) || s->offset > size ||
	    strlen(s->calling_ae) >= AE_TITLE_MAX)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	struct spooled s;

	if (fd < 0)
		fd = fd_memory("spooled");
	if (ftruncate(fd, 0) < 0 || pwrite_full(fd, data, size, 0) < 0)
		return 0;
	if (spooled_read(fd, &s) == 0) {
		believe(&s, size);
		if (s.size != size - s.offset)
			abort(); /* a file that was cut off is not whole */
	}
	if (part10_head(data, size, &s) == 0)
		believe(&s, size);
	return 0;
}
