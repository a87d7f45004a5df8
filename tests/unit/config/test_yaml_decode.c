#include <criterion/criterion.h>

#include "base/clock.h"
#include "base/list.h"
#include "config/bytes.h"
#include "config/yaml.h"

enum mode { MODE_OFF, MODE_SHADOW, MODE_ACT };
static const char *const mode_names[] = {"off", "shadow", "act", NULL};

struct guardrails {
    struct strview name;
    int64_t rate, cooldown_ns, limit_bytes;
    bool is_fast;
    int mode;
    const struct yaml_node *steps;
    struct yaml_text_list match;
};

static const struct yaml_field fields[] = {
    {.name = "name",
     .type = YAML_FIELD_TEXT,
     .offset = offsetof(struct guardrails, name),
     .is_required = true,
     .min = 1,
     .max = 8},
    {.name = "rate",
     .type = YAML_FIELD_INT,
     .offset = offsetof(struct guardrails, rate),
     .min = 1,
     .max = 100},
    {.name = "cooldown",
     .type = YAML_FIELD_DURATION,
     .offset = offsetof(struct guardrails, cooldown_ns),
     .min = NS_PER_S,
     .max = 3600 * NS_PER_S},
    {.name = "limit",
     .type = YAML_FIELD_BYTES,
     .offset = offsetof(struct guardrails, limit_bytes),
     .min = 0,
     .max = 1 << 20},
    {.name = "fast", .type = YAML_FIELD_BOOL, .offset = offsetof(struct guardrails, is_fast)},
    {.name = "mode",
     .type = YAML_FIELD_ENUM,
     .offset = offsetof(struct guardrails, mode),
     .names = mode_names},
    {.name = "steps", .type = YAML_FIELD_NODE, .offset = offsetof(struct guardrails, steps)},
    {.name = "match", .type = YAML_FIELD_TEXT_LIST, .offset = offsetof(struct guardrails, match)},
};

static struct arena arena;
static struct yaml_document doc;
static struct guardrails got;
static struct error err;

static void tear_down(void)
{
    arena_release(&arena);
}

TestSuite(yaml_decode, .fini = tear_down);

static enum status decode(const char *text)
{
    err = (struct error){0};
    got = (struct guardrails){.rate = 5, .mode = MODE_SHADOW};
    cr_assert_eq(yaml_parse(&arena, "runbooks/nginx.yaml", sv(text), &doc, &err), STATUS_OK, "%s",
                 err.message);
    return yaml_decode(&doc, doc.root, "guardrails", fields, ARRAY_LEN(fields), &arena, &got, &err);
}

static void expect_message(const char *text, const char *message)
{
    cr_assert_eq(decode(text), STATUS_INVALID_ARGUMENT, "%s", text);
    cr_assert_str_eq(err.message, message);
}

Test(yaml_decode, fills_every_type)
{
    cr_assert_eq(
        decode(
            "name: web\nrate: 7\ncooldown: 1m30s\nlimit: 64KiB\nfast: true\nmode: act\nsteps: [1]\nmatch: [a, 'b']\n"),
        STATUS_OK, "%s", err.message);
    cr_assert(sv_eq(got.name, SV("web")));
    cr_assert_eq(got.rate, 7);
    cr_assert_eq(got.cooldown_ns, 90 * NS_PER_S);
    cr_assert_eq(got.limit_bytes, 65536);
    cr_assert(got.is_fast);
    cr_assert_eq(got.mode, MODE_ACT);
    cr_assert_eq(got.steps->type, YAML_LIST);
    cr_assert_eq(got.match.n, 2);
    cr_assert(sv_eq(got.match.items[1], SV("b")));
}

Test(yaml_decode, absent_fields_keep_their_defaults)
{
    cr_assert_eq(decode("name: web\n"), STATUS_OK);
    cr_assert_eq(got.rate, 5);
    cr_assert_eq(got.mode, MODE_SHADOW);
    cr_assert_eq(got.match.n, 0);
}

Test(yaml_decode, unknown_field_names_the_nearest_known_one)
{
    expect_message(
        "name: web\n\n\n\n\n\ncooldwn: 5s\n",
        "runbooks/nginx.yaml:7:1: unknown field 'cooldwn' in guardrails (did you mean 'cooldown'?)");
    expect_message("{name: web, zzzzzzzz: 1}",
                   "runbooks/nginx.yaml:1:13: unknown field 'zzzzzzzz' in guardrails");
}

Test(yaml_decode, missing_field_is_named_at_its_map)
{
    expect_message("rate: 7\n", "runbooks/nginx.yaml:1:1: name is missing in guardrails");
}

