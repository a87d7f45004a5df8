/* The one process: journal, core functions, gateway, put together and taken apart in order. */
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "cli/backup.h"
#include "client/client.h"
#include "functions/alerts/alerts.h"
#include "functions/audit/audit.h"
#include "functions/dispatcher/dispatcher.h"
#include "functions/scaler/scaler.h"
#include "gateway/gateway.h"
#include "log/log.h"
#include "loop/loop.h"
#include "server/server.h"
#include "store/journal.h"
#include "store/journal_format.h"
#include "store/retention.h"

/* The table of core functions: started in this order, stopped in reverse. The audit log stops last, so that
 * it seals what the others write while they stop; the dispatcher follows the intake, so that an alert's
 * episode is known before it is decided on. */
static const struct core_function *const core_functions[] = {&audit_function, &alerts_function,
                                                             &dispatcher_function, &scaler_function};
#define N_CORE ARRAY_LEN(core_functions)

const struct core_function *const *cli_core_functions(unsigned *ret_n)
{
    *ret_n = N_CORE;
    return core_functions;
}

/* timeout(1) and a terminal signal the process and its group: the same wish arrives twice. */
#define SAME_SIGNAL_NS (500 * NS_PER_MS)

struct platform {
    const struct up_cfg *cfg;
    struct loop *loop;
    struct arena arena;
    int lock_fd;
    uint64_t files_max_before; /* what we were started with: what host acts start gets it back */
    int listen_fd;             /* bound, and the gateway's once it listens; -1: none */
    struct journal *journal;
    struct retention *retention;
    struct gateway *gateway;
    struct core_env env;
    void *core_states[N_CORE];
    unsigned n_started;
    bool is_started;
    struct fiber_scope reloads; /* over before anything stops */
    int64_t stop_signal_ns;     /* monotonic; 0: none yet */
    enum status status;
    struct error *err;
};

/* ---- one platform a data folder ---- */

/* After kill -9 a child that was just being started holds lock and port until it has become its program. */
#define REMNANT_WAIT_NS (5 * NS_PER_S)
#define REMNANT_LOOK_MS 10

/* "pid 17 since 2026-…", or empty. */
static struct strview read_holder(struct platform *p)
{
    char text[256];
    ssize_t n = pread(p->lock_fd, text, sizeof(text), 0);
    return arena_copy(&p->arena, sv_trim(sv_n(text, n > 0 ? (size_t)n : 0)));
}

static bool is_gone(struct strview holder)
{
    struct strview word = sv_sub(holder, sizeof("pid ") - 1, holder.len);
    return sv_starts_with(holder, SV("pid ")) && process_is_no_more(sv_sub(word, 0, sv_find(word, ' ')));
}

static enum status who_holds(struct platform *p, struct strview who)
{
    return error_set(p->err, STATUS_FAILED_PRECONDITION,
                     "%s is in use by another balm (%.*s); stop it, or give --data another folder",
                     p->cfg->data_dir, SV_ARG(who.len > 0 ? who : SV("it has not said who it is")));
}

static enum status try_lock(struct platform *p, const char *path)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(p->lock_fd, F_OFD_SETLK, &lock) == 0) return STATUS_OK;
    if (errno == EAGAIN || errno == EACCES) return STATUS_ALREADY_EXISTS;
    return error_set(p->err, status_from_errno(errno), "lock %s: %s", path, strerror(errno));
}

static enum status take_lock(struct platform *p, const char *path)
{
    int64_t until_ns = clock_monotonic_ns() + REMNANT_WAIT_NS;
    enum status s = try_lock(p, path);
    while (s == STATUS_ALREADY_EXISTS) {
        struct strview who = read_holder(p);
        if (!is_gone(who) || clock_monotonic_ns() >= until_ns) return who_holds(p, who);
        s = try_lock(p, path);
        enum status slept = sleep_ms(REMNANT_LOOK_MS); /* also behind the lock: the port follows it */
        if (slept != STATUS_OK) return error_set(p->err, slept, "lock %s: stopped", path);
    }
    return s;
}

