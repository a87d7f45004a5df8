/* `balm generate`: files in, files or text or JSON out. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/list.h"
#include "cli/cli.h"
#include "cli/generate.h"
#include "config/yaml.h"

#define OUTPUT_MAX (4 * 1024 * 1024)

static const char usage[] =
    "usage: balm generate bot FILE --out DIR   C from one bot.yaml: DIR/NAME.gen.h and DIR/NAME.gen.c\n"
    "       balm generate stack FILES...      stack.yml of several, on stdout\n"
    "       balm generate knative FILES...    Knative Services of several, on stdout\n"
    "       balm generate readme FILES...     the README's table, on stdout\n"
    "\n"
    "  --json                     bot: the files that were written; stack, knative: the file as JSON; readme:\n"
    "                             the manifests\n"
    "  --image-prefix REGISTRY/   knative: what stands before the images' names\n";

struct generate_cfg {
    const char *out, *image_prefix;
    bool is_json;
};

static const struct config_option options[] = {
    {.name = "out",
     .short_name = 'o',
     .type = CONFIG_PATH,
     .offset = offsetof(struct generate_cfg, out),
     .value_name = "DIR",
     .help = "folder of the generated files"},
    {.name = "image-prefix",
     .type = CONFIG_TEXT,
     .default_text = "",
     .offset = offsetof(struct generate_cfg, image_prefix),
     .value_name = "REGISTRY/",
     .help = "what stands before the images' names"},
    {.name = "json",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct generate_cfg, is_json),
     .help = "JSON instead of text"},
};

static int fail(const struct error *err)
{
    fprintf(stderr, "balm generate: %s\n", err->message);
    return err->code == STATUS_INVALID_ARGUMENT ? CLI_USAGE
           : err->code == STATUS_NOT_FOUND      ? CLI_NOT_FOUND
                                                : CLI_FAILED;
}

static enum status print(struct strview text, struct error *err)
{
    if (fwrite(text.ptr, 1, text.len, stdout) == text.len && fflush(stdout) == 0) return STATUS_OK;
    return error_set(err, STATUS_INTERNAL, "standard output cannot be written");
}

/* value: moved. */
static enum status print_json(json_t *value, struct error *err)
{
    struct arena a = {0};
    struct strview text = json_canonical(&a, value);
    enum status s = print(arena_printf(&a, "%.*s\n", SV_ARG(text)), err);
    json_release(value);
    arena_release(&a);
    return s;
}

/* ---- bot ---- */

/* files: gets the path. */
static enum status write_part(const char *dir, const struct manifest *m, const char *suffix,
                              void (*generate)(const struct manifest *m, struct buf *b), json_t *files,
                              struct error *err)
{
    struct arena a = {0};
    struct buf b;
    struct strview path = arena_printf(&a, "%s/%.*s%s", dir, SV_ARG(m->name), suffix);
    buf_init(&b, OUTPUT_MAX);
    generate(m, &b);
    enum status s = buf_status(&b);
    if (s != STATUS_OK)
        s = error_set(err, s, "%.*s: more than %d bytes of C", SV_ARG(m->name), OUTPUT_MAX);
    else
        s = file_write_atomic(path.ptr, buf_view(&b), 0644, err);
    (void)json_array_append_new(files, json_text(path));
    buf_release(&b);
    arena_release(&a);
    return s;
}

static int generate_bot(const struct generate_cfg *cfg, const char *file)
{
    struct manifest m;
    struct error err;
    enum status s = manifest_read(file, &m, &err);
    if (s != STATUS_OK) return fail(&err);
    json_t *files = json_array();
    s = dir_make(cfg->out, 0755, &err);
    if (s == STATUS_OK) s = write_part(cfg->out, &m, ".gen.h", generate_header, files, &err);
    if (s == STATUS_OK) s = write_part(cfg->out, &m, ".gen.c", generate_source, files, &err);
    if (s == STATUS_OK && cfg->is_json)
        s = print_json(json_pack("{s:O, s:o}", "files", files, "function", json_text(m.name)), &err);
    json_release(files);
    manifest_release(&m);
    return s == STATUS_OK ? CLI_OK : fail(&err);
}

/* ---- stack, Services and readme ---- */

struct output {
    void (*text)(const struct manifest *manifests, size_t n, struct strview image_prefix, struct buf *b);
    enum status (*json)(const struct manifest *manifests, size_t n, struct strview image_prefix,
                        json_t **ret_json, struct error *err);
};

static void stack_text(const struct manifest *manifests, size_t n, struct strview image_prefix, struct buf *b)
{
    (void)image_prefix;
    generate_stack(manifests, n, b);
}

static void readme_text(const struct manifest *manifests, size_t n, struct strview image_prefix,
                        struct buf *b)
{
    (void)image_prefix;
    generate_readme(manifests, n, b);
}

/* The very text, read back. */
static enum status text_to_json(const char *name, struct buf *b, json_t **ret_json, struct error *err)
{
    struct arena a = {0};
    struct yaml_document doc;
    enum status s = yaml_parse(&a, name, buf_view(b), &doc, err);
    if (s == STATUS_OK) *ret_json = yaml_to_json(doc.root);
    arena_release(&a);
    return s;
}

