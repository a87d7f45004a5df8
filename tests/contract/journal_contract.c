#include "tests/contract/journal_contract.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/memory.h"
#include "base/random.h"
#include "tests/contract/check.h"

#define PATIENCE_NS (20 * NS_PER_S)

static int64_t soon(void)
{
    return clock_monotonic_ns() + PATIENCE_NS;
}

/* ---- helpers, also for the stores' own tests ---- */

struct record contract_record(struct arena *a, uint64_t number, size_t len)
{
    char *text = arena_alloc(a, len + 1);
    struct random_seeded r = {.state = number};
    for (size_t i = 0; i < len; i++)
        text[i] = (char)('a' + random_seeded_below(&r, 26));
    return (struct record){.kind = RECORD_NOTE,
                           .time_ns = 1700000000 * NS_PER_S + (int64_t)number,
                           .incident = arena_printf(a, "incident-%llu", (unsigned long long)number),
                           .actor = SV("test"),
                           .message = {text, len}};
}

bool contract_record_is(const struct journal_entry *e, uint64_t number, size_t len)
{
    struct arena a = {0};
    struct record r = contract_record(&a, number, len);
    r.tenant = SV("default");
    r.cluster = SV("local");
    struct buf b;
    buf_init(&b, 2 * RECORD_BYTES_MAX);
    record_encode(&r, &b);
    bool is_same = sv_eq(buf_view(&b), e->bytes);
    if (e->record != NULL)
        is_same = is_same && sv_eq(e->record->message, r.message) && e->record->time_ns == r.time_ns;
    buf_release(&b);
    arena_release(&a);
    return is_same;
}

struct journal *contract_open(struct journal_contract *c)
{
    struct journal *j = NULL;
    struct error err;
    CHECK_OK(c->open(c, (struct journal_cfg){0}, &j, &err), &err);
    return j;
}

struct journal *contract_open_saving(struct journal_contract *c, const char *snapshots_dir, uint64_t every)
{
    struct journal *j = NULL;
    struct error err;
    CHECK_OK(
        c->open(c, (struct journal_cfg){.snapshots_dir = snapshots_dir, .snapshot_every = every}, &j, &err),
        &err);
    return j;
}

uint64_t contract_append(struct journal *j, uint64_t number, size_t len)
{
    struct arena a = {0};
    struct record r = contract_record(&a, number, len);
    struct error err;
    uint64_t seq = 0;
    CHECK_OK(journal_append(j, &r, 1, &seq, &err), &err);
    arena_release(&a);
    CHECK_OK(journal_wait_durable(j, seq, soon(), &err), &err);
    return seq;
}

/* A follower that keeps a digest of all it was shown. */
struct witness {
    struct journal_follower follower;
    struct journal *journal;
    uint64_t last_seq, digest;
    size_t n, resets;
    uint64_t reset_to;
    unsigned replies;      /* appends so many notes for each record that is not itself a reply */
    struct witness *later; /* must not have seen the record yet, and the one before it already */
};

static void on_record(struct journal_follower *f, const struct journal_entry *e)
{
    struct witness *w = container_of(f, struct witness, follower);
    CHECK(e->record != NULL);
    CHECK(e->seq == w->last_seq + 1);
    if (w->later != NULL) CHECK(w->later->last_seq == e->seq - 1);
    w->last_seq = e->seq;
    w->n++;
    w->digest = fnv1a_add(w->digest, e->bytes);
    w->digest = fnv1a_add(w->digest, e->record->incident);
    w->digest = fnv1a_add(w->digest, e->record->message);
    for (unsigned i = 0; i < w->replies && !sv_eq(e->record->actor, SV("reply")); i++) {
        struct record reply = {
            .kind = RECORD_NOTE, .time_ns = e->record->time_ns, .actor = SV("reply"), .cause = e->seq};
        char message[32];
        (void)snprintf(message, sizeof(message), "reply %u", i); /* dies with this call */
        reply.message = sv(message);
        struct error err;
        CHECK_OK(journal_append(w->journal, &reply, 1, NULL, &err), &err);
    }
}

static void on_reset(struct journal_follower *f, uint64_t durable_seq)
{
    struct witness *w = container_of(f, struct witness, follower);
    w->resets++;
    w->reset_to = durable_seq;
    w->last_seq = w->n = 0;
    w->digest = FNV1A_START;
}

static void witness_init(struct witness *w, struct journal *j)
{
    *w = (struct witness){
        .journal = j, .digest = FNV1A_START, .follower = {.on_record = on_record, .on_reset = on_reset}};
}

/* Reads all from 1 on and checks that sequences have no gap. Returns how many there are. */
static size_t count_records(struct journal *j)
{
    struct arena a = {0};
    struct error err;
    uint64_t next = 1;
    for (;;) {
        struct journal_entry *entries;
        size_t n;
        CHECK_OK(journal_read(j, next, 1000, false, &a, &entries, &n, &err), &err);
        if (n == 0) break;
        for (size_t i = 0; i < n; i++)
            CHECK(entries[i].seq == next++);
        arena_reset(&a);
    }
    arena_release(&a);
    return (size_t)(next - 1);
}

