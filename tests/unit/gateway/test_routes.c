/* OpenFaaS's REST API and the way into functions, over the port. */
#include "scene.h"

#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "metrics/catalog.h"

#define PLAIN "{\"service\":\"plain\",\"image\":\"plain:latest\"}"

static void expect(struct scene *s, const char *method, const char *path, const char *body, int code,
                   const char *says)
{
    struct answer a = ask(s, method, path, body);
    if (a.status != STATUS_OK || a.code != code || (says != NULL && !sv_contains(a.body, sv(says))))
        (void)fprintf(stderr, "%s %s: %d %.*s (%s)\n", method, path, a.code, SV_ARG(a.body),
                      a.status != STATUS_OK ? s->err.message : "");
    CHECK(a.status == STATUS_OK && a.code == code && (says == NULL || sv_contains(a.body, sv(says))));
}

/* ---- who may ---- */

static void needs_login(struct scene *s)
{
    static const char *const paths[] = {"/system/functions",     "/system/function/plain",
                                        "/system/info",          "/system/logs?name=plain",
                                        "/system/namespaces",    "/system/reload",
                                        "/system/nothing/there", "/system/",
                                        "/system/secrets",       "/system/check-function/plain"};
    const struct http_header none[1] = {{SV("x"), SV("y")}},
                             bad[] = {{SV("authorization"), SV("Basic YTpi")}},
                             empty[] = {{SV("authorization"), SV("Bearer ")}};
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        const struct http_header *const all[] = {none, bad, empty};
        for (size_t k = 0; k < 3; k++) {
            struct answer a = ask_with(s, "GET", paths[i], NULL, all[k], 1);
            CHECK(a.code == 401 && sv_eq(a.body, SV("invalid credentials\n")));
            CHECK(sv_eq(answer_header(&a, "www-authenticate"), SV("Basic realm=\"Restricted\"")));
        }
    }
    CHECK(ask(s, "GET", "/healthz", NULL).code == 200 && ask(s, "HEAD", "/healthz", NULL).code == 200);
    CHECK(ask(s, "POST", "/healthz", NULL).code == 405);
    CHECK(ask(s, "GET", "/metrics", NULL).code == 200);
    CHECK(ask(s, "GET", "/", NULL).code == 404);
    CHECK(ask(s, "GET", "/function/", NULL).code == 404);
}

Test(routes, the_management_api_needs_the_login_and_health_does_not, .timeout = 30)
{
    play(NULL, needs_login);
}

static struct answer try_login(struct scene *s, const char *method, const char *path, const char *scheme,
                               struct strview credentials)
{
    char text[512];
    int n = snprintf(text, sizeof(text), "%s%.*s", scheme, SV_ARG(credentials));
    const struct http_header header = {SV("authorization"), arena_copy(&s->arena, sv_n(text, (size_t)n))};
    return ask_with(s, method, path, NULL, &header, 1);
}

static unsigned refused(const char *reason)
{
    struct strview label = sv(reason);
    return (unsigned)metric_value(catalog_series(CATALOG_LOGINS_REFUSED, &label));
}

static void guesses_passwords(struct scene *s)
{
    unsigned limited = 0, missing = refused("missing");
    for (unsigned i = 0; i < 100; i++) {
        struct strview guess = arena_printf(&s->arena, "YWRtaW46%04u", 1000 + i); /* admin:… */
        struct answer a = try_login(s, "GET", "/system/info", "Basic ", guess);
        CHECK(a.code == (i < LOGIN_BUDGET / LOGIN_GUESS_COST ? 401 : 429));
        if (a.code == 429) CHECK(answer_header(&a, "retry-after").len > 0);
        limited += a.code == 429;
    }
    CHECK(limited >= 60);
    CHECK(refused("limited") == limited && refused("wrong") == 100 - limited);
    CHECK(ask_with(s, "GET", "/system/info", NULL, NULL, 0).code == 401 && refused("missing") == missing + 1);
    CHECK(ask(s, "GET", "/system/info", NULL).code == 200); /* 192 bits are not guessed, nobody is shut out */
    /* A short one that somebody chose is not even looked at. */
    struct strview made = s->gateway->secrets.password;
    s->gateway->secrets.password = SV("short");
    CHECK(try_login(s, "GET", "/system/info", "Basic ", SV("YWRtaW46c2hvcnQ=")).code == 429);
    s->gateway->secrets.password = made;
}

