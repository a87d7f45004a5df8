/* gRPC server on nghttp2: HTTP/2 with prior knowledge, or TLS with ALPN h2.
 *
 *   bytes -> session (nghttp2, pure) -> grpc_call: head, messages -> fiber: handler() -> messages, trailers
 *                                          |
 *                                          +-- the deadline passes: all of the handler's waits say so;
 *                                              its client resets it, the connection ends: those on the call
 *
 * A unary handler runs once its whole request is there. One that serves a stream for long may give its fiber
 * up (grpc_call_detach()) and be told by grpc_try_send() from then on: a thousand idle streams cost no
 * stacks.
 *
 * What the wire looks like: contracts of gRPC over HTTP/2 (grpc/grpc doc/PROTOCOL-HTTP2.md) and grpc-go's
 * behaviour. Answers are never compressed. PINGs are answered and never policed. Loop thread only. */
#ifndef BALM_GRPC_GRPC_H
#define BALM_GRPC_GRPC_H

#include "base/arena.h"
#include "fiber/fiber.h"
#include "loop/loop.h"

struct grpc_server;
struct grpc_call;

/* Where the cfg says 0. */
#define GRPC_MESSAGE_MAX_BYTES ((size_t)64 * 1024)
#define GRPC_STREAMS_MAX       4096 /* KEDA opens two for each push trigger, on one connection */
#define GRPC_CONNECTIONS_MAX   256
#define GRPC_CALL_TIMEOUT_NS   (INT64_C(10) * 1000 * 1000 * 1000)

/* Runs as a fiber; call is valid until it returns (or longer: grpc_call_detach()). What it returns is the
 * call's status, err's message its grpc-message. A unary handler that returns STATUS_OK has sent exactly one
 * message. */
typedef enum status grpc_handler_fn(void *arg, struct grpc_call *call, struct error *err);

enum grpc_kind {
    GRPC_UNARY,         /* one message in, one out */
    GRPC_SERVER_STREAM, /* one in, many out */
    GRPC_BIDI_STREAM,   /* many in, many out: the handler starts with the head */
};

struct grpc_method {
    const char *path; /* "/package.Service/Method" */
    enum grpc_kind kind;
    grpc_handler_fn *handler;
};

struct grpc_service {
    const char *name; /* "package.Service" */
    const struct grpc_method *methods;
    size_t n_methods;
    void *arg;                 /* the handlers' */
    struct strview descriptor; /* a serialised FileDescriptorSet with all that it imports, for reflection */
};

struct grpc_cfg {
    const char *host;                           /* an address, no name */
    uint16_t port;                              /* 0: picked, see grpc_server_port() */
    int listen_fd;                              /* or a socket that is bound (moved on success); -1: none */
    const struct grpc_service *const *services; /* borrowed until grpc_server_free() */
    size_t n_services;
    /* TLS 1.2 or 1.3, as server.h has it; client_ca_file: a client without a certificate of it is refused. */
    const char *tls_cert_file, *tls_key_file, *tls_client_ca_file;
    /* Each call but health checks has to carry "authorization: Bearer TOKEN"; read again when it changes.
     * NULL: none is asked for. */
    const char *token_file;
    size_t max_message_bytes;
    unsigned max_streams; /* of one connection */
    unsigned max_connections;
    int64_t call_timeout_ns; /* of a unary handler, and for a whole request to come in */
    const char *name;        /* for logs: "scaler" */
};

/* Binds, listens, accepts; strings of the cfg are copied. Serves grpc.health.v1.Health and
 * grpc.reflection.v1.ServerReflection (and its v1alpha) besides. From a fiber. */
enum status grpc_server_start(struct loop *l, const struct grpc_cfg *cfg, struct grpc_server **ret_server,
                              struct error *err) MUST_USE;
/* The one it listens on, also where the cfg said 0. */
uint16_t grpc_server_port(const struct grpc_server *s);
/* What health checks are told, "" and every service alike; true at the start. */
void grpc_server_set_serving(struct grpc_server *s, bool is_serving);
/* Refuses new connections and calls, ends detached calls with STATUS_OK (only a clean end lets KEDA come back
 * at once), lets handlers end; suspends until nothing is left or the deadline.
 * STATUS_DEADLINE_EXCEEDED: some were still running; they are cancelled then. */
enum status grpc_server_drain(struct grpc_server *s, int64_t deadline_ns) MUST_USE;
/* After a drain, or at once. From a fiber. NULL does nothing. */
void grpc_server_free(struct grpc_server *s);

/* ---- for handlers ---- */

/* Dies as the handler returns, and so does all that came with the request. */
struct arena *grpc_call_arena(struct grpc_call *call);
/* Request metadata by its lower-case name; empty where there is none. */
struct strview grpc_call_metadata(const struct grpc_call *call, struct strview name);
/* The next message, whole, in the arena; suspends. STATUS_NOT_FOUND: the client has sent its last. */
enum status grpc_receive(struct grpc_call *call, struct strview *ret_message, struct error *err) MUST_USE;
/* Suspends while the client takes nothing. STATUS_CANCELLED: it is gone. STATUS_RESOURCE_EXHAUSTED: the
 * message is over the limit. */
enum status grpc_send(struct grpc_call *call, struct strview message, struct error *err) MUST_USE;

/* The call lives on behind the handler's return (STATUS_OK) until grpc_call_finish() or until it is gone:
 * on_gone(arg) is called then, once, and the pointer is void afterwards. */
void grpc_call_detach(struct grpc_call *call, void (*on_gone)(void *arg), void *arg);
/* Of a detached call. STATUS_RESOURCE_EXHAUSTED: the message before has not left yet. */
enum status grpc_try_send(struct grpc_call *call, struct strview message) MUST_USE;
/* Ends a detached call; the pointer is void afterwards, and on_gone is not called. */
void grpc_call_finish(struct grpc_call *call, enum status status, const char *message);

#endif
