/* test_checkpoint.c: reading of checkpoints, good and bad, and the import of a whole one.
 *
 * Good files: tests/vectors/checkpoint/, written by PyTorch (tools/reference/checkpoint_vectors.py,
 * which also says what the numbers are).  Bad ones: those files damaged here, and pickles put
 * together here byte by byte.  With CARZEROD_SHARED set, the tiny checkpoint there is imported too.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/fdio.h"
#include "base/mem.h"
#include "base/str.h"

#include "model/checkpoint.h"
#include "model/import.h"
#include "model/pickle.h"
#include "model/weights.h"
#include "model/zip.h"
#include "tests/tap.h"

#define BYTES_MAX 65536

struct bytes {
	uint8_t p[BYTES_MAX];
	size_t n;
};

static char folder[] = "/tmp/test_checkpoint.XXXXXX"; /* for outputs; also where an attack would leave its mark */

static const char *vector(const char *name)
{
	static char path[8][4096];
	static unsigned turn;
	const char *top = getenv("srcdir");

	turn = (turn + 1) % 8;
	(void)snprintf(path[turn], sizeof(path[0]), "%s/tests/vectors/checkpoint/%s", top != NULL ? top : ".", name);
	return path[turn];
}

static const char *inside(const char *name)
{
	static char path[8][4096];
	static unsigned turn;

	turn = (turn + 1) % 8;
	(void)snprintf(path[turn], sizeof(path[0]), "%s/%s", folder, name);
	return path[turn];
}

/* ---- putting pickles together ---- */

static void put(struct bytes *b, const void *p, size_t n)
{
	if (n > sizeof(b->p) - b->n)
		abort();
	memcpy(b->p + b->n, p, n);
	b->n += n;
}

static void op(struct bytes *b, const char *ops) /* opcodes without NUL */
{
	put(b, ops, strlen(ops));
}

static void put_number(struct bytes *b, uint64_t v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint8_t byte = (uint8_t)(i < 8 ? v >> (8 * i) : 0);

		put(b, &byte, 1);
	}
}

static void put_text(struct bytes *b, const char *s)
{
	op(b, "X");
	put_number(b, strlen(s), 4);
	op(b, s);
}

static void put_int(struct bytes *b, uint32_t v)
{
	op(b, "J");
	put_number(b, v, 4);
}

struct tensor { /* with 0s for what a test does not care about */
	const char *key, *class, *storage;
	uint32_t numel, offset, rows, columns, stride;
	const char *view; /* opcodes of the view, NULL: none */
};

static void put_tensor(struct bytes *b, const struct tensor *t)
{
	put_text(b, t->key);
	op(b, "ctorch._utils\n_rebuild_tensor_v2\n((");
	put_text(b, "storage");
	op(b, "ctorch\n");
	op(b, t->class != NULL ? t->class : "FloatStorage");
	op(b, "\n");
	put_text(b, t->storage);
	put_text(b, "cpu");
	put_int(b, t->numel);
	op(b, t->view != NULL ? t->view : "N");
	op(b, "tQ");
	put_int(b, t->offset);
	op(b, "(");
	put_int(b, t->rows);
	put_int(b, t->columns);
	op(b, "t(");
	put_int(b, t->stride != 0 ? t->stride : t->columns);
	put_int(b, 1);
	op(b, "t\x89" "ccollections\nOrderedDict\n)RtR");
}

/* The object of a checkpoint with these tensors. */
static void put_object(struct bytes *b, const struct tensor *t, size_t n)
{
	op(b, "\x80\x02}");
	put_text(b, "state_dict");
	op(b, "ccollections\nOrderedDict\n)R(");
	for (size_t i = 0; i < n; i++)
		put_tensor(b, &t[i]);
	op(b, "us.");
}

static void put_legacy_start(struct bytes *b)
{
	op(b, "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}");
	put_text(b, "little_endian");
	op(b, "\x88s.");
}

/* A legacy file: the object, then one storage of `numel` floats called "0". */
static void put_legacy(struct bytes *b, const struct tensor *t, size_t n, uint64_t numel)
{
	put_legacy_start(b);
	put_object(b, t, n);
	op(b, "\x80\x02](");
	put_text(b, "0");
	op(b, "e.");
	put_number(b, numel, 8);
	for (uint32_t i = 0; i < numel && i < 64; i++) {
		float v = (float)i;

		put(b, &v, sizeof(v));
	}
}

