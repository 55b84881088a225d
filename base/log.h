/* log.h: one line per event on stderr, `key=value`, with journald's <n> priority when the journal
 * reads us and a plain prefix when a person does.
 *
 * base/, store/, model/ and dicom/ never log above debug; daemon/ logs each event once and says
 * what it will do next.  Lines carry our own ids, AE titles, addresses, sizes and times.  They never
 * carry a patient's name, id, birth date or accession number, nor a UID of a study: those identify
 * people.  Foreign text passes str_quote() first.
 */
#ifndef CARZEROD_BASE_LOG_H
#define CARZEROD_BASE_LOG_H

#include <stdbool.h>

enum log_level { LOG_LEVEL_ERROR = 3, LOG_LEVEL_WARNING = 4, LOG_LEVEL_INFO = 6, LOG_LEVEL_DEBUG = 7 };

/* Exit codes, after sysexits(3); systemd's RestartPreventExitStatus=78 relies on the last. */
enum { FATAL_SOFTWARE = 70, FATAL_OS = 71, FATAL_IO = 74, FATAL_TEMPORARY = 75, FATAL_CONFIG = 78 };

/* `program` is kept by reference and becomes the prefix. */
void log_open(const char *program, enum log_level max);
void log_set_level(enum log_level max);
bool log_enabled(enum log_level level);
/* "error", "warning", "info" or "debug"; false when it is none of them. */
bool log_level_from_name(const char *name, enum log_level *ret);

void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* Logs at error level and ends the process at once: no handlers, no half-done clean-up. */
void fatal(int exit_code, const char *format, ...) __attribute__((noreturn, format(printf, 2, 3)));

#endif
