/* Shared by runtime/function/ only.
 *
 *   function.c         main(), life cycle, signals, drain     function_config.c  the table of settings
 *   function_serve.c   routes, limits, answers                function_metrics.c what /metrics shows
 *   function_event.c   CloudEvents and reply events           function_key.c     API keys
 *   healthcheck.c      -run-healthcheck
 *   invocation.c       signed invocations, both ends          host_act.c         acts on the host through the
 *                                                                                broker */
#ifndef BALM_FUNCTION_IMPL_H
#define BALM_FUNCTION_IMPL_H

#include <stdio.h>

#include "function/invocation.h"
#include "function/secret.h"
#include "log/log.h"
#include "server/server.h"

#ifndef BALM_VERSION
#define BALM_VERSION "0.1.0"
#endif

struct function_cfg {
    uint16_t port, metrics_port;
    int64_t read_timeout_ns, write_timeout_ns, exec_timeout_ns, healthcheck_interval_ns;
    int64_t max_inflight; /* 0: no limit */
    int64_t max_body_bytes;
    int64_t listen_fd;      /* inherited, bound and listening; -1: none */
    const char *host;       /* NULL: all interfaces */
    const char *ready_path; /* NULL: none */
    const char *secrets_path;
    const char *event_source;    /* of reply events, "/echo" */
    const char *webhook_origins; /* NULL: the handshake is the handler's own business */
    enum log_level log_level;
    bool suppress_lock, log_callid, knative_health, http2, is_metrics_off, is_frozen;
};

/* Fills *ret_cfg from environment and argv for `def`; strings live in the arena.
 * STATUS_INVALID_ARGUMENT: one sentence with the setting, its value and what is allowed. */
enum status function_config_load(const struct function_def *def, int argc, char **argv, struct arena *a,
                                 struct function_cfg *ret_cfg, struct error *err) MUST_USE;
void function_config_print_help(const struct function_def *def, FILE *out);

/* Exit code of -run-healthcheck: 0 if the lock file is there; where suppress_lock goes without one, if
 * /_/health on the configured port answers 200. Blocks, at most some seconds. */
int function_healthcheck(const struct function_cfg *cfg);

struct function {
    const struct function_def *def;
    struct function_cfg cfg;
    struct loop *loop;
    struct server *server, *metrics_server;
    char lock_path[256]; /* empty: none is kept */
    int lock_fd; /* holds the lock on it: another function on this machine must not remove our file; -1 */
    bool is_accepting; /* false from SIGTERM on */
    bool has_probe_seen_503;
    unsigned inflight;          /* function requests; private routes are not counted */
    int64_t last_traffic_ns;    /* end of the last function request, or the first probe that saw the drain */
    struct fiber_event traffic; /* a request ended, a probe saw the drain */
    int64_t key_complained_ns;  /* when it was last logged that there are no API keys */
    char key_hex[SECRET_READ_MAX + 1]; /* of invocations; empty until read */
};

/* Request handler of the function's server; arg is the struct function. */
void function_serve(void *arg, const struct http_req *req, struct http_resp *resp);
/* What the handler replied: status, type, headers, body. */
void function_answer_reply(const struct result *result, struct http_resp *resp);
/* How a function serves one request. */
typedef void function_serve_fn(struct function *f, struct invocation *inv, struct http_resp *resp);
/* inv->req through `serve`: as it is, or event by event, and then what the answers say as reply events. */
void function_serve_events(struct function *f, struct invocation *inv, function_serve_fn *serve,
                           struct http_resp *resp);
/* A sender of events asks whether it may (OPTIONS with WebHook-Request-Origin): *resp is the answer, where
 * webhook_origins is set; false: it is an ordinary request. */
bool function_grants_webhook(const struct function *f, const struct http_req *req, struct http_resp *resp);
/* Is it to be sent traffic? Accepting, and the lock file (where there is one) still exists. */
bool function_is_healthy(const struct function *f);

/* Has the caller shown an API key, if one is asked for? False: answered. After it the request has the key no
 * more: handlers log headers, programs have them in their environment. */
bool function_take_key(struct function *f, struct invocation *inv, struct http_resp *resp);

/* ---- metrics ---- */

void function_metrics_init(void);
void function_metrics_inflight(unsigned inflight);
void function_metrics_count(struct strview method, int status, int64_t duration_ns);
/* Request handler of the metrics server. */
void function_metrics_serve(void *arg, const struct http_req *req, struct http_resp *resp);

/* ---- the freeze switch (balm stop) ---- */

/* From then on invocation_check() fails and no signed invocation reaches a handler. */
void invocation_freeze(bool is_frozen);
bool invocation_is_frozen(void);

#endif
