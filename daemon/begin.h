/* begin.h: how every program begins that the keeper starts with a channel and `-c FILE`.
 */
#ifndef CARZEROD_DAEMON_BEGIN_H
#define CARZEROD_DAEMON_BEGIN_H

#include <stddef.h>

#include "daemon/config.h"
#include "daemon/ipc.h"

/* Log, command line, the configuration that the keeper runs on, channel.  What is left of the command line starts at optind;
 * *ret_path (may be NULL): the file that was named.  Ends the program with FATAL_CONFIG when it was not the
 * keeper who started it. */
struct config *begin_helper(const char *program, int argc, char **argv, const char **ret_path);

/* The keeper learns that work can come.  Ends the program when it is gone. */
void begin_ready(void);

/* The next piece of work, which must be of `type`, with its descriptors.  Ends the program, well, when none has come for
 * `idle_ms` or the keeper is gone; with FATAL_SOFTWARE when the message is another. */
void begin_work(enum ipc_type type, int idle_ms, union ipc_message *ret, int *ret_fds /* [IPC_FDS_MAX] */, size_t *ret_n);

#endif
