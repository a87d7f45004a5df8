#include "store/queue_impl.h"

#include <assert.h>
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"

enum { FIRST_BUCKETS = 1024 };

/* ---- binary heap with places ---- */

static bool heap_before(const struct work_heap *h, const struct work *a, const struct work *b)
{
    if (h->by_due && a->due_ns != b->due_ns) return a->due_ns < b->due_ns;
    return a->seq < b->seq;
}

static void heap_place(struct work_heap *h, size_t at, struct work *w)
{
    h->items[at] = w;
    w->heap_at = at;
}

static void heap_up(struct work_heap *h, size_t at, struct work *w)
{
    for (; at > 0 && heap_before(h, w, h->items[(at - 1) / 2]); at = (at - 1) / 2)
        heap_place(h, at, h->items[(at - 1) / 2]);
    heap_place(h, at, w);
}

static void heap_down(struct work_heap *h, size_t at, struct work *w)
{
    for (size_t child; (child = 2 * at + 1) < h->n; at = child) {
        if (child + 1 < h->n && heap_before(h, h->items[child + 1], h->items[child])) child++;
        if (!heap_before(h, h->items[child], w)) break;
        heap_place(h, at, h->items[child]);
    }
    heap_place(h, at, w);
}

static void heap_push(struct work_heap *h, struct work *w)
{
    assert(w->heap_at == WORK_NOT_IN_HEAP);
    if (h->n == h->capacity) {
        h->capacity = h->capacity ? h->capacity * 2 : 16;
        h->items = mem_realloc(h->items, h->capacity * sizeof(struct work *));
    }
    heap_up(h, h->n++, w);
}

static void heap_remove(struct work_heap *h, struct work *w)
{
    size_t at = w->heap_at;
    w->heap_at = WORK_NOT_IN_HEAP;
    struct work *last = h->items[--h->n];
    if (last == w) return;
    if (at > 0 && heap_before(h, last, h->items[(at - 1) / 2]))
        heap_up(h, at, last);
    else
        heap_down(h, at, last);
}

/* ---- tables ---- */

static uint64_t hash_of(struct strview s)
{
    return fnv1a_add(FNV1A_START, s);
}

static void grow_items(struct work_index *x)
{
    size_t n = x->n_buckets ? x->n_buckets * 2 : FIRST_BUCKETS;
    struct work **items = mem_zalloc(n, sizeof(struct work *));
    for (size_t i = 0; i < x->n_buckets; i++) {
        for (struct work *w = x->items[i], *next; w != NULL; w = next) {
            next = w->hash_next;
            w->hash_next = items[w->hash & (n - 1)];
            items[w->hash & (n - 1)] = w;
        }
    }
    free(x->items);
    x->items = items;
    x->n_buckets = n;
}

static void grow_targets(struct work_index *x)
{
    size_t n = x->n_targets_buckets ? x->n_targets_buckets * 2 : FIRST_BUCKETS;
    struct work_target **targets = mem_zalloc(n, sizeof(struct work_target *));
    for (size_t i = 0; i < x->n_targets_buckets; i++) {
        for (struct work_target *t = x->targets[i], *next; t != NULL; t = next) {
            next = t->hash_next;
            t->hash_next = targets[t->hash & (n - 1)];
            targets[t->hash & (n - 1)] = t;
        }
    }
    free(x->targets);
    x->targets = targets;
    x->n_targets_buckets = n;
}

static struct work_target *target_get(struct work_index *x, struct strview name)
{
    uint64_t hash = hash_of(name);
    if (x->n_targets_buckets > 0)
        for (struct work_target *t = x->targets[hash & (x->n_targets_buckets - 1)]; t != NULL;
             t = t->hash_next)
            if (t->hash == hash && sv_eq(sv_n(t->name, t->name_len), name)) return t;
    if (x->n_targets >= x->n_targets_buckets) grow_targets(x);
    struct work_target *t = mem_zalloc(1, sizeof(*t) + name.len);
    t->hash = hash;
    t->name_len = name.len;
    memcpy(t->name, name.ptr, name.len);
    list_init(&t->ready);
    t->hash_next = x->targets[hash & (x->n_targets_buckets - 1)];
    x->targets[hash & (x->n_targets_buckets - 1)] = t;
    x->n_targets++;
    return t;
}

