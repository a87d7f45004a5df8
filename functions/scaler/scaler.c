#include "functions/scaler/scaler.h"

#include <math.h>
#include <stdlib.h>

#include "base/memory.h"
#include "functions/scaler/externalscaler.descriptor.h"
#include "functions/scaler/externalscaler.pb-c.h"
#include "functions/scaler/trigger.h"
#include "functions/scaler/watches.h"
#include "grpc/message.h"
#include "log/log.h"
#include "store/journal.h"

#define SERVICE "externalscaler.ExternalScaler"
/* KEDA sets no deadline, and one call that hangs holds up all that it does for that ScaledObject. */
#define CALL_TIMEOUT_NS (500 * NS_PER_MS)
/* Work that becomes due by time alone has no record. */
#define LOOK_MS  1000
#define RETRY_MS 5000

struct scaler {
    struct core_env env;
    struct grpc_service service;
    struct grpc_server *server; /* NULL: --scaler-port 0, or the port is taken */
    struct journal_follower follower;
    struct watches watches;
    struct fiber_scope scope;
};

/* ---- what KEDA asks for ---- */

static enum status read_trigger(const Externalscaler__ScaledObjectRef *ref, struct arena *a,
                                struct trigger *ret_trigger, struct error *err)
{
    if (ref == NULL) return error_set(err, STATUS_INVALID_ARGUMENT, "no scaledObjectRef");
    struct trigger_pair *pairs = arena_array(a, ref->n_scalermetadata, sizeof(*pairs));
    for (size_t i = 0; i < ref->n_scalermetadata; i++)
        pairs[i] = (struct trigger_pair){sv(ref->scalermetadata[i]->key), sv(ref->scalermetadata[i]->value)};
    return trigger_read(pairs, ref->n_scalermetadata, a, ret_trigger, err);
}

static enum status receive_trigger(struct grpc_call *call, struct trigger *ret_trigger, struct error *err)
{
    ProtobufCMessage *message;
    enum status s = grpc_receive_message(call, &externalscaler__scaled_object_ref__descriptor, &message, err);
    if (s != STATUS_OK) return s;
    return read_trigger((const void *)message, grpc_call_arena(call), ret_trigger, err);
}

static struct core_backlog ask_backlog(const struct scaler *sc, struct strview function)
{
    return sc->env.backlog(sc->env.backlog_arg, function);
}

/* A store that cannot say makes KEDA take its fallback; a guess would make it scale. */
static enum status check_store(const struct scaler *sc, struct error *err)
{
    if (journal_is_healthy(sc->env.journal)) return STATUS_OK;
    return error_set(err, STATUS_UNAVAILABLE, "the store does not answer now");
}

static double value_of(const struct scaler *sc, const struct trigger *t, const struct trigger_spec *spec)
{
    struct core_backlog backlog = ask_backlog(sc, t->function);
    if (spec->metric == TRIGGER_DEPTH) return (double)backlog.n;
    int64_t age_ns = backlog.oldest_ns != 0 ? clock_elapsed_ns(backlog.oldest_ns, clock_unix_ns()) : 0;
    return backlog.n > 0 && age_ns > 0 ? (double)age_ns / (double)NS_PER_S : 0;
}

/* ---- the calls ---- */

static enum status is_active(void *arg, struct grpc_call *call, struct error *err)
{
    const struct scaler *sc = arg;
    struct trigger t;
    enum status s = receive_trigger(call, &t, err);
    if (s == STATUS_OK) s = check_store(sc, err);
    if (s != STATUS_OK) return s;
    Externalscaler__IsActiveResponse answer = EXTERNALSCALER__IS_ACTIVE_RESPONSE__INIT;
    answer.result = ask_backlog(sc, t.function).n > 0;
    return grpc_send_message(call, &answer.base, err);
}

static enum status stream_is_active(void *arg, struct grpc_call *call, struct error *err)
{
    struct scaler *sc = arg;
    struct trigger t;
    enum status s = receive_trigger(call, &t, err);
    return s == STATUS_OK ? watches_add(&sc->watches, t.function, call, err) : s;
}

