#include "function/manifest.h"

#include <criterion/criterion.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/random.h"

static struct manifest m;
static struct error err;
static struct arena arena;

static void tear_down(void)
{
    manifest_release(&m);
    arena_release(&arena);
}

TestSuite(manifest, .fini = tear_down);

#define PLAIN "name: echo\nsummary: Answers what it got\nacts: false\n"
#define ACTING                                                                                               \
    "name: disk-clean\nsummary: Frees space\nacts: true\non_unknown: rerun\ntouches: {paths: [/var/tmp]}\nverify: statvfs\nundo: none\n"

static enum status parse(const char *text)
{
    manifest_release(&m);
    err = (struct error){0};
    return manifest_parse("bot.yaml", sv(text), &m, &err);
}

static void expect_message(const char *text, const char *message)
{
    cr_assert_eq(parse(text), STATUS_INVALID_ARGUMENT, "%s", text);
    cr_assert_str_eq(err.message, message);
}

static const char *json_at(const char *first, const char *second)
{
    json_t *value = json_object_get(m.json, first);
    if (second != NULL) value = json_object_get(value, second);
    cr_assert_not_null(value, "%s %s", first, second);
    return json_canonical(&arena, value).ptr;
}

Test(manifest, plain_function_gets_its_defaults)
{
    cr_assert_eq(parse(PLAIN), STATUS_OK, "%s", err.message);
    cr_assert(sv_eq(m.name, SV("echo")));
    cr_assert_not(m.acts);
    cr_assert_eq(m.auth, MANIFEST_AUTH_OPEN);
    cr_assert_eq(m.timeout_ns, 30 * NS_PER_S);
    cr_assert_eq(m.n_params, 0);
    cr_assert_str_eq(
        json_canonical(&arena, m.json).ptr,
        "{\"acts\":false,\"auth\":\"open\",\"destructive\":false,\"name\":\"echo\",\"params\":{},\"removes_series\":false,"
        "\"reply\":{\"$schema\":\"https://json-schema.org/draft/2020-12/schema\",\"additionalProperties\":false,"
        "\"properties\":{},\"type\":\"object\"},\"schema\":{\"$schema\":\"https://json-schema.org/draft/2020-12/schema\","
        "\"additionalProperties\":false,\"properties\":{},\"required\":[],\"type\":\"object\"},"
        "\"summary\":\"Answers what it got\",\"tells_people\":false,\"timeout\":\"30s\"}");
}

Test(manifest, acting_function_is_signed_and_complete)
{
    cr_assert_eq(
        parse(
            ACTING
            "destructive: true\nremoves_series: true\ntimeout: 90\nsecrets: [a-key]\nenvironment: {disk_clean_roots: what for}\n"),
        STATUS_OK, "%s", err.message);
    cr_assert(m.acts && m.is_destructive && m.removes_series);
    cr_assert_eq(m.on_unknown, ON_UNKNOWN_RERUN);
    cr_assert_eq(m.auth, MANIFEST_AUTH_SIGNED);
    cr_assert_str_eq(json_at("timeout", NULL), "\"1m30s\"", "the gateway reads it as a duration");
    cr_assert_str_eq(json_at("on_unknown", NULL), "\"rerun\"");
    cr_assert_str_eq(json_at("touches", NULL), "{\"paths\":[\"/var/tmp\"]}");
    cr_assert(sv_eq(m.environment[0].name, SV("disk_clean_roots")));
}

Test(manifest, what_holds_its_api_keys_is_one_of_its_secrets)
{
    cr_assert_eq(parse(PLAIN "auth: api-key\nsecrets: [word]\n"), STATUS_OK, "%s", err.message);
    cr_assert_eq(m.auth, MANIFEST_AUTH_API_KEY);
    cr_assert_str_eq(json_at("auth", NULL), "\"api-key\"");
    cr_assert_str_eq(json_at("secrets", NULL), "[\"word\",\"echo-api-key\"]");
    manifest_release(&m);
    cr_assert_eq(parse(PLAIN "secrets: [echo-api-key, word]\nauth: api-key\n"), STATUS_OK, "%s", err.message);
    cr_assert_str_eq(json_at("secrets", NULL), "[\"echo-api-key\",\"word\"]");
    expect_message(ACTING "auth: api-key\n", "bot.yaml:8:7: auth must be signed: disk-clean acts");
    expect_message(PLAIN "auth: apikey\n",
                   "bot.yaml:4:7: auth in bot.yaml: 'apikey' is none of open, signed, api-key");
}

