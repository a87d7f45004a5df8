#include "store/journal_impl.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "log/log.h"

/* One fiber that waits; lives on its stack. */
struct waiter {
    struct list node;
    struct fiber_event woken;
    uint64_t seq;
    bool outlives_failure; /* waits for progress, not for one append */
    enum status result;
};

/* ---- life cycle ---- */

void journal_front_init(struct journal *j, const struct journal_ops *ops, struct loop *l,
                        const struct journal_cfg *cfg, uint64_t first_seq, uint64_t last_seq)
{
    *j = (struct journal){.ops = ops,
                          .loop = l,
                          .first_seq = first_seq,
                          .last_seq = last_seq,
                          .durable_seq = last_seq,
                          .is_healthy = true,
                          .tenant = cfg->tenant.len > 0 ? cfg->tenant : SV("default"),
                          .cluster = cfg->cluster.len > 0 ? cfg->cluster : SV("local"),
                          .pending_max_bytes =
                              cfg->pending_max_bytes ? cfg->pending_max_bytes : JOURNAL_PENDING_BYTES};
    journal_log_init(&j->log);
    list_init(&j->followers);
    list_init(&j->keepers);
    list_init(&j->waiters);
    fiber_scope_init(&j->scope);
    buf_init(&j->scratch, RECORD_BYTES_MAX);
    j->snapshot_every = cfg->snapshot_every > 0 ? cfg->snapshot_every : JOURNAL_SNAPSHOT_EVERY;
    if (cfg->snapshots_dir != NULL) {
        j->snapshots_dir = mem_alloc(strlen(cfg->snapshots_dir) + 1);
        memcpy(j->snapshots_dir, cfg->snapshots_dir, strlen(cfg->snapshots_dir) + 1);
    }
    j->durable_times = mem_zalloc(JOURNAL_DURABLE_TIMES, sizeof(*j->durable_times));
}

void journal_front_release(struct journal *j)
{
    assert(list_is_empty(&j->waiters));
    journal_log_release(&j->log);
    buf_release(&j->scratch);
    arena_release(&j->nested);
    free(j->durable_times);
    free(j->snapshots_dir);
}

static void wake_all(struct journal *j, enum status result);

void journal_close(struct journal *j)
{
    if (j == NULL) return;
    fiber_shield_begin();
    if (j->is_healthy)
        (void)!journal_wait_durable(j, j->last_seq, clock_monotonic_ns() + JOURNAL_CLOSE_WAIT_NS, NULL);
    j->is_closing = true;
    fiber_scope_cancel(&j->scope);
    fiber_scope_join(&j->scope);
    wake_all(j, STATUS_UNAVAILABLE);
    (void)!fiber_yield(); /* those that were woken look at the journal once more */
    j->ops->close(j);
    fiber_shield_end();
}

void journal_run_blocking(void (*fn)(void *arg), void *arg)
{
    if (fiber_current() != NULL)
        work_run(fn, arg);
    else
        fn(arg);
}

/* ---- appending ---- */

static enum status check_can_append(const struct journal *j, struct error *err)
{
    if (!j->is_healthy)
        return error_set(err, STATUS_UNAVAILABLE, "append to the journal: %s", j->why_unhealthy);
    if (j->is_closing) return error_set(err, STATUS_UNAVAILABLE, "append to the journal: it is being closed");
    if (j->is_folding)
        return error_set(err, STATUS_UNAVAILABLE, "append to the journal: its past is still being read");
    return STATUS_OK;
}

static enum status push_record(struct journal *j, struct record *r, uint64_t seq, struct error *err)
{
    if (r->tenant.len == 0) r->tenant = j->tenant;
    if (r->cluster.len == 0) r->cluster = j->cluster;
    if (r->time_ns == 0)
        return error_set(err, STATUS_INVALID_ARGUMENT, "append to the journal: a record without time");
    buf_reset(&j->scratch);
    record_encode(r, &j->scratch);
    if (buf_status(&j->scratch) != STATUS_OK)
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "append to the journal: a record of kind %s is over %d bytes",
                         record_kind_name(r->kind), RECORD_BYTES_MAX);
    struct journal_frame *f = journal_log_push(&j->log, seq, buf_view(&j->scratch));
    f->record = r;
    if (!j->is_dispatching) return STATUS_OK;
    /* A follower's record dies with the follower's call, but is due only after it: keep one of our own. */
    struct record *kept = arena_alloc(&j->nested, sizeof(*kept));
    record_copy(r, &j->nested, kept);
    f->record = kept;
    return STATUS_OK;
}

