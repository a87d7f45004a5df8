/* What a person does to incidents and their dead acts, decided on journals in memory: closing one, having an
 * act retried. sim.h checks beside it that every one of these journals folds again to the same bytes. */
#include "tests/unit/dispatcher/sim.h"

#define RUNBOOK(guardrails, more_steps)                                                                      \
    "name: rb\nmatch: ['alertname=\"Down\"']\ntarget: service/${labels.service}\nmode: act\n"                \
    "guardrails: {" guardrails "}\nsteps:\n  - bot: restart\n" more_steps "escalate: {bot: notify}\n"

static const char one_step[] = RUNBOOK("cooldown: 1s", "");
static const char two_steps[] = RUNBOOK("cooldown: 1s", "  - bot: reboot\n");

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

TestSuite(steer, .init = set_up, .fini = tear_down, .timeout = 30);

static void fire(const char *incident)
{
    (void)sim_input(&sim, sim_signal(&sim, incident, "firing", "Down", "nginx"));
}

static void resolve(const char *incident)
{
    (void)sim_input(&sim, sim_signal(&sim, incident, "resolved", "Down", "nginx"));
}

static struct record close_record(const char *incident)
{
    return (struct record){
        .kind = RECORD_CLOSE, .incident = sv(incident), .actor = SV("alice"), .reason = SV("mended by hand")};
}

static void close_incident(const char *incident)
{
    (void)sim_input(&sim, close_record(incident));
}

/* The newest intent of an incident, for telling a person or not. */
static const struct record *last_intent(const char *incident, bool is_escalation)
{
    for (size_t i = sim.n; i > 0; i--) {
        const struct record *r = &sim.log[i - 1]->record;
        if (r->kind == RECORD_INTENT && sv_eq(r->incident, sv(incident)) &&
            (r->purpose.len > 0) == is_escalation)
            return r;
    }
    return NULL;
}

static void end_act(const char *incident, bool is_escalation, const char *state)
{
    const struct record *intent = last_intent(incident, is_escalation);
    cr_assert_not_null(intent);
    (void)sim_input(&sim, (struct record){.kind = RECORD_OUTCOME,
                                          .incident = intent->incident,
                                          .intent = intent->intent,
                                          .function = intent->function,
                                          .target = intent->target,
                                          .state = sv(state)});
}

static struct record retry_of(const struct record *intent)
{
    return (struct record){.kind = RECORD_RETRY,
                           .incident = intent->incident,
                           .intent = intent->intent,
                           .function = intent->function,
                           .purpose = intent->purpose,
                           .step = intent->step,
                           .state = SV("anew"),
                           .actor = SV("alice")};
}

static const struct incident *get(const char *incident)
{
    const struct incident *inc = state_incident(decider_state(sim.decider), sv(incident));
    cr_assert_not_null(inc);
    return inc;
}

static void expect_closed(const char *incident, const char *state)
{
    const struct record *r = sim_last(&sim, RECORD_CLOSED, incident);
    cr_assert_not_null(r);
    cr_assert(sv_eq(r->state, sv(state)), "%.*s", SV_ARG(r->state));
    cr_assert_null(state_incident(decider_state(sim.decider), sv(incident)));
}

/* ---- closing ---- */

Test(steer, a_closed_incident_acts_no_more_and_its_timer_is_dropped)
{
    sim_activate(&sim, two_steps);
    fire("i1");
    end_act("i1", false, "done");
    cr_assert_eq(get("i1")->phase, INCIDENT_VERIFYING);
    close_incident("i1");
    expect_closed("i1", "manual");
    cr_assert_null(state_next_timer(decider_state(sim.decider)));
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "i1"), 1);
}

Test(steer, who_waited_for_the_target_of_a_closed_incident_goes_on)
{
    sim_activate(&sim, one_step);
    fire("i1");
    end_act("i1", false, "done");
    sim.now_ns += 10 * NS_PER_S;
    fire("i2");
    cr_assert_eq(get("i2")->phase, INCIDENT_WAITING);
    close_incident("i1");
    expect_closed("i1", "manual");
    cr_assert_eq(get("i2")->phase, INCIDENT_ACTING);
}

