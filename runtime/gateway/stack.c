/* stack.yml (contracts/openfaas.md §4.1): what of it says how to run a function here. What only builds an image is accepted and left alone. */
#include "gateway/gateway_impl.h"

#include <string.h>

#include "config/yaml.h"

struct stack_file {
    struct strview version;
    const struct yaml_node *provider, *functions, *configuration;
};

static const struct yaml_field file_fields[] = {
    {.name = "version", .type = YAML_FIELD_TEXT, .offset = offsetof(struct stack_file, version)},
    {.name = "provider", .type = YAML_FIELD_NODE, .offset = offsetof(struct stack_file, provider)},
    {.name = "functions", .type = YAML_FIELD_NODE, .offset = offsetof(struct stack_file, functions), .is_required = true},
    {.name = "configuration", .type = YAML_FIELD_NODE, .offset = offsetof(struct stack_file, configuration)},
};

struct stack_function {
    struct strview lang, handler, image, process, name_space;
    const struct yaml_node *environment, *labels, *annotations, *limits, *requests, *constraints, *build_args, *build_options, *environment_file,
        *platforms, *publish;
    bool skip_build, read_only_root;
    struct yaml_text_list secrets;
};

#define NODE(n, m) {.name = n, .type = YAML_FIELD_NODE, .offset = offsetof(struct stack_function, m)}
#define TEXT(n, m) {.name = n, .type = YAML_FIELD_TEXT, .offset = offsetof(struct stack_function, m)}
static const struct yaml_field function_fields[] = {
    TEXT("lang", lang),
    TEXT("handler", handler),
    {.name = "image", .type = YAML_FIELD_TEXT, .offset = offsetof(struct stack_function, image), .is_required = true},
    TEXT("fprocess", process),
    TEXT("namespace", name_space),
    NODE("environment", environment),
    NODE("environment_file", environment_file),
    NODE("labels", labels),
    NODE("annotations", annotations),
    NODE("limits", limits),
    NODE("requests", requests),
    NODE("constraints", constraints),
    NODE("build_args", build_args),
    NODE("build_options", build_options),
    NODE("platforms", platforms),
    NODE("publish", publish),
    {.name = "skip_build", .type = YAML_FIELD_BOOL, .offset = offsetof(struct stack_function, skip_build)},
    {.name = "readonly_root_filesystem", .type = YAML_FIELD_BOOL, .offset = offsetof(struct stack_function, read_only_root)},
    {.name = "secrets", .type = YAML_FIELD_TEXT_LIST, .offset = offsetof(struct stack_function, secrets)},
};

struct stack_limits {
    int64_t memory_bytes;
    struct strview cpu;
};

static const struct yaml_field limit_fields[] = {
    {.name = "memory", .type = YAML_FIELD_BYTES, .offset = offsetof(struct stack_limits, memory_bytes)},
    {.name = "cpu", .type = YAML_FIELD_TEXT, .offset = offsetof(struct stack_limits, cpu)},
};

/* A map of scalars, every value as text, whatever it looks like. */
static enum status text_map(const struct yaml_document *doc, const struct yaml_node *map, const char *what, json_t **ret_map, struct error *err)
{
    *ret_map = NULL;
    if (map == NULL) return STATUS_OK;
    if (map->type != YAML_MAP) return yaml_error(doc, map, err, "%s must be a map", what);
    *ret_map = json_object();
    for (const struct yaml_node *n = map->first; n != NULL; n = n->next) {
        if (n->type != YAML_SCALAR) return yaml_error(doc, n, err, "%s: '%.*s' must be a single value", what, SV_ARG(n->key));
        (void)json_object_setn_new(*ret_map, n->key.ptr, n->key.len, json_text(n->text));
    }
    return STATUS_OK;
}

static enum status read_function(const struct yaml_document *doc, const struct yaml_node *node, struct arena *a, struct deployment_spec *spec,
                                 struct error *err)
{
    struct stack_function f = {0};
    struct stack_limits limits = {0};
    *spec = (struct deployment_spec){.arena = a, .name = node->key};
    enum status s = yaml_decode(doc, node, "function", function_fields, ARRAY_LEN(function_fields), a, &f, err);
    if (s == STATUS_OK && f.limits != NULL) s = yaml_decode(doc, f.limits, "limits", limit_fields, ARRAY_LEN(limit_fields), a, &limits, err);
    if (s == STATUS_OK) s = text_map(doc, f.environment, "environment", &spec->env, err);
    if (s == STATUS_OK) s = text_map(doc, f.labels, "labels", &spec->labels, err);
    if (s == STATUS_OK) s = text_map(doc, f.annotations, "annotations", &spec->annotations, err);
    spec->image = f.image;
    spec->process = f.process;
    spec->secrets = f.secrets.items;
    spec->n_secrets = f.secrets.n;
    spec->memory_bytes = limits.memory_bytes;
    return s;
}

static enum status deploy_one(struct gateway *g, const struct yaml_document *doc, const struct yaml_node *node, struct arena *a, struct error *err)
{
    struct deployment_spec spec;
    struct error why;
    enum status s = read_function(doc, node, a, &spec, err);
    if (s == STATUS_OK) {
        s = supervisor_deploy(g, &spec, &why);
        if (s != STATUS_OK) s = yaml_error(doc, node, err, "%s", why.message);
    }
    json_release(spec.env);
    json_release(spec.labels);
    json_release(spec.annotations);
    return s;
}

enum status stack_deploy(struct gateway *g, const char *file, struct error *err)
{
    if (file == NULL) return STATUS_OK;
    struct arena a = {0};
    struct yaml_document doc;
    struct stack_file stack = {0};
    enum status s = yaml_read(&a, file, &doc, err);
    if (s == STATUS_OK) s = yaml_decode(&doc, doc.root, "stack file", file_fields, ARRAY_LEN(file_fields), &a, &stack, err);
    if (s == STATUS_OK && stack.functions->type != YAML_MAP) s = yaml_error(&doc, stack.functions, err, "functions must be a map of names");
    if (s == STATUS_OK)
        for (const struct yaml_node *n = stack.functions->first; n != NULL && s == STATUS_OK; n = n->next)
            s = deploy_one(g, &doc, n, &a, err);
    arena_release(&a);
    return s;
}

unsigned deployment_label(const struct deployment_spec *spec, const char *label, unsigned fallback, unsigned max)
{
    uint64_t value;
    if (spec->labels == NULL || sv_parse_u64(json_get_text(spec->labels, label), &value) != STATUS_OK) return fallback;
    return value < max ? (unsigned)value : max;
}
