/* test_metrics.c: ROC AUC with ties, Brier score, Platt fits.
 *
 * Small cases by hand; with CARZEROD_SHARED set, the stored logits of the published weights: the AUC
 * and the a and b of platt.tsv to 3 decimals (this reads the files by itself: two independent
 * readers, see also test_tables.c).
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

#include "model/calibrate.h"
#include "model/metrics.h"
#include "tests/tap.h"

#define NIH_ROWS 22433
#define NIH_FINDINGS 14

static void check_auc(void)
{
	static const struct {
		const char *what;
		size_t n;
		float score[8];
		uint8_t positive[8];
		double auc;
	} cases[] = {
		{ "perfect", 4, { 1, 2, 3, 4 }, { 0, 0, 1, 1 }, 1 },
		{ "reversed", 4, { 4, 3, 2, 1 }, { 0, 0, 1, 1 }, 0 },
		{ "all tied", 5, { 7, 7, 7, 7, 7 }, { 0, 1, 0, 1, 1 }, 0.5 },
		{ "one tie across", 4, { 1, 2, 2, 3 }, { 0, 0, 1, 1 }, 0.875 },
		{ "ties of three", 6, { 1, 2, 2, 2, 3, 0 }, { 0, 0, 1, 0, 1, 1 }, 5.0 / 9 },
		{ "negative zero ties with zero", 2, { -0.0f, 0.0f }, { 1, 0 }, 0.5 },
	};
	double auc = 7;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		is_int(metrics_auc(cases[i].score, cases[i].positive, cases[i].n, &auc), 0, "AUC: %s", cases[i].what);
		ok(fabs(auc - cases[i].auc) < 1e-12, "  is %g", auc);
	}
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		CLEANUP(free) uint32_t *order = NULL;
		struct measures m = { 7, 7 };

		ok(metrics_order(cases[i].score, cases[i].n, &order) == 0 &&
			   metrics_measure(cases[i].score, order, cases[i].positive, NULL, cases[i].n, &m) == 0 &&
			   fabs(m.auc - cases[i].auc) < 1e-12,
		   "  the other way too: %s", cases[i].what);
	}
	auc = 7;
	is_int(metrics_auc(cases[0].score, cases[0].positive, 2, &auc), -EDOM, "no positive: no AUC");
	is_int(metrics_auc(NULL, NULL, 0, &auc), -EDOM, "no case: no AUC");
	ok(auc == 7, "the result is untouched");
	ok(fabs(metrics_brier((const double[]){ 0.5, 1, 0.25 }, (const uint8_t[]){ 1, 1, 0 }, 3) - (0.25 + 0 + 0.0625) / 3) < 1e-15,
	   "Brier score");
}

/* Average precision by hand, as scikit-learn's; a weight is that many copies. */
static void check_measures(void)
{
	static const float score[] = { 0.1f, 0.4f, 0.35f, 0.8f }, ties[] = { 1, 1, 2, 2, 2 },
			   copies[] = { 3, 1, 1, 2, 2, 2, 0 }, once[] = { 3, 1, 2, 0 };
	static const uint8_t positive[] = { 0, 0, 1, 1 }, tied[] = { 1, 0, 1, 0, 0 }, copied[] = { 1, 0, 0, 1, 1, 1, 0 },
			     single[] = { 1, 0, 1, 0 };
	static const uint32_t weight[] = { 1, 2, 3, 1 }, none[] = { 0, 2, 0, 1 };
	struct measures a = { 7, 7 }, b = { 8, 8 };
	uint32_t *order = NULL;

	ok(metrics_order(score, 4, &order) == 0 && metrics_measure(score, order, positive, NULL, 4, &a) == 0, "measures");
	ok(fabs(a.auc - 0.75) < 1e-12 && fabs(a.auprc - (1.0 / 2 + 2.0 / 3 / 2)) < 1e-12, "  0.75 and 0.8333: %g %g", a.auc, a.auprc);
	free(order);
	ok(metrics_order(ties, 5, &order) == 0 && metrics_measure(ties, order, tied, NULL, 5, &a) == 0 &&
		   fabs(a.auprc - (1.0 / 3 / 2 + 2.0 / 5 / 2)) < 1e-12,
	   "  ties come together: %g", a.auprc);
	free(order);
	ok(metrics_order(copies, 7, &order) == 0 && metrics_measure(copies, order, copied, NULL, 7, &a) == 0, "copies");
	free(order);
	ok(metrics_order(once, 4, &order) == 0 && metrics_measure(once, order, single, weight, 4, &b) == 0, "weights");
	ok(fabs(a.auc - b.auc) < 1e-12 && fabs(a.auprc - b.auprc) < 1e-12, "  are the same: %g %g", a.auc, a.auprc);
	is_int(metrics_measure(once, order, single, none, 4, &a), -EDOM, "positives of no weight are missing");
	free(order);
}

