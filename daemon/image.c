/* image.c: carzerod-image: parses and decodes what strangers sent, and composes reports.
 *
 * A single-threaded parent warms DCMTK up and then forks a child for every job.  The child works on
 * the descriptors of its job under seccomp, with limits on memory, CPU time and wall time, answers
 * its parent on a channel of its own and ends; the parent passes the answer on.  So a bomb is one process's problem, a stuck decoder can be killed, and
 * nothing that one patient's image did to memory is there when the next one comes.
 *
 * A child never sees the database, the spool's folders or the network.  Image and model meet here
 * as plain arrays: dicom/ gives grey levels, model/preprocess makes the square.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/digest.h"
#include "base/failpoint.h"
#include "base/fdio.h"
#include "base/log.h"
#include "base/mem.h"

#include "model/model.h"
#include "model/preprocess.h"

#include "dicom/dicom.h"
#include "dicom/image.h"
#include "dicom/page.h"
#include "dicom/sc.h"
#include "dicom/scp.h"
#include "dicom/sr.h"

#include "daemon/begin.h"
#include "daemon/config.h"
#include "daemon/findings.h"
#include "daemon/ipc.h"
#include "daemon/sandbox.h"

#define JOB_FILES 128 /* descriptors of a child: a report of 64 images and some */
#define OUTPUT_BYTES_MAX (256u << 20) /* of a square or a report */
#define META_BYTES_MAX 65536 /* preamble and File Meta around a data set */
#define MIN_IMAGE_SIDE 64
#define SEQUENCE_DEPTH_MAX 16
#define SEQUENCE_ITEMS_MAX 10000
#define FRAGMENTS_MAX 4096
#define DISCLAIMER                                                                                 \
	"AI result, not verified by a physician. Not a medical device. For research and quality "  \
	"assurance; do not base a decision on it."
#define PAGE_TEXTS (FINDINGS_MAX + 8)

struct job {
	pid_t pid; /* 0: free */
	int sock;  /* the child's only channel: it cannot speak for, or listen to, another job */
	uint64_t token;
	int64_t deadline; /* boot ms */
	bool timed_out, answered;
};

static struct job jobs[IPC_IMAGE_JOBS_MAX];

/* ---- decode, in the child ------------------------------------------------------------------------ */

/* A stored object mapped read-only; ended by the process. */
struct mapped {
	const uint8_t *p;
	size_t n;
	struct spooled spooled;
};

static int map_object(int fd, uint64_t max, struct mapped *ret)
{
	struct stat st;
	void *p;
	int r;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size <= 0 || (uint64_t)st.st_size > max + META_BYTES_MAX)
		return -EBADMSG;
	r = spooled_read(fd, &ret->spooled);
	if (r < 0)
		return r;
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	ret->p = p;
	ret->n = (size_t)st.st_size;
	return 0;
}

static void set_reason(struct ipc_decoded *d, enum image_reason reason, const char *why)
{
	d->reason = reason;
	(void)str_copy(d->why, sizeof(d->why), why);
}

/* The recipe's grey levels into the square that the model takes. */
static void make_square(const struct config *config, struct dicom_image *image, size_t side, int out,
			struct ipc_decoded *d)
{
	size_t n = image->width * image->height; /* within limits: checked by the decoder */
	CLEANUP(free) uint8_t *mimic = NULL;
	CLEANUP(free) uint8_t *square = xcalloc(side, side);
	const uint8_t *gray = image->window;
	struct letterbox box;
	int r;

	if (config->recipe == RECIPE_MIMIC) {
		mimic = malloc(n);
		if (mimic == NULL)
			_exit(FATAL_TEMPORARY);
		preprocess_mimic(image->stored, n, image->monochrome1, mimic);
		gray = mimic;
	}
	r = preprocess_letterbox(gray, image->width, image->height, side, square, &box);
	if (r < 0) {
		set_reason(d, IMAGE_TOO_SMALL, "the aspect ratio leaves no pixel of the shorter side");
		return;
	}
	r = write_full(out, square, side * side);
	if (r < 0)
		fatal(FATAL_IO, "square: %s", strerror(-r));
}

static struct dicom_limits limits_of(const struct config *config)
{
	return (struct dicom_limits){
		.side = config->limits.image_side,
		.pixels = config->limits.image_pixels,
		.min_side = MIN_IMAGE_SIDE,
		.depth = SEQUENCE_DEPTH_MAX,
		.items = SEQUENCE_ITEMS_MAX,
		.fragments = FRAGMENTS_MAX,
	};
}

