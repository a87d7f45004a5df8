#include "functions/dispatcher/runbook.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/list.h"

static struct arena arena;
static struct error err;
static struct runbook *rb;
static char folder[256];
static struct runbook_set set;

static void tear_down(void)
{
    runbook_free(rb);
    rb = NULL;
    runbook_set_release(&set);
    arena_release(&arena);
}

TestSuite(runbook, .fini = tear_down, .timeout = 20);

static enum status parse(const char *text)
{
    struct yaml_document doc;
    err = (struct error){0};
    enum status s = yaml_parse(&arena, "rb.yaml", sv(text), &doc, &err);
    return s == STATUS_OK ? runbook_parse(&doc, doc.root, &rb, &err) : s;
}

#define HEAD  "name: restart-nginx\nmatch: ['alertname=\"NginxDown\"']\ntarget: service/${labels.service}\n"
#define DAILY "name: a\nschedule: '@daily'\ntarget: x\n"
#define STEP  "steps:\n  - bot: service-restart\n"

Test(runbook, what_is_left_out_gets_the_careful_default)
{
    cr_assert_eq(parse(HEAD STEP), STATUS_OK, "%s", err.message);
    cr_assert_eq(rb->mode, RUNBOOK_SHADOW);
    cr_assert_eq(rb->guardrails.cooldown_ns, 900 * NS_PER_S);
    cr_assert_eq(rb->guardrails.rate_max, 3);
    cr_assert_eq(rb->guardrails.rate_per_ns, 24 * 3600 * NS_PER_S);
    cr_assert_eq(rb->guardrails.max_in_flight, 10);
    cr_assert_eq(rb->steps[0].verify, VERIFY_RESOLVE);
    cr_assert_eq(rb->steps[0].within_ns, 120 * NS_PER_S);
    cr_assert_eq(rb->steps[0].hold_ns, 0);
    cr_assert_eq(rb->steps[0].timeout_ns, 30 * NS_PER_S);
    cr_assert_null(rb->steps[0].with);
    cr_assert_eq(rb->escalate.bot.len, 0);
}

Test(runbook, everything_that_is_written_is_read)
{
    const char *text = HEAD
        "summary: brings nginx back\nmode: act\nsteps:\n"
        "  - bot: service-restart\n    with: {unit: '${labels.service}', tries: 2}\n    verify: check\n    timeout: 5s\n"
        "  - bot: second\n    verify: {resolve: {within: 30s, hold: 10s}}\n"
        "  - bot: third\n    verify: {check: {hold: 1m}}\n"
        "guardrails: {cooldown: 10s, rate: {max: 5, per: 1h}, max_in_flight: 1}\n"
        "escalate: {bot: notify, with: {text: '${reason}'}}\n";
    cr_assert_eq(parse(text), STATUS_OK, "%s", err.message);
    cr_assert_eq(rb->mode, RUNBOOK_ACT);
    cr_assert_eq(rb->n_steps, 3);
    cr_assert_eq(rb->steps[0].verify, VERIFY_CHECK);
    cr_assert_eq(rb->steps[0].timeout_ns, 5 * NS_PER_S);
    cr_assert_eq(json_integer_value(json_object_get(rb->steps[0].with, "tries")), 2);
    cr_assert_eq(rb->steps[1].within_ns, 30 * NS_PER_S);
    cr_assert_eq(rb->steps[1].hold_ns, 10 * NS_PER_S);
    cr_assert_eq(rb->steps[2].verify, VERIFY_CHECK);
    cr_assert_eq(rb->steps[2].hold_ns, 60 * NS_PER_S);
    cr_assert_eq(rb->guardrails.cooldown_ns, 10 * NS_PER_S);
    cr_assert_eq(rb->guardrails.rate_max, 5);
    cr_assert_eq(rb->guardrails.rate_per_ns, 3600 * NS_PER_S);
    cr_assert_eq(rb->guardrails.max_in_flight, 1);
    cr_assert(sv_eq(rb->escalate.bot, SV("notify")));
}

