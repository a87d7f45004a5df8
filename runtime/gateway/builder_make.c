/* make, behind the shim, and what it says. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "gateway/builder.h"

#define LINE_MAX_BYTES 2048 /* of one; longer ones are cut into pieces */
#define LINES_MAX      64   /* passed on at once: the client reads at most 64 KiB a piece */
#define ASK_NS         (3 * NS_PER_S)
#define END_WAIT_NS    (10 * NS_PER_S) /* for the shim to kill its tree, once nobody wants it any more */
#define PRLIMIT        "/usr/bin/prlimit"
#define ARGV_MAX       (ISOLATION_ARGS_MAX + 40)

/* One command of a build. */
struct run {
    struct build *build;
    build_log_fn *log;
    void *arg;
    struct process *process;
    struct cgroup group;
    int lifeline, output; /* our ends; -1: none */
    size_t *log_bytes;    /* of all commands of this build */
};

static void close_fd(int *fd)
{
    if (*fd >= 0) (void)close(*fd);
    *fd = -1;
}

/* ---- start ---- */

/* Nothing of our own environment: it may hold secrets. */
static const char *const *build_env(struct build *b)
{
    const char **env = arena_array(b->arena, 5, sizeof(*env));
    env[0] = "PATH=" FUNCTION_PATH;
    env[1] = "LANG=C.UTF-8";
    env[2] = arena_printf(b->arena, "HOME=%s", b->folder).ptr;
    env[3] = arena_printf(b->arena, "TMPDIR=%s", b->folder).ptr;
    return env;
}

/* Of each process; how many there may be counts only for a user who has none but these. */
static size_t add_limits(const struct build *b, const char **argv)
{
    argv[0] = PRLIMIT;
    argv[1] = arena_printf(b->arena, "--fsize=%d", BUILD_FILE_MAX).ptr;
    if (geteuid() != 0) return 2;
    argv[2] = arena_printf(b->arena, "--nproc=%d", BUILD_PROCESSES_MAX).ptr;
    return 3;
}

static enum status start(struct run *r, const char *goal, int lifeline, int output, struct error *err)
{
    struct build *b = r->build;
    struct gateway *g = b->builder->gateway;
    const char *argv[ARGV_MAX] = {g->cfg.shim_path, "3", "-m",
                                  arena_printf(b->arena, "%lld", (long long)BUILD_MEMORY_BYTES).ptr};
    size_t n = 4;
    n += cgroup_args(&r->group, &argv[n]);
    enum status s =
        isolation_args_of_build(g, b->folder, geteuid() == 0 ? BUILD_UID : 0, b->arena, &argv[n], err);
    if (s != STATUS_OK) return s;
    while (argv[n] != NULL)
        n++;
    argv[n++] = "--";
    n += add_limits(b, &argv[n]);
    argv[n++] = "/usr/bin/make";
    argv[n++] = "-j2";
    argv[n++] = "-C";
    argv[n++] = b->context;
    argv[n++] = arena_printf(b->arena, "OUT=%s/out", b->folder).ptr;
    argv[n++] = goal;
    struct process_spec spec = {.argv = argv,
                                .env = build_env(b),
                                .cwd = b->context,
                                .stdin_fd = -1,
                                .stdout_fd = output,
                                .stderr_fd = output,
                                .extra_fds = &lifeline,
                                .n_extra_fds = 1,
                                .new_session = true};
    return process_start(g->loop, &spec, &r->process, err);
}

static enum status start_all(struct run *r, const char *goal, struct error *err)
{
    int lifeline[2] = {-1, -1}, output[2] = {-1, -1};
    struct build *b = r->build;
    struct cgroup_limits limits = {.memory_bytes = BUILD_MEMORY_BYTES};
    const char *name =
        arena_printf(b->arena, "%d-build-%u", (int)getpid(), ++b->builder->gateway->serial).ptr;
    enum status s = cgroup_make(&b->builder->gateway->groups, name, &limits, &r->group, err);
    if (s != STATUS_OK) return s;
    if (pipe2(lifeline, O_CLOEXEC) != 0 || pipe2(output, O_CLOEXEC) != 0 ||
        fcntl(output[0], F_SETFL, O_NONBLOCK) != 0)
        s = error_set(err, status_from_errno(errno), "pipe: %s", strerror(errno));
    if (s == STATUS_OK) s = start(r, goal, lifeline[0], output[1], err);
    close_fd(&lifeline[0]);
    close_fd(&output[1]); /* ours would keep the pipe open for ever */
    r->lifeline = lifeline[1];
    r->output = output[0];
    return s;
}

/* ---- what it says ---- */

