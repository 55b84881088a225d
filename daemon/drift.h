/* drift.h: has what a modality sends us changed?  Scores of each source against its own past.
 *
 * A source is a calling AE title.  Its first DRIFT_REFERENCE scored images are its reference: their
 * logits, cut into tenths, give each finding ten bins of equal share.  From then on the last DRIFT_WINDOW
 * images are counted in these bins, and the population stability index of a finding is
 *
 *	PSI = sum over bins of (p - q) * ln(p / q)        p: share in the window, q: in the reference
 *
 * with half an image added to every bin, so that an empty one does not make it infinite.  Without
 * a change PSI is about 9 * (1/DRIFT_REFERENCE + 1/DRIFT_WINDOW) = 0.04 by chance alone; above
 * DRIFT_ALARM something upstream is different: other processing, another detector, other patients.
 * It says that scores moved, not that they became wrong.
 *
 * Pure arithmetic: no clock, no store, no log.  A source's state packs into bytes, for a store, and
 * belongs to one model and one findings list; with another it starts again.
 */
#ifndef CARZEROD_DAEMON_DRIFT_H
#define CARZEROD_DAEMON_DRIFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

#define DRIFT_SOURCES_MAX 32 /* further ones are not watched */
#define DRIFT_REFERENCE 500
#define DRIFT_WINDOW 500
#define DRIFT_BINS 10
#define DRIFT_ALARM 0.25
#define DRIFT_CALM 0.15 /* an alarm ends below this */

struct drift;

struct drift *drift_new(size_t findings);
void drift_free(struct drift *d); /* NULL allowed */

/* Takes one image's logits [findings].  Returns the source's index, or -1 when it is not watched. */
int drift_add(struct drift *d, const char *source, const float *logits);

size_t drift_sources(const struct drift *d);
const char *drift_name(const struct drift *d, size_t source);
/* Images of its reference, and of its window; PSI is defined once both are full. */
void drift_filled(const struct drift *d, size_t source, size_t *ret_reference, size_t *ret_window);
/* NAN while it is not defined. */
double drift_psi(const struct drift *d, size_t source, size_t finding);

/* Whether the source is in alarm, after its last image; *ret_changed: it was not before that image, or
 * no longer is.  *ret_finding: the finding that moved most. */
bool drift_alarm(struct drift *d, size_t source, bool *ret_changed, size_t *ret_finding);

/* The state of a source as bytes: *ret is the caller's.  Same machine, same build. */
size_t drift_pack(const struct drift *d, size_t source, void **ret);
/* Takes them back, before its first drift_add(); -EBADMSG when they are not of this shape, -ENOSPC when
 * too many sources are watched. */
int drift_unpack(struct drift *d, const char *source, const void *bytes, size_t n);

#endif