static void target_drop(struct work_index *x, struct work_target *t)
{
    struct work_target **at = &x->targets[t->hash & (x->n_targets_buckets - 1)];
    while (*at != t)
        at = &(*at)->hash_next;
    *at = t->hash_next;
    x->n_targets--;
    free(t);
}

uint64_t work_oldest_seq(const struct work_index *x)
{
    uint64_t oldest = UINT64_MAX;
    for (const struct work_function *f = x->functions; f != NULL; f = f->next) {
        if (list_is_empty(&f->unfinished)) continue;
        const struct work *w = container_of(f->unfinished.next, struct work, age_node);
        if (w->seq < oldest) oldest = w->seq;
    }
    for (const struct list *node = x->dead.next; node != &x->dead; node = node->next) {
        const struct work *w = container_of(node, struct work, state_node);
        if (w->seq < oldest) oldest = w->seq;
    }
    return oldest;
}

static struct work_function *find_in(struct work_function *bucket, struct strview name)
{
    while (bucket != NULL && !sv_eq(sv_n(bucket->name, bucket->name_len), name))
        bucket = bucket->bucket_next;
    return bucket;
}

const struct work_function *work_function_find(const struct work_index *x, struct strview name)
{
    return find_in(x->buckets[hash_of(name) % WORK_FUNCTION_BUCKETS], name);
}

/* One entry per function ever called, which are deployed ones. */
static struct work_function *function_get(struct work_index *x, struct strview name)
{
    struct work_function **bucket = &x->buckets[hash_of(name) % WORK_FUNCTION_BUCKETS];
    struct work_function *f = find_in(*bucket, name);
    if (f != NULL) return f;
    f = mem_zalloc(1, sizeof(*f) + name.len + 1);
    f->name_len = name.len;
    if (name.len > 0) memcpy(f->name, name.ptr, name.len);
    list_init(&f->unfinished);
    f->next = x->functions;
    x->functions = f;
    f->bucket_next = *bucket;
    *bucket = f;
    return f;
}

/* ---- states ---- */

static struct work_heap *candidates_of(const struct work *w)
{
    return &w->function->candidates[w->kind];
}

/* Which ready item of the target may be picked: the first, while nothing of it is leased. */
static void target_refresh(struct work_target *t)
{
    struct work *first =
        list_is_empty(&t->ready) ? NULL : container_of(t->ready.next, struct work, state_node);
    if (t->leased != NULL) first = NULL;
    if (t->candidate == first) return;
    if (t->candidate != NULL) heap_remove(candidates_of(t->candidate), t->candidate);
    if (first != NULL) heap_push(candidates_of(first), first);
    t->candidate = first;
}

static void target_insert(struct work_target *t, struct work *w)
{
    /* New items belong at the end, retried ones near the front. */
    struct list *before = &t->ready;
    if (!list_is_empty(before) && container_of(t->ready.prev, struct work, state_node)->seq > w->seq)
        for (before = t->ready.next; container_of(before, struct work, state_node)->seq < w->seq;)
            before = before->next;
    list_push_back(before, &w->state_node);
}

static void age_insert(struct work_function *f, struct work *w)
{
    struct list *before = &f->unfinished; /* only a dead item that is revived is not the newest */
    while (before->prev != &f->unfinished && container_of(before->prev, struct work, age_node)->seq > w->seq)
        before = before->prev;
    list_push_back(before, &w->age_node);
}

static void count(struct work_index *x, struct work *w, int change)
{
    x->counts[w->state] += (size_t)change;
    w->function->counts[w->state] += (size_t)change;
    if (w->kind != WORK_CALL) return;
    x->calls[w->state] += (size_t)change;
    w->function->calls[w->state] += (size_t)change;
}

static void leave_state(struct work_index *x, struct work *w)
{
    struct work_target *t = w->target;
    switch (w->state) {
    case WORK_READY:
        if (t != NULL)
            list_remove(&w->state_node);
        else
            heap_remove(candidates_of(w), w);
        break;
    case WORK_WAITING:
        heap_remove(&x->waiting, w);
        break;
    case WORK_LEASED:
        if (t != NULL) t->leased = NULL;
        break;
    case WORK_DEAD:
        list_remove(&w->state_node);
        age_insert(w->function, w);
        break;
    case WORK_STATES:
        break;
    }
    if (t != NULL) target_refresh(t);
    count(x, w, -1);
}

