#include "store/queue_impl.h"

#include <assert.h>
#include <inttypes.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/random.h"

enum { CALL_KEY_MAX = 32 };

/* ---- the fold ---- */

static struct strview key_of(const struct record *r, uint64_t seq, char text[CALL_KEY_MAX])
{
    if (r->intent.len > 0) return r->intent;
    (void)snprintf(text, CALL_KEY_MAX, "call-%" PRIu64, seq);
    return sv(text);
}

static void wake_one(struct queue *q)
{
    struct list *node = list_pop_front(&q->takers);
    if (node != NULL) fiber_event_set(&container_of(node, struct taker, node)->woken);
}

static void wake_all(struct queue *q)
{
    while (!list_is_empty(&q->takers))
        wake_one(q);
}

bool queue_has_room(const struct queue *q)
{
    return !q->is_frozen && q->n_leases < q->cfg.max_inflight;
}

void queue_wake_if_useful(struct queue *q)
{
    if (!queue_has_room(q)) return;
    if (work_pick(&q->index, &q->cfg) != NULL || work_first_due(&q->index) != NULL) wake_one(q);
}

/* After a reset: the item is still in the hands of a fiber of this process. */
static void attach_lease(struct queue *q, struct work *w)
{
    for (struct list *node = q->leases.next; node != &q->leases; node = node->next) {
        struct lease *l = container_of(node, struct lease, node);
        if (l->seq != w->seq || l->work != NULL) continue;
        l->work = w;
        w->lease = l;
        w->is_past = false;
        work_set_state(&q->index, w, WORK_LEASED, 0);
        return;
    }
}

static void fold_new(struct queue *q, const struct journal_entry *e)
{
    const struct record *r = e->record;
    char text[CALL_KEY_MAX];
    struct strview key = key_of(r, e->seq, text);
    if (r->kind == RECORD_INTENT && record_epoch_is_void(r->epoch, q->epoch)) return;
    if (work_find(&q->index, key) != NULL) return; /* given twice: the first one counts */
    struct work *w = work_add(&q->index, key, e);
    w->is_past = e->seq <= q->past_seq;
    attach_lease(q, w);
}

bool queue_is_lost(struct strview code)
{
    return sv_eq(code, SV("UNKNOWN"));
}

/* Back from the dead, or again later. */
static void fold_retry(struct queue *q, struct work *w, uint64_t seq, const struct record *r)
{
    bool is_snooze = sv_eq(r->state, SV("snoozed"));
    if (r->attempt <= 0 && !w->has_died) return; /* a person's */
    w->has_ended = w->has_died = false;
    w->attempts = r->attempt <= 0 ? 0 : (unsigned)r->attempt - (is_snooze ? 1 : 0);
    w->changed_seq = seq;
    w->is_past = seq <= q->past_seq;
    w->has_lost_answer = r->attempt > 0 && (w->has_lost_answer || queue_is_lost(r->code));
    /* While it is leased the holder of the lease decides when it is ready again: once this record is durable.
     */
    if (w->lease != NULL)
        w->due_ns = r->due_ns;
    else
        work_set_state(&q->index, w, WORK_WAITING, r->due_ns);
}

static bool is_persons_end(const struct record *r)
{
    return record_is_retried_anew(r) || (r->kind == RECORD_OUTCOME && sv_eq(r->state, SV("dropped")));
}

void queue_end_work(struct queue *q, struct work *w)
{
    if (w->has_died)
        work_set_state(&q->index, w, WORK_DEAD, 0);
    else
        work_remove(&q->index, w);
}

/* A dead item's RECORD_RETRY "anew" is the end of it as well. */
static void fold_end(struct queue *q, struct work *w, uint64_t seq, const struct record *r)
{
    if (is_persons_end(r) && !w->has_died) return;
    w->changed_seq = seq;
    w->has_ended = true;
    w->has_died = sv_eq(r->state, SV("dead"));
    if (w->lease == NULL) queue_end_work(q, w);
}

/* Ages and distances stay what they were: else a retry would wait for hours after the clock was set back. */
static void turn_clock(struct queue *q, const struct clock_turn *turn)
{
    work_index_turn(&q->index, turn);
    for (struct list *node = q->leases.next; node != &q->leases; node = node->next) {
        struct lease *l = container_of(node, struct lease, node);
        l->time_ns = clock_turn_apply(turn, l->time_ns);
    }
    wake_all(q);
}

static void on_record(struct journal_follower *f, const struct journal_entry *e)
{
    struct clock_turn turn;
    struct queue *q = container_of(f, struct queue, follower);
    const struct record *r = e->record;
    switch (r->kind) {
    case RECORD_INTENT:
    case RECORD_CALL:
        fold_new(q, e);
        break;
    case RECORD_RETRY:
    case RECORD_OUTCOME: {
        struct work *w = work_find(&q->index, r->intent);
        if (w != NULL && (r->kind == RECORD_OUTCOME || is_persons_end(r)))
            fold_end(q, w, e->seq, r);
        else if (w != NULL)
            fold_retry(q, w, e->seq, r);
        break;
    }
    case RECORD_EPOCH:
        if (r->epoch > q->epoch) q->epoch = r->epoch;
        if (e->seq <= q->past_seq) q->past_epoch = q->epoch;
        return;
    case RECORD_CLOCK:
        if (record_clock_turn(r, &turn)) turn_clock(q, &turn);
        return;
    default:
        return;
    }
    queue_wake_if_useful(q);
}

