/* fuzz_yaml.c: both configuration files and the table of synonyms from any bytes.
 *
 * No reader may crash, leak or say nothing: a refusal has a text that names the source.  What is
 * taken is asked its questions, so that a list that breaks its own rules shows.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#include "daemon/config.h"
#include "daemon/findings.h"
#include "daemon/synonyms.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool good)
{
	if (!good)
		abort();
}

/* One line of printable text that begins with the source's name. */
static void check_text(const char *text)
{
	const unsigned char *p;

	must(strncmp(text, "fuzz:", 5) == 0);
	for (p = (const unsigned char *)text; *p != '\0'; p++)
		must(*p >= 0x20 && *p != 0x7f);
}

static void ask_config(const struct config *c)
{
	static const struct in6_addr loopback = IN6ADDR_LOOPBACK_INIT;
	const struct peer *to[CONFIG_PEERS_MAX];
	const char *hint;
	unsigned unresolved;
	size_t n;

	must(c->n_listen + c->tls.n_listen >= 1 && c->threads >= 1 && c->workers >= 1 && c->settle_ms <= c->settle_max_ms);
	must(config_access(c, c->ae_title, &loopback, NULL, NULL, &hint) == (hint == NULL));
	n = config_route(c, c->n_peers > 0 ? c->peers[0].ae_title : "X", to, ARRAY_SIZE(to), &unresolved);
	must(n <= c->n_peers);
}

static void ask_findings(const struct findings *list)
{
	size_t i;

	for (i = 0; i < list->n; i++) {
		const struct finding *f = &list->finding[i];
		double p = finding_probability(f, 0.5f, f->calibration.family, f->calibration.recipe,
					       f->calibration.precision);

		must(f->id[0] != '\0' && f->prompt[0] != '\0' && f->code.value[0] != '\0');
		must(f->calibration.present ? p >= 0 && p <= 1 : isnan(p));
		must((finding_decide(f, p) == DECISION_NONE) == isnan(p));
	}
}

/* Whatever is a synonym of one finding, or in one group, stands for that and nothing else. */
static void ask_synonyms(const struct synonyms *s, const struct findings *list)
{
	struct alignment a;
	size_t i, k;

	for (i = 0; list != NULL && i < list->n; i++)
		for (k = 0; k < list->finding[i].n_synonyms; k++) {
			synonyms_align(s, list, list->finding[i].synonyms[k], &a);
			must(a.finding == &list->finding[i]);
		}
	for (i = 0; s != NULL && i < s->n; i++)
		for (k = 0; k < s->group[i].n; k++) {
			synonyms_align(s, NULL, s->group[i].phrase[k], &a);
			must(strcmp(a.prompt + strlen("There is "), s->group[i].canonical) == 0);
		}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct config *c = NULL;
	struct findings *list = NULL;
	struct synonyms *synonyms = NULL;
	struct err e = { "" };

	if (config_parse("fuzz", "/folder", data, size, &c, &e) == 0)
		ask_config(c);
	else
		check_text(e.text);
	if (findings_parse("fuzz", data, size, &list, &e) == 0)
		ask_findings(list);
	else
		check_text(e.text);
	if (synonyms_parse("fuzz", data, size, &synonyms, &e) < 0)
		check_text(e.text);
	ask_synonyms(synonyms, list);
	synonyms_free(synonyms);
	config_free(c);
	findings_free(list);
	return 0;
}
