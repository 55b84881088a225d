/* test_sniff.c: the streaming header reader, the command sets, the spool file's head.
 *
 * Data sets are built here, in all four ways of writing them; each case is fed whole and byte by
 * byte, which must not make a difference.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>

#include "base/fdio.h"
#include "base/mem.h"

#include "dicom/command.h"
#include "dicom/sniff.h"
#include "dicom/spooled.h"

#include "tests/tap.h"

#define UNDEFINED 0xffffffffu
#define CR "1.2.840.10008.5.1.4.1.1.1"

struct set {
	enum sniff_syntax syntax; /* never SNIFF_DEFLATED: see deflated() */
	uint8_t p[1 << 17];
	size_t n;
};

static void put(struct set *s, const void *p, size_t n)
{
	memcpy(s->p + s->n, p, n);
	s->n += n;
}

static void put_int(struct set *s, uint32_t v, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++) {
		unsigned shift = 8 * (s->syntax == SNIFF_EXPLICIT_BE ? bytes - 1 - i : i);

		s->p[s->n++] = (uint8_t)(v >> shift);
	}
}

static void put_tag(struct set *s, uint32_t tag)
{
	put_int(s, tag >> 16, 2);
	put_int(s, tag & 0xffff, 2);
}

/* Items and delimiters, and elements of implicit VR. */
static void bare(struct set *s, uint32_t tag, uint32_t length)
{
	put_tag(s, tag);
	put_int(s, length, 4);
}

static void head(struct set *s, uint32_t tag, const char *vr, uint32_t length)
{
	if (s->syntax == SNIFF_IMPLICIT_LE) {
		bare(s, tag, length);
		return;
	}
	put_tag(s, tag);
	put(s, vr, 2);
	if (strchr("OSU", vr[0]) != NULL && strstr("OB OW SQ UN UT", vr) != NULL) {
		put_int(s, 0, 2);
		put_int(s, length, 4);
	} else {
		put_int(s, length, 2);
	}
}

static void text(struct set *s, uint32_t tag, const char *vr, const char *value)
{
	size_t n = strlen(value);

	head(s, tag, vr, (uint32_t)(n + n % 2));
	put(s, value, n + n % 2); /* the NUL pads */
}

static void sop(struct set *s)
{
	text(s, 0x00080005, "CS", "ISO_IR 100");
	text(s, 0x00080016, "UI", CR);
	text(s, 0x00080018, "UI", "1.2.3.4.5");
}

static void study(struct set *s)
{
	text(s, 0x00100010, "PN", "Nobody");
	text(s, 0x0020000d, "UI", "1.2.3.4");
	text(s, 0x0020000e, "UI", "1.2.3.4.1");
}

static void pixels(struct set *s)
{
	head(s, 0x7fe00010, "OW", 8);
	put(s, "\0\1\2\3\4\5\6\7", 8);
}

static int sniff_set(const struct set *s, bool whole, struct sniff *ret)
{
	struct sniffer *one = sniffer_new(s->syntax);
	struct sniff slowly = { .study_date = 0 };
	int r, r_slowly;

	memset(ret, 0, sizeof(*ret));
	r = sniff_header(s->p, s->n, whole, s->syntax, ret);
	for (size_t i = 0; i < s->n; i++)
		(void)sniffer_feed(one, s->p + i, 1);
	r_slowly = sniffer_end(one, whole, &slowly);
	sniffer_free(one);
	if (r != r_slowly || (r != -EBADMSG && memcmp(ret, &slowly, sizeof(slowly)) != 0)) {
		ok(false, "whole and byte by byte agree (%d, %d)", r, r_slowly);
		return -EINVAL;
	}
	return r;
}

static void check(struct set *s, int want, const char *what)
{
	struct sniff found;

	is_int(sniff_set(s, true, &found), want, "syntax %d: %s", (int)s->syntax, what);
	if (want == 0)
		ok(strcmp(found.sop_class, CR) == 0 && strcmp(found.sop_uid, "1.2.3.4.5") == 0 &&
		   strcmp(found.study_uid, "1.2.3.4") == 0 &&
		   strcmp(found.series_uid, "1.2.3.4.1") == 0, "   and the four UIDs are right");
	s->n = 0;
}

