/* A whole gateway in one loop: front server -> http_forward_stream over a unix socket -> back server, asked
 * by a plain socket. */
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "base/clock.h"
#include "client/forward.h"

#define BIG_BYTES (20 * 1024 * 1024) /* more than the sockets between hold */

struct gateway {
    struct loop *loop;
    struct server *front, *back;
    struct upstream *upstream;
    char folder[64], path[96];
    struct fiber_event go_on, back_done;
    const char *request;
    size_t drained_first; /* bytes that the client takes before it waits or leaves */
    bool leaves;
    atomic_bool has_first; /* the client has read the first part */
    char *text;            /* all that the client read; owned */
    size_t text_bytes;
    size_t back_wrote;
    fiber_fn *beside; /* runs while the client does; NULL: nothing */
    enum status back_status, forward_status;
    int forward_http_status;
    struct error err;
    int64_t timeout_ns;
};

/* ---- the function ---- */

static void back_handler(void *arg, const struct http_req *req, struct http_resp *resp)
{
    struct gateway *g = arg;
    http_resp_header(resp, SV("x-from"), SV("back"));
    if (sv_eq(req->path, SV("/small"))) {
        http_resp_set(resp, 202, SV("text/plain"), req->body);
        return;
    }
    if (sv_eq(req->path, SV("/sleep"))) {
        (void)!sleep_ms(5000);
        return;
    }
    char piece[8192];
    memset(piece, 'z', sizeof(piece));
    (void)!http_resp_stream(resp);
    if (sv_eq(req->path, SV("/parts"))) {
        g->back_status = http_resp_write(resp, SV("first"));
        (void)!fiber_event_wait(&g->go_on, clock_monotonic_ns() + 10 * NS_PER_S);
        g->back_status = http_resp_write(resp, SV("second"));
    } else if (sv_eq(req->path, SV("/cut"))) {
        g->back_status = http_resp_write(resp, SV("first"));
        (void)!sleep_ms(50);
        http_resp_abort(resp);
    } else {
        while (g->back_wrote < BIG_BYTES && g->back_status == STATUS_OK) {
            g->back_status = http_resp_write(resp, sv_n(piece, sizeof(piece)));
            if (g->back_status == STATUS_OK) g->back_wrote += sizeof(piece);
        }
    }
    fiber_event_set(&g->back_done);
}

/* ---- the gateway ---- */

static void front_handler(void *arg, const struct http_req *req, struct http_resp *resp)
{
    struct gateway *g = arg;
    struct forward_spec spec = {.method = req->method,
                                .target = req->target,
                                .authority = req->authority,
                                .headers = req->headers,
                                .n_headers = req->n_headers,
                                .body = req->body,
                                .deadline_ns = clock_monotonic_ns() + g->timeout_ns};
    g->forward_status = http_forward_stream(g->upstream, &spec, req, resp, &g->forward_http_status, &g->err);
    if (g->forward_status != STATUS_OK) http_resp_error(resp, req->arena, &g->err);
}

/* ---- the client ---- */

static void client(void *arg)
{
    struct gateway *g = arg;
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_port = htons(server_port(g->front)),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {.tv_sec = 10};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0) return;
    (void)send(fd, g->request, strlen(g->request), MSG_NOSIGNAL);
    size_t capacity = BIG_BYTES + 8 * 1024 * 1024;
    g->text = malloc(capacity);
    ssize_t got = 1;
    while (got > 0 && g->text_bytes < capacity - 1) {
        if (g->drained_first > 0 && g->text_bytes >= g->drained_first) break;
        got = recv(fd, g->text + g->text_bytes, capacity - 1 - g->text_bytes, 0);
        if (got > 0) g->text_bytes += (size_t)got;
        g->text[g->text_bytes] = '\0';
        if (g->text_bytes < 4096 && strstr(g->text, "first") != NULL) atomic_store(&g->has_first, true);
    }
    (void)close(fd);
}

/* ---- */

static void steps(void *arg)
{
    struct gateway *g = arg;
    const struct server_cfg front = {
        .host = "127.0.0.1", .handler = front_handler, .arg = g, .name = "front"};
    const struct server_cfg back = {.unix_path = g->path, .handler = back_handler, .arg = g, .name = "back"};
    if (server_start(g->loop, &back, &g->back, &g->err) != STATUS_OK) return;
    if (server_start(g->loop, &front, &g->front, &g->err) != STATUS_OK) return;
    if (upstream_new(g->loop, g->path, NULL, 0, 0, &g->upstream, &g->err) != STATUS_OK) return;
    struct fiber_scope scope;
    fiber_scope_init(&scope);
    if (g->beside != NULL) (void)!fiber_scope_spawn(&scope, g->beside, g, NULL);
    work_run(client, g);
    fiber_scope_join(&scope);
    if (g->leaves) (void)!fiber_event_wait(&g->back_done, clock_monotonic_ns() + 10 * NS_PER_S);
    for (int i = 0; i < 1000 && upstream_inflight(g->upstream) > 0; i++)
        (void)!sleep_ms(5);
    server_free(g->front);
    upstream_free(g->upstream);
    server_free(g->back);
}

