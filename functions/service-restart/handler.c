#include "service-restart.gen.h"

#include <inttypes.h>

#define POLL_FIRST_NS (20 * NS_PER_MS)
#define POLL_MAX_NS   (500 * NS_PER_MS)
/* What is left of the deadline when we stop looking: our sentence tells more than the runtime's timeout. */
#define VERDICT_NS (250 * NS_PER_MS)
#define GIVE_UP_NS (30 * NS_PER_S) /* where nobody set a deadline */

/* What the broker knows of a service (gateway/broker.h). */
struct service {
    bool is_active;
    int64_t pid, started_unix_ns; /* 0: not known */
    struct strview started_text, state, manager;
};

static enum status read_service(struct invocation *inv, struct strview unit, struct service *ret_service,
                                struct error *err)
{
    json_t *reply = NULL;
    enum status s = host_act(inv, SV("service-status"), unit, &reply, err);
    if (s != STATUS_OK) return s;
    struct service now = {
        .is_active = json_is_true(json_object_get(reply, "active")),
        .pid = json_integer_value(json_object_get(reply, "pid")),
        .started_text = arena_copy(inv->arena, json_get_text(reply, "startedAt")),
        .state = arena_copy(inv->arena, json_get_text(reply, "state")),
        .manager = arena_copy(inv->arena, json_get_text(reply, "manager")),
    };
    bool is_answer = json_is_boolean(json_object_get(reply, "active"));
    json_decref(reply);
    if (!is_answer ||
        (now.started_text.len > 0 && rfc3339_parse(now.started_text, &now.started_unix_ns) != STATUS_OK))
        return error_set(err, STATUS_INTERNAL,
                         "the status of '%.*s' came without 'active' or with a bad 'startedAt'",
                         SV_ARG(unit));
    *ret_service = now;
    return STATUS_OK;
}

/* Started for this intent, by us or by an earlier run of us. A start time from /proc has ticks of 10 ms, so
 * right after the intent a process that is new since `before` counts as well. */
static bool is_new(const struct invocation *inv, const struct service *before, const struct service *now)
{
    if (!now->is_active) return false;
    return now->started_unix_ns > inv->intent_unix_ns ||
           (now->pid != before->pid && now->started_unix_ns > before->started_unix_ns);
}

static enum status restart(struct invocation *inv, struct strview unit, int64_t *ret_exit,
                           struct strview *ret_output, struct error *err)
{
    json_t *reply = NULL;
    enum status s = host_act(inv, SV("service-restart"), unit, &reply, err);
    if (s != STATUS_OK) return s;
    *ret_exit = json_integer_value(json_object_get(reply, "exit"));
    *ret_output = sv_trim(arena_copy(inv->arena, json_get_text(reply, "output")));
    json_decref(reply);
    return STATUS_OK;
}

static int64_t verdict_deadline(void)
{
    int64_t deadline_ns = fiber_deadline();
    return deadline_ns != 0 ? deadline_ns - VERDICT_NS : clock_monotonic_ns() + GIVE_UP_NS;
}

/* Since when which process has been seen up, look by look. */
struct watch {
    int64_t up_since_ns, pid, started_unix_ns; /* up_since_ns 0: it was not up at the last look */
};

/* How much longer it must stay up; 0: long enough. One that dies at once is another process, or none, at the
 * next look. */
static int64_t still_to_watch(struct watch *w, const struct service *now, bool is_up, int64_t settle_ns,
                              int64_t now_ns)
{
    bool is_same = w->up_since_ns != 0 && now->pid == w->pid && now->started_unix_ns == w->started_unix_ns;
    if (!is_same) *w = (struct watch){now_ns, now->pid, now->started_unix_ns};
    if (!is_up) w->up_since_ns = 0;
    int64_t left_ns = is_same ? settle_ns - (now_ns - w->up_since_ns) : settle_ns;
    return left_ns > 0 ? left_ns : 0;
}

/* Looks until a new process has been up for the settle time, or time is up. *ret_now: what was seen last.
 * STATUS_NOT_FOUND: it did not come up in time. */
