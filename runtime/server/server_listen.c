/* Sockets: the listener with its caps, the connections, and a sweep over them now and then for what h2o 2.2.5
 * has no timer or limit for: clients that do not read their answer, and input of unfinished requests. */
#include "server/server_impl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "log/log.h"

#define LISTEN_BACKLOG 4096 /* the kernel cuts it to somaxconn */
/* A sweep in every tenth of a second only while the connections could together hold more input than they may.
 */
#define INPUT_PER_CONN_MAX (512 * 1024) /* h2o's head limit of 408 KiB, in a buffer that doubles */

/* ---- opening ---- */

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_storage storage;
};

static enum status bind_to(int fd, const struct sockaddr *addr, socklen_t len, const char *what,
                           struct error *err)
{
    if (bind(fd, addr, len) == 0) return STATUS_OK;
    int errnum = errno;
    (void)close(fd);
    enum status s = errnum == EADDRINUSE ? STATUS_ALREADY_EXISTS : status_from_errno(errnum);
    return error_set(err, s, "listen on %s: %s", what, strerror(errnum));
}

static bool parse_address(const char *host, uint16_t port, union address *ret_addr, socklen_t *ret_len)
{
    *ret_addr = (union address){0};
    if (inet_pton(AF_INET, host, &ret_addr->v4.sin_addr) == 1) {
        ret_addr->v4.sin_family = AF_INET;
        ret_addr->v4.sin_port = htons(port);
        *ret_len = sizeof(ret_addr->v4);
        return true;
    }
    ret_addr->v6.sin6_family = AF_INET6;
    ret_addr->v6.sin6_port = htons(port);
    *ret_len = sizeof(ret_addr->v6);
    return inet_pton(AF_INET6, host, &ret_addr->v6.sin6_addr) == 1;
}

bool server_address_is_valid(const char *host)
{
    union address ignored;
    socklen_t len;
    return parse_address(host, 0, &ignored, &len);
}

static enum status bind_tcp(const char *host, uint16_t port, bool reuse_port, int *ret_fd, struct error *err)
{
    union address addr;
    socklen_t len;
    char what[128];
    (void)snprintf(what, sizeof(what), "%s port %u", host, port);
    if (!parse_address(host, port, &addr, &len))
        return error_set(err, STATUS_INVALID_ARGUMENT, "listen on %s: not an IPv4 or IPv6 address", what);
    int fd = socket(addr.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_set(err, status_from_errno(errno), "listen on %s: socket: %s", what, strerror(errno));
    int on = 1, off = 0;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (addr.any.sa_family == AF_INET6) (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (reuse_port) (void)setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
    enum status s = bind_to(fd, &addr.any, len, what, err);
    if (s == STATUS_OK) *ret_fd = fd;
    return s;
}

enum status server_bind(const char *host, uint16_t port, int *ret_fd, struct error *err)
{
    return bind_tcp(host, port, false, ret_fd, err);
}

static enum status open_unix(const char *path, int *ret_fd, struct error *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    size_t len = strlen(path);
    if (len >= sizeof(addr.sun_path)) {
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "listen on %s: the path has %zu characters, a unix socket's at most %zu", path, len,
                         sizeof(addr.sun_path) - 1);
    }
    memcpy(addr.sun_path, path, len + 1);
    if (unlink(path) != 0 && errno != ENOENT)
        return error_set(err, status_from_errno(errno), "listen on %s: unlink: %s", path, strerror(errno));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_set(err, status_from_errno(errno), "listen on %s: socket: %s", path, strerror(errno));
    enum status s = bind_to(fd, (const struct sockaddr *)&addr, sizeof(addr), path, err);
    if (s == STATUS_OK) *ret_fd = fd;
    return s;
}

static uint16_t bound_port(int fd)
{
    union address addr;
    socklen_t len = sizeof(addr);
    if (getsockname(fd, &addr.any, &len) != 0) return 0;
    if (addr.any.sa_family == AF_INET) return ntohs(addr.v4.sin_port);
    return addr.any.sa_family == AF_INET6 ? ntohs(addr.v6.sin6_port) : 0;
}

/* One that is given may listen already, with a queue of its own length. A port that was only bound can be
 * lost to another socket with SO_REUSEADDR. */
static enum status start_listening(const struct server *s, int fd, struct error *err)
{
    int is_listening = 0;
    socklen_t len = sizeof(is_listening);
    (void)getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &len);
    if (is_listening || listen(fd, LISTEN_BACKLOG) == 0) return STATUS_OK;
    int errnum = errno;
    if (fd != s->cfg.listen_fd) (void)close(fd);
    return error_set(err, errnum == EADDRINUSE ? STATUS_ALREADY_EXISTS : status_from_errno(errnum),
                     "server '%s': listen on port %u: %s", s->cfg.name, bound_port(fd), strerror(errnum));
}

