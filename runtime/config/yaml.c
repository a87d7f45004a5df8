#include "config/yaml.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "base/file.h"
#include "config/quote.h"
#include "config/yaml_impl.h"

/* One open list or map while events come in. */
struct frame {
    struct yaml_node *node;
    struct yaml_node **tail; /* where the next child is hung */
    bool has_key;            /* map: the key is read, its value is due */
    struct strview key;
    unsigned key_line, key_column;
};

struct loader {
    yaml_parser_t parser;
    struct arena *arena;
    struct yaml_document *doc;
    struct error *err;
    size_t n_nodes;
    unsigned depth;
    struct frame stack[YAML_DEPTH_MAX];
    struct yaml_node *root;
};

/* ---- messages ---- */

static enum status error_at(const char *file, size_t line, size_t column, struct error *err, const char *fmt,
                            va_list args) PRINTF_LIKE(5, 0);
static enum status error_at(const char *file, size_t line, size_t column, struct error *err, const char *fmt,
                            va_list args)
{
    char message[ERROR_MESSAGE_MAX];
    (void)vsnprintf(message, sizeof(message), fmt, args);
    return error_set(err, STATUS_INVALID_ARGUMENT, "%s:%zu:%zu: %s", file, line, column, message);
}

static void tell(const struct yaml_document *doc, const struct error *fault, struct error *err)
{
    if (err != NULL) *err = *fault;
    if (doc->on_fault != NULL) doc->on_fault(doc->fault_arg, fault);
}

enum status yaml_error(const struct yaml_document *doc, const struct yaml_node *at, struct error *err,
                       const char *fmt, ...)
{
    va_list args;
    struct error fault;
    va_start(args, fmt);
    enum status s =
        error_at(doc->file, at != NULL ? at->line : 1, at != NULL ? at->column : 1, &fault, fmt, args);
    va_end(args);
    tell(doc, &fault, err);
    return s;
}

enum status yaml_error_at(const struct yaml_document *doc, size_t line, size_t column, struct error *err,
                          const char *fmt, ...)
{
    va_list args;
    struct error fault;
    va_start(args, fmt);
    enum status s = error_at(doc->file, line, column, &fault, fmt, args);
    va_end(args);
    tell(doc, &fault, err);
    return s;
}

static enum status fail(struct loader *l, yaml_mark_t mark, const char *fmt, ...) PRINTF_LIKE(3, 4);
static enum status fail(struct loader *l, yaml_mark_t mark, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    enum status s = error_at(l->doc->file, mark.line + 1, mark.column + 1, l->err, fmt, args);
    va_end(args);
    return s;
}

static enum status fail_in_parser(struct loader *l)
{
    const yaml_parser_t *p = &l->parser;
    const char *problem = p->problem != NULL ? p->problem : "cannot be read";
    if (p->error == YAML_SCANNER_ERROR && strstr(problem, "cannot start any token") != NULL)
        problem =
            "a character that nothing can start with; is it a tab? Indent with spaces, quote texts that start with "
            "@ ` or %";
    if (p->context == NULL) return fail(l, p->problem_mark, "%s", problem);
    return fail(l, p->problem_mark, "%s (%s that starts in line %zu)", problem, p->context,
                p->context_mark.line + 1);
}

/* ---- bytes: libyaml names only an offset for a bad one, so it is looked for here ---- */

static bool is_allowed_control(unsigned char c)
{
    return c == '\t' || c == '\n' || c == '\r';
}

static enum status check_bytes(struct loader *l, struct strview text)
{
    yaml_mark_t mark = {0};
    for (size_t i = 0; i < text.len;) {
        unsigned char c = (unsigned char)text.ptr[i];
        size_t len = sv_utf8_sequence(sv_sub(text, i, text.len));
        if (len == 0) return fail(l, mark, "byte 0x%02x is not UTF-8", c);
        if (c == '\0') return fail(l, mark, "a NUL byte");
        if ((c < 0x20 && !is_allowed_control(c)) || c == 0x7f)
            return fail(l, mark, "control character 0x%02x", c);
        mark.column++;
        if (c == '\n' || (c == '\r' && (i + 1 >= text.len || text.ptr[i + 1] != '\n'))) {
            mark.line++;
            mark.column = 0;
        }
        i += len;
    }
    return STATUS_OK;
}

/* ---- nodes ---- */

/* Hang a value where the innermost open list or map expects it; its key, if any, is in the frame. */
static void attach(struct loader *l, struct yaml_node *node)
{
    if (l->depth == 0) {
        l->root = node;
        return;
    }
    struct frame *top = &l->stack[l->depth - 1];
    if (top->node->type == YAML_MAP) {
        node->key = top->key;
        node->key_line = top->key_line;
        node->key_column = top->key_column;
        top->has_key = false;
    }
    *top->tail = node;
    top->tail = &node->next;
    top->node->n_children++;
}

