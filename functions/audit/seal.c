#include "functions/audit/seal_impl.h"

#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "log/log.h"
#include "metrics/catalog.h"

#define CHECKPOINT_IDLE_NS (60 * NS_PER_S)
#define CATCH_UP_WAIT_NS   (2 * NS_PER_S) /* of a start, at most: it must not hang on an audit folder */
#define CHECK_MIN_REST_MS  1              /* between batches of the comparison, which is in no hurry */

/* ---- work for the worker thread ---- */

static void do_open(void *arg)
{
    struct seal_work *w = arg;
    w->status = seal_files_open(w->files, w->dir, w->origin, w->n, w->err);
}

static void do_append(void *arg)
{
    struct seal_work *w = arg;
    w->status = seal_files_append(w->files, w->entries, w->n, w->err);
}

static void do_checkpoint(void *arg)
{
    struct seal_work *w = arg;
    w->status = seal_files_checkpoint(w->files, clock_unix_ns(), w->err);
}

static void do_compare(void *arg)
{
    struct seal_work *w = arg;
    w->status = seal_files_compare(w->files, w->entries, w->n, &w->bad_seq, w->err);
}

/* On the loop's thread, with no work on the files under way but comparing. */
static void note_signed(struct seal *seal)
{
    const struct seal_files *f = &seal->files;
    seal->signed_seq = f->tree.size < f->newest.size ? f->tree.size : f->newest.size;
    if (f->are_leaves_bad) seal->signed_seq = 0; /* they are to be made anew */
}

/* ---- what was found ---- */

void seal_found_tampering(struct seal *seal, const char *message, uint64_t seq, const char *detail)
{
    metric_add(seal->failures, 1);
    log_error("audit", message, LOG_INT("seq", seq), LOG_STR("detail", detail),
              LOG_STR("advice", "run balm audit verify"));
}

void seal_note_result(struct seal *seal, enum status s, const struct error *err)
{
    if (s == STATUS_OK && seal->is_failing) log_info("audit", "sealing again");
    if (s != STATUS_OK && s != STATUS_CANCELLED && !seal->is_failing)
        log_error("audit", "cannot seal, repeating", LOG_STR("error", err->message));
    if (s != STATUS_CANCELLED) seal->is_failing = s != STATUS_OK;
}

/* ---- comparing ---- */

/* Journal against leaves, from the oldest record to what was sealed before this start. As long a rest as the
 * work took. */
static void check_fiber(void *arg)
{
    struct seal *seal = arg;
    struct arena a = {0};
    struct error err = {0};
    uint64_t size = seal->compared_seq, seq = journal_first_seq(seal->journal);
    struct seal_work w = {.files = &seal->files, .err = &err};
    if (journal_durable_seq(seal->journal) < size)
        seal_found_tampering(seal, "the journal is shorter than what was sealed",
                             journal_durable_seq(seal->journal) + 1, "records are missing");
    while (seq <= size) {
        int64_t began_ns = clock_monotonic_ns();
        struct journal_entry *entries = NULL;
        uint64_t left = size - seq + 1;
        enum status s = journal_read_kept(seal->journal, seq, left < SEAL_BATCH ? (size_t)left : SEAL_BATCH,
                                          false, &a, &entries, &w.n, &err);
        if (s != STATUS_OK || w.n == 0) break;
        seq = entries[w.n - 1].seq + 1;
        w.entries = entries;
        work_run(do_compare, &w);
        if (w.status != STATUS_OK || w.bad_seq != 0) break;
        arena_reset(&a);
        if (sleep_ms((uint64_t)((clock_monotonic_ns() - began_ns) / NS_PER_MS) + CHECK_MIN_REST_MS) !=
            STATUS_OK)
            break;
    }
    if (w.bad_seq != 0)
        seal_found_tampering(seal, "a record is not the one that was sealed", w.bad_seq,
                             "its hash is another");
    else if (err.code != STATUS_OK && err.code != STATUS_CANCELLED)
        log_warn("audit", "journal not compared with its seal", LOG_STR("error", err.message));
    arena_release(&a);
}

/* ---- sealing ---- */

/* Where leaves had been lost: once as many are there as were signed, their root must be the signed one. */
static void check_remade(struct seal *seal, uint64_t before, const struct checkpoint *newest)
{
    if (before >= newest->size || seal->files.tree.size != newest->size) return;
    struct merkle_hash root = merkle_tree_root(&seal->files.tree);
    if (memcmp(&root, &newest->root, sizeof(root)) == 0) return;
    seal_found_tampering(seal, "the journal has not the root that was signed: sealing has stopped",
                         newest->size, "leaves made anew differ");
    seal->is_stopped_for_good = true;
}

