/* tool_bundle.c: carzero-model import, info, prompts. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

#include "model/import.h"
#include "model/manifest.h"
#include "model/model.h"
#include "model/tokenizer.h"

#include "daemon/synonyms.h"
#include "daemon/tool.h"

static const char *domain_name(enum model_domain domain)
{
	switch (domain) {
	case MODEL_PHANTOM: return "phantom";
	case MODEL_CLINICAL: return "clinical";
	default: return "untrained";
	}
}

/* ---- import ---- */

static const char import_help[] =
	"Usage: carzero-model import CKPT --vocab FILE --out DIR [--model-json FILE]\n"
	"\n"
	"Makes a bundle from the published checkpoint CARZero_best_model.ckpt (or a .safetensors file\n"
	"with the same keys). Reads PyTorch's zip and legacy formats, float32, float16 and bfloat16;\n"
	"nothing in the file is executed. Prints what was read, kept and ignored.\n"
	"\n"
	"  --vocab FILE       vocab.txt of the text encoder (Laihaoran/BioClinicalMPBERT)\n"
	"  --out DIR          the bundle; must not exist yet; appears whole or not at all\n"
	"  --model-json FILE  for a model of another size: JSON with vit_heads, bert_heads and\n"
	"                     fus_heads (shapes do not tell), optionally name, family, domain,\n"
	"                     word_num, last_n_layers, imsize, mean, std, eps\n"
	"\n"
	"A new bundle has the domain 'untrained', one of the published size the family\n"
	"'carzero-unverified': no calibration applies to it, and the node sends nothing for patients,\n"
	"until 'carzero-model verify' has compared its logits with recorded ones.\n";

static void print_import(const struct import_report *r, const char *out)
{
	const struct manifest *m = &r->manifest;
	char hex[DIGEST_HEX_MAX];
	size_t i;

	str_hex(hex, r->source, DIGEST_SIZE);
	printf("read     %zu tensors from a %s, sha256 %s\n", r->read, r->format, hex);
	printf("kept     %zu tensors, %" PRIu64 " parameters as float32", r->kept, r->parameters);
	printf(r->widened > 0 ? " (%zu widened)\n" : "\n", r->widened);
	for (i = 0; i < IGNORED_KINDS; i++)
		if (r->ignored[i] > 0)
			printf("ignored  %zu: %s\n", r->ignored[i],
			       import_ignored_name((enum import_ignored)i));
	for (i = 0; i < IMPORT_UNKNOWN_SHOWN && i < r->ignored[IGNORED_UNKNOWN]; i++)
		printf("           %s\n", r->unknown[i]);
	if (r->ignored[IGNORED_UNKNOWN] > IMPORT_UNKNOWN_SHOWN)
		printf("           and %zu more\n", r->ignored[IGNORED_UNKNOWN] - IMPORT_UNKNOWN_SHOWN);
	printf("checked  %zu hyper-parameters of the training run, %zu differ\n", r->hyper_checked,
	       r->n_warnings);
	str_hex(hex, m->digest, DIGEST_SIZE);
	printf("wrote    %s: name %s, family %s, domain %s\n", out, m->name, m->family,
	       domain_name(m->domain));
	printf("         weights.safetensors sha256 %s\n", hex);
}

