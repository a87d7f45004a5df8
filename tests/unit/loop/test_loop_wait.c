#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "loop/loop.h"

TestSuite(loop_wait, .timeout = 60);

static void in_fiber(fiber_fn *fn)
{
    struct loop *l = NULL;
    cr_assert_eq(loop_new(&l, NULL), STATUS_OK);
    cr_assert_eq(loop_run_fiber(l, fn, NULL, NULL), STATUS_OK);
    loop_free(l);
}

static int64_t in_ms(int64_t ms)
{
    return clock_monotonic_ns() + ms * NS_PER_MS;
}

/* Runs fn(arg) in a fiber and cancels it while it waits. */
static void run_and_cancel(fiber_fn *fn, void *arg)
{
    struct fiber_scope s;
    fiber_scope_init(&s);
    cr_assert_eq(fiber_scope_spawn(&s, fn, arg, NULL), STATUS_OK);
    cr_assert_eq(sleep_ms(5), STATUS_OK);
    fiber_scope_cancel(&s);
    fiber_scope_join(&s);
}

/* ---- time ---- */

static void sleeps(void *arg)
{
    (void)arg;
    int64_t start_ns = clock_monotonic_ns();
    cr_expect_eq(sleep_ms(30), STATUS_OK);
    cr_expect_geq(clock_monotonic_ns() - start_ns, 30 * NS_PER_MS);
    cr_expect_eq(sleep_ms(0), STATUS_OK);
    cr_expect_eq(sleep_until(0), STATUS_OK, "the past");
    cr_expect_eq(sleep_until(start_ns), STATUS_OK);
    (void)fiber_set_deadline(in_ms(10));
    cr_expect_eq(sleep_ms(5000), STATUS_DEADLINE_EXCEEDED);
    cr_expect_eq(sleep_ms(0), STATUS_DEADLINE_EXCEEDED, "past its deadline, each wait ends so");
    (void)fiber_set_deadline(in_ms(5000));
    cr_expect_eq(sleep_ms(1), STATUS_OK);
}

Test(loop_wait, sleep_lasts_as_long_as_asked_or_until_the_deadline)
{
    in_fiber(sleeps);
}

static void sleep_for_ever(void *arg)
{
    *(enum status *)arg = sleep_ms(UINT64_MAX);
}

static void cancel_sleep(void *arg)
{
    enum status got = STATUS_UNKNOWN;
    (void)arg;
    run_and_cancel(sleep_for_ever, &got);
    cr_expect_eq(got, STATUS_CANCELLED);
}

Test(loop_wait, sleep_can_be_cancelled)
{
    in_fiber(cancel_sleep);
}

/* ---- work ---- */

struct job {
    pthread_t thread;
    bool is_done, was_done_at_return;
    int ms;
};

static void do_job(void *arg)
{
    struct job *j = arg;
    struct timespec pause = {0, j->ms * 1000000L};
    j->thread = pthread_self();
    (void)nanosleep(&pause, NULL);
    j->is_done = true;
}

static void run_job(void *arg)
{
    struct job *j = arg;
    work_run(do_job, j);
    j->was_done_at_return = j->is_done;
}

static void work(void *arg)
{
    struct job j = {.ms = 30};
    struct fiber_scope s;
    int turns = 0;
    (void)arg;
    fiber_scope_init(&s);
    cr_assert_eq(fiber_scope_spawn(&s, run_job, &j, NULL), STATUS_OK);
    for (; s.alive > 0; turns++)
        cr_assert_eq(sleep_ms(1), STATUS_OK);
    cr_expect(j.was_done_at_return);
    cr_expect_not(pthread_equal(j.thread, pthread_self()));
    cr_expect_gt(turns, 5, "the loop went on meanwhile");
}

Test(loop_wait, work_runs_on_another_thread_while_the_loop_goes_on)
{
    in_fiber(work);
}

static void cancel_work(void *arg)
{
    struct job j = {.ms = 50};
    (void)arg;
    run_and_cancel(run_job, &j);
    cr_expect(j.was_done_at_return, "its argument may live on the fiber's stack");
}

Test(loop_wait, work_is_not_cut_by_cancellation)
{
    in_fiber(cancel_work);
}

/* ---- descriptors ---- */

struct fd_job {
    int fd, events, got;
    int64_t deadline_ns;
    enum status status;
};

static void wait_fd(void *arg)
{
    struct fd_job *j = arg;
    j->status = fd_wait(j->fd, j->events, j->deadline_ns, &j->got);
}

