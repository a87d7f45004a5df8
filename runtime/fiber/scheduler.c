#include "fiber/fiber_impl.h"

#include <assert.h>
#include <stdatomic.h>

#if FIBER_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#if FIBER_TSAN
#include <sanitizer/tsan_interface.h>
#endif

#include "base/clock.h"

#define TRIM_INTERVAL_NS NS_PER_S
#define TRIM_BATCH       64 /* stacks unmapped at once: about a tenth of a millisecond of the loop's time */

/* Boost.Context's two functions. We declare them since its header is C++; the layout is its C++ struct's. */
struct transfer {
    void *context; /* of whoever jumped here */
    void *data;
};
extern struct transfer jump_fcontext(void *to, void *data);
extern void *make_fcontext(void *stack_top, size_t size, void (*fn)(struct transfer));

static _Thread_local struct fiber_scheduler *thread_scheduler;
static _Thread_local struct fiber *running;
static atomic_uint fibers_alive; /* in the process: two mappings each count against vm.max_map_count */

unsigned fiber_count(void)
{
    return atomic_load_explicit(&fibers_alive, memory_order_relaxed);
}

struct fiber *fiber_current(void)
{
    return running;
}

void fiber_scheduler_set_current(struct fiber_scheduler *s)
{
    thread_scheduler = s;
}

struct fiber_scheduler *fiber_scheduler_current(void)
{
    return thread_scheduler;
}

void fiber_scheduler_init(struct fiber_scheduler *s, void (*on_ready)(void *arg), void *arg)
{
    *s = (struct fiber_scheduler){.on_ready = on_ready, .on_ready_arg = arg};
    list_init(&s->ready);
    list_init(&s->yielded);
}

void fiber_scheduler_release(struct fiber_scheduler *s)
{
    assert(s->alive == 0);
    while (s->pool != NULL) {
        struct fiber *f = s->pool;
        s->pool = f->pool_next;
        fiber_stack_unmap(f);
    }
    free(s->heap);
    if (thread_scheduler == s) thread_scheduler = NULL;
    *s = (struct fiber_scheduler){0};
}

int64_t fiber_scheduler_now_ns(struct fiber_scheduler *s)
{
    if (!s->is_now_fresh) {
        s->now_ns = clock_monotonic_ns();
        s->is_now_fresh = true;
    }
    return s->now_ns;
}

void fiber_scheduler_forget_now(struct fiber_scheduler *s)
{
    s->is_now_fresh = false;
}

/* ---- deadlines: a binary heap of the fibers that really wait with one ---- */

static void heap_put(struct fiber_scheduler *s, uint32_t at, struct fiber_heap_entry entry)
{
    s->heap[at] = entry;
    entry.fiber->heap_index = at;
}

static void heap_up(struct fiber_scheduler *s, uint32_t at, struct fiber_heap_entry entry)
{
    while (at > 0) {
        uint32_t parent = (at - 1) / 2;
        if (s->heap[parent].wake_at_ns <= entry.wake_at_ns) break;
        heap_put(s, at, s->heap[parent]);
        at = parent;
    }
    heap_put(s, at, entry);
}

static void heap_down(struct fiber_scheduler *s, uint32_t at, struct fiber_heap_entry entry)
{
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= s->heap_len) break;
        if (child + 1 < s->heap_len && s->heap[child + 1].wake_at_ns < s->heap[child].wake_at_ns) child++;
        if (entry.wake_at_ns <= s->heap[child].wake_at_ns) break;
        heap_put(s, at, s->heap[child]);
        at = child;
    }
    heap_put(s, at, entry);
}

static void heap_add(struct fiber_scheduler *s, struct fiber *f)
{
    if (s->heap_len == s->heap_capacity) {
        uint32_t capacity =
            s->heap_capacity == 0 ? 64 : s->heap_capacity * 2; /* at most FIBER_MAX are added */
        struct fiber_heap_entry *grown = realloc(s->heap, capacity * sizeof(*grown));
        if (grown == NULL) {
            (void)fprintf(stderr, "fiber: out of memory for %u deadlines\n", capacity);
            abort();
        }
        s->heap = grown;
        s->heap_capacity = capacity;
    }
    heap_up(s, s->heap_len++, (struct fiber_heap_entry){f->wake_at_ns, f});
}

