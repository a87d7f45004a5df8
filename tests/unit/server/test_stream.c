/* Answers in parts: framing on each protocol, back pressure, clients that leave or do not read. */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "harness.h"

extern char **environ;

#define GET(path, version) "GET " path " HTTP/" version "\r\nhost: h\r\n\r\n"
#define BIG_BYTES          (20 * 1024 * 1024) /* more than both ends' socket buffers hold */

struct seen { /* by the handler */
    enum status stream, write, after;
    size_t written_bytes;
    bool is_gone, is_done;
    struct fiber_event go_on, done;
};

static char pattern_at(size_t i)
{
    return (char)('a' + (i + (i >> 10)) % 26);
}

static void write_big(struct seen *seen, struct http_resp *resp, size_t bytes)
{
    char piece[10000]; /* reused at once: what was handed over must have been copied or sent */
    while (seen->written_bytes < bytes && seen->write == STATUS_OK) {
        size_t n = bytes - seen->written_bytes < sizeof(piece) ? bytes - seen->written_bytes : sizeof(piece);
        for (size_t i = 0; i < n; i++)
            piece[i] = pattern_at(seen->written_bytes + i);
        seen->write = http_resp_write(resp, sv_n(piece, n));
        memset(piece, '!', sizeof(piece));
        if (seen->write == STATUS_OK) seen->written_bytes += n;
    }
}

static void streamer(void *arg, const struct http_req *req, struct http_resp *resp)
{
    struct seen *seen = arg;
    if (sv_eq(req->path, SV("/length")) || sv_eq(req->path, SV("/short")) || sv_eq(req->path, SV("/long")))
        http_resp_header(resp, SV("content-length"), SV("12"));
    if (sv_eq(req->path, SV("/404"))) resp->status = 404;
    http_resp_header(resp, SV("content-type"), SV("text/plain"));
    seen->stream = http_resp_stream(resp);
    if (sv_eq(req->path, SV("/wait"))) seen->write = fiber_event_wait(&seen->go_on, 0);
    if (sv_eq(req->path, SV("/big"))) {
        write_big(seen, resp, BIG_BYTES);
    } else if (sv_eq(req->path, SV("/endless"))) {
        write_big(seen, resp, SIZE_MAX);
    } else if (!sv_eq(req->path, SV("/empty"))) {
        seen->write = http_resp_write(resp, SV("hello, "));
        if (sv_eq(req->path, SV("/abort")))
            http_resp_abort(resp);
        else if (!sv_eq(req->path, SV("/short")))
            seen->after = http_resp_write(resp, SV("world"));
        if (sv_eq(req->path, SV("/long"))) seen->after = http_resp_write(resp, SV("more"));
    }
    seen->is_gone = http_resp_is_gone(resp);
    seen->is_done = true;
    fiber_event_set(&seen->done);
}

struct test {
    struct seen seen;
    void (*client)(struct test *t);
    void (*after)(struct harness *h, struct test *t);
    uint16_t port;
    const char *request;
    struct answer answer, next;
    bool is_true;
};

static void run_client(void *arg)
{
    struct test *t = arg;
    t->client(t);
}

static void script(struct harness *h)
{
    struct test *t = h->arg;
    t->port = h->port;
    work_run(run_client, t);
    if (t->after != NULL) t->after(h, t);
}

static void run(struct test *t, int64_t write_timeout_ns)
{
    fiber_event_init(&t->seen.go_on);
    fiber_event_init(&t->seen.done);
    const struct server_cfg cfg = {.host = "127.0.0.1",
                                   .handler = streamer,
                                   .arg = &t->seen,
                                   .http2 = true,
                                   .write_timeout_ns = write_timeout_ns};
    run_with_server(&cfg, script, t);
}

/* One request, then a second on the same connection to see where the first ended. */
static void two_requests(struct test *t)
{
    int fd = dial(t->port);
    send_text(fd, t->request);
    read_answer(fd, &t->answer);
    send_text(fd, GET("/", "1.1"));
    read_answer(fd, &t->next);
    (void)close(fd);
}

static void run_two(struct test *t, const char *request)
{
    *t = (struct test){.client = two_requests, .request = request};
    run(t, 0);
}

static void release(struct test *t)
{
    answer_release(&t->answer);
    answer_release(&t->next);
}

Test(stream, parts_are_chunks_and_the_connection_is_kept)
{
    struct test t;
    run_two(&t, GET("/", "1.1"));
    cr_assert(t.answer.is_complete && answer_has_header(&t.answer, "transfer-encoding: chunked"));
    cr_assert_str_eq(t.answer.body, "hello, world");
    cr_assert_str_eq(t.next.body, "hello, world");
    release(&t);
}

