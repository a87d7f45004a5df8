/* Random operations and restarts on the queue: every item ends exactly once, none is in two hands, one at a
 * time per target, limits hold, attempts only grow, and whatever was in somebody's hands when we died comes
 * back marked as interrupted; where marks of that are kept, nothing else does. BALM_SEED repeats one run. */
#include "store/queue.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <inttypes.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/random.h"

enum {
    ITEMS = 600,
    STEPS = 6000,
    TARGETS = 6,
    FUNCTIONS = 3,
    INFLIGHT = 6,
    INFLIGHT_FUNCTION = 3,
    ATTEMPTS = 4
};

struct model {
    bool is_added, is_leased, was_leased_at_death, has_ended;
    bool is_call, has_lost_answer;
    unsigned target, function, last_attempt; /* target 0: none */
    bool was_snoozed;
    struct queue_item item;
};

static struct model models[ITEMS];
static unsigned n_added, n_leased, n_ended;
static struct random_seeded rng;
static char dir[1024];
static char taken_file[1040]; /* empty: no marks */
static struct loop *loop;
static struct journal *journal;
static struct queue *queue;

#define CLAIM(claim) cr_assert((claim), "%s (added %u, ended %u)", #claim, n_added, n_ended)

static uint64_t below(uint64_t bound)
{
    return random_seeded_below(&rng, bound);
}

static void open_queue(void)
{
    struct error err;
    struct queue_cfg cfg = {.max_inflight = INFLIGHT,
                            .max_inflight_function = INFLIGHT_FUNCTION,
                            .max_attempts = ATTEMPTS,
                            .backoff_base_ns = NS_PER_MS / 4,
                            .backoff_cap_ns = NS_PER_MS,
                            .taken_file = taken_file[0] != '\0' ? taken_file : NULL};
    struct journal_cfg journal_cfg = {
        .dir = dir, .segment_max_bytes = 64 * 1024, .snapshots_dir = dir, .snapshot_every = 100};
    cr_assert_eq(journal_open_sqlite(loop, &journal_cfg, &journal, &err), STATUS_OK, "%s", err.message);
    cr_assert_eq(queue_new(journal, &cfg, &queue, &err), STATUS_OK);
    cr_assert_eq(journal_fold(journal, &err), STATUS_OK, "%s", err.message);
}

static void close_queue(void)
{
    queue_stop(queue);
    queue_free(queue);
    journal_close(journal);
}

static void add(void)
{
    if (n_added == ITEMS) return;
    struct model *m = &models[n_added];
    char intent[16], function[16], target[16];
    *m = (struct model){
        .is_added = true, .target = (unsigned)below(TARGETS), .function = (unsigned)below(FUNCTIONS)};
    (void)snprintf(intent, sizeof(intent), "%u", n_added++);
    (void)snprintf(function, sizeof(function), "f%u", m->function);
    (void)snprintf(target, sizeof(target), "t%u", m->target);
    m->is_call = below(4) == 0;
    struct record r = {.kind = m->is_call ? RECORD_CALL : RECORD_INTENT,
                       .time_ns = clock_unix_ns(),
                       .intent = sv(intent),
                       .function = sv(function),
                       .target = m->target > 0 ? sv(target) : SV("")};
    if (below(3) == 0) r.due_ns = r.time_ns + (int64_t)below(30) * NS_PER_MS;
    struct error err;
    cr_assert_eq(journal_append(journal, &r, 1, NULL, &err), STATUS_OK, "%s", err.message);
}

static void check_limits(const struct model *taken)
{
    unsigned of_function = 0, calls_of_function = 0, calls = 0;
    for (unsigned i = 0; i < n_added; i++) {
        if (!models[i].is_leased) continue;
        bool is_same = models[i].function == taken->function;
        of_function += is_same;
        calls_of_function += is_same && models[i].is_call;
        calls += models[i].is_call;
        CLAIM(taken->is_call || models[i].is_call || taken->target == 0 || &models[i] == taken ||
              models[i].target != taken->target);
    }
    CLAIM(of_function <= INFLIGHT_FUNCTION && n_leased <= INFLIGHT);
    CLAIM(calls_of_function <= (INFLIGHT_FUNCTION + 1) / 2 && calls <= (INFLIGHT + 1) / 2);
}

static bool take(int64_t wait_ns)
{
    struct queue_item item;
    struct arena a = {0};
    uint64_t number;
    enum status s = queue_take(queue, clock_monotonic_ns() + wait_ns, &a, &item, NULL);
    if (s == STATUS_OK) {
        CLAIM(item.seq <= journal_durable_seq(journal));
        CLAIM(sv_parse_u64(item.record->intent, &number) == STATUS_OK && number < n_added);
        struct model *m = &models[number];
        CLAIM(!m->is_leased && !m->has_ended);
        CLAIM(item.attempt <= ATTEMPTS);
        CLAIM(m->was_snoozed ? item.attempt >= m->last_attempt : item.attempt > m->last_attempt);
        CLAIM(!m->was_leased_at_death || item.is_interrupted);
        CLAIM(taken_file[0] == '\0' || m->was_leased_at_death || !item.is_interrupted);
        m->has_lost_answer |= item.is_interrupted;
        CLAIM(item.has_lost_answer == m->has_lost_answer);
        m->is_leased = true;
        n_leased++;
        m->was_leased_at_death = m->was_snoozed = false;
        m->last_attempt = item.attempt;
        m->item = item;
        m->item.record = NULL;
        check_limits(m);
    } else {
        CLAIM(s == STATUS_DEADLINE_EXCEEDED);
    }
    arena_release(&a);
    return s == STATUS_OK;
}