static void on_reset(struct journal_follower *f, uint64_t durable_seq)
{
    (void)durable_seq;
    struct queue *q = container_of(f, struct queue, follower);
    for (struct list *node = q->leases.next; node != &q->leases; node = node->next)
        container_of(node, struct lease, node)->work = NULL;
    work_index_release(&q->index);
    work_index_init(&q->index);
    q->epoch = 0;
    /* What was past and not yet taken again is folded as past once more: settle it again. */
    q->is_settled = false;
}

/* ---- snapshots ---- */

static void on_save(const struct journal_follower *f, struct pack *p)
{
    const struct queue *q = container_of(f, const struct queue, follower);
    pack_u64(p, q->epoch);
    work_index_save(&q->index, p);
}

static void settle_loaded(struct queue *q, struct work *w)
{
    w->is_past = w->changed_seq <= q->past_seq;
    attach_lease(q, w);
}

static enum status on_load(struct journal_follower *f, unsigned version, struct unpack *u, struct error *err)
{
    (void)version;
    struct queue *q = container_of(f, struct queue, follower);
    q->epoch = q->past_epoch = unpack_u64(u);
    if (!work_index_load(&q->index, u) || !unpack_is_good(u))
        return error_set(err, STATUS_DATA_LOSS, "the queue is damaged");
    for (const struct work_function *w = q->index.functions; w != NULL; w = w->next)
        for (struct list *node = w->unfinished.next, *next; node != &w->unfinished; node = next) {
            next = node->next;
            settle_loaded(q, container_of(node, struct work, age_node));
        }
    return STATUS_OK;
}

/* Records of items are read again when they are taken, and dead ones when a person has them retried. */
static uint64_t oldest_needed(struct journal_keeper *k)
{
    return work_oldest_seq(&container_of(k, struct queue, keeper)->index);
}

/* ---- life cycle ---- */

enum status queue_new(struct journal *j, const struct queue_cfg *cfg, struct queue **ret_queue,
                      struct error *err)
{
    if (cfg->max_inflight > QUEUE_INFLIGHT_MAX || cfg->max_inflight_function > QUEUE_INFLIGHT_MAX)
        return error_set(err, STATUS_INVALID_ARGUMENT, "queue: %u and %u in flight, at most %d are allowed",
                         cfg->max_inflight, cfg->max_inflight_function, QUEUE_INFLIGHT_MAX);
    if (cfg->backoff_base_ns < 0 || cfg->backoff_cap_ns < 0)
        return error_set(err, STATUS_INVALID_ARGUMENT, "queue: a backoff cannot be negative");
    struct queue *q = mem_zalloc(1, sizeof(*q));
    q->journal = j;
    q->cfg = *cfg;
    if (q->cfg.max_inflight == 0) q->cfg.max_inflight = 64;
    if (q->cfg.max_inflight_function == 0) q->cfg.max_inflight_function = 10;
    if (q->cfg.max_attempts == 0) q->cfg.max_attempts = 5;
    if (q->cfg.backoff_base_ns == 0) q->cfg.backoff_base_ns = NS_PER_S;
    if (q->cfg.backoff_cap_ns == 0) q->cfg.backoff_cap_ns = 60 * NS_PER_S;
    work_index_init(&q->index);
    list_init(&q->leases);
    list_init(&q->takers);
    random_bytes(&q->next_token,
                 sizeof(q->next_token)); /* a token of an earlier life is never right by chance */
    q->past_seq = journal_last_seq(j);
    taken_init(&q->taken, cfg->taken_file);
    q->cfg.taken_file = NULL; /* the caller's */
    q->follower = (struct journal_follower){.on_record = on_record,
                                            .on_reset = on_reset,
                                            .name = "queue",
                                            .version = 1,
                                            .on_save = on_save,
                                            .on_load = on_load};
    q->keeper = (struct journal_keeper){.name = "queue", .oldest_needed = oldest_needed};
    journal_follow(j, &q->follower);
    journal_keep(j, &q->keeper);
    *ret_queue = q;
    return STATUS_OK;
}

void queue_free(struct queue *q)
{
    if (q == NULL) return;
    assert(list_is_empty(&q->takers));
    journal_unfollow(q->journal, &q->follower);
    journal_unkeep(q->journal, &q->keeper);
    while (!list_is_empty(&q->leases)) /* of holders that were cut off by the end of the process */
        queue_lease_end(q, container_of(q->leases.next, struct lease, node));
    work_index_release(&q->index);
    taken_release(&q->taken);
    free(q);
}

struct journal_follower *queue_follower(struct queue *q)
{
    return &q->follower;
}

void queue_freeze(struct queue *q, bool is_frozen)
{
    q->is_frozen = is_frozen;
    if (!is_frozen) wake_all(q);
}

void queue_stop(struct queue *q)
{
    if (!q->is_stopped) q->stopped_at_ns = clock_monotonic_ns();
    q->is_stopped = true;
    wake_all(q);
}
