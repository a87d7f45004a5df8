#include "functions/dispatcher/template.h"

#include <stdio.h>

#include "base/list.h"
#include "config/config.h"

/* The next piece of a text: literal up to a variable or the end; then the variable's name. */
struct piece {
    struct strview literal, variable;
    bool has_variable, is_unclosed;
};

/* Cut one piece off *rest; false at the end. "$${" ends a literal after its first "$" and the rest goes on
 * behind the brace. */
static bool next_piece(struct strview *rest, struct piece *ret_piece)
{
    if (rest->len == 0) return false;
    struct strview s = *rest;
    *ret_piece = (struct piece){.literal = s};
    for (size_t i = 0; i + 1 < s.len; i++) {
        if (s.ptr[i] != '$') continue;
        if (s.ptr[i + 1] == '$' && i + 2 < s.len && s.ptr[i + 2] == '{') {
            ret_piece->literal = sv_sub(s, 0, i); /* the second "$" and the brace begin the next literal */
            size_t after = i + 3;
            if (i == 0) {
                ret_piece->literal = SV("${");
                *rest = sv_sub(s, after, s.len);
            } else {
                *rest = sv_sub(s, i, s.len);
            }
            return true;
        }
        if (s.ptr[i + 1] != '{') continue;
        ret_piece->literal = sv_sub(s, 0, i);
        struct strview inside = sv_sub(s, i + 2, s.len);
        size_t end = sv_find(inside, '}');
        ret_piece->has_variable = true;
        ret_piece->is_unclosed = end == inside.len;
        ret_piece->variable = sv_sub(inside, 0, end);
        *rest = sv_sub(inside, end + 1, inside.len);
        return true;
    }
    *rest = (struct strview){0};
    return true;
}

static const struct strview labels_prefix = {"labels.", 7}, annotations_prefix = {"annotations.", 12};

enum status template_check(struct strview text, bool allow_target, bool allow_reason, struct error *err)
{
    static const char *const names[] = {"labels.NAME", "annotations.NAME", "incident",
                                        "runbook",     "target",           "reason"};
    struct piece p;
    while (next_piece(&text, &p)) {
        if (!p.has_variable) continue;
        struct strview v = p.variable;
        if (p.is_unclosed) return error_set(err, STATUS_INVALID_ARGUMENT, "'${' without a closing '}'");
        if (sv_starts_with(v, labels_prefix) && v.len > labels_prefix.len) continue;
        if (sv_starts_with(v, annotations_prefix) && v.len > annotations_prefix.len) continue;
        if (sv_eq(v, SV("incident"))) continue;
        if (allow_target && (sv_eq(v, SV("target")) || sv_eq(v, SV("runbook")))) continue;
        if (allow_reason && sv_eq(v, SV("reason"))) continue;
        char word[64];
        (void)snprintf(word, sizeof(word), "%.*s", SV_ARG(sv_sub(v, 0, 60)));
        const char *nearest = config_nearest(word, names, ARRAY_LEN(names));
        return error_set(
            err, STATUS_INVALID_ARGUMENT,
            "'${%s}' is not a variable here (known: labels.NAME, annotations.NAME, incident%s%s)%s%s%s", word,
            allow_target ? ", runbook, target" : "", allow_reason ? ", reason" : "",
            nearest != NULL ? "; did you mean '" : "", nearest != NULL ? nearest : "",
            nearest != NULL ? "'?" : "");
    }
    return STATUS_OK;
}

bool template_has_variables(struct strview text)
{
    struct piece p;
    while (next_piece(&text, &p))
        if (p.has_variable) return true;
    return false;
}

static struct strview value_of(struct strview variable, const struct template_vars *vars)
{
    if (sv_starts_with(variable, labels_prefix) && vars->labels != NULL)
        return record_label(vars->labels, sv_sub(variable, labels_prefix.len, variable.len));
    if (sv_starts_with(variable, annotations_prefix) && vars->annotations != NULL)
        return record_label(vars->annotations, sv_sub(variable, annotations_prefix.len, variable.len));
    if (sv_eq(variable, SV("incident"))) return vars->incident;
    if (sv_eq(variable, SV("runbook"))) return vars->runbook;
    if (sv_eq(variable, SV("target"))) return vars->target;
    if (sv_eq(variable, SV("reason"))) return vars->reason;
    return (struct strview){0};
}

enum status template_expand(struct strview text, const struct template_vars *vars, struct arena *a,
                            struct strview *ret_text, struct strview *ret_missing)
{
    struct buf out;
    buf_init(&out, TEMPLATE_RESULT_MAX);
    struct strview rest = text;
    struct piece p;
    enum status s = STATUS_OK;
    while (s == STATUS_OK && next_piece(&rest, &p)) {
        buf_append(&out, p.literal);
        if (!p.has_variable) continue;
        struct strview value = value_of(p.variable, vars);
        if (value.len == 0) value = vars->fallback;
        if (value.len == 0) {
            *ret_missing = arena_copy(a, p.variable);
            s = STATUS_NOT_FOUND;
        }
        buf_append(&out, value);
    }
    if (s == STATUS_OK) s = buf_status(&out);
    if (s == STATUS_OK) *ret_text = arena_copy(a, buf_view(&out));
    buf_release(&out);
    return s;
}

struct expansion {
    const struct template_vars *vars;
    struct arena *arena;
    struct strview missing;
    size_t bytes; /* of all texts so far */
    enum status status;
};

/* New value; after a failure what is returned does not matter but is still a whole tree. Depth is bounded by
 * the YAML loader. */
static json_t *expand_node(struct expansion *x, json_t *node)
{
    if (json_is_string(node)) {
        struct strview text = sv_n(json_string_value(node), json_string_length(node));
        enum status s = template_expand(text, x->vars, x->arena, &text, &x->missing);
        if (s == STATUS_OK && (x->bytes += text.len) > TEMPLATE_RESULT_MAX) s = STATUS_RESOURCE_EXHAUSTED;
        if (s != STATUS_OK && x->status == STATUS_OK) x->status = s;
        return json_text(text);
    }
    const char *key;
    json_t *value;
    if (json_is_object(node)) {
        json_t *copy = json_object();
        json_object_foreach(node, key, value)(void)
            json_object_set_new_nocheck(copy, key, expand_node(x, value));
        return copy;
    }
    if (json_is_array(node)) {
        json_t *copy = json_array();
        for (size_t i = 0; i < json_array_size(node); i++)
            (void)json_array_append_new(copy, expand_node(x, json_array_get(node, i)));
        return copy;
    }
    return json_deep_copy(node);
}

enum status template_expand_json(json_t *tree, const struct template_vars *vars, struct arena *a,
                                 struct strview *ret_json, struct strview *ret_missing)
{
    struct expansion x = {.vars = vars, .arena = a};
    json_t *copy = expand_node(&x, tree);
    if (x.status == STATUS_OK) *ret_json = json_canonical(a, copy);
    if (x.status == STATUS_NOT_FOUND) *ret_missing = x.missing;
    json_decref(copy);
    return x.status;
}
