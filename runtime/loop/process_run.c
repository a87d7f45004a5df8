#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "loop/process_impl.h"

#define TERM_GRACE_NS (2 * NS_PER_S)
#define KILL_GRACE_NS                                                                                        \
    (5 * NS_PER_S) /* a child that survives SIGKILL so long is stuck in the kernel: given up */
#define DRAIN_GRACE_NS                                                                                       \
    (250 * NS_PER_MS) /* for output after the exit, which a background child may hold open for ever */
#define READ_BYTES  (16 * 1024)
#define KILL_ROUNDS 3 /* passes over /proc, for children forked during one */

/* ---- the session ---- */

struct session_signal {
    pid_t session;
    int signal;
};

/* Every process of the session, whatever group it moved to. On a worker thread: /proc may be long. */
static void session_signal_once(const struct session_signal *k)
{
    DIR *proc = opendir("/proc");
    if (proc == NULL) return; /* the group was signalled anyway */
    for (struct dirent *d; (d = readdir(proc)) != NULL;) {
        uint64_t pid;
        if (sv_parse_u64(sv(d->d_name), &pid) != STATUS_OK || pid > INT32_MAX) continue;
        if (getsid((pid_t)pid) == k->session) (void)kill((pid_t)pid, k->signal);
    }
    (void)closedir(proc);
}

static void session_signal_work(void *arg)
{
    const struct session_signal *k = arg;
    int rounds = k->signal == SIGKILL ? KILL_ROUNDS : 1;
    (void)kill(-k->session, k->signal);
    for (int i = 0; i < rounds; i++)
        session_signal_once(k);
}

void session_kill(pid_t session, int signal)
{
    struct session_signal k = {.session = session, .signal = signal};
    work_run(session_signal_work, &k);
}

void process_end_session(struct process *p)
{
    int ignored;
    fiber_shield_begin();
    session_kill(p->pid, SIGTERM);
    (void)!process_wait(p, clock_monotonic_ns() + TERM_GRACE_NS, &ignored);
    session_kill(p->pid, SIGKILL);
    (void)!process_wait(p, clock_monotonic_ns() + KILL_GRACE_NS, &ignored);
    fiber_shield_end();
}

/* ---- the three pipes, a fiber each ---- */

struct feeder {
    int fd; /* -1: nothing to feed; closed once all is written */
    struct strview input;
};

#define LINE_MAX_BYTES 4096 /* of what is shown; longer ones go on in pieces */

struct collector {
    int fd; /* -1: nothing comes here */
    struct buf text;
    bool is_truncated;
    bool is_shown; /* lines go on to our stderr */
    struct buf line;
};

static void close_fd(int *fd)
{
    if (*fd >= 0) (void)close(*fd);
    *fd = -1;
}

static void feed(void *arg)
{
    struct feeder *f = arg;
    int events;
    while (f->input.len > 0 && fd_wait(f->fd, POLLOUT, 0, &events) == STATUS_OK) {
        ssize_t n = write(f->fd, f->input.ptr, f->input.len);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (n < 0) break; /* it does not want to read: its exit code says whether that is an error */
        f->input = sv_sub(f->input, (size_t)n, f->input.len);
    }
    close_fd(&f->fd);
}

static void show_line(struct collector *c)
{
    struct strview rest = buf_view(&c->line);
    while (rest.len > 0) {
        ssize_t n = write(STDERR_FILENO, rest.ptr, rest.len);
        if (n < 0 && errno != EINTR) break; /* nobody listens: it is said in vain */
        if (n > 0) rest = sv_sub(rest, (size_t)n, rest.len);
    }
    buf_reset(&c->line);
}

/* Line by line, so that what several processes and we ourselves say does not run into one another. */
static void show(struct collector *c, struct strview bytes)
{
    while (bytes.len > 0) {
        size_t len = sv_find(bytes, '\n'), room = LINE_MAX_BYTES - 1 - c->line.len;
        bool is_whole = len < bytes.len && len <= room;
        if (len > room) len = room;
        buf_append(&c->line, sv_sub(bytes, 0, len));
        bytes = sv_sub(bytes, is_whole ? len + 1 : len, bytes.len);
        if (!is_whole && c->line.len < LINE_MAX_BYTES - 1) return;
        buf_append_char(&c->line, '\n');
        show_line(c);
    }
}

static void collect(void *arg)
{
    struct collector *c = arg;
    char bytes[READ_BYTES];
    int events;
    while (fd_wait(c->fd, POLLIN, 0, &events) == STATUS_OK) {
        ssize_t n = read(c->fd, bytes, sizeof(bytes));
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (n <= 0) break;
        if (c->is_shown) show(c, sv_n(bytes, (size_t)n));
        size_t room = c->text.max_bytes - c->text.len;
        size_t kept = (size_t)n < room ? (size_t)n : room;
        buf_append(&c->text, sv_n(bytes, kept));
        if (kept < (size_t)n) c->is_truncated = true; /* and reads on, or the child would block */
    }
    if (c->line.len == 0) return;
    buf_append_char(&c->line, '\n');
    show_line(c);
}

