#include "store/record.h"

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json_scan.h"
#include "base/list.h"

enum field_type {
    FIELD_FORMAT, /* the constant RECORD_FORMAT; has no member */
    FIELD_KIND,   /* enum record_kind by its name */
    FIELD_TEXT,
    FIELD_TIME, /* int64_t nanoseconds; RFC 3339 with 9 digits */
    FIELD_U64,
    FIELD_I64,
    FIELD_BOOL,
    FIELD_LABELS, /* object of strings */
    FIELD_JSON,   /* view of canonical JSON, embedded as it is */
};

struct field {
    struct strview name;   /* "startsAt" */
    struct strview prefix; /* ",\"startsAt\":" */
    enum field_type type;
    size_t offset; /* in struct record */
    const char *help;
};

#define FIELD_AT(json_name, field_type, where, text)                                                         \
    {                                                                                                        \
        .name = {json_name, sizeof(json_name) - 1},                                                          \
        .prefix = {",\"" json_name "\":", sizeof(",\"" json_name "\":") - 1}, .type = (field_type),          \
        .offset = (where), .help = (text)                                                                    \
    }
#define FIELD(json_name, field_type, member, text)                                                           \
    FIELD_AT(json_name, field_type, offsetof(struct record, member), text)

/* In byte order of the names: that order is what makes the bytes canonical. */
static const struct field record_fields[] = {
    FIELD("actor", FIELD_TEXT, actor, "who did it: a person, or the process that takes the epoch"),
    FIELD("annotations", FIELD_LABELS, annotations, "the alert's annotations"),
    FIELD("attempt", FIELD_I64, attempt, "which attempt of the intent, from 1"),
    FIELD("bodyBase64", FIELD_TEXT, body_base64, "body of an asynchronous call"),
    FIELD("callback", FIELD_TEXT, callback, "where the answer of an asynchronous call goes"),
    FIELD("cause", FIELD_U64, cause, "sequence of the input that led here; absent in inputs"),
    FIELD("cluster", FIELD_TEXT, cluster, "cluster, \"local\" on one machine"),
    FIELD("code", FIELD_TEXT, code, "status code by name"),
    FIELD("content", FIELD_TEXT, content, "text of a runbook"),
    FIELD("deadline", FIELD_TIME, deadline_ns, "no attempt may change anything after it"),
    FIELD("detail", FIELD_JSON, detail, "what else belongs to the kind"),
    FIELD("due", FIELD_TIME, due_ns, "when a timer, retry or schedule is due"),
    FIELD("endsAt", FIELD_TIME, ends_at_ns, "end of the alert; absent while it fires"),
    FIELD("epoch", FIELD_U64, epoch, "number of the decider's reign"),
    FIELD("facts", FIELD_JSON, facts, "facts that the decision used"),
    FIELD("fingerprint", FIELD_TEXT, fingerprint, "of the alert's label set, as the sender gave it"),
    FIELD("fingerprintComputed", FIELD_TEXT, fingerprint_computed, "our own, only where it differs"),
    FIELD_AT("format", FIELD_FORMAT, 0, "format of these bytes, 1"),
    FIELD("function", FIELD_TEXT, function, "the function it is about"),
    FIELD("gate", FIELD_TEXT, gate, "the gate that refused"),
    FIELD("gates", FIELD_JSON, gates, "all gates with limit, value and result"),
    FIELD("generatorURL", FIELD_TEXT, generator_url, "the alert's link to its expression"),
    FIELD("groupKey", FIELD_TEXT, group_key, "Alertmanager's group"),
    FIELD("headers", FIELD_JSON, headers, "of an asynchronous call"),
    FIELD("how", FIELD_TEXT, how, "how it was verified: resolve, check, hold, timeout"),
    FIELD("incident", FIELD_TEXT, incident, "incident id"),
    FIELD("intent", FIELD_TEXT, intent, "intent id"),
    FIELD("kind", FIELD_KIND, kind, "what this record is"),
    FIELD("labels", FIELD_LABELS, labels, "the alert's labels"),
    FIELD("message", FIELD_TEXT, message, "one sentence for people"),
    FIELD("method", FIELD_TEXT, method, "of an asynchronous call"),
    FIELD("mode", FIELD_TEXT, mode, "off, shadow or act"),
    FIELD("ok", FIELD_BOOL, ok, "verified: the fault is gone"),
    FIELD("on", FIELD_BOOL, on, "freeze: stopped from here on"),
    FIELD("params", FIELD_JSON, params, "parameters of the act"),
    FIELD("path", FIELD_TEXT, path, "of an asynchronous call"),
    FIELD("purpose", FIELD_TEXT, purpose, "what a timer is for"),
    FIELD("reason", FIELD_TEXT, reason, "why, in one sentence"),
    FIELD("receiver", FIELD_TEXT, receiver, "Alertmanager's receiver"),
    FIELD("runbook", FIELD_TEXT, runbook, "name of the runbook"),
    FIELD("runbookHash", FIELD_TEXT, runbook_hash, "SHA-256 of its content"),
    FIELD("runbooks", FIELD_JSON, runbooks, "the active set: hash, mode, name"),
    FIELD("source", FIELD_TEXT, source, "who reported it"),
    FIELD("stages", FIELD_JSON, stages, "times of the stages so far"),
    FIELD("startsAt", FIELD_TIME, starts_at_ns, "when the alert began to fire"),
    FIELD("state", FIELD_TEXT, state, "how an intent or incident ended"),
    FIELD("status", FIELD_TEXT, status, "firing or resolved"),
    FIELD("step", FIELD_I64, step, "rung of the ladder, from 1"),
    FIELD("target", FIELD_TEXT, target, "what is acted on"),
    FIELD("tenant", FIELD_TEXT, tenant, "tenant, \"default\" where there is one"),
    FIELD("time", FIELD_TIME, time_ns, "of the record"),
    FIELD("timer", FIELD_U64, timer, "sequence of the timer's record"),
    FIELD("trace", FIELD_TEXT, trace, "W3C trace id"),
    FIELD("undo", FIELD_TEXT, undo, "how to take the act back"),
};

