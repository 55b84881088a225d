/* tool_score.c: carzero-model score: image files in, one line a finding out.
 *
 * One picture at a time; a file that cannot be scored is named on stderr, the others go on, and the
 * exit code is 1 at the end.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"

#include "model/kernels.h"
#include "model/model.h"
#include "model/preprocess.h"

#include "daemon/findings.h"
#include "daemon/overlay.h"
#include "daemon/research_image.h"
#include "daemon/tool.h"

static const char score_help[] =
	"Usage: carzero-model score --model DIR (--findings FILE | --prompt TEXT ...) [OPTIONS]\n"
	"                           IMAGE ...\n"
	"\n"
	"Scores image files (DICOM, PNG, JPEG) and prints one line a finding, separated by tabs:\n"
	"image, finding, logit, probability. A probability is printed only where the findings list\n"
	"has a calibration for this family of weights and this way of preparing pixels; otherwise\n"
	"'-'. The logit alone is no probability, and its zero means nothing.\n"
	"\n"
	"  --model DIR       the bundle\n"
	"  --findings FILE   a findings list (findings.yaml)\n"
	"  --prompt TEXT     instead: a prompt, like 'There is pneumothorax'; may be repeated\n"
	"  --recipe NAME     pixels of DICOM files: 'window' (default) or 'mimic'\n"
	"  --precision NAME  the arithmetic: 'f32' (default), 'bf16' or 'int8', faster where the CPU\n"
	"                    has it; their logits differ in the third digit\n"
	"  --threads N       threads of BLAS (default: all processors); the same number gives the\n"
	"                    same digits\n"
	"  --map DIR         also writes where the model's attention went: for each image and finding\n"
	"                    DIR/IMAGE.FINDING.png, the picture with the map over it in orange (what\n"
	"                    the model does not see is darker), and .tsv, its numbers. It is not the\n"
	"                    outline of a lesion. Nothing is overwritten\n"
	"  --json            one JSON object instead of lines\n"
	"\n"
	"Example:\n"
	"  carzero-model score --model carzero --findings findings.yaml *.dcm\n";

struct score_job {
	const char *verb;
	const char *dir, *list, *map_dir; /* map_dir: NULL without --map */
	const char **prompts; /* [n] */
	size_t n;
	struct findings *findings; /* NULL with --prompt */
	enum recipe recipe;
	enum precision precision;
	unsigned threads;
	bool json;
	json_t *scores;
	struct logit_table *table; /* instead of printing, a row more; NULL for score */
	struct model *model;
	struct model_run *run;
	uint8_t *square;
	float *logits; /* [n] */
	float *maps;   /* [n][map_side][map_side]; NULL without --map */
};

static const char *recipe_text(enum recipe recipe)
{
	return recipe == RECIPE_MIMIC ? "mimic" : "window";
}

static double probability(const struct score_job *j, size_t i, enum recipe recipe)
{
	if (j->findings == NULL)
		return NAN;
	return finding_probability(&j->findings->finding[i], j->logits[i], model_info(j->model)->family,
				   recipe_text(recipe), precision_name(j->precision));
}

/* A prompt as part of a file's name. */
static void file_word(const char *text, char *ret, size_t size)
{
	size_t n = 0;

	for (; *text != '\0' && n + 1 < size; text++)
		if ((*text >= 'a' && *text <= 'z') || (*text >= '0' && *text <= '9') ||
		    *text == '-')
			ret[n++] = *text;
		else if (*text >= 'A' && *text <= 'Z')
			ret[n++] = (char)(*text - 'A' + 'a');
		else if (n > 0 && ret[n - 1] != '_')
			ret[n++] = '_';
	ret[n] = '\0';
}

