/* OpenFaaS's provider API (contracts/openfaas.md §2): functions, scale, info, namespaces. Plain-text
 * errors, as its clients print them. */
#include "gateway/gateway_impl.h"

#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/clock.h"
#include "base/version.h"
#include "gateway/deployed.h"
#include "gateway/function_secrets.h"
#include "gateway/routes.h"

#define ACTOR_MAX 200

void route_answer_text(const struct http_req *req, struct http_resp *resp, int status, const char *sentence)
{
    http_resp_set(resp, status, SV("text/plain; charset=utf-8"), arena_printf(req->arena, "%s\n", sentence));
}

void route_answer_json(const struct http_req *req, struct http_resp *resp, int status, json_t *value)
{
    http_resp_set(resp, status, SV("application/json"), json_canonical(req->arena, value));
    json_release(value);
}

void route_answer_error(const struct http_req *req, struct http_resp *resp, const struct error *err)
{
    int status = status_to_http(err->code);
    if (err->code == STATUS_NOT_FOUND && !sv_eq(req->method, SV("GET")))
        status = 400; /* an image without executable; a missing function is said before */
    if (err->code == STATUS_FAILED_PRECONDITION) status = 400;
    if (err->code == STATUS_RESOURCE_EXHAUSTED) status = 429; /* so many of whoever asks, not of ours */
    route_answer_text(req, resp, status, err->message);
}

void route_refuse_method(const struct http_req *req, struct http_resp *resp, const char *allowed)
{
    route_answer_text(req, resp, 405, allowed);
    http_resp_header(resp, SV("allow"), sv(allowed));
}

bool route_is_reading(const struct http_req *req)
{
    return sv_eq(req->method, SV("GET")) || sv_eq(req->method, SV("HEAD"));
}

/* ---- functions ---- */

static json_t *text_list(const struct strview *items, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        (void)json_array_append_new(list, json_text(items[i]));
    return list;
}

static json_t *map_or_empty(json_t *map)
{
    return map != NULL ? json_deep_copy(map) : json_object();
}

static void add_missing_secrets(const struct deployment *d, json_t *o)
{
    struct arena a = {0};
    struct strview *names;
    size_t n = function_secrets_missing(d, &a, &names);
    if (n > 0) (void)json_object_set_new(o, "missingSecrets", text_list(names, n));
    arena_release(&a);
}

/* What was not given is left out: clients print an empty one. */
static void add_as_given(const struct deployment *d, json_t *o)
{
    const struct deployment_spec *spec = &d->spec;
    if (spec->process.len > 0) (void)json_object_set_new(o, "envProcess", json_text(spec->process));
    if (json_object_size(spec->limits) > 0)
        (void)json_object_set_new(o, "limits", json_deep_copy(spec->limits));
    if (json_object_size(spec->requests) > 0)
        (void)json_object_set_new(o, "requests", json_deep_copy(spec->requests));
    if (json_array_size(spec->constraints) > 0)
        (void)json_object_set_new(o, "constraints", json_deep_copy(spec->constraints));
    if (spec->is_read_only) (void)json_object_set_new(o, "readOnlyRootFilesystem", json_true());
}

static json_t *function_status(const struct deployment *d)
{
    char created[RFC3339_LEN + 1];
    rfc3339_format(d->created_unix_ns, created);
    unsigned n = deployment_replicas(d);
    json_t *o =
        json_pack("{s:o, s:o, s:s, s:I, s:i, s:i, s:s, s:o, s:o, s:o, s:o}", "name", json_text(d->spec.name),
                  "image", json_text(d->spec.image), "namespace", FUNCTION_NAMESPACE, "invocationCount",
                  (json_int_t)d->invocations, "replicas", (int)(n > d->wanted ? n : d->wanted),
                  "availableReplicas", (int)deployment_ready_replicas(d), "createdAt", created, "labels",
                  map_or_empty(d->spec.labels), "annotations", map_or_empty(d->spec.annotations), "envVars",
                  map_or_empty(d->spec.env), "secrets", text_list(d->spec.secrets, d->spec.n_secrets));
    add_as_given(d, o);
    (void)json_object_set_new(o, "acts", json_boolean(d->info.acts));
    if (d->warnings.n > 0)
        (void)json_object_set_new(o, "warnings", text_list(d->warnings.items, d->warnings.n));
    add_missing_secrets(d, o);
    return o;
}

bool route_is_our_namespace(const struct http_req *req, const json_t *body)
{
    struct strview name = json_get_text(body, "namespace");
    if (name.len == 0 && !http_query_get(req, SV("namespace"), &name)) return true;
    return name.len == 0 || sv_eq(name, SV(FUNCTION_NAMESPACE));
}