static const char *const kind_names[RECORD_KINDS] = {
    [RECORD_NONE] = "none",
    [RECORD_SIGNAL] = "signal",
    [RECORD_REJECTED] = "rejected",
    [RECORD_SEEN] = "seen",
    [RECORD_EXPIRED] = "expired",
    [RECORD_RUNBOOK] = "runbook",
    [RECORD_ACTIVATION] = "activation",
    [RECORD_EPOCH] = "epoch",
    [RECORD_FREEZE] = "freeze",
    [RECORD_INTENT] = "intent",
    [RECORD_REFUSAL] = "refusal",
    [RECORD_RETRY] = "retry",
    [RECORD_OUTCOME] = "outcome",
    [RECORD_TIMER] = "timer",
    [RECORD_FIRED] = "fired",
    [RECORD_VERIFIED] = "verified",
    [RECORD_ESCALATED] = "escalated",
    [RECORD_CLOSED] = "closed",
    [RECORD_CALL] = "call",
    [RECORD_CLOCK] = "clock",
    [RECORD_NOTE] = "note",
    [RECORD_CLOSE] = "close",
    [RECORD_UNSEALED] = "unsealed",
    [RECORD_CUT] = "cut",
    [RECORD_RESTORED] = "restored",
    [RECORD_TICK] = "tick",
};

const char *record_kind_name(enum record_kind kind)
{
    return (unsigned)kind < RECORD_KINDS ? kind_names[kind] : kind_names[RECORD_NONE];
}

enum record_kind record_kind_from_name(struct strview name)
{
    for (unsigned kind = RECORD_NONE + 1; kind < RECORD_KINDS; kind++)
        if (sv_eq(name, sv(kind_names[kind]))) return (enum record_kind)kind;
    return RECORD_NONE;
}

/* ---- encoding ---- */

