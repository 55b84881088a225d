/* test_spool.c: files by number: made, moved, listed, removed; what is refused at the start. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fdio.h"
#include "base/mem.h"

#include "store/spool.h"

#include "tests/tap.h"

#define PATH_SIZE 256

static char dir[PATH_SIZE];

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static void remove_dir(void)
{
	(void)nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static const char *path_of(const char *rest)
{
	static char path[2 * PATH_SIZE];

	(void)snprintf(path, sizeof(path), "%s/%s", dir, rest);
	return path;
}

static unsigned mode_of(const char *rest)
{
	struct stat st;

	return lstat(path_of(rest), &st) < 0 ? 0 : st.st_mode;
}

static void make_file(const char *rest)
{
	CLEANUP(close) int fd = open(path_of(rest), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0)
		fprintf(stderr, "%s: %s\n", path_of(rest), strerror(errno));
}

static struct spool *open_spool(void)
{
	struct spool *s = NULL;
	struct err e = { "" };

	if (!ok(spool_open(dir, &s, &e) == 0, "the spool opens (%s)", e.text))
		exit(done());
	return s;
}

static uint64_t new_file(struct spool *s, const char *text)
{
	CLEANUP(close) int fd = -1;
	uint64_t id = 0;

	fd = spool_create(s, &id);
	if (fd < 0 || write_full(fd, text, strlen(text)) < 0)
		ok(false, "a new file can be written");
	return id;
}

static const char *text_of(struct spool *s, enum spool_box box, uint64_t id)
{
	static char text[64];
	CLEANUP(close) int fd = spool_read(s, box, id);
	ssize_t n;

	if (fd < 0)
		return strerror(-fd);
	n = read(fd, text, sizeof(text) - 1);
	text[n < 0 ? 0 : n] = '\0';
	return text;
}

/* ---- scanning ------------------------------------------------------------------------------- */

struct seen {
	unsigned n, stop_at;
	uint64_t sum;
};

static int see(uint64_t id, void *arg)
{
	struct seen *seen = arg;

	seen->n++;
	seen->sum += id;
	return seen->n == seen->stop_at ? -ECANCELED : 0;
}

static struct seen scan(struct spool *s, enum spool_box box, unsigned *strangers)
{
	struct seen seen = { 0, 0, 0 };

	is_int(spool_scan(s, box, see, &seen, strangers), 0, "box %d can be scanned", box);
	return seen;
}

/* ---- cases ---------------------------------------------------------------------------------- */

static void test_layout(void)
{
	static const char *const dirs[] = { "spool", "spool/incoming", "spool/objects",
		"spool/objects/00", "spool/objects/7f", "spool/reports/00", "spool/reports/7f",
		"spool/quarantine" };
	struct spool *s = open_spool();

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++)
		is_int(mode_of(dirs[i]), S_IFDIR | 0700, "%s is a directory for us alone", dirs[i]);
	spool_close(s);
	s = open_spool();
	spool_close(s);
	spool_close(NULL);
}

static void test_descriptors(struct spool *s)
{
	char name[64], c = 'x';
	uint64_t id = 0;
	int fd;

	fd = spool_create(s, &id);
	ok(fd >= 0, "a file is made");
	ok(id > 0 && id <= INT64_MAX, "its id has 63 bits and is not 0");
	(void)snprintf(name, sizeof(name), "spool/incoming/%016llx", (unsigned long long)id);
	is_int(mode_of(name), S_IFREG | 0600, "it lies in incoming, for us alone");
	is_int(fcntl(fd, F_GETFL) & O_ACCMODE, O_WRONLY, "its descriptor is write-only");
	ok(read(fd, &c, 1) < 0 && errno == EBADF, "and cannot read");
	is_int(fcntl(fd, F_GETFD), FD_CLOEXEC, "and does not survive an exec");
	is_int(write_full(fd, "abc", 3), 0, "and writes");
	(void)close(fd);

	fd = spool_read(s, SPOOL_INCOMING, id);
	ok(fd >= 0, "the file can be opened again");
	is_int(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY, "read-only");
	ok(write(fd, &c, 1) < 0 && errno == EBADF, "and cannot be written then");
	is_int(fcntl(fd, F_GETFD), FD_CLOEXEC, "nor survive an exec");
	(void)close(fd);
	is_int(spool_read(s, SPOOL_OBJECTS, id), -ENOENT, "another box does not have it");
	is_int(spool_remove(s, SPOOL_INCOMING, id), 0, "it is removed");
	is_int(spool_read(s, SPOOL_INCOMING, id), -ENOENT, "and gone");
	is_int(spool_remove(s, SPOOL_INCOMING, id), 0, "removing what is gone is no error");
	is_int(spool_sync(s), 0, "sync");
}

