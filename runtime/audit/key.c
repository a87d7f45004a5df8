/* Ed25519 keys: the private half as PKCS#8 PEM, the public half as C2SP's verifier key text
 * (signed-note.md: "NAME+HASH+BASE64", HASH = first 4 bytes of SHA-256(NAME || 0x0A || 0x01 || key) as hex).
 */
#include "audit/audit_impl.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/memory.h"

#define KEY_FILE_MAX 4096
#define KEY_NAME_MAX 256
#define BASE64_MAX   256 /* bytes to decode at once: a root, a key or a signature */

/* ---- base64 ---- */

struct strview base64_encode(struct arena *a, const void *bytes, size_t n)
{
    char *text = arena_alloc(a, BASE64_BYTES(n) + 1);
    int len = EVP_EncodeBlock((unsigned char *)text, bytes, (int)n);
    return sv_n(text, (size_t)len);
}

enum status base64_decode_exact(struct strview text, void *ret_bytes, size_t n)
{
    unsigned char bytes[BASE64_MAX], again[BASE64_MAX * 4 / 3 + 8];
    if (n > BASE64_MAX - 3 || text.len != BASE64_BYTES(n)) return STATUS_INVALID_ARGUMENT;
    if (EVP_DecodeBlock(bytes, (const unsigned char *)text.ptr, (int)text.len) < (int)n)
        return STATUS_INVALID_ARGUMENT;
    int len = EVP_EncodeBlock(again, bytes, (int)n);
    if (!sv_eq(text, sv_n((const char *)again, (size_t)len))) return STATUS_INVALID_ARGUMENT;
    memcpy(ret_bytes, bytes, n);
    return STATUS_OK;
}

const char *openssl_reason(void)
{
    unsigned long code = ERR_get_error();
    ERR_clear_error();
    const char *reason = code != 0 ? ERR_reason_error_string(code) : NULL;
    return reason != NULL ? reason : "no reason given";
}

/* ---- names and texts ---- */

/* signed-note.md: non-empty, no white space, no plus. */
static bool is_key_name(struct strview name)
{
    if (name.len == 0 || name.len > KEY_NAME_MAX || !sv_is_utf8(name)) return false;
    for (size_t i = 0; i < name.len; i++)
        if ((unsigned char)name.ptr[i] <= ' ' || name.ptr[i] == '+' || name.ptr[i] == 0x7F) return false;
    /* White space beyond ASCII: next line, no-break space, U+1680, U+2000 … U+205F, U+3000. */
    return !sv_contains(name, SV("\xC2\x85")) && !sv_contains(name, SV("\xC2\xA0")) &&
           !sv_contains(name, SV("\xE1\x9A\x80")) && !sv_contains(name, SV("\xE2\x80")) &&
           !sv_contains(name, SV("\xE2\x81\x9F")) && !sv_contains(name, SV("\xE3\x80\x80"));
}

static void key_id(struct strview name, const uint8_t public[ED25519_PUBLIC_BYTES],
                   uint8_t ret_id[KEY_ID_BYTES])
{
    uint8_t digest[SHA256_BYTES];
    sha256_parts((struct strview[]){name, SV("\n\x01"), {(const char *)public, ED25519_PUBLIC_BYTES}}, 3,
                 digest);
    memcpy(ret_id, digest, KEY_ID_BYTES);
}

/* Takes over pkey. name must be valid. */
static struct audit_key *key_new(EVP_PKEY *pkey, bool has_private, struct strview name,
                                 const uint8_t public[ED25519_PUBLIC_BYTES])
{
    struct audit_key *k = mem_zalloc(1, sizeof(*k));
    struct arena a = {0};
    uint8_t typed[1 + ED25519_PUBLIC_BYTES] = {ED25519_ALGORITHM};
    char hash[2 * KEY_ID_BYTES + 1];
    k->pkey = pkey;
    k->has_private = has_private;
    key_id(name, public, k->id);
    memcpy(typed + 1, public, ED25519_PUBLIC_BYTES);
    hex_encode(k->id, KEY_ID_BYTES, hash);
    struct strview text =
        arena_printf(&a, "%.*s+%s+%.*s", SV_ARG(name), hash, SV_ARG(base64_encode(&a, typed, sizeof(typed))));
    char *copy = sv_heap_copy(text);
    k->public_text = sv_n(copy, text.len);
    k->name = sv_n(copy, name.len);
    arena_release(&a);
    return k;
}

