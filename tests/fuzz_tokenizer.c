/* fuzz_tokenizer.c: a vocabulary file, an empty line, a prompt.
 *
 * Holds: nothing crashes; a cleaned text has no other characters than it may and is not longer; ids
 * are in the vocabulary, end with [SEP], and fit.
 */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/fdio.h"
#include "base/mem.h"

#include "model/tokenizer.h"

#define CAP 97

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_prompt(const struct tokenizer *t, const char *text)
{
	CLEANUP(free) char *clean = xcalloc(strlen(text) + 1, 1);
	int32_t ids[CAP];
	struct err e;
	size_t n, i;

	if (tokenizer_clean(text, clean, &e) < 0)
		return;
	assert(strlen(clean) <= strlen(text));
	assert(strspn(clean, "abcdefghijklmnopqrstuvwxyz0123456789_ ") == strlen(clean));
	if (tokenizer_encode(t, clean, ids, CAP, &n) < 0)
		return;
	assert(n >= 2 && n <= CAP && ids[n - 1] == tokenizer_sep(t));
	for (i = 0; i < n; i++)
		assert(tokenizer_piece(t, ids[i]) != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *cut = memmem(data, size, "\n\n", 2);
	size_t vocab = cut != NULL ? (size_t)(cut - data) : size;
	CLEANUP(close) int fd = fd_memory("vocab");
	struct tokenizer *t = NULL;
	char path[64];
	struct err e;

	if (fd < 0 || write_full(fd, data, vocab) < 0)
		return 0;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (tokenizer_open(path, &t, &e) < 0)
		return 0;
	if (cut != NULL) {
		size_t n = size - vocab - 2;
		CLEANUP(free) char *text = xcalloc(n + 1, 1);

		memcpy(text, cut + 2, n);
		check_prompt(t, text);
	}
	tokenizer_close(t);
	return 0;
}
