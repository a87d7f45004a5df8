#include "client/client.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <signal.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/list.h"
#include "client/client_impl.h"
#include "script_server.h"

/* The loop under test is real and so is libcurl; the peer is a script on loopback. */
static struct loop *loop;
static struct arena arena;
static struct script_server *server;

static void init(void)
{
    struct error err;
    (void)unsetenv("http_proxy");
    (void)signal(SIGPIPE, SIG_IGN);
    cr_assert_eq(loop_new(&loop, &err), STATUS_OK, "%s", err.message);
}

static void fini(void)
{
    client_release(loop);
    loop_free(loop); /* asserts that no handle is left */
    if (server != NULL) script_stop(server);
    arena_release(&arena);
}

TestSuite(client, .init = init, .fini = fini, .timeout = 30);
TestSuite(client_plain, .init = init, .fini = fini, .timeout = 30);
TestSuite(client_curl, .init = init, .fini = fini, .timeout = 30);

/* Each behaviour twice: an address is called over h2o's client, a name over libcurl. */
static const char *host = "127.0.0.1";

static bool is_curl(void)
{
    return strcmp(host, "localhost") == 0;
}

#define TestBoth(name)                                                                                       \
    static void name(void);                                                                                  \
    Test(client_plain, name)                                                                                 \
    {                                                                                                        \
        name();                                                                                              \
        cr_assert_null(client_curl.easy_init);                                                               \
    }                                                                                                        \
    Test(client_curl, name)                                                                                  \
    {                                                                                                        \
        host = "localhost";                                                                                  \
        name();                                                                                              \
        cr_assert_not_null(client_curl.easy_init);                                                           \
    }                                                                                                        \
    static void name(void)

#define OK_ANSWER      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Name: v\r\n\r\nok"
#define CLOSING_ANSWER "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
#define BUSY_ANSWER    "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
#define SERVE(...)                                                                                           \
    static const struct script_step steps[] = {__VA_ARGS__};                                                 \
    server = script_start(steps, ARRAY_LEN(steps), NULL)

struct outcome {
    const struct http_call *call;
    struct http_reply reply;
    enum status status;
    struct error err;
};

static void call_fiber(void *arg)
{
    struct outcome *o = arg;
    o->status = http_request(o->call, &arena, &o->reply, &o->err);
}

static struct outcome request(struct http_call call)
{
    struct outcome o = {.call = &call};
    if (call.url.len == 0)
        call.url = arena_printf(&arena, "http://%s:%u/path?q=secret", host, script_port(server));
    cr_assert_eq(loop_run_fiber(loop, call_fiber, &o, NULL), STATUS_OK);
    return o;
}

static unsigned open_sockets(void)
{
    unsigned n = 0;
    char target[64], path[300];
    struct dirent *e;
    DIR *d = opendir("/proc/self/fd");
    while ((e = readdir(d)) != NULL) {
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%s", e->d_name);
        ssize_t len = readlink(path, target, sizeof(target) - 1);
        n += len > 7 && memcmp(target, "socket:", 7) == 0;
    }
    (void)closedir(d);
    return n;
}

static void assert_code(const struct outcome *o, enum status code, const char *words)
{
    cr_assert_eq(o->status, code, "%s: %s", status_name(o->status), o->err.message);
    cr_assert(strstr(o->err.message, words) != NULL, "'%s' lacks '%s'", o->err.message, words);
    cr_assert(strstr(o->err.message, "secret") == NULL, "%s", o->err.message);
}

/* ---- one call ---- */

Test(client, libcurl_is_not_mapped_before_the_first_call)
{
    char line[512];
    bool is_mapped = false;
    FILE *maps = fopen("/proc/self/maps", "re");
    while (fgets(line, sizeof(line), maps) != NULL)
        is_mapped |= strstr(line, "libcurl") != NULL;
    (void)fclose(maps);
    cr_assert(!is_mapped);
    cr_assert_eq(client_preload(NULL), STATUS_OK);
    cr_assert_not_null(client_curl.easy_init);
}

