#include "config/yaml.h"

#include <criterion/criterion.h>
#include <stdarg.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"

static struct arena arena;
static struct yaml_document doc;
static struct error err;

static void tear_down(void)
{
    arena_release(&arena);
}

TestSuite(yaml, .fini = tear_down, .timeout = 20);

static enum status parse_sv(struct strview text)
{
    err = (struct error){0};
    return yaml_parse(&arena, "f.yaml", text, &doc, &err);
}

static enum status parse(const char *text)
{
    return parse_sv(sv(text));
}

static void expect_refused(struct strview text, const char *message_part)
{
    enum status s = parse_sv(text);
    cr_assert_eq(s, STATUS_INVALID_ARGUMENT, "%.60s: %s", text.ptr, status_name(s));
    cr_assert(sv_contains(sv(err.message), sv(message_part)), "'%s' is not in: %s", message_part,
              err.message);
    cr_assert_not(err.can_retry);
}

static char *json_of(const struct yaml_node *node)
{
    json_t *value = yaml_to_json(node);
    struct strview text = json_canonical(&arena, value);
    json_decref(value);
    return arena_cstr(&arena, text);
}

Test(yaml, nodes_know_where_they_stand)
{
    cr_assert_eq(parse("name: nginx\nsteps:\n  - bot: service-restart\n    with: {unit: \"nginx\"}\n"),
                 STATUS_OK, "%s", err.message);
    cr_assert_str_eq(doc.file, "f.yaml");
    cr_assert_eq(doc.root->type, YAML_MAP);
    cr_assert_eq(doc.root->n_children, 2);
    struct yaml_node *steps = yaml_get(doc.root, SV("steps"));
    cr_assert_eq(steps->type, YAML_LIST);
    cr_assert_eq(steps->key_line, 2);
    cr_assert_eq(steps->key_column, 1);
    struct yaml_node *unit = yaml_get(yaml_get(steps->first, SV("with")), SV("unit"));
    cr_assert(sv_eq(unit->text, SV("nginx")));
    cr_assert_not(unit->is_plain);
    cr_assert_eq(unit->line, 4);
    cr_assert_eq(unit->column, 18);
    cr_assert_eq(unit->key_column, 12);
    cr_assert(yaml_get(steps->first, SV("bot"))->is_plain);
    cr_assert_null(yaml_get(doc.root, SV("missing")));
    cr_assert_null(yaml_get(steps, SV("bot")), "a list has no keys");
}

Test(yaml, map_values_keep_the_files_order)
{
    cr_assert_eq(parse("b: 1\na: 2\nc: 3\n"), STATUS_OK);
    cr_assert(sv_eq(doc.root->first->key, SV("b")));
    cr_assert(sv_eq(doc.root->first->next->key, SV("a")));
    cr_assert(sv_eq(doc.root->first->next->next->key, SV("c")));
    cr_assert_null(doc.root->first->next->next->next);
}

Test(yaml, columns_count_characters_not_bytes)
{
    cr_assert_eq(parse("{größe: 1, x: 2}"), STATUS_OK);
    cr_assert_eq(yaml_get(doc.root, SV("x"))->key_column, 12);
}

Test(yaml, text_of_the_file_may_be_gone_after_the_parse)
{
    char *text = malloc(32);
    memcpy(text, "key: value\n", 12);
    cr_assert_eq(parse(text), STATUS_OK);
    memset(text, 'x', 32);
    free(text);
    cr_assert(sv_eq(yaml_get(doc.root, SV("key"))->text, SV("value")));
}

Test(yaml, empty_files_are_refused)
{
    expect_refused(SV(""), "f.yaml:1:1: the file is empty");
    expect_refused((struct strview){0}, "the file is empty");
    expect_refused(SV("# only a comment\n"), "the file is empty");
    expect_refused(SV("---\n"), "the file is empty");
}

Test(yaml, anchors_and_aliases_are_refused)
{
    expect_refused(SV("a: &x 1\nb: 2\n"), "f.yaml:1:4: anchors (&) are not allowed");
    expect_refused(SV("a: &x {b: 1}\n"), "f.yaml:1:4: anchors");
    expect_refused(SV("a: &x [1]\n"), "f.yaml:1:4: anchors");
    expect_refused(SV("&k a: 1\n"), "anchors");
    expect_refused(SV("a: 1\nb: *x\n"), "f.yaml:2:4: aliases (*) are not allowed");
}

Test(yaml, billion_laughs_ends_at_its_first_anchor)
{
    expect_refused(SV("a: &a [lol,lol,lol,lol]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\n"),
                   "f.yaml:1:4: anchors");
}

