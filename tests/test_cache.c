/* test_cache.c: pools, their files, the folder of them, and a model that starts from it.
 *
 * What is damaged must be found wherever the damage is; what was made for another machine, program or
 * file must not be taken; and whatever the cache does, the scores are the same to the last bit.
 */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/fdio.h"
#include "base/mem.h"

#include "model/cache.h"
#include "model/kernels.h"
#include "model/model.h"

#include "tests/tap.h"
#include "tools/bundle/untrained.h"

#define PATH 320
#define PROMPTS 3
#define MANY MODEL_PROMPTS_MAX

static char scratch[] = "/tmp/carzerod-test-cache-XXXXXX", folder[64], bundle[64];
static const uint8_t key[DIGEST_SIZE] = { 1, 2, 3 };

/* ---- files ---- */

/* How many files of the cache end so; one of them goes to ret. */
static unsigned files(const char *end, char ret[PATH])
{
	DIR *d = opendir(folder);
	struct dirent *entry;
	unsigned n = 0;

	while (d != NULL && (entry = readdir(d)) != NULL) {
		size_t length = strlen(entry->d_name), tail = strlen(end);

		if (entry->d_name[0] == '.' || length < tail || strcmp(entry->d_name + length - tail, end) != 0)
			continue;
		(void)snprintf(ret, PATH, "%s/%.200s", folder, entry->d_name);
		n++;
	}
	if (d != NULL)
		(void)closedir(d);
	return n;
}

static void empty(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *entry;

	while (d != NULL && (entry = readdir(d)) != NULL)
		if (entry->d_name[0] != '.')
			(void)unlinkat(dirfd(d), entry->d_name, 0);
	ok(d != NULL && closedir(d) == 0, "%s is emptied", dir);
}

static void flip(const char *path, off_t at)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	uint8_t byte = 0;

	if (fd < 0 || pread_full(fd, &byte, 1, at) < 0)
		return (void)ok(false, "%s has a byte %lld", path, (long long)at);
	byte ^= 0x10;
	ok(pwrite_full(fd, &byte, 1, at) == 0 && close(fd) == 0, "byte %lld is changed", (long long)at);
}

/* ---- pools ---- */

static struct pool *make_pool(void)
{
	static const float four[] = { 1, 2, 3, 4 };
	const float *table = four;
	struct pool *p = pool_new();
	uint8_t *a = pool_take(p, 100, 7), *b = pool_take(p, 33 << 20, 8);

	ok(a != NULL && b != NULL && !pool_filled(p), "two blocks, one larger than a chunk");
	ok((uintptr_t)a % POOL_ALIGNMENT == 0 && (uintptr_t)b % POOL_ALIGNMENT == 0, "aligned");
	ok(a[99] == 0 && b[(33 << 20) - 1] == 0, "zeroed");
	memset(a, 'a', 100);
	memset(b, 'b', 33 << 20);
	ok(pool_keep(p, &table, 4) && table != four && memcmp(table, four, sizeof(four)) == 0, "a table is copied");
	ok(pool_whole(p), "whole");
	return p;
}

static void check_filled(int fd)
{
	const float zero[4] = { 0 }, *table = zero;
	struct err e = { "" };
	struct pool *p;
	uint64_t tag;
	uint8_t *a;
	size_t n;

	if (!ok(pool_map(fd, key, CACHE_FILE_MAX, "FILE", &p, &e) == 0 && pool_filled(p), "the file is mapped %s", e.text))
		return;
	a = pool_take(p, 100, 7);
	ok(a != NULL && a[0] == 'a' && a[99] == 'a' && (uintptr_t)a % POOL_ALIGNMENT == 0, "the first block");
	ok(!pool_whole(p), "not whole before all is taken");
	a = pool_take(p, 33 << 20, 8);
	ok(a != NULL && a[0] == 'b' && a[(33 << 20) - 1] == 'b', "the second");
	ok(pool_keep(p, &table, 4) && table[0] == 1 && table[3] == 4, "the table");
	ok(pool_whole(p), "whole");
	ok(pool_take(p, 1, 0) == NULL && !pool_whole(p), "nothing behind it");
	pool_free(p);

	is_int(pool_map(fd, key, CACHE_FILE_MAX, "FILE", &p, &e), 0, "again");
	ok(pool_take(p, 100, 9) == NULL, "another tag is refused");
	ok(pool_take(p, 100, 7) == NULL && !pool_whole(p), "and so is everything after");
	pool_free(p);
	is_int(pool_map(fd, key, CACHE_FILE_MAX, "FILE", &p, &e), 0, "again");
	ok(pool_take(p, 101, 7) == NULL, "another size too");
	pool_free(p);
	is_int(pool_map(fd, key, CACHE_FILE_MAX, "FILE", &p, &e), 0, "again");
	ok(pool_next(p, &tag, &n) != NULL && tag == 7 && n == 100, "whatever comes next: the first");
	ok(pool_next(p, &tag, &n) != NULL && tag == 8 && n == 33 << 20 && pool_next(p, &tag, &n) != NULL, "the others");
	ok(pool_next(p, &tag, &n) == NULL, "and no more");
	pool_free(p);
}

