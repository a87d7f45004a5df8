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
#include "store/journal_sqlite_impl.h"

#include <signal.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "metrics/catalog.h"

#define SEGMENT_BYTES (256 * 1024 * 1024)

static struct sqlite_journal *sqlite_journal(struct journal *j)
{
    return container_of(j, struct sqlite_journal, base);
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
    struct journal_reader *outdated[JOURNAL_IDLE_READERS_MAX];
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
    if (w.reader != NULL && generation == j->generation && s->n_idle_readers < JOURNAL_IDLE_READERS_MAX)
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
    struct journal_reader *items[JOURNAL_IDLE_READERS_MAX];
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
    int rc = pthread_create(&s->thread, NULL, journal_writer_main, s);
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
