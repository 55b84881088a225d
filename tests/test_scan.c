/* test_scan.c: the walk that decides whether DCMTK may see a file.
 *
 * Holds: what scan_file() finds in well-formed files of each encoding, and that each thing that has
 * hurt DCMTK is refused with a reason, in linear time; scan_gather() joins fragments.
 */
#include <zlib.h>

#include "base/clock.h"
#include "base/mem.h"

#include "dicom/scan.h"

#include "tests/tap.h"

#define IMPLICIT "1.2.840.10008.1.2"
#define EXPLICIT "1.2.840.10008.1.2.1"
#define BIG "1.2.840.10008.1.2.2"
#define DEFLATED "1.2.840.10008.1.2.1.99"
#define JPEG "1.2.840.10008.1.2.4.70"
#define UNDEFINED 0xffffffffu
#define FILE_MAX (8u << 20)

static const struct dicom_limits limits = {
	.side = 4096, .pixels = 1 << 20, .min_side = 64, .depth = 16, .items = 1000, .fragments = 100,
};

/* ---- a writer --------------------------------------------------------------------------------- */

static struct {
	uint8_t p[FILE_MAX];
	size_t n;
	bool implicit, big;
} out;

static void put_bytes(const void *p, size_t n)
{
	if (n > sizeof(out.p) - out.n)
		abort(); /* the test's own mistake */
	memcpy(out.p + out.n, p, n);
	out.n += n;
}

static void put_number(uint32_t v, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		uint8_t b = (uint8_t)(v >> 8 * (out.big ? n - 1 - i : i));

		put_bytes(&b, 1);
	}
}

static void put_tag(uint32_t tag)
{
	put_number(tag >> 16, 2);
	put_number(tag & 0xffff, 2);
}

/* The head of an element; `vr` NULL: an item or delimiter. */
static void put_head(uint32_t tag, const char *vr, uint32_t length)
{
	put_tag(tag);
	if (out.implicit || vr == NULL) {
		put_number(length, 4);
		return;
	}
	put_bytes(vr, 2);
	if (strstr("OB OD OF OL OV OW SQ SV UC UN UR UT UV", vr) != NULL) {
		put_number(0, 2);
		put_number(length, 4);
	} else
		put_number(length, 2);
}

static void put_element(uint32_t tag, const char *vr, const void *value, size_t n)
{
	put_head(tag, vr, (uint32_t)n);
	put_bytes(value, n);
}

static void put_us(uint32_t tag, unsigned v)
{
	put_head(tag, "US", 2);
	put_number(v, 2);
}

/* Preamble and File Meta; what follows is in the encoding of `syntax`. */
static void begin(const char *syntax)
{
	static const uint8_t preamble[128];
	char uid[UID_MAX + 1] = "";
	size_t n = strlen(syntax);

	memset(&out, 0, sizeof(out));
	memcpy(uid, syntax, n);
	put_bytes(preamble, sizeof(preamble));
	put_bytes("DICM", 4);
	put_head(0x00020000, "UL", 4);
	put_number((uint32_t)(8 + n + (n & 1)), 4);
	put_element(0x00020010, "UI", uid, n + (n & 1));
	out.implicit = strcmp(syntax, IMPLICIT) == 0;
	out.big = strcmp(syntax, BIG) == 0;
}

static void put_geometry(void)
{
	put_us(0x00280002, 1);
	put_element(0x00280008, "IS", "1 ", 2);
	put_us(0x00280010, 2);
	put_us(0x00280011, 3);
	put_us(0x00280100, 16);
	put_us(0x00280101, 12);
	put_us(0x00280102, 11);
	put_us(0x00280103, 1);
}

static void put_pixels(void)
{
	static const uint8_t pixels[12] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 };

	put_element(0x7fe00010, "OW", pixels, sizeof(pixels));
}

