/* Bringing the followers to the present: each is given its part of the newest snapshot that fits, and then
 * what it has not seen. One whose part is missing or does not load sees everything that is kept; so a
 * follower that is new in this version, or counts differently, costs time at one start and nothing else. */
#include "store/journal_impl.h"

#include <inttypes.h>
#include <string.h>

#include "log/log.h"

static struct journal_follower *follower_of(struct list *node)
{
    return container_of(node, struct journal_follower, node);
}

void journal_tell_followers(struct journal *j)
{
    for (struct list *node = j->followers.next; node != &j->followers; node = j->next_follower) {
        j->next_follower = node->next;
        struct journal_follower *f = follower_of(node);
        f->folded_seq = 0;
        if (f->on_reset != NULL) f->on_reset(f, j->durable_seq);
    }
    j->next_follower = NULL;
}

/* ---- from a snapshot ---- */

struct open_work {
    const char *dir;
    uint64_t max_seq;
    struct snapshot *snapshot; /* NULL: none */
};

static void do_open(void *arg)
{
    struct open_work *w = arg;
    uint64_t *seqs = NULL;
    size_t n = 0;
    struct error err;
    snapshot_list(w->dir, &seqs, &n);
    for (size_t i = 0; i < n && w->snapshot == NULL; i++) {
        if (seqs[i] > w->max_seq) /* of another journal; it would count as newer than all to come */
            snapshot_remove(w->dir, seqs[i]);
        else if (snapshot_open(w->dir, seqs[i], &w->snapshot, &err) != STATUS_OK)
            log_warn("journal", "snapshot not used", LOG_STR("reason", err.message));
    }
    free(seqs);
}

static void do_close(void *arg)
{
    snapshot_close(arg);
}

/* Is the record at its end the one it was made behind? Of a record that was cut off nobody can say. */
static enum status is_of_this_journal(struct journal *j, const struct snapshot *s, bool *ret_is_ours,
                                      struct error *err)
{
    struct arena a = {0};
    struct journal_entry *entries = NULL;
    size_t n = 0;
    uint8_t hash[SHA256_BYTES];
    *ret_is_ours = s->seq + 1 >= j->first_seq;
    if (s->seq < j->first_seq) return STATUS_OK;
    enum status st = journal_read(j, s->seq, 1, false, &a, &entries, &n, err);
    if (st == STATUS_OK && n == 1) {
        sha256(entries[0].bytes, hash);
        *ret_is_ours = memcmp(hash, s->record_hash, sizeof(hash)) == 0;
    }
    arena_release(&a);
    if (st == STATUS_OK && !*ret_is_ours)
        log_warn("journal", "snapshot not used: its record is not the one in the journal",
                 LOG_INT("seq", s->seq));
    return st;
}

static void load_part(struct journal *j, struct journal_follower *f, const struct snapshot *s)
{
    struct error err = {0};
    struct unpack u;
    const struct snapshot_part *part = f->name != NULL ? snapshot_find(s, sv(f->name)) : NULL;
    if (part == NULL || f->on_load == NULL) return;
    unpack_init(&u, part->bytes);
    enum status st = part->version <= f->version
                         ? f->on_load(f, part->version, &u, &err)
                         : error_set(&err, STATUS_FAILED_PRECONDITION, "version %u, ours is %u",
                                     part->version, f->version);
    if (st == STATUS_OK) {
        f->folded_seq = s->seq;
        return;
    }
    log_warn("journal", "part of a snapshot not used, folding again", LOG_STR("part", f->name),
             LOG_STR("reason", err.message));
    f->on_reset(f, j->durable_seq);
}

static void do_remove(void *arg)
{
    const struct open_work *w = arg;
    snapshot_remove(w->dir, w->snapshot->seq);
}

/* The newest one that is whole and of this journal; others go. NULL: none. A journal that cannot be read says
 * nothing about them. */
static enum status find_snapshot(struct journal *j, struct snapshot **ret_snapshot, struct error *err)
{
    struct open_work w = {.dir = j->snapshots_dir, .max_seq = j->durable_seq};
    enum status s = STATUS_OK;
    while (s == STATUS_OK && w.max_seq > 0) {
        bool is_ours = false;
        journal_run_blocking(do_open, &w);
        if (w.snapshot == NULL) break;
        s = is_of_this_journal(j, w.snapshot, &is_ours, err);
        if (s == STATUS_OK && is_ours) break;
        w.max_seq = w.snapshot->seq - 1;
        if (s == STATUS_OK) journal_run_blocking(do_remove, &w);
        journal_run_blocking(do_close, w.snapshot);
        w.snapshot = NULL;
    }
    *ret_snapshot = w.snapshot;
    return s;
}

static enum status load_snapshot(struct journal *j, struct error *err)
{
    struct snapshot *snapshot = NULL;
    if (j->snapshots_dir == NULL) return STATUS_OK;
    enum status s = find_snapshot(j, &snapshot, err);
    j->snapshot_seq = snapshot != NULL ? snapshot->seq : 0;
    if (snapshot == NULL) return s;
    for (struct list *node = j->followers.next; node != &j->followers; node = node->next)
        load_part(j, follower_of(node), snapshot);
    journal_run_blocking(do_close, snapshot); /* unmapping a large one takes its time */
    return STATUS_OK;
}

