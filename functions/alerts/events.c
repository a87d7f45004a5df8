#include "functions/alerts/events.h"

#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/list.h"
#include "cloudevents/cloudevents.h"
#include "functions/alerts/event_ids.h"

/* Names and values together: JSON can make them six times as long, and a record has to take them. */
#define LABELS_BYTES_MAX ((size_t)64 * 1024)

/* ---- which requests ---- */

static const char *const required[] = {"ce-specversion", "ce-id", "ce-source", "ce-type"};

bool events_are_in(const struct http_req *req)
{
    if (cloudevent_mode(req) != CLOUDEVENT_NONE) return true;
    for (size_t i = 0; i < ARRAY_LEN(required); i++)
        if (http_req_header(req, sv(required[i])).len > 0) return true;
    return false;
}

static enum status missing_attribute(const struct http_req *req, struct error *err)
{
    size_t i = 0;
    while (i + 1 < ARRAY_LEN(required) && http_req_header(req, sv(required[i])).len > 0)
        i++;
    return error_set(err, STATUS_INVALID_ARGUMENT, "the event has no header %s", required[i]);
}

/* ---- the alerts of all events ---- */

struct reading {
    const struct http_req *req;
    struct arena *arena;
    struct webhook webhook;
    size_t capacity;
};

static struct webhook_alert *add_alert(struct reading *r)
{
    struct webhook *w = &r->webhook;
    if (w->n_alerts == r->capacity) {
        size_t capacity = r->capacity ? r->capacity * 2 : 1;
        struct webhook_alert *grown = arena_alloc(r->arena, capacity * sizeof(*grown));
        if (w->n_alerts > 0) memcpy(grown, w->alerts, w->n_alerts * sizeof(*grown));
        w->alerts = grown;
        r->capacity = capacity;
    }
    struct webhook_alert *alert = &w->alerts[w->n_alerts++];
    *alert = (struct webhook_alert){0};
    return alert;
}

/* ---- what is kept of an event ---- */

/* name "event": the alert is the event; "carriedBy": it came in one. */
static struct strview detail_of(const struct cloudevent *e, const char *name, struct arena *a)
{
    json_t *o = json_pack("{s:{s:o, s:o, s:o}}", name, "id", json_text(e->id), "source", json_text(e->source),
                          "type", json_text(e->type));
    struct strview text = json_canonical(a, o);
    json_release(o);
    return text;
}

uint64_t events_key(struct strview detail)
{
    json_t *o = NULL;
    if (detail.len == 0 || json_parse(detail, 0, &o, NULL) != STATUS_OK) return 0;
    const json_t *event = json_object_get(o, "event");
    struct strview source = json_get_text(event, "source"), id = json_get_text(event, "id");
    uint64_t key = id.len > 0 && source.len > 0 ? event_ids_key(source, id) : 0;
    json_release(o);
    return key;
}

/* ---- an event that is an alert itself ---- */

struct labels {
    struct http_header items[WEBHOOK_LABELS_MAX];
    size_t n, bytes;
    bool is_over; /* more of them than a record takes */
    struct strview status;
    struct arena *arena;
};

static bool has_label(const struct labels *l, struct strview name)
{
    for (size_t i = 0; i < l->n; i++)
        if (sv_eq(l->items[i].name, name)) return true;
    return false;
}

static void add_label(struct labels *l, struct strview name, struct strview value)
{
    if (value.len == 0 || has_label(l, name)) return;
    l->bytes += name.len + value.len;
    if (l->n == WEBHOOK_LABELS_MAX || l->bytes > LABELS_BYTES_MAX)
        l->is_over = true;
    else
        l->items[l->n++] = (struct http_header){name, value};
}

/* It says how the thing is, and is no label: the firing and the resolved one have the same. */
static bool take_status(struct labels *l, struct strview name, struct strview value)
{
    bool is_status =
        sv_eq(name, SV("status")) && (sv_eq(value, SV("firing")) || sv_eq(value, SV("resolved")));
    if (is_status && l->status.len == 0) l->status = value;
    return is_status;
}

static void add_attributes(struct labels *l, const struct cloudevent *e)
{
    add_label(l, SV("alertname"), e->type);
    add_label(l, SV("source"), e->source);
    add_label(l, SV("subject"), e->subject);
    for (size_t i = 0; i < e->n_extensions; i++) {
        const struct http_header *x = &e->extensions[i];
        bool is_of_delivery = sv_eq(x->name, SV("traceparent")) || sv_eq(x->name, SV("tracestate"));
        if (!is_of_delivery && !take_status(l, x->name, x->value)) add_label(l, x->name, x->value);
    }
}

