/* begin.c: see begin.h.  carzerod-receive and carzerod-image have options of their own and begin by themselves. */
#include <fcntl.h>
#include <getopt.h>
#include <stddef.h>

#include "base/log.h"

#include "daemon/begin.h"
#include "daemon/ipc.h"

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
