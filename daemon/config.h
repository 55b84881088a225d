/* config.h: carzerod.yaml, checked once, then read-only.
 *
 * Every program of the node loads the same file and gets the same struct.  Errors name
 * file:line: key: what is wrong, and the nearest known key when one is unknown.
 */
#ifndef CARZEROD_DAEMON_CONFIG_H
#define CARZEROD_DAEMON_CONFIG_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"
#include "base/str.h"

#include "daemon/notify_rules.h"

#define CONFIG_BYTES_MAX (256 * 1024)
#define CONFIG_LISTEN_MAX 8
#define CONFIG_PEERS_MAX 64
#define CONFIG_ROUTES_MAX 64
#define CONFIG_ROUTE_TO_MAX 16
#define CONFIG_ACCESS_MAX 128
#define CONFIG_NETWORKS_MAX 16
#define CONFIG_WORKERS_MAX 32
#define CONFIG_ASSOCIATIONS_MAX 1024
#define CONFIG_CERTIFICATE_MAX 65 /* a name in a certificate: X.520 allows 64 characters */
#define CONFIG_CREDENTIAL "credential:" /* before the name of a file in systemd's $CREDENTIALS_DIRECTORY */
#define CONFIG_DEFAULT_PATH "/etc/carzerod/carzerod.yaml"

enum sr_class { SR_ENHANCED = 0, SR_COMPREHENSIVE = 1, SR_COMPREHENSIVE_3D = 2, SR_CLASS_COUNT = 3 };
enum result_object { OBJECT_SR = 0, OBJECT_SC = 1, OBJECT_GSPS = 2, OBJECT_PDF = 3, OBJECT_COUNT = 4 };
enum recipe { RECIPE_WINDOW, RECIPE_MIMIC };
enum precision { PRECISION_F32, PRECISION_BF16, PRECISION_INT8 };
/* Where numbers of a report come from: the image, or a region that is all of it (OHIF needs one to show them). */
enum report_regions { REGIONS_NONE, REGIONS_IMAGE };
enum gate_policy { GATE_TAGS, GATE_OFF }; /* a content vote gets its own value when it exists */
enum other_storage { OTHER_ASIDE, OTHER_REFUSE }; /* storage classes that we do not analyse */

enum commitment_mode { COMMITMENT_NONE, COMMITMENT_SAME, COMMITMENT_NEW }; /* on which association it is told */

struct network { /* CIDR; IPv4 as ::ffff:0:0/96 */
	struct in6_addr address;
	unsigned bits;           /* of the 128 */
};

struct listen_address {
	char host[64];           /* numeric; "" = every address */
	uint16_t port;
};

struct access_rule { /* who may send: calling AE title ("*" any) from these networks (none = any) */
	char calling_ae[AE_TITLE_MAX];
	char certificate[CONFIG_CERTIFICATE_MAX]; /* name that its certificate must carry; "": any, and plain DICOM too */
	struct network from[CONFIG_NETWORKS_MAX];
	size_t n_from;
};

struct peer { /* whom we may send to */
	char ae_title[AE_TITLE_MAX];
	char host[256];
	uint16_t port;
	bool tls;
	char certificate[CONFIG_CERTIFICATE_MAX]; /* name that its certificate must carry; "": host */
	enum commitment_mode commitment;
	bool shadow;             /* reports are made and kept, and not sent to it */
	enum sr_class sr_classes[SR_CLASS_COUNT]; /* order of preference; default comprehensive, enhanced, comprehensive-3d */
	size_t n_sr_classes;
	bool objects[OBJECT_COUNT]; /* what it is sent; default sr and sc */
};

struct tls_config {
	bool on;                 /* the key is there */
	struct listen_address listen[CONFIG_LISTEN_MAX];
	size_t n_listen;
	char *certificate, *key, *ca, *crl; /* paths, or "credential:NAME"; crl may be NULL */
};

struct route {
	char from[AE_TITLE_MAX]; /* calling AE, or "*" */
	char to[CONFIG_ROUTE_TO_MAX][AE_TITLE_MAX]; /* a peer, or "sender" */
	size_t n_to;
};

struct limits { /* reliability.md 3.3 */
	unsigned associations;          /* 64 */
	unsigned associations_per_host; /* 16 */
	uint32_t pdu_bytes;             /* 131072 */
	uint64_t object_bytes;          /* 256 MiB */
	unsigned association_objects;   /* 5000 */
	unsigned arttim_seconds;        /* "request_seconds" 10: connection to complete A-ASSOCIATE-RQ */
	unsigned idle_seconds;          /* 60 */
	unsigned association_seconds;   /* 3600 */
	unsigned image_side;            /* 16384 */
	uint64_t image_pixels;          /* 100 million */
	unsigned image_seconds;         /* 60: wall time of one decode or compose */
	uint64_t image_memory;          /* 1536 MiB: address space of one decode or compose */
	unsigned infer_seconds;         /* 120 */
	unsigned attempts;              /* 3 */
	uint64_t queue;                 /* 20000 waiting instances: beyond, associations are refused */
};

