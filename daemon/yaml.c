/* yaml.c: see yaml.h.  The only file that knows libyaml.
 *
 * libyaml's parser is asked for one event at a time and the limits are checked between two events:
 * its document API would build everything first, and 200 KB of '[' cost it a minute.  What YAML has
 * beyond maps, lists and texts is refused by name, so that no reader below needs to think of it:
 * no alias can multiply a text, no tag can change a type, no later key can hide an earlier one.
 *
 * Types are decided by the reader that wants a value, never by how the value looks: `ae_title: 104`
 * is a text, `port: "104"` is refused because the quotes say text.  A value without quotes that is
 * empty, ~ or null is "no value", and no key takes it.
 *
 * Never here: floating locale (numbers are read in the C locale, which no program of ours leaves),
 * files, logging.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"

#include "daemon/yaml.h"

#define PATH_MAX_SHOWN 200
#define VALUE_MAX_SHOWN 64
#define SUGGEST_DISTANCE 3 /* a key this far away is not meant any more */

struct yaml {
	const char *where;
	struct err *e;
	struct yaml_node *root;
};

/* ---- the tree ---- */

static void node_free(struct yaml_node *n)
{
	struct yaml_node *child, *next;

	if (n == NULL)
		return;
	for (child = n->first; child != NULL; child = next) {
		next = child->next;
		node_free(child); /* no deeper than YAML_DEPTH_MAX */
	}
	free(n->key);
	free(n->label);
	free(n->text);
	free(n);
}

void yaml_close(struct yaml *y)
{
	if (y == NULL)
		return;
	node_free(y->root);
	free(y);
}

struct yaml_node *yaml_root(struct yaml *y)
{
	return y->root;
}

static struct yaml_node *node_new(struct yaml *y, struct yaml_node *parent, enum yaml_kind kind,
				  unsigned line)
{
	struct yaml_node *n = xcalloc(1, sizeof(*n));

	n->yaml = y;
	n->parent = parent;
	n->kind = kind;
	n->line = line;
	if (parent == NULL) {
		y->root = n;
		return n;
	}
	if (parent->last == NULL)
		parent->first = n;
	else
		parent->last->next = n;
	parent->last = n;
	n->index = ++parent->n;
	return n;
}

struct yaml_node *yaml_find(const struct yaml_node *map, const char *key)
{
	struct yaml_node *n;

	if (map->kind != YAML_MAP)
		return NULL;
	for (n = map->first; n != NULL; n = n->next)
		if (strcmp(n->key, key) == 0)
			return n;
	return NULL;
}

void yaml_label(struct yaml_node *n, const char *format, ...)
{
	char text[PATH_MAX_SHOWN];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	free(n->label);
	n->label = xstrdup(text);
}

/* ---- errors ---- */

