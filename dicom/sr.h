/* sr.h: one study's results as a TID 1500 Structured Report.
 *
 * Everything that makes a report different (UIDs, times, texts) comes in through struct sr_report:
 * the same input gives the same bytes.  Patient and study elements are copied from the source
 * objects as raw elements, never re-encoded.
 */
#ifndef CARZEROD_DICOM_SR_H
#define CARZEROD_DICOM_SR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

#include "dicom/image.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sr_code {
	const char *value, *scheme, *meaning;
};

enum sr_decision { SR_NONE = 0, SR_ABSENT = 1, SR_UNDETERMINED = 2, SR_PRESENT = 3 };

struct sr_finding {           /* one line of the findings list */
	const char *id, *name, *prompt;
	struct sr_code code;
	bool has_site;
	struct sr_code site;
	double absent_below, present_from; /* probabilities; NAN: that is never said */
	const char *parameters;   /* further algorithm parameters, one per line, or "" (thresholds, calibration and its origin) */
};

struct sr_score {
	float logit;
	double probability;       /* NAN: uncalibrated, written as a raw score without a decision */
	enum sr_decision decision;
};

struct sr_map {               /* where the model's attention went for one finding; 255: most of it */
	size_t finding, side;
	const uint8_t *shade; /* [side][side] */
};

#define SR_MAPS_MAX 3

/* An image as people see it, for the objects in sc.h; the report itself needs none. */
struct sr_picture {
	const struct dicom_image *image; /* decoded */
	double map_x, map_y, map_width, map_height; /* what the maps cover of it, in its upright pixels */
	struct sr_map map[SR_MAPS_MAX];  /* strongest first */
	size_t n_maps;
};

struct sr_image {
	const void *file;         /* the stored Part 10 object */
	size_t file_size;
	bool analysed;
	const char *why;          /* when not analysed: reason in plain words */
	const struct sr_score *scores; /* [n_findings] when analysed */
	const struct sr_picture *picture; /* or NULL */
};

struct sr_report {
	const char *sop_class;    /* Enhanced, Comprehensive or Comprehensive 3D SR */
	const char *sop_uid, *series_uid;
	const char *predecessor_sop_uid, *predecessor_series_uid; /* "" when this is the first */
	const char *date, *time, *timezone; /* DA, TM, "+HHMM" of the analysis; timezone "" leaves it out */
	const char *language;     /* RFC 5646 */
	const char *manufacturer, *model_name, *serial, *software, *device_uid;
	const char *station, *institution; /* "" leaves the last one out */
	const char *series_description;
	unsigned series_number;
	bool whole_image_regions; /* each number is inferred from the outline of its image, not from the image: TID 320 */
	const char *weights_sha256, *findings_sha256, *recipe, *precision; /* algorithm parameters */
	const uint8_t *uid_namespace; /* [16]: tracking UIDs are name-based on image UID and finding id */
	const char *disclaimer;   /* "AI result, not verified. ..." */
	const char *stamp;        /* on pages: what nobody may miss, or "" */
	const struct sr_finding *findings;
	size_t n_findings;
	const struct sr_image *images;
	size_t n_images;
};

/* Writes a Part 10 file (explicit VR little endian) to fd, which must be empty; does not fsync.
 * -EBADMSG with text when a source object cannot be used. */
int sr_write(const struct sr_report *report, int fd, struct err *e);

/* Composes a small report in memory and throws it away: after that sr_write() opens no file. */
void sr_warm_up(void);

#ifdef __cplusplus
}
#endif
#endif
