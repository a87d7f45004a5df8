#include "functions/dispatcher/explain.h"

#include <criterion/criterion.h>

#include "base/clock.h"
#include "base/list.h"
#include "tests/unit/dispatcher/sim.h"

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

TestSuite(explain, .init = set_up, .fini = tear_down, .timeout = 20);

static json_t *explain(const char *incident)
{
    struct explain *x = explain_new(sv(incident));
    struct error err;
    json_t *json = NULL;
    for (size_t i = 0; i < sim.n; i++)
        explain_add(x, i + 1, &sim.log[i]->record);
    cr_assert_eq(explain_json(x, &json, &err), STATUS_OK, "%s", err.message);
    explain_free(x);
    return json;
}

static void expect_next(const char *incident, const char *part)
{
    json_t *json = explain(incident);
    struct strview next = json_get_text(json, "next");
    cr_assert(sv_contains(next, sv(part)), "'%s' is not in: %.*s", part, SV_ARG(next));
    json_decref(json);
}

static void fire(const char *incident, const char *service)
{
    (void)sim_input(&sim, sim_signal(&sim, incident, "firing", "Down", service));
}

#define RUNBOOK(mode)                                                                                        \
    "name: rb\nmode: " mode "\nmatch: [alertname=Down]\ntarget: 's/${labels.service}'\nsteps: [{bot: x}]\n"

Test(explain, says_what_comes_next_from_wherever_it_stands)
{
    (void)sim_input(&sim, sim_signal(&sim, "none", "firing", "Other", "s"));
    expect_next("none", "no runbook takes this alert");
    sim_activate(&sim, RUNBOOK("shadow"));
    fire("shadow", "s");
    expect_next("shadow", "'mode: act' in it lets it act");
    sim_activate(&sim, RUNBOOK("act"));
    fire("a", "t");
    expect_next("a", "x is to act on s/t, until 2023-11-14T22:18:50");
    fire("b", "t");
    expect_next("b", "when the act under way is over");
    sim_outcome(&sim, "a", "done");
    expect_next("a", "verified when the alert resolves");
    cr_assert(sim_fire(&sim));
    expect_next("a", "a person, and nobody was told");
    expect_next("b", "it is decided on again at 2023-11-14T22:28:20");
    fire("c", NULL);
    expect_next("c", "nothing until the alert ends: no target");
    (void)sim_input(&sim, (struct record){.kind = RECORD_FREEZE, .on = true});
    fire("d", "u");
    expect_next("d", "after balm resume");
    (void)sim_input(&sim, sim_signal(&sim, "d", "resolved", "Down", "u"));
    expect_next("d", "nothing: closed as resolved");
}

Test(explain, holds_every_part_of_an_act)
{
    sim_activate(&sim, RUNBOOK("act"));
    fire("a", "t");
    const struct record *intent = sim_last(&sim, RECORD_INTENT, "a");
    (void)sim_input(&sim, (struct record){.kind = RECORD_RETRY,
                                          .incident = SV("a"),
                                          .intent = intent->intent,
                                          .attempt = 1,
                                          .code = SV("UNAVAILABLE"),
                                          .reason = SV("not now"),
                                          .due_ns = sim.now_ns});
    (void)sim_input(&sim, (struct record){.kind = RECORD_OUTCOME,
                                          .incident = SV("a"),
                                          .intent = intent->intent,
                                          .state = SV("done"),
                                          .undo = SV("undo it"),
                                          .detail = SV("{\"pid\":1}"),
                                          .message = SV("up")});
    (void)sim_input(
        &sim,
        (struct record){.kind = RECORD_NOTE, .incident = SV("a"), .actor = SV("me"), .message = SV("hm")});
    json_t *json = explain("a"), *act = json_array_get(json_object_get(json, "acts"), 0);
    cr_assert_eq(json_array_size(json_object_get(act, "gates")), 9);
    cr_assert_eq(json_array_size(json_object_get(act, "retries")), 1);
    cr_assert(sv_eq(json_get_text(json_object_get(act, "outcome"), "message"), SV("up")));
    cr_assert_eq(json_integer_value(
                     json_object_get(json_object_get(json_object_get(act, "outcome"), "detail"), "pid")),
                 1);
    cr_assert_str_eq(json_string_value(json_array_get(json_object_get(json, "undo"), 0)), "undo it");
    cr_assert_eq(json_get_text(json_object_get(json, "runbook"), "hash").len, SHA256_HEX);
    cr_assert(sv_eq(json_get_text(json_array_get(json_object_get(json, "notes"), 0), "message"), SV("hm")));
    cr_assert_eq(json_array_size(json_object_get(json, "timeline")), 6);
    json_decref(json);
}