static void path_add(char *path, size_t size, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
static void path_add(char *path, size_t size, const char *format, ...)
{
	size_t n = strlen(path);
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(path + n, size - n, format, ap); /* cutting is what we want */
	va_end(ap);
}

/* "peers[2].port: ", "finding 3 (edema): calibration.a: ", "" at the root. */
static void node_path(const struct yaml_node *n, char *path, size_t size)
{
	const struct yaml_node *way[YAML_DEPTH_MAX + 2];
	size_t depth = 0;
	bool dot = false;

	path[0] = '\0';
	for (; n != NULL && n->parent != NULL; n = n->parent) {
		way[depth++] = n;
		if (n->label != NULL)
			break;
	}
	while (depth > 0) {
		n = way[--depth];
		if (n->label != NULL) {
			path_add(path, size, "%s%s", n->label, depth > 0 ? ": " : "");
		} else if (n->key != NULL) {
			path_add(path, size, "%s%s", dot ? "." : "", n->key);
			dot = true;
		} else {
			path_add(path, size, "[%zu]", n->index);
			dot = true;
		}
	}
	if (path[0] != '\0')
		path_add(path, size, ": ");
}

int yaml_error(const struct yaml_node *n, int code, const char *format, ...)
{
	char path[PATH_MAX_SHOWN], text[ERR_TEXT_MAX];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	node_path(n, path, sizeof(path));
	return err_set(n->yaml->e, code, "%s:%u: %s%s", n->yaml->where, n->line, path, text);
}

static int refuse_at(const struct yaml *y, yaml_mark_t at, int code, const char *text)
{
	return err_set(y->e, code, "%s:%zu: %s", y->where, at.line + 1, text);
}

/* ---- from events to the tree ---- */

/* The line of a byte, for libyaml's reader errors: they come without one. */
static size_t line_of(const uint8_t *text, size_t n_text, size_t at)
{
	size_t line = 1, i;

	for (i = 0; i < at && i < n_text; i++)
		line += text[i] == '\n';
	return line;
}

/* Indenting with a tab is the commonest mistake, and libyaml's words for it help nobody. */
static bool line_has_tab(const char *text, size_t n_text, size_t line)
{
	size_t i = 0;

	for (; line > 0; line--) {
		const char *end = memchr(text + i, '\n', n_text - i);

		if (end == NULL)
			return false;
		i = (size_t)(end - text) + 1;
	}
	while (i < n_text && text[i] == ' ')
		i++;
	return i < n_text && text[i] == '\t';
}

static int parser_error(const struct yaml *y, const yaml_parser_t *parser, const void *text, size_t n_text)
{
	const char *problem = parser->problem != NULL ? parser->problem : "syntax error";
	const char *context = parser->context;

	switch (parser->error) {
	case YAML_MEMORY_ERROR:
		return -ENOMEM;
	case YAML_READER_ERROR:
		return err_set(y->e, -EBADMSG, "%s:%zu: not UTF-8 text: %s", y->where,
			       line_of(text, n_text, parser->problem_offset), problem);
	default:
		if (context != NULL && strcmp(context, "while scanning an alias") == 0)
			return refuse_at(y, parser->problem_mark, -EBADMSG,
					 "a * begins an alias: put it in quotes, \"*\"");
		if (line_has_tab(text, n_text, parser->problem_mark.line))
			return refuse_at(y, parser->problem_mark, -EBADMSG,
					 "the line begins with a tab; YAML indents with spaces");
		if (context == NULL)
			return err_set(y->e, -EBADMSG, "%s:%zu: not YAML: %s", y->where,
				       parser->problem_mark.line + 1, problem);
		return err_set(y->e, -EBADMSG, "%s:%zu: not YAML: %s (%s that begins on line %zu)",
			       y->where, parser->problem_mark.line + 1, problem, context,
			       parser->context_mark.line + 1);
	}
}

/* A text must be one that can be shown, compared and sent: no NUL, no control characters (C0, DEL,
 * C1), which only escapes in double quotes can bring past libyaml's reader. */
static bool text_clean(const unsigned char *s, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (s[i] < 0x20 || s[i] == 0x7f ||
		    (s[i] == 0xc2 && i + 1 < n && s[i + 1] < 0xa0))
			return false;
	return true;
}

struct builder {
	struct yaml *y;
	struct yaml_node *open; /* the list or map being filled */
	char *key;              /* read, its value still to come */
	unsigned key_line;
	unsigned depth;
};

static int take_key(struct builder *b, const yaml_event_t *event)
{
	const char *text = (const char *)event->data.scalar.value;
	const struct yaml_node *n;
	char shown[VALUE_MAX_SHOWN];
	unsigned line = (unsigned)event->start_mark.line + 1;

	if (text[0] == '\0')
		return refuse_at(b->y, event->start_mark, -EBADMSG, "a key is empty");
	for (n = b->open->first; n != NULL; n = n->next)
		if (strcmp(n->key, text) == 0)
			return err_set(b->y->e, -EBADMSG,
				       "%s:%u: duplicate key '%s': it stands on line %u already", b->y->where,
				       line, str_quote(shown, sizeof(shown), text), n->line);
	b->key = xstrdup(text);
	b->key_line = line;
	return 0;
}

/* A node under the open one, under the waiting key if that is a map. */
static struct yaml_node *add_node(struct builder *b, enum yaml_kind kind, const yaml_event_t *event)
{
	struct yaml_node *n = node_new(b->y, b->open, kind, (unsigned)event->start_mark.line + 1);

	if (b->key != NULL) {
		n->key = TAKE(b->key);
		n->line = b->key_line; /* where a person looks for it */
	}
	return n;
}

static int take_scalar(struct builder *b, const yaml_event_t *event)
{
	struct yaml_node *n;

	if (!text_clean(event->data.scalar.value, event->data.scalar.length))
		return refuse_at(b->y, event->start_mark, -EBADMSG,
				 "a text contains a control character or a line break");
	if (b->open != NULL && b->open->kind == YAML_MAP && b->key == NULL)
		return take_key(b, event);
	n = add_node(b, YAML_TEXT, event);
	n->text = xstrdup((const char *)event->data.scalar.value);
	n->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
	return 0;
}

static int take_start(struct builder *b, enum yaml_kind kind, const yaml_event_t *event)
{
	if (++b->depth > YAML_DEPTH_MAX)
		return err_set(b->y->e, -E2BIG, "%s:%zu: nested deeper than %u", b->y->where,
			       event->start_mark.line + 1, YAML_DEPTH_MAX);
	if (b->open != NULL && b->open->kind == YAML_MAP && b->key == NULL)
		return refuse_at(b->y, event->start_mark, -EBADMSG,
				 "a key must be a word, not a list or a map");
	b->open = add_node(b, kind, event);
	return 0;
}

static int refuse_extras(const struct yaml *y, const yaml_event_t *event)
{
	const yaml_char_t *anchor = NULL, *tag = NULL;

	switch (event->type) {
	case YAML_ALIAS_EVENT:
		return refuse_at(y, event->start_mark, -EBADMSG,
				 "aliases (*name) are not taken: write the value out");
	case YAML_SCALAR_EVENT:
		anchor = event->data.scalar.anchor;
		tag = event->data.scalar.tag;
		break;
	case YAML_SEQUENCE_START_EVENT:
		anchor = event->data.sequence_start.anchor;
		tag = event->data.sequence_start.tag;
		break;
	case YAML_MAPPING_START_EVENT:
		anchor = event->data.mapping_start.anchor;
		tag = event->data.mapping_start.tag;
		break;
	default:
		break;
	}
	if (anchor != NULL)
		return refuse_at(y, event->start_mark, -EBADMSG,
				 "anchors (&name) are not taken: put a text that begins with & in quotes");
	if (tag != NULL)
		return refuse_at(y, event->start_mark, -EBADMSG,
				 "tags (!name) are not taken: put a text that begins with ! in quotes");
	return 0;
}

static int take_event(struct builder *b, const yaml_event_t *event)
{
	int r;

	r = refuse_extras(b->y, event);
	if (r < 0)
		return r;
	switch (event->type) {
	case YAML_DOCUMENT_START_EVENT:
		if (b->y->root != NULL)
			return refuse_at(b->y, event->start_mark, -EBADMSG,
					 "a second document begins here: one is enough");
		if (event->data.document_start.version_directive != NULL ||
		    event->data.document_start.tag_directives.start !=
			    event->data.document_start.tag_directives.end)
			return refuse_at(b->y, event->start_mark, -EBADMSG,
					 "directives (%YAML, %TAG) are not taken");
		return 0;
	case YAML_SCALAR_EVENT:
		return take_scalar(b, event);
	case YAML_SEQUENCE_START_EVENT:
		return take_start(b, YAML_LIST, event);
	case YAML_MAPPING_START_EVENT:
		return take_start(b, YAML_MAP, event);
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		b->open = (struct yaml_node *)(uintptr_t)b->open->parent;
		b->depth--;
		return 0;
	default: /* stream start and end, document end */
		return 0;
	}
}

static int build(struct builder *b, yaml_parser_t *parser, const void *text, size_t n_text,
		 unsigned max_events)
{
	yaml_event_type_t type = YAML_NO_EVENT;
	unsigned events = 0;

	while (type != YAML_STREAM_END_EVENT) {
		yaml_event_t event;
		int r;

		if (!yaml_parser_parse(parser, &event))
			return parser_error(b->y, parser, text, n_text);
		type = event.type;
		r = take_event(b, &event);
		if (r == 0 && ++events > max_events)
			r = err_set(b->y->e, -E2BIG, "%s:%zu: more than %u keys, values and lists",
				    b->y->where, event.start_mark.line + 1, max_events);
		yaml_event_delete(&event);
		if (r < 0)
			return r;
	}
	if (b->y->root == NULL)
		(void)node_new(b->y, NULL, YAML_MAP, 1);
	if (b->y->root->kind != YAML_MAP)
		return yaml_error(b->y->root, -EBADMSG, "the file must hold keys and values");
	return 0;
}

int yaml_open(const char *where, const void *text, size_t n_text, size_t max_bytes, unsigned max_events,
	      struct err *e, struct yaml **ret)
{
	static const uint8_t mark[] = { 0xef, 0xbb, 0xbf }; /* byte order mark, as some editors write */
	CLEANUP(yaml_close) struct yaml *y = NULL;
	const uint8_t *bytes = text;
	struct builder b = { 0 };
	yaml_parser_t parser;
	int r;

	if (n_text > max_bytes)
		return err_set(e, -E2BIG, "%s: larger than %zu bytes", where, max_bytes);
	if (n_text >= sizeof(mark) && memcmp(bytes, mark, sizeof(mark)) == 0) {
		bytes += sizeof(mark);
		n_text -= sizeof(mark);
	}
	y = xcalloc(1, sizeof(*y));
	y->where = where;
	y->e = e;
	b.y = y;
	if (!yaml_parser_initialize(&parser))
		return -ENOMEM;
	yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING); /* else two bytes could make it UTF-16 */
	yaml_parser_set_input_string(&parser, bytes, n_text);
	r = build(&b, &parser, bytes, n_text, max_events);
	yaml_parser_delete(&parser);
	free(b.key);
	if (r < 0)
		return r;
	*ret = TAKE(y);
	return 0;
}

