/* spool.c: files by number in six boxes.
 *
 * Job: give out new files, rename them from box to box, delete them, list them, and make all of
 * that durable when spool_sync() is called.
 *
 * Promise: a rename never replaces a file; after a spool_sync() that returned 0 every rename and
 * removal before it survives a power cut.  The 128 directories under objects/ and reports/ are made
 * and synced when the spool is opened, so that no later step has to sync a parent as well.
 *
 * A directory is opened again for its fsync instead of being held open: 256 descriptors kept for
 * a call of 2 us would be a poor trade.  The touched ones are remembered as bits; a bit goes only
 * after its fsync has succeeded.
 *
 * Never: reads or judges what is in a file, follows a link, uses a peer's bytes in a name, retries
 * an fsync that failed.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "base/mem.h"
#include "base/str.h"

#include "store/spool.h"

#define FAN 128           /* first two hex digits of a 63-bit id: 00 to 7f */
#define FAN_RUN 256       /* files in a row that share a directory, so that those of one commit want one fsync and not one each */
#define ID_DIGITS 16
#define NAME_SIZE (2 + 1 + ID_DIGITS + 1) /* "XX/ID" */
#define CREATE_TRIES 16   /* two equal 63-bit numbers in a row mean a broken generator, not bad luck */

static const struct {
	const char *name;
	bool fanned;
} boxes[SPOOL_BOX_COUNT] = {
	[SPOOL_INCOMING] = { "incoming", false },
	[SPOOL_OBJECTS] = { "objects", true },
	[SPOOL_REPORTS] = { "reports", true },
	[SPOOL_QUARANTINE] = { "quarantine", false },
	[SPOOL_FACTS] = { "facts", true },
	[SPOOL_EMBEDDINGS] = { "embeddings", true },
};

struct spool {
	int root;                            /* STATE/spool */
	int box[SPOOL_BOX_COUNT];
	bool touched[SPOOL_BOX_COUNT][FAN];  /* a flat box uses [0] */
	unsigned created;                    /* files, for the directory of the next */
	uint64_t fan;                        /* that is theirs for now */
};

static void cleanup_spool_close(struct spool **s)
{
	spool_close(*s);
}

/* ---- names ---------------------------------------------------------------------------------- */

static unsigned fan_of(enum spool_box box, uint64_t id)
{
	return boxes[box].fanned ? (unsigned)(id >> 56) : 0;
}

static void name_of(enum spool_box box, uint64_t id, char ret[NAME_SIZE])
{
	if (boxes[box].fanned)
		(void)snprintf(ret, NAME_SIZE, "%02x/%016llx", fan_of(box, id), (unsigned long long)id);
	else
		(void)snprintf(ret, NAME_SIZE, "%016llx", (unsigned long long)id);
}

static bool parse_id(const char *name, uint64_t *ret)
{
	uint64_t id = 0;

	for (size_t i = 0; i < ID_DIGITS; i++) {
		char c = name[i];

		if (c >= '0' && c <= '9')
			id = id << 4 | (uint64_t)(c - '0');
		else if (c >= 'a' && c <= 'f') /* upper case is a stranger: one file, one name */
			id = id << 4 | (uint64_t)(c - 'a' + 10);
		else
			return false;
	}
	if (name[ID_DIGITS] != '\0' || id == 0 || id > INT64_MAX)
		return false;
	*ret = id;
	return true;
}

/* ---- opening -------------------------------------------------------------------------------- */

