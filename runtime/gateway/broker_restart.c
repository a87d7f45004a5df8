#include "gateway/broker_restart.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/memory.h"
#include "gateway/broker_service.h"
#include "gateway/host_command.h"
#include "log/log.h"

#define RESTART_LIMIT_NS (90 * NS_PER_S)   /* systemd's own default of TimeoutStartSec */
#define ANSWER_NS        (250 * NS_PER_MS) /* before the deadline: the bot must still be there to pass it on */
#define LOOK_AGAIN_MS    50
#define FILE_PREFIX      "host-act-"
#define PID_PREFIX       "host-pid-"
/* How long a command takes at most from being asked for to its first instruction. */
#define START_MAX_NS (5 * NS_PER_S)
#define FILE_MAX     1024

struct restart {
    struct list node; /* in under_way until it has ended */
    struct broker_restarts *owner;
    struct arena arena;
    struct broker_service service; /* a copy: the list may be replaced meanwhile */
    struct strview intent;
    uint64_t pid, ticks; /* leader of the session; pid 0: being started */
    int64_t begun_ns, begun_unix_ns, limit_ns;
    bool has_ended; /* an inherited one whose leader is not there any more */
    unsigned users; /* its own fiber and who waits */
    struct fiber_event ended;
    enum status status; /* once ended */
    struct error err;
    json_t *reply; /* owned; with STATUS_OK */
};

struct broker_restarts {
    const struct broker_cfg *cfg;
    struct list under_way;
    struct fiber_event all_ended;
    struct fiber_scope scope;
};

static bool is_program(const struct restart *r)
{
    return sv_starts_with(r->service.name, SV(PROGRAM_PREFIX));
}

/* "restart of 'nginx'", "run of 'program:flush-cache'" */
static const char *deed(const struct restart *r)
{
    return is_program(r) ? "run" : "restart";
}

/* ---- the file that outlives us ---- */

static const char *file_name(struct restart *r)
{
    return arena_printf(&r->arena, FILE_PREFIX "%.*s", SV_ARG(r->service.name)).ptr;
}

/* In one small write: whoever kills us leaves all of it or nothing new. Not synced: what ends the power ends
 * the restart. */
