/* The whole dispatcher on a real journal and queue; only the bots behind the invoker, a process border, are
 * played by a script. */
#include "functions/dispatcher/dispatcher.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/list.h"
#include "functions/dispatcher/clock_anchor.h"
#include "functions/dispatcher/decide.h"
#include "functions/dispatcher/explain.h"
#include "functions/dispatcher/preview.h"
#include "log/log.h"
#include "metrics/catalog.h"
#include "store/journal.h"

#define WAIT_NS (10 * NS_PER_S)

TestSuite(dispatcher, .timeout = 60);

static char dir[512];
static struct loop *loop;
static struct journal *journal;
static struct arena arena;
static struct core_env env;
static void *dispatcher;

/* ---- the bots ---- */

static struct {
    unsigned n_invoked, n_called, n_frozen, n_posted;
    enum status post_status;
    int post_http_status;
    char last_post[200];
    bool is_frozen, hangs, call_hangs;
    enum status status; /* of the next invocations */
    bool can_retry;
    unsigned fail_first; /* so many invocations answer "failed", retry */
    const char *state;   /* of the answer */
    enum on_unknown on_unknown;
    bool removes_series;
    int64_t entered_ns; /* as it says; 0: now */
    char last_intent[200], last_params[500], last_function[64], last_body[100];
    unsigned last_attempt;
    struct fiber_event changed, released;
} bots;

static enum status bot_info(void *arg, struct strview function, struct function_info *ret_info,
                            struct error *err)
{
    (void)arg;
    if (!sv_eq(function, SV("restart")) && !sv_eq(function, SV("reboot")) && !sv_eq(function, SV("echo")))
        return error_set(err, STATUS_NOT_FOUND, "no function '%.*s' is deployed", SV_ARG(function));
    *ret_info = (struct function_info){
        .name = function,
        .acts = true,
        .on_unknown = bots.on_unknown,
        .removes_series = bots.removes_series,
        .tells_people = sv_eq(function, SV("echo")),
        .timeout_ns = 5 * NS_PER_S,
        .manifest_json = SV(
            "{\"params\":{\"unit\":{\"type\":\"text\",\"max\":5},\"tries\":{\"type\":\"integer\",\"min\":1,\"max\":9}},"
            "\"schema\":{\"properties\":{\"unit\":{\"type\":\"string\"},\"tries\":{\"type\":\"integer\"}},"
            "\"required\":[]}}")};
    return STATUS_OK;
}

static enum status bot_invoke(void *arg, const struct invocation *inv, struct strview params, struct arena *a,
                              struct invocation_reply *ret_reply, struct error *err)
{
    (void)arg;
    (void)a;
    bots.n_invoked++;
    bots.last_attempt = inv->attempt;
    (void)snprintf(bots.last_intent, sizeof(bots.last_intent), "%.*s", SV_ARG(inv->intent));
    (void)snprintf(bots.last_function, sizeof(bots.last_function), "%.*s", SV_ARG(inv->function));
    (void)snprintf(bots.last_params, sizeof(bots.last_params), "%.*s", SV_ARG(params));
    fiber_event_set(&bots.changed);
    int64_t entered_ns = bots.entered_ns != 0 ? bots.entered_ns : clock_unix_ns();
    if (bots.hangs && fiber_event_wait(&bots.released, 0) != STATUS_OK)
        return error_set(err, STATUS_CANCELLED, "cut");
    if (bots.fail_first > 0) {
        bots.fail_first--;
        *ret_reply = (struct invocation_reply){
            .state = SV("failed"), .code = SV("UNAVAILABLE"), .message = SV("not now"), .can_retry = true};
        return STATUS_OK;
    }
    if (bots.status != STATUS_OK) {
        enum status s = error_set(err, bots.status, "scripted");
        if (err != NULL) err->can_retry = bots.can_retry;
        return s;
    }
    *ret_reply = (struct invocation_reply){.state = sv(bots.state),
                                           .message = SV("it came up"),
                                           .undo = SV("systemctl stop nginx"),
                                           .detail = SV("{\"pid\":7}"),
                                           .entered_unix_ns = entered_ns,
                                           .left_unix_ns = clock_unix_ns()};
    return STATUS_OK;
}

static enum status bot_call(void *arg, struct strview function, const struct http_req *req,
                            int64_t deadline_ns, struct arena *a, struct http_reply *ret_reply,
                            struct error *err)
{
    (void)arg;
    (void)function;
    (void)deadline_ns;
    (void)a;
    bots.n_called++;
    (void)snprintf(bots.last_body, sizeof(bots.last_body), "%.*s %.*s %.*s", SV_ARG(req->method),
                   SV_ARG(req->target), SV_ARG(req->body));
    fiber_event_set(&bots.changed);
    if (bots.call_hangs && fiber_event_wait(&bots.released, 0) != STATUS_OK)
        return error_set(err, STATUS_CANCELLED, "cut");
    if (bots.status != STATUS_OK) return error_set(err, bots.status, "scripted");
    static const struct http_header headers[] = {{SV("content-type"), SV("text/x-fine")},
                                                 {SV("content-length"), SV("4")}};
    *ret_reply = (struct http_reply){
        .status = 200, .headers = headers, .n_headers = ARRAY_LEN(headers), .body = SV("fine")};
    return STATUS_OK;
}

static enum status bot_post(void *arg, struct strview url, const struct http_header *headers,
                            size_t n_headers, struct strview body, struct arena *a, int *ret_http_status,
                            struct error *err)
{
    (void)arg;
    (void)a;
    struct strview name = http_header_get(headers, n_headers, SV("x-function-name"));
    struct strview status = http_header_get(headers, n_headers, SV("x-function-status"));
    bots.n_posted++;
    (void)snprintf(bots.last_post, sizeof(bots.last_post), "%.*s %.*s %.*s %zu %.*s", SV_ARG(url),
                   SV_ARG(name), SV_ARG(status), n_headers, SV_ARG(body));
    if (bots.post_status != STATUS_OK) return error_set(err, bots.post_status, "scripted");
    *ret_http_status = bots.post_http_status;
    return STATUS_OK;
}

static enum status bot_freeze(void *arg, bool is_frozen, struct error *err)
{
    (void)arg;
    (void)err;
    bots.n_frozen++;
    bots.is_frozen = is_frozen;
    return STATUS_OK;
}

static const struct invoker_ops script = {"script", bot_info, bot_invoke, bot_call, bot_post, bot_freeze};

/* ---- the stage ---- */

#define RUNBOOK(mode, guardrails, step_extra)                                                                \
    "name: rb\nmatch: ['alertname=\"Down\"']\ntarget: service/${labels.service}\nmode: " mode "\n"           \
    "guardrails: {" guardrails                                                                               \
    "}\nsteps:\n  - bot: restart\n    with: {unit: '${labels.service}'}\n" step_extra

static const char act_runbook[] = RUNBOOK("act", "cooldown: 1s", "");

static void write_runbook(const char *text)
{
    struct error err;
    cr_assert_eq(file_write_atomic(arena_printf(&arena, "%s/runbooks/a.yaml", dir).ptr, sv(text), 0600, &err),
                 STATUS_OK, "%s", err.message);
}

static enum status open_stage(struct error *err)
{
    cr_assert_eq(
        journal_open_sqlite(loop, &(struct journal_cfg){.dir = arena_printf(&arena, "%s/journal", dir).ptr},
                            &journal, err),
        STATUS_OK, "%s", err->message);
    env = (struct core_env){.loop = loop,
                            .journal = journal,
                            .dir = dir,
                            .runbooks_dir = arena_printf(&arena, "%s/runbooks", dir).ptr,
                            .tenant = SV("default"),
                            .cluster = SV("local"),
                            .invoker = &script};
    dispatcher = NULL;
    enum status s = dispatcher_function.start(&env, &dispatcher, err);
    if (s == STATUS_OK) s = journal_fold(journal, err);
    return s == STATUS_OK ? dispatcher_function.ready(dispatcher, err) : s;
}

static void close_stage(void)
{
    if (dispatcher != NULL) dispatcher_function.stop(dispatcher, clock_monotonic_ns() + 10 * NS_PER_S);
    journal_close(journal);
}

static void restart_stage(void)
{
    struct error err;
    close_stage();
    cr_assert_eq(open_stage(&err), STATUS_OK, "%s", err.message);
}

static void remove_tree(const char *path)
{
    DIR *d = opendir(path);
    const struct dirent *entry;
    while (d != NULL && (entry = readdir(d)) != NULL)
        if (entry->d_name[0] != '.') (void)unlinkat(dirfd(d), entry->d_name, 0);
    if (d != NULL) (void)closedir(d);
    (void)rmdir(path);
}

/* Nothing of the past may be different when it is decided again. */
static void expect_reproducible(void)
{
    struct journal_reader *reader;
    struct error err;
    struct decide_report report;
    cr_assert_eq(journal_reader_open(arena_printf(&arena, "%s/journal", dir).ptr, &reader, &err), STATUS_OK,
                 "%s", err.message);
    enum status s = decide_verify(reader, &report, &err);
    journal_reader_close(reader);
    cr_assert_eq(s, STATUS_OK, "%s\nexpected %s\nfound    %s", err.message, report.expected, report.found);
    cr_assert_gt(report.n_records, 0);
}

