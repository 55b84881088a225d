/* tables.c: see tables.h.
 *
 * Lines are read one by one with a length limit and cut in place; nothing else of a file is kept.
 * CSV fields may be quoted, a quote inside is doubled; a field does not span lines (none of the
 * published files does that).
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

#include "daemon/tables.h"

#define FIELDS_MAX (FINDINGS_MAX + 16)
#define SHOWN_MAX 80

struct lines {
	FILE *f;
	const char *path;
	size_t number;
	char text[TABLE_LINE_MAX];
	char *field[FIELDS_MAX];
	size_t n; /* fields */
	struct err *e;
};

static int bad(const struct lines *l, const char *why)
{
	return err_set(l->e, -EBADMSG, "%s:%zu: %s", l->path, l->number, why);
}

/* 1 a line, 0 the end.  The line's end is removed; empty lines are skipped. */
static int next_line(struct lines *l)
{
	size_t n;

	do {
		if (fgets(l->text, sizeof(l->text), l->f) == NULL)
			return ferror(l->f) ? err_set(l->e, -EIO, "%s: cannot be read", l->path) : 0;
		l->number++;
		n = strlen(l->text);
		if (n + 1 == sizeof(l->text))
			return bad(l, "the line is too long for a table");
		while (n > 0 && (l->text[n - 1] == '\n' || l->text[n - 1] == '\r'))
			l->text[--n] = '\0';
	} while (n == 0);
	return 1;
}

static int add_field(struct lines *l, char *field)
{
	if (l->n == FIELDS_MAX)
		return bad(l, "more columns than a table of findings has");
	l->field[l->n++] = field;
	return 0;
}

/* Cuts a quoted field that begins at p; returns what follows its comma, NULL at the line's end. */
static int cut_quoted(struct lines *l, char **p)
{
	char *in = *p + 1, *out = *p;
	int r = add_field(l, out);

	if (r < 0)
		return r;
	while (*in != '"' || in[1] == '"') {
		if (*in == '\0')
			return bad(l, "a quote is not closed");
		in += *in == '"';
		*out++ = *in++;
	}
	in++;
	if (*in != '\0' && *in != ',')
		return bad(l, "text behind a closing quote");
	*p = *in == ',' ? in + 1 : NULL;
	*out = '\0';
	return 0;
}

static int cut_csv(struct lines *l)
{
	char *p = l->text, *comma;
	int r;

	l->n = 0;
	while (p != NULL) {
		if (*p == '"') {
			r = cut_quoted(l, &p);
			if (r < 0)
				return r;
			continue;
		}
		comma = strchr(p, ',');
		if (comma != NULL)
			*comma = '\0';
		r = add_field(l, p);
		if (r < 0)
			return r;
		p = comma != NULL ? comma + 1 : NULL;
	}
	return 0;
}

static int cut_blanks(struct lines *l)
{
	char *rest = l->text, *field;
	int r;

	l->n = 0;
	while ((field = strsep(&rest, " \t")) != NULL) {
		if (*field == '\0')
			continue;
		r = add_field(l, field);
		if (r < 0)
			return r;
	}
	return 0;
}

static int lines_open(struct lines *l, const char *path, struct err *e)
{
	*l = (struct lines){ .path = path, .e = e, .f = fopen(path, "re") };
	return l->f == NULL ? err_set(e, -errno, "%s: %s", path, strerror(errno)) : 0;
}

static size_t column_named(const struct lines *l, const char *name)
{
	size_t i;

	for (i = 0; i < l->n && strcmp(l->field[i], name) != 0; i++)
		continue;
	return i;
}

/* Doubles when full; aborts when the machine has no memory for TABLE_ROWS_MAX rows. */
static int more_rows(const struct lines *l, size_t rows, size_t *room)
{
	if (rows < *room)
		return 0;
	if (rows >= TABLE_ROWS_MAX)
		return err_set(l->e, -E2BIG, "%s: more than %d rows", l->path, TABLE_ROWS_MAX);
	*room = *room == 0 ? 1024 : *room * 2;
	return 1;
}

/* Which field holds each finding: by id, or in the list's order when the header is 0, 1, 2, ... */
static int match_logits(struct lines *l, const struct findings *f, size_t *field)
{
	bool numbered = l->n == f->n;
	char number[24], shown[SHOWN_MAX];
	size_t i;

	for (i = 0; i < l->n && numbered; i++) {
		(void)snprintf(number, sizeof(number), "%zu", i);
		numbered = strcmp(l->field[i], number) == 0;
	}
	for (i = 0; i < f->n; i++) {
		field[i] = numbered ? i : column_named(l, f->finding[i].id);
		if (field[i] == l->n)
			return err_set(
				l->e, -EBADMSG,
				"%s:1: no column %s; the header needs the ids of the %zu findings, "
				"or "
				"the numbers 0 to %zu (it has %zu columns, the first is '%s')",
				l->path, f->finding[i].id, f->n, f->n - 1, l->n,
				str_quote(shown, sizeof(shown), l->field[0]));
	}
	return 0;
}