Test(runbook, the_content_reads_back_as_the_same_runbook)
{
    cr_assert_eq(
        parse(HEAD "summary: \"tab\\t quote \\\" \xC3\xA4 \\u0001 / {x: y}\"\n" STEP
                   "    with: {unit: 'a: b, [c]', n: -5, flag: true, nothing: null, list: [1, '1', '']}\n"),
        STATUS_OK, "%s", err.message);
    struct runbook *again;
    cr_assert_eq(runbook_from_content(rb->content, &again, &err), STATUS_OK, "%s", err.message);
    cr_assert_str_eq(again->hash, rb->hash);
    cr_assert(sv_eq(again->content, rb->content));
    cr_assert(json_equal(again->steps[0].with, rb->steps[0].with));
    cr_assert(sv_eq(again->target, rb->target));
    char hash[SHA256_HEX + 1];
    sha256_hex(rb->content, hash);
    cr_assert_str_eq(rb->hash, hash);
    runbook_free(again);
}

Test(runbook, the_hash_is_of_the_content_not_of_the_layout)
{
    char first[SHA256_HEX + 1];
    cr_assert_eq(parse(HEAD STEP), STATUS_OK);
    memcpy(first, rb->hash, sizeof(first));
    runbook_free(rb);
    rb = NULL;
    cr_assert_eq(parse("# a comment\nsteps: [{bot: service-restart}]\ntarget: \"service/${labels.service}\"\n"
                       "match: ['alertname=\"NginxDown\"']\nname: restart-nginx\n"),
                 STATUS_OK);
    cr_assert_str_eq(first, rb->hash);
}

