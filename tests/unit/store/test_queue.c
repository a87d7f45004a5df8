/* The queue on a real journal. Every test runs in a fiber on a loop of its own. */
#include "store/queue.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

TestSuite(queue, .timeout = 60);

static char dir[1024];
static struct loop *loop;
static struct journal *journal;
static struct queue *queue;
static struct arena arena;
static struct queue_cfg cfg;
static uint64_t epoch; /* of new intents */

static void make_dir(void)
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(dir, sizeof(dir), "%s/balm-queue-XXXXXX", tmp != NULL ? tmp : "/tmp");
    cr_assert_not_null(mkdtemp(dir));
}

static void remove_dir(void)
{
    DIR *d = opendir(dir);
    cr_assert_not_null(d);
    const struct dirent *entry;
    while ((entry = readdir(d)) != NULL)
        if (entry->d_name[0] != '.') (void)unlinkat(dirfd(d), entry->d_name, 0);
    (void)closedir(d);
    cr_assert_eq(rmdir(dir), 0);
}

static void open_queue(void)
{
    struct error err;
    cr_assert_eq(journal_open_sqlite(loop, &(struct journal_cfg){.dir = dir}, &journal, &err), STATUS_OK,
                 "%s", err.message);
    cr_assert_eq(queue_new(journal, &cfg, &queue, &err), STATUS_OK, "%s", err.message);
    cr_assert_eq(journal_fold(journal, &err), STATUS_OK, "%s", err.message);
}

static void close_queue(void)
{
    queue_stop(queue);
    queue_free(queue);
    journal_close(journal);
}

/* As after kill -9: leases are gone. */
static void restart(void)
{
    close_queue();
    open_queue();
}

static void run_test(void *arg)
{
    open_queue();
    ((void (*)(void))arg)();
    close_queue();
}

static void in_fiber(void (*fn)(void))
{
    struct error err;
    make_dir();
    cr_assert_eq(loop_new(&loop, &err), STATUS_OK);
    cr_assert_eq(loop_run_fiber(loop, run_test, (void *)fn, &err), STATUS_OK);
    loop_free(loop);
    arena_release(&arena);
    remove_dir();
}

#define QUEUE_TEST(name)                                                                                     \
    static void name(void);                                                                                  \
    Test(queue, name)                                                                                        \
    {                                                                                                        \
        in_fiber(name);                                                                                      \
    }                                                                                                        \
    static void name(void)

static uint64_t append(struct record r)
{
    uint64_t seq = 0;
    struct error err;
    r.time_ns = r.time_ns ? r.time_ns : clock_unix_ns();
    cr_assert_eq(journal_append(journal, &r, 1, &seq, &err), STATUS_OK, "%s", err.message);
    return seq;
}

static uint64_t add(const char *intent, const char *function, const char *target)
{
    return append((struct record){.kind = RECORD_INTENT,
                                  .intent = sv(intent),
                                  .function = sv(function),
                                  .target = sv(target),
                                  .incident = SV("incident"),
                                  .epoch = epoch,
                                  .params = SV("{}")});
}

static enum status try_take_until(struct queue_item *ret_item, int64_t wait_ms)
{
    return queue_take(queue, clock_monotonic_ns() + wait_ms * NS_PER_MS, &arena, ret_item, NULL);
}

/* Long enough for a commit on a busy machine. */
static struct queue_item take(void)
{
    struct queue_item item = {0};
    struct error err = {0};
    cr_assert_eq(queue_take(queue, clock_monotonic_ns() + 10 * NS_PER_S, &arena, &item, &err), STATUS_OK,
                 "%s", err.message);
    cr_assert_leq(item.seq, journal_durable_seq(journal));
    return item;
}

static void expect_nothing_ready(void)
{
    struct queue_item item;
    struct error err;
    cr_assert_eq(journal_wait_durable(journal, journal_last_seq(journal), 0, &err), STATUS_OK);
    cr_assert_eq(try_take_until(&item, 20), STATUS_DEADLINE_EXCEEDED);
}

/* A life in which nothing is handed out. */
static void expect_waiting(void)
{
    struct queue_item item;
    queue_freeze(queue, true);
    cr_assert_eq(try_take_until(&item, 1), STATUS_DEADLINE_EXCEEDED);
    queue_freeze(queue, false);
}

static bool is_intent(const struct queue_item *item, const char *intent)
{
    return sv_eq(item->record->intent, sv(intent));
}

static enum status done(const struct queue_item *item)
{
    struct record outcome = {.time_ns = clock_unix_ns(), .state = SV("done")};
    return queue_done(queue, item, &outcome, NULL);
}

static enum status retry(const struct queue_item *item, bool counts, int64_t retry_after_ns)
{
    return queue_retry(queue, item, counts, retry_after_ns, SV("UNAVAILABLE"),
                       SV("the function answered 503"), NULL);
}

static const struct record *last_record(void)
{
    struct journal_entry *entries;
    size_t n;
    struct error err;
    uint64_t seq = journal_durable_seq(journal);
    cr_assert_eq(journal_read(journal, seq, 1, true, &arena, &entries, &n, &err), STATUS_OK, "%s",
                 err.message);
    cr_assert_eq(n, 1);
    return entries[0].record;
}

/* ---- taking ---- */

QUEUE_TEST(items_come_in_the_order_of_their_sequence_with_their_record)
{
    uint64_t first = add("i1", "restart", "a"), second = add("i2", "restart", "b");
    struct queue_item one = take(), two = take();
    cr_assert(one.seq == first && is_intent(&one, "i1") && one.attempt == 1 && !one.is_interrupted);
    cr_assert(two.seq == second && is_intent(&two, "i2") && sv_eq(two.record->target, SV("b")));
    cr_assert_neq(one.token, two.token);
    expect_nothing_ready();
}

QUEUE_TEST(what_is_handed_out_is_durable)
{
    for (unsigned i = 0; i < 20; i++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "i%u", i);
        uint64_t seq = add(name, "restart", "");
        cr_assert_lt(journal_durable_seq(journal), seq, "nothing has been waited for yet");
        struct queue_item item = take(); /* checks it */
        cr_assert_eq(item.seq, seq);
        cr_assert_eq(done(&item), STATUS_OK);
    }
}

