/* store.c: the database itself: opening, migrating, transactions, statements.
 *
 * Job: hold one SQLite database in the one way in which it keeps its word: write-ahead log,
 * synchronous=FULL, no memory mapping, checks on, one writer.  Give the files next door queries and
 * changes (store-private.h), and turn SQLite's codes into ours.
 *
 * Promise: when a change, or store_commit(), has returned 0, what it did survives kill -9 and a power
 * cut; when it has returned an error, nothing of it is there.  An older schema is brought up step by
 * step, each step one transaction; a newer one is refused untouched.  Pages that are freed are
 * overwritten (secure_delete), temporary data stays in memory: deleted rows leave no copies behind.
 *
 * One writer is enforced by an flock on PATH.lock, not left to SQLite's own locks: two keepers on
 * one spool must not even start.  Readers cannot write, cannot checkpoint and need no lock.
 *
 * Never: waits longer than the busy time-out below, reads a clock, logs, retries an I/O error (the
 * caller ends the process; start-up is the recovery).
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <math.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "base/mem.h"
#include "base/str.h"

#include "store/store-private.h"

#define APPLICATION_ID 0x637a6430 /* "czd0": a database of ours, not somebody else's */
#define CHECKPOINT_PAGES 1000
#define BUSY_MS 250               /* nobody else writes; only a stray shell could make us wait */

static const char schema[] =
#include "store/schema.inc"
	;
static const char schema_2[] =
#include "store/schema-2.inc"
	;

/* steps[n] leads from user_version n to n + 1. */
static const char *const steps[] = { schema, schema_2 };
#define SCHEMA_VERSION ((int64_t)ARRAY_SIZE(steps))

static void cleanup_store_close(struct store **s)
{
	store_close(*s);
}

/* ---- SQLite's codes and ours ---------------------------------------------------------------- */

/* `os` is errno as the failed call left it (callers set it to 0 before).  sqlite3_system_errno() is no
 * help: SQLite 3.40 does not set it when a COMMIT fails. */
static int io_code(int extended, int os)
{
	if (extended == SQLITE_IOERR_NOMEM)
		return -ENOMEM;
	if (extended == SQLITE_IOERR_FSYNC || extended == SQLITE_IOERR_DIR_FSYNC)
		return -EIO; /* pages may be lost, whatever the reason given */
	if (os == ENOSPC || os == EDQUOT || os == EFBIG) /* SQLite calls only the first one FULL */
		return -ENOSPC;
	return -EIO;
}

static int code_of(int extended, int os)
{
	if (extended == SQLITE_CONSTRAINT_UNIQUE || extended == SQLITE_CONSTRAINT_PRIMARYKEY)
		return -EEXIST;
	switch (extended & 0xff) {
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_IOERR:
		return io_code(extended, os);
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return -EUCLEAN;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_READONLY:
		return -EROFS;
	case SQLITE_CONSTRAINT:
		return -EINVAL;
	case SQLITE_CANTOPEN:
		return os > 0 ? -os : -EIO;
	case SQLITE_TOOBIG:
		return -E2BIG;
	default:
		return -EIO;
	}
}

/* SQLite's messages name tables and columns, never values. */
static int failed(struct store *s)
{
	int os = errno, extended = sqlite3_extended_errcode(s->db);

	(void)snprintf(s->error, sizeof(s->error), "%s (SQLite %d)", sqlite3_errmsg(s->db), extended);
	return code_of(extended, os);
}

int store_refuse(struct store *s, int code, const char *text)
{
	(void)str_copy(s->error, sizeof(s->error), text);
	return code;
}

const char *store_error(const struct store *s)
{
	return s->error;
}

/* ---- queries -------------------------------------------------------------------------------- */

