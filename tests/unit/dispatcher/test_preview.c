/* What an alert would lead to. That it is what decide() then does is shown, gate by gate and for random
 * states, in tests/property/test_decide.c; here, what is said about each kind of alert, and that nothing
 * changes. */
#include "functions/dispatcher/preview.h"
#include "tests/unit/dispatcher/sim.h"

#define LADDER                                                                                               \
    "- {name: rb, mode: act, match: [alertname=Down], target: 'service/${labels.service}',\n"                \
    "   steps: [{bot: restart, with: {unit: '${labels.service}'}, verify: {check: {hold: 1m}}}],\n"          \
    "   guardrails: {cooldown: 15m, rate: {max: 2, per: 24h}, max_in_flight: 10},\n"                         \
    "   escalate: {bot: notify, with: {text: '${reason}'}}}\n"                                               \
    "- {name: quiet, mode: shadow, match: [alertname=Quiet], target: fixed, steps: [{bot: restart}]}\n"

static struct sim sim;
static json_t *said;

static void set_up(void)
{
    sim_init(&sim);
    sim_epoch(&sim, 1);
    sim_activate(&sim, LADDER);
}

static void tear_down(void)
{
    json_release(said);
    said = NULL;
    sim_release(&sim);
}

TestSuite(preview, .init = set_up, .fini = tear_down, .timeout = 30);

static const struct state *state(void)
{
    return decider_state(sim.decider);
}

static struct record signal_of(const char *incident, const char *status, const char *alertname,
                               const char *service)
{
    struct record r = sim_signal(&sim, incident, status, alertname, service);
    r.fingerprint = r.incident; /* each an alert of its own */
    return r;
}

/* All at once, in order; the answer is in `said`. */
static void ask(const struct record *signals, size_t n)
{
    uint64_t seq = state()->last_seq;
    size_t n_incidents = state()->n_incidents, n_targets = state()->n_targets, n_log = sim.n;
    struct preview *p = preview_new(state(), signals, n, sim.now_ns, false);
    json_release(said);
    said = json_array();
    for (json_t *o; (o = preview_next(p, state())) != NULL;)
        cr_assert_eq(json_array_append_new(said, o), 0);
    preview_free(p);
    cr_assert_eq(json_array_size(said), n);
    cr_assert_eq(state()->last_seq, seq);
    cr_assert_eq(state()->n_incidents, n_incidents);
    cr_assert_eq(state()->n_targets, n_targets);
    cr_assert_eq(sim.n, n_log);
}

static void ask_one(const char *incident, const char *status, const char *alertname, const char *service)
{
    struct record r = signal_of(incident, status, alertname, service);
    ask(&r, 1);
}

static void fire(const char *incident, const char *alertname, const char *service)
{
    (void)sim_input(&sim, signal_of(incident, "firing", alertname, service));
}

static void expect(size_t i, const char *key, const char *value)
{
    struct strview found = json_get_text(json_array_get(said, i), key);
    cr_expect(sv_eq(found, sv(value)), "%s is '%.*s', not '%s'", key, SV_ARG(found), value);
}

static void expect_refusals(size_t i, const char *json)
{
    struct strview found = json_canonical(&sim.arena, json_object_get(json_array_get(said, i), "refusals"));
    cr_expect(sv_eq(found, sv(json)), "refusals are %.*s, not %s", SV_ARG(found), json);
}

Test(preview, an_alert_that_would_be_acted_on)
{
    ask_one("i1", "firing", "Down", "nginx");
    expect(0, "alert", "Down");
    expect(0, "result", "act");
    expect(0, "function", "restart");
    expect(0, "target", "service/nginx");
    expect(0, "next", "the bot's own check verifies the act");
    expect_refusals(0, "[]");
    const json_t *o = json_array_get(said, 0);
    cr_expect(sv_eq(json_get_text(json_object_get(o, "params"), "unit"), SV("nginx")));
    cr_expect(sv_eq(json_get_text(json_object_get(o, "runbook"), "mode"), SV("act")));
    cr_expect_eq(json_array_size(json_object_get(o, "gates")), 9);
}

Test(preview, the_second_on_a_target_sees_the_act_of_the_first)
{
    struct record signals[] = {signal_of("i1", "firing", "Down", "nginx"),
                               signal_of("i2", "firing", "Down", "nginx"),
                               signal_of("i3", "firing", "Down", "redis")};
    ask(signals, 3);
    expect(0, "result", "act");
    expect(1, "result", "refused");
    expect(1, "gate", "in_flight");
    expect(1, "next", "decided on again when the other act on this target is over and verified");
    expect(2, "result", "act");
}

Test(preview, every_closed_gate_is_named_the_first_with_its_reason)
{
    (void)sim_input(&sim, (struct record){.kind = RECORD_FREEZE, .on = true, .actor = SV("me")});
    ask_one("i1", "firing", "Quiet", NULL);
    expect(0, "result", "shadow");
    expect(0, "gate", "mode");
    expect_refusals(0, "[\"mode\",\"freeze\"]");
    ask_one("i1", "firing", "Down", NULL);
    expect(0, "result", "refused");
    expect(0, "gate", "freeze");
    expect(0, "next", "decided on again after balm resume");
    expect_refusals(0, "[\"freeze\",\"target\",\"params\"]");
}

