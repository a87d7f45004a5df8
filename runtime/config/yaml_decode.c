#include "config/yaml_impl.h"

#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/memory.h"
#include "config/bytes.h"
#include "config/config.h"
#include "config/quote.h"

/* One field being read: where it stands and what it is called, for messages. */
struct target {
    const struct yaml_document *doc;
    const struct yaml_node *node;
    const struct yaml_field *field;
    const char *what;
    struct arena *arena;
    struct error *err;
};

static const char *type_name(enum yaml_type type)
{
    return type == YAML_MAP ? "a map" : type == YAML_LIST ? "a list" : "a single value";
}

/* ---- scalars by the core schema, less what it would have to guess ---- */

static bool is_null(const struct yaml_node *node)
{
    if (node->type != YAML_SCALAR || !node->is_plain) return false;
    return node->text.len == 0 || sv_eq(node->text, SV("~")) || sv_eq(node->text, SV("null")) ||
           sv_eq(node->text, SV("Null")) || sv_eq(node->text, SV("NULL"));
}

static bool read_bool(const struct yaml_node *node, bool *ret_value)
{
    if (!node->is_plain) return false;
    bool is_true =
        sv_eq(node->text, SV("true")) || sv_eq(node->text, SV("True")) || sv_eq(node->text, SV("TRUE"));
    bool is_false =
        sv_eq(node->text, SV("false")) || sv_eq(node->text, SV("False")) || sv_eq(node->text, SV("FALSE"));
    if (is_true || is_false) *ret_value = is_true;
    return is_true || is_false;
}

/* Only what prints back as it was written: 010, +1, 0x10 and 1e3 mean different numbers to different readers.
 */
static bool read_int(const struct yaml_node *node, int64_t *ret_value)
{
    if (!node->is_plain) return false;
    struct strview digits =
        sv_starts_with(node->text, SV("-")) ? sv_sub(node->text, 1, node->text.len) : node->text;
    if (digits.len > 1 && digits.ptr[0] == '0') return false;
    if (digits.len < node->text.len && sv_eq(digits, SV("0"))) return false;
    return sv_parse_i64(node->text, ret_value) == STATUS_OK;
}

static json_t *checked(json_t *value)
{
    if (value == NULL) mem_exhausted(sizeof(struct yaml_node));
    return value;
}

static json_t *scalar_to_json(const struct yaml_node *node)
{
    bool flag;
    int64_t number;
    if (is_null(node)) return checked(json_null());
    if (read_bool(node, &flag)) return checked(json_boolean(flag));
    if (read_int(node, &number)) return checked(json_integer(number));
    return checked(json_stringn_nocheck(node->text.ptr, node->text.len));
}

json_t *yaml_to_json(const struct yaml_node *node)
{
    if (node->type == YAML_SCALAR) return scalar_to_json(node);
    bool is_map = node->type == YAML_MAP;
    json_t *value = checked(is_map ? json_object() : json_array());
    for (const struct yaml_node *child = node->first; child != NULL; child = child->next) {
        json_t *item = yaml_to_json(child);
        int rc = is_map ? json_object_setn_new_nocheck(value, child->key.ptr, child->key.len, item)
                        : json_array_append_new(value, item);
        if (rc != 0) mem_exhausted(child->key.len);
    }
    return value;
}

/* ---- one field ---- */

static enum status wrong_type(const struct target *t, const char *expected)
{
    char text[QUOTE_MAX];
    if (t->node->type != YAML_SCALAR)
        return yaml_error(t->doc, t->node, t->err, "%s in %s must be %s, not %s", t->field->name, t->what,
                          expected, type_name(t->node->type));
    if (is_null(t->node))
        return yaml_error(t->doc, t->node, t->err, "%s in %s has no value; %s is expected", t->field->name,
                          t->what, expected);
    return yaml_error(t->doc, t->node, t->err, "%s in %s must be %s, not %s'%s'", t->field->name, t->what,
                      expected, t->node->is_plain ? "" : "the quoted text ", quote_text(t->node->text, text));
}

