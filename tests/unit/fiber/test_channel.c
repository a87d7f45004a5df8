#include <criterion/criterion.h>

#include "base/clock.h"
#include "fiber/fiber.h"
#include "loop/loop.h"

static void in_fiber(fiber_fn *fn)
{
    struct loop *l = NULL;
    cr_assert_eq(loop_new(&l, NULL), STATUS_OK);
    cr_assert_eq(loop_run_fiber(l, fn, NULL, NULL), STATUS_OK);
    loop_free(l);
}

#define N_ITEMS 1000
static char items[N_ITEMS];

struct flow {
    struct channel channel;
    int received[N_ITEMS], sent;
    enum status end;
};

static void send_all(void *arg)
{
    struct flow *f = arg;
    for (int i = 0; i < N_ITEMS; i++) {
        cr_assert_eq(channel_send(&f->channel, &items[i], 0), STATUS_OK);
        f->sent++;
    }
    channel_close(&f->channel);
}

static void receive_all(void *arg)
{
    struct flow *f = arg;
    void *item;
    int n = 0;
    while ((f->end = channel_receive(&f->channel, 0, &item)) == STATUS_OK) {
        f->received[n++] = (int)((char *)item - items);
        cr_assert_leq(f->sent - n, 3, "the sender is held back by the capacity");
    }
    cr_assert_eq(n, N_ITEMS);
}

static void in_order(void *arg)
{
    struct flow *f = calloc(1, sizeof(*f));
    struct fiber_scope s;
    (void)arg;
    channel_init(&f->channel, 3);
    fiber_scope_init(&s);
    cr_assert_eq(fiber_scope_spawn(&s, receive_all, f, NULL), STATUS_OK);
    cr_assert_eq(fiber_scope_spawn(&s, send_all, f, NULL), STATUS_OK);
    fiber_scope_join(&s);
    for (int i = 0; i < N_ITEMS; i++)
        cr_assert_eq(f->received[i], i);
    cr_expect_eq(f->end, STATUS_NOT_FOUND, "closed and drained");
    channel_release(&f->channel);
    free(f);
}

Test(channel, items_arrive_in_order_and_the_capacity_holds)
{
    in_fiber(in_order);
}

static void limits(void *arg)
{
    struct channel c;
    void *item = NULL;
    (void)arg;
    channel_init(&c, 2);
    cr_expect_eq(channel_receive(&c, clock_monotonic_ns() + NS_PER_MS, &item), STATUS_DEADLINE_EXCEEDED);
    cr_expect_eq(channel_try_send(&c, &items[0]), STATUS_OK);
    cr_expect_eq(channel_try_send(&c, &items[1]), STATUS_OK);
    cr_expect_eq(channel_try_send(&c, &items[2]), STATUS_RESOURCE_EXHAUSTED);
    cr_expect_eq(channel_send(&c, &items[2], clock_monotonic_ns() + NS_PER_MS), STATUS_DEADLINE_EXCEEDED);
    channel_close(&c);
    cr_expect_eq(channel_try_send(&c, &items[2]), STATUS_FAILED_PRECONDITION);
    cr_expect_eq(channel_send(&c, &items[2], 0), STATUS_FAILED_PRECONDITION);
    for (int i = 0; i < 2; i++) {
        cr_expect_eq(channel_receive(&c, 0, &item), STATUS_OK,
                     "what was sent before the close is still delivered");
        cr_expect_eq(item, &items[i]);
    }
    cr_expect_eq(channel_receive(&c, 0, &item), STATUS_NOT_FOUND);
    channel_release(&c);
    channel_release(NULL);
}

Test(channel, full_empty_and_closed_are_told_apart)
{
    in_fiber(limits);
}

struct blocked {
    struct channel *channel;
    enum status status;
};

static void send_one(void *arg)
{
    struct blocked *b = arg;
    b->status = channel_send(b->channel, &items[9], 0);
}

static void receive_one(void *arg)
{
    struct blocked *b = arg;
    void *item;
    b->status = channel_receive(b->channel, 0, &item);
}

static void wake_blocked(void *arg)
{
    struct channel full, empty;
    struct fiber_scope s;
    (void)arg;
    channel_init(&full, 1);
    channel_init(&empty, 1);
    fiber_scope_init(&s);
    cr_assert_eq(channel_try_send(&full, &items[0]), STATUS_OK);
    struct blocked out[2] = {{.channel = &full}, {.channel = &full}}, in = {.channel = &empty};
    cr_assert_eq(fiber_scope_spawn(&s, send_one, &out[0], NULL), STATUS_OK);
    cr_assert_eq(fiber_scope_spawn(&s, send_one, &out[1], NULL), STATUS_OK);
    cr_assert_eq(fiber_scope_spawn(&s, receive_one, &in, NULL), STATUS_OK);
    cr_assert_eq(fiber_yield(), STATUS_OK);
    channel_close(&full);
    fiber_scope_cancel(&s);
    fiber_scope_join(&s);
    cr_expect_eq(out[0].status, STATUS_FAILED_PRECONDITION);
    cr_expect_eq(out[1].status, STATUS_FAILED_PRECONDITION);
    cr_expect_eq(in.status, STATUS_CANCELLED);
    channel_release(&full);
    channel_release(&empty);
}

Test(channel, close_and_cancel_wake_who_is_blocked)
{
    in_fiber(wake_blocked);
}