static void test_date(enum sniff_syntax syntax)
{
	static const struct {
		const char *text;
		uint32_t want;
	} cases[] = {
		{ "20260131", 20260131 }, { "19691231", 19691231 }, { "20260131 ", 20260131 }, { "", 0 }, { "2026.01.31", 0 },
		{ "20261331", 0 }, { "20260132", 0 }, { "20260100", 0 }, { "2026013", 0 }, { "202601311", 0 }, { "2026O131", 0 },
	};
	CLEANUP(free) struct set *s = xcalloc(1, sizeof(*s));
	struct sniff found;

	s->syntax = syntax;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		sop(s), text(s, 0x00080020, "DA", cases[i].text), study(s), pixels(s);
		is_int(sniff_set(s, true, &found), 0, "syntax %d: with Study Date '%s'", (int)syntax, cases[i].text);
		is_int(found.study_date, cases[i].want, "   is %u", cases[i].want);
		s->n = 0;
	}
	sop(s), head(s, 0x00081140, "SQ", UNDEFINED), bare(s, 0xfffee000, UNDEFINED), text(s, 0x00080020, "DA", "19990101");
	bare(s, 0xfffee00d, 0), bare(s, 0xfffee0dd, 0), study(s), pixels(s);
	is_int(sniff_set(s, true, &found), 0, "a date inside a sequence");
	is_int(found.study_date, 0, "is not the study's");
}

/* A sequence with two items of undefined length and one nested sequence in each. */
static void nested(struct set *s, uint32_t tag)
{
	head(s, tag, "SQ", UNDEFINED);
	for (int i = 0; i < 2; i++) {
		bare(s, 0xfffee000, UNDEFINED);
		text(s, 0x0020000d, "UI", "9.9.9"); /* another study: must not be taken for ours */
		head(s, 0x00081199, "SQ", UNDEFINED);
		bare(s, 0xfffee000, 0);
		bare(s, 0xfffee0dd, 0);
		bare(s, 0xfffee00d, 0);
	}
	bare(s, 0xfffee0dd, 0);
}

static void test_syntax(enum sniff_syntax syntax)
{
	CLEANUP(free) struct set *s = xcalloc(1, sizeof(*s));
	char zeroes[256] = "";

	s->syntax = syntax;
	sop(s), study(s), pixels(s);
	check(s, 0, "an ordinary data set");
	sop(s), study(s);
	check(s, 0, "ends with the Series UID");
	sop(s), nested(s, 0x00081140), nested(s, 0x00082112), study(s), pixels(s);
	check(s, 0, "nested sequences of undefined length before the Study UID");
	sop(s);
	head(s, 0x00081140, "SQ", 24);
	bare(s, 0xfffee000, 16), put(s, zeroes, 16);
	study(s), pixels(s);
	check(s, 0, "a sequence of defined length is skipped");
	sop(s);
	head(s, 0x00091010, "OB", 100000), s->n += 100000;
	study(s), pixels(s);
	check(s, 0, "100 kB of private data before the Study UID");

	text(s, 0x00080016, "UI", CR), study(s), pixels(s);
	check(s, -ENODATA, "no SOP instance UID");
	sop(s), pixels(s);
	check(s, -ENODATA, "no Study and Series UID");
	check(s, -ENODATA, "empty");
	sop(s), text(s, 0x0020000d, "UI", "../x"), text(s, 0x0020000e, "UI", "1.2.3.4.1");
	check(s, -ENODATA, "a Study UID with other characters");
	sop(s), text(s, 0x0020000d, "UI", "1.02.3"), text(s, 0x0020000e, "UI", "1.2.3.4.1");
	check(s, -ENODATA, "a Study UID with a leading zero");
	sop(s);
	head(s, 0x0020000d, "UI", 66), memset(s->p + s->n, '1', 66), s->n += 66;
	text(s, 0x0020000e, "UI", "1.2.3.4.1");
	check(s, -ENODATA, "a Study UID of 66 characters is not cut to fit");

	sop(s), study(s), s->n -= 3;
	check(s, -EBADMSG, "breaks off inside a UID");
	sop(s), s->n -= 1;
	check(s, -EBADMSG, "breaks off before the Study UID");
	sop(s), head(s, 0x00091010, "OB", 100), put(s, zeroes, 99);
	check(s, -EBADMSG, "breaks off inside a skipped value");
	sop(s), nested(s, 0x00081140), s->n -= 8, study(s), pixels(s);
	check(s, -EBADMSG, "an element inside a sequence but outside its items");
	sop(s), study(s), text(s, 0x0020000d, "UI", "1.2.3.5"), pixels(s);
	check(s, -EBADMSG, "the Study UID a second time");
	text(s, 0x00080018, "UI", "1.2.3.4.5"), text(s, 0x00080016, "UI", CR), study(s);
	check(s, -EBADMSG, "descending tags");
	sop(s), bare(s, 0xfffee00d, 0), study(s);
	check(s, -EBADMSG, "a delimiter without an item");
	sop(s), bare(s, 0xfffe0000, 0), study(s);
	check(s, -EBADMSG, "an unknown delimiter");
	text(s, 0x00020010, "UI", "1.2.840.10008.1.2.1"), sop(s), study(s);
	check(s, -EBADMSG, "File Meta in the data set");
	sop(s);
	for (int i = 0; i < SNIFF_DEPTH_MAX / 2; i++) {
		head(s, 0x00081140, "SQ", UNDEFINED);
		bare(s, 0xfffee000, UNDEFINED);
	}
	head(s, 0x00081140, "SQ", UNDEFINED);
	check(s, -EBADMSG, "nested too deep");
	sop(s), head(s, 0x00081140, "SQ", UNDEFINED);
	while (s->n < sizeof(s->p) - 16)
		bare(s, 0xfffee000, 0);
	bare(s, 0xfffee0dd, 0);
	check(s, -ENODATA, "16 000 empty items are still looked through");
}

