#include "client/client_impl.h"

#include <assert.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/memory.h"
#include "client/client_count.h"

#define EXPECT_BYTES     ((size_t)64 * 1024)
#define HEADER_BYTES_MAX ((size_t)256 * 1024) /* a peer that sends headers for ever */

/* set-up -> in curl's hands until `done` is set (or the fiber leaves) -> taken out -> outcome read ->
 * released */
struct client_attempt {
    struct client_pool *pool;
    const struct http_call *call;
    struct arena *arena;
    CURL *easy;
    struct curl_slist *header_list; /* arena */
    char *bearer_line;              /* arena; one of header_list, wiped in the end */
    size_t bearer_size;
    CURLcode setup_code; /* first option that curl refused */
    struct fiber_event done;
    CURLcode code;    /* valid once done */
    unsigned n_sends; /* times that curl was about to send the request */
    /* the answer so far */
    struct http_header *headers;
    size_t n_headers, header_bytes;
    struct buf body;
    bool has_too_many_headers, has_too_long_body;
    bool is_refused, has_opened; /* may_connect() took none, or one, of the addresses so far */
};

void client_attempt_done(void *attempt, CURLcode code)
{
    struct client_attempt *t = attempt;
    t->code = code;
    fiber_event_set(&t->done);
}

/* ---- what curl tells us while it works ---- */

/* About to send. curl sends a request again by itself when a pooled connection dies before the first byte of
 * the answer; the peer may have acted by then, so only repeatable calls get that second chance. */
static int on_sending(void *arg, char *peer_ip, char *own_ip, int peer_port, int own_port)
{
    struct client_attempt *t = arg;
    (void)peer_ip, (void)own_ip, (void)peer_port, (void)own_port;
    if (t->n_sends > 0 && !client_is_repeatable(t->call)) return CURL_PREREQFUNC_ABORT;
    t->n_sends++;
    return CURL_PREREQFUNC_OK;
}

/* May it go there? Whatever the URL says and its name resolves to, this is where it would be sent. */
static curl_socket_t on_opening(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct client_attempt *t = arg;
    bool is_allowed = t->call->may_connect(t->call->may_connect_arg, &address->addr);
    if (is_allowed) t->has_opened = true;
    t->is_refused = !t->has_opened;
    return is_allowed ? client_socket_open(t->pool, purpose, address) : CURL_SOCKET_BAD;
}

static struct strview lower_case(struct arena *a, struct strview s)
{
    char *text = arena_cstr(a, s);
    for (size_t i = 0; i < s.len; i++)
        if (text[i] >= 'A' && text[i] <= 'Z') text[i] = (char)(text[i] + ('a' - 'A'));
    return sv_n(text, s.len);
}

static size_t on_header(char *bytes, size_t size, size_t n, void *arg)
{
    struct client_attempt *t = arg;
    struct strview line = sv_trim(sv_n(bytes, size * n));
    size_t colon = sv_find(line, ':');
    t->header_bytes += size * n;
    if (t->n_headers == HTTP_HEADERS_MAX || t->header_bytes > HEADER_BYTES_MAX) {
        t->has_too_many_headers = true;
        return 0;
    }
    if (sv_starts_with(line, SV("HTTP/")))
        t->n_headers = 0; /* what came before was an interim answer (1xx) */
    else if (colon > 0 && colon < line.len)
        t->headers[t->n_headers++] = (struct http_header){
            .name = lower_case(t->arena, sv_trim(sv_sub(line, 0, colon))),
            .value = arena_copy(t->arena, sv_trim(sv_sub(line, colon + 1, line.len))),
        };
    return size * n;
}

static size_t on_body(char *bytes, size_t size, size_t n, void *arg)
{
    struct client_attempt *t = arg;
    buf_append(&t->body, sv_n(bytes, size * n));
    t->has_too_long_body = t->body.is_full;
    return t->has_too_long_body ? 0 : size * n;
}

/* ---- set-up ---- */

static void keep_first(struct client_attempt *t, CURLcode code)
{
    if (t->setup_code == CURLE_OK) t->setup_code = code;
}

static void set_long(struct client_attempt *t, CURLoption option, long value)
{
    keep_first(t, client_curl.easy_setopt(t->easy, option, value));
}

static void set_size(struct client_attempt *t, CURLoption option, size_t value)
{
    keep_first(t, client_curl.easy_setopt(t->easy, option, (curl_off_t)value));
}

static void set_ptr(struct client_attempt *t, CURLoption option, const void *value)
{
    keep_first(t, client_curl.easy_setopt(t->easy, option, value));
}

/* In the arena: curl reads the list and does not copy it. */
static void add_header_line(struct client_attempt *t, char *line)
{
    struct curl_slist *h = arena_alloc(t->arena, sizeof(*h));
    *h = (struct curl_slist){.data = line, .next = t->header_list};
    t->header_list = h;
}