static void heap_remove(struct fiber_scheduler *s, struct fiber *f)
{
    uint32_t at = f->heap_index;
    if (at == FIBER_NOT_IN_HEAP) return;
    f->heap_index = FIBER_NOT_IN_HEAP;
    struct fiber_heap_entry last = s->heap[--s->heap_len];
    if (last.fiber == f) return;
    if (at > 0 && s->heap[(at - 1) / 2].wake_at_ns > last.wake_at_ns)
        heap_up(s, at, last);
    else
        heap_down(s, at, last);
}

/* ---- the turn ---- */

static void ready_append(struct fiber_scheduler *s, struct list *node)
{
    bool was_empty = list_is_empty(&s->ready);
    list_push_back(&s->ready, node);
    if (was_empty && s->on_ready != NULL) s->on_ready(s->on_ready_arg);
}

void fiber_make_ready(struct fiber *f)
{
    ready_append(f->scheduler, &f->ready_node);
}

void fiber_wake(struct fiber *f, enum status why, unsigned index)
{
    if (!f->is_waiting) {
        /* Ready but not resumed yet: what it waited for still wins over the deadline or cancellation. */
        if (why == STATUS_OK && f->wake_status != STATUS_OK) {
            f->wake_status = STATUS_OK;
            f->wake_index = index;
        }
        return;
    }
    f->is_waiting = false;
    f->wake_status = why;
    f->wake_index = index;
    heap_remove(f->scheduler, f);
    fiber_make_ready(f);
}

void fiber_scheduler_begin_turn(struct fiber_scheduler *s)
{
    struct list *node;
    while ((node = list_pop_front(&s->yielded)) != NULL)
        ready_append(s, node);
    if (s->heap_len == 0) return;
    int64_t now_ns = fiber_scheduler_now_ns(s);
    while (s->heap_len > 0 && s->heap[0].wake_at_ns <= now_ns)
        fiber_wake(s->heap[0].fiber, STATUS_DEADLINE_EXCEEDED, 0);
}

bool fiber_scheduler_has_ready(const struct fiber_scheduler *s)
{
    return !list_is_empty(&s->ready) || !list_is_empty(&s->yielded);
}

int64_t fiber_scheduler_next_wake_ns(const struct fiber_scheduler *s)
{
    int64_t deadline_ns = s->heap_len > 0 ? s->heap[0].wake_at_ns : 0;
    if (s->pool_len <= FIBER_POOL_KEEP) return deadline_ns;
    return deadline_ns != 0 && deadline_ns < s->trim_at_ns ? deadline_ns : s->trim_at_ns;
}

void fiber_scheduler_trim(struct fiber_scheduler *s)
{
    if (s->pool_len <= FIBER_POOL_KEEP) return;
    int64_t now_ns = fiber_scheduler_now_ns(s);
    if (now_ns < s->trim_at_ns) return;
    unsigned surplus = s->pool_low > FIBER_POOL_KEEP ? s->pool_low - FIBER_POOL_KEEP : 0;
    if (surplus > TRIM_BATCH) surplus = TRIM_BATCH;
    for (unsigned i = 0; i < surplus; i++) {
        struct fiber *f = s->pool;
        s->pool = f->pool_next;
        s->pool_len--;
        fiber_stack_unmap(f);
    }
    /* A surplus larger than a batch is a burst that is over: go on soon, else look again after a while. */
    s->pool_low = s->pool_low - surplus;
    bool has_more = surplus == TRIM_BATCH && s->pool_low > FIBER_POOL_KEEP;
    if (!has_more) {
        unsigned left = FIBER_POOL_KEEP;
        for (struct fiber *f = s->pool; f != NULL && left > 0; f = f->pool_next, left--)
            fiber_stack_drop_far_pages(f);
        s->pool_low = s->pool_len;
    }
    s->trim_at_ns = now_ns + (has_more ? 10 * NS_PER_MS : TRIM_INTERVAL_NS);
}

/* ---- the switch ---- */

/* To the loop; with is_last the fiber is never resumed. */
static void switch_to_loop(struct fiber *f, bool is_last)
{
    struct fiber_scheduler *s = f->scheduler;
#if FIBER_ASAN
    __sanitizer_start_switch_fiber(is_last ? NULL : &f->asan_fake_stack, s->asan_loop_low,
                                   s->asan_loop_bytes);
#endif
#if FIBER_TSAN
    __tsan_switch_to_fiber(s->tsan_loop, 0);
#endif
    (void)is_last;
    struct transfer t = jump_fcontext(s->loop_context, NULL);
    s->loop_context = t.context;
#if FIBER_ASAN
    __sanitizer_finish_switch_fiber(f->asan_fake_stack, &s->asan_loop_low, &s->asan_loop_bytes);
#endif
}

