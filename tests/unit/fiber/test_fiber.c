#include <criterion/criterion.h>

#include "base/clock.h"
#include "fiber/fiber.h"
#include "loop/loop.h"

/* Runs fn as a fiber on a loop of its own; loop_free() asserts that nothing is left. */
static void in_fiber(fiber_fn *fn, void *arg)
{
    struct loop *l = NULL;
    struct error err = {0};
    cr_assert_eq(loop_new(&l, &err), STATUS_OK, "%s", err.message);
    cr_assert_eq(loop_run_fiber(l, fn, arg, &err), STATUS_OK, "%s", err.message);
    loop_free(l);
    cr_assert_eq(fiber_count(), 0);
}

static int64_t in_ms(int64_t ms)
{
    return clock_monotonic_ns() + ms * NS_PER_MS;
}

static void spawn(struct fiber_scope *s, fiber_fn *fn, void *arg)
{
    struct error err = {0};
    cr_assert_eq(fiber_scope_spawn(s, fn, arg, &err), STATUS_OK, "%s", err.message);
}

/* ---- events ---- */

struct wait_for { /* what a waiting fiber waits for and what it got */
    struct fiber_event *event;
    int64_t deadline_ns;
    bool is_done;
    enum status status;
    int order, *next_order;
};

static void wait_for_it(void *arg)
{
    struct wait_for *w = arg;
    w->status = fiber_event_wait(w->event, w->deadline_ns);
    w->is_done = true;
    if (w->next_order != NULL) w->order = (*w->next_order)++;
}

static void yield(void)
{
    cr_assert_eq(fiber_yield(), STATUS_OK);
}

static void set_wakes_all(void *arg)
{
    struct fiber_event e;
    struct fiber_scope s;
    int next_order = 0;
    struct wait_for w[3];
    (void)arg;
    fiber_event_init(&e);
    fiber_scope_init(&s);
    for (int i = 0; i < 3; i++) {
        w[i] = (struct wait_for){.event = &e, .next_order = &next_order};
        spawn(&s, wait_for_it, &w[i]);
    }
    yield();
    cr_assert(!w[0].is_done && !w[1].is_done && !w[2].is_done);
    fiber_event_set(&e);
    cr_assert(!w[0].is_done, "setting inside a fiber must only mark the waiter ready");
    fiber_scope_join(&s);
    for (int i = 0; i < 3; i++) {
        cr_expect_eq(w[i].status, STATUS_OK);
        cr_expect_eq(w[i].order, i);
    }
    cr_expect_eq(fiber_event_wait(&e, 1), STATUS_OK, "stays set, and wins over a deadline long past");
    fiber_event_reset(&e);
    cr_expect_eq(fiber_event_wait(&e, 1), STATUS_DEADLINE_EXCEEDED);
}

Test(fiber, event_wakes_all_waiters_in_order_and_stays_set)
{
    in_fiber(set_wakes_all, NULL);
}

static void set_then_reset(void *arg)
{
    struct fiber_event e;
    struct fiber_scope s;
    struct wait_for w = {.event = &e};
    (void)arg;
    fiber_event_init(&e);
    fiber_scope_init(&s);
    spawn(&s, wait_for_it, &w);
    yield();
    fiber_event_set(&e);
    fiber_event_reset(&e);
    fiber_scope_join(&s);
    cr_expect_eq(w.status, STATUS_OK);
}

Test(fiber, event_reset_before_the_waiter_ran_still_woke_it)
{
    in_fiber(set_then_reset, NULL);
}

static void wait_past_deadline(void *arg)
{
    struct fiber_event e;
    (void)arg;
    fiber_event_init(&e);
    int64_t start_ns = clock_monotonic_ns();
    cr_expect_eq(fiber_event_wait(&e, start_ns + 20 * NS_PER_MS), STATUS_DEADLINE_EXCEEDED);
    int64_t took_ns = clock_monotonic_ns() - start_ns;
    cr_expect_geq(took_ns, 20 * NS_PER_MS);
    cr_expect_lt(took_ns, 500 * NS_PER_MS);
}

