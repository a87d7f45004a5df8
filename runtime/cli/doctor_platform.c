#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/clock.h"
#include "cli/doctor.h"
#include "client/client.h"

#define CLOCK_SKEW_MAX_NS (5 * NS_PER_S)
/* As the alert rule for it (charts/balm/rules). */
#define DISK_FREE_MIN_BYTES (INT64_C(256) << 20)
#define METRICS_MAX         (16 * 1024 * 1024)

static bool is_there(const struct doctor *d)
{
    return d->status != NULL;
}

static const char *what_to_do(const struct doctor *d, const struct error *err)
{
    if (err->code == STATUS_UNAUTHENTICATED)
        return d->cfg->platform.url != NULL
                   ? "give --token-file a copy of that platform's secrets/basic-auth-password"
                   : "secrets/basic-auth-password was changed while it ran: restart the platform";
    if (err->code == STATUS_INVALID_ARGUMENT) return "correct the command line";
    return d->cfg->platform.url != NULL ? "start it, or correct --url"
                                        : "start it with balm up, or say --data";
}

void doctor_check_platform(struct doctor *d)
{
    struct error err = {0};
    enum status s = cli_platform_url(&d->cfg->platform, &d->arena, &d->url, &err);
    if (s == STATUS_OK)
        s = cli_api(&d->cfg->platform, "GET", "/function/dispatcher/status", NULL, &d->status, &err);
    if (s == STATUS_OK) s = cli_api(&d->cfg->platform, "GET", "/system/functions", NULL, &d->functions, &err);
    if (s != STATUS_OK) {
        json_release(d->status);
        d->status = NULL;
        doctor_fail(d, "platform", what_to_do(d, &err), "%s", err.message);
    } else if (json_is_false(json_object_get(d->status, "deciding"))) {
        doctor_fail(d, "platform", "look into its log: it takes over again once the journal takes records",
                    "answers at %.*s, but decides nothing", SV_ARG(d->url));
    } else {
        doctor_ok(d, "platform", "answers at %.*s and decides (epoch %" PRId64 ")", SV_ARG(d->url),
                  (int64_t)json_integer_value(json_object_get(d->status, "epoch")));
    }
}

void doctor_check_store(struct doctor *d)
{
    const json_t *store = json_object_get(d->status, "store");
    if (!is_there(d)) return;
    if (json_is_true(json_object_get(store, "healthy")))
        doctor_ok(d, "store", "healthy, %" PRId64 " records on disk",
                  (int64_t)json_integer_value(json_object_get(store, "durable")));
    else
        doctor_fail(d, "store", "free its disk or mend its folder (the log says which); it goes on by itself",
                    "the journal takes no records: alerts are answered with 503");
}

void doctor_check_clock(struct doctor *d)
{
    int64_t theirs_ns = 0;
    if (!is_there(d)) return;
    bool is_told = rfc3339_parse(json_get_text(d->status, "time"), &theirs_ns) == STATUS_OK;
    int64_t ahead_ns = is_told ? theirs_ns - clock_unix_ns() : 0;
    char skew[DURATION_TEXT_MAX];
    (void)duration_format((ahead_ns < 0 ? -ahead_ns : ahead_ns) / NS_PER_S * NS_PER_S, skew);
    if (json_is_true(json_object_get(d->status, "clockSettling")))
        doctor_fail(d, "clock", "wait 10 s; if it goes on jumping, see to the host's time service",
                    "it jumped: nothing acts until it has settled");
    else if (ahead_ns > CLOCK_SKEW_MAX_NS || ahead_ns < -CLOCK_SKEW_MAX_NS)
        doctor_fail(d, "clock", "see to the time services of both hosts", "the platform's is %s %s ours",
                    skew, ahead_ns > 0 ? "ahead of" : "behind");
    else
        doctor_ok(d, "clock", "steady, and as ours");
}

/* ---- disk ---- */

static bool look_at_disk(struct doctor *d, int64_t *ret_free_bytes)
{
    struct statvfs fs;
    struct error err;
    const char *dir;
    if (cli_data_dir(d->cfg->platform.data_dir, &d->arena, &dir, &err) != STATUS_OK) {
        doctor_fail(d, "disk", "say --data", "%s", err.message);
        return false;
    }
    if (statvfs(dir, &fs) != 0) {
        doctor_fail(d, "disk", "say --data, or start the platform with balm up, which makes it", "%s: %s",
                    dir, strerror(errno));
        return false;
    }
    *ret_free_bytes = (int64_t)fs.f_bavail * (int64_t)fs.f_frsize;
    return true;
}

