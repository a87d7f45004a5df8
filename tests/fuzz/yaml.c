/* The YAML loader and table decoder on any bytes: what loads keeps its bounds and says where it stands,
 * and becomes JSON.
 *
 * Reads: config/yaml.c config/yaml_decode.c config/yaml_path.c */
#include "config/yaml.h"

#include <assert.h>

#include "base/list.h"
#include "replay.h"

struct fields {
    struct strview name;
    int64_t count, wait_ns, size_bytes;
    bool is_fast;
    int mode;
    const struct yaml_node *steps;
    struct yaml_text_list match;
};

static const char *const modes[] = {"off", "shadow", "act", NULL};
static const struct yaml_field table[] = {
    {.name = "name",
     .type = YAML_FIELD_TEXT,
     .offset = offsetof(struct fields, name),
     .is_required = true,
     .max = 64},
    {.name = "count", .type = YAML_FIELD_INT, .offset = offsetof(struct fields, count)},
    {.name = "wait", .type = YAML_FIELD_DURATION, .offset = offsetof(struct fields, wait_ns)},
    {.name = "size", .type = YAML_FIELD_BYTES, .offset = offsetof(struct fields, size_bytes)},
    {.name = "fast", .type = YAML_FIELD_BOOL, .offset = offsetof(struct fields, is_fast)},
    {.name = "mode", .type = YAML_FIELD_ENUM, .offset = offsetof(struct fields, mode), .names = modes},
    {.name = "steps", .type = YAML_FIELD_NODE, .offset = offsetof(struct fields, steps)},
    {.name = "match", .type = YAML_FIELD_TEXT_LIST, .offset = offsetof(struct fields, match)},
};

static size_t check_tree(const struct yaml_node *node, unsigned depth)
{
    size_t children = 0, total = 1;
    assert(depth <= YAML_DEPTH_MAX + 1 && node->line > 0 && node->column > 0);
    assert(node->text.len == 0 ||
           (sv_is_utf8(node->text) && memchr(node->text.ptr, '\0', node->text.len) == NULL));
    for (const struct yaml_node *child = node->first; child != NULL; child = child->next, children++) {
        assert(node->type != YAML_MAP || (child->key.len > 0 && yaml_get(node, child->key) == child));
        total += check_tree(child, depth + 1);
    }
    assert(children == node->n_children);
    return total;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct arena arena = {0};
    struct yaml_document doc;
    struct error err = {0};
    enum status s = yaml_parse(&arena, "fuzz.yaml", sv_n((const char *)bytes, n), &doc, &err);
    if (s == STATUS_OK) {
        struct fields got = {0};
        size_t total = check_tree(doc.root, 1);
        assert(total <= YAML_NODES_MAX);
        json_t *value = yaml_to_json(doc.root);
        struct strview text = json_canonical(&arena, value);
        assert(sv_is_utf8(text));
        json_release(value);
        s = yaml_decode(&doc, doc.root, "the file", table, ARRAY_LEN(table), &arena, &got, &err);
    }
    /* A refusal says where. */
    assert(s == STATUS_OK ||
           (s == STATUS_INVALID_ARGUMENT && sv_starts_with(sv(err.message), SV("fuzz.yaml:"))));
    arena_release(&arena);
    return 0;
}