static void test_pool(void)
{
	static const uint8_t other[DIGEST_SIZE] = { 1, 2, 4 };
	struct pool *p = make_pool(), *q;
	CLEANUP(close) int fd = fd_memory("pool");
	struct err e = { "" };
	off_t size, places[6];

	ok(fd >= 0 && pool_write(p, fd, key) == 0, "written");
	size = lseek(fd, 0, SEEK_END);
	is_int((intmax_t)pool_file_size(p), size, "as long as it said");
	pool_free(p);
	check_filled(fd);
	is_int(pool_map(fd, other, CACHE_FILE_MAX, "FILE", &q, &e), -EBADMSG, "another key: %s", e.text);
	is_int(pool_map(fd, key, (uint64_t)size - 1, "FILE", &q, &e), -E2BIG, "over the limit: %s", e.text);

	memcpy(places, (const off_t[]){ 0, 8, 20, 70, size / 2, size - 20 }, sizeof(places));
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		uint8_t byte;

		(void)pread_full(fd, &byte, 1, places[i]);
		byte ^= 1;
		(void)pwrite_full(fd, &byte, 1, places[i]);
		is_int(pool_map(fd, key, CACHE_FILE_MAX, "FILE", &q, &e), -EBADMSG, "a bit at %lld: %s", (long long)places[i], e.text);
		byte ^= 1;
		(void)pwrite_full(fd, &byte, 1, places[i]);
	}
	is_int(pool_map(fd, key, CACHE_FILE_MAX, "FILE", &q, &e), 0, "and as it was");
	pool_free(q);
	for (off_t cut = 1; cut < size; cut = cut * 3 + 64) {
		is_int(ftruncate(fd, size - cut), 0, "cut by %lld", (long long)cut);
		is_int(pool_map(fd, key, CACHE_FILE_MAX, "FILE", &q, &e), -EBADMSG, "%s", e.text);
	}
	is_int(ftruncate(fd, 0), 0, "nothing left");
	is_int(pool_map(fd, key, CACHE_FILE_MAX, "FILE", &q, &e), -EBADMSG, "%s", e.text);
}

/* ---- the folder ---- */

static void test_folder(void)
{
	struct pool *p = pool_new(), *q;
	struct err e = { "" };
	char path[PATH], unfinished[PATH + 16];
	uint8_t k[DIGEST_SIZE] = { 0 };
	struct cache *c, *full;

	ok(pool_take(p, 1000, 1) != NULL, "something to keep");
	is_int(cache_open("/nonexistent/folder", 0, &c, &e), -ENOENT, "no folder: %s", e.text);
	if (!ok(cache_open(folder, 0, &c, &e) == 0, "the folder opens %s", e.text))
		return;
	is_int(cache_get(c, "thing", key, &q, &e), -ENOENT, "nothing there");
	(void)snprintf(unfinished, sizeof(unfinished), "%s/unfinished", folder);
	ok(close(open(unfinished, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)) == 0, "somebody died while writing");
	cache_lock(c);
	is_int(cache_put(c, "thing", key, p, &e), 0, "kept %s", e.text);
	cache_unlock(c);
	ok(access(unfinished, F_OK) < 0, "what was unfinished is gone");
	is_int(cache_get(c, "thing", key, &q, &e), 0, "found %s", e.text);
	ok(pool_take(q, 1000, 1) != NULL && pool_whole(q), "what was kept");
	pool_free(q);
	is_int(cache_get(c, "other", key, &q, &e), -ENOENT, "nothing of another kind");

	ok(files(".thing", path) > 0, "a file");
	flip(path, 200);
	is_int(cache_get(c, "thing", key, &q, &e), -EBADMSG, "damaged: %s", e.text);
	is_int(cache_get(c, "thing", key, &q, &e), -ENOENT, "and then gone");
	ok(symlink("/etc/passwd", path) == 0 && cache_get(c, "thing", key, &q, &e) < 0, "a link is not followed: %s", e.text);

	for (k[0] = 10; k[0] < 15; k[0]++) {
		is_int(cache_put(c, "thing", k, p, &e), 0, "number %d %s", k[0], e.text);
		if (k[0] == 10)
			is_int(cache_put(c, "other", k, p, &e), 0, "and another kind");
	}
	is_int(files(".thing", path), CACHE_KEPT, "of a kind the last used stay");
	is_int(files(".other", path), 1, "others are not concerned");
	k[0] = 14;
	is_int(cache_get(c, "thing", k, &q, &e), 0, "the newest is among them");
	pool_free(q);

	is_int(cache_open(folder, UINT64_MAX / 2, &full, &e), 0, "a disk with no room to spare");
	k[0] = 99;
	is_int(cache_put(full, "thing", k, p, &e), -ENOSPC, "takes nothing: %s", e.text);
	is_int(cache_get(full, "thing", k, &q, &e), -ENOENT, "and has nothing");
	cache_close(full);
	cache_close(c);
	pool_free(p);
	empty(folder);
}