/* Until what followers appended is durable, and shown to them: on a store that gives sequences with the
 * acknowledgement that is after the append that led to it. */
static void settle(struct journal *j)
{
    int64_t deadline = soon();
    while (journal_pending_bytes(j) > 0) {
        CHECK(clock_monotonic_ns() < deadline);
        CHECK(sleep_ms(1) == STATUS_OK);
    }
}

/* ---- appending and waiting ---- */

void contract_sequences_start_at_one_and_have_no_gap(struct journal_contract *c)
{
    struct journal *j = contract_open(c);
    CHECK(journal_last_seq(j) == 0 && journal_durable_seq(j) == 0);
    for (uint64_t i = 1; i <= 20; i++)
        CHECK(contract_append(j, i, 100) == i);
    struct arena a = {0};
    struct record batch[3] = {contract_record(&a, 21, 10), contract_record(&a, 22, 10),
                              contract_record(&a, 23, 10)};
    struct error err;
    uint64_t last = 0;
    CHECK_OK(journal_append(j, batch, 3, &last, &err), &err);
    CHECK(last == 23);
    CHECK_OK(journal_wait_durable(j, last, soon(), &err), &err);
    CHECK(count_records(j) == 23);
    arena_release(&a);
    journal_close(j);
}

void contract_durable_means_readable_and_has_a_time(struct journal_contract *c)
{
    struct journal *j = contract_open(c);
    int64_t before = clock_unix_ns();
    uint64_t seq = contract_append(j, 7, 300);
    CHECK(journal_durable_seq(j) >= seq);
    CHECK(journal_durable_unix_ns(j, seq) >= before && journal_durable_unix_ns(j, seq) <= clock_unix_ns());
    CHECK(journal_durable_unix_ns(j, seq + 1) == 0);
    CHECK(journal_pending_bytes(j) == 0);
    struct arena a = {0};
    struct journal_entry *entries;
    size_t n;
    struct error err;
    CHECK_OK(journal_read(j, seq, 10, true, &a, &entries, &n, &err), &err);
    CHECK(n == 1 && contract_record_is(&entries[0], 7, 300));
    CHECK_OK(journal_read(j, seq + 1, 10, true, &a, &entries, &n, &err), &err);
    CHECK(n == 0);
    arena_release(&a);
    journal_close(j);
}

void contract_tenant_and_cluster_are_filled_in_and_time_is_required(struct journal_contract *c)
{
    struct journal *j = contract_open(c);
    struct record r = {.kind = RECORD_NOTE, .message = SV("x")};
    struct error err;
    CHECK(journal_append(j, &r, 1, NULL, &err) == STATUS_INVALID_ARGUMENT);
    r.time_ns = NS_PER_S;
    r.tenant = SV("other");
    uint64_t seq;
    CHECK_OK(journal_append(j, &r, 1, &seq, &err), &err);
    CHECK_OK(journal_wait_durable(j, seq, soon(), &err), &err);
    struct arena a = {0};
    struct journal_entry *entries;
    size_t n;
    CHECK_OK(journal_read(j, 1, 10, true, &a, &entries, &n, &err), &err);
    CHECK(n == 1 && sv_eq(entries[0].record->tenant, SV("other")) &&
          sv_eq(entries[0].record->cluster, SV("local")));
    arena_release(&a);
    journal_close(j);
}

struct late_wait {
    struct journal *j;
    uint64_t seq;
    enum status status;
    int64_t deadline_ns;
};

static void append_and_wait(void *arg)
{
    struct late_wait *w = arg;
    struct arena a = {0};
    struct record r = contract_record(&a, 1, 50);
    struct error err;
    CHECK_OK(journal_append(w->j, &r, 1, &w->seq, &err), &err);
    w->status = journal_wait_durable(w->j, w->seq, w->deadline_ns, &err);
    arena_release(&a);
}

void contract_cancelling_a_wait_does_not_cancel_the_append(struct journal_contract *c)
{
    struct journal *j = contract_open(c);
    struct error err;
    for (int is_cancel = 0; is_cancel < 2; is_cancel++) {
        struct fiber_scope scope;
        fiber_scope_init(&scope);
        struct late_wait w = {.j = j, .deadline_ns = is_cancel ? 0 : 1, .status = STATUS_UNKNOWN};
        CHECK_OK(fiber_scope_spawn(&scope, append_and_wait, &w, &err), &err);
        while (w.seq == 0)
            CHECK(fiber_yield() == STATUS_OK);
        if (is_cancel) fiber_scope_cancel(&scope);
        fiber_scope_join(&scope);
        CHECK(w.status == STATUS_OK || w.status == (is_cancel ? STATUS_CANCELLED : STATUS_DEADLINE_EXCEEDED));
        CHECK_OK(journal_wait_durable(j, w.seq, soon(), &err), &err);
    }
    CHECK(count_records(j) == 2);
    journal_close(j);
}

