/* test_landlock.c: what a walled process can reach by name, tried from inside.
 *
 * Every attempt is a child of its own that enters a set as helpers do between fork and exec.  What the
 * kernel's ABI does not know yet is checked to be left alone, so that this passes on any kernel that
 * Debian 12 or newer has.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"

#include "daemon/landlock.h"

#include "tests/tap.h"

#define FOREIGN "/tmp" /* where nobody of the node has anything to do */

static char own[64];   /* a folder that the set names LANDLOCK_OWN */
static char foreign_file[64];
static uint16_t port;  /* somebody listens there */
static int abi;

static int make_set(enum landlock_kind kind)
{
	struct err e = { "" };
	int set = -1;

	if (landlock_new(kind, &set, &e) < 0 || landlock_system(set, &e) < 0 ||
	    landlock_path(set, own, LANDLOCK_OWN, &e) < 0 || landlock_path(set, "/does/not/exist", LANDLOCK_READ, &e) < 0) {
		printf("# %s\n", e.text);
		return -1;
	}
	return set;
}

/* The errno that `what` ends with behind the walls, 0 when it succeeds, 255 when the walls do not stand. */
static int behind(int set, int (*what)(void))
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		(void)alarm(20);
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || landlock_enter(set) < 0)
			_exit(255);
		_exit(what() < 0 ? errno : 0);
	}
	(void)waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -status;
}

static int close_if(int fd)
{
	return fd < 0 ? -1 : close(fd);
}

static int open_in(const char *folder, const char *name, int flags)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	return open(path, flags | O_CLOEXEC, 0600);
}

static int read_system(void)
{
	return close_if(open("/etc/passwd", O_RDONLY | O_CLOEXEC));
}

static int write_system(void)
{
	return close_if(open("/etc/passwd", O_WRONLY | O_CLOEXEC));
}

static int list_foreign(void)
{
	return close_if(open(FOREIGN, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

static int create_foreign(void)
{
	return close_if(open_in(FOREIGN, "carzerod-landlock-hole", O_WRONLY | O_CREAT | O_EXCL));
}

static int truncate_foreign(void)
{
	return truncate(foreign_file, 0);
}

static int devices(void)
{
	return close_if(open("/dev/null", O_RDWR | O_CLOEXEC));
}

static int run_a_shell(void)
{
	return execl("/bin/sh", "sh", "-c", "exit 0", (char *)NULL);
}

/* All that a spool and a database do. */
static int live_in_own(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	char from[128], to[128];
	int fd;

	(void)snprintf(from, sizeof(from), "%s/a", own);
	(void)snprintf(to, sizeof(to), "%s/a/file", own);
	if (mkdir(from, 0700) < 0)
		return -1;
	(void)snprintf(from, sizeof(from), "%s/b", own);
	if (mkdir(from, 0700) < 0)
		return -1;
	fd = open(to, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, 100) < 0 || close(fd) < 0)
		return -1;
	(void)snprintf(from, sizeof(from), "%s/b/file", own);
	if (rename(to, from) < 0 || unlink(from) < 0)
		return -1;
	(void)snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/control", own);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || unlink(sa.sun_path) < 0)
		return -1;
	(void)snprintf(from, sizeof(from), "%s/a", own);
	(void)snprintf(to, sizeof(to), "%s/b", own);
	return rmdir(from) < 0 || rmdir(to) < 0 ? -1 : 0;
}

/* All that a cache does. */
static int live_in_cache(void)
{
	char from[128], to[128];
	int fd = open_in(own, "new", O_WRONLY | O_CREAT | O_EXCL);

	(void)snprintf(from, sizeof(from), "%s/new", own);
	(void)snprintf(to, sizeof(to), "%s/kept", own);
	if (fd < 0 || write(fd, "x", 1) != 1 || close(fd) < 0 || rename(from, to) < 0)
		return -1;
	return close_if(open_in(own, "kept", O_RDONLY)) < 0 ? -1 : unlink(to);
}

static int make_folder(void)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/folder", own);
	return mkdir(path, 0700);
}

static int make_device(void)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/null", own);
	return mknod(path, S_IFCHR | 0600, 0x103);
}

static int connect_there(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return connect(fd, (struct sockaddr *)&sa, sizeof(sa));
}

static int bind_there(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons((uint16_t)(port + 1)) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	/* somebody else may be there, which is not what is asked */
	return bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 && errno != EADDRINUSE ? -1 : 0;
}

static int signal_parent(void)
{
	return kill(getppid(), 0);
}

static int signal_child(void)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		(void)pause();
		_exit(0);
	}
	if (pid < 0 || kill(pid, SIGKILL) < 0)
		return -1;
	return waitpid(pid, &status, 0) == pid ? 0 : -1;
}

static int pipe_to_thread[2], pipe_from_thread[2];

