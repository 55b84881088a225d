/* recovery.c: from a stopped or killed node to one that may speak.
 *
 * The two invariants of schema.sql are checked, claims taken back, what was half done is finished or
 * cleared.  After a stop that was not clean, the database is looked over (quick_check), and the
 * objects that were being analysed are suspects: they are analysed one at a time, so that one that
 * takes the node down cannot take its neighbours with it, again and again.
 *
 * It reads names and rows, never the files themselves: ten thousand objects are a matter of a second.
 * Only objects that no row names are read, by carzerod-maint: sealed ones whose digest is right are
 * taken as if they had just come.  Either their sender was never answered, and its repeat will be known;
 * or the database is older than the spool, and they are all that is left of a promise.
 *
 * A database that is not sound is renamed, and the newest good backup takes its place; without one,
 * the spool alone makes a new one.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/fdio.h"
#include "base/log.h"
#include "base/mem.h"

#include "store/embedding.h"

#include "daemon/keeper.h"
#include "daemon/notify.h"

#define CHECK_TIME_MS 600000 /* what we ask the service manager for, to look over a large database */
#define EXAMINE_MS 120000 /* to read one object */
#define ADOPT_AT_ONCE 64
#define AWAY_MS (30ll * 24 * 3600 * 1000)

struct files { /* ids found in a box */
	uint64_t *id;
	size_t n, room;
};

static int collect(uint64_t id, void *arg)
{
	struct files *f = arg;

	if (f->n == f->room) {
		f->room = f->room != 0 ? 2 * f->room : 1024;
		f->id = xreallocarray(f->id, f->room, sizeof(*f->id));
	}
	f->id[f->n++] = id;
	return 0;
}