/* A zip archive with one stored member; with zip64, every size and offset is in the 64-bit records. */
static void put_zip_as(struct bytes *b, const char *name, const struct bytes *data, bool zip64)
{
	uint32_t crc = zip_crc32(0, data->p, data->n);
	size_t directory, end;

	op(b, "PK\x03\x04");
	put_number(b, 0, 22); /* version, flags, method, time, date, crc, sizes: PyTorch leaves them empty */
	put_number(b, strlen(name), 2);
	put_number(b, 0, 2);
	op(b, name);
	put(b, data->p, data->n);
	directory = b->n;
	op(b, "PK\x01\x02");
	put_number(b, 0, 12);
	put_number(b, crc, 4);
	put_number(b, zip64 ? UINT32_MAX : data->n, 4);
	put_number(b, zip64 ? UINT32_MAX : data->n, 4);
	put_number(b, strlen(name), 2);
	put_number(b, zip64 ? 4 + 24 : 0, 2);
	put_number(b, 0, 10);
	put_number(b, zip64 ? UINT32_MAX : 0, 4);
	op(b, name);
	if (zip64) {
		put_number(b, 1, 2);
		put_number(b, 24, 2);
		put_number(b, data->n, 8);
		put_number(b, data->n, 8);
		put_number(b, 0, 8);
	}
	end = b->n;
	if (zip64) {
		op(b, "PK\x06\x06");
		put_number(b, 44, 8);
		put_number(b, 0, 12);
		put_number(b, 1, 8);
		put_number(b, 1, 8);
		put_number(b, end - directory, 8);
		put_number(b, directory, 8);
		op(b, "PK\x06\x07");
		put_number(b, 0, 4);
		put_number(b, end, 8);
		put_number(b, 1, 4);
	}
	op(b, "PK\x05\x06");
	put_number(b, 0, 4);
	put_number(b, zip64 ? 0xffff : 1, 2);
	put_number(b, zip64 ? 0xffff : 1, 2);
	put_number(b, zip64 ? UINT32_MAX : end - directory, 4);
	put_number(b, zip64 ? UINT32_MAX : directory, 4);
	put_number(b, 0, 2);
}

static void put_zip(struct bytes *b, const char *name, const struct bytes *data)
{
	put_zip_as(b, name, data, false);
}

static int open_bytes(const struct bytes *b, struct err *e)
{
	struct checkpoint *c;
	int r = checkpoint_open_memory(b->p, b->n, "test", &c, e);

	if (r == 0)
		checkpoint_close(c);
	return r;
}

/* ---- the files that PyTorch wrote ---- */

static float vector_value(size_t tensor, size_t element)
{
	return ((float)((7 * tensor + 3 * element) % 127) - 63) / 64;
}

/* As float32, whatever the type; the numbers are exact in all three. */
static float element(const struct checkpoint_tensor *t, size_t i)
{
	uint32_t bits;
	uint16_t half;
	float v;

	if (t->type == CHECKPOINT_F32) {
		memcpy(&v, t->data + 4 * i, sizeof(v));
		return v;
	}
	memcpy(&half, t->data + 2 * i, sizeof(half));
	if (t->type == CHECKPOINT_BF16) {
		bits = (uint32_t)half << 16;
		memcpy(&v, &bits, sizeof(v));
		return v;
	}
	v = (float)(half & 1023) / 1024 + ((half & 0x7c00) != 0 ? 1 : 0);
	for (int k = (half >> 10 & 31) - 15 + ((half & 0x7c00) == 0); k != 0; k += k < 0 ? 1 : -1)
		v = k < 0 ? v / 2 : v * 2;
	return (half & 0x8000) != 0 ? -v : v;
}

static void check_vector(const char *name, const char *format, enum checkpoint_type type)
{
	struct checkpoint *c;
	size_t i, k, good = 0, all = 0;
	struct err e;

	if (!ok(checkpoint_open(vector(name), &c, &e) == 0, "%s opens", name)) {
		printf("# %s\n", e.text);
		return;
	}
	is_str(checkpoint_format(c), format, "%s: is a %s", name, format);
	is_int(checkpoint_count(c), 73, "%s: 73 tensors", name);
	for (i = 1; i < 71; i++) { /* 0 is position_ids, the last two are the twin */
		const struct checkpoint_tensor *t = checkpoint_tensor(c, i);

		if (t->problem != NULL || t->type != type)
			continue;
		for (k = 0; k < t->count; k++, all++)
			good += element(t, k) == vector_value(i, k);
	}
	ok(all > 0 && good == all, "%s: %zu of %zu elements are right", name, good, all);
	is_str(checkpoint_tensor(c, 0)->problem, "is not float32, float16 or bfloat16", "%s: integers are listed", name);
	for (i = 0; i < checkpoint_count(c) && checkpoint_verify(c, i, &e) == 0; i++)
		continue;
	is_int(i, checkpoint_count(c), "%s: all checksums hold", name);
	ok(checkpoint_tensor(c, 71)->data != NULL, "%s: the twin has data too", name);
	checkpoint_close(c);
}

