/* The traps of nesting libuv in h2o's loop, each as a test that hangs, spins or fails where it is not minded.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <h2o.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include <uv.h>

#include "base/clock.h"
#include "loop/loop.h"

TestSuite(loop, .timeout = 60);

static struct loop *new_loop(void)
{
    struct loop *l = NULL;
    struct error err = {0};
    cr_assert_eq(loop_new(&l, &err), STATUS_OK, "%s", err.message);
    return l;
}

static void in_fiber(fiber_fn *fn, void *arg)
{
    struct loop *l = new_loop();
    cr_assert_eq(loop_run_fiber(l, fn, arg, NULL), STATUS_OK);
    loop_free(l);
}

static int64_t in_ms(int64_t ms)
{
    return clock_monotonic_ns() + ms * NS_PER_MS;
}

static int64_t cpu_ns(void)
{
    struct rusage u;
    cr_assert_eq(getrusage(RUSAGE_THREAD, &u), 0);
    return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * NS_PER_S +
           (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * NS_PER_US;
}

/* ---- spinning ---- */

static void sleep_idle(void *arg)
{
    int64_t before_ns = cpu_ns();
    cr_assert_eq(sleep_ms(200), STATUS_OK);
    *(int64_t *)arg = cpu_ns() - before_ns;
}

Test(loop, idle_loop_uses_no_cpu)
{
    int64_t used_ns = 0;
    in_fiber(sleep_idle, &used_ns);
    cr_expect_lt(used_ns, 20 * NS_PER_MS, "%d us of 200 ms", (int)(used_ns / NS_PER_US));
}

static void unref(uv_handle_t *handle, void *arg)
{
    (void)arg;
    uv_unref(handle);
}

static void ref(uv_handle_t *handle, void *arg)
{
    (void)arg;
    uv_ref(handle);
}

Test(loop, libuv_without_a_live_handle_does_not_make_it_spin)
{
    int64_t used_ns = 0;
    struct loop *l = new_loop();
    uv_walk(loop_uv(l), unref, NULL);
    cr_assert_eq(uv_loop_alive(loop_uv(l)), 0);
    cr_assert_eq(loop_run_fiber(l, sleep_idle, &used_ns, NULL), STATUS_OK);
    cr_expect_lt(used_ns, 20 * NS_PER_MS, "%d us of 200 ms", (int)(used_ns / NS_PER_US));
    uv_walk(loop_uv(l), ref, NULL);
    loop_free(l);
}

/* ---- h2o's callbacks and libuv's ---- */

struct nest { /* a socket pair, one end h2o's; a libuv timer and poll */
    h2o_socket_t *sock;
    int peer, pipe[2];
    uv_timer_t timer;
    uv_poll_t poll;
    int64_t armed_ns, fired_ns;
    struct fiber_event fired, closed;
    int to_close;
};

static void on_nest_closed(uv_handle_t *handle)
{
    struct nest *n = handle->data;
    if (--n->to_close == 0) fiber_event_set(&n->closed);
}

static void nest_open(struct nest *n)
{
    int ends[2];
    uv_loop_t *uv = loop_uv(loop_current());
    *n = (struct nest){.to_close = 2};
    fiber_event_init(&n->fired);
    fiber_event_init(&n->closed);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    cr_assert_eq(pipe2(n->pipe, O_CLOEXEC), 0);
    n->peer = ends[1];
    n->sock = h2o_evloop_socket_create(loop_h2o(loop_current()), ends[0], 0);
    n->sock->data = n;
    cr_assert_eq(uv_timer_init(uv, &n->timer), 0);
    cr_assert_eq(uv_poll_init(uv, &n->poll, n->pipe[0]), 0);
    n->timer.data = n->poll.data = n;
}

static void nest_close(struct nest *n)
{
    h2o_socket_close(n->sock);
    uv_close((uv_handle_t *)&n->timer, on_nest_closed);
    uv_close((uv_handle_t *)&n->poll, on_nest_closed);
    cr_assert_eq(fiber_event_wait(&n->closed, in_ms(5000)), STATUS_OK);
    (void)close(n->peer);
    (void)close(n->pipe[0]);
    (void)close(n->pipe[1]);
}