/* ---- typed reading ---- */

static const char *kind_name(enum yaml_kind kind)
{
	return kind == YAML_TEXT ? "a single value" : kind == YAML_LIST ? "a list" : "keys and values";
}

/* `key:`, `key: ~` and `key: null`. */
static bool is_null(const struct yaml_node *n)
{
	return n->kind == YAML_TEXT && n->plain &&
	       (n->text[0] == '\0' || strcmp(n->text, "~") == 0 || strcmp(n->text, "null") == 0 ||
		strcmp(n->text, "Null") == 0 || strcmp(n->text, "NULL") == 0);
}

static int unknown_key(const struct yaml_node *n, const struct yaml_key *keys, size_t n_keys)
{
	struct yaml_node at = *n->parent; /* the error is about the mapping, on the key's line */
	char shown[VALUE_MAX_SHOWN], known[ERR_TEXT_MAX / 2] = "";
	const char *nearest = NULL;
	unsigned best = SUGGEST_DISTANCE;
	size_t i;

	at.line = n->line;
	str_quote(shown, sizeof(shown), n->key);
	for (i = 0; i < n_keys; i++) {
		unsigned d = str_distance(n->key, keys[i].name, SUGGEST_DISTANCE);

		if (d < best && d < strlen(keys[i].name)) {
			best = d;
			nearest = keys[i].name;
		}
		path_add(known, sizeof(known), "%s%s", i > 0 ? ", " : "", keys[i].name);
	}
	if (nearest != NULL)
		return yaml_error(&at, -EBADMSG, "unknown key '%s', did you mean '%s'?", shown, nearest);
	return yaml_error(&at, -EBADMSG, "unknown key '%s'; known here: %s", shown, known);
}

