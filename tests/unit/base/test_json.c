#include "base/json.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"

static struct error err;

static enum status try_parse(struct strview text, size_t flags)
{
    json_t *value = NULL;
    enum status s = json_parse(text, flags, &value, &err);
    cr_assert_eq(value != NULL, s == STATUS_OK);
    json_release(value);
    return s;
}

Test(json, one_object_or_array_is_parsed)
{
    json_t *value = NULL;
    cr_assert(json_parse(SV(" {\"a\":[1,-2,3.5,true,null,\"x\"]} "), 0, &value, &err) == STATUS_OK);
    cr_assert_eq(json_array_size(json_object_get(value, "a")), 6);
    json_release(value);
    cr_assert(try_parse(SV("7"), 0) == STATUS_INVALID_ARGUMENT);
    cr_assert(try_parse(SV("7"), JSON_DECODE_ANY) == STATUS_OK);
    cr_assert(try_parse(SV("{} {}"), 0) == STATUS_INVALID_ARGUMENT);
    cr_assert(try_parse(SV(""), 0) == STATUS_INVALID_ARGUMENT);
    cr_assert(try_parse((struct strview){NULL, 0}, 0) == STATUS_INVALID_ARGUMENT);
    json_release(NULL);
}

Test(json, text_behind_the_view_is_not_read)
{
    cr_assert(try_parse(sv_n("{}x", 2), 0) == STATUS_OK);
    cr_assert(try_parse(sv_n("[1]", 2), 0) == STATUS_INVALID_ARGUMENT);
}

Test(json, errors_name_line_and_column)
{
    cr_assert(try_parse(SV("{\n  \"a\": tru\n}"), 0) == STATUS_INVALID_ARGUMENT);
    cr_assert_not_null(strstr(err.message, "line 2 column"), "%s", err.message);
    cr_assert(try_parse(SV("[\n\"\u00e4\xFF\"]"), 0) == STATUS_INVALID_ARGUMENT);
    cr_assert_str_eq(err.message, "JSON: invalid UTF-8 (byte 0xff) at line 2 column 3");
    cr_assert(try_parse(SV("[\"\xED\xA0\x80\"]"), 0) == STATUS_INVALID_ARGUMENT);
}

static struct strview nested(char *text, size_t depth)
{
    for (size_t i = 0; i < depth; i++) {
        text[i] = '[';
        text[2 * depth - 1 - i] = ']';
    }
    return sv_n(text, 2 * depth);
}

Test(json, depth_is_limited_before_anything_recurses)
{
    char text[2 * JSON_DEPTH_MAX + 2];
    cr_assert(try_parse(nested(text, JSON_DEPTH_MAX), 0) == STATUS_OK);
    cr_assert(try_parse(nested(text, JSON_DEPTH_MAX + 1), 0) == STATUS_INVALID_ARGUMENT);
    cr_assert_str_eq(err.message, "JSON: nested deeper than 64 levels at line 1 column 65");
    static char open[100000];
    memset(open, '[', sizeof(open));
    cr_assert(try_parse(sv_n(open, sizeof(open)), 0) == STATUS_INVALID_ARGUMENT);
}

Test(json, brackets_in_strings_are_no_depth)
{
    char text[400] = "[\"\\\"";
    size_t len = strlen(text);
    memset(text + len, '[', 200);
    memcpy(text + len + 200, "\\\\\"]", 4);
    cr_assert(try_parse(sv_n(text, len + 204), 0) == STATUS_OK, "%s", err.message);
    /* Siblings do not add up. */
    struct buf b;
    buf_init(&b, 10000);
    buf_append(&b, SV("["));
    for (int i = 0; i < 500; i++)
        buf_append(&b, SV("{},"));
    buf_append(&b, SV("[]]"));
    cr_assert(try_parse(buf_view(&b), 0) == STATUS_OK);
    buf_release(&b);
}

Test(json, last_duplicate_key_wins_and_nul_is_refused)
{
    json_t *value = NULL;
    cr_assert(json_parse(SV("{\"a\":1,\"a\":2}"), 0, &value, &err) == STATUS_OK);
    cr_assert_eq(json_integer_value(json_object_get(value, "a")), 2);
    json_release(value);
    cr_assert(try_parse(SV("{\"a\\u0000b\":1}"), JSON_ALLOW_NUL) == STATUS_INVALID_ARGUMENT);
    cr_assert(try_parse(SV("{\"a\":\"\\u0000\"}"), 0) == STATUS_INVALID_ARGUMENT);
    cr_assert(try_parse(SV("{\"a\":\"\\u0000\"}"), JSON_ALLOW_NUL) == STATUS_OK);
}

