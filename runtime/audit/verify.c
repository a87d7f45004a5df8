/* One pass over three files in step: records, leaves, checkpoints.
 *
 *   record --hash--> leaf of our own --> tree --size reached--> root == the signed one?   yes: everything up
 * to here is what was sealed |                                                                 no:  the first
 * leaf that differs says where
 *                       +-- other than audit/leaves? remember the first
 *
 * The leaves file carries no signature, so a leaf that differs proves nothing by itself; once a checkpoint
 * fails, the leaves are hashed and believed if they have the signed root. */
#include "audit/verify_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "audit/hasher.h"
#include "base/json.h"
#include "base/memory.h"

#define PROGRESS_RECORDS 100000
#define OPEN_LISTED_MAX  100
#define ATTEMPTS_MAX     10

/* ---- records ---- */

static void note_unsealed(struct verify *v, const struct journal_entry *e)
{
    struct record r;
    if (record_decode(e->bytes, &v->scratch, &r, NULL) == STATUS_OK && r.time_ns < v->began_unix_ns)
        unsealed_add(&v->rest, r.time_ns);
    arena_reset(&v->scratch);
}

/* What a record says, into one of the report's lists. */
static void note_said(struct verify *v, const struct journal_entry *e, struct strview **list, size_t *n)
{
    struct record r;
    if (*n == 0) *list = arena_array(v->arena, AUDIT_LATE_SEALS_MAX, sizeof(**list));
    if (*n < AUDIT_LATE_SEALS_MAX && record_decode(e->bytes, &v->scratch, &r, NULL) == STATUS_OK)
        (*list)[(*n)++] = arena_printf(v->arena, "record %" PRIu64 ": %.*s", e->seq, SV_ARG(r.message));
    arena_reset(&v->scratch);
}

static void note_cut(struct verify *v, const struct journal_entry *e)
{
    struct record r;
    json_t *detail = NULL;
    if (record_decode(e->bytes, &v->scratch, &r, NULL) == STATUS_OK &&
        json_parse(r.detail, 0, &detail, NULL) == STATUS_OK) {
        json_int_t last = json_integer_value(json_object_get(detail, "last"));
        if (last > 0 && (uint64_t)last > v->cut_last) v->cut_last = (uint64_t)last;
    }
    json_release(detail);
    arena_reset(&v->scratch);
}

/* Retention has removed the records before `first`, and their leaves stand for them: whoever changes one of
 * those does not get the signed roots. */
static void take_removed(struct verify *v, uint64_t first)
{
    struct merkle_hash leaf;
    v->removed_last = first - 1;
    v->next_leaf = v->n_leaves = 0;
    if (v->leaves != NULL) (void)fseeko(v->leaves, (off_t)(v->tree.size * sizeof(leaf)), SEEK_SET);
    while (v->tree.size + 1 < first && verify_next_leaf(v, &leaf)) {
        merkle_tree_add(&v->tree, leaf);
        v->report->removed++;
        v->report->records++;
        if (v->has_next && v->next.size == v->tree.size) verify_checkpoints(v);
        if (v->next_kept < v->n_kept && v->kept[v->next_kept].size == v->tree.size) verify_kept(v);
    }
    if (v->tree.size + 1 < first)
        verify_found_bad(v, v->tree.size + 1,
                         "records %" PRIu64 " to %" PRIu64
                         " were removed and audit/leaves has no hashes of them",
                         v->tree.size + 1, first - 1);
}

/* What goes is announced in the journal, and goes only once that is sealed: else somebody else has removed
 * it. */
static void check_announced(struct verify *v)
{
    if (v->removed_last <= v->sealed_cut_last) return;
    verify_found_bad(v, v->sealed_cut_last + 1,
                     "records %" PRIu64 " to %" PRIu64
                     " are missing and no sealed record says that they were removed",
                     v->sealed_cut_last + 1, v->removed_last);
}

static void note_kind(struct verify *v, const struct journal_entry *e, enum record_kind kind)
{
    if (kind == RECORD_UNSEALED) note_said(v, e, &v->report->late_seals, &v->report->n_late_seals);
    if (kind == RECORD_RESTORED) note_said(v, e, &v->report->restores, &v->report->n_restores);
    if (kind == RECORD_CUT) note_cut(v, e);
}

