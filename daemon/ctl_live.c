/* ctl_live.c: commands that watch or steer the running node, and its configuration: hold, release, drain, top, config.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jansson.h>

#include "base/clock.h"
#include "base/mem.h"

#include "daemon/ctl.h"

#define PAUSE_US 500000
#define TOP_PAUSE_US 2000000
#define OUTPUT_MAX (1024 * 1024)

/* ---- hold, release, drain -------------------------------------------------------------------------------- */

int ctl_hold(const struct config *c, const char *verb, const char *ae_title)
{
	char request[64];
	json_t *j;

	(void)snprintf(request, sizeof(request), "%s %.20s", verb, ae_title);
	j = ctl_ask_or_stop(c, request);
	if (ctl_as_json)
		ctl_print_json(json_incref(j));
	else
		printf("%s is %s\n", ae_title,
		       json_is_true(json_object_get(j, "held")) ? "held: its deliveries wait until release" : "released");
	json_decref(j);
	return CTL_GOOD;
}

int ctl_release_all(const struct config *c)
{
	json_t *j = ctl_ask_or_stop(c, "release");

	if (ctl_as_json)
		ctl_print_json(json_incref(j));
	else
		printf("associations are accepted again\n");
	json_decref(j);
	return CTL_GOOD;
}

/* Deliveries that will go by themselves: not those to a destination that is held or away. */
static bool destinations_busy(json_t *live)
{
	json_t *item;
	const char *state;
	size_t i;

	json_array_foreach(json_object_get(live, "destinations"), i, item) {
		state = json_string_value(json_object_get(item, "state"));
		if (json_is_true(json_object_get(item, "available")) && strcmp(state, "held") != 0)
			return true;
	}
	return false;
}

static bool drained(const struct config *c, json_int_t associations, struct store_counts *ret)
{
	struct store *s = ctl_open_store(c);
	json_t *live = ctl_ask_or_stop(c, "status");
	uint64_t images, studies, deliveries;
	bool busy = destinations_busy(live);

	ctl_check(s, store_counts(s, ret), "the database");
	images = ret->instances[INSTANCE_READY] + ret->instances[INSTANCE_CLAIMED];
	studies = ret->studies[STUDY_COLLECTING] + ret->studies[STUDY_COMPOSING];
	deliveries = ret->deliveries[DELIVERY_QUEUED] + ret->deliveries[DELIVERY_SENDING];
	if (!ctl_as_json && isatty(STDOUT_FILENO)) {
		printf("\r\033[K%" JSON_INTEGER_FORMAT " associations open, %" PRIu64 " images, %" PRIu64 " studies, %" PRIu64
		       " deliveries to go", associations, images, studies, deliveries);
		(void)fflush(stdout);
	}
	store_close(s);
	json_decref(live);
	return associations == 0 && images == 0 && studies == 0 && (deliveries == 0 || !busy);
}

int ctl_drain(const struct config *c)
{
	struct store_counts n;
	uint64_t left;
	bool done;

	do {
		json_t *j = ctl_ask_or_stop(c, "drain"); /* again each time: a node that restarted accepts */
		json_int_t open = ctl_number(j, "associations");

		json_decref(j);
		done = drained(c, open, &n);
		if (!done)
			(void)usleep(PAUSE_US);
	} while (!done);
	left = n.deliveries[DELIVERY_QUEUED] + n.deliveries[DELIVERY_SENDING] + n.deliveries[DELIVERY_PARKED];
	if (ctl_as_json)
		ctl_print_json(json_pack("{s:b, s:I}", "drained", true, "deliveries_left", (json_int_t)left));
	else {
		printf("%sdrained: nobody is let in, nothing waits for analysis", isatty(STDOUT_FILENO) ? "\r\033[K" : "");
		if (left > 0)
			printf("; %" PRIu64 " deliveries stay for destinations that are away, held or refuse", left);
		printf("\n");
	}
	return CTL_GOOD;
}

/* ---- top --------------------------------------------------------------------------------------------------- */

int ctl_top(const struct config *c, uint64_t times, int (*status)(const struct config *))
{
	bool screen = !ctl_as_json && isatty(STDOUT_FILENO);
	uint64_t i;
	int r = CTL_GOOD;

	for (i = 0; times == 0 || i < times; i++) {
		if (i > 0)
			(void)usleep(TOP_PAUSE_US);
		if (screen)
			(void)fputs("\033[H\033[2J", stdout);
		r = status(c);
		(void)fflush(stdout);
	}
	return r;
}