static int open_dir(int at, const char *name)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* Makes a directory unless it is there; 1 when it was made. */
static int make_dir(int at, const char *name)
{
	struct stat st;

	if (mkdirat(at, name, 0700) == 0)
		return 1;
	if (errno != EEXIST)
		return -errno;
	if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

/* The parent is synced even when nothing was made: a crash may have come between mkdir and fsync. */
static int make_fan(int box)
{
	char name[3];
	int r;

	for (unsigned i = 0; i < FAN; i++) {
		(void)snprintf(name, sizeof(name), "%02x", i);
		r = make_dir(box, name);
		if (r < 0)
			return r;
	}
	return fsync(box) < 0 ? -errno : 0;
}

static int open_box(struct spool *s, enum spool_box box)
{
	int r;

	r = make_dir(s->root, boxes[box].name);
	if (r < 0)
		return r;
	s->box[box] = open_dir(s->root, boxes[box].name);
	if (s->box[box] < 0)
		return s->box[box];
	return boxes[box].fanned ? make_fan(s->box[box]) : 0;
}

/* Root passes every permission check, so this also finds a file system mounted read-only. */
static int check_writable(int dir)
{
	return faccessat(dir, ".", R_OK | W_OK | X_OK, AT_EACCESS) < 0 ? -errno : 0;
}

static int open_root(struct spool *s, int state)
{
	int r;

	r = make_dir(state, "spool");
	if (r < 0)
		return r;
	s->root = open_dir(state, "spool");
	if (s->root < 0)
		return s->root;
	r = check_writable(s->root);
	if (r < 0)
		return r;
	return fsync(state) < 0 ? -errno : 0;
}

static struct spool *spool_new(void)
{
	struct spool *s = xcalloc(1, sizeof(*s));

	s->root = -1;
	for (unsigned box = 0; box < SPOOL_BOX_COUNT; box++)
		s->box[box] = -1;
	return s;
}

int spool_open(const char *state_dir, struct spool **ret, struct err *e)
{
	CLEANUP(spool_close) struct spool *s = spool_new();
	CLEANUP(close) int state = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r;

	if (state < 0 && errno == ENOTDIR)
		return err_set(e, -ENOTDIR, "%s: the state directory is not a directory", state_dir);
	if (state < 0)
		return err_set(e, -errno, "%s: cannot open the state directory: %s", state_dir,
			       strerror(errno));
	r = check_writable(state);
	if (r < 0)
		return err_set(e, r, "%s: the state directory is not writable for uid %u: %s", state_dir,
			       (unsigned)geteuid(), strerror(-r));
	r = open_root(s, state);
	if (r < 0)
		return err_set(e, r, "%s/spool: cannot make or open it: %s", state_dir, strerror(-r));
	for (unsigned box = 0; box < SPOOL_BOX_COUNT; box++) {
		r = open_box(s, box);
		if (r < 0)
			return err_set(e, r, "%s/spool/%s: cannot make or open it: %s", state_dir,
				       boxes[box].name, strerror(-r));
	}
	if (fsync(s->root) < 0)
		return err_set(e, -errno, "%s/spool: cannot sync it: %s", state_dir, strerror(errno));
	*ret = TAKE(s);
	return 0;
}

void spool_close(struct spool *s)
{
	if (s == NULL)
		return;
	for (unsigned box = 0; box < SPOOL_BOX_COUNT; box++)
		if (s->box[box] >= 0)
			(void)close(s->box[box]); /* directories: nothing is lost in a close */
	if (s->root >= 0)
		(void)close(s->root);
	free(s);
}

/* ---- one file ------------------------------------------------------------------------------- */

#define LOW_BITS (UINT64_MAX >> 8) /* of an id, below its directory */

static int random_id(struct spool *s, uint64_t *ret)
{
	uint64_t id = 0;

	while ((id & LOW_BITS) == 0) {
		ssize_t n = getrandom(&id, sizeof(id), 0);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n != sizeof(id))
			id = 0;
	}
	if (s->created++ % FAN_RUN == 0)
		s->fan = id >> 56 & (FAN - 1);
	*ret = (id & LOW_BITS) | s->fan << 56;
	return 0;
}

int spool_create(struct spool *s, uint64_t *ret_id)
{
	char name[NAME_SIZE];
	uint64_t id = 0;
	int r, fd;

	r = failpoint_error("spool.create");
	if (r < 0)
		return r;
	for (unsigned i = 0; i < CREATE_TRIES; i++) {
		r = random_id(s, &id);
		if (r < 0)
			return r;
		name_of(SPOOL_INCOMING, id, name);
		fd = openat(s->box[SPOOL_INCOMING], name,
			    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd >= 0) {
			failpoint("spool.created");
			*ret_id = id;
			return fd;
		}
		if (errno != EEXIST)
			return -errno;
	}
	return -EEXIST;
}

