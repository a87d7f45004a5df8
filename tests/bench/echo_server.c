/* The runtime's data path with nothing in the handler: loop, server, a fiber a request. Prints its port; ends
 * with SIGTERM. With an argument it listens on that unix socket instead. Compare with h2o_bare, pinned to the
 * same core, in interleaved runs. */
#include <stdio.h>
#include <stdlib.h>

#include "loop/loop.h"
#include "server/server.h"

static void echo(void *arg, const struct http_req *req, struct http_resp *resp)
{
    (void)arg;
    http_resp_set(resp, 200, SV("application/octet-stream"), req->body);
}

static const char *unix_path;

static void run(void *arg)
{
    struct loop *l = arg;
    struct server_cfg cfg = {
        .host = "127.0.0.1", .listen_fd = -1, .handler = echo, .name = "echo", .http2 = true};
    if (unix_path != NULL) cfg.host = NULL, cfg.unix_path = unix_path;
    struct server *s;
    struct error err;
    static const int signals[] = {SIGTERM, SIGINT};
    int sig;
    if (loop_signals_catch(l, signals, 2, &err) != STATUS_OK ||
        server_start(l, &cfg, &s, &err) != STATUS_OK) {
        (void)fprintf(stderr, "%s\n", err.message);
        exit(1);
    }
    (void)printf("%u\n", server_port(s));
    (void)fflush(stdout);
    (void)!signal_wait(0, &sig);
    server_free(s);
}

int main(int argc, char **argv)
{
    unix_path = argc > 1 ? argv[1] : NULL;
    struct loop *l;
    struct error err;
    if (loop_new(&l, &err) != STATUS_OK || loop_run_fiber(l, run, l, &err) != STATUS_OK) {
        (void)fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    loop_free(l);
    return 0;
}
