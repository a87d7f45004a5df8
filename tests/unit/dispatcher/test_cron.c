#include "functions/dispatcher/cron.h"

#include <criterion/criterion.h>
#include <inttypes.h>

#include "base/clock.h"
#include "base/list.h"

static struct arena arena;
static struct error err;

static void tear_down(void)
{
    arena_release(&arena);
}

TestSuite(cron, .fini = tear_down, .timeout = 20);

static struct cron parse(const char *text)
{
    struct cron c = {0};
    cr_assert_eq(cron_parse(sv(text), &c, &err), STATUS_OK, "%s: %s", text, err.message);
    return c;
}

static int64_t at(const char *text)
{
    int64_t ns = 0;
    cr_assert_eq(rfc3339_parse(sv(text), &ns), STATUS_OK);
    return ns / NS_PER_S;
}

static const char *text_of(int64_t unix_s)
{
    char text[RFC3339_LEN + 1];
    rfc3339_format(unix_s * NS_PER_S, text);
    return arena_printf(&arena, "%.19sZ", text).ptr;
}

static struct zone zone(const char *name)
{
    struct zone z = {0};
    enum status s = zone_read(&arena, sv(name), &z, &err);
    if (s == STATUS_FAILED_PRECONDITION) cr_skip_test("%s", err.message);
    cr_assert_eq(s, STATUS_OK, "%s", err.message);
    return z;
}

/* The next times after `from`, one after the other, are these; a NULL ends them. */
static void expect(const char *expression, const char *zone_name, const char *from,
                   const char *const *expected)
{
    struct cron c = parse(expression);
    struct zone z = zone(zone_name);
    int64_t now_s = at(from);
    for (; *expected != NULL; expected++) {
        cr_assert(cron_next(&c, &z, now_s, &now_s));
        cr_assert_str_eq(text_of(now_s), *expected, "'%s' in %s", expression, zone_name);
    }
}

#define TIMES(...)                                                                                           \
    (const char *const[])                                                                                    \
    {                                                                                                        \
        __VA_ARGS__, NULL                                                                                    \
    }

Test(cron, five_fields)
{
    expect("*/20 * * * *", "UTC", "2026-01-01T00:00:00Z",
           TIMES("2026-01-01T00:20:00Z", "2026-01-01T00:40:00Z", "2026-01-01T01:00:00Z"));
    expect("5-7,50 23 31 12 *", "UTC", "2026-01-01T00:00:00Z",
           TIMES("2026-12-31T23:05:00Z", "2026-12-31T23:06:00Z", "2026-12-31T23:07:00Z",
                 "2026-12-31T23:50:00Z", "2027-12-31T23:05:00Z"));
    expect("0 0 29 feb *", "UTC", "2097-01-01T00:00:00Z", TIMES("2104-02-29T00:00:00Z"));
    expect("0 9 * * Mon-fri", "UTC", "2026-11-27T09:00:00Z",
           TIMES("2026-11-30T09:00:00Z", "2026-12-01T09:00:00Z"));
    expect("0 9 * * FRI-SUN", "UTC", "2026-11-26T09:00:00Z",
           TIMES("2026-11-27T09:00:00Z", "2026-11-28T09:00:00Z", "2026-11-29T09:00:00Z",
                 "2026-12-04T09:00:00Z"));
    expect("0 9 * * 7", "UTC", "2026-11-26T09:00:00Z", TIMES("2026-11-29T09:00:00Z", "2026-12-06T09:00:00Z"));
    expect("  0\t9  * * 0 ", "UTC", "2026-11-26T09:00:00Z", TIMES("2026-11-29T09:00:00Z"));
}

Test(cron, two_day_fields_are_either_unless_one_begins_with_a_star)
{
    expect("0 0 13 * FRI", "UTC", "2026-02-01T00:00:00Z",
           TIMES("2026-02-06T00:00:00Z", "2026-02-13T00:00:00Z", "2026-02-20T00:00:00Z",
                 "2026-02-27T00:00:00Z", "2026-03-06T00:00:00Z", "2026-03-13T00:00:00Z"));
    expect("0 0 14 * FRI", "UTC", "2026-02-12T00:00:00Z",
           TIMES("2026-02-13T00:00:00Z", "2026-02-14T00:00:00Z"));
    expect("0 0 */2 * MON", "UTC", "2026-02-01T00:00:00Z",
           TIMES("2026-02-09T00:00:00Z", "2026-02-23T00:00:00Z"));
}

Test(cron, words_and_intervals)
{
    expect("@hourly", "UTC", "2026-01-01T00:30:00Z", TIMES("2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z"));
    expect("@daily", "UTC", "2026-01-01T00:30:00Z", TIMES("2026-01-02T00:00:00Z"));
    expect("@midnight", "UTC", "2026-01-01T00:30:00Z", TIMES("2026-01-02T00:00:00Z"));
    expect("@weekly", "UTC", "2026-11-26T00:00:00Z", TIMES("2026-11-29T00:00:00Z"));
    expect("@monthly", "UTC", "2026-11-26T00:00:00Z", TIMES("2026-12-01T00:00:00Z"));
    expect("@yearly", "UTC", "2026-11-26T00:00:00Z", TIMES("2027-01-01T00:00:00Z"));
    expect("@annually", "UTC", "2026-11-26T00:00:00Z", TIMES("2027-01-01T00:00:00Z"));
    expect("@every 90s", "UTC", "1970-01-01T00:00:01Z",
           TIMES("1970-01-01T00:01:30Z", "1970-01-01T00:03:00Z"));
    expect("@every 1s", "UTC", "2026-11-26T00:00:00Z", TIMES("2026-11-26T00:00:01Z", "2026-11-26T00:00:02Z"));
    expect("@every 6h", "Europe/Berlin", "2026-11-26T00:00:00Z", TIMES("2026-11-26T06:00:00Z"));
}

