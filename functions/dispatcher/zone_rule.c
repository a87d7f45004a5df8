#include "functions/dispatcher/zone_impl.h"

#include "base/clock.h"
#include "base/list.h"

#define HOUR_S 3600

/* ---- POSIX TZ (IEEE 1003.1 §8.3) as a footer has it (RFC 8536 §3.3.1): offsets and times up to 167 h ----
 */

static bool take_char(struct strview *rest, char c)
{
    if (rest->len == 0 || rest->ptr[0] != c) return false;
    *rest = sv_sub(*rest, 1, rest->len);
    return true;
}

static bool take_number(struct strview *rest, int64_t min, int64_t max, int64_t *ret_value)
{
    size_t n = 0;
    uint64_t value;
    while (n < rest->len && rest->ptr[n] >= '0' && rest->ptr[n] <= '9')
        n++;
    if (n > 3 || sv_parse_u64(sv_sub(*rest, 0, n), &value) != STATUS_OK) return false;
    *rest = sv_sub(*rest, n, rest->len);
    *ret_value = (int64_t)value;
    return *ret_value >= min && *ret_value <= max;
}

/* [+-]hh[:mm[:ss]] */
static bool take_time(struct strview *rest, int64_t max_hours, int64_t *ret_s)
{
    int64_t hours, minutes = 0, seconds = 0;
    bool is_negative = take_char(rest, '-');
    if (!is_negative) (void)take_char(rest, '+');
    if (!take_number(rest, 0, max_hours, &hours)) return false;
    if (take_char(rest, ':') && !take_number(rest, 0, 59, &minutes)) return false;
    if (take_char(rest, ':') && !take_number(rest, 0, 59, &seconds)) return false;
    *ret_s = hours * HOUR_S + minutes * 60 + seconds;
    if (is_negative) *ret_s = -*ret_s;
    return true;
}

/* "CET" or "<+0330>"; what it is called does not matter here. */
static bool skip_abbreviation(struct strview *rest)
{
    size_t n = 0;
    if (take_char(rest, '<')) {
        n = sv_find(*rest, '>');
        if (n == rest->len) return false;
        *rest = sv_sub(*rest, n + 1, rest->len);
        return n > 0;
    }
    while (n < rest->len && ((rest->ptr[n] | 0x20) >= 'a' && (rest->ptr[n] | 0x20) <= 'z'))
        n++;
    *rest = sv_sub(*rest, n, rest->len);
    return n >= 3;
}

static bool take_day(struct strview *rest, struct zone_day *ret_day)
{
    struct zone_day day = {.time_s = 2 * HOUR_S};
    bool is_good;
    if (take_char(rest, 'M')) {
        day.kind = ZONE_DAY_OF_WEEK;
        is_good = take_number(rest, 1, 12, &day.month) && take_char(rest, '.') &&
                  take_number(rest, 1, 5, &day.week) && take_char(rest, '.') &&
                  take_number(rest, 0, 6, &day.day);
    } else if (take_char(rest, 'J')) {
        day.kind = ZONE_DAY_JULIAN;
        is_good = take_number(rest, 1, 365, &day.day);
    } else {
        day.kind = ZONE_DAY_OF_YEAR;
        is_good = take_number(rest, 0, 365, &day.day);
    }
    if (is_good && take_char(rest, '/')) is_good = take_time(rest, 167, &day.time_s);
    *ret_day = day;
    return is_good;
}

/* An offset is written the other way round: what has to be added to local time to get UTC. */
static bool take_offset(struct strview *rest, int32_t *ret_offset_s)
{
    int64_t west_s;
    if (!take_time(rest, 24, &west_s)) return false;
    *ret_offset_s = (int32_t)-west_s;
    return true;
}

