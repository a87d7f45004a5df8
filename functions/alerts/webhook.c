#include "functions/alerts/webhook.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/json_scan.h"
#include "base/list.h"

enum { QUOTED_MAX = 64 /* so much of a sender's text is repeated in a message */ };

/* The alert that is being read. What is wrong in it is soft: it is noted, and reading goes on behind it. */
struct reader {
    struct json_scan *scan;
    struct webhook_alert *alert;
    size_t index;
    struct strview status, starts_at, ends_at; /* as sent */
    const struct webhook_form *form;
};

static int quoted(struct strview s)
{
    return (int)(s.len < QUOTED_MAX ? s.len : QUOTED_MAX);
}

/* The first reason counts. */
static void reject(struct reader *r, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void reject(struct reader *r, const char *fmt, ...)
{
    if (r->alert->reason.len > 0) return;
    char text[400];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    r->alert->reason = arena_printf(r->scan->arena, "alerts[%zu]: %s", r->index, text);
}

static bool has_nul(struct strview s)
{
    return s.len > 0 && memchr(s.ptr, '\0', s.len) != NULL;
}

/* A string member of an alert; null counts as absent, as Go's decoder has it. False only where the JSON
 * itself is broken. */
static bool scan_text(struct reader *r, const char *name, struct strview *ret_text)
{
    char c = json_scan_peek(r->scan);
    if (c == '"') {
        if (!json_scan_string(r->scan, ret_text)) return false;
        if (has_nul(*ret_text)) reject(r, "%s has a NUL character in it", name);
        return true;
    }
    if (c != 'n') reject(r, "%s is not a string", name);
    return json_scan_value(r->scan, NULL);
}

/* ---- label sets ---- */

/* Any UTF-8 as Prometheus 3 and Alertmanager 0.27 have it (k8s.pod.name); the scanner has seen to the
 * encoding. */
static bool is_label_name(struct strview s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] < ' ' || s.ptr[i] == 0x7f) return false;
    return s.len > 0;
}

static void check_label(struct reader *r, struct strview name, struct strview value)
{
    if (name.len > WEBHOOK_NAME_BYTES_MAX)
        reject(r, "label name \"%.*s…\" has %zu bytes, at most %d are taken", quoted(name), name.ptr,
               name.len, WEBHOOK_NAME_BYTES_MAX);
    else if (!is_label_name(name))
        reject(r, "\"%.*s\" is not a label name (empty, or with control characters)", quoted(name), name.ptr);
    else if (value.len > WEBHOOK_VALUE_BYTES_MAX)
        reject(r, "label \"%.*s\" has %zu bytes, at most %d are taken", quoted(name), name.ptr, value.len,
               WEBHOOK_VALUE_BYTES_MAX);
    else if (has_nul(value))
        reject(r, "label \"%.*s\" has a NUL character in it", quoted(name), name.ptr);
}

static void check_annotation(struct reader *r, struct strview name, struct strview value, size_t *total_bytes)
{
    *total_bytes += name.len + value.len;
    if (*total_bytes > WEBHOOK_ANNOTATIONS_BYTES_MAX)
        reject(r, "annotation \"%.*s\" brings the annotations to %zu bytes, at most %d are taken",
               quoted(name), name.ptr, *total_bytes, WEBHOOK_ANNOTATIONS_BYTES_MAX);
    else if (name.len == 0 || name.len > WEBHOOK_NAME_BYTES_MAX)
        reject(r, "annotation name \"%.*s\" has %zu bytes, 1 to %d are taken", quoted(name), name.ptr,
               name.len, WEBHOOK_NAME_BYTES_MAX);
    else if (has_nul(name) || has_nul(value))
        reject(r, "annotation \"%.*s\" has a NUL character in it", quoted(name), name.ptr);
}

/* One object of strings, into `items`; what is too much or of a wrong type is noted and passed over. */
static bool scan_items(struct reader *r, bool is_labels, struct http_header items[WEBHOOK_LABELS_MAX],
                       size_t *ret_n)
{
    const char *what = is_labels ? "label" : "annotation";
    size_t n = 0, total_bytes = 0;
    bool is_first = true;
    struct strview name, value;
    if (!json_scan_open(r->scan, '{')) return false;
    while (json_scan_member(r->scan, &is_first, &name)) {
        if (json_scan_peek(r->scan) != '"') {
            reject(r, "%s \"%.*s\" is not a string", what, quoted(name), name.ptr);
            if (!json_scan_value(r->scan, NULL)) return false;
            continue;
        }
        if (!json_scan_string(r->scan, &value)) return false;
        if (is_labels)
            check_label(r, name, value);
        else
            check_annotation(r, name, value, &total_bytes);
        if (n == WEBHOOK_LABELS_MAX)
            reject(r, "more than %d %ss", WEBHOOK_LABELS_MAX, what);
        else
            items[n++] = (struct http_header){name, value};
    }
    *ret_n = n;
    return !json_scan_failed(r->scan);
}

