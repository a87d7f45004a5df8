/* The intake on a real journal in a folder of its own. Each test runs as one fiber of one loop. */
#include "functions/alerts/alerts.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/list.h"
#include "log/log.h"
#include "metrics/metrics.h"
#include "store/episode.h"
#include "store/journal.h"

#define T0       (INT64_C(1795356080) * NS_PER_S) /* 2026-11-22T14:01:20Z */
#define REPEAT   (INT64_C(1000) * NS_PER_S)
#define GROUP    (INT64_C(100) * NS_PER_S)
#define LEASE    (2 * REPEAT + GROUP)
#define WAIT_MAX (10 * NS_PER_S)

static struct bench {
    char dir[256];
    struct loop *loop;
    struct journal_cfg cfg;
    struct core_env env;
    struct journal *journal;
    void *state;
    struct arena arena;
    void (*test)(void);
} bench;

/* ---- the bench ---- */

static void open_intake(bool fold)
{
    struct error err;
    cr_assert_eq(journal_open_sqlite(bench.loop, &bench.cfg, &bench.journal, &err), STATUS_OK, "%s",
                 err.message);
    bench.env.loop = bench.loop;
    bench.env.journal = bench.journal;
    cr_assert_eq(alerts_function.start(&bench.env, &bench.state, &err), STATUS_OK, "%s", err.message);
    if (!fold) return;
    cr_assert_eq(journal_fold(bench.journal, &err), STATUS_OK, "%s", err.message);
    cr_assert_eq(alerts_function.ready(bench.state, &err), STATUS_OK, "%s", err.message);
}

static void close_intake(void)
{
    alerts_function.stop(bench.state, 0);
    journal_close(bench.journal);
}

static void run_in_fiber(void *arg)
{
    (void)arg;
    open_intake(true);
    bench.test();
    close_intake();
}

static void remove_dir(const char *dir)
{
    DIR *d = opendir(dir);
    cr_assert_not_null(d);
    char path[600];
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        (void)snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
        (void)unlink(path);
    }
    (void)closedir(d);
    (void)rmdir(dir);
}

/* cfg and env may be changed before; everything is opened and closed around the test. */
static void run(void (*test)(void))
{
    struct error err;
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(bench.dir, sizeof(bench.dir), "%s/balm-alerts-XXXXXX", tmp ? tmp : "/tmp");
    cr_assert_not_null(mkdtemp(bench.dir));
    bench.cfg.dir = bench.dir;
    bench.test = test;
    if (bench.env.repeat_interval_ns == 0) bench.env.repeat_interval_ns = REPEAT;
    if (bench.env.group_interval_ns == 0) bench.env.group_interval_ns = GROUP;
    log_set_level(LOG_LEVEL_ERROR);
    cr_assert_eq(loop_new(&bench.loop, &err), STATUS_OK, "%s", err.message);
    cr_assert_eq(loop_run_fiber(bench.loop, run_in_fiber, NULL, &err), STATUS_OK, "%s", err.message);
    loop_free(bench.loop);
    arena_release(&bench.arena);
    remove_dir(bench.dir);
}

/* ---- requests ---- */

struct reply {
    int status;
    struct strview body, retry_after;
};

static struct reply request(const char *method, const char *path, struct strview body, int64_t now_ns,
                            struct strview traceparent)
{
    struct http_header headers[] = {{SV("content-type"), SV("application/json")},
                                    {SV("traceparent"), traceparent}};
    struct arena *a = &bench.arena;
    struct http_req req = {.method = sv(method),
                           .target = sv(path),
                           .path = sv(path),
                           .peer = SV("127.0.0.1:1"),
                           .headers = headers,
                           .n_headers = traceparent.len > 0 ? 2 : 1,
                           .body = body,
                           .arena = a,
                           .received_unix_ns = now_ns,
                           .received_ns = clock_monotonic_ns()};
    struct http_resp resp = {.status = 200};
    alerts_function.handle(bench.state, &req, &resp);
    return (struct reply){resp.status, resp.body,
                          http_header_get(resp.headers, resp.n_headers, SV("retry-after"))};
}

static struct reply post(struct strview body, int64_t now_ns)
{
    return request("POST", "/", body, now_ns, SV(""));
}