static void check_hyper(void)
{
	char got[64] = "";
	struct checkpoint *c;
	struct err e;

	if (!ok(checkpoint_open(vector("zip.ckpt"), &c, &e) == 0, "hyper-parameters: opens"))
		return;
	ok(checkpoint_hyper(c, "model.text.last_n_layers", got, sizeof(got)), "a number, through a cyclic graph");
	is_str(got, "2", "  is 2");
	ok(checkpoint_hyper(c, "model.text.norm", got, sizeof(got)), "a truth value");
	is_str(got, "false", "  is false");
	ok(checkpoint_hyper(c, "model.text.aggregate_method", got, sizeof(got)), "a string");
	is_str(got, "mean", "  is mean");
	ok(!checkpoint_hyper(c, "model.text.nothing", got, sizeof(got)), "one that is not there");
	ok(!checkpoint_hyper(c, "model", got, sizeof(got)), "one that is no leaf");
	checkpoint_close(c);
}

/* Every cut and many single damaged bytes: an error or a success, never a crash; most cuts are errors. */
static void check_damage(const char *name)
{
	CLEANUP(free) void *p = NULL;
	struct checkpoint *c;
	size_t n, i, refused = 0, cuts = 0;
	uint8_t *copy;
	struct err e;

	if (!ok(read_path(vector(name), 1 << 20, &p, &n, &e) == 0, "%s is read", name))
		return;
	for (i = 0; i < n; i += 61, cuts++) {
		copy = xcalloc(i, 1); /* exactly as long as the cut, so that ASan sees one byte too far */
		memcpy(copy, p, i);
		e.text[0] = '\0';
		if (checkpoint_open_memory(copy, i, "cut", &c, &e) < 0)
			refused += e.text[0] != '\0';
		else
			checkpoint_close(c);
		free(copy);
	}
	is_int(refused, cuts, "%s: %zu cuts, each refused with a reason", name, cuts);
	copy = xcalloc(n, 1);
	for (i = 0; i < n; i += 3) {
		memcpy(copy, p, n);
		copy[i] ^= (uint8_t)(1u << (i % 8));
		if (checkpoint_open_memory(copy, n, "damaged", &c, &e) == 0)
			checkpoint_close(c);
	}
	free(copy);
	ok(true, "%s: %zu damaged bytes survived", name, n / 3);
}

/* A changed weight is found by its checksum. */
static void check_checksum(void)
{
	CLEANUP(free) void *p = NULL;
	struct checkpoint *c;
	size_t n, i;
	struct err e;
	uint8_t *at;

	if (!ok(read_path(vector("zip.ckpt"), 1 << 20, &p, &n, &e) == 0, "zip.ckpt is read") ||
	    !ok(checkpoint_open_memory(p, n, "changed", &c, &e) == 0, "and opens"))
		return;
	for (i = 0; i < checkpoint_count(c) && checkpoint_tensor(c, i)->data == NULL; i++)
		continue;
	at = (uint8_t *)p + (checkpoint_tensor(c, i)->data - (const uint8_t *)p);
	*at ^= 1;
	is_int(checkpoint_verify(c, i, &e), -EBADMSG, "one flipped bit of a weight is found");
	ok(strstr(e.text, "CRC-32") != NULL && strstr(e.text, checkpoint_tensor(c, i)->name) != NULL, "%s", e.text);
	checkpoint_close(c);
}

/* ---- files that lie ---- */

