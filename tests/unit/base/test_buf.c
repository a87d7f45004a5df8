#include "base/buf.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"

Test(buf, builds_text_and_ends_it_in_nul)
{
    struct buf b;
    buf_init(&b, 1000);
    cr_assert(sv_eq(buf_view(&b), SV("")));
    buf_append(&b, SV("id="));
    buf_append_u64(&b, UINT64_MAX);
    buf_append_char(&b, ' ');
    buf_append_i64(&b, INT64_MIN);
    buf_append_char(&b, ' ');
    buf_append_u64(&b, 0);
    buf_printf(&b, " %s-%d ", "x", 5);
    buf_append_hex(&b, "\x00\xff\x1a", 3);
    cr_assert_str_eq(b.ptr, "id=18446744073709551615 -9223372036854775808 0 x-5 00ff1a");
    cr_assert(buf_status(&b) == STATUS_OK);
    buf_reset(&b);
    cr_assert_eq(buf_view(&b).len, 0);
    buf_release(&b);
}

Test(buf, maximum_fits_and_one_more_does_not)
{
    struct buf b;
    buf_init(&b, 5);
    buf_append(&b, SV("12345"));
    cr_assert(buf_status(&b) == STATUS_OK);
    buf_append_char(&b, '6');
    cr_assert(buf_status(&b) == STATUS_RESOURCE_EXHAUSTED);
    cr_assert_str_eq(b.ptr, "12345");
    buf_reset(&b);
    buf_append(&b, SV("123456"));
    buf_append(&b, SV("1")); /* all later appends do nothing, even if they would fit */
    cr_assert(b.is_full && b.len == 0);
    buf_release(&b);
}

/* Every append is whole or nothing, whatever is left. */
Test(buf, no_append_leaves_a_part_behind)
{
    for (size_t room = 0; room < 12; room++)
        for (int kind = 0; kind < 6; kind++) {
            struct buf b;
            buf_init(&b, 3 + room);
            buf_append(&b, SV("abc"));
            if (kind == 0) buf_append(&b, SV("0123456789"));
            if (kind == 1) buf_append_u64(&b, 1234567890);
            if (kind == 2) buf_append_i64(&b, -123456789);
            if (kind == 3) buf_printf(&b, "%s", "0123456789");
            if (kind == 4) buf_append_json_string(&b, SV("a\nb\x01"));
            if (kind == 5) buf_append_hex(&b, "12345", 5);
            size_t need = kind == 4 ? 12 : 10;
            cr_assert_eq(b.len, room >= need ? 3 + need : 3, "room %zu kind %d len %zu", room, kind, b.len);
            cr_assert_eq(b.is_full, room < need);
            cr_assert_eq(b.ptr[b.len], '\0');
            buf_release(&b);
        }
}

Test(buf, zeroed_struct_takes_nothing_and_is_released)
{
    struct buf b = {0};
    buf_append_char(&b, 'a');
    cr_assert(buf_status(&b) == STATUS_RESOURCE_EXHAUSTED);
    buf_release(&b);
    buf_release(NULL);
}

Test(buf, take_moves_the_bytes_out)
{
    struct buf b;
    size_t len = 9;
    buf_init(&b, 100);
    char *empty = buf_take(&b, &len);
    cr_assert(len == 0 && empty[0] == '\0');
    free(empty);
    buf_append(&b, SV("moved"));
    char *bytes = buf_take(&b, &len);
    cr_assert(len == 5 && b.len == 0 && b.ptr == NULL);
    cr_assert_str_eq(bytes, "moved");
    free(bytes);
    buf_append(&b, SV("again"));
    cr_assert_str_eq(b.ptr, "again");
    buf_release(&b);
}

Test(buf, printf_longer_than_the_room_is_whole)
{
    struct buf b;
    buf_init(&b, 100000);
    for (int n = 0; n < 2000; n += 37)
        buf_printf(&b, "%0*d", n + 1, 7);
    size_t expected = 0;
    for (size_t n = 0; n < 2000; n += 37)
        expected += n + 1;
    cr_assert_eq(b.len, expected);
    cr_assert_eq(strlen(b.ptr), expected);
    buf_release(&b);
}