static enum status file_note(struct restart *r, struct error *err)
{
    json_t *note = json_pack("{s:I, s:o, s:I, s:I}", "begunUnixNs", (json_int_t)r->begun_unix_ns, "intent",
                             json_text(r->intent), "pid", (json_int_t)r->pid, "ticks", (json_int_t)r->ticks);
    struct strview text = json_canonical(&r->arena, note);
    json_release(note);
    int fd =
        openat(r->owner->cfg->run_dir_fd, file_name(r), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    ssize_t n = fd >= 0 ? pwrite(fd, text.ptr, text.len, 0) : -1;
    enum status s = STATUS_OK;
    if (n != (ssize_t)text.len || ftruncate(fd, n) != 0)
        s = error_set(err, STATUS_UNAVAILABLE, "note the %s of '%.*s' in DIR/run: %s", deed(r),
                      SV_ARG(r->service.name), strerror(errno));
    if (fd >= 0) (void)close(fd);
    return s;
}

static const char *pid_file_name(struct restart *r)
{
    return arena_printf(&r->arena, PID_PREFIX "%.*s", SV_ARG(r->service.name)).ptr;
}

static enum status pid_file_make(struct restart *r, int *ret_fd, struct error *err)
{
    int fd = openat(r->owner->cfg->run_dir_fd, pid_file_name(r),
                    O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return error_set(err, STATUS_UNAVAILABLE, "note the %s of '%.*s' in DIR/run: %s", deed(r),
                         SV_ARG(r->service.name), strerror(errno));
    *ret_fd = fd;
    return STATUS_OK;
}

/* What the leader has said of itself. Only what began when this restart did is believed: the number may be
 * another's by now. */
static void pid_file_read(struct restart *r)
{
    char text[32];
    uint64_t pid = 0;
    int fd = openat(r->owner->cfg->run_dir_fd, pid_file_name(r), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof(text)) : -1;
    if (fd >= 0) (void)close(fd);
    if (n <= 0 || sv_parse_u64(sv_trim(sv_n(text, (size_t)n)), &pid) != STATUS_OK || pid < 2) return;
    int64_t late_ns = broker_process_started_unix_ns(pid) - r->begun_unix_ns;
    bool is_it = late_ns > -NS_PER_S && late_ns < START_MAX_NS && getsid((pid_t)pid) == (pid_t)pid;
    r->has_ended = !is_it;
    if (!is_it) return;
    r->pid = pid;
    r->ticks = broker_process_ticks(pid);
}

static void file_remove(struct restart *r)
{
    (void)unlinkat(r->owner->cfg->run_dir_fd, pid_file_name(r), 0);
    (void)unlinkat(r->owner->cfg->run_dir_fd, file_name(r), 0);
}

/* ---- one restart ---- */

static struct strview copy(struct arena *a, struct strview s)
{
    return s.len > 0 ? arena_copy(a, s) : sv(NULL);
}

static struct restart *restart_new(struct broker_restarts *rs, const struct broker_service *service,
                                   struct strview intent)
{
    struct restart *r = mem_zalloc(1, sizeof(*r));
    *r = (struct restart){.owner = rs, .begun_ns = clock_monotonic_ns(), .begun_unix_ns = clock_unix_ns()};
    r->limit_ns = r->begun_ns + (service->timeout_ns != 0 ? service->timeout_ns : RESTART_LIMIT_NS);
    r->intent = copy(&r->arena, intent);
    r->service = (struct broker_service){.name = copy(&r->arena, service->name),
                                         .unit = copy(&r->arena, service->unit),
                                         .pid_file = copy(&r->arena, service->pid_file),
                                         .timeout_ns = service->timeout_ns};
    if (service->restart_argv != NULL) {
        r->service.restart_argv = arena_array(&r->arena, service->restart.n + 1, sizeof(char *));
        for (size_t i = 0; i < service->restart.n; i++)
            r->service.restart_argv[i] = arena_cstr(&r->arena, service->restart.items[i]);
    }
    fiber_event_init(&r->ended);
    return r;
}

static void restart_release(struct restart *r)
{
    if (--r->users > 0) return;
    json_release(r->reply);
    arena_release(&r->arena);
    free(r);
}

static void restart_end(struct restart *r, enum status s)
{
    r->status = s;
    list_remove(&r->node);
    if (list_is_empty(&r->owner->under_way)) fiber_event_set(&r->owner->all_ended);
    fiber_event_set(&r->ended);
    restart_release(r);
}

static enum status restart_spawn(struct restart *r, fiber_fn *fn, struct error *err)
{
    struct broker_restarts *rs = r->owner;
    r->users = 1;
    enum status s = fiber_scope_spawn(&rs->scope, fn, r, err);
    if (s != STATUS_OK) {
        restart_release(r);
        return s;
    }
    list_push_back(&rs->under_way, &r->node);
    fiber_event_reset(&rs->all_ended);
    return STATUS_OK;
}

static enum status run_command(struct restart *r, struct host_command *c)
{
    int exit_code = 0;
    struct error ignored;
    r->pid = (uint64_t)host_command_pid(c);
    r->ticks = broker_process_ticks(r->pid);
    if (file_note(r, &ignored) != STATUS_OK) /* its own note of its pid stands for it */
        log_warn("broker", "a restart is noted without its process", LOG_STR("error", ignored.message));
    enum status s = host_command_wait(c, r->limit_ns, &exit_code, &r->err);
    if (s == STATUS_OK) r->reply = broker_service_restarted(&r->service, exit_code, host_command_words(c));
    return s;
}

static enum status run(struct restart *r)
{
    struct host_command_cfg cfg = {.shim_path = r->owner->cfg->shim_path,
                                   .files_max = r->owner->cfg->files_max};
    struct host_command *c = NULL;
    cfg.pid_fd = -1;
    enum status s = broker_service_command(&r->service, &r->arena, &cfg.argv, &r->err);
    if (s == STATUS_OK) s = pid_file_make(r, &cfg.pid_fd, &r->err);
    if (s == STATUS_OK) s = file_note(r, &r->err); /* before: it must never run without a note */
    if (s == STATUS_OK) s = host_command_start(&cfg, &c, &r->err);
    if (cfg.pid_fd >= 0) (void)close(cfg.pid_fd);
    if (s == STATUS_OK) s = run_command(r, c);
    host_command_free(c);
    file_remove(r);
    return s;
}

/* Cancellation is not seen: what was begun is run to its end, also while the platform goes down. */
static void run_fiber(void *arg)
{
    struct restart *r = arg;
    fiber_shield_begin();
    enum status s = run(r);
    fiber_shield_end();
    log_info("broker",
             s != STATUS_OK  ? "host act failed"
             : is_program(r) ? "program was run"
                             : "service restart was run",
             LOG_SV("service", r->service.name), LOG_SV("intent", r->intent),
             LOG_INT("ms", (clock_monotonic_ns() - r->begun_ns) / NS_PER_MS),
             LOG_STR("error", s == STATUS_OK ? "" : r->err.message));
    /* Of the restart, not of who asks: it has failed. What a program has done until it was killed, nobody
     * knows. */
    if (s == STATUS_DEADLINE_EXCEEDED)
        s = error_set(&r->err, is_program(r) ? STATUS_UNKNOWN : STATUS_INTERNAL, "%s",
                      arena_copy(&r->arena, sv(r->err.message)).ptr);
    if (s != STATUS_OK) (void)error_prefix(&r->err, s, "%s of '%.*s'", deed(r), SV_ARG(r->service.name));
    restart_end(r, s);
}

/* ---- left by a platform that was killed ---- */

static bool is_running(struct restart *r)
{
    if (r->pid == 0) pid_file_read(r);
    if (r->pid == 0) /* killed while it was being started: it is about to say who it is, or never was */
        return !r->has_ended && clock_monotonic_ns() < r->limit_ns - RESTART_LIMIT_NS + START_MAX_NS;
    return r->ticks != 0 && broker_process_ticks(r->pid) == r->ticks;
}

static void watch_fiber(void *arg)
{
    struct restart *r = arg;
    enum status s = STATUS_OK;
    while (s == STATUS_OK && is_running(r)) {
        if (clock_monotonic_ns() >= r->limit_ns) session_kill((pid_t)r->pid, SIGKILL);
        s = sleep_ms(LOOK_AGAIN_MS);
    }
    if (s == STATUS_OK) { /* else we go down, and the next platform looks */
        file_remove(r);
        log_info("broker", "a restart of the platform before ended", LOG_SV("service", r->service.name),
                 LOG_SV("intent", r->intent));
    }
    restart_end(
        r,
        error_set(&r->err, STATUS_UNKNOWN,
                  "%s of '%.*s' was begun by a platform that was killed; it has ended, and how is not known",
                  deed(r), SV_ARG(r->service.name)));
}

static enum status file_read_note(int fd, struct json_t **ret_note)
{
    char text[FILE_MAX];
    ssize_t n = read(fd, text, sizeof(text));
    if (n <= 0) return STATUS_NOT_FOUND;
    return json_parse(sv_n(text, (size_t)n), 0, ret_note, NULL);
}

static enum status inherit(struct broker_restarts *rs, const char *name, struct error *err)
{
    json_t *note = NULL;
    int fd = openat(rs->cfg->run_dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return STATUS_OK;
    struct broker_service service = {.name = sv(name + sizeof(FILE_PREFIX) - 1)};
    enum status s = file_read_note(fd, &note);
    (void)close(fd);
    if (s != STATUS_OK) { /* made, not written: nothing was started */
        (void)unlinkat(rs->cfg->run_dir_fd, name, 0);
        return STATUS_OK;
    }
    struct restart *r = restart_new(rs, &service, json_get_text(note, "intent"));
    int64_t now_ns = r->begun_unix_ns;
    r->begun_unix_ns = json_integer_value(json_object_get(note, "begunUnixNs"));
    int64_t age_ns = now_ns - r->begun_unix_ns;
    if (age_ns > 0) r->limit_ns -= age_ns; /* a clock that was set back costs time, never safety */
    r->pid = (uint64_t)json_integer_value(json_object_get(note, "pid"));
    r->ticks = (uint64_t)json_integer_value(json_object_get(note, "ticks"));
    json_release(note);
    log_warn("broker", "the platform before was killed during a restart", LOG_SV("service", r->service.name),
             LOG_SV("intent", r->intent), LOG_BOOL("running", is_running(r)));
    return restart_spawn(r, watch_fiber, err);
}

static enum status inherit_all(struct broker_restarts *rs, struct error *err)
{
    enum status s = STATUS_OK;
    int fd = openat(rs->cfg->run_dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (dir == NULL) {
        s = error_set(err, status_from_errno(errno), "read DIR/run: %s", strerror(errno));
        if (fd >= 0) (void)close(fd);
        return s;
    }
    for (struct dirent *e = readdir(dir); e != NULL && s == STATUS_OK; e = readdir(dir))
        if (sv_starts_with(sv(e->d_name), SV(FILE_PREFIX))) s = inherit(rs, e->d_name, err);
    (void)closedir(dir);
    return s;
}

/* ---- life ---- */

enum status broker_restarts_new(const struct broker_cfg *cfg, struct broker_restarts **ret_restarts,
                                struct error *err)
{
    struct broker_restarts *rs = mem_zalloc(1, sizeof(*rs));
    rs->cfg = cfg;
    list_init(&rs->under_way);
    fiber_scope_init(&rs->scope);
    fiber_event_init(&rs->all_ended);
    fiber_event_set(&rs->all_ended);
    enum status s = inherit_all(rs, err);
    if (s == STATUS_OK)
        *ret_restarts = rs;
    else
        broker_restarts_free(rs);
    return s;
}

void broker_restarts_free(struct broker_restarts *rs)
{
    if (rs == NULL) return;
    fiber_shield_begin();
    fiber_scope_cancel(&rs->scope);
    fiber_scope_join(&rs->scope);
    fiber_shield_end();
    free(rs);
}

void broker_restarts_await_all(struct broker_restarts *rs)
{
    fiber_shield_begin();
    (void)!fiber_event_wait(&rs->all_ended, 0);
    fiber_shield_end();
}

/* ---- who asks ---- */

static struct restart *find(struct broker_restarts *rs, struct strview name)
{
    for (struct list *n = rs->under_way.next; n != &rs->under_way; n = n->next) {
        struct restart *r = container_of(n, struct restart, node);
        if (sv_eq(r->service.name, name)) return r;
    }
    return NULL;
}

static enum status begin(struct broker_restarts *rs, const struct broker_service *service,
                         struct strview intent, int64_t deadline_ns, bool is_frozen,
                         struct restart **ret_restart, struct error *err)
{
    if (is_frozen)
        return error_set(err, STATUS_CANCELLED, "balm stop is in force: nothing is done to '%.*s'",
                         SV_ARG(service->name));
    if (clock_monotonic_ns() >= deadline_ns)
        return error_set(err, STATUS_DEADLINE_EXCEEDED,
                         "the deadline passed before anything was done to '%.*s'", SV_ARG(service->name));
    *ret_restart = restart_new(rs, service, intent);
    return restart_spawn(*ret_restart, run_fiber, err);
}

static enum status say_still_running(const struct restart *r, struct error *err)
{
    return error_set(
        err, STATUS_UNKNOWN,
        "%s of '%.*s' is still running after %lld s; it is not cut, and the next attempt waits for it",
        deed(r), SV_ARG(r->service.name), (long long)((clock_monotonic_ns() - r->begun_ns) / NS_PER_S));
}

/* It was another's: what this one was to cure may be cured. */
static enum status say_other(const struct restart *r, struct strview intent, struct error *err)
{
    return error_set(err, STATUS_UNAVAILABLE,
                     "'%.*s' %s for intent %.*s; look again before intent %.*s does it",
                     SV_ARG(r->service.name),
                     is_program(r)     ? (r->ended.is_set ? "was just run" : "is being run")
                     : r->ended.is_set ? "was just restarted"
                                       : "is being restarted",
                     SV_ARG(r->intent), SV_ARG(intent));
}

enum status broker_restarts_ask(struct broker_restarts *rs, const struct broker_service *service,
                                struct strview intent, int64_t deadline_ns, bool is_frozen,
                                json_t **ret_reply, struct error *err)
{
    struct restart *r = find(rs, service->name);
    enum status s = STATUS_OK;
    if (r == NULL) s = begin(rs, service, intent, deadline_ns, is_frozen, &r, err);
    if (s != STATUS_OK) return s;
    assert(r != NULL);
    bool is_ours = sv_eq(r->intent, intent);
    r->users++;
    s = fiber_event_wait(&r->ended, deadline_ns - ANSWER_NS);
    if (!is_ours)
        s = say_other(r, intent, err);
    else if (s != STATUS_OK)
        s = say_still_running(r, err);
    else if (r->status == STATUS_OK)
        *ret_reply = json_copy(r->reply);
    else
        *err = r->err;
    if (is_ours && r->ended.is_set && s == STATUS_OK) s = r->status;
    restart_release(r);
    return s;
}
