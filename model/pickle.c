/* pickle.c: see pickle.h.  The opcodes that torch and Lightning write, and no others.
 *
 * Every opcode takes its operands with buf_get_*; the stack, the marks, the memo and the two arenas
 * have limits; nothing recurses, so depth costs nothing.  Work is linear in the bytes read.  An
 * opcode off the list is an error that names it: a wrong guess about a stack effect would turn one
 * tensor into another.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

#include "model/pickle.h"

#define NAME_MAX_SHOWN 120
#define LINE_MAX_BYTES 512 /* module or name of a GLOBAL */

enum op { /* Python's pickletools names */
	MARK = '(', STOP = '.', POP = '0', NONE = 'N', NEWTRUE = 0x88, NEWFALSE = 0x89, BININT = 'J',
	BININT1 = 'K', BININT2 = 'M', LONG1 = 0x8a, LONG4 = 0x8b, BINFLOAT = 'G', BINSTRING = 'T',
	SHORT_BINSTRING = 'U', BINBYTES = 'B', SHORT_BINBYTES = 'C', BINUNICODE = 'X',
	SHORT_BINUNICODE = 0x8c, EMPTY_DICT = '}', EMPTY_LIST = ']', EMPTY_TUPLE = ')', EMPTY_SET = 0x8f,
	TUPLE = 't', TUPLE1 = 0x85, TUPLE2 = 0x86, TUPLE3 = 0x87, SETITEM = 's', SETITEMS = 'u',
	APPEND = 'a', APPENDS = 'e', ADDITEMS = 0x90, BINPUT = 'q', LONG_BINPUT = 'r', BINGET = 'h',
	LONG_BINGET = 'j', MEMOIZE = 0x94, GLOBAL = 'c', STACK_GLOBAL = 0x93, REDUCE = 'R', NEWOBJ = 0x81,
	BUILD = 'b', BINPERSID = 'Q', PROTO = 0x80, FRAME = 0x95,
};

struct pickle {
	struct pickle_node *nodes;
	size_t n_nodes, room_nodes;
	struct pickle_item *items;
	size_t n_items, room_items;
	uint32_t root;
};

struct reader {
	struct pickle *p;
	struct buf *b;
	const uint8_t *start;
	const char *what;
	struct err *e;
	uint32_t *stack;
	size_t n_stack, room_stack;
	uint32_t *marks; /* heights of the stack */
	size_t n_marks, room_marks;
	uint32_t *memo;
	size_t n_memo, room_memo, memoized;
	bool stopped;
};

/* Makes room for one more element, up to max. */
static int grow(void **array, size_t *room, size_t n, size_t size, size_t max)
{
	size_t want = *room * 2 < 64 ? 64 : *room * 2;
	void *p;

	if (n < *room)
		return 0;
	if (n >= max)
		return -E2BIG;
	if (want > max)
		want = max;
	p = reallocarray(*array, want, size);
	if (p == NULL)
		return -ENOMEM;
	*array = p;
	*room = want;
	return 0;
}

static int bad(const struct reader *r, int code, const char *why)
{
	return err_set(r->e, code, "%s: byte %zu: %s", r->what, (size_t)(r->b->p - r->start), why);
}

static int cut_short(const struct reader *r)
{
	return bad(r, -EBADMSG, "the pickle ends inside an operation (truncated file?)");
}

static int node_new(struct reader *r, enum pickle_kind kind, uint32_t *ret)
{
	struct pickle *p = r->p;
	void *nodes = p->nodes;
	int err = grow(&nodes, &p->room_nodes, p->n_nodes, sizeof(*p->nodes), PICKLE_NODES_MAX);

	p->nodes = nodes;
	if (err < 0)
		return bad(r, err, "more objects than any checkpoint has");
	p->nodes[p->n_nodes] = (struct pickle_node){ .kind = kind };
	*ret = (uint32_t)p->n_nodes++;
	return 0;
}