Test(fiber, wait_ends_at_its_deadline_and_not_before)
{
    in_fiber(wait_past_deadline, NULL);
}

static void many_deadlines(void *arg)
{
    enum { N = 200 };
    struct fiber_event never;
    struct fiber_scope s;
    struct wait_for w[N];
    int next_order = 0, seen[N];
    (void)arg;
    fiber_event_init(&never);
    fiber_scope_init(&s);
    int64_t base_ns = in_ms(300); /* no deadline may pass before all of them wait */
    for (int i = 0; i < N; i++) { /* 7 is coprime to 200: a permutation, so the heap is really used */
        w[i] = (struct wait_for){.event = &never,
                                 .next_order = &next_order,
                                 .deadline_ns = base_ns + (i * 7 % N) * NS_PER_MS / 20};
        spawn(&s, wait_for_it, &w[i]);
    }
    fiber_scope_join(&s);
    for (int i = 0; i < N; i++) {
        cr_assert_eq(w[i].status, STATUS_DEADLINE_EXCEEDED);
        seen[w[i].order] = i * 7 % N;
    }
    for (int i = 0; i < N; i++)
        cr_assert_eq(seen[i], i, "woken %d-th was due %d-th", i, seen[i]);
}

Test(fiber, deadlines_fire_in_their_order)
{
    in_fiber(many_deadlines, NULL);
}

struct wait_two {
    struct fiber_event a, b;
    unsigned index;
    enum status status;
};

static void wait_two_events(void *arg)
{
    struct wait_two *w = arg;
    struct fiber_event *both[] = {&w->a, &w->b};
    w->status = fiber_wait_any(both, 2, 0, &w->index);
}

static void wait_any(void *arg)
{
    struct wait_two w = {.index = 9};
    struct fiber_scope s;
    (void)arg;
    fiber_event_init(&w.a);
    fiber_event_init(&w.b);
    fiber_scope_init(&s);
    spawn(&s, wait_two_events, &w);
    yield();
    fiber_event_set(&w.b);
    fiber_scope_join(&s);
    cr_expect_eq(w.status, STATUS_OK);
    cr_expect_eq(w.index, 1);
    cr_expect(list_is_empty(&w.a.waiters), "the other event must forget the waiter");
    fiber_event_set(&w.a);
    wait_two_events(&w);
    cr_expect_eq(w.index, 0, "the lowest of several");
}

Test(fiber, wait_any_tells_which_and_leaves_the_others)
{
    in_fiber(wait_any, NULL);
}

static void set_lower_later(void *arg)
{
    struct wait_two w = {.index = 9};
    struct fiber_scope s;
    (void)arg;
    fiber_event_init(&w.a);
    fiber_event_init(&w.b);
    fiber_scope_init(&s);
    spawn(&s, wait_two_events, &w);
    yield();
    fiber_event_set(&w.b);
    fiber_event_set(&w.a);
    fiber_scope_join(&s);
    cr_expect_eq(w.index, 0);
}

Test(fiber, wait_any_with_both_set_before_it_ran_gives_the_lowest)
{
    in_fiber(set_lower_later, NULL);
}

/* ---- cancellation ---- */

static void cancel_waiting(void *arg)
{
    struct fiber_event e;
    struct fiber_scope s;
    struct wait_for w = {.event = &e, .deadline_ns = in_ms(10000)};
    (void)arg;
    fiber_event_init(&e);
    fiber_scope_init(&s);
    spawn(&s, wait_for_it, &w);
    yield();
    fiber_scope_cancel(&s);
    fiber_scope_cancel(&s);
    fiber_scope_join(&s);
    cr_expect_eq(w.status, STATUS_CANCELLED);
    cr_expect(list_is_empty(&e.waiters));
    struct error err;
    cr_expect_eq(fiber_scope_spawn(&s, wait_for_it, &w, &err), STATUS_CANCELLED);
}