#define NUMBER_TEXT_MAX DURATION_TEXT_MAX

static const char *number_text(enum yaml_field_type type, int64_t value, char ret_text[NUMBER_TEXT_MAX])
{
    if (type == YAML_FIELD_DURATION) return duration_format(value, ret_text);
    if (type == YAML_FIELD_BYTES) return bytes_format(value, ret_text);
    (void)snprintf(ret_text, NUMBER_TEXT_MAX, "%" PRId64, value);
    return ret_text;
}

static enum status check_range(const struct target *t, int64_t value, const char *of_what)
{
    const struct yaml_field *f = t->field;
    if ((f->min == 0 && f->max == 0) || (value >= f->min && value <= f->max)) return STATUS_OK;
    char got[NUMBER_TEXT_MAX], min[NUMBER_TEXT_MAX], max[NUMBER_TEXT_MAX];
    return yaml_error(t->doc, t->node, t->err, "%s in %s: %s%s is out of range (%s to %s)", f->name, t->what,
                      of_what, number_text(f->type, value, got), number_text(f->type, f->min, min),
                      number_text(f->type, f->max, max));
}

static enum status decode_text(const struct target *t, struct strview *ret_text)
{
    if (t->node->type != YAML_SCALAR || is_null(t->node)) return wrong_type(t, "a text");
    enum status s = check_range(t, (int64_t)t->node->text.len, "a length of ");
    if (s == STATUS_OK) *ret_text = t->node->text;
    return s;
}

static enum status decode_number(const struct target *t, int64_t *ret_value)
{
    int64_t value;
    if (t->field->type == YAML_FIELD_INT) {
        if (t->node->type != YAML_SCALAR || !read_int(t->node, &value))
            return wrong_type(t, "a whole number");
    } else if (t->field->type == YAML_FIELD_DURATION) {
        if (t->node->type != YAML_SCALAR || duration_parse(t->node->text, &value) != STATUS_OK)
            return wrong_type(t, "a duration such as 30s or 5m");
    } else {
        if (t->node->type != YAML_SCALAR || bytes_parse(t->node->text, &value) != STATUS_OK)
            return wrong_type(t, "a size such as 64KiB or 8MiB");
    }
    enum status s = check_range(t, value, "");
    if (s == STATUS_OK) *ret_value = value;
    return s;
}

static enum status decode_enum(const struct target *t, int *ret_value)
{
    char text[QUOTE_MAX], known[ERROR_MESSAGE_MAX / 2];
    size_t used = 0;
    if (t->node->type != YAML_SCALAR || is_null(t->node)) return wrong_type(t, "one of its names");
    for (int i = 0; t->field->names[i] != NULL; i++) {
        if (sv_eq(t->node->text, sv(t->field->names[i]))) {
            *ret_value = i;
            return STATUS_OK;
        }
        int n = snprintf(known + used, sizeof(known) - used, "%s%s", i > 0 ? ", " : "", t->field->names[i]);
        if (n > 0) used = used + (size_t)n < sizeof(known) ? used + (size_t)n : sizeof(known) - 1;
    }
    return yaml_error(t->doc, t->node, t->err, "%s in %s: '%s' is none of %s", t->field->name, t->what,
                      quote_text(t->node->text, text), known);
}

static enum status decode_text_list(const struct target *t, struct yaml_text_list *ret_list)
{
    if (t->node->type == YAML_MAP || is_null(t->node)) return wrong_type(t, "a list of texts");
    bool is_single = t->node->type == YAML_SCALAR;
    struct yaml_text_list list = {.n = is_single ? 1 : t->node->n_children};
    enum status s = check_range(t, (int64_t)list.n, "a count of ");
    if (s != STATUS_OK) return s;
    list.items = arena_array(t->arena, list.n, sizeof(*list.items));
    size_t i = 0;
    for (const struct yaml_node *item = is_single ? t->node : t->node->first; item != NULL;
         item = is_single ? NULL : item->next) {
        if (item->type != YAML_SCALAR || is_null(item))
            return yaml_error(t->doc, item, t->err, "%s in %s: each entry must be a text", t->field->name,
                              t->what);
        list.items[i++] = item->text;
    }
    *ret_list = list;
    return STATUS_OK;
}

