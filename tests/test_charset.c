/* test_charset.c: our own texts in every kind of Specific Character Set; the wanted bytes are those of another
 * implementation of the tables (Python's codecs), the escapes those of PS3.5 annexes H to K. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#include "dicom/charset.h"

#include "tests/tap.h"

#define DE "Erg\xc3\xbc\xc3\x9f"                             /* Ergüß */
#define ZH "\xe8\x83\xb8\xe8\x85\x94\xe7\xa7\xaf\xe6\xb6\xb2" /* 胸腔积液 */
#define JA "\xe8\x83\xb8\xe6\xb0\xb4"                         /* 胸水 */
#define KO "\xea\xb8\xb0\xed\x9d\x89"                         /* 기흉 */
#define KANA "\xef\xbe\x8c"                                   /* half-width ﾌ */
#define EURO "\xe2\x82\xac"

static const struct {
	const char *source;
	bool ascii;
	const char *text, *value, *bytes;
	size_t lacks;
} cases[] = {
	/* the source's set has it */
	{ "", true, "Hernia", "", "Hernia", 0 },
	{ "ISO_IR 6", true, "Hernia", "ISO_IR 6", "Hernia", 0 },
	{ "ISO_IR 100 ", false, DE, "ISO_IR 100 ", "Erg\xfc\xdf", 0 },
	{ "ISO_IR 100", true, DE, "ISO_IR 100", "Erg\xfc\xdf", 0 },
	{ "ISO_IR 192", false, DE ZH JA KO EURO, "ISO_IR 192", DE ZH JA KO EURO, 0 },
	{ "GB18030", false, ZH DE KO, "GB18030", "\xd0\xd8\xc7\xbb\xbb\xfd\xd2\xba" "Erg\xa8\xb9\x81\x30\x89\x38\x82\x38\x89\x35\x83\x36\xb5\x36", 0 },
	{ "GBK", false, ZH, "GBK", "\xd0\xd8\xc7\xbb\xbb\xfd\xd2\xba", 0 },
	{ "\\ISO 2022 IR 87", false, "A " JA "B", "\\ISO 2022 IR 87", "A \x1b$B6;?e\x1b(BB", 0 },
	{ "\\ISO 2022 IR 87", false, JA, "\\ISO 2022 IR 87", "\x1b$B6;?e\x1b(B", 0 },
	{ "ISO 2022 IR 6\\ISO 2022 IR 87", false, JA, "ISO 2022 IR 6\\ISO 2022 IR 87", "\x1b$B6;?e\x1b(B", 0 },
	{ "ISO 2022 IR 13\\ISO 2022 IR 87", false, KANA JA "B", "ISO 2022 IR 13\\ISO 2022 IR 87", "\xcc\x1b$B6;?e\x1b(J\x1b)IB", 0 },
	{ "\\ISO 2022 IR 149", false, "A" KO "B", "\\ISO 2022 IR 149", "A\x1b$)C\xb1\xe2\xc8\xe4" "B", 0 },
	{ "\\ISO 2022 IR 58", false, ZH, "\\ISO 2022 IR 58", "\x1b$)A\xd0\xd8\xc7\xbb\xbb\xfd\xd2\xba", 0 },
	{ "ISO_IR 144", false, "\xd0\x9c", "ISO_IR 144", "\xbc", 0 },
	{ "ISO_IR 101", false, "Ergu\xc3\x9f", "ISO_IR 101", "Ergu\xdf", 0 },
	/* it has not, but everything copied is ASCII */
	{ "", true, ZH, "ISO_IR 192", ZH, 0 },
	{ "ISO_IR 100", true, JA, "ISO_IR 192", JA, 0 },
	{ "ISO_IR 999", true, DE, "ISO_IR 192", DE, 0 },
	/* code extensions, which leave the copied bytes alone */
	{ "ISO_IR 100", false, DE " " JA, "ISO 2022 IR 100\\ISO 2022 IR 87", "Erg\xfc\xdf \x1b$B6;?e\x1b(B\x1b-A", 0 },
	{ "ISO_IR 100", false, ZH DE, "ISO 2022 IR 100\\ISO 2022 IR 58",
	  "\x1b$)A\xd0\xd8\xc7\xbb\xbb\xfd\xd2\xba" "Erg\x1b-A\xfc\xdf", 0 },
	{ "ISO_IR 100", false, ZH, "ISO 2022 IR 100\\ISO 2022 IR 58", "\x1b$)A\xd0\xd8\xc7\xbb\xbb\xfd\xd2\xba\x1b-A", 0 },
	{ "\\ISO 2022 IR 87", false, DE, "ISO 2022 IR 6\\ISO 2022 IR 87\\ISO 2022 IR 100", "Erg\x1b-A\xfc\xdf", 0 },
	{ "ISO_IR 100", false, ZH KO, "ISO 2022 IR 100\\ISO 2022 IR 149\\ISO 2022 IR 58",
	  "\x1b$)C\xfd\xd8\xcb\xb7\x1b$)A\xbb\xfd\x1b$)C\xe4\xfb\xb1\xe2\xc8\xe4\x1b-A", 0 },
	/* nothing helps: said, not hidden */
	{ "ISO_IR 100", false, DE EURO, "ISO_IR 100", "Erg\xfc\xdf?", 1 },
	{ "ISO_IR 126", false, EURO, "ISO_IR 126", "?", 1 },
	{ "\\ISO 2022 IR 149", false, EURO, "\\ISO 2022 IR 149", "?", 1 },
	{ "GBK", false, KO, "GBK", "??", 2 },
	{ "", false, DE, "", "Erg??", 2 },
	{ "ISO_IR 999", false, DE, "ISO_IR 999", "Erg??", 2 },
	{ "GB18030\\ISO 2022 IR 87", false, JA, "GB18030\\ISO 2022 IR 87", "??", 2 },
	{ "ISO 2022 IR 13\\ISO 2022 IR 87", false, "a~b\\c", "ISO 2022 IR 13\\ISO 2022 IR 87", "a?b?c", 2 },
	{ "ISO_IR 100", false, "\xff\xc3", "ISO_IR 100", "??", 2 }, /* no UTF-8 */
	{ "", true, "a\tb\x7f" "c", "", "a b c", 0 },
};

