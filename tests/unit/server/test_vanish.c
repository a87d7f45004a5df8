/* The trap of design §2: a client that leaves while its handler waits. h2o frees the request at once on
 * HTTP/2 and hands its memory to the next one; the handler's own copy must stay what it was. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "harness.h"

#define BODY_BYTES 3000

/* Handlers wait here until the script lets them go on, then look whether their request is still theirs. */
struct gate {
    struct fiber_event open;
    unsigned entered, intact, changed;
    void (*client)(uint16_t port);
    uint16_t port;
    struct harness *h;
};

static bool is_filled_with(struct strview s, char c)
{
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] != c) return false;
    }
    return true;
}

static bool is_own(const struct http_req *req)
{
    struct strview tag = http_req_header(req, SV("x-tag"));
    char c = tag.len > 0 ? tag.ptr[0] : '?';
    return sv_eq(req->method, SV("POST")) && sv_starts_with(req->path, SV("/")) &&
           req->body.len == BODY_BYTES && is_filled_with(req->body, c) && is_filled_with(tag, c) &&
           tag.len == 20;
}

static void wait_at_gate(void *arg, const struct http_req *req, struct http_resp *resp)
{
    struct gate *g = arg;
    if (sv_eq(req->path, SV("/direct"))) { /* others that reuse the memory */
        http_resp_set(resp, 200, SV("text/plain"), req->body);
        return;
    }
    g->entered++;
    (void)!fiber_event_wait(&g->open, 0);
    if (is_own(req))
        g->intact++;
    else
        g->changed++;
    http_resp_set(resp, 200, SV("text/plain"), req->body);
}

static void run_client(void *arg)
{
    struct gate *g = arg;
    g->client(g->port);
}

static void open_gate_when(struct gate *g, unsigned entered)
{
    for (int i = 0; i < 2000 && g->entered < entered; i++)
        (void)!sleep_ms(5);
    work_run(run_client, g); /* the others */
    fiber_event_set(&g->open);
    for (int i = 0; i < 2000 && server_inflight(g->h->server) > 0; i++)
        (void)!sleep_ms(5);
}

/* ---- HTTP/1 ---- */

static void post_http1(int fd, const char *path, char c)
{
    char request[BODY_BYTES + 256];
    int n = snprintf(request, sizeof(request),
                     "POST %s HTTP/1.1\r\nhost: h\r\nx-tag: %.*s\r\ncontent-length: %d\r\n\r\n", path, 20,
                     c == 'A' ? "AAAAAAAAAAAAAAAAAAAA" : "BBBBBBBBBBBBBBBBBBBB", BODY_BYTES);
    memset(request + n, c, BODY_BYTES);
    send_bytes(fd, request, (size_t)n + BODY_BYTES);
}

static void others_http1(uint16_t port)
{
    for (int i = 0; i < 50; i++) {
        struct answer a;
        int fd = dial(port);
        post_http1(fd, "/direct", 'B');
        read_answer(fd, &a);
        answer_release(&a);
        (void)close(fd);
    }
}

static void leave_http1(void *arg)
{
    struct gate *g = arg;
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    for (int i = 0; i < 8; i++) {
        int fd = dial(g->port);
        post_http1(fd, "/", 'A');
        if (i % 2 == 0) (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)); /* RST */
        (void)usleep(20000); /* it is in the handler now */
        (void)close(fd);
    }
}

static void script_http1(struct harness *h)
{
    struct gate *g = h->arg;
    g->h = h;
    g->port = h->port;
    g->client = others_http1;
    work_run(leave_http1, g);
    open_gate_when(g, 8);
}

static void run_gate(struct gate *g, void (*script)(struct harness *h))
{
    fiber_event_init(&g->open);
    const struct server_cfg cfg = {.host = "127.0.0.1", .handler = wait_at_gate, .arg = g, .http2 = true};
    run_with_server(&cfg, script, g);
}

Test(vanish, http1_client_that_left_does_not_disturb_its_handler)
{
    struct gate g = {0};
    run_gate(&g, script_http1);
    cr_assert_eq(g.entered, 8);
    cr_assert_eq(g.intact, 8);
    cr_assert_eq(g.changed, 0);
}

/* ---- HTTP/2, by hand ---- */

