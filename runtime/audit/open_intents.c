#include "audit/open_intents.h"

#include <string.h>

#include "base/hash.h"
#include "base/json_scan.h"
#include "base/memory.h"

#define BUCKETS_START 1024

struct open_intent {
    struct open_intent *next;
    uint64_t seq;
    size_t len;
    char id[];
};

void open_intents_init(struct open_intents *t)
{
    *t = (struct open_intents){.n_buckets = BUCKETS_START};
    t->buckets = mem_zalloc(t->n_buckets, sizeof(struct open_intent *));
}

void open_intents_release(struct open_intents *t)
{
    for (size_t i = 0; i < t->n_buckets; i++)
        for (struct open_intent *o = t->buckets[i], *next; o != NULL; o = next) {
            next = o->next;
            free(o);
        }
    free(t->buckets);
    *t = (struct open_intents){0};
}

static struct open_intent **find(const struct open_intents *t, struct strview id)
{
    struct open_intent **at = &t->buckets[fnv1a_add(FNV1A_START, id) & (t->n_buckets - 1)];
    while (*at != NULL && !sv_eq(sv_n((*at)->id, (*at)->len), id))
        at = &(*at)->next;
    return at;
}

static void grow(struct open_intents *t)
{
    struct open_intents larger = {.n_buckets = t->n_buckets * 2};
    larger.buckets = mem_zalloc(larger.n_buckets, sizeof(struct open_intent *));
    for (size_t i = 0; i < t->n_buckets; i++)
        for (struct open_intent *o = t->buckets[i], *next; o != NULL; o = next) {
            next = o->next;
            struct open_intent **at = find(&larger, sv_n(o->id, o->len));
            o->next = *at;
            *at = o;
        }
    free(t->buckets);
    t->buckets = larger.buckets;
    t->n_buckets = larger.n_buckets;
}

static void add(struct open_intents *t, uint64_t seq, struct strview id)
{
    struct open_intent **at = find(t, id);
    if (id.len == 0 || *at != NULL) return;
    struct open_intent *o = mem_alloc(sizeof(*o) + id.len);
    *o = (struct open_intent){.seq = seq, .len = id.len};
    memcpy(o->id, id.ptr, id.len);
    *at = o;
    if (++t->n > t->n_buckets) grow(t);
}

static void take(struct open_intents *t, struct strview id)
{
    struct open_intent **at = find(t, id), *o = *at;
    if (o == NULL) return;
    *at = o->next;
    free(o);
    t->n--;
}

/* The members that matter, in their order. */
struct essence {
    uint64_t epoch;
    struct strview intent;
    enum record_kind kind;
};

/* Canonical bytes have their members in byte order: epoch < intent < kind, and what follows need not be read.
 */
static bool read_essence(struct strview bytes, struct arena *scratch, struct essence *ret_essence)
{
    struct json_scan s;
    struct strview name, text;
    bool is_first = true;
    *ret_essence = (struct essence){.kind = RECORD_NONE};
    json_scan_init(&s, bytes, scratch);
    if (!json_scan_open(&s, '{')) return false;
    while (json_scan_member(&s, &is_first, &name)) {
        if (sv_eq(name, SV("epoch"))) {
            if (!json_scan_integer(&s, &text) || sv_parse_u64(text, &ret_essence->epoch) != STATUS_OK)
                return false;
        } else if (sv_eq(name, SV("intent"))) {
            if (!json_scan_string(&s, &ret_essence->intent)) return false;
        } else if (sv_eq(name, SV("kind"))) {
            if (!json_scan_string(&s, &text)) return false;
            ret_essence->kind = record_kind_from_name(text);
            return true;
        } else if (!json_scan_value(&s, NULL)) {
            return false;
        }
    }
    return false;
}

static void apply(struct open_intents *t, uint64_t seq, const struct essence *r)
{
    switch (r->kind) {
    case RECORD_EPOCH:
        if (r->epoch > t->epoch) t->epoch = r->epoch;
        break;
    case RECORD_INTENT:
        if (!record_epoch_is_void(r->epoch, t->epoch)) add(t, seq, r->intent);
        break;
    case RECORD_OUTCOME:
        take(t, r->intent);
        break;
    default:
        break;
    }
}

/* Does any member "kind", at whatever depth, name one of those that matter? */
static bool may_matter(struct strview bytes)
{
    static const char member[] = "\"kind\":\"";
    const char *at = bytes.ptr, *end = bytes.ptr + bytes.len;
    while ((at = memmem(at, (size_t)(end - at), member, sizeof(member) - 1)) != NULL) {
        at += sizeof(member) - 1;
        struct strview rest = sv_n(at, (size_t)(end - at));
        if (sv_starts_with(rest, SV("intent\"")) || sv_starts_with(rest, SV("outcome\"")) ||
            sv_starts_with(rest, SV("epoch\"")) || sv_starts_with(rest, SV("unsealed\"")) ||
            sv_starts_with(rest, SV("cut\"")) || sv_starts_with(rest, SV("restored\"")))
            return true;
    }
    return false;
}

enum record_kind open_intents_look(struct open_intents *t, uint64_t seq, struct strview bytes,
                                   struct arena *scratch)
{
    struct essence r;
    if (!may_matter(bytes)) return RECORD_NONE;
    if (read_essence(bytes, scratch, &r))
        apply(t, seq, &r);
    else
        r.kind = RECORD_NONE;
    arena_reset(scratch);
    return r.kind;
}

struct listed {
    uint64_t seq;
    struct strview id; /* inside the table */
};

static int by_seq(const void *a, const void *b)
{
    uint64_t x = ((const struct listed *)a)->seq, y = ((const struct listed *)b)->seq;
    return (x > y) - (x < y);
}

struct strview *open_intents_list(const struct open_intents *t, size_t max, struct arena *a, size_t *ret_n)
{
    struct listed *all = mem_zalloc(t->n + 1, sizeof(*all));
    size_t n = 0;
    for (size_t i = 0; i < t->n_buckets; i++)
        for (const struct open_intent *o = t->buckets[i]; o != NULL; o = o->next)
            all[n++] = (struct listed){o->seq, sv_n(o->id, o->len)};
    if (n > 1) qsort(all, n, sizeof(*all), by_seq);
    if (n > max) n = max;
    struct strview *ids = arena_array(a, n + 1, sizeof(*ids));
    for (size_t i = 0; i < n; i++)
        ids[i] = arena_copy(a, all[i].id);
    free(all);
    *ret_n = n;
    return ids;
}