typedef void test_fn(void);

static void test_fiber(void *arg)
{
    struct error err;
    test_fn *fn = *(test_fn **)arg;
    cr_assert_eq(open_stage(&err), STATUS_OK, "%s", err.message);
    fn();
    close_stage();
    expect_reproducible();
}

static void prepare(const char *runbook)
{
    struct error err;
    const char *tmp = getenv("TMPDIR");
    log_set_level(LOG_LEVEL_ERROR);
    (void)snprintf(dir, sizeof(dir), "%s/balm-dispatcher-XXXXXX", tmp != NULL ? tmp : "/tmp");
    cr_assert_not_null(mkdtemp(dir));
    cr_assert_eq(dir_make(arena_printf(&arena, "%s/runbooks", dir).ptr, 0700, &err), STATUS_OK);
    cr_assert_eq(dir_make(arena_printf(&arena, "%s/run", dir).ptr, 0700, &err), STATUS_OK);
    write_runbook(runbook);
    memset(&bots, 0, sizeof(bots));
    bots.state = "done";
    bots.on_unknown = ON_UNKNOWN_RERUN;
    fiber_event_init(&bots.changed);
    fiber_event_init(&bots.released);
    cr_assert_eq(loop_new(&loop, &err), STATUS_OK, "%s", err.message);
}

static void clean_up(void)
{
    loop_free(loop);
    remove_tree(arena_printf(&arena, "%s/runbooks", dir).ptr);
    remove_tree(arena_printf(&arena, "%s/journal", dir).ptr);
    remove_tree(arena_printf(&arena, "%s/run", dir).ptr);
    cr_assert_eq(rmdir(dir), 0);
    arena_release(&arena);
}

static void run(const char *runbook, test_fn *fn)
{
    struct error err;
    prepare(runbook);
    cr_assert_eq(loop_run_fiber(loop, test_fiber, &fn, &err), STATUS_OK, "%s", err.message);
    clean_up();
}

/* ---- doing and seeing ---- */

static void append(struct record r)
{
    struct error err;
    if (r.time_ns == 0) r.time_ns = clock_unix_ns();
    cr_assert_eq(journal_append(journal, &r, 1, NULL, &err), STATUS_OK, "%s", err.message);
}

static void signal_alert(const char *incident, const char *status)
{
    static const struct http_header labels[] = {{{"alertname", 9}, {"Down", 4}},
                                                {{"service", 7}, {"nginx", 5}}};
    append((struct record){.kind = RECORD_SIGNAL,
                           .incident = sv(incident),
                           .fingerprint = SV("0123456789abcdef"),
                           .status = sv(status),
                           .source = SV("alertmanager"),
                           .labels = {labels, 2}});
}

/* Newest record of the kind for the incident (NULL: any), looked up in the journal until it is there. NULL
 * after the deadline. */
static const struct record *find_record(enum record_kind kind, const char *incident, const char *state)
{
    const struct record *found = NULL;
    struct error err;
    uint64_t seq = 1;
    for (size_t n = 1; n > 0;) {
        struct journal_entry *entries;
        cr_assert_eq(journal_read(journal, seq, 1000, true, &arena, &entries, &n, &err), STATUS_OK, "%s",
                     err.message);
        for (size_t i = 0; i < n; i++) {
            const struct record *r = entries[i].record;
            seq = entries[i].seq + 1;
            if (r->kind == kind && (incident == NULL || sv_eq(r->incident, sv(incident))) &&
                (state == NULL || sv_eq(r->state, sv(state))))
                found = r;
        }
    }
    return found;
}

static const struct record *wait_record(enum record_kind kind, const char *incident, const char *state)
{
    int64_t deadline_ns = clock_monotonic_ns() + WAIT_NS;
    const struct record *r;
    while ((r = find_record(kind, incident, state)) == NULL) {
        uint64_t seq = journal_durable_seq(journal);
        cr_assert_eq(journal_wait_after(journal, seq, deadline_ns), STATUS_OK, "no %s of %s came",
                     record_kind_name(kind), incident);
    }
    return r;
}

static json_t *http(const char *method, const char *target, const char *body, int expected)
{
    struct http_req req = {.method = sv(method), .target = sv(target), .body = sv(body), .arena = &arena};
    struct http_resp resp = {.status = 200};
    size_t query_at = sv_find(req.target, '?');
    req.path = sv_sub(req.target, 0, query_at);
    req.query = sv_sub(req.target, query_at + 1, req.target.len);
    dispatcher_function.handle(dispatcher, &req, &resp);
    cr_assert_eq(resp.status, expected, "%s %s: %d %.*s", method, target, resp.status, SV_ARG(resp.body));
    json_t *json = NULL;
    struct error err;
    cr_assert_eq(json_parse(resp.body, 0, &json, &err), STATUS_OK, "%s", err.message);
    return json;
}

/* ---- tests ---- */

static void check_healed(void)
{
    signal_alert("i1", "firing");
    const struct record *outcome = wait_record(RECORD_OUTCOME, "i1", NULL);
    cr_assert(sv_eq(outcome->state, SV("done")));
    cr_assert(sv_eq(outcome->undo, SV("systemctl stop nginx")));
    cr_assert(sv_eq(outcome->detail, SV("{\"pid\":7}")));
    static const char *const stages[] = {"received", "durable", "decided", "invoked", "entered", "healed"};
    json_t *json;
    cr_assert_eq(json_parse(outcome->stages, 0, &json, NULL), STATUS_OK);
    int64_t before_ns = 0;
    for (size_t i = 0; i < ARRAY_LEN(stages); i++) {
        int64_t at_ns = 0;
        cr_assert_eq(rfc3339_parse(json_get_text(json, stages[i]), &at_ns), STATUS_OK, "%s", stages[i]);
        cr_assert(at_ns > 0, "%s is missing", stages[i]);
        if (strcmp(stages[i], "durable") != 0 &&
            strcmp(stages[i], "decided") != 0) { /* deciding does not wait for the disk */
            cr_assert(at_ns >= before_ns, "%s", stages[i]);
            before_ns = at_ns;
        }
    }
    json_decref(json);
    cr_assert_str_eq(bots.last_params, "{\"unit\":\"nginx\"}");
    signal_alert("i1", "resolved");
    cr_assert(sv_eq(wait_record(RECORD_CLOSED, "i1", NULL)->state, SV("healed")));
    cr_assert_eq(bots.n_invoked, 1);
}

Test(dispatcher, an_alert_becomes_a_verified_repair)
{
    run(act_runbook, check_healed);
}

static unsigned observed(const char *stage)
{
    struct strview value = sv(stage);
    return (unsigned)metric_value(catalog_series(CATALOG_STAGE, &value));
}

static unsigned observed_within(const char *stage, const char *seconds)
{
    struct buf text;
    buf_init(&text, 4 * 1024 * 1024);
    metrics_write(&text);
    buf_append_char(&text, '\0');
    char line[200];
    (void)snprintf(line, sizeof(line), "stage=\"%s\",le=\"%s\"} ", stage, seconds);
    const char *at = strstr(text.ptr, line);
    cr_assert_not_null(at, "%s", line);
    unsigned n = (unsigned)strtoul(at + strlen(line), NULL, 10);
    buf_release(&text);
    return n;
}

/* A bot's clock is its own. */
static void check_entered_before_all_times(void)
{
    bots.entered_ns = INT64_C(-9214560000) * NS_PER_S; /* 1678 */
    signal_alert("i1", "firing");
    (void)wait_record(RECORD_OUTCOME, "i1", "done");
    while (observed("entered") == 0)
        cr_assert_eq(sleep_ms(1), STATUS_OK);
    cr_assert_eq(observed_within("entered", "0.001"), 1, "no time at all, not 237 years");
}

Test(dispatcher, a_bot_that_began_before_all_times_took_no_time)
{
    run(act_runbook, check_entered_before_all_times);
}

/* Its outcome closes the incident at once: the way of the act is counted all the same. */
static void check_stages_of_an_act(void)
{
    signal_alert("i1", "firing");
    (void)wait_record(RECORD_CLOSED, "i1", "healed");
    static const char *const stages[] = {"decided", "invoked", "entered", "healed", "verified"};
    for (size_t i = 0; i < ARRAY_LEN(stages); i++)
        cr_assert_eq(observed(stages[i]), 1, "%s: %u", stages[i], observed(stages[i]));
    cr_assert_eq(observed("durable"), 0, "that is the intake's to count");
}

Test(dispatcher, each_stage_of_an_act_is_counted_once)
{
    run(RUNBOOK("act", "cooldown: 1s", "    verify: check\n"), check_stages_of_an_act);
}

static void check_stages_of_a_refusal(void)
{
    signal_alert("i1", "firing");
    signal_alert("i1", "firing"); /* seen again: decided already */
    (void)wait_record(RECORD_REFUSAL, "i1", NULL);
    cr_assert_eq(observed("decided"), 1);
    cr_assert_eq(observed("invoked"), 0);
}

