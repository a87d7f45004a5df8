/* One process of a function: socket, shim, pool, output, end. */
#include "gateway/gateway_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/memory.h"
#include "log/log.h"

/* Where the function finds what it inherits: HOST_ACT_FD (3), then: */
#define LISTEN_FD   4
#define LIFELINE_FD 5

#define OUTPUT_LINE_MAX 4096 /* longer lines of a function are cut into pieces */
#define BACKLOG         1024

/* Descriptors of a start that are not yet a replica's; -1: none. */
struct start_fds {
    int listen, act_ours, act_theirs, lifeline_read, lifeline_write, output_read, output_write;
};

static void close_fd(int *fd)
{
    if (*fd >= 0) (void)close(*fd);
    *fd = -1;
}

static void start_fds_release(struct start_fds *f)
{
    int *all[] = {&f->listen, &f->act_ours, &f->act_theirs, &f->lifeline_read, &f->lifeline_write, &f->output_read, &f->output_write};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        close_fd(all[i]);
}

static enum status make_socket(const char *path, int *ret_fd, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path)) return error_set(err, STATUS_INVALID_ARGUMENT, "socket path %s is too long", path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    (void)unlink(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return error_set(err, status_from_errno(errno), "socket: %s", strerror(errno));
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, BACKLOG) != 0) {
        enum status s = error_set(err, status_from_errno(errno), "listen on %s: %s", path, strerror(errno));
        (void)close(fd);
        return s;
    }
    *ret_fd = fd;
    return STATUS_OK;
}

/* The socket pair to the broker for functions that act; the others find nothing behind descriptor 3. */
static enum status make_act_socket(const struct deployment *d, struct start_fds *f, struct error *err)
{
    int pair[2];
    if (!d->info.acts) {
        f->act_theirs = open("/dev/null", O_RDWR | O_CLOEXEC);
        return f->act_theirs >= 0 ? STATUS_OK : error_set(err, status_from_errno(errno), "open /dev/null: %s", strerror(errno));
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return error_set(err, status_from_errno(errno), "socketpair: %s", strerror(errno));
    f->act_ours = pair[0];
    f->act_theirs = pair[1];
    return STATUS_OK;
}

static enum status make_pipes(struct start_fds *f, struct error *err)
{
    int lifeline[2], output[2];
    if (pipe2(lifeline, O_CLOEXEC) != 0) return error_set(err, status_from_errno(errno), "pipe: %s", strerror(errno));
    f->lifeline_read = lifeline[0];
    f->lifeline_write = lifeline[1];
    if (pipe2(output, O_CLOEXEC) != 0) return error_set(err, status_from_errno(errno), "pipe: %s", strerror(errno));
    f->output_read = output[0];
    f->output_write = output[1];
    (void)fcntl(f->output_read, F_SETFL, O_NONBLOCK);
    return STATUS_OK;
}

/* ---- environment and secrets ---- */

/* Made anew at each start, so it need not survive power loss: no fsync on the way to a first answer. */
static enum status write_secret(struct arena *a, const char *folder, const char *name, struct strview content, struct error *err)
{
    const char *path = arena_printf(a, "%s/%s", folder, name).ptr;
    (void)unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0400);
    if (fd < 0) return error_set(err, status_from_errno(errno), "make %s: %s", path, strerror(errno));
    ssize_t n = write(fd, content.ptr, content.len);
    (void)close(fd);
    return n == (ssize_t)content.len ? STATUS_OK : error_set(err, STATUS_RESOURCE_EXHAUSTED, "write %s: %s", path, strerror(errno));
}

static enum status write_invocation_key(const struct deployment *d, struct arena *a, const char *folder, struct error *err)
{
    char key[SHA256_HEX + 1];
    invocation_derive_key(d->gateway->secrets.invocation_key, d->spec.name, key);
    enum status s = write_secret(a, folder, INVOCATION_KEY_SECRET, sv(key), err);
    mem_wipe(key, sizeof(key));
    return s;
}

static enum status copy_secret(const struct deployment *d, struct arena *a, const char *folder, const char *name, struct error *err)
{
    struct strview content;
    const char *from = arena_printf(a, "%s/secrets/functions/%s", d->gateway->cfg.dir, name).ptr;
    enum status s = file_read(a, from, 1024 * 1024, &content, err);
    if (s != STATUS_OK) return error_prefix(err, s, "secret '%s' of function '%.*s'", name, SV_ARG(d->spec.name));
    s = write_secret(a, folder, name, content, err);
    mem_wipe((char *)(uintptr_t)content.ptr, content.len);
    return s;
}