int spool_read(struct spool *s, enum spool_box box, uint64_t id)
{
	char name[NAME_SIZE];
	int fd;

	name_of(box, id, name);
	fd = openat(s->box[box], name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int spool_append(struct spool *s, enum spool_box box, uint64_t id)
{
	char name[NAME_SIZE];
	int fd;

	name_of(box, id, name);
	fd = openat(s->box[box], name, O_WRONLY | O_APPEND | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static void touch(struct spool *s, enum spool_box box, uint64_t id)
{
	s->touched[box][fan_of(box, id)] = true;
}

int spool_move(struct spool *s, uint64_t id, enum spool_box from, enum spool_box to)
{
	char old[NAME_SIZE], new[NAME_SIZE];

	name_of(from, id, old);
	name_of(to, id, new);
	if (renameat2(s->box[from], old, s->box[to], new, RENAME_NOREPLACE) < 0)
		return -errno;
	touch(s, from, id);
	touch(s, to, id);
	failpoint("spool.moved");
	return 0;
}

int spool_remove(struct spool *s, enum spool_box box, uint64_t id)
{
	char name[NAME_SIZE];

	name_of(box, id, name);
	if (unlinkat(s->box[box], name, 0) < 0)
		return errno == ENOENT ? 0 : -errno;
	touch(s, box, id);
	failpoint("spool.removed");
	return 0;
}

/* ---- durability ----------------------------------------------------------------------------- */

static int sync_fan(struct spool *s, enum spool_box box, unsigned fan)
{
	char name[3] = ".";
	CLEANUP(close) int fd = -1;
	int r = failpoint_error("spool.sync");

	if (r != 0)
		return r < 0 ? r : 0;
	if (boxes[box].fanned)
		(void)snprintf(name, sizeof(name), "%02x", fan);
	fd = open_dir(s->box[box], name);
	if (fd < 0)
		return fd;
	return fsync(fd) < 0 ? -errno : 0;
}

int spool_sync(struct spool *s)
{
	int r;

	for (unsigned box = 0; box < SPOOL_BOX_COUNT; box++)
		for (unsigned fan = 0; fan < (boxes[box].fanned ? FAN : 1); fan++) {
			if (!s->touched[box][fan])
				continue;
			r = sync_fan(s, box, fan);
			if (r < 0)
				return r;
			s->touched[box][fan] = false;
		}
	return 0;
}

/* ---- listing -------------------------------------------------------------------------------- */

struct scan {
	enum spool_box box;
	int fan; /* -1 in a flat box */
	int (*each)(uint64_t id, void *arg);
	void *arg;
	unsigned strangers;
};

/* A file under the wrong fan, a directory or a link with a good name: spool_read would not find it. */
static bool is_ours(const struct scan *scan, int dir, const struct dirent *entry, uint64_t *ret_id)
{
	struct stat st;

	if (!parse_id(entry->d_name, ret_id))
		return false;
	if (scan->fan >= 0 && fan_of(scan->box, *ret_id) != (unsigned)scan->fan)
		return false;
	if (entry->d_type != DT_UNKNOWN)
		return entry->d_type == DT_REG;
	return fstatat(dir, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
}

static bool is_dots(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static int scan_open(int at, const char *name, DIR **ret)
{
	int fd = open_dir(at, name);

	if (fd < 0)
		return fd;
	*ret = fdopendir(fd);
	if (*ret == NULL) {
		int saved = errno;

		(void)close(fd);
		return -saved;
	}
	return 0;
}

static int scan_dir(struct scan *scan, int at, const char *name)
{
	struct dirent *entry;
	uint64_t id;
	DIR *dir;
	int r;

	r = scan_open(at, name, &dir);
	if (r < 0)
		return r;
	for (;;) {
		errno = 0;
		entry = readdir(dir);
		if (entry == NULL) {
			r = -errno;
			break;
		}
		if (is_dots(entry->d_name))
			continue;
		if (!is_ours(scan, dirfd(dir), entry, &id)) {
			scan->strangers++;
			continue;
		}
		r = scan->each(id, scan->arg);
		if (r != 0)
			break;
	}
	(void)closedir(dir); /* only read */
	return r;
}

static bool is_fan(const char *name)
{
	return strlen(name) == 2 && strspn(name, "01234567") >= 1 &&
	       strspn(name, "0123456789abcdef") == 2;
}

/* Whatever lies in a fanned box beside its directories. */
static int count_beside(struct scan *scan, int box)
{
	struct dirent *entry;
	DIR *dir;
	int r;

	r = scan_open(box, ".", &dir);
	if (r < 0)
		return r;
	while (errno = 0, (entry = readdir(dir)) != NULL)
		scan->strangers += !is_dots(entry->d_name) && !is_fan(entry->d_name);
	r = -errno;
	(void)closedir(dir); /* only read */
	return r;
}

static int scan_fans(struct scan *scan, int box)
{
	char name[3];
	int r;

	for (scan->fan = 0; scan->fan < FAN; scan->fan++) {
		(void)snprintf(name, sizeof(name), "%02x", (unsigned)scan->fan);
		r = scan_dir(scan, box, name);
		if (r != 0)
			return r;
	}
	return count_beside(scan, box);
}

int spool_scan(struct spool *s, enum spool_box box, int (*each)(uint64_t id, void *arg), void *arg,
	       unsigned *ret_strangers)
{
	struct scan scan = { .box = box, .fan = -1, .each = each, .arg = arg };
	int r;

	if (boxes[box].fanned)
		r = scan_fans(&scan, s->box[box]);
	else
		r = scan_dir(&scan, s->box[box], ".");
	if (r == 0 && ret_strangers != NULL)
		*ret_strangers = scan.strangers;
	return r;
}

int spool_space(struct spool *s, struct spool_space *ret)
{
	struct statvfs v;

	if (fstatvfs(s->root, &v) < 0)
		return -errno;
	ret->free_bytes = (uint64_t)v.f_bavail * v.f_frsize;
	ret->total_bytes = (uint64_t)v.f_blocks * v.f_frsize;
	ret->free_inodes = v.f_favail;
	ret->total_inodes = v.f_files;
	return 0;
}