Test(dispatcher, a_refusal_is_a_decision_too)
{
    run(RUNBOOK("shadow", "cooldown: 1s", ""), check_stages_of_a_refusal);
}

static void check_explained(void)
{
    check_healed();
    json_t *json = http("GET", "/incidents/i1", NULL, 200);
    cr_assert(sv_eq(json_get_text(json, "state"), SV("healed")));
    cr_assert_eq(json_array_size(json_object_get(json, "acts")), 1);
    cr_assert(sv_eq(json_get_text(json, "next"), SV("nothing: closed as healed")));
    struct buf text;
    buf_init(&text, 64 * 1024);
    explain_text(json, &text);
    static const char *const parts[] = {"incident i1: healed",
                                        "Down from alertmanager",
                                        "rb, mode act",
                                        "service/nginx",
                                        "in_flight_runbook",
                                        "done at",
                                        "undo      systemctl stop nginx",
                                        "verified  yes, by resolve"};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        cr_assert(sv_contains(buf_view(&text), sv(parts[i])), "'%s' is not in:\n%.*s", parts[i],
                  SV_ARG(buf_view(&text)));
    buf_release(&text);
    json_decref(json);
    struct journal_reader *reader;
    struct error err;
    cr_assert_eq(journal_reader_open(arena_printf(&arena, "%s/journal", dir).ptr, &reader, &err), STATUS_OK);
    cr_assert_eq(explain_read(reader, SV("i1"), &json, &err), STATUS_OK, "%s", err.message);
    cr_assert(sv_eq(json_get_text(json, "state"), SV("healed")));
    json_decref(json);
    cr_assert_eq(explain_read(reader, SV("i2"), &json, &err), STATUS_NOT_FOUND);
    journal_reader_close(reader);
    json_decref(http("GET", "/incidents/none", NULL, 404));
}

Test(dispatcher, an_incident_explains_itself_online_and_offline)
{
    run(act_runbook, check_explained);
}

static void check_status(void)
{
    check_healed();
    json_t *json = http("GET", "/status", NULL, 200);
    cr_assert_eq(json_integer_value(json_object_get(json, "epoch")), 1);
    cr_assert(sv_eq(sv(json_string_value(json_array_get(json_object_get(json, "mayAct"), 0))), SV("rb")));
    cr_assert_eq(
        json_integer_value(json_object_get(json_array_get(json_object_get(json, "sources"), 0), "signals")),
        2);
    cr_assert_eq(json_integer_value(json_object_get(json_object_get(json, "incidents"), "closed")), 1);
    json_decref(json);
    signal_alert("i2", "firing");
    json = http("GET", "/incidents?limit=5", NULL, 200);
    cr_assert_eq(json_array_size(json), 2);
    cr_assert(sv_eq(json_get_text(json_array_get(json, 0), "incident"), SV("i2")));
    json_decref(json);
    json = http("GET", "/incidents?state=closed", NULL, 200);
    cr_assert_eq(json_array_size(json), 1);
    cr_assert(sv_eq(json_get_text(json_array_get(json, 0), "state"), SV("healed")));
    json_decref(json);
    json_decref(http("GET", "/incidents?state=odd", NULL, 400));
    json_decref(http("GET", "/incidents?limit=0", NULL, 400));
    json_decref(http("POST", "/status", "{}", 405));
    json_decref(http("GET", "/nowhere", NULL, 404));
    json_decref(
        http("POST", "/notes", "{\"incident\":\"i2\",\"actor\":\"me\",\"message\":\"looking\"}", 200));
    json_decref(http("POST", "/notes", "{\"incident\":\"i2\",\"actor\":\"me\"}", 400));
    json_decref(http("POST", "/notes", "nonsense", 400));
    cr_assert(sv_eq(wait_record(RECORD_NOTE, "i2", NULL)->message, SV("looking")));
}

Test(dispatcher, status_and_lists_show_what_is)
{
    run(act_runbook, check_status);
}

#define SIGNAL_LINE(incident, service)                                                                       \
    "{\"cluster\":\"local\",\"fingerprint\":\"" incident "\",\"format\":1,\"incident\":\"" incident          \
    "\",\"kind\":\"signal\",\"labels\":{\"alertname\":\"Down\",\"service\":\"" service                       \
    "\"},\"status\":\"firing\",\"tenant\":\"default\",\"time\":\"2026-11-22T10:00:00.000000000Z\"}\n"

static void check_explain_changes_nothing(void)
{
    signal_alert("i1", "firing");
    (void)wait_record(RECORD_OUTCOME, "i1", NULL);
    json_t *before = http("GET", "/status", "", 200);
    uint64_t seq = journal_last_seq(journal);
    unsigned n_invoked = bots.n_invoked;
    for (int i = 0; i < 2; i++) { /* the second answer is not changed by the first */
        json_t *json = http("POST", "/explain", SIGNAL_LINE("e1", "redis") SIGNAL_LINE("e2", "nginx"), 200);
        const json_t *alerts = json_object_get(json, "alerts");
        cr_assert_eq(json_array_size(alerts), 2);
        cr_expect(sv_eq(json_get_text(json_array_get(alerts, 0), "result"), SV("act")));
        cr_expect(sv_eq(json_get_text(json_array_get(alerts, 1), "result"), SV("refused")));
        json_decref(json);
    }
    for (int i = 0; i < 5; i++)
        cr_assert_eq(fiber_yield(), STATUS_OK);
    cr_expect_eq(journal_last_seq(journal), seq);
    cr_expect_eq(bots.n_invoked, n_invoked);
    json_t *after = http("GET", "/status", "", 200);
    (void)json_object_del(before, "time");
    (void)json_object_del(after, "time");
    cr_expect(json_equal(json_object_get(before, "incidents"), json_object_get(after, "incidents")));
    cr_expect(json_equal(json_object_get(before, "backlog"), json_object_get(after, "backlog")));
    cr_expect(json_equal(json_object_get(before, "runbooks"), json_object_get(after, "runbooks")));
    cr_expect(json_equal(json_object_get(before, "seq"), json_object_get(after, "seq")));
    json_decref(before);
    json_decref(after);
}

Test(dispatcher, explaining_an_alert_changes_nothing)
{
    run(act_runbook, check_explain_changes_nothing);
}

static void check_explain_takes_signals_only(void)
{
    json_decref(http("POST", "/explain", "", 200));
    json_decref(http("GET", "/explain", "", 405));
    json_decref(http("POST", "/explain", "not json\n", 400));
    json_decref(http("POST", "/explain", SIGNAL_LINE("e1", "redis") "{}\n", 400));
    json_decref(
        http("POST", "/explain",
             "{\"cluster\":\"local\",\"format\":1,\"kind\":\"freeze\",\"on\":true,\"tenant\":\"default\","
             "\"time\":\"2026-11-22T10:00:00.000000000Z\"}\n",
             400));
    size_t n = PREVIEW_ALERTS_MAX + 2;
    char *lines = arena_alloc(&arena, n + 1);
    memset(lines, '\n', n);
    lines[n] = '\0';
    json_decref(http("POST", "/explain", lines, 400));
    cr_expect_eq(bots.n_invoked, 0);
}

Test(dispatcher, explain_takes_signals_only)
{
    run(act_runbook, check_explain_takes_signals_only);
}

static void check_freeze(void)
{
    json_decref(http("POST", "/freeze", "{\"on\":true}", 400)); /* who? */
    json_decref(http("POST", "/freeze", "{\"on\":1,\"actor\":\"me\"}", 400));
    json_decref(http("POST", "/freeze", "{\"on\":true,\"actor\":\"me\"}", 200));
    cr_assert(bots.is_frozen);
    signal_alert("i1", "firing");
    cr_assert(sv_eq(wait_record(RECORD_REFUSAL, "i1", NULL)->gate, SV("freeze")));
    restart_stage();
    cr_assert(bots.is_frozen, "a stop outlives a restart");
    cr_assert_eq(bots.n_invoked, 0);
    json_decref(http("POST", "/freeze", "{\"on\":false,\"actor\":\"me\"}", 200));
    cr_assert_not(bots.is_frozen);
    cr_assert(sv_eq(wait_record(RECORD_OUTCOME, "i1", NULL)->state, SV("done")));
    cr_assert_eq(wait_record(RECORD_OUTCOME, "i1", NULL)->attempt, 1);
}

Test(dispatcher, a_stop_holds_over_a_restart_and_a_resume_goes_on)
{
    run(act_runbook, check_freeze);
}

static const char *stop_file(void)
{
    return arena_printf(&arena, "%s/stop", dir).ptr;
}

static const char *frozen_text(const char *key)
{
    json_t *status = http("GET", "/status", "", 200);
    const char *text = arena_cstr(&arena, json_get_text(json_object_get(status, "frozen"), key));
    json_decref(status);
    return text;
}

static void make_stop_file(const char *reason)
{
    struct error err;
    cr_assert_eq(file_write_atomic(stop_file(), sv(reason), 0600, &err), STATUS_OK, "%s", err.message);
}

