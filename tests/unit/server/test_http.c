#include "server/http.h"

#include <criterion/criterion.h>

Test(http, header_is_found_by_its_lower_case_name)
{
    const struct http_header headers[] = {
        {SV("host"), SV("a")}, {SV("x-id"), SV("1")}, {SV("x-id"), SV("2")}};
    cr_assert(sv_eq(http_header_get(headers, 3, SV("x-id")), SV("1")));
    cr_assert_eq(http_header_get(headers, 3, SV("x-no")).len, 0);
    cr_assert_eq(http_header_get(headers, 0, SV("host")).len, 0);
}

static enum status decode(const char *text, struct arena *a, struct strview *ret)
{
    return http_percent_decode(a, sv(text), ret);
}

Test(http, percent_decoding_takes_escapes_and_refuses_bad_ones)
{
    struct arena a = {0};
    struct strview v;
    cr_assert_eq(decode("a%20b%2Fc%2f+", &a, &v), STATUS_OK);
    cr_assert(sv_eq(v, SV("a b/c/+")));
    cr_assert_eq(decode("", &a, &v), STATUS_OK);
    cr_assert_eq(v.len, 0);
    cr_assert_eq(decode("%41", &a, &v), STATUS_OK);
    cr_assert(sv_eq(v, SV("A")));
    static const char *const bad[] = {"%", "%4", "a%4", "%zz", "%4z", "%%41"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_expect_eq(decode(bad[i], &a, &v), STATUS_INVALID_ARGUMENT, "%s", bad[i]);
    arena_release(&a);
}

Test(http, query_value_is_found_and_decoded)
{
    struct arena a = {0};
    struct http_req req = {.query = SV("a=1&b=x%20y&flag&bad=%zz&a=2&k%65y=v=w"), .arena = &a};
    struct strview v;
    cr_assert(http_query_get(&req, SV("a"), &v) && sv_eq(v, SV("1")));
    cr_assert(http_query_get(&req, SV("b"), &v) && sv_eq(v, SV("x y")));
    cr_assert(http_query_get(&req, SV("flag"), &v) && v.len == 0);
    cr_assert(http_query_get(&req, SV("key"), &v) && sv_eq(v, SV("v=w")));
    cr_assert_not(http_query_get(&req, SV("bad"), &v));
    cr_assert_not(http_query_get(&req, SV("none"), &v));
    req.query = (struct strview){0};
    cr_assert_not(http_query_get(&req, SV("a"), &v));
    arena_release(&a);
}

Test(http, reason_of_known_and_unknown_statuses)
{
    cr_assert_str_eq(http_reason(200), "OK");
    cr_assert_str_eq(http_reason(503), "Service Unavailable");
    cr_assert_str_eq(http_reason(599), "Unknown");
}