Test(manifest, acting_function_without_its_promises_is_refused)
{
    expect_message("name: a\nsummary: s\nacts: true\n", "bot.yaml:1:1: on_unknown is missing: a acts");
    expect_message("name: a\nsummary: s\nacts: true\non_unknown: rerun\n",
                   "bot.yaml:1:1: touches is missing: a acts");
    expect_message("name: a\nsummary: s\nacts: true\non_unknown: rerun\ntouches: {a: [b]}\nverify: v\n",
                   "bot.yaml:1:1: undo is missing: a acts");
    expect_message(ACTING "auth: open\n", "bot.yaml:8:7: auth must be signed: disk-clean acts");
    expect_message(
        PLAIN "destructive: true\n",
        "bot.yaml:1:1: destructive, removes_series, tells_people and on_unknown are for functions that act");
    expect_message(PLAIN "auth: signed\n",
                   "bot.yaml:4:7: auth: only invocations of functions that act are signed");
}

Test(manifest, rights_over_files_are_for_a_variable_that_is_told_of)
{
    expect_message(PLAIN "environment: {roots: x}\nremoves_below: roots\n",
                   "bot.yaml:5:16: removes_below: what removes files is destructive");
    expect_message(ACTING "destructive: true\nenvironment: {root: x}\nremoves_below: roots\n",
                   "bot.yaml:10:16: removes_below: 'roots' is no variable of environment");
    cr_assert_eq(parse(ACTING "destructive: true\nenvironment: {roots: x}\nremoves_below: roots\n"),
                 STATUS_OK, "%s", err.message);
    cr_assert_str_eq(json_at("removes_below", NULL), "\"roots\"");
}

Test(manifest, bad_fields_are_named_where_they_stand)
{
    expect_message(PLAIN "timeuot: 5s\n",
                   "bot.yaml:4:1: unknown field 'timeuot' in bot.yaml (did you mean 'timeout'?)");
    expect_message("summary: s\nacts: false\n", "bot.yaml:1:1: name is missing in bot.yaml");
    expect_message(
        "name: Echo\nsummary: s\nacts: false\n",
        "bot.yaml:1:7: name has lower-case letters, digits and '-', starts with a letter and does not end in '-'");
    expect_message(
        "name: 7up\nsummary: s\nacts: false\n",
        "bot.yaml:1:7: name has lower-case letters, digits and '-', starts with a letter and does not end in '-'");
    expect_message(
        "name: a.b\nsummary: s\nacts: false\n",
        "bot.yaml:1:7: name has lower-case letters, digits and '-', starts with a letter and does not end in '-'");
    expect_message("name: a\nsummary: \"two\\nlines\"\nacts: false\n",
                   "bot.yaml:2:10: summary must be one line");
    expect_message(PLAIN "timeout: 2h\n",
                   "bot.yaml:4:10: timeout in bot.yaml: 2h is out of range (1s to 1h)");
    expect_message(PLAIN "touches: [a]\n", "bot.yaml:4:10: touches must be a map of lists");
    expect_message(PLAIN "touches: {paths: []}\n", "bot.yaml:4:18: touches: paths must be a list of texts");
    expect_message(PLAIN "touches: {paths: [{}]}\n",
                   "bot.yaml:4:19: touches: each entry of paths must be one line of text");
    expect_message(PLAIN "secrets: [../../etc]\n",
                   "bot.yaml:4:10: secrets: names have lower-case letters, digits, '-' and '.'");
    expect_message(
        PLAIN "environment: {'a b': x}\n",
        "bot.yaml:4:22: environment: a variable's name and one line that says what it is for are expected");
    expect_message(PLAIN "detail: {x: {type: bytes}}\n",
                   "bot.yaml:4:13: detail: a reply has text, integer, boolean or text-list, not bytes");
    expect_message(
        PLAIN "detail: {x: {type: number}}\n",
        "bot.yaml:4:20: type in detail: 'number' is none of text, integer, boolean, duration, bytes, text-list");
}

