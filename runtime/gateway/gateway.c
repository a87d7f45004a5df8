#include "gateway/gateway_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/hash.h"
#include "gateway/deployed.h"
#include "log/log.h"
#include "metrics/metrics.h"

#define ACT_GRACE_NS        (10 * NS_PER_S) /* balm stop: how long an act under way may take to notice */
#define CONNECTIONS_MAX     4096
#define PEER_CONNECTIONS_MAX 2048

/* ---- life ---- */

static enum status make_run_dir(struct gateway *g, struct error *err)
{
    struct arena a = {0};
    const char *path = arena_printf(&a, "%s/run", g->cfg.dir).ptr;
    enum status s = dir_make(path, 0700, err);
    if (s == STATUS_OK) {
        g->run_dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (g->run_dir_fd < 0) s = error_set(err, status_from_errno(errno), "open %s: %s", path, strerror(errno));
    }
    arena_release(&a);
    return s;
}

/* The login is told where it can be used, never what it is. */
static void tell_login(const struct gateway *g)
{
    log_info("gateway", "credentials were made; log in with: faas-cli login -u USER --password-stdin < PASSWORD-FILE",
             LOG_STR("secrets", g->cfg.dir));
}

static bool is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0 || strcmp(host, "localhost") == 0;
}

static enum status check_insecure(const struct gateway_cfg *cfg, struct error *err)
{
    if (!cfg->is_insecure) return STATUS_OK;
    if (geteuid() == 0)
        return error_set(err, STATUS_INVALID_ARGUMENT, "--insecure is refused for root: whoever reaches the port could start processes as root");
    if (!is_loopback(cfg->host))
        return error_set(err, STATUS_INVALID_ARGUMENT, "--insecure is for loopback only, not for %s", cfg->host);
    return STATUS_OK;
}

enum status gateway_new(struct loop *l, const struct gateway_cfg *cfg, struct journal *j, struct gateway **ret_gateway, struct error *err)
{
    enum status s = check_insecure(cfg, err);
    if (s != STATUS_OK) return s;
    struct gateway *g = mem_zalloc(1, sizeof(*g));
    *g = (struct gateway){.loop = l, .cfg = *cfg, .journal = j, .run_dir_fd = -1};
    list_init(&g->deployments);
    fiber_scope_init(&g->scope);
    fiber_event_init(&g->acts_ended);
    bool is_new = false;
    s = make_run_dir(g, err);
    if (s == STATUS_OK) s = gateway_secrets_load(cfg->dir, &g->secrets, &is_new, err);
    if (s == STATUS_OK) s = broker_new(l, cfg->broker_file, &g->broker, err);
    if (s == STATUS_OK) s = deployed_load(g, err);
    if (s == STATUS_OK) s = stack_deploy(g, cfg->stack_file, err);
    if (s == STATUS_OK) s = fiber_scope_spawn(&g->scope, supervisor_idle_fiber, g, err);
    if (s != STATUS_OK) {
        gateway_free(g);
        return s;
    }
    if (is_new) tell_login(g);
    *ret_gateway = g;
    return STATUS_OK;
}

enum status gateway_listen(struct gateway *g, struct error *err)
{
    struct server_cfg cfg = {
        .host = g->cfg.host,
        .port = g->cfg.port,
        .listen_fd = -1,
        .max_connections = CONNECTIONS_MAX,
        .max_connections_per_peer = is_loopback(g->cfg.host) ? 0 : PEER_CONNECTIONS_MAX,
        .handler = gateway_handle,
        .arg = g,
        .name = "gateway",
    };
    return server_start(g->loop, &cfg, &g->server, err);
}

uint16_t gateway_port(const struct gateway *g)
{
    return server_port(g->server);
}

enum status gateway_reload(struct gateway *g, struct error *err)
{
    struct error later;
    enum status first = broker_reload(g->broker, err);
    enum status s = stack_deploy(g, g->cfg.stack_file, first == STATUS_OK ? err : &later);
    if (first == STATUS_OK) first = s;
    for (unsigned i = 0; i < g->cfg.n_core; i++) {
        if (g->cfg.core[i]->reload == NULL) continue;
        s = g->cfg.core[i]->reload(g->cfg.core_states[i], first == STATUS_OK ? err : &later);
        if (first == STATUS_OK) first = s;
    }
    return first;
}