static void test_move(struct spool *s)
{
	static const struct {
		enum spool_box from, to;
	} way[] = {
		{ SPOOL_INCOMING, SPOOL_OBJECTS },
		{ SPOOL_OBJECTS, SPOOL_QUARANTINE },
		{ SPOOL_QUARANTINE, SPOOL_REPORTS },
		{ SPOOL_REPORTS, SPOOL_INCOMING },
	};
	uint64_t id = new_file(s, "one");
	char name[64];

	for (size_t i = 0; i < ARRAY_SIZE(way); i++) {
		is_int(spool_move(s, id, way[i].from, way[i].to), 0, "move %d to %d", way[i].from, way[i].to);
		is_str(text_of(s, way[i].to, id), "one", "the file is there");
		is_int(spool_read(s, way[i].from, id), -ENOENT, "and no longer here");
		is_int(spool_move(s, id, way[i].from, way[i].to), -ENOENT, "a second move finds nothing");
		is_int(spool_sync(s), 0, "sync");
	}
	(void)snprintf(name, sizeof(name), "spool/objects/%02x/%016llx", (unsigned)(id >> 56),
		       (unsigned long long)id);
	make_file(name);
	is_int(spool_move(s, id, SPOOL_INCOMING, SPOOL_OBJECTS), -EEXIST, "a move never replaces");
	is_str(text_of(s, SPOOL_INCOMING, id), "one", "the source stays");
	is_str(text_of(s, SPOOL_OBJECTS, id), "", "the target stays");
	(void)spool_remove(s, SPOOL_INCOMING, id);
	(void)spool_remove(s, SPOOL_OBJECTS, id);
}

static void test_scan(struct spool *s)
{
	const unsigned n = 300;
	unsigned strangers = 99;
	uint64_t sum = 0, id;
	struct seen seen;

	seen = scan(s, SPOOL_INCOMING, &strangers);
	is_int(seen.n, 0, "incoming is empty");
	is_int(strangers, 0, "and has no strangers");
	for (unsigned i = 0; i < n; i++) {
		id = new_file(s, "");
		sum += id;
		if (spool_move(s, id, SPOOL_INCOMING, SPOOL_OBJECTS) < 0)
			ok(false, "move");
	}
	is_int(spool_sync(s), 0, "300 moves are synced at once");
	seen = scan(s, SPOOL_OBJECTS, NULL);
	is_int(seen.n, n, "objects has all of them");
	ok(seen.sum == sum, "with their ids");
	seen = (struct seen){ .stop_at = 7 };
	is_int(spool_scan(s, SPOOL_OBJECTS, see, &seen, NULL), -ECANCELED, "a scan can be stopped");
	is_int(seen.n, 7, "where the callback says");
}

static int remove_it(uint64_t id, void *arg)
{
	return spool_remove(arg, SPOOL_OBJECTS, id);
}

static void test_remove_while_scanning(struct spool *s)
{
	is_int(spool_scan(s, SPOOL_OBJECTS, remove_it, s, NULL), 0, "a scan may remove what it sees");
	is_int(scan(s, SPOOL_OBJECTS, NULL).n, 0, "and nothing is left");
	is_int(spool_sync(s), 0, "sync");
}

