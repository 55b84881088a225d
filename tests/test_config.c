/* test_config.c: carzerod.yaml, good and bad; who may send; where results go.
 *
 * Most cases are files: tests/vectors/config (golden.h).  Here stand those that are too large to keep,
 * and the questions that are asked of a configuration.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/mem.h"

#include "daemon/config.h"

#include "tests/golden.h"
#include "tests/tap.h"

#define HOSTILE_MS 2000 /* far above what a laptop needs under a sanitizer; libyaml alone needs a minute */

static void dump_limits(FILE *f, const struct limits *l)
{
	fprintf(f, "limits.associations=%u per_host=%u pdu_bytes=%u object_bytes=%llu association_objects=%u\n",
		l->associations, l->associations_per_host, l->pdu_bytes, (unsigned long long)l->object_bytes,
		l->association_objects);
	fprintf(f, "limits.request_seconds=%u idle_seconds=%u association_seconds=%u\n", l->arttim_seconds,
		l->idle_seconds, l->association_seconds);
	fprintf(f, "limits.image_side=%u image_pixels=%llu image_seconds=%u image_memory=%llu infer_seconds=%u\n",
		l->image_side, (unsigned long long)l->image_pixels, l->image_seconds,
		(unsigned long long)l->image_memory, l->infer_seconds);
	fprintf(f, "limits.attempts=%u queue=%llu\n", l->attempts, (unsigned long long)l->queue);
}

static void dump_access(FILE *f, const struct access_rule *rule)
{
	char address[INET6_ADDRSTRLEN];
	size_t i;

	fprintf(f, "access=%s", rule->calling_ae);
	for (i = 0; i < rule->n_from; i++)
		fprintf(f, " %s/%u", inet_ntop(AF_INET6, &rule->from[i].address, address, sizeof(address)),
			rule->from[i].bits);
	if (rule->certificate[0] != '\0')
		fprintf(f, " certificate=%s", rule->certificate);
	fputc('\n', f);
}

static void dump_values(FILE *f, const struct config *c)
{
	size_t i, j;

	fprintf(f, "ae_title=%s\n", c->ae_title);
	for (i = 0; i < c->n_listen; i++)
		fprintf(f, "listen=[%s]:%u\n", c->listen[i].host, c->listen[i].port);
	if (c->tls.on) {
		for (i = 0; i < c->tls.n_listen; i++)
			fprintf(f, "tls.listen=[%s]:%u\n", c->tls.listen[i].host, c->tls.listen[i].port);
		fprintf(f, "tls=%s|%s|%s|%s\n", c->tls.certificate, c->tls.key, c->tls.ca,
			c->tls.crl != NULL ? c->tls.crl : "");
	}
	fprintf(f, "state_dir=%s\nmodel=%s\nfindings=%s\n", c->state_dir, c->model, c->findings);
	fprintf(f, "recipe=%s precision=%s threads=%u workers=%u\n", recipe_name(c->recipe),
		precision_name(c->precision), c->threads, c->workers);
	fprintf(f, "settle_ms=%lld settle_max_ms=%lld\n", (long long)c->settle_ms, (long long)c->settle_max_ms);
	fprintf(f, "gate=%s min_age=%u allow_out_of_domain=%d other_storage=%s\n",
		c->gate == GATE_OFF ? "off" : "tags", c->min_age, c->allow_out_of_domain,
		c->other_storage == OTHER_REFUSE ? "refuse" : "aside");
	if (c->audit.journal || c->audit.host[0] != '\0')
		fprintf(f, "audit journal=%d %s %u\n", c->audit.journal, c->audit.host, c->audit.port);
	fprintf(f, "slow_lane older_than_days=%u images_per_hour=%u\n", c->slow_older_days, c->slow_images_per_hour);
	for (i = 0; i < c->n_access; i++)
		dump_access(f, &c->access[i]);
	for (i = 0; i < c->n_peers; i++) {
		fprintf(f, "peer=%s %s %u tls=%d", c->peers[i].ae_title, c->peers[i].host, c->peers[i].port,
			c->peers[i].tls);
		for (j = 0; j < c->peers[i].n_sr_classes; j++)
			fprintf(f, " %s", sr_class_name(c->peers[i].sr_classes[j]));
		for (j = 0; j < OBJECT_COUNT; j++)
			if (c->peers[i].objects[j])
				fprintf(f, " %s", object_name((enum result_object)j));
		if (c->peers[i].certificate[0] != '\0')
			fprintf(f, " certificate=%s", c->peers[i].certificate);
		if (c->peers[i].shadow)
			fprintf(f, " shadow");
		if (c->peers[i].commitment != COMMITMENT_NONE)
			fprintf(f, " commitment=%s", c->peers[i].commitment == COMMITMENT_SAME ? "same" : "new");
		fputc('\n', f);
	}
	for (i = 0; i < c->n_routes; i++) {
		fprintf(f, "route=%s", c->routes[i].from);
		for (j = 0; j < c->routes[i].n_to; j++)
			fprintf(f, " %s", c->routes[i].to[j]);
		fputc('\n', f);
	}
	dump_limits(f, &c->limits);
	fprintf(f, "storage.min_free=%llu ballast=%llu unsafe=%d retention images=%lld failed=%lld reports=%lld\n",
		(unsigned long long)c->min_free_bytes, (unsigned long long)c->ballast_bytes, c->unsafe_storage, (long long)c->retention_images_ms,
		(long long)c->retention_failed_ms, (long long)c->retention_reports_ms);
	if (c->keep_embeddings)
		fprintf(f, "storage.keep_embeddings\n");
	fprintf(f, "report=%s|%s|%s|%s|%u|%s\n", c->manufacturer, c->institution, c->station, c->series_description,
		c->series_number, c->report_regions == REGIONS_IMAGE ? "regions" : "no regions");
	fprintf(f, "log_level=%d\n", c->log_level);
}