Test(cron, a_time_in_the_skipped_hour_comes_once_at_its_end)
{
    expect("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z",
           TIMES("2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"));
    expect("0,15,30 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z",
           TIMES("2026-03-29T01:00:00Z", "2026-03-29T01:15:00Z", "2026-03-29T01:30:00Z",
                 "2026-03-30T00:00:00Z"));
    expect("0 0 30 12 *", "Pacific/Apia", "2011-01-01T00:00:00Z", /* there was no 30 December 2011 */
           TIMES("2011-12-30T10:00:00Z", "2012-12-29T10:00:00Z"));
}

Test(cron, a_time_in_the_repeated_hour_comes_the_first_time_only)
{
    expect("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z",
           TIMES("2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"));
    expect("30 2 * * *", "Europe/Berlin", "2026-10-25T00:45:00Z", /* while it is shown again */
           TIMES("2026-10-26T01:30:00Z"));
    expect("30 1 * * *", "America/New_York", "2026-11-01T00:00:00Z",
           TIMES("2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"));
    expect("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00:00Z", /* half an hour is repeated */
           TIMES("2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"));
}

Test(cron, every_hour_means_every_hour_that_passes)
{
    expect("30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z",
           TIMES("2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z", "2026-03-29T02:30:00Z"));
    expect("30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z",
           TIMES("2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"));
}

Test(cron, the_last_time_of_a_stretch)
{
    struct cron c = parse("*/10 * * * *");
    struct zone utc = {0};
    int64_t found_s = 0, noon_s = at("2026-01-01T12:00:00Z");
    cr_assert(cron_last(&c, &utc, noon_s, noon_s + 3600, &found_s));
    cr_assert_eq(found_s, noon_s + 3600);
    cr_assert(cron_last(&c, &utc, noon_s, noon_s + 3599, &found_s));
    cr_assert_eq(found_s, noon_s + 3000);
    cr_assert_not(cron_last(&c, &utc, noon_s, noon_s + 599, &found_s));
}

Test(cron, ends_where_nothing_comes)
{
    struct cron c = parse("* * * * *");
    struct zone utc = {0};
    int64_t found_s;
    cr_assert_not(cron_next(&c, &utc, INT64_MAX, &found_s));
    cr_assert_not(cron_next(&c, &utc, INT64_MIN, &found_s));
    cr_assert_not(cron_next(&c, &utc, at("2199-12-31T23:59:00Z"), &found_s));
}

Test(cron, says_what_is_wrong)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "0 fields; cron has 5"},
        {"* * * *", "4 fields"},
        {"* * * * * *", "6 fields"},
        {"60 * * * *", "minute '60': '60' is no number from 0 to 59"},
        {"* 24 * * *", "hour '24'"},
        {"* * 0 * *", "day of month '0'"},
        {"* * 32 * *", "day of month '32'"},
        {"* * * 13 *", "month '13'"},
        {"* * * * 8", "weekday '8'"},
        {"* * * JAM *", "did you mean 'JAN'?"},
        {"* * * * MON-FRY", "did you mean 'FRI'?"},
        {"-1 * * * *", "minute"},
        {"1- * * * *", "minute"},
        {"5-1 * * * *", "ends before it begins"},
        {"1,,2 * * * *", "comma"},
        {"1, * * * *", "comma"},
        {"*/0 * * * *", "a step is a number from 1 on"},
        {"*/x * * * *", "a step is a number from 1 on"},
        {"*/60 * * * *", "leaves only one value"},
        {"5/10 * * * *", "needs a range"},
        {"** * * * *", "minute '**'"},
        {"0 0 ? * MON", "Quartz"},
        {"0 0 * * 5#3", "Quartz"},
        {"0 0 L * *", "day of month 'L'"},
        {"0 0 30 2 *", "day of month '30' never comes in month '2'"},
        {"0 0 31 FEB,APR,JUN,SEP,NOV *", "never comes"},
        {"@dayly", "did you mean '@daily'?"},
        {"@reboot", "no time"},
        {"@daily 5", "too many words"},
        {"@every", "whole seconds"},
        {"@every 0s", "whole seconds"},
        {"@every 1500ms", "whole seconds"},
        {"@every 9000h", "whole seconds"},
        {"@every 5m 5m", "too many words"},
        {"TZ=UTC 0 0 * * *", "as time_zone beside it"},
        {"CRON_TZ=UTC 0 0 * *", "as time_zone beside it"},
        {"0 0 * * *\n", "control characters"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct cron c;
        cr_assert_eq(cron_parse(sv(cases[i].text), &c, &err), STATUS_INVALID_ARGUMENT, "%s", cases[i].text);
        cr_assert(sv_contains(sv(err.message), sv(cases[i].says)), "%s: %s", cases[i].text, err.message);
    }
}
