/* Requests over real sockets: what reaches the handler, what the client reads, what is refused. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "harness.h"

static atomic_uint handled;

static void echo(void *arg, const struct http_req *req, struct http_resp *resp)
{
    (void)arg;
    atomic_fetch_add(&handled, 1);
    http_resp_set(resp, 200, SV("text/plain"), req->body);
}

/* All that the handler was given, one line each. */
static void describe(void *arg, const struct http_req *req, struct http_resp *resp)
{
    (void)arg;
    struct strview text = arena_printf(
        req->arena, "%.*s|%.*s|%.*s|%.*s|%.*s|%zu|%.*s|%d|%d", SV_ARG(req->method), SV_ARG(req->target),
        SV_ARG(req->path), SV_ARG(req->query), SV_ARG(req->authority), req->n_headers,
        SV_ARG(http_req_header(req, SV("x-tag"))), req->is_http2,
        sv_starts_with(req->peer, SV("127.0.0.1:")) && req->received_unix_ns > 0 && req->received_ns > 0);
    http_resp_set(resp, 200, SV("text/plain"), text);
}

static void empty(void *arg, const struct http_req *req, struct http_resp *resp)
{
    (void)arg;
    if (sv_eq(req->path, SV("/204"))) resp->status = 204;
    if (sv_eq(req->path, SV("/bad-status"))) resp->status = 42;
    if (sv_eq(req->path, SV("/error"))) {
        struct error err;
        (void)error_set(&err, STATUS_UNAVAILABLE, "store \"x\" is full");
        http_resp_error(resp, req->arena, &err);
    }
    if (sv_eq(req->path, SV("/headers"))) {
        http_resp_header(resp, SV("x-one"), SV("1"));
        http_resp_header(resp, SV("content-length"), SV("99"));
        http_resp_header(resp, SV("transfer-encoding"), SV("chunked"));
        http_resp_header(resp, SV("x-split"), SV("a\r\nx-evil: 1"));
        http_resp_header(resp, SV("connection"), SV("close"));
        resp->body = SV("four");
    }
    if (sv_eq(req->path, SV("/many")))
        for (int i = 0; i < HTTP_RESP_HEADERS_MAX + 5; i++)
            http_resp_header(resp, SV("x-many"), SV("v"));
}

#define GET(path) "GET " path " HTTP/1.1\r\nhost: h\r\n\r\n"

struct job {
    void (*fn)(uint16_t port, void *arg);
    uint16_t port;
    void *arg;
};

static void run_job(void *arg)
{
    struct job *j = arg;
    j->fn(j->port, j->arg);
}

static void script(struct harness *h)
{
    struct job *j = h->arg;
    j->port = h->port;
    work_run(run_job, j);
}

static void with_server(struct server_cfg cfg, void (*client)(uint16_t port, void *arg), void *arg)
{
    struct job j = {.fn = client, .arg = arg};
    cfg.host = "127.0.0.1";
    cfg.listen_fd = -1;
    atomic_store(&handled, 0);
    run_with_server(&cfg, script, &j);
}

/* ---- what arrives ---- */

static void ask_text(uint16_t port, void *arg)
{
    struct {
        const char *request;
        struct answer answer;
    } *a = arg;
    ask(port, a->request, &a->answer);
}

struct asked {
    const char *request;
    struct answer answer;
};

static struct asked asked_of(http_handler_fn *handler, const char *request)
{
    struct asked a = {.request = request};
    with_server((struct server_cfg){.handler = handler}, ask_text, &a);
    return a;
}

Test(requests, handler_sees_every_part_of_the_request)
{
    struct asked a =
        asked_of(describe, "PUT /a/b?x=1&y=%20 HTTP/1.1\r\nHost: example:80\r\nX-Tag: v 1\r\nAccept: */*\r\n"
                           "content-length: 2\r\n\r\nhi");
    cr_assert_str_eq(a.answer.body, "PUT|/a/b?x=1&y=%20|/a/b|x=1&y=%20|example:80|2|v 1|0|1");
    answer_release(&a.answer);
}

Test(requests, http_1_0_without_host_is_served_and_closed)
{
    struct asked a = asked_of(describe, "GET / HTTP/1.0\r\n\r\n");
    cr_assert_str_eq(a.answer.body, "GET|/|/|||0||0|1");
    cr_assert(answer_has_header(&a.answer, "connection: close"));
    answer_release(&a.answer);
}

