#include "function/function.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/list.h"
#include "client/client.h"
#include "function/function_impl.h"

/* Quiet time after which a drain need not wait for healthcheck_interval's end: after the platform's probe has
 * seen the 503, and where nobody probes (routers still know us for a moment). The gateway of balm unroutes
 * before it sends SIGTERM. */
#define QUIET_PROBED_NS         (1 * NS_PER_S)
#define QUIET_UNPROBED_NS       (3 * NS_PER_S)
#define METRICS_CONNECTIONS_MAX 32

static struct function self; /* one function a process */

/* ---- lock file (openfaas.md §1.5) ---- */

static enum status lock_open(struct function *f, struct error *err)
{
    const char *folder = getenv("TMPDIR");
    if (folder == NULL || folder[0] == '\0') folder = "/tmp";
    int n = snprintf(f->lock_path, sizeof(f->lock_path), "%s/.lock", folder);
    if (n < 0 || (size_t)n >= sizeof(f->lock_path)) {
        f->lock_path[0] = '\0';
        return error_set(err, STATUS_INVALID_ARGUMENT, "TMPDIR: its %zu bytes are too long for a path",
                         strlen(folder));
    }
    enum status s = dir_make(folder, 0777, err);
    if (s == STATUS_OK) f->lock_fd = open(f->lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0660);
    if (s == STATUS_OK && f->lock_fd >= 0) return STATUS_OK;
    if (s == STATUS_OK) s = error_set(err, status_from_errno(errno), "%s: %s", f->lock_path, strerror(errno));
    f->lock_path[0] = '\0';
    return error_prefix(err, s, "lock file (suppress_lock=true goes without)");
}

/* Several functions may run on one machine. Whoever comes second goes without the file: removing it at its
 * own end would turn the first one unhealthy. */
static enum status lock_take(struct function *f, struct error *err)
{
    f->lock_fd = -1;
    if (f->cfg.suppress_lock || f->cfg.listen_fd >= 0) return STATUS_OK;
    enum status s = lock_open(f, err);
    if (s != STATUS_OK || flock(f->lock_fd, LOCK_EX | LOCK_NB) == 0) return s;
    log_warn("function", "lock file belongs to another running function; health goes by our own state alone",
             LOG_STR("path", f->lock_path));
    (void)close(f->lock_fd);
    f->lock_fd = -1;
    f->lock_path[0] = '\0';
    return STATUS_OK;
}

static void lock_drop(struct function *f)
{
    if (f->lock_fd < 0) return;
    (void)unlink(f->lock_path);
    (void)close(f->lock_fd);
    f->lock_fd = -1;
    f->lock_path[0] = '\0';
}

/* ---- servers ---- */

/* All interfaces means both families where the machine has IPv6. */
static enum status listen_anywhere(struct function *f, struct server_cfg *cfg, struct server **ret_server,
                                   struct error *err)
{
    cfg->host = f->cfg.host != NULL ? f->cfg.host : "::";
    enum status s = server_start(f->loop, cfg, ret_server, err);
    if (s == STATUS_OK || f->cfg.host != NULL) return s;
    cfg->host = "0.0.0.0";
    return server_start(f->loop, cfg, ret_server, err);
}

static enum status start_function_server(struct function *f, struct error *err)
{
    struct server_cfg cfg = {
        .port = f->cfg.port,
        .listen_fd = (int)f->cfg.listen_fd,
        .http2 = f->cfg.http2,
        .name = "function",
        .max_body_bytes = (size_t)f->cfg.max_body_bytes,
        .request_timeout_ns = f->cfg.read_timeout_ns,
        .write_timeout_ns = f->cfg.write_timeout_ns,
        .handler = function_serve,
        .arg = f,
    };
    enum status s = cfg.listen_fd >= 0 ? server_start(f->loop, &cfg, &f->server, err)
                                       : listen_anywhere(f, &cfg, &f->server, err);
    return s == STATUS_OK ? s : error_prefix(err, s, "start %s", f->def->name);
}