void contract_a_sequence_that_was_never_given_is_not_durable(struct journal_contract *c)
{
    struct journal *j = contract_open(c);
    struct error err;
    CHECK(journal_wait_durable(j, 1, soon(), &err) == STATUS_UNAVAILABLE);
    CHECK(journal_wait_durable(j, 0, soon(), &err) == STATUS_OK);
    journal_close(j);
}

struct writer {
    struct journal *j;
    unsigned number, appends;
    unsigned *done;
};

static void write_many(void *arg)
{
    struct writer *w = arg;
    for (unsigned i = 0; i < w->appends; i++) {
        (void)contract_append(w->j, w->number * 1000 + i, 600);
        (*w->done)++;
    }
}

void contract_many_fibers_append_and_wait_at_once(struct journal_contract *c)
{
    enum { WRITERS = 64, APPENDS = 50 };
    struct journal *j = contract_open(c);
    struct writer writers[WRITERS];
    struct fiber_scope scope;
    struct error err;
    struct witness w;
    witness_init(&w, j);
    journal_follow(j, &w.follower);
    unsigned done = 0;
    fiber_scope_init(&scope);
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.j = j, .number = i, .appends = APPENDS, .done = &done};
        CHECK_OK(fiber_scope_spawn(&scope, write_many, &writers[i], &err), &err);
    }
    fiber_scope_join(&scope);
    CHECK(done == WRITERS * APPENDS && w.n == done);
    CHECK(count_records(j) == done);
    CHECK(journal_pending_bytes(j) == 0);
    journal_unfollow(j, &w.follower);
    journal_close(j);
}

/* ---- limits ---- */

static size_t longest_message(void)
{
    struct arena a = {0};
    struct record r = contract_record(&a, 1, 0);
    r.tenant = SV("default");
    r.cluster = SV("local");
    struct buf b;
    buf_init(&b, RECORD_BYTES_MAX);
    record_encode(&r, &b);
    size_t rest = RECORD_BYTES_MAX - b.len - strlen(",\"message\":\"\"");
    buf_release(&b);
    arena_release(&a);
    return rest;
}

void contract_the_largest_record_fits_and_one_byte_more_does_not(struct journal_contract *c)
{
    struct journal *j = contract_open(c);
    size_t len = longest_message();
    CHECK(contract_append(j, 1, len) == 1);
    struct arena a = {0};
    struct record batch[2] = {contract_record(&a, 2, 10), contract_record(&a, 3, len + 1)};
    struct error err;
    CHECK(journal_append(j, batch, 2, NULL, &err) == STATUS_INVALID_ARGUMENT);
    CHECK(journal_last_seq(j) == 1);
    CHECK(contract_append(j, 4, 10) == 2);
    struct journal_entry *entries;
    size_t n;
    CHECK_OK(journal_read(j, 1, 10, true, &a, &entries, &n, &err), &err);
    CHECK(n == 2 && entries[0].bytes.len == RECORD_BYTES_MAX);
    CHECK(contract_record_is(&entries[0], 1, len) && contract_record_is(&entries[1], 4, 10));
    arena_release(&a);
    journal_close(j);
}

void contract_too_much_pending_is_refused_until_the_disk_has_caught_up(struct journal_contract *c)
{
    struct journal *j;
    struct error err;
    CHECK_OK(c->open(c, (struct journal_cfg){.pending_max_bytes = 64 * 1024}, &j, &err), &err);
    struct arena a = {0};
    uint64_t accepted = 0;
    enum status s = STATUS_OK;
    for (unsigned i = 0; i < 1000 && s == STATUS_OK; i++) {
        struct record r = contract_record(&a, i + 1, 1000);
        s = journal_append(j, &r, 1, NULL, &err);
        if (s == STATUS_OK) accepted++;
    }
    /* A store that suspends in append never gets there; one that does not has room for about 60. */
    if (s != STATUS_OK) {
        CHECK(s == STATUS_UNAVAILABLE && err.can_retry);
        CHECK(accepted >= 50 && accepted <= 64 && journal_pending_bytes(j) <= 64 * 1024);
    }
    CHECK(journal_last_seq(j) == accepted);
    CHECK_OK(journal_wait_durable(j, accepted, soon(), &err), &err);
    CHECK(contract_append(j, accepted + 1, 1000) == accepted + 1);
    CHECK(count_records(j) == accepted + 1);
    arena_release(&a);
    journal_close(j);
}

/* ---- following ---- */