Test(runbook, mistakes_are_named_with_their_place)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {HEAD STEP "guardrail: {}\n",
         "rb.yaml:6:1: unknown field 'guardrail' in runbook (did you mean 'guardrails'?)"},
        {HEAD STEP "guardrails: {cooldwn: 5m}\n",
         "rb.yaml:6:14: unknown field 'cooldwn' in guardrails (did you mean 'cooldown'?)"},
        {HEAD STEP "guardrails: {cooldown: 0s}\n", "cooldown in guardrails: 0s is out of range"},
        {HEAD STEP "guardrails: {cooldown: 8000h}\n", "out of range"},
        {HEAD STEP "guardrails: {rate: {max: 3}}\n", "per is missing in guardrails.rate"},
        {HEAD STEP "guardrails: {rate: {max: 0, per: 1h}}\n", "max in guardrails.rate: 0 is out of range"},
        {HEAD STEP "guardrails: {max_in_flight: 0}\n", "out of range"},
        {HEAD STEP "mode: on\n", "rb.yaml:6:7: mode in runbook: 'on' is none of off, shadow, act"},
        {HEAD, "steps is missing in runbook"},
        {HEAD "steps: []\n", "rb.yaml:4:8: steps must be a list with at least one step"},
        {HEAD "steps: [{with: {}}]\n", "bot is missing in step"},
        {HEAD "steps: [{bot: x, verify: maybe}]\n", "verify: 'maybe' is none of resolve, check"},
        {HEAD "steps: [{bot: x, verify: {check: {within: 1m}}}]\n", "unknown field 'within' in verify.check"},
        {HEAD "steps: [{bot: x, with: [1]}]\n", "with must be a map"},
        {HEAD "steps: [{bot: x, with: {a: ['${label.x}']}}]\n",
         "rb.yaml:4:29: '${label.x}' is not a variable here"},
        {HEAD "steps: [{bot: x, with: {a: '${reason}'}}]\n", "'${reason}' is not a variable here"},
        {HEAD "steps: [{bot: x, timeout: 2h}]\n", "timeout in step: 2h is out of range"},
        {HEAD STEP "escalate: {bot: notify, verify: check}\n", "unknown field 'verify' in escalate"},
        {"name: 'a b'\nmatch: [a=b]\ntarget: x\n" STEP, "rb.yaml:1:7: name may have letters"},
        {"name: a\nmatch: []\ntarget: x\n" STEP, "rb.yaml:2:8: match needs at least one matcher"},
        {"name: a\nmatch: ['job!=\"x\"', 'y=~\".*\"']\ntarget: x\n" STEP, "match needs at least one matcher"},
        {"name: a\nmatch: ['job=\"x']\ntarget: x\n" STEP,
         "rb.yaml:2:9: match: matcher 'job=\"x': no closing quote"},
        {"name: a\nmatch: {job: x}\ntarget: x\n" STEP, "match must be a list of matchers"},
        {"name: a\nmatch: [a=b]\ntarget: ''\n" STEP, "rb.yaml:3:9: target must be a text"},
        {"name: a\nmatch: [a=b]\ntarget: '${target}'\n" STEP, "'${target}' is not a variable here"},
        {"name: a\nmatch: [a=b]\n" STEP, "target is missing in runbook"},
        {"- a\n", "runbook must be a map"},
        {HEAD STEP "follow_up: {bot: x}\n", "after is missing in follow_up"},
        {HEAD STEP "follow_up: {after: 1m}\n", "bot is missing in follow_up"},
        {HEAD STEP "follow_up: {after: 0s, bot: x}\n", "after in follow_up: 0s is out of range"},
        {HEAD STEP "follow_up: {after: 1m, bot: x, verify: check}\n", "unknown field 'verify' in follow_up"},
        {HEAD STEP "follow_up: {after: 1m, bot: x, with: {a: '${reason}'}}\n",
         "'${reason}' is not a variable here"},
        {HEAD STEP "followup: {after: 1m, bot: x}\n", "did you mean 'follow_up'?"},
        {HEAD "escalate: {bot: x}\nfollow_up: {after: 1m, bot: x}\n",
         "rb.yaml:5:12: follow_up follows a verified act"},
        {"name: a\ntarget: x\n" STEP, "rb.yaml:1:1: match is missing in runbook (or 'schedule'"},
        {HEAD STEP "schedule: '@daily'\n", "rb.yaml:6:11: a runbook starts by 'match' or by 'schedule'"},
        {HEAD STEP "time_zone: UTC\n", "rb.yaml:6:12: time_zone belongs to a 'schedule'"},
        {HEAD STEP "start_deadline: 1m\n", "rb.yaml:6:17: start_deadline belongs to a 'schedule'"},
        {HEAD STEP "shedule: '@daily'\n",
         "rb.yaml:6:1: unknown field 'shedule' in runbook (did you mean 'schedule'?)"},
        {DAILY "steps: [{bot: x}]\nschedul: x\n", "did you mean 'schedule'?"},
        {"name: a\nschedule: 0 3 * * FRY\ntarget: x\n" STEP,
         "rb.yaml:2:11: schedule: weekday 'FRY': 'FRY' is no number from 0 to 7 and none of the names (did you mean 'FRI'?)"},
        {"name: a\nschedule: 0 0 30 2 *\ntarget: x\n" STEP,
         "rb.yaml:2:11: schedule: day of month '30' never comes"},
        {"name: a\nschedule: '@every 5s'\ntime_zone: UTC\ntarget: x\n" STEP,
         "rb.yaml:3:12: time_zone means nothing to @every"},
        {DAILY "steps: [{bot: x}]\nstart_deadline: 25h\n", "start_deadline in runbook: 25h is out of range"},
        {DAILY "steps: [{bot: x, verify: resolve}]\n",
         "rb.yaml:4:26: a scheduled run has no alert that could resolve"},
        {DAILY "steps: [{bot: x, verify: {check: {hold: 1m}}}]\n", "write 'verify: check'"},
        {DAILY "steps: [{bot: x, with: {a: '${labels.service}'}}]\n",
         "rb.yaml:4:28: a scheduled run has no alert and so no '${labels.service}'"},
        {"name: a\nschedule: '@daily'\ntarget: '${labels.host}'\n" STEP,
         "rb.yaml:3:9: a scheduled run has no alert"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        cr_assert_eq(parse(cases[i].text), STATUS_INVALID_ARGUMENT, "case %zu was taken", i);
        cr_assert(sv_contains(sv(err.message), sv(cases[i].message)), "case %zu: %s", i, err.message);
        cr_assert(sv_starts_with(sv(err.message), SV("rb.yaml:")), "%s", err.message);
    }
}

