/* Calls over plain HTTP to a literal address or a unix socket: on h2o's own client, which every function
 * links anyway. A third of the CPU of libcurl, and libcurl stays closed. Names (they want a resolver and
 * several addresses), TLS, proxies, tokens and guarded calls are curl's. */
#include <arpa/inet.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"
#include "client/client_impl.h"
#include "client/forward_impl.h"
#include "server/http_text.h"

#define PEERS_MAX    32
#define PEER_KEEP_NS (60 * NS_PER_S) /* an unused one may go */
#define PORT_DEFAULT 80

/* Where a call goes. Borrowed from the call, or in its arena. */
struct place {
    struct strview authority, target;
    const char *host; /* NULL: unix_path */
    const char *unix_path;
    uint16_t port;
};

struct peer {
    char *name; /* owned; "unix:/path" or "127.0.0.1:80" */
    struct upstream *upstream;
    int64_t used_ns;
};

/* One table a thread, because there is one loop a thread. */
static _Thread_local struct peer peers[PEERS_MAX];
static _Thread_local struct loop *peers_loop;

/* ---- where to ---- */

static bool has_proxy(void)
{
    static const char *const names[] = {"http_proxy", "all_proxy", "ALL_PROXY"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const char *value = getenv(names[i]);
        if (value != NULL && value[0] != '\0') return true;
    }
    return false;
}

/* False: not an address, or a port that is none. */
static bool read_authority(struct place *p, struct arena *a)
{
    struct in6_addr any;
    uint64_t port = PORT_DEFAULT;
    bool is_v6 = sv_starts_with(p->authority, SV("["));
    size_t end = is_v6 ? sv_find(p->authority, ']') : sv_find(p->authority, ':');
    struct strview host = sv_sub(p->authority, is_v6, end),
                   rest = sv_sub(p->authority, end + is_v6, p->authority.len);
    if (rest.len > 0 && (rest.ptr[0] != ':' || sv_parse_u64(sv_sub(rest, 1, rest.len), &port) != STATUS_OK))
        return false;
    p->host = arena_cstr(a, host);
    p->port = (uint16_t)port;
    return port > 0 && port <= UINT16_MAX && inet_pton(is_v6 ? AF_INET6 : AF_INET, p->host, &any) == 1;
}

static bool find_place(const struct http_call *call, struct arena *a, struct place *ret)
{
    static const struct strview scheme = {"http://", 7};
    if (!sv_starts_with(call->url, scheme) || call->bearer_token.len > 0) return false;
    if (call->may_connect != NULL) return false; /* these connections are shared */
    struct strview rest = sv_sub(call->url, scheme.len, call->url.len);
    size_t end = 0;
    while (end < rest.len && strchr("/?#", rest.ptr[end]) == NULL)
        end++;
    struct strview target = sv_sub(rest, end, end + sv_find(sv_sub(rest, end, rest.len), '#'));
    *ret = (struct place){.authority = sv_sub(rest, 0, end), .target = target, .unix_path = call->unix_path};
    if (sv_find(ret->authority, '@') < ret->authority.len || ret->authority.len == 0) return false;
    if (!is_visible_text(target)) return false; /* curl is less strict */
    if (!sv_starts_with(target, SV("/"))) ret->target = arena_printf(a, "/%.*s", SV_ARG(target));
    return ret->unix_path != NULL || (read_authority(ret, a) && !has_proxy());
}

/* ---- peers ---- */

static void forget(struct peer *p)
{
    upstream_free(p->upstream);
    free(p->name);
    *p = (struct peer){0};
}

/* A free entry, or one made free; NULL: all are in use. */
static struct peer *make_room(int64_t now_ns)
{
    struct peer *oldest = NULL;
    for (struct peer *p = peers; p < peers + PEERS_MAX; p++) {
        bool is_idle = p->upstream != NULL && upstream_inflight(p->upstream) == 0;
        if (is_idle && now_ns - p->used_ns > PEER_KEEP_NS) forget(p);
        if (p->upstream == NULL) return p;
        if (is_idle && (oldest == NULL || p->used_ns < oldest->used_ns)) oldest = p;
    }
    if (oldest != NULL) forget(oldest);
    return oldest;
}