struct taking {
    struct queue_item item;
    struct arena arena;
    enum status status;
    struct error err;
};

static void take_fiber(void *arg)
{
    struct taking *t = arg;
    t->status = queue_take(queue, 0, &t->arena, &t->item, &t->err);
}

QUEUE_TEST(a_waiting_taker_is_woken_by_new_work)
{
    struct fiber_scope scope;
    struct taking takings[3] = {
        {.status = STATUS_UNKNOWN}, {.status = STATUS_UNKNOWN}, {.status = STATUS_UNKNOWN}};
    fiber_scope_init(&scope);
    for (size_t i = 0; i < 3; i++)
        cr_assert_eq(fiber_scope_spawn(&scope, take_fiber, &takings[i], NULL), STATUS_OK);
    cr_assert_eq(sleep_ms(5), STATUS_OK);
    (void)add("i1", "f", "a");
    (void)add("i2", "f", "b");
    (void)add("i3", "f", "c");
    fiber_scope_join(&scope);
    uint64_t seen = 0;
    for (size_t i = 0; i < 3; i++) {
        cr_assert_eq(takings[i].status, STATUS_OK);
        seen |= UINT64_C(1) << takings[i].item.seq;
        arena_release(&takings[i].arena);
    }
    cr_assert_eq(seen, 0xe, "each of 1, 2 and 3 exactly once");
}

QUEUE_TEST(stop_and_cancellation_end_a_wait)
{
    struct fiber_scope cancelled, stopped;
    struct taking one = {.status = STATUS_UNKNOWN}, two = {.status = STATUS_UNKNOWN};
    fiber_scope_init(&cancelled);
    fiber_scope_init(&stopped);
    cr_assert_eq(fiber_scope_spawn(&cancelled, take_fiber, &one, NULL), STATUS_OK);
    cr_assert_eq(fiber_scope_spawn(&stopped, take_fiber, &two, NULL), STATUS_OK);
    cr_assert_eq(sleep_ms(5), STATUS_OK);
    fiber_scope_cancel(&cancelled);
    fiber_scope_join(&cancelled);
    cr_assert_eq(one.status, STATUS_CANCELLED);
    cr_assert_eq(two.status, STATUS_UNKNOWN);
    queue_stop(queue);
    fiber_scope_join(&stopped);
    cr_assert_eq(two.status, STATUS_CANCELLED);
    struct queue_item item;
    cr_assert_eq(try_take_until(&item, 1000), STATUS_CANCELLED);
}

QUEUE_TEST(one_target_has_one_item_in_work_and_others_pass)
{
    (void)add("a1", "restart", "a");
    (void)add("a2", "clean", "a");
    (void)add("b1", "restart", "b");
    struct queue_item a1 = take(), b1 = take();
    cr_assert(is_intent(&a1, "a1") && is_intent(&b1, "b1"));
    expect_nothing_ready();
    cr_assert_eq(done(&a1), STATUS_OK);
    struct queue_item a2 = take();
    cr_assert(is_intent(&a2, "a2"));
}

QUEUE_TEST(items_without_target_do_not_wait_for_each_other)
{
    (void)add("i1", "f", "");
    (void)add("i2", "f", "");
    struct queue_item one = take(), two = take();
    cr_assert(is_intent(&one, "i1") && is_intent(&two, "i2"));
}

static void others_pass_a_function_at_its_limit(void)
{
    (void)add("i1", "slow", "");
    (void)add("i2", "slow", "");
    (void)add("i3", "slow", "");
    (void)add("i4", "fast", "");
    struct queue_item one = take(), two = take(), four = take();
    cr_assert(is_intent(&one, "i1") && is_intent(&two, "i2") && is_intent(&four, "i4"));
    expect_nothing_ready();
    cr_assert_eq(done(&one), STATUS_OK);
    struct queue_item three = take();
    cr_assert(is_intent(&three, "i3"));
}

static void set_limit_of_two_per_function(void)
{
    cfg = (struct queue_cfg){.max_inflight_function = 2};
}

Test(queue, a_function_at_its_limit_lets_others_pass, .init = set_limit_of_two_per_function)
{
    in_fiber(others_pass_a_function_at_its_limit);
}

static void set_limit_of_two(void)
{
    cfg = (struct queue_cfg){.max_inflight = 2};
}

static void the_total_is_limited(void)
{
    (void)add("i1", "f", "");
    (void)add("i2", "g", "");
    (void)add("i3", "h", "");
    struct queue_item one = take(), two = take();
    expect_nothing_ready();
    cr_assert_eq(done(&two), STATUS_OK);
    struct queue_item three = take();
    cr_assert(is_intent(&one, "i1") && is_intent(&three, "i3"));
}

Test(queue, the_total_in_flight_is_limited, .init = set_limit_of_two)
{
    in_fiber(the_total_is_limited);
}

static void append_jump(int64_t jump_ns)
{
    char detail[64];
    (void)snprintf(detail, sizeof(detail), "{\"jumpNs\":%lld}", (long long)jump_ns);
    (void)append((struct record){.kind = RECORD_CLOCK, .on = true, .detail = sv(detail)});
}

/* A retry set while the clock ran an hour ahead is due in a moment all the same once it is set right, and the
 * item's times say by how much they were turned. */
static void due_times_turn(void)
{
    (void)add("i1", "f", "");
    struct queue_item one = take();
    struct error err;
    cr_assert_eq(one.turned_ns, 0);
    cr_assert_eq(queue_retry(queue, &one, true, 3600 * NS_PER_S, SV("UNAVAILABLE"), SV("later"), &err),
                 STATUS_OK);
    expect_nothing_ready();
    append_jump(-3600 * NS_PER_S);
    struct queue_item again = take();
    cr_assert(is_intent(&again, "i1"));
    cr_assert_eq(again.turned_ns, -3600 * NS_PER_S);
    cr_assert_eq(done(&again), STATUS_OK);
}

Test(queue, due_times_move_with_the_clock)
{
    in_fiber(due_times_turn);
}

static void set_limit_of_eight(void)
{
    cfg = (struct queue_cfg){.max_inflight = 8};
}

