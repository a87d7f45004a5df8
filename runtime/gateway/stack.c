/* stack.yml (contracts/openfaas.md §4.1): what of it says how to run a function here. What only builds an
 * image is accepted and left alone. */
#include "gateway/gateway_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/list.h"
#include "config/bytes.h"
#include "config/config.h"
#include "config/yaml.h"

struct stack_file {
    struct strview version;
    const struct yaml_node *provider, *functions, *configuration;
};

static const struct yaml_field file_fields[] = {
    {.name = "version", .type = YAML_FIELD_TEXT, .offset = offsetof(struct stack_file, version)},
    {.name = "provider", .type = YAML_FIELD_NODE, .offset = offsetof(struct stack_file, provider)},
    {.name = "functions",
     .type = YAML_FIELD_NODE,
     .offset = offsetof(struct stack_file, functions),
     .is_required = true},
    {.name = "configuration", .type = YAML_FIELD_NODE, .offset = offsetof(struct stack_file, configuration)},
};

struct stack_function {
    struct strview lang, handler, image, process, name_space;
    const struct yaml_node *environment, *labels, *annotations, *limits, *requests, *build_args,
        *build_options, *environment_file, *build_secrets, *platforms, *publish;
    bool skip_build, read_only_root;
    struct yaml_text_list secrets, constraints;
};

#define NODE(n, m)                                                                                           \
    {                                                                                                        \
        .name = (n), .type = YAML_FIELD_NODE, .offset = offsetof(struct stack_function, m)                   \
    }
#define TEXT(n, m)                                                                                           \
    {                                                                                                        \
        .name = (n), .type = YAML_FIELD_TEXT, .offset = offsetof(struct stack_function, m)                   \
    }
static const struct yaml_field function_fields[] = {
    TEXT("lang", lang),
    TEXT("handler", handler),
    {.name = "image",
     .type = YAML_FIELD_TEXT,
     .offset = offsetof(struct stack_function, image),
     .is_required = true},
    TEXT("fprocess", process),
    TEXT("namespace", name_space),
    NODE("environment", environment),
    NODE("environment_file", environment_file),
    NODE("labels", labels),
    NODE("annotations", annotations),
    NODE("limits", limits),
    NODE("requests", requests),
    NODE("build_args", build_args),
    NODE("build_secrets", build_secrets),
    NODE("build_options", build_options),
    NODE("platforms", platforms),
    NODE("publish", publish),
    {.name = "skip_build", .type = YAML_FIELD_BOOL, .offset = offsetof(struct stack_function, skip_build)},
    {.name = "readonly_root_filesystem",
     .type = YAML_FIELD_BOOL,
     .offset = offsetof(struct stack_function, read_only_root)},
    {.name = "secrets", .type = YAML_FIELD_TEXT_LIST, .offset = offsetof(struct stack_function, secrets)},
    {.name = "constraints",
     .type = YAML_FIELD_TEXT_LIST,
     .offset = offsetof(struct stack_function, constraints)},
};

struct stack_limits {
    struct strview memory;
    struct strview cpu;
};

static const struct yaml_field limit_fields[] = {
    {.name = "memory", .type = YAML_FIELD_TEXT, .offset = offsetof(struct stack_limits, memory)},
    {.name = "cpu", .type = YAML_FIELD_TEXT, .offset = offsetof(struct stack_limits, cpu)},
};

/* A map of scalars, every value as text, whatever it looks like. */
static enum status text_map(const struct yaml_document *doc, const struct yaml_node *map, const char *what,
                            json_t **ret_map, struct error *err)
{
    *ret_map = NULL;
    if (map == NULL) return STATUS_OK;
    if (map->type != YAML_MAP) return yaml_error(doc, map, err, "%s must be a map", what);
    *ret_map = json_object();
    for (const struct yaml_node *n = map->first; n != NULL; n = n->next) {
        if (n->type != YAML_SCALAR)
            return yaml_error(doc, n, err, "%s: '%.*s' must be a single value", what, SV_ARG(n->key));
        (void)json_object_setn_new(*ret_map, n->key.ptr, n->key.len, json_text(n->text));
    }
    return STATUS_OK;
}

static json_t *text_list(const struct yaml_text_list *list)
{
    json_t *items = json_array();
    for (size_t i = 0; i < list->n; i++)
        (void)json_array_append_new(items, json_text(list->items[i]));
    return items;
}

