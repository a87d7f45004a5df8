#include "client/client_impl.h"

#include <assert.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/memory.h"

/* One a thread, because there is one loop a thread. */
static _Thread_local struct client_pool *thread_pool;

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

void client_pool_drive(struct client_pool *p, curl_socket_t fd, int events)
{
    int running;
    (void)client_curl.multi_socket_action(p->multi, fd, events, &running);
    client_sockets_write(p);
    collect_done(p);
}

/* ---- curl's timer ---- */

static void on_timer_due(uv_timer_t *timer)
{
    client_pool_drive(container_of(timer, struct client_pool, timer), CURL_SOCKET_TIMEOUT, 0);
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

/* ---- easy handles ---- */

/* Debian's libcurl 7.88.1 keeps a pointer to the last header of a transfer beyond it: in a handle that is
 * used again, an answer that begins with a folded line makes it read memory that was freed (fixed in 8.1,
 * github.com/curl/curl/pull/11103). So each transfer has its own. */
CURL *client_pool_easy_new(struct client_pool *p)
{
    CURL *easy = client_curl.easy_init();
    if (easy == NULL) return NULL;
    (void)client_curl.easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, client_socket_open);
    (void)client_curl.easy_setopt(easy, CURLOPT_OPENSOCKETDATA, p);
    (void)client_curl.easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, client_socket_close);
    (void)client_curl.easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, p);
    (void)client_curl.easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    (void)client_curl.easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    /* So that the limits on connections mean requests. */
    (void)client_curl.easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    (void)client_curl.easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    /* A cancelled name lookup is left to its thread: joining it would stop the loop. */
    (void)client_curl.easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
    return easy;
}

/* ---- life cycle ---- */

static void on_pool_handle_closed(uv_handle_t *handle)
{
    struct client_pool *p = handle->data;
    if (--p->n_closing == 0) fiber_event_set(&p->all_closed);
}

static void set_limits(struct client_pool *p)
{
    (void)client_curl.multi_setopt(p->multi, CURLMOPT_SOCKETFUNCTION, client_socket_wanted);
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
    enum status s = client_sockets_init(p, err);
    if (s != STATUS_OK) {
        (void)client_curl.multi_cleanup(p->multi);
        free(p);
        return s;
    }
    (void)uv_timer_init(loop_uv(l), &p->timer); /* cannot fail */
    p->timer.data = p->ageing.data = p->ready.data = p;
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
    client_plain_release(l);
    if (p == NULL || p->loop != l) return;
    assert(p->n_calls == 0);
    (void)client_curl.multi_cleanup(p->multi); /* closes the idle connections */
    p->n_closing = 3;
    fiber_event_reset(&p->all_closed);
    uv_close((uv_handle_t *)&p->ready, on_pool_handle_closed);
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
    client_sockets_release(p);
    free(p);
    thread_pool = NULL;
}
