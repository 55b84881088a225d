/* failpoint.h: places where a test may make a process fail, die, wait, or leave something out.
 *
 *	failpoint("intake.renamed");                             a moment between two steps
 *	r = failpoint_error("spool.create");                     0, or the error that a test asks for
 *	if (!failpoint_skips("scp.fsync") && fsync(fd) < 0)      a step that a test may take away
 *
 * Without --enable-failpoints all of them are nothing: no code, no names in the program.  With it, a
 * program started with CARZEROD_FAILPOINTS=ID attaches that shared memory (shmat(2)) of the test's,
 * as every other process of the node does.  The test arms places in it while the node runs; every
 * place that is passed enters itself, so that a test can go through all of them; and two numbers in it
 * move the two clocks of clock.h.  A passage makes no system call, so it works behind every seccomp filter.
 *
 * failpoint_about() says which thing it is about, by a digest: an arm with a digest fires only there.
 */
#ifndef CARZEROD_BASE_FAILPOINT_H
#define CARZEROD_BASE_FAILPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifdef WITH_FAILPOINTS

#define FAILPOINT_MAGIC 0x315054504c494146ull /* "FAILPTP1" */
#define FAILPOINT_PLACES 256
#define FAILPOINT_NAME_MAX 40
#define FAILPOINT_SKIP 1 /* what failpoint_pass() returns for FAILPOINT_DO_SKIP */

enum failpoint_action {
	FAILPOINT_COUNT = 0, /* only counted */
	FAILPOINT_FAIL,      /* returns -argument */
	FAILPOINT_DO_SKIP,   /* the step is left out */
	FAILPOINT_DELAY,     /* argument ms, busy: no system call */
	FAILPOINT_CRASH,     /* SIGSEGV */
	FAILPOINT_HANG,      /* for ever, busy; `hit` tells the test, which kills whom it wants */
};

enum failpoint_state { FAILPOINT_FREE = 0, FAILPOINT_BEING_WRITTEN, FAILPOINT_SET };

struct failpoint_place {
	uint32_t state; /* enum failpoint_state */
	uint32_t action;
	int32_t argument;
	uint32_t at;     /* fires at this passage only; 0: at every one */
	uint32_t passed; /* passages of all processes; of those about `digest` when there is one */
	uint32_t hit;    /* how often it fired */
	char name[FAILPOINT_NAME_MAX];
	uint32_t about;  /* whether `digest` counts */
	uint8_t digest[DIGEST_SIZE];
};

struct failpoints { /* what is shared */
	uint64_t magic;
	int64_t wall_ms, boot_ms; /* added to the clocks */
	struct failpoint_place place[FAILPOINT_PLACES];
};

/* 0, a negative errno, or FAILPOINT_SKIP. */
int failpoint_pass(const char *name, const uint8_t *digest);
int64_t failpoint_clock_ms(bool boot);

#define failpoint(name) ((void)failpoint_pass(name, NULL))
#define failpoint_about(name, digest) ((void)failpoint_pass(name, digest))
#define failpoint_error(name) failpoint_pass(name, NULL)
#define failpoint_skips(name) (failpoint_pass(name, NULL) == FAILPOINT_SKIP)

#else

#define failpoint(name) ((void)0)
#define failpoint_about(name, digest) ((void)0)
#define failpoint_error(name) 0
#define failpoint_skips(name) false
#define failpoint_clock_ms(boot) 0

#endif

#ifdef __cplusplus
}
#endif
#endif
