/* Inside of the server: for runtime/server/ alone.
 *
 *   server.c           start, drain, free            server_check.c     requests refused before a handler
 *   server_listen.c    the port, accepting, its cap  server_exchange.c  request in, fiber, whole answer out
 *   server_conn.c      connections and their peers   server_stream.c    answers in parts
 *   server_sweep.c     what h2o has no limit for     server_memory.c    how much clients may fill
 *   server_http2.c     the same for HTTP/2          server_chunks.c    chunked bodies, read strictly
 *   tls_pair.c         certificate and key     response.c http.c  plain values
 *
 * Who lives how long:
 *
 *   h2o_socket_t --on_close--> server_conn <--------------+        freed when the socket is closed and no
 * exchange is left h2o_req_t.pool --link, cut by on_request_gone--> server_exchange   recycled when the fiber
 * has returned and the request is gone
 *
 * A connection is closed by shutdown(2) on its descriptor, never through h2o's structs: h2o then sees the end
 * of the file or a failed write in its own time and unwinds by its own paths. */
#ifndef BALM_SERVER_SERVER_IMPL_H
#define BALM_SERVER_SERVER_IMPL_H

#include <h2o.h>
#include <netinet/in.h>

#include "base/arena.h"
#include "base/list.h"
#include "server/server.h"
#include "server/tls_pair.h"

/* Where the cfg says 0. */
#define SERVER_BODY_MAX_BYTES     (8 * 1024 * 1024)
#define SERVER_CONNECTIONS_MAX    1024
#define SERVER_REQUEST_TIMEOUT_NS (10 * NS_PER_S)
#define SERVER_WRITE_TIMEOUT_NS   (30 * NS_PER_S)
/* Of one request. h2o would take 408 KiB, and HPACK unpacks that to gigabytes. */
#define SERVER_HEAD_MAX_BYTES (64 * 1024)
/* Unfinished requests of all connections together: slow senders by the thousand. */
#define SERVER_INPUT_MAX_BYTES (128 * 1024 * 1024)
/* Bodies of requests under way, and answers on their way out, of all connections together: clients that send
 * much or read nothing, by the thousand. */
#define SERVER_HELD_MAX_BYTES (128 * 1024 * 1024)
#define SERVER_SMALL_BYTES    (64 * 1024) /* not counted */
/* Each of the two is at most this part of what the process may have. */
#define SERVER_MEMORY_SHARE 8
/* Of a large answer: progress is seen once a part. */
#define SERVER_PART_BYTES (128 * 1024)
/* Copied, so that a cancelled writer leaves nothing behind in h2o. */
#define SERVER_STREAM_PART_BYTES (32 * 1024)
/* Kept for reuse. */
#define SERVER_IDLE_EXCHANGES_MAX 128
/* An HTTP/2 connection: streams that are reset leave their handlers running (rapid reset, CVE-2023-44487). */
#define SERVER_H2_EXCHANGES_MAX 128
/* In one turn of the loop; h2o lets 100 be open at once. */
#define SERVER_H2_REQUESTS_A_TURN 400
/* What the kernel takes in for a connection until we read it, and h2o then works through in one go. */
#define SERVER_H2_RECEIVE_BYTES (64 * 1024)
/* It may reset that many more than it lets us answer. */
#define SERVER_H2_RESETS_MAX 100
/* A connection has at least so long to say what it wants before it may have to give way. */
#define SERVER_REST_MIN_NS (100 * NS_PER_MS)
/* Cheap beside a request; a turn may be long, and whoever waits in the queue waits for many of them. */
#define SERVER_ACCEPTS_A_TURN 256
/* Where one that rests gives way to each: its descriptor is free only a turn later. */
#define SERVER_ACCEPTS_FULL 16
#define SERVER_REQUESTS_A_TURN                                                                               \
    16 /* of one connection, until others have had theirs; fewer of a long turn                              \
        */
/* Bytes on an HTTP/2 connection that no request explains, beside one body: floods of PING, SETTINGS,
 * PRIORITY, empty DATA or CONTINUATION frames (CVE-2019-9512 to 9518), and the bodies of a hundred streams at
 * once. */
#define SERVER_H2_CONTROL_MAX_BYTES (1024 * 1024)
#define SERVER_H2_CONTROL_A_SECOND  (16 * 1024) /* more of it with the connection's age */
/* Between two lines about one trouble that a client can make again and again. */
#define SERVER_WARN_PACE_NS  (10 * NS_PER_S)
#define SERVER_LINGER_NS     (2 * NS_PER_S)
#define SERVER_PEER_BUCKETS  64
#define SERVER_PEER_TEXT_MAX 56 /* [ipv6]:port */

