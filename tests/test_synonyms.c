/* test_synonyms.c: free phrases and what they stand for; the shipped table, read against the shipped lists. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

#include "daemon/synonyms.h"
#include "tests/tap.h"

static const char table_text[] =
	"groups:\n"
	"- {canonical: cardiomegaly, phrases: [heart enlargement, enlarged heart]}\n"
	"- {canonical: pulmonary edema, phrases: [pulmonary oedema, lung edema]}\n"
	"- {canonical: lung nodule, phrases: [pulmonary nodule]}\n";

static const char list_text[] =
	"name: test\n"
	"findings:\n"
	"- {id: heart, name: Heart, prompt: There is Cardiomegaly, synonyms: [big heart]}\n"
	"- {id: edema, name: Edema, prompt: There is lung edema}\n"
	"- {id: n1, name: N1, prompt: There is Lung Nodule}\n"
	"- {id: n2, name: N2, prompt: There is pulmonary nodule.}\n";

static void test_key(void)
{
	static const struct { const char *text, *key; } cases[] = {
		{ "There is Pleural Effusion", "pleural effusion" },
		{ "  there  is a PACE-maker. ", "pace maker" },
		{ "There is evidence of the edema", "edema" },
		{ "evidence of a mass", "mass" },
		{ "There is", "there is" },
		{ "an anomaly", "anomaly" },
		{ "theatre", "theatre" },
		{ "T1, T2", "t1 t2" },
		{ "...", "" },
		{ "", "" },
	};
	char key[64];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		is_int(phrase_key(cases[i].text, key), 0, "key of '%s'", cases[i].text);
		is_str(key, cases[i].key, "  is right");
	}
	is_int(phrase_key("\xc3\xa9paule", key), -EBADMSG, "not ASCII");
}

static void test_align(void)
{
	static const struct { const char *phrase, *prompt, *finding, *why; } cases[] = {
		{ "cardiomegaly", "There is Cardiomegaly", "heart", "exactly this" },
		{ "There is a big heart", "There is Cardiomegaly", "heart", "the list gives 'big heart'" },
		{ "Heart enlargement", "There is Cardiomegaly", "heart", "it is 'cardiomegaly'" },
		{ "pulmonary oedema", "There is lung edema", "edema", "it is 'pulmonary edema'" },
		{ "lung nodule", "There is Lung Nodule", "n1", "exactly this" },
		{ "big-heart", "There is Cardiomegaly", "heart", "synonym" },
		{ "mild cardiomegaly", "", NULL, "nothing is guessed" },
		{ "cardiomegali", "", NULL, "nothing is guessed" },
		{ "heart", "", NULL, "nothing is guessed" },
		{ "no cardiomegaly", "", NULL, "'no' turns" },
		{ "heart enlargement absent", "", NULL, "'absent' turns" },
		{ "nodular heart", "", NULL, "nothing is guessed" },
		{ "", "", NULL, "nothing is guessed" },
		{ "\xc3\xb6" "dem", "", NULL, "only ASCII" },
	};
	struct findings *f = NULL;
	struct synonyms *s = NULL;
	struct alignment a;
	struct err e = { "" };
	size_t i;

	if (!ok(findings_parse("list", list_text, strlen(list_text), &f, &e) == 0, "list %s", e.text) ||
	    !ok(synonyms_parse("table", table_text, strlen(table_text), &s, &e) == 0, "table %s", e.text))
		return;
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		synonyms_align(s, f, cases[i].phrase, &a);
		is_str(a.prompt, cases[i].prompt, "prompt of '%s'", cases[i].phrase);
		ok(cases[i].finding == NULL ? a.finding == NULL
					    : a.finding != NULL && strcmp(a.finding->id, cases[i].finding) == 0,
		   "  the finding");
		ok(strstr(a.why, cases[i].why) != NULL, "  because %s", a.why);
	}
	synonyms_align(s, NULL, "enlarged heart", &a);
	is_str(a.prompt, "There is cardiomegaly", "without a list the table's own sentence");
	ok(a.finding == NULL, "  and no finding");
	synonyms_align(NULL, NULL, "enlarged heart", &a);
	is_str(a.prompt, "", "without anything nothing");
	f->finding[2].prompt[0] = 'x'; /* no longer asked for; n2 is the group's only one */
	synonyms_align(s, f, "lung nodule", &a);
	ok(a.finding == &f->finding[3], "the group's finding, if there is one: %s", a.why);
	(void)snprintf(f->finding[2].prompt, sizeof(f->finding[2].prompt), "There is Lung Nodule");
	(void)snprintf(f->finding[3].prompt, sizeof(f->finding[3].prompt), "There is x");
	synonyms_align(s, f, "pulmonary nodule", &a);
	ok(a.finding == &f->finding[2], "and the other way round: %s", a.why);
	synonyms_free(s);
	findings_free(f);
}