static enum status read_function(const struct yaml_document *doc, const struct yaml_node *node,
                                 struct arena *a, struct deployment_spec *spec, struct error *err)
{
    struct stack_function f = {0};
    struct stack_limits limits = {0};
    *spec = (struct deployment_spec){.arena = a, .name = node->key};
    enum status s =
        yaml_decode(doc, node, "function", function_fields, ARRAY_LEN(function_fields), a, &f, err);
    if (s == STATUS_OK && f.limits != NULL)
        s = yaml_decode(doc, f.limits, "limits", limit_fields, ARRAY_LEN(limit_fields), a, &limits, err);
    if (s == STATUS_OK && limits.memory.len > 0 &&
        bytes_parse_quantity(limits.memory, &spec->memory_bytes) != STATUS_OK)
        s = yaml_error(doc, f.limits, err, "memory '%.*s': " BYTES_QUANTITY_UNITS,
                       SV_ARG(sv_sub(limits.memory, 0, 40)));
    if (s == STATUS_OK && limits.cpu.len > 0 &&
        cpu_parse_quantity(limits.cpu, &spec->cpu_millis) != STATUS_OK)
        s = yaml_error(doc, f.limits, err, "cpu '%.*s': " CPU_QUANTITY_UNITS,
                       SV_ARG(sv_sub(limits.cpu, 0, 40)));
    if (s == STATUS_OK && f.environment_file != NULL)
        s = yaml_error(doc, f.environment_file, err,
                       "environment_file is read by faas-cli only: put the variables under environment");
    if (s == STATUS_OK && f.name_space.len > 0 && !sv_eq(f.name_space, SV(FUNCTION_NAMESPACE)))
        s = yaml_error(doc, node, err, "namespace '%.*s' is not here: there is one, " FUNCTION_NAMESPACE,
                       SV_ARG(f.name_space));
    if (s == STATUS_OK) s = text_map(doc, f.environment, "environment", &spec->env, err);
    if (s == STATUS_OK) s = text_map(doc, f.labels, "labels", &spec->labels, err);
    if (s == STATUS_OK) s = text_map(doc, f.annotations, "annotations", &spec->annotations, err);
    if (s == STATUS_OK) s = text_map(doc, f.limits, "limits", &spec->limits, err);
    if (s == STATUS_OK) s = text_map(doc, f.requests, "requests", &spec->requests, err);
    if (s == STATUS_OK) spec->constraints = text_list(&f.constraints);
    spec->is_read_only = f.read_only_root;
    spec->image = f.image;
    spec->process = f.process;
    spec->secrets = f.secrets.items;
    spec->n_secrets = f.secrets.n;
    return s;
}

/* What the file asks for, entry by entry: all are prepared before the first is committed. */
struct stack_entry {
    struct strview name;
    struct deployment *prepared; /* NULL: runs as it is */
};

struct stack_plan {
    struct gateway *gateway;
    struct arena arena;
    bool is_void; /* there is no file: all stays */
    struct stack_entry *entries;
    size_t n;
};

/* What serves now is not given up for something that does not start. At the platform's own start nothing does
 * yet, and a function that does not start must not keep the others from theirs. */
static enum status try_successor(struct deployment *d, struct error *err)
{
    const struct deployment *now = supervisor_find(d->gateway, d->spec.name);
    if (d->gateway->server == NULL || now == NULL || now->n_routed == 0) return STATUS_OK;
    d->users++;
    enum status s = supervisor_try(d, err);
    d->users--;
    return s;
}

static enum status plan_one(struct gateway *g, const struct yaml_document *doc, const struct yaml_node *node,
                            struct arena *a, struct stack_entry *entry, struct error *err)
{
    struct deployment_spec spec;
    struct error why;
    enum status s = read_function(doc, node, a, &spec, err);
    entry->name = spec.name;
    if (s == STATUS_OK) {
        struct deployment *now = supervisor_find(g, spec.name);
        if (now == NULL || !deployment_is_current(now, &spec))
            s = deployment_prepare(g, &spec, &entry->prepared, &why);
        if (s == STATUS_OK && entry->prepared != NULL) s = try_successor(entry->prepared, &why);
        if (s != STATUS_OK) s = yaml_error(doc, node, err, "%s", why.message);
    }
    deployment_spec_release(&spec);
    return s;
}

static const struct stack_entry *plan_find(const struct stack_plan *plan, struct strview name)
{
    for (size_t i = 0; i < plan->n; i++)
        if (sv_eq(plan->entries[i].name, name)) return &plan->entries[i];
    return NULL;
}

static void remove_vanished(struct gateway *g, const struct stack_plan *plan)
{
    struct list *next;
    for (struct list *n = g->deployments.next; n != &g->deployments; n = next) {
        struct deployment *d = container_of(n, struct deployment, node);
        struct error ignored;
        next = n->next;
        if (d->is_from_stack && plan_find(plan, d->spec.name) == NULL)
            (void)!supervisor_remove(g, d->spec.name, &ignored);
    }
}