static void check_lies(void)
{
	static const struct tensor good = { "w", NULL, "0", 6, 0, 2, 3, 0, NULL };
	static const struct {
		const char *what;
		struct tensor t;
		uint64_t numel; /* as the data say */
		const char *says; /* NULL: opens */
		const char *problem;
	} cases[] = {
		{ "a good one", { "w", NULL, "0", 6, 0, 2, 3, 0, NULL }, 6, NULL, NULL },
		{ "an offset that fits", { "w", NULL, "0", 12, 6, 2, 3, 0, NULL }, 12, NULL, NULL },
		{ "a strided view", { "w", NULL, "0", 12, 0, 2, 3, 6, NULL }, 12, NULL, "is a strided view; save it with "
		  ".contiguous()" },
		{ "a shape larger than its storage", { "w", NULL, "0", 6, 0, 3, 3, 0, NULL }, 6, "has 9 elements", NULL },
		{ "an offset beyond its storage", { "w", NULL, "0", 6, 1, 2, 3, 0, NULL }, 6, "from 1 on", NULL },
		{ "a storage shorter than described", { "w", NULL, "0", 600, 0, 2, 3, 0, NULL }, 6, "another size", NULL },
		{ "a storage beyond the file", { "w", NULL, "0", 1000000, 0, 2, 3, 0, NULL }, 1000000, "beyond the end", NULL },
		{ "an overflowing shape", { "w", NULL, "0", 6, 0, 0x7fffffff, 0x7fffffff, 0, NULL }, 6, "has", NULL },
		{ "a negative size", { "w", NULL, "0", 6, 0, 0xffffffff, 3, 0, NULL }, 6, "broken description", NULL },
		{ "an unknown class", { "w", "QuantumStorage", "0", 6, 0, 2, 3, 0, NULL }, 6, "unknown class", NULL },
		{ "another storage's key", { "w", NULL, "1", 6, 0, 2, 3, 0, NULL }, 6, "not described", NULL },
		{ "a view", { "w", NULL, "0", 6, 0, 2, 3, 0, "(U\x01" "0K\x01K\x05t" }, 6, "is a view", NULL },
		{ "a key with a newline", { "a\nb", NULL, "0", 6, 0, 2, 3, 0, NULL }, 6, "a key that no model has", NULL },
		{ "half the bytes a class needs", { "w", "DoubleStorage", "0", 6, 0, 2, 3, 0, NULL }, 6, "beyond the end", NULL },
	};
	struct tensor twice[2] = { good, good };
	static struct bytes b;
	struct err e;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct checkpoint *c = NULL;
		int r;

		b.n = 0;
		put_legacy(&b, &cases[i].t, 1, cases[i].numel);
		r = checkpoint_open_memory(b.p, b.n, "test", &c, &e);
		if (cases[i].says != NULL) {
			ok(r < 0 && strstr(e.text, cases[i].says) != NULL, "%s: %s", cases[i].what, r < 0 ? e.text : "opened");
		} else if (ok(r == 0, "%s opens", cases[i].what)) {
			is_str(checkpoint_tensor(c, 0)->problem, cases[i].problem, "  with the right remark");
		}
		checkpoint_close(c);
	}
	b.n = 0;
	put_legacy(&b, twice, 2, 6);
	ok(open_bytes(&b, &e) == -EBADMSG && strstr(e.text, "there twice") != NULL, "a key twice: %s", e.text);
	twice[1].key = "v";
	twice[1].class = "HalfStorage";
	b.n = 0;
	put_legacy(&b, twice, 2, 6);
	ok(open_bytes(&b, &e) == -EBADMSG && strstr(e.text, "in two ways") != NULL, "a storage of two classes: %s", e.text);
}

static void check_zip64(void)
{
	static struct bytes b, data;
	struct zip *z = NULL;
	struct err e = { "" };

	op(&data, "hello");
	put_zip_as(&b, "a/data.pkl", &data, true);
	if (!ok(zip_open(b.p, b.n, "test", &z, &e) == 0, "zip64 opens %s", e.text))
		return;
	is_int(zip_count(z), 1, "  one member");
	ok(zip_member(z, 0)->size == 5 && memcmp(zip_member(z, 0)->data, "hello", 5) == 0, "  with its bytes");
	zip_close(z);
	b.p[b.n - 22 - 20 + 8] ^= 1; /* the locator points elsewhere */
	ok(zip_open(b.p, b.n, "test", &z, &e) == -EBADMSG && strstr(e.text, "zip64") != NULL, "a lost record: %s", e.text);
}

