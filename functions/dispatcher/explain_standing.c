/* Where an incident stands: what happened, what comes next, and the commands for whoever was woken up by it.
 */
#include <inttypes.h>

#include "base/clock.h"
#include "functions/dispatcher/explain_impl.h"

bool explain_is_escalation(const struct record *r)
{
    return sv_eq(r->purpose, SV("escalate"));
}

bool explain_is_follow_up(const struct record *r)
{
    return sv_eq(r->purpose, SV("follow_up"));
}

bool explain_is_shadow(const struct record *r)
{
    return sv_eq(r->gate, SV("mode")) && sv_eq(r->mode, SV("shadow"));
}

/* The newest records of those kinds that say where the incident stands; NULL: there is none. */
struct standing {
    const struct record *fired, *resolved, *expired, *closed, *closing, *decided, *outcome, *retry, *verified,
        *escalated, *timer;
    const struct record *tick;      /* the clock has begun it: no alert is behind it, and none will end it */
    const struct record *repair;    /* the outcome that was verified: a follow-up's comes behind it */
    const struct record *follow_up; /* what was decided on it */
    bool has_open_act;              /* an intent without outcome */
    bool has_acted;                 /* some bot said that it did something, or nobody knows */
    const struct record *dead;      /* the last act was given up: a dead letter that nobody has seen to */
    const struct record *untold;    /* so was the last word to a person */
    bool has_timer_fired;
};

static void note_act(struct standing *st, const struct record *r)
{
    bool is_dropped = r->kind == RECORD_OUTCOME && sv_eq(r->state, SV("dropped"));
    if (explain_is_escalation(r)) {
        st->untold = r->kind == RECORD_OUTCOME && sv_eq(r->state, SV("dead")) ? r : NULL;
        return;
    }
    if (is_dropped || (r->kind == RECORD_RETRY && r->actor.len > 0)) { /* a person has seen to it */
        st->dead = NULL;
        return;
    }
    if (r->kind == RECORD_RETRY) {
        st->retry = r;
        return;
    }
    st->has_open_act = r->kind == RECORD_INTENT;
    if (r->kind == RECORD_INTENT) st->outcome = st->retry = NULL;
    if (r->kind != RECORD_OUTCOME) return;
    st->outcome = r;
    st->dead = sv_eq(r->state, SV("dead")) ? r : NULL;
    st->has_acted |= sv_eq(r->state, SV("done")) || sv_eq(r->state, SV("unknown")) || st->dead != NULL;
}

static void note(struct standing *st, const struct record *r)
{
    bool is_signal = r->kind == RECORD_SIGNAL, is_firing = sv_eq(r->status, SV("firing"));
    if (is_signal && is_firing && st->fired == NULL) st->fired = r;
    if (is_signal && !is_firing) st->resolved = r;
    if (r->kind == RECORD_EXPIRED) st->expired = r;
    if (r->kind == RECORD_CLOSED) st->closed = r;
    if (r->kind == RECORD_CLOSE) st->closing = r;
    if (r->kind == RECORD_TICK) st->tick = r;
    if (r->kind == RECORD_VERIFIED) {
        st->verified = r;
        st->repair = r->ok ? st->outcome : NULL;
    }
    if (r->kind == RECORD_INTENT || r->kind == RECORD_RETRY || r->kind == RECORD_OUTCOME) note_act(st, r);
    bool is_turn = (r->kind == RECORD_INTENT || r->kind == RECORD_REFUSAL) ? !explain_is_escalation(r)
                                                                           : r->kind == RECORD_ESCALATED;
    if (is_turn) {
        st->decided = r;
        st->follow_up = explain_is_follow_up(r) ? r : st->follow_up;
        st->timer = NULL;
        st->escalated = r->kind == RECORD_ESCALATED ? r : NULL;
    }
    if (r->kind == RECORD_TIMER) {
        st->timer = r;
        st->has_timer_fired = false;
    }
    if (r->kind == RECORD_FIRED) st->has_timer_fired = true;
}