static bool scan_set(struct reader *r, bool is_labels, struct record_labels *ret_set)
{
    char c = json_scan_peek(r->scan);
    if (c != '{') {
        if (c != 'n') reject(r, "%s is not an object", is_labels ? "labels" : "annotations");
        return json_scan_value(r->scan, NULL);
    }
    struct http_header items[WEBHOOK_LABELS_MAX];
    size_t n;
    if (!scan_items(r, is_labels, items, &n)) return false;
    record_labels_sort(items, &n);
    struct http_header *copy = arena_alloc(r->scan->arena, n * sizeof(items[0]));
    if (n > 0) memcpy(copy, items, n * sizeof(items[0]));
    *ret_set = (struct record_labels){copy, n};
    return true;
}

/* ---- one alert ---- */

static bool scan_member(struct reader *r, struct strview name)
{
    bool is_taken = false;
    if (r->form->other != NULL && !r->form->other(r->form->arg, r->scan, name, &is_taken)) return false;
    if (is_taken) return true;
    if (sv_eq(name, SV("labels"))) return scan_set(r, true, &r->alert->labels);
    if (sv_eq(name, SV("annotations"))) return scan_set(r, false, &r->alert->annotations);
    if (sv_eq(name, SV("status"))) return scan_text(r, "status", &r->status);
    if (sv_eq(name, SV("startsAt"))) return scan_text(r, "startsAt", &r->starts_at);
    if (sv_eq(name, SV("endsAt"))) return scan_text(r, "endsAt", &r->ends_at);
    if (sv_eq(name, SV("generatorURL"))) return scan_text(r, "generatorURL", &r->alert->generator_url);
    if (sv_eq(name, SV("fingerprint"))) return scan_text(r, "fingerprint", &r->alert->fingerprint);
    return json_scan_value(r->scan, NULL);
}

static void check_status(struct reader *r)
{
    r->alert->is_firing = sv_eq(r->status, SV("firing"));
    if (r->status.len == 0 && r->form->may_lack_status)
        r->alert->is_firing = true;
    else if (r->status.len == 0)
        reject(r, "status is missing");
    else if (!r->alert->is_firing && !sv_eq(r->status, SV("resolved")))
        reject(r, "status is \"%.*s\", neither \"firing\" nor \"resolved\"", quoted(r->status),
               r->status.ptr);
}

static void check_alertname(struct reader *r)
{
    struct strview alertname = record_label(&r->alert->labels, SV("alertname"));
    if (r->alert->labels.n == 0)
        reject(r, "labels are missing");
    else if (alertname.len == 0)
        reject(r, "label \"alertname\" is missing or empty");
    else if (alertname.len > WEBHOOK_ALERTNAME_BYTES_MAX)
        reject(r, "label \"alertname\" has %zu bytes, at most %d are taken", alertname.len,
               WEBHOOK_ALERTNAME_BYTES_MAX);
}

static void check_times(struct reader *r)
{
    struct webhook_alert *alert = r->alert;
    if (r->starts_at.len == 0 && r->form->starts_at_ns != 0)
        alert->starts_at_ns = r->form->starts_at_ns;
    else if (r->starts_at.len == 0)
        reject(r, "startsAt is missing");
    else if (rfc3339_parse(r->starts_at, &alert->starts_at_ns) != STATUS_OK)
        reject(r, "startsAt \"%.*s\" is not a time in RFC 3339", quoted(r->starts_at), r->starts_at.ptr);
    else if (alert->starts_at_ns == 0)
        reject(r, "startsAt \"%.*s\" is unset or out of range", quoted(r->starts_at), r->starts_at.ptr);
    if (r->ends_at.len > 0 && rfc3339_parse(r->ends_at, &alert->ends_at_ns) != STATUS_OK)
        reject(r, "endsAt \"%.*s\" is not a time in RFC 3339", quoted(r->ends_at), r->ends_at.ptr);
}

