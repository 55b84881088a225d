/* synonyms.c: see synonyms.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fdio.h"
#include "base/mem.h"
#include "base/str.h"

#include "daemon/synonyms.h"
#include "daemon/yaml.h"

#define EVENTS_MAX 20000
#define SHOWN_MAX 80

/* ---- the table ---- */

static int read_phrase(struct yaml_node *n, char ret[FINDING_TEXT_MAX])
{
	char key[FINDING_TEXT_MAX], shown[SHOWN_MAX];
	const char *text;
	int r;

	r = yaml_want_text(n, &text);
	if (r < 0)
		return r;
	str_quote(shown, sizeof(shown), text);
	if (!str_copy(ret, FINDING_TEXT_MAX, text))
		return yaml_error(n, -EBADMSG, "is longer than %d bytes", FINDING_TEXT_MAX - 1);
	if (phrase_key(ret, key) < 0)
		return yaml_error(n, -EBADMSG, "'%s' is not ASCII; phrases are compared as English", shown);
	if (strcmp(key, ret) != 0)
		return yaml_error(n, -EBADMSG, "'%s' must be written as it is compared: '%s'", shown, key);
	return key[0] != '\0' ? 0 : yaml_error(n, -EBADMSG, "is empty");
}

static int read_canonical(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	(void)k;
	return read_phrase(n, field);
}

static int read_phrases(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	struct synonym_group *g = field;
	char phrase[FINDING_TEXT_MAX];
	struct yaml_node *item;
	int r;

	r = yaml_want_list(n, k);
	if (r < 0)
		return r;
	g->phrase = xcalloc(n->n, sizeof(*g->phrase));
	for (item = n->first; item != NULL; item = item->next) {
		r = read_phrase(item, phrase);
		if (r < 0)
			return r;
		g->phrase[g->n++] = xstrdup(phrase);
	}
	return 0;
}

static const struct yaml_key group_keys[] = {
	YAML_KEY(struct synonym_group, canonical, read_canonical, .required = true),
	{ .name = "phrases", .read = read_phrases, .min = 1, .max = SYNONYM_PHRASES_MAX, .required = true },
};

static bool holds(const struct synonym_group *g, const char *key)
{
	size_t i;

	for (i = 0; i < g->n; i++)
		if (strcmp(g->phrase[i], key) == 0)
			return true;
	return strcmp(g->canonical, key) == 0;
}

/* The last group's own phrases are compared with those before them, too. */
static int check_group(const struct yaml_node *n, const struct synonyms *s, struct synonym_group *last)
{
	size_t n_phrases = last->n, i, k;

	for (k = 0; k <= n_phrases; k++) {
		const char *key = k == 0 ? last->canonical : last->phrase[k - 1];

		for (i = 0; i < s->n; i++)
			if (holds(&s->group[i], key))
				return yaml_error(n, -EBADMSG, "'%s' is in the group of '%s' already", key,
						  s->group[i].canonical);
		last->n = k > 0 ? k - 1 : 0; /* those before this one */
		if (k > 0 && holds(last, key)) {
			last->n = n_phrases;
			return yaml_error(n, -EBADMSG, "'%s' is in this group twice", key);
		}
		last->n = n_phrases;
	}
	return 0;
}

static int read_groups(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	struct synonyms *s = field;
	struct yaml_node *item;
	int r;

	r = yaml_want_list(n, k);
	if (r < 0)
		return r;
	s->group = xcalloc(n->n, sizeof(*s->group));
	s->room = n->n;
	for (item = n->first; item != NULL; item = item->next, s->n++) {
		r = yaml_read_map(item, group_keys, ARRAY_SIZE(group_keys), &s->group[s->n]);
		if (r < 0)
			return r;
		r = check_group(item, s, &s->group[s->n]);
		if (r < 0)
			return r;
	}
	return 0;
}

static const struct yaml_key table_keys[] = {
	{ .name = "groups", .read = read_groups, .min = 1, .max = SYNONYM_GROUPS_MAX, .required = true },
};

void synonyms_free(struct synonyms *s)
{
	size_t i, k;

	if (s == NULL)
		return;
	for (i = 0; i < s->room; i++) {
		for (k = 0; k < s->group[i].n; k++)
			free(s->group[i].phrase[k]);
		free(s->group[i].phrase);
	}
	free(s->group);
	free(s);
}

static void cleanup_synonyms_free(struct synonyms **s)
{
	synonyms_free(*s);
}

int synonyms_parse(const char *where, const void *text, size_t n_text, struct synonyms **ret, struct err *e)
{
	CLEANUP(synonyms_free) struct synonyms *s = NULL;
	CLEANUP(yaml_close) struct yaml *y = NULL;
	int r;

	r = yaml_open(where, text, n_text, SYNONYMS_BYTES_MAX, EVENTS_MAX, e, &y);
	if (r < 0)
		return r;
	s = xcalloc(1, sizeof(*s));
	r = yaml_read_map(yaml_root(y), table_keys, ARRAY_SIZE(table_keys), s);
	if (r < 0)
		return r;
	*ret = TAKE(s);
	return 0;
}

