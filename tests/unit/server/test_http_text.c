#include "server/http_text.h"

#include <criterion/criterion.h>

/* Every byte value at every place of every short length, against the plain loop. */
Test(http_text, each_byte_is_found_wherever_it_stands)
{
    char text[24];
    for (size_t len = 0; len <= sizeof(text); len++) {
        for (size_t at = 0; at < len; at++) {
            for (int c = 0; c < 256; c++) {
                memset(text, 'x', sizeof(text));
                text[at] = (char)c;
                bool is_visible = c > ' ' && c != 0x7f, is_header = c >= ' ' || c == '\t';
                cr_assert_eq(is_visible_text(sv_n(text, len)), is_visible, "%d at %zu of %zu", c, at, len);
                cr_assert_eq(is_header_text(sv_n(text, len)), is_header, "%d at %zu of %zu", c, at, len);
            }
        }
    }
}

Test(http_text, empty_text_has_nothing_wrong)
{
    cr_assert(is_visible_text((struct strview){0}));
    cr_assert(is_header_text((struct strview){0}));
}
