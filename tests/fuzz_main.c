/* fuzz_main.c: replays a corpus through a fuzz target, for builds without libFuzzer.
 *
 *	fuzz_weights                       replays $srcdir/tests/corpus/weights
 *	fuzz_weights FILE|DIRECTORY ...
 *
 * Each fuzz_*.c is linked with this file into a test: every input that was ever found interesting runs
 * on every `make check`.  With clang -fsanitize=fuzzer, link without this file instead.  Prints one TAP
 * line an input; a target that dislikes an input aborts, and the line before says which one it was.
 */
#include <dirent.h>
#include <limits.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/fdio.h"
#include "base/mem.h"

#include "tests/tap.h"

#define INPUT_MAX (16 * 1024 * 1024)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void replay_file(const char *path)
{
	CLEANUP(free) void *data = NULL;
	struct err e = { "" };
	size_t n = 0;

	printf("# %s\n", path);
	fflush(stdout);
	if (!ok(read_path(path, INPUT_MAX, &data, &n, &e) == 0, "%s reads %s", path, e.text))
		return;
	ok(LLVMFuzzerTestOneInput(data, n) == 0, "%s", path);
}

static void replay(const char *path)
{
	char inside[PATH_MAX + NAME_MAX + 2];
	struct dirent **list;
	struct stat st;
	int n;

	if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode)) {
		replay_file(path);
		return;
	}
	n = scandir(path, &list, NULL, alphasort); /* sorted: a failure is found again at its number */
	ok(n > 2, "%s holds inputs", path);
	for (int i = 0; i < n; i++) {
		if (list[i]->d_name[0] != '.') {
			(void)snprintf(inside, sizeof(inside), "%.*s/%s", PATH_MAX, path, list[i]->d_name);
			replay_file(inside);
		}
		free(list[i]);
	}
	if (n >= 0)
		free(list);
}

/* fuzz_NAME has its corpus in tests/corpus/NAME. */
static void replay_own(const char *program)
{
	const char *top = getenv("srcdir"), *name = strstr(basename(program), "fuzz_");
	char path[PATH_MAX];

	if (name == NULL)
		plan_skip_all("the program's name tells no corpus: name files or directories");
	(void)snprintf(path, sizeof(path), "%s/tests/corpus/%s", top != NULL ? top : ".", name + strlen("fuzz_"));
	replay(path);
}

int main(int argc, char **argv)
{
	if (argc == 1)
		replay_own(argv[0]);
	for (int i = 1; i < argc; i++)
		replay(argv[i]);
	return done();
}
