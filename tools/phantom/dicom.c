/* dicom.c: a Part 10 file, written from the standard and nothing else.
 *
 * Job: DX For Presentation, CR and SC objects (PS3.3 A.26, A.2, A.8.1) that a validator has nothing
 * against, in explicit or implicit VR little endian, and on request two that it has (rows that lie, a
 * file cut short), since a receiver meets those too.
 * Promise: the same input gives the same bytes; dates come from the seed, never from the clock.
 * Never: reads DICOM, and never shares code with what reads it, so that both cannot be wrong together.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rng.h"

#include "body.h"

struct out {
	uint8_t *p;
	size_t len, cap;
	bool implicit;
	bool failed;
};

enum { UNDEFINED = -1 };

static void put(struct out *o, const void *p, size_t n)
{
	if (o->failed)
		return;
	if (n > o->cap - o->len) {
		size_t cap = (o->len + n) * 2 + 4096;   /* the film is bounded, so this cannot wrap */
		uint8_t *q = realloc(o->p, cap);

		if (!q) {
			o->failed = true;
			return;
		}
		o->p = q;
		o->cap = cap;
	}
	memcpy(o->p + o->len, p, n);
	o->len += n;
}

static void put16(struct out *o, unsigned v)
{
	const uint8_t b[2] = { (uint8_t)v, (uint8_t)(v >> 8) };

	put(o, b, 2);
}

static void put32(struct out *o, uint32_t v)
{
	put16(o, v & 0xffff);
	put16(o, v >> 16);
}

/* Tag, VR where there is one, length.  SQ, OB, OW and UN have a 32-bit length in explicit VR. */
static void put_head(struct out *o, uint32_t tag, const char *vr, uint32_t len)
{
	put16(o, tag >> 16);
	put16(o, tag & 0xffff);
	if (o->implicit) {
		put32(o, len);
		return;
	}
	put(o, vr, 2);
	if (!memcmp(vr, "SQ", 2) || !memcmp(vr, "OB", 2) || !memcmp(vr, "OW", 2)) {
		put16(o, 0);
		put32(o, len);
	} else {
		put16(o, len);
	}
}

static void put_text(struct out *o, uint32_t tag, const char *vr, const char *s)
{
	size_t n = strlen(s);

	put_head(o, tag, vr, (uint32_t)(n + (n & 1)));
	put(o, s, n);
	if (n & 1)
		put(o, memcmp(vr, "UI", 2) ? " " : "", 1);
}

static void put_us(struct out *o, uint32_t tag, unsigned v)
{
	put_head(o, tag, "US", 2);
	put16(o, v);
}

static void begin_sequence(struct out *o, uint32_t tag)
{
	put_head(o, tag, "SQ", (uint32_t)UNDEFINED);
	put16(o, 0xfffe);
	put16(o, 0xe000);
	put32(o, (uint32_t)UNDEFINED);
}

static void end_sequence(struct out *o)
{
	put16(o, 0xfffe);
	put16(o, 0xe00d);
	put32(o, 0);
	put16(o, 0xfffe);
	put16(o, 0xe0dd);
	put32(o, 0);
}

static void put_code(struct out *o, const char *value, const char *scheme, const char *meaning)
{
	put_text(o, 0x00080100, "SH", value);
	put_text(o, 0x00080102, "SH", scheme);
	put_text(o, 0x00080104, "LO", meaning);
}

/* What a view is called in each of the places that name it. */
static const struct view_words {
	const char *position, *code, *meaning, *orientation;
} view_words[] = {
	[PHANTOM_PA] = { "PA", "272479007", "postero-anterior", "L\\F" },
	[PHANTOM_AP] = { "AP", "399348003", "antero-posterior", "L\\F" },
	[PHANTOM_LL] = { "LL", "399173006", "left lateral", "P\\F" },
	[PHANTOM_HAND] = { "PA", "272479007", "postero-anterior", "L\\H" },      /* fingers up */
	[PHANTOM_BLANK] = { "PA", "272479007", "postero-anterior", "L\\F" },
};

enum class { CLASS_DX, CLASS_CR, CLASS_SC };

static enum class class_of(const struct phantom_dicom *d)
{
	return !strcmp(d->modality, "DX") ? CLASS_DX : !strcmp(d->modality, "CR") ? CLASS_CR : CLASS_SC;
}

static const char *const class_uid[] = {
	[CLASS_DX] = "1.2.840.10008.5.1.4.1.1.1.1",
	[CLASS_CR] = "1.2.840.10008.5.1.4.1.1.1",
	[CLASS_SC] = "1.2.840.10008.5.1.4.1.1.7",
};