Test(fiber, cancelled_scope_ends_waits_and_refuses_new_fibers)
{
    in_fiber(cancel_waiting, NULL);
}

static void set_then_cancel(void *arg)
{
    struct fiber_event e;
    struct fiber_scope s;
    struct wait_for w[2] = {{.event = &e}, {.event = &e}};
    bool cancel_first = *(bool *)arg;
    fiber_event_init(&e);
    fiber_scope_init(&s);
    spawn(&s, wait_for_it, &w[0]);
    yield();
    if (cancel_first) fiber_scope_cancel(&s);
    fiber_event_set(&e);
    if (!cancel_first) fiber_scope_cancel(&s);
    fiber_scope_join(&s);
    cr_expect_eq(w[0].status, STATUS_OK, "a set event wins over cancellation");
}

Test(fiber, event_wins_over_cancellation_whichever_came_first)
{
    bool cancel_first = true;
    in_fiber(set_then_cancel, &cancel_first);
    cancel_first = false;
    in_fiber(set_then_cancel, &cancel_first);
}

struct shielded {
    struct fiber_event go;
    enum status in_shield, own_deadline, after, yielded;
    bool seen_in_shield, seen_after;
};

static void run_shielded(void *arg)
{
    struct shielded *x = arg;
    fiber_shield_begin();
    fiber_shield_begin();
    fiber_shield_end();
    x->in_shield = fiber_event_wait(&x->go, in_ms(10000));
    x->seen_in_shield = fiber_is_cancelled();
    fiber_event_reset(&x->go);
    x->own_deadline = fiber_event_wait(&x->go, in_ms(5));
    fiber_shield_end();
    x->seen_after = fiber_is_cancelled();
    x->after = fiber_event_wait(&x->go, in_ms(10000));
    x->yielded = fiber_yield();
}

static void shield(void *arg)
{
    struct shielded x = {0};
    struct fiber_scope s;
    (void)arg;
    fiber_event_init(&x.go);
    fiber_scope_init(&s);
    spawn(&s, run_shielded, &x);
    yield();
    fiber_scope_cancel(&s);
    yield();
    fiber_event_set(&x.go);
    fiber_scope_join(&s);
    cr_expect_eq(x.in_shield, STATUS_OK);
    cr_expect_not(x.seen_in_shield);
    cr_expect_eq(x.own_deadline, STATUS_DEADLINE_EXCEEDED, "a wait's own deadline counts inside a shield");
    cr_expect(x.seen_after);
    cr_expect_eq(x.after, STATUS_CANCELLED);
    cr_expect_eq(x.yielded, STATUS_CANCELLED);
}

Test(fiber, shield_hides_cancellation_until_it_ends)
{
    in_fiber(shield, NULL);
}

static void own_deadline(void *arg)
{
    struct fiber_event never;
    (void)arg;
    fiber_event_init(&never);
    cr_expect_eq(fiber_set_deadline(in_ms(10)), 0);
    cr_expect_eq(fiber_event_wait(&never, in_ms(10000)), STATUS_DEADLINE_EXCEEDED);
    cr_expect_eq(fiber_event_wait(&never, in_ms(10000)), STATUS_DEADLINE_EXCEEDED, "each further wait too");
    cr_expect_eq(fiber_yield(), STATUS_DEADLINE_EXCEEDED);
    fiber_shield_begin();
    int64_t start_ns = clock_monotonic_ns();
    cr_expect_eq(fiber_event_wait(&never, start_ns + 10 * NS_PER_MS), STATUS_DEADLINE_EXCEEDED);
    cr_expect_geq(clock_monotonic_ns() - start_ns, 10 * NS_PER_MS,
                  "shielded, only the wait's own deadline counts");
    fiber_shield_end();
    cr_expect_neq(fiber_set_deadline(0), 0);
    cr_expect_eq(fiber_deadline(), 0);
    cr_expect_eq(fiber_yield(), STATUS_OK);
}