int tool_import(int argc, char **argv)
{
	static const struct option options[] = {
		{ "vocab", required_argument, NULL, 'v' },	{ "out", required_argument, NULL, 'o' },
		{ "model-json", required_argument, NULL, 'j' }, { "help", no_argument, NULL, TOOL_HELP },
		{ NULL, 0, NULL, 0 },
	};
	CLEANUP(free) struct import_report *report = xcalloc(1, sizeof(*report));
	struct import_request q = { .tool = "carzero-model " PACKAGE_VERSION };
	struct err e;
	size_t i;
	int c;

	while ((c = tool_option(argv[0], argc, argv, options)) != -1)
		switch (c) {
		case 'v': q.vocab = optarg; break;
		case 'o': q.out = optarg; break;
		case 'j': q.model_json = optarg; break;
		case TOOL_HELP: fputs(import_help, stdout); return TOOL_DONE;
		default: return TOOL_USAGE;
		}
	if (argc - optind != 1)
		return tool_usage(argv[0], "%s",
				  optind == argc ? "no checkpoint given"
						 : "one checkpoint at a time");
	if (q.vocab == NULL || q.out == NULL)
		return tool_usage(argv[0], "%s is missing",
				  q.vocab == NULL ? "--vocab FILE" : "--out DIR");
	q.checkpoint = argv[optind];
	if (import_bundle(&q, report, &e) < 0)
		return tool_failed(argv[0], "%s", e.text);
	print_import(report, q.out);
	for (i = 0; i < report->n_warnings; i++)
		fprintf(stderr, "carzero-model: import: warning: %s\n", report->warnings[i]);
	return TOOL_DONE;
}

/* ---- info ---- */

static const char info_help[] =
	"Usage: carzero-model info DIR [--json]\n"
	"\n"
	"Checks a bundle as the node does at start (every tensor, the digest, the vocabulary) and\n"
	"prints what it is.\n";

static void print_info(const char *dir, const struct model_info *m)
{
	char hex[DIGEST_HEX_MAX];

	str_hex(hex, m->digest, DIGEST_SIZE);
	printf("bundle      %s\n", dir);
	printf("name        %s\n", m->name);
	printf("family      %s\n", m->family);
	printf("domain      %s%s\n", domain_name(m->domain),
	       m->domain == MODEL_UNTRAINED
		       ? " (its scores have not been compared with recorded ones)"
		       : "");
	printf("weights     sha256 %s\n", hex);
	printf("parameters  %" PRIu64 "\n", m->parameters);
	printf("width       %zu\n", m->dim);
	printf("image       %zu layers, %zu heads; letterbox %zu, crop %zu, %zu x %zu patches\n",
	       m->vit_depth, m->vit_heads, m->image_size, m->crop, m->map_side, m->map_side);
	printf("text        %zu layers, %zu heads; vocabulary %zu, at most %zu tokens\n", m->bert_depth,
	       m->bert_heads, m->vocab, m->word_num);
	printf("fusion      %zu layers, %zu heads\n", m->fusion_depth, m->fusion_heads);
}

static void print_info_json(const char *dir, const struct model_info *m)
{
	char hex[DIGEST_HEX_MAX];
	json_t *root;

	str_hex(hex, m->digest, DIGEST_SIZE);
	root = json_pack("{s:s*, s:s, s:s, s:s, s:s, s:I}", "bundle", dir, "name", m->name,
			 "family", m->family, "domain", domain_name(m->domain), "sha256", hex,
			 "parameters", (json_int_t)m->parameters);
	const struct { const char *key; size_t value; } sizes[] = {
		{ "dim", m->dim }, { "vit_depth", m->vit_depth }, { "vit_heads", m->vit_heads },
		{ "bert_depth", m->bert_depth }, { "bert_heads", m->bert_heads }, { "fus_depth", m->fusion_depth },
		{ "fus_heads", m->fusion_heads }, { "imsize", m->image_size }, { "crop", m->crop },
		{ "map_side", m->map_side }, { "word_num", m->word_num }, { "vocab", m->vocab },
	};
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		json_object_set_new(root, sizes[i].key, json_integer((json_int_t)sizes[i].value));
	(void)json_dumpf(root, stdout, JSON_INDENT(1));
	putchar('\n');
	json_decref(root);
}