static enum status seal_pending(struct seal *seal, struct error *err)
{
    struct arena a = {0};
    enum status s = STATUS_OK;
    while (s == STATUS_OK && !seal->is_stopped_for_good &&
           seal->files.tree.size < journal_durable_seq(seal->journal)) {
        struct seal_work w = {.files = &seal->files, .err = err};
        struct journal_entry *entries = NULL;
        uint64_t before = seal->files.tree.size;
        struct checkpoint newest = seal->files.newest;
        size_t max = before < newest.size && newest.size - before < SEAL_BATCH
                         ? (size_t)(newest.size - before)
                         : SEAL_BATCH;
        s = journal_read(seal->journal, before + 1, max, false, &a, &entries, &w.n, err);
        if (s == STATUS_OK && w.n == 0)
            s = error_set(err, STATUS_DATA_LOSS, "record %llu cannot be read",
                          (unsigned long long)before + 1);
        if (s != STATUS_OK) break;
        w.entries = entries;
        work_run(do_append, &w);
        s = w.status;
        if (s == STATUS_OK) {
            metric_add(seal->records, (double)w.n);
            metric_set(seal->last_seq, (double)seal->files.tree.size);
            note_signed(seal);
            check_remade(seal, before, &newest);
        }
        arena_reset(&a);
    }
    arena_release(&a);
    return s;
}

static enum status checkpoint(struct seal *seal, struct error *err)
{
    /* While lost leaves are being made anew, a smaller tree than the signed one is no news. */
    if (seal->is_stopped_for_good || seal->files.tree.size < seal->files.newest.size) return STATUS_OK;
    struct seal_work w = {.files = &seal->files, .err = err};
    work_run(do_checkpoint, &w);
    if (w.status != STATUS_OK) return w.status;
    note_signed(seal);
    seal->checkpoint_ns = clock_monotonic_ns();
    metric_set(seal->last_checkpoint, (double)seal->files.newest.time_unix_ns / 1e9);
    return STATUS_OK;
}

/* If no record comes before. The first of a process is due at once; there is one of the empty tree already,
 * and the first record must not wait behind another. */
static int64_t next_checkpoint_ns(const struct seal *seal)
{
    if (seal->checkpoint_ns == 0 && seal->files.tree.size > 0) return clock_monotonic_ns() + 1;
    int64_t last_ns = seal->checkpoint_ns != 0 ? seal->checkpoint_ns : clock_monotonic_ns();
    return last_ns + CHECKPOINT_IDLE_NS;
}

static void seal_fiber(void *arg)
{
    struct seal *seal = arg;
    struct error err = {0};
    enum status s = seal_settle_rest(seal);
    if (s == STATUS_OK) s = seal_mend_leaves(seal);
    note_signed(seal);
    seal->compared_seq = seal->files.newest.size;
    if (s == STATUS_OK && !seal->is_stopped_for_good &&
        fiber_scope_spawn(&seal->scope, check_fiber, seal, &err) != STATUS_OK)
        log_warn("audit", "journal not compared with its seal", LOG_STR("error", err.message));
    while (s != STATUS_CANCELLED && !seal->is_stopped_for_good) {
        int64_t idle_end_ns = next_checkpoint_ns(seal);
        if (seal->files.newest.size >= journal_durable_seq(seal->journal)) fiber_event_set(&seal->caught_up);
        s = journal_wait_after(seal->journal, seal->files.tree.size, idle_end_ns);
        if (s == STATUS_OK || s == STATUS_DEADLINE_EXCEEDED) {
            s = seal_pending(seal, &err);
            if (s == STATUS_OK) s = checkpoint(seal, &err);
            seal_note_result(seal, s, &err);
        } /* else the journal says for itself what ails it */
        fiber_event_set(&seal->caught_up);
        if (s != STATUS_CANCELLED) s = sleep_until(clock_monotonic_ns() + SEAL_PAUSE_NS);
    }
    fiber_event_set(&seal->caught_up);
}

/* ---- life cycle ---- */

