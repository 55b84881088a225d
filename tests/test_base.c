/* test_base.c: floor 0, file by file: str, buf, mem, err, digest, clock, fdio, log.
 *
 * Known answers come from the standards that are named beside them.  Where a function must not leak
 * a descriptor, the test counts what /proc/self/fd lists before and after.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/err.h"
#include "base/fdio.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

#include "tests/tap.h"

#define DIGITS_60 "123456789012345678901234567890123456789012345678901234567890"

static bool all_zero(const char *p, size_t n)
{
	while (n > 0) {
		if (p[--n] != 0)
			return false;
	}
	return true;
}

/* ---- str ------------------------------------------------------------------------------------- */

static void test_copy(void)
{
	static const struct {
		const char *src;
		size_t size;
		bool fits;
		const char *want;
	} cases[] = {
		{ "", 8, true, "" },
		{ "abc", 8, true, "abc" },
		{ "1234567", 8, true, "1234567" },
		{ "12345678", 8, false, "1234567" },
		{ "abc", 1, false, "" },
		{ "", 1, true, "" },
	};
	char dst[16];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		memset(dst, 'x', sizeof(dst));
		is_int(str_copy(dst, cases[i].size, cases[i].src), cases[i].fits, "copy \"%s\" into %zu fits",
		       cases[i].src, cases[i].size);
		is_str(dst, cases[i].want, "what is there then");
		ok(all_zero(dst + strlen(dst), cases[i].size - strlen(dst)), "the rest is zeroed");
		is_int(dst[cases[i].size], 'x', "and nothing behind it was touched");
	}
}

static void test_copy_padded(void)
{
	static const struct {
		const char *src;
		size_t n;
		bool fits;
		const char *want;
	} cases[] = {
		{ "", 0, true, "" },
		{ "ARCHIVE         ", 16, true, "ARCHIVE" },
		{ "SIXTEEN LETTERS!", 16, true, "SIXTEEN LETTERS!" },
		{ "                ", 16, true, "" },
		{ " A B ", 5, true, " A B" },
		{ "AB\0CD", 5, true, "AB" },
		{ "AB  \0CD", 7, true, "AB" },
		{ "SEVENTEEN LETTERS", 17, false, "SEVENTEEN LETTER" },
		{ "SIXTEEN LETTERS!    ", 20, true, "SIXTEEN LETTERS!" },
	};
	char dst[AE_TITLE_MAX + 1];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		CLEANUP(free) char *exact = malloc(cases[i].n + 1); /* no NUL behind: a sanitizer sees any look */

		memcpy(exact, cases[i].src, cases[i].n);
		exact = realloc(exact, cases[i].n != 0 ? cases[i].n : 1);
		memset(dst, 'x', sizeof(dst));
		is_int(str_copy_padded(dst, AE_TITLE_MAX, exact, cases[i].n), cases[i].fits, "padded \"%s\" fits",
		       cases[i].src);
		is_str(dst, cases[i].want, "what is there then");
		ok(all_zero(dst + strlen(dst), AE_TITLE_MAX - strlen(dst)), "the rest is zeroed");
		is_int(dst[AE_TITLE_MAX], 'x', "and nothing behind it was touched");
	}
}

static void test_quote(void)
{
	static const struct {
		const char *src;
		size_t size;
		const char *want;
	} cases[] = {
		{ "", 16, "" },
		{ "MODALITY 1", 16, "MODALITY 1" },
		{ "a\"b", 16, "a\\x22b" },
		{ "a\\b", 16, "a\\x5cb" },
		{ "a\nb\x7f", 16, "a\\x0ab\\x7f" },
		{ "\xc3\xa9", 16, "\\xc3\\xa9" },
		{ "\x1b[2J", 16, "\\x1b[2J" },
		{ "1234567", 8, "1234567" },     /* fits to the byte */
		{ "12345678", 8, "1234..." },
		{ "123\n", 8, "123\\x0a" },
		{ "1234\n", 8, "1234..." },
		{ "123\nx", 8, "123..." },       /* never half an escape */
		{ "\n\n", 8, "\\x0a..." },
		{ "abc", 4, "abc" },
		{ "abcd", 4, "..." },
		{ "\n", 4, "..." },
		{ "ab", 3, "ab" },
		{ "abc", 3, ".." },
		{ "ab", 2, "." },
		{ "a", 1, "" },
	};
	char dst[32];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		memset(dst, 'x', sizeof(dst));
		is_str(str_quote(dst, cases[i].size, cases[i].src), cases[i].want, "quote case %zu, %zu bytes", i,
		       cases[i].size);
		is_int(dst[cases[i].size], 'x', "and nothing behind it was touched");
	}
}

static void test_base64(void)
{
	static const char *const cases[][2] = { { "", "" }, { "f", "Zg==" }, { "fo", "Zm8=" }, { "foo", "Zm9v" },
						{ "foob", "Zm9vYg==" }, { "\xff\xfe\xfd>", "//79Pg==" } }; /* RFC 4648 10 */
	char text[STR_BASE64_MAX(6)];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		str_base64(text, (const uint8_t *)cases[i][0], strlen(cases[i][0]));
		is_str(text, cases[i][1], "base64 of %zu bytes", strlen(cases[i][0]));
	}
}

