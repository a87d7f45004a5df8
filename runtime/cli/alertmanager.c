#include "cli/alertmanager.h"

#include <openssl/evp.h>

#include "base/clock.h"
#include "base/file.h"
#include "client/client.h"

#define CALL_TIMEOUT_NS (20 * NS_PER_S)
#define ANSWER_MAX      (64 * 1024 * 1024) /* all alerts of an outage, with their annotations */
#define LOGIN_MAX       4096
enum { SHOWN_MAX = 200 };

static enum status find_base(const struct alertmanager_cfg *cfg, struct strview *ret_base, struct error *err)
{
    struct strview url = sv(cfg->url);
    while (sv_ends_with(url, SV("/")))
        url.len--;
    if (!sv_starts_with(url, SV("http://")) && !sv_starts_with(url, SV("https://")))
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "--alertmanager '%.*s' does not begin with http:// or https://",
                         SV_ARG(sv_sub(url, 0, SHOWN_MAX)));
    if (sv_find(url, '@') < url.len)
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "--alertmanager takes no credentials in its URL: put them into a file and give "
                         "--alertmanager-login");
    *ret_base = url;
    return STATUS_OK;
}

static struct strview authorization(struct strview login, struct arena *a)
{
    if (sv_find(login, ':') == login.len) return arena_printf(a, "Bearer %.*s", SV_ARG(login));
    unsigned char *text = arena_alloc(a, (login.len + 2) / 3 * 4 + 1);
    int n = EVP_EncodeBlock(text, (const unsigned char *)login.ptr, (int)login.len);
    return arena_printf(a, "Basic %.*s", n, (const char *)text);
}

static enum status find_login(const struct alertmanager_cfg *cfg, struct arena *a, struct strview *ret_header,
                              struct error *err)
{
    struct strview login;
    struct error why;
    *ret_header = sv(NULL);
    if (cfg->login_file == NULL) return STATUS_OK;
    if (file_read(a, cfg->login_file, LOGIN_MAX, &login, &why) != STATUS_OK)
        return error_set(err, STATUS_INVALID_ARGUMENT, "--alertmanager-login: %s", why.message);
    login = sv_trim(login);
    if (login.len == 0)
        return error_set(err, STATUS_INVALID_ARGUMENT, "--alertmanager-login: %s is empty", cfg->login_file);
    *ret_header = authorization(login, a);
    return STATUS_OK;
}

/* A refusal is a JSON string; what stands before an Alertmanager says what it likes. */
static enum status read_answer(const struct http_reply *reply, struct strview base, json_t **ret_answer,
                               struct error *err)
{
    json_t *answer = NULL;
    struct error why;
    struct strview body = sv_trim(reply->body);
    enum status s = STATUS_OK;
    if (body.len > 0) s = json_parse(body, JSON_DECODE_ANY, &answer, &why);
    if (reply->status / 100 != 2) {
        struct strview said = json_is_string(answer) ? sv(json_string_value(answer)) : body;
        s = status_from_http(reply->status);
        if (s == STATUS_UNAVAILABLE || s == STATUS_NOT_FOUND || s == STATUS_INVALID_ARGUMENT)
            s = STATUS_FAILED_PRECONDITION; /* somebody is there */
        s = error_set(err, s, "Alertmanager at %.*s: HTTP %d %.*s", SV_ARG(base), reply->status,
                      SV_ARG(sv_sub(said, 0, SHOWN_MAX)));
    } else if (s != STATUS_OK) {
        s = error_set(err, STATUS_FAILED_PRECONDITION, "%.*s is no Alertmanager: its answer is not JSON",
                      SV_ARG(base));
    }
    if (s == STATUS_OK)
        *ret_answer = answer;
    else
        json_release(answer);
    return s;
}

static enum status send_call(const struct alertmanager_cfg *cfg, struct http_call *call, const char *path,
                             struct arena *a, json_t **ret_answer, struct error *err)
{
    struct strview base = {0}, login = {0};
    struct http_reply reply;
    enum status s = find_base(cfg, &base, err);
    if (s == STATUS_OK) s = find_login(cfg, a, &login, err);
    if (s != STATUS_OK) return s;
    const struct http_header headers[] = {{SV("content-type"), SV("application/json")},
                                          {SV("authorization"), login}};
    call->url = arena_printf(a, "%.*s/api/v2%s", SV_ARG(base), path);
    call->headers = headers;
    call->n_headers = login.len > 0 ? 2 : 1;
    call->timeout_ns = CALL_TIMEOUT_NS;
    call->max_body_bytes = ANSWER_MAX;
    s = cli_http(call, a, &reply, err);
    if (s == STATUS_UNAVAILABLE || s == STATUS_DEADLINE_EXCEEDED) {
        (void)!error_prefix(err, s, "no Alertmanager answers at %.*s", SV_ARG(base));
        return STATUS_UNAVAILABLE;
    }
    return s == STATUS_OK ? read_answer(&reply, base, ret_answer, err) : s;
}

enum status alertmanager_call(const struct alertmanager_cfg *cfg, const char *method, const char *path,
                              const json_t *body, json_t **ret_answer, struct error *err)
{
    struct arena a = {0};
    struct http_call call = {.method = sv(method)};
    if (body != NULL) call.body = json_canonical(&a, body);
    enum status s = send_call(cfg, &call, path, &a, ret_answer, err);
    arena_release(&a);
    return s;
}