static int by_id(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

struct reconcile {
	struct files files;
	bool *named; /* [files.n] */
	unsigned lost;
};

static int mark_named(uint64_t file, int64_t row, void *arg)
{
	struct reconcile *rec = arg;
	uint64_t *found = rec->files.n == 0 ? NULL
					    : bsearch(&file, rec->files.id, rec->files.n, sizeof(file), by_id);

	if (found == NULL) {
		rec->lost++;
		log_error("row %lld names a file that is missing from the spool; was the disk restored in part?",
			  (long long)row);
	} else
		rec->named[found - rec->files.id] = true;
	return 0;
}

/* ---- objects without a row ------------------------------------------------------------------------------ */

static void start_examiner(struct keeper *k, struct helper *h)
{
	struct err e;

	helper_init(h, "carzerod-maint");
	h->argv[0] = "-c";
	h->argv[1] = k->config_path;
	h->argv[2] = "--";
	h->argv[3] = "examine";
	h->reach = (struct helper_reach){ .limited = true, .reads = { k->running } };
	if (helper_start(h, NULL, 0, clock_boot_ms(), &e) < 0)
		fatal(FATAL_TEMPORARY, "%s: objects without a row cannot be read", e.text);
}

static void stop_examiner(struct helper *h)
{
	pid_t pid = h->pid;

	helper_ended(h, 0);
	(void)waitpid(pid, NULL, 0);
}

/* What the file says of itself; false: it is not whole. */
static bool examine(struct keeper *k, struct helper *h, uint64_t id, union ipc_message *ret, int64_t *ret_received)
{
	CLEANUP(close) int fd = spool_read(k->spool, SPOOL_OBJECTS, id);
	struct pollfd p = { .fd = h->sock, .events = POLLIN };
	int fds[IPC_FDS_MAX];
	struct stat st;
	size_t n = 0;

	if (fd < 0 || fstat(fd, &st) < 0)
		return false;
	*ret_received = (int64_t)st.st_mtim.tv_sec * 1000;
	ipc_begin(ret, IPC_FILE, id);
	if (ipc_send(h->sock, ret, &fd, 1) < 0 || poll(&p, 1, EXAMINE_MS) != 1 ||
	    ipc_receive(h->sock, IPC_ASSOCIATION, ret, fds, &n) != 1 || ret->h.token != id) {
		log_error("object file %016llx: the process that reads it died or was too slow", (unsigned long long)id);
		stop_examiner(h);
		start_examiner(k, h);
		return false;
	}
	return ret->h.type == IPC_STORED;
}

static void adopt_or_set_aside(struct keeper *k, const struct reconcile *rec)
{
	unsigned adopted = 0, aside = 0;
	union ipc_message m;
	struct helper h;
	int64_t received;

	start_examiner(k, &h);
	keeper_must(k, store_begin(k->store), "begin to adopt");
	for (size_t i = 0; i < rec->files.n; i++) {
		uint64_t id = rec->files.id[i];

		if (rec->named[i])
			continue;
		if (!failpoint_skips("recovery.adopt") && examine(k, &h, id, &m, &received)) {
			keeper_must(k, intake_adopt(k, &m.object, id, received), "adopt an object");
			adopted++;
		} else {
			keeper_must(k, spool_move(k->spool, id, SPOOL_OBJECTS, SPOOL_QUARANTINE), "set aside an object");
			aside++;
		}
		if ((adopted + aside) % ADOPT_AT_ONCE == 0) {
			keeper_sync(k);
			keeper_must(k, store_commit(k->store), "commit adopted objects");
			keeper_must(k, store_begin(k->store), "begin to adopt");
			notify_extend(EXAMINE_MS);
		}
	}
	keeper_sync(k);
	keeper_must(k, store_commit(k->store), "commit adopted objects");
	stop_examiner(&h);
	log_warning("recovery: %u objects without a row taken as received, %u that are not whole moved to quarantine/", adopted,
		    aside);
}

/* The two invariants of schema.sql, checked: rows without files are alarms; files without rows were
 * never acknowledged, or are newer than the database.  Reports without a row are made again. */
static void reconcile(struct keeper *k, bool reports)
{
	enum spool_box box = reports ? SPOOL_REPORTS : SPOOL_OBJECTS;
	struct reconcile rec = { 0 };
	unsigned orphans = 0;
	size_t i;

	keeper_must(k, spool_scan(k->spool, box, collect, &rec.files, NULL), "scan the spool");
	if (rec.files.n > 0)
		qsort(rec.files.id, rec.files.n, sizeof(*rec.files.id), by_id);
	rec.named = xcalloc(rec.files.n, sizeof(*rec.named));
	keeper_must(k, store_each_file(k->store, reports, mark_named, &rec), "list files");
	for (i = 0; i < rec.files.n; i++) {
		if (rec.named[i])
			continue;
		orphans++;
		if (reports)
			keeper_must(k, spool_remove(k->spool, box, rec.files.id[i]), "remove a report without a row");
	}
	if (orphans > 0 && reports)
		log_warning("recovery: %u reports without a row removed", orphans);
	else if (orphans > 0)
		adopt_or_set_aside(k, &rec);
	k->lost_objects += rec.lost;
	free(rec.files.id);
	free(rec.named);
}

/* ---- embeddings --------------------------------------------------------------------------------------------- */

#define PAGE 64

/* Rows name files, or none. */
static void named_embeddings(struct keeper *k, struct reconcile *rec)
{
	struct instance *page = xcalloc(PAGE, sizeof(*page));
	int64_t after = 0;
	uint64_t *found;
	size_t n = 0, i;

	do {
		keeper_must(k, store_list_embeddings(k->store, after, INT64_MIN, INT64_MAX, page, PAGE, &n), "list embeddings");
		for (i = 0; i < n; i++) {
			after = page[i].id;
			found = rec->files.n == 0 ? NULL : bsearch(&page[i].embedding, rec->files.id, rec->files.n,
								   sizeof(*rec->files.id), by_id);
			if (found != NULL)
				rec->named[found - rec->files.id] = true;
			else
				rec->lost++;
			if (found == NULL)
				keeper_must(k, store_forget_embedding(k->store, page[i].id), "forget an embedding");
		}
	} while (n == PAGE);
	free(page);
}

/* To the row that it was made for, by what its head says. */
static bool adopt_embedding(struct keeper *k, uint64_t id)
{
	CLEANUP(close) int fd = spool_read(k->spool, SPOOL_EMBEDDINGS, id);
	struct instance of = { .id = 0 };
	struct embedding e;
	int r;

	if (fd < 0 || embedding_read_head(fd, &e) < 0 || e.object > INT64_MAX)
		return false;
	of.file = e.object;
	memcpy(of.digest, e.digest, DIGEST_SIZE);
	memcpy(of.weights, e.weights, DIGEST_SIZE);
	(void)str_copy(of.recipe, sizeof(of.recipe), e.recipe); /* same sizes */
	(void)str_copy(of.precision, sizeof(of.precision), e.precision);
	r = store_adopt_embedding(k->store, &of, id);
	if (r < 0 && r != -ENOENT)
		keeper_must(k, r, "take an embedding");
	return r == 0;
}

/* They are worth what they save and no more: one that nobody names goes, one that is missing is not missed. */
static void reconcile_embeddings(struct keeper *k)
{
	struct reconcile rec = { 0 };
	unsigned adopted = 0, removed = 0;
	size_t i;

	keeper_must(k, spool_scan(k->spool, SPOOL_EMBEDDINGS, collect, &rec.files, NULL), "scan the embeddings");
	if (rec.files.n > 0)
		qsort(rec.files.id, rec.files.n, sizeof(*rec.files.id), by_id);
	rec.named = xcalloc(rec.files.n, sizeof(*rec.named));
	keeper_must(k, store_begin(k->store), "begin with embeddings");
	named_embeddings(k, &rec);
	for (i = 0; i < rec.files.n; i++) {
		if (rec.named[i])
			continue;
		if (adopt_embedding(k, rec.files.id[i])) {
			adopted++;
			continue;
		}
		removed++;
		keeper_must(k, spool_remove(k->spool, SPOOL_EMBEDDINGS, rec.files.id[i]), "remove an embedding");
	}
	keeper_sync(k);
	keeper_must(k, store_commit(k->store), "commit embeddings");
	if (adopted + removed + rec.lost > 0)
		log_warning("recovery: %u embeddings without a row found theirs, %u of nobody removed, %u rows had lost theirs",
			    adopted, removed, rec.lost);
	free(rec.files.id);
	free(rec.named);
}

static int remove_incoming(uint64_t id, void *arg)
{
	struct keeper *k = arg;

	return spool_remove(k->spool, SPOOL_INCOMING, id);
}

/* UIDs are named after this installation: a database that is made anew must not make another one of it. */
static void keep_site(struct keeper *k)
{
	char path[4096], tmp[4096];
	int fd;

	if (snprintf(path, sizeof(path), "%s/site", k->config->state_dir) >= (int)sizeof(path) ||
	    snprintf(tmp, sizeof(tmp), "%s/site.tmp", k->config->state_dir) >= (int)sizeof(tmp))
		fatal(FATAL_CONFIG, "state_dir: path too long");
	if (access(path, F_OK) == 0)
		return;
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0 || write_full(fd, k->site_text, strlen(k->site_text)) < 0 || fsync(fd) < 0 || close(fd) < 0 ||
	    rename(tmp, path) < 0)
		fatal(FATAL_IO, "%s: cannot keep this installation's UUID: %s", path, strerror(errno));
}