void gateway_drain(struct gateway *g, int64_t deadline_ns)
{
    g->is_draining = true;
    if (g->server != NULL && server_drain(g->server, deadline_ns) != STATUS_OK)
        log_warn("gateway", "requests were still under way at the end of the drain");
}

void gateway_free(struct gateway *g)
{
    if (g == NULL) return;
    if (g->server != NULL) server_free(g->server);
    supervisor_stop(g);
    fiber_scope_cancel(&g->scope);
    fiber_scope_join(&g->scope);
    broker_free(g->broker);
    gateway_secrets_release(&g->secrets);
    if (g->run_dir_fd >= 0) (void)close(g->run_dir_fd);
    free(g);
}

/* ---- the way in ---- */

static void refuse(const struct http_req *req, struct http_resp *resp, enum status code, const char *sentence)
{
    struct error err;
    (void)!error_set(&err, code, "%s", sentence);
    http_resp_error(resp, req->arena, &err);
    if (code == STATUS_UNAUTHENTICATED) http_resp_header(resp, SV("www-authenticate"), SV("Basic realm=\"Restricted\""));
}

/* A web page can make a browser send requests here; it cannot leave out Origin on those that change something, nor choose Host. */
static bool is_from_a_browser_page(const struct gateway *g, const struct http_req *req)
{
    if (http_req_header(req, SV("origin")).len > 0) return true;
    struct strview host = sv_sub(req->authority, 0, sv_find(req->authority, ':'));
    if (sv_starts_with(req->authority, SV("[::1]"))) return false;
    return !sv_eq_nocase(host, SV("localhost")) && !sv_eq(host, SV("127.0.0.1")) && !sv_eq(host, sv(g->cfg.host));
}

static bool is_authorized(const struct gateway *g, const struct http_req *req, struct http_resp *resp)
{
    if (!g->cfg.is_insecure) {
        if (gateway_secrets_check_basic(&g->secrets, http_req_header(req, SV("authorization")))) return true;
        refuse(req, resp, STATUS_UNAUTHENTICATED, "this needs the basic auth login of DIR/secrets");
        return false;
    }
    if (!is_from_a_browser_page(g, req)) return true;
    refuse(req, resp, STATUS_PERMISSION_DENIED, "--insecure answers no browser page: foreign Host or an Origin header");
    return false;
}

static bool may_use_core(const struct gateway *g, const struct core_function *f, const struct http_req *req, struct strview path,
                         struct http_resp *resp)
{
    if (f->auth == CORE_OPEN || (f->open_path != NULL && sv_eq(path, sv(f->open_path)))) return true;
    if (f->auth == CORE_BASIC) return is_authorized(g, req, resp);
    if (gateway_secrets_check_bearer(&g->secrets, http_req_header(req, SV("authorization")))) return true;
    refuse(req, resp, STATUS_UNAUTHENTICATED, "this needs 'Authorization: Bearer TOKEN' with the token of DIR/secrets/webhook-token");
    return false;
}

/* Does /function/NAME… name a core function? Then it is answered here. rest: "NAME…" */
static bool handle_core(struct gateway *g, const struct http_req *req, struct strview rest, struct http_resp *resp)
{
    struct strview name = sv_sub(rest, 0, sv_find(rest, '/'));
    struct strview path = sv_sub(rest, name.len, rest.len);
    if (sv_ends_with(name, SV(".openfaas-fn"))) name = sv_sub(name, 0, name.len - sizeof(".openfaas-fn") + 1);
    for (unsigned i = 0; i < g->cfg.n_core; i++) {
        const struct core_function *f = g->cfg.core[i];
        if (!sv_eq(name, sv(f->name))) continue;
        if (path.len == 0) path = SV("/");
        if (!may_use_core(g, f, req, path, resp)) return true;
        struct http_req inner = *req;
        inner.path = path;
        inner.target = req->query.len > 0 ? arena_printf(req->arena, "%.*s?%.*s", SV_ARG(path), SV_ARG(req->query)) : path;
        f->handle(g->cfg.core_states[i], &inner, resp);
        return true;
    }
    return false;
}