/* ---- the rest ---- */

static bool wants_all(const struct journal_follower *f, bool stateful_only)
{
    return !stateful_only || f->on_reset != NULL;
}

/* The first record that somebody has not seen. The stateless are shown what is read anyway. */
static uint64_t first_wanted(const struct journal *j)
{
    uint64_t seq = j->durable_seq;
    bool is_any = false;
    for (struct list *node = j->followers.next; node != &j->followers; node = node->next) {
        const struct journal_follower *f = follower_of(node);
        if (f->on_reset == NULL) continue;
        if (f->folded_seq < seq) seq = f->folded_seq;
        is_any = true;
    }
    return !is_any || seq + 1 < j->first_seq ? j->first_seq : seq + 1;
}

static void show_entry(struct journal *j, bool stateful_only, const struct journal_entry *e)
{
    for (struct list *node = j->followers.next; node != &j->followers; node = j->next_follower) {
        j->next_follower = node->next;
        struct journal_follower *f = follower_of(node);
        if (!wants_all(f, stateful_only) || f->folded_seq >= e->seq) continue;
        f->on_record(f, e);
        f->folded_seq = e->seq;
    }
    j->next_follower = NULL;
}

static enum status read_batch(struct journal *j, uint64_t seq, struct arena *a,
                              struct journal_entry **ret_entries, size_t *ret_n, struct error *err)
{
    arena_reset(a);
    enum status s = journal_read(j, seq, JOURNAL_READ_MAX, true, a, ret_entries, ret_n, err);
    if (s == STATUS_OK && *ret_n == 0)
        s = error_set(err, STATUS_DATA_LOSS,
                      "fold the journal: record %" PRIu64 " of %" PRIu64 " cannot be read", seq,
                      j->durable_seq);
    return s;
}

/* What is kept folds to what is open by the records that were made anew for it (retention.h); counts,
 * cooldowns and what has ended before are not known any more. */
static void warn_if_cut(const struct journal *j)
{
    if (j->first_seq > 1 && first_wanted(j) == j->first_seq)
        log_error("journal",
                  "no snapshot fits and older records were removed: the state is made from what is kept",
                  LOG_INT("first", j->first_seq));
}

static enum status bring_up(struct journal *j, bool stateful_only, struct error *err)
{
    struct arena a = {0};
    enum status s = load_snapshot(j, err);
    if (s == STATUS_OK) warn_if_cut(j);
    for (uint64_t seq = first_wanted(j); s == STATUS_OK && seq <= j->durable_seq;) {
        struct journal_entry *entries = NULL;
        size_t n = 0;
        s = read_batch(j, seq, &a, &entries, &n, err);
        for (size_t i = 0; i < n && s == STATUS_OK; i++)
            show_entry(j, stateful_only, &entries[i]);
        seq += n;
    }
    arena_release(&a);
    return s;
}

/* A fold cut short leaves the followers half-way: they drop everything and begin again. */
void journal_fold_again_fiber(void *arg)
{
    struct journal *j = arg;
    struct error err;
    enum status s = STATUS_OK;
    while (j->is_folding) /* the one at the start */
        if (sleep_ms(10) != STATUS_OK) return;
    do {
        journal_tell_followers(j);
        j->is_folding = true;
        s = bring_up(j, true, &err);
        j->is_folding = false;
        if (s == STATUS_OK) break;
        if (fiber_is_cancelled()) return;
        log_error("journal", "folding again failed, retrying in 1000 ms", LOG_STR("reason", err.message));
    } while (sleep_ms(1000) == STATUS_OK);
    if (s != STATUS_OK) return;
    j->is_healthy = true;
    j->why_unhealthy[0] = '\0';
    log_warn("journal", "store is whole again", LOG_STR("store", j->ops->name),
             LOG_INT("durable_seq", j->durable_seq));
    j->ops->resume(j);
    journal_wake_durable(j);
}

enum status journal_fold(struct journal *j, struct error *err)
{
    if (j->is_folding)
        return error_set(err, STATUS_FAILED_PRECONDITION, "fold the journal: it is being folded already");
    if (!j->is_healthy) return error_set(err, STATUS_UNAVAILABLE, "fold the journal: %s", j->why_unhealthy);
    j->is_folding = true; /* from here on nothing is appended, so followers miss nothing between the fold and
                             what follows */
    enum status s = journal_wait_durable(j, j->last_seq, 0, err);
    if (s == STATUS_OK) s = bring_up(j, false, err);
    j->is_folding = false;
    if (s != STATUS_OK || j->is_folded || j->snapshots_dir == NULL) return s;
    j->is_folded = true;
    return fiber_scope_spawn(&j->scope, journal_snapshot_fiber, j, err);
}

enum status journal_replay(struct journal *j, uint64_t seq, struct journal_follower *f, struct error *err)
{
    struct arena a = {0};
    enum status s = STATUS_OK;
    if (seq < j->first_seq) seq = j->first_seq;
    while (s == STATUS_OK && seq <= j->durable_seq) {
        struct journal_entry *entries = NULL;
        size_t n = 0;
        s = read_batch(j, seq, &a, &entries, &n, err);
        for (size_t i = 0; i < n && s == STATUS_OK; i++)
            f->on_record(f, &entries[i]);
        seq += n;
    }
    arena_release(&a);
    return s;
}