static void add_bearer(struct client_attempt *t)
{
    struct strview token = t->call->bearer_token;
    if (token.len == 0) return;
    t->bearer_size = token.len + sizeof("Authorization: Bearer ");
    t->bearer_line = arena_alloc(t->arena, t->bearer_size);
    (void)snprintf(t->bearer_line, t->bearer_size, "Authorization: Bearer %.*s", SV_ARG(token));
    add_header_line(t, t->bearer_line);
}

static bool has_body(const struct http_call *c)
{
    return c->body.len > 0 || sv_eq(c->method, SV("POST")) || sv_eq(c->method, SV("PUT")) ||
           sv_eq(c->method, SV("PATCH"));
}

static void set_headers(struct client_attempt *t)
{
    static char no_type[] = "Content-Type:", no_expect[] = "Expect:";
    const struct http_call *c = t->call;
    for (size_t i = c->n_headers; i > 0; i--) {
        const struct http_header *h = &c->headers[i - 1];
        /* curl reads "Name:" as "leave it out" and "Name;" as "send it empty". */
        struct strview line = h->value.len > 0
                                  ? arena_printf(t->arena, "%.*s: %.*s", SV_ARG(h->name), SV_ARG(h->value))
                                  : arena_printf(t->arena, "%.*s;", SV_ARG(h->name));
        add_header_line(t, (char *)(uintptr_t)line.ptr);
    }
    /* What curl would add of its own to a body: a form's content type, and, from 1 MiB on, a pause of a
     * second for a 100. */
    if (has_body(c) && http_header_get(c->headers, c->n_headers, SV("content-type")).ptr == NULL)
        add_header_line(t, no_type);
    if (c->body.len >= EXPECT_BYTES) add_header_line(t, no_expect);
    add_bearer(t);
    set_ptr(t, CURLOPT_HTTPHEADER, t->header_list);
}

static void set_method(struct client_attempt *t)
{
    const struct http_call *c = t->call;
    struct strview method = c->method.len > 0 ? c->method : SV("GET");
    bool wants_body = has_body(c);
    if (wants_body) {
        set_size(t, CURLOPT_POSTFIELDSIZE_LARGE, c->body.len);
        set_ptr(t, CURLOPT_POSTFIELDS, c->body.len > 0 ? c->body.ptr : "");
    }
    if (sv_eq(method, SV("HEAD")))
        set_long(t, CURLOPT_NOBODY, 1);
    else if (!sv_eq(method, wants_body ? SV("POST") : SV("GET")))
        set_ptr(t, CURLOPT_CUSTOMREQUEST, arena_cstr(t->arena, method));
}

static void set_peer(struct client_attempt *t)
{
    const struct http_call *c = t->call;
    set_ptr(t, CURLOPT_URL, arena_cstr(t->arena, c->url));
    if (c->unix_path != NULL) {
        set_ptr(t, CURLOPT_UNIX_SOCKET_PATH, c->unix_path);
        set_ptr(t, CURLOPT_PROXY, ""); /* http_proxy of the environment cannot reach a path of this machine */
    }
    if (c->ca_file != NULL) set_ptr(t, CURLOPT_CAINFO, c->ca_file);
    if (c->tls_pin != NULL) {
        set_ptr(t, CURLOPT_PINNEDPUBLICKEY, c->tls_pin);
        set_long(t, CURLOPT_SSL_VERIFYPEER, 0);
        set_long(t, CURLOPT_SSL_VERIFYHOST, 0);
    }
    if (c->client_cert_file != NULL) set_ptr(t, CURLOPT_SSLCERT, c->client_cert_file);
    if (c->client_key_file != NULL) set_ptr(t, CURLOPT_SSLKEY, c->client_key_file);
}

static void set_guard(struct client_attempt *t)
{
    if (t->call->may_connect == NULL) return;
    keep_first(t, client_curl.easy_setopt(t->easy, CURLOPT_OPENSOCKETFUNCTION, on_opening));
    set_ptr(t, CURLOPT_OPENSOCKETDATA, t);
    set_long(t, CURLOPT_FRESH_CONNECT, 1); /* a connection of the pool was opened by somebody else */
    set_long(t, CURLOPT_FORBID_REUSE, 1);
    set_ptr(t, CURLOPT_PROXY, "");
}

static void set_callbacks(struct client_attempt *t, size_t max_body)
{
    set_ptr(t, CURLOPT_PRIVATE, t);
    keep_first(t, client_curl.easy_setopt(t->easy, CURLOPT_PREREQFUNCTION, on_sending));
    set_ptr(t, CURLOPT_PREREQDATA, t);
    keep_first(t, client_curl.easy_setopt(t->easy, CURLOPT_HEADERFUNCTION, on_header));
    set_ptr(t, CURLOPT_HEADERDATA, t);
    keep_first(t, client_curl.easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, on_body));
    set_ptr(t, CURLOPT_WRITEDATA, t);
    if (!sv_eq(t->call->method, SV("HEAD"))) set_size(t, CURLOPT_MAXFILESIZE_LARGE, max_body);
}