static void append_labels(const struct record_labels *labels, struct buf *out)
{
    for (size_t i = 0; i < labels->n; i++) {
        buf_append_char(out, i == 0 ? '{' : ',');
        buf_append_json_string(out, labels->items[i].name);
        buf_append_char(out, ':');
        buf_append_json_string(out, labels->items[i].value);
    }
    buf_append_char(out, '}');
}

/* A time that could not be read back (rfc3339_parse) is as good as unset; no clock of ours ever shows one. */
#define TIME_MIN_NS (INT64_C(-9214560000) * NS_PER_S) /* 1678-01-01 */
#define TIME_END_NS (INT64_C(9214646400) * NS_PER_S)  /* 2262-01-01 */

static void append_time(const struct field *f, int64_t unix_ns, struct buf *out)
{
    if (unix_ns == 0 || unix_ns < TIME_MIN_NS || unix_ns >= TIME_END_NS) return;
    char text[1 + RFC3339_LEN + 1];
    text[0] = '"';
    rfc3339_format(unix_ns, text + 1);
    text[1 + RFC3339_LEN] = '"';
    buf_append(out, f->prefix);
    buf_append(out, sv_n(text, sizeof(text)));
}

static void append_field(const struct field *f, const void *member, struct buf *out)
{
    switch (f->type) {
    case FIELD_FORMAT:
        buf_append(out, f->prefix);
        buf_append_u64(out, RECORD_FORMAT);
        break;
    case FIELD_KIND:
        buf_append(out, f->prefix);
        buf_append_json_string(out, sv(record_kind_name(*(const enum record_kind *)member)));
        break;
    case FIELD_TEXT: {
        const struct strview *text = member;
        if (text->len == 0) break;
        buf_append(out, f->prefix);
        buf_append_json_string(out, *text);
        break;
    }
    case FIELD_TIME:
        append_time(f, *(const int64_t *)member, out);
        break;
    case FIELD_U64:
        if (*(const uint64_t *)member == 0) break;
        buf_append(out, f->prefix);
        buf_append_u64(out, *(const uint64_t *)member);
        break;
    case FIELD_I64:
        if (*(const int64_t *)member == 0) break;
        buf_append(out, f->prefix);
        buf_append_i64(out, *(const int64_t *)member);
        break;
    case FIELD_BOOL:
        if (!*(const bool *)member) break;
        buf_append(out, f->prefix);
        buf_append(out, SV("true"));
        break;
    case FIELD_LABELS:
        if (((const struct record_labels *)member)->n == 0) break;
        buf_append(out, f->prefix);
        append_labels(member, out);
        break;
    case FIELD_JSON: {
        const struct strview *json = member;
        if (json->len == 0) break;
        buf_append(out, f->prefix);
        buf_append(out, *json);
        break;
    }
    }
}

void record_encode(const struct record *r, struct buf *out)
{
    size_t start = out->len;
    for (size_t i = 0; i < ARRAY_LEN(record_fields); i++)
        append_field(&record_fields[i], (const char *)r + record_fields[i].offset, out);
    buf_append_char(out, '}');
    if (out->is_full)
        out->len = start;
    else
        out->ptr[start] = '{'; /* every prefix begins with a comma; the first one's place is the bracket's */
}

bool record_epoch_is_void(uint64_t epoch, uint64_t newest)
{
    return epoch < newest;
}

bool record_is_retried_anew(const struct record *r)
{
    return r->kind == RECORD_RETRY && sv_eq(r->state, SV("anew"));
}

bool record_is_exact(const struct record *r, struct strview bytes)
{
    struct buf again;
    buf_init(&again, bytes.len);
    record_encode(r, &again);
    bool is_exact = !again.is_full && sv_eq(buf_view(&again), bytes);
    buf_release(&again);
    return is_exact;
}