static void bots_that_hang_leave_room(void)
{
    char id[32];
    struct queue_item hung[8];
    size_t n = 0;
    for (int i = 0; i < 8; i++) {
        (void)snprintf(id, sizeof(id), "a%d", i);
        (void)add(id, "one", "");
        (void)snprintf(id, sizeof(id), "b%d", i);
        (void)add(id, "two", "");
    }
    while (n < 6) /* 3 + 3: neither may have a fourth with two places free */
        hung[n++] = take();
    expect_nothing_ready();
    (void)add("i1", "other", "");
    struct queue_item i1 = take();
    cr_assert(is_intent(&i1, "i1"), "the places are not all taken");
    (void)add("i2", "another", "");
    struct queue_item i2 = take();
    cr_assert(is_intent(&i2, "i2"));
    for (size_t i = 0; i < n; i++)
        cr_assert_eq(done(&hung[i]), STATUS_OK);
}

Test(queue, functions_that_hang_cannot_take_all_places, .init = set_limit_of_eight)
{
    in_fiber(bots_that_hang_leave_room);
}

static uint64_t add_call(const char *intent, const char *function)
{
    return append((struct record){.kind = RECORD_CALL,
                                  .intent = sv(intent),
                                  .function = sv(function),
                                  .target = SV("call/same"),
                                  .method = SV("POST"),
                                  .path = SV("/")});
}

static void set_limit_of_four(void)
{
    cfg = (struct queue_cfg){.max_inflight = 4};
}

static void calls_leave_half_to_intents(void)
{
    (void)add_call("c1", "f");
    (void)add_call("c2", "g");
    (void)add_call("c3", "h");
    (void)add("i1", "bot", "a");
    struct queue_item i1 = take(), c1 = take(), c2 = take();
    cr_assert(is_intent(&i1, "i1"), "before all the older calls");
    cr_assert(is_intent(&c1, "c1") && is_intent(&c2, "c2"));
    cr_assert_eq(done(&i1), STATUS_OK);
    expect_nothing_ready(); /* c3 would be the third of four */
    (void)add("i2", "bot", "b");
    (void)add("i3", "bot", "c");
    struct queue_item i2 = take(), i3 = take();
    cr_assert(is_intent(&i2, "i2") && is_intent(&i3, "i3"));
    cr_assert_eq(done(&c1), STATUS_OK);
    struct queue_item c3 = take();
    cr_assert(is_intent(&c3, "c3"));
}

Test(queue, calls_may_have_half_of_the_places_and_go_after_intents, .init = set_limit_of_four)
{
    in_fiber(calls_leave_half_to_intents);
}

static void calls_leave_half_of_a_function(void)
{
    (void)add_call("c1", "f");
    (void)add_call("c2", "f");
    struct queue_item c1 = take();
    expect_nothing_ready();
    (void)add("i1", "f", "a");
    struct queue_item i1 = take();
    cr_assert(is_intent(&c1, "c1") && is_intent(&i1, "i1"));
    cr_assert_eq(done(&c1), STATUS_OK);
    struct queue_item c2 = take();
    cr_assert(is_intent(&c2, "c2"));
}

Test(queue, calls_may_have_half_of_what_a_function_takes, .init = set_limit_of_two_per_function)
{
    in_fiber(calls_leave_half_of_a_function);
}

QUEUE_TEST(calls_are_admitted_up_to_the_limit_of_their_function)
{
    enum { STEP = 100 };
    struct record calls[STEP];
    struct error err;
    for (unsigned i = 0; i < STEP; i++)
        calls[i] = (struct record){.kind = RECORD_CALL, .time_ns = clock_unix_ns(), .function = SV("f")};
    for (unsigned n = 0; n < QUEUE_CALLS_MAX; n += STEP) {
        cr_assert_eq(queue_admit_call(queue, SV("f"), &err), STATUS_OK, "%u: %s", n, err.message);
        cr_assert_eq(journal_append(journal, calls, STEP, NULL, &err), STATUS_OK, "%s", err.message);
    }
    cr_assert_eq(queue_admit_call(queue, SV("f"), &err), STATUS_RESOURCE_EXHAUSTED);
    cr_assert_str_eq(err.message, "10000 calls of function 'f' wait already");
    cr_assert_eq(queue_admit_call(queue, SV("g"), &err), STATUS_OK);
    struct queue_item item = take();
    cr_assert_eq(queue_admit_call(queue, SV("f"), &err), STATUS_RESOURCE_EXHAUSTED, "one in work counts");
    cr_assert_eq(done(&item), STATUS_OK);
    cr_assert_eq(queue_admit_call(queue, SV("f"), &err), STATUS_OK);
}

QUEUE_TEST(a_limit_beyond_the_possible_is_refused)
{
    struct queue *q;
    struct error err;
    cr_assert_eq(queue_new(journal, &(struct queue_cfg){.max_inflight = QUEUE_INFLIGHT_MAX + 1}, &q, &err),
                 STATUS_INVALID_ARGUMENT);
}

QUEUE_TEST(nothing_is_handed_out_while_frozen)
{
    queue_freeze(queue, true);
    (void)add("i1", "f", "a");
    expect_nothing_ready();
    struct fiber_scope scope;
    struct taking t = {.status = STATUS_UNKNOWN};
    fiber_scope_init(&scope);
    cr_assert_eq(fiber_scope_spawn(&scope, take_fiber, &t, NULL), STATUS_OK);
    cr_assert_eq(sleep_ms(5), STATUS_OK);
    cr_assert_eq(t.status, STATUS_UNKNOWN);
    queue_freeze(queue, false);
    fiber_scope_join(&scope);
    cr_assert_eq(t.status, STATUS_OK);
    arena_release(&t.arena);
}

/* ---- ending ---- */

QUEUE_TEST(done_records_the_outcome_with_what_the_item_says)
{
    (void)add("i1", "restart", "a");
    struct queue_item item = take();
    struct record outcome = {.time_ns = clock_unix_ns(), .state = SV("done"), .message = SV("restarted")};
    cr_assert_eq(queue_done(queue, &item, &outcome, NULL), STATUS_OK);
    const struct record *r = last_record();
    cr_assert(r->kind == RECORD_OUTCOME && r->attempt == 1);
    cr_assert(sv_eq(r->intent, SV("i1")) && sv_eq(r->function, SV("restart")) && sv_eq(r->target, SV("a")));
    cr_assert(sv_eq(r->incident, SV("incident")) && sv_eq(r->message, SV("restarted")));
    struct queue_depth d = queue_depth(queue, SV(""));
    cr_assert(d.ready == 0 && d.leased == 0 && d.waiting == 0 && d.dead == 0 && d.oldest_ns == 0);
}

