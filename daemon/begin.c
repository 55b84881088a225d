/* begin.c: see begin.h.  carzerod-receive and carzerod-image have options of their own and begin by themselves. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

#include "daemon/begin.h"

struct config *begin_helper(const char *program, int argc, char **argv, const char **ret_path)
{
	const char *path = CONFIG_DEFAULT_PATH;
	struct config *config;
	struct err e;
	int c;

	log_open(program, LOG_LEVEL_INFO);
	while ((c = getopt(argc, argv, "c:")) != -1) {
		if (c != 'c')
			fatal(FATAL_CONFIG, "started by carzerod(8), not by hand");
		path = optarg;
	}
	if (config_load_running(path, &config, &e) < 0)
		fatal(FATAL_CONFIG, "%s", e.text);
	log_set_level(config->log_level);
	if (fcntl(IPC_FD, F_SETFD, FD_CLOEXEC) < 0)
		fatal(FATAL_CONFIG, "no channel at descriptor %d: started by carzerod(8), not by hand", IPC_FD);
	if (ret_path != NULL)
		*ret_path = path;
	return config;
}

void begin_ready(void)
{
	union ipc_message m;

	ipc_begin(&m, IPC_READY, 0);
	if (ipc_send(IPC_FD, &m, NULL, 0) < 0)
		_exit(0);
}

void begin_work(enum ipc_type type, int idle_ms, union ipc_message *ret, int *ret_fds, size_t *ret_n)
{
	struct pollfd p = { .fd = IPC_FD, .events = POLLIN };
	int r;

	while ((r = poll(&p, 1, idle_ms)) < 0 && errno == EINTR)
		continue;
	if (r == 0)
		_exit(0);
	*ret_n = 0;
	r = ipc_receive(IPC_FD, IPC_KEEPER, ret, ret_fds, ret_n);
	if (r == 0)
		_exit(0);
	if (r < 0 || ret->h.type != type)
		fatal(FATAL_SOFTWARE, "channel: %s", r < 0 ? strerror(-r) : "not for us");
}
