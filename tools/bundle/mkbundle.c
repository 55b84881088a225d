/* mkbundle.c: writes an openly untrained model bundle (untrained.h).
 *
 *	mkbundle --seed N --out DIR [--vocab FILE]
 */
#include <getopt.h>

#include "base/str.h"

#include "tools/bundle/untrained.h"

#ifndef MKBUNDLE_VOCAB
#define MKBUNDLE_VOCAB "tools/bundle/vocab.txt" /* the build may know better */
#endif

static int usage(void)
{
	fprintf(stderr, "usage: mkbundle --seed N --out DIR [--vocab FILE]\n");
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", required_argument, NULL, 's' },
		{ "out", required_argument, NULL, 'o' },
		{ "vocab", required_argument, NULL, 'v' },
		{ NULL, 0, NULL, 0 },
	};
	const char *out = NULL, *vocab = MKBUNDLE_VOCAB;
	bool has_seed = false;
	uint64_t seed = 0;
	struct err e;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 's')
			has_seed = str_to_u64(optarg, 0, UINT64_MAX, &seed);
		else if (c == 'o')
			out = optarg;
		else if (c == 'v')
			vocab = optarg;
		else
			return usage();
	}
	if (!has_seed || out == NULL || optind != argc)
		return usage();
	if (untrained_write(out, vocab, seed, &e) < 0) {
		fprintf(stderr, "mkbundle: %s\n", e.text);
		return 1;
	}
	return 0;
}