struct config {
	char ae_title[AE_TITLE_MAX];
	struct listen_address listen[CONFIG_LISTEN_MAX];
	size_t n_listen;
	char *state_dir, *model, *findings; /* paths; relative ones are taken from the file's folder.  Without model
					       and findings: those of the demonstration model */
	enum recipe recipe;
	enum precision precision;
	unsigned threads;               /* of BLAS in each worker; default: cores / workers */
	unsigned workers;               /* inference processes; default 1 */
	int64_t settle_ms, settle_max_ms; /* 2 s, 30 s */
	enum gate_policy gate;
	unsigned min_age;               /* years; 18; 0 switches the rule off */
	bool allow_out_of_domain;       /* score untagged images with a bundle that is not clinical */
	enum other_storage other_storage;
	unsigned slow_older_days;       /* slow_lane.older_than_days: 30; 0: no study is old */
	unsigned slow_images_per_hour;  /* slow_lane: 1000 of one sender; 0: any number */
	struct access_rule access[CONFIG_ACCESS_MAX];
	size_t n_access;                /* 0: any calling AE from anywhere (warned at start) */
	struct tls_config tls;
	struct peer peers[CONFIG_PEERS_MAX];
	size_t n_peers;
	struct route routes[CONFIG_ROUTES_MAX];
	size_t n_routes;
	struct limits limits;
	struct notify_rule notify[NOTIFY_MAX];
	size_t n_notify;
	struct {
		bool wanted;
		char *path;                 /* of a UNIX socket, or NULL: */
		struct listen_address at;   /* a loopback address */
	} metrics;
	struct {
		bool journal;               /* a line for each event */
		char host[256];             /* of the audit record repository; "": none */
		uint16_t port;              /* 6514 */
	} audit;
	uint64_t min_free_bytes;        /* storage.min_free: 1 GiB */
	uint64_t ballast_bytes;         /* storage.ballast: 256 MiB; 0: none */
	bool unsafe_storage;            /* storage.unsafe: any file system */
	bool keep_embeddings;           /* storage.keep_embeddings: for carzeroctl rescore */
	int64_t retention_images_ms, retention_failed_ms, retention_reports_ms; /* 1 d, 30 d, 90 d */
	char manufacturer[65], institution[65], station[17]; /* in reports; defaults "carzerod", "", ae_title */
	char series_description[65];    /* default "AI CXR results (unverified)" */
	unsigned series_number;         /* 9001 */
	enum report_regions report_regions; /* report.regions: none */
	enum log_level log_level;
};

int config_load(const char *path, struct config **ret, struct err *e);
/* For helpers: the text that the keeper has accepted, from the folder that the variable names, instead of what the file
 * says by now; paths as in `path`.  Without the variable, config_load(). */
#define CONFIG_RUNNING_VARIABLE "CARZEROD_RUNNING"
#define CONFIG_RUNNING_FILE "carzerod.yaml"
#define CONFIG_RUNNING_FINDINGS "findings.yaml"
int config_load_running(const char *path, struct config **ret, struct err *e);
int config_parse(const char *where, const char *folder, const void *text, size_t n_text,
		 struct config **ret, struct err *e);
void config_free(struct config *c); /* NULL allowed */

/* Whether this calling AE may come from this address; *ret_hint (static text) says which setting would accept it.
 * carries: whether the peer's certificate carries a name; NULL: it has shown none, this is plain DICOM. */
bool config_access(const struct config *c, const char *calling_ae, const struct in6_addr *from,
		   bool (*carries)(const void *arg, const char *name), const void *arg, const char **ret_hint);
const struct peer *config_peer(const struct config *c, const char *ae_title); /* NULL */
/* Destinations of a study that came from this AE, by every route that matches: fills ret with peers ("sender" resolved through
 * `peers`, duplicates dropped); a sender that is not in `peers` is counted in *ret_unresolved. */
size_t config_route(const struct config *c, const char *calling_ae, const struct peer **ret,
		    size_t max, unsigned *ret_unresolved);

const char *recipe_name(enum recipe r);       /* "window", "mimic" */
const char *precision_name(enum precision p); /* "f32", "bf16", "int8" */
const char *sr_class_name(enum sr_class c);   /* "enhanced", "comprehensive", "comprehensive-3d" */
const char *sr_class_uid(enum sr_class c);
const char *object_name(enum result_object o); /* "sr", "sc", "gsps", "pdf" */
const char *object_class_uid(enum result_object o); /* NULL for a report, which has classes to choose from */
/* Every SOP class that this peer may be sent; returns how many. */
#define CONFIG_CLASSES_MAX (SR_CLASS_COUNT + OBJECT_COUNT - 1)
size_t config_classes(const struct peer *p, const char *ret[CONFIG_CLASSES_MAX]);

#endif