/* NULL: there are too many at once, or the address is none. */
static struct upstream *peer_of(const struct place *place, struct arena *a)
{
    struct loop *l = loop_current();
    int64_t now_ns = loop_now_ns(l);
    struct strview name = place->unix_path != NULL ? arena_printf(a, "unix:%s", place->unix_path)
                                                   : arena_printf(a, "%s:%u", place->host, place->port);
    peers_loop = l;
    for (struct peer *p = peers; p < peers + PEERS_MAX; p++) {
        if (p->upstream == NULL || !sv_eq(sv(p->name), name)) continue;
        p->used_ns = now_ns;
        return p->upstream;
    }
    struct peer *p = make_room(now_ns);
    if (p == NULL || upstream_new(l, place->unix_path, place->host, place->port, CLIENT_HOST_CONNECTIONS_MAX,
                                  &p->upstream, NULL) != STATUS_OK)
        return NULL;
    p->name = sv_heap_copy(name);
    p->used_ns = now_ns;
    return p->upstream;
}

void client_plain_release(struct loop *l)
{
    if (peers_loop != l) return;
    for (struct peer *p = peers; p < peers + PEERS_MAX; p++)
        if (p->upstream != NULL) forget(p);
    peers_loop = NULL;
}

/* ---- one attempt ---- */

static enum status failed(const struct http_call *call, enum status s, const struct forward_trace *t,
                          int64_t started_ns, struct error *err)
{
    long long ms = (long long)((clock_monotonic_ns() - started_ns) / NS_PER_MS);
    bool may_have_run = t->is_sent && !client_is_repeatable(call);
    struct error why = *err;
    switch (s) {
    case STATUS_CANCELLED:
        return error_set(err, s, "cancelled%s", t->is_sent ? " after the request was sent" : "");
    case STATUS_DEADLINE_EXCEEDED:
        return error_set(err, s, "no answer within %lld ms", ms);
    case STATUS_UNAVAILABLE:
    case STATUS_UNKNOWN:
        s = may_have_run ? STATUS_UNKNOWN : STATUS_UNAVAILABLE;
        return error_set(err, s, "%s%s", why.message, may_have_run ? " after the request was sent" : "");
    default:
        return s;
    }
}

static int64_t retry_after_s(const struct http_reply *reply)
{
    uint64_t seconds;
    struct strview value = http_header_get(reply->headers, reply->n_headers, SV("retry-after"));
    return value.len > 0 && sv_parse_u64(value, &seconds) == STATUS_OK && seconds <= INT32_MAX
               ? (int64_t)seconds
               : 0;
}

bool client_plain_attempt(const struct http_call *call, int64_t deadline_ns, struct arena *a,
                          struct http_reply *ret_reply, struct client_hint *ret_hint, enum status *ret_status,
                          struct error *err)
{
    struct place place;
    struct forward_trace trace = {0};
    struct error why = {0};
    *ret_hint = (struct client_hint){0};
    if (!find_place(call, a, &place)) return false;
    struct upstream *u = peer_of(&place, a);
    if (u == NULL) return false;
    struct strview host = http_header_get(call->headers, call->n_headers, SV("host"));
    struct forward_spec spec = {
        .method = call->method.len > 0 ? call->method : SV("GET"),
        .target = place.target,
        .authority = host.len > 0 ? host : place.authority,
        .headers = call->headers,
        .n_headers = call->n_headers,
        .body = call->body,
        .deadline_ns = deadline_ns,
        .max_body_bytes = client_max_body(call),
        .is_repeatable = client_is_repeatable(call),
    };
    int64_t started_ns = clock_monotonic_ns();
    enum status s = forward_run(u, &spec, a, ret_reply, &trace, &why);
    if (s == STATUS_OK)
        ret_hint->retry_after_s = retry_after_s(ret_reply);
    else
        s = failed(call, s, &trace, started_ns, &why);
    if (s != STATUS_OK && err != NULL) *err = why;
    *ret_status = s;
    return true;
}
