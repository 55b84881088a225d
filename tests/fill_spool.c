/* fill_spool.c STATE N: N stored objects with their rows, as a stopped node would hold them: tiny, of a class that is
 * set aside.  For tests of the start.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fdio.h"
#include "base/mem.h"

#include "store/spool.h"
#include "store/store.h"

#include "dicom/spooled.h"

static void must(bool good, const char *what)
{
	if (good)
		return;
	(void)fprintf(stderr, "fill_spool: %s\n", what);
	exit(1);
}

/* Implicit VR little endian. */
static size_t put(uint8_t *p, uint16_t group, uint16_t element, const char *text)
{
	size_t n = strlen(text) + strlen(text) % 2;

	memset(p, 0, 8 + n);
	p[0] = (uint8_t)group, p[1] = (uint8_t)(group >> 8), p[2] = (uint8_t)element, p[3] = (uint8_t)(element >> 8);
	p[4] = (uint8_t)n;
	memcpy(p + 8, text, strlen(text));
	return 8 + n;
}

static void add(struct store *s, struct spool *spool, unsigned i)
{
	struct spooled head = { .calling_ae = "MODALITY" };
	struct instance in = { .state = INSTANCE_ASIDE, .received = clock_wall_ms() };
	struct spooled_place place;
	uint8_t data[512];
	bool duplicate;
	size_t n = 0;
	int fd;

	(void)snprintf(head.sop_class, sizeof(head.sop_class), "1.2.840.10008.5.1.4.1.1.2");
	(void)snprintf(head.syntax, sizeof(head.syntax), "1.2.840.10008.1.2");
	(void)snprintf(head.sop_uid, sizeof(head.sop_uid), "2.25.7%u", i);
	(void)snprintf(in.study_uid, sizeof(in.study_uid), "2.25.8%u", i / 10);
	(void)snprintf(in.series_uid, sizeof(in.series_uid), "2.25.9%u", i / 10);
	n += put(data + n, 0x0008, 0x0016, head.sop_class);
	n += put(data + n, 0x0008, 0x0018, head.sop_uid);
	n += put(data + n, 0x0020, 0x000d, in.study_uid);
	n += put(data + n, 0x0020, 0x000e, in.series_uid);
	digest_of(data, n, in.digest);
	fd = spool_create(spool, &in.file);
	must(fd >= 0 && spooled_begin(fd, &head, &place) == 0 && write_full(fd, data, n) == 0 &&
	     spooled_seal(fd, &place, n, in.digest) == 0 && close(fd) == 0 &&
	     spool_move(spool, in.file, SPOOL_INCOMING, SPOOL_OBJECTS) == 0, "a file");
	(void)snprintf(in.sop_class, sizeof(in.sop_class), "%s", head.sop_class);
	(void)snprintf(in.sop_uid, sizeof(in.sop_uid), "%s", head.sop_uid);
	(void)snprintf(in.syntax, sizeof(in.syntax), "%s", head.syntax);
	(void)snprintf(in.calling_ae, sizeof(in.calling_ae), "MODALITY");
	in.size = n;
	if (s != NULL)
		must(store_add_instance(s, &in, 1000, &duplicate) == 0, "a row");
}

int main(int argc, char **argv)
{
	struct store *s = NULL;
	struct spool *spool;
	struct err e;
	char path[4096];
	uint64_t n = 0;

	must(argc > 2 && str_to_u64(argv[2], 1, 1000000, &n), "usage: fill_spool STATE N [no-rows]");
	(void)snprintf(path, sizeof(path), "%s/carzerod.db", argv[1]);
	must(argc > 3 || store_open(path, &s, &e) == 0, "the store does not open");
	must(spool_open(argv[1], &spool, &e) == 0, "the spool does not open");
	must(s == NULL || store_begin(s) == 0, "begin");
	for (unsigned i = 0; i < n; i++)
		add(s, spool, i);
	must(spool_sync(spool) == 0, "sync");
	must(s == NULL || store_commit(s) == 0, "commit");
	spool_close(spool);
	store_close(s);
	return 0;
}