static enum status add_node(struct loader *l, const yaml_event_t *event, enum yaml_type type,
                            struct yaml_node **ret_node)
{
    if (++l->n_nodes > YAML_NODES_MAX)
        return fail(l, event->start_mark, "more than %d values", YAML_NODES_MAX);
    struct yaml_node *node = arena_zalloc(l->arena, sizeof(*node));
    node->type = type;
    node->line = (unsigned)event->start_mark.line + 1;
    node->column = (unsigned)event->start_mark.column + 1;
    attach(l, node);
    *ret_node = node;
    return STATUS_OK;
}

static bool expects_key(const struct loader *l)
{
    return l->depth > 0 && l->stack[l->depth - 1].node->type == YAML_MAP && !l->stack[l->depth - 1].has_key;
}

static enum status read_key(struct loader *l, const yaml_event_t *event)
{
    struct strview text = sv_n((const char *)event->data.scalar.value, event->data.scalar.length);
    struct frame *top = &l->stack[l->depth - 1];
    if (text.len == 0) return fail(l, event->start_mark, "a key is empty");
    if (event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && sv_eq(text, SV("<<")))
        return fail(l, event->start_mark, "merge keys (<<) are not allowed; write the fields out");
    if (++l->n_nodes > YAML_NODES_MAX)
        return fail(l, event->start_mark, "more than %d values", YAML_NODES_MAX);
    top->key = arena_copy(l->arena, text);
    top->key_line = (unsigned)event->start_mark.line + 1;
    top->key_column = (unsigned)event->start_mark.column + 1;
    top->has_key = true;
    return STATUS_OK;
}

static enum status on_scalar(struct loader *l, const yaml_event_t *event)
{
    struct strview text = sv_n((const char *)event->data.scalar.value, event->data.scalar.length);
    if (event->data.scalar.anchor != NULL)
        return fail(l, event->start_mark, "anchors (&) are not allowed; write the value out");
    if (event->data.scalar.tag != NULL) return fail(l, event->start_mark, "tags (!) are not allowed");
    /* "\0" in double quotes: texts become C strings later, and a hidden end would make them mean something
     * else. */
    if (text.len > 0 && memchr(text.ptr, '\0', text.len) != NULL)
        return fail(l, event->start_mark, "a NUL character in a text");
    if (expects_key(l)) return read_key(l, event);
    struct yaml_node *node;
    enum status s = add_node(l, event, YAML_SCALAR, &node);
    if (s != STATUS_OK) return s;
    node->text = arena_copy(l->arena, text);
    node->is_plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    return STATUS_OK;
}

static enum status on_open(struct loader *l, const yaml_event_t *event)
{
    bool is_map = event->type == YAML_MAPPING_START_EVENT;
    const yaml_char_t *anchor = is_map ? event->data.mapping_start.anchor : event->data.sequence_start.anchor;
    const yaml_char_t *tag = is_map ? event->data.mapping_start.tag : event->data.sequence_start.tag;
    if (anchor != NULL) return fail(l, event->start_mark, "anchors (&) are not allowed; write the value out");
    if (tag != NULL) return fail(l, event->start_mark, "tags (!) are not allowed");
    if (expects_key(l))
        return fail(l, event->start_mark, "a key must be a text, not a %s", is_map ? "map" : "list");
    if (l->depth == YAML_DEPTH_MAX)
        return fail(l, event->start_mark, "nested deeper than %d", YAML_DEPTH_MAX);
    struct yaml_node *node;
    enum status s = add_node(l, event, is_map ? YAML_MAP : YAML_LIST, &node);
    if (s != STATUS_OK) return s;
    l->stack[l->depth++] = (struct frame){.node = node, .tail = &node->first};
    return STATUS_OK;
}

/* ---- duplicate keys: sorted, so that no choice of keys makes it slow ---- */

static bool stands_before(const struct yaml_node *a, const struct yaml_node *b)
{
    return a->key_line != b->key_line ? a->key_line < b->key_line : a->key_column < b->key_column;
}

static int compare_keys(const void *a, const void *b)
{
    const struct yaml_node *x = *(struct yaml_node *const *)a, *y = *(struct yaml_node *const *)b;
    int by_key = sv_cmp(x->key, y->key);
    return by_key != 0 ? by_key : stands_before(x, y) ? -1 : 1;
}

