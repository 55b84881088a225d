/* findings.h: the findings list (findings.yaml): what is looked for, how it is coded, and when a
 * logit may be called a probability.
 *
 * The text of the file is the identity of the list: its SHA-256 is pinned with every score and
 * report, and the text is kept in the store under it.  A list is read-only after parsing.
 */
#ifndef CARZEROD_DAEMON_FINDINGS_H
#define CARZEROD_DAEMON_FINDINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"
#include "base/err.h"

#define FINDINGS_MAX 256
#define FINDINGS_BYTES_MAX (256 * 1024)
#define FINDING_ID_MAX 65      /* [a-z0-9_-], names the row of scores */
#define FINDING_TEXT_MAX 512
#define FINDING_SYNONYMS_MAX 32 /* of one finding */
#define FINDING_NAMES_MAX 32   /* of one finding */
#define LANGUAGE_MAX 17        /* RFC 5646: as long as we take them */

struct code { /* PS3.3 8.8: Code Value SH, Coding Scheme Designator SH, Code Meaning LO */
	char value[17], scheme[17];
	char meaning[65 * 4]; /* 64 characters of UTF-8 */
};

struct calibration {
	bool present;
	double a, b;             /* p = 1 / (1 + exp(-(a * logit + b))) */
	/* Fitted for the finding's prompt: the file names it, and another one is refused. */
	char family[64];         /* applies only to this family of weights, */
	char recipe[16];         /* this preprocessing */
	char precision[8];       /* and this precision */
	double prevalence;       /* of the population it was fitted on */
	char origin[FINDING_TEXT_MAX];
};

struct operating_points {
	bool has_lo, has_hi;
	double lo, hi;           /* probabilities: p < lo Absent, p >= hi Present, between Undetermined */
	double lo_sensitivity;   /* Absent is said only when this is at least 0.95 */
	double hi_sensitivity, hi_ppv, hi_alarm_rate;
	char origin[FINDING_TEXT_MAX];
};

enum urgency { URGENCY_ROUTINE = 0, URGENCY_URGENT = 1 };

struct finding_name {
	char language[LANGUAGE_MAX];
	char name[65 * 4];
};

struct finding {
	char id[FINDING_ID_MAX];
	char name[65 * 4];       /* as people read it, in the list's language */
	char own_name[65 * 4];   /* `name` in the file: the same, unless `names` has one in that language */
	size_t n_names;
	struct finding_name *names; /* [n_names] in other languages */
	char prompt[FINDING_TEXT_MAX];
	size_t n_synonyms;
	char **synonyms;         /* [n_synonyms] what else people call it, as phrase_key() has it; not for the model */
	struct code code;
	bool has_site;
	struct code site;
	enum urgency urgency;
	struct calibration calibration;
	struct operating_points points;
};

struct findings {
	char name[129];          /* of the list */
	char language[LANGUAGE_MAX]; /* RFC 5646, default "eng" */
	uint8_t digest[DIGEST_SIZE]; /* SHA-256 of the text */
	size_t n, room;
	struct finding *finding; /* [n], with room for `room` */
};

/* `where` names the source in errors ("findings.yaml"): "findings.yaml:12: finding 3 (edema): ...". */
int findings_parse(const char *where, const void *text, size_t n_text, struct findings **ret, struct err *e);
/* Reads the file, keeps its text for the store: *ret_text (may be NULL) is malloc'd. */
int findings_load(const char *path, struct findings **ret, void **ret_text, size_t *ret_n_text, struct err *e);
void findings_free(struct findings *f); /* NULL allowed */

/* What counts of a phrase when two are compared: lower-case letters and digits, one blank between words,
 * without "there is", "there are", "evidence of" and an article at its head.  ret: [strlen(text) + 1].
 * -EBADMSG for text that is not ASCII (left as it is). */
int phrase_key(const char *text, char *ret);

enum decision {
	DECISION_NONE = 0,         /* uncalibrated: a raw score, no decision, no urgency */
	DECISION_ABSENT = 1,
	DECISION_UNDETERMINED = 2,
	DECISION_PRESENT = 3,
};

/* NAN and DECISION_NONE unless the finding has a calibration for this family, recipe and precision. */
double finding_probability(const struct finding *f, float logit, const char *family,
			   const char *recipe, const char *precision);
/* A calibrated finding without points, or with points that justify nothing, is Undetermined. */
enum decision finding_decide(const struct finding *f, double probability);
/* The probability below which Absent is said; NAN when it never is. */
double finding_absent_below(const struct finding *f);
const char *decision_name(enum decision d); /* "-", "absent", "undetermined", "present" */

#endif
