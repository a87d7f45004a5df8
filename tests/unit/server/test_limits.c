/* What clients may make the server hold: answers that nobody reads, and HTTP/2 connections that only cost. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "harness.h"
#include "server/server_impl.h"

#define GET(path) "GET " path " HTTP/1.1\r\nhost: h\r\n\r\n"
#define LARGE     (8 * 1024 * 1024)
#define N         12

struct scene {
    struct harness *h;
    uint16_t port;
    bool is_small_served;
    unsigned cut, handled;
    bool is_cut;
    const struct flood *flood;
};

static void handler(void *arg, const struct http_req *req, struct http_resp *resp)
{
    (void)arg;
    if (sv_eq(req->path, SV("/large"))) {
        char *body = arena_alloc(req->arena, LARGE);
        memset(body, 'x', LARGE);
        resp->body = sv_n(body, LARGE);
        return;
    }
    if (sv_eq(req->path, SV("/wait"))) (void)!sleep_ms(1000);
    http_resp_set(resp, 200, SV("text/plain"), SV("ok"));
}

static void run_on_worker(struct harness *h, void (*client)(void *arg))
{
    struct scene *s = h->arg;
    s->h = h;
    s->port = h->port;
    work_run(client, s);
}

/* ---- held answers ---- */

static void ask_and_never_read(void *arg)
{
    struct scene *s = arg;
    struct answer a;
    int fds[N];
    for (int i = 0; i < N; i++) {
        int small = 64 * 1024;
        fds[i] = dial(s->port);
        (void)setsockopt(fds[i], SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
        send_text(fds[i], GET("/large"));
    }
    ask(s->port, GET("/"), &a);
    s->is_small_served = a.status == 200;
    answer_release(&a);
    for (int i = 0; i < N; i++) {
        struct timeval soon = {.tv_sec = 5};
        (void)setsockopt(fds[i], SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon));
        read_answer(fds[i], &a);
        s->cut += !a.is_complete;
        answer_release(&a);
        (void)close(fds[i]);
    }
}

static void held_script(struct harness *h)
{
    h->server->is_memory_known = true;
    h->server->held_max_bytes = (size_t)4 * LARGE;
    run_on_worker(h, ask_and_never_read);
}

Test(limits, answers_that_nobody_reads_have_a_common_limit_and_small_ones_are_served, .timeout = 60)
{
    struct scene s = {0};
    const struct server_cfg cfg = {.host = "127.0.0.1", .listen_fd = -1, .handler = handler, .arg = &s};
    run_with_server(&cfg, held_script, &s);
    cr_assert(s.is_small_served);
    cr_assert(s.cut >= N - 5 && s.cut < N, "%u", s.cut);
}

static void post_large(void *arg)
{
    struct scene *s = arg;
    struct answer a;
    static char body[128 * 1024];
    int fd = dial(s->port), first = dial(s->port);
    send_text(first, "POST /wait HTTP/1.1\r\nhost: h\r\ncontent-length: 131072\r\n\r\n");
    send_bytes(first, body, sizeof(body));
    (void)usleep(100000); /* its handler waits */
    send_text(fd, "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 131072\r\n\r\n");
    send_bytes(fd, body, sizeof(body));
    read_answer(fd, &a);
    s->cut = (unsigned)a.status;
    answer_release(&a);
    send_text(fd, GET("/"));
    read_answer(fd, &a);
    s->is_small_served = a.status == 200;
    answer_release(&a);
    (void)close(fd);
    (void)close(first);
}

static void bodies_script(struct harness *h)
{
    h->server->is_memory_known = true;
    h->server->held_max_bytes = 200 * 1024;
    run_on_worker(h, post_large);
}

Test(limits, large_bodies_under_way_have_a_common_limit_and_small_ones_are_served, .timeout = 30)
{
    struct scene s = {0};
    const struct server_cfg cfg = {.host = "127.0.0.1", .listen_fd = -1, .handler = handler, .arg = &s};
    run_with_server(&cfg, bodies_script, &s);
    cr_assert_eq(s.cut, 503);
    cr_assert(s.is_small_served);
}

