/* tool_eval.c: carzero-model eval and calibrate: from logits, stored or of scored images, and labels.
 *
 * Patients, not images, are split and drawn again: two films of one person in both halves would flatter
 * the fit, and films of one person are no independent witnesses of an AUC.
 */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

#include "model/calibrate.h"
#include "model/metrics.h"

#include "daemon/tables.h"
#include "daemon/tool.h"

#define DEFAULT_L2 1.0
#define SPLIT_BIT 40 /* of the patient's hash */
#define TAIL_MAX 10  /* positives of a rare finding */
#define REPLICATES 1000
#define REPLICATES_MAX 100000
#define BOOTSTRAP_SEED 1
#define BINS 10 /* of the table of reliability */

static const char eval_help[] =
	"Usage: carzero-model eval --findings FILE (--logits FILE | --model DIR --images LIST)\n"
	"                          --labels FILE [--bootstrap N] [--json]\n"
	"                          [--threshold-sensitivity S] [--threshold-alarm A] [--svg FILE]\n"
	"\n"
	"Area under the ROC curve (ties count half) and under the precision-recall curve (average\n"
	"precision) of each finding, each with a 95% interval. Prints finding, images, positives, auc,\n"
	"auc_low, auc_high, auprc, auprc_low, auprc_high; a finding without labels, or with one kind\n"
	"of image only, has '-' and counts in no mean. Then: macro (plain mean), weighted (by\n"
	"positives), head, medium and tail (plain means: more positives than the 65th percentile of\n"
	"the findings', the rest, at most 10) and micro (all findings' images as one set).\n"
	"\n"
	"  --findings FILE  the findings list; its order is the order of the columns\n"
	"  --logits FILE    CSV, a header of finding ids (or 0,1,2,...) and a row an image\n"
	"  --model DIR      instead: a bundle, which scores the images of\n"
	"  --images LIST    one path a line, relative to the list's folder, as 'score' does by default;\n"
	"                   an image that cannot be scored is an error\n"
	"  --labels FILE    NIH ChestXray14's list ('path 0 1 ...'), Open-I's CSV with\n"
	"                   labels_automatic, or CSV with finding ids as header; the same rows\n"
	"  --threshold-sensitivity S  instead: of each finding the highest threshold that finds at least\n"
	"                   this share of its positives\n"
	"  --threshold-alarm A  and/or the lowest one that at most this share of all images reaches.\n"
	"                   Prints finding, wanted, threshold (logit), its 95% interval, probability,\n"
	"                   sensitivity, ppv, alarm_rate; probability is by the list's calibration\n"
	"  --svg FILE       also draws the ROC curves of all findings; nothing is overwritten\n"
	"  --bootstrap N    patients are drawn N times with replacement, always in the same way\n"
	"                   (default 1000; 0 for no intervals)\n"
	"  --json           JSON instead of a table\n";

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
	"  --table            instead: a line a finding: finding, prompt, images, positives, auc, a, b,\n"
	"                     brier; needs no --family\n"
	"\n"
	"A calibration holds for these weights, prompts, pixel preparation and a population with this\n"
	"share of positives, and no other.\n";

struct eval_job {
	const char *verb, *list, *logits_path, *labels_path;
	const char *svg_path; /* NULL for no drawing */
	const char *model_path, *images_path; /* instead of logits_path */
	bool json, split, table;
	double l2, prevalence;	     /* prevalence: 0 for that of the fit */
	unsigned replicates;	     /* of the bootstrap */
	double sensitivity, alarm;   /* wanted of thresholds; 0 for none */
	const char *family, *recipe, *precision, *origin;
	struct findings *f;
	struct logit_table logits;
	struct label_table labels;
};

