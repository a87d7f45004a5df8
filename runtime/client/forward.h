/* The gateway's data path: one suspending call that sends a request to a function's replica and brings its
 * answer back, on h2o's sockets with a connection pool per upstream (design §7 says why not h2o's proxy
 * handler and not curl, answer.h why not its client). GET and HEAD are sent once more if a pooled connection
 * died before the first byte of the answer; everything else is sent once, since whoever read it may have
 * executed it before it died. Total deadline. Loop thread only. */
#ifndef BALM_CLIENT_FORWARD_H
#define BALM_CLIENT_FORWARD_H

#include "client/client.h"
#include "server/server.h"

struct upstream; /* one address with its pool */

/* unix_path or host and port (host a literal address). max_connections: 0 = 256; a call above waits for a
 * free one. */
enum status upstream_new(struct loop *l, const char *unix_path, const char *host, uint16_t port,
                         unsigned max_connections, struct upstream **ret_upstream,
                         struct error *err) MUST_USE;
/* Idle connections are closed; calls under way must have ended. */
void upstream_free(struct upstream *u);
unsigned upstream_inflight(const struct upstream *u);

struct forward_spec {
    struct strview method, target, authority;
    const struct http_header *headers; /* hop-by-hop ones are dropped here (openfaas.md §1.10) */
    size_t n_headers;
    struct strview body;
    int64_t deadline_ns;   /* required */
    size_t max_body_bytes; /* of a buffered answer; 0: 8 MiB */
    bool is_foreign;       /* what only this runtime says of an answer is not passed on (_stream) */
    bool is_repeatable;    /* also if it is no GET or HEAD: executed twice, it does no more than once */
};

/* Is it for the next hop as well: neither of this connection alone (RFC 9110 §7.6.1; `connection` is the
 * value of that header) nor written anew for each? */
bool forward_goes_on(const struct http_header *h, struct strview connection);
/* Whole answer into the arena. err->can_retry: no connection had taken the request (of a GET or HEAD: or it
 * can be sent again), so nothing was executed for sure. STATUS_UNAVAILABLE: could not connect or cut before
 * the first byte; STATUS_UNKNOWN: cut after that; STATUS_DEADLINE_EXCEEDED; STATUS_RESOURCE_EXHAUSTED: answer
 * too large. */
enum status http_forward(struct upstream *u, const struct forward_spec *spec, struct arena *a,
                         struct http_reply *ret_reply, struct error *err) MUST_USE;
/* Same, but status, headers and body go on to `resp` as they come, each part flushed; small complete
 * answers are sent in one piece. Fails only before anything was sent on; *ret_status is the upstream's. */
enum status http_forward_stream(struct upstream *u, const struct forward_spec *spec,
                                const struct http_req *req, struct http_resp *resp, int *ret_status,
                                struct error *err) MUST_USE;
/* Headers of an answer that only the runtime has a right to. */
bool forward_is_ours(struct strview name);

#endif
