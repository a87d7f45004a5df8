#include "cli/cli.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "client/client.h"
#include "gateway/gateway.h"
#include "loop/loop.h"
#include "server/tls_pair.h"

/* balm stop waits for restarts under way (at most 97 s, gateway/broker_restart.h), then 16 s for the bots. */
#define API_TIMEOUT_NS (180 * NS_PER_S)
#define API_ANSWER_MAX (16 * 1024 * 1024)

/* A call of main(), which runs the loop only for it. */
struct lone_call {
    const struct http_call *call;
    struct loop *loop;
    struct arena *arena;
    struct http_reply reply;
    enum status status;
    struct error *err;
};

/* One request to a platform. */
struct api_request {
    const struct cli_platform *platform;
    const char *data_dir;
    struct arena *arena;
    struct error *err;
};

static void call_fiber(void *arg)
{
    struct lone_call *c = arg;
    c->status = http_request(c->call, c->arena, &c->reply, c->err);
    client_release(c->loop);
}

enum status cli_http(const struct http_call *call, struct arena *a, struct http_reply *ret_reply,
                     struct error *err)
{
    struct lone_call c = {.call = call, .arena = a, .err = err};
    enum status s = loop_new(&c.loop, err);
    if (s != STATUS_OK) return s;
    s = loop_run_fiber(c.loop, call_fiber, &c, err);
    if (s == STATUS_OK) s = c.status;
    loop_free(c.loop);
    if (s == STATUS_OK) *ret_reply = c.reply;
    return s;
}

static enum status read_secret(struct api_request *r, const char *name, struct strview *ret_text)
{
    const char *path = arena_printf(r->arena, "%s/secrets/%s", r->data_dir, name).ptr;
    enum status s = file_read(r->arena, path, 4096, ret_text, r->err);
    if (s == STATUS_OK) *ret_text = sv_trim(*ret_text);
    return s;
}

/* A killed platform leaves its run.json, and its port may be anybody's by now: the credentials must not go
 * there. The kernel knows who holds the lock; where we may not look, the port decides. */
