/* Inside of the journal: for runtime/store/journal*.c and the tests of another store alone.
 *
 *   journal.c          the front, the same for every store: encoding, sequences, followers, waits, failure
 *   journal_fold.c     bringing followers to the present: snapshot, then the tail; again after a failure
 *   journal_snapshot.c writing snapshots, by a child process
 *   snapshot_file.c    what is in such a file
 *   retention.c        removing what is old
 *   journal_log.c      what was appended and is not yet durable, as frames in chunks
 *   journal_sqlite.c   the SQLite store: hand-over, reading, life cycle  -> const struct journal_ops
 *   journal_writer.c   its writer thread: groups, checkpoints, recovery
 *   journal_segment.c  one segment file: create, open, insert a group, checkpoint
 *   journal_reader.c   reading segments, from this process and from others
 *   journal_lease.c    leased keys in a file of their own
 *   journal_db.c       the few SQLite calls all of them make, with our errors
 *
 * The loop thread pushes frames and publishes a position (the end of an outermost append) under the store's
 * lock; the writer reads frames up to it. Frames before a published position are never touched again by the
 * loop thread until the writer has reported them as committed, so the bytes themselves need no lock. */
#ifndef BALM_STORE_JOURNAL_IMPL_H
#define BALM_STORE_JOURNAL_IMPL_H

#include <stdalign.h>

#include "base/hash.h"
#include "store/journal.h"
#include "store/reserve.h"

#define JOURNAL_PATH_MAX 4096

/* ---- journal_log.c: a queue of frames, one producer, one consumer ---- */

#define JOURNAL_CHUNK_BYTES (256 * 1024)

struct journal_frame {
    uint64_t seq;
    const struct record *record; /* until the outermost append returns: what followers are given */
    uint32_t bytes_len;
    bool ends_append; /* a transaction may end behind this frame */
    char bytes[];
};

struct journal_chunk {
    struct journal_chunk *next;
    size_t used, capacity; /* of data[]; `used` is final once there is a next */
    alignas(16) char data[];
};

struct journal_position {
    struct journal_chunk *chunk;
    size_t offset;
    uint64_t total_bytes; /* of records, pushed since the log was made: differences are pending bytes */
};

struct journal_log {
    struct journal_chunk *head;  /* oldest; never NULL */
    struct journal_chunk *spare; /* one emptied chunk is kept */
    struct journal_position end;
};

void journal_log_init(struct journal_log *log);
void journal_log_release(struct journal_log *log);
/* Copy one record to the end. The frame stays where it is until dropped. */
struct journal_frame *journal_log_push(struct journal_log *log, uint64_t seq, struct strview bytes);
/* Take back everything behind `end`, which nobody else has seen. */
void journal_log_cut(struct journal_log *log, struct journal_position end);
/* Frees chunks that lie wholly before `at`. */
void journal_log_drop(struct journal_log *log, struct journal_position at);
/* Drop everything. Every position taken before is void; the total starts again. */
void journal_log_clear(struct journal_log *log);
/* The frame at *at, moving past it; NULL at `end`. */
struct journal_frame *journal_log_next(struct journal_position *at, struct journal_position end);

/* ---- journal.c: the front ---- */

#define JOURNAL_PENDING_BYTES  (64 * 1024 * 1024)
#define JOURNAL_READ_MAX       1000
#define JOURNAL_READ_BYTES     (4 * 1024 * 1024) /* a batch ends behind the record that passes this */
#define JOURNAL_DURABLE_TIMES  65536
#define JOURNAL_SNAPSHOT_EVERY 50000
#define JOURNAL_CLOSE_WAIT_NS  (30 * NS_PER_S)

struct journal_extent { /* one segment */
    uint64_t first_seq, bytes;
};

