/* The loop: h2o's evloop drives, libuv is nested in it, fibers run on it. One a thread.
 *
 *   h2o_evloop_run(timeout) -> sockets of `server` and `client/forward`
 *        |  a dup of uv_backend_fd() is one of its sockets
 *        v
 *   uv_run(NOWAIT) -> timers, signals, processes, pipes, worker threads, curl's sockets
 *        v
 *   ready fibers, each until its next wait
 *
 * The traps that the nesting has are written in design §2 and each is a test in tests/unit/loop. */
#ifndef BALM_LOOP_LOOP_H
#define BALM_LOOP_LOOP_H

#include <limits.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/arena.h"
#include "fiber/fiber.h"

struct loop;
struct st_h2o_evloop_t;
struct uv_loop_s;

/* Becomes the calling thread's loop if that has none; loop_run() on another thread is fine. Ignores SIGPIPE
 * for the process. */
enum status loop_new(struct loop **ret_loop, struct error *err) MUST_USE;
/* Everything that was started on it must be stopped; asserts uv_loop_close() == 0: a leak is loud. */
void loop_free(struct loop *l);
/* Runs until loop_stop(), which other threads ask for by loop_post(). From the thread's plain stack. */
void loop_run(struct loop *l);
/* Runs `fn` as a fiber and the loop until it has returned, also past loop_stop(): for main() and tests. */
enum status loop_run_fiber(struct loop *l, fiber_fn *fn, void *arg, struct error *err) MUST_USE;
void loop_stop(struct loop *l);
struct loop *loop_current(void); /* the calling thread's, or NULL */
/* For the files that own sockets. */
struct st_h2o_evloop_t *loop_h2o(struct loop *l);
/* Brings libuv's time up to date: ask again before uv_timer_start(), or the timer counts from before the last
 * poll. */
struct uv_loop_s *loop_uv(struct loop *l);
/* Cached monotonic time of this turn: cheap, may lag by the turn's length. */
int64_t loop_now_ns(struct loop *l);
/* Others may have been waiting for it to end: who has had something of it leaves the rest to the next one. */
bool loop_turn_is_long(struct loop *l);

struct loop_post {
    struct list node;
    void (*fn)(struct loop_post *post);
};
/* Have post->fn(post) called on the loop's own stack soon, in order. Safe from any thread; wakes the loop.
 * Never fails: `post` is the caller's memory and must live until fn is called. */
void loop_post(struct loop *l, struct loop_post *post);

struct loop_deferred {
    struct list node;
    void (*fn)(struct loop_deferred *d);
};
/* Have d->fn(d) called once on the loop's own stack when this turn's work is done, before the loop may sleep:
 * for what is cheaper to do once for all that a turn did. Nothing if it is deferred already. `d` is the
 * caller's memory and must live until then. Loop thread only. */
void loop_defer(struct loop *l, struct loop_deferred *d);

/* ---- waits (in a fiber) ---- */

/* STATUS_OK after the time; STATUS_CANCELLED, STATUS_DEADLINE_EXCEEDED by the fiber's own deadline. */
enum status sleep_ms(uint64_t ms) MUST_USE;
enum status sleep_until(int64_t deadline_ns) MUST_USE;

/* fn(arg) on a worker thread; suspends until it has returned, whatever happens (work cannot be cut; `arg` may
 * live on the fiber's stack). For SQLite reads, big parses, files, hashing. */
void work_run(void (*fn)(void *arg), void *arg);

/* Readable, writable or hung up (which reads as readable). events: POLLIN | POLLOUT | POLLRDHUP. *ret_events
 * may have POLLERR besides: the next read or write has the errno. One waiter per descriptor at a time:
 * STATUS_ALREADY_EXISTS. STATUS_PERMISSION_DENIED: a regular file, which never blocks. */
enum status fd_wait(int fd, int events, int64_t deadline_ns, int *ret_events) MUST_USE;

/* Waits for one of the signals of `set`, which are caught for the loop from loop_signals_catch() on. Several
 * that arrive before the wait are delivered one by one; the same one twice may be seen once. */
enum status loop_signals_catch(struct loop *l, const int *signals, unsigned n, struct error *err) MUST_USE;
enum status signal_wait(int64_t deadline_ns, int *ret_signal) MUST_USE;

/* ---- processes ---- */