static enum status decode_field(const struct target *t, void *ret_struct)
{
    void *member = (char *)ret_struct + t->field->offset;
    switch (t->field->type) {
    case YAML_FIELD_TEXT:
        return decode_text(t, member);
    case YAML_FIELD_INT:
    case YAML_FIELD_DURATION:
    case YAML_FIELD_BYTES:
        return decode_number(t, member);
    case YAML_FIELD_BOOL:
        return t->node->type == YAML_SCALAR && read_bool(t->node, member) ? STATUS_OK
                                                                          : wrong_type(t, "true or false");
    case YAML_FIELD_ENUM:
        return decode_enum(t, member);
    case YAML_FIELD_NODE:
        *(const struct yaml_node **)member = t->node;
        return STATUS_OK;
    case YAML_FIELD_TEXT_LIST:
        return decode_text_list(t, member);
    }
    return STATUS_INTERNAL;
}

/* ---- the map ---- */

static const struct yaml_field *find_field(const struct yaml_field *fields, size_t n, struct strview key)
{
    for (size_t i = 0; i < n; i++)
        if (sv_eq(key, sv(fields[i].name))) return &fields[i];
    return NULL;
}

static enum status unknown_field(const struct yaml_document *doc, const struct yaml_node *child,
                                 const char *what, const struct yaml_field *fields, size_t n, struct arena *a,
                                 struct error *err)
{
    char key[QUOTE_MAX];
    const char **names = arena_array(a, n, sizeof(*names));
    for (size_t i = 0; i < n; i++)
        names[i] = fields[i].name;
    const char *nearest = config_nearest(arena_cstr(a, child->key), names, n);
    return yaml_error_at(doc, child->key_line, child->key_column, err, "unknown field '%s' in %s%s%s%s",
                         quote_text(child->key, key), what, nearest != NULL ? " (did you mean '" : "",
                         nearest != NULL ? nearest : "", nearest != NULL ? "'?)" : "");
}

static enum status decode_child(const struct yaml_document *doc, const struct yaml_node *child,
                                const char *what, const struct yaml_field *fields, size_t n_fields,
                                struct arena *a, void *ret_struct, struct error *err)
{
    struct target t = {.doc = doc, .node = child, .what = what, .arena = a, .err = err};
    t.field = find_field(fields, n_fields, child->key);
    if (t.field == NULL) return unknown_field(doc, child, what, fields, n_fields, a, err);
    return decode_field(&t, ret_struct);
}

enum status yaml_decode(const struct yaml_document *doc, const struct yaml_node *map, const char *what,
                        const struct yaml_field *fields, size_t n_fields, struct arena *a, void *ret_struct,
                        struct error *err)
{
    enum status all = STATUS_OK, s;
    if (map->type != YAML_MAP)
        return yaml_error(doc, map, err, "%s must be a map, not %s", what, type_name(map->type));
    for (const struct yaml_node *child = map->first; child != NULL; child = child->next) {
        s = decode_child(doc, child, what, fields, n_fields, a, ret_struct, err);
        if (s != STATUS_OK) all = s;
        if (s != STATUS_OK && doc->on_fault == NULL) return s;
    }
    for (size_t i = 0; i < n_fields; i++) {
        if (!fields[i].is_required || yaml_get(map, sv(fields[i].name)) != NULL) continue;
        all = yaml_error(doc, map, err, "%s is missing in %s", fields[i].name, what);
        if (doc->on_fault == NULL) return all;
    }
    return all;
}
