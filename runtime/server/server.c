#include "server/server.h"

#include <assert.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "server/server_impl.h"

/* Half of the descriptors at most: what serves the connections needs some of its own. */
static unsigned cap_connections(unsigned wanted)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur / 2 >= wanted) return wanted;
    return limit.rlim_cur >= 2 ? (unsigned)(limit.rlim_cur / 2) : 1;
}

static void copy_cfg(struct server *s, const struct server_cfg *cfg)
{
    s->cfg = *cfg;
    s->cfg.name = s->name = mem_copy_text(cfg->name != NULL ? cfg->name : "server");
    s->cfg.host = s->host = mem_copy_text(cfg->host);
    s->cfg.unix_path = s->unix_path = mem_copy_text(cfg->unix_path);
    if (s->cfg.max_body_bytes == 0) s->cfg.max_body_bytes = SERVER_BODY_MAX_BYTES;
    if (s->cfg.max_connections == 0) s->cfg.max_connections = SERVER_CONNECTIONS_MAX;
    s->cfg.max_connections = cap_connections(s->cfg.max_connections);
    s->held_max_bytes = SERVER_HELD_MAX_BYTES;
    s->input_max_bytes = SERVER_INPUT_MAX_BYTES;
    if (s->cfg.request_timeout_ns == 0) s->cfg.request_timeout_ns = SERVER_REQUEST_TIMEOUT_NS;
    if (s->cfg.write_timeout_ns == 0) s->cfg.write_timeout_ns = SERVER_WRITE_TIMEOUT_NS;
}

static void h2o_setup(struct server *s)
{
    uint64_t timeout_ms = (uint64_t)((s->cfg.request_timeout_ns + NS_PER_MS - 1) / NS_PER_MS);
    h2o_config_init(&s->config);
    s->config.server_name = h2o_iovec_init(NULL, 0);
    s->config.max_request_entity_size = s->cfg.max_body_bytes;
    s->config.http1.req_timeout = timeout_ms;
    s->config.http1.upgrade_to_http2 = s->cfg.http2;
    s->config.http2.idle_timeout = timeout_ms;
    h2o_hostconf_t *host = h2o_config_register_host(&s->config, h2o_iovec_init(H2O_STRLIT("default")), 65535);
    h2o_pathconf_t *path = &host->fallback_path; /* where h2o's own refusals are sent from as well */
    /* Out with h2o's chunked filter: server_stream.c says why. */
    for (size_t i = 0; i < path->filters.size; i++)
        free(path->filters.entries[i]);
    path->filters.size = 0;
    struct server_filter *filter = (struct server_filter *)(void *)h2o_create_filter(path, sizeof(*filter));
    filter->super.on_setup_ostream = on_answer_setup;
    filter->server = s;
    struct server_handler *handler =
        (struct server_handler *)(void *)h2o_create_handler(path, sizeof(*handler));
    handler->super.on_req = on_request;
    handler->server = s;
    h2o_context_init(&s->ctx, loop_h2o(s->loop), &s->config);
    s->accept.ctx = &s->ctx;
    s->accept.hosts = s->config.hosts;
}

static void h2o_teardown(struct server *s)
{
    h2o_timeout_unlink(&s->ctx.http2._graceful_shutdown_timeout);
    h2o_multithread_queue_t *queue = s->ctx.queue;
    h2o_context_dispose(&s->ctx);
    free(queue); /* 2.2.5 closes it but forgets the struct */
    h2o_config_dispose(&s->config);
}

/* ---- TLS ---- */

static void on_tls_renewed(void *arg)
{
    struct server *s = arg;
    s->accept.ssl_ctx = tls_pair_ctx(s->tls);
    if (s->cfg.on_tls_renewed != NULL) s->cfg.on_tls_renewed(s->cfg.arg);
}

