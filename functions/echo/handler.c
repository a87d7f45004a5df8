#include "balm.h"

#include "echo.gen.h"

enum status echo_handle(struct invocation *inv, const struct echo_params *p, struct result *ret,
                        struct error *err)
{
    struct strview type = http_req_header(inv->req, SV("content-type"));
    (void)p, (void)err; /* it has no parameters and cannot fail */
    return result_reply(ret, 200, type, inv->req->body);
}
