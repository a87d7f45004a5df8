#include "gateway/gateway_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/escape.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/hash.h"
#include "function/openapi.h"
#include "gateway/builder.h"
#include "gateway/deployed.h"
#include "gateway/function_secrets.h"
#include "gateway/routes.h"
#include "log/log.h"
#include "metrics/metrics.h"

#define CONNECTIONS_MAX        4096
#define PEER_CONNECTIONS_MAX   2048
#define SECRET_UNGUESSABLE_LEN 32 /* what is made here has 48 characters, 192 bits */

/* ---- life ---- */

/* Functions run in another folder: what they are told must be absolute. */
static enum status make_absolute(const char *path, char **ret_path, struct error *err)
{
    *ret_path = realpath(path, NULL);
    return *ret_path != NULL ? STATUS_OK
                             : error_set(err, status_from_errno(errno), "%s: %s", path, strerror(errno));
}

static char *watchdog_beside(const char *shim_path)
{
    static const char name[] = "/balm-watchdog";
    size_t folder = (size_t)(strrchr(shim_path, '/') - shim_path); /* it is absolute */
    char *path = mem_alloc(folder + sizeof(name));
    memcpy(path, shim_path, folder);
    memcpy(path + folder, name, sizeof(name));
    return path;
}

static enum status make_paths(struct gateway *g, struct error *err)
{
    enum status s = dir_make(g->cfg.dir, 0700, err);
    if (s == STATUS_OK) s = make_absolute(g->cfg.dir, &g->dir, err);
    if (s == STATUS_OK) s = make_absolute(g->cfg.shim_path, &g->shim_path, err);
    if (s != STATUS_OK) return s;
    g->cfg.dir = g->dir;
    g->cfg.shim_path = g->shim_path;
    g->watchdog_path = watchdog_beside(g->shim_path);
    return access(g->shim_path, X_OK) == 0
               ? STATUS_OK
               : error_set(err, STATUS_PERMISSION_DENIED, "%s cannot be executed", g->shim_path);
}

static enum status make_run_dir(struct gateway *g, struct error *err)
{
    struct arena a = {0};
    const char *path = arena_printf(&a, "%s/run", g->cfg.dir).ptr;
    enum status s = dir_make(path, 0700, err);
    if (s == STATUS_OK) {
        g->run_dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (g->run_dir_fd < 0)
            s = error_set(err, status_from_errno(errno), "open %s: %s", path, strerror(errno));
        else
            replica_clean_run_dir(g);
    }
    arena_release(&a);
    return s;
}

static enum status make_broker(struct gateway *g, struct error *err)
{
    struct broker_cfg cfg = {.allow_list_file = g->cfg.broker_file,
                             .run_dir_fd = g->run_dir_fd,
                             .shim_path = g->cfg.shim_path,
                             .files_max = g->cfg.host_files_max};
    return broker_new(&cfg, &g->broker, err);
}

static bool is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0 || strcmp(host, "localhost") == 0;
}

bool gateway_is_on_loopback(const struct gateway *g)
{
    return is_loopback(g->cfg.host);
}

static enum status check_insecure(const struct gateway_cfg *cfg, struct error *err)
{
    if (!cfg->is_insecure) return STATUS_OK;
    if (geteuid() == 0)
        return error_set(
            err, STATUS_INVALID_ARGUMENT,
            "--insecure is refused for root: whoever reaches the port could start processes as root");
    if (!is_loopback(cfg->host))
        return error_set(err, STATUS_INVALID_ARGUMENT, "--insecure is for loopback only, not for %s",
                         cfg->host);
    return STATUS_OK;
}