static enum status read_functions(struct stack_plan *plan, const struct yaml_document *doc,
                                  const struct yaml_node *functions, struct error *err)
{
    enum status s = STATUS_OK;
    if (functions->type != YAML_MAP)
        return yaml_error(doc, functions, err, "functions must be a map of names");
    if (functions->n_children > DEPLOYMENTS_MAX)
        return yaml_error(doc, functions, err, "%zu functions, at most %d are allowed", functions->n_children,
                          DEPLOYMENTS_MAX);
    plan->entries = arena_array(&plan->arena, functions->n_children, sizeof(*plan->entries));
    for (const struct yaml_node *n = functions->first; n != NULL && s == STATUS_OK; n = n->next)
        s = plan_one(plan->gateway, doc, n, &plan->arena, &plan->entries[plan->n++], err);
    return s;
}

static enum status check_provider(const struct yaml_document *doc, const struct yaml_node *provider,
                                  struct error *err)
{
    struct strview name = {0};
    if (provider == NULL) return STATUS_OK;
    const struct yaml_node *node = yaml_get(provider, SV("name"));
    if (node != NULL) name = node->text;
    if (sv_eq(name, SV("openfaas"))) return STATUS_OK;
    return yaml_error(doc, node != NULL ? node : provider, err, "provider: name must be openfaas");
}

static enum status read_stack(struct stack_plan *plan, const char *file, struct error *err)
{
    struct arena *a = &plan->arena;
    struct yaml_document doc;
    struct stack_file stack = {0};
    enum status s = yaml_read(a, file, &doc, err);
    if (s == STATUS_OK)
        s = yaml_decode(&doc, doc.root, "stack file", file_fields, ARRAY_LEN(file_fields), a, &stack, err);
    if (s == STATUS_OK) s = check_provider(&doc, stack.provider, err);
    if (s == STATUS_OK) s = read_functions(plan, &doc, stack.functions, err);
    return s;
}

enum status stack_prepare(struct gateway *g, const char *file, struct stack_plan **ret_plan,
                          struct error *err)
{
    struct stack_plan *plan = mem_zalloc(1, sizeof(*plan));
    plan->gateway = g;
    plan->is_void = file == NULL;
    enum status s = plan->is_void ? STATUS_OK : read_stack(plan, file, err);
    if (s == STATUS_OK)
        *ret_plan = plan;
    else
        stack_discard(plan);
    return s;
}

static void plan_free(struct stack_plan *plan)
{
    arena_release(&plan->arena);
    free(plan);
}

void stack_commit(struct stack_plan *plan)
{
    struct gateway *g = plan->gateway;
    if (!plan->is_void) remove_vanished(g, plan);
    for (size_t i = 0; i < plan->n; i++) {
        struct stack_entry *e = &plan->entries[i];
        if (e->prepared != NULL) supervisor_commit(e->prepared);
        struct deployment *d = supervisor_find(g, e->name);
        if (d != NULL) d->is_from_stack = true;
    }
    plan_free(plan);
}

void stack_discard(struct stack_plan *plan)
{
    if (plan == NULL) return;
    for (size_t i = 0; i < plan->n; i++)
        if (plan->entries[i].prepared != NULL) supervisor_discard(plan->entries[i].prepared);
    plan_free(plan);
}

const struct deployment *stack_find(const struct stack_plan *plan, struct strview name)
{
    const struct deployment *now = supervisor_find(plan->gateway, name);
    name = supervisor_bare_name(name);
    const struct stack_entry *e = plan_find(plan, name);
    if (e != NULL && e->prepared != NULL) return e->prepared;
    if (e == NULL && !plan->is_void && now != NULL && now->is_from_stack) return NULL; /* it goes */
    return now;
}

enum status stack_missing(struct gateway *g, const struct stack_plan *plan, struct strview name,
                          struct error *err)
{
    const char *names[2 * DEPLOYMENTS_MAX];
    struct arena a = {0};
    size_t n = 0;
    if (plan != NULL) g = plan->gateway;
    for (size_t i = 0; plan != NULL && i < plan->n && n < ARRAY_LEN(names); i++)
        names[n++] = arena_cstr(&a, plan->entries[i].name);
    for (const struct list *node = g->deployments.next; node != &g->deployments && n < ARRAY_LEN(names);
         node = node->next) {
        struct strview other = container_of(node, struct deployment, node)->spec.name;
        if (plan == NULL || stack_find(plan, other) != NULL) names[n++] = arena_cstr(&a, other);
    }
    const char *nearest = config_nearest(arena_cstr(&a, name), names, n);
    enum status s = error_set(err, STATUS_NOT_FOUND, "no function '%.*s' is deployed%s%s%s",
                              SV_ARG(sv_sub(name, 0, 80)), nearest != NULL ? " (did you mean '" : "",
                              nearest != NULL ? nearest : "", nearest != NULL ? "'?)" : "");
    arena_release(&a);
    return s;
}