static void on_timer_fired(uv_timer_t *timer)
{
    struct nest *n = timer->data;
    n->fired_ns = clock_monotonic_ns();
    fiber_event_set(&n->fired);
}

static void on_sock_arm_timer(h2o_socket_t *sock, const char *err)
{
    struct nest *n = sock->data;
    cr_assert_null(err);
    h2o_socket_read_stop(sock);
    n->armed_ns = clock_monotonic_ns();
    (void)loop_uv(loop_current());
    cr_assert_eq(uv_timer_start(&n->timer, on_timer_fired, 50, 0), 0);
}

static void timer_from_h2o(void *arg)
{
    struct nest n;
    (void)arg;
    nest_open(&n);
    h2o_socket_read_start(n.sock, on_sock_arm_timer);
    cr_assert_eq(sleep_ms(100), STATUS_OK); /* libuv's idea of now gets old */
    cr_assert_eq(write(n.peer, "x", 1), 1);
    cr_expect_eq(fiber_event_wait(&n.fired, in_ms(2000)), STATUS_OK, "the timer never fired");
    cr_expect_geq(n.fired_ns - n.armed_ns, 48 * NS_PER_MS,
                  "it counted from before the poll"); /* coarse clock */
    cr_expect_lt(n.fired_ns - n.armed_ns, 1000 * NS_PER_MS);
    nest_close(&n);
}

Test(loop, timer_armed_in_an_h2o_callback_fires)
{
    in_fiber(timer_from_h2o, NULL);
}

static void on_polled(uv_poll_t *poll, int status, int events)
{
    struct nest *n = poll->data;
    cr_assert_eq(status, 0);
    cr_assert_eq(events, UV_READABLE);
    (void)uv_poll_stop(poll);
    fiber_event_set(&n->fired);
}

static void on_sock_start_poll(h2o_socket_t *sock, const char *err)
{
    struct nest *n = sock->data;
    (void)err;
    h2o_socket_read_stop(sock);
    cr_assert_eq(uv_poll_start(&n->poll, UV_READABLE, on_polled), 0);
}

static void poll_from_h2o(void *arg)
{
    struct nest n;
    (void)arg;
    nest_open(&n);
    cr_assert_eq(write(n.pipe[1], "x", 1), 1);
    h2o_socket_read_start(n.sock, on_sock_start_poll);
    cr_assert_eq(write(n.peer, "x", 1), 1);
    cr_expect_eq(fiber_event_wait(&n.fired, in_ms(2000)), STATUS_OK, "not registered until the next uv_run");
    nest_close(&n);
}

Test(loop, poll_started_in_an_h2o_callback_is_registered)
{
    in_fiber(poll_from_h2o, NULL);
}

static void on_written(h2o_socket_t *sock, const char *err)
{
    struct nest *n = sock->data;
    cr_assert_null(err);
    fiber_event_set(&n->fired);
}

static void write_some(struct nest *n)
{
    h2o_iovec_t bytes = h2o_iovec_init(H2O_STRLIT("hello"));
    h2o_socket_write(n->sock, &bytes, 1, on_written);
}

static void on_timer_write(uv_timer_t *timer)
{
    write_some(timer->data);
}

static void write_from_uv(void *arg)
{
    struct nest n;
    (void)arg;
    nest_open(&n);
    cr_assert_eq(uv_timer_start(&n.timer, on_timer_write, 20, 0), 0);
    int64_t start_ns = clock_monotonic_ns();
    cr_expect_eq(fiber_event_wait(&n.fired, in_ms(2000)), STATUS_OK, "the finished write was never reported");
    cr_expect_lt(clock_monotonic_ns() - start_ns, 1000 * NS_PER_MS);
    nest_close(&n);
}

Test(loop, socket_made_ready_in_a_libuv_callback_is_served)
{
    in_fiber(write_from_uv, NULL);
}