static size_t put_utf8(char *to, uint32_t code)
{
    if (code < 0x80) return to[0] = (char)code, 1;
    if (code < 0x800) return to[0] = (char)(0xC0 | code >> 6), to[1] = (char)(0x80 | (code & 63)), 2;
    if (code < 0x10000)
        return to[0] = (char)(0xE0 | code >> 12), to[1] = (char)(0x80 | (code >> 6 & 63)),
               to[2] = (char)(0x80 | (code & 63)), 3;
    return to[0] = (char)(0xF0 | code >> 18), to[1] = (char)(0x80 | (code >> 12 & 63)),
           to[2] = (char)(0x80 | (code >> 6 & 63)), to[3] = (char)(0x80 | (code & 63)), 4;
}

static uint32_t random_code_point(struct random_seeded *r)
{
    switch (random_seeded_below(r, 5)) {
    case 0:
        return (uint32_t)random_seeded_below(r, 0x20);
    case 1:
        return (uint32_t)random_seeded_below(r, 0xD800);
    case 2:
        return 0xE000 + (uint32_t)random_seeded_below(r, 0x110000 - 0xE000);
    case 3:
        return (uint32_t) "\"\\/\x7f"[random_seeded_below(r, 4)];
    default:
        return 0x20 + (uint32_t)random_seeded_below(r, 0x5F);
    }
}

Test(buf, json_strings_are_those_of_jansson)
{
    struct random_seeded r = {.state = random_below(UINT64_MAX)};
    uint64_t seed = r.state;
    struct buf b;
    buf_init(&b, 10000);
    for (int round = 0; round < 5000; round++) {
        char text[4000];
        size_t len = 0, n = random_seeded_below(&r, round % 10 ? 140 : 1000); /* parts of 256 bytes inside */
        bool is_plain = round % 3 == 0; /* long runs take the other path through the code */
        while (n-- > 0)
            len += put_utf8(text + len, is_plain ? (uint32_t)('a' + n % 26) : random_code_point(&r));
        json_t *value = json_stringn(text, len);
        char *expected = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
        buf_reset(&b);
        buf_append_json_string(&b, sv_n(text, len));
        cr_assert_str_eq(b.ptr, expected, "seed %lu round %d", seed, round);
        free(expected);
        json_decref(value);
    }
    buf_release(&b);
}

Test(buf, each_ascii_byte_is_escaped_as_jansson_does_at_each_offset)
{
    struct buf b;
    buf_init(&b, 1000);
    for (int c = 0; c < 128; c++)
        for (size_t at = 0; at < 9; at++) {
            char text[17];
            memset(text, 'x', sizeof(text));
            text[at] = (char)c;
            json_t *value = json_stringn(text, sizeof(text));
            char *expected = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
            buf_reset(&b);
            buf_append_json_string(&b, sv_n(text, sizeof(text)));
            cr_assert_str_eq(b.ptr, expected, "byte %d at %zu", c, at);
            free(expected);
            json_decref(value);
        }
    buf_release(&b);
}

/* A sequence that the parts of 256 bytes would cut stays one, and bytes that only look like one are replaced
 * one by one. */
Test(buf, characters_are_whole_across_parts)
{
    struct buf b;
    buf_init(&b, 10000);
    char text[300];
    for (size_t at = 245; at < 265; at++) {
        memset(text, 'x', sizeof(text));
        memcpy(text + at, "\U0001F600", 4);
        buf_reset(&b);
        buf_append_json_string(&b, sv_n(text, sizeof(text)));
        cr_assert(b.len == 302 && memcmp(b.ptr + 1, text, 300) == 0, "at %zu", at);
    }
    memset(text, '\x80', sizeof(text));
    buf_reset(&b);
    buf_append_json_string(&b, sv_n(text, sizeof(text)));
    cr_assert_eq(b.len, 2 + 3 * sizeof(text));
    buf_release(&b);
}

Test(buf, a_string_that_just_fits_is_written)
{
    struct buf b;
    char text[700];
    memset(text, '\n', sizeof(text));
    for (size_t missing = 0; missing < 3; missing++) {
        buf_init(&b, 2 * sizeof(text) + 2 - missing);
        buf_append_json_string(&b, sv_n(text, sizeof(text)));
        cr_assert_eq(b.len, missing ? 0 : 2 * sizeof(text) + 2);
        cr_assert_eq(b.is_full, missing > 0);
        buf_release(&b);
    }
}

Test(buf, invalid_utf8_becomes_replacement_characters)
{
    struct buf b;
    buf_init(&b, 1000);
    buf_append_json_string(&b, SV("a\xFF"
                                  "b\xED\xA0\x80"
                                  "c\xE2\x82"));
    cr_assert_str_eq(b.ptr, "\"a\uFFFDb\uFFFD\uFFFD\uFFFDc\uFFFD\uFFFD\"");
    buf_release(&b);
}