Test(manifest, params_keep_order_types_limits_and_defaults)
{
    cr_assert_eq(parse(PLAIN "params:\n"
                             "  unit: {type: text, required: true, pattern: unit, min: 1, max: 9}\n"
                             "  n: {min: -3, max: 7, type: integer, default: 5}\n" /* type after the limits */
                             "  dry_run: {type: boolean, default: true}\n"
                             "  age: {type: duration, default: 24h, min: 1m, max: 8760h}\n"
                             "  size: {type: bytes, default: 64MiB, min: 1KiB}\n"
                             "  roots: {type: text-list, default: [/a, /b], pattern: path-absolute}\n"
                             "  wait: {type: duration, min: 300ms, max: 2500ms}\n"
                             "  how: {type: text, enum: [soft, hard], default: soft, example: hard}\n"),
                 STATUS_OK, "%s", err.message);
    cr_assert_eq(m.n_params, 8);
    cr_assert(m.params[0].is_required);
    cr_assert_eq(m.params[0].pattern, PARAM_UNIT);
    cr_assert_eq(m.params[0].max, 9);
    cr_assert_eq(m.params[1].default_number, 5);
    cr_assert_eq(m.params[1].min, -3);
    cr_assert(m.params[2].default_boolean);
    cr_assert_eq(m.params[3].default_number, 24 * 3600 * NS_PER_S);
    cr_assert_eq(m.params[3].max, 8760 * 3600 * NS_PER_S);
    cr_assert_eq(m.params[4].default_number, 64 << 20);
    cr_assert_eq(m.params[4].min, 1024);
    cr_assert_eq(m.params[4].max, INT64_MAX);
    cr_assert_eq(m.params[5].default_list.n, 2);
    cr_assert(sv_eq(m.params[7].default_text, SV("soft")));
    cr_assert(sv_eq(manifest_member(&arena, &m.params[3]), SV("age_ns")));
    cr_assert(sv_eq(manifest_member(&arena, &m.params[4]), SV("size_bytes")));
    cr_assert_str_eq(json_at("schema", "required"), "[\"unit\"]");
    json_t *properties = json_object_get(json_object_get(m.json, "schema"), "properties");
    cr_assert_eq(json_integer_value(json_object_get(json_object_get(properties, "age"), "maximum")),
                 8760 * 3600);
    cr_assert_eq(json_integer_value(json_object_get(json_object_get(properties, "size"), "maximum")),
                 INT64_MAX);
    cr_assert_eq(json_integer_value(json_object_get(json_object_get(properties, "n"), "minimum")), -3);
    cr_assert_eq(json_integer_value(json_object_get(json_object_get(properties, "wait"), "minimum")),
                 1); /* of 0.3 s */
    cr_assert_eq(json_integer_value(json_object_get(json_object_get(properties, "wait"), "maximum")), 2);
    cr_assert_str_eq(
        json_canonical(&arena, json_object_get(properties, "how")).ptr,
        "{\"default\":\"soft\",\"enum\":[\"soft\",\"hard\"],\"examples\":[\"hard\"],\"maxLength\":1024,\"type\":\"string\"}");
}

/* ---- the schema and the decoder ---- */

/* As ECMA 262 has it: \uXXXX, and '$' only at the very end. */
static pcre2_code *compile(struct strview pattern)
{
    int code;
    PCRE2_SIZE at;
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)pattern.ptr, pattern.len,
                                   PCRE2_UTF | PCRE2_ALT_BSUX | PCRE2_DOLLAR_ENDONLY, &code, &at, NULL);
    cr_assert_not_null(re, "%.*s", SV_ARG(pattern));
    return re;
}

