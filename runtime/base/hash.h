/* Digests. SHA-256 is libcrypto's, by its low-level calls: the first digest of a process then costs 20 µs
 * where EVP, which loads providers and openssl.cnf, took 1.3 ms. FNV-1a is Prometheus's label-set
 * fingerprint. */
#ifndef BALM_BASE_HASH_H
#define BALM_BASE_HASH_H

#include <stdint.h>

#include "base/strview.h"

#define SHA256_BYTES 32
#define SHA256_HEX   64

/* FIPS 180-4; the digest as bytes, below as lower-case hex with NUL. */
void sha256(struct strview data, uint8_t ret_digest[SHA256_BYTES]);
/* Digest of the parts one after another, without copying them together. */
void sha256_parts(const struct strview *parts, size_t n, uint8_t ret_digest[SHA256_BYTES]);
void sha256_hex(struct strview data, char ret_hex[SHA256_HEX + 1]);
struct sha256_stream {
    uint64_t state[14]; /* libcrypto's */
};
/* The same of bytes that come in pieces: init, add, add …, end. A value, nothing to release. */
void sha256_stream_init(struct sha256_stream *s);
void sha256_stream_add(struct sha256_stream *s, struct strview piece);
void sha256_stream_end(struct sha256_stream *s, char ret_hex[SHA256_HEX + 1]);
void hmac_sha256(struct strview key, struct strview data, uint8_t ret_mac[SHA256_BYTES]);
/* Hex of the MAC of "LABEL:NAME": the key of NAME, from which nobody comes to the master or another's. */
void hmac_derive_key(struct strview master, const char *label, struct strview name,
                     char ret_hex[SHA256_HEX + 1]);
void hex_encode(const void *bytes, size_t n, char *ret_hex); /* 2 × n characters and a NUL */
/* STATUS_INVALID_ARGUMENT unless exactly 2 × n hex digits of either case. */
enum status hex_decode(struct strview hex, void *ret_bytes, size_t n) MUST_USE;

#define FNV1A_START UINT64_C(14695981039346656037)
uint64_t fnv1a_add(uint64_t state, struct strview s); /* 64 bit; feed parts one after another */

#endif