enum status audit_key_parse_public(struct strview text, struct audit_key **ret_key, struct error *err)
{
    struct strview rest = sv_trim(text), name, hash;
    uint8_t typed[1 + ED25519_PUBLIC_BYTES], id[KEY_ID_BYTES], expected[KEY_ID_BYTES];
    if (!sv_next(&rest, '+', &name) || !is_key_name(name) || !sv_next(&rest, '+', &hash) ||
        hex_decode(hash, id, sizeof(id)) != STATUS_OK)
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "not a verifier key: expected NAME+HASH+BASE64 on one line");
    if (base64_decode_exact(rest, typed, sizeof(typed)) != STATUS_OK || typed[0] != ED25519_ALGORITHM)
        return error_set(err, STATUS_INVALID_ARGUMENT, "verifier key '%.*s': not an Ed25519 key in base64",
                         SV_ARG(name));
    key_id(name, typed + 1, expected);
    if (memcmp(id, expected, sizeof(id)) != 0)
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "verifier key '%.*s': the hash %.*s is not that of this name and key", SV_ARG(name),
                         SV_ARG(hash));
    EVP_PKEY *pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, typed + 1, ED25519_PUBLIC_BYTES);
    if (pkey == NULL)
        return error_set(err, STATUS_INVALID_ARGUMENT, "verifier key '%.*s': %s", SV_ARG(name),
                         openssl_reason());
    *ret_key = key_new(pkey, false, name, typed + 1);
    return STATUS_OK;
}

enum status audit_key_read_public(const char *path, struct audit_key **ret_key, struct error *err)
{
    struct arena a = {0};
    struct strview text;
    enum status s = file_read(&a, path, KEY_FILE_MAX, &text, err);
    if (s == STATUS_NOT_FOUND)
        s = error_set(err, STATUS_FAILED_PRECONDITION, "there is no public key at '%s'", path);
    else if (s == STATUS_OK)
        s = audit_key_parse_public(text, ret_key, err);
    arena_release(&a);
    return s == STATUS_OK || s == STATUS_FAILED_PRECONDITION ? s
                                                             : error_prefix(err, s, "public key '%s'", path);
}

struct strview audit_key_public_text(const struct audit_key *k)
{
    return k->public_text;
}

void audit_key_free(struct audit_key *k)
{
    if (k == NULL) return;
    EVP_PKEY_free(k->pkey);
    free((char *)k->public_text.ptr);
    free(k);
}

/* ---- files ---- */

static enum status write_private(const char *path, EVP_PKEY *pkey, struct error *err)
{
    BIO *bio = BIO_new(BIO_s_secmem());
    char *pem = NULL;
    enum status s;
    if (bio == NULL || PEM_write_bio_PKCS8PrivateKey(bio, pkey, NULL, NULL, 0, NULL, NULL) != 1) {
        s = error_set(err, STATUS_INTERNAL, "encode a signing key: %s", openssl_reason());
    } else {
        long len = BIO_get_mem_data(bio, &pem);
        s = file_write_atomic(path, sv_n(pem, (size_t)len), 0600, err);
        mem_wipe(pem, (size_t)len);
    }
    BIO_free(bio);
    return s;
}

static enum status generate(const char *path, EVP_PKEY **ret_pkey, struct error *err)
{
    EVP_PKEY *pkey = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    if (pkey == NULL) return error_set(err, STATUS_INTERNAL, "make a signing key: %s", openssl_reason());
    enum status s = write_private(path, pkey, err);
    if (s != STATUS_OK) {
        EVP_PKEY_free(pkey);
        return s;
    }
    *ret_pkey = pkey;
    return STATUS_OK;
}