static void take_record(struct verify *v, const struct journal_entry *e, struct merkle_hash leaf)
{
    struct merkle_hash sealed;
    if (!verify_is_bad(v) && v->first_other_leaf == 0 && verify_next_leaf(v, &sealed) &&
        memcmp(&leaf, &sealed, sizeof(leaf)) != 0)
        v->first_other_leaf = e->seq;
    bool is_behind_all = !v->has_next && !verify_is_bad(v);
    /* Before a checkpoint covers it. */
    note_kind(v, e, open_intents_look(&v->open, e->seq, e->bytes, &v->scratch));
    merkle_tree_add(&v->tree, leaf);
    v->report->records++;
    if (v->has_next && v->next.size == v->tree.size) verify_checkpoints(v);
    if (v->next_kept < v->n_kept && v->kept[v->next_kept].size == v->tree.size) verify_kept(v);
    if (is_behind_all && v->rest.span_ns <= UNSEALED_VERIFY_MAX_NS) note_unsealed(v, e);
}

/* A damaged or missing record spoils its whole batch: come closer by halves. */
static enum status read_batch(struct verify *v, uint64_t seq, struct arena *a,
                              struct journal_entry **ret_entries, size_t *ret_n)
{
    enum status s = STATUS_OK;
    for (size_t max = HASHER_BATCH_RECORDS; max > 0; max /= 2) {
        s = journal_reader_read(v->reader, seq, max, false, a, ret_entries, ret_n, v->err);
        if (s != STATUS_DATA_LOSS) return s;
        arena_reset(a);
    }
    return s;
}

/* Fills the hasher until it is full or there is nothing more to read. */
static enum status read_ahead(struct verify *v, struct hasher *hasher, uint64_t *seq, bool *ret_is_end)
{
    struct hasher_batch *b;
    while (!*ret_is_end && (b = hasher_next(hasher)) != NULL) {
        enum status s = read_batch(v, *seq, &b->arena, &b->entries, &b->n);
        if (s != STATUS_OK || b->n == 0) *ret_is_end = true;
        if (s != STATUS_OK) return s;
        if (b->n == 0) break;
        *seq = b->entries[b->n - 1].seq + 1;
        hasher_put(hasher, b);
    }
    return STATUS_OK;
}

static enum status read_from(struct verify *v, uint64_t seq, uint64_t *told)
{
    struct hasher *hasher = hasher_new(0);
    struct hasher_batch *b;
    bool is_end = false;
    enum status s = STATUS_OK, ahead;
    for (;;) {
        ahead = read_ahead(v, hasher, &seq, &is_end);
        if (ahead != STATUS_OK) s = ahead;
        if ((b = hasher_get(hasher)) == NULL) break;
        for (size_t i = 0; i < b->n; i++)
            take_record(v, &b->entries[i], b->leaves[i]);
        hasher_done(hasher, b);
        if (v->cfg->on_progress != NULL && v->report->records - *told >= PROGRESS_RECORDS) {
            *told = v->report->records;
            v->cfg->on_progress(*told, v->cfg->arg);
        }
    }
    hasher_free(hasher);
    return s;
}

/* Retention of a running platform may be faster than we read. The rest cannot be put in its place once a
 * record is missing: reading ends there. */
static enum status read_records(struct verify *v)
{
    enum status s = STATUS_OUT_OF_RANGE;
    uint64_t told = 0, first;
    while (s == STATUS_OUT_OF_RANGE && (first = journal_reader_first_seq(v->reader)) > v->tree.size) {
        if (first > v->tree.size + 1) take_removed(v, first);
        if (v->tree.size + 1 < first) return STATUS_OK; /* found bad: nothing to put the rest behind */
        s = read_from(v, first, &told);
    }
    if (s != STATUS_DATA_LOSS && s != STATUS_OUT_OF_RANGE) return s;
    verify_found_bad(v, v->first_other_leaf != 0 ? v->first_other_leaf : v->tree.size + 1,
                     "record %" PRIu64 " cannot be read: %s", v->tree.size + 1, v->err->message);
    return STATUS_OK;
}

/* ---- opening ---- */

static enum status open_optional(const char *path, FILE **ret_file, uint64_t *ret_size, struct error *err)
{
    struct stat st;
    *ret_file = fopen(path, "rbe");
    if (*ret_file != NULL && fstat(fileno(*ret_file), &st) == 0) {
        *ret_size = (uint64_t)st.st_size;
        return STATUS_OK;
    }
    if (*ret_file == NULL && errno == ENOENT) return STATUS_OK;
    return error_set(err, status_from_errno(errno), "open '%s': %s", path, strerror(errno));
}

