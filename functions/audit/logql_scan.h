/* The words of LogQL, for logql.c: white space and comments are passed over, texts unquoted, errors as Loki
 * words them. */
#ifndef BALM_FUNCTIONS_AUDIT_LOGQL_SCAN_H
#define BALM_FUNCTIONS_AUDIT_LOGQL_SCAN_H

#include "base/arena.h"

struct logql_scan {
    struct strview text;
    size_t at;
    struct arena *arena;
    struct error *err;
};

/* The next byte that is neither white space nor comment; '\0' at the end. */
char logql_peek(struct logql_scan *s);
/* `word` is next: pass over it. A word of letters must not go on with one. */
bool logql_take(struct logql_scan *s, const char *word);
/* "parse error at line L, col C: " and the formatted words; the place is the next byte. */
enum status logql_fail(struct logql_scan *s, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* [a-zA-Z_][a-zA-Z0-9_]* */
bool logql_identifier(struct logql_scan *s, struct strview *ret_name);
/* "…" with Go's escapes, or `…`. */
enum status logql_text(struct logql_scan *s, struct strview *ret_text) MUST_USE;
bool logql_number(struct logql_scan *s, double *ret_number);

#endif
