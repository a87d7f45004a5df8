/* Inside of the queue: for runtime/store/queue*.c alone.
 *
 *   queue_index.c  the folded state: items by intent, each in one of four states; cheap picking
 *   queue_save.c   the folded state in a snapshot, and back
 *   queue.c        the fold, life cycle
 *   queue_lease.c  take, done, retry
 *   queue_taken.c  what is in somebody's hands, for the process after us
 *   queue_view.c   what can be asked: depths, the dead, whether there is room
 *
 *   function --candidates (heap by seq)--> first ready item of each idle target; all without target; intents
 *                                          and calls apart
 *   target ----ready (list by seq)-------> all its ready items;  leased: the one being worked on
 *   waiting (heap by due time)             dead (list, oldest first)
 *
 * Picking looks at two heap tops per function below its limit; each change of state costs O(log n). */
#ifndef BALM_STORE_QUEUE_IMPL_H
#define BALM_STORE_QUEUE_IMPL_H

#include "store/queue.h"

enum work_state { WORK_READY, WORK_WAITING, WORK_LEASED, WORK_DEAD, WORK_STATES };
enum work_kind { WORK_INTENT, WORK_CALL, WORK_KINDS }; /* in the order of picking */

struct work { /* one item */
    struct work *hash_next;
    uint64_t hash;
    struct list state_node; /* in target->ready or index->dead */
    struct list age_node;   /* in function->unfinished, unless dead */
    enum work_state state;
    enum work_kind kind;
    size_t heap_at; /* place in the heap it is in; WORK_NOT_IN_HEAP */
    uint64_t seq;
    uint64_t changed_seq;       /* of the newest record about it */
    int64_t time_ns, due_ns;    /* by the clock of today: they move when it jumps */
    unsigned attempts;          /* used up */
    bool has_ended, has_died;   /* its outcome is in the fold; leased until its holder knows it durable */
    bool is_past;               /* nothing about it was recorded by this process yet */
    bool has_lost_answer;       /* some attempt may have taken effect */
    bool has_due;               /* it was not ready from the beginning: later ones may have passed it */
    struct work_target *target; /* NULL: none */
    struct work_function *function;
    struct lease *lease;
    char *bytes; /* its record, owned; NULL: read it from the journal */
    size_t bytes_len;
    size_t key_len;
    char key[];
};
#define WORK_NOT_IN_HEAP SIZE_MAX

struct work_heap {
    struct work **items;
    size_t n, capacity;
    bool by_due; /* else by seq */
};

struct work_target {
    struct work_target *hash_next;
    uint64_t hash;
    struct list ready;
    struct work *leased;
    struct work *candidate; /* the one of `ready` that is in its function's heap */
    size_t n_items;         /* not dead */
    size_t name_len;
    char name[];
};

struct work_function {
    struct work_function *next, *bucket_next;
    struct work_heap candidates[WORK_KINDS];
    struct list unfinished;                         /* by seq */
    size_t counts[WORK_STATES], calls[WORK_STATES]; /* all, and those of kind call */
    size_t name_len;
    char name[];
};

#define WORK_FUNCTION_BUCKETS 1024

struct work_index {
    struct work **items;
    struct work_target **targets;
    size_t n_buckets, n_targets_buckets, n_items, n_targets;
    struct work_function *functions;
    struct work_function *buckets[WORK_FUNCTION_BUCKETS]; /* the same, by name */
    struct work_heap waiting;
    struct list dead;
    size_t counts[WORK_STATES], calls[WORK_STATES];
    size_t kept_bytes;
};

struct taken;

void work_index_init(struct work_index *x);
void work_index_release(struct work_index *x);
struct work *work_find(const struct work_index *x, struct strview key);
/* New from its record, ready or waiting. Its bytes are copied while QUEUE_BYTES_MAX allows; none given: they
 * are read from the journal when they are wanted. */
struct work *work_add(struct work_index *x, struct strview key, const struct journal_entry *e);
void work_remove(struct work_index *x, struct work *w);
/* due_ns counts for WORK_WAITING. */
void work_set_state(struct work_index *x, struct work *w, enum work_state state, int64_t due_ns);
/* Ready item with the lowest sequence of the first kind that has one within the limits (queue.h); NULL:
 * none.
 */
struct work *work_pick(const struct work_index *x, const struct queue_cfg *limits);
/* Waiting item that is due first; NULL: none. */
struct work *work_first_due(const struct work_index *x);
const struct work_function *work_function_find(const struct work_index *x, struct strview name);
/* The past is folded: clears is_past of the items that cannot have been begun: not yet due, kept back by an
 * earlier item of their target that was ready all the time and never tried, or behind more of those of their
 * function than can be in flight. Where marks are kept they alone say it. Items that are due must be ready.
 */