/* ---- a model ---- */

static uint64_t spare;
static const char *const usual[PROMPTS] = { "There is Pneumothorax.", "There is pleural effusion", "There is mass" };

/* Scores of one picture, and what the cache gave. */
static bool score_list(bool cached, const char *const *prompts, size_t n, float *ret /* [n] */, char note[ERR_TEXT_MAX])
{
	const struct model_use use = { .cache = cached ? folder : NULL, .spare = spare };
	CLEANUP(free) uint8_t *square = xcalloc(256, 256);
	struct model_run *run = NULL;
	struct model *m = NULL;
	struct err e = { "" };
	bool good;

	for (size_t i = 0; i < 256 * 256; i++)
		square[i] = (uint8_t)(i * (i >> 8) >> 5);
	good = model_open(bundle, &use, &m, &e) == 0 && model_set_prompts(m, prompts, n, &e) == 0 &&
	       model_run_new(m, &run, &e) == 0 && model_score(run, square, ret, NULL) == 0;
	(void)str_copy(note, ERR_TEXT_MAX, m != NULL ? model_cache_note(m) : e.text);
	model_run_free(run);
	model_close(m);
	return good;
}

static bool score(bool cached, float ret[PROMPTS], char note[ERR_TEXT_MAX])
{
	return score_list(cached, usual, PROMPTS, ret, note);
}

static void same(const float want[PROMPTS], const char *starts, const char *what)
{
	char note[ERR_TEXT_MAX];
	float got[PROMPTS];

	ok(score(true, got, note) && memcmp(got, want, sizeof(got)) == 0, "%s: the same scores to the last bit", what);
	ok(strncmp(note, starts, strlen(starts)) == 0, "%s: %s", what, note);
}

static void damage(const float want[PROMPTS], const char *kind, const char *made)
{
	char path[PATH];
	struct stat st;

	if (!ok(files(kind, path) > 0 && stat(path, &st) == 0, "there is a file of %s", kind))
		return;
	flip(path, st.st_size / 2);
	same(want, made, "a damaged file is made anew");
	ok(files(kind, path) > 0 && truncate(path, st.st_size / 4096 * 2048) == 0, "cut");
	same(want, made, "so is one that was cut short");
	ok(files(kind, path) > 0 && truncate(path, 0) == 0, "emptied");
	same(want, made, "and an empty one");
	same(want, "weights found, texts found", "once");
}

/* The tables go, so that words are asked for. */
static void test_damaged_words(const float want[PROMPTS])
{
	char path[PATH];
	struct stat st;

	ok(files(".tables", path) > 0 && unlink(path) == 0, "no tables");
	same(want, "weights found, 0 of 3 texts made", "the words are there");
	ok(files(".tables", path) > 0 && unlink(path) == 0, "no tables");
	if (!ok(files(".words", path) > 0 && stat(path, &st) == 0, "there is a file of words"))
		return;
	flip(path, st.st_size / 2);
	same(want, "weights found, 3 of 3 texts made: ", "damaged words are made anew");
	same(want, "weights found, texts found", "once");
}

static void compare_list(const char *const *prompts, size_t n, const char *note_ends, const char *what)
{
	CLEANUP(free) float *want = xcalloc(n, sizeof(float));
	CLEANUP(free) float *got = xcalloc(n, sizeof(float));
	char note[ERR_TEXT_MAX];

	ok(score_list(false, prompts, n, want, note) && score_list(true, prompts, n, got, note) &&
		   memcmp(want, got, n * sizeof(float)) == 0,
	   "%s: the same scores as without a cache", what);
	ok(strlen(note) >= strlen(note_ends) && strcmp(note + strlen(note) - strlen(note_ends), note_ends) == 0, "%s: %s", what,
	   note);
}

