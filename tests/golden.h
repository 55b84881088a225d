/* golden.h: a folder of inputs (NAME.yaml) and what must come of them (NAME.expect).
 *
 * Each input is one TAP line.  The test program, called with a FILE, prints what comes of it instead:
 *
 *	test_config tests/vectors/config/new-case.yaml >tests/vectors/config/new-case.expect
 *
 * Read the new file before you believe it.
 */
#ifndef CARZEROD_TESTS_GOLDEN_H
#define CARZEROD_TESTS_GOLDEN_H

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fdio.h"
#include "base/mem.h"

#include "tests/tap.h"

#define GOLDEN_BYTES_MAX (1024 * 1024)

/* What comes of a text, as a malloc'd string: "error: ..." or the values. */
typedef char *golden_dump(const char *where, const void *text, size_t n);

static inline const char *golden_srcdir(void)
{
	const char *dir = getenv("srcdir");

	return dir != NULL ? dir : ".";
}

/* A file below the source folder; the process ends when it is not there.  A NUL follows the text. */
static inline char *golden_read(const char *path, size_t *ret_n)
{
	char full[PATH_MAX];
	struct err e = { "" };
	void *text;
	size_t n;

	(void)snprintf(full, sizeof(full), "%s/%s", golden_srcdir(), path);
	if (read_path(full, GOLDEN_BYTES_MAX, &text, &n, &e) < 0) {
		printf("Bail out! %s\n", e.text);
		exit(1);
	}
	if (ret_n != NULL)
		*ret_n = n;
	return text;
}

static inline int golden_print(const char *path, golden_dump *dump)
{
	CLEANUP(free) void *text = NULL;
	CLEANUP(free) char *got = NULL;
	const char *slash = strrchr(path, '/');
	struct err e = { "" };
	size_t n;

	if (read_path(path, GOLDEN_BYTES_MAX, &text, &n, &e) < 0) {
		fprintf(stderr, "%s\n", e.text);
		return 1;
	}
	got = dump(slash != NULL ? slash + 1 : path, text, n);
	fputs(got, stdout);
	return 0;
}

/* The first line in which the two differ. */
static inline void golden_difference(const char *got, const char *want)
{
	while (*got != '\0' && *want != '\0') {
		size_t g = strcspn(got, "\n"), w = strcspn(want, "\n");

		if (g != w || memcmp(got, want, g) != 0)
			break;
		got += g + (got[g] != '\0');
		want += w + (want[w] != '\0');
	}
	printf("# got      %.*s\n# expected %.*s\n", (int)strcspn(got, "\n"), got, (int)strcspn(want, "\n"), want);
}

static inline int golden_is_yaml(const struct dirent *d)
{
	size_t n = strlen(d->d_name);

	return n > 5 && strcmp(d->d_name + n - 5, ".yaml") == 0;
}

static inline void golden_run(const char *folder, golden_dump *dump, int at_least)
{
	char full[PATH_MAX], path[512];
	struct dirent **list;
	int n, i;

	(void)snprintf(full, sizeof(full), "%s/%s", golden_srcdir(), folder);
	n = scandir(full, &list, golden_is_yaml, alphasort);
	ok(n >= at_least, "%s has %d cases", folder, n);
	for (i = 0; i < n; i++) {
		CLEANUP(free) char *text = NULL, *want = NULL, *got = NULL;
		char *name = list[i]->d_name;
		size_t n_text;

		(void)snprintf(path, sizeof(path), "%.200s/%s", folder, name);
		text = golden_read(path, &n_text);
		(void)snprintf(path, sizeof(path), "%.200s/%.*s.expect", folder, (int)strlen(name) - 5, name);
		want = golden_read(path, NULL);
		got = dump(name, text, n_text);
		if (!ok(strcmp(got, want) == 0, "%s/%s", folder, name))
			golden_difference(got, want);
		free(list[i]);
	}
	if (n >= 0)
		free(list);
}

#endif
