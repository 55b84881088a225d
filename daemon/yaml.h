/* yaml.h: a small typed reader for the node's two configuration files.
 *
 * yaml_open() turns text into a tree, refusing what a configuration file never needs (anchors,
 * aliases, tags, duplicate keys, a second document, control characters) and stopping at its limits
 * while it reads, so a hostile file costs milliseconds.  Every node keeps its line.
 *
 * A mapping is read by a table of struct yaml_key: one line names the key, where its value goes,
 * how it is read and between which bounds.  An unknown key is an error that names the nearest known
 * one; so is a required key that is missing.  Readers write into a struct whose defaults are already
 * there, and every error text has the form "file:line: key.path: what is wrong".
 *
 * All functions return 0 or a negative error; -EBADMSG for whatever a person must correct, -E2BIG
 * for a limit.  The tree owns its texts; strings are copied out into fixed fields.
 */
#ifndef CARZEROD_DAEMON_YAML_H
#define CARZEROD_DAEMON_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define YAML_DEPTH_MAX 16

struct yaml;

enum yaml_kind { YAML_TEXT, YAML_LIST, YAML_MAP };

struct yaml_node {
	struct yaml *yaml;
	const struct yaml_node *parent;
	enum yaml_kind kind;
	bool plain;              /* text without quotes: may be a null, a number, a boolean */
	unsigned line;           /* from 1 */
	size_t index;            /* place in the parent, from 1 */
	char *key;               /* in the parent mapping; NULL in a list */
	char *label;             /* stands for the whole path down to here; see yaml_label */
	char *text;              /* YAML_TEXT: UTF-8 without control characters */
	size_t n;                /* children */
	struct yaml_node *first, *last, *next;
};

struct yaml_key;
typedef int yaml_reader(struct yaml_node *n, const struct yaml_key *k, void *field);

struct yaml_key {
	const char *name;
	yaml_reader *read;
	size_t offset, size;      /* of the field in the struct that yaml_read_map fills */
	uint64_t min, max;        /* bounds of a number; of a list: its length */
	const char *const *names; /* of an enum, in the order of its values, ending with NULL */
	bool required;
};

/* YAML_KEY(struct peer, port, yaml_read_u16, .min = 1, .max = 65535, .required = true) */
#define YAML_KEY(type, field, reader, ...) YAML_KEY_AS(#field, type, field, reader, __VA_ARGS__)
#define YAML_KEY_AS(key_name, type, field, reader, ...)                                            \
	{                                                                                          \
		.name = key_name, .read = reader, .offset = offsetof(type, field),                 \
		.size = sizeof(((type *)NULL)->field), __VA_ARGS__                                 \
	}

/* Reads the whole text.  `where` names it in errors; it and `e` must outlive the tree, for later
 * errors about its nodes go there too. */
int yaml_open(const char *where, const void *text, size_t n_text, size_t max_bytes, unsigned max_events,
	      struct err *e, struct yaml **ret);
void yaml_close(struct yaml *y); /* NULL allowed */
static inline void cleanup_yaml_close(struct yaml **y)
{
	yaml_close(*y);
}
struct yaml_node *yaml_root(struct yaml *y); /* a YAML_MAP; an empty one for an empty file */

/* "file:line: key.path: " and the text; returns `code`. */
int yaml_error(const struct yaml_node *n, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* From now on errors below this node say `label` instead of its path: "finding 3 (edema)". */
void yaml_label(struct yaml_node *n, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Fills the struct at `ret` from a mapping. */
int yaml_read_map(struct yaml_node *n, const struct yaml_key *keys, size_t n_keys, void *ret);
struct yaml_node *yaml_find(const struct yaml_node *map, const char *key); /* NULL */

/* -EBADMSG unless n is a list with k->min to k->max entries; children start at n->first. */
int yaml_want_list(const struct yaml_node *n, const struct yaml_key *k);
/* -EBADMSG unless n is a text with a value; *ret points into the tree. */
int yaml_want_text(const struct yaml_node *n, const char **ret);

/* Readers for tables. */
yaml_reader yaml_read_text;    /* char[size]: at most size - 1 bytes */
yaml_reader yaml_read_bool;    /* bool: true, false */
yaml_reader yaml_read_name;    /* an enum (4 bytes): one of k->names */
yaml_reader yaml_read_u16;     /* uint16_t in [min, max] */
yaml_reader yaml_read_u32;     /* unsigned or uint32_t in [min, max] */
yaml_reader yaml_read_size;    /* uint32_t or uint64_t bytes in [min, max]: 4096, "64 KiB", "1 GiB" */
yaml_reader yaml_read_u64;     /* uint64_t in [min, max] */
yaml_reader yaml_read_seconds; /* int64_t milliseconds in [min, max]; 2 and 0.5 are seconds */
yaml_reader yaml_read_real;    /* double; finite */

#endif
