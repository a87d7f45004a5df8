#include "functions/alerts/event_ids.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"

#define SLOTS ((size_t)2 * EVENT_IDS_MAX) /* a power of two; never more than half full */

/* A ring of keys in the order in which they came, and a table with linear probing to find them. */
struct event_ids {
    uint64_t ring[EVENT_IDS_MAX];
    uint64_t slots[SLOTS]; /* 0: empty */
    size_t first, n;       /* of the ring */
};

struct event_ids *event_ids_new(void)
{
    return mem_zalloc(1, sizeof(struct event_ids));
}

void event_ids_free(struct event_ids *ids)
{
    free(ids);
}

/* An attribute has no NUL in it, so that no two pairs give one text. */
uint64_t event_ids_key(struct strview source, struct strview id)
{
    const struct strview parts[] = {source, sv_n("", 1), id};
    uint8_t digest[SHA256_BYTES];
    uint64_t key;
    sha256_parts(parts, 3, digest);
    memcpy(&key, digest, sizeof(key));
    return key != 0 ? key : 1;
}

/* Slot of the key, or the empty one where it would go. */
static size_t find_slot(const struct event_ids *ids, uint64_t key)
{
    size_t at = key & (SLOTS - 1);
    while (ids->slots[at] != 0 && ids->slots[at] != key)
        at = (at + 1) & (SLOTS - 1);
    return at;
}

/* Whatever probed past the gap moves back, so that no tombstones pile up. */
static void empty_slot(struct event_ids *ids, size_t at)
{
    for (size_t i = (at + 1) & (SLOTS - 1); ids->slots[i] != 0; i = (i + 1) & (SLOTS - 1)) {
        size_t home = ids->slots[i] & (SLOTS - 1);
        if (((i - home) & (SLOTS - 1)) < ((i - at) & (SLOTS - 1)))
            continue; /* its home lies behind the gap */
        ids->slots[at] = ids->slots[i];
        at = i;
    }
    ids->slots[at] = 0;
}

void event_ids_add(struct event_ids *ids, uint64_t key)
{
    if (key == 0 || event_ids_has(ids, key)) return;
    if (ids->n == EVENT_IDS_MAX) {
        empty_slot(ids, find_slot(ids, ids->ring[ids->first]));
        ids->first = (ids->first + 1) % EVENT_IDS_MAX;
        ids->n--;
    }
    ids->ring[(ids->first + ids->n++) % EVENT_IDS_MAX] = key;
    ids->slots[find_slot(ids, key)] = key;
}

bool event_ids_has(const struct event_ids *ids, uint64_t key)
{
    return key != 0 && ids->slots[find_slot(ids, key)] == key;
}

size_t event_ids_count(const struct event_ids *ids)
{
    return ids->n;
}

uint64_t event_ids_at(const struct event_ids *ids, size_t i)
{
    return ids->ring[(ids->first + i) % EVENT_IDS_MAX];
}
