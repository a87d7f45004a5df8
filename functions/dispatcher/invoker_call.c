/* Asynchronous calls, and their answers on the way to whom the caller named. When either is repeated is
 * promised in gateway/gateway.h.
 *
 *   call ----> function ----> outcome, and with it (one batch): call, purpose "callback" ----> X-Callback-Url
 *
 * The second is work like any other: retried, a dead letter at last, found again after our death. */
#include "functions/dispatcher/invoker_impl.h"

#include <inttypes.h>
#include <openssl/evp.h>

#include "base/escape.h"
#include "base/random.h"

#define CALL_TIMEOUT_NS   (60 * NS_PER_S) /* where the function says nothing */
#define BODY_MESSAGE_MAX  500
#define CALLBACK_BODY_MAX ((size_t)512 * 1024) /* as of a call: with its base64 it fits into a record */
#define HOPS_HEADER       "x-balm-hops"
#define HOPS_MAX          8 /* a chain of callbacks that is longer goes in a circle */
#define CALLBACK_HEADERS_MAX                                                                                 \
    ((size_t)32 * 1024) /* a function must not make its answer too large to record                           \
                         */

/* ---- as recorded ---- */

static enum status decode_body(struct strview base64, struct arena *a, struct strview *ret_body)
{
    if (base64.len == 0) return STATUS_OK;
    if (base64.len % 4 != 0 || base64.len > INT32_MAX) return STATUS_INVALID_ARGUMENT;
    unsigned char *out = arena_alloc(a, base64.len / 4 * 3 + 1);
    int n = EVP_DecodeBlock(out, (const unsigned char *)base64.ptr, (int)base64.len);
    if (n < 0) return STATUS_INVALID_ARGUMENT;
    for (size_t i = base64.len; i > base64.len - 2 && base64.ptr[i - 1] == '='; i--)
        n--; /* EVP counts the padding as bytes */
    *ret_body = sv_n((const char *)out, (size_t)n);
    return STATUS_OK;
}

/* {"name":"value"…} */
static void decode_headers(struct strview json, struct arena *a, struct http_req *req)
{
    json_t *tree = NULL, *value;
    const char *name;
    if (json.len == 0 || json_parse(json, 0, &tree, NULL) != STATUS_OK) return;
    struct http_header *headers = arena_array(a, HTTP_HEADERS_MAX, sizeof(*headers));
    json_object_foreach(tree, name, value) if (req->n_headers < HTTP_HEADERS_MAX && json_is_string(value))
        headers[req->n_headers++] =
            (struct http_header){arena_copy(a, sv(name)), arena_copy(a, sv(json_string_value(value)))};
    req->headers = headers;
    json_release(tree);
}

/* What is not the function's to say about the connection to somebody else, and what we say ourselves. */
static bool is_posted(struct strview name)
{
    static const char *const dropped[] = {"connection",
                                          "content-length",
                                          "host",
                                          "keep-alive",
                                          "te",
                                          "trailer",
                                          "upgrade",
                                          "transfer-encoding",
                                          "date",
                                          "server",
                                          "x-call-id",
                                          "x-start-time",
                                          "x-function-name",
                                          "x-function-status",
                                          "x-duration-seconds",
                                          "x-balm-error",
                                          "x-balm-hops",
                                          "x-openfaas-internal",
                                          "expect"};
    for (size_t i = 0; i < ARRAY_LEN(dropped); i++)
        if (sv_eq(name, sv(dropped[i]))) return false;
    return !sv_starts_with(name, SV("proxy-"));
}

static struct strview encode_body(struct strview body, struct arena *a)
{
    if (body.len == 0) return (struct strview){0};
    unsigned char *out = arena_alloc(a, (body.len + 2) / 3 * 4 + 1);
    int n = EVP_EncodeBlock(out, (const unsigned char *)body.ptr, (int)body.len);
    return sv_n((char *)out, (size_t)n);
}

/* ---- what is to be posted ---- */

/* How a call ended, as far as its caller is told. */
struct ending {
    int http_status;
    const struct http_reply *reply; /* NULL: the function gave none */
    struct strview error;           /* why there is no body */
};

static void put_header(json_t *headers, const char *name, struct strview value)
{
    (void)json_object_set_new(headers, name, json_text(value));
}

/* How many functions there were before in this chain. */
static uint64_t hops_of(const struct http_req *req)
{
    uint64_t n = 0;
    (void)!sv_parse_u64(http_req_header(req, SV(HOPS_HEADER)), &n);
    return n < HOPS_MAX ? n : HOPS_MAX;
}

