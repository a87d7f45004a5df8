/* The SQLite store.
 *
 *   loop thread                                writer thread
 *   submit, and at the end of the turn:
 *   published = end of log          --lock-->  takes all up to `published`: one transaction, one fsync
 *   on_news: journal_committed()    <--post--  reached, time
 *                                              what was published meanwhile is the next group: no timer
 *
 *   RUNNING --commit, fsync or checkpoint failed--> FAILED: closes the segment, tells the loop
 *      ^                                               |  each second, once there is room: reopen, sync
 *      |                                               |  what the WAL holds, read the last sequence; if
 *      |                                               v  acknowledged ones lack, stay
 *      +-- resume (followers have folded) ---- REOPENED: the loop drops its log and folds again
 *
 * Files that were removed, moved or replaced under us count as a failed commit: what is in them has no name
 * any more. They are looked at after each fsync, and each second when idle.
 *
 * While the writer is not RUNNING it does not look at the log, so that the loop may clear it. */
#include "store/journal_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "log/log.h"
#include "metrics/catalog.h"

#define SEGMENT_BYTES      (256 * 1024 * 1024)
#define IDLE_CHECKPOINT_NS (250 * NS_PER_MS)
#define IDLE_CHECK_NS      NS_PER_S
#define REOPEN_BACKOFF_NS  NS_PER_S
#define COMPLAIN_EVERY     60 /* attempts to reopen */
#define TRY_FULL_EVERY     10
enum { IDLE_READERS_MAX = 4 };

enum writer_state { WRITER_RUNNING, WRITER_FAILED, WRITER_REOPENED };

/* What the writer has to tell; newer news replace older ones of the same kind. */
struct news {
    bool has_committed, has_failed, has_reopened;
    unsigned n_commits;
    struct journal_position reached;
    uint64_t reached_seq, reopened_seq;
    int64_t unix_ns;
    char why[ERROR_MESSAGE_MAX];
};

struct sqlite_journal {
    struct journal base;
    char *dir;
    size_t segment_max_bytes;
    pthread_t thread;
    struct journal_leases *leases;
    struct reserve *reserve; /* NULL: none */

    pthread_mutex_t lock;
    pthread_cond_t wake;
    /* under lock */
    enum writer_state state;
    bool is_stopping, is_asleep, is_posted, wants_roll;
    struct journal_position published;
    struct news news;
    struct loop_post post; /* linked while is_posted */

    /* the writer's */
    struct journal_segment *segment;
    struct journal_position taken;
    uint64_t acked_seq;
    int64_t tend_ns; /* when the reserve is looked at next */

    /* the loop's */
    struct loop_deferred publishing; /* linked while something was appended in this turn */
    struct journal_reader *idle_readers[IDLE_READERS_MAX];
    size_t n_idle_readers;
    uint64_t readers_generation; /* when these were opened: after a reset the files may be others */
};

static struct sqlite_journal *sqlite_journal(struct journal *j)
{
    return container_of(j, struct sqlite_journal, base);
}

/* ---- writer thread ---- */

/* With the lock. */
static void post_news(struct sqlite_journal *s)
{
    if (s->is_posted) return;
    s->is_posted = true;
    loop_post(s->base.loop, &s->post);
}

/* With the lock. False: the time is over. */
static bool sleep_for(struct sqlite_journal *s, int64_t ns)
{
    int64_t at = clock_monotonic_ns() + ns;
    struct timespec until = {.tv_sec = at / NS_PER_S, .tv_nsec = at % NS_PER_S};
    s->is_asleep = true;
    int rc;
    if (ns == 0)
        rc = pthread_cond_wait(&s->wake, &s->lock);
    else
        rc = pthread_cond_timedwait(&s->wake, &s->lock, &until);
    s->is_asleep = false;
    return rc != ETIMEDOUT;
}

static bool has_work(const struct sqlite_journal *s)
{
    return s->published.chunk != s->taken.chunk || s->published.offset != s->taken.offset;
}

