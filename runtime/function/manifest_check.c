/* Values against a function's parameters before it is asked: what its manifest (--describe) says, read by the
 * code that read bot.yaml, and judged by the decoder that the function itself has. */
#include "base/clock.h"
#include "function/manifest_impl.h"

struct param_field manifest_param_field(struct arena *a, const struct manifest_param *p)
{
    const char **names = NULL;
    if (p->names.n > 0) {
        names = arena_array(a, p->names.n + 1, sizeof(*names));
        for (size_t i = 0; i < p->names.n; i++)
            names[i] = arena_cstr(a, p->names.items[i]);
    }
    return (struct param_field){.name = arena_cstr(a, p->name),
                                .type = (enum param_type)p->type,
                                .pattern = (enum param_pattern)p->pattern,
                                .is_required = p->is_required,
                                .min = p->min,
                                .max = p->max,
                                .names = names};
}

enum status manifest_params_parse(const json_t *described, struct manifest *ret_manifest, struct error *err)
{
    struct arena a = {0};
    json_t *params = json_object_get(described, "params");
    if (!json_is_object(params))
        return error_set(err, STATUS_NOT_FOUND, "the manifest says nothing of parameters");
    /* JSON is YAML, and the rest of a manifest does not matter here. */
    json_t *alone =
        json_pack("{s:s, s:s, s:b, s:O}", "name", "f", "summary", "f", "acts", 0, "params", params);
    enum status s = manifest_parse("manifest", json_canonical(&a, alone), ret_manifest, err);
    json_release(alone);
    arena_release(&a);
    return s;
}

enum status manifest_check_value(const struct manifest *m, const char *name, const json_t *value,
                                 struct error *err)
{
    struct arena a = {0};
    union manifest_value ignored;
    enum status s = STATUS_OK;
    for (size_t i = 0; i < m->n_params; i++) {
        if (!sv_eq(m->params[i].name, sv(name))) continue;
        struct param_field field = manifest_param_field(&a, &m->params[i]);
        json_t *body = json_pack("{s:O}", name, value);
        s = params_decode("the function", &field, 1, body, &a, &ignored, err);
        json_release(body);
        break;
    }
    arena_release(&a);
    return s;
}

static union manifest_value default_of(const struct manifest_param *p)
{
    switch ((enum param_type)p->type) {
    case PARAM_TEXT:
        return (union manifest_value){.text = p->default_text};
    case PARAM_BOOLEAN:
        return (union manifest_value){.boolean = p->default_boolean};
    case PARAM_TEXT_LIST:
        return (union manifest_value){.list = p->default_list};
    default:
        return (union manifest_value){.number = p->default_number};
    }
}

static json_t *value_to_json(enum param_type type, const union manifest_value *v)
{
    char duration[DURATION_TEXT_MAX];
    json_t *list;
    switch (type) {
    case PARAM_TEXT:
        return json_text(v->text);
    case PARAM_BOOLEAN:
        return json_boolean(v->boolean);
    case PARAM_DURATION:
        return json_string(duration_format(v->number, duration));
    case PARAM_TEXT_LIST:
        list = json_array();
        for (size_t i = 0; i < v->list.n; i++)
            (void)json_array_append_new(list, json_text(v->list.items[i]));
        return list;
    default:
        return json_integer(v->number);
    }
}

enum status manifest_complete(const struct manifest *m, const char *function, const json_t *body,
                              json_t **ret_complete, struct error *err)
{
    struct arena a = {0};
    struct param_field *fields = arena_array(&a, m->n_params, sizeof(*fields));
    union manifest_value *values = arena_array(&a, m->n_params, sizeof(*values));
    for (size_t i = 0; i < m->n_params; i++) {
        fields[i] = manifest_param_field(&a, &m->params[i]);
        fields[i].offset = i * sizeof(*values);
        values[i] = default_of(&m->params[i]);
    }
    enum status s = params_decode(function, fields, m->n_params, body, &a, values, err);
    if (s == STATUS_OK) {
        *ret_complete = json_object();
        for (size_t i = 0; i < m->n_params; i++)
            (void)json_object_set_new(*ret_complete, fields[i].name,
                                      value_to_json(fields[i].type, &values[i]));
    }
    arena_release(&a);
    return s;
}

/* What nobody is told of, nobody sets by intent. */
enum status manifest_check_removes(const struct manifest *m, const struct yaml_document *doc,
                                   struct error *err)
{
    const struct yaml_node *node = yaml_get(doc->root, SV("removes_below"));
    if (node == NULL) return STATUS_OK;
    if (!m->is_destructive)
        return yaml_error(doc, node, err, "removes_below: what removes files is destructive");
    for (size_t i = 0; i < m->n_environment; i++)
        if (sv_eq(m->environment[i].name, m->removes_below)) return STATUS_OK;
    return yaml_error(doc, node, err, "removes_below: '%.*s' is no variable of environment",
                      SV_ARG(m->removes_below));
}