static char *dump(const char *where, const void *text, size_t n)
{
	struct err e = { "" };
	struct config *c;
	char *out = NULL;
	size_t n_out;
	FILE *f = open_memstream(&out, &n_out);

	if (f == NULL)
		abort();
	if (config_parse(where, "/etc/carzerod", text, n, &c, &e) < 0) {
		fprintf(f, "error: %s\n", e.text);
	} else {
		dump_values(f, c);
		config_free(c);
	}
	if (fclose(f) != 0)
		abort();
	return out;
}

static struct config *parse(const char *text)
{
	struct config *c = NULL;
	struct err e = { "" };

	if (!ok(config_parse("t", NULL, text, strlen(text), &c, &e) == 0, "it parses %s", e.text))
		exit(done());
	return c;
}

/* ---- hostile input ---- */

/* `unit` as often as fits. */
static char *repeated(const char *head, const char *unit, size_t bytes, size_t *ret_n)
{
	size_t n = strlen(head), k = strlen(unit);
	char *text = xcalloc(1, bytes + 1);

	memcpy(text, head, n);
	for (; n + k <= bytes; n += k)
		memcpy(text + n, unit, k);
	*ret_n = n;
	return text;
}

static void test_hostile(void)
{
	static const struct {
		const char *name, *head, *unit;
		size_t bytes;
		int code;
		const char *text;
	} cases[] = {
		{ "200 KB of [", "", "[", 200000, -E2BIG, "nested deeper" },
		{ "200 KB of [ in a value", "peers: ", "[", 200000, -E2BIG, "nested deeper" },
		{ "200 KB of {", "", "{", 200000, -EBADMSG, "a key must be a word" },
		{ "200 KB of {a: ", "", "{a: ", 200000, -E2BIG, "nested deeper" },
		{ "200 KB of dashes", "", "- ", 200000, -E2BIG, "nested deeper" },
		{ "200 KB of question marks", "", "? ", 200000, 0, "" },
		{ "200 KB of directives", "", "%TAG !a! x\n", 200000, -EBADMSG, "" },
		{ "200 KB of different-looking keys", "", "a: 1\n", 200000, -EBADMSG, "duplicate key" },
		{ "many entries", "peers:\n", " - 1\n", 200000, -E2BIG, "more than 10000" },
		{ "many aliases", "a: &a 1\nb: [", "*a,", 200000, -EBADMSG, "anchors" },
		{ "many comments", "", "# x\n", 200000, -EBADMSG, "'ae_title' is missing" },
		{ "one long text", "ae_title: ", "x", 200000, -EBADMSG, "longer than the 16" },
		{ "one long quoted text", "ae_title: \"", "x", 200000, -EBADMSG, "not YAML" },
		{ "one long number", "settle: ", "9", 200000, -EBADMSG, "must be seconds" },
		{ "one long key", "", "k", 200000, -EBADMSG, "" },
		{ "many blank lines", "", "\n", 200000, -EBADMSG, "missing" },
		{ "many spaces", "a:", " ", 200000, -EBADMSG, "unknown key" },
		{ "200 KB of bad UTF-8", "a: ", "\xff", 200000, -EBADMSG, "not UTF-8" },
		{ "over 256 KiB", "", "# x\n", 256 * 1024 + 4, -E2BIG, "larger than" },
	};
	size_t i, n;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		CLEANUP(free) char *text = repeated(cases[i].head, cases[i].unit, cases[i].bytes, &n);
		int64_t start = clock_boot_ms();
		struct config *c = NULL;
		struct err e = { "" };
		int r = config_parse("t", NULL, text, n, &c, &e);
		int64_t ms = clock_boot_ms() - start;

		if (cases[i].code != 0)
			is_int(r, cases[i].code, "%s", cases[i].name);
		ok(r < 0 && strstr(e.text, cases[i].text) != NULL, "%s: %.80s", cases[i].name, e.text);
		ok(ms < HOSTILE_MS, "%s: %lld ms", cases[i].name, (long long)ms);
		config_free(c);
	}
}

