/* The journal: one totally ordered log of records; everything else is a fold over it.
 *
 *   journal_append(records) --- seq assigned, encoded --> followers called, in order, at once (may append)
 *          |                                                |
 *          v                                                v
 *   writer (own thread): one transaction per group     fold: episodes, incidents, queue …
 *          |
 *          v  fdatasync
 *   durable_seq moves up --> journal_wait_durable() returns: only now may an effect happen (202, invocation)
 *
 * What one outermost journal_append() call adds, together with what followers append while it runs,
 * becomes durable in one transaction: an input and what was decided on it are never torn apart. Order of
 * sequences = order of follower calls = order of durability.
 *
 * A store that assigns sequences only with its acknowledgement and shares its log with other processes
 * (JetStream) suspends inside journal_append() until the records have come back and followers have seen them;
 * what followers append goes to it after their call. There
 *   - a crash can part an input from what was decided on it, and cut an append of several records short:
 *     never rely on finding the rest (a decider that takes over looks at everything anew; a sender that got
 *     no answer sends again);
 *   - others' records may lie between an input and what was decided on it, and between those of one append;
 *   - other fibers' and processes' records may be shown while an append suspends: what two have judged before
 *     it is appended twice.
 * So a follower must not rely on running before the record is durable, nor after it, nor on its own records
 * being next to their cause.
 *
 * After a failed commit nothing is acknowledged: all waiting and later calls get STATUS_UNAVAILABLE until
 * the store has been reopened and the last acknowledged sequence checked. Then every follower is told by
 * on_reset(), the journal folds its past into them anew, and only then it accepts again and gives
 * sequences that were never durable a second time. So a sequence is good for journal_wait_durable() only
 * while nothing was waited for since it was given, or while journal_generation() is still the same. Loop
 * thread only, except where a store says otherwise. */
#ifndef BALM_STORE_JOURNAL_H
#define BALM_STORE_JOURNAL_H

#include "base/pack.h"
#include "loop/loop.h"
#include "store/record.h"

struct journal;

struct journal_entry {
    uint64_t seq;                /* 1, 2, 3 … without gaps */
    struct strview bytes;        /* canonical; borrowed for the call, or in the reader's arena */
    const struct record *record; /* decoded form of the same; never NULL for followers */
};

struct journal_cfg {
    const char *dir;          /* folder of the segments; made with 0700 if missing */
    size_t pending_max_bytes; /* appended, not yet durable; beyond: STATUS_UNAVAILABLE. 0: 64 MiB */
    size_t segment_max_bytes; /* a new segment file after so much; 0: 256 MiB */
    /* Of records that do not say; empty: "default", "local". Borrowed for the journal's life. */
    struct strview tenant, cluster;
    const char *snapshots_dir; /* made with 0700 if missing; NULL: no snapshots */
    uint64_t snapshot_every;   /* records; 0: 50 000 */
    /* A file that takes space until the disk is full (store/reserve.h); NULL: none. */
    const char *reserve_file;
    uint64_t reserve_bytes;
};

/* ---- life cycle ---- */

/* SQLite: DIR/NNNNNNNNNNNNNNNNNNNN.db, named by its first sequence; WAL, synchronous=FULL, one writer thread.
 * STATUS_DATA_LOSS: sequences have a gap or a segment is damaged; the message names it.
 * STATUS_FAILED_PRECONDITION: newer format. */
enum status journal_open_sqlite(struct loop *l, const struct journal_cfg *cfg, struct journal **ret_journal,
                                struct error *err) MUST_USE;
/* Waits for what was appended, stops the writer, checkpoints. From a fiber. */
void journal_close(struct journal *j);

/* ---- writing ---- */

/* Append n records in order, all or none. tenant and cluster are filled in where empty; time must be set.
 * ret_last_seq may be NULL.
 * From a fiber: may suspend, and is not cut short by cancellation. When it has returned, every follower has
 * seen the records.
 * Called by a follower from on_record(): never suspends, and ret_last_seq must be NULL, since a store may not
 * know the sequences yet; followers see the records after the one under way has been shown to all.
 * STATUS_UNAVAILABLE: store failed (the records may come back all the same), the past is being folded, or too
 * much is pending (a follower is not held to that limit).
 * STATUS_INVALID_ARGUMENT: a record over RECORD_BYTES_MAX or without time. */
