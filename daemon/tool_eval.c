/* tool_eval.c: carzero-model eval: how well logits, stored or of scored images, tell labels apart. */
#include <jansson.h>
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

#define TAIL_MAX 10 /* positives of a rare finding */
#define BOOTSTRAP_SEED 1

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

/* Rows of the table: one a finding, then the means of groups of them, then all as one set. */
enum { GROUP_MACRO, GROUP_WEIGHTED, GROUP_HEAD, GROUP_MEDIUM, GROUP_TAIL, GROUPS };
static const char *const group_names[GROUPS + 1] = { "macro", "weighted", "head", "medium", "tail", "micro" };

struct evaluation {
	const struct measure_job *j;
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

/* ---- ROC curves ---- */

/* Ties are one slanted line, as they count half. */
static void draw_curve(const struct evaluation *v, size_t i, struct plot *p)
{
	const float *x = v->j->logits.column[i];
	const uint8_t *positive = v->j->labels.column[i];
	double of[2] = { (double)(v->rows - v->positives[i]), (double)v->positives[i] }, n[2] = { 0, 0 };
	size_t k, m;

	plot_line(p, 0, 0);
	for (k = 0; k < v->rows; k = m) {
		for (m = k; m < v->rows && x[v->order[i][m]] == x[v->order[i][k]]; m++)
			n[positive[v->order[i][m]]]++;
		plot_line(p, n[0] / of[0], n[1] / of[1]);
	}
}

static int draw_roc(const struct evaluation *v)
{
	const char *path = v->j->svg_path;
	struct plot *p;
	struct err e;
	char note[32];
	size_t i;

	if (plot_open(path, v->findings, "1 - specificity", "sensitivity", &p, &e) < 0)
		return tool_failed(v->j->verb, "%s", e.text);
	for (i = 0; i < v->findings; i++) {
		bool defined = !isnan(v->now[i].auc);

		(void)snprintf(note, sizeof(note), defined ? "AUC %.4f" : "AUC -", v->now[i].auc); /* fits */
		plot_square(p, v->j->f->finding[i].name, note);
		if (defined)
			draw_curve(v, i, p);
	}
	return plot_close(p) < 0 ? tool_failed(v->j->verb, "%s: cannot be written", path) : TOOL_DONE;
}

static int prepare(struct evaluation *v)
{
	const struct measure_job *j = v->j;
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
		v->positives[i] = measure_count(j->labels.column[i], v->rows);
		memcpy(v->pooled + known * v->rows, j->logits.column[i], v->rows * sizeof(*v->pooled));
		memcpy(v->pooled_positive + known * v->rows, j->labels.column[i], v->rows);
		known++;
		if (metrics_order(j->logits.column[i], v->rows, &v->order[i]) < 0)
			return -ENOMEM;
	}
	return metrics_order(v->pooled, v->n_pooled, &v->pooled_order);
}

static int evaluate(struct measure_job *j)
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

int tool_eval(int argc, char **argv)
{
	struct measure_job j = { .verb = argv[0], .recipe = "window", .precision = "f32" };
	int code = measure_options(&j, argc, argv, false, eval_help);

	if (code == TOOL_DONE)
		code = measure_load(&j);
	if (code == TOOL_DONE)
		code = evaluate(&j);
	measure_unload(&j);
	return code < 0 ? TOOL_DONE : code; /* help is no failure */
}
