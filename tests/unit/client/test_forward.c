/* Forwarding against upstreams that behave, and against scripted ones that do not. The scripted upstream is a
 * thread with plain blocking sockets; the calls run in a fiber. */
#include "client/forward.h"

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "base/clock.h"

/* ---- a scripted upstream ---- */

struct peer {
    int listen_fd;
    uint16_t port;
    pthread_t thread;
    void (*script)(struct peer *p);
    atomic_uint accepted;
    char request[70000]; /* the last one read: head and body */
    size_t request_bytes;
    atomic_bool is_released; /* for whoever waits for the script */
};

static void peer_open(struct peer *p)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(addr);
    p->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(p->listen_fd, (struct sockaddr *)&addr, len), 0);
    cr_assert_eq(listen(p->listen_fd, 16), 0);
    cr_assert_eq(getsockname(p->listen_fd, (struct sockaddr *)&addr, &len), 0);
    p->port = ntohs(addr.sin_port);
}

static void *peer_main(void *arg)
{
    struct peer *p = arg;
    p->script(p);
    return NULL;
}

static int peer_accept(struct peer *p)
{
    struct timeval limit = {.tv_sec = 10};
    int fd = accept(p->listen_fd, NULL, NULL);
    if (fd < 0) return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    atomic_fetch_add(&p->accepted, 1);
    return fd;
}

/* One request with its content-length body. False: the connection ended. */
static bool peer_read(struct peer *p, int fd)
{
    size_t n = 0, want = SIZE_MAX;
    while (n < want && n + 1 < sizeof(p->request)) {
        ssize_t got = recv(fd, p->request + n, want == SIZE_MAX ? 1 : want - n, 0);
        if (got <= 0) return false;
        n += (size_t)got;
        p->request[n] = '\0';
        if (want != SIZE_MAX || n < 4 || memcmp(p->request + n - 4, "\r\n\r\n", 4) != 0) continue;
        const char *length = strstr(p->request, "\r\ncontent-length: ");
        want = n + (length != NULL ? strtoul(length + 18, NULL, 10) : 0);
    }
    p->request_bytes = n;
    return true;
}

static void peer_send(int fd, const char *text)
{
    (void)send(fd, text, strlen(text), MSG_NOSIGNAL);
}

/* ---- the test's side ---- */

struct test {
    struct loop *loop;
    struct upstream *upstream;
    struct peer peer;
    struct arena arena;
    struct forward_spec spec;
    struct http_reply reply;
    struct error err;
    enum status status;
    void (*steps)(struct test *t);
    bool has_no_peer;
};

static void run_steps(void *arg)
{
    struct test *t = arg;
    enum status s = upstream_new(t->loop, NULL, "127.0.0.1", t->peer.port, 2, &t->upstream, &t->err);
    if (s != STATUS_OK) return;
    t->steps(t);
    upstream_free(t->upstream);
}

static void run(struct test *t, void (*script)(struct peer *p), void (*steps)(struct test *t))
{
    t->peer.script = script;
    t->steps = steps;
    if (t->spec.method.len == 0) t->spec.method = SV("GET");
    if (t->spec.target.len == 0) t->spec.target = SV("/");
    peer_open(&t->peer);
    if (!t->has_no_peer) cr_assert_eq(pthread_create(&t->peer.thread, NULL, peer_main, &t->peer), 0);
    cr_assert_eq(loop_new(&t->loop, &t->err), STATUS_OK);
    cr_assert_eq(loop_run_fiber(t->loop, run_steps, t, &t->err), STATUS_OK);
    loop_free(t->loop);
    (void)shutdown(t->peer.listen_fd, SHUT_RDWR);
    if (!t->has_no_peer) (void)pthread_join(t->peer.thread, NULL);
    (void)close(t->peer.listen_fd);
}