Test(yaml, tags_and_directives_are_refused)
{
    expect_refused(SV("a: !!str 1\n"), "f.yaml:1:4: tags (!) are not allowed");
    expect_refused(SV("a: !python/object {}\n"), "tags");
    expect_refused(SV("a: ! 1\n"), "tags");
    expect_refused(SV("a: !!set [1]\n"), "tags");
    expect_refused(SV("%TAG ! tag:x,2000:\n---\na: 1\n"), "%TAG is not allowed");
    expect_refused(SV("%YAML 3.0\n---\na: 1\n"), "f.yaml:1:");
}

Test(yaml, merge_keys_are_refused_but_not_as_a_quoted_text)
{
    expect_refused(SV("a:\n  <<: {b: 1}\n"), "f.yaml:2:3: merge keys");
    cr_assert_eq(parse("'<<': 1\n"), STATUS_OK);
}

Test(yaml, duplicate_keys_are_refused_where_the_second_stands)
{
    expect_refused(SV("a: 1\nb: 2\na: 3\n"), "f.yaml:3:1: key 'a' is given twice (first in line 1)");
    expect_refused(SV("a: 1\n'a': 3\n"), "f.yaml:2:1: key 'a'");
    expect_refused(SV("x:\n  - {k: 1, j: 2, k: 3}\n"), "f.yaml:2:18: key 'k'");
    /* Several: the first that repeats is named, not the first by name. */
    expect_refused(SV("z: 1\na: 1\nz: 1\na: 1\n"), "f.yaml:3:1: key 'z'");
    cr_assert_eq(parse("a: {k: 1}\nb: {k: 1}\n"), STATUS_OK, "the same key in two maps is fine");
}

Test(yaml, keys_must_be_texts)
{
    expect_refused(SV("? [a, b]\n: 1\n"), "a key must be a text, not a list");
    expect_refused(SV("? {a: b}\n: 1\n"), "a key must be a text, not a map");
    expect_refused(SV("?\n: 1\n"), "a key is empty");
    expect_refused(SV("'': 1\n"), "f.yaml:1:1: a key is empty");
}

Test(yaml, two_documents_are_refused)
{
    expect_refused(SV("a: 1\n---\nb: 2\n"), "f.yaml:2:1: a second document starts here");
    cr_assert_eq(parse("---\na: 1\n...\n"), STATUS_OK);
}

Test(yaml, bytes_that_are_no_text_are_refused_where_they_stand)
{
    expect_refused(SV("a: 1\nb: x\0y\n"), "f.yaml:2:5: a NUL byte");
    expect_refused(SV("a: \xff\n"), "f.yaml:1:4: byte 0xff is not UTF-8");
    expect_refused(SV("a: \xc0\xaf\n"), "not UTF-8");
    expect_refused(SV("a: \xed\xa0\x80\n"), "not UTF-8");
    expect_refused(SV("ä: \x1b[31m\n"), "f.yaml:1:4: control character 0x1b");
    expect_refused(SV("\xff\xfe"
                      "a\0:\0 \0001\0"),
                   "f.yaml:1:1: byte 0xff is not UTF-8");
    expect_refused(SV("a: \"x\\0y\"\n"), "f.yaml:1:4: a NUL character in a text");
    expect_refused(SV("\"a\\0\": 1\n"), "a NUL character");
    expect_refused(SV("a: \"\\ud800\"\n"), "f.yaml:1:");
    cr_assert_eq(parse("\xef\xbb\xbf"
                       "a: 1\n"),
                 STATUS_OK, "a byte order mark is skipped: %s", err.message);
}

Test(yaml, tabs_as_indentation_are_named)
{
    expect_refused(SV("a:\n\tb: 1\n"), "f.yaml:2:1: a character that nothing can start with; is it a tab?");
}

Test(yaml, syntax_errors_have_line_column_and_context)
{
    expect_refused(SV("a: [1, 2\nb: 3\n"), "f.yaml:2:");
    expect_refused(SV("a: 'open\n"), "f.yaml:2:1: ");
    expect_refused(SV("a: b: c\n"), "f.yaml:1:5: ");
    expect_refused(SV("- a\nb: 1\n"), "f.yaml:2:1: ");
    expect_refused(SV("a: {b: 1\n"), "that starts in line 1");
}

static struct strview nested(unsigned depth)
{
    char *text = arena_alloc(&arena, 2 * depth + 1);
    memset(text, '[', depth);
    memset(text + depth, ']', depth);
    text[2 * depth] = '\0';
    return sv(text);
}

Test(yaml, depth_32_is_read_and_33_refused)
{
    cr_assert_eq(parse_sv(nested(YAML_DEPTH_MAX)), STATUS_OK, "%s", err.message);
    expect_refused(nested(YAML_DEPTH_MAX + 1), "f.yaml:1:33: nested deeper than 32");
}

