#include "server/server.h"

#include "base/buf.h"
#include "base/list.h"
#include "log/log.h"
#include "server/http_text.h"

void http_resp_header(struct http_resp *resp, struct strview name, struct strview value)
{
    if (name.len == 0 || !is_header_text(name) || !is_header_text(value)) {
        log_warn("server", "dropped a response header with a control character in it",
                 LOG_INT("name_bytes", name.len));
        return;
    }
    if (resp->n_headers == HTTP_RESP_HEADERS_MAX) {
        log_warn("server", "dropped a response header: the answer has too many", LOG_SV("name", name),
                 LOG_INT("limit", HTTP_RESP_HEADERS_MAX));
        return;
    }
    resp->headers[resp->n_headers++] = (struct http_header){name, value};
}

void http_resp_set(struct http_resp *resp, int status, struct strview content_type, struct strview body)
{
    resp->status = status;
    resp->body = body;
    if (content_type.len > 0) http_resp_header(resp, SV("content-type"), content_type);
}

void http_resp_error(struct http_resp *resp, struct arena *a, const struct error *err)
{
    struct buf text;
    buf_init(&text, 16 * ERROR_MESSAGE_MAX);
    buf_append(&text, SV("{\"error\":"));
    buf_append_json_string(&text, sv(err->message));
    buf_append(&text, SV("}\n"));
    struct strview body = arena_copy(a, buf_view(&text));
    buf_release(&text);
    int status = status_to_http(err->code);
    http_resp_set(resp, status, SV("application/json"), body);
    if (status == 503) http_resp_header(resp, SV("retry-after"), SV("1"));
}
