/* tokenizer.h: a prompt's text to word pieces, exactly as the training code did (carzero.md 4.2, 4.3).
 */
#ifndef CARZEROD_MODEL_TOKENIZER_H
#define CARZEROD_MODEL_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define TOKENIZER_VOCAB_BYTES_MAX (4 * 1024 * 1024)
#define TOKENIZER_VOCAB_MAX 200000

struct tokenizer;

/* vocab.txt: one piece per line, id = line number from 0.  [PAD] [UNK] [CLS] [SEP] must be there. */
int tokenizer_open(const char *path, struct tokenizer **ret, struct err *e);
void tokenizer_close(struct tokenizer *t); /* NULL allowed */
size_t tokenizer_size(const struct tokenizer *t);

/* The text that the model sees: case, punctuation, sentence numbers and one-word sentences gone.
 * ret holds strlen(text) + 1 bytes.  Non-ASCII text is -EBADMSG (the model never saw any). */
int tokenizer_clean(const char *text, char *ret, struct err *e);

/* [CLS] pieces [SEP], at most cap ids (pieces beyond cap - 2 are dropped).  `text` has been cleaned. */
int tokenizer_encode(const struct tokenizer *t, const char *text, int32_t *ids, size_t cap, size_t *ret_n);

/* Piece of an id, or NULL; whether it continues a word ("##..."). */
const char *tokenizer_piece(const struct tokenizer *t, int32_t id);
bool tokenizer_continues(const struct tokenizer *t, int32_t id);
int32_t tokenizer_sep(const struct tokenizer *t);

#endif