Test(explain, no_control_character_of_a_label_reaches_the_terminal)
{
    struct http_header labels[] = {{SV("alertname"), SV("Down\x1b[2J\x07\nx\xC2\x9B"
                                                        "1m")},
                                   {SV("service"), SV("\xC3\xA4")}};
    struct record r = {.kind = RECORD_SIGNAL,
                       .incident = SV("a"),
                       .status = SV("firing"),
                       .labels = {labels, 2},
                       .annotations = {labels, 1}};
    (void)sim_input(&sim, r);
    json_t *json = explain("a");
    struct buf text;
    buf_init(&text, 64 * 1024);
    explain_text(json, &text);
    for (size_t i = 0; i < text.len; i++)
        cr_assert((unsigned char)text.ptr[i] >= 0x20 || text.ptr[i] == '\n', "byte %02x at %zu",
                  (unsigned char)text.ptr[i], i);
    cr_assert_not(sv_contains(buf_view(&text), SV("\xC2\x9B")));
    cr_assert(sv_contains(buf_view(&text), SV("service=\xC3\xA4")), "%.*s", SV_ARG(buf_view(&text)));
    buf_release(&text);
    json_decref(json);
}

static unsigned count(struct strview text, const char *part)
{
    unsigned n = 0;
    for (; text.len > 0; text = sv_sub(text, 1, text.len))
        if (sv_starts_with(text, sv(part))) n++;
    return n;
}