static void put_meta(struct out *o, const struct phantom_dicom *d)
{
	static const uint8_t preamble[128], version[2] = { 0, 1 };
	struct out meta = { .p = NULL };

	put_head(&meta, 0x00020001, "OB", 2);
	put(&meta, version, 2);
	put_text(&meta, 0x00020002, "UI", class_uid[class_of(d)]);
	put_text(&meta, 0x00020003, "UI", d->instance_uid);
	put_text(&meta, 0x00020010, "UI", d->implicit_vr ? "1.2.840.10008.1.2" : "1.2.840.10008.1.2.1");
	put_text(&meta, 0x00020012, "UI", "2.25.167412306894187402159373180265118044712");
	put_text(&meta, 0x00020013, "SH", "PHANTOM_1");

	put(o, preamble, sizeof(preamble));
	put(o, "DICM", 4);
	put_head(o, 0x00020000, "UL", 4);
	put32(o, (uint32_t)meta.len);
	put(o, meta.p, meta.len);
	o->failed |= meta.failed;
	free(meta.p);
}

/* Groups 0008 to 0010: what it is, of whom. */
static void put_identity(struct out *o, const struct phantom_dicom *d)
{
	bool dx = class_of(d) == CLASS_DX, hand = d->view == PHANTOM_HAND;
	struct rng r = rng_open(d->seed, CHANCE_DATE);
	unsigned month = 1 + rng_below(&r, 12), day = 1 + rng_below(&r, 28), year = 2020 + rng_below(&r, 5);
	unsigned hour = 7 + rng_below(&r, 12), min = rng_below(&r, 60), birth = 1 + rng_below(&r, 28);
	char date[16], time[16], born[16], age[8];

	/* Born in January of the right year, so the age holds on every day from 1 February on. */
	(void)snprintf(date, sizeof(date), "%04u%02u%02u", year, month == 1 ? 2 : month, day);
	(void)snprintf(time, sizeof(time), "%02u%02u00", hour, min);
	(void)snprintf(born, sizeof(born), "%04u01%02u", year - d->person.age, birth);
	(void)snprintf(age, sizeof(age), "%03uY", d->person.age);

	put_text(o, 0x00080005, "CS", d->charset);
	put_text(o, 0x00080008, "CS", class_of(d) == CLASS_SC ? "DERIVED\\SECONDARY" : "ORIGINAL\\PRIMARY\\");
	put_text(o, 0x00080016, "UI", class_uid[class_of(d)]);
	put_text(o, 0x00080018, "UI", d->instance_uid);
	put_text(o, 0x00080020, "DA", date);
	put_text(o, 0x00080021, "DA", date);
	put_text(o, 0x00080022, "DA", date);
	put_text(o, 0x00080023, "DA", date);
	put_text(o, 0x00080030, "TM", time);
	put_text(o, 0x00080031, "TM", time);
	put_text(o, 0x00080032, "TM", time);
	put_text(o, 0x00080033, "TM", time);
	put_text(o, 0x00080050, "SH", d->accession);
	put_text(o, 0x00080060, "CS", class_of(d) == CLASS_SC ? "OT" : d->modality);
	if (class_of(d) == CLASS_SC)
		put_text(o, 0x00080064, "CS", "WSD");
	if (dx)
		put_text(o, 0x00080068, "CS", "FOR PRESENTATION");
	put_text(o, 0x00080070, "LO", "Phantom");
	put_text(o, 0x00080090, "PN", "");
	put_text(o, 0x00081030, "LO", hand ? "Phantom hand" : "Phantom chest");
	put_text(o, 0x0008103e, "LO", hand ? "Hand" : d->view == PHANTOM_LL ? "Chest lateral" : "Chest frontal");
	put_text(o, 0x00081090, "LO", "Procedural radiograph");
	if (dx) {
		begin_sequence(o, 0x00082218);
		put_code(o, hand ? "85562004" : "51185008", "SCT", hand ? "Hand" : "Chest");
		end_sequence(o);
	}
	put_text(o, 0x00100010, "PN", d->patient_name);
	put_text(o, 0x00100020, "LO", d->patient_id);
	put_text(o, 0x00100030, "DA", born);
	put_text(o, 0x00100040, "CS", d->person.female ? "F" : "M");
	put_text(o, 0x00101010, "AS", age);
}

/* Groups 0018 and 0020: how it was taken, and where it belongs. */
static void put_acquisition(struct out *o, const struct phantom_dicom *d, const char *spacing)
{
	const struct view_words *v = &view_words[d->view];
	bool hand = d->view == PHANTOM_HAND, sc = class_of(d) == CLASS_SC, dx = class_of(d) == CLASS_DX;

	put_text(o, 0x00180015, "CS", hand ? "HAND" : "CHEST");
	if (!sc)
		put_text(o, 0x00180060, "DS", hand ? "55" : "120");
	put_text(o, 0x00181020, "LO", "1");
	if (!sc) {
		put_text(o, 0x00181164, "DS", spacing);
		if (dx)
			put_text(o, 0x00181508, "CS", "COLUMN");
		put_text(o, 0x00185101, "CS", v->position);
	}
	if (dx)
		put_text(o, 0x00187004, "CS", "SCINTILLATOR");
	put_text(o, 0x0020000d, "UI", d->study_uid);
	put_text(o, 0x0020000e, "UI", d->series_uid);
	put_text(o, 0x00200010, "SH", "1");
	put_text(o, 0x00200011, "IS", "1");
	put_text(o, 0x00200013, "IS", "1");
	put_text(o, 0x00200020, "CS", v->orientation);
	if (dx)
		put_text(o, 0x00200062, "CS", hand ? "R" : "U");
	else if (hand)  /* only where the body part is one of a pair */
		put_text(o, 0x00200060, "CS", "R");
}

