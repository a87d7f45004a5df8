#include "store/retention.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"
#include "log/log.h"
#include "metrics/catalog.h"
#include "store/journal_impl.h"

#define LOOK_NS         (60 * NS_PER_S)
#define DURABLE_WAIT_NS (30 * NS_PER_S)
#define SEAL_WAIT_NS    (10 * NS_PER_S)
#define SEAL_LOOK_MS    50
#define COMPLAIN_NS     (3600 * NS_PER_S)
#define SEGMENT_MIN     ((size_t)64 * 1024)
#define SEGMENT_MAX     ((size_t)64 * 1024 * 1024)
#define WARN_PERCENT    80
/* A start with a clock so far ahead of the newest record is believed only after so long. */
#define AHEAD_MAX_NS (24 * 3600 * NS_PER_S)
#define TRUST_NS     (24 * 3600 * NS_PER_S)

struct retention {
    struct journal *journal;
    struct retention_cfg cfg;
    struct fiber_scope scope;
    struct retention_report report;
    int64_t complained_ns; /* monotonic */
    int64_t offset_ns;     /* from the monotonic to the wall clock, at the start */
    /* The newest record of the last run; 0: none. How far that clock is ahead of it, and until when records
     * are as old as if it were not (monotonic; 0: it is believed). */
    uint64_t past_seq;
    int64_t ahead_ns, believed_ns;
    bool is_looking, has_warned;
    /* What was announced and not yet carried out: the record's sequence, and where the rest begins; 0:
     * nothing. */
    uint64_t announced_seq, announced_from, generation;
};

/* What one look has found. */
struct look {
    struct journal_extent *segments;
    size_t n;
    size_t n_old;       /* the first ones, that should go */
    const char *reason; /* "age", "size" */
    struct arena arena;
};

size_t retention_segment_bytes(uint64_t max_bytes)
{
    uint64_t bytes = max_bytes / RETENTION_SEGMENTS;
    return bytes < SEGMENT_MIN ? SEGMENT_MIN : bytes > SEGMENT_MAX ? SEGMENT_MAX : (size_t)bytes;
}

/* ---- what should go ---- */

static enum status time_of(struct journal *j, uint64_t seq, int64_t *ret_ns, struct error *err)
{
    struct arena a = {0};
    struct journal_entry *entries = NULL;
    size_t n = 0;
    enum status s = journal_read(j, seq, 1, true, &a, &entries, &n, err);
    if (s == STATUS_OK && n == 0)
        s = error_set(err, STATUS_DATA_LOSS, "record %" PRIu64 " cannot be read", seq);
    if (s == STATUS_OK) *ret_ns = entries[0].record->time_ns;
    arena_release(&a);
    return s;
}

static uint64_t bytes_of(const struct look *l, size_t from)
{
    uint64_t bytes = 0;
    for (size_t i = from; i < l->n; i++)
        bytes += l->segments[i].bytes;
    return bytes;
}

/* By size as many as it takes; by age those whose last record is too old. */
static enum status find_old(struct retention *r, struct look *l, int64_t now_ns, struct error *err)
{
    enum status s = STATUS_OK;
    while (l->n_old + 1 < l->n && bytes_of(l, l->n_old) > r->cfg.max_bytes) {
        l->n_old++;
        l->reason = "size";
    }
    while (s == STATUS_OK && l->n_old + 1 < l->n) {
        int64_t newest_ns = 0;
        s = time_of(r->journal, l->segments[l->n_old + 1].first_seq - 1, &newest_ns, err);
        if (s != STATUS_OK || newest_ns > now_ns - r->cfg.max_age_ns) break;
        l->n_old++;
        l->reason = "age";
    }
    return s;
}

/* The segment being written is closed once its first record has an eighth of the age. */
static enum status roll_if_old(struct retention *r, const struct look *l, int64_t now_ns, struct error *err)
{
    uint64_t first = l->segments[l->n - 1].first_seq;
    int64_t first_ns = 0;
    if (first > journal_durable_seq(r->journal)) return STATUS_OK; /* empty */
    enum status s = time_of(r->journal, first, &first_ns, err);
    if (s == STATUS_OK && first_ns < now_ns - r->cfg.max_age_ns / 8) r->journal->ops->roll(r->journal);
    return s;
}

