#include "function/manifest_impl.h"

#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/list.h"
#include "config/quote.h"

const char *const manifest_type_names[] = {"text",  "integer",   "boolean", "duration",
                                           "bytes", "text-list", NULL};
const char *const manifest_pattern_names[] = {"any", "line", "name", "unit", "path-absolute", "url", NULL};
const char *const manifest_on_unknown_names[] = {"reread", "rerun", "escalate", NULL};
static const char *const auth_names[] = {"open", "signed", "api-key", NULL};

#define NAME_MAX_BYTES 63 /* a DNS label: it becomes a Kubernetes Service */
#define MEMBER_MAX     40
#define TEXT_LIMIT_MAX (64 * 1024)
#define DETAILS_MAX    64
#define SENTENCE_MAX   1000

/* What the file's tables fill; checked and moved to the manifest. */
struct raw {
    struct manifest *m;
    const struct yaml_node *params, *touches, *detail, *environment;
    const struct yaml_document *doc;
    struct error *err;
};

/* ---- names ---- */

/* Words that a struct member cannot be called. */
static bool is_c_keyword(struct strview name)
{
    static const char *const words[] = {
        "auto",     "break",  "case",   "char",     "const",    "continue", "default",  "do",
        "double",   "else",   "enum",   "extern",   "float",    "for",      "goto",     "if",
        "inline",   "int",    "long",   "register", "restrict", "return",   "short",    "signed",
        "sizeof",   "static", "struct", "switch",   "typedef",  "union",    "unsigned", "void",
        "volatile", "while",  "bool",   "true",     "false",    "linux",    "unix"};
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (sv_eq(name, sv(words[i]))) return true;
    return false;
}

static bool is_identifier(struct strview s, bool may_have_capitals)
{
    if (s.len == 0 || s.len > MEMBER_MAX || s.ptr[0] < 'a' || s.ptr[0] > 'z') return false;
    for (size_t i = 1; i < s.len; i++) {
        char c = s.ptr[i];
        bool is_capital = c >= 'A' && c <= 'Z';
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '_' &&
            !(may_have_capitals && is_capital))
            return false;
    }
    return true;
}

static bool is_function_name(struct strview s)
{
    return param_pattern_matches(PARAM_NAME, s) && s.len <= NAME_MAX_BYTES && s.ptr[0] >= 'a' &&
           sv_find(s, '.') == s.len;
}

struct strview manifest_identifier(struct arena *a, struct strview name)
{
    char *text = arena_cstr(a, name);
    for (size_t i = 0; i < name.len; i++)
        if (text[i] == '-') text[i] = '_';
    return sv_n(text, name.len);
}

struct strview manifest_member(struct arena *a, const struct manifest_param *p)
{
    const char *unit = p->type == PARAM_DURATION ? "_ns" : p->type == PARAM_BYTES ? "_bytes" : "";
    return arena_printf(a, "%.*s%s", SV_ARG(p->name), unit);
}

/* ---- one parameter ---- */

struct raw_param {
    struct manifest_param p;
    const struct yaml_node *default_node, *example_node;
};

static void set_default_limits(struct manifest_param *p)
{
    static const struct {
        int64_t min, max;
    } limits[] = {
        [PARAM_TEXT] = {0, PARAM_TEXT_MAX}, [PARAM_INTEGER] = {INT64_MIN, INT64_MAX},
        [PARAM_BOOLEAN] = {0, 0},           [PARAM_DURATION] = {0, INT64_MAX},
        [PARAM_BYTES] = {0, INT64_MAX},     [PARAM_TEXT_LIST] = {0, PARAM_ITEMS_MAX},
    };
    p->min = limits[p->type].min;
    p->max = limits[p->type].max;
}

static enum yaml_field_type limit_type(int type)
{
    return type == PARAM_DURATION ? YAML_FIELD_DURATION
           : type == PARAM_BYTES  ? YAML_FIELD_BYTES
                                  : YAML_FIELD_INT;
}