static enum status roll_segment(struct sqlite_journal *s, struct error *err)
{
    uint64_t next = s->segment->last_seq + 1;
    enum status st = journal_segment_check_place(s->segment, err); /* not into an empty folder in its place */
    if (st == STATUS_OK) st = journal_segment_create(s->dir, next, err);
    if (st == STATUS_OK) st = journal_segment_finish(s->segment, err);
    if (st != STATUS_OK) return st;
    s->segment = NULL;
    return journal_segment_open(s->dir, next, &s->segment, err);
}

/* Without the lock. Whoever removes or moves the folder leaves us writing to files that have no name: the
 * fsync succeeds, but nothing is durable. */
static enum status write_group(struct sqlite_journal *s, struct journal_position end, bool wants_roll,
                               struct error *err)
{
    bool is_due = wants_roll || s->segment->bytes >= s->segment_max_bytes;
    if (is_due && s->segment->last_seq >= s->segment->first_seq) {
        enum status st = roll_segment(s, err);
        if (st != STATUS_OK) return st;
    }
    enum status st = journal_segment_write(s->segment, &s->taken, end, err);
    return st == STATUS_OK ? journal_segment_check_place(s->segment, err) : st;
}

/* With the lock. */
static void fail(struct sqlite_journal *s, const struct error *err)
{
    s->state = WRITER_FAILED;
    s->news.has_failed = true;
    (void)snprintf(s->news.why, sizeof(s->news.why), "%s", err->message);
    post_news(s);
}

/* With the lock, which is dropped during the disk's part. */
static void run_group(struct sqlite_journal *s)
{
    struct journal_position end = s->published;
    struct error err;
    bool wants_roll = s->wants_roll;
    s->wants_roll = false;
    (void)pthread_mutex_unlock(&s->lock);
    enum status st = write_group(s, end, wants_roll, &err);
    int64_t now = clock_unix_ns();
    (void)pthread_mutex_lock(&s->lock);
    if (st != STATUS_OK) {
        fail(s, &err);
        return;
    }
    s->acked_seq = s->segment->last_seq;
    s->news.has_committed = true;
    s->news.n_commits++;
    s->news.reached = s->taken;
    s->news.reached_seq = s->acked_seq;
    s->news.unix_ns = now;
    post_news(s);
}

/* With the lock, which is dropped meanwhile. A failed checkpoint has lost nothing, but the file can no longer
 * be trusted to take what the WAL holds. */
static void run_checkpoint(struct sqlite_journal *s)
{
    struct error err;
    (void)pthread_mutex_unlock(&s->lock);
    enum status st = journal_segment_checkpoint(s->segment, &err);
    (void)pthread_mutex_lock(&s->lock);
    if (st != STATUS_OK) fail(s, &err);
}

/* With the lock, which is dropped meanwhile. What was given up is taken back, also where work never ends. */
static void tend_reserve(struct sqlite_journal *s)
{
    int64_t now_ns = clock_monotonic_ns();
    if (s->reserve == NULL || now_ns < s->tend_ns) return;
    s->tend_ns = now_ns + IDLE_CHECK_NS;
    (void)pthread_mutex_unlock(&s->lock);
    reserve_refill(s->reserve);
    (void)pthread_mutex_lock(&s->lock);
}

/* With the lock. So that it is known before the next alert comes, and for those that add nothing. */
static void run_idle_check(struct sqlite_journal *s)
{
    struct error err;
    (void)pthread_mutex_unlock(&s->lock);
    enum status st = journal_segment_check_place(s->segment, &err);
    (void)pthread_mutex_lock(&s->lock);
    if (st != STATUS_OK) fail(s, &err);
}

/* With the lock. */
static void run_once(struct sqlite_journal *s)
{
    if (has_work(s)) {
        run_group(s);
        /* Behind the news, so not within the latency of what was just written. */
        if (s->state == WRITER_RUNNING && journal_segment_wants_checkpoint(s->segment)) run_checkpoint(s);
        tend_reserve(s);
    } else if (s->segment->wal_pages == 0 || s->segment->checkpoint_at_pages > JOURNAL_CHECKPOINT_PAGES) {
        if (!sleep_for(s, IDLE_CHECK_NS)) run_idle_check(s);
        tend_reserve(s);
    } else if (!sleep_for(s, IDLE_CHECKPOINT_NS)) {
        run_checkpoint(s);
    }
}

