/* figures.h: the keeper's rooms say here what happened.  Private to carzerod; see figures.c.
 *
 * `since` and figures_now() are microseconds of a clock that never steps.
 */
#ifndef CARZEROD_DAEMON_FIGURES_H
#define CARZEROD_DAEMON_FIGURES_H

#include <stdbool.h>
#include <stdint.h>

#include "store/store.h"

#include "daemon/telemetry.h"

struct courier;
struct keeper;

int64_t figures_now(void);

/* The socket of `metrics`, or -1 when there is none; fatal() when it cannot be had. */
int figures_listen(const struct config *c);
void figures_open(struct keeper *k);
/* What carzerod-export inherits: its listening socket and the page.  0: it does not run. */
size_t figures_export(const struct keeper *k, int ret_fds[2]);
void figures_model(struct keeper *k);	  /* once a model is known */
/* Another configuration and findings list are in force; figures_model() follows. */
void figures_reload(struct keeper *k, const struct config *old);
void figures_publish(struct keeper *k);	  /* at the end of every turn */
int64_t figures_next(const struct keeper *k); /* wall ms at which it wants a turn; INT64_MAX: at none */
void figures_stop(struct keeper *k);	  /* inside the last transaction */

void figures_answered(struct keeper *k, uint16_t status, uint64_t bytes, bool repeat, int64_t since);
void figures_took(struct keeper *k, enum telemetry_stage stage, int64_t since);
void figures_scored(struct keeper *k, const struct instance *in, const float *logits, int64_t microseconds);
void figures_not_analysed(struct keeper *k, const struct instance *in, unsigned reason); /* enum image_reason */
void figures_failed(struct keeper *k, const struct instance *in);
void figures_sent(struct keeper *k, const struct courier *c, int status); /* -1: no answer */
void figures_delivered(struct keeper *k, int64_t study);
void figures_death(struct keeper *k, unsigned signal); /* 0: an exit code */

#endif