static void end_one(void)
{
    unsigned skip = (unsigned)below(n_leased);
    struct model *m = models;
    while (!m->is_leased || skip-- > 0)
        m++;
    struct record nothing = {.incident = SV("")}, outcome = {.time_ns = clock_unix_ns(), .state = SV("done")};
    struct queue_item item = m->item;
    struct error err;
    item.record = &nothing;
    uint64_t way = below(4);
    bool is_lost = way >= 2 && below(4) == 0;
    enum status s;
    if (way < 2)
        s = queue_done(queue, &item, &outcome, &err);
    else
        s = queue_retry(queue, &item, way == 2, (int64_t)below(2) * NS_PER_MS / 2,
                        is_lost ? SV("UNKNOWN") : SV("UNAVAILABLE"), SV("busy"), &err);
    cr_assert_eq(s, STATUS_OK, "%s", err.message);
    CLAIM(queue_done(queue, &item, &outcome, NULL) == STATUS_ABORTED);
    m->is_leased = false;
    m->has_lost_answer |= is_lost;
    n_leased--;
    m->was_snoozed = way == 3;
    if (way < 2 || (way == 2 && m->last_attempt == ATTEMPTS)) {
        m->has_ended = true;
        n_ended++;
    }
}

/* Without any word about what is in hands. */
static void die(void)
{
    close_queue();
    for (unsigned i = 0; i < n_added; i++)
        if (models[i].is_leased) {
            models[i].was_leased_at_death = true;
            models[i].is_leased = false;
        }
    n_leased = 0;
    open_queue();
}

/* Items that are dead because an interrupted attempt was the last: nobody was told but the journal. */
static void drain(void)
{
    while (queue_depth(queue, SV("")).ready + queue_depth(queue, SV("")).waiting + n_leased > 0) {
        (void)take(5 * NS_PER_MS);
        if (n_leased > 0) end_one();
    }
}

struct ends {
    struct journal_follower follower;
    unsigned outcomes[ITEMS];
    int64_t attempts[ITEMS];
    bool has_lost_answer[ITEMS];
};

static void on_record(struct journal_follower *f, const struct journal_entry *e)
{
    struct ends *ends = container_of(f, struct ends, follower);
    uint64_t number;
    if (e->record->kind != RECORD_OUTCOME && e->record->kind != RECORD_RETRY) return;
    CLAIM(sv_parse_u64(e->record->intent, &number) == STATUS_OK && number < ITEMS);
    CLAIM(ends->outcomes[number] == 0); /* nothing is recorded about an item that has ended */
    CLAIM(e->record->attempt >= ends->attempts[number]);
    ends->attempts[number] = e->record->attempt;
    if (sv_eq(e->record->code, SV("UNKNOWN"))) ends->has_lost_answer[number] = true;
    if (e->record->kind != RECORD_OUTCOME) return;
    ends->outcomes[number]++;
    CLAIM(!sv_eq(e->record->state, SV("dead")) || !ends->has_lost_answer[number] ||
          sv_eq(e->record->code, SV("UNKNOWN")));
}

static void run(void *arg)
{
    (void)arg;
    struct error err;
    unsigned deaths = 0;
    open_queue();
    for (unsigned step = 0; step < STEPS; step++) {
        uint64_t what = below(100);
        if (what < 25)
            add();
        else if (what < 60)
            (void)take(1);
        else if (what < 99) {
            if (n_leased > 0) end_one();
        } else if (below(2) == 0) {
            die();
            deaths++;
        } else {
            queue_freeze(queue, true);
            CLAIM(!take(1));
            queue_freeze(queue, false);
        }
    }
    drain();
    struct ends *ends = calloc(1, sizeof(*ends));
    cr_assert_not_null(ends);
    ends->follower.on_record = on_record;
    cr_assert_eq(journal_replay(journal, 1, &ends->follower, &err), STATUS_OK, "%s", err.message);
    for (unsigned i = 0; i < n_added; i++)
        cr_assert_eq(ends->outcomes[i], 1, "item %u has %u outcomes", i, ends->outcomes[i]);
    CLAIM(n_added > ITEMS / 2 && deaths > 3);
    CLAIM(journal_snapshot_seq(journal) > 0);
    free(ends);
    close_queue();
}

static void play(bool has_marks)
{
    const char *given = getenv("BALM_SEED"), *tmp = getenv("TMPDIR");
    struct error err;
    rng.state = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)clock_unix_ns();
    fprintf(stderr, "BALM_SEED=%" PRIu64 "\n", rng.state);
    (void)snprintf(dir, sizeof(dir), "%s/balm-queue-XXXXXX", tmp != NULL ? tmp : "/tmp");
    cr_assert_not_null(mkdtemp(dir));
    if (has_marks) (void)snprintf(taken_file, sizeof(taken_file), "%s/taken", dir);
    cr_assert_eq(loop_new(&loop, &err), STATUS_OK);
    cr_assert_eq(loop_run_fiber(loop, run, NULL, &err), STATUS_OK);
    loop_free(loop);
    DIR *d = opendir(dir);
    cr_assert_not_null(d);
    const struct dirent *entry;
    while ((entry = readdir(d)) != NULL)
        if (entry->d_name[0] != '.') (void)unlinkat(dirfd(d), entry->d_name, 0);
    (void)closedir(d);
    cr_assert_eq(rmdir(dir), 0);
}

Test(queue, random_operations_and_restarts_lose_and_double_nothing, .timeout = 120)
{
    play(false);
}

Test(queue, with_marks_exactly_what_was_in_hands_is_interrupted, .timeout = 120)
{
    play(true);
}
