#include "peer.h"

static enum status parse(const char *text, int64_t *ret_ns)
{
    return grpc_timeout_parse(sv(text), ret_ns);
}

Test(grpc_text, timeouts_are_digits_and_a_unit)
{
    static const struct {
        const char *text;
        int64_t ns;
    } cases[] = {{"1n", 1},
                 {"1u", 1000},
                 {"250m", 250 * NS_PER_MS},
                 {"3S", 3 * NS_PER_S},
                 {"2M", 120 * NS_PER_S},
                 {"1H", 3600 * NS_PER_S},
                 {"0S", 0},
                 {"00000001S", NS_PER_S},
                 {"99999999n", 99999999},
                 {"99999999H", GRPC_NO_TIMEOUT}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int64_t ns = -1;
        cr_assert_eq(parse(cases[i].text, &ns), STATUS_OK, "%s", cases[i].text);
        cr_assert_eq(ns, cases[i].ns, "%s", cases[i].text);
    }
}

Test(grpc_text, anything_else_is_no_timeout)
{
    static const char *const wrong[] = {"",     "1",   "S",         "S1",   "1s",  "1 S",
                                        " 1S",  "+1S", "-1S",       "1.5S", "1SS", "123456789S",
                                        "0x1S", "1h",  "1\xc2\xb5", "1S "};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        int64_t ns = -1;
        cr_assert_eq(parse(wrong[i], &ns), STATUS_INVALID_ARGUMENT, "'%s'", wrong[i]);
        cr_assert_eq(ns, -1, "'%s'", wrong[i]);
    }
}

static struct buf escaped(struct strview text, size_t max)
{
    struct buf b;
    buf_init(&b, max);
    grpc_message_escape(text, &b);
    return b;
}

static void assert_escaped(struct strview text, size_t max, const char *expected)
{
    struct buf b = escaped(text, max);
    cr_assert(sv_eq(buf_view(&b), sv(expected)), "'%.*s', not '%s'", SV_ARG(buf_view(&b)), expected);
    cr_assert_eq(buf_status(&b), STATUS_OK);
    buf_release(&b);
}

Test(grpc_text, messages_are_percent_encoded)
{
    assert_escaped(SV("plain text, ~!"), 64, "plain text, ~!");
    assert_escaped(SV("100%"), 64, "100%25");
    assert_escaped(SV("a\nb\t\x7f"), 64, "a%0Ab%09%7F");
    assert_escaped(SV("ä€"), 64, "%C3%A4%E2%82%AC");
    assert_escaped(SV("\xff\xc3"), 64, "%FF%C3"); /* no UTF-8 */
    assert_escaped(SV("\0x"), 64, "%00x");
    assert_escaped((struct strview){0}, 64, "");
}

Test(grpc_text, a_long_message_is_cut_at_a_whole_character)
{
    assert_escaped(SV("aaä€"), 8, "aa%C3%A4");
    assert_escaped(SV("aaä€"), 7, "aa");
    for (size_t max = 0; max < 40; max++) {
        struct buf b = escaped(SV("a€ä%𝄞\n"), max);
        cr_assert_leq(b.len, max);
        cr_assert_eq(buf_status(&b), STATUS_OK);
        buf_release(&b);
    }
}
