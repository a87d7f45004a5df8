#include "base/json_scan.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/list.h"
#include "base/random.h"

static struct arena arena;
static struct json_scan s;

static void tear_down(void)
{
    arena_release(&arena);
}

TestSuite(json_scan, .fini = tear_down);

static void begin(const char *text)
{
    json_scan_init(&s, sv(text), &arena);
}

Test(json_scan, walks_objects_and_arrays)
{
    begin(" {\"a\" : [1, -20 ,3], \"b\":{}, \"c\":[ ], \"d\":true,\"e\":\"x\"} ");
    bool is_first = true, is_first_element = true, flag = false;
    struct strview name, digits, text;
    static const char *const numbers[] = {"1", "-20", "3"};
    unsigned n = 0;
    cr_assert(json_scan_open(&s, '{'));
    cr_assert(json_scan_member(&s, &is_first, &name) && sv_eq(name, SV("a")));
    cr_assert(json_scan_open(&s, '['));
    while (json_scan_element(&s, &is_first_element))
        cr_assert(json_scan_integer(&s, &digits) && sv_eq(digits, sv(numbers[n++])));
    cr_assert_eq(n, 3);
    cr_assert(json_scan_member(&s, &is_first, &name) && json_scan_open(&s, '{'));
    is_first_element = true;
    cr_assert_not(json_scan_member(&s, &is_first_element, &name));
    cr_assert(json_scan_member(&s, &is_first, &name) && json_scan_open(&s, '['));
    is_first_element = true;
    cr_assert_not(json_scan_element(&s, &is_first_element));
    cr_assert(json_scan_member(&s, &is_first, &name) && json_scan_bool(&s, &flag) && flag);
    cr_assert(json_scan_member(&s, &is_first, &name) && json_scan_string(&s, &text) && sv_eq(text, SV("x")));
    cr_assert_not(json_scan_member(&s, &is_first, &name));
    cr_assert(json_scan_end(&s));
}

Test(json_scan, value_gives_its_bytes_as_they_are)
{
    static const char *const values[] = {
        "{\"b\" : [1,{ }],\"a\":\"\\u0041\"}", "[]", "\"x\\n\"", "-0.5e+3", "null", "[[[1]]]"};
    for (size_t i = 0; i < ARRAY_LEN(values); i++) {
        struct strview raw;
        begin(arena_printf(&arena, "  %s  ", values[i]).ptr);
        cr_assert(json_scan_value(&s, &raw) && json_scan_end(&s), "%s", s.problem);
        cr_assert(sv_eq(raw, sv(values[i])));
    }
}

Test(json_scan, first_problem_stays)
{
    begin("{\"a\":tru}");
    bool is_first = true, flag = true;
    struct strview name;
    cr_assert(json_scan_open(&s, '{') && json_scan_member(&s, &is_first, &name));
    cr_assert_not(json_scan_bool(&s, &flag));
    cr_assert_str_eq(s.problem, "true or false is expected");
    cr_assert_not(json_scan_open(&s, '{') || json_scan_value(&s, NULL) || json_scan_string(&s, &name) ||
                  json_scan_integer(&s, &name) || json_scan_member(&s, &is_first, &name) ||
                  json_scan_element(&s, &is_first) || json_scan_end(&s));
    cr_assert_not(json_scan_fail(&s, "another"));
    cr_assert_str_eq(s.problem, "true or false is expected");
    cr_assert(json_scan_failed(&s));
    size_t line, column;
    json_scan_position(&s, s.at, &line, &column);
    cr_assert(line == 1 && column == 6);
}

Test(json_scan, position_counts_characters)
{
    begin("[\n \"\xC3\xA4\xF0\x9F\x98\x80\", x]");
    cr_assert_not(json_scan_value(&s, NULL));
    size_t line, column;
    json_scan_position(&s, s.at, &line, &column);
    cr_assert_eq(line, 2);
    cr_assert_eq(column, 8);
}

Test(json_scan, integer_is_no_real)
{
    static const char *const bad[] = {"1.0", "1e3", "01", "-", "+1", "", "\"1\"", "-01", "1E0"};
    struct strview digits;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        begin(bad[i]);
        cr_assert_not(json_scan_integer(&s, &digits) && json_scan_end(&s), "%s", bad[i]);
    }
}

