/* What a start finds: records that an earlier process left without a seal, and leaves that were damaged. */
#include "functions/audit/seal_impl.h"

#include <string.h>

#include "audit/unsealed.h"
#include "base/clock.h"
#include "log/log.h"

static void do_cut_rest(void *arg)
{
    struct seal_work *w = arg;
    w->status = seal_files_cut_rest(w->files, w->err);
}

static void do_set_aside(void *arg)
{
    struct seal_work *w = arg;
    w->status = seal_files_set_aside(w->files, clock_unix_ns(), w->err);
}

static void do_hash(void *arg)
{
    struct seal_work *w = arg;
    for (size_t i = 0; i < w->n; i++)
        merkle_tree_add(w->tree, merkle_leaf(w->entries[i].bytes));
}

static void do_restart(void *arg)
{
    struct seal_work *w = arg;
    w->status = seal_files_restart(w->files, w->err);
}

/* ---- what an earlier process left without a seal ---- */

/* Is it more than a crash explains? */
static enum status measure_rest(struct seal *seal, bool *ret_is_late, struct error *err)
{
    struct arena a = {0};
    struct unsealed rest;
    uint64_t seq = seal->files.newest.size + 1;
    enum status s = STATUS_OK;
    unsealed_init(&rest, seal->files.newest.time_unix_ns);
    while (s == STATUS_OK && seq <= seal->opened_seq && rest.span_ns <= UNSEALED_START_MAX_NS) {
        struct journal_entry *entries = NULL;
        size_t n = 0;
        uint64_t left = seal->opened_seq - seq + 1;
        s = journal_read(seal->journal, seq, left < SEAL_BATCH ? (size_t)left : SEAL_BATCH, true, &a,
                         &entries, &n, err);
        if (s != STATUS_OK || n == 0) break;
        for (size_t i = 0; i < n; i++)
            unsealed_add(&rest, entries[i].record->time_ns);
        seq = entries[n - 1].seq + 1;
        arena_reset(&a);
    }
    arena_release(&a);
    *ret_is_late = rest.span_ns > UNSEALED_START_MAX_NS;
    return s;
}

static struct strview describe_rest(const struct seal *seal, uint64_t records, struct arena *a)
{
    const struct checkpoint *newest = &seal->files.newest;
    char time[RFC3339_LEN + 1];
    if (!seal->files.has_checkpoint)
        return arena_printf(a, "sealing resumed over %llu unsealed records: %s", (unsigned long long)records,
                            seal->files.why);
    rfc3339_format(newest->time_unix_ns, time);
    return arena_printf(a, "sealing resumed over %llu unsealed records after checkpoint %llu of %s%s%s",
                        (unsigned long long)records, (unsigned long long)newest->size, time,
                        seal->files.is_checkpoint_lost ? ": " : ", which is more than a crash leaves",
                        seal->files.why);
}

/* Durable when it returns; a stop does not cut it short, or the last seal would write a second one. */
static enum status record_late(struct seal *seal, struct error *err)
{
    struct arena a = {0};
    uint64_t size = seal->files.newest.size, seq = 0;
    uint64_t records = seal->opened_seq > size ? seal->opened_seq - size : 0;
    struct record r = {.kind = RECORD_UNSEALED,
                       .time_ns = clock_unix_ns(),
                       .function = SV("audit"),
                       .message = describe_rest(seal, records, &a),
                       .detail = arena_printf(&a, "{\"checkpoint\":%llu,\"records\":%llu}",
                                              (unsigned long long)size, (unsigned long long)records)};
    fiber_shield_begin();
    enum status s = journal_append(seal->journal, &r, 1, &seq, err);
    if (s == STATUS_OK)
        s = journal_wait_durable(seal->journal, seq, clock_monotonic_ns() + SEAL_LAST_WAIT_NS, err);
    fiber_shield_end();
    if (s == STATUS_OK && !seal->files.is_checkpoint_lost)
        seal_found_tampering(seal, "records were left unsealed for longer than a crash explains", size + 1,
                             r.message.ptr);
    arena_release(&a);
    return s;
}