Test(runbook, a_schedule_takes_the_place_of_matchers)
{
    cr_assert_eq(
        parse(
            "name: a\nschedule: '30 3 * * MON-FRI'\ntime_zone: Europe/Berlin\nstart_deadline: 1h\n"
            "target: disk/${labels.alertname}\nsteps: [{bot: x, with: {a: '${annotations.time} ${target}'}}]\n"
            "escalate: {bot: notify, with: {t: '${labels.schedule} ${reason} ${incident}'}}\n"),
        STATUS_OK, "%s", err.message);
    cr_assert(runbook_is_scheduled(rb));
    cr_assert(sv_eq(rb->schedule.time_zone, SV("Europe/Berlin")));
    cr_assert_eq(rb->schedule.start_deadline_ns, 3600 * NS_PER_S);
    cr_assert_eq(rb->steps[0].verify, VERIFY_CHECK);
    runbook_free(rb);
    cr_assert_eq(parse(DAILY STEP), STATUS_OK, "%s", err.message);
    cr_assert(sv_eq(rb->schedule.time_zone, SV("UTC")));
    cr_assert_eq(rb->schedule.start_deadline_ns, 300 * NS_PER_S);
    struct http_header label = {SV("alertname"), SV("a")};
    cr_assert_eq(matchers_match(&rb->match, &(struct record_labels){&label, 1}), MATCH_NO);
}

Test(runbook, a_schedule_is_held_against_its_zone_and_its_guardrails)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {DAILY STEP, NULL},
        {"name: a\nschedule: '@daily'\ntime_zone: Europe/Berln\ntarget: x\n" STEP,
         "rb.yaml:3:12: runbook 'a': no time zone 'Europe/Berln' below"},
        {"name: a\nschedule: '*/10 * * * *'\ntarget: x\n" STEP,
         "rb.yaml:2:11: runbook 'a': its schedule comes as often as every 10m, which guardrails.cooldown (15m)"},
        {"name: a\nschedule: '*/15 * * * *'\ntarget: x\n" STEP, "as often as every 15m"},
        {"name: a\nschedule: '0 */6 * * *'\ntarget: x\n" STEP,
         "comes up to 4 times within 24h, of which guardrails.rate refuses all but 3"},
        {"name: a\nschedule: '0 */6 * * *'\ntarget: x\nguardrails: {rate: {max: 4, per: 24h}}\n" STEP, NULL},
        {"name: a\nschedule: '@every 2s'\ntarget: x\nguardrails: {cooldown: 1s, rate: {max: 30, per: 1m}}\n" STEP,
         NULL},
        {"name: a\nschedule: '@every 2s'\ntarget: x\nguardrails: {cooldown: 1s, rate: {max: 29, per: 1m}}\n" STEP,
         "30 times within 1m"},
        {"name: a\nschedule: '@yearly'\ntarget: x\n" STEP, NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        cr_assert_eq(parse(cases[i].text), STATUS_OK, "case %zu: %s", i, err.message);
        enum status s = runbook_prepare_schedule(rb, &err);
        cr_assert_eq(s, cases[i].message == NULL ? STATUS_OK : STATUS_INVALID_ARGUMENT, "case %zu: %s", i,
                     err.message);
        if (cases[i].message != NULL)
            cr_assert(sv_contains(sv(err.message), sv(cases[i].message)), "case %zu: %s", i, err.message);
        runbook_free(rb);
        rb = NULL;
    }
}

/* ---- folders ---- */

