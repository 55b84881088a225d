/* fuzz_sniff.c: byte 0 chooses what the rest is: a data set in one of the four ways of writing, a
 * command set, or a file with a head.
 *
 * Holds: nothing crashes; a data set in pieces gives the verdict that it gives whole; every UID that
 * comes out is valid or empty; a command that is written again reads as itself.
 */
#include <assert.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "base/fdio.h"
#include "base/mem.h"

#include "dicom/command.h"
#include "dicom/sniff.h"
#include "dicom/spooled.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_uid(const char *uid)
{
	assert(uid[0] == '\0' || uid_valid(uid));
}

static void fuzz_data_set(enum sniff_syntax syntax, const uint8_t *p, size_t n)
{
	struct sniffer *s = sniffer_new(syntax);
	struct sniff whole = { .study_date = 0 }, pieces = { .study_date = 0 };
	int r = sniff_header(p, n, true, syntax, &whole);
	size_t piece = 1;

	assert(s != NULL);
	for (size_t i = 0; i < n; i += piece) {
		piece = piece % 7 + 1;
		(void)sniffer_feed(s, p + i, piece < n - i ? piece : n - i);
	}
	assert(sniffer_end(s, true, &pieces) == r);
	if (r == 0)
		assert(memcmp(&whole, &pieces, sizeof(whole)) == 0);
	sniffer_free(s);
	check_uid(whole.sop_class);
	check_uid(whole.sop_uid);
	check_uid(whole.study_uid);
	check_uid(whole.series_uid);
}

static void fuzz_command(const uint8_t *p, size_t n)
{
	uint8_t out[COMMAND_WRITE_MAX];
	struct command c, again;

	if (command_read(p, n, &c) < 0)
		return;
	check_uid(c.sop_class);
	check_uid(c.sop_uid);
	assert(command_read(out, command_write(&c, out), &again) == 0);
	assert(again.field == c.field && again.message_id == c.message_id &&
	       again.data_set == c.data_set && strcmp(again.sop_uid, c.sop_uid) == 0);
}

static void fuzz_file(const uint8_t *p, size_t n)
{
	CLEANUP(close) int fd = fd_memory("file");
	struct spooled s;

	if (part10_head(p, n, &s) == 0) {
		assert(s.offset <= n);
		check_uid(s.sop_class);
	}
	if (fd < 0 || write_full(fd, p, n) < 0)
		return;
	if (spooled_read(fd, &s) == 0)
		assert(s.offset + s.size == n && ae_title_valid(s.calling_ae));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	switch (data[0] % 6) {
	case 4:
		fuzz_command(data + 1, size - 1);
		break;
	case 5:
		fuzz_file(data + 1, size - 1);
		break;
	default:
		fuzz_data_set((enum sniff_syntax)(data[0] % 6), data + 1, size - 1);
	}
	return 0;
}
