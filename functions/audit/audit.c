#include "functions/audit/audit.h"

#include "base/memory.h"
#include "functions/audit/seal.h"

struct audit {
    struct seal *seal;
};

static enum status start(const struct core_env *env, void **ret_state, struct error *err)
{
    struct audit *audit = mem_zalloc(1, sizeof(*audit));
    enum status s = seal_new(env->journal, env->dir, env->cluster, &audit->seal, err);
    if (s != STATUS_OK) {
        free(audit);
        return s;
    }
    *ret_state = audit;
    return STATUS_OK;
}

static enum status ready(void *state, struct error *err)
{
    struct audit *audit = state;
    return seal_start(audit->seal, err);
}

static void handle(void *state, const struct http_req *req, struct http_resp *resp)
{
    (void)state;
    if (!sv_eq(req->path, SV("/ready")))
        http_resp_set(resp, 404, SV("text/plain; charset=utf-8"), SV("404 page not found\n"));
    else if (!sv_eq(req->method, SV("GET")) && !sv_eq(req->method, SV("HEAD")))
        http_resp_set(resp, 405, SV("text/plain; charset=utf-8"), SV("GET only\n"));
    else
        http_resp_set(resp, 200, SV("text/plain; charset=utf-8"), SV("ready\n"));
}

static void stop(void *state)
{
    struct audit *audit = state;
    seal_free(audit->seal);
    free(audit);
}

const struct core_function audit_function = {
    .name = "audit",
    .summary = "seals the journal; answers Loki queries about it",
    .auth = CORE_BASIC,
    .open_path = "/ready",
    .start = start,
    .ready = ready,
    .handle = handle,
    .stop = stop,
};