static enum status stack_json(const struct manifest *manifests, size_t n, struct strview image_prefix,
                              json_t **ret_json, struct error *err)
{
    struct buf b;
    buf_init(&b, OUTPUT_MAX);
    stack_text(manifests, n, image_prefix, &b);
    enum status s = text_to_json("stack.yml", &b, ret_json, err);
    buf_release(&b);
    return s;
}

/* A list of Kubernetes: one document for each function would be no JSON. */
static enum status knative_json(const struct manifest *manifests, size_t n, struct strview image_prefix,
                                json_t **ret_json, struct error *err)
{
    enum status s = STATUS_OK;
    json_t *items = json_array();
    for (size_t i = 0; i < n && s == STATUS_OK; i++) {
        struct buf b;
        json_t *service = NULL;
        buf_init(&b, OUTPUT_MAX);
        generate_knative(&manifests[i], 1, image_prefix, &b);
        s = text_to_json("services.yaml", &b, &service, err);
        if (s == STATUS_OK) (void)json_array_append_new(items, service);
        buf_release(&b);
    }
    if (s == STATUS_OK)
        *ret_json = json_pack("{s:s, s:s, s:O}", "apiVersion", "v1", "kind", "List", "items", items);
    json_release(items);
    return s;
}

static enum status readme_json(const struct manifest *manifests, size_t n, struct strview image_prefix,
                               json_t **ret_json, struct error *err)
{
    (void)image_prefix;
    (void)err;
    *ret_json = json_array();
    for (size_t i = 0; i < n; i++)
        (void)json_array_append(*ret_json, manifests[i].json);
    return STATUS_OK;
}

static const struct list_command {
    const char *name;
    struct output output;
} list_commands[] = {
    {"stack", {stack_text, stack_json}},
    {"knative", {generate_knative, knative_json}},
    {"readme", {readme_text, readme_json}},
};

static int compare_names(const void *a, const void *b)
{
    return sv_cmp(((const struct manifest *)a)->name, ((const struct manifest *)b)->name);
}

static enum status write_list(const struct manifest *manifests, size_t n, const struct output *output,
                              const struct generate_cfg *cfg, struct error *err)
{
    struct strview image_prefix = sv(cfg->image_prefix);
    for (size_t i = 1; i < n; i++)
        if (sv_eq(manifests[i - 1].name, manifests[i].name))
            return error_set(err, STATUS_INVALID_ARGUMENT, "two files describe '%.*s'",
                             SV_ARG(manifests[i].name));
    if (cfg->is_json) {
        json_t *json = NULL;
        enum status s = output->json(manifests, n, image_prefix, &json, err);
        return s == STATUS_OK ? print_json(json, err) : s;
    }
    struct buf b;
    buf_init(&b, OUTPUT_MAX);
    output->text(manifests, n, image_prefix, &b);
    enum status s = print(buf_view(&b), err);
    buf_release(&b);
    return s;
}

static int generate_list(char **files, size_t n, const struct output *output, const struct generate_cfg *cfg)
{
    struct arena a = {0};
    struct error err;
    enum status s = STATUS_OK;
    size_t n_read = 0;
    struct manifest *manifests = arena_array(&a, n, sizeof(*manifests));
    while (n_read < n && s == STATUS_OK) {
        s = manifest_read(files[n_read], &manifests[n_read], &err);
        if (s == STATUS_OK) n_read++;
    }
    /* By name: a shell's order of files depends on the locale. */
    qsort(manifests, n_read, sizeof(*manifests), compare_names);
    if (s == STATUS_OK) s = write_list(manifests, n, output, cfg, &err);
    for (size_t i = 0; i < n_read; i++)
        manifest_release(&manifests[i]);
    arena_release(&a);
    return s == STATUS_OK ? CLI_OK : fail(&err);
}

/* ---- the command ---- */

static int run(int argc, char **argv, struct arena *a)
{
    struct generate_cfg cfg = {0};
    struct error err;
    int n = 0;
    if (config_load(options, ARRAY_LEN(options), argc, argv, a, &cfg, &n, &err) != STATUS_OK)
        return fail(&err);
    const char *what = n > 0 ? argv[1] : "";
    if (strcmp(what, "bot") == 0 && n == 2 && cfg.out != NULL) return generate_bot(&cfg, argv[2]);
    for (size_t i = 0; i < ARRAY_LEN(list_commands); i++)
        if (strcmp(what, list_commands[i].name) == 0 && n > 1)
            return generate_list(argv + 2, (size_t)(n - 1), &list_commands[i].output, &cfg);
    fputs(usage, stderr);
    return CLI_USAGE;
}

int generate_command(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") != 0 && strcmp(argv[i], "-h") != 0) continue;
        fputs(usage, stdout);
        return CLI_OK;
    }
    struct arena a = {0};
    int code = run(argc, argv, &a);
    arena_release(&a);
    return code;
}