static int load(struct eval_job *j)
{
	struct err e;

	if (findings_load(j->list, &j->f, NULL, NULL, &e) < 0 ||
	    (j->logits_path != NULL && logits_load(j->logits_path, j->f, &j->logits, &e) < 0) ||
	    labels_load(j->labels_path, j->f, &j->labels, &e) < 0)
		return tool_failed(j->verb, "%s", e.text);
	if (j->logits_path == NULL && tool_score_list(j->verb, j->model_path, j->list, j->images_path,
						      j->labels.rows, &j->logits) != TOOL_DONE)
		return TOOL_FAILED;
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

/* ---- eval ---- */

/* Rows of the table: one a finding, then the means of groups of them, then all as one set. */
enum { GROUP_MACRO, GROUP_WEIGHTED, GROUP_HEAD, GROUP_MEDIUM, GROUP_TAIL, GROUPS };
static const char *const group_names[GROUPS + 1] = { "macro", "weighted", "head", "medium", "tail", "micro" };

struct evaluation {
	const struct eval_job *j;
	size_t findings, rows, n;    /* n = findings + GROUPS + 1 */
	size_t patients, *patient;   /* [rows] dense numbers */
	size_t *positives;	     /* [findings] */
	bool member[GROUPS][FINDINGS_MAX];
	uint32_t **order, *pooled_order;
	float *pooled;		     /* [rows * known findings], one finding after another */
	uint8_t *pooled_positive;
	size_t n_pooled;
	struct measures *now;	     /* [n]; auc is NAN where it is not defined */
	float *drawn[2];	     /* [replicates][n] auc and auprc */
};

static int by_number(const void *pa, const void *pb)
{
	const uint64_t *a = pa, *b = pb;

	return (*a > *b) - (*a < *b);
}

static void number_patients(struct evaluation *v)
{
	CLEANUP(free) uint64_t *sorted = xcalloc(v->rows + 1, sizeof(*sorted));
	size_t i, n = 0;

	memcpy(sorted, v->j->labels.patient, v->rows * sizeof(*sorted));
	qsort(sorted, v->rows, sizeof(*sorted), by_number);
	for (i = 0; i < v->rows; i++)
		if (i == 0 || sorted[i] != sorted[i - 1])
			sorted[n++] = sorted[i];
	v->patients = n;
	for (i = 0; i < v->rows; i++)
		v->patient[i] = (size_t)((const uint64_t *)bsearch(&v->j->labels.patient[i], sorted, n,
								   sizeof(*sorted), by_number) -
					 sorted);
}

static int by_size(const void *pa, const void *pb)
{
	const double *a = pa, *b = pb;

	return (*a > *b) - (*a < *b);
}

/* The reference's split: head above the 65th percentile of the numbers of positives (interpolated),
 * tail with at most 10. */
static void divide(struct evaluation *v)
{
	double count[FINDINGS_MAX], at, head = 0;
	size_t n = 0, i, low;

	for (i = 0; i < v->findings; i++)
		if (!isnan(v->now[i].auc))
			count[n++] = (double)v->positives[i];
	qsort(count, n, sizeof(*count), by_size);
	if (n > 0) {
		at = 0.65 * (double)(n - 1);
		low = (size_t)at;
		head = count[low] + (at - (double)low) * ((low + 1 < n ? count[low + 1] : count[low]) - count[low]);
	}
	for (i = 0; i < v->findings; i++) {
		bool counts = !isnan(v->now[i].auc), above = (double)v->positives[i] > head;

		v->member[GROUP_MACRO][i] = v->member[GROUP_WEIGHTED][i] = counts;
		v->member[GROUP_HEAD][i] = counts && above;
		v->member[GROUP_TAIL][i] = counts && !above && v->positives[i] <= TAIL_MAX;
		v->member[GROUP_MEDIUM][i] = counts && !above && v->positives[i] > TAIL_MAX;
	}
}

/* Everything that the table shows, once; weight: [rows] or NULL, pooled_weight likewise. */
static void measure(const struct evaluation *v, const uint32_t *weight, const uint32_t *pooled_weight,
		    struct measures *ret)
{
	const struct measures none = { (double)NAN, (double)NAN };
	size_t i, g;

	for (i = 0; i < v->n; i++)
		ret[i] = none;
	for (i = 0; i < v->findings; i++)
		if (v->order[i] != NULL)
			(void)metrics_measure(v->j->logits.column[i], v->order[i], v->j->labels.column[i],
					      weight, v->rows, &ret[i]); /* else it stays NAN */
	for (g = 0; g < GROUPS; g++) {
		struct measures sum = { 0, 0 };
		double all = 0;

		for (i = 0; i < v->findings; i++) {
			double w = g == GROUP_WEIGHTED ? (double)v->positives[i] : 1;

			if (!v->member[g][i] || isnan(ret[i].auc))
				continue;
			sum.auc += w * ret[i].auc;
			sum.auprc += w * ret[i].auprc;
			all += w;
		}
		if (all > 0)
			ret[v->findings + g] = (struct measures){ sum.auc / all, sum.auprc / all };
	}
	(void)metrics_measure(v->pooled, v->pooled_order, v->pooled_positive, pooled_weight, v->n_pooled,
			      &ret[v->n - 1]); /* else it stays NAN */
}

/* SplitMix64 (Steele, Lea, Flood 2014): the same draws on every machine. */
static uint64_t draw(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

/* weight[i]: how often row i was drawn; times: [patients], for the purpose. */
static void draw_patients(const struct evaluation *v, uint64_t *state, uint32_t *times, uint32_t *weight)
{
	size_t i;

	memset(times, 0, v->patients * sizeof(*times));
	for (i = 0; i < v->patients; i++)
		times[draw(state) % v->patients]++; /* far fewer than 2^64: no bias to speak of */
	for (i = 0; i < v->rows; i++)
		weight[i] = times[v->patient[i]];
}

static void bootstrap(struct evaluation *v)
{
	CLEANUP(free) uint32_t *times = xcalloc(v->patients + 1, sizeof(*times));
	CLEANUP(free) uint32_t *weight = xcalloc(v->rows + 1, sizeof(*weight));
	CLEANUP(free) uint32_t *pooled_weight = xcalloc(v->n_pooled + 1, sizeof(*pooled_weight));
	CLEANUP(free) struct measures *m = xcalloc(v->n, sizeof(*m));
	uint64_t state = BOOTSTRAP_SEED;
	size_t i;
	unsigned k;

	for (k = 0; k < v->j->replicates; k++) {
		draw_patients(v, &state, times, weight);
		for (i = 0; i < v->n_pooled; i++)
			pooled_weight[i] = weight[i % v->rows];
		measure(v, weight, pooled_weight, m);
		for (i = 0; i < v->n; i++) {
			v->drawn[0][k * v->n + i] = (float)m[i].auc;
			v->drawn[1][k * v->n + i] = (float)m[i].auprc;
		}
	}
}

static int by_value(const void *pa, const void *pb)
{
	const float *a = pa, *b = pb;

	return (*a > *b) - (*a < *b);
}

/* The 2.5th and 97.5th percentile of x, which is sorted for it; NAN of none. */
static void percentiles(float *x, size_t n, double ret[2])
{
	qsort(x, n, sizeof(*x), by_value);
	ret[0] = n > 0 ? (double)x[(size_t)(0.025 * (double)(n - 1) + 0.5)] : (double)NAN;
	ret[1] = n > 0 ? (double)x[(size_t)(0.975 * (double)(n - 1) + 0.5)] : (double)NAN;
}

/* Of the draws in which row i was defined. */
static void interval(const struct evaluation *v, unsigned which, size_t i, double ret[2])
{
	CLEANUP(free) float *x = xcalloc((size_t)v->j->replicates + 1, sizeof(*x));
	size_t n = 0, k;

	for (k = 0; k < v->j->replicates; k++)
		if (!isnan(v->drawn[which][k * v->n + i]))
			x[n++] = v->drawn[which][k * v->n + i];
	percentiles(x, n, ret);
}

static json_t *json_number(double x)
{
	return isnan(x) ? json_null() : json_real(x);
}

static void print_number(double x)
{
	printf(isnan(x) ? "\t-" : "\t%.4f", x);
}

/* images and positives of a row; a group's are those of its findings together. */
static void print_row(const struct evaluation *v, size_t i, json_t *rows)
{
	bool is_finding = i < v->findings;
	const char *name = is_finding ? v->j->f->finding[i].id : group_names[i - v->findings];
	size_t n = v->rows, positives = 0, k;
	double auc[2], auprc[2];

	if (is_finding) {
		n = v->j->labels.known[i] ? v->rows : 0;
		positives = v->positives[i];
	}
	for (k = 0; !is_finding && k < v->findings; k++)
		if (i + 1 == v->n ? v->j->labels.known[k] : v->member[i - v->findings][k])
			positives += v->positives[k];
	interval(v, 0, i, auc);
	interval(v, 1, i, auprc);
	if (rows != NULL) {
		json_array_append_new(
			rows, json_pack("{s:s, s:I, s:I, s:o, s:[o, o], s:o, s:[o, o]}",
					is_finding ? "finding" : "mean", name, "images", (json_int_t)n,
					"positives", (json_int_t)positives, "auc", json_number(v->now[i].auc),
					"auc_95", json_number(auc[0]), json_number(auc[1]), "auprc",
					json_number(v->now[i].auprc), "auprc_95", json_number(auprc[0]),
					json_number(auprc[1])));
		return;
	}
	printf("%s\t%zu\t%zu", name, n, positives);
	print_number(v->now[i].auc);
	print_number(auc[0]);
	print_number(auc[1]);
	print_number(v->now[i].auprc);
	print_number(auprc[0]);
	print_number(auprc[1]);
	putchar('\n');
}

static void print_evaluation(const struct evaluation *v)
{
	json_t *rows = v->j->json ? json_array() : NULL, *means, *root;
	size_t i;

	if (rows == NULL)
		printf("finding\timages\tpositives\tauc\tauc_low\tauc_high\tauprc\tauprc_low\tauprc_high\n");
	for (i = 0; i < v->findings; i++)
		print_row(v, i, rows);
	means = rows != NULL ? json_array() : NULL;
	for (i = v->findings; i < v->n; i++)
		print_row(v, i, means);
	if (rows == NULL)
		return;
	root = json_pack("{s:o, s:o, s:o, s:I, s:I}", "findings", rows, "means", means, "macro_auc",
			 json_number(v->now[v->findings + GROUP_MACRO].auc), "patients",
			 (json_int_t)v->patients, "bootstrap", (json_int_t)v->j->replicates);
	(void)json_dumpf(root, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
	putchar('\n');
	json_decref(root);
}

/* ---- thresholds ---- */

static void print_threshold(const struct evaluation *v, size_t i, int by_alarm, json_t *rows)
{
	CLEANUP(free) uint32_t *times = xcalloc(v->patients + 1, sizeof(*times));
	CLEANUP(free) uint32_t *weight = xcalloc(v->rows + 1, sizeof(*weight));
	CLEANUP(free) float *drawn = xcalloc((size_t)v->j->replicates + 1, sizeof(*drawn));
	const float *logit = v->j->logits.column[i];
	const uint8_t *positive = v->j->labels.column[i];
	const struct finding *f = &v->j->f->finding[i];
	const struct calibration *c = &f->calibration;
	const char *wanted = by_alarm ? "alarm_rate" : "sensitivity";
	double share = by_alarm ? v->j->alarm : v->j->sensitivity, x[2], p = NAN;
	struct threshold now = { (double)NAN, (double)NAN, (double)NAN, (double)NAN }, t;
	uint64_t state = BOOTSTRAP_SEED; /* each finding sees the same draws */
	size_t n = 0;
	unsigned k;

	if (v->order[i] != NULL &&
	    metrics_threshold(logit, v->order[i], positive, NULL, v->rows, share, by_alarm, &now) == 0)
		for (k = 0; k < v->j->replicates; k++) {
			draw_patients(v, &state, times, weight);
			if (metrics_threshold(logit, v->order[i], positive, weight, v->rows, share, by_alarm,
					      &t) == 0)
				drawn[n++] = (float)t.score;
		}
	percentiles(drawn, n, x);
	if (c->present)
		p = calibrate_probability(&(struct platt){ c->a, c->b }, now.score);
	if (rows != NULL) {
		json_array_append_new(
			rows, json_pack("{s:s, s:s, s:f, s:o, s:[o, o], s:o, s:o, s:o, s:o}", "finding", f->id,
					"by", wanted, "wanted", share, "threshold", json_number(now.score),
					"threshold_95", json_number(x[0]), json_number(x[1]), "probability",
					json_number(p), "sensitivity", json_number(now.sensitivity), "ppv",
					json_number(now.ppv), "alarm_rate", json_number(now.alarm_rate)));
		return;
	}
	printf("%s\t%s=%g", f->id, wanted, share);
	printf(isnan(now.score) ? "\t-" : "\t%.6f", now.score); /* digits of score, to be compared with */
	printf(isnan(x[0]) ? "\t-\t-" : "\t%.6f\t%.6f", x[0], x[1]);
	printf(isnan(p) ? "\t-" : "\t%.6f", p);
	print_number(now.sensitivity);
	print_number(now.ppv);
	print_number(now.alarm_rate);
	putchar('\n');
}

static void print_thresholds(const struct evaluation *v)
{
	json_t *rows = v->j->json ? json_array() : NULL, *root;
	size_t i;

	if (rows == NULL)
		puts("finding\twanted\tthreshold\tlow\thigh\tprobability\tsensitivity\tppv\talarm_rate");
	for (i = 0; i < v->findings; i++) {
		if (v->j->sensitivity > 0)
			print_threshold(v, i, 0, rows);
		if (v->j->alarm > 0)
			print_threshold(v, i, 1, rows);
	}
	if (rows == NULL)
		return;
	root = json_pack("{s:o, s:I, s:I}", "thresholds", rows, "patients", (json_int_t)v->patients,
			 "bootstrap", (json_int_t)v->j->replicates);
	(void)json_dumpf(root, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
	putchar('\n');
	json_decref(root);
}

/* ---- ROC curves as SVG: one small square a finding ---- */

enum { SQUARE = 200, CELL_WIDTH = 240, CELL_HEIGHT = 250, PER_LINE = 4 };

static void svg_text(FILE *o, const char *text)
{
	for (; *text != '\0'; text++)
		switch (*text) {
		case '&': fputs("&amp;", o); break;
		case '<': fputs("&lt;", o); break;
		case '>': fputs("&gt;", o); break;
		default: putc(*text, o);
		}
}

/* Ties are one slanted line, as they count half; steps below half a pixel are left out. */
static void svg_curve(const struct evaluation *v, size_t i, FILE *o)
{
	const float *x = v->j->logits.column[i];
	const uint8_t *positive = v->j->labels.column[i];
	double of[2] = { (double)(v->rows - v->positives[i]), (double)v->positives[i] }, n[2] = { 0, 0 };
	double was[2] = { 0, 0 };
	size_t k, m;

	fputs("<polyline fill=\"none\" stroke=\"#1f5fa8\" stroke-width=\"2\" points=\"0,200", o);
	for (k = 0; k < v->rows; k = m) {
		for (m = k; m < v->rows && x[v->order[i][m]] == x[v->order[i][k]]; m++)
			n[positive[v->order[i][m]]]++;
		if (m < v->rows && n[0] / of[0] - was[0] < 0.0025 && n[1] / of[1] - was[1] < 0.0025)
			continue;
		was[0] = n[0] / of[0];
		was[1] = n[1] / of[1];
		fprintf(o, " %.1f,%.1f", SQUARE * was[0], SQUARE * (1 - was[1]));
	}
	fputs("\"/>\n", o);
}

static int draw_roc(const struct evaluation *v)
{
	size_t lines = (v->findings + PER_LINE - 1) / PER_LINE, i;
	FILE *o = fopen(v->j->svg_path, "wxe");
	bool bad;

	if (o == NULL)
		return tool_failed(v->j->verb, "%s: %s", v->j->svg_path, strerror(errno));
	fprintf(o, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%zu\" "
		   "font-family=\"sans-serif\" font-size=\"12\">\n"
		   "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
		PER_LINE * CELL_WIDTH, lines * CELL_HEIGHT);
	for (i = 0; i < v->findings; i++) {
		fprintf(o, "<g transform=\"translate(%zu,%zu)\">\n<text y=\"-6\">", i % PER_LINE * CELL_WIDTH + 20,
			i / PER_LINE * CELL_HEIGHT + 25);
		svg_text(o, v->j->f->finding[i].name);
		fputs("</text>\n<rect width=\"200\" height=\"200\" fill=\"none\" stroke=\"#888\"/>\n"
		      "<line x1=\"0\" y1=\"200\" x2=\"200\" y2=\"0\" stroke=\"#ccc\"/>\n", o);
		fprintf(o, isnan(v->now[i].auc) ? "<text x=\"110\" y=\"190\">AUC -</text>\n" :
			"<text x=\"110\" y=\"190\">AUC %.4f</text>\n", v->now[i].auc);
		if (!isnan(v->now[i].auc))
			svg_curve(v, i, o);
		fputs("</g>\n", o);
	}
	fputs("</svg>\n", o);
	bad = ferror(o) != 0;
	bad |= fclose(o) != 0;
	return bad ? tool_failed(v->j->verb, "%s: cannot be written", v->j->svg_path) : TOOL_DONE;
}

static int prepare(struct evaluation *v)
{
	const struct eval_job *j = v->j;
	size_t i, known = 0;

	for (i = 0; i < v->findings; i++)
		known += j->labels.known[i];
	v->n_pooled = known * v->rows; /* at most 256 * 2,000,000 */
	if (v->n_pooled > UINT32_MAX)
		return -E2BIG;
	v->pooled = xcalloc(v->n_pooled + 1, sizeof(*v->pooled));
	v->pooled_positive = xcalloc(v->n_pooled + 1, 1);
	for (i = 0, known = 0; i < v->findings; i++) {
		if (!j->labels.known[i])
			continue;
		v->positives[i] = count(j->labels.column[i], v->rows);
		memcpy(v->pooled + known * v->rows, j->logits.column[i], v->rows * sizeof(*v->pooled));
		memcpy(v->pooled_positive + known * v->rows, j->labels.column[i], v->rows);
		known++;
		if (metrics_order(j->logits.column[i], v->rows, &v->order[i]) < 0)
			return -ENOMEM;
	}
	return metrics_order(v->pooled, v->n_pooled, &v->pooled_order);
}

static int evaluate(struct eval_job *j)
{
	struct evaluation v = { .j = j, .findings = j->f->n, .rows = j->labels.rows,
				.n = j->f->n + GROUPS + 1 };
	int code = TOOL_DONE;
	size_t i;

	v.patient = xcalloc(v.rows + 1, sizeof(*v.patient));
	v.positives = xcalloc(v.findings, sizeof(*v.positives));
	v.order = xcalloc(v.findings, sizeof(*v.order));
	v.now = xcalloc(v.n, sizeof(*v.now));
	for (i = 0; i < 2; i++)
		v.drawn[i] = xcalloc((size_t)j->replicates * v.n + 1, sizeof(**v.drawn));
	number_patients(&v);
	if (prepare(&v) < 0) {
		code = tool_failed(j->verb, "no memory for %zu images of %zu findings", v.rows, v.findings);
	} else if (j->sensitivity > 0 || j->alarm > 0) {
		print_thresholds(&v);
	} else {
		measure(&v, NULL, NULL, v.now); /* which findings count; groups follow */
		divide(&v);
		measure(&v, NULL, NULL, v.now);
		if (isnan(v.now[v.findings + GROUP_MACRO].auc) && !j->json)
			code = tool_failed(j->verb, "no finding has both kinds of images");
		bootstrap(&v);
		print_evaluation(&v);
		if (j->svg_path != NULL && draw_roc(&v) != TOOL_DONE)
			code = TOOL_FAILED;
	}
	for (i = 0; i < v.findings; i++)
		free(v.order[i]);
	free(v.order);
	free(v.pooled_order);
	free(v.pooled);
	free(v.pooled_positive);
	free(v.patient);
	free(v.positives);
	free(v.now);
	free(v.drawn[0]);
	free(v.drawn[1]);
	return code;
}

/* ---- calibrate ---- */

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
	print_text("  name", f->name);
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

/* Probabilities in tenths, and what was the case; as comments.  The error is the mean distance of the two,
 * each bin counting by its images (expected calibration error). */
static void print_reliability(const double *probability, const uint8_t *positive, size_t n)
{
	double sum[BINS] = { 0 }, hits[BINS] = { 0 }, error = 0;
	size_t in[BINS] = { 0 }, i;

	for (i = 0; i < n; i++) {
		size_t bin = (size_t)(probability[i] * BINS);

		bin = bin < BINS ? bin : BINS - 1;
		in[bin]++;
		sum[bin] += probability[i];
		hits[bin] += positive[i];
	}
	puts("  #   probability   images   mean said   were positive");
	for (i = 0; i < BINS; i++) {
		if (in[i] == 0)
			continue;
		printf("  #   %.1f to %.1f %10zu      %.4f          %.4f\n", (double)i / BINS,
		       (double)(i + 1) / BINS, in[i], sum[i] / (double)in[i], hits[i] / (double)in[i]);
		error += fabs(sum[i] - hits[i]);
	}
	printf("  #   expected calibration error %.4f\n", error / (double)n);
}

/* `share`: of positives among those it was fitted on. */
static void print_fit(const struct eval_job *j, size_t finding, const struct half *test, double share,
		      const struct platt *p, double *probability)
{
	const struct finding *f = &j->f->finding[finding];
	const char *slash = strrchr(j->labels_path, '/');
	double auc = NAN, brier, assumed = j->prevalence > 0 ? j->prevalence : share;
	size_t i, positives = count(test->positive, test->n);

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
	print_reliability(probability, test->positive, test->n);
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

static int fit_one(const struct eval_job *j, size_t finding, struct half *half, double *probability)
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
			count(half->positive, half->n), half->n);
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
	share = (double)count(half->positive, half->n) / (double)half->n;
	take_half(j, finding, 1, half);
	if (half->n == 0)
		return tool_failed(j->verb, "%s: no patient is left to measure on; use --no-split", id);
	print_fit(j, finding, half, share, &p, probability);
	return TOOL_DONE;
}

static int calibrate(struct eval_job *j)
{
	struct half half = { xcalloc(j->labels.rows, sizeof(*half.logit)),
			     xcalloc(j->labels.rows, 1), 0 };
	double *probability = xcalloc(j->labels.rows, sizeof(*probability));
	int code = TOOL_DONE;
	size_t i;

	if (j->table) {
		puts("finding\tprompt\timages\tpositives\tauc\ta\tb\tbrier");
	} else {
		puts("# Calibrations by carzero-model calibrate; thresholds are yours to choose and to measure.");
		print_text("name", j->f->name);
		print_text("language", j->f->language);
		puts("\nfindings:");
	}
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
		{ "json", no_argument, NULL, 'j' },	      { "bootstrap", required_argument, NULL, 'r' },
		{ "l2", required_argument, NULL, 'l' },	      { "no-split", no_argument, NULL, 'n' },
		{ "table", no_argument, NULL, 't' },	      { "family", required_argument, NULL, 'y' },
		{ "recipe", required_argument, NULL, 'c' },   { "precision", required_argument, NULL, 'q' },
		{ "origin", required_argument, NULL, 'o' },   { "prevalence", required_argument, NULL, 'p' },
		{ "model", required_argument, NULL, 'm' },    { "images", required_argument, NULL, 'i' },
		{ "threshold-sensitivity", required_argument, NULL, 'S' },
		{ "svg", required_argument, NULL, 'V' },
		{ "threshold-alarm", required_argument, NULL, 'A' },
		{ NULL, 0, NULL, 0 },
	};
	static const char of_eval[] = "jrmiSAV", of_calibrate[] = "lntycqop";
	const struct option *o;
	uint64_t replicates = REPLICATES;
	double share;
	char *end;
	int c;

	while ((c = tool_option(j->verb, argc, argv, options)) != -1) {
		if (c != TOOL_HELP && c != '?' && strchr(fit ? of_eval : of_calibrate, c) != NULL) {
			for (o = options; o->val != c; o++)
				continue;
			return tool_usage(j->verb, "--%s is not an option of this verb", o->name);
		}
		switch (c) {
		case 'f': j->list = optarg; break;
		case 'g': j->logits_path = optarg; break;
		case 'V': j->svg_path = optarg; break;
		case 'm': j->model_path = optarg; break;
		case 'i': j->images_path = optarg; break;
		case 'b': j->labels_path = optarg; break;
		case 'j': j->json = true; break;
		case 'n': j->split = false; break;
		case 't': j->table = true; break;
		case 'y': j->family = optarg; break;
		case 'o': j->origin = optarg; break;
		case 'c': j->recipe = optarg; break;
		case 'q': j->precision = optarg; break;
		case 'r':
			if (!str_to_u64(optarg, 0, REPLICATES_MAX, &replicates))
				return tool_usage(j->verb, "--bootstrap %s: expected a number from 0 to %d",
						  optarg, REPLICATES_MAX);
			break;
		case 'S':
		case 'A':
			share = strtod(optarg, &end);
			if (end == optarg || *end != '\0' || !(share > 0 && share <= 1))
				return tool_usage(j->verb, "--threshold-%s %s: expected a share, above 0 and up to 1",
						  c == 'S' ? "sensitivity" : "alarm", optarg);
			*(c == 'S' ? &j->sensitivity : &j->alarm) = share;
			break;
		case 'p':
			j->prevalence = strtod(optarg, &end);
			if (end == optarg || *end != '\0' || !(j->prevalence > 0 && j->prevalence < 1))
				return tool_usage(j->verb, "--prevalence %s: expected a share between 0 and 1",
						  optarg);
			break;
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
	if ((j->model_path != NULL) != (j->images_path != NULL))
		return tool_usage(j->verb, "--model DIR and --images LIST go together");
	if (j->svg_path != NULL && (j->sensitivity > 0 || j->alarm > 0))
		return tool_usage(j->verb, "--svg draws what goes with the areas, not with thresholds");
	if (j->model_path != NULL && j->logits_path != NULL)
		return tool_usage(j->verb, "give either --logits FILE or --model DIR and --images LIST");
	if (j->list == NULL || (j->logits_path == NULL && j->model_path == NULL) || j->labels_path == NULL)
		return tool_usage(j->verb, "%s FILE is missing", j->list == NULL ? "--findings" :
				  j->logits_path == NULL && j->model_path == NULL ? "--logits" : "--labels");
	if (strcmp(j->recipe, "window") != 0 && strcmp(j->recipe, "mimic") != 0)
		return tool_usage(j->verb, "--recipe %s: expected window or mimic", j->recipe);
	if (strcmp(j->precision, "f32") != 0 && strcmp(j->precision, "bf16") != 0 &&
	    strcmp(j->precision, "int8") != 0)
		return tool_usage(j->verb, "--precision %s: expected f32, bf16 or int8", j->precision);
	if (fit && !j->table && (j->family == NULL || j->family[0] == '\0'))
		return tool_usage(j->verb, "--family NAME is missing: a calibration is of one family of weights");
	j->replicates = (unsigned)replicates;
	return optind < argc ? tool_usage(j->verb, "what is %s for?", argv[optind]) : TOOL_DONE;
}

int tool_eval(int argc, char **argv)
{
	struct eval_job j = { .verb = argv[0], .recipe = "window", .precision = "f32" };
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
	struct eval_job j = { .verb = argv[0], .split = true, .l2 = DEFAULT_L2, .recipe = "window",
			      .precision = "f32" };
	int code = read_options(&j, argc, argv, true);

	if (code == TOOL_DONE)
		code = load(&j);
	if (code == TOOL_DONE)
		code = calibrate(&j);
	unload(&j);
	return code < 0 ? TOOL_DONE : code; /* help is no failure */
}
