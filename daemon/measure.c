/* measure.c: options and files of carzero-model eval and calibrate. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

#include "daemon/measure.h"
#include "daemon/tool.h"

#define REPLICATES 1000
#define REPLICATES_MAX 100000

int measure_load(struct measure_job *j)
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

void measure_unload(struct measure_job *j)
{
	logits_free(&j->logits);
	labels_free(&j->labels);
	findings_free(j->f);
}

size_t measure_count(const uint8_t *positive, size_t n)
{
	size_t sum = 0, i;

	for (i = 0; i < n; i++)
		sum += positive[i];
	return sum;
}

int measure_options(struct measure_job *j, int argc, char **argv, bool fit, const char *help)
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
	static const char of_eval[] = "jrmiSA", of_calibrate[] = "lntycqop";
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
		case TOOL_HELP: fputs(help, stdout); return -1;
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
	if (j->svg_path != NULL && j->table)
		return tool_usage(j->verb, "--svg draws what stands beside a calibration, not beside --table");
	if (fit && !j->table && (j->family == NULL || j->family[0] == '\0'))
		return tool_usage(j->verb, "--family NAME is missing: a calibration is of one family of weights");
	j->replicates = (unsigned)replicates;
	return optind < argc ? tool_usage(j->verb, "what is %s for?", argv[optind]) : TOOL_DONE;
}
