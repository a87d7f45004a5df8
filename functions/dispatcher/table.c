#include "functions/dispatcher/table.h"

#include <assert.h>
#include <stdlib.h>

#include "base/hash.h"
#include "base/memory.h"
#include "base/random.h"

enum { FIRST_CAPACITY = 64 };

void table_release(struct table *t)
{
    free(t->slots);
    *t = (struct table){0};
}

static uint64_t hash_of(const struct table *t, struct strview key)
{
    uint64_t h = fnv1a_add(FNV1A_START ^ t->salt, key);
    return h ^ (h >> 32); /* FNV's low bits alone are weak */
}

/* Slot that holds the key, or the free one where it would go. */
static size_t probe(const struct table *t, struct strview key, uint64_t hash)
{
    size_t at = hash & (t->capacity - 1);
    while (t->slots[at].value != NULL && (t->slots[at].hash != hash || !sv_eq(t->slots[at].key, key)))
        at = (at + 1) & (t->capacity - 1);
    return at;
}

static void grow(struct table *t)
{
    struct table old = *t;
    if (old.capacity == 0) random_bytes(&t->salt, sizeof(t->salt));
    t->capacity = old.capacity == 0 ? FIRST_CAPACITY : 2 * old.capacity;
    t->slots = mem_zalloc(t->capacity, sizeof(*t->slots));
    for (size_t i = 0; i < old.capacity; i++) {
        struct table_slot *s = &old.slots[i];
        if (s->value == NULL) continue;
        /* The first growth makes the salt; later ones keep it and with it the hashes. */
        t->slots[probe(t, s->key, s->hash)] = *s;
    }
    free(old.slots);
}

void *table_get(const struct table *t, struct strview key)
{
    if (t->n == 0) return NULL;
    return t->slots[probe(t, key, hash_of(t, key))].value;
}

void table_put(struct table *t, struct strview key, void *value)
{
    assert(value != NULL);
    if (4 * (t->n + 1) > 3 * t->capacity) grow(t);
    uint64_t hash = hash_of(t, key);
    struct table_slot *s = &t->slots[probe(t, key, hash)];
    if (s->value == NULL) t->n++;
    *s = (struct table_slot){key, hash, value};
}

void *table_remove(struct table *t, struct strview key)
{
    if (t->n == 0) return NULL;
    size_t hole = probe(t, key, hash_of(t, key));
    void *value = t->slots[hole].value;
    if (value == NULL) return NULL;
    t->n--;
    /* Close the gap: move back each follower whose home is not between the hole and its place. */
    size_t mask = t->capacity - 1;
    for (size_t at = (hole + 1) & mask; t->slots[at].value != NULL; at = (at + 1) & mask) {
        size_t home = t->slots[at].hash & mask;
        if (((at - home) & mask) < ((at - hole) & mask)) continue;
        t->slots[hole] = t->slots[at];
        hole = at;
    }
    t->slots[hole] = (struct table_slot){0};
    return value;
}