int yaml_read_map(struct yaml_node *n, const struct yaml_key *keys, size_t n_keys, void *ret)
{
	struct yaml_node *child;
	size_t i;
	int r;

	if (is_null(n))
		return yaml_error(n, -EBADMSG, "has no value");
	if (n->kind != YAML_MAP)
		return yaml_error(n, -EBADMSG, "must be keys and values, not %s", kind_name(n->kind));
	for (child = n->first; child != NULL; child = child->next) {
		for (i = 0; i < n_keys; i++)
			if (strcmp(child->key, keys[i].name) == 0)
				break;
		if (i == n_keys)
			return unknown_key(child, keys, n_keys);
		r = keys[i].read(child, &keys[i], (char *)ret + keys[i].offset);
		if (r < 0)
			return r;
	}
	for (i = 0; i < n_keys; i++)
		if (keys[i].required && yaml_find(n, keys[i].name) == NULL)
			return yaml_error(n, -EBADMSG, "key '%s' is missing", keys[i].name);
	return 0;
}

int yaml_want_list(const struct yaml_node *n, const struct yaml_key *k)
{
	char shown[VALUE_MAX_SHOWN];

	if (is_null(n))
		return yaml_error(n, -EBADMSG, "has no value");
	if (n->kind == YAML_TEXT)
		return yaml_error(n, -EBADMSG, "must be a list: [%s]",
				  str_quote(shown, sizeof(shown), n->text));
	if (n->kind != YAML_LIST)
		return yaml_error(n, -EBADMSG, "must be a list, not %s", kind_name(n->kind));
	if (n->n < k->min)
		return yaml_error(n, -EBADMSG, "the list is empty");
	if (n->n > k->max)
		return yaml_error(n, -E2BIG, "the list has %zu entries, at most %" PRIu64 " are taken",
				  n->n, k->max);
	return 0;
}

