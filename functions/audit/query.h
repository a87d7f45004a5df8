/* A query for lines: which blocks of the journal can have some, reading them, keeping the newest (or oldest)
 * `limit` of those that match.
 *
 *   newest block first (oldest for forward) --index says it cannot match, or cannot be better than what is
 * kept--> next block | else
 *        v
 *   journal_read (worker) --> filter: time, labels, line filters (worker) --> heap of `limit` lines, the
 * worst on top --> next block
 *
 * Bounded: lines, bytes kept, time. */
#ifndef BALM_FUNCTIONS_AUDIT_QUERY_H
#define BALM_FUNCTIONS_AUDIT_QUERY_H

#include "functions/audit/index.h"
#include "functions/audit/logql.h"
#include "functions/audit/params.h"

#define QUERY_KEPT_BYTES_MAX (32 * 1024 * 1024)

struct line { /* what an answer has of a record */
    int64_t time_ns;
    uint64_t seq;
    enum record_kind kind;
    struct strview function; /* inside bytes */
    struct strview bytes;    /* owned by the query */
};

struct query {
    const struct logql_query *logql; /* borrowed */
    struct range_params params;
    struct line *lines; /* a heap while reading, in the answer's order once query_run() has succeeded */
    size_t n;
    size_t kept_bytes;
    uint64_t read_lines, read_bytes;
    int64_t began_ns; /* monotonic */
};

void query_init(struct query *q, const struct logql_query *logql, struct range_params params);
void query_release(struct query *q);
/* Suspends; at most until deadline_ns. STATUS_INVALID_ARGUMENT: the answer would be too large.
 * STATUS_RESOURCE_EXHAUSTED: a regular expression gave up. STATUS_DEADLINE_EXCEEDED. STATUS_UNAVAILABLE: the
 * store failed, and the index is not whole before it has been reopened. */
enum status query_run(struct query *q, struct journal *j, const struct audit_index *x, int64_t deadline_ns,
                      struct error *err) MUST_USE;
/* Is the index the one of that generation of the journal, and whole? STATUS_UNAVAILABLE: no, some of it is to
 * be folded again. */
enum status query_check_index(const struct journal *j, uint64_t generation, struct error *err) MUST_USE;
/* Does the selector take a record of this kind and function? */
enum status query_selects(const struct logql_query *logql, enum record_kind kind, struct strview function,
                          bool *ret_selects, struct error *err) MUST_USE;
/* Time, kind and function of stored bytes, without decoding the rest. False: not a record. */
bool line_peek(struct strview bytes, struct arena *scratch, struct line *ret_line);

#endif