/* Without metrics a function still does its work. */
static void start_metrics_server(struct function *f)
{
    struct error err;
    struct server_cfg cfg = {
        .port = f->cfg.metrics_port,
        .listen_fd = -1,
        .name = "metrics",
        .max_body_bytes = 1024,
        .max_connections = METRICS_CONNECTIONS_MAX,
        .handler = function_metrics_serve,
        .arg = f,
    };
    if (f->cfg.is_metrics_off) return;
    if (listen_anywhere(f, &cfg, &f->metrics_server, &err) == STATUS_OK) return;
    f->metrics_server = NULL;
    log_warn("function", "no metrics port", LOG_INT("port", f->cfg.metrics_port),
             LOG_STR("error", err.message));
}

/* ---- signals and drain ---- */

static const int caught_signals[] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2};

static void freeze(const struct function *f, bool is_frozen)
{
    invocation_freeze(is_frozen);
    log_info("function", is_frozen ? "acting stopped" : "acting allowed", LOG_STR("function", f->def->name));
}

static _Noreturn void force_exit(struct function *f, int signal)
{
    log_warn("function", "exit forced", LOG_STR("function", f->def->name), LOG_INT("signal", signal),
             LOG_INT("inflight", f->inflight));
    lock_drop(f);
    _exit(128 + signal);
}

/* Until SIGTERM (or cancellation, which only the end of the process is). `is_draining`: each end signal
 * forces. */
static void obey_signals(struct function *f, bool is_draining)
{
    int signal = 0;
    while (signal_wait(0, &signal) == STATUS_OK) {
        if (signal == SIGUSR1)
            freeze(f, true);
        else if (signal == SIGUSR2)
            freeze(f, false);
        else if (signal == SIGINT || is_draining)
            force_exit(f, signal);
        else
            return;
    }
}

static void drain_signals_fiber(void *arg)
{
    obey_signals(arg, true);
}

static int64_t quiet_needed_ns(const struct function *f)
{
    if (f->cfg.listen_fd >= 0) return 0;
    return f->has_probe_seen_503 ? QUIET_PROBED_NS : QUIET_UNPROBED_NS;
}

/* Serve on while routers learn that we go: for healthcheck_interval, or until nothing runs and it has been
 * quiet. */
static void serve_on(struct function *f)
{
    int64_t end_ns = clock_monotonic_ns() + f->cfg.healthcheck_interval_ns;
    for (;;) {
        int64_t now_ns = clock_monotonic_ns(), wake_ns = end_ns;
        int64_t quiet_ns = f->last_traffic_ns + quiet_needed_ns(f);
        if (f->inflight == 0 && quiet_ns < wake_ns) wake_ns = quiet_ns;
        if (now_ns >= wake_ns) return;
        fiber_event_reset(&f->traffic);
        if (fiber_event_wait(&f->traffic, wake_ns) == STATUS_CANCELLED) return;
    }
}

static void drain(struct function *f)
{
    f->is_accepting = false;
    f->last_traffic_ns = clock_monotonic_ns();
    lock_drop(f);
    log_info("function", "draining", LOG_STR("function", f->def->name), LOG_INT("inflight", f->inflight));
    serve_on(f);
    log_info("function", "listener closed", LOG_STR("function", f->def->name),
             LOG_INT("inflight", f->inflight));
    if (server_drain(f->server, clock_monotonic_ns() + f->cfg.write_timeout_ns) != STATUS_OK)
        log_warn("function", "write_timeout ended the drain with requests under way",
                 LOG_STR("function", f->def->name), LOG_INT("inflight", f->inflight));
}

/* What the function stands for has ended: nothing can be answered any more. Whoever supervises starts us
 * again. */
static void attend_fiber(void *arg)
{
    struct function *f = arg;
    f->def->attend();
    if (fiber_is_cancelled()) return;
    lock_drop(f);
    _exit(1);
}

struct life {
    struct function *f;
    int exit_code;
};