/* It is closed by what comes of it, whatever any alert does. */
static bool ends_by_itself(const struct standing *st)
{
    return st->tick != NULL || st->follow_up != NULL;
}

static bool is_overdue(const struct explain *x, const struct standing *st)
{
    return st->has_open_act && st->decided->deadline_ns != 0 && x->now_ns > st->decided->deadline_ns;
}

/* ---- what happened ---- */

/* Cut to what a person reads: "4.1s", "2h5m". */
static struct strview span(struct arena *a, int64_t from_ns, int64_t to_ns)
{
    char text[DURATION_TEXT_MAX];
    int64_t ns = to_ns > from_ns ? clock_elapsed_ns(from_ns, to_ns) : 0;
    int64_t step = ns < NS_PER_S ? NS_PER_MS : ns < 3600 * NS_PER_S ? NS_PER_S : 60 * NS_PER_S;
    return arena_printf(a, "%s", duration_format(ns - ns % step, text));
}

static struct strview what_verified(const struct standing *st, struct arena *a)
{
    const struct record *o = st->repair, *v = st->verified;
    if (o == NULL || v == NULL) return SV("verified as repaired");
    struct strview after = span(a, o->time_ns, v->time_ns);
    if (sv_eq(v->how, SV("resolve")))
        return arena_printf(a, "%.*s acted on %.*s, and the alert resolved %.*s later", SV_ARG(o->function),
                            SV_ARG(o->target), SV_ARG(after));
    if (sv_eq(v->how, SV("hold")))
        return arena_printf(a, "%.*s acted on %.*s, and no such alert came again within %.*s",
                            SV_ARG(o->function), SV_ARG(o->target), SV_ARG(after));
    return arena_printf(a, "%.*s acted on %.*s, and found by its own check that it helped",
                        SV_ARG(o->function), SV_ARG(o->target));
}

/* What was repaired, and what has become of the follow-up. */
static struct strview what_repaired(const struct standing *st, struct arena *a)
{
    const struct record *f = st->follow_up;
    struct strview repaired = what_verified(st, a);
    if (f == NULL && st->closed == NULL)
        return arena_printf(a, "%.*s; a follow-up is to come", SV_ARG(repaired));
    if (f == NULL) return repaired;
    if (f->kind == RECORD_REFUSAL)
        return arena_printf(a, "%.*s; the follow-up %.*s was left out: %.*s", SV_ARG(repaired),
                            SV_ARG(f->function), SV_ARG(f->reason));
    if (st->outcome == NULL) return repaired;
    return arena_printf(a, "%.*s; the follow-up %.*s ended as %.*s", SV_ARG(repaired), SV_ARG(f->function),
                        SV_ARG(st->outcome->state));
}

static struct strview without_end(struct strview s, struct strview end)
{
    return sv_ends_with(s, end) ? sv_sub(s, 0, s.len - end.len) : s;
}

static struct strview what_escalated(const struct standing *st, struct arena *a)
{
    return arena_printf(a, "it need%s a person: %.*s", st->closed != NULL ? "ed" : "s",
                        SV_ARG(without_end(st->escalated->reason, SV(": it needs a person"))));
}

static struct strview what_refused(const struct record *r, struct arena *a)
{
    if (explain_is_shadow(r))
        return arena_printf(a, "nothing was done: runbook %.*s is in shadow, and would have run %.*s on %.*s",
                            SV_ARG(r->runbook), SV_ARG(r->function), SV_ARG(r->target));
    return arena_printf(a, "nothing was done: gate %.*s keeps %.*s from acting%s%.*s", SV_ARG(r->gate),
                        SV_ARG(r->function), r->target.len > 0 ? " on " : "", SV_ARG(r->target));
}

