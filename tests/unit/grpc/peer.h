/* A session without sockets, and nghttp2's client as its peer: whole HTTP/2 both ways, in pieces of any size,
 * plus bytes made by hand. A script runs as a fiber beside the handlers' fibers. */
#ifndef BALM_TESTS_GRPC_PEER_H
#define BALM_TESTS_GRPC_PEER_H

#include <criterion/criterion.h>

#include "grpc/grpc_impl.h"

#define ECHO  "/test.Service/Echo"  /* unary: the message comes back */
#define FAIL  "/test.Service/Fail"  /* unary: NOT_FOUND, the message as its text */
#define MUTE  "/test.Service/Mute"  /* unary: OK without a message */
#define WAIT  "/test.Service/Wait"  /* unary: an empty message once `go` is set */
#define SLEEP "/test.Service/Sleep" /* unary: waits for nothing until it is told to end */
#define COUNT "/test.Service/Count" /* server stream: the message as often as its length */
#define WATCH "/test.Service/Watch" /* server stream: detached, see `watched` */
#define TALK  "/test.Service/Talk"  /* bidirectional: each message comes back */
#define TAKE  "/test.Service/Take"  /* bidirectional: takes one whenever `go` is set, counts in `taken` */

/* What came back on one stream. */
struct reply {
    struct list node;
    int32_t stream_id;
    char http_status[8], content_type[64], accept_encoding[32], grpc_message[1100];
    int grpc_status; /* -1: none came */
    char *body;      /* as it came, framed */
    size_t body_len, n_heads, n_data;
    bool is_closed;
    uint32_t code; /* of RST_STREAM */
    bool was_reset;
};

struct peer {
    struct loop *loop;
    struct grpc_server *server;
    struct grpc_session session;
    nghttp2_session *h2;
    struct buf by_hand; /* goes to the session behind what h2 says */
    size_t piece;       /* bytes that the session gets at once; 0: all */
    bool is_broken;     /* the session has refused the bytes */
    struct list replies;
    unsigned n_goaways, n_ping_acks, n_pings, n_settings;
    int32_t goaway_last[4];
    uint32_t goaway_code;
    const char *body; /* request body under way */
    size_t body_len, body_at, body_piece;
    bool is_half_open; /* the body does not end the stream */
    /* of the handlers */
    struct fiber_event go;
    unsigned taken, gone, n_ended;
    enum status ended; /* of the last handler that waited */
    struct grpc_call *watched;
    bool detach_first; /* WATCH detaches, then waits for `go` before it returns */
};

typedef void script_fn(struct peer *p);
/* window: of each stream, for what comes back; 0: HTTP/2's own; NO_WINDOW: none, but what the script opens.
 */
#define NO_WINDOW UINT32_MAX
void with_peer(script_fn *script);
void with_peer_of(const struct grpc_cfg *cfg, uint32_t window, script_fn *script);

/* Moves bytes and lets fibers run until nothing moves any more. */
void settle(struct peer *p);
/* A request; body: framed already. NULL: HEADERS with END_STREAM. */
struct reply *ask(struct peer *p, const char *path, const void *body, size_t len);
/* With headers besides: name, value, …, NULL. A name of the usual ones replaces it; an empty value leaves it
 * out. */
struct reply *ask_with(struct peer *p, const char *path, const void *body, size_t len,
                       const char *const *headers);
/* The same, and the stream stays open on this side. */
struct reply *begin(struct peer *p, const char *path, const void *body, size_t len);
/* "\0" and the length before it; static, until the next one. */
struct strview framed(struct strview message);
/* The n-th message of the reply; false: there is none. */
bool message_of(const struct reply *r, size_t n, struct strview *ret_message);
size_t n_messages(const struct reply *r);
/* A frame by hand. */
void put_frame(struct peer *p, uint8_t type, uint8_t flags, int32_t stream_id, struct strview payload);

#define assert_status(r, code)                                                                               \
    cr_assert_eq((r)->grpc_status, (int)(code), "status %d, \"%s\"", (r)->grpc_status, (r)->grpc_message)

#endif
