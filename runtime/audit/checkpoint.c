/* Checkpoints: C2SP tlog-checkpoint.md inside signed-note.md.
 *
 *   balm.dev/audit/local                        origin = name of the key
 *   1234                                        size
 *   ojZM1…=                                     root, base64
 *   time 2026-11-22T14:01:24.123456789Z         extension line
 *                                               (empty: the text above, with its last newline, is what is
 * signed) — balm.dev/audit/local Az3grl…              base64 of key id (4) and signature (64)
 */
#include "audit/audit_impl.h"

#include <string.h>

#include "base/clock.h"

#define SIGNATURES_MAX   16 /* of a note: witnesses may add theirs */
#define SIGNATURE_PREFIX "\xE2\x80\x94 "
#define TIME_PREFIX      "time "

struct signature {
    uint8_t id[KEY_ID_BYTES];
    uint8_t bytes[ED25519_SIGNATURE_BYTES];
};

static enum status sign(const struct audit_key *k, struct strview text, struct signature *ret_signature,
                        struct error *err)
{
    size_t len = sizeof(ret_signature->bytes);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool is_good =
        ctx != NULL && EVP_DigestSignInit(ctx, NULL, NULL, NULL, k->pkey) == 1 &&
        EVP_DigestSign(ctx, ret_signature->bytes, &len, (const unsigned char *)text.ptr, text.len) == 1;
    EVP_MD_CTX_free(ctx);
    memcpy(ret_signature->id, k->id, KEY_ID_BYTES);
    return is_good ? STATUS_OK : error_set(err, STATUS_INTERNAL, "sign a checkpoint: %s", openssl_reason());
}

static bool is_signed(const struct audit_key *k, struct strview text, const struct signature *signature)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool is_good = ctx != NULL && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, k->pkey) == 1 &&
                   EVP_DigestVerify(ctx, signature->bytes, sizeof(signature->bytes),
                                    (const unsigned char *)text.ptr, text.len) == 1;
    EVP_MD_CTX_free(ctx);
    if (!is_good) (void)openssl_reason();
    return is_good;
}

enum status checkpoint_sign(const struct audit_key *k, uint64_t size, struct merkle_hash root,
                            int64_t time_unix_ns, struct arena *a, struct strview *ret_note,
                            struct error *err)
{
    if (!k->has_private)
        return error_set(err, STATUS_FAILED_PRECONDITION,
                         "sign a checkpoint: only the public half of the key is there");
    char time[RFC3339_LEN + 1];
    rfc3339_format(time_unix_ns, time);
    struct strview text =
        arena_printf(a, "%.*s\n%llu\n%.*s\n" TIME_PREFIX "%s\n", SV_ARG(k->name), (unsigned long long)size,
                     SV_ARG(base64_encode(a, root.bytes, sizeof(root.bytes))), time);
    struct signature signature;
    enum status s = sign(k, text, &signature, err);
    if (s != STATUS_OK) return s;
    *ret_note = arena_printf(a, "%.*s\n" SIGNATURE_PREFIX "%.*s %.*s\n", SV_ARG(text), SV_ARG(k->name),
                             SV_ARG(base64_encode(a, &signature, sizeof(signature))));
    return STATUS_OK;
}

/* Of a note with the empty line that parts it from the next. */
static size_t block_bytes(const struct audit_key *k, uint64_t size)
{
    size_t digits = 1;
    for (; size > 9; size /= 10)
        digits++;
    size_t text = k->name.len + 1 + digits + 1 + BASE64_BYTES(SHA256_BYTES) + 1 + sizeof(TIME_PREFIX) - 1 +
                  RFC3339_LEN + 1;
    return text + 1 + sizeof(SIGNATURE_PREFIX) - 1 + k->name.len + 1 +
           BASE64_BYTES(sizeof(struct signature)) + 1 + 1;
}

uint64_t checkpoint_claimed_size(struct strview note)
{
    struct strview line;
    uint64_t size = 0;
    if (!sv_next(&note, '\n', &line) || !sv_next(&note, '\n', &line) ||
        sv_parse_u64(line, &size) != STATUS_OK)
        return 0;
    return size;
}

/* Sizes grow, and with them the number of their digits. */
bool checkpoint_is_torn(const struct audit_key *k, struct strview rest, uint64_t last_size)
{
    uint64_t size = checkpoint_claimed_size(rest);
    return rest.len < block_bytes(k, size > last_size ? size : last_size);
}

/* ---- reading ---- */

static enum status malformed(struct error *err, const char *what)
{
    return error_set(err, STATUS_INVALID_ARGUMENT, "not a checkpoint: %s", what);
}

