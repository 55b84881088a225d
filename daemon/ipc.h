/* ipc.h: what the processes of the node say to each other.
 *
 * A channel is a SOCK_SEQPACKET socketpair between the keeper and one other process.  A message is
 * one packet: a header, then a struct whose size is fixed by its type, and with some types
 * descriptors (SCM_RIGHTS).  ipc_check() is the one place where a received message is judged: type
 * allowed from this role, size, number of descriptors, enums in range, strings terminated, UIDs and
 * AE titles well-formed.  After it the fields may be believed to be well-formed, never to be true.
 *
 *	receiver (listener)  ->  LISTENING, ADMIT               <-  CHANNEL + fd
 *	association child    ->  CREATE, STORED, ABANDON, COMMITTED, ENDED <-  FILE + fd, ANSWER
 *	image                ->  READY, DECODED, COMPOSED, DIED <-  DECODE + fds, COMPOSE + fds
 *	infer                ->  MODEL, SCORED                  <-  SCORE + fds
 *	export               ->  READY
 *	hook                 ->  READY, TOLD                    <-  NOTICE
 *	audit (as a hook)    ->  READY, TOLD                    <-  AUDIT + fd
 *	send                 ->  READY, CHOSE, SENT, ASKED, COMMITTED <-  DELIVER + fds, GO, ASK
 *
 * Both ends are always of one build: there is no version, and sizes are checked.
 */
#ifndef CARZEROD_DAEMON_IPC_H
#define CARZEROD_DAEMON_IPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/digest.h"
#include "base/str.h"

#include "daemon/findings.h"

#define IPC_FD 3              /* a spawned program finds its channel here */
#define IPC_WHY_MAX 200
#define IPC_IMAGES_MAX 64     /* images of one report */
#define IPC_FDS_MAX (IPC_IMAGES_MAX + 3)
#define IPC_CLASSES_MAX 3
#define IPC_SOCKETS_MAX 16     /* listening */
#define IPC_SIDE_MAX 1024
#define IPC_MAP_SIDE_MAX 32   /* of an attention map */
#define IPC_MAPS_MAX 3        /* shown of one image */
#define IPC_PAGES_MAX 8       /* Secondary Captures of one study */
#define IPC_IMAGE_JOBS_MAX 40 /* decoding and composing at one time */

enum ipc_type {
	/* to the keeper */
	IPC_LISTENING = 1, IPC_ADMIT, IPC_CREATE, IPC_STORED, IPC_ABANDON, IPC_READY, IPC_DECODED,
	IPC_COMPOSED, IPC_DIED, IPC_MODEL, IPC_SCORED, IPC_CHOSE, IPC_SENT,
	/* from the keeper */
	IPC_CHANNEL, IPC_FILE, IPC_ANSWER, IPC_DECODE, IPC_COMPOSE, IPC_SCORE, IPC_DELIVER, IPC_GO,
	/* to the keeper, later than the others */
	IPC_ENDED, IPC_ASKED, IPC_COMMITTED, IPC_TOLD,
	/* from it */
	IPC_ASK, IPC_NOTICE, IPC_AUDIT,
	IPC_TYPE_COUNT
};

enum ipc_role { IPC_RECEIVER, IPC_ASSOCIATION, IPC_IMAGE, IPC_INFER, IPC_SEND, IPC_EXPORT, IPC_HOOK, IPC_KEEPER };

struct ipc_header {
	uint32_t magic;
	uint32_t type;
	uint64_t token; /* which question or job this is about; 0 where there is none */
};

struct ipc_listening { /* + the sockets that it has opened itself, those for TLS last; again when certificates were renewed */
	struct ipc_header h;
	uint32_t n_tls; /* of the sockets */
	uint32_t zero;
	int64_t certificate_ends, ca_ends, crl_ends; /* wall ms; 0: none */
};

struct ipc_plain { /* CREATE, READY; AUDIT + frames of RFC 5425 (read) */
	struct ipc_header h;
};

/* + square (read), attention maps (write: float [findings][map_side][map_side], memory file) and, where the embedding is
 * kept, the file that it goes to (write) */
