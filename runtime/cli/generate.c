#include "cli/generate.h"

#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/list.h"
#include "function/openapi.h"

#define OUTPUT_MAX    (4 * 1024 * 1024)
#define LITERAL_WIDTH 96

/* ---- C ---- */

/* Inside a comment: nothing in it may end it or start another. */
static void append_comment_text(struct buf *b, struct strview text)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        bool is_by_slash = (i > 0 && text.ptr[i - 1] == '/') || (i + 1 < text.len && text.ptr[i + 1] == '/');
        buf_append_char(b, (unsigned char)c < 0x20 ? ' ' : c == '*' && is_by_slash ? '.' : c);
    }
}

/* One literal, or several lines of it joined by the compiler. Octal escapes end after three digits, whatever
 * follows; '?' is escaped because -std=c11 knows trigraphs. */
static void append_literal(struct buf *b, struct strview text, const char *indent)
{
    buf_append_char(b, '"');
    size_t width = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if (width >= LITERAL_WIDTH) {
            buf_printf(b, "\"\n%s\"", indent);
            width = 0;
        }
        size_t before = b->len;
        if (c == '"' || c == '\\' || c == '?')
            buf_printf(b, "\\%c", c);
        else if (c < 0x20 || c >= 0x7f)
            buf_printf(b, "\\%03o", c);
        else
            buf_append_char(b, (char)c);
        width += b->len - before;
    }
    buf_append_char(b, '"');
}

static void append_view(struct buf *b, struct strview text)
{
    buf_append(b, SV("{"));
    append_literal(b, text, "        ");
    buf_printf(b, ", %zu}", text.len);
}

static void append_int64(struct buf *b, int64_t value)
{
    if (value == INT64_MIN)
        buf_append(b, SV("INT64_MIN")); /* its digits alone are out of range before the minus */
    else if (value == INT64_MAX)
        buf_append(b, SV("INT64_MAX"));
    else
        buf_printf(b, "INT64_C(%" PRId64 ")", value);
}

static const char *const c_types[] = {
    [PARAM_TEXT] = "struct strview ", [PARAM_INTEGER] = "int64_t ",
    [PARAM_BOOLEAN] = "bool ",        [PARAM_DURATION] = "int64_t ",
    [PARAM_BYTES] = "int64_t ",       [PARAM_TEXT_LIST] = "struct param_text_list ",
};
static const char *const c_type_enums[] = {"PARAM_TEXT",     "PARAM_INTEGER", "PARAM_BOOLEAN",
                                           "PARAM_DURATION", "PARAM_BYTES",   "PARAM_TEXT_LIST"};
static const char *const c_pattern_enums[] = {"PARAM_ANY",  "PARAM_LINE",          "PARAM_NAME",
                                              "PARAM_UNIT", "PARAM_PATH_ABSOLUTE", "PARAM_URL"};
static const char *const c_on_unknown[] = {"ON_UNKNOWN_REREAD", "ON_UNKNOWN_RERUN", "ON_UNKNOWN_ESCALATE"};

static void append_prototype(struct buf *b, struct strview id)
{
    buf_printf(
        b,
        "enum status %.*s_handle(struct invocation *inv, const struct %.*s_params *p, struct result *ret, struct error *err)",
        SV_ARG(id), SV_ARG(id));
}

