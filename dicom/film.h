/* film.h: the self-test's film, under names of its own.
 */
#ifndef CARZEROD_DICOM_FILM_H
#define CARZEROD_DICOM_FILM_H

#include <stddef.h>

#include "base/err.h"
#include "base/str.h"

#ifdef __cplusplus
extern "C" {
#endif

struct film_names {
	char study_uid[UID_MAX], series_uid[UID_MAX], sop_uid[UID_MAX], sop_class[UID_MAX]; /* the class: out */
	char date[9], time[14]; /* of study, series, acquisition and content */
	const char *study_description;
};

/* A Part 10 file in memory, uncompressed, written anew with these names: *ret is free()d by the caller. */
int dicom_film_renew(const void *file, size_t n, struct film_names *names, void **ret, size_t *ret_n, struct err *e);

#ifdef __cplusplus
}
#endif
#endif