Test(stream, other_statuses_are_chunked_and_kept_as_well)
{
    struct test t;
    run_two(&t, GET("/404", "1.1"));
    cr_assert_eq(t.answer.status, 404);
    cr_assert_str_eq(t.answer.body, "hello, world");
    cr_assert_eq(t.next.status, 200);
    release(&t);
}

Test(stream, empty_stream_is_complete)
{
    struct test t;
    run_two(&t, GET("/empty", "1.1"));
    cr_assert(t.answer.is_complete);
    cr_assert_eq(t.answer.body_bytes, 0);
    cr_assert_eq(t.next.status, 200);
    release(&t);
}

Test(stream, announced_length_is_kept_to)
{
    struct test t;
    run_two(&t, GET("/length", "1.1"));
    cr_assert(answer_has_header(&t.answer, "content-length: 12"));
    cr_assert_str_eq(t.answer.body, "hello, world");
    cr_assert_eq(t.next.status, 200);
    release(&t);
}

Test(stream, body_shorter_than_announced_ends_the_connection)
{
    struct test t;
    run_two(&t, GET("/short", "1.1"));
    cr_assert_not(t.answer.is_complete);
    cr_assert_eq(t.next.status, 0);
    release(&t);
}

Test(stream, bytes_beyond_the_announced_length_are_not_sent)
{
    struct test t;
    run_two(&t, GET("/long", "1.1"));
    cr_assert_str_eq(t.answer.body, "hello, world");
    cr_assert_eq(t.seen.after, STATUS_OUT_OF_RANGE);
    cr_assert_eq(t.next.status, 0, "the connection must not be used again");
    release(&t);
}

Test(stream, aborted_body_does_not_look_complete)
{
    struct test t;
    run_two(&t, GET("/abort", "1.1"));
    cr_assert_not(t.answer.is_complete);
    cr_assert_eq(t.next.status, 0);
    release(&t);
}

Test(stream, http_1_0_gets_the_plain_body_and_the_end)
{
    struct test t;
    run_two(&t, GET("/", "1.0"));
    cr_assert_str_eq(t.answer.body, "hello, world");
    cr_assert_not(answer_has_header(&t.answer, "chunked"));
    cr_assert(answer_has_header(&t.answer, "connection: close"));
    release(&t);
}

static void head_client(struct test *t)
{
    char text[512];
    int fd = dial(t->port);
    send_text(fd, "HEAD / HTTP/1.1\r\nhost: h\r\n\r\n");
    ssize_t n = recv(fd, text, sizeof(text), 0);
    t->is_true = n > 4 && memcmp(text + n - 4, "\r\n\r\n", 4) == 0;
    send_text(fd, GET("/", "1.1"));
    read_answer(fd, &t->next);
    (void)close(fd);
}

Test(stream, head_has_no_body)
{
    struct test t = {.client = head_client};
    run(&t, 0);
    cr_assert(t.is_true);
    cr_assert_eq(t.seen.write, STATUS_OK);
    cr_assert_str_eq(t.next.body, "hello, world");
    release(&t);
}

/* ---- time ---- */

static void first_part_client(struct test *t)
{
    char text[2048];
    size_t n = 0;
    int fd = dial(t->port);
    send_text(fd, GET("/wait", "1.1"));
    while (n + 1 < sizeof(text) && recv(fd, text + n, 1, 0) == 1) {
        n++;
        if (n >= 4 && memcmp(text + n - 4, "\r\n\r\n", 4) == 0) break;
    }
    t->is_true = n > 0 && !t->seen.is_done;
    (void)close(fd);
}

static void let_go(struct harness *h, struct test *t)
{
    (void)h;
    fiber_event_set(&t->seen.go_on);
    (void)!fiber_event_wait(&t->seen.done, clock_monotonic_ns() + 10 * NS_PER_S);
}

Test(stream, head_is_sent_before_the_first_part)
{
    struct test t = {.client = first_part_client, .after = let_go};
    run(&t, 0);
    cr_assert(t.is_true);
    cr_assert(t.seen.is_done);
}

