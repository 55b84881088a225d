/* helper.c: see helper.h. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"

#include "daemon/helper.h"
#include "daemon/ipc.h"
#include "daemon/landlock.h"

#define HELPER_PAUSE_MIN_MS 100
#define HELPER_PAUSE_MAX_MS 30000
#define HELPER_SETTLED_MS 60000

void helper_init(struct helper *h, const char *program)
{
	memset(h, 0, sizeof(*h));
	h->program = program;
	h->sock = -1;
}

/* Tests run from the build tree; an installed node uses the folder fixed at build time. */
const char *helper_folder(void)
{
	const char *folder = getenv("CARZEROD_LIBEXECDIR");

	return folder != NULL ? folder : PKGLIBEXECDIR;
}

/* Between fork and exec: only async-signal-safe calls. */
static void become(const char *path, char *const argv[], const int *fds, size_t n_fds, int walls, pid_t keeper)
{
	int high[1 + HELPER_FDS_MAX];
	sigset_t none;
	size_t i;

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || landlock_enter(walls) < 0)
		_exit(FATAL_OS);
	/* first out of the way of the low numbers, then down to them: sources and targets overlap */
	for (i = 0; i < n_fds; i++) {
		high[i] = fcntl(fds[i], F_DUPFD, IPC_FD + (int)n_fds);
		if (high[i] < 0)
			_exit(FATAL_OS);
	}
	for (i = 0; i < n_fds; i++) {
		if (dup2(high[i], IPC_FD + (int)i) < 0)
			_exit(FATAL_OS);
	}
	if (syscall(SYS_close_range, IPC_FD + (unsigned)n_fds, ~0u, 0) < 0)
		_exit(FATAL_OS);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)signal(SIGPIPE, SIG_DFL);
	if (getppid() != keeper)
		_exit(FATAL_TEMPORARY); /* it died before the death signal was armed */
	execv(path, argv);
	_exit(FATAL_OS);
}

/* The rules between fork and exec, so that no thread of the helper is older than they are. */
static int make_walls(const struct helper *h, const char *path, int *ret, struct err *e)
{
	const struct helper_reach *reach = &h->reach;
	CLEANUP(close) int set = -1;
	size_t i;
	int r;

	*ret = -1;
	if (!reach->limited)
		return 0;
	r = landlock_new(LANDLOCK_HELPER, &set, e);
	if (r == 0)
		r = landlock_system(set, e);
	if (r == 0)
		r = landlock_path(set, path, LANDLOCK_PROGRAM, e);
	for (i = 0; r == 0 && i < HELPER_READS_MAX && reach->reads[i] != NULL; i++)
		r = landlock_folder_of(set, reach->reads[i], e);
	if (r == 0 && reach->cache != NULL)
		r = landlock_path(set, reach->cache, LANDLOCK_CACHE, e);
	for (i = 0; r == 0 && i < HELPER_PORTS_MAX && reach->binds[i] != 0; i++)
		r = landlock_port(set, false, reach->binds[i], e);
	for (i = 0; r == 0 && i < HELPER_PORTS_MAX && reach->connects[i] != 0; i++)
		r = landlock_port(set, true, reach->connects[i], e);
	if (r < 0)
		return r;
	*ret = TAKE_FD(set);
	return 0;
}

int helper_start(struct helper *h, const int *fds, size_t n_fds, int64_t now, struct err *e)
{
	char path[4096], name[64];
	char *argv[HELPER_ARGS_MAX + 1];
	int pair[2], give[1 + HELPER_FDS_MAX];
	CLEANUP(close) int walls = -1;
	pid_t pid, keeper = getpid();
	size_t n = 0, i;
	int r;

	if (n_fds > HELPER_FDS_MAX)
		return err_set(e, -E2BIG, "%s: more than %d listening sockets", h->program, HELPER_FDS_MAX);
	if (snprintf(path, sizeof(path), "%s/%s", helper_folder(), h->program) >= (int)sizeof(path))
		return err_set(e, -ENAMETOOLONG, "%s: path too long", h->program);
	if (access(path, X_OK) < 0)
		return err_set(e, -errno, "%s: %s", path, strerror(errno));
	(void)snprintf(name, sizeof(name), "%s", h->program);
	argv[n++] = name;
	for (i = 0; h->argv[i] != NULL; i++)
		argv[n++] = (char *)(uintptr_t)h->argv[i]; /* execv does not write to them */
	argv[n] = NULL;
	r = make_walls(h, path, &walls, e);
	if (r < 0)
		return r;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_set(e, -errno, "%s: socketpair: %s", h->program, strerror(errno));
	give[0] = pair[1];
	if (n_fds > 0)
		memcpy(give + 1, fds, n_fds * sizeof(*fds));
	pid = fork();
	if (pid == 0)
		become(path, argv, give, n_fds + 1, walls, keeper);
	(void)close(pair[1]);
	if (pid < 0) {
		(void)close(pair[0]);
		return err_set(e, -errno, "%s: fork: %s", h->program, strerror(errno));
	}
	(void)fcntl(pair[0], F_SETFL, O_NONBLOCK); /* our end: the keeper never waits for a helper */
	h->pid = pid;
	h->sock = pair[0];
	h->ready = false;
	h->started = now;
	return 0;
}

void helper_ended(struct helper *h, int64_t now)
{
	if (h->sock >= 0)
		(void)close(h->sock);
	h->sock = -1;
	if (h->pid > 0)
		(void)kill(h->pid, SIGKILL); /* reaped by the keeper's SIGCHLD turn */
	h->pid = 0;
	h->ready = false;
	h->restarts++;
	if (h->pause_ms == 0 || now - h->started > HELPER_SETTLED_MS)
		h->pause_ms = HELPER_PAUSE_MIN_MS;
	else if (h->pause_ms < HELPER_PAUSE_MAX_MS)
		h->pause_ms *= 2;
	if (h->pause_ms > HELPER_PAUSE_MAX_MS)
		h->pause_ms = HELPER_PAUSE_MAX_MS;
	h->not_before = now + h->pause_ms;
}

int helper_try(const char *program, const char *path)
{
	char name[4096];
	sigset_t none;
	int status = 0;
	pid_t pid;

	if (snprintf(name, sizeof(name), "%s/%s", helper_folder(), program) >= (int)sizeof(name))
		return -1;
	pid = fork();
	if (pid == 0) {
		(void)sigemptyset(&none);
		(void)sigprocmask(SIG_SETMASK, &none, NULL);
		(void)execl(name, program, "-k", "-c", path, (char *)NULL);
		fatal(FATAL_CONFIG, "%s: %s", name, strerror(errno));
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

void helper_restart(struct helper *h, int64_t now)
{
	if (h->pid <= 0)
		return;
	helper_ended(h, now);
	h->restarts--;
	h->pause_ms = 0;
	h->not_before = now;
}

bool helper_may_start(const struct helper *h, int64_t now)
{
	return h->pid == 0 && now >= h->not_before;
}