Test(requests, chunked_body_arrives_whole)
{
    struct asked a = asked_of(echo, "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
                                    "5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\ntrailer: 1\r\n\r\n");
    cr_assert_eq(a.answer.status, 200);
    cr_assert_str_eq(a.answer.body, "hello, world");
    answer_release(&a.answer);
}

Test(requests, error_becomes_status_sentence_and_retry_after)
{
    struct asked a = asked_of(empty, GET("/error"));
    cr_assert_eq(a.answer.status, 503);
    cr_assert_str_eq(a.answer.body, "{\"error\":\"store \\\"x\\\" is full\"}\n");
    cr_assert(answer_has_header(&a.answer, "\r\nretry-after: 1\r\n"));
    answer_release(&a.answer);
}

Test(requests, handler_cannot_break_the_framing)
{
    struct asked a = asked_of(empty, GET("/headers"));
    cr_assert(a.answer.is_complete);
    cr_assert_str_eq(a.answer.body, "four");
    cr_assert(answer_has_header(&a.answer, "\r\nx-one: 1\r\n"));
    cr_assert(answer_has_header(&a.answer, "\r\nconnection: close\r\n"));
    cr_assert_not(answer_has_header(&a.answer, "99"));
    cr_assert_not(answer_has_header(&a.answer, "x-evil"));
    cr_assert_not(answer_has_header(&a.answer, "transfer-encoding"));
    answer_release(&a.answer);
}

Test(requests, too_many_response_headers_are_dropped)
{
    struct asked a = asked_of(empty, GET("/many"));
    unsigned n = 0;
    for (const char *at = a.answer.head; (at = strstr(at, "x-many")) != NULL; at++)
        n++;
    cr_assert_eq(n, HTTP_RESP_HEADERS_MAX);
    answer_release(&a.answer);
}

Test(requests, impossible_status_becomes_500)
{
    struct asked a = asked_of(empty, GET("/bad-status"));
    cr_assert_eq(a.answer.status, 500);
    answer_release(&a.answer);
}

Test(requests, no_content_has_no_length)
{
    struct asked a = asked_of(empty, GET("/204"));
    cr_assert_eq(a.answer.status, 204);
    cr_assert_not(answer_has_header(&a.answer, "content-length"));
    answer_release(&a.answer);
}

/* ---- connections ---- */

static void keep_alive_client(uint16_t port, void *arg)
{
    unsigned *good = arg;
    int fd = dial(port);
    for (int i = 0; i < 50; i++) {
        char request[128];
        struct answer a;
        (void)snprintf(request, sizeof(request),
                       "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\n%04d", i);
        send_text(fd, request);
        read_answer(fd, &a);
        *good += a.status == 200 && a.body_bytes == 4 && strtol(a.body, NULL, 10) == i;
        answer_release(&a);
    }
    /* HEAD leaves no body behind that the next answer could be confused with */
    struct answer head, next;
    char line[512];
    ssize_t n;
    send_text(fd, "HEAD / HTTP/1.1\r\nhost: h\r\n\r\n");
    n = recv(fd, line, sizeof(line), 0);
    *good += n > 4 && memcmp(line + n - 4, "\r\n\r\n", 4) == 0;
    send_text(fd, GET("/"));
    read_answer(fd, &next);
    *good += next.status == 200;
    answer_release(&next);
    (void)head;
    (void)close(fd);
}

Test(requests, connection_is_kept_for_the_next_request)
{
    unsigned good = 0;
    with_server((struct server_cfg){.handler = echo}, keep_alive_client, &good);
    cr_assert_eq(good, 52);
}

static void slow_then_fast(void *arg, const struct http_req *req, struct http_resp *resp)
{
    (void)arg;
    if (sv_eq(req->path, SV("/0"))) (void)!sleep_ms(30);
    http_resp_set(resp, 200, SV("text/plain"), req->path);
}

static void pipelining_client(uint16_t port, void *arg)
{
    unsigned *good = arg;
    int fd = dial(port);
    send_text(fd,
              GET("/0") GET("/1") "POST /2 HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc" GET("/3"));
    for (int i = 0; i < 4; i++) {
        struct answer a;
        read_answer(fd, &a);
        *good += a.body_bytes == 2 && a.body[1] == '0' + i;
        answer_release(&a);
    }
    (void)close(fd);
}

Test(requests, pipelined_requests_are_answered_in_order)
{
    unsigned good = 0;
    with_server((struct server_cfg){.handler = slow_then_fast}, pipelining_client, &good);
    cr_assert_eq(good, 4);
}

