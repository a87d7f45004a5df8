#define PCRE2_CODE_UNIT_WIDTH 8
#include "functions/dispatcher/matcher.h"

#include <pcre2.h>
#include <stdlib.h>

#include "base/memory.h"

/* A label value is at most 64 KiB; honest patterns need a few steps a byte. A hostile value on a pattern that
 * backtracks without end would otherwise hold the loop; this many steps are about a millisecond. */
enum { REGEX_STEPS_MAX = 200000, REGEX_DEPTH_MAX = 10000, REGEX_HEAP_MAX_KIB = 1024 };

struct matcher_regex {
    pcre2_code *code;
    pcre2_match_context *context;
    pcre2_match_data *data;
};

static void regex_free(struct matcher_regex *r)
{
    if (r == NULL) return;
    pcre2_match_data_free(r->data);
    pcre2_match_context_free(r->context);
    pcre2_code_free(r->code);
    free(r);
}

static struct matcher_regex *regex_new(struct strview pattern, int *ret_code, size_t *ret_offset)
{
    /* No UCP, no JIT: \d is ASCII as in Alertmanager's RE2, and the step limit counts the same everywhere. */
    const uint32_t options = PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_UTF | PCRE2_MATCH_INVALID_UTF |
                             PCRE2_NEVER_BACKSLASH_C | PCRE2_DOLLAR_ENDONLY;
    struct matcher_regex *r = mem_zalloc(1, sizeof(*r));
    r->code = pcre2_compile((PCRE2_SPTR)(pattern.len ? pattern.ptr : ""), pattern.len, options, ret_code,
                            ret_offset, NULL);
    if (r->code == NULL) {
        free(r);
        return NULL;
    }
    r->context = pcre2_match_context_create(NULL);
    r->data = pcre2_match_data_create(1, NULL);
    if (r->context == NULL || r->data == NULL) mem_exhausted(sizeof(*r));
    (void)pcre2_set_match_limit(r->context, REGEX_STEPS_MAX);
    (void)pcre2_set_depth_limit(r->context, REGEX_DEPTH_MAX);
    (void)pcre2_set_heap_limit(r->context, REGEX_HEAP_MAX_KIB);
    return r;
}

/* ---- reading ---- */

struct reader {
    struct strview text;
    size_t at;
    struct arena *arena;
    struct error *err;
};

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v';
}

static char peek(const struct reader *r)
{
    return r->at < r->text.len ? r->text.ptr[r->at] : '\0';
}

static void skip_space(struct reader *r)
{
    while (r->at < r->text.len && is_space(r->text.ptr[r->at]))
        r->at++;
}

static enum status fail(const struct reader *r, size_t at, const char *what)
{
    return error_set(r->err, STATUS_INVALID_ARGUMENT, "matcher '%.*s': %s at column %zu",
                     SV_ARG(sv_sub(r->text, 0, 200)), what, at + 1);
}

/* From the opening quote past the closing one. */
static enum status read_quoted(struct reader *r, struct strview *ret_text)
{
    size_t start = r->at++;
    char *out = arena_alloc(r->arena, r->text.len - start + 1);
    size_t n = 0;
    while (r->at < r->text.len && r->text.ptr[r->at] != '"') {
        char c = r->text.ptr[r->at++];
        if (c == '\\' && r->at < r->text.len) {
            char escaped = r->text.ptr[r->at++];
            if (escaped == 'n') {
                c = '\n';
            } else if (escaped == '"' || escaped == '\\') {
                c = escaped;
            } else { /* a spurious escape: the backslash stands for itself */
                out[n++] = '\\';
                c = escaped;
            }
        }
        out[n++] = c;
    }
    if (r->at == r->text.len) return fail(r, start, "no closing quote for the one");
    r->at++;
    *ret_text = sv_n(out, n);
    return STATUS_OK;
}

static bool is_name_char(char c, bool is_first)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == ':' ||
           (!is_first && c >= '0' && c <= '9');
}

static enum status read_name(struct reader *r, struct strview *ret_name)
{
    if (peek(r) == '"') {
        size_t start = r->at;
        enum status s = read_quoted(r, ret_name);
        if (s == STATUS_OK && ret_name->len == 0) s = fail(r, start, "empty label name");
        return s;
    }
    size_t start = r->at;
    while (r->at < r->text.len && is_name_char(r->text.ptr[r->at], r->at == start))
        r->at++;
    if (r->at == start) return fail(r, start, "a label name is expected");
    *ret_name = sv_sub(r->text, start, r->at);
    return STATUS_OK;
}

static enum status read_op(struct reader *r, enum matcher_op *ret_op)
{
    char first = peek(r);
    char second = r->at + 1 < r->text.len ? r->text.ptr[r->at + 1] : '\0';
    if (first == '=' && second == '~') {
        *ret_op = MATCHER_REGEX;
    } else if (first == '!' && second == '=') {
        *ret_op = MATCHER_NOT_EQUAL;
    } else if (first == '!' && second == '~') {
        *ret_op = MATCHER_NOT_REGEX;
    } else if (first == '=') {
        *ret_op = MATCHER_EQUAL;
        r->at++;
        return STATUS_OK;
    } else {
        return fail(r, r->at, "one of = != =~ !~ is expected");
    }
    r->at += 2;
    return STATUS_OK;
}

