#include "functions/audit/params.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#define HOUR_NS         (3600 * NS_PER_S)
#define LIMIT_DEFAULT   100
#define NUMBER_TEXT_MAX 64
#define FORM_BYTES_MAX  (64 * 1024) /* decoded on the loop; what it may ask for fits many times */

/* ---- the form ---- */

/* '+' is a space in a form. */
static enum status decode(struct arena *a, struct strview raw, struct strview *ret_text)
{
    char *spaced = arena_cstr(a, raw);
    for (size_t i = 0; i < raw.len; i++)
        if (spaced[i] == '+') spaced[i] = ' ';
    return http_percent_decode(a, sv_n(spaced, raw.len), ret_text);
}

static enum status add_form(struct params *p, struct arena *a, struct strview form, struct error *err)
{
    struct strview pair;
    while (form.len > 0 && sv_next(&form, '&', &pair)) {
        if (pair.len == 0) continue;
        if (p->n == PARAMS_MAX)
            return error_set(err, STATUS_RESOURCE_EXHAUSTED, "more than %d parameters", PARAMS_MAX);
        size_t name_len = sv_find(pair, '=');
        if (decode(a, sv_sub(pair, 0, name_len), &p->items[p->n].name) != STATUS_OK ||
            decode(a, sv_sub(pair, name_len + 1, pair.len), &p->items[p->n].value) != STATUS_OK)
            return error_set(err, STATUS_INVALID_ARGUMENT, "invalid URL escape in '%.*s'",
                             SV_ARG(sv_sub(pair, 0, 100)));
        p->n++;
    }
    return STATUS_OK;
}

enum status params_read(const struct http_req *req, struct params *ret_params, struct error *err)
{
    ret_params->n = 0;
    struct strview type = http_req_header(req, SV("content-type"));
    type = sv_trim(sv_sub(type, 0, sv_find(type, ';')));
    /* Go's r.Form: what the body says comes before the query string. */
    if (sv_eq(req->method, SV("POST")) && sv_eq_nocase(type, SV("application/x-www-form-urlencoded"))) {
        if (req->body.len > FORM_BYTES_MAX)
            return error_set(err, STATUS_RESOURCE_EXHAUSTED, "the form is longer than %d bytes",
                             FORM_BYTES_MAX);
        enum status s = add_form(ret_params, req->arena, req->body, err);
        if (s != STATUS_OK) return s;
    }
    return add_form(ret_params, req->arena, req->query, err);
}

struct strview params_get(const struct params *p, struct strview name)
{
    for (size_t i = 0; i < p->n; i++)
        if (sv_eq(p->items[i].name, name)) return p->items[i].value;
    return SV("");
}

/* ---- times ---- */

static bool parse_double(struct strview text, double *ret_value)
{
    char copy[NUMBER_TEXT_MAX], *end = NULL;
    if (text.len == 0 || text.len >= sizeof(copy) ||
        (text.ptr[0] != '-' && text.ptr[0] != '.' && (text.ptr[0] < '0' || text.ptr[0] > '9')))
        return false;
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    *ret_value = strtod(copy, &end);
    return end == copy + text.len && isfinite(*ret_value);
}

#define SECONDS_MAX 9.2e9 /* what 64 bits of nanoseconds hold, about */

enum status params_time(struct strview text, int64_t otherwise, int64_t *ret_ns)
{
    double seconds = 0;
    int64_t whole = 0;
    if (text.len == 0) {
        *ret_ns = otherwise;
        return STATUS_OK;
    }
    if (sv_find(text, '.') < text.len && parse_double(text, &seconds)) {
        if (seconds >= SECONDS_MAX || seconds <= -SECONDS_MAX) {
            *ret_ns = seconds > 0 ? INT64_MAX : INT64_MIN;
            return STATUS_OK;
        }
        double milliseconds =
            (seconds - (double)(int64_t)seconds) * 1000; /* Loki keeps no more of the fraction */
        *ret_ns =
            (int64_t)seconds * NS_PER_S + (int64_t)(milliseconds + (seconds < 0 ? -0.5 : 0.5)) * NS_PER_MS;
        return STATUS_OK;
    }
    if (sv_parse_i64(text, &whole) == STATUS_OK) {
        if (text.len > 10)
            *ret_ns = whole;
        else if (__builtin_mul_overflow(whole, NS_PER_S, ret_ns))
            *ret_ns = whole > 0 ? INT64_MAX : INT64_MIN;
        return STATUS_OK;
    }
    enum status s = rfc3339_parse(text, ret_ns);
    if (s == STATUS_OK && *ret_ns == 0 && sv_cmp(sv_sub(text, 0, 4), SV("2261")) > 0)
        *ret_ns = INT64_MAX; /* beyond 64 bits */
    return s;
}