static int read_logit(const struct lines *l, size_t field, float *ret)
{
	char *end, shown[SHOWN_MAX];

	errno = 0;
	*ret = strtof(l->field[field], &end);
	if (end == l->field[field] || *end != '\0' || !isfinite(*ret))
		return err_set(l->e, -EBADMSG, "%s:%zu: column %zu is '%s', not a finite number",
			       l->path, l->number, field + 1,
			       str_quote(shown, sizeof(shown), l->field[field]));
	return 0;
}

static int read_logits(struct lines *l, const struct findings *f, struct logit_table *t)
{
	size_t field[FINDINGS_MAX], fields, room = 0, i;
	int r = next_line(l);

	if (r <= 0)
		return r < 0 ? r : bad(l, "an empty file");
	r = cut_csv(l);
	if (r < 0)
		return r;
	r = match_logits(l, f, field);
	if (r < 0)
		return r;
	fields = l->n;
	t->n = f->n;
	while ((r = next_line(l)) > 0) {
		r = cut_csv(l);
		if (r < 0)
			return r;
		if (l->n != fields)
			return bad(l, "another number of columns than the header");
		r = more_rows(l, t->rows, &room);
		if (r < 0)
			return r;
		for (i = 0; i < f->n; i++) {
			if (r > 0)
				t->column[i] = xreallocarray(t->column[i], room, sizeof(**t->column));
			if (read_logit(l, field[i], &t->column[i][t->rows]) < 0)
				return -EBADMSG;
		}
		t->rows++;
	}
	return r;
}

int logits_load(const char *path, const struct findings *f, struct logit_table *ret, struct err *e)
{
	CLEANUP(free) struct lines *l = xcalloc(1, sizeof(*l));
	int r = lines_open(l, path, e);

	if (r < 0)
		return r;
	memset(ret, 0, sizeof(*ret));
	r = read_logits(l, f, ret);
	(void)fclose(l->f); /* was only read */
	if (r < 0)
		logits_free(ret);
	return r;
}

void logits_free(struct logit_table *t)
{
	size_t i;

	for (i = 0; i < FINDINGS_MAX; i++)
		free(t->column[i]);
	memset(t, 0, sizeof(*t));
}

/* Terms of Open-I's labels_automatic that mean a finding (carzero.md 6, checked against the number of
 * positives there).  NULL-terminated; matched as substrings. */
static const struct openi_rule {
	const char *prompt, *terms[3];
} openi_rules[] = {
	{ "There is Atelectasis", { "atelectasis", "atelectases" } },
	{ "There is Cardiomegaly", { "cardiomegaly" } },
	{ "There is Pleural Effusion", { "effusion" } },
	{ "There is Lung Infiltration", { "infiltrat" } },
	{ "There is Pulmonary Mass", { "mass" } },
	{ "There is Lung Nodule", { "nodule" } },
	{ "There is Pneumonia", { "pneumonia" } },
	{ "There is Pneumothorax", { "pneumothorax" } },
	{ "There is Pulmonary Edema", { "edema" } },
	{ "There is Pulmonary Emphysema", { "emphysema" } },
	{ "There is Pulmonary Fibrosis", { "fibrosis" } },
	{ "There is Pleural Thickening", { "pleural thickening" } },
	{ "There is Hernia", { "hernia" } },
	{ "There is Bone Fracture", { "fracture" } },
	{ "There is Lung Opacity", { "opacity" } },
	{ "There is Abnormal Lesion", { "lesion" } },
	{ "There is Calcified Granuloma", { "calcified granuloma" } },
	{ "There is Lung Granuloma", { "granuloma" } },
};

static const struct openi_rule *openi_rule(const char *prompt)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(openi_rules); i++)
		if (strcasecmp(openi_rules[i].prompt, prompt) == 0)
			return &openi_rules[i];
	return NULL;
}

static uint64_t hash_of(const char *text, size_t n)
{
	uint64_t h =
		14695981039346656037u; /* FNV-1a: the same patient, the same half, on every machine */
	size_t i;

	for (i = 0; i < n; i++)
		h = (h ^ (unsigned char)text[i]) * 1099511628211u;
	return h;
}

/* Makes room for one more row in every column. */
static int label_row(const struct lines *l, struct label_table *t, size_t *room)
{
	int r = more_rows(l, t->rows, room);
	size_t i;

	if (r <= 0)
		return r;
	t->patient = xreallocarray(t->patient, *room, sizeof(*t->patient));
	for (i = 0; i < t->n; i++)
		t->column[i] = xreallocarray(t->column[i], *room, 1);
	return 0;
}

static int read_label(const struct lines *l, size_t field, uint8_t *ret)
{
	const char *s = l->field[field];
	char shown[SHOWN_MAX];

	if (strcmp(s, "0") == 0 || strcmp(s, "0.0") == 0)
		*ret = 0;
	else if (strcmp(s, "1") == 0 || strcmp(s, "1.0") == 0)
		*ret = 1;
	else
		return err_set(l->e, -EBADMSG, "%s:%zu: column %zu is '%s', expected 0 or 1",
			       l->path, l->number, field + 1, str_quote(shown, sizeof(shown), s));
	return 0;
}

