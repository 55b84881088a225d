/* synonyms.h: which canonical prompt a free phrase means, and why; or that none does.
 *
 * A table (synonyms.yaml) of groups: one canonical phrase and what else radiologists write for exactly
 * that.  Phrases are compared whole, word by word (phrase_key() of findings.h): a phrase that is
 * in no group and no list means nothing here.  No similarity, no part of a phrase, no guess: the left
 * lung's effusion, a resolved effusion and no effusion are not "effusion".
 */
#ifndef CARZEROD_DAEMON_SYNONYMS_H
#define CARZEROD_DAEMON_SYNONYMS_H

#include <stddef.h>

#include "base/err.h"

#include "daemon/findings.h"

#define SYNONYM_GROUPS_MAX 256
#define SYNONYM_PHRASES_MAX 64 /* of one group */
#define SYNONYMS_BYTES_MAX (256 * 1024)

struct synonym_group {
	char canonical[FINDING_TEXT_MAX]; /* without "There is" */
	size_t n;
	char **phrase; /* [n] */
};

struct synonyms {
	size_t n, room;
	struct synonym_group *group; /* [n], with room for `room` */
};

/* Refuses a phrase that is in two groups, or twice in one. */
int synonyms_parse(const char *where, const void *text, size_t n_text, struct synonyms **ret, struct err *e);
int synonyms_load(const char *path, struct synonyms **ret, struct err *e);
void synonyms_free(struct synonyms *s); /* NULL allowed */

struct alignment {
	const struct finding *finding;	    /* NULL without a list, or when no finding of it asks this */
	char prompt[FINDING_TEXT_MAX + 16]; /* the canonical sentence; "" when none is known */
	char why[3 * FINDING_TEXT_MAX];	    /* in words, in either case */
};

/* `f` and `s` may be NULL; the list's own words come before the table's. */
void synonyms_align(const struct synonyms *s, const struct findings *f, const char *phrase,
		    struct alignment *ret);

#endif
