#include "gateway/broker_program.h"

#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/list.h"
#include "config/words.h"

#define TIMEOUT_DEFAULT_NS (30 * NS_PER_S)
#define TIMEOUT_MAX_NS     (90 * NS_PER_S) /* balm stop waits for what is under way */

struct raw_program {
    struct broker_program program;
    const struct yaml_node *params;
};

static const struct yaml_field program_fields[] = {
    {.name = "functions",
     .type = YAML_FIELD_TEXT_LIST,
     .offset = offsetof(struct raw_program, program.functions),
     .is_required = true},
    {.name = "command",
     .type = YAML_FIELD_TEXT_LIST,
     .offset = offsetof(struct raw_program, program.command),
     .is_required = true},
    {.name = "timeout",
     .type = YAML_FIELD_DURATION,
     .offset = offsetof(struct raw_program, program.timeout_ns),
     .min = NS_PER_S,
     .max = TIMEOUT_MAX_NS},
    {.name = "params", .type = YAML_FIELD_NODE, .offset = offsetof(struct raw_program, params)},
};

/* ---- places ---- */

/* Cuts the text up to the next ${name} off *rest. *ret_name: the name; without a pointer where none follows.
 */
static void next_place(struct strview *rest, struct strview *ret_text, struct strview *ret_name)
{
    size_t at = 0, end = rest->len;
    *ret_name = (struct strview){0};
    while (at + 1 < rest->len && (rest->ptr[at] != '$' || rest->ptr[at + 1] != '{'))
        at++;
    if (at + 1 < rest->len) end = at + sv_find(sv_sub(*rest, at, rest->len), '}');
    if (end == rest->len) { /* no place, or one that nobody closed: text */
        *ret_text = *rest;
        *rest = sv_sub(*rest, rest->len, rest->len);
        return;
    }
    *ret_text = sv_sub(*rest, 0, at);
    *ret_name = sv_sub(*rest, at + 2, end);
    *rest = sv_sub(*rest, end + 1, rest->len);
}

static const struct manifest_param *find_param(const struct manifest *m, struct strview name)
{
    for (size_t i = 0; i < m->n_params; i++)
        if (sv_eq(m->params[i].name, name)) return &m->params[i];
    return NULL;
}

static bool has_place(const struct broker_program *p, struct strview name)
{
    for (size_t i = 0; i < p->command.n; i++) {
        struct strview rest = p->command.items[i], text, found;
        while (rest.len > 0) {
            next_place(&rest, &text, &found);
            if (found.ptr != NULL && sv_eq(found, name)) return true;
        }
    }
    return false;
}

/* ---- the list's entry ---- */

static enum status check_words(const struct yaml_document *doc, const struct yaml_node *node,
                               const struct broker_program *p, struct error *err)
{
    if (p->command.n == 0 || p->command.n > WORDS_MAX)
        return yaml_error(doc, node, err, "command of '%.*s' has %zu words; 1 to %d are allowed",
                          SV_ARG(p->name), p->command.n, WORDS_MAX);
    struct strview first = p->command.items[0];
    if (!sv_starts_with(first, SV("/")) || sv_contains(first, SV("${")))
        return yaml_error(doc, node, err, "command of '%.*s' must begin with an absolute path, not '%.*s'",
                          SV_ARG(p->name), SV_ARG(first));
    for (size_t i = 0; i < p->command.n; i++) {
        struct strview rest = p->command.items[i], text, name;
        while (rest.len > 0) {
            next_place(&rest, &text, &name);
            if (name.ptr != NULL && find_param(&p->params, name) == NULL)
                return yaml_error(doc, node, err, "command of '%.*s': ${%.*s} is none of its params",
                                  SV_ARG(p->name), SV_ARG(name));
        }
    }
    return STATUS_OK;
}