static void test_explicit_only(void)
{
	CLEANUP(free) struct set *s = xcalloc(1, sizeof(*s));
	struct sniff found;

	s->syntax = SNIFF_EXPLICIT_LE;
	sop(s);
	/* PS3.5 6.2.2 note 2: UN of undefined length holds implicit VR, whatever the data set has. */
	head(s, 0x00091010, "UN", UNDEFINED);
	s->syntax = SNIFF_IMPLICIT_LE;
	bare(s, 0xfffee000, UNDEFINED);
	text(s, 0x00091011, "CS", "IMPLICIT");
	nested(s, 0x00091012);
	bare(s, 0xfffee00d, 0);
	bare(s, 0xfffee0dd, 0);
	s->syntax = SNIFF_EXPLICIT_LE;
	study(s), pixels(s);
	check(s, 0, "UN of undefined length");
	sop(s), head(s, 0x00091010, "OB", UNDEFINED);
	check(s, -EBADMSG, "OB of undefined length before the pixel data");
	sop(s), head(s, 0x00091010, "XX", 0), study(s);
	check(s, -EBADMSG, "an unknown VR");

	sop(s), study(s);
	s->syntax = SNIFF_IMPLICIT_LE;
	ok(sniff_set(s, true, &found) != 0, "explicit VR under an implicit transfer syntax is refused");
	s->n = 0, sop(s), study(s);
	s->syntax = SNIFF_EXPLICIT_LE;
	is_int(sniff_set(s, true, &found), -EBADMSG, "implicit VR under an explicit one is refused");
	s->n = 0, sop(s);
	is_int(sniff_set(s, false, &found), -ENODATA, "not whole and not yet there: missing");
	is_str(found.sop_uid, "1.2.3.4.5", "   what was found is told");
}