static void enter_state(struct work_index *x, struct work *w, enum work_state state)
{
    struct work_target *t = w->target;
    w->state = state;
    switch (state) {
    case WORK_READY:
        if (t != NULL)
            target_insert(t, w);
        else
            heap_push(candidates_of(w), w);
        break;
    case WORK_WAITING:
        heap_push(&x->waiting, w);
        break;
    case WORK_LEASED:
        if (t != NULL) {
            assert(t->leased == NULL);
            t->leased = w;
        }
        break;
    case WORK_DEAD:
        list_push_back(&x->dead, &w->state_node);
        list_remove(&w->age_node);
        break;
    case WORK_STATES:
        break;
    }
    if (t != NULL) target_refresh(t);
    count(x, w, 1);
}

void work_set_state(struct work_index *x, struct work *w, enum work_state state, int64_t due_ns)
{
    leave_state(x, w);
    w->due_ns = due_ns;
    enter_state(x, w, state);
    if (state == WORK_DEAD && x->counts[WORK_DEAD] > QUEUE_DEAD_MAX)
        work_remove(x, container_of(x->dead.next, struct work, state_node));
}

/* ---- items ---- */

void work_index_init(struct work_index *x)
{
    *x = (struct work_index){.waiting.by_due = true};
    list_init(&x->dead);
}

void work_index_release(struct work_index *x)
{
    for (size_t i = 0; i < x->n_buckets; i++)
        for (struct work *w = x->items[i], *next; w != NULL; w = next) {
            next = w->hash_next;
            free(w->bytes);
            free(w);
        }
    for (size_t i = 0; i < x->n_targets_buckets; i++)
        for (struct work_target *t = x->targets[i], *next; t != NULL; t = next) {
            next = t->hash_next;
            free(t);
        }
    for (struct work_function *f = x->functions, *next; f != NULL; f = next) {
        next = f->next;
        for (int kind = 0; kind < WORK_KINDS; kind++)
            free(f->candidates[kind].items);
        free(f);
    }
    free(x->items);
    free(x->targets);
    free(x->waiting.items);
    *x = (struct work_index){0};
}

struct work *work_find(const struct work_index *x, struct strview key)
{
    if (x->n_buckets == 0) return NULL;
    uint64_t hash = hash_of(key);
    for (struct work *w = x->items[hash & (x->n_buckets - 1)]; w != NULL; w = w->hash_next)
        if (w->hash == hash && sv_eq(sv_n(w->key, w->key_len), key)) return w;
    return NULL;
}

static void keep_bytes(struct work_index *x, struct work *w, struct strview bytes)
{
    if (bytes.len == 0 || x->kept_bytes + bytes.len > QUEUE_BYTES_MAX) return;
    w->bytes = mem_alloc(bytes.len);
    w->bytes_len = bytes.len;
    memcpy(w->bytes, bytes.ptr, bytes.len);
    x->kept_bytes += bytes.len;
}

struct work *work_add(struct work_index *x, struct strview key, const struct journal_entry *e)
{
    const struct record *r = e->record;
    if (x->n_items >= x->n_buckets) grow_items(x);
    struct work *w = mem_zalloc(1, sizeof(*w) + key.len);
    w->hash = hash_of(key);
    w->heap_at = WORK_NOT_IN_HEAP;
    w->seq = w->changed_seq = e->seq;
    w->time_ns = r->time_ns;
    w->due_ns = r->due_ns;
    w->has_due = r->due_ns > 0;
    w->kind = r->kind == RECORD_CALL ? WORK_CALL : WORK_INTENT;
    w->key_len = key.len;
    memcpy(w->key, key.ptr, key.len);
    keep_bytes(x, w, e->bytes);
    w->hash_next = x->items[w->hash & (x->n_buckets - 1)];
    x->items[w->hash & (x->n_buckets - 1)] = w;
    x->n_items++;
    w->function = function_get(x, r->function);
    list_push_back(&w->function->unfinished, &w->age_node);
    if (r->target.len > 0 && w->kind != WORK_CALL) w->target = target_get(x, r->target);
    if (w->target != NULL) w->target->n_items++;
    enter_state(x, w, w->has_due ? WORK_WAITING : WORK_READY);
    return w;
}