/* Whoever can write here can replace the journal, its signing key and the passwords. */
static enum status check_data_dir(const char *path, struct error *err)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return error_set(err, status_from_errno(errno), "data folder %s: %s", path, strerror(errno));
    if (st.st_uid != geteuid())
        return error_set(
            err, STATUS_FAILED_PRECONDITION,
            "data folder %s belongs to user %u, and we run as user %u: chown -R %u '%s', or give "
            "--data another folder",
            path, (unsigned)st.st_uid, (unsigned)geteuid(), (unsigned)geteuid(), path);
    if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return error_set(err, STATUS_FAILED_PRECONDITION,
                         "data folder %s can be written by others (mode %04o): chmod go-w '%s', or give "
                         "--data another folder",
                         path, (unsigned)(st.st_mode & 07777), path);
    return STATUS_OK;
}

/* It is laid out like a data folder, and would be no backup any more. */
static enum status check_no_backup(struct platform *p)
{
    const char *manifest = arena_printf(&p->arena, "%s/" BACKUP_MANIFEST, p->cfg->data_dir).ptr;
    if (access(manifest, F_OK) != 0) return STATUS_OK;
    return error_set(p->err, STATUS_FAILED_PRECONDITION,
                     "%s is a backup: balm restore makes a data folder of it", p->cfg->data_dir);
}

/* An open-file-description lock: freed by the kernel however we end, and not kept by what we start. */
static enum status lock_data_dir(struct platform *p)
{
    enum status s = dir_make(p->cfg->data_dir, 0700, p->err);
    if (s == STATUS_OK) s = check_data_dir(p->cfg->data_dir, p->err);
    if (s == STATUS_OK) s = check_no_backup(p);
    if (s != STATUS_OK) return s;
    const char *path = arena_printf(&p->arena, "%s/lock", p->cfg->data_dir).ptr;
    p->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (p->lock_fd < 0)
        return error_set(p->err, status_from_errno(errno), "open %s: %s", path, strerror(errno));
    s = take_lock(p, path);
    if (s != STATUS_OK) return s;
    char now[RFC3339_LEN + 1];
    rfc3339_format(clock_unix_ns(), now);
    struct strview who = arena_printf(&p->arena, "pid %d since %s", (int)getpid(), now);
    if (ftruncate(p->lock_fd, 0) != 0 || pwrite(p->lock_fd, who.ptr, who.len, 0) != (ssize_t)who.len)
        return error_set(p->err, status_from_errno(errno), "write %s: %s", path, strerror(errno));
    return STATUS_OK;
}

static const char *run_file(struct platform *p)
{
    return arena_printf(&p->arena, "%s/run.json", p->cfg->data_dir).ptr;
}

static enum status write_run_file(struct platform *p, struct strview url)
{
    char now[RFC3339_LEN + 1];
    rfc3339_format(clock_unix_ns(), now);
    struct strview text = arena_printf(
        &p->arena, "{\"pid\":%d,\"port\":%u,\"started\":\"%s\",\"url\":\"%.*s\",\"version\":\"%s\"}\n",
        (int)getpid(), gateway_port(p->gateway), now, SV_ARG(url), BALM_VERSION);
    return file_write_atomic(run_file(p), text, 0600, p->err);
}

/* ---- start and stop ---- */

static enum status open_journal(struct platform *p)
{
    struct journal_cfg cfg = {.dir = arena_printf(&p->arena, "%s/journal", p->cfg->data_dir).ptr,
                              .cluster = sv(p->cfg->cluster),
                              .snapshots_dir = arena_printf(&p->arena, "%s/snapshots", p->cfg->data_dir).ptr,
                              .snapshot_every = (uint64_t)p->cfg->snapshot_every,
                              .reserve_file = arena_printf(&p->arena, "%s/reserve", p->cfg->data_dir).ptr,
                              .reserve_bytes = (uint64_t)p->cfg->reserve_bytes,
                              .segment_max_bytes =
                                  retention_segment_bytes((uint64_t)p->cfg->retention_bytes)};
    enum status s = journal_open_sqlite(p->loop, &cfg, &p->journal, p->err);
    if (s != STATUS_OK) return s;
    struct retention_cfg retention = {.max_age_ns = p->cfg->retention_age_ns,
                                      .max_bytes = (uint64_t)p->cfg->retention_bytes,
                                      .look_ns = p->cfg->retention_interval_ns};
    p->retention = retention_new(p->journal, &retention);
    return STATUS_OK;
}