QUEUE_TEST(an_old_token_is_refused)
{
    (void)add("i1", "restart", "a");
    struct queue_item item = take(), forged = item;
    forged.token++;
    cr_assert_eq(done(&forged), STATUS_ABORTED);
    cr_assert_eq(done(&item), STATUS_OK);
    cr_assert_eq(done(&item), STATUS_ABORTED);
    cr_assert_eq(retry(&item, true, 0), STATUS_ABORTED);
}

QUEUE_TEST(an_outcome_recorded_by_somebody_else_ends_the_item)
{
    (void)add("i1", "f", "a");
    (void)add("i2", "f", "a");
    (void)add("i3", "f", "b");
    struct queue_item one = take();
    (void)append((struct record){.kind = RECORD_OUTCOME, .intent = SV("i1"), .state = SV("expired")});
    (void)append((struct record){.kind = RECORD_OUTCOME, .intent = SV("i3"), .state = SV("expired")});
    expect_nothing_ready(); /* i3 is gone; i2 waits: the holder of i1 may still be at work on the target */
    cr_assert_eq(done(&one), STATUS_ABORTED);
    struct queue_item two = take();
    cr_assert(is_intent(&two, "i2"));
}

QUEUE_TEST(an_outcome_that_is_too_large_leaves_the_lease)
{
    (void)add("i1", "f", "a");
    struct queue_item item = take();
    char *text = arena_zalloc(&arena, RECORD_BYTES_MAX);
    memset(text, 'x', RECORD_BYTES_MAX);
    struct record outcome = {
        .time_ns = clock_unix_ns(), .state = SV("done"), .message = {text, RECORD_BYTES_MAX}};
    cr_assert_eq(queue_done(queue, &item, &outcome, NULL), STATUS_INVALID_ARGUMENT);
    cr_assert_eq(done(&item), STATUS_OK);
}

QUEUE_TEST(a_failed_attempt_comes_back_when_it_is_due)
{
    (void)add("i1", "f", "a");
    struct queue_item item = take();
    int64_t before = clock_unix_ns();
    cr_assert_eq(retry(&item, true, 60 * NS_PER_MS), STATUS_OK);
    const struct record *r = last_record();
    cr_assert(r->kind == RECORD_RETRY && r->attempt == 1 && sv_eq(r->state, SV("failed")) &&
              sv_eq(r->code, SV("UNAVAILABLE")));
    cr_assert(r->due_ns >= before + 60 * NS_PER_MS);
    cr_assert_eq(queue_depth(queue, SV("f")).waiting, 1);
    expect_nothing_ready();
    item = take();
    cr_assert(is_intent(&item, "i1") && item.attempt == 2 && !item.is_interrupted);
    cr_assert_geq(clock_unix_ns(), r->due_ns);
}

QUEUE_TEST(a_waiting_item_lets_later_ones_of_its_target_pass)
{
    (void)add("i1", "f", "a");
    (void)add("i2", "f", "a");
    struct queue_item one = take();
    cr_assert_eq(retry(&one, true, 50 * NS_PER_MS), STATUS_OK);
    struct queue_item two = take();
    cr_assert(is_intent(&two, "i2"));
    cr_assert_eq(sleep_ms(60), STATUS_OK);
    expect_nothing_ready(); /* due, but its target is busy */
    cr_assert_eq(done(&two), STATUS_OK);
    one = take();
    cr_assert(is_intent(&one, "i1"));
}

QUEUE_TEST(a_sleeping_taker_notices_an_earlier_due_time)
{
    struct fiber_scope scope;
    struct taking t = {.status = STATUS_UNKNOWN};
    (void)add("i1", "f", "a");
    struct queue_item item = take();
    fiber_scope_init(&scope);
    cr_assert_eq(fiber_scope_spawn(&scope, take_fiber, &t, NULL), STATUS_OK); /* nothing to do, no timer */
    cr_assert_eq(sleep_ms(5), STATUS_OK);
    cr_assert_eq(retry(&item, true, 20 * NS_PER_MS), STATUS_OK);
    int64_t start = clock_monotonic_ns();
    fiber_scope_join(&scope);
    cr_assert_lt(clock_monotonic_ns() - start, 5 * NS_PER_S);
    cr_assert(t.status == STATUS_OK && t.item.attempt == 2);
    arena_release(&t.arena);
}

static void set_three_quick_attempts(void)
{
    cfg =
        (struct queue_cfg){.max_attempts = 3, .backoff_base_ns = NS_PER_MS, .backoff_cap_ns = 2 * NS_PER_MS};
}

static void the_last_attempt_is_dead(void)
{
    (void)add("i1", "f", "a");
    for (unsigned attempt = 1; attempt <= 3; attempt++) {
        struct queue_item item = take();
        cr_assert_eq(item.attempt, attempt);
        cr_assert_eq(retry(&item, true, 0), STATUS_OK);
    }
    const struct record *r = last_record();
    cr_assert(r->kind == RECORD_OUTCOME && sv_eq(r->state, SV("dead")) && r->attempt == 3);
    cr_assert_eq(queue_depth(queue, SV("")).dead, 1);
    expect_nothing_ready();
    restart();
    cr_assert_eq(queue_depth(queue, SV("")).dead, 1);
    expect_nothing_ready();
    /* A person gives it all its attempts back. */
    (void)append((struct record){.kind = RECORD_RETRY, .intent = SV("i1"), .actor = SV("alice")});
    struct queue_item item = take();
    cr_assert(is_intent(&item, "i1") && item.attempt == 1 && !item.is_interrupted);
    cr_assert_eq(done(&item), STATUS_OK);
    cr_assert_eq(queue_depth(queue, SV("")).dead, 0);
}

Test(queue, after_the_last_attempt_an_item_is_dead_until_a_person_retries_it,
     .init = set_three_quick_attempts)
{
    in_fiber(the_last_attempt_is_dead);
}