static enum status decode_param_fields(struct raw *r, const struct yaml_node *node, const char *what,
                                       struct raw_param *ret_raw)
{
#define AT(member) .offset = offsetof(struct raw_param, member)
    const struct yaml_field type_field = {.name = "type",
                                          .type = YAML_FIELD_ENUM,
                                          AT(p.type),
                                          .is_required = true,
                                          .names = manifest_type_names};
    struct yaml_field fields[] = {
        type_field,
        {.name = "required", .type = YAML_FIELD_BOOL, AT(p.is_required)},
        {.name = "default", .type = YAML_FIELD_NODE, AT(default_node)},
        {.name = "min", AT(p.min)},
        {.name = "max", AT(p.max)},
        {.name = "pattern", .type = YAML_FIELD_ENUM, AT(p.pattern), .names = manifest_pattern_names},
        {.name = "enum", .type = YAML_FIELD_TEXT_LIST, AT(p.names), .min = 1, .max = 64},
        {.name = "description", .type = YAML_FIELD_TEXT, AT(p.description), .min = 1, .max = SENTENCE_MAX},
        {.name = "example", .type = YAML_FIELD_NODE, AT(example_node)},
    };
#undef AT
    /* The type first, wherever it stands: it says what a limit looks like. */
    const struct yaml_node *type = yaml_get(node, SV("type"));
    if (type != NULL) {
        struct yaml_node alone = *node, only = *type;
        only.next = NULL;
        alone.first = &only;
        enum status s = yaml_decode(r->doc, &alone, what, &type_field, 1, &r->m->arena, ret_raw, r->err);
        if (s != STATUS_OK) return s;
    }
    fields[3].type = fields[4].type = limit_type(ret_raw->p.type);
    set_default_limits(&ret_raw->p);
    return yaml_decode(r->doc, node, what, fields, ARRAY_LEN(fields), &r->m->arena, ret_raw, r->err);
}

static enum status check_param(struct raw *r, const struct yaml_node *node, const char *what,
                               const struct raw_param *raw)
{
    const struct manifest_param *p = &raw->p;
    bool is_text = p->type == PARAM_TEXT || p->type == PARAM_TEXT_LIST;
    if (!is_text && (p->pattern != PARAM_ANY || p->names.n > 0))
        return yaml_error(r->doc, node, r->err, "%s: pattern and enum are for texts, not for %s", what,
                          manifest_type_names[p->type]);
    if (p->type == PARAM_BOOLEAN && (yaml_get(node, SV("min")) != NULL || yaml_get(node, SV("max")) != NULL))
        return yaml_error(r->doc, node, r->err, "%s: a boolean has neither min nor max", what);
    if (is_text && (p->min < 0 || p->max > (p->type == PARAM_TEXT ? TEXT_LIMIT_MAX : PARAM_ITEMS_MAX)))
        return yaml_error(r->doc, node, r->err, "%s: min and max must be in 0 to %d", what,
                          p->type == PARAM_TEXT ? TEXT_LIMIT_MAX : PARAM_ITEMS_MAX);
    if (p->min > p->max) return yaml_error(r->doc, node, r->err, "%s: min is greater than max", what);
    if (p->is_required && raw->default_node != NULL)
        return yaml_error(r->doc, node, r->err, "%s: a required parameter has no default", what);
    return STATUS_OK;
}

/* A value of the file, by the very decoder that the bot will use: a default or an example it would refuse is
 * refused here. ret_value has room for any parameter's member. */
static enum status decode_value(struct raw *r, const struct manifest_param *p, const struct yaml_node *value,
                                const char *what, void *ret_value, json_t **ret_json)
{
    struct error why;
    struct param_field field = manifest_param_field(&r->m->arena, p);
    json_t *json = yaml_to_json(value);
    json_t *body = json_pack("{s:O}", field.name, json);
    enum status s = params_decode("bot.yaml", &field, 1, body, &r->m->arena, ret_value, &why);
    json_decref(body);
    if (s == STATUS_OK) {
        *ret_json = json;
        return STATUS_OK;
    }
    json_decref(json);
    return yaml_error(r->doc, value, r->err, "%s: %s", what, why.message);
}