enum status gateway_new(struct loop *l, const struct gateway_cfg *cfg, struct journal *j,
                        struct gateway **ret_gateway, struct error *err)
{
    enum status s = check_insecure(cfg, err);
    if (s != STATUS_OK) return s;
    struct gateway *g = mem_zalloc(1, sizeof(*g));
    *g = (struct gateway){.loop = l, .cfg = *cfg, .journal = j, .run_dir_fd = -1};
    list_init(&g->deployments);
    list_init(&g->retired);
    fiber_scope_init(&g->scope);
    fiber_event_init(&g->acts_ended);
    fiber_event_init(&g->reload_ended);
    fiber_event_init(&g->change_ended);
    gateway_metrics_init(g);
    g->logins = login_limit_new();
    cgroups_find(&g->groups);
    struct stack_plan *plan;
    bool is_new = false;
    s = make_paths(g, err);
    if (s == STATUS_OK) s = make_run_dir(g, err);
    if (s == STATUS_OK) s = isolation_init(g, err);
    if (s == STATUS_OK) s = gateway_secrets_load(cfg->dir, &g->secrets, &is_new, err);
    if (s == STATUS_OK) function_secrets_clean(g->cfg.dir);
    if (s == STATUS_OK) s = make_broker(g, err);
    if (s == STATUS_OK) s = builder_new(g, cfg->builder_secret_file, &g->builder, err);
    if (s == STATUS_OK) s = deployed_load(g, err);
    if (s == STATUS_OK) s = stack_prepare(g, cfg->stack_file, &plan, err);
    if (s == STATUS_OK) stack_commit(plan);
    if (s == STATUS_OK) deployed_load_scales(g);
    if (s == STATUS_OK) s = fiber_scope_spawn(&g->scope, supervisor_watch_fiber, g, err);
    if (s == STATUS_OK) s = fiber_scope_spawn(&g->scope, health_watch_fiber, g, err);
    if (s != STATUS_OK) {
        gateway_free(g);
        return s;
    }
    if (is_new) log_info("gateway", "credentials were made", LOG_STR("folder", g->cfg.dir));
    *ret_gateway = g;
    return STATUS_OK;
}

struct pin_work {
    const char *path;
    struct strview pin; /* empty: the file goes */
    enum status status;
    struct error *err;
};

/* On a worker: it syncs, and a renewal comes while requests are served. */
static void put_pin(void *arg)
{
    struct pin_work *w = arg;
    if (w->pin.len > 0)
        w->status = file_write_atomic(w->path, w->pin, 0600, w->err);
    else
        (void)unlink(w->path);
}

/* For clients on this machine, whom the certificate's name does not help: they come to an address. */
static enum status write_pin(const struct gateway *g, struct error *err)
{
    struct arena a = {0};
    const char *pin = server_tls_pin(g->server);
    struct pin_work w = {.path = arena_printf(&a, "%s/run/" GATEWAY_PIN_FILE, g->cfg.dir).ptr,
                         .pin = pin != NULL ? arena_copy(&a, sv(pin)) : sv(NULL),
                         .err = err};
    work_run(put_pin, &w);
    arena_release(&a);
    return w.status;
}

static void on_tls_renewed(void *arg)
{
    struct error err;
    if (write_pin(arg, &err) != STATUS_OK)
        log_error("gateway", "the new certificate is not known to this machine's own clients",
                  LOG_STR("error", err.message));
}

enum status gateway_listen(struct gateway *g, struct error *err)
{
    struct server_cfg cfg = {
        .host = g->cfg.listen_fd > 0 ? NULL : g->cfg.host,
        .port = g->cfg.port,
        .listen_fd = g->cfg.listen_fd > 0 ? g->cfg.listen_fd : -1,
        .max_connections = CONNECTIONS_MAX,
        .max_connections_per_peer = is_loopback(g->cfg.host) ? 0 : PEER_CONNECTIONS_MAX,
        .tls_cert_file = g->cfg.tls_cert_file,
        .tls_key_file = g->cfg.tls_key_file,
        .on_tls_renewed = on_tls_renewed,
        .handler = gateway_handle,
        .arg = g,
        .name = "gateway",
    };
    enum status s = server_start(g->loop, &cfg, &g->server, err);
    return s == STATUS_OK ? write_pin(g, err) : s;
}

uint16_t gateway_port(const struct gateway *g)
{
    return server_port(g->server);
}

void gateway_drain(struct gateway *g, int64_t deadline_ns)
{
    g->is_draining = true;
    g->stop_deadline_ns = deadline_ns;
    if (g->server != NULL && server_drain(g->server, deadline_ns) != STATUS_OK)
        log_warn("gateway", "requests were still under way at the end of the drain");
}

