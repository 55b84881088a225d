/* config.c: see config.h.
 *
 * Each mapping of carzerod.yaml is one table of struct yaml_key: the key, its place in the struct,
 * its reader, its bounds.  Defaults are set before reading; rules between keys (a route's peers,
 * settle against settle_max) are checked after it, and point at the line of the key that is wrong.
 *
 * A setting that would quietly do something else than it says is refused: an empty list that would
 * mean "everybody", a network with bits outside its mask, a route that nobody can serve.
 *
 * Never here: looking whether files, hosts or models exist.  The same text gives the same struct on
 * every machine, except `threads`, whose default is the machine's.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/fdio.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

#include "daemon/config.h"
#include "daemon/yaml.h"

#define DEMONSTRATION PKGDATADIR "/demo" /* the model of a node that names none */
#define CONFIG_EVENTS_MAX 10000
#define SHOWN_MAX 64
#define KIB 1024ULL
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

static const char any[] = "*", sender[] = "sender";

static const char *const recipe_names[] = { "window", "mimic", NULL };
static const char *const precision_names[] = { "f32", "bf16", "int8", NULL };
static const char *const regions_names[] = { "none", "image", NULL };
static const char *const gate_names[] = { "tags", "off", NULL };
static const char *const other_storage_names[] = { "aside", "refuse", NULL };
static const char *const commitment_names[] = { "none", "same", "new", NULL };
static const char *const sr_class_names[] = { "enhanced", "comprehensive", "comprehensive-3d", NULL };
static const char *const object_names[] = { "sr", "sc", "gsps", "pdf", NULL };

const char *recipe_name(enum recipe r)
{
	return recipe_names[r];
}

const char *precision_name(enum precision p)
{
	return precision_names[p];
}

const char *sr_class_name(enum sr_class c)
{
	return sr_class_names[c];
}

const char *object_name(enum result_object o)
{
	return object_names[o];
}

const char *object_class_uid(enum result_object o)
{
	static const char *const uid[OBJECT_COUNT] = {
		[OBJECT_SC] = "1.2.840.10008.5.1.4.1.1.7",
		[OBJECT_GSPS] = "1.2.840.10008.5.1.4.1.1.11.1",
		[OBJECT_PDF] = "1.2.840.10008.5.1.4.1.1.104.1",
	};

	return uid[o];
}

const char *sr_class_uid(enum sr_class c)
{
	static const char *const uid[SR_CLASS_COUNT] = {
		[SR_ENHANCED] = "1.2.840.10008.5.1.4.1.1.88.22",
		[SR_COMPREHENSIVE] = "1.2.840.10008.5.1.4.1.1.88.33",
		[SR_COMPREHENSIVE_3D] = "1.2.840.10008.5.1.4.1.1.88.34",
	};

	return uid[c];
}

/* ---- readers of one value ---- */

static int read_ae_or_word(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	char shown[SHOWN_MAX];
	const char *text;
	int r;

	r = yaml_want_text(n, &text);
	if (r < 0)
		return r;
	str_quote(shown, sizeof(shown), text);
	if (strlen(text) >= AE_TITLE_MAX)
		return yaml_error(n, -EBADMSG, "'%s' is longer than the 16 characters of an AE title", shown);
	if (!ae_title_valid(text))
		return yaml_error(n, -EBADMSG,
				  "'%s' is not an AE title: 1 to 16 ASCII characters, no backslash", shown);
	if (text[0] == ' ' || text[strlen(text) - 1] == ' ')
		return yaml_error(n, -EBADMSG,
				  "'%s' begins or ends with a space, which no AE title can keep", shown);
	(void)str_copy(field, k->size, text);
	return 0;
}

static int read_ae(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	int r;

	r = read_ae_or_word(n, k, field);
	if (r < 0)
		return r;
	if (strcmp(field, any) == 0 || strcmp(field, sender) == 0)
		return yaml_error(n, -EBADMSG,
				  "'%s' cannot be an AE title here: it has its own meaning in routes",
				  (const char *)field);
	return 0;
}

/* A path as it stands; resolve_path() does the rest once the folder is known. */
static int read_path_text(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	const char *text;
	int r;

	(void)k;
	r = yaml_want_text(n, &text);
	if (r < 0)
		return r;
	if (text[0] == '\0')
		return yaml_error(n, -EBADMSG, "is empty");
	free(*(char **)field);
	*(char **)field = xstrdup(text);
	return 0;
}

/* A DICOM LO or SH: no backslash, which separates values there. */
static int read_dicom_text(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	int r;

	r = yaml_read_text(n, k, field);
	if (r < 0)
		return r;
	if (strchr(field, '\\') != NULL)
		return yaml_error(n, -EBADMSG,
				  "contains a backslash, which DICOM does not allow in this text");
	return 0;
}

static int read_dicom_text_required(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	const char *text = field;
	int r;

	r = read_dicom_text(n, k, field);
	if (r < 0)
		return r;
	if (text[strspn(text, " ")] == '\0')
		return yaml_error(n, -EBADMSG, "is empty");
	return 0;
}

static int read_log_level(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	char shown[SHOWN_MAX];
	const char *text;
	int r;

	(void)k;
	r = yaml_want_text(n, &text);
	if (r < 0)
		return r;
	if (!log_level_from_name(text, field))
		return yaml_error(n, -EBADMSG, "must be error, warning, info or debug, not '%s'",
				  str_quote(shown, sizeof(shown), text));
	return 0;
}