enum process_stderr {
    PROCESS_STDERR_KEPT,   /* collected */
    PROCESS_STDERR_SHOWN,  /* collected, and whole lines go on to our own stderr as they come */
    PROCESS_STDERR_JOINED, /* one stream with stdout */
};

struct process_spec {
    const char *const *argv; /* NULL-terminated; argv[0] is a path with a slash or is looked up in env's PATH
                                (/usr/bin:/bin without one), never in our own */
    const char *const *env;  /* NULL-terminated; NULL: empty environment */
    const char *cwd;         /* NULL: unchanged */
    int stdin_fd, stdout_fd, stderr_fd; /* -1: /dev/null */
    const int *extra_fds;               /* become 3, 4, … in the child */
    unsigned n_extra_fds;
    bool new_session;               /* setsid(): outlives our terminal and process group */
    enum process_stderr run_stderr; /* process_run() alone */
};

/* What argv[0] `name` would run with `env`, as process_start() looks for it. STATUS_NOT_FOUND, or
 * STATUS_PERMISSION_DENIED where there is only one that cannot be executed. A name with a slash is not looked
 * at. */
enum status process_find(const char *name, const char *const *env, char ret_path[PATH_MAX],
                         struct error *err) MUST_USE;

/* Does nobody go by this number any more, or do we: then it was that of the one before us in a container?
 * False as well where it is no number. Another namespace's processes are not seen. */
bool process_is_no_more(struct strview pid);

struct process; /* heap; freed by process_free, which kills nothing */

/* The child gets only the descriptors named above; all others are closed, signals are unblocked and default.
 * A relative argv[0] with a slash is looked up in cwd. STATUS_NOT_FOUND: no such program or cwd. */
enum status process_start(struct loop *l, const struct process_spec *spec, struct process **ret_process,
                          struct error *err) MUST_USE;
/* Names no other process before process_free(), as that is what reaps. */
pid_t process_pid(const struct process *p);
bool process_has_exited(const struct process *p);
/* Suspends until it ended. ret_exit: exit code, or 128 + signal. */
enum status process_wait(struct process *p, int64_t deadline_ns, int *ret_exit) MUST_USE;
/* By pid while we have not reaped it, so never another process. STATUS_NOT_FOUND: has exited. */
enum status process_kill(struct process *p, int signal) MUST_USE;
/* Every process of the group that one started with new_session leads, also after it has exited itself: its
 * pid stays taken (a zombie) until process_free, so STATUS_OK does not say that one was alive.
 * STATUS_FAILED_PRECONDITION: it has no session of its own. */
enum status process_kill_group(struct process *p, int signal) MUST_USE;
/* Every process of the session that one started with new_session leads, whatever group it moved to: SIGTERM,
 * SIGKILL as soon as the leader has exited or after 2 s. Suspends for at most 7 s, never cut short. */
void process_end_session(struct process *p);
/* The same by the leader's pid, one signal: for a session that an earlier process of ours started. The caller
 * has seen that the pid is still its. Suspends. */
void session_kill(pid_t session, int signal);
/* Its process must have exited or be abandoned on purpose; an unreaped one is still reaped by the loop later.
 */
void process_free(struct process *p);

#define PROCESS_OUTPUT_MAX ((size_t)8 * 1024 * 1024)
struct process_result {
    int exit_code;                           /* 128 + signal where it was killed */
    struct strview stdout_text, stderr_text; /* arena; cut at max_output_bytes */
    bool is_truncated;                       /* what was SHOWN counts for nothing here */
};
/* Start in a session of its own, feed `input`, collect both outputs, wait. At the deadline (or cancellation)
 * the whole session is killed: SIGTERM, SIGKILL as soon as the child has exited or after 2 s;
 * STATUS_DEADLINE_EXCEEDED (or _CANCELLED) then. What a child that exited in time left running (a service it
 * started) stays, and is not waited for although it may hold the outputs open. spec's three descriptors and
 * new_session are ignored. max_output_bytes is for each output, at most PROCESS_OUTPUT_MAX; the rest is read
 * and dropped. */
enum status process_run(const struct process_spec *spec, struct strview input, size_t max_output_bytes,
                        int64_t deadline_ns, struct arena *a, struct process_result *ret_result,
                        struct error *err) MUST_USE;

#endif
