/* test_findings.c: findings.yaml, good and bad; when a logit is a probability, and what it decides.
 *
 * Most cases are files: tests/vectors/findings (golden.h).  The shipped list is checked against what
 * it says of itself, and against the published logits of one film.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>

#include "base/mem.h"

#include "daemon/findings.h"

#include "tests/golden.h"
#include "tests/tap.h"

static void dump_finding(FILE *f, const struct finding *g)
{
	const struct calibration *c = &g->calibration;
	const struct operating_points *p = &g->points;

	fprintf(f, "%s|%s|%s|(%s,%s,%s)", g->id, g->name, g->prompt, g->code.value, g->code.scheme, g->code.meaning);
	if (g->has_site)
		fprintf(f, "|(%s,%s,%s)", g->site.value, g->site.scheme, g->site.meaning);
	fprintf(f, "|%s\n", g->urgency == URGENCY_URGENT ? "urgent" : "routine");
	if (c->present)
		fprintf(f, "  a=%g b=%g %s %s %s prevalence=%g: %s\n", c->a, c->b, c->family, c->recipe, c->precision,
			c->prevalence, c->origin);
	if (p->has_lo)
		fprintf(f, "  lo=%g sensitivity=%g: %s\n", p->lo, p->lo_sensitivity, p->origin);
	if (p->has_hi)
		fprintf(f, "  hi=%g sensitivity=%g ppv=%g alarm=%g: %s\n", p->hi, p->hi_sensitivity, p->hi_ppv,
			p->hi_alarm_rate, p->origin);
}

static char *dump(const char *where, const void *text, size_t n)
{
	struct err e = { "" };
	struct findings *list;
	char *out = NULL;
	size_t n_out, i;
	FILE *f = open_memstream(&out, &n_out);

	if (f == NULL)
		abort();
	if (findings_parse(where, text, n, &list, &e) < 0) {
		fprintf(f, "error: %s\n", e.text);
	} else {
		fprintf(f, "%s (%s)\n", list->name, list->language);
		for (i = 0; i < list->n; i++)
			dump_finding(f, &list->finding[i]);
		findings_free(list);
	}
	if (fclose(f) != 0)
		abort();
	return out;
}

/* ---- codes ---- */

static int parse_code(const char *value, char *ret_text)
{
	char text[256];
	struct findings *list = NULL;
	struct err e = { "" };
	int r;

	(void)snprintf(text, sizeof(text), "{name: x, findings: [{id: a, name: A, prompt: There is a, "
		       "code: {value: %s, scheme: SCT, meaning: m}}]}", value);
	r = findings_parse("t", text, strlen(text), &list, &e);
	memcpy(ret_text, e.text, sizeof(e.text));
	findings_free(list);
	return r;
}

static void test_snomed(void)
{
	/* From DICOM's own context groups: right codes pass. */
	static const char *const good[] = {
		"60046008", "36118008", "19242006", "39607008", "3120008", "80891009", "5798000", "72410000",
		"816094009", "272741003", "272519000", "52101004", "373068000", "399348003", "363698007",
		"46621007",
	};
	/* As found in public repositories. */
	static const char *const bad[] = {
		"95436001", "95436003", "3529005", "78381001", "78381009", "196116003",
	};
	char text[ERR_TEXT_MAX], changed[20];
	size_t i, j;
	unsigned caught = 0, tried = 0;

	for (i = 0; i < ARRAY_SIZE(good); i++)
		is_int(parse_code(good[i], text), 0, "SNOMED CT %s %s", good[i], text);
	for (i = 0; i < ARRAY_SIZE(bad); i++)
		ok(parse_code(bad[i], text) == -EBADMSG && strstr(text, "check digit") != NULL,
		   "SNOMED CT %s: %s", bad[i], text);
	/* Verhoeff's promise: every single wrong digit, every swap of neighbours. */
	for (i = 0; i < ARRAY_SIZE(good); i++)
		for (j = 0; good[i][j] != '\0'; j++) {
			char d;

			(void)snprintf(changed, sizeof(changed), "%s", good[i]);
			for (d = '0'; d <= '9'; d++) {
				changed[j] = d;
				if (d == good[i][j])
					continue;
				tried++;
				caught += parse_code(changed, text) < 0;
			}
			changed[j] = good[i][j];
			if (j == 0 || changed[j] == changed[j - 1])
				continue;
			changed[j] = good[i][j - 1];
			changed[j - 1] = good[i][j];
			tried++;
			caught += parse_code(changed, text) < 0;
		}
	is_int(caught, tried, "%u slips of one digit, all caught", tried);
	/* 41398015 is the first description of 24700007: a good check digit, the wrong partition. */
	ok(parse_code("41398015", text) == -EBADMSG && strstr(text, "partition 01") != NULL,
	   "a description's id: %s", text);
}