static int push(struct reader *r, uint32_t id)
{
	void *stack = r->stack;
	int err = grow(&stack, &r->room_stack, r->n_stack, sizeof(*r->stack), PICKLE_STACK_MAX);

	r->stack = stack;
	if (err < 0)
		return bad(r, err, "stack deeper than any checkpoint needs");
	r->stack[r->n_stack++] = id;
	return 0;
}

static int push_new(struct reader *r, enum pickle_kind kind, struct pickle_node **ret)
{
	uint32_t id;
	int err = node_new(r, kind, &id);

	if (err < 0)
		return err;
	*ret = &r->p->nodes[id];
	return push(r, id);
}

/* What may be popped: not below the last mark. */
static int pop(struct reader *r, uint32_t *ret)
{
	size_t floor = r->n_marks > 0 ? r->marks[r->n_marks - 1] : 0;

	if (r->n_stack <= floor)
		return bad(r, -EBADMSG, "the stack is empty where a value is needed");
	*ret = r->stack[--r->n_stack];
	return 0;
}

static int pop_mark(struct reader *r, size_t *ret)
{
	if (r->n_marks == 0)
		return bad(r, -EBADMSG, "no mark where one is needed");
	*ret = r->marks[--r->n_marks];
	return 0;
}

static int item_add(struct reader *r, uint32_t node, uint32_t key, uint32_t value)
{
	struct pickle *p = r->p;
	void *items = p->items;
	int err = grow(&items, &p->room_items, p->n_items, sizeof(*p->items), PICKLE_ITEMS_MAX);
	uint32_t id;

	p->items = items;
	if (err < 0)
		return bad(r, err, "more items than any checkpoint has");
	id = (uint32_t)p->n_items++;
	p->items[id] = (struct pickle_item){ .key = key, .value = value };
	if (p->nodes[node].first == 0)
		p->nodes[node].first = id;
	else
		p->items[p->nodes[node].last].next = id;
	p->nodes[node].last = id;
	return 0;
}

/* TUPLE1..3 (count >= 0) and TUPLE (from the mark). */
static int op_tuple(struct reader *r, int count)
{
	size_t from = 0, i;
	uint32_t id;
	int err;

	if (count < 0) {
		err = pop_mark(r, &from);
		if (err < 0)
			return err;
	} else {
		size_t floor = r->n_marks > 0 ? r->marks[r->n_marks - 1] : 0;

		if (r->n_stack - floor < (size_t)count)
			return bad(r, -EBADMSG, "the stack is empty where a value is needed");
		from = r->n_stack - (size_t)count;
	}
	err = node_new(r, PICKLE_TUPLE, &id);
	if (err < 0)
		return err;
	for (i = from; i < r->n_stack; i++) {
		err = item_add(r, id, 0, r->stack[i]);
		if (err < 0)
			return err;
	}
	r->n_stack = from;
	return push(r, id);
}

/* APPEND(S), ADDITEMS, SETITEM(S): everything above `from` goes into the object below it. */
static int put_items(struct reader *r, size_t from, bool pairs)
{
	size_t floor = r->n_marks > 0 ? r->marks[r->n_marks - 1] : 0, i;
	enum pickle_kind kind;
	uint32_t target;
	int err;

	if (from <= floor)
		return bad(r, -EBADMSG, "no object under the items");
	target = r->stack[from - 1];
	kind = r->p->nodes[target].kind;
	if (kind != PICKLE_CALL && kind != (pairs ? PICKLE_DICT : PICKLE_LIST) &&
	    (pairs || kind != PICKLE_SET))
		return bad(r, -EBADMSG, "items for an object that takes none");
	if (pairs && (r->n_stack - from) % 2 != 0)
		return bad(r, -EBADMSG, "a key without a value");
	for (i = from; i < r->n_stack; i += pairs ? 2 : 1) {
		err = pairs ? item_add(r, target, r->stack[i], r->stack[i + 1])
			    : item_add(r, target, 0, r->stack[i]);
		if (err < 0)
			return err;
	}
	r->n_stack = from;
	return 0;
}