/* All or nothing. A follower's append is not held to the pending limit: what was decided on an accepted input
 * must be recorded with it; it is bounded by a few records an input. */
static enum status push_records(struct journal *j, struct record *records, size_t n, struct error *err)
{
    struct journal_position start = j->log.end;
    enum status s = STATUS_OK;
    for (size_t i = 0; i < n && s == STATUS_OK; i++) {
        s = push_record(j, &records[i], j->last_seq + 1 + i, err);
        if (s == STATUS_OK && !j->is_dispatching && journal_pending_bytes(j) > j->pending_max_bytes)
            s = error_set(err, STATUS_UNAVAILABLE,
                          "append to the journal: more than %zu bytes wait for the disk",
                          j->pending_max_bytes);
    }
    if (s != STATUS_OK) journal_log_cut(&j->log, start);
    return s;
}

static void call_followers(struct journal *j, const struct journal_entry *e)
{
    for (struct list *node = j->followers.next; node != &j->followers; node = j->next_follower) {
        j->next_follower = node->next;
        struct journal_follower *f = container_of(node, struct journal_follower, node);
        f->on_record(f, e);
    }
    j->next_follower = NULL;
}

/* From `at` to the end, which moves while followers append: so each record has been seen by every follower
 * before the next one is shown to any. Returns the last frame. */
static struct journal_frame *dispatch(struct journal *j, struct journal_position at)
{
    struct journal_frame *f, *last = NULL;
    j->is_dispatching = true;
    while ((f = journal_log_next(&at, j->log.end)) != NULL) {
        struct journal_entry e = {.seq = f->seq, .bytes = {f->bytes, f->bytes_len}, .record = f->record};
        call_followers(j, &e);
        f->record = NULL;
        last = f;
    }
    j->is_dispatching = false;
    arena_reset(&j->nested);
    return last;
}

void journal_set_usher(struct journal *j, struct journal_usher *u)
{
    j->usher = u;
}

static void usher_in(struct journal *j, struct record *records, size_t n)
{
    struct journal_usher *u = j->usher;
    if (u == NULL || j->is_dispatching) return;
    j->usher = NULL;
    u->before_append(u, records, n);
    j->usher = u;
}

enum status journal_append(struct journal *j, struct record *records, size_t n, uint64_t *ret_last_seq,
                           struct error *err)
{
    assert(!j->is_dispatching || ret_last_seq == NULL);
    enum status s = check_can_append(j, err);
    if (s != STATUS_OK) return s;
    usher_in(j, records, n);
    struct journal_position start = j->log.end;
    s = push_records(j, records, n, err);
    if (s != STATUS_OK) return s;
    j->last_seq += n;
    if (ret_last_seq != NULL) *ret_last_seq = j->last_seq;
    if (n == 0 || j->is_dispatching) return STATUS_OK; /* a follower's: the outermost call goes on with it */
    struct journal_frame *last = dispatch(j, start);
    assert(last != NULL); /* n records lie behind `start` */
    last->ends_append = true;
    j->ops->submit(j);
    return STATUS_OK;
}

/* ---- durability ---- */

static void wait_insert(struct journal *j, struct waiter *w)
{
    /* The newest sequence is nearly always the largest. */
    struct list *after = j->waiters.prev;
    while (after != &j->waiters && container_of(after, struct waiter, node)->seq > w->seq)
        after = after->prev;
    list_push_front(after, &w->node);
}

static enum status wait_for(struct journal *j, uint64_t seq, bool outlives_failure, int64_t deadline_ns)
{
    struct waiter w = {.seq = seq, .outlives_failure = outlives_failure, .result = STATUS_UNAVAILABLE};
    fiber_event_init(&w.woken);
    wait_insert(j, &w);
    enum status s = fiber_event_wait(&w.woken, deadline_ns);
    list_remove(&w.node);
    return s == STATUS_OK ? w.result : s;
}

