/* The sockets: a session's bytes on h2o's evloop, plain or in TLS.
 *
 *   listener -> conn_open -> [handshake] -> read -> session_receive
 *                                            ^ |
 *                          wants_output -----|-+--> flush, once a turn -> write -> flush
 *
 * Closed by shutdown(2) from outside; only on_read and on_written close it through h2o. */
#include <errno.h>
#include <h2o.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/memory.h"
#include "grpc/grpc_impl.h"
#include "log/log.h"
#include "server/server.h"

#define LISTEN_BACKLOG 1024
#define WRITE_BYTES    ((size_t)64 * 1024)
/* What nghttp2 hands out at once may be a whole frame more. */
#define WRITE_MAX_BYTES (WRITE_BYTES + (size_t)64 * 1024)
#define ACCEPTS_A_TURN  64
/* Of a turn: a burst of requests is begun as the ones before are answered, and others have their turn. */
#define RECEIVE_BYTES ((size_t)16 * 1024)
/* A connection has so long to become one, and an idle one is safe so long. */
#define GREETING_NS (10 * NS_PER_S)

struct grpc_conn {
    struct list node; /* in server->conns */
    struct grpc_server *server;
    h2o_socket_t *sock;
    struct grpc_session session;
    struct loop_deferred flush, receive;
    struct buf out; /* being written */
    int64_t opened_ns, progress_ns;
    bool has_session, is_writing, is_flush_due, is_receive_due, is_broken, is_cut;
};

/* ---- the end ---- */

static void conn_shutdown(struct grpc_conn *c)
{
    if (c->is_cut) return;
    c->is_cut = true;
    (void)shutdown(h2o_socket_get_fd(c->sock), SHUT_RDWR);
}

/* What is due still holds the pointer. */
static void conn_free(struct grpc_conn *c)
{
    if (c->is_flush_due || c->is_receive_due) return;
    buf_release(&c->out);
    free(c);
}

/* h2o has closed it. */
static void on_closed(void *arg)
{
    struct grpc_conn *c = arg;
    struct grpc_server *s = c->server;
    list_remove(&c->node);
    s->n_conns--;
    if (c->has_session) session_release(&c->session);
    c->has_session = false;
    c->sock = NULL;
    conn_free(c);
    grpc_notice_quiet(s);
}

static void conn_close(struct grpc_conn *c)
{
    h2o_socket_read_stop(c->sock);
    h2o_socket_close(c->sock);
}

/* ---- out ---- */

static void conn_write(struct grpc_conn *c);

static void on_written(h2o_socket_t *sock, const char *h2o_err)
{
    struct grpc_conn *c = sock->data;
    c->is_writing = false;
    c->progress_ns = loop_now_ns(c->server->loop);
    if (h2o_err != NULL || c->is_broken)
        conn_close(c);
    else
        conn_write(c);
}

static void conn_write(struct grpc_conn *c)
{
    if (c->is_writing) return;
    buf_reset(&c->out);
    if (session_take_output(&c->session, &c->out, WRITE_BYTES) != STATUS_OK) c->is_broken = true;
    if (c->out.len > 0) {
        h2o_iovec_t bytes = h2o_iovec_init(c->out.ptr, c->out.len);
        c->is_writing = true;
        c->progress_ns = loop_now_ns(c->server->loop);
        h2o_socket_write(c->sock, &bytes, 1, on_written);
    } else if (c->is_broken || session_is_over(&c->session)) {
        conn_close(c);
    }
}

static void on_flush(struct loop_deferred *d)
{
    struct grpc_conn *c = container_of(d, struct grpc_conn, flush);
    c->is_flush_due = false;
    if (c->sock == NULL)
        conn_free(c);
    else
        conn_write(c);
}

/* Once for all that a turn of the loop has to say. */
static void wants_output(void *arg)
{
    struct grpc_conn *c = arg;
    if (c->is_flush_due) return;
    c->is_flush_due = true;
    loop_defer(c->server->loop, &c->flush);
}

/* ---- in ---- */

static void on_read(h2o_socket_t *sock, const char *h2o_err);

/* Nothing is read while something of what was waits. */
static void conn_receive(struct grpc_conn *c)
{
    h2o_socket_t *sock = c->sock;
    size_t n = sock->input->size < RECEIVE_BYTES ? sock->input->size : RECEIVE_BYTES;
    enum status s = session_receive(&c->session, sock->input->bytes, n);
    h2o_buffer_consume(&sock->input, n);
    if (s != STATUS_OK) {
        c->is_broken = true; /* its GOAWAY still goes out */
        h2o_socket_read_stop(sock);
    } else if (sock->input->size > 0) {
        c->is_receive_due = true;
        h2o_socket_read_stop(sock);
        loop_defer(c->server->loop, &c->receive);
    } else {
        h2o_socket_read_start(sock, on_read);
    }
}

static void on_receive(struct loop_deferred *d)
{
    struct grpc_conn *c = container_of(d, struct grpc_conn, receive);
    c->is_receive_due = false;
    if (c->sock == NULL)
        conn_free(c);
    else if (!c->is_broken)
        conn_receive(c);
}

static void on_read(h2o_socket_t *sock, const char *h2o_err)
{
    struct grpc_conn *c = sock->data;
    if (h2o_err != NULL)
        conn_close(c);
    else
        conn_receive(c);
}

static void conn_greet(struct grpc_conn *c)
{
    if (session_init(&c->session, c->server, wants_output, c) != STATUS_OK) {
        conn_close(c);
        return;
    }
    c->has_session = true;
    if (c->server->is_draining) session_drain(&c->session);
    conn_receive(c);
}

