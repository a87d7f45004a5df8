#include "loop/loop.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include "base/clock.h"
#include "loop/loop_impl.h"

/* Rounds of ready fibers inside one turn. More than one, so that an answer that wakes the next request of the
 * same connection needs no further poll; not endless, so that fibers waking each other cannot keep sockets
 * waiting. */
#define ROUNDS_MAX 16
/* Beyond it what could go on in this turn is left to the next, so that each socket has its turn. */
#define TURN_LONG_NS (5 * NS_PER_MS)
/* Turns of libuv that closing everything may need; a handle still open then is a leak. */
#define CLOSE_TURNS_MAX 100

static _Thread_local struct loop *thread_loop;

struct loop *loop_current(void)
{
    return thread_loop;
}

struct st_h2o_evloop_t *loop_h2o(struct loop *l)
{
    return l->h2o;
}

/* libuv's idea of now is as old as the last poll, and timers count from it. */
struct uv_loop_s *loop_uv(struct loop *l)
{
    uv_update_time(&l->uv);
    return &l->uv;
}

int64_t loop_now_ns(struct loop *l)
{
    return fiber_scheduler_now_ns(&l->scheduler);
}

bool loop_turn_is_long(struct loop *l)
{
    return clock_monotonic_ns() - loop_now_ns(l) > TURN_LONG_NS;
}

/* ---- fibers run inside h2o_evloop_run() ----
 *
 * A zero timeout of h2o fires after its socket callbacks and serves what the fibers made ready (finished
 * writes) in the same call. Run after h2o_evloop_run() instead, each request would cost two epoll_ctl and one
 * epoll_wait more, since h2o stops reading a connection while its request is being handled. */

static void on_fibers_ready(void *arg)
{
    struct loop *l = arg;
    if (l->rounds >= ROUNDS_MAX || h2o_timeout_is_linked(&l->ready_entry)) return;
    if (l->rounds > 0 && loop_turn_is_long(l)) return;
    h2o_timeout_link(l->h2o, &l->ready_timeout, &l->ready_entry);
    l->ready_entry.registered_at = 0; /* due however the wall clock is set, which h2o's timeouts follow */
}

static void on_ready_timeout(h2o_timeout_entry_t *entry)
{
    struct loop *l = container_of(entry, struct loop, ready_entry);
    l->rounds++;
    fiber_scheduler_run_ready(&l->scheduler);
}

/* ---- libuv, nested ---- */

static void uv_turn(struct loop *l)
{
    (void)uv_run(&l->uv, UV_RUN_NOWAIT);
}

static void on_uv_readable(h2o_socket_t *sock, const char *err)
{
    (void)err; /* an epoll descriptor is only readable or not; h2o is told not to read it */
    uv_turn(sock->data);
}

/* How long libuv lets us sleep. What is due, was closed or was registered outside of uv_run() is dealt with
 * here.
 *
 * Order matters. Without a live handle uv_backend_timeout() is 0 for ever: ask uv_loop_alive() first. Without
 * uv_update_time() a timer armed since the last uv_run() counts from then. A uv_poll_start() outside of
 * uv_run() reaches epoll only in uv_run(): uv_backend_timeout() is 0 then. */
static int uv_wait_ms(struct loop *l)
{
    if (!uv_loop_alive(&l->uv)) return -1;
    uv_update_time(&l->uv);
    if (uv_backend_timeout(&l->uv) != 0) return uv_backend_timeout(&l->uv);
    uv_turn(l);
    return uv_loop_alive(&l->uv) ? uv_backend_timeout(&l->uv) : -1;
}

/* ---- at the end of a turn ---- */

void loop_defer(struct loop *l, struct loop_deferred *d)
{
    if (d->node.next == NULL) list_push_back(&l->deferred, &d->node);
}

static void run_deferred(struct loop *l)
{
    struct list *node;
    while ((node = list_pop_front(&l->deferred)) != NULL) {
        struct loop_deferred *d = container_of(node, struct loop_deferred, node);
        d->fn(d);
    }
}

/* ---- the turn ---- */