/* From memory alone: where it fails KEDA has no fallback (KEDA #8056). */
static enum status send_specs(struct grpc_call *call, const struct trigger *t, struct error *err)
{
    Externalscaler__GetMetricSpecResponse answer = EXTERNALSCALER__GET_METRIC_SPEC_RESPONSE__INIT;
    Externalscaler__MetricSpec specs[TRIGGER_SPECS_MAX], *pointers[TRIGGER_SPECS_MAX];
    for (size_t i = 0; i < t->n_specs; i++) {
        externalscaler__metric_spec__init(&specs[i]);
        specs[i].metricname = arena_cstr(grpc_call_arena(call), t->specs[i].name);
        specs[i].targetsize = (int64_t)ceil(t->specs[i].target);
        specs[i].targetsizefloat = t->specs[i].target;
        pointers[i] = &specs[i];
    }
    answer.n_metricspecs = t->n_specs;
    answer.metricspecs = pointers;
    return grpc_send_message(call, &answer.base, err);
}

static enum status get_metric_spec(void *arg, struct grpc_call *call, struct error *err)
{
    (void)arg;
    struct trigger t;
    enum status s = receive_trigger(call, &t, err);
    return s == STATUS_OK ? send_specs(call, &t, err) : s;
}

static void on_specs_gone(void *arg)
{
    (void)arg;
}

/* They never change: told once, and the stream stays open until one side goes. */
static enum status stream_metric_spec(void *arg, struct grpc_call *call, struct error *err)
{
    enum status s = get_metric_spec(arg, call, err);
    if (s == STATUS_OK) grpc_call_detach(call, on_specs_gone, NULL);
    return s;
}

static enum status get_metrics(void *arg, struct grpc_call *call, struct error *err)
{
    const struct scaler *sc = arg;
    struct trigger t;
    ProtobufCMessage *message;
    enum status s =
        grpc_receive_message(call, &externalscaler__get_metrics_request__descriptor, &message, err);
    if (s != STATUS_OK) return s;
    const Externalscaler__GetMetricsRequest *request = (const void *)message;
    s = read_trigger(request->scaledobjectref, grpc_call_arena(call), &t, err);
    if (s == STATUS_OK) s = check_store(sc, err);
    if (s != STATUS_OK) return s;
    const struct trigger_spec *spec = trigger_find(&t, sv(request->metricname));
    if (spec == NULL) return error_set(err, STATUS_INVALID_ARGUMENT, "this trigger has no such metric");
    Externalscaler__MetricValue value = EXTERNALSCALER__METRIC_VALUE__INIT, *pointer = &value;
    value.metricname = request->metricname;
    value.metricvaluefloat = value_of(sc, &t, spec);
    value.metricvalue = (int64_t)ceil(value.metricvaluefloat);
    Externalscaler__GetMetricsResponse answer = EXTERNALSCALER__GET_METRICS_RESPONSE__INIT;
    answer.n_metricvalues = 1;
    answer.metricvalues = &pointer;
    return grpc_send_message(call, &answer.base, err);
}

static const struct grpc_method methods[] = {
    {"/" SERVICE "/IsActive", GRPC_UNARY, is_active},
    {"/" SERVICE "/StreamIsActive", GRPC_SERVER_STREAM, stream_is_active},
    {"/" SERVICE "/GetMetricSpec", GRPC_UNARY, get_metric_spec},
    {"/" SERVICE "/GetMetrics", GRPC_UNARY, get_metrics},
    {"/" SERVICE "/StreamMetricSpec", GRPC_SERVER_STREAM, stream_metric_spec},
};

/* ---- pushing ---- */

static void on_record(struct journal_follower *f, const struct journal_entry *e)
{
    struct scaler *sc = container_of(f, struct scaler, follower);
    if (e->record->kind == RECORD_INTENT || e->record->kind == RECORD_CALL)
        watches_notice(&sc->watches, e->record->function);
}

static uint64_t count_backlog(void *arg, struct strview function)
{
    return ask_backlog(arg, function).n;
}

