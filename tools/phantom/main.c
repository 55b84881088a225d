/* main.c: the phantom command.
 *
 * Job: read the command line, render one film, write it as DICOM, as bare grey bytes, as a list of what
 * is on it.
 * Promise: the same options give the same bytes; a wrong option is named, with what to write instead, and
 * nothing is written.
 * Never: reads a file; asks for the time; invents a patient who could exist.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "rng.h"

#include "body.h"

enum { EXIT_USAGE = 2, MAX_UID = 64, MAX_TEXT = 64, MAX_ACCESSION = 16 };

struct job {
	struct phantom_spec spec;
	struct phantom_dicom dicom;
	const char *out, *raw, *json;
	char id[40], name[40], accession[17];
	char uid[3][MAX_UID + 1];       /* study, series, instance, where not given */
};

static const char usage[] =
"phantom - draw a chest radiograph that was never taken, and write it as DICOM\n"
"\n"
"usage: phantom [options] -o FILE.dcm\n"
"\n"
"What is on the film\n"
"  --seed N                  who and how (default 1): build, age, pose, exposure, all chance\n"
"  --view VIEW               PA (default), AP, LL (left lateral), hand, blank (an empty exposure)\n"
"  --finding NAME[=WORDS]    add a finding; repeat for more; none means a normal chest.  WORDS, comma\n"
"                            between, in any order; what is left out is drawn from the seed:\n"
"                              right left both          the patient's side (left is at the viewer's right)\n"
"                              small moderate large     and massive, for an effusion\n"
"                              RUL RML RLL LUL LLL      lobe of an opacity, nodule or mass\n"
"                            NAME: effusion pneumothorax cardiomegaly opacity nodule mass edema\n"
"                            emphysema atelectasis pleural-thickening fracture pacemaker tube line\n"
"  --size WxH                pixels, 32 to 4096 a side (default 1024x1024)\n"
"\n"
"How it is written\n"
"  -o, --output FILE         DICOM file\n"
"  --modality M              DX (default, for presentation), CR, SC (secondary capture)\n"
"  --photometric P           MONOCHROME2 (default) or MONOCHROME1\n"
"  --bits N                  bits stored, 8 to 16 (default 12)\n"
"  --syntax S                explicit (default) or implicit VR, little endian\n"
"  --raw FILE                also the pixels as W*H bytes, 0 black to 255 white\n"
"  --json FILE               also the findings, with boxes [x0, y0, x1, y1] in pixels, ends exclusive\n"
"\n"
"What its tags say (defaults follow from the options, so a repeat gives the same bytes)\n"
"  --patient-id S --patient-name S --accession S\n"
"  --study-uid UID --series-uid UID --instance-uid UID\n"
"                            give several files one --study-uid to make a study of them\n"
"  --charset NAME            Specific Character Set (default ISO_IR 100); names are written as given\n"
"  --no-tag                  leave out Quality Control Image (0028,0300) = YES, which marks a phantom\n"
"\n"
"For tests of a receiver\n"
"  --wrong-rows              Rows says twice what the pixel data holds\n"
"  --truncate                end the file in the middle of the pixel data\n"
"\n"
"example: phantom --seed 42 --finding effusion=left,large --finding nodule=RUL -o p.dcm --json p.json\n";

static int complain(const char *option, const char *got, const char *what)
{
	(void)fprintf(stderr, "phantom: %s: \"%s\" %s\n", option, got, what);
	return -EINVAL;
}

/* Digits only: strtoul would take a sign, blanks and a hexadecimal. */
static bool parse_number(const char *s, size_t len, uint64_t max, uint64_t *ret)
{
	uint64_t v = 0;

	if (len == 0)
		return false;
	for (size_t i = 0; i < len; i++) {
		unsigned d = (unsigned)(s[i] - '0');

		if (s[i] < '0' || s[i] > '9' || v > (max - d) / 10)
			return false;
		v = v * 10 + d;
	}
	*ret = v;
	return true;
}

