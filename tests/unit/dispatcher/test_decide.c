/* Each transition of an incident, through journals in memory: what comes in, what is decided. sim.h checks
 * beside it that every one of these journals folds again to the same bytes. */
#include "tests/unit/dispatcher/sim.h"

#define ACT(name, extra)                                                                                     \
    "- name: " name "\n  match: ['alertname=\"Down\"']\n  target: service/${labels.service}\n  mode: act\n"  \
    "  steps:\n    - bot: restart\n      with: {unit: '${labels.service}'}\n" extra

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

TestSuite(decide, .init = set_up, .fini = tear_down, .timeout = 30);

static void fire(const char *incident, const char *service)
{
    (void)sim_input(&sim, sim_signal(&sim, incident, "firing", "Down", service));
}

static void resolve(const char *incident)
{
    (void)sim_input(&sim, sim_signal(&sim, incident, "resolved", "Down", "x"));
}

static void pass(int64_t seconds)
{
    sim.now_ns += seconds * NS_PER_S;
}

static const struct record *last(enum record_kind kind, const char *incident)
{
    const struct record *r = sim_last(&sim, kind, incident);
    cr_assert_not_null(r, "no %s of %s", record_kind_name(kind), incident);
    return r;
}

static void expect_refused(const char *incident, const char *gate)
{
    const struct record *r = last(RECORD_REFUSAL, incident);
    cr_assert(sv_eq(r->gate, sv(gate)), "%s: gate %.*s", incident, SV_ARG(r->gate));
}

static void expect_closed(const char *incident, const char *state)
{
    const struct record *r = last(RECORD_CLOSED, incident);
    cr_assert(sv_eq(r->state, sv(state)), "%s: %.*s", incident, SV_ARG(r->state));
    cr_assert_null(state_incident(decider_state(sim.decider), sv(incident)));
}

Test(decide, a_matching_alert_becomes_an_intent_with_all_gates)
{
    sim_activate(&sim, ACT("rb", ""));
    fire("i1", "nginx");
    const struct record *r = last(RECORD_INTENT, "i1");
    cr_assert(sv_eq(r->function, SV("restart")));
    cr_assert(sv_eq(r->target, SV("service/nginx")));
    cr_assert(sv_eq(r->params, SV("{\"unit\":\"nginx\"}")));
    cr_assert(sv_eq(r->mode, SV("act")));
    cr_assert_eq(r->step, 1);
    cr_assert_eq(r->epoch, 1);
    cr_assert_eq(r->cause, sim.n - 1);
    cr_assert_eq(r->time_ns, sim.now_ns);
    cr_assert_eq(r->deadline_ns, sim.now_ns + INTENT_PATIENCE_NS + 30 * NS_PER_S);
    cr_assert(sv_starts_with(r->intent, SV("i1-1-")));
    static const char *const names[] = {"mode",     "freeze", "clock",     "target",           "params",
                                        "cooldown", "rate",   "in_flight", "in_flight_runbook"};
    json_t *gates;
    cr_assert_eq(json_parse(r->gates, 0, &gates, NULL), STATUS_OK);
    cr_assert_eq(json_array_size(gates), ARRAY_LEN(names));
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const json_t *gate = json_array_get(gates, i);
        cr_assert(sv_eq(json_get_text(gate, "gate"), sv(names[i])));
        cr_assert(json_is_true(json_object_get(gate, "ok")));
        cr_assert_not_null(json_object_get(gate, "limit"));
        cr_assert_not_null(json_object_get(gate, "value"));
    }
    json_decref(gates);
}

Test(decide, an_alert_without_runbook_leaves_nothing)
{
    sim_activate(&sim, ACT("rb", ""));
    size_t before = sim.n;
    (void)sim_input(&sim, sim_signal(&sim, "i1", "firing", "Other", "x"));
    (void)sim_input(&sim, sim_signal(&sim, "i1", "resolved", "Other", "x"));
    cr_assert_eq(sim.n, before + 2);
    cr_assert_eq(decider_state(sim.decider)->n_incidents, 0);
    cr_assert_eq(decider_state(sim.decider)->n_unmatched, 1);
}

Test(decide, the_first_matching_runbook_is_taken_and_one_that_is_off_is_not)
{
    sim_activate(
        &sim, "- {name: sleeping, mode: off, match: ['alertname=Down'], target: a, steps: [{bot: x}]}\n" ACT(
                  "one", "") ACT("two", ""));
    fire("i1", "nginx");
    cr_assert(sv_eq(last(RECORD_INTENT, "i1")->runbook, SV("one")));
}

