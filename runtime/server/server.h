/* HTTP/1.1 server on h2o; each request is a fiber running one handler.
 *
 *   accept (caps) -> h2o parses, buffers the body (≤ max_body_bytes) -> copy to the exchange's arena
 *        -> fiber: handler() -> answer copied back if the client is still there -> arena released
 *
 * A handler never sees h2o_req_t: with HTTP/2 a vanished client frees it at once, with HTTP/1 nobody looks
 * at the socket while the handler runs (design §2). A vanished client does not cancel the handler; only
 * its deadline does.
 *
 * HTTP/2 by prior knowledge is off unless `http2` (no fix for CVE-2023-44487 in Debian's h2o); with it
 * each connection has a reset budget. Loop thread only. */
#ifndef BALM_SERVER_SERVER_H
#define BALM_SERVER_SERVER_H

#include "fiber/fiber.h"
#include "loop/loop.h"
#include "server/http.h"

struct server;

#define HTTP_RESP_HEADERS_MAX 32

/* What the handler fills. Starts as status 200, no headers, empty body; views must live in req->arena or
 * be static. */
struct http_resp {
    int status;
    struct http_header headers[HTTP_RESP_HEADERS_MAX];
    size_t n_headers;
    struct strview body;
    struct http_stream *stream;       /* server's; non-NULL after http_resp_stream() */
    struct server_exchange *exchange; /* server's */
};

/* Runs as a fiber; req and resp are valid until it returns. Its fiber deadline is not set by the server. */
typedef void http_handler_fn(void *arg, const struct http_req *req, struct http_resp *resp);

/* Adds a header (name lower case); past HTTP_RESP_HEADERS_MAX it is dropped with one log line. */
void http_resp_header(struct http_resp *resp, struct strview name, struct strview value);
/* Status, content type and body in one call. Returns nothing: an answer cannot fail, the client can only
 * be gone. */
void http_resp_set(struct http_resp *resp, int status, struct strview content_type, struct strview body);
/* {"error":"…"} with status_to_http(err->code); retry_after adds "Retry-After: 1" to 503. */
void http_resp_error(struct http_resp *resp, struct arena *a, const struct error *err);

/* Start sending status and headers now and the body in parts: chunked, or of the length that a
 * content-length header given before says. After it resp->body is ignored. STATUS_CANCELLED: the client is
 * gone. */
enum status http_resp_stream(struct http_resp *resp) MUST_USE;
/* Suspends until the part is on its way (its memory may be reused then). STATUS_CANCELLED: the client is
 * gone, or the fiber is cancelled. The handler's return ends the body. */
enum status http_resp_write(struct http_resp *resp, struct strview part) MUST_USE;
/* The body breaks off here: the client must not take it for complete. For an upstream that was cut; then
 * return. */
void http_resp_abort(struct http_resp *resp);
/* Has the client left (seen at writes; on HTTP/2 at once)? */
bool http_resp_is_gone(const struct http_resp *resp);

struct server_cfg {
    const char *host;      /* "127.0.0.1", "0.0.0.0", "::"; NULL with unix_path or listen_fd */
    uint16_t port;         /* 0: picked, see server_port() */
    const char *unix_path; /* or a unix socket; unlinked first */
    int listen_fd;         /* or a socket that is bound or listening already (moved on success); -1: none */
    bool reuse_port;
    bool http2; /* h2c by prior knowledge */
    /* TLS 1.2 or 1.3 with HTTP/1.1: PEM files, the chain's own certificate first; both, or NULL: plain. They
     * are read again within moments of a change, and a pair that cannot be used leaves the one before in
     * force. on_tls_renewed (arg; NULL: nobody) is then called, from a fiber. */
    const char *tls_cert_file, *tls_key_file;
    void (*on_tls_renewed)(void *arg);
    size_t max_body_bytes; /* 0: 8 MiB; beyond: 413 */
    /* 0: 1024, and at most half of the descriptors that the process may have. Beyond: the one that has been
     * idle longest (unfinished requests count as idle) gives way, and where all have requests under way
     * accept pauses (h2o has no cap of its own). */
    unsigned max_connections;
    unsigned max_connections_per_peer; /* by address; 0: no limit */
    int64_t request_timeout_ns; /* header, body and idle time at once (h2o 2.2.5 has one timer); 0: 10 s */
    int64_t write_timeout_ns;   /* a client that takes nothing of its answer for so long is cut; 0: 30 s */
    http_handler_fn *handler;
    void *arg;
    const char *name; /* for logs: "gateway", "metrics" */
};

/* Is it one that `host` can be: IPv4 or IPv6, no name? */
bool server_address_is_valid(const char *host);
/* Takes the address and port for a server that is started later (listen_fd): whoever connects until then is
 * refused, as before. STATUS_INVALID_ARGUMENT: no address; STATUS_ALREADY_EXISTS: somebody has it. */
enum status server_bind(const char *host, uint16_t port, int *ret_fd, struct error *err) MUST_USE;
/* Of a socket that is bound; 0: of a unix socket. */
uint16_t server_bound_port(int fd);
/* Binds, listens, accepts. The cfg is copied; strings too. From a fiber where there is TLS. */
enum status server_start(struct loop *l, const struct server_cfg *cfg, struct server **ret_server,
                         struct error *err) MUST_USE;
/* Of the public key in force, as curl takes it ("sha256//BASE64"); NULL without TLS. Borrowed until it is
 * renewed. */
const char *server_tls_pin(const struct server *s);
/* The one it listens on, also where the cfg said 0; 0 with a unix socket. */
uint16_t server_port(const struct server *s);
unsigned server_inflight(const struct server *s); /* handlers running */
unsigned server_connections(const struct server *s);
/* Stop accepting (close the listener), let requests end, close idle connections; suspends until none is
 * left or the deadline.
 * STATUS_DEADLINE_EXCEEDED: some were still running; they are cancelled then. */
enum status server_drain(struct server *s, int64_t deadline_ns) MUST_USE;
/* After a drain, or at once: cuts connections, cancels handlers and waits for them. From a fiber. */
void server_free(struct server *s);

#endif