Test(routes, guessing_passwords_is_slowed_down_and_shuts_nobody_out, .timeout = 30)
{
    play(NULL, guesses_passwords);
}

/* ---- what a function needs ---- */

static void checks_a_function(struct scene *s)
{
    expect(s, "POST", "/system/functions", PLAIN, 202, NULL);
    expect(s, "POST", "/system/scale-function/plain", "{\"replicas\":0}", 202, NULL);
    struct answer a = ask(s, "POST", "/system/check-function/plain", "{}");
    json_t *found = answer_json(&a);
    CHECK(a.code == 200 && json_is_true(json_object_get(found, "healthy")));
    CHECK(json_array_size(json_object_get(found, "missingSecrets")) == 0);
    CHECK(json_object_get(found, "hostServices") == NULL); /* it touches nothing */
    json_decref(found);
    CHECK(deployment_of(s, "plain")->n_routed == 1 && deployment_of(s, "plain")->invocations == 0);
    expect(s, "POST", "/system/check-function/plain", "{}", 200, "\"healthy\":true"); /* it runs already */
    CHECK(deployment_of(s, "plain")->n_routed == 1);
    expect(s, "POST", "/system/check-function/nobody", "{}", 404, "no such function");
    expect(s, "GET", "/system/check-function/plain", NULL, 405, "POST");
    expect(s, "POST", "/system/check-function/plain", "not json", 400, NULL);
}

Test(routes, a_function_is_checked_without_being_called, .timeout = 30)
{
    play(NULL, checks_a_function);
}

/* ---- functions ---- */

static void deploys_as_faas_cli(struct scene *s)
{
    struct answer a = ask(s, "GET", "/system/functions", NULL);
    CHECK(a.code == 200 && sv_eq(a.body, SV("[]")));
    expect(s, "PUT", "/system/functions", PLAIN, 404, NULL); /* exactly this turns faas-cli to POST */
    expect(s, "POST", "/system/functions", PLAIN, 202, NULL);
    expect(s, "POST", "/system/functions", PLAIN, 409, "already exists");
    CHECK(deployment_of(s, "plain")->n_routed == 1);
    expect(s, "PUT", "/system/functions", PLAIN, 202, NULL);
    expect(s, "POST", "/function/plain", "{}", 200, "{}");
    a = ask(s, "GET", "/system/functions", NULL);
    json_t *list = answer_json(&a), *f = json_array_get(list, 0);
    CHECK(json_array_size(list) == 1 && sv_eq(json_get_text(f, "name"), SV("plain")));
    CHECK(sv_eq(json_get_text(f, "namespace"), SV("openfaas-fn")) &&
          sv_eq(json_get_text(f, "image"), SV("plain:latest")));
    CHECK(json_integer_value(json_object_get(f, "invocationCount")) == 1);
    CHECK(json_integer_value(json_object_get(f, "replicas")) == 1 &&
          json_integer_value(json_object_get(f, "availableReplicas")) == 1);
    int64_t created_ns;
    CHECK(rfc3339_parse(json_get_text(f, "createdAt"), &created_ns) == STATUS_OK);
    CHECK(json_is_object(json_object_get(f, "labels")) && json_is_object(json_object_get(f, "annotations")));
    json_release(list);
    expect(s, "GET", "/system/function/plain?usage=1", NULL, 200, "\"name\":\"plain\"");
    expect(s, "GET", "/system/function/none", NULL, 404, NULL);
    expect(s, "GET", "/system/function/plain?namespace=other", NULL, 404, NULL);
    expect(s, "GET", "/system/functions?namespace=other", NULL, 200, "[]");
}

