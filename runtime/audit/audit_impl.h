/* Inside of runtime/audit: keys and base64 as key.c and checkpoint.c share them. */
#ifndef BALM_AUDIT_AUDIT_IMPL_H
#define BALM_AUDIT_AUDIT_IMPL_H

#include <openssl/evp.h>

#include "audit/merkle.h"

#define ED25519_ALGORITHM       0x01 /* C2SP signed-note: the signature type byte */
#define ED25519_PUBLIC_BYTES    32
#define ED25519_SIGNATURE_BYTES 64
#define KEY_ID_BYTES            4

struct audit_key {
    EVP_PKEY *pkey; /* owned */
    bool has_private;
    uint8_t id[KEY_ID_BYTES];
    struct strview name;        /* inside public_text */
    struct strview public_text; /* owned; NAME+HASH+BASE64, no newline */
};

#define BASE64_BYTES(n) (((n) + 2) / 3 * 4)
struct strview base64_encode(struct arena *a, const void *bytes, size_t n);
/* Exactly n bytes, in the one spelling that base64_encode() gives: a second spelling of the same bytes would
 * be a change that no signature sees. */
enum status base64_decode_exact(struct strview text, void *ret_bytes, size_t n) MUST_USE;
/* OpenSSL's reason, for messages. Empties its queue. */
const char *openssl_reason(void);

#endif
