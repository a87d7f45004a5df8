/* /docs, documents, and what a page of another site may not. */
#include "scene.h"

#include <criterion/criterion.h>

#include "base/file.h"

#define PLAIN "{\"service\":\"plain\",\"image\":\"plain:latest\"}"
#define BOT   "{\"service\":\"bot\",\"image\":\"bot:latest\"}"

static struct answer ask_as(struct scene *s, const char *method, const char *path, const char *body,
                            const char *name, const char *value)
{
    const struct http_header headers[] = {
        {SV("authorization"), s->login},
        {SV("content-type"), SV("application/json")},
        {name != NULL ? sv(name) : SV("x"), name != NULL ? sv(value) : SV("y")}};
    return ask_with(s, method, path, body, headers, 3);
}

static struct answer ask_nobody(struct scene *s, const char *method, const char *path)
{
    const struct http_header none[] = {{SV("x"), SV("y")}};
    return ask_with(s, method, path, NULL, none, 1);
}

static void deploy_both(struct scene *s)
{
    CHECK(ask(s, "POST", "/system/functions", PLAIN).code == 202);
    CHECK(ask(s, "POST", "/system/functions", BOT).code == 202);
    CHECK(ask(s, "POST", "/system/scale-function/plain", "{\"replicas\":0}").code == 202);
}

/* More than one part of an answer. */
static const char *long_text(struct scene *s)
{
    char *text = arena_zalloc(&s->arena, 300001);
    for (int i = 0; i < 300000; i++)
        text[i] = (char)('a' + i % 23);
    return text;
}

static void write_files(struct scene *s)
{
    CHECK_OK(s, dir_make(scene_path(s, "docs"), 0755, &s->err));
    (void)scene_write(s, "docs/docs.js", "mine()", 0644);
    (void)scene_write(s, "docs/swagger-ui.css", long_text(s), 0644);
    (void)scene_write(s, "docs/platform.json", "{}", 0644);
    (void)scene_write(s, "docs/other.txt", "not to be served", 0644);
    s->cfg.docs_dir = scene_path(s, "docs");
}

/* ---- documents ---- */

static void reads_documents(struct scene *s)
{
    deploy_both(s);
    struct answer a = ask_nobody(s, "GET", "/function/plain/openapi.json");
    json_t *document = answer_json(&a);
    CHECK(a.code == 200 && sv_eq(answer_header(&a, "content-type"), SV("application/json")));
    CHECK(sv_eq(json_get_text(document, "openapi"), SV("3.1.0")));
    json_decref(document);
    CHECK(ask_nobody(s, "HEAD", "/function/plain.openfaas-fn/openapi.json").code == 200);
    CHECK(deployment_of(s, "plain")->n_routed == 0 && deployment_of(s, "plain")->invocations == 0);
    CHECK(ask_nobody(s, "GET", "/function/nobody/openapi.json").code == 404);
    /* Others of its paths are the function's own. */
    a = ask_as(s, "POST", "/function/plain/openapi.json", "mine", NULL, NULL);
    CHECK(a.code == 200 && sv_eq(a.body, SV("mine")));
    /* What can act here is for those to know who may manage it. */
    CHECK(ask_nobody(s, "GET", "/function/bot/openapi.json").code == 401);
    CHECK(ask_as(s, "GET", "/function/bot/openapi.json", NULL, NULL, NULL).code == 200);
}

Test(routes_docs, a_function_s_document_is_read_without_starting_it, .timeout = 30)
{
    play(NULL, reads_documents);
}

/* ---- pages ---- */