/* Whatever half of a good file we get, the answer is an error or a configuration. */
static void test_prefixes(void)
{
	size_t n, i, refused = 0;
	CLEANUP(free) char *text = golden_read("etc/carzerod.yaml", &n);

	for (i = 0; i < n; i += 1 + i % 3) {
		CLEANUP(free) char *copy = xcalloc(1, i + 1); /* exact, so that a sanitizer sees over-reading */
		struct config *c = NULL;
		struct err e = { "" };

		memcpy(copy, text, i);
		refused += config_parse("t", NULL, copy, i, &c, &e) < 0 && strncmp(e.text, "t:", 2) == 0;
		config_free(c);
	}
	ok(refused > 0, "prefixes of the example: %zu refused", refused);
}

/* ---- the shipped example and its manual ---- */

/* Removes the "#" of every line that shows a default: "#key:" and "#  key:". */
static void uncomment(char *text)
{
	char *from = text, *to = text;

	while (*from != '\0') {
		size_t n = strcspn(from, "\n") + 1;
		bool shows = from[0] == '#' && ((from[1] >= 'a' && from[1] <= 'z') || strncmp(from, "#  ", 3) == 0);

		if (from[n - 1] == '\0')
			n--;
		if (shows)
			from++, n--;
		memmove(to, from, n);
		to += n;
		from += n;
	}
	*to = '\0';
}

static void check_manual(const char *example, const char *manual)
{
	const char *p;

	for (p = example; *p != '\0'; p += strcspn(p, "\n"), p += *p != '\0') {
		size_t indent = strspn(p, " "), n = strspn(p + indent, "abcdefghijklmnopqrstuvwxyz_");
		char entry[64];

		if (n == 0 || n > 40 || p[indent + n] != ':')
			continue;
		(void)snprintf(entry, sizeof(entry), "\n.B %.*s\n", (int)n, p + indent);
		ok(strstr(manual, entry) != NULL, "carzerod.yaml(5) explains %.*s", (int)n, p + indent);
	}
}