static void write_from_fiber(void *arg)
{
    struct nest n;
    (void)arg;
    nest_open(&n);
    for (int i = 0; i < 3; i++) {
        fiber_event_reset(&n.fired);
        write_some(&n);
        cr_expect_eq(fiber_event_wait(&n.fired, in_ms(2000)), STATUS_OK);
    }
    nest_close(&n);
}

Test(loop, socket_made_ready_in_a_fiber_is_served)
{
    in_fiber(write_from_fiber, NULL);
}

static void on_sock_now(h2o_socket_t *sock, const char *err)
{
    struct nest *n = sock->data;
    (void)err;
    h2o_socket_read_stop(sock);
    n->armed_ns = loop_now_ns(loop_current());
    fiber_event_set(&n->fired);
}

static void *write_later(void *arg)
{
    struct nest *n = arg;
    struct timespec pause = {0, 100 * 1000 * 1000};
    (void)nanosleep(&pause, NULL);
    cr_assert_eq(write(n->peer, "x", 1), 1);
    return NULL;
}

static void now_after_sleep(void *arg)
{
    struct nest n;
    pthread_t thread;
    (void)arg;
    nest_open(&n);
    h2o_socket_read_start(n.sock, on_sock_now);
    int64_t start_ns = clock_monotonic_ns();
    cr_assert_eq(pthread_create(&thread, NULL, write_later, &n), 0);
    cr_assert_eq(fiber_event_wait(&n.fired, in_ms(2000)), STATUS_OK);
    cr_expect_geq(n.armed_ns - start_ns, 100 * NS_PER_MS, "the time before the poll slept");
    cr_assert_eq(pthread_join(thread, NULL), 0);
    nest_close(&n);
}

Test(loop, now_is_not_older_than_the_poll)
{
    in_fiber(now_after_sleep, NULL);
}

/* ---- fairness ---- */

struct ping {
    struct fiber_event *mine, *other;
    bool *is_over;
    uint64_t count;
};

static void play(void *arg)
{
    struct ping *p = arg;
    while (!*p->is_over) {
        cr_assert_eq(fiber_event_wait(p->mine, 0), STATUS_OK);
        fiber_event_reset(p->mine);
        p->count++;
        fiber_event_set(p->other);
    }
    fiber_event_set(p->other);
}

static void ping_pong(void *arg)
{
    struct fiber_event a, b;
    struct fiber_scope s;
    bool is_over = false;
    struct ping one = {&a, &b, &is_over, 0}, two = {&b, &a, &is_over, 0};
    (void)arg;
    fiber_event_init(&a);
    fiber_event_init(&b);
    fiber_scope_init(&s);
    cr_assert_eq(fiber_scope_spawn(&s, play, &one, NULL), STATUS_OK);
    cr_assert_eq(fiber_scope_spawn(&s, play, &two, NULL), STATUS_OK);
    fiber_event_set(&a);
    struct nest n;
    nest_open(&n);
    cr_assert_eq(uv_timer_start(&n.timer, on_timer_fired, 30, 0), 0);
    cr_expect_eq(fiber_event_wait(&n.fired, in_ms(3000)), STATUS_OK);
    nest_close(&n);
    cr_expect_gt(one.count, 10); /* thousands, but for a processor that is emulated */
    is_over = true;
    fiber_scope_join(&s);
}

Test(loop, fibers_that_wake_each_other_do_not_starve_timers)
{
    in_fiber(ping_pong, NULL);
}

/* ---- EINTR ---- */

static volatile sig_atomic_t alarms;

static void on_alarm(int signum)
{
    (void)signum;
    alarms++;
}

static void sleep_under_alarms(void *arg)
{
    struct itimerval every = {{0, 5000}, {0, 5000}}, off = {0};
    (void)arg;
    int64_t start_ns = clock_monotonic_ns();
    cr_assert_eq(setitimer(ITIMER_REAL, &every, NULL), 0);
    cr_expect_eq(sleep_ms(100), STATUS_OK);
    cr_assert_eq(setitimer(ITIMER_REAL, &off, NULL), 0);
    cr_expect_geq(clock_monotonic_ns() - start_ns, 100 * NS_PER_MS);
    cr_expect_gt(alarms, 3);
}