struct ipc_score {
	struct ipc_header h;
	uint64_t object;             /* what the embedding says that it was made of: the object's file */
	uint8_t digest[DIGEST_SIZE]; /* and data set */
};

struct ipc_admit {
	struct ipc_header h;
	char host[64]; /* numeric */
};

struct ipc_channel { /* + 1 descriptor when accepted */
	struct ipc_header h;
	uint8_t result, source, reason; /* A-ASSOCIATE-RJ; all zero: accepted */
	uint8_t zero[5];
};

struct ipc_object {
	struct ipc_header h; /* token: the file's id */
	char sop_class[UID_MAX], sop_uid[UID_MAX], study_uid[UID_MAX], series_uid[UID_MAX], syntax[UID_MAX];
	char calling_ae[AE_TITLE_MAX], called_ae[AE_TITLE_MAX];
	uint8_t digest[DIGEST_SIZE];
	uint8_t analysed_class;
	uint64_t size;
	uint32_t study_date; /* YYYYMMDD as a number; 0: none */
	uint32_t zero;
};

struct ipc_status { /* ABANDON, FILE (+ 1 descriptor when status is 0), ANSWER; token: the file's id */
	struct ipc_header h;
	uint16_t status;
	uint8_t zero[6];
};

struct ipc_ended { /* how an association went: for the history, nothing is decided by it */
	struct ipc_header h;
	uint32_t end;          /* enum scp_end */
	uint32_t stored, refused, echoes; /* C-STOREs answered 0000H, C-STOREs answered otherwise, C-ECHOs */
	uint64_t bytes;
	char calling_ae[5 * AE_TITLE_MAX]; /* quoted; "" when nobody had read it yet */
	char detail[IPC_WHY_MAX], contexts[IPC_WHY_MAX];
	char zero[3];
};

struct ipc_decode { /* + stored object (read), square (write) */
	struct ipc_header h; /* token: the job's ticket */
	uint8_t digest[DIGEST_SIZE]; /* of the data set: checked before anything is parsed */
	uint32_t side;       /* of the square that the model takes */
	uint32_t zero;
};

struct ipc_decoded {
	struct ipc_header h;
	uint32_t reason; /* enum image_reason */
	uint32_t rows, columns;
	uint8_t quality_control;
	uint8_t zero[3];
	char why[IPC_WHY_MAX];
	char sop_uid[UID_MAX], study_uid[UID_MAX];
	uint8_t patient[DIGEST_SIZE], content[DIGEST_SIZE];
};

/* COMPOSE: one file.  + file (write), images (memory file: struct ipc_report_image [n_images]), findings text
 * (memory file), objects (read) */
struct ipc_compose {
	struct ipc_header h;
	uint32_t n_images;
	uint32_t object;     /* enum result_object */
	uint32_t page;       /* of a Secondary Capture or presentation state, from 1 */
	uint32_t domain;     /* enum model_domain */
	uint32_t side, crop, map_side; /* of the square, of what the model saw of it, of the maps over that */
	char sop_class[UID_MAX], sop_uid[UID_MAX], series_uid[UID_MAX];
	char predecessor_sop_uid[UID_MAX], predecessor_series_uid[UID_MAX];
	char date[9], time[14], timezone[6];
	char device_uid[UID_MAX];
	char serial[37];
	char model_name[64];
	char weights[DIGEST_HEX_MAX], recipe[16], precision[8];
	uint8_t uid_namespace[16];
	uint8_t findings[DIGEST_SIZE];
};

struct ipc_report_image {
	uint64_t instance;
	uint8_t digest[DIGEST_SIZE]; /* of the stored data set: checked before anything is copied from it */
	uint32_t analysed;
	uint32_t n_scores;
	char why[IPC_WHY_MAX];
	struct {
		float logit;
		float probability; /* NAN: uncalibrated */
		uint32_t decision;
	} score[FINDINGS_MAX];
	uint32_t n_maps;
	struct {
		uint32_t finding;
		uint8_t shade[IPC_MAP_SIDE_MAX * IPC_MAP_SIDE_MAX];
	} map[IPC_MAPS_MAX];         /* strongest first */
};

struct ipc_composed {
	struct ipc_header h;
	int32_t result; /* 0 or a negative errno */
	uint32_t zero;
	uint64_t size;
	char why[IPC_WHY_MAX];
};

