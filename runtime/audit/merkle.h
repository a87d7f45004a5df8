/* The tamper-evident tree over the journal: RFC 6962 §2.1 Merkle tree hash, grown leaf by leaf, and
 * checkpoints in C2SP's signed-note form (tlog-checkpoint.md, signed-note.md) with Ed25519. Pure: bytes in,
 * hashes and text out. */
#ifndef BALM_AUDIT_MERKLE_H
#define BALM_AUDIT_MERKLE_H

#include "base/arena.h"
#include "base/hash.h"

struct merkle_hash {
    uint8_t bytes[SHA256_BYTES];
};

/* Leaf = SHA-256(0x00 || bytes as stored). */
struct merkle_hash merkle_leaf(struct strview bytes);

/* Compact range [0, size): the roots of the perfect subtrees, largest first. Value type. */
struct merkle_tree {
    uint64_t size;
    struct merkle_hash peaks[64];
    unsigned n_peaks;
};

/* The empty tree. */
void merkle_tree_init(struct merkle_tree *t);
void merkle_tree_add(struct merkle_tree *t, struct merkle_hash leaf);
/* Root; SHA-256("") for the empty tree. */
struct merkle_hash merkle_tree_root(const struct merkle_tree *t);

/* ---- checkpoints ---- */

struct audit_key; /* Ed25519 pair or public half */
/* Reads DIR/audit/key (0600, PKCS#8 PEM); makes it and DIR/audit/key.pub (C2SP verifier key text) if missing.
 */
enum status audit_key_load(const char *dir, struct strview origin, struct audit_key **ret_key,
                           struct error *err) MUST_USE;
/* Public half from its C2SP text: "NAME+HASH+BASE64". */
enum status audit_key_parse_public(struct strview text, struct audit_key **ret_key,
                                   struct error *err) MUST_USE;
/* The same from a file. STATUS_FAILED_PRECONDITION: there is none. */
enum status audit_key_read_public(const char *path, struct audit_key **ret_key, struct error *err) MUST_USE;
struct strview audit_key_public_text(const struct audit_key *k); /* borrowed */
void audit_key_free(struct audit_key *k);

/* Text: origin \n size \n base64(root) \n ["time RFC3339" extension line] \n \n "— NAME BASE64" \n. */
enum status checkpoint_sign(const struct audit_key *k, uint64_t size, struct merkle_hash root,
                            int64_t time_unix_ns, struct arena *a, struct strview *ret_note,
                            struct error *err) MUST_USE;
/* What is left over at the end of a file of checkpoints, behind the one of size `last_size`, and is no whole
 * note: was it torn by a crash? True if it is shorter than a note of that size, or of the one that it says
 * itself, with the empty line behind; anything longer was damaged. */
bool checkpoint_is_torn(const struct audit_key *k, struct strview rest, uint64_t last_size) MUST_USE;
/* The size that a note says, whether it holds or not; 0: none. */
uint64_t checkpoint_claimed_size(struct strview note);
struct checkpoint {
    uint64_t size;
    struct merkle_hash root;
    int64_t time_unix_ns;
    struct strview origin;
};
/* STATUS_UNAUTHENTICATED: no valid signature of k. STATUS_INVALID_ARGUMENT: not a checkpoint. */
enum status checkpoint_verify(const struct audit_key *k, struct strview note, struct arena *a,
                              struct checkpoint *ret_checkpoint, struct error *err) MUST_USE;

#endif
