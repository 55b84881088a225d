/* tool.h: the verbs of carzero-model, one function each.
 *
 * A verb gets its own argv (argv[0] is the verb), prints results on stdout and everything else on
 * stderr, and returns the exit code: 0 done, 1 it could not be done (one line says why), 64 the command
 * line is wrong (as sysexits(3) and the node's programs say).
 */
#ifndef CARZEROD_DAEMON_TOOL_H
#define CARZEROD_DAEMON_TOOL_H

#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>

#include "daemon/findings.h"
#include "daemon/tables.h"

enum { TOOL_DONE = 0, TOOL_FAILED = 1, TOOL_USAGE = 64 };

int tool_import(int argc, char **argv);
int tool_verify(int argc, char **argv);
int tool_info(int argc, char **argv);
int tool_prompts(int argc, char **argv);
int tool_score(int argc, char **argv);
int tool_eval(int argc, char **argv);
int tool_calibrate(int argc, char **argv);

/* The logits of an image list (one path a line, relative to the list's folder) for a findings list, as
 * `score` gives them by default.  Fails before the first image unless the list names `rows` of them, and at
 * the first image that cannot be scored.  Returns the exit code; *ret only when done. */
int tool_score_list(const char *verb, const char *dir, const char *findings, const char *images, size_t rows,
		    struct logit_table *ret);

/* "carzero-model: VERB: ..." on stderr; each returns its exit code. */
int tool_failed(const char *verb, const char *format, ...) __attribute__((format(printf, 2, 3)));
int tool_usage(const char *verb, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* getopt_long() with errors in our words: the option's value, -1 at the end, '?' after a message. */
int tool_option(const char *verb, int argc, char **argv, const struct option *options);
#define TOOL_SYNONYMS PKGSYSCONFDIR "/synonyms.yaml" /* unless --synonyms names another */
#define TOOL_THREADS_MAX 1024 /* of --threads */
#define TOOL_HELP 1 /* what { "help", no_argument, NULL, TOOL_HELP } gives */

#endif
