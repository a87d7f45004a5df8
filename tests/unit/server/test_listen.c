/* Where it listens, how many it lets in, how it ends. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "harness.h"

#define GET(path) "GET " path " HTTP/1.1\r\nhost: h\r\n\r\n"

struct scene {
    struct harness *h;
    struct fiber_event open;
    unsigned entered;
    enum status waited, drained;
    uint16_t port;
    int fds[8];
    struct answer answer, answer2;
    bool flags[8];
    int64_t took_ns;
};

static void handler(void *arg, const struct http_req *req, struct http_resp *resp)
{
    struct scene *s = arg;
    if (sv_eq(req->path, SV("/wait"))) {
        s->entered++;
        s->waited = fiber_event_wait(&s->open, 0);
        if (s->waited != STATUS_OK) resp->status = 503;
    }
    if (sv_eq(req->path, SV("/large"))) {
        char *body = arena_alloc(req->arena, 32 * 1024 * 1024);
        memset(body, 'x', 32 * 1024 * 1024);
        resp->body = sv_n(body, 32 * 1024 * 1024);
        return;
    }
    http_resp_set(resp, resp->status, SV("text/plain"), req->peer);
}

static void run(struct scene *s, struct server_cfg cfg, void (*script)(struct harness *h))
{
    fiber_event_init(&s->open);
    cfg.handler = handler;
    cfg.arg = s;
    if (cfg.unix_path == NULL && cfg.listen_fd <= 0) cfg.host = "127.0.0.1";
    run_with_server(&cfg, script, s);
}

static void on_worker(struct scene *s, void (*fn)(void *arg))
{
    work_run(fn, s);
}

/* Waits (in the script's fiber) until the value is reached. */
static void until_entered(struct scene *s, unsigned n)
{
    for (int i = 0; i < 2000 && s->entered < n; i++)
        (void)!sleep_ms(2);
}

static void until_connections(struct harness *h, unsigned n)
{
    for (int i = 0; i < 2000 && server_connections(h->server) != n; i++)
        (void)!sleep_ms(2);
}

/* ---- where ---- */

static enum status start(const struct server_cfg *given, struct error *err)
{
    struct loop *l;
    struct server *s;
    struct server_cfg cfg = *given;
    cfg.handler = handler;
    cr_assert_eq(loop_new(&l, err), STATUS_OK);
    enum status st = server_start(l, &cfg, &s, err);
    if (st == STATUS_OK) server_free(s);
    loop_free(l);
    return st;
}

Test(listen, bad_addresses_are_refused_with_a_sentence)
{
    struct error err;
    char path[300];
    memset(path, 'p', sizeof(path) - 1);
    path[0] = '/', path[sizeof(path) - 1] = '\0';
    cr_assert_eq(start(&(struct server_cfg){.host = "localhost", .port = 80}, &err), STATUS_INVALID_ARGUMENT);
    cr_assert_not_null(strstr(err.message, "localhost"));
    cr_assert_eq(start(&(struct server_cfg){.unix_path = path}, &err), STATUS_INVALID_ARGUMENT);
    cr_assert_eq(start(&(struct server_cfg){.unix_path = "/nonexistent/dir/s"}, &err), STATUS_NOT_FOUND);
    cr_assert_eq(start(&(struct server_cfg){.listen_fd = -1}, &err), STATUS_INVALID_ARGUMENT);
    cr_assert_eq(start(&(struct server_cfg){.host = "127.0.0.1"}, &err), STATUS_OK);
}

