#include "function/openapi.h"

#include <criterion/criterion.h>
#include <string.h>

#include "function/manifest.h"

static struct manifest m;
static json_t *document;
static struct arena arena;

static void tear_down(void)
{
    json_release(document);
    manifest_release(&m);
    arena_release(&arena);
}

TestSuite(openapi, .fini = tear_down);

#define PLAIN "name: echo\nsummary: Answers what it got\nacts: false\n"
#define ACTING                                                                                               \
    "name: disk-clean\nsummary: Frees space\nacts: true\ndestructive: true\non_unknown: rerun\n"             \
    "touches: {paths: [/var/tmp, /srv]}\nverify: statvfs\nundo: none\ntimeout: 90s\n"                        \
    "params:\n  root: {type: text, required: true, max: 9}\n  dry_run: {type: boolean}\n"                    \
    "detail:\n  bytesFreed: {type: integer}\n"

static void make(const char *text)
{
    struct error err;
    cr_assert_eq(manifest_parse("bot.yaml", sv(text), &m, &err), STATUS_OK, "%s", err.message);
    cr_assert(openapi_is_known(m.json));
    document = openapi_document(m.json);
    cr_assert_not_null(document);
}

/* By its path: "paths", "/", "post". */
static json_t *at(const char *const *path)
{
    json_t *value = document;
    for (; *path != NULL; path++) {
        value = json_object_get(value, *path);
        cr_assert_not_null(value, "no %s in %s", *path, json_canonical(&arena, document).ptr);
    }
    return value;
}
#define AT(...) at((const char *const[]){__VA_ARGS__, NULL})

static void expect_json(const json_t *value, const char *text)
{
    cr_assert_str_eq(json_canonical(&arena, value).ptr, text);
}

Test(openapi, an_acting_function_takes_its_manifest_s_parameters_and_answers_its_detail)
{
    make(ACTING);
    expect_json(AT("openapi"), "\"3.1.0\"");
    expect_json(AT("info", "title"), "\"disk-clean\"");
    expect_json(AT("servers"), "[{\"url\":\".\"}]");
    expect_json(
        AT("paths", "/", "post", "requestBody"),
        "{\"content\":{\"application/json\":{\"schema\":{\"$ref\":\"#/components/schemas/Parameters\"}}},"
        "\"required\":true}");
    json_t *parameters = json_deep_copy(json_object_get(m.json, "schema")),
           *detail = json_deep_copy(json_object_get(m.json, "reply"));
    json_object_del(parameters, "$schema");
    json_object_del(detail, "$schema");
    cr_assert(json_equal(AT("components", "schemas", "Parameters"), parameters));
    cr_assert(json_equal(AT("components", "schemas", "Detail"), detail));
    json_release(parameters);
    json_release(detail);
    expect_json(AT("components", "schemas", "Result", "properties", "detail"),
                "{\"$ref\":\"#/components/schemas/Detail\"}");
    expect_json(AT("components", "schemas", "Outcome", "required"), "[\"incident\",\"state\"]");
    expect_json(AT("paths", "/", "post", "security"), "[{\"invocation\":[]},{\"login\":[]}]");
    expect_json(AT("components", "securitySchemes", "invocation", "name"), "\"ce-balmsignature\"");
    struct strview text = json_get_text(AT("paths", "/", "post"), "description");
    cr_assert(sv_contains(text, SV("**acts**")) && sv_contains(text, SV("- **destructive**")) &&
                  sv_contains(text, SV("- **may touch paths**: /var/tmp, /srv\n")) &&
                  sv_contains(text, SV("- **verifies**: statvfs\n- **undo**: none\n")) &&
                  sv_contains(text, SV("- **time limit**: 1m30s\n")),
              "%.*s", SV_ARG(text));
}

Test(openapi, a_plain_function_without_parameters_takes_and_answers_anything)
{
    make(PLAIN);
    json_t *post = AT("paths", "/", "post");
    cr_assert_null(json_object_get(post, "security"));
    cr_assert_null(json_object_get(AT("components"), "securitySchemes"));
    cr_assert_null(json_object_get(AT("components", "schemas"), "Parameters"));
    expect_json(AT("paths", "/", "post", "responses", "200", "content"), "{\"*/*\":{}}");
    cr_assert_null(json_object_get(json_object_get(post, "requestBody"), "required"));
}

Test(openapi, a_plain_function_with_parameters_names_them)
{
    make(PLAIN "params: {depth: {type: integer, min: 1, max: 3}}\n");
    expect_json(AT("paths", "/", "post", "requestBody", "required"), "false");
    cr_assert_not_null(AT("components", "schemas", "Parameters", "properties", "depth"));
}

Test(openapi, one_that_asks_for_a_key_says_where_it_goes)
{
    make(PLAIN "auth: api-key\n");
    expect_json(AT("paths", "/", "post", "security"), "[{\"apiKey\":[]}]");
    expect_json(AT("components", "securitySchemes", "apiKey", "name"), "\"X-Api-Key\"");
    cr_assert_not_null(AT("paths", "/", "post", "responses", "401", "headers", "www-authenticate"));
}

Test(openapi, a_manifest_that_says_less_has_no_document)
{
    static const char *const texts[] = {"{}", "{\"acts\":false,\"name\":\"plain\",\"timeout\":\"20s\"}", "[]",
                                        "{\"name\":\"x\",\"summary\":\"y\",\"schema\":{}}",
                                        "{\"name\":1,\"summary\":\"y\",\"schema\":{},\"reply\":{}}"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        json_t *manifest = NULL;
        cr_assert_eq(json_parse(sv(texts[i]), 0, &manifest, NULL), STATUS_OK);
        cr_assert_not(openapi_is_known(manifest), "%s", texts[i]);
        json_release(manifest);
    }
}

/* A manifest of a foreign executable may hold anything: a document comes of it, or none, and nothing else. */
Test(openapi, members_of_another_type_do_no_harm)
{
    json_t *manifest = NULL;
    cr_assert_eq(
        json_parse(
            SV("{\"name\":\"x\",\"summary\":\"y\",\"schema\":{\"properties\":3,\"required\":{}},\"reply\":{},"
               "\"acts\":true,\"touches\":{\"paths\":[1,null,{\"a\":2}],\"hosts\":7},\"undo\":[],\"timeout\":5}"),
            0, &manifest, NULL),
        STATUS_OK);
    document = openapi_document(manifest);
    cr_assert_not_null(document);
    json_release(manifest);
}

/* As long as a manifest may be (YAML_BYTES_MAX), in characters that must not be cut. */
Test(openapi, the_longest_sentence_is_told_whole)
{
    size_t n = 1024 * 1024 / 2;
    char *text = arena_alloc(&arena, 2 * n);
    for (size_t i = 0; i < n; i++)
        memcpy(text + 2 * i, "\xc3\xa4", 2);
    json_t *manifest = json_pack("{s:s, s:s, s:{}, s:{}, s:o}", "name", "x", "summary", "y", "schema",
                                 "reply", "undo", json_text(sv_n(text, 2 * n)));
    document = openapi_document(manifest);
    cr_assert_not_null(document);
    cr_assert(json_get_text(AT("paths", "/", "post"), "description").len > 2 * n);
    json_release(manifest);
}