static void slow_echo(void *arg, const struct http_req *req, struct http_resp *resp)
{
    (void)arg;
    if (sv_eq(req->path, SV("/wait"))) (void)!sleep_ms(60);
    http_resp_set(resp, 200, SV("text/plain"), req->body.len > 0 ? req->body : req->path);
}

static bool has_body(int fd, const char *body)
{
    struct answer a;
    read_answer(fd, &a);
    bool is_it = a.status == 200 && a.body_bytes == strlen(body) && memcmp(a.body, body, a.body_bytes) == 0;
    answer_release(&a);
    return is_it;
}

/* Twice on one connection: a part of the next request comes while a handler waits, the rest after its answer;
 * then the end of the client's side does. */
static void early_client(uint16_t port, void *arg)
{
    unsigned *good = arg;
    int fd = dial(port);
    for (int i = 0; i < 2; i++) {
        send_text(fd, GET("/wait"));
        (void)usleep(20000);
        send_text(fd, "POST /next HTTP/1.1\r\nhost: h\r\ncontent-length: 6\r\n\r\nabc");
        *good += has_body(fd, "/wait");
        send_text(fd, "def");
        *good += has_body(fd, "abcdef");
    }
    send_text(fd, GET("/wait"));
    (void)usleep(20000);
    (void)shutdown(fd, SHUT_WR);
    *good += has_body(fd, "/wait");
    *good += is_closed(fd);
    (void)close(fd);
}

Test(requests, what_comes_while_a_handler_waits_is_served_after_it)
{
    unsigned good = 0;
    with_server((struct server_cfg){.handler = slow_echo}, early_client, &good);
    cr_assert_eq(good, 6);
}

#define FLOOD_N 20000

struct flood {
    uint16_t port;
    unsigned answered;
    int64_t other_ns;
};

/* As many requests as the kernel takes in one go, and meanwhile somebody else. */
static void flooding_client(uint16_t port, void *arg)
{
    struct flood *f = arg;
    struct answer a;
    const struct strview get = SV(GET("/"));
    char *text = malloc(FLOOD_N * get.len);
    for (size_t i = 0; i < FLOOD_N; i++)
        memcpy(text + i * get.len, get.ptr, get.len);
    int fd = dial(port), other = dial(port);
    ask(port, GET("/"), &a); /* warm */
    answer_release(&a);
    send_bytes(fd, text, FLOOD_N * get.len);
    int64_t before_ns = clock_monotonic_ns();
    send_text(other, GET("/"));
    read_answer(other, &a);
    f->other_ns = clock_monotonic_ns() - before_ns;
    answer_release(&a);
    for (bool is_good = true; is_good && f->answered < FLOOD_N; f->answered += is_good) {
        read_answer(fd, &a);
        is_good = a.status == 200;
        answer_release(&a);
    }
    (void)close(fd);
    (void)close(other);
    free(text);
}

Test(requests, thousands_in_one_write_are_answered_and_others_meanwhile)
{
    struct flood f = {0};
    int64_t before_ns = clock_monotonic_ns();
    with_server((struct server_cfg){.handler = echo}, flooding_client, &f);
    int64_t all_ns = clock_monotonic_ns() - before_ns;
    cr_assert_eq(f.answered, FLOOD_N);
    cr_assert_lt(f.other_ns, all_ns / 4, "%lld of %lld us", (long long)f.other_ns / 1000,
                 (long long)all_ns / 1000);
}

#define CROWD_N    64
#define CROWD_EACH 64

static void toil(void *arg, const struct http_req *req, struct http_resp *resp)
{
    int64_t until_ns = clock_monotonic_ns() + NS_PER_MS / 5;
    (void)arg;
    while (clock_monotonic_ns() < until_ns) {
    }
    atomic_fetch_add(&handled, 1);
    http_resp_set(resp, 200, SV("text/plain"), req->path);
}

/* Many connections with many requests each, every one of which costs something; then somebody new. */
static void crowd_client(uint16_t port, void *arg)
{
    unsigned *served_before_it = arg;
    char text[CROWD_EACH * sizeof(GET("/"))] = "";
    int fds[CROWD_N];
    struct answer a;
    for (unsigned i = 0; i < CROWD_EACH; i++)
        memcpy(text + strlen(text), GET("/"), sizeof(GET("/")));
    for (unsigned i = 0; i < CROWD_N; i++)
        fds[i] = dial(port);
    ask(port, GET("/"), &a); /* all are accepted */
    answer_release(&a);
    for (unsigned i = 0; i < CROWD_N; i++)
        send_text(fds[i], text);
    unsigned before = atomic_load(&handled);
    ask(port, GET("/"), &a);
    *served_before_it = a.status == 200 ? atomic_load(&handled) - before : UINT32_MAX;
    answer_release(&a);
    for (unsigned i = 0; i < CROWD_N; i++)
        (void)close(fds[i]);
}