static void *open_later(void *arg)
{
	char byte = 0;
	int fd;

	(void)arg;
	if (read(pipe_to_thread[0], &byte, 1) != 1)
		return NULL;
	fd = open(FOREIGN, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	byte = fd < 0 ? 'n' : 'y';
	(void)!write(pipe_from_thread[1], &byte, 1);
	return NULL;
}

/* Why the walls come before exec: a thread that is older than they are is not bound by them. */
static void test_older_thread(void)
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		pthread_t t;
		char byte = '?';

		(void)alarm(20);
		if (pipe(pipe_to_thread) < 0 || pipe(pipe_from_thread) < 0 || pthread_create(&t, NULL, open_later, NULL) != 0 ||
		    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || landlock_enter(make_set(LANDLOCK_HELPER)) < 0 ||
		    list_foreign() == 0)
			_exit(1);
		if (write(pipe_to_thread[1], "x", 1) != 1 || read(pipe_from_thread[0], &byte, 1) != 1)
			_exit(2);
		_exit(byte == 'y' ? 0 : 3);
	}
	(void)waitpid(pid, &status, 0);
	is_int(status, 0, "a thread that is older than the walls opens what it likes: so they come between fork and exec");
}

static void test_kind(enum landlock_kind kind, const char *name)
{
	int set = make_set(kind), with_port = make_set(kind);
	bool net = kind == LANDLOCK_HELPER && abi >= 4, scope = kind == LANDLOCK_HELPER && abi >= 6;
	struct err e;

	if (!ok(set >= 0 && with_port >= 0, "%s: a set", name))
		return;
	is_int(behind(set, read_system), 0, "%s: /etc can be read", name);
	is_int(behind(set, write_system), EACCES, "%s: not written", name);
	is_int(behind(set, list_foreign), EACCES, "%s: " FOREIGN " cannot be listed", name);
	is_int(behind(set, create_foreign), EACCES, "%s: nor written", name);
	if (abi >= 3)
		is_int(behind(set, truncate_foreign), EACCES, "%s: nothing is truncated", name);
	is_int(behind(set, devices), 0, "%s: /dev/null is a device", name);
	is_int(behind(set, run_a_shell), EACCES, "%s: no shell is started", name);
	is_int(behind(set, live_in_own), 0, "%s: own folder: create, rename between folders, bind a socket, remove", name);
	is_int(behind(set, make_device), EACCES, "%s: but no device there", name);
	is_int(behind(set, connect_there), net ? EACCES : 0, "%s: connect to a port", name);
	is_int(behind(set, bind_there), net ? EACCES : 0, "%s: bind one", name);
	if (kind == LANDLOCK_HELPER) {
		ok(landlock_port(with_port, true, port, &e) == 0 &&
		   landlock_port(with_port, false, (uint16_t)(port + 1), &e) == 0, "%s: rules for two ports", name);
		is_int(behind(with_port, connect_there), 0, "%s: then connect to that one", name);
		is_int(behind(with_port, bind_there), 0, "%s: and bind the other", name);
	}
	is_int(behind(set, signal_parent), scope ? EPERM : 0, "%s: signal a process outside", name);
	is_int(behind(set, signal_child), 0, "%s: signal one's own child", name);
	is_int(behind(-1, create_foreign) == 0 && unlink(FOREIGN "/carzerod-landlock-hole") == 0 ? 0 : 1, 0,
	       "%s: no set, no walls", name);
	(void)close(set);
	(void)close(with_port);
}

static void test_cache(void)
{
	struct err e = { "" };
	int set = -1;

	if (!ok(landlock_new(LANDLOCK_HELPER, &set, &e) == 0 && landlock_system(set, &e) == 0 &&
		landlock_path(set, own, LANDLOCK_CACHE, &e) == 0, "a set with a cache %s", e.text))
		return;
	is_int(behind(set, live_in_cache), 0, "cache: create, write, rename, read, remove");
	is_int(behind(set, make_folder), EACCES, "cache: no folder is made there");
	is_int(behind(set, make_device), EACCES, "cache: no device");
	is_int(behind(set, create_foreign), EACCES, "cache: nothing elsewhere");
	(void)close(set);
}

int main(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET };
	socklen_t n = sizeof(sa);
	int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	abi = landlock_abi();
	if (abi < 2)
		plan_skip_all("this kernel has no Landlock of ABI 2 or newer");
	printf("# Landlock ABI %d\n", abi);
	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	(void)snprintf(foreign_file, sizeof(foreign_file), FOREIGN "/carzerod-landlock-XXXXXX");
	(void)close(mkstemp(foreign_file));
	(void)snprintf(own, sizeof(own), "/tmp/carzerod-landlock-XXXXXX");
	if (!ok(mkdtemp(own) != NULL && bind(listening, (struct sockaddr *)&sa, n) == 0 && listen(listening, 8) == 0 &&
		getsockname(listening, (struct sockaddr *)&sa, &n) == 0, "a folder and a port"))
		return done();
	port = ntohs(sa.sin_port);
	test_kind(LANDLOCK_FILES, "files");
	test_kind(LANDLOCK_HELPER, "helper");
	test_cache();
	test_older_thread();
	(void)close(listening);
	(void)rmdir(own);
	(void)unlink(foreign_file);
	return done();
}