Test(routes, put_404_post_202_put_202, .timeout = 30)
{
    play(NULL, deploys_as_faas_cli);
}

static void removes(struct scene *s)
{
    expect(s, "POST", "/system/functions", PLAIN, 202, NULL);
    CHECK(scene_has(s, "data/functions/plain.json"));
    expect(s, "DELETE", "/system/functions", "{\"functionName\":\"plain\",\"namespace\":\"other\"}", 404,
           NULL);
    expect(s, "DELETE", "/system/functions", "{}", 400, "functionName");
    expect(s, "DELETE", "/system/functions?namespace=openfaas-fn", "{\"functionName\":\"plain.openfaas-fn\"}",
           202, NULL);
    CHECK(!scene_has(s, "data/functions/plain.json"));
    expect(s, "DELETE", "/system/functions", "{\"functionName\":\"plain\"}", 404, NULL);
    expect(s, "DELETE", "/system/functions", "{\"functionName\":\"../../secrets/invocation-key\"}", 404,
           NULL);
    expect(s, "GET", "/function/plain", NULL, 404, "error finding function plain");
}

Test(routes, a_removed_function_is_gone_and_twice_is_404, .timeout = 30)
{
    play(NULL, removes);
}

static void bad_deploys(struct scene *s)
{
    static const struct {
        const char *body, *says;
        int code;
    } bad[] = {
        {"", "", 400},
        {"[]", "object", 400},
        {"{", "", 400},
        {"{}", "service", 400},
        {"{\"service\":\"a\"}", "image is required", 400},
        {"{\"service\":\"A\",\"image\":\"plain\"}", "lower-case", 400},
        {"{\"service\":\"a\",\"image\":\"none\"}", "no executable", 400},
        {"{\"service\":\"a\",\"image\":\"plain\",\"namespace\":\"x\"}", "namespace 'x'", 400},
        {"{\"service\":\"a\",\"image\":\"plain\",\"envVars\":[]}", "envVars", 400},
        {"{\"service\":\"a\",\"image\":\"plain\",\"envVars\":{\"a\":1}}", "must be text", 400},
        {"{\"service\":\"a\",\"image\":\"plain\",\"envVars\":{\"LD_PRELOAD\":\"x\"}}", "cannot be set", 400},
        {"{\"service\":\"a\",\"image\":\"plain\",\"labels\":{\"a\":{}}}", "labels", 400},
        {"{\"service\":\"a\",\"image\":\"plain\",\"secrets\":{}}", "secrets", 400},
        {"{\"service\":\"a\",\"image\":\"plain\",\"secrets\":[1]}", "secrets must be a list", 400},
        {"{\"service\":\"a\",\"image\":\"plain\",\"secrets\":[\"../x\"]}", "entry 1", 400},
        {"{\"service\":\"a\",\"image\":\"plain\",\"secrets\":[\"missing\"]}", "secret 'missing'", 400},
        {"{\"service\":\"a\",\"image\":\"plain\",\"limits\":{\"memory\":\"much\"}}", "limits.memory", 400},
        {"{\"service\":\"a\",\"image\":\"plain\",\"envProcess\":\"./plain -x\"}",
         "no executable and no folder", 400},
        {"{\"service\":\"a\",\"image\":\"any\",\"envProcess\":\"no-such-program\"}",
         "no program 'no-such-program' in /usr/local/sbin:", 400},
        {"{\"service\":\"a\",\"image\":\"any\",\"envProcess\":\"/no/such\"}", "no executable /no/such", 400},
        {"{\"service\":\"a\",\"image\":\"any\",\"envProcess\":\"cat 'x\"}", "open quote", 400},
        {"{\"service\":\"a\",\"image\":\"..\",\"envProcess\":\"cat\"}", "leads out of the functions folder",
         400},
        {"{\"service\":\"a\",\"image\":\"any\",\"envProcess\":\"cat\",\"envVars\":{\"mode\":\"static\"}}",
         "mode: 'static' is not offered", 400},
        {"{\"service\":\"a\",\"image\":\"broken\"}", "exit 5: cannot open the thing", 400},
        {"{\"service\":\"a\",\"image\":\"mute\"}", "does not say what it is", 400},
    };
    scene_script(s, "broken",
                 "test \"$1\" = --describe && echo '{}' && exit 0; echo cannot open the thing >&2; exit 5");
    scene_script(s, "mute", "exit 0");
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        expect(s, "POST", "/system/functions", bad[i].body, bad[i].code, bad[i].says);
    CHECK(s->gateway->n_deployments == 0 && !scene_has(s, "data/functions/a.json"));
    const struct http_header headers[] = {{SV("authorization"), s->login},
                                          {SV("content-type"), SV("text/plain")}};
    CHECK(ask_with(s, "POST", "/system/functions", PLAIN, headers, 2).code == 415);
    CHECK(ask_with(s, "POST", "/system/functions", PLAIN, headers, 1).code == 415);
    expect(s, "PATCH", "/system/functions", PLAIN, 405, NULL);
    expect(
        s, "POST", "/system/functions",
        "{\"service\":\"a\",\"image\":\"plain\",\"envProcess\":\"./plain\",\"labels\":null,\"annotations\":null,\"limits\":{\"memory\":\"" MEMORY_TEXT
        "\"}}",
        202, NULL);
}

