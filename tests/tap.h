/* tap.h: the whole test framework.  One check, one TAP line; a failure says "# file:line got X
 * expected Y" and the test goes on.  A test ends with `return done();`, which prints the plan.
 * `ok` returns its condition, so that a test can leave a case whose ground is gone.
 *
 * Lines go out unbuffered with one write each, so a forked child may check too, as long as the
 * parent counts: a child ends with _exit(tap_failed > 0) and the parent checks its status.
 */
#ifndef CARZEROD_TESTS_TAP_H
#define CARZEROD_TESTS_TAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned tap_count, tap_failed;

static inline __attribute__((format(printf, 2, 3))) bool tap_line(bool good, const char *format, ...)
{
	char name[512];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(name, sizeof(name), format, ap);
	va_end(ap);
	for (char *p = name; *p != '\0'; p++)
		if (*p == '#' || *p == '\n') /* would be a TAP directive or a new line */
			*p = ' ';
	tap_count++;
	tap_failed += !good;
	printf("%s %u - %s\n", good ? "ok" : "not ok", tap_count, name);
	fflush(stdout);
	return good;
}

static inline bool tap_int(const char *file, int line, long long got, long long want, bool good)
{
	if (!good)
		printf("# %s:%d got %lld expected %lld\n", file, line, got, want);
	fflush(stdout);
	return good;
}

static inline bool tap_str(const char *file, int line, const char *got, const char *want, bool good)
{
	if (!good)
		printf("# %s:%d got \"%s\" expected \"%s\"\n", file, line, got ? got : "(null)",
		       want ? want : "(null)");
	fflush(stdout);
	return good;
}

static inline bool tap_same(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

#define ok(cond, ...)                                                                              \
	__extension__({                                                                            \
		bool good_ = tap_line(cond, __VA_ARGS__);                                          \
		if (!good_)                                                                        \
			printf("# %s:%d got false expected %s\n", __FILE__, __LINE__, #cond);      \
		good_;                                                                             \
	})

#define is_int(got, want, ...)                                                                     \
	__extension__({                                                                            \
		long long got_ = (long long)(got), want_ = (long long)(want);                      \
		tap_int(__FILE__, __LINE__, got_, want_, tap_line(got_ == want_, __VA_ARGS__));    \
	})

#define is_str(got, want, ...)                                                                     \
	__extension__({                                                                            \
		const char *gots_ = (got), *wants_ = (want);                                       \
		tap_str(__FILE__, __LINE__, gots_, wants_,                                         \
			tap_line(tap_same(gots_, wants_), __VA_ARGS__));                           \
	})

/* The machine cannot run this test; says why and ends the program. */
static inline __attribute__((noreturn, unused)) void plan_skip_all(const char *reason)
{
	printf("1..0 # SKIP %s\n", reason);
	fflush(stdout);
	exit(0);
}

/* One check that this machine cannot make. */
static inline __attribute__((unused)) void skip(const char *reason)
{
	printf("ok %u # SKIP %s\n", ++tap_count, reason);
	fflush(stdout);
}

static inline int done(void)
{
	printf("1..%u\n", tap_count);
	if (tap_failed > 0)
		printf("# %u of %u failed\n", tap_failed, tap_count);
	fflush(stdout);
	return tap_failed > 0;
}

#endif
