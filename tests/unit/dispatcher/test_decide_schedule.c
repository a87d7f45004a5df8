/* Runs that a schedule starts, through journals in memory: what a tick leads to, and that each time comes
 * once. */
#include "tests/unit/dispatcher/sim.h"

#define NIGHTLY(more)                                                                                        \
    "- name: nightly\n  schedule: '30 3 * * *'\n  time_zone: Europe/Berlin\n  target: disk/a\n"              \
    "  steps:\n    - {bot: clean, with: {at: '${annotations.time}'}}\n" more
#define ACT "  mode: act\n"

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

TestSuite(decide_schedule, .init = set_up, .fini = tear_down, .timeout = 30);

/* As the ticker writes it. `before_s`: the time before it that came too, 0 for none; both in seconds from
 * now. */
static void tick(const char *incident, const char *runbook, int64_t due_s, int64_t before_s)
{
    const struct active_runbook *active = state_active(decider_state(sim.decider), sv(runbook));
    cr_assert_not_null(active);
    const struct runbook *rb = active->runbook;
    int64_t due_ns = INT64_C(1700000000) * NS_PER_S + due_s * NS_PER_S;
    int64_t before_ns = before_s == 0 ? 0 : INT64_C(1700000000) * NS_PER_S + before_s * NS_PER_S;
    (void)sim_input(&sim,
                    (struct record){.kind = RECORD_TICK,
                                    .source = SV("schedule"),
                                    .incident = sv(incident),
                                    .fingerprint = SV("0123456789abcdef"),
                                    .runbook = rb->name,
                                    .runbook_hash = sv(rb->hash),
                                    .due_ns = due_ns,
                                    .labels = runbook_tick_labels(rb, &sim.arena),
                                    .annotations = runbook_tick_annotations(due_ns, &sim.arena),
                                    .detail = arena_printf(&sim.arena, "{\"beforeNs\":%lld,\"skipped\":0}",
                                                           (long long)before_ns)});
}

static const struct record *last(enum record_kind kind, const char *incident)
{
    const struct record *r = sim_last(&sim, kind, incident);
    cr_assert_not_null(r, "no %s of %s", record_kind_name(kind), incident);
    return r;
}

static void expect_closed(const char *incident, const char *state)
{
    const struct record *r = last(RECORD_CLOSED, incident);
    cr_assert(sv_eq(r->state, sv(state)), "%s: %.*s", incident, SV_ARG(r->state));
    cr_assert_null(state_incident(decider_state(sim.decider), sv(incident)));
}

static void expect_skipped(const char *incident, const char *gate)
{
    const struct record *r = last(RECORD_REFUSAL, incident);
    cr_assert(sv_eq(r->gate, sv(gate)), "%s: gate %.*s", incident, SV_ARG(r->gate));
    expect_closed(incident, "skipped");
}

Test(decide_schedule, a_tick_becomes_an_intent_that_the_bots_own_check_verifies)
{
    sim_activate(&sim, NIGHTLY(ACT));
    tick("t1", "nightly", 60, 0);
    const struct record *intent = last(RECORD_INTENT, "t1");
    cr_assert(sv_eq(intent->function, SV("clean")) && sv_eq(intent->target, SV("disk/a")));
    cr_assert(sv_eq(intent->params, SV("{\"at\":\"2023-11-14T22:14:20.000000000Z\"}")), "%.*s",
              SV_ARG(intent->params));
    sim_outcome(&sim, "t1", "done");
    cr_assert(last(RECORD_VERIFIED, "t1")->ok);
    expect_closed("t1", "done");
    cr_assert_eq(decider_state(sim.decider)->n_incidents, 0);
}

Test(decide_schedule, the_same_time_comes_once)
{
    sim_activate(&sim, NIGHTLY(ACT "  guardrails: {cooldown: 1s}\n"));
    tick("t1", "nightly", 60, 0);
    sim_outcome(&sim, "t1", "done");
    sim.now_ns += 100 * NS_PER_S;
    tick("t1", "nightly", 60, 0);
    tick("t2", "nightly", 120, 60);
    sim_outcome(&sim, "t2", "done");
    sim.now_ns += 100 * NS_PER_S;
    tick("t3", "nightly", 60, 0);
    tick("t4", "nightly", 120, 60);
    tick("t5", "nightly", 90, 0); /* between two that came one after the other there is nothing */
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, NULL), 2);
    /* A new process knows it from the journal, or from a snapshot. */
    sim_restart(&sim);
    sim_epoch(&sim, 2);
    tick("t6", "nightly", 120, 60);
    sim_restart_from_snapshot(&sim);
    sim_epoch(&sim, 3);
    tick("t7", "nightly", 120, 60);
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, NULL), 2);
}