int yaml_want_text(const struct yaml_node *n, const char **ret)
{
	if (n->kind != YAML_TEXT)
		return yaml_error(n, -EBADMSG, "must be a single value, not %s", kind_name(n->kind));
	if (is_null(n))
		return yaml_error(n, -EBADMSG, "has no value");
	*ret = n->text;
	return 0;
}

int yaml_read_text(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	const char *text = "";
	int r;

	r = yaml_want_text(n, &text);
	if (r < 0)
		return r;
	if (!str_copy(field, k->size, text))
		return yaml_error(n, -EBADMSG, "is longer than %zu bytes", k->size - 1);
	return 0;
}

int yaml_read_bool(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	char shown[VALUE_MAX_SHOWN];
	const char *text = "";
	int r;

	(void)k;
	r = yaml_want_text(n, &text);
	if (r < 0)
		return r;
	if (!n->plain || (strcmp(text, "true") != 0 && strcmp(text, "false") != 0))
		return yaml_error(n, -EBADMSG, "must be true or false, not '%s'%s",
				  str_quote(shown, sizeof(shown), text), n->plain ? "" : " in quotes");
	*(bool *)field = text[0] == 't';
	return 0;
}

int yaml_read_name(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	char shown[VALUE_MAX_SHOWN], known[PATH_MAX_SHOWN] = "";
	const char *text = "";
	unsigned i;
	int r;

	r = yaml_want_text(n, &text);
	if (r < 0)
		return r;
	for (i = 0; k->names[i] != NULL; i++) {
		if (strcmp(text, k->names[i]) == 0) {
			memcpy(field, &i, sizeof(i)); /* enums are as wide as unsigned here */
			return 0;
		}
		path_add(known, sizeof(known), "%s%s", i == 0 ? "" : k->names[i + 1] == NULL ? " or " : ", ",
			 k->names[i]);
	}
	return yaml_error(n, -EBADMSG, "must be %s, not '%s'", known, str_quote(shown, sizeof(shown), text));
}

static int want_u64(struct yaml_node *n, const struct yaml_key *k, uint64_t *ret)
{
	char shown[VALUE_MAX_SHOWN];
	const char *text = "";
	int r;

	r = yaml_want_text(n, &text);
	if (r < 0)
		return r;
	if (!n->plain || !str_to_u64(text, k->min, k->max, ret))
		return yaml_error(n, -EBADMSG,
				  "must be a whole number from %" PRIu64 " to %" PRIu64 ", not '%s'%s",
				  k->min, k->max, str_quote(shown, sizeof(shown), text),
				  n->plain ? "" : " in quotes");
	return 0;
}

int yaml_read_u16(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	uint64_t v = 0;
	int r;

	r = want_u64(n, k, &v);
	if (r < 0)
		return r;
	*(uint16_t *)field = (uint16_t)v;
	return 0;
}

