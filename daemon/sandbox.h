/* sandbox.h: what a worker can still do once it has met foreign bytes.
 *
 * Each role has an allow-list of system calls.  A call outside it ends the process with
 * SANDBOX_EXIT after one line on stderr that names the process and the call's number.  After
 * sandbox_enter() no role can write to a file that it does not hold, run a program, trace another
 * process or make memory executable; and none can do what its comment does not say.  Roles nest: a
 * parent's filter lets its children enter a narrower one.
 *
 * Built with --without-sandbox (sanitizers need calls of their own) sandbox_enter() only sets
 * no_new_privs, and every program says so at start.
 */
#ifndef CARZEROD_DAEMON_SANDBOX_H
#define CARZEROD_DAEMON_SANDBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define SANDBOX_EXIT 99

enum sandbox_role {
	SANDBOX_LISTENER,    /* accept, fork children, read files that Landlock leaves (renewed certificates) */
	SANDBOX_DISPATCHER,  /* fork children, each with a channel; no network, no files */
	SANDBOX_ASSOCIATION, /* one connected socket, the channel, files that the keeper hands over */
	SANDBOX_IMAGE,       /* the job's descriptors and the channel */
	SANDBOX_EXPORT,      /* a listening socket and what it accepts; a page of memory, read-only */
	SANDBOX_INFER,       /* the job's descriptors and the channel; BLAS threads exist already */
	SANDBOX_SEND,        /* the channel, descriptors of objects to send, TCP connections of its own */
	SANDBOX_ROLE_COUNT
};

/* Makes the role's filter, so that a child only has to enter it: that costs a third of a millisecond. */
int sandbox_prepare(enum sandbox_role role, struct err *e);
/* For all threads of the process, for good.  A role that starts no process also gets no more of them by
 * RLIMIT_NPROC. */
int sandbox_enter(enum sandbox_role role, struct err *e);
bool sandbox_built(void);
/* For a log line about a process that ended with this code: "" or why it did. */
const char *sandbox_code_text(int exit_code);

/* Resource limits of a worker that meets foreign bytes: address space, CPU time, no core file,
 * at most `files` descriptors, files of at most `file_size` bytes (a write beyond fails with EFBIG).
 * 0 leaves a limit alone. */
int sandbox_limit(uint64_t address_space, unsigned cpu_seconds, unsigned files, uint64_t file_size, struct err *e);

#endif