Test(steer, an_act_under_way_is_awaited_before_its_incident_is_closed)
{
    sim_activate(&sim, two_steps);
    fire("i1");
    fire("i2");
    close_incident("i1");
    sim_restart_from_snapshot(&sim);
    sim_epoch(&sim, 2);
    cr_assert(get("i1")->is_closing && get("i1")->phase == INCIDENT_ACTING);
    cr_assert_eq(get("i2")->phase, INCIDENT_WAITING, "two acts never run on one target at once");
    end_act("i1", false, "failed");
    expect_closed("i1", "manual");
    cr_assert_null(sim_last(&sim, RECORD_ESCALATED, "i1"));
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "i1"), 1, "no next rung");
}

Test(steer, an_act_that_is_long_overdue_keeps_no_incident_open)
{
    sim_activate(&sim, one_step);
    fire("i1");
    fire("i2");
    close_incident("i1");
    sim.now_ns = get("i1")->deadline_ns + 100 * NS_PER_S;
    close_incident("i1");
    cr_assert_eq(get("i1")->phase, INCIDENT_ACTING);
    sim.now_ns += 30 * NS_PER_S;
    close_incident("i1");
    expect_closed("i1", "manual");
    cr_assert_eq(get("i2")->phase, INCIDENT_DELAYED, "it counts as ended now");
    end_act("i1", false, "done"); /* late, and of no consequence */
    cr_assert_eq(get("i2")->slot->n_acting, 0);
    cr_assert_null(sim_last(&sim, RECORD_VERIFIED, "i1"));
}

Test(steer, the_same_episode_does_not_open_a_closed_incident_again)
{
    sim_activate(&sim, one_step);
    fire("i1");
    end_act("i1", false, "done");
    close_incident("i1");
    fire("i1");
    (void)sim_input(&sim, (struct record){.kind = RECORD_EXPIRED, .incident = SV("i1")});
    sim_restart_from_snapshot(&sim);
    sim_epoch(&sim, 2);
    fire("i1");
    cr_assert_null(state_incident(decider_state(sim.decider), SV("i1")));
    fire("i2");
    cr_assert_eq(get("i2")->phase, INCIDENT_DELAYED, "a new episode acts as ever, through all gates");
    resolve("i1");
    cr_assert_eq(decider_state(sim.decider)->n_dismissed, 0);
}

Test(steer, closed_incidents_are_remembered_within_bounds)
{
    sim_activate(&sim, one_step);
    for (int i = 0; i < 3; i++) {
        const char *id = arena_printf(&sim.arena, "i%d", i).ptr;
        (void)sim_input(&sim, sim_signal(&sim, id, "firing", "Down", id));
        end_act(id, false, "done");
        close_incident(id);
    }
    cr_assert_eq(decider_state(sim.decider)->n_dismissed, 3);
    (void)sim_input(&sim, close_record("i0")); /* of one that is closed: nothing */
    cr_assert_eq(decider_state(sim.decider)->n_dismissed, 3);
}

Test(steer, a_close_that_was_not_decided_on_is_made_up_for_by_the_next_decider)
{
    sim_activate(&sim, one_step);
    fire("i1");
    (void)sim_input(&sim, (struct record){.kind = RECORD_FREEZE, .on = true});
    (void)sim_input(&sim, sim_signal(&sim, "i2", "firing", "Down", "other"));
    cr_assert_eq(get("i2")->phase, INCIDENT_WAITING);
    (void)sim_input(&sim, (struct record){.kind = RECORD_FREEZE});
    (void)sim_input(&sim, sim_signal(&sim, "i3", "firing", "Down", "nginx"));
    sim.is_deaf = true;
    (void)sim_input(&sim, close_record("i3"));
    sim_restart(&sim);
    sim_epoch(&sim, 2);
    expect_closed("i3", "manual");
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "i3"), 0);
}

/* ---- retrying ---- */

Test(steer, a_dead_act_is_decided_on_anew_under_another_intent)
{
    sim_activate(&sim, one_step);
    fire("i1");
    end_act("i1", false, "dead");
    cr_assert_eq(get("i1")->phase, INCIDENT_ESCALATED);
    struct record first = *last_intent("i1", false);
    cr_assert_null(incident_refuses_retry(get("i1"), first.intent, false));
    (void)sim_input(&sim, retry_of(&first));
    const struct record *again = last_intent("i1", false);
    cr_assert(!sv_eq(again->intent, first.intent));
    cr_assert_eq(again->step, 1);
    cr_assert_eq(get("i1")->phase, INCIDENT_ACTING);
    end_act("i1", false, "done");
    resolve("i1");
    expect_closed("i1", "healed");
}

