#include "functions/audit/logql.h"

#include <criterion/criterion.h>
#include <string.h>

#include "base/buf.h"
#include "base/list.h"

static struct arena arena;
static struct logql_query q;
static struct error err;

static void tear_down(void)
{
    logql_release(&q);
    arena_release(&arena);
}

TestSuite(logql, .fini = tear_down);

static void parse(const char *text)
{
    logql_release(&q);
    enum status s = logql_parse(sv(text), &arena, &q, &err);
    cr_assert_eq(s, STATUS_OK, "%s: %s", text, s == STATUS_OK ? "" : err.message);
}

static void refuse(const char *text, enum status expected, const char *words)
{
    struct logql_query bad;
    enum status s = logql_parse(sv(text), &arena, &bad, &err);
    cr_assert_eq(s, expected, "%s: %s", text, status_name(s));
    cr_assert(sv_contains(sv(err.message), sv(words)), "%s: %s", text, err.message);
}

static bool takes(const char *line)
{
    bool matches = false;
    cr_assert_eq(logql_filter(&q, sv(line), &matches, &err), STATUS_OK, "%s", err.message);
    return matches;
}

static bool selects(size_t i, const char *value)
{
    bool matches = false;
    cr_assert_eq(logql_match(&q.matchers[i], sv(value), &matches, &err), STATUS_OK, "%s", err.message);
    return matches;
}

Test(logql, a_selector_has_all_four_operators)
{
    parse(" { app = \"balm\" , kind=~`intent|out.*`,function!=\"echo\" ,x!~\"a+\", } ");
    cr_assert_eq(q.n_matchers, 4);
    cr_assert(sv_eq(q.matchers[0].name, SV("app")) && selects(0, "balm") && !selects(0, "balm2"));
    cr_assert(selects(1, "intent") && selects(1, "outcome") && !selects(1, "intents") &&
                  !selects(1, "an intent"),
              "anchored");
    cr_assert(selects(2, "") && !selects(2, "echo"));
    cr_assert(selects(3, "") && selects(3, "b") && !selects(3, "aaa"));
}

Test(logql, line_filters_are_chained_and_not_anchored)
{
    parse("{app=\"balm\"} |= \"nginx\" != `debug` |~ \"exit (1|2)\" !~ \"^no\"");
    cr_assert_eq(q.n_filters, 4);
    cr_assert(takes("yes nginx exit 2!") && !takes("yes nginx exit 3"));
    cr_assert(!takes("nginx debug exit 1") && !takes("exit 1") && !takes("no nginx exit 1"));
}

Test(logql, or_gives_alternatives_and_of_a_negative_filter_none_may_occur)
{
    parse("{app=\"balm\"} |= \"a\" or \"b\" != \"x\" or \"y\"");
    cr_assert(takes("a") && takes("b") && !takes("c"));
    cr_assert(!takes("a x") && !takes("b y") && takes("ab"));
    parse("{app=\"balm\"} |~ \"^a\" or `z$`");
    cr_assert(takes("abc") && takes("xyz") && !takes("bab"));
}

Test(logql, an_empty_line_filter_takes_every_line)
{
    parse("{app=\"balm\"} |= ``");
    cr_assert(takes("") && takes("anything"));
    parse("{app=\"balm\"} |~ \"\"");
    cr_assert(takes("") && takes("anything"));
}

Test(logql, texts_have_gos_escapes)
{
    parse("{app=\"balm\"} |= \"\\\"kind\\\":\\\"\\x69\\u006etent\\\"\\t\\101\\\\\"");
    cr_assert(sv_eq(q.filters[0].text, SV("\"kind\":\"intent\"\tA\\")), "%.*s", SV_ARG(q.filters[0].text));
    parse("{app=\"balm\"} |= \"\\u20ac\\U0001F600\"");
    cr_assert(sv_eq(q.filters[0].text, SV("\xE2\x82\xAC\xF0\x9F\x98\x80")));
    parse("{app=\"balm\"} |= `\\d`");
    cr_assert(sv_eq(q.filters[0].text, SV("\\d")), "raw");
}

Test(logql, comments_are_passed_over)
{
    parse("# what\n{app=\"balm\"} # which\n|= \"#\" # why");
    cr_assert(takes("a#b") && !takes("ab"));
}

