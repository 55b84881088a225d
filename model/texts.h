/* texts.h: from tokens to the tables of the decoder, through the cache (cache.h).
 *
 * Two things are kept.  KEY.tables is what a picture needs of one list of prompts, as it is used: all
 * workers map it, and a start with a known list computes nothing.  KEY.words is what the text tower made of
 * single prompts, those of the present list and of former ones: a list that differs in one costs one.
 * Scores are the same to the last bit with and without (bert.h).
 */
#ifndef CARZEROD_MODEL_TEXTS_H
#define CARZEROD_MODEL_TEXTS_H

#include "base/err.h"

#include "model/bundle.h"
#include "model/cache.h"

#define TEXTS_KEPT_MAX 1024 /* prompts in KEY.words */
#define TEXTS_KEPT_BYTES_MAX ((size_t)64 << 20)

/* `c` NULL: everything is computed.  note: in a few words what the cache gave.  -EBADMSG (the digest, bad ids),
 * -ENOMEM. */
int texts_tables(struct bundle *b, struct cache *c, const struct bert_text *texts, size_t n, struct fusion_text *ret,
		 struct err *note, struct err *e);

#endif
