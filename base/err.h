/* err.h: an error that names what, where and what to do.
 *
 * Functions return 0 or a negative errno.  Where a person must be told more than the number, the
 * function takes a `struct err *`; err_set() fills the text and returns the code, so that the
 * failing line reads
 *
 *	return err_set(e, -EBADMSG, "%s: tensor %s has shape [%zu], expected [%zu]", ...);
 *
 * The text is one line, never holds patient data, and foreign bytes in it have passed str_quote().
 * A NULL err is allowed everywhere and means that the caller only wants the number.
 *
 * Codes with a fixed meaning in this program:
 *   -ENOENT   nothing there / nothing to do        -EBADMSG  foreign data breaks its format
 *   -E2BIG    over a named limit                   -ENOTSUP  valid, but we do not do it
 *   -ESTALE   a claim was lost (token mismatch)    -EPROTO   a peer process broke the protocol
 */
#ifndef CARZEROD_BASE_ERR_H
#define CARZEROD_BASE_ERR_H

#include <stddef.h>

#define ERR_TEXT_MAX 512

struct err {
	char text[ERR_TEXT_MAX];
};

/* Formats the text (cut at ERR_TEXT_MAX) and returns `code`. */
int err_set(struct err *e, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Puts "prefix: " before the text that is there; returns `code`. */
int err_prefix(struct err *e, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
