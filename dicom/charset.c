/* charset.c: see charset.h.
 *
 * Job: the sets of PS3.3 C.12.1.1.2 and the escapes of PS3.5 6.1.2.5, with libc's iconv for the tables.
 * Promise: what was encoded decodes to the same text in the set that charset_value() names; a text ends
 * in the state that the first set defines.
 * Never: looks at copied bytes.
 */
#include <errno.h>
#include <iconv.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

#include "dicom/charset.h"

#define EXTENSIONS_MAX 8
#define ENCODED_MAX 4 /* bytes of a character in any of the sets */

#define ESC "\x1b"

/* How libc's encoding holds the set. */
enum form {
	G1_BYTE,     /* one byte from A0 on */
	JP_KATAKANA, /* EUC-JP: 8E and a byte */
	JP_0208,     /* EUC-JP: two bytes with the high bit, which G0 does without */
	JP_0212,     /* EUC-JP: 8F and two */
	G1_WORD,     /* two bytes with the high bit */
	WHOLE,       /* no extensions: as libc writes it */
};

struct set {
	const char *number;   /* "ISO_IR 100" and "ISO 2022 IR 100" end with it */
	const char *encoding; /* libc's name */
	const char *escape;   /* designates it to G0 or G1 */
	enum form form;
};

/* In the order in which they are tried as an extension: what most readers know comes first. */
static const struct set sets[] = {
	{ "100", "ISO-8859-1", ESC "-A", G1_BYTE },    { "87", "EUC-JP", ESC "$B", JP_0208 },
	{ "58", "EUC-CN", ESC "$)A", G1_WORD },	       { "149", "EUC-KR", ESC "$)C", G1_WORD },
	{ "101", "ISO-8859-2", ESC "-B", G1_BYTE },    { "144", "ISO-8859-5", ESC "-L", G1_BYTE },
	{ "126", "ISO-8859-7", ESC "-F", G1_BYTE },    { "148", "ISO-8859-9", ESC "-M", G1_BYTE },
	{ "109", "ISO-8859-3", ESC "-C", G1_BYTE },    { "110", "ISO-8859-4", ESC "-D", G1_BYTE },
	{ "127", "ISO-8859-6", ESC "-G", G1_BYTE },    { "138", "ISO-8859-8", ESC "-H", G1_BYTE },
	{ "166", "TIS-620", ESC "-T", G1_BYTE },       { "13", "EUC-JP", ESC ")I", JP_KATAKANA },
	{ "159", "EUC-JP", ESC "$(D", JP_0212 },
};
static const struct set whole_sets[] = {
	{ "ISO_IR 192", "UTF-8", "", WHOLE },
	{ "GB18030", "GB18030", "", WHOLE },
	{ "GBK", "GBK", "", WHOLE },
};

struct charset {
	char value[CHARSET_VALUE_MAX];
	const struct set *whole;  /* instead of the rest */
	const struct set *first;  /* NULL: ISO 646 alone */
	const struct set *extension[EXTENSIONS_MAX];
	size_t n_extensions;
	bool known;               /* false: ASCII only */
	size_t lacks;             /* characters of all texts together */
};

/* ---- libc's tables -------------------------------------------------------------------------------- */

static iconv_t conversions[ARRAY_SIZE(sets) + ARRAY_SIZE(whole_sets)];
static bool opened;

void charset_warm_up(void)
{
	if (opened)
		return;
	opened = true;
	for (size_t i = 0; i < ARRAY_SIZE(conversions); i++)
		conversions[i] = iconv_open(i < ARRAY_SIZE(sets) ? sets[i].encoding :
								   whole_sets[i - ARRAY_SIZE(sets)].encoding, "UTF-8");
}

/* libc has later editions of some standards than the registered sets: Euro signs above all. */
static bool added_later(const struct set *set, const unsigned char *p)
{
	if (strcmp(set->encoding, "ISO-8859-7") == 0)
		return p[0] == 0xa4 || p[0] == 0xa5 || p[0] == 0xaa;
	if (strcmp(set->encoding, "ISO-8859-8") == 0)
		return p[0] == 0xfd || p[0] == 0xfe;
	return strcmp(set->encoding, "EUC-KR") == 0 && p[0] == 0xa2 && p[1] >= 0xe6 && p[1] <= 0xe8;
}

