/* pickle.h: reads one pickle as data and calls nothing.
 *
 * A pickle is a program for a stack machine; Python's reader imports and calls whatever the file
 * names.  This one builds a graph of nodes instead: a name (GLOBAL) is two strings, a call (REDUCE,
 * NEWOBJ) is a node that remembers what would have been called with what, BUILD hangs the state on
 * it.  Files that name what only an attack needs (os.system, builtins.eval, ...) are refused by
 * name; other unknown names stay as inert nodes.
 *
 * The graph may be cyclic (omegaconf's is): walk it along known paths, never recurse blindly.  Nodes
 * are numbered; 0 is "nothing".  Strings point into the caller's bytes, which must outlive the
 * pickle.  Memory is bounded by the named limits whatever the file says.
 */
#ifndef CARZEROD_MODEL_PICKLE_H
#define CARZEROD_MODEL_PICKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

#define PICKLE_NODES_MAX 1000000 /* a full training state has about 60,000 */
#define PICKLE_ITEMS_MAX 2000000
#define PICKLE_STACK_MAX 1000000
#define PICKLE_MARKS_MAX 100000
#define PICKLE_TEXT_MAX (16 * 1024 * 1024)

enum pickle_kind {
	PICKLE_NOTHING, /* node 0 */
	PICKLE_NONE,
	PICKLE_BOOL,  /* number */
	PICKLE_INT,   /* number when n <= 8; text/n: the little-endian bytes */
	PICKLE_FLOAT, /* real */
	PICKLE_TEXT,  /* text/n, UTF-8, no NUL at the end */
	PICKLE_BYTES, /* text/n */
	PICKLE_TUPLE, /* items: values */
	PICKLE_LIST,  /* items: values */
	PICKLE_SET,   /* items: values */
	PICKLE_DICT,  /* items: keys and values */
	PICKLE_NAME,  /* a: module, b: name (PICKLE_TEXT nodes) */
	PICKLE_CALL,  /* a: what, b: arguments, state; items: what was appended or set afterwards */
	PICKLE_OUTSIDE, /* a: the id of an object that lies outside the pickle (BINPERSID) */
};

struct pickle_node {
	enum pickle_kind kind;
	uint32_t a, b, state;
	uint32_t first, last; /* items, 0 when none */
	const uint8_t *text;
	size_t n;
	int64_t number;
	double real;
};

struct pickle_item {
	uint32_t key, value, next; /* key: 0 in sequences */
};

struct pickle;

/* Reads from the front of `b` up to STOP and consumes that.  `what` is what errors call the bytes. */
int pickle_read(struct buf *b, const char *what, struct pickle **ret, struct err *e);
void pickle_free(struct pickle *p); /* NULL allowed */

uint32_t pickle_root(const struct pickle *p);
/* Nodes have the numbers 1 to pickle_size() - 1.  A number outside is node 0. */
size_t pickle_size(const struct pickle *p);
const struct pickle_node *pickle_node(const struct pickle *p, uint32_t id);

/* Walks the items of a node: start with *item = 0; false at the end. */
bool pickle_next(const struct pickle *p, uint32_t node, uint32_t *item, struct pickle_item *ret);
/* The i-th value of a sequence, 0 when there is none. */
uint32_t pickle_nth(const struct pickle *p, uint32_t node, size_t i);
size_t pickle_count(const struct pickle *p, uint32_t node);
/* The last value set under a text key of a dict (or of an object that is used as one), 0 when none. */
uint32_t pickle_get(const struct pickle *p, uint32_t node, const char *key);

bool pickle_text_is(const struct pickle *p, uint32_t node, const char *text);
bool pickle_name_is(const struct pickle *p, uint32_t node, const char *module, const char *name);
/* A call of that name, like pickle_name_is() of its callee. */
bool pickle_call_is(const struct pickle *p, uint32_t node, const char *module, const char *name);
/* A whole number that is not negative. */
bool pickle_size_value(const struct pickle *p, uint32_t node, size_t *ret);

#endif