static size_t put_frame(uint8_t *at, size_t len, uint8_t type, uint8_t flags, uint32_t stream)
{
    const uint8_t head[9] = {
        (uint8_t)(len >> 16),    (uint8_t)(len >> 8),     (uint8_t)len,           type,           flags,
        (uint8_t)(stream >> 24), (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream};
    memcpy(at, head, sizeof(head));
    return sizeof(head);
}

static size_t put_literal(uint8_t *at, const char *name, const char *value)
{
    size_t n = 0, name_len = strlen(name), value_len = strlen(value);
    at[n++] = 0x00; /* literal without indexing, new name */
    at[n++] = (uint8_t)name_len;
    memcpy(at + n, name, name_len);
    n += name_len;
    at[n++] = (uint8_t)value_len;
    memcpy(at + n, value, value_len);
    return n + value_len;
}

static int dial_http2(uint16_t port)
{
    int fd = dial(port);
    uint8_t frames[9 + 13] = {0};
    size_t n = put_frame(frames, 0, 4, 0, 0); /* SETTINGS */
    (void)put_frame(frames + n, 4, 8, 0, 0);  /* WINDOW_UPDATE: all answers fit without another */
    frames[n + 9 + 1] = 0x10;
    send_text(fd, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    send_bytes(fd, frames, sizeof(frames));
    return fd;
}

static void post_http2(int fd, uint32_t stream, const char *path, char c)
{
    uint8_t frames[BODY_BYTES + 512], *at = frames + 9;
    *at++ = 0x83; /* :method POST */
    *at++ = 0x86; /* :scheme http */
    *at++ = 0x04; /* :path, literal */
    *at++ = (uint8_t)strlen(path);
    memcpy(at, path, strlen(path));
    at += strlen(path);
    *at++ = 0x01; /* :authority, literal */
    *at++ = 1;
    *at++ = 'h';
    at += put_literal(at, "x-tag", c == 'A' ? "AAAAAAAAAAAAAAAAAAAA" : "BBBBBBBBBBBBBBBBBBBB");
    (void)put_frame(frames, (size_t)(at - frames) - 9, 1, 0x4, stream);
    at += put_frame(at, BODY_BYTES, 0, 0x1, stream);
    memset(at, c, BODY_BYTES);
    send_bytes(fd, frames, (size_t)(at - frames) + BODY_BYTES);
}

static void reset_http2(int fd, uint32_t stream)
{
    uint8_t frame[13] = {0};
    (void)put_frame(frame, 4, 3, 0, stream);
    frame[12] = 8; /* CANCEL */
    send_bytes(fd, frame, sizeof(frame));
}

/* Until the stream ends or `limit` frames have come; its END_STREAM seen? */
static bool read_until_end_of(int fd, uint32_t stream, int limit)
{
    for (; limit > 0; limit--) {
        uint8_t head[9], scrap[70000];
        if (recv(fd, head, 9, MSG_WAITALL) != 9) return false;
        size_t len = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
        uint32_t id = (uint32_t)head[5] << 24 | (uint32_t)head[6] << 16 | (uint32_t)head[7] << 8 | head[8];
        if (len > 0 && recv(fd, scrap, len, MSG_WAITALL) != (ssize_t)len) return false;
        if (id == stream && head[3] == 3) return false;
        if (id == stream && (head[3] == 0 || head[3] == 1) && (head[4] & 1)) return true;
    }
    return false;
}

static int http2_fd; /* of the client that resets: it goes on with other requests on the same connection */
static unsigned others_answered;

static void others_http2(uint16_t port)
{
    for (uint32_t i = 0; i < 30; i++) {
        post_http2(http2_fd, 101 + 2 * i, "/direct", 'B');
        others_answered += read_until_end_of(http2_fd, 101 + 2 * i, 100);
    }
    int fd = dial_http2(port);
    for (uint32_t i = 0; i < 30; i++) {
        post_http2(fd, 1 + 2 * i, "/direct", 'B');
        others_answered += read_until_end_of(fd, 1 + 2 * i, 100);
    }
    (void)close(fd);
    (void)close(http2_fd);
}

static void reset_streams(void *arg)
{
    struct gate *g = arg;
    http2_fd = dial_http2(g->port);
    for (uint32_t i = 0; i < 8; i++)
        post_http2(http2_fd, 1 + 2 * i, "/", 'A');
    (void)usleep(50000);
    for (uint32_t i = 0; i < 8; i++)
        reset_http2(http2_fd, 1 + 2 * i);
    int fd = dial_http2(g->port);
    for (uint32_t i = 0; i < 8; i++)
        post_http2(fd, 1 + 2 * i, "/", 'A');
    (void)usleep(50000);
    (void)close(fd); /* and eight whose connection goes */
}

static void script_http2(struct harness *h)
{
    struct gate *g = h->arg;
    g->h = h;
    g->port = h->port;
    g->client = others_http2;
    work_run(reset_streams, g);
    open_gate_when(g, 16);
}

Test(vanish, http2_reset_streams_and_lost_connections_do_not_disturb_their_handlers)
{
    struct gate g = {0};
    others_answered = 0;
    run_gate(&g, script_http2);
    cr_assert_eq(g.entered, 16);
    cr_assert_eq(g.intact, 16);
    cr_assert_eq(g.changed, 0);
    cr_assert_eq(others_answered, 60);
}

/* ---- rapid reset ---- */

static void reset_rapidly(void *arg)
{
    struct gate *g = arg;
    int fd = dial_http2(g->port);
    for (uint32_t i = 0; i < 1000; i++) {
        post_http2(fd, 1 + 2 * i, "/", 'A');
        reset_http2(fd, 1 + 2 * i);
    }
    g->changed = is_closed(fd) ? 0 : 1000;
    (void)close(fd);
}

static void script_rapid(struct harness *h)
{
    struct gate *g = h->arg;
    g->h = h;
    g->port = h->port;
    work_run(reset_rapidly, g);
    fiber_event_set(&g->open);
}

Test(vanish, rapid_reset_is_cut_after_a_bounded_number_of_handlers)
{
    struct gate g = {0};
    run_gate(&g, script_rapid);
    cr_assert_eq(g.changed, 0, "the connection stayed open");
    cr_assert_leq(g.entered, 128, "%u", g.entered);
    cr_assert_geq(g.entered, 50, "%u", g.entered);
}