/* Somebody's body comes a moment after its head, while a large one is under way. */
static void post_in_two_parts(void *arg)
{
    struct scene *s = arg;
    struct answer a;
    static char body[128 * 1024];
    int fd = dial(s->port), first = dial(s->port);
    send_text(first, "POST /wait HTTP/1.1\r\nhost: h\r\ncontent-length: 131072\r\n\r\n");
    send_bytes(first, body, sizeof(body));
    send_text(fd, "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n");
    (void)usleep(400000); /* some sweeps long */
    send_text(fd, "ok");
    read_answer(fd, &a);
    s->is_small_served = a.status == 200;
    answer_release(&a);
    (void)close(fd);
    (void)close(first);
}

static void input_script(struct harness *h)
{
    h->server->is_memory_known = true;
    h->server->held_max_bytes = LARGE;
    h->server->input_max_bytes = 128 * 1024;
    run_on_worker(h, post_in_two_parts);
}

Test(limits, requests_under_way_do_not_count_against_unfinished_ones, .timeout = 30)
{
    struct scene s = {0};
    const struct server_cfg cfg = {.host = "127.0.0.1", .listen_fd = -1, .handler = handler, .arg = &s};
    run_with_server(&cfg, input_script, &s);
    cr_assert(s.is_small_served);
}

static void look_at_limits(struct harness *h)
{
    struct rlimit before, low;
    struct scene *s = h->arg;
    server_limit_memory(h->server);
    s->is_cut = h->server->held_max_bytes <= SERVER_HELD_MAX_BYTES && h->server->held_max_bytes > 0;
    (void)getrlimit(RLIMIT_DATA, &before);
    low = before;
    low.rlim_cur = 64 * 1024 * 1024;
    (void)setrlimit(RLIMIT_DATA, &low);
    h->server->is_memory_known = false;
    server_limit_memory(h->server);
    (void)setrlimit(RLIMIT_DATA, &before);
    s->is_small_served =
        h->server->held_max_bytes == 8 * 1024 * 1024 && h->server->input_max_bytes == 8 * 1024 * 1024;
}

Test(limits, clients_may_fill_an_eighth_of_what_the_process_may_have)
{
    struct scene s = {0};
    const struct server_cfg cfg = {.host = "127.0.0.1", .listen_fd = -1, .handler = handler, .arg = &s};
    run_with_server(&cfg, look_at_limits, &s);
    cr_assert(s.is_cut && s.is_small_served);
}

/* ---- HTTP/2 ---- */

struct flood {
    const char *name;
    uint8_t frame[32];
    size_t frame_bytes;
};

static const struct flood floods[] = {
    {"PING", {0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}, 17},
    {"SETTINGS", {0, 0, 0, 4, 0, 0, 0, 0, 0}, 9},
    {"PRIORITY", {0, 0, 5, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 7}, 14},
    {"unknown", {0, 0, 0, 99, 0, 0, 0, 0, 0}, 9},
};

