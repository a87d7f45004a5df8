/* Inside of the loop: for runtime/loop/ alone. loop.c turns; loop_wait.c has the waits; process.c and
 * process_run.c the children. */
#ifndef BALM_LOOP_LOOP_IMPL_H
#define BALM_LOOP_LOOP_IMPL_H

#include <pthread.h>

#include <h2o.h>
#include <uv.h>

#include "fiber/fiber_impl.h"
#include "loop/loop.h"

struct loop_signal; /* one caught signal: loop_wait.c */

struct loop {
    struct fiber_scheduler scheduler;
    h2o_evloop_t *h2o;
    h2o_socket_t *uv_socket; /* a dup of uv_backend_fd(), watched by h2o */
    uv_loop_t uv;

    h2o_timeout_t ready_timeout; /* of 0 ms: its entry runs the ready fibers inside h2o_evloop_run() */
    h2o_timeout_entry_t ready_entry;
    unsigned rounds;  /* of ready fibers in this turn */
    bool is_stopping; /* loop_stop() was called and no loop_run() has ended for it yet */
    bool is_turning;
    const bool *is_over; /* what ends the present run */

    struct list deferred; /* of struct loop_deferred */

    pthread_mutex_t posts_lock;
    struct list posts;     /* under posts_lock */
    uv_async_t posts_wake; /* also the one handle that is always referenced */

    struct list signals;      /* of struct loop_signal */
    uint64_t signals_pending; /* bit number = signal */
    struct fiber_event signal_arrived;

    struct list processes;    /* of struct process, not yet reaped */
    uv_signal_t child_signal; /* SIGCHLD, from the first process on */
    bool is_watching_children;
};

/* loop_free()'s part of the other files: close their handles and free what they own. */
void loop_signals_close(struct loop *l);
void loop_processes_close(struct loop *l);

#endif
