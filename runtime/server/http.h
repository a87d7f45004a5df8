/* What an HTTP request and response are, whoever carries them: shared by server, client and forward.
 * Everything is a view into the arena of its owner (an exchange, a call); header names are lower case. */
#ifndef BALM_SERVER_HTTP_H
#define BALM_SERVER_HTTP_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/strview.h"

#define HTTP_HEADERS_MAX 100 /* h2o's compiled-in limit; more is 400 */

struct http_header {
    struct strview name, value;
};

struct http_req {
    struct strview method;    /* "POST" */
    struct strview target;    /* as sent: path and query */
    struct strview path;      /* target up to '?', not decoded */
    struct strview query;     /* after '?', not decoded; empty if none */
    struct strview authority; /* Host or :authority */
    struct strview peer;      /* "127.0.0.1:40312", "unix" */
    const struct http_header *headers;
    size_t n_headers;
    struct strview body; /* whole */
    struct arena *arena; /* the exchange's: lives until the handler has returned and the answer is sent */
    int64_t received_unix_ns; /* when the request was complete */
    int64_t received_ns;      /* same, monotonic */
    bool is_http2;
};

/* First value, or the empty view. `name` in lower case. */
struct strview http_header_get(const struct http_header *headers, size_t n, struct strview name);
struct strview http_req_header(const struct http_req *req, struct strview name);
/* Value of `key` in the query, percent-decoded into the arena; false if it is not there. */
bool http_query_get(const struct http_req *req, struct strview key, struct strview *ret_value);
/* Percent-decode ('+' stays). STATUS_INVALID_ARGUMENT on a bad escape. */
enum status http_percent_decode(struct arena *a, struct strview s, struct strview *ret_text) MUST_USE;
/* "200" -> "OK"; for messages. */
const char *http_reason(int status);

#endif
