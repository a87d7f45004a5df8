#include "functions/audit/logql.h"

#include <string.h>

#include "functions/audit/logql_scan.h"

#define NESTING_MAX 20 /* parentheses of arithmetic: the parser recurses */

static const char empty_compatible[] =
    "parse error : queries require at least one regexp or equality matcher that does not have an empty-compatible value. For instance, "
    "app=~\".*\" does not meet this requirement, but app=~\".+\" will";

void logql_release(struct logql_query *q)
{
    for (size_t i = 0; i < q->n_matchers; i++)
        regex_free(q->matchers[i].regex);
    for (size_t i = 0; i < q->n_filters; i++)
        regex_free(q->filters[i].regex);
    q->n_matchers = q->n_filters = 0;
}

/* ---- selector ---- */

static bool take_matcher_op(struct logql_scan *s, enum logql_op *ret_op)
{
    if (logql_take(s, "=~"))
        *ret_op = LOGQL_REGEX;
    else if (logql_take(s, "!~"))
        *ret_op = LOGQL_NOT_REGEX;
    else if (logql_take(s, "!="))
        *ret_op = LOGQL_NOT_EQUAL;
    else if (logql_take(s, "="))
        *ret_op = LOGQL_EQUAL;
    else
        return false;
    return true;
}

static bool is_regex_op(enum logql_op op)
{
    return op == LOGQL_REGEX || op == LOGQL_NOT_REGEX;
}

static enum status compile(struct logql_scan *s, size_t at, struct strview pattern, bool anchored,
                           struct regex **ret_regex)
{
    struct error why = {0};
    if (regex_compile(pattern, anchored, ret_regex, &why) == STATUS_OK) return STATUS_OK;
    s->at = at;
    return logql_fail(s, "%.400s", why.message);
}

static enum status parse_matcher(struct logql_scan *s, struct logql_query *q)
{
    struct logql_matcher m = {0};
    if (q->n_matchers == LOGQL_MATCHERS_MAX)
        return logql_fail(s, "more than %d matchers", LOGQL_MATCHERS_MAX);
    if (!logql_identifier(s, &m.name))
        return logql_fail(s, "syntax error: unexpected input, expecting IDENTIFIER or }");
    if (!take_matcher_op(s, &m.op))
        return logql_fail(s, "syntax error: unexpected input, expecting = or != or =~ or !~");
    (void)logql_peek(s);
    size_t at = s->at;
    enum status status = logql_text(s, &m.value);
    if (status == STATUS_OK && is_regex_op(m.op)) status = compile(s, at, m.value, true, &m.regex);
    if (status == STATUS_OK) q->matchers[q->n_matchers++] = m;
    return status;
}

static enum status parse_matchers(struct logql_scan *s, struct logql_query *q)
{
    if (!logql_take(s, "{"))
        return logql_fail(s, "syntax error: unexpected %s, expecting {",
                          logql_peek(s) == '\0' ? "$end" : "input");
    if (logql_take(s, "}")) return STATUS_OK;
    for (;;) {
        enum status status = parse_matcher(s, q);
        if (status != STATUS_OK) return status;
        bool has_comma = logql_take(s, ",");
        if (logql_take(s, "}")) return STATUS_OK; /* a comma before it is fine, as in Go */
        if (!has_comma)
            return logql_fail(s, "syntax error: unexpected %s, expecting } or ,",
                              logql_peek(s) == '\0' ? "$end" : "input");
    }
}

static enum status require_nonempty(const struct logql_query *q, struct error *err)
{
    for (size_t i = 0; i < q->n_matchers; i++) {
        bool takes_empty = false;
        enum status s = logql_match(&q->matchers[i], SV(""), &takes_empty, err);
        if (s != STATUS_OK) return s;
        if (!takes_empty) return STATUS_OK;
    }
    return error_set(err, STATUS_INVALID_ARGUMENT, "%s", empty_compatible);
}

/* ---- line filters ---- */

static bool take_filter_op(struct logql_scan *s, enum logql_op *ret_op)
{
    if (logql_take(s, "|="))
        *ret_op = LOGQL_EQUAL;
    else if (logql_take(s, "|~"))
        *ret_op = LOGQL_REGEX;
    else if (logql_take(s, "!="))
        *ret_op = LOGQL_NOT_EQUAL;
    else if (logql_take(s, "!~"))
        *ret_op = LOGQL_NOT_REGEX;
    else
        return false;
    return true;
}