static void handle_health(const struct http_req *req, struct http_resp *resp)
{
    if (!sv_eq(req->method, SV("GET")) && !sv_eq(req->method, SV("HEAD"))) {
        http_resp_set(resp, 405, SV("text/plain"), SV("GET only\n"));
        return;
    }
    http_resp_set(resp, 200, SV("text/plain"), SV("OK"));
}

static void handle_metrics(const struct gateway *g, const struct http_req *req, struct http_resp *resp)
{
    if (!is_loopback(g->cfg.host) && !is_authorized(g, req, resp)) return;
    struct buf text;
    buf_init(&text, 16 * 1024 * 1024);
    metrics_write(&text);
    http_resp_set(resp, 200, SV("text/plain; version=0.0.4; charset=utf-8"), arena_copy(req->arena, buf_view(&text)));
    buf_release(&text);
}

static bool take_prefix(struct strview path, struct strview prefix, struct strview *ret_rest)
{
    if (!sv_starts_with(path, prefix) || path.len == prefix.len) return false;
    *ret_rest = sv_sub(path, prefix.len, path.len);
    return true;
}

void gateway_handle(void *gateway, const struct http_req *req, struct http_resp *resp)
{
    struct gateway *g = gateway;
    struct strview rest;
    if (take_prefix(req->path, SV("/function/"), &rest)) {
        if (!handle_core(g, req, rest, resp)) routes_function(g, req, rest, resp);
    } else if (take_prefix(req->path, SV("/async-function/"), &rest)) {
        routes_async_function(g, req, rest, resp);
    } else if (sv_eq(req->path, SV("/healthz"))) {
        handle_health(req, resp);
    } else if (sv_eq(req->path, SV("/metrics"))) {
        handle_metrics(g, req, resp);
    } else if (sv_starts_with(req->path, SV("/system/"))) {
        if (is_authorized(g, req, resp)) routes_system(g, req, resp);
    } else {
        refuse(req, resp, STATUS_NOT_FOUND, "no such path: /healthz, /metrics, /function/NAME, /async-function/NAME, /system/…");
    }
}

/* ---- how the dispatcher reaches bots ---- */

static struct deployment *find_or_say(struct gateway *g, struct strview name, struct error *err)
{
    struct deployment *d = supervisor_find(g, name);
    if (d == NULL) (void)!error_set(err, STATUS_NOT_FOUND, "no function '%.*s' is deployed", SV_ARG(name));
    return d;
}

static enum status invoker_info(void *arg, struct strview function, struct function_info *ret_info, struct error *err)
{
    struct deployment *d = find_or_say(arg, function, err);
    if (d == NULL) return STATUS_NOT_FOUND;
    *ret_info = d->info;
    return STATUS_OK;
}

static int64_t monotonic_from_unix(int64_t unix_ns)
{
    return clock_monotonic_ns() + (unix_ns - clock_unix_ns());
}

static enum status send_invocation(struct gateway *g, struct deployment *d, const struct invocation *inv, struct strview params, struct arena *a,
                                   struct invocation_reply *ret_reply, struct error *err)
{
    struct http_header headers[INVOCATION_HEADERS_MAX];
    struct forward_spec spec = {
        .method = SV("POST"), .target = SV("/"), .authority = inv->function, .headers = headers, .body = params,
        .deadline_ns = monotonic_from_unix(inv->deadline_unix_ns)};
    char key[SHA256_HEX + 1];
    invocation_derive_key(g->secrets.invocation_key, inv->function, key);
    enum status s = invocation_sign(inv, g->cfg.cluster, sv(key), params, a, headers, &spec.n_headers, err);
    mem_wipe(key, sizeof(key));
    if (s != STATUS_OK) return s;
    struct replica *r;
    struct http_reply reply;
    s = supervisor_acquire(d, spec.deadline_ns, &r, err);
    if (s != STATUS_OK) {
        if (err != NULL) err->can_retry = s == STATUS_UNAVAILABLE || s == STATUS_RESOURCE_EXHAUSTED;
        return s;
    }
    s = http_forward(r->upstream, &spec, a, &reply, err);
    supervisor_release(r);
    if (s != STATUS_OK) return s;
    return invocation_parse_reply(reply.status, reply.body, a, ret_reply, err);
}