static void forward_for(struct test *t, int64_t ms)
{
    t->spec.deadline_ns = clock_monotonic_ns() + ms * NS_PER_MS;
    t->status = http_forward(t->upstream, &t->spec, &t->arena, &t->reply, &t->err);
}

static void forward_once(struct test *t)
{
    forward_for(t, 10000);
}

/* ---- success ---- */

static void answer_two(struct peer *p)
{
    int fd = peer_accept(p);
    while (peer_read(p, fd))
        peer_send(
            fd,
            "HTTP/1.1 201 Created\r\nX-One: 1\r\nConnection: keep-alive\r\nContent-Length: 5\r\nKeep-Alive: x\r\n\r\nhello");
    (void)close(fd);
}

static const struct http_header sent_headers[] = {{{"x-keep", 6}, {"yes", 3}},
                                                  {{"connection", 10}, {"close, X-Secret", 15}},
                                                  {{"x-secret", 8}, {"1", 1}},
                                                  {{"transfer-encoding", 17}, {"chunked", 7}},
                                                  {{"te", 2}, {"trailers", 8}},
                                                  {{"keep-alive", 10}, {"5", 1}},
                                                  {{"proxy-authorization", 19}, {"x", 1}},
                                                  {{"trailer", 7}, {"x", 1}},
                                                  {{"upgrade", 7}, {"h2c", 3}},
                                                  {{"expect", 6}, {"100-continue", 12}},
                                                  {{"content-length", 14}, {"99", 2}},
                                                  {{"host", 4}, {"other", 5}},
                                                  {{"proxy-connection", 16}, {"x", 1}},
                                                  {{"proxy-authenticate", 18}, {"x", 1}}};

static void forward_twice(struct test *t)
{
    forward_once(t);
    if (t->status == STATUS_OK) forward_once(t);
    if (upstream_inflight(t->upstream) != 0) t->status = STATUS_INTERNAL;
}

Test(forward, answer_comes_whole_and_the_connection_is_used_again)
{
    struct test t = {.spec = {.method = SV("POST"),
                              .target = SV("/a?b=c"),
                              .authority = SV("func"),
                              .headers = sent_headers,
                              .n_headers = sizeof(sent_headers) / sizeof(sent_headers[0]),
                              .body = SV("body")}};
    run(&t, answer_two, forward_twice);
    cr_assert_eq(t.status, STATUS_OK, "%s", t.err.message);
    cr_assert_eq(t.reply.status, 201);
    cr_assert(sv_eq(t.reply.body, SV("hello")));
    cr_assert_eq(t.reply.attempts, 1);
    cr_assert(sv_eq(http_header_get(t.reply.headers, t.reply.n_headers, SV("x-one")), SV("1")));
    cr_assert_eq(http_header_get(t.reply.headers, t.reply.n_headers, SV("keep-alive")).len, 0);
    cr_assert_eq(http_header_get(t.reply.headers, t.reply.n_headers, SV("connection")).len, 0);
    cr_assert_eq(atomic_load(&t.peer.accepted), 1);
    cr_assert_str_eq(t.peer.request,
                     "POST /a?b=c HTTP/1.1\r\nhost: func\r\nx-keep: yes\r\ncontent-length: 4\r\n\r\nbody");
    arena_release(&t.arena);
}

static void answer_chunked(struct peer *p)
{
    int fd = peer_accept(p);
    (void)peer_read(p, fd);
    peer_send(fd,
              "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello");
    (void)usleep(20000);
    peer_send(fd, "\r\n7\r\n, world\r\n0\r\n\r\n");
    (void)recv(fd, p->request, 1, 0);
    (void)close(fd);
}

Test(forward, chunked_answer_is_put_together)
{
    struct test t = {0};
    run(&t, answer_chunked, forward_once);
    cr_assert_eq(t.status, STATUS_OK, "%s", t.err.message);
    cr_assert(sv_eq(t.reply.body, SV("hello, world")));
    arena_release(&t.arena);
}

