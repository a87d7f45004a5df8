#include "base/random.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/hash.h"
#include "base/memory.h"

void random_bytes(void *ret_bytes, size_t n)
{
    unsigned char *at = ret_bytes;
    while (n > 0) {
        ssize_t got = getrandom(at, n, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) { /* a predictable identifier or token would be worse than no process */
            perror("getrandom");
            abort();
        }
        at += got;
        n -= (size_t)got;
    }
}

/* Uniform by rejection (Lemire, "Fast Random Integer Generation in an Interval", 2019): a loop that almost
 * never turns. */
static uint64_t below(uint64_t bound, uint64_t (*next)(void *), void *arg)
{
    if (bound == 0) return 0;
    unsigned __int128 product = (unsigned __int128)next(arg) * bound;
    if ((uint64_t)product < bound) {
        uint64_t threshold = (0 - bound) % bound;
        while ((uint64_t)product < threshold)
            product = (unsigned __int128)next(arg) * bound;
    }
    return (uint64_t)(product >> 64);
}

static uint64_t next_from_system(void *arg)
{
    (void)arg;
    uint64_t value;
    random_bytes(&value, sizeof(value));
    return value;
}

uint64_t random_below(uint64_t bound)
{
    return below(bound, next_from_system, NULL);
}

/* Each call through the gateway has one: 32 are fetched at a time. A child of fork() fetches its own. */
static _Thread_local struct {
    unsigned char bytes[32 * 16];
    size_t n_left;
} spare;

static void forget_spare(void)
{
    spare.n_left = 0;
}

static void register_fork(void)
{
    if (pthread_atfork(NULL, NULL, forget_spare) != 0) abort();
}

static void take_spare(unsigned char ret_bytes[16])
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (spare.n_left == 0) {
        (void)pthread_once(&once, register_fork);
        random_bytes(spare.bytes, sizeof(spare.bytes));
        spare.n_left = sizeof(spare.bytes);
    }
    spare.n_left -= 16;
    memcpy(ret_bytes, spare.bytes + spare.n_left, 16);
    mem_wipe(spare.bytes + spare.n_left, 16);
}

void random_uuid(char ret_text[UUID_LEN + 1])
{
    unsigned char bytes[16];
    take_spare(bytes);
    bytes[6] = (unsigned char)((bytes[6] & 0x0F) | 0x40); /* version 4 */
    bytes[8] = (unsigned char)((bytes[8] & 0x3F) | 0x80); /* variant of RFC 9562 */
    /* Groups of 4, 2, 2, 2 and 6 bytes; each hex_encode writes a NUL where the next dash goes. */
    static const unsigned char group[] = {4, 2, 2, 2, 6};
    const unsigned char *from = bytes;
    for (size_t i = 0; i < sizeof(group); i++) {
        hex_encode(from, group[i], ret_text);
        from += group[i];
        ret_text += 2 * group[i];
        if (i + 1 < sizeof(group)) *ret_text++ = '-';
    }
}

uint64_t random_seeded_next(struct random_seeded *r)
{
    /* splitmix64, Steele, Lea, Flood 2014; constants of https://prng.di.unimi.it/splitmix64.c */
    uint64_t z = (r->state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static uint64_t next_from_seed(void *arg)
{
    return random_seeded_next(arg);
}

uint64_t random_seeded_below(struct random_seeded *r, uint64_t bound)
{
    return below(bound, next_from_seed, r);
}
