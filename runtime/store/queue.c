#include "store/queue_impl.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/random.h"
#include "log/log.h"

#define RECHECK_NS    NS_PER_S       /* due times are wall-clock: a jump is noticed within this */
#define STORE_WAIT_MS 100            /* between tries while the journal takes nothing */
#define STOP_WAIT_NS  (5 * NS_PER_S) /* for a journal that stays away while we stop */

enum { CALL_KEY_MAX = 32 };

/* Who works on an item. It keeps item and target busy until the end of the attempt is durable, not only
 * recorded: if that commit fails, the journal is folded again and the item has to find its lease. */
struct lease {
    struct list node;
    struct work *work; /* NULL only while the journal is folded again */
    uint64_t token, seq;
    unsigned attempt;
    bool has_lost_answer;                    /* of an attempt before */
    bool is_ending;                          /* its holder is recording the end */
    int64_t time_ns;                         /* of the item's record, by the clock of today */
    struct strview intent, target, function; /* into text */
    char text[];
};

struct taker {
    struct list node;
    struct fiber_event woken;
};

struct queue {
    struct journal *journal;
    struct queue_cfg cfg;
    struct journal_follower follower;
    struct journal_keeper keeper;
    struct work_index index;
    struct list leases;
    size_t n_leases;
    struct list takers; /* fibers that found nothing */
    uint64_t past_seq, epoch, next_token;
    bool is_settled, is_frozen, is_stopped;
    int64_t stopped_at_ns;
};

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

static bool has_room(const struct queue *q)
{
    return !q->is_frozen && q->n_leases < q->cfg.max_inflight;
}

/* One sleeper has to look again: at an item, or at the clock, since its timer may be set for a later one. */
static void wake_if_useful(struct queue *q)
{
    if (!has_room(q)) return;
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

static bool is_lost(struct strview code)
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
    w->has_lost_answer = r->attempt > 0 && (w->has_lost_answer || is_lost(r->code));
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

static void end_work(struct queue *q, struct work *w)
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
    if (w->lease == NULL) end_work(q, w);
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
        return;
    case RECORD_CLOCK:
        if (record_clock_turn(r, &turn)) turn_clock(q, &turn);
        return;
    default:
        return;
    }
    wake_if_useful(q);
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
    q->epoch = unpack_u64(u);
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

static void lease_end(struct queue *q, struct lease *l)
{
    if (l->work != NULL) l->work->lease = NULL;
    list_remove(&l->node);
    q->n_leases--;
    free(l);
}

