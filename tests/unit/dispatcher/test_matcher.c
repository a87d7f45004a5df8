#include "functions/dispatcher/matcher.h"

#include <criterion/criterion.h>
#include <string.h>

#include "base/list.h"

static struct arena arena;
static struct matchers m;
static struct error err;

static void tear_down(void)
{
    matchers_release(&m);
    arena_release(&arena);
}

TestSuite(matcher, .fini = tear_down, .timeout = 20);

static enum status parse(const char *text)
{
    matchers_release(&m);
    err = (struct error){0};
    return matchers_parse(sv(text), &arena, &m, &err);
}

static enum match_result match_one(const char *text, const char *name, const char *value)
{
    cr_assert_eq(parse(text), STATUS_OK, "%s: %s", text, err.message);
    struct http_header label = {sv(name), sv(value)};
    struct record_labels labels = {&label, name == NULL ? 0 : 1};
    return matchers_match(&m, &labels);
}

Test(matcher, reads_and_matches_as_alertmanager_does)
{
    static const struct {
        const char *text, *name, *value;
        enum match_result expected;
    } cases[] = {
        {"alertname=\"NginxDown\"", "alertname", "NginxDown", MATCH_YES},
        {"alertname=\"NginxDown\"", "alertname", "nginxdown", MATCH_NO},
        {"alertname=NginxDown", "alertname", "NginxDown", MATCH_YES},
        {" alertname = NginxDown ", "alertname", "NginxDown", MATCH_YES},
        {"a=with space", "a", "with space", MATCH_YES},
        {"a!=\"b\"", "a", "c", MATCH_YES},
        {"a!=\"b\"", "a", "b", MATCH_NO},
        {"a!=\"b\"", NULL, "", MATCH_YES}, /* an absent label is the empty text */
        {"a=\"\"", NULL, "", MATCH_YES},
        {"a=", "a", "x", MATCH_NO},
        {"a=~\"b|c\"", "a", "b", MATCH_YES},
        {"a=~\"b|c\"", "a", "xb", MATCH_NO}, /* anchored at both ends, around the alternation */
        {"a=~\"b|c\"", "a", "bx", MATCH_NO},
        {"a=~\"b|bc\"", "a", "bc", MATCH_YES},
        {"a=~\"b\"", "a", "b\n", MATCH_NO}, /* the end is the end, not before a last newline */
        {"a=~b.*", "a", "bcd", MATCH_YES},
        {"a!~\"kube-.*\"", "a", "kube-system", MATCH_NO},
        {"a!~\"kube-.*\"", "a", "default", MATCH_YES},
        {"a!~\"kube-.*\"", NULL, "", MATCH_YES},
        {"a=~\"\\\\d+\"", "a", "12", MATCH_YES}, /* \\ in quotes is one backslash */
        {"a=~\"\\d+\"", "a", "12", MATCH_YES},   /* a spurious escape keeps its backslash */
        {"a=\"x\\\"y\"", "a", "x\"y", MATCH_YES},
        {"a=\"x\\ny\"", "a", "x\ny", MATCH_YES},
        {"a=\"x,y\"", "a", "x,y", MATCH_YES},
        {"{a=\"x\"}", "a", "x", MATCH_YES},
        {"{a=\"x\",}", "a", "x", MATCH_YES},
        {"a=x,b!=y", "a", "x", MATCH_YES},
        {"{a=x, b=y}", "a", "x", MATCH_NO},
        {"\"my.label\"=\"x\"", "my.label", "x", MATCH_YES},
        {"a=~\"\xC3\xA4.\"", "a", "\xC3\xA4\xC3\xB6", MATCH_YES}, /* . is one character, not one byte */
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        enum match_result found = match_one(cases[i].text, cases[i].name, cases[i].value);
        cr_assert_eq(found, cases[i].expected, "case %zu: %s on '%s': %d", i, cases[i].text, cases[i].value,
                     (int)found);
    }
}

Test(matcher, says_what_is_wrong_and_where)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "a label name is expected at column 1"},
        {"{}", "no matcher"},
        {"=x", "a label name is expected at column 1"},
        {"1a=x", "a label name is expected at column 1"},
        {"a", "one of = != =~ !~ is expected at column 2"},
        {"a~x", "one of = != =~ !~ is expected at column 2"},
        {"a!x", "one of = != =~ !~ is expected at column 2"},
        {"a=\"x", "no closing quote for the one at column 3"},
        {"a=\"x\"y", "nothing more is expected at column 6"},
        {"a=x\"y", "unescaped double quote at column 4"},
        {"{a=x", "the closing brace is expected at column 5"},
        {"a=x}", "nothing more is expected at column 4"},
        {"a=x,", "a label name is expected at column 5"},
        {"a=~\"(\"", "regular expression at column 4: missing closing parenthesis"},
        {"a=~\"\\\\C\"", "using \\C is disabled"},
        {"\"\"=x", "empty label name at column 1"},
        {"a=\"\xFF\"", "not valid UTF-8"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        cr_assert_eq(parse(cases[i].text), STATUS_INVALID_ARGUMENT, "%s", cases[i].text);
        cr_assert(sv_contains(sv(err.message), sv(cases[i].message)), "%s: %s", cases[i].text, err.message);
        cr_assert_eq(m.n, 0);
    }
}

Test(matcher, a_failed_text_leaves_the_earlier_ones)
{
    cr_assert_eq(parse("a=~x"), STATUS_OK);
    cr_assert_eq(matchers_parse(SV("b=~y,c"), &arena, &m, &err), STATUS_INVALID_ARGUMENT);
    cr_assert_eq(m.n, 1);
}

Test(matcher, a_pattern_that_backtracks_without_end_gives_up)
{
    char value[60];
    memset(value, 'a', sizeof(value) - 1);
    value[sizeof(value) - 2] = '!';
    value[sizeof(value) - 1] = '\0';
    cr_assert_eq(match_one("a=~\"(a+)+\"", "a", value), MATCH_LIMIT);
    cr_assert_eq(match_one("a!~\"(a+)+\"", "a", value), MATCH_LIMIT, "giving up is not a match when negated");
}

Test(matcher, a_long_honest_value_is_within_the_limits)
{
    char *value = arena_alloc(&arena, 65537);
    memset(value, 'a', 65536);
    value[65536] = '\0';
    cr_assert_eq(match_one("a=~\"[a-z]+\"", "a", value), MATCH_YES);
    cr_assert_eq(match_one("a=~\".*b\"", "a", value), MATCH_NO);
}

Test(matcher, no_more_than_the_maximum_is_taken)
{
    struct buf b;
    buf_init(&b, 4096);
    for (int i = 0; i < MATCHERS_MAX; i++)
        buf_printf(&b, "%sa=x", i > 0 ? "," : "");
    cr_assert_eq(matchers_parse(buf_view(&b), &arena, &m, &err), STATUS_OK);
    cr_assert_eq(matchers_parse(SV("b=x"), &arena, &m, &err), STATUS_RESOURCE_EXHAUSTED);
    cr_assert_eq(m.n, MATCHERS_MAX);
    buf_release(&b);
    char *big = arena_alloc(&arena, MATCHER_TEXT_MAX + 1);
    memset(big, 'a', MATCHER_TEXT_MAX + 1);
    struct matchers other = {.n = 0};
    cr_assert_eq(matchers_parse(sv_n(big, MATCHER_TEXT_MAX + 1), &arena, &other, &err),
                 STATUS_INVALID_ARGUMENT);
}