/* The file beside the database; -ENOENT. */
static int read_site(struct keeper *k)
{
	char path[4096];
	int fd, r;

	(void)snprintf(path, sizeof(path), "%s/site", k->config->state_dir);
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = read_full(fd, k->site_text, sizeof(k->site_text) - 1);
	(void)close(fd); /* only read */
	k->site_text[sizeof(k->site_text) - 1] = '\0';
	if (r == 0)
		r = uuid_parse(k->site_text, k->site);
	if (r < 0)
		fatal(FATAL_CONFIG, "%s: is no UUID; the one of this installation stands in carzerod.db of a backup, setting \"site\"",
		      path);
	keeper_must(k, store_set_setting(k->store, "site", k->site_text), "record this installation's UUID");
	return 0;
}

static void load_site(struct keeper *k)
{
	int r = store_get_setting(k->store, "site", k->site_text, sizeof(k->site_text));

	if (r == -ENOENT)
		r = read_site(k);
	if (r == -ENOENT) {
		uint8_t fresh[16];

		if (getrandom(fresh, sizeof(fresh), 0) != (ssize_t)sizeof(fresh))
			fatal(FATAL_OS, "getrandom: %s", strerror(errno));
		fresh[6] = (uint8_t)((fresh[6] & 0x0f) | 0x40); /* RFC 9562 5.4 */
		fresh[8] = (uint8_t)((fresh[8] & 0x3f) | 0x80);
		uuid_text(fresh, k->site_text);
		keeper_must(k, store_set_setting(k->store, "site", k->site_text), "record this installation's UUID");
		r = 0;
	}
	keeper_must(k, r, "read this installation's UUID");
	if (uuid_parse(k->site_text, k->site) < 0)
		fatal(FATAL_CONFIG, "setting \"site\" in the database is no UUID");
	keep_site(k);
}

static int open_checked(struct keeper *k, const char *path, struct err *e)
{
	char running[2] = "";
	int r = store_open(path, &k->store, e);

	if (r < 0)
		return r;
	if (store_get_setting(k->store, "running", running, sizeof(running)) < 0 || strcmp(running, "1") != 0)
		return 0;
	notify_extend(CHECK_TIME_MS);
	r = store_check(k->store);
	if (r < 0) {
		(void)err_set(e, r, "%s: %s", path, store_error(k->store));
		store_close(k->store);
		k->store = NULL;
	}
	return r;
}