static struct strview alert(const char *status, const char *name, const char *starts, const char *ends)
{
    return arena_printf(
        &bench.arena,
        "{\"status\":\"%s\",\"labels\":{\"alertname\":\"%s\",\"job\":\"web\"},\"annotations\":{\"summary\":\"s\"},"
        "\"startsAt\":\"%s\",\"endsAt\":\"%s\",\"generatorURL\":\"http://p/g\"}",
        status, name, starts, ends);
}

static struct strview firing(const char *name, const char *starts)
{
    return alert("firing", name, starts, "0001-01-01T00:00:00Z");
}

static struct strview resolved(const char *name, const char *starts)
{
    return alert("resolved", name, starts, "2026-11-22T14:05:00Z");
}

static struct strview body_of(const struct strview *alerts, size_t n)
{
    struct buf b;
    buf_init(&b, 8 << 20);
    buf_append(&b,
               SV("{\"version\":\"4\",\"receiver\":\"bot\\\\.main\",\"groupKey\":\"{}:{}\",\"alerts\":["));
    for (size_t i = 0; i < n; i++) {
        if (i > 0) buf_append_char(&b, ',');
        buf_append(&b, alerts[i]);
    }
    buf_append(&b, SV("]}\n"));
    struct strview text = arena_copy(&bench.arena, buf_view(&b));
    buf_release(&b);
    return text;
}

static struct strview body_1(struct strview only)
{
    return body_of(&only, 1);
}

static void expect_counts(struct reply r, int status, unsigned accepted, unsigned duplicate,
                          unsigned rejected)
{
    json_t *tree = NULL;
    cr_expect_eq(r.status, status, "%d %.*s", r.status, SV_ARG(r.body));
    cr_assert_eq(json_parse(r.body, 0, &tree, NULL), STATUS_OK, "%.*s", SV_ARG(r.body));
    cr_expect_eq(json_integer_value(json_object_get(tree, "accepted")), accepted, "%.*s", SV_ARG(r.body));
    cr_expect_eq(json_integer_value(json_object_get(tree, "duplicate")), duplicate, "%.*s", SV_ARG(r.body));
    cr_expect_eq(json_integer_value(json_object_get(tree, "rejected")), rejected, "%.*s", SV_ARG(r.body));
    json_release(tree);
}

/* The answer is only given for what is on disk. */
static void expect_all_durable(void)
{
    cr_expect_eq(journal_durable_seq(bench.journal), journal_last_seq(bench.journal));
}

static const struct record *record_at(uint64_t seq)
{
    struct journal_entry *entries;
    size_t n;
    struct error err;
    cr_assert_eq(journal_read(bench.journal, seq, 1, true, &bench.arena, &entries, &n, &err), STATUS_OK, "%s",
                 err.message);
    cr_assert_eq(n, 1, "record %llu", (unsigned long long)seq);
    return entries[0].record;
}

#define S1 "2026-11-22T14:01:00Z"
#define S2 "2026-11-22T14:10:00Z"

/* ---- signals ---- */

