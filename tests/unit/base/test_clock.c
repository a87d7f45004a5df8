#include "base/clock.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "base/arena.h"
#include "base/random.h"

static const struct vector {
    const char *text;
    int64_t ns;
} vectors[] = {
    {"1970-01-01T00:00:00.000000000Z", 0},
    {"1969-12-31T23:59:59.999999999Z", -1},
    {"2026-11-22T14:01:24.123456789Z", INT64_C(1795356084123456789)},
    {"2000-02-29T12:00:00.000000000Z", INT64_C(951825600000000000)},
    {"2000-03-01T00:00:00.000000000Z", INT64_C(951868800000000000)},
    {"1900-02-28T23:59:59.000000000Z", INT64_C(-2203891201000000000)},
    {"1900-03-01T00:00:00.000000000Z", INT64_C(-2203891200000000000)},
    {"2024-12-31T23:59:59.999999999Z", INT64_C(1735689599999999999)},
    {"1678-01-01T00:00:00.000000000Z", INT64_C(-9214560000000000000)},
    {"2261-12-31T23:59:59.999999999Z", INT64_C(9214646399999999999)},
};

Test(clock, vectors_format_and_parse_both_ways)
{
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        char text[RFC3339_LEN + 1];
        int64_t ns = 99;
        rfc3339_format(vectors[i].ns, text);
        cr_assert_str_eq(text, vectors[i].text);
        cr_assert(rfc3339_parse(sv(vectors[i].text), &ns) == STATUS_OK);
        cr_assert_eq(ns, vectors[i].ns, "%s", vectors[i].text);
    }
}

Test(clock, text_in_the_arena_is_what_format_writes)
{
    struct arena a = {0};
    struct strview text = rfc3339_text(&a, vectors[0].ns);
    cr_assert(sv_eq(text, sv(vectors[0].text)));
    cr_assert_eq(text.len, RFC3339_LEN);
    arena_release(&a);
}

Test(clock, what_lies_between_two_times_ends_at_the_borders)
{
    int64_t first = vectors[8].ns, last = vectors[9].ns; /* 1678 and 2261: 584 years */
    cr_assert_eq(clock_elapsed_ns(7, 10), 3);
    cr_assert_eq(clock_elapsed_ns(10, 7), -3);
    cr_assert_eq(clock_elapsed_ns(-1, INT64_MAX - 1), INT64_MAX);
    cr_assert_eq(clock_elapsed_ns(-1, INT64_MAX), INT64_MAX);
    cr_assert_eq(clock_elapsed_ns(first, last), INT64_MAX);
    cr_assert_eq(clock_elapsed_ns(0, INT64_MIN), INT64_MIN);
    cr_assert_eq(clock_elapsed_ns(1, INT64_MIN), INT64_MIN);
    cr_assert_eq(clock_elapsed_ns(last, first), INT64_MIN);
    cr_assert_eq(clock_add_ns(7, -10), -3);
    cr_assert_eq(clock_add_ns(last, NS_PER_S), last + NS_PER_S);
    cr_assert_eq(clock_add_ns(last, last), INT64_MAX);
    cr_assert_eq(clock_add_ns(first, first), INT64_MIN);
}

Test(clock, format_is_exact_to_both_ends_of_the_range)
{
    char text[RFC3339_LEN + 1];
    rfc3339_format(INT64_MAX, text);
    cr_assert_str_eq(text, "2262-04-11T23:47:16.854775807Z");
    rfc3339_format(INT64_MIN, text);
    cr_assert_str_eq(text, "1677-09-21T00:12:43.145224192Z");
}

Test(clock, format_agrees_with_libc_and_parse_reverses_it)
{
    struct random_seeded r = {.state = random_below(UINT64_MAX)};
    uint64_t seed = r.state;
    for (int i = 0; i < 200000; i++) {
        int64_t ns = (int64_t)random_seeded_next(&r), back = 0;
        time_t seconds = (time_t)(ns / NS_PER_S - (ns % NS_PER_S < 0));
        struct tm parts;
        char text[RFC3339_LEN + 1], expected[48];
        gmtime_r(&seconds, &parts);
        size_t len = strftime(expected, sizeof(expected), "%Y-%m-%dT%H:%M:%S", &parts);
        (void)snprintf(expected + len, sizeof(expected) - len, ".%09" PRId64 "Z", ns - seconds * NS_PER_S);
        rfc3339_format(ns, text);
        cr_assert_str_eq(text, expected, "seed %" PRIu64 " ns %" PRId64, seed, ns);
        bool is_set = parts.tm_year + 1900 >= 1678 && parts.tm_year + 1900 <= 2261;
        cr_assert(rfc3339_parse(sv_n(text, RFC3339_LEN), &back) == STATUS_OK);
        cr_assert_eq(back, is_set ? ns : 0, "seed %" PRIu64 " %s", seed, text);
    }
}