void generate_header(const struct manifest *m, struct buf *b)
{
    struct arena a = {0};
    struct strview id = manifest_identifier(&a, m->name);
    char *guard = arena_cstr(&a, id);
    for (size_t i = 0; guard[i] != '\0'; i++)
        if (guard[i] >= 'a' && guard[i] <= 'z') guard[i] = (char)(guard[i] - 'a' + 'A');
    buf_printf(b, "/* Made from the bot.yaml of %.*s by `balm generate bot`: edit that, not this. */\n",
               SV_ARG(m->name));
    buf_printf(
        b, "#ifndef %s_GEN_H\n#define %s_GEN_H\n\n#include \"balm.h\"\n#include \"function/params.h\"\n\n",
        guard, guard);
    if (m->n_params == 0) {
        buf_printf(b, "/* It takes no parameters: p is NULL. */\nstruct %.*s_params;\n\n", SV_ARG(id));
    } else {
        buf_printf(b, "struct %.*s_params {\n", SV_ARG(id));
        for (size_t i = 0; i < m->n_params; i++) {
            const struct manifest_param *p = &m->params[i];
            if (p->description.len > 0) {
                buf_append(b, SV("    /* "));
                append_comment_text(b, p->description);
                buf_append(b, SV(" */\n"));
            }
            buf_printf(b, "    %s%.*s;\n", c_types[p->type], SV_ARG(manifest_member(&a, p)));
        }
        buf_append(b, SV("};\n\n"));
    }
    buf_append(b, SV("/* "));
    append_comment_text(b, m->summary);
    buf_append(b, SV(" */\n"));
    append_prototype(b, id);
    buf_append(b, SV(";\n\n#endif\n"));
    arena_release(&a);
}

static void append_names(struct buf *b, const struct manifest_param *p)
{
    if (p->names.n == 0) return;
    buf_printf(b, "static const char *const names_of_%.*s[] = {", SV_ARG(p->name));
    for (size_t i = 0; i < p->names.n; i++) {
        append_literal(b, p->names.items[i], "    ");
        buf_append(b, SV(", "));
    }
    buf_append(b, SV("NULL};\n"));
}

static void append_default_list(struct buf *b, const struct manifest_param *p)
{
    if (p->default_list.n == 0) return;
    buf_printf(b, "static struct strview default_of_%.*s[] = {\n", SV_ARG(p->name));
    for (size_t i = 0; i < p->default_list.n; i++) {
        buf_append(b, SV("    "));
        append_view(b, p->default_list.items[i]);
        buf_append(b, SV(",\n"));
    }
    buf_append(b, SV("};\n"));
}

static void append_field(struct buf *b, struct arena *a, const struct manifest_param *p)
{
    buf_append(b, SV("    {.name = "));
    append_literal(b, p->name, "     ");
    buf_printf(b, ", .type = %s, AT(%.*s)", c_type_enums[p->type], SV_ARG(manifest_member(a, p)));
    if (p->pattern != PARAM_ANY) buf_printf(b, ", .pattern = %s", c_pattern_enums[p->pattern]);
    if (p->is_required) buf_append(b, SV(", .is_required = true"));
    if (p->type != PARAM_BOOLEAN) {
        buf_append(b, SV(",\n     .min = "));
        append_int64(b, p->min);
        buf_append(b, SV(", .max = "));
        append_int64(b, p->max);
    }
    if (p->names.n > 0) buf_printf(b, ", .names = names_of_%.*s", SV_ARG(p->name));
    buf_append(b, SV("},\n"));
}

static void append_default(struct buf *b, struct arena *a, const struct manifest_param *p)
{
    if (!p->has_default) return;
    buf_printf(b, "        .%.*s = ", SV_ARG(manifest_member(a, p)));
    switch ((enum param_type)p->type) {
    case PARAM_TEXT:
        append_view(b, p->default_text);
        break;
    case PARAM_INTEGER:
    case PARAM_DURATION:
    case PARAM_BYTES:
        append_int64(b, p->default_number);
        break;
    case PARAM_BOOLEAN:
        buf_append(b, p->default_boolean ? SV("true") : SV("false"));
        break;
    case PARAM_TEXT_LIST:
        if (p->default_list.n == 0)
            buf_append(b, SV("{NULL, 0}"));
        else
            buf_printf(b, "{default_of_%.*s, %zu}", SV_ARG(p->name), p->default_list.n);
        break;
    }
    buf_append(b, SV(",\n"));
}