/* ---- who keeps what ---- */

static uint64_t oldest_needed(const struct journal *j, struct journal_keeper **ret_keeper)
{
    uint64_t oldest = UINT64_MAX;
    *ret_keeper = NULL;
    for (struct list *node = j->keepers.next; node != &j->keepers; node = node->next) {
        struct journal_keeper *k = container_of(node, struct journal_keeper, node);
        uint64_t seq = k->oldest_needed(k);
        if (seq >= oldest) continue;
        oldest = seq;
        *ret_keeper = k;
    }
    return oldest;
}

/* Each once: while one renews, another may go, and the list with it. */
static void ask_to_renew(struct journal *j, uint64_t seq)
{
    struct list *node = j->keepers.next;
    for (unsigned i = 0; node != &j->keepers && i < 16; i++) {
        struct journal_keeper *k = container_of(node, struct journal_keeper, node);
        node = node->next;
        if (k->renew != NULL && k->oldest_needed(k) < seq) k->renew(k, seq);
    }
}

static uint64_t end_of(const struct look *l)
{
    return l->segments[l->n_old].first_seq;
}

static void note_keeper(struct retention *r, const struct journal_keeper *k, uint64_t from,
                        const struct look *l)
{
    r->report.kept_by = k->name;
    r->report.kept_from = from;
    if (r->complained_ns != 0 && clock_monotonic_ns() < r->complained_ns + COMPLAIN_NS) return;
    r->complained_ns = clock_monotonic_ns();
    log_warn("journal", "records that should be removed are still needed", LOG_STR("by", k->name),
             LOG_INT("from", from), LOG_STR("reason", l->reason));
}

/* Fewer, if somebody still needs them. */
static void spare_needed(struct retention *r, struct look *l)
{
    struct journal_keeper *k;
    r->report.kept_by = NULL;
    uint64_t oldest = oldest_needed(r->journal, &k);
    if (k == NULL || oldest >= end_of(l)) return;
    note_keeper(r, k, oldest, l);
    while (l->n_old > 0 && end_of(l) > oldest)
        l->n_old--;
}

/* ---- removing ---- */

static enum status announce(struct retention *r, const struct look *l, struct error *err)
{
    struct arena a = {0};
    uint64_t first = l->segments[0].first_seq, last = end_of(l) - 1, seq = 0;
    if (r->announced_from == end_of(l) && r->generation == journal_generation(r->journal)) return STATUS_OK;
    struct record cut = {
        .kind = RECORD_CUT,
        .time_ns = clock_unix_ns(),
        .reason = sv(l->reason),
        .message = arena_printf(&a, "records %" PRIu64 " to %" PRIu64 " are removed by retention (%s)", first,
                                last, l->reason),
        .detail = arena_printf(&a, "{\"first\":%" PRIu64 ",\"last\":%" PRIu64 "}", first, last)};
    enum status s = journal_append(r->journal, &cut, 1, &seq, err);
    if (s == STATUS_OK)
        s = journal_wait_durable(r->journal, seq, clock_monotonic_ns() + DURABLE_WAIT_NS, err);
    arena_release(&a);
    if (s != STATUS_OK) return s;
    r->announced_seq = seq;
    r->announced_from = end_of(l);
    r->generation = journal_generation(r->journal);
    return STATUS_OK;
}

static bool is_sealed(const struct journal *j, uint64_t seq)
{
    for (struct list *node = j->keepers.next; node != &j->keepers; node = node->next) {
        struct journal_keeper *k = container_of(node, struct journal_keeper, node);
        if (k->is_seal && k->oldest_needed(k) <= seq) return false;
    }
    return true;
}

