#include "config/roff.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static void check_roff(struct strview text, const char *expected)
{
    char *printed = NULL;
    size_t len;
    FILE *out = open_memstream(&printed, &len);
    roff_print(out, text);
    (void)fclose(out);
    cr_expect_str_eq(printed, expected);
    free(printed);
}

Test(roff, text_is_neither_request_nor_escape)
{
    check_roff(SV(".so /etc/passwd"), "\\&.so /etc/passwd");
    check_roff(SV("'quoted'"), "\\&\\(aqquoted\\(aq");
    check_roff(SV("a\\fBb"), "a\\efBb");
    check_roff(SV(""), "");
}

Test(roff, hyphens_can_be_copied)
{
    check_roff(SV("--data"), "\\-\\-data");
}

Test(roff, what_is_not_ascii_is_spelled)
{
    check_roff(SV("outcome …"), "outcome \\[u2026]");
    check_roff(SV("ü🔥"), "\\[u00FC]\\[u1F525]");
    check_roff(sv_n("\xff", 1), "\xff"); /* not text: as it is */
}
