/* curl's descriptors, in an epoll of their own inside libuv's: what is watched stays registered while a
 * connection lies idle in curl's pool, so that a request on a pooled connection costs no epoll_ctl at all
 * (uv_poll: six, and a handle). Level-triggered; an idle connection that says something has been closed by
 * its peer, and is let go of. */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/memory.h"
#include "client/client_impl.h"

#define AGEING_INTERVAL_MS 5000
enum { READY_MAX = 64 };

/* NULL: not known, or not open. */
static struct client_socket *find(struct client_pool *p, curl_socket_t fd)
{
    return fd >= 0 && (size_t)fd < p->n_sockets && p->sockets[fd].is_known ? &p->sockets[fd] : NULL;
}

static struct client_socket *know(struct client_pool *p, curl_socket_t fd)
{
    size_t n = p->n_sockets;
    if ((size_t)fd >= n) {
        while ((size_t)fd >= n)
            n = n ? 2 * n : 64;
        p->sockets = mem_realloc(p->sockets, n * sizeof(*p->sockets)); /* n is at most twice RLIMIT_NOFILE */
        memset(p->sockets + p->n_sockets, 0, (n - p->n_sockets) * sizeof(*p->sockets));
        p->n_sockets = n;
    }
    struct client_socket *s = &p->sockets[fd];
    *s = (struct client_socket){
        .is_known = true, .generation = s->generation + 1, .idle_since_ns = loop_now_ns(p->loop)};
    return s;
}

/* False: the kernel refuses. */
static bool watch(struct client_pool *p, curl_socket_t fd, struct client_socket *s, uint32_t events)
{
    if (events == s->watched) return true;
    int op = events == 0 ? EPOLL_CTL_DEL : s->watched == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    struct epoll_event e = {.events = events, .data.u64 = (uint64_t)s->generation << 32 | (uint32_t)fd};
    if (epoll_ctl(p->epoll_fd, op, fd, &e) != 0) return false;
    s->watched = events;
    return true;
}

/* ---- what is ready ---- */

static int curl_events(uint32_t events)
{
    int flags = 0;
    if (events & (EPOLLIN | EPOLLRDHUP)) flags |= CURL_CSELECT_IN;
    if (events & EPOLLOUT) flags |= CURL_CSELECT_OUT;
    if (events & (EPOLLERR | EPOLLHUP)) flags |= CURL_CSELECT_ERR;
    return flags;
}

/* Handling one may close and open others: a number that is another connection's by now is known by its
 * generation. */
static void serve(struct client_pool *p, const struct epoll_event *e)
{
    curl_socket_t fd = (curl_socket_t)(e->data.u64 & UINT32_MAX);
    struct client_socket *s = find(p, fd);
    if (s == NULL || s->generation != (uint32_t)(e->data.u64 >> 32)) return;
    if (s->wanted == 0)
        (void)watch(p, fd, s, 0);
    else
        client_pool_drive(p, fd, curl_events(e->events));
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
    struct client_pool *p = container_of(poll, struct client_pool, ready);
    struct epoll_event ready[READY_MAX];
    (void)status, (void)events;
    int n = epoll_wait(p->epoll_fd, ready, READY_MAX, 0);
    for (int i = 0; i < n; i++)
        serve(p, &ready[i]);
}

/* ---- what curl asks for ---- */

/* curl's own pipe (it wakes the thread that looks up names) comes here as well, without on_open() and
 * on_close(). */
int client_socket_wanted(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
    struct client_pool *p = arg;
    struct client_socket *s = find(p, fd);
    (void)easy, (void)socket_arg;
    if (s == NULL && what == CURL_POLL_REMOVE) return 0;
    if (s == NULL) s = know(p, fd);
    s->idle_since_ns = loop_now_ns(p->loop);
    if (what == CURL_POLL_REMOVE) {
        s->wanted = 0;
        if (s->is_open) return 0;
        s->is_known = false;
        return watch(p, fd, s, 0) ? 0 : -1;
    }
    s->wanted = ((what & CURL_POLL_IN) ? EPOLLIN : 0u) | ((what & CURL_POLL_OUT) ? EPOLLOUT : 0u);
    if ((s->wanted & EPOLLOUT) && s->watched == EPOLLIN && p->n_writers < CLIENT_WRITERS_MAX) {
        p->writers[p->n_writers++] = fd;
        return 0;
    }
    return watch(p, fd, s, s->wanted) ? 0 : -1;
}