static void list_functions(struct gateway *g, const struct http_req *req, struct http_resp *resp)
{
    json_t *list = json_array();
    bool is_ours = route_is_our_namespace(req, NULL);
    for (struct list *n = g->deployments.next; is_ours && n != &g->deployments; n = n->next)
        (void)json_array_append_new(list, function_status(container_of(n, struct deployment, node)));
    route_answer_json(req, resp, 200, list);
}

static enum status refuse_existing(struct strview name, struct error *err)
{
    return error_set(err, STATUS_ALREADY_EXISTS, "function %.*s already exists", SV_ARG(name));
}

/* Stored before it takes over: what was acknowledged is there after a restart. Somebody else may have created
 * or removed it while this one was tried. */
static enum status store_and_commit(struct deployment *d, const json_t *body, bool is_update,
                                    struct error *err)
{
    struct gateway *g = d->gateway;
    enum status s = deployed_change_begin(g, err);
    if (s != STATUS_OK) return s;
    bool exists = supervisor_find(g, d->spec.name) != NULL;
    if (!is_update && exists)
        s = refuse_existing(d->spec.name, err);
    else if (is_update && !exists)
        s = error_set(err, STATUS_ABORTED, "function %.*s was removed meanwhile", SV_ARG(d->spec.name));
    else if (!exists && g->n_deployments >= DEPLOYMENTS_MAX)
        s = error_set(err, STATUS_RESOURCE_EXHAUSTED, "%d functions are deployed", DEPLOYMENTS_MAX);
    if (s == STATUS_OK) s = deployed_store(g, d->spec.name, body, err);
    if (s == STATUS_OK) supervisor_commit(d);
    deployed_change_end(g);
    return s;
}

/* Whoever deploys wants to hear now whether it starts; and `faas-cli ready` waits for a replica. */
static enum status deploy(struct gateway *g, const struct deployment_spec *spec, const json_t *body,
                          bool is_update, struct error *err)
{
    struct deployment *d;
    enum status s = deployment_prepare(g, spec, &d, err);
    if (s != STATUS_OK) return s;
    d->users++;
    s = supervisor_try(d, err);
    if (s == STATUS_OK) s = store_and_commit(d, body, is_update, err);
    d->users--;
    if (s != STATUS_OK) supervisor_discard(d);
    return s;
}

static void deploy_function(struct gateway *g, const struct http_req *req, const json_t *body,
                            struct http_resp *resp)
{
    struct deployment_spec spec;
    struct error err;
    bool is_update = sv_eq(req->method, SV("PUT"));
    enum status s = deployed_parse(body, req->arena, &spec, &err);
    if (s == STATUS_OK) {
        bool exists = supervisor_find(g, spec.name) != NULL;
        if (is_update && !exists) { /* exactly 404: on it faas-cli turns to POST */
            route_answer_text(req, resp, 404, "no such function");
            return;
        }
        if (!is_update && exists) s = refuse_existing(spec.name, &err);
    }
    if (s == STATUS_OK) s = deploy(g, &spec, body, is_update, &err);
    if (s == STATUS_ABORTED)
        route_answer_text(req, resp, 404, err.message); /* the same */
    else if (s != STATUS_OK)
        route_answer_error(req, resp, &err);
    else
        resp->status = 202;
}

/* Forgotten before it goes: what was acknowledged does not come back at the next start, and what could not be
 * forgotten is still there. */
static enum status forget_and_remove(struct gateway *g, struct strview name, struct error *err)
{
    enum status s = deployed_change_begin(g, err);
    if (s != STATUS_OK) return s;
    s = deployed_forget(g, name, err);
    if (s == STATUS_OK) s = supervisor_remove(g, name, err);
    deployed_change_end(g);
    return s;
}

static void remove_function(struct gateway *g, const struct http_req *req, const json_t *body,
                            struct http_resp *resp)
{
    struct error err;
    struct strview name = json_get_text(body, "functionName");
    if (name.len == 0) {
        route_answer_text(req, resp, 400, "functionName is required");
        return;
    }
    const struct deployment *d = route_is_our_namespace(req, body) ? supervisor_find(g, name) : NULL;
    if (d == NULL) {
        route_answer_text(req, resp, 404, "no such function");
        return;
    }
    name = arena_copy(req->arena, d->spec.name); /* as it is stored: without a namespace */
    if (forget_and_remove(g, name, &err) != STATUS_OK)
        route_answer_error(req, resp, &err);
    else
        resp->status = 202;
}