static void copy_labels(struct record_labels *labels, struct arena *a)
{
    struct http_header *items = arena_array(a, labels->n, sizeof(*items));
    for (size_t i = 0; i < labels->n; i++)
        items[i] =
            (struct http_header){arena_copy(a, labels->items[i].name), arena_copy(a, labels->items[i].value)};
    labels->items = items;
}

void record_copy(const struct record *r, struct arena *a, struct record *ret_copy)
{
    *ret_copy = *r;
    for (size_t i = 0; i < ARRAY_LEN(record_fields); i++) {
        const struct field *f = &record_fields[i];
        void *member = (char *)ret_copy + f->offset;
        if (f->type == FIELD_LABELS) {
            copy_labels(member, a);
        } else if (f->type == FIELD_TEXT || f->type == FIELD_JSON) {
            struct strview *text = member;
            if (text->len > 0) *text = arena_copy(a, *text);
        }
    }
}

/* ---- decoding ---- */

static int compare_field(const void *name, const void *field)
{
    return sv_cmp(*(const struct strview *)name, ((const struct field *)field)->name);
}

/* Members come in the table's order in everything we wrote: look forward from the last one, search only when
 * that misses. */
static const struct field *find_field(struct strview name, size_t *next)
{
    for (size_t i = *next; i < ARRAY_LEN(record_fields); i++) {
        if (!sv_eq(record_fields[i].name, name)) continue;
        *next = i + 1;
        return &record_fields[i];
    }
    return bsearch(&name, record_fields, ARRAY_LEN(record_fields), sizeof(record_fields[0]), compare_field);
}

static bool are_sorted(const struct http_header *items, size_t n)
{
    for (size_t i = 1; i < n; i++)
        if (sv_cmp(items[i - 1].name, items[i].name) >= 0) return false;
    return true;
}

static bool scan_labels(struct json_scan *s, struct record_labels *ret_labels)
{
    struct http_header items[RECORD_LABELS_MAX];
    size_t n = 0;
    bool is_first = true;
    struct strview name;
    if (!json_scan_open(s, '{')) return false;
    while (json_scan_member(s, &is_first, &name)) {
        if (n == RECORD_LABELS_MAX) return json_scan_fail(s, "too many labels");
        items[n].name = name;
        if (!json_scan_string(s, &items[n].value)) return false;
        n++;
    }
    if (json_scan_failed(s)) return false;
    if (!are_sorted(items, n)) record_labels_sort(items, &n);
    struct http_header *copy = arena_alloc(s->arena, n * sizeof(items[0]));
    memcpy(copy, items, n * sizeof(items[0]));
    *ret_labels = (struct record_labels){copy, n};
    return true;
}

static bool scan_time(struct json_scan *s, int64_t *ret_ns)
{
    struct strview text;
    if (!json_scan_string(s, &text)) return false;
    if (rfc3339_parse(text, ret_ns) != STATUS_OK) return json_scan_fail(s, "not a time in RFC 3339");
    return true;
}

static bool scan_u64(struct json_scan *s, uint64_t *ret_value)
{
    struct strview digits;
    if (!json_scan_integer(s, &digits)) return false;
    if (sv_parse_u64(digits, ret_value) != STATUS_OK) return json_scan_fail(s, "number out of range");
    return true;
}

static bool scan_i64(struct json_scan *s, int64_t *ret_value)
{
    struct strview digits;
    if (!json_scan_integer(s, &digits)) return false;
    if (sv_parse_i64(digits, ret_value) != STATUS_OK) return json_scan_fail(s, "number out of range");
    return true;
}

/* What is not a member but must be there, and what only a newer version could have written. */
struct decoding {
    uint64_t format;
    bool is_unknown_kind;
};

