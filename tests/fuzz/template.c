/* Substitution on any text with any label: whatever is put in is put in once and as it is, the result keeps
 * its limit, and what the check lets through can only fail for want of a value or for its length.
 *
 * Input: "TEXT\0LABEL\0ANNOTATION".
 *
 * Reads: functions/dispatcher/template.c */
#include "functions/dispatcher/template.h"

#include <assert.h>

#include "replay.h"

static void check_text(struct strview text, const struct template_vars *vars, struct arena *a)
{
    struct strview out = {0}, missing = {0};
    enum status checked = template_check(text, true, true, NULL);
    enum status s = template_expand(text, vars, a, &out, &missing);
    assert(s != STATUS_OK || out.len <= TEMPLATE_RESULT_MAX);
    assert(s != STATUS_NOT_FOUND || template_has_variables(text));
    if (!template_has_variables(text)) assert(s == STATUS_OK || s == STATUS_RESOURCE_EXHAUSTED);
    if (checked == STATUS_OK && s == STATUS_NOT_FOUND) assert(missing.len > 0);
    if (!sv_contains(text, SV("$"))) assert(s != STATUS_OK || sv_eq(out, text));
}

static void check_json(struct strview text, const struct template_vars *vars, struct arena *a)
{
    json_t *tree = NULL;
    struct strview out = {0}, missing = {0};
    if (json_parse(text, JSON_ALLOW_NUL, &tree, NULL) != STATUS_OK) return;
    enum status s = template_expand_json(tree, vars, a, &out, &missing);
    assert(s == STATUS_OK || s == STATUS_NOT_FOUND || s == STATUS_RESOURCE_EXHAUSTED);
    assert(s != STATUS_OK || sv_is_utf8(out));
    json_release(tree);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct arena arena = {0};
    struct strview rest = sv_n((const char *)bytes, n), text = {0}, values[2] = {{0}}, out = {0}, missing;
    (void)sv_next(&rest, '\0', &text);
    (void)sv_next(&rest, '\0', &values[0]);
    values[1] = rest;
    struct http_header label = {SV("pod"), values[0]}, annotation = {SV("summary"), values[1]};
    struct record_labels labels = {&label, 1}, annotations = {&annotation, 1};
    struct template_vars vars = {.labels = &labels,
                                 .annotations = &annotations,
                                 .incident = SV("i-1"),
                                 .runbook = SV("nginx"),
                                 .target = SV("service/nginx")};
    check_text(text, &vars, &arena);
    vars.fallback = SV("?");
    enum status s = template_expand(text, &vars, &arena, &out, &missing);
    assert(s != STATUS_NOT_FOUND);
    /* A value is never read as a template. */
    s = template_expand(SV("<${labels.pod}>"), &vars, &arena, &out, &missing);
    if (s == STATUS_OK && values[0].len > 0)
        assert(sv_eq(sv_sub(out, 1, out.len - 1), values[0]) && out.len == values[0].len + 2);
    if (sv_is_utf8(values[0]) && sv_is_utf8(values[1])) check_json(text, &vars, &arena);
    arena_release(&arena);
    return 0;
}
