#include "store/queue_impl.h"

#include <inttypes.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/random.h"

#define RECHECK_NS    NS_PER_S       /* due times are wall-clock: a jump is noticed within this */
#define STORE_WAIT_MS 100            /* between tries while the journal takes nothing */
#define STOP_WAIT_NS  (5 * NS_PER_S) /* for a journal that stays away while we stop */

/* ---- taking ---- */

static void promote_due(struct queue *q)
{
    struct work *w;
    int64_t now = clock_unix_ns();
    while ((w = work_first_due(&q->index)) != NULL && w->due_ns <= now)
        work_set_state(&q->index, w, WORK_READY, 0);
    if (q->is_settled) return;
    taken_start(&q->taken, q->past_seq, q->past_epoch, q->epoch);
    work_settle_past(&q->index, &q->taken, q->past_seq);
    q->is_settled = true;
}

/* Until woken, the next due time or the deadline. OK: look again. */
static enum status wait_for_work(struct queue *q, int64_t deadline_ns)
{
    int64_t now = clock_monotonic_ns(), until = deadline_ns;
    const struct work *due = work_first_due(&q->index);
    if (due != NULL && queue_has_room(q)) {
        int64_t wait = clock_add_ns(clock_elapsed_ns(clock_unix_ns(), due->due_ns), NS_PER_MS);
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
    l->slot = TAKEN_NO_SLOT;
    l->has_lost_answer = w->has_lost_answer;
    l->time_ns = w->time_ns;
    w->lease = l;
    list_push_back(&q->leases, &l->node);
    q->n_leases++;
    work_set_state(&q->index, w, WORK_LEASED, 0);
    return l;
}

void queue_lease_end(struct queue *q, struct lease *l)
{
    bool is_durable = l->work != NULL && l->work->changed_seq <= journal_durable_seq(q->journal);
    if (is_durable) taken_free(&q->taken, l->slot); /* else the mark stays, to be on the safe side */
    if (l->work != NULL) l->work->lease = NULL;
    list_remove(&l->node);
    q->n_leases--;
    free(l);
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

static enum status record_durably(struct queue *q, struct lease *l, struct record *r,
                                  const struct record *sequel, struct error *err);

/* Does somebody wait to be told how it ends? A callback itself (purpose) tells nobody. */
static bool has_callback(const struct record *r)
{
    return r->callback.len > 0 && r->purpose.len == 0;
}

/* r: the item's record. */
static bool is_last_attempt(const struct queue *q, const struct lease *l, const struct record *r,
                            int64_t now_ns)
{
    int64_t deadline_ns = clock_add_ns(r->deadline_ns, clock_elapsed_ns(r->time_ns, l->time_ns));
    bool is_patient = sv_eq(r->purpose, SV("escalate")) && now_ns < deadline_ns;
    return l->attempt >= q->cfg.max_attempts && !is_patient;
}

/* An attempt of which nobody knows the end is used up; after the last one the item is dead, or its holder has
 * to say so. */
static enum status count_interrupted(struct queue *q, struct lease *l, const struct record *item,
                                     struct error *err)
{
    int64_t now = clock_unix_ns();
    uint64_t taken_seq = l->work->changed_seq;
    bool is_last = is_last_attempt(q, l, item, now) && !has_callback(item);
    struct record r = {.kind = is_last ? RECORD_OUTCOME : RECORD_RETRY,
                       .attempt = l->attempt,
                       .incident = item->incident,
                       .state = is_last ? SV("dead") : SV("interrupted"),
                       .code = SV("UNKNOWN"),
                       .time_ns = now,
                       .reason = SV("the platform stopped during the attempt; how it ended is not known")};
    if (!is_last) r.due_ns = r.time_ns;
    enum status s = record_durably(q, l, &r, NULL, err);
    if (s == STATUS_OK) {
        taken_forget(&q->taken, taken_seq);
        l->attempt++;
    }
    l->has_lost_answer = true;
    return s;
}

/* `l` has its record, or is given up; the item becomes waiting or dead, or goes. */
static void lease_settle(struct queue *q, struct lease *l)
{
    struct work *w = l->work;
    queue_lease_end(q, l);
    if (w != NULL && w->has_ended)
        queue_end_work(q, w);
    else if (w != NULL)
        work_set_state(&q->index, w, WORK_WAITING, w->due_ns);
    queue_wake_if_useful(q);
}

static enum status note_taken(struct queue *q, struct lease *l, struct error *err)
{
    return taken_note(&q->taken, l->work->changed_seq, journal_durable_seq(q->journal), q->epoch, &l->slot,
                      err);
}

/* With a new lease. OK with *ret_is_given false: look for another. */
static enum status hand_out(struct queue *q, struct lease *l, struct arena *a, struct queue_item *ret_item,
                            bool *ret_is_given, struct error *err)
{
    struct queue_item item = {.seq = l->seq, .token = l->token, .is_interrupted = l->work->is_past};
    enum status s = read_record(q, l, a, &item.record, err);
    if (s == STATUS_OK) item.turned_ns = clock_elapsed_ns(item.record->time_ns, l->time_ns);
    if (s == STATUS_OK && item.is_interrupted) s = count_interrupted(q, l, item.record, err);
    bool is_wanted = s == STATUS_OK && l->work != NULL && !l->work->has_ended;
    if (is_wanted) s = note_taken(q, l, err);
    if (is_wanted && s == STATUS_OK) {
        item.attempt = l->attempt;
        item.is_spent = has_callback(item.record) && l->attempt > q->cfg.max_attempts;
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
    struct work *w = queue_has_room(q) ? work_pick(&q->index, &q->cfg) : NULL;
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
    queue_wake_if_useful(q); /* whatever woke us is for the next one now */
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

static enum status append_durably(struct queue *q, struct record *records, size_t n, struct error *err)
{
    uint64_t seq = 0;
    enum status s = journal_append(q->journal, records, n, &seq, err);
    return s == STATUS_OK ? journal_wait_durable(q->journal, seq, 0, err) : s;
}

static enum status record_shielded(struct queue *q, struct lease *l, struct record *records, size_t n,
                                   struct error *err)
{
    enum status s = journal_is_healthy(q->journal) ? STATUS_OK : wait_for_store(q, err);
    if (s != STATUS_OK) return s;
    if (l->work == NULL || l->work->has_ended)
        return error_set(err, STATUS_ABORTED, "queue: somebody else recorded the outcome of '%.*s'",
                         SV_ARG(l->intent));
    uint64_t before_seq = l->work->changed_seq;
    for (;;) {
        s = append_durably(q, records, n, err);
        if (s != STATUS_UNAVAILABLE) return s;
        s = wait_for_store(q, err);
        if (s != STATUS_OK || is_recorded(l, before_seq)) return s;
    }
}

/* Append a record about the lease's item, with what comes of it, and wait until both are on disk, through
 * failures of the store. */
static enum status record_durably(struct queue *q, struct lease *l, struct record *r,
                                  const struct record *sequel, struct error *err)
{
    struct record records[2] = {*r};
    size_t n = 1;
    records[0].intent = l->intent;
    records[0].target = l->target;
    records[0].function = l->function;
    if (sequel != NULL && r->kind == RECORD_OUTCOME) records[n++] = *sequel;
    l->is_ending = true;
    fiber_shield_begin();
    enum status s = record_shielded(q, l, records, n, err);
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
    enum status s = record_durably(q, l, outcome, item->sequel, err);
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
    if (clock_elapsed_ns(l->time_ns, now) > QUEUE_SNOOZE_MAX_NS) counts = true;
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
    if (is_last && l->has_lost_answer && !queue_is_lost(code)) {
        r.code = SV("UNKNOWN");
        r.message = SV("an earlier attempt may have taken effect: its answer was lost");
    }
    if (retry_after_ns > QUEUE_RETRY_AFTER_MAX_NS) retry_after_ns = QUEUE_RETRY_AFTER_MAX_NS;
    if (!is_last) r.due_ns = now + (retry_after_ns > 0 ? retry_after_ns : backoff_ns(&q->cfg, l->attempt));
    enum status s = record_durably(q, l, &r, item->sequel, err);
    if (s == STATUS_INVALID_ARGUMENT) return s;
    lease_settle(q, l);
    return s;
}
