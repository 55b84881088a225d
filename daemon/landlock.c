/* landlock.c: see landlock.h.
 *
 * Debian 12's <linux/landlock.h> ends at ABI 2 and glibc has no wrappers, so what is younger is
 * written down here, as Documentation/userspace-api/landlock.rst of the kernel has it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/landlock.h>

#include "base/mem.h"

#include "daemon/landlock.h"

#define FS_TRUNCATE (1ull << 14)   /* ABI 3 */
#define FS_IOCTL_DEV (1ull << 15)  /* ABI 5 */
#define NET_BIND_TCP (1ull << 0)   /* ABI 4 */
#define NET_CONNECT_TCP (1ull << 1)
#define SCOPE_ABSTRACT_SOCKETS (1ull << 0) /* ABI 6 */
#define SCOPE_SIGNALS (1ull << 1)
#define RULE_NET_PORT 2

struct attributes {
	uint64_t files, net, scoped;
};

struct net_port {
	uint64_t access, port;
};

#define FS_READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
/* what a rule for something that is no folder may say */
#define FS_OF_FILES (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_FILE | \
		     FS_TRUNCATE | FS_IOCTL_DEV)

static uint64_t files_of_abi(int abi)
{
	uint64_t all = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1;

	if (abi >= 2)
		all |= LANDLOCK_ACCESS_FS_REFER;
	if (abi >= 3)
		all |= FS_TRUNCATE;
	if (abi >= 5)
		all |= FS_IOCTL_DEV;
	return all;
}

int landlock_abi(void)
{
#ifdef WITHOUT_SANDBOX
	return 0;
#else
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	return abi < 0 ? 0 : (int)abi;
#endif
}

int landlock_new(enum landlock_kind kind, int *ret, struct err *e)
{
	struct attributes a = { 0 };
	int abi = landlock_abi();
	long fd;

	*ret = -1;
	/* before ABI 2 nothing is ever renamed from one folder to another, which is what a spool lives by */
	if (abi < 1 || (kind == LANDLOCK_FILES && abi < 2))
		return 0;
	a.files = files_of_abi(abi);
	if (kind == LANDLOCK_HELPER && abi >= 4)
		a.net = NET_BIND_TCP | NET_CONNECT_TCP;
	if (kind == LANDLOCK_HELPER && abi >= 6)
		a.scoped = SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS;
	/* an older kernel takes a longer struct when what it does not know is zero */
	fd = syscall(SYS_landlock_create_ruleset, &a, sizeof(a), 0);
	if (fd < 0)
		return err_set(e, -errno, "landlock: create: %s", strerror(errno));
	*ret = (int)fd;
	return 0;
}

static uint64_t files_of_right(enum landlock_right right)
{
	switch (right) {
	case LANDLOCK_READ:
		return FS_READ;
	case LANDLOCK_PROGRAM:
		return FS_READ | LANDLOCK_ACCESS_FS_EXECUTE;
	case LANDLOCK_DEVICE:
		return LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE;
	case LANDLOCK_CACHE:
		return FS_READ | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_FILE |
		       LANDLOCK_ACCESS_FS_MAKE_REG | FS_TRUNCATE;
	case LANDLOCK_OWN:
		break;
	}
	return FS_READ | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |
	       LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |
	       LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_REFER | FS_TRUNCATE;
}

int landlock_path(int set, const char *path, enum landlock_right right, struct err *e)
{
	struct landlock_path_beneath_attr rule = { .allowed_access = files_of_right(right) & files_of_abi(landlock_abi()) };
	CLEANUP(close) int fd = set < 0 ? -1 : open(path, O_PATH | O_CLOEXEC);
	struct stat st;

	if (set < 0 || (fd < 0 && (errno == ENOENT || errno == ENOTDIR)))
		return 0;
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(e, -errno, "landlock: %s: %s", path, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		rule.allowed_access &= FS_OF_FILES;
	rule.parent_fd = fd;
	if (syscall(SYS_landlock_add_rule, set, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
		return err_set(e, -errno, "landlock: rule for %s: %s", path, strerror(errno));
	return 0;
}

int landlock_port(int set, bool connect, uint16_t port, struct err *e)
{
	struct net_port rule = { connect ? NET_CONNECT_TCP : NET_BIND_TCP, port };

	if (set < 0 || landlock_abi() < 4)
		return 0;
	if (syscall(SYS_landlock_add_rule, set, RULE_NET_PORT, &rule, 0) < 0)
		return err_set(e, -errno, "landlock: rule for port %u: %s", port, strerror(errno));
	return 0;
}

int landlock_enter(int set)
{
	return set >= 0 && syscall(SYS_landlock_restrict_self, set, 0) < 0 ? -errno : 0;
}

int landlock_folder_of(int set, const char *path, struct err *e)
{
	const char *slash = strrchr(path, '/');
	char folder[4096];

	if (slash == NULL)
		return landlock_path(set, ".", LANDLOCK_READ, e);
	if (snprintf(folder, sizeof(folder), "%.*s", (int)(slash - path + 1), path) >= (int)sizeof(folder))
		return err_set(e, -ENAMETOOLONG, "landlock: path too long");
	return landlock_path(set, folder, LANDLOCK_READ, e);
}

int landlock_system(int set, struct err *e)
{
	static const struct {
		const char *path;
		enum landlock_right right;
	} rules[] = {
		{ "/usr", LANDLOCK_READ },    { "/etc", LANDLOCK_READ },   { "/proc", LANDLOCK_READ },
		{ "/sys", LANDLOCK_READ },    { "/run", LANDLOCK_READ },   { "/lib", LANDLOCK_PROGRAM },
		{ "/lib64", LANDLOCK_PROGRAM }, /* the loader is executed */
		{ "/dev/null", LANDLOCK_DEVICE }, { "/dev/urandom", LANDLOCK_READ },
	};
	size_t i;
	int r = 0;

	for (i = 0; r == 0 && i < ARRAY_SIZE(rules); i++)
		r = landlock_path(set, rules[i].path, rules[i].right, e);
	return r;
}