/* It becomes a key and part of messages: any token will do, but nothing that could be mistaken for something
 * else. */
static bool is_token(struct strview s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
              c == '_' || c == ':' || c == '.'))
            return false;
    }
    return true;
}

static void check_fingerprint(struct reader *r)
{
    struct webhook_alert *alert = r->alert;
    if (alert->fingerprint.len > WEBHOOK_FINGERPRINT_BYTES_MAX) {
        reject(r, "fingerprint has %zu bytes, at most %d are taken", alert->fingerprint.len,
               WEBHOOK_FINGERPRINT_BYTES_MAX);
        return;
    }
    if (!is_token(alert->fingerprint)) {
        reject(r, "fingerprint \"%.*s\" has other characters than letters, digits and - _ : .",
               quoted(alert->fingerprint), alert->fingerprint.ptr);
        return;
    }
    char hex[17];
    record_fingerprint(&alert->labels, hex);
    if (sv_eq(alert->fingerprint, sv_n(hex, 16))) return;
    struct strview computed = arena_copy(r->scan->arena, sv_n(hex, 16));
    if (alert->fingerprint.len == 0)
        alert->fingerprint = computed;
    else
        alert->fingerprint_computed = computed;
}

/* ---- what was not measured ---- */

/* Grafana says by an alert of its own that a rule found no data or could not ask for it. */
static bool is_of_datasource(const struct webhook_alert *alert)
{
    struct strview name = record_label(&alert->labels, SV("alertname"));
    return (sv_eq(name, SV("DatasourceNoData")) || sv_eq(name, SV("DatasourceError"))) &&
           record_label(&alert->labels, SV("rulename")).len > 0;
}

/* And by an annotation that an alert has its state for another reason than a measurement: NoData, Error,
 * MissingSeries, Updated, Paused, RuleDeleted … Through an Alertmanager of its own it comes just the same. */
static void note_unmeasured(struct reader *r)
{
    struct webhook_alert *alert = r->alert;
    struct strview why = record_label(&alert->annotations, SV("grafana_state_reason"));
    if (why.len > 0)
        alert->unmeasured = arena_printf(
            r->scan->arena, "Grafana measured nothing: the alert's state has the reason \"%.*s\"",
            quoted(why), why.ptr);
    else if (alert->is_firing && is_of_datasource(alert))
        alert->unmeasured = SV("Grafana measured nothing: the alert says that a rule could not be evaluated");
}

/* ---- one alert as a whole ---- */

struct strview webhook_evidence(struct strview raw)
{
    size_t n = raw.len;
    if (n > WEBHOOK_EVIDENCE_BYTES_MAX)
        for (n = WEBHOOK_EVIDENCE_BYTES_MAX; n > 0 && ((unsigned char)raw.ptr[n] & 0xC0) == 0x80;)
            n--;
    return sv_n(raw.ptr, n);
}

static const struct webhook_form own_form;

bool webhook_scan_alert(struct json_scan *s, size_t index, const struct webhook_form *form,
                        struct webhook_alert *ret_alert)
{
    struct reader r = {
        .scan = s, .alert = ret_alert, .index = index, .form = form != NULL ? form : &own_form};
    *ret_alert = (struct webhook_alert){0};
    bool is_object = json_scan_peek(s) == '{', is_first = true;
    const char *start = s->at;
    struct strview name;
    if (is_object) {
        (void)json_scan_open(s, '{');
        while (json_scan_member(s, &is_first, &name))
            if (!scan_member(&r, name)) return false;
    } else {
        (void)json_scan_value(s, NULL);
    }
    if (json_scan_failed(s)) return false;
    struct strview raw = sv_n(start, (size_t)(s->at - start));
    if (!is_object) reject(&r, "not an object");
    if (raw.len > WEBHOOK_ALERT_BYTES_MAX)
        reject(&r, "%zu bytes, at most %d are taken", raw.len, WEBHOOK_ALERT_BYTES_MAX);
    check_alertname(&r);
    check_status(&r);
    check_times(&r);
    check_fingerprint(&r);
    note_unmeasured(&r);
    if (ret_alert->reason.len > 0) ret_alert->evidence = webhook_evidence(raw);
    ret_alert->bytes = raw.len;
    return true;
}