static void check_foreign(void)
{
	static const struct { const char *what, *bytes, *says; } cases[] = {
		{ "empty", "", "0 bytes" },
		{ "a web page", "<!DOCTYPE html><html>Quota exceeded</html>", "web page" },
		{ "text", "hello hello hello hello", "neither" },
		{ "a zip's beginning", "PK\x03\x04 and nothing more at all, no directory", "cut short" },
		{ "a pickle without the envelope", "\x80\x02}q\x01.                   ", "neither" },
	};
	static struct bytes b, data;
	struct err e;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		b.n = 0;
		op(&b, cases[i].bytes);
		ok(open_bytes(&b, &e) < 0 && strstr(e.text, cases[i].says) != NULL, "%s: %s", cases[i].what, e.text);
	}
	data.n = b.n = 0;
	op(&data, "\x80\x02}");
	put_text(&data, "model");
	op(&data, "}s.");
	put_zip(&b, "x/data.pkl", &data);
	ok(open_bytes(&b, &e) < 0 && strstr(e.text, "Its keys are: model") != NULL, "no state_dict: %s", e.text);
	b.n = 0;
	put_zip(&b, "x/readme", &data);
	ok(open_bytes(&b, &e) < 0 && strstr(e.text, "without data.pkl") != NULL, "a zip of something else: %s", e.text);
	b.n = 0;
	put_zip(&b, "x/data.pkl", &data);
	b.p[b.n - 22 - 46 - 10 + 10] = 8; /* method: deflate */
	ok(open_bytes(&b, &e) == -ENOTSUP && strstr(e.text, "compressed") != NULL, "a compressed member: %s", e.text);
	b.n = 0;
	put_zip(&b, "x/data.pkl", &data);
	b.p[40] ^= 1;
	ok(open_bytes(&b, &e) == -EBADMSG && strstr(e.text, "CRC-32") != NULL, "a changed pickle: %s", e.text);
	b.n = 0;
	put_legacy_start(&b);
	b.p[b.n - 3] = 0x89; /* little_endian: False */
	ok(open_bytes(&b, &e) == -ENOTSUP && strstr(e.text, "big-endian") != NULL, "big-endian: %s", e.text);
}

/* ---- poison ---- */

static void check_poison(void)
{
	static const struct { const char *what, *before, *after, *says; } cases[] = {
		{ "os.system by REDUCE", "\x80\x02" "cos\nsystem\n", "\x85R.", "names os.system" },
		{ "posix.system by REDUCE", "\x80\x02" "cposix\nsystem\n", "\x85R.", "names posix.system" },
		{ "os.system by STACK_GLOBAL", "\x80\x04\x8c\x02os\x8c\x06system\x93", "\x85R.", "names os.system" },
		{ "subprocess.Popen by NEWOBJ", "\x80\x02" "csubprocess\nPopen\n", "\x85\x81.", "names subprocess.Popen" },
		{ "builtins.eval", "\x80\x02" "c__builtin__\neval\n", "\x85R.", "names __builtin__.eval" },
		{ "builtins.exec", "\x80\x04\x8c\x08" "builtins\x8c\x04" "exec\x93", "\x85R.", "names builtins.exec" },
		{ "os.path's way to os", "\x80\x02" "cos.path\nos.system\n", "\x85R.", "names os.path.os.system" },
		{ "a __setstate__ of os.system by BUILD", "\x80\x02" "ctorch.nn\nModule\n)\x81}", "", "names os.system" },
		{ "a state for a name by BUILD", "\x80\x02" "ctorch.nn\nModule\n", "b.", "no object" },
		{ "INST", "\x80\x02(", "i", "operation 0x69 ('i')" },
		{ "an unknown name called", "\x80\x02" "cacme.tools\nlaunch\n", "\x85R.", "no state_dict" },
	};
	char command[4200];
	static struct bytes data, b;
	struct stat st;
	struct err e;
	size_t i;

	(void)snprintf(command, sizeof(command), "touch %s", inside("poisoned"));
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		data.n = b.n = 0;
		op(&data, cases[i].before);
		if (strstr(cases[i].what, "__setstate__") != NULL) {
			put_text(&data, "__setstate__");
			op(&data, "cos\nsystem\nsb");
		}
		put_text(&data, command);
		op(&data, cases[i].after);
		put_zip(&b, "archive/data.pkl", &data);
		ok(open_bytes(&b, &e) < 0 && strstr(e.text, cases[i].says) != NULL, "%s: %s", cases[i].what, e.text);
	}
	ok(stat(inside("poisoned"), &st) < 0 && errno == ENOENT, "no attack made a file");
	ok(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD, "no attack made a process");
}