static void kill_call(const char *id, const char *function)
{
    (void)append((struct record){.kind = RECORD_CALL, .intent = sv(id), .function = sv(function)});
    for (unsigned attempt = 1; attempt <= 3; attempt++) {
        struct queue_item item = take();
        cr_assert_eq(retry(&item, true, 0), STATUS_OK);
    }
    cr_assert(queue_is_dead(queue, sv(id)));
}

static size_t n_dead(const char *function)
{
    struct queue_dead *dead;
    size_t total, n = queue_list_dead(queue, sv(function), 1, &arena, &dead, &total);
    cr_assert_eq(n, total > 0 ? 1 : 0);
    return total;
}

static void a_persons_words(void)
{
    struct queue_dead *dead;
    size_t total;
    kill_call("c1", "f");
    kill_call("c2", "g");
    cr_assert_eq(queue_list_dead(queue, SV(""), 10, &arena, &dead, &total), 2);
    cr_assert(sv_eq(dead[0].id, SV("c1")) && sv_eq(dead[1].function, SV("g")) && dead[0].is_call);
    cr_assert(dead[0].seq == 1 && dead[0].ended_seq > dead[0].seq);
    cr_assert(n_dead("g") == 1 && n_dead("h") == 0 && n_dead("") == 2);
    (void)append((struct record){.kind = RECORD_OUTCOME, .intent = SV("c1"), .state = SV("dropped")});
    (void)append((struct record){.kind = RECORD_RETRY, .intent = SV("c2"), .state = SV("anew")});
    cr_assert_eq(n_dead(""), 0);
    expect_nothing_ready();
    restart();
    cr_assert_eq(n_dead(""), 0);
    expect_nothing_ready();
}

Test(queue, a_dead_item_that_a_person_drops_or_has_decided_anew_is_gone, .init = set_three_quick_attempts)
{
    in_fiber(a_persons_words);
}

static void only_the_dead_are_revived(void)
{
    static const char *const states[] = {"again", "anew"};
    (void)add("i1", "f", "a");
    struct queue_item item = take();
    for (size_t i = 0; i < 2; i++)
        (void)append((struct record){.kind = RECORD_RETRY, .intent = SV("i1"), .state = sv(states[i])});
    (void)append((struct record){.kind = RECORD_OUTCOME, .intent = SV("i1"), .state = SV("dropped")});
    cr_assert_eq(queue_depth(queue, SV("f")).leased, 1);
    cr_assert_eq(done(&item), STATUS_OK, "it is still its holder's");
    (void)append((struct record){.kind = RECORD_RETRY, .intent = SV("i1"), .state = SV("again")});
    expect_nothing_ready();
}

Test(queue, a_person_revives_nothing_that_is_under_way_or_has_ended)
{
    in_fiber(only_the_dead_are_revived);
}

static void telling_a_person_goes_on(void)
{
    struct record r = {.kind = RECORD_INTENT,
                       .intent = SV("i1"),
                       .function = SV("notify"),
                       .purpose = SV("escalate"),
                       .deadline_ns = clock_unix_ns() + 60 * NS_PER_S};
    (void)append(r);
    for (unsigned attempt = 1; attempt <= 5; attempt++) {
        struct queue_item item = take();
        cr_assert_eq(item.attempt, attempt);
        cr_assert_eq(retry(&item, true, 0), STATUS_OK);
        cr_assert(last_record()->kind == RECORD_RETRY && sv_eq(last_record()->state, SV("failed")));
    }
    (void)take();
    restart();
    cr_assert_eq(take().attempt, 7, "nor does a restart end it");
    r.intent = SV("i2");
    r.deadline_ns = clock_unix_ns() - 1;
    (void)append(r);
    (void)append((struct record){
        .kind = RECORD_RETRY, .intent = r.intent, .attempt = 2, .state = SV("failed"), .due_ns = 1});
    struct queue_item late = take();
    cr_assert(is_intent(&late, "i2") && late.attempt == 3);
    cr_assert_eq(retry(&late, true, 0), STATUS_OK);
    cr_assert(sv_eq(last_record()->state, SV("dead")));
}

Test(queue, telling_a_person_is_tried_until_its_deadline, .init = set_three_quick_attempts)
{
    in_fiber(telling_a_person_goes_on);
}

static enum status lose(const struct queue_item *item)
{
    return queue_retry(queue, item, true, NS_PER_MS, SV("UNKNOWN"), SV("no answer came"), NULL);
}

static void a_lost_answer_is_remembered(void)
{
    (void)add("i1", "f", "a");
    struct queue_item item = take();
    cr_assert_not(item.has_lost_answer);
    cr_assert_eq(lose(&item), STATUS_OK);
    restart();
    item = take(); /* perhaps begun once more */
    cr_assert(item.has_lost_answer);
    cr_assert_eq(retry(&item, false, NS_PER_MS), STATUS_OK);
    item = take();
    cr_assert(item.has_lost_answer && !item.is_interrupted,
              "a later attempt that ran to its end proves nothing");
    while (queue_depth(queue, SV("")).dead == 0) {
        cr_assert_eq(retry(&item, true, NS_PER_MS), STATUS_OK);
        if (queue_depth(queue, SV("")).dead == 0) item = take();
    }
    const struct record *r = last_record();
    cr_assert(sv_eq(r->state, SV("dead")) && sv_eq(r->code, SV("UNKNOWN")));
    cr_assert(sv_eq(r->reason, SV("the function answered 503")));
    (void)append((struct record){.kind = RECORD_RETRY, .intent = SV("i1"), .actor = SV("alice")});
    item = take();
    cr_assert(item.attempt == 1 && !item.has_lost_answer, "who has it retried has looked");
    cr_assert_eq(done(&item), STATUS_OK);
}

Test(queue, a_lost_answer_is_remembered_until_the_end, .init = set_three_quick_attempts)
{
    in_fiber(a_lost_answer_is_remembered);
}

