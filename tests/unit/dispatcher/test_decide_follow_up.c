/* What follows a repair later, through journals in memory. */
#include "tests/unit/dispatcher/sim.h"

#define RUNBOOK(more)                                                                                        \
    "- name: a\n  match: ['alertname=\"Down\"']\n  target: service/${labels.service}\n  mode: act\n"         \
    "  steps: [{bot: restart}, {bot: reboot}]\n  guardrails: {cooldown: 1s}\n"                               \
    "  follow_up: {after: 10m, bot: diagnose, with: {of: '${incident}'}}\n" more
#define ESCALATE "  escalate: {bot: notify}\n"

static struct sim sim;

static void set_up(void)
{
    sim_init(&sim);
    sim_epoch(&sim, 1);
}

static void tear_down(void)
{
    sim_release(&sim);
}

TestSuite(decide_follow_up, .init = set_up, .fini = tear_down, .timeout = 30);

static void fire(const char *incident, const char *service)
{
    (void)sim_input(&sim, sim_signal(&sim, incident, "firing", "Down", service));
}

static void resolve(const char *incident)
{
    (void)sim_input(&sim, sim_signal(&sim, incident, "resolved", "Down", "x"));
}

static void freeze(bool is_on)
{
    (void)sim_input(&sim, (struct record){.kind = RECORD_FREEZE, .on = is_on, .actor = SV("me")});
}

static const struct record *last(enum record_kind kind, const char *incident)
{
    const struct record *r = sim_last(&sim, kind, incident);
    cr_assert_not_null(r, "no %s of %s", record_kind_name(kind), incident);
    return r;
}

static void expect_closed(const char *incident, const char *state)
{
    cr_assert(sv_eq(last(RECORD_CLOSED, incident)->state, sv(state)));
    cr_assert_null(state_incident(decider_state(sim.decider), sv(incident)));
}

/* An incident that is repaired, with its follow-up to come. */
static void heal(const char *incident, const char *service)
{
    fire(incident, service);
    sim_outcome(&sim, incident, "done");
    resolve(incident);
    const struct incident *inc = state_incident(decider_state(sim.decider), sv(incident));
    cr_assert_not_null(inc);
    cr_assert_eq(inc->phase, INCIDENT_FOLLOWING);
    cr_assert(last(RECORD_VERIFIED, incident)->ok);
}

Test(decide_follow_up, comes_later_as_an_intent_of_its_own)
{
    sim_activate(&sim, RUNBOOK(""));
    int64_t began_ns = sim.now_ns;
    heal("i1", "x");
    const struct record *timer = last(RECORD_TIMER, "i1");
    cr_assert(sv_eq(timer->purpose, SV("follow_up")));
    cr_assert_eq(timer->due_ns, began_ns + 600 * NS_PER_S);
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "i1"), 1);
    cr_assert(sim_fire(&sim));
    const struct record *intent = last(RECORD_INTENT, "i1");
    cr_assert(sv_eq(intent->function, SV("diagnose")) && sv_eq(intent->purpose, SV("follow_up")));
    cr_assert(sv_eq(intent->target, SV("service/x")) && sv_eq(intent->params, SV("{\"of\":\"i1\"}")));
    cr_assert_eq(intent->step, 3);
    sim_outcome(&sim, "i1", "unchanged");
    expect_closed("i1", "healed");
    cr_assert_eq(sim_count(&sim, RECORD_VERIFIED, "i1"), 1);
    cr_assert_eq(decider_state(sim.decider)->n_timers, 0);
}

Test(decide_follow_up, does_not_come_if_the_alert_came_again)
{
    sim_activate(&sim, RUNBOOK(""));
    heal("i1", "x");
    sim.now_ns += 60 * NS_PER_S;
    fire("i2", "x");
    cr_assert(sv_eq(last(RECORD_REFUSAL, "i1")->gate, SV("returned")));
    expect_closed("i1", "healed");
    cr_assert(sv_eq(last(RECORD_INTENT, "i2")->function, SV("restart")));
    cr_assert_eq(decider_state(sim.decider)->n_timers, 0);
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "i1"), 1);
}

Test(decide_follow_up, another_target_or_alert_does_not_stop_it)
{
    sim_activate(
        &sim,
        RUNBOOK("- {name: b, mode: act, match: [alertname=Slow], target: service/x, steps: [{bot: y}],\n"
                "   guardrails: {cooldown: 1s}}\n"));
    heal("i1", "x");
    sim.now_ns += 60 * NS_PER_S;
    fire("i2", "z");
    (void)sim_input(&sim, sim_signal(&sim, "i3", "firing", "Slow", "x"));
    cr_assert_not_null(sim_last(&sim, RECORD_INTENT, "i3")); /* it holds its target no longer */
    cr_assert_null(sim_last(&sim, RECORD_REFUSAL, "i1"));
}

