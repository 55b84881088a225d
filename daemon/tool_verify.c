/* tool_verify.c: carzero-model verify: are these the published weights?
 *
 * Weights are what they compute: the bundle scores films whose logits were recorded with the published
 * ones, and only if every logit agrees does its model.json become of the family "carzero", to which the
 * shipped calibrations refer, and of the domain "clinical".  A difference changes nothing.
 *
 * The 14 sentences are those that the recorded logits were made with; a findings list has no say here.
 */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/fdio.h"
#include "base/mem.h"
#include "base/str.h"

#include "model/kernels.h"
#include "model/manifest.h"
#include "model/model.h"
#include "model/preprocess.h"

#include "daemon/research_image.h"
#include "daemon/tool.h"

#define TOLERANCE 0.02 /* the recorded ones were made on a GPU with TF32, in batches */
#define FILE_MAX (16 * 1024 * 1024)
#define ROWS_MAX 100000
#define NAME_LENGTH_MAX 128
#define FINDINGS 14
#define IMAGES_MIN 2   /* 28 numbers that agree are no accident */
#define SHOWN_MAX 10   /* differences told before giving up */

static const char verify_help[] =
	"Usage: carzero-model verify DIR --images FOLDER [--logits FILE] [--threads N]\n"
	"\n"
	"Compares the bundle's logits with those recorded with the published weights, on films of\n"
	"NIH ChestX-ray14. If none differs by more than 0.02, DIR/model.json gets the family\n"
	"'carzero', to which calibrations refer, and the domain 'clinical'. Otherwise image, finding\n"
	"and both numbers are printed, and nothing is changed.\n"
	"\n"
	"  --images FOLDER  PNG files as NIH publishes them, by their names; those that are missing\n"
	"                   are left out, 2 must be there\n"
	"  --logits FILE    tab-separated, with a header: image, the 14 labels of ChestX-ray14, and\n"
	"                   whatever else; without it the logits of 00011997_000.png and\n"
	"                   00011997_001.png, which are built in\n"
	"  --threads N      threads of BLAS (default: all processors)\n"
	"\n"
	"Example:\n"
	"  carzero-model verify carzero --images images_006\n";

static const struct {
	const char *label, *prompt; /* of ChestX-ray14, of the recorded logits */
} asked[FINDINGS] = {
	{ "Atelectasis", "There is Atelectasis" },
	{ "Cardiomegaly", "There is Cardiomegaly" },
	{ "Effusion", "There is Pleural Effusion" },
	{ "Infiltration", "There is Pulmonary Infiltration" },
	{ "Mass", "There is Pulmonary Mass" },
	{ "Nodule", "There is Lung Nodule" },
	{ "Pneumonia", "There is Pneumonia" },
	{ "Pneumothorax", "There is Pneumothorax" },
	{ "Consolidation", "There is Pulmonary Consolidation" },
	{ "Edema", "There is Pulmonary Edema" },
	{ "Emphysema", "There is Pulmonary Emphysema" },
	{ "Fibrosis", "There is Fibrosis" },
	{ "Pleural_Thickening", "There is Pleural Thickening" },
	{ "Hernia", "There is Hernia" },
};

/* From a public rerun of the published weights (github.com/Skizdukion/reproduce_carzero, commit 2fec7ef,
 * Apache-2.0): the first two films of the test set. */
static const char built_in[] =
	"image\tAtelectasis\tCardiomegaly\tEffusion\tInfiltration\tMass\tNodule\tPneumonia\tPneumothorax\t"
	"Consolidation\tEdema\tEmphysema\tFibrosis\tPleural_Thickening\tHernia\n"
	"00011997_000.png\t-2.3877764\t-1.0212469\t-2.8647447\t-4.751343\t-3.511117\t-2.3498054\t-3.1970043\t"
	"-2.5884442\t-3.569341\t-3.6962574\t-6.497202\t-4.2092104\t-3.543287\t-4.520134\n"
	"00011997_001.png\t-3.8336902\t-5.9459863\t-3.7923832\t-6.4857006\t-3.5843685\t-2.0941224\t-2.514896\t"
	"-3.300877\t-4.690927\t-5.7702494\t-6.4542727\t-3.513962\t-3.464919\t-5.4302177\n";

struct recorded {
	char image[NAME_LENGTH_MAX];
	float logit[FINDINGS];
};

struct verify {
	const char *verb, *dir, *folder, *logits_path; /* logits_path: NULL for the built-in ones */
	unsigned threads;
	size_t n;
	struct recorded *recorded; /* [n] */
	struct model *model;
	struct model_run *run;
	uint8_t *square;
	struct manifest_proof proof;
	char worst[NAME_LENGTH_MAX + 64]; /* where the proof's difference was */
	size_t shown;
};

