#include "log/log.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/escape.h"

/* The message may take half a line, so that a long one does not push out the fields that say whom it is
 * about. */
enum { MESSAGE_MAX = LOG_LINE_MAX / 2, STALL_MS = 100 };

static atomic_int min_level = LOG_LEVEL_INFO;
static atomic_int log_fd = STDERR_FILENO;
static atomic_bool is_for_people, has_colour;
static atomic_uint_fast64_t n_lost; /* lines that could not be written since the last that could */

/* One line on the stack. Pieces are cut, never the syntax: what closes a string or the object always has its
 * place. */
struct line {
    size_t len, limit; /* limit: what pieces may fill */
    char text[LOG_LINE_MAX];
};

static void put(struct line *line, struct strview s)
{
    if (s.len > line->limit - line->len) return;
    if (s.len > 0) memcpy(line->text + line->len, s.ptr, s.len);
    line->len += s.len;
}

static void put_i64(struct line *line, int64_t v)
{
    char digits[24];
    int n = snprintf(digits, sizeof(digits), "%" PRId64, v);
    put(line, sv_n(digits, (size_t)n));
}

/* `s` escaped as in a JSON string, cut between characters after at most `max` bytes. */
static void put_escaped(struct line *line, struct strview s, size_t max)
{
    size_t end = max < line->limit - line->len ? line->len + max : line->limit;
    while (s.len > 0) {
        size_t n = json_plain_run_max(s, end - line->len);
        put(line, sv_n(s.ptr, n));
        s = sv_sub(s, n, s.len);
        if (s.len == 0 || end - line->len < JSON_ESCAPE_MAX) return;
        if (n > 0) continue; /* the run may have ended by length only */
        char escape[JSON_ESCAPE_MAX];
        size_t len = json_escape_next(&s, escape);
        put(line, sv_n(escape, len));
    }
}

static void put_string(struct line *line, struct strview s, size_t max)
{
    if (line->limit - line->len < 2) return;
    put(line, SV("\""));
    line->limit--; /* keeps the closing quote's place */
    put_escaped(line, s, max);
    line->limit++;
    put(line, SV("\""));
}

static void put_number_or_bool(struct line *line, const struct log_field *field)
{
    if (field->type == LOG_FIELD_INT)
        put_i64(line, field->number);
    else
        put(line, field->number ? SV("true") : SV("false"));
}

static void put_json_field(struct line *line, const struct log_field *field)
{
    struct strview name = sv(field->name);
    /* Name, punctuation and the longest number or a few characters of text: a field is whole in its syntax or
     * absent. */
    if (line->limit - line->len < 6 * name.len + 32) return;
    put(line, SV(","));
    put_string(line, name, SIZE_MAX);
    put(line, SV(":"));
    if (field->type == LOG_FIELD_TEXT)
        put_string(line, field->text, SIZE_MAX);
    else
        put_number_or_bool(line, field);
}

static void format_json(struct line *line, enum log_level level, const char *logger, const char *message,
                        const struct log_field *fields, uint64_t lost)
{
    static const struct strview names[] = {{"DEBUG", 5}, {"INFO", 4}, {"WARNING", 7}, {"ERROR", 5}};
    char now[RFC3339_LEN + 1];
    rfc3339_format(clock_unix_ns(), now);
    put(line, SV("{\"timestamp\":\""));
    put(line, sv_n(now, RFC3339_LEN));
    put(line, SV("\",\"level\":\""));
    put(line, names[level]);
    put(line, SV("\",\"logger\":"));
    put_string(line, sv(logger), 256);
    put(line, SV(",\"message\":"));
    put_string(line, sv(message), MESSAGE_MAX);
    if (lost > 0) put_json_field(line, &LOG_INT("lines_lost", lost));
    for (const struct log_field *f = fields; f != NULL && f->name != NULL; f++)
        put_json_field(line, f);
    line->limit = LOG_LINE_MAX;
    put(line, SV("}\n"));
}

/* Control characters of any kind would let an alert's text rewrite the terminal (C1 ones too: U+0080 …
 * U+009F). */
static struct strview without_c1(struct strview s, char *copy, size_t size)
{
    size_t len = 0;
    while (s.len > 0 && len < size) {
        bool is_c1 = s.len >= 2 && s.ptr[0] == '\xC2' && (unsigned char)s.ptr[1] < 0xA0;
        copy[len++] = is_c1 ? '?' : s.ptr[0];
        s = sv_sub(s, is_c1 ? 2 : 1, s.len);
    }
    return sv_n(copy, len);
}

static bool is_bare_word(struct strview s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] <= ' ' || s.ptr[i] == '"' || s.ptr[i] == '=' || s.ptr[i] == '\\')
            return false;
    return s.len > 0;
}

