/* backup.c: copies of the database, and the way back.
 *
 * Job: a copy of one moment, in pieces, through a connection that cannot write; made durable and
 * checked before it gets its name; and putting the newest good one in the place of a broken database.
 *
 * Promise: a file called carzerod-*.db in the folder of backups was whole when it got that name; the
 * writer is never held up (readers do not block it in a write-ahead log), though its log cannot be
 * emptied as long as the copy takes.
 *
 * Never: reads a clock (the caller gives the name), touches a backup that it did not make, deletes
 * a broken database (it is renamed).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sqlite3.h>

#include "base/mem.h"
#include "base/str.h"

#include "store/store.h"

#define PREFIX "carzerod-"
#define SUFFIX ".db"
#define PAGES_A_STEP 64
#define NAMES_MAX 4096

static void cleanup_sqlite(sqlite3 **db)
{
	(void)sqlite3_close(*db);
}

static int sync_path(const char *path, int flags)
{
	CLEANUP(close) int fd = open(path, flags | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return fsync(fd) < 0 ? -errno : 0;
}

/* Reads every page; "immutable": no log, no locks, and no files beside it. */
static int check_file(const char *path)
{
	CLEANUP(sqlite) sqlite3 *db = NULL;
	sqlite3_stmt *st = NULL;
	char *uri = sqlite3_mprintf("file:%s?immutable=1", path);
	int r = -EUCLEAN;

	if (uri != NULL && sqlite3_open_v2(uri, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, NULL) == SQLITE_OK &&
	    sqlite3_prepare_v2(db, "PRAGMA integrity_check(1)", -1, &st, NULL) == SQLITE_OK &&
	    sqlite3_step(st) == SQLITE_ROW && strcmp((const char *)sqlite3_column_text(st, 0), "ok") == 0)
		r = 0;
	(void)sqlite3_finalize(st);
	sqlite3_free(uri);
	return r;
}

