/* carzero-model.c: the model's tool: import, look, score, evaluate, calibrate.
 *
 * For people with a shell: nothing here runs in the node, listens, or writes anywhere but where it
 * was told to.  Results go to stdout, words about them to stderr.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"

#include "model/kernels.h"

#include "daemon/tool.h"

static const struct verb {
	const char *name;
	int (*run)(int argc, char **argv);
} verbs[] = {
	{ "import", tool_import }, { "verify", tool_verify }, { "info", tool_info }, { "prompts", tool_prompts },
	{ "score", tool_score },   { "eval", tool_eval },     { "calibrate", tool_calibrate },
};

static const char help[] =
	"Usage: carzero-model VERB [OPTIONS] ...\n"
	"\n"
	"The model's tool of carzerod: makes a bundle (a directory with weights, dimensions and\n"
	"vocabulary) from the published CARZero checkpoint and works with it. No Python is needed.\n"
	"\n"
	"  import     make a bundle from a checkpoint and its vocab.txt\n"
	"  verify     compare its logits with recorded ones; a bundle that agrees is clinical\n"
	"  info       check a bundle and say what is in it\n"
	"  prompts    show what the model sees of a prompt\n"
	"  score      score image files (DICOM, PNG, JPEG)\n"
	"  eval       ROC AUC from logits and labels\n"
	"  calibrate  fit the a and b that make logits probabilities\n"
	"\n"
	"carzero-model VERB --help explains one. carzero-model --version prints the version.\n"
	"\n"
	"Example: from the published files to the scores of one radiograph\n"
	"  carzero-model import CARZero_best_model.ckpt --vocab vocab.txt --out carzero\n"
	"  carzero-model verify carzero --images images_006\n"
	"  carzero-model score --model carzero --prompt 'There is pneumothorax' chest.dcm\n"
	"\n"
	"Not a medical device; a score is not a diagnosis.\n";

static void complain(const char *verb, const char *format, va_list ap)
	__attribute__((format(printf, 2, 0)));
static void complain(const char *verb, const char *format, va_list ap)
{
	fprintf(stderr, "carzero-model: %s: ", verb);
	(void)vfprintf(stderr, format, ap);
	fputc('\n', stderr);
}

int tool_failed(const char *verb, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	complain(verb, format, ap);
	va_end(ap);
	return TOOL_FAILED;
}

int tool_usage(const char *verb, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	complain(verb, format, ap);
	va_end(ap);
	fprintf(stderr, "'carzero-model %s --help' explains the options.\n", verb);
	return TOOL_USAGE;
}

int tool_option(const char *verb, int argc, char **argv, const struct option *options)
{
	int c;

	opterr = 0;
	c = getopt_long(argc, argv, ":", options, NULL);
	if (c == ':')
		(void)tool_usage(verb, "%s needs a value", argv[optind - 1]);
	else if (c == '?')
		(void)tool_usage(verb, "unknown option %s", argv[optind - 1]);
	return c == ':' ? '?' : c;
}

int main(int argc, char **argv)
{
	size_t i;

	kernels_wait_asleep(argv);
	log_open("carzero-model", LOG_LEVEL_WARNING);
	if (argc < 2) {
		fputs(help, stderr);
		return TOOL_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
	    strcmp(argv[1], "help") == 0) {
		fputs(help, stdout);
		return TOOL_DONE;
	}
	if (strcmp(argv[1], "--version") == 0) {
		puts("carzero-model " PACKAGE_VERSION);
		return TOOL_DONE;
	}
	for (i = 0; i < ARRAY_SIZE(verbs); i++)
		if (strcmp(argv[1], verbs[i].name) == 0) {
			int code = verbs[i].run(argc - 1, argv + 1);

			if (fflush(stdout) != 0 || ferror(stdout))
				return tool_failed(verbs[i].name, "writing to stdout failed");
			return code;
		}
	fprintf(stderr,
		"carzero-model: no verb '%s'; the verbs are import, verify, info, prompts, score, eval, "
		"calibrate\n'carzero-model --help' explains them.\n",
		argv[1]);
	return TOOL_USAGE;
}