/* PS3.5 9: digits and single dots, at most 64, no component with a leading zero. */
static bool valid_uid(const char *s)
{
	size_t n = strlen(s);

	if (n == 0 || n > MAX_UID || s[n - 1] == '.')
		return false;
	for (size_t i = 0; i < n; i++) {
		bool first = i == 0 || s[i - 1] == '.';

		if (s[i] == '.' ? first : s[i] < '0' || s[i] > '9')
			return false;
		if (first && s[i] == '0' && s[i + 1] && s[i + 1] != '.')
			return false;
	}
	return true;
}

static bool word_is(const char *word, size_t len, const char *name)
{
	return name && strlen(name) == len && !strncasecmp(word, name, len);
}

/* One word after the `=` of a finding: a side, a size or a lobe. */
static bool parse_finding_word(const char *w, size_t len, struct phantom_finding *f, bool *both)
{
	bool lobed = f->kind == PHANTOM_OPACITY || f->kind == PHANTOM_NODULE || f->kind == PHANTOM_MASS;

	if (word_is(w, len, "both")) {
		*both = true;
		return true;
	}
	for (int i = PHANTOM_RIGHT; i <= PHANTOM_LEFT; i++) {
		if (word_is(w, len, phantom_side_name((enum phantom_side)i))) {
			f->side = (enum phantom_side)i;
			return true;
		}
	}
	for (int i = PHANTOM_SMALL; i <= (f->kind == PHANTOM_EFFUSION ? PHANTOM_MASSIVE : PHANTOM_LARGE); i++) {
		if (word_is(w, len, phantom_size_name((enum phantom_size)i))) {
			f->size = (enum phantom_size)i;
			return true;
		}
	}
	for (int i = PHANTOM_RUL; lobed && i <= PHANTOM_LLL; i++) {
		if (word_is(w, len, phantom_lobe_name((enum phantom_lobe)i))) {
			f->lobe = (enum phantom_lobe)i;
			return true;
		}
	}
	return false;
}

static int add_finding(struct phantom_spec *spec, const struct phantom_finding *f)
{
	if (spec->findings == PHANTOM_MAX_FINDINGS)
		return complain("--finding", phantom_kind_name(f->kind), "is one too many: at most 24 findings fit");
	spec->finding[spec->findings++] = *f;
	return 0;
}

static int parse_finding(const char *arg, struct phantom_spec *spec)
{
	struct phantom_finding f = { .kind = PHANTOM_KINDS };
	size_t len = strcspn(arg, "=");
	const char *p = arg + len;
	bool both = false;
	int r;

	for (int k = 0; k < PHANTOM_KINDS; k++)
		if (word_is(arg, len, phantom_kind_name((enum phantom_kind)k)))
			f.kind = (enum phantom_kind)k;
	if (f.kind == PHANTOM_KINDS)
		return complain("--finding", arg, "is not a finding: see --help for the names");
	while (*p) {
		p++;
		len = strcspn(p, ",");
		if (!parse_finding_word(p, len, &f, &both))
			return complain("--finding", arg, "has a word that does not fit it: a side (right, left, both), "
					"a size (small, moderate, large; massive for an effusion) or, for opacity, "
					"nodule and mass, a lobe (RUL, RML, RLL, LUL, LLL)");
		p += len;
	}
	if (f.lobe != PHANTOM_LOBE_ANY && (both || f.side != PHANTOM_SIDE_ANY))
		return complain("--finding", arg, "names a lobe and a side: the lobe says it already");
	if (!both)
		return add_finding(spec, &f);
	f.side = PHANTOM_RIGHT;
	r = add_finding(spec, &f);
	if (r < 0)
		return r;
	f.side = PHANTOM_LEFT;
	return add_finding(spec, &f);
}

static int parse_size(const char *arg, struct phantom_spec *spec)
{
	size_t len = strcspn(arg, "xX");
	uint64_t w, h;

	if (!arg[len] || !parse_number(arg, len, PHANTOM_MAX_SIDE, &w) ||
	    !parse_number(arg + len + 1, strlen(arg + len + 1), PHANTOM_MAX_SIDE, &h) || w < PHANTOM_MIN_SIDE ||
	    h < PHANTOM_MIN_SIDE)
		return complain("--size", arg, "is not a size: write WIDTHxHEIGHT, each 32 to 4096, as 1024x1024");
	spec->width = (unsigned)w;
	spec->height = (unsigned)h;
	return 0;
}