/* The whole lines of `text`, or all of it where it is full or ends; *ret_used bytes of it. */
static enum status pass_on(struct run *r, struct strview text, bool is_all, size_t *ret_used)
{
    struct strview lines[LINES_MAX], rest = text, part;
    size_t n = 0, used = 0;
    while (n < LINES_MAX && sv_find(rest, '\n') < rest.len) {
        (void)sv_next(&rest, '\n', &part);
        used += part.len + 1;
        lines[n++] = part;
    }
    if (n == 0 && is_all && text.len > 0) {
        lines[n++] = text;
        used = text.len;
    }
    *ret_used = used;
    bool was_enough = *r->log_bytes > BUILD_LOG_MAX;
    *r->log_bytes += used;
    if (was_enough || n == 0) return STATUS_OK;
    if (*r->log_bytes > BUILD_LOG_MAX) lines[n - 1] = SV("… it says more than is passed on");
    return r->log(r->arg, lines, n);
}

/* Until there is something to read. Whoever is told nothing for long is asked whether he is still there. */
static enum status await_output(struct run *r, int64_t deadline_ns)
{
    int events;
    int64_t ask_ns = clock_monotonic_ns() + ASK_NS;
    enum status s = fd_wait(r->output, POLLIN, ask_ns < deadline_ns ? ask_ns : deadline_ns, &events);
    if (s != STATUS_DEADLINE_EXCEEDED || clock_monotonic_ns() >= deadline_ns) return s;
    return r->log(r->arg, NULL, 0);
}

/* Until nobody below holds the pipe any more. */
static enum status hear(struct run *r, int64_t deadline_ns)
{
    char text[LINE_MAX_BYTES];
    size_t len = 0, used;
    enum status s = STATUS_OK;
    while (s == STATUS_OK) {
        ssize_t got = read(r->output, text + len, sizeof(text) - len);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && errno == EAGAIN) {
            s = await_output(r, deadline_ns);
            continue;
        }
        if (got > 0) len += (size_t)got;
        bool is_end = got <= 0;
        do {
            s = pass_on(r, sv_n(text, len), is_end || len == sizeof(text), &used);
            len -= used;
            memmove(text, text + used, len);
        } while (s == STATUS_OK && used > 0);
        if (is_end) break;
        if (s == STATUS_OK && clock_monotonic_ns() > deadline_ns) s = STATUS_DEADLINE_EXCEEDED;
        if (s == STATUS_OK) s = fiber_yield(); /* whoever talks without end gets its turn, and no more */
    }
    return s;
}

/* ---- the whole of it ---- */

static void end(struct run *r)
{
    int ignored;
    close_fd(&r->lifeline); /* everything below is killed */
    fiber_shield_begin();
    if (r->process != NULL &&
        process_wait(r->process, clock_monotonic_ns() + END_WAIT_NS, &ignored) != STATUS_OK)
        (void)!process_kill(r->process, SIGKILL);
    fiber_shield_end();
    if (r->process != NULL) process_free(r->process);
    close_fd(&r->output);
    cgroup_remove(&r->group);
}

static enum status run_goal(struct build *b, const char *goal, int64_t deadline_ns, build_log_fn *log,
                            void *arg, size_t *log_bytes, struct error *err)
{
    struct run r = {.build = b, .log = log, .arg = arg, .lifeline = -1, .output = -1, .log_bytes = log_bytes};
    int code = 0;
    enum status s = start_all(&r, goal, err);
    if (s == STATUS_OK) {
        s = hear(&r, deadline_ns);
        if (s == STATUS_OK) s = process_wait(r.process, deadline_ns, &code);
        if (s == STATUS_DEADLINE_EXCEEDED)
            s = error_set(err, s, "make %s took longer than %lld s and was ended", goal,
                          (long long)(BUILD_TIMEOUT_NS / NS_PER_S));
        else if (s != STATUS_OK)
            s = error_set(err, s, "make %s was ended", goal);
        else if (code != 0)
            s = error_set(err, STATUS_INVALID_ARGUMENT, "make %s ended with exit %d", goal, code);
    }
    end(&r);
    return s;
}

enum status build_make(struct build *b, build_log_fn *log, void *arg, struct error *err)
{
    size_t log_bytes = 0;
    int64_t deadline_ns = clock_monotonic_ns() + BUILD_TIMEOUT_NS;
    enum status s = run_goal(b, "all", deadline_ns, log, arg, &log_bytes, err);
    if (s == STATUS_OK && b->has_test) s = run_goal(b, "test", deadline_ns, log, arg, &log_bytes, err);
    return s;
}
