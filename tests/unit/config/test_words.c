#include "config/words.h"

#include <criterion/criterion.h>
#include <string.h>

#include "base/list.h"

struct case_of_words {
    const char *text, *words[6];
};

static const struct case_of_words cases[] = {
    {"cat", {"cat"}},
    {"  python3   index.py\t-u\n", {"python3", "index.py", "-u"}},
    {"echo 'a b' \"c d\"", {"echo", "a b", "c d"}},
    {"a'b c'd\"e f\"", {"ab cde f"}},
    {"echo '' \"\"", {"echo", "", ""}},
    {"echo \\  \\'x\\' a\\\\b", {"echo", " ", "'x'", "a\\b"}},
    {"echo \"\\\"\\\\\\n\"", {"echo", "\"\\\\n"}},
    {"echo '\\' '\"'", {"echo", "\\", "\""}},
    {"echo $HOME `id` $(id) * ~ ; | & > x", {"echo", "$HOME", "`id`", "$(id)", "*", "~"}},
};

Test(words, are_cut_at_blanks_and_kept_together_by_quotes)
{
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct arena a = {0};
        struct error err;
        const char *const *words;
        size_t n = 0;
        cr_assert_eq(words_split(sv(cases[i].text), &a, &words, &n, &err), STATUS_OK, "%s: %s", cases[i].text,
                     err.message);
        for (size_t k = 0; k < ARRAY_LEN(cases[i].words) && cases[i].words[k] != NULL; k++)
            cr_expect_str_eq(words[k], cases[i].words[k], "%s", cases[i].text);
        cr_expect_null(words[n]);
        arena_release(&a);
    }
}

static enum status status_of(struct strview text)
{
    struct arena a = {0};
    struct error err;
    const char *const *words;
    size_t n;
    enum status s = words_split(text, &a, &words, &n, &err);
    arena_release(&a);
    return s;
}

Test(words, what_is_no_command_line_is_refused)
{
    static const char *const bad[] = {"", "  ", "''", "'' x", "cat 'a", "cat \"a", "cat \"a\\\"", "cat \\"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect_eq(status_of(sv(bad[i])), STATUS_INVALID_ARGUMENT, "%s", bad[i]);
    cr_expect_eq(status_of(sv_n("cat\0x", 5)), STATUS_INVALID_ARGUMENT);
}

Test(words, have_a_limit_in_number_and_length)
{
    char text[WORDS_BYTES_MAX + 1];
    memset(text, 'x', sizeof(text));
    cr_expect_eq(status_of(sv_n(text, WORDS_BYTES_MAX)), STATUS_OK);
    cr_expect_eq(status_of(sv_n(text, WORDS_BYTES_MAX + 1)), STATUS_INVALID_ARGUMENT);
    for (size_t i = 1; i < sizeof(text); i += 2)
        text[i] = ' ';
    cr_expect_eq(status_of(sv_n(text, 2 * WORDS_MAX - 1)), STATUS_OK);
    cr_expect_eq(status_of(sv_n(text, 2 * WORDS_MAX + 1)), STATUS_INVALID_ARGUMENT);
}
