/* Inside of fibers: for runtime/fiber/ and runtime/loop/ alone.
 *
 *   fiber.c        events, scopes, the fiber's own settings       channel.c   built on events
 *   scheduler.c    ready list, deadlines, the switch              stack.c     mappings, pool, sanitizers
 *
 * What the loop does each turn:  begin_turn -> expire -> (poll) -> run_ready, possibly several times -> trim.
 */
#ifndef BALM_FIBER_FIBER_IMPL_H
#define BALM_FIBER_FIBER_IMPL_H

#include <stddef.h>

#include "fiber/fiber.h"

#if defined(__SANITIZE_ADDRESS__)
#define FIBER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FIBER_ASAN 1
#endif
#endif
#ifndef FIBER_ASAN
#define FIBER_ASAN 0
#endif
#if defined(__SANITIZE_THREAD__)
#define FIBER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define FIBER_TSAN 1
#endif
#endif
#ifndef FIBER_TSAN
#define FIBER_TSAN 0
#endif

#define FIBER_NOT_IN_HEAP UINT32_MAX

/* Lives at the top of its own stack mapping, so that a spawn is one pop from the pool and no malloc. */
struct fiber {
    struct list ready_node;
    struct list scope_node;
    struct fiber_scheduler *scheduler;
    struct fiber_scope *scope;
    void *context; /* where it goes on, while suspended */
    fiber_fn *fn;
    void *arg;
    void *local;
    int64_t deadline_ns; /* its own; 0: none */
    int64_t wake_at_ns;  /* of the present wait: key in the heap */
    uint32_t heap_index; /* FIBER_NOT_IN_HEAP */
    unsigned shields;
    enum status wake_status; /* why the present wait ended */
    unsigned wake_index;     /* which event, where wake_status is OK */
    bool is_waiting;         /* suspended with nobody having woken it yet */
    bool is_cancelled;
    bool is_finished;
    char *stack_low; /* lowest usable byte; the guard page lies below */
    struct fiber *pool_next;
    void *asan_fake_stack, *tsan_fiber, *valgrind_stack;
    unsigned valgrind_id;
};

struct fiber_heap_entry {
    int64_t wake_at_ns;
    struct fiber *fiber;
};

struct fiber_scheduler {
    struct list ready;             /* run by the next run_ready */
    struct list yielded;           /* run in the next turn */
    struct fiber_heap_entry *heap; /* owned; binary heap of the fibers that wait with a deadline */
    uint32_t heap_len, heap_capacity;
    struct fiber *pool;
    unsigned pool_len, pool_low; /* low: fewest pooled since the last trim, i.e. not needed in that time */
    unsigned alive;
    int64_t now_ns;
    bool is_now_fresh;
    int64_t trim_at_ns;
    void *loop_context;
    void (*on_ready)(void *arg); /* the ready list is no longer empty */
    void *on_ready_arg;
    void *tsan_loop;
    const void *asan_loop_low;
    size_t asan_loop_bytes;
};

/* ---- scheduler.c ---- */

void fiber_scheduler_init(struct fiber_scheduler *s, void (*on_ready)(void *arg), void *arg);
/* No fiber may be alive. */
void fiber_scheduler_release(struct fiber_scheduler *s);
/* The scheduler that fiber_scope_spawn uses on this thread; NULL for none. */
void fiber_scheduler_set_current(struct fiber_scheduler *s);
struct fiber_scheduler *fiber_scheduler_current(void);

/* Time of this turn: read once after fiber_scheduler_forget_now(). */
int64_t fiber_scheduler_now_ns(struct fiber_scheduler *s);
void fiber_scheduler_forget_now(struct fiber_scheduler *s);
/* Fibers that yielded in the last turn become ready; those past their deadline too. */
void fiber_scheduler_begin_turn(struct fiber_scheduler *s);
bool fiber_scheduler_has_ready(const struct fiber_scheduler *s);
/* Earliest deadline or trim, 0: none. */
int64_t fiber_scheduler_next_wake_ns(const struct fiber_scheduler *s);
/* Runs each fiber that is ready now until its next wait; those made ready meanwhile are left for the next
 * call. */
void fiber_scheduler_run_ready(struct fiber_scheduler *s);
/* Gives back what the pool has not needed for a second. */
void fiber_scheduler_trim(struct fiber_scheduler *s);

struct fiber *fiber_start(struct fiber_scheduler *s, fiber_fn *fn, void *arg); /* NULL: FIBER_MAX are alive */
void fiber_make_ready(struct fiber *f);
/* Ends the present wait of f unless it has ended already. */
void fiber_wake(struct fiber *f, enum status why, unsigned index);
/* Back to the loop until woken or, with a deadline, until then. */
void fiber_suspend(struct fiber *f, int64_t wake_at_ns);

/* ---- fiber.c ---- */

/* Called on the loop's stack once f has returned. */
void fiber_scope_remove(struct fiber *f);
/* What a wait of f starting now ends with at once, else OK. */
enum status fiber_check(struct fiber *f);
/* The fiber's own deadline as a wait sees it: 0 for none and while shielded. */
int64_t fiber_visible_deadline_ns(const struct fiber *f);

/* ---- stack.c ---- */

/* Pages further than this from the top are dropped when a stack is returned after a deep call. */
#define FIBER_STACK_KEEP_BYTES ((size_t)64 * 1024)
#define FIBER_POOL_KEEP        16 /* stacks that trimming leaves to an idle loop */

struct fiber *fiber_stack_map(void); /* NULL: no memory or mappings left */
void fiber_stack_unmap(struct fiber *f);
/* To be called when taken from and put back to the pool. */
void fiber_stack_acquired(struct fiber *f);
void fiber_stack_returned(struct fiber *f);
/* Drops the far pages whether they look used or not. */
void fiber_stack_drop_far_pages(struct fiber *f);
/* Usable bytes from stack_low up to the struct itself. */
size_t fiber_stack_bytes(const struct fiber *f);

#endif