/* ---- config ------------------------------------------------------------------------------------------------- */

/* Its exit code, and what it said on both outputs. */
static int run_program(const char *const argv[], char **ret_text)
{
	char *text = xcalloc(1, OUTPUT_MAX + 1);
	size_t n = 0;
	ssize_t got;
	int pair[2], status = 0;
	pid_t pid;

	if (pipe(pair) < 0 || (pid = fork()) < 0)
		ctl_stop(CTL_CANNOT, "%s: %s", argv[0], strerror(errno));
	if (pid == 0) {
		(void)dup2(pair[1], STDOUT_FILENO);
		(void)dup2(pair[1], STDERR_FILENO);
		(void)close(pair[0]);
		(void)execvp(argv[0], (char *const *)(uintptr_t)argv); /* execvp does not write to them */
		(void)dprintf(STDERR_FILENO, "%s: %s\n", argv[0], strerror(errno));
		_exit(127);
	}
	(void)close(pair[1]);
	while (n < OUTPUT_MAX && (got = read(pair[0], text + n, OUTPUT_MAX - n)) > 0)
		n += (size_t)got;
	(void)close(pair[0]);
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		ctl_stop(CTL_CANNOT, "%s ended in the middle", argv[0]);
	*ret_text = text;
	return WEXITSTATUS(status);
}

/* carzerod beside us: installed in one folder, built in one folder. */
static void carzerod_beside(char ret[4200])
{
	char self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	self[n > 0 ? n : 0] = '\0';
	slash = strrchr(self, '/');
	(void)snprintf(ret, 4200, "%.*scarzerod", slash != NULL ? (int)(slash - self) + 1 : 0, self);
}

static int config_check(const char *path)
{
	CLEANUP(free) char *text = NULL;
	char program[4200];
	int r;

	carzerod_beside(program);
	r = run_program((const char *const[]){ program, "--check-config", "-c", path, NULL }, &text);
	if (ctl_as_json)
		ctl_print_json(json_pack("{s:b, s:s}", "good", r == 0, "text", text));
	else
		(void)fputs(text, stdout);
	return r == 0 ? CTL_GOOD : CTL_CANNOT;
}

static void running_file(const struct config *c, const char *name, char ret[4200])
{
	(void)snprintf(ret, 4200, "%.4000s/running/%s", c->state_dir, name);
	if (access(ret, R_OK) < 0)
		ctl_stop(CTL_CANNOT, "%s: %s: no node has been started with this state_dir", ret, strerror(errno));
}

static int config_show(const struct config *c)
{
	CLEANUP(free) char *text = NULL;
	char running[4200];
	int r;

	running_file(c, CONFIG_RUNNING_FILE, running);
	r = run_program((const char *const[]){ "cat", running, NULL }, &text);
	if (ctl_as_json)
		ctl_print_json(json_pack("{s:s, s:s}", "file", running, "text", text));
	else
		(void)fputs(text, stdout);
	return r == 0 ? CTL_GOOD : CTL_CANNOT;
}

/* What a reload would change, in the configuration and in its findings list. */
static int config_diff(const struct config *c, const char *path)
{
	CLEANUP(free) char *first = NULL;
	CLEANUP(free) char *second = NULL;
	char running[2][4200];
	int r, s;

	running_file(c, CONFIG_RUNNING_FILE, running[0]);
	running_file(c, CONFIG_RUNNING_FINDINGS, running[1]);
	r = run_program((const char *const[]){ "diff", "-u", running[0], path, NULL }, &first);
	s = run_program((const char *const[]){ "diff", "-u", running[1], c->findings, NULL }, &second);
	if (ctl_as_json)
		ctl_print_json(json_pack("{s:b, s:s, s:s}", "same", r == 0 && s == 0, "configuration", first, "findings", second));
	else if (r == 0 && s == 0)
		printf("the node runs with what the files say\n");
	else
		printf("%s%s", first, second);
	return r > 1 || s > 1 ? CTL_CANNOT : r == 0 && s == 0 ? CTL_GOOD : CTL_ATTENTION;
}

int ctl_config(const struct config *c, const char *path, const char *what)
{
	if (strcmp(what, "check") == 0)
		return config_check(path);
	if (strcmp(what, "show") == 0)
		return config_show(c);
	if (strcmp(what, "diff") == 0)
		return config_diff(c, path);
	ctl_stop(CTL_USAGE, "config: check, show or diff");
}
