#include "functions/audit/params.h"

#include <criterion/criterion.h>

#include "base/buf.h"
#include "base/clock.h"

#define NOW (INT64_C(1763820084) * NS_PER_S)

static struct arena arena;
static struct params p;
static struct error err;

static void tear_down(void)
{
    arena_release(&arena);
}

TestSuite(params, .fini = tear_down);

static enum status read_query(const char *query)
{
    struct http_req req = {.method = SV("GET"), .query = sv(query), .arena = &arena};
    return params_read(&req, &p, &err);
}

static struct range_params range_of(const char *query)
{
    struct range_params r = {0};
    cr_assert_eq(read_query(query), STATUS_OK, "%s", err.message);
    cr_assert_eq(params_query_range(&p, NOW, &r, &err), STATUS_OK, "%s: %s", query, err.message);
    return r;
}

static void refuse(const char *query, const char *words)
{
    struct range_params r;
    cr_assert_eq(read_query(query), STATUS_OK, "%s", err.message);
    cr_assert_eq(params_query_range(&p, NOW, &r, &err), STATUS_INVALID_ARGUMENT, "%s", query);
    cr_assert(sv_contains(sv(err.message), sv(words)), "%s: %s", query, err.message);
}

static int64_t time_of(const char *text)
{
    int64_t ns = -1;
    cr_assert_eq(params_time(sv(text), 7, &ns), STATUS_OK, "%s", text);
    return ns;
}

Test(params, names_and_values_are_decoded_as_a_form)
{
    cr_assert_eq(read_query("query=%7Bapp%3D%22balm%22%7D+%7C%3D+%22a%2Bb%22&match%5B%5D=x&empty&&match[]=y"),
                 STATUS_OK);
    cr_assert(sv_eq(params_get(&p, SV("query")), SV("{app=\"balm\"} |= \"a+b\"")));
    cr_assert(sv_eq(params_get(&p, SV("match[]")), SV("x")), "the first");
    cr_assert_eq(p.n, 4);
    cr_assert_eq(params_get(&p, SV("none")).len, 0);
    cr_assert_eq(read_query("a=%zz"), STATUS_INVALID_ARGUMENT);
}

Test(params, a_posted_form_comes_before_the_query_string)
{
    struct http_header type = {SV("content-type"), SV("application/x-www-form-urlencoded; charset=utf-8")};
    struct http_req req = {.method = SV("POST"),
                           .query = SV("limit=1&start=5"),
                           .body = SV("limit=2"),
                           .headers = &type,
                           .n_headers = 1,
                           .arena = &arena};
    cr_assert_eq(params_read(&req, &p, &err), STATUS_OK);
    cr_assert(sv_eq(params_get(&p, SV("limit")), SV("2")) && sv_eq(params_get(&p, SV("start")), SV("5")));
}

Test(params, too_many_are_refused)
{
    struct buf b;
    buf_init(&b, 4096);
    for (int i = 0; i <= PARAMS_MAX; i++)
        buf_append(&b, SV("a=b&"));
    struct http_req req = {.method = SV("GET"), .query = buf_view(&b), .arena = &arena};
    cr_assert_eq(params_read(&req, &p, &err), STATUS_RESOURCE_EXHAUSTED);
    buf_release(&b);
}

Test(params, times_are_read_as_loki_reads_them)
{
    cr_assert_eq(time_of("1763820084"), NOW, "ten digits: seconds");
    cr_assert_eq(time_of("4000000000"), INT64_C(4000000000) * NS_PER_S, "Grafana's health check");
    cr_assert_eq(time_of("1763820084000000001"), NOW + 1, "nanoseconds");
    cr_assert_eq(time_of("17638200840"), INT64_C(17638200840), "eleven digits: nanoseconds");
    cr_assert_eq(time_of("1763820084.25"), NOW + 250 * NS_PER_MS);
    cr_assert_eq(time_of("1763820084.0"), NOW);
    cr_assert_eq(time_of("2025-11-22T14:01:24.5Z"), NOW + 500 * NS_PER_MS);
    cr_assert_eq(time_of("2025-11-22T16:01:24+02:00"), NOW);
    cr_assert_eq(time_of("0"), 0);
    cr_assert_eq(time_of("-5"), -5 * NS_PER_S);
    cr_assert_eq(time_of(""), 7);
    cr_assert_eq(time_of("9999999999"), INT64_MAX);
    cr_assert_eq(time_of("9999-12-31T00:00:00Z"), INT64_MAX);
    int64_t ns;
    cr_assert_eq(params_time(SV("yesterday"), 7, &ns), STATUS_INVALID_ARGUMENT);
    cr_assert_eq(params_time(SV("1.5x"), 7, &ns), STATUS_INVALID_ARGUMENT);
}

Test(params, the_range_is_the_last_hour_unless_told)
{
    struct range_params r = range_of("query=x");
    cr_assert_eq(r.range.end_ns, NOW);
    cr_assert_eq(r.range.start_ns, NOW - 3600 * NS_PER_S);
    cr_assert_eq(r.limit, 100);
    cr_assert(!r.is_forward);
    r = range_of("since=1d");
    cr_assert_eq(r.range.start_ns, NOW - 24 * 3600 * NS_PER_S);
    r = range_of("since=90s&end=1763820000");
    cr_assert_eq(r.range.start_ns, (INT64_C(1763820000) - 90) * NS_PER_S);
    r = range_of("end=4000000000");
    cr_assert_eq(r.range.start_ns, NOW - 3600 * NS_PER_S, "an end in the future counts as now");
    r = range_of("start=5&end=10&limit=5000&direction=FORWARD&step=15000ms&interval=0");
    cr_assert(r.range.start_ns == 5 * NS_PER_S && r.range.end_ns == 10 * NS_PER_S && r.limit == 5000 &&
              r.is_forward);
}

Test(params, what_loki_refuses_is_refused)
{
    refuse("limit=0", "limit must be a positive value");
    refuse("limit=-1", "limit must be a positive value");
    refuse("limit=5001", "max entries limit per query exceeded");
    refuse("limit=x", "'limit'");
    refuse("direction=sideways", "invalid direction 'sideways'");
    refuse("start=10&end=5", "end timestamp must not be before or equal to start time");
    refuse("start=x", "'start'");
    refuse("end=x", "'end'");
    refuse("since=x", "'since'");
    refuse("step=0", "zero or negative query resolution");
    refuse("step=x", "'step'");
    refuse("start=1&end=1000000&step=1", "11,000 points");
    refuse("interval=-1", "interval must be >= 0");
}