static void decode(const struct config *config, const struct ipc_decode *job, const int *fds,
		   struct ipc_decoded *d)
{
	const struct dicom_limits limits = limits_of(config);
	const struct gate_rules rules = {
		.check_view = config->gate != GATE_OFF,
		.min_age = config->min_age,
	};
	struct dicom_image *image;
	struct mapped object;
	uint8_t digest[DIGEST_SIZE];
	char why[IMAGE_WHY_MAX];
	enum image_reason reason;
	int r = map_object(fds[0], config->limits.object_bytes, &object);

	if (r < 0) {
		set_reason(d, IMAGE_NOT_DICOM, "the stored file cannot be read back");
		return;
	}
	digest_of(object.p + object.spooled.offset, object.n - object.spooled.offset, digest);
	failpoint_about("image.decode", digest);
	if (memcmp(digest, job->digest, DIGEST_SIZE) != 0) {
		/* not the image's fault: the disk changed what was acknowledged */
		log_error("object digest differs from the one acknowledged; check the disk under state_dir");
		_exit(FATAL_IO);
	}
	r = dicom_image_decode(object.p, object.n, &limits, &image);
	if (r < 0)
		_exit(FATAL_TEMPORARY);
	d->rows = image->facts.rows;
	d->columns = image->facts.columns;
	d->quality_control = image->facts.quality_control;
	(void)str_copy(d->sop_uid, UID_MAX, image->facts.sop_uid);
	(void)str_copy(d->study_uid, UID_MAX, image->facts.study_uid);
	memcpy(d->patient, image->facts.patient, DIGEST_SIZE);
	memcpy(d->content, image->facts.content, DIGEST_SIZE);
	set_reason(d, image->reason, image->why);
	if (image->reason != IMAGE_OK)
		return;
	reason = gate_decide(&rules, &image->facts, why);
	set_reason(d, reason, why);
	if (reason == IMAGE_OK)
		make_square(config, image, job->side, fds[1], d);
}

/* ---- compose, in the child ------------------------------------------------------------------------ */

struct report_job {
	const struct ipc_compose *m;
	const struct ipc_report_image *images;
};

static int map_images(int fd, const struct ipc_compose *m, struct report_job *ret)
{
	size_t n = m->n_images * sizeof(struct ipc_report_image);
	struct stat st;
	void *p;

	if (fstat(fd, &st) < 0 || st.st_size != (off_t)n)
		return -EPROTO;
	p = mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	*ret = (struct report_job){ m, p };
	return 0;
}

/* What a reader needs to judge a score, one parameter a line (TID 4019 row 3). */
static char *parameters_of(const struct finding *f, bool calibrated)
{
	const struct operating_points *p = &f->points;
	char *text = xcalloc(1, 2048);
	size_t size = 2048, n = 0;

	if (!calibrated) {
		(void)snprintf(text, size, "score=raw logit");
		return text;
	}
	n += (size_t)snprintf(text + n, size - n, "calibration=%.400s\nprevalence=%.4f", f->calibration.origin,
			      f->calibration.prevalence);
	if (p->has_lo && n < size)
		n += (size_t)snprintf(text + n, size - n, "\nabsent_below=%.4f sensitivity=%.3f", p->lo,
				      p->lo_sensitivity);
	if (p->has_hi && n < size)
		n += (size_t)snprintf(text + n, size - n, "\npresent_from=%.4f sensitivity=%.3f ppv=%.3f alarm_rate=%.3f",
				      p->hi, p->hi_sensitivity, p->hi_ppv, p->hi_alarm_rate);
	if ((p->has_lo || p->has_hi) && n < size)
		(void)snprintf(text + n, size - n, "\noperating_points=%.400s", p->origin);
	return text;
}

static bool any_calibrated(const struct report_job *job, size_t finding)
{
	uint32_t i;

	for (i = 0; i < job->m->n_images; i++) {
		if (job->images[i].analysed && finding < job->images[i].n_scores &&
		    job->images[i].score[finding].decision != DECISION_NONE)
			return true;
	}
	return false;
}

static struct sr_finding *findings_for_report(const struct findings *list, const struct report_job *job)
{
	struct sr_finding *f = xcalloc(list->n, sizeof(*f));
	size_t i;

