/* tool_eval.c: carzero-model eval and calibrate: from stored logits and labels.
 *
 * Patients, not images, are split: two films of one person in both halves would flatter the fit.
 */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#include "model/calibrate.h"
#include "model/metrics.h"

#include "daemon/tables.h"
#include "daemon/tool.h"

#define DEFAULT_L2 1.0
#define SPLIT_BIT 40 /* of the patient's hash */

static const char eval_help[] =
	"Usage: carzero-model eval --findings FILE --logits FILE --labels FILE [--json]\n"
	"\n"
	"Area under the ROC curve of each finding (ties count half) and their plain mean.\n"
	"Prints finding, images, positives, auc; a finding without labels, or with one kind of\n"
	"image only, has '-' and does not count in the mean.\n"
	"\n"
	"  --findings FILE  the findings list; its order is the order of the columns\n"
	"  --logits FILE    CSV, a header of finding ids (or 0,1,2,...) and a row an image\n"
	"  --labels FILE    NIH ChestXray14's list ('path 0 1 ...'), Open-I's CSV with\n"
	"                   labels_automatic, or CSV with finding ids as header; the same rows\n"
	"  --json           JSON instead of a table\n";

static const char calibrate_help[] =
	"Usage: carzero-model calibrate --findings FILE --logits FILE --labels FILE [OPTIONS]\n"
	"\n"
	"Fits a and b of probability = 1 / (1 + exp(-(a * logit + b))) for each finding by maximum\n"
	"likelihood (Platt). Prints finding, prompt, images, positives, auc, a, b, brier.\n"
	"\n"
	"By default half of the patients are fitted on, and images, positives, auc and brier (mean\n"
	"squared error of the probability) are of the other half.\n"
	"\n"
	"  --findings, --logits, --labels   as in 'carzero-model eval --help'\n"
	"  --l2 X      adds X * a * a / 2 to the negative log-likelihood of all images (default 1);\n"
	"              0 is plain maximum likelihood\n"
	"  --no-split  fit and measure on all images; the figures then flatter the fit\n"
	"\n"
	"A calibration holds for these weights, prompts, pixel preparation and a population with this\n"
	"share of positives, and no other.\n";

struct eval_job {
	const char *verb, *list, *logits_path, *labels_path;
	bool json, split;
	double l2;
	struct findings *f;
	struct logit_table logits;
	struct label_table labels;
};

static int load(struct eval_job *j)
{
	struct err e;

	if (findings_load(j->list, &j->f, NULL, NULL, &e) < 0 ||
	    logits_load(j->logits_path, j->f, &j->logits, &e) < 0 ||
	    labels_load(j->labels_path, j->f, &j->labels, &e) < 0)
		return tool_failed(j->verb, "%s", e.text);
	if (j->logits.rows != j->labels.rows)
		return tool_failed(j->verb,
				   "%s has %zu rows and %s has %zu; they must be of the same "
				   "images in the same order",
				   j->logits_path, j->logits.rows, j->labels_path, j->labels.rows);
	fprintf(stderr, "carzero-model: %s: note: %zu images, labels read as %s\n", j->verb,
		j->labels.rows, j->labels.kind);
	return TOOL_DONE;
}

static void unload(struct eval_job *j)
{
	logits_free(&j->logits);
	labels_free(&j->labels);
	findings_free(j->f);
}

static size_t count(const uint8_t *positive, size_t n)
{
	size_t sum = 0, i;

	for (i = 0; i < n; i++)
		sum += positive[i];
	return sum;
}

