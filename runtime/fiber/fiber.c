#include "fiber/fiber.h"

#include <assert.h>

#include "fiber/fiber_impl.h"

#define WAIT_ANY_MAX 8

/* ---- the fiber itself ---- */

int64_t fiber_set_deadline(int64_t deadline_ns)
{
    struct fiber *f = fiber_current();
    assert(f != NULL);
    int64_t before = f->deadline_ns;
    f->deadline_ns = deadline_ns;
    return before;
}

int64_t fiber_deadline(void)
{
    const struct fiber *f = fiber_current();
    return f == NULL ? 0 : f->deadline_ns;
}

bool fiber_is_cancelled(void)
{
    const struct fiber *f = fiber_current();
    return f != NULL && f->is_cancelled && f->shields == 0;
}

void fiber_shield_begin(void)
{
    struct fiber *f = fiber_current();
    assert(f != NULL);
    f->shields++;
}

void fiber_shield_end(void)
{
    struct fiber *f = fiber_current();
    assert(f != NULL && f->shields > 0);
    f->shields--;
}

void fiber_set_local(void *local)
{
    struct fiber *f = fiber_current();
    assert(f != NULL);
    f->local = local;
}

void *fiber_local(void)
{
    const struct fiber *f = fiber_current();
    return f == NULL ? NULL : f->local;
}

int64_t fiber_visible_deadline_ns(const struct fiber *f)
{
    assert(f != NULL && "waits are for fibers");
    return f->shields > 0 ? 0 : f->deadline_ns;
}

enum status fiber_check(struct fiber *f)
{
    assert(f != NULL && "waits are for fibers");
    if (f->shields > 0) return STATUS_OK;
    if (f->is_cancelled) return STATUS_CANCELLED;
    if (f->deadline_ns != 0 && f->deadline_ns <= fiber_scheduler_now_ns(f->scheduler))
        return STATUS_DEADLINE_EXCEEDED;
    return STATUS_OK;
}

/* ---- events ---- */

/* One for each event of a wait, on the waiting fiber's stack. */
struct waiter {
    struct list node;
    struct fiber *fiber;
    unsigned index;
};

void fiber_event_init(struct fiber_event *e)
{
    list_init(&e->waiters);
    e->is_set = false;
}

void fiber_event_set(struct fiber_event *e)
{
    struct list *node;
    e->is_set = true;
    while ((node = list_pop_front(&e->waiters)) != NULL) {
        struct waiter *w = container_of(node, struct waiter, node);
        fiber_wake(w->fiber, STATUS_OK, w->index);
    }
}

void fiber_event_reset(struct fiber_event *e)
{
    e->is_set = false;
}

static bool find_set(struct fiber_event *const *events, unsigned n, unsigned *ret_index)
{
    for (unsigned i = 0; i < n; i++) {
        if (!events[i]->is_set) continue;
        *ret_index = i;
        return true;
    }
    return false;
}

static int64_t earlier_ns(int64_t a, int64_t b)
{
    if (a == 0) return b;
    return b == 0 || a < b ? a : b;
}

enum status fiber_wait_any(struct fiber_event *const *events, unsigned n, int64_t deadline_ns,
                           unsigned *ret_index)
{
    struct fiber *f = fiber_current();
    struct waiter waiters[WAIT_ANY_MAX];
    assert(f != NULL && "waits are for fibers");
    assert(n >= 1 && n <= WAIT_ANY_MAX);
    if (find_set(events, n, ret_index)) return STATUS_OK;
    enum status s = fiber_check(f);
    if (s != STATUS_OK) return s;
    deadline_ns = earlier_ns(deadline_ns, fiber_visible_deadline_ns(f));
    if (deadline_ns != 0 && deadline_ns <= fiber_scheduler_now_ns(f->scheduler))
        return STATUS_DEADLINE_EXCEEDED;

    for (unsigned i = 0; i < n; i++) {
        waiters[i].fiber = f;
        waiters[i].index = i;
        list_push_back(&events[i]->waiters, &waiters[i].node);
    }
    fiber_suspend(f, deadline_ns);
    for (unsigned i = 0; i < n; i++)
        list_remove(&waiters[i].node);
    if (f->wake_status != STATUS_OK) return f->wake_status;
    /* The event that woke us may have been reset since; a lower one may have been set since. */
    if (!find_set(events, n, ret_index) || *ret_index > f->wake_index) *ret_index = f->wake_index;
    return STATUS_OK;
}

enum status fiber_event_wait(struct fiber_event *e, int64_t deadline_ns)
{
    unsigned index;
    return fiber_wait_any(&e, 1, deadline_ns, &index);
}

/* ---- scopes ---- */

void fiber_scope_init(struct fiber_scope *s)
{
    list_init(&s->fibers);
    fiber_event_init(&s->all_done);
    s->all_done.is_set = true;
    s->alive = 0;
    s->is_cancelled = false;
}

enum status fiber_scope_spawn(struct fiber_scope *s, fiber_fn *fn, void *arg, struct error *err)
{
    struct fiber_scheduler *scheduler = fiber_scheduler_current();
    assert(scheduler != NULL && "no loop on this thread");
    if (s->is_cancelled) return error_set(err, STATUS_CANCELLED, "start a fiber: its scope is cancelled");
    struct fiber *f = fiber_start(scheduler, fn, arg);
    if (f == NULL) {
        return error_set(err, STATUS_RESOURCE_EXHAUSTED,
                         "start a fiber: %u are alive, the limit is %d or memory is out", fiber_count(),
                         FIBER_MAX);
    }
    f->scope = s;
    list_push_back(&s->fibers, &f->scope_node);
    s->alive++;
    fiber_event_reset(&s->all_done);
    return STATUS_OK;
}

void fiber_scope_remove(struct fiber *f)
{
    struct fiber_scope *s = f->scope;
    list_remove(&f->scope_node);
    if (--s->alive == 0) fiber_event_set(&s->all_done);
}

void fiber_scope_cancel(struct fiber_scope *s)
{
    if (s->is_cancelled) return;
    s->is_cancelled = true;
    for (struct list *node = s->fibers.next; node != &s->fibers; node = node->next) {
        struct fiber *f = container_of(node, struct fiber, scope_node);
        f->is_cancelled = true;
        if (f->shields == 0 && f->is_waiting) fiber_wake(f, STATUS_CANCELLED, 0);
    }
}

void fiber_scope_join(struct fiber_scope *s)
{
    if (s->alive == 0) return;
    if (fiber_event_wait(&s->all_done, 0) == STATUS_OK) return;
    /* The caller was cancelled or ran out of time. It must still not leave before its fibers have, so it
     * hurries them: otherwise a cancelled parent in a join would wait for children that nobody has told. */
    fiber_scope_cancel(s);
    fiber_shield_begin();
    while (s->alive > 0)
        (void)!fiber_event_wait(&s->all_done, 0);
    fiber_shield_end();
}
