/* films.h: which phantoms the demonstration model is trained on and tested with.
 *
 * One distribution for both, fixed before any training.  Film i of set s is drawn from the seed
 * s * FILMS_IN_SET + i and nothing else, so a set that training did not name was never seen.
 */
#ifndef TRAIN_FILMS_H
#define TRAIN_FILMS_H

#include "phantom.h"

enum {
	FILMS_IN_SET = 1000000,
	FILMS_SETS = 1000000,
	FILMS_FINDINGS = 12,    /* on one film, at most */
};

/* Below this contrast (phantom.h) a finding is taken off the film again, not left on it unlabelled. */
#define FILMS_NODULE_CONTRAST 0.7f
#define FILMS_OPACITY_CONTRAST 0.25f

/* Draws what is on the film and renders it; `side` is that of the square film.  Errors as phantom_render(). */
int films_render(uint64_t seed, unsigned side, struct phantom_spec *ret_spec, struct phantom_film *ret);

#endif