void contract_followers_see_one_order_with_what_they_append_themselves(struct journal_contract *c)
{
    struct journal *j = contract_open(c);
    struct witness first, second;
    witness_init(&first, j);
    witness_init(&second, j);
    first.replies = 2;
    first.later = &second;
    journal_follow(j, &first.follower);
    journal_follow(j, &second.follower);
    struct arena a = {0};
    struct record batch[2] = {contract_record(&a, 1, 20), contract_record(&a, 2, 20)};
    struct error err;
    uint64_t last = 0;
    CHECK_OK(journal_append(j, batch, 2, &last, &err), &err);
    CHECK_OK(journal_wait_durable(j, last, soon(), &err), &err);
    (void)contract_append(j, 3, 20);
    CHECK(first.last_seq >= last);
    settle(j);
    CHECK(journal_durable_seq(j) == 9);
    CHECK(first.n == 9 && second.n == 9 && first.digest == second.digest);
    struct witness again;
    witness_init(&again, j);
    CHECK_OK(journal_replay(j, 1, &again.follower, &err), &err);
    CHECK(again.n == 9 && again.digest == first.digest);
    journal_unfollow(j, &first.follower);
    (void)contract_append(j, 4, 20);
    CHECK(first.n == 9 && second.n == 10);
    journal_unfollow(j, &second.follower);
    arena_release(&a);
    journal_close(j);
}

struct leaver {
    struct journal_follower follower;
    struct journal *j;
    unsigned n;
};

static void on_record_leave(struct journal_follower *f, const struct journal_entry *e)
{
    (void)e;
    struct leaver *l = container_of(f, struct leaver, follower);
    l->n++;
    journal_unfollow(l->j, f);
}

void contract_a_follower_may_leave_while_it_is_called(struct journal_contract *c)
{
    struct journal *j = contract_open(c);
    struct leaver leavers[3];
    struct witness w;
    witness_init(&w, j);
    for (size_t i = 0; i < 3; i++) {
        leavers[i] = (struct leaver){.j = j, .follower.on_record = on_record_leave};
        journal_follow(j, &leavers[i].follower);
        if (i == 1) journal_follow(j, &w.follower);
    }
    (void)contract_append(j, 1, 20);
    (void)contract_append(j, 2, 20);
    CHECK(leavers[0].n == 1 && leavers[1].n == 1 && leavers[2].n == 1 && w.n == 2);
    journal_unfollow(j, &w.follower);
    journal_close(j);
}

void contract_reopening_keeps_everything_and_goes_on_behind_it(struct journal_contract *c)
{
    struct journal *j = contract_open(c);
    struct witness live, folded[2];
    struct error err;
    witness_init(&live, j);
    live.replies = 1;
    journal_follow(j, &live.follower);
    for (uint64_t i = 0; i < 1500; i++) {
        struct arena a = {0};
        struct record r = contract_record(&a, i, i % 700);
        CHECK_OK(journal_append(j, &r, 1, NULL, &err), &err);
        arena_release(&a);
    }
    settle(j); /* or the last replies are recorded, but no longer shown to it */
    journal_unfollow(j, &live.follower);
    journal_close(j); /* waits for what was appended */
    j = contract_open(c);
    CHECK(journal_last_seq(j) == 3000 && journal_durable_seq(j) == 3000);
    for (size_t i = 0; i < 2; i++) {
        witness_init(&folded[i], j);
        if (i == 1) folded[0].later = &folded[1];
        journal_follow(j, &folded[i].follower);
    }
    CHECK_OK(journal_fold(j, &err), &err);
    for (size_t i = 0; i < 2; i++) {
        CHECK(folded[i].n == 3000 && folded[i].digest == live.digest);
        journal_unfollow(j, &folded[i].follower);
    }
    CHECK(contract_append(j, 5000, 10) == 3001);
    journal_close(j);
}

static void fold_fiber(void *arg)
{
    struct error err;
    CHECK_OK(journal_fold(arg, &err), &err);
}

void contract_nothing_is_appended_while_the_past_is_folded(struct journal_contract *c)
{
    struct journal *j = contract_open(c);
    struct error err;
    for (uint64_t i = 1; i <= 5; i++)
        (void)contract_append(j, i, 10);
    struct fiber_scope scope;
    fiber_scope_init(&scope);
    CHECK_OK(fiber_scope_spawn(&scope, fold_fiber, j, &err), &err);
    struct arena a = {0};
    struct record r = contract_record(&a, 6, 10);
    unsigned refused = 0;
    /* Let the fold begin: where appending suspends, one that began before would outlast it. */
    CHECK(fiber_yield() == STATUS_OK);
    while (scope.alive > 0) {
        if (journal_append(j, &r, 1, NULL, &err) == STATUS_UNAVAILABLE) refused++;
        CHECK(fiber_yield() == STATUS_OK);
    }
    CHECK(refused > 0);
    fiber_scope_join(&scope);
    arena_release(&a);
    journal_close(j);
}

struct tail {
    struct journal *j;
    size_t n, stop_at;
};

