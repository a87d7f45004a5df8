/* bot.yaml on any bytes, and any parameters for what it describes. What is taken must be found again in its
 * own JSON, and its defaults and examples must be values that it takes.
 *
 * Input: "BOT_YAML\0PARAMETERS", the latter JSON as a runbook or an invocation has them.
 *
 * Reads: function/manifest*.c function/params.c config/yaml_decode.c */
#include "function/manifest.h"

#include <assert.h>

#include "replay.h"

static void try_params(const struct manifest *m, struct strview text)
{
    json_t *params = NULL, *value;
    const char *name;
    if (json_parse(text, 0, &params, NULL) == STATUS_OK && json_is_object(params)) {
        json_object_foreach(params, name, value)
        {
            struct error err = {0};
            enum status s = manifest_check_value(m, name, value, &err);
            assert(s == STATUS_OK || (s == STATUS_INVALID_ARGUMENT && sv_is_utf8(sv(err.message))));
        }
    }
    json_release(params);
}

static void check(const struct manifest *m, struct strview params)
{
    struct manifest back = {.n_params = 0};
    struct error err = {0};
    enum status s = manifest_params_parse(m->json, &back, &err);
    assert(s == STATUS_OK && back.n_params == m->n_params);
    for (size_t i = 0; i < m->n_params; i++) {
        const struct manifest_param *p = &m->params[i];
        char name[128];
        (void)snprintf(name, sizeof(name), "%.*s", SV_ARG(p->name));
        if (p->default_json != NULL) s = manifest_check_value(m, name, p->default_json, &err);
        assert(p->default_json == NULL || s == STATUS_OK);
        if (p->example != NULL) s = manifest_check_value(&back, name, p->example, &err);
        assert(p->example == NULL || s == STATUS_OK);
    }
    try_params(m, params);
    manifest_release(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct manifest m;
    struct error err = {0};
    struct strview all = sv_n((const char *)bytes, n), text = sv_sub(all, 0, sv_find(all, '\0'));
    if (manifest_parse("bot.yaml", text, &m, &err) == STATUS_OK) {
        check(&m, sv_sub(all, text.len + 1, n));
        manifest_release(&m);
    } else {
        assert(sv_starts_with(sv(err.message), SV("bot.yaml:")));
    }
    return 0;
}
