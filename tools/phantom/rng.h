/* rng.h: the one source of chance in the phantom.
 *
 * A stream is 64 bits of state (splitmix64).  Streams are opened by seed and by a number that says what
 * the stream is for, so that drawing one more value for the heart does not move the ribs, and a film of
 * another size shows the same person.  Nothing here looks at the clock, at an address or at the locale.
 */
#ifndef PHANTOM_RNG_H
#define PHANTOM_RNG_H

#include <stddef.h>
#include <stdint.h>

struct rng {
	uint64_t state;
};

struct rng rng_open(uint64_t seed, uint64_t purpose);
uint64_t rng_u64(struct rng *r);
/* Uniform in [lo, hi). */
float rng_range(struct rng *r, float lo, float hi);
/* Bell-shaped, mean 0, deviation 1: the sum of four 16-bit uniforms, so that it needs no libm. */
float rng_bell(struct rng *r);
/* Uniform in 0..n-1; n at least 1. */
unsigned rng_below(struct rng *r, unsigned n);
/* Mixes a word: the same in, the same out.  For lattices and for UIDs. */
uint64_t rng_mix(uint64_t v);

#endif