	for (i = 0; i < list->n; i++) {
		const struct finding *from = &list->finding[i];

		f[i] = (struct sr_finding){
			.id = from->id,
			.name = from->name,
			.prompt = from->prompt,
			.code = { from->code.value, from->code.scheme,
				  strcmp(from->name, from->own_name) == 0 ? from->code.meaning : from->name },
			.has_site = from->has_site,
			.site = { from->site.value, from->site.scheme, from->site.meaning },
			.absent_below = finding_absent_below(from),
			.present_from = from->points.has_hi ? from->points.hi : (double)NAN,
			.parameters = parameters_of(from, any_calibrated(job, i)),
		};
	}
	return f;
}

static int images_for_report(const struct config *config, const struct report_job *job,
			     const struct findings *list, const int *objects, struct sr_image *ret,
			     struct err *e)
{
	uint8_t digest[DIGEST_SIZE];
	uint32_t i, k;

	for (i = 0; i < job->m->n_images; i++) {
		const struct ipc_report_image *from = &job->images[i];
		struct sr_score *scores = xcalloc(list->n, sizeof(*scores));
		struct mapped object;
		int r = map_object(objects[i], config->limits.object_bytes, &object);

		if (r < 0)
			return err_set(e, r, "a stored object of this study cannot be read back");
		digest_of(object.p + object.spooled.offset, object.n - object.spooled.offset, digest);
		if (memcmp(digest, from->digest, DIGEST_SIZE) != 0)
			return err_set(e, -EIO, "a stored object differs from what was acknowledged; check the disk under state_dir");
		if (from->analysed && from->n_scores != list->n)
			return err_set(e, -EPROTO, "%u scores for a list of %zu findings", from->n_scores, list->n);
		for (k = 0; from->analysed && k < from->n_scores; k++) {
			scores[k].logit = from->score[k].logit;
			scores[k].probability = (double)from->score[k].probability;
			scores[k].decision = (enum sr_decision)from->score[k].decision;
		}
		ret[i] = (struct sr_image){
			.file = object.p,
			.file_size = object.n,
			.analysed = from->analysed != 0,
			.why = from->why,
			.scores = from->analysed ? scores : NULL,
		};
	}
	return 0;
}

/* The decoder's limits and the way from the square back to the film: `decode` went the same way. */
static int picture_of(const struct config *config, const struct ipc_compose *m, const struct ipc_report_image *from,
		      const struct sr_image *image, struct sr_picture **ret, struct err *e)
{
	const struct dicom_limits limits = limits_of(config);
	struct sr_picture *picture = xcalloc(1, sizeof(*picture));
	struct dicom_image *decoded;
	struct letterbox box;
	struct seen seen;
	uint32_t i;
	int r = dicom_image_decode(image->file, image->file_size, &limits, &decoded);

	if (r < 0)
		return err_set(e, r, "not enough memory for the picture of an image");
	if (decoded->reason != IMAGE_OK)
		return err_set(e, -EBADMSG, "an image that was scored does not decode any more: %s", decoded->why);
	free(decoded->stored); /* four bytes a pixel that no picture needs */
	decoded->stored = NULL;
	r = preprocess_place(decoded->width, decoded->height, m->side, &box);
	if (r < 0)
		return err_set(e, r, "an image that was scored has no place in the model's square any more");
	seen = preprocess_seen(&box, m->crop);
	picture->image = decoded;
	picture->map_x = seen.x;
	picture->map_y = seen.y;
	picture->map_width = seen.width;
	picture->map_height = seen.height;
	for (i = 0; i < from->n_maps && i < SR_MAPS_MAX; i++)
		picture->map[picture->n_maps++] = (struct sr_map){ from->map[i].finding, m->map_side, from->map[i].shade };
	*ret = picture;
	return 0;
}

/* Pictures of the images that this object shows. */
static int add_pictures(const struct config *config, const struct report_job *job, const struct sr_report *report,
			struct sr_image *images, struct err *e)
{
	size_t shown = sc_image_of_page(report, job->m->page), i;
	int r = 0;

	for (i = 0; r == 0 && i < report->n_images && job->m->object != OBJECT_SR; i++) {
		struct sr_picture *picture = NULL;

		if (!images[i].analysed || (job->m->object != OBJECT_PDF && i != shown))
			continue;
		r = picture_of(config, job->m, &job->images[i], &images[i], &picture, e);
		images[i].picture = picture;
	}
	return r;
}

