#include <stdio.h>
#include <string.h>

#include "functions/dispatcher/runbook.h"

/* So many times of a schedule are held against its guardrails, from a fixed day on: more than the minutes of
 * the longest window, a year of hours. */
#define TIMES_CHECKED 10100

bool runbook_is_scheduled(const struct runbook *rb)
{
    return rb->schedule.text.len > 0;
}

struct record_labels runbook_tick_labels(const struct runbook *rb, struct arena *a)
{
    struct http_header *items = arena_array(a, 2, sizeof(*items));
    items[0] = (struct http_header){SV("alertname"), rb->name};
    items[1] = (struct http_header){SV("schedule"), rb->schedule.text};
    return (struct record_labels){items, 2};
}

struct record_labels runbook_tick_annotations(int64_t due_ns, struct arena *a)
{
    struct http_header *items = arena_array(a, 1, sizeof(*items));
    items[0] = (struct http_header){SV("time"), rfc3339_text(a, due_ns)};
    return (struct record_labels){items, 1};
}

static enum status refuse(const struct runbook *rb, unsigned line, unsigned column, struct error *err,
                          const char *what)
{
    struct strview name = rb->name; /* empty: that is a fault of its own */
    return error_set(err, STATUS_INVALID_ARGUMENT, "%.*s:%u:%u: %s%.*s%s%s", SV_ARG(rb->file), line, column,
                     name.len > 0 ? "runbook '" : "", SV_ARG(name), name.len > 0 ? "': " : "", what);
}

/* The closest that two of its times come, and the most that lie within rate.per; none are further apart than
 * TIMES_CHECKED times go. */
static void measure(const struct runbook *rb, int64_t *ret_closest_s, int64_t *ret_most)
{
    struct arena a = {0};
    int64_t *times_s = arena_array(&a, TIMES_CHECKED, sizeof(*times_s));
    int64_t at_s = days_from_civil(2024, 1, 1) * SECONDS_PER_DAY,
            per_s = rb->guardrails.rate_per_ns / NS_PER_S;
    size_t n = 0, oldest = 0;
    *ret_closest_s = INT64_MAX;
    *ret_most = 1;
    while (n < TIMES_CHECKED && cron_next(&rb->schedule.cron, &rb->schedule.zone, at_s, &at_s)) {
        times_s[n++] = at_s;
        while (times_s[n - 1] - times_s[oldest] >= per_s)
            oldest++;
        if ((int64_t)(n - oldest) > *ret_most) *ret_most = (int64_t)(n - oldest);
        if (n >= 2 && times_s[n - 1] - times_s[n - 2] < *ret_closest_s)
            *ret_closest_s = times_s[n - 1] - times_s[n - 2];
    }
    arena_release(&a);
}

static enum status check_guardrails(const struct runbook *rb, struct error *err)
{
    const struct runbook_guardrails *g = &rb->guardrails;
    const struct runbook_schedule *schedule = &rb->schedule;
    int64_t closest_s, most;
    char what[300], one[DURATION_TEXT_MAX], two[DURATION_TEXT_MAX];
    measure(rb, &closest_s, &most);
    if (closest_s < INT64_MAX / NS_PER_S && closest_s * NS_PER_S <= g->cooldown_ns) {
        (void)snprintf(
            what, sizeof(what),
            "its schedule comes as often as every %s, which guardrails.cooldown (%s) refuses: write a "
            "shorter one",
            duration_format(closest_s * NS_PER_S, one), duration_format(g->cooldown_ns, two));
        return refuse(rb, schedule->line, schedule->column, err, what);
    }
    if (most > g->rate_max && rb->n_steps > 0) {
        (void)snprintf(
            what, sizeof(what),
            "its schedule comes up to %lld times within %s, of which guardrails.rate refuses all but "
            "%lld: write a higher max or a shorter per",
            (long long)most, duration_format(g->rate_per_ns, one), (long long)g->rate_max);
        return refuse(rb, schedule->line, schedule->column, err, what);
    }
    return STATUS_OK;
}

enum status runbook_prepare_schedule(struct runbook *rb, struct error *err)
{
    struct runbook_schedule *schedule = &rb->schedule;
    struct error why;
    if (!runbook_is_scheduled(rb)) return STATUS_OK;
    if (zone_read(&rb->arena, schedule->time_zone, &schedule->zone, &why) != STATUS_OK)
        return refuse(rb, schedule->zone_line, schedule->zone_column, err, why.message);
    return check_guardrails(rb, err);
}