static sqlite3_stmt *prepare(struct store *s, const char *sql)
{
	sqlite3_stmt *st;

	for (size_t i = 0; i < s->n_cached; i++)
		if (s->cached[i].sql == sql)
			return s->cached[i].st;
	assert(s->n_cached < STORE_STATEMENTS_MAX);
	errno = 0;
	if (sqlite3_prepare_v3(s->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &st, NULL) != SQLITE_OK)
		return NULL;
	s->cached[s->n_cached].sql = sql;
	s->cached[s->n_cached].st = st;
	s->n_cached++;
	return st;
}

struct query query_on(struct store *s, const char *sql)
{
	struct query q = { .s = s, .st = prepare(s, sql) };

	if (q.st == NULL)
		q.r = failed(s);
	return q;
}

void cleanup_query(struct query *q)
{
	if (q->st == NULL)
		return;
	(void)sqlite3_reset(q->st); /* repeats the error that query_step returned */
	(void)sqlite3_clear_bindings(q->st);
}

static void bound(struct query *q, int rc)
{
	if (rc != SQLITE_OK)
		q->r = failed(q->s);
}

void query_bind_int(struct query *q, int64_t v)
{
	if (q->r == 0)
		bound(q, sqlite3_bind_int64(q->st, ++q->bound, v));
}

void query_bind_real(struct query *q, double v)
{
	if (q->r == 0)
		bound(q, sqlite3_bind_double(q->st, ++q->bound, v));
}

void query_bind_text(struct query *q, const char *text, size_t size)
{
	if (text == NULL)
		text = "";
	if (q->r == 0)
		bound(q, sqlite3_bind_text(q->st, ++q->bound, text, (int)strnlen(text, size - 1),
					   SQLITE_STATIC));
}

void query_bind_blob(struct query *q, const void *p, size_t n)
{
	if (q->r == 0)
		bound(q, sqlite3_bind_blob64(q->st, ++q->bound, p, n, SQLITE_STATIC));
}

int query_step(struct query *q)
{
	int rc;

	if (q->r < 0)
		return q->r;
	q->column = 0;
	errno = 0;
	rc = sqlite3_step(q->st);
	if (rc == SQLITE_ROW)
		return 1;
	if (rc != SQLITE_DONE)
		q->r = failed(q->s);
	return q->r;
}

int query_run(struct query *q)
{
	int r;

	do
		r = query_step(q);
	while (r > 0);
	return r;
}

int query_run_one(struct query *q)
{
	int r;

	r = query_run(q);
	if (r < 0)
		return r;
	if (sqlite3_changes(q->s->db) == 0)
		return store_refuse(q->s, -ESTALE, "the claim was lost");
	return 0;
}

int query_value(struct query *q, int64_t *ret)
{
	int r;

	r = query_step(q);
	if (r < 0)
		return r;
	if (r == 0 || sqlite3_column_type(q->st, 0) == SQLITE_NULL)
		return -ENOENT;
	*ret = query_int(q);
	return 0;
}

int query_listed(struct query *q, int r, size_t n, size_t max, size_t *ret_n)
{
	if (r < 0)
		return r;
	*ret_n = n;
	return n > max ? store_refuse(q->s, -E2BIG, "more rows than there is room for") : 0;
}

int64_t query_int(struct query *q)
{
	return sqlite3_column_int64(q->st, q->column++);
}

double query_real(struct query *q)
{
	int column = q->column++;

	if (sqlite3_column_type(q->st, column) == SQLITE_NULL)
		return NAN;
	return sqlite3_column_double(q->st, column);
}

void query_text(struct query *q, char *ret, size_t size)
{
	const char *text = (const char *)sqlite3_column_text(q->st, q->column++);

	(void)str_copy(ret, size, text == NULL ? "" : text); /* was bound from a field of this size */
}

void query_digest(struct query *q, uint8_t ret[DIGEST_SIZE])
{
	int column = q->column++;
	const void *p = sqlite3_column_blob(q->st, column);

	memset(ret, 0, DIGEST_SIZE);
	if (p != NULL && sqlite3_column_bytes(q->st, column) == DIGEST_SIZE)
		memcpy(ret, p, DIGEST_SIZE);
}

