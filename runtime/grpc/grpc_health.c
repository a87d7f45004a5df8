/* grpc.health.v1.Health: how a server is, asked once or watched. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "grpc/grpc_impl.h"
#include "grpc/health.descriptor.h"
#include "grpc/health.pb-c.h"
#include "grpc/message.h"

#define SERVICE     "grpc.health.v1.Health"
#define WATCHES_MAX 1024

struct health_watch {
    struct list node; /* in server->health_watches */
    struct grpc_server *server;
    struct grpc_call *call;
    bool is_known;
    Grpc__Health__V1__HealthCheckResponse__ServingStatus told;
};

static bool is_known(const struct grpc_server *s, struct strview name)
{
    if (name.len == 0) return true;
    for (size_t i = 0; i < s->n_services; i++)
        if (sv_eq(sv(s->services[i]->name), name)) return true;
    return false;
}

static Grpc__Health__V1__HealthCheckResponse__ServingStatus status_of(const struct grpc_server *s)
{
    return s->is_serving && !s->is_draining
               ? GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
               : GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING;
}

static enum status read_request(struct grpc_call *call, struct strview *ret_service, struct error *err)
{
    ProtobufCMessage *message;
    enum status s =
        grpc_receive_message(call, &grpc__health__v1__health_check_request__descriptor, &message, err);
    if (s != STATUS_OK) return s;
    *ret_service = sv(((const Grpc__Health__V1__HealthCheckRequest *)(const void *)message)->service);
    return STATUS_OK;
}

static enum status check(void *arg, struct grpc_call *call, struct error *err)
{
    (void)arg;
    struct strview service;
    enum status s = read_request(call, &service, err);
    if (s != STATUS_OK) return s;
    if (!is_known(call->server, service))
        return error_set(err, STATUS_NOT_FOUND, "no such service: %.*s", SV_ARG(service));
    Grpc__Health__V1__HealthCheckResponse answer = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    answer.status = status_of(call->server);
    return grpc_send_message(call, &answer.base, err);
}

/* ---- watching ---- */

static void on_watch_gone(void *arg)
{
    struct health_watch *w = arg;
    list_remove(&w->node);
    w->server->n_health_watches--;
    free(w);
}

/* One that has not taken the answer before is told at the next look. */
static void tell(struct health_watch *w)
{
    Grpc__Health__V1__HealthCheckResponse answer = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    uint8_t bytes[16];
    answer.status = w->is_known ? status_of(w->server)
                                : GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN;
    if (answer.status == w->told) return;
    size_t len = protobuf_c_message_pack(&answer.base, bytes);
    if (grpc_try_send(w->call, sv_n((const char *)bytes, len)) == STATUS_OK) w->told = answer.status;
}

void health_notice(struct grpc_server *s)
{
    for (struct list *node = s->health_watches.next; node != &s->health_watches; node = node->next)
        tell(container_of(node, struct health_watch, node));
}

static enum status watch(void *arg, struct grpc_call *call, struct error *err)
{
    (void)arg;
    struct strview service;
    struct grpc_server *server = call->server;
    enum status s = read_request(call, &service, err);
    if (s != STATUS_OK) return s;
    if (server->n_health_watches == WATCHES_MAX)
        return error_set(err, STATUS_RESOURCE_EXHAUSTED, "%d watch already", WATCHES_MAX);
    struct health_watch *w = mem_zalloc(1, sizeof(*w));
    *w = (struct health_watch){.server = server, .call = call, .is_known = is_known(server, service)};
    list_push_back(&server->health_watches, &w->node);
    server->n_health_watches++;
    grpc_call_detach(call, on_watch_gone, w);
    tell(w);
    return STATUS_OK;
}

static const struct grpc_method methods[] = {
    {"/" SERVICE "/Check", GRPC_UNARY, check},
    {"/" SERVICE "/Watch", GRPC_SERVER_STREAM, watch},
};

const struct grpc_service grpc_health_service = {
    .name = SERVICE,
    .methods = methods,
    .n_methods = ARRAY_LEN(methods),
    .descriptor = {health_descriptor, sizeof(health_descriptor)},
};