static void test_hex(void)
{
	static const uint8_t bytes[] = { 0x00, 0x09, 0xaf, 0xff };
	static const char *const bad[] = { "", "0009afff0", "0009aff", "0009afffff", "0009afgg", " 009afff", "0x09afff", "0009af-1" };
	uint8_t back[4] = { 1, 2, 3, 4 };
	char hex[9];
	size_t i;

	str_hex(hex, bytes, sizeof(bytes));
	is_str(hex, "0009afff", "bytes to hex, lower case");
	str_hex(hex, bytes, 0);
	is_str(hex, "", "no bytes, no digits");
	ok(str_unhex(back, 4, "0009AFfF") && memcmp(back, bytes, 4) == 0, "hex to bytes, either case");
	ok(str_unhex(back, 0, ""), "nothing is exactly no bytes");
	for (i = 0; i < ARRAY_SIZE(bad); i++)
		ok(!str_unhex(back, 4, bad[i]), "not four bytes of hex: \"%s\"", bad[i]);
}

static void test_uid(void)
{
	static const struct {
		const char *uid;
		bool valid;
	} cases[] = {
		{ "1", true },
		{ "0", true },
		{ "1.2.840.10008.1.1", true },
		{ "0.0.0", true },
		{ "1.10.100", true },
		{ DIGITS_60 "1.34", true },    /* 64 characters */
		{ DIGITS_60 "1.345", false },  /* 65 */
		{ DIGITS_60 DIGITS_60, false },
		{ "", false },
		{ ".", false },
		{ ".1", false },
		{ "1.", false },
		{ "1..2", false },
		{ "..", false },
		{ "01", false },
		{ "00", false },
		{ "1.02", false },
		{ "1.00", false },
		{ "1.2 ", false },
		{ " 1.2", false },
		{ "1.2a", false },
		{ "1,2", false },
		{ "-1.2", false },
		{ "1.2/../3", false },
		{ "1.\xb2", false },
	};
	size_t i;

	is_int(strlen(cases[5].uid), 64, "the longest one has 64 characters");
	for (i = 0; i < ARRAY_SIZE(cases); i++)
		is_int(uid_valid(cases[i].uid), cases[i].valid, "UID \"%s\" (%zu characters)", cases[i].uid,
		       strlen(cases[i].uid));
}

static void test_ae_title(void)
{
	static const struct {
		const char *title;
		bool valid;
	} cases[] = {
		{ "A", true },
		{ "CARZERO", true },
		{ "with space", true },
		{ " LEADING", true },
		{ "~!@#$%^&*()-+=\"'", true },
		{ "SIXTEEN LETTERS!", true },
		{ "SEVENTEEN LETTERS", false },
		{ "", false },
		{ " ", false },
		{ "                ", false },
		{ "BACK\\SLASH", false },
		{ "NEW\nLINE", false },
		{ "TAB\t", false },
		{ "DEL\x7f", false },
		{ "\xc3\x84RZTE", false },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++)
		is_int(ae_title_valid(cases[i].title), cases[i].valid, "AE title case %zu", i);
}

static void test_to_u64(void)
{
	static const struct {
		const char *text;
		uint64_t min, max;
		bool good;
		uint64_t want;
	} cases[] = {
		{ "0", 0, 10, true, 0 },
		{ "10", 0, 10, true, 10 },
		{ "11", 0, 10, false, 0 },
		{ "4", 5, 10, false, 0 },
		{ "007", 0, 10, true, 7 }, /* decimal, never octal */
		{ "18446744073709551615", 0, UINT64_MAX, true, UINT64_MAX },
		{ "18446744073709551616", 0, UINT64_MAX, false, 0 },
		{ "99999999999999999999999", 0, UINT64_MAX, false, 0 },
		{ "", 0, 10, false, 0 },
		{ "-1", 0, UINT64_MAX, false, 0 },
		{ "+1", 0, 10, false, 0 },
		{ " 1", 0, 10, false, 0 },
		{ "1 ", 0, 10, false, 0 },
		{ "1x", 0, 10, false, 0 },
		{ "0x1", 0, 10, false, 0 },
		{ "1e1", 0, 10, false, 0 },
		{ "1.0", 0, 10, false, 0 },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t v = 0;

		is_int(str_to_u64(cases[i].text, cases[i].min, cases[i].max, &v), cases[i].good, "number \"%s\"",
		       cases[i].text);
		ok(v == cases[i].want, "its value, or nothing written");
	}
}

static void test_distance(void)
{
	static const struct {
		const char *a, *b;
		unsigned cap, want;
	} cases[] = {
		{ "", "", 9, 0 },
		{ "", "abc", 9, 3 },
		{ "abc", "", 9, 3 },
		{ "kitten", "sitting", 9, 3 },
		{ "listen", "LISTEN", 9, 0 },
		{ "ae_titel", "ae_title", 9, 2 },
		{ "worker", "workers", 9, 1 },
		{ "abcdef", "uvwxyz", 3, 3 },
		{ DIGITS_60 "123", DIGITS_60 "12", 9, 1 },   /* 63 and 62: the longest that are compared */
		{ DIGITS_60 "1234", DIGITS_60 "1234", 9, 9 }, /* 64: not looked at */
		{ "a", DIGITS_60 DIGITS_60, 9, 9 },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++)
		is_int(str_distance(cases[i].a, cases[i].b, cases[i].cap), cases[i].want, "distance \"%.8s\" \"%.8s\"",
		       cases[i].a, cases[i].b);
}