size_t query_blob(struct query *q, void *ret, size_t size)
{
	int column = q->column++;
	const void *p = sqlite3_column_blob(q->st, column);
	size_t n = p == NULL ? 0 : (size_t)sqlite3_column_bytes(q->st, column);

	if (n > size)
		n = size;
	if (n > 0)
		memcpy(ret, p, n);
	return n;
}

/* ---- transactions --------------------------------------------------------------------------- */

static int run(struct store *s, const char *sql)
{
	CLEANUP(query) struct query q = query_on(s, sql);

	return query_run(&q);
}

/* On FULL, IOERR and the like SQLite may have rolled back by itself; a second ROLLBACK then finds no
 * transaction, which is what we want. */
static void roll_back(struct store *s)
{
	char kept[STORE_ERROR_MAX];

	if (sqlite3_get_autocommit(s->db))
		return;
	memcpy(kept, s->error, sizeof(kept));
	(void)run(s, "ROLLBACK"); /* the failure that brought us here is the one to tell */
	memcpy(s->error, kept, sizeof(kept));
}

static int commit(struct store *s)
{
	int r;

	r = failpoint_error("store.commit");
	if (r >= 0)
		r = run(s, "COMMIT");
	if (r < 0)
		roll_back(s);
	return r;
}

int store_begin(struct store *s)
{
	int r;

	assert(!s->group);
	r = run(s, "BEGIN IMMEDIATE");
	if (r < 0)
		return r;
	s->group = true;
	s->group_failed = 0;
	return 0;
}

int store_commit(struct store *s)
{
	assert(s->group);
	s->group = false;
	if (s->group_failed < 0) {
		roll_back(s);
		return s->group_failed;
	}
	return commit(s);
}

void store_rollback(struct store *s)
{
	s->group = false;
	roll_back(s);
}

int change_begin(struct store *s)
{
	if (!s->group)
		return run(s, "BEGIN IMMEDIATE");
	if (s->group_failed < 0)
		return s->group_failed;
	return run(s, "SAVEPOINT change");
}

/* Inside a group: a call that fails by its own rules (a lost claim) takes back only itself.  When
 * SQLite has ended the transaction under us, the earlier calls of the group are gone as well; from
 * then on every call fails, so that nobody takes the rest for the whole. */
static int change_end_in_group(struct store *s, int r)
{
	char kept[STORE_ERROR_MAX];
	int undone;

	if (r >= 0)
		r = run(s, "RELEASE change");
	if (r >= 0)
		return r;
	memcpy(kept, s->error, sizeof(kept));
	undone = sqlite3_get_autocommit(s->db) ? r : run(s, "ROLLBACK TO change");
	if (undone >= 0)
		undone = run(s, "RELEASE change");
	memcpy(s->error, kept, sizeof(kept));
	if (undone < 0)
		s->group_failed = undone;
	return r;
}

int change_end(struct store *s, int r)
{
	if (s->group)
		return change_end_in_group(s, r);
	if (r < 0) {
		roll_back(s);
		return r;
	}
	return commit(s);
}

/* ---- the log -------------------------------------------------------------------------------- */

/* What SQLite does by itself after a commit, but with its result kept. */
static int checkpoint(void *arg, sqlite3 *db, const char *name, int pages)
{
	struct store *s = arg;
	int in_log = 0, done = 0, rc;

	if (pages < CHECKPOINT_PAGES)
		return SQLITE_OK;
	rc = sqlite3_wal_checkpoint_v2(db, name, SQLITE_CHECKPOINT_PASSIVE, &in_log, &done);
	if (rc == SQLITE_OK && (done == in_log || pages < 64 * CHECKPOINT_PAGES)) /* a reader may hold it up for a while */
		s->checkpoint_failures = 0;
	else {
		s->checkpoint_failures++;
		(void)store_refuse(s, -EIO, rc == SQLITE_OK ? "a reader has held it up for long" : sqlite3_errstr(rc));
	}
	return SQLITE_OK; /* the commit stands */
}