/* A character's bytes in the set; 0 when it has none, or libc does not know the set. */
static size_t bytes_in(const struct set *set, const char *p, size_t n, unsigned char ret[ENCODED_MAX])
{
	char *from = (char *)(uintptr_t)p, *to = (char *)ret; /* iconv does not write to its input */
	size_t left = ENCODED_MAX, at = set->form == WHOLE ? ARRAY_SIZE(sets) + (size_t)(set - whole_sets) :
							     (size_t)(set - sets);
	iconv_t conversion;

	charset_warm_up();
	conversion = conversions[at];
	if (conversion == (iconv_t)-1)
		return 0;
	(void)iconv(conversion, NULL, NULL, NULL, NULL);
	if (iconv(conversion, &from, &n, &to, &left) != 0) /* not there, or only by transliteration */
		return 0;
	n = ENCODED_MAX - left;
	if (added_later(set, ret))
		return 0;
	switch (set->form) {
	case G1_BYTE:
		return n == 1 && ret[0] >= 0xa0 ? 1 : 0;
	case JP_KATAKANA:
		if (n != 2 || ret[0] != 0x8e)
			return 0;
		ret[0] = ret[1];
		return 1;
	case JP_0212:
		if (n != 3 || ret[0] != 0x8f)
			return 0;
		ret[0] = ret[1] & 0x7f;
		ret[1] = ret[2] & 0x7f;
		return 2;
	case JP_0208:
		if (n != 2 || ret[0] < 0xa1)
			return 0;
		ret[0] &= 0x7f;
		ret[1] &= 0x7f;
		return 2;
	case G1_WORD:
		return n == 2 && ret[0] >= 0xa1 ? 2 : 0;
	case WHOLE:
		break;
	}
	return n;
}

/* ---- the value of (0008,0005) ----------------------------------------------------------------------- */

/* The next character; false at the end.  *ret_n bytes, at least one. */
static bool next_character(const char **text, const char **ret, size_t *ret_n)
{
	const char *p = *text;

	if (*p == '\0')
		return false;
	*ret = p++;
	while ((*p & 0xc0) == 0x80)
		p++;
	*ret_n = (size_t)(p - *ret);
	*text = p;
	return true;
}

static const struct set *set_of(const char *term, const char *prefix)
{
	size_t n = strlen(prefix);

	if (strncmp(term, prefix, n) != 0)
		return NULL;
	for (size_t i = 0; i < ARRAY_SIZE(sets); i++)
		if (strcmp(term + n, sets[i].number) == 0)
			return &sets[i];
	return NULL;
}

/* One term; false when it is none that we know, or not where it may be. */
static bool take_term(struct charset *c, const char *term, bool first, bool only)
{
	const struct set *set = set_of(term, "ISO 2022 IR ");

	if (first && (term[0] == '\0' || strcmp(term, "ISO_IR 6") == 0 || strcmp(term, "ISO 2022 IR 6") == 0))
		return true;
	if (!first && strcmp(term, "ISO 2022 IR 6") == 0)
		return true; /* said by some; ASCII is there in any case */
	for (size_t i = 0; only && i < ARRAY_SIZE(whole_sets); i++)
		if (strcmp(term, whole_sets[i].number) == 0) {
			c->whole = &whole_sets[i];
			return true;
		}
	if (set == NULL && first) /* before extensions it should say "ISO 2022 IR" */
		set = set_of(term, "ISO_IR ");
	if (set == NULL || (first && (set->form == JP_0208 || set->form == JP_0212 || set->form == G1_WORD)))
		return false;
	if (first)
		c->first = set;
	else if (c->n_extensions < EXTENSIONS_MAX)
		c->extension[c->n_extensions++] = set;
	return true;
}

static void parse(struct charset *c, const char *value)
{
	bool first = true, only = strchr(value, '\\') == NULL;

	c->known = true;
	for (;; first = false) {
		size_t n = strcspn(value, "\\");
		char term[32];

		while (n > 0 && *value == ' ') {
			value++;
			n--;
		}
		if (!str_copy_padded(term, sizeof(term), value, n) || !take_term(c, term, first, only)) {
			c->known = false;
			return;
		}
		value += n;
		if (*value == '\0')
			return;
		value++;
	}
}

/* What would encode a character: whole, first, an extension; NULL: nothing does. */
static const struct set *holder(const struct charset *c, const char *p, size_t n, unsigned char bytes[ENCODED_MAX],
				size_t *ret_n)
{
	const struct set *set = c->whole != NULL ? c->whole : c->first;

	if (!c->known)
		return NULL;
	*ret_n = set != NULL ? bytes_in(set, p, n, bytes) : 0;
	for (size_t i = 0; *ret_n == 0 && i < c->n_extensions; i++) {
		set = c->extension[i];
		*ret_n = bytes_in(set, p, n, bytes);
	}
	return *ret_n > 0 ? set : NULL;
}

/* JIS X 0201 has a yen sign and an overline in two places of ASCII. */
static bool has_ascii(const struct charset *c, char ascii)
{
	return c->first == NULL || c->first->form != JP_KATAKANA || (ascii != '\\' && ascii != '~');
}

static size_t lacking(const struct charset *c, const char *const *texts, size_t n)
{
	unsigned char bytes[ENCODED_MAX];
	size_t lacks = 0, size, n_bytes;
	const char *p;

	for (size_t i = 0; i < n; i++)
		for (const char *text = texts[i]; next_character(&text, &p, &size);)
			lacks += (unsigned char)*p < 0x80 ? !has_ascii(c, *p) :
							    holder(c, p, size, bytes, &n_bytes) == NULL;
	return lacks;
}

