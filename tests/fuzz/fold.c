/* Records of every kind, in any order and with any content, through all that folds them: the decider, the
 * queue's index, episodes and the audit index. The same records give the same decisions twice, what was saved
 * in the middle goes on as what was not, and no fold breaks.
 *
 * Input: one record a line. Lines that are none are left out.
 *
 * Reads: functions/dispatcher/state.c functions/dispatcher/state_incident.c
 * functions/dispatcher/state_timer.c functions/dispatcher/state_tick.c functions/dispatcher/decide.c
 * functions/dispatcher/decide_incident.c functions/dispatcher/decide_act.c functions/dispatcher/decide_emit.c
 * functions/dispatcher/gates.c store/episode.c functions/audit/index.c */
#include <assert.h>

#include "functions/audit/index.h"
#include "functions/dispatcher/decide.h"
#include "replay.h"
#include "store/episode.h"

#define RECORDS_MAX 200

struct input {
    struct record records[RECORDS_MAX];
    struct strview lines[RECORDS_MAX];
    size_t n;
    struct arena arena;
};

static void read_records(struct strview text, struct input *in)
{
    struct strview line;
    while (in->n < RECORDS_MAX && sv_next(&text, '\n', &line)) {
        struct record *r = &in->records[in->n];
        if (record_decode(line, &in->arena, r, NULL) != STATUS_OK || r->time_ns == 0) continue;
        in->lines[in->n++] = line;
    }
}

/* As the journal would: what is decided is stored, and folded as it was stored. */
static void store(struct decider *d, const struct record *decided, uint64_t seq, struct buf *out)
{
    struct arena arena = {0};
    struct record stored;
    struct buf bytes;
    buf_init(&bytes, RECORD_BYTES_MAX);
    record_encode(decided, &bytes);
    assert(buf_status(&bytes) == STATUS_OK);
    enum status s = record_decode(buf_view(&bytes), &arena, &stored, NULL);
    assert(s == STATUS_OK && record_is_exact(&stored, buf_view(&bytes)));
    decider_apply(d, seq, &stored);
    buf_append(out, buf_view(&bytes));
    buf_release(&bytes);
    arena_release(&arena);
}

static void decide_on(struct decider *d, const struct record *r, uint64_t *seq, struct buf *out)
{
    struct record *next;
    size_t n;
    decider_apply(d, ++*seq, r);
    for (decider_next(d, &next, &n); n > 0; decider_next(d, &next, &n))
        for (size_t i = 0; i < n; i++)
            store(d, &next[i], ++*seq, out);
}

/* Into a snapshot and out of it. */
static void go_round(struct decider *d)
{
    struct pack saved, again;
    struct unpack u;
    pack_init(&saved, NULL, NULL);
    pack_init(&again, NULL, NULL);
    decider_save(d, &saved);
    unpack_init(&u, pack_view(&saved));
    enum status s = decider_load(d, &u, NULL);
    assert(s == STATUS_OK && unpack_is_good(&u));
    decider_save(d, &again);
    assert(sv_eq(pack_view(&saved), pack_view(&again)));
    decider_set_active(d, true);
    pack_release(&saved);
    pack_release(&again);
}

/* from: before that record (0: never) the state goes into a snapshot and out of it. */
static void decide_all(const struct input *in, size_t from, struct buf *out)
{
    struct decider *d = decider_new();
    uint64_t seq = 0;
    decider_set_active(d, true);
    for (size_t i = 0; i < in->n; i++) {
        if (i > 0 && i == from) go_round(d);
        decide_on(d, &in->records[i], &seq, out);
    }
    decider_free(d);
}

static void fold_decisions(const struct input *in)
{
    struct buf first, second;
    buf_init(&first, 256 * RECORD_BYTES_MAX);
    buf_init(&second, 256 * RECORD_BYTES_MAX);
    decide_all(in, 0, &first);
    decide_all(in, in->n / 2, &second);
    assert(sv_eq(buf_view(&first), buf_view(&second)));
    buf_release(&first);
    buf_release(&second);
}

static void fold_episodes(const struct input *in)
{
    struct episodes *t = episodes_new_bounded(100, 50);
    size_t n = 0, cursor = 0;
    const struct episode *open;
    for (size_t i = 0; i < in->n; i++) {
        const struct record *r = &in->records[i];
        if (r->kind != RECORD_SIGNAL || !episodes_is_full(t)) episodes_apply(t, i + 1, r);
        const struct episode_alert alert = {.source = r->source,
                                            .fingerprint = r->fingerprint,
                                            .fingerprint_computed = r->fingerprint_computed,
                                            .is_firing = sv_eq(r->status, SV("firing")),
                                            .starts_at_ns = r->starts_at_ns,
                                            .ends_at_ns = r->ends_at_ns};
        (void)episodes_judge(t, &alert, r->time_ns, 1, &open);
    }
    while (episodes_walk(t, &cursor, &open))
        n += open != NULL;
    assert(n == episodes_open_count(t));
    (void)episodes_next_expired(t, INT64_MAX / 2, 1);
    episodes_free(t);
}

static void fold_index(const struct input *in)
{
    struct audit_index x;
    index_init(&x);
    for (size_t i = 0; i < in->n; i++) {
        struct journal_entry e = {.seq = i + 1, .bytes = in->lines[i], .record = &in->records[i]};
        x.follower.on_record(&x.follower, &e);
    }
    assert(x.n_series <= INDEX_SERIES_MAX && (in->n == 0 || x.n_blocks == 1));
    index_release(&x);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static struct input in;
    in.n = 0;
    arena_reset(&in.arena);
    read_records(sv_n((const char *)bytes, n), &in);
    fold_decisions(&in);
    fold_episodes(&in);
    fold_index(&in);
    return 0;
}