/* The last empty line parts text and signatures. */
static bool split_note(struct strview note, struct strview *ret_text, struct strview *ret_signatures)
{
    if (note.len < 4 || note.ptr[note.len - 1] != '\n') return false;
    for (size_t i = note.len - 2; i > 0; i--) {
        if (note.ptr[i] != '\n' || note.ptr[i - 1] != '\n') continue;
        *ret_text = sv_sub(note, 0, i);
        *ret_signatures = sv_sub(note, i + 1, note.len);
        return true;
    }
    return false;
}

static bool has_control_characters(struct strview text)
{
    for (size_t i = 0; i < text.len; i++)
        if (((unsigned char)text.ptr[i] < ' ' && text.ptr[i] != '\n') || text.ptr[i] == 0x7F) return true;
    return false;
}

/* A further line of `rest`, which ends in a newline. */
static bool next_line(struct strview *rest, struct strview *ret_line)
{
    if (rest->len == 0) return false;
    size_t end = sv_find(*rest, '\n');
    *ret_line = sv_sub(*rest, 0, end);
    *rest = sv_sub(*rest, end + 1, rest->len);
    return true;
}

/* Signatures of others are passed over; one that claims to be ours must hold. */
static enum status check_signatures(const struct audit_key *k, struct strview text, struct strview rest,
                                    struct error *err)
{
    struct strview line;
    bool is_found = false;
    for (unsigned n = 0; next_line(&rest, &line); n++) {
        if (n == SIGNATURES_MAX || !sv_starts_with(line, SV(SIGNATURE_PREFIX)))
            return malformed(err, "a signature line is damaged");
        line = sv_sub(line, sizeof(SIGNATURE_PREFIX) - 1, line.len);
        size_t space = sv_find(line, ' ');
        struct strview name = sv_sub(line, 0, space), base64 = sv_sub(line, space + 1, line.len);
        if (name.len == 0 || base64.len == 0) return malformed(err, "a signature line is damaged");
        if (!sv_eq(name, k->name)) continue;
        struct signature signature;
        if (base64_decode_exact(base64, &signature, sizeof(signature)) != STATUS_OK)
            return malformed(err, "the signature is not 68 bytes in base64");
        if (memcmp(signature.id, k->id, KEY_ID_BYTES) != 0) continue;
        if (!is_signed(k, text, &signature))
            return error_set(err, STATUS_UNAUTHENTICATED, "the signature of '%.*s' does not hold",
                             SV_ARG(k->name));
        is_found = true;
    }
    if (is_found) return STATUS_OK;
    return error_set(err, STATUS_UNAUTHENTICATED, "not signed by the key '%.*s'", SV_ARG(k->public_text));
}

static enum status parse_size(struct strview line, uint64_t *ret_size)
{
    if (line.len > 1 && line.ptr[0] == '0') return STATUS_INVALID_ARGUMENT;
    return sv_parse_u64(line, ret_size);
}

static enum status parse_text(struct strview rest, struct checkpoint *c, struct error *err)
{
    struct strview line;
    if (!next_line(&rest, &c->origin) || c->origin.len == 0) return malformed(err, "no origin line");
    if (!next_line(&rest, &line) || parse_size(line, &c->size) != STATUS_OK)
        return malformed(err, "no size line");
    if (!next_line(&rest, &line) ||
        base64_decode_exact(line, c->root.bytes, sizeof(c->root.bytes)) != STATUS_OK)
        return malformed(err, "no root line of 32 bytes in base64");
    while (next_line(&rest, &line)) {
        if (line.len == 0) return malformed(err, "an empty extension line");
        if (!sv_starts_with(line, SV(TIME_PREFIX))) continue;
        if (rfc3339_parse(sv_sub(line, sizeof(TIME_PREFIX) - 1, line.len), &c->time_unix_ns) != STATUS_OK)
            return malformed(err, "the time line is no RFC 3339 time");
    }
    return STATUS_OK;
}

enum status checkpoint_verify(const struct audit_key *k, struct strview note, struct arena *a,
                              struct checkpoint *ret_checkpoint, struct error *err)
{
    struct checkpoint c = {0};
    struct strview text, signatures;
    if (!sv_is_utf8(note) || has_control_characters(note))
        return malformed(err, "not UTF-8 text, or control characters in it");
    if (!split_note(note, &text, &signatures)) return malformed(err, "no empty line before the signatures");
    enum status s = check_signatures(k, text, signatures, err);
    if (s == STATUS_OK) s = parse_text(text, &c, err);
    if (s != STATUS_OK) return s;
    if (!sv_eq(c.origin, k->name))
        return error_set(err, STATUS_UNAUTHENTICATED, "a checkpoint of the log '%.*s', not of '%.*s'",
                         SV_ARG(c.origin), SV_ARG(k->name));
    c.origin = arena_copy(a, c.origin);
    *ret_checkpoint = c;
    return STATUS_OK;
}