/* ---- probability and decision ---- */

static struct finding example(void)
{
	struct finding f = { .id = "x", .calibration = { .present = true, .a = 2, .b = -1, .family = "carzero",
							  .recipe = "window", .precision = "f32" } };

	return f;
}

static void test_probability(void)
{
	static const struct {
		const char *family, *recipe, *precision;
	} others[] = {
		{ "carzero2", "window", "f32" }, { "", "window", "f32" }, { "carzero", "mimic", "f32" },
		{ "carzero", "window", "bf16" }, { "CARZERO", "window", "f32" },
	};
	struct finding f = example();
	size_t i;

	ok(fabs(finding_probability(&f, 0.5f, "carzero", "window", "f32") - 0.5) < 1e-15, "a 2, b -1, logit 0.5 is 0.5");
	ok(fabs(finding_probability(&f, 1.5f, "carzero", "window", "f32") - 1 / (1 + exp(-2))) < 1e-15, "logit 1.5");
	ok(finding_probability(&f, -1000, "carzero", "window", "f32") == 0, "far below: 0, not a trap");
	ok(finding_probability(&f, 1000, "carzero", "window", "f32") == 1, "far above: 1");
	ok(isnan(finding_probability(&f, NAN, "carzero", "window", "f32")), "of no number none");
	ok(isnan(finding_probability(&f, INFINITY, "carzero", "window", "f32")), "of infinity none");
	for (i = 0; i < ARRAY_SIZE(others); i++)
		ok(isnan(finding_probability(&f, 0.5f, others[i].family, others[i].recipe, others[i].precision)),
		   "no probability for %s %s %s", others[i].family, others[i].recipe, others[i].precision);
	f.calibration.present = false;
	ok(isnan(finding_probability(&f, 0.5f, "carzero", "window", "f32")), "without a calibration none");
}

static void test_decide(void)
{
	static const struct {
		bool has_lo, has_hi;
		double lo, lo_sensitivity, hi, p;
		enum decision want;
	} cases[] = {
		{ true, true, 0.2, 0.95, 0.6, 0.1, DECISION_ABSENT },
		{ true, true, 0.2, 0.95, 0.6, 0.2, DECISION_UNDETERMINED },
		{ true, true, 0.2, 0.95, 0.6, 0.59, DECISION_UNDETERMINED },
		{ true, true, 0.2, 0.95, 0.6, 0.6, DECISION_PRESENT },
		{ true, true, 0.2, 0.95, 0.6, 1, DECISION_PRESENT },
		{ true, true, 0.2, 0.9499, 0.6, 0.1, DECISION_UNDETERMINED }, /* lo misses too many */
		{ true, true, 0.6, 0.95, 0.6, 0.6, DECISION_PRESENT },
		{ true, true, 0.6, 0.95, 0.6, 0.59, DECISION_ABSENT },
		{ true, false, 0.2, 0.99, 0, 0.9, DECISION_UNDETERMINED },
		{ true, false, 0.2, 0.99, 0, 0.1, DECISION_ABSENT },
		{ false, true, 0, 0, 0.6, 0, DECISION_UNDETERMINED },
		{ false, true, 0, 0, 0.6, 0.7, DECISION_PRESENT },
		{ false, false, 0, 0, 0, 0, DECISION_UNDETERMINED },
		{ false, false, 0, 0, 0, 1, DECISION_UNDETERMINED },
		{ true, true, 0.2, 0.95, 0.6, NAN, DECISION_NONE },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct finding f = example();

		f.points.has_lo = cases[i].has_lo;
		f.points.has_hi = cases[i].has_hi;
		f.points.lo = cases[i].lo;
		f.points.lo_sensitivity = cases[i].lo_sensitivity;
		f.points.hi = cases[i].hi;
		is_str(decision_name(finding_decide(&f, cases[i].p)), decision_name(cases[i].want),
		       "decide case %zu: p %g", i, cases[i].p);
	}
}

