/* log.c: see log.h.
 *
 * A line is composed in one buffer and written with one write(2), so that lines of several
 * processes on one stderr do not mix.  Control characters that slipped through a format are
 * replaced: a peer must not be able to start a log line of its own.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#define LOG_LINE_MAX 2048

static const char *log_program = "carzerod";
static enum log_level log_max = LOG_LEVEL_INFO;
static bool log_journal;

/* systemd names the device and inode of the journal's socket; a redirected stderr differs. */
static bool stderr_is_journal(void)
{
	const char *text = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	if (text == NULL || sscanf(text, "%llu:%llu", &dev, &ino) != 2)
		return false;
	if (fstat(STDERR_FILENO, &st) < 0)
		return false;
	return st.st_dev == (dev_t)dev && st.st_ino == (ino_t)ino;
}

void log_open(const char *program, enum log_level max)
{
	log_program = program;
	log_max = max;
	tzset(); /* time stamps load the zone file at first use: a sandboxed process could not */
	log_journal = stderr_is_journal();
}

void log_set_level(enum log_level max)
{
	log_max = max;
}

bool log_enabled(enum log_level level)
{
	return level <= log_max;
}

static const struct {
	const char *name;
	enum log_level level;
} log_levels[] = {
	{ "error", LOG_LEVEL_ERROR },
	{ "warning", LOG_LEVEL_WARNING },
	{ "info", LOG_LEVEL_INFO },
	{ "debug", LOG_LEVEL_DEBUG },
};

bool log_level_from_name(const char *name, enum log_level *ret)
{
	size_t i;

	for (i = 0; i < sizeof(log_levels) / sizeof(log_levels[0]); i++) {
		if (strcmp(name, log_levels[i].name) == 0) {
			*ret = log_levels[i].level;
			return true;
		}
	}
	return false;
}

static const char *level_name(enum log_level level)
{
	size_t i;

	for (i = 0; i < sizeof(log_levels) / sizeof(log_levels[0]); i++) {
		if (log_levels[i].level == level)
			return log_levels[i].name;
	}
	return "?";
}

static void log_write(enum log_level level, const char *format, va_list ap)
{
	char line[LOG_LINE_MAX];
	size_t n, i, start;
	ssize_t written;
	int r;

	if (log_journal)
		r = snprintf(line, sizeof(line), "<%d>%s: ", (int)level, log_program);
	else {
		char stamp[CLOCK_STAMP_MAX];

		clock_stamp(clock_wall_ms(), stamp);
		r = snprintf(line, sizeof(line), "%s %s[%ld] %s: ", stamp, log_program,
			     (long)getpid(), level_name(level));
	}
	if (r < 0)
		return;
	n = start = (size_t)r;
	r = vsnprintf(line + n, sizeof(line) - n - 1, format, ap);
	if (r < 0)
		return;
	n += (size_t)r < sizeof(line) - n - 2 ? (size_t)r : sizeof(line) - n - 2;
	for (i = start; i < n; i++) {
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = '?';
	}
	line[n++] = '\n';
	written = write(STDERR_FILENO, line, n);
	(void)written; /* nowhere left to report a failing stderr */
}

void log_line(enum log_level level, const char *format, ...)
{
	va_list ap;

	if (!log_enabled(level))
		return;
	va_start(ap, format);
	log_write(level, format, ap);
	va_end(ap);
}

void fatal(int exit_code, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	log_write(LOG_LEVEL_ERROR, format, ap);
	va_end(ap);
	_exit(exit_code);
}
