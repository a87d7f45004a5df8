/* The SQLite store's writer thread: groups, checkpoints, and what it does when the disk fails. The picture is
 * in journal_sqlite.c. */
#include "store/journal_sqlite_impl.h"

#include <errno.h>
#include <inttypes.h>

#include "base/clock.h"
#include "base/file.h"
#include "log/log.h"

#define IDLE_CHECKPOINT_NS (250 * NS_PER_MS)
#define IDLE_CHECK_NS      NS_PER_S
#define REOPEN_BACKOFF_NS  NS_PER_S
#define COMPLAIN_EVERY     60 /* attempts to reopen */
#define TRY_FULL_EVERY     10

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

void *journal_writer_main(void *arg)
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