static enum status add_filter(struct logql_scan *s, struct logql_query *q, enum logql_op op,
                              bool is_alternative)
{
    struct logql_filter f = {.op = op, .is_alternative = is_alternative};
    if (q->n_filters == LOGQL_FILTERS_MAX)
        return logql_fail(s, "more than %d line filters", LOGQL_FILTERS_MAX);
    if (logql_take(s, "ip"))
        return error_set(s->err, STATUS_UNIMPLEMENTED, "the line filter ip(…) is not supported here");
    (void)logql_peek(s);
    size_t at = s->at;
    enum status status = logql_text(s, &f.text);
    if (status == STATUS_OK && is_regex_op(op)) status = compile(s, at, f.text, false, &f.regex);
    if (status == STATUS_OK) q->filters[q->n_filters++] = f;
    return status;
}

static enum status parse_filters(struct logql_scan *s, struct logql_query *q)
{
    enum logql_op op = LOGQL_EQUAL;
    while (logql_peek(s) != '\0') {
        struct strview stage;
        if (!take_filter_op(s, &op)) {
            if (logql_take(s, "|>") || logql_take(s, "!>"))
                return error_set(
                    s->err, STATUS_UNIMPLEMENTED,
                    "the pattern filters |> !> are not supported here: line filters are |= != |~ !~");
            if (!logql_take(s, "|"))
                return logql_fail(s, "syntax error: unexpected input, expecting a line filter: |= != |~ !~");
            if (!logql_identifier(s, &stage))
                return logql_fail(s, "syntax error: unexpected %s, expecting a line filter: |= != |~ !~",
                                  logql_peek(s) == '\0' ? "$end" : "input");
            return error_set(
                s->err, STATUS_UNIMPLEMENTED,
                "the stage '| %.*s' is not supported here: lines are answered as they are stored; line filters are |= != |~ !~",
                SV_ARG(sv_sub(stage, 0, 64)));
        }
        enum status status = add_filter(s, q, op, false);
        while (status == STATUS_OK && logql_take(s, "or"))
            status = add_filter(s, q, op, true);
        if (status != STATUS_OK) return status;
    }
    return STATUS_OK;
}

/* ---- arithmetic ---- */

static enum status parse_sum(struct logql_scan *s, struct logql_query *q, unsigned depth, double *ret_value);

static enum status parse_factor(struct logql_scan *s, struct logql_query *q, unsigned depth,
                                double *ret_value)
{
    if (depth > NESTING_MAX) return logql_fail(s, "nested deeper than %d", NESTING_MAX);
    bool is_negative = logql_take(s, "-");
    if (logql_take(s, "vector")) {
        q->is_vector = true;
        if (!logql_take(s, "(") || !logql_number(s, ret_value) || !logql_take(s, ")"))
            return logql_fail(s, "syntax error: expecting vector(NUMBER)");
    } else if (logql_take(s, "(")) {
        enum status status = parse_sum(s, q, depth + 1, ret_value);
        if (status != STATUS_OK) return status;
        if (!logql_take(s, ")")) return logql_fail(s, "syntax error: unexpected input, expecting )");
    } else if (!logql_number(s, ret_value)) {
        return logql_fail(s, "syntax error: unexpected %s", logql_peek(s) == '\0' ? "$end" : "input");
    }
    if (is_negative) *ret_value = -*ret_value;
    return STATUS_OK;
}

static enum status parse_product(struct logql_scan *s, struct logql_query *q, unsigned depth,
                                 double *ret_value)
{
    double right = 0;
    enum status status = parse_factor(s, q, depth, ret_value);
    while (status == STATUS_OK) {
        bool divides = logql_take(s, "/");
        if (!divides && !logql_take(s, "*")) break;
        status = parse_factor(s, q, depth, &right);
        *ret_value = divides ? *ret_value / right : *ret_value * right;
    }
    return status;
}

static enum status parse_sum(struct logql_scan *s, struct logql_query *q, unsigned depth, double *ret_value)
{
    double right = 0;
    enum status status = parse_product(s, q, depth, ret_value);
    while (status == STATUS_OK) {
        bool subtracts = logql_take(s, "-");
        if (!subtracts && !logql_take(s, "+")) break;
        status = parse_product(s, q, depth, &right);
        *ret_value += subtracts ? -right : right;
    }
    return status;
}