Test(loop, interrupted_poll_is_not_the_end)
{
    struct sigaction sa = {.sa_handler = on_alarm}; /* no SA_RESTART; epoll_wait never restarts anyway */
    cr_assert_eq(sigaction(SIGALRM, &sa, NULL), 0);
    in_fiber(sleep_under_alarms, NULL);
}

/* ---- signals ---- */

static const int caught[] = {SIGUSR1, SIGUSR2, SIGHUP};

static void *raise_later(void *arg)
{
    struct timespec pause = {0, 50 * 1000 * 1000};
    (void)arg;
    (void)nanosleep(&pause, NULL); /* the loop is asleep by then */
    (void)kill(getpid(), SIGUSR1);
    return NULL;
}

static void wait_signals(void *arg)
{
    int signum = 0;
    pthread_t thread;
    (void)arg;
    cr_assert_eq(pthread_create(&thread, NULL, raise_later, NULL), 0);
    cr_expect_eq(signal_wait(in_ms(5000), &signum), STATUS_OK, "a signal never arrived");
    cr_expect_eq(signum, SIGUSR1);
    cr_assert_eq(pthread_join(thread, NULL), 0);

    cr_assert_eq(kill(getpid(), SIGUSR2), 0);
    cr_assert_eq(kill(getpid(), SIGHUP), 0);
    cr_assert_eq(sleep_ms(20), STATUS_OK);
    unsigned seen = 0;
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(signal_wait(in_ms(5000), &signum), STATUS_OK);
        seen |= 1U << signum;
    }
    cr_expect_eq(seen, 1U << SIGUSR2 | 1U << SIGHUP);
    cr_expect_eq(signal_wait(in_ms(10), &signum), STATUS_DEADLINE_EXCEEDED, "each once");
}

Test(loop, signals_arrive_one_by_one)
{
    struct loop *l = new_loop();
    cr_assert_eq(loop_signals_catch(l, caught, 3, NULL), STATUS_OK);
    cr_assert_eq(loop_run_fiber(l, wait_signals, NULL, NULL), STATUS_OK);
    loop_free(l);
}

static void unref_signals(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (handle->type == UV_SIGNAL) uv_unref(handle);
}

Test(loop, signals_arrive_with_only_unreferenced_signal_handles)
{
    struct loop *l = new_loop();
    cr_assert_eq(loop_signals_catch(l, caught, 3, NULL), STATUS_OK);
    uv_walk(loop_uv(l), unref_signals, NULL);
    cr_assert_eq(loop_run_fiber(l, wait_signals, NULL, NULL), STATUS_OK);
    loop_free(l);
}

Test(loop, signals_blocked_by_the_parent_are_caught_all_the_same)
{
    sigset_t all;
    (void)sigfillset(&all);
    cr_assert_eq(pthread_sigmask(SIG_BLOCK, &all, NULL), 0);
    struct loop *l = new_loop();
    cr_assert_eq(loop_signals_catch(l, caught, 3, NULL), STATUS_OK);
    cr_assert_eq(loop_run_fiber(l, wait_signals, NULL, NULL), STATUS_OK);
    loop_free(l);
}

Test(loop, signal_that_cannot_be_caught_is_an_error)
{
    struct loop *l = new_loop();
    struct error err = {0};
    cr_expect_eq(loop_signals_catch(l, (const int[]){SIGKILL}, 1, &err), STATUS_INVALID_ARGUMENT);
    cr_expect_eq(loop_signals_catch(l, (const int[]){64}, 1, &err), STATUS_INVALID_ARGUMENT);
    cr_expect_eq(loop_signals_catch(l, (const int[]){0}, 1, &err), STATUS_INVALID_ARGUMENT);
    loop_free(l);
}

static void wait_signal_cancelled(void *arg)
{
    int signum;
    *(enum status *)arg = signal_wait(0, &signum);
}

static void cancel_signal_wait(void *arg)
{
    struct fiber_scope s;
    enum status got = STATUS_UNKNOWN;
    (void)arg;
    fiber_scope_init(&s);
    cr_assert_eq(fiber_scope_spawn(&s, wait_signal_cancelled, &got, NULL), STATUS_OK);
    cr_assert_eq(fiber_yield(), STATUS_OK);
    fiber_scope_cancel(&s);
    fiber_scope_join(&s);
    cr_expect_eq(got, STATUS_CANCELLED);
}

