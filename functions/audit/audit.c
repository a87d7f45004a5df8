#include "functions/audit/audit.h"

#include "base/memory.h"
#include "functions/audit/answer.h"
#include "functions/audit/index.h"
#include "functions/audit/loki.h"
#include "functions/audit/records.h"
#include "functions/audit/seal.h"

#define API_PREFIX "/loki/api/v1/"

struct audit {
    struct journal *journal;
    struct seal *seal;
    struct audit_index index;
    struct loki loki;
};

static enum status start(const struct core_env *env, void **ret_state, struct error *err)
{
    struct audit *audit = mem_zalloc(1, sizeof(*audit));
    enum status s = seal_new(env->journal, env->dir, env->cluster, &audit->seal, err);
    if (s != STATUS_OK) {
        free(audit);
        return s;
    }
    audit->journal = env->journal;
    index_init(&audit->index);
    journal_follow(audit->journal, &audit->index.follower);
    loki_init(&audit->loki, audit->journal, &audit->index);
    *ret_state = audit;
    return STATUS_OK;
}

static enum status ready(void *state, struct error *err)
{
    struct audit *audit = state;
    return seal_start(audit->seal, err);
}

static void handle_ready(const struct http_req *req, struct http_resp *resp)
{
    if (sv_eq(req->method, SV("GET")) || sv_eq(req->method, SV("HEAD")))
        http_resp_set(resp, 200, SV("text/plain; charset=utf-8"), SV("ready\n"));
    else
        answer_error(resp, req->arena, 405, SV("GET only"));
}

static void handle(void *state, const struct http_req *req, struct http_resp *resp)
{
    struct audit *audit = state;
    if (sv_eq(req->path, SV("/ready")))
        handle_ready(req, resp);
    else if (sv_eq(req->path, SV("/records")))
        records_handle(audit->journal, req, resp);
    else if (sv_starts_with(req->path, SV(API_PREFIX)))
        loki_handle(&audit->loki, sv_sub(req->path, sizeof(API_PREFIX) - 1, req->path.len), req, resp);
    else
        answer_error(resp, req->arena, 404, SV("404 page not found"));
}

static void stop(void *state, int64_t deadline_ns)
{
    (void)deadline_ns;
    struct audit *audit = state;
    seal_free(audit->seal);
    journal_unfollow(audit->journal, &audit->index.follower);
    loki_release(&audit->loki);
    index_release(&audit->index);
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
