/* The queue on any store: part of the journal's contract, since it lives on the store's acknowledgements. */
#include "base/clock.h"
#include "store/queue.h"
#include "tests/contract/check.h"
#include "tests/contract/journal_contract.h"

static int64_t soon(void)
{
    return clock_monotonic_ns() + 20 * NS_PER_S;
}

static uint64_t add_intent(struct journal *j, const char *intent, const char *target)
{
    struct record r = {.kind = RECORD_INTENT,
                       .time_ns = clock_unix_ns(),
                       .intent = sv(intent),
                       .function = SV("f"),
                       .target = sv(target)};
    struct error err;
    uint64_t seq = 0;
    CHECK_OK(journal_append(j, &r, 1, &seq, &err), &err);
    return seq;
}

static struct queue *open_queue(struct journal *j)
{
    struct queue *q;
    struct error err;
    CHECK_OK(queue_new(j, &(struct queue_cfg){0}, &q, &err), &err);
    CHECK_OK(journal_fold(j, &err), &err);
    return q;
}

static enum status end_item(struct queue *q, const struct queue_item *item)
{
    struct record outcome = {.time_ns = clock_unix_ns(), .state = SV("done")};
    struct error err;
    return queue_done(q, item, &outcome, &err);
}

void contract_a_queue_serves_each_item_once(struct journal_contract *c)
{
    struct journal *j = contract_open(c);
    struct queue *q = open_queue(j);
    struct arena a = {0};
    struct error err;
    (void)add_intent(j, "i1", "a");
    (void)add_intent(j, "i2", "b");
    for (unsigned i = 1; i <= 2; i++) {
        struct queue_item item;
        CHECK_OK(queue_take(q, soon(), &a, &item, &err), &err);
        CHECK(item.attempt == 1 && !item.is_interrupted && item.seq <= journal_durable_seq(j));
        if (i == 1) CHECK(end_item(q, &item) == STATUS_OK);
    }
    queue_free(q);
    journal_close(j);
    j = contract_open(c);
    q = open_queue(j);
    struct queue_item item;
    CHECK_OK(queue_take(q, soon(), &a, &item, &err), &err);
    CHECK(sv_eq(item.record->intent, SV("i2")) && item.is_interrupted && item.attempt == 2);
    CHECK(end_item(q, &item) == STATUS_OK);
    CHECK(queue_depth(q, SV("")).ready + queue_depth(q, SV("")).leased + queue_depth(q, SV("")).waiting == 0);
    queue_free(q);
    journal_close(j);
    arena_release(&a);
}

struct ending {
    struct queue *q;
    struct queue_item item;
    enum status status;
};

static void end_in_fiber(void *arg)
{
    struct ending *e = arg;
    e->status = end_item(e->q, &e->item);
}

struct taking {
    struct queue *q;
    struct queue_item item;
    struct arena arena;
    enum status status;
};

static void take_in_fiber(void *arg)
{
    struct taking *t = arg;
    struct error err;
    t->status = queue_take(t->q, soon(), &t->arena, &t->item, &err);
}

static unsigned count_outcomes(struct journal *j, struct strview intent)
{
    struct arena a = {0};
    struct journal_entry *entries;
    struct error err;
    size_t n;
    unsigned outcomes = 0;
    CHECK_OK(journal_read(j, 1, 1000, true, &a, &entries, &n, &err), &err);
    for (size_t i = 0; i < n; i++)
        if (entries[i].record->kind == RECORD_OUTCOME && sv_eq(entries[i].record->intent, intent)) outcomes++;
    arena_release(&a);
    return outcomes;
}

void contract_an_outcome_outlives_a_failed_commit(struct journal_contract *c)
{
    struct journal *j = contract_open(c);
    struct queue *q = open_queue(j);
    struct arena a = {0};
    struct error err;
    struct fiber_scope scope, ending;
    struct ending e = {.q = q, .status = STATUS_UNKNOWN};
    struct taking next = {.q = q, .status = STATUS_UNKNOWN};
    (void)add_intent(j, "i1", "a");
    (void)add_intent(j, "i2", "a");
    CHECK_OK(queue_take(q, soon(), &a, &e.item, &err), &err);
    CHECK_OK(journal_wait_durable(j, journal_last_seq(j), soon(), &err), &err);
    c->set_failing(c, true);
    fiber_scope_init(&scope);
    CHECK_OK(fiber_scope_spawn(&scope, take_in_fiber, &next, &err), &err);
    CHECK(fiber_yield() == STATUS_OK);
    fiber_scope_init(&ending);
    CHECK_OK(fiber_scope_spawn(&ending, end_in_fiber, &e, &err), &err);
    while (journal_is_healthy(j))
        CHECK(sleep_ms(1) == STATUS_OK);
    fiber_scope_cancel(&ending); /* recording is shielded */
    CHECK(sleep_ms(50) == STATUS_OK);
    CHECK(e.status == STATUS_UNKNOWN && next.status == STATUS_UNKNOWN);
    c->set_failing(c, false);
    fiber_scope_join(&scope);
    CHECK(next.status == STATUS_OK);
    CHECK(sv_eq(next.item.record->intent, SV("i2")) && !next.item.is_interrupted);
    CHECK(count_outcomes(j, SV("i1")) == 1); /* on disk before the next item of the target began */
    fiber_scope_join(&ending);
    CHECK(e.status == STATUS_OK);
    CHECK(end_item(q, &next.item) == STATUS_OK);
    queue_free(q);
    journal_close(j);
    arena_release(&next.arena);
    arena_release(&a);
}