/* ---- the shipped list ---- */

static void check_shipped(const struct findings *list)
{
	/* images_006/00011997_000.png of ChestXray14, as the published rerun scored it. */
	static const float logit[] = { -2.3877764f, -1.0212469f, -2.8647447f, -4.751343f, -3.511117f,
				       -2.3498054f, -3.1970043f, -2.5884442f, -3.569341f, -3.6962574f,
				       -6.497202f, -4.2092104f, -3.543287f, -4.520134f };
	size_t i, urgent = 0;

	is_str(list->name, "ChestXray14", "its name");
	is_str(list->language, "eng", "its language");
	if (!ok(list->n == ARRAY_SIZE(logit), "14 findings: %zu", list->n))
		return;
	for (i = 0; i < list->n; i++) {
		const struct finding *f = &list->finding[i];
		double p = finding_probability(f, logit[i], "carzero", "window", "f32");

		urgent += f->urgency == URGENCY_URGENT;
		ok(f->has_site && f->calibration.present, "%s has site and calibration", f->id);
		ok(f->points.has_lo && f->points.lo_sensitivity >= 0.95, "%s may be called absent", f->id);
		ok(!f->points.has_hi || (f->points.hi_ppv >= 0.10 && f->points.hi_alarm_rate <= 0.10 &&
					 f->points.hi_alarm_rate <= 2 * f->calibration.prevalence),
		   "%s keeps the rule of hi", f->id);
		ok(p > 0 && p < 1 && finding_decide(f, p) != DECISION_PRESENT, "%s on a film without findings: %.4f %s",
		   f->id, p, decision_name(finding_decide(f, p)));
	}
	is_int(urgent, 1, "one urgent finding");
	ok(list->finding[7].urgency == URGENCY_URGENT && strcmp(list->finding[7].id, "pneumothorax") == 0,
	   "pneumothorax");
	ok(fabs(finding_probability(&list->finding[0], logit[0], "carzero", "window", "f32") - 0.0353271) < 1e-6,
	   "atelectasis: 1 / (1 + exp(1.0997 * 2.3877764 + 0.6813))");
	ok(isnan(finding_probability(&list->finding[0], logit[0], "carzero", "mimic", "f32")),
	   "not for another recipe");
}

static void test_shipped(void)
{
	CLEANUP(free) void *text = NULL;
	char path[PATH_MAX];
	uint8_t digest[DIGEST_SIZE];
	struct findings *list = NULL;
	struct err e = { "" };
	size_t n;

	(void)snprintf(path, sizeof(path), "%s/etc/findings.yaml", golden_srcdir());
	if (!ok(findings_load(path, &list, &text, &n, &e) == 0, "etc/findings.yaml is good %s", e.text))
		return;
	check_shipped(list);
	digest_of(text, n, digest);
	ok(memcmp(digest, list->digest, DIGEST_SIZE) == 0, "the digest is of the text that came with it");
	findings_free(list);
	is_int(findings_load("/nonexistent/f.yaml", &list, NULL, NULL, &e), -ENOENT, "a missing file: %s", e.text);
	findings_free(NULL);
}