void client_sockets_write(struct client_pool *p)
{
    int running;
    while (p->n_writers > 0) {
        curl_socket_t fd = p->writers[--p->n_writers];
        struct client_socket *s = find(p, fd);
        if (s == NULL || !(s->wanted & EPOLLOUT)) continue;
        (void)client_curl.multi_socket_action(p->multi, fd, CURL_CSELECT_OUT, &running);
        s = find(p, fd);
        if (s != NULL && (s->wanted & EPOLLOUT)) (void)watch(p, fd, s, s->wanted);
    }
}

static void on_ageing_due(uv_timer_t *timer)
{
    struct client_pool *p = container_of(timer, struct client_pool, ageing);
    (void)client_pool_age(p, CLIENT_IDLE_AGE_NS);
    if (p->n_open <= CLIENT_IDLE_CONNECTIONS_KEPT) (void)uv_timer_stop(timer);
}

curl_socket_t client_socket_open(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct client_pool *p = arg;
    (void)purpose;
    int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
    if (fd < 0) return CURL_SOCKET_BAD;
    struct client_socket *s = know(p, fd);
    s->is_open = true;
    s->wanted = EPOLLOUT; /* not idle: it is about to connect */
    p->n_open++;
    if (p->n_open <= CLIENT_IDLE_CONNECTIONS_KEPT || uv_is_active((uv_handle_t *)&p->ageing)) return fd;
    (void)uv_timer_start(&p->ageing, on_ageing_due, AGEING_INTERVAL_MS, AGEING_INTERVAL_MS);
    uv_unref((uv_handle_t *)&p->ageing); /* nobody waits for it */
    return fd;
}

int client_socket_close(void *arg, curl_socket_t fd)
{
    struct client_pool *p = arg;
    struct client_socket *s = find(p, fd);
    if (s != NULL) {
        (void)watch(p, fd, s, 0); /* a child between fork and exec may hold it open for a moment */
        if (s->is_open) p->n_open--;
        s->is_known = s->is_open = false;
    }
    return close(fd);
}

unsigned client_pool_age(struct client_pool *p, int64_t min_age_ns)
{
    int64_t before_ns = clock_monotonic_ns() - min_age_ns;
    unsigned n_idle = 0, n_shut = 0;
    for (size_t i = 0; i < p->n_sockets; i++)
        n_idle += p->sockets[i].is_open && p->sockets[i].wanted == 0;
    while (n_idle - n_shut > CLIENT_IDLE_CONNECTIONS_KEPT) {
        size_t oldest = p->n_sockets;
        for (size_t i = 0; i < p->n_sockets; i++) {
            const struct client_socket *s = &p->sockets[i];
            if (!s->is_open || s->wanted != 0 || s->idle_since_ns > before_ns) continue;
            if (oldest == p->n_sockets || s->idle_since_ns < p->sockets[oldest].idle_since_ns) oldest = i;
        }
        if (oldest == p->n_sockets) break;
        /* curl 7.88 has no call that drops one idle connection. Shut, it is free for the peer now, and curl,
         * which tests a connection before it uses it, closes the descriptor at its next look. */
        (void)shutdown((int)oldest, SHUT_RDWR);
        p->sockets[oldest].is_open = false;
        p->n_open--;
        n_shut++;
    }
    return n_shut;
}

/* ---- life cycle ---- */

enum status client_sockets_init(struct client_pool *p, struct error *err)
{
    p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (p->epoll_fd < 0)
        return error_set(err, STATUS_UNAVAILABLE, "open the HTTP client: epoll: %s", strerror(errno));
    (void)uv_timer_init(loop_uv(p->loop), &p->ageing); /* cannot fail */
    if (uv_poll_init(loop_uv(p->loop), &p->ready, p->epoll_fd) == 0 &&
        uv_poll_start(&p->ready, UV_READABLE, on_ready) == 0)
        return STATUS_OK;
    (void)close(p->epoll_fd);
    return error_set(err, STATUS_UNAVAILABLE, "open the HTTP client: its epoll cannot be watched");
}

void client_sockets_release(struct client_pool *p)
{
    (void)close(p->epoll_fd);
    free(p->sockets);
}