int synonyms_load(const char *path, struct synonyms **ret, struct err *e)
{
	CLEANUP(free) void *text = NULL;
	size_t n_text;
	int r;

	r = read_path(path, SYNONYMS_BYTES_MAX, &text, &n_text, e);
	if (r < 0)
		return r;
	return synonyms_parse(path, text, n_text, ret, e);
}

/* ---- alignment ---- */

/* Words that turn or weaken a phrase.  The phrase would match nothing anyway; the reader is told why. */
static const char *negation(const char *key)
{
	static const char *const words[] = { "no", "not", "without", "negative", "absent", "absence", "free",
					     "resolved", "unlikely", "possible", "probable", "questionable" };
	size_t i, n;

	for (; *key != '\0'; key += n, key += *key == ' ') {
		n = strcspn(key, " ");
		for (i = 0; i < ARRAY_SIZE(words); i++)
			if (strlen(words[i]) == n && strncmp(words[i], key, n) == 0)
				return words[i];
	}
	return NULL;
}

static bool is_key(const char *text, const char *key)
{
	char other[FINDING_TEXT_MAX];

	return strlen(text) < sizeof(other) && phrase_key(text, other) == 0 && strcmp(other, key) == 0;
}

static void found(struct alignment *ret, const struct finding *f)
{
	ret->finding = f;
	(void)str_copy(ret->prompt, sizeof(ret->prompt), f->prompt); /* is shorter */
}

/* Words of the list itself. */
static bool align_list(const struct findings *f, const char *key, struct alignment *ret)
{
	size_t i, k;

	for (i = 0; i < f->n; i++) {
		if (is_key(f->finding[i].prompt, key)) {
			found(ret, &f->finding[i]);
			(void)snprintf(ret->why, sizeof(ret->why), "the list asks exactly this");
			return true;
		}
		for (k = 0; k < f->finding[i].n_synonyms; k++)
			if (strcmp(f->finding[i].synonyms[k], key) == 0) {
				found(ret, &f->finding[i]);
				(void)snprintf(ret->why, sizeof(ret->why),
					       "the list gives '%s' as a synonym of this finding",
					       f->finding[i].synonyms[k]);
				return true;
			}
	}
	return false;
}

/* The finding that asks for any phrase of the group; NULL for none, or for more than one. */
static const struct finding *finding_of_group(const struct findings *f, const struct synonym_group *g,
					      size_t *ret_n)
{
	const struct finding *only = NULL;
	char key[FINDING_TEXT_MAX];
	size_t i;

	*ret_n = 0;
	for (i = 0; f != NULL && i < f->n; i++)
		if (phrase_key(f->finding[i].prompt, key) == 0 && holds(g, key)) {
			only = &f->finding[i];
			(*ret_n)++;
		}
	return *ret_n == 1 ? only : NULL;
}

static void align_group(const struct synonym_group *g, const struct findings *f, const char *key,
			struct alignment *ret)
{
	const struct finding *only;
	char same[FINDING_TEXT_MAX + 64];
	size_t n;

	if (strcmp(g->canonical, key) == 0)
		(void)snprintf(same, sizeof(same), "the table of synonyms knows it as it is");
	else
		(void)snprintf(same, sizeof(same), "the table of synonyms says it is '%s'", g->canonical);
	(void)snprintf(ret->prompt, sizeof(ret->prompt), "There is %s", g->canonical);
	only = finding_of_group(f, g, &n);
	if (f == NULL)
		(void)snprintf(ret->why, sizeof(ret->why), "%s", same);
	else if (only == NULL)
		(void)snprintf(ret->why, sizeof(ret->why), "%s; %s", same,
			       n == 0 ? "no finding of the list asks that"
				      : "several findings of the list ask that, so it stays open");
	else {
		found(ret, only);
		(void)snprintf(ret->why, sizeof(ret->why), "%s, and this finding asks that", same);
	}
}

void synonyms_align(const struct synonyms *s, const struct findings *f, const char *phrase,
		    struct alignment *ret)
{
	char key[FINDING_TEXT_MAX];
	const char *word;
	size_t i;

	memset(ret, 0, sizeof(*ret));
	if (strlen(phrase) >= sizeof(key) || phrase_key(phrase, key) < 0) {
		(void)snprintf(ret->why, sizeof(ret->why),
			       "only ASCII phrases of at most %zu bytes are compared", sizeof(key) - 1);
		return;
	}
	if (f != NULL && align_list(f, key, ret))
		return;
	for (i = 0; s != NULL && i < s->n; i++)
		if (holds(&s->group[i], key)) {
			align_group(&s->group[i], f, key, ret);
			return;
		}
	word = negation(key);
	if (word != NULL)
		(void)snprintf(ret->why, sizeof(ret->why),
			       "'%s' turns or weakens it, and the model hardly understands that: ask for the "
			       "finding itself",
			       word);
	else
		(void)snprintf(ret->why, sizeof(ret->why),
			       "no phrase of the list or the table is the same, and nothing is guessed");
}