void webhook_take_labels(struct webhook_alert *alert, size_t index, struct http_header *items, size_t n,
                         struct arena *a)
{
    struct json_scan scan;
    struct reader r = {.scan = &scan, .alert = alert, .index = index, .form = &own_form};
    json_scan_init(&scan, (struct strview){NULL, 0}, a);
    for (size_t i = 0; i < n; i++)
        check_label(&r, items[i].name, items[i].value);
    record_labels_sort(items, &n);
    alert->labels = (struct record_labels){items, n};
    check_alertname(&r);
    if (alert->fingerprint.len == 0) check_fingerprint(&r);
}

void webhook_incident_id(struct strview source, struct strview fingerprint, int64_t starts_at_ns,
                         char ret_id[INCIDENT_ID_MAX])
{
    if (sv_eq(source, WEBHOOK_ALERTMANAGER)) {
        incident_id(fingerprint, starts_at_ns, ret_id);
        return;
    }
    char text[WEBHOOK_FINGERPRINT_BYTES_MAX + 32];
    int n = snprintf(text, sizeof(text), "%.*s:%.*s", SV_ARG(source), SV_ARG(fingerprint));
    incident_id(sv_n(text, (size_t)n), starts_at_ns, ret_id);
}

/* ---- the body ---- */

struct body {
    struct json_scan scan;
    struct strview version;
    bool has_version, has_alerts;
    bool is_in_alerts; /* for the message, should the JSON break here */
    size_t capacity;
    struct webhook webhook;
};

static struct webhook_alert *next_alert(struct body *b)
{
    struct webhook *w = &b->webhook;
    if (w->n_alerts == b->capacity) {
        size_t capacity = b->capacity ? b->capacity * 2 : 1; /* one is the common number */
        struct webhook_alert *grown = arena_alloc(b->scan.arena, capacity * sizeof(*grown));
        if (w->n_alerts > 0) memcpy(grown, w->alerts, w->n_alerts * sizeof(*grown));
        w->alerts = grown;
        b->capacity = capacity;
    }
    return &w->alerts[w->n_alerts];
}

static enum status scan_alerts(struct body *b, struct error *err)
{
    struct json_scan *s = &b->scan;
    struct webhook *w = &b->webhook;
    if (json_scan_peek(s) != '[') {
        if (!json_scan_value(s, NULL)) return STATUS_OK;
        return error_set(err, STATUS_INVALID_ARGUMENT, "\"alerts\" is not an array");
    }
    bool is_first = true;
    b->has_alerts = b->is_in_alerts = true;
    w->n_alerts = w->n_rejected = 0; /* a member given twice: the last one counts */
    (void)json_scan_open(s, '[');
    while (json_scan_element(s, &is_first)) {
        if (w->n_alerts == WEBHOOK_ALERTS_MAX)
            return error_set(err, STATUS_INVALID_ARGUMENT,
                             "more than %d alerts in one body: set max_alerts in the receiver",
                             WEBHOOK_ALERTS_MAX);
        struct webhook_alert *alert = next_alert(b);
        if (!webhook_scan_alert(s, w->n_alerts, NULL, alert)) return STATUS_OK;
        w->n_alerts++;
        w->n_rejected += alert->reason.len > 0;
    }
    if (!json_scan_failed(s)) b->is_in_alerts = false;
    return STATUS_OK;
}

/* A string member of the body. A wrong type is said at once. */
static enum status scan_body_text(struct body *b, const char *name, struct strview *ret_text,
                                  struct error *err)
{
    if (json_scan_peek(&b->scan) != '"') {
        if (json_scan_value(&b->scan, NULL))
            return error_set(err, STATUS_INVALID_ARGUMENT, "\"%s\" is not a string", name);
        return STATUS_OK;
    }
    if (json_scan_string(&b->scan, ret_text) && has_nul(*ret_text))
        return error_set(err, STATUS_INVALID_ARGUMENT, "\"%s\" has a NUL character in it", name);
    return STATUS_OK;
}

static void scan_truncated(struct body *b)
{
    struct strview raw;
    if (json_scan_value(&b->scan, &raw) && sv_parse_u64(raw, &b->webhook.truncated_alerts) != STATUS_OK)
        b->webhook.truncated_alerts = 0;
}