void work_remove(struct work_index *x, struct work *w)
{
    leave_state(x, w);
    list_remove(&w->age_node);
    struct work **at = &x->items[w->hash & (x->n_buckets - 1)];
    while (*at != w)
        at = &(*at)->hash_next;
    *at = w->hash_next;
    x->n_items--;
    x->kept_bytes -= w->bytes_len;
    if (w->target != NULL && --w->target->n_items == 0) target_drop(x, w->target);
    free(w->bytes);
    free(w);
}

static bool has_place(const size_t counts[], const size_t calls[], unsigned max, enum work_kind kind)
{
    if (counts[WORK_LEASED] >= max) return false;
    return kind != WORK_CALL || calls[WORK_LEASED] < (max + 1) / 2;
}

/* Of what is free a function gets no more than it leaves: however many of its acts hang until their
 * deadlines, a function that has nothing under way finds a place. */
static bool leaves_room(const struct work_index *x, const struct work_function *f, unsigned max)
{
    return f->counts[WORK_LEASED] <= max - x->counts[WORK_LEASED];
}

static struct work *pick_of(const struct work_index *x, const struct queue_cfg *limits, enum work_kind kind)
{
    struct work *best = NULL;
    if (!has_place(x->counts, x->calls, limits->max_inflight, kind)) return NULL;
    for (const struct work_function *f = x->functions; f != NULL; f = f->next) {
        const struct work_heap *h = &f->candidates[kind];
        if (h->n == 0 || !has_place(f->counts, f->calls, limits->max_inflight_function, kind)) continue;
        if (!leaves_room(x, f, limits->max_inflight)) continue;
        if (best == NULL || h->items[0]->seq < best->seq) best = h->items[0];
    }
    return best;
}

struct work *work_pick(const struct work_index *x, const struct queue_cfg *limits)
{
    struct work *intent = pick_of(x, limits, WORK_INTENT);
    return intent != NULL ? intent : pick_of(x, limits, WORK_CALL);
}

struct work *work_first_due(const struct work_index *x)
{
    return x->waiting.n > 0 ? x->waiting.items[0] : NULL;
}

void work_index_turn(struct work_index *x, const struct clock_turn *turn)
{
    for (size_t i = 0; i < x->n_buckets; i++)
        for (struct work *w = x->items[i]; w != NULL; w = w->hash_next) {
            w->time_ns = clock_turn_apply(turn, w->time_ns);
            if (w->due_ns != 0) w->due_ns = clock_turn_ahead(turn, w->due_ns); /* 0: it waits for nothing */
        }
}

/* Ready since it was added, and not begun or not ended since: nothing that has to wait for it was begun. */
static bool keeps_others_back(const struct work *w)
{
    return w->changed_seq == w->seq && !w->has_due;
}

static void settle_target(struct work_target *t)
{
    bool is_kept_back = false;
    for (struct list *node = t->ready.next; node != &t->ready; node = node->next) {
        struct work *w = container_of(node, struct work, state_node);
        if (is_kept_back) w->is_past = false;
        is_kept_back = is_kept_back || keeps_others_back(w);
    }
}

static void settle_function(struct work_function *f)
{
    unsigned untried[WORK_KINDS] = {0};
    for (struct list *node = f->unfinished.next; node != &f->unfinished; node = node->next) {
        struct work *w = container_of(node, struct work, age_node);
        if (w->state == WORK_WAITING) w->is_past = false;
        if (w->target != NULL || !keeps_others_back(w)) continue;
        if (++untried[w->kind] > QUEUE_INFLIGHT_MAX) w->is_past = false;
    }
}

static void settle_by_marks(struct work_function *f, struct taken *taken, uint64_t past_seq)
{
    for (struct list *node = f->unfinished.next; node != &f->unfinished; node = node->next) {
        struct work *w = container_of(node, struct work, age_node);
        if (w->lease == NULL && w->changed_seq <= past_seq && taken_knows(taken, w->changed_seq))
            w->is_past = taken_keep(taken, w->changed_seq);
    }
}

void work_settle_past(struct work_index *x, struct taken *taken, uint64_t past_seq)
{
    for (size_t i = 0; i < x->n_targets_buckets; i++)
        for (struct work_target *t = x->targets[i]; t != NULL; t = t->hash_next)
            settle_target(t);
    for (struct work_function *f = x->functions; f != NULL; f = f->next) {
        settle_function(f);
        settle_by_marks(f, taken, past_seq);
    }
}