static enum status check_params(const struct yaml_document *doc, const struct yaml_node *node,
                                const struct broker_program *p, struct error *err)
{
    for (size_t i = 0; i < p->params.n_params; i++) {
        const struct manifest_param *param = &p->params.params[i];
        if (param->type == PARAM_TEXT_LIST)
            return yaml_error(doc, node, err, "params of '%.*s': '%.*s' is a list; a place takes one value",
                              SV_ARG(p->name), SV_ARG(param->name));
        if (!has_place(p, param->name))
            return yaml_error(doc, node, err, "params of '%.*s': '%.*s' has no place ${%.*s} in the command",
                              SV_ARG(p->name), SV_ARG(param->name), SV_ARG(param->name));
    }
    return STATUS_OK;
}

/* Read by the code that reads a bot's; where in it a mistake is, its message says by name. */
static enum status read_params(const struct yaml_document *doc, const struct yaml_node *node,
                               struct manifest *ret, struct error *err)
{
    struct error why;
    json_t *described = json_pack("{s:o}", "params", node != NULL ? yaml_to_json(node) : json_object());
    enum status s = manifest_params_parse(described, ret, &why);
    json_release(described);
    return s == STATUS_OK ? s : yaml_error(doc, node, err, "params: %s", why.message);
}

enum status broker_program_read(const struct yaml_document *doc, const struct yaml_node *node,
                                struct arena *a, struct broker_program *ret_program, struct error *err)
{
    struct raw_program raw = {.program = {.name = node->key, .timeout_ns = TIMEOUT_DEFAULT_NS}};
    enum status s =
        yaml_decode(doc, node, "program", program_fields, ARRAY_LEN(program_fields), a, &raw, err);
    if (s == STATUS_OK) s = read_params(doc, raw.params, &raw.program.params, err);
    if (s != STATUS_OK) return s;
    s = check_words(doc, node, &raw.program, err);
    if (s == STATUS_OK) s = check_params(doc, node, &raw.program, err);
    if (s == STATUS_OK)
        *ret_program = raw.program;
    else
        broker_program_release(&raw.program);
    return s;
}

void broker_program_release(struct broker_program *p)
{
    manifest_release(&p->params);
}

bool broker_program_allows(const struct broker_program *p, struct strview function)
{
    for (size_t i = 0; i < p->functions.n; i++)
        if (sv_eq(p->functions.items[i], function)) return true;
    return false;
}

/* ---- the argv of one call ---- */

static struct strview value_text(const json_t *value, struct arena *a)
{
    if (json_is_string(value)) return sv_n(json_string_value(value), json_string_length(value));
    if (json_is_integer(value)) return arena_printf(a, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    return json_is_true(value) ? SV("true") : SV("false");
}

static enum status fill_word(struct strview word, const json_t *values, struct arena *a,
                             struct strview *ret_word, struct error *err)
{
    struct strview rest = word, text, name, whole = SV("");
    while (rest.len > 0) {
        next_place(&rest, &text, &name);
        whole = arena_printf(a, "%.*s%.*s", SV_ARG(whole), SV_ARG(text));
        if (name.ptr == NULL) continue;
        struct strview value = value_text(json_object_get(values, arena_cstr(a, name)), a);
        if (whole.len == 0 && sv_starts_with(value, SV("-")))
            return error_set(err, STATUS_INVALID_ARGUMENT,
                             "argument '%.*s' begins with '-': the program might take it for an option",
                             SV_ARG(name));
        whole = arena_printf(a, "%.*s%.*s", SV_ARG(whole), SV_ARG(value));
    }
    *ret_word = whole;
    return STATUS_OK;
}

enum status broker_program_argv(const struct broker_program *p, const json_t *arguments, struct arena *a,
                                struct yaml_text_list *ret_words, struct error *err)
{
    json_t *values = NULL;
    struct yaml_text_list words = {.items = arena_array(a, p->command.n, sizeof(struct strview)),
                                   .n = p->command.n};
    const char *name = arena_printf(a, "program '%.*s'", SV_ARG(p->name)).ptr;
    enum status s = manifest_complete(&p->params, name, arguments, &values, err);
    for (size_t i = 0; i < words.n && s == STATUS_OK; i++)
        s = fill_word(p->command.items[i], values, a, &words.items[i], err);
    json_release(values);
    if (s == STATUS_OK) *ret_words = words;
    return s;
}