Test(routes, a_deployment_that_is_wrong_or_does_not_start_is_refused_in_words, .timeout = 60)
{
    play(NULL, bad_deploys);
}

static void bad_update(struct scene *s)
{
    expect(s, "POST", "/system/functions", PLAIN, 202, NULL);
    struct answer before = ask(s, "GET", "/function/plain/pid", NULL);
    scene_script(s, "broken", "test \"$1\" = --describe && echo '{}' && exit 0; exit 5");
    expect(s, "PUT", "/system/functions", "{\"service\":\"plain\",\"image\":\"broken\"}", 400, "exit 5");
    struct answer after = ask(s, "GET", "/function/plain/pid", NULL);
    CHECK(after.code == 200 && sv_eq(before.body, after.body));
    scene_stop(s);
    CHECK_OK(s, scene_start(s));
    expect(s, "GET", "/system/function/plain", NULL, 200, "\"image\":\"plain:latest\"");
}

Test(routes, an_update_that_does_not_come_up_leaves_the_old_one_serving, .timeout = 60)
{
    play(NULL, bad_update);
}

static void scales(struct scene *s)
{
    expect(s, "POST", "/system/functions", PLAIN, 202, NULL);
    const struct deployment *d = deployment_of(s, "plain");
    expect(s, "POST", "/system/scale-function/plain", "{\"serviceName\":\"plain\",\"replicas\":3}", 202,
           NULL);
    CHECK(d->n_routed == 3);
    expect(s, "POST", "/system/scale-function/plain.openfaas-fn", "{\"replicas\":0}", 202, NULL);
    CHECK(d->n_routed == 0);
    expect(s, "GET", "/system/function/plain", NULL, 200, "\"availableReplicas\":0");
    expect(s, "POST", "/function/plain", "{}", 200, NULL);
    CHECK(d->n_routed == 1);
    expect(s, "POST", "/system/scale-function/plain", "{\"replicas\":-1}", 400, NULL);
    expect(s, "POST", "/system/scale-function/plain", "{\"replicas\":65}", 400, NULL);
    expect(s, "POST", "/system/scale-function/plain", "{\"replicas\":1.5}", 400, NULL);
    expect(s, "POST", "/system/scale-function/plain", "{}", 400, NULL);
    expect(s, "POST", "/system/scale-function/none", "{\"replicas\":1}", 404, NULL);
    expect(s, "GET", "/system/scale-function/plain", NULL, 405, NULL);
}