Test(decide, shadow_records_the_whole_decision_and_does_nothing)
{
    sim_activate(
        &sim,
        "name: rb\nmatch: ['alertname=Down']\ntarget: service/${labels.service}\nsteps: [{bot: restart, with: {unit: '${labels.service}'}}]\n");
    fire("i1", "nginx");
    expect_refused("i1", "mode");
    const struct record *r = last(RECORD_REFUSAL, "i1");
    cr_assert(sv_eq(r->mode, SV("shadow")));
    cr_assert(sv_eq(r->function, SV("restart")) && sv_eq(r->target, SV("service/nginx")) &&
              sv_eq(r->params, SV("{\"unit\":\"nginx\"}")));
    cr_assert(sv_contains(r->gates, SV("\"gate\":\"cooldown\"")));
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, NULL), 0);
    resolve("i1");
    expect_closed("i1", "resolved");
}

Test(decide, a_resolve_after_the_act_heals)
{
    sim_activate(&sim, ACT("rb", ""));
    fire("i1", "nginx");
    pass(1);
    sim_outcome(&sim, "i1", "done");
    const struct record *timer = last(RECORD_TIMER, "i1");
    cr_assert(sv_eq(timer->purpose, SV("verify")));
    cr_assert_eq(timer->due_ns, sim.now_ns + 120 * NS_PER_S);
    pass(5);
    resolve("i1");
    const struct record *verified = last(RECORD_VERIFIED, "i1");
    cr_assert(verified->ok && sv_eq(verified->how, SV("resolve")));
    cr_assert(sv_eq(verified->intent, last(RECORD_INTENT, "i1")->intent));
    expect_closed("i1", "healed");
    cr_assert_not(sim_fire(&sim), "its timer is gone with it");
}

Test(decide, unchanged_waits_for_the_resolve_as_well)
{
    sim_activate(&sim, ACT("rb", ""));
    fire("i1", "nginx");
    sim_outcome(&sim, "i1", "unchanged");
    cr_assert(sv_eq(last(RECORD_TIMER, "i1")->purpose, SV("verify")));
    resolve("i1");
    expect_closed("i1", "healed");
}

Test(decide, a_check_verifies_at_once)
{
    sim_activate(&sim, ACT("rb", "      verify: check\n"));
    fire("i1", "nginx");
    sim_outcome(&sim, "i1", "done");
    const struct record *verified = last(RECORD_VERIFIED, "i1");
    cr_assert(verified->ok && sv_eq(verified->how, SV("check")));
    expect_closed("i1", "healed");
}

Test(decide, an_alert_that_goes_on_leads_to_the_next_rung_and_at_last_to_a_person)
{
    sim_activate(
        &sim,
        ACT("rb",
            "    - bot: reboot\n  escalate: {bot: notify, with: {text: '${labels.service} ${labels.nope}: ${reason}'}}\n"));
    fire("i1", "nginx");
    sim_outcome(&sim, "i1", "done");
    cr_assert(sim_fire(&sim));
    const struct record *verified = last(RECORD_VERIFIED, "i1");
    cr_assert(!verified->ok && sv_eq(verified->how, SV("timeout")));
    const struct record *second = last(RECORD_INTENT, "i1");
    cr_assert(sv_eq(second->function, SV("reboot")) && second->step == 2);
    cr_assert(sv_contains(second->gates, SV("\"in_flight_runbook\"")));
    sim_outcome(&sim, "i1", "done");
    cr_assert(sim_fire(&sim));
    const struct record *told = last(RECORD_ESCALATED, "i1");
    cr_assert(sv_eq(told->function, SV("notify")), "%.*s", SV_ARG(told->function));
    const struct record *message = last(RECORD_INTENT, "i1");
    cr_assert(sv_eq(message->purpose, SV("escalate")) && sv_eq(message->function, SV("notify")));
    cr_assert_geq(message->deadline_ns - message->time_ns, ESCALATION_PATIENCE_NS);
    cr_assert(sv_eq(message->params,
                    SV("{\"text\":\"nginx (none): the alert went on after step 2 of 2, the last\"}")),
              "%.*s", SV_ARG(message->params));
    cr_assert(sv_starts_with(message->target, SV("escalation/")));
    sim_outcome(&sim, "i1", "dead");
    cr_assert_eq(sim_count(&sim, RECORD_ESCALATED, "i1"), 1);
    resolve("i1");
    expect_closed("i1", "escalated");
}

Test(decide, a_failed_act_takes_the_next_rung_at_once)
{
    static const char *const states[] = {"failed", "refused", "dead"};
    sim_activate(&sim, ACT("rb", "    - bot: reboot\n"));
    for (size_t i = 0; i < ARRAY_LEN(states); i++) {
        const char *incident = arena_printf(&sim.arena, "i%zu", i).ptr;
        fire(incident, incident);
        sim_outcome(&sim, incident, states[i]);
        cr_assert(sv_eq(last(RECORD_INTENT, incident)->function, SV("reboot")), "%s", states[i]);
    }
}

Test(decide, an_unknown_outcome_stops_the_ladder)
{
    sim_activate(&sim, ACT("rb", "    - bot: reboot\n"));
    fire("i1", "nginx");
    sim_outcome(&sim, "i1", "unknown");
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "i1"), 1);
    cr_assert(sv_contains(last(RECORD_ESCALATED, "i1")->reason, SV("nobody knows")));
    const struct incident *inc = state_incident(decider_state(sim.decider), SV("i1"));
    cr_assert_eq(inc->phase, INCIDENT_ESCALATED);
}