static int32_t wait_ms(struct loop *l)
{
    int32_t wait = INT32_MAX;
    int uv_wait = uv_wait_ms(l); /* first: its callbacks make sockets and fibers ready */
    if (fiber_scheduler_has_ready(&l->scheduler)) return 0;
    /* h2o looks at these only after its next poll, which must not sleep then. */
    if (l->h2o->_pending_as_client != NULL || l->h2o->_pending_as_server != NULL) return 0;
    if (*l->is_over) return 0; /* one of those callbacks said so */
    if (uv_wait >= 0) wait = uv_wait;
    int64_t wake_at_ns = fiber_scheduler_next_wake_ns(&l->scheduler);
    if (wake_at_ns == 0) return wait;
    int64_t left_ms = (wake_at_ns - loop_now_ns(l) + NS_PER_MS - 1) / NS_PER_MS; /* up: never early */
    if (left_ms <= 0) return 0;
    return left_ms < wait ? (int32_t)left_ms : wait;
}

static void loop_turn(struct loop *l)
{
    l->rounds = 0;
    fiber_scheduler_forget_now(&l->scheduler);
    fiber_scheduler_begin_turn(&l->scheduler);
    int32_t wait = wait_ms(l);
    run_deferred(l);                                                  /* by its callbacks */
    if (fiber_scheduler_has_ready(&l->scheduler)) on_fibers_ready(l); /* left by the last turn */
    fiber_scheduler_forget_now(&l->scheduler);                        /* it may sleep now */
    if (h2o_evloop_run(l->h2o, wait) != 0 && errno != EINTR) {
        /* epoll refuses: out of kernel memory or a descriptor closed behind h2o's back. Neither heals. */
        (void)fprintf(stderr, "loop: h2o_evloop_run: %s (%d)\n", strerror(errno), errno);
        abort();
    }
    run_deferred(l);
    fiber_scheduler_trim(&l->scheduler);
}

static void turn_until(struct loop *l, const bool *is_over)
{
    struct loop *before = thread_loop;
    struct fiber_scheduler *scheduler_before = fiber_scheduler_current();
    assert(fiber_current() == NULL && !l->is_turning && "from the thread's plain stack, not nested");
    thread_loop = l;
    fiber_scheduler_set_current(&l->scheduler);
    l->is_turning = true;
    l->is_over = is_over;
    while (!*is_over)
        loop_turn(l);
    l->is_over = NULL;
    l->is_turning = false;
    thread_loop = before;
    fiber_scheduler_set_current(scheduler_before);
}

void loop_run(struct loop *l)
{
    turn_until(l, &l->is_stopping);
    l->is_stopping = false;
}

void loop_stop(struct loop *l)
{
    l->is_stopping = true;
}

struct main_fiber {
    fiber_fn *fn;
    void *arg;
    bool is_done;
};

static void run_main_fiber(void *arg)
{
    struct main_fiber *m = arg;
    m->fn(m->arg);
    m->is_done = true;
}

enum status loop_run_fiber(struct loop *l, fiber_fn *fn, void *arg, struct error *err)
{
    struct main_fiber m = {.fn = fn, .arg = arg};
    struct fiber_scope scope;
    fiber_scope_init(&scope);
    struct fiber_scheduler *before = fiber_scheduler_current();
    fiber_scheduler_set_current(&l->scheduler);
    enum status s = fiber_scope_spawn(&scope, run_main_fiber, &m, err);
    fiber_scheduler_set_current(before);
    if (s != STATUS_OK) return s;
    turn_until(l, &m.is_done);
    assert(scope.alive == 0);
    return STATUS_OK;
}

/* ---- posts from other threads ---- */

/* Sends the wake-up under the lock: once we have taken a node, no thread is inside uv_async_send() for it, so
 * the loop may be freed as soon as the last post has run. */
void loop_post(struct loop *l, struct loop_post *post)
{
    (void)pthread_mutex_lock(&l->posts_lock);
    bool was_empty = list_is_empty(&l->posts);
    list_push_back(&l->posts, &post->node);
    if (was_empty) (void)uv_async_send(&l->posts_wake);
    (void)pthread_mutex_unlock(&l->posts_lock);
}

static struct list *posts_take(struct loop *l)
{
    (void)pthread_mutex_lock(&l->posts_lock);
    struct list *first = NULL;
    if (!list_is_empty(&l->posts)) {
        first = l->posts.next;
        l->posts.prev->next = NULL; /* a plain chain from here on */
        list_init(&l->posts);
    }
    (void)pthread_mutex_unlock(&l->posts_lock);
    return first;
}