static void check_stop_file_at_start(void)
{
    close_stage();
    make_stop_file(" audit\x1b at 3\n");
    struct error err;
    cr_assert_eq(open_stage(&err), STATUS_OK, "%s", err.message);
    cr_assert(bots.is_frozen);
    const struct record *r = wait_record(RECORD_FREEZE, NULL, NULL);
    cr_assert(r->on);
    cr_assert(sv_eq(r->actor, SV("stop file")));
    cr_assert(sv_eq(r->reason, SV("audit  at 3")), "%.*s", SV_ARG(r->reason));
    cr_assert_str_eq(frozen_text("reason"), "audit  at 3");
    signal_alert("i1", "firing");
    cr_assert(sv_eq(wait_record(RECORD_REFUSAL, "i1", NULL)->gate, SV("freeze")));
    json_decref(http("POST", "/freeze", "{\"on\":false,\"actor\":\"me\"}", 412));
    restart_stage(); /* with the file still there: one stop, one record */
    cr_assert_eq(unlink(stop_file()), 0);
    restart_stage();
    cr_assert(bots.is_frozen, "that the file is gone resumes nothing");
    cr_assert_eq(bots.n_invoked, 0);
    json_decref(http("POST", "/freeze", "{\"on\":false,\"actor\":\"me\"}", 200));
    cr_assert(sv_eq(wait_record(RECORD_OUTCOME, "i1", NULL)->state, SV("done")));
}

Test(dispatcher, with_the_stop_file_at_the_start_nothing_acts_until_somebody_resumes)
{
    run(act_runbook, check_stop_file_at_start);
}

static void wait_frozen(void)
{
    int64_t deadline_ns = clock_monotonic_ns() + WAIT_NS;
    while (!bots.is_frozen) {
        cr_assert_lt(clock_monotonic_ns(), deadline_ns, "the bots did not hear of the stop");
        cr_assert_eq(sleep_ms(5), STATUS_OK);
    }
}

static void check_stop_file_of_any_kind(void)
{
    for (int kind = 0; kind < 4; kind++) {
        if (kind == 0) make_stop_file("");
        if (kind == 1) cr_assert_eq(mkdir(stop_file(), 0700), 0);
        if (kind == 2) cr_assert_eq(mkfifo(stop_file(), 0600), 0);
        if (kind == 3) cr_assert_eq(symlink("stop", stop_file()), 0);
        wait_frozen();
        cr_assert_eq(remove(stop_file()), 0);
        cr_assert_eq(sleep_ms(50), STATUS_OK);
        cr_assert(bots.is_frozen, "kind %d", kind);
        const struct record *r = wait_record(RECORD_FREEZE, NULL, NULL);
        while (!r->on) { /* the record follows the brake */
            cr_assert_eq(sleep_ms(5), STATUS_OK);
            r = wait_record(RECORD_FREEZE, NULL, NULL);
        }
        json_decref(http("POST", "/freeze", "{\"on\":false,\"actor\":\"me\"}", 200));
        cr_assert_not(bots.is_frozen);
    }
}

Test(dispatcher, a_stop_file_of_any_kind_stops)
{
    run(act_runbook, check_stop_file_of_any_kind);
}

static void check_stop_by_signal(void)
{
    dispatcher_function.stop_acting(dispatcher, SV("SIGUSR1"));
    signal_alert("i1", "firing"); /* decided on before the stop is recorded, and yet not handed out */
    wait_frozen();
    cr_assert(sv_eq(wait_record(RECORD_FREEZE, NULL, NULL)->actor, SV("SIGUSR1")));
    cr_assert_str_eq(frozen_text("by"), "SIGUSR1");
    cr_assert_eq(bots.n_invoked, 0);
    restart_stage();
    cr_assert_eq(bots.n_invoked, 0);
    json_decref(http("POST", "/freeze", "{\"on\":false,\"actor\":\"me\"}", 200));
    cr_assert(sv_eq(wait_record(RECORD_OUTCOME, "i1", NULL)->state, SV("done")));
}

Test(dispatcher, a_stop_by_signal_holds_from_the_moment_it_is_asked_for)
{
    run(act_runbook, check_stop_by_signal);
}

static void check_retry(void)
{
    bots.fail_first = 1;
    signal_alert("i1", "firing");
    const struct record *outcome = wait_record(RECORD_OUTCOME, "i1", NULL);
    cr_assert(sv_eq(outcome->state, SV("done")));
    cr_assert_eq(outcome->attempt, 2);
    cr_assert_eq(bots.n_invoked, 2);
    cr_assert(sv_eq(wait_record(RECORD_RETRY, "i1", NULL)->code, SV("UNAVAILABLE")));
}

Test(dispatcher, a_failure_that_may_pass_is_repeated)
{
    run(act_runbook, check_retry);
}

static void check_unreached(void)
{
    bots.status = STATUS_UNAVAILABLE;
    bots.can_retry = true;
    signal_alert("i1", "firing");
    const struct record *retry = wait_record(RECORD_RETRY, "i1", NULL);
    cr_assert(sv_eq(retry->code, SV("UNAVAILABLE")) && sv_eq(retry->reason, SV("scripted")));
    bots.status = STATUS_OK;
    const struct record *outcome = wait_record(RECORD_OUTCOME, "i1", NULL);
    cr_assert(sv_eq(outcome->state, SV("done")));
    cr_assert_eq(outcome->attempt, 1);
    cr_assert_eq(bots.last_attempt, 1);
    cr_assert_geq(bots.n_invoked, 2);
}

Test(dispatcher, a_bot_that_was_not_reached_costs_no_attempt)
{
    run(act_runbook, check_unreached);
}

static void check_unreached_in_time(void)
{
    bots.status = STATUS_UNAVAILABLE;
    bots.can_retry = true;
    append((struct record){.kind = RECORD_INTENT,
                           .time_ns = clock_unix_ns(),
                           .epoch = 1,
                           .intent = SV("intent-late"),
                           .incident = SV("i1"),
                           .function = SV("restart"),
                           .target = SV("service/nginx"),
                           .purpose = SV("escalate"),
                           .deadline_ns = clock_unix_ns() + 2 * NS_PER_S});
    const struct record *outcome = wait_record(RECORD_OUTCOME, "i1", NULL);
    cr_assert(sv_eq(outcome->state, SV("expired")) && sv_eq(outcome->code, SV("UNAVAILABLE")) &&
              sv_eq(outcome->message, SV("scripted")));
}

Test(dispatcher, a_bot_that_was_not_reached_before_the_deadline_is_said_so)
{
    run(act_runbook, check_unreached_in_time);
}

static void check_failed(void)
{
    bots.status = STATUS_PERMISSION_DENIED;
    signal_alert("i1", "firing");
    const struct record *outcome = wait_record(RECORD_OUTCOME, "i1", NULL);
    cr_assert(sv_eq(outcome->state, SV("failed")) && sv_eq(outcome->code, SV("PERMISSION_DENIED")));
    cr_assert(sv_contains(wait_record(RECORD_ESCALATED, "i1", NULL)->reason, SV("the act failed")));
}

Test(dispatcher, a_failure_for_good_calls_a_person)
{
    run(act_runbook, check_failed);
}

static void check_lost(void)
{
    bots.status = STATUS_UNKNOWN;
    bots.on_unknown = ON_UNKNOWN_ESCALATE;
    signal_alert("i1", "firing");
    cr_assert(sv_eq(wait_record(RECORD_OUTCOME, "i1", NULL)->state, SV("unknown")));
    cr_assert(sv_contains(wait_record(RECORD_ESCALATED, "i1", NULL)->reason, SV("nobody knows")));
    cr_assert_eq(bots.n_invoked, 1, "never repeated blindly");
}

Test(dispatcher, a_lost_answer_is_not_repeated_where_the_bot_says_so)
{
    run(act_runbook, check_lost);
}

/* Attempt 1's answer is lost; those after it do not reach the bot. */
static void lose_then(enum status status, bool can_retry)
{
    bots.status = STATUS_UNKNOWN;
    signal_alert("i1", "firing");
    cr_assert(sv_eq(wait_record(RECORD_RETRY, "i1", NULL)->code, SV("UNKNOWN")));
    bots.status = status;
    bots.can_retry = can_retry;
}

static void expect_unknown(const char *state, const char *code)
{
    const struct record *outcome = wait_record(RECORD_OUTCOME, "i1", NULL);
    cr_assert(sv_eq(outcome->state, sv(state)) && sv_eq(outcome->code, sv(code)), "%.*s %.*s: %.*s",
              SV_ARG(outcome->state), SV_ARG(outcome->code), SV_ARG(outcome->message));
    cr_assert(sv_contains(wait_record(RECORD_ESCALATED, "i1", NULL)->reason, SV("nobody knows")));
    cr_assert_str_neq(bots.last_function, "reboot", "the next rung must not act");
}

static void check_lost_then_gone(void)
{
    lose_then(STATUS_NOT_FOUND, false);
    expect_unknown("unknown", "NOT_FOUND");
}

static void check_lost_then_unreached(void)
{
    lose_then(STATUS_ABORTED, true);
    append((struct record){.kind = RECORD_RETRY, /* the next attempt is the last */
                           .intent = sv(bots.last_intent),
                           .incident = SV("i1"),
                           .attempt = 4,
                           .state = SV("failed"),
                           .code = SV("ABORTED"),
                           .due_ns = clock_unix_ns()});
    expect_unknown("dead", "UNKNOWN");
}