static struct strview long_list(unsigned n)
{
    struct buf b;
    buf_init(&b, YAML_BYTES_MAX);
    for (unsigned i = 0; i < n; i++)
        buf_append(&b, SV("- 1\n"));
    cr_assert_eq(buf_status(&b), STATUS_OK);
    struct strview text = arena_copy(&arena, buf_view(&b));
    buf_release(&b);
    return text;
}

Test(yaml, hundred_thousand_nodes_are_read_and_one_more_refused)
{
    cr_assert_eq(parse_sv(long_list(YAML_NODES_MAX - 1)), STATUS_OK, "%s", err.message);
    cr_assert_eq(doc.root->n_children, YAML_NODES_MAX - 1);
    expect_refused(long_list(YAML_NODES_MAX), "f.yaml:100000:3: more than 100000 values");
}

Test(yaml, keys_count_as_nodes)
{
    struct buf b;
    buf_init(&b, YAML_BYTES_MAX);
    for (unsigned i = 0; i < YAML_NODES_MAX / 2; i++)
        buf_printf(&b, "%x: 1\n", i);
    cr_assert_eq(buf_status(&b), STATUS_OK);
    expect_refused(buf_view(&b), "more than 100000 values");
    buf_release(&b);
}

Test(yaml, more_than_a_mebibyte_is_refused)
{
    char *text = arena_alloc(&arena, YAML_BYTES_MAX + 1);
    memset(text, '#', YAML_BYTES_MAX + 1);
    memcpy(text, "a: 1\n", 5);
    cr_assert_eq(parse_sv(sv_n(text, YAML_BYTES_MAX)), STATUS_OK, "%s", err.message);
    expect_refused(sv_n(text, YAML_BYTES_MAX + 1), "f.yaml: 1048577 bytes; at most 1048576 are read");
}

/* Shapes that make careless YAML readers quadratic: each must end, one way or the other, well within a
 * second. */
Test(yaml, hostile_shapes_of_a_mebibyte_end_quickly)
{
    static const char *const units[] = {"[",   "{",    "- ",    "? ",     "a: ",  "\"",    "'",
                                        "[a,", "{a: ", "\n",    "- - - ", "!a ",  "&a ",   "*a ",
                                        "|\n", ">\n ", "#",     "a: [\n", ",",    "? a\n", "\\\"",
                                        "%a ", "--- ", "...\n", "- 'a\n", "a\n ", "[]: "};
    char *text = arena_alloc(&arena, YAML_BYTES_MAX);
    for (size_t u = 0; u < sizeof(units) / sizeof(units[0]); u++) {
        size_t len = strlen(units[u]);
        for (size_t i = 0; i < YAML_BYTES_MAX; i++)
            text[i] = units[u][i % len];
        int64_t start_ns = clock_monotonic_ns();
        enum status s = parse_sv(sv_n(text, YAML_BYTES_MAX));
        int64_t took_ms = (clock_monotonic_ns() - start_ns) / NS_PER_MS;
        cr_assert(s == STATUS_OK || s == STATUS_INVALID_ARGUMENT, "%s: %s", units[u], err.message);
        cr_assert_lt(took_ms, 3000, "'%s' repeated took %d ms", units[u], (int)took_ms);
        arena_reset(&arena);
        text = arena_alloc(&arena, YAML_BYTES_MAX);
    }
}

Test(yaml, many_keys_of_one_map_are_checked_quickly)
{
    struct buf b;
    buf_init(&b, YAML_BYTES_MAX);
    for (unsigned i = 0; i < YAML_NODES_MAX / 2 - 2; i++)
        buf_printf(&b, "key-%06u: 1\n", 77777 - i);
    int64_t start_ns = clock_monotonic_ns();
    cr_assert_eq(parse_sv(buf_view(&b)), STATUS_OK, "%s", err.message);
    cr_assert_lt((clock_monotonic_ns() - start_ns) / NS_PER_MS, 2000);
    buf_append(&b, SV("key-077777: 2\n"));
    expect_refused(buf_view(&b), "f.yaml:49999:1: key 'key-077777' is given twice (first in line 1)");
    buf_release(&b);
}

Test(yaml, messages_quote_a_files_text_short_and_harmless)
{
    expect_refused(SV("\"\\e[2J\": 1\n\"\\e[2J\": 2\n"), "key '?[2J' is given twice");
    expect_refused(SV("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxäyyyy: 1\n"
                      "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxäyyyy: 2\n"),
                   "xxxx...' is given twice");
}