static void follow_by_reading(void *arg)
{
    struct tail *t = arg;
    struct error err;
    while (t->n < t->stop_at) {
        struct arena a = {0};
        struct journal_entry *entries;
        size_t n;
        CHECK(journal_wait_after(t->j, t->n, soon()) == STATUS_OK);
        CHECK_OK(journal_read(t->j, t->n + 1, 7, true, &a, &entries, &n, &err), &err);
        CHECK(n > 0 && n <= 7);
        for (size_t i = 0; i < n; i++)
            CHECK(entries[i].seq == ++t->n && contract_record_is(&entries[i], t->n, 100));
        arena_release(&a);
    }
}

void contract_a_reader_follows_at_its_own_pace(struct journal_contract *c)
{
    struct journal *j = contract_open(c);
    struct error err;
    struct fiber_scope scope;
    fiber_scope_init(&scope);
    struct tail tail = {.j = j, .stop_at = 100};
    CHECK_OK(fiber_scope_spawn(&scope, follow_by_reading, &tail, &err), &err);
    CHECK(journal_wait_after(j, 0, clock_monotonic_ns() + NS_PER_MS) == STATUS_DEADLINE_EXCEEDED);
    for (uint64_t i = 1; i <= 100; i++)
        (void)contract_append(j, i, 100);
    fiber_scope_join(&scope);
    CHECK(tail.n == 100);
    journal_close(j);
}

/* ---- failure ---- */

static void wait_until_healthy(struct journal *j)
{
    int64_t deadline = soon();
    while (!journal_is_healthy(j)) {
        CHECK(clock_monotonic_ns() < deadline);
        CHECK(sleep_ms(5) == STATUS_OK);
    }
}

void contract_a_failed_commit_acknowledges_nothing_and_folds_again(struct journal_contract *c)
{
    struct journal *j = contract_open(c);
    struct error err;
    struct witness first, second;
    witness_init(&first, j);
    witness_init(&second, j);
    first.later = &second;
    journal_follow(j, &first.follower);
    journal_follow(j, &second.follower);
    for (uint64_t i = 1; i <= 10; i++)
        (void)contract_append(j, i, 200);
    uint64_t digest = first.digest, generation = journal_generation(j);
    c->set_failing(c, true);
    struct arena a = {0};
    struct record r = contract_record(&a, 99, 200);
    uint64_t seq = 0;
    enum status s = journal_append(j, &r, 1, &seq, &err);
    if (s == STATUS_OK) s = journal_wait_durable(j, seq, soon(), &err);
    CHECK(s == STATUS_UNAVAILABLE);
    CHECK(!journal_is_healthy(j));
    CHECK(journal_append(j, &r, 1, NULL, &err) == STATUS_UNAVAILABLE);
    c->set_failing(c, false);
    wait_until_healthy(j);
    CHECK(first.resets >= 1 && second.resets >= 1 && journal_generation(j) > generation);
    /* The failed record may or may not be there (a store cannot always know), but all agree on it. */
    uint64_t durable = journal_durable_seq(j);
    CHECK(durable == 10 || durable == 11);
    CHECK(first.reset_to == durable && first.n == durable && second.n == durable &&
          first.digest == second.digest);
    CHECK((first.digest == digest) == (durable == 10));
    CHECK(contract_append(j, 100, 200) == durable + 1);
    CHECK(count_records(j) == durable + 1);
    CHECK(first.n == durable + 1 && second.n == durable + 1);
    journal_unfollow(j, &first.follower);
    journal_unfollow(j, &second.follower);
    journal_close(j);
    j = contract_open(c);
    CHECK(journal_last_seq(j) == durable + 1);
    arena_release(&a);
    journal_close(j);
}

struct ack_log {
    struct journal *j;
    bool is_over;
    uint64_t next_number;
    uint64_t number_of[20000]; /* by sequence, of the acknowledged */
};

static void append_through_failures(void *arg)
{
    struct ack_log *log = arg;
    while (!log->is_over) {
        struct arena a = {0};
        uint64_t number = ++log->next_number, seq = 0;
        struct record r = contract_record(&a, number, 300);
        enum status s = journal_append(log->j, &r, 1, &seq, NULL);
        if (s == STATUS_OK) s = journal_wait_durable(log->j, seq, soon(), NULL);
        if (s == STATUS_OK && seq < ARRAY_LEN(log->number_of)) {
            CHECK(log->number_of[seq] == 0); /* no sequence is acknowledged twice */
            log->number_of[seq] = number;
        }
        CHECK(s == STATUS_OK || s == STATUS_UNAVAILABLE);
        arena_release(&a);
        CHECK(sleep_ms(1) == STATUS_OK);
    }
}

static void check_acknowledged(struct journal *j, const struct ack_log *log)
{
    struct arena a = {0};
    struct error err;
    for (uint64_t seq = 1; seq < ARRAY_LEN(log->number_of); seq++) {
        if (log->number_of[seq] == 0) continue;
        struct journal_entry *entries;
        size_t n;
        CHECK_OK(journal_read(j, seq, 1, true, &a, &entries, &n, &err), &err);
        CHECK(n == 1 && contract_record_is(&entries[0], log->number_of[seq], 300));
        arena_reset(&a);
    }
    arena_release(&a);
}

