/* Raw bytes as the answer of a bot or of Alertmanager, to each of our clients: the gateway's (whole, and
 * passed on as it comes) and libcurl's. What is taken for an answer has a status and headers that can be
 * passed on, and keeps the limit of its length.
 *
 * Input: one byte, its bits: 1 libcurl; 2 passed on; 4 the connection stays open for a second request. Then
 * the bytes, in two parts at the first 0xFF.
 *
 * Reads: client/answer.c client/forward.c client/forward_call.c client/forward_head.c client/client.c
 * client/client_attempt.c */
#include "client/forward.h"

#include <stdlib.h>

#include "folder.h"
#include "in_loop.h"
#include "replay.h"
#include "wire.h"

#define BODY_MAX     4096
#define ANSWER_BYTES (64 * 1024)
#define PATIENCE_NS  (10 * NS_PER_S)
#define CALL_NS      (NS_PER_S / 200) /* an answer that never ends costs so much */

struct play {
    struct strview bytes;
    unsigned bits;
    int listen_fd;
    bool is_over; /* the client has its answer */
    struct fiber_scope scope;
};

static char path[FOLDER_PATH_MAX];

/* ---- the peer: every connection gets the bytes ---- */

static void answer_one(const struct play *p, int fd)
{
    int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_NS;
    size_t cut = sv_find(p->bytes, '\xFF');
    char scrap[1];
    if (!wire_wait(fd, POLLIN, deadline_ns) || recv(fd, scrap, 1, MSG_DONTWAIT) < 0) return;
    wire_send(fd, sv_sub(p->bytes, 0, cut), deadline_ns);
    if (cut < p->bytes.len) {
        (void)!fiber_yield();
        wire_send(fd, sv_sub(p->bytes, cut + 1, p->bytes.len), deadline_ns);
    }
    while ((p->bits & 4) != 0 && !p->is_over && fiber_yield() == STATUS_OK)
        ;
}

static void peer_fiber(void *arg)
{
    struct play *p = arg;
    while (!p->is_over && !fiber_is_cancelled()) {
        int fd = accept4(p->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            answer_one(p, fd);
            (void)close(fd);
        } else if (!wire_wait(p->listen_fd, POLLIN, clock_monotonic_ns() + PATIENCE_NS)) {
            return;
        }
    }
}

/* ---- the clients ---- */

/* libcurl takes any three digits: whoever asked looks at them. */
static void check_reply(const struct http_reply *reply, int max_status)
{
    assert(reply->status >= 100 && reply->status <= max_status && reply->body.len <= BODY_MAX);
    for (size_t i = 0; i < reply->n_headers; i++) {
        struct strview name = reply->headers[i].name, value = reply->headers[i].value;
        assert(name.len > 0 && sv_find(name, '\n') == name.len && sv_find(value, '\n') == value.len &&
               memchr(value.ptr != NULL ? value.ptr : "", '\0', value.len) == NULL);
    }
}

static void forward(struct arena *a)
{
    struct upstream *u = NULL;
    struct http_reply reply;
    struct error err = {0};
    const struct forward_spec spec = {.method = SV("POST"),
                                      .target = SV("/"),
                                      .authority = SV("h"),
                                      .body = SV("{}"),
                                      .deadline_ns = clock_monotonic_ns() + CALL_NS,
                                      .max_body_bytes = BODY_MAX};
    enum status s = upstream_new(the_loop(), path, NULL, 0, 0, &u, &err);
    assert(s == STATUS_OK);
    for (int i = 0; i < 2; i++) {
        s = http_forward(u, &spec, a, &reply, &err);
        if (s == STATUS_OK) check_reply(&reply, 599);
        assert(s == STATUS_OK || err.message[0] != '\0');
        if (s == STATUS_DEADLINE_EXCEEDED) break;
    }
    upstream_free(u);
}

/* What our own clients get of it: the gateway between them and the bytes. */
static void pass_on(void *arg, const struct http_req *req, struct http_resp *resp)
{
    struct upstream *u = NULL;
    struct error err = {0};
    int status = 0;
    const struct forward_spec spec = {.method = SV("GET"),
                                      .target = SV("/"),
                                      .authority = SV("h"),
                                      .deadline_ns = clock_monotonic_ns() + CALL_NS};
    (void)arg;
    enum status s = upstream_new(the_loop(), path, NULL, 0, 0, &u, &err);
    assert(s == STATUS_OK);
    if (http_forward_stream(u, &spec, req, resp, &status, &err) != STATUS_OK)
        http_resp_error(resp, req->arena, &err);
    upstream_free(u);
}

static void stream(void)
{
    static struct server *front;
    static char front_path[FOLDER_PATH_MAX];
    char *answer = malloc(ANSWER_BYTES);
    size_t n = 0;
    if (front == NULL) {
        struct error err;
        (void)snprintf(front_path, sizeof(front_path), "%s", folder_path("front"));
        const struct server_cfg cfg = {
            .unix_path = front_path, .listen_fd = -1, .handler = pass_on, .name = "front"};
        enum status s = server_start(the_loop(), &cfg, &front, &err);
        assert(s == STATUS_OK);
    }
    int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_NS;
    int fd = wire_dial(front_path);
    wire_send(fd, SV("GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"), deadline_ns);
    bool is_whole = wire_read(fd, answer, ANSWER_BYTES, &n, deadline_ns);
    assert(is_whole && (n == 0 || sv_starts_with(sv_n(answer, n), SV("HTTP/1.1 "))));
    (void)close(fd);
    while (server_connections(front) > 0 || server_inflight(front) > 0)
        (void)!fiber_yield();
    free(answer);
}

static void curl(struct arena *a)
{
    struct http_reply reply;
    struct error err = {0};
    const struct http_call call = {.url = SV("http://h/api/v2/alerts"),
                                   .timeout_ns = CALL_NS,
                                   .max_body_bytes = BODY_MAX,
                                   .unix_path = path};
    enum status s = http_request(&call, a, &reply, &err);
    if (s == STATUS_OK) check_reply(&reply, 999);
    assert(s == STATUS_OK || err.message[0] != '\0');
}

static void play(void *arg)
{
    struct play *p = arg;
    struct arena arena = {0};
    struct error err;
    if (path[0] == '\0') (void)snprintf(path, sizeof(path), "%s", folder_path("peer"));
    p->listen_fd = wire_listen(path);
    fiber_scope_init(&p->scope);
    enum status s = fiber_scope_spawn(&p->scope, peer_fiber, p, &err);
    assert(s == STATUS_OK);
    if ((p->bits & 1) != 0)
        curl(&arena);
    else if ((p->bits & 2) != 0)
        stream();
    else
        forward(&arena);
    p->is_over = true;
    fiber_scope_cancel(&p->scope);
    fiber_scope_join(&p->scope);
    (void)close(p->listen_fd);
    (void)unlink(path);
    arena_release(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct play p = {.bits = n > 0 ? bytes[0] : 0};
    if (n == 0) return 0;
    p.bytes = sv_n((const char *)bytes + 1, n - 1);
    in_loop(play, &p);
    return 0;
}
