#include "store/episode.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/memory.h"
#include "base/random.h"

/* One allocation: the strings of `e` lie behind it. */
struct entry {
    struct episode e;
    struct list node; /* in episodes.open or .closed */
    char text[];
};

/* Open addressing with linear probing; the hash beside the pointer spares most visits to entries. */
struct slot {
    struct entry *entry; /* NULL: empty */
    uint64_t hash;
};

struct episodes {
    struct slot *slots;
    size_t n_slots, n_entries; /* n_slots is a power of two */
    struct list open;   /* by last_seen, oldest first: it only grows, so what is seen moves to the tail */
    struct list closed; /* by the order of closing */
    size_t n_open, n_closed, max_open, max_closed;
    int64_t latest_ns; /* effective time */
    uint64_t seed;     /* fingerprints are chosen by senders: keep them from choosing their slots */
};

enum { FIRST_SLOTS = 64 };

struct episodes *episodes_new_bounded(size_t max_open, size_t max_closed)
{
    struct episodes *t = mem_zalloc(1, sizeof(*t));
    t->max_open = max_open;
    t->max_closed = max_closed;
    t->latest_ns = INT64_MIN;
    t->n_slots = FIRST_SLOTS;
    t->slots = mem_zalloc(t->n_slots, sizeof(t->slots[0]));
    list_init(&t->open);
    list_init(&t->closed);
    random_bytes(&t->seed, sizeof(t->seed));
    return t;
}

struct episodes *episodes_new(void)
{
    return episodes_new_bounded(EPISODES_MAX, EPISODES_CLOSED_MAX);
}

void episodes_free(struct episodes *t)
{
    if (t == NULL) return;
    for (size_t i = 0; i < t->n_slots; i++)
        free(t->slots[i].entry);
    free(t->slots);
    free(t);
}

/* ---- the hash table ---- */

struct key {
    struct strview source, fingerprint, computed;
};

static struct key key_of(const struct episode *e)
{
    return (struct key){e->source, e->fingerprint, e->fingerprint_computed};
}

static struct key key_of_record(const struct record *r)
{
    return (struct key){r->source, r->fingerprint, r->fingerprint_computed};
}

static bool is_key_of(const struct episode *e, const struct key *k)
{
    return sv_eq(e->fingerprint, k->fingerprint) && sv_eq(e->source, k->source) &&
           sv_eq(e->fingerprint_computed, k->computed);
}

static uint64_t hash_key(const struct episodes *t, const struct key *k)
{
    uint64_t h = fnv1a_add(fnv1a_add(FNV1A_START ^ t->seed, k->source), k->fingerprint);
    h = fnv1a_add(h, k->computed);
    h = (h ^ h >> 33) * UINT64_C(0xff51afd7ed558ccd); /* FNV's low bits mix little: MurmurHash3's finaliser */
    return h ^ h >> 33;
}

/* Slot of the key, or the empty one where it would go. */
static size_t find_slot(const struct episodes *t, uint64_t hash, const struct key *k)
{
    size_t at = hash & (t->n_slots - 1);
    for (; t->slots[at].entry != NULL; at = (at + 1) & (t->n_slots - 1)) {
        if (t->slots[at].hash == hash && is_key_of(&t->slots[at].entry->e, k)) break;
    }
    return at;
}

static void grow(struct episodes *t)
{
    struct slot *old = t->slots;
    size_t n_old = t->n_slots;
    t->n_slots *= 2;
    t->slots = mem_zalloc(t->n_slots, sizeof(t->slots[0]));
    for (size_t i = 0; i < n_old; i++) {
        if (old[i].entry == NULL) continue;
        size_t at = old[i].hash & (t->n_slots - 1);
        while (t->slots[at].entry != NULL)
            at = (at + 1) & (t->n_slots - 1);
        t->slots[at] = old[i];
    }
    free(old);
}

/* Empty slot `at` and close the gap: whatever probed past it moves back, so that no tombstones pile up. */
static void empty_slot(struct episodes *t, size_t at)
{
    size_t mask = t->n_slots - 1;
    for (size_t i = (at + 1) & mask; t->slots[i].entry != NULL; i = (i + 1) & mask) {
        size_t home = t->slots[i].hash & mask;
        if (((i - home) & mask) < ((i - at) & mask)) continue; /* its home lies behind the gap */
        t->slots[at] = t->slots[i];
        at = i;
    }
    t->slots[at] = (struct slot){NULL, 0};
    t->n_entries--;
}