/* ---- buf, mem, err ----------------------------------------------------------------------------- */

static void test_buf(void)
{
	static const uint8_t bytes[] = { 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x87, 0x88, 0x99 };
	struct buf b = buf_of(bytes, sizeof(bytes));
	const uint8_t *span = NULL;
	uint8_t u8 = 7, copy[4];
	uint16_t u16 = 7;
	uint32_t u32 = 7;
	uint64_t u64 = 7;

	ok(buf_get_u8(&b, &u8) == 0 && u8 == 0x01 && b.left == 8, "one byte");
	ok(buf_get_u64(&b, false, &u64) == 0 && u64 == 0x9988870605040302 && b.left == 0, "64 bits, little endian, unaligned");
	is_int(buf_get_u8(&b, &u8), -EBADMSG, "nothing left");
	is_int(buf_get_bytes(&b, copy, 0), 0, "no bytes can always be had");
	is_int(buf_skip(&b, 0), 0, "or skipped");

	b = buf_of(bytes, sizeof(bytes));
	ok(buf_get_u64(&b, true, &u64) == 0 && u64 == 0x0102030405068788, "64 bits, big endian");
	b = buf_of(bytes, sizeof(bytes));
	ok(buf_get_u16(&b, false, &u16) == 0 && u16 == 0x0201, "16 bits, little endian");
	ok(buf_get_u16(&b, true, &u16) == 0 && u16 == 0x0304, "16 bits, big endian");
	ok(buf_get_u32(&b, false, &u32) == 0 && u32 == 0x88870605, "32 bits, little endian");
	b = buf_of(bytes + 5, 4);
	ok(buf_get_u32(&b, true, &u32) == 0 && u32 == 0x06878899, "32 bits, big endian");

	b = buf_of(bytes, 1);
	u16 = 7, u32 = 7, u64 = 7;
	is_int(buf_get_u16(&b, false, &u16), -EBADMSG, "short by one");
	is_int(buf_get_u32(&b, true, &u32), -EBADMSG, "short by three");
	is_int(buf_get_u64(&b, true, &u64), -EBADMSG, "short by seven");
	is_int(buf_get_bytes(&b, copy, 2), -EBADMSG, "two bytes of one");
	is_int(buf_get_span(&b, &span, SIZE_MAX), -EBADMSG, "all the memory there is");
	is_int(buf_skip(&b, 2), -EBADMSG, "a skip too far");
	ok(u16 == 7 && u32 == 7 && u64 == 7 && span == NULL, "a failure leaves the result alone");
	ok(b.left == 1 && b.p == bytes, "and consumes nothing");

	b = buf_of(bytes, sizeof(bytes));
	ok(buf_skip(&b, 2) == 0 && buf_get_bytes(&b, copy, 4) == 0 && memcmp(copy, bytes + 2, 4) == 0, "skip, then bytes");
	ok(buf_get_span(&b, &span, 3) == 0 && span == bytes + 6 && b.left == 0, "a span lies in the window");
	b = buf_of(NULL, 0);
	is_int(buf_get_u8(&b, &u8), -EBADMSG, "an empty window may be NULL");
	is_int(buf_get_bytes(&b, copy, 0), 0, "also for no bytes");
}

static void test_mem(void)
{
	char *text = xstrdup("kept"), *taken;
	size_t n = 42;
	int fd = 5;

	ok(mul_ok(3, 5, &n) && n == 15, "a product");
	ok(mul_ok(0, SIZE_MAX, &n) && n == 0, "times nothing");
	ok(mul_ok(SIZE_MAX, 1, &n) && n == SIZE_MAX, "the largest product");
	n = 42;
	ok(!mul_ok(SIZE_MAX / 2 + 1, 2, &n) && n == 42, "a product too large, result untouched");
	ok(!mul_ok((size_t)1 << 32, (size_t)1 << 32, &n) && n == 42, "2^32 x 2^32");
	ok(add_ok(SIZE_MAX - 1, 1, &n) && n == SIZE_MAX, "the largest sum");
	n = 42;
	ok(!add_ok(SIZE_MAX, 1, &n) && n == 42, "a sum too large, result untouched");
	taken = TAKE(text);
	ok(text == NULL && strcmp(taken, "kept") == 0, "TAKE hands over and disarms");
	free(taken);
	is_int(TAKE_FD(fd), 5, "TAKE_FD hands over");
	is_int(fd, -1, "and disarms");
	free(xcalloc(0, 0));
	free(xreallocarray(NULL, 0, 8));
	errno = EXDEV;
	{
		CLEANUP(close) int closed = dup(0);

		ok(closed >= 0, "a descriptor for the end of its scope");
		errno = EXDEV;
	}
	is_int(errno, EXDEV, "closing keeps errno");
}

