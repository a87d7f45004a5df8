/* `balm audit verify`: is the journal on this disk the one that was sealed, and is it complete? Needs the
 * journal, the checkpoints and the public key; no server, no private key. Lines are hashed without being
 * parsed; only intents and outcomes are looked into, for completeness.
 *
 * Sealing (functions/audit) keeps DIR/audit/leaves (32-byte leaf hashes, position seq - 1) and
 * DIR/audit/checkpoints (signed notes, each followed by one empty line, oldest first). Both are folds and can
 * be made anew from the journal, except the signatures. */
#ifndef BALM_AUDIT_VERIFY_H
#define BALM_AUDIT_VERIFY_H

#include "audit/merkle.h"

struct audit_report {
    uint64_t records; /* hashed */
    uint64_t
        removed; /* of those the first ones, gone by retention: their hashes in audit/leaves were taken */
    uint64_t checkpoints;    /* signatures and roots that hold */
    uint64_t sealed_records; /* covered by the newest good checkpoint */
    int64_t sealed_unix_ns;  /* its time */
    struct merkle_hash root; /* over all records */
    uint64_t first_bad_seq; /* 0: none; else the first record whose hash is not the sealed one (or the size of
                               the first checkpoint that fails) */
    struct strview bad_reason;    /* one sentence; arena */
    struct strview *open_intents; /* intents without outcome; arena, at most 100 of them */
    size_t n_open_intents;        /* how many there are in all */
    /* Records behind the newest good checkpoint go on for longer than a crash explains, or none is sealed and
     * the last one was not written just now. */
    bool is_end_unsealed;
    struct strview *late_seals; /* what records of kind "unsealed" say; arena */
    size_t n_late_seals;        /* the first AUDIT_LATE_SEALS_MAX of them */
    struct strview
        *restores;     /* what records of kind "restored" say: the log is whole, what happened is not */
    size_t n_restores; /* the same */
};

#define AUDIT_LATE_SEALS_MAX 100

struct audit_verify_cfg {
    const char *data_dir;
    const char *public_key_file; /* NULL: DIR/audit/key.pub, or that of before_dir */
    /* What an earlier key signed, as balm restore sets it aside: DIR/audit/before-TIME, with key.pub and
     * checkpoints. Records behind them are then not called unsealed. NULL: the key in use. */
    const char *before_dir;
    const char *checkpoints_file; /* checkpoints that were kept elsewhere (notes_read_kept()); NULL: none */
    void (*on_progress)(uint64_t done, void *arg); /* NULL: none; called about every 100 000 records */
    void *arg;
};

/* STATUS_OK: read to the end, the report says what was found. STATUS_NOT_FOUND: no journal there.
 * STATUS_INVALID_ARGUMENT: no checkpoints in checkpoints_file. Where retention of a running platform removes
 * records meanwhile and the seal that was read does not say so yet, it begins again; STATUS_UNAVAILABLE: each
 * time. */
enum status audit_verify(const struct audit_verify_cfg *cfg, struct arena *a, struct audit_report *ret_report,
                         struct error *err) MUST_USE;

#endif