void gateway_free(struct gateway *g)
{
    if (g == NULL) return;
    if (g->server != NULL) server_free(g->server);
    gateway_metrics_release(g);
    supervisor_stop(g);
    fiber_scope_cancel(&g->scope);
    fiber_scope_join(&g->scope);
    isolation_release(g);
    broker_free(g->broker);
    builder_free(g->builder);
    login_limit_free(g->logins);
    gateway_secrets_release(&g->secrets);
    if (g->run_dir_fd >= 0) (void)close(g->run_dir_fd);
    free(g->dir);
    free(g->shim_path);
    free(g->watchdog_path);
    free(g);
}

/* ---- the way in ---- */

static void refuse(const struct http_req *req, struct http_resp *resp, enum status code, const char *sentence)
{
    struct error err;
    (void)!error_set(&err, code, "%s", sentence);
    http_resp_error(resp, req->arena, &err);
}

static bool take_prefix(struct strview path, struct strview prefix, struct strview *ret_rest)
{
    if (!sv_starts_with(path, prefix) || path.len == prefix.len) return false;
    *ret_rest = sv_sub(path, prefix.len, path.len);
    return true;
}

/* Plain text, as clients of OpenFaaS print it. */
static void ask_for_login(struct http_resp *resp)
{
    http_resp_set(resp, 401, SV("text/plain; charset=utf-8"), SV("invalid credentials\n"));
    http_resp_header(resp, SV("www-authenticate"), SV("Basic realm=\"Restricted\""));
}

/* A web page can make a browser send requests here; it cannot leave out Origin on those that change
 * something, nor choose Host, nor say of another site's request that it is its own. */
static bool is_from_a_browser_page(const struct gateway *g, const struct http_req *req)
{
    struct strview site = http_req_header(req, SV("sec-fetch-site"));
    if (http_req_header(req, SV("origin")).len > 0) return true;
    if (site.len > 0 && !sv_eq(site, SV("none")) && !sv_eq(site, SV("same-origin"))) return true;
    struct strview host = sv_sub(req->authority, 0, sv_find(req->authority, ':'));
    if (sv_starts_with(req->authority, SV("[::1]"))) return false;
    return !sv_eq_nocase(host, SV("localhost")) && !sv_eq(host, SV("127.0.0.1")) &&
           !sv_eq(host, sv(g->cfg.host));
}

typedef bool credentials_check_fn(const struct gateway_secrets *s, struct strview header);

/* A secret so long is not guessed, however often: then the limit must not let one who guesses shut out
 * whoever else comes from his address (all of a proxy's clients, or Alertmanager on the same machine, which
 * drops an alert that is answered 429). A short one that somebody chose is not looked at while the limit
 * holds, or the limit would not slow down the guess that is right. */
static bool is_guessable(struct strview secret)
{
    return secret.len < SECRET_UNGUESSABLE_LEN;
}

void gateway_refuse_wrong(struct gateway *g, const struct http_req *req, struct strview credentials,
                          unsigned wait_s, struct http_resp *resp)
{
    if (login_limit_failed(g->logins, req->peer, credentials, req->received_ns))
        log_warn("gateway", "too many wrong credentials from one address", LOG_SV("peer", req->peer));
    gateway_count_refused_login(wait_s == 0 ? SV("wrong") : SV("limited"));
    if (wait_s == 0) return;
    http_resp_set(resp, 429, SV("text/plain; charset=utf-8"),
                  SV("too many wrong credentials from this address\n"));
    http_resp_header(resp, SV("retry-after"), arena_printf(req->arena, "%u", wait_s));
}

/* False: answered with 429, or still to be answered with 401 (*ret_is_answered). */
static bool has_credentials(struct gateway *g, const struct http_req *req, credentials_check_fn *check,
                            struct strview secret, struct http_resp *resp, bool *ret_is_answered)
{
    struct strview header = http_req_header(req, SV("authorization"));
    *ret_is_answered = false;
    if (header.len == 0) {
        gateway_count_refused_login(SV("missing"));
        return false;
    }
    unsigned wait_s = is_guessable(secret) ? login_limit_wait_s(g->logins, req->peer, req->received_ns) : 0;
    if (wait_s == 0) {
        if (check(&g->secrets, header)) return true;
        wait_s = login_limit_wait_s(g->logins, req->peer, req->received_ns);
    }
    gateway_refuse_wrong(g, req, header, wait_s, resp);
    *ret_is_answered = wait_s > 0;
    return false;
}