static void test_err(void)
{
	char long_text[2 * ERR_TEXT_MAX];
	struct err e;

	is_int(err_set(&e, -EBADMSG, "%s: %d", "key", 7), -EBADMSG, "err_set returns its code");
	is_str(e.text, "key: 7", "and fills the text");
	is_int(err_prefix(&e, -EIO, "file:%u", 3u), -EIO, "err_prefix returns its code");
	is_str(e.text, "file:3: key: 7", "and goes in front");
	is_int(err_set(NULL, -ENOENT, "%d", 1), -ENOENT, "nobody wants the text");
	is_int(err_prefix(NULL, -ENOENT, "%d", 1), -ENOENT, "nor a prefix");
	memset(long_text, 'y', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = '\0';
	(void)err_set(&e, -EIO, "%s", long_text);
	is_int(strlen(e.text), ERR_TEXT_MAX - 1, "a long text is cut");
	(void)err_prefix(&e, -EIO, "where");
	ok(strlen(e.text) == ERR_TEXT_MAX - 1 && strncmp(e.text, "where: yyy", 10) == 0, "a prefix pushes its end out");
	(void)err_prefix(&e, -EIO, "%s", long_text);
	ok(strlen(e.text) == ERR_TEXT_MAX - 1 && e.text[0] == 'y', "a long prefix leaves nothing else");
}

/* ---- digest -------------------------------------------------------------------------------------- */

static const char *digest_hex(const void *p, size_t n)
{
	static char hex[DIGEST_HEX_MAX];
	uint8_t digest[DIGEST_SIZE];

	digest_of(p, n, digest);
	str_hex(hex, digest, DIGEST_SIZE);
	return hex;
}

/* FIPS 180-4 examples of NIST. */
static void test_hmac(void)
{
	static const char text[] = "what do ya want for nothing?"; /* RFC 4231 4.3 */
	char hex[DIGEST_HEX_MAX];
	uint8_t mac[DIGEST_SIZE];

	digest_hmac("Jefe", 4, text, sizeof(text) - 1, mac);
	str_hex(hex, mac, sizeof(mac));
	is_str(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843", "HMAC-SHA-256");
}

static void test_sha256(void)
{
	static const char two_blocks[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
	CLEANUP(digest_free) struct digest *d = digest_new();
	uint8_t digest[DIGEST_SIZE];
	char hex[DIGEST_HEX_MAX], thousand[1000];
	size_t i;

	is_str(digest_hex("", 0), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "SHA-256 of nothing");
	is_str(digest_hex("abc", 3), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "of abc");
	is_str(digest_hex(two_blocks, strlen(two_blocks)),
	       "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1", "of two blocks");
	memset(thousand, 'a', sizeof(thousand));
	for (i = 0; i < 1000; i++)
		digest_update(d, thousand, sizeof(thousand));
	digest_final(d, digest);
	str_hex(hex, digest, DIGEST_SIZE);
	is_str(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0", "of a million a, piece by piece");
	digest_reset(d);
	digest_update(d, "ab", 2);
	digest_update(d, "", 0);
	digest_update(d, "c", 1);
	digest_final(d, digest);
	str_hex(hex, digest, DIGEST_SIZE);
	is_str(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "abc in pieces, after a reset");
	digest_free(NULL);
}

static void test_digest_fd(void)
{
	CLEANUP(close) int fd = fd_memory("test");
	uint8_t got[DIGEST_SIZE], want[DIGEST_SIZE];
	size_t n = 600001, i; /* more than two of its chunks */
	CLEANUP(free) uint8_t *bytes = malloc(n);

	for (i = 0; i < n; i++)
		bytes[i] = (uint8_t)(i * 31 + i / 251);
	is_int(write_full(fd, bytes, n), 0, "a file of %zu bytes", n);
	digest_of(bytes, n, want);
	ok(digest_fd(fd, 0, got) == 0 && memcmp(got, want, DIGEST_SIZE) == 0, "digest of the whole file");
	digest_of(bytes + 333, n - 333, want);
	ok(digest_fd(fd, 333, got) == 0 && memcmp(got, want, DIGEST_SIZE) == 0, "digest from an offset on");
	is_int(lseek(fd, 0, SEEK_CUR), (long long)n, "the file's position stays");
	digest_of("", 0, want);
	ok(digest_fd(fd, n, got) == 0 && memcmp(got, want, DIGEST_SIZE) == 0, "from the end: nothing");
	ok(digest_fd(fd, n + 5, got) == 0 && memcmp(got, want, DIGEST_SIZE) == 0, "from behind it: nothing");
	is_int(digest_fd(fd, UINT64_MAX, got), -EINVAL, "an offset that no file has");
	is_int(digest_fd(-1, 0, got), -EBADF, "no file");
}

static void test_uuid(void)
{
	static const char dns[] = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"; /* RFC 9562 6.6 */
	static const struct {
		const char *name, *want;
	} names[] = {
		{ "www.example.com", "2ed6657d-e927-568b-95e1-2665a8aea6a2" }, /* RFC 9562 A.4 */
		{ "python.org", "886313e1-3b8a-5372-9b90-0c9aee199e5d" },      /* Python's manual of uuid */
	};
	static const struct {
		const char *uuid, *uid;
	} uids[] = { /* the first is PS3.5 B.2's */
		{ "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "2.25.329800735698586629295641978511506172918" },
		{ "00000000-0000-0000-0000-000000000000", "2.25.0" },
		{ "00000000-0000-0000-0000-000000000009", "2.25.9" },
		{ "00000000-0000-0000-0000-00000000000a", "2.25.10" },
		{ "00000000-0000-0001-0000-000000000000", "2.25.18446744073709551616" },
		{ "ffffffff-ffff-ffff-ffff-ffffffffffff", "2.25.340282366920938463463374607431768211455" },
	};
	static const char *const bad[] = {
		"", "f81d4fae7dec11d0a76500a0c91e6bf6", "f81d4fae-7dec-11d0-a765-00a0c91e6bf", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6a",
		"f81d4fae_7dec-11d0-a765-00a0c91e6bf6", "g81d4fae-7dec-11d0-a765-00a0c91e6bf6", "f81d4fae-7dec-11d0-a765-00a0c91e6b-6",
		"{81d4fae-7dec-11d0-a765-00a0c91e6bf}",
	};
	uint8_t space[16], uuid[16];
	char text[37], uid[UID_MAX], direct[UID_MAX];
	size_t i;

	is_int(uuid_parse(dns, space), 0, "the name space of domain names");
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		uuid5(space, names[i].name, uuid);
		uuid_text(uuid, text);
		is_str(text, names[i].want, "name-based UUID of %s", names[i].name);
		uid_from_uuid(uuid, uid);
		uid_from_name(space, names[i].name, direct);
		is_str(direct, uid, "and its UID in one step");
		ok(uid_valid(direct), "which is one");
	}
	for (i = 0; i < ARRAY_SIZE(uids); i++) {
		is_int(uuid_parse(uids[i].uuid, uuid), 0, "UUID %s", uids[i].uuid);
		uuid_text(uuid, text);
		is_str(text, uids[i].uuid, "there and back");
		uid_from_uuid(uuid, uid);
		is_str(uid, uids[i].uid, "as a UID");
		ok(uid_valid(uid), "which is one");
	}
	ok(uuid_parse("F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6", uuid) == 0 && uuid[0] == 0xf8, "capitals are read");
	for (i = 0; i < ARRAY_SIZE(bad); i++)
		is_int(uuid_parse(bad[i], uuid), -EBADMSG, "no UUID: \"%s\"", bad[i]);
}

/* ---- clock --------------------------------------------------------------------------------------- */

static void test_stamp(void)
{
	static const struct {
		int64_t ms;
		const char *want;
	} cases[] = {
		{ 0, "1970-01-01T00:00:00.000Z" },
		{ 1, "1970-01-01T00:00:00.001Z" },
		{ -1, "1969-12-31T23:59:59.999Z" },
		{ -1000, "1969-12-31T23:59:59.000Z" },
		{ -86400000, "1969-12-31T00:00:00.000Z" },
		{ 951782400999, "2000-02-29T00:00:00.999Z" },
		{ 1795510800123, "2026-11-24T09:00:00.123Z" },
		{ 4294967296000, "2106-02-07T06:28:16.000Z" },
		{ 253402300799999, "9999-12-31T23:59:59.999Z" },
	};
	char stamp[CLOCK_STAMP_MAX];
	int64_t wall = clock_wall_ms(), boot = clock_boot_ms();
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		clock_stamp(cases[i].ms, stamp);
		is_str(stamp, cases[i].want, "stamp of %" PRId64 " ms", cases[i].ms);
	}
	clock_stamp(INT64_MAX, stamp);
	ok(strlen(stamp) < CLOCK_STAMP_MAX, "the largest number keeps within its buffer: %s", stamp);
	clock_stamp(INT64_MIN, stamp);
	ok(strlen(stamp) < CLOCK_STAMP_MAX, "the smallest one too: %s", stamp);
	ok(wall > 1700000000000 && llabs(wall - (int64_t)time(NULL) * 1000) < 5000, "wall time is now");
	ok(boot > 0 && clock_boot_ms() >= boot, "boot time goes forward");
}

static void test_local(void)
{
	static const struct {
		const char *zone, *file; /* file: the zone is skipped when it is not installed */
		int64_t ms;
		const char *want; /* date time offset */
	} cases[] = {
		{ "UTC", NULL, 1795510800123, "20261124 090000.123000 +0000" },
		{ "UTC", NULL, -1, "19691231 235959.999000 +0000" },
		{ "UTC", NULL, 951782400000, "20000229 000000.000000 +0000" },
		{ "CET-1CEST,M3.5.0,M10.5.0/3", NULL, 1782907200000, "20260701 140000.000000 +0200" },
		{ "CET-1CEST,M3.5.0,M10.5.0/3", NULL, 1795510800123, "20261124 100000.123000 +0100" },
		{ "CET-1CEST,M3.5.0,M10.5.0/3", NULL, 1792889999999, "20261025 025959.999000 +0200" },
		{ "CET-1CEST,M3.5.0,M10.5.0/3", NULL, 1792890000000, "20261025 020000.000000 +0100" }, /* the hour twice */
		{ "CET-1CEST,M3.5.0,M10.5.0/3", NULL, 1798758000000, "20270101 000000.000000 +0100" },
		{ "NST3:30", NULL, 1795510800123, "20261124 053000.123000 -0330" },
		{ "XXX0:30", NULL, 1795510800123, "20261124 083000.123000 -0030" },
		{ "NPT-5:45", NULL, 1795510800123, "20261124 144500.123000 +0545" },
		{ "Europe/Berlin", "/usr/share/zoneinfo/Europe/Berlin", 1782907200000, "20260701 140000.000000 +0200" },
		{ "Europe/Berlin", "/usr/share/zoneinfo/Europe/Berlin", 1795510800123, "20261124 100000.123000 +0100" },
	};
	char date[9], when[14], offset[6], got[40];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		if (cases[i].file != NULL && access(cases[i].file, R_OK) < 0) {
			skip("tzdata is not installed");
			continue;
		}
		(void)setenv("TZ", cases[i].zone, 1);
		tzset();
		clock_dicom_local(cases[i].ms, date, when, offset);
		(void)snprintf(got, sizeof(got), "%s %s %s", date, when, offset);
		is_str(got, cases[i].want, "local time in %s", cases[i].zone);
	}
	(void)unsetenv("TZ");
	tzset();
}

/* ---- fdio ---------------------------------------------------------------------------------------- */

static unsigned open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	if (d == NULL)
		return 0;
	while (readdir(d) != NULL)
		n++;
	(void)closedir(d);
	return n;
}

static void test_full(void)
{
	CLEANUP(close) int fd = fd_memory("test");
	char got[8] = "", *big = xcalloc(1, 300000);
	int pipe_fds[2], status = 0;
	pid_t pid;

	is_int(write_full(fd, "0123456789", 10), 0, "write");
	ok(pread_full(fd, got, 4, 3) == 0 && memcmp(got, "3456", 4) == 0, "read at an offset");
	is_int(pread_full(fd, got, 4, 8), -ENODATA, "the file ends before");
	is_int(pwrite_full(fd, "ab", 2, 9), 0, "write at an offset");
	ok(pread_full(fd, got, 2, 9) == 0 && memcmp(got, "ab", 2) == 0, "and there it is");
	is_int(read_full(fd, got, 1), 0, "the position stands where writing ended");
	is_int(read_full(fd, got, 1), -ENODATA, "then comes the end");
	is_int(read_full(-1, got, 1), -EBADF, "no file to read");
	is_int(write_full(-1, got, 1), -EBADF, "none to write");

	/* more than a pipe holds at once: the loops meet short reads and writes */
	if (!ok(pipe2(pipe_fds, O_CLOEXEC) == 0, "a pipe"))
		return;
	pid = fork();
	if (pid == 0)
		_exit(write_full(pipe_fds[1], big, 300000) == 0 ? 0 : 1);
	(void)close(pipe_fds[1]);
	is_int(read_full(pipe_fds[0], big, 300000), 0, "300,000 bytes through a pipe");
	is_int(read_full(pipe_fds[0], big, 1), -ENODATA, "and its end");
	(void)close(pipe_fds[0]);
	(void)waitpid(pid, &status, 0);
	is_int(status, 0, "the writer was content");
	free(big);
}

static void test_read_file(void)
{
	CLEANUP(close) int fd = fd_memory("test");
	CLEANUP(free) char *path = NULL;
	void *p = NULL;
	size_t n = 7;
	struct err e = { "" };
	int pipe_fds[2];

	is_int(write_full(fd, "0123456789", 10), 0, "a file of 10 bytes");
	ok(read_file(fd, 10, &p, &n) == 0 && n == 10 && strcmp(p, "0123456789") == 0, "at the limit; a NUL follows");
	free(TAKE(p));
	n = 7;
	is_int(read_file(fd, 9, &p, &n), -E2BIG, "over the limit");
	ok(p == NULL && n == 7, "results untouched");
	is_int(ftruncate(fd, 0), 0, "an empty file");
	ok(read_file(fd, 0, &p, &n) == 0 && n == 0 && p != NULL && *(char *)p == '\0', "is read as an empty text");
	free(TAKE(p));
	is_int(ftruncate(fd, 1ll << 40), 0, "a terabyte of nothing");
	is_int(read_file(fd, 1 << 20, &p, &n), -E2BIG, "is not even allocated");
	if (ok(pipe2(pipe_fds, O_CLOEXEC) == 0, "a pipe")) {
		is_int(read_file(pipe_fds[0], 10, &p, &n), -EINVAL, "is no file: its size says nothing");
		(void)close(pipe_fds[0]);
		(void)close(pipe_fds[1]);
	}
	is_int(read_path("/nowhere/at/all", 10, &p, &n, &e), -ENOENT, "no such path");
	is_str(e.text, "/nowhere/at/all: No such file or directory", "the error names it");
	is_int(read_path("/", 1 << 20, &p, &n, &e), -EISDIR, "a folder is no file");
	is_str(e.text, "/: Is a directory", "the error says so");
	is_int(read_path("/dev/null", 10, &p, &n, &e), -EINVAL, "a device neither");
	is_str(e.text, "/dev/null: not a regular file", "the error says so");
	is_int(read_path("/nowhere", 10, &p, &n, NULL), -ENOENT, "nobody wants the text");
	if (asprintf(&path, "/proc/self/fd/%d", fd) > 0) {
		is_int(read_path(path, 10, &p, &n, &e), -E2BIG, "too large");
		ok(strstr(e.text, "larger than 10 bytes") != NULL, "the error says the limit: %s", e.text);
	}
}

static void test_passing(int pair[2])
{
	char got[8] = "";
	int fds[3] = { -1, -1, -1 }, give[2];
	size_t n = 7;
	struct stat a, b;

	is_int(fd_receive(pair[1], got, sizeof(got), fds, 3, &n), -EAGAIN, "nothing waits");
	give[0] = fd_memory("one");
	give[1] = fd_memory("two");
	is_int(fd_send(pair[0], "hello", 5, give, 2), 0, "a message with two descriptors");
	is_int(fd_receive(pair[1], got, sizeof(got), fds, 3, &n), 5, "arrives");
	ok(memcmp(got, "hello", 5) == 0 && n == 2, "as it was");
	ok(fstat(give[1], &a) == 0 && fstat(fds[1], &b) == 0 && a.st_ino == b.st_ino, "in the same order");
	ok((fcntl(fds[0], F_GETFD) & FD_CLOEXEC) != 0, "and does not leak into programs that we start");
	(void)close(fds[0]);
	(void)close(fds[1]);
	is_int(fd_send(pair[0], "12345678", 8, NULL, 0), 0, "a message that just fits");
	ok(fd_receive(pair[1], got, sizeof(got), fds, 0, &n) == 8 && n == 0, "no descriptors in it");
	(void)close(give[0]);
	(void)close(give[1]);
}

static int send_raw(int sock, size_t n_bytes, const int *fds, size_t n_fds)
{
	char space[CMSG_SPACE(250 * sizeof(int))] = { 0 }, bytes[16] = "raw";
	struct iovec iov = { .iov_base = bytes, .iov_len = n_bytes };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = space,
			    .msg_controllen = CMSG_SPACE(n_fds * sizeof(int)) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&h);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
	memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
	return sendmsg(sock, &h, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* What breaks the rules leaves no descriptor behind. */
static void test_no_leak(int pair[2])
{
	static const struct {
		const char *what;
		size_t n_bytes, n_fds, max_fds;
		ssize_t want;
	} cases[] = {
		{ "more descriptors than asked for", 5, 3, 2, -EPROTO },
		{ "descriptors where none are wanted", 5, 1, 0, -EPROTO },
		{ "a message longer than the buffer", 12, 2, 3, -EPROTO },
		{ "more descriptors than the control buffer takes", 5, 200, 3, -EPROTO },
		{ "an empty message with descriptors, which looks like an end", 0, 2, 3, -EPROTO },
		{ "an empty message with too many of them", 0, 4, 3, -EPROTO },
	};
	int give[200], fds[3];
	unsigned before;
	char got[8];
	size_t i, k;

	for (k = 0; k < ARRAY_SIZE(give); k++)
		give[k] = 0; /* the same one again and again is a descriptor each */
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t n = 7;

		before = open_fds();
		if (!ok(send_raw(pair[0], cases[i].n_bytes, give, cases[i].n_fds) == 0, "sent: %s", cases[i].what))
			continue;
		is_int(fd_receive(pair[1], got, sizeof(got), fds, cases[i].max_fds, &n), cases[i].want, "%s", cases[i].what);
		is_int(n, 7, "no result");
		is_int(open_fds(), before, "nothing left open");
	}
	is_int(fd_send(pair[0], "x", 1, give, FD_SEND_MAX + 1), -E2BIG, "we do not send more than that ourselves");
}

static void test_fd_socket(void)
{
	int pair[2], fds[2];
	char got[8];
	size_t n = 7;

	if (!ok(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0, "a channel"))
		return;
	test_passing(pair);
	test_no_leak(pair);
	(void)close(pair[0]);
	is_int(fd_receive(pair[1], got, sizeof(got), fds, 2, &n), 0, "the end of the channel");
	is_int(n, 0, "brings no descriptor");
	is_int(fd_send(pair[1], "x", 1, NULL, 0), -EPIPE, "and sending there is an error, not a signal");
	(void)close(pair[1]);
}

static void test_seal(void)
{
	CLEANUP(close) int fd = fd_memory("test");
	char got[4];

	ok(fd >= 0 && (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0, "a memory file, close-on-exec");
	is_int(write_full(fd, "abcd", 4), 0, "that can be written");
	is_int(fd_seal(fd), 0, "until it is sealed");
	is_int(pwrite_full(fd, "x", 1, 0), -EPERM, "not changed then");
	is_int(pwrite_full(fd, "x", 1, 4), -EPERM, "nor made longer");
	ok(ftruncate(fd, 2) < 0 && errno == EPERM, "nor cut");
	ok(pread_full(fd, got, 4, 0) == 0 && memcmp(got, "abcd", 4) == 0, "but read");
	is_int(fd_seal(fd), -EPERM, "and not sealed again");
}

/* ---- log ----------------------------------------------------------------------------------------- */

/* A packet socket in the place of stderr: one write, one packet. */
static int log_socket[2], real_stderr;

static bool capture_begin(void)
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, log_socket) < 0)
		return false;
	real_stderr = dup(STDERR_FILENO);
	return real_stderr >= 0 && dup2(log_socket[1], STDERR_FILENO) >= 0;
}