/* Text that goes into a tag as it is, in whatever character set: bounded, and of the control characters
 * only ESC, which ISO 2022 needs.  A backslash passes: in some character sets it is half a letter.
 */
static int take_text(const char *option, const char *arg, size_t max, const char **ret)
{
	if (strlen(arg) > max)
		return complain(option, arg, max == MAX_ACCESSION ? "is too long: at most 16 bytes" :
				"is too long: at most 64 bytes");
	for (const char *p = arg; *p; p++)
		if ((unsigned char)*p < 0x20 && *p != 0x1b)
			return complain(option, arg, "holds a control character: give plain text");
	*ret = arg;
	return 0;
}

static int take_uid(const char *option, const char *arg, const char **ret)
{
	if (!valid_uid(arg))
		return complain(option, arg, "is not a UID: digits and single dots, at most 64, no leading zeros");
	*ret = arg;
	return 0;
}

static int take_choice(const char *option, const char *arg, const char *const *choice, size_t n, const char *what,
		       size_t *ret)
{
	for (size_t i = 0; i < n; i++) {
		if (!strcasecmp(arg, choice[i])) {
			*ret = i;
			return 0;
		}
	}
	return complain(option, arg, what);
}

enum { OPT_SEED = 256, OPT_VIEW, OPT_FINDING, OPT_SIZE, OPT_MODALITY, OPT_PHOTOMETRIC, OPT_BITS, OPT_SYNTAX, OPT_RAW,
       OPT_JSON, OPT_ID, OPT_NAME, OPT_ACCESSION, OPT_STUDY, OPT_SERIES, OPT_INSTANCE, OPT_CHARSET, OPT_NO_TAG,
       OPT_WRONG_ROWS, OPT_TRUNCATE };

