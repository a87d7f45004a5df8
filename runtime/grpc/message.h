/* protobuf-c's messages on a call: all memory is the call's arena. */
#ifndef BALM_GRPC_MESSAGE_H
#define BALM_GRPC_MESSAGE_H

#include <protobuf-c/protobuf-c.h>

#include "grpc/grpc.h"

/* Of that type, in the arena. STATUS_INVALID_ARGUMENT: no message of that type. */
enum status message_decode(const ProtobufCMessageDescriptor *type, struct strview bytes, struct arena *a,
                           ProtobufCMessage **ret_message, struct error *err) MUST_USE;
/* Its bytes, in the arena. */
struct strview message_encode(const ProtobufCMessage *message, struct arena *a);
/* The next one of the call; as grpc_receive(). */
enum status grpc_receive_message(struct grpc_call *call, const ProtobufCMessageDescriptor *type,
                                 ProtobufCMessage **ret_message, struct error *err) MUST_USE;
/* As grpc_send(). */
enum status grpc_send_message(struct grpc_call *call, const ProtobufCMessage *message,
                              struct error *err) MUST_USE;

#endif
