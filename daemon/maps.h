/* maps.h: which of the model's attention maps are kept and shown, and in what form.
 *
 * A map says where attention went while one finding was scored; it is not the outline of a lesion.
 * Most findings of most films are not there, and a map of what is not there misleads, so few are kept:
 *
 *	the findings decided Present, most probable first, at most MAPS_MAX;
 *	when there is none, the most probable Undetermined one;
 *	when there is none either, the uncalibrated one with the highest raw score.
 *
 * An Absent finding is never shown.  Raw scores of different findings share no scale (their
 * zeros differ), so the last rule picks something to look at, and says nothing about the film.
 */
#ifndef CARZEROD_DAEMON_MAPS_H
#define CARZEROD_DAEMON_MAPS_H

#include <stddef.h>
#include <stdint.h>

#include "store/store.h"

#define MAPS_MAX 3

/* ret: places in the list, strongest first.  Returns how many. */
size_t maps_choose(const struct score *scores, size_t n, size_t ret[MAPS_MAX]);

/* map: [n] shares of attention.  Each as a byte, 255 the largest.  -ERANGE when one is negative or no
 * number, or none is positive; -E2BIG over STORE_MAP_BYTES_MAX. */
int maps_shade(const float *map, size_t n, struct score_map *ret);

#endif
