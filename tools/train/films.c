/* films.c: writes a range of a set of phantoms, for training and for its evidence (films.h).
 *
 *	films --set S [--first I] --count N --pixels FILE --labels FILE     256x256 bytes a film; records below
 *	films --set S [--first I] --count N --dicom DIR                     DIR/000000.dcm ..., as a modality sends
 *
 * A file is there whole or not at all.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "films.h"
#include "rng.h"

enum { SIDE = 256, DICOM_SIDE = 512, KINDS = PHANTOM_KINDS, CELLS = PHANTOM_CELLS * PHANTOM_CELLS };

/* One film's labels, read by tools/train/data.py; bytes as the machine has them. */
struct record {
	uint64_t seed;
	uint8_t view, female, age, findings;
	uint8_t pad[4];
	struct {
		uint8_t kind, side, size, lobe;
		uint16_t box[4];
		float contrast;
	} finding[FILMS_FINDINGS];
	uint8_t cover[KINDS][CELLS];    /* 255 for a cell that is full of it */
};

struct job {
	uint64_t set, first, count;
	const char *pixels, *labels, *dicom;
};

static int usage(void)
{
	(void)fputs("usage: films --set S [--first I] --count N (--pixels FILE --labels FILE | --dicom DIR)\n", stderr);
	return 2;
}

static bool number(const char *s, uint64_t most, uint64_t *ret)
{
	char *end;

	if (*s < '0' || *s > '9')
		return false;
	errno = 0;
	*ret = strtoull(s, &end, 10);
	return errno == 0 && *end == '\0' && *ret <= most;
}

static void describe(const struct phantom_spec *spec, const struct phantom_film *film, struct record *ret)
{
	struct phantom_person who = phantom_person_of(spec->seed);

	memset(ret, 0, sizeof(*ret));
	ret->seed = spec->seed;
	ret->view = (uint8_t)spec->view;
	ret->female = who.female;
	ret->age = (uint8_t)who.age;
	ret->findings = (uint8_t)film->findings;
	for (size_t i = 0; i < film->findings; i++) {
		const struct phantom_finding *f = &film->finding[i];

		ret->finding[i].kind = (uint8_t)f->kind;
		ret->finding[i].side = (uint8_t)f->side;
		ret->finding[i].size = (uint8_t)f->size;
		ret->finding[i].lobe = (uint8_t)f->lobe;
		ret->finding[i].box[0] = (uint16_t)f->box.x0;
		ret->finding[i].box[1] = (uint16_t)f->box.y0;
		ret->finding[i].box[2] = (uint16_t)f->box.x1;
		ret->finding[i].box[3] = (uint16_t)f->box.y1;
		ret->finding[i].contrast = f->contrast;
		for (size_t c = 0; c < CELLS; c++) {
			float v = film->cover[i][c] * 255 + .5f;
			uint8_t *cell = &ret->cover[f->kind][c];

			*cell = v > *cell ? v < 255 ? (uint8_t)v : 255 : *cell;
		}
	}
}

static int write_arrays(const struct job *j, FILE *pixels, FILE *labels)
{
	static uint8_t grey[SIDE * SIDE];
	struct phantom_spec spec;
	struct phantom_film film;
	struct record rec;
	int r;

	for (uint64_t i = 0; i < j->count; i++) {
		r = films_render(j->set * FILMS_IN_SET + j->first + i, SIDE, &spec, &film);
		if (r < 0)
			return r;
		for (size_t k = 0; k < sizeof(grey); k++) {
			float v = film.px[k];

			grey[k] = (uint8_t)((v < 0 ? 0 : v > 1 ? 1 : v) * 255 + .5f);
		}
		describe(&spec, &film, &rec);
		phantom_film_free(&film);
		if (fwrite(grey, sizeof(grey), 1, pixels) != 1 || fwrite(&rec, sizeof(rec), 1, labels) != 1)
			return -EIO;
	}
	return fflush(pixels) == EOF || fflush(labels) == EOF ? -EIO : 0;
}

