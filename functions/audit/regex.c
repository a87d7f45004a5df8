#define PCRE2_CODE_UNIT_WIDTH 8

#include "functions/audit/regex.h"

#include <pcre2.h>
#include <string.h>

#include "base/memory.h"

#define MATCH_LIMIT                                                                                          \
    1000000              /* steps for one line: about 10 ms; what RE2 calls linear needs some thousands      \
                          */
#define HEAP_LIMIT  8192 /* KiB */
#define NESTING_MAX 250  /* parentheses: the compiler recurses */

struct regex {
    pcre2_code *code;
    pcre2_match_data *data;
    pcre2_match_context *context;
    uint32_t options;
};

static enum status unsupported(struct error *err, size_t at, const char *what)
{
    return error_set(err, STATUS_INVALID_ARGUMENT, "error parsing regexp: at column %zu: %s", at + 1, what);
}

/* Behind "(?": (?:…) (?flags) (?flags:…) (?P<name>…) (?<name>…) is all that RE2 has. */
static enum status check_group(struct strview p, size_t at, struct error *err)
{
    struct strview rest = sv_sub(p, at, p.len);
    if (sv_starts_with(rest, SV("P<"))) return STATUS_OK;
    if (sv_starts_with(rest, SV("<")) && rest.len > 1 && rest.ptr[1] != '=' && rest.ptr[1] != '!')
        return STATUS_OK;
    for (size_t i = 0; i < rest.len; i++) {
        char c = rest.ptr[i];
        if ((c == ':' || c == ')') && (i > 0 || c == ':')) return STATUS_OK;
        if (strchr("imsU-", c) == NULL || c == '\0') break;
        /* Ungreedy changes which text a match has, never whether there is one; PCRE2 spells it differently.
         */
    }
    return unsupported(err, at, "invalid or unsupported Perl syntax: `(?`");
}

static enum status check_escape(char c, size_t at, struct error *err)
{
    if (c >= '1' && c <= '9') return unsupported(err, at, "back references are not supported");
    if (strchr("abfnrtvAzBQEdDsSwWpPx0", c) != NULL && c != '\0') return STATUS_OK;
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '\0')
        return unsupported(err, at, "invalid escape sequence");
    return STATUS_OK;
}

/* Length of "{2}", "{2,}", "{2,3}" at the start of `rest`, 0 where the brace is a literal one. */
static size_t counted_repetition(struct strview rest)
{
    size_t i = 1;
    while (i < rest.len && ((rest.ptr[i] >= '0' && rest.ptr[i] <= '9') || (rest.ptr[i] == ',' && i > 1)))
        i++;
    return i > 1 && i < rest.len && rest.ptr[i] == '}' ? i + 1 : 0;
}

/* Index of the bracket that ends the class begun at `at`, or the length. */
static size_t class_end(struct strview p, size_t at)
{
    size_t i = at + 1;
    if (i < p.len && p.ptr[i] == '^') i++;
    if (i < p.len && p.ptr[i] == ']') i++;
    for (; i < p.len && p.ptr[i] != ']'; i++) {
        if (p.ptr[i] == '\\')
            i++;
        else if (p.ptr[i] == '[' && i + 1 < p.len && p.ptr[i + 1] == ':') { /* [:alpha:] */
            struct strview rest = sv_sub(p, i + 2, p.len);
            size_t end = sv_find(rest, ':');
            if (end + 1 < rest.len && rest.ptr[end + 1] == ']') i += 2 + end + 1;
        }
    }
    return i < p.len ? i : p.len;
}

/* \Q…\E: where the text goes on behind it. `at` is behind the Q. */
static size_t literal_end(struct strview p, size_t at)
{
    while (at < p.len && !sv_starts_with(sv_sub(p, at, p.len), SV("\\E")))
        at++;
    return at + 1;
}