Test(requests, a_crowd_with_queues_of_their_own_waits_its_turn)
{
    unsigned served_before_it = 0;
    with_server((struct server_cfg){.handler = toil}, crowd_client, &served_before_it);
    cr_assert_lt(served_before_it, CROWD_N * CROWD_EACH / 4, "%u of theirs came first", served_before_it);
}

static void expecting_client(uint16_t port, void *arg)
{
    struct answer *answers = arg;
    int fd = dial(port);
    send_text(fd, "POST / HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n");
    read_answer(fd, &answers[0]);
    send_text(fd, "ok");
    read_answer(fd, &answers[1]);
    (void)close(fd);
}

Test(requests, body_is_asked_for_when_the_client_expects_it)
{
    struct answer answers[2];
    with_server((struct server_cfg){.handler = echo}, expecting_client, answers);
    cr_assert_eq(answers[0].status, 100);
    cr_assert_eq(answers[1].status, 200);
    cr_assert_str_eq(answers[1].body, "ok");
    answer_release(&answers[0]);
    answer_release(&answers[1]);
}

/* ---- sizes ---- */

struct big {
    size_t body_bytes;
    bool is_chunked;
    struct answer answer;
    bool is_same, is_closed;
};

static void big_client(uint16_t port, void *arg)
{
    struct big *b = arg;
    char head[128];
    char *body = malloc(b->body_bytes + 1);
    for (size_t i = 0; i < b->body_bytes; i++)
        body[i] = (char)(i * 31 + (i >> 12));
    int fd = dial(port);
    if (b->is_chunked)
        (void)snprintf(head, sizeof(head),
                       "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n%zx\r\n",
                       b->body_bytes);
    else
        (void)snprintf(head, sizeof(head), "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: %zu\r\n\r\n",
                       b->body_bytes);
    send_text(fd, head);
    send_bytes(fd, body, b->body_bytes);
    if (b->is_chunked) send_text(fd, "\r\n0\r\n\r\n");
    read_answer(fd, &b->answer);
    b->is_same = b->answer.body_bytes == b->body_bytes && memcmp(b->answer.body, body, b->body_bytes) == 0;
    b->is_closed = b->answer.status == 413 && is_closed(fd);
    (void)close(fd);
    free(body);
}

static void check_big(size_t bytes, bool is_chunked, size_t limit, int status)
{
    struct big b = {.body_bytes = bytes, .is_chunked = is_chunked};
    with_server((struct server_cfg){.handler = echo, .max_body_bytes = limit}, big_client, &b);
    cr_assert_eq(b.answer.status, status, "%d", b.answer.status);
    if (status == 200) cr_assert(b.is_same && b.answer.is_complete);
    if (status == 413) {
        char sentence[128];
        size_t shown = limit == 0 ? 8 * 1024 * 1024 : limit;
        (void)snprintf(sentence, sizeof(sentence),
                       "{\"error\":\"the request body is larger than the limit of %zu bytes\"}\n", shown);
        cr_assert_str_eq(b.answer.body, sentence);
        cr_assert(b.is_closed);
    }
    answer_release(&b.answer);
}

Test(requests, eight_mebibytes_go_there_and_back)
{
    check_big(8 * 1024 * 1024, false, 0, 200);
}

Test(requests, eight_mebibytes_in_one_chunk_go_there_and_back)
{
    check_big(8 * 1024 * 1024 - 1, true, 0, 200);
}

Test(requests, body_over_the_limit_is_413_with_the_limit_even_while_it_is_still_being_sent)
{
    check_big(16 * 1024 * 1024, false, 0, 413);
}

Test(requests, chunked_body_over_the_limit_is_413)
{
    check_big(1024 * 1024, true, 1000, 413);
}

Test(requests, body_at_the_limit_passes_and_one_byte_more_does_not)
{
    check_big(1000, false, 1000, 200);
    check_big(1001, false, 1000, 413);
}