Test(yaml_decode, values_of_the_wrong_type_are_shown)
{
    expect_message("rate: many\n",
                   "runbooks/nginx.yaml:1:7: rate in guardrails must be a whole number, not 'many'");
    expect_message(
        "rate: '7'\n",
        "runbooks/nginx.yaml:1:7: rate in guardrails must be a whole number, not the quoted text '7'");
    expect_message("rate: 007\n",
                   "runbooks/nginx.yaml:1:7: rate in guardrails must be a whole number, not '007'");
    expect_message("rate: [7]\n",
                   "runbooks/nginx.yaml:1:7: rate in guardrails must be a whole number, not a list");
    expect_message("rate:\n",
                   "runbooks/nginx.yaml:1:6: rate in guardrails has no value; a whole number is expected");
    expect_message(
        "cooldown: soon\n",
        "runbooks/nginx.yaml:1:11: cooldown in guardrails must be a duration such as 30s or 5m, not 'soon'");
    expect_message(
        "limit: 5MB\n",
        "runbooks/nginx.yaml:1:8: limit in guardrails must be a size such as 64KiB or 8MiB, not '5MB'");
    expect_message("fast: yes\n",
                   "runbooks/nginx.yaml:1:7: fast in guardrails must be true or false, not 'yes'");
    expect_message("name: {a: b}\n", "runbooks/nginx.yaml:1:7: name in guardrails must be a text, not a map");
    expect_message("name: null\n",
                   "runbooks/nginx.yaml:1:7: name in guardrails has no value; a text is expected");
    expect_message("match: {a: b}\n",
                   "runbooks/nginx.yaml:1:8: match in guardrails must be a list of texts, not a map");
    expect_message("match: [a, [b]]\n",
                   "runbooks/nginx.yaml:1:12: match in guardrails: each entry must be a text");
    expect_message("mode: Act\n",
                   "runbooks/nginx.yaml:1:7: mode in guardrails: 'Act' is none of off, shadow, act");
    expect_message("[a]\n", "runbooks/nginx.yaml:1:1: guardrails must be a map, not a list");
    expect_message("a\n", "runbooks/nginx.yaml:1:1: guardrails must be a map, not a single value");
}

Test(yaml_decode, limits_hold_at_their_borders)
{
    cr_assert_eq(decode("{name: 12345678, rate: 1, cooldown: 1s, limit: 1MiB}"), STATUS_OK, "%s",
                 err.message);
    cr_assert_eq(decode("{name: a, rate: 100, cooldown: 1h, limit: 0}"), STATUS_OK, "%s", err.message);
    expect_message("name: 123456789\n",
                   "runbooks/nginx.yaml:1:7: name in guardrails: a length of 9 is out of range (1 to 8)");
    expect_message("name: ''\n",
                   "runbooks/nginx.yaml:1:7: name in guardrails: a length of 0 is out of range (1 to 8)");
    expect_message("rate: 0\n", "runbooks/nginx.yaml:1:7: rate in guardrails: 0 is out of range (1 to 100)");
    expect_message("rate: 101\n",
                   "runbooks/nginx.yaml:1:7: rate in guardrails: 101 is out of range (1 to 100)");
    expect_message("cooldown: 2h\n",
                   "runbooks/nginx.yaml:1:11: cooldown in guardrails: 2h is out of range (1s to 1h)");
    expect_message("limit: 2MiB\n",
                   "runbooks/nginx.yaml:1:8: limit in guardrails: 2MiB is out of range (0 to 1MiB)");
}

Test(yaml_decode, single_text_counts_as_a_list_of_one)
{
    cr_assert_eq(decode("{name: a, match: 'alertname=\"X\"'}"), STATUS_OK);
    cr_assert_eq(got.match.n, 1);
    cr_assert(sv_eq(got.match.items[0], SV("alertname=\"X\"")));
}

Test(bytes, parse_and_format_are_inverse_at_the_borders)
{
    static const struct {
        const char *text;
        int64_t bytes;
    } cases[] = {{"0", 0},
                 {"1", 1},
                 {"1023", 1023},
                 {"1KiB", 1024},
                 {"64KiB", 65536},
                 {"8MiB", 8 << 20},
                 {"3GiB", INT64_C(3) << 30},
                 {"2TiB", INT64_C(2) << 40},
                 {"9223372036854775807", INT64_MAX}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int64_t bytes = -1;
        char text[BYTES_TEXT_MAX];
        cr_assert_eq(bytes_parse(sv(cases[i].text), &bytes), STATUS_OK, "%s", cases[i].text);
        cr_assert_eq(bytes, cases[i].bytes);
        cr_assert_str_eq(bytes_format(bytes, text), cases[i].text);
    }
}

Test(bytes, everything_else_is_refused)
{
    static const char *const bad[] = {
        "", "KiB", "-1", "+1", "1.5GiB", "5MB", "5 MiB", "5mib", "1e3", "9223372036854775808", "8388608TiB"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        int64_t bytes = -1;
        cr_assert_eq(bytes_parse(sv(bad[i]), &bytes), STATUS_INVALID_ARGUMENT, "%s", bad[i]);
        cr_assert_eq(bytes, -1, "%s", bad[i]);
    }
}

Test(bytes, quantities_of_kubernetes_are_read)
{
    static const struct {
        const char *text;
        int64_t bytes;
    } cases[] = {{"0", 0},          {"4096", 4096},     {"128Mi", 128 << 20},      {"64M", 64000000},
                 {"64m", 64000000}, {"1Ki", 1024},      {"2Gi", INT64_C(2) << 30}, {"1K", 1000},
                 {"1k", 1000},      {"3G", 3000000000}, {"1Ti", INT64_C(1) << 40}, {"1T", 1000000000000}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int64_t bytes = -1;
        cr_assert_eq(bytes_parse_quantity(sv(cases[i].text), &bytes), STATUS_OK, "%s", cases[i].text);
        cr_assert_eq(bytes, cases[i].bytes, "%s", cases[i].text);
    }
    static const char *const bad[] = {"", "Mi", "-1Mi", "1.5Gi", "1 Mi", "1MiB", "1e3", "1E", "8388608Ti"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        int64_t bytes = -1;
        cr_assert_eq(bytes_parse_quantity(sv(bad[i]), &bytes), STATUS_INVALID_ARGUMENT, "%s", bad[i]);
        cr_assert_eq(bytes, -1, "%s", bad[i]);
    }
}