/* Hostile in shape, not in names: bounded time and memory, no recursion. */
static void check_deep(void)
{
	static const struct { const char *what, *ops; size_t times; const char *says; } cases[] = {
		{ "a million marks", "(", 1000000, "nested deeper" },
		{ "a million lists on the stack", "]", 1100000, "more objects" },
		{ "lists in lists in lists", "]a", 0, NULL },
		{ "a memo far away", "]r\xff\xff\xff\x7f", 1, "memo index larger" },
		{ "a memo entry that is not there", "h\x05", 1, "before it is made" },
		{ "a string beyond the end", "X\xff\xff\xff\x7f", 1, "string longer" },
		{ "a tuple of nothing", "\x87", 1, "stack is empty" },
		{ "items without an object", "(K\x01u", 1, "no object under" },
		{ "a key without a value", "}(K\x01u", 1, "key without a value" },
		{ "items for a number", "K\x01(K\x01" "e", 1, "takes none" },
		{ "no mark", "K\x01t", 1, "no mark" },
		{ "values left over", "K\x01K\x02.", 1, "left over" },
		{ "no end", "N", 1, "no end" },
		{ "protocol 1", "\x80\x01", 1, "protocol" },
	};
	size_t i, k;
	struct err e;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t one = strlen(cases[i].ops), n = cases[i].times > 0 ? one * cases[i].times : 900000;
		CLEANUP(free) uint8_t *p = xcalloc(n, 1);
		struct pickle *pickle = NULL;
		struct buf b;
		int r;

		for (k = 0; k < cases[i].times; k++)
			memcpy(p + k * one, cases[i].ops, one);
		if (cases[i].times == 0) { /* 450,000 lists, each then put into the one before it */
			memset(p, ']', 450000);
			memset(p + 450000, 'a', n - 450000);
			p[n - 1] = '.';
		}
		b = buf_of(p, n);
		r = pickle_read(&b, "test", &pickle, &e);
		if (cases[i].says == NULL)
			ok(r == 0 && pickle_count(pickle, pickle_root(pickle)) == 1, "%s", cases[i].what);
		else
			ok(r < 0 && strstr(e.text, cases[i].says) != NULL, "%s: %s", cases[i].what, r < 0 ? e.text : "read");
		if (r == 0)
			pickle_free(pickle);
		else
			ok(b.p == p && b.left == n, "  nothing was consumed");
	}
}

/* ---- import ---- */

static size_t entries(const char *path)
{
	DIR *d = opendir(path);
	size_t n = 0;

	while (d != NULL && readdir(d) != NULL)
		n++;
	if (d != NULL)
		(void)closedir(d);
	return n > 2 ? n - 2 : 0;
}

static int import(const char *checkpoint, const char *out, struct import_report *report, struct err *e)
{
	struct import_request q = { checkpoint, vector("vocab.txt"), out, vector("model.json"), "test 1" };

	return import_bundle(&q, report, e);
}

static bool same_file(const char *a, const char *b)
{
	CLEANUP(free) void *p = NULL;
	CLEANUP(free) void *q = NULL;
	size_t n, m;

	return read_path(a, 1 << 24, &p, &n, NULL) == 0 && read_path(b, 1 << 24, &q, &m, NULL) == 0 && n == m &&
	       memcmp(p, q, n) == 0;
}