static void a_snooze_is_free(void)
{
    (void)add("i1", "f", "a");
    for (unsigned i = 0; i < 6; i++) {
        struct queue_item item = take();
        cr_assert_eq(item.attempt, 1);
        cr_assert_eq(retry(&item, false, NS_PER_MS), STATUS_OK);
        cr_assert(sv_eq(last_record()->state, SV("snoozed")));
    }
    restart();
    cr_assert_eq(take().attempt, 2, "the restart may have cost one");
    /* But not for ever. */
    (void)append((struct record){.kind = RECORD_INTENT,
                                 .intent = SV("old"),
                                 .function = SV("f"),
                                 .target = SV("b"),
                                 .time_ns = clock_unix_ns() - QUEUE_SNOOZE_MAX_NS - NS_PER_S});
    struct queue_item old = take();
    cr_assert_eq(retry(&old, false, NS_PER_MS), STATUS_OK);
    old = take();
    cr_assert_eq(old.attempt, 2);
    (void)append((struct record){.kind = RECORD_INTENT,
                                 .intent = SV("older than an int64_t of nanoseconds"),
                                 .function = SV("f"),
                                 .target = SV("c"),
                                 .time_ns = INT64_C(-9214560000) * NS_PER_S}); /* 1678 */
    struct queue_item oldest = take();
    cr_assert_eq(retry(&oldest, false, NS_PER_MS), STATUS_OK);
    cr_assert(sv_eq(last_record()->state, SV("failed")), "it counts");
}

Test(queue, a_snooze_uses_up_no_attempt_for_an_hour, .init = set_three_quick_attempts)
{
    in_fiber(a_snooze_is_free);
}

/* ---- restart ---- */

QUEUE_TEST(an_attempt_cut_off_by_our_death_is_handed_out_again_as_interrupted)
{
    (void)add("a1", "f", "a");
    (void)add("a2", "f", "a");
    (void)add("b1", "f", "b");
    struct queue_item a1 = take();
    cr_assert(is_intent(&a1, "a1"));
    restart();
    struct queue_item again = take();
    cr_assert(is_intent(&again, "a1") && again.is_interrupted && again.attempt == 2);
    cr_assert_neq(again.token, a1.token);
    cr_assert_eq(done(&a1), STATUS_ABORTED, "the old token");
    struct queue_item b1 = take();
    cr_assert(is_intent(&b1, "b1") && b1.is_interrupted, "may have been begun: nothing held it back");
    cr_assert_eq(done(&again), STATUS_OK);
    struct queue_item a2 = take();
    cr_assert(is_intent(&a2, "a2") && !a2.is_interrupted && a2.attempt == 1, "a1 held it back all the time");
}

QUEUE_TEST(what_was_done_before_the_restart_is_not_done_again)
{
    (void)add("i1", "f", "a");
    (void)add("i2", "f", "b");
    struct queue_item item = take();
    cr_assert_eq(done(&item), STATUS_OK);
    restart();
    item = take();
    cr_assert(is_intent(&item, "i2"));
    expect_nothing_ready();
}

QUEUE_TEST(new_work_after_a_restart_is_not_interrupted)
{
    restart();
    (void)add("i1", "f", "a");
    cr_assert_not(take().is_interrupted);
}

QUEUE_TEST(what_is_not_yet_due_was_not_begun)
{
    (void)add("i1", "f", "a");
    struct queue_item item = take();
    cr_assert_eq(retry(&item, true, 300 * NS_PER_MS), STATUS_OK);
    restart();
    item = take();
    cr_assert(is_intent(&item, "i1") && item.attempt == 2 && !item.is_interrupted);
}

/* The older one has fallen due meanwhile: it did not keep the younger one back all the time. */
QUEUE_TEST(what_passed_an_item_with_a_due_time_is_interrupted_all_the_same)
{
    int64_t due = clock_unix_ns() + 500 * NS_PER_MS;
    (void)append((struct record){
        .kind = RECORD_INTENT, .intent = SV("a1"), .function = SV("f"), .target = SV("a"), .due_ns = due});
    (void)add("a2", "f", "a");
    struct queue_item a2 = take();
    cr_assert(is_intent(&a2, "a2"));
    while (clock_unix_ns() < due)
        cr_assert_eq(sleep_ms(5), STATUS_OK);
    restart();
    struct queue_item a1 = take();
    cr_assert(is_intent(&a1, "a1"));
    cr_assert_eq(done(&a1), STATUS_OK);
    a2 = take();
    cr_assert(is_intent(&a2, "a2") && a2.is_interrupted && a2.attempt == 2);
}

/* However long the line is: what was far behind in it was not begun, and loses no attempt. */
QUEUE_TEST(a_restart_interrupts_no_more_calls_than_can_have_been_begun)
{
    for (unsigned i = 0; i < QUEUE_INFLIGHT_MAX + 10; i++)
        (void)add_call(arena_printf(&arena, "c%u", i).ptr, "f");
    restart();
    for (unsigned i = 0; i < QUEUE_INFLIGHT_MAX + 10; i++) {
        struct queue_item item = take();
        cr_assert_eq(item.is_interrupted, i < QUEUE_INFLIGHT_MAX, "call %u", i);
        cr_assert_eq(done(&item), STATUS_OK);
    }
}

static void a_crash_loop_ends(void)
{
    (void)add("i1", "f", "a");
    cr_assert_eq(take().attempt, 1);
    for (unsigned attempt = 2; attempt <= 3; attempt++) {
        restart();
        struct queue_item item = take();
        cr_assert(item.attempt == attempt && item.is_interrupted);
        const struct record *r = last_record();
        cr_assert(r->kind == RECORD_RETRY && sv_eq(r->state, SV("interrupted")) &&
                  sv_eq(r->incident, SV("incident")));
    }
    restart();
    expect_nothing_ready();
    cr_assert_eq(queue_depth(queue, SV("")).dead, 1);
    cr_assert(sv_eq(last_record()->state, SV("dead")));
}

Test(queue, an_item_that_kills_us_each_time_ends_dead, .init = set_three_quick_attempts)
{
    in_fiber(a_crash_loop_ends);
}

/* ---- marks of what is handed out ---- */

static const char *taken_path(void)
{
    static char path[1100];
    (void)snprintf(path, sizeof(path), "%s/taken", dir);
    return path;
}