bool cli_is_abandoned(const char *data_dir, struct arena *a)
{
    int fd = open(arena_printf(a, "%s/lock", data_dir).ptr, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    bool is_free = fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type == F_UNLCK;
    (void)close(fd);
    return is_free;
}

/* Where the platform on the data folder listens. */
static enum status read_run_file(struct api_request *r, struct strview *ret_url)
{
    const char *path = arena_printf(r->arena, "%s/run.json", r->data_dir).ptr;
    struct strview text;
    struct error err;
    if (file_read(r->arena, path, 4096, &text, &err) != STATUS_OK)
        return error_set(r->err, STATUS_UNAVAILABLE, "no platform is running on %s (%s)", r->data_dir,
                         err.message);
    if (cli_is_abandoned(r->data_dir, r->arena))
        return error_set(r->err, STATUS_UNAVAILABLE,
                         "no platform is running on %s, the last one was killed: start it again with balm up",
                         r->data_dir);
    json_t *run = NULL;
    enum status s = json_parse(text, 0, &run, r->err);
    if (s != STATUS_OK) return error_prefix(r->err, s, "%s", path);
    *ret_url = arena_copy(r->arena, json_get_text(run, "url"));
    json_release(run);
    if (ret_url->len == 0) return error_set(r->err, STATUS_UNAVAILABLE, "%s names no url", path);
    return STATUS_OK;
}

static struct strview base64(struct arena *a, struct strview in)
{
    unsigned char *out = arena_alloc(a, (in.len + 2) / 3 * 4 + 1);
    int n = EVP_EncodeBlock(out, (const unsigned char *)in.ptr, (int)in.len);
    return sv_n((const char *)out, (size_t)n);
}

static enum status read_local_login(struct api_request *r, struct strview *ret_login)
{
    struct strview user, password;
    enum status s = read_secret(r, "basic-auth-user", &user);
    if (s == STATUS_OK) s = read_secret(r, "basic-auth-password", &password);
    if (s == STATUS_OK) *ret_login = arena_printf(r->arena, "%.*s:%.*s", SV_ARG(user), SV_ARG(password));
    return s;
}

static enum status read_token_file(struct api_request *r, struct strview *ret_login)
{
    struct strview text;
    if (r->platform->token_file == NULL)
        return error_set(r->err, STATUS_INVALID_ARGUMENT,
                         "--url needs --token-file: a copy of that platform's secrets/basic-auth-password");
    struct error why;
    if (file_read(r->arena, r->platform->token_file, 4096, &text, &why) != STATUS_OK)
        return error_set(r->err, STATUS_INVALID_ARGUMENT, "--token-file: %s", why.message);
    text = sv_trim(text);
    if (text.len == 0)
        return error_set(r->err, STATUS_INVALID_ARGUMENT, "--token-file %s is empty",
                         r->platform->token_file);
    *ret_login = sv_find(text, ':') < text.len ? text : arena_printf(r->arena, "admin:%.*s", SV_ARG(text));
    return STATUS_OK;
}

static enum status find_url(struct api_request *r, struct strview *ret_url)
{
    if (r->platform->url == NULL) return read_run_file(r, ret_url);
    struct strview url = sv(r->platform->url);
    while (sv_ends_with(url, SV("/")))
        url.len--;
    if (!sv_starts_with(url, SV("http://")) && !sv_starts_with(url, SV("https://")))
        return error_set(r->err, STATUS_INVALID_ARGUMENT,
                         "--url '%.*s' does not begin with http:// or https://", SV_ARG(sv_sub(url, 0, 200)));
    *ret_url = url;
    return STATUS_OK;
}

static enum status request_to(const struct cli_platform *platform, struct arena *a,
                              struct api_request *ret_request, struct error *err)
{
    const char *data_dir = platform->data_dir;
    enum status s = platform->url == NULL ? cli_data_dir(data_dir, a, &data_dir, err) : STATUS_OK;
    if (s == STATUS_OK)
        *ret_request =
            (struct api_request){.platform = platform, .data_dir = data_dir, .arena = a, .err = err};
    return s;
}

enum status cli_platform_url(const struct cli_platform *platform, struct arena *a, struct strview *ret_url,
                             struct error *err)
{
    struct api_request r;
    enum status s = request_to(platform, a, &r, err);
    return s == STATUS_OK ? find_url(&r, ret_url) : s;
}

static enum status nobody_answers(struct api_request *r, struct strview url)
{
    if (r->platform->url != NULL || sv_starts_with(url, SV("https://"))) /* it may be the certificate */
        return error_prefix(r->err, STATUS_UNAVAILABLE, "no platform answers at %.*s", SV_ARG(url));
    return error_set(r->err, STATUS_UNAVAILABLE,
                     "no platform answers at %.*s; it may have been killed: start it again with balm up",
                     SV_ARG(url));
}

static enum status read_answer(const struct http_reply *reply, json_t **ret_answer, struct error *err)
{
    json_t *answer = NULL;
    enum status s = json_parse(reply->body, 0, &answer, err);
    if (reply->status / 100 == 2) {
        if (s == STATUS_OK) *ret_answer = answer;
        return s;
    }
    struct strview sentence = s == STATUS_OK ? json_get_text(answer, "error") : sv_trim(reply->body);
    s = status_from_http(reply->status);
    if (s == STATUS_UNAVAILABLE) s = STATUS_RESOURCE_EXHAUSTED; /* somebody runs, and says no */
    s = error_set(err, s, "%.*s (HTTP %d)", SV_ARG(sentence), reply->status);
    json_release(answer);
    return s;
}

enum status cli_trust_platform(const struct cli_platform *platform, struct strview url, struct arena *a,
                               struct http_call *call, struct error *err)
{
    if (!sv_starts_with(url, SV("https://"))) return STATUS_OK;
    call->ca_file = platform->ca_file;
    if (platform->url != NULL) return STATUS_OK;
    struct strview pin;
    const char *data_dir;
    enum status s = cli_data_dir(platform->data_dir, a, &data_dir, err);
    if (s == STATUS_OK)
        s = file_read(a, arena_printf(a, "%s/run/" GATEWAY_PIN_FILE, data_dir).ptr, TLS_PIN_MAX, &pin, err);
    if (s == STATUS_OK) call->tls_pin = arena_cstr(a, sv_trim(pin));
    return s;
}

static enum status send_request(struct api_request *r, struct http_call *call, const char *path,
                                json_t **ret_answer)
{
    struct strview url = {0}, login = {0};
    enum status s = find_url(r, &url);
    if (s == STATUS_OK)
        s = r->platform->url != NULL ? read_token_file(r, &login) : read_local_login(r, &login);
    if (s == STATUS_OK) s = cli_trust_platform(r->platform, url, r->arena, call, r->err);
    if (s != STATUS_OK) return s;

    struct http_header headers[] = {
        {SV("authorization"), arena_printf(r->arena, "Basic %.*s", SV_ARG(base64(r->arena, login)))},
        {SV("content-type"), SV("application/json")},
    };
    call->url = arena_printf(r->arena, "%.*s%s", SV_ARG(url), path);
    call->headers = headers;
    call->n_headers = ARRAY_LEN(headers);
    call->timeout_ns = API_TIMEOUT_NS;
    call->max_body_bytes = API_ANSWER_MAX;
    struct http_reply reply;
    s = cli_http(call, r->arena, &reply, r->err);
    if (s == STATUS_UNAVAILABLE) return nobody_answers(r, url);
    return s == STATUS_OK ? read_answer(&reply, ret_answer, r->err) : s;
}

enum status cli_api_text(const struct cli_platform *platform, const char *method, const char *path,
                         struct strview body, json_t **ret_answer, struct error *err)
{
    struct arena a = {0};
    struct api_request r;
    struct http_call call = {.method = sv(method), .body = body};
    enum status s = request_to(platform, &a, &r, err);
    if (s == STATUS_OK) s = send_request(&r, &call, path, ret_answer);
    arena_release(&a);
    return s;
}

enum status cli_api(const struct cli_platform *platform, const char *method, const char *path,
                    const json_t *body, json_t **ret_answer, struct error *err)
{
    struct arena a = {0};
    struct strview text = body != NULL ? json_canonical(&a, body) : sv(NULL);
    enum status s = cli_api_text(platform, method, path, text, ret_answer, err);
    arena_release(&a);
    return s;
}

enum status cli_put(json_t *body, const char *name, const char *text, struct error *err)
{
    if (json_object_set_new(body, name, json_string(text)) == 0) return STATUS_OK;
    return error_set(err, STATUS_INVALID_ARGUMENT, "%s is not UTF-8", name);
}

struct strview cli_url_encoded(struct arena *a, struct strview text)
{
    static const char hex[] = "0123456789ABCDEF";
    char *out = arena_alloc(a, 3 * text.len + 1);
    size_t n = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        bool is_plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                        c == '-' || c == '.' || c == '_';
        if (is_plain) {
            out[n++] = (char)c;
            continue;
        }
        out[n++] = '%';
        out[n++] = hex[c >> 4];
        out[n++] = hex[c & 15];
    }
    return sv_n(out, n);
}