static void check_import(void)
{
	static struct import_report report;
	static const char key[] = "img_encoder.model.blocks.0.mlp.fc1.weight";
	static const char *const sources[] = { "zip.ckpt", "legacy.ckpt", "bfloat16.ckpt" };
	struct weights *w = NULL;
	const float *p = NULL;
	struct err e = { "" };
	uint64_t header = 0;
	uint8_t *bytes;
	void *file = NULL;
	char out[64];
	size_t n = 0, i;

	for (i = 0; i < ARRAY_SIZE(sources); i++) {
		(void)snprintf(out, sizeof(out), "bundle%zu", i);
		if (!ok(import(vector(sources[i]), inside(out), &report, &e) == 0, "%s is imported", sources[i]))
			printf("# %s\n", e.text);
		is_int(report.kept, 61, "  61 tensors are kept");
		is_int(report.read - report.kept, 12, "  12 are not");
		is_int(report.widened, i == 0 ? 0 : 61, "  widened where they were half");
		is_int(report.hyper_checked, i == 0 ? 4 : 0, "  hyper-parameters were compared");
		is_int(report.n_warnings, i == 0 ? 1 : 0, "  and the one that differs is reported");
		is_int(entries(inside(out)), 3, "  three files");
		(void)snprintf(out, sizeof(out), "bundle%zu/weights.safetensors", i);
		if (!ok(weights_open(inside(out), &w, &e) == 0, "  the weights open"))
			continue;
		ok(weights_get(w, key, (const size_t[]){ 8, 4 }, 2, &p, &e) == 0 && p[0] == vector_value(36, 0) && p[31] == vector_value(36, 31),
		   "  fc1 has its numbers");
		weights_close(w);
	}
	/* layout: data begin at a multiple of 64, same input same bytes */
	if (ok(read_path(inside("bundle0/weights.safetensors"), 1 << 24, &file, &n, &e) == 0, "layout: read")) {
		bytes = file;
		for (i = 0; i < 8; i++)
			header |= (uint64_t)bytes[i] << (8 * i);
		is_int((8 + header) % 64, 0, "layout: data are aligned to 64");
		free(file);
	}
	is_int(import(vector("zip.ckpt"), inside("again"), &report, &e), 0, "imported again");
	ok(same_file(inside("bundle0/weights.safetensors"), inside("again/weights.safetensors")), "the same bytes: weights");
	ok(same_file(inside("bundle0/model.json"), inside("again/model.json")), "the same bytes: model.json");
	ok(same_file(vector("vocab.txt"), inside("again/vocab.txt")), "the vocabulary is copied");
	/* a safetensors file is a checkpoint too */
	is_int(import(inside("bundle0/weights.safetensors"), inside("from_safetensors"), &report, &e), 0, "from safetensors");
	is_int(report.kept, 61, "  61 tensors");
	is_int(report.read, 61, "  and no others");
}