int tool_info(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' }, { "help", no_argument, NULL, TOOL_HELP }, { NULL, 0, NULL, 0 },
	};
	struct model *model;
	bool json = false;
	struct err e;
	int c;

	while ((c = tool_option(argv[0], argc, argv, options)) != -1)
		switch (c) {
		case 'j': json = true; break;
		case TOOL_HELP: fputs(info_help, stdout); return TOOL_DONE;
		default: return TOOL_USAGE;
		}
	if (argc - optind != 1)
		return tool_usage(argv[0], "give one bundle directory");
	if (model_open(argv[optind], NULL, &model, &e) < 0)
		return tool_failed(argv[0], "%s", e.text);
	if (json)
		print_info_json(argv[optind], model_info(model));
	else
		print_info(argv[optind], model_info(model));
	model_close(model);
	return TOOL_DONE;
}

/* ---- prompts ---- */

static const char prompts_help[] =
	"Usage: carzero-model prompts --model DIR --explain TEXT ...\n"
	"       carzero-model prompts --model DIR --findings FILE\n"
	"       carzero-model prompts --align TEXT ... [--findings FILE] [--synonyms FILE]\n"
	"\n"
	"Shows what the model sees of a prompt: the cleaned text (case, punctuation and sentences of\n"
	"one word are gone), its word pieces and their numbers. The model was trained on reports; the\n"
	"published prompts have the form 'There is X'. Exit code 1 when nothing is left of a prompt.\n"
	"\n"
	"  --model DIR      the bundle (its weights are not read)\n"
	"  --explain TEXT   a prompt; may be given several times\n"
	"  --findings FILE  all prompts of a findings list\n"
	"\n"
	"With --align, says which canonical prompt a free phrase stands for and why. Phrases are\n"
	"compared whole with the list's prompts and 'synonyms', then with the table; what is in\n"
	"neither maps to nothing (exit code 1). The score of a finding is always that of its prompt.\n"
	"\n"
	"  --align TEXT     a phrase, like 'heart enlargement'; may be given several times\n"
	"  --synonyms FILE  the table (default " TOOL_SYNONYMS ")\n";

struct words { /* what turns text into numbers */
	struct manifest manifest;
	struct tokenizer *tokenizer;
};

static int explain(const struct words *w, const char *verb, const char *text)
{
	CLEANUP(free) char *clean = xcalloc(strlen(text) + 1, 1);
	int32_t ids[DIMS_POSITIONS_MAX];
	struct err e;
	size_t n, i;

	if (tokenizer_clean(text, clean, &e) < 0)
		return tool_failed(verb, "'%s': %s", text, e.text);
	if (tokenizer_encode(w->tokenizer, clean, ids, w->manifest.dims.word_num, &n) < 0)
		return tool_failed(verb, "'%s' cannot be encoded", text);
	printf("prompt   %s\ncleaned  %s\npieces  ", text, clean[0] != '\0' ? clean : "(nothing)");
	for (i = 0; i < n; i++)
		printf(" %s", tokenizer_piece(w->tokenizer, ids[i]));
	printf("\nids     ");
	for (i = 0; i < n; i++)
		printf(" %" PRId32, ids[i]);
	printf("\n\n");
	if (clean[0] == '\0')
		return tool_failed(verb,
				   "'%s': nothing is left after cleaning, because sentences of one "
				   "word are dropped; "
				   "write 'There is %s'",
				   text, text[0] != '\0' ? text : "...");
	return TOOL_DONE;
}

static int explain_list(const struct words *w, const char *verb, const char *path)
{
	struct findings *f;
	int code = TOOL_DONE;
	struct err e;
	size_t i;

	if (findings_load(path, &f, NULL, NULL, &e) < 0)
		return tool_failed(verb, "%s", e.text);
	for (i = 0; i < f->n; i++)
		if (explain(w, verb, f->finding[i].prompt) != TOOL_DONE)
			code = TOOL_FAILED;
	findings_free(f);
	return code;
}

static int open_words(const char *dir, struct words *ret, struct err *e)
{
	char path[PATH_MAX];
	int r;

	if (snprintf(path, sizeof(path), "%s/model.json", dir) >= (int)sizeof(path))
		return err_set(e, -ENAMETOOLONG, "%s: path too long", dir);
	r = manifest_read(path, &ret->manifest, e);
	if (r < 0)
		return r;
	(void)snprintf(path, sizeof(path), "%s/vocab.txt", dir); /* shorter than model.json */
	return tokenizer_open(path, &ret->tokenizer, e);
}

