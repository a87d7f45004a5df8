#include "gateway/callback.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#include "config/quote.h"
#include "gateway/gateway_impl.h"
#include "server/http_text.h"

#define V4_BITS 96 /* of the prefix of an IPv4 address that is written as IPv6, ::ffff:a.b.c.d */

/* IPv4 as the mapped IPv6, so that one comparison does for both. */
struct network {
    struct in6_addr address;
    unsigned bits;
};

/* Nothing that an answer could be meant for: this host, link-local (with most clouds' metadata), the other
 * clouds' metadata servers, multicast and reserved ones. */
static const char never[] = "0.0.0.0/8,169.254.0.0/16,100.100.100.200,168.63.129.16,192.0.0.192,224.0.0.0/4,"
                            "240.0.0.0/4,::/128,fe80::/10,fec0::/10,ff00::/8,fd00:ec2::254,fd20:ce::254";
static const char loopback[] = "127.0.0.0/8,::1";

/* ---- networks ---- */

static void map_v4(const struct in_addr *v4, struct in6_addr *ret)
{
    *ret = (struct in6_addr){.s6_addr = {[10] = 0xff, [11] = 0xff}};
    memcpy(&ret->s6_addr[12], v4, sizeof(*v4));
}

static bool parse_address(struct strview text, struct in6_addr *ret, bool *ret_is_v4)
{
    char copy[INET6_ADDRSTRLEN];
    struct in_addr v4;
    if (text.len >= sizeof(copy)) return false;
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    *ret_is_v4 = inet_pton(AF_INET, copy, &v4) == 1;
    if (*ret_is_v4) map_v4(&v4, ret);
    return *ret_is_v4 || inet_pton(AF_INET6, copy, ret) == 1;
}

static bool parse_network(struct strview text, struct network *ret)
{
    size_t slash = sv_find(text, '/');
    uint64_t bits = 0;
    bool is_v4;
    if (!parse_address(sv_sub(text, 0, slash), &ret->address, &is_v4)) return false;
    unsigned max = is_v4 ? 32 : 128;
    if (slash == text.len)
        bits = max;
    else if (sv_parse_u64(sv_sub(text, slash + 1, text.len), &bits) != STATUS_OK || bits > max)
        return false;
    ret->bits = (unsigned)bits + (is_v4 ? V4_BITS : 0);
    return true;
}

static bool is_in_network(const struct network *n, const struct in6_addr *address)
{
    unsigned bytes = n->bits / 8, rest = n->bits % 8;
    if (memcmp(&n->address, address, bytes) != 0) return false;
    return rest == 0 || ((n->address.s6_addr[bytes] ^ address->s6_addr[bytes]) >> (8 - rest)) == 0;
}

/* `networks` as callback_check_networks() takes them. */
static bool is_in(const char *networks, const struct in6_addr *address)
{
    struct strview rest = sv(networks), one;
    struct network n;
    while (sv_next(&rest, ',', &one))
        if (parse_network(sv_trim(one), &n) && is_in_network(&n, address)) return true;
    return false;
}

enum status callback_check_networks(const char *text, struct error *err)
{
    struct strview rest = sv(text), one;
    struct network n;
    unsigned count = 0;
    while (sv_next(&rest, ',', &one)) {
        char shown[QUOTE_MAX];
        if (!parse_network(sv_trim(one), &n))
            return error_set(err, STATUS_INVALID_ARGUMENT,
                             "'%s': not an address or network (10.0.0.0/8, fd00::/8, 192.0.2.7)",
                             quote_text(one, shown));
        if (++count > CALLBACK_NETWORKS_COUNT)
            return error_set(err, STATUS_INVALID_ARGUMENT, "more than %d networks", CALLBACK_NETWORKS_COUNT);
    }
    return STATUS_OK;
}

/* ---- may it be connected to? ---- */

/* False: neither IPv4 nor IPv6. Addresses that only wrap an IPv4 one (mapped, NAT64) count as that. */
static bool read_sockaddr(const struct sockaddr *address, struct in6_addr *ret, uint16_t *ret_port)
{
    static const unsigned char nat64[12] = {0x00, 0x64, 0xff, 0x9b};
    if (address->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, address, sizeof(in));
        map_v4(&in.sin_addr, ret);
        *ret_port = ntohs(in.sin_port);
        return true;
    }
    if (address->sa_family != AF_INET6) return false;
    struct sockaddr_in6 in6;
    memcpy(&in6, address, sizeof(in6));
    *ret = in6.sin6_addr;
    *ret_port = ntohs(in6.sin6_port);
    if (memcmp(ret, nat64, sizeof(nat64)) == 0)
        map_v4((const struct in_addr *)(const void *)&in6.sin6_addr.s6_addr[12], ret);
    return true;
}

static bool is_own_address(const struct in6_addr *address)
{
    struct ifaddrs *list;
    bool is_own = is_in(loopback, address) || is_in("0.0.0.0/8,::/128", address);
    if (is_own) return true;
    if (getifaddrs(&list) != 0) return true; /* then nothing is said not to be ours */
    for (const struct ifaddrs *i = list; i != NULL && !is_own; i = i->ifa_next) {
        struct in6_addr own;
        uint16_t port;
        is_own = i->ifa_addr != NULL && read_sockaddr(i->ifa_addr, &own, &port) &&
                 memcmp(&own, address, sizeof(own)) == 0;
    }
    freeifaddrs(list);
    return is_own;
}