/* As much as it takes in 10 s; SETTINGS and a POST of one stream come first. */
static void flood_until_cut(void *arg)
{
    struct scene *s = arg;
    static const uint8_t begin[] = {0, 0, 0, 4, 0, 0, 0,    0,    0,    0,    0, 6,
                                    1, 4, 0, 0, 0, 1, 0x83, 0x86, 0x84, 0x41, 1, 'h'};
    static uint8_t part[32 * 4096];
    size_t bytes = s->flood->frame_bytes;
    int64_t end_ns = clock_monotonic_ns() + 10 * NS_PER_S;
    for (size_t i = 0; i < 4096; i++)
        memcpy(part + i * bytes, s->flood->frame, bytes);
    int fd = dial(s->port);
    send_text(fd, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    send_bytes(fd, begin, sizeof(begin));
    while (!s->is_cut && clock_monotonic_ns() < end_ns)
        s->is_cut = send(fd, part, 4096 * bytes, MSG_NOSIGNAL) < 0;
    (void)close(fd);
}

static void flood_script(struct harness *h)
{
    run_on_worker(h, flood_until_cut);
}

Test(limits, http2_frames_that_are_no_requests_end_the_connection, .timeout = 60)
{
    for (size_t i = 0; i < ARRAY_LEN(floods); i++) {
        struct scene s = {.flood = &floods[i]};
        const struct server_cfg cfg = {
            .host = "127.0.0.1", .listen_fd = -1, .handler = handler, .http2 = true, .max_body_bytes = 65536};
        run_with_server(&cfg, flood_script, &s);
        cr_expect(s.is_cut, "%s", floods[i].name);
    }
}

/* HEADERS and RST_STREAM of 3000 streams in one write. */
static void reset_rapidly(void *arg)
{
    struct scene *s = arg;
    static const uint8_t settings[] = {0, 0, 0, 4, 0, 0, 0, 0, 0};
    static uint8_t part[3000 * (15 + 13)];
    uint8_t *at = part;
    for (uint32_t i = 0; i < 3000; i++) {
        const uint8_t id[2] = {(uint8_t)((2 * i + 1) >> 8), (uint8_t)(2 * i + 1)};
        const uint8_t frames[] = {0,   0, 6, 1, 5, 0, 0, 0, 0, 0x82, 0x86, 0x84, 0x41, 1,
                                  'h', 0, 0, 4, 3, 0, 0, 0, 0, 0,    0,    0,    0,    8};
        memcpy(at, frames, sizeof(frames));
        memcpy(at + 7, id, 2);
        memcpy(at + 22, id, 2);
        at += sizeof(frames);
    }
    int fd = dial(s->port);
    send_text(fd, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    send_bytes(fd, settings, sizeof(settings));
    send_bytes(fd, part, sizeof(part));
    s->is_cut = is_closed(fd);
    (void)close(fd);
}

static void count(void *arg, const struct http_req *req, struct http_resp *resp)
{
    struct scene *s = arg;
    s->handled++;
    handler(arg, req, resp);
}

static void reset_script(struct harness *h)
{
    run_on_worker(h, reset_rapidly);
}

Test(limits, http2_streams_that_are_reset_by_the_thousand_end_the_connection, .timeout = 30)
{
    struct scene s = {0};
    const struct server_cfg cfg = {
        .host = "127.0.0.1", .listen_fd = -1, .handler = count, .arg = &s, .http2 = true};
    run_with_server(&cfg, reset_script, &s);
    cr_assert(s.is_cut);
    cr_assert_lt(s.handled, 2000, "%u", s.handled);
}

/* A byte of the body now and then keeps h2o's idle timer from ever firing. */
static void trickle(void *arg)
{
    struct scene *s = arg;
    static const uint8_t begin[] = {0, 0, 0, 4, 0, 0, 0,    0,    0,    0,    0, 6,
                                    1, 4, 0, 0, 0, 1, 0x83, 0x86, 0x84, 0x41, 1, 'h'};
    static const uint8_t data[] = {0, 0, 1, 0, 0, 0, 0, 0, 1, 'x'};
    int64_t end_ns = clock_monotonic_ns() + 10 * NS_PER_S;
    int fd = dial(s->port);
    send_text(fd, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    send_bytes(fd, begin, sizeof(begin));
    while (!s->is_cut && clock_monotonic_ns() < end_ns) {
        s->is_cut = send(fd, data, sizeof(data), MSG_NOSIGNAL) < 0;
        (void)usleep(20000);
    }
    (void)close(fd);
}

static void trickle_script(struct harness *h)
{
    run_on_worker(h, trickle);
}

Test(limits, http2_request_that_never_ends_is_cut_however_busy_it_is, .timeout = 30)
{
    struct scene s = {0};
    const struct server_cfg cfg = {.host = "127.0.0.1",
                                   .listen_fd = -1,
                                   .handler = handler,
                                   .http2 = true,
                                   .request_timeout_ns = 200 * NS_PER_MS,
                                   .write_timeout_ns = 200 * NS_PER_MS};
    run_with_server(&cfg, trickle_script, &s);
    cr_assert(s.is_cut);
}
