#include "config/quote.h"

#include <string.h>

static bool is_control(struct strview character)
{
    unsigned char c = (unsigned char)character.ptr[0];
    bool is_c1 = character.len == 2 && c == 0xC2 && (unsigned char)character.ptr[1] < 0xA0;
    return c < 0x20 || c == 0x7f || is_c1;
}

const char *quote_text(struct strview text, char ret_text[QUOTE_MAX])
{
    size_t used = 0, read = 0;
    while (read < text.len) {
        struct strview rest = sv_sub(text, read, text.len);
        size_t len = sv_utf8_sequence(rest);
        bool is_shown = len > 0 && !is_control(sv_sub(rest, 0, len));
        size_t width = is_shown ? len : 1;
        if (used + width > QUOTE_MAX - sizeof("...")) break;
        memcpy(ret_text + used, is_shown ? rest.ptr : "?", width);
        used += width;
        read += len > 0 ? len : 1;
    }
    if (read < text.len) {
        memcpy(ret_text + used, "...", 3);
        used += 3;
    }
    ret_text[used] = '\0';
    return ret_text;
}