Test(explain, people_read_durations_without_nanoseconds_and_each_undo_once)
{
    static const struct {
        const char *exact, *shown;
    } cases[] = {
        {"900ms202us144ns", "900ms"},
        {"14m32s105ms3us12ns", "14m32s"},
        {"2s345ms678us", "2s300ms"},
        {"59m59s999ms999us999ns", "59m59s"},
        {"26h3m4s5ns", "26h3m"},
        {"1h30m15s", "1h30m15s"},
        {"15m", "15m"},
        {"250us", "250us"},
        {"7ns", "7ns"},
        {"bonus", "bonus"},
        {"service/10ms1us", "service/10ms1us"},
        {"\xC3\xA4 1ms1us", "\xC3\xA4 1ms"},
        {"(10ms1us)", "(10ms)"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *exact = cases[i].exact, *shown = cases[i].shown;
        char reason[100], line[100];
        (void)snprintf(reason, sizeof(reason), "ended %s ago; 15m must lie between", exact);
        json_t *json =
            json_pack("{s:s, s:[{s:s, s:s, s:[{s:s, s:b, s:s, s:s}]}], s:[s,s,s], s:[{s:i, s:s, s:s}]}",
                      "next", reason, "refusals", "gate", "cooldown", "reason", reason, "gates", "gate",
                      "cooldown", "ok", 0, "value", exact, "limit", "15m", "undo", "none", "balm x", "none",
                      "timeline", "seq", 1, "kind", "refusal", "text", reason);
        struct buf text;
        buf_init(&text, 64 * 1024);
        explain_text(json, &text);
        struct strview all = buf_view(&text);
        (void)snprintf(line, sizeof(line), "ended %s ago; 15m must lie between", shown);
        cr_assert_eq(count(all, line), 3, "%s: %.*s", exact, SV_ARG(all));
        (void)snprintf(line, sizeof(line), "STOP cooldown           %s  (limit 15m)", shown);
        cr_assert_eq(count(all, line), 1, "%s: %.*s", exact, SV_ARG(all));
        cr_assert_eq(count(all, "undo      none\n"), 1, "%.*s", SV_ARG(all));
        cr_assert_eq(count(all, "undo      balm x\n"), 1, "%.*s", SV_ARG(all));
        buf_release(&text);
        json_decref(json);
    }
}

/* ---- what happened, and what to run ---- */

static json_t *explain_later(const char *incident, int64_t ns)
{
    struct explain *x = explain_new(sv(incident));
    json_t *json = NULL;
    for (size_t i = 0; i < sim.n; i++)
        explain_add(x, i + 1, &sim.log[i]->record);
    explain_at(x, sim.now_ns + ns);
    cr_assert_eq(explain_json(x, &json, NULL), STATUS_OK);
    explain_free(x);
    return json;
}

static void expect_said(json_t *json, const char *what, const char *run)
{
    struct strview said = json_get_text(json, "what");
    const char *first = json_string_value(json_array_get(json_object_get(json, "run"), 0));
    cr_expect(sv_contains(said, sv(what)), "'%s' is not in: %.*s", what, SV_ARG(said));
    cr_expect_eq(first == NULL, run == NULL, "%s", first ? first : "nothing to run");
    if (first != NULL && run != NULL) cr_expect(sv_starts_with(sv(first), sv(run)), "%s", first);
    json_decref(json);
}

Test(explain, an_act_is_stuck_once_its_deadline_is_over)
{
    sim_activate(&sim, RUNBOOK("act"));
    fire("a", "t");
    expect_said(explain_later("a", NS_PER_S), "x has been acting on s/t for 1s", "balm stop");
    expect_said(explain_later("a", 3600 * NS_PER_S), "STUCK: x was to have ended on s/t", "balm status");
    sim_outcome(&sim, "a", "done");
    expect_said(explain_later("a", 3600 * NS_PER_S), "x acted on s/t; whether it helped", NULL);
}

Test(explain, a_stop_holds_up_what_is_to_act_whenever_it_began)
{
    (void)sim_input(&sim, (struct record){.kind = RECORD_FREEZE, .on = true, .actor = SV("me")});
    sim_activate(&sim, RUNBOOK("act"));
    fire("a", "t");
    expect_said(explain_later("a", 0), "gate freeze keeps x from acting on s/t",
                "balm resume  # acting is stopped since 2023-");
    struct explain *x = explain_new(SV("a"));
    json_t *json = NULL;
    for (size_t i = 0; i < sim.n; i++) /* from the incident on, as the platform reads them */
        if (sim.log[i]->record.kind != RECORD_FREEZE) explain_add(x, i + 1, &sim.log[i]->record);
    explain_stopped(x);
    cr_assert_eq(explain_json(x, &json, NULL), STATUS_OK);
    explain_free(x);
    expect_said(json, "gate freeze", "balm resume  # acting is stopped");
}

/* ---- what the clock begins, and what follows a repair ---- */

#define NIGHTLY(more) "name: nightly\nschedule: '30 3 * * *'\ntarget: disk/a\nsteps: [{bot: clean}]\n" more

static void tick(const char *incident)
{
    const struct runbook *rb = state_active(decider_state(sim.decider), SV("nightly"))->runbook;
    sim.now_ns += NS_PER_S; /* each time comes once */
    (void)sim_input(&sim, (struct record){.kind = RECORD_TICK,
                                          .source = SV("schedule"),
                                          .incident = sv(incident),
                                          .fingerprint = SV("0123456789abcdef"),
                                          .runbook = rb->name,
                                          .runbook_hash = sv(rb->hash),
                                          .due_ns = sim.now_ns,
                                          .labels = runbook_tick_labels(rb, &sim.arena),
                                          .annotations = runbook_tick_annotations(sim.now_ns, &sim.arena),
                                          .detail = SV("{\"beforeNs\":0,\"skipped\":2}")});
}

/* Each of the parts, up to NULL, stands in the text, behind the one before. */
static void expect_text(const char *incident, const char *const *parts)
{
    json_t *json = explain(incident);
    struct buf text;
    buf_init(&text, 64 * 1024);
    explain_text(json, &text);
    struct strview rest = buf_view(&text);
    for (; *parts != NULL; parts++) {
        while (rest.len > 0 && !sv_starts_with(rest, sv(*parts)))
            rest = sv_sub(rest, 1, rest.len);
        cr_expect(rest.len > 0, "'%s' is not there, or not behind what was before it: %.*s", *parts,
                  SV_ARG(buf_view(&text)));
    }
    buf_release(&text);
    json_decref(json);
}

#define EXPECT_TEXT(incident, ...) expect_text(incident, (const char *const[]){__VA_ARGS__, NULL})

Test(explain, a_run_of_a_schedule_says_its_time_and_that_it_ends_by_itself)
{
    sim_activate(&sim, NIGHTLY("mode: act\n"));
    tick("t1");
    EXPECT_TEXT("t1", ": open\n", "what      clean has been acting on disk/a",
                "schedule  nightly, due at 2023-11-14T22:13:21Z\n", "runbook   nightly, mode act, for disk/a",
                "act       step 1: clean on disk/a", "next      clean is to act on disk/a",
                "run       balm stop",
                "tick      the schedule's time 2023-11-14T22:13:21Z has come; 2 before it w");
    sim_outcome(&sim, "t1", "done");
    EXPECT_TEXT(
        "t1", ": done\n", "what      clean acted on disk/a, and found by its own check that it helped",
        "verified  yes, by check", "next      nothing: closed as done; the schedule's next time", "undo");
    tick("t2"); /* within the cooldown */
    EXPECT_TEXT("t2", ": skipped\n",
                "what      nothing was done at this time: gate cooldown kept clean from acting on disk/a",
                "refused   gate cooldown", "STOP cooldown", "next      nothing: closed as skipped");
    expect_said(explain("t2"), "gate cooldown kept", NULL);
    (void)sim_input(&sim, (struct record){.kind = RECORD_FREEZE, .on = true, .actor = SV("me")});
    tick("t3");
    expect_said(explain("t3"), "gate freeze kept clean", "balm resume");
}

Test(explain, a_run_that_needs_a_person_or_may_not_act_says_so_though_it_is_closed)
{
    sim_activate(&sim, NIGHTLY("mode: act\n"));
    tick("t1");
    sim_outcome(&sim, "t1", "failed");
    EXPECT_TEXT("t1", ": escalated\n", "what      it needed a person: the act failed after step 1 of 1",
                "next      a person: closed as escalated", "nobody was told");
    sim_activate(&sim, NIGHTLY("mode: shadow\n"));
    tick("t2");
    EXPECT_TEXT(
        "t2", ": skipped\n",
        "what      nothing was done: runbook nightly is in shadow, and would have run clean on disk/a",
        "run       balm reload");
}

#define FOLLOWED                                                                                             \
    RUNBOOK("act")                                                                                           \
    "guardrails: {cooldown: 1s, rate: {max: 100, per: 1h}}\nfollow_up: {after: 10m, bot: look}\n"

static void heal(const char *incident)
{
    fire(incident, "t");
    sim_outcome(&sim, incident, "done");
    (void)sim_input(&sim, sim_signal(&sim, incident, "resolved", "Down", "t"));
}

Test(explain, a_follow_up_is_said_before_while_and_after_it_acts)
{
    sim_activate(&sim, FOLLOWED);
    heal("a");
    EXPECT_TEXT("a", "what      x acted on s/t, and the alert resolved", "a follow-up is to come",
                "act       step 1: x on s/t", "verified  yes, by resolve",
                "next      the follow-up at 2023-11-14T22:23:20Z, unless the alert comes again",
                "timer     the follow-up comes at ");
    cr_assert(sim_fire(&sim));
    EXPECT_TEXT("a", "what      the follow-up look has been acting on s/t", "act       step 1: x on s/t",
                "follow-up look on s/t", "ok: mode act", "next      look is to act on s/t",
                "run       balm stop", "intent    the follow-up: look shall act on s/t");
    sim_outcome(&sim, "a", "unchanged");
    EXPECT_TEXT("a", ": healed\n", "what      x acted on s/t, and the alert resolved",
                "the follow-up look ended as", "unchanged", "follow-up look on s/t", "unchanged at",
                "next      nothing: closed as healed\n");
    sim.now_ns += 60 * NS_PER_S;
    heal("b");
    cr_assert(sim_fire(&sim));
    sim_outcome(&sim, "b", "failed");
    EXPECT_TEXT("b", "what      it need", "its follow-up did not succeed", "follow-up look on s/t",
                "failed at");
}

Test(explain, a_follow_up_that_is_left_out_says_why)
{
    sim_activate(&sim, FOLLOWED);
    heal("a");
    sim.now_ns += 60 * NS_PER_S;
    fire("b", "t");
    EXPECT_TEXT("a", ": healed\n", "what      x acted on s/t, and the alert resolved",
                "the follow-up look was left out", "act       step 1: x on s/t",
                "refused   the follow-up, gate returned at ", "STOP returned",
                "next      nothing: closed as healed");
}

Test(explain, text_is_no_wider_and_longer_than_a_screen)
{
    struct http_header labels[40], summary = {SV("summary"), {NULL, 0}};
    struct buf text, words;
    buf_init(&words, 64 * 1024);
    for (unsigned i = 0; i < 600; i++)
        buf_append(&words, i % 7 == 3 ? SV("\xE2\x82\xAC\xE2\x82\xAC ") : SV("word "));
    summary.value = buf_view(&words);
    for (size_t i = 0; i < ARRAY_LEN(labels); i++)
        labels[i] =
            (struct http_header){arena_printf(&sim.arena, "l%02zu", i), sv_sub(summary.value, 0, 300)};
    for (unsigned i = 0; i < 50; i++)
        (void)sim_input(&sim, (struct record){.kind = RECORD_SIGNAL,
                                              .incident = SV("a"),
                                              .status = SV("firing"),
                                              .labels = {labels, ARRAY_LEN(labels)},
                                              .annotations = {&summary, 1}});
    json_t *json = explain("a");
    buf_init(&text, 256 * 1024);
    explain_text(json, &text);
    struct strview rest = buf_view(&text), line;
    unsigned n = 0;
    for (; sv_next(&rest, '\n', &line); n++) {
        size_t columns = 0;
        cr_assert(sv_is_utf8(line));
        for (size_t i = 0; i < line.len; i++)
            columns += ((unsigned char)line.ptr[i] & 0xC0) != 0x80;
        cr_expect_leq(columns, EXPLAIN_COLUMNS, "%.*s", SV_ARG(line));
    }
    cr_expect_leq(n, EXPLAIN_LINES + 1, "%.*s", SV_ARG(buf_view(&text)));
    cr_expect(sv_contains(buf_view(&text), SV("more in between, see --json")));
    buf_release(&text);
    buf_release(&words);
    json_decref(json);
}

Test(explain, an_incident_that_is_nowhere_is_not_found)
{
    struct explain *x = explain_new(SV("nope"));
    struct error err;
    json_t *json;
    cr_assert_eq(explain_json(x, &json, &err), STATUS_NOT_FOUND);
    cr_assert(sv_contains(sv(err.message), SV("'nope'")));
    explain_free(x);
}

Test(explain, records_beyond_the_maximum_are_counted)
{
    struct explain *x = explain_new(SV("a"));
    struct record r = {.kind = RECORD_NOTE, .time_ns = 1, .incident = SV("a"), .message = SV("m")};
    struct error err;
    json_t *json;
    for (uint64_t i = 0; i < EXPLAIN_RECORDS_MAX + 3; i++)
        explain_add(x, i + 1, &r);
    cr_assert_eq(explain_json(x, &json, &err), STATUS_OK);
    cr_assert_eq(json_integer_value(json_object_get(json, "omitted")), 3);
    json_decref(json);
    explain_free(x);
}