/* A run that its time did not find open does not wait. */
static struct strview what_skipped(const struct standing *st, struct arena *a)
{
    const struct record *r = st->decided;
    if (r == NULL || r->kind != RECORD_REFUSAL) return SV("nothing more was done at this time");
    if (explain_is_shadow(r)) return what_refused(r, a);
    return arena_printf(a, "nothing was done at this time: gate %.*s kept %.*s from acting%s%.*s",
                        SV_ARG(r->gate), SV_ARG(r->function), r->target.len > 0 ? " on " : "",
                        SV_ARG(r->target));
}

static struct strview what_closed(const struct standing *st, struct arena *a)
{
    struct strview state = st->closed->state;
    if (st->closing != NULL)
        return arena_printf(a, "%.*s has ended it: %.*s", SV_ARG(st->closing->actor),
                            SV_ARG(st->closing->reason));
    if (sv_eq(state, SV("healed")) || sv_eq(state, SV("done"))) return what_repaired(st, a);
    if (sv_eq(state, SV("skipped"))) return what_skipped(st, a);
    if (sv_eq(state, SV("escalated")) && st->escalated != NULL && ends_by_itself(st))
        return what_escalated(st, a);
    if (sv_eq(state, SV("escalated"))) return SV("it needed a person, and the alert has ended since");
    if (sv_eq(state, SV("unknown")))
        return SV(
            "nobody said that the alert is over: how it ended is not known, and it does not count as healed");
    if (sv_eq(state, SV("resolved")) && !st->has_acted && st->resolved != NULL && st->fired != NULL)
        return arena_printf(a, "the alert resolved by itself after %.*s: no bot acted",
                            SV_ARG(span(a, st->fired->time_ns, st->resolved->time_ns)));
    if (sv_eq(state, SV("resolved")))
        return SV("the alert resolved; whether the act had to do with it is not known");
    return arena_printf(a, "closed as %.*s", SV_ARG(state));
}

static struct strview what_open_act(const struct explain *x, const struct standing *st, struct arena *a)
{
    const struct record *act = st->decided, *tried = st->retry;
    const char *which = explain_is_follow_up(act) ? "the follow-up " : "";
    struct strview since = span(a, act->time_ns, x->now_ns);
    if (x->is_stopped)
        return arena_printf(a, "acting is stopped: %s%.*s has been waiting to act on %.*s for %.*s", which,
                            SV_ARG(act->function), SV_ARG(act->target), SV_ARG(since));
    if (is_overdue(x, st))
        return arena_printf(
            a,
            "STUCK: %s%.*s was to have ended on %.*s by now, and %.*s after the decision nothing is known of it",
            which, SV_ARG(act->function), SV_ARG(act->target), SV_ARG(since));
    if (tried != NULL)
        return arena_printf(a, "%s%.*s has not acted on %.*s yet, attempt %" PRId64 ": %.*s", which,
                            SV_ARG(act->function), SV_ARG(act->target), tried->attempt,
                            SV_ARG(tried->reason));
    return arena_printf(a, "%s%.*s has been acting on %.*s for %.*s", which, SV_ARG(act->function),
                        SV_ARG(act->target), SV_ARG(since));
}

static struct strview what(const struct explain *x, const struct standing *st, struct arena *a)
{
    const struct record *r = st->decided;
    if (st->closed != NULL) return what_closed(st, a);
    if (r == NULL && st->tick != NULL) return SV("its time has come, and nothing is decided yet");
    if (r == NULL) return SV("nothing was done and nobody was told: no runbook takes this alert");
    if (st->has_open_act) return what_open_act(x, st, a);
    if (st->escalated != NULL) return what_escalated(st, a);
    if (st->repair != NULL) return what_repaired(st, a);
    if (r->kind == RECORD_REFUSAL) return what_refused(r, a);
    return arena_printf(a, "%.*s acted on %.*s; whether it helped is not verified yet", SV_ARG(r->function),
                        SV_ARG(r->target));
}

/* ---- what comes next ---- */