static enum status decode_default(struct raw *r, const struct yaml_node *node, const char *what,
                                  struct manifest_param *p)
{
    void *members[] = {[PARAM_TEXT] = &p->default_text,       [PARAM_INTEGER] = &p->default_number,
                       [PARAM_BOOLEAN] = &p->default_boolean, [PARAM_DURATION] = &p->default_number,
                       [PARAM_BYTES] = &p->default_number,    [PARAM_TEXT_LIST] = &p->default_list};
    p->has_default = true;
    return decode_value(r, p, node, what, members[p->type], &p->default_json);
}

static enum status decode_example(struct raw *r, const struct yaml_node *node, const char *what,
                                  struct manifest_param *p)
{
    union manifest_value ignored;
    return decode_value(r, p, node, what, &ignored, &p->example);
}

static enum status decode_param(struct raw *r, const struct yaml_node *node, struct manifest_param *ret_param)
{
    char shown[QUOTE_MAX];
    const char *what = arena_printf(&r->m->arena, "parameter %s", quote_text(node->key, shown)).ptr;
    struct raw_param raw = {.p = {.name = node->key}};
    if (!is_identifier(node->key, false) || is_c_keyword(node->key))
        return yaml_error(
            r->doc, node, r->err,
            "%s: a name has lower-case letters, digits and '_' (at most %d), and is no word of C", what,
            MEMBER_MAX);
    enum status s = decode_param_fields(r, node, what, &raw);
    if (s == STATUS_OK) s = check_param(r, node, what, &raw);
    if (s == STATUS_OK && raw.default_node != NULL) s = decode_default(r, raw.default_node, what, &raw.p);
    if (s == STATUS_OK && raw.example_node != NULL) s = decode_example(r, raw.example_node, what, &raw.p);
    *ret_param = raw.p; /* on failure too: it may own a default */
    return s;
}

static enum status check_members(struct raw *r)
{
    struct manifest *m = r->m;
    for (size_t i = 0; i < m->n_params; i++)
        for (size_t j = 0; j < i; j++)
            if (sv_eq(manifest_member(&m->arena, &m->params[i]), manifest_member(&m->arena, &m->params[j])))
                return yaml_error(r->doc, yaml_get(r->params, m->params[i].name), r->err,
                                  "parameters %.*s and %.*s would be one member, %.*s",
                                  SV_ARG(m->params[j].name), SV_ARG(m->params[i].name),
                                  SV_ARG(manifest_member(&m->arena, &m->params[i])));
    return STATUS_OK;
}

static enum status decode_params(struct raw *r)
{
    if (r->params == NULL) return STATUS_OK;
    if (r->params->type != YAML_MAP)
        return yaml_error(r->doc, r->params, r->err, "params must be a map of names");
    if (r->params->n_children > MANIFEST_PARAMS_MAX)
        return yaml_error(r->doc, r->params, r->err, "%zu parameters; at most %d", r->params->n_children,
                          MANIFEST_PARAMS_MAX);
    r->m->params = arena_array(&r->m->arena, r->params->n_children, sizeof(*r->m->params));
    for (const struct yaml_node *node = r->params->first; node != NULL; node = node->next) {
        enum status s = decode_param(r, node, &r->m->params[r->m->n_params++]);
        if (s != STATUS_OK) return s;
    }
    return check_members(r);
}

/* ---- the other maps ---- */