bool route_read_body(const struct gateway *g, const struct http_req *req, struct http_resp *resp,
                     json_t **ret_body)
{
    struct error err;
    struct strview type = http_req_header(req, SV("content-type"));
    if (!sv_eq_nocase(sv_trim(sv_sub(type, 0, sv_find(type, ';'))), SV("application/json"))) {
        route_answer_text(req, resp, g->cfg.is_insecure ? 403 : 415, "Content-Type must be application/json");
        return false;
    }
    if (json_parse(req->body, 0, ret_body, &err) == STATUS_OK) return true;
    route_answer_text(req, resp, 400, err.message);
    return false;
}

static void handle_functions(struct gateway *g, const struct http_req *req, struct http_resp *resp)
{
    if (sv_eq(req->method, SV("GET"))) {
        list_functions(g, req, resp);
        return;
    }
    bool is_delete = sv_eq(req->method, SV("DELETE"));
    if (!is_delete && !sv_eq(req->method, SV("POST")) && !sv_eq(req->method, SV("PUT"))) {
        route_refuse_method(req, resp, "GET, POST, PUT, DELETE");
        return;
    }
    json_t *body = NULL;
    if (!route_read_body(g, req, resp, &body)) return;
    if (is_delete)
        remove_function(g, req, body, resp);
    else
        deploy_function(g, req, body, resp);
    json_release(body);
}

static void handle_function(struct gateway *g, const struct http_req *req, struct strview name,
                            struct http_resp *resp)
{
    const struct deployment *d = route_is_our_namespace(req, NULL) ? supervisor_find(g, name) : NULL;
    if (d == NULL)
        route_answer_text(req, resp, 404, "no such function");
    else
        route_answer_json(req, resp, 200, function_status(d));
}

/* ScaleServiceRequest; its serviceName may be missing, but not be another one. */
static enum status check_scale(const json_t *body, struct strview name, unsigned *ret_n, struct error *err)
{
    const json_t *replicas = json_object_get(body, "replicas"),
                 *service = json_object_get(body, "serviceName");
    struct strview other = supervisor_bare_name(json_get_text(body, "serviceName"));
    if (service != NULL && !json_is_null(service) && !sv_eq(other, supervisor_bare_name(name)))
        return error_set(err, STATUS_INVALID_ARGUMENT, "serviceName is not the function in the path");
    if (!json_is_integer(replicas) || json_integer_value(replicas) < 0 ||
        json_integer_value(replicas) > SCALING_REPLICAS_MAX)
        return error_set(err, STATUS_INVALID_ARGUMENT, "replicas: a whole number from 0 to %d",
                         SCALING_REPLICAS_MAX);
    *ret_n = (unsigned)json_integer_value(replicas);
    return STATUS_OK;
}

static enum status check_bounds(const struct scaling_policy *p, unsigned n, struct error *err)
{
    if (n < p->floor || (p->has_max && n > p->max))
        return error_set(err, STATUS_INVALID_ARGUMENT, "replicas: its labels allow %u to %u", p->floor,
                         p->has_max ? p->max : SCALING_REPLICAS_MAX);
    return STATUS_OK;
}

/* Stored before it is done: what was acknowledged is so after a restart. */
static enum status store_and_scale(struct deployment *d, unsigned n, struct error *err)
{
    struct gateway *g = d->gateway;
    enum status s = check_bounds(&d->scale, n, err);
    if (s == STATUS_OK) s = deployed_change_begin(g, err);
    if (s != STATUS_OK) return s;
    d->users++;
    s = deployed_store_scale(g, d->spec.name, n, err);
    struct deployment *now = supervisor_find(g, d->spec.name); /* it may have been replaced meanwhile */
    if (s == STATUS_OK && now != NULL) s = supervisor_scale(now, n, err);
    d->users--;
    deployed_change_end(g);
    return s;
}

static void handle_scale(struct gateway *g, const struct http_req *req, struct strview name,
                         struct http_resp *resp)
{
    json_t *body = NULL;
    struct error err;
    unsigned n = 0;
    if (!route_read_body(g, req, resp, &body)) return;
    enum status s = check_scale(body, name, &n, &err);
    struct deployment *d = route_is_our_namespace(req, body) ? supervisor_find(g, name) : NULL;
    json_release(body);
    if (d == NULL)
        route_answer_text(req, resp, 404, "no such function");
    else if (s != STATUS_OK || store_and_scale(d, n, &err) != STATUS_OK)
        route_answer_error(req, resp, &err);
    else
        resp->status = 202;
}