/* Without the lock. */
static enum status reopen(struct sqlite_journal *s, struct error *err)
{
    uint64_t *seqs = NULL;
    size_t n = 0;
    enum status st = journal_segment_list(s->dir, &seqs, &n, err);
    if (st == STATUS_OK && n == 0)
        st = error_set(err, STATUS_DATA_LOSS, "journal '%s': all segments are gone", s->dir);
    if (st == STATUS_OK) st = journal_segment_open(s->dir, seqs[n - 1], &s->segment, err);
    free(seqs);
    if (st != STATUS_OK) return st;
    if (s->segment->last_seq >= s->acked_seq) return STATUS_OK;
    st = error_set(err, STATUS_DATA_LOSS,
                   "journal '%s': the disk has lost records: %" PRIu64
                   " was acknowledged as durable, %" PRIu64 " is the last one left",
                   s->dir, s->acked_seq, s->segment->last_seq);
    journal_segment_close(s->segment);
    s->segment = NULL;
    return st;
}

/* Without the lock. On a full disk the store could mostly be opened, and the next commit would fail as the
 * last one did: everything would be folded again, many times a second. Now and then it is tried all the same:
 * who is given less than a disk has, or less than we ask for, is not kept waiting for ever. */
static enum status check_room(struct sqlite_journal *s, unsigned attempt, struct error *err)
{
    if (!disk_is_full(s->dir) || (s->reserve != NULL && reserve_give(s->reserve))) return STATUS_OK;
    if (attempt % TRY_FULL_EVERY == TRY_FULL_EVERY - 1) return STATUS_OK;
    return error_set(err, STATUS_RESOURCE_EXHAUSTED, "no room on the disk of '%s'", s->dir);
}

static void complain(enum status st, const struct error *err, unsigned attempt)
{
    const char *what = st == STATUS_DATA_LOSS ? "acknowledged records are lost, staying closed"
                       : st == STATUS_RESOURCE_EXHAUSTED
                           ? "the disk is full, nothing is accepted until there is room"
                           : "cannot reopen, retrying";
    if (attempt % COMPLAIN_EVERY == 0)
        log_error("journal", what, LOG_STR("reason", err->message), LOG_INT("attempt", attempt));
}

/* With the lock. */
static void try_reopen(struct sqlite_journal *s, unsigned attempt)
{
    struct error err;
    (void)pthread_mutex_unlock(&s->lock);
    journal_segment_close(s->segment);
    s->segment = NULL;
    enum status st = check_room(s, attempt, &err);
    if (st == STATUS_OK) st = reopen(s, &err);
    if (st != STATUS_OK) complain(st, &err, attempt);
    (void)pthread_mutex_lock(&s->lock);
    if (st != STATUS_OK) {
        if (!s->is_stopping) (void)sleep_for(s, REOPEN_BACKOFF_NS);
        return;
    }
    s->acked_seq = s->segment->last_seq;
    s->state = WRITER_REOPENED;
    s->news.has_reopened = true;
    s->news.reopened_seq = s->acked_seq;
    post_news(s);
}

static void *writer_main(void *arg)
{
    struct sqlite_journal *s = arg;
    unsigned attempts = 0;
    (void)pthread_mutex_lock(&s->lock);
    while (!s->is_stopping || (s->state == WRITER_RUNNING && has_work(s))) {
        switch (s->state) {
        case WRITER_RUNNING:
            attempts = 0;
            run_once(s);
            break;
        case WRITER_FAILED:
            try_reopen(s, attempts++);
            break;
        case WRITER_REOPENED:
            (void)sleep_for(s, 0);
            break;
        }
    }
    (void)pthread_mutex_unlock(&s->lock);
    /* The last connection: SQLite puts the WAL into the file and removes it. */
    journal_segment_close(s->segment);
    s->segment = NULL;
    return NULL;
}

/* ---- loop thread ---- */

