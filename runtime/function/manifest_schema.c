#include "function/manifest_impl.h"

#include <string.h>

#include "base/clock.h"

/* params.c decides; these say the same to whoever reads the schema (ECMA 262 regular expressions). */
static const char *const pattern_expressions[] = {
    [PARAM_ANY] = "^[^\\u0000]*$",
    [PARAM_LINE] = "^[^\\u0000-\\u001f\\u007f]*$",
    [PARAM_NAME] = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
    [PARAM_UNIT] = "^[A-Za-z0-9_@][A-Za-z0-9_@:.\\\\-]*$",
    [PARAM_PATH_ABSOLUTE] = "^(/|(/(?!\\.{1,2}(/|$))[^/\\u0000-\\u001f\\u007f]+)+)$",
    [PARAM_URL] = "^https?://[!\"$-.0-9;->A-~][!\"$-.0->A-~]*([/?#][!-~]*)?$",
};

static json_t *two_types(const char *first, const char *second)
{
    return json_pack("[s,s]", first, second);
}

static json_t *names_array(const struct yaml_text_list *names)
{
    json_t *array = json_array();
    for (size_t i = 0; i < names->n; i++)
        json_array_append_new(array, json_text(names->items[i]));
    return array;
}

/* max: of characters, which are at most bytes: the decoder is never looser than this. */
static void add_text_rules(json_t *schema, const struct manifest_param *p, int64_t max)
{
    if (p->pattern == PARAM_NAME && max > PARAM_NAME_MAX) max = PARAM_NAME_MAX;
    if (p->pattern == PARAM_UNIT && max > PARAM_UNIT_MAX) max = PARAM_UNIT_MAX;
    json_object_set_new(schema, "maxLength", json_integer(max));
    bool is_any_name = p->pattern == PARAM_ANY && p->names.n > 0; /* the names say it all */
    if (!is_any_name) json_object_set_new(schema, "pattern", json_string(pattern_expressions[p->pattern]));
    if (p->names.n > 0) json_object_set_new(schema, "enum", names_array(&p->names));
}

/* Rounded inwards: the decoder takes each number that the schema allows. Also the bounds of int64_t: to JSON
 * a number has none. */
static void add_number_bounds(json_t *schema, const struct manifest_param *p, int64_t unit)
{
    int64_t minimum = p->min / unit + (p->min > 0 && p->min % unit != 0);
    json_object_set_new(schema, "minimum", json_integer(minimum));
    json_object_set_new(schema, "maximum", json_integer(p->max / unit));
}

/* A number is also taken from a text that spells one; minimum and maximum then are the decoder's alone. */
static json_t *param_schema(const struct manifest_param *p)
{
    json_t *schema = json_object(), *items;
    switch ((enum param_type)p->type) {
    case PARAM_TEXT:
        json_object_set_new(schema, "type", json_string("string"));
        if (p->min > 0) json_object_set_new(schema, "minLength", json_integer(1));
        add_text_rules(schema, p, p->max);
        break;
    case PARAM_INTEGER:
        json_object_set_new(schema, "type", two_types("integer", "string"));
        json_object_set_new(schema, "pattern", json_string("^-?[0-9]+$"));
        add_number_bounds(schema, p, 1);
        break;
    case PARAM_BOOLEAN:
        json_object_set_new(schema, "enum", json_pack("[b,b,s,s]", 1, 0, "true", "false"));
        break;
    case PARAM_DURATION:
        json_object_set_new(schema, "type", two_types("string", "integer"));
        json_object_set_new(schema, "pattern",
                            json_string("^\\+?([0-9]+|(([0-9]+(\\.[0-9]*)?|\\.[0-9]+)"
                                        "(ns|us|\\u00b5s|\\u03bcs|ms|s|m|h|d))+)$"));
        add_number_bounds(schema, p, NS_PER_S);
        break;
    case PARAM_BYTES:
        json_object_set_new(schema, "type", two_types("string", "integer"));
        json_object_set_new(schema, "pattern", json_string("^[0-9]+(KiB|MiB|GiB|TiB)?$"));
        add_number_bounds(schema, p, 1);
        break;
    case PARAM_TEXT_LIST:
        items = json_pack("{s:s}", "type", "string");
        add_text_rules(items, p, PARAM_TEXT_MAX);
        json_object_set_new(schema, "type", json_string("array"));
        json_object_set_new(schema, "items", items);
        json_object_set_new(schema, "minItems", json_integer(p->min));
        json_object_set_new(schema, "maxItems", json_integer(p->max));
        break;
    }
    if (p->description.len > 0) json_object_set_new(schema, "description", json_text(p->description));
    if (p->default_json != NULL) json_object_set(schema, "default", p->default_json);
    if (p->example != NULL) json_object_set_new(schema, "examples", json_pack("[O]", p->example));
    return schema;
}

static json_t *object_schema(json_t *properties)
{
    return json_pack("{s:s,s:s,s:b,s:o}", "$schema", "https://json-schema.org/draft/2020-12/schema", "type",
                     "object", "additionalProperties", 0, "properties", properties);
}

void manifest_add_key_secret(struct manifest *m)
{
    struct strview name = arena_printf(&m->arena, "%.*s-api-key", SV_ARG(m->name));
    struct strview *items = arena_array(&m->arena, m->secrets.n + 1, sizeof(*items));
    for (size_t i = 0; i < m->secrets.n; i++) {
        if (sv_eq(m->secrets.items[i], name)) return;
        items[i] = m->secrets.items[i];
    }
    items[m->secrets.n] = name;
    m->secrets = (struct yaml_text_list){items, m->secrets.n + 1};
}

json_t *manifest_secrets(const struct manifest *m)
{
    json_t *names = json_array();
    for (size_t i = 0; i < m->secrets.n; i++)
        (void)json_array_append_new(names, json_text(m->secrets.items[i]));
    return names;
}

json_t *manifest_params_schema(const struct manifest *m)
{
    json_t *properties = json_object(), *required = json_array();
    for (size_t i = 0; i < m->n_params; i++) {
        const struct manifest_param *p = &m->params[i];
        json_object_setn_new(properties, p->name.ptr, p->name.len, param_schema(p));
        if (p->is_required) json_array_append_new(required, json_text(p->name));
    }
    json_t *schema = object_schema(properties);
    json_object_set_new(schema, "required", required);
    return schema;
}

json_t *manifest_detail_schema(const struct manifest_detail *details, size_t n)
{
    json_t *properties = json_object();
    for (size_t i = 0; i < n; i++) {
        static const char *const types[] = {[PARAM_TEXT] = "string",
                                            [PARAM_INTEGER] = "integer",
                                            [PARAM_BOOLEAN] = "boolean",
                                            [PARAM_TEXT_LIST] = "array"};
        json_t *schema = json_pack("{s:s}", "type", types[details[i].type]);
        if (details[i].type == PARAM_TEXT_LIST)
            json_object_set_new(schema, "items", json_pack("{s:s}", "type", "string"));
        if (details[i].description.len > 0)
            json_object_set_new(schema, "description", json_text(details[i].description));
        json_object_setn_new(properties, details[i].name.ptr, details[i].name.len, schema);
    }
    return object_schema(properties);
}