static bool is_allowed(const pcre2_code *re, const json_t *schema, struct strview text)
{
    pcre2_match_data *match = pcre2_match_data_create_from_pattern(re, NULL);
    int rc = pcre2_match(re, (PCRE2_SPTR)text.ptr, text.len, 0, 0, match, NULL);
    pcre2_match_data_free(match);
    json_int_t max = json_integer_value(json_object_get(schema, "maxLength"));
    return rc >= 0 && (max == 0 || text.len <= (size_t)max);
}

static bool is_taken(struct strview text)
{
    json_t *value = json_stringn(text.ptr, text.len);
    enum status s = manifest_check_value(&m, "p", value, NULL);
    json_release(value);
    return s == STATUS_OK;
}

static struct strview random_text(struct random_seeded *random, const char *const *parts, size_t n_parts,
                                  char *text)
{
    size_t len = 0, n = random_seeded_below(random, 7);
    for (size_t i = 0; i < n; i++) {
        const char *part = parts[random_seeded_below(random, n_parts)];
        memcpy(text + len, part, strlen(part));
        len += strlen(part);
    }
    return sv_n(text, len);
}

static void compare(const char *type, const char *const *parts, size_t n_parts)
{
    cr_assert_eq(parse(arena_printf(&arena, "%sparams:\n  p: {type: %s}\n", PLAIN, type).ptr), STATUS_OK);
    const json_t *schema =
        json_object_get(json_object_get(json_object_get(m.json, "schema"), "properties"), "p");
    pcre2_code *re = compile(json_get_text(schema, "pattern"));
    struct random_seeded random = {.state = 1};
    for (int i = 0; i < 20000; i++) {
        char text[512];
        struct strview s = random_text(&random, parts, n_parts, text);
        cr_assert_eq(is_allowed(re, schema, s), is_taken(s), "%s: '%.*s'", type, SV_ARG(s));
    }
    static char longest[257];
    memset(longest, 'a', sizeof(longest));
    for (size_t len = 252; len < sizeof(longest) && sv_starts_with(sv(type), SV("text")); len++)
        cr_assert_eq(is_allowed(re, schema, sv_n(longest, len)), is_taken(sv_n(longest, len)), "%s: %zu",
                     type, len);
    pcre2_code_free(re);
}

Test(manifest, a_pattern_of_the_schema_takes_what_the_decoder_takes)
{
    static const char *const texts[] = {
        "a", "Z", "9",       "-",        ".", "..", "/",  "//",   ":",    "@",        "_", "\\", "\n",
        " ", "~", "http://", "https://", "?", "#",  "\"", "\x7f", "\x1f", "\xc3\xa4", "!", "=",  ">"};
    static const char *const types[] = {"text",
                                        "text, pattern: line",
                                        "text, pattern: name",
                                        "text, pattern: unit",
                                        "text, pattern: path-absolute",
                                        "text, pattern: url"};
    static const char *const numbers[] = {"0",   "9",   "12", "-",  "+",         ".",         "s", "ms",
                                          "h",   "m",   "us", "ns", "\xc2\xb5s", "\xce\xbcs", "d", "KiB",
                                          "MiB", "TiB", "KB", "B",  "k",         " ",         "\n"};
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        compare(types[i], texts, ARRAY_LEN(texts));
    compare("duration", numbers, ARRAY_LEN(numbers));
    compare("bytes", numbers, ARRAY_LEN(numbers));
    compare("integer", numbers, ARRAY_LEN(numbers));
}

static void expect_param_message(const char *param, const char *message)
{
    expect_message(arena_printf(&arena, "%sparams:\n  p: %s\n", PLAIN, param).ptr, message);
}

Test(manifest, defaults_and_examples_that_the_bot_would_refuse_are_refused)
{
    expect_param_message(
        "{type: integer, default: 9, max: 5}",
        "bot.yaml:5:31: parameter p: parameter 'p': 9 is out of range (-9223372036854775808 to 5)");
    expect_param_message("{type: text, pattern: unit, example: -x}",
                         "bot.yaml:5:43: parameter p: parameter 'p': '-x' is not a service's name");
    expect_param_message(
        "{type: duration, default: soon}",
        "bot.yaml:5:32: parameter p: parameter 'p' must be a duration such as 30s or 5m, not 'soon'");
    expect_param_message("{type: text, enum: [a, b], default: c}",
                         "bot.yaml:5:42: parameter p: parameter 'p': 'c' is none of a, b");
}

