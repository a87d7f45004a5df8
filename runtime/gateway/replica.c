/* One process of a function: socket, shim, pool, output, end. */
#include "gateway/gateway_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "log/log.h"

#define OUTPUT_LINE_MAX 4096 /* longer lines of a function are cut into pieces */
#define OUTPUT_LAST_MAX                                                                                      \
    (64 * 1024) /* a pipe's capacity: what may be left in it when the last writer has gone */
#define SOCKET_NAME_MAX 96
#define SOCKET_PATH_MAX (SOCKET_NAME_MAX + 32)
#define BACKLOG         1024

/* Descriptors of a start that are not yet a replica's; -1: none. */
struct start_fds {
    int listen, act_ours, act_theirs, lifeline_read, lifeline_write, output_read, output_write, manifest;
};

static void close_fd(int *fd)
{
    if (*fd >= 0) (void)close(*fd);
    *fd = -1;
}

static void start_fds_release(struct start_fds *f)
{
    int *all[] = {&f->listen,         &f->act_ours,    &f->act_theirs,   &f->lifeline_read,
                  &f->lifeline_write, &f->output_read, &f->output_write, &f->manifest};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        close_fd(all[i]);
}

static void socket_name(const struct replica *r, char ret_name[SOCKET_NAME_MAX])
{
    (void)snprintf(ret_name, SOCKET_NAME_MAX, "%.*s-%u.sock", SV_ARG(r->deployment->spec.name), r->number);
}

static void socket_path(const struct replica *r, char ret_path[SOCKET_PATH_MAX])
{
    char name[SOCKET_NAME_MAX];
    socket_name(r, name);
    (void)snprintf(ret_path, SOCKET_PATH_MAX, "/proc/self/fd/%d/%s", r->deployment->gateway->run_dir_fd,
                   name);
}

static enum status make_socket(const struct replica *r, char ret_path[SOCKET_PATH_MAX], int *ret_fd,
                               struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socket_path(r, ret_path);
    if (strlen(ret_path) >= sizeof(address.sun_path))
        return error_set(err, STATUS_INVALID_ARGUMENT, "socket path %s is too long", ret_path);
    memcpy(address.sun_path, ret_path, strlen(ret_path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return error_set(err, status_from_errno(errno), "socket: %s", strerror(errno));
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, BACKLOG) != 0) {
        enum status s =
            error_set(err, status_from_errno(errno), "listen on %s: %s", ret_path, strerror(errno));
        (void)close(fd);
        return s;
    }
    *ret_fd = fd;
    return STATUS_OK;
}

static void remove_socket(const struct replica *r)
{
    char name[SOCKET_NAME_MAX];
    socket_name(r, name);
    (void)unlinkat(r->deployment->gateway->run_dir_fd, name, 0);
}