/* A text, a number or a boolean at the cursor; all else is passed over. */
static void scan_scalar(struct labels *l, struct json_scan *s, struct strview outer, struct strview name)
{
    char c = json_scan_peek(s);
    struct strview value = {NULL, 0};
    if (c == '"') {
        if (!json_scan_string(s, &value)) return;
    } else if (!json_scan_value(s, &value) || c == 'n' || c == '[' || c == '{') {
        return;
    }
    if (value.len > WEBHOOK_VALUE_BYTES_MAX || name.len > WEBHOOK_NAME_BYTES_MAX / 2) return;
    if (outer.len > 0)
        name = arena_printf(l->arena, "%.*s.%.*s", SV_ARG(outer), SV_ARG(name));
    else if (take_status(l, name, value))
        return;
    add_label(l, name, value);
}

static void scan_inner(struct labels *l, struct json_scan *s, struct strview outer)
{
    bool is_first = true;
    struct strview name;
    (void)json_scan_open(s, '{');
    while (json_scan_member(s, &is_first, &name))
        scan_scalar(l, s, outer, name);
}

/* NULL, or the static text of what is wrong with the JSON. */
static const char *add_data(struct labels *l, struct strview data)
{
    struct json_scan s;
    bool is_first = true;
    struct strview name;
    json_scan_init(&s, data, l->arena);
    if (json_scan_peek(&s) != '{') {
        (void)json_scan_value(&s, NULL);
    } else {
        (void)json_scan_open(&s, '{');
        while (json_scan_member(&s, &is_first, &name))
            if (json_scan_peek(&s) == '{' && name.len <= WEBHOOK_NAME_BYTES_MAX / 2)
                scan_inner(l, &s, name);
            else
                scan_scalar(l, &s, (struct strview){NULL, 0}, name);
    }
    return json_scan_end(&s) ? NULL : s.problem != NULL ? s.problem : "text behind the value";
}

/* Nobody can choose it: it decides which events are one episode. */
static struct strview fingerprint_of(const struct cloudevent *e, struct arena *a)
{
    bool has_subject = e->subject.len > 0;
    const struct strview nul = sv_n("", 1);
    const struct strview parts[] = {e->source,
                                    nul,
                                    e->type,
                                    nul,
                                    has_subject ? SV("subject") : SV("id"),
                                    nul,
                                    has_subject ? e->subject : e->id};
    uint8_t digest[SHA256_BYTES];
    char *hex = arena_alloc(a, 17);
    sha256_parts(parts, ARRAY_LEN(parts), digest);
    hex_encode(digest, 8, hex);
    return sv_n(hex, 16);
}

static void reject(struct reading *r, struct webhook_alert *alert, size_t index, const char *what)
{
    if (alert->reason.len == 0) alert->reason = arena_printf(r->arena, "events[%zu]: %s", index, what);
}

static int64_t time_of(const struct reading *r, const struct cloudevent *e)
{
    int64_t time_ns = 0;
    if (e->time.len == 0) return r->req->received_unix_ns;
    return rfc3339_parse(e->time, &time_ns) == STATUS_OK ? time_ns : 0;
}

static bool has_json(const struct cloudevent *e)
{
    struct strview type = sv_trim(sv_sub(e->datacontenttype, 0, sv_find(e->datacontenttype, ';')));
    return e->data.len > 0 &&
           (type.len == 0 || sv_ends_with(type, SV("/json")) || sv_ends_with(type, SV("+json")));
}

static void take_event(struct reading *r, const struct cloudevent *e, size_t index)
{
    struct labels l = {.arena = r->arena};
    const char *problem = NULL;
    add_attributes(&l, e);
    if (has_json(e)) problem = add_data(&l, e->data);
    struct webhook_alert *alert = add_alert(r);
    struct http_header *items = arena_alloc(r->arena, l.n * sizeof(items[0]));
    memcpy(items, l.items, l.n * sizeof(items[0]));
    alert->is_firing = !sv_eq(l.status, SV("resolved"));
    alert->starts_at_ns = time_of(r, e);
    alert->ends_at_ns = alert->is_firing ? 0 : alert->starts_at_ns;
    alert->fingerprint = fingerprint_of(e, r->arena);
    alert->detail = detail_of(e, "event", r->arena);
    alert->event_key = event_ids_key(e->source, e->id);
    alert->bytes = l.bytes;
    webhook_take_labels(alert, index, items, l.n, r->arena);
    if (problem != NULL) reject(r, alert, index, arena_printf(r->arena, "data is not JSON: %s", problem).ptr);
    if (l.is_over) reject(r, alert, index, "more labels than are taken (128, and 64 KiB in all)");
    if (alert->starts_at_ns == 0) reject(r, alert, index, "time is not a time in RFC 3339");
    if (alert->reason.len > 0) alert->evidence = webhook_evidence(alert->detail);
}

/* ---- an event that carries alerts ---- */

