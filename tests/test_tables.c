/* test_tables.c: logits and labels in the forms in which test sets are published.
 *
 * With CARZEROD_SHARED set: Open-I's labels by its rule, down to the macro AUC of the stored logits.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fdio.h"
#include "base/mem.h"

#include "model/metrics.h"

#include "daemon/tables.h"
#include "tests/tap.h"

static const char list_text[] =
	"name: test\n"
	"findings:\n"
	"- {id: edema, name: Edema, prompt: There is Pulmonary Edema}\n"
	"- {id: mass, name: Mass, prompt: There is Pulmonary Mass}\n"
	"- {id: other, name: Other, prompt: There is something else}\n";

static struct findings *parse(const char *text)
{
	struct findings *f = NULL;
	struct err e;

	if (findings_parse("list", text, strlen(text), &f, &e) < 0) {
		printf("Bail out! %s\n", e.text);
		exit(1);
	}
	return f;
}

/* A file of this text; `path` names it while the descriptor is open. */
static int text_file(const char *text, char path[64])
{
	int fd = fd_memory("table");

	(void)write_full(fd, text, strlen(text));
	(void)snprintf(path, 64, "/proc/self/fd/%d", fd);
	return fd;
}

static void check_logits(const struct findings *f)
{
	static const struct { const char *what, *text, *says; size_t rows; float first[3]; } cases[] = {
		{ "numbers as header", "0,1,2\n-1.5,2,3e-1\n\n4,5,6\n", NULL, 2, { -1.5f, 2, 0.3f } },
		{ "ids in another order, and more", "image,other,mass,edema\nx,3,2,1\r\n", NULL, 1, { 1, 2, 3 } },
		{ "a quoted header", "\"other\",\"mass\",\"edema\"\n3,2,1", NULL, 1, { 1, 2, 3 } },
		{ "no rows", "0,1,2\n", NULL, 0, { 0 } },
		{ "a finding without a column", "edema,mass\n1,2\n", ":1: no column other", 0, { 0 } },
		{ "too few numbers", "0,1\n1,2\n", ":1: no column edema", 0, { 0 } },
		{ "a short row", "0,1,2\n1,2,3\n1,2\n", ":3: another number of columns", 0, { 0 } },
		{ "not a number", "0,1,2\n1,nan,3\n", ":2: column 2 is 'nan'", 0, { 0 } },
		{ "a number and more", "0,1,2\n1,2,3x\n", ":2: column 3 is '3x'", 0, { 0 } },
		{ "an open quote", "0,1,2\n\"1,2,3\n", ":2: a quote is not closed", 0, { 0 } },
		{ "nothing", "", "an empty file", 0, { 0 } },
	};
	size_t i, k;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct logit_table t = { .rows = 0 };
		struct err e = { "" };
		char path[64];
		CLEANUP(close) int fd = text_file(cases[i].text, path);
		int r = logits_load(path, f, &t, &e);

		(void)fd; /* closed at the end of the turn */
		if (cases[i].says != NULL) {
			ok(r < 0 && strstr(e.text, cases[i].says) != NULL, "logits: %s: %s", cases[i].what, e.text);
			continue;
		}
		ok(r == 0 && t.rows == cases[i].rows, "logits: %s %s", cases[i].what, e.text);
		for (k = 0; r == 0 && t.rows > 0 && k < 3; k++)
			ok(t.column[k][0] == cases[i].first[k], "  column %zu", k);
		logits_free(&t);
	}
}

