/* Parameters of a request to the query API on any bytes: times, durations, limits and steps keep their bounds
 * and are read twice the same; a refusal has a sentence.
 *
 * Input: the query string up to a line end, then the form of a POST.
 *
 * Reads: functions/audit/params.c server/http.c base/clock.c */
#include "functions/audit/params.h"

#include <assert.h>

#include "base/clock.h"
#include "replay.h"

#define NOW_NS       INT64_C(1795857084123456789)
#define YEAR_2262_NS INT64_C(9214646400000000000) /* from there on RFC 3339's are unset */

static void check_range(const struct params *p)
{
    struct error err = {0};
    struct range_params first, again;
    struct time_range range;
    enum status s = params_query_range(p, NOW_NS, &first, &err);
    assert(s == STATUS_OK || (s == STATUS_INVALID_ARGUMENT && err.message[0] != '\0'));
    if (s == STATUS_OK) {
        assert(first.limit >= 1 && first.limit <= QUERY_LIMIT_MAX);
        assert(first.range.start_ns <= first.range.end_ns);
        s = params_query_range(p, NOW_NS, &again, &err);
        assert(s == STATUS_OK && again.limit == first.limit && again.range.start_ns == first.range.start_ns);
    }
    s = params_range(p, NOW_NS, &range, &err);
    assert(s == STATUS_OK || s == STATUS_INVALID_ARGUMENT);
}

/* A time that is written as we write times is the same time. */
static void check_time(struct strview text)
{
    int64_t ns, back;
    char written[RFC3339_LEN + 1];
    if (params_time(text, NOW_NS, &ns) != STATUS_OK || ns < 0 || ns >= YEAR_2262_NS) return;
    rfc3339_format(ns, written);
    enum status s = params_time(sv(written), 0, &back);
    assert(s == STATUS_OK && back == ns);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const struct http_header form = {{"content-type", 12}, {"application/x-www-form-urlencoded", 33}};
    static struct params p;
    struct arena arena = {0};
    struct error err = {0};
    struct strview rest = sv_n((const char *)bytes, n);
    struct http_req req = {.method = SV("POST"), .headers = &form, .n_headers = 1, .arena = &arena};
    (void)sv_next(&rest, '\n', &req.query);
    req.body = rest;
    if (params_read(&req, &p, &err) == STATUS_OK) {
        assert(p.n <= PARAMS_MAX);
        check_range(&p);
        for (size_t i = 0; i < p.n; i++)
            check_time(p.items[i].value);
    } else {
        assert(err.message[0] != '\0' &&
               (err.code == STATUS_INVALID_ARGUMENT || err.code == STATUS_RESOURCE_EXHAUSTED));
    }
    arena_release(&arena);
    return 0;
}
