#include "gateway/broker_service.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "gateway/host_command.h"

#define STATUS_TIMEOUT_NS (10 * NS_PER_S)
#define CLOCK_SET_NS      (50 * NS_PER_MS)

bool broker_has_systemd(void)
{
    struct stat st;
    return lstat("/run/systemd/system", &st) == 0 && S_ISDIR(st.st_mode);
}

static bool is_by_systemd(const struct broker_service *s)
{
    return s->unit.len > 0 && broker_has_systemd();
}

static const char *manager_name(const struct broker_service *s)
{
    return is_by_systemd(s) ? "systemd" : "argv";
}

static json_t *make_status(const struct broker_service *s, struct strview state, int64_t pid,
                           int64_t started_unix_ns)
{
    char started[RFC3339_LEN + 1] = "";
    if (started_unix_ns > 0) rfc3339_format(started_unix_ns, started);
    return json_pack("{s:b, s:s, s:I, s:s, s:o}", "active", sv_eq(state, SV("active")), "manager",
                     manager_name(s), "pid", (json_int_t)pid, "startedAt", started, "state",
                     json_text(state));
}

/* ---- systemd ---- */

/* An absolute path: no search can be led astray. */
static const char *systemctl_path(void)
{
    return access("/usr/bin/systemctl", X_OK) == 0 ? "/usr/bin/systemctl" : "/bin/systemctl";
}

/* Two clocks read one after the other never give quite the same difference, but one process has one start:
 * who compares two answers must see the same time. So a difference is kept until the wall clock has really
 * been set. */
static int64_t steady(int64_t *kept, int64_t fresh)
{
    int64_t off = fresh - *kept;
    if (off > CLOCK_SET_NS || off < -CLOCK_SET_NS) *kept = fresh;
    return *kept;
}

/* CLOCK_MONOTONIC microseconds as systemd prints them, in wall time of now. */
static int64_t unix_from_monotonic_us(uint64_t us)
{
    static int64_t kept;
    return steady(&kept, clock_unix_ns() - clock_monotonic_ns()) + (int64_t)us * NS_PER_US;
}

static enum status status_by_systemd(const struct broker_service *s, struct arena *a, json_t **ret_reply,
                                     struct error *err)
{
    const char *argv[] = {systemctl_path(),
                          "show",
                          "--no-pager",
                          "-p",
                          "ActiveState,MainPID,ActiveEnterTimestampMonotonic",
                          "--",
                          arena_cstr(a, s->unit),
                          NULL};
    struct process_spec spec = {.argv = argv, .env = host_command_env};
    struct process_result r;
    enum status st = process_run(&spec, sv(NULL), 4096, clock_monotonic_ns() + STATUS_TIMEOUT_NS, a, &r, err);
    if (st != STATUS_OK) return error_prefix(err, st, "systemctl show %.*s", SV_ARG(s->unit));
    if (r.exit_code != 0)
        return error_set(err, STATUS_UNAVAILABLE, "systemctl show %.*s: exit %d: %.*s", SV_ARG(s->unit),
                         r.exit_code, SV_ARG(sv_trim(r.stderr_text)));
    struct strview rest = r.stdout_text, line, state = SV("unknown");
    uint64_t pid = 0, since_us = 0;
    while (sv_next(&rest, '\n', &line)) {
        struct strview key;
        if (!sv_next(&line, '=', &key)) continue;
        if (sv_eq(key, SV("ActiveState")))
            state = line;
        else if (sv_eq(key, SV("MainPID")))
            (void)!sv_parse_u64(line, &pid);
        else if (sv_eq(key, SV("ActiveEnterTimestampMonotonic")))
            (void)!sv_parse_u64(line, &since_us);
    }
    *ret_reply = make_status(s, state, (int64_t)pid, since_us > 0 ? unix_from_monotonic_us(since_us) : 0);
    return STATUS_OK;
}

/* ---- argv and pid file ---- */