/* What PCRE2 would take and RE2 not. The rest is left to PCRE2. */
static enum status check_syntax(struct strview p, struct error *err)
{
    bool was_quantifier = false;
    enum status s = STATUS_OK;
    for (size_t i = 0; i < p.len && s == STATUS_OK; i++) {
        char c = p.ptr[i], next = i + 1 < p.len ? p.ptr[i + 1] : '\0';
        size_t counted = c == '{' ? counted_repetition(sv_sub(p, i, p.len)) : 0;
        bool is_quantifier = c == '*' || c == '+' || c == '?' || counted > 0;
        if (is_quantifier && was_quantifier && c != '?')
            return unsupported(err, i, "invalid nested repetition operator");
        was_quantifier = is_quantifier && !was_quantifier;
        if (counted > 0) {
            i += counted - 1;
        } else if (c == '\0') {
            s = unsupported(err, i, "a NUL byte");
        } else if (c == '\\') {
            s = i + 1 < p.len ? check_escape(next, i, err)
                              : unsupported(err, i, "trailing backslash at end of expression");
            i = next == 'Q' ? literal_end(p, i + 2) : i + 1;
        } else if (c == '[') {
            i = class_end(p, i);
        } else if (c == '(' && next == '*') {
            s = unsupported(err, i, "missing argument to repetition operator: `*`");
        } else if (c == '(' && next == '?') {
            s = check_group(p, i + 2, err);
            i++;
        }
    }
    return s;
}

static enum status compile(struct regex *r, struct strview pattern, struct error *err)
{
    int code = 0;
    PCRE2_SIZE at = 0;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (context == NULL) mem_exhausted(0);
    (void)pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    (void)pcre2_set_parens_nest_limit(context, NESTING_MAX);
    (void)pcre2_set_max_pattern_length(context, REGEX_PATTERN_MAX);
    r->code = pcre2_compile((PCRE2_SPTR)pattern.ptr, pattern.len,
                            PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C | PCRE2_DOLLAR_ENDONLY |
                                PCRE2_NO_AUTO_CAPTURE | PCRE2_MATCH_INVALID_UTF | r->options,
                            &code, &at, context);
    pcre2_compile_context_free(context);
    if (r->code != NULL) return STATUS_OK;
    PCRE2_UCHAR text[128] = "";
    (void)pcre2_get_error_message(code, text, sizeof(text));
    return unsupported(err, at, (const char *)text);
}

enum status regex_compile(struct strview pattern, bool anchored, struct regex **ret_regex, struct error *err)
{
    if (pattern.len > REGEX_PATTERN_MAX)
        return error_set(err, STATUS_INVALID_ARGUMENT, "error parsing regexp: longer than %d bytes",
                         REGEX_PATTERN_MAX);
    if (pattern.ptr == NULL) pattern = SV("");
    if (!sv_is_utf8(pattern))
        return error_set(err, STATUS_INVALID_ARGUMENT, "error parsing regexp: invalid UTF-8");
    enum status s = check_syntax(pattern, err);
    if (s != STATUS_OK) return s;
    struct regex *r = mem_zalloc(1, sizeof(*r));
    /* A selector's dot matches a newline too: Prometheus compiles ^(?s:…)$. */
    r->options = anchored ? PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_DOTALL : 0;
    s = compile(r, pattern, err);
    if (s != STATUS_OK) {
        free(r);
        return s;
    }
    (void)pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE); /* without it the interpreter does it, slower */
    r->data = pcre2_match_data_create(1, NULL);
    r->context = pcre2_match_context_create(NULL);
    if (r->data == NULL || r->context == NULL) mem_exhausted(0);
    (void)pcre2_set_match_limit(r->context, MATCH_LIMIT);
    (void)pcre2_set_heap_limit(r->context, HEAP_LIMIT);
    *ret_regex = r;
    return STATUS_OK;
}

void regex_free(struct regex *r)
{
    if (r == NULL) return;
    pcre2_match_context_free(r->context);
    pcre2_match_data_free(r->data);
    pcre2_code_free(r->code);
    free(r);
}

enum status regex_match(const struct regex *r, struct strview text, bool *ret_matches, struct error *err)
{
    if (text.ptr == NULL) text = SV("");
    int rc = pcre2_match(r->code, (PCRE2_SPTR)text.ptr, text.len, 0, 0, r->data, r->context);
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH) {
        PCRE2_UCHAR reason[128] = "";
        (void)pcre2_get_error_message(rc, reason, sizeof(reason));
        return error_set(err, STATUS_RESOURCE_EXHAUSTED,
                         "a regular expression was given up on a line of %zu bytes: %s", text.len,
                         (const char *)reason);
    }
    *ret_matches = rc >= 0;
    return STATUS_OK;
}