static void run(struct gateway *g)
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(g->folder, sizeof(g->folder), "%.40s/forwardXXXXXX", tmp != NULL ? tmp : "/tmp");
    cr_assert_not_null(mkdtemp(g->folder));
    (void)snprintf(g->path, sizeof(g->path), "%s/s", g->folder);
    if (g->timeout_ns == 0) g->timeout_ns = 20 * NS_PER_S;
    fiber_event_init(&g->go_on);
    fiber_event_init(&g->back_done);
    cr_assert_eq(loop_new(&g->loop, &g->err), STATUS_OK);
    cr_assert_eq(loop_run_fiber(g->loop, steps, g, &g->err), STATUS_OK);
    loop_free(g->loop);
    (void)unlink(g->path);
    (void)rmdir(g->folder);
}

#define ASK(method, path, rest) method " " path " HTTP/1.1\r\nhost: h\r\nconnection: close\r\n" rest

Test(forward_stream, small_answer_goes_on_in_one_piece)
{
    struct gateway g = {.request = ASK("POST", "/small", "content-length: 3\r\n\r\nabc")};
    run(&g);
    cr_assert_eq(g.forward_status, STATUS_OK);
    cr_assert_eq(g.forward_http_status, 202);
    cr_assert_not_null(strstr(g.text, "HTTP/1.1 202 Accepted\r\n"));
    cr_assert_not_null(strcasestr(g.text, "\r\ncontent-length: 3\r\n"));
    cr_assert_not_null(strcasestr(g.text, "\r\nx-from: back\r\n"));
    cr_assert_str_eq(g.text + g.text_bytes - 7, "\r\n\r\nabc");
    free(g.text);
}

/* Lets the function go on only once the client has seen its first part. */
static void release_second_part(void *arg)
{
    struct gateway *g = arg;
    for (int i = 0; i < 2000 && !atomic_load(&g->has_first); i++)
        (void)!sleep_ms(5);
    fiber_event_set(&g->go_on);
}

Test(forward_stream, each_part_is_flushed)
{
    struct gateway g = {.request = ASK("GET", "/parts", "\r\n"), .beside = release_second_part};
    int64_t before_ns = clock_monotonic_ns();
    run(&g);
    cr_assert_lt(clock_monotonic_ns() - before_ns, 5 * NS_PER_S, "the first part came only with the second");
    const char *first = strstr(g.text, "5\r\nfirst\r\n"),
               *second = strstr(g.text, "6\r\nsecond\r\n0\r\n\r\n");
    cr_assert(first != NULL && second != NULL && first < second, "%s", g.text);
    free(g.text);
}

Test(forward_stream, large_answer_passes_through)
{
    struct gateway g = {.request = ASK("GET", "/big", "\r\n")};
    run(&g);
    cr_assert_eq(g.back_wrote, BIG_BYTES);
    size_t z = 0;
    for (size_t i = 0; i < g.text_bytes; i++)
        z += g.text[i] == 'z';
    cr_assert_eq(z, BIG_BYTES);
    cr_assert_str_eq(g.text + g.text_bytes - 5, "0\r\n\r\n");
    free(g.text);
}

Test(forward_stream, client_that_leaves_ends_the_function_s_answer)
{
    struct gateway g = {.request = ASK("GET", "/big", "\r\n"), .drained_first = 100000, .leaves = true};
    run(&g);
    cr_assert_lt(g.back_wrote, BIG_BYTES);
    cr_assert_eq(g.back_status, STATUS_CANCELLED);
    cr_assert_eq(g.forward_status, STATUS_OK);
    free(g.text);
}

Test(forward_stream, upstream_cut_within_the_body_is_visible_to_the_client)
{
    struct gateway g = {.request = ASK("GET", "/cut", "\r\n")};
    run(&g);
    cr_assert_not_null(strstr(g.text, "first"));
    cr_assert_null(strstr(g.text, "\r\n0\r\n"));
    free(g.text);
}

Test(forward_stream, deadline_before_the_head_is_an_error_of_ours)
{
    struct gateway g = {.request = ASK("GET", "/sleep", "\r\n"), .timeout_ns = 100 * NS_PER_MS};
    run(&g);
    cr_assert_eq(g.forward_status, STATUS_DEADLINE_EXCEEDED);
    cr_assert_not_null(strstr(g.text, "HTTP/1.1 504 "));
    free(g.text);
}