static void check_import_refusals(void)
{
	static struct import_report report;
	static struct bytes b;
	struct tensor t = { "CARZero.text_encoder.model.embeddings.word_embeddings.weight", NULL, "0", 6, 0, 2, 3, 0, NULL };
	struct import_request q = { vector("zip.ckpt"), vector("vocab.txt"), inside("refused"), NULL, "test 1" };
	static const struct { const char *json, *says; } promises[] = {
		{ "{\"domain\": \"clinical\", \"vit_heads\": 2, \"bert_heads\": 2, \"fus_heads\": 2}", "key domain is clinical" },
		{ "{\"family\": \"carzero\", \"vit_heads\": 2, \"bert_heads\": 2, \"fus_heads\": 2}", "key family is carzero" },
	};
	size_t before = entries(folder);
	struct err e;
	int fd;

	is_int(import(vector("zip.ckpt"), inside("again"), &report, &e), -EEXIST, "an existing bundle is not overwritten");
	ok(strstr(e.text, "is there already") != NULL, "%s", e.text);
	is_int(import_bundle(&q, &report, &e), -ENOENT, "head counts are needed");
	ok(strstr(e.text, "--model-json") != NULL, "%s", e.text);
	q.model_json = vector("model.json");
	q.vocab = vector("model.json");
	ok(import_bundle(&q, &report, &e) < 0, "another vocabulary: %s", e.text);
	b.n = 0;
	put_legacy(&b, &t, 1, 6);
	fd = open(inside("small.ckpt"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	ok(fd >= 0 && write_full(fd, b.p, b.n) == 0, "a checkpoint of one tensor");
	if (fd >= 0)
		(void)close(fd);
	is_int(import(inside("small.ckpt"), inside("refused"), &report, &e), -ENOENT, "a tensor is missing");
	ok(strstr(e.text, "no tensor text_encoder.model.embeddings.position_embeddings.weight") != NULL, "%s", e.text);
	is_int(import(vector("vocab.txt"), inside("refused"), &report, &e), -EBADMSG, "no checkpoint at all");
	is_int(entries(folder), before + 1, "nothing is left behind");
	for (size_t i = 0; i < ARRAY_SIZE(promises); i++) {
		fd = open(inside("promise.json"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		ok(fd >= 0 && write_full(fd, promises[i].json, strlen(promises[i].json)) == 0, "a promise");
		if (fd >= 0)
			(void)close(fd);
		q = (struct import_request){ vector("zip.ckpt"), vector("vocab.txt"), inside("refused"), inside("promise.json"),
					     "test 1" };
		is_int(import_bundle(&q, &report, &e), -EPERM, "cannot be made by an import");
		ok(strstr(e.text, promises[i].says) != NULL && strstr(e.text, "carzero-model verify") != NULL, "%s", e.text);
	}
	(void)unlink(inside("promise.json"));
}

/* What carzero-model verify writes once the scores agree. */
static void check_verified(void)
{
	const struct manifest_proof proof = { .images = 167, .findings = 14, .difference = 0.0125 };
	struct manifest before, after;
	CLEANUP(free) void *text = NULL;
	struct err e = { "" };
	size_t n;

	if (!ok(manifest_read(inside("bundle0/model.json"), &before, &e) == 0, "an imported manifest %s", e.text))
		return;
	ok(before.domain == MODEL_UNTRAINED && strcmp(before.family, FAMILY_VERIFIED) != 0, "promises nothing");
	is_int(manifest_verified(inside("bundle0"), &proof, &e), 0, "verified %s", e.text);
	is_int(manifest_read(inside("bundle0/model.json"), &after, &e), 0, "and read again");
	is_str(after.family, FAMILY_VERIFIED, "  family");
	is_int(after.domain, MODEL_CLINICAL, "  domain");
	is_str(after.name, before.name, "  name as before");
	ok(memcmp(&after.dims, &before.dims, sizeof(after.dims)) == 0 && memcmp(after.digest, before.digest, DIGEST_SIZE) == 0,
	   "  dimensions and digest too");
	ok(read_path(inside("bundle0/model.json"), 1 << 16, &text, &n, &e) == 0 && strstr(text, "\"images\": 167") != NULL &&
		   strstr(text, "\"max_difference\": 0.0125") != NULL,
	   "  with its proof");
	is_int(entries(inside("bundle0")), 3, "  nothing beside it");
	is_int(manifest_verified(inside("nowhere"), &proof, &e), -ENOENT, "no bundle: %s", e.text);
}

static void check_tiny(void)
{
	const char *shared = getenv("CARZEROD_SHARED");
	static struct import_report report;
	char checkpoint[4096], vocab[4096], json[4096];
	struct import_request q = { checkpoint, vocab, inside("tiny"), json, "test 1" };
	struct err e;

	if (shared == NULL)
		return;
	(void)snprintf(checkpoint, sizeof(checkpoint), "%s/model/tiny/model.ckpt", shared);
	(void)snprintf(vocab, sizeof(vocab), "%s/model/tiny/vocab.txt", shared);
	(void)snprintf(json, sizeof(json), "%s/model/tiny/model.json", shared);
	if (!ok(import_bundle(&q, &report, &e) == 0, "the tiny checkpoint is imported"))
		printf("# %s\n", e.text);
	is_int(report.parameters, 472721, "  all its parameters");
	is_int(report.hyper_checked, 10, "  all hyper-parameters were compared");
	is_int(report.n_warnings, 0, "  none differs");
}

static void remove_all(void)
{
	static const char *const dirs[] = { "bundle0", "bundle1", "bundle2", "again", "from_safetensors", "tiny" };
	static const char *const files[] = { "weights.safetensors", "model.json", "vocab.txt" };
	char path[4096];
	size_t i, k;

	for (i = 0; i < ARRAY_SIZE(dirs); i++) {
		for (k = 0; k < ARRAY_SIZE(files); k++) {
			(void)snprintf(path, sizeof(path), "%s/%s/%s", folder, dirs[i], files[k]);
			(void)unlink(path); /* not all were made */
		}
		(void)rmdir(inside(dirs[i]));
	}
	(void)unlink(inside("small.ckpt"));
	is_int(rmdir(folder), 0, "the folder holds nothing else");
}

int main(void)
{
	if (!ok(mkdtemp(folder) != NULL, "a folder"))
		return done();
	check_vector("zip.ckpt", "PyTorch zip archive", CHECKPOINT_F32);
	check_vector("legacy.ckpt", "PyTorch legacy file", CHECKPOINT_F16);
	check_vector("bfloat16.ckpt", "PyTorch zip archive", CHECKPOINT_BF16);
	check_hyper();
	check_damage("zip.ckpt");
	check_damage("legacy.ckpt");
	check_checksum();
	check_lies();
	check_zip64();
	check_foreign();
	check_poison();
	check_deep();
	check_import();
	check_import_refusals();
	check_verified();
	check_tiny();
	remove_all();
	return done();
}