static enum status begin(struct function *f, struct error *err)
{
    enum status s = loop_signals_catch(f->loop, caught_signals, ARRAY_LEN(caught_signals), err);
    if (s != STATUS_OK) return s;
    fiber_event_init(&f->traffic);
    invocation_freeze(f->cfg.is_frozen);
    function_metrics_init();
    s = start_function_server(f, err);
    if (s != STATUS_OK) return s;
    s = lock_take(f, err);
    if (s != STATUS_OK) {
        server_free(f->server);
        return s;
    }
    f->is_accepting = true;
    start_metrics_server(f);
    log_info("function", "ready", LOG_STR("function", f->def->name), LOG_INT("port", server_port(f->server)),
             LOG_INT("metrics_port", f->metrics_server != NULL ? server_port(f->metrics_server) : 0));
    return STATUS_OK;
}

static void life_fiber(void *arg)
{
    struct life *life = arg;
    struct function *f = life->f;
    struct fiber_scope scope, attending;
    struct error err;
    fiber_scope_init(&scope);
    fiber_scope_init(&attending);
    enum status s = begin(f, &err);
    if (s == STATUS_OK && f->def->attend != NULL) s = fiber_scope_spawn(&attending, attend_fiber, f, &err);
    if (s != STATUS_OK) {
        log_error("function", "start refused", LOG_STR("function", f->def->name),
                  LOG_STR("error", err.message));
        life->exit_code = 1;
        return;
    }
    obey_signals(f, false);
    if (fiber_scope_spawn(&scope, drain_signals_fiber, f, &err) != STATUS_OK)
        log_warn("function", "a second SIGTERM will not be seen", LOG_STR("error", err.message));
    drain(f);
    fiber_scope_cancel(&scope);
    fiber_scope_join(&scope);
    server_free(f->server);
    fiber_scope_cancel(&attending);
    fiber_scope_join(&attending);
    if (f->metrics_server != NULL) server_free(f->metrics_server);
    client_release(f->loop);
    log_info("function", "exit", LOG_STR("function", f->def->name));
}

/* ---- main ---- */

/* of-watchdog's options have one dash; ours take both. Removed from argv when found. */
static bool take_flag(int *argc, char **argv, const char *name)
{
    for (int i = 1; i < *argc; i++) {
        struct strview arg = sv(argv[i]);
        while (sv_starts_with(arg, SV("-")))
            arg = sv_sub(arg, 1, arg.len);
        if (argv[i][0] != '-' || !sv_eq(arg, sv(name))) continue;
        memmove(&argv[i], &argv[i + 1], (size_t)(*argc - i) * sizeof(*argv)); /* with the NULL at the end */
        (*argc)--;
        return true;
    }
    return false;
}

static int run(struct function *f)
{
    struct life life = {.f = f};
    struct error err;
    if (loop_new(&f->loop, &err) != STATUS_OK ||
        loop_run_fiber(f->loop, life_fiber, &life, &err) != STATUS_OK) {
        log_error("function", "start refused", LOG_STR("function", f->def->name),
                  LOG_STR("error", err.message));
        return 1;
    }
    loop_free(f->loop);
    return life.exit_code;
}

int function_main(const struct function_def *def, int argc, char **argv)
{
    static struct arena arena; /* settings; until exit */
    struct error err;
    file_open_standard();
    /* One thread does the work: a second malloc arena, made when libcurl's resolver allocates, would only
     * cost memory. */
    (void)mallopt(M_ARENA_MAX, 1);
    if (take_flag(&argc, argv, "help") || take_flag(&argc, argv, "h")) {
        function_config_print_help(def, stdout);
        return 0;
    }
    if (take_flag(&argc, argv, "version")) {
        printf("%s (balm %s)\n", def->name, BALM_VERSION);
        return 0;
    }
    if (take_flag(&argc, argv, "describe")) {
        puts(def->manifest_json);
        return 0;
    }
    bool is_healthcheck = take_flag(&argc, argv, "run-healthcheck");
    self.def = def;
    enum status s = function_config_load(def, argc, argv, &arena, &self.cfg, &err);
    if (s != STATUS_OK) {
        log_error("function", "start refused", LOG_STR("function", def->name), LOG_STR("error", err.message));
        return 1;
    }
    if (is_healthcheck) return function_healthcheck(&self.cfg);
    (void)setenv("secret_mount_path", self.cfg.secrets_path,
                 1); /* where secret_read() looks, also if it was an option */
    log_set_level(self.cfg.log_level);
    log_set_terminal(isatty(STDERR_FILENO) == 1);
    return run(&self);
}