static enum status make_gateway(struct platform *p)
{
    struct gateway_cfg cfg = {
        .dir = p->cfg->data_dir,
        .stack_file = p->cfg->stack_file,
        .functions_dir = p->cfg->functions_dir,
        .shim_path = p->cfg->shim_path,
        .docs_dir = p->cfg->docs_dir,
        .function_uids = p->cfg->function_uids,
        .function_read_paths = p->cfg->function_read_paths,
        .function_write_paths = p->cfg->function_write_paths,
        .broker_file = p->cfg->host_acts_file,
        .builder_secret_file = p->cfg->builder_secret_file,
        .host_files_max = p->files_max_before,
        .host = p->cfg->listen,
        .port = (uint16_t)p->cfg->port,
        .listen_fd = p->listen_fd,
        .tls_cert_file = p->cfg->tls_cert_file,
        .tls_key_file = p->cfg->tls_key_file,
        .is_insecure = p->cfg->is_insecure,
        .callback_networks = p->cfg->callback_networks,
        .cluster = sv(p->cfg->cluster),
        .idle_ns = p->cfg->idle_ns,
        .core = core_functions,
        .core_states = p->core_states,
        .n_core = N_CORE,
    };
    return gateway_new(p->loop, &cfg, p->journal, &p->gateway, p->err);
}

static enum status reload_core(void *arg, const struct reload_cause *cause, struct error *err)
{
    return gateway_reload(arg, cause, err);
}

static enum status start_core(struct platform *p)
{
    p->env = (struct core_env){
        .loop = p->loop,
        .journal = p->journal,
        .dir = p->cfg->data_dir,
        .runbooks_dir = p->cfg->runbooks_dir,
        .self_reload = (enum self_reload)p->cfg->reloads_itself,
        .reload = reload_core,
        .reload_arg = p->gateway,
        .tenant = SV("default"),
        .cluster = sv(p->cfg->cluster),
        .invoker = &gateway_invoker,
        .invoker_arg = p->gateway,
        .repeat_interval_ns = p->cfg->repeat_interval_ns,
        .group_interval_ns = p->cfg->group_interval_ns,
        .watchdog = sv(p->cfg->watchdog),
        .watchdog_within_ns = p->cfg->watchdog_within_ns,
        .alertmanagers = sv(p->cfg->alertmanagers),
        .alertmanager_token_file = p->cfg->alertmanager_token_file,
        .alertmanager_ca_file = p->cfg->alertmanager_ca_file,
        .alertmanager_receiver = sv(p->cfg->alertmanager_receiver),
        .reconcile_interval_ns = p->cfg->reconcile_interval_ns,
        .reconcile_margin_ns = p->cfg->reconcile_margin_ns,
        .backlog = gateway_backlog,
        .backlog_arg = p->gateway,
        .scaler = {.host = p->cfg->listen,
                   .port = (uint16_t)p->cfg->scaler_port,
                   .tls_cert_file = p->cfg->scaler_tls_cert_file,
                   .tls_key_file = p->cfg->scaler_tls_key_file,
                   .tls_client_ca_file = p->cfg->scaler_tls_client_ca_file,
                   .token_file = p->cfg->scaler_token_file},
        .retention = p->retention,
    };
    for (size_t i = 0; i < N_CORE; i++) {
        enum status s = core_functions[i]->start(&p->env, &p->core_states[i], p->err);
        if (s != STATUS_OK) return s;
        p->n_started++;
    }
    int64_t began_ns = clock_monotonic_ns();
    enum status s = journal_fold(p->journal, p->err);
    if (s != STATUS_OK) return error_prefix(p->err, s, "read the journal");
    log_info("balm", "journal read", LOG_INT("records", journal_last_seq(p->journal)),
             LOG_INT("snapshot", journal_snapshot_seq(p->journal)),
             LOG_INT("ms", (clock_monotonic_ns() - began_ns) / NS_PER_MS));
    for (size_t i = 0; i < N_CORE && s == STATUS_OK; i++)
        if (core_functions[i]->ready != NULL) s = core_functions[i]->ready(p->core_states[i], p->err);
    if (s == STATUS_OK) s = retention_start(p->retention, p->err);
    return s;
}