/* The first line is read already.  The patient is the file name up to '_'. */
static int read_nih(struct lines *l, const struct findings *f, struct label_table *t)
{
	size_t room = 0, i;
	int r;

	t->kind = "NIH";
	for (i = 0; i < f->n; i++)
		t->known[i] = true;
	do {
		const char *name;

		r = cut_blanks(l);
		if (r < 0)
			return r;
		if (l->n != f->n + 1)
			return err_set(l->e, -EBADMSG,
				       "%s:%zu: %zu labels, but the findings list has %zu; the "
				       "columns must be "
				       "in its order",
				       l->path, l->number, l->n > 0 ? l->n - 1 : 0, f->n);
		r = label_row(l, t, &room);
		if (r < 0)
			return r;
		for (i = 0; i < f->n; i++) {
			r = read_label(l, i + 1, &t->column[i][t->rows]);
			if (r < 0)
				return r;
		}
		name = strrchr(l->field[0], '/');
		name = name != NULL ? name + 1 : l->field[0];
		t->patient[t->rows++] = hash_of(name, strcspn(name, "_"));
	} while ((r = next_line(l)) > 0);
	return r;
}

static int read_openi(struct lines *l, const struct findings *f, struct label_table *t)
{
	size_t text = column_named(l, "labels_automatic"), uid = column_named(l, "uid"),
	       fields = l->n, room = 0, i;
	int r;

	t->kind = "Open-I";
	if (uid == l->n)
		return bad(l, "no column uid, which tells the patients apart");
	for (i = 0; i < f->n; i++)
		t->known[i] = openi_rule(f->finding[i].prompt) != NULL;
	while ((r = next_line(l)) > 0) {
		r = cut_csv(l);
		if (r < 0)
			return r;
		if (l->n != fields)
			return bad(l, "another number of columns than the header");
		r = label_row(l, t, &room);
		if (r < 0)
			return r;
		for (i = 0; i < f->n; i++) {
			const struct openi_rule *rule = openi_rule(f->finding[i].prompt);
			size_t k;

			t->column[i][t->rows] = 0;
			for (k = 0; rule != NULL && rule->terms[k] != NULL; k++)
				t->column[i][t->rows] |=
					strcasestr(l->field[text], rule->terms[k]) != NULL;
		}
		t->patient[t->rows++] = hash_of(l->field[uid], strlen(l->field[uid]));
	}
	return r;
}

static int read_plain(struct lines *l, const struct findings *f, struct label_table *t)
{
	size_t patient = column_named(l, "patient"), fields = l->n, field[FINDINGS_MAX], room = 0,
	       known = 0, i;
	int r;

	t->kind = "CSV";
	for (i = 0; i < f->n; i++) {
		field[i] = column_named(l, f->finding[i].id);
		t->known[i] = field[i] < fields;
		known += t->known[i];
	}
	if (known == 0)
		return bad(l, "no column of the header is the id of a finding");
	while ((r = next_line(l)) > 0) {
		const char *who;

		r = cut_csv(l);
		if (r < 0)
			return r;
		if (l->n != fields)
			return bad(l, "another number of columns than the header");
		r = label_row(l, t, &room);
		if (r < 0)
			return r;
		for (i = 0; i < f->n; i++) {
			t->column[i][t->rows] = 0;
			r = t->known[i] ? read_label(l, field[i], &t->column[i][t->rows]) : 0;
			if (r < 0)
				return r;
		}
		who = l->field[patient < fields ? patient : 0];
		t->patient[t->rows++] = hash_of(who, strlen(who));
	}
	return r;
}

static int read_labels(struct lines *l, const struct findings *f, struct label_table *t)
{
	int r = next_line(l);

	if (r <= 0)
		return r < 0 ? r : bad(l, "an empty file");
	t->n = f->n;
	if (strchr(l->text, ',') == NULL)
		return read_nih(l, f, t);
	r = cut_csv(l);
	if (r < 0)
		return r;
	return column_named(l, "labels_automatic") < l->n ? read_openi(l, f, t) : read_plain(l, f, t);
}

int labels_load(const char *path, const struct findings *f, struct label_table *ret, struct err *e)
{
	CLEANUP(free) struct lines *l = xcalloc(1, sizeof(*l));
	int r = lines_open(l, path, e);

	if (r < 0)
		return r;
	memset(ret, 0, sizeof(*ret));
	r = read_labels(l, f, ret);
	(void)fclose(l->f); /* was only read */
	if (r < 0)
		labels_free(ret);
	return r;
}

void labels_free(struct label_table *t)
{
	size_t i;

	for (i = 0; i < FINDINGS_MAX; i++)
		free(t->column[i]);
	free(t->patient);
	memset(t, 0, sizeof(*t));
}
