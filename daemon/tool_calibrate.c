/* tool_calibrate.c: carzero-model calibrate: from logits and labels to probabilities, and how true they are. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#include "model/calibrate.h"
#include "model/metrics.h"

#include "daemon/measure.h"
#include "daemon/plot.h"
#include "daemon/tool.h"

#define DEFAULT_L2 1.0
#define SPLIT_BIT 40 /* of the patient's hash */
#define BINS 10	     /* of the table of reliability */

static const char calibrate_help[] =
	"Usage: carzero-model calibrate --findings FILE --logits FILE --labels FILE --family NAME\n"
	"                               [OPTIONS]\n"
	"\n"
	"Fits a and b of probability = 1 / (1 + exp(-(a * logit + b))) for each finding by maximum\n"
	"likelihood (Platt), and prints the findings list with these calibrations, as findings.yaml(5)\n"
	"has them: use it, or paste its entries. Thresholds of the old list are left out, for they\n"
	"belong to other probabilities, and urgency with them. Figures and a table of reliability stand beside each as comments.\n"
	"\n"
	"By default half of the patients are fitted on, and the figures are of the other half.\n"
	"\n"
	"  --findings, --logits, --labels   as in 'carzero-model eval --help'\n"
	"  --family NAME      of the weights that gave the logits, as 'carzero-model info' shows it\n"
	"  --recipe NAME      of the pixels: 'window' (default) or 'mimic'\n"
	"  --precision NAME   of the arithmetic: 'f32' (default), 'bf16' or 'int8'\n"
	"  --origin TEXT      which films, whose labels (default: the name of the labels' file)\n"
	"  --prevalence P     shifts b from the share of positives in the fit to P, that of your site\n"
	"  --l2 X             adds X * a * a / 2 to the negative log-likelihood of all images (default\n"
	"                     1); 0 is plain maximum likelihood\n"
	"  --no-split         fit and measure on all images; the figures then flatter the fit\n"
	"  --svg FILE         also draws what was said against what was the case, one square a finding\n"
	"                     that could be fitted; nothing is overwritten\n"
	"  --table            instead: a line a finding: finding, prompt, images, positives, auc, a, b,\n"
	"                     brier; needs no --family\n"
	"\n"
	"A calibration holds for these weights, prompts, pixel preparation and a population with this\n"
	"share of positives, and no other.\n";

struct half { /* a subset of one finding's rows */
	float *logit;
	uint8_t *positive;
	size_t n;
};

static void take_half(const struct measure_job *j, size_t finding, unsigned which, struct half *ret)
{
	size_t i;

	ret->n = 0;
	for (i = 0; i < j->labels.rows; i++) {
		if (j->split && (j->labels.patient[i] >> SPLIT_BIT & 1) != which)
			continue;
		ret->logit[ret->n] = j->logits.column[finding][i];
		ret->positive[ret->n++] = j->labels.column[finding][i];
	}
}

/* Single quotes take any text in YAML; a quote inside is doubled. */
static void print_quoted(const char *text)
{
	putchar('\'');
	for (; *text != '\0'; text++) {
		if (*text == '\'')
			putchar('\'');
		putchar(*text);
	}
	putchar('\'');
}

static void print_text(const char *key, const char *text)
{
	printf("%s: ", key);
	print_quoted(text);
	putchar('\n');
}

static void print_code(const char *key, const struct code *c)
{
	printf("  %s: {value: ", key);
	print_quoted(c->value);
	printf(", scheme: ");
	print_quoted(c->scheme);
	printf(", meaning: ");
	print_quoted(c->meaning);
	puts("}");
}

static void print_entry(const struct finding *f)
{
	size_t i;

	printf("\n- id: %s\n", f->id);
	print_text("  name", f->own_name);
	for (i = 0; i < f->n_names; i++) {
		printf(i == 0 ? "  names: {%s: " : ", %s: ", f->names[i].language);
		print_quoted(f->names[i].name);
	}
	if (f->n_names > 0)
		puts("}");
	print_text("  prompt", f->prompt);
	for (i = 0; i < f->n_synonyms; i++) {
		printf(i == 0 ? "  synonyms: [" : ", ");
		print_quoted(f->synonyms[i]);
	}
	if (f->n_synonyms > 0)
		puts("]");
	print_code("code", &f->code);
	if (f->has_site)
		print_code("site", &f->site);
}

