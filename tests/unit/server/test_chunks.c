/* Chunked bodies, read by our own reader in h2o's place. */
#include <stdlib.h>

#include <criterion/criterion.h>

#include "server/server_impl.h"

/* Fed in pieces of at most `piece` bytes, as they would come; the data is put together in ret_data. */
static ssize_t decode(struct strview text, size_t piece, char *ret_data, size_t *ret_bytes)
{
    struct phr_chunked_decoder d = {.consume_trailer = 1};
    ssize_t ret = -2;
    *ret_bytes = 0;
    for (size_t at = 0; at < text.len && ret == -2; at += piece) {
        size_t n = text.len - at < piece ? text.len - at : piece;
        char *buf = malloc(n); /* of exactly that size, for sanitizers */
        memcpy(buf, text.ptr + at, n);
        size_t bytes = n;
        ret = phr_decode_chunked(&d, buf, &bytes);
        memcpy(ret_data + *ret_bytes, buf, bytes);
        *ret_bytes += bytes;
        if (ret >= 0) {
            cr_expect(bytes + (size_t)ret <= n &&
                      memcmp(buf + bytes, text.ptr + at + n - (size_t)ret, (size_t)ret) == 0);
            ret += (ssize_t)(text.len - at - n);
        }
        free(buf);
    }
    return ret;
}

static void expect(struct strview text, const char *data, ssize_t left)
{
    for (size_t piece = 1; piece <= text.len; piece++) {
        char out[256];
        size_t bytes;
        ssize_t ret = decode(text, piece, out, &bytes);
        cr_expect_eq(ret, left, "'%.*s' by %zu: %zd", SV_ARG(text), piece, ret);
        if (left >= 0)
            cr_expect(bytes == strlen(data) && memcmp(out, data, bytes) == 0, "'%.*s' by %zu", SV_ARG(text),
                      piece);
    }
}

Test(chunks, bodies_are_put_together_however_they_are_split)
{
    expect(SV("0\r\n\r\n"), "", 0);
    expect(SV("5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n"), "hello, world", 0);
    expect(SV("A;name=\"x y\";z\r\n0123456789\r\n000\r\n\r\n"), "0123456789", 0);
    expect(SV("1  ;x\r\na\r\n1 \r\nb\r\n0\r\n\r\n"), "ab", 0);
    expect(SV("1\r\na\r\n0\r\nTrailer: 1\r\nother:\t2\r\n\r\n"), "a", 0);
    expect(SV("1\r\n\r\r\n2\r\n\r\n\r\n0\r\n\r\n"), "\r\r\n", 0);
}

Test(chunks, what_follows_the_body_is_left_over)
{
    expect(SV("1\r\na\r\n0\r\n\r\nGET / HTTP/1.1\r\n"), "a", 16);
}

Test(chunks, an_unfinished_body_waits)
{
    expect(SV("5\r\nhel"), "", -2);
    expect(SV("5"), "", -2);
    expect(SV("0\r\n"), "", -2);
    expect(SV("0\r\nx: y\r\n"), "", -2);
    expect(SV("fffffffffffffff\r\nab"), "", -2);
}

Test(chunks, anything_else_is_broken)
{
    static const char *const texts[] = {
        "\r\n0\r\n\r\n",
        "x\r\n",
        " 0\r\n\r\n",
        "-1\r\n",
        "0x0\r\n\r\n",
        "0 0\r\n\r\n",
        "0\n\r\n",
        "0\rx\r\n\r\n",
        "0\r\r\n\r\n",
        "2;\nab\r\n0\r\n\r\n",
        "2;a\x01\r\nab\r\n",
        "1\r\nab\r\n",
        "1\r\na\n0\r\n\r\n",
        "1\r\na0\r\n\r\n",
        "0\r\n\n",
        "0\r\nx: y\n\r\n",
        "0\r\nx\x7f\r\n",
        "0\r\n\rx",
        "ffffffffffffffff\r\n",
        "0000000000000000\r\n",
        "1000000000000000f\r\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        expect(sv(texts[i]), "", -1);
    expect(SV("0;a\0b\r\n\r\n"), "", -1);
}

Test(chunks, h2o_calls_this_reader)
{
    cr_assert(server_chunks_are_ours());
}

Test(chunks, it_tells_whether_data_is_still_to_come)
{
    struct phr_chunked_decoder d = {0};
    char text[] = "5\r\nhel";
    size_t bytes = sizeof(text) - 1;
    cr_assert_eq(phr_decode_chunked(&d, text, &bytes), -2);
    cr_assert(phr_decode_chunked_is_in_data(&d));
    char rest[] = "lo\r\n0\r\n";
    bytes = sizeof(rest) - 1;
    cr_assert_eq(phr_decode_chunked(&d, rest, &bytes), 0, "without trailers the last chunk is the end");
    cr_assert_not(phr_decode_chunked_is_in_data(&d));
}