/* CR and DX, 12 to 16 bits, now and then inverted: what a node has to read. */
static int write_dicom(const struct job *j, uint64_t i)
{
	char path[PATH_MAX], uid[3][65], id[40], name[40], accession[17];
	struct phantom_spec spec;
	struct phantom_film film;
	struct phantom_dicom d = { .charset = "ISO_IR 100", .tagged = true };
	uint64_t seed = j->set * FILMS_IN_SET + j->first + i;
	uint8_t *bytes;
	FILE *f;
	size_t n;
	int r;

	r = films_render(seed, DICOM_SIDE, &spec, &film);
	if (r < 0)
		return r;
	d.modality = seed % 2 ? "DX" : "CR";
	d.bits = 12 + (unsigned)(seed % 3) * 2;
	d.inverted = seed % 5 == 0;
	d.view = spec.view;
	d.person = phantom_person_of(seed);
	d.seed = seed;
	(void)snprintf(id, sizeof(id), "PHANTOM-%llu", (unsigned long long)seed);
	(void)snprintf(name, sizeof(name), "Phantom^Seed%llu", (unsigned long long)seed);
	(void)snprintf(accession, sizeof(accession), "F%015llu", (unsigned long long)(seed % 1000000000000000u));
	for (unsigned k = 0; k < 3; k++)
		(void)snprintf(uid[k], sizeof(uid[k]), "2.25.%llu%u",
			       (unsigned long long)(rng_mix(seed) >> 4 | 1ull << 58), k);
	d.patient_id = id;
	d.patient_name = name;
	d.accession = accession;
	d.study_uid = uid[0];
	d.series_uid = uid[1];
	d.instance_uid = uid[2];
	r = phantom_write_dicom(&film, &d, &bytes, &n);
	phantom_film_free(&film);
	if (r < 0)
		return r;
	(void)snprintf(path, sizeof(path), "%s/%06llu.dcm", j->dicom, (unsigned long long)i);
	f = fopen(path, "wb");
	if (!f || fwrite(bytes, n, 1, f) != 1)
		r = -EIO;
	if (f && fclose(f) != 0)
		r = -EIO;
	free(bytes);
	return r;
}

/* Written beside it and renamed: training that waits for a part never reads half of it. */
static FILE *open_new(const char *path, char *ret_new, size_t size)
{
	return snprintf(ret_new, size, "%s.new", path) < (int)size ? fopen(ret_new, "wb") : NULL;
}

static int run(const struct job *j)
{
	char pixels[PATH_MAX], labels[PATH_MAX];
	FILE *p, *l;
	int r = 0;

	if (j->dicom) {
		if (mkdir(j->dicom, 0777) < 0 && errno != EEXIST)
			return -errno;
		for (uint64_t i = 0; r == 0 && i < j->count; i++)
			r = write_dicom(j, i);
		return r;
	}
	p = open_new(j->pixels, pixels, sizeof(pixels));
	l = open_new(j->labels, labels, sizeof(labels));
	r = p && l ? write_arrays(j, p, l) : -EIO;
	if ((p && fclose(p) != 0) || (l && fclose(l) != 0))
		r = -EIO;
	/* Labels first: pixels that are there have their labels. */
	if (r == 0 && (rename(labels, j->labels) < 0 || rename(pixels, j->pixels) < 0))
		r = -errno;
	return r;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "set", required_argument, NULL, 's' },    { "first", required_argument, NULL, 'f' },
		{ "count", required_argument, NULL, 'c' },  { "pixels", required_argument, NULL, 'p' },
		{ "labels", required_argument, NULL, 'l' }, { "dicom", required_argument, NULL, 'd' },
		{ NULL, 0, NULL, 0 },
	};
	struct job j = { .count = 0 };
	bool good = true, has_set = false;
	int opt, r;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 's')
			has_set = good = number(optarg, FILMS_SETS - 1, &j.set) && good;
		else if (opt == 'f')
			good = number(optarg, FILMS_IN_SET - 1, &j.first) && good;
		else if (opt == 'c')
			good = number(optarg, FILMS_IN_SET, &j.count) && good;
		else if (opt == 'p')
			j.pixels = optarg;
		else if (opt == 'l')
			j.labels = optarg;
		else if (opt == 'd')
			j.dicom = optarg;
		else
			good = false;
	}
	if (!good || !has_set || j.count == 0 || j.first + j.count > FILMS_IN_SET || optind != argc ||
	    !j.pixels != !j.labels || !j.pixels == !j.dicom)
		return usage();
	r = run(&j);
	if (r < 0)
		(void)fprintf(stderr, "films: %s: %s\n", j.dicom ? j.dicom : j.pixels, strerror(-r));
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