static void check_platt(void)
{
	static const float x[] = { -3, -2, -1, 0, 1, 2, 3, 4 };
	static const uint8_t mixed[] = { 0, 0, 1, 0, 1, 0, 1, 1 }, apart[] = { 0, 0, 0, 0, 1, 1, 1, 1 };
	struct platt p = { 7, 7 };
	double ga = 0, gb = 0;

	is_int(calibrate_platt(x, mixed, 8, 0, &p), 0, "a mixed set is fitted");
	for (size_t i = 0; i < 8; i++) {
		double d = calibrate_probability(&p, x[i]) - mixed[i];

		ga += d * (double)x[i];
		gb += d;
	}
	ok(fabs(ga) < 1e-7 && fabs(gb) < 1e-7, "its gradient is zero (%g, %g)", ga, gb);
	is_int(calibrate_platt(x, apart, 8, 0, &p), -ERANGE, "a separable set has no fit without l2");
	is_int(calibrate_platt(x, apart, 8, 1, &p), 0, "but one with it");
	ok(p.a > 0 && p.a < 10, "a is %g", p.a);
	is_int(calibrate_platt(x, apart, 4, 1, &p), -EDOM, "one kind only cannot be fitted");
	ok(fabs(calibrate_probability(&(struct platt){ 1, 0 }, 1e4) - 1) < 1e-15 &&
		   calibrate_probability(&(struct platt){ 1, 0 }, -1e4) >= 0,
	   "far logits do not overflow");
}

static void check_threshold(void)
{
	static const float x[6] = { 6, 5, 4, 4, 2, 1 };
	static const uint8_t y[6] = { 1, 0, 1, 0, 1, 0 };
	static const uint32_t w[6] = { 0, 1, 1, 1, 1, 1 };
	CLEANUP(free) uint32_t *order = NULL;
	struct threshold t = { 0, 0, 0, 0 };

	is_int(metrics_order(x, 6, &order), 0, "order");
	is_int(metrics_threshold(x, order, y, NULL, 6, 0.6, 0, &t), 0, "a threshold by sensitivity");
	ok(t.score == 4 && fabs(t.sensitivity - 2.0 / 3) < 1e-12 && t.ppv == 0.5 && fabs(t.alarm_rate - 4.0 / 6) < 1e-12,
	   "takes ties together (%g)", t.score);
	is_int(metrics_threshold(x, order, y, NULL, 6, 0.4, 1, &t), 0, "one by alarm rate");
	ok(t.score == 5 && t.ppv == 0.5, "keeps to it (%g)", t.score);
	is_int(metrics_threshold(x, order, y, w, 6, 0.3, 1, &t), 0, "with weights");
	ok(t.score == 5 && t.ppv == 0 && t.alarm_rate == 0.2, "what counts nothing sets no threshold (%g)", t.score);
	is_int(metrics_threshold(x, order, y, NULL, 6, 0.1, 1, &t), -EDOM, "no score keeps to that rate");
}

static void check_published(void)
{
	static float logit[NIH_FINDINGS][NIH_ROWS];
	static uint8_t positive[NIH_FINDINGS][NIH_ROWS];
	const char *shared = getenv("CARZEROD_SHARED");
	CLEANUP(fclose) FILE *logits = NULL, *labels = NULL, *want = NULL;
	CLEANUP(free) char *line = NULL;
	char path[4096], *rest;
	double sum = 0;
	size_t size = 0, i, k;

	if (shared == NULL)
		return;
	(void)snprintf(path, sizeof(path), "%s/model/real/logits-chestxray14.csv", shared);
	logits = fopen(path, "re");
	(void)snprintf(path, sizeof(path), "%s/model/real/labels-chestxray14.txt", shared);
	labels = fopen(path, "re");
	(void)snprintf(path, sizeof(path), "%s/model/real/platt.tsv", shared);
	want = fopen(path, "re");
	if (!ok(logits != NULL && labels != NULL && want != NULL, "the stored logits open") ||
	    getline(&line, &size, logits) < 0 || getline(&line, &size, want) < 0)
		return;
	for (i = 0; i < NIH_ROWS && getline(&line, &size, logits) > 0; i++)
		for (rest = line, k = 0; k < NIH_FINDINGS; k++, rest += *rest == ',')
			logit[k][i] = strtof(rest, &rest);
	is_int(i, NIH_ROWS, "rows of logits");
	for (i = 0; i < NIH_ROWS && getline(&line, &size, labels) > 0; i++)
		for (rest = strchr(line, ' '), k = 0; rest != NULL && k < NIH_FINDINGS; k++)
			positive[k][i] = (uint8_t)strtoul(rest, &rest, 10);
	is_int(i, NIH_ROWS, "rows of labels");
	for (k = 0; k < NIH_FINDINGS; k++) {
		double auc = 0, auc_was = 0, a = 0, b = 0;
		struct platt p = { 0, 0 };
		int r;

		if (getline(&line, &size, want) < 0 || sscanf(line, "%*[^\t]\t%*[^\t]\t%*u\t%*u\t%lf\t%lf\t%lf", &auc_was, &a, &b) != 3)
			break;
		r = metrics_auc(logit[k], positive[k], NIH_ROWS, &auc);
		ok(r == 0 && fabs(auc - auc_was) < 6e-5, "finding %zu: AUC %.4f", k, auc);
		r = calibrate_platt(logit[k], positive[k], NIH_ROWS, 0, &p);
		ok(r == 0 && fabs(p.a - a) < 5e-4 && fabs(p.b - b) < 5e-4, "finding %zu: a %.4f b %.4f", k, p.a, p.b);
		sum += auc;
	}
	ok(fabs(sum / NIH_FINDINGS - 0.8113) < 1e-4, "ChestXray14: macro AUC %.4f", sum / NIH_FINDINGS);
}

int main(void)
{
	check_auc();
	check_measures();
	check_platt();
	check_threshold();
	check_published();
	return done();
}