static bool scan_field(struct json_scan *s, const struct field *f, void *member, struct decoding *d)
{
    struct strview name;
    switch (f->type) {
    case FIELD_FORMAT:
        return scan_u64(s, &d->format);
    case FIELD_KIND:
        if (!json_scan_string(s, &name)) return false;
        *(enum record_kind *)member = record_kind_from_name(name);
        d->is_unknown_kind = *(enum record_kind *)member == RECORD_NONE;
        return true;
    case FIELD_TEXT:
        return json_scan_string(s, member);
    case FIELD_TIME:
        return scan_time(s, member);
    case FIELD_U64:
        return scan_u64(s, member);
    case FIELD_I64:
        return scan_i64(s, member);
    case FIELD_BOOL:
        return json_scan_bool(s, member);
    case FIELD_LABELS:
        return scan_labels(s, member);
    case FIELD_JSON:
        return json_scan_value(s, member);
    }
    assert(f->type <= FIELD_JSON);
    return false;
}

static bool scan_record(struct json_scan *s, struct record *r, struct decoding *d)
{
    size_t next = 0;
    bool is_first = true;
    struct strview name;
    if (!json_scan_open(s, '{')) return false;
    while (json_scan_member(s, &is_first, &name)) {
        const struct field *f = find_field(name, &next);
        bool is_read = f ? scan_field(s, f, (char *)r + f->offset, d) : json_scan_value(s, NULL);
        if (!is_read) return false;
    }
    return json_scan_end(s);
}

/* Of a record that did not decode: a newer format may have changed any member's type. 0: none found. */
static uint64_t find_format(struct strview bytes, struct arena *a)
{
    struct json_scan s;
    json_scan_init(&s, bytes, a);
    bool is_first = true;
    uint64_t format = 0;
    struct strview name;
    if (!json_scan_open(&s, '{')) return 0;
    while (json_scan_member(&s, &is_first, &name)) {
        bool is_read = sv_eq(name, SV("format")) ? scan_u64(&s, &format) : json_scan_value(&s, NULL);
        if (!is_read) return 0;
    }
    return format;
}

enum status record_decode(struct strview bytes, struct arena *a, struct record *ret_record, struct error *err)
{
    struct json_scan s;
    struct record r = {0};
    struct decoding d = {0};
    json_scan_init(&s, bytes, a);
    bool is_read = scan_record(&s, &r, &d);
    uint64_t format = is_read ? d.format : find_format(bytes, a);
    if (format > RECORD_FORMAT)
        return error_set(err, STATUS_FAILED_PRECONDITION,
                         "record of format %llu: this version reads up to %d, use a newer one",
                         (unsigned long long)format, RECORD_FORMAT);
    if (!is_read)
        return error_set(err, STATUS_INVALID_ARGUMENT, "not a record: %s at byte %zu", s.problem,
                         (size_t)(s.at - s.start));
    if (format == 0)
        return error_set(err, STATUS_INVALID_ARGUMENT, "not a record: \"format\" is missing or 0");
    if (r.time_ns == 0)
        return error_set(err, STATUS_INVALID_ARGUMENT, "not a record: \"time\" is missing or unset");
    if (d.is_unknown_kind)
        return error_set(err, STATUS_FAILED_PRECONDITION,
                         "record of a kind that this version does not know: use a newer one");
    if (r.kind == RECORD_NONE)
        return error_set(err, STATUS_INVALID_ARGUMENT, "not a record: \"kind\" is missing");
    *ret_record = r;
    return STATUS_OK;
}

/* ---- documentation ---- */

static const char *type_name(enum field_type type)
{
    switch (type) {
    case FIELD_FORMAT:
    case FIELD_U64:
    case FIELD_I64:
        return "integer";
    case FIELD_KIND:
    case FIELD_TEXT:
        return "string";
    case FIELD_TIME:
        return "time";
    case FIELD_BOOL:
        return "boolean";
    case FIELD_LABELS:
        return "object of strings";
    case FIELD_JSON:
        return "JSON";
    }
    return "";
}

void record_print_fields(struct buf *out)
{
    buf_append(out, SV("| member | type | meaning |\n|---|---|---|\n"));
    for (size_t i = 0; i < ARRAY_LEN(record_fields); i++) {
        const struct field *f = &record_fields[i];
        buf_printf(out, "| `%s` | %s | %s |\n", f->name.ptr, type_name(f->type), f->help);
    }
}