/* The lists of the other test sets; a prompt has the published form, and only measured ones have numbers. */
static void test_other_lists(void)
{
	static const struct { const char *name; size_t n, calibrated, hi; } lists[] = {
		{ "openi", 18, 18, 14 }, { "chexpert", 5, 0, 0 }, { "chestxdet10", 10, 0, 0 }, { "padchest192", 192, 0, 0 },
	};
	size_t i, k;

	for (i = 0; i < ARRAY_SIZE(lists); i++) {
		struct findings *f = NULL;
		size_t calibrated = 0, hi = 0, form = 0;
		struct err e = { "" };
		char path[4096];

		(void)snprintf(path, sizeof(path), "%s/etc/findings/%s.yaml", golden_srcdir(), lists[i].name);
		if (!ok(findings_load(path, &f, NULL, NULL, &e) == 0, "%s.yaml is good %s", lists[i].name, e.text))
			continue;
		for (k = 0; k < f->n; k++) {
			calibrated += f->finding[k].calibration.present;
			hi += f->finding[k].points.has_hi;
			form += strncmp(f->finding[k].prompt, "There is ", 9) == 0;
		}
		is_int(f->n, lists[i].n, "  its findings");
		is_int(calibrated, lists[i].calibrated, "  calibrated");
		is_int(hi, lists[i].hi, "  can be called present");
		is_int(form, f->n, "  'There is ...'");
		findings_free(f);
	}
}

static void test_manual(void)
{
	static const char *const keys[] = {
		"name", "names", "language", "findings", "id", "prompt", "synonyms", "code", "site", "urgency", "calibration",
		"thresholds", "value", "scheme", "meaning", "a", "b", "family", "recipe", "precision",
		"prevalence", "origin", "lo", "hi", "lo_sensitivity", "hi_sensitivity", "hi_ppv", "hi_alarm_rate",
	};
	CLEANUP(free) char *manual = golden_read("man/findings.yaml.5", NULL);
	char entry[64];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(keys); i++) {
		(void)snprintf(entry, sizeof(entry), "\n.B %s\n", keys[i]);
		ok(strstr(manual, entry) != NULL, "findings.yaml(5) explains %s", keys[i]);
	}
}

/* The largest list that the limits allow must also fit the reader's own limit. */
static void test_full(void)
{
	struct findings *list = NULL;
	struct err e = { "" };
	char *text = NULL;
	size_t n, i;
	FILE *f = open_memstream(&text, &n);

	if (f == NULL)
		abort();
	fprintf(f, "name: Full\nfindings:\n");
	for (i = 0; i < FINDINGS_MAX; i++)
		fprintf(f, "- {id: f%zu, name: N, prompt: There is f%zu, code: {value: V, scheme: 99X, meaning: M}, "
			"site: {value: 39607008, scheme: SCT, meaning: Lung}, urgency: urgent, calibration: {a: 1, b: 0, "
			"prompt: There is f%zu, family: c, recipe: window, precision: f32, prevalence: 0.1, origin: o}, "
			"thresholds: {lo: 0.1, lo_sensitivity: 1, hi: 0.2, hi_sensitivity: 1, hi_ppv: 1, "
			"hi_alarm_rate: 0.1, origin: o}}\n", i, i, i);
	if (fclose(f) != 0)
		abort();
	ok(findings_parse("t", text, n, &list, &e) == 0 && list->n == FINDINGS_MAX, "%d full findings in %zu bytes %s",
	   FINDINGS_MAX, n, e.text);
	findings_free(list);
	free(text);
}

int main(int argc, char **argv)
{
	if (argc == 2)
		return golden_print(argv[1], dump);
	golden_run("tests/vectors/findings", dump, 60);
	test_snomed();
	test_probability();
	test_decide();
	test_shipped();
	test_other_lists();
	test_full();
	test_manual();
	return done();
}