static enum status check_touches(struct raw *r)
{
    if (r->touches == NULL) return STATUS_OK;
    if (r->touches->type != YAML_MAP)
        return yaml_error(r->doc, r->touches, r->err, "touches must be a map of lists");
    for (const struct yaml_node *kind = r->touches->first; kind != NULL; kind = kind->next) {
        if (kind->type != YAML_LIST || kind->n_children == 0)
            return yaml_error(r->doc, kind, r->err, "touches: %.*s must be a list of texts",
                              SV_ARG(kind->key));
        for (const struct yaml_node *item = kind->first; item != NULL; item = item->next)
            if (item->type != YAML_SCALAR || item->text.len == 0 ||
                !param_pattern_matches(PARAM_LINE, item->text))
                return yaml_error(r->doc, item, r->err,
                                  "touches: each entry of %.*s must be one line of text", SV_ARG(kind->key));
    }
    r->m->touches = r->touches;
    return STATUS_OK;
}

static enum status decode_environment(struct raw *r)
{
    if (r->environment == NULL) return STATUS_OK;
    if (r->environment->type != YAML_MAP)
        return yaml_error(r->doc, r->environment, r->err, "environment must be a map of descriptions");
    struct manifest_variable *variables =
        arena_array(&r->m->arena, r->environment->n_children, sizeof(*variables));
    for (const struct yaml_node *node = r->environment->first; node != NULL; node = node->next) {
        if (!is_identifier(node->key, true) || node->type != YAML_SCALAR ||
            !param_pattern_matches(PARAM_LINE, node->text))
            return yaml_error(
                r->doc, node, r->err,
                "environment: a variable's name and one line that says what it is for are expected");
        variables[r->m->n_environment++] = (struct manifest_variable){node->key, node->text};
    }
    r->m->environment = variables;
    return STATUS_OK;
}

static enum status decode_details(struct raw *r, struct manifest_detail *ret_details, size_t *ret_n)
{
    static const struct yaml_field fields[] = {
        {.name = "type",
         .type = YAML_FIELD_ENUM,
         .offset = offsetof(struct manifest_detail, type),
         .is_required = true,
         .names = manifest_type_names},
        {.name = "description",
         .type = YAML_FIELD_TEXT,
         .offset = offsetof(struct manifest_detail, description),
         .min = 1,
         .max = SENTENCE_MAX},
    };
    *ret_n = 0;
    if (r->detail == NULL) return STATUS_OK;
    if (r->detail->type != YAML_MAP || r->detail->n_children > DETAILS_MAX)
        return yaml_error(r->doc, r->detail, r->err, "detail must be a map of at most %d fields",
                          DETAILS_MAX);
    for (const struct yaml_node *node = r->detail->first; node != NULL; node = node->next) {
        struct manifest_detail *d = &ret_details[(*ret_n)++];
        *d = (struct manifest_detail){.name = node->key};
        if (!is_identifier(node->key, true))
            return yaml_error(r->doc, node, r->err,
                              "detail: a field's name is in camelCase, at most %d letters", MEMBER_MAX);
        enum status s =
            yaml_decode(r->doc, node, "detail", fields, ARRAY_LEN(fields), &r->m->arena, d, r->err);
        if (s != STATUS_OK) return s;
        if (d->type == PARAM_DURATION || d->type == PARAM_BYTES)
            return yaml_error(r->doc, node, r->err,
                              "detail: a reply has text, integer, boolean or text-list, not %s",
                              manifest_type_names[d->type]);
    }
    return STATUS_OK;
}

/* ---- the whole ---- */