/* The socket pair to the broker for functions that act; the others find nothing behind descriptor 3. */
static enum status make_act_socket(const struct deployment *d, struct start_fds *f, struct error *err)
{
    int pair[2];
    if (!d->info.acts) {
        f->act_theirs = open("/dev/null", O_RDWR | O_CLOEXEC);
        return f->act_theirs >= 0
                   ? STATUS_OK
                   : error_set(err, status_from_errno(errno), "open /dev/null: %s", strerror(errno));
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return error_set(err, status_from_errno(errno), "socketpair: %s", strerror(errno));
    f->act_ours = pair[0];
    f->act_theirs = pair[1];
    return STATUS_OK;
}

/* The pipe becomes its own: a script that writes to /dev/stderr opens it. */
static enum status make_pipes(const struct deployment *d, struct start_fds *f, struct error *err)
{
    int lifeline[2], output[2];
    if (pipe2(lifeline, O_CLOEXEC) != 0)
        return error_set(err, status_from_errno(errno), "pipe: %s", strerror(errno));
    f->lifeline_read = lifeline[0];
    f->lifeline_write = lifeline[1];
    if (pipe2(output, O_CLOEXEC) != 0)
        return error_set(err, status_from_errno(errno), "pipe: %s", strerror(errno));
    f->output_read = output[0];
    f->output_write = output[1];
    (void)fcntl(f->output_read, F_SETFL, O_NONBLOCK);
    if (d->uid != 0 && fchown(f->output_write, d->uid, d->uid) != 0)
        return error_set(err, status_from_errno(errno), "hand over the pipe: %s", strerror(errno));
    return STATUS_OK;
}

static enum status make_group(struct replica *r, struct arena *a, struct error *err)
{
    const struct deployment_spec *spec = &r->deployment->spec;
    struct cgroup_limits limits = {.memory_bytes = spec->memory_bytes, .cpu_millis = spec->cpu_millis};
    const char *name = arena_printf(a, "%d-%.*s-%u", (int)getpid(), SV_ARG(spec->name), r->number).ptr;
    return cgroup_make(&r->deployment->gateway->groups, name, &limits, &r->group, err);
}

static enum status make_temp(struct replica *r, struct arena *a, struct error *err)
{
    const struct deployment *d = r->deployment;
    struct strview path =
        arena_printf(a, "%s/%.*s-%u", d->gateway->isolation.temp, SV_ARG(d->spec.name), r->number);
    enum status s = isolation_make_temp(path.ptr, d->uid, err);
    if (s == STATUS_OK) r->temp = mem_copy_text(path.ptr);
    return s;
}

static void remove_temp(void *arg)
{
    struct replica *r = arg;
    if (r->temp != NULL) isolation_remove_temp(r->temp);
    free(r->temp);
    r->temp = NULL;
}

static enum status spawn_process(struct replica *r, const struct start_fds *f, struct arena *a,
                                 struct error *err)
{
    struct deployment *d = r->deployment;
    const char *argv[5 + 2 * CGROUP_CONTROLLERS + ISOLATION_ARGS_MAX + REPLICA_COMMAND_MAX] = {
        d->gateway->cfg.shim_path, arena_printf(a, "%d", REPLICA_LIFELINE_FD).ptr, "-m",
        arena_printf(a, "%lld", (long long)d->spec.memory_bytes).ptr};
    size_t n = 4;
    n += cgroup_args(&r->group, &argv[n]);
    r->roots_print = isolation_roots_print(d);
    enum status s = isolation_args(d, r->temp, a, &argv[n], err);
    if (s != STATUS_OK) return s;
    while (argv[n] != NULL)
        n++;
    argv[n++] = "--";
    replica_command(d, &argv[n]);
    const int extra[] = {f->act_theirs, f->listen, f->lifeline_read};
    struct process_spec spec = {
        .argv = argv,
        .env = replica_env(r, a),
        .cwd = "/",
        .stdin_fd = f->manifest,
        .stdout_fd = f->output_write,
        .stderr_fd = f->output_write,
        .extra_fds = extra,
        .n_extra_fds = ARRAY_LEN(extra),
        .new_session = true,
    };
    return process_start(d->gateway->loop, &spec, &r->process, err);
}

static void take_lines(struct replica *r, char *line, size_t *len)
{
    struct strview rest = sv_n(line, *len), part;
    size_t used = 0;
    while (sv_find(rest, '\n') < rest.len) {
        (void)sv_next(&rest, '\n', &part);
        used += part.len + 1;
        if (part.len > 0) function_log_add(r->deployment->log, r->number, clock_unix_ns(), part);
    }
    if (used == 0 && *len == OUTPUT_LINE_MAX) {
        function_log_add(r->deployment->log, r->number, clock_unix_ns(), sv_n(line, *len));
        used = *len;
    }
    *len -= used;
    memmove(line, line + used, *len);
}

/* Reads what the function says until nobody below holds the pipe any more. Whoever talks without end gets its
 * turn, and no more. */
static void output_fiber(void *arg)
{
    struct replica *r = arg;
    char line[OUTPUT_LINE_MAX];
    size_t len = 0, last_bytes = 0;
    bool is_ending = false;
    while (last_bytes < OUTPUT_LAST_MAX) {
        ssize_t n = read(r->output, line + len, sizeof(line) - len);
        int events;
        if (n > 0) {
            len += (size_t)n;
            take_lines(r, line, &len);
            if (is_ending || fiber_yield() != STATUS_OK) {
                is_ending = true;
                last_bytes += (size_t)n;
            }
        } else if (n < 0 && errno == EAGAIN && !is_ending) {
            is_ending = fd_wait(r->output, POLLIN, 0, &events) != STATUS_OK;
        } else if (n == 0 || errno != EINTR) {
            break;
        }
    }
    if (len > 0) function_log_add(r->deployment->log, r->number, clock_unix_ns(), sv_n(line, len));
}

static void log_end(const struct replica *r, bool was_wanted)
{
    const struct deployment *d = r->deployment;
    struct function_log_line last = {.text = sv(NULL)};
    (void)function_log_get(d->log, function_log_last(d->log), &last);
    if (was_wanted)
        log_warn("gateway", "function ended by itself", LOG_SV("function", d->spec.name),
                 LOG_INT("replica", r->number), LOG_INT("exit", r->exit_code),
                 LOG_SV("last_words", last.text));
    else
        log_debug("gateway", "function stopped", LOG_SV("function", d->spec.name),
                  LOG_INT("replica", r->number), LOG_INT("exit", r->exit_code));
}

static void leave_routing(struct replica *r)
{
    if (!r->is_routed) return;
    r->is_routed = false;
    r->deployment->n_routed--;
}

/* The process has ended, so its output does: what is left in the pipe is read, and no more is waited for. */
static void see_off(struct replica *r, struct fiber_scope *output)
{
    bool was_wanted = r->is_routed;
    r->has_exited = true;
    leave_routing(r);
    if (was_wanted) deployment_note_failure(r->deployment);
    close_fd(&r->lifeline);
    fiber_scope_cancel(output);
    fiber_scope_join(output);
    log_end(r, was_wanted);
    fiber_event_set(&r->exited);
}

/* The replica's own life, from start to free. Everything that must happen at its end is here, once. */
static void replica_fiber(void *arg)
{
    struct replica *r = arg;
    struct deployment *d = r->deployment;
    struct fiber_scope output;
    struct error err;
    fiber_scope_init(&output);
    fiber_shield_begin();
    if (fiber_scope_spawn(&output, output_fiber, r, &err) != STATUS_OK)
        log_warn("gateway", "a function's output is not read", LOG_SV("function", d->spec.name),
                 LOG_STR("error", err.message));
    (void)!process_wait(r->process, 0, &r->exit_code);
    see_off(r, &output);
    while (r->inflight > 0)
        (void)!fiber_event_wait(&r->idle, 0);
    if (r->is_retiring) (void)!fiber_event_wait(&r->retired, 0);
    work_run(remove_temp, r); /* it may have left a million files */
    fiber_shield_end();
    remove_socket(r);
    cgroup_remove(&r->group);
    list_remove(&r->node);
    if (list_is_empty(&d->replicas)) replica_remove_secrets(d);
    upstream_free(r->upstream);
    process_free(r->process);
    close_fd(&r->output);
    free(r);
    d->users--;
}

/* Longer than a call can last, so that it is the call's own deadline that ends it. */
static int64_t drain_deadline(const struct deployment *d)
{
    int64_t longest_ns = d->info.timeout_ns > FUNCTION_TIMEOUT_NS ? d->info.timeout_ns : FUNCTION_TIMEOUT_NS;
    return clock_monotonic_ns() + longest_ns + NS_PER_S;
}

/* From SIGTERM to SIGKILL, within the time that stopping may take as a whole. */
static int64_t kill_deadline(const struct gateway *g)
{
    int64_t now_ns = clock_monotonic_ns(), grace_ns = STOP_GRACE_NS;
    if (g->stop_deadline_ns != 0 && g->stop_deadline_ns - now_ns < grace_ns)
        grace_ns = g->stop_deadline_ns - now_ns;
    return now_ns + (grace_ns > STOP_GRACE_MIN_NS ? grace_ns : STOP_GRACE_MIN_NS);
}

static void retire_fiber(void *arg)
{
    struct replica *r = arg;
    struct fiber_event *const idle_or_exited[] = {&r->idle, &r->exited};
    unsigned index;
    fiber_shield_begin();
    (void)!fiber_wait_any(idle_or_exited, 2, drain_deadline(r->deployment), &index);
    if (!r->has_exited) (void)!process_kill(r->process, SIGTERM);
    if (fiber_event_wait(&r->exited, kill_deadline(r->deployment->gateway)) != STATUS_OK) {
        log_warn("gateway", "function did not end after SIGTERM: it is killed",
                 LOG_SV("function", r->deployment->spec.name), LOG_INT("replica", r->number));
        replica_kill(r);
        /* A shim that cannot even do that is stuck in a process that the kernel does not let go. */
        if (fiber_event_wait(&r->exited, clock_monotonic_ns() + KILL_GRACE_NS) != STATUS_OK)
            (void)!process_kill(r->process, SIGKILL);
    }
    fiber_shield_end();
    fiber_event_set(&r->retired);
}

static struct replica *replica_new(struct deployment *d)
{
    struct replica *r = mem_zalloc(1, sizeof(*r));
    *r = (struct replica){.deployment = d, .number = ++d->gateway->serial, .lifeline = -1, .output = -1};
    r->is_in_step = true; /* it is started so */
    r->started_ns = clock_monotonic_ns();
    fiber_event_init(&r->idle);
    fiber_event_init(&r->exited);
    fiber_event_init(&r->retired);
    fiber_event_set(&r->idle);
    return r;
}

/* Everything that can fail before the process runs, then the process. */
static enum status replica_open(struct replica *r, struct start_fds *f, struct error *err)
{
    struct arena a = {0};
    char path[SOCKET_PATH_MAX];
    enum status s = make_socket(r, path, &f->listen, err);
    if (s == STATUS_OK) s = make_act_socket(r->deployment, f, err);
    if (s == STATUS_OK) s = make_pipes(r->deployment, f, err);
    if (s == STATUS_OK) s = replica_manifest(r->deployment, &a, &f->manifest, err);
    if (s == STATUS_OK) s = replica_prepare_secrets(r->deployment, &a, err);
    if (s == STATUS_OK) s = make_temp(r, &a, err);
    if (s == STATUS_OK) s = upstream_new(r->deployment->gateway->loop, path, NULL, 0, 0, &r->upstream, err);
    if (s == STATUS_OK) s = make_group(r, &a, err);
    if (s == STATUS_OK) s = spawn_process(r, f, &a, err);
    arena_release(&a);
    return s;
}

static enum status replica_watch(struct replica *r, struct start_fds *f, struct error *err)
{
    struct gateway *g = r->deployment->gateway;
    enum status s = STATUS_OK;
    if (f->act_ours >= 0) {
        int ours = f->act_ours;
        f->act_ours = -1; /* moved, also by a call that fails */
        s = broker_serve(g->broker, &g->scope, ours, r->deployment->spec.name, err);
    }
    return s == STATUS_OK ? fiber_scope_spawn(&g->scope, replica_fiber, r, err) : s;
}

static void replica_give_up(struct replica *r)
{
    close_fd(&r->lifeline); /* its shim kills what has started */
    close_fd(&r->output);
    remove_socket(r);
    cgroup_remove(&r->group); /* the kernel keeps it until its end; the next platform removes it */
    remove_temp(r);           /* nothing has run with it */
    upstream_free(r->upstream);
    process_free(r->process);
    free(r);
}

static enum status start_once(struct deployment *d, struct error *err)
{
    struct start_fds f = {-1, -1, -1, -1, -1, -1, -1, -1};
    struct replica *r = replica_new(d);
    enum status s = replica_open(r, &f, err);
    r->lifeline = f.lifeline_write;
    r->output = f.output_read;
    f.lifeline_write = f.output_read = -1;
    if (s == STATUS_OK) s = replica_watch(r, &f, err);
    start_fds_release(&f);
    if (s != STATUS_OK) {
        replica_give_up(r);
        return error_prefix(err, s, "start function '%.*s'", SV_ARG(d->spec.name));
    }
    r->is_routed = true;
    d->n_routed++;
    d->users++;
    list_push_back(&d->replicas, &r->node);
    log_debug("gateway", "function started", LOG_SV("function", d->spec.name), LOG_INT("replica", r->number),
              LOG_INT("pid", process_pid(r->process)));
    return STATUS_OK;
}

/* Its socket and secrets take room on a disk that it may be about to empty. */
enum status replica_start(struct deployment *d, struct error *err)
{
    enum status s = start_once(d, err);
    if (s == STATUS_RESOURCE_EXHAUSTED && journal_reserve_give(d->gateway->journal)) s = start_once(d, err);
    return s;
}

enum status replica_connect(const struct replica *r, struct upstream **ret_upstream, struct error *err)
{
    char path[SOCKET_PATH_MAX];
    socket_path(r, path);
    return upstream_new(r->deployment->gateway->loop, path, NULL, 0, 1, ret_upstream, err);
}

bool replica_is_deaf(const struct replica *r)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char path[SOCKET_PATH_MAX];
    socket_path(r, path);
    memcpy(address.sun_path, path, strlen(path) + 1); /* it fitted when it was made */
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return false;
    bool is_deaf = connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0 && errno == ECONNREFUSED;
    (void)close(fd);
    return is_deaf;
}