/* A store. Every member is mandatory unless it says otherwise. Called on the loop's thread. */
struct journal_ops {
    const char *name;
    /* The outermost append has ended: everything up to j->log.end is to become durable, in one transaction
     * since the last call or in a larger one. Must not suspend. */
    void (*submit)(struct journal *j);
    /* Followers have folded again after journal_recovered(); j->log is empty. */
    void (*resume)(struct journal *j);
    /* Durable records from seq (≥ the first) to at most `max`; suspends. As journal_reader_read(). */
    enum status (*read)(struct journal *j, uint64_t seq, size_t max, bool decode, struct arena *a,
                        struct journal_entry **ret_entries, size_t *ret_n, struct error *err);
    /* Suspend. */
    enum status (*lease_acquire)(struct journal *j, struct strview key, struct strview holder, int64_t ttl_ns,
                                 uint64_t *ret_revision, struct error *err);
    enum status (*lease_release)(struct journal *j, struct strview key, struct strview holder,
                                 struct error *err);
    /* Its segments, oldest first, into the arena; the last is the one being written. Suspends. NULL, as the
     * next two: the store forgets by itself. */
    enum status (*segments)(struct journal *j, struct arena *a, struct journal_extent **ret_segments,
                            size_t *ret_n, struct error *err);
    /* What comes next begins a new segment. Must not suspend. */
    void (*roll)(struct journal *j);
    /* Removes the segments before the one that begins with keep_from, oldest first. Suspends. */
    enum status (*cut)(struct journal *j, uint64_t keep_from, struct error *err);
    /* Stop, and free the store's struct with the journal in it (after journal_front_release()). Suspends. */
    void (*close)(struct journal *j);
};

struct journal { /* first member of a store's own struct */
    const struct journal_ops *ops;
    struct loop *loop;
    struct journal_log log;
    uint64_t first_seq; /* oldest kept */
    uint64_t last_seq, durable_seq, durable_total_bytes;
    uint64_t generation;
    size_t pending_max_bytes;
    bool is_healthy, is_folding, is_closing, is_dispatching;
    struct journal_usher *usher; /* NULL while it is at work, too */
    char why_unhealthy[ERROR_MESSAGE_MAX];
    struct list followers;
    struct list *next_follower; /* of the dispatch under way: followers may leave in it */
    struct list keepers;
    struct reserve *reserve;        /* the store's; NULL: none */
    struct list waiters;            /* by sequence */
    int64_t *durable_times;         /* ring by sequence */
    struct fiber_scope scope;       /* of the fiber that folds again after a reset */
    struct buf scratch;             /* one encoded record */
    struct strview tenant, cluster; /* of records that do not say */
    struct arena nested;            /* decoded records of appends made by followers */
    char *snapshots_dir;            /* owned; NULL: none */
    uint64_t snapshot_every, snapshot_seq;
    bool is_folded, is_snapshotting; /* journal_fold() has returned; a child is at work */
};

void journal_front_init(struct journal *j, const struct journal_ops *ops, struct loop *l,
                        const struct journal_cfg *cfg, uint64_t first_seq, uint64_t last_seq);
void journal_front_release(struct journal *j);
/* Everything up to `at`, whose last record is `seq`, is durable since unix_ns. */
void journal_committed(struct journal *j, struct journal_position at, uint64_t seq, int64_t unix_ns);
/* The store does not take anything at the moment. All who wait are told. */
void journal_failed(struct journal *j, const char *why);
/* The store is whole again and its last record is durable_seq: followers fold anew, then ops->resume(). */
void journal_recovered(struct journal *j, uint64_t durable_seq);

/* ---- journal_fold.c ---- */

/* Spawned after a failure, when the store is whole again: arg is the journal. */
void journal_fold_again_fiber(void *arg);
void journal_tell_followers(struct journal *j);
void journal_wake_durable(struct journal *j);

/* ---- journal_snapshot.c ---- */

/* A fiber of j->scope: writes one whenever snapshot_every records are durable behind the last. */
void journal_snapshot_fiber(void *arg);

/* ---- snapshot_file.c: blocking, any thread ---- */

#define SNAPSHOT_PARTS_MAX 64
#define SNAPSHOT_NAME_MAX  64
#define SNAPSHOTS_KEPT     2

struct snapshot_part {
    struct strview name, bytes;
    unsigned version;
};

struct snapshot { /* one file, mapped */
    void *map;
    size_t map_bytes;
    uint64_t seq;
    uint8_t record_hash[SHA256_BYTES];
    struct snapshot_part parts[SNAPSHOT_PARTS_MAX];
    size_t n_parts;
};

