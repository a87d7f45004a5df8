#include "cli/cli.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "client/client.h"
#include "loop/loop.h"

/* balm stop waits for restarts under way (at most 97 s, gateway/broker_restart.h), then 16 s for the bots. */
#define API_TIMEOUT_NS (180 * NS_PER_S)
#define API_ANSWER_MAX (16 * 1024 * 1024)

/* One request, as one struct: main() runs the loop only for it. */
struct api_request {
    const struct cli_platform *platform;
    const char *data_dir, *method, *path;
    const json_t *body;
    struct loop *loop;
    struct arena arena;
    json_t *answer;
    enum status status;
    struct error *err;
};

static enum status read_secret(struct api_request *r, const char *name, struct strview *ret_text)
{
    const char *path = arena_printf(&r->arena, "%s/secrets/%s", r->data_dir, name).ptr;
    enum status s = file_read(&r->arena, path, 4096, ret_text, r->err);
    if (s == STATUS_OK) *ret_text = sv_trim(*ret_text);
    return s;
}

/* A killed platform leaves its run.json, and its port may be anybody's by now: the credentials must not go
 * there. The kernel knows who holds the lock; where we may not look, the port decides. */
static bool is_abandoned(struct api_request *r)
{
    int fd = open(arena_printf(&r->arena, "%s/lock", r->data_dir).ptr, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    bool is_free = fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type == F_UNLCK;
    (void)close(fd);
    return is_free;
}

/* Where the platform on the data folder listens. */
static enum status read_run_file(struct api_request *r, struct strview *ret_url)
{
    const char *path = arena_printf(&r->arena, "%s/run.json", r->data_dir).ptr;
    struct strview text;
    struct error err;
    if (file_read(&r->arena, path, 4096, &text, &err) != STATUS_OK)
        return error_set(r->err, STATUS_UNAVAILABLE, "no platform is running on %s (%s)", r->data_dir,
                         err.message);
    if (is_abandoned(r))
        return error_set(r->err, STATUS_UNAVAILABLE,
                         "no platform is running on %s, the last one was killed: start it again with balm up",
                         r->data_dir);
    json_t *run = NULL;
    enum status s = json_parse(text, 0, &run, r->err);
    if (s != STATUS_OK) return error_prefix(r->err, s, "%s", path);
    *ret_url = arena_copy(&r->arena, json_get_text(run, "url"));
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
    if (s == STATUS_OK) *ret_login = arena_printf(&r->arena, "%.*s:%.*s", SV_ARG(user), SV_ARG(password));
    return s;
}

static enum status read_token_file(struct api_request *r, struct strview *ret_login)
{
    struct strview text;
    if (r->platform->token_file == NULL)
        return error_set(r->err, STATUS_INVALID_ARGUMENT,
                         "--url needs --token-file: a copy of that platform's secrets/basic-auth-password");
    struct error why;
    if (file_read(&r->arena, r->platform->token_file, 4096, &text, &why) != STATUS_OK)
        return error_set(r->err, STATUS_INVALID_ARGUMENT, "--token-file: %s", why.message);
    text = sv_trim(text);
    if (text.len == 0)
        return error_set(r->err, STATUS_INVALID_ARGUMENT, "--token-file %s is empty",
                         r->platform->token_file);
    *ret_login = sv_find(text, ':') < text.len ? text : arena_printf(&r->arena, "admin:%.*s", SV_ARG(text));
    return STATUS_OK;
}

static enum status find_platform(struct api_request *r, struct strview *ret_url, struct strview *ret_login)
{
    enum status s;
    if (r->platform->url != NULL) {
        *ret_url = sv(r->platform->url);
        while (sv_ends_with(*ret_url, SV("/")))
            ret_url->len--;
        return read_token_file(r, ret_login);
    }
    s = read_run_file(r, ret_url);
    return s == STATUS_OK ? read_local_login(r, ret_login) : s;
}

static enum status send_request(struct api_request *r)
{
    struct strview url = {0}, login = {0};
    enum status s = find_platform(r, &url, &login);
    if (s != STATUS_OK) return s;

    struct http_header headers[] = {
        {SV("authorization"), arena_printf(&r->arena, "Basic %.*s", SV_ARG(base64(&r->arena, login)))},
        {SV("content-type"), SV("application/json")},
    };
    struct http_call call = {
        .method = sv(r->method),
        .url = arena_printf(&r->arena, "%.*s%s", SV_ARG(url), r->path),
        .headers = headers,
        .n_headers = ARRAY_LEN(headers),
        .body = r->body != NULL ? json_canonical(&r->arena, r->body) : sv(NULL),
        .timeout_ns = API_TIMEOUT_NS,
        .max_body_bytes = API_ANSWER_MAX,
    };
    struct http_reply reply;
    s = http_request(&call, &r->arena, &reply, r->err);
    if (s == STATUS_UNAVAILABLE)
        return r->platform->url != NULL
                   ? error_prefix(r->err, s, "no platform answers at %.*s", SV_ARG(url))
                   : error_set(r->err, s,
                               "no platform answers at %.*s; it may have been killed: start it again with "
                               "balm up",
                               SV_ARG(url));
    if (s != STATUS_OK) return s;
    s = json_parse(reply.body, 0, &r->answer, r->err);
    if (reply.status / 100 == 2) return s;
    struct strview sentence = s == STATUS_OK ? json_get_text(r->answer, "error") : reply.body;
    s = status_from_http(reply.status);
    if (s == STATUS_UNAVAILABLE) s = STATUS_RESOURCE_EXHAUSTED; /* somebody runs, and says no */
    return error_set(r->err, s, "%.*s (HTTP %d)", SV_ARG(sentence), reply.status);
}

static void request_fiber(void *arg)
{
    struct api_request *r = arg;
    r->status = send_request(r);
    client_release(r->loop);
}

enum status cli_api(const struct cli_platform *platform, const char *method, const char *path,
                    const json_t *body, json_t **ret_answer, struct error *err)
{
    struct api_request r = {.platform = platform, .method = method, .path = path, .body = body, .err = err};
    r.data_dir = platform->data_dir != NULL ? platform->data_dir : cli_default_data_dir(&r.arena);
    enum status s = loop_new(&r.loop, err);
    if (s != STATUS_OK) return s;
    s = loop_run_fiber(r.loop, request_fiber, &r, err);
    if (s == STATUS_OK) s = r.status;
    loop_free(r.loop);
    if (s == STATUS_OK)
        *ret_answer = r.answer;
    else
        json_release(r.answer);
    arena_release(&r.arena);
    return s;
}
