#include "functions/dispatcher/explain_lines.h"

#include <string.h>

#include "base/clock.h"

/* Labels are a stranger's words, and this goes to a terminal: no control character passes, neither as a byte
 * nor as U+0080 … U+009F. */
void lines_put(struct buf *out, struct strview s)
{
    for (size_t i = 0; i < s.len;) {
        size_t n = sv_utf8_sequence(sv_sub(s, i, s.len));
        unsigned char c = (unsigned char)s.ptr[i];
        bool is_c1 = n == 2 && c == 0xC2 && (unsigned char)s.ptr[i + 1] < 0xA0;
        if (n == 0 || c < 0x20 || c == 0x7F || is_c1)
            buf_append_char(out, c == '\n' || c == '\t' ? ' ' : '?');
        else
            buf_append(out, sv_sub(s, i, i + n));
        i += n == 0 ? 1 : n;
    }
}

/* What was measured has nanoseconds, which tell nobody anything. Cut, not rounded: a cooldown of 15m that is
 * still on must not read as 15m. */
static int64_t cut_for_people(int64_t ns)
{
    int64_t step = ns < NS_PER_S          ? NS_PER_MS
                   : ns < 10 * NS_PER_S   ? 100 * NS_PER_MS
                   : ns < 3600 * NS_PER_S ? NS_PER_S
                                          : 60 * NS_PER_S;
    return ns - ns % step;
}

/* "14m32s105ms3us12ns" -> "14m32s". What somebody has written (15m, 1h30m15s) has no such small parts and
 * stays, like every other word. */
static void put_word(struct buf *out, struct strview word)
{
    char text[DURATION_TEXT_MAX];
    int64_t ns = 0;
    if (word.len == RFC3339_LEN && word.ptr[10] == 'T' && rfc3339_parse(word, &ns) == STATUS_OK) {
        lines_put(out, sv_sub(word, 0, 19)); /* a point in time that was computed, to the nanosecond */
        buf_append_char(out, 'Z');
        return;
    }
    bool is_measured = (sv_ends_with(word, SV("us")) || sv_ends_with(word, SV("ns"))) &&
                       duration_parse(word, &ns) == STATUS_OK && ns >= NS_PER_MS;
    lines_put(out, is_measured ? sv(duration_format(cut_for_people(ns), text)) : word);
}

/* A target's name (service/5ms1us) is one word, and no duration. */
static bool is_word_char(char c)
{
    return c > ' ' && memchr(";,()'", c, 5) == NULL;
}

/* Our own sentences, with their durations cut. */
void lines_put_sentence(struct buf *out, struct strview s)
{
    while (s.len > 0) {
        size_t word = 0, rest;
        while (word < s.len && is_word_char(s.ptr[word]))
            word++;
        put_word(out, sv_sub(s, 0, word));
        for (rest = word; rest < s.len && !is_word_char(s.ptr[rest]);)
            rest++;
        lines_put(out, sv_sub(s, word, rest));
        s = sv_sub(s, rest, s.len);
    }
}

void lines_put_value(struct buf *out, const json_t *value)
{
    if (json_is_string(value)) {
        lines_put(out, sv_n(json_string_value(value), json_string_length(value)));
        return;
    }
    struct buf text;
    buf_init(&text, 64 * 1024);
    json_append_canonical(&text, value);
    lines_put(out, buf_view(&text));
    buf_release(&text);
}

/* Of a gate: a text of ours, or a number. */
void lines_put_measure(struct buf *out, const json_t *value)
{
    if (json_is_string(value))
        lines_put_sentence(out, sv_n(json_string_value(value), json_string_length(value)));
    else
        lines_put_value(out, value);
}

/* "2026-11-22T14:01:24.123456789Z" -> "14:01:24.123" */
struct strview lines_clock(struct strview time)
{
    return time.len == 30 ? sv_sub(time, 11, 23) : time;
}

/* ---- lines ---- */

#define PARAGRAPH (64 * 1024)

/* Bytes of `s` up to n characters. */
size_t lines_bytes(struct strview s, size_t n)
{
    size_t i = 0;
    for (; n > 0 && i < s.len; n--) {
        size_t step = sv_utf8_sequence(sv_sub(s, i, s.len));
        i += step > 0 ? step : 1;
    }
    return i;
}

/* Where a line that may have n characters ends: behind a word, unless that would leave half of it empty. */
static size_t line_end(struct strview s, size_t n)
{
    size_t most = lines_bytes(s, n), end = most;
    if (most == s.len) return most;
    while (end > most / 2 && s.ptr[end] != ' ')
        end--;
    return end > most / 2 ? end : most;
}

/* Paragraph: its lines are no wider than EXPLAIN_COLUMNS and no more than max_lines; what is left is cut,
 * which shows. The rest of it is in the JSON. */
void lines_put_paragraph(struct buf *out, const char *head, struct strview text, unsigned max_lines)
{
    text = sv_trim(text);
    for (unsigned line = 1; line == 1 || text.len > 0; line++) {
        buf_printf(out, "  %-*s", LINES_INDENT - 2, line == 1 ? head : "");
        size_t n = line_end(text, EXPLAIN_COLUMNS - LINES_INDENT);
        bool is_cut = line == max_lines && n < text.len;
        if (is_cut) n = lines_bytes(text, EXPLAIN_COLUMNS - LINES_INDENT - 1);
        buf_append(out, sv_sub(text, 0, n));
        if (is_cut) buf_append(out, SV("…"));
        buf_append_char(out, '\n');
        text = sv_trim(sv_sub(text, is_cut ? text.len : n, text.len));
    }
}

/* One paragraph that is being put together. */
void lines_begin(struct buf *par)
{
    buf_init(par, PARAGRAPH);
}

void lines_end(struct buf *par, struct buf *out, const char *head, unsigned max_lines)
{
    if (par->len > 0) lines_put_paragraph(out, head, buf_view(par), max_lines);
    buf_release(par);
}

void lines_put_member(struct buf *par, const char *before, const json_t *o, const char *name)
{
    struct strview text = json_get_text(o, name);
    if (text.len == 0) return;
    buf_append(par, sv(before));
    lines_put(par, text);
}

void lines_put_said(struct buf *out, const char *head, struct strview sentence, unsigned max_lines)
{
    struct buf par;
    lines_begin(&par);
    lines_put_sentence(&par, sentence);
    lines_end(&par, out, head, max_lines);
}