static struct strview next_after_refusal(const struct standing *st, struct arena *a)
{
    char due[RFC3339_LEN + 1];
    const struct record *r = st->decided, *timer = st->has_timer_fired ? NULL : st->timer;
    if (ends_by_itself(st)) return SV("it is closed: what its time does not find open is not made up for");
    if (explain_is_shadow(r))
        return arena_printf(
            a, "nothing: runbook %.*s is in shadow; 'mode: act' in it lets it act on the next alert",
            SV_ARG(r->runbook));
    if (timer != NULL) {
        rfc3339_format(timer->due_ns, due);
        return arena_printf(a, "it is decided on again at %s, if the alert still fires (%.*s)", due,
                            SV_ARG(r->reason));
    }
    if (sv_eq(r->gate, SV("freeze"))) return SV("it is decided on again after balm resume");
    if (sv_eq(r->gate, SV("clock"))) return SV("it is decided on again once the clock has settled");
    if (sv_eq(r->gate, SV("cooldown")))
        return SV(
            "it is decided on again after another alert on the target that waits for the same cooldown");
    if (sv_starts_with(r->gate, SV("in_flight")))
        return SV("it is decided on again when the act under way is over");
    return arena_printf(a, "nothing until the alert ends: %.*s", SV_ARG(r->reason));
}

static struct strview next_after_intent(const struct explain *x, const struct standing *st, struct arena *a)
{
    char due[RFC3339_LEN + 1];
    rfc3339_format(st->decided->deadline_ns, due);
    if (st->closing != NULL)
        return arena_printf(a, "closed once %.*s has ended on %.*s, at %s at the latest",
                            SV_ARG(st->decided->function), SV_ARG(st->decided->target), due);
    if (x->is_stopped)
        return arena_printf(a, "after balm resume it acts, if %sit is not later than %s",
                            ends_by_itself(st) ? "" : "the alert still fires and ", due);
    return arena_printf(a, "%.*s is to act on %.*s, until %s at the latest", SV_ARG(st->decided->function),
                        SV_ARG(st->decided->target), due);
}

static struct strview next_for_person(const struct standing *st, struct arena *a)
{
    struct strview told_by = st->escalated->function;
    if (ends_by_itself(st))
        return arena_printf(a, "it is closed once a person is told%s%.*s", told_by.len > 0 ? " by " : "",
                            SV_ARG(told_by));
    if (told_by.len == 0)
        return SV(
            "a person, and nobody was told: the runbook has no 'escalate'; nothing more is done until the alert ends");
    return arena_printf(a, "a person, who is told by %.*s; nothing more is done until the alert ends",
                        SV_ARG(told_by));
}

static struct strview next_of_closed(const struct standing *st, struct arena *a)
{
    struct strview state = st->closed->state;
    if (st->closing != NULL)
        return arena_printf(a, "nothing: closed by %.*s: %.*s", SV_ARG(st->closing->actor),
                            SV_ARG(st->closing->reason));
    if (sv_eq(state, SV("escalated")) && ends_by_itself(st) && st->escalated != NULL)
        return arena_printf(a, "a person: closed as %.*s, and nothing more is done%s", SV_ARG(state),
                            st->escalated->function.len > 0 ? "" : "; nobody was told");
    return arena_printf(a, "nothing: closed as %.*s%s", SV_ARG(state),
                        st->tick != NULL ? "; the schedule's next time is an incident of its own" : "");
}

static struct strview next_after_timer(const struct record *timer, struct arena *a)
{
    char due[RFC3339_LEN + 1];
    if (timer == NULL) return SV("to be decided");
    rfc3339_format(timer->due_ns, due);
    if (sv_eq(timer->purpose, SV("hold")))
        return arena_printf(a, "verified at %s, if no new alert of that name comes", due);
    if (explain_is_follow_up(timer))
        return arena_printf(a, "the follow-up at %s, unless the alert comes again", due);
    return arena_printf(
        a, "verified when the alert resolves; if it does not by %s: the next step or a person", due);
}