static void fiber_main(struct transfer t)
{
    struct fiber *f = t.data;
    f->scheduler->loop_context = t.context;
#if FIBER_ASAN
    __sanitizer_finish_switch_fiber(NULL, &f->scheduler->asan_loop_low, &f->scheduler->asan_loop_bytes);
#endif
    f->fn(f->arg);
    f->is_finished = true;
    switch_to_loop(f, true);
    abort(); /* not reached */
}

static void fiber_finish(struct fiber_scheduler *s, struct fiber *f)
{
    assert(f->shields == 0);
    fiber_scope_remove(f);
    fiber_stack_returned(f);
    f->pool_next = s->pool;
    s->pool = f;
    if (++s->pool_len == FIBER_POOL_KEEP + 1) { /* trimming begins */
        s->pool_low = 0;
        s->trim_at_ns = fiber_scheduler_now_ns(s) + TRIM_INTERVAL_NS;
    }
    s->alive--;
    (void)atomic_fetch_sub_explicit(&fibers_alive, 1, memory_order_relaxed);
}

static void fiber_resume(struct fiber_scheduler *s, struct fiber *f)
{
    running = f;
#if FIBER_ASAN
    void *fake_stack = NULL;
    __sanitizer_start_switch_fiber(&fake_stack, f->stack_low, fiber_stack_bytes(f));
#endif
#if FIBER_TSAN
    s->tsan_loop = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(f->tsan_fiber, 0);
#endif
    struct transfer t = jump_fcontext(f->context, f);
#if FIBER_ASAN
    __sanitizer_finish_switch_fiber(fake_stack, NULL, NULL);
#endif
    running = NULL;
    f->context = t.context;
    if (f->is_finished) fiber_finish(s, f);
}

void fiber_suspend(struct fiber *f, int64_t wake_at_ns)
{
    f->is_waiting = true;
    if (wake_at_ns != 0) {
        f->wake_at_ns = wake_at_ns;
        heap_add(f->scheduler, f);
    }
    switch_to_loop(f, false);
}

enum status fiber_yield(void)
{
    struct fiber *f = running;
    assert(f != NULL);
    enum status s = fiber_check(f);
    if (s != STATUS_OK) return s;
    list_push_back(&f->scheduler->yielded, &f->ready_node);
    switch_to_loop(f, false);
    return fiber_check(f);
}

void fiber_scheduler_run_ready(struct fiber_scheduler *s)
{
    assert(running == NULL); /* fibers are resumed from the loop's stack only */
    if (list_is_empty(&s->ready)) return;
    struct list batch = s->ready; /* moved: the two ends are linked to the new head */
    batch.next->prev = &batch;
    batch.prev->next = &batch;
    list_init(&s->ready);
    struct list *node;
    while ((node = list_pop_front(&batch)) != NULL)
        fiber_resume(s, container_of(node, struct fiber, ready_node));
}

/* ---- start ---- */

static struct fiber *take_stack(struct fiber_scheduler *s)
{
    struct fiber *f = s->pool;
    if (f == NULL) return fiber_stack_map();
    s->pool = f->pool_next;
    if (--s->pool_len < s->pool_low) s->pool_low = s->pool_len;
    return f;
}

struct fiber *fiber_start(struct fiber_scheduler *s, fiber_fn *fn, void *arg)
{
    if (atomic_fetch_add_explicit(&fibers_alive, 1, memory_order_relaxed) >= FIBER_MAX) goto fail;
    struct fiber *f = take_stack(s);
    if (f == NULL) goto fail;
    s->alive++;
    f->ready_node = f->scope_node = (struct list){0};
    f->scheduler = s;
    f->scope = NULL;
    f->fn = fn;
    f->arg = arg;
    f->local = NULL;
    f->deadline_ns = 0;
    f->heap_index = FIBER_NOT_IN_HEAP;
    f->shields = 0;
    f->is_waiting = f->is_cancelled = f->is_finished = false;
    f->wake_status = STATUS_OK;
    f->asan_fake_stack = NULL;
    fiber_stack_acquired(f);
    f->context = make_fcontext(f, fiber_stack_bytes(f), fiber_main);
    fiber_make_ready(f);
    return f;
fail:
    (void)atomic_fetch_sub_explicit(&fibers_alive, 1, memory_order_relaxed);
    return NULL;
}