static void test_example(void)
{
	static const char *const added[] = { "ae_title", "host", "port", "tls", "sr_classes", "objects", "certificate", "commitment", "shadow", "from", "to",
					     "calling_ae", "findings" };
	CLEANUP(free) char *example = golden_read("etc/carzerod.yaml", NULL);
	CLEANUP(free) char *manual = golden_read("man/carzerod.yaml.5", NULL);
	CLEANUP(free) char *as_shipped = dump("carzerod.yaml", example, strlen(example)), *spelled_out = NULL;
	char entry[64], *threads;
	size_t i;

	ok(strncmp(as_shipped, "error", 5) != 0, "etc/carzerod.yaml is good: %.100s", as_shipped);
	ok(strstr(as_shipped, "/demo/findings.yaml") != NULL, "until a site names a model it is the demonstration model's");
	uncomment(example);
	threads = strstr(example, "\nthreads: ");
	if (ok(threads != NULL, "the example shows threads"))
		threads[1] = '#'; /* the machine's, not ours to compare */
	spelled_out = dump("carzerod.yaml", example, strlen(example));
	is_str(spelled_out, as_shipped, "the defaults that the example shows are the defaults");
	check_manual(example, manual);
	for (i = 0; i < ARRAY_SIZE(added); i++) {
		(void)snprintf(entry, sizeof(entry), "\n.B %s\n", added[i]);
		ok(strstr(manual, entry) != NULL, "carzerod.yaml(5) explains %s", added[i]);
	}
}

/* ---- questions ---- */

static bool carries(const void *arg, const char *name)
{
	return strcmp(arg, name) == 0;
}

static void test_certificates(void)
{
	struct config *c = parse("{ae_title: A, model: m, findings: f, tls: {certificate: c, key: k, ca: a}, access: ["
				 "{calling_ae: CT1, certificate: ct1.example.org}, {calling_ae: CT2},"
				 "{calling_ae: '*', from: [10.0.0.0/8], certificate: hospital}]}");
	static const struct {
		const char *ae, *address, *certificate; /* NULL: plain */
		bool good;
		const char *hint;
	} cases[] = {
		{ "CT1", "::1", "ct1.example.org", true, NULL },
		{ "CT1", "::1", "ct2.example.org", false, "does not carry" },
		{ "CT1", "::1", NULL, false, "TLS port" },
		{ "CT2", "::1", NULL, true, NULL },
		{ "CT2", "::1", "whatever", true, NULL },
		{ "CT1", "::ffff:10.0.0.1", "hospital", true, NULL }, /* by the last rule */
		{ "X", "::ffff:10.0.0.1", "hospital", true, NULL },
		{ "X", "::ffff:10.0.0.1", "stranger", false, "does not carry" },
		{ "X", "::ffff:11.0.0.1", "hospital", false, "from" },
	};
	struct in6_addr a;
	const char *hint;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		bool good;

		if (inet_pton(AF_INET6, cases[i].address, &a) != 1)
			abort();
		good = config_access(c, cases[i].ae, &a, cases[i].certificate != NULL ? carries : NULL,
				     cases[i].certificate, &hint);
		is_int(good, cases[i].good, "%s from %s with certificate %s", cases[i].ae, cases[i].address,
		       cases[i].certificate != NULL ? cases[i].certificate : "none");
		ok(good == (hint == NULL) && (good || strstr(hint, cases[i].hint) != NULL), "the hint fits: %s",
		   hint != NULL ? hint : "none needed");
	}
	config_free(c);
}