int recovery_open(struct keeper *k, const char *path, struct err *e)
{
	char stamp[CLOCK_STAMP_MAX], folder[4096], name[64];
	int r = k->rebuild ? store_open(path, &k->store, e) : open_checked(k, path, e);

	if (k->rebuild && (r == 0 || r == -EUCLEAN)) { /* else somebody uses it, or it is a newer program's */
		store_close(k->store);
		k->store = NULL;
		clock_stamp(clock_wall_ms(), stamp);
		r = store_set_aside(path, stamp, e);
		return r == 0 ? store_open(path, &k->store, e) : r;
	}
	if (r != -EUCLEAN)
		return r;
	log_error("%s: the database is damaged: it is moved aside and the newest good backup takes its place", e->text);
	clock_stamp(clock_wall_ms(), stamp);
	(void)snprintf(folder, sizeof(folder), "%s/backup", k->config->state_dir);
	r = store_set_aside(path, stamp, e);
	if (r < 0)
		return r;
	r = store_restore(path, folder, name, e);
	if (r < 0 && r != -ENOENT)
		return r;
	if (r == 0)
		log_warning("restored from %s: what came since is read from the spool", name);
	else
		log_warning("there is no good backup: the database is made anew from the spool");
	return open_checked(k, path, e);
}

/* Whether the last run ended as it should; from here on this one has not. */
static bool was_clean(struct keeper *k)
{
	char running[2] = "";
	int r = store_get_setting(k->store, "running", running, sizeof(running));

	if (r != -ENOENT)
		keeper_must(k, r, "read how the last run ended");
	keeper_must(k, store_set_setting(k->store, "running", "1"), "record that this run has begun");
	return r == -ENOENT || strcmp(running, "0") == 0;
}

void recovery_end(struct keeper *k)
{
	char text[24];

	(void)snprintf(text, sizeof(text), "%lld", (long long)k->now);
	keeper_must(k, store_set_setting(k->store, "seen", text), "record the time");
	keeper_must(k, store_set_setting(k->store, "running", "0"), "record a clean end");
}

/* The clock since the last clean end: a battery that died, a wrong year. */
static void look_at_clock(struct keeper *k)
{
	char text[24];
	int64_t seen;

	if (store_get_setting(k->store, "seen", text, sizeof(text)) < 0)
		return;
	seen = strtoll(text, NULL, 10);
	if (k->now < seen - 1000)
		log_warning("the clock is %lld s behind the last end of the node: is its battery dead?",
			    (long long)(seen - k->now) / 1000);
	if (k->now > seen + AWAY_MS) {
		k->retention_hold = clock_boot_ms() + RETENTION_HOLD_MS;
		log_warning("the node was away for %lld days, or the clock is wrong: nothing expires for a day",
			    (long long)((k->now - seen) / (24 * 3600 * 1000)));
	}
}

static void find_suspects(struct keeper *k)
{
	keeper_must(k, store_list_claimed(k->store, k->suspect, ARRAY_SIZE(k->suspect), &k->n_suspects),
		    "list what was being analysed");
	if (k->n_suspects > 0)
		log_warning("recovery: %zu objects were being analysed when the node ended: one at a time until they are done",
			    k->n_suspects);
}

void recovery_cleared(struct keeper *k, int64_t instance)
{
	size_t i;

	for (i = 0; i < k->n_suspects; i++) {
		if (k->suspect[i] == instance) {
			k->suspect[i] = k->suspect[--k->n_suspects];
			return;
		}
	}
}

static void after_unclean_end(struct keeper *k)
{
	log_warning("recovery: the node did not stop by itself the last time");
	find_suspects(k);
}

void recovery_run(struct keeper *k)
{
	int64_t started = clock_boot_ms();
	unsigned claims = 0;
	bool clean;

	k->now = clock_wall_ms();
	load_site(k);
	clean = was_clean(k);
	if (!clean)
		after_unclean_end(k);
	look_at_clock(k);
	keeper_must(k, store_recover(k->store, k->now, &claims), "take claims back");
	failpoint("keeper.recovered");
	keeper_clamp(k);
	keeper_must(k, spool_scan(k->spool, SPOOL_INCOMING, remove_incoming, k, NULL), "clear incoming/");
	retention_recover(k); /* before files without a row are looked for: these are finished */
	reconcile(k, false);
	facts_recover(k); /* objects first; then a report that they name has a row */
	reconcile(k, true);
	reconcile_embeddings(k); /* last: it goes by what the rows have become */
	keeper_sync(k);
	log_info("recovered in %lld ms: %u claims taken back%s", (long long)(clock_boot_ms() - started), claims,
		 clean ? "" : ", after an unclean end");
}
