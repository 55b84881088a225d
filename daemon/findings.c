/* findings.c: see findings.h.
 *
 * A findings list decides what a radiologist reads, so whatever could make it say something untrue
 * is refused here, with the remedy: a SNOMED CT code that fails its check digit (published tables
 * hold codes that mean another disease), two findings that share a prompt, a calibration that was
 * fitted for another prompt, a threshold without the figures that justify it, an urgent finding
 * that could never be called present.
 *
 * What is right but does not apply here (other weights, recipe or precision) is no error: then the
 * finding has a raw score only, and findings.h's two functions say so.
 *
 * Never here: prompts' tokens (the model knows those), files other than the list.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/digest.h"
#include "base/err.h"
#include "base/fdio.h"
#include "base/mem.h"
#include "base/str.h"

#include "daemon/findings.h"
#include "daemon/yaml.h"

#define FINDINGS_EVENTS_MAX 20000 /* 256 findings with every key set have 17,000 */
#define CODE_CHARS_MAX 64         /* of a Code Meaning (LO) */
#define ABSENT_SENSITIVITY 0.95   /* below it, a low score does not exclude anything */
#define LOCAL_SCHEME "99CXRZS"    /* ours; reports declare it */
#define SHOWN_MAX 80

static const char *const urgency_names[] = { "routine", "urgent", NULL };
static const char *const recipe_names[] = { "window", "mimic", NULL };
/* Also those that this build cannot compute: their calibrations just never apply. */
static const char *const precision_names[] = { "f32", "bf16", "int8", NULL };

/* ---- readers of one value ---- */

