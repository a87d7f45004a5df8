#include "functions/dispatcher/zone.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/list.h"

static struct arena arena;
static struct error err;
static struct buf file;

static void set_up(void)
{
    buf_init(&file, 64 * 1024);
}

static void tear_down(void)
{
    buf_release(&file);
    arena_release(&arena);
}

TestSuite(zone, .init = set_up, .fini = tear_down, .timeout = 20);

static void put(int64_t value, int bytes)
{
    for (int i = bytes - 1; i >= 0; i--)
        buf_append_char(&file, (char)((uint64_t)value >> (8 * i)));
}

/* One block: local time is at first 60 s ahead, then each transition has a type of its own. */
static void put_block(const struct zone_transition *transitions, size_t n, int time_bytes, int n_leap)
{
    const int64_t counts[] = {0, 0, n_leap, (int64_t)n, (int64_t)n + 1, 4};
    buf_append(&file, SV("TZif2"));
    buf_append(&file, (struct strview){"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 15});
    for (size_t i = 0; i < ARRAY_LEN(counts); i++)
        put(counts[i], 4);
    for (size_t i = 0; i < n; i++)
        put(transitions[i].at_s, time_bytes);
    for (size_t i = 0; i < n; i++)
        put((int64_t)i + 1, 1);
    for (size_t i = 0; i <= n; i++) {
        put(i == 0 ? 60 : transitions[i - 1].offset_s, 4);
        put(0, 2);
    }
    put(0, 4);
    for (int i = 0; i < n_leap; i++) {
        put(0, time_bytes);
        put(0, 4);
    }
}

static struct zone parse(const struct zone_transition *transitions, size_t n, const char *footer)
{
    struct zone z = {0};
    buf_release(&file);
    set_up();
    put_block(NULL, 0, 4, 0);
    put_block(transitions, n, 8, 0);
    buf_printf(&file, "\n%s\n", footer);
    cr_assert_eq(zone_parse(&arena, buf_view(&file), &z, &err), STATUS_OK, "%s: %s", footer, err.message);
    return z;
}

static int64_t at(const char *text)
{
    int64_t ns = 0;
    cr_assert_eq(rfc3339_parse(sv(text), &ns), STATUS_OK);
    return ns / NS_PER_S;
}

Test(zone, spans_of_the_table)
{
    const struct zone_transition t[] = {{1000, 3600}, {2000, 7200}};
    struct zone z = parse(t, 2, "");
    struct zone_span span = zone_span_at(&z, 999);
    cr_assert(span.begin_s == INT64_MIN && span.end_s == 1000 && span.offset_s == 60);
    span = zone_span_at(&z, 1000);
    cr_assert(span.begin_s == 1000 && span.end_s == 2000 && span.offset_s == 3600);
    span = zone_span_at(&z, INT64_C(1) << 40);
    cr_assert(span.begin_s == 2000 && span.end_s == INT64_MAX && span.offset_s == 7200);
}

Test(zone, the_footer_goes_on_behind_the_table)
{
    const struct zone_transition t[] = {{1000, 3600}};
    struct zone z = parse(t, 1, "CET-1CEST,M3.5.0,M10.5.0/3");
    struct zone_span span = zone_span_at(&z, at("2100-06-01T00:00:00Z"));
    cr_assert_eq(span.begin_s, at("2100-03-28T01:00:00Z"));
    cr_assert_eq(span.end_s, at("2100-10-31T01:00:00Z"));
    cr_assert_eq(span.offset_s, 7200);
    span = zone_span_at(&z, 1000); /* never before the table's end */
    cr_assert(span.begin_s == 1000 && span.offset_s == 3600);
    z = parse(t, 1, "<+0545>-5:45");
    span = zone_span_at(&z, at("2100-06-01T00:00:00Z"));
    cr_assert(span.begin_s == 1000 && span.end_s == INT64_MAX && span.offset_s == 20700);
}

Test(zone, all_forms_of_a_rule)
{
    static const struct {
        const char *footer, *inside, *begin, *end;
        int32_t offset_s;
    } cases[] = {
        {"EST5EDT,M3.2.0,M11.1.0", "2026-07-01T00:00:00Z", "2026-03-08T07:00:00Z", "2026-11-01T06:00:00Z",
         -14400},
        {"<+1030>-10:30<+11>-11,M10.1.0,M4.1.0", "2026-12-31T23:00:00Z", "2026-10-03T15:30:00Z",
         "2027-04-03T15:00:00Z", 39600},
        {"IST-1GMT0,M10.5.0,M3.5.0/1", "2026-12-01T00:00:00Z", "2026-10-25T01:00:00Z", "2027-03-28T01:00:00Z",
         0},
        {"<-02>2<-01>,M3.5.0/-1,M10.5.0/0", "2026-07-01T00:00:00Z", "2026-03-29T01:00:00Z",
         "2026-10-25T01:00:00Z", -3600},
        {"AAA-1BBB,J60,J300/5:30:15", "2024-05-01T00:00:00Z", "2024-03-01T01:00:00Z", "2024-10-27T03:30:15Z",
         7200},
        {"AAA-1BBB,59,299", "2024-05-01T00:00:00Z", "2024-02-29T01:00:00Z", "2024-10-26T00:00:00Z", 7200},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct zone z = parse(NULL, 0, cases[i].footer);
        struct zone_span span = zone_span_at(&z, at(cases[i].inside));
        cr_assert_eq(span.begin_s, at(cases[i].begin), "%s begins %" PRId64, cases[i].footer, span.begin_s);
        cr_assert_eq(span.end_s, at(cases[i].end), "%s ends %" PRId64, cases[i].footer, span.end_s);
        cr_assert_eq(span.offset_s, cases[i].offset_s, "%s", cases[i].footer);
    }
}

Test(zone, summer_time_all_year)
{
    struct zone z = parse(NULL, 0, "XXX3EDT4,0/0,J365/23");
    for (int64_t t = at("2026-01-01T00:00:00Z"); t < at("2028-01-02T00:00:00Z"); t += 3600)
        cr_assert_eq(zone_span_at(&z, t).offset_s, -14400);
}

Test(zone, a_rule_that_cannot_be_read_is_refused)
{
    static const char *const footers[] = {"CET",
                                          "C-1",
                                          "CET-1CEST",
                                          "CET-1CEST,M3.5.0",
                                          "CET-25",
                                          "CET-1CEST,M13.1.0,M1.1.0",
                                          "<+01-1",
                                          "CET-1CEST,J0,J5",
                                          "CET-1CEST,M3.5.0/168,M10.5.0",
                                          "CET-1CEST,M3.5.0,M10.5.0x",
                                          "CET-1CEST,366,1",
                                          ":Europe/Berlin"};
    for (size_t i = 0; i < ARRAY_LEN(footers); i++) {
        struct zone z;
        buf_release(&file);
        set_up();
        put_block(NULL, 0, 4, 0);
        put_block(NULL, 0, 8, 0);
        buf_printf(&file, "\n%s\n", footers[i]);
        cr_assert_eq(zone_parse(&arena, buf_view(&file), &z, &err), STATUS_INVALID_ARGUMENT, "%s",
                     footers[i]);
        cr_assert(sv_contains(sv(err.message), sv(footers[i])), "%s", err.message);
    }
}

Test(zone, a_file_cut_off_anywhere_is_refused)
{
    const struct zone_transition t[] = {{1000, 3600}, {2000, 7200}};
    (void)parse(t, 2, "CET-1CEST,M3.5.0,M10.5.0/3");
    struct zone z;
    for (size_t n = 0; n < file.len; n++) {
        char *exact = malloc(n + 1); /* a block of this very size: a read past it is seen */
        memcpy(exact, buf_view(&file).ptr, n);
        cr_assert_eq(zone_parse(&arena, sv_n(exact, n), &z, &err), STATUS_INVALID_ARGUMENT, "%zu bytes", n);
        free(exact);
    }
}

Test(zone, times_that_do_not_ascend_and_leap_seconds_are_refused)
{
    const struct zone_transition t[] = {{2000, 3600}, {1000, 7200}};
    struct zone z;
    put_block(NULL, 0, 4, 0);
    put_block(t, 2, 8, 0);
    buf_append(&file, SV("\n\n"));
    cr_assert_eq(zone_parse(&arena, buf_view(&file), &z, &err), STATUS_INVALID_ARGUMENT);
    buf_release(&file);
    set_up();
    put_block(NULL, 0, 4, 0);
    put_block(t, 1, 8, 1);
    buf_append(&file, SV("\n\n"));
    cr_assert_eq(zone_parse(&arena, buf_view(&file), &z, &err), STATUS_INVALID_ARGUMENT);
    cr_assert(sv_contains(sv(err.message), SV("leap seconds")), "%s", err.message);
}

Test(zone, names_lead_below_the_folder_only_and_the_nearest_is_named)
{
    static const struct {
        const char *name, *says;
    } cases[] = {
        {"", "no time zone ''"},
        {"../../../etc/passwd", "no time zone '../../../etc/passwd'"},
        {"/etc/localtime", "no time zone"},
        {"Europe/../Europe/Berlin", "no time zone"},
        {"Europe", "no time zone 'Europe'"},
        {"Europe/Berln", "did you mean 'Europe/Berlin'?"},
        {"Berlin", "did you mean 'Europe/Berlin'?"},
        {"europe/berlin", "did you mean 'Europe/Berlin'?"},
        {"zone.tab", "zone.tab"}, /* a file that is none */
    };
    struct zone z;
    if (zone_read(&arena, SV("Europe/Berlin"), &z, &err) == STATUS_FAILED_PRECONDITION)
        cr_skip_test("%s", err.message);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        cr_assert_eq(zone_read(&arena, sv(cases[i].name), &z, &err), STATUS_INVALID_ARGUMENT, "%s",
                     cases[i].name);
        cr_assert(sv_contains(sv(err.message), sv(cases[i].says)), "%s: %s", cases[i].name, err.message);
    }
}

Test(zone, without_zone_files_only_utc_is_known)
{
    struct zone z;
    cr_assert_eq(setenv("TZDIR", "/there/is/none", 1), 0);
    cr_assert_eq(zone_read(&arena, SV("UTC"), &z, &err), STATUS_OK);
    cr_assert_eq(zone_span_at(&z, 0).offset_s, 0);
    cr_assert_eq(zone_read(&arena, SV("Europe/Berlin"), &z, &err), STATUS_FAILED_PRECONDITION);
    cr_assert(sv_contains(sv(err.message), SV("tzdata")), "%s", err.message);
}
