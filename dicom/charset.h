/* charset.h: the Specific Character Set of what we write about a study.
 *
 * Copied elements keep their bytes, so the set of their source stays in force; our own texts (a site's
 * names for findings, in UTF-8) are written in it.  Where it lacks a character, in this order:
 *  1. everything copied is ASCII: ISO_IR 192, in which those bytes mean the same;
 *  2. code extensions are added (PS3.3 C.12.1.1.2): "ISO_IR 100" becomes "ISO 2022 IR 100\ISO 2022 IR 58",
 *     which leaves the meaning of the copied bytes as it is;
 *  3. '?', and charset_lacks() says how many, for a comment in the report.
 */
#ifndef CARZEROD_DICOM_CHARSET_H
#define CARZEROD_DICOM_CHARSET_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CHARSET_VALUE_MAX 160 /* of (0008,0005), with its end */

struct charset;

/* source: (0008,0005) of the source as it stands; ascii: all that is copied is ASCII without escapes;
 * texts: [n] all that will be encoded, UTF-8. */
struct charset *charset_new(const char *source, bool ascii, const char *const *texts, size_t n);
void charset_free(struct charset *c); /* NULL allowed */

/* For (0008,0005); "" leaves it out. */
const char *charset_value(const struct charset *c);
/* malloc'd: at most max characters of the text; control characters become blanks. */
char *charset_encode(const struct charset *c, const char *text, size_t max);
/* Characters of the texts that become '?'. */
size_t charset_lacks(const struct charset *c);

/* Opens every conversion: after that no call here opens a file. */
void charset_warm_up(void);

#ifdef __cplusplus
}
#endif
#endif