void replica_kill(struct replica *r)
{
    leave_routing(r);
    close_fd(&r->lifeline);
}

void replica_retire(struct replica *r)
{
    struct error err;
    if (!r->is_routed) return;
    leave_routing(r);
    r->is_retiring = true;
    if (fiber_scope_spawn(&r->deployment->gateway->scope, retire_fiber, r, &err) == STATUS_OK) return;
    replica_kill(r); /* no fiber to be polite with */
    fiber_event_set(&r->retired);
}

/* ---- what an earlier platform left ---- */

static void remove_folder(int at_fd, const char *name)
{
    int fd = openat(at_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (dir == NULL) {
        if (fd >= 0) (void)close(fd);
        return;
    }
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        if (unlinkat(fd, e->d_name, 0) != 0 && errno == EISDIR) remove_folder(fd, e->d_name);
    }
    (void)closedir(dir);
    (void)unlinkat(at_fd, name, AT_REMOVEDIR);
}

void replica_clean_run_dir(struct gateway *g)
{
    remove_folder(g->run_dir_fd, "secrets");
    int fd = openat(g->run_dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (dir == NULL) {
        if (fd >= 0) (void)close(fd);
        return;
    }
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir))
        if (sv_ends_with(sv(e->d_name), SV(".sock"))) (void)unlinkat(fd, e->d_name, 0);
    (void)closedir(dir);
}
