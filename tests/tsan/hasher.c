/* The hasher's threads under ThreadSanitizer: every batch comes back once, in order, with the hashes that one
 * thread would have made. */
#include "audit/hasher.h"

#include <string.h>

#include "tests/contract/check.h"

enum { BATCHES = 400 };

static void fill(struct hasher_batch *b, uint64_t number)
{
    b->n = (size_t)(number % 50);
    b->entries = arena_array(&b->arena, b->n + 1, sizeof(*b->entries));
    for (size_t i = 0; i < b->n; i++)
        b->entries[i].bytes =
            arena_printf(&b->arena, "record %zu of batch %llu", i, (unsigned long long)number);
}

static void check(const struct hasher_batch *b, uint64_t number)
{
    CHECK(b->n == number % 50);
    for (size_t i = 0; i < b->n; i++) {
        struct merkle_hash leaf = merkle_leaf(b->entries[i].bytes);
        CHECK(memcmp(&leaf, &b->leaves[i], sizeof(leaf)) == 0);
    }
}

static void run(unsigned threads)
{
    struct hasher *h = hasher_new(threads);
    struct hasher_batch *b;
    uint64_t put = 0, got = 0;
    while (got < BATCHES) {
        while (put < BATCHES && (b = hasher_next(h)) != NULL) {
            fill(b, put++);
            hasher_put(h, b);
        }
        b = hasher_get(h);
        CHECK(b != NULL);
        check(b, got++);
        hasher_done(h, b);
    }
    CHECK(hasher_get(h) == NULL);
    CHECK((b = hasher_next(h)) != NULL);
    fill(b, 7);
    hasher_put(h, b); /* freed with work on its way */
    hasher_free(h);
}

int main(void)
{
    for (unsigned threads = 0; threads <= HASHER_THREADS_MAX; threads++)
        run(threads);
    puts("hasher: ok");
    return 0;
}
