/* /system/secrets (contracts/openfaas.md §2.6), as `faas-cli secret` uses it: names go out, values only come
 * in. */
#include <openssl/evp.h>
#include <stdint.h>

#include "base/memory.h"
#include "gateway/function_secrets.h"
#include "gateway/routes.h"
#include "log/log.h"

/* One change or look, on a worker thread. */
struct secret_work {
    const char *dir;
    struct strview name, value;
    bool is_new;
    struct arena *arena;
    struct strview *names;
    size_t n_names;
    enum status status;
    struct error *err;
};

static void put_work(void *arg)
{
    struct secret_work *w = arg;
    w->status = function_secret_put(w->dir, w->name, w->value, w->is_new, w->err);
}

static void remove_work(void *arg)
{
    struct secret_work *w = arg;
    w->status = function_secret_remove(w->dir, w->name, w->err);
}

static void list_work(void *arg)
{
    struct secret_work *w = arg;
    w->status = function_secrets_list(w->dir, w->arena, &w->names, &w->n_names, w->err);
}

static void answer(const struct http_req *req, struct http_resp *resp, const struct secret_work *w,
                   const char *what)
{
    if (w->status != STATUS_OK) {
        route_answer_text(req, resp, status_to_http(w->status), w->err->message);
        return;
    }
    resp->status = 202; /* exactly 200 or 202: faas-cli takes 201 and 204 for failures */
    log_info("gateway", what, LOG_SV("secret", w->name));
}

/* A copy that we may wipe. rawValue (base64) is what a file held, byte for byte; value then is the same with
 * the white space around it cut off. */
static enum status read_value(const json_t *body, struct arena *a, struct strview *ret_value,
                              struct error *err)
{
    struct strview raw = json_get_text(body, "rawValue"), plain = json_get_text(body, "value");
    if (raw.len == 0) {
        *ret_value = arena_copy(a, plain);
        return STATUS_OK;
    }
    unsigned char *bytes = arena_alloc(a, raw.len / 4 * 3 + 1);
    int n = raw.len % 4 == 0 && raw.len <= INT32_MAX && sv_find(raw, '=') + 2 >= raw.len
                ? EVP_DecodeBlock(bytes, (const unsigned char *)raw.ptr, (int)raw.len)
                : -1;
    if (n < 0) return error_set(err, STATUS_INVALID_ARGUMENT, "rawValue is not base64");
    for (size_t i = raw.len; i > raw.len - 2 && raw.ptr[i - 1] == '='; i--)
        n--; /* EVP counts the padding as bytes */
    *ret_value = sv_n((const char *)bytes, (size_t)n);
    return STATUS_OK;
}

static void wipe(struct strview text)
{
    mem_wipe((char *)(uintptr_t)text.ptr, text.len);
}

static void put_secret(const struct http_req *req, const json_t *body, struct secret_work *w,
                       struct http_resp *resp)
{
    w->is_new = sv_eq(req->method, SV("POST"));
    w->status = read_value(body, req->arena, &w->value, w->err);
    if (w->status == STATUS_OK) work_run(put_work, w);
    wipe(w->value);
    answer(req, resp, w,
           w->is_new ? "secret created" : "secret changed: functions have it at their next start");
}

static void change(const struct gateway *g, const struct http_req *req, json_t *body, struct http_resp *resp)
{
    struct error err;
    struct secret_work w = {.dir = g->cfg.dir, .name = json_get_text(body, "name"), .err = &err};
    bool is_ours = route_is_our_namespace(req, body), is_post = sv_eq(req->method, SV("POST"));
    if (!json_is_object(body))
        route_answer_text(req, resp, 400, "the body must be a Secret object: name, value");
    else if (!is_ours)
        route_answer_text(req, resp, is_post ? 400 : 404,
                          "no such namespace: there is one, " FUNCTION_NAMESPACE);
    else if (!sv_eq(req->method, SV("DELETE")))
        put_secret(req, body, &w, resp);
    else {
        work_run(remove_work, &w);
        answer(req, resp, &w, "secret removed");
    }
    wipe(json_get_text(body, "value"));
    wipe(json_get_text(body, "rawValue"));
}

static void list_secrets(const struct gateway *g, const struct http_req *req, struct http_resp *resp)
{
    struct error err;
    struct secret_work w = {.dir = g->cfg.dir, .arena = req->arena, .status = STATUS_OK, .err = &err};
    if (route_is_our_namespace(req, NULL)) work_run(list_work, &w);
    if (w.status != STATUS_OK) {
        route_answer_error(req, resp, &err);
        return;
    }
    json_t *list = json_array();
    for (size_t i = 0; i < w.n_names; i++)
        (void)json_array_append_new(
            list, json_pack("{s:o, s:s}", "name", json_text(w.names[i]), "namespace", FUNCTION_NAMESPACE));
    route_answer_json(req, resp, 200, list);
}

void routes_secrets(struct gateway *g, const struct http_req *req, struct http_resp *resp)
{
    json_t *body = NULL;
    if (sv_eq(req->method, SV("GET"))) {
        list_secrets(g, req, resp);
        return;
    }
    if (!sv_eq(req->method, SV("POST")) && !sv_eq(req->method, SV("PUT")) &&
        !sv_eq(req->method, SV("DELETE"))) {
        route_refuse_method(req, resp, "GET, POST, PUT, DELETE");
        return;
    }
    if (route_read_body(g, req, resp, &body)) change(g, req, body, resp);
    wipe(req->body); /* our own copy of it */
    json_release(body);
}
