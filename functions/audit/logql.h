/* LogQL, the part that reads log lines: a stream selector and line filters (contracts/alertmanager-loki.md
 * §3.5).
 *
 *   {app="balm", kind=~"intent|outcome", function!=""} |= "nginx" != `debug` |~ "exit (1|2)" or "timeout"
 *
 * and for a data source's health check arithmetic over vector(n): vector(1)+vector(1). Errors read as Loki's.
 * Pure. */
#ifndef BALM_FUNCTIONS_AUDIT_LOGQL_H
#define BALM_FUNCTIONS_AUDIT_LOGQL_H

#include "base/arena.h"
#include "functions/audit/regex.h"

#define LOGQL_TEXT_MAX     5120 /* Loki's own limit is 5 KiB */
#define LOGQL_MATCHERS_MAX 32
#define LOGQL_FILTERS_MAX  32 /* alternatives of `or` counted one by one */

enum logql_op { LOGQL_EQUAL, LOGQL_NOT_EQUAL, LOGQL_REGEX, LOGQL_NOT_REGEX };

struct logql_matcher {
    struct strview name, value; /* arena */
    enum logql_op op;
    struct regex *regex; /* owned; anchored */
};

struct logql_filter {
    enum logql_op op;    /* EQUAL: contains */
    struct strview text; /* arena; empty matches every line */
    struct regex *regex; /* owned; not anchored */
    bool is_alternative; /* `or`: with the one before; of a negative filter none may match */
};

struct logql_query {
    struct logql_matcher matchers[LOGQL_MATCHERS_MAX];
    struct logql_filter filters[LOGQL_FILTERS_MAX];
    size_t n_matchers, n_filters;
    bool is_scalar,
        is_vector; /* arithmetic: `value` is the result, there is no selector. vector: vector(n) is in it */
    double value;
};

/* A whole query. STATUS_INVALID_ARGUMENT: not LogQL, "parse error at line 1, col 5: …". STATUS_UNIMPLEMENTED:
 * LogQL that is not answered here (metric queries, parsers); the message names it. On failure nothing is to
 * be released. */
enum status logql_parse(struct strview text, struct arena *a, struct logql_query *ret_query,
                        struct error *err) MUST_USE;
/* A selector alone, which may be empty here: "{}" or "". For labels and series. */
enum status logql_parse_selector(struct strview text, struct arena *a, struct logql_query *ret_query,
                                 struct error *err) MUST_USE;
void logql_release(struct logql_query *q);

/* Does the matcher take this value? A label that is not there has the empty one. */
enum status logql_match(const struct logql_matcher *m, struct strview value, bool *ret_matches,
                        struct error *err) MUST_USE;
/* Do all line filters take this line? */
enum status logql_filter(const struct logql_query *q, struct strview line, bool *ret_matches,
                         struct error *err) MUST_USE;

#endif