/* ---- the recorded logits ---- */

/* Which field holds the image's name (column[FINDINGS]) and which each label. */
static int read_header(const char *path, char *line, size_t column[FINDINGS + 1], struct err *e)
{
	const char *field;
	size_t at = 0, i;

	for (i = 0; i <= FINDINGS; i++)
		column[i] = SIZE_MAX;
	while ((field = strsep(&line, "\t")) != NULL) {
		for (i = 0; i < FINDINGS; i++)
			if (strcasecmp(field, asked[i].label) == 0)
				column[i] = at;
		if (strcmp(field, "image") == 0)
			column[FINDINGS] = at;
		at++;
	}
	for (i = 0; i <= FINDINGS; i++)
		if (column[i] == SIZE_MAX)
			return err_set(e, -EBADMSG,
				       "%s:1: no column %s; the header needs image and the 14 labels of "
				       "ChestX-ray14, separated by tabs",
				       path, i == FINDINGS ? "image" : asked[i].label);
	return 0;
}

static int read_row(const char *path, size_t number, char *line, const size_t column[FINDINGS + 1],
		    struct recorded *ret, struct err *e)
{
	char shown[64], *field, *end;
	size_t at = 0, found = 0, i;

	for (; (field = strsep(&line, "\t")) != NULL; at++) {
		if (at == column[FINDINGS]) {
			if (field[0] == '\0' || field[0] == '.' || strchr(field, '/') != NULL ||
			    !str_copy(ret->image, sizeof(ret->image), field))
				return err_set(e, -EBADMSG, "%s:%zu: '%s' is not the name of an image file",
					       path, number, str_quote(shown, sizeof(shown), field));
			found++;
		}
		for (i = 0; i < FINDINGS; i++) {
			if (at != column[i])
				continue;
			ret->logit[i] = strtof(field, &end);
			if (end == field || *end != '\0' || !isfinite(ret->logit[i]))
				return err_set(e, -EBADMSG, "%s:%zu: %s is '%s', not a finite number", path,
					       number, asked[i].label, str_quote(shown, sizeof(shown), field));
			found++;
		}
	}
	return found == FINDINGS + 1 ? 0 : err_set(e, -EBADMSG, "%s:%zu: fewer fields than the header", path,
						   number);
}

static int read_recorded(struct verify *v, struct err *e)
{
	const char *path = v->logits_path != NULL ? v->logits_path : "built-in logits";
	size_t column[FINDINGS + 1], n = strlen(built_in), number = 1;
	CLEANUP(free) void *text = NULL;
	char *rest, *line;
	int r;

	if (v->logits_path == NULL)
		text = xstrdup(built_in);
	else if ((r = read_path(path, FILE_MAX, &text, &n, e)) < 0)
		return r;
	digest_of(text, n, v->proof.logits);
	rest = text; /* a NUL follows the bytes */
	line = strsep(&rest, "\n");
	line[strcspn(line, "\r")] = '\0';
	r = read_header(path, line, column, e);
	if (r < 0)
		return r;
	while ((line = strsep(&rest, "\n")) != NULL) {
		number++;
		line[strcspn(line, "\r")] = '\0';
		if (line[0] == '\0')
			continue;
		if (v->n == ROWS_MAX)
			return err_set(e, -E2BIG, "%s: more than %d rows", path, ROWS_MAX);
		v->recorded = xreallocarray(v->recorded, v->n + 1, sizeof(*v->recorded));
		r = read_row(path, number, line, column, &v->recorded[v->n], e);
		if (r < 0)
			return r;
		v->n++;
	}
	return v->n > 0 ? 0 : err_set(e, -EBADMSG, "%s: no rows", path);
}

/* ---- the comparison ---- */

static void compare(struct verify *v, const struct recorded *want, const float *got)
{
	size_t i;

	for (i = 0; i < FINDINGS; i++) {
		double difference = fabs((double)got[i] - (double)want->logit[i]);

		if (difference > v->proof.difference) {
			v->proof.difference = difference;
			(void)snprintf(v->worst, sizeof(v->worst), "%s, %s", want->image, asked[i].label);
		}
		if (difference <= TOLERANCE)
			continue;
		(void)tool_failed(v->verb,
				  "%s: %s: recorded %.6f, computed %.6f; they may differ by %g, and do by %.4f",
				  want->image, asked[i].label, (double)want->logit[i], (double)got[i],
				  TOLERANCE, difference);
		v->shown++;
	}
}