static enum status invoker_invoke(void *arg, const struct invocation *inv, struct strview params, struct arena *a,
                                  struct invocation_reply *ret_reply, struct error *err)
{
    struct gateway *g = arg;
    struct deployment *d = find_or_say(g, inv->function, err);
    if (d == NULL) return STATUS_NOT_FOUND;
    if (g->is_frozen) return error_set(err, STATUS_CANCELLED, "balm stop is in force");
    d->users++;
    d->acting_inflight++;
    enum status s = send_invocation(g, d, inv, params, a, ret_reply, err);
    d->acting_inflight--;
    d->users--;
    fiber_event_set(&g->acts_ended);
    return s;
}

static enum status invoker_call(void *arg, struct strview function, const struct http_req *req, int64_t deadline_ns, struct arena *a,
                                int *ret_http_status, struct strview *ret_body, struct error *err)
{
    struct gateway *g = arg;
    struct deployment *d = find_or_say(g, function, err);
    if (d == NULL) return STATUS_NOT_FOUND;
    if (d->info.acts) return error_set(err, STATUS_PERMISSION_DENIED, "function '%.*s' acts: it takes signed invocations only", SV_ARG(function));
    struct forward_spec spec = {.method = req->method, .target = req->target, .authority = req->authority, .headers = req->headers,
                                .n_headers = req->n_headers, .body = req->body, .deadline_ns = deadline_ns};
    struct replica *r;
    struct http_reply reply;
    enum status s = supervisor_acquire(d, deadline_ns, &r, err);
    if (s != STATUS_OK) return s;
    s = http_forward(r->upstream, &spec, a, &reply, err);
    supervisor_release(r);
    if (s != STATUS_OK) return s;
    *ret_http_status = reply.status;
    *ret_body = reply.body;
    return STATUS_OK;
}

static bool is_acting(const struct gateway *g)
{
    for (struct list *n = g->deployments.next; n != &g->deployments; n = n->next)
        if (container_of(n, struct deployment, node)->acting_inflight > 0) return true;
    return false;
}

/* Acts that did not notice in time lose their process: their outcome is unknown and is treated as on_unknown says. */
static void kill_acting(struct gateway *g)
{
    log_warn("gateway", "acts did not end within the grace of balm stop: their processes are killed");
    supervisor_signal_acting(g, SIGKILL);
}

static enum status invoker_freeze(void *arg, bool is_frozen, struct error *err)
{
    struct gateway *g = arg;
    g->is_frozen = is_frozen;
    supervisor_signal_acting(g, is_frozen ? SIGUSR1 : SIGUSR2);
    broker_freeze(g->broker, is_frozen);
    if (!is_frozen) return STATUS_OK;
    int64_t deadline_ns = clock_monotonic_ns() + ACT_GRACE_NS;
    bool was_killed = false;
    while (is_acting(g)) {
        fiber_event_reset(&g->acts_ended);
        enum status s = fiber_event_wait(&g->acts_ended, deadline_ns);
        if (s == STATUS_CANCELLED) return error_set(err, s, "balm stop was cut short while acts were ending");
        if (s == STATUS_DEADLINE_EXCEEDED && !was_killed) {
            kill_acting(g);
            was_killed = true;
            deadline_ns = 0;
        }
    }
    return STATUS_OK;
}

const struct invoker_ops gateway_invoker = {
    .name = "local", .info = invoker_info, .invoke = invoker_invoke, .call = invoker_call, .freeze = invoker_freeze};