Test(decide, an_intent_that_expired_is_decided_anew)
{
    sim_activate(&sim, ACT("rb", ""));
    fire("i1", "nginx");
    struct strview first = last(RECORD_INTENT, "i1")->intent;
    pass(400);
    sim_outcome(&sim, "i1", "expired");
    const struct record *again = last(RECORD_INTENT, "i1");
    cr_assert_eq(again->step, 1);
    cr_assert(!sv_eq(again->intent, first));
}

Test(decide, a_resolve_during_the_act_waits_for_its_outcome)
{
    sim_activate(&sim, ACT("rb", ""));
    fire("i1", "nginx");
    resolve("i1");
    cr_assert_null(sim_last(&sim, RECORD_CLOSED, "i1"));
    sim_outcome(&sim, "i1", "done");
    expect_closed("i1", "healed");
    fire("i2", "mysql");
    resolve("i2");
    sim_outcome(&sim, "i2", "refused");
    expect_closed("i2", "resolved");
    fire("i3", "redis");
    resolve("i3");
    sim_outcome(&sim, "i3", "unchanged");
    expect_closed("i3", "resolved");
}

Test(decide, an_expired_alert_is_never_called_healed)
{
    sim_activate(&sim, ACT("rb", ""));
    static const char *const outcomes[] = {NULL, "done", "failed"};
    for (size_t i = 0; i < ARRAY_LEN(outcomes); i++) {
        const char *incident = arena_printf(&sim.arena, "i%zu", i).ptr;
        fire(incident, incident);
        if (i > 0) (void)sim_input(&sim, (struct record){.kind = RECORD_EXPIRED, .incident = sv(incident)});
        if (i > 0) sim_outcome(&sim, incident, outcomes[i]);
        if (i == 0) {
            sim_outcome(&sim, incident, "done");
            (void)sim_input(&sim, (struct record){.kind = RECORD_EXPIRED, .incident = sv(incident)});
        }
        expect_closed(incident, "unknown");
    }
    cr_assert_null(sim_last(&sim, RECORD_VERIFIED, NULL));
}

Test(decide, a_hold_that_passes_heals)
{
    sim_activate(&sim, ACT("rb", "      verify: {check: {hold: 1m}}\n"));
    fire("i1", "nginx");
    sim_outcome(&sim, "i1", "done");
    const struct record *timer = last(RECORD_TIMER, "i1");
    cr_assert(sv_eq(timer->purpose, SV("hold")) && timer->due_ns == sim.now_ns + 60 * NS_PER_S);
    resolve("i1"); /* the act itself can make it vanish: proves nothing */
    cr_assert_null(sim_last(&sim, RECORD_CLOSED, "i1"));
    cr_assert(sim_fire(&sim));
    cr_assert(last(RECORD_VERIFIED, "i1")->ok && sv_eq(last(RECORD_VERIFIED, "i1")->how, SV("hold")));
    expect_closed("i1", "healed");
}

Test(decide, a_new_alert_of_that_name_on_the_target_breaks_the_hold)
{
    sim_activate(&sim, ACT("rb", "      verify: {check: {hold: 1m}}\n    - bot: reboot\n"));
    fire("i1", "nginx");
    sim_outcome(&sim, "i1", "done");
    fire("other", "mysql"); /* another target: nothing to do with it */
    cr_assert_null(sim_last(&sim, RECORD_VERIFIED, "i1"));
    pass(10);
    fire("i2", "nginx");
    const struct record *verified = last(RECORD_VERIFIED, "i1");
    cr_assert(!verified->ok && sv_eq(verified->how, SV("hold")));
    cr_assert(sv_eq(last(RECORD_INTENT, "i1")->function, SV("reboot")), "its own alert goes on: next rung");
    expect_refused("i2", "cooldown");
}

Test(decide, a_resolve_with_hold_waits_and_a_new_episode_breaks_it)
{
    sim_activate(&sim, ACT("rb", "      verify: {resolve: {within: 1m, hold: 30s}}\n"));
    fire("i1", "nginx");
    sim_outcome(&sim, "i1", "done");
    resolve("i1");
    cr_assert(sv_eq(last(RECORD_TIMER, "i1")->purpose, SV("hold")));
    fire("i2", "nginx");
    cr_assert_not(last(RECORD_VERIFIED, "i1")->ok);
    expect_closed("i1", "resolved");
    expect_refused("i2", "cooldown");
}

