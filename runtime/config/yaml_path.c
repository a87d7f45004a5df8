#include "config/yaml.h"

struct place {
    unsigned line, column;
    bool is_key;
};

static bool is_at(const struct place *p, unsigned line, unsigned column)
{
    return p->line == line && p->column == column;
}

static const char *step(const struct yaml_node *parent, const struct yaml_node *child, size_t i,
                        const char *rest, struct arena *a)
{
    const char *dot = rest[0] != '\0' && rest[0] != '[' ? "." : "";
    return parent->type == YAML_MAP ? arena_printf(a, "%.*s%s%s", SV_ARG(child->key), dot, rest).ptr
                                    : arena_printf(a, "[%zu]%s%s", i, dot, rest).ptr;
}

/* The path is made on the way back, so that only what was found costs memory. The loader bounds the depth. */
static const char *find_in(const struct yaml_node *node, const struct place *p, struct arena *a)
{
    size_t i = 0;
    if (!p->is_key && is_at(p, node->line, node->column)) return "";
    for (const struct yaml_node *child = node->first; child != NULL; child = child->next, i++) {
        bool is_key = p->is_key && node->type == YAML_MAP && is_at(p, child->key_line, child->key_column);
        const char *rest = is_key ? "" : find_in(child, p, a);
        if (rest != NULL) return step(node, child, i, rest, a);
    }
    return NULL;
}

const char *yaml_path_at(const struct yaml_document *doc, unsigned line, unsigned column, bool is_key,
                         struct arena *a)
{
    return find_in(doc->root, &(struct place){line, column, is_key}, a);
}
