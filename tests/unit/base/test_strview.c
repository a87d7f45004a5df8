#include "base/strview.h"

#include <criterion/criterion.h>
#include <string.h>

Test(strview, null_and_zeroed_views_are_empty_everywhere)
{
    struct strview none = {NULL, 0};
    cr_assert(sv(NULL).len == 0 && sv_eq(none, SV("")) && sv_eq_nocase(none, SV("")) &&
              sv_cmp(none, SV("")) == 0);
    cr_assert(sv_starts_with(none, none) && sv_ends_with(SV("a"), none) && sv_contains(none, SV("")));
    cr_assert(sv_find(none, 'a') == 0 && sv_sub(none, 1, 3).len == 0 && sv_trim(none).len == 0 &&
              sv_is_utf8(none));
    cr_assert(sv_eq_constant_time(none, SV("")));
}

Test(strview, order_is_by_unsigned_byte_then_length)
{
    cr_assert_lt(sv_cmp(SV("a"), SV("b")), 0);
    cr_assert_lt(sv_cmp(SV("a"), SV("ab")), 0);
    cr_assert_gt(sv_cmp(SV("\xC3"), SV("z")), 0);
    cr_assert_gt(sv_cmp(SV("a\0b"), SV("a\0a")), 0);
    cr_assert_eq(sv_cmp(SV("ab"), SV("ab")), 0);
}

Test(strview, case_is_ignored_for_ascii_only)
{
    cr_assert(sv_eq_nocase(SV("Content-Type"), SV("content-tYPE")));
    cr_assert_not(sv_eq_nocase(SV("\xC3\x84"), SV("\xC3\xA4")));
    cr_assert_not(sv_eq_nocase(SV("["), SV("{"))); /* differ by the case bit alone */
}

Test(strview, sub_is_clamped)
{
    struct strview s = SV("hello");
    cr_assert(sv_eq(sv_sub(s, 1, 3), SV("el")));
    cr_assert(sv_eq(sv_sub(s, 3, 99), SV("lo")));
    cr_assert(sv_sub(s, 9, 12).len == 0 && sv_sub(s, 4, 2).len == 0);
}

Test(strview, put_lays_texts_one_behind_the_other)
{
    char memory[5] = "....", *at = memory;
    struct strview first = sv_put(&at, SV("ab")), none = sv_put(&at, (struct strview){0}),
                   last = sv_put(&at, SV("c"));
    cr_assert(sv_eq(first, SV("ab")) && first.ptr == memory);
    cr_assert(none.len == 0 && none.ptr == memory + 2);
    cr_assert(sv_eq(last, SV("c")) && at == memory + 3);
    cr_assert_str_eq(memory, "abc.");
}

Test(strview, trim_takes_white_space_off_both_ends)
{
    cr_assert(sv_eq(sv_trim(SV(" \t\r\n a b \v\f")), SV("a b")));
    cr_assert(sv_trim(SV(" \n ")).len == 0);
}

static size_t split(struct strview text, struct strview *parts, size_t max)
{
    size_t n = 0;
    struct strview part;
    while (sv_next(&text, ',', &part)) {
        cr_assert(n < max);
        parts[n++] = part;
    }
    cr_assert_null(text.ptr);
    return n;
}

Test(strview, next_delivers_empty_parts_too)
{
    struct strview parts[8];
    cr_assert_eq(split(SV("a,,b,"), parts, 8), 4);
    cr_assert(sv_eq(parts[0], SV("a")) && parts[1].len == 0 && sv_eq(parts[2], SV("b")) && parts[3].len == 0);
    cr_assert_eq(split(SV("one"), parts, 8), 1);
    cr_assert_eq(split(SV(""), parts, 8), 1);
    cr_assert_eq(split((struct strview){NULL, 0}, parts, 8), 0);
}

