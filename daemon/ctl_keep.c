/* ctl_keep.c: carzeroctl backup and verify: what an operator does for what the node must not lose.
 *
 * Both work beside a running node and without one, through the read-only connection: verify reads the
 * database and every file that it names, hashes them and compares; it changes nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

#include "store/embedding.h"

#include "dicom/scp.h"

#include "daemon/ctl.h"

#define BACKUPS 24
#define PAGE 64

int ctl_backup(const struct config *c)
{
	char path[4096], folder[4096], stamp[CLOCK_STAMP_MAX];
	struct err e;

	(void)snprintf(path, sizeof(path), "%s/carzerod.db", c->state_dir);
	(void)snprintf(folder, sizeof(folder), "%s/backup", c->state_dir);
	clock_stamp(clock_wall_ms(), stamp);
	if (store_backup(path, folder, stamp, BACKUPS, &e) < 0)
		ctl_stop(CTL_CANNOT, "%s", e.text);
	if (ctl_as_json)
		ctl_print_json(json_pack("{s:s+++}", "backup", folder, "/carzerod-", stamp, ".db"));
	else
		printf("%s/carzerod-%s.db\n", folder, stamp);
	return CTL_GOOD;
}

struct verify {
	const struct config *c;
	bool reports, embeddings;
	uint64_t good, bad, bytes;
	json_t *trouble;
};

static void trouble(struct verify *v, uint64_t file, int64_t row, const char *what)
{
	const char *box = v->embeddings ? "embeddings" : v->reports ? "reports" : "objects";

	v->bad++;
	if (ctl_as_json)
		(void)json_array_append_new(v->trouble, json_pack("{s:s, s:I, s:s}", "box", box, "row", (json_int_t)row, "what",
								  what));
	else
		printf("spool/%s/%02x/%016" PRIx64 " of %s %" PRId64 ": %s\n", box, (unsigned)(file >> 56), file,
		       v->reports ? "report" : "object", row, what);
}

/* An object's digest is of its data set, and stands in its seal too; a report's of the whole file. */
static const char *check_file(const struct verify *v, int fd, const uint8_t wanted[DIGEST_SIZE])
{
	uint8_t got[DIGEST_SIZE];
	struct spooled s = { .offset = 0 };

	if (!v->reports && spooled_read(fd, &s) < 0)
		return "its head or its length is not as it was sealed";
	if (digest_fd(fd, s.offset, got) < 0)
		return "it cannot be read";
	if (!v->reports && memcmp(s.digest, wanted, DIGEST_SIZE) != 0)
		return "its seal is not what the database says";
	return memcmp(got, wanted, DIGEST_SIZE) == 0 ? NULL : "its bytes have changed";
}

static int verify_one(uint64_t file, int64_t row, const uint8_t digest[DIGEST_SIZE], void *arg)
{
	struct verify *v = arg;
	const char *what;
	char path[4096];
	CLEANUP(close) int fd = -1;

	(void)snprintf(path, sizeof(path), "%s/spool/%s/%02x/%016" PRIx64, v->c->state_dir,
		       v->reports ? "reports" : "objects", (unsigned)(file >> 56), file);
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	what = fd >= 0 ? check_file(v, fd, digest) : errno == ENOENT ? "it is missing" : strerror(errno);
	if (what != NULL)
		trouble(v, file, row, what);
	else
		v->good++;
	return 0;
}

/* A reader's transaction would hold the log up for as long as all files take: the rows are listed first. */
struct listed {
	struct {
		uint64_t file;
		int64_t row;
		uint8_t digest[DIGEST_SIZE];
	} *item;
	size_t n, room;
};

static int list_one(uint64_t file, int64_t row, const uint8_t digest[DIGEST_SIZE], void *arg)
{
	struct listed *l = arg;

	if (l->n == l->room) {
		l->room = l->room != 0 ? 2 * l->room : 1024;
		l->item = xreallocarray(l->item, l->room, sizeof(*l->item));
	}
	l->item[l->n].file = file;
	l->item[l->n].row = row;
	memcpy(l->item[l->n++].digest, digest, DIGEST_SIZE);
	return 0;
}

static void verify_box(struct store *s, struct verify *v, bool reports)
{
	struct listed l = { 0 };

	v->reports = reports;
	ctl_check(s, store_each_digest(s, reports, list_one, &l), "the files");
	for (size_t i = 0; i < l.n; i++)
		(void)verify_one(l.item[i].file, l.item[i].row, l.item[i].digest, v);
	free(l.item);
}

/* It says itself what it is and whether it is whole. */
static const char *check_embedding(int fd, const struct instance *in)
{
	CLEANUP(free) uint16_t *values = NULL;
	struct embedding e;

	if (embedding_read_head(fd, &e) < 0)
		return "its head or its length is not as it was written";
	if (memcmp(e.digest, in->digest, DIGEST_SIZE) != 0 || memcmp(e.weights, in->weights, DIGEST_SIZE) != 0)
		return "it is of another object or of other weights";
	values = xcalloc((size_t)e.rows * e.columns, sizeof(*values)); /* both are bounded */
	return embedding_read_values(fd, &e, values) < 0 ? "its bytes have changed" : NULL;
}

static void verify_embeddings(struct store *s, struct verify *v)
{
	struct instance page[PAGE];
	const char *what;
	int64_t after = 0;
	char path[4096];
	size_t n = 0, i;

	v->reports = false;
	v->embeddings = true;
	do {
		ctl_check(s, store_list_embeddings(s, after, INT64_MIN, INT64_MAX, page, PAGE, &n), "the embeddings");
		for (i = 0; i < n; i++) {
			CLEANUP(close) int fd = -1;

			after = page[i].id;
			(void)snprintf(path, sizeof(path), "%s/spool/embeddings/%02x/%016" PRIx64, v->c->state_dir,
				       (unsigned)(page[i].embedding >> 56), page[i].embedding);
			fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
			what = fd >= 0 ? check_embedding(fd, &page[i]) : errno == ENOENT ? "it is missing" : strerror(errno);
			if (what != NULL)
				trouble(v, page[i].embedding, page[i].id, what);
			else
				v->good++;
		}
	} while (n == PAGE);
}

int ctl_verify(const struct config *c)
{
	struct store *s = ctl_open_store(c);
	struct verify v = { .c = c, .trouble = json_array() };
	int r = store_check(s);

	if (r == -EUCLEAN)
		ctl_stop(CTL_ATTENTION, "the database is not sound: %s", store_error(s));
	ctl_check(s, r, "the database");
	verify_box(s, &v, false);
	verify_box(s, &v, true);
	verify_embeddings(s, &v);
	if (ctl_as_json)
		ctl_print_json(json_pack("{s:I, s:O}", "good", (json_int_t)v.good, "trouble", v.trouble));
	else
		printf("database sound; %" PRIu64 " files as they were stored, %" PRIu64 " not\n", v.good, v.bad);
	json_decref(v.trouble);
	store_close(s);
	return v.bad == 0 ? CTL_GOOD : CTL_ATTENTION;
}