static enum status announce(struct platform *p)
{
    const char *host = strchr(p->cfg->listen, ':') != NULL
                           ? arena_printf(&p->arena, "[%s]", p->cfg->listen).ptr
                           : p->cfg->listen;
    if (strcmp(host, "0.0.0.0") == 0) host = "127.0.0.1";
    if (strcmp(host, "[::]") == 0) host = "[::1]";
    struct strview url = arena_printf(&p->arena, "http%s://%s:%u", p->cfg->tls_cert_file != NULL ? "s" : "",
                                      host, gateway_port(p->gateway));
    enum status s = write_run_file(p, url);
    if (s != STATUS_OK) return s;
    struct strview login = arena_printf(
        &p->arena, "faas-cli login -g %.*s -u admin --password-stdin < %s/secrets/basic-auth-password",
        SV_ARG(url), p->cfg->data_dir);
    log_info("balm", "management API", LOG_SV("login", login));
    log_info("balm", "ready", LOG_INT("port", gateway_port(p->gateway)), LOG_SV("url", url),
             LOG_STR("data", p->cfg->data_dir), LOG_STR("version", BALM_VERSION));
    return STATUS_OK;
}

static enum status listen_at_last(struct platform *p)
{
    enum status s = gateway_listen(p->gateway, p->err);
    if (s == STATUS_OK) p->listen_fd = -1;
    return s;
}

/* The port is taken before anything is written, so that a busy one leaves no records of a start that was
 * none, and opened last, so that nobody is let in before everything is ready. */
static enum status start(struct platform *p)
{
    enum status s = journal_check_format(arena_printf(&p->arena, "%s/journal", p->cfg->data_dir).ptr, p->err);
    if (s == STATUS_OK) s = lock_data_dir(p);
    if (s == STATUS_OK) s = server_bind(p->cfg->listen, (uint16_t)p->cfg->port, &p->listen_fd, p->err);
    if (s == STATUS_OK) s = open_journal(p);
    if (s == STATUS_OK) s = make_gateway(p);
    if (s == STATUS_OK) s = start_core(p);
    if (s == STATUS_OK) s = listen_at_last(p);
    if (s == STATUS_OK) s = announce(p);
    p->is_started = s == STATUS_OK;
    return s;
}

/* While those who hold it are still there: the next start reads what comes behind. */
static void save_state(struct platform *p)
{
    struct error err;
    if (journal_snapshot(p->journal, &err) != STATUS_OK)
        log_warn("balm", "no snapshot; the next start takes longer", LOG_STR("reason", err.message));
}

static void stop(struct platform *p)
{
    int64_t deadline_ns = clock_monotonic_ns() + p->cfg->drain_timeout_ns;
    if (p->lock_fd >= 0 && p->gateway != NULL) (void)unlink(run_file(p));
    if (p->gateway != NULL) gateway_drain(p->gateway, deadline_ns);
    retention_free(p->retention);
    if (p->is_started) save_state(p);
    while (p->n_started > 0) {
        p->n_started--;
        const struct core_function *f = core_functions[p->n_started];
        void *state = p->core_states[p->n_started];
        p->core_states[p->n_started] = NULL; /* the gateway asks no more of it */
        if (f->stop != NULL) f->stop(state, deadline_ns);
    }
    if (p->gateway != NULL) gateway_free(p->gateway);
    if (p->journal != NULL) journal_close(p->journal);
    client_release(p->loop);
    if (p->listen_fd >= 0) (void)close(p->listen_fd);
    if (p->lock_fd >= 0) (void)close(p->lock_fd);
}

static void reload_fiber(void *arg)
{
    const struct platform *p = arg;
    const struct reload_cause cause = {.actor = SV("SIGHUP")};
    struct error err;
    if (gateway_reload(p->gateway, &cause, &err) == STATUS_OK)
        log_info("balm", "reloaded");
    else
        log_error("balm", "reload refused, the old set stays", LOG_STR("error", err.message));
}