static const char two_rungs[] = RUNBOOK("act", "cooldown: 1s", "  - bot: reboot\n");

Test(dispatcher, a_lost_answer_stays_unknown_whatever_becomes_of_later_attempts)
{
    run(two_rungs, check_lost_then_gone);
    run(two_rungs, check_lost_then_unreached);
}

static void append_lost(const char *intent, int64_t deadline_ns)
{
    struct record r = {.kind = RECORD_INTENT,
                       .time_ns = clock_unix_ns(),
                       .epoch = 1,
                       .intent = sv(intent),
                       .incident = sv(intent),
                       .function = SV("restart"),
                       .purpose = SV("escalate"),
                       .deadline_ns = deadline_ns};
    append(r);
    append((struct record){.kind = RECORD_RETRY,
                           .intent = sv(intent),
                           .attempt = 1,
                           .state = SV("failed"),
                           .code = SV("UNKNOWN"),
                           .due_ns = clock_unix_ns()});
}

static void check_lost_then_late(void)
{
    bots.status = STATUS_UNAVAILABLE;
    bots.can_retry = true;
    append_lost("late", clock_unix_ns() + NS_PER_S);
    append_lost("too-late", clock_unix_ns() - NS_PER_S);
    cr_assert(sv_eq(wait_record(RECORD_OUTCOME, "late", NULL)->state, SV("unknown")));
    cr_assert(sv_eq(wait_record(RECORD_OUTCOME, "too-late", NULL)->state, SV("unknown")));
}

Test(dispatcher, a_lost_answer_stays_unknown_after_the_deadline)
{
    run(act_runbook, check_lost_then_late);
}

static void wait_invoked(unsigned n)
{
    while (bots.n_invoked < n) {
        fiber_event_reset(&bots.changed);
        cr_assert_eq(fiber_event_wait(&bots.changed, clock_monotonic_ns() + WAIT_NS), STATUS_OK);
    }
}

static void check_lost_then_over(void)
{
    bots.status = STATUS_UNKNOWN;
    bots.hangs = true;
    signal_alert("i1", "firing");
    wait_invoked(1);
    signal_alert("i1", "resolved");
    fiber_event_set(&bots.released);
    const struct record *outcome = wait_record(RECORD_OUTCOME, "i1", NULL);
    cr_assert(sv_eq(outcome->state, SV("unknown")) && bots.n_invoked == 1, "%.*s", SV_ARG(outcome->state));
    cr_assert(sv_eq(wait_record(RECORD_CLOSED, "i1", NULL)->state, SV("resolved")));
}

Test(dispatcher, a_lost_answer_stays_unknown_when_the_alert_is_over)
{
    run(act_runbook, check_lost_then_over);
}

/* The process goes down in the middle of an act: stop() gives it its grace and leaves it; the next start
 * finds it. */
static void interrupt(enum on_unknown on_unknown)
{
    bots.hangs = true;
    bots.on_unknown = on_unknown;
    signal_alert("i1", "firing");
    wait_invoked(1);
    fiber_event_reset(&bots.changed);
    restart_stage();
}

static void check_rerun(void)
{
    interrupt(ON_UNKNOWN_RERUN);
    char first[sizeof(bots.last_intent)];
    memcpy(first, bots.last_intent, sizeof(first));
    wait_invoked(2);
    cr_assert_str_eq(bots.last_intent, first, "under the same intent");
    bots.hangs = false;
    fiber_event_set(&bots.released);
    cr_assert(sv_eq(wait_record(RECORD_OUTCOME, "i1", NULL)->state, SV("done")));
    cr_assert_eq(bots.n_invoked, 2);
}

Test(dispatcher, an_interrupted_act_runs_again_under_its_intent)
{
    run(act_runbook, check_rerun);
}

static void check_interrupted_escalate(void)
{
    interrupt(ON_UNKNOWN_ESCALATE);
    cr_assert(sv_eq(wait_record(RECORD_OUTCOME, "i1", NULL)->state, SV("unknown")));
    cr_assert_eq(bots.n_invoked, 1);
    cr_assert_not_null(wait_record(RECORD_ESCALATED, "i1", NULL));
}

Test(dispatcher, an_interrupted_act_that_must_not_be_repeated_calls_a_person)
{
    run(act_runbook, check_interrupted_escalate);
}

/* An interrupted act that was put off after the restart (acting was stopped, the clock had jumped). */
static void check_put_off(void)
{
    bots.on_unknown = ON_UNKNOWN_ESCALATE;
    append_lost("put-off", clock_unix_ns() + 60 * NS_PER_S);
    cr_assert(sv_eq(wait_record(RECORD_OUTCOME, "put-off", NULL)->state, SV("unknown")));
    cr_assert_eq(bots.n_invoked, 0);
}

Test(dispatcher, an_interrupted_act_that_was_put_off_is_not_repeated_either)
{
    run(act_runbook, check_put_off);
}

static void check_next_rung(void)
{
    signal_alert("i1", "firing");
    const struct record *verified = wait_record(RECORD_VERIFIED, "i1", NULL);
    cr_assert_not(verified->ok);
    while (find_record(RECORD_OUTCOME, "i1", NULL) == NULL ||
           !sv_eq(find_record(RECORD_OUTCOME, "i1", NULL)->function, SV("reboot")))
        cr_assert_eq(sleep_ms(5), STATUS_OK);
    cr_assert_str_eq(bots.last_function, "reboot");
}

Test(dispatcher, a_timer_leads_to_the_next_rung)
{
    run(RUNBOOK("act", "cooldown: 1s", "    verify: {resolve: {within: 1s}}\n  - bot: reboot\n"),
        check_next_rung);
}

static void check_overdue(void)
{
    signal_alert("i1", "firing");
    (void)wait_record(RECORD_TIMER, "i1", NULL);
    close_stage();
    cr_assert_eq(sleep_ms(1100), STATUS_OK);
    struct error err;
    cr_assert_eq(open_stage(&err), STATUS_OK, "%s", err.message);
    int64_t began_ns = clock_monotonic_ns();
    cr_assert_not(wait_record(RECORD_VERIFIED, "i1", NULL)->ok);
    cr_assert_lt(clock_monotonic_ns() - began_ns, 900 * NS_PER_MS, "an overdue timer fires at once");
}

Test(dispatcher, a_timer_that_came_due_while_down_fires_at_the_start)
{
    run(RUNBOOK("act", "cooldown: 1s", "    verify: {resolve: {within: 1s}}\n"), check_overdue);
}

/* The newest record is from a clock that ran a year ahead. */
static void check_clock_behind(void)
{
    journal_set_usher(journal, NULL); /* who would date it anew */
    append((struct record){
        .kind = RECORD_NOTE, .time_ns = clock_unix_ns() + 365 * 86400 * NS_PER_S, .message = SV("early")});
    restart_stage();
    const struct record *turn = wait_record(RECORD_CLOCK, NULL, NULL);
    cr_assert(turn->on && sv_contains(turn->detail, SV("\"jumpNs\":-3153")), "%.*s", SV_ARG(turn->detail));
    signal_alert("i1", "firing");
    const struct record *refusal = wait_record(RECORD_REFUSAL, "i1", NULL);
    cr_assert(sv_eq(refusal->gate, SV("clock")));
    cr_assert_lt(refusal->time_ns, clock_unix_ns() + NS_PER_S, "decided at the time that it is");
}

/* Recorded by who does not know it yet: nothing in the journal is ahead of the clock. */
static void check_not_ahead(void)
{
    signal_alert("i1", "firing");
    (void)wait_record(RECORD_OUTCOME, "i1", "done");
    int64_t ahead_ns = clock_unix_ns() + 3600 * NS_PER_S;
    struct record note = {
        .kind = RECORD_NOTE, .time_ns = ahead_ns, .message = SV("dated just before it was set back")};
    append(note);
    cr_assert_lt(wait_record(RECORD_NOTE, NULL, NULL)->time_ns, ahead_ns - 3000 * NS_PER_S);
}

Test(dispatcher, no_record_is_of_a_time_to_come)
{
    run(act_runbook, check_not_ahead);
}

Test(dispatcher, a_clock_that_was_set_back_while_down_is_a_jump)
{
    run(act_runbook, check_clock_behind);
}

static size_t count_jumps(void)
{
    struct journal_entry *entries;
    struct error err;
    size_t n = 0, jumps = 0;
    cr_assert_eq(journal_read(journal, 1, 1000, true, &arena, &entries, &n, &err), STATUS_OK, "%s",
                 err.message);
    for (size_t i = 0; i < n; i++)
        jumps += entries[i].record->kind == RECORD_CLOCK;
    return jumps;
}