/* A list that differs in one prompt costs one; and a prompt that lay beside others is what it is alone. */
static void test_other_lists(void)
{
	static const char *const more[] = { "There is Pneumothorax.", "There is cardiac silhouette", "There is pleural effusion",
					    "There is mass" };
	static const char *const turned[] = { "There is mass", "There is mass", "There is Pneumothorax." };

	compare_list(more, 4, " 1 of 4 texts made", "one more");
	compare_list(more, 4, " texts found", "again");
	compare_list(turned, 3, " 0 of 3 texts made", "turned round, one twice");
	compare_list(more + 1, 1, " 0 of 1 texts made", "one alone");
}

/* So many lists that the first one's words have gone. */
static void test_many(void)
{
	static char text[3 * MANY][32];
	const char *list[MANY];
	char note[ERR_TEXT_MAX], path[PATH];
	CLEANUP(free) float *got = xcalloc(MANY, sizeof(float));

	for (size_t i = 0; i < 3 * MANY; i++)
		(void)snprintf(text[i], sizeof(text[i]), "There is %c %c %c", (int)('a' + i / 144), (int)('a' + i / 12 % 12),
			       (int)('a' + i % 12));
	for (size_t round = 0; round < 4; round++) {
		for (size_t i = 0; i < MANY; i++)
			list[i] = text[round % 3 * MANY + i];
		ok(score_list(true, list, MANY, got, note) && strstr(note, ", 512 of 512 texts made") != NULL, "list %zu: %s", round,
		   note);
	}
	ok(score_list(true, list, MANY / 2, got, note) && strstr(note, ", 0 of 256 texts made") != NULL, "the last is there: %s",
	   note);
	is_int(files(".words", path), 1, "one file of words");
	is_int(files(".tables", path), CACHE_KEPT, "some of tables");
}

/* The weights file gets other bytes and model.json still names the digest of the old ones. */
static void test_touched(void)
{
	char path[PATH + 32], note[ERR_TEXT_MAX];
	float got[PROMPTS];
	struct stat st;

	(void)snprintf(path, sizeof(path), "%s/weights.safetensors", bundle);
	ok(stat(path, &st) == 0, "weights");
	flip(path, st.st_size - 1);
	ok(!score(true, got, note), "another weights file is not overlooked behind a warm cache: %s", note);
	flip(path, st.st_size - 1);
}

static void test_model_start(void)
{
	float want[PROMPTS], got[PROMPTS];
	char note[ERR_TEXT_MAX];

	if (!ok(score(false, want, note), "scores without a cache %s", note))
		return;
	is_str(note, "", "nothing to tell");
	same(want, "weights made, 3 of 3 texts made", "a cold start");
	same(want, "weights found, texts found", "a warm one");
	damage(want, ".weights", "weights made: ");
	damage(want, ".tables", "weights found, 0 of 3 texts made: ");
	test_damaged_words(want);
	test_other_lists();
	test_many();
	test_touched();
	same(want, "weights made, 3 of 3 texts made", "touched");
	kernels_set_threads(2);
	ok(score(true, got, note) && strncmp(note, "weights made", 12) == 0, "another number of threads: %s", note);
	kernels_set_threads(1);
	same(want, "weights found, texts found", "the old one");
	empty(folder);
	spare = UINT64_MAX / 2;
	same(want, "weights not kept: ", "an emptied folder on a full disk");
	spare = 0;
	same(want, "weights made", "with room again");
}

static void test_no_folder(void)
{
	const struct model_use use = { .cache = "/nonexistent/folder" };
	struct model *m;
	struct err e = { "" };

	if (!ok(model_open(bundle, &use, &m, &e) == 0, "a model opens without its cache %s", e.text))
		return;
	ok(strncmp(model_cache_note(m), "none: /nonexistent/folder", 25) == 0, "and says so: %s", model_cache_note(m));
	model_close(m);
}

int main(void)
{
	const char *top = getenv("srcdir");
	char vocab[4096];
	struct err e = { "" };

	if (mkdtemp(scratch) == NULL)
		plan_skip_all("no temporary directory");
	(void)snprintf(folder, sizeof(folder), "%s/cache", scratch);
	(void)snprintf(bundle, sizeof(bundle), "%s/untrained", scratch);
	(void)snprintf(vocab, sizeof(vocab), "%s/tools/bundle/vocab.txt", top != NULL ? top : ".");
	if (!ok(mkdir(folder, 0700) == 0 && untrained_write(bundle, vocab, 1, &e) == 0, "an untrained bundle %s", e.text))
		return done();
	kernels_set_threads(1);
	test_pool();
	test_folder();
	if (kernels_pack())
		test_model_start();
	test_no_folder();
	empty(folder);
	empty(bundle);
	ok(rmdir(folder) == 0 && rmdir(bundle) == 0 && rmdir(scratch) == 0, "nothing is left");
	return done();
}