static void stop_acting(const struct platform *p)
{
    log_warn("balm", "asked to stop acting", LOG_STR("signal", "SIGUSR1"));
    for (unsigned i = 0; i < p->n_started; i++)
        if (core_functions[i]->stop_acting != NULL)
            core_functions[i]->stop_acting(p->core_states[i], SV("SIGUSR1"));
}

/* A reload takes its time, and no other signal waits for it. */
static void wait_for_signals(struct platform *p)
{
    for (;;) {
        int signo = 0;
        struct error err;
        if (signal_wait(0, &signo) != STATUS_OK) return;
        if (signo == SIGUSR1) stop_acting(p);
        if (signo == SIGHUP && fiber_scope_spawn(&p->reloads, reload_fiber, p, &err) != STATUS_OK)
            log_error("balm", "no reload", LOG_STR("error", err.message));
        if (signo == SIGUSR1 || signo == SIGHUP) continue;
        p->stop_signal_ns = clock_monotonic_ns();
        log_info("balm", "stopping", LOG_STR("signal", signo == SIGINT ? "SIGINT" : "SIGTERM"));
        return;
    }
}

/* A second signal while draining: whoever sends it means it. Intents without outcome are found at the next
 * start. */
static void force_exit_fiber(void *arg)
{
    const struct platform *p = arg;
    int signo = 0;
    for (;;) {
        if (signal_wait(0, &signo) != STATUS_OK) return;
        if (signo == SIGUSR1) stop_acting(p);
        if (signo == SIGUSR1 || signo == SIGHUP || clock_monotonic_ns() - p->stop_signal_ns < SAME_SIGNAL_NS)
            continue;
        log_warn("balm", "second signal: exit without waiting for work under way");
        _exit(CLI_FAILED);
    }
}

/* A loop that hangs says nothing. */
static void watchdog_fiber(void *arg)
{
    int64_t watchdog_ns = service_watchdog_ns();
    (void)arg;
    while (watchdog_ns > 0 && sleep_until(clock_monotonic_ns() + watchdog_ns / 3) == STATUS_OK)
        service_tell("WATCHDOG=1");
}

static void platform_fiber(void *arg)
{
    struct platform *p = arg;
    struct fiber_scope beside; /* until all has stopped */
    struct error ignored;
    fiber_scope_init(&beside);
    fiber_scope_init(&p->reloads);
    p->status = start(p);
    if (p->status == STATUS_OK) {
        service_tell("READY=1");
        (void)!fiber_scope_spawn(&beside, watchdog_fiber, NULL, &ignored);
        wait_for_signals(p);
    }
    service_tell("STOPPING=1");
    (void)!fiber_scope_spawn(&beside, force_exit_fiber, p, &ignored);
    fiber_scope_cancel(&p->reloads);
    fiber_scope_join(&p->reloads);
    stop(p);
    fiber_scope_cancel(&beside);
    fiber_scope_join(&beside);
    if (p->status == STATUS_OK) log_info("balm", "stopped");
}

/* Many functions, connections and segments: as many descriptors as we may have. Secrets must not reach a
 * core file. */
static void prepare_process(struct platform *p)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        p->files_max_before = limit.rlim_cur;
        limit.rlim_cur = limit.rlim_max < 65536 ? limit.rlim_max : 65536;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    (void)signal(SIGPIPE, SIG_IGN);
#ifndef __SANITIZE_ADDRESS__ /* the leak checker attaches to its own process */
    (void)prctl(PR_SET_DUMPABLE, 0);
#endif
}

int platform_run(const struct up_cfg *cfg, struct error *err)
{
    struct platform p = {.cfg = cfg, .lock_fd = -1, .listen_fd = -1, .err = err};
    prepare_process(&p);
    enum status s = loop_new(&p.loop, err);
    if (s != STATUS_OK) return CLI_FAILED;
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1};
    s = loop_signals_catch(p.loop, signals, ARRAY_LEN(signals), err);
    if (s == STATUS_OK) s = loop_run_fiber(p.loop, platform_fiber, &p, err);
    if (s == STATUS_OK) s = p.status;
    loop_free(p.loop);
    arena_release(&p.arena);
    if (s == STATUS_OK) return CLI_OK;
    return s == STATUS_INVALID_ARGUMENT ? CLI_USAGE : CLI_FAILED;
}
