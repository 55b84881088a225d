/* helper.h: a process that the keeper starts, times and starts again.
 *
 * The helper finds its channel at IPC_FD and nothing else of the keeper's.  It dies with the keeper
 * (PR_SET_PDEATHSIG), never gains privileges, reaches by name only what `reach` says, and its stderr is ours.  Restarts are throttled:
 * the pause doubles from 0.1 s to 30 s while a helper keeps dying young, and falls back once it has
 * lived for a minute.
 */
#ifndef CARZEROD_DAEMON_HELPER_H
#define CARZEROD_DAEMON_HELPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define HELPER_ARGS_MAX 12
#define HELPER_FDS_MAX 16
#define HELPER_READS_MAX 8
#define HELPER_PORTS_MAX 16

/* What a helper can reach by name besides itself and the system's files (landlock.h). */
struct helper_reach {
	bool limited;                        /* false: all that the keeper can */
	const char *reads[HELPER_READS_MAX]; /* the folders in which these lie, NULL at the end */
	const char *cache;                   /* a folder in which it makes files of its own; NULL: none */
	uint16_t binds[HELPER_PORTS_MAX], connects[HELPER_PORTS_MAX]; /* TCP ports, 0 at the end */
};

struct helper {
	const char *program;          /* file name in the libexec folder; also its name in the log */
	const char *argv[HELPER_ARGS_MAX]; /* arguments after the program's name, NULL at the end */
	struct helper_reach reach;
	pid_t pid;                    /* 0: not running */
	int sock;                     /* our end, non-blocking; -1 */
	bool ready;                   /* it has said so */
	int64_t started;              /* boot ms */
	int64_t not_before;           /* boot ms: throttle */
	unsigned pause_ms;            /* the throttle's present step */
	unsigned restarts;
};

/* Where our programs are. */
const char *helper_folder(void);

void helper_init(struct helper *h, const char *program);

/* Starts it with `fds` (may be none) at IPC_FD + 1 and following. */
int helper_start(struct helper *h, const int *fds, size_t n_fds, int64_t now, struct err *e);

/* To be called when it has been reaped or its channel broke: closes our end, kills what is left, sets the throttle. */
void helper_ended(struct helper *h, int64_t now);

/* Ends one that shall be started anew at once: no throttle, and not counted as a restart. */
void helper_restart(struct helper *h, int64_t now);

/* Runs it with -k -c `path`: it tries what it can of the configuration and ends.  Its exit code, or -1.  Waits for it. */
int helper_try(const char *program, const char *path);

/* Whether it may be started at `now`. */
bool helper_may_start(const struct helper *h, int64_t now);

#endif