void contract_no_acknowledged_record_is_lost_over_many_failures(struct journal_contract *c)
{
    struct journal *j = contract_open(c);
    struct error err;
    struct ack_log *log = mem_zalloc(1, sizeof(*log));
    struct fiber_scope scope;
    log->j = j;
    fiber_scope_init(&scope);
    for (unsigned i = 0; i < 16; i++)
        CHECK_OK(fiber_scope_spawn(&scope, append_through_failures, log, &err), &err);
    for (unsigned round = 0; round < 4; round++) {
        CHECK(sleep_ms(30) == STATUS_OK);
        c->set_failing(c, true);
        while (journal_is_healthy(j))
            CHECK(sleep_ms(1) == STATUS_OK);
        c->set_failing(c, false);
        wait_until_healthy(j);
    }
    log->is_over = true;
    fiber_scope_join(&scope);
    CHECK(count_records(j) == journal_last_seq(j));
    check_acknowledged(j, log);
    journal_close(j);
    j = contract_open(c);
    check_acknowledged(j, log);
    journal_close(j);
    free(log);
}

void contract_closing_while_failed_does_not_hang(struct journal_contract *c)
{
    struct journal *j = contract_open(c);
    (void)contract_append(j, 1, 10);
    c->set_failing(c, true);
    struct arena a = {0};
    struct record r = contract_record(&a, 2, 50);
    struct error err;
    uint64_t seq = 0;
    enum status s = journal_append(j, &r, 1, &seq, &err);
    if (s == STATUS_OK) s = journal_wait_durable(j, seq, soon(), &err);
    CHECK(s == STATUS_UNAVAILABLE);
    arena_release(&a);
    int64_t start = clock_monotonic_ns();
    journal_close(j);
    CHECK(clock_monotonic_ns() - start < 10 * NS_PER_S);
    c->set_failing(c, false);
}

/* ---- leases ---- */

void contract_a_lease_has_one_holder_and_its_revision_only_grows(struct journal_contract *c)
{
    struct journal *j = contract_open(c);
    struct error err;
    uint64_t one = 0, again = 0, two = 0, other = 0, three = 0;
    CHECK_OK(journal_lease_acquire(j, SV("decider"), SV("a"), 60 * NS_PER_S, &one, &err), &err);
    CHECK_OK(journal_lease_acquire(j, SV("decider"), SV("a"), 60 * NS_PER_S, &again, &err), &err);
    CHECK(one > 0 && again == one); /* renewed, not changed */
    CHECK(journal_lease_acquire(j, SV("decider"), SV("b"), 60 * NS_PER_S, &two, &err) ==
          STATUS_ALREADY_EXISTS);
    CHECK_OK(journal_lease_acquire(j, SV("other"), SV("b"), 60 * NS_PER_S, &other, &err), &err);
    CHECK(journal_lease_release(j, SV("decider"), SV("b"), &err) == STATUS_NOT_FOUND);
    CHECK_OK(journal_lease_release(j, SV("decider"), SV("a"), &err), &err);
    CHECK_OK(journal_lease_acquire(j, SV("decider"), SV("b"), 20 * NS_PER_MS, &two, &err), &err);
    CHECK(two > one);
    CHECK(sleep_ms(30) == STATUS_OK);
    CHECK_OK(journal_lease_acquire(j, SV("decider"), SV("a"), 60 * NS_PER_S, &three, &err), &err);
    CHECK(three > two); /* ran out: anybody may have it */
    journal_close(j);
    j = contract_open(c);
    CHECK(journal_lease_acquire(j, SV("decider"), SV("b"), NS_PER_S, &two, &err) == STATUS_ALREADY_EXISTS);
    CHECK_OK(journal_lease_release(j, SV("decider"), SV("a"), &err), &err);
    CHECK_OK(journal_lease_acquire(j, SV("decider"), SV("b"), NS_PER_S, &two, &err), &err);
    CHECK(two > three);
    CHECK(journal_lease_acquire(j, SV(""), SV("b"), NS_PER_S, &two, &err) == STATUS_INVALID_ARGUMENT);
    journal_close(j);
}

/* ---- running ---- */

struct running {
    struct journal_contract *c;
    void (*run)(struct journal_contract *c);
};

static void run_in_fiber(void *arg)
{
    struct running *r = arg;
    r->run(r->c);
}

void journal_contract_run(struct journal_contract *c, void (*run)(struct journal_contract *c))
{
    struct error err;
    struct running r = {c, run};
    c->create(c);
    CHECK_OK(loop_new(&c->loop, &err), &err);
    CHECK_OK(loop_run_fiber(c->loop, run_in_fiber, &r, &err), &err);
    loop_free(c->loop);
    c->destroy(c);
}

/* ---- snapshots ---- */