/* Go's durations and Prometheus's days, weeks and years. */
static enum status parse_duration(struct strview text, int64_t *ret_ns)
{
    static const struct {
        char unit;
        int64_t hours;
    } units[] = {{'d', 24}, {'w', 7 * 24}, {'y', 365 * 24}};
    if (duration_parse(text, ret_ns) == STATUS_OK) return STATUS_OK;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        uint64_t n = 0;
        if (text.len < 2 || text.ptr[text.len - 1] != units[i].unit) continue;
        if (sv_parse_u64(sv_sub(text, 0, text.len - 1), &n) != STATUS_OK || n > 200 * 365)
            return STATUS_INVALID_ARGUMENT;
        return __builtin_mul_overflow((int64_t)n, units[i].hours * HOUR_NS, ret_ns) ? STATUS_INVALID_ARGUMENT
                                                                                    : STATUS_OK;
    }
    return STATUS_INVALID_ARGUMENT;
}

static enum status bad(struct error *err, const char *name, struct strview value)
{
    return error_set(err, STATUS_INVALID_ARGUMENT, "could not parse '%s' parameter: '%.*s'", name,
                     SV_ARG(sv_sub(value, 0, 100)));
}

enum status params_range(const struct params *p, int64_t now_ns, struct time_range *ret_range,
                         struct error *err)
{
    struct time_range range;
    int64_t since_ns = HOUR_NS;
    struct strview start = params_get(p, SV("start")), end = params_get(p, SV("end")),
                   since = params_get(p, SV("since"));
    if (since.len > 0 && parse_duration(since, &since_ns) != STATUS_OK) return bad(err, "since", since);
    if (params_time(end, now_ns, &range.end_ns) != STATUS_OK) return bad(err, "end", end);
    int64_t end_or_now = range.end_ns < now_ns ? range.end_ns : now_ns;
    if (__builtin_sub_overflow(end_or_now, since_ns, &range.start_ns)) range.start_ns = INT64_MIN;
    if (params_time(start, range.start_ns, &range.start_ns) != STATUS_OK) return bad(err, "start", start);
    *ret_range = range;
    return STATUS_OK;
}

/* ---- query_range ---- */

static enum status read_limit(const struct params *p, size_t *ret_limit, struct error *err)
{
    int64_t limit = LIMIT_DEFAULT;
    struct strview text = params_get(p, SV("limit"));
    if (text.len > 0 && sv_parse_i64(text, &limit) != STATUS_OK) return bad(err, "limit", text);
    if (limit <= 0) return error_set(err, STATUS_INVALID_ARGUMENT, "limit must be a positive value");
    if (limit > QUERY_LIMIT_MAX)
        return error_set(
            err, STATUS_INVALID_ARGUMENT,
            "max entries limit per query exceeded, limit > max_entries_limit_per_query (%lld > %d)",
            (long long)limit, QUERY_LIMIT_MAX);
    *ret_limit = (size_t)limit;
    return STATUS_OK;
}

static enum status read_direction(const struct params *p, bool *ret_is_forward, struct error *err)
{
    struct strview text = params_get(p, SV("direction"));
    *ret_is_forward = sv_eq_nocase(text, SV("forward"));
    if (text.len == 0 || *ret_is_forward || sv_eq_nocase(text, SV("backward"))) return STATUS_OK;
    return error_set(err, STATUS_INVALID_ARGUMENT, "invalid direction '%.*s'", SV_ARG(sv_sub(text, 0, 100)));
}

/* Seconds as a number, or a duration. */
static bool read_step(struct strview text, double *ret_seconds)
{
    int64_t ns = 0;
    if (parse_double(text, ret_seconds)) return true;
    if (parse_duration(text, &ns) != STATUS_OK) return false;
    *ret_seconds = (double)ns / 1e9;
    return true;
}

static enum status check_steps(const struct params *p, struct time_range range, struct error *err)
{
    struct strview step = params_get(p, SV("step")), interval = params_get(p, SV("interval"));
    double seconds = 0;
    if (interval.len > 0) {
        if (!read_step(interval, &seconds)) return bad(err, "interval", interval);
        if (seconds < 0) return error_set(err, STATUS_INVALID_ARGUMENT, "interval must be >= 0");
    }
    if (step.len == 0) return STATUS_OK;
    if (!read_step(step, &seconds)) return bad(err, "step", step);
    if (seconds <= 0)
        return error_set(
            err, STATUS_INVALID_ARGUMENT,
            "zero or negative query resolution step widths are not accepted. Try a positive integer");
    if (((double)range.end_ns - (double)range.start_ns) / 1e9 / seconds > QUERY_POINTS_MAX)
        return error_set(
            err, STATUS_INVALID_ARGUMENT,
            "exceeded maximum resolution of 11,000 points per time series. Try increasing the value of the step parameter");
    return STATUS_OK;
}

enum status params_query_range(const struct params *p, int64_t now_ns, struct range_params *ret_params,
                               struct error *err)
{
    struct range_params r;
    enum status s = params_range(p, now_ns, &r.range, err);
    if (s == STATUS_OK && r.range.end_ns < r.range.start_ns)
        s = error_set(err, STATUS_INVALID_ARGUMENT,
                      "end timestamp must not be before or equal to start time");
    if (s == STATUS_OK) s = read_limit(p, &r.limit, err);
    if (s == STATUS_OK) s = read_direction(p, &r.is_forward, err);
    if (s == STATUS_OK) s = check_steps(p, r.range, err);
    if (s == STATUS_OK) *ret_params = r;
    return s;
}