Test(loop, signal_wait_can_be_cancelled)
{
    in_fiber(cancel_signal_wait, NULL);
}

/* ---- at the end of a turn ---- */

struct at_end {
    struct loop_deferred deferred;
    struct fiber_event called;
    int n_calls;
};

static void on_turn_end(struct loop_deferred *d)
{
    struct at_end *e = container_of(d, struct at_end, deferred);
    cr_assert_null(fiber_current(), "on the loop's own stack");
    e->n_calls++;
    fiber_event_set(&e->called);
}

struct deferring_post {
    struct loop_post post;
    struct at_end *end;
};

static void on_post_defer(struct loop_post *post)
{
    loop_defer(loop_current(), &container_of(post, struct deferring_post, post)->end->deferred);
}

/* Nothing else wakes the loop: whoever was deferred too late would be called with the next timer only. */
static void defer_and_wait(void *arg)
{
    struct at_end e = {.deferred.fn = on_turn_end};
    struct deferring_post from_uv = {.post.fn = on_post_defer, .end = &e};
    (void)arg;
    fiber_event_init(&e.called);
    for (int turn = 1; turn <= 3; turn++) {
        loop_defer(loop_current(), &e.deferred);
        loop_defer(loop_current(), &e.deferred);
        cr_assert_eq(e.n_calls, turn - 1, "not at once");
        cr_assert_eq(fiber_event_wait(&e.called, clock_monotonic_ns() + NS_PER_S), STATUS_OK);
        cr_assert_eq(e.n_calls, turn, "once a turn");
        fiber_event_reset(&e.called);
    }
    loop_post(loop_current(), &from_uv.post);
    cr_assert_eq(fiber_event_wait(&e.called, clock_monotonic_ns() + NS_PER_S), STATUS_OK);
}

Test(loop, what_is_deferred_is_called_once_before_the_loop_sleeps)
{
    in_fiber(defer_and_wait, NULL);
}

/* ---- posts ---- */

enum { N_THREADS = 4, N_POSTS = 10000 };

struct numbered {
    struct loop_post post;
    struct poster *from;
    int number;
};

struct poster {
    struct loop *loop;
    struct numbered *posts;
    int next; /* expected */
    int *left;
    struct fiber_event *all;
};

static void on_numbered(struct loop_post *post)
{
    struct numbered *n = container_of(post, struct numbered, post);
    cr_assert_null(fiber_current(), "on the loop's own stack");
    cr_assert_eq(n->number, n->from->next, "out of order");
    n->from->next++;
    if (--*n->from->left == 0) fiber_event_set(n->from->all);
}

static void *post_all(void *arg)
{
    struct poster *p = arg;
    for (int i = 0; i < N_POSTS; i++) {
        p->posts[i] = (struct numbered){.post.fn = on_numbered, .from = p, .number = i};
        loop_post(p->loop, &p->posts[i].post);
    }
    return NULL;
}

static void post_from_threads(void *arg)
{
    struct poster posters[N_THREADS];
    pthread_t threads[N_THREADS];
    struct fiber_event all;
    int left = N_THREADS * N_POSTS;
    (void)arg;
    fiber_event_init(&all);
    for (int i = 0; i < N_THREADS; i++) {
        posters[i] = (struct poster){.loop = loop_current(), .left = &left, .all = &all};
        posters[i].posts = calloc(N_POSTS, sizeof(struct numbered));
        cr_assert_eq(pthread_create(&threads[i], NULL, post_all, &posters[i]), 0);
    }
    cr_expect_eq(fiber_event_wait(&all, in_ms(30000)), STATUS_OK, "%d posts were lost", left);
    for (int i = 0; i < N_THREADS; i++) {
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
        cr_expect_eq(posters[i].next, N_POSTS);
        free(posters[i].posts);
    }
}

Test(loop, posts_of_each_thread_arrive_in_order_and_none_is_lost)
{
    in_fiber(post_from_threads, NULL);
}

