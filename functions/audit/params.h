/* Parameters of a request to the query API, from the query string and, in a POST, from the form in the body;
 * read as Loki reads them (grafana/loki: pkg/loghttp/params.go, query.go; contracts/alertmanager-loki.md
 * §3.3). Pure. */
#ifndef BALM_FUNCTIONS_AUDIT_PARAMS_H
#define BALM_FUNCTIONS_AUDIT_PARAMS_H

#include "server/http.h"

#define PARAMS_MAX       64
#define QUERY_LIMIT_MAX  5000 /* lines of one answer, as Loki's max_entries_limit_per_query */
#define QUERY_POINTS_MAX 11000

struct params {
    struct {
        struct strview name, value;
    } items[PARAMS_MAX]; /* arena */
    size_t n;
};

/* STATUS_INVALID_ARGUMENT: a bad escape. STATUS_RESOURCE_EXHAUSTED: too many. */
enum status params_read(const struct http_req *req, struct params *ret_params, struct error *err) MUST_USE;
/* First value, the empty view where there is none. */
struct strview params_get(const struct params *p, struct strview name);

struct time_range {
    int64_t start_ns, end_ns;
}; /* start <= t < end */

/* start, end, since. Times as params_time(); end is now where it is not given, start an hour earlier. */
enum status params_range(const struct params *p, int64_t now_ns, struct time_range *ret_range,
                         struct error *err) MUST_USE;
/* "1763820084.5" and up to ten digits: seconds; more digits: nanoseconds; else RFC 3339. Empty: `otherwise`.
 */
enum status params_time(struct strview text, int64_t otherwise, int64_t *ret_ns) MUST_USE;

struct range_params {
    struct time_range range;
    size_t limit;
    bool is_forward;
};

/* limit, direction, step and interval besides; the latter two are checked and have no effect on lines. */
enum status params_query_range(const struct params *p, int64_t now_ns, struct range_params *ret_params,
                               struct error *err) MUST_USE;

#endif