enum status journal_wait_durable(struct journal *j, uint64_t seq, int64_t deadline_ns, struct error *err)
{
    if (seq <= j->durable_seq) return STATUS_OK;
    enum status s = STATUS_UNAVAILABLE;
    if (j->is_healthy && !j->is_closing && seq <= j->last_seq) s = wait_for(j, seq, false, deadline_ns);
    if (s == STATUS_OK) return s;
    const char *why =
        s == STATUS_UNAVAILABLE && j->why_unhealthy[0] != '\0' ? j->why_unhealthy : status_name(s);
    return error_set(err, s, "record %" PRIu64 " is not known to be on disk: %s", seq, why);
}

enum status journal_wait_after(struct journal *j, uint64_t seq, int64_t deadline_ns)
{
    if (j->durable_seq > seq) return STATUS_OK;
    return j->is_closing ? STATUS_UNAVAILABLE : wait_for(j, seq + 1, true, deadline_ns);
}

static void wake(struct waiter *w, enum status result)
{
    list_remove(&w->node);
    w->result = result;
    fiber_event_set(&w->woken);
}

void journal_wake_durable(struct journal *j)
{
    while (!list_is_empty(&j->waiters)) {
        struct waiter *w = container_of(j->waiters.next, struct waiter, node);
        if (w->seq > j->durable_seq) return;
        wake(w, STATUS_OK);
    }
}

static void wake_all(struct journal *j, enum status result)
{
    for (struct list *node = j->waiters.next, *next; node != &j->waiters; node = next) {
        next = node->next;
        struct waiter *w = container_of(node, struct waiter, node);
        if (!w->outlives_failure || j->is_closing) wake(w, result);
    }
}

void journal_committed(struct journal *j, struct journal_position at, uint64_t seq, int64_t unix_ns)
{
    uint64_t from = j->durable_seq + 1;
    if (seq - j->durable_seq > JOURNAL_DURABLE_TIMES) from = seq - JOURNAL_DURABLE_TIMES + 1;
    for (uint64_t i = from; i <= seq; i++)
        j->durable_times[i % JOURNAL_DURABLE_TIMES] = unix_ns;
    j->durable_seq = seq;
    j->durable_total_bytes = at.total_bytes;
    journal_log_drop(&j->log, at);
    journal_wake_durable(j);
}

uint64_t journal_last_seq(const struct journal *j)
{
    return j->last_seq;
}

uint64_t journal_durable_seq(const struct journal *j)
{
    return j->durable_seq;
}

uint64_t journal_first_seq(const struct journal *j)
{
    return j->first_seq;
}

uint64_t journal_reserve_left(const struct journal *j, uint64_t *ret_size)
{
    *ret_size = j->reserve != NULL ? reserve_size(j->reserve) : 0;
    return j->reserve != NULL ? reserve_left(j->reserve) : 0;
}

bool journal_reserve_give(struct journal *j)
{
    return j->reserve != NULL && reserve_give(j->reserve);
}

uint64_t journal_generation(const struct journal *j)
{
    return j->generation;
}

int64_t journal_durable_unix_ns(const struct journal *j, uint64_t seq)
{
    if (seq > j->durable_seq || j->durable_seq - seq >= JOURNAL_DURABLE_TIMES) return 0;
    return j->durable_times[seq % JOURNAL_DURABLE_TIMES];
}

size_t journal_pending_bytes(const struct journal *j)
{
    return (size_t)(j->log.end.total_bytes - j->durable_total_bytes);
}

bool journal_is_healthy(const struct journal *j)
{
    return j->is_healthy;
}

/* ---- failure and reset ---- */

void journal_failed(struct journal *j, const char *why)
{
    bool was_healthy = j->is_healthy;
    j->is_healthy = false;
    (void)snprintf(j->why_unhealthy, sizeof(j->why_unhealthy), "%s", why);
    if (was_healthy)
        log_error("journal", "store failed, nothing is accepted until it is whole again",
                  LOG_STR("store", j->ops->name), LOG_STR("reason", why),
                  LOG_INT("durable_seq", j->durable_seq), LOG_INT("last_seq", j->last_seq));
    wake_all(j, STATUS_UNAVAILABLE);
}