/* STATUS_OK also where the JSON broke: the scan knows. */
static enum status scan_body(struct body *b, struct error *err)
{
    struct json_scan *s = &b->scan;
    bool is_first = true;
    struct strview name;
    enum status status = STATUS_OK;
    (void)json_scan_open(s, '{');
    while (status == STATUS_OK && json_scan_member(s, &is_first, &name)) {
        if (sv_eq(name, SV("alerts"))) {
            status = scan_alerts(b, err);
        } else if (sv_eq(name, SV("version"))) {
            b->has_version = true;
            status = scan_body_text(b, "version", &b->version, err);
        } else if (sv_eq(name, SV("receiver"))) {
            status = scan_body_text(b, "receiver", &b->webhook.receiver, err);
        } else if (sv_eq(name, SV("groupKey"))) {
            status = scan_body_text(b, "groupKey", &b->webhook.group_key, err);
        } else if (sv_eq(name, SV("truncatedAlerts"))) {
            scan_truncated(b);
        } else {
            (void)json_scan_value(s, NULL);
        }
    }
    if (status == STATUS_OK) (void)json_scan_end(s);
    return status;
}

static enum status broken_json(const struct body *b, struct error *err)
{
    size_t line, column;
    json_scan_position(&b->scan, b->scan.at, &line, &column);
    if (b->is_in_alerts)
        return error_set(err, STATUS_INVALID_ARGUMENT, "JSON: %s at line %zu column %zu, in alerts[%zu]",
                         b->scan.problem, line, column, b->webhook.n_alerts);
    return error_set(err, STATUS_INVALID_ARGUMENT, "JSON: %s at line %zu column %zu", b->scan.problem, line,
                     column);
}

/* Alertmanager sends the receiver's name through Go's regexp.QuoteMeta. */
static struct strview unquote_receiver(struct arena *a, struct strview quoted_name)
{
    if (sv_find(quoted_name, '\\') == quoted_name.len) return quoted_name;
    char *name = arena_alloc(a, quoted_name.len);
    size_t n = 0;
    for (size_t i = 0; i < quoted_name.len; i++) {
        bool is_escape = quoted_name.ptr[i] == '\\' && i + 1 < quoted_name.len &&
                         strchr("\\.+*?()|[]{}^$", quoted_name.ptr[i + 1]) != NULL;
        name[n++] = quoted_name.ptr[is_escape ? ++i : i];
    }
    return sv_n(name, n);
}

static struct strview bounded_group_key(struct arena *a, struct strview group_key)
{
    if (group_key.len <= WEBHOOK_GROUP_KEY_BYTES_MAX) return group_key;
    char hex[SHA256_HEX + 1];
    sha256_hex(group_key, hex);
    return arena_printf(a, "sha256:%s", hex);
}

static enum status check_body(struct body *b, struct error *err)
{
    struct webhook *w = &b->webhook;
    if (!b->has_version)
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "\"version\" is missing: this is no webhook of Alertmanager or Grafana");
    if (sv_eq(b->version, SV("4")))
        w->source = WEBHOOK_ALERTMANAGER;
    else if (sv_eq(b->version, SV("1")))
        w->source = WEBHOOK_GRAFANA;
    else
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "\"version\" is \"%.*s\", only Alertmanager's \"4\" and Grafana's \"1\" are taken",
                         quoted(b->version), b->version.ptr);
    if (!b->has_alerts) return error_set(err, STATUS_INVALID_ARGUMENT, "\"alerts\" is missing");
    if (w->n_alerts == 0) return error_set(err, STATUS_INVALID_ARGUMENT, "\"alerts\" is empty");
    if (w->receiver.len > WEBHOOK_RECEIVER_BYTES_MAX)
        return error_set(err, STATUS_INVALID_ARGUMENT, "\"receiver\" has %zu bytes, at most %d are taken",
                         w->receiver.len, WEBHOOK_RECEIVER_BYTES_MAX);
    return STATUS_OK;
}

enum status webhook_decode(struct strview body, struct arena *a, struct webhook *ret_webhook,
                           struct error *err)
{
    struct body b = {0};
    json_scan_init(&b.scan, body, a);
    enum status status = scan_body(&b, err);
    if (status == STATUS_OK && json_scan_failed(&b.scan)) status = broken_json(&b, err);
    if (status == STATUS_OK) status = check_body(&b, err);
    if (status != STATUS_OK) return status;
    b.webhook.receiver = unquote_receiver(a, b.webhook.receiver);
    b.webhook.group_key = bounded_group_key(a, b.webhook.group_key);
    *ret_webhook = b.webhook;
    return STATUS_OK;
}