/* An announcement without a seal could be anybody's. */
static enum status wait_sealed(struct retention *r, struct error *err)
{
    int64_t until_ns = clock_monotonic_ns() + SEAL_WAIT_NS;
    enum status s = STATUS_OK;
    while (s == STATUS_OK && !is_sealed(r->journal, r->announced_seq)) {
        if (clock_monotonic_ns() > until_ns)
            return error_set(err, STATUS_UNAVAILABLE,
                             "record %" PRIu64 ", which announces it, is not sealed yet", r->announced_seq);
        s = sleep_ms(SEAL_LOOK_MS);
    }
    return s == STATUS_OK ? s : error_set(err, s, "stopped");
}

/* A snapshot covers what goes. Where none can be written, as on a full disk, only what the last one covers
 * goes. */
static enum status cover_by_snapshot(struct retention *r, struct look *l, struct error *err)
{
    struct journal *j = r->journal;
    if (j->snapshots_dir == NULL || j->snapshot_seq + 1 >= end_of(l)) return STATUS_OK;
    enum status s = journal_snapshot(j, err);
    if (s == STATUS_OK) return s;
    while (l->n_old > 0 && end_of(l) > j->snapshot_seq + 1)
        l->n_old--;
    return l->n_old > 0 ? STATUS_OK : s;
}

/* Readers are turned away before the files go. */
static enum status remove_old(struct retention *r, struct look *l, uint64_t *ret_removed, struct error *err)
{
    struct journal *j = r->journal;
    enum status s = cover_by_snapshot(r, l, err);
    if (s == STATUS_OK) s = announce(r, l, err);
    if (s == STATUS_OK) s = wait_sealed(r, err);
    if (s != STATUS_OK) return s;
    uint64_t first = l->segments[0].first_seq, keep_from = end_of(l);
    j->first_seq = keep_from;
    s = j->ops->cut(j, keep_from, err);
    if (s != STATUS_OK) return s;
    *ret_removed = keep_from - first;
    metric_add(catalog_series(CATALOG_JOURNAL_REMOVED, NULL), (double)*ret_removed);
    log_info("journal", "old records removed", LOG_INT("first", first), LOG_INT("last", keep_from - 1),
             LOG_STR("reason", l->reason));
    return STATUS_OK;
}

/* ---- a look ---- */

static void note_size(struct retention *r, const struct look *l, int64_t oldest_ns)
{
    r->report.bytes = bytes_of(l, l->n_old);
    r->report.oldest_unix_ns = oldest_ns;
    metric_set(catalog_series(CATALOG_JOURNAL_OLDEST, NULL), (double)oldest_ns / 1e9);
    if (r->has_warned || r->report.bytes < r->cfg.max_bytes / 100 * WARN_PERCENT) return;
    r->has_warned = true;
    log_warn("journal", "the journal is at 80 % of its size: older records will be removed before their time",
             LOG_INT("bytes", r->report.bytes), LOG_INT("max_bytes", r->cfg.max_bytes));
}

/* Either nothing ran for long, or the clock was set wrong meanwhile: that would take every record at once,
 * and for good. Whoever watches gets a day to see it. */
static enum status doubt_clock(struct retention *r, struct error *err)
{
    int64_t newest_ns = 0, started_ns = r->offset_ns + clock_monotonic_ns();
    if (r->past_seq == 0) return STATUS_OK;
    enum status s = time_of(r->journal, r->past_seq, &newest_ns, err);
    if (s != STATUS_OK) return s;
    r->past_seq = 0;
    if (newest_ns > started_ns - AHEAD_MAX_NS) return STATUS_OK;
    char hours[DURATION_TEXT_MAX], trust[DURATION_TEXT_MAX];
    r->ahead_ns = started_ns - newest_ns;
    r->believed_ns = clock_monotonic_ns() + TRUST_NS;
    log_warn("journal",
             "the clock is far ahead of the newest record: is it right? Nothing is removed by it yet",
             LOG_STR("ahead", duration_format(r->ahead_ns / (3600 * NS_PER_S) * (3600 * NS_PER_S), hours)),
             LOG_STR("believed_in", duration_format(TRUST_NS, trust)));
    return STATUS_OK;
}

/* What the wall clock showed at the start, gone on by the monotonic one: records do not become old because
 * somebody sets the clock forward, by mistake or to the right time at last. */