static void reads_pages(struct scene *s)
{
    static const char *const paths[] = {
        "/docs", "/docs/", "/docs/plain", "/docs/platform.html", "/docs/ui/docs.js", "/openapi.json"};
    deploy_both(s);
    for (size_t i = 0; i < ARRAY_LEN(paths); i++)
        CHECK(ask_nobody(s, "GET", paths[i]).code == 401);
    struct answer a = ask_as(s, "GET", "/docs", NULL, NULL, NULL);
    CHECK(a.code == 308 && sv_eq(answer_header(&a, "location"), SV("docs/")));
    a = ask_as(s, "GET", "/docs/", NULL, NULL, NULL);
    CHECK(a.code == 200 && sv_eq(answer_header(&a, "content-type"), SV("text/html; charset=utf-8")));
    CHECK(sv_contains(a.body, SV("<a href=\"plain\">plain</a>")) &&
          sv_contains(a.body, SV("<a href=\"bot\">bot</a>")));
    CHECK(sv_contains(a.body, SV("&#60;b&#62;answers&#60;/b&#62;")) && !sv_contains(a.body, SV("<b>")));
    CHECK(sv_starts_with(answer_header(&a, "content-security-policy"),
                         SV("default-src 'none'; script-src 'self';")));
    CHECK(sv_eq(answer_header(&a, "x-content-type-options"), SV("nosniff")));
    a = ask_as(s, "GET", "/docs/plain", NULL, NULL, NULL);
    CHECK(a.code == 200 && sv_contains(a.body, SV("data-document=\"../function/plain/openapi.json\"")));
    CHECK(sv_contains(a.body, SV("ui/swagger-ui-bundle.js")));
    a = ask_as(s, "GET", "/docs/platform.html", NULL, NULL, NULL);
    CHECK(a.code == 200 && sv_contains(a.body, SV("data-document=\"../openapi.json\"")));
    a = ask_as(s, "GET", "/openapi.json", NULL, NULL, NULL);
    CHECK(a.code == 200 && sv_eq(a.body, SV("{}")) &&
          sv_eq(answer_header(&a, "content-type"), SV("application/json")));
    a = ask_as(s, "GET", "/docs/ui/docs.js", NULL, NULL, NULL);
    CHECK(a.code == 200 && sv_eq(a.body, SV("mine()")));
    CHECK(sv_eq(answer_header(&a, "content-type"), SV("text/javascript; charset=utf-8")));
    a = ask_as(s, "GET", "/docs/ui/swagger-ui.css", NULL, NULL, NULL);
    CHECK(a.code == 200 && sv_eq(a.body, sv(long_text(s))));
    a = ask_as(s, "HEAD", "/docs/ui/swagger-ui.css", NULL, NULL, NULL);
    CHECK(a.code == 200 && a.body.len == 0 && sv_eq(answer_header(&a, "content-length"), SV("300000")));
    static const char *const missing[] = {"/docs/nobody",
                                          "/docs/ui/other.txt",
                                          "/docs/ui/../other.txt",
                                          "/docs/ui/",
                                          "/docs/ui",
                                          "/docs/ui/swagger-ui-bundle.js",
                                          "/docs/plain/below",
                                          "/docsx"};
    for (size_t i = 0; i < ARRAY_LEN(missing); i++)
        CHECK(ask_as(s, "GET", missing[i], NULL, NULL, NULL).code == 404);
    a = ask_as(s, "POST", "/docs/", "{}", NULL, NULL);
    CHECK(a.code == 405 && sv_eq(answer_header(&a, "allow"), SV("GET, HEAD")));
    CHECK(deployment_of(s, "plain")->n_routed == 0);
}

Test(routes_docs, pages_need_the_login_and_serve_our_files_alone, .timeout = 30)
{
    play(write_files, reads_pages);
}

static void lacks_swagger_ui(struct scene *s)
{
    deploy_both(s);
    struct answer a = ask_as(s, "GET", "/docs/plain", NULL, NULL, NULL);
    CHECK(a.code == 200 && sv_contains(a.body, SV("Swagger UI is not installed here")));
    CHECK(sv_contains(a.body, SV("../function/plain/openapi.json")) && !sv_contains(a.body, SV("<script")));
    CHECK(ask_as(s, "GET", "/docs/ui/docs.css", NULL, NULL, NULL).code == 404);
}

Test(routes_docs, without_swagger_ui_the_page_names_the_document, .timeout = 30)
{
    play(NULL, lacks_swagger_ui);
}

/* ---- a browser that remembers the login ---- */

static void is_sent_by_another_site(struct scene *s)
{
    CHECK(ask(s, "POST", "/system/functions", PLAIN).code == 202);
    const struct {
        const char *name, *value;
        int code;
    } cases[] = {
        {"sec-fetch-site", "cross-site", 403},
        {"sec-fetch-site", "same-site", 403}, /* another port of this host */
        {"sec-fetch-site", "same-origin", 200},
        {"sec-fetch-site", "none", 200},
        {"origin", "http://evil.example", 403},
        {"origin", "null", 403},
        {"origin", "http://localhost:1", 403},
        {"origin", "http://", 403},
        {"origin", "http://localhost", 200},  /* as scene.c names us */
        {"origin", "https://LocalHost", 200}, /* a proxy before us may speak TLS */
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct answer a = ask_as(s, "POST", "/system/reload", "{}", cases[i].name, cases[i].value);
        if (a.code != cases[i].code)
            (void)fprintf(stderr, "%s: %s: %d\n", cases[i].name, cases[i].value, a.code);
        CHECK(a.code == cases[i].code);
        /* Reading is what a link does; another site's page does not get to see the answer. */
        CHECK(ask_as(s, "GET", "/docs/", NULL, cases[i].name, cases[i].value).code == 200);
    }
    CHECK(ask_as(s, "DELETE", "/system/functions", "{\"functionName\":\"plain\"}", "sec-fetch-site",
                 "cross-site")
              .code == 403);
    CHECK(deployment_of(s, "plain") != NULL);
}

Test(routes_docs, another_site_s_page_changes_nothing_with_a_remembered_login, .timeout = 30)
{
    play(NULL, is_sent_by_another_site);
}