/* Probabilities in tenths, and what was the case. */
struct reliability {
	double said[BINS], were[BINS]; /* mean probability, share of positives */
	size_t in[BINS];	       /* images; 0: the two above mean nothing */
	double error;		       /* mean distance of the two, each bin counting by its images
					* (expected calibration error) */
};

static void measure_reliability(const double *probability, const uint8_t *positive, size_t n,
				struct reliability *ret)
{
	size_t i;

	*ret = (struct reliability){ .error = 0 };
	for (i = 0; i < n; i++) {
		size_t bin = (size_t)(probability[i] * BINS);

		bin = bin < BINS ? bin : BINS - 1;
		ret->in[bin]++;
		ret->said[bin] += probability[i];
		ret->were[bin] += positive[i];
	}
	for (i = 0; i < BINS; i++) {
		if (ret->in[i] == 0)
			continue;
		ret->error += fabs(ret->said[i] - ret->were[i]) / (double)n;
		ret->said[i] /= (double)ret->in[i];
		ret->were[i] /= (double)ret->in[i];
	}
}

/* As comments. */
static void print_reliability(const struct reliability *r)
{
	size_t i;

	puts("  #   probability   images   mean said   were positive");
	for (i = 0; i < BINS; i++)
		if (r->in[i] > 0)
			printf("  #   %.1f to %.1f %10zu      %.4f          %.4f\n", (double)i / BINS,
			       (double)(i + 1) / BINS, r->in[i], r->said[i], r->were[i]);
	printf("  #   expected calibration error %.4f\n", r->error);
}

/* The line joins the tenths; a disc shows how many images stand behind each. */
static void draw_reliability(struct plot *p, const char *name, const struct reliability *r, size_t n)
{
	char note[32];
	size_t i;

	(void)snprintf(note, sizeof(note), "error %.4f", r->error); /* fits */
	plot_square(p, name, note);
	for (i = 0; i < BINS; i++)
		if (r->in[i] > 0)
			plot_line(p, r->said[i], r->were[i]);
	for (i = 0; i < BINS; i++)
		if (r->in[i] > 0)
			plot_disc(p, r->said[i], r->were[i], (double)r->in[i] / (double)n);
}

/* `share`: of positives among those it was fitted on; plot: NULL for no drawing. */
static void print_fit(const struct measure_job *j, size_t finding, const struct half *test, double share,
		      const struct platt *p, double *probability, struct plot *plot)
{
	const struct finding *f = &j->f->finding[finding];
	const char *slash = strrchr(j->labels_path, '/');
	double auc = NAN, brier, assumed = j->prevalence > 0 ? j->prevalence : share;
	size_t i, positives = measure_count(test->positive, test->n);
	struct reliability reliability;

	for (i = 0; i < test->n; i++)
		probability[i] = calibrate_probability(p, test->logit[i]);
	(void)metrics_auc(test->logit, test->positive, test->n,
			  &auc); /* NAN when one kind is missing there */
	brier = metrics_brier(probability, test->positive, test->n);
	if (j->table) {
		printf("%s\t%s\t%zu\t%zu\t", f->id, f->prompt, test->n, positives);
		printf(isnan(auc) ? "-\t" : "%.4f\t", auc);
		printf("%.4f\t%.4f\t%.5f\n", p->a, p->b, brier);
		return;
	}
	printf("  # measured on %zu images, %zu positive%s: AUC ", test->n, positives,
	       j->split ? ", of patients that were not fitted on" : ", the same that were fitted on");
	printf(isnan(auc) ? "-" : "%.4f", auc);
	printf(", Brier score %.5f\n", brier);
	measure_reliability(probability, test->positive, test->n, &reliability);
	print_reliability(&reliability);
	if (plot != NULL)
		draw_reliability(plot, f->name, &reliability, test->n);
	if (j->prevalence > 0)
		printf("  # b was %.4f at a prevalence of %.4g; figures and table are of that\n", p->b, share);
	puts("  calibration:");
	printf("    a: %.4f\n    b: %.4f\n", p->a,
	       p->b + log(assumed / (1 - assumed)) - log(share / (1 - share)));
	print_text("    prompt", f->prompt);
	print_text("    family", j->family);
	printf("    recipe: %s\n    precision: %s\n    prevalence: %.4g\n", j->recipe, j->precision, assumed);
	print_text("    origin", j->origin != NULL ? j->origin : slash != NULL ? slash + 1 : j->labels_path);
}

