/* Connections to one upstream: those in use and those that wait for the next call, newest first.
 *
 * An idle one stays watched: its end is known at once, and going from one call to the next changes nothing in
 * the epoll (h2o's own pool: two epoll_ctl and two fcntl). */
#include <errno.h>
#include <sys/socket.h>

#include "base/list.h"
#include "base/memory.h"
#include "client/forward_impl.h"

static void on_expired(h2o_timeout_entry_t *entry)
{
    forward_conn_close(container_of(entry, struct forward_conn, expiry));
}

/* What has closed it since the last poll is not known yet. Upstreams close what has rested; one that answered
 * a moment ago is taken without asking the kernel. */
static bool is_open(const struct forward_conn *conn)
{
    char byte;
    uint64_t rested_ms = h2o_now(loop_h2o(conn->upstream->loop)) - conn->expiry.registered_at;
    if (rested_ms < FORWARD_FRESH_MS) return true;
    return recv(h2o_socket_get_fd(conn->sock), &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
           (errno == EAGAIN || errno == EWOULDBLOCK);
}

struct forward_conn *forward_pool_take(struct upstream *u)
{
    struct list *node;
    while ((node = list_pop_front(&u->idle)) != NULL) {
        struct forward_conn *conn = container_of(node, struct forward_conn, node);
        h2o_timeout_unlink(&conn->expiry);
        if (is_open(conn)) return conn;
        forward_conn_close(conn);
    }
    return NULL;
}

void forward_pool_return(struct forward_conn *conn)
{
    struct upstream *u = conn->upstream;
    conn->call = NULL;
    list_push_front(&u->idle, &conn->node);
    h2o_timeout_link(loop_h2o(u->loop), &u->idle_timeout, &conn->expiry);
}

struct forward_conn *forward_conn_open(struct upstream *u, h2o_socket_cb on_connected)
{
    h2o_socket_t *sock = h2o_socket_connect(loop_h2o(u->loop), &u->address.any, u->address_len, on_connected);
    if (sock == NULL) return NULL;
    struct forward_conn *conn = mem_zalloc(1, sizeof(*conn));
    conn->upstream = u;
    conn->sock = sock;
    conn->expiry.cb = on_expired;
    sock->data = conn;
    return conn;
}

void forward_conn_close(struct forward_conn *conn)
{
    list_remove(&conn->node);
    h2o_timeout_unlink(&conn->expiry);
    h2o_socket_close(conn->sock);
    free(conn);
}

void forward_pool_init(struct upstream *u)
{
    list_init(&u->idle);
    h2o_timeout_init(loop_h2o(u->loop), &u->idle_timeout, FORWARD_IDLE_MS);
}

void forward_pool_empty(struct upstream *u)
{
    while (!list_is_empty(&u->idle))
        forward_conn_close(container_of(u->idle.next, struct forward_conn, node));
}

void forward_pool_release(struct upstream *u)
{
    forward_pool_empty(u);
    h2o_timeout_dispose(loop_h2o(u->loop), &u->idle_timeout);
}