static enum status check_duplicates(struct loader *l, const struct yaml_node *map)
{
    if (map->n_children < 2) return STATUS_OK;
    struct yaml_node **sorted = arena_array(l->arena, map->n_children, sizeof(struct yaml_node *));
    size_t n = 0;
    for (struct yaml_node *child = map->first; child != NULL; child = child->next)
        sorted[n++] = child;
    qsort(sorted, n, sizeof(struct yaml_node *), compare_keys);
    const struct yaml_node *first = NULL, *again = NULL;
    for (size_t i = 1; i < n; i++) {
        if (!sv_eq(sorted[i - 1]->key, sorted[i]->key) || (again != NULL && stands_before(again, sorted[i])))
            continue;
        first = sorted[i - 1];
        again = sorted[i];
    }
    if (again == NULL) return STATUS_OK;
    char key[QUOTE_MAX];
    yaml_mark_t mark = {.line = again->key_line - 1, .column = again->key_column - 1};
    return fail(l, mark, "key '%s' is given twice (first in line %u)", quote_text(again->key, key),
                first->key_line);
}

static enum status on_close(struct loader *l)
{
    const struct yaml_node *node = l->stack[--l->depth].node;
    return node->type == YAML_MAP ? check_duplicates(l, node) : STATUS_OK;
}

/* ---- events ---- */

static enum status on_document_start(struct loader *l, const yaml_event_t *event)
{
    if (l->root != NULL)
        return fail(l, event->start_mark, "a second document starts here; exactly one is expected");
    if (event->data.document_start.tag_directives.start != event->data.document_start.tag_directives.end)
        return fail(l, event->start_mark, "%%TAG is not allowed");
    return STATUS_OK;
}

static enum status on_event(struct loader *l, const yaml_event_t *event)
{
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        return on_document_start(l, event);
    case YAML_SCALAR_EVENT:
        return on_scalar(l, event);
    case YAML_ALIAS_EVENT:
        return fail(l, event->start_mark, "aliases (*) are not allowed; write the value out");
    case YAML_SEQUENCE_START_EVENT:
    case YAML_MAPPING_START_EVENT:
        return on_open(l, event);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return on_close(l);
    default:
        return STATUS_OK;
    }
}

static enum status load(struct loader *l)
{
    for (;;) {
        yaml_event_t event;
        if (!yaml_parser_parse(&l->parser, &event)) return fail_in_parser(l);
        bool is_end = event.type == YAML_STREAM_END_EVENT;
        enum status s = on_event(l, &event);
        yaml_event_delete(&event);
        if (s != STATUS_OK || is_end) return s;
    }
}

static bool is_empty_scalar(const struct yaml_node *node)
{
    return node->type == YAML_SCALAR && node->is_plain && node->text.len == 0;
}

enum status yaml_parse(struct arena *a, const char *file, struct strview text, struct yaml_document *ret_doc,
                       struct error *err)
{
    struct yaml_document doc = {.file = arena_cstr(a, sv(file))};
    struct loader l = {.arena = a, .doc = &doc, .err = err};
    if (text.len > YAML_BYTES_MAX)
        return error_set(err, STATUS_INVALID_ARGUMENT, "%s: %zu bytes; at most %d are read", file, text.len,
                         YAML_BYTES_MAX);
    enum status s = check_bytes(&l, text);
    if (s != STATUS_OK) return s;
    if (!yaml_parser_initialize(&l.parser))
        return error_set(err, STATUS_RESOURCE_EXHAUSTED, "%s: out of memory", file);
    yaml_parser_set_encoding(&l.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&l.parser, (const unsigned char *)(text.len > 0 ? text.ptr : ""), text.len);
    s = load(&l);
    yaml_parser_delete(&l.parser);
    if (s != STATUS_OK) return s;
    if (l.root == NULL || is_empty_scalar(l.root))
        return error_set(err, STATUS_INVALID_ARGUMENT, "%s:1:1: the file is empty", file);
    doc.root = l.root;
    *ret_doc = doc;
    return STATUS_OK;
}

enum status yaml_read(struct arena *a, const char *path, struct yaml_document *ret_doc, struct error *err)
{
    struct strview text;
    enum status s = file_read(a, path, YAML_BYTES_MAX, &text, err);
    return s == STATUS_OK ? yaml_parse(a, path, text, ret_doc, err) : s;
}

struct yaml_node *yaml_get(const struct yaml_node *map, struct strview key)
{
    if (map == NULL || map->type != YAML_MAP) return NULL;
    for (struct yaml_node *child = map->first; child != NULL; child = child->next)
        if (sv_eq(child->key, key)) return child;
    return NULL;
}