static void capture_end(void)
{
	(void)dup2(real_stderr, STDERR_FILENO);
	(void)close(real_stderr);
	(void)close(log_socket[0]);
	(void)close(log_socket[1]);
}

/* The next packet, or "" when there is none. */
static const char *logged(void)
{
	static char packet[8192];
	ssize_t n = recv(log_socket[0], packet, sizeof(packet) - 1, 0);

	packet[n > 0 ? n : 0] = '\0';
	return packet;
}

static bool ends_with(const char *s, const char *end)
{
	return strlen(s) >= strlen(end) && strcmp(s + strlen(s) - strlen(end), end) == 0;
}

static void test_log_lines(void)
{
	char long_text[5000];
	const char *line;
	size_t i;

	log_open("test", LOG_LEVEL_INFO);
	log_info("object=%d size=%s", 7, "1");
	line = logged();
	ok(ends_with(line, "] info: object=7 size=1\n"), "a line is one write: %s", line);
	ok(strlen(line) > 30 && line[4] == '-' && line[10] == 'T' && line[23] == 'Z' && strncmp(line + 24, " test[", 6) == 0,
	   "time, program and process in front");
	log_error("a\nb\rc\x1b[2Jd\te\x7f");
	ok(ends_with(logged(), "error: a?b?c?[2Jd?e?\n"), "control characters cannot start a line or drive a terminal");
	log_warning("%s", "");
	ok(ends_with(logged(), "warning: \n"), "an empty line is one");
	for (i = 0; i < sizeof(long_text) - 1; i++)
		long_text[i] = (char)('a' + i % 26);
	long_text[i] = '\0';
	log_info("%s", long_text);
	line = logged();
	is_int(strlen(line), 2047, "a long line is cut");
	ok(ends_with(line, "\n") && strchr(line, '\n') == line + 2046, "and ends as a line");
	ok(strncmp(strstr(line, "info: ") + 6, long_text, 1900) == 0, "with its beginning whole");
	is_str(logged(), "", "nothing more was written");
}