/* A state whose every record matters, and in order. */
struct tally {
    struct journal_follower follower;
    uint64_t n, digest;
    unsigned n_shown, n_loads, n_resets; /* of this process */
    bool is_unloadable;
};

static void tally_add(struct journal_follower *f, const struct journal_entry *e)
{
    struct tally *t = container_of(f, struct tally, follower);
    t->n++;
    t->n_shown++;
    t->digest = fnv1a_add(t->digest, e->bytes);
}

static void tally_reset(struct journal_follower *f, uint64_t durable_seq)
{
    (void)durable_seq;
    struct tally *t = container_of(f, struct tally, follower);
    t->n = t->digest = 0;
    t->n_resets++;
}

static void tally_save(const struct journal_follower *f, struct pack *p)
{
    const struct tally *t = container_of(f, const struct tally, follower);
    pack_u64(p, t->n);
    pack_u64(p, t->digest);
}

static enum status tally_load(struct journal_follower *f, unsigned version, struct unpack *u,
                              struct error *err)
{
    struct tally *t = container_of(f, struct tally, follower);
    CHECK(version <= f->version);
    t->n_loads++;
    t->n = unpack_u64(u);
    t->digest = unpack_u64(u);
    return unpack_is_good(u) && !t->is_unloadable ? STATUS_OK : error_set(err, STATUS_DATA_LOSS, "tally");
}

static void tally_init(struct tally *t, const char *name, unsigned version)
{
    *t = (struct tally){.follower = {.on_record = tally_add,
                                     .on_reset = tally_reset,
                                     .name = name,
                                     .version = version,
                                     .on_save = tally_save,
                                     .on_load = tally_load}};
}

/* Folds and gives what was shown; the journal stays open. */
static struct journal *open_tallies(struct journal_contract *c, const char *dir, uint64_t every,
                                    struct tally *tallies, size_t n)
{
    struct error err;
    struct journal *j = contract_open_saving(c, dir, every);
    for (size_t i = 0; i < n; i++)
        journal_follow(j, &tallies[i].follower);
    CHECK_OK(journal_fold(j, &err), &err);
    return j;
}

static void close_tallies(struct journal *j, struct tally *tallies, size_t n)
{
    for (size_t i = 0; i < n; i++)
        journal_unfollow(j, &tallies[i].follower);
    journal_close(j);
}

/* A folder of its own, whatever the store. */
static char snapshots[256];

static const char *snapshots_make(void)
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(snapshots, sizeof(snapshots), "%s/balm-snapshots-XXXXXX", tmp != NULL ? tmp : "/tmp");
    CHECK(mkdtemp(snapshots) != NULL);
    return snapshots;
}

static size_t snapshots_list(uint64_t ret_seqs[16])
{
    size_t n = 0;
    DIR *d = opendir(snapshots);
    CHECK(d != NULL);
    for (const struct dirent *entry; (entry = readdir(d)) != NULL;) {
        struct strview name = sv(entry->d_name);
        if (!sv_ends_with(name, SV(".snapshot"))) continue;
        CHECK(n < 16 && sv_parse_u64(sv_sub(name, 0, 20), &ret_seqs[n]) == STATUS_OK);
        n++;
    }
    (void)closedir(d);
    return n;
}

static void snapshots_remove(void)
{
    DIR *d = opendir(snapshots);
    CHECK(d != NULL);
    for (const struct dirent *entry; (entry = readdir(d)) != NULL;)
        if (entry->d_name[0] != '.') (void)unlinkat(dirfd(d), entry->d_name, 0);
    (void)closedir(d);
    CHECK(rmdir(snapshots) == 0);
}

void contract_a_fold_goes_on_behind_the_snapshot(struct journal_contract *c)
{
    struct error err;
    struct tally t;
    const char *dir = snapshots_make();
    tally_init(&t, "tally", 1);
    struct journal *j = open_tallies(c, dir, 0, &t, 1);
    for (uint64_t i = 1; i <= 100; i++)
        (void)contract_append(j, i, 100);
    CHECK_OK(journal_snapshot(j, &err), &err);
    CHECK(journal_snapshot_seq(j) == 100);
    for (uint64_t i = 101; i <= 107; i++)
        (void)contract_append(j, i, 100);
    uint64_t digest = t.digest;
    close_tallies(j, &t, 1);
    tally_init(&t, "tally", 1);
    j = open_tallies(c, dir, 0, &t, 1);
    CHECK(t.n_loads == 1 && t.n_shown == 7 && t.n == 107 && t.digest == digest);
    CHECK(journal_snapshot_seq(j) == 100);
    CHECK(contract_append(j, 108, 100) == 108);
    CHECK(t.n == 108);
    close_tallies(j, &t, 1);
    snapshots_remove();
}