/* The record comes first: if it cannot be written, the next start finds all as it is now. */
enum status seal_look_at_rest(struct seal *seal, struct error *err)
{
    bool is_late = seal->files.is_checkpoint_lost;
    struct seal_work w = {.files = &seal->files, .err = err};
    enum status s = is_late ? STATUS_OK : measure_rest(seal, &is_late, err);
    if (s == STATUS_OK && is_late && !seal->is_late_recorded) {
        s = record_late(seal, err);
        seal->is_late_recorded = s == STATUS_OK;
    }
    if (s != STATUS_OK) return s;
    work_run(is_late ? do_set_aside : do_cut_rest, &w);
    seal->is_rest_settled = w.status == STATUS_OK;
    return w.status;
}

enum status seal_settle_rest(struct seal *seal)
{
    struct error err = {0};
    enum status s = STATUS_OK;
    while (s == STATUS_OK && !seal->is_rest_settled) {
        enum status settled = seal_look_at_rest(seal, &err);
        seal_note_result(seal, settled, &err);
        if (settled != STATUS_OK) s = sleep_until(clock_monotonic_ns() + SEAL_PAUSE_NS);
    }
    return s;
}

/* ---- damaged leaves ---- */

static bool is_found_out(enum status s)
{
    return s == STATUS_DATA_LOSS || s == STATUS_OUT_OF_RANGE;
}

/* The leaves are a fold: if the journal has the signed root, only they were damaged, and are made anew. A
 * journal that cannot be read just now says nothing: try again. */
static enum status rebuild_leaves(struct seal *seal, struct error *err)
{
    struct arena a = {0};
    struct merkle_tree tree;
    merkle_tree_init(&tree);
    enum status s = STATUS_OK;
    while (s == STATUS_OK && tree.size < seal->files.newest.size) {
        uint64_t left = seal->files.newest.size - tree.size;
        struct seal_work w = {.tree = &tree, .status = STATUS_OK};
        struct journal_entry *entries = NULL;
        s = journal_read(seal->journal, tree.size + 1, left < SEAL_BATCH ? (size_t)left : SEAL_BATCH, false,
                         &a, &entries, &w.n, err);
        if (s != STATUS_OK || w.n == 0) break;
        w.entries = entries;
        work_run(do_hash, &w);
        arena_reset(&a);
        s = fiber_yield();
    }
    arena_release(&a);
    if (s != STATUS_OK && !is_found_out(s)) return s;
    struct merkle_hash root = merkle_tree_root(&tree);
    if (s == STATUS_OK && tree.size == seal->files.newest.size &&
        memcmp(&root, &seal->files.newest.root, sizeof(root)) == 0) {
        log_warn("audit", "the leaves were damaged and the journal is not: leaves are made anew",
                 LOG_INT("records", tree.size));
        struct seal_work w = {.files = &seal->files, .err = err};
        work_run(do_restart, &w);
        seal->files.are_leaves_bad = w.status != STATUS_OK;
        return w.status;
    }
    seal_found_tampering(seal,
                         "neither journal nor leaves have the root that was signed: sealing has stopped",
                         seal->files.newest.size, s != STATUS_OK && err != NULL ? err->message : "");
    seal->is_stopped_for_good = true;
    return STATUS_OK;
}

enum status seal_mend_leaves(struct seal *seal)
{
    struct error err = {0};
    enum status s = STATUS_OK;
    while (s == STATUS_OK && seal->files.are_leaves_bad && !seal->is_stopped_for_good) {
        enum status mended = rebuild_leaves(seal, &err);
        seal_note_result(seal, mended, &err);
        if (mended != STATUS_OK) s = sleep_until(clock_monotonic_ns() + SEAL_PAUSE_NS);
    }
    return s;
}