/* Sequences of the snapshots in `dir`, newest first. *ret_seqs: free(). No folder: none. */
void snapshot_list(const char *dir, uint64_t **ret_seqs, size_t *ret_n);
/* STATUS_DATA_LOSS: torn or not one of ours; STATUS_FAILED_PRECONDITION: newer format. */
enum status snapshot_open(const char *dir, uint64_t seq, struct snapshot **ret_snapshot,
                          struct error *err) MUST_USE;
void snapshot_close(struct snapshot *s);
void snapshot_remove(const char *dir, uint64_t seq);
const struct snapshot_part *snapshot_find(const struct snapshot *s,
                                          struct strview name); /* NULL: not there */

struct snapshot_draft {
    int fd;
    char path[JOURNAL_PATH_MAX];
};

/* DIR/snapshot.tmp, emptied. */
enum status snapshot_draft_open(const char *dir, struct snapshot_draft *ret_draft,
                                struct error *err) MUST_USE;
/* What the child does: everything but the record's hash. False: errno says why. */
bool snapshot_draft_write(int fd, uint64_t seq, const struct list *followers);
/* The hash, fsync, rename to the name of seq, fsync of the folder; older ones than SNAPSHOTS_KEPT go. */
enum status snapshot_draft_finish(struct snapshot_draft *draft, const char *dir, uint64_t seq,
                                  const uint8_t record_hash[SHA256_BYTES], struct error *err) MUST_USE;
void snapshot_draft_discard(struct snapshot_draft *draft);

/* fn(arg) on a worker thread when called from a fiber, else right here (start-up, command line). */
void journal_run_blocking(void (*fn)(void *arg), void *arg);

/* ---- journal_db.c ---- */

#define JOURNAL_APPLICATION_ID 0x62616c6d /* "balm" */
#define JOURNAL_USER_VERSION   1
/* The only thing in the schema, as SQLite keeps it. Of format 1, so never to be written otherwise. */
#define JOURNAL_TABLE           "CREATE TABLE records(seq INTEGER PRIMARY KEY, bytes BLOB NOT NULL)"
#define JOURNAL_BUSY_TIMEOUT_MS 5000 /* a reader that recovers a WAL holds the lock for a moment */

struct sqlite3;
struct sqlite3_stmt;

/* SQLite's result code (primary or extended) as ours. */
enum status status_from_sqlite(int rc);
/* "sqlite: message (code, errno text)" behind the formatted words. db may be NULL. */
enum status journal_db_error(struct error *err, struct sqlite3 *db, int rc, const char *fmt, ...)
    PRINTF_LIKE(4, 5);
/* flags: SQLITE_OPEN_…. On failure nothing is left open. */
enum status journal_db_open(const char *path, int flags, struct sqlite3 **ret_db, struct error *err) MUST_USE;
void journal_db_close(struct sqlite3 *db); /* all statements must be finalized */
enum status journal_db_exec(struct sqlite3 *db, const char *sql, struct error *err) MUST_USE;
enum status journal_db_prepare(struct sqlite3 *db, const char *sql, struct sqlite3_stmt **ret_stmt,
                               struct error *err) MUST_USE;
/* The single integer that `sql` yields. */
enum status journal_db_get_u64(struct sqlite3 *db, const char *sql, uint64_t *ret_value,
                               struct error *err) MUST_USE;
/* STATUS_FAILED_PRECONDITION: written by a newer version. STATUS_DATA_LOSS: not one of our files, or with
 * another schema: a view of that name could keep a reader for ever. */
enum status journal_db_check_format(struct sqlite3 *db, const char *path, struct error *err) MUST_USE;

/* ---- journal_segment.c ---- */

/* First sequences of the segments of `dir`, ascending. *ret_seqs: free(). STATUS_NOT_FOUND: no such folder.
 */
enum status journal_segment_list(const char *dir, uint64_t **ret_seqs, size_t *ret_n,
                                 struct error *err) MUST_USE;
enum status journal_segment_path(const char *dir, uint64_t first_seq, char ret_path[JOURNAL_PATH_MAX],
                                 struct error *err) MUST_USE;