static int op_items(struct reader *r, bool marked, bool pairs)
{
	size_t from = 0, need = pairs ? 2 : 1;
	int err;

	if (marked) {
		err = pop_mark(r, &from);
		if (err < 0)
			return err;
	} else {
		if (r->n_stack < need)
			return bad(r, -EBADMSG, "the stack is empty where a value is needed");
		from = r->n_stack - need;
	}
	return put_items(r, from, pairs);
}

static int memo_put(struct reader *r, size_t index)
{
	size_t floor = r->n_marks > 0 ? r->marks[r->n_marks - 1] : 0;
	void *memo;
	int err;

	if (r->n_stack <= floor)
		return bad(r, -EBADMSG, "the stack is empty where a value is needed");
	if (index >= PICKLE_NODES_MAX)
		return bad(r, -E2BIG, "memo index larger than any checkpoint has");
	while (index >= r->n_memo) {
		memo = r->memo;
		err = grow(&memo, &r->room_memo, r->n_memo, sizeof(*r->memo), PICKLE_NODES_MAX);
		r->memo = memo;
		if (err < 0)
			return bad(r, err, "memo larger than any checkpoint has");
		r->memo[r->n_memo++] = 0;
	}
	if (r->memo[index] == 0)
		r->memoized++;
	r->memo[index] = r->stack[r->n_stack - 1];
	return 0;
}

static int memo_get(struct reader *r, size_t index)
{
	if (index >= r->n_memo || r->memo[index] == 0)
		return bad(r, -EBADMSG, "a memo entry is used before it is made");
	return push(r, r->memo[index]);
}

static int op_span(struct reader *r, enum pickle_kind kind, size_t n)
{
	struct pickle_node *node;
	const uint8_t *text;
	int err;

	if (n > PICKLE_TEXT_MAX)
		return bad(r, -E2BIG, "string longer than any checkpoint has");
	if (buf_get_span(r->b, &text, n) < 0)
		return cut_short(r);
	err = push_new(r, kind, &node);
	if (err < 0)
		return err;
	node->text = text;
	node->n = n;
	return 0;
}

/* Reads a 1- or 4-byte count. */
static int get_count(struct reader *r, size_t bytes, size_t *ret)
{
	uint32_t n32;
	uint8_t n8;

	if (bytes == 1) {
		if (buf_get_u8(r->b, &n8) < 0)
			return cut_short(r);
		*ret = n8;
		return 0;
	}
	if (buf_get_u32(r->b, false, &n32) < 0)
		return cut_short(r);
	*ret = n32;
	return 0;
}

static int op_counted(struct reader *r, enum pickle_kind kind, size_t bytes)
{
	size_t n;
	int err = get_count(r, bytes, &n);

	if (err < 0)
		return err;
	return op_span(r, kind, n);
}

static int op_number(struct reader *r, enum pickle_kind kind, int64_t number)
{
	struct pickle_node *node;
	int err = push_new(r, kind, &node);

	if (err < 0)
		return err;
	node->number = number;
	return 0;
}

/* LONG1, LONG4: two's complement of n bytes; the value when it fits. */
static int op_long(struct reader *r, size_t bytes)
{
	struct pickle_node *node;
	uint64_t v = 0;
	size_t i;
	int err = op_counted(r, PICKLE_INT, bytes);

	if (err < 0)
		return err;
	node = &r->p->nodes[r->stack[r->n_stack - 1]];
	if (node->n > 8)
		return 0;
	for (i = 0; i < node->n; i++)
		v |= (uint64_t)node->text[i] << (8 * i);
	if (node->n > 0 && node->n < 8 && (node->text[node->n - 1] & 0x80) != 0)
		v |= ~(uint64_t)0 << (8 * node->n);
	node->number = (int64_t)v;
	return 0;
}