/* When the last one ran, it was an hour earlier by the wall clock. */
static void check_set_forward(void)
{
    struct clock_anchor anchor;
    struct error err;
    clock_anchor_look(&anchor);
    anchor.before_ns -= 3600 * NS_PER_S;
    anchor.seq = journal_last_seq(journal); /* no clock record: killed before that was written */
    cr_assert_eq(clock_anchor_write(dir, &anchor, &err), STATUS_OK, "%s", err.message);
    restart_stage();
    const struct record *turn = wait_record(RECORD_CLOCK, NULL, NULL);
    cr_assert(turn->on && (sv_contains(turn->detail, SV("\"jumpNs\":3599")) ||
                           sv_contains(turn->detail, SV("\"jumpNs\":3600"))),
              "%.*s", SV_ARG(turn->detail));
    signal_alert("i1", "firing");
    cr_assert(sv_eq(wait_record(RECORD_REFUSAL, "i1", NULL)->gate, SV("clock")));
    cr_assert_eq(clock_anchor_read(dir, &anchor), STATUS_OK);
    cr_assert_lt(anchor.before_ns, anchor.offset_ns - 3000 * NS_PER_S, "killed right after it was written");
    restart_stage();
    cr_assert_eq(count_jumps(), 1);
}

Test(dispatcher, a_clock_that_was_set_forward_while_down_is_a_jump_once)
{
    run(act_runbook, check_set_forward);
}

static const struct reload_cause by_test = {.actor = {"test", 4}};

static enum status reload(struct error *err)
{
    enum status s = dispatcher_function.reload_prepare(dispatcher, &script, NULL, err);
    if (s == STATUS_OK) return dispatcher_function.reload_commit(dispatcher, &by_test, err);
    dispatcher_function.reload_discard(dispatcher, &by_test, err);
    return s;
}

static void check_durable_reload(void)
{
    struct error err;
    write_runbook(RUNBOOK("off", "cooldown: 1s", ""));
    cr_assert_eq(reload(&err), STATUS_OK, "%s", err.message);
    const struct record *r = find_record(RECORD_ACTIVATION, NULL, NULL); /* what is on disk, without a wait */
    cr_assert(sv_contains(r->runbooks, SV("\"off\"")), "%.*s", SV_ARG(r->runbooks));
}

Test(dispatcher, a_reload_is_done_once_its_activation_is_on_disk)
{
    run(act_runbook, check_durable_reload);
}

static bool is_in_force(const char *mode)
{
    json_t *json = http("GET", "/status", NULL, 200);
    const json_t *rb = json_array_get(json_object_get(json, "runbooks"), 0);
    bool yes = sv_eq(json_get_text(rb, "mode"), sv(mode));
    json_decref(json);
    return yes;
}

/* The folder of the journal is moved away under it, so that the commit fails. */
static void check_reload_without_store(void)
{
    struct error err;
    const char *folder = arena_printf(&arena, "%s/journal", dir).ptr,
               *away = arena_printf(&arena, "%s/away", dir).ptr;
    write_runbook(RUNBOOK("off", "cooldown: 1s", ""));
    cr_assert_eq(rename(folder, away), 0);
    cr_assert_eq(reload(&err), STATUS_UNAVAILABLE);
    cr_assert_eq(rename(away, folder), 0);
    while (!journal_is_healthy(journal) || !is_in_force("act")) /* its record came back with the folder */
        cr_assert_eq(sleep_ms(10), STATUS_OK);
    signal_alert("i1", "firing");
    cr_assert(sv_eq(wait_record(RECORD_OUTCOME, "i1", NULL)->state, SV("done")), "the old set acts");
    cr_assert_eq(reload(&err), STATUS_OK, "%s", err.message);
    cr_assert(is_in_force("off"));
}

Test(dispatcher, a_reload_that_cannot_be_recorded_keeps_the_old_set)
{
    run(act_runbook, check_reload_without_store);
}

static void check_switched_off(void)
{
    char text[] = RUNBOOK("off", "cooldown: 1s", "");
    bots.fail_first = 1000;
    signal_alert("i1", "firing");
    (void)wait_record(RECORD_RETRY, "i1", NULL);
    unsigned n_before = bots.n_invoked;
    write_runbook(text);
    struct error err;
    cr_assert_eq(reload(&err), STATUS_OK, "%s", err.message);
    const struct record *outcome = wait_record(RECORD_OUTCOME, "i1", "refused");
    cr_assert(sv_contains(outcome->message, SV("may not act any more")), "%.*s", SV_ARG(outcome->message));
    cr_assert_eq(bots.n_invoked, n_before);
}

Test(dispatcher, an_act_that_waits_does_not_begin_once_its_runbook_is_switched_off)
{
    run(act_runbook, check_switched_off);
}

static void check_lost_then_switched_off(void)
{
    struct error err;
    bots.status = STATUS_UNKNOWN;
    bots.hangs = true;
    signal_alert("i1", "firing");
    wait_invoked(1);
    write_runbook(RUNBOOK("off", "cooldown: 1s", ""));
    cr_assert_eq(reload(&err), STATUS_OK, "%s", err.message);
    fiber_event_set(&bots.released);
    cr_assert(sv_eq(wait_record(RECORD_OUTCOME, "i1", NULL)->state, SV("unknown")));
    cr_assert_eq(bots.n_invoked, 1);
}

Test(dispatcher, a_lost_answer_stays_unknown_when_its_runbook_is_switched_off)
{
    run(act_runbook, check_lost_then_switched_off);
}

static void check_resolved_before(void)
{
    signal_alert("other", "firing");
    signal_alert("i1", "firing"); /* same target: waits */
    signal_alert("i1", "resolved");
    cr_assert(sv_eq(wait_record(RECORD_CLOSED, "i1", NULL)->state, SV("resolved")));
    json_decref(http("POST", "/freeze", "{\"on\":true,\"actor\":\"me\"}", 200));
}

Test(dispatcher, an_alert_that_is_over_is_not_acted_on)
{
    run(act_runbook, check_resolved_before);
    cr_assert_leq(bots.n_invoked, 1);
}

static void check_call(void)
{
    append((struct record){.kind = RECORD_CALL,
                           .function = SV("echo"),
                           .method = SV("POST"),
                           .path = SV("/x?y=1"),
                           .body_base64 = SV("aGVsbG8="),
                           .intent = SV("call-1"),
                           .headers = SV("{\"content-type\":\"text/plain\"}")});
    const struct record *outcome = wait_record(RECORD_OUTCOME, NULL, NULL);
    cr_assert(sv_eq(outcome->state, SV("done")));
    cr_assert(sv_eq(outcome->detail, SV("{\"bodyBytes\":4,\"httpStatus\":200}")));
    cr_assert_str_eq(bots.last_body, "POST /x?y=1 hello");
}

Test(dispatcher, an_asynchronous_call_reaches_its_function)
{
    run(act_runbook, check_call);
}

static void check_callback(void)
{
    bots.post_http_status = 204;
    append((struct record){.kind = RECORD_CALL,
                           .function = SV("echo"),
                           .method = SV("POST"),
                           .path = SV("/"),
                           .callback = SV("http://192.0.2.7/secret"),
                           .intent = SV("call-1")});
    const struct record *callback = wait_record(RECORD_CALL, NULL, NULL);
    while (callback == NULL || !sv_eq(callback->purpose, SV("callback"))) {
        cr_assert_eq(sleep_ms(5), STATUS_OK);
        callback = find_record(RECORD_CALL, NULL, NULL);
    }
    cr_assert(sv_eq(callback->function, SV("callback/echo"))); /* no backlog of the function's own */
    cr_assert(sv_eq(callback->detail, SV("{\"call\":\"call-1\"}")));
    while (!sv_eq(find_record(RECORD_OUTCOME, NULL, NULL)->intent, callback->intent))
        cr_assert_eq(sleep_ms(5), STATUS_OK);
    const struct record *outcome = find_record(RECORD_OUTCOME, NULL, NULL);
    cr_assert(sv_eq(outcome->state, SV("done")) && sv_eq(outcome->message, SV("192.0.2.7 answered 204")));
    cr_assert_str_eq(bots.last_post, "http://192.0.2.7/secret echo 200 7 fine");
    cr_assert_eq(bots.n_called, 1);
    cr_assert_eq(bots.n_posted, 1);
}

Test(dispatcher, the_answer_of_a_call_is_posted_to_whom_it_names)
{
    run(act_runbook, check_callback);
}

static void append_call(const char *intent)
{
    append((struct record){.kind = RECORD_CALL,
                           .function = SV("echo"),
                           .method = SV("POST"),
                           .path = SV("/"),
                           .intent = sv(intent)});
}

static void check_lost_call(void)
{
    static const enum status lost[] = {STATUS_DEADLINE_EXCEEDED, STATUS_UNKNOWN};
    for (unsigned i = 0; i < 2; i++) {
        bots.status = lost[i];
        append_call(i == 0 ? "call-late" : "call-cut");
        while (find_record(RECORD_OUTCOME, NULL, NULL) == NULL ||
               !sv_eq(find_record(RECORD_OUTCOME, NULL, NULL)->code, sv(status_name(lost[i]))))
            cr_assert_eq(sleep_ms(5), STATUS_OK);
        cr_assert(sv_eq(find_record(RECORD_OUTCOME, NULL, NULL)->state, SV("unknown")));
        cr_assert_eq(bots.n_called, i + 1);
    }
    cr_assert_null(find_record(RECORD_RETRY, NULL, NULL));
}