static int fit_one(const struct measure_job *j, size_t finding, struct half *half, double *probability,
		   struct plot *plot)
{
	const char *id = j->f->finding[finding].id;
	struct platt p;
	double share;
	int r;

	if (!j->table)
		print_entry(&j->f->finding[finding]);
	if (!j->labels.known[finding])
		return tool_failed(j->verb, "%s: %s has no labels for it", id, j->labels_path);
	take_half(j, finding, 0, half);
	r = calibrate_platt(half->logit, half->positive, half->n, j->l2, &p);
	if (r == -EDOM)
		return tool_failed(
			j->verb,
			"%s: %zu of %zu images to fit on are positive; both kinds are needed", id,
			measure_count(half->positive, half->n), half->n);
	if (r < 0)
		return tool_failed(j->verb,
				   "%s: the logits separate the images without a doubt, so a has "
				   "no best value; use "
				   "--l2",
				   id);
	if (p.a <= 0)
		return tool_failed(j->verb,
				   "%s: a is %.4f, not above 0: higher scores mean fewer positives here; "
				   "it has no calibration",
				   id, p.a);
	share = (double)measure_count(half->positive, half->n) / (double)half->n;
	take_half(j, finding, 1, half);
	if (half->n == 0)
		return tool_failed(j->verb, "%s: no patient is left to measure on; use --no-split", id);
	print_fit(j, finding, half, share, &p, probability, plot);
	return TOOL_DONE;
}

static int calibrate(struct measure_job *j)
{
	struct half half = { xcalloc(j->labels.rows, sizeof(*half.logit)),
			     xcalloc(j->labels.rows, 1), 0 };
	double *probability = xcalloc(j->labels.rows, sizeof(*probability));
	struct plot *plot = NULL;
	int code = TOOL_DONE;
	struct err e;
	size_t i;

	if (j->svg_path != NULL &&
	    plot_open(j->svg_path, j->f->n, "mean probability said", "share that was positive", &plot, &e) < 0)
		code = tool_failed(j->verb, "%s", e.text);
	if (j->table) {
		puts("finding\tprompt\timages\tpositives\tauc\ta\tb\tbrier");
	} else {
		puts("# Calibrations by carzero-model calibrate; thresholds are yours to choose and to measure.");
		print_text("name", j->f->name);
		print_text("language", j->f->language);
		puts("\nfindings:");
	}
	for (i = 0; i < j->f->n; i++)
		if (fit_one(j, i, &half, probability, plot) != TOOL_DONE)
			code = TOOL_FAILED;
	if (plot != NULL && plot_close(plot) < 0)
		code = tool_failed(j->verb, "%s: cannot be written", j->svg_path);
	free(half.logit);
	free(half.positive);
	free(probability);
	return code;
}

int tool_calibrate(int argc, char **argv)
{
	struct measure_job j = { .verb = argv[0], .split = true, .l2 = DEFAULT_L2, .recipe = "window",
			      .precision = "f32" };
	int code = measure_options(&j, argc, argv, true, calibrate_help);

	if (code == TOOL_DONE)
		code = measure_load(&j);
	if (code == TOOL_DONE)
		code = calibrate(&j);
	measure_unload(&j);
	return code < 0 ? TOOL_DONE : code; /* help is no failure */
}