static void answer_to_the_end(struct peer *p)
{
    int fd = peer_accept(p);
    (void)peer_read(p, fd);
    peer_send(fd, "HTTP/1.0 200 OK\r\n\r\nuntil the end");
    (void)close(fd);
}

Test(forward, body_without_length_ends_with_the_connection)
{
    struct test t = {0};
    run(&t, answer_to_the_end, forward_once);
    cr_assert_eq(t.status, STATUS_OK, "%s", t.err.message);
    cr_assert(sv_eq(t.reply.body, SV("until the end")));
    arena_release(&t.arena);
}

static void answer_head(struct peer *p)
{
    int fd = peer_accept(p);
    while (peer_read(p, fd))
        peer_send(fd, "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n");
    (void)close(fd);
}

Test(forward, head_is_complete_without_a_body)
{
    struct test t = {.spec.method = SV("HEAD")};
    run(&t, answer_head, forward_twice);
    cr_assert_eq(t.status, STATUS_OK, "%s", t.err.message);
    cr_assert_eq(t.reply.body.len, 0);
    cr_assert(sv_eq(http_header_get(t.reply.headers, t.reply.n_headers, SV("content-length")), SV("1000")));
    arena_release(&t.arena);
}

/* ---- failures ---- */

static void close_listener_first(struct test *t)
{
    (void)close(t->peer.listen_fd);
    t->peer.listen_fd = -1;
    forward_once(t);
}

Test(forward, refused_connection_is_unavailable_and_may_be_retried)
{
    struct test t = {.has_no_peer = true};
    run(&t, NULL, close_listener_first);
    cr_assert_eq(t.status, STATUS_UNAVAILABLE);
    cr_assert(t.err.can_retry);
    cr_assert_not_null(strstr(t.err.message, "127.0.0.1:"));
    arena_release(&t.arena);
}

static void close_before_answer(struct peer *p)
{
    int fd;
    while ((fd = peer_accept(p)) >= 0) {
        (void)peer_read(p, fd);
        (void)close(fd);
    }
}

Test(forward, cut_before_the_answer_is_unavailable_but_perhaps_executed)
{
    struct test t = {0};
    run(&t, close_before_answer, forward_once);
    cr_assert_eq(t.status, STATUS_UNAVAILABLE, "%s", t.err.message);
    cr_assert_not(t.err.can_retry);
    cr_assert_eq(atomic_load(&t.peer.accepted), 1, "a new connection is not tried twice");
    arena_release(&t.arena);
}

#define CUT_SCRIPT(name, text)                                                                               \
    static void name(struct peer *p)                                                                         \
    {                                                                                                        \
        int fd = peer_accept(p);                                                                             \
        (void)peer_read(p, fd);                                                                              \
        peer_send(fd, text);                                                                                 \
        (void)close(fd);                                                                                     \
    }
