#include "cli/generate.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <unistd.h>

#include "base/file.h"
#include "base/list.h"
#include "cli/cli.h"
#include "config/yaml.h"

static struct arena arena;
static const char *folder;

#define CLEAN                                                                                                                       \
    "name: disk-clean\nsummary: \"Frees \\\"space\\\" */ | <b>?\\\\ \xc3\xa4\"\nacts: true\ndestructive: true\non_unknown: rerun\n" \
    "touches: {paths: [/var/tmp, \"a|b\"], hosts: [local]}\nverify: statvfs\nundo: none\ntimeout: 90s\nsecrets: [roots-file]\n"     \
    "environment: {disk_clean_roots: what may be cleaned}\nparams:\n"                                                               \
    "  root: {type: text, required: true, pattern: path-absolute, description: \"where /* it */ starts\"}\n"                        \
    "  older_than: {type: duration, default: 24h}\n  limit: {type: bytes, default: 1GiB}\n"                                         \
    "  dry_run: {type: boolean, default: false}\n  tags: {type: text-list, default: [x, y], enum: [x, y, z]}\n"                     \
    "  low: {type: integer, default: -9223372036854775808}\n"
#define ECHO "name: echo\nsummary: Answers what it got\nacts: false\n"

static const char *path_of(const char *name)
{
    return arena_printf(&arena, "%s/%s", folder, name).ptr;
}

static void set_up(void)
{
    const char *parent = getenv("TMPDIR");
    folder = mkdtemp(arena_cstr(
        &arena, arena_printf(&arena, "%s/balm-generate-XXXXXX", parent != NULL ? parent : "/tmp")));
    cr_assert_not_null(folder);
    cr_assert_eq(file_write_atomic(path_of("clean.yaml"), SV(CLEAN), 0644, NULL), STATUS_OK);
    cr_assert_eq(file_write_atomic(path_of("echo.yaml"), SV(ECHO), 0644, NULL), STATUS_OK);
}

static void tear_down(void)
{
    static const char *const files[] = {
        "clean.yaml",           "echo.yaml",      "bad.yaml",      "out/disk-clean.gen.c",
        "out/disk-clean.gen.h", "out/echo.gen.c", "out/echo.gen.h"};
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        (void)unlink(path_of(files[i]));
    (void)rmdir(path_of("out"));
    (void)rmdir(folder);
    arena_release(&arena);
}

TestSuite(generate, .init = set_up, .fini = tear_down);

static int run(const char *a, const char *b, const char *c, const char *d)
{
    char *argv[] = {"generate",           (char *)(uintptr_t)a, (char *)(uintptr_t)b,
                    (char *)(uintptr_t)c, (char *)(uintptr_t)d, NULL};
    int argc = 1;
    while (argc < 5 && argv[argc] != NULL)
        argc++;
    return generate_command(argc, argv);
}

static struct strview content(const char *name)
{
    struct strview text = {0};
    struct error err;
    cr_assert_eq(file_read(&arena, path_of(name), 1 << 20, &text, &err), STATUS_OK, "%s", err.message);
    return text;
}

static void expect_contains(struct strview text, const char *part)
{
    cr_assert(sv_contains(text, sv(part)), "'%s' is not in:\n%.*s", part, SV_ARG(text));
}

Test(generate, bot_makes_struct_prototype_decoder_and_definition)
{
    cr_assert_eq(run("bot", path_of("clean.yaml"), "--out", path_of("out")), CLI_OK);
    struct strview h = content("out/disk-clean.gen.h"), c = content("out/disk-clean.gen.c");
    expect_contains(c, ".openapi_json =\n        \"{\\\"components\\\":{");
    expect_contains(
        h,
        "struct disk_clean_params {\n    /* where /. it ./ starts */\n    struct strview root;\n    int64_t older_than_ns;\n"
        "    int64_t limit_bytes;\n    bool dry_run;\n    struct param_text_list tags;\n    int64_t low;\n};");
    expect_contains(
        h,
        "enum status disk_clean_handle(struct invocation *inv, const struct disk_clean_params *p, struct result *ret, "
        "struct error *err);");
    expect_contains(c, ".older_than_ns = INT64_C(86400000000000)");
    expect_contains(c, ".limit_bytes = INT64_C(1073741824)");
    expect_contains(c, ".low = INT64_MIN");
    expect_contains(c, ".tags = {default_of_tags, 2}");
    expect_contains(c, ".pattern = PARAM_PATH_ABSOLUTE, .is_required = true");
    expect_contains(c, ".names = names_of_tags");
    expect_contains(c, ".on_unknown = ON_UNKNOWN_RERUN");
    expect_contains(c, ".summary = \"Frees \\\"space\\\" */ | <b>\\?\\\\ \\303\\244\"");
    expect_contains(c, "return function_main(&def, argc, argv);");
}