Test(routes, scale_by_http, .timeout = 60)
{
    play(NULL, scales);
}

static void survives(struct scene *s)
{
    expect(
        s, "POST", "/system/functions",
        "{\"service\":\"kept\",\"image\":\"plain\",\"envVars\":{\"COLOUR\":\"red\"},\"labels\":{\"com.openfaas.scale.min\":\"1\"}}",
        202, NULL);
    expect(s, "POST", "/system/functions", "{\"service\":\"gone\",\"image\":\"plain\"}", 202, NULL);
    expect(s, "DELETE", "/system/functions", "{\"functionName\":\"gone\"}", 202, NULL);
    expect(s, "POST", "/system/functions", "{\"service\":\"lost\",\"image\":\"plain2\"}", 400, NULL);
    scene_stop(s);
    (void)scene_write(s, "data/functions/garbage.json", "{",
                      0600); /* one bad file must not take the others along */
    (void)scene_write(s, "data/functions/lost.json", "{\"service\":\"lost\",\"image\":\"plain2\"}", 0600);
    CHECK_OK(s, scene_start(s));
    CHECK(s->gateway->n_deployments == 1 && deployment_of(s, "kept")->n_routed == 1);
    expect(s, "GET", "/function/kept/environment", NULL, 200, "COLOUR=red");
    struct answer a = ask(s, "GET", "/system/functions", NULL);
    CHECK(sv_contains(a.body, SV("\"envVars\":{\"COLOUR\":\"red\"}")));
}

Test(routes, deployed_functions_survive_a_restart, .timeout = 60)
{
    play(NULL, survives);
}

/* ---- logs ---- */

static unsigned count_lines(struct strview text)
{
    unsigned n = 0;
    struct strview line;
    while (sv_next(&text, '\n', &line))
        n += line.len > 0;
    return n;
}

static void logs(struct scene *s)
{
    expect(s, "POST", "/system/functions", PLAIN, 202, NULL);
    struct answer a = ask(s, "GET", "/system/logs?name=plain&follow=false", NULL);
    CHECK(a.code == 200 && sv_eq(answer_header(&a, "content-type"), SV("application/x-ndjson")));
    unsigned own = count_lines(a.body); /* the runtime says that it is ready */
    expect(s, "GET", "/function/plain/say?20", NULL, 200, NULL);
    a = ask(s, "GET", "/system/logs?name=plain&follow=false&tail=-1", NULL);
    CHECK(count_lines(a.body) == own + 20);
    a = ask(s, "GET", "/system/logs?name=plain.openfaas-fn&follow=0&tail=3", NULL);
    CHECK(count_lines(a.body) == 3 && sv_contains(a.body, SV("\"text\":\"line 19\"")) &&
          sv_contains(a.body, SV("\"name\":\"plain\"")));
    struct strview first = sv_sub(a.body, 0, sv_find(a.body, '\n'));
    json_t *line = NULL;
    int64_t time_ns;
    CHECK_OK(s, json_parse(first, 0, &line, &s->err));
    CHECK(rfc3339_parse(json_get_text(line, "timestamp"), &time_ns) == STATUS_OK &&
          sv_starts_with(json_get_text(line, "instance"), SV("plain-")));
    json_release(line);
    expect(s, "GET", "/system/logs?name=plain&follow=false&since=2099-01-01T00:00:00Z", NULL, 200, "");
    expect(s, "GET", "/system/logs?follow=false", NULL, 422, "name");
    expect(s, "GET", "/system/logs?name=plain&tail=x", NULL, 422, "tail");
    expect(s, "GET", "/system/logs?name=plain&since=yesterday", NULL, 422, "since");
    expect(s, "GET", "/system/logs?name=none", NULL, 404, NULL);
}