static json_t *random_value(struct random_seeded *r, int depth)
{
    switch (random_seeded_below(r, depth > 0 ? 9 : 7)) {
    case 0:
        return json_null();
    case 1:
        return json_boolean(random_seeded_below(r, 2));
    case 2:
        return json_integer((json_int_t)(random_seeded_next(r) >> random_seeded_below(r, 64)));
    case 3:
        return json_integer(-(json_int_t)(random_seeded_next(r) >> (1 + random_seeded_below(r, 63))));
    case 4:
        return json_real((double)random_seeded_below(r, 1000000) / 1024 *
                         (random_seeded_below(r, 2) ? 1e40 : 1));
    case 5:
    case 6: {
        char text[40];
        size_t len = random_seeded_below(r, sizeof(text));
        for (size_t i = 0; i < len; i++)
            text[i] = (char)random_seeded_below(r, 128);
        return json_text(sv_n(text, len));
    }
    case 7: {
        json_t *array = json_array();
        for (uint64_t n = random_seeded_below(r, 6); n > 0; n--)
            json_array_append_new(array, random_value(r, depth - 1));
        return array;
    }
    default:
        break;
    }
    json_t *object = json_object();
    for (uint64_t n = random_seeded_below(r, 40); n > 0; n--) {
        char key[4] = {0};
        for (uint64_t i = random_seeded_below(r, 4); i > 0;
             i--) /* short: one is often the start of another */
            key[i - 1] = "ab\"\xC3"[random_seeded_below(r, 3)];
        json_object_set_new(object, key, random_value(r, depth - 1));
    }
    return object;
}

Test(json, canonical_bytes_are_those_of_jansson_and_parse_to_the_same)
{
    struct random_seeded r = {.state = random_below(UINT64_MAX)};
    uint64_t seed = r.state;
    struct arena a = {0};
    for (int i = 0; i < 3000; i++) {
        json_t *value = random_value(&r, 4), *back = NULL;
        char *expected = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
        struct strview text = json_canonical(&a, value);
        cr_assert_str_eq(text.ptr, expected, "seed %" PRIu64 " round %d", seed, i);
        cr_assert_eq(text.len, strlen(expected));
        cr_assert(json_parse(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, &back, &err) == STATUS_OK, "%s",
                  err.message);
        cr_assert(json_equal(value, back), "seed %" PRIu64 " round %d: %s", seed, i, expected);
        free(expected);
        json_release(value);
        json_release(back);
        arena_reset(&a);
    }
    arena_release(&a);
}

Test(json, canonical_key_order_does_not_depend_on_insertion)
{
    struct arena a = {0};
    json_t *value = NULL;
    cr_assert(json_parse(SV("{\"b\":1,\"\u00e9\":2,\"a\":{\"z\":1,\"ab\":2,\"a\":3},\"B\":4}"), 0, &value,
                         &err) == STATUS_OK);
    cr_assert_str_eq(json_canonical(&a, value).ptr,
                     "{\"B\":4,\"a\":{\"a\":3,\"ab\":2,\"z\":1},\"b\":1,\"\u00e9\":2}");
    json_release(value);
    arena_release(&a);
}

Test(json, canonical_bytes_that_do_not_fit_are_not_appended_in_part)
{
    json_t *value = json_pack("{s:s, s:[i,i,i]}", "name", "x", "list", 1, 2, 3);
    struct buf b;
    for (size_t max = 0; max < 27; max++) { /* {"list":[1,2,3],"name":"x"} is 27 bytes */
        buf_init(&b, 4 + max);
        buf_append(&b, SV("old "));
        json_append_canonical(&b, value);
        cr_assert(b.is_full && sv_eq(buf_view(&b), SV("old ")), "max %zu: %s", max, b.ptr);
        buf_release(&b);
    }
    buf_init(&b, 27);
    json_append_canonical(&b, value);
    cr_assert(buf_status(&b) == STATUS_OK && b.len == 27);
    buf_release(&b);
    json_release(value);
}

Test(json, a_cycle_is_refused_and_large_objects_are_sorted)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    json_t *array = json_array(), *object = json_object();
    json_object_set(object, "self", array);
    json_array_append(array, object);
    json_append_canonical(&b, object);
    cr_assert(b.is_full && b.len == 0);
    json_array_clear(array);
    buf_reset(&b);
    json_append_canonical(&b, NULL);
    cr_assert(b.is_full && b.len == 0);
    buf_reset(&b);
    json_object_clear(object);
    char key[16];
    for (int i = 999; i >= 0; i--) {
        (void)snprintf(key, sizeof(key), "k%03d", i);
        json_object_set_new(object, key, json_pack("{s:i,s:[]}", "b", i, "a"));
    }
    json_append_canonical(&b, object);
    char *expected = json_dumps(object, JSON_COMPACT | JSON_SORT_KEYS);
    cr_assert_str_eq(b.ptr, expected);
    free(expected);
    json_release(array);
    json_release(object);
    buf_release(&b);
}

Test(json, members_are_read_as_text_or_empty)
{
    json_t *value = json_pack("{s:s, s:i}", "name", "web", "port", 80);
    cr_assert(sv_eq(json_get_text(value, "name"), SV("web")));
    cr_assert(json_get_text(value, "port").len == 0 && json_get_text(value, "none").len == 0);
    cr_assert(json_get_text(NULL, "name").len == 0);
    json_release(value);
}

Test(json, text_values_are_made_of_anything)
{
    json_t *value = json_text(SV("a\xFF"
                                 "b\0c"));
    cr_assert(sv_eq(sv_n(json_string_value(value), json_string_length(value)), SV("a\uFFFDb\0c")));
    json_release(value);
    value = json_text((struct strview){NULL, 0});
    cr_assert(json_is_string(value) && json_string_length(value) == 0);
    json_release(value);
}