static int op_float(struct reader *r)
{
	struct pickle_node *node;
	uint64_t bits;
	int err;

	if (buf_get_u64(r->b, true, &bits) < 0)
		return cut_short(r);
	err = push_new(r, PICKLE_FLOAT, &node);
	if (err < 0)
		return err;
	memcpy(&node->real, &bits, sizeof(bits));
	return 0;
}

static bool text_in(const struct pickle_node *t, const char *const *list, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (strlen(list[i]) == t->n && memcmp(list[i], t->text, t->n) == 0)
			return true;
	return false;
}

/* Whether only an attack has a use for this name.  Not what keeps us safe (nothing is ever called):
 * it tells the user that the file in his hands is poisoned for the next program that opens it. */
static bool hostile(const struct pickle_node *module, const struct pickle_node *name)
{
	static const char *const modules[] = {
		"os",	      "posix",
		"nt",	      "sys",
		"subprocess", "commands",
		"pty",	      "shutil",
		"socket",     "runpy",
		"importlib",  "imp",
		"ctypes",     "multiprocessing",
		"pickle",     "cPickle",
		"_pickle",    "marshal",
		"code",	      "codeop",
		"timeit",     "pdb",
		"bdb",	      "trace",
		"cProfile",   "profile",
		"webbrowser", "pip",
		"http",	      "urllib",
		"urllib2",    "ftplib",
		"smtplib",    "asyncio",
		"threading",  "signal",
		"tempfile",   "operator",
		"inspect",    "builtin",
		"popen2",     "fileinput",
		"io",	      "_io",
	};
	static const char *const types[] = {
		/* the classes of builtins; its functions are hostile, but for
					      * getattr, by which protocol 2 names an inner class */
		"dict",	     "list",	 "tuple",    "set",	"frozenset", "int",
		"long",	     "float",	 "complex",  "str",	"unicode",   "bytes",
		"bytearray", "bool",	 "object",   "type",	"slice",     "range",
		"xrange",    "NoneType", "Ellipsis", "getattr",
	};
	static const char *const builtins[] = { "builtins", "__builtin__", "__builtins__" };
	struct pickle_node first = *module;
	const uint8_t *dot = first.n > 0 ? memchr(first.text, '.', first.n) : NULL;

	if (dot != NULL)
		first.n = (size_t)(dot - first.text);
	if (text_in(&first, builtins, ARRAY_SIZE(builtins)))
		return !text_in(name, types, ARRAY_SIZE(types));
	return text_in(&first, modules, ARRAY_SIZE(modules));
}

static void shown(char ret[NAME_MAX_SHOWN], const struct pickle_node *t)
{
	char raw[NAME_MAX_SHOWN];

	(void)str_copy_padded(raw, sizeof(raw), t->text, t->n); /* cutting is what we want */
	(void)str_quote(ret, NAME_MAX_SHOWN, raw);
}

static int push_name(struct reader *r, uint32_t module, uint32_t name)
{
	const struct pickle_node *m = &r->p->nodes[module], *n = &r->p->nodes[name];
	char module_text[NAME_MAX_SHOWN], name_text[NAME_MAX_SHOWN];
	struct pickle_node *node;
	int err;

	if (m->kind != PICKLE_TEXT || n->kind != PICKLE_TEXT)
		return bad(r, -EBADMSG, "a name that is not two strings");
	if (hostile(m, n)) {
		shown(module_text, m);
		shown(name_text, n);
		return err_set(r->e, -EPERM,
			       "%s: byte %zu: names %s.%s, which no checkpoint needs: the file is "
			       "poisoned. "
			       "Nothing was called; do not load it with Python",
			       r->what, (size_t)(r->b->p - r->start), module_text, name_text);
	}
	err = push_new(r, PICKLE_NAME, &node);
	if (err < 0)
		return err;
	node->a = module;
	node->b = name;
	return 0;
}