static enum status decode_file(struct raw *r)
{
    struct manifest *m = r->m;
    /* Values go to the manifest, what is looked at later stays a node: one table fills both. */
    struct file_fields {
        struct manifest m;
        const struct yaml_node *params, *touches, *detail, *environment;
    } got = {.m = {.timeout_ns = 30 * NS_PER_S, .on_unknown = ON_UNKNOWN_ESCALATE}};
#define AT(member) .offset = offsetof(struct file_fields, member)
    const struct yaml_field fields[] = {
        {.name = "name",
         .type = YAML_FIELD_TEXT,
         AT(m.name),
         .is_required = true,
         .min = 1,
         .max = NAME_MAX_BYTES},
        {.name = "summary",
         .type = YAML_FIELD_TEXT,
         AT(m.summary),
         .is_required = true,
         .min = 1,
         .max = 200},
        {.name = "acts", .type = YAML_FIELD_BOOL, AT(m.acts), .is_required = true},
        {.name = "destructive", .type = YAML_FIELD_BOOL, AT(m.is_destructive)},
        {.name = "removes_series", .type = YAML_FIELD_BOOL, AT(m.removes_series)},
        {.name = "tells_people", .type = YAML_FIELD_BOOL, AT(m.tells_people)},
        {.name = "on_unknown", .type = YAML_FIELD_ENUM, AT(m.on_unknown), .names = manifest_on_unknown_names},
        {.name = "timeout",
         .type = YAML_FIELD_DURATION,
         AT(m.timeout_ns),
         .min = NS_PER_S,
         .max = 3600 * NS_PER_S},
        {.name = "auth", .type = YAML_FIELD_ENUM, AT(m.auth), .names = auth_names},
        {.name = "params", .type = YAML_FIELD_NODE, AT(params)},
        {.name = "touches", .type = YAML_FIELD_NODE, AT(touches)},
        {.name = "verify", .type = YAML_FIELD_TEXT, AT(m.verify), .min = 1, .max = SENTENCE_MAX},
        {.name = "undo", .type = YAML_FIELD_TEXT, AT(m.undo), .min = 1, .max = SENTENCE_MAX},
        {.name = "detail", .type = YAML_FIELD_NODE, AT(detail)},
        {.name = "secrets", .type = YAML_FIELD_TEXT_LIST, AT(m.secrets), .min = 1, .max = 32},
        {.name = "environment", .type = YAML_FIELD_NODE, AT(environment)},
        {.name = "removes_below", .type = YAML_FIELD_TEXT, AT(m.removes_below), .min = 1, .max = MEMBER_MAX},
    };
#undef AT
    enum status s =
        yaml_decode(r->doc, r->doc->root, "bot.yaml", fields, ARRAY_LEN(fields), &m->arena, &got, r->err);
    if (s != STATUS_OK) return s;
    struct arena arena = m->arena;
    *m = got.m;
    m->arena = arena;
    r->params = got.params;
    r->touches = got.touches;
    r->detail = got.detail;
    r->environment = got.environment;
    return STATUS_OK;
}

static enum status check_acting(struct raw *r)
{
    static const char *const required[] = {"on_unknown", "touches", "verify", "undo"};
    const struct yaml_node *root = r->doc->root;
    struct manifest *m = r->m;
    if (!m->acts && (m->is_destructive || m->removes_series || m->tells_people ||
                     yaml_get(root, SV("on_unknown")) != NULL))
        return yaml_error(
            r->doc, root, r->err,
            "destructive, removes_series, tells_people and on_unknown are for functions that act");
    if (m->tells_people && (m->is_destructive || m->removes_series))
        return yaml_error(r->doc, yaml_get(root, SV("tells_people")), r->err,
                          "tells_people: what is destructive or removes series does more than that");
    for (size_t i = 0; i < ARRAY_LEN(required) && m->acts; i++)
        if (yaml_get(root, sv(required[i])) == NULL)
            return yaml_error(r->doc, root, r->err, "%s is missing: %.*s acts", required[i], SV_ARG(m->name));
    const struct yaml_node *auth = yaml_get(root, SV("auth"));
    if (auth != NULL && m->acts && m->auth != MANIFEST_AUTH_SIGNED)
        return yaml_error(r->doc, auth, r->err, "auth must be signed: %.*s acts", SV_ARG(m->name));
    if (auth != NULL && !m->acts && m->auth == MANIFEST_AUTH_SIGNED)
        return yaml_error(r->doc, auth, r->err, "auth: only invocations of functions that act are signed");
    if (m->acts) m->auth = MANIFEST_AUTH_SIGNED;
    if (m->auth == MANIFEST_AUTH_API_KEY) manifest_add_key_secret(m);
    return STATUS_OK;
}