Test(preview, a_brake_that_is_not_recorded_counts)
{
    struct record r = signal_of("i1", "firing", "Down", "nginx");
    struct preview *p = preview_new(state(), &r, 1, sim.now_ns, true);
    json_t *o = preview_next(p, state());
    cr_expect(sv_eq(json_get_text(o, "gate"), SV("freeze")));
    cr_expect(!state()->is_frozen);
    json_decref(o);
    preview_free(p);
}

Test(preview, what_was_done_before_counts)
{
    fire("i1", "Down", "nginx");
    sim_outcome(&sim, "i1", "unchanged");
    cr_assert(sim_fire(&sim)); /* the hold is over: healed */
    ask_one("i2", "firing", "Down", "nginx");
    expect(0, "gate", "cooldown");
    const json_t *o = json_array_get(said, 0);
    cr_expect(sv_starts_with(json_get_text(o, "next"), SV("decided on again at 20")));
    ask_one("i2", "firing", "Down", "redis");
    expect(0, "result", "act");
}

Test(preview, who_would_be_told)
{
    for (int i = 0; i < 2; i++) {
        fire(i == 0 ? "i1" : "i2", "Down", "nginx");
        sim_outcome(&sim, i == 0 ? "i1" : "i2", "unchanged");
        cr_assert(sim_fire(&sim));
        sim.now_ns += 3600 * NS_PER_S;
    }
    ask_one("i3", "firing", "Down", "nginx");
    expect(0, "gate", "rate");
    expect(0, "next", "it waits for a person until the alert ends");
    const json_t *escalation = json_object_get(json_array_get(said, 0), "escalation");
    cr_expect(sv_eq(json_get_text(escalation, "function"), SV("notify")));
    cr_expect(sv_contains(json_get_text(json_object_get(escalation, "params"), "text"), SV("24h")));
}

Test(preview, what_follows_for_others_on_the_target)
{
    fire("i1", "Down", "nginx");
    sim_outcome(&sim, "i1", "done"); /* holding */
    ask_one("i2", "firing", "Down", "nginx");
    const json_t *others = json_object_get(json_array_get(said, 0), "others");
    cr_assert_gt(json_array_size(others), 0);
    cr_expect(sv_eq(json_get_text(json_array_get(others, 0), "incident"), SV("i1")));
    cr_expect_eq(state_incident(state(), SV("i1"))->phase, INCIDENT_HOLDING);
    cr_expect(!state_incident(state(), SV("i1"))->hold_broken);
}

Test(preview, an_alert_that_is_known_leads_to_nothing_new)
{
    fire("i1", "Down", "nginx");
    ask_one("i1", "firing", "Down", "nginx");
    expect(0, "result", "open");
    expect(0, "incident", "i1");
    expect(0, "phase", "acting");
    expect(0, "target", "service/nginx");
    sim_outcome(&sim, "i1", "unchanged");
    cr_assert(sim_fire(&sim));
    ask_one("i1", "firing", "Down", "nginx");
    expect(0, "result", "closed");
    expect(0, "phase", "healed");
    struct record twice[] = {signal_of("i2", "firing", "Down", "redis"),
                             signal_of("i2", "firing", "Down", "redis")};
    ask(twice, 2);
    expect(0, "result", "act");
    expect(1, "result", "open");
}

Test(preview, a_resolved_alert_never_acts)
{
    ask_one("i1", "resolved", "Down", "nginx");
    expect(0, "result", "resolved");
    expect(0, "next", "nothing: no incident of it is open");
    fire("i1", "Down", "nginx");
    ask_one("i1", "resolved", "Down", "nginx");
    expect(0, "incident", "i1");
}

Test(preview, an_alert_without_a_runbook)
{
    ask_one("i1", "firing", "Strange", "nginx");
    expect(0, "result", "no_runbook");
    ask(NULL, 0);
}

Test(preview, a_folder_of_runbooks_is_enough)
{
    struct yaml_document doc;
    struct runbook_set set = {.n = 1};
    struct error err;
    cr_assert_eq(yaml_parse(&sim.arena, "a.yaml", SV(LADDER), &doc, &err), STATUS_OK, "%s", err.message);
    cr_assert_eq(runbook_parse(&doc, doc.root->first, &set.items[0], &err), STATUS_OK, "%s", err.message);
    struct state *alone = preview_state_of(&set);
    struct record r = signal_of("i1", "firing", "Down", "nginx");
    struct preview *p = preview_new(alone, &r, 1, sim.now_ns, false);
    json_t *o = preview_next(p, alone);
    cr_expect(sv_eq(json_get_text(o, "result"), SV("act")));
    json_decref(o);
    preview_free(p);
    state_free(alone);
    runbook_set_release(&set);
}
