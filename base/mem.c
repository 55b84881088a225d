/* mem.c: the allocations that do not return on failure.  See mem.h for when they may be used. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"

void *xcalloc(size_t n, size_t size)
{
	void *p = calloc(n != 0 ? n : 1, size != 0 ? size : 1);

	if (p == NULL)
		fatal(FATAL_TEMPORARY, "out of memory for %zu x %zu bytes", n, size);
	return p;
}

void *xreallocarray(void *p, size_t n, size_t size)
{
	p = reallocarray(p, n != 0 ? n : 1, size != 0 ? size : 1);
	if (p == NULL)
		fatal(FATAL_TEMPORARY, "out of memory for %zu x %zu bytes", n, size);
	return p;
}

char *xstrdup(const char *s)
{
	char *p = strdup(s);

	if (p == NULL)
		fatal(FATAL_TEMPORARY, "out of memory for a string");
	return p;
}