struct run {
    struct feeder in;
    struct collector out, err;
    int child_fds[3];
    struct process *process;
    struct fiber_scope scope;
};

/* Our end does not block, the child's does: two ends of a pipe have flags of their own. */
static int pipe_open(int *ret_ours, int *ret_childs, bool is_input)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return errno;
    *ret_ours = ends[is_input ? 1 : 0];
    *ret_childs = ends[is_input ? 0 : 1];
    return fcntl(*ret_ours, F_SETFL, O_NONBLOCK) == 0 ? 0 : errno;
}

static enum status run_open(struct run *r, const struct process_spec *spec, struct error *err)
{
    int rc = 0;
    if (r->in.input.len > 0) rc = pipe_open(&r->in.fd, &r->child_fds[0], true);
    if (rc == 0) rc = pipe_open(&r->out.fd, &r->child_fds[1], false);
    if (rc == 0 && spec->run_stderr == PROCESS_STDERR_JOINED)
        r->child_fds[2] = fcntl(r->child_fds[1], F_DUPFD_CLOEXEC, 3);
    else if (rc == 0)
        rc = pipe_open(&r->err.fd, &r->child_fds[2], false);
    if (rc == 0 && r->child_fds[2] < 0) rc = errno;
    if (rc != 0)
        return error_set(err, status_from_errno(rc), "run '%s': pipe: %s", spec->argv[0], strerror(rc));

    struct process_spec own = *spec;
    own.stdin_fd = r->child_fds[0];
    own.stdout_fd = r->child_fds[1];
    own.stderr_fd = r->child_fds[2];
    own.new_session = true;
    enum status s = process_start(loop_current(), &own, &r->process, err);
    for (int i = 0; i < 3; i++)
        close_fd(&r->child_fds[i]); /* ours would keep the outputs open for ever */
    return s;
}

static enum status run_wait(struct run *r, int64_t deadline_ns, int *ret_exit, struct error *err)
{
    enum status s = STATUS_OK;
    if (r->in.fd >= 0) s = fiber_scope_spawn(&r->scope, feed, &r->in, err);
    if (s == STATUS_OK) s = fiber_scope_spawn(&r->scope, collect, &r->out, err);
    if (s == STATUS_OK && r->err.fd >= 0) s = fiber_scope_spawn(&r->scope, collect, &r->err, err);
    if (s == STATUS_OK) {
        s = process_wait(r->process, deadline_ns, ret_exit);
        if (s != STATUS_OK)
            (void)error_set(err, s, "%s",
                            s == STATUS_CANCELLED ? "cancelled, its session was killed"
                                                  : "still running at the deadline, its session was killed");
    }
    if (s != STATUS_OK)
        process_end_session(r->process);
    else
        (void)!fiber_event_wait(&r->scope.all_done, clock_monotonic_ns() + DRAIN_GRACE_NS);
    fiber_scope_cancel(&r->scope);
    fiber_scope_join(&r->scope);
    return s;
}

static void run_close(struct run *r)
{
    for (int i = 0; i < 3; i++)
        close_fd(&r->child_fds[i]);
    close_fd(&r->in.fd);
    close_fd(&r->out.fd);
    close_fd(&r->err.fd);
    process_free(r->process);
    buf_release(&r->out.text);
    buf_release(&r->err.text);
    buf_release(&r->err.line);
}

enum status process_run(const struct process_spec *spec, struct strview input, size_t max_output_bytes,
                        int64_t deadline_ns, struct arena *a, struct process_result *ret_result,
                        struct error *err)
{
    if (spec->argv == NULL || spec->argv[0] == NULL)
        return error_set(err, STATUS_INVALID_ARGUMENT, "run a process: no program named");
    enum status s = fiber_check(fiber_current());
    if (s != STATUS_OK)
        return error_set(err, s, "run '%s': not started, the caller is out of time or cancelled",
                         spec->argv[0]);
    struct run r = {
        .in = {.fd = -1, .input = input}, .out = {.fd = -1}, .err = {.fd = -1}, .child_fds = {-1, -1, -1}};
    size_t max_bytes = max_output_bytes < PROCESS_OUTPUT_MAX ? max_output_bytes : PROCESS_OUTPUT_MAX;
    int exit_code = 0;
    buf_init(&r.out.text, max_bytes);
    buf_init(&r.err.text, max_bytes);
    buf_init(&r.err.line, LINE_MAX_BYTES);
    r.err.is_shown = spec->run_stderr == PROCESS_STDERR_SHOWN;
    fiber_scope_init(&r.scope);

    s = run_open(&r, spec, err);
    if (s != STATUS_OK) goto out;
    s = run_wait(&r, deadline_ns, &exit_code, err);
    if (s != STATUS_OK) {
        s = error_prefix(err, s, "run '%s'", spec->argv[0]);
        goto out;
    }
    *ret_result = (struct process_result){
        .exit_code = exit_code,
        .stdout_text = arena_copy(a, buf_view(&r.out.text)),
        .stderr_text = arena_copy(a, buf_view(&r.err.text)),
        .is_truncated = r.out.is_truncated || (r.err.is_truncated && !r.err.is_shown),
    };
out:
    run_close(&r);
    return s;
}