static int write_object(const struct sr_report *report, const struct ipc_compose *m, int out, struct err *e)
{
	switch ((enum result_object)m->object) {
	case OBJECT_SR:
		return sr_write(report, out, e);
	case OBJECT_SC:
		return sc_write(report, m->page, out, e);
	case OBJECT_GSPS:
		return gsps_write(report, m->page, out, e);
	case OBJECT_PDF:
		return pdf_write(report, out, e);
	case OBJECT_COUNT:
		break;
	}
	return err_set(e, -EPROTO, "object %u is none that is made", m->object);
}

static int write_report(const struct config *config, const struct report_job *job,
			const struct findings *list, struct sr_image *images, int out,
			struct err *e)
{
	const struct ipc_compose *from = job->m;
	char findings_hex[DIGEST_HEX_MAX];
	struct sr_report report = {
		.sop_class = from->sop_class,
		.sop_uid = from->sop_uid,
		.series_uid = from->series_uid,
		.predecessor_sop_uid = from->predecessor_sop_uid,
		.predecessor_series_uid = from->predecessor_series_uid,
		.date = from->date,
		.time = from->time,
		.timezone = from->timezone,
		.language = list->language,
		.manufacturer = config->manufacturer,
		.model_name = from->model_name,
		.serial = from->serial,
		.software = PACKAGE_VERSION,
		.device_uid = from->device_uid,
		.station = config->station,
		.institution = config->institution,
		.series_description = config->series_description,
		.series_number = config->series_number + from->object,
		.whole_image_regions = config->report_regions == REGIONS_IMAGE,
		.weights_sha256 = from->weights,
		.findings_sha256 = findings_hex,
		.recipe = from->recipe,
		.precision = from->precision,
		.uid_namespace = from->uid_namespace,
		.disclaimer = from->domain == MODEL_CLINICAL ? DISCLAIMER : MODEL_STAMP ". " DISCLAIMER,
		.stamp = from->domain == MODEL_CLINICAL ? "" : MODEL_STAMP,
		.findings = findings_for_report(list, job),
		.n_findings = list->n,
		.images = images,
		.n_images = from->n_images,
	};
	int r;

	str_hex(findings_hex, list->digest, DIGEST_SIZE);
	r = add_pictures(config, job, &report, images, e);
	return r < 0 ? r : write_object(&report, from, out, e);
}

static void compose(const struct config *config, const struct ipc_compose *message, const int *fds,
		    struct ipc_composed *d)
{
	int out = fds[0];
	struct sr_image *images = xcalloc(message->n_images, sizeof(*images));
	struct report_job job = { NULL, NULL };
	struct findings *list = NULL;
	void *text = NULL;
	size_t n_text = 0;
	struct stat st;
	struct err e = { "" };
	int r = map_images(fds[1], message, &job);

	if (r == 0)
		r = read_file(fds[2], FINDINGS_BYTES_MAX, &text, &n_text);
	if (r == 0)
		r = findings_parse("kept findings list", text, n_text, &list, &e);
	if (r == 0)
		r = images_for_report(config, &job, list, fds + 3, images, &e);
	if (r == 0)
		r = write_report(config, &job, list, images, out, &e);
	/* the file is durable before the keeper hears of it */
	failpoint("image.composed");
	if (r == 0 && !failpoint_skips("image.fsync") && fsync(out) < 0)
		r = -errno;
	failpoint("image.synced");
	if (r == 0 && fstat(out, &st) < 0)
		r = -errno;
	if (r == 0)
		d->size = (uint64_t)st.st_size;
	d->result = r;
	(void)str_copy(d->why, sizeof(d->why), e.text[0] != '\0' ? e.text : r < 0 ? strerror(-r) : "");
}

/* ---- the child and its parent --------------------------------------------------------------------- */

static void work(const struct config *config, const union ipc_message *m, const int *fds)
	__attribute__((noreturn));
static void work(const struct config *config, const union ipc_message *m, const int *fds)
{
	union ipc_message answer;
	struct err e;
	/* a second of CPU time more than of time: the parent's clock speaks first, and names the limit in one way; this
	 * is for a parent that is itself stopped */
	int r = sandbox_limit(config->limits.image_memory, config->limits.image_seconds + 1, JOB_FILES, OUTPUT_BYTES_MAX,
			      &e);

	if (r == 0)
		r = sandbox_enter(SANDBOX_IMAGE, &e);
	if (r < 0)
		fatal(FATAL_OS, "%s", e.text);
	if (m->h.type == IPC_DECODE) {
		ipc_begin(&answer, IPC_DECODED, m->h.token);
		decode(config, &m->decode, fds, &answer.decoded);
	} else {
		ipc_begin(&answer, IPC_COMPOSED, m->h.token);
		compose(config, &m->compose, fds, &answer.composed);
	}
	_exit(ipc_send(IPC_FD, &answer, NULL, 0) < 0 ? FATAL_TEMPORARY : 0);
}