Test(listen, a_port_that_was_only_taken_serves_once_it_is_handed_over)
{
    struct error err;
    struct sockaddr_in addr = {0};
    socklen_t len = sizeof(addr);
    int fd = -1, other = -1;
    cr_assert_eq(server_bind("127.0.0.1", 0, &fd, &err), STATUS_OK, "%s", err.message);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(client, (struct sockaddr *)&addr, len), -1, "nobody is let in yet");
    (void)close(client);
    cr_assert_eq(listen(fd, 1), 0);
    cr_assert_eq(server_bind("127.0.0.1", ntohs(addr.sin_port), &other, &err), STATUS_ALREADY_EXISTS);
    cr_assert_not_null(strstr(err.message, "already in use"));
    (void)close(fd);
    cr_assert_eq(server_bind("127.0.0.1", ntohs(addr.sin_port), &fd, &err), STATUS_OK);
    cr_assert_eq(start(&(struct server_cfg){.listen_fd = fd}, &err), STATUS_OK, "%s", err.message);
    cr_assert_eq(server_bind("localhost", 0, &fd, &err), STATUS_INVALID_ARGUMENT);
    cr_assert(server_address_is_valid("::1") && server_address_is_valid("0.0.0.0"));
    cr_assert_not(server_address_is_valid("localhost") || server_address_is_valid("") ||
                  server_address_is_valid("1.2.3"));
}

Test(listen, ipv6_where_the_machine_has_it)
{
    struct error err;
    enum status s = start(&(struct server_cfg){.host = "::1"}, &err);
    cr_assert(s == STATUS_OK || strstr(err.message, "::1") != NULL, "%s", err.message);
}

static void port_taken(struct harness *h)
{
    struct scene *s = h->arg;
    struct server *second;
    struct error err;
    const struct server_cfg cfg = {.host = "127.0.0.1", .port = h->port, .handler = handler};
    s->flags[0] = server_start(h->loop, &cfg, &second, &err) == STATUS_ALREADY_EXISTS &&
                  strstr(err.message, "127.0.0.1") != NULL;
}

Test(listen, taken_port_is_refused)
{
    struct scene s = {0};
    run(&s, (struct server_cfg){0}, port_taken);
    cr_assert(s.flags[0]);
}

static char folder[64], socket_path[96];

static int dial_unix(void)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    memcpy(addr.sun_path, socket_path, strlen(socket_path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 ? fd : -1;
}

static void ask_unix(void *arg)
{
    struct scene *s = arg;
    int fd = dial_unix();
    send_text(fd, GET("/"));
    read_answer(fd, &s->answer);
    (void)close(fd);
}

static void unix_script(struct harness *h)
{
    on_worker(h->arg, ask_unix);
}

static void make_folder(void)
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(folder, sizeof(folder), "%.40s/serverXXXXXX", tmp != NULL ? tmp : "/tmp");
    cr_assert_not_null(mkdtemp(folder));
    (void)snprintf(socket_path, sizeof(socket_path), "%s/s", folder);
}

static void remove_folder(void)
{
    (void)unlink(socket_path);
    (void)rmdir(folder);
}

Test(listen, unix_socket_serves_and_replaces_a_stale_one)
{
    struct scene s = {0};
    make_folder();
    for (int i = 0; i < 2; i++) {
        run(&s, (struct server_cfg){.unix_path = socket_path}, unix_script);
        cr_assert_str_eq(s.answer.body, "unix");
        answer_release(&s.answer);
    }
    remove_folder();
}