/* DIR/run/secrets/NAME: what this function may read, and nothing else. */
static enum status prepare_secrets(const struct deployment *d, struct arena *a, const char **ret_folder, struct error *err)
{
    const char *folder = arena_printf(a, "%s/run/secrets/%.*s", d->gateway->cfg.dir, SV_ARG(d->spec.name)).ptr;
    enum status s = dir_make(folder, 0700, err);
    if (s == STATUS_OK && d->info.acts) s = write_invocation_key(d, a, folder, err);
    for (size_t i = 0; i < d->spec.n_secrets && s == STATUS_OK; i++)
        s = copy_secret(d, a, folder, arena_cstr(a, d->spec.secrets[i]), err);
    *ret_folder = folder;
    return s;
}

/* Nothing of our own environment goes on: it may hold secrets. */
static const char *const *make_env(const struct deployment *d, struct arena *a, const char *secrets_folder)
{
    const char **env = arena_array(a, FUNCTION_ENV_MAX + 12, sizeof(*env));
    size_t n = 0;
    env[n++] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    env[n++] = "LANG=C.UTF-8";
    env[n++] = "TMPDIR=/tmp";
    env[n++] = "MALLOC_ARENA_MAX=1";
    env[n++] = arena_printf(a, "BALM_LISTEN_FD=%d", LISTEN_FD).ptr;
    env[n++] = "BALM_METRICS=off";
    env[n++] = "OPENFAAS_NAMESPACE=openfaas-fn";
    env[n++] = arena_printf(a, "OPENFAAS_NAME=%.*s", SV_ARG(d->spec.name)).ptr;
    env[n++] = arena_printf(a, "secret_mount_path=%s", secrets_folder).ptr;
    if (d->info.timeout_ns > 0) {
        char text[DURATION_TEXT_MAX];
        env[n++] = arena_printf(a, "exec_timeout=%s", duration_format(d->info.timeout_ns, text)).ptr;
    }
    const char *sanitizer = getenv("ASAN_OPTIONS");
    if (sanitizer != NULL) env[n++] = arena_printf(a, "ASAN_OPTIONS=%s", sanitizer).ptr;
    const char *key;
    json_t *value;
    size_t own = 0;
    json_object_foreach(d->spec.env, key, value)
        if (own++ < FUNCTION_ENV_MAX) env[n++] = arena_printf(a, "%s=%s", key, json_string_value(value)).ptr;
    return env;
}

/* ---- life ---- */

