#include "client/forward_impl.h"

#include "server/http_text.h"

/* Of this hop alone: openfaas.md §1.10 and RFC 9110 §7.6.1. */
static bool is_hop_header(struct strview name)
{
    static const struct strview hop[] = {{"connection", 10},
                                         {"proxy-connection", 16},
                                         {"keep-alive", 10},
                                         {"proxy-authenticate", 18},
                                         {"proxy-authorization", 19},
                                         {"te", 2},
                                         {"trailer", 7},
                                         {"transfer-encoding", 17},
                                         {"upgrade", 7},
                                         {"http2-settings", 14}};
    for (size_t i = 0; i < ARRAY_LEN(hop); i++) {
        if (sv_eq_nocase(name, hop[i])) return true;
    }
    return false;
}

/* We write these ourselves; a request that waits for 100-continue was answered by our server. */
static bool is_own_header(struct strview name)
{
    return sv_eq_nocase(name, SV("host")) || sv_eq_nocase(name, SV("content-length")) ||
           sv_eq_nocase(name, SV("expect"));
}

static bool is_listed(struct strview list, struct strview name)
{
    struct strview part;
    while (sv_next(&list, ',', &part)) {
        if (sv_eq_nocase(sv_trim(part), name)) return true;
    }
    return false;
}

bool forward_goes_on(const struct http_header *h, struct strview connection)
{
    return !is_hop_header(h->name) && !is_own_header(h->name) &&
           !(connection.len > 0 && is_listed(connection, h->name));
}

static enum status check(const struct forward_spec *spec, struct error *err)
{
    bool is_ok = spec->method.len > 0 && is_visible_text(spec->method) && spec->target.len > 0 &&
                 is_visible_text(spec->target) && is_visible_text(spec->authority);
    for (size_t i = 0; is_ok && i < spec->n_headers; i++) {
        is_ok = spec->headers[i].name.len > 0 && is_visible_text(spec->headers[i].name) &&
                sv_find(spec->headers[i].name, ':') == spec->headers[i].name.len &&
                is_header_text(spec->headers[i].value);
    }
    if (is_ok) return STATUS_OK;
    return error_set(err, STATUS_INVALID_ARGUMENT, "method, target or a header holds blanks or line ends");
}

static bool has_length(const struct forward_spec *spec)
{
    return spec->body.len > 0 || sv_eq(spec->method, SV("POST")) || sv_eq(spec->method, SV("PUT")) ||
           sv_eq(spec->method, SV("PATCH"));
}

static char *put(char *at, struct strview s)
{
    if (s.len > 0) memcpy(at, s.ptr, s.len);
    return at + s.len;
}

static char *put_header(char *at, struct strview name, struct strview value)
{
    at = put(put(at, name), SV(": "));
    return put(put(at, value), SV("\r\n"));
}

enum status forward_head_build(const struct forward_spec *spec, struct arena *a, struct strview *ret_head,
                               struct error *err)
{
    enum status s = check(spec, err);
    if (s != STATUS_OK) return s;
    struct strview connection = http_header_get(spec->headers, spec->n_headers, SV("connection"));
    size_t bytes = spec->method.len + spec->target.len + spec->authority.len + 128;
    for (size_t i = 0; i < spec->n_headers; i++)
        bytes += spec->headers[i].name.len + spec->headers[i].value.len + 4;

    char *head = arena_alloc(a, bytes), *at = put(head, spec->method);
    at = put(put(put(at, SV(" ")), spec->target), SV(" HTTP/1.1\r\n"));
    at = put_header(at, SV("host"), spec->authority.len > 0 ? spec->authority : SV("localhost"));
    for (size_t i = 0; i < spec->n_headers; i++) {
        const struct http_header *h = &spec->headers[i];
        if (forward_goes_on(h, connection)) at = put_header(at, h->name, h->value);
    }
    if (has_length(spec)) {
        char digits[24];
        int n = snprintf(digits, sizeof(digits), "%zu", spec->body.len);
        at = put_header(at, SV("content-length"), sv_n(digits, (size_t)n));
    }
    at = put(at, SV("\r\n"));
    *ret_head = sv_n(head, (size_t)(at - head));
    return STATUS_OK;
}

void forward_headers_keep(const struct answer *answer, struct arena *a, struct http_reply *reply)
{
    struct http_header *kept = arena_array(a, answer->n_headers, sizeof(*kept));
    size_t n = 0;
    for (size_t i = 0; i < answer->n_headers; i++)
        if (!is_hop_header(answer->headers[i].name)) kept[n++] = answer->headers[i];
    reply->headers = kept;
    reply->n_headers = n;
}