static void slow_client(struct test *t)
{
    int fd = dial(t->port);
    size_t n = 0;
    bool is_same = true;
    send_text(fd, GET("/big", "1.0"));
    (void)usleep(200000);
    t->is_true = !t->seen.is_done; /* most of it has nowhere to go yet */
    char text[65536];
    ssize_t got;
    bool in_body = false;
    unsigned ends = 0;
    while ((got = recv(fd, text, sizeof(text), 0)) > 0) {
        for (ssize_t i = 0; i < got; i++) {
            if (in_body)
                is_same &= text[i] == pattern_at(n++);
            else
                ends = text[i] == '\n' ? ends + 1 : text[i] == '\r' ? ends : 0;
            if (ends == 2) in_body = true, ends = 0;
        }
    }
    t->is_true &= is_same && n == BIG_BYTES;
    (void)close(fd);
}

Test(stream, slow_reader_holds_the_writer_back_and_gets_everything)
{
    struct test t = {.client = slow_client};
    run(&t, 0);
    cr_assert(t.is_true);
    cr_assert_eq(t.seen.written_bytes, BIG_BYTES);
}

static void not_reading_client(struct test *t)
{
    int fd = dial(t->port);
    send_text(fd, t->request);
    for (int i = 0; i < 500 && !t->seen.is_done; i++)
        (void)usleep(10000);
    t->is_true = t->seen.is_done;
    (void)close(fd);
}

Test(stream, client_that_never_reads_is_cut_after_the_write_timeout)
{
    struct test t = {.client = not_reading_client, .request = GET("/endless", "1.1")};
    run(&t, 200 * NS_PER_MS);
    cr_assert(t.is_true);
    cr_assert_eq(t.seen.write, STATUS_CANCELLED);
    cr_assert_gt(t.seen.written_bytes, 0);
}

static void leaving_client(struct test *t)
{
    char text[4096];
    int fd = dial(t->port);
    send_text(fd, t->request);
    (void)recv(fd, text, sizeof(text), 0);
    (void)close(fd);
    for (int i = 0; i < 500 && !t->seen.is_done; i++)
        (void)usleep(10000);
}

Test(stream, writer_learns_that_the_client_has_left)
{
    struct test t = {.client = leaving_client, .request = GET("/endless", "1.1")};
    run(&t, 0);
    cr_assert(t.seen.is_done);
    cr_assert_eq(t.seen.write, STATUS_CANCELLED);
    cr_assert(t.seen.is_gone);
}

static void left_before_client(struct test *t)
{
    int fd = dial(t->port);
    struct linger at_once = {.l_onoff = 1};
    send_text(fd, GET("/wait", "1.1"));
    (void)usleep(50000);
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    (void)close(fd);
}

Test(stream, client_that_left_before_the_first_part_costs_nothing)
{
    struct test t = {.client = left_before_client, .after = let_go};
    run(&t, 0);
    cr_assert(t.seen.is_done);
}

/* ---- curl speaks HTTP/2 ---- */

static void curl_client(struct test *t)
{
    char url[64], sum[64] = "";
    int out[2];
    pid_t pid;
    posix_spawn_file_actions_t actions;
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u%s", t->port, t->request);
    char *const argv[] = {"curl", "-s", "-m", "10", "--http2-prior-knowledge", url, NULL};
    if (pipe(out) != 0) return;
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    (void)posix_spawn_file_actions_addclose(&actions, out[0]);
    int rc = posix_spawnp(&pid, "curl", &actions, NULL, argv, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)close(out[1]);
    size_t n = 0;
    bool is_same = rc == 0;
    char text[65536];
    ssize_t got;
    while (rc == 0 && (got = read(out[0], text, sizeof(text))) > 0) {
        for (ssize_t i = 0; i < got; i++, n++) {
            if (n < sizeof(sum) - 1) sum[n] = text[i];
            is_same &= text[i] == pattern_at(n);
        }
    }
    (void)close(out[0]);
    int wait_status = 0;
    if (rc == 0) (void)waitpid(pid, &wait_status, 0);
    t->answer.status = WEXITSTATUS(wait_status);
    t->is_true =
        strcmp(t->request, "/big") == 0 ? is_same && n == BIG_BYTES : strcmp(sum, "hello, world") == 0;
}

static void run_curl(struct test *t, const char *path)
{
    *t = (struct test){.client = curl_client, .request = path};
    run(t, 0);
}

Test(stream, http2_gets_the_parts)
{
    struct test t;
    run_curl(&t, "/");
    cr_assert(t.is_true);
}

Test(stream, http2_large_body_respects_the_window)
{
    struct test t;
    run_curl(&t, "/big");
    cr_assert(t.is_true);
    cr_assert_eq(t.seen.written_bytes, BIG_BYTES);
}

Test(stream, http2_aborted_body_is_an_error_to_the_client)
{
    struct test t;
    run_curl(&t, "/abort");
    cr_assert_neq(t.answer.status, 0);
}