struct server_peer { /* one address that is counted */
    struct list node;
    uint8_t address[16];
    uint8_t address_len;
    unsigned connections;
};

union server_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_storage storage;
};

struct server_conn {
    struct list node; /* in server->conns until closed; the one that has rested longest is the first */
    struct server *server;
    h2o_socket_t *sock;       /* NULL once h2o has closed it */
    struct server_peer *peer; /* NULL where peers are not counted */
    unsigned requests;        /* that h2o still holds and a handler has seen */
    unsigned exchanges;       /* those, and vanished ones whose handler runs on */
    unsigned resets, answers;
    unsigned requests_in_turn;
    uint64_t turn_ms;
    bool is_http2, is_cut;
    int64_t opened_ns, rest_ns;        /* rest: since then no request is under way, where there is none */
    uint64_t explained_bytes;          /* HTTP/2: that requests came in */
    const h2o_conn_callbacks_t *http1; /* h2o's, as the connection began */
    int linger_fd;                     /* -1, or a duplicate that outlives h2o's close: see conn_linger() */
    uint8_t peer_text_len;
    char peer_text[SERVER_PEER_TEXT_MAX];
};

/* In req->pool's care; the only way from a fiber to h2o's request. */
struct server_link {
    h2o_req_t *req;
    struct server_exchange *exchange;
};

struct http_stream {
    struct fiber_event moved; /* h2o took the last part, or the request is gone */
    bool is_started;
    bool is_busy;   /* h2o holds `part` */
    bool is_ended;  /* the handler has returned; the end is sent when h2o lets go of the last part */
    bool is_broken; /* must not look complete to the client */
    bool is_chunked, has_length, is_bodiless;
    uint64_t left_bytes; /* where has_length */
    char *part;          /* arena; SERVER_STREAM_PART_BYTES */
    char chunk_head[24];
};

struct server_exchange {
    struct list node; /* in server->exchanges, or idle */
    struct server *server;
    struct server_conn *conn;
    struct server_link *link; /* NULL: the client has left, or the answer is out */
    bool is_running;          /* the fiber has not returned */
    int64_t progress_ns;      /* when h2o last took bytes of the answer */
    size_t sent_bytes;        /* of resp.body, handed to h2o */
    size_t held_bytes;        /* of server->held_bytes */
    h2o_generator_t generator;
    struct http_stream stream;
    struct arena arena;
    struct http_req req;
    struct http_resp resp;
};

struct server {
    struct loop *loop;
    struct server_cfg cfg;
    char *name, *host, *unix_path; /* owned copies for cfg */
    h2o_globalconf_t config;
    h2o_context_t ctx;
    h2o_accept_ctx_t accept;
    h2o_socket_t *listener; /* NULL after a drain */
    bool is_accepting, is_draining;
    uint16_t port;
    unsigned n_conns, n_cut;        /* cut: still among them, gone in a turn */
    unsigned accept_failures, cuts; /* since the last line about them */
    int64_t accept_warned_ns, cut_warned_ns;
    size_t held_bytes, held_max_bytes, input_max_bytes;
    bool is_memory_known; /* the two limits are what server_limit_memory() found */
    struct tls_pair *tls; /* NULL: plain */
    struct list conns;
    struct list peers[SERVER_PEER_BUCKETS];
    struct list exchanges, idle_exchanges;
    unsigned n_idle, inflight;
    struct fiber_scope scope;
    struct fiber_event quiet; /* set while there is neither connection nor handler */
    h2o_timeout_entry_t sweep, accept_retry;
    h2o_timeout_t *sweep_pace;
};

/* ---- server.c ---- */

void server_notice_quiet(struct server *s);

/* ---- server_memory.c ---- */

/* Before the first use of the two limits that matters: it reads files, which a start must not wait for. */
void server_limit_memory(struct server *s);
/* Large bodies are read into an unlinked file in $TMPDIR instead of the heap, as long as there is a folder
 * with room to write to: a container's root may be read-only, a disk full. */
void server_place_bodies(void);

/* ---- server_listen.c ---- */

/* Opens the listener of the cfg. */
enum status server_listen(struct server *s, struct error *err) MUST_USE;
void server_accept_start(struct server *s);
/* A descriptor has become free. */
void server_accept_resume(struct server *s);
void server_listen_close(struct server *s);