Test(manifest, contradictions_in_a_parameter_are_refused)
{
    expect_param_message("{}", "bot.yaml:5:6: type is missing in parameter p");
    expect_param_message(
        "{type: number}",
        "bot.yaml:5:13: type in parameter p: 'number' is none of text, integer, boolean, duration, bytes, text-list");
    expect_param_message("{type: text, requird: true}",
                         "bot.yaml:5:19: unknown field 'requird' in parameter p (did you mean 'required'?)");
    expect_param_message("{type: text, required: true, default: a}",
                         "bot.yaml:5:6: parameter p: a required parameter has no default");
    expect_param_message("{type: integer, min: 5, max: 4}",
                         "bot.yaml:5:6: parameter p: min is greater than max");
    expect_param_message(
        "{type: duration, min: never}",
        "bot.yaml:5:28: min in parameter p must be a duration such as 30s or 5m, not 'never'");
    expect_param_message("{type: integer, pattern: unit}",
                         "bot.yaml:5:6: parameter p: pattern and enum are for texts, not for integer");
    expect_param_message("{type: boolean, max: 1}",
                         "bot.yaml:5:6: parameter p: a boolean has neither min nor max");
    expect_param_message("{type: text, max: 65537}",
                         "bot.yaml:5:6: parameter p: min and max must be in 0 to 65536");
}

Test(manifest, names_that_c_or_another_member_has_are_refused)
{
    expect_message(
        PLAIN "params: {int: {type: text}}\n",
        "bot.yaml:4:15: parameter int: a name has lower-case letters, digits and '_' (at most 40), and is no word of C");
    expect_message(
        PLAIN "params: {Unit: {type: text}}\n",
        "bot.yaml:4:16: parameter Unit: a name has lower-case letters, digits and '_' (at most 40), and is no word of C");
    expect_message(PLAIN "params: {age_ns: {type: integer}, age: {type: duration}}\n",
                   "bot.yaml:4:40: parameters age_ns and age would be one member, age_ns");
}

Test(manifest, identifier_is_the_name_as_c_takes_it)
{
    cr_assert(sv_eq(manifest_identifier(&arena, SV("service-restart")), SV("service_restart")));
}

/* ---- values, before the function is asked ---- */

static void expect_value(const struct manifest *of, const char *name, json_t *value, const char *message)
{
    enum status s = manifest_check_value(of, name, value, &err);
    json_decref(value);
    if (message == NULL) {
        cr_assert_eq(s, STATUS_OK, "%s: %s", name, err.message);
    } else {
        cr_assert_eq(s, STATUS_INVALID_ARGUMENT, "%s", name);
        cr_assert_str_eq(err.message, message);
    }
}