Test(clock, every_day_of_the_range_agrees_with_libc)
{
    for (int64_t day = -106000; day < 106000; day++) {
        time_t seconds = day * 86400;
        struct tm parts;
        char text[RFC3339_LEN + 1], expected[16];
        gmtime_r(&seconds, &parts);
        (void)strftime(expected, sizeof(expected), "%Y-%m-%d", &parts);
        rfc3339_format(seconds * NS_PER_S, text);
        cr_assert(memcmp(text, expected, 10) == 0, "%s, not %s", text, expected);
    }
}

static int64_t parsed(const char *text)
{
    int64_t ns = 0;
    cr_assert(rfc3339_parse(sv(text), &ns) == STATUS_OK, "%s", text);
    return ns;
}

Test(clock, parse_takes_offsets_fractions_and_either_case)
{
    const int64_t base = INT64_C(1795356084) * NS_PER_S;
    cr_assert_eq(parsed("2026-11-22T14:01:24Z"), base);
    cr_assert_eq(parsed("2026-11-22t14:01:24z"), base);
    cr_assert_eq(parsed("2026-11-22T16:01:24+02:00"), base);
    cr_assert_eq(parsed("2026-11-22T08:31:24-05:30"), base);
    cr_assert_eq(parsed("2026-11-23T13:01:24+23:00"), base);
    cr_assert_eq(parsed("2026-11-22T14:01:24-00:00"), base);
    cr_assert_eq(parsed("2026-11-22T14:01:24.5Z"), base + 500000000);
    cr_assert_eq(parsed("2026-11-22T14:01:24.000000001Z"), base + 1);
    cr_assert_eq(parsed("2026-11-22T14:01:24.1234567899999Z"), base + 123456789);
}

Test(clock, years_that_do_not_fit_are_unset)
{
    cr_assert_eq(parsed("0001-01-01T00:00:00Z"), 0);
    cr_assert_eq(parsed("0000-01-01T00:00:00Z"), 0);
    cr_assert_eq(parsed("9999-12-31T23:59:59.999Z"), 0);
    cr_assert_eq(parsed("1677-12-31T23:59:59.999999999Z"), 0);
    cr_assert_eq(parsed("2262-01-01T00:00:00Z"), 0);
    /* What counts is the instant in UTC, not the year as written. */
    cr_assert_eq(parsed("2262-01-01T00:30:00+01:00"), INT64_C(9214644600) * NS_PER_S);
    cr_assert_eq(parsed("1678-01-01T00:30:00+01:00"), 0);
}

Test(clock, leap_seconds_are_the_next_midnight)
{
    cr_assert_eq(parsed("2016-12-31T23:59:60Z"), parsed("2017-01-01T00:00:00Z"));
    cr_assert_eq(parsed("1990-12-31T15:59:60-08:00"), parsed("1991-01-01T00:00:00Z"));
}

Test(clock, malformed_times_are_refused)
{
    const char *bad[] = {
        "",
        "Z",
        "2026",
        "2026-11-22",
        "2026-11-22T14:01:24",
        "2026-11-22 14:01:24Z",
        "2026-11-22T14:01Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "2026-01-32T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:61Z",
        "2026-01-01T00:00:60Z",
        "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00,5Z",
        "2026-01-01T00:00:00+0100",
        "2026-01-01T00:00:00+24:00",
        "2026-01-01T00:00:00+01:60",
        "2026-01-01T00:00:00ZZ",
        "2026-01-01T00:00:00Z ",
        " 2026-01-01T00:00:00Z",
        "+026-01-01T00:00:00Z",
        "2026-1-01T00:00:00Z",
        "20260101T000000Z",
        "2026-01-01T00:00:00+01:0",
        "2026-01-01T-1:00:00Z",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int64_t ns = 7;
        cr_assert(rfc3339_parse(sv(bad[i]), &ns) == STATUS_INVALID_ARGUMENT, "'%s'", bad[i]);
        cr_assert_eq(ns, 7);
    }
}

Test(clock, durations_are_read_as_go_and_the_watchdog_do)
{
    const struct vector good[] = {
        {"0", 0},
        {"30", 30 * NS_PER_S},
        {"+5", 5 * NS_PER_S},
        {"30s", 30 * NS_PER_S},
        {"1m30s", 90 * NS_PER_S},
        {"250ms", 250 * NS_PER_MS},
        {"1.5h", 5400 * NS_PER_S},
        {".5s", 500 * NS_PER_MS},
        {"1.s", NS_PER_S},
        {"1h15m30.918273645s", INT64_C(4530918273645)},
        {"3us", 3000},
        {"3\xC2\xB5s", 3000},
        {"3\xCE\xBCs", 3000},
        {"7ns", 7},
        {"90d", INT64_C(90) * 86400 * NS_PER_S},
        {"1d12h", INT64_C(36) * 3600 * NS_PER_S},
        {"0s", 0},
        {"0.3333333333333333333h", INT64_C(1199999999999)},
        {"9223372036854775807ns", INT64_MAX},
        {"9223372036", INT64_C(9223372036) * NS_PER_S},
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        int64_t ns = -1;
        cr_assert(duration_parse(sv(good[i].text), &ns) == STATUS_OK, "%s", good[i].text);
        cr_assert_eq(ns, good[i].ns, "%s: %" PRId64, good[i].text, ns);
    }
    const char *bad[] = {"",           "+",
                         "-1",         "-1s",
                         "s",          ".",
                         ".s",         "1x",
                         "1D",         "1w",
                         "1s ",        " 1s",
                         "1 s",        "1.5",
                         "1s2",        "1..5s",
                         "3000000h",   "9223372036854775808ns",
                         "9223372037", "99999999999999999999s",
                         "1S",         "1h-1m"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int64_t ns = 7;
        cr_assert(duration_parse(sv(bad[i]), &ns) == STATUS_INVALID_ARGUMENT, "'%s'", bad[i]);
        cr_assert_eq(ns, 7);
    }
}

