/* str.h: strings with a known end, and the few foreign texts that have a grammar.
 *
 * Fixed fields are filled by str_copy(), which says when it had to cut.  Text from peers is shown
 * only through str_quote(): printable ASCII passes, everything else becomes \xNN.
 */
#ifndef CARZEROD_BASE_STR_H
#define CARZEROD_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UID_MAX 65     /* PS3.5 9.1: 64 characters, and our NUL */
#define AE_TITLE_MAX 17 /* PS3.5 6.2: 16 characters, and our NUL */

/* Copies with a final NUL; false when `src` did not fit (dst then holds the cut text). */
bool str_copy(char *dst, size_t size, const char *src);

/* Same for `n` foreign bytes that may lack a NUL; stops at the first NUL, strips trailing spaces. */
bool str_copy_padded(char *dst, size_t size, const void *src, size_t n);

/* Escapes foreign text into dst (always terminated, cut with "..." when longer) and returns dst. */
char *str_quote(char *dst, size_t size, const char *src);

/* Lower-case hex of n bytes; dst holds 2n+1. */
void str_hex(char *dst, const uint8_t *bytes, size_t n);
/* The reverse; false unless `src` is exactly 2n hex digits. */
bool str_unhex(uint8_t *dst, size_t n, const char *src);

/* RFC 4648 4; dst holds STR_BASE64_MAX(n). */
#define STR_BASE64_MAX(n) (((n) + 2) / 3 * 4 + 1)
void str_base64(char *dst, const uint8_t *bytes, size_t n);

/* PS3.5 9.1: 1..64 characters of digits and dots, no empty component, no leading zero. */
bool uid_valid(const char *uid);

/* PS3.5 6.2: 1..16 characters of the default repertoire, no backslash, no control, not only spaces. */
bool ae_title_valid(const char *title);

/* Whole string as an unsigned decimal number in [min, max]; false otherwise. */
bool str_to_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret);

/* Case-insensitive Levenshtein distance, capped at `cap`: for "did you mean". */
unsigned str_distance(const char *a, const char *b, unsigned cap);

#endif