Test(yaml, scalars_become_json_by_the_core_schema_without_guessing)
{
    cr_assert_eq(
        parse(
            "{i: 42, m: -7, z: 0, t: true, f: False, n: null, e: , tilde: ~, s: text, q: \"42\", qt: 'true',\n"
            " octal: 010, plus: +1, hex: 0x10, float: 1.5, yes: yes, off: off, big: 9223372036854775808,\n"
            " mz: -0, date: 2026-11-22, l: [1, {a: b}], u: \"\\u00e4\"}"),
        STATUS_OK, "%s", err.message);
    cr_assert_str_eq(
        json_of(doc.root),
        "{\"big\":\"9223372036854775808\",\"date\":\"2026-11-22\",\"e\":null,\"f\":false,\"float\":\"1.5\","
        "\"hex\":\"0x10\",\"i\":42,\"l\":[1,{\"a\":\"b\"}],\"m\":-7,\"mz\":\"-0\",\"n\":null,\"octal\":\"010\","
        "\"off\":\"off\",\"plus\":\"+1\",\"q\":\"42\",\"qt\":\"true\",\"s\":\"text\",\"t\":true,\"tilde\":null,"
        "\"u\":\"\xc3\xa4\",\"yes\":\"yes\",\"z\":0}");
}

Test(yaml, read_names_the_path)
{
    const char *folder = getenv("TMPDIR");
    char *path =
        arena_cstr(&arena, arena_printf(&arena, "%s/balm-yaml-XXXXXX", folder != NULL ? folder : "/tmp"));
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, "a: [\n", 5), 5);
    (void)close(fd);
    cr_assert_eq(yaml_read(&arena, path, &doc, &err), STATUS_INVALID_ARGUMENT);
    cr_assert(sv_starts_with(sv(err.message), sv(path)), "%s", err.message);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(yaml_read(&arena, path, &doc, &err), STATUS_NOT_FOUND);
}

Test(yaml, error_of_a_node_names_file_line_and_column)
{
    cr_assert_eq(parse("a: 1\nb:   2\n"), STATUS_OK);
    cr_assert_eq(yaml_error(&doc, yaml_get(doc.root, SV("b")), &err, "%d is too much", 2),
                 STATUS_INVALID_ARGUMENT);
    cr_assert_str_eq(err.message, "f.yaml:2:6: 2 is too much");
    cr_assert_eq(yaml_error(&doc, NULL, NULL, "no one listens"), STATUS_INVALID_ARGUMENT);
}

static void count_fault(void *arg, const struct error *fault)
{
    (void)fault;
    ++*(int *)arg;
}

Test(yaml, a_place_is_named_by_its_path)
{
    static const char text[] = "- {a: b}\n- steps:\n    - bot: x\n      with: {root: /x}\n  'odd key': 1\n";
    struct arena a = {0};
    cr_assert_eq(yaml_parse(&a, "f", sv(text), &doc, NULL), STATUS_OK);
    cr_expect_str_eq(yaml_path_at(&doc, 1, 1, false, &a), "");
    cr_expect_str_eq(yaml_path_at(&doc, 1, 3, false, &a), "[0]");
    cr_expect_str_eq(yaml_path_at(&doc, 1, 4, true, &a), "[0].a");
    cr_expect_str_eq(yaml_path_at(&doc, 3, 7, false, &a), "[1].steps[0]");
    cr_expect_str_eq(yaml_path_at(&doc, 3, 7, true, &a), "[1].steps[0].bot");
    cr_expect_str_eq(yaml_path_at(&doc, 4, 20, false, &a), "[1].steps[0].with.root");
    cr_expect_str_eq(yaml_path_at(&doc, 5, 3, true, &a), "[1].odd key");
    cr_expect_null(yaml_path_at(&doc, 9, 9, false, &a));
    arena_release(&a);
}

Test(yaml, all_faults_are_told_to_who_asks_and_the_rest_is_decoded)
{
    struct {
        struct strview text;
        int64_t number, other;
    } into = {0};
    static const struct yaml_field fields[] = {
        {.name = "text", .type = YAML_FIELD_TEXT, .offset = 0, .is_required = true},
        {.name = "number", .type = YAML_FIELD_INT, .offset = sizeof(struct strview), .min = 1, .max = 5},
        {.name = "other", .type = YAML_FIELD_INT, .offset = sizeof(struct strview) + sizeof(int64_t)},
    };
    struct arena a = {0};
    int n = 0;
    cr_assert_eq(yaml_parse(&a, "f", SV("numbr: 1\nnumber: 9\nother: 7\n"), &doc, NULL), STATUS_OK);
    cr_expect_eq(yaml_decode(&doc, doc.root, "it", fields, 3, &a, &into, &err), STATUS_INVALID_ARGUMENT);
    cr_expect_eq(into.other, 0, "the first one ends it");
    doc.on_fault = count_fault;
    doc.fault_arg = &n;
    cr_expect_eq(yaml_decode(&doc, doc.root, "it", fields, 3, &a, &into, NULL), STATUS_INVALID_ARGUMENT);
    cr_expect_eq(n, 3, "unknown, out of range, missing");
    cr_expect_eq(into.other, 7);
    arena_release(&a);
}
