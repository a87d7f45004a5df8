#include "gateway/remote.h"

#include "base/clock.h"
#include "gateway/gateway_impl.h"

#define URL_MAX           512
#define ANSWER_MAX_BYTES  ((size_t)8 * 1024 * 1024) /* as forward.h */
#define HEALTH_TIMEOUT_NS (5 * NS_PER_S)

struct strview remote_url(const struct deployment_spec *spec)
{
    struct strview url = json_get_text(spec->annotations, REMOTE_ANNOTATION);
    while (sv_ends_with(url, SV("/")))
        url.len--;
    return url;
}

static bool is_host_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == ':' || c == '[' || c == ']';
}

enum status remote_check(const struct deployment_spec *spec, struct error *err)
{
    struct strview url = remote_url(spec), host = {0};
    if (json_object_get(spec->annotations, REMOTE_ANNOTATION) == NULL) return STATUS_OK;
    if (sv_starts_with(url, SV("http://"))) host = sv_sub(url, 7, url.len);
    if (sv_starts_with(url, SV("https://"))) host = sv_sub(url, 8, url.len);
    bool is_fine = host.len > 0 && url.len <= URL_MAX;
    for (size_t i = 0; i < host.len && is_fine; i++)
        is_fine = is_host_char(host.ptr[i]);
    if (is_fine) return STATUS_OK;
    return error_set(err, STATUS_INVALID_ARGUMENT,
                     "annotation " REMOTE_ANNOTATION
                     ": '%.*s' is not http://HOST[:PORT] or https://HOST[:PORT]",
                     SV_ARG(sv_sub(url, 0, 80)));
}

/* ---- calls ---- */

static const struct http_header *choose_headers(const struct http_header *from, size_t n, struct arena *a,
                                                size_t *ret_n)
{
    struct http_header *headers = arena_array(a, n + 1, sizeof(*headers));
    struct strview connection = http_header_get(from, n, SV("connection"));
    *ret_n = 0;
    for (size_t i = 0; i < n; i++)
        if (forward_goes_on(&from[i], connection)) headers[(*ret_n)++] = from[i];
    return headers;
}

enum status remote_forward(const struct deployment *d, const struct forward_spec *spec, struct arena *a,
                           struct http_reply *ret_reply, struct error *err)
{
    struct strview url = remote_url(&d->spec);
    struct http_call call = {
        .method = spec->method,
        .url = arena_printf(a, "%.*s%.*s", SV_ARG(url), SV_ARG(spec->target)),
        .body = spec->body,
        .timeout_ns = spec->deadline_ns - clock_monotonic_ns(),
        .max_body_bytes = spec->max_body_bytes > 0 ? spec->max_body_bytes : ANSWER_MAX_BYTES,
    };
    if (call.timeout_ns <= 0)
        return error_set(err, STATUS_UNAVAILABLE, "function '%.*s': no time is left", SV_ARG(d->spec.name));
    call.headers = choose_headers(spec->headers, spec->n_headers, a, &call.n_headers);
    enum status s = http_request(&call, a, ret_reply, err);
    /* Whether a deadline came before or behind the connection is not told: it may have run. */
    if (s != STATUS_OK) err->can_retry = s == STATUS_UNAVAILABLE;
    return s;
}

enum status remote_answer(const struct deployment *d, const struct forward_spec *spec,
                          const struct http_req *req, struct http_resp *resp, int *ret_status,
                          struct error *err)
{
    struct http_reply reply;
    enum status s = remote_forward(d, spec, req->arena, &reply, err);
    if (s != STATUS_OK) return s;
    size_t n;
    const struct http_header *headers = choose_headers(reply.headers, reply.n_headers, req->arena, &n);
    for (size_t i = 0; i < n; i++)
        http_resp_header(resp, headers[i].name, headers[i].value);
    resp->status = *ret_status = reply.status;
    resp->body = reply.body;
    return STATUS_OK;
}

enum status remote_check_health(const struct deployment *d, struct error *err)
{
    struct arena a = {0};
    struct http_reply reply;
    const struct forward_spec spec = {.method = SV("GET"),
                                      .target = SV("/_/health"),
                                      .authority = d->spec.name,
                                      .deadline_ns = clock_monotonic_ns() + HEALTH_TIMEOUT_NS};
    enum status s = remote_forward(d, &spec, &a, &reply, err);
    if (s == STATUS_OK && reply.status != 200)
        s = error_set(err, STATUS_UNAVAILABLE, "function '%.*s': its health question is answered by %d",
                      SV_ARG(d->spec.name), reply.status);
    arena_release(&a);
    return s;
}