#define MARKS_TEST(name)                                                                                     \
    static void name(void);                                                                                  \
    static void name##_with_marks(void)                                                                      \
    {                                                                                                        \
        cfg.taken_file = taken_path();                                                                       \
        restart();                                                                                           \
        name();                                                                                              \
    }                                                                                                        \
    Test(queue, name)                                                                                        \
    {                                                                                                        \
        in_fiber(name##_with_marks);                                                                         \
    }                                                                                                        \
    static void name(void)

enum { WAITING = 40 };

/* Each on a target of its own, three of them in somebody's hands. */
static void add_and_take_three(void)
{
    expect_nothing_ready(); /* a life before it handed something out */
    for (unsigned i = 0; i < WAITING; i++) {
        const char *name = arena_printf(&arena, "%u", i).ptr;
        (void)add(name, i % 2 == 0 ? "f" : "g", name);
    }
    for (unsigned i = 0; i < 3; i++)
        (void)take();
}

static unsigned count_interrupted(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < WAITING; i++) {
        struct queue_item item = take();
        cr_assert_eq(item.attempt, item.is_interrupted ? 2 : 1);
        n += item.is_interrupted;
        cr_assert_eq(done(&item), STATUS_OK);
    }
    expect_nothing_ready();
    return n;
}

MARKS_TEST(what_waited_when_we_died_was_not_begun)
{
    add_and_take_three();
    restart();
    cr_assert_eq(count_interrupted(), 3);
}

MARKS_TEST(marks_last_until_their_items_are_seen_to)
{
    add_and_take_three();
    restart();
    struct queue_item first = take(), second = take(); /* both of the three */
    cr_assert(first.is_interrupted && second.is_interrupted && first.attempt == 2 && second.attempt == 2);
    cr_assert_eq(done(&first), STATUS_OK);
    restart(); /* the second once more, the third still */
    second = take();
    cr_assert(second.is_interrupted && second.attempt == 3);
    cr_assert_eq(done(&second), STATUS_OK);
    struct queue_item third = take(), fourth = take();
    cr_assert(third.is_interrupted && third.attempt == 2 && !fourth.is_interrupted);
}

MARKS_TEST(what_was_put_back_was_not_begun)
{
    add_and_take_three();
    struct queue_item fourth = take();
    cr_assert_eq(retry(&fourth, false, NS_PER_MS), STATUS_OK);
    cr_assert_eq(sleep_ms(5), STATUS_OK);
    restart();
    cr_assert_eq(count_interrupted(), 3);
}

MARKS_TEST(slots_of_marks_are_used_again)
{
    for (unsigned i = 0; i < 3; i++) {
        add_and_take_three();
        restart();
        cr_assert_eq(count_interrupted(), 3);
        for (unsigned k = 0; k < 100; k++) {
            (void)add(arena_printf(&arena, "more %u-%u", i, k).ptr, "f", "t");
            struct queue_item item = take();
            cr_assert_eq(done(&item), STATUS_OK);
        }
    }
    (void)add("last", "f", "t");
    restart();
    cr_assert_not(take().is_interrupted);
}

static void change_byte(off_t at)
{
    FILE *f = fopen(taken_path(), "r+b");
    cr_assert_not_null(f);
    cr_assert_eq(fseeko(f, at, SEEK_SET), 0);
    int byte = fgetc(f);
    cr_assert_eq(fseeko(f, at, SEEK_SET), 0);
    cr_assert_eq(fputc(byte ^ 1, f), byte ^ 1);
    cr_assert_eq(fclose(f), 0);
}

MARKS_TEST(marks_of_another_boot_say_nothing)
{
    add_and_take_three();
    close_queue();
    change_byte(10);
    open_queue();
    cr_assert_eq(count_interrupted(), WAITING);
    (void)add("new", "f", "t"); /* from here on it is known again */
    restart();
    cr_assert_not(take().is_interrupted);
}

MARKS_TEST(a_copy_of_marks_says_nothing)
{
    char text[16 * 1024];
    add_and_take_three();
    close_queue();
    FILE *from = fopen(taken_path(), "rb");
    size_t n = fread(text, 1, sizeof(text), from);
    (void)fclose(from);
    FILE *to = fopen(arena_printf(&arena, "%s.copy", taken_path()).ptr, "wb");
    cr_assert_eq(fwrite(text, 1, n, to), n);
    cr_assert_eq(fclose(to), 0);
    cr_assert_eq(rename(arena_printf(&arena, "%s.copy", taken_path()).ptr, taken_path()), 0);
    open_queue();
    cr_assert_eq(count_interrupted(), WAITING);
}

MARKS_TEST(marks_before_somebody_else_decided_say_nothing)
{
    add_and_take_three();
    cfg.taken_file = NULL; /* a version that keeps none */
    restart();
    (void)append((struct record){.kind = RECORD_EPOCH, .epoch = 1, .actor = SV("old")});
    cfg.taken_file = taken_path();
    restart();
    cr_assert_eq(count_interrupted(), WAITING);
}

MARKS_TEST(marks_that_know_more_than_the_journal_say_nothing)
{
    add_and_take_three();
    close_queue();
    change_byte(80 + 2 * 16 + 8 + 4); /* the third slot saw another 2^32 records on disk */
    open_queue();
    cr_assert_eq(count_interrupted(), WAITING);
}

static void take_epoch(void)
{
    (void)append((struct record){.kind = RECORD_EPOCH, .epoch = ++epoch, .actor = SV("us")});
}

MARKS_TEST(each_life_hands_the_marks_on)
{
    take_epoch();
    add_and_take_three();
    for (unsigned i = 0; i < 3; i++) {
        restart();
        take_epoch();
        expect_waiting();
    }
    cr_assert_eq(count_interrupted(), 3);
}

MARKS_TEST(without_a_place_for_marks_all_that_is_due_counts_as_begun)
{
    cfg.taken_file = "/nowhere/taken";
    restart();
    add_and_take_three();
    restart();
    cr_assert_eq(count_interrupted(), WAITING);
}

/* ---- the fold ---- */

QUEUE_TEST(an_intent_of_an_epoch_that_is_over_is_void)
{
    (void)append((struct record){.kind = RECORD_EPOCH, .epoch = 7, .actor = SV("new")});
    (void)append((struct record){
        .kind = RECORD_INTENT, .epoch = 6, .intent = SV("late"), .function = SV("f"), .target = SV("a")});
    (void)append((struct record){
        .kind = RECORD_INTENT, .epoch = 7, .intent = SV("i1"), .function = SV("f"), .target = SV("b")});
    struct queue_item item = take();
    cr_assert(is_intent(&item, "i1"));
    expect_nothing_ready();
}