/* Where one URL may lead. */
struct reach {
    struct gateway *gateway;
    bool may_call_us; /* it names a function of ours, which anybody may call */
};

static bool may_connect(void *arg, const struct sockaddr *address)
{
    const struct reach *reach = arg;
    const struct gateway *g = reach->gateway;
    const char *networks = g->cfg.callback_networks;
    struct in6_addr in6;
    uint16_t port;
    if (!read_sockaddr(address, &in6, &port)) return false;
    if (port == (g->server != NULL ? gateway_port(g) : g->cfg.port) && is_own_address(&in6))
        return reach->may_call_us;
    if (networks != NULL && networks[0] != '\0') return is_in(networks, &in6);
    if (is_in(loopback, &in6)) return gateway_is_on_loopback(g);
    return !is_in(never, &in6);
}

/* ---- a caller's URL ---- */

static bool is_plain(char c)
{
    bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    return is_letter || (c >= '0' && c <= '9') || strchr("-_~./?=&+,:", c) != NULL;
}

/* "/function/NAME…" or "/async-function/NAME…" of one that is deployed and does not act. Nothing that could
 * be read as another path is in it. */
static bool names_function(struct gateway *g, struct strview path)
{
    static const struct strview prefixes[] = {{"/function/", 10}, {"/async-function/", 16}};
    struct strview rest = {0};
    for (size_t i = 0; i < ARRAY_LEN(prefixes); i++)
        if (sv_starts_with(path, prefixes[i])) rest = sv_sub(path, prefixes[i].len, path.len);
    size_t end = 0;
    for (size_t i = 0; i < rest.len; i++)
        if (!is_plain(rest.ptr[i])) return false;
    while (end < rest.len && rest.ptr[end] != '/' && rest.ptr[end] != '?')
        end++;
    const struct deployment *d = supervisor_find(g, sv_sub(rest, 0, end));
    return d != NULL && !d->info.acts && !sv_contains(rest, SV(".."));
}

/* The part before the path, and where it may lead. `url` begins with http:// or https://. */
static struct strview split_url(struct gateway *g, struct strview url, struct reach *ret_reach)
{
    struct strview rest = sv_sub(url, sv_starts_with(url, SV("https://")) ? 8 : 7, url.len);
    size_t end = 0;
    while (end < rest.len && strchr("/?#\\", rest.ptr[end]) == NULL)
        end++;
    *ret_reach = (struct reach){g, names_function(g, sv_sub(rest, end, rest.len))};
    return sv_sub(rest, 0, end);
}

/* "host", "host:port", "[::1]:port". False: it is written as no address, so it is asked when it is known. */
static bool literal_address(struct strview authority, uint16_t port, struct sockaddr_in6 *ret)
{
    bool is_v6 = sv_starts_with(authority, SV("[")), is_v4;
    size_t end = is_v6 ? sv_find(authority, ']') : sv_find(authority, ':');
    struct strview digits = sv_sub(authority, end + 1 + is_v6, authority.len);
    uint64_t given = 0;
    if (digits.len > 0 && sv_parse_u64(digits, &given) == STATUS_OK && given <= UINT16_MAX)
        port = (uint16_t)given;
    *ret = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(port)};
    return parse_address(sv_sub(authority, is_v6, end), &ret->sin6_addr, &is_v4);
}

enum status callback_check_url(struct gateway *g, struct strview url, struct error *err)
{
    bool is_tls = sv_starts_with(url, SV("https://"));
    if (!is_tls && !sv_starts_with(url, SV("http://")))
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "X-Callback-Url: it must start with http:// or https://");
    if (url.len > CALLBACK_URL_MAX)
        return error_set(err, STATUS_INVALID_ARGUMENT, "X-Callback-Url: %zu bytes, at most %d are allowed",
                         url.len, CALLBACK_URL_MAX);
    if (!is_visible_text(url) || !sv_is_utf8(url))
        return error_set(err, STATUS_INVALID_ARGUMENT, "X-Callback-Url: it has a space or control character");
    struct reach reach;
    struct strview authority = split_url(g, url, &reach);
    struct sockaddr_in6 address;
    if (authority.len == 0 || authority.ptr[0] == ':')
        return error_set(err, STATUS_INVALID_ARGUMENT, "X-Callback-Url: it names no host");
    if (sv_find(authority, '@') < authority.len)
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "X-Callback-Url: a user or password in it is refused, since it would be recorded");
    if (literal_address(authority, is_tls ? 443 : 80, &address) &&
        !may_connect(&reach, (const struct sockaddr *)&address))
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "X-Callback-Url: answers are not posted to that address (see --callback-networks)");
    return STATUS_OK;
}

enum status callback_post(struct gateway *g, struct strview url, const struct http_header *headers,
                          size_t n_headers, struct strview body, struct arena *a, int *ret_http_status,
                          struct error *err)
{
    struct http_reply reply;
    struct reach reach;
    (void)split_url(g, url, &reach);
    const struct http_call call = {
        .method = SV("POST"),
        .url = url,
        .headers = headers,
        .n_headers = n_headers,
        .body = body,
        .timeout_ns = CALLBACK_TIMEOUT_NS,
        .max_body_bytes = CALLBACK_ANSWER_MAX,
        .may_connect = may_connect,
        .may_connect_arg = &reach,
    };
    enum status s = http_request(&call, a, &reply, err);
    if (s == STATUS_OK) *ret_http_status = reply.status;
    return s;
}