static enum status tls_start(struct server *s, struct error *err)
{
    const struct tls_pair_cfg cfg = {.cert_file = s->cfg.tls_cert_file,
                                     .key_file = s->cfg.tls_key_file,
                                     .on_renewed = on_tls_renewed,
                                     .arg = s,
                                     .logger = "server"};
    if (cfg.cert_file == NULL && cfg.key_file == NULL) return STATUS_OK;
    if (cfg.cert_file == NULL || cfg.key_file == NULL || s->cfg.http2)
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "server '%s': TLS needs certificate and key, and is HTTP/1.1 only", s->cfg.name);
    enum status st = tls_pair_new(s->loop, &cfg, &s->tls, err);
    if (st == STATUS_OK) s->accept.ssl_ctx = tls_pair_ctx(s->tls);
    return st;
}

const char *server_tls_pin(const struct server *s)
{
    return s->tls != NULL ? tls_pair_pin(s->tls) : NULL;
}

/* ---- start ---- */

enum status server_start(struct loop *l, const struct server_cfg *cfg, struct server **ret_server,
                         struct error *err)
{
    assert(cfg->handler != NULL && server_chunks_are_ours());
    server_place_bodies();
    struct server *s = mem_zalloc(1, sizeof(*s));
    s->loop = l;
    copy_cfg(s, cfg);
    list_init(&s->conns);
    list_init(&s->exchanges);
    list_init(&s->idle_exchanges);
    for (unsigned i = 0; i < SERVER_PEER_BUCKETS; i++)
        list_init(&s->peers[i]);
    fiber_scope_init(&s->scope);
    fiber_event_init(&s->quiet);
    s->quiet.is_set = true;
    h2o_setup(s);
    enum status st = tls_start(s, err);
    if (st == STATUS_OK) st = server_listen(s, err);
    if (st != STATUS_OK) {
        server_free(s);
        return st;
    }
    server_accept_start(s);
    *ret_server = s;
    return STATUS_OK;
}

uint16_t server_port(const struct server *s)
{
    return s->port;
}

unsigned server_inflight(const struct server *s)
{
    return s->inflight;
}

unsigned server_connections(const struct server *s)
{
    return s->n_conns;
}

void server_notice_quiet(struct server *s)
{
    if (s->n_conns == 0 && s->inflight == 0) fiber_event_set(&s->quiet);
}

static void for_each_conn(struct server *s, void (*fn)(struct server_conn *c))
{
    struct list *next;
    for (struct list *node = s->conns.next; node != &s->conns; node = next) {
        next = node->next;
        fn(container_of(node, struct server_conn, node));
    }
}

static void drain_begin(struct server *s)
{
    if (s->is_draining) return;
    s->is_draining = true;
    server_listen_close(s);
    h2o_context_request_shutdown(&s->ctx); /* later answers say connection: close; HTTP/2 gets its GOAWAY */
    for_each_conn(s, conn_close_if_idle);
}

enum status server_drain(struct server *s, int64_t deadline_ns)
{
    drain_begin(s);
    enum status st = fiber_event_wait(&s->quiet, deadline_ns);
    if (st != STATUS_OK) fiber_scope_cancel(&s->scope);
    return st;
}

void server_free(struct server *s)
{
    if (s == NULL) return;
    server_listen_close(s);
    fiber_scope_cancel(&s->scope);
    if (s->n_conns > 0 || s->scope.alive > 0) {
        s->is_draining = true;
        for_each_conn(s, conn_cut);
        /* Shielded: h2o closes what was cut within a turn, and a handler that was cancelled leaves at its
         * next wait. */
        fiber_shield_begin();
        (void)!fiber_event_wait(&s->quiet, 0);
        fiber_scope_join(&s->scope);
        fiber_shield_end();
    }
    assert(list_is_empty(&s->exchanges));
    server_sweep_stop(s);
    exchange_free_idle(s);
    h2o_teardown(s);
    tls_pair_free(s->tls);
    free(s->name);
    free(s->host);
    free(s->unix_path);
    free(s);
}