Test(json_scan, depth_is_counted_across_calls)
{
    struct buf text;
    for (unsigned levels = JSON_DEPTH_MAX; levels <= JSON_DEPTH_MAX + 1; levels++) {
        buf_init(&text, 4096);
        for (unsigned i = 0; i < levels; i++)
            buf_append(&text, i % 2 ? SV("{\"a\":") : SV("["));
        buf_append(&text, SV("1"));
        for (unsigned i = levels; i-- > 0;)
            buf_append_char(&text, i % 2 ? '}' : ']');
        json_scan_init(&s, buf_view(&text), &arena);
        bool is_first = true, is_fine = levels <= JSON_DEPTH_MAX;
        /* One level by hand, the rest by value. */
        cr_assert(json_scan_open(&s, '[') && json_scan_element(&s, &is_first));
        cr_assert_eq(json_scan_value(&s, NULL), is_fine);
        if (is_fine) {
            cr_assert(!json_scan_element(&s, &is_first) && json_scan_end(&s));
            cr_assert_eq(s.depth, 0);
        } else {
            cr_assert_str_eq(s.problem, "nested too deep");
        }
        buf_release(&text);
    }
}

/* ---- jansson as the judge ---- */

static void build(struct random_seeded *rng, struct buf *b, unsigned depth)
{
    static const char *const scalars[] = {"0",
                                          "-1",
                                          "12.5e-3",
                                          "true",
                                          "false",
                                          "null",
                                          "\"\"",
                                          "\"a\\n\\u00e4\"",
                                          "\"\xE2\x82\xAC\"",
                                          "\"\\ud83d\\ude00\""};
    uint64_t pick = random_seeded_below(rng, depth > 6 ? 3 : 6);
    if (pick < 3) {
        buf_append(b, sv(scalars[random_seeded_below(rng, ARRAY_LEN(scalars))]));
        return;
    }
    bool is_object = pick == 3;
    buf_append_char(b, is_object ? '{' : '[');
    for (uint64_t i = 0, n = random_seeded_below(rng, 4); i < n; i++) {
        if (i > 0) buf_append(b, SV(" ,\n"));
        if (is_object) buf_printf(b, "\"k%u\": ", (unsigned)i);
        build(rng, b, depth + 1);
    }
    buf_append_char(b, is_object ? '}' : ']');
}

static uint64_t first_seed(void)
{
    const char *text = getenv("BALM_SEED");
    uint64_t seed;
    return text != NULL && sv_parse_u64(sv(text), &seed) == STATUS_OK ? seed : 11;
}

Test(json_scan, takes_exactly_what_jansson_takes)
{
    enum { ROUNDS = 30000 };
    size_t n_taken = 0;
    for (uint64_t seed = first_seed(), end = seed + ROUNDS; seed < end; seed++) {
        struct random_seeded rng = {seed};
        struct buf b;
        buf_init(&b, 1 << 16);
        build(&rng, &b, 0);
        size_t len = b.len;
        char *bytes = malloc(len); /* of its exact size, for ASan */
        memcpy(bytes, b.ptr, len);
        for (uint64_t n = random_seeded_below(&rng, 3); n > 0; n--)
            bytes[random_seeded_below(&rng, len)] =
                "\"\\{}[],:01-.eutn \xFF\xC3"[random_seeded_below(&rng, 19)];
        json_scan_init(&s, sv_n(bytes, len), &arena);
        bool is_taken = json_scan_value(&s, NULL) && json_scan_end(&s);
        json_t *tree = NULL;
        struct error err = {0};
        bool is_judged_fine =
            json_parse(sv_n(bytes, len), JSON_DECODE_ANY | JSON_ALLOW_NUL, &tree, &err) == STATUS_OK;
        /* What jansson's types cannot hold is JSON all the same. */
        if (strstr(err.message, "overflow") != NULL || strstr(err.message, "too big") != NULL)
            is_judged_fine = is_taken;
        cr_assert_eq(is_taken, is_judged_fine, "seed %llu: %s | %s", (unsigned long long)seed,
                     s.problem ? s.problem : "", err.message);
        n_taken += is_taken;
        json_release(tree);
        free(bytes);
        buf_release(&b);
        arena_reset(&arena);
    }
    cr_assert(n_taken > ROUNDS / 4 && n_taken < ROUNDS);
}
