#include "config/words.h"

#include <string.h>

struct splitter {
    struct strview rest;
    char *at; /* where the next byte of a word goes */
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n';
}

static char take(struct splitter *s)
{
    char c = s->rest.ptr[0];
    s->rest = sv_sub(s->rest, 1, s->rest.len);
    return c;
}

static bool is_next(const struct splitter *s, const char *bytes)
{
    return s->rest.len > 0 && strchr(bytes, s->rest.ptr[0]) != NULL;
}

/* Behind the opening quote. False: nothing closes it. */
static bool take_quoted(struct splitter *s, char quote)
{
    while (s->rest.len > 0) {
        char c = take(s);
        if (c == quote) return true;
        if (quote == '"' && c == '\\' && is_next(s, "\"\\")) c = take(s);
        *s->at++ = c;
    }
    return false;
}

/* False: a quote is open, or the last byte is a lone backslash. */
static bool take_word(struct splitter *s)
{
    bool is_fine = true;
    while (is_fine && s->rest.len > 0 && !is_blank(s->rest.ptr[0])) {
        char c = take(s);
        if (c == '\'' || c == '"') {
            is_fine = take_quoted(s, c);
        } else if (c != '\\') {
            *s->at++ = c;
        } else {
            is_fine = s->rest.len > 0;
            if (is_fine) *s->at++ = take(s);
        }
    }
    *s->at++ = '\0';
    return is_fine;
}

static void skip_blanks(struct splitter *s)
{
    while (s->rest.len > 0 && is_blank(s->rest.ptr[0]))
        (void)take(s);
}

static enum status check(struct strview text, struct error *err)
{
    if (text.len > WORDS_BYTES_MAX)
        return error_set(err, STATUS_INVALID_ARGUMENT, "a command line of %zu bytes, at most %d are allowed",
                         text.len, WORDS_BYTES_MAX);
    if (text.len > 0 && memchr(text.ptr, '\0', text.len) != NULL)
        return error_set(err, STATUS_INVALID_ARGUMENT, "a command line with a NUL in it");
    return STATUS_OK;
}

enum status words_split(struct strview text, struct arena *a, const char *const **ret_words, size_t *ret_n,
                        struct error *err)
{
    enum status s = check(text, err);
    if (s != STATUS_OK) return s;
    const char **words = arena_array(a, WORDS_MAX + 1, sizeof(*words));
    /* A word is never longer than what it was written as, but for its NUL. */
    struct splitter splitter = {.rest = text, .at = arena_alloc(a, text.len + WORDS_MAX + 1)};
    size_t n = 0;
    for (skip_blanks(&splitter); splitter.rest.len > 0; skip_blanks(&splitter)) {
        if (n == WORDS_MAX)
            return error_set(err, STATUS_INVALID_ARGUMENT, "a command line of more than %d words", WORDS_MAX);
        words[n++] = splitter.at;
        if (!take_word(&splitter))
            return error_set(err, STATUS_INVALID_ARGUMENT,
                             "a command line with an open quote or a backslash at its end");
    }
    if (n == 0 || words[0][0] == '\0')
        return error_set(err, STATUS_INVALID_ARGUMENT, "a command line without a program");
    *ret_words = words;
    *ret_n = n;
    return STATUS_OK;
}