static struct entry *insert(struct episodes *t, uint64_t hash, const struct record *r)
{
    if ((t->n_entries + 1) * 10 > t->n_slots * 7) grow(t);
    struct entry *entry = mem_alloc(sizeof(*entry) + r->incident.len + r->fingerprint.len +
                                    r->fingerprint_computed.len + r->source.len);
    memset(entry, 0, sizeof(*entry));
    char *text = entry->text;
    entry->e.incident = sv_put(&text, r->incident);
    entry->e.fingerprint = sv_put(&text, r->fingerprint);
    entry->e.fingerprint_computed = sv_put(&text, r->fingerprint_computed);
    entry->e.source = sv_put(&text, r->source);
    struct key key = key_of_record(r);
    t->slots[find_slot(t, hash, &key)] = (struct slot){entry, hash};
    t->n_entries++;
    return entry;
}

static void unlink_entry(struct episodes *t, struct entry *entry)
{
    list_remove(&entry->node);
    if (entry->e.state == EPISODE_OPEN)
        t->n_open--;
    else
        t->n_closed--;
}

static void forget(struct episodes *t, size_t slot)
{
    struct entry *entry = t->slots[slot].entry;
    unlink_entry(t, entry);
    empty_slot(t, slot);
    free(entry);
}

static void forget_oldest_closed(struct episodes *t)
{
    struct entry *oldest = container_of(t->closed.next, struct entry, node);
    struct key key = key_of(&oldest->e);
    forget(t, find_slot(t, hash_key(t, &key), &key));
}

/* ---- the fold ---- */

static void close_entry(struct episodes *t, struct entry *entry, enum episode_state state,
                        int64_t ended_at_ns, uint64_t seq)
{
    if (list_is_linked(&entry->node)) unlink_entry(t, entry);
    entry->e.state = state;
    entry->e.ended_at_ns = ended_at_ns;
    entry->e.seq = seq;
    list_push_back(&t->closed, &entry->node);
    t->n_closed++;
    if (t->n_closed > t->max_closed) forget_oldest_closed(t);
}

static void see(struct episodes *t, struct entry *entry)
{
    entry->e.last_seen_ns = t->latest_ns;
    entry->e.missing_since_ns = 0;
    list_remove(&entry->node);
    list_push_back(&t->open, &entry->node);
}

static void apply_firing(struct episodes *t, size_t slot, uint64_t hash, uint64_t seq, const struct record *r)
{
    struct entry *entry = t->slots[slot].entry;
    if (entry != NULL && entry->e.state == EPISODE_OPEN) {
        see(t, entry);
        return;
    }
    if (episodes_is_full(t)) return;
    if (entry != NULL) forget(t, slot); /* the new episode has another incident, and so another allocation */
    entry = insert(t, hash, r);
    entry->e.state = EPISODE_OPEN;
    entry->e.starts_at_ns = r->starts_at_ns;
    entry->e.seq = seq;
    t->n_open++;
    see(t, entry);
}

/* Of an earlier episode, and late: it says nothing about the one that is open. A start in the future is a
 * clock that ran ahead, and proves nothing. */
static bool ended_before(const struct episode *e, int64_t ends_at_ns)
{
    return e->state == EPISODE_OPEN && ends_at_ns != 0 && ends_at_ns < e->starts_at_ns &&
           e->starts_at_ns <= e->last_seen_ns;
}

static void apply_resolved(struct episodes *t, size_t slot, uint64_t hash, uint64_t seq,
                           const struct record *r)
{
    struct entry *entry = t->slots[slot].entry;
    if (entry == NULL) {
        entry = insert(t, hash, r);
        entry->e.starts_at_ns = r->starts_at_ns;
    }
    if (ended_before(&entry->e, r->ends_at_ns)) return;
    /* Whichever is later: no firing up to there is news any more. */
    if (r->starts_at_ns > entry->e.starts_at_ns) entry->e.starts_at_ns = r->starts_at_ns;
    /* What has resolved began before now. A startsAt from a source whose clock was ahead must not make every
     * firing until then look older than this episode. */
    if (entry->e.starts_at_ns > t->latest_ns) entry->e.starts_at_ns = t->latest_ns;
    entry->e.last_seen_ns = t->latest_ns;
    close_entry(t, entry, EPISODE_RESOLVED, r->ends_at_ns ? r->ends_at_ns : t->latest_ns, seq);
}

static void turn_clock(struct list *episodes, const struct clock_turn *turn)
{
    for (struct list *node = episodes->next; node != episodes; node = node->next) {
        struct episode *e = &container_of(node, struct entry, node)->e;
        e->last_seen_ns = clock_turn_apply(turn, e->last_seen_ns); /* keeps their order */
    }
}

static void apply_time(struct episodes *t, const struct record *r)
{
    struct clock_turn turn;
    if (record_clock_turn(r, &turn)) {
        turn_clock(&t->open, &turn);
        turn_clock(&t->closed, &turn);
        t->latest_ns = turn.now_ns;
    } else if (r->time_ns > t->latest_ns) {
        t->latest_ns = r->time_ns;
    }
}