/* 1 compared, 0 no such file. */
static int score(struct verify *v, const struct recorded *want, struct err *e)
{
	struct research_image image;
	struct letterbox box;
	char path[PATH_MAX];
	float got[FINDINGS];
	int r;

	if (snprintf(path, sizeof(path), "%s/%s", v->folder, want->image) >= (int)sizeof(path))
		return err_set(e, -ENAMETOOLONG, "%s: path too long", v->folder);
	if (access(path, F_OK) < 0 && errno == ENOENT)
		return 0;
	r = research_image_load(path, RECIPE_WINDOW, &image, e);
	if (r < 0)
		return r;
	r = preprocess_letterbox(image.gray, image.width, image.height, model_info(v->model)->image_size,
				 v->square, &box);
	research_image_free(&image);
	if (r == 0)
		r = model_score(v->run, v->square, got, NULL);
	if (r < 0)
		return err_set(e, r, "%s: cannot be scored: %s", path, strerror(-r));
	compare(v, want, got);
	v->proof.images++;
	return 1;
}

static int open_model(struct verify *v, struct err *e)
{
	static const struct model_use use = { .precision = MODEL_F32 };
	const struct model_info *info;
	const char *prompts[FINDINGS];
	size_t i;
	int r;

	kernels_set_threads(v->threads);
	r = model_open(v->dir, &use, &v->model, e);
	if (r < 0)
		return r;
	info = model_info(v->model);
	if (strcmp(info->family, FAMILY_UNVERIFIED) != 0 && strcmp(info->family, FAMILY_VERIFIED) != 0)
		return err_set(e, -EPERM,
			       "%s: its family is %s, not " FAMILY_UNVERIFIED
			       ": only an import of the published size can be the published model",
			       v->dir, info->family);
	for (i = 0; i < FINDINGS; i++)
		prompts[i] = asked[i].prompt;
	r = model_set_prompts(v->model, prompts, FINDINGS, e);
	if (r < 0)
		return r;
	v->square = xcalloc(info->image_size, info->image_size);
	return model_run_new(v->model, &v->run, e);
}

static int verify(struct verify *v)
{
	struct err e;
	size_t i;

	if (read_recorded(v, &e) < 0 || open_model(v, &e) < 0)
		return tool_failed(v->verb, "%s", e.text);
	for (i = 0; i < v->n && v->shown < SHOWN_MAX; i++)
		if (score(v, &v->recorded[i], &e) < 0)
			return tool_failed(v->verb, "%s", e.text);
	if (v->shown > 0)
		return tool_failed(v->verb,
				   "%s: these are not the published weights (or not NIH's PNG files); "
				   "nothing was changed",
				   v->dir);
	if (v->proof.images < IMAGES_MIN)
		return tool_failed(v->verb,
				   "%s holds %zu of the %zu images with recorded logits (the first is %s); at "
				   "least %d are needed. Nothing was changed",
				   v->folder, v->proof.images, v->n, v->recorded[0].image, IMAGES_MIN);
	v->proof.findings = FINDINGS;
	printf("compared  %zu images, %d findings each; the largest difference is %.6f (%s)\n",
	       v->proof.images, FINDINGS, v->proof.difference, v->worst);
	if (manifest_verified(v->dir, &v->proof, &e) < 0)
		return tool_failed(v->verb, "%s", e.text);
	printf("wrote     %s/model.json: family %s, domain clinical\n", v->dir, FAMILY_VERIFIED);
	return TOOL_DONE;
}

int tool_verify(int argc, char **argv)
{
	static const struct option options[] = {
		{ "images", required_argument, NULL, 'i' },  { "logits", required_argument, NULL, 'l' },
		{ "threads", required_argument, NULL, 't' }, { "help", no_argument, NULL, TOOL_HELP },
		{ NULL, 0, NULL, 0 },
	};
	struct verify v = { .verb = argv[0] };
	uint64_t threads = (uint64_t)sysconf(_SC_NPROCESSORS_ONLN);
	int c, code;

	while ((c = tool_option(argv[0], argc, argv, options)) != -1)
		switch (c) {
		case 'i': v.folder = optarg; break;
		case 'l': v.logits_path = optarg; break;
		case 't':
			if (!str_to_u64(optarg, 1, TOOL_THREADS_MAX, &threads))
				return tool_usage(argv[0], "--threads %s: expected a number from 1 to %d",
						  optarg, TOOL_THREADS_MAX);
			break;
		case TOOL_HELP: fputs(verify_help, stdout); return TOOL_DONE;
		default: return TOOL_USAGE;
		}
	if (argc - optind != 1 || v.folder == NULL)
		return tool_usage(argv[0], "%s", argc - optind != 1 ? "give one bundle directory"
								     : "--images FOLDER is missing");
	v.dir = argv[optind];
	v.threads = (unsigned)threads;
	code = verify(&v);
	model_run_free(v.run);
	model_close(v.model);
	free(v.recorded);
	free(v.square);
	return code;
}
