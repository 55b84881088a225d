/* test_tokenizer.c: cleaning and WordPiece against the reference's rules.
 *
 * tests/vectors/tokenizer/cases.tsv was written by tools/reference/tokenizer_vectors.py: text,
 * cleaned text, ids.  With CARZEROD_SHARED set, the prompts of the golden arrays are compared too.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fdio.h"
#include "base/mem.h"
#include "base/str.h"

#include "model/tokenizer.h"
#include "tests/tap.h"

static const char *top(void)
{
	const char *dir = getenv("srcdir");

	return dir != NULL ? dir : ".";
}

static void unescape(char *s)
{
	char *out = s;

	while (*s != '\0') {
		uint8_t byte;
		char hex[3] = { 0 };

		if (s[0] == '\\' && s[1] == 'x') {
			memcpy(hex, s + 2, 2);
			if (str_unhex(&byte, 1, hex)) {
				*out++ = (char)byte;
				s += 4;
				continue;
			}
		}
		*out++ = *s++;
	}
	*out = '\0';
}

static bool encodes_to(const struct tokenizer *t, const char *cleaned, const char *want)
{
	int32_t ids[97];
	char got[2000];
	size_t n, i, len = 0;

	if (tokenizer_encode(t, cleaned, ids, 97, &n) < 0)
		return false;
	for (i = 0; i < n; i++)
		len += (size_t)snprintf(got + len, sizeof(got) - len, "%s%d", i > 0 ? " " : "", ids[i]);
	if (strcmp(got, want) != 0)
		printf("# \"%s\": got %s expected %s\n", cleaned, got, want);
	return strcmp(got, want) == 0;
}

static void check_cases(const struct tokenizer *t)
{
	CLEANUP(fclose) FILE *f = NULL;
	CLEANUP(free) char *line = NULL;
	size_t size = 0, n = 0, good = 0;
	char path[4096];

	(void)snprintf(path, sizeof(path), "%s/tests/vectors/tokenizer/cases.tsv", top());
	f = fopen(path, "re");
	if (!ok(f != NULL, "%s opens", path))
		return;
	while (getline(&line, &size, f) > 0) {
		char *rest = line, *text = strsep(&rest, "\t"), *clean = strsep(&rest, "\t"), *ids = strsep(&rest, "\n");
		CLEANUP(free) char *got = NULL;
		struct err e;

		if (clean == NULL || ids == NULL)
			break;
		unescape(text);
		got = xcalloc(strlen(text) + 1, 1);
		n++;
		if (tokenizer_clean(text, got, &e) < 0 || strcmp(got, clean) != 0)
			printf("# case %zu: cleaned to \"%s\" expected \"%s\"\n", n, got, clean);
		else
			good += encodes_to(t, clean, ids);
	}
	is_int(good, n, "cleaned text and ids are the reference's");
	ok(n > 400, "%zu cases", n);
}

static void check_golden(void)
{
	const char *shared = getenv("CARZEROD_SHARED");
	struct tokenizer *t = NULL;
	char path[4096];
	json_t *root, *prompt;
	struct err e;
	size_t i, k;

	if (shared == NULL)
		return;
	(void)snprintf(path, sizeof(path), "%s/model/tiny/vocab.txt", shared);
	if (!ok(tokenizer_open(path, &t, &e) == 0, "%s opens", path))
		return;
	is_int(tokenizer_size(t), 600, "600 pieces");
	(void)snprintf(path, sizeof(path), "%s/model/tiny/golden.json", shared);
	root = json_load_file(path, 0, NULL);
	json_array_foreach(json_object_get(root, "prompts"), i, prompt) {
		const char *text = json_string_value(prompt);
		CLEANUP(free) char *clean = xcalloc(strlen(text) + 1, 1);
		json_t *want = json_array_get(json_object_get(root, "ids"), i);
		int32_t ids[97];
		size_t n = 0;

		is_int(tokenizer_clean(text, clean, &e), 0, "golden prompt %zu cleans", i);
		is_str(clean, json_string_value(json_array_get(json_object_get(root, "clean"), i)), "  to this");
		is_int(tokenizer_encode(t, clean, ids, 97, &n), 0, "  encodes");
		is_int(n, json_array_size(want), "  to as many ids");
		for (k = 0; k < n && ids[k] == json_integer_value(json_array_get(want, k)); k++)
			continue;
		is_int(k, n, "  which are equal");
	}
	json_decref(root);
	tokenizer_close(t);
}

static void check_refusals(const struct tokenizer *t)
{
	static const struct { const char *what, *bytes; size_t n; const char *says; } bad[] = {
		{ "empty", "", 0, "no line [PAD]" },
		{ "no [SEP]", "[PAD]\n[UNK]\n[CLS]\n", 18, "no line [SEP]" },
		{ "NUL", "[PAD]\n\0\n", 8, "byte 7 is NUL" },
	};
	char out[64], path[64];
	struct err e = { "" };
	struct tokenizer *none = NULL;
	size_t i;

	is_int(tokenizer_clean("caf\xc3\xa9 is", out, &e), -EBADMSG, "non-ASCII text is refused");
	ok(strstr(e.text, "\\xc3 at position 4") != NULL, "%s", e.text);
	is_int(tokenizer_open("/nonexistent/vocab.txt", &none, &e), -ENOENT, "no file");
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		CLEANUP(close) int fd = fd_memory("vocab");

		(void)write_full(fd, bad[i].bytes, bad[i].n);
		(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		is_int(tokenizer_open(path, &none, &e), -EBADMSG, "vocabulary: %s", bad[i].what);
		ok(strstr(e.text, bad[i].says) != NULL, "  %s", e.text);
	}
	ok(none == NULL, "nothing was returned");
	ok(tokenizer_piece(t, -1) == NULL && tokenizer_piece(t, (int32_t)tokenizer_size(t)) == NULL,
	   "no piece outside the vocabulary");
	is_str(tokenizer_piece(t, tokenizer_sep(t)), "[SEP]", "[SEP] is where the file says");
	ok(!tokenizer_continues(t, 0) && tokenizer_continues(t, (int32_t)tokenizer_size(t) - 1), "## continues");
}

static void check_windows_lines(void)
{
	CLEANUP(close) int fd = fd_memory("vocab");
	static const char text[] = "[PAD]\r\n[UNK]\r\n[CLS]\r\n[SEP]\r\nlung";
	struct tokenizer *t = NULL;
	char path[64];
	struct err e;

	(void)write_full(fd, text, sizeof(text) - 1);
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (!ok(tokenizer_open(path, &t, &e) == 0, "lines that end in CR LF are taken"))
		return;
	is_int(tokenizer_size(t), 5, "the last line needs no end");
	ok(encodes_to(t, "lung", "2 4 3") && encodes_to(t, "", "2 3"), "and is found");
	tokenizer_close(t);
}

static void check_cap(const struct tokenizer *t)
{
	int32_t ids[4];
	size_t n, cap;

	for (cap = 2; cap <= 4; cap++) {
		is_int(tokenizer_encode(t, "cardiomegaly zz cardiomegaly", ids, cap, &n), 0, "room for %zu ids", cap);
		is_int(n, cap, "  all used");
		is_int(ids[n - 1], tokenizer_sep(t), "  [SEP] is last");
	}
}

int main(void)
{
	struct tokenizer *t = NULL;
	char path[4096];
	struct err e;

	(void)snprintf(path, sizeof(path), "%s/tests/vectors/tokenizer/vocab.txt", top());
	if (!ok(tokenizer_open(path, &t, &e) == 0, "%s opens", path))
		return done();
	check_cases(t);
	check_golden();
	check_refusals(t);
	check_windows_lines();
	check_cap(t);
	tokenizer_close(t);
	return done();
}
