/* store-private.h: what the files of the SQLite store share.  Nobody outside store/ includes it.
 *
 * A query is one use of a prepared statement.  The SQL stands where it is used, as a literal; its
 * address finds the statement, which is prepared at its first use and kept until store_close().
 *
 *	CLEANUP(query) struct query q = query_on(s, "UPDATE ... WHERE id = ? AND token = ?");
 *
 *	query_bind_int(&q, id);
 *	query_bind_int(&q, token);
 *	r = query_run(&q);
 *
 * Values are bound, and columns read, from left to right.  An error sticks: the binds after it do
 * nothing and query_step() or query_run() returns it.  The end of the scope resets the statement.
 *
 * A change is what makes one call atomic: a transaction of its own, or a savepoint between
 * store_begin() and store_commit().
 *
 *	r = change_begin(s);
 *	if (r < 0)
 *		return r;
 *	r = first_statement(s, ...);
 *	if (r >= 0)
 *		r = second_statement(s, ...);
 *	return change_end(s, r);     (r < 0 undoes both)
 */
#ifndef CARZEROD_STORE_STORE_PRIVATE_H
#define CARZEROD_STORE_STORE_PRIVATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sqlite3.h>

#include "base/mem.h"

#include "store/store.h"

#define STORE_STATEMENTS_MAX 128
#define STORE_ERROR_MAX 256

struct store {
	sqlite3 *db;
	int lock;         /* descriptor of the writer's lock, -1 for a reader */
	unsigned checkpoint_failures;
	bool writing;     /* opened to the end as a writer */
	bool group;       /* between store_begin and store_commit */
	int group_failed; /* SQLite gave the whole group up: everything until store_rollback fails */
	char error[STORE_ERROR_MAX];
	size_t n_cached;
	struct {
		const char *sql; /* address of the literal */
		sqlite3_stmt *st;
	} cached[STORE_STATEMENTS_MAX];
};

struct query {
	struct store *s;
	sqlite3_stmt *st;
	int bound, column; /* how far we are */
	int r;             /* first error */
};

struct query query_on(struct store *s, const char *sql);
void cleanup_query(struct query *q);

void query_bind_int(struct query *q, int64_t v);
void query_bind_real(struct query *q, double v); /* NAN becomes NULL */
/* A field of `size` bytes: at most size - 1 of them; NULL is "". */
void query_bind_text(struct query *q, const char *text, size_t size);
void query_bind_blob(struct query *q, const void *p, size_t n);
#define query_bind_field(q, field) query_bind_text(q, field, sizeof(field))

int query_step(struct query *q);    /* 1: a row; 0: no more; or an error */
int query_run(struct query *q);     /* to the end, rows ignored; 0 or an error */
int query_run_one(struct query *q); /* the same for a change that must hit a row; -ESTALE when it hit none */
/* The first column of the first row; -ENOENT when there is no row or it is NULL. */
int query_value(struct query *q, int64_t *ret);

int64_t query_int(struct query *q);
double query_real(struct query *q); /* NULL becomes NAN */
void query_text(struct query *q, char *ret, size_t size);
size_t query_blob(struct query *q, void *ret, size_t size); /* its length, at most size */
void query_digest(struct query *q, uint8_t ret[DIGEST_SIZE]); /* NULL becomes zeros */
#define query_field(q, field) query_text(q, field, sizeof(field))

/* The end of a list that went on counting beyond `max` rows: -E2BIG then, with *ret_n = how many. */
int query_listed(struct query *q, int r, size_t n, size_t max, size_t *ret_n);

int change_begin(struct store *s);
int change_end(struct store *s, int r);

/* Sets the text of store_error() for a refusal of our own; returns `code`. */
int store_refuse(struct store *s, int code, const char *text);

/* delivery.c, instance.c, study.c: takes every claim back; *n grows by how many. */
int delivery_recover(struct store *s, int64_t now, unsigned *n);
int notice_recover(struct store *s, int64_t now);
int instance_recover(struct store *s, int64_t now, unsigned *n);
int instance_clamp(struct store *s, int64_t latest);
int study_clamp(struct store *s, int64_t latest);
int delivery_clamp(struct store *s, int64_t latest);
/* turn.c: what the claim after n others is for first; how many there were; one more. */
enum store_rank turn_first(int64_t n);
int turn_number(struct store *s, const char *what, const char *destination, int64_t *ret);
int turn_count(struct store *s, const char *what, const char *destination);
/* Of work that has two lanes: a row of the lane whose turn it is, else of the other; -ENOENT: neither has one. */
typedef int turn_finder(struct store *s, bool slow, int64_t now, int64_t *ret_id);
int turn_find(struct store *s, const char *what, turn_finder *find, int64_t now, int64_t *ret_id);
/* facts.c */
int facts_attach(struct store *s);
/* retention.c: the file is to go, after the commit. */
int doom_file(struct store *s, unsigned box, uint64_t file);
int study_recover(struct store *s, int64_t now, unsigned *n);

/* study.c: the row of a study, made when missing; one that gets work collects again, in the lane that comes back. */
int study_for_instance(struct store *s, const struct instance *in, int64_t settle_at, int64_t *ret_id, enum study_lane *lane);
int study_reopen(struct store *s, int64_t id, int64_t settle_at);

#endif