static bool take_rule(struct strview *rest, struct zone *z)
{
    if (!skip_abbreviation(rest) || !take_offset(rest, &z->standard_s)) return false;
    z->has_summer = rest->len > 0;
    if (!z->has_summer) return true;
    z->summer_s = z->standard_s + HOUR_S;
    if (!skip_abbreviation(rest)) return false;
    if (rest->len > 0 && rest->ptr[0] != ',' && !take_offset(rest, &z->summer_s)) return false;
    return take_char(rest, ',') && take_day(rest, &z->begin) && take_char(rest, ',') &&
           take_day(rest, &z->end);
}

enum status zone_rule_parse(struct strview text, struct zone *z, struct error *err)
{
    struct strview rest = text;
    if (take_rule(&rest, z) && rest.len == 0) {
        z->has_rule = true;
        return STATUS_OK;
    }
    return error_set(err, STATUS_INVALID_ARGUMENT, "the rule '%.*s' cannot be read",
                     SV_ARG(sv_sub(text, 0, 100)));
}

/* ---- the rule applied ---- */

static bool is_leap(int64_t year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

/* Days since 1970 of the rule's day in a year. */
static int64_t day_in(const struct zone_day *day, int64_t year)
{
    int64_t new_year = days_from_civil(year, 1, 1);
    if (day->kind == ZONE_DAY_OF_YEAR) return new_year + day->day;
    if (day->kind == ZONE_DAY_JULIAN) /* 29 February is never counted */
        return new_year + day->day - 1 + (day->day >= 60 && is_leap(year) ? 1 : 0);
    int64_t first = days_from_civil(year, (unsigned)day->month, 1);
    int64_t next = day->month == 12 ? days_from_civil(year + 1, 1, 1)
                                    : days_from_civil(year, (unsigned)day->month + 1, 1);
    int64_t weekday = ((first + 4) % 7 + 7) % 7; /* 1970-01-01 was a Thursday */
    int64_t found = first + (day->day - weekday + 7) % 7 + 7 * (day->week - 1);
    return found >= next ? found - 7 : found; /* the fifth is the last */
}

/* Both changes of a year, in order. */
static void changes_in(const struct zone *z, int64_t year, struct zone_transition ret_changes[2])
{
    struct zone_transition begin = {
        day_in(&z->begin, year) * SECONDS_PER_DAY + z->begin.time_s - z->standard_s, z->summer_s};
    struct zone_transition end = {day_in(&z->end, year) * SECONDS_PER_DAY + z->end.time_s - z->summer_s,
                                  z->standard_s};
    bool is_begin_first = begin.at_s < end.at_s;
    ret_changes[0] = is_begin_first ? begin : end;
    ret_changes[1] = is_begin_first ? end : begin;
}

/* Few and nearly in order. Stable: summer time all year ends and begins again at one instant. */
static void sort_changes(struct zone_transition *list, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        struct zone_transition moved = list[i];
        size_t at = i;
        for (; at > 0 && list[at - 1].at_s > moved.at_s; at--)
            list[at] = list[at - 1];
        list[at] = moved;
    }
}

struct zone_span zone_rule_span(const struct zone *z, int64_t unix_s)
{
    struct zone_span span = {INT64_MIN, INT64_MAX, z->standard_s};
    if (!z->has_summer) return span;
    unsigned year, month, day;
    int64_t days = unix_s / SECONDS_PER_DAY - (unix_s % SECONDS_PER_DAY < 0 ? 1 : 0);
    civil_from_days(days, &year, &month, &day);
    /* A change may lie in the year before or after its own. The last one before early January may even be of
     * the year before the last, where its summer goes on into the next one's. */
    struct zone_transition changes[8];
    for (int i = 0; i < 4; i++)
        changes_in(z, (int64_t)year - 2 + i, &changes[2 * i]);
    sort_changes(changes, ARRAY_LEN(changes));
    for (size_t i = 0; i < ARRAY_LEN(changes); i++) {
        if (changes[i].at_s > unix_s) {
            span.end_s = changes[i].at_s;
            break;
        }
        span.begin_s = changes[i].at_s;
        span.offset_s = changes[i].offset_s;
    }
    return span;
}