static enum status wait_up(struct invocation *inv, const struct service_restart_params *p,
                           const struct service *before, struct service *ret_now, struct error *err)
{
    int64_t give_up_ns = verdict_deadline();
    struct watch watch = {0};
    for (int64_t wait_ns = POLL_FIRST_NS;; wait_ns = 2 * wait_ns < POLL_MAX_NS ? 2 * wait_ns : POLL_MAX_NS) {
        enum status s = read_service(inv, p->unit, ret_now, err);
        if (s != STATUS_OK) return s;
        int64_t now_ns = clock_monotonic_ns();
        bool is_up = is_new(inv, before, ret_now);
        int64_t left_ns = still_to_watch(&watch, ret_now, is_up, p->settle_ns, now_ns);
        if (is_up && left_ns == 0) return STATUS_OK;
        if (now_ns >= give_up_ns) return STATUS_NOT_FOUND;
        int64_t wake_ns = now_ns + (is_up && left_ns < wait_ns ? left_ns : wait_ns);
        s = sleep_until(wake_ns < give_up_ns ? wake_ns : give_up_ns);
        if (s != STATUS_OK)
            return error_set(err, s, "'%.*s' was restarted, but the check was cut short", SV_ARG(p->unit));
    }
}

static void describe(struct result *ret, struct strview unit, const struct service *before,
                     const struct service *now)
{
    result_set_text(ret, "unit", unit);
    result_set_text(ret, "manager", now->manager);
    result_set_text(ret, "stateBefore", before->state);
    result_set_text(ret, "startedAt", now->started_text);
    result_set_int(ret, "pid", now->pid);
}

static enum status not_up(const struct service_restart_params *p, const struct service *now,
                          int64_t exit_code, struct strview output, struct error *err)
{
    return error_set(err, STATUS_INTERNAL,
                     "'%.*s' was restarted (exit %" PRId64 ") but did not stay up: it is %.*s%s%.*s",
                     SV_ARG(p->unit), exit_code, SV_ARG(now->state.len > 0 ? now->state : SV("unknown")),
                     output.len > 0 ? "; the tool said: " : "", SV_ARG(sv_sub(output, 0, 300)));
}

static enum status run(struct invocation *inv, const struct service_restart_params *p, struct result *ret,
                       struct error *err)
{
    struct service before, now;
    enum status s = read_service(inv, p->unit, &before, err);
    if (s != STATUS_OK) return s;
    if (before.is_active && before.started_unix_ns > inv->intent_unix_ns) {
        describe(ret, p->unit, &before, &before);
        return result_unchanged(ret, "'%.*s' already started at %.*s, after the intent", SV_ARG(p->unit),
                                SV_ARG(before.started_text));
    }
    s = invocation_check(inv, err);
    if (s != STATUS_OK) return s;
    int64_t exit_code = 0;
    struct strview output = {0};
    s = restart(inv, p->unit, &exit_code, &output, err);
    if (s != STATUS_OK) return s;
    if (exit_code != 0) {
        s = read_service(inv, p->unit, &now, err);
        return s == STATUS_OK ? not_up(p, &now, exit_code, output, err) : s;
    }
    s = wait_up(inv, p, &before, &now, err);
    if (s == STATUS_NOT_FOUND) return not_up(p, &now, exit_code, output, err);
    if (s != STATUS_OK) return s;
    describe(ret, p->unit, &before, &now);
    if (output.len > 0) result_set_text(ret, "output", output);
    return result_done(ret, "'%.*s' was %.*s; restarted, and up since %.*s (pid %" PRId64 ")",
                       SV_ARG(p->unit), SV_ARG(before.state), SV_ARG(now.started_text), now.pid);
}

enum status service_restart_handle(struct invocation *inv, const struct service_restart_params *p,
                                   struct result *ret, struct error *err)
{
    struct error why = {0};
    enum status s = run(inv, p, ret, &why);
    /* Not on the list: nothing was changed, and asking again changes nothing. */
    if (s == STATUS_PERMISSION_DENIED) return result_refused(ret, "%s", why.message);
    if (s != STATUS_OK && err != NULL) *err = why;
    return s;
}