CUT_SCRIPT(cut_in_head, "HTTP/1.1 200 OK\r\nx: ")
CUT_SCRIPT(cut_in_body, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
CUT_SCRIPT(cut_in_chunk, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\na\r\nhalf")
CUT_SCRIPT(cut_between_chunks, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")
CUT_SCRIPT(not_http, "SSH-2.0-x\r\n\r\n")
CUT_SCRIPT(bad_chunk, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhalf\r\n")
CUT_SCRIPT(bad_length, "HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello")
CUT_SCRIPT(bad_coding, "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nhello")

Test(forward, cut_within_the_answer_is_unknown)
{
    void (*const scripts[])(struct peer * p) = {cut_in_head, cut_in_body, cut_in_chunk, cut_between_chunks,
                                                not_http,    bad_chunk,   bad_length,   bad_coding};
    for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
        struct test t = {0};
        run(&t, scripts[i], forward_once);
        cr_expect_eq(t.status, STATUS_UNKNOWN, "script %zu: %s", i, status_name(t.status));
        cr_expect_not(t.err.can_retry);
        arena_release(&t.arena);
    }
}

static void never_answer(struct peer *p)
{
    int fd = peer_accept(p);
    (void)peer_read(p, fd);
    p->is_released = !peer_read(p, fd); /* our end was closed by the caller's deadline */
    (void)close(fd);
}

static void forward_shortly(struct test *t)
{
    forward_for(t, 100);
    if (upstream_inflight(t->upstream) != 0) t->status = STATUS_INTERNAL;
}

Test(forward, deadline_ends_the_call_and_its_connection)
{
    struct test t = {0};
    run(&t, never_answer, forward_shortly);
    cr_assert_eq(t.status, STATUS_DEADLINE_EXCEEDED);
    cr_assert_not(t.err.can_retry, "it may be executed");
    cr_assert(t.peer.is_released);
    arena_release(&t.arena);
}

static void answer_slowly(struct peer *p)
{
    int fd = peer_accept(p);
    (void)peer_read(p, fd);
    peer_send(fd, "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n");
    while (send(fd, "drip", 4, MSG_NOSIGNAL) == 4)
        (void)usleep(5000);
    (void)close(fd);
}

Test(forward, deadline_is_for_the_whole_answer)
{
    struct test t = {0};
    run(&t, answer_slowly, forward_shortly);
    cr_assert_eq(t.status, STATUS_DEADLINE_EXCEEDED);
    arena_release(&t.arena);
}

static void forward_in_child(void *arg)
{
    forward_once(arg);
}

static void cancel_forward(struct test *t)
{
    struct fiber_scope scope;
    fiber_scope_init(&scope);
    (void)!fiber_scope_spawn(&scope, forward_in_child, t, NULL);
    (void)!sleep_ms(50);
    fiber_scope_cancel(&scope);
    fiber_scope_join(&scope);
}

Test(forward, cancelled_caller_leaves_at_once)
{
    struct test t = {0};
    int64_t before_ns = clock_monotonic_ns();
    run(&t, never_answer, cancel_forward);
    cr_assert_eq(t.status, STATUS_CANCELLED);
    cr_assert(t.peer.is_released);
    cr_assert_lt(clock_monotonic_ns() - before_ns, 5 * NS_PER_S);
    arena_release(&t.arena);
}

CUT_SCRIPT(large_by_length, "HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n12345678901")
CUT_SCRIPT(large_by_chunks,
           "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\n123456\r\n5\r\n78901\r\n0\r\n\r\n")
CUT_SCRIPT(large_by_end, "HTTP/1.0 200 OK\r\n\r\n12345678901")
CUT_SCRIPT(just_fits, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n1234567890")

Test(forward, answer_over_the_limit_is_refused)
{
    void (*const scripts[])(struct peer * p) = {large_by_length, large_by_chunks, large_by_end, just_fits};
    for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
        struct test t = {.spec.max_body_bytes = 10};
        run(&t, scripts[i], forward_once);
        cr_expect_eq(t.status, i == 3 ? STATUS_OK : STATUS_RESOURCE_EXHAUSTED, "script %zu: %s", i,
                     status_name(t.status));
        arena_release(&t.arena);
    }
}

/* The first connection dies when the second request arrives on it; the second connection answers. */
static void die_on_reuse(struct peer *p)
{
    int fd = peer_accept(p);
    (void)peer_read(p, fd);
    peer_send(fd, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst");
    (void)peer_read(p, fd);
    (void)close(fd);
    fd = peer_accept(p);
    (void)peer_read(p, fd);
    peer_send(fd, "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond");
    (void)peer_read(p, fd);
    (void)close(fd);
}

Test(forward, a_get_whose_pooled_connection_dies_silently_is_sent_once_more)
{
    struct test t = {.spec = {.method = SV("GET"), .target = SV("/again")}};
    run(&t, die_on_reuse, forward_twice);
    cr_assert_eq(t.status, STATUS_OK, "%s", t.err.message);
    cr_assert(sv_eq(t.reply.body, SV("second")));
    cr_assert_eq(t.reply.attempts, 2);
    cr_assert_eq(atomic_load(&t.peer.accepted), 2);
    cr_assert_not_null(strstr(t.peer.request, "again"));
    arena_release(&t.arena);
}

/* Nobody answers any more: the peer has died as a whole. */
static void die_for_good_on_reuse(struct peer *p)
{
    int fd = peer_accept(p);
    (void)peer_read(p, fd);
    peer_send(fd, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst");
    (void)peer_read(p, fd);
    (void)shutdown(p->listen_fd, SHUT_RDWR);
    (void)close(fd);
}

Test(forward, a_post_whose_pooled_connection_dies_may_have_run_and_is_not_sent_again)
{
    void (*const scripts[])(struct peer * p) = {die_on_reuse, die_for_good_on_reuse};
    for (size_t i = 0; i < 2; i++) {
        struct test t = {.spec = {.method = SV("POST"), .body = SV("once")}};
        run(&t, scripts[i], forward_twice);
        cr_expect_eq(t.status, STATUS_UNAVAILABLE, "script %zu: %s", i, status_name(t.status));
        cr_expect_not(t.err.can_retry, "script %zu", i);
        cr_expect_eq(atomic_load(&t.peer.accepted), 1, "script %zu", i);
        arena_release(&t.arena);
    }
}

static void answer_and_close(struct peer *p)
{
    for (int i = 0; i < 2; i++) {
        int fd = peer_accept(p);
        (void)peer_read(p, fd);
        peer_send(fd, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        (void)close(fd);
        p->is_released = true;
    }
}

static void forward_again_later(struct test *t)
{
    forward_once(t);
    while (t->status == STATUS_OK && !t->peer.is_released)
        (void)!sleep_ms(1);
    if (t->status == STATUS_OK) forward_once(t);
}

Test(forward, a_pooled_connection_that_was_closed_while_idle_is_not_used)
{
    struct test t = {.spec = {.method = SV("POST"), .body = SV("x")}};
    run(&t, answer_and_close, forward_again_later);
    cr_assert_eq(t.status, STATUS_OK, "%s", t.err.message);
    cr_assert_eq(t.reply.attempts, 1);
    cr_assert_eq(atomic_load(&t.peer.accepted), 2);
    arena_release(&t.arena);
}

static void bad_specs(struct test *t)
{
    static const struct http_header split[] = {{{"x", 1}, {"a\r\nb: c", 7}}},
                                    colon[] = {{{"x:y", 3}, {"a", 1}}};
    const struct forward_spec good = t->spec;
    struct forward_spec bad[6] = {good, good, good, good, good, good};
    bad[0].target = SV("/a b");
    bad[1].target = SV("/\r\nhost: x");
    bad[2].method = SV("GET /");
    bad[3].headers = split, bad[3].n_headers = 1;
    bad[4].headers = colon, bad[4].n_headers = 1;
    bad[5].authority = SV("a\nb");
    t->status = STATUS_INVALID_ARGUMENT;
    for (size_t i = 0; i < 6 && t->status == STATUS_INVALID_ARGUMENT; i++) {
        t->spec = bad[i];
        forward_once(t);
    }
}

Test(forward, what_would_split_the_request_is_refused)
{
    struct test t = {.has_no_peer = true};
    run(&t, NULL, bad_specs);
    cr_assert_eq(t.status, STATUS_INVALID_ARGUMENT);
    arena_release(&t.arena);
}

/* ---- more callers than connections ---- */

static void answer_each(struct peer *p)
{
    int fds[2];
    for (int i = 0; i < 2; i++)
        fds[i] = peer_accept(p);
    for (int i = 0; i < 6; i++) {
        (void)peer_read(p, fds[i % 2]);
        peer_send(fds[i % 2], "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    }
    for (int i = 0; i < 2; i++) {
        (void)peer_read(p, fds[i]);
        (void)close(fds[i]);
    }
}

static unsigned answered, most_inflight;

static void forward_and_count(void *arg)
{
    struct test *t = arg;
    struct arena a = {0};
    struct http_reply reply;
    struct forward_spec spec = t->spec;
    spec.deadline_ns = clock_monotonic_ns() + 10 * NS_PER_S;
    answered += http_forward(t->upstream, &spec, &a, &reply, NULL) == STATUS_OK;
    if (upstream_inflight(t->upstream) > most_inflight) most_inflight = upstream_inflight(t->upstream);
    arena_release(&a);
}

static void six_callers(struct test *t)
{
    struct fiber_scope scope;
    fiber_scope_init(&scope);
    for (int i = 0; i < 6; i++)
        (void)!fiber_scope_spawn(&scope, forward_and_count, t, NULL);
    fiber_scope_join(&scope);
}

Test(forward, callers_above_the_limit_wait_for_a_connection)
{
    struct test t = {0};
    answered = most_inflight = 0;
    run(&t, answer_each, six_callers);
    cr_assert_eq(answered, 6);
    cr_assert_leq(most_inflight, 2);
    cr_assert_eq(atomic_load(&t.peer.accepted), 2);
}

static void busy_callers(struct test *t)
{
    struct fiber_scope scope;
    fiber_scope_init(&scope);
    for (int i = 0; i < 2; i++)
        (void)!fiber_scope_spawn(&scope, forward_and_count, t, NULL);
    (void)!sleep_ms(20);
    forward_shortly(t); /* both slots are taken; gives INTERNAL only because they still are */
    if (strstr(t->err.message, "busy") != NULL) t->status = STATUS_DEADLINE_EXCEEDED;
    fiber_scope_cancel(&scope);
    fiber_scope_join(&scope);
    if (upstream_inflight(t->upstream) != 0) t->status = STATUS_INTERNAL;
}

static void accept_and_hang(struct peer *p)
{
    int fds[2] = {peer_accept(p), peer_accept(p)};
    for (int i = 0; i < 2; i++) {
        while (peer_read(p, fds[i]))
            continue;
        (void)close(fds[i]);
    }
}

Test(forward, waiting_for_a_connection_ends_at_the_deadline)
{
    struct test t = {0};
    run(&t, accept_and_hang, busy_callers);
    cr_assert_eq(t.status, STATUS_DEADLINE_EXCEEDED);
    cr_assert(t.err.can_retry, "it was not sent");
    arena_release(&t.arena);
}

/* ---- addresses ---- */

static void address_steps(struct test *t)
{
    struct upstream *u;
    char path[200];
    memset(path, 'p', sizeof(path));
    path[sizeof(path) - 1] = '\0';
    t->status = STATUS_OK;
    if (upstream_new(t->loop, NULL, "localhost", 80, 0, &u, &t->err) != STATUS_INVALID_ARGUMENT)
        t->status = STATUS_INTERNAL;
    if (upstream_new(t->loop, path, NULL, 0, 0, &u, &t->err) != STATUS_INVALID_ARGUMENT)
        t->status = STATUS_INTERNAL;
    if (upstream_new(t->loop, "/nonexistent/socket", NULL, 0, 0, &u, &t->err) != STATUS_OK) return;
    t->spec.deadline_ns = clock_monotonic_ns() + NS_PER_S;
    if (t->status == STATUS_OK) t->status = http_forward(u, &t->spec, &t->arena, &t->reply, &t->err);
    upstream_free(u);
}

Test(forward, bad_addresses_are_refused_and_missing_sockets_unavailable)
{
    struct test t = {.has_no_peer = true};
    run(&t, NULL, address_steps);
    cr_assert_eq(t.status, STATUS_UNAVAILABLE);
    cr_assert(t.err.can_retry);
    cr_assert_not_null(strstr(t.err.message, "unix:/nonexistent/socket: No such file"), "%s", t.err.message);
    arena_release(&t.arena);
}