/* Adds the set that helps most until nothing lacks or nothing helps. */
static void extend(struct charset *c, const char *const *texts, size_t n)
{
	size_t lacks = lacking(c, texts, n);

	while (lacks > 0 && c->n_extensions < EXTENSIONS_MAX) {
		const struct set *best = NULL;

		for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
			size_t now;

			c->extension[c->n_extensions] = &sets[i];
			c->n_extensions++;
			now = lacking(c, texts, n);
			c->n_extensions--;
			if (now < lacks) {
				best = &sets[i];
				lacks = now;
			}
		}
		if (best == NULL)
			return;
		c->extension[c->n_extensions++] = best;
	}
}

static void name_extended(struct charset *c)
{
	size_t n, size = sizeof(c->value); /* nine terms of 16 bytes at most: they fit */

	/* some readers take an empty first value for the element's absence */
	n = (size_t)snprintf(c->value, size, "ISO 2022 IR %s", c->first != NULL ? c->first->number : "6");
	for (size_t i = 0; i < c->n_extensions && n < size; i++)
		n += (size_t)snprintf(c->value + n, size - n, "\\ISO 2022 IR %s", c->extension[i]->number);
}

struct charset *charset_new(const char *source, bool ascii, const char *const *texts, size_t n)
{
	struct charset *c = xcalloc(1, sizeof(*c));
	bool undeclared = source[strspn(source, " ")] == '\0' && !ascii;

	parse(c, source);
	if (!str_copy(c->value, sizeof(c->value), source))
		c->known = false; /* and copied as it is by whoever copies elements */
	c->lacks = lacking(c, texts, n);
	if (c->lacks == 0)
		return c;
	if (ascii) {
		memset(c, 0, sizeof(*c));
		c->known = true;
		c->whole = &whole_sets[0];
		(void)str_copy(c->value, sizeof(c->value), c->whole->number);
	} else if (c->known && c->whole == NULL && !undeclared) {
		size_t before = c->n_extensions;

		extend(c, texts, n);
		if (c->n_extensions > before)
			name_extended(c);
		c->lacks = lacking(c, texts, n);
	}
	return c;
}

void charset_free(struct charset *c)
{
	free(c);
}

const char *charset_value(const struct charset *c)
{
	return c->value;
}

size_t charset_lacks(const struct charset *c)
{
	return c->lacks;
}

/* ---- encoding ---------------------------------------------------------------------------------------- */

struct out {
	char *p;
	size_t n;
	/* What the last escape designated.  G0 and G1 hold a set each, but readers that think of one set at a
	 * time are common: every change is said. */
	const struct set *now;
};

static void put(struct out *o, const void *p, size_t n)
{
	memcpy(o->p + o->n, p, n);
	o->n += n;
}

static bool is_g0(const struct set *s)
{
	return s != NULL && (s->form == JP_0208 || s->form == JP_0212);
}

static void change(struct out *o, const struct charset *c, const struct set *to)
{
	const char *ascii = c->first != NULL && c->first->form == JP_KATAKANA ? ESC "(J" : ESC "(B";

	if (o->now == to)
		return;
	if (is_g0(o->now) && !is_g0(to)) /* PS3.5 6.1.2.5.3 */
		put(o, ascii, 3);
	if (to != NULL)
		put(o, to->escape, strlen(to->escape));
	o->now = to;
}

static void put_character(struct out *o, const struct charset *c, const struct set *preferred, const char *p, size_t n)
{
	unsigned char bytes[ENCODED_MAX];
	const struct set *set = preferred;
	size_t n_bytes = 0;

	if ((unsigned char)*p < 0x80) {
		char ascii = *p < ' ' || *p == 0x7f ? ' ' : *p;

		if (!has_ascii(c, ascii))
			ascii = '?';
		if (is_g0(o->now))
			change(o, c, c->first);
		put(o, &ascii, 1);
		return;
	}
	if (set != NULL)
		n_bytes = bytes_in(set, p, n, bytes);
	if (n_bytes == 0)
		set = holder(c, p, n, bytes, &n_bytes);
	if (set == NULL) {
		if (is_g0(o->now))
			change(o, c, c->first);
		put(o, "?", 1);
		return;
	}
	if (set->form != WHOLE)
		change(o, c, set);
	put(o, bytes, n_bytes);
}

/* Of several sets the one that has all of a text, so that the text does not change between them. */
static const struct set *preferred_set(const struct charset *c, const char *text)
{
	if (!c->known || c->whole != NULL)
		return NULL;
	for (size_t i = 0; i <= c->n_extensions; i++) {
		struct charset alone = { .known = true, .first = i == 0 ? c->first : c->extension[i - 1] };

		if (alone.first != NULL && lacking(&alone, &text, 1) == 0)
			return alone.first;
	}
	return NULL;
}

char *charset_encode(const struct charset *c, const char *text, size_t max)
{
	/* a character: ASCII again, an escape, itself; at the end the same without the character */
	struct out o = { .p = xcalloc(strlen(text) + 2, 3 + 4 + ENCODED_MAX), .now = c->first };
	const struct set *preferred = preferred_set(c, text);
	const char *p;
	size_t n;

	for (size_t i = 0; i < max && next_character(&text, &p, &n); i++)
		put_character(&o, c, preferred, p, n);
	if (c->first != NULL || is_g0(o.now))
		change(&o, c, c->first);
	return o.p;
}