/* STATUS_NOT_FOUND: no such file. */
static enum status read_private(const char *path, EVP_PKEY **ret_pkey, struct error *err)
{
    struct arena a = {0};
    struct strview pem;
    struct stat st;
    enum status s = file_read(&a, path, KEY_FILE_MAX, &pem, err);
    if (s != STATUS_OK) goto out;
    if (stat(path, &st) == 0 && (st.st_mode & 077) != 0)
        s = error_set(err, STATUS_FAILED_PRECONDITION,
                      "'%s' can be read by others (mode %04o): chmod 600 it, or replace the key", path,
                      (unsigned)(st.st_mode & 07777));
    if (s == STATUS_OK) {
        BIO *bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);
        EVP_PKEY *pkey = bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)"") : NULL;
        BIO_free(bio);
        if (pkey == NULL || EVP_PKEY_get_id(pkey) != EVP_PKEY_ED25519) {
            s = error_set(err, STATUS_FAILED_PRECONDITION, "'%s' is not an Ed25519 private key in PEM", path);
            ERR_clear_error();
            EVP_PKEY_free(pkey);
        } else {
            *ret_pkey = pkey;
        }
    }
    mem_wipe((char *)pem.ptr, pem.len);
out:
    arena_release(&a);
    return s;
}

/* The name in an existing key.pub stays, whatever the configuration says today: the checkpoints carry it. */
static enum status settle_public(const char *path, struct strview origin, EVP_PKEY *pkey,
                                 struct audit_key **ret_key, struct error *err)
{
    struct arena a = {0};
    struct strview text;
    struct audit_key *known = NULL, *key = NULL;
    uint8_t public[ED25519_PUBLIC_BYTES];
    size_t len = sizeof(public);
    if (EVP_PKEY_get_raw_public_key(pkey, public, &len) != 1)
        return error_set(err, STATUS_INTERNAL, "public half of the signing key: %s", openssl_reason());
    enum status s = file_read(&a, path, KEY_FILE_MAX, &text, err);
    if (s == STATUS_OK) {
        s = audit_key_parse_public(text, &known, err);
        if (s != STATUS_OK) s = error_prefix(err, s, "'%s'", path);
    } else if (s == STATUS_NOT_FOUND) {
        s = is_key_name(origin) ? STATUS_OK
                                : error_set(err, STATUS_INVALID_ARGUMENT,
                                            "'%.*s' cannot name a key: white space or '+'", SV_ARG(origin));
    }
    if (s == STATUS_OK) {
        (void)EVP_PKEY_up_ref(pkey);
        key = key_new(pkey, true, known != NULL ? known->name : origin, public);
        if (known == NULL)
            s = file_write_atomic(path, arena_printf(&a, "%.*s\n", SV_ARG(key->public_text)), 0644, err);
        else if (!sv_eq(known->public_text, key->public_text))
            s = error_set(err, STATUS_FAILED_PRECONDITION,
                          "'%s' is not the public half of the signing key beside it", path);
    }
    if (s == STATUS_OK) {
        *ret_key = key;
        key = NULL;
    }
    audit_key_free(key);
    audit_key_free(known);
    arena_release(&a);
    return s;
}

enum status audit_key_load(const char *dir, struct strview origin, struct audit_key **ret_key,
                           struct error *err)
{
    struct arena a = {0};
    EVP_PKEY *pkey = NULL;
    const char *folder = arena_printf(&a, "%s/audit", dir).ptr;
    const char *path = arena_printf(&a, "%s/key", folder).ptr,
               *public_path = arena_printf(&a, "%s.pub", path).ptr;
    struct stat st;
    enum status s = dir_make(folder, 0700, err);
    if (s == STATUS_OK) s = read_private(path, &pkey, err);
    if (s == STATUS_NOT_FOUND && stat(public_path, &st) == 0)
        s = error_set(
            err, STATUS_FAILED_PRECONDITION,
            "'%s' is gone while '%s' is there: restore it; or move the audit folder away to begin a new log with a new key",
            path, public_path);
    else if (s == STATUS_NOT_FOUND)
        s = generate(path, &pkey, err);
    if (s == STATUS_OK) s = settle_public(public_path, origin, pkey, ret_key, err);
    EVP_PKEY_free(pkey);
    arena_release(&a);
    return s;
}