static void on_news(struct loop_post *post)
{
    struct sqlite_journal *s = container_of(post, struct sqlite_journal, post);
    (void)pthread_mutex_lock(&s->lock);
    struct news news = s->news;
    s->news.has_committed = s->news.has_failed = s->news.has_reopened = false;
    s->news.n_commits = 0;
    s->is_posted = false;
    (void)pthread_mutex_unlock(&s->lock);
    metric_add(catalog_series(CATALOG_JOURNAL_COMMITS, NULL), news.n_commits);
    if (news.has_committed) journal_committed(&s->base, news.reached, news.reached_seq, news.unix_ns);
    if (news.has_failed) journal_failed(&s->base, news.why);
    if (news.has_reopened) journal_recovered(&s->base, news.reopened_seq);
}

/* Groups are what a turn brings: a writer that wakes for the first alert of a burst pays an fsync for it
 * alone. */
static void on_turn_done(struct loop_deferred *d)
{
    struct sqlite_journal *s = container_of(d, struct sqlite_journal, publishing);
    (void)pthread_mutex_lock(&s->lock);
    s->published = s->base.log.end;
    if (s->is_asleep) (void)pthread_cond_signal(&s->wake);
    (void)pthread_mutex_unlock(&s->lock);
}

static void sqlite_submit(struct journal *j)
{
    loop_defer(j->loop, &sqlite_journal(j)->publishing);
}

static void sqlite_resume(struct journal *j)
{
    struct sqlite_journal *s = sqlite_journal(j);
    (void)pthread_mutex_lock(&s->lock);
    s->published = s->taken = j->log.end;
    s->state = WRITER_RUNNING;
    (void)pthread_cond_signal(&s->wake);
    (void)pthread_mutex_unlock(&s->lock);
}

struct read_work {
    struct sqlite_journal *s;
    struct journal_reader *reader; /* NULL: open one */
    struct journal_reader *outdated[IDLE_READERS_MAX];
    size_t n_outdated;
    uint64_t seq;
    size_t max, n;
    bool decode;
    struct arena *a;
    struct journal_entry *entries;
    struct error *err;
    enum status status;
};

static void do_read(void *arg)
{
    struct read_work *w = arg;
    while (w->n_outdated > 0)
        journal_reader_close(w->outdated[--w->n_outdated]);
    w->status = w->reader != NULL ? STATUS_OK : journal_reader_open(w->s->dir, &w->reader, w->err);
    if (w->status == STATUS_OK)
        w->status =
            journal_reader_read(w->reader, w->seq, w->max, w->decode, w->a, &w->entries, &w->n, w->err);
    if (w->status != STATUS_OK) {
        journal_reader_close(w->reader);
        w->reader = NULL;
    }
}

static enum status sqlite_read(struct journal *j, uint64_t seq, size_t max, bool decode, struct arena *a,
                               struct journal_entry **ret_entries, size_t *ret_n, struct error *err)
{
    struct sqlite_journal *s = sqlite_journal(j);
    struct read_work w = {.s = s, .seq = seq, .max = max, .decode = decode, .a = a, .err = err};
    uint64_t generation = j->generation;
    if (s->readers_generation != generation)
        while (s->n_idle_readers > 0)
            w.outdated[w.n_outdated++] = s->idle_readers[--s->n_idle_readers];
    s->readers_generation = generation;
    if (s->n_idle_readers > 0) w.reader = s->idle_readers[--s->n_idle_readers];
    work_run(do_read, &w);
    if (w.reader != NULL && generation == j->generation && s->n_idle_readers < IDLE_READERS_MAX)
        s->idle_readers[s->n_idle_readers++] = w.reader;
    else
        journal_reader_close(w.reader);
    if (w.status != STATUS_OK) return w.status;
    *ret_entries = w.entries;
    *ret_n = w.n;
    return STATUS_OK;
}

/* Taken on the loop's thread, closed on a worker's. */
struct idle_readers {
    struct journal_reader *items[IDLE_READERS_MAX];
    size_t n;
};

static struct idle_readers take_idle_readers(struct sqlite_journal *s)
{
    struct idle_readers taken = {.n = 0};
    while (s->n_idle_readers > 0)
        taken.items[taken.n++] = s->idle_readers[--s->n_idle_readers];
    return taken;
}

static void do_close_readers(void *arg)
{
    struct idle_readers *readers = arg;
    while (readers->n > 0)
        journal_reader_close(readers->items[--readers->n]);
}