static int64_t age_now(const struct retention *r)
{
    int64_t now_ns = clock_unix_ns(), monotonic_ns = clock_monotonic_ns();
    int64_t gone_on_ns = monotonic_ns + r->offset_ns - (monotonic_ns < r->believed_ns ? r->ahead_ns : 0);
    return now_ns < gone_on_ns ? now_ns : gone_on_ns;
}

static enum status look(struct retention *r, struct look *l, uint64_t *ret_removed, struct error *err)
{
    struct journal *j = r->journal;
    enum status s = doubt_clock(r, err);
    if (s != STATUS_OK) return s;
    int64_t now_ns = age_now(r), oldest_ns = 0;
    s = j->ops->segments(j, &l->arena, &l->segments, &l->n, err);
    if (s == STATUS_OK && l->n > 0 &&
        l->segments[0].first_seq < j->first_seq) { /* the last cut failed half-way */
        s = j->ops->cut(j, j->first_seq, err);
        if (s == STATUS_OK) s = j->ops->segments(j, &l->arena, &l->segments, &l->n, err);
    }
    if (s == STATUS_OK && l->n == 0) return STATUS_OK;
    if (s == STATUS_OK && l->n > 1) ask_to_renew(j, l->segments[l->n - 1].first_seq); /* once a segment */
    if (s == STATUS_OK) s = roll_if_old(r, l, now_ns, err);
    if (s == STATUS_OK) s = find_old(r, l, now_ns, err);
    if (s == STATUS_OK && l->n_old > 0) spare_needed(r, l);
    if (s == STATUS_OK && l->n_old > 0) s = remove_old(r, l, ret_removed, err);
    if (s == STATUS_OK && journal_durable_seq(j) >= journal_first_seq(j))
        s = time_of(j, journal_first_seq(j), &oldest_ns, err);
    if (s == STATUS_OK) note_size(r, l, oldest_ns);
    return s;
}

enum status retention_look(struct retention *r, uint64_t *ret_removed, struct error *err)
{
    struct look l = {.reason = ""};
    *ret_removed = 0;
    if (r->is_looking) return error_set(err, STATUS_UNAVAILABLE, "retention is at work already");
    r->is_looking = true;
    enum status s = look(r, &l, ret_removed, err);
    r->is_looking = false;
    arena_release(&l.arena);
    return s;
}

static void retention_fiber(void *arg)
{
    struct retention *r = arg;
    struct error err;
    uint64_t removed;
    do {
        if (!journal_is_healthy(r->journal)) continue; /* it says so itself */
        enum status s = retention_look(r, &removed, &err);
        if (s != STATUS_OK && s != STATUS_CANCELLED)
            log_warn("journal", "old records are not removed yet", LOG_STR("reason", err.message));
    } while (sleep_until(clock_monotonic_ns() + r->cfg.look_ns) == STATUS_OK);
}

struct retention *retention_new(struct journal *j, const struct retention_cfg *cfg)
{
    struct retention *r = mem_zalloc(1, sizeof(*r));
    r->journal = j;
    r->past_seq = journal_last_seq(j);
    r->cfg = *cfg;
    r->offset_ns = clock_unix_ns() - clock_monotonic_ns();
    if (r->cfg.look_ns == 0) r->cfg.look_ns = LOOK_NS;
    r->report = (struct retention_report){.max_bytes = cfg->max_bytes, .max_age_ns = cfg->max_age_ns};
    metric_set(catalog_series(CATALOG_JOURNAL_BYTES_MAX, NULL), (double)cfg->max_bytes);
    (void)catalog_series(CATALOG_JOURNAL_REMOVED, NULL);
    fiber_scope_init(&r->scope);
    return r;
}

enum status retention_start(struct retention *r, struct error *err)
{
    if (r->journal->ops->segments == NULL) return STATUS_OK; /* it forgets by itself */
    return fiber_scope_spawn(&r->scope, retention_fiber, r, err);
}

void retention_free(struct retention *r)
{
    if (r == NULL) return;
    fiber_scope_cancel(&r->scope);
    fiber_scope_join(&r->scope);
    free(r);
}

void retention_report(const struct retention *r, struct retention_report *ret_report)
{
    *ret_report = r->report;
}
