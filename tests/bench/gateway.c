/* A gateway with nothing in it: server -> http_forward() -> a replica on a unix socket or loopback port, and
 * back. gateway PATH | gateway PORT. Prints its port; ends with SIGTERM. `echo_server PATH` is a replica. */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "client/forward.h"

struct gateway {
    struct loop *loop;
    struct upstream *upstream;
    const char *to;
    bool is_streaming;
};

static void pass(void *arg, const struct http_req *req, struct http_resp *resp)
{
    struct gateway *g = arg;
    struct http_reply reply;
    struct error err;
    int status;
    struct forward_spec spec = {.method = req->method,
                                .target = req->target,
                                .authority = req->authority,
                                .headers = req->headers,
                                .n_headers = req->n_headers,
                                .body = req->body,
                                .deadline_ns = req->received_ns + 10 * NS_PER_S};
    if (g->is_streaming) {
        if (http_forward_stream(g->upstream, &spec, req, resp, &status, &err) != STATUS_OK)
            http_resp_error(resp, req->arena, &err);
        return;
    }
    if (http_forward(g->upstream, &spec, req->arena, &reply, &err) != STATUS_OK) {
        http_resp_error(resp, req->arena, &err);
        return;
    }
    resp->status = reply.status;
    resp->body = reply.body;
    for (size_t i = 0; i < reply.n_headers; i++)
        http_resp_header(resp, reply.headers[i].name, reply.headers[i].value);
}

static void run(void *arg)
{
    struct gateway *g = arg;
    struct server_cfg cfg = {.host = "127.0.0.1", .handler = pass, .arg = g, .name = "gateway"};
    struct server *s;
    struct error err;
    static const int signals[] = {SIGTERM, SIGINT};
    int sig;
    bool is_path = g->to[0] == '/';
    uint16_t port = is_path ? 0 : (uint16_t)strtoul(g->to, NULL, 10);
    if (loop_signals_catch(g->loop, signals, 2, &err) != STATUS_OK ||
        upstream_new(g->loop, is_path ? g->to : NULL, "127.0.0.1", port, 0, &g->upstream, &err) !=
            STATUS_OK ||
        server_start(g->loop, &cfg, &s, &err) != STATUS_OK) {
        (void)fprintf(stderr, "%s\n", err.message);
        exit(1);
    }
    (void)printf("%u\n", server_port(s));
    (void)fflush(stdout);
    (void)!signal_wait(0, &sig);
    server_free(s);
    upstream_free(g->upstream);
}

int main(int argc, char **argv)
{
    struct gateway g = {.to = argc > 1 ? argv[1] : "8080", .is_streaming = argc > 2};
    struct error err;
    if (loop_new(&g.loop, &err) != STATUS_OK || loop_run_fiber(g.loop, run, &g, &err) != STATUS_OK) {
        (void)fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    loop_free(g.loop);
    return 0;
}