static enum status parse_scalar(struct logql_scan *s, struct logql_query *q)
{
    size_t start = s->at;
    struct strview name;
    if (logql_identifier(s, &name) && !sv_eq(name, SV("vector")))
        return error_set(
            s->err, STATUS_UNIMPLEMENTED,
            "metric queries ('%.*s') are not supported here: ask for lines, as in {app=\"balm\"}",
            SV_ARG(sv_sub(name, 0, 64)));
    s->at = start;
    q->is_scalar = true;
    enum status status = parse_sum(s, q, 0, &q->value);
    if (status == STATUS_OK && logql_peek(s) != '\0')
        status = logql_peek(s) == '{'
                     ? error_set(s->err, STATUS_UNIMPLEMENTED, "metric queries are not supported here")
                     : logql_fail(s, "syntax error: unexpected input");
    return status;
}

/* ---- all of it ---- */

static enum status check_text(struct strview text, struct error *err)
{
    if (text.len > LOGQL_TEXT_MAX)
        return error_set(err, STATUS_INVALID_ARGUMENT, "parse error : input size too long (%zu > %d)",
                         text.len, LOGQL_TEXT_MAX);
    if (!sv_is_utf8(text))
        return error_set(err, STATUS_INVALID_ARGUMENT, "parse error : invalid UTF-8 encoding");
    return STATUS_OK;
}

enum status logql_parse(struct strview text, struct arena *a, struct logql_query *ret_query,
                        struct error *err)
{
    struct logql_query q = {0};
    struct logql_scan s = {.text = text, .arena = a, .err = err};
    enum status status = check_text(text, err);
    if (status != STATUS_OK) return status;
    if (logql_peek(&s) == '\0') return logql_fail(&s, "syntax error: unexpected $end");
    bool is_in_parentheses = logql_peek(&s) == '(' && sv_contains(text, SV("{"));
    if (logql_peek(&s) != '{' && !is_in_parentheses) {
        status = parse_scalar(&s, &q);
    } else {
        if (is_in_parentheses)
            status = error_set(err, STATUS_UNIMPLEMENTED, "a query in parentheses is not supported here");
        if (status == STATUS_OK) status = parse_matchers(&s, &q);
        if (status == STATUS_OK) status = require_nonempty(&q, err);
        if (status == STATUS_OK) status = parse_filters(&s, &q);
    }
    if (status == STATUS_OK)
        *ret_query = q;
    else
        logql_release(&q);
    return status;
}

enum status logql_parse_selector(struct strview text, struct arena *a, struct logql_query *ret_query,
                                 struct error *err)
{
    struct logql_query q = {0};
    struct logql_scan s = {.text = text, .arena = a, .err = err};
    enum status status = check_text(text, err);
    if (status == STATUS_OK && logql_peek(&s) != '\0') status = parse_matchers(&s, &q);
    if (status == STATUS_OK && logql_peek(&s) != '\0')
        status = logql_fail(&s, "syntax error: unexpected input, only a selector is taken here");
    if (status == STATUS_OK)
        *ret_query = q;
    else
        logql_release(&q);
    return status;
}

/* ---- matching ---- */

enum status logql_match(const struct logql_matcher *m, struct strview value, bool *ret_matches,
                        struct error *err)
{
    bool is_equal = sv_eq(m->value, value);
    if (is_regex_op(m->op)) {
        enum status s = regex_match(m->regex, value, &is_equal, err);
        if (s != STATUS_OK) return s;
    }
    *ret_matches = is_equal == (m->op == LOGQL_EQUAL || m->op == LOGQL_REGEX);
    return STATUS_OK;
}

/* Is the text of this one in the line, whatever the sign? */
static enum status occurs(const struct logql_filter *f, struct strview line, bool *ret_occurs,
                          struct error *err)
{
    if (f->regex != NULL) return regex_match(f->regex, line, ret_occurs, err);
    *ret_occurs = f->text.len == 0 || memmem(line.ptr, line.len, f->text.ptr, f->text.len) != NULL;
    return STATUS_OK;
}

enum status logql_filter(const struct logql_query *q, struct strview line, bool *ret_matches,
                         struct error *err)
{
    for (size_t i = 0; i < q->n_filters;) {
        const struct logql_filter *first = &q->filters[i];
        bool any = false;
        do {
            bool one = false;
            enum status s = any ? STATUS_OK : occurs(&q->filters[i], line, &one, err);
            if (s != STATUS_OK) return s;
            any = any || one;
        } while (++i < q->n_filters && q->filters[i].is_alternative);
        bool wants = first->op == LOGQL_EQUAL || first->op == LOGQL_REGEX;
        if (any != wants) {
            *ret_matches = false;
            return STATUS_OK;
        }
    }
    *ret_matches = true;
    return STATUS_OK;
}
