#include <assert.h>
#include <errno.h>
#include <poll.h>

#include "base/clock.h"
#include "base/memory.h"
#include "loop/loop_impl.h"

/* ---- time ---- */

enum status sleep_until(int64_t deadline_ns)
{
    struct fiber_event never;
    fiber_event_init(&never);
    if (deadline_ns <= 0) deadline_ns = 1; /* 0 would be "for ever" */
    int64_t own_ns = fiber_visible_deadline_ns(fiber_current());
    enum status s = fiber_event_wait(&never, deadline_ns);
    if (s != STATUS_DEADLINE_EXCEEDED) return s;
    return own_ns != 0 && own_ns < deadline_ns ? STATUS_DEADLINE_EXCEEDED : STATUS_OK;
}

enum status sleep_ms(uint64_t ms)
{
    int64_t now_ns =
        clock_monotonic_ns(); /* not the turn's: a long computation before must not shorten the sleep */
    uint64_t ms_max = (uint64_t)((INT64_MAX - now_ns) / NS_PER_MS);
    return sleep_until(now_ns + (int64_t)(ms < ms_max ? ms : ms_max) * NS_PER_MS);
}

/* ---- worker threads ---- */

struct work { /* on the waiting fiber's stack */
    uv_work_t req;
    void (*fn)(void *arg);
    void *arg;
    struct fiber_event done;
};

static void on_worker(uv_work_t *req)
{
    struct work *w = container_of(req, struct work, req);
    w->fn(w->arg);
}

static void on_work_done(uv_work_t *req, int status)
{
    (void)status; /* nobody cancels it */
    fiber_event_set(&container_of(req, struct work, req)->done);
}

void work_run(void (*fn)(void *arg), void *arg)
{
    struct work w = {.fn = fn, .arg = arg};
    assert(fiber_current() != NULL && "waits are for fibers");
    fiber_event_init(&w.done);
    int rc = uv_queue_work(&loop_current()->uv, &w.req, on_worker, on_work_done);
    assert(rc == 0); /* its only error is a missing function */
    (void)rc;
    fiber_shield_begin();
    while (!w.done.is_set)
        (void)!fiber_event_wait(&w.done, 0);
    fiber_shield_end();
}

/* ---- descriptors ---- */

struct fd_waiter { /* heap: libuv needs the handle until its close callback, one turn after the wait is over
                    */
    uv_poll_t poll;
    struct fiber_event ready;
    int events;
};

static void on_fd_closed(uv_handle_t *handle)
{
    free(container_of(handle, struct fd_waiter, poll));
}

static void on_fd_ready(uv_poll_t *poll, int status, int events)
{
    struct fd_waiter *w = container_of(poll, struct fd_waiter, poll);
    if ((events & UV_READABLE) != 0) w->events |= POLLIN;
    if ((events & UV_WRITABLE) != 0) w->events |= POLLOUT;
    if ((events & UV_DISCONNECT) != 0) w->events |= POLLRDHUP;
    if (status != 0)
        w->events |= POLLERR; /* libuv says EBADF for POLLERR: the next read or write has the errno */
    (void)uv_poll_stop(poll);
    fiber_event_set(&w->ready);
}

/* POLLRDHUP only where asked for: it stays true after a peer's half-close, and who waits for POLLOUT would
 * spin. */
static int uv_events(int events)
{
    int uv = 0;
    if ((events & POLLIN) != 0) uv |= UV_READABLE;
    if ((events & POLLOUT) != 0) uv |= UV_WRITABLE;
    if ((events & POLLRDHUP) != 0) uv |= UV_DISCONNECT;
    return uv;
}

enum status fd_wait(int fd, int events, int64_t deadline_ns, int *ret_events)
{
    enum status s = fiber_check(fiber_current());
    if (s != STATUS_OK) return s;
    struct fd_waiter *w = calloc(1, sizeof(*w));
    if (w == NULL) return STATUS_RESOURCE_EXHAUSTED;
    fiber_event_init(&w->ready);
    int rc = uv_poll_init(&loop_current()->uv, &w->poll, fd);
    if (rc != 0) {
        free(w);
        return rc == UV_EEXIST ? STATUS_ALREADY_EXISTS : status_from_errno(-rc);
    }
    rc = uv_poll_start(&w->poll, uv_events(events), on_fd_ready);
    s = rc == 0 ? fiber_event_wait(&w->ready, deadline_ns) : STATUS_ALREADY_EXISTS;
    if (s == STATUS_OK) *ret_events = w->events;
    uv_close((uv_handle_t *)&w->poll, on_fd_closed);
    return s;
}

/* ---- signals ---- */

struct loop_signal {
    uv_signal_t handle;
    struct loop *loop;
    struct list node; /* in loop->signals */
};

static void on_signal(uv_signal_t *handle, int signum)
{
    struct loop_signal *s = container_of(handle, struct loop_signal, handle);
    s->loop->signals_pending |= UINT64_C(1) << signum;
    fiber_event_set(&s->loop->signal_arrived);
}

static void on_signal_closed(uv_handle_t *handle)
{
    free(container_of(handle, struct loop_signal, handle));
}

static enum status signal_catch(struct loop *l, int signum, struct error *err)
{
    sigset_t set;
    struct loop_signal *s = mem_zalloc(1, sizeof(*s));
    s->loop = l;
    int rc = uv_signal_init(&l->uv, &s->handle);
    if (rc != 0) {
        free(s);
        return error_set(err, status_from_errno(-rc), "catch signal %d: %s", signum, uv_strerror(rc));
    }
    list_push_back(&l->signals, &s->node);
    rc = uv_signal_start(&s->handle, on_signal, signum);
    if (rc != 0)
        return error_set(err, status_from_errno(-rc), "catch signal %d: %s", signum, uv_strerror(rc));
    (void)sigemptyset(&set); /* whoever started us may have left it blocked */
    (void)sigaddset(&set, signum);
    (void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    return STATUS_OK;
}

enum status loop_signals_catch(struct loop *l, const int *signals, unsigned n, struct error *err)
{
    for (unsigned i = 0; i < n; i++) {
        if (signals[i] <= 0 || signals[i] > 63)
            return error_set(err, STATUS_INVALID_ARGUMENT, "catch signal %d: not in 1 … 63", signals[i]);
        enum status s = signal_catch(l, signals[i], err);
        if (s != STATUS_OK) return s;
    }
    return STATUS_OK;
}

enum status signal_wait(int64_t deadline_ns, int *ret_signal)
{
    struct loop *l = loop_current();
    while (l->signals_pending == 0) { /* another fiber may have taken the one that woke us */
        enum status s = fiber_event_wait(&l->signal_arrived, deadline_ns);
        if (s != STATUS_OK) return s;
    }
    *ret_signal = __builtin_ctzll(l->signals_pending);
    l->signals_pending &= l->signals_pending - 1;
    if (l->signals_pending == 0) fiber_event_reset(&l->signal_arrived);
    return STATUS_OK;
}

void loop_signals_close(struct loop *l)
{
    struct list *node;
    while ((node = list_pop_front(&l->signals)) != NULL)
        uv_close((uv_handle_t *)&container_of(node, struct loop_signal, node)->handle, on_signal_closed);
}
