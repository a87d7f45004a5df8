/* Secrets of functions: the folder, and /system/secrets over the port. */
#include "scene.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "gateway/function_secrets.h"

#define PATH   "/system/secrets"
#define FOLDER "data/secrets/functions/"

static void expect(struct scene *s, const char *method, const char *body, int code, const char *says)
{
    struct answer a = ask(s, method, PATH, body);
    if (a.code != code || (says != NULL && !sv_contains(a.body, sv(says))))
        (void)fprintf(stderr, "%s %s: %d %.*s\n", method, body != NULL ? body : "", a.code, SV_ARG(a.body));
    CHECK(a.status == STATUS_OK && a.code == code && (says == NULL || sv_contains(a.body, sv(says))));
}

static void holds(struct scene *s, const char *name, struct strview value)
{
    const char *path = scene_path(s, arena_printf(&s->arena, FOLDER "%s", name).ptr);
    struct strview content;
    struct stat st;
    CHECK_OK(s, file_read(&s->arena, path, FUNCTION_SECRET_BYTES_MAX, &content, &s->err));
    CHECK(sv_eq(content, value));
    CHECK(stat(path, &st) == 0 && (st.st_mode & 07777) == 0600);
}

static void lives(struct scene *s)
{
    expect(s, "GET", NULL, 200, "[]");
    expect(s, "POST", "{\"name\":\"one\",\"value\":\"first\"}", 202, NULL);
    expect(s, "POST", "{\"name\":\"one\",\"value\":\"second\"}", 409, "secret one already exists");
    holds(s, "one", SV("first"));
    expect(s, "PUT", "{\"name\":\"one\",\"value\":\"second\"}", 202, NULL);
    holds(s, "one", SV("second"));
    expect(s, "PUT", "{\"name\":\"none\",\"value\":\"x\"}", 404, "no secret none");
    CHECK(!scene_has(s, FOLDER "none"));
    /* rawValue: "\0 \n", as --from-file sends it beside a trimmed value. */
    expect(s, "POST", "{\"name\":\"a.raw\",\"value\":\"\",\"rawValue\":\"ACAK\"}", 202, NULL);
    holds(s, "a.raw", sv_n("\0 \n", 3));
    expect(s, "PUT", "{\"name\":\"a.raw\",\"value\":\"x\",\"rawValue\":\"eQ==\"}", 202, NULL);
    holds(s, "a.raw", SV("y"));
    (void)scene_write(s, FOLDER "Not-a-name", "x", 0600);
    struct answer a = ask(s, "GET", PATH, NULL);
    CHECK(sv_eq(a.body,
                SV("[{\"name\":\"a.raw\",\"namespace\":\"openfaas-fn\"},{\"name\":\"one\",\"namespace\":"
                   "\"openfaas-fn\"}]")));
    expect(s, "DELETE", "{\"name\":\"one\",\"namespace\":\"openfaas-fn\"}", 202, NULL);
    expect(s, "DELETE", "{\"name\":\"one\"}", 404, "no secret one");
    CHECK(!scene_has(s, FOLDER "one"));
}

Test(function_secrets, are_made_changed_listed_and_removed_as_faas_cli_expects, .timeout = 30)
{
    play(NULL, lives);
}

static void refuses(struct scene *s)
{
    static const char *const names[] = {
        "",          "..",   "../webhook-token",   "a/b", ".hidden", "A", "a_b", "-a", "a-", "a..b",
        "a\\u0000b", "a\\n", "balm-invocation-key"};
    static const char *const methods[] = {"POST", "PUT", "DELETE"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        for (size_t k = 0; k < ARRAY_LEN(methods); k++)
            expect(s, methods[k], arena_printf(&s->arena, "{\"name\":\"%s\",\"value\":\"x\"}", names[i]).ptr,
                   400, NULL);
    expect(s, "POST", "{\"name\":\"a\"}", 400, "empty");
    expect(s, "POST", "{\"name\":\"a\",\"value\":\"\"}", 400, "empty");
    expect(s, "POST", "{\"name\":\"a\",\"rawValue\":\"eQ\"}", 400, "base64");
    expect(s, "POST", "{\"name\":\"a\",\"rawValue\":\"====\"}", 400, "base64");
    expect(s, "POST", "[]", 400, "Secret object");
    expect(s, "POST", "{", 400, NULL);
    expect(s, "PATCH", "{\"name\":\"a\",\"value\":\"x\"}", 405, NULL);
    expect(s, "POST", "{\"name\":\"a\",\"value\":\"x\",\"namespace\":\"b\"}", 400, "namespace");
    expect(s, "DELETE", "{\"name\":\"a\",\"namespace\":\"b\"}", 404, "namespace");
    CHECK(sv_eq(ask(s, "GET", PATH "?namespace=b", NULL).body, SV("[]")));
    const struct http_header plain[] = {{SV("authorization"), s->login},
                                        {SV("content-type"), SV("text/plain")}};
    CHECK(ask_with(s, "POST", PATH, "{\"name\":\"a\",\"value\":\"x\"}", plain, 2).code == 415);
    expect(s, "GET", NULL, 200, "[]");
}

Test(function_secrets, a_name_is_no_path_and_nothing_half_right_is_stored, .timeout = 30)
{
    play(NULL, refuses);
}

static void has_limits(struct scene *s)
{
    const char *dir = s->gateway->cfg.dir;
    char *large = arena_alloc(&s->arena, FUNCTION_SECRET_BYTES_MAX + 1);
    memset(large, 'x', FUNCTION_SECRET_BYTES_MAX + 1);
    struct strview most = sv_n(large, FUNCTION_SECRET_BYTES_MAX);
    CHECK_OK(s, function_secret_put(dir, SV("large"), most, true, &s->err));
    CHECK(function_secret_put(dir, SV("larger"), sv_n(large, most.len + 1), true, &s->err) ==
          STATUS_INVALID_ARGUMENT);
    for (unsigned i = 1; i < FUNCTION_SECRETS_MAX; i++)
        (void)scene_write(s, arena_printf(&s->arena, FOLDER "s%u", i).ptr, "x", 0600);
    expect(s, "POST", "{\"name\":\"one-more\",\"value\":\"x\"}", 412, "1000 secrets");
    expect(s, "PUT", "{\"name\":\"large\",\"value\":\"x\"}", 202, NULL);
    holds(s, "large", SV("x"));
}

Test(function_secrets, value_and_number_have_a_limit, .timeout = 30)
{
    play(NULL, has_limits);
}