struct again {
    struct loop_post post;
    struct loop *loop;
    int left;
    struct fiber_event done;
};

static void on_again(struct loop_post *post)
{
    struct again *a = container_of(post, struct again, post);
    if (--a->left > 0)
        loop_post(a->loop, post);
    else
        fiber_event_set(&a->done);
}

static void post_again(void *arg)
{
    struct again a = {.post.fn = on_again, .loop = loop_current(), .left = 5};
    (void)arg;
    fiber_event_init(&a.done);
    loop_post(a.loop, &a.post);
    cr_expect_eq(fiber_event_wait(&a.done, in_ms(5000)), STATUS_OK);
    cr_expect_eq(a.left, 0);
}

Test(loop, node_may_be_posted_again_by_its_own_function)
{
    in_fiber(post_again, NULL);
}

/* ---- life cycle ---- */

static int open_descriptors(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    cr_assert_not_null(d);
    while (readdir(d) != NULL)
        n++;
    (void)closedir(d);
    return n;
}

static void touch_everything(void *arg)
{
    struct nest n;
    (void)arg;
    nest_open(&n);
    nest_close(&n);
    cr_assert_eq(sleep_ms(1), STATUS_OK);
}

Test(loop, freed_loop_leaves_no_descriptor)
{
    struct loop *l = new_loop(); /* libuv's process-wide signal pipe is made once */
    cr_assert_eq(loop_signals_catch(l, caught, 3, NULL), STATUS_OK);
    loop_free(l);
    int before = open_descriptors();
    for (int i = 0; i < 3; i++) {
        l = new_loop();
        cr_assert_eq(loop_signals_catch(l, caught, 3, NULL), STATUS_OK);
        cr_assert_eq(loop_run_fiber(l, touch_everything, NULL, NULL), STATUS_OK);
        loop_free(l);
    }
    cr_expect_eq(open_descriptors(), before);
    loop_free(NULL);
}

Test(loop, leaked_handle_is_loud, .signal = SIGABRT)
{
    static uv_timer_t leaked;
    struct loop *l = new_loop();
    cr_assert_eq(uv_timer_init(loop_uv(l), &leaked), 0);
    loop_free(l);
}

static void on_stop(struct loop_post *post)
{
    (void)post;
    loop_stop(loop_current());
}

static void *stop_later(void *arg)
{
    static struct loop_post stop = {.fn = on_stop};
    loop_post(arg, &stop);
    return NULL;
}

Test(loop, stop_ends_run_and_it_can_run_again)
{
    struct loop *l = new_loop();
    cr_expect_eq(loop_current(), l);
    for (int i = 0; i < 2; i++) {
        pthread_t thread;
        cr_assert_eq(pthread_create(&thread, NULL, stop_later, l), 0);
        loop_run(l);
        cr_assert_eq(pthread_join(thread, NULL), 0);
    }
    loop_free(l);
    cr_expect_null(loop_current());
}

static void stop_and_sleep(void *arg)
{
    loop_stop(loop_current());
    sleep_idle(arg);
}

Test(loop, run_fiber_goes_on_to_its_end_after_a_stop_and_does_not_spin)
{
    int64_t used_ns = 0;
    struct loop *l = new_loop();
    cr_assert_eq(loop_run_fiber(l, stop_and_sleep, &used_ns, NULL), STATUS_OK);
    cr_expect_lt(used_ns, 20 * NS_PER_MS, "%d us of 200 ms", (int)(used_ns / NS_PER_US));
    loop_run(l); /* the stop was for this one */
    loop_free(l);
}

static void wait_on_loops_stack(void)
{
    struct loop *l = new_loop();
    (void)!sleep_ms(1);
    loop_free(l);
}

Test(loop, wait_outside_of_a_fiber_is_loud, .signal = SIGABRT)
{
    wait_on_loops_stack();
}

static void *own_loop(void *arg)
{
    (void)arg;
    in_fiber(post_again, NULL);
    return NULL;
}

Test(loop, threads_may_have_a_loop_each)
{
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, own_loop, NULL), 0);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
}
