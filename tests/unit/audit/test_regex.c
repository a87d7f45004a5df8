#include "functions/audit/regex.h"

#include <criterion/criterion.h>

#include "base/list.h"

static struct error err;

static bool matches(const char *pattern, bool anchored, const char *text)
{
    struct regex *r = NULL;
    bool result = false;
    cr_assert_eq(regex_compile(sv(pattern), anchored, &r, &err), STATUS_OK, "%s: %s", pattern, err.message);
    cr_assert_eq(regex_match(r, sv(text), &result, &err), STATUS_OK, "%s", err.message);
    regex_free(r);
    return result;
}

Test(regex, anchored_ones_take_the_whole_text_with_every_alternative)
{
    cr_assert(matches("a|ab", true, "ab") && matches("a|ab", true, "a"));
    cr_assert(!matches("a|ab", true, "xab") && !matches("a|ab", true, "abc"));
    cr_assert(matches("", true, "") && !matches("", true, "a") && matches(".*", true, "a\nb"));
}

Test(regex, others_are_found_anywhere)
{
    cr_assert(matches("b", false, "abc") && matches("^abc$", false, "abc") && !matches("^b", false, "abc"));
    cr_assert(matches("", false, "x") && matches("(?i)ABC", false, "xabcx") &&
              matches("\\bkind\\b", false, "a kind of"));
}

Test(regex, what_re2_has_compiles)
{
    static const char *const patterns[] = {
        "a*?",        "a+?",          "a??",     "a{2}",        "a{2,}",           "a{2,3}?",
        "(?:a)",      "(?P<x>a)",     "(?<x>a)", "(?i:a)",      "(?s-i)a",         "[]a]",
        "[^]a]",      "[[:alpha:]]+", "[a[]",    "\\d+\\.\\d+", "\\x41\\x{1F600}", "\\pL",
        "\\p{Greek}", "\\Qa++\\E",    "\\Aa\\z", "x{",          "x{,3}",           "{\"a\"}",
        "a|",         "\\\\",         "(?U)a+",  "}+"};
    for (size_t i = 0; i < ARRAY_LEN(patterns); i++) {
        struct regex *r = NULL;
        cr_assert_eq(regex_compile(sv(patterns[i]), false, &r, &err), STATUS_OK, "%s: %s", patterns[i],
                     err.message);
        regex_free(r);
    }
}

Test(regex, what_re2_does_not_have_is_refused)
{
    static const char *const patterns[] = {
        "(a)\\1",  "\\g1",    "\\k<x>",    "(?=a)",  "(?!a)",  "(?<=a)", "(?<!a)",    "(?>a)",
        "(?R)",    "(?1)",    "(?&x)",     "(?P>x)", "(?P=x)", "(?|a)",  "(?#a)",     "(?C1)",
        "(?(1)a)", "(*UTF)a", "(*COMMIT)", "a++",    "a*+",    "a?+",    "a{2}+",     "a**",
        "\\K",     "\\R",     "\\X",       "\\G",    "\\Z",    "\\h",    "\\N",       "\\C",
        "(",       ")",       "[a",        "*a",     "\\",     "(?x)a",  "[a[](?=x)", "\\Qa\\E(?=x)",
        "[]](?=x)"};
    for (size_t i = 0; i < ARRAY_LEN(patterns); i++) {
        struct regex *r = NULL;
        cr_assert_eq(regex_compile(sv(patterns[i]), false, &r, &err), STATUS_INVALID_ARGUMENT, "%s",
                     patterns[i]);
        cr_assert(sv_contains(sv(err.message), SV("error parsing regexp")), "%s", err.message);
    }
}

Test(regex, one_that_takes_for_ever_gives_up)
{
    struct regex *r = NULL;
    bool result = false;
    cr_assert_eq(regex_compile(SV("(a+)+(a+)+(a+)+[^a]$"), false, &r, &err), STATUS_OK, "%s", err.message);
    cr_assert_eq(
        regex_match(r, SV("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
                    &result, &err),
        STATUS_RESOURCE_EXHAUSTED);
    regex_free(r);
}

Test(regex, bytes_that_are_no_utf_8_do_not_stop_a_match)
{
    cr_assert(matches("abc", false, "\xFF\xFE abc"));
}