Test(strview, unsigned_numbers_are_digits_without_overflow)
{
    uint64_t v = 7;
    cr_assert(sv_parse_u64(SV("0"), &v) == STATUS_OK && v == 0);
    cr_assert(sv_parse_u64(SV("18446744073709551615"), &v) == STATUS_OK && v == UINT64_MAX);
    v = 7;
    const char *bad[] = {"",   "-1", "+1", " 1", "1 ", "0x1", "18446744073709551616", "99999999999999999999",
                         "1e3"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert(sv_parse_u64(sv(bad[i]), &v) == STATUS_INVALID_ARGUMENT, "'%s'", bad[i]);
    cr_assert_eq(v, 7);
}

Test(strview, signed_numbers_reach_both_ends)
{
    int64_t v = 7;
    cr_assert(sv_parse_i64(SV("-9223372036854775808"), &v) == STATUS_OK && v == INT64_MIN);
    cr_assert(sv_parse_i64(SV("9223372036854775807"), &v) == STATUS_OK && v == INT64_MAX);
    cr_assert(sv_parse_i64(SV("-0"), &v) == STATUS_OK && v == 0);
    const char *bad[] = {"", "-", "--1", "+1", "9223372036854775808", "-9223372036854775809"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert(sv_parse_i64(sv(bad[i]), &v) == STATUS_INVALID_ARGUMENT, "'%s'", bad[i]);
}

Test(strview, constant_time_comparison_compares)
{
    cr_assert(sv_eq_constant_time(SV("secret"), SV("secret")));
    cr_assert_not(sv_eq_constant_time(SV("secreT"), SV("secret")));
    cr_assert_not(sv_eq_constant_time(SV("secret1"), SV("secret")));
    cr_assert_not(sv_eq_constant_time(SV(""), SV("secret")));
    cr_assert_not(sv_eq_constant_time(SV("secret"), SV("")));
}

/* RFC 3629's definition, written as differently as possible: decode, then look at the code point. */
static size_t reference_sequence(const unsigned char *p, size_t n)
{
    if (n == 0) return 0;
    size_t len = p[0] < 0x80 ? 1 : (p[0] >> 5) == 6 ? 2 : (p[0] >> 4) == 14 ? 3 : (p[0] >> 3) == 30 ? 4 : 0;
    if (len == 0 || len > n) return 0;
    uint32_t code = len == 1 ? p[0] : p[0] & (0xFFu >> (len + 1));
    for (size_t i = 1; i < len; i++) {
        if ((p[i] >> 6) != 2) return 0;
        code = code << 6 | (p[i] & 0x3F);
    }
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    return code < least[len] || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF) ? 0 : len;
}

Test(strview, utf8_sequences_agree_with_the_definition_for_all_leads)
{
    static const unsigned char ends[] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF};
    const size_t n = sizeof(ends);
    for (unsigned first = 0; first < 256; first++)
        for (size_t i = 0; i < n * n * n; i++) {
            unsigned char bytes[4] = {(unsigned char)first, ends[i % n], ends[i / n % n], ends[i / n / n]};
            for (size_t len = 0; len <= 4; len++)
                cr_assert_eq(sv_utf8_sequence(sv_n((char *)bytes, len)), reference_sequence(bytes, len));
        }
}

Test(strview, utf8_is_checked_at_every_offset_of_a_word)
{
    char text[40];
    for (size_t at = 0; at < 36; at++) {
        memset(text, 'a', sizeof(text));
        memcpy(text + at, "\xF0\x9F\x98\x80", 4);
        cr_assert(sv_is_utf8(sv_n(text, sizeof(text))), "at %zu", at);
        cr_assert_not(sv_is_utf8(sv_n(text, at + 3)), "cut at %zu", at);
        text[at] = '\xED'; /* ED 9F 98 is fine, the 80 behind it is alone */
        cr_assert_not(sv_is_utf8(sv_n(text, sizeof(text))), "at %zu", at);
    }
}

Test(strview, a_dns_label_has_lower_case_letters_digits_and_inner_hyphens)
{
    char longest[SV_DNS_LABEL_MAX + 1];
    memset(longest, 'a', sizeof(longest));
    cr_expect(sv_is_dns_label(SV("a")) && sv_is_dns_label(SV("0-z")) && sv_is_dns_label(SV("a--b")));
    cr_expect(sv_is_dns_label(sv_n(longest, SV_DNS_LABEL_MAX)));
    cr_expect(!sv_is_dns_label(sv_n(longest, sizeof(longest))) && !sv_is_dns_label(SV("")));
    cr_expect(!sv_is_dns_label(SV("-a")) && !sv_is_dns_label(SV("a-")) && !sv_is_dns_label(SV("A")));
    cr_expect(!sv_is_dns_label(SV("a.b")) && !sv_is_dns_label(SV("a_b")) && !sv_is_dns_label(SV("a/..")));
}
