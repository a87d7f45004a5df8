#include "functions/alerts/events.h"

#include <criterion/criterion.h>
#include <string.h>

#include "base/clock.h"
#include "base/list.h"
#include "functions/alerts/body.h"
#include "functions/alerts/event_ids.h"

#define NOW (INT64_C(1795356080) * NS_PER_S) /* 2026-11-22T14:01:20Z */

static struct arena arena;
static struct webhook hook;
static struct error err;

static void tear_down(void)
{
    arena_release(&arena);
}

TestSuite(events, .fini = tear_down);

static enum status decode(const struct http_header *headers, size_t n, const char *body)
{
    const struct http_req req = {.method = SV("POST"),
                                 .headers = headers,
                                 .n_headers = n,
                                 .body = arena_copy(&arena, sv(body)),
                                 .arena = &arena,
                                 .received_unix_ns = NOW};
    err = (struct error){0};
    return body_decode(&req, &hook, &err);
}

static enum status decode_as(const char *type, const char *body)
{
    const struct http_header header = {SV("content-type"), sv(type)};
    return decode(&header, 1, body);
}

/* The only alert of a structured event with these further members. */
static const struct webhook_alert *decode_event(const char *members)
{
    struct strview body = arena_printf(
        &arena, "{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/s\",\"type\":\"t\"%s}", members);
    cr_assert_eq(decode_as("application/cloudevents+json; charset=UTF-8", body.ptr), STATUS_OK, "%s",
                 err.message);
    cr_assert_eq(hook.n_alerts, 1);
    cr_assert(sv_eq(hook.source, SV("cloudevents")));
    return &hook.alerts[0];
}

static void expect_label(const struct webhook_alert *alert, const char *name, const char *value)
{
    struct strview is = record_label(&alert->labels, sv(name));
    cr_expect(sv_eq(is, sv(value)), "%s=\"%.*s\", not \"%s\"", name, SV_ARG(is), value);
}

/* ---- of its own ---- */

Test(events, event_of_any_type_is_an_alert_of_its_own)
{
    const struct webhook_alert *alert = decode_event(
        ",\"subject\":\"pod/a\",\"time\":\"2026-11-22T13:00:00Z\",\"priority\":\"high\",\"traceparent\":\"00-1\",\"data\":"
        "{\"namespace\":\"shop\",\"count\":3,\"ready\":false,\"none\":null,\"list\":[1],\"source\":\"syscall\",\"status\":"
        "\"Failed\",\"output_fields\":{\"k8s.pod.name\":\"p1\",\"deep\":{\"er\":\"x\"}}}");
    cr_assert_eq(alert->reason.len, 0, "%.*s", SV_ARG(alert->reason));
    cr_assert(alert->is_firing);
    cr_assert_eq(alert->starts_at_ns, NOW - 3680 * NS_PER_S);
    cr_assert_eq(alert->fingerprint.len, 16);
    cr_assert_eq(alert->fingerprint_computed.len, 0);
    cr_assert_eq(alert->event_key, event_ids_key(SV("/s"), SV("1")));
    cr_assert(sv_eq(alert->detail, SV("{\"event\":{\"id\":\"1\",\"source\":\"/s\",\"type\":\"t\"}}")));
    cr_assert_eq(events_key(alert->detail), alert->event_key);
    expect_label(alert, "alertname", "t");
    expect_label(alert, "source", "/s"); /* the data's does not replace it */
    expect_label(alert, "subject", "pod/a");
    expect_label(alert, "priority", "high");
    expect_label(alert, "namespace", "shop");
    expect_label(alert, "count", "3");
    expect_label(alert, "ready", "false");
    expect_label(alert, "status", "Failed");
    expect_label(alert, "output_fields.k8s.pod.name", "p1");
    cr_assert_eq(alert->labels.n, 9, "%zu", alert->labels.n);
}

Test(events, binary_event_is_read_from_its_headers)
{
    const struct http_header headers[] = {{SV("ce-specversion"), SV("1.0")},
                                          {SV("ce-id"), SV("1")},
                                          {SV("ce-source"), SV("/s")},
                                          {SV("ce-type"), SV("t")},
                                          {SV("ce-subject"), SV("Euro%20%E2%82%AC")},
                                          {SV("content-type"), SV("application/json")}};
    cr_assert_eq(decode(headers, 6, "{\"pod\":\"p1\"}"), STATUS_OK, "%s", err.message);
    expect_label(&hook.alerts[0], "subject", "Euro \xE2\x82\xAC");
    expect_label(&hook.alerts[0], "pod", "p1");
    cr_assert_eq(hook.alerts[0].starts_at_ns, NOW); /* it does not say when */
    const struct http_header text = {SV("content-type"), SV("text/plain")};
    struct http_header other[6];
    memcpy(other, headers, sizeof(other));
    other[5] = text;
    cr_assert_eq(decode(other, 6, "{\"pod\":"), STATUS_OK);
    cr_assert_eq(hook.alerts[0].reason.len, 0,
                 "data that is no JSON has no labels, and is none of our business");
}

