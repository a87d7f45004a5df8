#include "client/client_impl.h"

#include <assert.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/memory.h"

#define AGEING_INTERVAL_MS 5000

/* One a thread, because there is one loop a thread. */
static _Thread_local struct client_pool *thread_pool;

/* A descriptor that curl wants watched; lives from its first POLL_ to POLL_REMOVE. */
struct client_watch {
    uv_poll_t poll;
    struct client_pool *pool;
    curl_socket_t fd;
};

/* ---- finished transfers ---- */

static void collect_done(struct client_pool *p)
{
    int left;
    CURLMsg *msg;
    while ((msg = client_curl.multi_info_read(p->multi, &left)) != NULL) {
        char *attempt = NULL;
        if (msg->msg != CURLMSG_DONE) continue;
        (void)client_curl.easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &attempt);
        client_attempt_done(attempt, msg->data.result);
    }
}

static void drive(struct client_pool *p, curl_socket_t fd, int events)
{
    int running;
    (void)client_curl.multi_socket_action(p->multi, fd, events, &running);
    collect_done(p);
}

/* ---- curl's timer ---- */

static void on_timer_due(uv_timer_t *timer)
{
    drive(container_of(timer, struct client_pool, timer), CURL_SOCKET_TIMEOUT, 0);
}

/* Called by curl, also from a fiber that adds a handle: it only arms the timer, the work is done from the
 * loop's stack. */
static int on_timer_wanted(CURLM *multi, long timeout_ms, void *arg)
{
    struct client_pool *p = arg;
    (void)multi;
    if (timeout_ms < 0) {
        (void)uv_timer_stop(&p->timer);
        return 0;
    }
    if (timeout_ms > 0)
        uv_update_time(p->timer.loop); /* the loop's cached time may lag: the timer would fire early */
    (void)uv_timer_start(&p->timer, on_timer_due, (uint64_t)timeout_ms, 0);
    return 0;
}

/* ---- curl's sockets ---- */

static struct client_socket *socket_find(struct client_pool *p, curl_socket_t fd)
{
    return fd >= 0 && (size_t)fd < p->n_sockets && p->sockets[fd].is_open ? &p->sockets[fd] : NULL;
}

static void handle_closed(struct client_pool *p)
{
    if (--p->n_closing == 0) fiber_event_set(&p->all_closed);
}

static void on_watch_closed(uv_handle_t *handle)
{
    struct client_watch *w = container_of(handle, struct client_watch, poll);
    handle_closed(w->pool);
    free(w);
}

static void on_pool_handle_closed(uv_handle_t *handle)
{
    handle_closed(handle->data);
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
    struct client_watch *w = container_of(poll, struct client_watch, poll);
    int flags = 0;
    if (status < 0) flags = CURL_CSELECT_ERR;
    if (events & UV_READABLE) flags |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE) flags |= CURL_CSELECT_OUT;
    drive(w->pool, w->fd, flags); /* may have closed w */
}

static struct client_watch *watch_new(struct client_pool *p, curl_socket_t fd)
{
    struct client_watch *w = mem_zalloc(1, sizeof(*w));
    w->pool = p;
    w->fd = fd;
    if (uv_poll_init_socket(loop_uv(p->loop), &w->poll, fd) != 0) {
        free(w);
        return NULL;
    }
    (void)client_curl.multi_assign(p->multi, fd, w);
    return w;
}

static void watch_close(struct client_pool *p, struct client_watch *w)
{
    p->n_closing++;
    fiber_event_reset(&p->all_closed);
    uv_close((uv_handle_t *)&w->poll, on_watch_closed);
}

static int on_socket_wanted(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
    struct client_pool *p = arg;
    struct client_watch *w = socket_arg;
    struct client_socket *s = socket_find(p, fd);
    (void)easy;
    if (s != NULL) {
        s->is_polled = what != CURL_POLL_REMOVE;
        s->idle_since_ns = loop_now_ns(p->loop);
    }
    if (what == CURL_POLL_REMOVE) {
        if (w != NULL) watch_close(p, w);
        return 0;
    }
    if (w == NULL) w = watch_new(p, fd);
    if (w == NULL) return -1;
    int events = ((what & CURL_POLL_IN) ? UV_READABLE : 0) | ((what & CURL_POLL_OUT) ? UV_WRITABLE : 0);
    return uv_poll_start(&w->poll, events, on_ready) == 0 ? 0 : -1;
}

static void on_ageing_due(uv_timer_t *timer)
{
    struct client_pool *p = container_of(timer, struct client_pool, ageing);
    (void)client_pool_age(p, CLIENT_IDLE_AGE_NS);
    if (p->n_open <= CLIENT_IDLE_CONNECTIONS_KEPT) (void)uv_timer_stop(timer);
}

static void socket_opened(struct client_pool *p, curl_socket_t fd)
{
    size_t n = p->n_sockets;
    if ((size_t)fd >= n) {
        while ((size_t)fd >= n)
            n = n ? 2 * n : 64;
        p->sockets = mem_realloc(p->sockets, n * sizeof(*p->sockets)); /* n is at most twice RLIMIT_NOFILE */
        memset(p->sockets + p->n_sockets, 0, (n - p->n_sockets) * sizeof(*p->sockets));
        p->n_sockets = n;
    }
    p->sockets[fd] =
        (struct client_socket){.is_open = true, .is_polled = true, .idle_since_ns = loop_now_ns(p->loop)};
    p->n_open++;
    if (p->n_open <= CLIENT_IDLE_CONNECTIONS_KEPT || uv_is_active((uv_handle_t *)&p->ageing)) return;
    (void)uv_timer_start(&p->ageing, on_ageing_due, AGEING_INTERVAL_MS, AGEING_INTERVAL_MS);
    uv_unref((uv_handle_t *)&p->ageing); /* nobody waits for it */
}

