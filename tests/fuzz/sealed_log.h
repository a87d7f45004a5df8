/* A small log that was sealed: records, their leaves, and three checkpoints by a key that is the same in each
 * run, so that corpora can hold its signatures. */
#ifndef BALM_TESTS_FUZZ_SEALED_LOG_H
#define BALM_TESTS_FUZZ_SEALED_LOG_H

#include <assert.h>
#include <openssl/evp.h>
#include <sqlite3.h>
#include <string.h>

#include "audit/audit_impl.h"
#include "base/clock.h"
#include "base/list.h"
#include "store/journal_impl.h"

#define SEALED_TIME_NS INT64_C(1795857084123456789)

static const char *const sealed_lines[] = {
    "{\"cluster\":\"local\",\"format\":1,\"kind\":\"note\",\"message\":\"one\",\"tenant\":\"default\",\"time\":\"2026-11-28T14:01:24.000000001Z\"}",
    "{\"cluster\":\"local\",\"format\":1,\"function\":\"notify\",\"incident\":\"i\",\"intent\":\"i-1-2\",\"kind\":\"intent\",\"tenant\":\"default\",\"time\":\"2026-11-28T14:01:24.000000002Z\"}",
    "{\"cluster\":\"local\",\"format\":1,\"function\":\"notify\",\"incident\":\"i\",\"intent\":\"i-1-2\",\"kind\":\"outcome\",\"state\":\"done\",\"tenant\":\"default\",\"time\":\"2026-11-28T14:01:24.000000003Z\"}",
    "{\"actor\":\"me\",\"cluster\":\"local\",\"format\":1,\"kind\":\"freeze\",\"on\":true,\"tenant\":\"default\",\"time\":\"2026-11-28T14:01:24.000000004Z\"}",
    "{\"cluster\":\"local\",\"format\":1,\"incident\":\"i\",\"intent\":\"i-2-5\",\"kind\":\"intent\",\"tenant\":\"default\",\"time\":\"2026-11-28T14:01:24.000000005Z\"}",
    "{\"cluster\":\"local\",\"format\":1,\"kind\":\"note\",\"message\":\"six\",\"tenant\":\"default\",\"time\":\"2026-11-28T14:01:24.000000006Z\"}",
};
#define SEALED_RECORDS ARRAY_LEN(sealed_lines)

/* From 32 bytes that are no secret. *ret_public: its text, arena. */
static inline struct audit_key sealed_key(struct arena *a, struct strview *ret_public)
{
    uint8_t seed[32], public[ED25519_PUBLIC_BYTES], typed[1 + ED25519_PUBLIC_BYTES] = {ED25519_ALGORITHM};
    uint8_t digest[SHA256_BYTES];
    char hash[2 * KEY_ID_BYTES + 1];
    size_t len = sizeof(public);
    struct audit_key k = {.has_private = true, .name = SV("fuzz")};
    memset(seed, 'f', sizeof(seed));
    k.pkey = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, sizeof(seed));
    int got = EVP_PKEY_get_raw_public_key(k.pkey, public, &len);
    assert(got == 1 && len == sizeof(public));
    sha256_parts((struct strview[]){k.name, SV("\n\x01"), {(const char *)public, sizeof(public)}}, 3, digest);
    memcpy(k.id, digest, KEY_ID_BYTES);
    memcpy(typed + 1, public, sizeof(public));
    hex_encode(k.id, KEY_ID_BYTES, hash);
    *ret_public = arena_printf(a, "fuzz+%s+%.*s", hash, SV_ARG(base64_encode(a, typed, sizeof(typed))));
    return k;
}

/* Checkpoints of sizes 2, 4 and 6, each with its empty line, and all leaves. */
static inline void sealed_files(struct arena *a, struct strview *ret_public, struct strview *ret_checkpoints,
                                struct strview *ret_leaves)
{
    struct audit_key k = sealed_key(a, ret_public);
    struct merkle_tree tree;
    struct merkle_hash *leaves = arena_array(a, SEALED_RECORDS, sizeof(*leaves));
    *ret_checkpoints = SV("");
    merkle_tree_init(&tree);
    for (size_t i = 0; i < SEALED_RECORDS; i++) {
        struct strview note;
        leaves[i] = merkle_leaf(sv(sealed_lines[i]));
        merkle_tree_add(&tree, leaves[i]);
        if (i % 2 == 0) continue;
        enum status s = checkpoint_sign(&k, i + 1, merkle_tree_root(&tree), SEALED_TIME_NS, a, &note, NULL);
        assert(s == STATUS_OK);
        *ret_checkpoints = arena_printf(a, "%.*s%.*s\n", SV_ARG(*ret_checkpoints), SV_ARG(note));
    }
    *ret_leaves = sv_n((const char *)leaves, SEALED_RECORDS * sizeof(*leaves));
    EVP_PKEY_free(k.pkey);
}

#endif