struct extent_work {
    struct sqlite_journal *s;
    struct arena *a;
    struct journal_extent *segments;
    size_t n;
    uint64_t keep_from;
    struct idle_readers readers;
    struct error *err;
    enum status status;
};

static void do_extents(void *arg)
{
    struct extent_work *w = arg;
    w->status = journal_segment_extents(w->s->dir, w->a, &w->segments, &w->n, w->err);
}

static enum status sqlite_segments(struct journal *j, struct arena *a, struct journal_extent **ret_segments,
                                   size_t *ret_n, struct error *err)
{
    struct extent_work w = {.s = sqlite_journal(j), .a = a, .err = err};
    work_run(do_extents, &w);
    if (w.status != STATUS_OK) return w.status;
    *ret_segments = w.segments;
    *ret_n = w.n;
    return STATUS_OK;
}

static void sqlite_roll(struct journal *j)
{
    struct sqlite_journal *s = sqlite_journal(j);
    (void)pthread_mutex_lock(&s->lock);
    s->wants_roll = true;
    (void)pthread_mutex_unlock(&s->lock);
}

static void do_cut(void *arg)
{
    struct extent_work *w = arg;
    do_close_readers(&w->readers); /* they would keep the room of removed files taken */
    w->status = journal_segment_remove_before(w->s->dir, w->keep_from, w->err);
}

static enum status sqlite_cut(struct journal *j, uint64_t keep_from, struct error *err)
{
    struct extent_work w = {.s = sqlite_journal(j), .keep_from = keep_from, .err = err};
    w.readers = take_idle_readers(w.s);
    work_run(do_cut, &w);
    return w.status;
}

struct lease_work {
    struct journal_leases *leases;
    struct strview key, holder;
    int64_t ttl_ns; /* 0: release */
    uint64_t revision;
    struct error *err;
    enum status status;
};

static void do_lease(void *arg)
{
    struct lease_work *w = arg;
    if (w->ttl_ns == 0)
        w->status = journal_leases_release(w->leases, w->key, w->holder, w->err);
    else
        w->status = journal_leases_acquire(w->leases, w->key, w->holder, clock_unix_ns(), w->ttl_ns,
                                           &w->revision, w->err);
}

static enum status sqlite_lease_acquire(struct journal *j, struct strview key, struct strview holder,
                                        int64_t ttl_ns, uint64_t *ret_revision, struct error *err)
{
    struct lease_work w = {
        .leases = sqlite_journal(j)->leases, .key = key, .holder = holder, .ttl_ns = ttl_ns, .err = err};
    work_run(do_lease, &w);
    if (w.status == STATUS_OK) *ret_revision = w.revision;
    return w.status;
}

static enum status sqlite_lease_release(struct journal *j, struct strview key, struct strview holder,
                                        struct error *err)
{
    struct lease_work w = {.leases = sqlite_journal(j)->leases, .key = key, .holder = holder, .err = err};
    work_run(do_lease, &w);
    return w.status;
}

/* ---- life cycle ---- */

static void store_free(struct sqlite_journal *s)
{
    while (s->n_idle_readers > 0)
        journal_reader_close(s->idle_readers[--s->n_idle_readers]);
    journal_leases_close(s->leases);
    journal_segment_close(s->segment);
    reserve_close(s->reserve);
    (void)pthread_cond_destroy(&s->wake);
    (void)pthread_mutex_destroy(&s->lock);
    free(s->dir);
    free(s);
}

static void do_close(void *arg)
{
    struct sqlite_journal *s = arg;
    (void)pthread_join(s->thread, NULL);
}

static bool is_posted(struct sqlite_journal *s)
{
    (void)pthread_mutex_lock(&s->lock);
    bool yes = s->is_posted;
    (void)pthread_mutex_unlock(&s->lock);
    return yes;
}

