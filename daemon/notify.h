/* notify.h: what systemd is told and what it hands over.  All of it does nothing without systemd. */
#ifndef CARZEROD_DAEMON_NOTIFY_H
#define CARZEROD_DAEMON_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>

/* Listening sockets by socket activation: the first is descriptor 3; 0 without.
 * ret_tls says of each, at most max, whether its name in the unit is "tls" (FileDescriptorName=). */
unsigned notify_listen_fds(bool *ret_tls, unsigned max);

void notify_ready(void);
/* Between a SIGHUP and the next notify_ready(). */
void notify_reloading(void);
void notify_status(const char *format, ...) __attribute__((format(printf, 1, 2)));
void notify_watchdog(void);
void notify_stopping(void);
/* Start-up takes longer than the manager allows: so much more, please. */
void notify_extend(int64_t ms);

/* How often the watchdog wants to hear from us (a third of its period), ms; -1 when it does not. */
int64_t notify_watchdog_interval_ms(void);

#endif