Test(decide_follow_up, frees_the_target_for_those_who_wait)
{
    sim_activate(
        &sim,
        RUNBOOK("- {name: b, mode: act, match: [alertname=Slow], target: service/x, steps: [{bot: y}],\n"
                "   guardrails: {cooldown: 1s}}\n"));
    fire("i1", "x");
    (void)sim_input(&sim, sim_signal(&sim, "i2", "firing", "Slow", "x"));
    cr_assert(sv_eq(last(RECORD_REFUSAL, "i2")->gate, SV("in_flight")));
    sim_outcome(&sim, "i1", "done");
    sim.now_ns += 10 * NS_PER_S;
    resolve("i1");
    cr_assert_not_null(sim_last(&sim, RECORD_INTENT, "i2"));
    cr_assert(sim_fire(&sim)); /* i2's is at work */
    cr_assert(sv_eq(last(RECORD_REFUSAL, "i1")->gate, SV("in_flight")));
    expect_closed("i1", "healed");
}

Test(decide_follow_up, at_its_time_a_closed_gate_drops_it)
{
    sim_activate(&sim, RUNBOOK(""));
    heal("i1", "x");
    freeze(true);
    cr_assert(sim_fire(&sim));
    cr_assert(sv_eq(last(RECORD_REFUSAL, "i1")->gate, SV("freeze")));
    cr_assert(sv_eq(last(RECORD_REFUSAL, "i1")->purpose, SV("follow_up")));
    expect_closed("i1", "healed");
    freeze(false);
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "i1"), 1);
}

Test(decide_follow_up, survives_the_decider)
{
    sim_activate(&sim, RUNBOOK(""));
    heal("i1", "x");
    sim_restart_from_snapshot(&sim);
    sim_epoch(&sim, 2);
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "i1"), 1);
    sim.is_deaf = true;
    cr_assert(sim_fire(&sim)); /* fired, and nobody decides on it */
    sim_restart(&sim);
    sim_epoch(&sim, 3);
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "i1"), 2);
    sim_epoch(&sim, 4);
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "i1"), 2);
    sim_outcome(&sim, "i1", "done");
    expect_closed("i1", "healed");
}

Test(decide_follow_up, one_that_fails_tells_a_person_and_ends)
{
    static const char *const states[] = {"failed", "unknown", "expired", "dead", "refused"};
    sim_activate(&sim, RUNBOOK("" ESCALATE));
    for (size_t i = 0; i < ARRAY_LEN(states); i++) {
        const char *incident = arena_printf(&sim.arena, "i%zu", i).ptr;
        const char *service = arena_printf(&sim.arena, "s%zu", i).ptr;
        heal(incident, service);
        cr_assert(sim_fire(&sim));
        sim_outcome(&sim, incident, states[i]);
        cr_assert(sv_eq(last(RECORD_INTENT, incident)->purpose, SV("escalate")));
        expect_closed(incident, "escalated");
    }
}

Test(decide_follow_up, who_could_not_be_told_while_stopped_is_told_at_the_resume)
{
    sim_activate(&sim, RUNBOOK("" ESCALATE));
    heal("i1", "x");
    cr_assert(sim_fire(&sim));
    freeze(true);
    sim_outcome(&sim, "i1", "failed");
    cr_assert_not_null(state_incident(decider_state(sim.decider), SV("i1")));
    freeze(false);
    cr_assert(sv_eq(last(RECORD_INTENT, "i1")->purpose, SV("escalate")));
    expect_closed("i1", "escalated");
}

Test(decide_follow_up, follows_a_scheduled_run_as_well)
{
    sim_activate(
        &sim,
        "- {name: n, mode: act, schedule: '@daily', target: a, steps: [{bot: x}], follow_up: {after: 1m, bot: y}}\n");
    const struct runbook *rb = state_active(decider_state(sim.decider), SV("n"))->runbook;
    (void)sim_input(&sim, (struct record){.kind = RECORD_TICK,
                                          .incident = SV("t1"),
                                          .runbook = SV("n"),
                                          .runbook_hash = sv(rb->hash),
                                          .due_ns = sim.now_ns});
    sim_outcome(&sim, "t1", "done");
    sim_epoch(&sim, 2);
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "t1"), 1);
    cr_assert(sim_fire(&sim));
    sim_outcome(&sim, "t1", "done");
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "t1"), 2);
    expect_closed("t1", "done");
}

Test(decide_follow_up, nothing_follows_what_was_not_repaired)
{
    sim_activate(&sim, RUNBOOK(""));
    fire("i1", "x");
    sim_outcome(&sim, "i1", "failed");
    sim_outcome(&sim, "i1", "failed");
    resolve("i1");
    expect_closed("i1", "escalated");
    cr_assert_eq(sim_count(&sim, RECORD_TIMER, "i1"), 0);
}