/* A browser sends the login that it remembers (of /docs) with whatever another site's page has it send here.
 * It says so; only a page of our own may change something. Following a link is fine. */
static bool is_of_another_site(const struct http_req *req)
{
    struct strview site = http_req_header(req, SV("sec-fetch-site")), host;
    if (route_is_reading(req)) return false;
    if (site.len > 0) return !sv_eq(site, SV("none")) && !sv_eq(site, SV("same-origin"));
    struct strview origin = http_req_header(req, SV("origin"));
    if (origin.len == 0) return false;
    bool is_http = take_prefix(origin, SV("http://"), &host) || take_prefix(origin, SV("https://"), &host);
    return !is_http || !sv_eq_nocase(host, req->authority);
}

bool gateway_has_login(struct gateway *g, const struct http_req *req, struct http_resp *resp)
{
    bool is_answered;
    if (is_of_another_site(req)) {
        refuse(req, resp, STATUS_PERMISSION_DENIED, "a page of another site may change nothing here");
        return false;
    }
    if (has_credentials(g, req, gateway_secrets_check_basic, g->secrets.password, resp, &is_answered))
        return true;
    if (!is_answered) ask_for_login(resp);
    return false;
}

static bool is_authorized(struct gateway *g, const struct http_req *req, struct http_resp *resp)
{
    if (!g->cfg.is_insecure) return gateway_has_login(g, req, resp);
    if (!is_from_a_browser_page(g, req)) return true;
    refuse(req, resp, STATUS_PERMISSION_DENIED,
           "--insecure answers no browser page: foreign Host or an Origin header");
    return false;
}

static bool may_use_core(struct gateway *g, const struct core_function *f, const struct http_req *req,
                         struct strview path, struct http_resp *resp)
{
    if (f->auth == CORE_OPEN || (f->open_path != NULL && sv_eq(path, sv(f->open_path)))) return true;
    bool is_admin_reading = sv_eq(req->method, SV("GET")) &&
                            sv_starts_with(http_req_header(req, SV("authorization")), SV("Basic "));
    if (f->auth == CORE_BASIC || is_admin_reading) return is_authorized(g, req, resp);
    bool is_answered;
    if (has_credentials(g, req, gateway_secrets_check_bearer, g->secrets.token, resp, &is_answered))
        return true;
    if (is_answered) return false;
    refuse(req, resp, STATUS_UNAUTHENTICATED,
           "this needs 'Authorization: Bearer TOKEN' with the token of DIR/secrets/webhook-token");
    http_resp_header(resp, SV("www-authenticate"), SV("Bearer"));
    return false;
}

/* Our own endpoints read JSON as it is: "the body is no JSON" would send whoever compresses it looking in the
 * wrong place. A deployed function decides for itself. */
static bool is_readable(const struct http_req *req, struct http_resp *resp)
{
    struct strview encoding = http_req_header(req, SV("content-encoding"));
    if (encoding.len == 0 || sv_eq_nocase(encoding, SV("identity"))) return true;
    struct error err;
    (void)!error_set(&err, STATUS_INVALID_ARGUMENT,
                     "Content-Encoding '%.*s' is not taken here: send the body uncompressed",
                     SV_ARG(sv_sub(encoding, 0, json_plain_run_max(encoding, 40))));
    http_resp_error(resp, req->arena, &err);
    resp->status = 415;
    http_resp_header(resp, SV("accept-encoding"), SV("identity"));
    return false;
}

static bool find_core(const struct gateway *g, struct strview name, unsigned *ret_index)
{
    struct strview bare = supervisor_bare_name(name);
    for (unsigned i = 0; i < g->cfg.n_core; i++)
        if (sv_eq(bare, sv(g->cfg.core[i]->name))) {
            *ret_index = i;
            return true;
        }
    return false;
}