TestBoth(answer_comes_with_status_lower_case_headers_and_body)
{
    SERVE({.answer = "HTTP/1.1 100 Continue\r\nX-Interim: 1\r\n\r\n" OK_ANSWER});
    struct outcome o = request((struct http_call){0});
    cr_assert_eq(o.status, STATUS_OK, "%s", o.err.message);
    cr_assert_eq(o.reply.status, 200);
    cr_assert(sv_eq(o.reply.body, SV("ok")));
    cr_assert(sv_eq(http_header_get(o.reply.headers, o.reply.n_headers, SV("x-name")), SV("v")));
    cr_assert_eq(http_header_get(o.reply.headers, o.reply.n_headers, SV("x-interim")).len, 0);
    cr_assert_eq(o.reply.attempts, 1);
    cr_assert_gt(o.reply.elapsed_ns, 0);
    cr_assert(strncmp(script_seen(server, 0), "GET /path?q=secret HTTP/1.1\r\n", 29) == 0);
}

Test(client, post_sends_headers_token_and_body_and_nothing_of_curl_s_own)
{
    SERVE({.answer = OK_ANSWER});
    const struct http_header headers[] = {{SV("x-empty"), SV("")}, {SV("ce-id"), SV("7")}};
    struct outcome o = request((struct http_call){.method = SV("POST"),
                                                  .body = SV("{\"a\":1}"),
                                                  .headers = headers,
                                                  .n_headers = 2,
                                                  .bearer_token = SV("t0k")});
    const char *seen = script_seen(server, 0);
    cr_assert_eq(o.status, STATUS_OK);
    cr_assert(strncmp(seen, "POST ", 5) == 0);
    cr_assert(strstr(seen, "\r\nAuthorization: Bearer t0k\r\n") != NULL);
    cr_assert(strstr(seen, "\r\nce-id: 7\r\n") != NULL);
    cr_assert(strstr(seen, "\r\nx-empty:\r\n") != NULL, "%s", seen);
    cr_assert(strstr(seen, "\r\nContent-Length: 7\r\n") != NULL);
    cr_assert(strcasestr(seen, "content-type") == NULL && strcasestr(seen, "expect") == NULL, "%s", seen);
    cr_assert_str_eq(seen + strlen(seen) - 7, "{\"a\":1}");
}

TestBoth(what_is_sent_is_the_call_s_own)
{
    SERVE({.answer = OK_ANSWER});
    const struct http_header headers[] = {
        {SV("x-empty"), SV("")}, {SV("host"), SV("other")}, {SV("ce-id"), SV("7")}};
    struct outcome o = request((struct http_call){
        .method = SV("POST"), .body = SV("{\"a\":1}"), .headers = headers, .n_headers = ARRAY_LEN(headers)});
    const char *seen = script_seen(server, 0);
    cr_assert_eq(o.status, STATUS_OK);
    cr_assert(strncmp(seen, "POST /path?q=secret HTTP/1.1\r\n", 30) == 0, "%s", seen);
    cr_assert(strstr(seen, "\r\nce-id: 7\r\n") != NULL && strstr(seen, "\r\nx-empty:") != NULL, "%s", seen);
    cr_assert(strcasestr(seen, "\r\nhost: other\r\n") != NULL && strstr(seen, "127.0.0.1") == NULL, "%s",
              seen);
    cr_assert(strcasestr(seen, "\r\ncontent-length: 7\r\n") != NULL);
    cr_assert(strcasestr(seen, "content-type") == NULL && strcasestr(seen, "expect") == NULL, "%s", seen);
    cr_assert_str_eq(seen + strlen(seen) - 7, "{\"a\":1}");
}

TestBoth(methods_go_out_as_given)
{
    SERVE({.answer = CLOSING_ANSWER}, {.answer = CLOSING_ANSWER},
          {.answer = "HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\nConnection: close\r\n\r\n"},
          {.answer = CLOSING_ANSWER});
    const struct http_header json = {SV("content-type"), SV("application/json")};
    cr_assert_eq(request((struct http_call){.method = SV("DELETE")}).status, STATUS_OK);
    cr_assert_eq(
        request((struct http_call){.method = SV("PATCH"), .body = SV("{}"), .headers = &json, .n_headers = 1})
            .status,
        STATUS_OK);
    cr_assert_eq(request((struct http_call){.method = SV("HEAD")}).status, STATUS_OK);
    cr_assert_eq(request((struct http_call){.method = SV("PUT")}).status, STATUS_OK);
    cr_assert(strncmp(script_seen(server, 0), "DELETE /", 8) == 0);
    cr_assert(strncmp(script_seen(server, 1), "PATCH /", 7) == 0);
    cr_assert(strstr(script_seen(server, 1), "content-type: application/json\r\n") != NULL);
    cr_assert(strncmp(script_seen(server, 2), "HEAD /", 6) == 0);
    cr_assert(strncmp(script_seen(server, 3), "PUT /", 5) == 0 &&
              strcasestr(script_seen(server, 3), "Content-Length: 0\r\n") != NULL);
}