/* ---- the rest ---- */

/* By what functions are held to their limits: the version of control groups; 0: none. */
static json_t *active_limits(const struct gateway *g)
{
    return json_pack("{s:i, s:i}", "memoryCgroup", g->groups.of[CGROUP_MEMORY].version, "cpuCgroup",
                     g->groups.of[CGROUP_CPU].version);
}

static void handle_info(const struct gateway *g, const struct http_req *req, struct http_resp *resp)
{
    struct utsname host;
    (void)uname(&host);
    const char *arch = strcmp(host.machine, "aarch64") == 0  ? "arm64"
                       : strcmp(host.machine, "x86_64") == 0 ? "x86_64"
                                                             : host.machine;
    route_answer_json(req, resp, 200,
                      json_pack("{s:s, s:o, s:o, s:{s:s, s:s, s:{s:s, s:s}}, s:{s:s, s:s}}", "arch", arch,
                                "isolation", isolation_json(&g->isolation), "limits", active_limits(g),
                                "provider", "orchestration", "balm", "provider", "balm", "version", "release",
                                BALM_VERSION, "sha", "", "version", "release", BALM_VERSION, "sha", ""));
}

static void handle_reload(struct gateway *g, const struct http_req *req, struct http_resp *resp)
{
    struct error err;
    json_t *body = NULL;
    struct reload_cause cause = {.actor = SV("API")}; /* the body may say who, and need not be there */
    if (json_parse(req->body, 0, &body, NULL) == STATUS_OK && json_get_text(body, "actor").len > 0)
        cause.actor = sv_sub(json_get_text(body, "actor"), 0, ACTOR_MAX);
    if (gateway_reload(g, &cause, &err) == STATUS_OK)
        route_answer_json(req, resp, 200, json_pack("{s:b}", "reloaded", 1));
    else
        http_resp_error(resp, req->arena, &err);
    json_release(body);
}

/* There is one, and it can only be looked at. */
static void handle_namespace(const struct http_req *req, struct strview name, struct http_resp *resp)
{
    if (!sv_eq(req->method, SV("GET")))
        route_answer_text(req, resp, 501,
                          "balm has one namespace, " FUNCTION_NAMESPACE
                          ": none can be made, changed or removed");
    else if (sv_eq(name, SV(FUNCTION_NAMESPACE)))
        route_answer_json(
            req, resp, 200,
            json_pack("{s:s, s:{}, s:{}}", "name", FUNCTION_NAMESPACE, "labels", "annotations"));
    else
        route_answer_text(req, resp, 404, "no such namespace: there is one, " FUNCTION_NAMESPACE);
}

static bool takes(const struct http_req *req, struct http_resp *resp, const char *method)
{
    if (sv_eq(req->method, sv(method))) return true;
    route_refuse_method(req, resp, method);
    return false;
}

void routes_system(struct gateway *g, const struct http_req *req, struct http_resp *resp)
{
    struct strview path = sv_sub(req->path, sizeof("/system/") - 1, req->path.len);
    struct strview rest = path, first;
    (void)sv_next(&rest, '/', &first);
    if (sv_eq(path, SV("functions"))) {
        handle_functions(g, req, resp);
    } else if (sv_eq(first, SV("function")) && rest.len > 0) {
        if (takes(req, resp, "GET")) handle_function(g, req, rest, resp);
    } else if (sv_eq(first, SV("scale-function")) && rest.len > 0) {
        if (takes(req, resp, "POST")) handle_scale(g, req, rest, resp);
    } else if (sv_eq(first, SV("check-function")) && rest.len > 0) {
        if (takes(req, resp, "POST")) routes_check(g, req, rest, resp);
    } else if (sv_eq(path, SV("logs"))) {
        if (takes(req, resp, "GET")) routes_logs(g, req, resp);
    } else if (sv_eq(path, SV("info"))) {
        if (takes(req, resp, "GET")) handle_info(g, req, resp);
    } else if (sv_eq(path, SV("namespaces"))) {
        if (takes(req, resp, "GET")) route_answer_json(req, resp, 200, json_pack("[s]", FUNCTION_NAMESPACE));
    } else if (sv_eq(path, SV("reload"))) {
        if (takes(req, resp, "POST")) handle_reload(g, req, resp);
    } else if (sv_eq(path, SV("secrets"))) {
        routes_secrets(g, req, resp);
    } else if (sv_eq(first, SV("namespace"))) {
        handle_namespace(req, rest, resp);
    } else {
        route_answer_text(req, resp, 404, "no such path below /system/");
    }
}