void episodes_apply(struct episodes *t, uint64_t seq, const struct record *r)
{
    apply_time(t, r);
    if (r->kind != RECORD_SIGNAL && r->kind != RECORD_SEEN && r->kind != RECORD_EXPIRED) return;
    struct key key = key_of_record(r);
    uint64_t hash = hash_key(t, &key);
    size_t slot = find_slot(t, hash, &key);
    struct entry *entry = t->slots[slot].entry;
    bool is_open = entry != NULL && entry->e.state == EPISODE_OPEN;
    if (r->kind == RECORD_SEEN) {
        if (is_open) see(t, entry);
    } else if (r->kind == RECORD_EXPIRED) {
        if (is_open) close_entry(t, entry, EPISODE_UNKNOWN, t->latest_ns, seq);
    } else if (sv_eq(r->status, SV("firing"))) {
        apply_firing(t, slot, hash, seq, r);
    } else if (sv_eq(r->status, SV("resolved"))) {
        apply_resolved(t, slot, hash, seq, r);
    }
}

/* ---- snapshots ---- */

static void save_list(const struct list *episodes, size_t n, struct pack *p)
{
    pack_u64(p, n);
    for (const struct list *node = episodes->next; node != episodes; node = node->next) {
        const struct episode *e = &container_of(node, const struct entry, node)->e;
        pack_u64(p, e->state);
        pack_text(p, e->incident);
        pack_text(p, e->fingerprint);
        pack_text(p, e->fingerprint_computed);
        pack_text(p, e->source);
        pack_i64(p, e->starts_at_ns);
        pack_i64(p, e->last_seen_ns);
        pack_i64(p, e->ended_at_ns);
        pack_u64(p, e->seq);
    }
}

void episodes_save(const struct episodes *t, struct pack *p)
{
    pack_i64(p, t->latest_ns);
    save_list(&t->open, t->n_open, p);
    save_list(&t->closed, t->n_closed, p);
}

static bool load_one(struct episodes *t, struct unpack *u, struct list *to, size_t *n_to)
{
    uint64_t state = unpack_u64(u);
    struct record r = {.kind = RECORD_SIGNAL};
    r.incident = unpack_text(u);
    r.fingerprint = unpack_text(u);
    r.fingerprint_computed = unpack_text(u);
    r.source = unpack_text(u);
    struct key key = key_of_record(&r);
    uint64_t hash = hash_key(t, &key);
    if (u->is_bad || state > EPISODE_UNKNOWN || (state == EPISODE_OPEN) != (to == &t->open) ||
        t->slots[find_slot(t, hash, &key)].entry != NULL)
        return false;
    struct entry *entry = insert(t, hash, &r);
    entry->e.state = (enum episode_state)state;
    entry->e.starts_at_ns = unpack_i64(u);
    entry->e.last_seen_ns = unpack_i64(u);
    entry->e.ended_at_ns = unpack_i64(u);
    entry->e.seq = unpack_u64(u);
    list_push_back(to, &entry->node);
    ++*n_to;
    return true;
}

enum status episodes_load(struct episodes *t, struct unpack *u, struct error *err)
{
    bool is_good = true;
    t->latest_ns = unpack_i64(u);
    for (size_t n = unpack_count(u); n > 0 && is_good; n--)
        is_good = load_one(t, u, &t->open, &t->n_open);
    for (size_t n = is_good ? unpack_count(u) : 0; n > 0 && is_good; n--)
        is_good = load_one(t, u, &t->closed, &t->n_closed);
    return is_good && !u->is_bad ? STATUS_OK : error_set(err, STATUS_DATA_LOSS, "episodes are damaged");
}

/* ---- questions ---- */

const struct episode *episodes_find(const struct episodes *t, const struct episode_alert *alert)
{
    struct key key = {alert->source, alert->fingerprint, alert->fingerprint_computed};
    const struct entry *entry = t->slots[find_slot(t, hash_key(t, &key), &key)].entry;
    return entry ? &entry->e : NULL;
}

size_t episodes_open_count(const struct episodes *t)
{
    return t->n_open;
}

bool episodes_is_full(const struct episodes *t)
{
    return t->n_open >= t->max_open;
}

static enum episode_verdict judge_firing(const struct episode *e, int64_t starts_at_ns, int64_t now_ns,
                                         int64_t lease_ns)
{
    if (e == NULL) return EPISODE_NEW;
    switch (e->state) {
    case EPISODE_OPEN:
        /* A start in the future is a clock that runs ahead, and no news. */
        if (starts_at_ns <= now_ns && clock_elapsed_ns(e->starts_at_ns, starts_at_ns) > EPISODE_SKEW_NS)
            return EPISODE_RENEWED;
        return clock_elapsed_ns(e->last_seen_ns, now_ns) > lease_ns / 4 ? EPISODE_SEEN : EPISODE_DUPLICATE;
    case EPISODE_RESOLVED:
        return starts_at_ns <= e->starts_at_ns && clock_elapsed_ns(e->last_seen_ns, now_ns) < EPISODE_LATE_NS
                   ? EPISODE_STALE
                   : EPISODE_NEW;
    case EPISODE_UNKNOWN:
        break;
    }
    return EPISODE_NEW;
}

