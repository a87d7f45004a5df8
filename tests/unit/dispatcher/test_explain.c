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
    expect_next("a", "a person: the alert went on after step 1 of 1, the last");
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
