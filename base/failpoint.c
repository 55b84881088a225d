/* failpoint.c: see failpoint.h.  Without --enable-failpoints this file is empty.
 *
 * The table is attached before main(), because sandboxed processes could not do it when they first
 * pass a place; and it is no file, because some of them may open none.  Several processes enter places at one time, and any of them may be killed in the middle:
 * a place is taken by one compare-and-swap, and one whose writer died stays taken and unused.
 */
#include "base/failpoint.h"

#ifdef WITH_FAILPOINTS

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/shm.h>
#include <time.h>

static struct failpoints *points; /* NULL: not under test */

static void attach(void) __attribute__((constructor));
static void attach(void)
{
	const char *id = getenv("CARZEROD_FAILPOINTS");
	struct failpoints *p;

	if (id == NULL)
		return;
	p = shmat((int)strtol(id, NULL, 10), NULL, 0);
	if ((intptr_t)p == -1 || p->magic != FAILPOINT_MAGIC)
		abort(); /* a test that arms nothing must not pass */
	points = p;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void hang(void) __attribute__((noreturn));
static void hang(void)
{
	static volatile unsigned turns;

	for (;;)
		turns++;
}

/* A write to a page that never exists: raise() would be a system call. */
static void crash(void)
{
	volatile uintptr_t nowhere = 64;

	*(volatile int *)nowhere = 0;
}

static int fire(struct failpoint_place *p)
{
	int64_t until;

	(void)__atomic_add_fetch(&p->hit, 1, __ATOMIC_SEQ_CST);
	switch ((enum failpoint_action)p->action) {
	case FAILPOINT_COUNT:
		break;
	case FAILPOINT_FAIL:
		return -p->argument;
	case FAILPOINT_DO_SKIP:
		return FAILPOINT_SKIP;
	case FAILPOINT_DELAY:
		for (until = now_ms() + p->argument; now_ms() < until;)
			continue;
		break;
	case FAILPOINT_CRASH:
		crash();
		break;
	case FAILPOINT_HANG:
		hang();
	}
	return 0;
}

/* A place that nobody armed is entered under its name, to be counted. */
static void enter(const char *name)
{
	for (unsigned i = 0; i < FAILPOINT_PLACES; i++) {
		struct failpoint_place *p = &points->place[i];
		uint32_t unused = FAILPOINT_FREE;

		if (!__atomic_compare_exchange_n(&p->state, &unused, FAILPOINT_BEING_WRITTEN, false, __ATOMIC_SEQ_CST,
						 __ATOMIC_SEQ_CST))
			continue;
		(void)snprintf(p->name, sizeof(p->name), "%s", name);
		p->passed = 1;
		__atomic_store_n(&p->state, FAILPOINT_SET, __ATOMIC_SEQ_CST);
		return;
	}
	abort(); /* more places than FAILPOINT_PLACES */
}

int failpoint_pass(const char *name, const uint8_t *digest)
{
	bool known = false;
	int r = 0;

	if (points == NULL)
		return 0;
	for (unsigned i = 0; i < FAILPOINT_PLACES; i++) {
		struct failpoint_place *p = &points->place[i];
		uint32_t nth;

		if (__atomic_load_n(&p->state, __ATOMIC_SEQ_CST) != FAILPOINT_SET || strcmp(p->name, name) != 0)
			continue;
		known |= !p->about;
		if (p->about && (digest == NULL || memcmp(p->digest, digest, DIGEST_SIZE) != 0))
			continue;
		nth = __atomic_add_fetch(&p->passed, 1, __ATOMIC_SEQ_CST);
		if (p->action != FAILPOINT_COUNT && (p->at == 0 || p->at == nth))
			r = fire(p);
	}
	if (!known)
		enter(name);
	return r;
}

int64_t failpoint_clock_ms(bool boot)
{
	if (points == NULL)
		return 0;
	return __atomic_load_n(boot ? &points->boot_ms : &points->wall_ms, __ATOMIC_SEQ_CST);
}

#else

typedef int failpoint_nothing; /* ISO C forbids an empty translation unit */

#endif