static void test_log_levels(void)
{
	static const struct {
		const char *name;
		enum log_level level;
	} names[] = {
		{ "error", LOG_LEVEL_ERROR }, { "warning", LOG_LEVEL_WARNING },
		{ "info", LOG_LEVEL_INFO },   { "debug", LOG_LEVEL_DEBUG },
	};
	enum log_level level = LOG_LEVEL_ERROR;
	size_t i, j;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		ok(log_level_from_name(names[i].name, &level) && level == names[i].level, "level %s", names[i].name);
		log_set_level(names[i].level);
		for (j = 0; j < ARRAY_SIZE(names); j++) {
			is_int(log_enabled(names[j].level), j <= i, "at %s, %s is written or not", names[i].name,
			       names[j].name);
			log_line(names[j].level, "x");
			is_int(logged()[0] != '\0', j <= i, "and so it is");
		}
	}
	ok(!log_level_from_name("INFO", &level) && !log_level_from_name("", &level) && !log_level_from_name("notice", &level),
	   "no other name is a level");
	is_int(level, LOG_LEVEL_DEBUG, "and the result stays");
}

static void test_log_journal(void)
{
	static const char *const others[] = { "", "1", "1:", "0:0", "x:y", "journal" };
	struct stat st;
	char text[64];
	size_t i;

	if (!ok(fstat(STDERR_FILENO, &st) == 0, "stderr has a device and an inode"))
		return;
	(void)snprintf(text, sizeof(text), "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
	(void)setenv("JOURNAL_STREAM", text, 1);
	log_open("test", LOG_LEVEL_DEBUG);
	log_error("e");
	is_str(logged(), "<3>test: e\n", "the journal gets a priority, and keeps time and process itself");
	log_warning("w");
	is_str(logged(), "<4>test: w\n", "warning");
	log_info("i");
	is_str(logged(), "<6>test: i\n", "info");
	log_debug("d");
	is_str(logged(), "<7>test: d\n", "debug");
	for (i = 0; i < ARRAY_SIZE(others); i++) {
		(void)setenv("JOURNAL_STREAM", others[i], 1);
		log_open("test", LOG_LEVEL_INFO);
		log_info("i");
		ok(ends_with(logged(), "] info: i\n"), "JOURNAL_STREAM=\"%s\" is not our stderr", others[i]);
	}
	(void)unsetenv("JOURNAL_STREAM");
	log_open("test", LOG_LEVEL_INFO);
}

static void fatal_in_child(int code)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		log_set_level(LOG_LEVEL_ERROR);
		fatal(code, "reason=%d", code);
	}
	(void)waitpid(pid, &status, 0);
	ok(WIFEXITED(status) && WEXITSTATUS(status) == code, "fatal ends the process with code %d", code);
}

static void test_fatal(void)
{
	static const int codes[] = { FATAL_SOFTWARE, FATAL_OS, FATAL_IO, FATAL_TEMPORARY, FATAL_CONFIG };
	char want[32];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(codes); i++) {
		fatal_in_child(codes[i]);
		(void)snprintf(want, sizeof(want), "error: reason=%d\n", codes[i]);
		ok(ends_with(logged(), want), "after saying why");
	}
}

static void test_log(void)
{
	if (!ok(capture_begin(), "stderr is captured"))
		return;
	test_log_lines();
	test_log_levels();
	test_log_journal();
	test_fatal();
	capture_end();
}

int main(void)
{
	(void)unsetenv("JOURNAL_STREAM");
	test_copy();
	test_copy_padded();
	test_quote();
	test_hex();
	test_base64();
	test_uid();
	test_ae_title();
	test_to_u64();
	test_distance();
	test_buf();
	test_mem();
	test_err();
	test_sha256();
	test_hmac();
	test_digest_fd();
	test_uuid();
	test_stamp();
	test_local();
	test_full();
	test_read_file();
	test_fd_socket();
	test_seal();
	test_log();
	return done();
}