static enum status check_texts(struct raw *r)
{
    const struct yaml_node *root = r->doc->root;
    const struct manifest *m = r->m;
    if (!is_function_name(m->name))
        return yaml_error(
            r->doc, yaml_get(root, SV("name")), r->err,
            "name has lower-case letters, digits and '-', starts with a letter and does not end in '-'");
    const struct {
        const char *field;
        struct strview text;
    } lines[] = {{"summary", m->summary}, {"verify", m->verify}, {"undo", m->undo}};
    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        if (!param_pattern_matches(PARAM_LINE, lines[i].text))
            return yaml_error(r->doc, yaml_get(root, sv(lines[i].field)), r->err, "%s must be one line",
                              lines[i].field);
    for (size_t i = 0; i < m->secrets.n; i++)
        if (!param_pattern_matches(PARAM_NAME, m->secrets.items[i]))
            return yaml_error(r->doc, yaml_get(root, SV("secrets")), r->err,
                              "secrets: names have lower-case letters, digits, '-' and '.'");
    return STATUS_OK;
}

static void make_json(struct raw *r, const struct manifest_detail *details, size_t n_details)
{
    struct manifest *m = r->m;
    char timeout[DURATION_TEXT_MAX];
    json_t *json = yaml_to_json(r->doc->root);
    /* As they were understood, whatever the file's spelling. */
    json_object_set_new(json, "name", json_text(m->name));
    json_object_set_new(json, "summary", json_text(m->summary));
    json_object_set_new(json, "destructive", json_boolean(m->is_destructive));
    json_object_set_new(json, "removes_series", json_boolean(m->removes_series));
    json_object_set_new(json, "tells_people", json_boolean(m->tells_people));
    json_object_set_new(json, "auth", json_string(auth_names[m->auth]));
    json_object_set_new(json, "timeout", json_string(duration_format(m->timeout_ns, timeout)));
    if (m->n_params == 0) json_object_set_new(json, "params", json_object());
    if (m->secrets.n > 0) json_object_set_new(json, "secrets", manifest_secrets(m));
    json_object_set_new(json, "schema", manifest_params_schema(m));
    json_object_set_new(json, "reply", manifest_detail_schema(details, n_details));
    m->json = json;
}

static enum status parse(struct raw *r)
{
    struct manifest_detail details[DETAILS_MAX];
    size_t n_details;
    enum status s = decode_file(r);
    if (s == STATUS_OK) s = check_texts(r);
    if (s == STATUS_OK) s = check_acting(r);
    if (s == STATUS_OK) s = check_touches(r);
    if (s == STATUS_OK) s = decode_environment(r);
    if (s == STATUS_OK) s = manifest_check_removes(r->m, r->doc, r->err);
    if (s == STATUS_OK) s = decode_params(r);
    if (s == STATUS_OK) s = decode_details(r, details, &n_details);
    if (s == STATUS_OK) make_json(r, details, n_details);
    return s;
}

enum status manifest_parse(const char *file, struct strview text, struct manifest *ret_manifest,
                           struct error *err)
{
    struct manifest m = {0};
    struct yaml_document doc;
    struct raw r = {.m = &m, .doc = &doc, .err = err};
    enum status s = yaml_parse(&m.arena, file, text, &doc, err);
    if (s == STATUS_OK) s = parse(&r);
    if (s == STATUS_OK)
        *ret_manifest = m;
    else
        manifest_release(&m);
    return s;
}

enum status manifest_read(const char *path, struct manifest *ret_manifest, struct error *err)
{
    struct arena a = {0};
    struct strview text;
    enum status s = file_read(&a, path, YAML_BYTES_MAX, &text, err);
    if (s == STATUS_OK) s = manifest_parse(path, text, ret_manifest, err);
    arena_release(&a);
    return s;
}

void manifest_release(struct manifest *m)
{
    for (size_t i = 0; i < m->n_params; i++) {
        json_release(m->params[i].default_json);
        json_release(m->params[i].example);
    }
    json_release(m->json);
    arena_release(&m->arena);
    *m = (struct manifest){0};
}