Test(decide, a_busy_target_refuses_and_the_one_who_waits_is_decided_later)
{
    sim_activate(&sim, ACT("rb", "  guardrails: {cooldown: 30s}\n"));
    fire("i1", "nginx");
    fire("i2", "nginx");
    expect_refused("i2", "in_flight");
    pass(2);
    sim_outcome(&sim, "i1", "done");
    cr_assert_eq(sim_count(&sim, RECORD_REFUSAL, "i2"), 1, "not verified yet: nothing new to say");
    pass(3);
    resolve("i1");
    expect_refused("i2", "cooldown");
    const struct record *timer = last(RECORD_TIMER, "i2");
    cr_assert(sv_eq(timer->purpose, SV("recheck")));
    cr_assert_eq(timer->due_ns, sim.now_ns - 3 * NS_PER_S + 30 * NS_PER_S);
    cr_assert(sim_fire(&sim));
    cr_assert_not_null(sim_last(&sim, RECORD_INTENT, "i2"));
}

static void act_often(int n, int64_t seconds_between)
{
    for (int i = 0; i < n; i++) {
        const char *incident = arena_printf(&sim.arena, "often%lld-%d", (long long)sim.now_ns, i).ptr;
        fire(incident, "nginx");
        sim_outcome(&sim, incident, "done");
        pass(seconds_between);
    }
}

/* A target that is acted on all week long must not cost memory for all of it. */
Test(decide, of_a_target_only_the_acts_that_count_are_remembered)
{
    sim_activate(
        &sim, ACT("rb", "      verify: check\n  guardrails: {cooldown: 1s, rate: {max: 10000, per: 10m}}\n"));
    fire("i0", "nginx");
    const struct target *t = state_incident(decider_state(sim.decider), SV("i0"))->target;
    sim_outcome(&sim, "i0", "done");
    pass(2);
    act_often(700, 2);
    cr_assert_eq(t->n_acts, 301, "the last ten minutes': %zu", t->n_acts);
    pass(3600);
    act_often(1, 2);
    cr_assert_eq(t->n_acts, ACTS_KEPT, "and as many in any case: %zu", t->n_acts);
    sim_restart_from_snapshot(&sim);
    sim_epoch(&sim, 2);
    sim_activate(&sim, ACT("rb", "  guardrails: {cooldown: 1s, rate: {max: 100, per: 24h}}\n"));
    fire("i1", "nginx");
    expect_refused("i1", "rate");
}

Test(decide, two_alerts_of_one_batch_do_not_pass_together)
{
    sim_activate(&sim, ACT("rb", ""));
    struct record both[] = {sim_signal(&sim, "i1", "firing", "Down", "nginx"),
                            sim_signal(&sim, "i2", "firing", "Down", "nginx")};
    (void)sim_feed(&sim, both, 2);
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, NULL), 1);
    expect_refused("i2", "in_flight");
}

Test(decide, the_cooldown_is_between_incidents_not_between_rungs)
{
    sim_activate(&sim,
                 ACT("rb", "    - bot: reboot\n  guardrails: {cooldown: 1h, rate: {max: 9, per: 1h}}\n"));
    fire("i1", "nginx");
    sim_outcome(&sim, "i1", "failed");
    cr_assert_eq(last(RECORD_INTENT, "i1")->step, 2);
    sim_outcome(&sim, "i1", "done");
    resolve("i1");
    fire("i2", "nginx");
    expect_refused("i2", "cooldown");
    resolve("i2");
    expect_closed("i2", "resolved");
    cr_assert_not(sim_fire(&sim));
}

Test(decide, too_many_acts_in_the_window_call_a_person)
{
    sim_activate(
        &sim,
        ACT("rb",
            "      verify: check\n  guardrails: {cooldown: 1s, rate: {max: 2, per: 1h}}\n  escalate: {bot: notify}\n"));
    for (int i = 0; i < 3; i++) {
        const char *incident = arena_printf(&sim.arena, "i%d", i).ptr;
        fire(incident, "nginx");
        if (i < 2) sim_outcome(&sim, incident, "done");
        pass(60);
    }
    expect_refused("i2", "rate");
    cr_assert_eq(sim_count(&sim, RECORD_ESCALATED, "i2"), 1);
    cr_assert(sv_eq(last(RECORD_INTENT, "i2")->purpose, SV("escalate")));
    resolve("i2");
    expect_closed("i2", "escalated");
    pass(3600);
    fire("i9", "nginx");
    cr_assert(sv_eq(last(RECORD_INTENT, "i9")->function, SV("restart")), "the window has passed");
}

Test(decide, a_missing_label_refuses_and_never_means_all)
{
    sim_activate(&sim, ACT("rb", ""));
    fire("i1", NULL);
    expect_refused("i1", "target");
    cr_assert(sv_contains(last(RECORD_REFUSAL, "i1")->reason, SV("labels.service")));
    sim_activate(
        &sim,
        "name: p\nmode: act\nmatch: ['alertname=Down']\ntarget: fixed\nsteps: [{bot: x, with: {a: '${labels.service}'}}]\n");
    fire("i2", NULL);
    expect_refused("i2", "params");
}

