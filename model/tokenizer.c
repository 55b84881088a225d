/* tokenizer.c: prompts to word pieces (carzero.md 4.2, 4.3).
 *
 * Cleaning is the training code's own: numbers with a dot and dots end a sentence, a sentence of
 * fewer than two words is dropped, what is left is lower-case words joined by single blanks.  So a
 * one-word prompt ("Nodule") cleans to nothing; the caller decides what to say about that.
 *
 * Encoding is BERT's WordPiece: longest match first, "##" before a piece that continues a word, the
 * whole word [UNK] when a rest cannot be matched.  A vocabulary line that occurs twice counts with
 * its last number, as in the reference.
 *
 * It never looks beyond ASCII: other text is refused, because its lower-casing would need Unicode
 * tables and the model has seen none of it.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/fdio.h"
#include "base/mem.h"
#include "base/str.h"

#include "model/tokenizer.h"

#define WORD_MAX 100 /* BERT's max_input_chars_per_word; longer words are [UNK] */

struct tokenizer {
	char *text;         /* the file, one NUL-terminated piece after the other */
	const char **piece; /* [size] */
	size_t size;
	int32_t *slot; /* [mask + 1] open addressing: id of a piece, -1 empty */
	size_t mask;
	int32_t unk, cls, sep;
};

static uint32_t hash_of(const char *p, size_t n)
{
	uint32_t h = 2166136261u; /* FNV-1a */
	size_t i;

	for (i = 0; i < n; i++)
		h = (h ^ (unsigned char)p[i]) * 16777619u;
	return h;
}

static bool same(const struct tokenizer *t, int32_t id, const char *key, size_t n)
{
	return strncmp(t->piece[id], key, n) == 0 && t->piece[id][n] == '\0';
}

/* The slot where the key is, or the empty one where it would be. */
static size_t slot_of(const struct tokenizer *t, const char *key, size_t n)
{
	size_t i = hash_of(key, n) & t->mask;

	while (t->slot[i] >= 0 && !same(t, t->slot[i], key, n))
		i = (i + 1) & t->mask;
	return i;
}

static int special(const struct tokenizer *t, const char *path, const char *piece, int32_t *ret,
		   struct err *e)
{
	int32_t id = t->slot[slot_of(t, piece, strlen(piece))];

	if (id < 0)
		return err_set(e, -EBADMSG,
			       "%s: has no line %s; give the vocab.txt that belongs to the model's text "
			       "encoder (one piece per line)",
			       path, piece);
	*ret = id;
	return 0;
}

/* Cuts the text into pieces at "\n"; a "\r" before it goes (a file that went through Windows). */
static int cut_lines(struct tokenizer *t, size_t n, const char *path, struct err *e)
{
	char *p = t->text, *end = t->text + n, *nul = memchr(t->text, '\0', n);
	size_t lines = 0;

	if (nul != NULL)
		return err_set(e, -EBADMSG, "%s: byte %zu is NUL; this is not a text file", path,
			       (size_t)(nul - p) + 1);
	for (p = t->text; p < end; p++)
		lines += *p == '\n' || p + 1 == end;
	if (lines > TOKENIZER_VOCAB_MAX)
		return err_set(e, -E2BIG,
			       "%s: %zu lines, at most %d are taken; is this a vocabulary?", path,
			       lines, TOKENIZER_VOCAB_MAX);
	t->piece = xcalloc(lines, sizeof(*t->piece));
	for (p = t->text; p < end;) {
		char *stop = memchr(p, '\n', (size_t)(end - p));

		if (stop == NULL)
			stop = end; /* read_file put a NUL there */
		t->piece[t->size++] = p;
		*stop = '\0';
		if (stop > p && stop[-1] == '\r')
			stop[-1] = '\0';
		p = stop + 1;
	}
	return 0;
}

static void index_pieces(struct tokenizer *t)
{
	size_t i;

	t->mask = 1;
	while (t->mask < 2 * t->size)
		t->mask *= 2;
	t->slot = xcalloc(t->mask, sizeof(*t->slot));
	memset(t->slot, 0xff, t->mask * sizeof(*t->slot));
	t->mask--;
	for (i = 0; i < t->size; i++)
		t->slot[slot_of(t, t->piece[i], strlen(t->piece[i]))] = (int32_t)i;
}

static void cleanup_tokenizer(struct tokenizer **t)
{
	tokenizer_close(*t);
}