/* What the data's first look says. */
enum data_shape { DATA_OTHER, DATA_ALERT, DATA_WEBHOOK };

static enum data_shape shape_of(const struct cloudevent *e, struct arena *a)
{
    struct json_scan s;
    bool is_first = true, has_version = false, has_alerts = false, is_alert = false;
    struct strview name, value;
    json_scan_init(&s, e->data, a);
    if (!has_json(e) || json_scan_peek(&s) != '{' || !json_scan_open(&s, '{')) return DATA_OTHER;
    while (json_scan_member(&s, &is_first, &name)) {
        has_version |= sv_eq(name, SV("version"));
        has_alerts |= sv_eq(name, SV("alerts")) && json_scan_peek(&s) == '[';
        if (!sv_eq(name, SV("labels")) || json_scan_peek(&s) != '{') {
            (void)json_scan_value(&s, NULL);
            continue;
        }
        bool is_first_label = true;
        (void)json_scan_open(&s, '{');
        while (json_scan_member(&s, &is_first_label, &value)) {
            is_alert |= sv_eq(value, SV("alertname")) && json_scan_peek(&s) == '"';
            (void)json_scan_value(&s, NULL);
        }
    }
    if (json_scan_failed(&s)) return DATA_OTHER;
    return has_version && has_alerts ? DATA_WEBHOOK : is_alert ? DATA_ALERT : DATA_OTHER;
}

static void take_alert(struct reading *r, const struct cloudevent *e, size_t index)
{
    struct json_scan s;
    const struct webhook_form form = {.may_lack_status = true, .starts_at_ns = time_of(r, e)};
    struct webhook_alert *alert = add_alert(r);
    json_scan_init(&s, e->data, r->arena);
    if (!webhook_scan_alert(&s, index, &form, alert) || !json_scan_end(&s))
        reject(r, alert, index, "data is not JSON");
    alert->detail = detail_of(e, "carriedBy", r->arena);
    if (alert->reason.len > 0 && alert->evidence.len == 0) alert->evidence = webhook_evidence(alert->detail);
}

static enum status take_webhook(struct reading *r, const struct cloudevent *e, size_t index, size_t n_events)
{
    struct webhook w = {0};
    struct error err = {0};
    if (webhook_decode(e->data, r->arena, &w, &err) != STATUS_OK) {
        reject(r, add_alert(r), index, err.message);
        r->webhook.alerts[r->webhook.n_alerts - 1].evidence =
            webhook_evidence(detail_of(e, "carriedBy", r->arena));
        return STATUS_OK;
    }
    if (r->webhook.n_alerts + w.n_alerts > WEBHOOK_ALERTS_MAX) return STATUS_RESOURCE_EXHAUSTED;
    struct strview detail = detail_of(e, "carriedBy", r->arena);
    for (size_t i = 0; i < w.n_alerts; i++) {
        struct webhook_alert *alert = add_alert(r);
        *alert = w.alerts[i];
        alert->detail = detail;
    }
    if (n_events == 1) {
        r->webhook.receiver = w.receiver;
        r->webhook.group_key = w.group_key;
        r->webhook.truncated_alerts = w.truncated_alerts;
    }
    return STATUS_OK;
}

/* ---- all of them ---- */

static enum status take_all(struct reading *r, const struct cloudevent *events, size_t n, struct error *err)
{
    for (size_t i = 0; i < n; i++) {
        enum status s = STATUS_OK;
        switch (shape_of(&events[i], r->arena)) {
        case DATA_WEBHOOK:
            s = take_webhook(r, &events[i], i, n);
            break;
        case DATA_ALERT:
            take_alert(r, &events[i], i);
            break;
        case DATA_OTHER:
            take_event(r, &events[i], i);
            break;
        }
        if (s != STATUS_OK || r->webhook.n_alerts > WEBHOOK_ALERTS_MAX)
            return error_set(err, STATUS_INVALID_ARGUMENT, "more than %d alerts in one request",
                             WEBHOOK_ALERTS_MAX);
    }
    return STATUS_OK;
}

enum status events_decode(const struct http_req *req, struct webhook *ret_webhook, struct error *err)
{
    struct reading r = {.req = req, .arena = req->arena, .webhook = {.source = WEBHOOK_CLOUDEVENTS}};
    const struct cloudevent *events = NULL;
    size_t n = 0;
    if (cloudevent_mode(req) == CLOUDEVENT_NONE) return missing_attribute(req, err);
    enum status s = cloudevent_decode(req, &events, &n, err);
    if (s == STATUS_OK) s = take_all(&r, events, n, err);
    if (s != STATUS_OK) return s;
    for (size_t i = 0; i < r.webhook.n_alerts; i++)
        r.webhook.n_rejected += r.webhook.alerts[i].reason.len > 0;
    *ret_webhook = r.webhook;
    return STATUS_OK;
}
