/* grpc.reflection.v1.ServerReflection: what this server serves, for grpcurl and its like. */
#include "grpc/descriptor.pb-c.h"
#include "grpc/grpc_impl.h"
#include "grpc/message.h"
#include "grpc/reflection.descriptor.h"
#include "grpc/reflection.pb-c.h"

#define SERVICE       "grpc.reflection.v1.ServerReflection"
#define SERVICE_ALPHA "grpc.reflection.v1alpha.ServerReflection"
#define METHOD        "/ServerReflectionInfo"
#define SERVICES_MAX  32
#define NAME_MAX_LEN  512

typedef Grpc__Reflection__V1__ServerReflectionRequest Request;
typedef Grpc__Reflection__V1__ServerReflectionResponse Response;

/* What is looked for: a file's name, or the name of something in it. */
struct question {
    struct strview name;
    bool is_file;
};

/* ---- names in a file ---- */

/* "package.name" or, for what is inside of it, "package.name.inner". */
static bool is_name_in(struct strview asked, struct strview package, struct strview name)
{
    if (package.len > 0) {
        if (asked.len <= package.len || !sv_starts_with(asked, package) || asked.ptr[package.len] != '.')
            return false;
        asked = sv_sub(asked, package.len + 1, asked.len);
    }
    return sv_eq(asked, name) ||
           (asked.len > name.len && sv_starts_with(asked, name) && asked.ptr[name.len] == '.');
}

static bool is_named_in(const Balm__Descriptor__File *file, struct strview asked)
{
    struct strview package = sv(file->package);
    for (size_t i = 0; i < file->n_service; i++)
        if (is_name_in(asked, package, sv(file->service[i]->name))) return true;
    for (size_t i = 0; i < file->n_message_type; i++)
        if (is_name_in(asked, package, sv(file->message_type[i]->name))) return true;
    for (size_t i = 0; i < file->n_enum_type; i++)
        if (is_name_in(asked, package, sv(file->enum_type[i]->name))) return true;
    return false;
}

/* NULL: not there. */
static const ProtobufCBinaryData *find_in_set(const Balm__Descriptor__FileSet *set, const struct question *q,
                                              struct arena *a)
{
    for (size_t i = 0; i < set->n_file; i++) {
        ProtobufCMessage *message;
        struct strview bytes = sv_n((const char *)set->file[i].data, set->file[i].len);
        if (message_decode(&balm__descriptor__file__descriptor, bytes, a, &message, NULL) != STATUS_OK)
            continue;
        const Balm__Descriptor__File *file = (const void *)message;
        if (q->is_file ? sv_eq(sv(file->name), q->name) : is_named_in(file, q->name)) return &set->file[i];
    }
    return NULL;
}

static const ProtobufCBinaryData *find(const struct grpc_server *s, const struct question *q, struct arena *a)
{
    for (size_t i = 0; i < s->n_services; i++) {
        ProtobufCMessage *set;
        if (message_decode(&balm__descriptor__file_set__descriptor, s->services[i]->descriptor, a, &set,
                           NULL) != STATUS_OK)
            continue;
        const ProtobufCBinaryData *found = find_in_set((const void *)set, q, a);
        if (found != NULL) return found;
    }
    return NULL;
}

/* ---- answers ---- */

static enum status send(struct grpc_call *call, const Response *answer, struct arena *a, struct error *err)
{
    return grpc_send(call, message_encode(&answer->base, a), err);
}

static enum status send_error(struct grpc_call *call, Response answer, struct arena *a, const char *why,
                              struct error *err)
{
    Grpc__Reflection__V1__ErrorResponse e = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;
    e.error_code = STATUS_NOT_FOUND;
    e.error_message = arena_cstr(a, sv(why));
    answer.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
    answer.error_response = &e;
    return send(call, &answer, a, err);
}

static enum status send_file(struct grpc_call *call, Response answer, struct arena *a, const char *name,
                             bool is_file, struct error *err)
{
    const struct question q = {sv(name), is_file};
    const ProtobufCBinaryData *found = q.name.len <= NAME_MAX_LEN ? find(call->server, &q, a) : NULL;
    if (found == NULL) return send_error(call, answer, a, "not known here", err);
    Grpc__Reflection__V1__FileDescriptorResponse files = GRPC__REFLECTION__V1__FILE_DESCRIPTOR_RESPONSE__INIT;
    ProtobufCBinaryData file = *found;
    files.n_file_descriptor_proto = 1;
    files.file_descriptor_proto = &file;
    answer.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
    answer.file_descriptor_response = &files;
    return send(call, &answer, a, err);
}

static enum status send_services(struct grpc_call *call, Response answer, struct arena *a, struct error *err)
{
    const struct grpc_server *s = call->server;
    Grpc__Reflection__V1__ServiceResponse services[SERVICES_MAX], *pointers[SERVICES_MAX];
    Grpc__Reflection__V1__ListServiceResponse list = GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;
    for (size_t i = 0; i < s->n_services && list.n_service < SERVICES_MAX; i++) {
        if (s->services[i]->descriptor.len == 0) continue; /* the older name of this very service */
        Grpc__Reflection__V1__ServiceResponse *one = &services[list.n_service];
        grpc__reflection__v1__service_response__init(one);
        one->name = arena_cstr(a, sv(s->services[i]->name));
        pointers[list.n_service++] = one;
    }
    list.service = pointers;
    answer.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
    answer.list_services_response = &list;
    return send(call, &answer, a, err);
}

static enum status answer_one(struct grpc_call *call, struct arena *a, Request *request, struct error *err)
{
    Response answer = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    answer.original_request = request;
    answer.valid_host = request->host;
    switch (request->message_request_case) {
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
        return send_file(call, answer, a, request->file_by_filename, true, err);
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
        return send_file(call, answer, a, request->file_containing_symbol, false, err);
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
        return send_services(call, answer, a, err);
    default: /* proto3 has no extensions */
        return send_error(call, answer, a, "there are no extensions here", err);
    }
}

/* Each question has an arena of its own: an answer takes a thousand times the memory of its question, and a
 * stream may ask for ever. */
static enum status info(void *arg, struct grpc_call *call, struct error *err)
{
    (void)arg;
    for (;;) {
        struct strview bytes;
        ProtobufCMessage *request;
        struct arena a = {0};
        enum status s = grpc_receive(call, &bytes, err);
        if (s == STATUS_NOT_FOUND) return STATUS_OK;
        if (s == STATUS_OK)
            s = message_decode(&grpc__reflection__v1__server_reflection_request__descriptor, bytes, &a,
                               &request, err);
        if (s == STATUS_OK) s = answer_one(call, &a, (void *)request, err);
        arena_release(&a);
        if (s != STATUS_OK) return s;
    }
}

static const struct grpc_method methods[] = {{"/" SERVICE METHOD, GRPC_BIDI_STREAM, info}};
static const struct grpc_method alpha_methods[] = {{"/" SERVICE_ALPHA METHOD, GRPC_BIDI_STREAM, info}};

const struct grpc_service grpc_reflection_service = {
    .name = SERVICE,
    .methods = methods,
    .n_methods = ARRAY_LEN(methods),
    .descriptor = {reflection_descriptor, sizeof(reflection_descriptor)},
};

const struct grpc_service grpc_reflection_alpha_service = {
    .name = SERVICE_ALPHA,
    .methods = alpha_methods,
    .n_methods = ARRAY_LEN(alpha_methods),
};