static int copy_pages(sqlite3 *from, sqlite3 *to, struct err *e, const char *path)
{
	sqlite3_backup *b;
	int rc;

	/* one snapshot for all steps: else every commit of the writer would start it over */
	if (sqlite3_exec(from, "BEGIN; SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL) != SQLITE_OK ||
	    sqlite3_exec(to, "PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF", NULL, NULL, NULL) != SQLITE_OK)
		return err_set(e, -EIO, "%s: cannot be copied: %s", path, sqlite3_errmsg(from));
	b = sqlite3_backup_init(to, "main", from, "main");
	if (b == NULL)
		return err_set(e, -EIO, "%s: cannot be copied: %s", path, sqlite3_errmsg(to));
	do
		rc = sqlite3_backup_step(b, PAGES_A_STEP);
	while (rc == SQLITE_OK);
	(void)sqlite3_backup_finish(b); /* repeats the error */
	if (rc != SQLITE_DONE)
		return err_set(e, rc == SQLITE_FULL ? -ENOSPC : -EIO, "%s: cannot be copied: %s", path, sqlite3_errstr(rc));
	return 0;
}

static int copy(const char *path, const char *tmp, struct err *e)
{
	CLEANUP(sqlite) sqlite3 *from = NULL;
	CLEANUP(sqlite) sqlite3 *to = NULL;
	CLEANUP(close) int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return err_set(e, -errno, "%s: %s", tmp, strerror(errno));
	if (sqlite3_open_v2(path, &from, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK)
		return err_set(e, -EIO, "%s: cannot open the database: %s", path, sqlite3_errmsg(from));
	if (sqlite3_open_v2(tmp, &to, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK)
		return err_set(e, -EIO, "%s: cannot open it: %s", tmp, sqlite3_errmsg(to));
	return copy_pages(from, to, e, path);
}

/* ---- the folder ---------------------------------------------------------------------------------- */

static bool is_backup(const char *name)
{
	size_t n = strlen(name), tail = strlen(SUFFIX);

	return n > strlen(PREFIX) + tail && n < 64 && name[strlen(PREFIX)] >= '0' && name[strlen(PREFIX)] <= '9' && strncmp(name, PREFIX, strlen(PREFIX)) == 0 &&
	       strcmp(name + n - tail, SUFFIX) == 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* Oldest first: the names are stamps. */
static size_t list(const char *folder, char (*ret)[64])
{
	DIR *dir = opendir(folder);
	struct dirent *entry;
	size_t n = 0;

	while (dir != NULL && n < NAMES_MAX && (entry = readdir(dir)) != NULL) {
		if (is_backup(entry->d_name))
			(void)str_copy(ret[n++], sizeof(*ret), entry->d_name);
	}
	if (dir != NULL)
		(void)closedir(dir); /* only read */
	qsort(ret, n, sizeof(*ret), by_name);
	return n;
}

static void keep_newest(const char *folder, unsigned keep)
{
	char (*name)[64] = xcalloc(NAMES_MAX, sizeof(*name)), path[4096];
	size_t n = list(folder, name), i;

	for (i = 0; i + keep < n; i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", folder, name[i]);
		(void)unlink(path); /* it is tried again after the next one */
	}
	free(name);
}

int store_backup(const char *path, const char *folder, const char *stamp, unsigned keep, struct err *e)
{
	char tmp[4096 + 4], name[4096];
	int r;

	if (mkdir(folder, 0700) < 0 && errno != EEXIST)
		return err_set(e, -errno, "%s: %s", folder, strerror(errno));
	if ((size_t)snprintf(name, sizeof(name), "%s/" PREFIX "%s" SUFFIX, folder, stamp) >= sizeof(name))
		return err_set(e, -ENAMETOOLONG, "%s: the name is too long", folder);
	(void)snprintf(tmp, sizeof(tmp), "%s.tmp", name);
	r = copy(path, tmp, e);
	if (r == 0 && (r = sync_path(tmp, O_RDONLY)) < 0)
		(void)err_set(e, r, "%s: cannot be synced: %s", tmp, strerror(-r));
	if (r == 0 && (r = check_file(tmp)) < 0)
		(void)err_set(e, r, "%s: the copy is not sound: is the database damaged?", tmp);
	if (r == 0 && rename(tmp, name) < 0)
		r = err_set(e, -errno, "%s: %s", name, strerror(errno));
	if (r < 0) {
		(void)unlink(tmp); /* a stump is of no use */
		return r;
	}
	r = sync_path(folder, O_RDONLY | O_DIRECTORY);
	if (r < 0)
		return err_set(e, r, "%s: cannot be synced: %s", folder, strerror(-r));
	keep_newest(folder, keep);
	return 0;
}

/* ---- the way back ---------------------------------------------------------------------------------- */

static int aside(const char *path, const char *part, const char *stamp, struct err *e)
{
	char old[4096], new[4096];

	if ((size_t)snprintf(old, sizeof(old), "%s%s", path, part) >= sizeof(old) ||
	    (size_t)snprintf(new, sizeof(new), "%s-damaged-%s%s", path, stamp, part) >= sizeof(new))
		return err_set(e, -ENAMETOOLONG, "%.100s...: the name is too long", path);
	if (rename(old, new) < 0 && errno != ENOENT)
		return err_set(e, -errno, "%s: cannot be moved aside: %s", old, strerror(errno));
	return 0;
}

static int sync_folder_of(const char *path)
{
	CLEANUP(free) char *folder = xstrdup(path);
	char *slash = strrchr(folder, '/');

	if (slash != NULL)
		*slash = '\0';
	return sync_path(slash != NULL ? folder : ".", O_RDONLY | O_DIRECTORY);
}

static int put_back(const char *from, const char *path, struct err *e)
{
	CLEANUP(free) char *tmp = NULL;
	int r;

	if (asprintf(&tmp, "%s.tmp", path) < 0)
		abort(); /* as xcalloc */
	r = copy(from, tmp, e);
	if (r == 0)
		r = sync_path(tmp, O_RDONLY);
	if (r == 0 && rename(tmp, path) < 0)
		r = -errno;
	if (r == 0)
		r = sync_folder_of(path);
	return r < 0 ? err_set(e, r, "%s: cannot be put in place: %s", from, strerror(-r)) : 0;
}

/* The log first: it must never be read into another database. */
int store_set_aside(const char *path, const char *stamp, struct err *e)
{
	int r;

	r = aside(path, "-wal", stamp, e);
	if (r == 0)
		r = aside(path, "-shm", stamp, e);
	if (r == 0)
		r = aside(path, "", stamp, e);
	if (r == 0 && sync_folder_of(path) < 0)
		r = err_set(e, -EIO, "%s: its folder cannot be synced", path);
	return r;
}

int store_restore(const char *path, const char *folder, char ret[64], struct err *e)
{
	char (*name)[64] = xcalloc(NAMES_MAX, sizeof(*name)), from[4096];
	size_t n = list(folder, name);
	int r = -ENOENT;

	ret[0] = '\0';
	while (n-- > 0 && r == -ENOENT) {
		(void)snprintf(from, sizeof(from), "%s/%s", folder, name[n]);
		if (check_file(from) < 0)
			continue; /* an older one, then */
		r = put_back(from, path, e);
		(void)str_copy(ret, 64, name[n]);
	}
	free(name);
	return r;
}