static void put_own_headers(const struct job *job, const struct ending *e, json_t *headers)
{
    const struct record *r = job->item->record;
    int64_t took_ns = job->invoked_unix_ns > 0 ? clock_elapsed_ns(job->invoked_unix_ns, clock_unix_ns()) : 0;
    struct http_req asked = {0};
    decode_headers(r->headers, job->arena, &asked);
    struct strview call_id = http_req_header(&asked, SV("x-call-id"));
    put_header(headers, "x-call-id", call_id.len > 0 ? call_id : r->intent);
    put_header(headers, "x-function-name", r->function);
    put_header(headers, "x-function-status", arena_printf(job->arena, "%d", e->http_status));
    put_header(headers, "x-start-time", arena_printf(job->arena, "%" PRId64, r->time_ns));
    put_header(headers, HOPS_HEADER, arena_printf(job->arena, "%" PRIu64, hops_of(&asked) + 1));
    put_header(headers, "x-duration-seconds",
               arena_printf(job->arena, "%.6f", (double)(took_ns > 0 ? took_ns : 0) / (double)NS_PER_S));
}

/* Never the function's words as a header line of ours. */
static struct strview make_error(const struct job *job, const struct ending *e)
{
    if (e->error.len > 0 || e->reply == NULL || e->reply->body.len <= CALLBACK_BODY_MAX)
        return sv_sub(e->error, 0, json_plain_run_max(e->error, BODY_MESSAGE_MAX));
    return arena_printf(job->arena, "the answer's body of %zu bytes is not kept: at most %zu are",
                        e->reply->body.len, CALLBACK_BODY_MAX);
}

static struct strview make_headers(const struct job *job, const struct ending *e, struct strview error)
{
    json_t *headers = json_object();
    size_t bytes = 0;
    for (size_t i = 0; e->reply != NULL && i < e->reply->n_headers; i++) {
        const struct http_header *h = &e->reply->headers[i];
        if (!is_posted(h->name) || !sv_is_utf8(h->name) || !sv_is_utf8(h->value)) continue;
        bytes += h->name.len + h->value.len;
        if (bytes > CALLBACK_HEADERS_MAX) break;
        (void)json_object_setn_new(headers, h->name.ptr, h->name.len, json_text(h->value));
    }
    put_own_headers(job, e, headers);
    if (error.len > 0) put_header(headers, "x-balm-error", error);
    struct strview text = json_canonical(job->arena, headers);
    json_decref(headers);
    return text;
}

/* To be recorded with the call's end, whenever that is. */
static void prepare_callback(struct job *job, const struct ending *e)
{
    const struct record *r = job->item->record;
    char id[UUID_LEN + 1];
    if (r->callback.len == 0) return;
    random_uuid(id);
    struct strview error = make_error(job, e);
    struct record *callback = arena_alloc(job->arena, sizeof(*callback));
    *callback = (struct record){
        .kind = RECORD_CALL,
        .time_ns = clock_unix_ns(),
        .tenant = job->d->env.tenant,
        .cluster = job->d->env.cluster,
        .function = arena_printf(job->arena, CALLBACK_FUNCTION_PREFIX "%.*s", SV_ARG(r->function)),
        .intent = arena_copy(job->arena, sv(id)),
        .purpose = SV("callback"),
        .callback = r->callback,
        .method = SV("POST"),
        .headers = make_headers(job, e, error),
        .body_base64 = e->reply != NULL && error.len == 0 ? encode_body(e->reply->body, job->arena)
                                                          : (struct strview){0},
        .detail = arena_printf(job->arena, "{\"call\":\"%.*s\"}", SV_ARG(r->intent)),
    };
    job->item->sequel = callback;
}

/* ---- calls ---- */

static void end_call(struct job *job, const struct http_reply *reply)
{
    int http_status = reply->status;
    job->reply.detail =
        arena_printf(job->arena, "{\"bodyBytes\":%zu,\"httpStatus\":%d}", reply->body.len, http_status);
    prepare_callback(job, &(struct ending){.http_status = http_status, .reply = reply});
    if (http_status == 503 || http_status == 429) {
        invoker_repeat(job, true, 0, SV("UNAVAILABLE"), arena_printf(job->arena, "HTTP %d", http_status));
        return;
    }
    struct strview text = sv_sub(reply->body, 0, json_plain_run_max(reply->body, BODY_MESSAGE_MAX));
    enum status s = status_from_http(http_status);
    if (s == STATUS_OK)
        invoker_finish(job, SV("done"), (struct strview){0}, text);
    else
        invoker_finish(job, SV("failed"), sv(status_name(s)), text);
}

static void end_unanswered(struct job *job, enum status s, const struct error *err)
{
    int http_status = s == STATUS_UNKNOWN ? 502 : status_to_http(s);
    prepare_callback(job, &(struct ending){.http_status = http_status, .error = sv(err->message)});
    if (s == STATUS_UNAVAILABLE)
        invoker_repeat(job, true, 0, sv(status_name(s)), sv(err->message));
    else if (s == STATUS_UNKNOWN || s == STATUS_DEADLINE_EXCEEDED) /* not twice: nobody looks for marks */
        invoker_finish(job, SV("unknown"), sv(status_name(s)), sv(err->message));
    else
        invoker_give_up(job, SV("failed"), sv(status_name(s)), sv(err->message));
}