enum status journal_append(struct journal *j, struct record *records, size_t n, uint64_t *ret_last_seq,
                           struct error *err) MUST_USE;
struct journal_usher {
    void (*before_append)(struct journal_usher *u, struct record *records, size_t n);
};
/* Sees records before they are appended, but for those of followers: it may date them anew, and append
 * records of its own that go before them (it does not see those). Must not suspend. One a journal; NULL:
 * nobody. */
void journal_set_usher(struct journal *j, struct journal_usher *u);
/* Suspends until seq is durable. Cancellation and deadlines end the wait, not the append.
 * STATUS_UNAVAILABLE: the commit failed; the record may not be there after a restart. */
enum status journal_wait_durable(struct journal *j, uint64_t seq, int64_t deadline_ns,
                                 struct error *err) MUST_USE;
uint64_t journal_first_seq(const struct journal *j); /* the oldest kept; grows as the store forgets */
uint64_t journal_last_seq(const struct journal *j);
uint64_t journal_durable_seq(const struct journal *j);
/* When seq became durable (wall clock), for the last 65 536 sequences; 0 beyond or not yet. */
int64_t journal_durable_unix_ns(const struct journal *j, uint64_t seq);
size_t journal_pending_bytes(const struct journal *j);
bool journal_is_healthy(const struct journal *j);
/* Of the reserve: what is left of how much. 0 of 0: there is none. */
uint64_t journal_reserve_left(const struct journal *j, uint64_t *ret_size);
/* For others on this disk without whom an alert cannot be answered, and who found it full: a piece of the
 * reserve is given up, try again. False: the disk is not full, or nothing is left. A few system calls. */
bool journal_reserve_give(struct journal *j);
uint64_t journal_generation(const struct journal *j); /* grows with each reset */

/* ---- following ---- */

struct journal_follower {
    struct list node;    /* journal's */
    uint64_t folded_seq; /* journal's: while it folds, what this one has already seen or loaded */
    /* Called for each record in order, from inside journal_append() or on the loop's own stack; must not
     * suspend. */
    void (*on_record)(struct journal_follower *f, const struct journal_entry *e);
    /* What was appended after `durable_seq` is gone: drop the state. The journal then shows all records
     * from the first on once more, to all followers that have this member, before it accepts anything.
     * Must not suspend. May come twice in a row. NULL: stateless, and nothing is shown again. */
    void (*on_reset)(struct journal_follower *f, uint64_t durable_seq);
    /* Its part of a snapshot: the state behind the last record shown, and back. `name` is its key in the file
     * (NULL: it has none and always folds the whole past). A part that is not there, is of a version above
     * `version` or does not load is made by folding again, so a version is raised when older programs could
     * not read the part or older parts lack something that matters; on_load() gets the older version then and
     * may refuse it. on_save() runs in a child process that ends behind it: it changes nothing, waits for
     * nothing and takes no lock. on_load() must not suspend; where it fails, on_reset() follows. */
    const char *name;
    unsigned version;
    void (*on_save)(const struct journal_follower *f, struct pack *p);
    enum status (*on_load)(struct journal_follower *f, unsigned version, struct unpack *u, struct error *err);
};

/* Called for records appended from now on, by whatever process. Followers are called in the order in which
 * they were added. Those that need the past are added before journal_fold(): until it has returned, or else
 * something was appended or waited for, none arrive. */
void journal_follow(struct journal *j, struct journal_follower *f);
void journal_unfollow(struct journal *j, struct journal_follower *f);
/* Suspends until durable_seq > seq, for those who read at their own pace (sealing, push). */
enum status journal_wait_after(struct journal *j, uint64_t seq, int64_t deadline_ns) MUST_USE;

/* ---- reading ---- */

/* Durable records seq, seq + 1, … (≤ max ≤ 1000, and about 4 MiB), on a worker thread; suspends. n 0:
 * nothing there yet. `record` is NULL unless `decode`. STATUS_OUT_OF_RANGE: seq lies before the oldest
 * kept. */
enum status journal_read(struct journal *j, uint64_t seq, size_t max, bool decode, struct arena *a,
                         struct journal_entry **ret_entries, size_t *ret_n, struct error *err) MUST_USE;
/* The same, from the oldest kept on where retention has removed seq, also while this was on its way. */
enum status journal_read_kept(struct journal *j, uint64_t seq, size_t max, bool decode, struct arena *a,
                              struct journal_entry **ret_entries, size_t *ret_n, struct error *err) MUST_USE;