Test(fiber, own_deadline_bounds_each_wait)
{
    in_fiber(own_deadline, NULL);
}

/* ---- scopes ---- */

static void wait_long(void *arg)
{
    *(enum status *)arg = sleep_ms(60000);
}

static void parent_of_one(void *arg)
{
    enum status *child = arg;
    struct fiber_scope s;
    fiber_scope_init(&s);
    spawn(&s, wait_long, child);
    fiber_scope_join(&s);
}

static void cancel_parent(void *arg)
{
    struct fiber_scope s;
    enum status child = STATUS_UNKNOWN;
    (void)arg;
    fiber_scope_init(&s);
    spawn(&s, parent_of_one, &child);
    yield();
    yield();
    fiber_scope_cancel(&s);
    fiber_scope_join(&s);
    cr_expect_eq(child, STATUS_CANCELLED);
}

Test(fiber, cancelling_a_parent_in_join_reaches_its_children)
{
    in_fiber(cancel_parent, NULL);
}

static void parent_deadline(void *arg)
{
    enum status child = STATUS_UNKNOWN;
    (void)arg;
    (void)fiber_set_deadline(in_ms(10));
    parent_of_one(&child);
    cr_expect_eq(child, STATUS_CANCELLED);
}

Test(fiber, deadline_of_a_parent_in_join_cancels_its_children)
{
    in_fiber(parent_deadline, NULL);
}

static void count_up(void *arg)
{
    ++*(int *)arg;
}

static void join_many(void *arg)
{
    struct fiber_scope s;
    int count = 0;
    (void)arg;
    fiber_scope_init(&s);
    fiber_scope_join(&s); /* nothing alive: returns */
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 100; i++)
            spawn(&s, count_up, &count);
        cr_assert_eq(s.alive, 100);
        fiber_scope_join(&s);
        cr_assert_eq(count, 100 * (round + 1));
        cr_assert(list_is_empty(&s.fibers));
    }
    cr_expect_eq(fiber_count(), 1, "only this one is left");
}

Test(fiber, join_waits_for_all_and_the_scope_is_usable_again)
{
    in_fiber(join_many, NULL);
}

static void set_local_to(void *arg)
{
    cr_expect_null(fiber_local());
    fiber_set_local(arg);
    yield();
    cr_expect_eq(fiber_local(), arg);
}

static void locals(void *arg)
{
    struct fiber_scope s;
    int a, b;
    (void)arg;
    fiber_scope_init(&s);
    spawn(&s, set_local_to, &a);
    spawn(&s, set_local_to, &b);
    fiber_scope_join(&s);
    spawn(&s, set_local_to, &a); /* a pooled stack starts with none */
    fiber_scope_join(&s);
    cr_expect_null(fiber_local());
}

Test(fiber, local_belongs_to_one_fiber)
{
    in_fiber(locals, NULL);
}

static void yields(void *arg)
{
    int *turns = arg;
    for (int i = 0; i < 3; i++) {
        ++*turns;
        yield();
    }
}

static void alternate(void *arg)
{
    struct fiber_scope s;
    int turns = 0;
    (void)arg;
    fiber_scope_init(&s);
    spawn(&s, yields, &turns);
    for (int i = 1; i <= 3; i++) {
        yield();
        cr_expect_eq(turns, i);
    }
    fiber_scope_join(&s);
}

Test(fiber, yield_lets_others_run_once)
{
    in_fiber(alternate, NULL);
}

Test(fiber, current_is_null_on_the_loops_stack)
{
    cr_expect_null(fiber_current());
    cr_expect_null(fiber_local());
    cr_expect_eq(fiber_deadline(), 0);
    cr_expect_not(fiber_is_cancelled());
}
