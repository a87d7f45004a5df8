#include "cli/cli.h"

#include <criterion/criterion.h>
#include <string.h>

static void check_shown(const char *text, size_t len, const char *expected)
{
    struct arena a = {0};
    struct strview shown = cli_shown(&a, sv_n(text, len));
    cr_expect_str_eq(shown.ptr, expected);
    cr_expect_eq(shown.len, strlen(expected));
    arena_release(&a);
}

Test(shown, keeps_text_of_any_language)
{
    check_shown("nginx ü 🔥", sizeof("nginx ü 🔥") - 1, "nginx ü 🔥");
    check_shown("", 0, "");
}

Test(shown, passes_no_control_character_to_a_terminal)
{
    check_shown("\x1b]0;pwn\x07", 8, "?]0;pwn?");
    check_shown("\xc2\x9b"
                "2J",
                4, "?2J");
    check_shown("a\0b\x7f", 4, "a?b?");
}

Test(shown, cannot_be_made_to_begin_a_line_of_its_own)
{
    check_shown("x\n      9  closed\thealed\r", 25, "x       9  closed healed?");
}

Test(shown, marks_bytes_that_are_not_utf8)
{
    check_shown("\xff\xc3", 2, "??");
}

Test(url, encodes_what_would_end_or_change_a_query)
{
    struct arena a = {0};
    struct strview text = cli_url_encoded(&a, SV("{a=\"b\"} |= \"x&y\"/ü-._9"));
    cr_expect(sv_eq(text, SV("%7Ba%3D%22b%22%7D%20%7C%3D%20%22x%26y%22%2F%C3%BC-._9")), "%.*s", SV_ARG(text));
    cr_expect_eq(cli_url_encoded(&a, SV("")).len, 0);
    arena_release(&a);
}