Test(events, malformed_is_refused_and_says_what_is_missing)
{
    const struct http_header all[] = {{SV("ce-specversion"), SV("1.0")},
                                      {SV("ce-id"), SV("1")},
                                      {SV("ce-source"), SV("/s")},
                                      {SV("ce-type"), SV("t")}};
    for (size_t left_out = 0; left_out < ARRAY_LEN(all); left_out++) {
        struct http_header some[3];
        size_t n = 0;
        for (size_t i = 0; i < ARRAY_LEN(all); i++)
            if (i != left_out) some[n++] = all[i];
        cr_expect_eq(decode(some, n, "{}"), STATUS_INVALID_ARGUMENT);
        cr_expect_not_null(strstr(err.message, all[left_out].name.ptr), "%s", err.message);
    }
    static const struct {
        const char *type, *body, *message;
    } bad[] = {
        {"application/cloudevents+json", "{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/s\"}",
         "'type' is missing"},
        {"application/cloudevents+json",
         "{\"specversion\":\"0.3\",\"id\":\"1\",\"source\":\"/s\",\"type\":\"t\"}", "specversion is '0.3'"},
        {"application/cloudevents+json",
         "{\"id\":\"\",\"specversion\":\"1.0\",\"source\":\"/s\",\"type\":\"t\"}", "'id' is empty"},
        {"application/cloudevents+json", "[]", "no JSON object"},
        {"application/cloudevents-batch+json", "{}", "no JSON array"},
        {"application/cloudevents-batch+json",
         "[{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/s\",\"type\":\"t\"},{}]",
         "event 1 of the batch"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        cr_expect_eq(decode_as(bad[i].type, bad[i].body), STATUS_INVALID_ARGUMENT, "%zu", i);
        cr_expect_not_null(strstr(err.message, bad[i].message), "%s: %s", bad[i].message, err.message);
    }
    cr_expect_eq(decode_as("application/cloudevents+avro", "x"), STATUS_UNIMPLEMENTED);
}

Test(events, identity_is_source_type_and_subject)
{
    struct strview first = decode_event(",\"subject\":\"a\",\"data\":{\"x\":1}")->fingerprint;
    cr_assert(
        sv_eq(first, decode_event(",\"subject\":\"a\",\"data\":{\"x\":2},\"time\":\"2026-01-01T00:00:00Z\"")
                         ->fingerprint));
    cr_assert(sv_eq(first, decode_event(",\"subject\":\"a\",\"status\":\"resolved\"")->fingerprint));
    cr_assert_not(sv_eq(first, decode_event(",\"subject\":\"b\"")->fingerprint));
    cr_assert_not(sv_eq(first, decode_event("")->fingerprint));
}

Test(events, without_a_subject_each_is_one_of_its_own)
{
    const char *batch = "[{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/s\",\"type\":\"t\"},"
                        "{\"specversion\":\"1.0\",\"id\":\"2\",\"source\":\"/s\",\"type\":\"t\"}]";
    cr_assert_eq(decode_as("application/cloudevents-batch+json", batch), STATUS_OK);
    cr_assert_eq(hook.n_alerts, 2);
    cr_assert_not(sv_eq(hook.alerts[0].fingerprint, hook.alerts[1].fingerprint));
}

Test(events, status_resolved_ends_and_is_no_label)
{
    const struct webhook_alert *alert =
        decode_event(",\"status\":\"resolved\",\"time\":\"2026-11-22T13:00:00Z\"");
    cr_assert_not(alert->is_firing);
    cr_assert_eq(alert->ends_at_ns, NOW - 3680 * NS_PER_S);
    cr_assert_eq(record_label(&alert->labels, SV("status")).len, 0);
    cr_assert_not(decode_event(",\"data\":{\"status\":\"resolved\"}")->is_firing);
    cr_assert(decode_event(",\"status\":\"firing\",\"data\":{\"status\":\"resolved\"}")->is_firing);
    cr_assert(decode_event(",\"data\":{\"in\":{\"status\":\"resolved\"}}")->is_firing);
}

Test(events, over_a_limit_is_rejected_alone)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    buf_append(&b, SV(",\"data\":{"));
    for (unsigned i = 0; i < WEBHOOK_LABELS_MAX - 2; i++) {
        if (i > 0) buf_append_char(&b, ',');
        buf_append(&b, SV("\"m"));
        buf_append_u64(&b, i);
        buf_append(&b, SV("\":1"));
    }
    struct strview most = arena_printf(&arena, "%.*s}", SV_ARG(buf_view(&b)));
    struct strview more = arena_printf(&arena, "%.*s,\"one\":1}", SV_ARG(buf_view(&b)));
    buf_release(&b);
    const struct webhook_alert *alert = decode_event(most.ptr);
    cr_assert_eq(alert->reason.len, 0, "%.*s", SV_ARG(alert->reason));
    cr_assert_eq(alert->labels.n, WEBHOOK_LABELS_MAX);
    alert = decode_event(more.ptr);
    cr_assert(sv_contains(alert->reason, SV("events[0]: more labels")), "%.*s", SV_ARG(alert->reason));
    cr_assert_eq(hook.n_rejected, 1);
    cr_assert_gt(alert->evidence.len, 0);

    alert = decode_event(",\"time\":\"yesterday\"");
    cr_assert(sv_contains(alert->reason, SV("time")), "%.*s", SV_ARG(alert->reason));
    const char *long_type =
        arena_printf(&arena,
                     "[{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/s\",\"type\":\"%01025d\"}]", 7)
            .ptr;
    cr_assert_eq(decode_as("application/cloudevents-batch+json", long_type), STATUS_OK);
    cr_assert(sv_contains(hook.alerts[0].reason, SV("alertname")), "%.*s", SV_ARG(hook.alerts[0].reason));
}