void queue_free(struct queue *q)
{
    if (q == NULL) return;
    assert(list_is_empty(&q->takers));
    journal_unfollow(q->journal, &q->follower);
    journal_unkeep(q->journal, &q->keeper);
    while (!list_is_empty(&q->leases)) /* of holders that were cut off by the end of the process */
        lease_end(q, container_of(q->leases.next, struct lease, node));
    work_index_release(&q->index);
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

static int64_t oldest_of(const struct work_function *f, int64_t oldest_ns)
{
    if (list_is_empty(&f->unfinished)) return oldest_ns;
    int64_t time_ns = container_of(f->unfinished.next, struct work, age_node)->time_ns;
    return oldest_ns == 0 || time_ns < oldest_ns ? time_ns : oldest_ns;
}

struct queue_depth queue_depth(const struct queue *q, struct strview function)
{
    const struct work_function *one = function.len > 0 ? work_function_find(&q->index, function) : NULL;
    if (function.len > 0 && one == NULL) return (struct queue_depth){0};
    const size_t *counts = one != NULL ? one->counts : q->index.counts;
    struct queue_depth d = {.ready = counts[WORK_READY],
                            .leased = counts[WORK_LEASED],
                            .waiting = counts[WORK_WAITING],
                            .dead = counts[WORK_DEAD]};
    if (one != NULL) d.oldest_ns = oldest_of(one, 0);
    for (const struct work_function *f = q->index.functions; one == NULL && f != NULL; f = f->next)
        d.oldest_ns = oldest_of(f, d.oldest_ns);
    return d;
}

void queue_each_function(const struct queue *q, void (*fn)(void *arg, struct strview function), void *arg)
{
    for (const struct work_function *f = q->index.functions; f != NULL; f = f->next)
        fn(arg, sv_n(f->name, f->name_len));
}

size_t queue_list_dead(const struct queue *q, struct strview function, size_t max, struct arena *a,
                       struct queue_dead **ret_dead, size_t *ret_total)
{
    size_t n = 0, n_dead = q->index.counts[WORK_DEAD], total = 0;
    struct queue_dead *dead = arena_array(a, (n_dead < max ? n_dead : max) + 1, sizeof(*dead));
    for (struct list *node = q->index.dead.next; node != &q->index.dead; node = node->next) {
        const struct work *w = container_of(node, struct work, state_node);
        struct strview name = sv_n(w->function->name, w->function->name_len);
        if (function.len > 0 && !sv_eq(name, function)) continue;
        if (total++ >= max) continue;
        dead[n++] = (struct queue_dead){.seq = w->seq,
                                        .ended_seq = w->changed_seq,
                                        .id = arena_copy(a, sv_n(w->key, w->key_len)),
                                        .function = arena_copy(a, name),
                                        .is_call = w->kind == WORK_CALL};
    }
    *ret_dead = dead;
    *ret_total = total;
    return n;
}

bool queue_is_dead(const struct queue *q, struct strview id)
{
    const struct work *w = work_find(&q->index, id);
    return w != NULL && w->state == WORK_DEAD;
}

bool queue_is_full(const struct queue *q)
{
    return q->index.n_items >= QUEUE_ITEMS_MAX;
}

enum status queue_admit_call(const struct queue *q, struct strview function, struct error *err)
{
    const struct work_function *f = work_function_find(&q->index, function);
    size_t n = f != NULL ? f->calls[WORK_READY] + f->calls[WORK_WAITING] + f->calls[WORK_LEASED] : 0;
    if (queue_is_full(q))
        return error_set(err, STATUS_RESOURCE_EXHAUSTED, "%d intents and calls wait already",
                         QUEUE_ITEMS_MAX);
    if (n >= QUEUE_CALLS_MAX)
        return error_set(err, STATUS_RESOURCE_EXHAUSTED, "%zu calls of function '%.*s' wait already", n,
                         SV_ARG(function));
    return STATUS_OK;
}

/* ---- taking ---- */

static void promote_due(struct queue *q)
{
    struct work *w;
    int64_t now = clock_unix_ns();
    while ((w = work_first_due(&q->index)) != NULL && w->due_ns <= now)
        work_set_state(&q->index, w, WORK_READY, 0);
    if (q->is_settled) return;
    work_settle_past(&q->index);
    q->is_settled = true;
}

/* Until woken, the next due time or the deadline. OK: look again. */
static enum status wait_for_work(struct queue *q, int64_t deadline_ns)
{
    int64_t now = clock_monotonic_ns(), until = deadline_ns;
    const struct work *due = work_first_due(&q->index);
    if (due != NULL && has_room(q)) {
        int64_t wait = due->due_ns - clock_unix_ns() + NS_PER_MS;
        if (wait > RECHECK_NS) wait = RECHECK_NS;
        if (wait < NS_PER_MS) wait = NS_PER_MS;
        if (until == 0 || now + wait < until) until = now + wait;
    }
    struct taker t;
    fiber_event_init(&t.woken);
    list_push_back(&q->takers, &t.node);
    enum status s = fiber_event_wait(&t.woken, until);
    list_remove(&t.node);
    if (s != STATUS_DEADLINE_EXCEEDED) return s;
    now = clock_monotonic_ns();
    bool is_own =
        (deadline_ns != 0 && now >= deadline_ns) || (fiber_deadline() != 0 && now >= fiber_deadline());
    return is_own ? s : STATUS_OK;
}

static struct lease *lease_begin(struct queue *q, struct work *w)
{
    struct strview key = {w->key, w->key_len}, function = {w->function->name, w->function->name_len};
    struct strview target =
        w->target != NULL ? sv_n(w->target->name, w->target->name_len) : (struct strview){0};
    struct lease *l = mem_zalloc(1, sizeof(*l) + key.len + target.len + function.len);
    char *at = l->text;
    l->intent = sv_put(&at, key);
    l->target = sv_put(&at, target);
    l->function = sv_put(&at, function);
    l->work = w;
    l->token = q->next_token++;
    l->seq = w->seq;
    l->attempt = w->attempts + 1;
    l->has_lost_answer = w->has_lost_answer;
    l->time_ns = w->time_ns;
    w->lease = l;
    list_push_back(&q->leases, &l->node);
    q->n_leases++;
    work_set_state(&q->index, w, WORK_LEASED, 0);
    return l;
}

static enum status read_record(struct queue *q, const struct lease *l, struct arena *a,
                               const struct record **ret_record, struct error *err)
{
    if (l->work != NULL && l->work->bytes != NULL) {
        struct record *r = arena_alloc(a, sizeof(*r));
        enum status s = record_decode(arena_copy(a, sv_n(l->work->bytes, l->work->bytes_len)), a, r, err);
        *ret_record = r;
        return s;
    }
    struct journal_entry *entries = NULL;
    size_t n = 0;
    enum status s = journal_read(q->journal, l->seq, 1, true, a, &entries, &n, err);
    if (s == STATUS_OK && n == 0)
        s = error_set(err, STATUS_DATA_LOSS, "queue: record %" PRIu64 " cannot be read", l->seq);
    if (s == STATUS_OK) *ret_record = entries[0].record;
    return s;
}

static struct lease *lease_find(const struct queue *q, uint64_t token)
{
    for (struct list *node = q->leases.next; node != &q->leases; node = node->next) {
        struct lease *l = container_of(node, struct lease, node);
        if (l->token == token) return l;
    }
    return NULL;
}

static enum status record_durably(struct queue *q, struct lease *l, struct record *r, struct error *err);

/* r: the item's record. */
static bool is_last_attempt(const struct queue *q, const struct lease *l, const struct record *r,
                            int64_t now_ns)
{
    int64_t turned_ns = l->time_ns - r->time_ns;
    bool is_patient = sv_eq(r->purpose, SV("escalate")) && now_ns < r->deadline_ns + turned_ns;
    return l->attempt >= q->cfg.max_attempts && !is_patient;
}

/* An attempt of which nobody knows the end is used up; after the last one the item is dead. */
static enum status count_interrupted(struct queue *q, struct lease *l, const struct record *item,
                                     struct error *err)
{
    int64_t now = clock_unix_ns();
    bool is_last = is_last_attempt(q, l, item, now);
    struct record r = {.kind = is_last ? RECORD_OUTCOME : RECORD_RETRY,
                       .attempt = l->attempt,
                       .incident = item->incident,
                       .state = is_last ? SV("dead") : SV("interrupted"),
                       .code = SV("UNKNOWN"),
                       .time_ns = now,
                       .reason = SV("the platform stopped during the attempt; how it ended is not known")};
    if (!is_last) r.due_ns = r.time_ns;
    enum status s = record_durably(q, l, &r, err);
    if (s == STATUS_OK) l->attempt++;
    l->has_lost_answer = true;
    return s;
}

/* `l` has its record, or is given up; the item becomes waiting or dead, or goes. */
static void lease_settle(struct queue *q, struct lease *l)
{
    struct work *w = l->work;
    lease_end(q, l);
    if (w != NULL && w->has_ended)
        end_work(q, w);
    else if (w != NULL)
        work_set_state(&q->index, w, WORK_WAITING, w->due_ns);
    wake_if_useful(q);
}

/* With a new lease. OK with *ret_is_given false: look for another. */
static enum status hand_out(struct queue *q, struct lease *l, struct arena *a, struct queue_item *ret_item,
                            bool *ret_is_given, struct error *err)
{
    struct queue_item item = {.seq = l->seq, .token = l->token, .is_interrupted = l->work->is_past};
    enum status s = read_record(q, l, a, &item.record, err);
    if (s == STATUS_OK) item.turned_ns = l->time_ns - item.record->time_ns;
    if (s == STATUS_OK && item.is_interrupted) s = count_interrupted(q, l, item.record, err);
    if (s == STATUS_OK && l->work != NULL && !l->work->has_ended) {
        item.attempt = l->attempt;
        item.has_lost_answer = l->has_lost_answer;
        *ret_item = item;
        *ret_is_given = true;
        return STATUS_OK;
    }
    if (s != STATUS_OK && l->work != NULL) l->work->due_ns = clock_unix_ns() + NS_PER_S;
    lease_settle(q, l);
    return s == STATUS_ABORTED ? STATUS_OK : s;
}

static enum status take_one(struct queue *q, int64_t deadline_ns, struct arena *a,
                            struct queue_item *ret_item, bool *ret_is_given, struct error *err)
{
    if (!journal_is_healthy(q->journal)) { /* what has been folded may be half of it */
        if (deadline_ns != 0 && clock_monotonic_ns() >= deadline_ns) return STATUS_DEADLINE_EXCEEDED;
        return sleep_ms(STORE_WAIT_MS);
    }
    promote_due(q);
    struct work *w = has_room(q) ? work_pick(&q->index, &q->cfg) : NULL;
    if (w == NULL) return wait_for_work(q, deadline_ns);
    if (w->changed_seq <= journal_durable_seq(q->journal))
        return hand_out(q, lease_begin(q, w), a, ret_item, ret_is_given, err);
    enum status s = journal_wait_durable(q->journal, w->changed_seq, deadline_ns, err);
    return s == STATUS_UNAVAILABLE ? STATUS_OK : s; /* the journal has failed: seen above */
}

enum status queue_take(struct queue *q, int64_t deadline_ns, struct arena *a, struct queue_item *ret_item,
                       struct error *err)
{
    bool is_given = false;
    enum status s = STATUS_OK;
    while (s == STATUS_OK && !is_given) {
        if (q->is_stopped) return error_set(err, STATUS_CANCELLED, "queue: it has been stopped");
        s = take_one(q, deadline_ns, a, ret_item, &is_given, err);
    }
    wake_if_useful(q); /* whatever woke us is for the next one now */
    if (s == STATUS_CANCELLED || s == STATUS_DEADLINE_EXCEEDED)
        return error_set(err, s, "queue: nothing was taken");
    return s;
}

/* ---- ending a lease ---- */

/* True if a record whose commit was reported as failed came back with the reopened journal all the same. */
static bool is_recorded(const struct lease *l, uint64_t before_seq)
{
    return l->work != NULL && l->work->changed_seq > before_seq;
}

static enum status wait_for_store(struct queue *q, struct error *err)
{
    do {
        if (q->is_stopped && clock_monotonic_ns() - q->stopped_at_ns > STOP_WAIT_NS)
            return error_set(err, STATUS_UNAVAILABLE, "queue: stopping, and the journal still takes nothing");
        enum status s = sleep_ms(STORE_WAIT_MS);
        if (s != STATUS_OK) return s;
    } while (!journal_is_healthy(q->journal));
    return STATUS_OK;
}

static enum status append_durably(struct queue *q, struct record *r, struct error *err)
{
    uint64_t seq = 0;
    enum status s = journal_append(q->journal, r, 1, &seq, err);
    return s == STATUS_OK ? journal_wait_durable(q->journal, seq, 0, err) : s;
}

static enum status record_shielded(struct queue *q, struct lease *l, struct record *r, struct error *err)
{
    enum status s = journal_is_healthy(q->journal) ? STATUS_OK : wait_for_store(q, err);
    if (s != STATUS_OK) return s;
    if (l->work == NULL || l->work->has_ended)
        return error_set(err, STATUS_ABORTED, "queue: somebody else recorded the outcome of '%.*s'",
                         SV_ARG(l->intent));
    uint64_t before_seq = l->work->changed_seq;
    for (;;) {
        s = append_durably(q, r, err);
        if (s != STATUS_UNAVAILABLE) return s;
        s = wait_for_store(q, err);
        if (s != STATUS_OK || is_recorded(l, before_seq)) return s;
    }
}

/* Append one record about the lease's item and wait until it is on disk, through failures of the store. */
static enum status record_durably(struct queue *q, struct lease *l, struct record *r, struct error *err)
{
    r->intent = l->intent;
    r->target = l->target;
    r->function = l->function;
    l->is_ending = true;
    fiber_shield_begin();
    enum status s = record_shielded(q, l, r, err);
    fiber_shield_end();
    l->is_ending = false;
    return s;
}

static struct lease *lease_get(const struct queue *q, const struct queue_item *item, struct error *err)
{
    struct lease *l = lease_find(q, item->token);
    if (l != NULL && l->seq == item->seq && !l->is_ending) return l;
    (void)error_set(err, STATUS_ABORTED, "queue: the lease of item %" PRIu64 " has ended", item->seq);
    return NULL;
}

enum status queue_done(struct queue *q, const struct queue_item *item, struct record *outcome,
                       struct error *err)
{
    struct lease *l = lease_get(q, item, err);
    if (l == NULL) return STATUS_ABORTED;
    outcome->kind = RECORD_OUTCOME;
    outcome->attempt = l->attempt;
    outcome->incident = item->record->incident;
    enum status s = record_durably(q, l, outcome, err);
    if (s == STATUS_INVALID_ARGUMENT) return s;
    lease_settle(q, l);
    return s;
}

static int64_t backoff_ns(const struct queue_cfg *cfg, unsigned attempt)
{
    int64_t limit = cfg->backoff_base_ns;
    for (unsigned i = 1; i < attempt && limit < cfg->backoff_cap_ns; i++)
        limit *= 2;
    if (limit > cfg->backoff_cap_ns) limit = cfg->backoff_cap_ns;
    return (int64_t)random_below((uint64_t)limit + 1); /* full jitter */
}

enum status queue_retry(struct queue *q, const struct queue_item *item, bool counts, int64_t retry_after_ns,
                        struct strview code, struct strview reason, struct error *err)
{
    struct lease *l = lease_get(q, item, err);
    if (l == NULL) return STATUS_ABORTED;
    int64_t now = clock_unix_ns();
    if (now - l->time_ns > QUEUE_SNOOZE_MAX_NS) counts = true;
    bool is_last = counts && is_last_attempt(q, l, item->record, now);
    struct record r = {.kind = is_last ? RECORD_OUTCOME : RECORD_RETRY,
                       .time_ns = now,
                       .attempt = l->attempt,
                       .code = code,
                       .reason = reason,
                       .incident = item->record->incident,
                       .state = is_last  ? SV("dead")
                                : counts ? SV("failed")
                                         : SV("snoozed")};
    if (is_last && l->has_lost_answer && !is_lost(code)) {
        r.code = SV("UNKNOWN");
        r.message = SV("an earlier attempt may have taken effect: its answer was lost");
    }
    if (retry_after_ns > QUEUE_RETRY_AFTER_MAX_NS) retry_after_ns = QUEUE_RETRY_AFTER_MAX_NS;
    if (!is_last) r.due_ns = now + (retry_after_ns > 0 ? retry_after_ns : backoff_ns(&q->cfg, l->attempt));
    enum status s = record_durably(q, l, &r, err);
    if (s == STATUS_INVALID_ARGUMENT) return s;
    lease_settle(q, l);
    return s;
}