static void on_posts(uv_async_t *async)
{
    struct loop *l = container_of(async, struct loop, posts_wake);
    struct list *node = posts_take(l);
    while (node != NULL) {
        struct loop_post *post = container_of(node, struct loop_post, node);
        node = node->next;
        post->node = (struct list){0};
        post->fn(post); /* may free or post it again */
    }
}

/* ---- life cycle ---- */

static enum status uv_side_open(struct loop *l, struct error *err)
{
    int rc = uv_loop_init(&l->uv);
    if (rc != 0) return error_set(err, STATUS_RESOURCE_EXHAUSTED, "make a libuv loop: %s", uv_strerror(rc));
    rc = uv_async_init(&l->uv, &l->posts_wake, on_posts);
    if (rc != 0) {
        (void)uv_loop_close(&l->uv);
        return error_set(err, STATUS_RESOURCE_EXHAUSTED, "make a wake-up descriptor: %s", uv_strerror(rc));
    }
    return STATUS_OK;
}

static void uv_side_close(struct loop *l)
{
    loop_processes_close(l);
    loop_signals_close(l);
    uv_close((uv_handle_t *)&l->posts_wake, NULL);
    for (int i = 0; i < CLOSE_TURNS_MAX && uv_loop_alive(&l->uv); i++)
        uv_turn(l);
    int rc = uv_loop_close(&l->uv);
    assert(rc == 0 && "a handle or request was not stopped before loop_free");
    (void)rc;
}

static void h2o_side_open(struct loop *l, int uv_fd)
{
    l->h2o = h2o_evloop_create();
    l->uv_socket = h2o_evloop_socket_create(l->h2o, uv_fd, H2O_SOCKET_FLAG_DONT_READ);
    l->uv_socket->data = l;
    h2o_socket_read_start(l->uv_socket, on_uv_readable);
    h2o_timeout_init(l->h2o, &l->ready_timeout, 0);
    l->ready_entry.cb = on_ready_timeout;
}

static void h2o_side_close(struct loop *l)
{
    /* h2o 2.2.5 leaves its epoll descriptor open: it is the member right behind the public part. */
    struct evloop_epoll {
        h2o_evloop_t super;
        int epoll_fd;
    } *epoll = (struct evloop_epoll *)(void *)l->h2o;
    int epoll_fd = epoll->epoll_fd;
    h2o_socket_close(l->uv_socket);
    h2o_timeout_unlink(&l->ready_entry);
    h2o_timeout_dispose(l->h2o, &l->ready_timeout);
    (void)h2o_evloop_run(l->h2o, 0); /* frees closed sockets */
    h2o_evloop_destroy(l->h2o);
    (void)close(epoll_fd);
}

enum status loop_new(struct loop **ret_loop, struct error *err)
{
    struct loop *l = calloc(1, sizeof(*l));
    if (l == NULL) return error_set(err, STATUS_RESOURCE_EXHAUSTED, "make a loop: out of memory");
    /* A peer that hangs up is an error of write(2), not the end of the process. */
    (void)signal(SIGPIPE, SIG_IGN);
    list_init(&l->posts);
    list_init(&l->deferred);
    list_init(&l->signals);
    list_init(&l->processes);
    fiber_event_init(&l->signal_arrived);
    fiber_scheduler_init(&l->scheduler, on_fibers_ready, l);
    (void)pthread_mutex_init(&l->posts_lock, NULL);

    enum status s = uv_side_open(l, err);
    if (s != STATUS_OK) goto out;
    /* h2o closes the descriptors it watches. */
    int uv_fd = fcntl(uv_backend_fd(&l->uv), F_DUPFD_CLOEXEC, 0);
    if (uv_fd < 0) {
        s = error_set(err, status_from_errno(errno), "watch libuv's descriptor: %s", strerror(errno));
        uv_side_close(l);
        goto out;
    }
    h2o_side_open(l, uv_fd);
    if (thread_loop == NULL) {
        thread_loop = l;
        fiber_scheduler_set_current(&l->scheduler);
    }
    *ret_loop = l;
    l = NULL;
out:
    if (l != NULL) (void)pthread_mutex_destroy(&l->posts_lock);
    free(l);
    return s;
}

void loop_free(struct loop *l)
{
    if (l == NULL) return;
    assert(!l->is_turning && l->scheduler.alive == 0);
    uv_side_close(l);
    h2o_side_close(l);
    fiber_scheduler_release(&l->scheduler);
    (void)pthread_mutex_destroy(&l->posts_lock);
    if (thread_loop == l) thread_loop = NULL;
    free(l);
}