static enum status spawn_process(struct replica *r, struct start_fds *f, const char *secrets_folder, struct arena *a, struct error *err)
{
    struct deployment *d = r->deployment;
    const char *argv[] = {d->gateway->cfg.shim_path, arena_printf(a, "%d", LIFELINE_FD).ptr, "-m",
                          arena_printf(a, "%lld", (long long)d->spec.memory_bytes).ptr, "--", d->executable, NULL};
    const int extra[] = {f->act_theirs, f->listen, f->lifeline_read};
    struct process_spec spec = {
        .argv = argv,
        .env = make_env(d, a, secrets_folder),
        .cwd = "/",
        .stdin_fd = -1,
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

/* Reads what the function says until nobody below holds the pipe any more. */
static void output_fiber(void *arg)
{
    struct replica *r = arg;
    char line[OUTPUT_LINE_MAX];
    size_t len = 0;
    for (;;) {
        ssize_t n = read(r->output, line + len, sizeof(line) - len);
        if (n > 0) {
            len += (size_t)n;
            take_lines(r, line, &len);
            continue;
        }
        if (n == 0) break;
        int events;
        if (errno == EINTR) continue;
        if (errno != EAGAIN || fd_wait(r->output, POLLIN, 0, &events) != STATUS_OK) break;
    }
    if (len > 0) function_log_add(r->deployment->log, r->number, clock_unix_ns(), sv_n(line, len));
}

static void log_end(const struct replica *r, int code, bool was_wanted)
{
    const struct deployment *d = r->deployment;
    struct function_log_line last = {.text = sv(NULL)};
    (void)function_log_get(d->log, function_log_last(d->log), &last);
    if (was_wanted)
        log_warn("gateway", "function ended by itself", LOG_SV("function", d->spec.name), LOG_INT("replica", r->number), LOG_INT("exit", code),
                 LOG_SV("last_words", last.text));
    else log_debug("gateway", "function stopped", LOG_SV("function", d->spec.name), LOG_INT("replica", r->number), LOG_INT("exit", code));
}

static void leave_routing(struct replica *r)
{
    if (!r->is_routed) return;
    r->is_routed = false;
    r->deployment->n_routed--;
}

/* A process that died before it served anything is started again ever later: 1, 2, 4 … 60 s. */
static void count_failure(struct deployment *d)
{
    unsigned shift = d->failures < 6 ? d->failures : 6;
    int64_t wait_ns = (INT64_C(1) << shift) * NS_PER_S;
    if (wait_ns > 60 * NS_PER_S) wait_ns = 60 * NS_PER_S;
    d->failures++;
    d->not_before_ns = clock_monotonic_ns() + wait_ns;
}

/* The replica's own life, from start to free. Everything that must happen at its end is here, once. */
static void replica_fiber(void *arg)
{
    struct replica *r = arg;
    struct deployment *d = r->deployment;
    struct fiber_scope output;
    struct error err;
    int code = 0;
    fiber_scope_init(&output);
    (void)!fiber_scope_spawn(&output, output_fiber, r, &err);
    fiber_shield_begin();
    (void)!process_wait(r->process, 0, &code);
    r->has_exited = true;
    bool was_wanted = r->is_routed;
    leave_routing(r);
    if (was_wanted) count_failure(d);
    log_end(r, code, was_wanted);
    close_fd(&r->lifeline);
    fiber_scope_cancel(&output);
    fiber_scope_join(&output);
    fiber_event_set(&r->exited);
    while (r->inflight > 0)
        (void)!fiber_event_wait(&r->idle, 0);
    if (r->is_retiring) (void)!fiber_event_wait(&r->retired, 0);
    fiber_shield_end();
    list_remove(&r->node);
    upstream_free(r->upstream);
    process_free(r->process);
    close_fd(&r->output);
    free(r);
    d->users--;
}

static void retire_fiber(void *arg)
{
    struct replica *r = arg;
    fiber_shield_begin();
    if (r->inflight > 0 && !r->has_exited) (void)!fiber_event_wait(&r->idle, clock_monotonic_ns() + FUNCTION_TIMEOUT_NS);
    if (!r->has_exited) (void)!process_kill(r->process, SIGTERM);
    if (fiber_event_wait(&r->exited, clock_monotonic_ns() + STOP_GRACE_NS) != STATUS_OK) close_fd(&r->lifeline);
    fiber_shield_end();
    fiber_event_set(&r->retired);
}

enum status replica_start(struct deployment *d, struct error *err)
{
    struct gateway *g = d->gateway;
    struct arena a = {0};
    struct start_fds f = {-1, -1, -1, -1, -1, -1, -1};
    struct replica *r = mem_zalloc(1, sizeof(*r));
    *r = (struct replica){.deployment = d, .number = d->next_number++, .lifeline = -1, .output = -1};
    fiber_event_init(&r->idle);
    fiber_event_init(&r->exited);
    fiber_event_init(&r->retired);
    fiber_event_set(&r->idle);
    const char *socket_path = arena_printf(&a, "/proc/self/fd/%d/%.*s-%u.sock", g->run_dir_fd, SV_ARG(d->spec.name), r->number).ptr;
    const char *secrets_folder = NULL;
    enum status s = make_socket(socket_path, &f.listen, err);
    if (s == STATUS_OK) s = make_act_socket(d, &f, err);
    if (s == STATUS_OK) s = make_pipes(&f, err);
    if (s == STATUS_OK) s = prepare_secrets(d, &a, &secrets_folder, err);
    if (s == STATUS_OK) s = upstream_new(g->loop, socket_path, NULL, 0, 0, &r->upstream, err);
    if (s == STATUS_OK) s = spawn_process(r, &f, secrets_folder, &a, err);
    if (s != STATUS_OK) goto out;

    r->lifeline = f.lifeline_write;
    r->output = f.output_read;
    f.lifeline_write = f.output_read = -1;
    r->is_routed = true;
    d->n_routed++;
    d->users++;
    list_push_back(&d->replicas, &r->node);
    if (f.act_ours >= 0) {
        int ours = f.act_ours;
        f.act_ours = -1;
        s = broker_serve(g->broker, &g->scope, ours, d->spec.name, err);
    }
    if (s == STATUS_OK) s = fiber_scope_spawn(&g->scope, replica_fiber, r, err);
    if (s != STATUS_OK) { /* no fiber left to watch it: end it here */
        list_remove(&r->node);
        d->n_routed--;
        d->users--;
        close_fd(&r->lifeline);
        close_fd(&r->output);
        process_free(r->process);
        r->process = NULL;
        goto out;
    }
    log_debug("gateway", "function started", LOG_SV("function", d->spec.name), LOG_INT("replica", r->number), LOG_INT("pid", process_pid(r->process)));
    r = NULL;
out:
    start_fds_release(&f);
    if (r != NULL) {
        upstream_free(r->upstream);
        free(r);
    }
    arena_release(&a);
    if (s != STATUS_OK) error_prefix(err, s, "start function '%.*s'", SV_ARG(d->spec.name));
    return s;
}

void replica_retire(struct replica *r)
{
    struct error err;
    if (!r->is_routed) return;
    leave_routing(r);
    r->is_retiring = true;
    if (fiber_scope_spawn(&r->deployment->gateway->scope, retire_fiber, r, &err) == STATUS_OK) return;
    close_fd(&r->lifeline); /* no fiber to be polite with */
    fiber_event_set(&r->retired);
}