static void test_deflated(void)
{
	CLEANUP(free) struct set *s = xcalloc(1, sizeof(*s));
	uint8_t out[65536];
	struct sniff found;
	z_stream z = { 0 };

	s->syntax = SNIFF_EXPLICIT_LE;
	sop(s), nested(s, 0x00081140), study(s), pixels(s);
	(void)deflateInit2(&z, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
	z.next_in = s->p, z.avail_in = (uInt)s->n, z.next_out = out, z.avail_out = sizeof(out);
	is_int(deflate(&z, Z_FINISH), Z_STREAM_END, "deflated");
	(void)deflateEnd(&z);
	s->syntax = SNIFF_DEFLATED;
	memcpy(s->p, out, z.total_out);
	s->n = z.total_out;
	check(s, 0, "a deflated data set");
	memset(s->p, 0xff, 1000), s->n = 1000;
	is_int(sniff_set(s, true, &found), -EBADMSG, "garbage is not deflated");

	/* A bomb: private data that inflate to 64 MB. */
	s->syntax = SNIFF_EXPLICIT_LE, s->n = 0;
	sop(s), head(s, 0x00091010, "OB", 64 << 20);
	memset(&z, 0, sizeof(z));
	(void)deflateInit2(&z, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
	z.next_in = s->p, z.avail_in = (uInt)s->n, z.next_out = out, z.avail_out = sizeof(out);
	(void)deflate(&z, Z_NO_FLUSH);
	memset(s->p, 0, sizeof(s->p));
	while (z.avail_out > 1000) {
		z.next_in = s->p, z.avail_in = sizeof(s->p);
		(void)deflate(&z, Z_NO_FLUSH);
	}
	(void)deflateEnd(&z);
	s->syntax = SNIFF_DEFLATED;
	memcpy(s->p, out, z.total_out);
	s->n = z.total_out;
	is_int(sniff_set(s, true, &found), -EBADMSG, "a bomb is given up on");
	is_int(sniff_syntax_of("1.2.840.10008.1.2"), SNIFF_IMPLICIT_LE, "implicit");
	is_int(sniff_syntax_of("1.2.840.10008.1.2.4.90"), SNIFF_EXPLICIT_LE, "JPEG 2000 is explicit");
}

static void test_command(void)
{
	struct command q = { .field = COMMAND_C_STORE_RQ, .message_id = 7, .data_set = true,
			     .sop_class = CR, .sop_uid = "1.2.3" }, got;
	uint8_t p[COMMAND_WRITE_MAX + 64];
	size_t n = command_write(&q, p);

	is_int(command_read(p, n, &got), 0, "a C-STORE-RQ, written and read");
	ok(got.field == q.field && got.message_id == 7 && got.data_set &&
	   strcmp(got.sop_class, CR) == 0 && strcmp(got.sop_uid, "1.2.3") == 0, "   is the same");
	q.field = COMMAND_C_STORE_RSP, q.status = 0xa700, q.data_set = false;
	(void)str_copy(q.comment, sizeof(q.comment), "no");
	n = command_write(&q, p);
	is_int(command_read(p, n, &got), 0, "a C-STORE-RSP, written and read");
	ok(got.status == 0xa700 && got.message_id == 7 && !got.data_set, "   is the same");
	for (size_t i = 0; i < n; i++)
		if (command_read(p, i, &got) == 0)
			break;
	ok(command_read(p, n - 1, &got) < 0 && command_read(p, 0, &got) < 0, "cut: refused");
	q.sop_uid[0] = '\0';
	(void)str_copy(q.sop_class, UID_MAX, "../x");
	n = command_write(&q, p);
	is_int(command_read(p, n, &got), 0, "with a malformed UID");
	is_str(got.sop_class, "", "   it comes out as nothing");
	is_int(command_read("\x10\0\x10\0\2\0\0\0ab", 10, &got), -EBADMSG, "another group");
	is_int(command_read("\0\0\0\1\xff\xff\xff\xff", 8, &got), -EBADMSG, "an element of 4 GB");
}

static void test_spooled(void)
{
	struct spooled s = { .sop_class = CR, .sop_uid = "1.2.3", .syntax = "1.2.840.10008.1.2.1",
			     .calling_ae = "MODALITY 1" }, got;
	uint8_t digest[DIGEST_SIZE] = { 1, 2, 3 };
	CLEANUP(close) int fd = fd_memory("spooled");
	CLEANUP(free) void *file = NULL;
	struct spooled_place place;
	size_t n;

	is_int(spooled_begin(fd, &s, &place), 0, "a head is written");
	is_int(lseek(fd, 0, SEEK_CUR), place.data_set, "   and the position is at the data set");
	is_int(write_full(fd, "DATASET!", 8), 0, "   data set");
	is_int(spooled_read(fd, &got), -EBADMSG, "not sealed: not finished");
	is_int(spooled_seal(fd, &place, 8, digest), 0, "sealed");
	is_int(spooled_read(fd, &got), 0, "   reads back");
	ok(strcmp(got.sop_class, CR) == 0 && strcmp(got.sop_uid, "1.2.3") == 0 &&
	   strcmp(got.syntax, s.syntax) == 0 && strcmp(got.calling_ae, "MODALITY 1") == 0 &&
	   got.size == 8 && got.offset == place.data_set &&
	   memcmp(got.digest, digest, DIGEST_SIZE) == 0, "   as written");
	is_int(read_file(fd, 4096, &file, &n), 0, "   as bytes");
	is_int(part10_head(file, n, &got), 0, "any Part 10 head is read from memory");
	is_int(got.offset, place.data_set, "   with the data set's place");
	for (size_t i = 0; i < place.data_set; i++)
		if (part10_head(file, i, &got) == 0)
			ok(false, "cut at %zu: refused", i);
	is_int(ftruncate(fd, (off_t)place.data_set + 7), 0, "a byte short");
	is_int(spooled_read(fd, &got), -EBADMSG, "   the length is the sealed one");
	is_int(ftruncate(fd, 20), 0, "very short");
	is_int(spooled_read(fd, &got), -EBADMSG, "   refused");
	is_int(ftruncate(fd, 0), 0, "empty");
	is_int(spooled_read(fd, &got), -EBADMSG, "   refused");
}

int main(void)
{
	test_date(SNIFF_IMPLICIT_LE);
	test_date(SNIFF_EXPLICIT_LE);
	test_date(SNIFF_EXPLICIT_BE);
	test_syntax(SNIFF_EXPLICIT_LE);
	test_syntax(SNIFF_IMPLICIT_LE);
	test_syntax(SNIFF_EXPLICIT_BE);
	test_explicit_only();
	test_deflated();
	test_command();
	test_spooled();
	return done();
}