/* One line of a GLOBAL as a text node. */
static int get_line(struct reader *r, uint32_t *ret)
{
	size_t max = r->b->left < LINE_MAX_BYTES ? r->b->left : LINE_MAX_BYTES, n;
	const uint8_t *text, *end = max > 0 ? memchr(r->b->p, '\n', max) : NULL;
	int err;

	if (end == NULL)
		return bad(r, -EBADMSG, "a name without an end");
	n = (size_t)(end - r->b->p);
	if (buf_get_span(r->b, &text, n) < 0 || buf_skip(r->b, 1) < 0)
		return cut_short(r);
	err = node_new(r, PICKLE_TEXT, ret);
	if (err < 0)
		return err;
	r->p->nodes[*ret].text = text;
	r->p->nodes[*ret].n = n;
	return 0;
}

static int op_global(struct reader *r)
{
	uint32_t module, name;
	int err;

	err = get_line(r, &module);
	if (err < 0)
		return err;
	err = get_line(r, &name);
	if (err < 0)
		return err;
	return push_name(r, module, name);
}

static int op_stack_global(struct reader *r)
{
	uint32_t module, name;
	int err;

	err = pop(r, &name);
	if (err < 0)
		return err;
	err = pop(r, &module);
	if (err < 0)
		return err;
	return push_name(r, module, name);
}

/* REDUCE, NEWOBJ: remembered, not made. */
static int op_call(struct reader *r)
{
	struct pickle_node *node;
	uint32_t what, arguments;
	int err;

	err = pop(r, &arguments);
	if (err < 0)
		return err;
	err = pop(r, &what);
	if (err < 0)
		return err;
	if (r->p->nodes[arguments].kind != PICKLE_TUPLE)
		return bad(r, -EBADMSG, "a call whose arguments are no tuple");
	err = push_new(r, PICKLE_CALL, &node);
	if (err < 0)
		return err;
	node->a = what;
	node->b = arguments;
	return 0;
}

static int op_build(struct reader *r)
{
	size_t floor = r->n_marks > 0 ? r->marks[r->n_marks - 1] : 0;
	uint32_t state;
	int err = pop(r, &state);

	if (err < 0)
		return err;
	if (r->n_stack <= floor || r->p->nodes[r->stack[r->n_stack - 1]].kind != PICKLE_CALL)
		return bad(r, -EBADMSG, "a state for something that is no object");
	r->p->nodes[r->stack[r->n_stack - 1]].state = state;
	return 0;
}

static int op_outside(struct reader *r)
{
	struct pickle_node *node;
	uint32_t id;
	int err = pop(r, &id);

	if (err < 0)
		return err;
	err = push_new(r, PICKLE_OUTSIDE, &node);
	if (err < 0)
		return err;
	node->a = id;
	return 0;
}

static int op_mark(struct reader *r)
{
	void *marks = r->marks;
	int err = grow(&marks, &r->room_marks, r->n_marks, sizeof(*r->marks), PICKLE_MARKS_MAX);

	r->marks = marks;
	if (err < 0)
		return bad(r, err, "nested deeper than any checkpoint is");
	r->marks[r->n_marks++] = (uint32_t)r->n_stack;
	return 0;
}

static int op_proto(struct reader *r)
{
	uint8_t version;

	if (buf_get_u8(r->b, &version) < 0)
		return cut_short(r);
	if (version < 2 || version > 5)
		return bad(r, -ENOTSUP, "pickle protocol other than 2 to 5");
	return 0;
}

static int op_stop(struct reader *r)
{
	int err = pop(r, &r->p->root);

	if (err < 0)
		return err;
	if (r->n_stack > 0 || r->n_marks > 0)
		return bad(r, -EBADMSG, "the pickle stops with values left over");
	r->stopped = true;
	return 0;
}

