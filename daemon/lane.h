/* lane.h: the rules of `slow_lane`: which objects let others go before.  Private to the keeper.
 *
 * An image of an old study, and one that comes when its sender has sent more than its share of the hour.
 * Nothing here is kept longer than the node runs: a restart gives every sender its hour anew.
 */
#ifndef CARZEROD_DAEMON_LANE_H
#define CARZEROD_DAEMON_LANE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

#define LANE_SENDERS_MAX 64 /* calling AE titles that are counted; of more, those that were silent longest are forgotten */

struct lane_senders {
	struct lane_sender {
		char ae_title[AE_TITLE_MAX];
		int64_t level; /* images times 3600000; so much flows off in a ms as may come in an hour */
		int64_t at;    /* boot ms of that */
	} sender[LANE_SENDERS_MAX];
	size_t n;
};

/* Whether this Study Date (YYYYMMDD as a number; 0: none) lies more than so many days before now, by the local calendar;
 * days 0: no study is old. */
bool lane_is_old(uint32_t study_date, int64_t now, unsigned days);

/* Whether one more image of this sender is more than `per_hour` (0: any number is right).  An hour's worth may come at
 * once; then as many as flow off. */
bool lane_floods(struct lane_senders *s, const char *ae_title, unsigned per_hour, int64_t boot);
/* One has come. */
void lane_count(struct lane_senders *s, const char *ae_title, unsigned per_hour, int64_t boot);

#endif
