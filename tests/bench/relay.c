/* A function that calls out once a request: the body goes to $relay_to and the answer comes back. */
#include <stdlib.h>

#include "balm.h"

static enum status relay(struct invocation *inv, const void *params, struct result *ret, struct error *err)
{
    (void)params;
    struct http_reply reply;
    struct http_call call = {.method = SV("POST"), .url = sv(getenv("relay_to")), .body = inv->req->body};
    enum status s = http_request(&call, inv->arena, &reply, err);
    if (s != STATUS_OK) return s;
    return result_reply(ret, reply.status, SV("application/octet-stream"), reply.body);
}

static const struct function_def def = {
    .name = "relay",
    .summary = "Posts the body on and answers what came back",
    .handle = relay,
    .manifest_json = "{\"acts\":false,\"auth\":\"open\",\"name\":\"relay\",\"params\":{}}",
};

int main(int argc, char **argv)
{
    return function_main(&def, argc, argv);
}