Test(decide, a_frozen_platform_decides_nothing_and_goes_on_when_resumed)
{
    sim_activate(&sim, ACT("rb", "  guardrails: {max_in_flight: 2}\n  escalate: {bot: notify}\n"));
    (void)sim_input(&sim, (struct record){.kind = RECORD_FREEZE, .on = true, .actor = SV("me")});
    for (int i = 0; i < 3; i++) {
        const char *incident = arena_printf(&sim.arena, "i%d", i).ptr;
        fire(incident, incident);
        expect_refused(incident, "freeze");
    }
    resolve("i1");
    expect_closed("i1", "resolved");
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, NULL), 0);
    fire("i3", "i3");
    (void)sim_input(&sim, (struct record){.kind = RECORD_FREEZE, .actor = SV("me")});
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, NULL), 2, "as many as may be in flight");
    cr_assert_null(sim_last(&sim, RECORD_INTENT, "i3"));
    sim_outcome(&sim, "i0", "done");
    cr_assert_not_null(sim_last(&sim, RECORD_INTENT, "i3"), "its turn");
}

Test(decide, a_clock_that_jumped_holds_acts_until_it_settled)
{
    sim_activate(&sim, ACT("rb", ""));
    (void)sim_input(&sim, (struct record){.kind = RECORD_CLOCK, .on = true});
    fire("i1", "nginx");
    expect_refused("i1", "clock");
    (void)sim_input(&sim, (struct record){.kind = RECORD_CLOCK});
    cr_assert_not_null(sim_last(&sim, RECORD_INTENT, "i1"));
}

Test(decide, a_runbook_that_is_switched_off_on_the_way_stops_the_ladder)
{
    sim_activate(&sim, ACT("rb", "    - bot: reboot\n"));
    fire("i1", "nginx");
    sim_activate(&sim, ACT("other", ""));
    sim_outcome(&sim, "i1", "failed");
    expect_refused("i1", "mode");
    cr_assert(sv_eq(last(RECORD_REFUSAL, "i1")->mode, SV("off")));
    resolve("i1");
    expect_closed("i1", "resolved");
}

Test(decide, an_incident_keeps_the_text_it_began_with)
{
    sim_activate(&sim, ACT("rb", "    - bot: reboot\n"));
    fire("i1", "nginx");
    sim_activate(&sim, ACT("rb", "    - bot: something-else\n"));
    sim_outcome(&sim, "i1", "failed");
    cr_assert(sv_eq(last(RECORD_INTENT, "i1")->function, SV("reboot")));
}

Test(decide, signals_seen_again_and_stray_ones_change_nothing)
{
    sim_activate(&sim, ACT("rb", ""));
    fire("i1", "nginx");
    size_t before = sim.n;
    fire("i1", "nginx");
    resolve("never-seen");
    (void)sim_input(&sim, (struct record){.kind = RECORD_SEEN, .incident = SV("i1")});
    (void)sim_input(&sim, (struct record){.kind = RECORD_FIRED, .incident = SV("i1"), .timer = 1});
    (void)sim_input(&sim, (struct record){.kind = RECORD_OUTCOME,
                                          .incident = SV("i1"),
                                          .intent = SV("another"),
                                          .state = SV("done")});
    cr_assert_eq(sim.n, before + 5);
}

Test(decide, who_takes_over_continues_what_was_left)
{
    sim_activate(&sim, ACT("rb", ""));
    fire("acting", "a");
    fire("ended", "b");
    fire("verifying", "c");
    sim_outcome(&sim, "verifying", "done");
    sim.is_deaf = true; /* the decider dies; inputs go on */
    fire("fresh", "d");
    sim_outcome(&sim, "ended", "done");
    resolve("verifying");
    sim_restart(&sim);
    cr_assert_null(sim_last(&sim, RECORD_INTENT, "fresh"));
    sim_epoch(&sim, 2);
    cr_assert_eq(last(RECORD_INTENT, "fresh")->epoch, 2);
    cr_assert(sv_eq(last(RECORD_TIMER, "ended")->purpose, SV("verify")));
    expect_closed("verifying", "healed");
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "acting"), 1);
    struct decide_report report;
    decide_check_report(sim.check, &report);
    cr_assert_gt(report.n_undecided, 0);
    cr_assert_eq(report.bad_seq, 0);
}

Test(decide, records_of_a_relieved_decider_are_void)
{
    sim_activate(&sim, ACT("rb", ""));
    fire("i1", "nginx");
    sim_epoch(&sim, 2);
    struct record stale = *last(RECORD_INTENT, "i1");
    stale.kind = RECORD_CLOSED;
    stale.state = SV("healed");
    sim_push(&sim, &stale);
    sim_show(&sim);
    cr_assert_not_null(state_incident(decider_state(sim.decider), SV("i1")));
    cr_assert_eq(decider_state(sim.decider)->n_void, 1);
}