static struct job *job_slot(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(jobs); i++) {
		if (jobs[i].pid == 0)
			return &jobs[i];
	}
	return NULL;
}

static void tell_died(uint64_t token, int status, bool timed_out)
{
	union ipc_message m;

	ipc_begin(&m, IPC_DIED, token);
	if (WIFSIGNALED(status))
		m.died.signal = WTERMSIG(status);
	else
		m.died.exit_code = WEXITSTATUS(status);
	m.died.timed_out = timed_out;
	if (ipc_send(IPC_FD, &m, NULL, 0) < 0)
		_exit(0); /* the keeper is gone */
}

/* In the child: its own channel takes the place of the parent's. */
static void become_worker(int channel, int signals)
{
	sigset_t none;
	size_t i;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)close(signals);
	for (i = 0; i < ARRAY_SIZE(jobs); i++) {
		if (jobs[i].pid != 0)
			(void)close(jobs[i].sock);
	}
	if (dup3(channel, IPC_FD, O_CLOEXEC) < 0)
		_exit(FATAL_OS);
	(void)close(channel);
}

static void start_job(const struct config *config, const union ipc_message *m, const int *fds,
		      size_t n_fds, int signals)
{
	size_t expected = m->h.type == IPC_DECODE ? 2 : m->compose.n_images + 3;
	struct job *job = job_slot();
	int pair[2] = { -1, -1 };
	pid_t pid = -1;

	if (job != NULL && n_fds == expected && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0)
		pid = fork();
	if (pid == 0) {
		(void)close(pair[0]);
		become_worker(pair[1], signals);
		work(config, m, fds);
	}
	while (n_fds > 0)
		(void)close(fds[--n_fds]);
	if (pair[1] >= 0)
		(void)close(pair[1]);
	if (pid < 0) {
		if (pair[0] >= 0)
			(void)close(pair[0]);
		tell_died(m->h.token, FATAL_TEMPORARY << 8, false);
		return;
	}
	(void)fcntl(pair[0], F_SETFL, O_NONBLOCK);
	*job = (struct job){
		.pid = pid,
		.sock = pair[0],
		.token = m->h.token,
		.deadline = clock_boot_ms() + (int64_t)config->limits.image_seconds * 1000,
	};
}

/* A child's one answer, passed on under the name of its own job whatever it says it is about. */
static void pass_on(struct job *job)
{
	int fds[IPC_FDS_MAX];
	union ipc_message m;
	size_t n_fds = 0;

	if (job->answered || ipc_receive(job->sock, IPC_IMAGE, &m, fds, &n_fds) != 1)
		return;
	if (m.h.type != IPC_DECODED && m.h.type != IPC_COMPOSED)
		return; /* then its end is a death */
	job->answered = true;
	m.h.token = job->token;
	if (ipc_send(IPC_FD, &m, NULL, 0) < 0)
		_exit(0); /* the keeper is gone */
}

static void reap(void)
{
	int status;
	pid_t pid;
	size_t i;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (i = 0; i < ARRAY_SIZE(jobs); i++) {
			if (jobs[i].pid != pid)
				continue;
			if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
				pass_on(&jobs[i]);
			if (!jobs[i].answered)
				tell_died(jobs[i].token, status, jobs[i].timed_out);
			(void)close(jobs[i].sock);
			jobs[i].pid = 0;
		}
	}
}

/* Kills what is overdue; returns ms to the next deadline, -1 for none. */
static int enforce_deadlines(void)
{
	int64_t now = clock_boot_ms(), next = INT64_MAX;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(jobs); i++) {
		if (jobs[i].pid == 0 || jobs[i].timed_out)
			continue;
		if (now >= jobs[i].deadline) {
			jobs[i].timed_out = true;
			(void)kill(jobs[i].pid, SIGKILL);
		} else if (jobs[i].deadline < next)
			next = jobs[i].deadline;
	}
	return next == INT64_MAX ? -1 : (int)(next - now);
}