/* Elsewhere: as its metrics say, which are open. */
static bool ask_for_disk(struct doctor *d, int64_t *ret_free_bytes)
{
    struct http_call call = {.url = arena_printf(&d->arena, "%.*s/metrics", SV_ARG(d->url)),
                             .max_body_bytes = METRICS_MAX};
    struct http_reply reply;
    struct strview line, rest, name = SV("balm_disk_free_bytes ");
    if (cli_trust_platform(&d->cfg->platform, d->url, &d->arena, &call, NULL) != STATUS_OK ||
        cli_http(&call, &d->arena, &reply, NULL) != STATUS_OK)
        return false;
    for (rest = reply.body; sv_next(&rest, '\n', &line);) {
        if (!sv_starts_with(line, name)) continue;
        double value = strtod(arena_cstr(&d->arena, sv_sub(line, name.len, line.len)), NULL);
        *ret_free_bytes = value > 0 && value < 1e18 ? (int64_t)value : 0;
        return true;
    }
    return false;
}

void doctor_check_disk(struct doctor *d)
{
    int64_t free_bytes = 0;
    if (d->cfg->platform.url != NULL) {
        if (!is_there(d)) return;
        if (!ask_for_disk(d, &free_bytes)) {
            doctor_skip(d, "disk", "%.*s/metrics does not say how much is free", SV_ARG(d->url));
            return;
        }
    } else if (!look_at_disk(d, &free_bytes)) {
        return;
    }
    if (free_bytes < DISK_FREE_MIN_BYTES)
        doctor_fail(d, "disk", "free some, or move the data folder: a full disk takes no alerts",
                    "the data folder has %" PRId64 " MiB left", free_bytes >> 20);
    else
        doctor_ok(d, "disk", "the data folder has %" PRId64 " MiB left", free_bytes >> 20);
}

/* ---- deciding ---- */

void doctor_check_acting(struct doctor *d)
{
    const json_t *frozen = json_object_get(d->status, "frozen");
    if (!is_there(d)) return;
    if (json_is_true(json_object_get(frozen, "on")))
        doctor_fail(d, "acting", "balm resume", "stopped by balm stop since %.*s: no bot acts",
                    SV_ARG(json_get_text(frozen, "since")));
    else
        doctor_ok(d, "acting", "not stopped");
}

void doctor_check_runbooks(struct doctor *d)
{
    if (!is_there(d)) return;
    size_t n = json_array_size(json_object_get(d->status, "runbooks")), i;
    const json_t *may_act = json_object_get(d->status, "mayAct");
    struct strview refused = json_get_text(d->status, "reloadError");
    struct buf names;
    json_t *name;
    buf_init(&names, ERROR_MESSAGE_MAX);
    json_array_foreach(may_act, i, name)
        buf_printf(&names, "%s%s", i > 0 ? ", " : "", json_string_value(name));
    if (names.is_full) buf_printf(&names, "…");
    if (refused.len > 0)
        doctor_fail(d, "runbooks", "correct the file, then balm reload",
                    "the last reload was refused and the old set stays: %.*s", SV_ARG(refused));
    else if (n == 0)
        doctor_fail(d, "runbooks", "write one (README: A runbook), then balm reload",
                    "there is none, so nothing is ever decided");
    else
        doctor_ok(d, "runbooks", "%zu valid; may act: %.*s", n, (int)(names.len > 0 ? names.len : 26),
                  names.len > 0 ? names.ptr : "none (all in shadow or off)");
    buf_release(&names);
}

/* ---- functions' limits ---- */

void doctor_check_limits(struct doctor *d)
{
    struct error err = {0};
    json_t *info = NULL;
    if (!is_there(d)) return;
    if (cli_api(&d->cfg->platform, "GET", "/system/info", NULL, &info, &err) != STATUS_OK) {
        doctor_skip(d, "limits", "%s", err.message);
        return;
    }
    const json_t *limits = json_object_get(info, "limits");
    int memory = (int)json_integer_value(json_object_get(limits, "memoryCgroup"));
    int cpu = (int)json_integer_value(json_object_get(limits, "cpuCgroup"));
    const char *of_memory = memory > 0 ? arena_printf(&d->arena, "cgroup v%d and RLIMIT_DATA", memory).ptr
                                       : "RLIMIT_DATA of each process alone";
    if (cpu > 0)
        doctor_ok(d, "limits", "of functions are enforced; memory: %s, CPU: cgroup v%d", of_memory, cpu);
    else
        doctor_skip(d, "limits", "memory: %s; CPU: not enforced, the platform may make no control groups",
                    of_memory);
    json_release(info);
}