Test(decide, a_forged_record_is_found)
{
    sim_activate(&sim, ACT("rb", ""));
    fire("i1", "nginx");
    struct record forged = *last(RECORD_INTENT, "i1");
    forged.function = SV("rm-rf");
    struct buf b;
    buf_init(&b, RECORD_BYTES_MAX);
    record_encode(&forged, &b);
    struct decide_check *check = decide_check_new();
    bool is_same = true;
    for (size_t i = 0; i < sim.n && is_same; i++) {
        bool is_last = i + 1 == sim.n;
        is_same = decide_check_add(check, i + 1, is_last ? &forged : &sim.log[i]->record,
                                   is_last ? buf_view(&b) : sim.log[i]->bytes);
    }
    struct decide_report report;
    decide_check_report(check, &report);
    cr_assert_not(is_same);
    cr_assert_eq(report.bad_seq, sim.n);
    cr_assert(sv_contains(sv(report.found), SV("rm-rf")));
    buf_release(&b);
    decide_check_free(check);
}

Test(decide, many_who_wait_are_woken_in_portions)
{
    sim_activate(&sim, ACT("rb", "  guardrails: {max_in_flight: 100, cooldown: 1s}\n"));
    (void)sim_input(&sim, (struct record){.kind = RECORD_FREEZE, .on = true});
    for (int i = 0; i < 90; i++) {
        const char *incident = arena_printf(&sim.arena, "i%d", i).ptr;
        fire(incident, incident);
    }
    (void)sim_input(&sim, (struct record){.kind = RECORD_FREEZE});
    size_t first = sim_count(&sim, RECORD_INTENT, NULL);
    cr_assert(first > 0 && first < 90, "%zu", first);
    cr_assert(sv_eq(sim_last(&sim, RECORD_TIMER, NULL)->purpose, SV("wake")));
    cr_assert(sim_fire(&sim));
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, NULL), 90);
    cr_assert_not(sim_fire(&sim));
}

Test(decide, old_acts_and_their_targets_are_forgotten)
{
    sim_activate(&sim, ACT("rb", "      verify: check\n"));
    for (int i = 0; i < 50; i++) {
        const char *incident = arena_printf(&sim.arena, "i%d", i).ptr;
        fire(incident, incident);
        sim_outcome(&sim, incident, "done");
    }
    cr_assert_eq(decider_state(sim.decider)->n_targets, 50);
    pass(8 * 24 * 3600);
    for (int i = 50; i < 70; i++) {
        const char *incident = arena_printf(&sim.arena, "i%d", i).ptr;
        fire(incident, incident);
    }
    cr_assert_eq(decider_state(sim.decider)->n_targets, 20);
}

Test(decide, a_storm_on_one_target_costs_a_few_records_a_cooldown)
{
    sim_activate(
        &sim, ACT("rb", "      verify: check\n  guardrails: {cooldown: 10s, rate: {max: 100, per: 1h}}\n"));
    for (int i = 0; i < 200; i++)
        fire(arena_printf(&sim.arena, "i%d", i).ptr, "nginx");
    for (int i = 0; i < 20; i++) {
        sim_outcome(&sim, arena_cstr(&sim.arena, sim_last(&sim, RECORD_INTENT, NULL)->incident), "done");
        size_t before = sim.n, n_intents = sim_count(&sim, RECORD_INTENT, NULL);
        cr_assert(sim_fire(&sim), "somebody always has the timer");
        cr_assert_eq(sim_count(&sim, RECORD_INTENT, NULL), n_intents + 1, "round %d", i);
        cr_assert_leq(sim.n - before, 6);
    }
}

Test(decide, when_the_one_with_the_timer_goes_another_takes_it)
{
    sim_activate(&sim, ACT("rb", "      verify: check\n  guardrails: {cooldown: 10s}\n"));
    fire("i0", "nginx");
    sim_outcome(&sim, "i0", "done");
    fire("i1", "nginx");
    fire("i2", "nginx");
    cr_assert_not_null(sim_last(&sim, RECORD_TIMER, "i1"));
    cr_assert_null(sim_last(&sim, RECORD_TIMER, "i2"));
    resolve("i1");
    cr_assert_not_null(sim_last(&sim, RECORD_TIMER, "i2"));
    cr_assert(sim_fire(&sim));
    cr_assert_not_null(sim_last(&sim, RECORD_INTENT, "i2"));
}

Test(decide, waking_ends_although_everybody_still_waits)
{
    sim_activate(&sim, ACT("rb", "  guardrails: {max_in_flight: 100}\n"));
    for (int i = 0; i < 150; i++)
        fire(arena_printf(&sim.arena, "i%d", i).ptr, "nginx");
    fire("other", "mysql");
    size_t before = sim.n;
    (void)sim_input(&sim, (struct record){.kind = RECORD_FREEZE, .on = true});
    (void)sim_input(&sim, (struct record){.kind = RECORD_FREEZE});
    sim_outcome(&sim, "other", "done");
    cr_assert_leq(sim.n - before, 6, "%zu records", sim.n - before);
}

/* ---- what a stop, a refusal or a clock must not swallow ---- */