int tokenizer_open(const char *path, struct tokenizer **ret, struct err *e)
{
	CLEANUP(tokenizer) struct tokenizer *t = xcalloc(1, sizeof(*t));
	int32_t pad;
	void *text;
	size_t n;
	int r;

	r = read_path(path, TOKENIZER_VOCAB_BYTES_MAX, &text, &n, e);
	if (r < 0)
		return r;
	t->text = text;
	r = cut_lines(t, n, path, e);
	if (r < 0)
		return r;
	index_pieces(t);
	r = special(t, path, "[PAD]", &pad, e); /* never used: its absence tells a foreign file */
	if (r < 0)
		return r;
	r = special(t, path, "[UNK]", &t->unk, e);
	if (r < 0)
		return r;
	r = special(t, path, "[CLS]", &t->cls, e);
	if (r < 0)
		return r;
	r = special(t, path, "[SEP]", &t->sep, e);
	if (r < 0)
		return r;
	*ret = TAKE(t);
	return 0;
}

void tokenizer_close(struct tokenizer *t)
{
	if (t == NULL)
		return;
	free(t->text);
	free(t->piece);
	free(t->slot);
	free(t);
}

size_t tokenizer_size(const struct tokenizer *t)
{
	return t->size;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_word(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* Length of what ends a sentence here: `[0-9]+\.` or `.`, else 0.  Only asked where no digit stands
 * before, so the run of digits is whole. */
static size_t sentence_end(const char *p)
{
	size_t n = 0;

	while (is_digit(p[n]))
		n++;
	return p[n] == '.' ? n + 1 : 0;
}

int tokenizer_clean(const char *text, char *ret, struct err *e)
{
	size_t n = 0, start = 0, words = 0; /* written; start of the sentence; its words */
	const char *p = text;
	bool open = false; /* inside a word */

	for (size_t i = 0; text[i] != '\0'; i++)
		if ((unsigned char)text[i] >= 0x80)
			return err_set(
				e, -EBADMSG,
				"prompt has a byte \\x%02x at position %zu: only ASCII text is "
				"taken, the model "
				"has seen no other; write it without accents and typographic signs",
				(unsigned char)text[i], i + 1);
	while (*p != '\0') {
		size_t stop = p > text && is_digit(p[-1]) && is_digit(*p) ? 0 : sentence_end(p);

		if (stop > 0) {
			if (words < 2)
				n = start;
			start = n;
			words = 0;
			open = false;
			p += stop;
			continue;
		}
		if (!is_word(*p)) {
			open = false;
		} else {
			if (!open) {
				words++;
				if (n > 0)
					ret[n++] = ' ';
			}
			open = true;
			ret[n++] = lower(*p);
		}
		p++;
	}
	if (words < 2)
		n = start;
	ret[n] = '\0';
	return 0;
}

/* Pieces of one word into ids[], at most `room`; returns how many the word has in all (more than
 * `room` means that the rest did not fit), 0 when it cannot be matched. */
static size_t split_word(const struct tokenizer *t, const char *word, size_t len, int32_t *ids,
			 size_t room)
{
	char key[WORD_MAX + 2];
	size_t at = 0, n = 0;

	while (at < len) {
		size_t mark = at > 0 ? 2 : 0, take;
		int32_t id = -1;

		memcpy(key, "##", mark);
		memcpy(key + mark, word + at, len - at);
		for (take = len - at; take > 0; take--) {
			id = t->slot[slot_of(t, key, mark + take)];
			if (id >= 0)
				break;
		}
		if (id < 0)
			return 0;
		if (n < room)
			ids[n] = id;
		n++;
		at += take;
	}
	return n;
}

int tokenizer_encode(const struct tokenizer *t, const char *text, int32_t *ids, size_t cap, size_t *ret_n)
{
	size_t n = 0, last;

	assert(cap >= 2);
	last = cap - 1; /* where [SEP] goes at the latest */
	ids[n++] = t->cls;
	while (*text != '\0' && n < last) {
		size_t len, pieces;

		if (*text == ' ') {
			text++;
			continue;
		}
		len = *text == '_' ? 1 : strcspn(text, " _"); /* BERT: punctuation stands alone */
		pieces = len <= WORD_MAX ? split_word(t, text, len, ids + n, last - n) : 0;
		if (pieces == 0) {
			ids[n] = t->unk;
			pieces = 1;
		}
		n = pieces < last - n ? n + pieces : last;
		text += len;
	}
	ids[n++] = t->sep;
	*ret_n = n;
	return 0;
}

const char *tokenizer_piece(const struct tokenizer *t, int32_t id)
{
	return id >= 0 && (size_t)id < t->size ? t->piece[id] : NULL;
}

bool tokenizer_continues(const struct tokenizer *t, int32_t id)
{
	const char *piece = tokenizer_piece(t, id);

	return piece != NULL && strncmp(piece, "##", 2) == 0;
}

int32_t tokenizer_sep(const struct tokenizer *t)
{
	return t->sep;
}
