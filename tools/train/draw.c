/* draw.c: see films.h. */
#include "rng.h"

#include "films.h"

enum { CHANCE_DRAW = 5000 };

/* Of 100 films that are not normal ones, so many have it.  Rarer than these nothing can be measured on
 * a few hundred films; commoner, and findings hide each other. */
static const unsigned char share[PHANTOM_KINDS] = {
	[PHANTOM_EFFUSION] = 24, [PHANTOM_PNEUMOTHORAX] = 18, [PHANTOM_CARDIOMEGALY] = 20, [PHANTOM_OPACITY] = 20,
	[PHANTOM_NODULE] = 22, [PHANTOM_MASS] = 16, [PHANTOM_EDEMA] = 14, [PHANTOM_EMPHYSEMA] = 12,
	[PHANTOM_ATELECTASIS] = 20, [PHANTOM_THICKENING] = 16, [PHANTOM_FRACTURE] = 10, [PHANTOM_PACEMAKER] = 14,
	[PHANTOM_TUBE] = 14, [PHANTOM_LINE] = 16,
};

static enum phantom_side other(enum phantom_side s)
{
	return s == PHANTOM_RIGHT ? PHANTOM_LEFT : PHANTOM_RIGHT;
}

static void add(struct phantom_spec *s, enum phantom_kind kind, enum phantom_side side, enum phantom_size size,
		enum phantom_lobe lobe)
{
	if (s->findings < FILMS_FINDINGS)
		s->finding[s->findings++] = (struct phantom_finding){ .kind = kind, .side = side, .size = size,
								      .lobe = lobe };
}

/* What a chest cannot show together on one side: water that fills it hides the rest, air and rind both
 * are at the wall. */
static bool hidden(const struct phantom_spec *s, enum phantom_kind kind, enum phantom_side side)
{
	for (size_t i = 0; i < s->findings; i++) {
		const struct phantom_finding *f = &s->finding[i];
		bool wall = kind == PHANTOM_PNEUMOTHORAX || kind == PHANTOM_THICKENING;

		if (f->side != side)
			continue;
		if (f->kind == PHANTOM_EFFUSION && f->size >= PHANTOM_LARGE &&
		    (wall || kind == PHANTOM_ATELECTASIS || f->size == PHANTOM_MASSIVE))
			return true;
		if (f->kind == PHANTOM_PNEUMOTHORAX && kind == PHANTOM_THICKENING)
			return true;
	}
	return false;
}

static void draw(uint64_t seed, struct phantom_spec *s)
{
	struct rng r = rng_open(seed, CHANCE_DRAW);

	s->view = rng_below(&r, 3) ? PHANTOM_PA : PHANTOM_AP;
	if (rng_below(&r, 100) < 18)
		return;                 /* a normal film */
	for (unsigned k = 0; k < PHANTOM_KINDS; k++) {
		/* Every draw is made, whether or not it is used: one finding does not move the next. */
		bool has = rng_below(&r, 100) < share[k];
		enum phantom_side side = rng_below(&r, 2) ? PHANTOM_LEFT : PHANTOM_RIGHT;
		enum phantom_size size = PHANTOM_SMALL + rng_below(&r, 3);
		enum phantom_lobe lobe = PHANTOM_RUL + rng_below(&r, 5), second = PHANTOM_RUL + rng_below(&r, 5);
		bool lobed = k == PHANTOM_OPACITY || k == PHANTOM_NODULE || k == PHANTOM_MASS;
		unsigned extra = rng_below(&r, 100);

		if (lobed)
			side = lobe <= PHANTOM_RLL ? PHANTOM_RIGHT : PHANTOM_LEFT;
		if (!has || hidden(s, k, side))
			continue;
		if (k == PHANTOM_EFFUSION && extra >= 90)
			size = PHANTOM_MASSIVE;
		add(s, k, side, size, lobed ? lobe : PHANTOM_LOBE_ANY);
		if (k == PHANTOM_EFFUSION && extra < 20)
			add(s, k, other(side), PHANTOM_SMALL + extra % 2, PHANTOM_LOBE_ANY);
		if (k == PHANTOM_OPACITY && extra < 25 && second != lobe)
			add(s, k, PHANTOM_SIDE_ANY, size, second);
	}
}

static bool visible(const struct phantom_finding *f)
{
	if (f->box.x1 == 0)
		return false;
	if (f->kind == PHANTOM_NODULE || f->kind == PHANTOM_MASS)
		return f->contrast >= FILMS_NODULE_CONTRAST;
	return f->kind != PHANTOM_OPACITY || f->contrast >= FILMS_OPACITY_CONTRAST;
}

int films_render(uint64_t seed, unsigned side, struct phantom_spec *ret_spec, struct phantom_film *ret)
{
	*ret_spec = (struct phantom_spec){ .seed = seed, .width = side, .height = side };
	draw(seed, ret_spec);
	for (;;) {
		size_t kept = 0;
		int r = phantom_render(ret_spec, ret);

		if (r < 0)
			return r;
		for (size_t i = 0; i < ret->findings; i++)
			if (visible(&ret->finding[i]))
				ret_spec->finding[kept++] = ret->finding[i];
		if (kept == ret->findings)
			return 0;
		/* Each round has fewer findings, so this ends. */
		ret_spec->findings = kept;
		phantom_film_free(ret);
	}
}