Test(manifest, what_describe_says_judges_values_as_the_bot_does)
{
    struct manifest again;
    cr_assert_eq(parse(PLAIN "params:\n"
                             "  age: {type: duration, min: 1m, max: 2h, default: 5m}\n"
                             "  size: {type: bytes, max: 1MiB}\n"
                             "  n: {type: integer, min: -1, max: 10}\n"
                             "  kind: {type: text, enum: [a, \"b \\\" c\"]}\n"
                             "  unit: {type: text, pattern: unit, min: 1, required: true}\n"
                             "  roots: {type: text-list, pattern: path-absolute, max: 2, default: [/]}\n"
                             "  dry: {type: boolean}\n"),
                 STATUS_OK, "%s", err.message);
    cr_assert_eq(manifest_params_parse(m.json, &again, &err), STATUS_OK, "%s", err.message);
    expect_value(&again, "age", json_string("1m"), NULL);
    expect_value(&again, "age", json_integer(7200), NULL);
    expect_value(&again, "age", json_string("59s"), "parameter 'age': 59s is out of range (1m to 2h)");
    expect_value(&again, "age", json_integer(7201), "parameter 'age': 2h1s is out of range (1m to 2h)");
    expect_value(&again, "size", json_string("2MiB"), "parameter 'size': 2MiB is out of range (0 to 1MiB)");
    expect_value(&again, "n", json_string("-1"), NULL);
    expect_value(&again, "n", json_integer(11), "parameter 'n': 11 is out of range (-1 to 10)");
    expect_value(&again, "n", json_string("x"), "parameter 'n' must be a whole number, not 'x'");
    expect_value(&again, "kind", json_string("b \" c"), NULL);
    expect_value(&again, "kind", json_string("c"), "parameter 'kind': 'c' is none of a, b \" c");
    expect_value(&again, "unit", json_string(""),
                 "parameter 'unit': a length of 0 is out of range (1 to 1024)");
    expect_value(&again, "unit", json_string("-x"), "parameter 'unit': '-x' is not a service's name");
    expect_value(&again, "roots", json_pack("[s,s]", "/a", "b"),
                 "parameter 'roots': 'b' is not an absolute path without empty, '.' or '..' parts");
    expect_value(&again, "dry", json_string("maybe"), "parameter 'dry' must be true or false, not 'maybe'");
    expect_value(&again, "unknown", json_null(), NULL);
    manifest_release(&again);
}

Test(manifest, a_foreign_manifest_judges_nothing)
{
    static const struct {
        const char *json;
        enum status status;
    } cases[] = {{"{}", STATUS_NOT_FOUND},
                 {"{\"params\":[1]}", STATUS_NOT_FOUND},
                 {"{\"params\":{\"a\":{\"type\":\"string\"}}}", STATUS_INVALID_ARGUMENT},
                 {"{\"params\":{\"a\":1}}", STATUS_INVALID_ARGUMENT}};
    for (size_t i = 0; i < 4; i++) {
        struct manifest none;
        json_t *json = json_loads(cases[i].json, 0, NULL);
        cr_assert_eq(manifest_params_parse(json, &none, &err), cases[i].status, "case %zu: %s", i,
                     err.message);
        json_decref(json);
    }
}

static enum status complete(const char *body, json_t **ret_complete)
{
    json_t *json = NULL;
    cr_assert_eq(json_parse(sv(body), 0, &json, &err), STATUS_OK);
    enum status s = manifest_complete(&m, "fixer", json, ret_complete, &err);
    json_release(json);
    return s;
}

Test(manifest, an_invocation_s_parameters_are_checked_and_completed)
{
    json_t *all = NULL;
    cr_assert_eq(parse(PLAIN "params:\n"
                             "  host: {type: text, required: true}\n"
                             "  times: {type: integer, default: 3, max: 9}\n"
                             "  hard: {type: boolean}\n"
                             "  wait: {type: duration, default: 90s}\n"
                             "  size: {type: bytes, default: 1KiB}\n"
                             "  more: {type: text-list, default: [a, b]}\n"),
                 STATUS_OK, "%s", err.message);
    cr_assert_eq(complete("{\"host\":\"h\",\"times\":\"4\",\"hard\":\"true\"}", &all), STATUS_OK, "%s",
                 err.message);
    struct strview text = json_canonical(&arena, all);
    json_release(all);
    cr_expect(
        sv_eq(
            text,
            SV("{\"hard\":true,\"host\":\"h\",\"more\":[\"a\",\"b\"],\"size\":1024,\"times\":4,\"wait\":\"1m30s\"}")),
        "%.*s", SV_ARG(text));
    cr_expect_eq(complete("{}", &all), STATUS_INVALID_ARGUMENT);
    cr_expect_str_eq(err.message, "parameter 'host' of fixer is missing");
    cr_expect_eq(complete("{\"host\":\"h\",\"times\":10}", &all), STATUS_INVALID_ARGUMENT);
    cr_expect_eq(complete("{\"host\":\"h\",\"tims\":1}", &all), STATUS_INVALID_ARGUMENT);
    cr_expect_eq(complete("[]", &all), STATUS_INVALID_ARGUMENT);
}
