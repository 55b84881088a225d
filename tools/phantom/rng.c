/* rng.c: splitmix64 (Steele, Lea and Flood, 2014): small, fast, and equal on every machine.
 *
 * Job: repeatable chance for shapes, textures and grain.  It is not for secrets.
 */
#include "rng.h"

uint64_t rng_mix(uint64_t v)
{
	v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9u;
	v = (v ^ (v >> 27)) * 0x94d049bb133111ebu;
	return v ^ (v >> 31);
}

struct rng rng_open(uint64_t seed, uint64_t purpose)
{
	/* Mixed twice: seeds 1, 2, 3... and purposes 1, 2, 3... must not give neighbouring streams. */
	return (struct rng){ .state = rng_mix(rng_mix(seed + 0x9e3779b97f4a7c15u) ^
					      (purpose * 0xd1342543de82ef95u)) };
}

uint64_t rng_u64(struct rng *r)
{
	r->state += 0x9e3779b97f4a7c15u;
	return rng_mix(r->state);
}

float rng_range(struct rng *r, float lo, float hi)
{
	float u = (float)(rng_u64(r) >> 40) * (1.0f / 16777216.0f);

	return lo + (hi - lo) * u;
}

float rng_bell(struct rng *r)
{
	uint64_t v = rng_u64(r);
	int sum = (int)(v & 0xffff) + (int)(v >> 16 & 0xffff) + (int)(v >> 32 & 0xffff) + (int)(v >> 48);

	/* Four uniforms of variance 1/12: deviation sqrt(1/3) of their range. */
	return (float)(sum - 2 * 65535) * (1.7320508f / 65536.0f);
}

unsigned rng_below(struct rng *r, unsigned n)
{
	return (unsigned)((rng_u64(r) >> 32) * n >> 32);
}