Test(steer, a_retry_passes_all_gates)
{
    sim_activate(&sim, RUNBOOK("cooldown: 1s, rate: {max: 1, per: 1h}", ""));
    fire("i1");
    end_act("i1", false, "dead");
    (void)sim_input(&sim, retry_of(last_intent("i1", false)));
    cr_assert(sv_eq(sim_last(&sim, RECORD_REFUSAL, "i1")->gate, SV("rate")));
    cr_assert_eq(get("i1")->phase, INCIDENT_ESCALATED);
}

Test(steer, a_retry_while_acting_is_stopped_waits_for_the_resume)
{
    sim_activate(&sim, one_step);
    fire("i1");
    end_act("i1", false, "dead");
    (void)sim_input(&sim, (struct record){.kind = RECORD_FREEZE, .on = true});
    (void)sim_input(&sim, retry_of(last_intent("i1", false)));
    cr_assert_eq(get("i1")->phase, INCIDENT_WAITING);
    (void)sim_input(&sim, (struct record){.kind = RECORD_FREEZE});
    cr_assert_eq(get("i1")->phase, INCIDENT_ACTING);
}

Test(steer, no_act_is_retried_behind_the_back_of_a_later_one)
{
    sim_activate(&sim, two_steps);
    fire("i1");
    struct record first = *last_intent("i1", false);
    end_act("i1", false, "dead");
    cr_assert(sv_eq(last_intent("i1", false)->function, SV("reboot")));
    cr_assert_not_null(incident_refuses_retry(get("i1"), first.intent, false));
    size_t n = sim_count(&sim, RECORD_INTENT, "i1");
    (void)sim_input(&sim, retry_of(&first));
    end_act("i1", false, "done");
    (void)sim_input(&sim, retry_of(&first));
    (void)sim_input(&sim, retry_of(last_intent("i1", false)));
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "i1"), n);
    cr_assert_eq(get("i1")->phase, INCIDENT_VERIFYING);
    struct record odd = retry_of(last_intent("i1", false));
    odd.incident = SV("nobody");
    (void)sim_input(&sim, odd);
}

Test(steer, nothing_is_retried_once_the_alert_is_over)
{
    sim_activate(&sim, one_step);
    fire("i1");
    end_act("i1", false, "dead");
    struct record first = *last_intent("i1", false);
    resolve("i1");
    expect_closed("i1", "escalated");
    (void)sim_input(&sim, retry_of(&first));
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "i1"), 2, "one act, one message");
}

Test(steer, a_message_that_died_is_told_once_more_with_its_reason)
{
    sim_activate(&sim, one_step);
    fire("i1");
    end_act("i1", false, "failed");
    struct record first = *last_intent("i1", true);
    end_act("i1", true, "dead");
    sim_restart_from_snapshot(&sim);
    sim_epoch(&sim, 2);
    cr_assert_null(incident_refuses_retry(get("i1"), first.intent, true));
    (void)sim_input(&sim, retry_of(&first));
    const struct record *again = last_intent("i1", true);
    cr_assert(!sv_eq(again->intent, first.intent));
    cr_assert(sv_eq(again->params, first.params));
    cr_assert_eq(get("i1")->phase, INCIDENT_ESCALATED);
    cr_assert_eq(sim_count(&sim, RECORD_ESCALATED, "i1"), 1);
    sim_epoch(&sim, 3);
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "i1"), 3, "told once");
}

Test(steer, a_retry_that_was_not_decided_on_is_made_up_for_by_the_next_decider)
{
    sim_activate(&sim, one_step);
    fire("i1");
    end_act("i1", false, "dead");
    end_act("i1", true, "dead");
    struct record act = retry_of(last_intent("i1", false)), message = retry_of(last_intent("i1", true));
    sim.is_deaf = true;
    (void)sim_input(&sim, message);
    sim_restart(&sim);
    sim_epoch(&sim, 2);
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "i1"), 3);
    sim.is_deaf = true;
    (void)sim_input(&sim, act);
    sim_restart_from_snapshot(&sim);
    sim_epoch(&sim, 3);
    cr_assert_eq(get("i1")->phase, INCIDENT_ACTING);
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "i1"), 4);
}