Test(decide_schedule, a_clock_that_ran_ahead_does_not_silence_the_schedule)
{
    const int64_t year = 366 * SECONDS_PER_DAY;
    sim_activate(&sim, NIGHTLY(ACT "  guardrails: {cooldown: 1s, rate: {max: 100, per: 1h}}\n"));
    tick("t1", "nightly", 60, 0);
    sim_outcome(&sim, "t1", "done");
    sim.now_ns += 10 * year * NS_PER_S;
    tick("t2", "nightly", 10 * year, 0);
    sim_outcome(&sim, "t2", "done");
    int64_t back_ns = -10 * year * NS_PER_S + 60 * NS_PER_S;
    sim.now_ns += back_ns;
    (void)sim_input(
        &sim, (struct record){.kind = RECORD_CLOCK,
                              .on = true,
                              .detail = arena_printf(&sim.arena, "{\"jumpNs\":%lld}", (long long)back_ns)});
    (void)sim_input(&sim, (struct record){.kind = RECORD_CLOCK});
    const struct runbook_slot *slot = table_get(&decider_state(sim.decider)->slots, SV("nightly"));
    cr_assert_eq(slot_ticked_until(slot, sim.now_ns), (INT64_C(1700000000) + 60) * NS_PER_S);
    sim.now_ns += 10 * NS_PER_S; /* the cooldown */
    tick("t3", "nightly", 120, 60);
    sim_outcome(&sim, "t3", "done");
    tick("t4", "nightly", 10 * year, 0); /* when that time is there at last, it has come already */
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, NULL), 3);
}

Test(decide_schedule, what_has_come_is_remembered_within_a_bound)
{
    sim_activate(&sim, NIGHTLY(""));
    for (int i = 1; i <= 3 * TICK_RUNS_MAX; i++)
        tick("t", "nightly", 1000 * i, 0);
    const struct runbook_slot *slot = table_get(&decider_state(sim.decider)->slots, SV("nightly"));
    cr_assert_eq(slot->n_ticks, TICK_RUNS_MAX);
    for (int i = 1; i <= 3 * TICK_RUNS_MAX; i++)
        cr_assert_not_null(slot_tick_run(slot, (INT64_C(1700000000) + 1000 * i) * NS_PER_S));
    cr_assert_null(slot_tick_run(slot, (INT64_C(1700000000) + 500) * NS_PER_S));
}

Test(decide_schedule, a_run_whose_time_finds_a_gate_closed_is_skipped_and_says_why)
{
    sim_activate(&sim, NIGHTLY("  mode: shadow\n"));
    tick("t1", "nightly", 60, 0);
    expect_skipped("t1", "mode");
    cr_assert(sv_eq(last(RECORD_REFUSAL, "t1")->mode, SV("shadow")));
    sim_activate(&sim, NIGHTLY(ACT));
    (void)sim_input(&sim, (struct record){.kind = RECORD_FREEZE, .on = true, .actor = SV("me")});
    tick("t2", "nightly", 120, 60);
    expect_skipped("t2", "freeze");
    (void)sim_input(&sim, (struct record){.kind = RECORD_FREEZE, .actor = SV("me")});
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, NULL), 0); /* what was skipped is not made up for */
    tick("t3", "nightly", 180, 120);
    tick("t4", "nightly", 240, 180); /* the run before is still at work */
    expect_skipped("t4", "in_flight");
    sim_outcome(&sim, "t3", "done");
    tick("t5", "nightly", 300, 240);
    expect_skipped("t5", "cooldown");
    cr_assert_eq(decider_state(sim.decider)->n_timers, 0);
    cr_assert_eq(decider_state(sim.decider)->n_incidents, 0);
}

Test(decide_schedule, a_run_that_fails_tells_a_person_and_ends)
{
    sim_activate(&sim, NIGHTLY(ACT "  escalate: {bot: notify, with: {text: '${reason}'}}\n"));
    tick("t1", "nightly", 60, 0);
    sim_outcome(&sim, "t1", "failed");
    const struct record *told = last(RECORD_INTENT, "t1");
    cr_assert(sv_eq(told->function, SV("notify")) && sv_eq(told->purpose, SV("escalate")));
    cr_assert(sv_contains(last(RECORD_ESCALATED, "t1")->reason, SV("the act failed")));
    expect_closed("t1", "escalated");
}

Test(decide_schedule, a_run_that_never_began_is_not_repeated)
{
    sim_activate(&sim, NIGHTLY(ACT));
    tick("t1", "nightly", 60, 0);
    sim_outcome(&sim, "t1", "expired");
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "t1"), 1);
    expect_closed("t1", "escalated");
}