static void make_folder(void)
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(folder, sizeof(folder), "%s/balm-runbooks-XXXXXX", tmp != NULL ? tmp : "/tmp");
    cr_assert_not_null(mkdtemp(folder));
}

static void put(const char *name, const char *text)
{
    cr_assert_eq(file_write_atomic(arena_printf(&arena, "%s/%s", folder, name).ptr, sv(text), 0600, &err),
                 STATUS_OK, "%s", err.message);
}

static void drop_folder(void)
{
    static const char *const names[] = {"a.yaml", "b.yaml", ".c.yaml", "d.yml", "e.txt"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        (void)unlink(arena_printf(&arena, "%s/%s", folder, names[i]).ptr);
    cr_assert_eq(rmdir(folder), 0);
}

#define REST "match: [a=b]\ntarget: x\nsteps: [{bot: y}]\n"

Test(runbook, a_folder_is_read_by_name_and_lists_in_their_order)
{
    make_folder();
    put("b.yaml", "name: third\n" REST);
    put("a.yaml",
        "- {name: first, match: [a=b], target: x, steps: [{bot: y}]}\n- {name: second, match: [a=b], target: x, steps: [{bot: y}]}\n");
    put(".c.yaml", "not: read\n");
    put("d.yml", "name: fourth\n" REST);
    put("e.txt", "not: read\n");
    enum status s = runbook_set_read(folder, &set, &err);
    drop_folder();
    cr_assert_eq(s, STATUS_OK, "%s", err.message);
    cr_assert_eq(set.n, 4);
    cr_assert(sv_eq(set.items[3]->name, SV("fourth")));
    cr_assert(sv_eq(set.items[0]->name, SV("first")) && sv_eq(set.items[1]->name, SV("second")) &&
              sv_eq(set.items[2]->name, SV("third")));
}

Test(runbook, a_name_given_twice_is_refused_with_both_places)
{
    make_folder();
    put("a.yaml", "name: one\n" REST);
    put("b.yaml", "name: one\n" REST);
    enum status s = runbook_set_read(folder, &set, &err);
    drop_folder();
    cr_assert_eq(s, STATUS_INVALID_ARGUMENT);
    cr_assert_eq(set.n, 0);
    cr_assert(sv_contains(sv(err.message), SV("b.yaml:1:1: runbook 'one' is there already, at ")), "%s",
              err.message);
    cr_assert(sv_contains(sv(err.message), SV("a.yaml:1")), "%s", err.message);
}

Test(runbook, one_bad_file_refuses_the_set)
{
    make_folder();
    put("a.yaml", "name: one\n" REST);
    put("b.yaml", "name: two\nmatch: [a=b]\n");
    enum status s = runbook_set_read(folder, &set, &err);
    drop_folder();
    cr_assert_eq(s, STATUS_INVALID_ARGUMENT);
    cr_assert_eq(set.n, 0);
    cr_assert(sv_contains(sv(err.message), SV("b.yaml:1:1: target is missing")), "%s", err.message);
}

Test(runbook, a_missing_folder_is_not_found)
{
    cr_assert_eq(runbook_set_read("/nonexistent/runbooks", &set, &err), STATUS_NOT_FOUND);
    cr_assert(sv_contains(sv(err.message), SV("/nonexistent/runbooks")), "%s", err.message);
}

Test(runbook, the_shipped_ones_are_right_and_only_the_demo_changes_anything)
{
    cr_assert_eq(runbook_set_read("functions/dispatcher/runbooks", &set, &err), STATUS_OK, "%s", err.message);
    cr_assert_geq(set.n, 3);
    for (size_t i = 0; i < set.n; i++) {
        const struct runbook *item = set.items[i];
        bool may_act = sv_eq(item->name, SV("demo-nginx")) || sv_eq(item->name, SV("balm-itself"));
        cr_assert_eq(item->mode == RUNBOOK_ACT, may_act, "%.*s", SV_ARG(item->name));
        cr_assert_eq(item->n_steps == 0, sv_eq(item->name, SV("balm-itself")), "it only tells");
    }
}