static void put_terminal_field(struct line *line, const struct log_field *field)
{
    struct strview name = sv(field->name);
    if (line->limit - line->len < 6 * name.len + 32) return;
    put(line, SV(" "));
    put_escaped(line, name, SIZE_MAX);
    put(line, SV("="));
    if (field->type != LOG_FIELD_TEXT) {
        put_number_or_bool(line, field);
        return;
    }
    char copy[LOG_LINE_MAX];
    struct strview text = without_c1(field->text, copy, sizeof(copy));
    if (is_bare_word(text))
        put_escaped(line, text, SIZE_MAX);
    else
        put_string(line, text, SIZE_MAX);
}

static void format_terminal(struct line *line, enum log_level level, const char *message,
                            const struct log_field *fields, uint64_t lost)
{
    static const struct {
        struct strview word, colour;
    } looks[] = {
        {{"debug: ", 7}, {"\033[2m", 4}},
        {{"", 0}, {"", 0}},
        {{"warning: ", 9}, {"\033[33m", 5}},
        {{"error: ", 7}, {"\033[31m", 5}},
    };
    bool is_coloured = atomic_load_explicit(&has_colour, memory_order_relaxed) && looks[level].colour.len > 0;
    char now[16], copy[MESSAGE_MAX];
    struct tm parts;
    time_t seconds = (time_t)(clock_unix_ns() / NS_PER_S);
    if (localtime_r(&seconds, &parts) == NULL) return; /* a year beyond int: no such clock */
    put(line, sv_n(now, strftime(now, sizeof(now), "%H:%M:%S ", &parts)));
    if (is_coloured) put(line, looks[level].colour);
    put(line, looks[level].word);
    put_escaped(line, without_c1(sv(message), copy, sizeof(copy)), MESSAGE_MAX);
    if (is_coloured) put(line, SV("\033[0m"));
    if (lost > 0 || (fields != NULL && fields->name != NULL)) put(line, SV(" "));
    if (lost > 0) put_terminal_field(line, &LOG_INT("lines_lost", lost));
    for (const struct log_field *f = fields; f != NULL && f->name != NULL; f++)
        put_terminal_field(line, f);
    line->limit = LOG_LINE_MAX;
    put(line, SV("\n"));
}

/* A reader of a full non-blocking pipe gets a moment; after that the line is lost and counted, because the
 * loop thread must not stand still for its log. False: lost. */
static bool write_line(int fd, struct strview line)
{
    bool has_waited = false;
    while (line.len > 0) {
        ssize_t n = write(fd, line.ptr, line.len);
        if (n >= 0) {
            line = sv_sub(line, (size_t)n, line.len);
        } else if (errno == EAGAIN && !has_waited) {
            struct pollfd ready = {.fd = fd, .events = POLLOUT};
            (void)poll(&ready, 1, STALL_MS);
            has_waited = true;
        } else if (errno != EINTR) {
            return false;
        }
    }
    return true;
}

void log_write(enum log_level level, const char *logger, const char *message, const struct log_field *fields)
{
    if ((int)level < atomic_load_explicit(&min_level, memory_order_relaxed)) return;
    if (level > LOG_LEVEL_ERROR) level = LOG_LEVEL_ERROR;
    int saved_errno = errno; /* callers log between a failure and the look at errno */
    uint64_t lost = atomic_exchange_explicit(&n_lost, 0, memory_order_relaxed);
    struct line line;
    line.len = 0;
    line.limit = LOG_LINE_MAX - 2;
    if (atomic_load_explicit(&is_for_people, memory_order_relaxed))
        format_terminal(&line, level, message, fields, lost);
    else
        format_json(&line, level, logger, message, fields, lost);
    if (!write_line(atomic_load_explicit(&log_fd, memory_order_relaxed), sv_n(line.text, line.len)))
        atomic_fetch_add_explicit(&n_lost, lost + 1, memory_order_relaxed);
    errno = saved_errno;
}

static void choose_colour(void)
{
    const char *no_colour = getenv("NO_COLOR"); /* https://no-color.org: set and not empty */
    atomic_store(&has_colour, isatty(atomic_load(&log_fd)) && (no_colour == NULL || no_colour[0] == '\0'));
}

void log_set_level(enum log_level level)
{
    atomic_store(&min_level, (int)level);
}

void log_set_fd(int fd)
{
    atomic_store(&log_fd, fd);
    choose_colour();
}

void log_set_terminal(bool is_terminal)
{
    atomic_store(&is_for_people, is_terminal);
    choose_colour();
}

enum status log_level_parse(struct strview text, enum log_level *ret_level)
{
    static const char *const names[] = {"DEBUG", "INFO", "WARNING", "ERROR"};
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (!sv_eq_nocase(text, sv(names[i]))) continue;
        *ret_level = (enum log_level)i;
        return STATUS_OK;
    }
    return STATUS_INVALID_ARGUMENT;
}