static void on_handshake(h2o_socket_t *sock, const char *h2o_err)
{
    struct grpc_conn *c = sock->data;
    h2o_iovec_t protocol =
        h2o_err == NULL ? h2o_socket_ssl_get_selected_protocol(sock) : h2o_iovec_init(NULL, 0);
    if (h2o_err != NULL || !sv_eq(sv_n(protocol.base, protocol.len), SV("h2")))
        conn_close(c);
    else
        conn_greet(c);
}

static void conn_open(struct grpc_server *s, h2o_socket_t *sock)
{
    struct grpc_conn *c = mem_zalloc(1, sizeof(*c));
    c->server = s;
    c->sock = sock;
    c->flush.fn = on_flush;
    c->receive.fn = on_receive;
    c->opened_ns = c->progress_ns = loop_now_ns(s->loop);
    buf_init(&c->out, WRITE_MAX_BYTES);
    sock->data = c;
    sock->on_close.cb = on_closed;
    sock->on_close.data = c;
    list_push_back(&s->conns, &c->node);
    s->n_conns++;
    fiber_event_reset(&s->quiet);
    if (s->tls != NULL)
        h2o_socket_ssl_handshake(sock, tls_pair_ctx(s->tls), NULL, on_handshake);
    else
        conn_greet(c);
}

/* ---- the listener ---- */

static bool is_idle(const struct grpc_conn *c, int64_t now_ns)
{
    bool is_new = now_ns - c->opened_ns < GREETING_NS;
    return !is_new && !c->is_cut && (!c->has_session || c->session.n_calls == 0);
}

/* One that nobody uses gives way to somebody new. */
static bool make_room(struct grpc_server *s)
{
    if (s->n_conns < s->cfg.max_connections) return true;
    int64_t now_ns = loop_now_ns(s->loop);
    for (struct list *node = s->conns.next; node != &s->conns; node = node->next) {
        struct grpc_conn *c = container_of(node, struct grpc_conn, node);
        if (is_idle(c, now_ns)) {
            conn_shutdown(c);
            return true;
        }
    }
    return false;
}

/* Out of descriptors: the sweep tries again. */
static void accept_failed(struct grpc_server *s)
{
    if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) return;
    log_warn("grpc", "cannot accept for now, trying again", LOG_STR("server", s->cfg.name),
             LOG_STR("error", strerror(errno)));
    h2o_socket_read_stop(s->listener);
    s->is_accepting = false;
}

static void on_connection(h2o_socket_t *listener, const char *h2o_err)
{
    struct grpc_server *s = listener->data;
    if (h2o_err != NULL) return;
    for (unsigned i = 0; i < ACCEPTS_A_TURN && s->is_accepting; i++) {
        h2o_socket_t *sock = h2o_evloop_socket_accept(listener);
        if (sock == NULL) {
            accept_failed(s);
            return;
        }
        if (make_room(s))
            conn_open(s, sock);
        else
            h2o_socket_close(sock);
    }
}

static void accept_start(struct grpc_server *s)
{
    if (s->listener == NULL || s->is_accepting) return;
    s->is_accepting = true;
    h2o_socket_read_start(s->listener, on_connection);
}

enum status conns_listen(struct grpc_server *s, struct error *err)
{
    int fd = s->cfg.listen_fd;
    enum status st = fd >= 0 ? STATUS_OK : server_bind(s->cfg.host, s->cfg.port, &fd, err);
    if (st != STATUS_OK) return st;
    if (listen(fd, LISTEN_BACKLOG) != 0) {
        st = error_set(err, status_from_errno(errno), "listen for gRPC: %s", strerror(errno));
        if (fd != s->cfg.listen_fd) (void)close(fd);
        return st;
    }
    s->port = server_bound_port(fd);
    s->listener = h2o_evloop_socket_create(loop_h2o(s->loop), fd, H2O_SOCKET_FLAG_DONT_READ);
    s->listener->data = s;
    accept_start(s);
    return STATUS_OK;
}

void conns_stop_listening(struct grpc_server *s)
{
    if (s->listener == NULL) return;
    h2o_socket_read_stop(s->listener);
    h2o_socket_close(s->listener);
    s->listener = NULL;
    s->is_accepting = false;
}

/* ---- all of them ---- */

void conns_drain(struct grpc_server *s, bool is_last)
{
    for (struct list *node = s->conns.next; node != &s->conns; node = node->next) {
        struct grpc_conn *c = container_of(node, struct grpc_conn, node);
        if (!c->has_session)
            conn_shutdown(c);
        else if (is_last)
            session_drain_now(&c->session);
        else
            session_drain(&c->session);
    }
}

static bool is_dead(struct grpc_conn *c, int64_t now_ns)
{
    if (!c->has_session) return now_ns - c->opened_ns > GREETING_NS;
    if (c->is_writing && now_ns - c->progress_ns > GRPC_WRITE_NS) return true;
    return !session_sweep(&c->session, now_ns);
}

void conns_sweep(struct grpc_server *s, int64_t now_ns)
{
    struct list *next;
    for (struct list *node = s->conns.next; node != &s->conns; node = next) {
        next = node->next;
        struct grpc_conn *c = container_of(node, struct grpc_conn, node);
        if (is_dead(c, now_ns)) conn_shutdown(c);
    }
    accept_start(s);
}

void conns_cut(struct grpc_server *s)
{
    for (struct list *node = s->conns.next; node != &s->conns; node = node->next)
        conn_shutdown(container_of(node, struct grpc_conn, node));
}