enum status server_listen(struct server *s, struct error *err)
{
    int fd = -1;
    enum status st = STATUS_OK;
    if (s->cfg.host != NULL)
        st = bind_tcp(s->cfg.host, s->cfg.port, s->cfg.reuse_port, &fd, err);
    else if (s->cfg.unix_path != NULL)
        st = open_unix(s->cfg.unix_path, &fd, err);
    else if (s->cfg.listen_fd >= 0)
        fd = s->cfg.listen_fd;
    else
        st = error_set(err, STATUS_INVALID_ARGUMENT,
                       "server '%s' has neither host nor unix_path nor listen_fd", s->cfg.name);
    if (st == STATUS_OK) st = start_listening(s, fd, err);
    if (st != STATUS_OK) return st;
    s->port = bound_port(fd);
    s->listener = h2o_evloop_socket_create(loop_h2o(s->loop), fd, H2O_SOCKET_FLAG_DONT_READ);
    s->listener->data = s;
    return STATUS_OK;
}

/* ---- peers ---- */

struct peer_address {
    uint8_t bytes[16];
    uint8_t len;
};

/* Fills c's text and ret_address; both are of fixed form for unix sockets. */
static void read_peer(struct server_conn *c, struct peer_address *ret_address)
{
    union address addr = {0};
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

void conn_cut(struct server_conn *c)
{
    if (c->sock == NULL || c->is_cut) return;
    c->is_cut = true;
    (void)shutdown(h2o_socket_get_fd(c->sock), SHUT_RDWR);
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
    list_remove(&c->node);
    peer_leave(c->peer);
    c->peer = NULL;
    if (c->linger_fd >= 0) linger_start(c);
    if (--s->n_conns == 0) server_sweep_stop(s);
    conn_settle(c);
    server_accept_start(s);
    server_notice_quiet(s);
}

/* ---- accepting ---- */

static void on_accept_retry(h2o_timeout_entry_t *entry)
{
    server_accept_start(container_of(entry, struct server, accept_retry));
}

static void accept_pause(struct server *s)
{
    s->is_accepting = false;
    h2o_socket_read_stop(s->listener);
}

static void accept_failed(struct server *s, int errnum)
{
    if (errnum == EAGAIN || errnum == EINTR || errnum == ECONNABORTED) return;
    log_warn("server", "cannot accept for now, trying again in 100 ms", LOG_STR("server", s->cfg.name),
             LOG_STR("error", strerror(errnum)), LOG_INT("connections", s->n_conns));
    accept_pause(s);
    h2o_timeout_link(s->ctx.loop, &s->ctx.hundred_ms_timeout, &s->accept_retry);
}

static void conn_open(struct server *s, h2o_socket_t *sock)
{
    struct server_conn *c = mem_zalloc(1, sizeof(*c));
    struct peer_address address;
    c->server = s;
    c->sock = sock;
    c->linger_fd = -1;
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
}

static void on_connection(h2o_socket_t *listener, const char *h2o_err)
{
    struct server *s = listener->data;
    if (h2o_err != NULL) return;
    for (unsigned i = 0; i < SERVER_ACCEPTS_A_TURN && s->is_accepting; i++) {
        if (s->n_conns >= s->cfg.max_connections) {
            accept_pause(s); /* goes on when one closes */
            return;
        }
        h2o_socket_t *sock = h2o_evloop_socket_accept(listener);
        if (sock == NULL) {
            accept_failed(s, errno);
            return;
        }
        conn_open(s, sock);
    }
}

void server_accept_start(struct server *s)
{
    if (s->listener == NULL || s->is_accepting || s->n_conns >= s->cfg.max_connections) return;
    if (h2o_timeout_is_linked(&s->accept_retry)) return; /* out of descriptors: not before the timer */
    s->accept_retry.cb = on_accept_retry;
    s->is_accepting = true;
    h2o_socket_read_start(s->listener, on_connection);
}

void server_listen_close(struct server *s)
{
    if (s->listener == NULL) return;
    h2o_timeout_unlink(&s->accept_retry);
    s->is_accepting = false;
    h2o_socket_read_stop(s->listener);
    h2o_socket_close(s->listener);
    s->listener = NULL;
}

/* ---- the sweep ---- */

static void cut_stuck_answers(struct server *s)
{
    int64_t oldest_ns = loop_now_ns(s->loop) - s->cfg.write_timeout_ns;
    for (struct list *node = s->exchanges.next; node != &s->exchanges; node = node->next) {
        struct server_exchange *x = container_of(node, struct server_exchange, node);
        if (!x->is_running && x->link != NULL && x->progress_ns < oldest_ns) conn_cut(x->conn);
    }
}

static size_t input_bytes(const struct server_conn *c)
{
    return c->sock->input->size > 0 ? c->sock->input->capacity : 0;
}

static void bound_input(struct server *s)
{
    size_t total = 0;
    for (struct list *node = s->conns.next; node != &s->conns; node = node->next)
        total += input_bytes(container_of(node, struct server_conn, node));
    while (total > SERVER_INPUT_MAX_BYTES) {
        struct server_conn *largest = NULL;
        for (struct list *node = s->conns.next; node != &s->conns; node = node->next) {
            struct server_conn *c = container_of(node, struct server_conn, node);
            bool is_candidate = c->requests == 0 && !c->is_cut;
            if (is_candidate && (largest == NULL || input_bytes(c) > input_bytes(largest))) largest = c;
        }
        if (largest == NULL || input_bytes(largest) == 0) return;
        log_warn("server", "cut a connection: unfinished requests hold too much memory",
                 LOG_STR("server", s->cfg.name),
                 LOG_SV("peer", ((struct strview){largest->peer_text, largest->peer_text_len})),
                 LOG_INT("bytes", total));
        total -= input_bytes(largest);
        conn_cut(largest);
    }
}

static void on_sweep(h2o_timeout_entry_t *entry)
{
    struct server *s = container_of(entry, struct server, sweep);
    cut_stuck_answers(s);
    bound_input(s);
    server_sweep_start(s);
}

void server_sweep_start(struct server *s)
{
    size_t worst = s->n_conns * (s->config.max_request_entity_size + INPUT_PER_CONN_MAX);
    h2o_timeout_t *pace =
        worst > SERVER_INPUT_MAX_BYTES ? &s->ctx.hundred_ms_timeout : &s->ctx.one_sec_timeout;
    if (h2o_timeout_is_linked(&s->sweep)) {
        if (s->sweep_pace == pace) return;
        h2o_timeout_unlink(&s->sweep);
    }
    s->sweep.cb = on_sweep;
    s->sweep_pace = pace;
    h2o_timeout_link(s->ctx.loop, pace, &s->sweep);
}

void server_sweep_stop(struct server *s)
{
    h2o_timeout_unlink(&s->sweep);
}