Test(generate, function_without_parameters_has_no_decoder)
{
    cr_assert_eq(run("bot", path_of("echo.yaml"), "--out", path_of("out")), CLI_OK);
    struct strview h = content("out/echo.gen.h"), c = content("out/echo.gen.c");
    expect_contains(h, "struct echo_params;");
    cr_assert_not(sv_contains(c, SV("decode")));
    cr_assert_not(sv_contains(c, SV("params_bytes")));
}

Test(generate, output_is_the_same_each_time)
{
    cr_assert_eq(run("bot", path_of("clean.yaml"), "--out", path_of("out")), CLI_OK);
    struct strview first_c = content("out/disk-clean.gen.c"), first_h = content("out/disk-clean.gen.h");
    cr_assert_eq(run("bot", path_of("clean.yaml"), "--out", path_of("out")), CLI_OK);
    cr_assert(sv_eq(content("out/disk-clean.gen.c"), first_c));
    cr_assert(sv_eq(content("out/disk-clean.gen.h"), first_h));
    cr_assert_not(sv_contains(first_c, sv(folder)), "no path of this machine in it");
}

static struct strview of_both(void (*generate)(const struct manifest *manifests, size_t n, struct buf *b))
{
    struct manifest manifests[2];
    struct buf b;
    buf_init(&b, 1 << 20);
    cr_assert_eq(manifest_read(path_of("clean.yaml"), &manifests[0], NULL), STATUS_OK);
    cr_assert_eq(manifest_read(path_of("echo.yaml"), &manifests[1], NULL), STATUS_OK);
    generate(manifests, 2, &b);
    cr_assert_eq(buf_status(&b), STATUS_OK);
    struct strview text = arena_copy(&arena, buf_view(&b));
    buf_release(&b);
    manifest_release(&manifests[0]);
    manifest_release(&manifests[1]);
    return text;
}

Test(generate, stack_is_what_openfaas_reads)
{
    struct yaml_document doc;
    struct error err;
    struct strview text = of_both(generate_stack);
    cr_assert_eq(yaml_parse(&arena, "stack.yml", text, &doc, &err), STATUS_OK, "%s\n%.*s", err.message,
                 SV_ARG(text));
    cr_assert(sv_eq(yaml_get(doc.root, SV("version"))->text, SV("1.0")));
    cr_assert(sv_eq(yaml_get(yaml_get(doc.root, SV("provider")), SV("name"))->text, SV("openfaas")));
    cr_assert(sv_eq(yaml_get(yaml_get(doc.root, SV("provider")), SV("gateway"))->text,
                    SV("http://127.0.0.1:8080")));
    struct yaml_node *clean = yaml_get(yaml_get(doc.root, SV("functions")), SV("disk-clean"));
    cr_assert(sv_eq(yaml_get(clean, SV("lang"))->text, SV("c-balm")));
    cr_assert(sv_eq(yaml_get(clean, SV("handler"))->text, SV("./functions/disk-clean")));
    cr_assert(sv_eq(yaml_get(clean, SV("image"))->text, SV("disk-clean:latest")));
    cr_assert(sv_eq(yaml_get(yaml_get(clean, SV("environment")), SV("exec_timeout"))->text, SV("1m30s")));
    struct yaml_node *zero = yaml_get(yaml_get(clean, SV("labels")), SV("com.openfaas.scale.zero"));
    cr_assert(sv_eq(zero->text, SV("true")) && !zero->is_plain, "labels are texts");
    cr_assert(sv_eq(yaml_get(yaml_get(clean, SV("annotations")), SV("balm.dev/summary"))->text,
                    SV("Frees \"space\" */ | <b>?\\ \xc3\xa4")));
    cr_assert_null(yaml_get(clean, SV("secrets")), "a deploy that names a missing secret fails");
    expect_contains(text, "# secrets: [roots-file]");
    expect_contains(text, "# disk_clean_roots: what may be cleaned");
}

