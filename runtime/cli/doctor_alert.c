/* A test alert, there and back: posted, seen in the journal, resolved, seen again. */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/random.h"
#include "cli/doctor.h"
#include "client/client.h"

#define ALERTNAME         "BalmDoctor"
#define TOKEN_MAX         4096
#define DIRECT_TIMEOUT_NS (10 * NS_PER_S)
#define LOOK_AGAIN_NS     (200 * NS_PER_MS)
/* Should we be ended in the middle, Alertmanager resolves it by itself then. */
#define ALERT_LIFE_NS (300 * NS_PER_S)

/* One alert of its own each time: `run` tells it from all others. */
struct test_alert {
    struct doctor *d;
    const char *check, *way;
    char run[17];
    int64_t starts_at_ns;
};

static struct test_alert test_alert_new(struct doctor *d, const char *check, const char *way)
{
    struct test_alert t = {.d = d, .check = check, .way = way, .starts_at_ns = clock_unix_ns()};
    uint64_t number;
    random_bytes(&number, sizeof(number));
    (void)snprintf(t.run, sizeof(t.run), "%016" PRIx64, number);
    return t;
}

/* As Alertmanager's API and its webhook both take it. */
static json_t *alert_json(const struct test_alert *t, int64_t ends_at_ns)
{
    char starts[RFC3339_LEN + 1], ends[RFC3339_LEN + 1];
    rfc3339_format(t->starts_at_ns, starts);
    rfc3339_format(ends_at_ns, ends);
    return json_pack("{s:{s:s, s:s, s:s, s:s}, s:{s:s}, s:s, s:s}", "labels", "alertname", ALERTNAME, "run",
                     t->run, "severity", "none", "way", t->way, "annotations", "summary",
                     "balm doctor tries the way of an alert; nothing is wrong", "startsAt", starts, "endsAt",
                     ends);
}

static json_t *webhook_json(const struct test_alert *t, bool is_firing)
{
    json_t *alert = alert_json(t, clock_unix_ns());
    (void)json_object_set_new(alert, "status", json_string(is_firing ? "firing" : "resolved"));
    if (is_firing) (void)json_object_del(alert, "endsAt");
    return json_pack("{s:s, s:s, s:s, s:[o]}", "version", "4", "receiver", "balm", "groupKey", ALERTNAME,
                     "alerts", alert);
}

/* ---- before anything is sent ---- */

static enum status preview(const struct test_alert *t, json_t **ret_preview, struct error *err)
{
    const struct preview_cfg cfg = {.platform = t->d->cfg->platform};
    struct webhook w;
    json_t *body = webhook_json(t, true);
    enum status s = webhook_decode(json_canonical(&t->d->arena, body), &t->d->arena, &w, err);
    if (s == STATUS_OK) s = cli_preview(&cfg, &w, ret_preview, err);
    json_decref(body);
    return s;
}

/* The promise that nothing acts is kept by asking, not by hoping. */
static bool is_harmless(const struct test_alert *t)
{
    json_t *said = NULL;
    struct error err = {0};
    if (preview(t, &said, &err) != STATUS_OK) {
        doctor_fail(t->d, t->check, "balm status", "not sent: whether a runbook takes it is not known: %s",
                    err.message);
        return false;
    }
    const json_t *alert = json_array_get(json_object_get(said, "alerts"), 0);
    bool is_free = sv_eq(json_get_text(alert, "result"), SV("no_runbook"));
    if (!is_free)
        doctor_fail(t->d, t->check,
                    "let its match name the alerts it is for, or exclude alertname=\"" ALERTNAME "\"",
                    "not sent: runbook %.*s would take it, as any alert that nobody knows",
                    SV_ARG(json_get_text(json_object_get(alert, "runbook"), "name")));
    json_release(said);
    return is_free;
}

/* ---- looking for it ---- */

static bool has_line(const json_t *answer, struct strview needle)
{
    size_t i, k;
    json_t *stream, *value;
    json_array_foreach(json_object_get(json_object_get(answer, "data"), "result"), i, stream)
    {
        json_array_foreach(json_object_get(stream, "values"), k, value)
        {
            struct strview line = sv(json_string_value(json_array_get(value, 1)));
            if (sv_contains(line, needle)) return true;
        }
    }
    return false;
}

