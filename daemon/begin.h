/* begin.h: how every program begins that the keeper starts with a channel and `-c FILE`.
 */
#ifndef CARZEROD_DAEMON_BEGIN_H
#define CARZEROD_DAEMON_BEGIN_H

#include "daemon/config.h"

/* Log, command line, the configuration that the keeper runs on, channel.  What is left of the command line starts at optind;
 * *ret_path (may be NULL): the file that was named.  Ends the program with FATAL_CONFIG when it was not the
 * keeper who started it. */
struct config *begin_helper(const char *program, int argc, char **argv, const char **ret_path);

#endif