static enum status listen_to_keda(struct scaler *sc, struct error *err)
{
    const struct grpc_service *const services[] = {&sc->service};
    const struct grpc_cfg cfg = {.host = sc->env.scaler.host,
                                 .port = sc->env.scaler.port,
                                 .listen_fd = -1,
                                 .services = services,
                                 .n_services = ARRAY_LEN(services),
                                 .tls_cert_file = sc->env.scaler.tls_cert_file,
                                 .tls_key_file = sc->env.scaler.tls_key_file,
                                 .tls_client_ca_file = sc->env.scaler.tls_client_ca_file,
                                 .token_file = sc->env.scaler.token_file,
                                 .call_timeout_ns = CALL_TIMEOUT_NS,
                                 .name = "scaler"};
    enum status s = grpc_server_start(sc->env.loop, &cfg, &sc->server, err);
    if (s != STATUS_OK) return error_prefix(err, s, "scaler");
    log_info("scaler", "KEDA can ask", LOG_INT("port", grpc_server_port(sc->server)));
    return STATUS_OK;
}

/* Healing must not wait for it. */
static enum status wait_for_port(struct scaler *sc)
{
    struct error err;
    bool was_told = false;
    while (sc->server == NULL) {
        enum status s = listen_to_keda(sc, &err);
        if (s == STATUS_OK) break;
        if (!was_told)
            log_warn("scaler", "KEDA cannot ask for now, trying again (--scaler-port 0: off)",
                     LOG_STR("reason", err.message));
        was_told = true;
        if (sleep_ms(RETRY_MS) == STATUS_CANCELLED) return STATUS_CANCELLED;
    }
    return STATUS_OK;
}

static void push_fiber(void *arg)
{
    struct scaler *sc = arg;
    int64_t look_ns = clock_monotonic_ns();
    if (wait_for_port(sc) != STATUS_OK) return;
    while (fiber_event_wait(&sc->watches.risen, look_ns) != STATUS_CANCELLED) {
        int64_t now_ns = clock_monotonic_ns();
        fiber_event_reset(&sc->watches.risen);
        watches_tell_due(&sc->watches, now_ns);
        if (now_ns < look_ns) continue;
        watches_look(&sc->watches, now_ns);
        look_ns = now_ns + LOOK_MS * NS_PER_MS;
    }
}

/* ---- life cycle ---- */

static enum status start(const struct core_env *env, void **ret_state, struct error *err)
{
    (void)err;
    struct scaler *sc = mem_zalloc(1, sizeof(*sc));
    sc->env = *env;
    sc->service = (struct grpc_service){
        .name = SERVICE,
        .methods = methods,
        .n_methods = ARRAY_LEN(methods),
        .arg = sc,
        .descriptor = {externalscaler_descriptor, sizeof(externalscaler_descriptor)},
    };
    sc->follower = (struct journal_follower){.on_record = on_record};
    fiber_scope_init(&sc->scope);
    watches_init(&sc->watches, count_backlog, sc);
    journal_follow(env->journal, &sc->follower);
    *ret_state = sc;
    return STATUS_OK;
}

/* A port that is taken is waited for; a certificate that cannot be used is a mistake to be told at once. */
static enum status ready(void *state, struct error *err)
{
    struct scaler *sc = state;
    struct error why;
    if (sc->env.scaler.port == 0) return STATUS_OK;
    enum status s = listen_to_keda(sc, &why);
    if (s != STATUS_OK && s != STATUS_ALREADY_EXISTS) return error_set(err, s, "%s", why.message);
    return fiber_scope_spawn(&sc->scope, push_fiber, sc, err);
}

/* KEDA asks over gRPC; what is behind /function/scaler is for people. */
static void handle(void *state, const struct http_req *req, struct http_resp *resp)
{
    const struct scaler *sc = state;
    unsigned port = sc->server != NULL ? grpc_server_port(sc->server) : 0;
    http_resp_set(resp, 200, SV("application/json"),
                  arena_printf(req->arena, "{\"port\":%u,\"streams\":%zu}\n", port, sc->watches.n));
}

static void stop(void *state, int64_t deadline_ns)
{
    struct scaler *sc = state;
    fiber_scope_cancel(&sc->scope);
    fiber_scope_join(&sc->scope);
    if (sc->server != NULL) (void)!grpc_server_drain(sc->server, deadline_ns);
    grpc_server_free(sc->server);
    watches_release(&sc->watches);
    journal_unfollow(sc->env.journal, &sc->follower);
    free(sc);
}

const struct core_function scaler_function = {
    .name = "scaler",
    .summary = "tells KEDA how much work waits for each function",
    .auth = CORE_BASIC,
    .start = start,
    .ready = ready,
    .handle = handle,
    .stop = stop,
};