unsigned store_checkpoint_failures(struct store *s)
{
	return s->checkpoint_failures;
}

int store_shorten_log(struct store *s)
{
	int rc;

	assert(!s->group);
	(void)sqlite3_busy_timeout(s->db, 0); /* not worth a wait */
	rc = sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
	(void)sqlite3_busy_timeout(s->db, BUSY_MS);
	if (rc == SQLITE_OK || (rc & 0xff) == SQLITE_BUSY)
		return rc == SQLITE_OK ? 0 : -EBUSY;
	s->checkpoint_failures++;
	return failed(s);
}

/* ---- opening -------------------------------------------------------------------------------- */

static int sync_parent(const char *path)
{
	CLEANUP(free) char *copy = xstrdup(path);
	CLEANUP(close) int dir = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dir < 0)
		return -errno;
	return fsync(dir) < 0 ? -errno : 0;
}

static int take_lock(struct store *s, const char *path, struct err *e)
{
	char name[4096];

	if ((size_t)snprintf(name, sizeof(name), "%s.lock", path) >= sizeof(name))
		return err_set(e, -ENAMETOOLONG, "%.100s...: the name is too long", path);
	s->lock = open(name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (s->lock < 0)
		return err_set(e, -errno, "%s: cannot open the lock file: %s", name, strerror(errno));
	if (flock(s->lock, LOCK_EX | LOCK_NB) == 0)
		return 0;
	if (errno == EWOULDBLOCK)
		return err_set(e, -EBUSY, "%s: another carzerod uses this database", name);
	return err_set(e, -errno, "%s: cannot lock it: %s", name, strerror(errno));
}

/* Before SQLite opens it: closing any descriptor of the file later would drop SQLite's locks. */
static int make_private(const char *path, struct err *e)
{
	CLEANUP(close) int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return err_set(e, -errno, "%s: cannot open the database: %s", path, strerror(errno));
	if (fchmod(fd, 0600) < 0)
		return err_set(e, -errno, "%s: cannot make it private: %s", path, strerror(errno));
	return 0;
}

static int told(struct store *s, int r, const char *path, struct err *e)
{
	return err_set(e, r, "%s: %s", path, s->error);
}

static int set_config(struct store *s, int option, int value)
{
	return sqlite3_db_config(s->db, option, value, NULL) == SQLITE_OK ? 0 : failed(s);
}

static int connect_to(struct store *s, const char *path, int flags, struct err *e)
{
	static const struct {
		int option, value;
	} config[] = {
		{ SQLITE_DBCONFIG_DEFENSIVE, 1 },
		{ SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0 },
		{ SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0 },
		{ SQLITE_DBCONFIG_DQS_DML, 0 },
		{ SQLITE_DBCONFIG_DQS_DDL, 0 },
		{ SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1 }, /* store_close() does it for a writer */
	};

	errno = 0;
	flags |= SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE | SQLITE_OPEN_EXRESCODE;
	if (sqlite3_open_v2(path, &s->db, flags, NULL) != SQLITE_OK)
		return err_set(e, code_of(sqlite3_extended_errcode(s->db), errno),
			       "%s: cannot open the database: %s", path, sqlite3_errmsg(s->db));
	(void)sqlite3_busy_timeout(s->db, BUSY_MS); /* cannot fail */
	for (size_t i = 0; i < ARRAY_SIZE(config); i++)
		if (set_config(s, config[i].option, config[i].value) < 0)
			return told(s, -EIO, path, e);
	return 0;
}

static int set_pragmas(struct store *s, const char *const *sql, size_t n)
{
	int r;

	for (size_t i = 0; i < n; i++) {
		r = run(s, sql[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The one setting that can silently stay what it was (a file system without shared memory). */
static int set_wal(struct store *s)
{
	CLEANUP(query) struct query q = query_on(s, "PRAGMA journal_mode = WAL");
	char mode[16] = "";
	int r;

	r = query_step(&q);
	if (r < 0)
		return r;
	if (r > 0)
		query_field(&q, mode);
	if (strcmp(mode, "wal") != 0)
		return store_refuse(s, -ENOTSUP, "this file system cannot hold a write-ahead log");
	return 0;
}

static int number(struct store *s, const char *sql, int64_t *ret)
{
	CLEANUP(query) struct query q = query_on(s, sql);

	return query_value(&q, ret);
}

static int check_version(struct store *s, const char *path, int64_t *ret, struct err *e)
{
	int64_t application = 0, tables = 0;
	int r;

	r = number(s, "PRAGMA user_version", ret);
	if (r >= 0)
		r = number(s, "PRAGMA application_id", &application);
	if (r >= 0)
		r = number(s, "SELECT count(*) FROM sqlite_schema", &tables);
	if (r < 0)
		return told(s, r, path, e);
	if ((*ret != 0 || tables > 0) && application != APPLICATION_ID)
		return err_set(e, -ENOTSUP, "%s: this is a database, but not one of carzerod", path);
	if (*ret > SCHEMA_VERSION)
		return err_set(e, -ENOTSUP,
			       "%s: the database has schema %lld and this program knows up to %lld; install the "
			       "newer carzerod again or restore the backup made before the upgrade",
			       path, (long long)*ret, (long long)SCHEMA_VERSION);
	return 0;
}

static int migrate_step(struct store *s, int64_t from)
{
	char sql[128];
	int r;

	r = run(s, "BEGIN IMMEDIATE");
	if (r < 0)
		return r;
	(void)snprintf(sql, sizeof(sql), "PRAGMA user_version = %lld; PRAGMA application_id = %d",
		       (long long)from + 1, APPLICATION_ID);
	errno = 0;
	if (sqlite3_exec(s->db, steps[from], NULL, NULL, NULL) != SQLITE_OK ||
	    sqlite3_exec(s->db, sql, NULL, NULL, NULL) != SQLITE_OK) {
		r = failed(s);
		roll_back(s);
		return r;
	}
	return commit(s);
}

static int migrate(struct store *s, int64_t version, const char *path, struct err *e)
{
	int r;

	for (; version < SCHEMA_VERSION; version++) {
		r = migrate_step(s, version);
		if (r < 0)
			return err_set(e, r, "%s: cannot bring the schema from %lld to %lld: %s", path,
				       (long long)version, (long long)version + 1, s->error);
	}
	return 0;
}

/* A program that turns out bad can be followed by the one before only with the database of before. */
static int backup_before(const char *path, int64_t version, struct err *e)
{
	CLEANUP(free) char *copy = xstrdup(path);
	CLEANUP(free) char *folder = NULL;
	char stamp[32];

	if (version == 0 || version == SCHEMA_VERSION)
		return 0;
	if (asprintf(&folder, "%s/backup", dirname(copy)) < 0)
		abort(); /* as xcalloc */
	(void)snprintf(stamp, sizeof(stamp), "schema-%lld", (long long)version);
	return store_backup(path, folder, stamp, UINT_MAX, e);
}

static struct store *store_new(void)
{
	struct store *s = xcalloc(1, sizeof(*s));

	s->lock = -1;
	return s;
}

int store_open(const char *path, struct store **ret, struct err *e)
{
	static const char *const pragmas[] = {
		"PRAGMA synchronous = FULL",
		"PRAGMA mmap_size = 0",
		"PRAGMA cell_size_check = ON",
		"PRAGMA foreign_keys = ON",
		"PRAGMA secure_delete = ON",
		"PRAGMA temp_store = MEMORY",
		"PRAGMA journal_size_limit = 67108864",
	};
	CLEANUP(store_close) struct store *s = store_new();
	int64_t version;
	int r;

	r = take_lock(s, path, e);
	if (r < 0)
		return r;
	r = make_private(path, e);
	if (r < 0)
		return r;
	r = connect_to(s, path, SQLITE_OPEN_READWRITE, e);
	if (r < 0)
		return r;
	r = set_pragmas(s, pragmas, ARRAY_SIZE(pragmas));
	if (r < 0)
		return told(s, r, path, e);
	r = check_version(s, path, &version, e);
	if (r < 0)
		return r;
	r = backup_before(path, version, e);
	if (r < 0)
		return r;
	r = set_wal(s); /* the first thing that changes the file: it is ours now */
	if (r < 0)
		return told(s, r, path, e);
	r = migrate(s, version, path, e);
	if (r < 0)
		return r;
	if (failpoint_skips("store.full") && run(s, "PRAGMA synchronous = NORMAL") < 0)
		return told(s, -EIO, path, e);
	r = sync_parent(path); /* SQLite syncs the directory for its log, not for the database itself */
	if (r < 0)
		return err_set(e, r, "%s: cannot sync its directory: %s", path, strerror(-r));
	r = facts_attach(s);
	if (r < 0)
		return told(s, r, path, e);
	(void)sqlite3_wal_hook(s->db, checkpoint, s);
	s->writing = true;
	*ret = TAKE(s);
	return 0;
}

int store_open_reader(const char *path, struct store **ret, struct err *e)
{
	static const char *const pragmas[] = {
		"PRAGMA query_only = ON",
		"PRAGMA mmap_size = 0",
		"PRAGMA cell_size_check = ON",
		"PRAGMA temp_store = MEMORY",
	};
	CLEANUP(store_close) struct store *s = store_new();
	int64_t version;
	int r;

	if (access(path, R_OK) < 0)
		return err_set(e, -errno, "%s: cannot read the database: %s", path, strerror(errno));
	r = connect_to(s, path, SQLITE_OPEN_READONLY, e);
	if (r < 0)
		return r;
	r = set_pragmas(s, pragmas, ARRAY_SIZE(pragmas));
	if (r < 0)
		return told(s, r, path, e);
	r = check_version(s, path, &version, e);
	if (r < 0)
		return r;
	if (version < SCHEMA_VERSION)
		return err_set(e, -ENOTSUP,
			       "%s: the database has schema %lld and this program needs %lld; starting "
			       "carzerod once brings it up",
			       path, (long long)version, (long long)SCHEMA_VERSION);
	*ret = TAKE(s);
	return 0;
}

void store_close(struct store *s)
{
	if (s == NULL)
		return;
	if (s->db != NULL)
		roll_back(s);
	for (size_t i = 0; i < s->n_cached; i++)
		(void)sqlite3_finalize(s->cached[i].st); /* repeats an old error */
	if (s->writing) /* a log that stays is no loss: the next opening reads it */
		(void)sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
	(void)sqlite3_close(s->db); /* every statement is finalized; NULL is allowed */
	if (s->lock >= 0)
		(void)close(s->lock); /* lets the lock go, after the last write */
	free(s);
}

/* ---- settings ------------------------------------------------------------------------------- */

int store_get_setting(struct store *s, const char *key, char *ret, size_t size)
{
	CLEANUP(query) struct query q = query_on(s, "SELECT value FROM setting WHERE key = ?");
	const char *value;
	int r;

	query_bind_text(&q, key, SIZE_MAX);
	r = query_step(&q);
	if (r < 0)
		return r;
	if (r == 0)
		return -ENOENT;
	value = (const char *)sqlite3_column_text(q.st, 0);
	if (value == NULL)
		return -ENOMEM; /* the column is NOT NULL */
	if (strlen(value) >= size)
		return -E2BIG;
	(void)str_copy(ret, size, value);
	return 0;
}

static int put_setting(struct store *s, const char *key, const char *value)
{
	CLEANUP(query) struct query q =
		query_on(s, "INSERT INTO setting (key, value) VALUES (?, ?) "
			    "ON CONFLICT (key) DO UPDATE SET value = excluded.value");

	query_bind_text(&q, key, SIZE_MAX);
	query_bind_text(&q, value, SIZE_MAX);
	return query_run(&q);
}

int store_set_setting(struct store *s, const char *key, const char *value)
{
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	return change_end(s, put_setting(s, key, value));
}

/* ---- recovery and overview ------------------------------------------------------------------ */

int store_recover(struct store *s, int64_t now, unsigned *ret_n)
{
	unsigned n = 0;
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	r = instance_recover(s, now, &n);
	if (r >= 0)
		r = study_recover(s, now, &n);
	if (r >= 0)
		r = delivery_recover(s, now, &n);
	if (r >= 0)
		r = notice_recover(s, now);
	r = change_end(s, r);
	if (r < 0)
		return r;
	*ret_n = n;
	return 0;
}

int store_check(struct store *s)
{
	CLEANUP(query) struct query q = query_on(s, "PRAGMA quick_check(1)");
	char text[STORE_ERROR_MAX] = "";
	int r;

	r = query_step(&q);
	if (r < 0)
		return r;
	if (r > 0)
		query_field(&q, text);
	return strcmp(text, "ok") == 0 ? 0 : store_refuse(s, -EUCLEAN, text);
}

int store_list_claimed(struct store *s, int64_t *ret, size_t max, size_t *ret_n)
{
	CLEANUP(query) struct query q =
		query_on(s, "SELECT id FROM instance INDEXED BY instance_claimed WHERE state = 1 ORDER BY id LIMIT ?");
	size_t n = 0;
	int r;

	query_bind_int(&q, (int64_t)max);
	while ((r = query_step(&q)) > 0)
		ret[n++] = query_int(&q);
	if (r < 0)
		return r;
	*ret_n = n;
	return 0;
}

static int release(struct store *s, const char *sql, int64_t now)
{
	CLEANUP(query) struct query q = query_on(s, sql);

	query_bind_int(&q, now);
	return query_run(&q);
}

int store_release(struct store *s, int64_t now)
{
	int r = change_begin(s);

	if (r < 0)
		return r;
	r = release(s, "UPDATE instance INDEXED BY instance_claimed SET state = 0, lease = 0, due = min(due, ?), "
		       "attempt = max(attempt - 1, 0) WHERE state = 1", now);
	if (r >= 0)
		r = release(s, "UPDATE study INDEXED BY study_claimed SET state = 0, lease = 0, "
			       "settle_at = min(settle_at, ?), attempt = max(attempt - 1, 0) WHERE state = 1", now);
	if (r >= 0)
		r = release(s, "UPDATE delivery INDEXED BY delivery_claimed SET state = 0, lease = 0, due = min(due, ?), "
			       "attempt = max(attempt - 1, 0) WHERE state = 1", now);
	return change_end(s, r);
}

int store_clamp(struct store *s, int64_t study, int64_t instance, int64_t delivery)
{
	int r = change_begin(s);

	if (r < 0)
		return r;
	r = study_clamp(s, study);
	if (r >= 0)
		r = instance_clamp(s, instance);
	if (r >= 0)
		r = delivery_clamp(s, delivery);
	return change_end(s, r);
}

/* INT64_MAX when the query has no row. */
static int earliest(struct store *s, const char *sql, int64_t *ret)
{
	CLEANUP(query) struct query q = query_on(s, sql);
	int r;

	r = query_value(&q, ret);
	if (r == -ENOENT)
		*ret = INT64_MAX;
	return r == -ENOENT ? 0 : r;
}

int store_next_due(struct store *s, int64_t *ret_instance, int64_t *ret_study, int64_t *ret_delivery)
{
	int r;

	r = earliest(s, "SELECT min(due) FROM (SELECT min(due) AS due FROM instance INDEXED BY instance_due "
			"WHERE state = 0 AND slow = 0 UNION ALL SELECT min(due) FROM instance INDEXED BY instance_due "
			"WHERE state = 0 AND slow = 1)",
		     ret_instance);
	if (r < 0)
		return r;
	r = earliest(s,
		     "SELECT min(settle_at) FROM study INDEXED BY study_due WHERE state = 0 AND pending = 0",
		     ret_study);
	if (r < 0)
		return r;
	return earliest(s,
			"SELECT min(due) FROM delivery INDEXED BY delivery_due WHERE state IN (0, 3)",
			ret_delivery);
}

static int count(struct store *s, const char *what, uint64_t *ret, size_t n)
{
	CLEANUP(query) struct query q = query_on(s, "SELECT state, n FROM tally WHERE what = ?");
	int64_t state;
	int r;

	query_bind_text(&q, what, SIZE_MAX);
	while ((r = query_step(&q)) > 0) {
		state = query_int(&q);
		if (state >= 0 && (uint64_t)state < n)
			ret[state] += (uint64_t)query_int(&q); /* deliveries: one row for each destination */
	}
	return r;
}

static int count_all(struct store *s, struct store_counts *c)
{
	int r;

	r = count(s, "instance", c->instances, ARRAY_SIZE(c->instances));
	if (r >= 0)
		r = count(s, "study", c->studies, ARRAY_SIZE(c->studies));
	if (r >= 0)
		r = count(s, "delivery", c->deliveries, ARRAY_SIZE(c->deliveries));
	if (r >= 0)
		r = count(s, "slow", &c->slow, 1);
	if (r >= 0)
		r = count(s, "report", &c->reports, 1);
	return r;
}

/* 0 when the query has no row. */
static int oldest(struct query *q, int64_t *ret)
{
	int r;

	r = query_value(q, ret);
	if (r == -ENOENT)
		*ret = 0;
	return r == -ENOENT ? 0 : r;
}

/* The lowest id is the oldest; a clock may have stepped in between.  Few rows are claimed or were tried before; the fresh
 * ones have due 0 and lie in order of id. */
static int oldest_image(struct store *s, bool slow, int64_t *ret)
{
	CLEANUP(query) struct query q =
		query_on(s, "SELECT received FROM instance WHERE id = (SELECT min(id) FROM (SELECT * FROM ("
			    "SELECT id FROM instance INDEXED BY instance_due WHERE state = 0 AND slow = ?1 AND due = 0 ORDER BY id LIMIT 1) "
			    "UNION ALL SELECT min(id) FROM instance INDEXED BY instance_due WHERE state = 0 AND slow = ?1 AND due > 0 "
			    "UNION ALL SELECT min(id) FROM instance INDEXED BY instance_claimed WHERE state = 1 AND slow = ?1))");

	query_bind_int(&q, slow);
	return oldest(&q, ret);
}

static int oldest_delivery(struct store *s, int64_t *ret)
{
	CLEANUP(query) struct query q =
		query_on(s, "SELECT created FROM delivery INDEXED BY delivery_open WHERE state <> 2 ORDER BY id LIMIT 1");

	return oldest(&q, ret);
}

int store_counts(struct store *s, struct store_counts *ret)
{
	struct store_counts c = { .reports = 0 };
	int r;

	r = count_all(s, &c);
	if (r >= 0)
		r = oldest_image(s, false, &c.oldest_ready);
	if (r >= 0)
		r = oldest_image(s, true, &c.oldest_slow);
	if (r >= 0)
		r = oldest_delivery(s, &c.oldest_delivery);
	if (r < 0)
		return r;
	*ret = c;
	return 0;
}
