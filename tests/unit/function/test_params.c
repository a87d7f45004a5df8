#include "function/params.h"

#include <criterion/criterion.h>

#include "base/clock.h"
#include "base/list.h"

static const char *const severities[] = {"info", "critical", NULL};

struct example {
    struct strview unit, severity;
    int64_t count, settle_ns, max_bytes;
    bool is_dry;
    struct param_text_list roots;
};

#define AT(member) .offset = offsetof(struct example, member)
static const struct param_field fields[] = {
    {.name = "unit",
     .type = PARAM_TEXT,
     .pattern = PARAM_UNIT,
     AT(unit),
     .is_required = true,
     .min = 1,
     .max = 16},
    {.name = "severity", .type = PARAM_TEXT, AT(severity), .max = 64, .names = severities},
    {.name = "count", .type = PARAM_INTEGER, AT(count), .min = -5, .max = 100},
    {.name = "settle", .type = PARAM_DURATION, AT(settle_ns), .min = 0, .max = 60 * NS_PER_S},
    {.name = "max_bytes", .type = PARAM_BYTES, AT(max_bytes), .min = 1, .max = 1 << 20},
    {.name = "dry_run", .type = PARAM_BOOLEAN, AT(is_dry)},
    {.name = "roots", .type = PARAM_TEXT_LIST, .pattern = PARAM_PATH_ABSOLUTE, AT(roots), .min = 1, .max = 2},
};

static struct arena arena;
static struct example got;
static struct error err;

static void tear_down(void)
{
    arena_release(&arena);
}

TestSuite(params, .fini = tear_down);

static enum status decode(const char *text)
{
    json_t *body = NULL;
    err = (struct error){0};
    got = (struct example){.count = 7};
    cr_assert_eq(json_parse(sv(text), JSON_DECODE_ANY, &body, &err), STATUS_OK, "%s: %s", text, err.message);
    enum status s = params_decode("example", fields, ARRAY_LEN(fields), body, &arena, &got, &err);
    json_release(body);
    return s;
}

static void expect_message(const char *text, const char *message)
{
    cr_assert_eq(decode(text), STATUS_INVALID_ARGUMENT, "%s", text);
    cr_assert_str_eq(err.message, message);
    cr_assert_not(err.can_retry);
}

Test(params, fills_every_type_from_json)
{
    cr_assert_eq(
        decode(
            "{\"unit\":\"nginx@1.service\",\"severity\":\"info\",\"count\":-5,\"settle\":\"1m\",\"max_bytes\":\"64KiB\","
            "\"dry_run\":true,\"roots\":[\"/var/tmp\",\"/\"]}"),
        STATUS_OK, "%s", err.message);
    cr_assert(sv_eq(got.unit, SV("nginx@1.service")));
    cr_assert_eq(got.count, -5);
    cr_assert_eq(got.settle_ns, 60 * NS_PER_S);
    cr_assert_eq(got.max_bytes, 65536);
    cr_assert(got.is_dry);
    cr_assert_eq(got.roots.n, 2);
    cr_assert(sv_eq(got.roots.items[1], SV("/")));
}

Test(params, texts_that_spell_numbers_are_taken_for_labels_are_texts)
{
    cr_assert_eq(decode("{\"unit\":\"a\",\"count\":-5.0,\"settle\":6e1,\"max_bytes\":4096.0}"), STATUS_OK,
                 "%s", err.message);
    cr_assert(got.count == -5 && got.settle_ns == 60 * NS_PER_S && got.max_bytes == 4096);
    cr_assert_eq(
        decode("{\"unit\":\"a\",\"count\":\"42\",\"settle\":5,\"max_bytes\":4096,\"dry_run\":\"true\"}"),
        STATUS_OK, "%s", err.message);
    cr_assert_eq(got.count, 42);
    cr_assert_eq(got.settle_ns, 5 * NS_PER_S);
    cr_assert_eq(got.max_bytes, 4096);
    cr_assert(got.is_dry);
}

Test(params, texts_outlive_the_body)
{
    cr_assert_eq(decode("{\"unit\":\"nginx\"}"), STATUS_OK); /* decode() has released the body */
    cr_assert_str_eq(got.unit.ptr, "nginx", "and end in a NUL");
    cr_assert_eq(got.count, 7, "absent parameters keep their defaults");
}

Test(params, unknown_ones_are_refused_with_the_nearest_name)
{
    expect_message("{\"unti\":\"nginx\"}", "parameter 'unti' is not known to example (did you mean 'unit'?)");
    expect_message("{\"unit\":\"a\",\"zzzzzzzzz\":1}", "parameter 'zzzzzzzzz' is not known to example");
    expect_message("{\"\\u001b[2J\":1}", "parameter '?[2J' is not known to example");
}

Test(params, missing_ones_and_bodies_that_are_no_objects_are_refused)
{
    expect_message("{}", "parameter 'unit' of example is missing");
    expect_message("[]", "the parameters of example must be a JSON object");
    expect_message("7", "the parameters of example must be a JSON object");
    cr_assert_eq(params_decode("example", fields, ARRAY_LEN(fields), NULL, &arena, &got, &err),
                 STATUS_INVALID_ARGUMENT);
    cr_assert_str_eq(err.message, "parameter 'unit' of example is missing");
    cr_assert_eq(params_decode("example", fields + 1, ARRAY_LEN(fields) - 1, NULL, &arena, &got, &err),
                 STATUS_OK);
}

