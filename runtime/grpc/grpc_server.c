#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "grpc/grpc_impl.h"

/* Between the two GOAWAYs: calls that were on their way when the first went out are served. */
#define NOTICE_MS 100

/* ---- methods ---- */

const struct grpc_method *server_find_method(const struct grpc_server *s, struct strview path,
                                             const struct grpc_service **ret_service)
{
    for (size_t i = 0; i < s->n_services; i++) {
        const struct grpc_service *service = s->services[i];
        for (size_t k = 0; k < service->n_methods; k++) {
            if (!sv_eq(sv(service->methods[k].path), path)) continue;
            *ret_service = service;
            return &service->methods[k];
        }
    }
    return NULL;
}

/* ---- start ---- */

static void copy_cfg(struct grpc_server *s, const struct grpc_cfg *cfg)
{
    s->cfg = *cfg;
    s->cfg.host = s->host = mem_copy_text(cfg->host);
    s->cfg.name = s->name = mem_copy_text(cfg->name != NULL ? cfg->name : "grpc");
    if (s->cfg.max_message_bytes == 0) s->cfg.max_message_bytes = GRPC_MESSAGE_MAX_BYTES;
    if (s->cfg.max_streams == 0) s->cfg.max_streams = GRPC_STREAMS_MAX;
    if (s->cfg.max_connections == 0) s->cfg.max_connections = GRPC_CONNECTIONS_MAX;
    if (s->cfg.call_timeout_ns == 0) s->cfg.call_timeout_ns = GRPC_CALL_TIMEOUT_NS;
}

static void copy_services(struct grpc_server *s, const struct grpc_cfg *cfg)
{
    static const struct grpc_service *const own[] = {&grpc_health_service, &grpc_reflection_service,
                                                     &grpc_reflection_alpha_service};
    s->services = mem_zalloc(cfg->n_services + ARRAY_LEN(own), sizeof(struct grpc_service *));
    for (size_t i = 0; i < cfg->n_services; i++)
        s->services[s->n_services++] = cfg->services[i];
    for (size_t i = 0; i < ARRAY_LEN(own); i++)
        s->services[s->n_services++] = own[i];
}

static enum status tls_start(struct grpc_server *s, const struct grpc_cfg *cfg, struct error *err)
{
    const struct tls_pair_cfg pair = {.cert_file = cfg->tls_cert_file,
                                      .key_file = cfg->tls_key_file,
                                      .client_ca_file = cfg->tls_client_ca_file,
                                      .is_h2 = true,
                                      .logger = "grpc"};
    if (pair.cert_file == NULL && pair.key_file == NULL && pair.client_ca_file == NULL) return STATUS_OK;
    if (pair.cert_file == NULL || pair.key_file == NULL)
        return error_set(err, STATUS_INVALID_ARGUMENT, "'%s': TLS needs certificate and key", s->cfg.name);
    return tls_pair_new(s->loop, &pair, &s->tls, err);
}

static void sweep_fiber(void *arg)
{
    struct grpc_server *s = arg;
    while (sleep_ms(GRPC_SWEEP_MS) == STATUS_OK) {
        conns_sweep(s, loop_now_ns(s->loop));
        health_notice(s);
    }
}

enum status grpc_server_start(struct loop *l, const struct grpc_cfg *cfg, struct grpc_server **ret_server,
                              struct error *err)
{
    struct grpc_server *s = mem_zalloc(1, sizeof(*s));
    s->loop = l;
    s->is_serving = true;
    list_init(&s->conns);
    list_init(&s->idle_calls);
    list_init(&s->ready_calls);
    fiber_scope_init(&s->scope);
    fiber_scope_init(&s->upkeep);
    fiber_event_init(&s->quiet);
    list_init(&s->health_watches);
    s->quiet.is_set = true;
    copy_cfg(s, cfg);
    copy_services(s, cfg);
    enum status st = tls_start(s, cfg, err);
    if (st == STATUS_OK) st = grpc_token_start(s, cfg->token_file, err);
    if (st == STATUS_OK) st = fiber_scope_spawn(&s->upkeep, sweep_fiber, s, err);
    if (st == STATUS_OK) st = conns_listen(s, err);
    if (st != STATUS_OK) {
        grpc_server_free(s);
        return st;
    }
    *ret_server = s;
    return STATUS_OK;
}

uint16_t grpc_server_port(const struct grpc_server *s)
{
    return s->port;
}

void grpc_server_set_serving(struct grpc_server *s, bool is_serving)
{
    if (s->is_serving == is_serving) return;
    s->is_serving = is_serving;
    health_notice(s);
}

/* ---- the end ---- */

void grpc_notice_quiet(struct grpc_server *s)
{
    if (s->n_conns == 0 && s->n_running == 0) fiber_event_set(&s->quiet);
}

enum status grpc_server_drain(struct grpc_server *s, int64_t deadline_ns)
{
    conns_stop_listening(s);
    grpc_server_set_serving(s, false);
    conns_drain(s, false);
    if (s->n_conns > 0) (void)!sleep_ms(NOTICE_MS);
    s->is_draining = true;
    conns_drain(s, true);
    enum status st = fiber_event_wait(&s->quiet, deadline_ns);
    if (st != STATUS_OK) fiber_scope_cancel(&s->scope);
    return st;
}

void grpc_server_free(struct grpc_server *s)
{
    if (s == NULL) return;
    conns_stop_listening(s);
    s->is_draining = true;
    fiber_scope_cancel(&s->scope);
    fiber_scope_cancel(&s->upkeep);
    conns_cut(s);
    fiber_shield_begin();
    (void)!fiber_event_wait(&s->quiet, 0);
    fiber_scope_join(&s->scope);
    fiber_scope_join(&s->upkeep);
    fiber_shield_end();
    call_free_idle(s);
    tls_pair_free(s->tls);
    grpc_token_free(s->token);
    free(s->services);
    free(s->host);
    free(s->name);
    free(s);
}
