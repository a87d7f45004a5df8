/* The connections: who is at the other end, how many of one address there may be, and how one is closed. */
#include "server/server_impl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"

/* Not at each request of a busy connection: moving it touches three others. */
#define REST_STEP_NS (5 * NS_PER_MS)

/* ---- peers ---- */

struct peer_address {
    uint8_t bytes[16];
    uint8_t len;
};

/* Fills c's text and ret_address; both are of fixed form for unix sockets. */
static void read_peer(struct server_conn *c, struct peer_address *ret_address)
{
    union server_address addr = {0};
    char host[INET6_ADDRSTRLEN] = "";
    int len;
    *ret_address = (struct peer_address){.len = 0};
    (void)h2o_socket_getpeername(c->sock, &addr.any);
    if (addr.any.sa_family == AF_INET) {
        (void)inet_ntop(AF_INET, &addr.v4.sin_addr, host, sizeof(host));
        len = snprintf(c->peer_text, sizeof(c->peer_text), "%s:%u", host, ntohs(addr.v4.sin_port));
        ret_address->len = 4;
        memcpy(ret_address->bytes, &addr.v4.sin_addr, 4);
    } else if (addr.any.sa_family == AF_INET6) {
        (void)inet_ntop(AF_INET6, &addr.v6.sin6_addr, host, sizeof(host));
        len = snprintf(c->peer_text, sizeof(c->peer_text), "[%s]:%u", host, ntohs(addr.v6.sin6_port));
        ret_address->len = 16;
        memcpy(ret_address->bytes, &addr.v6.sin6_addr, 16);
    } else {
        len = snprintf(c->peer_text, sizeof(c->peer_text), "unix");
    }
    c->peer_text_len = (uint8_t)len;
}

static struct server_peer *peer_take(struct server *s, const struct peer_address *address)
{
    unsigned hash = address->len;
    for (unsigned i = 0; i < address->len; i++)
        hash = hash * 31 + address->bytes[i];
    struct list *bucket = &s->peers[hash % SERVER_PEER_BUCKETS];
    for (struct list *node = bucket->next; node != bucket; node = node->next) {
        struct server_peer *p = container_of(node, struct server_peer, node);
        if (p->address_len == address->len && memcmp(p->address, address->bytes, address->len) == 0) return p;
    }
    struct server_peer *p = mem_zalloc(1, sizeof(*p));
    memcpy(p->address, address->bytes, address->len);
    p->address_len = address->len;
    list_push_front(bucket, &p->node);
    return p;
}

static void peer_leave(struct server_peer *p)
{
    if (p == NULL || --p->connections > 0) return;
    list_remove(&p->node);
    free(p);
}

/* ---- connections ---- */

struct server_conn *conn_of(const h2o_req_t *req)
{
    return req->conn->callbacks->get_socket(req->conn)->on_close.data;
}

/* The next request, or the end: it stays in the kernel until h2o wants it, and is not told again meanwhile.
 */
static void on_early(h2o_socket_t *sock, const char *err)
{
    (void)err;
    h2o_socket_read_stop(sock);
}

void conn_watch(struct server_conn *c)
{
    if (c->is_http2) return;
    h2o_socket_dont_read(c->sock, 1);
    h2o_socket_read_start(c->sock, on_early);
}

void conn_unwatch(struct server_conn *c)
{
    if (c->is_http2) return;
    h2o_socket_read_stop(c->sock);
    h2o_socket_dont_read(c->sock, 0);
}

void conn_cut(struct server_conn *c)
{
    if (c->sock == NULL || c->is_cut) return;
    c->is_cut = true;
    c->server->n_cut++;
    (void)shutdown(h2o_socket_get_fd(c->sock), SHUT_RDWR);
}

/* A sender that found our window shut would not hear of the end otherwise: it asks for the window for a
 * minute. */
void conn_abort(struct server_conn *c)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    if (c->sock != NULL)
        (void)setsockopt(h2o_socket_get_fd(c->sock), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    conn_cut(c);
}

void conn_rest(struct server_conn *c)
{
    struct server *s = c->server;
    int64_t now_ns = loop_now_ns(s->loop);
    if (now_ns - c->rest_ns < REST_STEP_NS) return;
    c->rest_ns = now_ns;
    list_remove(&c->node);
    list_push_back(&s->conns, &c->node);
}