static void test_access(void)
{
	static const char text[] = "{ae_title: A, model: m, findings: f, access: ["
				   "{calling_ae: CT1, from: [10.20.0.0/16, 192.0.2.7]},"
				   "{calling_ae: V6, from: ['2001:db8:8000::/33']},"
				   "{calling_ae: FREE},"
				   "{calling_ae: '*', from: [127.0.0.0/8, '::1']}]}";
	static const struct {
		const char *ae, *address;
		bool good;
		const char *hint;
	} cases[] = {
		{ "CT1", "::ffff:10.20.0.0", true, NULL },
		{ "CT1", "::ffff:10.20.255.255", true, NULL },
		{ "CT1", "::ffff:10.21.0.0", false, "of the rule" },
		{ "CT1", "::ffff:192.0.2.7", true, NULL },
		{ "CT1", "::ffff:192.0.2.6", false, "of the rule" },
		{ "CT1", "::10.20.0.1", false, "of the rule" }, /* looks alike, is not IPv4 */
		{ "ct1", "::ffff:10.20.0.1", false, NULL },     /* AE titles have case */
		{ "V6", "2001:db8:8000::1", true, NULL },
		{ "V6", "2001:db8:ffff::1", true, NULL },
		{ "V6", "2001:db8:7fff::1", false, "of the rule" },
		{ "FREE", "2001:db8::1", true, NULL },
		{ "OTHER", "::ffff:127.1.2.3", true, NULL },
		{ "OTHER", "::1", true, NULL },
		{ "OTHER", "::ffff:8.8.8.8", false, NULL },
		{ "", "::ffff:8.8.8.8", false, NULL },
	};
	struct config *c = parse(text), *open = parse("{ae_title: A, model: m, findings: f}");
	struct in6_addr a;
	const char *hint;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		bool good;

		ok(inet_pton(AF_INET6, cases[i].address, &a) == 1, "%s is an address", cases[i].address);
		good = config_access(c, cases[i].ae, &a, NULL, NULL, &hint);
		is_int(good, cases[i].good, "access of %s from %s", cases[i].ae, cases[i].address);
		ok(good == (hint == NULL), "a hint when refused: %s", hint != NULL ? hint : "-");
		if (!good)
			ok(strstr(hint, "access") != NULL && (cases[i].hint == NULL || strstr(hint, cases[i].hint) != NULL),
			   "the hint names the setting");
	}
	ok(config_access(open, "ANY", &a, NULL, NULL, &hint), "without `access` everybody may");
	config_free(open);
	config_free(c);

	c = parse("{ae_title: A, model: m, findings: f, access: [{calling_ae: X, from: [0.0.0.0/0]}]}");
	ok(inet_pton(AF_INET6, "::ffff:203.0.113.9", &a) == 1 && config_access(c, "X", &a, NULL, NULL, &hint),
	   "0.0.0.0/0 is every IPv4 address");
	ok(inet_pton(AF_INET6, "2001:db8::9", &a) == 1 && !config_access(c, "X", &a, NULL, NULL, &hint), "and no IPv6 address");
	ok(!config_access(c, "Y", &a, NULL, NULL, &hint), "nobody else");
	config_free(c);
}

static void is_route(const struct config *c, const char *from, const char *want, unsigned want_unresolved)
{
	const struct peer *to[CONFIG_PEERS_MAX];
	unsigned unresolved = 99;
	char got[256] = "";
	size_t n = config_route(c, from, to, ARRAY_SIZE(to), &unresolved), i, at = 0;

	for (i = 0; i < n; i++)
		at += (size_t)snprintf(got + at, sizeof(got) - at, "%s%s", i > 0 ? " " : "", to[i]->ae_title);
	is_str(got, want, "route from %s", from);
	is_int(unresolved, want_unresolved, "unresolved from %s", from);
}