Test(logql, a_selector_that_takes_everything_is_refused_as_loki_does)
{
    static const char *const texts[] = {"{}", "{app=~\".*\"}", "{app!=\"x\"}", "{app=\"\"}", "{app!~\"x\"}"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        refuse(
            texts[i], STATUS_INVALID_ARGUMENT,
            "queries require at least one regexp or equality matcher that does not have an empty-compatible value");
    parse("{app!=\"\"}");
    parse("{app=~\".+\"}");
}

Test(logql, a_selector_for_series_may_be_empty)
{
    struct logql_query s;
    cr_assert_eq(logql_parse_selector(SV("{}"), &arena, &s, &err), STATUS_OK);
    cr_assert_eq(s.n_matchers, 0);
    cr_assert_eq(logql_parse_selector(SV(""), &arena, &s, &err), STATUS_OK);
    cr_assert_eq(logql_parse_selector(SV("{a=\"b\"} |= \"x\""), &arena, &s, &err), STATUS_INVALID_ARGUMENT);
}

Test(logql, errors_say_where)
{
    refuse("", STATUS_INVALID_ARGUMENT, "parse error at line 1, col 1: syntax error: unexpected $end");
    refuse("{app}", STATUS_INVALID_ARGUMENT, "parse error at line 1, col 5:");
    refuse("{app=balm}", STATUS_INVALID_ARGUMENT, "parse error at line 1, col 6:");
    refuse("{app=\"balm\"", STATUS_INVALID_ARGUMENT, "unexpected $end");
    refuse("{app=\"balm\"}\n |= x", STATUS_INVALID_ARGUMENT, "parse error at line 2, col 5:");
    refuse("{app=\"balm", STATUS_INVALID_ARGUMENT, "literal not terminated");
    refuse("{app=\"\\q\"}", STATUS_INVALID_ARGUMENT, "invalid char escape");
    refuse("{app=~\"(\"}", STATUS_INVALID_ARGUMENT, "error parsing regexp");
    refuse("{app=\"balm\"} |= \"a\" \"b\"", STATUS_INVALID_ARGUMENT, "line filter");
    refuse("{app=\"balm\"} foo", STATUS_INVALID_ARGUMENT, "line filter");
    refuse("{1=\"balm\"}", STATUS_INVALID_ARGUMENT, "expecting IDENTIFIER");
    refuse("{app=\"balm\"} |", STATUS_INVALID_ARGUMENT,
           "parse error at line 1, col 15: syntax error: unexpected $end");
    refuse("{app=\"balm\"} | 5", STATUS_INVALID_ARGUMENT,
           "parse error at line 1, col 16: syntax error: unexpected input");
}

Test(logql, what_is_not_answered_here_is_named)
{
    refuse("{app=\"balm\"} | json", STATUS_UNIMPLEMENTED, "| json");
    refuse("{app=\"balm\"} | line_format `x`", STATUS_UNIMPLEMENTED, "| line_format");
    refuse("count_over_time({app=\"balm\"}[5m])", STATUS_UNIMPLEMENTED, "count_over_time");
    refuse("sum by (kind) (rate({app=\"balm\"}[5m]))", STATUS_UNIMPLEMENTED, "sum");
    refuse("({app=\"balm\"})", STATUS_UNIMPLEMENTED, "parentheses");
    refuse("{app=\"balm\"} |= ip(\"127.0.0.1\")", STATUS_UNIMPLEMENTED, "ip(");
    refuse("{app=\"balm\"} |> \"<_>nginx<_>\"", STATUS_UNIMPLEMENTED, "the pattern filters |> !>");
    refuse("{app=\"balm\"} !> `<_>`", STATUS_UNIMPLEMENTED, "the pattern filters |> !>");
}

Test(logql, the_health_checks_arithmetic)
{
    parse("vector(1)+vector(1)");
    cr_assert(q.is_scalar && q.is_vector && q.value == 2);
    parse("2 * (3 - vector(0.5)) / 5");
    cr_assert(q.is_vector && q.value == 1);
    parse("-1 + 3");
    cr_assert(q.is_scalar && !q.is_vector && q.value == 2);
    refuse("vector(", STATUS_INVALID_ARGUMENT, "vector(NUMBER)");
    refuse("1 + ", STATUS_INVALID_ARGUMENT, "unexpected $end");
    refuse("vector(1) vector(1)", STATUS_INVALID_ARGUMENT, "unexpected input");
    refuse("((((((((((((((((((((((1))))))))))))))))))))))", STATUS_INVALID_ARGUMENT, "nested deeper");
}

Test(logql, limits_hold)
{
    struct buf b;
    buf_init(&b, 64 * 1024);
    buf_append(&b, SV("{app=\"balm\"}"));
    for (int i = 0; i <= LOGQL_FILTERS_MAX; i++)
        buf_append(&b, SV(" |= \"x\""));
    buf_append_char(&b, '\0');
    refuse(b.ptr, STATUS_INVALID_ARGUMENT, "more than 32 line filters");
    buf_reset(&b);
    buf_append_char(&b, '{');
    for (int i = 0; i <= LOGQL_MATCHERS_MAX; i++)
        buf_append(&b, SV("a=\"b\","));
    buf_append(&b, SV("}\0"));
    refuse(b.ptr, STATUS_INVALID_ARGUMENT, "more than 32 matchers");
    buf_reset(&b);
    while (b.len <= LOGQL_TEXT_MAX)
        buf_append(&b, SV("          "));
    struct logql_query bad;
    cr_assert_eq(logql_parse(buf_view(&b), &arena, &bad, &err), STATUS_INVALID_ARGUMENT);
    cr_assert(sv_contains(sv(err.message), SV("too long")));
    cr_assert_eq(logql_parse(SV("{a=\"\xFF\"}"), &arena, &bad, &err), STATUS_INVALID_ARGUMENT);
    buf_release(&b);
}
