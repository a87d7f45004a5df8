/* Raw bytes at a real server, HTTP/1 and HTTP/2 by prior knowledge: whatever reaches the handler is a request
 * that no other parser could read differently, whatever comes back begins as an answer, and afterwards the
 * server has neither connection nor handler left.
 *
 * Input: one byte, its bits: 1 HTTP/2 is on; 2 sent in two halves; 4 the answer is a stream. Then the bytes.
 *
 * Reads: server/server_check.c server/server_exchange.c server/server_listen.c server/server_stream.c
 * server/http.c */
#include "server/server.h"

#include <stdlib.h>

#include "folder.h"
#include "in_loop.h"
#include "replay.h"
#include "wire.h"

#define ANSWER_BYTES (64 * 1024)
#define BODY_MAX     4096
#define PATIENCE_NS  (10 * NS_PER_S)

struct scene {
    struct server *plain, *with_http2;
    char plain_path[FOLDER_PATH_MAX], http2_path[FOLDER_PATH_MAX];
    bool is_streaming;
};

struct
try {
    struct scene *scene;
    struct strview bytes;
    unsigned bits;
};

static bool is_header_value(struct strview s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] < ' ' && s.ptr[i] != '\t') return false;
    return true;
}

static bool is_name(struct strview s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] <= ' ' || s.ptr[i] == ':' || (s.ptr[i] >= 'A' && s.ptr[i] <= 'Z'))
            return false;
    return s.len > 0;
}

static void check_request(const struct http_req *req)
{
    assert(req->method.len > 0 && req->method.len <= 32 && req->target.len > 0);
    for (size_t i = 0; i < req->target.len; i++)
        assert((unsigned char)req->target.ptr[i] > ' ' && req->target.ptr[i] != 0x7F);
    assert(req->path.len <= req->target.len && req->n_headers <= HTTP_HEADERS_MAX);
    assert(req->body.len <= BODY_MAX && sv_find(req->path, '?') == req->path.len);
    for (size_t i = 0; i < req->n_headers; i++)
        assert(is_name(req->headers[i].name) && is_header_value(req->headers[i].value));
}

static void serve(void *arg, const struct http_req *req, struct http_resp *resp)
{
    const struct scene *scene = arg;
    struct strview value;
    check_request(req);
    (void)http_query_get(req, SV("a"), &value);
    http_resp_header(resp, SV("x-agent"), http_req_header(req, SV("user-agent")));
    if (!scene->is_streaming) {
        http_resp_set(resp, 200, SV("text/plain"), req->body);
        return;
    }
    if (http_resp_stream(resp) != STATUS_OK) return;
    if (http_resp_write(resp, req->body) == STATUS_OK) (void)!http_resp_write(resp, req->target);
}

/* On the first input, within its fiber. */
static struct scene *scene_get(void)
{
    static struct scene scene;
    struct error err;
    if (scene.plain != NULL) return &scene;
    (void)snprintf(scene.plain_path, sizeof(scene.plain_path), "%s", folder_path("plain"));
    (void)snprintf(scene.http2_path, sizeof(scene.http2_path), "%s", folder_path("http2"));
    struct server_cfg cfg = {.unix_path = scene.plain_path,
                             .listen_fd = -1,
                             .max_body_bytes = BODY_MAX,
                             .request_timeout_ns = PATIENCE_NS,
                             .handler = serve,
                             .arg = &scene,
                             .name = "fuzz"};
    enum status s = server_start(the_loop(), &cfg, &scene.plain, &err);
    assert(s == STATUS_OK);
    cfg.unix_path = scene.http2_path;
    cfg.http2 = true;
    s = server_start(the_loop(), &cfg, &scene.with_http2, &err);
    assert(s == STATUS_OK);
    return &scene;
}

static void check_answer(struct strview answer, bool has_http2)
{
    if (answer.len < 9) return;
    /* HTTP/2 begins with a SETTINGS frame. */
    bool is_frame = has_http2 && answer.ptr[3] == 0x04;
    assert(is_frame || sv_starts_with(answer, SV("HTTP/1.1 ")) || sv_starts_with(answer, SV("HTTP/1.0 ")));
}

static void await_quiet(const struct server *s)
{
    int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_NS;
    while (server_connections(s) > 0 || server_inflight(s) > 0) {
        assert(clock_monotonic_ns() < deadline_ns);
        (void)!fiber_yield();
    }
}

static void play(void *arg)
{
    struct try *t = arg;
    struct scene *scene = t->scene = scene_get();
    bool has_http2 = (t->bits & 1) != 0;
    char *answer = malloc(ANSWER_BYTES);
    size_t n = 0, half = (t->bits & 2) != 0 ? t->bytes.len / 2 : t->bytes.len;
    int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_NS;
    scene->is_streaming = (t->bits & 4) != 0;
    int fd = wire_dial(has_http2 ? scene->http2_path : scene->plain_path);
    wire_send(fd, sv_sub(t->bytes, 0, half), deadline_ns);
    if (half < t->bytes.len) (void)!fiber_yield();
    wire_send(fd, sv_sub(t->bytes, half, t->bytes.len), deadline_ns);
    (void)shutdown(fd, SHUT_WR);
    (void)wire_read(fd, answer, ANSWER_BYTES, &n, deadline_ns);
    check_answer(sv_n(answer, n), has_http2);
    (void)close(fd);
    await_quiet(scene->plain);
    await_quiet(scene->with_http2);
    free(answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct try t = {.bits = n > 0 ? bytes[0] : 0};
    if (n == 0) return 0;
    t.bytes = sv_n((const char *)bytes + 1, n - 1);
    in_loop(play, &t);
    return 0;
}