static void new_alert(void)
{
    struct reply r = request("POST", "/", body_1(firing("Down", S1)), T0,
                             SV("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
    expect_counts(r, 202, 1, 0, 0);
    expect_all_durable();
    cr_assert_eq(journal_last_seq(bench.journal), 1);
    const struct record *s = record_at(1);
    cr_assert_eq(s->kind, RECORD_SIGNAL);
    cr_assert_eq(s->time_ns, T0);
    cr_assert_eq(s->cause, 0);
    cr_assert(sv_eq(s->status, SV("firing")));
    cr_assert(sv_eq(s->source, SV("alertmanager")));
    cr_assert(sv_eq(s->receiver, SV("bot.main")));
    cr_assert(sv_eq(s->group_key, SV("{}:{}")));
    cr_assert(sv_eq(s->generator_url, SV("http://p/g")));
    cr_assert(sv_eq(s->trace, SV("0af7651916cd43dd8448eb211c80319c")));
    cr_assert(sv_eq(record_label(&s->labels, SV("alertname")), SV("Down")));
    cr_assert(sv_eq(record_label(&s->annotations, SV("summary")), SV("s")));
    cr_assert_eq(s->starts_at_ns, T0 - 20 * NS_PER_S);
    cr_assert_eq(s->ends_at_ns, 0);
    cr_assert_eq(s->fingerprint.len, 16);
    cr_assert_eq(s->fingerprint_computed.len, 0);
    char id[INCIDENT_ID_MAX];
    incident_id(s->fingerprint, s->starts_at_ns, id);
    cr_assert(sv_eq(s->incident, sv(id)));
}

Test(alerts, new_alert_is_a_durable_signal)
{
    run(new_alert);
}

static void malformed_trace(void)
{
    static const char *const bad[] = {"",
                                      "00-",
                                      "00-00000000000000000000000000000000-b7ad6b7169203331-01",
                                      "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                                      "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                                      "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
                                      "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
                                      "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char name[20];
        (void)snprintf(name, sizeof(name), "T%zu", i);
        expect_counts(request("POST", "/", body_1(firing(name, S1)), T0, sv(bad[i])), 202, 1, 0, 0);
        cr_assert_eq(record_at(i + 1)->trace.len, 0, "%s", bad[i]);
    }
}

Test(alerts, malformed_traceparent_is_ignored)
{
    run(malformed_trace);
}

static void life_of_an_episode(void)
{
    expect_counts(post(body_1(firing("Down", S1)), T0), 202, 1, 0, 0);
    struct strview incident = record_at(1)->incident;
    expect_counts(post(body_1(firing("Down", S1)), T0 + 1), 202, 0, 1, 0);
    expect_counts(post(body_1(firing("Down", S2)), T0 + 2), 202, 0, 1, 0); /* still the same episode */
    expect_counts(post(body_1(resolved("Down", S1)), T0 + 3), 202, 1, 0, 0);
    cr_assert(sv_eq(record_at(2)->status, SV("resolved")));
    cr_assert(sv_eq(record_at(2)->incident, incident));
    cr_assert_neq(record_at(2)->ends_at_ns, 0);
    expect_counts(post(body_1(resolved("Down", S1)), T0 + 4), 202, 0, 1, 0);
    /* Late: overtaken by its resolve. */
    expect_counts(post(body_1(firing("Down", S1)), T0 + 5), 202, 0, 1, 0);
    cr_assert_eq(journal_last_seq(bench.journal), 2);
    expect_counts(post(body_1(firing("Down", S2)), T0 + 6), 202, 1, 0, 0);
    cr_assert_not(sv_eq(record_at(3)->incident, incident));
    expect_all_durable();
}

Test(alerts, episode_opens_repeats_resolves_and_opens_anew)
{
    run(life_of_an_episode);
}

/* Its resolve is lost, it comes again with each startsAt twice: every time an incident of its own. */
static void begun_anew(void)
{
    expect_counts(post(body_1(firing("Down", S1)), T0), 202, 1, 0, 0);
    int64_t later = T0 + 600 * NS_PER_S;
    expect_counts(post(body_1(firing("Down", S2)), later), 202, 1, 0, 0);
    cr_assert_eq(record_at(2)->kind, RECORD_EXPIRED);
    cr_assert(sv_eq(record_at(2)->incident, record_at(1)->incident));
    cr_assert_eq(record_at(3)->kind, RECORD_SIGNAL);
    cr_assert_not(sv_eq(record_at(3)->incident, record_at(1)->incident));
    expect_counts(post(body_1(firing("Down", S1)), later + 1), 202, 0, 1, 0); /* late, and the same */
    expect_counts(post(body_1(alert("resolved", "Down", S1, "2026-11-22T14:05:00Z")), later + 2), 202, 0, 1,
                  0);
    expect_counts(post(body_1(alert("resolved", "Down", S2, "2026-11-22T14:11:00Z")), later + 3), 202, 1, 0,
                  0);
    later += 1000 * NS_PER_S;
    expect_counts(post(body_1(firing("Down", S2)), later), 202, 1, 0, 0); /* Prometheus was away meanwhile */
    expect_counts(post(body_1(alert("resolved", "Down", S2, "2026-11-22T14:33:00Z")), later + 1), 202, 1, 0,
                  0);
    later += 1000 * NS_PER_S;
    expect_counts(post(body_1(firing("Down", S2)), later), 202, 1, 0, 0);
    uint64_t signals[] = {1, 3, 5, 7};
    for (size_t i = 0; i < ARRAY_LEN(signals); i++)
        for (size_t k = 0; k < i; k++)
            cr_assert_not(sv_eq(record_at(signals[i])->incident, record_at(signals[k])->incident), "%zu %zu",
                          i, k);
}

Test(alerts, alert_that_began_anew_is_a_new_incident_though_no_resolve_came)
{
    run(begun_anew);
}

static void resolve_of_nothing(void)
{
    expect_counts(post(body_1(resolved("Down", S1)), T0), 202, 1, 0, 0);
    expect_counts(post(body_1(resolved("Down", S1)), T0 + 1), 202, 0, 1, 0);
    expect_counts(post(body_1(firing("Down", S1)), T0 + 2), 202, 0, 1, 0);
    cr_assert_eq(journal_last_seq(bench.journal), 1);
    cr_assert(sv_eq(record_at(1)->status, SV("resolved")));
}

Test(alerts, resolve_of_nothing_is_recorded_once)
{
    run(resolve_of_nothing);
}

static void seen_again(void)
{
    expect_counts(post(body_1(firing("Down", S1)), T0), 202, 1, 0, 0);
    expect_counts(post(body_1(firing("Down", S1)), T0 + LEASE / 4), 202, 0, 1, 0);
    cr_assert_eq(journal_last_seq(bench.journal), 1);
    for (int i = 0; i < 3; i++)
        expect_counts(post(body_1(firing("Down", S1)), T0 + LEASE / 4 + 1 + i), 202, 0, 1, 0);
    cr_assert_eq(journal_last_seq(bench.journal), 2, "once a quarter");
    cr_assert_eq(record_at(2)->kind, RECORD_SEEN);
    cr_assert(sv_eq(record_at(2)->incident, record_at(1)->incident));
    cr_assert(sv_eq(record_at(2)->fingerprint, record_at(1)->fingerprint));
    expect_all_durable();
}

Test(alerts, repeat_is_recorded_once_a_quarter_of_the_lease)
{
    run(seen_again);
}

static void twice_in_one_body(void)
{
    struct strview same[] = {firing("Down", S1), firing("Down", S1), firing("Other", S1), firing("Down", S1)};
    expect_counts(post(body_of(same, 4), T0), 202, 2, 2, 0);
    struct strview both[] = {firing("Flap", S1), resolved("Flap", S1), firing("Flap", S2)};
    expect_counts(post(body_of(both, 3), T0), 202, 3, 0, 0);
    cr_assert_eq(journal_last_seq(bench.journal), 5);
    cr_assert(sv_eq(record_at(4)->incident, record_at(3)->incident));
    cr_assert_not(sv_eq(record_at(5)->incident, record_at(3)->incident));
}

Test(alerts, same_alert_twice_in_one_body_is_one_signal)
{
    run(twice_in_one_body);
}

/* ---- deliveries at once ---- */

enum { AT_ONCE = 40 };

static struct {
    unsigned accepted, duplicate, undurable;
    struct strview body;
} at_once;

static void deliver(void *arg)
{
    (void)arg;
    struct reply r = post(at_once.body, T0);
    /* Whoever is told 202 relies on record 1. */
    if (r.status != 202 || journal_durable_seq(bench.journal) < 1) at_once.undurable++;
    at_once.accepted += sv_contains(r.body, SV("\"accepted\":1"));
    at_once.duplicate += sv_contains(r.body, SV("\"duplicate\":1"));
}

static void many_at_once(void)
{
    struct fiber_scope scope;
    struct error err;
    at_once.body = body_1(firing("Down", S1));
    fiber_scope_init(&scope);
    for (unsigned i = 0; i < AT_ONCE; i++)
        cr_assert_eq(fiber_scope_spawn(&scope, deliver, NULL, &err), STATUS_OK);
    fiber_scope_join(&scope);
    cr_assert_eq(at_once.accepted, 1);
    cr_assert_eq(at_once.duplicate, AT_ONCE - 1);
    cr_assert_eq(at_once.undurable, 0);
    cr_assert_eq(journal_last_seq(bench.journal), 1);
}

Test(alerts, delivered_many_times_at_once_is_one_signal_and_all_wait_for_it)
{
    run(many_at_once);
}

static void large_group(void)
{
    enum { MANY = 1000 };
    struct strview *alerts = arena_array(&bench.arena, MANY, sizeof(*alerts));
    for (unsigned i = 0; i < MANY; i++)
        alerts[i] = firing(arena_printf(&bench.arena, "A%u", i).ptr, S1);
    struct strview body = body_of(alerts, MANY);
    cr_assert_gt(body.len, 64 * 1024, "large enough for a worker thread");
    expect_counts(post(body, T0), 202, MANY, 0, 0);
    cr_assert_eq(journal_last_seq(bench.journal), MANY);
    cr_assert(sv_eq(record_label(&record_at(MANY)->labels, SV("alertname")), SV("A999")));
    expect_counts(post(body, T0), 202, 0, MANY, 0);
    expect_all_durable();
}

Test(alerts, large_group_is_taken_whole)
{
    run(large_group);
}

/* ---- what is wrong ---- */

static void bad_in_group(void)
{
    struct strview mixed[] = {
        firing("Good", S1),
        SV("{\"status\":\"firing\",\"labels\":{\"alertname\":\"\xC3\xA4\",\"x\":1},\"quote\":\"\\\"\"}"),
        firing("Fine", S1)};
    struct reply r = post(body_of(mixed, 3), T0);
    expect_counts(r, 202, 2, 0, 1);
    cr_assert(sv_contains(r.body, SV("\"error\":\"alerts[1]: label \\\"x\\\" is not a string\"")), "%.*s",
              SV_ARG(r.body));
    const struct record *rejected = record_at(2);
    cr_assert_eq(rejected->kind, RECORD_REJECTED);
    cr_assert(sv_eq(rejected->reason, SV("alerts[1]: label \"x\" is not a string")));
    cr_assert(
        sv_eq(
            rejected->detail,
            SV("{\"evidence\":\"{\\\"status\\\":\\\"firing\\\",\\\"labels\\\":{\\\"alertname\\\":\\\"\xC3\xA4\\\",\\\"x\\\":1},"
               "\\\"quote\\\":\\\"\\\\\\\"\\\"}\",\"index\":1}")),
        "%.*s", SV_ARG(rejected->detail));
    cr_assert(sv_eq(rejected->source, SV("alertmanager")));
    cr_assert(sv_eq(rejected->receiver, SV("bot.main")));
    expect_all_durable();
}

Test(alerts, bad_alert_in_a_group_is_rejected_and_recorded)
{
    run(bad_in_group);
}

static void all_bad(void)
{
    struct strview bad[] = {SV("7"), SV("{}")};
    expect_counts(post(body_of(bad, 2), T0), 400, 0, 0, 2);
    cr_assert_eq(journal_last_seq(bench.journal), 2);
    cr_assert_eq(record_at(1)->kind, RECORD_REJECTED);
    expect_all_durable();
}

Test(alerts, group_of_bad_alerts_is_a_bad_request_and_recorded)
{
    run(all_bad);
}

static void bad_body(void)
{
    struct reply r = post(SV("{\"version\":\"4\",\"alerts\":[{]}"), T0);
    cr_assert_eq(r.status, 400);
    cr_assert(
        sv_starts_with(
            r.body,
            SV("{\"error\":\"JSON: a member name in quotes is expected at line 1 column 27, in alerts[0]\"}")),
        "%.*s", SV_ARG(r.body));
    r = post(SV("{\"version\":\"2\",\"alerts\":[{}]}"), T0);
    cr_assert_eq(r.status, 400);
    cr_assert_eq(journal_last_seq(bench.journal), 0);
}

Test(alerts, bad_body_is_a_bad_request)
{
    run(bad_body);
}

static void other_requests(void)
{
    cr_assert_eq(request("GET", "/", SV(""), T0, SV("")).status, 405);
    cr_assert_eq(request("PUT", "/", body_1(firing("A", S1)), T0, SV("")).status, 405);
    cr_assert_eq(request("POST", "/x", body_1(firing("A", S1)), T0, SV("")).status, 404);
    cr_assert_eq(request("GET", "/_/health", SV(""), T0, SV("")).status, 404);
    cr_assert_eq(journal_last_seq(bench.journal), 0);
}

Test(alerts, other_methods_and_paths_are_refused)
{
    run(other_requests);
}

/* ---- other sources ---- */

static struct strview of_grafana(const char *status, const char *reason)
{
    return arena_printf(
        &bench.arena,
        "{\"version\":\"1\",\"receiver\":\"g\",\"orgId\":1,\"alerts\":[{\"status\":\"%s\",\"labels\":{"
        "\"alertname\":\"Down\",\"job\":\"web\"},\"annotations\":{\"grafana_state_reason\":\"%s\"},"
        "\"startsAt\":\"" S1 "\",\"endsAt\":\"0001-01-01T00:00:00Z\"}]}",
        status, reason);
}

static void grafana_beside_alertmanager(void)
{
    expect_counts(post(body_1(firing("Down", S1)), T0), 202, 1, 0, 0);
    expect_counts(post(of_grafana("firing", ""), T0), 202, 1, 0, 0);
    expect_counts(post(of_grafana("firing", ""), T0), 202, 0, 1, 0);
    cr_assert(sv_eq(record_at(2)->source, SV("grafana")));
    cr_assert(sv_eq(record_at(1)->fingerprint, record_at(2)->fingerprint));
    cr_assert_not(sv_eq(record_at(1)->incident, record_at(2)->incident));
    expect_counts(post(body_1(resolved("Down", S1)), T0 + 1), 202, 1, 0, 0);
    expect_counts(post(of_grafana("firing", ""), T0 + 2), 202, 0, 1, 0); /* it still fires there */
    expect_counts(post(of_grafana("resolved", ""), T0 + 3), 202, 1, 0, 0);
    cr_assert(sv_eq(record_at(4)->incident, record_at(2)->incident));
}

Test(alerts, grafana_and_alertmanager_have_episodes_of_their_own)
{
    run(grafana_beside_alertmanager);
}

static void not_measured(void)
{
    expect_counts(post(of_grafana("firing", "NoData"), T0), 202, 0, 0,
                  1); /* opens nothing, and is no mistake */
    cr_assert_eq(record_at(1)->kind, RECORD_REJECTED);
    cr_assert(sv_contains(record_at(1)->reason, SV("Grafana measured nothing")));
    expect_counts(post(of_grafana("firing", ""), T0 + 1), 202, 1, 0, 0);
    expect_counts(post(of_grafana("firing", "Error, KeepLast"), T0 + 2), 202, 0, 1,
                  0); /* open, and kept so */
    expect_counts(post(of_grafana("resolved", "MissingSeries"), T0 + 3), 202, 1, 0, 0);
    cr_assert_eq(record_at(3)->kind, RECORD_EXPIRED, "unknown, never healed");
    cr_assert(sv_contains(record_at(3)->reason, SV("MissingSeries")));
    cr_assert_eq(journal_last_seq(bench.journal), 3);
}

Test(alerts, what_grafana_did_not_measure_neither_opens_nor_heals)
{
    run(not_measured);
}

static struct reply post_event(const char *id, const char *members, int64_t now_ns)
{
    const struct http_header headers[] = {{SV("content-type"), SV("application/cloudevents+json")}};
    struct http_req req = {.method = SV("POST"),
                           .path = SV("/"),
                           .headers = headers,
                           .n_headers = 1,
                           .body = arena_printf(&bench.arena,
                                                "{\"specversion\":\"1.0\",\"type\":\"t\",\"source\":\"/s\","
                                                "\"subject\":\"pod\",\"id\":\"%s\"%s}",
                                                id, members),
                           .arena = &bench.arena,
                           .received_unix_ns = now_ns};
    struct http_resp resp = {.status = 200};
    alerts_function.handle(bench.state, &req, &resp);
    return (struct reply){.status = resp.status, .body = resp.body};
}

static void redelivered(void)
{
    expect_counts(post_event("1", "", T0), 202, 1, 0, 0);
    expect_counts(post_event("1", "", T0 + 90 * NS_PER_S), 202, 0, 1, 0);  /* though it says no time */
    expect_counts(post_event("2", "", T0 + 30 * NS_PER_S), 202, 0, 1, 0);  /* within a minute: the same */
    expect_counts(post_event("3", "", T0 + 100 * NS_PER_S), 202, 1, 0, 0); /* it happened again */
    cr_assert_eq(record_at(2)->kind, RECORD_EXPIRED);
    expect_counts(post_event("4", ",\"status\":\"resolved\"", T0 + 200 * NS_PER_S), 202, 1, 0, 0);
    cr_assert(sv_eq(record_at(4)->incident, record_at(3)->incident));
    close_intake();
    open_intake(true);
    int64_t late_ns = T0 + EPISODE_LATE_NS + 300 * NS_PER_S; /* an alert would count as firing again by now */
    expect_counts(post_event("3", "", late_ns), 202, 0, 1, 0);
    expect_counts(post_event("5", "", late_ns), 202, 1, 0, 0);
    cr_assert_eq(journal_last_seq(bench.journal), 5);
}

Test(alerts, event_that_is_delivered_again_acts_once_also_after_a_restart)
{
    run(redelivered);
}

static void foreign_fingerprint(void)
{
    static const char fmt[] =
        "{\"status\":\"firing\",\"labels\":{\"alertname\":\"A\",\"kind\":\"r500\"},\"startsAt\":\"" S1
        "\",\"fingerprint\":\"%s\"}";
    expect_counts(post(body_1(arena_printf(&bench.arena, fmt, "0123456789abcdef")), T0), 202, 1, 0, 0);
    cr_assert(sv_eq(record_at(1)->fingerprint, SV("0123456789abcdef")));
    cr_assert(sv_eq(record_at(1)->fingerprint_computed, SV("129c009076f06444")));
    expect_counts(post(body_1(arena_printf(&bench.arena, fmt, "129c009076f06444")), T0), 202, 1, 0, 0);
    cr_assert_eq(record_at(2)->fingerprint_computed.len, 0);
}

Test(alerts, foreign_fingerprint_is_recorded_not_refused)
{
    run(foreign_fingerprint);
}

/* ---- overload and failure ---- */

static void expect_unavailable(struct reply r)
{
    cr_expect_eq(r.status, 503, "%d %.*s", r.status, SV_ARG(r.body));
    cr_expect(sv_eq(r.retry_after, SV("1")));
    cr_expect(sv_starts_with(r.body, SV("{\"error\":\"")));
}

static void too_much_pending(void)
{
    expect_unavailable(post(body_1(firing("Down", S1)), T0));
    cr_assert_eq(journal_last_seq(bench.journal), 0);
}

Test(alerts, overload_is_answered_with_503)
{
    bench.cfg.pending_max_bytes = 100;
    run(too_much_pending);
}

static void not_folded_yet(void)
{
    expect_counts(post(body_1(firing("Down", S1)), T0), 202, 1, 0, 0);
    expect_counts(post(body_1(resolved("Down", S1)), T0 + 1), 202, 1, 0, 0);
    close_intake();
    open_intake(false);
    expect_unavailable(post(body_1(firing("Down", S1)), T0 + 2));
    struct error err;
    cr_assert_eq(journal_fold(bench.journal, &err), STATUS_OK);
    cr_assert_eq(alerts_function.ready(bench.state, &err), STATUS_OK);
    expect_counts(post(body_1(firing("Down", S1)), T0 + 2), 202, 0, 1, 0); /* known from the journal */
    expect_counts(post(body_1(firing("Down", S2)), T0 + 3), 202, 1, 0, 0);
    cr_assert_eq(journal_last_seq(bench.journal), 3);
}

Test(alerts, restart_knows_what_was_and_answers_503_until_then)
{
    run(not_folded_yet);
}

static void give_disk(rlim_t bytes)
{
    struct rlimit limit;
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void failing_disk(void)
{
    expect_counts(post(body_1(firing("Before", S1)), T0), 202, 1, 0, 0);
    give_disk(1); /* every write of the store fails from here on */
    expect_unavailable(post(body_1(firing("Down", S1)), T0));
    /* Not even a duplicate while nobody knows what is on disk. */
    expect_unavailable(post(body_1(firing("Before", S1)), T0));
    give_disk(RLIM_INFINITY);
    int64_t deadline_ns = clock_monotonic_ns() + WAIT_MAX;
    struct reply r;
    do {
        cr_assert_eq(sleep_ms(20), STATUS_OK);
        r = post(body_1(firing("Down", S1)), T0);
    } while (r.status == 503 && clock_monotonic_ns() < deadline_ns);
    expect_counts(r, 202, 1, 0, 0); /* it was never accepted, so it is new */
    expect_counts(post(body_1(firing("Down", S1)), T0), 202, 0, 1, 0);
    expect_counts(post(body_1(firing("Before", S1)), T0), 202, 0, 1, 0);
    expect_all_durable();
    cr_assert_eq(journal_last_seq(bench.journal), 2);
}

Test(alerts, failed_commit_is_answered_with_503_and_the_alert_stays_new)
{
    (void)signal(SIGXFSZ, SIG_IGN);
    run(failing_disk);
}

static void cancelled_wait(void)
{
    (void)fiber_set_deadline(clock_monotonic_ns() - 1);
    expect_unavailable(post(body_1(firing("Down", S1)), T0));
    (void)fiber_set_deadline(0);
    expect_counts(post(body_1(firing("Down", S1)), T0), 202, 0, 1, 0);
    expect_all_durable();
}

Test(alerts, answer_that_could_not_wait_for_the_disk_is_503)
{
    run(cancelled_wait);
}

/* ---- leases ---- */

static void lease_runs_out(void)
{
    int64_t now_ns = clock_unix_ns();
    expect_counts(post(body_1(firing("Down", S1)), now_ns), 202, 1, 0, 0);
    cr_assert_eq(journal_wait_after(bench.journal, 1, clock_monotonic_ns() + WAIT_MAX), STATUS_OK);
    const struct record *expired = record_at(2), *signal = record_at(1);
    cr_assert_eq(expired->kind, RECORD_EXPIRED);
    cr_assert(sv_eq(expired->incident, signal->incident));
    cr_assert(sv_eq(expired->fingerprint, signal->fingerprint));
    cr_assert(sv_eq(expired->source, SV("alertmanager")));
    cr_assert_geq(expired->time_ns - now_ns, 2 * bench.env.repeat_interval_ns + bench.env.group_interval_ns);
    /* It fires still, with the same start: a new episode under another incident. */
    expect_counts(post(body_1(firing("Down", S1)), clock_unix_ns()), 202, 1, 0, 0);
    cr_assert(sv_eq(record_at(3)->status, SV("firing")));
    cr_assert_not(sv_eq(record_at(3)->incident, signal->incident));
}

Test(alerts, unseen_for_its_lease_is_closed_as_unknown)
{
    bench.env.repeat_interval_ns = 100 * NS_PER_MS;
    bench.env.group_interval_ns = 50 * NS_PER_MS;
    run(lease_runs_out);
}

/* ---- metrics ---- */

static void counted(void)
{
    struct strview mixed[] = {firing("A", S1), firing("A", S1), firing("B", S1), SV("{}")};
    (void)post(body_of(mixed, 4), clock_unix_ns());
    (void)post(SV("x"), T0);
    struct buf text;
    buf_init(&text, 1 << 20);
    metrics_write(&text);
    static const char *const lines[] = {
        "balm_alerts_total{result=\"accepted\"} 2\n",   "balm_alerts_total{result=\"duplicate\"} 1\n",
        "balm_alerts_total{result=\"rejected\"} 1\n",   "balm_alerts_requests_total{code=\"202\"} 1\n",
        "balm_alerts_requests_total{code=\"400\"} 1\n", "balm_stage_seconds_count{stage=\"durable\"} 1\n"};
    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        cr_expect(sv_contains(buf_view(&text), sv(lines[i])), "%s", lines[i]);
    buf_release(&text);
}

Test(alerts, are_counted)
{
    run(counted);
}

static void nothing(void) {}

Test(alerts, stop_leaves_nothing_behind)
{
    run(nothing);
}