struct ipc_died { /* the process that worked on this job is gone */
	struct ipc_header h;
	int32_t signal; /* 0: exited */
	int32_t exit_code;
	uint8_t timed_out;
	uint8_t zero[7];
};

struct ipc_model {
	struct ipc_header h;
	char name[64], family[64];
	uint32_t domain;
	uint32_t n_findings;
	uint32_t side; /* of the square that it takes */
	uint32_t crop, map_side; /* of the middle of it that it looks at, and of the maps over that */
	uint32_t zero;
	uint8_t weights[DIGEST_SIZE], findings[DIGEST_SIZE];
};

struct ipc_scored {
	struct ipc_header h;
	int32_t result;
	uint32_t n;
	uint32_t microseconds;
	uint32_t kept; /* 1: the embedding is in its file, synced */
	float logit[FINDINGS_MAX];
};

struct ipc_deliver { /* + n report files (read), in order of preference */
	struct ipc_header h;
	uint32_t n;
	uint32_t zero;
	char sop_class[IPC_CLASSES_MAX][UID_MAX];
};

struct ipc_chose {
	struct ipc_header h;
	uint32_t index;
	uint32_t zero;
};

struct ipc_ask { /* for storage commitment to one object; ASKED, a struct ipc_sent, answers */
	struct ipc_header h;
	char transaction[UID_MAX], sop_class[UID_MAX], sop_uid[UID_MAX];
	uint8_t wait; /* on the same association for what is told */
	uint8_t zero[4];
};

struct ipc_committed { /* ANSWER answers an association child */
	struct ipc_header h;
	char transaction[UID_MAX], sop_uid[UID_MAX];
	char calling_ae[AE_TITLE_MAX]; /* of the association on which it was told */
	uint8_t failed;
	uint16_t reason; /* (0008,1197) */
	uint8_t zero[2];
};

struct ipc_go {
	struct ipc_header h;
	uint32_t go; /* 0: drop it */
	uint32_t zero;
};

struct ipc_sent {
	struct ipc_header h;
	uint32_t failure; /* enum scu_failure */
	int32_t status;   /* DIMSE status or -1 */
	char why[IPC_WHY_MAX];
};

struct ipc_notice {
	struct ipc_header h;
	uint64_t id;
	char event[24];
	char body[2048]; /* JSON */
};

struct ipc_told {
	struct ipc_header h;
	uint8_t good; /* the other side has it */
	uint8_t zero[7];
	char why[IPC_WHY_MAX];
};

union ipc_message {
	struct ipc_header h;
	struct ipc_plain plain;
	struct ipc_score score;
	struct ipc_listening listening;
	struct ipc_admit admit;
	struct ipc_channel channel;
	struct ipc_object object;
	struct ipc_status status;
	struct ipc_ended ended;
	struct ipc_decode decode;
	struct ipc_decoded decoded;
	struct ipc_compose compose;
	struct ipc_composed composed;
	struct ipc_died died;
	struct ipc_model model;
	struct ipc_scored scored;
	struct ipc_deliver deliver;
	struct ipc_chose chose;
	struct ipc_ask ask;
	struct ipc_committed committed;
	struct ipc_go go;
	struct ipc_sent sent;
	struct ipc_notice notice;
	struct ipc_told told;
};

/* Zeroes the message and fills its header. */
void ipc_begin(union ipc_message *m, enum ipc_type type, uint64_t token);

/* Sends with the size that the type has.  The descriptors stay the caller's. */
int ipc_send(int sock, const union ipc_message *m, const int *fds, size_t n_fds);

/* Receives and checks one message that `from` may send.  1: a message; 0: end of file; -EAGAIN:
 * nothing waits; -EPROTO: the peer broke the rules (descriptors are closed). */
int ipc_receive(int sock, enum ipc_role from, union ipc_message *m, int *fds, size_t *ret_n_fds);

/* The judge, alone: for tests and the fuzzer. */
int ipc_check(enum ipc_role from, const union ipc_message *m, size_t n, size_t n_fds);

const char *ipc_type_name(uint32_t type);

#endif