static enum status set_up(struct client_attempt *t, struct error *err)
{
    size_t max_body = client_max_body(t->call);
    t->easy = client_pool_easy_new(t->pool);
    if (t->easy == NULL) return error_set(err, STATUS_UNAVAILABLE, "no memory for a transfer");
    fiber_event_init(&t->done);
    buf_init(&t->body, max_body);
    t->headers = arena_alloc(t->arena, HTTP_HEADERS_MAX * sizeof(*t->headers));
    set_peer(t);
    set_guard(t);
    set_method(t);
    set_headers(t);
    set_callbacks(t, max_body);
    if (t->setup_code == CURLE_OK) return STATUS_OK;
    return error_set(err, STATUS_INVALID_ARGUMENT, "%s", client_curl.easy_strerror(t->setup_code));
}

static void release(struct client_attempt *t)
{
    if (t->easy != NULL) client_curl.easy_cleanup(t->easy);
    if (t->bearer_line != NULL) mem_wipe(t->bearer_line, t->bearer_size);
    buf_release(&t->body);
}

/* ---- outcome ---- */

static enum status wait_failed(struct client_attempt *t, enum status s, int64_t started_ns, struct error *err)
{
    if (s == STATUS_CANCELLED)
        return error_set(err, s, "cancelled%s", t->n_sends > 0 ? " after the request was sent" : "");
    return error_set(err, s, "no answer within %lld ms",
                     (long long)((clock_monotonic_ns() - started_ns) / NS_PER_MS));
}

static enum status transfer_failed(struct client_attempt *t, struct error *err)
{
    const char *why = client_curl.easy_strerror(t->code);
    enum status s = STATUS_UNAVAILABLE;
    if (t->has_too_many_headers)
        return error_set(err, STATUS_RESOURCE_EXHAUSTED,
                         "the answer has more than %d headers or %zu KiB of them", HTTP_HEADERS_MAX,
                         HEADER_BYTES_MAX / 1024);
    if (t->has_too_long_body || t->code == CURLE_FILESIZE_EXCEEDED)
        return error_set(err, STATUS_RESOURCE_EXHAUSTED, "the answer is longer than %zu bytes",
                         t->body.max_bytes);
    if (t->is_refused)
        return error_set(err, STATUS_PERMISSION_DENIED, "its address is not one that may be connected to");
    switch (t->code) {
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
        return error_set(err, STATUS_INVALID_ARGUMENT, "%s (curl %d)", why, (int)t->code);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
        client_count_refused_certificate();
        s = error_set(err, STATUS_UNAVAILABLE, "%s (curl %d)", why, (int)t->code);
        if (err != NULL) err->can_retry = false; /* its certificate will be as wrong in a second */
        return s;
    default:
        break;
    }
    if (t->n_sends > 0 && !client_is_repeatable(t->call)) s = STATUS_UNKNOWN;
    return error_set(err, s, "%s (curl %d)%s", why, (int)t->code,
                     s == STATUS_UNKNOWN ? " after the request was sent" : "");
}

static bool was_stale(const struct client_attempt *t)
{
    long n_connects = 1;
    (void)client_curl.easy_getinfo(t->easy, CURLINFO_NUM_CONNECTS, &n_connects);
    return n_connects == 0 && t->n_sends > 0 && t->header_bytes == 0;
}

static void read_answer(struct client_attempt *t, struct http_reply *ret_reply, struct client_hint *ret_hint)
{
    long status = 0;
    curl_off_t retry_after_s = 0;
    (void)client_curl.easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    (void)client_curl.easy_getinfo(t->easy, CURLINFO_RETRY_AFTER, &retry_after_s);
    ret_reply->status = (int)status;
    ret_reply->headers = t->headers;
    ret_reply->n_headers = t->n_headers;
    ret_reply->body = arena_copy(t->arena, buf_view(&t->body));
    ret_hint->retry_after_s = (int64_t)retry_after_s;
}

enum status client_attempt(const struct http_call *call, int64_t deadline_ns, struct arena *a,
                           struct http_reply *ret_reply, struct client_hint *ret_hint, struct error *err)
{
    struct client_attempt t = {.call = call, .arena = a};
    int64_t started_ns = clock_monotonic_ns();
    *ret_hint = (struct client_hint){0};
    enum status s = client_pool_get(&t.pool, err);
    if (s != STATUS_OK) return s;
    struct client_pool *p = t.pool;
    s = set_up(&t, err);
    if (s != STATUS_OK) goto out;
    CURLMcode added = client_curl.multi_add_handle(p->multi, t.easy);
    if (added != CURLM_OK) {
        s = error_set(err, STATUS_INTERNAL, "%s", client_curl.multi_strerror(added));
        goto out;
    }
    p->n_calls++;
    s = fiber_event_wait(&t.done, deadline_ns);
    p->n_calls--;
    (void)client_curl.multi_remove_handle(p->multi, t.easy); /* from here on curl knows nothing of `t` */
    if (s != STATUS_OK) {
        s = wait_failed(&t, s, started_ns, err);
    } else if (t.code != CURLE_OK) {
        ret_hint->was_stale = was_stale(&t);
        s = transfer_failed(&t, err);
    } else {
        read_answer(&t, ret_reply, ret_hint);
    }
out:
    release(&t);
    return s;
}
