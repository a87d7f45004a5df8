#include "functions/dispatcher/template.h"

#include <criterion/criterion.h>
#include <string.h>

#include "base/list.h"

static struct arena arena;

static void tear_down(void)
{
    arena_release(&arena);
}

TestSuite(template, .fini = tear_down, .timeout = 20);

static const struct http_header labels[] = {{{"empty", 5}, {"", 0}}, {{"service", 7}, {"nginx", 5}}};
static const struct http_header annotations[] = {{{"summary", 7}, {"it is ${labels.service}", 23}}};
static const struct record_labels label_set = {labels, 2}, annotation_set = {annotations, 1};

static struct template_vars vars(void)
{
    return (struct template_vars){.labels = &label_set,
                                  .annotations = &annotation_set,
                                  .incident = SV("i-1"),
                                  .runbook = SV("rb"),
                                  .target = SV("service/nginx")};
}

Test(template, replaces_variables_once_and_never_what_they_bring)
{
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"", ""},
        {"plain", "plain"},
        {"service/${labels.service}", "service/nginx"},
        {"${labels.service}${incident}", "nginxi-1"},
        {"${annotations.summary}", "it is ${labels.service}"},
        {"a $${incident} b", "a ${incident} b"},
        {"$${", "${"},
        {"x$$${incident}", "x$${incident}"},
        {"$5 $", "$5 $"},
        {"${runbook} on ${target}", "rb on service/nginx"},
    };
    struct template_vars v = vars();
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strview text, missing;
        cr_assert_eq(template_expand(sv(cases[i].text), &v, &arena, &text, &missing), STATUS_OK, "%s",
                     cases[i].text);
        cr_assert(sv_eq(text, sv(cases[i].expected)), "%s -> %.*s", cases[i].text, SV_ARG(text));
    }
}

Test(template, a_missing_or_empty_label_is_named)
{
    struct template_vars v = vars();
    struct strview text = {0}, missing;
    cr_assert_eq(template_expand(SV("pod/${labels.pod}"), &v, &arena, &text, &missing), STATUS_NOT_FOUND);
    cr_assert(sv_eq(missing, SV("labels.pod")));
    cr_assert_eq(template_expand(SV("${labels.empty}"), &v, &arena, &text, &missing), STATUS_NOT_FOUND);
    cr_assert(sv_eq(missing, SV("labels.empty")));
    cr_assert_null(text.ptr);
    v.fallback = SV("(none)");
    cr_assert_eq(template_expand(SV("pod ${labels.pod}"), &v, &arena, &text, &missing), STATUS_OK);
    cr_assert(sv_eq(text, SV("pod (none)")));
}

Test(template, expands_the_strings_of_a_tree_as_data)
{
    static const struct http_header hostile[] = {{{"service", 7}, {"x\",\"force\":true,\"y\":\"", 21}}};
    static const struct record_labels hostile_set = {hostile, 1};
    struct template_vars v = vars();
    v.labels = &hostile_set;
    json_t *tree =
        json_pack("{s:s,s:i,s:[s,b]}", "unit", "${labels.service}", "n", 3, "list", "${incident}", 1);
    struct strview text, missing;
    cr_assert_eq(template_expand_json(tree, &v, &arena, &text, &missing), STATUS_OK);
    cr_assert(
        sv_eq(text,
              SV("{\"list\":[\"i-1\",true],\"n\":3,\"unit\":\"x\\\",\\\"force\\\":true,\\\"y\\\":\\\"\"}")),
        "%.*s", SV_ARG(text));
    json_decref(tree);
}

Test(template, a_result_has_a_maximum)
{
    char *big = arena_alloc(&arena, TEMPLATE_RESULT_MAX);
    memset(big, 'x', TEMPLATE_RESULT_MAX);
    struct http_header item = {SV("big"), {big, TEMPLATE_RESULT_MAX}};
    struct record_labels set = {&item, 1};
    struct template_vars v = {.labels = &set};
    struct strview text, missing;
    cr_assert_eq(template_expand(SV("${labels.big}"), &v, &arena, &text, &missing), STATUS_OK);
    cr_assert_eq(template_expand(SV("${labels.big}+"), &v, &arena, &text, &missing),
                 STATUS_RESOURCE_EXHAUSTED);
    json_t *tree = json_pack("[s,s]", "${labels.big}", "+");
    cr_assert_eq(template_expand_json(tree, &v, &arena, &text, &missing), STATUS_RESOURCE_EXHAUSTED);
    json_decref(tree);
}

Test(template, unknown_variables_are_refused_beforehand)
{
    struct error err;
    cr_assert_eq(template_check(SV("${labels.a} ${annotations.b-c} ${incident} $${x}"), false, false, &err),
                 STATUS_OK);
    cr_assert_eq(template_check(SV("${target} ${runbook}"), true, false, &err), STATUS_OK);
    cr_assert_eq(template_check(SV("${reason}"), true, true, &err), STATUS_OK);
    cr_assert_eq(template_check(SV("${target}"), false, false, &err), STATUS_INVALID_ARGUMENT);
    cr_assert_eq(template_check(SV("${reason}"), true, false, &err), STATUS_INVALID_ARGUMENT);
    cr_assert_eq(template_check(SV("${labels.}"), true, true, &err), STATUS_INVALID_ARGUMENT);
    cr_assert_eq(template_check(SV("${incident"), true, true, &err), STATUS_INVALID_ARGUMENT);
    cr_assert(sv_contains(sv(err.message), SV("closing")), "%s", err.message);
    cr_assert_eq(template_check(SV("${incidnt}"), true, true, &err), STATUS_INVALID_ARGUMENT);
    cr_assert(sv_contains(sv(err.message), SV("did you mean 'incident'?")), "%s", err.message);
}