void journal_recovered(struct journal *j, uint64_t durable_seq)
{
    j->generation++;
    /* What came back beyond the acknowledged has no time of its own. */
    uint64_t from = j->durable_seq + 1;
    if (durable_seq - j->durable_seq > JOURNAL_DURABLE_TIMES) from = durable_seq - JOURNAL_DURABLE_TIMES + 1;
    for (uint64_t i = from; i <= durable_seq; i++)
        j->durable_times[i % JOURNAL_DURABLE_TIMES] = clock_unix_ns();
    j->durable_seq = j->last_seq = durable_seq;
    j->durable_total_bytes = 0;
    journal_log_clear(&j->log);
    wake_all(j, STATUS_UNAVAILABLE);
    struct error err;
    if (fiber_scope_spawn(&j->scope, journal_fold_again_fiber, j, &err) != STATUS_OK && !j->is_closing)
        log_error("journal", "cannot fold again: restart needed", LOG_STR("reason", err.message));
}

/* ---- following and reading ---- */

void journal_follow(struct journal *j, struct journal_follower *f)
{
    assert(!j->is_dispatching); /* it would see a record that others have seen half-way */
    list_push_back(&j->followers, &f->node);
}

void journal_unfollow(struct journal *j, struct journal_follower *f)
{
    if (j->next_follower == &f->node) j->next_follower = f->node.next;
    if (f->name != NULL) j->is_folded = false; /* from here on a snapshot would lack its part */
    list_remove(&f->node);
}

void journal_keep(struct journal *j, struct journal_keeper *k)
{
    list_push_back(&j->keepers, &k->node);
}

void journal_unkeep(struct journal *j, struct journal_keeper *k)
{
    (void)j;
    list_remove(&k->node);
}

enum status journal_read(struct journal *j, uint64_t seq, size_t max, bool decode, struct arena *a,
                         struct journal_entry **ret_entries, size_t *ret_n, struct error *err)
{
    if (seq == 0) seq = 1;
    if (max > JOURNAL_READ_MAX) max = JOURNAL_READ_MAX;
    if (seq < j->first_seq)
        return error_set(err, STATUS_OUT_OF_RANGE,
                         "read the journal: record %" PRIu64 " is gone, the oldest kept is %" PRIu64, seq,
                         j->first_seq);
    if (seq > j->durable_seq || max == 0) {
        *ret_entries = NULL;
        *ret_n = 0;
        return STATUS_OK;
    }
    /* Only what was acknowledged: the file may already show more. */
    if (j->durable_seq - seq < max) max = (size_t)(j->durable_seq - seq + 1);
    return j->ops->read(j, seq, max, decode, a, ret_entries, ret_n, err);
}

enum status journal_read_kept(struct journal *j, uint64_t seq, size_t max, bool decode, struct arena *a,
                              struct journal_entry **ret_entries, size_t *ret_n, struct error *err)
{
    struct error why;
    enum status s;
    do {
        if (seq < j->first_seq) seq = j->first_seq;
        s = journal_read(j, seq, max, decode, a, ret_entries, ret_n, &why);
    } while (s == STATUS_OUT_OF_RANGE && seq < j->first_seq);
    if (s != STATUS_OK && err != NULL) *err = why;
    return s;
}

/* ---- leases ---- */

enum status journal_lease_acquire(struct journal *j, struct strview key, struct strview holder,
                                  int64_t ttl_ns, uint64_t *ret_revision, struct error *err)
{
    if (key.len == 0 || holder.len == 0 || ttl_ns <= 0)
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "lease '%.*s': key, holder and time to live must be given", SV_ARG(key));
    return j->ops->lease_acquire(j, key, holder, ttl_ns, ret_revision, err);
}

enum status journal_lease_release(struct journal *j, struct strview key, struct strview holder,
                                  struct error *err)
{
    return j->ops->lease_release(j, key, holder, err);
}
