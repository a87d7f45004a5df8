/* Inside of the gRPC server: for runtime/grpc/ alone.
 *
 *   grpc_server.c  start, drain, free, sweep     grpc_session.c  nghttp2: what comes in
 *   grpc_conn.c    the sockets                   grpc_answer.c   nghttp2: what goes out
 *   grpc_tls.c     certificates                  grpc_call.c     what handlers call
 *   grpc_frames.c  length-prefixed messages      grpc_text.c     grpc-timeout, grpc-message
 *   grpc_health.c, grpc_reflection.c             the two services that every server has
 *
 * A session knows nothing of sockets: bytes go in by session_receive(), come out by session_take_output(),
 * and it says by its owner's wants_output() when there is something to take. */
#ifndef BALM_GRPC_GRPC_IMPL_H
#define BALM_GRPC_GRPC_IMPL_H

#include <nghttp2/nghttp2.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/list.h"
#include "grpc/grpc.h"
#include "server/tls_pair.h"

#define GRPC_PREFIX_BYTES 5 /* a flag and the message's length, big-endian */
/* Of one request's head. HPACK unpacks a few bytes to many. */
#define GRPC_HEAD_MAX_BYTES (16 * 1024)
#define GRPC_HEADERS_MAX    64
/* Heads and messages of calls that are not over, by what their arenas hold: thousands of streams that each
 * begin a message, on one connection and on all. */
#define GRPC_HELD_MAX_BYTES        ((size_t)8 * 1024 * 1024)
#define GRPC_SERVER_HELD_MAX_BYTES ((size_t)64 * 1024 * 1024)
/* Of one call in all: its arena lives as long as its handler runs. */
#define GRPC_CALL_MAX_BYTES ((size_t)4 * 1024 * 1024)
/* What an answered call may keep for the next one. */
#define GRPC_KEEP_BYTES ((size_t)4 * 1024)
/* Of one call, that its client has not taken: a handler that sends more waits. */
#define GRPC_OUT_MAX_BYTES    ((size_t)64 * 1024)
#define GRPC_MESSAGE_TEXT_MAX 1024            /* of grpc-message, escaped */
#define GRPC_KEEPALIVE_NS     (60 * NS_PER_S) /* a PING where streams are open and nothing comes */
#define GRPC_DEAD_NS          (20 * NS_PER_S) /* and no answer to it */
#define GRPC_WRITE_NS         (30 * NS_PER_S) /* a client that takes nothing for so long is cut */
#define GRPC_SWEEP_MS         1000

/* ---- grpc_text.c ---- */

#define GRPC_NO_TIMEOUT INT64_MAX
/* "250m": 1 to 8 digits and H, M, S, m, u or n. STATUS_INVALID_ARGUMENT: anything else. */
enum status grpc_timeout_parse(struct strview text, int64_t *ret_ns) MUST_USE;
/* Percent-encoded but for printable ASCII; cut at a whole character where it would be longer than the rest of
 * the buffer. */
void grpc_message_escape(struct strview message, struct buf *io_text);

/* ---- grpc_frames.c ---- */

/* Messages out of bytes that come in any pieces. Zeroed but for max_bytes at first. */
struct grpc_frames {
    size_t max_bytes;
    uint8_t prefix[GRPC_PREFIX_BYTES];
    size_t n_prefix;
    size_t len, got; /* of the message under way, its bytes in `message` */
    char *message;   /* arena */
};
/* Takes from *io_bytes up to the end of the next message. STATUS_OK: *ret_message is one (arena).
 * STATUS_NOT_FOUND: all bytes are taken, no message is complete. STATUS_RESOURCE_EXHAUSTED: longer than the
 * limit. STATUS_INTERNAL: compressed, or a flag that is none. */
enum status grpc_frames_next(struct grpc_frames *f, struct arena *a, struct strview *io_bytes,
                             struct strview *ret_message, struct error *err) MUST_USE;
/* Is a message under way? At the end of the stream it is cut off. */
static inline bool grpc_frames_is_inside(const struct grpc_frames *f)
{
    return f->n_prefix > 0;
}

/* ---- calls ---- */

struct grpc_header {
    struct list node;
    struct strview name, value; /* behind it */
};

struct grpc_message {
    struct list node;
    struct strview bytes;
};

struct grpc_call {
    struct list node;             /* in session->calls, or server->idle_calls */
    struct list ready_node;       /* in server->ready_calls: its handler is to run */
    struct grpc_session *session; /* NULL: the stream is gone */
    struct grpc_server *server;
    int32_t stream_id;
    const struct grpc_service *service;
    const struct grpc_method *method; /* NULL: answered without one */
    struct arena arena;

    /* what came */
    struct strview path, http_method;
    struct list headers; /* of struct grpc_header */
    size_t n_headers, head_bytes;
    struct grpc_frames frames;
    struct list messages; /* of struct grpc_message, not taken yet */
    size_t n_messages, held_bytes, unconsumed_bytes;
    bool is_half_closed;
    struct fiber_event arrived;