static int read_host(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	struct in6_addr address;
	char shown[SHOWN_MAX];
	const char *text, *p;
	int r;

	r = yaml_want_text(n, &text);
	if (r < 0)
		return r;
	str_quote(shown, sizeof(shown), text);
	if (text[0] == '[')
		return yaml_error(n, -EBADMSG, "'%s': write an IPv6 address without brackets here", shown);
	for (p = text; isalnum((unsigned char)*p) || (*p != '\0' && strchr(".-_:", *p) != NULL); p++)
		;
	if (text[0] == '\0' || *p != '\0' ||
	    (strchr(text, ':') != NULL && inet_pton(AF_INET6, text, &address) != 1))
		return yaml_error(n, -EBADMSG, "'%s' is not a host name or an address", shown);
	if (!str_copy(field, k->size, text))
		return yaml_error(n, -EBADMSG, "is longer than %zu bytes", k->size - 1);
	return 0;
}

/* ---- listen ---- */

static bool parse_listen(const char *text, struct listen_address *ret)
{
	const char *colon = strrchr(text, ':');
	struct in6_addr v6;
	struct in_addr v4;
	char host[sizeof(ret->host) + 2];
	uint64_t port;
	size_t n;

	if (colon == NULL || !str_to_u64(colon + 1, 1, UINT16_MAX, &port))
		return false;
	n = (size_t)(colon - text);
	if (n >= sizeof(host))
		return false;
	memcpy(host, text, n);
	host[n] = '\0';
	ret->port = (uint16_t)port;
	if (n == 0) {
		ret->host[0] = '\0';
		return true;
	}
	if (n > 2 && host[0] == '[' && host[n - 1] == ']') {
		host[n - 1] = '\0';
		return inet_pton(AF_INET6, host + 1, &v6) == 1 &&
		       str_copy(ret->host, sizeof(ret->host), host + 1);
	}
	return inet_pton(AF_INET, host, &v4) == 1 && str_copy(ret->host, sizeof(ret->host), host);
}

static int read_addresses(struct yaml_node *n, const struct yaml_key *k, struct listen_address *list, size_t *ret_n)
{
	struct yaml_node *item;
	int r;

	r = yaml_want_list(n, k);
	if (r < 0)
		return r;
	for (item = n->first, *ret_n = 0; item != NULL; item = item->next) {
		struct listen_address *a = &list[*ret_n];
		char shown[SHOWN_MAX];
		const char *text;
		size_t i;

		r = yaml_want_text(item, &text);
		if (r < 0)
			return r;
		str_quote(shown, sizeof(shown), text);
		if (!parse_listen(text, a))
			return yaml_error(item, -EBADMSG,
					  "'%s' is not ADDRESS:PORT: write 192.0.2.1:104, [::1]:104, "
					  "or :104 for every address",
					  shown);
		for (i = 0; i < *ret_n; i++)
			if (list[i].port == a->port && strcmp(list[i].host, a->host) == 0)
				return yaml_error(item, -EBADMSG, "'%s' stands in the list twice", shown);
		++*ret_n;
	}
	return 0;
}

static int read_listen(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	struct config *c = field;

	return read_addresses(n, k, c->listen, &c->n_listen);
}

/* ---- tls ---- */

static int read_tls_listen(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	struct tls_config *t = field;

	return read_addresses(n, k, t->listen, &t->n_listen);
}

static const struct yaml_key tls_keys[] = {
	{ .name = "listen", .read = read_tls_listen, .max = CONFIG_LISTEN_MAX },
	YAML_KEY(struct tls_config, certificate, read_path_text, .required = true),
	YAML_KEY(struct tls_config, key, read_path_text, .required = true),
	YAML_KEY(struct tls_config, ca, read_path_text, .required = true),
	YAML_KEY(struct tls_config, crl, read_path_text),
};

static int read_tls(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	struct tls_config *t = &((struct config *)field)->tls;

	(void)k;
	t->on = true;
	return yaml_read_map(n, tls_keys, ARRAY_SIZE(tls_keys), t);
}

/* A name in a certificate. */
static int read_certificate_name(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	int r;

	r = yaml_read_text(n, k, field);
	if (r < 0)
		return r;
	if (((const char *)field)[0] == '\0')
		return yaml_error(n, -EBADMSG, "is empty");
	return 0;
}

/* ---- metrics ---- */

