/* maint.c: carzerod-maint, the keeper's slow work: what reads much, and must hold nobody up.
 *
 *	carzerod-maint -c FILE backup     copies the database into STATE/backup, checks the copy, keeps 24
 *	carzerod-maint -c FILE examine    at the start: reads objects that no row names, through descriptors
 *
 * examine speaks the association's half of ipc.h: for every FILE it answers STORED, with what the file
 * says of itself (File Meta, seal, the four UIDs), once the bytes are those that were sealed; else
 * ABANDON.  So the keeper learns what was stored without ever parsing it.
 *
 * Never: writes to the database or the spool.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include "store/store.h"

#include "dicom/scp.h"
#include "dicom/sniff.h"
#include "dicom/spooled.h"

#include "daemon/begin.h"
#include "daemon/config.h"
#include "daemon/ipc.h"
#include "daemon/sandbox.h"

#define BACKUPS 24
#define CHUNK (1 << 20)
#define EXAMINE_MEMORY (512ull << 20)
#define EXAMINE_FILES 16

static void cleanup_sniffer_free(struct sniffer **s)
{
	sniffer_free(*s);
}

static int backup(const struct config *c)
{
	char path[4096], folder[4096], stamp[CLOCK_STAMP_MAX];
	struct err e;

	(void)snprintf(path, sizeof(path), "%s/carzerod.db", c->state_dir);
	(void)snprintf(folder, sizeof(folder), "%s/backup", c->state_dir);
	clock_stamp(clock_wall_ms(), stamp);
	if (store_backup(path, folder, stamp, BACKUPS, &e) < 0) {
		log_error("backup: %s; tried again in an hour", e.text);
		return EXIT_FAILURE;
	}
	log_info("backup: %s/carzerod-%s.db", folder, stamp);
	return EXIT_SUCCESS;
}

/* The whole data set, once: its digest and its UIDs. */
static int read_data_set(int fd, const struct spooled *s, uint8_t digest[DIGEST_SIZE], struct sniff *found)
{
	CLEANUP(digest_free) struct digest *d = digest_new();
	CLEANUP(sniffer_free) struct sniffer *sniffer = sniffer_new(sniff_syntax_of(s->syntax));
	CLEANUP(free) uint8_t *chunk = xcalloc(1, CHUNK);
	ssize_t n;

	if (sniffer == NULL)
		return -ENOMEM;
	if (lseek(fd, (off_t)s->offset, SEEK_SET) < 0)
		return -errno;
	while ((n = read(fd, chunk, CHUNK)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		digest_update(d, chunk, (size_t)n);
		(void)sniffer_feed(sniffer, chunk, (size_t)n);
	}
	digest_final(d, digest);
	return sniffer_end(sniffer, true, found);
}

static int examine_one(const struct config *c, int fd, struct ipc_object *o)
{
	struct sniff found;
	struct spooled s;
	int r;

	r = spooled_read(fd, &s);
	if (r < 0)
		return r;
	r = read_data_set(fd, &s, o->digest, &found);
	if (r < 0)
		return r;
	if (memcmp(o->digest, s.digest, DIGEST_SIZE) != 0 || strcmp(found.sop_uid, s.sop_uid) != 0)
		return -EBADMSG;
	(void)str_copy(o->sop_class, UID_MAX, s.sop_class);
	(void)str_copy(o->sop_uid, UID_MAX, s.sop_uid);
	(void)str_copy(o->study_uid, UID_MAX, found.study_uid);
	(void)str_copy(o->series_uid, UID_MAX, found.series_uid);
	(void)str_copy(o->syntax, UID_MAX, s.syntax);
	(void)str_copy(o->calling_ae, AE_TITLE_MAX, s.calling_ae);
	(void)str_copy(o->called_ae, AE_TITLE_MAX, c->ae_title);
	o->size = s.size;
	o->analysed_class = spooled_is_analysed(s.sop_class);
	o->study_date = found.study_date;
	return 0;
}

static int examine(const struct config *c)
{
	union ipc_message m, answer;
	int fds[IPC_FDS_MAX];
	struct err e;
	size_t n = 0;

	digest_free(digest_new()); /* libcrypto reads its configuration at the first use */
	if (sandbox_limit(EXAMINE_MEMORY, 0, EXAMINE_FILES, 0, &e) < 0 || sandbox_enter(SANDBOX_IMAGE, &e) < 0)
		fatal(FATAL_OS, "%s", e.text);
	while (ipc_receive(IPC_FD, IPC_KEEPER, &m, fds, &n) == 1) {
		if (m.h.type != IPC_FILE || n != 1)
			return EXIT_FAILURE;
		ipc_begin(&answer, IPC_STORED, m.h.token);
		if (examine_one(c, fds[0], &answer.object) < 0)
			ipc_begin(&answer, IPC_ABANDON, m.h.token);
		(void)close(fds[0]);
		if (ipc_send(IPC_FD, &answer, NULL, 0) < 0)
			return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	struct config *config;

	config = begin_helper("carzerod-maint", argc, argv, NULL);
	if (optind < argc && strcmp(argv[optind], "backup") == 0)
		return backup(config);
	if (optind < argc && strcmp(argv[optind], "examine") == 0)
		return examine(config);
	fatal(FATAL_CONFIG, "started by carzerod(8), not by hand");
}
