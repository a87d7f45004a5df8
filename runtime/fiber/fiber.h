/* Fibers: sequential C that may wait.
 *
 *          spawn            resume (loop's stack only)
 *   [pool] -----> [ready] ----------------> [running] --returns--> [pool]
 *                    ^                          | any wait below
 *                    |   woken, deadline,       v
 *                    +---- cancelled ------ [waiting]
 *
 * Every wait in this project ends in fiber_event_wait() and so has three ends: what it waited for, the
 * deadline (STATUS_DEADLINE_EXCEEDED) or cancellation (STATUS_CANCELLED). After cancellation or past the
 * fiber's own deadline each further wait returns that status at once, so code leaves by its ordinary error
 * path; fiber_shield_begin() and _end() bracket the few steps that must finish all the same (recording an
 * outcome).
 *
 * Fibers belong to one loop and one thread. They are resumed only from the loop's stack, never from another
 * fiber, so setting an event inside a fiber only marks the waiter ready. Between two waits nothing else of
 * this loop runs.
 *
 * Stacks: 256 KiB, lazily committed, guard page below, pooled; on return to the pool the pages past the first
 * 64 KiB are dropped. Switches are announced to ASan and TSan, stacks to LSan and Valgrind.
 * Context switch: Boost.Context's make_fcontext/jump_fcontext (design §2). */
#ifndef BALM_FIBER_FIBER_H
#define BALM_FIBER_FIBER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "base/status.h"

#define FIBER_MAX         8192 /* live at once in a process; each is two kernel mappings (vm.max_map_count 65530) */
#define FIBER_STACK_BYTES ((size_t)256 * 1024)

struct fiber;
struct fiber_scheduler; /* one a loop: ready list, deadlines; made and driven by `loop` */
typedef void fiber_fn(void *arg);

/* ---- one-shot or repeated wake-up; the only primitive that suspends ---- */

struct fiber_event {
    struct list waiters; /* of fibers, woken in order */
    bool is_set;         /* stays true until fiber_event_reset */
};

/* Not set, nobody waits. */
void fiber_event_init(struct fiber_event *e);
/* Wakes all waiters and lets later waits return at once. From the loop's thread: callback or fiber. */
void fiber_event_set(struct fiber_event *e);
void fiber_event_reset(struct fiber_event *e);
/* Suspends until set. deadline_ns: clock_monotonic_ns() scale, 0 = only the fiber's own deadline.
 * The event must outlive the wait. A set event wins over cancellation and deadline. */
enum status fiber_event_wait(struct fiber_event *e, int64_t deadline_ns) MUST_USE;
/* Suspends until any of the n (≤ 8) events is set; *ret_index is the lowest one set. */
enum status fiber_wait_any(struct fiber_event *const *events, unsigned n, int64_t deadline_ns,
                           unsigned *ret_index) MUST_USE;

/* ---- structured concurrency ---- */

/* Owns the fibers spawned in it. Memory that they use must outlive fiber_scope_join(). */
struct fiber_scope {
    struct list fibers;
    struct fiber_event all_done; /* set while no fiber is alive */
    unsigned alive;
    bool is_cancelled;
};

/* Without fibers, not cancelled. */
void fiber_scope_init(struct fiber_scope *s);
/* Starts fn(arg) on the next turn of the loop. From a fiber or a callback of the loop's thread.
 * STATUS_RESOURCE_EXHAUSTED: FIBER_MAX are alive. STATUS_CANCELLED: the scope is. */
enum status fiber_scope_spawn(struct fiber_scope *s, fiber_fn *fn, void *arg, struct error *err) MUST_USE;
/* Every fiber of the scope, present and future, sees STATUS_CANCELLED at its waits. Idempotent. */
void fiber_scope_cancel(struct fiber_scope *s);
/* Suspends the calling fiber until all are done; never cut short. Cancellation or the deadline of the caller,
 * seen here, cancels the scope (not while the caller is shielded). From the loop's stack only with nothing
 * alive. */
void fiber_scope_join(struct fiber_scope *s);

/* ---- the fiber itself ---- */

struct fiber *fiber_current(void); /* NULL on the loop's stack */
/* Bounds every later wait of this fiber; 0 removes it. Returns the deadline before, to restore. */
int64_t fiber_set_deadline(int64_t deadline_ns);
int64_t fiber_deadline(void);
bool fiber_is_cancelled(void);
/* While shielded, cancellation and the fiber's own deadline are not seen (a wait's own deadline_ns still is).
 * Nests. */
void fiber_shield_begin(void);
void fiber_shield_end(void);
/* Let other ready fibers and the loop run once. Ends like a wait once cancelled or past the deadline. */
enum status fiber_yield(void) MUST_USE;
/* A pointer for the layer above (the invocation), NULL at the start. */
void fiber_set_local(void *local);
void *fiber_local(void);
/* Alive now, for metrics and the 503 above FIBER_MAX. */
unsigned fiber_count(void);

/* ---- bounded channel of pointers between fibers of one loop ---- */

struct channel {
    void **items; /* owned ring */
    unsigned capacity, len, head;
    bool is_closed;
    struct fiber_event can_send, can_receive;
};

/* Room for `capacity` pointers, at least 1. channel_release() frees the ring, not what the pointers mean. */
void channel_init(struct channel *c, unsigned capacity);
void channel_release(struct channel *c);
/* Suspends while full. STATUS_FAILED_PRECONDITION: closed. */
enum status channel_send(struct channel *c, void *item, int64_t deadline_ns) MUST_USE;
/* From anywhere on the loop's thread. STATUS_RESOURCE_EXHAUSTED: full. */
enum status channel_try_send(struct channel *c, void *item) MUST_USE;
/* Suspends while empty. STATUS_NOT_FOUND: closed and drained. */
enum status channel_receive(struct channel *c, int64_t deadline_ns, void **ret_item) MUST_USE;
void channel_close(struct channel *c);

#endif