/* Group 0028 up to the pixels. */
static void put_image(struct out *o, const struct phantom_dicom *d, unsigned rows, unsigned columns,
		      const char *spacing)
{
	char center[16], width[16];
	bool dx = class_of(d) == CLASS_DX;

	(void)snprintf(center, sizeof(center), "%u", 1u << (d->bits - 1));
	(void)snprintf(width, sizeof(width), "%u", 1u << d->bits);
	put_us(o, 0x00280002, 1);
	put_text(o, 0x00280004, "CS", d->inverted ? "MONOCHROME1" : "MONOCHROME2");
	put_us(o, 0x00280010, d->wrong_rows ? 2 * rows : rows);
	put_us(o, 0x00280011, columns);
	put_text(o, 0x00280030, "DS", spacing);
	put_us(o, 0x00280100, d->bits > 8 ? 16 : 8);
	put_us(o, 0x00280101, d->bits);
	put_us(o, 0x00280102, d->bits - 1);
	put_us(o, 0x00280103, 0);
	if (d->tagged)
		put_text(o, 0x00280300, "CS", "YES");
	put_text(o, 0x00280301, "CS", "NO");
	if (dx) {
		put_text(o, 0x00281040, "CS", "LOG");
		/* -1: a larger stored value means fewer X-rays, which is MONOCHROME2 on a film */
		put_head(o, 0x00281041, "SS", 2);
		put16(o, d->inverted ? 1 : 0xffff);
	}
	put_text(o, 0x00281050, "DS", center);
	put_text(o, 0x00281051, "DS", width);
	if (dx) {
		put_text(o, 0x00281052, "DS", "0");
		put_text(o, 0x00281053, "DS", "1");
		put_text(o, 0x00281054, "LO", "US");
	}
	put_text(o, 0x00282110, "CS", "00");
}

static void put_pixels(struct out *o, const struct phantom_film *f, const struct phantom_dicom *d)
{
	size_t n = (size_t)f->width * f->height, bytes = n * (d->bits > 8 ? 2 : 1);
	float top = (float)((1u << d->bits) - 1);

	put_head(o, 0x7fe00010, d->bits > 8 ? "OW" : "OB", (uint32_t)(bytes + (bytes & 1)));
	for (size_t i = 0; i < n; i++) {
		unsigned v = (unsigned)(clampf(f->px[i], 0, 1) * top + .5f);

		if (d->inverted)
			v = (1u << d->bits) - 1 - v;
		if (d->bits > 8)
			put16(o, v);
		else
			put(o, &(uint8_t){ (uint8_t)v }, 1);
	}
	if (bytes & 1)
		put(o, "", 1);
	if (d->truncated && !o->failed)
		o->len -= bytes / 2;
}

int phantom_write_dicom(const struct phantom_film *film, const struct phantom_dicom *d, uint8_t **ret,
			size_t *ret_len)
{
	struct out o = { .p = NULL };
	float side = (float)(film->width < film->height ? film->width : film->height);
	unsigned um = (unsigned)((d->view == PHANTOM_HAND ? 240e3f : 400e3f) / side + .5f);
	bool dx = class_of(d) == CLASS_DX;
	char spacing[40];

	/* Thousandths in integers: printf of a float would ask the locale for its point. */
	(void)snprintf(spacing, sizeof(spacing), "%u.%03u\\%u.%03u", um / 1000, um % 1000, um / 1000, um % 1000);
	put_meta(&o, d);
	o.implicit = d->implicit_vr;
	put_identity(&o, d);
	put_acquisition(&o, d, spacing);
	put_image(&o, d, film->height, film->width, spacing);
	if (dx) {
		put_head(&o, 0x00400555, "SQ", 0);
		begin_sequence(&o, 0x00540220);
		put_code(&o, view_words[d->view].code, "SCT", view_words[d->view].meaning);
		put_head(&o, 0x00540222, "SQ", 0);
		end_sequence(&o);
		put_text(&o, 0x20500020, "CS", d->inverted ? "INVERSE" : "IDENTITY");
	}
	put_pixels(&o, film, d);
	if (o.failed) {
		free(o.p);
		return -ENOMEM;
	}
	*ret = o.p;
	*ret_len = o.len;
	return 0;
}