static enum image_reason scan_out(struct scan *ret)
{
	void *copy = malloc(out.n); /* exactly as long as the file: an overrun shows under a sanitizer */
	int r;

	if (copy == NULL)
		abort();
	memcpy(copy, out.p, out.n);
	r = scan_file(copy, out.n, &limits, ret);
	if (r < 0)
		abort();
	/* Only offsets are looked at afterwards; make them relative to what stays. */
	if (ret->inflated == NULL) {
		if (ret->data_set != NULL)
			ret->data_set = out.p + (ret->data_set - (uint8_t *)copy);
		if (ret->pixels != NULL)
			ret->pixels = out.p + (ret->pixels - (uint8_t *)copy);
	}
	free(copy);
	return ret->reason;
}

static void expect(enum image_reason reason, const char *says, const char *name)
{
	struct scan s;

	is_int(scan_out(&s), reason, "%s", name);
	ok(strstr(s.why, says) != NULL, "%s: \"%s\" has \"%s\"", name, s.why, says);
	scan_free(&s);
}

/* ---- well-formed files ------------------------------------------------------------------------- */

static void deflate_from(size_t at)
{
	static uint8_t packed[FILE_MAX];
	z_stream z = { 0 };

	if (deflateInit2(&z, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		abort();
	z.next_in = out.p + at;
	z.avail_in = (uInt)(out.n - at);
	z.next_out = packed;
	z.avail_out = sizeof(packed);
	if (deflate(&z, Z_FINISH) != Z_STREAM_END)
		abort();
	out.n = at;
	put_bytes(packed, sizeof(packed) - z.avail_out);
	(void)deflateEnd(&z);
}

static void encodings(void)
{
	static const struct {
		const char *syntax;
		enum scan_encoding encoding;
	} cases[] = {
		{ IMPLICIT, SCAN_IMPLICIT_LE }, { EXPLICIT, SCAN_EXPLICIT_LE }, { BIG, SCAN_EXPLICIT_BE },
		{ DEFLATED, SCAN_EXPLICIT_LE },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct scan s;
		size_t at;

		begin(cases[i].syntax);
		at = out.n;
		put_element(0x00080060, "CS", "DX", 2);
		/* a sequence of each kind: known and unknown lengths */
		put_head(0x00082218, "SQ", UNDEFINED);
		put_head(0xfffee000, NULL, UNDEFINED);
		put_us(0x00280010, 99); /* not at top level */
		put_head(0xfffee00d, NULL, 0);
		put_head(0xfffee0dd, NULL, 0);
		put_head(0x00082219, "SQ", 8);
		put_head(0xfffee000, NULL, 0);
		put_geometry();
		put_pixels();
		put_element(0xfffcfffc, "OB", "\0", 1); /* behind the pixels: not read */
		if (strcmp(cases[i].syntax, DEFLATED) == 0)
			deflate_from(at);
		is_int(scan_out(&s), IMAGE_OK, "%s: walked %s", cases[i].syntax, s.why);
		is_str(s.syntax, cases[i].syntax, "syntax of case %zu", i);
		is_int(s.encoding, cases[i].encoding, "%s: encoding", cases[i].syntax);
		ok(s.rows == 2 && s.columns == 3 && s.samples == 1 && s.frames == 1 && s.bits_allocated == 16 &&
		   s.bits_stored == 12 && s.high_bit == 11 && s.has_high_bit && s.is_signed, "%s: geometry", cases[i].syntax);
		ok(!s.encapsulated && s.pixels_size == 12 && s.words && s.pixels[0] == 1 && s.pixels[11] == 12, "%s: pixels",
		   cases[i].syntax);
		ok(s.pixels - s.data_set == (ptrdiff_t)(s.header_size + (s.encoding == SCAN_IMPLICIT_LE ? 8 : 12)),
		   "%s: the header ends where Pixel Data begins", cases[i].syntax);
		scan_free(&s);
	}
}

static void fragments(void)
{
	CLEANUP(free) uint8_t *frame = NULL;
	struct scan s;
	size_t n = 0;

	begin(JPEG);
	put_geometry();
	put_head(0x7fe00010, "OB", UNDEFINED);
	put_element(0xfffee000, NULL, "\0\0\0\0", 4); /* offset table */
	put_element(0xfffee000, NULL, "abcd", 4);
	put_element(0xfffee000, NULL, "", 0);
	put_element(0xfffee000, NULL, "ef", 2);
	put_head(0xfffee0dd, NULL, 0);
	is_int(scan_out(&s), IMAGE_OK, "fragments %s", s.why);
	ok(s.encapsulated && s.fragments == 3, "three fragments without the table");
	is_int(scan_gather(&s, &frame, &n), 0, "gathered");
	ok(n == 6 && memcmp(frame, "abcdef", 6) == 0, "in order, without the table");
	scan_free(&s);

	/* an icon's own pixel data, encapsulated, inside a sequence */
	begin(JPEG);
	put_head(0x00880200, "SQ", UNDEFINED);
	put_head(0xfffee000, NULL, UNDEFINED);
	put_us(0x00280010, 77);
	put_head(0x7fe00010, "OB", UNDEFINED);
	put_element(0xfffee000, NULL, "", 0);
	put_element(0xfffee000, NULL, "xy", 2);
	put_head(0xfffee0dd, NULL, 0);
	put_head(0xfffee00d, NULL, 0);
	put_head(0xfffee0dd, NULL, 0);
	put_geometry();
	put_head(0x7fe00010, "OB", UNDEFINED);
	put_element(0xfffee000, NULL, "", 0);
	put_element(0xfffee000, NULL, "ab", 2);
	put_head(0xfffee0dd, NULL, 0);
	is_int(scan_out(&s), IMAGE_OK, "an icon before the image %s", s.why);
	is_int(s.rows, 2, "the image's rows, not the icon's");
	is_int(s.fragments, 1, "the image's fragments");
	scan_free(&s);

	/* UN of unknown length holds implicit VR (PS3.5 6.2.2) */
	begin(EXPLICIT);
	put_head(0x00091001, "UN", UNDEFINED);
	out.implicit = true;
	put_head(0xfffee000, NULL, UNDEFINED);
	put_element(0x00091002, NULL, "abc ", 4);
	put_head(0xfffee00d, NULL, 0);
	put_head(0xfffee0dd, NULL, 0);
	out.implicit = false;
	put_geometry();
	put_pixels();
	is_int(scan_out(&s), IMAGE_OK, "UN sequence %s", s.why);
	is_int(s.columns, 3, "explicit again behind it");
	scan_free(&s);
}

static void meta(void)
{
	struct scan s;

	out.n = 0;
	expect(IMAGE_NOT_DICOM, "no preamble", "empty file");
	begin(EXPLICIT);
	out.n = 131;
	expect(IMAGE_NOT_DICOM, "no preamble", "131 bytes");
	begin(EXPLICIT);
	out.n = 132;
	expect(IMAGE_NOT_DICOM, "Transfer Syntax", "preamble only");
	begin(EXPLICIT);
	out.n -= 3;
	expect(IMAGE_NOT_DICOM, "File Meta", "cut in the meta group");
	begin("1.2.840.x");
	expect(IMAGE_NOT_DICOM, "Transfer Syntax", "no UID");
	begin(EXPLICIT);
	expect(IMAGE_NO_PIXELS, "(7FE0,0010)", "an empty data set");
	begin(EXPLICIT);
	out.p[132 + 8] = 77; /* the group length lies */
	put_geometry();
	put_pixels();
	is_int(scan_out(&s), IMAGE_OK, "a lying group length does not matter");
	scan_free(&s);
}

/* ---- what must be refused ------------------------------------------------------------------------ */

static void open_sequences(unsigned depth)
{
	for (unsigned i = 0; i < depth; i++) {
		put_head(0x0040a730, "SQ", UNDEFINED);
		put_head(0xfffee000, NULL, UNDEFINED);
	}
}

static void close_sequences(unsigned depth)
{
	for (unsigned i = 0; i < depth; i++) {
		put_head(0xfffee00d, NULL, 0);
		put_head(0xfffee0dd, NULL, 0);
	}
}

static void nesting(void)
{
	static const char *const syntaxes[] = { IMPLICIT, EXPLICIT, BIG };

	for (size_t i = 0; i < ARRAY_SIZE(syntaxes); i++) {
		begin(syntaxes[i]);
		open_sequences(16);
		close_sequences(16);
		put_geometry();
		put_pixels();
		expect(IMAGE_OK, "", "16 deep");
		begin(syntaxes[i]);
		open_sequences(17);
		close_sequences(17);
		put_pixels();
		expect(IMAGE_NOT_DICOM, "nested", "17 deep");
		begin(syntaxes[i]);
		open_sequences(100000);
		expect(IMAGE_NOT_DICOM, "nested", "100000 deep, never closed");
	}
	/* known lengths, implicit VR: only the dictionary knows that these are sequences */
	begin(IMPLICIT);
	for (unsigned i = 5000; i > 0; i--) {
		put_head(0x0040a730, "SQ", 16 * i - 8);
		put_head(0xfffee000, NULL, 16 * i - 16);
	}
	expect(IMAGE_NOT_DICOM, "nested", "5000 deep with lengths in implicit VR");
	/* and inside UN */
	begin(EXPLICIT);
	put_head(0x00091001, "UN", UNDEFINED);
	out.implicit = true;
	put_head(0xfffee000, NULL, UNDEFINED);
	open_sequences(5000);
	expect(IMAGE_NOT_DICOM, "nested", "5000 deep inside UN");
}

static void floods(void)
{
	int64_t begun = clock_boot_ms();

	begin(JPEG);
	put_head(0x7fe00010, "OB", UNDEFINED);
	for (unsigned i = 0; i < 214000; i++)
		put_head(0xfffee000, NULL, 0);
	put_head(0xfffee0dd, NULL, 0);
	expect(IMAGE_TOO_LARGE, "fragments", "214000 fragments");
	begin(EXPLICIT);
	put_head(0x00081140, "SQ", UNDEFINED);
	for (unsigned i = 0; i < 200000; i++)
		put_head(0xfffee000, NULL, 0);
	expect(IMAGE_TOO_LARGE, "items", "200000 items");
	begin(IMPLICIT);
	for (unsigned i = 0; i < 900000; i++)
		put_head(0x00091001, NULL, 0);
	expect(IMAGE_TOO_LARGE, "elements", "900000 elements");
	ok(clock_boot_ms() - begun < 5000, "in reasonable time");
}

static void deflate_bomb(void)
{
	static uint8_t zeroes[1 << 20];
	static uint8_t packed[1 << 20];
	z_stream z = { 0 };

	begin(DEFLATED);
	if (deflateInit2(&z, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		abort();
	z.next_out = packed;
	z.avail_out = sizeof(packed);
	for (unsigned i = 0; i < 100; i++) {
		z.next_in = zeroes;
		z.avail_in = sizeof(zeroes);
		if (deflate(&z, i == 99 ? Z_FINISH : Z_NO_FLUSH) < 0)
			abort();
	}
	put_bytes(packed, sizeof(packed) - z.avail_out);
	(void)deflateEnd(&z);
	expect(IMAGE_TOO_LARGE, "inflates", "100 MB in 100 KB");
	begin(DEFLATED);
	put_bytes("\xff\xff\xff\xff", 4);
	expect(IMAGE_NOT_DICOM, "deflated", "no deflate stream");
	begin(DEFLATED);
	expect(IMAGE_NOT_DICOM, "deflated", "empty deflate stream");
}

static void lengths(void)
{
	struct scan s;

	begin(EXPLICIT);
	put_head(0x00100010, "PN", 100);
	put_bytes("abc", 3);
	expect(IMAGE_NOT_DICOM, "(0010,0010)", "a value beyond the end");
	begin(IMPLICIT);
	put_head(0x00100010, "PN", 0xfffffffe);
	expect(IMAGE_NOT_DICOM, "(0010,0010)", "a 4 GB value");
	begin(EXPLICIT);
	put_head(0x00081140, "SQ", 8);
	put_head(0xfffee000, NULL, 100);
	put_pixels();
	expect(IMAGE_NOT_DICOM, "(FFFE,E000)", "an item beyond its sequence");
	begin(EXPLICIT);
	put_head(0x00081140, "SQ", 16);
	put_head(0xfffee000, NULL, 8);
	put_head(0x00081150, "UI", 20);
	put_pixels();
	expect(IMAGE_NOT_DICOM, "(0008,1150)", "a value beyond its item");
	begin(EXPLICIT);
	put_head(0x00081140, "SQ", UNDEFINED);
	put_head(0xfffee000, NULL, 0);
	expect(IMAGE_NOT_DICOM, "sequence", "a sequence that is not closed");
	begin(EXPLICIT);
	put_head(0x00100010, "XX", 0);
	expect(IMAGE_NOT_DICOM, "no known value representation", "unknown VR");
	begin(EXPLICIT);
	put_head(0xfffee0dd, NULL, 0);
	expect(IMAGE_NOT_DICOM, "item or delimiter", "a delimiter at top level");
	begin(EXPLICIT);
	put_head(0x00091001, "OB", UNDEFINED);
	expect(IMAGE_NOT_DICOM, "no length", "OB without length that is no Pixel Data");
	begin(EXPLICIT);
	put_geometry();
	put_head(0x7fe00010, "OW", 12);
	put_bytes("abc", 3);
	is_int(scan_out(&s), IMAGE_NOT_DICOM, "cut pixels");
	ok(s.header_size > 0, "its header is fine");
	scan_free(&s);
	begin(EXPLICIT);
	put_head(0x00100010, "PN", 100);
	is_int(scan_out(&s), IMAGE_NOT_DICOM, "a cut header");
	is_int(s.header_size, 0, "is not given to anybody");
	scan_free(&s);
	begin(JPEG);
	put_head(0x7fe00010, "OB", UNDEFINED);
	put_head(0xfffee000, NULL, UNDEFINED);
	expect(IMAGE_NOT_DICOM, "not a fragment", "a fragment without length");
	begin(JPEG);
	put_head(0x7fe00010, "OB", UNDEFINED);
	put_head(0xfffee000, NULL, 50);
	expect(IMAGE_NOT_DICOM, "(7FE0,0010)", "a fragment beyond the end");
}

/* Every prefix of a good file is a reason or a header, never a crash. */
static void prefixes(void)
{
	size_t whole;

	begin(EXPLICIT);
	put_head(0x00081140, "SQ", UNDEFINED);
	put_head(0xfffee000, NULL, UNDEFINED);
	put_element(0x00081155, "UI", "1.2 ", 4);
	put_head(0xfffee00d, NULL, 0);
	put_head(0xfffee0dd, NULL, 0);
	put_geometry();
	put_pixels();
	whole = out.n;
	for (size_t n = 0; n < whole; n++) {
		struct scan s;

		out.n = n;
		if (scan_out(&s) == IMAGE_OK) {
			ok(false, "prefix of %zu bytes passes", n);
			return;
		}
		scan_free(&s);
	}
	ok(true, "no prefix of %zu passes", whole);
}

int main(void)
{
	encodings();
	fragments();
	meta();
	nesting();
	floods();
	deflate_bomb();
	lengths();
	prefixes();
	return done();
}