Test(decide_schedule, who_could_not_be_told_while_stopped_is_told_at_the_resume)
{
    sim_activate(&sim, NIGHTLY(ACT "  escalate: {bot: notify}\n"));
    tick("t1", "nightly", 60, 0);
    (void)sim_input(&sim, (struct record){.kind = RECORD_FREEZE, .on = true, .actor = SV("me")});
    sim_outcome(&sim, "t1", "failed");
    cr_assert_not_null(state_incident(decider_state(sim.decider), SV("t1")));
    (void)sim_input(&sim, (struct record){.kind = RECORD_FREEZE, .actor = SV("me")});
    cr_assert(sv_eq(last(RECORD_INTENT, "t1")->purpose, SV("escalate")));
    expect_closed("t1", "escalated");
}

Test(decide_schedule, the_next_rung_passes_the_gates_again)
{
    sim_activate(&sim,
                 "- {name: n, mode: act, schedule: '@hourly', target: a, steps: [{bot: x}, {bot: y}]}\n");
    tick("t1", "n", 60, 0);
    sim_outcome(&sim, "t1", "failed");
    cr_assert(sv_eq(last(RECORD_INTENT, "t1")->function, SV("y")));
    sim_outcome(&sim, "t1", "unchanged");
    expect_closed("t1", "done");
}

Test(decide_schedule, a_reminder_without_steps_tells_and_ends)
{
    sim_activate(&sim, "- {name: n, mode: act, schedule: '@hourly', target: a, escalate: {bot: notify}}\n");
    tick("t1", "n", 60, 0);
    cr_assert(sv_eq(last(RECORD_INTENT, "t1")->purpose, SV("escalate")));
    expect_closed("t1", "escalated");
    sim_activate(&sim, "- {name: n, schedule: '@hourly', target: a, escalate: {bot: notify}}\n");
    tick("t2", "n", 120, 60);
    expect_closed("t2", "skipped");
}

Test(decide_schedule, alerts_never_start_it_and_a_stale_tick_does_not)
{
    sim_activate(&sim, NIGHTLY(ACT));
    (void)sim_input(&sim, sim_signal(&sim, "i1", "firing", "nightly", "x"));
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, NULL), 0);
    (void)sim_input(&sim, (struct record){.kind = RECORD_TICK,
                                          .incident = SV("t1"),
                                          .runbook = SV("nightly"),
                                          .runbook_hash = SV("of another text"),
                                          .due_ns = sim.now_ns});
    (void)sim_input(&sim,
                    (struct record){.kind = RECORD_TICK, .incident = SV("t2"), .runbook = SV("nobody")});
    cr_assert_eq(decider_state(sim.decider)->n_incidents, 0);
    sim_activate(&sim, NIGHTLY("  mode: off\n"));
    tick("t3", "nightly", 60, 0);
    cr_assert_eq(decider_state(sim.decider)->n_incidents, 0);
}

Test(decide_schedule, a_schedule_counts_from_when_it_was_put_in_force)
{
    sim_activate(&sim, NIGHTLY(ACT));
    const struct runbook_slot *slot = table_get(&decider_state(sim.decider)->slots, SV("nightly"));
    int64_t began_ns = sim.now_ns;
    cr_assert_eq(slot->scheduled_ns, began_ns);
    sim.now_ns += 60 * NS_PER_S;
    sim_activate(&sim, NIGHTLY("  mode: shadow\n  summary: another text\n"));
    cr_assert_eq(slot->scheduled_ns, began_ns); /* the same times as before */
    sim_activate(
        &sim,
        "- {name: nightly, schedule: '30 4 * * *', time_zone: Europe/Berlin, target: a, steps: [{bot: x}]}\n");
    cr_assert_eq(slot->scheduled_ns, sim.now_ns);
    sim_activate(&sim, NIGHTLY("  mode: off\n"));
    cr_assert_eq(slot->scheduled_ns, 0);
    sim.now_ns += 60 * NS_PER_S;
    sim_activate(&sim, NIGHTLY(ACT));
    cr_assert_eq(slot->scheduled_ns, sim.now_ns);
    sim_activate(&sim, "- {name: nightly, match: [a=b], target: a, steps: [{bot: x}]}\n");
    cr_assert_eq(slot->scheduled_ns, 0);
}

Test(decide_schedule, a_decider_that_takes_over_goes_on)
{
    sim_activate(&sim, NIGHTLY(ACT));
    sim.is_deaf = true; /* it dies before it decides */
    tick("t1", "nightly", 60, 0);
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, NULL), 0);
    sim_restart(&sim);
    sim_epoch(&sim, 2);
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "t1"), 1);
    sim_epoch(&sim, 3);
    cr_assert_eq(sim_count(&sim, RECORD_INTENT, "t1"), 1);
    sim_outcome(&sim, "t1", "done");
    expect_closed("t1", "done");
}