Test(client, unix_path_is_connected_instead_of_the_host)
{
    static const struct script_step steps[] = {{.answer = OK_ANSWER}};
    const char *tmp = getenv("TMPDIR");
    char *folder = arena_cstr(&arena, arena_printf(&arena, "%s/clientXXXXXX", tmp != NULL ? tmp : P_tmpdir));
    cr_assert_not_null(mkdtemp(folder));
    const char *path = arena_printf(&arena, "%s/s", folder).ptr;
    server = script_start(steps, 1, path);
    struct outcome o = request((struct http_call){.url = SV("http://function/x"), .unix_path = path});
    cr_assert_eq(o.status, STATUS_OK, "%s", o.err.message);
    cr_assert(strcasestr(script_seen(server, 0), "Host: function\r\n") != NULL);
    (void)unlink(path);
    (void)rmdir(folder);
}

TestBoth(redirects_are_not_followed)
{
    SERVE({.answer = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"});
    struct outcome o = request((struct http_call){0});
    cr_assert_eq(o.status, STATUS_OK);
    cr_assert_eq(o.reply.status, 302);
}

/* ---- what is refused before anything is sent ---- */

Test(client, urls_and_headers_that_could_do_harm_are_refused)
{
    const struct http_header split = {SV("x"), SV("a\r\nEvil: 1")}, name = {SV("a b"), SV("v")};
    const struct http_call calls[] = {
        {.url = SV("file:///etc/passwd")},
        {.url = SV("http://h/a b")},
        {.url = SV("http://h/a\r\nX: y")},
        {.url = SV("HTTP//nothing")},
        {.url = SV("http://h/"), .method = SV("GET /\r\n")},
        {.url = SV("http://h/"), .headers = &split, .n_headers = 1},
        {.url = SV("http://h/"), .headers = &name, .n_headers = 1},
        {.url = SV("http://h/"), .bearer_token = SV("t\n")},
        {.url = SV("http://")},
        {.url = SV("http://127.0.0.1:99999/")},
    };
    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        struct outcome o = request(calls[i]);
        cr_assert_eq(o.status, STATUS_INVALID_ARGUMENT, "call %zu: %s %s", i, status_name(o.status),
                     o.err.message);
    }
}

Test(client, a_ca_file_that_is_none_is_an_invalid_argument)
{
    struct outcome o =
        request((struct http_call){.url = SV("https://127.0.0.1:1/"), .ca_file = "/nonexistent/ca"});
    cr_assert(o.status == STATUS_INVALID_ARGUMENT || o.status == STATUS_UNAVAILABLE);
}

/* ---- failures ---- */

Test(client, refused_connection_is_unavailable)
{
    SERVE({.answer = OK_ANSWER});
    struct strview url =
        arena_printf(&arena, "http://user:secret@127.0.0.1:%u/x?token=secret", script_port(server));
    script_stop(server);
    server = NULL;
    struct outcome o = request((struct http_call){.url = url, .method = SV("POST")});
    assert_code(&o, STATUS_UNAVAILABLE, "POST http://127.0.0.1:");
    cr_assert(o.err.can_retry);
}

TestBoth(a_cut_before_the_answer_is_unknown_unless_the_call_may_be_repeated)
{
    SERVE({.answer = NULL}, {.answer = NULL}, {.answer = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab"});
    struct outcome post =
        request((struct http_call){.method = SV("POST"), .body = SV("x"), .max_attempts = 3});
    assert_code(&post, STATUS_UNKNOWN, "after the request was sent");
    struct outcome safe =
        request((struct http_call){.method = SV("POST"), .body = SV("x"), .is_idempotent = true});
    assert_code(&safe, STATUS_UNAVAILABLE, "attempt 1 of 1");
    struct outcome partial = request((struct http_call){.method = SV("POST")});
    assert_code(&partial, STATUS_UNKNOWN, "after the request was sent");
    cr_assert_eq(script_requests(server), 3);
}

TestBoth(the_timeout_ends_a_call_without_answer)
{
    SERVE({.holds = true});
    struct outcome o = request((struct http_call){.timeout_ns = 100 * NS_PER_MS});
    assert_code(&o, STATUS_DEADLINE_EXCEEDED, "no answer within");
}

static void deadline_fiber(void *arg)
{
    (void)fiber_set_deadline(clock_monotonic_ns() + 100 * NS_PER_MS);
    call_fiber(arg);
}

TestBoth(the_fiber_s_own_deadline_counts_too)
{
    SERVE({.holds = true});
    struct http_call call = {.url = arena_printf(&arena, "http://%s:%u/", host, script_port(server)),
                             .timeout_ns = 20 * NS_PER_S};
    struct outcome o = {.call = &call};
    cr_assert_eq(loop_run_fiber(loop, deadline_fiber, &o, NULL), STATUS_OK);
    assert_code(&o, STATUS_DEADLINE_EXCEEDED, "no answer within");
}

static void cancelling_fiber(void *arg)
{
    struct outcome *o = arg;
    struct fiber_scope scope;
    fiber_scope_init(&scope);
    cr_assert_eq(fiber_scope_spawn(&scope, call_fiber, o, NULL), STATUS_OK);
    while (script_requests(server) < 2)
        (void)!sleep_ms(2);
    fiber_scope_cancel(&scope);
    fiber_scope_join(&scope);
}

TestBoth(a_cancelled_fiber_leaves_no_transfer_and_no_connection_behind)
{
    SERVE({.answer = CLOSING_ANSWER}, {.holds = true}, {.answer = CLOSING_ANSWER});
    cr_assert_eq(request((struct http_call){0}).reply.status, 200); /* curl has its own descriptors now */
    (void)usleep(20000); /* the script closes its end of that one */
    unsigned sockets = open_sockets();
    struct http_call call = {.url = arena_printf(&arena, "http://%s:%u/", host, script_port(server))};
    struct outcome o = {.call = &call};
    cr_assert_eq(loop_run_fiber(loop, cancelling_fiber, &o, NULL), STATUS_OK);
    assert_code(&o, STATUS_CANCELLED, "after the request was sent");
    cr_assert_eq(open_sockets(), sockets + 1); /* the script's end, which it holds */
    cr_assert_eq(request((struct http_call){0}).reply.status, 200);
}

/* ---- limits ---- */

TestBoth(answers_over_the_limit_are_refused_whether_announced_or_not)
{
    SERVE({.answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12345"},
          {.answer = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n123456"},
          {.answer = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n123456"});
    cr_assert_eq(request((struct http_call){.max_body_bytes = 5}).status, STATUS_OK);
    struct outcome announced = request((struct http_call){.max_body_bytes = 5});
    assert_code(&announced, STATUS_RESOURCE_EXHAUSTED, "longer than 5 bytes");
    struct outcome silent = request((struct http_call){.max_body_bytes = 5});
    assert_code(&silent, STATUS_RESOURCE_EXHAUSTED, "longer than 5 bytes");
}

TestBoth(answers_with_too_many_headers_are_refused)
{
    static char answer[4096];
    size_t len = (size_t)snprintf(answer, sizeof(answer), "HTTP/1.1 200 OK\r\n");
    for (int i = 0; i <= HTTP_HEADERS_MAX; i++)
        len += (size_t)snprintf(answer + len, sizeof(answer) - len, "h%d: v\r\n", i);
    (void)snprintf(answer + len, sizeof(answer) - len, "\r\n");
    static struct script_step steps[1];
    steps[0].answer = answer;
    server = script_start(steps, 1, NULL);
    struct outcome o = request((struct http_call){.method = SV("POST")});
    if (is_curl())
        assert_code(&o, STATUS_RESOURCE_EXHAUSTED, "more than 100 headers");
    else
        assert_code(&o, STATUS_UNKNOWN, "malformed");
}

/* ---- retries ---- */

/* With a handle used again, curl 7.88 read freed memory here: to be seen with ASan. */
TestBoth(an_answer_that_begins_with_a_folded_header_is_no_answer)
{
    SERVE({.answer = OK_ANSWER}, {.answer = "HTTP/1.1 200 OK\r\n folded: x\r\nContent-Length: 0\r\n\r\n"});
    struct outcome o = request((struct http_call){0});
    cr_assert_eq(o.status, STATUS_OK, "%s", o.err.message);
    o = request((struct http_call){0});
    cr_assert_neq(o.status, STATUS_OK);
}

TestBoth(transient_answers_are_retried_after_a_second_and_the_peer_s_wish)
{
    SERVE({.answer = BUSY_ANSWER},
          {.answer = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 4\r\nContent-Length: 0\r\n\r\n"},
          {.answer = OK_ANSWER});
    int64_t started_ns = clock_monotonic_ns();
    struct outcome o = request((struct http_call){.max_attempts = 3});
    int64_t took_ns = clock_monotonic_ns() - started_ns;
    cr_assert_eq(o.status, STATUS_OK);
    cr_assert_eq(o.reply.status, 200);
    cr_assert_eq(o.reply.attempts, 3);
    cr_assert(took_ns >= 4500 * NS_PER_MS && took_ns < 7 * NS_PER_S, "%lld ms",
              (long long)(took_ns / NS_PER_MS));
}

TestBoth(the_last_answer_is_given_when_no_time_or_attempt_is_left)
{
    SERVE({.answer = BUSY_ANSWER}, {.answer = BUSY_ANSWER}, {.answer = BUSY_ANSWER}, {.answer = BUSY_ANSWER});
    struct outcome last = request((struct http_call){.max_attempts = 2});
    cr_assert_eq(last.status, STATUS_OK);
    cr_assert_eq(last.reply.status, 503);
    cr_assert_eq(last.reply.attempts, 2);
    struct outcome hurried = request((struct http_call){.max_attempts = 5, .timeout_ns = 300 * NS_PER_MS});
    cr_assert_eq(hurried.reply.attempts, 1);
    struct outcome careful =
        request((struct http_call){.max_attempts = 5, .method = SV("POST")}); /* not idempotent */
    cr_assert_eq(careful.reply.attempts, 1);
}

TestBoth(a_call_that_reached_nobody_is_retried_even_if_not_idempotent)
{
    SERVE({.answer = OK_ANSWER});
    struct strview url = arena_printf(&arena, "http://%s:%u/", host, script_port(server));
    script_stop(server);
    server = NULL;
    struct outcome o = request((struct http_call){.url = url, .method = SV("POST"), .max_attempts = 2});
    assert_code(&o, STATUS_UNAVAILABLE, "attempt 2 of 2");
}

/* ---- the pool ---- */

TestBoth(connections_are_used_again)
{
    SERVE({.answer = OK_ANSWER, .keeps_open = true}, {.answer = OK_ANSWER, .keeps_open = true},
          {.answer = OK_ANSWER});
    for (int i = 0; i < 3; i++)
        cr_assert_eq(request((struct http_call){.method = SV("POST")}).reply.status, 200);
    cr_assert_eq(script_connections(server), 1);
}

TestBoth(a_pooled_connection_that_dies_under_a_post_is_not_sent_again_by_curl)
{
    SERVE({.answer = OK_ANSWER, .keeps_open = true}, {.answer = NULL}, {.answer = OK_ANSWER});
    cr_assert_eq(request((struct http_call){.method = SV("POST"), .body = SV("1")}).status, STATUS_OK);
    struct outcome o = request((struct http_call){.method = SV("POST"), .body = SV("2")});
    cr_assert_eq(o.status, STATUS_UNKNOWN, "%s %s", status_name(o.status), o.err.message);
    cr_assert_eq(script_requests(server), 2);
}

TestBoth(a_pooled_connection_that_dies_under_a_get_is_replaced_at_once)
{
    SERVE({.answer = OK_ANSWER, .keeps_open = true}, {.answer = NULL}, {.answer = OK_ANSWER});
    cr_assert_eq(request((struct http_call){0}).status, STATUS_OK);
    struct outcome o = request((struct http_call){.method = SV("PUT"), .is_idempotent = true});
    cr_assert_eq(o.status, STATUS_OK, "%s", o.err.message);
    cr_assert_eq(o.reply.attempts, 1);
    cr_assert_eq(script_requests(server), 3);
}

TestBoth(a_pooled_connection_that_was_closed_while_idle_is_replaced)
{
    SERVE({.answer = OK_ANSWER}, {.answer = OK_ANSWER}); /* closes after each answer, unannounced */
    cr_assert_eq(request((struct http_call){.method = SV("POST")}).status, STATUS_OK);
    while (script_connections(server) < 1)
        (void)usleep(1000);
    (void)usleep(20000);
    cr_assert_eq(request((struct http_call){.method = SV("POST")}).status, STATUS_OK);
    cr_assert_eq(script_connections(server), 2);
}

#include "server/server.h"

struct crowd {
    struct server *peer;
    struct strview url;
    unsigned n_ok, most_connections, n_calls;
    int64_t hold_ms;
};

static void slow_answer(void *arg, const struct http_req *req, struct http_resp *resp)
{
    struct crowd *c = arg;
    (void)req;
    if (server_connections(c->peer) > c->most_connections) c->most_connections = server_connections(c->peer);
    (void)!sleep_ms((uint64_t)c->hold_ms);
    http_resp_set(resp, 200, SV("text/plain"), SV("ok"));
}

static void crowd_call(void *arg)
{
    struct crowd *c = arg;
    struct http_call call = {.url = c->url};
    struct http_reply reply = {0};
    struct arena a = {0};
    if (http_request(&call, &a, &reply, NULL) == STATUS_OK && reply.status == 200) c->n_ok++;
    arena_release(&a);
}

static void age_pool(struct crowd *c)
{
    struct client_pool *pool = NULL;
    cr_assert_eq(client_pool_get(&pool, NULL), STATUS_OK);
    cr_assert_eq(pool->n_calls, 0);
    cr_assert_eq(pool->n_open, CLIENT_HOST_CONNECTIONS_MAX);
    cr_assert_eq(client_pool_age(pool, 60 * NS_PER_S), 0); /* too young */
    cr_assert_eq(client_pool_age(pool, 0), CLIENT_HOST_CONNECTIONS_MAX - CLIENT_IDLE_CONNECTIONS_KEPT);
    cr_assert_eq(client_pool_age(pool, 0), 0);
    while (server_connections(c->peer) > CLIENT_IDLE_CONNECTIONS_KEPT)
        cr_assert_eq(sleep_ms(5), STATUS_OK);
    crowd_call(c); /* goes on with what is left */
    cr_assert_eq(server_connections(c->peer), CLIENT_IDLE_CONNECTIONS_KEPT);
}

static void crowd_fiber(void *arg)
{
    struct crowd *c = arg;
    struct fiber_scope scope;
    struct server_cfg cfg = {
        .host = "127.0.0.1", .listen_fd = -1, .handler = slow_answer, .arg = c, .name = "peer"};
    cr_assert_eq(server_start(loop, &cfg, &c->peer, NULL), STATUS_OK);
    c->url = arena_printf(&arena, "http://%s:%u/", host, server_port(c->peer));
    fiber_scope_init(&scope);
    for (unsigned i = 0; i < c->n_calls; i++)
        cr_assert_eq(fiber_scope_spawn(&scope, crowd_call, c, NULL), STATUS_OK);
    fiber_scope_join(&scope);
    if (is_curl()) age_pool(c);
    client_release(loop);
    server_free(c->peer);
}

TestBoth(sixty_connections_a_host_at_most_and_idle_ones_age_down_to_ten)
{
    struct crowd c = {.n_calls = 200, .hold_ms = 30};
    cr_assert_eq(loop_run_fiber(loop, crowd_fiber, &c, NULL), STATUS_OK);
    cr_assert_eq(c.n_ok, 200 + is_curl());
    cr_assert_eq(c.most_connections, CLIENT_HOST_CONNECTIONS_MAX);
}
