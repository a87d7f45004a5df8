#include "functions/alerts/listing.h"

#include <string.h>

#include "base/clock.h"

/* ---- one alert: the members that the webhook does not have ---- */

struct extras {
    struct strview receiver; /* asked about */
    struct listed *listed;
    struct strview state, updated_at;
};

/* A string; anything else is passed over and leaves *ret_text alone. */
static bool scan_text(struct json_scan *s, struct strview *ret_text)
{
    return json_scan_peek(s) == '"' ? json_scan_string(s, ret_text) : json_scan_value(s, NULL);
}

/* The string member `wanted` of an object. */
static bool scan_text_in(struct json_scan *s, struct strview wanted, struct strview *ret_text)
{
    bool is_first = true;
    struct strview name;
    if (json_scan_peek(s) != '{') return json_scan_value(s, NULL);
    (void)json_scan_open(s, '{');
    while (json_scan_member(s, &is_first, &name)) {
        bool is_read = sv_eq(name, wanted) ? scan_text(s, ret_text) : json_scan_value(s, NULL);
        if (!is_read) return false;
    }
    return !json_scan_failed(s);
}

static bool scan_receivers(struct extras *x, struct json_scan *s)
{
    bool is_first = true;
    if (json_scan_peek(s) != '[') return json_scan_value(s, NULL);
    (void)json_scan_open(s, '[');
    while (json_scan_element(s, &is_first)) {
        struct strview name = {0};
        if (!scan_text_in(s, SV("name"), &name)) return false;
        if (name.len > 0 && sv_eq(name, x->receiver)) x->listed->is_ours = true;
    }
    return !json_scan_failed(s);
}

static bool on_member(void *arg, struct json_scan *s, struct strview name, bool *ret_is_taken)
{
    struct extras *x = arg;
    *ret_is_taken = true;
    if (sv_eq(name, SV("status"))) return scan_text_in(s, SV("state"), &x->state);
    if (sv_eq(name, SV("receivers"))) return scan_receivers(x, s);
    if (sv_eq(name, SV("updatedAt"))) return scan_text(s, &x->updated_at);
    *ret_is_taken = false;
    return true;
}

static bool scan_listed(struct json_scan *s, size_t index, struct strview receiver, struct listed *ret_listed)
{
    *ret_listed = (struct listed){.is_active = false};
    struct extras x = {.receiver = receiver, .listed = ret_listed};
    const struct webhook_form form = {.other = on_member, .arg = &x, .may_lack_status = true};
    if (!webhook_scan_alert(s, index, &form, &ret_listed->alert)) return false;
    ret_listed->is_active = sv_eq(x.state, SV("active"));
    if (rfc3339_parse(x.updated_at, &ret_listed->updated_at_ns) != STATUS_OK) ret_listed->updated_at_ns = 0;
    ret_listed->lapses_at_ns = ret_listed->alert.ends_at_ns;
    ret_listed->alert.ends_at_ns = 0; /* an expectation, not an end */
    return true;
}

/* ---- the list ---- */

static void make_room(struct listing *l, size_t *capacity, struct arena *a)
{
    if (l->n < *capacity) return;
    *capacity = *capacity ? *capacity * 2 : 16;
    struct listed *grown = arena_alloc(a, *capacity * sizeof(*grown));
    if (l->n > 0) memcpy(grown, l->alerts, l->n * sizeof(*grown));
    l->alerts = grown;
}

static enum status broken_json(const struct json_scan *s, struct error *err)
{
    size_t line, column;
    json_scan_position(s, s->at, &line, &column);
    return error_set(err, STATUS_INVALID_ARGUMENT, "JSON: %s at line %zu column %zu", s->problem, line,
                     column);
}

enum status listing_decode(struct strview body, struct strview receiver, struct arena *a,
                           struct listing *ret_listing, struct error *err)
{
    struct json_scan s;
    struct listing l = {0};
    size_t capacity = 0;
    bool is_first = true;
    json_scan_init(&s, body, a);
    if (json_scan_open(&s, '[')) {
        while (json_scan_element(&s, &is_first)) {
            if (l.n == LISTING_ALERTS_MAX)
                return error_set(err, STATUS_RESOURCE_EXHAUSTED, "more than %d alerts are listed",
                                 LISTING_ALERTS_MAX);
            make_room(&l, &capacity, a);
            if (!scan_listed(&s, l.n, receiver, &l.alerts[l.n])) break;
            l.n_rejected += l.alerts[l.n].alert.reason.len > 0;
            l.n++;
        }
    }
    if (!json_scan_end(&s)) return broken_json(&s, err);
    *ret_listing = l;
    return STATUS_OK;
}

/* ---- the status ---- */

/* Rather once too often than not: a comment that names them counts, too. */
static bool names_time_intervals(struct strview config)
{
    return sv_contains(config, SV("mute_time_intervals")) || sv_contains(config, SV("active_time_intervals"));
}

enum status listing_decode_status(struct strview body, struct arena *a, struct listing_status *ret_status,
                                  struct error *err)
{
    struct json_scan s;
    struct listing_status status = {0};
    struct strview name, started = {0}, config = {0};
    bool is_first = true, is_read = true;
    json_scan_init(&s, body, a);
    if (json_scan_open(&s, '{')) {
        while (is_read && json_scan_member(&s, &is_first, &name)) {
            if (sv_eq(name, SV("uptime")))
                is_read = scan_text(&s, &started);
            else if (sv_eq(name, SV("config")))
                is_read = scan_text_in(&s, SV("original"), &config);
            else
                is_read = json_scan_value(&s, NULL);
        }
    }
    if (!json_scan_end(&s)) return broken_json(&s, err);
    if (rfc3339_parse(started, &status.started_unix_ns) != STATUS_OK || status.started_unix_ns == 0)
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "\"uptime\" is missing: this is no Alertmanager's status");
    status.has_time_intervals = names_time_intervals(config);
    *ret_status = status;
    return STATUS_OK;
}