/* By the audit log's query API: the same here and elsewhere. */
static enum status look(const struct test_alert *t, const char *status, bool *ret_is_there, struct error *err)
{
    struct arena a = {0};
    struct strview query = arena_printf(&a, "{app=\"balm\", kind=\"signal\"} |= \"%s\"", t->run);
    const char *path = arena_printf(&a, "/function/audit/loki/api/v1/query_range?limit=10&query=%.*s",
                                    SV_ARG(cli_url_encoded(&a, query)))
                           .ptr;
    json_t *answer = NULL;
    enum status s = cli_api(&t->d->cfg->platform, "GET", path, NULL, &answer, err);
    if (s == STATUS_OK) *ret_is_there = has_line(answer, arena_printf(&a, "\"status\":\"%s\"", status));
    json_release(answer);
    arena_release(&a);
    return s;
}

/* STATUS_DEADLINE_EXCEEDED: it did not come. */
static enum status await(const struct test_alert *t, const char *status, int64_t timeout_ns,
                         int64_t *ret_elapsed_ns, struct error *err)
{
    int64_t began_ns = clock_monotonic_ns();
    const struct timespec pause = {.tv_nsec = LOOK_AGAIN_NS};
    for (;;) {
        bool is_there = false;
        enum status s = look(t, status, &is_there, err);
        *ret_elapsed_ns = clock_monotonic_ns() - began_ns;
        if (s != STATUS_OK || is_there) return s;
        if (*ret_elapsed_ns >= timeout_ns) {
            char waited[DURATION_TEXT_MAX];
            return error_set(err, STATUS_DEADLINE_EXCEEDED, "'%s' did not get into the journal within %s",
                             status, duration_format(timeout_ns, waited));
        }
        (void)nanosleep(&pause, NULL);
    }
}

/* ---- straight to the intake ---- */

static enum status read_token(struct doctor *d, struct strview *ret_token, struct error *err)
{
    const char *path = d->cfg->webhook_token_file, *dir;
    enum status s = STATUS_OK;
    if (path == NULL) {
        s = cli_data_dir(d->cfg->platform.data_dir, &d->arena, &dir, err);
        if (s == STATUS_OK) path = arena_printf(&d->arena, "%s/secrets/webhook-token", dir).ptr;
    }
    if (s == STATUS_OK) s = file_read(&d->arena, path, TOKEN_MAX, ret_token, err);
    if (s == STATUS_OK) *ret_token = sv_trim(*ret_token);
    return s;
}

static enum status post(const struct test_alert *t, struct strview token, bool is_firing,
                        int *ret_http_status, struct strview *ret_body, struct error *err)
{
    struct doctor *d = t->d;
    json_t *body = webhook_json(t, is_firing);
    const struct http_header headers[] = {{SV("content-type"), SV("application/json")}};
    struct http_call call = {.method = SV("POST"),
                             .url = arena_printf(&d->arena, "%.*s/function/alerts", SV_ARG(d->url)),
                             .headers = headers,
                             .n_headers = ARRAY_LEN(headers),
                             .bearer_token = token,
                             .body = json_canonical(&d->arena, body)};
    struct http_reply reply;
    enum status s = cli_trust_platform(&d->cfg->platform, d->url, &d->arena, &call, err);
    if (s == STATUS_OK) s = cli_http(&call, &d->arena, &reply, err);
    if (s == STATUS_OK) {
        *ret_http_status = reply.status;
        *ret_body = sv_trim(reply.body);
    }
    json_decref(body);
    return s;
}

static bool post_is_taken(const struct test_alert *t, struct strview token)
{
    int http_status = 0;
    struct strview body = sv(NULL);
    struct error err = {0};
    if (post(t, token, true, &http_status, &body, &err) != STATUS_OK) {
        doctor_fail(t->d, t->check, "balm status", "%s", err.message);
        return false;
    }
    if (http_status == 401 || http_status == 403) {
        doctor_fail(t->d, "token",
                    "give Alertmanager what secrets/webhook-token holds, and restart the platform if that "
                    "was changed (balm receiver)",
                    "the platform does not accept it (HTTP %d)", http_status);
        return false;
    }
    doctor_ok(t->d, "token", "accepted");
    if (http_status == 202) return true;
    doctor_fail(t->d, t->check, "balm status", "not taken: HTTP %d %.*s", http_status,
                SV_ARG(sv_sub(body, 0, ERROR_MESSAGE_MAX / 2)));
    return false;
}