int yaml_read_u32(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	uint64_t v = 0;
	int r;

	r = want_u64(n, k, &v);
	if (r < 0)
		return r;
	*(uint32_t *)field = (uint32_t)v;
	return 0;
}

int yaml_read_u64(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	return want_u64(n, k, field);
}

/* 131072 as "128 KiB": the largest unit that divides it. */
static void show_size(char *dst, size_t size, uint64_t v)
{
	static const char *const unit[] = { "", " KiB", " MiB", " GiB" };
	size_t i = 0;

	for (; i < 3 && v >= 1024 && v % 1024 == 0; i++)
		v /= 1024;
	(void)snprintf(dst, size, "%" PRIu64 "%s", v, unit[i]);
}

static bool parse_size(const char *text, uint64_t *ret)
{
	static const char *const unit[] = { "", "KiB", "MiB", "GiB" };
	char digits[24];
	size_t n = strspn(text, "0123456789"), i;

	if (n >= sizeof(digits))
		return false;
	memcpy(digits, text, n);
	digits[n] = '\0';
	text += n;
	text += strspn(text, " ");
	for (i = 0; i < ARRAY_SIZE(unit); i++)
		if (strcmp(text, unit[i]) == 0)
			break;
	if (i == ARRAY_SIZE(unit) || !str_to_u64(digits, 0, UINT64_MAX >> (10 * i), ret))
		return false;
	*ret <<= 10 * i;
	return true;
}

int yaml_read_size(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	char shown[VALUE_MAX_SHOWN], low[32], high[32];
	const char *text = "";
	uint64_t v = 0;
	int r;

	r = yaml_want_text(n, &text);
	if (r < 0)
		return r;
	if (!n->plain || !parse_size(text, &v) || v < k->min || v > k->max) {
		show_size(low, sizeof(low), k->min);
		show_size(high, sizeof(high), k->max);
		return yaml_error(n, -EBADMSG, "must be bytes (or KiB, MiB, GiB) from %s to %s, not '%s'",
				  low, high, str_quote(shown, sizeof(shown), text));
	}
	if (k->size == sizeof(uint32_t))
		*(uint32_t *)field = (uint32_t)v;
	else
		*(uint64_t *)field = v;
	return 0;
}

/* [+-]digits[.digits][e[+-]digits], the whole text: strtod would also take hex, inf, nan and blanks. */
static bool parse_real(const char *s, double *ret)
{
	const char *p = s + strspn(s, "+-");
	size_t whole, fraction = 0;

	if (p - s > 1)
		return false;
	whole = strspn(p, "0123456789");
	p += whole;
	if (*p == '.') {
		fraction = strspn(++p, "0123456789");
		p += fraction;
	}
	if (whole + fraction == 0)
		return false;
	if (*p == 'e' || *p == 'E') {
		size_t digits;

		p++;
		p += *p == '+' || *p == '-';
		digits = strspn(p, "0123456789");
		if (digits == 0)
			return false;
		p += digits;
	}
	if (*p != '\0')
		return false;
	*ret = strtod(s, NULL);
	return isfinite(*ret);
}

int yaml_read_real(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	char shown[VALUE_MAX_SHOWN];
	const char *text = "";
	double v = 0;
	int r;

	(void)k;
	r = yaml_want_text(n, &text);
	if (r < 0)
		return r;
	if (!n->plain || !parse_real(text, &v))
		return yaml_error(n, -EBADMSG, "must be a number, not '%s'%s",
				  str_quote(shown, sizeof(shown), text), n->plain ? "" : " in quotes");
	*(double *)field = v;
	return 0;
}

int yaml_read_seconds(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	char shown[VALUE_MAX_SHOWN];
	const char *text = "";
	double v = 0;
	int r;

	r = yaml_want_text(n, &text);
	if (r < 0)
		return r;
	if (!n->plain || !parse_real(text, &v) || v * 1000 < (double)k->min || v * 1000 > (double)k->max)
		return yaml_error(n, -EBADMSG, "must be seconds from %g to %g, not '%s'",
				  (double)k->min / 1000, (double)k->max / 1000,
				  str_quote(shown, sizeof(shown), text));
	*(int64_t *)field = llround(v * 1000);
	return 0;
}