static const struct option options[] = {
	{ "seed", required_argument, NULL, OPT_SEED },
	{ "view", required_argument, NULL, OPT_VIEW },
	{ "finding", required_argument, NULL, OPT_FINDING },
	{ "size", required_argument, NULL, OPT_SIZE },
	{ "output", required_argument, NULL, 'o' },
	{ "modality", required_argument, NULL, OPT_MODALITY },
	{ "photometric", required_argument, NULL, OPT_PHOTOMETRIC },
	{ "bits", required_argument, NULL, OPT_BITS },
	{ "syntax", required_argument, NULL, OPT_SYNTAX },
	{ "raw", required_argument, NULL, OPT_RAW },
	{ "json", required_argument, NULL, OPT_JSON },
	{ "patient-id", required_argument, NULL, OPT_ID },
	{ "patient-name", required_argument, NULL, OPT_NAME },
	{ "accession", required_argument, NULL, OPT_ACCESSION },
	{ "study-uid", required_argument, NULL, OPT_STUDY },
	{ "series-uid", required_argument, NULL, OPT_SERIES },
	{ "instance-uid", required_argument, NULL, OPT_INSTANCE },
	{ "charset", required_argument, NULL, OPT_CHARSET },
	{ "no-tag", no_argument, NULL, OPT_NO_TAG },
	{ "wrong-rows", no_argument, NULL, OPT_WRONG_ROWS },
	{ "truncate", no_argument, NULL, OPT_TRUNCATE },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

static int take_option(struct job *j, int opt, const char *arg)
{
	static const char *const views[] = { "PA", "AP", "LL", "hand", "blank" };
	static const char *const modalities[] = { "DX", "CR", "SC" };
	static const char *const photometrics[] = { "MONOCHROME2", "MONOCHROME1" };
	static const char *const syntaxes[] = { "explicit", "implicit" };
	struct phantom_dicom *d = &j->dicom;
	uint64_t n;
	size_t i;
	int r;

	switch (opt) {
	case 'o':
		j->out = arg;
		return 0;
	case OPT_RAW:
		j->raw = arg;
		return 0;
	case OPT_JSON:
		j->json = arg;
		return 0;
	case OPT_SEED:
		if (!parse_number(arg, strlen(arg), UINT64_MAX, &j->spec.seed))
			return complain("--seed", arg, "is not a seed: give a whole number from 0 to 2^64-1");
		return 0;
	case OPT_BITS:
		if (!parse_number(arg, strlen(arg), 16, &n) || n < 8)
			return complain("--bits", arg, "is not a depth: give 8 to 16");
		d->bits = (unsigned)n;
		return 0;
	case OPT_VIEW:
		r = take_choice("--view", arg, views, 5, "is not a view: PA, AP, LL, hand or blank", &i);
		if (r == 0)
			j->spec.view = (enum phantom_view)i;
		return r;
	case OPT_MODALITY:
		r = take_choice("--modality", arg, modalities, 3, "is not a modality: DX, CR or SC", &i);
		if (r == 0)
			d->modality = modalities[i];
		return r;
	case OPT_PHOTOMETRIC:
		r = take_choice("--photometric", arg, photometrics, 2, "is not known: MONOCHROME1 or MONOCHROME2", &i);
		if (r == 0)
			d->inverted = i;
		return r;
	case OPT_SYNTAX:
		r = take_choice("--syntax", arg, syntaxes, 2, "is not a syntax: explicit or implicit", &i);
		if (r == 0)
			d->implicit_vr = i;
		return r;
	case OPT_FINDING:
		return parse_finding(arg, &j->spec);
	case OPT_SIZE:
		return parse_size(arg, &j->spec);
	case OPT_ID:
		return take_text("--patient-id", arg, MAX_TEXT, &d->patient_id);
	case OPT_NAME:
		return take_text("--patient-name", arg, MAX_TEXT, &d->patient_name);
	case OPT_ACCESSION:
		return take_text("--accession", arg, MAX_ACCESSION, &d->accession);
	case OPT_CHARSET:
		return take_text("--charset", arg, MAX_TEXT, &d->charset);
	case OPT_STUDY:
		return take_uid("--study-uid", arg, &d->study_uid);
	case OPT_SERIES:
		return take_uid("--series-uid", arg, &d->series_uid);
	case OPT_INSTANCE:
		return take_uid("--instance-uid", arg, &d->instance_uid);
	case OPT_NO_TAG:
		d->tagged = false;
		return 0;
	case OPT_WRONG_ROWS:
		d->wrong_rows = true;
		return 0;
	case OPT_TRUNCATE:
		d->truncated = true;
		return 0;
	default:        /* getopt has already said what it did not know */
		(void)fputs("phantom: see phantom --help\n", stderr);
		return -EINVAL;
	}
}

/* ---- names that follow from the options */

struct digest {
	uint64_t a, b;
};

static void digest_add(struct digest *h, const void *p, size_t n)
{
	const uint8_t *s = p;

	for (size_t i = 0; i < n; i++) {
		h->a = (h->a ^ s[i]) * 0x100000001b3u;
		h->b = rng_mix(h->b + s[i] + 0x9e3779b97f4a7c15u);
	}
}

static void digest_number(struct digest *h, uint64_t v)
{
	uint8_t b[8];

	for (int i = 0; i < 8; i++)
		b[i] = (uint8_t)(v >> (8 * i));
	digest_add(h, b, 8);
}

static void digest_text(struct digest *h, const char *s)
{
	digest_add(h, s ? s : "", s ? strlen(s) + 1 : 1);
}

/* 2.25 and a UUID in decimal (PS3.5 B.2): version 8, our own recipe, of the digest's 128 bits. */
static void write_uid(struct digest h, uint64_t kind, char ret[MAX_UID + 1])
{
	uint64_t hi, lo;
	char digits[40];
	size_t n = 0;

	digest_number(&h, kind);
	hi = (rng_mix(h.a ^ (h.b << 1)) & ~(uint64_t)0xf000) | 0x8000;
	lo = (rng_mix(h.b + h.a) & ~((uint64_t)3 << 62)) | (uint64_t)2 << 62;
	while (hi || lo) {
		/* Long division by ten over four 32-bit words: no 128-bit type needed. */
		uint64_t w[4] = { hi >> 32, hi & 0xffffffff, lo >> 32, lo & 0xffffffff }, rest = 0;

		for (int i = 0; i < 4; i++) {
			rest = rest << 32 | w[i];
			w[i] = rest / 10;
			rest %= 10;
		}
		digits[n++] = (char)('0' + rest);
		hi = w[0] << 32 | w[1];
		lo = w[2] << 32 | w[3];
	}
	(void)snprintf(ret, MAX_UID + 1, "2.25.");
	for (size_t i = 0; i < n; i++)
		ret[5 + i] = digits[n - 1 - i];
	ret[5 + n] = '\0';
}

/* Everything that changes the file changes its UIDs: one UID, one sequence of bytes. */
static struct digest digest_of(const struct job *j)
{
	const struct phantom_dicom *d = &j->dicom;
	struct digest h = { 0xcbf29ce484222325u, 0 };

	digest_number(&h, j->spec.seed);
	digest_number(&h, (uint64_t)j->spec.view);
	digest_number(&h, (uint64_t)j->spec.width << 32 | j->spec.height);
	for (size_t i = 0; i < j->spec.findings; i++) {
		const struct phantom_finding *f = &j->spec.finding[i];

		digest_number(&h, (uint64_t)f->kind << 24 | (uint64_t)f->side << 16 | (uint64_t)f->size << 8 |
				  (uint64_t)f->lobe);
	}
	digest_text(&h, d->modality);
	digest_number(&h, d->bits << 5 | (unsigned)d->inverted << 4 | (unsigned)d->implicit_vr << 3 |
			  (unsigned)d->tagged << 2 | (unsigned)d->wrong_rows << 1 | (unsigned)d->truncated);
	digest_text(&h, d->charset);
	digest_text(&h, d->patient_id);
	digest_text(&h, d->patient_name);
	digest_text(&h, d->accession);
	digest_text(&h, d->study_uid);
	digest_text(&h, d->series_uid);
	return h;
}

static void fill_names(struct job *j)
{
	struct phantom_dicom *d = &j->dicom;
	struct digest h;

	h = digest_of(j);
	(void)snprintf(j->id, sizeof(j->id), "PHANTOM-%llu", (unsigned long long)j->spec.seed);
	(void)snprintf(j->name, sizeof(j->name), "Phantom^Seed%llu", (unsigned long long)j->spec.seed);
	/* SH has 16 characters: P and 15 digits of the digest. */
	(void)snprintf(j->accession, sizeof(j->accession), "P%015llu",
		       (unsigned long long)(rng_mix(h.a + h.b) % 1000000000000000u));
	for (uint64_t i = 0; i < 3; i++)
		write_uid(h, i, j->uid[i]);
	d->view = j->spec.view;
	d->seed = j->spec.seed;
	d->person = phantom_person_of(j->spec.seed);
	d->patient_id = d->patient_id ? d->patient_id : j->id;
	d->patient_name = d->patient_name ? d->patient_name : j->name;
	d->accession = d->accession ? d->accession : j->accession;
	d->study_uid = d->study_uid ? d->study_uid : j->uid[0];
	d->series_uid = d->series_uid ? d->series_uid : j->uid[1];
	d->instance_uid = d->instance_uid ? d->instance_uid : j->uid[2];
}

/* ---- output */

static int write_file(const char *path, const void *p, size_t n)
{
	FILE *f = fopen(path, "wb");
	int r = 0;

	if (!f) {
		r = -errno;
	} else {
		if (fwrite(p, 1, n, f) != n)
			r = errno ? -errno : -EIO;
		if (fclose(f) != 0 && r == 0)
			r = -errno;
	}
	if (r < 0)
		(void)fprintf(stderr, "phantom: cannot write %s: %s\n", path, strerror(-r));
	return r;
}

static int write_raw(const char *path, const struct phantom_film *film)
{
	size_t n = (size_t)film->width * film->height;
	uint8_t *b = malloc(n);
	int r;

	if (!b)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		b[i] = (uint8_t)(clampf(film->px[i], 0, 1) * 255 + .5f);
	r = write_file(path, b, n);
	free(b);
	return r;
}

static int write_json(const char *path, const struct job *j, const struct phantom_film *film)
{
	const struct phantom_person *who = &j->dicom.person;
	FILE *f = fopen(path, "w");
	int r = 0;

	if (!f) {
		r = -errno;
		(void)fprintf(stderr, "phantom: cannot write %s: %s\n", path, strerror(errno));
		return r;
	}
	(void)fprintf(f, "{\n\t\"seed\": %llu,\n\t\"view\": \"%s\",\n\t\"sex\": \"%s\",\n\t\"age\": %u,\n"
			 "\t\"width\": %u,\n\t\"height\": %u,\n\t\"study_uid\": \"%s\",\n\t\"instance_uid\": \"%s\",\n"
			 "\t\"findings\": [",
		      (unsigned long long)j->spec.seed, phantom_view_name(j->spec.view), who->female ? "F" : "M",
		      who->age, film->width, film->height, j->dicom.study_uid, j->dicom.instance_uid);
	for (size_t i = 0; i < film->findings; i++) {
		const struct phantom_finding *g = &film->finding[i];
		const char *side = phantom_side_name(g->side), *lobe = phantom_lobe_name(g->lobe);

		(void)fprintf(f, "%s\n\t\t{ \"name\": \"%s\"", i ? "," : "", phantom_kind_name(g->kind));
		if (side)
			(void)fprintf(f, ", \"side\": \"%s\"", side);
		if (lobe)
			(void)fprintf(f, ", \"lobe\": \"%s\"", lobe);
		(void)fprintf(f, ", \"size\": \"%s\", \"box\": [%u, %u, %u, %u] }", phantom_size_name(g->size),
			      g->box.x0, g->box.y0, g->box.x1, g->box.y1);
	}
	(void)fprintf(f, "%s]\n}\n", film->findings ? "\n\t" : "");
	/* One look at the end: a stream remembers its first failure. */
	if (ferror(f))
		r = -EIO;
	if (fclose(f) != 0)
		r = -errno;
	if (r < 0)
		(void)fprintf(stderr, "phantom: cannot write %s: %s\n", path, strerror(-r));
	return r;
}

static int run(struct job *j)
{
	struct phantom_film film;
	uint8_t *dcm;
	size_t len;
	int r;

	fill_names(j);
	r = phantom_render(&j->spec, &film);
	if (r < 0) {
		(void)fprintf(stderr, "phantom: cannot render: %s\n", strerror(-r));
		return r;
	}
	if (j->out) {
		r = phantom_write_dicom(&film, &j->dicom, &dcm, &len);
		if (r == 0) {
			r = write_file(j->out, dcm, len);
			free(dcm);
		}
	}
	if (r == 0 && j->raw)
		r = write_raw(j->raw, &film);
	if (r == 0 && j->json)
		r = write_json(j->json, j, &film);
	phantom_film_free(&film);
	return r;
}

int main(int argc, char **argv)
{
	struct job j = {
		.spec = { .seed = 1, .width = 1024, .height = 1024 },
		.dicom = { .modality = "DX", .bits = 12, .tagged = true, .charset = "ISO_IR 100" },
	};
	int opt;

	while ((opt = getopt_long(argc, argv, "o:h", options, NULL)) != -1) {
		if (opt == 'h')
			return fputs(usage, stdout) == EOF || fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
		if (take_option(&j, opt, optarg) < 0)
			return EXIT_USAGE;
	}
	if (optind < argc) {
		(void)complain("argument", argv[optind], "is not expected: the file goes after -o");
		return EXIT_USAGE;
	}
	if (!j.out && !j.raw && !j.json) {
		(void)fputs("phantom: nothing to write: name a file with -o FILE.dcm (or see --help)\n", stderr);
		return EXIT_USAGE;
	}
	if (j.spec.findings && j.spec.view != PHANTOM_PA && j.spec.view != PHANTOM_AP) {
		(void)complain("--finding", phantom_view_name(j.spec.view),
			       "has no findings: they are drawn on --view PA and AP");
		return EXIT_USAGE;
	}
	return run(&j) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
