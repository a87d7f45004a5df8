/* Any bytes as what KEDA, health checks and reflection ask for: decoded into an arena, and for KEDA's the
 * trigger read. What is read can be told to KEDA: names that are safe in a URL, targets above 0; and it
 * encodes to a message that decodes.
 *
 * Input: one byte, the type of the message; then its bytes.
 *
 * Reads: functions/scaler/trigger.c grpc/message.c */
#include "functions/scaler/trigger.h"

#include <assert.h>

#include "base/memory.h"
#include "functions/scaler/externalscaler.pb-c.h"
#include "grpc/health.pb-c.h"
#include "grpc/message.h"
#include "grpc/reflection.pb-c.h"
#include "replay.h"

static const ProtobufCMessageDescriptor *const types[] = {
    &externalscaler__scaled_object_ref__descriptor,
    &externalscaler__get_metrics_request__descriptor,
    &grpc__health__v1__health_check_request__descriptor,
    &grpc__reflection__v1__server_reflection_request__descriptor,
};

static void check_name(struct strview name)
{
    assert(sv_starts_with(name, SV("balm-")) && name.len <= 80);
    for (size_t i = 0; i < name.len; i++)
        assert((name.ptr[i] >= 'a' && name.ptr[i] <= 'z') || (name.ptr[i] >= '0' && name.ptr[i] <= '9') ||
               name.ptr[i] == '-');
}

static void check_trigger(const Externalscaler__ScaledObjectRef *ref, struct arena *a)
{
    struct trigger t;
    struct error err = {0};
    struct trigger_pair *pairs = arena_array(a, ref->n_scalermetadata, sizeof(*pairs));
    for (size_t i = 0; i < ref->n_scalermetadata; i++)
        pairs[i] = (struct trigger_pair){sv(ref->scalermetadata[i]->key), sv(ref->scalermetadata[i]->value)};
    if (trigger_read(pairs, ref->n_scalermetadata, a, &t, &err) != STATUS_OK) {
        assert(err.message[0] != '\0');
        return;
    }
    assert(t.n_specs >= 1 && t.n_specs <= TRIGGER_SPECS_MAX);
    for (size_t i = 0; i < t.n_specs; i++) {
        check_name(t.specs[i].name);
        assert(t.specs[i].target > 0 && t.specs[i].target <= TRIGGER_TARGET_MAX);
        assert(trigger_find(&t, t.specs[i].name) == &t.specs[i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    if (n == 0) return 0;
    const ProtobufCMessageDescriptor *type = types[bytes[0] % ARRAY_LEN(types)];
    struct arena a = {0};
    ProtobufCMessage *message, *again;
    if (message_decode(type, sv_n((const char *)bytes + 1, n - 1), &a, &message, NULL) == STATUS_OK) {
        /* Decoded again only as far as protobuf-c takes back fields that it does not know: not number 0. */
        struct strview encoded = message_encode(message, &a);
        bool is_again = message_decode(type, encoded, &a, &again, NULL) == STATUS_OK;
        assert(!is_again || protobuf_c_message_get_packed_size(again) == encoded.len);
        if (type == types[0]) check_trigger((const void *)message, &a);
        const Externalscaler__GetMetricsRequest *request = (const void *)message;
        if (type == types[1] && request->scaledobjectref != NULL) check_trigger(request->scaledobjectref, &a);
    }
    arena_release(&a);
    return 0;
}
