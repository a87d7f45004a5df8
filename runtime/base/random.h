/* Randomness for identifiers and tokens (getrandom), and a seedable generator where a choice must be
 * replayable. */
#ifndef BALM_BASE_RANDOM_H
#define BALM_BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

void random_bytes(void *ret_bytes, size_t n); /* never fails: no entropy source ends the process */
/* Uniform in [0, bound); bound 0 gives 0. Not replayable: for jitter. */
uint64_t random_below(uint64_t bound);
#define UUID_LEN 36
void random_uuid(char ret_text[UUID_LEN + 1]); /* version 4, lower case */

/* splitmix64: same seed, same sequence, on every machine. */
struct random_seeded {
    uint64_t state;
};
/* The next of its sequence, over all 64 bits. */
uint64_t random_seeded_next(struct random_seeded *r);
uint64_t random_seeded_below(struct random_seeded *r, uint64_t bound);

#endif