static int op_memo(struct reader *r, size_t bytes, bool put)
{
	size_t index;
	int err = get_count(r, bytes, &index);

	if (err < 0)
		return err;
	return put ? memo_put(r, index) : memo_get(r, index);
}

static int op_int(struct reader *r, uint8_t op)
{
	uint32_t v32;
	uint16_t v16;
	uint8_t v8;

	switch (op) {
	case BININT1:
		return buf_get_u8(r->b, &v8) < 0 ? cut_short(r) : op_number(r, PICKLE_INT, v8);
	case BININT2:
		return buf_get_u16(r->b, false, &v16) < 0 ? cut_short(r) : op_number(r, PICKLE_INT, v16);
	default:
		return buf_get_u32(r->b, false, &v32) < 0 ? cut_short(r)
							  : op_number(r, PICKLE_INT, (int32_t)v32);
	}
}

static int step(struct reader *r, uint8_t op)
{
	struct pickle_node *ignored;
	uint32_t dropped;

	switch (op) {
	case PROTO: return op_proto(r);
	case FRAME: return buf_skip(r->b, 8) < 0 ? cut_short(r) : 0; /* a hint for readers of streams */
	case STOP: return op_stop(r);
	case MARK: return op_mark(r);
	case POP: return pop(r, &dropped);
	case NONE: return push_new(r, PICKLE_NONE, &ignored);
	case NEWTRUE: return op_number(r, PICKLE_BOOL, 1);
	case NEWFALSE: return op_number(r, PICKLE_BOOL, 0);
	case BININT:
	case BININT1:
	case BININT2: return op_int(r, op);
	case LONG1: return op_long(r, 1);
	case LONG4: return op_long(r, 4);
	case BINFLOAT: return op_float(r);
	case BINSTRING: return op_counted(r, PICKLE_TEXT, 4);
	case SHORT_BINSTRING: return op_counted(r, PICKLE_TEXT, 1);
	case BINUNICODE: return op_counted(r, PICKLE_TEXT, 4);
	case SHORT_BINUNICODE: return op_counted(r, PICKLE_TEXT, 1);
	case BINBYTES: return op_counted(r, PICKLE_BYTES, 4);
	case SHORT_BINBYTES: return op_counted(r, PICKLE_BYTES, 1);
	case EMPTY_DICT: return push_new(r, PICKLE_DICT, &ignored);
	case EMPTY_LIST: return push_new(r, PICKLE_LIST, &ignored);
	case EMPTY_SET: return push_new(r, PICKLE_SET, &ignored);
	case EMPTY_TUPLE: return op_tuple(r, 0);
	case TUPLE1: return op_tuple(r, 1);
	case TUPLE2: return op_tuple(r, 2);
	case TUPLE3: return op_tuple(r, 3);
	case TUPLE: return op_tuple(r, -1);
	case SETITEM: return op_items(r, false, true);
	case SETITEMS: return op_items(r, true, true);
	case APPEND: return op_items(r, false, false);
	case APPENDS:
	case ADDITEMS: return op_items(r, true, false);
	case BINPUT: return op_memo(r, 1, true);
	case LONG_BINPUT: return op_memo(r, 4, true);
	case BINGET: return op_memo(r, 1, false);
	case LONG_BINGET: return op_memo(r, 4, false);
	case MEMOIZE: return memo_put(r, r->memoized);
	case GLOBAL: return op_global(r);
	case STACK_GLOBAL: return op_stack_global(r);
	case REDUCE:
	case NEWOBJ: return op_call(r);
	case BUILD: return op_build(r);
	case BINPERSID: return op_outside(r);
	default:
		return err_set(r->e, -ENOTSUP,
			       "%s: byte %zu: pickle operation 0x%02x%s%c%s is not one that "
			       "PyTorch writes",
			       r->what, (size_t)(r->b->p - r->start) - 1, op,
			       isprint(op) ? " ('" : "", isprint(op) ? op : ' ',
			       isprint(op) ? "')" : "");
	}
}