Test(events, value_that_is_too_long_for_a_label_is_left_out)
{
    const struct webhook_alert *alert =
        decode_event(arena_printf(&arena, ",\"data\":{\"a\":\"%04096d\",\"b\":\"%04097d\"}", 1, 1).ptr);
    cr_assert_eq(alert->reason.len, 0);
    cr_assert_eq(record_label(&alert->labels, SV("a")).len, WEBHOOK_VALUE_BYTES_MAX);
    cr_assert_eq(record_label(&alert->labels, SV("b")).len, 0);
}

Test(events, empty_batch_has_no_alerts)
{
    cr_assert_eq(decode_as("application/cloudevents-batch+json", "[]"), STATUS_OK, "%s", err.message);
    cr_assert_eq(hook.n_alerts, 0);
}

/* ---- carrying alerts ---- */

#define ALERT "\"labels\":{\"alertname\":\"Down\",\"job\":\"web\"}"

Test(events, webhook_body_in_an_event_is_its_alerts)
{
    const char *webhook =
        ",\"data\":{\"version\":\"4\",\"receiver\":\"r\",\"truncatedAlerts\":3,\"alerts\":[{\"status\":\"firing\"," ALERT
        ",\"startsAt\":\"2026-11-22T13:00:00Z\"}]}";
    const struct webhook_alert *alert = decode_event(webhook);
    cr_assert_eq(alert->reason.len, 0);
    expect_label(alert, "alertname", "Down");
    cr_assert_eq(alert->labels.n, 2);
    cr_assert_eq(alert->event_key, 0, "its alerts are told apart as any others");
    cr_assert(sv_contains(alert->detail, SV("carriedBy")));
    cr_assert_eq(events_key(alert->detail), 0);
    cr_assert(sv_eq(hook.receiver, SV("r")));
    cr_assert_eq(hook.truncated_alerts, 3);
    alert = decode_event(",\"data\":{\"version\":\"9\",\"alerts\":[]}");
    cr_assert(sv_contains(alert->reason, SV("events[0]: ")) && sv_contains(alert->reason, SV("version")),
              "%.*s", SV_ARG(alert->reason));
}

Test(events, single_alert_in_an_event_may_lack_status_and_start)
{
    const struct webhook_alert *alert =
        decode_event(",\"time\":\"2026-11-22T13:00:00Z\",\"data\":{" ALERT "}");
    cr_assert_eq(alert->reason.len, 0, "%.*s", SV_ARG(alert->reason));
    cr_assert(alert->is_firing);
    cr_assert_eq(alert->starts_at_ns, NOW - 3680 * NS_PER_S);
    alert =
        decode_event(",\"data\":{\"status\":\"resolved\",\"startsAt\":\"2026-11-22T12:00:00Z\"," ALERT "}");
    cr_assert_not(alert->is_firing);
    cr_assert_eq(alert->starts_at_ns, NOW - 7280 * NS_PER_S);
    alert = decode_event(",\"data\":{\"status\":\"odd\"," ALERT "}");
    cr_assert(sv_contains(alert->reason, SV("status is \"odd\"")), "%.*s", SV_ARG(alert->reason));
}

/* ---- from a file ---- */

static enum status decode_text(const char *text)
{
    err = (struct error){0};
    return body_decode_text(sv(text), NOW, &arena, &hook, &err);
}

Test(events, body_in_a_file_is_told_by_its_text)
{
    cr_assert_eq(
        decode_text(
            " {\"data\":{\"specversion\":1},\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/s\",\"type\":\"t\"}\n"),
        STATUS_OK, "%s", err.message);
    cr_assert(sv_eq(hook.source, SV("cloudevents")));
    cr_assert_eq(decode_text("\n[{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/s\",\"type\":\"t\"}]"),
                 STATUS_OK, "%s", err.message);
    cr_assert(sv_eq(hook.source, SV("cloudevents")));
    cr_assert_eq(decode_text("{\"version\":\"1\",\"alerts\":[{\"status\":\"firing\"," ALERT
                             ",\"startsAt\":\"2026-11-22T13:00:00Z\"}]}"),
                 STATUS_OK);
    cr_assert(sv_eq(hook.source, SV("grafana")));
    cr_assert_eq(decode_text("{\"specversion\":"), STATUS_INVALID_ARGUMENT);
    cr_assert_eq(decode_text("[]"), STATUS_INVALID_ARGUMENT);
    cr_assert_eq(decode_text(""), STATUS_INVALID_ARGUMENT);
}
