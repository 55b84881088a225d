/* notify_rules.c: see notify_rules.h.  What would be told in the clear stays on this machine. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

#include "daemon/notify_rules.h"

#define SHOWN_MAX 64

static const char *const event_names[] = { "urgent", "set-aside", "away", "refusing", "drift", NULL };

const char *notify_event_name(enum notify_event e)
{
	return event_names[e];
}

/* It names rows of the store and stands on command lines. */
static int read_name(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	const char *name = field;
	int r;

	r = yaml_read_text(n, k, field);
	if (r < 0)
		return r;
	if (name[0] == '\0' || name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-_")] != '\0')
		return yaml_error(n, -EBADMSG, "must be of a-z, 0-9, - and _");
	return 0;
}

static bool this_machine(const char *host, size_t n)
{
	static const char *const names[] = { "127.0.0.1", "localhost", "[::1]" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strlen(names[i]) == n && memcmp(host, names[i], n) == 0)
			return true;
	return false;
}

/* SCHEME://HOST[:PORT][/...]; no user, no password: they would stand in a file that people read. */
static bool parse_url(const char *url, bool *ret_mail, bool *ret_clear, bool *ret_here, uint16_t *ret_port)
{
	static const struct {
		const char *scheme;
		bool mail, clear;
		uint16_t port;
	} schemes[] = { { "https://", false, false, 443 }, { "http://", false, true, 80 }, { "smtp://", true, true, 25 } };
	const char *host, *end, *colon;
	uint64_t port;
	size_t i;
	char digits[8];

	for (i = 0; i < ARRAY_SIZE(schemes); i++)
		if (strncmp(url, schemes[i].scheme, strlen(schemes[i].scheme)) == 0)
			break;
	if (i == ARRAY_SIZE(schemes) || url[strspn(url, "!#$%&'()*+,-./0123456789:;=?@[]_~ABCDEFGHIJKLMNOPQRSTUVWXYZ"
							"abcdefghijklmnopqrstuvwxyz")] != '\0')
		return false;
	host = url + strlen(schemes[i].scheme);
	end = host + strcspn(host, "/?#");
	if (end == host || memchr(host, '@', (size_t)(end - host)) != NULL)
		return false;
	colon = memrchr(host, ':', (size_t)(end - host));
	if (colon != NULL && memchr(colon, ']', (size_t)(end - colon)) != NULL)
		colon = NULL; /* inside an IPv6 address */
	port = schemes[i].port;
	if (colon != NULL) {
		size_t n = (size_t)(end - colon - 1);

		if (n >= sizeof(digits))
			return false;
		memcpy(digits, colon + 1, n);
		digits[n] = '\0';
		if (!str_to_u64(digits, 1, UINT16_MAX, &port))
			return false;
	}
	*ret_mail = schemes[i].mail;
	*ret_clear = schemes[i].clear;
	*ret_here = this_machine(host, (size_t)((colon != NULL ? colon : end) - host));
	*ret_port = (uint16_t)port;
	return true;
}

static int read_events(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	unsigned *events = field;
	struct yaml_node *item;
	int r;

	r = yaml_want_list(n, k);
	if (r < 0)
		return r;
	*events = 0;
	for (item = n->first; item != NULL; item = item->next) {
		const struct yaml_key one = { .names = event_names, .size = sizeof(unsigned) };
		unsigned event = 0;

		r = yaml_read_name(item, &one, &event);
		if (r < 0)
			return r;
		*events |= 1u << event;
	}
	return 0;
}

static bool mail_address(const char *text)
{
	const char *at = strchr(text, '@');

	return at != NULL && at != text && at[1] != '\0' && strchr(at + 1, '@') == NULL &&
	       text[strspn(text, "!#$%&'*+-./=?^_`{|}~@0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")] == '\0';
}

static int read_mail(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	char shown[SHOWN_MAX];
	int r;

	r = yaml_read_text(n, k, field);
	if (r < 0)
		return r;
	if (!mail_address(field))
		return yaml_error(n, -EBADMSG, "'%s' is not a mail address", str_quote(shown, sizeof(shown), field));
	return 0;
}

static int read_to(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	static const struct yaml_key one = { .size = NOTIFY_MAIL_MAX };
	struct notify_rule *rule = field;
	struct yaml_node *item;
	int r;

	r = yaml_want_list(n, k);
	if (r < 0)
		return r;
	for (item = n->first, rule->n_to = 0; item != NULL; item = item->next) {
		r = read_mail(item, &one, rule->to[rule->n_to]);
		if (r < 0)
			return r;
		rule->n_to++;
	}
	return 0;
}

static int read_path(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	const char *text;
	int r;

	(void)k;
	r = yaml_want_text(n, &text);
	if (r < 0)
		return r;
	if (text[0] != '/')
		return yaml_error(n, -EBADMSG, "must be a path from / on");
	free(*(char **)field);
	*(char **)field = xstrdup(text);
	return 0;
}

static const struct yaml_key rule_keys[] = {
	YAML_KEY(struct notify_rule, name, read_name, .required = true),
	YAML_KEY(struct notify_rule, url, yaml_read_text, .required = true),
	YAML_KEY_AS("on", struct notify_rule, events, read_events, .min = 1, .max = NOTIFY_EVENTS, .required = true),
	YAML_KEY(struct notify_rule, secret, read_path),
	YAML_KEY(struct notify_rule, ca, read_path),
	YAML_KEY(struct notify_rule, study_uid, yaml_read_bool),
	YAML_KEY(struct notify_rule, from, read_mail),
	{ .name = "to", .read = read_to, .min = 1, .max = NOTIFY_TO_MAX },
};

static int check_rule(struct yaml_node *n, struct notify_rule *rule)
{
	const struct yaml_node *url = yaml_find(n, "url");
	bool mail, clear, here;

	if (!parse_url(rule->url, &mail, &clear, &here, &rule->port))
		return yaml_error(url, -EBADMSG,
				  "must be https://HOST[:PORT]/PATH, or on this machine http://127.0.0.1:PORT/PATH or "
				  "smtp://127.0.0.1, without a user");
	if (clear && !here)
		return yaml_error(url, -EBADMSG, "leaves this machine unprotected: write https://; for mail name the local server, "
						 "smtp://127.0.0.1");
	if (mail != (rule->n_to > 0) || mail != (rule->from[0] != '\0'))
		return yaml_error(n, -EBADMSG, mail ? "smtp:// needs `from` and `to`" : "`from` and `to` belong to smtp://");
	if (mail && (rule->secret != NULL || rule->ca != NULL))
		return yaml_error(n, -EBADMSG, "`secret` and `ca` belong to a webhook");
	return 0;
}

int notify_rules_read(struct yaml_node *n, const struct yaml_key *k, struct notify_rule *ret, size_t *ret_n)
{
	struct yaml_node *item;
	size_t i;
	int r;

	r = yaml_want_list(n, k);
	if (r < 0)
		return r;
	for (item = n->first; item != NULL; item = item->next) {
		struct notify_rule *rule = &ret[(*ret_n)++]; /* counted at once: released whatever happens */

		r = yaml_read_map(item, rule_keys, ARRAY_SIZE(rule_keys), rule);
		if (r == 0)
			r = check_rule(item, rule);
		if (r < 0)
			return r;
		for (i = 0; i + 1 < *ret_n; i++)
			if (strcmp(ret[i].name, rule->name) == 0)
				return yaml_error(yaml_find(item, "name"), -EBADMSG, "there is a hook '%s' already", rule->name);
	}
	return 0;
}

void notify_rules_release(struct notify_rule *rules, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++) {
		free(rules[i].secret);
		free(rules[i].ca);
	}
}