static curl_socket_t on_open(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    (void)purpose;
    int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
    if (fd < 0) return CURL_SOCKET_BAD;
    socket_opened(arg, fd);
    return fd;
}

static int on_close(void *arg, curl_socket_t fd)
{
    struct client_pool *p = arg;
    struct client_socket *s = socket_find(p, fd);
    if (s != NULL) {
        s->is_open = false;
        p->n_open--;
    }
    return close(fd);
}

unsigned client_pool_age(struct client_pool *p, int64_t min_age_ns)
{
    int64_t before_ns = clock_monotonic_ns() - min_age_ns;
    unsigned n_idle = 0, n_shut = 0;
    for (size_t i = 0; i < p->n_sockets; i++)
        n_idle += p->sockets[i].is_open && !p->sockets[i].is_polled;
    while (n_idle - n_shut > CLIENT_IDLE_CONNECTIONS_KEPT) {
        size_t oldest = p->n_sockets;
        for (size_t i = 0; i < p->n_sockets; i++) {
            const struct client_socket *s = &p->sockets[i];
            if (!s->is_open || s->is_polled || s->idle_since_ns > before_ns) continue;
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

/* ---- easy handles ---- */

CURL *client_pool_take(struct client_pool *p)
{
    CURL *easy = p->n_spare > 0 ? p->spare[--p->n_spare] : client_curl.easy_init();
    if (easy == NULL) return NULL;
    (void)client_curl.easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open);
    (void)client_curl.easy_setopt(easy, CURLOPT_OPENSOCKETDATA, p);
    (void)client_curl.easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, on_close);
    (void)client_curl.easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, p);
    return easy;
}

void client_pool_put_back(struct client_pool *p, CURL *easy)
{
    if (p->n_spare == CLIENT_SPARE_HANDLES_MAX) {
        client_curl.easy_cleanup(easy);
        return;
    }
    client_curl.easy_reset(easy);
    p->spare[p->n_spare++] = easy;
}

/* ---- life cycle ---- */

static void set_limits(struct client_pool *p)
{
    (void)client_curl.multi_setopt(p->multi, CURLMOPT_SOCKETFUNCTION, on_socket_wanted);
    (void)client_curl.multi_setopt(p->multi, CURLMOPT_SOCKETDATA, p);
    (void)client_curl.multi_setopt(p->multi, CURLMOPT_TIMERFUNCTION, on_timer_wanted);
    (void)client_curl.multi_setopt(p->multi, CURLMOPT_TIMERDATA, p);
    (void)client_curl.multi_setopt(p->multi, CURLMOPT_MAX_HOST_CONNECTIONS,
                                   (long)CLIENT_HOST_CONNECTIONS_MAX);
    (void)client_curl.multi_setopt(p->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS,
                                   (long)CLIENT_TOTAL_CONNECTIONS_MAX);
    /* Not 10: curl would then close a connection at the end of each of 60 parallel calls. Ageing brings them
     * down. */
    (void)client_curl.multi_setopt(p->multi, CURLMOPT_MAXCONNECTS, (long)CLIENT_TOTAL_CONNECTIONS_MAX);
}

static enum status pool_new(struct loop *l, struct client_pool **ret_pool, struct error *err)
{
    struct client_pool *p = mem_zalloc(1, sizeof(*p));
    p->loop = l;
    p->multi = client_curl.multi_init();
    if (p->multi == NULL) {
        free(p);
        return error_set(err, STATUS_UNAVAILABLE, "open the HTTP client: no memory for its pool");
    }
    fiber_event_init(&p->all_closed);
    fiber_event_set(&p->all_closed);
    (void)uv_timer_init(loop_uv(l), &p->timer); /* cannot fail */
    (void)uv_timer_init(loop_uv(l), &p->ageing);
    p->timer.data = p->ageing.data = p;
    set_limits(p);
    *ret_pool = p;
    return STATUS_OK;
}

enum status client_pool_get(struct client_pool **ret_pool, struct error *err)
{
    struct loop *l = loop_current();
    assert(l != NULL);
    enum status s = client_curl_open(err);
    if (s == STATUS_OK && thread_pool == NULL) s = pool_new(l, &thread_pool, err);
    if (s != STATUS_OK) return s;
    assert(thread_pool->loop == l); /* the loop before it was freed without client_release() */
    *ret_pool = thread_pool;
    return STATUS_OK;
}

void client_release(struct loop *l)
{
    struct client_pool *p = thread_pool;
    if (p == NULL || p->loop != l) return;
    assert(p->n_calls == 0);
    while (p->n_spare > 0)
        client_curl.easy_cleanup(p->spare[--p->n_spare]);
    (void)client_curl.multi_cleanup(p->multi); /* closes the idle connections */
    p->n_closing += 2;
    fiber_event_reset(&p->all_closed);
    uv_close((uv_handle_t *)&p->timer, on_pool_handle_closed);
    uv_close((uv_handle_t *)&p->ageing, on_pool_handle_closed);
    if (fiber_current() != NULL) {
        fiber_shield_begin();
        int64_t deadline_ns = fiber_set_deadline(0);
        while (fiber_event_wait(&p->all_closed, 0) != STATUS_OK)
            continue;
        (void)fiber_set_deadline(deadline_ns);
        fiber_shield_end();
    } else {
        while (p->n_closing > 0)
            (void)uv_run(loop_uv(l), UV_RUN_NOWAIT);
    }
    free(p->sockets);
    free(p);
    thread_pool = NULL;
}