static int run(struct reader *r)
{
	uint32_t nothing;
	uint8_t op;
	int err;

	err = node_new(r, PICKLE_NOTHING, &nothing); /* number 0 */
	if (err < 0)
		return err;
	r->p->items = calloc(64, sizeof(*r->p->items));
	if (r->p->items == NULL)
		return bad(r, -ENOMEM, "out of memory");
	r->p->room_items = 64;
	r->p->n_items = 1; /* item 0 is "none" */
	while (!r->stopped) {
		if (buf_get_u8(r->b, &op) < 0)
			return bad(r, -EBADMSG, "the pickle has no end (truncated file?)");
		err = step(r, op);
		if (err < 0)
			return err;
	}
	return 0;
}

int pickle_read(struct buf *b, const char *what, struct pickle **ret, struct err *e)
{
	struct reader r = { .p = xcalloc(1, sizeof(*r.p)), .b = b, .start = b->p, .what = what, .e = e };
	struct buf at_start = *b;
	int err = run(&r);

	free(r.stack);
	free(r.marks);
	free(r.memo);
	if (err < 0) {
		pickle_free(r.p);
		*b = at_start;
		return err;
	}
	*ret = r.p;
	return 0;
}

void pickle_free(struct pickle *p)
{
	if (p == NULL)
		return;
	free(p->nodes);
	free(p->items);
	free(p);
}

uint32_t pickle_root(const struct pickle *p)
{
	return p->root;
}

size_t pickle_size(const struct pickle *p)
{
	return p->n_nodes;
}

const struct pickle_node *pickle_node(const struct pickle *p, uint32_t id)
{
	return &p->nodes[id < p->n_nodes ? id : 0];
}

bool pickle_next(const struct pickle *p, uint32_t node, uint32_t *item, struct pickle_item *ret)
{
	*item = *item == 0 ? pickle_node(p, node)->first : p->items[*item].next;
	if (*item == 0)
		return false;
	*ret = p->items[*item];
	return true;
}

uint32_t pickle_nth(const struct pickle *p, uint32_t node, size_t i)
{
	struct pickle_item item;
	uint32_t at = 0;

	while (pickle_next(p, node, &at, &item))
		if (i-- == 0)
			return item.value;
	return 0;
}

size_t pickle_count(const struct pickle *p, uint32_t node)
{
	struct pickle_item item;
	uint32_t at = 0;
	size_t n = 0;

	while (pickle_next(p, node, &at, &item))
		n++;
	return n;
}

uint32_t pickle_get(const struct pickle *p, uint32_t node, const char *key)
{
	struct pickle_item item;
	uint32_t at = 0, found = 0;

	while (pickle_next(p, node, &at, &item))
		if (pickle_text_is(p, item.key, key))
			found = item.value;
	return found;
}

bool pickle_text_is(const struct pickle *p, uint32_t node, const char *text)
{
	const struct pickle_node *t = pickle_node(p, node);

	return t->kind == PICKLE_TEXT && t->n == strlen(text) && memcmp(t->text, text, t->n) == 0;
}

bool pickle_name_is(const struct pickle *p, uint32_t node, const char *module, const char *name)
{
	const struct pickle_node *t = pickle_node(p, node);

	return t->kind == PICKLE_NAME && pickle_text_is(p, t->a, module) && pickle_text_is(p, t->b, name);
}

bool pickle_call_is(const struct pickle *p, uint32_t node, const char *module, const char *name)
{
	const struct pickle_node *t = pickle_node(p, node);

	return t->kind == PICKLE_CALL && pickle_name_is(p, t->a, module, name);
}

bool pickle_size_value(const struct pickle *p, uint32_t node, size_t *ret)
{
	const struct pickle_node *t = pickle_node(p, node);

	if (t->kind != PICKLE_INT || t->n > 8 || t->number < 0)
		return false;
	*ret = (size_t)t->number;
	return true;
}