static void append_decoder(struct buf *b, struct arena *a, const struct manifest *m, struct strview id)
{
    if (m->n_params == 0) return;
    for (size_t i = 0; i < m->n_params; i++)
        append_names(b, &m->params[i]);
    for (size_t i = 0; i < m->n_params; i++)
        append_default_list(b, &m->params[i]);
    buf_printf(
        b,
        "#define AT(member) .offset = offsetof(struct %.*s_params, member)\nstatic const struct param_field params[] = {\n",
        SV_ARG(id));
    bool has_default = false;
    for (size_t i = 0; i < m->n_params; i++) {
        append_field(b, a, &m->params[i]);
        has_default |= m->params[i].has_default;
    }
    buf_append(
        b,
        SV("};\n#undef AT\n\nstatic enum status decode(const json_t *body, struct arena *a, void *ret_params, struct error *err)\n{\n"));
    if (!has_default)
        buf_printf(b, "    struct %.*s_params p;\n    memset(&p, 0, sizeof(p));\n", SV_ARG(id));
    else {
        buf_printf(b, "    struct %.*s_params p = {\n", SV_ARG(id));
        for (size_t i = 0; i < m->n_params; i++)
            append_default(b, a, &m->params[i]);
        buf_append(b, SV("    };\n"));
    }
    buf_printf(b, "    enum status s = params_decode(\"%.*s\", params, %zu, body, a, &p, err);\n",
               SV_ARG(m->name), m->n_params);
    buf_printf(b, "    if (s == STATUS_OK) *(struct %.*s_params *)ret_params = p;\n    return s;\n}\n\n",
               SV_ARG(id));
}

static void append_definition(struct buf *b, struct arena *a, const struct manifest *m, struct strview id)
{
    buf_append(
        b,
        SV("static enum status handle(struct invocation *inv, const void *p, struct result *ret, struct error *err)\n{\n"));
    buf_printf(b,
               "    return %.*s_handle(inv, p, ret, err);\n}\n\nstatic const struct function_def def = {\n",
               SV_ARG(id));
    buf_printf(b, "    .name = \"%.*s\",\n    .summary = ", SV_ARG(m->name));
    append_literal(b, m->summary, "               ");
    buf_printf(b, ",\n    .acts = %s,\n    .on_unknown = %s,\n", m->acts ? "true" : "false",
               c_on_unknown[m->on_unknown]);
    if (m->n_params > 0)
        buf_printf(b, "    .params_bytes = sizeof(struct %.*s_params),\n    .decode = decode,\n", SV_ARG(id));
    if (m->auth == MANIFEST_AUTH_API_KEY)
        buf_printf(b, "    .api_key_secret = \"%.*s-api-key\",\n", SV_ARG(m->name));
    buf_append(b, SV("    .handle = handle,\n    .manifest_json =\n        "));
    append_literal(b, json_canonical(a, m->json), "        ");
    json_t *document = openapi_document(m->json);
    buf_append(b, SV(",\n    .openapi_json =\n        "));
    append_literal(b, json_canonical(a, document), "        ");
    json_release(document);
    buf_append(
        b,
        SV(",\n};\n\nint main(int argc, char **argv)\n{\n    return function_main(&def, argc, argv);\n}\n"));
}

void generate_source(const struct manifest *m, struct buf *b)
{
    struct arena a = {0};
    struct strview id = manifest_identifier(&a, m->name);
    buf_printf(
        b,
        "/* Made from the bot.yaml of %.*s by `balm generate bot`: edit that, not this. */\n#include \"%.*s.gen.h\"\n\n",
        SV_ARG(m->name), SV_ARG(m->name));
    append_decoder(b, &a, m, id);
    append_definition(b, &a, m, id);
    arena_release(&a);
}

/* ---- stack.yml ---- */