static enum status read_call(const struct record *r, struct arena *a, struct http_req *ret_req,
                             struct error *err)
{
    *ret_req = (struct http_req){.method = r->method.len > 0 ? r->method : SV("POST"),
                                 .target = r->path.len > 0 ? r->path : SV("/"),
                                 .arena = a,
                                 .received_unix_ns = r->time_ns};
    size_t query_at = sv_find(ret_req->target, '?');
    ret_req->path = sv_sub(ret_req->target, 0, query_at);
    ret_req->query = sv_sub(ret_req->target, query_at + 1, ret_req->target.len);
    decode_headers(r->headers, a, ret_req);
    if (decode_body(r->body_base64, a, &ret_req->body) == STATUS_OK) return STATUS_OK;
    return error_set(err, STATUS_INVALID_ARGUMENT, "the recorded body is not base64");
}

static void call(struct job *job, const struct http_req *req)
{
    const struct record *r = job->item->record;
    const struct core_env *env = &job->d->env;
    struct error err = {0};
    struct http_reply reply = {0};
    int64_t timeout_ns = CALL_TIMEOUT_NS;
    if (env->invoker->info(env->invoker_arg, r->function, &job->info, NULL) == STATUS_OK &&
        job->info.timeout_ns > 0)
        timeout_ns = job->info.timeout_ns;
    job->invoked_unix_ns = clock_unix_ns();
    enum status s = env->invoker->call(env->invoker_arg, r->function, req, clock_monotonic_ns() + timeout_ns,
                                       job->arena, &reply, &err);
    if (s == STATUS_CANCELLED && fiber_is_cancelled()) return;
    if (s == STATUS_OK)
        end_call(job, &reply);
    else
        end_unanswered(job, s, &err);
}

/* Each of its attempts ended with us; who waits for the answer is told that nobody knows it. */
static void end_spent(struct job *job)
{
    struct strview why = SV("the platform stopped during each attempt; how they ended is not known");
    prepare_callback(job, &(struct ending){.http_status = 502, .error = why});
    invoker_finish(job, SV("dead"), SV("UNKNOWN"), why);
}

/* ---- callbacks ---- */

/* The URL's path is a credential with many receivers, so messages name the host alone. */
static struct strview host_of(struct strview url)
{
    size_t scheme = sv_starts_with(url, SV("https://")) ? 8 : 7;
    struct strview rest = sv_sub(url, scheme, url.len);
    return sv_sub(rest, 0, sv_find(rest, '/'));
}

/* The client's sentence begins with method, host and path: what comes behind the attempts says enough. */
static struct strview why_unposted(const struct error *err)
{
    const char *why = strstr(err->message, "): ");
    return why != NULL ? sv(why + 3) : sv(status_name(err->code));
}

static void post(const struct job *job, const struct http_req *req)
{
    const struct record *r = job->item->record;
    const struct core_env *env = &job->d->env;
    struct strview host = host_of(r->callback);
    struct error err = {0};
    int http_status = 0;
    if (hops_of(req) == HOPS_MAX) {
        invoker_finish(
            job, SV("dead"), SV("FAILED_PRECONDITION"),
            SV("it would be the eighth callback in a row: the functions call each other in a circle"));
        return;
    }
    enum status s = env->invoker->post(env->invoker_arg, r->callback, req->headers, req->n_headers, req->body,
                                       job->arena, &http_status, &err);
    if (s == STATUS_CANCELLED && fiber_is_cancelled()) return;
    struct strview message =
        s == STATUS_OK ? arena_printf(job->arena, "%.*s answered %d", SV_ARG(host), http_status)
                       : arena_printf(job->arena, "%.*s: %.*s", SV_ARG(host), SV_ARG(why_unposted(&err)));
    if (s == STATUS_OK && http_status >= 200 && http_status <= 299)
        invoker_finish(job, SV("done"), (struct strview){0}, message);
    else if (s == STATUS_PERMISSION_DENIED || s == STATUS_INVALID_ARGUMENT)
        invoker_finish(job, SV("dead"), sv(status_name(s)), message); /* unless a setting is changed */
    else /* it may have arrived: twice is promised to be possible, never is not */
        invoker_repeat(job, true, 0,
                       s == STATUS_OK ? sv(status_name(status_from_http(http_status))) : SV("UNAVAILABLE"),
                       message);
}

void invoker_call(struct job *job)
{
    const struct record *r = job->item->record;
    struct error err = {0};
    struct http_req req;
    if (job->item->is_spent)
        end_spent(job);
    else if (read_call(r, job->arena, &req, &err) != STATUS_OK)
        invoker_finish(job, SV("failed"), SV("INVALID_ARGUMENT"), sv(err.message));
    else if (sv_eq(r->purpose, SV("callback")))
        post(job, &req);
    else
        call(job, &req);
}