static void check_labels(const struct findings *f)
{
	static const struct { const char *what, *text, *says, *kind; size_t rows; uint8_t last[3]; bool known[3], same; } cases[] = {
		{ "NIH", "a/7_000.png 0 1 0\na/7_001.png 1 0 1\n", NULL, "NIH", 2, { 1, 0, 1 }, { true, true, true }, true },
		{ "NIH, two patients", "a/7_000.png 0 1 0\n8_000.png 1 0 1\n", NULL, "NIH", 2, { 1, 0, 1 }, { true, true, true }, false },
		{ "Open-I", ",uid,file_name,labels_automatic\n0,CXR1,a.png,normal\n0,CXR1,b.png,\"Pulmonary Edema|aorta, thoracic\"\n", NULL,
		  "Open-I", 2, { 1, 0, 0 }, { true, true, false }, true },
		{ "plain", "image,mass,edema\nx,0,1\ny,1.0,0\n", NULL, "CSV", 2, { 0, 1, 0 }, { true, true, false }, false },
		{ "plain with patients", "image,mass,patient\nx,0,p1\ny,1,p1\n", NULL, "CSV", 2, { 0, 1, 0 }, { false, true, false }, true },
		{ "NIH with too few", "a.png 0 1\n", ":1: 2 labels, but the findings list has 3", NULL, 0, { 0 }, { 0 }, false },
		{ "NIH with a word", "a.png 0 1 yes\n", ":1: column 4 is 'yes'", NULL, 0, { 0 }, { 0 }, false },
		{ "Open-I without patients", "file_name,labels_automatic\na,b\n", "no column uid", NULL, 0, { 0 }, { 0 }, false },
		{ "plain without findings", "image,x,y\na,0,1\n", "id of a finding", NULL, 0, { 0 }, { 0 }, false },
		{ "plain with -1", "image,mass\na,-1\n", ":2: column 2 is '-1', expected 0 or 1", NULL, 0, { 0 }, { 0 }, false },
	};
	size_t i, k;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct label_table t = { .rows = 0 };
		struct err e = { "" };
		char path[64];
		CLEANUP(close) int fd = text_file(cases[i].text, path);
		int r = labels_load(path, f, &t, &e);

		(void)fd; /* closed at the end of the turn */
		if (cases[i].says != NULL) {
			ok(r < 0 && strstr(e.text, cases[i].says) != NULL, "labels: %s: %s", cases[i].what, e.text);
			continue;
		}
		if (!ok(r == 0 && t.rows == cases[i].rows, "labels: %s %s", cases[i].what, e.text))
			continue;
		is_str(t.kind, cases[i].kind, "  told apart");
		for (k = 0; k < 3; k++)
			ok(t.known[k] == cases[i].known[k] && t.column[k][t.rows - 1] == cases[i].last[k], "  column %zu", k);
		is_int(t.patient[0] == t.patient[1], cases[i].same, "  patients");
		labels_free(&t);
	}
}

static const char openi_text[] =
	"name: Open-I\n"
	"findings:\n"
	"- {id: a, name: A, prompt: There is Atelectasis}\n"
	"- {id: b, name: B, prompt: There is Cardiomegaly}\n"
	"- {id: c, name: C, prompt: There is Pleural Effusion}\n"
	"- {id: d, name: D, prompt: There is Lung Infiltration}\n"
	"- {id: e, name: E, prompt: There is Pulmonary Mass}\n"
	"- {id: f, name: F, prompt: There is Lung Nodule}\n"
	"- {id: g, name: G, prompt: There is Pneumonia}\n"
	"- {id: h, name: H, prompt: There is Pneumothorax}\n"
	"- {id: i, name: I, prompt: There is Pulmonary Edema}\n"
	"- {id: j, name: J, prompt: There is Pulmonary Emphysema}\n"
	"- {id: k, name: K, prompt: There is Pulmonary Fibrosis}\n"
	"- {id: l, name: L, prompt: There is Pleural Thickening}\n"
	"- {id: m, name: M, prompt: There is Hernia}\n"
	"- {id: n, name: N, prompt: There is Bone Fracture}\n"
	"- {id: o, name: O, prompt: There is Lung Opacity}\n"
	"- {id: p, name: P, prompt: There is Abnormal Lesion}\n"
	"- {id: q, name: Q, prompt: There is Calcified Granuloma}\n"
	"- {id: r, name: R, prompt: There is Lung Granuloma}\n";

static void check_openi(void)
{
	static const size_t positives[] = { 711, 493, 346, 174, 13, 157, 158, 44, 144, 193, 39, 68, 97, 189, 819, 7, 416, 781 };
	const char *shared = getenv("CARZEROD_SHARED");
	struct logit_table logits = { .rows = 0 };
	struct label_table labels = { .rows = 0 };
	struct err e = { "" };
	struct findings *f;
	char path[4096];
	double sum = 0;
	size_t i, k;

	if (shared == NULL)
		return;
	f = parse(openi_text);
	(void)snprintf(path, sizeof(path), "%s/model/real/logits-openi.csv", shared);
	ok(logits_load(path, f, &logits, &e) == 0, "Open-I: logits %s", e.text);
	(void)snprintf(path, sizeof(path), "%s/model/real/labels-openi.csv", shared);
	ok(labels_load(path, f, &labels, &e) == 0, "Open-I: labels %s", e.text);
	is_int(logits.rows, 7470, "Open-I: 7470 images");
	is_int(labels.rows, 7470, "Open-I: 7470 labels");
	for (i = 0; i < f->n && labels.rows == logits.rows && labels.rows > 0; i++) {
		size_t n = 0;
		double auc = 0;

		for (k = 0; k < labels.rows; k++)
			n += labels.column[i][k];
		is_int(n, positives[i], "Open-I: positives of '%s'", f->finding[i].prompt);
		is_int(metrics_auc(logits.column[i], labels.column[i], labels.rows, &auc), 0, "  its AUC");
		sum += auc;
	}
	ok(fabs(sum / 18 - 0.8376) < 1e-4, "Open-I: macro AUC %.4f", sum / 18);
	logits_free(&logits);
	labels_free(&labels);
	findings_free(f);
}

int main(void)
{
	struct findings *f = parse(list_text);

	check_logits(f);
	check_labels(f);
	check_openi();
	findings_free(f);
	return done();
}
