/* image.h: one stored object to stored values and facts, or to a reason.
 *
 * Input is the memory of a whole Part 10 file.  First a non-recursive walk in pure C (dicom/scan.c)
 * refuses what DCMTK must not see (depth, fragments, sizes, lying lengths), then DCMTK parses and decodes.  A
 * reason is a fact about the file, not a failure of ours: the call returns 0 with image->reason set.
 */
#ifndef CARZEROD_DICOM_IMAGE_H
#define CARZEROD_DICOM_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"
#include "base/err.h"
#include "base/str.h"

#ifdef __cplusplus
extern "C" {
#endif

#define IMAGE_WHY_MAX 200

struct dicom_limits {
	unsigned side;      /* rows and columns */
	uint64_t pixels;    /* rows * columns */
	unsigned min_side;  /* smaller images are not analysed: 64 */
	unsigned depth;     /* of sequences: 16 */
	unsigned items;     /* of all sequences together: 10000 */
	unsigned fragments; /* of encapsulated pixel data: 4096 */
};

/* Why an image cannot be analysed.  Texts in `why` are ours: they name the element and what was expected, never patient data. */
enum image_reason {
	IMAGE_OK = 0,
	IMAGE_NOT_DICOM,       /* no Part 10 file, or it breaks off */
	IMAGE_NO_PIXELS,
	IMAGE_UNSUPPORTED,     /* transfer syntax, photometric interpretation, depth, frames */
	IMAGE_BROKEN,          /* pixel data contradict the header or do not decode */
	IMAGE_TOO_LARGE,
	IMAGE_TOO_SMALL,
	IMAGE_CONSTANT,        /* one grey level: nothing to see */
	IMAGE_NOT_FRONTAL_CHEST, /* set by the gate */
	IMAGE_FOR_PROCESSING,
	IMAGE_TOO_YOUNG,
	IMAGE_OUT_OF_DOMAIN,   /* set by the keeper */
};
const char *image_reason_name(enum image_reason r);

/* Header facts, trimmed, ASCII or "" (values with other characters are dropped: these are code strings). */
struct image_facts {
	char sop_class[UID_MAX], sop_uid[UID_MAX], study_uid[UID_MAX], series_uid[UID_MAX];
	char modality[17], body_part[17], view_position[17], view_code[17], anatomic_code[17];
	char photometric[17], presentation_intent[17], orientation[2][17], laterality[17];
	char image_type[65];       /* backslash-joined, cut */
	bool description_chest;    /* study, series or protocol description holds a word for chest; the text itself stays inside */
	bool description_lateral;
	bool quality_control;      /* (0028,0300) is YES */
	bool animal;               /* a species other than man, or a description that names one */
	int age_years;             /* from Patient's Age, or birth date and study date; -1 unknown */
	unsigned rows, columns, frames, samples, bits_allocated, bits_stored;
	bool is_signed;            /* as decoded: a frame may know better than Pixel Representation (0028,0103) */
	bool lossy;
	uint8_t patient[DIGEST_SIZE]; /* SHA-256 of Patient ID, NUL, Issuer of Patient ID, both trimmed */
	uint8_t copied[DIGEST_SIZE];  /* SHA-256 of the patient and study elements that reports copy */
	uint8_t content[DIGEST_SIZE]; /* SHA-256 of `copied` and of rows, columns and decoded stored values, before any
				       * turning or resampling; zero without pixels */
};

struct dicom_image {
	enum image_reason reason;
	char why[IMAGE_WHY_MAX];
	char note[IMAGE_WHY_MAX];  /* IMAGE_OK: what `window` was made by, and contradictions that were settled */
	struct image_facts facts;
	size_t width, height;      /* of the arrays below: turned upright, pixels squared; facts have the original matrix */
	int32_t *stored;           /* [height][width] masked, sign-extended, averaged where pixels were not square;
				    * NULL unless IMAGE_OK */
	uint8_t *window;           /* [height][width] modality LUT, VOI, inversion to 0..255, rounded */
	bool monochrome1;
	bool transposed, mirrored, upside_down; /* how it was turned, in the order of reading */
};

/* -ENOMEM, or 0 with reason.  *ret is freed by dicom_image_free(). */
int dicom_image_decode(const void *file, size_t n, const struct dicom_limits *limits,
		       struct dicom_image **ret);
void dicom_image_free(struct dicom_image *image); /* NULL allowed */
/* From a point of the arrays above (0,0: the outer corner of the first pixel) to the matrix in the file. */
void dicom_image_to_source(const struct dicom_image *image, double x, double y, double *ret_column, double *ret_row);
/* Decodes one image of each codec and throws it away: after that no decoding opens a file. */
void dicom_image_warm_up(void);

struct gate_rules {
	bool check_view;           /* false: everything with pixels passes */
	unsigned min_age;          /* years; 0: no rule */
};
/* Is this a frontal chest radiograph of an adult that may be scored?  By header facts alone (gate.c, pure C).
 * Returns IMAGE_OK or the reason, with why and, for IMAGE_OK, the evidence ("DX, CHEST, PA"). */
enum image_reason gate_decide(const struct gate_rules *rules, const struct image_facts *facts,
			      char why[IMAGE_WHY_MAX]);

#ifdef __cplusplus
}
#endif
#endif