QUEUE_TEST(a_call_needs_no_intent_id)
{
    uint64_t seq = append(
        (struct record){.kind = RECORD_CALL, .function = SV("echo"), .method = SV("POST"), .path = SV("/")});
    struct queue_item item = take();
    cr_assert(item.seq == seq && item.record->kind == RECORD_CALL);
    cr_assert_eq(done(&item), STATUS_OK);
    char key[32];
    (void)snprintf(key, sizeof(key), "call-%d", (int)seq);
    cr_assert(sv_eq(last_record()->intent, sv(key)));
    restart();
    expect_nothing_ready();
}

QUEUE_TEST(what_comes_of_an_end_is_recorded_with_it)
{
    struct record sequel = {.kind = RECORD_CALL,
                            .time_ns = clock_unix_ns(),
                            .intent = SV("cb"),
                            .function = SV("callback/f"),
                            .purpose = SV("callback"),
                            .callback = SV("http://h/")};
    cfg = (struct queue_cfg){.max_attempts = 2, .backoff_base_ns = 1, .backoff_cap_ns = 1};
    restart();
    (void)add_call("c1", "f");
    struct queue_item item = take();
    item.sequel = &sequel;
    cr_assert_eq(queue_retry(queue, &item, true, 1, SV("UNAVAILABLE"), SV("not yet"), NULL), STATUS_OK);
    cr_assert(last_record()->kind == RECORD_RETRY); /* it has not ended */
    item = take();
    item.sequel = &sequel;
    cr_assert_eq(queue_retry(queue, &item, true, 1, SV("UNAVAILABLE"), SV("never"), NULL), STATUS_OK);
    restart();
    item = take();
    cr_assert(is_intent(&item, "cb") && sv_eq(item.record->callback, SV("http://h/")));
    cr_assert_eq(done(&item), STATUS_OK);
    expect_nothing_ready();
}

QUEUE_TEST(an_intent_with_a_due_time_waits_for_it)
{
    int64_t due = clock_unix_ns() + 500 * NS_PER_MS;
    (void)append(
        (struct record){.kind = RECORD_INTENT, .intent = SV("i1"), .function = SV("f"), .due_ns = due});
    expect_nothing_ready();
    cr_assert_eq(take().attempt, 1);
    cr_assert_geq(clock_unix_ns(), due);
}

QUEUE_TEST(an_intent_given_twice_is_one_item)
{
    (void)add("i1", "f", "a");
    (void)add("i1", "f", "a");
    struct queue_item item = take();
    cr_assert_eq(done(&item), STATUS_OK);
    expect_nothing_ready();
}

QUEUE_TEST(depth_counts_each_function_and_all)
{
    int64_t oldest = clock_unix_ns() - 5 * NS_PER_S;
    (void)append(
        (struct record){.kind = RECORD_INTENT, .intent = SV("i1"), .function = SV("f"), .time_ns = oldest});
    (void)add("i2", "f", "");
    (void)add("i3", "g", "");
    struct queue_item one = take(), two = take();
    cr_assert_eq(retry(&two, true, NS_PER_S), STATUS_OK);
    struct queue_depth f = queue_depth(queue, SV("f")), g = queue_depth(queue, SV("g")),
                       all = queue_depth(queue, SV(""));
    cr_assert(f.leased == 1 && f.waiting == 1 && f.ready == 0 && f.oldest_ns == oldest);
    cr_assert(g.ready == 1 && g.leased == 0 && g.oldest_ns > oldest);
    cr_assert(all.ready == 1 && all.leased == 1 && all.waiting == 1 && all.oldest_ns == oldest);
    cr_assert_eq(queue_depth(queue, SV("none")).ready, 0);
    cr_assert_eq(done(&one), STATUS_OK);
    cr_assert_gt(queue_depth(queue, SV("f")).oldest_ns, oldest);
    cr_assert_not(queue_is_full(queue));
}

/* More of them than places in the table. */
QUEUE_TEST(thousands_of_functions_are_told_apart)
{
    enum { N = 3000 };
    for (unsigned i = 0; i < 2 * N; i++) {
        char intent[16], function[16];
        (void)snprintf(intent, sizeof(intent), "i%u", i);
        (void)snprintf(function, sizeof(function), "f%u", i < N ? i : i % 2);
        (void)add(intent, function, "");
    }
    for (unsigned i = 0; i < N; i++) {
        char function[16];
        (void)snprintf(function, sizeof(function), "f%u", i);
        cr_assert_eq(queue_depth(queue, sv(function)).ready, i < 2 ? 1 + N / 2 : 1, "%s", function);
    }
    cr_assert_eq(queue_depth(queue, SV("f3000")).ready, 0);
    cr_assert_eq(queue_depth(queue, SV("")).ready, 2 * N);
}

QUEUE_TEST(records_beyond_the_memory_limit_are_read_again)
{
    enum { BIG = 1000 * 1000, N = QUEUE_BYTES_MAX / BIG + 4 };
    char *text = arena_zalloc(&arena, BIG);
    memset(text, 'x', BIG);
    for (unsigned i = 0; i < N; i++) {
        struct error err;
        char name[16];
        (void)snprintf(name, sizeof(name), "i%u", i);
        text[0] = (char)('a' + i % 26);
        uint64_t seq = append((struct record){
            .kind = RECORD_INTENT, .intent = sv(name), .function = SV("f"), .message = {text, BIG}});
        cr_assert_eq(journal_wait_durable(journal, seq, 0, &err), STATUS_OK, "%s", err.message);
    }
    for (unsigned i = 0; i < N; i++) {
        struct arena a = {0};
        struct queue_item item;
        cr_assert_eq(queue_take(queue, 0, &a, &item, NULL), STATUS_OK);
        cr_assert(item.record->message.len == BIG && item.record->message.ptr[0] == (char)('a' + i % 26));
        cr_assert_eq(done(&item), STATUS_OK);
        arena_release(&a);
    }
    expect_nothing_ready();
}