Test(dispatcher, a_call_that_may_have_run_is_not_repeated)
{
    run(act_runbook, check_lost_call);
}

static void check_unreached_call(void)
{
    bots.status = STATUS_UNAVAILABLE;
    append_call("call-1");
    cr_assert(sv_eq(wait_record(RECORD_RETRY, NULL, NULL)->code, SV("UNAVAILABLE")));
    bots.status = STATUS_OK;
    cr_assert(sv_eq(wait_record(RECORD_OUTCOME, NULL, NULL)->state, SV("done")));
    cr_assert_geq(bots.n_called, 2);
}

Test(dispatcher, a_call_that_did_not_reach_its_function_is_repeated)
{
    run(act_runbook, check_unreached_call);
}

static void check_many_calls(void)
{
    bots.call_hangs = true;
    for (unsigned i = 0; i < 40; i++)
        append((struct record){.kind = RECORD_CALL,
                               .function = i % 2 == 0 ? SV("echo") : SV("reboot"),
                               .method = SV("POST"),
                               .path = SV("/")});
    while (bots.n_called < 8) /* what calls may have */
        cr_assert_eq(sleep_ms(5), STATUS_OK);
    signal_alert("i1", "firing");
    cr_assert(sv_eq(wait_record(RECORD_OUTCOME, "i1", NULL)->state, SV("done")));
    cr_assert_eq(bots.n_called, 8);
    bots.call_hangs = false;
    fiber_event_set(&bots.released);
}

Test(dispatcher, an_act_does_not_wait_behind_slow_calls)
{
    run(act_runbook, check_many_calls);
}

static void check_admission(void)
{
    struct error err;
    cr_assert_eq(dispatcher_function.admit_call(dispatcher, SV("echo"), &err), STATUS_OK);
}

Test(dispatcher, calls_are_admitted_while_there_is_room)
{
    run(act_runbook, check_admission);
}

static void check_interrupted_call(void)
{
    bots.call_hangs = true;
    append_call("call-1");
    while (bots.n_called == 0)
        cr_assert_eq(sleep_ms(5), STATUS_OK);
    restart_stage();
    bots.call_hangs = false;
    fiber_event_set(&bots.released);
    const struct record *outcome = wait_record(RECORD_OUTCOME, NULL, NULL);
    cr_assert(sv_eq(outcome->state, SV("done")) && outcome->attempt == 2);
    cr_assert_eq(bots.n_called, 2);
}

Test(dispatcher, a_call_cut_off_by_our_death_is_delivered_again)
{
    run(act_runbook, check_interrupted_call);
}

/* ---- what persons do ---- */

static json_t *dead_letters(size_t expected)
{
    json_t *json = http("GET", "/dead", NULL, 200), *letters = json_object_get(json, "dead");
    cr_assert_eq(json_integer_value(json_object_get(json, "total")), (json_int_t)expected);
    cr_assert_eq(json_array_size(letters), expected);
    (void)json_incref(letters);
    json_decref(json);
    return letters;
}

static void append_dead(const struct record *of)
{
    append((struct record){.kind = RECORD_OUTCOME,
                           .intent = of->intent,
                           .incident = of->incident,
                           .function = of->function,
                           .state = SV("dead"),
                           .code = SV("UNAVAILABLE"),
                           .reason = SV("HTTP 503"),
                           .attempt = 5});
}

static void check_dead_call(void)
{
    json_decref(http("POST", "/freeze", "{\"on\":true,\"actor\":\"alice\"}", 200));
    append_call("call-12345");
    append_dead(&(struct record){.intent = SV("call-12345"), .function = SV("echo")});
    (void)wait_record(RECORD_OUTCOME, NULL, "dead"); /* on disk */
    json_t *letters = dead_letters(1);
    const json_t *letter = json_array_get(letters, 0);
    cr_assert(sv_eq(json_get_text(letter, "kind"), SV("call")));
    cr_assert(sv_eq(json_get_text(letter, "error"), SV("HTTP 503")));
    cr_assert_eq(json_integer_value(json_object_get(letter, "attempts")), 5);
    json_decref(letters);
    json_decref(http("POST", "/dead/retry", "{\"id\":\"call-54321\",\"actor\":\"alice\"}", 404));
    json_t *json = http("POST", "/dead/retry", "{\"id\":\"12345\",\"actor\":\"alice\"}", 200);
    cr_assert(json_is_true(json_object_get(json, "stopped")));
    cr_assert_eq(json_array_size(json_object_get(json, "retried")), 1);
    json_decref(json);
    json_decref(dead_letters(0));
    cr_assert_eq(bots.n_called, 0);
    restart_stage(); /* what was answered holds */
    json_decref(http("POST", "/freeze", "{\"on\":false,\"actor\":\"alice\"}", 200));
    cr_assert_eq(wait_record(RECORD_OUTCOME, NULL, "done")->attempt, 1, "nothing was handed out before");
    cr_assert_eq(bots.n_called, 1);
    cr_assert(sv_eq(wait_record(RECORD_RETRY, NULL, "again")->actor, SV("alice")));
    json_decref(http("POST", "/dead/retry", "{\"id\":\"call-12345\",\"actor\":\"alice\"}", 404));
}

Test(dispatcher, a_dead_call_is_handed_out_again_when_a_person_says_so)
{
    run(act_runbook, check_dead_call);
}

/* The act of incident i1 dies; returns its intent. */
static const struct record *kill_act(void)
{
    bots.hangs = true;
    signal_alert("i1", "firing");
    const struct record *intent = wait_record(RECORD_INTENT, "i1", NULL);
    wait_invoked(1);
    append_dead(intent);
    bots.hangs = false;
    fiber_event_set(&bots.released);
    json_t *json;
    while (json_integer_value(json_object_get(json = http("GET", "/dead", NULL, 200), "total")) == 0) {
        json_decref(json);
        cr_assert_eq(sleep_ms(5), STATUS_OK);
    }
    json_decref(json);
    return intent;
}

static void check_dead_act(void)
{
    struct strview first = kill_act()->intent;
    json_t *json = http("POST", "/dead/retry", "{\"all\":true,\"actor\":\"alice\"}", 200);
    const json_t *retried = json_array_get(json_object_get(json, "retried"), 0);
    cr_assert(sv_eq(json_get_text(retried, "id"), first));
    cr_assert(sv_eq(json_get_text(retried, "phase"), SV("delayed")) ||
              json_get_text(retried, "intent").len > 0);
    json_decref(json);
    cr_assert(!sv_eq(wait_record(RECORD_OUTCOME, "i1", "done")->intent, first));
    json_decref(dead_letters(0));
    json = http("GET", "/incidents/i1", NULL, 200);
    const json_t *act = json_array_get(json_object_get(json, "acts"), 0);
    cr_assert(sv_eq(json_get_text(json_object_get(act, "retried"), "actor"), SV("alice")));
    cr_assert(sv_eq(json_get_text(json_object_get(act, "outcome"), "state"), SV("dead")));
    json_decref(json);
}

Test(dispatcher, a_dead_act_is_decided_on_anew_when_a_person_says_so)
{
    run(act_runbook, check_dead_act);
}

static void check_dead_too_late(void)
{
    (void)kill_act();
    signal_alert("i1", "resolved");
    (void)wait_record(RECORD_CLOSED, "i1", "escalated");
    json_t *json = http("POST", "/dead/retry", "{\"id\":\"i1-1\",\"actor\":\"alice\"}", 412);
    cr_assert(sv_contains(json_get_text(json, "error"), SV("its incident is closed; see balm why i1")));
    json_decref(json);
    json = http("POST", "/dead/retry", "{\"all\":true,\"actor\":\"alice\"}", 200);
    cr_assert_eq(json_array_size(json_object_get(json, "refused")), 1);
    json_decref(json);
    json_decref(http("POST", "/dead/drop", "{\"id\":\"i1-1\",\"actor\":\"alice\"}", 400));
    json_decref(http("POST", "/dead/drop",
                     "{\"id\":\"i1-1\",\"actor\":\"alice\",\"reason\":\"mended by hand\"}", 200));
    json_decref(dead_letters(0));
    restart_stage();
    json_decref(dead_letters(0));
    json = http("GET", "/incidents/i1", NULL, 200);
    const json_t *act = json_array_get(json_object_get(json, "acts"), 0);
    cr_assert(sv_eq(json_get_text(json_object_get(act, "dropped"), "reason"), SV("mended by hand")));
    json_decref(json);
    cr_assert_eq(bots.n_invoked, 1);
}

Test(dispatcher, a_dead_act_whose_incident_is_over_can_only_be_dropped)
{
    run(act_runbook, check_dead_too_late);
}