Test(routes, logs_give_the_newest_lines, .timeout = 60)
{
    play(NULL, logs);
}

struct follow {
    struct scene *s;
    struct answer answer;
};

static void follow_fiber(void *arg)
{
    struct follow *f = arg;
    f->answer = ask(f->s, "GET", "/system/logs?name=plain&follow=true", NULL);
}

static void follows(struct scene *s)
{
    expect(s, "POST", "/system/functions", PLAIN, 202, NULL);
    struct follow f = {.s = s};
    struct fiber_scope scope;
    fiber_scope_init(&scope);
    CHECK_OK(s, fiber_scope_spawn(&scope, follow_fiber, &f, &s->err));
    (void)!sleep_ms(100);
    expect(s, "GET", "/function/plain/say?5", NULL, 200, NULL);
    (void)!sleep_ms(100);
    expect(s, "DELETE", "/system/functions", "{\"functionName\":\"plain\"}", 202,
           NULL); /* ends it: there is nothing more to come */
    fiber_scope_join(&scope);
    CHECK(f.answer.status == STATUS_OK && f.answer.code == 200 && sv_contains(f.answer.body, SV("line 4")));
}

Test(routes, a_follower_sees_new_lines_and_ends_with_the_function, .timeout = 60)
{
    play(NULL, follows);
}

static void big_logs(struct scene *s)
{
    expect(s, "POST", "/system/functions", PLAIN, 202, NULL);
    expect(s, "GET", "/function/plain/say?30000", NULL, 200, NULL);
    int64_t began_ns = clock_monotonic_ns();
    struct answer a = ask(s, "GET", "/system/logs?name=plain&follow=false", NULL);
    CHECK(a.code == 200 && count_lines(a.body) > 5000 && sv_contains(a.body, SV("line 29999")));
    CHECK(clock_monotonic_ns() - began_ns < 5 * NS_PER_S);
}

Test(routes, a_full_log_is_read_in_one_pass, .timeout = 60)
{
    play(NULL, big_logs);
}

/* ---- the rest of /system ---- */

static void others(struct scene *s)
{
    struct answer a = ask(s, "GET", "/system/info", NULL);
    json_t *info = answer_json(&a);
    CHECK(json_is_object(json_object_get(json_object_get(info, "provider"), "version")));
    CHECK(json_is_string(json_object_get(json_object_get(info, "version"), "release")) &&
          json_is_string(json_object_get(info, "arch")));
    json_release(info);
    expect(s, "GET", "/system/namespaces", NULL, 200, "[\"openfaas-fn\"]");
    expect(s, "POST", "/system/info", "{}", 405, NULL);
    expect(s, "POST", "/system/namespace/", "{}", 501, NULL);
    expect(s, "GET", "/system/nothing", NULL, 404, NULL);
    expect(s, "POST", "/system/reload", "{}", 200, "reloaded");
}

Test(routes, info_namespaces_and_what_is_not_there, .timeout = 30)
{
    play(NULL, others);
}

/* ---- the way in ---- */

static void compressed(struct scene *s)
{
    expect(s, "POST", "/system/functions", PLAIN, 202, NULL);
    const struct http_header gzip[] = {{SV("content-encoding"), SV("gzip")},
                                       {SV("content-type"), SV("application/json")},
                                       {SV("authorization"), s->login}};
    static const char *const ours[] = {"/system/functions", "/system/reload"};
    for (size_t i = 0; i < ARRAY_LEN(ours); i++) {
        struct answer a = ask_with(s, "POST", ours[i], "\x1f\x8b", gzip, 3);
        CHECK(a.code == 415 && sv_contains(a.body, SV("Content-Encoding 'gzip' is not taken here")));
    }
    CHECK(ask_with(s, "POST", "/function/plain", "\x1f\x8b", gzip, 3).code == 200); /* its own affair */
    const struct http_header identity[] = {{SV("content-encoding"), SV("Identity")},
                                           {SV("authorization"), s->login}};
    CHECK(ask_with(s, "POST", "/system/reload", "{}", identity, 2).code == 200);
}