static enum episode_verdict judge_resolved(const struct episode *e, const struct episode_alert *alert,
                                           int64_t now_ns)
{
    if (e == NULL) return EPISODE_UNKNOWN_RESOLVE;
    if (ended_before(e, alert->ends_at_ns)) return EPISODE_STALE;
    if (e->state == EPISODE_OPEN) return EPISODE_CLOSES;
    bool is_later = alert->starts_at_ns > e->starts_at_ns && alert->starts_at_ns <= now_ns;
    bool is_known = e->state == EPISODE_RESOLVED && !is_later;
    return is_known ? EPISODE_DUPLICATE : EPISODE_UNKNOWN_RESOLVE;
}

enum episode_verdict episodes_judge(const struct episodes *t, const struct episode_alert *alert,
                                    int64_t now_ns, int64_t lease_ns, const struct episode **ret_episode)
{
    const struct episode *e = episodes_find(t, alert);
    if (ret_episode != NULL) *ret_episode = e;
    return alert->is_firing ? judge_firing(e, alert->starts_at_ns, now_ns, lease_ns)
                            : judge_resolved(e, alert, now_ns);
}

const struct episode *episodes_next_expired(const struct episodes *t, int64_t now_ns, int64_t lease_ns)
{
    if (list_is_empty(&t->open)) return NULL;
    const struct entry *oldest = container_of(t->open.next, struct entry, node);
    return clock_elapsed_ns(oldest->e.last_seen_ns, now_ns) >= lease_ns ? &oldest->e : NULL;
}

const struct episode *episodes_oldest_but_of(const struct episodes *t, struct strview source)
{
    size_t n = 0;
    for (const struct list *node = t->open.next; node != &t->open && n < EPISODES_LOOK_MAX;
         node = node->next, n++) {
        const struct entry *entry = container_of(node, struct entry, node);
        if (!sv_eq(entry->e.source, source)) return &entry->e;
    }
    return NULL;
}

bool episodes_walk(const struct episodes *t, size_t *cursor, const struct episode **ret_open)
{
    if (*cursor >= t->n_slots) return false;
    const struct entry *entry = t->slots[(*cursor)++].entry;
    *ret_open = entry != NULL && entry->e.state == EPISODE_OPEN ? &entry->e : NULL;
    return true;
}

void episodes_set_missing(struct episodes *t, const struct episode *e, int64_t since_ns)
{
    struct key key = key_of(e);
    struct entry *entry = t->slots[find_slot(t, hash_key(t, &key), &key)].entry;
    if (entry != NULL) entry->e.missing_since_ns = since_ns;
}

void episodes_set_lapse(struct episodes *t, const struct episode_alert *alert, int64_t lapses_at_ns)
{
    struct key key = {alert->source, alert->fingerprint, alert->fingerprint_computed};
    struct entry *entry = t->slots[find_slot(t, hash_key(t, &key), &key)].entry;
    if (entry != NULL && entry->e.state == EPISODE_OPEN) entry->e.lapses_at_ns = lapses_at_ns;
}

/* The last n digits. By hand: an id is made for every new alert, and printf would show in its cost. */
static void put_hex(uint64_t value, unsigned n, char *to)
{
    static const char digits[] = "0123456789abcdef";
    for (unsigned i = n; i-- > 0; value >>= 4)
        to[i] = digits[value & 15];
}

static bool is_plain_fingerprint(struct strview s)
{
    if (s.len != 16) return false;
    for (size_t i = 0; i < s.len; i++)
        if (!((s.ptr[i] >= '0' && s.ptr[i] <= '9') || (s.ptr[i] >= 'a' && s.ptr[i] <= 'f'))) return false;
    return true;
}

void incident_id(struct strview fingerprint, int64_t starts_at_ns, char ret_id[INCIDENT_ID_MAX])
{
    uint64_t ms = (uint64_t)(starts_at_ns / 1000000); /* 11 digits of it reach the year 2527 */
    if (is_plain_fingerprint(fingerprint))
        memcpy(ret_id, fingerprint.ptr, 16);
    else
        put_hex(fnv1a_add(FNV1A_START, fingerprint), 16, ret_id);
    ret_id[16] = '-';
    put_hex(ms, 11, ret_id + 17);
    ret_id[28] = '\0';
}