/* Sizes on the disk with what SQLite keeps beside them; in the arena. */
enum status journal_segment_extents(const char *dir, struct arena *a, struct journal_extent **ret_segments,
                                    size_t *ret_n, struct error *err) MUST_USE;
/* Removes all segments before the one that begins with keep_from, oldest first, so that a kill in between
 * leaves no gap. STATUS_NOT_FOUND: none begins there, nothing was done. */
enum status journal_segment_remove_before(const char *dir, uint64_t keep_from, struct error *err) MUST_USE;
/* Opens each segment once (which recovers its WAL) and checks that sequences have no gap. No segment: first
 * 1, last 0. */
enum status journal_segment_check(const char *dir, uint64_t *ret_first_seq, uint64_t *ret_last_seq,
                                  struct error *err) MUST_USE;

struct journal_file_id {
    uint64_t device, inode;
};

struct journal_segment { /* open for writing; one thread at a time */
    struct sqlite3 *db;
    struct sqlite3_stmt *begin, *insert, *commit;
    uint64_t first_seq, last_seq;      /* last: first - 1 while empty */
    size_t bytes;                      /* of records, about; decides when to roll */
    int wal_pages;                     /* in the WAL now and not all in the file */
    int checkpoint_at_pages;           /* the next attempt is worth it from here on */
    struct journal_file_id id, wal_id; /* of what is open */
    char path[JOURNAL_PATH_MAX];
};

/* A new empty segment: made under another name, synced, renamed, folder synced; so a segment's name is always
 * whole. */
enum status journal_segment_create(const char *dir, uint64_t first_seq, struct error *err) MUST_USE;
/* For writing. What the WAL holds is put into the file and synced first: it may have been written by a
 * process that died, or failed, before its fsync, and must not be taken for durable because the page cache
 * still shows it. The names of file and WAL are on the disk when it returns. */
enum status journal_segment_open(const char *dir, uint64_t first_seq, struct journal_segment **ret_segment,
                                 struct error *err) MUST_USE;
void journal_segment_close(struct journal_segment *g);
/* STATUS_UNAVAILABLE: the file or its WAL was removed, moved or replaced since it was opened. SQLite goes on
 * writing to it without an error, but nobody will ever find it. */
enum status journal_segment_check_place(const struct journal_segment *g, struct error *err) MUST_USE;
/* Nothing more will be written: the whole WAL goes to the file and is emptied, unless a reader is at it just
 * now (then the next start does it), and the segment is closed. On failure it is still open. */
enum status journal_segment_finish(struct journal_segment *g, struct error *err) MUST_USE;
/* One transaction of the frames from *at on: to `end`, or to the end of an append behind JOURNAL_GROUP_BYTES.
 * Durable on success, and *at and *ret_last_seq moved; on failure the segment must be closed. */
#define JOURNAL_GROUP_BYTES (4 * 1024 * 1024)
enum status journal_segment_write(struct journal_segment *g, struct journal_position *at,
                                  struct journal_position end, struct error *err) MUST_USE;
/* Of 8 KiB: 8 MiB of WAL are overwritten again and again, not grown. */
#define JOURNAL_CHECKPOINT_PAGES 1024
bool journal_segment_wants_checkpoint(const struct journal_segment *g);
/* Copies what no reader still needs in the WAL to the file. A reader in the way is no error. */
enum status journal_segment_checkpoint(struct journal_segment *g, struct error *err) MUST_USE;

/* ---- journal_lease.c: blocking, any thread ---- */

#define JOURNAL_LEASES_MAX 10000 /* keys are targets, which alerts name */
struct journal_leases;
enum status journal_leases_open(const char *dir, struct journal_leases **ret_leases,
                                struct error *err) MUST_USE;
void journal_leases_close(struct journal_leases *t);
enum status journal_leases_acquire(struct journal_leases *t, struct strview key, struct strview holder,
                                   int64_t now_unix_ns, int64_t ttl_ns, uint64_t *ret_revision,
                                   struct error *err) MUST_USE;
enum status journal_leases_release(struct journal_leases *t, struct strview key, struct strview holder,
                                   struct error *err) MUST_USE;

#endif