/* Without quotes a value ends at a comma or the closing brace; the escapes are the same, a quote is an error.
 */
static enum status read_bare(struct reader *r, struct strview *ret_value)
{
    size_t start = r->at, n = 0;
    char *out = arena_alloc(r->arena, r->text.len - start + 1);
    while (r->at < r->text.len && r->text.ptr[r->at] != ',' && r->text.ptr[r->at] != '}') {
        char c = r->text.ptr[r->at++];
        if (c == '"') return fail(r, r->at - 1, "unescaped double quote");
        char escaped = peek(r);
        if (c == '\\' && (escaped == '"' || escaped == '\\' || escaped == 'n')) {
            c = escaped == 'n' ? '\n' : escaped;
            r->at++;
        }
        out[n++] = c;
    }
    while (n > 0 && is_space(out[n - 1]))
        n--;
    *ret_value = sv_n(out, n);
    return STATUS_OK;
}

static enum status read_matcher(struct reader *r, struct matcher *ret_matcher)
{
    struct matcher m = {0};
    enum status s = read_name(r, &m.name);
    if (s != STATUS_OK) return s;
    skip_space(r);
    s = read_op(r, &m.op);
    if (s != STATUS_OK) return s;
    skip_space(r);
    size_t value_at = r->at;
    s = peek(r) == '"' ? read_quoted(r, &m.value) : read_bare(r, &m.value);
    if (s != STATUS_OK) return s;
    if (m.op == MATCHER_REGEX || m.op == MATCHER_NOT_REGEX) {
        int code;
        size_t offset;
        m.regex = regex_new(m.value, &code, &offset);
        if (m.regex == NULL) {
            char why[160];
            (void)pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof(why));
            return error_set(r->err, STATUS_INVALID_ARGUMENT,
                             "matcher '%.*s': regular expression at column %zu: %s at its character %zu",
                             SV_ARG(sv_sub(r->text, 0, 200)), value_at + 1, why, offset + 1);
        }
    }
    *ret_matcher = m;
    return STATUS_OK;
}

static enum status read_list(struct reader *r, struct matchers *m)
{
    skip_space(r);
    bool has_brace = peek(r) == '{';
    if (has_brace) r->at++;
    for (;;) {
        skip_space(r);
        if (has_brace && peek(r) == '}') break; /* as in Alertmanager a comma may stand before it */
        if (m->n == MATCHERS_MAX)
            return error_set(r->err, STATUS_RESOURCE_EXHAUSTED, "more than %d matchers", MATCHERS_MAX);
        enum status s = read_matcher(r, &m->items[m->n]);
        if (s != STATUS_OK) return s;
        m->n++;
        skip_space(r);
        if (peek(r) != ',') break;
        r->at++;
    }
    if (has_brace) {
        if (peek(r) != '}') return fail(r, r->at, "the closing brace is expected");
        r->at++;
        skip_space(r);
    }
    return r->at == r->text.len ? STATUS_OK : fail(r, r->at, "nothing more is expected");
}

static void cut_back(struct matchers *m, size_t n)
{
    while (m->n > n)
        regex_free(m->items[--m->n].regex);
}

enum status matchers_parse(struct strview text, struct arena *a, struct matchers *m, struct error *err)
{
    if (text.len > MATCHER_TEXT_MAX)
        return error_set(err, STATUS_INVALID_ARGUMENT, "matcher of %zu bytes; at most %d are taken", text.len,
                         MATCHER_TEXT_MAX);
    if (!sv_is_utf8(text)) return error_set(err, STATUS_INVALID_ARGUMENT, "matcher is not valid UTF-8");
    struct reader r = {.text = arena_copy(a, text), .arena = a, .err = err};
    size_t before = m->n;
    enum status s = read_list(&r, m);
    if (s == STATUS_OK && m->n == before) s = fail(&r, 0, "no matcher");
    if (s != STATUS_OK) cut_back(m, before);
    return s;
}

void matchers_release(struct matchers *m)
{
    cut_back(m, 0);
}

/* ---- matching ---- */

static enum match_result regex_test(const struct matcher_regex *r, struct strview value)
{
    int found =
        pcre2_match(r->code, (PCRE2_SPTR)(value.len ? value.ptr : ""), value.len, 0, 0, r->data, r->context);
    if (found >= 0) return MATCH_YES;
    return found == PCRE2_ERROR_NOMATCH ? MATCH_NO : MATCH_LIMIT;
}

enum match_result matcher_test(const struct matcher *m, struct strview value)
{
    if (m->op == MATCHER_EQUAL) return sv_eq(value, m->value) ? MATCH_YES : MATCH_NO;
    if (m->op == MATCHER_NOT_EQUAL) return sv_eq(value, m->value) ? MATCH_NO : MATCH_YES;
    enum match_result found = regex_test(m->regex, value);
    if (m->op == MATCHER_REGEX || found == MATCH_LIMIT)
        return found; /* undecided stays undecided when negated */
    return found == MATCH_YES ? MATCH_NO : MATCH_YES;
}

enum match_result matchers_match(const struct matchers *m, const struct record_labels *labels)
{
    if (m->n == 0) return MATCH_NO;
    for (size_t i = 0; i < m->n; i++) {
        enum match_result found = matcher_test(&m->items[i], record_label(labels, m->items[i].name));
        if (found != MATCH_YES) return found;
    }
    return MATCH_YES;
}