void work_settle_past(struct work_index *x, struct taken *taken, uint64_t past_seq);
/* The lowest sequence of all items, the dead too; UINT64_MAX: none. */
uint64_t work_oldest_seq(const struct work_index *x);
/* Of all items, the dead too; keeps their order. */
void work_index_turn(struct work_index *x, const struct clock_turn *turn);
/* The dead, oldest first, then all others but those whose end is in the fold. Nobody holds a lease on what is
 * loaded. into: empty. False: damaged, and `into` is to be released. */
void work_index_save(const struct work_index *x, struct pack *p);
bool work_index_load(struct work_index *into, struct unpack *u);

/* ---- queue_taken.c ----
 *
 * Marks of what is handed out, in a file beside the journal: one write of 16 bytes each, and no fsync. The
 * page cache outlives a process that is killed; what does not outlive, a power loss or another machine, is
 * recognised by the boot's id, and then nothing is known. Whatever goes wrong leads there, too: no mark is a
 * claim that nothing was begun, so it has to be in the file before anybody can begin. */

#define TAKEN_PATH_MAX 4096
/* What is in hands (QUEUE_INFLIGHT_MAX), and what lives cut off before had, as far as it was not seen to
 * since: more than this many give the marks up. */
#define TAKEN_SLOTS   256
#define TAKEN_NO_SLOT UINT32_MAX

struct taken_mark { /* of the life before */
    uint64_t changed_seq;
    unsigned slot;
};

struct taken {
    char path[TAKEN_PATH_MAX]; /* empty: no marks are kept */
    int fd;                    /* -1: not started, or given up */
    bool is_started;
    bool is_in_the_way;                   /* a file that says too little could not be removed */
    uint64_t from_seq;                    /* of items whose newest record is later it is known */
    uint64_t epoch;                       /* in the file */
    struct taken_mark marks[TAKEN_SLOTS]; /* by changed_seq */
    size_t n_marks;
    bool is_used[TAKEN_SLOTS]; /* by a lease, or by a mark of an item that is not seen to yet */
};

/* path NULL: no marks. */
void taken_init(struct taken *t, const char *path);
void taken_release(struct taken *t);
/* Before the first item is handed out: what the life before has left, which ended with past_seq and
 * past_epoch; and this one begins. Does nothing the second time. Touches files. */
void taken_start(struct taken *t, uint64_t past_seq, uint64_t past_epoch, uint64_t epoch);
/* Of an item of the past: do the marks say whether it was handed out? */
bool taken_knows(const struct taken *t, uint64_t changed_seq);
/* It was; its mark stays until taken_forget(), once there is a later record on disk. */
bool taken_keep(struct taken *t, uint64_t changed_seq);
void taken_forget(struct taken *t, uint64_t changed_seq);
/* About to be handed out. STATUS_UNAVAILABLE: it must not be, the process after us would not know. */
enum status taken_note(struct taken *t, uint64_t changed_seq, uint64_t durable_seq, uint64_t epoch,
                       unsigned *ret_slot, struct error *err) MUST_USE;
/* The end of what was handed out is on disk. */
void taken_free(struct taken *t, unsigned slot);

/* ---- queue.c ---- */

/* Who works on an item. It keeps item and target busy until the end of the attempt is durable, not only
 * recorded: if that commit fails, the journal is folded again and the item has to find its lease. */
struct lease {
    struct list node;
    struct work *work; /* NULL only while the journal is folded again */
    uint64_t token, seq;
    unsigned attempt;
    bool has_lost_answer;                    /* of an attempt before */
    bool is_ending;                          /* its holder is recording the end */
    unsigned slot;                           /* of its mark */
    int64_t time_ns;                         /* of the item's record, by the clock of today */
    struct strview intent, target, function; /* into text */
    char text[];
};

struct taker {
    struct list node;
    struct fiber_event woken;
};

struct queue {
    struct journal *journal;
    struct queue_cfg cfg;
    struct journal_follower follower;
    struct journal_keeper keeper;
    struct work_index index;
    struct list leases;
    size_t n_leases;
    struct list takers; /* fibers that found nothing */
    uint64_t past_seq, epoch, next_token;
    uint64_t past_epoch; /* the epoch when the past ended */
    struct taken taken;
    bool is_settled, is_frozen, is_stopped;
    int64_t stopped_at_ns;
};

/* May anything more be handed out at all? */
bool queue_has_room(const struct queue *q);
/* One sleeper has to look again: at an item, or at the clock, since its timer may be set for a later one. */
void queue_wake_if_useful(struct queue *q);
/* Its end is in the fold: it is dead, or goes. */
void queue_end_work(struct queue *q, struct work *w);
/* Does an attempt that ended with this code perhaps go on? */
bool queue_is_lost(struct strview code);

/* ---- queue_lease.c ---- */

/* Frees it; what becomes of its item is the caller's to say. */
void queue_lease_end(struct queue *q, struct lease *l);

#endif