void contract_who_has_no_part_of_a_snapshot_folds_all_of_the_past(struct journal_contract *c)
{
    enum { KNOWN, OLDER, NEWER, STRANGE, UNLOADABLE, NAMELESS, N };
    struct error err;
    struct tally before[N], after[N];
    const char *dir = snapshots_make();
    const char *const names[N] = {"known", "older", "newer", "gone", "unloadable", NULL};
    for (size_t i = 0; i < N; i++) {
        tally_init(&before[i], names[i], i == OLDER ? 1 : 2);
        tally_init(&after[i], i == STRANGE ? "strange" : names[i], i == NEWER ? 1 : 2);
    }
    after[UNLOADABLE].is_unloadable = true;
    struct journal *j = open_tallies(c, dir, 0, before, N);
    for (uint64_t i = 1; i <= 50; i++)
        (void)contract_append(j, i, 100);
    CHECK_OK(journal_snapshot(j, &err), &err);
    (void)contract_append(j, 51, 100);
    close_tallies(j, before, N);
    j = open_tallies(c, dir, 0, after, N);
    for (size_t i = 0; i < N; i++) {
        bool is_loaded = i == KNOWN || i == OLDER;
        CHECK(after[i].n_shown == (is_loaded ? 1 : 51));
        CHECK(after[i].n == 51 && after[i].digest == before[i].digest);
    }
    close_tallies(j, after, N);
    snapshots_remove();
}

void contract_snapshots_are_written_by_themselves_and_the_newest_two_stay(struct journal_contract *c)
{
    struct tally t;
    uint64_t seqs[16], last = 0;
    const char *dir = snapshots_make();
    tally_init(&t, "tally", 1);
    struct journal *j = open_tallies(c, dir, 20, &t, 1);
    for (unsigned round = 1; round <= 4; round++) {
        for (uint64_t i = 1; i <= 20; i++)
            (void)contract_append(j, i, 100);
        int64_t until = soon();
        while (journal_snapshot_seq(j) <= last && clock_monotonic_ns() < until)
            CHECK(sleep_ms(1) == STATUS_OK);
        CHECK(journal_snapshot_seq(j) > last);
        last = journal_snapshot_seq(j);
        CHECK(last >= 20 * round);
    }
    CHECK(snapshots_list(seqs) == 2);
    CHECK(seqs[0] == last || seqs[1] == last);
    close_tallies(j, &t, 1);
    snapshots_remove();
}

static void replace_journal(struct journal_contract *c, uint64_t first_number, uint64_t n)
{
    c->destroy(c);
    c->create(c);
    struct journal *j = contract_open(c);
    for (uint64_t i = 0; i < n; i++)
        (void)contract_append(j, first_number + i, 100);
    journal_close(j);
}

void contract_a_snapshot_of_another_journal_is_not_used(struct journal_contract *c)
{
    struct error err;
    struct tally t;
    uint64_t seqs[16];
    const char *dir = snapshots_make();
    for (uint64_t n = 20; n >= 10; n -= 10) { /* as many records, other ones; then fewer */
        replace_journal(c, 1, 20);
        tally_init(&t, "tally", 1);
        struct journal *j = open_tallies(c, dir, 0, &t, 1);
        CHECK_OK(journal_snapshot(j, &err), &err);
        CHECK(snapshots_list(seqs) == 1);
        close_tallies(j, &t, 1);
        replace_journal(c, 1001, n);
        tally_init(&t, "tally", 1);
        j = open_tallies(c, dir, 0, &t, 1);
        CHECK(t.n_loads == 0 && t.n_shown == n && journal_snapshot_seq(j) == 0);
        CHECK(snapshots_list(seqs) == 0);
        close_tallies(j, &t, 1);
    }
    snapshots_remove();
}

void contract_folding_again_begins_at_the_snapshot(struct journal_contract *c)
{
    struct error err;
    struct tally t;
    const char *dir = snapshots_make();
    tally_init(&t, "tally", 1);
    struct journal *j = open_tallies(c, dir, 0, &t, 1);
    for (uint64_t i = 1; i <= 100; i++)
        (void)contract_append(j, i, 100);
    CHECK_OK(journal_snapshot(j, &err), &err);
    (void)contract_append(j, 101, 100);
    t.n_shown = 0;
    uint64_t digest = t.digest;
    c->set_failing(c, true);
    struct arena a = {0};
    struct record r = contract_record(&a, 99, 200);
    uint64_t seq = 0;
    enum status s = journal_append(j, &r, 1, &seq, &err);
    if (s == STATUS_OK) s = journal_wait_durable(j, seq, soon(), &err);
    CHECK(s == STATUS_UNAVAILABLE);
    CHECK(journal_snapshot(j, &err) == STATUS_UNAVAILABLE);
    c->set_failing(c, false);
    wait_until_healthy(j);
    CHECK(t.n_resets >= 1 && t.n_loads >= 1);
    CHECK(t.n == journal_durable_seq(j) && t.n_shown <= 1 + 2 * t.n_loads);
    CHECK((t.digest == digest) == (t.n == 101));
    arena_release(&a);
    close_tallies(j, &t, 1);
    snapshots_remove();
}
