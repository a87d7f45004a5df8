/* API keys at the way in (function/api_key.h). */
#include "base/clock.h"
#include "function/api_key.h"
#include "gateway/gateway_impl.h"
#include "log/log.h"

#define COMPLAIN_PACE_NS (60 * NS_PER_S)

/* A caller is not told what our secrets look like, and one who comes often does not fill the log. */
static void refuse_all(struct deployment *d, const struct http_req *req, const struct error *err,
                       struct http_resp *resp)
{
    if (d->key_complained_ns == 0 || req->received_ns - d->key_complained_ns >= COMPLAIN_PACE_NS) {
        d->key_complained_ns = req->received_ns;
        log_warn("gateway", "nobody can be let in: faas-cli secret create makes its API keys",
                 LOG_SV("function", d->spec.name), LOG_STR("error", err->message));
    }
    api_key_refuse(req, d->spec.name, err->code, resp);
}

static enum status check(const struct deployment *d, const struct http_req *req, struct strview given,
                         struct error *err)
{
    const char *folder = arena_printf(req->arena, "%s/secrets/functions", d->gateway->cfg.dir).ptr;
    const char *secret = arena_cstr(req->arena, d->info.api_key_secret);
    enum status s = secret_file_check(arena_printf(req->arena, "%s/%s", folder, secret).ptr, err);
    if (s != STATUS_OK) return error_prefix(err, err->code = STATUS_UNAVAILABLE, "API keys");
    return api_key_check(folder, secret, given, err);
}

/* A key cannot be guessed, being long (API_KEY_LEN_MIN): the limit slows down those who try, and shuts out
 * none who has one. */
bool gateway_has_api_key(struct deployment *d, const struct http_req *req, struct http_resp *resp)
{
    struct gateway *g = d->gateway;
    struct strview given = http_req_header(req, SV(API_KEY_HEADER));
    struct error err;
    if (d->info.api_key_secret.len == 0) return true;
    enum status s =
        given.len > 0 ? check(d, req, given, &err) : error_set(&err, STATUS_UNAUTHENTICATED, "no API key");
    if (s == STATUS_OK) return true;
    if (s != STATUS_UNAUTHENTICATED) {
        refuse_all(d, req, &err, resp);
        return false;
    }
    unsigned wait_s = given.len > 0 ? login_limit_wait_s(g->logins, req->peer, req->received_ns) : 0;
    if (given.len == 0)
        gateway_count_refused_login(SV("missing"));
    else
        gateway_refuse_wrong(g, req, given, wait_s, resp);
    if (wait_s == 0) api_key_refuse(req, d->spec.name, s, resp);
    return false;
}