struct server_conn *conn_find_resting(const struct server *s)
{
    int64_t since_ns = loop_now_ns(s->loop) - SERVER_REST_MIN_NS;
    for (struct list *node = s->conns.next; node != &s->conns; node = node->next) {
        struct server_conn *c = container_of(node, struct server_conn, node);
        if (c->rest_ns > since_ns) return NULL; /* so are those behind */
        if (c->requests == 0 && !c->is_cut) return c;
    }
    return NULL;
}

void conn_close_if_idle(struct server_conn *c)
{
    if (c->sock == NULL || c->requests > 0 || c->sock->input->size > 0) return;
    /* Our side only: a request that is in the kernel already is read first, served and answered with
     * connection: close; where nothing is, h2o reads the end of the file and closes. */
    (void)shutdown(h2o_socket_get_fd(c->sock), SHUT_RD);
}

void conn_linger(struct server_conn *c)
{
    if (c->linger_fd < 0) c->linger_fd = fcntl(h2o_socket_get_fd(c->sock), F_DUPFD_CLOEXEC, 3);
}

struct conn_linger {
    struct server_conn *conn;
    int fd;
};

static void linger_run(void *arg)
{
    struct conn_linger l = *(struct conn_linger *)arg;
    free(arg);
    char scrap[16 * 1024];
    int64_t give_up_ns = clock_monotonic_ns() + SERVER_LINGER_NS;
    int events;
    ssize_t n = 1;
    (void)shutdown(l.fd, SHUT_WR);
    while (n > 0 && fd_wait(l.fd, POLLIN, give_up_ns, &events) == STATUS_OK) {
        n = recv(l.fd, scrap, sizeof(scrap), MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) n = 1;
    }
    (void)close(l.fd);
    l.conn->exchanges--;
    conn_settle(l.conn);
}

static void linger_start(struct server_conn *c)
{
    struct conn_linger *l = mem_alloc(sizeof(*l));
    *l = (struct conn_linger){c, c->linger_fd};
    c->linger_fd = -1;
    c->exchanges++;
    if (fiber_scope_spawn(&c->server->scope, linger_run, l, NULL) == STATUS_OK) return;
    c->exchanges--;
    (void)close(l->fd);
    free(l);
}

void conn_settle(struct server_conn *c)
{
    if (c->sock == NULL && c->exchanges == 0) free(c);
}

/* h2o has closed the socket. All its requests are gone by now. */
static void on_connection_closed(void *conn_ptr)
{
    struct server_conn *c = conn_ptr;
    struct server *s = c->server;
    c->sock = NULL;
    http2_forget(c);
    list_remove(&c->node);
    peer_leave(c->peer);
    c->peer = NULL;
    if (c->linger_fd >= 0) linger_start(c);
    s->n_cut -= c->is_cut;
    if (--s->n_conns == 0) server_sweep_stop(s);
    conn_settle(c);
    server_accept_resume(s);
    server_notice_quiet(s);
}

void conn_open(struct server *s, h2o_socket_t *sock)
{
    struct server_conn *c = mem_zalloc(1, sizeof(*c));
    struct peer_address address;
    c->server = s;
    c->sock = sock;
    c->linger_fd = -1;
    c->rest_ns = c->opened_ns = loop_now_ns(s->loop);
    read_peer(c, &address);
    if (s->cfg.max_connections_per_peer > 0 && address.len > 0) {
        struct server_peer *p = peer_take(s, &address);
        if (p->connections == s->cfg.max_connections_per_peer) {
            h2o_socket_close(sock);
            free(c);
            return;
        }
        p->connections++;
        c->peer = p;
    }
    list_push_back(&s->conns, &c->node);
    sock->on_close.cb = on_connection_closed;
    sock->on_close.data = c;
    fiber_event_reset(&s->quiet);
    s->n_conns++;
    server_sweep_start(s);
    h2o_accept(&s->accept, sock);
    /* h2o begins with HTTP/1; what has other callbacks later has become HTTP/2. With TLS, where there is no
     * HTTP/2, it begins after the handshake. */
    if (s->tls == NULL) c->http1 = ((const h2o_conn_t *)sock->data)->callbacks;
}