static int evaluate(struct eval_job *j)
{
	json_t *rows = json_array();
	double sum = 0;
	size_t counted = 0, i;

	if (!j->json)
		printf("finding\timages\tpositives\tauc\n");
	for (i = 0; i < j->f->n; i++) {
		size_t n = j->labels.known[i] ? j->labels.rows : 0,
		       positives = count(j->labels.column[i], n);
		double auc = NAN;

		if (metrics_auc(j->logits.column[i], j->labels.column[i], n, &auc) == 0) {
			sum += auc;
			counted++;
		}
		if (j->json)
			json_array_append_new(
				rows, json_pack("{s:s, s:I, s:I, s:o}", "finding",
						j->f->finding[i].id, "images", (json_int_t)n,
						"positives", (json_int_t)positives, "auc",
						isnan(auc) ? json_null() : json_real(auc)));
		else if (isnan(auc))
			printf("%s\t%zu\t%zu\t-\n", j->f->finding[i].id, n, positives);
		else
			printf("%s\t%zu\t%zu\t%.4f\n", j->f->finding[i].id, n, positives, auc);
	}
	if (j->json) {
		json_t *root =
			json_pack("{s:o, s:o, s:I}", "findings", rows, "macro_auc",
				  counted > 0 ? json_real(sum / (double)counted) : json_null(),
				  "counted", (json_int_t)counted);

		(void)json_dumpf(root, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
		putchar('\n');
		json_decref(root);
		return TOOL_DONE;
	}
	json_decref(rows);
	if (counted == 0)
		return tool_failed(j->verb, "no finding has both kinds of images");
	printf("macro\t%zu\t-\t%.4f\n", j->labels.rows, sum / (double)counted);
	return TOOL_DONE;
}

struct half { /* a subset of one finding's rows */
	float *logit;
	uint8_t *positive;
	size_t n;
};

static void take_half(const struct eval_job *j, size_t finding, unsigned which, struct half *ret)
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

static void print_fit(const struct eval_job *j, size_t finding, const struct half *test,
		      const struct platt *p, double *probability)
{
	const struct finding *f = &j->f->finding[finding];
	double auc = NAN;
	size_t i;

	for (i = 0; i < test->n; i++)
		probability[i] = calibrate_probability(p, test->logit[i]);
	(void)metrics_auc(test->logit, test->positive, test->n,
			  &auc); /* NAN when one kind is missing there */
	printf("%s\t%s\t%zu\t%zu\t", f->id, f->prompt, test->n, count(test->positive, test->n));
	printf(isnan(auc) ? "-\t" : "%.4f\t", auc);
	printf("%.4f\t%.4f\t%.5f\n", p->a, p->b, metrics_brier(probability, test->positive, test->n));
}

static int fit_one(const struct eval_job *j, size_t finding, struct half *half, double *probability)
{
	const char *id = j->f->finding[finding].id;
	struct platt p;
	int r;

	if (!j->labels.known[finding])
		return tool_failed(j->verb, "%s: %s has no labels for it", id, j->labels_path);
	take_half(j, finding, 0, half);
	r = calibrate_platt(half->logit, half->positive, half->n, j->l2, &p);
	if (r == -EDOM)
		return tool_failed(
			j->verb,
			"%s: %zu of %zu images to fit on are positive; both kinds are needed", id,
			count(half->positive, half->n), half->n);
	if (r < 0)
		return tool_failed(j->verb,
				   "%s: the logits separate the images without a doubt, so a has "
				   "no best value; use "
				   "--l2",
				   id);
	if (p.a <= 0)
		(void)tool_failed(j->verb,
				  "%s: a is not above 0: higher scores mean fewer positives here; "
				  "do not use it",
				  id);
	take_half(j, finding, 1, half);
	if (half->n == 0)
		return tool_failed(j->verb, "%s: no patient is left to measure on; use --no-split", id);
	print_fit(j, finding, half, &p, probability);
	return p.a > 0 ? TOOL_DONE : TOOL_FAILED;
}

static int calibrate(struct eval_job *j)
{
	struct half half = { xcalloc(j->labels.rows, sizeof(*half.logit)),
			     xcalloc(j->labels.rows, 1), 0 };
	double *probability = xcalloc(j->labels.rows, sizeof(*probability));
	int code = TOOL_DONE;
	size_t i;

	printf("finding\tprompt\timages\tpositives\tauc\ta\tb\tbrier\n");
	for (i = 0; i < j->f->n; i++)
		if (fit_one(j, i, &half, probability) != TOOL_DONE)
			code = TOOL_FAILED;
	free(half.logit);
	free(half.positive);
	free(probability);
	return code;
}

/* Both verbs: the same files; `fit` has its own options. */
static int read_options(struct eval_job *j, int argc, char **argv, bool fit)
{
	static const struct option options[] = {
		{ "findings", required_argument, NULL, 'f' }, { "logits", required_argument, NULL, 'g' },
		{ "labels", required_argument, NULL, 'b' },   { "help", no_argument, NULL, TOOL_HELP },
		{ "json", no_argument, NULL, 'j' },	      { "l2", required_argument, NULL, 'l' },
		{ "no-split", no_argument, NULL, 'n' },	      { NULL, 0, NULL, 0 },
	};
	char *end;
	int c;

	while ((c = tool_option(j->verb, argc, argv, options)) != -1) {
		if ((fit && c == 'j') || (!fit && (c == 'l' || c == 'n')))
			return tool_usage(j->verb, "%s is not an option of this verb",
					  c == 'j' ? "--json" : c == 'l' ? "--l2" : "--no-split");
		switch (c) {
		case 'f': j->list = optarg; break;
		case 'g': j->logits_path = optarg; break;
		case 'b': j->labels_path = optarg; break;
		case 'j': j->json = true; break;
		case 'n': j->split = false; break;
		case 'l':
			j->l2 = strtod(optarg, &end);
			if (end == optarg || *end != '\0' || !(j->l2 >= 0 && j->l2 <= 1e9))
				return tool_usage(j->verb, "--l2 %s: expected a number from 0 on",
						  optarg);
			break;
		case TOOL_HELP: fputs(fit ? calibrate_help : eval_help, stdout); return -1;
		default: return TOOL_USAGE;
		}
	}
	if (j->list == NULL || j->logits_path == NULL || j->labels_path == NULL)
		return tool_usage(j->verb, "%s FILE is missing", j->list == NULL ? "--findings" :
				  j->logits_path == NULL ? "--logits" : "--labels");
	return optind < argc ? tool_usage(j->verb, "what is %s for?", argv[optind]) : TOOL_DONE;
}

int tool_eval(int argc, char **argv)
{
	struct eval_job j = { .verb = argv[0] };
	int code = read_options(&j, argc, argv, false);

	if (code == TOOL_DONE)
		code = load(&j);
	if (code == TOOL_DONE)
		code = evaluate(&j);
	unload(&j);
	return code < 0 ? TOOL_DONE : code; /* help is no failure */
}

int tool_calibrate(int argc, char **argv)
{
	struct eval_job j = { .verb = argv[0], .split = true, .l2 = DEFAULT_L2 };
	int code = read_options(&j, argc, argv, true);

	if (code == TOOL_DONE)
		code = load(&j);
	if (code == TOOL_DONE)
		code = calibrate(&j);
	unload(&j);
	return code < 0 ? TOOL_DONE : code; /* help is no failure */
}