#define ESC "  escalate:\n    bot: notify\n    with: {text: '${reason}'}\n"

Test(decide, an_escalation_while_acting_is_stopped_is_told_after_resume)
{
    sim_activate(&sim, ACT("rb", "") ESC);
    fire("i1", "nginx");
    (void)sim_input(&sim, (struct record){.kind = RECORD_FREEZE, .on = true, .actor = SV("a")});
    sim_outcome(&sim, "i1", "failed");
    cr_assert_eq(sim_count(&sim, RECORD_ESCALATED, "i1"), 1);
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "i1"), 1);
    cr_assert_str_eq(arena_cstr(&sim.arena, last(RECORD_REFUSAL, "i1")->gate), "freeze");
    sim_epoch(&sim, 2);
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "i1"), 1, "still stopped");
    (void)sim_input(&sim, (struct record){.kind = RECORD_FREEZE, .on = false, .actor = SV("a")});
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "i1"), 2);
    const struct record *told = last(RECORD_INTENT, "i1");
    cr_assert(sv_eq(told->purpose, SV("escalate")) && sv_contains(told->params, SV("the act failed")), "%.*s",
              SV_ARG(told->params));
    (void)sim_input(&sim, (struct record){.kind = RECORD_FREEZE, .on = true, .actor = SV("a")});
    (void)sim_input(&sim, (struct record){.kind = RECORD_FREEZE, .on = false, .actor = SV("a")});
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "i1"), 2, "told once");
    resolve("i1");
    expect_closed("i1", "escalated");
}

Test(decide, who_waits_is_woken_when_the_newcomer_that_freed_the_target_is_refused)
{
    sim_activate(&sim,
                 "- name: shadowed\n  match: ['alertname=\"Down\"', 'service=\"t\"', 'x=\"1\"']\n"
                 "  target: service/t\n  steps:\n    - bot: restart\n"
                 "- name: rb\n  match: ['alertname=~\"Down|Slow\"']\n  target: service/${labels.service}\n"
                 "  mode: act\n  guardrails: {cooldown: 1s}\n  steps:\n    - bot: restart\n"
                 "      verify: {resolve: {within: 2m, hold: 5m}}\n");
    fire("a", "t");
    sim_outcome(&sim, "a", "done");
    resolve("a"); /* holding */
    pass(10);
    (void)sim_input(&sim, sim_signal(&sim, "b", "firing", "Slow", "t"));
    expect_refused("b", "in_flight");
    pass(10);
    struct record r = sim_signal(&sim, "c", "firing", "Down", "t");
    struct http_header labels[] = {r.labels.items[0], r.labels.items[1], {SV("x"), SV("1")}};
    r.labels = (struct record_labels){labels, ARRAY_LEN(labels)};
    (void)sim_input(&sim, r);
    expect_refused("c", "mode");
    expect_closed("a", "resolved");
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "b"), 1);
}

/* The wall clock jumps by `jump_s` and is seen to have. */
static void turn_clock(int64_t jump_s)
{
    char detail[64];
    sim.now_ns += jump_s * NS_PER_S;
    (void)snprintf(detail, sizeof(detail), "{\"jumpNs\":%lld}", (long long)(jump_s * NS_PER_S));
    (void)sim_input(&sim, (struct record){.kind = RECORD_CLOCK, .on = true, .detail = sv(detail)});
    pass(10);
    (void)sim_input(&sim, (struct record){.kind = RECORD_CLOCK});
}

Test(decide, a_cooldown_lasts_as_long_whichever_way_the_clock_jumps)
{
    for (int64_t jump_s = -86400; jump_s <= 86400; jump_s += 172800) {
        sim_release(&sim);
        sim_init(&sim);
        sim_epoch(&sim, 1);
        sim_activate(&sim, ACT("rb", ""));
        pass(10);
        fire("a", "t");
        sim_outcome(&sim, "a", "done");
        resolve("a");
        pass(60);
        turn_clock(jump_s);
        fire("b", "t");
        expect_refused("b", "cooldown");
        const struct timer *t = state_next_timer(decider_state(sim.decider));
        cr_assert_not_null(t);
        int64_t left_s = (t->due_ns - sim.now_ns) / NS_PER_S;
        cr_assert(left_s > 13 * 60 && left_s < 15 * 60, "%lld s of 15 min are left, 70 s have passed",
                  (long long)left_s);
        cr_assert(sim_fire(&sim));
        cr_assert_eq(sim_count(&sim, RECORD_INTENT, "b"), 1, "jump of %lld s", (long long)jump_s);
    }
}

Test(decide, timers_keep_their_distance_when_the_clock_jumps)
{
    sim_activate(&sim, ACT("rb", ""));
    fire("a", "t");
    sim_outcome(&sim, "a", "done"); /* verifying */
    int64_t left_ns = state_next_timer(decider_state(sim.decider))->due_ns - sim.now_ns;
    turn_clock(-3600);
    pass(-10);
    cr_assert_eq(state_next_timer(decider_state(sim.decider))->due_ns - sim.now_ns, left_ns);
    turn_clock(7200);
    pass(-10);
    cr_assert_eq(state_next_timer(decider_state(sim.decider))->due_ns - sim.now_ns, left_ns);
}