    /* what goes */
    struct buf out; /* framed */
    size_t out_offset, n_sent;
    bool is_head_sent, is_deferred;
    bool is_answered; /* the status is decided: nothing more is sent */
    bool is_reset;
    enum status status;
    char message[ERROR_MESSAGE_MAX];
    struct fiber_event drained;
    int64_t progress_ns;

    /* who works on it */
    bool is_running, is_detached;
    int64_t opened_ns, deadline_ns;
    void (*on_gone)(void *arg);
    void *on_gone_arg;
};

/* ---- grpc_session.c ---- */

struct grpc_session {
    nghttp2_session *h2;
    struct grpc_server *server;
    void (*wants_output)(void *arg); /* from anywhere on the loop's thread, often */
    void *arg;
    struct list calls;
    unsigned n_calls;
    size_t held_bytes;
    bool is_draining, is_ending;
    int64_t heard_ns, pinged_ns; /* pinged: 0 while no answer is awaited */
};

enum status session_init(struct grpc_session *ss, struct grpc_server *server, void (*wants_output)(void *arg),
                         void *arg) MUST_USE;
/* Its calls are gone then. */
void session_release(struct grpc_session *ss);
/* STATUS_INVALID_ARGUMENT: not HTTP/2, or a broken one; send what there is and close. */
enum status session_receive(struct grpc_session *ss, const void *bytes, size_t len) MUST_USE;
/* Up to max bytes behind what `out` has. STATUS_INTERNAL: close. */
enum status session_take_output(struct grpc_session *ss, struct buf *out, size_t max) MUST_USE;
/* Nothing more will come or go. */
bool session_is_over(const struct grpc_session *ss);
/* The first GOAWAY, which refuses nothing yet; then the second, with the last stream that was taken. */
void session_drain(struct grpc_session *ss);
void session_drain_now(struct grpc_session *ss);
/* Once a second: keepalive, requests and answers that do not move. False: the peer is dead. */
bool session_sweep(struct grpc_session *ss, int64_t now_ns);

/* ---- grpc_answer.c ---- */

/* HTTP status without gRPC, for peers that speak none. */
void answer_http(struct grpc_call *call, const char *http_status);
/* A message behind those that wait. */
void answer_message(struct grpc_call *call, struct strview message);
/* The end; once. Trailers-Only where no message came before. */
void answer_status(struct grpc_call *call, enum status status, const char *message);
/* Without one: the deadline has passed or nobody listens. */
void answer_reset(struct grpc_call *call, uint32_t http2_code);

/* ---- grpc_call.c ---- */

/* The head is in (bidirectional), or the whole request. */
void call_start(struct grpc_call *call);
/* The stream is closed; frees the call unless its handler runs. */
void call_gone(struct grpc_call *call);
/* What came of it is needed no more. */
void call_drop_request(struct grpc_call *call);
struct grpc_call *call_new(struct grpc_session *ss, int32_t stream_id);
void call_free_idle(struct grpc_server *s);

/* ---- grpc_server.c ---- */

struct grpc_server {
    struct loop *loop;
    struct grpc_cfg cfg;
    char *host, *name;                    /* owned copies */
    const struct grpc_service **services; /* the cfg's, then health and reflection */
    size_t n_services;
    uint16_t port;
    bool is_serving, is_draining, is_accepting;
    struct st_h2o_socket_t *listener; /* NULL after a drain */
    struct tls_pair *tls;             /* NULL: plain */
    struct grpc_token *token;         /* NULL: none is asked for */
    struct list conns, idle_calls, ready_calls;
    bool has_runner; /* a fiber that has not begun with the ready calls is on its way */
    unsigned n_conns, n_idle, n_running, n_health_watches;
    size_t held_bytes;          /* of all sessions */
    struct fiber_scope scope;   /* handlers */
    struct fiber_scope upkeep;  /* sweep, token */
    struct fiber_event quiet;   /* set while there is neither connection nor handler */
    struct list health_watches; /* grpc_health.c's */
};

const struct grpc_method *server_find_method(const struct grpc_server *s, struct strview path,
                                             const struct grpc_service **ret_service);
void grpc_notice_quiet(struct grpc_server *s);

/* ---- grpc_token.c ---- */

enum status grpc_token_start(struct grpc_server *s, const char *file, struct error *err) MUST_USE;
void grpc_token_free(struct grpc_token *t);
/* Does it carry the token that is in force? */
bool server_may_call(const struct grpc_server *s, const struct grpc_call *call);

/* ---- grpc_conn.c ---- */

enum status conns_listen(struct grpc_server *s, struct error *err) MUST_USE;
void conns_stop_listening(struct grpc_server *s);
/* is_last: calls that are not taken yet are refused from now on. */
void conns_drain(struct grpc_server *s, bool is_last);
void conns_sweep(struct grpc_server *s, int64_t now_ns);
void conns_cut(struct grpc_server *s);

/* ---- the services of every server ---- */

extern const struct grpc_service grpc_health_service, grpc_reflection_service, grpc_reflection_alpha_service;
/* Tells those who watch and do not know yet. */
void health_notice(struct grpc_server *s);

#endif