Test(params, wrong_types_are_shown)
{
    expect_message("{\"unit\":7}", "parameter 'unit' must be a text, not a number");
    expect_message("{\"unit\":null}", "parameter 'unit' must be a text, not null");
    expect_message("{\"count\":1.5}", "parameter 'count' must be a whole number, not a fraction");
    expect_message("{\"count\":1e300}", "parameter 'count' must be a whole number, not a fraction");
    expect_message("{\"max_bytes\":9223372036854775808.0}",
                   "parameter 'max_bytes' must be a size such as 64KiB or 8MiB, not a fraction");
    expect_message("{\"count\":\"many\"}", "parameter 'count' must be a whole number, not 'many'");
    expect_message("{\"count\":true}", "parameter 'count' must be a whole number, not true");
    expect_message("{\"settle\":\"-1s\"}",
                   "parameter 'settle' must be a duration such as 30s or 5m, not '-1s'");
    expect_message("{\"settle\":-1}",
                   "parameter 'settle' must be a duration such as 30s or 5m, not a number");
    expect_message("{\"settle\":9223372036854775807}",
                   "parameter 'settle' must be a duration such as 30s or 5m, not a number");
    expect_message("{\"max_bytes\":\"1MB\"}",
                   "parameter 'max_bytes' must be a size such as 64KiB or 8MiB, not '1MB'");
    expect_message("{\"dry_run\":1}", "parameter 'dry_run' must be true or false, not a number");
    expect_message("{\"roots\":\"/tmp\"}", "parameter 'roots' must be a list of texts, not '/tmp'");
    expect_message("{\"roots\":[\"/tmp\",{}]}", "parameter 'roots': entry 2 is no text");
}

Test(params, limits_hold_at_their_borders)
{
    cr_assert_eq(decode("{\"unit\":\"0123456789abcdef\",\"count\":100,\"settle\":\"60s\",\"max_bytes\":1}"),
                 STATUS_OK, "%s", err.message);
    expect_message("{\"unit\":\"0123456789abcdefg\"}",
                   "parameter 'unit': a length of 17 is out of range (1 to 16)");
    expect_message("{\"unit\":\"\"}", "parameter 'unit': a length of 0 is out of range (1 to 16)");
    expect_message("{\"count\":101}", "parameter 'count': 101 is out of range (-5 to 100)");
    expect_message("{\"count\":-6}", "parameter 'count': -6 is out of range (-5 to 100)");
    expect_message("{\"settle\":61}", "parameter 'settle': 1m1s is out of range (0s to 1m)");
    expect_message("{\"max_bytes\":0}", "parameter 'max_bytes': 0 is out of range (1 to 1MiB)");
    expect_message("{\"roots\":[]}", "parameter 'roots': a count of 0 is out of range (1 to 2)");
    expect_message("{\"roots\":[\"/\",\"/\",\"/\"]}",
                   "parameter 'roots': a count of 3 is out of range (1 to 2)");
}

Test(params, names_outside_the_list_are_refused)
{
    expect_message("{\"severity\":\"high\"}", "parameter 'severity': 'high' is none of info, critical");
}

Test(params, entries_of_a_list_are_bounded_and_checked_each)
{
    expect_message("{\"roots\":[\"/tmp\",\"../etc\"]}",
                   "parameter 'roots': '../etc' is not an absolute path without empty, '.' or '..' parts");
    struct buf b;
    buf_init(&b, 4096);
    buf_append(&b, SV("{\"roots\":[\"/"));
    for (int i = 0; i < PARAM_TEXT_MAX; i++)
        buf_append_char(&b, 'x');
    buf_append(&b, SV("\"]}"));
    expect_message(arena_cstr(&arena, buf_view(&b)),
                   "parameter 'roots': entry 1 has 1025 bytes; at most 1024 are taken");
    buf_release(&b);
}

static void expect_matches(enum param_pattern pattern, const char *const *good, const char *const *bad)
{
    for (; *good != NULL; good++)
        cr_expect(param_pattern_matches(pattern, sv(*good)), "pattern %d should take '%s'", pattern, *good);
    for (; *bad != NULL; bad++)
        cr_expect_not(param_pattern_matches(pattern, sv(*bad)), "pattern %d should refuse '%s'", pattern,
                      *bad);
}

#define TEXTS(...) ((const char *const[]){__VA_ARGS__, NULL})

Test(params, patterns_take_what_is_safe_and_nothing_else)
{
    expect_matches(
        PARAM_UNIT, TEXTS("nginx", "nginx.service", "getty@tty1.service", "a:b", "dev-disk\\x2d", "_x"),
        TEXTS("", "-nginx", "--now", ".", "..", "a/b", "a b", "a;b", "a\nb", "$(x)", "ngin\xc3\xa9", "*"));
    expect_matches(PARAM_NAME, TEXTS("a", "web-1", "kube.system.x", "0"),
                   TEXTS("", "-a", "a-", "A", "a_b", "a..b", "a.-b", ".a", "a.", "a/b", "a\n"));
    expect_matches(
        PARAM_PATH_ABSOLUTE, TEXTS("/", "/var/tmp", "/a b", "/...", "/.hidden"),
        TEXTS("", "var", "./a", "/a/", "//a", "/a//b", "/a/../b", "/..", "/.", "/a/.", "/a\nb", "/a\tb"));
    expect_matches(PARAM_URL, TEXTS("http://x", "https://a.b:8443/p?q#f", "http://[::1]:80/"),
                   TEXTS("", "ftp://x", "http://", "http:///p", "http://:80", "http://u:p@h/", "http://h/a b",
                         "http://h/\n", "HTTP://h", "javascript:alert(1)", "http://h/\xc3\xa4"));
    expect_matches(PARAM_LINE, TEXTS("", "one line, with \xc3\xa4"),
                   TEXTS("a\nb", "a\tb", "\x1b[2J", "\x7f"));
    expect_matches(PARAM_ANY, TEXTS("", "two\nlines"), (const char *const[]){NULL});
    cr_assert_not(param_pattern_matches(PARAM_ANY, SV("a\0b")));
}
