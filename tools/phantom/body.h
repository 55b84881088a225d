/* body.h: the parts that make a film, shared by render.c, chest.c and views.c.  Not for users of the
 * library: they see phantom.h.
 */
#ifndef PHANTOM_BODY_H
#define PHANTOM_BODY_H

#include "paint.h"
#include "phantom.h"

/* What each stream of chance is for; rng_open(seed, purpose). */
enum {
	CHANCE_PERSON = 1, CHANCE_POSE, CHANCE_CHEST, CHANCE_VESSELS, CHANCE_BONES, CHANCE_TEXTURE, CHANCE_GRAIN,
	CHANCE_FILM, CHANCE_UID, CHANCE_DATE,
	CHANCE_FINDING = 100,           /* + the index of the finding */
};

/* Fills the canvas' tissue plane with a frontal chest and the film's findings, and sets their boxes. */
void chest_paint(struct canvas *c, const struct phantom_spec *spec, struct phantom_film *film);
void chest_pose(const struct phantom_spec *spec, struct pose *ret);

void lateral_paint(struct canvas *c, const struct phantom_spec *spec);
void hand_paint(struct canvas *c, const struct phantom_spec *spec);
void blank_paint(struct canvas *c, const struct phantom_spec *spec);

#endif