static void check_close(void)
{
    bots.hangs = true;
    signal_alert("i1234", "firing");
    wait_invoked(1);
    json_t *json =
        http("POST", "/close", "{\"incident\":\"1234\",\"actor\":\"alice\",\"reason\":\"mine\"}", 200);
    cr_assert_not(json_is_true(json_object_get(json, "closed")));
    cr_assert(sv_eq(json_get_text(json, "intent"), sv(bots.last_intent)));
    json_decref(json);
    json_decref(http("POST", "/close", "{\"incident\":\"i1234\",\"actor\":\"alice\",\"reason\":\"x\"}", 412));
    bots.hangs = false;
    fiber_event_set(&bots.released);
    (void)wait_record(RECORD_CLOSED, "i1234", "manual");
    json_decref(http("POST", "/close", "{\"incident\":\"i1234\",\"actor\":\"alice\",\"reason\":\"x\"}", 412));
    json = http("GET", "/incidents/i123", NULL, 200);
    cr_assert(sv_eq(json_get_text(json, "state"), SV("manual")));
    cr_assert(sv_eq(json_get_text(json, "next"), SV("nothing: closed by alice: mine")));
    json_decref(json);
}

Test(dispatcher, an_incident_that_a_person_closes_ends_with_the_act_under_way)
{
    run(act_runbook, check_close);
}

static void check_close_before_retry(void)
{
    bots.fail_first = 1;
    signal_alert("i1", "firing");
    (void)wait_record(RECORD_RETRY, "i1", "failed");
    json_decref(http("POST", "/close", "{\"incident\":\"i1\",\"actor\":\"alice\",\"reason\":\"mine\"}", 200));
    const struct record *outcome = wait_record(RECORD_OUTCOME, "i1", NULL);
    cr_assert(sv_eq(outcome->state, SV("failed")) || sv_eq(outcome->state, SV("done")));
    (void)wait_record(RECORD_CLOSED, "i1", "manual");
    cr_assert_leq(bots.n_invoked, 2);
}

Test(dispatcher, an_act_that_waits_for_its_next_attempt_is_withdrawn_when_its_incident_is_closed)
{
    run(act_runbook, check_close_before_retry);
}

static void check_persons_mistakes(void)
{
    static const struct {
        const char *path, *body;
        int status;
    } mistakes[] = {
        {"/close", "{\"incident\":\"i1\",\"actor\":\"a\"}", 400},
        {"/close", "{\"incident\":\"i1\",\"reason\":\"r\"}", 400},
        {"/close", "{\"incident\":\"i9999\",\"actor\":\"a\",\"reason\":\"r\"}", 404},
        {"/close", "{\"incident\":7,\"actor\":\"a\",\"reason\":\"r\"}", 404},
        {"/close", "{\"incident\":\"i1\",\"actor\":\"a\\u001b\",\"reason\":\"r\"}", 400},
        {"/close", "{\"incident\":\"i1\",\"actor\":\"a\",\"reason\":\" \\n\"}", 400},
        {"/notes", "{\"incident\":\"i1\",\"actor\":\"a\",\"message\":\"a\\u0007\"}", 400},
        {"/notes", "{\"incident\":\"i1\",\"actor\":\"a\",\"message\":\"a\\u0085\"}", 400},
        {"/notes", "{\"incident\":\"i1/../x\",\"actor\":\"a\",\"message\":\"a\"}", 404},
        {"/notes", "[]", 400},
        {"/dead/retry", "{\"actor\":\"a\"}", 400},
        {"/dead/retry", "{\"actor\":\"a\",\"id\":\"x\",\"all\":true}", 400},
        {"/dead/retry", "{\"actor\":\"a\",\"id\":\"x\"}", 404},
        {"/dead/drop", "{\"actor\":\"a\",\"id\":\"x\"}", 400},
        {"/dead/eat", "{}", 404},
    };
    signal_alert("i1", "firing");
    (void)wait_record(RECORD_OUTCOME, "i1", NULL);
    for (size_t i = 0; i < ARRAY_LEN(mistakes); i++)
        json_decref(http("POST", mistakes[i].path, mistakes[i].body, mistakes[i].status));
    json_decref(http("GET", "/dead?limit=0", NULL, 400));
    json_decref(http("GET", "/close", NULL, 405));
    cr_assert_null(find_record(RECORD_NOTE, NULL, NULL));
    cr_assert_null(find_record(RECORD_CLOSE, NULL, NULL));
}

Test(dispatcher, a_persons_mistakes_are_refused_and_change_nothing)
{
    run(act_runbook, check_persons_mistakes);
}

static void check_reload(void)
{
    struct error err = {0};
    write_runbook(RUNBOOK("act", "cooldwn: 1s", ""));
    cr_assert_eq(reload(&err), STATUS_INVALID_ARGUMENT);
    cr_assert(
        sv_contains(sv(err.message),
                    SV("a.yaml:5:14: unknown field 'cooldwn' in guardrails (did you mean 'cooldown'?)")),
        "%s", err.message);
    json_t *json = http("GET", "/status", NULL, 200);
    cr_assert_eq(json_array_size(json_object_get(json, "mayAct")), 1, "the old set stays");
    cr_assert(sv_contains(json_get_text(json, "reloadError"), SV("cooldwn")));
    json_decref(json);
    write_runbook(RUNBOOK("shadow", "cooldown: 1s", ""));
    cr_assert_eq(dispatcher_function.reload_prepare(dispatcher, &script, NULL, &err), STATUS_OK);
    uint64_t seq = journal_last_seq(journal);
    (void)error_set(&err, STATUS_INVALID_ARGUMENT, "another part's file is wrong");
    dispatcher_function.reload_discard(dispatcher, &by_test, &err);
    cr_assert_eq(journal_last_seq(journal), seq, "a good set beside a bad part is not switched to");
    json = http("GET", "/status", NULL, 200);
    cr_assert_eq(json_array_size(json_object_get(json, "mayAct")), 1);
    cr_assert(sv_eq(json_get_text(json, "reloadError"), SV("another part's file is wrong")));
    json_decref(json);
    cr_assert_eq(reload(&err), STATUS_OK, "%s", err.message);
    json = http("GET", "/status", NULL, 200);
    cr_assert_null(json_object_get(json, "reloadError"));
    json_decref(json);
    signal_alert("i1", "firing");
    const struct record *r = wait_record(RECORD_REFUSAL, "i1", NULL);
    cr_assert(sv_eq(r->gate, SV("mode")) && sv_eq(r->mode, SV("shadow")));
    uint64_t before = journal_last_seq(journal);
    cr_assert_eq(reload(&err), STATUS_OK);
    cr_assert_eq(journal_last_seq(journal), before, "nothing changed, nothing is recorded");
}

Test(dispatcher, a_bad_reload_keeps_the_set_and_a_good_one_switches_it)
{
    run(act_runbook, check_reload);
}

static void refused_fiber(void *arg)
{
    struct error err = {0};
    cr_assert_eq(open_stage(&err), STATUS_INVALID_ARGUMENT);
    cr_assert(sv_contains(sv(err.message), sv(*(const char **)arg)), "%s", err.message);
    close_stage();
}

static void expect_start_refused(const char *runbook, const char *message, bool removes_series)
{
    struct error err;
    prepare(runbook);
    bots.removes_series = removes_series;
    cr_assert_eq(loop_run_fiber(loop, refused_fiber, &message, &err), STATUS_OK);
    clean_up();
}

Test(dispatcher, a_runbook_that_does_not_fit_its_bots_refuses_the_start)
{
    expect_start_refused("name: a\nmatch: [x=y]\ntarget: t\nsteps:\n  - bot: nobody\n",
                         "a.yaml:5:5: runbook 'a': no function 'nobody' is deployed", false);
    expect_start_refused("name: a\nmatch: [x=y]\ntarget: t\nsteps: [{bot: restart, with: {unti: x}}]\n",
                         "has no parameter 'unti' (did you mean 'unit'?)", false);
    expect_start_refused("name: a\nmatch: [x=y]\ntarget: t\nsteps: [{bot: restart, with: {tries: [1]}}]\n",
                         "'tries' of bot 'restart' must be of type integer", false);
    expect_start_refused(
        "name: a\nmatch: [x=y]\ntarget: t\nsteps: [{bot: restart, with: {unit: a, tries: 10}}]\n",
        "a.yaml:4:47: runbook 'a': bot 'restart': parameter 'tries': 10 is out of range (1 to 9)", false);
    expect_start_refused(
        "name: a\nmatch: [x=y]\ntarget: t\nsteps: [{bot: restart}]\nescalate: {bot: echo, with: {tries: '0'}}\n",
        "a.yaml:5:37: runbook 'a': bot 'echo': parameter 'tries': 0 is out of range (1 to 9)", false);
    expect_start_refused(
        "name: a\nmatch: [x=y]\ntarget: t\nsteps: [{bot: restart, with: {unit: '$${abcd'}}]\n",
        "parameter 'unit': a length of 6 is out of range (0 to 5)", false);
    expect_start_refused("name: a\nmatch: [x=y]\ntarget: t\nsteps: [{bot: restart}]\n",
                         "can itself remove the alerting series", true);
    expect_start_refused(
        "name: a\nmatch: [x=y]\ntarget: t\nsteps: [{bot: restart}]\nescalate: {bot: reboot}\n",
        "must only tell people (such as notify); 'reboot' acts", false);
}

static void check_removed_series(void)
{
    bots.removes_series = true;
}

Test(dispatcher, a_check_satisfies_a_bot_that_removes_series)
{
    run(RUNBOOK("act", "cooldown: 1s", "    verify: check\n"), check_removed_series);
}
