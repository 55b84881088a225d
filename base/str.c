/* str.c: see str.h. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

bool str_copy(char *dst, size_t size, const char *src)
{
	size_t n = strlen(src);
	bool fits = n < size;

	if (!fits)
		n = size - 1;
	memcpy(dst, src, n);
	memset(dst + n, 0, size - n); /* the rest is zeroed: these fields travel in messages */
	return fits;
}

bool str_copy_padded(char *dst, size_t size, const void *src, size_t n)
{
	const char *s = src;
	size_t len = strnlen(s, n);
	bool fits;

	while (len > 0 && s[len - 1] == ' ')
		len--;
	fits = len < size;
	if (!fits)
		len = size - 1;
	memcpy(dst, s, len);
	memset(dst + len, 0, size - len);
	return fits;
}

char *str_quote(char *dst, size_t size, const char *src)
{
	static const char digits[] = "0123456789abcdef";
	size_t n = 0, cut = 0; /* cut: the last end behind which "..." has room */

	for (; *src != '\0'; src++) {
		unsigned char c = (unsigned char)*src;
		size_t need = c >= 0x20 && c < 0x7f && c != '\\' && c != '"' ? 1 : 4;

		if (n + 4 <= size)
			cut = n;
		if (n + need + 1 > size) {
			for (n = cut; n < cut + 3 && n + 1 < size; n++)
				dst[n] = '.';
			break;
		}
		if (need == 1) {
			dst[n++] = (char)c;
			continue;
		}
		dst[n++] = '\\';
		dst[n++] = 'x';
		dst[n++] = digits[c >> 4];
		dst[n++] = digits[c & 15];
	}
	dst[n] = '\0';
	return dst;
}

void str_hex(char *dst, const uint8_t *bytes, size_t n)
{
	static const char digits[] = "0123456789abcdef";
	size_t i;

	for (i = 0; i < n; i++) {
		dst[2 * i] = digits[bytes[i] >> 4];
		dst[2 * i + 1] = digits[bytes[i] & 15];
	}
	dst[2 * n] = '\0';
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool str_unhex(uint8_t *dst, size_t n, const char *src)
{
	size_t i;

	if (strlen(src) != 2 * n)
		return false;
	for (i = 0; i < n; i++) {
		int high = hex_digit(src[2 * i]), low = hex_digit(src[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		dst[i] = (uint8_t)(high * 16 + low);
	}
	return true;
}

void str_base64(char *dst, const uint8_t *bytes, size_t n)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

	for (size_t i = 0; i < n; i += 3) {
		unsigned b = (unsigned)bytes[i] << 16 | (i + 1 < n ? (unsigned)bytes[i + 1] << 8 : 0) | (i + 2 < n ? bytes[i + 2] : 0);

		*dst++ = digits[b >> 18];
		*dst++ = digits[b >> 12 & 63];
		*dst++ = i + 1 < n ? digits[b >> 6 & 63] : '=';
		*dst++ = i + 2 < n ? digits[b & 63] : '=';
	}
	*dst = '\0';
}

bool uid_valid(const char *uid)
{
	size_t i, start = 0, n = strlen(uid);

	if (n == 0 || n >= UID_MAX)
		return false;
	for (i = 0; i <= n; i++) {
		if (uid[i] == '.' || uid[i] == '\0') {
			size_t len = i - start;

			if (len == 0 || (len > 1 && uid[start] == '0'))
				return false;
			start = i + 1;
		} else if (uid[i] < '0' || uid[i] > '9') {
			return false;
		}
	}
	return true;
}

bool ae_title_valid(const char *title)
{
	size_t n = strlen(title), i;
	bool seen = false;

	if (n == 0 || n >= AE_TITLE_MAX)
		return false;
	for (i = 0; i < n; i++) {
		unsigned char c = (unsigned char)title[i];

		if (c < 0x20 || c > 0x7e || c == '\\')
			return false;
		seen |= c != ' ';
	}
	return seen;
}

bool str_to_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret)
{
	unsigned long long v;
	char *end;

	if (s[0] < '0' || s[0] > '9') /* strtoull would take blanks and signs */
		return false;
	errno = 0;
	v = strtoull(s, &end, 10);
	if (errno != 0 || *end != '\0' || v < min || v > max)
		return false;
	*ret = v;
	return true;
}

unsigned str_distance(const char *a, const char *b, unsigned cap)
{
	unsigned row[64];
	size_t na = strlen(a), nb = strlen(b), i, j;

	if (na >= 64 || nb >= 64)
		return cap;
	for (j = 0; j <= nb; j++)
		row[j] = (unsigned)j;
	for (i = 1; i <= na; i++) {
		unsigned diagonal = row[0];

		row[0] = (unsigned)i;
		for (j = 1; j <= nb; j++) {
			unsigned above = row[j];
			unsigned best = diagonal + (tolower((unsigned char)a[i - 1]) !=
						    tolower((unsigned char)b[j - 1]));

			if (above + 1 < best)
				best = above + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			diagonal = above;
			row[j] = best;
		}
	}
	return row[nb] < cap ? row[nb] : cap;
}