/* A key's name has neither white space nor '+'; a cluster's may. */
static struct strview origin_of(struct strview cluster, struct arena *a)
{
    struct strview origin = arena_printf(a, "balm.dev/audit/%.*s", SV_ARG(cluster));
    for (size_t i = 0; i < origin.len; i++) {
        char *c = (char *)origin.ptr + i;
        if (*c <= ' ' || *c == '+' || (unsigned char)*c >= 0x7F) *c = '-';
    }
    return sv_sub(origin, 0, 200);
}

static void on_collect(void *arg)
{
    const struct seal *seal = arg;
    double durable = (double)journal_durable_seq(seal->journal), sealed = metric_value(seal->last_seq);
    metric_set(catalog_series(CATALOG_AUDIT_LAG, NULL), durable > sealed ? durable - sealed : 0);
}

/* What no signature covers must not go: nothing would prove what it was, and leaves behind the newest
 * checkpoint are cut at the next start and made anew from the journal. */
static uint64_t oldest_needed(struct journal_keeper *k)
{
    const struct seal *seal = container_of(k, struct seal, keeper);
    return seal->is_stopped_for_good ? UINT64_MAX : seal->signed_seq + 1;
}

enum status seal_new(struct journal *j, const char *dir, struct strview cluster, struct seal **ret_seal,
                     struct error *err)
{
    struct arena a = {0};
    struct seal *seal = mem_zalloc(1, sizeof(*seal));
    seal->journal = j;
    seal->opened_seq = journal_durable_seq(j);
    struct seal_work w = {.files = &seal->files,
                          .dir = dir,
                          .origin = origin_of(cluster, &a),
                          .n = seal->opened_seq,
                          .err = err};
    work_run(do_open, &w);
    arena_release(&a);
    if (w.status != STATUS_OK) {
        free(seal);
        return error_prefix(err, w.status, "open the audit log");
    }
    note_signed(seal);
    fiber_scope_init(&seal->scope);
    fiber_event_init(&seal->caught_up);
    seal->records = catalog_series(CATALOG_AUDIT_RECORDS, NULL);
    seal->last_seq = catalog_series(CATALOG_AUDIT_LAST_SEQ, NULL);
    seal->last_checkpoint = catalog_series(CATALOG_AUDIT_LAST_CHECKPOINT, NULL);
    seal->failures = catalog_series(CATALOG_AUDIT_FAILURES, NULL);
    metric_set(seal->last_seq, (double)seal->files.tree.size);
    metric_set(seal->last_checkpoint, (double)seal->files.newest.time_unix_ns / 1e9);
    if (seal->files.is_checkpoint_lost)
        seal_found_tampering(seal, "checkpoints are missing or do not hold", seal->files.newest.size,
                             seal->files.why);
    metrics_on_collect(on_collect, seal);
    seal->keeper = (struct journal_keeper){.name = "audit", .oldest_needed = oldest_needed, .is_seal = true};
    journal_keep(j, &seal->keeper);
    *ret_seal = seal;
    return STATUS_OK;
}

enum status seal_start(struct seal *seal, struct error *err)
{
    enum status s = fiber_scope_spawn(&seal->scope, seal_fiber, seal, err);
    seal->is_started = s == STATUS_OK;
    if (s == STATUS_OK) (void)!fiber_event_wait(&seal->caught_up, clock_monotonic_ns() + CATCH_UP_WAIT_NS);
    return s;
}

static enum status seal_last(struct seal *seal, struct error *err)
{
    enum status s = seal->is_rest_settled ? STATUS_OK : seal_look_at_rest(seal, err);
    if (s != STATUS_OK || seal->files.are_leaves_bad) return s;
    s = journal_wait_durable(seal->journal, journal_last_seq(seal->journal),
                             clock_monotonic_ns() + SEAL_LAST_WAIT_NS, err);
    if (s == STATUS_OK || s == STATUS_DEADLINE_EXCEEDED) s = seal_pending(seal, err);
    return s == STATUS_OK ? checkpoint(seal, err) : s;
}

void seal_free(struct seal *seal)
{
    if (seal == NULL) return;
    struct error err = {0};
    metrics_off_collect(on_collect, seal);
    journal_unkeep(seal->journal, &seal->keeper);
    fiber_scope_cancel(&seal->scope);
    fiber_scope_join(&seal->scope);
    if (seal->is_started && !seal->is_stopped_for_good) {
        fiber_shield_begin();
        enum status s = seal_last(seal, &err);
        fiber_shield_end();
        if (s != STATUS_OK)
            log_warn("audit", "the last records are not sealed yet; the next start does it",
                     LOG_STR("error", err.message));
    }
    seal_files_close(&seal->files);
    free(seal);
}
