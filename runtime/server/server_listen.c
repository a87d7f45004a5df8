/* The listener: opened, and accepting no more than may be. h2o 2.2.5 has no cap of its own. */
#include "server/server_impl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "log/log.h"

#define LISTEN_BACKLOG 4096 /* the kernel cuts it to somaxconn */

/* ---- opening ---- */

static enum status bind_to(int fd, const struct sockaddr *addr, socklen_t len, const char *what,
                           struct error *err)
{
    if (bind(fd, addr, len) == 0) return STATUS_OK;
    int errnum = errno;
    (void)close(fd);
    enum status s = errnum == EADDRINUSE ? STATUS_ALREADY_EXISTS : status_from_errno(errnum);
    return error_set(err, s, "listen on %s: %s", what, strerror(errnum));
}

static bool parse_address(const char *host, uint16_t port, union server_address *ret_addr, socklen_t *ret_len)
{
    *ret_addr = (union server_address){0};
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
    union server_address ignored;
    socklen_t len;
    return parse_address(host, 0, &ignored, &len);
}

static enum status bind_tcp(const char *host, uint16_t port, bool reuse_port, int *ret_fd, struct error *err)
{
    union server_address addr;
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

uint16_t server_bound_port(int fd)
{
    union server_address addr;
    socklen_t len = sizeof(addr);
    if (getsockname(fd, &addr.any, &len) != 0) return 0;
    if (addr.any.sa_family == AF_INET) return ntohs(addr.v4.sin_port);
    return addr.any.sa_family == AF_INET6 ? ntohs(addr.v6.sin6_port) : 0;
}

/* One that is given may listen already, with a queue of its own length. A port that was only bound can be
 * lost to another socket with SO_REUSEADDR. Connections inherit the buffer's size. */
static enum status start_listening(const struct server *s, int fd, struct error *err)
{
    int is_listening = 0, receive_bytes = SERVER_H2_RECEIVE_BYTES;
    socklen_t len = sizeof(is_listening);
    if (s->cfg.http2) (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes));
    (void)getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &len);
    if (is_listening || listen(fd, LISTEN_BACKLOG) == 0) return STATUS_OK;
    int errnum = errno;
    if (fd != s->cfg.listen_fd) (void)close(fd);
    return error_set(err, errnum == EADDRINUSE ? STATUS_ALREADY_EXISTS : status_from_errno(errnum),
                     "server '%s': listen on port %u: %s", s->cfg.name, server_bound_port(fd),
                     strerror(errnum));
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
    s->port = server_bound_port(fd);
    s->listener = h2o_evloop_socket_create(loop_h2o(s->loop), fd, H2O_SOCKET_FLAG_DONT_READ);
    s->listener->data = s;
    return STATUS_OK;
}

/* ---- accepting ---- */

static void on_accept_retry(h2o_timeout_entry_t *entry)
{
    server_accept_start(container_of(entry, struct server, accept_retry));
}

/* For 100 ms, or until a connection closes. */
static void accept_pause(struct server *s)
{
    s->is_accepting = false;
    h2o_socket_read_stop(s->listener);
    h2o_timeout_link(s->ctx.loop, &s->ctx.hundred_ms_timeout, &s->accept_retry);
}

static void warn_of_failure(struct server *s, int errnum)
{
    int64_t now_ns = loop_now_ns(s->loop);
    s->accept_failures++;
    if (s->accept_warned_ns != 0 && now_ns - s->accept_warned_ns < SERVER_WARN_PACE_NS) return;
    log_warn("server", "cannot accept for now, trying again", LOG_STR("server", s->cfg.name),
             LOG_STR("error", strerror(errnum)), LOG_INT("connections", s->n_conns),
             LOG_INT("attempts", s->accept_failures));
    s->accept_warned_ns = now_ns;
    s->accept_failures = 0;
}

/* Out of descriptors or kernel memory. An idle connection gives its descriptor up for the one that waits. */
static void accept_failed(struct server *s, int errnum)
{
    if (errnum == EAGAIN || errnum == EINTR || errnum == ECONNABORTED) return;
    warn_of_failure(s, errnum);
    struct server_conn *resting = conn_find_resting(s);
    if (resting != NULL) conn_cut(resting);
    accept_pause(s);
}

/* Those that were cut go during this turn or the next. */
static bool is_full(const struct server *s)
{
    return s->n_conns - s->n_cut >= s->cfg.max_connections;
}

static unsigned accepts_at_most(const struct server *s)
{
    return is_full(s) ? SERVER_ACCEPTS_FULL : SERVER_ACCEPTS_A_TURN;
}

static void on_connection(h2o_socket_t *listener, const char *h2o_err)
{
    struct server *s = listener->data;
    if (h2o_err != NULL) return;
    for (unsigned i = 0; i < accepts_at_most(s) && s->is_accepting; i++) {
        if (is_full(s) && conn_find_resting(s) == NULL) {
            accept_pause(s);
            return;
        }
        h2o_socket_t *sock = h2o_evloop_socket_accept(listener);
        if (sock == NULL) {
            accept_failed(s, errno);
            return;
        }
        if (is_full(s)) conn_cut(conn_find_resting(s));
        conn_open(s, sock);
    }
}

void server_accept_start(struct server *s)
{
    if (s->listener == NULL || s->is_accepting) return;
    if (h2o_timeout_is_linked(&s->accept_retry)) return; /* paused: not before the timer */
    s->accept_retry.cb = on_accept_retry;
    s->is_accepting = true;
    h2o_socket_read_start(s->listener, on_connection);
}

void server_accept_resume(struct server *s)
{
    h2o_timeout_unlink(&s->accept_retry);
    server_accept_start(s);
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
