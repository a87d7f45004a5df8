#include <criterion/criterion.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "fiber/fiber_impl.h"
#include "loop/loop.h"

static void in_fiber(fiber_fn *fn, void *arg)
{
    struct loop *l = NULL;
    cr_assert_eq(loop_new(&l, NULL), STATUS_OK);
    cr_assert_eq(loop_run_fiber(l, fn, arg, NULL), STATUS_OK);
    loop_free(l);
}

/* Uses `bytes` of stack, all of them written. */
__attribute__((noinline)) static unsigned go_down(size_t bytes)
{
    volatile unsigned char frame[1024];
    for (size_t i = 0; i < sizeof(frame); i++)
        frame[i] = (unsigned char)(i | 1);
    if (bytes <= sizeof(frame)) return frame[7];
    return go_down(bytes - sizeof(frame)) + frame[9];
}

static size_t resident_pages(const char *low, size_t bytes)
{
    unsigned char pages[FIBER_STACK_BYTES / 4096];
    size_t n = 0;
    cr_assert_eq(mincore((void *)(uintptr_t)low, bytes, pages), 0);
    for (size_t i = 0; i < bytes / 4096; i++)
        n += pages[i] & 1;
    return n;
}

struct deep {
    char *stack_low;
    size_t resident; /* pages past the first 64 KiB, while it ran */
};

#define FAR_BYTES (FIBER_STACK_BYTES - FIBER_STACK_KEEP_BYTES)

static void go_deep(void *arg)
{
    struct deep *d = arg;
    d->stack_low = fiber_current()->stack_low;
    (void)go_down((size_t)100 * 1024); /* instrumented frames are larger */
    d->resident = resident_pages(d->stack_low, FAR_BYTES);
}

static void deep_then_look(void *arg)
{
    struct fiber_scope s;
    struct deep d = {0};
    (void)arg;
    fiber_scope_init(&s);
    cr_assert_eq(fiber_scope_spawn(&s, go_deep, &d, NULL), STATUS_OK);
    fiber_scope_join(&s);
    cr_expect_gt(d.resident, 8);
    cr_expect_eq(resident_pages(d.stack_low, FAR_BYTES), 0, "dropped on return to the pool");
}

Test(stack, far_pages_of_a_deep_fiber_are_dropped_on_return)
{
    in_fiber(deep_then_look, NULL);
}

#if !FIBER_ASAN
static void go_200_kib(void *arg)
{
    *(unsigned *)arg = go_down((size_t)200 * 1024);
}

Test(stack, two_hundred_kib_can_be_used)
{
    unsigned sum = 0;
    in_fiber(go_200_kib, &sum);
    cr_expect_gt(sum, 0);
}
#endif

static void overflow(void *arg)
{
    (void)arg;
    (void)go_down((size_t)1024 * 1024);
}

/* With Criterion's own handler for the report, the death is seen as the signal. */
Test(stack, overflow_hits_the_guard_page_and_kills, .signal = SIGSEGV)
{
    stack_t none = {.ss_flags = SS_DISABLE};
    struct rlimit no_core = {0};
    (void)sigaltstack(&none, NULL);
    (void)setrlimit(RLIMIT_CORE, &no_core);
    (void)signal(SIGSEGV, SIG_DFL);
    in_fiber(overflow, NULL);
}

static void wait_for(void *arg)
{
    cr_assert_eq(fiber_event_wait(arg, 0), STATUS_OK);
}

static void fill(void *arg)
{
    struct fiber_scope s;
    struct fiber_event go;
    struct error err = {0};
    (void)arg;
    fiber_event_init(&go);
    fiber_scope_init(&s);
    for (int i = 1; i < FIBER_MAX; i++) /* this one counts */
        cr_assert_eq(fiber_scope_spawn(&s, wait_for, &go, &err), STATUS_OK, "%d: %s", i, err.message);
    cr_expect_eq(fiber_count(), FIBER_MAX);
    cr_expect_eq(fiber_scope_spawn(&s, wait_for, &go, &err), STATUS_RESOURCE_EXHAUSTED);
    cr_expect_eq(err.code, STATUS_RESOURCE_EXHAUSTED);
    cr_expect_eq(fiber_count(), FIBER_MAX, "a refused one does not count");
    fiber_event_set(&go);
    fiber_scope_join(&s);
    cr_expect_eq(fiber_count(), 1);
    cr_expect_eq(fiber_scope_spawn(&s, wait_for, &go, &err), STATUS_OK, "room again");
    fiber_scope_join(&s);
}

Test(stack, fibers_beyond_the_maximum_are_refused)
{
    in_fiber(fill, NULL);
}

/* ---- the pool, without a loop and with a clock of its own ---- */

static void nothing(void *arg)
{
    (void)arg;
}

static void run_many(struct fiber_scheduler *s, struct fiber_scope *scope, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        cr_assert_eq(fiber_scope_spawn(scope, nothing, NULL, NULL), STATUS_OK);
    fiber_scheduler_run_ready(s);
    cr_assert_eq(scope->alive, 0);
}

static void set_clock(struct fiber_scheduler *s, int64_t now_ns)
{
    s->now_ns = now_ns;
    s->is_now_fresh = true;
}

Test(stack, pool_shrinks_after_a_burst_and_not_while_it_is_used)
{
    struct fiber_scheduler s;
    struct fiber_scope scope;
    fiber_scheduler_init(&s, NULL, NULL);
    fiber_scheduler_set_current(&s);
    fiber_scope_init(&scope);
    int64_t now_ns = 1000;
    set_clock(&s, now_ns);
    run_many(&s, &scope, 100);
    cr_assert_eq(s.pool_len, 100);
    for (int i = 0; i < 5; i++) { /* busy: a hundred at a time */
        now_ns = s.trim_at_ns;
        set_clock(&s, now_ns);
        run_many(&s, &scope, 100);
        fiber_scheduler_trim(&s);
        cr_assert_eq(s.pool_len, 100);
    }
    for (int i = 0; i < 10; i++) { /* idle */
        cr_assert(s.pool_len == FIBER_POOL_KEEP || fiber_scheduler_next_wake_ns(&s) == s.trim_at_ns);
        now_ns = s.trim_at_ns;
        set_clock(&s, now_ns);
        fiber_scheduler_trim(&s);
    }
    cr_expect_eq(s.pool_len, FIBER_POOL_KEEP);
    cr_expect_eq(fiber_scheduler_next_wake_ns(&s), 0, "and then nothing wakes an idle loop");
    fiber_scheduler_release(&s);
}