/* Does /function/NAME… name a core function? Then it is answered here. rest: "NAME…" */
static bool handle_core(struct gateway *g, const struct http_req *req, struct strview rest,
                        struct http_resp *resp)
{
    struct strview name = sv_sub(rest, 0, sv_find(rest, '/'));
    struct strview path = sv_sub(rest, name.len, rest.len);
    unsigned i;
    if (!find_core(g, name, &i)) return false;
    const struct core_function *f = g->cfg.core[i];
    if (path.len == 0) path = SV("/");
    if (!may_use_core(g, f, req, path, resp) || !is_readable(req, resp)) return true;
    struct http_req inner = *req;
    inner.path = path;
    inner.target =
        req->query.len > 0 ? arena_printf(req->arena, "%.*s?%.*s", SV_ARG(path), SV_ARG(req->query)) : path;
    f->handle(g->cfg.core_states[i], &inner, resp);
    return true;
}

/* GET /function/NAME/openapi.json, whether or not the function runs. As open as the function; of one that
 * asks for an API key it is open, as it says so. */
static bool handle_document(struct gateway *g, const struct http_req *req, struct strview rest,
                            struct http_resp *resp)
{
    struct strview name = sv_sub(rest, 0, sv_find(rest, '/'));
    if (!route_is_reading(req) || !sv_eq(sv_sub(rest, name.len, rest.len), SV(OPENAPI_PATH))) return false;
    unsigned i;
    if (find_core(g, name, &i)) {
        if (is_authorized(g, req, resp)) routes_docs_core_document(g, req, sv(g->cfg.core[i]->name), resp);
        return true;
    }
    const struct deployment *d = supervisor_find(g, name);
    if (d == NULL || !routes_docs_has_document(d)) return false;
    if (!d->info.acts || is_authorized(g, req, resp)) routes_docs_document(d, req, resp);
    return true;
}

static void handle_health(const struct http_req *req, struct http_resp *resp)
{
    if (!sv_eq(req->method, SV("GET")) && !sv_eq(req->method, SV("HEAD"))) {
        http_resp_set(resp, 405, SV("text/plain"), SV("GET only\n"));
        http_resp_header(resp, SV("allow"), SV("GET, HEAD"));
        return;
    }
    http_resp_set(resp, 200, SV("text/plain"), SV("OK"));
}

static void handle_metrics(struct gateway *g, const struct http_req *req, struct http_resp *resp)
{
    if (!is_loopback(g->cfg.host) && !is_authorized(g, req, resp)) return;
    struct buf text;
    buf_init(&text, 16 * 1024 * 1024);
    metrics_write(&text);
    http_resp_set(resp, 200, SV("text/plain; version=0.0.4; charset=utf-8"),
                  arena_copy(req->arena, buf_view(&text)));
    buf_release(&text);
}

void gateway_handle(void *gateway, const struct http_req *req, struct http_resp *resp)
{
    struct gateway *g = gateway;
    struct strview rest;
    if (take_prefix(req->path, SV("/function/"), &rest)) {
        if (!handle_document(g, req, rest, resp) && !handle_core(g, req, rest, resp))
            routes_function(g, req, rest, resp);
    } else if (take_prefix(req->path, SV("/async-function/"), &rest)) {
        routes_async_function(g, req, rest, resp);
    } else if (sv_eq(req->path, SV("/healthz"))) {
        handle_health(req, resp);
    } else if (sv_eq(req->path, SV("/metrics"))) {
        handle_metrics(g, req, resp);
    } else if (sv_eq(req->path, SV("/build"))) {
        routes_build(g, req, resp);
    } else if (sv_starts_with(req->path, SV("/system/"))) {
        if (is_authorized(g, req, resp) && is_readable(req, resp)) routes_system(g, req, resp);
    } else if (sv_eq(req->path, SV("/docs")) || sv_starts_with(req->path, SV("/docs/")) ||
               sv_eq(req->path, SV(OPENAPI_PATH))) {
        if (is_authorized(g, req, resp)) routes_docs(g, req, resp);
    } else {
        refuse(
            req, resp, STATUS_NOT_FOUND,
            "no such path: /docs, /openapi.json, /healthz, /metrics, /function/NAME, /async-function/NAME, /system/…");
    }
}