/* All durable records from seq on, in order, decoded, through f->on_record; suspends between batches. For
 * the fold at the start. */
enum status journal_replay(struct journal *j, uint64_t seq, struct journal_follower *f,
                           struct error *err) MUST_USE;

/* Brings every follower to the last durable record: from the newest snapshot that fits, else from the first
 * record on, read once for all of them. Meanwhile nothing can be appended. From then on a snapshot is written
 * every cfg.snapshot_every records. STATUS_DATA_LOSS: the message names the record and file. */
enum status journal_fold(struct journal *j, struct error *err) MUST_USE;

/* ---- snapshots ----
 *
 * A cache of what the followers have folded, so that a start reads the tail alone.
 * DIR/NNNNNNNNNNNNNNNNNNNN.snapshot, named by the sequence up to which it goes; the newest two are kept:
 *
 *   "balm snapshot 1\n"
 *   SHA-256 of the record of that sequence
 *   parts …
 *   footer (base/pack.h): sequence, parts {name, version, offset, bytes} …
 *   offset of the footer (8 bytes, little-endian), CRC-32 of parts and footer (4), "end\n"
 *
 * A forked child writes the state as it was at that instant while this process goes on; the file gets its
 * name once the records that it covers are durable. The CRC is against accidents: whoever can write here can
 * write the journal as well. */

/* Write one now; suspends. STATUS_FAILED_PRECONDITION: no folder was given, or the past is not folded yet;
 * STATUS_UNAVAILABLE: fork, disk or store failed, the older ones are still there. */
enum status journal_snapshot(struct journal *j, struct error *err) MUST_USE;
/* Of the newest one written or loaded; 0: none. */
uint64_t journal_snapshot_seq(const struct journal *j);

/* Without a loop and without a running platform, for the command line: read-only, transactions of at most
 * 1 000 records, so that a reader never holds up the writer's checkpoint. */
struct journal_reader;
enum status journal_reader_open(const char *dir, struct journal_reader **ret_reader,
                                struct error *err) MUST_USE;
/* NULL does nothing. Borrowed views of entries live on in the caller's arena. */
void journal_reader_close(struct journal_reader *r);
uint64_t journal_reader_first_seq(struct journal_reader *r);
/* Next up to `max` records from seq on. n 0: no more yet. STATUS_OUT_OF_RANGE: seq lies before the
 * oldest kept. STATUS_PERMISSION_DENIED: SQLite's WAL needs write permission on the folder even for
 * reading. Any thread, one at a time. */
enum status journal_reader_read(struct journal_reader *r, uint64_t seq, size_t max, bool decode,
                                struct arena *a, struct journal_entry **ret_entries, size_t *ret_n,
                                struct error *err) MUST_USE;

/* ---- forgetting (store/retention.h decides what) ---- */

/* Somebody who will still read old records, or needs them to be folded again. */
struct journal_keeper {
    struct list node; /* journal's */
    const char *name; /* for people: "dispatcher" */
    /* The first record that is needed; UINT64_MAX: none. Must not suspend. */
    uint64_t (*oldest_needed)(struct journal_keeper *k);
    /* What is needed of the records before seq is recorded anew, if it can be; suspends. NULL: never. */
    void (*renew)(struct journal_keeper *k, uint64_t seq);
    /* What lies before oldest_needed() is sealed by it: a removal waits until its announcement is. */
    bool is_seal;
};

/* For life, or until unkept; not from inside of a keeper's own call. */
void journal_keep(struct journal *j, struct journal_keeper *k);
void journal_unkeep(struct journal *j, struct journal_keeper *k);

/* ---- small leased keys (who is the decider, who runs this target) ---- */

/* Take or renew `key` for `holder` until now + ttl. *ret_revision grows with every change of holder: it is
 * the fence.
 * STATUS_ALREADY_EXISTS: another holder has it. */
enum status journal_lease_acquire(struct journal *j, struct strview key, struct strview holder,
                                  int64_t ttl_ns, uint64_t *ret_revision, struct error *err) MUST_USE;
/* For others to take at once. STATUS_NOT_FOUND: it is not `holder`'s (any more). */
enum status journal_lease_release(struct journal *j, struct strview key, struct strview holder,
                                  struct error *err) MUST_USE;

/* ---- what a store provides (journal_impl.h has the shared part) ---- */
struct journal_ops;

#endif