/* As a double-quoted YAML scalar; JSON's escapes are YAML's. */
static void append_stack_entry(struct buf *b, const struct manifest *m)
{
    char timeout[DURATION_TEXT_MAX];
    buf_printf(b, "\n  %.*s:\n    lang: c-balm\n    handler: ./functions/%.*s\n    image: %.*s:latest\n",
               SV_ARG(m->name), SV_ARG(m->name), SV_ARG(m->name));
    if (m->secrets.n > 0) {
        buf_append(b, SV("    # once they exist (faas-cli secret create NAME):\n    # secrets: ["));
        for (size_t i = 0; i < m->secrets.n; i++)
            buf_printf(b, "%s%.*s", i > 0 ? ", " : "", SV_ARG(m->secrets.items[i]));
        buf_append(b, SV("]\n"));
    }
    buf_printf(b, "    environment:\n      exec_timeout: %s\n", duration_format(m->timeout_ns, timeout));
    for (size_t i = 0; i < m->n_environment; i++)
        buf_printf(b, "      # %.*s: %.*s\n", SV_ARG(m->environment[i].name),
                   SV_ARG(m->environment[i].description));
    buf_append(
        b, SV("    labels:\n      com.openfaas.scale.min: \"1\"\n      com.openfaas.scale.zero: \"true\"\n"));
    buf_printf(b, "    annotations:\n      balm.dev/acts: \"%s\"\n      balm.dev/summary: ",
               m->acts ? "true" : "false");
    buf_append_json_string(b, m->summary);
    buf_append_char(b, '\n');
}

void generate_stack(const struct manifest *manifests, size_t n, struct buf *b)
{
    buf_append(
        b, SV("# Made by `balm generate stack`; `faas-cli deploy -f` and `balm up -f` read it.\n"
              "version: 1.0\n\nprovider:\n  name: openfaas\n  gateway: http://127.0.0.1:8080\n\nfunctions:"));
    if (n == 0) buf_append(b, SV(" {}\n"));
    for (size_t i = 0; i < n; i++)
        append_stack_entry(b, &manifests[i]);
}

/* ---- README ---- */

/* A '|' would end the cell, a '<' start markup. */
static void append_cell(struct buf *b, struct strview text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] == '<')
            buf_append(b, SV("&lt;"));
        else if (text.ptr[i] == '|')
            buf_append(b, SV("\\|"));
        else
            buf_append_char(b, text.ptr[i]);
    }
}

static void append_param_cell(struct buf *b, const struct manifest *m)
{
    for (size_t i = 0; i < m->n_params; i++) {
        const struct manifest_param *p = &m->params[i];
        buf_printf(b, "%s`%.*s`", i > 0 ? ", " : "", SV_ARG(p->name));
        if (p->is_required) buf_append(b, SV(" (required)"));
        if (p->default_json == NULL || json_equal(p->default_json, json_false())) continue;
        struct arena a = {0};
        buf_append(b, SV(" ("));
        append_cell(b, json_is_string(p->default_json) ? sv(json_string_value(p->default_json))
                                                       : json_canonical(&a, p->default_json));
        buf_append_char(b, ')');
        arena_release(&a);
    }
    if (m->n_params == 0) buf_append(b, SV("none"));
}

static void append_touches_cell(struct buf *b, const struct manifest *m)
{
    if (m->touches == NULL) {
        buf_append(b, SV("nothing"));
        return;
    }
    for (const struct yaml_node *kind = m->touches->first; kind != NULL; kind = kind->next) {
        buf_printf(b, "%s%.*s: ", kind == m->touches->first ? "" : "; ", SV_ARG(kind->key));
        for (const struct yaml_node *item = kind->first; item != NULL; item = item->next) {
            if (item != kind->first) buf_append(b, SV(", "));
            append_cell(b, item->text);
        }
    }
}

void generate_readme(const struct manifest *manifests, size_t n, struct buf *b)
{
    buf_append(
        b,
        SV("| function | what it does | acts | parameters (default) | may touch | undo |\n|---|---|---|---|---|---|\n"));
    for (size_t i = 0; i < n; i++) {
        const struct manifest *m = &manifests[i];
        buf_printf(b, "| [`%.*s`](functions/%.*s/README.md) | ", SV_ARG(m->name), SV_ARG(m->name));
        append_cell(b, m->summary);
        buf_printf(b, " | %s | ",
                   m->auth == MANIFEST_AUTH_API_KEY ? "no; asks for an API key"
                   : !m->acts                       ? "no"
                   : m->is_destructive              ? "yes, destructive"
                                                    : "yes");
        append_param_cell(b, m);
        buf_append(b, SV(" | "));
        append_touches_cell(b, m);
        buf_append(b, SV(" | "));
        append_cell(b, m->undo.len > 0 ? m->undo : SV("–"));
        buf_append(b, SV(" |\n"));
    }
}