static void test_strangers(struct spool *s)
{
	static const char *const names[] = {
		"spool/objects/README", "spool/objects/80", "spool/objects/12/notes.txt",
		"spool/objects/12/12345678", "spool/objects/12/12345678ABCDEF00",
		"spool/objects/12/12345678abcdef001", "spool/objects/12/34345678abcdef00",
	};
	unsigned strangers = 0;
	struct seen seen;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		make_file(names[i]);
	(void)mkdir(path_of("spool/objects/12/1200000000000001"), 0700);
	make_file("spool/objects/12/1200000000000002");
	if (symlinkat("1200000000000002", AT_FDCWD, path_of("spool/objects/12/1200000000000003")) < 0)
		ok(false, "symlink");
	seen = scan(s, SPOOL_OBJECTS, &strangers);
	is_int(seen.n, 1, "one file is ours");
	ok(seen.sum == 0x1200000000000002, "the well-named one");
	is_int(strangers, ARRAY_SIZE(names) + 2, "the rest are strangers");
	is_int(spool_read(s, SPOOL_OBJECTS, 0x1200000000000003), -ELOOP, "a link is not followed");
	ok(mode_of("spool/objects/README") != 0, "strangers are left alone");

	make_file("spool/incoming/8000000000000001");
	make_file("spool/incoming/0000000000000000");
	seen = scan(s, SPOOL_INCOMING, &strangers);
	is_int(seen.n, 0, "ids that we never give out");
	is_int(strangers, 2, "are strangers too");
}

static void test_space(struct spool *s)
{
	struct spool_space space = { 0 };

	is_int(spool_space(s, &space), 0, "space can be asked for");
	ok(space.total_bytes > 0 && space.free_bytes <= space.total_bytes, "bytes make sense");
	ok(space.free_inodes <= space.total_inodes, "inodes make sense");
}

/* ---- refusals at the start ------------------------------------------------------------------ */

static void refused(const char *state, int want, const char *text)
{
	struct spool *s = NULL;
	struct err e = { "" };

	is_int(spool_open(state, &s, &e), want, "refused: %s", text);
	ok(strncmp(e.text, state, strlen(state)) == 0 && strstr(e.text, text) != NULL,
	   "and the text says so: %s", e.text);
	ok(s == NULL, "no spool is given");
}

/* Root may write everywhere, so the check is made by somebody else. */
static void test_not_writable(void)
{
	struct spool *s = NULL;
	struct err e = { "" };
	int status = -1;
	pid_t pid;

	(void)mkdir(path_of("closed"), 0555);
	(void)chmod(dir, 0755);
	pid = fork();
	if (pid == 0) {
		if (geteuid() == 0 && setresuid(65534, 65534, 65534) < 0)
			_exit(2);
		_exit(spool_open(path_of("closed"), &s, &e) == -EACCES &&
		      strstr(e.text, "not writable") != NULL ? 0 : 1);
	}
	ok(waitpid(pid, &status, 0) == pid && status == 0, "refused: not writable");
}

static void test_refusals(void)
{
	char path[2 * PATH_SIZE];

	make_file("file");
	(void)snprintf(path, sizeof(path), "%s", path_of("file"));
	refused(path, -ENOTDIR, "not a directory");
	(void)snprintf(path, sizeof(path), "%s", path_of("nowhere"));
	refused(path, -ENOENT, "No such file");
	(void)mkdir(path_of("odd"), 0700);
	make_file("odd/spool");
	(void)snprintf(path, sizeof(path), "%s", path_of("odd"));
	refused(path, -ENOTDIR, "spool: cannot make or open");
	test_not_writable();
}

int main(void)
{
	const char *tmp = getenv("TMPDIR");
	struct spool *s;

	(void)snprintf(dir, sizeof(dir), "%s/test_spool.XXXXXX", tmp ? tmp : "/tmp");
	if (mkdtemp(dir) == NULL)
		plan_skip_all("cannot make a temporary directory");
	(void)atexit(remove_dir);
	test_layout();
	s = open_spool();
	test_descriptors(s);
	test_move(s);
	test_scan(s);
	test_remove_while_scanning(s);
	test_space(s);
	test_strangers(s);
	spool_close(s);
	test_refusals();
	return done();
}