static void test_refusals(void)
{
	static const struct { const char *text, *says; } tables[] = {
		{ "groups:\n- {canonical: x y, phrases: [c]}\n- {canonical: d, phrases: [x y]}\n", "t:3: groups[2]: 'x y' is in the group of 'x y'" },
		{ "groups:\n- {canonical: a, phrases: [c, c]}\n", "'c' is in this group twice" },
		{ "groups:\n- {canonical: a, phrases: [a]}\n", "'a' is in this group twice" },
		{ "groups:\n- {canonical: There is a, phrases: [c]}\n", "must be written as it is compared: 'a'" },
		{ "groups:\n- {canonical: a, phrases: [Edema]}\n", "compared: 'edema'" },
		{ "groups:\n- {canonical: a, phrases: []}\n", "phrases" },
		{ "groups:\n- {canonical: a}\n", "phrases" },
		{ "groups:\n- {canonical: a, phrases: [\"\xc3\xa4\"]}\n", "not ASCII" },
		{ "group: []\n", "did you mean" },
	};
	static const struct { const char *text, *says; } lists[] = {
		{ "[{id: a, name: A, prompt: There is a, synonyms: [x]}, {id: b, name: B, prompt: There is b, synonyms: [X.]}]",
		  "'x' is a synonym of finding 1 (a)" },
		{ "[{id: a, name: A, prompt: There is q, synonyms: [x, The x]}]", "'x' is a synonym of finding 1 (a)" },
		{ "[{id: a, name: A, prompt: There is q, synonyms: [w]}, {id: b, name: B, prompt: There is w}]", "is a synonym of finding 1 (a)" },
		{ "[{id: a, name: A, prompt: There is q}, {id: b, name: B, prompt: There is w, synonyms: [q]}]", "'q' is the prompt of finding 1 (a)" },
		{ "[{id: a, name: A, prompt: There is q, synonyms: [q]}]", "finding 1 (a)" },
		{ "[{id: a, name: A, prompt: There is q, synonyms: ['...']}]", "holds no word" },
		{ "[{id: a, name: A, prompt: There is q, synonyms: []}]", "synonyms" },
	};
	struct findings *f = NULL;
	struct synonyms *s = NULL;
	char text[512];
	struct err e;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(tables); i++)
		ok(synonyms_parse("t", tables[i].text, strlen(tables[i].text), &s, &e) < 0 && strstr(e.text, tables[i].says) != NULL,
		   "table: %s", e.text);
	for (i = 0; i < ARRAY_SIZE(lists); i++) {
		(void)snprintf(text, sizeof(text), "{name: x, findings: %s}", lists[i].text);
		ok(findings_parse("t", text, strlen(text), &f, &e) < 0 && strstr(e.text, lists[i].says) != NULL, "list: %s", e.text);
	}
	is_int(synonyms_load("/nonexistent/s.yaml", &s, &e), -ENOENT, "a missing file: %s", e.text);
	synonyms_free(NULL);
}

/* Every finding of the published list is in the table, and no two of them are in one group. */
static void test_shipped(void)
{
	const char *top = getenv("srcdir");
	struct synonyms *s = NULL;
	struct findings *f = NULL;
	struct alignment a;
	char path[4096];
	struct err e = { "" };
	size_t i, k;

	(void)snprintf(path, sizeof(path), "%s/etc/synonyms.yaml", top != NULL ? top : ".");
	if (!ok(synonyms_load(path, &s, &e) == 0, "etc/synonyms.yaml is good %s", e.text))
		return;
	(void)snprintf(path, sizeof(path), "%s/etc/findings.yaml", top != NULL ? top : ".");
	if (ok(findings_load(path, &f, NULL, NULL, &e) == 0, "etc/findings.yaml is good %s", e.text)) {
		for (i = 0; i < s->n; i++)
			for (k = 0; k < s->group[i].n; k++) {
				synonyms_align(s, f, s->group[i].phrase[k], &a);
				ok(strstr(a.why, "several") == NULL, "'%s': %s", s->group[i].phrase[k], a.why);
			}
		synonyms_align(s, f, "heart enlargement", &a);
		ok(a.finding != NULL && strcmp(a.finding->id, "cardiomegaly") == 0, "heart enlargement: %s", a.why);
		synonyms_align(s, f, "left pleural effusion", &a);
		ok(a.finding == NULL && a.prompt[0] == '\0', "a side is no synonym: %s", a.why);
	}
	findings_free(f);
	synonyms_free(s);
}

int main(void)
{
	test_key();
	test_align();
	test_refusals();
	test_shipped();
	return done();
}
