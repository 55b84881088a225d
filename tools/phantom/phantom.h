/* phantom.h: radiographs that were never taken.
 *
 * phantom_render() makes a frontal chest film (and, for tests of a gate, a lateral, a hand or an empty
 * exposure) from a seed and a list of findings, at any size.  Every shape is a formula of ours; nothing
 * comes from a patient.  The same spec gives the same film on every machine with the same libm.
 *
 * The film is floating point, 0 black to 1 white, white being what stops X-rays.  The patient's left is
 * on the viewer's right.  Findings come back resolved (a side that was left open has been drawn) and with
 * a box around what is visible of them, in pixels, x1 and y1 exclusive.
 *
 * The contrast of a finding is measured on the finished film: mean grey inside the ellipse that its box
 * encloses, less that of a ring around it, over the deviation within the ring.  Below about 0.8 a person
 * who was not told where to look does not see it.
 *
 * phantom_write_dicom() is deliberately not built on the product's DICOM code nor on a toolkit: a
 * generator that shared them would agree with their mistakes.
 */
#ifndef PHANTOM_H
#define PHANTOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	PHANTOM_MIN_SIDE = 32,      /* below this no shape is left */
	PHANTOM_MAX_SIDE = 4096,    /* the largest detectors have 3520; memory is about 28 bytes a pixel */
	PHANTOM_MAX_FINDINGS = 24,
	PHANTOM_CELLS = 16,         /* a cover divides each side of the film into so many */
};

enum phantom_view { PHANTOM_PA, PHANTOM_AP, PHANTOM_LL, PHANTOM_HAND, PHANTOM_BLANK };

enum phantom_kind {
	PHANTOM_EFFUSION,
	PHANTOM_PNEUMOTHORAX,
	PHANTOM_CARDIOMEGALY,
	PHANTOM_OPACITY,
	PHANTOM_NODULE,
	PHANTOM_MASS,
	PHANTOM_EDEMA,
	PHANTOM_EMPHYSEMA,
	PHANTOM_ATELECTASIS,
	PHANTOM_THICKENING,
	PHANTOM_FRACTURE,
	PHANTOM_PACEMAKER,
	PHANTOM_TUBE,
	PHANTOM_LINE,
	PHANTOM_KINDS
};

/* The patient's sides.  ANY in a spec means: draw it from the seed. */
enum phantom_side { PHANTOM_SIDE_ANY, PHANTOM_RIGHT, PHANTOM_LEFT, PHANTOM_SIDE_NONE };
enum phantom_size { PHANTOM_SIZE_ANY, PHANTOM_SMALL, PHANTOM_MODERATE, PHANTOM_LARGE, PHANTOM_MASSIVE };
enum phantom_lobe { PHANTOM_LOBE_ANY, PHANTOM_RUL, PHANTOM_RML, PHANTOM_RLL, PHANTOM_LUL, PHANTOM_LLL };

struct phantom_box {
	unsigned x0, y0, x1, y1;        /* empty (all 0) when nothing of the finding is on the film */
};

struct phantom_finding {
	enum phantom_kind kind;
	enum phantom_side side;
	enum phantom_size size;
	enum phantom_lobe lobe;         /* only opacity, nodule and mass have one */
	/* filled in by phantom_render(): */
	struct phantom_box box;
	float contrast;                 /* opacity, nodule, mass: see below; 0 for the others */
};

struct phantom_spec {
	uint64_t seed;
	enum phantom_view view;
	unsigned width, height;
	struct phantom_finding finding[PHANTOM_MAX_FINDINGS];
	size_t findings;
};

/* Who is on the film: follows from the seed alone, so tags and pixels agree. */
struct phantom_person {
	bool female;
	unsigned age;                   /* years, always an adult */
	float habitus;                  /* -1 slender .. 1 heavy */
};

struct phantom_film {
	unsigned width, height;
	float *px;                      /* [height, width], owned by the film */
	struct phantom_finding finding[PHANTOM_MAX_FINDINGS];
	size_t findings;
	/* Share of each cell of the film that shows the finding, row by row; what a box says, finer. */
	float cover[PHANTOM_MAX_FINDINGS][PHANTOM_CELLS * PHANTOM_CELLS];
};

/* What a DICOM file says besides the pixels.  Strings are borrowed and written as they are. */
struct phantom_dicom {
	enum phantom_view view;
	const char *modality;           /* "DX", "CR" or "SC" */
	bool inverted;                  /* MONOCHROME1 */
	unsigned bits;                  /* BitsStored, 8..16 */
	bool implicit_vr;
	bool tagged;                    /* (0028,0300) Quality Control Image = YES */
	bool wrong_rows;                /* Rows says twice what Pixel Data holds */
	bool truncated;                 /* the file ends in the middle of Pixel Data */
	const char *charset;
	const char *patient_id, *patient_name, *accession;
	const char *study_uid, *series_uid, *instance_uid;
	struct phantom_person person;
	uint64_t seed;                  /* chooses the study date and time */
};

struct phantom_person phantom_person_of(uint64_t seed);

const char *phantom_view_name(enum phantom_view v);
const char *phantom_kind_name(enum phantom_kind k);
const char *phantom_side_name(enum phantom_side s);     /* NULL for ANY and NONE */
const char *phantom_size_name(enum phantom_size s);     /* NULL for ANY */
const char *phantom_lobe_name(enum phantom_lobe l);     /* NULL for ANY */

/* Renders the film.  -EINVAL for a size out of bounds or findings on a view that has no place for them,
 * -ENOMEM.  *ret is set only on success; free it with phantom_film_free().
 */
int phantom_render(const struct phantom_spec *spec, struct phantom_film *ret);
void phantom_film_free(struct phantom_film *film);

/* Builds a whole Part 10 file in memory; the caller frees *ret. */
int phantom_write_dicom(const struct phantom_film *film, const struct phantom_dicom *d, uint8_t **ret,
			size_t *ret_len);

#endif