static int write_maps(const struct score_job *j, const char *path, const struct research_image *image,
		      const struct letterbox *box, struct err *e)
{
	const struct model_info *info = model_info(j->model);
	const char *slash = strrchr(path, '/'), *name = slash != NULL ? slash + 1 : path;
	size_t fields = info->map_side * info->map_side, i;

	for (i = 0; i < j->n; i++) {
		const char *id = j->findings != NULL ? j->findings->finding[i].id : j->prompts[i];
		char word[FINDING_ID_MAX], title[FINDING_TEXT_MAX + 32], file[PATH_MAX];
		struct overlay o = { image->gray, image->width, image->height, *box, info->crop,
				     j->maps + i * fields, info->map_side, title };
		int r;

		file_word(id, word, sizeof(word));
		(void)snprintf(title, sizeof(title), "%s: attention", j->prompts[i]);
		if (snprintf(file, sizeof(file), "%s/%s.%s.png", j->map_dir, name, word) >= (int)sizeof(file))
			return err_set(e, -ENAMETOOLONG, "%s: path too long", j->map_dir);
		r = overlay_write_png(&o, file, e);
		if (r < 0)
			return r;
		(void)snprintf(file, sizeof(file), "%s/%s.%s.tsv", j->map_dir, name, word); /* as long */
		r = overlay_write_tsv(&o, file, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static json_t *path_json(const char *path)
{
	json_t *s = json_string(path);
	char quoted[4096];

	return s != NULL ? s
			 : json_string(str_quote(quoted, sizeof(quoted),
						 path)); /* a name that is not UTF-8 */
}

static void keep_scores(struct score_job *j, const char *path, enum recipe recipe)
{
	size_t i;

	for (i = 0; j->table != NULL && i < j->n; i++)
		j->table->column[i][j->table->rows] = j->logits[i];
	if (j->table != NULL) {
		j->table->rows++;
		return;
	}
	for (i = 0; i < j->n; i++) {
		const char *id = j->findings != NULL ? j->findings->finding[i].id : j->prompts[i];
		double p = probability(j, i, recipe);

		if (!j->json) {
			printf("%s\t%s\t%.6f\t", path, id, (double)j->logits[i]);
			printf(isnan(p) ? "-\n" : "%.6f\n", p);
			continue;
		}
		json_array_append_new(j->scores, json_pack("{s:o, s:s, s:s, s:f, s:o}", "image",
							   path_json(path), "finding", id, "prompt",
							   j->prompts[i], "logit",
							   (double)j->logits[i], "probability",
							   isnan(p) ? json_null() : json_real(p)));
	}
}

static int score_file(struct score_job *j, const char *path)
{
	struct research_image image;
	struct letterbox box;
	struct err e;
	size_t i;
	int r;

	if (research_image_load(path, j->recipe, &image, &e) < 0)
		return tool_failed(j->verb, "%s", e.text);
	if (image.note[0] != '\0')
		fprintf(stderr, "carzero-model: %s: note: %s: %s\n", j->verb, path, image.note);
	r = preprocess_letterbox(image.gray, image.width, image.height,
				 model_info(j->model)->image_size, j->square, &box);
	if (r == 0)
		r = model_score(j->run, j->square, j->logits, j->maps);
	for (i = 0; r == 0 && i < j->n; i++)
		if (!isfinite(j->logits[i]))
			r = -ERANGE;
	if (r == 0) {
		keep_scores(j, path, image.recipe);
		if (j->maps != NULL && write_maps(j, path, &image, &box, &e) < 0)
			r = tool_failed(j->verb, "%s", e.text);
	} else {
		(void)tool_failed(j->verb, "%s: %zu x %zu pixels: %s", path, image.width, image.height,
				  r == -EBADMSG ? "too narrow to be scored" : strerror(-r));
	}
	research_image_free(&image);
	return r != 0 ? TOOL_FAILED : TOOL_DONE;
}

static int open_model(struct score_job *j)
{
	const struct model_use use = { .precision = j->precision == PRECISION_F32    ? MODEL_F32
						     : j->precision == PRECISION_BF16 ? MODEL_BF16
										      : MODEL_INT8 };
	const struct model_info *info;
	struct err e;
	size_t i;

	if (j->list != NULL) {
		if (findings_load(j->list, &j->findings, NULL, NULL, &e) < 0)
			return tool_failed(j->verb, "%s", e.text);
		j->n = j->findings->n;
		j->prompts = xreallocarray(j->prompts, j->n, sizeof(*j->prompts));
		for (i = 0; i < j->n; i++)
			j->prompts[i] = j->findings->finding[i].prompt;
	}
	kernels_set_threads(j->threads);
	if (model_open(j->dir, &use, &j->model, &e) < 0)
		return tool_failed(j->verb, "%s", e.text);
	info = model_info(j->model);
	if (info->domain != MODEL_CLINICAL)
		fprintf(stderr,
			"carzero-model: %s: note: %s is %s: its numbers say nothing about a "
			"patient\n",
			j->verb, j->dir,
			info->domain == MODEL_PHANTOM ? "a demonstration model for drawn phantoms"
						      : "not known to be the trained model");
	if (model_set_prompts(j->model, j->prompts, j->n, &e) < 0)
		return tool_failed(j->verb, "%s", e.text);
	if (model_run_new(j->model, &j->run, &e) < 0)
		return tool_failed(j->verb, "%s", e.text);
	j->square = xcalloc(info->image_size, info->image_size);
	j->logits = xcalloc(j->n, sizeof(*j->logits));
	if (j->map_dir == NULL)
		return TOOL_DONE;
	if (mkdir(j->map_dir, 0755) < 0 && errno != EEXIST)
		return tool_failed(j->verb, "%s: %s", j->map_dir, strerror(errno));
	j->maps = xcalloc(j->n, info->map_side * info->map_side * sizeof(*j->maps));
	return TOOL_DONE;
}

static void print_json(struct score_job *j)
{
	const struct model_info *info = model_info(j->model);
	char hex[DIGEST_HEX_MAX];
	json_t *root;

	str_hex(hex, info->digest, DIGEST_SIZE);
	root = json_pack("{s:{s:s, s:s, s:s, s:s}, s:O}", "model", "name", info->name, "family",
			 info->family, "sha256", hex, "precision", precision_name(j->precision), "scores", j->scores);
	(void)json_dumpf(root, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
	putchar('\n');
	json_decref(root);
}

static int score_all(struct score_job *j, char **files, int n)
{
	int code = open_model(j), i;

	if (code != TOOL_DONE)
		return code;
	for (i = 0; i < n; i++)
		if (score_file(j, files[i]) != TOOL_DONE)
			code = TOOL_FAILED;
	if (j->json)
		print_json(j);
	return code;
}

static int read_options(struct score_job *j, int argc, char **argv)
{
	static const struct option options[] = {
		{ "model", required_argument, NULL, 'm' },     { "findings", required_argument, NULL, 'f' },
		{ "prompt", required_argument, NULL, 'p' },    { "recipe", required_argument, NULL, 'r' },
		{ "precision", required_argument, NULL, 'q' }, { "threads", required_argument, NULL, 't' },
		{ "map", required_argument, NULL, 'M' },       { "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, TOOL_HELP },      { NULL, 0, NULL, 0 },
	};
	uint64_t threads = (uint64_t)sysconf(_SC_NPROCESSORS_ONLN);
	int c;

	while ((c = tool_option(j->verb, argc, argv, options)) != -1)
		switch (c) {
		case 'm': j->dir = optarg; break;
		case 'f': j->list = optarg; break;
		case 'p': j->prompts[j->n++] = optarg; break;
		case 'M': j->map_dir = optarg; break;
		case 'j': j->json = true; break;
		case 'r':
			if (strcmp(optarg, "window") != 0 && strcmp(optarg, "mimic") != 0)
				return tool_usage(j->verb, "--recipe %s: expected window or mimic",
						  optarg);
			j->recipe = strcmp(optarg, "mimic") == 0 ? RECIPE_MIMIC : RECIPE_WINDOW;
			break;
		case 'q':
			for (j->precision = PRECISION_F32; j->precision <= PRECISION_INT8; j->precision++)
				if (strcmp(optarg, precision_name(j->precision)) == 0)
					break;
			if (j->precision > PRECISION_INT8)
				return tool_usage(j->verb, "--precision %s: expected f32, bf16 or int8", optarg);
			break;
		case 't':
			if (!str_to_u64(optarg, 1, TOOL_THREADS_MAX, &threads))
				return tool_usage(j->verb,
						  "--threads %s: expected a number from 1 to %d",
						  optarg, TOOL_THREADS_MAX);
			break;
		case TOOL_HELP: fputs(score_help, stdout); return -1;
		default: return TOOL_USAGE;
		}
	j->threads = (unsigned)threads;
	if (j->dir == NULL)
		return tool_usage(j->verb, "--model DIR is missing");
	if ((j->n == 0) == (j->list == NULL))
		return tool_usage(j->verb, "give either --findings FILE or --prompt TEXT");
	if (optind == argc)
		return tool_usage(j->verb, "no image given");
	return TOOL_DONE;
}

static void close_job(struct score_job *j)
{
	model_run_free(j->run);
	model_close(j->model);
	findings_free(j->findings);
	json_decref(j->scores);
	free(j->prompts);
	free(j->square);
	free(j->logits);
	free(j->maps);
}

/* ---- image lists ---- */

struct image_list {
	size_t n;
	char **path; /* [n] */
};

static void image_list_free(struct image_list *l)
{
	size_t i;

	for (i = 0; i < l->n; i++)
		free(l->path[i]);
	free(l->path);
}

/* Empty lines are skipped, as the readers of tables do. */
static int image_list_load(const char *verb, const char *path, struct image_list *ret)
{
	CLEANUP(fclose) FILE *f = fopen(path, "re");
	CLEANUP(free) char *line = NULL;
	const char *slash = strrchr(path, '/');
	size_t folder = slash != NULL ? (size_t)(slash - path) + 1 : 0, size = 0;
	ssize_t n;

	if (f == NULL)
		return tool_failed(verb, "%s: %s", path, strerror(errno));
	while ((n = getline(&line, &size, f)) > 0) {
		char full[PATH_MAX];

		line[strcspn(line, "\r\n")] = '\0';
		if (line[0] == '\0')
			continue;
		if (ret->n == TABLE_ROWS_MAX)
			return tool_failed(verb, "%s: more than %d images", path, TABLE_ROWS_MAX);
		if (snprintf(full, sizeof(full), "%.*s%s", line[0] == '/' ? 0 : (int)folder, path, line) >=
		    (int)sizeof(full))
			return tool_failed(verb, "%s: image %zu: path too long", path, ret->n + 1);
		ret->path = xreallocarray(ret->path, ret->n + 1, sizeof(*ret->path));
		ret->path[ret->n++] = xstrdup(full);
	}
	return ferror(f) ? tool_failed(verb, "%s: cannot be read", path) : TOOL_DONE;
}

int tool_score_list(const char *verb, const char *dir, const char *findings, const char *images, size_t rows,
		    struct logit_table *ret)
{
	struct logit_table table = { 0 };
	struct score_job j = { .verb = verb, .dir = dir, .list = findings, .table = &table,
			       .threads = (unsigned)sysconf(_SC_NPROCESSORS_ONLN) };
	struct image_list l = { 0 };
	int code = image_list_load(verb, images, &l);
	size_t i;

	if (code == TOOL_DONE && l.n != rows)
		code = tool_failed(verb,
				   "%s names %zu images and the labels have %zu rows; they must be of the "
				   "same images in the same order",
				   images, l.n, rows);
	if (code == TOOL_DONE)
		code = open_model(&j);
	table.n = j.n;
	for (i = 0; code == TOOL_DONE && i < j.n; i++)
		table.column[i] = xcalloc(rows + 1, sizeof(**table.column));
	for (i = 0; code == TOOL_DONE && i < l.n; i++)
		code = score_file(&j, l.path[i]);
	if (code == TOOL_DONE)
		*ret = table;
	else
		logits_free(&table);
	close_job(&j);
	image_list_free(&l);
	return code;
}

int tool_score(int argc, char **argv)
{
	struct score_job j = { .verb = argv[0], .prompts = xcalloc((size_t)argc, sizeof(*j.prompts)),
			       .scores = json_array() };
	int code = read_options(&j, argc, argv);

	if (code == TOOL_DONE)
		code = score_all(&j, argv + optind, argc - optind);
	close_job(&j);
	return code < 0 ? TOOL_DONE : code; /* help is no failure */
}