static struct strview next_step(const struct explain *x, const struct standing *st, struct arena *a)
{
    if (st->closed != NULL) return next_of_closed(st, a);
    if (st->decided == NULL)
        return st->tick != NULL ? SV("to be decided") : SV("nothing: no runbook takes this alert");
    if (st->has_open_act) return next_after_intent(x, st, a);
    if (st->escalated != NULL) return next_for_person(st, a);
    if (st->decided->kind == RECORD_REFUSAL) return next_after_refusal(st, a);
    return next_after_timer(st->timer, a);
}

/* ---- what to run ---- */

static void add_command(json_t *run, struct strview command)
{
    (void)json_array_append_new(run, json_text(command));
}

static void add_resume(const struct explain *x, struct arena *a, json_t *run)
{
    char since[RFC3339_LEN + 1];
    struct strview by = sv_sub(x->stopped_by, 0, 40), when = {0};
    if (x->stopped_ns != 0) {
        rfc3339_format(x->stopped_ns, since);
        when = arena_printf(a, " since %.19sZ", since);
    }
    add_command(run, arena_printf(a, "balm resume  # acting is stopped%.*s%s%.*s", SV_ARG(when),
                                  by.len > 0 ? " by " : "", SV_ARG(by)));
}

static void add_after_refusal(const struct record *r, struct arena *a, json_t *run)
{
    if (sv_eq(r->gate, SV("mode")))
        add_command(run, arena_printf(a, "balm reload  # after 'mode: act' was written into runbook %.*s",
                                      SV_ARG(r->runbook)));
    else if (sv_eq(r->gate, SV("target")) || sv_eq(r->gate, SV("params")))
        add_command(
            run, arena_printf(a, "balm reload  # after runbook %.*s, or the alert's labels, were put right",
                              SV_ARG(r->runbook)));
}

static void add_of_decision(const struct explain *x, const struct standing *st, struct arena *a, json_t *run)
{
    if (st->decided == NULL && st->tick == NULL)
        add_command(
            run, SV("balm plan --alertmanager URL --runbooks DIR  # what a runbook that you write would do"));
    else if (st->decided == NULL)
        return;
    else if (st->decided->kind == RECORD_REFUSAL)
        add_after_refusal(st->decided, a, run);
    else if (is_overdue(x, st))
        add_command(run, SV("balm status  # is it running, and does the bot answer?"));
    else if (st->has_open_act && !x->is_stopped)
        add_command(run, SV("balm stop  # no bot acts from now on, if this one must not"));
}

static json_t *commands(const struct explain *x, const struct standing *st, struct arena *a)
{
    json_t *run = json_array();
    bool is_skipped = st->closed != NULL && sv_eq(st->closed->state, SV("skipped")); /* so will be the next */
    if (st->closed != NULL && !is_skipped) return run;
    bool waits_for_resume =
        st->has_open_act || (st->decided != NULL && sv_eq(st->decided->gate, SV("freeze")));
    if (x->is_stopped && waits_for_resume) add_resume(x, a, run);
    add_of_decision(x, st, a, run);
    if (is_skipped) return run;
    if (st->dead != NULL)
        add_command(run, arena_printf(a, "balm dead retry %.*s  # or drop it: balm dead list",
                                      SV_ARG(st->dead->intent)));
    if (st->untold != NULL)
        add_command(run,
                    arena_printf(a, "balm dead retry %.*s  # nobody was told; or drop it: balm dead list",
                                 SV_ARG(st->untold->intent)));
    if (st->escalated != NULL && st->closing == NULL)
        add_command(run, arena_printf(a, "balm incident close %.*s --reason TEXT  # once it is repaired",
                                      SV_ARG(x->incident)));
    return run;
}

static void put_text(json_t *o, const char *name, struct strview text)
{
    (void)json_object_set_new(o, name, json_text(text));
}

void explain_put_standing(const struct explain *x, json_t *root, struct arena *a)
{
    struct standing st = {0};
    for (size_t i = 0; i < x->n; i++)
        note(&st, &x->items[i].record);
    put_text(root, "what", what(x, &st, a));
    put_text(root, "next", next_step(x, &st, a));
    (void)json_object_set_new(root, "run", commands(x, &st, a));
}
