#include "grpc/message.h"

static void *allocate(void *arena, size_t size)
{
    return arena_alloc(arena, size);
}

static void no_free(void *arena, void *ptr)
{
    (void)arena, (void)ptr;
}

enum status message_decode(const ProtobufCMessageDescriptor *type, struct strview bytes, struct arena *a,
                           ProtobufCMessage **ret_message, struct error *err)
{
    ProtobufCAllocator in_arena = {.alloc = allocate, .free = no_free, .allocator_data = a};
    *ret_message = protobuf_c_message_unpack(type, &in_arena, bytes.len, (const uint8_t *)bytes.ptr);
    if (*ret_message != NULL) return STATUS_OK;
    return error_set(err, STATUS_INVALID_ARGUMENT, "%zu bytes are no %s", bytes.len, type->name);
}

struct strview message_encode(const ProtobufCMessage *message, struct arena *a)
{
    uint8_t *bytes = arena_alloc(a, protobuf_c_message_get_packed_size(message));
    size_t len = protobuf_c_message_pack(message, bytes);
    return sv_n((const char *)bytes, len);
}

enum status grpc_receive_message(struct grpc_call *call, const ProtobufCMessageDescriptor *type,
                                 ProtobufCMessage **ret_message, struct error *err)
{
    struct strview bytes;
    enum status s = grpc_receive(call, &bytes, err);
    return s == STATUS_OK ? message_decode(type, bytes, grpc_call_arena(call), ret_message, err) : s;
}

enum status grpc_send_message(struct grpc_call *call, const ProtobufCMessage *message, struct error *err)
{
    return grpc_send(call, message_encode(message, grpc_call_arena(call)), err);
}
