/* API keys at a function's own door (function/api_key.h). */
#include "base/clock.h"
#include "function/api_key.h"
#include "function/function_impl.h"

#define COMPLAIN_PACE_NS (60 * NS_PER_S)

static void complain(struct function *f, int64_t now_ns, const struct error *err)
{
    if (f->key_complained_ns != 0 && now_ns - f->key_complained_ns < COMPLAIN_PACE_NS) return;
    f->key_complained_ns = now_ns;
    log_warn("function", "nobody can be let in: there are no API keys", LOG_STR("function", f->def->name),
             LOG_STR("error", err->message));
}

bool function_take_key(struct function *f, struct invocation *inv, struct http_resp *resp)
{
    const struct http_req *req = inv->req;
    struct error err;
    if (f->def->api_key_secret == NULL) return true;
    enum status s = api_key_check_own(f->def->api_key_secret, http_req_header(req, SV(API_KEY_HEADER)), &err);
    if (s != STATUS_OK) {
        if (s == STATUS_UNAVAILABLE) complain(f, req->received_ns, &err);
        api_key_refuse(req, inv->function, s, resp);
        return false;
    }
    struct http_req *without = arena_alloc(inv->arena, sizeof(*without));
    *without = *req;
    without->headers = api_key_replace(req, sv(NULL), &without->n_headers);
    inv->req = without;
    return true;
}
