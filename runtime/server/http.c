#include "server/http.h"

#include "base/hash.h"

struct strview http_header_get(const struct http_header *headers, size_t n, struct strview name)
{
    for (size_t i = 0; i < n; i++) {
        if (sv_eq(headers[i].name, name)) return headers[i].value;
    }
    return (struct strview){0};
}

struct strview http_req_header(const struct http_req *req, struct strview name)
{
    return http_header_get(req->headers, req->n_headers, name);
}

enum status http_percent_decode(struct arena *a, struct strview s, struct strview *ret_text)
{
    char *text = arena_alloc(a, s.len + 1);
    size_t len = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] != '%') {
            text[len++] = s.ptr[i];
            continue;
        }
        if (hex_decode(sv_sub(s, i + 1, i + 3), &text[len++], 1) != STATUS_OK) return STATUS_INVALID_ARGUMENT;
        i += 2;
    }
    text[len] = '\0';
    *ret_text = (struct strview){text, len};
    return STATUS_OK;
}

bool http_query_get(const struct http_req *req, struct strview key, struct strview *ret_value)
{
    struct strview rest = req->query, pair, name;
    while (sv_next(&rest, '&', &pair)) {
        size_t eq = sv_find(pair, '=');
        if (http_percent_decode(req->arena, sv_sub(pair, 0, eq), &name) != STATUS_OK || !sv_eq(name, key))
            continue;
        struct strview value = eq < pair.len ? sv_sub(pair, eq + 1, pair.len) : (struct strview){0};
        if (http_percent_decode(req->arena, value, ret_value) == STATUS_OK) return true;
    }
    return false;
}

const char *http_reason(int status)
{
    static const struct {
        int status;
        const char *reason;
    } reasons[] = {
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {206, "Partial Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {303, "See Other"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {411, "Length Required"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {422, "Unprocessable Content"},
        {425, "Too Early"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {499, "Client Closed Request"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
        {507, "Insufficient Storage"},
    };
    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
        if (reasons[i].status == status) return reasons[i].reason;
    }
    return "Unknown";
}