/* ---- prompts --align ---- */

static int align(const char *verb, const char *const *phrases, size_t n, const char *list, const char *table)
{
	struct findings *f = NULL;
	struct synonyms *s = NULL;
	int code = TOOL_DONE;
	struct alignment a;
	struct err e;
	size_t i;

	if ((list != NULL && findings_load(list, &f, NULL, NULL, &e) < 0) || synonyms_load(table, &s, &e) < 0) {
		findings_free(f);
		return tool_failed(verb, "%s", e.text);
	}
	for (i = 0; i < n; i++) {
		synonyms_align(s, f, phrases[i], &a);
		printf("phrase   %s\nprompt   %s\n", phrases[i], a.prompt[0] != '\0' ? a.prompt : "(none)");
		if (f != NULL)
			printf("finding  %s\n", a.finding != NULL ? a.finding->id : "(none)");
		printf("because  %s\n\n", a.why);
		if (a.prompt[0] == '\0' || (f != NULL && a.finding == NULL))
			code = TOOL_FAILED;
	}
	synonyms_free(s);
	findings_free(f);
	return code;
}

int tool_prompts(int argc, char **argv)
{
	static const struct option options[] = {
		{ "model", required_argument, NULL, 'm' },    { "explain", required_argument, NULL, 'e' },
		{ "findings", required_argument, NULL, 'f' }, { "align", required_argument, NULL, 'a' },
		{ "synonyms", required_argument, NULL, 's' }, { "help", no_argument, NULL, TOOL_HELP },
		{ NULL, 0, NULL, 0 },
	};
	CLEANUP(free) const char **texts = xcalloc((size_t)argc, sizeof(*texts));
	CLEANUP(free) const char **phrases = xcalloc((size_t)argc, sizeof(*phrases));
	const char *dir = NULL, *findings = NULL, *synonyms = NULL;
	struct words w;
	int c, code = TOOL_DONE;
	struct err e;
	size_t n = 0, n_phrases = 0, i;

	while ((c = tool_option(argv[0], argc, argv, options)) != -1)
		switch (c) {
		case 'm': dir = optarg; break;
		case 'a': phrases[n_phrases++] = optarg; break;
		case 's': synonyms = optarg; break;
		case 'e': texts[n++] = optarg; break;
		case 'f': findings = optarg; break;
		case TOOL_HELP: fputs(prompts_help, stdout); return TOOL_DONE;
		default: return TOOL_USAGE;
		}
	if (n_phrases > 0 && (dir != NULL || n > 0 || optind < argc))
		return tool_usage(argv[0], "%s", optind < argc ? "a phrase with blanks needs quotes around it"
							       : "--align goes without --model and --explain");
	if (n_phrases > 0)
		return align(argv[0], phrases, n_phrases, findings, synonyms != NULL ? synonyms : TOOL_SYNONYMS);
	if (synonyms != NULL)
		return tool_usage(argv[0], "--synonyms goes with --align TEXT");
	if (dir == NULL || (n == 0) == (findings == NULL) || optind < argc)
		return tool_usage(argv[0], "%s", dir == NULL ? "--model DIR is missing" :
				  optind < argc ? "a prompt with blanks needs quotes around it" :
				  "give either --explain TEXT or --findings FILE");
	if (open_words(dir, &w, &e) < 0)
		return tool_failed(argv[0], "%s", e.text);
	for (i = 0; i < n; i++)
		if (explain(&w, argv[0], texts[i]) != TOOL_DONE)
			code = TOOL_FAILED;
	if (findings != NULL)
		code = explain_list(&w, argv[0], findings);
	tokenizer_close(w.tokenizer);
	return code;
}