/* ---- stuck: for people ---- */

static bool is_stuck_after(const char *incident, int64_t from_ns, int64_t seconds)
{
    const struct state *s = decider_state(sim.decider);
    return incident_is_stuck(s, state_incident(s, sv(incident)), from_ns + seconds * NS_PER_S);
}

Test(decide, an_act_is_stuck_once_its_deadline_and_two_minutes_are_over)
{
    sim_activate(&sim, ACT("rb", ""));
    fire("i1", "nginx");
    int64_t deadline_ns = last(RECORD_INTENT, "i1")->deadline_ns;
    cr_expect_not(is_stuck_after("i1", deadline_ns, 120));
    cr_expect(is_stuck_after("i1", deadline_ns, 121));
    (void)sim_input(&sim, (struct record){.kind = RECORD_FREEZE, .on = true, .actor = SV("me")});
    cr_expect_not(is_stuck_after("i1", deadline_ns, 121), "nothing is stuck while acting is stopped");
}

Test(decide, a_verification_is_stuck_once_its_timer_and_two_minutes_are_over)
{
    sim_activate(&sim, ACT("rb", "      verify: {resolve: {within: 60s}}\n"));
    fire("i1", "nginx");
    sim_outcome(&sim, "i1", "done");
    int64_t due_ns = last(RECORD_TIMER, "i1")->due_ns;
    cr_expect_not(is_stuck_after("i1", due_ns, 120));
    cr_expect(is_stuck_after("i1", due_ns, 121));
}

Test(decide, who_waits_for_others_or_for_a_person_is_not_stuck)
{
    sim_activate(&sim, ACT("rb", ""));
    fire("i1", "nginx");
    fire("i2", "nginx");
    expect_refused("i2", "in_flight");
    cr_expect_not(is_stuck_after("i2", sim.now_ns, 86400));
    cr_expect(is_stuck_after("i2", sim.now_ns, 86401));
    int64_t since_ns = sim.now_ns;
    turn_clock(-7200);
    cr_expect_not(is_stuck_after("i2", since_ns - 7200 * NS_PER_S, 86400), "the clock's turn is no wait");
    cr_expect(is_stuck_after("i2", since_ns - 7200 * NS_PER_S, 86401));
    sim_outcome(&sim, "i1", "unknown");
    cr_assert_not_null(sim_last(&sim, RECORD_ESCALATED, "i1"));
    cr_expect_not(is_stuck_after("i1", sim.now_ns, 1000 * 86400));
}

/* ---- runbooks that only tell ---- */

#define TELL(mode)                                                                                           \
    "name: rb\nmatch: ['alertname=\"Down\"']\ntarget: service/${labels.service}\nmode: " mode "\n"           \
    "escalate: {bot: notify, with: {title: '${labels.service}'}}\n"

Test(decide, a_runbook_without_steps_tells_a_person_at_once)
{
    sim_activate(&sim, TELL("act"));
    fire("i1", "nginx");
    cr_assert_not_null(sim_last(&sim, RECORD_ESCALATED, "i1"));
    const struct record *r = last(RECORD_INTENT, "i1");
    cr_assert(sv_eq(r->function, SV("notify")));
    cr_assert(sv_eq(r->purpose, SV("escalate")));
    cr_assert(sv_eq(r->params, SV("{\"title\":\"nginx\"}")));
    sim_outcome(&sim, "i1", "done");
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "i1"), 1);
    resolve("i1");
    expect_closed("i1", "escalated");
}

Test(decide, a_runbook_without_steps_tells_once_acting_is_resumed)
{
    sim_activate(&sim, TELL("act"));
    (void)sim_input(&sim, (struct record){.kind = RECORD_FREEZE, .on = true, .actor = SV("me")});
    fire("i1", "nginx");
    expect_refused("i1", "freeze");
    cr_assert_null(sim_last(&sim, RECORD_INTENT, "i1"));
    sim_epoch(&sim, 2); /* a new decider says nothing new about it */
    cr_assert_eq(sim_count(&sim, RECORD_REFUSAL, "i1"), 1);
    (void)sim_input(&sim, (struct record){.kind = RECORD_FREEZE, .on = false, .actor = SV("me")});
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "i1"), 1);
    sim_epoch(&sim, 3);
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "i1"), 1);
}

Test(decide, a_runbook_without_steps_is_silent_in_shadow)
{
    sim_activate(&sim, TELL("shadow"));
    fire("i1", "nginx");
    expect_refused("i1", "mode");
    cr_assert_null(sim_last(&sim, RECORD_INTENT, "i1"));
    cr_assert_null(sim_last(&sim, RECORD_ESCALATED, "i1"));
    resolve("i1");
    expect_closed("i1", "resolved");
}