static size_t utf8_length(const char *s)
{
	size_t n = 0;

	for (; *s != '\0'; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

/* DICOM LO: 1 to 64 characters (not bytes), no backslash. */
static int read_lo(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	const char *text;
	size_t length;
	int r;

	r = yaml_want_text(n, &text);
	if (r < 0)
		return r;
	length = utf8_length(text);
	if (text[strspn(text, " ")] == '\0')
		return yaml_error(n, -EBADMSG, "is empty");
	if (strchr(text, '\\') != NULL)
		return yaml_error(n, -EBADMSG,
				  "contains a backslash, which DICOM does not allow in this text");
	if (length > CODE_CHARS_MAX || !str_copy(field, k->size, text))
		return yaml_error(n, -EBADMSG, "has %zu characters; DICOM takes at most %u here", length,
				  CODE_CHARS_MAX);
	return 0;
}

/* DICOM SH in a code: 1 to 16 ASCII characters without space or backslash. */
static int read_sh(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	char shown[SHOWN_MAX];
	const char *text, *p;
	int r;

	r = yaml_want_text(n, &text);
	if (r < 0)
		return r;
	str_quote(shown, sizeof(shown), text);
	for (p = text; *p > 0x20 && *p < 0x7f && *p != '\\'; p++)
		;
	if (text[0] == '\0' || *p != '\0')
		return yaml_error(n, -EBADMSG, "'%s' must be ASCII characters without space or backslash",
				  shown);
	if (!str_copy(field, k->size, text))
		return yaml_error(n, -EBADMSG,
				  "'%s' is longer than the 16 characters that DICOM takes here", shown);
	return 0;
}

static int read_nonempty(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	int r;

	r = yaml_read_text(n, k, field);
	if (r < 0)
		return r;
	if (((const char *)field)[strspn(field, " ")] == '\0')
		return yaml_error(n, -EBADMSG, "is empty");
	return 0;
}

static int read_word(struct yaml_node *n, const struct yaml_key *k, const char *alphabet,
		     const char *in_words, void *field)
{
	char shown[SHOWN_MAX];
	const char *text;
	int r;

	r = yaml_want_text(n, &text);
	if (r < 0)
		return r;
	str_quote(shown, sizeof(shown), text);
	if (text[0] == '\0' || text[strspn(text, alphabet)] != '\0')
		return yaml_error(n, -EBADMSG, "'%s' must be made of %s", shown, in_words);
	if (!str_copy(field, k->size, text))
		return yaml_error(n, -EBADMSG, "is longer than %zu bytes", k->size - 1);
	return 0;
}

static int read_id(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	return read_word(n, k, "abcdefghijklmnopqrstuvwxyz0123456789_-", "a-z, 0-9, _ and -", field);
}

#define LANGUAGE_CHARACTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"

static bool is_language(const char *text)
{
	return text[0] != '\0' && text[strspn(text, LANGUAGE_CHARACTERS)] == '\0';
}

static int read_language(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	return read_word(n, k, LANGUAGE_CHARACTERS, "letters, digits and -, as in eng or de-CH", field);
}

/* Languages and the finding's name in each. */
static int read_names(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	const struct yaml_key name = YAML_KEY(struct finding_name, name, read_lo);
	struct finding *f = field;
	struct yaml_node *item;
	int r;

	(void)k;
	if (n->kind != YAML_MAP || n->n == 0 || n->n > FINDING_NAMES_MAX)
		return yaml_error(n, -EBADMSG, "must hold 1 to %d languages, as in {de: Pleuraerguss}", FINDING_NAMES_MAX);
	f->names = xcalloc(n->n, sizeof(*f->names));
	for (item = n->first; item != NULL; item = item->next) {
		struct finding_name *to = &f->names[f->n_names++];

		if (!is_language(item->key) || !str_copy(to->language, sizeof(to->language), item->key))
			return yaml_error(item, -EBADMSG, "a language is 1 to %d letters, digits and -, as in de or pt-BR",
					  LANGUAGE_MAX - 1);
		r = read_lo(item, &name, to->name);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The model was trained on sentences; a bare word scores near chance. */
static int read_prompt(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	char bare[FINDING_TEXT_MAX], shown[SHOWN_MAX];
	const char *text = field;
	int r;

	r = read_nonempty(n, k, field);
	if (r < 0)
		return r;
	text += strspn(text, " ");
	(void)str_copy_padded(bare, sizeof(bare), text, strlen(text));
	str_quote(shown, sizeof(shown), bare);
	if (strchr(bare, ' ') == NULL)
		return yaml_error(n, -EBADMSG,
				  "'%s' is one word, but the model reads sentences: write 'There is %s'",
				  shown, shown);
	return 0;
}

int phrase_key(const char *text, char *ret)
{
	static const char *const heads[] = { "there is ", "there are ", "evidence of ", "a ", "an ", "the " };
	size_t n = 0, at = 0, i;

	for (; *text != '\0'; text++) {
		unsigned char c = (unsigned char)*text;

		if (c >= 0x80)
			return -EBADMSG;
		if (c >= 'A' && c <= 'Z')
			ret[n++] = (char)(c - 'A' + 'a');
		else if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))
			ret[n++] = (char)c;
		else if (n > 0 && ret[n - 1] != ' ')
			ret[n++] = ' ';
	}
	n -= n > 0 && ret[n - 1] == ' ';
	ret[n] = '\0';
	for (i = 0; i < ARRAY_SIZE(heads); i++) /* each once, in this order */
		if (strncmp(ret + at, heads[i], strlen(heads[i])) == 0)
			at += strlen(heads[i]);
	memmove(ret, ret + at, n - at + 1);
	return 0;
}

static int read_synonym(struct yaml_node *n, struct finding *f)
{
	char key[FINDING_TEXT_MAX], shown[SHOWN_MAX];
	const char *text;
	int r;

	r = yaml_want_text(n, &text);
	if (r < 0)
		return r;
	str_quote(shown, sizeof(shown), text);
	if (strlen(text) >= sizeof(key))
		return yaml_error(n, -EBADMSG, "is longer than %zu bytes", sizeof(key) - 1);
	if (phrase_key(text, key) < 0)
		return yaml_error(n, -EBADMSG, "'%s' is not ASCII; phrases are compared as English", shown);
	if (key[0] == '\0')
		return yaml_error(n, -EBADMSG, "'%s' holds no word", shown);
	f->synonyms[f->n_synonyms++] = xstrdup(key);
	return 0;
}

static int read_synonyms(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	struct finding *f = field;
	struct yaml_node *item;
	int r;

	r = yaml_want_list(n, k);
	if (r < 0)
		return r;
	f->synonyms = xcalloc(n->n, sizeof(*f->synonyms));
	for (item = n->first; item != NULL; item = item->next) {
		r = read_synonym(item, f);
		if (r < 0)
			return r;
	}
	return 0;
}

static int read_share(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	double v = 0;
	int r;

	r = yaml_read_real(n, k, &v);
	if (r < 0)
		return r;
	if (v < 0 || v > 1)
		return yaml_error(n, -EBADMSG, "%g is not between 0 and 1", v);
	*(double *)field = v;
	return 0;
}

/* ---- codes ---- */

/* Verhoeff's check digit, as SNOMED CT uses it: products in the dihedral group D5, digits permuted
 * by their place from the right. */
static bool verhoeff_ok(const char *digits)
{
	static const uint8_t product[10][10] = {
		{ 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 }, { 1, 2, 3, 4, 0, 6, 7, 8, 9, 5 },
		{ 2, 3, 4, 0, 1, 7, 8, 9, 5, 6 }, { 3, 4, 0, 1, 2, 8, 9, 5, 6, 7 },
		{ 4, 0, 1, 2, 3, 9, 5, 6, 7, 8 }, { 5, 9, 8, 7, 6, 0, 4, 3, 2, 1 },
		{ 6, 5, 9, 8, 7, 1, 0, 4, 3, 2 }, { 7, 6, 5, 9, 8, 2, 1, 0, 4, 3 },
		{ 8, 7, 6, 5, 9, 3, 2, 1, 0, 4 }, { 9, 8, 7, 6, 5, 4, 3, 2, 1, 0 },
	};
	static const uint8_t permuted[8][10] = {
		{ 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 }, { 1, 5, 7, 6, 2, 8, 3, 0, 9, 4 },
		{ 5, 8, 0, 3, 7, 9, 6, 1, 4, 2 }, { 8, 9, 1, 6, 0, 4, 3, 5, 2, 7 },
		{ 9, 4, 5, 3, 1, 2, 6, 8, 7, 0 }, { 4, 2, 8, 6, 5, 7, 3, 9, 0, 1 },
		{ 2, 7, 9, 3, 8, 0, 6, 4, 1, 5 }, { 7, 0, 4, 6, 9, 1, 3, 2, 5, 8 },
	};
	size_t n = strlen(digits), i;
	unsigned check = 0;

	for (i = 0; i < n; i++)
		check = product[check][permuted[i % 8][digits[n - 1 - i] - '0']];
	return check == 0;
}

/* SNOMED CT identifiers end with two digits of partition and one check digit; 00 and 10 are the
 * partitions of concepts (01, 11: descriptions, 02, 12: relationships). */
static int check_snomed(const struct yaml_node *at, const char *value)
{
	size_t n = strlen(value);

	if (value[strspn(value, "0123456789")] != '\0' || n < 6 || value[0] == '0')
		return yaml_error(at, -EBADMSG, "'%s' is not a SNOMED CT identifier: 6 to 16 digits", value);
	if (!verhoeff_ok(value))
		return yaml_error(at, -EBADMSG,
				  "'%s' is no SNOMED CT code: its check digit is wrong.  Copy it from a "
				  "SNOMED CT browser; tables in public repositories hold wrong ones",
				  value);
	if ((value[n - 3] != '0' && value[n - 3] != '1') || value[n - 2] != '0')
		return yaml_error(at, -EBADMSG,
				  "'%s' is a SNOMED CT identifier, but not of a concept (partition %.2s, "
				  "not 00 or 10): a description's id is not a code",
				  value, value + n - 3);
	return 0;
}

static const struct yaml_key code_keys[] = {
	YAML_KEY(struct code, value, read_sh, .required = true),
	YAML_KEY(struct code, scheme, read_sh, .required = true),
	YAML_KEY(struct code, meaning, read_lo, .required = true),
};

static int read_code(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	struct code *c = field;
	int r;

	(void)k;
	r = yaml_read_map(n, code_keys, ARRAY_SIZE(code_keys), c);
	if (r < 0)
		return r;
	if (strcmp(c->scheme, "SCT") == 0)
		return check_snomed(yaml_find(n, "value"), c->value);
	return 0;
}

static int read_site(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	struct finding *f = field;

	f->has_site = true;
	return read_code(n, k, &f->site);
}

/* A finding without a code gets one of ours, made from its id, so that it stays the same. */
static void local_code(const struct finding *f, struct code *ret)
{
	uint8_t digest[DIGEST_SIZE];
	char hex[2 * 6 + 1];

	digest_of(f->id, strlen(f->id), digest);
	str_hex(hex, digest, 6);
	(void)snprintf(ret->value, sizeof(ret->value), "ZS%s", hex);
	(void)str_copy(ret->scheme, sizeof(ret->scheme), LOCAL_SCHEME);
	(void)str_copy(ret->meaning, sizeof(ret->meaning), f->own_name);
}

/* ---- calibration and thresholds ---- */

/* As the file has it: names are checked as enums, and the prompt that it was fitted for. */
struct calibration_text {
	struct calibration c;
	unsigned recipe, precision;
	char prompt[FINDING_TEXT_MAX];
};

static int read_slope(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	double v = 0;
	int r;

	r = yaml_read_real(n, k, &v);
	if (r < 0)
		return r;
	if (v <= 0)
		return yaml_error(n, -EBADMSG,
				  "%g is not above 0: a higher logit would mean a lower probability", v);
	*(double *)field = v;
	return 0;
}

static int read_prevalence(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	double v = 0;
	int r;

	r = yaml_read_real(n, k, &v);
	if (r < 0)
		return r;
	if (v <= 0 || v >= 1)
		return yaml_error(n, -EBADMSG, "%g is not a share between 0 and 1", v);
	*(double *)field = v;
	return 0;
}

#define CALIBRATION(field, reader, ...)                                                            \
	YAML_KEY_AS(#field, struct calibration_text, c.field, reader, .required = true, __VA_ARGS__)

static const struct yaml_key calibration_keys[] = {
	CALIBRATION(a, read_slope),
	CALIBRATION(b, yaml_read_real),
	YAML_KEY(struct calibration_text, prompt, read_nonempty, .required = true),
	CALIBRATION(family, read_nonempty),
	YAML_KEY(struct calibration_text, recipe, yaml_read_name, .names = recipe_names, .required = true),
	YAML_KEY(struct calibration_text, precision, yaml_read_name, .names = precision_names,
		 .required = true),
	CALIBRATION(prevalence, read_prevalence),
	CALIBRATION(origin, read_nonempty),
};

static int read_calibration(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	struct finding *f = field;
	struct calibration_text t = { 0 };
	int r;

	(void)k;
	r = yaml_read_map(n, calibration_keys, ARRAY_SIZE(calibration_keys), &t);
	if (r < 0)
		return r;
	f->calibration = t.c;
	f->calibration.present = true;
	(void)str_copy(f->calibration.recipe, sizeof(f->calibration.recipe), recipe_names[t.recipe]);
	(void)str_copy(f->calibration.precision, sizeof(f->calibration.precision),
		       precision_names[t.precision]);
	return 0;
}

#define POINT(field, reader, ...) YAML_KEY(struct operating_points, field, reader, __VA_ARGS__)

static const struct yaml_key points_keys[] = {
	POINT(lo, read_share),
	POINT(lo_sensitivity, read_share),
	POINT(hi, read_share),
	POINT(hi_sensitivity, read_share),
	POINT(hi_ppv, read_share),
	POINT(hi_alarm_rate, read_share),
	POINT(origin, read_nonempty, .required = true),
};

/* A threshold comes with what it does, or not at all. */
static int check_figures(const struct yaml_node *n, const char *threshold, const char *const *figures)
{
	const struct yaml_node *at = yaml_find(n, threshold);
	size_t i;

	for (i = 0; figures[i] != NULL; i++) {
		const struct yaml_node *figure = yaml_find(n, figures[i]);

		if (at != NULL && figure == NULL)
			return yaml_error(at, -EBADMSG, "a threshold needs its figures: %s is missing",
					  figures[i]);
		if (at == NULL && figure != NULL)
			return yaml_error(figure, -EBADMSG, "says what %s does, but %s is missing",
					  threshold, threshold);
	}
	return 0;
}

static int read_points(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	static const char *const lo_figures[] = { "lo_sensitivity", NULL };
	static const char *const hi_figures[] = { "hi_sensitivity", "hi_ppv", "hi_alarm_rate", NULL };
	struct operating_points *p = field;
	int r;

	(void)k;
	r = yaml_read_map(n, points_keys, ARRAY_SIZE(points_keys), p);
	if (r < 0)
		return r;
	p->has_lo = yaml_find(n, "lo") != NULL;
	p->has_hi = yaml_find(n, "hi") != NULL;
	if (!p->has_lo && !p->has_hi)
		return yaml_error(n, -EBADMSG, "has neither lo nor hi");
	r = check_figures(n, "lo", lo_figures);
	if (r < 0)
		return r;
	r = check_figures(n, "hi", hi_figures);
	if (r < 0)
		return r;
	if (p->has_lo && p->has_hi && p->lo > p->hi)
		return yaml_error(yaml_find(n, "lo"), -EBADMSG, "lo (%g) is above hi (%g)", p->lo, p->hi);
	return 0;
}

/* ---- the list ---- */

static const struct yaml_key finding_keys[] = {
	YAML_KEY(struct finding, id, read_id, .required = true),
	YAML_KEY_AS("name", struct finding, own_name, read_lo, .required = true),
	{ .name = "names", .read = read_names },
	YAML_KEY(struct finding, prompt, read_prompt, .required = true),
	{ .name = "synonyms", .read = read_synonyms, .min = 1, .max = FINDING_SYNONYMS_MAX },
	YAML_KEY(struct finding, code, read_code),
	{ .name = "site", .read = read_site },
	YAML_KEY(struct finding, urgency, yaml_read_name, .names = urgency_names),
	{ .name = "calibration", .read = read_calibration },
	YAML_KEY_AS("thresholds", struct finding, points, read_points),
};

/* Rules between the keys of one finding. */
static int check_finding(const struct yaml_node *n, const struct finding *f)
{
	const struct yaml_node *calibration = yaml_find(n, "calibration");
	const struct yaml_node *prompt = calibration != NULL ? yaml_find(calibration, "prompt") : NULL;
	char fitted[SHOWN_MAX], asked[SHOWN_MAX];

	if (prompt != NULL && strcmp(prompt->text, f->prompt) != 0)
		return yaml_error(prompt, -EBADMSG,
				  "fitted for '%s', but the finding asks '%s': it does not apply.  "
				  "Remove the calibration and thresholds, or fit them anew",
				  str_quote(fitted, sizeof(fitted), prompt->text),
				  str_quote(asked, sizeof(asked), f->prompt));
	if ((f->points.has_lo || f->points.has_hi) && calibration == NULL)
		return yaml_error(yaml_find(n, "thresholds"), -EBADMSG,
				  "are probabilities, and without a calibration there are none");
	if (f->urgency == URGENCY_URGENT && !f->points.has_hi)
		return yaml_error(yaml_find(n, "urgency"), -EBADMSG,
				  "without thresholds.hi the finding is never called present, "
				  "so it can never be urgent");
	return 0;
}

/* Two findings with one id would share a row of scores; with one prompt, one of them has the wrong name. */
static int check_unique(const struct yaml_node *n, const struct findings *f, const struct finding *last)
{
	size_t i;

	for (i = 0; i < f->n; i++) {
		if (strcmp(f->finding[i].id, last->id) == 0)
			return yaml_error(yaml_find(n, "id"), -EBADMSG, "finding %zu has this id already",
					  i + 1);
		if (strcmp(f->finding[i].prompt, last->prompt) == 0)
			return yaml_error(yaml_find(n, "prompt"), -EBADMSG,
					  "finding %zu (%s) has the same prompt", i + 1, f->finding[i].id);
	}
	return 0;
}

static bool is_synonym(const struct finding *f, const char *key, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (strcmp(f->synonyms[i], key) == 0)
			return true;
	return false;
}

/* A phrase that could mean two findings means none. */
static int check_synonyms(const struct yaml_node *n, const struct findings *f, const struct finding *last)
{
	char asked[FINDING_TEXT_MAX], key[FINDING_TEXT_MAX], shown[SHOWN_MAX];
	bool ascii = phrase_key(last->prompt, asked) == 0;
	size_t i, k;

	for (i = 0; i <= f->n; i++) { /* f->finding[f->n] is the last */
		const struct finding *a = &f->finding[i];

		if (ascii && is_synonym(a, asked, a->n_synonyms))
			return yaml_error(yaml_find(n, "prompt"), -EBADMSG,
					  "is a synonym of finding %zu (%s) already", i + 1, a->id);
		if (phrase_key(a->prompt, key) == 0 && is_synonym(last, key, last->n_synonyms))
			return yaml_error(yaml_find(n, "synonyms"), -EBADMSG,
					  "'%s' is the prompt of finding %zu (%s)",
					  str_quote(shown, sizeof(shown), key), i + 1, a->id);
		for (k = 0; k < last->n_synonyms; k++)
			if (is_synonym(a, last->synonyms[k], i < f->n ? a->n_synonyms : k))
				return yaml_error(yaml_find(n, "synonyms"), -EBADMSG,
						  "'%s' is a synonym of finding %zu (%s) already",
						  str_quote(shown, sizeof(shown), last->synonyms[k]), i + 1,
						  a->id);
	}
	return 0;
}

static int read_findings(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	struct findings *f = field;
	struct yaml_node *item;
	int r;

	r = yaml_want_list(n, k);
	if (r < 0)
		return r;
	f->finding = xcalloc(n->n, sizeof(*f->finding));
	f->room = n->n;
	for (item = n->first; item != NULL; item = item->next, f->n++) {
		struct finding *last = &f->finding[f->n];
		const struct yaml_node *id = yaml_find(item, "id");
		char shown[FINDING_ID_MAX];

		yaml_label(item, "finding %zu", f->n + 1);
		if (id != NULL && id->kind == YAML_TEXT)
			yaml_label(item, "finding %zu (%s)", f->n + 1,
				   str_quote(shown, sizeof(shown), id->text));
		r = yaml_read_map(item, finding_keys, ARRAY_SIZE(finding_keys), last);
		if (r < 0)
			return r;
		r = check_finding(item, last);
		if (r < 0)
			return r;
		r = check_unique(item, f, last);
		if (r < 0)
			return r;
		r = check_synonyms(item, f, last);
		if (r < 0)
			return r;
		if (last->code.value[0] == '\0')
			local_code(last, &last->code);
	}
	return 0;
}

static const struct yaml_key list_keys[] = {
	YAML_KEY(struct findings, name, read_nonempty, .required = true),
	YAML_KEY(struct findings, language, read_language),
	{ .name = "findings", .read = read_findings, .min = 1, .max = FINDINGS_MAX, .required = true },
};

void findings_free(struct findings *f)
{
	size_t i, k;

	if (f == NULL)
		return;
	for (i = 0; i < f->room; i++) {
		for (k = 0; k < f->finding[i].n_synonyms; k++)
			free(f->finding[i].synonyms[k]);
		free(f->finding[i].synonyms);
		free(f->finding[i].names);
	}
	free(f->finding);
	free(f);
}

/* The name in exactly this language, else in its primary one ("de" for "de-CH"). */
static const char *name_in(const struct finding *f, const char *language)
{
	size_t primary = strcspn(language, "-"), i;
	const char *found = NULL;

	for (i = 0; i < f->n_names; i++) {
		if (strcasecmp(f->names[i].language, language) == 0)
			return f->names[i].name;
		if (strlen(f->names[i].language) == primary && strncasecmp(f->names[i].language, language, primary) == 0)
			found = f->names[i].name;
	}
	return found != NULL ? found : f->own_name;
}

static void cleanup_findings_free(struct findings **f)
{
	findings_free(*f);
}

int findings_parse(const char *where, const void *text, size_t n_text, struct findings **ret, struct err *e)
{
	CLEANUP(findings_free) struct findings *f = NULL;
	CLEANUP(yaml_close) struct yaml *y = NULL;
	size_t i;
	int r;

	r = yaml_open(where, text, n_text, FINDINGS_BYTES_MAX, FINDINGS_EVENTS_MAX, e, &y);
	if (r < 0)
		return r;
	f = xcalloc(1, sizeof(*f));
	(void)str_copy(f->language, sizeof(f->language), "eng");
	r = yaml_read_map(yaml_root(y), list_keys, ARRAY_SIZE(list_keys), f);
	if (r < 0)
		return r;
	for (i = 0; i < f->n; i++)
		(void)str_copy(f->finding[i].name, sizeof(f->finding[i].name), name_in(&f->finding[i], f->language));
	digest_of(text, n_text, f->digest);
	*ret = TAKE(f);
	return 0;
}

int findings_load(const char *path, struct findings **ret, void **ret_text, size_t *ret_n_text, struct err *e)
{
	CLEANUP(free) void *text = NULL;
	size_t n_text;
	int r;

	r = read_path(path, FINDINGS_BYTES_MAX, &text, &n_text, e);
	if (r < 0)
		return r;
	r = findings_parse(path, text, n_text, ret, e);
	if (r < 0)
		return r;
	if (ret_text != NULL) {
		*ret_text = TAKE(text);
		*ret_n_text = n_text;
	}
	return 0;
}

/* ---- what a score means ---- */

double finding_probability(const struct finding *f, float logit, const char *family,
			   const char *recipe, const char *precision)
{
	const struct calibration *c = &f->calibration;

	if (!c->present || !isfinite(logit) || strcmp(c->family, family) != 0 ||
	    strcmp(c->recipe, recipe) != 0 || strcmp(c->precision, precision) != 0)
		return (double)NAN;
	return 1 / (1 + exp(-(c->a * (double)logit + c->b)));
}

double finding_absent_below(const struct finding *f)
{
	const struct operating_points *p = &f->points;

	return p->has_lo && p->lo_sensitivity >= ABSENT_SENSITIVITY ? p->lo : (double)NAN;
}

enum decision finding_decide(const struct finding *f, double probability)
{
	const struct operating_points *p = &f->points;

	if (isnan(probability))
		return DECISION_NONE;
	if (p->has_hi && probability >= p->hi)
		return DECISION_PRESENT;
	if (probability < finding_absent_below(f))
		return DECISION_ABSENT;
	return DECISION_UNDETERMINED; /* calibrated, but nothing justifies more */
}

const char *decision_name(enum decision d)
{
	static const char *const names[] = { "-", "absent", "undetermined", "present" };

	return names[d];
}
