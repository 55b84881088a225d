/* err.c: see err.h. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"

int err_set(struct err *e, int code, const char *format, ...)
{
	va_list ap;

	if (e == NULL)
		return code;
	va_start(ap, format);
	(void)vsnprintf(e->text, sizeof(e->text), format, ap); /* cutting is what we want */
	va_end(ap);
	return code;
}

int err_prefix(struct err *e, int code, const char *format, ...)
{
	char was[ERR_TEXT_MAX];
	va_list ap;
	size_t n;

	if (e == NULL)
		return code;
	memcpy(was, e->text, sizeof(was));
	va_start(ap, format);
	(void)vsnprintf(e->text, sizeof(e->text), format, ap);
	va_end(ap);
	n = strlen(e->text);
	(void)snprintf(e->text + n, sizeof(e->text) - n, ": %.*s", (int)(sizeof(was) - 1), was);
	return code;
}