static void is_bytes(const char *got, const char *want, const char *name)
{
	ok(strcmp(got, want) == 0, "%s", name);
	if (strcmp(got, want) != 0) {
		printf("#");
		for (const char *p = got; *p != '\0'; p++)
			printf(" %02x", (unsigned char)*p);
		printf("\n");
	}
}

int main(void)
{
	char name[200];

	charset_warm_up();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct charset *c = charset_new(cases[i].source, cases[i].ascii, &cases[i].text, 1);
		char *bytes = charset_encode(c, cases[i].text, SIZE_MAX);

		(void)snprintf(name, sizeof(name), "%zu: from \"%s\"%s", i + 1, cases[i].source,
			       cases[i].ascii ? ", all ASCII" : "");
		is_str(charset_value(c), cases[i].value, "%s: the set", name);
		is_bytes(bytes, cases[i].bytes, name);
		is_int((long long)charset_lacks(c), (long long)cases[i].lacks, "%s: characters that it lacks", name);
		free(bytes);
		charset_free(c);
	}
	{
		const char *text = ZH;
		struct charset *c = charset_new("\\ISO 2022 IR 58", false, &text, 1);
		char *cut = charset_encode(c, text, 2), *nothing = charset_encode(c, text, 0);

		is_bytes(cut, "\x1b$)A\xd0\xd8\xc7\xbb", "two characters of four");
		is_bytes(nothing, "", "none");
		free(cut);
		free(nothing);
		charset_free(c);
	}
	{
		char many[400] = "";
		const char *text = DE;
		struct charset *c;

		for (size_t i = 0; i < 30; i++)
			(void)snprintf(many + 12 * i, sizeof(many) - 12 * i, "\\ISO_IR 1000");
		c = charset_new(many, false, &text, 1);
		ok(charset_lacks(c) > 0 && strlen(charset_value(c)) < CHARSET_VALUE_MAX, "a value of thirty terms is no set");
		charset_free(c);
	}
	charset_free(NULL);
	return done();
}