Test(routes, a_compressed_body_is_refused_with_415_by_our_own_endpoints, .timeout = 30)
{
    play(NULL, compressed);
}

static void paths(struct scene *s)
{
    expect(s, "POST", "/system/functions", PLAIN, 202, NULL);
    expect(s, "GET", "/function/plain/target", NULL, 200, "/target");
    expect(s, "GET", "/function/plain/target?a=1&b=%2F", NULL, 200, "/target?a=1&b=%2F");
    expect(s, "BREW", "/function/plain", NULL, 405, NULL);
    expect(s, "GET", "/function/none/x", NULL, 404, "error finding function none");
    expect(s, "GET", "/function/plain.other", NULL, 404, NULL);
    struct answer a = ask(s, "GET", "/function/plain/headers", NULL);
    json_t *seen = answer_json(&a);
    CHECK(sv_eq(json_get_text(seen, "x-call-id"), answer_header(&a, "x-call-id")) &&
          json_get_text(seen, "x-call-id").len == 36);
    CHECK(sv_eq(json_get_text(seen, "x-start-time"), answer_header(&a, "x-start-time")));
    CHECK(sv_starts_with(json_get_text(seen, "x-forwarded-for"), SV("127.0.0.1:")));
    json_release(seen);
    const struct http_header given[] = {
        {SV("x-call-id"), SV("mine")}, {SV("x-start-time"), SV("0")}, {SV("te"), SV("trailers")}};
    a = ask_with(s, "GET", "/function/plain/headers", NULL, given, 3);
    seen = answer_json(&a);
    CHECK(sv_eq(json_get_text(seen, "x-call-id"), SV("mine")) && answer_header(&a, "x-call-id").len == 0);
    CHECK(!sv_eq(json_get_text(seen, "x-start-time"), SV("0")) && json_object_get(seen, "te") == NULL);
    json_release(seen);
}

Test(routes, a_function_sees_its_path_and_the_gateways_headers, .timeout = 30)
{
    play(NULL, paths);
}

static void acting(struct scene *s)
{
    expect(s, "POST", "/system/functions", "{\"service\":\"bot\",\"image\":\"bot\"}", 202, NULL);
    expect(s, "POST", "/function/bot", "{}", 403, "signed");
    expect(s, "POST", "/async-function/bot", "{}", 403, "signed");
}

Test(routes, a_function_that_acts_takes_no_direct_calls, .timeout = 30)
{
    play(NULL, acting);
}

/* ---- recorded calls ---- */

struct seen {
    struct journal_follower follower;
    struct arena arena;
    unsigned n;
    struct strview intent, headers, path, body_base64, function;
};

static void on_record(struct journal_follower *f, const struct journal_entry *e)
{
    struct seen *seen = container_of(f, struct seen, follower);
    const struct record *r = e->record;
    if (r->kind != RECORD_CALL) return;
    seen->n++;
    seen->intent = arena_copy(&seen->arena, r->intent);
    seen->headers = arena_copy(&seen->arena, r->headers);
    seen->path = arena_copy(&seen->arena, r->path);
    seen->body_base64 = arena_copy(&seen->arena, r->body_base64);
    seen->function = arena_copy(&seen->arena, r->function);
}

