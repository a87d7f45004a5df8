#include "functions/dispatcher/runbook.h"

#define READ_TRIES 10 /* of a folder that changes meanwhile */

static enum status add(struct runbook_set *set, struct runbook *rb, const struct yaml_document *doc,
                       const struct yaml_node *map, struct error *err)
{
    for (size_t i = 0; i < set->n; i++) {
        const struct runbook *other = set->items[i];
        if (rb->name.len == 0 || !sv_eq(other->name, rb->name)) continue;
        enum status s = yaml_error(doc, map, err, "runbook '%.*s' is there already, at %.*s:%u",
                                   SV_ARG(rb->name), SV_ARG(other->file), other->line);
        runbook_free(rb);
        return s;
    }
    set->items[set->n++] = rb;
    return STATUS_OK;
}

static enum status read_file(struct runbook_set *set, const char *path, struct error *err)
{
    struct arena arena = {0};
    struct yaml_document doc;
    enum status s = yaml_read(&arena, path, &doc, err);
    if (s == STATUS_OK) {
        const struct yaml_node *node = doc.root->type == YAML_LIST ? doc.root->first : doc.root;
        for (; node != NULL && s == STATUS_OK; node = node == doc.root ? NULL : node->next) {
            struct runbook *rb;
            if (set->n == RUNBOOK_SET_MAX)
                s = yaml_error(&doc, node, err, "more than %d runbooks", RUNBOOK_SET_MAX);
            else
                s = runbook_parse(&doc, node, &rb, err);
            if (s == STATUS_OK) s = add(set, rb, &doc, node, err);
            if (s == STATUS_OK) s = runbook_prepare_schedule(set->items[set->n - 1], err);
        }
    }
    arena_release(&arena);
    return s;
}

void runbook_set_read_all(const char *path, struct runbook_set *set, yaml_fault_cb *on_fault, void *arg)
{
    struct arena arena = {0};
    struct yaml_document doc;
    struct error err;
    if (yaml_read(&arena, path, &doc, &err) != STATUS_OK) {
        on_fault(arg, &err);
        arena_release(&arena);
        return;
    }
    doc.on_fault = on_fault;
    doc.fault_arg = arg;
    const struct yaml_node *node = doc.root->type == YAML_LIST ? doc.root->first : doc.root;
    for (; node != NULL; node = node == doc.root ? NULL : node->next) {
        if (set->n == RUNBOOK_SET_MAX) {
            (void)!yaml_error(&doc, node, &err, "more than %d runbooks", RUNBOOK_SET_MAX);
            break;
        }
        (void)!add(set, runbook_parse_all(&doc, node), &doc, node, &err);
    }
    arena_release(&arena);
}

static enum status read_files(const char *dir, const struct runbook_folder *folder, struct runbook_set *set,
                              struct error *err)
{
    struct arena arena = {0};
    enum status s = STATUS_OK;
    for (size_t i = 0; i < folder->n && s == STATUS_OK; i++)
        s = read_file(set, arena_printf(&arena, "%s/%.*s", dir, SV_ARG(folder->names[i])).ptr, err);
    arena_release(&arena);
    return s;
}

/* ret_is_whole: nothing changed meanwhile. */
static enum status read_once(const char *dir, struct runbook_set *set, bool *ret_is_whole, struct error *err)
{
    struct arena arena = {0};
    struct runbook_folder before, after;
    struct error why;
    *set = (struct runbook_set){.n = 0};
    *ret_is_whole = true;
    enum status s = runbook_folder_list(dir, &arena, &before, err);
    if (s == STATUS_OK) {
        s = read_files(dir, &before, set, err);
        *ret_is_whole = runbook_folder_list(dir, &arena, &after, &why) == STATUS_OK &&
                        runbook_mark_eq(&before.mark, &after.mark);
        set->mark = before.mark;
    }
    arena_release(&arena);
    return s;
}

enum status runbook_set_read(const char *dir, struct runbook_set *ret_set, struct error *err)
{
    bool is_whole = false;
    enum status s = STATUS_OK;
    for (int i = 0; i < READ_TRIES && !is_whole; i++) {
        if (i > 0) runbook_set_release(ret_set);
        s = read_once(dir, ret_set, &is_whole, err);
    }
    if (!is_whole) s = error_set(err, STATUS_UNAVAILABLE, "runbooks in '%s' change while they are read", dir);
    if (s != STATUS_OK) runbook_set_release(ret_set);
    return s;
}

struct strview runbook_set_json(const struct runbook_set *set, struct arena *a)
{
    json_t *list = json_array();
    for (size_t i = 0; i < set->n; i++) {
        const struct runbook *rb = set->items[i];
        json_t *item = json_object();
        (void)json_object_set_new(item, "hash", json_string(rb->hash));
        (void)json_object_set_new(item, "mode", json_string(runbook_mode_name(rb->mode)));
        (void)json_object_set_new(item, "name", json_text(rb->name));
        (void)json_array_append_new(list, item);
    }
    struct strview text = json_canonical(a, list);
    json_decref(list);
    return text;
}

void runbook_set_release(struct runbook_set *set)
{
    for (size_t i = 0; i < set->n; i++)
        runbook_free(set->items[i]);
    set->n = 0;
}