Test(listen, inherited_socket_serves)
{
    struct scene s = {0};
    make_folder();
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    memcpy(addr.sun_path, socket_path, strlen(socket_path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    cr_assert_eq(listen(fd, 16), 0);
    run(&s, (struct server_cfg){.listen_fd = fd}, unix_script);
    cr_assert_eq(s.answer.status, 200);
    answer_release(&s.answer);
    remove_folder();
}

/* ---- how many ---- */

static bool is_served(int fd, const char *request)
{
    struct answer a;
    send_text(fd, request);
    read_answer(fd, &a);
    answer_release(&a);
    return a.status == 200;
}

static void wait_short(int fd, long ms)
{
    struct timeval limit = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
}

static void over_the_cap(void *arg)
{
    struct scene *s = arg;
    int silent = dial(s->port), first = dial(s->port);
    s->flags[0] = is_served(first, GET("/"));
    int second = dial(s->port);
    s->flags[1] = is_served(second, GET("/")) && is_closed(silent); /* it came first and has said nothing */
    s->flags[2] = is_served(first, GET("/"));
    int third = dial(s->port);
    s->flags[3] = is_served(third, GET("/")) && is_closed(second); /* its last request is the oldest */
    s->flags[4] = is_served(first, GET("/"));
    (void)close(silent);
    (void)close(first);
    (void)close(second);
    (void)close(third);
}

static void cap_script(struct harness *h)
{
    struct scene *s = h->arg;
    s->port = h->port;
    on_worker(s, over_the_cap);
}

Test(listen, over_the_cap_the_one_that_rests_longest_gives_way)
{
    struct scene s = {0};
    run(&s, (struct server_cfg){.max_connections = 2}, cap_script);
    for (int i = 0; i < 5; i++)
        cr_expect(s.flags[i], "%d", i);
}

static void two_wait(void *arg)
{
    struct scene *s = arg;
    s->fds[0] = dial(s->port);
    s->fds[1] = dial(s->port);
    send_text(s->fds[0], GET("/wait"));
    send_text(s->fds[1], GET("/wait"));
}

static void third_comes(void *arg)
{
    struct scene *s = arg;
    s->fds[2] = dial(s->port);
    wait_short(s->fds[2], 200);
    s->flags[0] = !is_served(s->fds[2], GET("/")); /* waits in the kernel's queue */
}

static void all_are_served(void *arg)
{
    struct scene *s = arg;
    wait_short(s->fds[2], 5000);
    for (int i = 0; i < 3; i++) {
        struct answer a;
        read_answer(s->fds[i], &a);
        s->flags[1 + i] = a.status == 200;
        answer_release(&a);
        (void)close(s->fds[i]);
    }
}

static void busy_script(struct harness *h)
{
    struct scene *s = h->arg;
    s->port = h->port;
    on_worker(s, two_wait);
    until_entered(s, 2);
    on_worker(s, third_comes);
    fiber_event_set(&s->open);
    on_worker(s, all_are_served);
}

Test(listen, over_the_cap_requests_under_way_are_not_cut)
{
    struct scene s = {0};
    run(&s, (struct server_cfg){.max_connections = 2}, busy_script);
    for (int i = 0; i < 4; i++)
        cr_expect(s.flags[i], "%d", i);
}

static void crowd(void *arg)
{
    struct scene *s = arg;
    int fds[40];
    for (int i = 0; i < 40; i++)
        fds[i] = dial(s->port);
    s->flags[0] = is_served(fds[39], GET("/"));
    s->entered = server_connections(s->h->server); /* a look from the side: the loop has nothing to do */
    for (int i = 0; i < 40; i++)
        (void)close(fds[i]);
}

static void crowd_script(struct harness *h)
{
    struct scene *s = h->arg;
    s->port = h->port;
    s->h = h;
    on_worker(s, crowd);
}

Test(listen, connections_never_take_more_than_half_of_the_descriptors)
{
    struct scene s = {0};
    struct rlimit before, low;
    (void)getrlimit(RLIMIT_NOFILE, &before);
    low = before;
    low.rlim_cur = 120; /* both ends are ours here */
    (void)setrlimit(RLIMIT_NOFILE, &low);
    run(&s, (struct server_cfg){.max_connections = 1000}, crowd_script);
    (void)setrlimit(RLIMIT_NOFILE, &before);
    cr_assert(s.flags[0]);
    cr_assert_eq(s.entered, 40);
    low.rlim_cur = 60;
    (void)setrlimit(RLIMIT_NOFILE, &low);
    s = (struct scene){0};
    run(&s, (struct server_cfg){.max_connections = 1000}, crowd_script);
    (void)setrlimit(RLIMIT_NOFILE, &before);
    cr_assert_leq(s.entered, 30);
}

static void over_the_peer_cap(void *arg)
{
    struct scene *s = arg;
    struct answer a;
    int first = dial(s->port);
    send_text(first, GET("/"));
    read_answer(first, &a);
    s->flags[0] = a.status == 200;
    answer_release(&a);
    int second = dial(s->port);
    s->flags[1] = is_closed(second);
    (void)close(second);
    (void)close(first);
    for (int i = 0; i < 100 && !s->flags[2]; i++) {
        ask(s->port, GET("/"), &a);
        s->flags[2] = a.status == 200;
        answer_release(&a);
        (void)usleep(5000);
    }
}

static void peer_script(struct harness *h)
{
    struct scene *s = h->arg;
    s->port = h->port;
    on_worker(s, over_the_peer_cap);
}

Test(listen, peer_over_its_cap_is_closed_at_once)
{
    struct scene s = {0};
    run(&s, (struct server_cfg){.max_connections_per_peer = 1}, peer_script);
    cr_assert(s.flags[0] && s.flags[1] && s.flags[2]);
}

static void out_of_descriptors(struct harness *h)
{
    struct scene *s = h->arg;
    struct rlimit before, low;
    s->port = h->port;
    int fd = dial(h->port); /* ours; the server's end waits in the queue */
    int next = open("/dev/null", O_RDONLY | O_CLOEXEC);
    (void)close(next);
    (void)getrlimit(RLIMIT_NOFILE, &before);
    low = before;
    low.rlim_cur = (rlim_t)next; /* not one more */
    (void)setrlimit(RLIMIT_NOFILE, &low);
    (void)!sleep_ms(150);
    s->flags[0] = server_connections(h->server) == 0;
    (void)setrlimit(RLIMIT_NOFILE, &before);
    until_connections(h, 1);
    s->flags[1] = server_connections(h->server) == 1;
    (void)close(fd);
}

Test(listen, accepting_goes_on_after_descriptors_ran_out)
{
    struct scene s = {0};
    run(&s, (struct server_cfg){0}, out_of_descriptors);
    cr_assert(s.flags[0]);
    cr_assert(s.flags[1]);
}

static void many_slow(void *arg)
{
    struct scene *s = arg;
    enum { N = 300, HEAD = 380 * 1024 }; /* each below h2o's own limit; together 150 MiB of buffers */
    static int fds[N];
    char *junk = malloc(HEAD);
    memset(junk, 'x', HEAD);
    for (int i = 0; i < N; i++) {
        fds[i] = dial(s->port);
        send_text(fds[i], "GET / HTTP/1.1\r\nx: ");
        send_bytes(fds[i], junk, HEAD);
    }
    unsigned cut = 0;
    for (int tries = 0; tries < 200 && cut == 0; tries++) {
        (void)usleep(50000);
        for (int i = 0; i < N; i++) {
            char c;
            ssize_t n = recv(fds[i], &c, 1, MSG_DONTWAIT);
            cut += n == 0 || (n < 0 && errno != EAGAIN);
        }
    }
    s->flags[0] = cut > 0 && cut < N;
    for (int i = 0; i < N; i++)
        (void)close(fds[i]);
    free(junk);
}

static void slow_script(struct harness *h)
{
    struct scene *s = h->arg;
    s->port = h->port;
    on_worker(s, many_slow);
}

Test(listen, unfinished_headers_of_many_connections_have_a_common_limit)
{
    struct scene s = {0};
    run(&s, (struct server_cfg){0}, slow_script);
    cr_assert(s.flags[0]);
}

static void never_reads(void *arg)
{
    struct scene *s = arg;
    s->fds[0] = dial(s->port);
    send_text(s->fds[0], GET("/large"));
}

static void never_reads_script(struct harness *h)
{
    struct scene *s = h->arg;
    s->port = h->port;
    on_worker(s, never_reads);
    until_connections(h, 1);
    int64_t before_ns = clock_monotonic_ns();
    until_connections(h, 0);
    s->took_ns = clock_monotonic_ns() - before_ns;
    (void)close(s->fds[0]);
}

Test(listen, client_that_does_not_read_a_whole_answer_is_cut)
{
    struct scene s = {0};
    run(&s, (struct server_cfg){.write_timeout_ns = 200 * NS_PER_MS}, never_reads_script);
    cr_assert_lt(s.took_ns, 3 * NS_PER_S);
}

/* ---- the end ---- */

static void open_three(void *arg)
{
    struct scene *s = arg;
    s->fds[0] = dial(s->port); /* idle, has asked nothing */
    s->fds[1] = dial(s->port); /* idle after an answer */
    send_text(s->fds[1], GET("/"));
    read_answer(s->fds[1], &s->answer);
    answer_release(&s->answer);
    s->fds[2] = dial(s->port); /* in its handler */
    send_text(s->fds[2], GET("/wait"));
}

static void read_three(void *arg)
{
    struct scene *s = arg;
    s->flags[0] = is_closed(s->fds[0]);
    s->flags[1] = is_closed(s->fds[1]);
    s->flags[2] = dial(s->port) < 0; /* nobody listens */
}

static void read_last(void *arg)
{
    struct scene *s = arg;
    read_answer(s->fds[2], &s->answer);
    s->flags[3] = is_closed(s->fds[2]);
    for (int i = 0; i < 3; i++)
        (void)close(s->fds[i]);
}

static void drain_fiber(void *arg)
{
    struct scene *s = arg;
    s->drained = server_drain(s->h->server, clock_monotonic_ns() + 10 * NS_PER_S);
}

static void drain_script(struct harness *h)
{
    struct scene *s = h->arg;
    struct fiber_scope scope;
    s->h = h;
    s->port = h->port;
    on_worker(s, open_three);
    until_entered(s, 1);
    fiber_scope_init(&scope);
    (void)!fiber_scope_spawn(&scope, drain_fiber, s, NULL);
    on_worker(s, read_three);
    s->flags[4] = server_connections(h->server) == 1 && server_inflight(h->server) == 1;
    fiber_event_set(&s->open);
    on_worker(s, read_last);
    fiber_scope_join(&scope);
}

Test(listen, drain_closes_idle_connections_and_lets_requests_end)
{
    struct scene s = {0};
    run(&s, (struct server_cfg){0}, drain_script);
    cr_assert(s.flags[0] && s.flags[1], "idle connections stayed open");
    cr_assert(s.flags[2], "it still listens");
    cr_assert(s.flags[4]);
    cr_assert_eq(s.answer.status, 200);
    cr_assert(answer_has_header(&s.answer, "connection: close"));
    cr_assert(s.flags[3]);
    cr_assert_eq(s.drained, STATUS_OK);
    answer_release(&s.answer);
}

static void ask_and_wait(void *arg)
{
    struct scene *s = arg;
    s->fds[0] = dial(s->port);
    send_text(s->fds[0], GET("/wait"));
}

static void overdue_drain_script(struct harness *h)
{
    struct scene *s = h->arg;
    s->port = h->port;
    on_worker(s, ask_and_wait);
    until_entered(s, 1);
    s->drained = server_drain(h->server, clock_monotonic_ns() + 50 * NS_PER_MS);
    for (int i = 0; i < 1000 && server_inflight(h->server) > 0; i++)
        (void)!sleep_ms(2);
    (void)close(s->fds[0]);
}

Test(listen, drain_cancels_what_runs_at_its_deadline)
{
    struct scene s = {0};
    run(&s, (struct server_cfg){0}, overdue_drain_script);
    cr_assert_eq(s.drained, STATUS_DEADLINE_EXCEEDED);
    cr_assert_eq(s.waited, STATUS_CANCELLED);
}

static void free_at_once_script(struct harness *h)
{
    struct scene *s = h->arg;
    s->port = h->port;
    for (int i = 0; i < 3; i++)
        on_worker(s, ask_and_wait); /* three handlers run when the harness frees the server; descriptors end
                                       with the process */
    until_entered(s, 3);
}

Test(listen, free_cancels_handlers_and_cuts_connections)
{
    struct scene s = {0};
    run(&s, (struct server_cfg){0}, free_at_once_script);
    cr_assert_eq(s.entered, 3);
    cr_assert_eq(s.waited, STATUS_CANCELLED);
}