static void sqlite_close(struct journal *j)
{
    struct sqlite_journal *s = sqlite_journal(j);
    struct idle_readers readers = take_idle_readers(s);
    work_run(do_close_readers,
             &readers); /* so that the writer's connection is the last and empties the WAL */
    (void)pthread_mutex_lock(&s->lock);
    s->is_stopping = true;
    (void)pthread_cond_signal(&s->wake);
    (void)pthread_mutex_unlock(&s->lock);
    work_run(do_close, s);
    while (is_posted(s)) /* the last news are still on their way to the loop */
        (void)!fiber_yield();
    fiber_scope_cancel(&j->scope); /* they may have started a fold */
    fiber_scope_join(&j->scope);
    journal_front_release(j);
    store_free(s);
}

static const struct journal_ops sqlite_ops = {
    .name = "sqlite",
    .submit = sqlite_submit,
    .resume = sqlite_resume,
    .read = sqlite_read,
    .segments = sqlite_segments,
    .roll = sqlite_roll,
    .cut = sqlite_cut,
    .lease_acquire = sqlite_lease_acquire,
    .lease_release = sqlite_lease_release,
    .close = sqlite_close,
};

static enum status start_writer(struct sqlite_journal *s, struct error *err)
{
    sigset_t all, before; /* signals are the loop's */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&s->thread, NULL, writer_main, s);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) return error_set(err, status_from_errno(rc), "start the journal's writer: %s", strerror(rc));
    (void)pthread_setname_np(s->thread, "journal");
    return STATUS_OK;
}

struct open_work {
    struct sqlite_journal *s;
    const char *reserve_file;
    uint64_t reserve_bytes;
    uint64_t first_seq, last_seq;
    struct error *err;
    enum status status;
};

static void do_open(void *arg)
{
    struct open_work *w = arg;
    struct sqlite_journal *s = w->s;
    uint64_t *seqs = NULL;
    size_t n = 0;
    w->status = dir_make(s->dir, 0700, w->err);
    if (w->status == STATUS_OK && w->reserve_file != NULL) {
        s->reserve = reserve_open(w->reserve_file, w->reserve_bytes);
        (void)reserve_give(s->reserve); /* opening writes as well */
    }
    if (w->status == STATUS_OK)
        w->status = journal_segment_check(s->dir, &w->first_seq, &w->last_seq, w->err);
    if (w->status == STATUS_OK) w->status = journal_segment_list(s->dir, &seqs, &n, w->err);
    if (w->status == STATUS_OK && n == 0) w->status = journal_segment_create(s->dir, 1, w->err);
    if (w->status == STATUS_OK)
        w->status = journal_segment_open(s->dir, n > 0 ? seqs[n - 1] : 1, &s->segment, w->err);
    if (w->status == STATUS_OK) w->status = journal_leases_open(s->dir, &s->leases, w->err);
    free(seqs);
}

static struct sqlite_journal *store_new(const struct journal_cfg *cfg)
{
    struct sqlite_journal *s = mem_zalloc(1, sizeof(*s));
    size_t len = strlen(cfg->dir) + 1;
    s->dir = mem_alloc(len);
    memcpy(s->dir, cfg->dir, len);
    s->segment_max_bytes = cfg->segment_max_bytes ? cfg->segment_max_bytes : SEGMENT_BYTES;
    s->post.fn = on_news;
    s->publishing.fn = on_turn_done;
    pthread_condattr_t monotonic;
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&s->wake, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    (void)pthread_mutex_init(&s->lock, NULL);
    return s;
}

enum status journal_open_sqlite(struct loop *l, const struct journal_cfg *cfg, struct journal **ret_journal,
                                struct error *err)
{
    struct sqlite_journal *s = store_new(cfg);
    struct open_work w = {
        .s = s, .reserve_file = cfg->reserve_file, .reserve_bytes = cfg->reserve_bytes, .err = err};
    journal_run_blocking(do_open, &w);
    if (w.status != STATUS_OK) {
        store_free(s);
        return w.status;
    }
    journal_front_init(&s->base, &sqlite_ops, l, cfg, w.first_seq, w.last_seq);
    s->base.reserve = s->reserve;
    s->published = s->taken = s->base.log.end;
    s->acked_seq = w.last_seq;
    enum status st = start_writer(s, err);
    if (st != STATUS_OK) {
        journal_front_release(&s->base);
        store_free(s);
        return st;
    }
    *ret_journal = &s->base;
    return STATUS_OK;
}
