#include "config/roff.h"

/* The code point of one well-formed UTF-8 sequence of `n` bytes. */
static unsigned code_point(struct strview s, size_t n)
{
    static const unsigned char lead_bits[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    unsigned value = (unsigned char)s.ptr[0] & lead_bits[n];
    for (size_t i = 1; i < n; i++)
        value = value << 6 | ((unsigned char)s.ptr[i] & 0x3F);
    return value;
}

void roff_print(FILE *out, struct strview text)
{
    if (sv_starts_with(text, SV(".")) || sv_starts_with(text, SV("'"))) fputs("\\&", out);
    while (text.len > 0) {
        size_t n = sv_utf8_sequence(text);
        if (n > 1)
            fprintf(out, "\\[u%04X]", code_point(text, n));
        else if (text.ptr[0] == '\\')
            fputs("\\e", out);
        else if (text.ptr[0] == '-')
            fputs("\\-", out);
        else if (text.ptr[0] == '\'') /* else a closing quotation mark */
            fputs("\\(aq", out);
        else
            fputc(text.ptr[0], out);
        text = sv_sub(text, n > 1 ? n : 1, text.len);
    }
}