/* Its reader is a scraper on this machine; a network that may see it goes through a proxy that asks who it is. */
static bool is_loopback(const char *host)
{
	struct in6_addr v6;
	struct in_addr v4;

	if (inet_pton(AF_INET, host, &v4) == 1)
		return ntohl(v4.s_addr) >> 24 == 127;
	return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

static int read_metrics(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	struct config *c = field;
	char shown[SHOWN_MAX];
	const char *text;
	int r;

	(void)k;
	r = yaml_want_text(n, &text);
	if (r < 0)
		return r;
	str_quote(shown, sizeof(shown), text);
	c->metrics.wanted = true;
	if (text[0] == '/') {
		c->metrics.path = xstrdup(text);
		return 0;
	}
	if (!parse_listen(text, &c->metrics.at) || !is_loopback(c->metrics.at.host))
		return yaml_error(n, -EBADMSG,
				  "'%s' is not a loopback address with a port, nor the path of a socket: write "
				  "127.0.0.1:9464, [::1]:9464 or /run/carzerod/metrics",
				  shown);
	return 0;
}

/* ---- audit ---- */

static const struct yaml_key audit_keys[] = {
	YAML_KEY_AS("journal", struct config, audit.journal, yaml_read_bool),
	YAML_KEY_AS("host", struct config, audit.host, yaml_read_text),
	YAML_KEY_AS("port", struct config, audit.port, yaml_read_u16, .min = 1, .max = UINT16_MAX),
};

static int read_audit(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	struct config *c = field;

	(void)k;
	c->audit.journal = true;
	return yaml_read_map(n, audit_keys, ARRAY_SIZE(audit_keys), field);
}

/* ---- notify ---- */

static int read_notify(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	struct config *c = field;

	return notify_rules_read(n, k, c->notify, &c->n_notify);
}

/* ---- access ---- */

/* ret_outside: the address had bits outside its mask, a slip that would allow another network. */
static bool parse_network(const char *text, struct network *ret, bool *ret_outside)
{
	const char *slash = strchr(text, '/');
	char address[INET6_ADDRSTRLEN];
	size_t n = slash != NULL ? (size_t)(slash - text) : strlen(text);
	uint64_t bits = 128;
	struct in_addr v4;
	unsigned i;

	if (n >= sizeof(address))
		return false;
	memcpy(address, text, n);
	address[n] = '\0';
	if (inet_pton(AF_INET, address, &v4) == 1) {
		memset(&ret->address, 0, sizeof(ret->address));
		ret->address.s6_addr[10] = ret->address.s6_addr[11] = 0xff;
		memcpy(&ret->address.s6_addr[12], &v4, sizeof(v4));
		if (slash != NULL && !str_to_u64(slash + 1, 0, 32, &bits))
			return false;
		if (slash != NULL)
			bits += 96;
	} else if (inet_pton(AF_INET6, address, &ret->address) == 1) {
		if (slash != NULL && !str_to_u64(slash + 1, 0, 128, &bits))
			return false;
	} else {
		return false;
	}
	ret->bits = (unsigned)bits;
	*ret_outside = false;
	for (i = ret->bits; i < 128; i++)
		if (ret->address.s6_addr[i / 8] & (0x80 >> i % 8))
			*ret_outside = true;
	return true;
}

static int read_networks(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	struct access_rule *rule = field;
	struct yaml_node *item;
	int r;

	if (n->kind == YAML_LIST && n->n == 0)
		return yaml_error(n, -EBADMSG, "the list is empty; leave the key out to allow every address");
	r = yaml_want_list(n, k);
	if (r < 0)
		return r;
	for (item = n->first; item != NULL; item = item->next) {
		char shown[SHOWN_MAX];
		const char *text;
		bool outside;

		r = yaml_want_text(item, &text);
		if (r < 0)
			return r;
		str_quote(shown, sizeof(shown), text);
		if (!parse_network(text, &rule->from[rule->n_from], &outside))
			return yaml_error(item, -EBADMSG,
					  "'%s' is not an address or a network: write 192.0.2.7 or "
					  "10.20.0.0/16 or 2001:db8::/32",
					  shown);
		if (outside)
			return yaml_error(item, -EBADMSG,
					  "'%s' has bits outside its mask: is the address or the "
					  "number after / wrong?",
					  shown);
		rule->n_from++;
	}
	return 0;
}

static const struct yaml_key access_keys[] = {
	YAML_KEY(struct access_rule, calling_ae, read_ae_or_word, .required = true),
	YAML_KEY(struct access_rule, certificate, read_certificate_name),
	{ .name = "from", .read = read_networks, .min = 1, .max = CONFIG_NETWORKS_MAX },
};

static int read_access(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	struct config *c = field;
	struct yaml_node *item;
	int r;

	if (n->kind == YAML_LIST && n->n == 0)
		return yaml_error(n, -EBADMSG, "the list is empty; leave the key out to accept every sender");
	r = yaml_want_list(n, k);
	if (r < 0)
		return r;
	for (item = n->first; item != NULL; item = item->next) {
		r = yaml_read_map(item, access_keys, ARRAY_SIZE(access_keys), &c->access[c->n_access]);
		if (r < 0)
			return r;
		c->n_access++;
	}
	return 0;
}

/* ---- peers and routes ---- */

static int read_sr_classes(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	struct peer *p = field;
	struct yaml_node *item;
	int r;

	r = yaml_want_list(n, k);
	if (r < 0)
		return r;
	for (item = n->first, p->n_sr_classes = 0; item != NULL; item = item->next) {
		enum sr_class *class = &p->sr_classes[p->n_sr_classes];
		size_t i;

		r = yaml_read_name(item, k, class);
		if (r < 0)
			return r;
		for (i = 0; i < p->n_sr_classes; i++)
			if (p->sr_classes[i] == *class)
				return yaml_error(item, -EBADMSG, "'%s' stands in the list twice",
						  sr_class_name(*class));
		p->n_sr_classes++;
	}
	return 0;
}

static int read_objects(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	struct peer *p = field;
	struct yaml_node *item;
	int r;

	r = yaml_want_list(n, k);
	if (r < 0)
		return r;
	memset(p->objects, 0, sizeof(p->objects));
	for (item = n->first; item != NULL; item = item->next) {
		enum result_object object;

		r = yaml_read_name(item, k, &object);
		if (r < 0)
			return r;
		if (p->objects[object])
			return yaml_error(item, -EBADMSG, "'%s' stands in the list twice", object_name(object));
		p->objects[object] = true;
	}
	return 0;
}

static const struct yaml_key peer_keys[] = {
	YAML_KEY(struct peer, ae_title, read_ae, .required = true),
	YAML_KEY(struct peer, host, read_host, .required = true),
	YAML_KEY(struct peer, port, yaml_read_u16, .min = 1, .max = UINT16_MAX, .required = true),
	YAML_KEY(struct peer, tls, yaml_read_bool),
	YAML_KEY(struct peer, certificate, read_certificate_name),
	YAML_KEY(struct peer, commitment, yaml_read_name, .names = commitment_names),
	YAML_KEY(struct peer, shadow, yaml_read_bool),
	{ .name = "sr_classes", .read = read_sr_classes, .min = 1, .max = SR_CLASS_COUNT,
	  .names = sr_class_names },
	{ .name = "objects", .read = read_objects, .min = 1, .max = OBJECT_COUNT, .names = object_names },
};

static int read_peers(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	static const struct peer defaults = {
		.sr_classes = { SR_COMPREHENSIVE, SR_ENHANCED, SR_COMPREHENSIVE_3D },
		.n_sr_classes = SR_CLASS_COUNT,
		.objects = { [OBJECT_SR] = true, [OBJECT_SC] = true },
	};
	struct config *c = field;
	struct yaml_node *item;
	int r;

	r = yaml_want_list(n, k);
	if (r < 0)
		return r;
	for (item = n->first; item != NULL; item = item->next) {
		struct peer *p = &c->peers[c->n_peers];

		*p = defaults;
		r = yaml_read_map(item, peer_keys, ARRAY_SIZE(peer_keys), p);
		if (r < 0)
			return r;
		if (config_peer(c, p->ae_title) != NULL)
			return yaml_error(yaml_find(item, "ae_title"), -EBADMSG,
					  "there is a peer '%s' already", p->ae_title);
		c->n_peers++;
	}
	return 0;
}

static int read_destinations(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	static const struct yaml_key destination = { .size = AE_TITLE_MAX };
	struct route *route = field;
	struct yaml_node *item;
	int r;

	r = yaml_want_list(n, k);
	if (r < 0)
		return r;
	for (item = n->first; item != NULL; item = item->next) {
		char *to = route->to[route->n_to];
		size_t i;

		r = read_ae_or_word(item, &destination, to);
		if (r < 0)
			return r;
		if (strcmp(to, any) == 0)
			return yaml_error(item, -EBADMSG,
					  "'*' cannot be a destination: name peers, or 'sender'");
		for (i = 0; i < route->n_to; i++)
			if (strcmp(route->to[i], to) == 0)
				return yaml_error(item, -EBADMSG, "'%s' stands in the list twice", to);
		route->n_to++;
	}
	return 0;
}

static const struct yaml_key route_keys[] = {
	YAML_KEY(struct route, from, read_ae_or_word, .required = true),
	{ .name = "to", .read = read_destinations, .min = 1, .max = CONFIG_ROUTE_TO_MAX, .required = true },
};

static int read_routes(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	struct config *c = field;
	struct yaml_node *item;
	int r;

	r = yaml_want_list(n, k);
	if (r < 0)
		return r;
	for (item = n->first; item != NULL; item = item->next) {
		struct route *route = &c->routes[c->n_routes];
		size_t i;

		r = yaml_read_map(item, route_keys, ARRAY_SIZE(route_keys), route);
		if (r < 0)
			return r;
		for (i = 0; i < c->n_routes; i++)
			if (strcmp(c->routes[i].from, route->from) == 0)
				return yaml_error(yaml_find(item, "from"), -EBADMSG,
						  "there is a route from '%s' already: put all its "
						  "destinations in one list", route->from);
		c->n_routes++;
	}
	return 0;
}

/* ---- limits, report, storage ---- */

#define LIMIT(field, reader, low, high) YAML_KEY(struct limits, field, reader, .min = low, .max = high)

static const struct yaml_key limits_keys[] = {
	LIMIT(associations, yaml_read_u32, 1, CONFIG_ASSOCIATIONS_MAX),
	LIMIT(associations_per_host, yaml_read_u32, 1, 1024),
	LIMIT(pdu_bytes, yaml_read_size, 4 * KIB, 128 * KIB), /* DCMTK's bounds */
	LIMIT(object_bytes, yaml_read_size, 64 * KIB, 4 * GIB),
	LIMIT(association_objects, yaml_read_u32, 1, 1000000),
	YAML_KEY_AS("request_seconds", struct limits, arttim_seconds, yaml_read_u32, .min = 1, .max = 300),
	LIMIT(idle_seconds, yaml_read_u32, 1, 3600),
	LIMIT(association_seconds, yaml_read_u32, 10, 86400),
	LIMIT(image_side, yaml_read_u32, 64, 32768), /* what preprocessing takes */
	LIMIT(image_pixels, yaml_read_u64, 4096, 1000000000),
	LIMIT(image_seconds, yaml_read_u32, 1, 3600),
	LIMIT(image_memory, yaml_read_size, 256 * MIB, 64 * GIB),
	LIMIT(infer_seconds, yaml_read_u32, 1, 3600),
	LIMIT(attempts, yaml_read_u32, 1, 10),
	LIMIT(queue, yaml_read_u64, 1, 10000000),
};

static const struct limits limits_defaults = {
	.associations = 64,
	.associations_per_host = 16,
	.pdu_bytes = 128 * KIB,
	.object_bytes = 256 * MIB,
	.association_objects = 5000,
	.arttim_seconds = 10,
	.idle_seconds = 60,
	.association_seconds = 3600,
	.image_side = 16384,
	.image_pixels = 100000000,
	.image_seconds = 60,
	.image_memory = 1536 * MIB,
	.infer_seconds = 120,
	.attempts = 3,
	.queue = 20000,
};

static int read_limits(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	struct limits *l = &((struct config *)field)->limits;
	struct yaml_node *at;
	int r;

	(void)k;
	r = yaml_read_map(n, limits_keys, ARRAY_SIZE(limits_keys), l);
	if (r < 0)
		return r;
	if (l->associations_per_host > l->associations) {
		at = yaml_find(n, "associations_per_host");
		if (at != NULL)
			return yaml_error(at, -EBADMSG, "%u is more than associations (%u)",
					  l->associations_per_host, l->associations);
		l->associations_per_host = l->associations; /* only its default was too high */
	}
	return 0;
}

/* ---- the slow lane ---- */

static const struct yaml_key slow_lane_keys[] = {
	YAML_KEY_AS("older_than_days", struct config, slow_older_days, yaml_read_u32, .min = 0, .max = 36500),
	YAML_KEY_AS("images_per_hour", struct config, slow_images_per_hour, yaml_read_u32, .min = 0, .max = 10000000),
};

static int read_slow_lane(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	(void)k;
	return yaml_read_map(n, slow_lane_keys, ARRAY_SIZE(slow_lane_keys), field);
}

/* ---- storage ---- */

/* 45s, 24h, 90d */
static int read_age(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	static const struct {
		char unit;
		int64_t ms;
	} units[] = { { 's', 1000 }, { 'h', 3600 * 1000 }, { 'd', 24ll * 3600 * 1000 } };
	char shown[SHOWN_MAX], number[16];
	const char *text;
	size_t length, i;
	uint64_t v;
	int r;

	r = yaml_want_text(n, &text);
	if (r < 0)
		return r;
	length = strlen(text);
	for (i = 0; i < ARRAY_SIZE(units) && length > 1 && length < sizeof(number); i++) {
		if (text[length - 1] != units[i].unit)
			continue;
		memcpy(number, text, length - 1);
		number[length - 1] = '\0';
		if (!str_to_u64(number, 0, k->max / (uint64_t)units[i].ms, &v))
			break;
		*(int64_t *)field = (int64_t)v * units[i].ms;
		return 0;
	}
	return yaml_error(n, -EBADMSG, "must be an age up to 3650d, such as 45s, 24h or 90d, not '%s'",
			  str_quote(shown, sizeof(shown), text));
}

#define AGE_MAX (3650ull * 24 * 3600 * 1000)

static const struct yaml_key retention_keys[] = {
	YAML_KEY_AS("images", struct config, retention_images_ms, read_age, .max = AGE_MAX),
	YAML_KEY_AS("failed", struct config, retention_failed_ms, read_age, .max = AGE_MAX),
	YAML_KEY_AS("reports", struct config, retention_reports_ms, read_age, .max = AGE_MAX),
};

static int read_retention(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	const struct config *c = field;
	int r;

	(void)k;
	r = yaml_read_map(n, retention_keys, ARRAY_SIZE(retention_keys), field);
	if (r < 0)
		return r;
	if (c->retention_images_ms > c->retention_reports_ms || c->retention_failed_ms > c->retention_reports_ms)
		return yaml_error(n, -EBADMSG, "reports go together with what they speak of: images and failed must not "
					       "be longer than reports");
	return 0;
}

static const struct yaml_key storage_keys[] = {
	YAML_KEY_AS("min_free", struct config, min_free_bytes, yaml_read_size, .min = 0, .max = 1024 * GIB),
	YAML_KEY_AS("ballast", struct config, ballast_bytes, yaml_read_size, .min = 0, .max = 64 * GIB),
	YAML_KEY_AS("unsafe", struct config, unsafe_storage, yaml_read_bool),
	YAML_KEY_AS("keep_embeddings", struct config, keep_embeddings, yaml_read_bool),
	{ .name = "retention", .read = read_retention },
};

static int read_storage(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	(void)k;
	return yaml_read_map(n, storage_keys, ARRAY_SIZE(storage_keys), field);
}

#define REPORT(field, reader, ...) YAML_KEY(struct config, field, reader, __VA_ARGS__)

static const struct yaml_key report_keys[] = {
	REPORT(manufacturer, read_dicom_text_required),
	REPORT(institution, read_dicom_text),
	REPORT(station, read_dicom_text_required),
	REPORT(series_description, read_dicom_text_required),
	REPORT(series_number, yaml_read_u32, .min = 1, .max = INT32_MAX), /* IS */
	YAML_KEY_AS("regions", struct config, report_regions, yaml_read_name, .names = regions_names),
};

static int read_report(struct yaml_node *n, const struct yaml_key *k, void *field)
{
	(void)k;
	return yaml_read_map(n, report_keys, ARRAY_SIZE(report_keys), field);
}

/* ---- the whole file ---- */

#define TOP(field, reader, ...) YAML_KEY(struct config, field, reader, __VA_ARGS__)

static const struct yaml_key config_keys[] = {
	TOP(ae_title, read_ae, .required = true),
	{ .name = "listen", .read = read_listen, .max = CONFIG_LISTEN_MAX },
	{ .name = "tls", .read = read_tls },
	TOP(state_dir, read_path_text),
	TOP(model, read_path_text),
	TOP(findings, read_path_text),
	TOP(recipe, yaml_read_name, .names = recipe_names),
	TOP(precision, yaml_read_name, .names = precision_names),
	TOP(threads, yaml_read_u32, .min = 1, .max = 256),
	TOP(workers, yaml_read_u32, .min = 1, .max = CONFIG_WORKERS_MAX),
	{ .name = "peers", .read = read_peers, .max = CONFIG_PEERS_MAX },
	{ .name = "routes", .read = read_routes, .max = CONFIG_ROUTES_MAX },
	YAML_KEY_AS("settle", struct config, settle_ms, yaml_read_seconds, .min = 0, .max = 3600000),
	YAML_KEY_AS("settle_max", struct config, settle_max_ms, yaml_read_seconds, .min = 0, .max = 86400000),
	TOP(gate, yaml_read_name, .names = gate_names),
	TOP(min_age, yaml_read_u32, .min = 0, .max = 120),
	TOP(allow_out_of_domain, yaml_read_bool),
	TOP(other_storage, yaml_read_name, .names = other_storage_names),
	{ .name = "slow_lane", .read = read_slow_lane },
	{ .name = "access", .read = read_access, .min = 1, .max = CONFIG_ACCESS_MAX },
	{ .name = "limits", .read = read_limits },
	{ .name = "report", .read = read_report },
	{ .name = "metrics", .read = read_metrics },
	{ .name = "storage", .read = read_storage },
	{ .name = "audit", .read = read_audit },
	{ .name = "notify", .read = read_notify, .max = NOTIFY_MAX },
	TOP(log_level, read_log_level),
};

static struct config *config_new(void)
{
	struct config *c = xcalloc(1, sizeof(*c));

	c->listen[0].port = 11112; /* IANA's "dicom"; 104 needs a privilege or the socket unit */
	c->n_listen = 1;
	c->state_dir = xstrdup("/var/lib/carzerod");
	c->workers = 1;
	c->settle_ms = 2000;
	c->settle_max_ms = 30000;
	c->min_age = 18;
	c->slow_older_days = 30;
	c->slow_images_per_hour = 1000;
	c->limits = limits_defaults;
	c->min_free_bytes = 1 * GIB;
	c->ballast_bytes = 256 * MIB;
	c->retention_images_ms = 24ll * 3600 * 1000;
	c->retention_failed_ms = 30 * 24ll * 3600 * 1000;
	c->retention_reports_ms = 90 * 24ll * 3600 * 1000;
	(void)str_copy(c->manufacturer, sizeof(c->manufacturer), "carzerod");
	(void)str_copy(c->series_description, sizeof(c->series_description), "AI CXR results (unverified)");
	c->series_number = 9001;
	c->log_level = LOG_LEVEL_INFO;
	c->audit.port = 6514; /* IANA's "syslog-tls" */
	return c;
}

void config_free(struct config *c)
{
	if (c == NULL)
		return;
	free(c->state_dir);
	free(c->model);
	free(c->findings);
	free(c->tls.certificate);
	free(c->tls.key);
	free(c->tls.ca);
	free(c->tls.crl);
	free(c->metrics.path);
	notify_rules_release(c->notify, c->n_notify);
	free(c);
}

static void cleanup_config_free(struct config **c)
{
	config_free(*c);
}

static void resolve_path(char **path, const char *folder)
{
	char *joined;

	if (*path == NULL || (*path)[0] == '/' || strncmp(*path, CONFIG_CREDENTIAL, strlen(CONFIG_CREDENTIAL)) == 0 ||
	    folder == NULL || folder[0] == '\0')
		return;
	if (asprintf(&joined, "%s/%s", folder, *path) < 0)
		abort(); /* as xcalloc: no memory for a path */
	free(*path);
	*path = joined;
}

static int check_destination(const struct config *c, const struct yaml_node *item, const char *to)
{
	char known[256] = "";
	size_t i, n = 0;

	if (strcmp(to, sender) == 0 || config_peer(c, to) != NULL)
		return 0;
	if (c->n_peers == 0)
		return yaml_error(item, -EBADMSG, "no peer is called '%s': `peers` is empty", to);
	for (i = 0; i < c->n_peers && n < sizeof(known); i++)
		n += (size_t)snprintf(known + n, sizeof(known) - n, "%s%s", i > 0 ? ", " : "",
				      c->peers[i].ae_title);
	return yaml_error(item, -EBADMSG, "no peer is called '%s'; `peers` has %s", to, known);
}

/* Without either, the demonstration model and its list; a list belongs to a model, so one alone is a mistake. */
static int check_model(struct config *c, const struct yaml_node *root)
{
	if ((c->model == NULL) != (c->findings == NULL))
		return yaml_error(root, -EBADMSG, "key '%s' is missing", c->model == NULL ? "model" : "findings");
	if (c->model == NULL) {
		c->model = xstrdup(DEMONSTRATION);
		c->findings = xstrdup(DEMONSTRATION "/findings.yaml");
	}
	return 0;
}

static int check_routes(const struct config *c, const struct yaml_node *root)
{
	const struct yaml_node *routes = yaml_find(root, "routes"), *route, *item;
	size_t i, j;
	int r;

	if (routes == NULL)
		return 0;
	for (i = 0, route = routes->first; i < c->n_routes; i++, route = route->next)
		for (j = 0, item = yaml_find(route, "to")->first; j < c->routes[i].n_to;
		     j++, item = item->next) {
			r = check_destination(c, item, c->routes[i].to[j]);
			if (r < 0)
				return r;
		}
	return 0;
}

static int check_settle(const struct config *c, const struct yaml_node *root)
{
	const struct yaml_node *at = yaml_find(root, "settle_max");

	if (c->settle_ms <= c->settle_max_ms)
		return 0;
	if (at == NULL)
		at = yaml_find(root, "settle"); /* one of the two was set: the defaults agree */
	return yaml_error(at, -EBADMSG, "settle (%g s) is longer than settle_max (%g s)",
			  (double)c->settle_ms / 1000, (double)c->settle_max_ms / 1000);
}

/* What asks for TLS where there is none would be sent in the clear, or accepted from nobody. */
static int check_tls(const struct config *c, const struct yaml_node *root)
{
	static const char wants[] = "wants the key `tls` with certificate, key and ca";
	const struct yaml_node *item;
	size_t i;

	if (c->n_listen == 0 && (!c->tls.on || c->tls.n_listen == 0))
		return yaml_error(yaml_find(root, "listen"), -EBADMSG,
				  "the list is empty, and so is listen of `tls`: nobody could send");
	item = yaml_find(root, "peers");
	for (i = 0, item = item != NULL ? item->first : NULL; i < c->n_peers; i++, item = item->next) {
		if (c->peers[i].tls && !c->tls.on)
			return yaml_error(yaml_find(item, "tls"), -EBADMSG, "%s", wants);
		if (c->peers[i].certificate[0] != '\0' && !c->peers[i].tls)
			return yaml_error(yaml_find(item, "certificate"), -EBADMSG, "has no use without `tls: true`");
	}
	if (c->audit.host[0] != '\0' && !c->tls.on)
		return yaml_error(yaml_find(yaml_find(root, "audit"), "host"), -EBADMSG, "%s", wants);
	item = yaml_find(root, "access");
	for (i = 0, item = item != NULL ? item->first : NULL; i < c->n_access; i++, item = item->next)
		if (c->access[i].certificate[0] != '\0' && !c->tls.on)
			return yaml_error(yaml_find(item, "certificate"), -EBADMSG, "%s", wants);
	return 0;
}

static int check_audit(const struct config *c, const struct yaml_node *root)
{
	if (c->audit.journal && c->log_level < LOG_LEVEL_INFO)
		return yaml_error(yaml_find(root, "log_level"), -EBADMSG, "audit.journal writes at level info: it would be lost");
	return 0;
}

/* Cores that we may run on, shared among the workers. */
static unsigned default_threads(unsigned workers)
{
	cpu_set_t set;
	unsigned cores = 1;

	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		cores = (unsigned)CPU_COUNT(&set);
	return cores > workers ? cores / workers : 1;
}

int config_parse(const char *where, const char *folder, const void *text, size_t n_text,
		 struct config **ret, struct err *e)
{
	CLEANUP(config_free) struct config *c = NULL;
	CLEANUP(yaml_close) struct yaml *y = NULL;
	const struct yaml_node *root;
	int r;

	r = yaml_open(where, text, n_text, CONFIG_BYTES_MAX, CONFIG_EVENTS_MAX, e, &y);
	if (r < 0)
		return r;
	root = yaml_root(y);
	c = config_new();
	r = yaml_read_map(yaml_root(y), config_keys, ARRAY_SIZE(config_keys), c);
	if (r < 0)
		return r;
	r = check_model(c, root);
	if (r < 0)
		return r;
	r = check_routes(c, root);
	if (r < 0)
		return r;
	r = check_settle(c, root);
	if (r < 0)
		return r;
	r = check_tls(c, root);
	if (r < 0)
		return r;
	r = check_audit(c, root);
	if (r < 0)
		return r;
	if (c->threads == 0)
		c->threads = default_threads(c->workers);
	if (c->station[0] == '\0')
		(void)str_copy(c->station, sizeof(c->station), c->ae_title);
	resolve_path(&c->state_dir, folder);
	resolve_path(&c->model, folder);
	resolve_path(&c->findings, folder);
	resolve_path(&c->tls.certificate, folder);
	resolve_path(&c->tls.key, folder);
	resolve_path(&c->tls.ca, folder);
	resolve_path(&c->tls.crl, folder);
	*ret = TAKE(c);
	return 0;
}

/* The text of `from`, as if it stood in `path`. */
static int load_from(const char *from, const char *path, struct config **ret, struct err *e)
{
	CLEANUP(free) void *text = NULL;
	CLEANUP(free) char *folder = NULL;
	const char *slash = strrchr(path, '/');
	size_t n_text;
	int r;

	r = read_path(from, CONFIG_BYTES_MAX, &text, &n_text, e);
	if (r < 0)
		return r;
	folder = xstrdup(path);
	folder[slash == NULL ? 0 : slash == path ? 1 : slash - path] = '\0'; /* "/" stays */
	return config_parse(path, folder, text, n_text, ret, e);
}

int config_load(const char *path, struct config **ret, struct err *e)
{
	return load_from(path, path, ret, e);
}

int config_load_running(const char *path, struct config **ret, struct err *e)
{
	const char *running = getenv(CONFIG_RUNNING_VARIABLE);
	CLEANUP(free) char *file = NULL;
	char *findings;
	int r;

	if (running == NULL)
		return config_load(path, ret, e);
	if (asprintf(&file, "%s/%s", running, CONFIG_RUNNING_FILE) < 0 ||
	    asprintf(&findings, "%s/%s", running, CONFIG_RUNNING_FINDINGS) < 0)
		abort(); /* as xcalloc: no memory for a path */
	r = load_from(file, path, ret, e);
	if (r < 0) {
		free(findings);
		return r;
	}
	free((*ret)->findings);
	(*ret)->findings = findings;
	return 0;
}

/* ---- questions ---- */

const struct peer *config_peer(const struct config *c, const char *ae_title)
{
	size_t i;

	for (i = 0; i < c->n_peers; i++)
		if (strcmp(c->peers[i].ae_title, ae_title) == 0)
			return &c->peers[i];
	return NULL;
}

size_t config_classes(const struct peer *p, const char *ret[CONFIG_CLASSES_MAX])
{
	size_t n = 0, i;

	for (i = 0; p->objects[OBJECT_SR] && i < p->n_sr_classes; i++)
		ret[n++] = sr_class_uid(p->sr_classes[i]);
	for (i = OBJECT_SC; i < OBJECT_COUNT; i++)
		if (p->objects[i])
			ret[n++] = object_class_uid((enum result_object)i);
	return n;
}

static bool network_has(const struct network *net, const struct in6_addr *a)
{
	unsigned whole = net->bits / 8, rest = net->bits % 8;

	if (memcmp(net->address.s6_addr, a->s6_addr, whole) != 0)
		return false;
	return rest == 0 || (net->address.s6_addr[whole] ^ a->s6_addr[whole]) >> (8 - rest) == 0;
}

bool config_access(const struct config *c, const char *calling_ae, const struct in6_addr *from,
		   bool (*carries)(const void *arg, const char *name), const void *arg, const char **ret_hint)
{
	bool ae_known = false, address_known = false, wants_certificate = false;
	size_t i, j;

	*ret_hint = NULL;
	if (c->n_access == 0)
		return true;
	for (i = 0; i < c->n_access; i++) {
		const struct access_rule *rule = &c->access[i];
		bool ae = strcmp(rule->calling_ae, any) == 0 || strcmp(rule->calling_ae, calling_ae) == 0;
		bool address = rule->n_from == 0, certificate;

		for (j = 0; j < rule->n_from && !address; j++)
			address = network_has(&rule->from[j], from);
		certificate = rule->certificate[0] == '\0' || (carries != NULL && carries(arg, rule->certificate));

		if (ae && address && certificate)
			return true;
		wants_certificate |= ae && address;
		ae_known |= ae;
		address_known |= address;
	}
	if (wants_certificate)
		*ret_hint = carries != NULL
				    ? "its certificate does not carry the name that `certificate` of its rule in `access` wants"
				    : "its rule in `access` has `certificate`: it must come to the TLS port";
	else if (ae_known)
		*ret_hint = "add its address to `from` of the rule in `access` that names this calling AE";
	else if (address_known)
		*ret_hint = "add a rule to `access` with this calling_ae; its address would pass another";
	else
		*ret_hint = "add a rule to `access` with this calling_ae and `from` its address";
	return false;
}

size_t config_route(const struct config *c, const char *calling_ae, const struct peer **ret,
		    size_t max, unsigned *ret_unresolved)
{
	unsigned unresolved = 0;
	size_t i, j, k, n = 0;

	for (i = 0; i < c->n_routes; i++) {
		const struct route *route = &c->routes[i];

		if (strcmp(route->from, any) != 0 && strcmp(route->from, calling_ae) != 0)
			continue;
		for (j = 0; j < route->n_to; j++) {
			bool back = strcmp(route->to[j], sender) == 0;
			const struct peer *p = config_peer(c, back ? calling_ae : route->to[j]);

			if (p == NULL) {
				unresolved = 1; /* only a sender can be unknown, and there is one sender */
				continue;
			}
			for (k = 0; k < n && ret[k] != p; k++)
				;
			if (k == n && n < max)
				ret[n++] = p;
		}
	}
	*ret_unresolved = unresolved;
	return n;
}
