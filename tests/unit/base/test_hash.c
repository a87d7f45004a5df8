#include "base/hash.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static void expect_hex(const uint8_t *bytes, size_t n, const char *hex)
{
    char text[2 * SHA256_BYTES + 1];
    hex_encode(bytes, n, text);
    cr_assert_str_eq(text, hex);
}

Test(hash, sha256_gives_the_vectors_of_fips_180)
{
    char hex[SHA256_HEX + 1];
    sha256_hex(SV(""), hex);
    cr_assert_str_eq(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sha256_hex((struct strview){NULL, 0}, hex);
    cr_assert_str_eq(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sha256_hex(SV("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"), hex);
    cr_assert_str_eq(hex, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    char *million = malloc(1000000);
    memset(million, 'a', 1000000);
    sha256_hex(sv_n(million, 1000000), hex);
    cr_assert_str_eq(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(million);
}

Test(hash, parts_hash_as_their_concatenation)
{
    struct strview text = SV("the quick brown fox jumps over the lazy dog, and then over 64 bytes of block");
    uint8_t whole[SHA256_BYTES], split[SHA256_BYTES];
    sha256(text, whole);
    for (size_t i = 0; i <= text.len; i++) {
        struct strview parts[] = {sv_sub(text, 0, i), {NULL, 0}, sv_sub(text, i, text.len)};
        sha256_parts(parts, 3, split);
        cr_assert_arr_eq(whole, split, SHA256_BYTES);
    }
}

Test(hash, a_stream_hashes_as_its_concatenation)
{
    struct strview text = SV("the quick brown fox jumps over the lazy dog, and then over 64 bytes of block");
    char whole[SHA256_HEX + 1], pieces[SHA256_HEX + 1];
    struct sha256_stream s;
    sha256_hex(text, whole);
    for (size_t step = 1; step <= text.len; step++) {
        sha256_stream_init(&s);
        for (size_t at = 0; at < text.len; at += step)
            sha256_stream_add(&s, sv_sub(text, at, at + step));
        sha256_stream_add(&s, (struct strview){NULL, 0});
        sha256_stream_end(&s, pieces);
        cr_assert_str_eq(whole, pieces);
    }
}

Test(hash, hmac_gives_the_vectors_of_rfc_4231)
{
    uint8_t mac[SHA256_BYTES];
    char bytes[131];
    memset(bytes, 0x0b, 20);
    hmac_sha256(sv_n(bytes, 20), SV("Hi There"), mac);
    expect_hex(mac, 32, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    hmac_sha256(SV("Jefe"), SV("what do ya want for nothing?"), mac);
    expect_hex(mac, 32, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    memset(bytes, 0xaa, 131);
    hmac_sha256(sv_n(bytes, 131), SV("Test Using Larger Than Block-Size Key - Hash Key First"), mac);
    expect_hex(mac, 32, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    hmac_sha256((struct strview){NULL, 0}, (struct strview){NULL, 0}, mac);
    expect_hex(mac, 32, "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

Test(hash, hex_reads_back_and_refuses_the_rest)
{
    uint8_t bytes[256], back[256];
    char hex[513];
    for (size_t i = 0; i < 256; i++)
        bytes[i] = (uint8_t)i;
    hex_encode(bytes, 256, hex);
    cr_assert(hex_decode(sv_n(hex, 512), back, 256) == STATUS_OK);
    cr_assert_arr_eq(bytes, back, 256);
    cr_assert(hex_decode(SV("aBcD"), back, 2) == STATUS_OK && back[0] == 0xAB && back[1] == 0xCD);
    cr_assert(hex_decode(SV(""), back, 0) == STATUS_OK);
    back[0] = 7;
    const char *bad[] = {"", "a", "abc", "abcdef", "0g12", "12 4", "x012", "12\xFF.", "+123"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert(hex_decode(sv(bad[i]), back, 2) == STATUS_INVALID_ARGUMENT, "'%s'", bad[i]);
    cr_assert_eq(back[0], 7);
}

Test(hash, fnv1a_gives_published_values_in_any_split)
{
    cr_assert_eq(fnv1a_add(FNV1A_START, SV("")), FNV1A_START);
    cr_assert_eq(fnv1a_add(FNV1A_START, SV("a")), UINT64_C(0xaf63dc4c8601ec8c));
    cr_assert_eq(fnv1a_add(FNV1A_START, SV("foobar")), UINT64_C(0x85944171f73967e8));
    cr_assert_eq(fnv1a_add(fnv1a_add(FNV1A_START, SV("foo")), SV("bar")), UINT64_C(0x85944171f73967e8));
}