/* ---- server_conn.c ---- */

void conn_open(struct server *s, h2o_socket_t *sock);
struct server_conn *conn_of(const h2o_req_t *req);
/* The last request under way on it has ended. */
void conn_rest(struct server_conn *c);
/* Who has rested longest, to give way to somebody new; NULL: all have requests under way, or have only just
 * come. */
struct server_conn *conn_find_resting(const struct server *s);
/* HTTP/1, while a handler runs: stay in the epoll without reading, until the last part of the answer is
 * handed to h2o. h2o stops and starts reading around each request; where nothing comes in between, and the
 * handler waited for something, that would be two epoll_ctl a request for nothing. */
void conn_watch(struct server_conn *c);
void conn_unwatch(struct server_conn *c);
/* Both directions, at once; h2o closes it during this or the next turn. */
void conn_cut(struct server_conn *c);
/* The same with a reset, for one that abuses us: what is still on its way to the peer is lost. */
void conn_abort(struct server_conn *c);
/* If nothing is under way on it. What the peer has sent already is still served. */
void conn_close_if_idle(struct server_conn *c);
/* Keep the connection for a moment after h2o's close and throw away what comes: else the kernel answers the
 * rest of a refused body with a reset, and the client never reads why. */
void conn_linger(struct server_conn *c);
/* Once the socket is closed and the last exchange gone. */
void conn_settle(struct server_conn *c);

/* ---- server_sweep.c ---- */

/* Runs while there are connections, faster when there are many. */
void server_sweep_start(struct server *s);
void server_sweep_stop(struct server *s);
/* Answers that have not moved for a moment are given up until there is room for so much more; false: there is
 * not, even so. */
bool server_sweep_answers(struct server *s, size_t more_bytes);

/* ---- server_http2.c ---- */

/* Received and of no request that came in whole; 0 for HTTP/1. */
size_t http2_unexplained_bytes(const struct server_conn *c);
/* More than one unfinished body and a few frames beside. */
bool http2_is_flood(const struct server_conn *c);
/* A request has come in whole. False: the connection is cut, and h2o only works through what it has read. */
bool http2_admit(struct server_conn *c, const h2o_req_t *req);
/* It is closed. */
void http2_forget(const struct server_conn *c);

/* ---- server_chunks.c ---- */

/* picohttpparser's, as in h2o 2.2.5. Zeroed at the start of a body, but for consume_trailer. */
struct phr_chunked_decoder {
    size_t bytes_left_in_chunk;
    char consume_trailer, _hex_count, _state;
};
/* buf: io_bytes of the body as it came; then what of it is data, and behind that what is left. Bytes left
 * over behind the end of the body; -1: broken; -2: not complete yet. */
ssize_t phr_decode_chunked(struct phr_chunked_decoder *d, char *buf, size_t *io_bytes);
int phr_decode_chunked_is_in_data(struct phr_chunked_decoder *d);
/* Are these two the ones that h2o calls? */
bool server_chunks_are_ours(void);

/* ---- server_check.c ---- */

/* 0, or the HTTP status of a refusal with its sentence (static). */
int request_check(const h2o_req_t *req, const char **ret_why);
/* The same for the raw head of an HTTP/1 request up to its empty line, names in lower case: framing that two
 * parsers could read differently. */
int head_check(struct strview head, int minor_version, const char **ret_why);

/* ---- server_exchange.c ---- */

int on_request(h2o_handler_t *handler, h2o_req_t *req);
/* A filter of h2o's that gives h2o's own refusals our form and the limit's value. */
void on_answer_setup(h2o_filter_t *filter, h2o_req_t *req, h2o_ostream_t **slot);
/* Status and headers of x->resp to req; the framing is the caller's. */
void exchange_send_head(struct server_exchange *x, h2o_req_t *req);
void exchange_free_idle(struct server *s);

struct server_handler {
    h2o_handler_t super;
    struct server *server;
};
struct server_filter {
    h2o_filter_t super;
    struct server *server;
};

/* ---- server_stream.c ---- */

void stream_init(struct http_stream *st);
/* h2o has taken the last part. */
void stream_proceed(struct server_exchange *x, h2o_req_t *req);
/* The request is gone. */
void stream_gone(struct server_exchange *x);
/* The handler has returned: send the end. Nothing of req may be touched afterwards. */
void stream_end(struct server_exchange *x, h2o_req_t *req);

#endif