static void go_straight(struct doctor *d, struct strview token)
{
    struct test_alert t = test_alert_new(d, "test alert", "direct");
    struct error err = {0};
    int64_t there_ns = 0, back_ns = 0;
    int http_status = 0;
    struct strview body;
    if (!is_harmless(&t) || !post_is_taken(&t, token)) return;
    enum status s = await(&t, "firing", DIRECT_TIMEOUT_NS, &there_ns, &err);
    enum status resolved = post(&t, token, false, &http_status, &body, s == STATUS_OK ? &err : NULL);
    if (s == STATUS_OK) s = resolved;
    if (s == STATUS_OK) s = await(&t, "resolved", DIRECT_TIMEOUT_NS, &back_ns, &err);
    if (s != STATUS_OK)
        doctor_fail(d, t.check, "balm status, and the platform's log", "%s", err.message);
    else
        doctor_ok(d, t.check,
                  "in the journal after %" PRId64 " ms, resolved after %" PRId64 " ms; no runbook takes it",
                  there_ns / NS_PER_MS, back_ns / NS_PER_MS);
}

void doctor_check_alert(struct doctor *d)
{
    struct strview token;
    struct error err = {0};
    if (d->status == NULL) return;
    if (d->cfg->platform.url != NULL && d->cfg->webhook_token_file == NULL) {
        doctor_skip(d, "token", "--webhook-token-file says where it is");
        doctor_skip(d, "test alert", "needs the token");
        return;
    }
    if (read_token(d, &token, &err) != STATUS_OK)
        doctor_fail(d, "token", "say --webhook-token-file, or run as the platform's user", "%s", err.message);
    else if (token.len == 0)
        doctor_fail(d, "token", "delete the file and restart the platform: it makes a new one",
                    "the file is empty");
    else
        go_straight(d, token);
}

/* ---- by way of Alertmanager ---- */

static enum status post_to_alertmanager(const struct test_alert *t, int64_t ends_at_ns, struct error *err)
{
    json_t *list = json_pack("[o]", alert_json(t, ends_at_ns)), *answer = NULL;
    enum status s = alertmanager_call(&t->d->cfg->alertmanager, "POST", "/alerts", list, &answer, err);
    json_release(answer);
    json_decref(list);
    return s;
}

static void go_around(struct doctor *d)
{
    struct test_alert t = test_alert_new(d, "alertmanager", "alertmanager");
    struct error err = {0};
    int64_t there_ns = 0, back_ns = 0, timeout_ns = d->cfg->timeout_ns;
    if (!is_harmless(&t)) return;
    if (post_to_alertmanager(&t, t.starts_at_ns + ALERT_LIFE_NS + timeout_ns, &err) != STATUS_OK) {
        doctor_fail(d, t.check, "correct --alertmanager, or start it", "%s", err.message);
        return;
    }
    enum status s = await(&t, "firing", timeout_ns, &there_ns, &err);
    enum status resolved = post_to_alertmanager(&t, clock_unix_ns(), s == STATUS_OK ? &err : NULL);
    if (s != STATUS_OK) {
        doctor_fail(
            d, t.check,
            "put what balm receiver prints into its configuration and reload it; its log says if the webhook is refused",
            "it took the alert, but %s", err.message);
        return;
    }
    if (resolved == STATUS_OK) resolved = await(&t, "resolved", timeout_ns, &back_ns, &err);
    if (resolved != STATUS_OK)
        doctor_fail(d, t.check,
                    "send_resolved: true, and a group_interval shorter than --timeout (balm receiver)",
                    "the alert came back, but %s", err.message);
    else
        doctor_ok(d, t.check,
                  "came back by the webhook after %" PRId64 " ms, its resolve after %" PRId64 " ms",
                  there_ns / NS_PER_MS, back_ns / NS_PER_MS);
}

void doctor_check_alertmanager(struct doctor *d)
{
    if (d->status == NULL)
        doctor_skip(d, "the rest", "it needs a platform that answers");
    else if (d->cfg->alertmanager.url == NULL)
        doctor_skip(d, "alertmanager", "--alertmanager URL sends a test alert through it");
    else
        go_around(d);
}
