/* clock.h: two clocks and what each is for.
 *
 * Wall time (ms since 1970) goes into rows and reports.  Boot time (ms, counts suspend, never steps)
 * is for time-outs.  Order is never taken from either: rows are ordered by their id.
 */
#ifndef CARZEROD_BASE_CLOCK_H
#define CARZEROD_BASE_CLOCK_H

#include <stdint.h>

#define CLOCK_STAMP_MAX 32
#define CLOCK_EARLIEST_MS 1767225600000ll /* 2026-01-01: a clock before that is wrong, we were written later */

int64_t clock_wall_ms(void);
int64_t clock_boot_ms(void);

/* "2026-11-24T09:00:00.123Z" (UTC) into at least CLOCK_STAMP_MAX bytes. */
void clock_stamp(int64_t wall_ms, char *ret);

/* DICOM DA "YYYYMMDD", TM "HHMMSS.FFFFFF" and the offset "+HHMM" of local time at `wall_ms`.
 * ret_date holds 9 bytes, ret_time 14, ret_offset 6. */
void clock_dicom_local(int64_t wall_ms, char *ret_date, char *ret_time, char *ret_offset);

#endif