Test(clock, duration_format_is_shortest_and_reads_back)
{
    char text[DURATION_TEXT_MAX];
    cr_assert_str_eq(duration_format(0, text), "0s");
    cr_assert_str_eq(duration_format(90 * NS_PER_S, text), "1m30s");
    cr_assert_str_eq(duration_format(250 * NS_PER_MS, text), "250ms");
    cr_assert_str_eq(duration_format(3600 * NS_PER_S, text), "1h");
    cr_assert_str_eq(duration_format(-1500 * NS_PER_MS, text), "-1s500ms");
    cr_assert_str_eq(duration_format(INT64_MAX, text), "2562047h47m16s854ms775us807ns");
    cr_assert_str_eq(duration_format(INT64_MIN, text), "-2562047h47m16s854ms775us808ns");
    struct random_seeded r = {.state = random_below(UINT64_MAX)};
    uint64_t seed = r.state;
    for (int i = 0; i < 20000; i++) {
        int64_t ns = (int64_t)(random_seeded_next(&r) >> (1 + random_seeded_below(&r, 60))), back = -1;
        cr_assert(duration_parse(sv(duration_format(ns, text)), &back) == STATUS_OK);
        cr_assert_eq(back, ns, "seed %" PRIu64 " %s", seed, text);
    }
}

Test(clock, clocks_run)
{
    int64_t before = clock_monotonic_ns(), wall = clock_unix_ns();
    cr_assert_gt(before, 0);
    cr_assert_geq(clock_monotonic_ns(), before);
    cr_assert_leq(llabs(wall / NS_PER_S - (int64_t)time(NULL)), 2);
}

/* Both clocks: the monotonic one at `at_s`, the wall clock ahead of it by 1 000 000 s and `off_ms`. */
static int64_t look(struct clock_watch *w, double at_s, int64_t off_ms)
{
    int64_t monotonic_ns = (int64_t)(at_s * 1e9);
    return clock_watch_look(w, monotonic_ns, monotonic_ns + 1000000 * NS_PER_S + off_ms * NS_PER_MS);
}

Test(clock_watch, a_jump_is_told_once_with_its_size)
{
    struct clock_watch w = {0};
    (void)look(&w, 1, 0);
    cr_assert_eq(look(&w, 2, 0), 0);
    cr_assert_eq(look(&w, 2.1, 3600000), 3600 * NS_PER_S);
    cr_assert_eq(look(&w, 2.2, 3600000), 0);
    cr_assert(clock_watch_is_steady(&w));
    cr_assert_eq(look(&w, 2.3, -1000), -3601 * NS_PER_S);
    cr_assert_eq(look(&w, 3, -1000), 0);
}

Test(clock_watch, slewing_is_followed)
{
    struct clock_watch w = {0};
    (void)look(&w, 1, 0);
    for (int s = 1; s <= 1000; s++) {
        cr_assert_eq(look(&w, 1 + s, 83 * s), 0, "a twelfth, for a quarter of an hour");
        cr_assert(clock_watch_is_steady(&w));
    }
}

Test(clock_watch, small_steps_add_up)
{
    struct clock_watch w = {0};
    (void)look(&w, 1, 0);
    cr_assert_eq(look(&w, 2, 4000), 0);
    cr_assert_not(clock_watch_is_steady(&w));
    cr_assert_neq(look(&w, 3, 8000), 0);
    cr_assert_eq(look(&w, 1000, 8000), 0);
    cr_assert_eq(look(&w, 1001, 4000), 0);
    for (int s = 0; s < 60; s++)
        cr_assert_eq(look(&w, 1002 + s, 4000), 0);
    cr_assert(clock_watch_is_steady(&w), "it is followed in the end");
    cr_assert_eq(look(&w, 1063, 0), 0);
}

Test(clock_watch, a_clock_that_stands_still_is_a_jump_again_and_again)
{
    struct clock_watch w = {0};
    int64_t sum_ns = 0;
    (void)look(&w, 1, 0);
    for (int s = 1; s <= 30; s++)
        sum_ns += look(&w, 1 + s, -1000 * s);
    cr_assert_lt(sum_ns, -20 * NS_PER_S);
}
