/* ctl.h: what the files of carzeroctl share.  Every command is a function that prints its answer, as text or
 * (ctl_as_json) as one JSON value, and returns the exit code; what it cannot do ends the program
 * through ctl_stop().  Of a patient nothing is printed but UIDs.
 */
#ifndef CARZEROD_DAEMON_CTL_H
#define CARZEROD_DAEMON_CTL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "store/store.h"

#include "daemon/config.h"

enum { CTL_GOOD = 0, CTL_ATTENTION = 1, CTL_CANNOT = 2, CTL_USAGE = 64 };

extern bool ctl_as_json;

void ctl_stop(int code, const char *format, ...) __attribute__((noreturn, format(printf, 2, 3)));
void ctl_print_json(json_t *j); /* takes it over */
const char *ctl_when(int64_t ms, char ret[32]); /* local time, "-" for never */
json_t *ctl_stamp(int64_t ms);                  /* UTC, null for never */
const char *ctl_age(int64_t ms, char ret[32]);
const char *ctl_rank(enum store_rank rank);     /* "urgent", "routine", "slow" */
struct store *ctl_open_store(const struct config *c);
void ctl_check(struct store *s, int r, const char *what);

json_t *ctl_ask(const struct config *c, const char *request); /* NULL when no keeper answers; errno says why */
json_t *ctl_ask_or_stop(const struct config *c, const char *request);
json_int_t ctl_number(json_t *j, const char *key);

/* ctl_why.c; `path`: the configuration file, for the lines that are named. */
int ctl_why(const struct config *c, const char *path, const char *study_uid);

/* ctl_live.c */
int ctl_hold(const struct config *c, const char *verb, const char *ae_title);
int ctl_release_all(const struct config *c);
int ctl_drain(const struct config *c); /* waits until it is done */
int ctl_top(const struct config *c, uint64_t times, int (*status)(const struct config *)); /* 0: for ever */
int ctl_config(const struct config *c, const char *path, const char *what);

/* ctl_keep.c */
int ctl_backup(const struct config *c);
int ctl_verify(const struct config *c);

/* ctl_selftest.c */
int ctl_selftest(const struct config *c, const char *path, const char *ae_title);

/* ctl_disktest.c */
int ctl_disktest(const struct config *c);

#endif