static void fd_ready(void *arg)
{
    int ends[2];
    struct fiber_scope s;
    (void)arg;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    struct fd_job in = {.fd = ends[0], .events = POLLIN, .deadline_ns = in_ms(5000)};
    fiber_scope_init(&s);
    cr_assert_eq(fiber_scope_spawn(&s, wait_fd, &in, NULL), STATUS_OK);
    cr_assert_eq(sleep_ms(5), STATUS_OK);
    cr_assert_eq(s.alive, 1);
    cr_assert_eq(write(ends[1], "x", 1), 1);
    fiber_scope_join(&s);
    cr_expect_eq(in.status, STATUS_OK);
    cr_expect_eq(in.got, POLLIN);

    struct fd_job both = {.fd = ends[0], .events = POLLIN | POLLOUT};
    for (int i = 0; i < 3; i++) { /* the same descriptor again at once */
        wait_fd(&both);
        cr_expect_eq(both.status, STATUS_OK);
        cr_expect_eq(both.got, POLLIN | POLLOUT);
    }
    (void)close(ends[0]);
    (void)close(ends[1]);
}

Test(loop_wait, fd_wait_tells_what_is_ready)
{
    in_fiber(fd_ready);
}

static void fd_hangups(void *arg)
{
    int p[2], ends[2], got = 0;
    (void)arg;
    cr_assert_eq(pipe2(p, O_CLOEXEC), 0);
    (void)close(p[1]);
    cr_expect_eq(fd_wait(p[0], POLLIN, in_ms(5000), &got), STATUS_OK);
    cr_expect_eq(got, POLLIN, "hung up reads as readable");
    (void)close(p[0]);

    cr_assert_eq(pipe2(p, O_CLOEXEC), 0);
    (void)close(p[0]);
    cr_expect_eq(fd_wait(p[1], POLLOUT, in_ms(5000), &got), STATUS_OK);
    cr_expect(got & POLLERR, "a pipe without a reader");
    (void)close(p[1]);

    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    cr_assert_eq(shutdown(ends[1], SHUT_WR), 0);
    cr_expect_eq(fd_wait(ends[0], POLLRDHUP, in_ms(5000), &got), STATUS_OK);
    cr_expect(got & POLLRDHUP);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

Test(loop_wait, fd_wait_sees_the_other_end_go)
{
    in_fiber(fd_hangups);
}

static void fd_ends(void *arg)
{
    int p[2], got = 0;
    (void)arg;
    cr_assert_eq(pipe2(p, O_CLOEXEC), 0);
    cr_expect_eq(fd_wait(p[0], POLLIN, in_ms(10), &got), STATUS_DEADLINE_EXCEEDED);
    struct fd_job j = {.fd = p[0], .events = POLLIN};
    run_and_cancel(wait_fd, &j);
    cr_expect_eq(j.status, STATUS_CANCELLED);
    cr_assert_eq(write(p[1], "x", 1), 1);
    cr_expect_eq(fd_wait(p[0], POLLIN, in_ms(5000), &got), STATUS_OK, "usable after both");
    (void)fiber_set_deadline(1);
    cr_expect_eq(fd_wait(p[0], POLLIN, in_ms(5000), &got), STATUS_DEADLINE_EXCEEDED,
                 "its own, although ready");
    (void)fiber_set_deadline(0);
    (void)close(p[0]);
    (void)close(p[1]);
}

Test(loop_wait, fd_wait_ends_at_deadline_and_cancellation)
{
    in_fiber(fd_ends);
}

static void fd_errors(void *arg)
{
    int p[2], got = 0;
    struct fiber_scope s;
    (void)arg;
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    cr_expect_eq(fd_wait(file, POLLIN, in_ms(5000), &got), STATUS_PERMISSION_DENIED);
    (void)close(file);
    cr_assert_eq(pipe2(p, O_CLOEXEC), 0);
    struct fd_job first = {.fd = p[0], .events = POLLIN};
    fiber_scope_init(&s);
    cr_assert_eq(fiber_scope_spawn(&s, wait_fd, &first, NULL), STATUS_OK);
    cr_assert_eq(sleep_ms(5), STATUS_OK);
    cr_expect_eq(fd_wait(p[0], POLLIN, in_ms(5000), &got), STATUS_ALREADY_EXISTS);
    cr_assert_eq(write(p[1], "x", 1), 1);
    fiber_scope_join(&s);
    cr_expect_eq(first.status, STATUS_OK, "the first one is not disturbed");
    (void)close(p[0]);
    (void)close(p[1]);
}

Test(loop_wait, fd_wait_refuses_files_and_a_second_waiter)
{
    in_fiber(fd_errors);
}
