/* landlock.h: what a process can still reach by name, from its first instruction on.
 *
 * seccomp (sandbox.h) closes the doors once a worker is warm; Landlock is there before: a helper that
 * loads libraries, reads its configuration and resolves a name can read what it needs for that, write
 * nothing, and talk to no port but its own.  A set of rules is made before fork() and entered between
 * fork() and execve(): Landlock binds only the calling thread, so it must come before there are others.
 *
 * The kernel's ABI is asked at run time; each knows more than the one before (2: renames between
 * folders, 3: truncation, 4: TCP ports, 5: devices, 6: signals and abstract sockets).  What it does
 * not know is left to seccomp.  Without Landlock a set is -1, and every call here takes that for a
 * set of no rules and no effect.  So do builds with --without-sandbox: sanitizers write where they like.
 */
#ifndef CARZEROD_DAEMON_LANDLOCK_H
#define CARZEROD_DAEMON_LANDLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum landlock_right {
	LANDLOCK_READ,    /* files and folders beneath */
	LANDLOCK_PROGRAM, /* read and execute */
	LANDLOCK_DEVICE,  /* read and write a device that exists */
	LANDLOCK_CACHE,   /* make, read, write, rename and remove files beneath; no folders */
	LANDLOCK_OWN,     /* everything that one does to files of one's own, sockets included */
};

enum landlock_kind {
	LANDLOCK_FILES,  /* for the keeper: files alone; its helpers inherit it and have kinds of their own */
	LANDLOCK_HELPER, /* files, TCP ports, signals to and abstract sockets of processes outside */
};

/* The kernel's ABI; 0: none. */
int landlock_abi(void);

/* An empty set; *ret -1: this kernel has no Landlock, or too old a one for this kind. */
int landlock_new(enum landlock_kind kind, int *ret, struct err *e);
/* A path that does not exist is no rule and no error. */
int landlock_path(int set, const char *path, enum landlock_right right, struct err *e);
/* The folder that a file lies in, so that a file that is replaced by a newer one stays in reach. */
int landlock_folder_of(int set, const char *path, struct err *e);
/* What programs and their libraries read on any Debian: /usr, /etc, /proc, /sys, /run, /dev/null. */
int landlock_system(int set, struct err *e);
int landlock_port(int set, bool connect, uint16_t port, struct err *e);

/* For good, for this thread and what it starts.  Wants no_new_privs.  Async-signal-safe.  0 or -errno. */
int landlock_enter(int set);

#endif
