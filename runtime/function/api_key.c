#include "function/api_key.h"

#include "base/hash.h"
#include "base/memory.h"
#include "function/params.h"
#include "function/secret.h"
#include "server/http_text.h"

struct strview api_key_secret(const json_t *manifest, struct arena *a)
{
    struct strview name = json_get_text(manifest, "name");
    if (!sv_eq(json_get_text(manifest, "auth"), SV("api-key"))) return sv(NULL);
    if (!param_pattern_matches(PARAM_NAME, name)) return SV("api-key");
    return arena_printf(a, "%.*s-api-key", SV_ARG(name));
}

void api_key_derive(struct strview master, struct strview function, char ret_hex[65])
{
    hmac_derive_key(master, "balm-gateway-key-v1", function, ret_hex);
}

/* All of them are looked at: neither the place of a key nor how much of it is right shows in the time. One
 * that is no key shuts everybody out, or a slip of the pen would go unnoticed until that key is needed. */
static enum status compare(struct strview keys, const char *secret, struct strview given, struct error *err)
{
    struct strview line;
    bool is_one = false;
    for (unsigned number = 1; sv_next(&keys, '\n', &line); number++) {
        line = sv_trim(line);
        if (line.len == 0) continue;
        if (line.len < API_KEY_LEN_MIN || line.len > API_KEY_LEN_MAX || !is_visible_text(line))
            return error_set(err, STATUS_UNAVAILABLE,
                             "secret '%s': line %u is no key: %d to %d characters without blanks", secret,
                             number, API_KEY_LEN_MIN, API_KEY_LEN_MAX);
        is_one |= sv_eq_constant_time(given, line);
    }
    return is_one ? STATUS_OK : error_set(err, STATUS_UNAUTHENTICATED, "the API key is wrong");
}

static enum status check(struct arena *a, const char *folder, const char *secret, struct strview given,
                         struct error *err)
{
    struct strview keys;
    struct error why;
    if (given.len == 0) return error_set(err, STATUS_UNAUTHENTICATED, "no API key");
    if (secret_read_from(a, folder, secret, &keys, &why) != STATUS_OK)
        return error_set(err, STATUS_UNAVAILABLE, "%s", why.message);
    enum status s = compare(keys, secret, given, err);
    mem_wipe((char *)(uintptr_t)keys.ptr, keys.len);
    return s;
}

enum status api_key_check(const char *folder, const char *secret, struct strview given, struct error *err)
{
    struct arena a = {0};
    enum status s = check(&a, folder, secret, given, err);
    arena_release(&a);
    return s;
}

enum status api_key_check_own(const char *secret, struct strview given, struct error *err)
{
    enum status s = api_key_check(secret_folder(), API_KEY_GATEWAY_SECRET, given, err);
    return s == STATUS_UNAVAILABLE ? api_key_check(secret_folder(), secret, given, err) : s;
}

const struct http_header *api_key_replace(const struct http_req *req, struct strview key, size_t *ret_n)
{
    struct http_header *headers = arena_array(req->arena, req->n_headers + 1, sizeof(*headers));
    size_t n = 0;
    for (size_t i = 0; i < req->n_headers; i++)
        if (!sv_eq(req->headers[i].name, SV(API_KEY_HEADER))) headers[n++] = req->headers[i];
    if (key.len > 0) headers[n++] = (struct http_header){SV(API_KEY_HEADER), key};
    *ret_n = n;
    return headers;
}

void api_key_refuse(const struct http_req *req, struct strview function, enum status why,
                    struct http_resp *resp)
{
    bool is_given = http_req_header(req, SV(API_KEY_HEADER)).len > 0;
    const char *sentence = why == STATUS_UNAVAILABLE ? "cannot compare API keys now"
                           : is_given                ? "does not take this API key"
                                                     : "asks for an API key: send it as X-Api-Key";
    http_resp_set(resp, status_to_http(why), SV("text/plain; charset=utf-8"),
                  arena_printf(req->arena, "function %.*s %s\n", SV_ARG(function), sentence));
    if (why == STATUS_UNAUTHENTICATED)
        http_resp_header(
            resp, SV("www-authenticate"),
            arena_printf(req->arena, "ApiKey realm=\"%.*s\", header=\"X-Api-Key\"", SV_ARG(function)));
}
