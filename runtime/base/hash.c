/* The old SHA256_Init interface is deprecated but stays: it starts without fetching a provider and reading
 * openssl.cnf, which a bot that starts cold for one signature would pay for. */
#define OPENSSL_SUPPRESS_DEPRECATED

#include "base/hash.h"

#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"

#define DERIVED_NAME_MAX  255
#define DERIVED_LABEL_MAX 320

_Static_assert(SHA256_BYTES == SHA256_DIGEST_LENGTH, "digest length");

void sha256_parts(const struct strview *parts, size_t n, uint8_t ret_digest[SHA256_BYTES])
{
    SHA256_CTX state;
    SHA256_Init(&state);
    for (size_t i = 0; i < n; i++)
        if (parts[i].len > 0) SHA256_Update(&state, parts[i].ptr, parts[i].len);
    SHA256_Final(ret_digest, &state);
}

void sha256(struct strview data, uint8_t ret_digest[SHA256_BYTES])
{
    sha256_parts(&data, 1, ret_digest);
}

void sha256_hex(struct strview data, char ret_hex[SHA256_HEX + 1])
{
    uint8_t digest[SHA256_BYTES];
    sha256(data, digest);
    hex_encode(digest, sizeof(digest), ret_hex);
}

_Static_assert(sizeof(struct sha256_stream) >= sizeof(SHA256_CTX), "room for libcrypto's state");

void sha256_stream_init(struct sha256_stream *s)
{
    SHA256_Init((SHA256_CTX *)s->state);
}

void sha256_stream_add(struct sha256_stream *s, struct strview piece)
{
    if (piece.len > 0) SHA256_Update((SHA256_CTX *)s->state, piece.ptr, piece.len);
}

void sha256_stream_end(struct sha256_stream *s, char ret_hex[SHA256_HEX + 1])
{
    uint8_t digest[SHA256_BYTES];
    SHA256_Final(digest, (SHA256_CTX *)s->state);
    hex_encode(digest, sizeof(digest), ret_hex);
}

void hmac_sha256(struct strview key, struct strview data, uint8_t ret_mac[SHA256_BYTES])
{
    /* RFC 2104: H(key ^ opad, H(key ^ ipad, data)), the key hashed first if it is longer than a block. */
    uint8_t block[SHA256_CBLOCK] = {0}, inner[SHA256_BYTES];
    if (key.len > sizeof(block))
        sha256(key, block);
    else if (key.len > 0)
        memcpy(block, key.ptr, key.len);
    for (size_t i = 0; i < sizeof(block); i++)
        block[i] ^= 0x36;
    sha256_parts((struct strview[]){{(char *)block, sizeof(block)}, data}, 2, inner);
    for (size_t i = 0; i < sizeof(block); i++)
        block[i] ^= 0x36 ^ 0x5C;
    sha256_parts((struct strview[]){{(char *)block, sizeof(block)}, {(char *)inner, sizeof(inner)}}, 2,
                 ret_mac);
    mem_wipe(block, sizeof(block));
    mem_wipe(inner, sizeof(inner));
}

void hmac_derive_key(struct strview master, const char *label, struct strview name,
                     char ret_hex[SHA256_HEX + 1])
{
    uint8_t mac[SHA256_BYTES];
    char text[DERIVED_LABEL_MAX];
    int n = snprintf(text, sizeof(text), "%s:%.*s", label, SV_ARG(sv_sub(name, 0, DERIVED_NAME_MAX)));
    hmac_sha256(master, sv_n(text, (size_t)n), mac);
    hex_encode(mac, sizeof(mac), ret_hex);
    mem_wipe(mac, sizeof(mac));
}

void hex_encode(const void *bytes, size_t n, char *ret_hex)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *from = bytes;
    for (size_t i = 0; i < n; i++) {
        ret_hex[2 * i] = digits[from[i] >> 4];
        ret_hex[2 * i + 1] = digits[from[i] & 15];
    }
    ret_hex[2 * n] = '\0';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

enum status hex_decode(struct strview hex, void *ret_bytes, size_t n)
{
    if (hex.len % 2 != 0 || hex.len / 2 != n) return STATUS_INVALID_ARGUMENT;
    for (size_t i = 0; i < hex.len; i++) /* checked first: nothing is written on failure */
        if (hex_value(hex.ptr[i]) < 0) return STATUS_INVALID_ARGUMENT;
    uint8_t *to = ret_bytes;
    for (size_t i = 0; i < n; i++)
        to[i] = (uint8_t)(hex_value(hex.ptr[2 * i]) << 4 | hex_value(hex.ptr[2 * i + 1]));
    return STATUS_OK;
}

uint64_t fnv1a_add(uint64_t state, struct strview s)
{
    for (size_t i = 0; i < s.len; i++)
        state = (state ^ (uint8_t)s.ptr[i]) * UINT64_C(1099511628211);
    return state;
}