static void with_headers(unsigned n, size_t value_bytes, struct asked *a)
{
    char *request = malloc(n * (value_bytes + 16) + 128), *at = request;
    at += snprintf(at, 64, "GET / HTTP/1.1\r\nhost: h\r\n");
    for (unsigned i = 1; i < n; i++) {
        at += snprintf(at, 16, "x-%u: ", i);
        memset(at, 'v', value_bytes);
        at += value_bytes;
        *at++ = '\r', *at++ = '\n';
    }
    *at++ = '\r', *at++ = '\n', *at = '\0';
    *a = asked_of(echo, request);
    free(request);
}

Test(requests, hundred_headers_pass_and_one_more_does_not)
{
    struct asked a;
    with_headers(100, 10, &a);
    cr_assert_eq(a.answer.status, 200);
    answer_release(&a.answer);
    with_headers(101, 10, &a);
    cr_assert_eq(a.answer.status, 400);
    answer_release(&a.answer);
    cr_assert_eq(atomic_load(&handled), 0);
}

Test(requests, huge_header_line_is_refused)
{
    struct asked a;
    with_headers(2, 100 * 1024, &a);
    cr_assert_eq(a.answer.status, 431);
    answer_release(&a.answer);
    with_headers(2, 1024 * 1024, &a); /* beyond what h2o itself reads */
    cr_assert(a.answer.status == 400 || a.answer.status == 0, "%d", a.answer.status);
    answer_release(&a.answer);
    cr_assert_eq(atomic_load(&handled), 0);
}

/* ---- time ---- */

static void slow_header_client(uint16_t port, void *arg)
{
    bool *is_cut = arg;
    int fd = dial(port);
    send_text(fd, "GET / HT");
    is_cut[0] = is_closed(fd);
    (void)close(fd);
    fd = dial(port);
    send_text(fd, "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nhalf");
    is_cut[1] = is_closed(fd);
    (void)close(fd);
    fd = dial(port);
    is_cut[2] = is_closed(fd); /* says nothing at all */
    (void)close(fd);
}

Test(requests, slow_headers_slow_bodies_and_idle_connections_end_at_the_timeout)
{
    bool is_cut[3] = {false};
    with_server((struct server_cfg){.handler = echo, .request_timeout_ns = 150 * NS_PER_MS},
                slow_header_client, is_cut);
    cr_assert(is_cut[0] && is_cut[1] && is_cut[2]);
    cr_assert_eq(atomic_load(&handled), 0);
}

/* ---- smuggling ---- */

struct refusals {
    unsigned asked, refused, closed;
};

static void smuggling_client(uint16_t port, void *arg)
{
    static const char *const requests[] = {
        "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: identity\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: gzip\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhelloXX\r\n",
        "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n0x0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n0\n\r\n",
        "GET / HTTP/1.1\r\nhost: h\nx: y\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5, 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: +5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nhost: h\r\ncontent-length : 5\r\n\r\nhello",
        "GET / HTTP/1.1\r\nhost: h\r\nx: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: h\r\nx: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: h\r\nhost: g\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET http://h/ HTTP/1.1\r\nhost: h\r\n\r\n",
        "CONNECT h:80 HTTP/1.1\r\nhost: h\r\n\r\n",
        "G(T / HTTP/1.1\r\nhost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
        "GET / HTTP/2.0\r\nhost: h\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    };
    static const char nul[] = "GET / HTTP/1.1\r\nhost: h\r\nx: a\0b\r\n\r\n";
    struct refusals *r = arg;
    for (size_t i = 0; i <= sizeof(requests) / sizeof(requests[0]); i++) {
        bool is_last = i == sizeof(requests) / sizeof(requests[0]);
        struct answer a;
        int fd = dial(port);
        r->asked++;
        send_bytes(fd, is_last ? nul : requests[i], is_last ? sizeof(nul) - 1 : strlen(requests[i]));
        read_answer(fd, &a);
        bool is_refused = a.status == 400 || a.status == 431;
        if (!is_refused) (void)fprintf(stderr, "request %zu was answered with %d\n", i, a.status);
        r->refused += is_refused;
        r->closed += is_closed(fd);
        answer_release(&a);
        (void)close(fd);
    }
}

Test(requests, smuggling_shapes_are_refused_and_the_connection_closed)
{
    struct refusals r = {0};
    with_server((struct server_cfg){.handler = echo}, smuggling_client, &r);
    cr_assert_eq(r.refused, r.asked);
    cr_assert_eq(r.closed, r.asked);
    cr_assert_eq(atomic_load(&handled), 0);
}
