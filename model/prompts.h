/* prompts.h: from token ids to the tables that a picture needs.
 *
 * Two steps, both once per list of prompts: prompts_encode_ids() runs the text tower and merges word
 * pieces into words (MODEL.md 3), prompts_tables() projects the result into keys, values and queries
 * of the decoder (MODEL.md 4).
 */
#ifndef CARZEROD_MODEL_PROMPTS_H
#define CARZEROD_MODEL_PROMPTS_H

#include <stddef.h>

#include "model/bert.h"
#include "model/fusion.h"

/* The text tower's result.  K = first[n] words altogether; D = dim, W = word_num. */
struct prompt_words {
	size_t n;
	float *global; /* [n, D] (sum of the prompt's words) / W */
	size_t *first; /* [n + 1] first word row of each prompt */
	float *rows;   /* [K, D] [CLS], words, [SEP] of each prompt; the reference's zero rows left out */
};

/* -EBADMSG for bad ids (bert.h), -ENOMEM. */
int prompts_encode_ids(const struct bert *bert, const struct bert_text *texts, size_t n,
		       struct prompt_words *ret);
/* The same from rows that prompts_encode_ids() once made: rows[p] is [k[p], D].  -ENOMEM. */
int prompt_words_join(const struct dims *dims, const float *const *rows, const size_t *k, size_t n,
		      struct prompt_words *ret);
void prompt_words_release(struct prompt_words *words); /* also of a zeroed one */

int prompts_tables(const struct fusion *fusion, const struct prompt_words *words, struct fusion_text *ret);
/* The tables that somebody kept of ret->pool; on success the pool is theirs.  -EBADMSG: no such tables. */
int prompts_take_tables(const struct fusion *fusion, struct pool *filled, struct fusion_text *ret);

#endif