static void knative_at_registry(const struct manifest *manifests, size_t n, struct buf *b)
{
    generate_knative(manifests, n, SV("registry.example/"), b);
}

Test(generate, knative_services_say_what_the_manifest_says)
{
    struct strview text = of_both(knative_at_registry);
    expect_contains(text, "kind: Service\nmetadata:\n  name: disk-clean\n");
    expect_contains(text, "balm.dev/summary: \"Frees \\\"space\\\" */ | <b>?\\\\ \xc3\xa4\"\n");
    expect_contains(text, "image: registry.example/disk-clean:latest\n");
    expect_contains(text, "timeoutSeconds: 100\n"); /* beyond exec_timeout, which answers with a reason */
    expect_contains(text, "- name: exec_timeout\n              value: 1m30s\n");
    expect_contains(text, "mountPath: /var/openfaas/secrets/roots-file\n");
    expect_contains(text, "secretName: roots-file\n            optional: true\n");
    expect_contains(text, "secretName: disk-clean-invocation-key\n");
    const char *echo = strstr(text.ptr, "  name: echo\n");
    cr_assert_not_null(echo);
    cr_assert_null(strstr(echo, "secret"), "it neither acts nor has any");
}

Test(generate, readme_rows_escape_what_markdown_would_take)
{
    struct strview text = of_both(generate_readme);
    expect_contains(
        text,
        "| [`disk-clean`](functions/disk-clean/README.md) | Frees \"space\" */ \\| &lt;b>?\\ \xc3\xa4 | yes, destructive | `root` (required), "
        "`older_than` (24h), `limit` (1GiB), `dry_run`, `tags` ([\"x\",\"y\"]), `low` (-9223372036854775808) | "
        "paths: /var/tmp, a\\|b; hosts: local | none |");
    expect_contains(text,
                    "| [`echo`](functions/echo/README.md) | Answers what it got | no | none | nothing |");
}

Test(generate, lists_are_in_the_order_of_names_whatever_the_arguments)
{
    cr_redirect_stdout();
    cr_assert_eq(run("readme", path_of("echo.yaml"), path_of("clean.yaml"), NULL), CLI_OK);
    char text[4096] = "";
    FILE *out = cr_get_redirected_stdout();
    size_t n = fread(text, 1, sizeof(text) - 1, out);
    const char *clean = strstr(text, "`disk-clean`"), *echo = strstr(text, "`echo`");
    cr_assert(n > 0 && clean != NULL && echo != NULL && clean < echo, "%s", text);
}

Test(generate, wrong_files_and_arguments_have_their_exit_codes)
{
    cr_redirect_stderr();
    cr_assert_eq(file_write_atomic(path_of("bad.yaml"), SV(ECHO "colour: red\n"), 0644, NULL), STATUS_OK);
    cr_assert_eq(run("bot", path_of("bad.yaml"), "--out", path_of("out")), CLI_USAGE);
    cr_assert_neq(access(path_of("out"), F_OK), 0, "nothing is written for a bad file");
    cr_assert_eq(run("bot", path_of("missing.yaml"), "--out", path_of("out")), CLI_NOT_FOUND);
    cr_assert_eq(run("bot", path_of("echo.yaml"), NULL, NULL), CLI_USAGE);
    cr_assert_eq(run("stack", NULL, NULL, NULL), CLI_USAGE);
    cr_assert_eq(run("bots", path_of("echo.yaml"), NULL, NULL), CLI_USAGE);
    cr_assert_eq(run("stack", path_of("echo.yaml"), path_of("echo.yaml"), NULL), CLI_USAGE,
                 "two of one name");
    char text[4096] = "";
    FILE *out = cr_get_redirected_stderr();
    (void)!fread(text, 1, sizeof(text) - 1, out);
    cr_assert_not_null(strstr(text, "bad.yaml:4:1: unknown field 'colour' in bot.yaml"), "%s", text);
    cr_assert_not_null(strstr(text, "two files describe 'echo'"), "%s", text);
}
