/* lane.c: see lane.h.
 *
 * Never: logs or keeps a date; looks at anything but what it is given.
 */
#include <string.h>
#include <time.h>

#include "base/mem.h"

#include "daemon/lane.h"

#define HOUR_MS 3600000
#define DAY_MS (24ll * HOUR_MS)

bool lane_is_old(uint32_t study_date, int64_t now, unsigned days)
{
	time_t then = (time_t)((now - days * DAY_MS) / 1000);
	struct tm tm;

	if (days == 0 || study_date == 0 || localtime_r(&then, &tm) == NULL)
		return false;
	return (int64_t)study_date < (tm.tm_year + 1900ll) * 10000 + (tm.tm_mon + 1) * 100 + tm.tm_mday;
}

/* Its entry with what has flown off since; a new one in the place of the one that was silent longest. */
static struct lane_sender *find(struct lane_senders *s, const char *ae_title, unsigned per_hour, int64_t boot)
{
	struct lane_sender *e = NULL, *silent = &s->sender[0];
	int64_t flown;
	size_t i;

	for (i = 0; i < s->n && e == NULL; i++) {
		if (strcmp(s->sender[i].ae_title, ae_title) == 0)
			e = &s->sender[i];
		else if (s->sender[i].at < silent->at)
			silent = &s->sender[i];
	}
	if (e == NULL) {
		e = s->n < ARRAY_SIZE(s->sender) ? &s->sender[s->n++] : silent;
		(void)str_copy(e->ae_title, sizeof(e->ae_title), ae_title);
		e->level = 0;
	} else {
		flown = boot - e->at < HOUR_MS ? (boot - e->at) * per_hour : e->level;
		e->level = flown < e->level ? e->level - flown : 0;
	}
	e->at = boot;
	return e;
}

bool lane_floods(struct lane_senders *s, const char *ae_title, unsigned per_hour, int64_t boot)
{
	return per_hour > 0 && find(s, ae_title, per_hour, boot)->level + HOUR_MS > (int64_t)per_hour * HOUR_MS;
}

void lane_count(struct lane_senders *s, const char *ae_title, unsigned per_hour, int64_t boot)
{
	if (per_hour > 0)
		find(s, ae_title, per_hour, boot)->level += HOUR_MS;
}
