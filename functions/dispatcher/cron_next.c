#include "base/clock.h"
#include "functions/dispatcher/cron_impl.h"

#define HORIZON_S (60 * 366 * SECONDS_PER_DAY)

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0 ? 1 : 0);
}

/* ---- on a clock without a zone ---- */

static bool day_fits(const struct cron *c, int64_t days, unsigned day)
{
    bool fits_day = (c->days >> day & 1) != 0;
    bool fits_weekday = (c->weekdays >> ((days + 4) % 7 + 7) % 7 & 1) != 0; /* 1970-01-01 was a Thursday */
    if (c->day_is_star || c->weekday_is_star) return fits_day && fits_weekday;
    return fits_day || fits_weekday;
}

/* The first minute of a day, from `minute` on, that fits; false: none is left. */
static bool find_minute(const struct cron *c, int64_t minute, int64_t *ret_minute)
{
    for (int64_t hour = minute / 60; hour < 24; hour++) {
        int64_t first = hour * 60 > minute ? 0 : minute % 60;
        uint64_t left = (c->hours >> hour & 1) != 0 ? c->minutes >> first : 0;
        if (left == 0) continue;
        *ret_minute = hour * 60 + first + __builtin_ctzll(left);
        return true;
    }
    return false;
}

bool cron_find(const struct cron *c, int64_t from_s, int64_t until_s, int64_t *ret_s)
{
    int64_t days = floor_div(from_s, SECONDS_PER_DAY), minute = (from_s - days * SECONDS_PER_DAY + 59) / 60;
    while (days * SECONDS_PER_DAY < until_s) {
        unsigned year, month, day;
        civil_from_days(days, &year, &month, &day);
        if ((c->months >> month & 1) == 0) {
            days = month == 12 ? days_from_civil(year + 1, 1, 1) : days_from_civil(year, month + 1, 1);
        } else if (day_fits(c, days, day) && find_minute(c, minute, &minute)) {
            *ret_s = days * SECONDS_PER_DAY + minute * 60;
            return *ret_s < until_s;
        } else {
            days++;
        }
        minute = 0;
    }
    return false;
}

/* ---- in a zone ---- */

/* In one span from from_s on, where the clock showed `before_s` more or less until the span began. */
static bool find_in_span(const struct cron *c, const struct zone_span *span, int64_t before_s, int64_t from_s,
                         int64_t until_s, int64_t *ret_s)
{
    int64_t local_s = from_s + span->offset_s, seen_until_s = span->begin_s + before_s, found_s;
    if (!c->hour_is_star && before_s < span->offset_s && from_s == span->begin_s &&
        cron_find(c, seen_until_s, local_s, &found_s)) {
        *ret_s = from_s; /* the clock leapt over it */
        return true;
    }
    if (!c->hour_is_star && before_s > span->offset_s && local_s < seen_until_s)
        local_s = seen_until_s; /* the clock shows this hour again */
    if (!cron_find(c, local_s, until_s + span->offset_s, &found_s)) return false;
    *ret_s = found_s - span->offset_s;
    return true;
}

bool cron_next(const struct cron *c, const struct zone *z, int64_t after_s, int64_t *ret_s)
{
    int64_t end_s = days_from_civil(2200, 1, 1) * SECONDS_PER_DAY;
    if (after_s < -end_s || after_s >= end_s) return false;
    if (c->every_s > 0) {
        *ret_s = (floor_div(after_s, c->every_s) + 1) * c->every_s;
        return true;
    }
    if (end_s - after_s > HORIZON_S) end_s = after_s + HORIZON_S;
    for (int64_t from_s = after_s + 1; from_s < end_s;) {
        struct zone_span span = zone_span_at(z, from_s);
        bool is_first = span.begin_s == INT64_MIN;
        int64_t before_s = is_first ? span.offset_s : zone_span_at(z, span.begin_s - 1).offset_s;
        int64_t until_s = span.end_s < end_s ? span.end_s : end_s;
        if (is_first) span.begin_s = from_s - SECONDS_PER_DAY; /* any time before */
        if (find_in_span(c, &span, before_s, from_s, until_s, ret_s)) return true;
        from_s = span.end_s;
    }
    return false;
}

bool cron_last(const struct cron *c, const struct zone *z, int64_t after_s, int64_t until_s, int64_t *ret_s)
{
    bool is_found = false;
    for (int64_t at_s = after_s; cron_next(c, z, at_s, &at_s) && at_s <= until_s; is_found = true)
        *ret_s = at_s;
    return is_found;
}