static void test_route(void)
{
	static const char peers[] = "{ae_title: A, model: m, findings: f, peers: ["
				    "{ae_title: P1, host: h, port: 1}, {ae_title: P2, host: h, port: 2},"
				    "{ae_title: CT1, host: h, port: 3}], routes: [";
	static const struct {
		const char *routes, *from, *to;
		unsigned unresolved;
	} cases[] = {
		{ "", "CT1", "", 0 },
		{ "{from: '*', to: [P1]}", "CT1", "P1", 0 },
		{ "{from: CT1, to: [P1]}", "CT2", "", 0 },
		{ "{from: '*', to: [sender]}", "CT1", "CT1", 0 },
		{ "{from: '*', to: [sender]}", "CT2", "", 1 },
		{ "{from: '*', to: [sender, P2]}", "CT2", "P2", 1 },
		{ "{from: CT1, to: [P2]}, {from: '*', to: [P1, P2]}", "CT1", "P2 P1", 0 },
		{ "{from: CT1, to: [P2]}, {from: '*', to: [P1, P2]}", "XX", "P1 P2", 0 },
		{ "{from: CT1, to: [CT1]}, {from: '*', to: [sender]}", "CT1", "CT1", 0 },
		{ "{from: CT9, to: [sender]}, {from: '*', to: [sender]}", "CT9", "", 1 },
	};
	const struct peer *to[1];
	unsigned unresolved;
	struct config *c;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[1024];

		(void)snprintf(text, sizeof(text), "%s%s]}", peers, cases[i].routes);
		c = parse(text);
		is_route(c, cases[i].from, cases[i].to, cases[i].unresolved);
		config_free(c);
	}
	c = parse("{ae_title: A, model: m, findings: f, peers: [{ae_title: P1, host: h, port: 1},"
		  "{ae_title: P2, host: h, port: 2}], routes: [{from: '*', to: [P1, P2]}]}");
	is_int(config_route(c, "X", to, 1, &unresolved), 1, "no more than the caller has room for");
	ok(config_peer(c, "P2") == &c->peers[1] && config_peer(c, "p2") == NULL, "peers by name");
	config_free(c);
}

static void test_load(void)
{
	static const char text[] = "{ae_title: A, model: bundle, findings: /f.yaml, state_dir: ../state}";
	char folder[] = "/tmp/test_config.XXXXXX", path[128], want[256];
	struct config *c = NULL;
	struct err e = { "" };
	int fd;

	if (mkdtemp(folder) == NULL)
		plan_skip_all("no temporary folder");
	(void)snprintf(path, sizeof(path), "%s/c.yaml", folder);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	ok(fd >= 0 && write_full(fd, text, strlen(text)) == 0 && close(fd) == 0, "write %s", path);
	if (ok(config_load(path, &c, &e) == 0, "load %s", e.text)) {
		(void)snprintf(want, sizeof(want), "%s/bundle", folder);
		is_str(c->model, want, "a relative path starts at the file's folder");
		is_str(c->findings, "/f.yaml", "an absolute one stays");
		is_str(c->station, "A", "the station is the AE title");
		ok(c->threads >= 1, "threads by default: %u", c->threads);
		config_free(c);
	}
	ok(chdir(folder) == 0 && config_load("c.yaml", &c, &e) == 0, "load without a folder %s", e.text);
	is_str(c->model, "bundle", "a relative path stays relative to where we are");
	config_free(c);
	(void)unlink(path);
	(void)rmdir(folder);
	is_int(config_load(path, &c, &e), -ENOENT, "a missing file");
	ok(strstr(e.text, path) != NULL, "is named: %s", e.text);
	is_int(config_load("/tmp", &c, &e), -EISDIR, "a folder is no file: %s", e.text);
}

static void test_names(void)
{
	is_str(sr_class_uid(SR_ENHANCED), "1.2.840.10008.5.1.4.1.1.88.22", "Enhanced SR");
	is_str(sr_class_uid(SR_COMPREHENSIVE), "1.2.840.10008.5.1.4.1.1.88.33", "Comprehensive SR");
	is_str(sr_class_uid(SR_COMPREHENSIVE_3D), "1.2.840.10008.5.1.4.1.1.88.34", "Comprehensive 3D SR");
	is_str(recipe_name(RECIPE_MIMIC), "mimic", "recipe");
	is_str(precision_name(PRECISION_F32), "f32", "precision");
	is_str(precision_name(PRECISION_INT8), "int8", "precision");
	config_free(NULL);
}

int main(int argc, char **argv)
{
	if (argc == 2)
		return golden_print(argv[1], dump);
	golden_run("tests/vectors/config", dump, 60);
	test_hostile();
	test_prefixes();
	test_example();
	test_access();
	test_certificates();
	test_route();
	test_names();
	test_load(); /* last: it changes the current folder */
	return done();
}
