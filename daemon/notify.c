/* notify.c: the only file that knows systemd.  Failures are ignored: a node that cannot tell its
 * manager that it is ready is still a node, and the manager's own time-out will say so.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <systemd/sd-daemon.h>

#include "daemon/notify.h"

unsigned notify_listen_fds(bool *ret_tls, unsigned max)
{
	char **names = NULL;
	int i, n = sd_listen_fds_with_names(1, &names); /* 1: do not pass the variables on to our children */

	for (i = 0; i < n; i++) {
		if ((unsigned)i < max)
			ret_tls[i] = strcmp(names[i], "tls") == 0;
		free(names[i]);
	}
	free(names);
	return n > 0 ? (unsigned)n : 0;
}

void notify_ready(void)
{
	(void)sd_notify(0, "READY=1");
}

void notify_reloading(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now); /* systemd's clock, not ours */
	(void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%lld", (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000);
}

void notify_status(const char *format, ...)
{
	char line[256];
	va_list ap;
	int n = snprintf(line, sizeof(line), "STATUS=");

	va_start(ap, format);
	(void)vsnprintf(line + n, sizeof(line) - (size_t)n, format, ap);
	va_end(ap);
	(void)sd_notify(0, line);
}

void notify_watchdog(void)
{
	(void)sd_notify(0, "WATCHDOG=1");
}

void notify_extend(int64_t ms)
{
	(void)sd_notifyf(0, "EXTEND_TIMEOUT_USEC=%lld", (long long)ms * 1000);
}

void notify_stopping(void)
{
	(void)sd_notify(0, "STOPPING=1");
}

int64_t notify_watchdog_interval_ms(void)
{
	uint64_t us;

	if (sd_watchdog_enabled(0, &us) <= 0)
		return -1;
	return (int64_t)(us / 3000);
}