uint64_t broker_process_ticks(uint64_t pid)
{
    char path[64], text[1024];
    (void)snprintf(path, sizeof(path), "/proc/%llu/stat", (unsigned long long)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    (void)close(fd);
    if (n <= 0) return 0;
    text[n] = '\0';
    char *after_name = strrchr(text, ')'); /* the name may hold anything, also spaces and brackets */
    if (after_name == NULL || after_name[1] != ' ') return 0;
    char *rest = after_name + 2;
    if (*rest == 'Z' || *rest == 'X') return 0; /* dead, not yet reaped */
    for (int field = 3; field < 22; field++) {
        rest = strchr(rest, ' ');
        if (rest == NULL) return 0;
        rest++;
    }
    return strtoull(rest, NULL, 10);
}

/* Start of a process in wall time: ticks are 10 ms coarse; rounded up, so that a process that was started
 * after an intent never looks older than it by the rounding alone. 0: no such process. */
int64_t broker_process_started_unix_ns(uint64_t pid)
{
    static int64_t kept;
    int64_t ticks = (int64_t)broker_process_ticks(pid), per_second = sysconf(_SC_CLK_TCK);
    if (ticks == 0) return 0;
    struct timespec boot;
    (void)clock_gettime(CLOCK_BOOTTIME, &boot);
    int64_t boot_unix_ns = clock_unix_ns() - ((int64_t)boot.tv_sec * NS_PER_S + boot.tv_nsec);
    return steady(&kept, boot_unix_ns) + (ticks + 1) * (NS_PER_S / per_second);
}

static enum status status_by_pid_file(const struct broker_service *s, struct arena *a, json_t **ret_reply)
{
    struct strview text;
    uint64_t pid = 0;
    struct error ignored;
    if (file_read(a, arena_cstr(a, s->pid_file), 64, &text, &ignored) != STATUS_OK ||
        sv_parse_u64(sv_trim(text), &pid) != STATUS_OK || pid < 2) {
        *ret_reply = make_status(s, SV("inactive"), 0, 0);
        return STATUS_OK;
    }
    int64_t started = broker_process_started_unix_ns(pid);
    *ret_reply =
        make_status(s, started > 0 ? SV("active") : SV("inactive"), started > 0 ? (int64_t)pid : 0, started);
    return STATUS_OK;
}

enum status broker_service_status(const struct broker_service *s, struct arena *a, json_t **ret_reply,
                                  struct error *err)
{
    if (is_by_systemd(s)) return status_by_systemd(s, a, ret_reply, err);
    if (s->restart_argv == NULL)
        return error_set(err, STATUS_FAILED_PRECONDITION,
                         "service '%.*s' is known by its unit only, and systemd is not PID 1 here",
                         SV_ARG(s->name));
    return status_by_pid_file(s, a, ret_reply);
}

/* ---- restart ---- */

enum status broker_service_command(const struct broker_service *s, struct arena *a,
                                   const char *const **ret_argv, struct error *err)
{
    if (is_by_systemd(s)) {
        const char **argv = arena_array(a, 6, sizeof(*argv));
        argv[0] = systemctl_path();
        argv[1] = "restart";
        argv[2] = "--no-ask-password";
        argv[3] = "--";
        argv[4] = arena_cstr(a, s->unit);
        argv[5] = NULL;
        *ret_argv = argv;
        return STATUS_OK;
    }
    if (s->restart_argv == NULL)
        return error_set(err, STATUS_FAILED_PRECONDITION,
                         "service '%.*s' has no restart command, and systemd is not PID 1 here",
                         SV_ARG(s->name));
    *ret_argv = (const char *const *)s->restart_argv;
    return STATUS_OK;
}

json_t *broker_service_restarted(const struct broker_service *s, int exit_code, struct strview words)
{
    words = sv_trim(words);
    json_t *output = sv_is_utf8(words) ? json_text(words) : json_text(SV("(output is not UTF-8)"));
    return json_pack("{s:i, s:s, s:o}", "exit", exit_code, "manager", manager_name(s), "output", output);
}