static enum status open_all(struct verify *v)
{
    struct arena a = {0};
    uint64_t leaves_bytes = 0;
    const char *dir = v->cfg->data_dir, *key_file = v->cfg->public_key_file, *signed_dir = v->cfg->before_dir;
    if (signed_dir == NULL) signed_dir = arena_printf(&a, "%s/audit", dir).ptr;
    if (key_file == NULL) key_file = arena_printf(&a, "%s/key.pub", signed_dir).ptr;
    enum status s = journal_reader_open(arena_printf(&a, "%s/journal", dir).ptr, &v->reader, v->err);
    if (s == STATUS_OK) v->first_seq = journal_reader_first_seq(v->reader);
    if (s == STATUS_OK) s = audit_key_read_public(key_file, &v->key, v->err);
    if (s == STATUS_OK)
        s = open_optional(arena_printf(&a, "%s/audit/leaves", dir).ptr, &v->leaves, &leaves_bytes, v->err);
    if (s == STATUS_OK)
        s = open_optional(arena_printf(&a, "%s/checkpoints", signed_dir).ptr, &v->checkpoints,
                          &v->checkpoint_bytes, v->err);
    if (s == STATUS_OK) s = verify_load_kept(v);
    arena_release(&a);
    return s;
}

static void close_all(struct verify *v)
{
    if (v->leaves != NULL) (void)fclose(v->leaves);
    if (v->checkpoints != NULL) (void)fclose(v->checkpoints);
    journal_reader_close(v->reader);
    audit_key_free(v->key);
    free(v->kept);
    open_intents_release(&v->open);
    arena_release(&v->scratch);
    free(v);
}

/* What can be said only at the end. */
static void finish(struct verify *v)
{
    struct audit_report *r = v->report;
    size_t listed = 0;
    check_announced(v);
    verify_tail(v);
    verify_kept_tail(v);
    if (!v->has_met_any && r->records > 0)
        verify_found_bad(v, 1, "there is no checkpoint at all: they were removed");
    bool is_old = v->began_unix_ns - v->rest.last_ns > UNSEALED_FIRST_MAX_NS;
    r->is_end_unsealed = v->cfg->before_dir == NULL && (v->rest.span_ns > UNSEALED_VERIFY_MAX_NS ||
                                                        (r->sealed_records == 0 && r->records > 0 && is_old));
    r->root = merkle_tree_root(&v->tree);
    r->open_intents = open_intents_list(&v->open, OPEN_LISTED_MAX, v->arena, &listed);
    r->n_open_intents = v->open.n;
}

/* Retention went on meanwhile: what announces it may be sealed by a checkpoint that was not there when we
 * began. */
static bool is_outrun(const struct verify *v)
{
    return verify_is_bad(v) && v->removed_last >= v->first_seq;
}

static enum status verify_once(const struct audit_verify_cfg *cfg, struct arena *a,
                               struct audit_report *ret_report, bool *ret_is_outrun, struct error *err)
{
    struct verify *v = mem_zalloc(1, sizeof(*v));
    v->cfg = cfg;
    v->report = ret_report;
    v->arena = a;
    v->err = err;
    v->began_unix_ns = clock_unix_ns();
    merkle_tree_init(&v->tree);
    open_intents_init(&v->open);
    enum status s = open_all(v);
    if (s == STATUS_OK) {
        verify_next_checkpoint(v);
        verify_checkpoints(v);
        verify_kept(v);
        s = read_records(v);
    }
    if (s == STATUS_OK) finish(v);
    *ret_is_outrun = is_outrun(v);
    close_all(v);
    return s;
}

enum status audit_verify(const struct audit_verify_cfg *cfg, struct arena *a, struct audit_report *ret_report,
                         struct error *err)
{
    struct audit_report report;
    struct error own = {0};
    bool is_late = true;
    enum status s = STATUS_OK;
    if (err == NULL) err = &own;
    for (unsigned attempt = 0; s == STATUS_OK && is_late && attempt < ATTEMPTS_MAX; attempt++) {
        report = (struct audit_report){0};
        s = verify_once(cfg, a, &report, &is_late, err);
    }
    if (s == STATUS_OK && is_late)
        s = error_set(err, STATUS_UNAVAILABLE, "retention removes records faster than they can be verified");
    if (s == STATUS_OK) *ret_report = report;
    return s;
}
