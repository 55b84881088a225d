/* clock.c: see clock.h. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/failpoint.h"

static int64_t read_ms(clockid_t id)
{
	struct timespec ts;

	if (clock_gettime(id, &ts) < 0)
		abort(); /* both clocks exist on every Linux that we run on */
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int64_t clock_wall_ms(void)
{
	return read_ms(CLOCK_REALTIME) + failpoint_clock_ms(false);
}

int64_t clock_boot_ms(void)
{
	return read_ms(CLOCK_BOOTTIME) + failpoint_clock_ms(true);
}

static void split_ms(int64_t wall_ms, time_t *ret_seconds, int *ret_ms)
{
	int64_t s = wall_ms / 1000, ms = wall_ms % 1000;

	if (ms < 0) {
		ms += 1000;
		s--;
	}
	*ret_seconds = (time_t)s;
	*ret_ms = (int)ms;
}

void clock_stamp(int64_t wall_ms, char *ret)
{
	struct tm tm = { 0 };
	time_t seconds;
	int ms;

	split_ms(wall_ms, &seconds, &ms);
	(void)gmtime_r(&seconds, &tm); /* on overflow the zeroed tm is printed */
	(void)snprintf(ret, CLOCK_STAMP_MAX, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ",
		       (tm.tm_year + 1900) % 10000, (tm.tm_mon + 1) % 100, tm.tm_mday % 100,
		       tm.tm_hour % 100, tm.tm_min % 100, tm.tm_sec % 100, ms % 1000);
}

void clock_dicom_local(int64_t wall_ms, char *ret_date, char *ret_time, char *ret_offset)
{
	struct tm tm = { 0 };
	time_t seconds;
	long minutes;
	int ms;

	split_ms(wall_ms, &seconds, &ms);
	(void)localtime_r(&seconds, &tm);
	(void)snprintf(ret_date, 9, "%04u%02u%02u", (unsigned)(tm.tm_year + 1900) % 10000,
		       (unsigned)(tm.tm_mon + 1) % 100, (unsigned)tm.tm_mday % 100);
	(void)snprintf(ret_time, 14, "%02u%02u%02u.%03u000", (unsigned)tm.tm_hour % 100,
		       (unsigned)tm.tm_min % 100, (unsigned)tm.tm_sec % 100, (unsigned)ms % 1000);
	minutes = tm.tm_gmtoff / 60;
	(void)snprintf(ret_offset, 6, "%c%02u%02u", minutes < 0 ? '-' : '+',
		       (unsigned)(labs(minutes) / 60) % 100, (unsigned)labs(minutes) % 60);
}