static void asynchronous(struct scene *s)
{
    struct seen seen = {.follower = {.on_record = on_record}};
    journal_follow(s->journal, &seen.follower);
    expect(s, "POST", "/system/functions", PLAIN, 202, NULL);
    struct answer a = ask(s, "POST", "/async-function/plain.openfaas-fn/sub?x=1", "{\"a\":1}");
    CHECK(a.code == 202 && a.body.len == 0 && seen.n == 1);
    CHECK(sv_eq(answer_header(&a, "x-call-id"), seen.intent) && seen.intent.len == 36 &&
          answer_header(&a, "x-start-time").len > 0);
    CHECK(sv_eq(seen.function, SV("plain")) && sv_eq(seen.path, SV("/sub?x=1")) &&
          sv_eq(seen.body_base64, SV("eyJhIjoxfQ==")));
    CHECK(sv_contains(seen.headers, SV("\"content-type\":\"application/json\"")) &&
          sv_contains(seen.headers, seen.intent));
    const struct http_header given[] = {
        {SV("x-call-id"), SV("mine")}, {SV("authorization"), SV("Basic YTpi")}, {SV("x-odd"), SV("\xff")}};
    struct strview first = seen.intent;
    a = ask_with(s, "POST", "/async-function/plain", "x", given, 3);
    CHECK(a.code == 202 && seen.n == 2 && sv_eq(answer_header(&a, "x-call-id"), SV("mine")));
    CHECK(seen.intent.len == 36 &&
          !sv_eq(seen.intent, first)); /* a caller does not choose the record's identity */
    CHECK(sv_contains(seen.headers, SV("\"x-call-id\":\"mine\"")));
    CHECK(!sv_contains(seen.headers, SV("authorization")));
    expect(s, "GET", "/async-function/plain", NULL, 405, NULL);
    expect(s, "POST", "/async-function/none", "x", 404, NULL);
    const struct http_header callback[] = {{SV("x-callback-url"), SV("http://169.254.169.254/cb")}};
    a = ask_with(s, "POST", "/async-function/plain", "x", callback, 1);
    CHECK(a.code == 400 && sv_contains(a.body, SV("X-Callback-Url")) && seen.n == 2);
    char *big = arena_alloc(&s->arena, 600 * 1024);
    memset(big, 'x', 600 * 1024 - 1);
    big[600 * 1024 - 1] = '\0';
    expect(s, "POST", "/async-function/plain", big, 413, NULL);
    big[512 * 1024] = '\0';
    expect(s, "POST", "/async-function/plain", big, 202, NULL);
    CHECK(seen.n == 3);
    journal_unfollow(s->journal, &seen.follower);
    arena_release(&seen.arena);
}

Test(routes, an_asynchronous_call_is_recorded_before_its_202, .timeout = 30)
{
    play(NULL, asynchronous);
}

/* ---- more than can be worked off ---- */

static enum status admit_none(void *state, struct strview function, struct error *err)
{
    ++*(unsigned *)state;
    return error_set(err, STATUS_RESOURCE_EXHAUSTED, "7 calls of function '%.*s' wait already",
                     SV_ARG(function));
}

static unsigned n_asked;
static const struct core_function gate = {.name = "gate", .admit_call = admit_none};
static const struct core_function *const gates[] = {&gate};
static void *const gate_states[] = {&n_asked};

static void with_gate(struct scene *s)
{
    s->cfg.core = gates;
    s->cfg.core_states = gate_states;
    s->cfg.n_core = 1;
}

static void full(struct scene *s)
{
    n_asked = 0;
    expect(s, "POST", "/system/functions", PLAIN, 202, NULL);
    uint64_t before = journal_last_seq(s->journal);
    struct answer a = ask(s, "POST", "/async-function/plain.openfaas-fn", "x");
    CHECK(a.code == 503 && answer_header(&a, "retry-after").len > 0);
    CHECK(sv_eq(answer_header(&a, "x-openfaas-internal"), SV("proxy")));
    CHECK(sv_eq(a.body, SV("7 calls of function 'plain' wait already\n")));
    CHECK(n_asked == 1 && journal_last_seq(s->journal) == before);
    expect(s, "POST", "/async-function/none", "x", 404, NULL);
    expect(s, "POST", "/function/plain", "x", 200, NULL);
}

Test(routes, an_asynchronous_call_is_refused_while_too_many_wait, .timeout = 30)
{
    play(with_gate, full);
}