static void run(const struct config *config) __attribute__((noreturn));
static void run(const struct config *config)
{
	struct signalfd_siginfo info;
	union ipc_message m;
	struct err e;
	struct pollfd p[2];
	int fds[IPC_FDS_MAX], signals;
	size_t n_fds;
	sigset_t mask;
	int r;

	(void)sigemptyset(&mask);
	(void)sigaddset(&mask, SIGCHLD);
	(void)sigprocmask(SIG_BLOCK, &mask, NULL);
	signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signals < 0)
		fatal(FATAL_OS, "signalfd: %s", strerror(errno));
	if (sandbox_prepare(SANDBOX_IMAGE, &e) < 0 || sandbox_enter(SANDBOX_DISPATCHER, &e) < 0)
		fatal(FATAL_OS, "%s", e.text);
	begin_ready();
	p[0] = (struct pollfd){ .fd = IPC_FD, .events = POLLIN };
	p[1] = (struct pollfd){ .fd = signals, .events = POLLIN };
	for (;;) {
		if (poll(p, 2, enforce_deadlines()) < 0 && errno != EINTR)
			fatal(FATAL_OS, "poll: %s", strerror(errno));
		while (read(signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
			continue;
		reap();
		if (p[0].revents == 0)
			continue;
		n_fds = 0;
		r = ipc_receive(IPC_FD, IPC_KEEPER, &m, fds, &n_fds);
		if (r == 0)
			_exit(0);
		if (r < 0 || (m.h.type != IPC_DECODE && m.h.type != IPC_COMPOSE))
			fatal(FATAL_SOFTWARE, "channel: %s", r < 0 ? strerror(-r) : "not for us");
		start_job(config, &m, fds, n_fds, signals);
	}
}

/* ---- fonts, before the walls go up ---------------------------------------------------------------- */

static bool draws_pages(const struct config *config)
{
	size_t i;

	for (i = 0; i < config->n_peers; i++)
		if (config->peers[i].objects[OBJECT_SC] || config->peers[i].objects[OBJECT_PDF])
			return true;
	return false;
}

/* Every configured text that a page can show. */
static int prepare_pages(const struct config *config, struct err *e)
{
	const char *texts[PAGE_TEXTS];
	struct findings *list;
	size_t n = 0, i;
	int r = findings_load(config->findings, &list, NULL, NULL, e);

	if (r < 0)
		return r;
	for (i = 0; i < list->n; i++)
		texts[n++] = list->finding[i].name;
	texts[n++] = config->manufacturer;
	r = page_prepare(list->language, texts, n, e);
	findings_free(list);
	return r;
}

/* For carzerod --check-config: whether pages can be drawn with this machine's fonts. */
static void check_pages(const struct config *config) __attribute__((noreturn));
static void check_pages(const struct config *config)
{
	struct err e = { "" };

	if (draws_pages(config) && prepare_pages(config, &e) < 0)
		fatal(FATAL_CONFIG, "%s: names of findings cannot be drawn: %s", config->findings, e.text);
	exit(0);
}

int main(int argc, char **argv)
{
	const char *path = CONFIG_DEFAULT_PATH;
	struct config *config;
	bool check = false;
	struct err e;
	int c;

	log_open("carzerod-image", LOG_LEVEL_INFO);
	while ((c = getopt(argc, argv, "c:k")) != -1) {
		if (c != 'c' && c != 'k')
			fatal(FATAL_CONFIG, "started by carzerod(8), not by hand");
		if (c == 'c')
			path = optarg;
		check |= c == 'k';
	}
	if (config_load_running(path, &config, &e) < 0)
		fatal(FATAL_CONFIG, "%s", e.text);
	if (check)
		check_pages(config);
	log_set_level(config->log_level);
	if (fcntl(IPC_FD, F_SETFD, FD_CLOEXEC) < 0)
		fatal(FATAL_CONFIG, "no channel at descriptor %d: started by carzerod(8), not by hand", IPC_FD);
	if (dicom_init(true, &e) < 0)
		fatal(FATAL_CONFIG, "%s", e.text);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)prctl(PR_SET_DUMPABLE, 0); /* patient data pass through: no core, no ptrace by equals */
	dicom_image_warm_up();
	sr_warm_up();
	if (draws_pages(config) && prepare_pages(config, &e) < 0)
		log_warning("%s; drawn as '?' on pages", e.text);
	run(config);
}
