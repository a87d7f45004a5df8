#include "store/episode.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/random.h"

#define SOURCE SV("alertmanager")
#define FP     SV("a98a96e03b95fa22")
#define LEASE  (400 * NS_PER_S)

static struct episodes *t;

static void set_up(void)
{
    t = episodes_new();
}

static void tear_down(void)
{
    episodes_free(t);
}

TestSuite(episode, .init = set_up, .fini = tear_down);

/* Times in seconds are enough to read. */
static struct record about(enum record_kind kind, const char *status, int64_t time_s, int64_t starts_s,
                           const char *incident)
{
    return (struct record){.kind = kind,
                           .time_ns = time_s * NS_PER_S,
                           .source = SOURCE,
                           .fingerprint = FP,
                           .status = sv(status),
                           .starts_at_ns = starts_s * NS_PER_S,
                           .incident = sv(incident)};
}

static void apply(uint64_t seq, enum record_kind kind, const char *status, int64_t time_s, int64_t starts_s,
                  const char *incident)
{
    struct record r = about(kind, status, time_s, starts_s, incident);
    episodes_apply(t, seq, &r);
}

static void firing(uint64_t seq, int64_t time_s, int64_t starts_s, const char *incident)
{
    apply(seq, RECORD_SIGNAL, "firing", time_s, starts_s, incident);
}

static void resolved(uint64_t seq, int64_t time_s, int64_t starts_s)
{
    apply(seq, RECORD_SIGNAL, "resolved", time_s, starts_s, "i-other");
}

static const struct episode *find_of(struct strview source, struct strview fingerprint)
{
    return episodes_find(t, &(struct episode_alert){.source = source, .fingerprint = fingerprint});
}

static const struct episode *find(void)
{
    return find_of(SOURCE, FP);
}

static enum episode_verdict judge_ended(bool is_firing, int64_t starts_s, int64_t ends_s, int64_t now_s)
{
    const struct episode *e = NULL;
    const struct episode_alert alert = {.source = SOURCE,
                                        .fingerprint = FP,
                                        .is_firing = is_firing,
                                        .starts_at_ns = starts_s * NS_PER_S,
                                        .ends_at_ns = ends_s * NS_PER_S};
    enum episode_verdict verdict = episodes_judge(t, &alert, now_s * NS_PER_S, LEASE, &e);
    cr_assert_eq(e, find());
    return verdict;
}

static enum episode_verdict judge(bool is_firing, int64_t starts_s, int64_t now_s)
{
    return judge_ended(is_firing, starts_s, 0, now_s);
}

/* The rules of contracts/alertmanager-loki.md §1.6, one line each: what is known, what comes, what to do. */
Test(episode, is_judged_by_the_documented_rules)
{
    enum { NOTHING, OPEN, OPEN_LATER, RESOLVED, RESOLVED_LATER, EXPIRED, NOTED };
    static const struct rule {
        int known;
        bool is_firing;
        int64_t starts_s, now_s;
        enum episode_verdict verdict;
    } rules[] = {
        {NOTHING, true, 100, 110, EPISODE_NEW},
        {NOTHING, false, 100, 110, EPISODE_UNKNOWN_RESOLVE},
        {OPEN, true, 100, 111, EPISODE_DUPLICATE},
        {OPEN, true, 90, 111, EPISODE_DUPLICATE},  /* merged backwards by an HA pair */
        {OPEN, true, 105, 111, EPISODE_DUPLICATE}, /* derived anew after a restart of Prometheus */
        {OPEN, true, 100, 210, EPISODE_DUPLICATE}, /* a quarter of the lease, not more */
        {OPEN, true, 100, 211, EPISODE_SEEN},
        {OPEN, true, 100, 50, EPISODE_DUPLICATE},  /* the clock went back */
        {OPEN, true, 160, 210, EPISODE_DUPLICATE}, /* two replicas of Prometheus evaluate apart */
        {OPEN, true, 161, 210, EPISODE_RENEWED},   /* its resolve was lost */
        {OPEN, true, 300, 210, EPISODE_DUPLICATE}, /* a clock that runs ahead is no news */
        {OPEN, false, 100, 120, EPISODE_CLOSES},
        {OPEN, false, 90, 120, EPISODE_CLOSES},
        {RESOLVED, true, 100, 130, EPISODE_STALE},
        {RESOLVED, true, 99, 130, EPISODE_STALE},
        {RESOLVED, true, 100, 719, EPISODE_STALE},
        {RESOLVED, true, 100, 720, EPISODE_NEW}, /* its source was away for a while, and it fires still */
        {RESOLVED, true, 101, 130, EPISODE_NEW},
        {RESOLVED, false, 100, 130, EPISODE_DUPLICATE},
        {RESOLVED, false, 99, 130, EPISODE_DUPLICATE},
        {RESOLVED, false, 101, 130, EPISODE_UNKNOWN_RESOLVE},
        {RESOLVED_LATER, true, 105, 130, EPISODE_STALE}, /* the resolve said a later startsAt */
        {RESOLVED_LATER, true, 106, 130, EPISODE_NEW},
        {EXPIRED, true, 100, 900, EPISODE_NEW}, /* never resolved: it still burns */
        {EXPIRED, true, 101, 900, EPISODE_NEW},
        {EXPIRED, false, 100, 900, EPISODE_UNKNOWN_RESOLVE},
        {NOTED, true, 100, 130, EPISODE_STALE}, /* the older firing arrives after its resolve */
        {NOTED, true, 101, 130, EPISODE_NEW},
        {NOTED, false, 100, 130, EPISODE_DUPLICATE},
    };
    for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
        const struct rule *rule = &rules[i];
        episodes_free(t);
        t = episodes_new();
        if (rule->known != NOTHING && rule->known != NOTED) firing(1, 110, 100, "i-1");
        if (rule->known == RESOLVED) resolved(2, 120, 100);
        if (rule->known == RESOLVED_LATER) resolved(2, 120, 105);
        if (rule->known == EXPIRED) apply(2, RECORD_EXPIRED, "", 600, 100, "i-1");
        if (rule->known == NOTED) resolved(2, 120, 100);
        cr_expect_eq(judge(rule->is_firing, rule->starts_s, rule->now_s), rule->verdict, "rule %zu", i);
    }
}

Test(episode, of_an_unknown_alert_is_not_found)
{
    cr_assert_null(find());
    firing(1, 110, 100, "i-1");
    cr_assert_null(find_of(SV("grafana"), FP), "sources are apart");
    cr_assert_null(find_of(SOURCE, SV("a98a96e03b95fa23")));
}

Test(episode, keeps_its_incident_while_open)
{
    firing(1, 110, 100, "i-1");
    firing(2, 120, 90, "i-2");
    const struct episode *e = find();
    cr_assert(sv_eq(e->incident, SV("i-1")));
    cr_assert_eq(e->seq, 1);
    cr_assert_eq(e->starts_at_ns, 100 * NS_PER_S);
    cr_assert_eq(e->last_seen_ns, 120 * NS_PER_S);
    cr_assert_eq(e->ended_at_ns, 0);
    cr_assert_eq(episodes_open_count(t), 1);
}

Test(episode, closes_at_a_resolve_and_opens_anew_with_another_incident)
{
    firing(1, 110, 100, "i-1");
    struct record r = about(RECORD_SIGNAL, "resolved", 130, 100, "i-1");
    r.ends_at_ns = 125 * NS_PER_S;
    episodes_apply(t, 5, &r);
    const struct episode *e = find();
    cr_assert_eq(e->state, EPISODE_RESOLVED);
    cr_assert_eq(e->ended_at_ns, 125 * NS_PER_S);
    cr_assert_eq(e->seq, 5);
    cr_assert_eq(episodes_open_count(t), 0);
    firing(6, 210, 200, "a-rather-longer-incident-name");
    e = find();
    cr_assert_eq(e->state, EPISODE_OPEN);
    cr_assert(sv_eq(e->incident, SV("a-rather-longer-incident-name")));
    cr_assert_eq(e->starts_at_ns, 200 * NS_PER_S);
    cr_assert_eq(e->seq, 6);
    cr_assert_eq(episodes_open_count(t), 1);
}

Test(episode, late_resolve_of_an_earlier_episode_does_not_close_the_present_one)
{
    firing(1, 110, 100, "i-1");
    resolved(2, 130, 100);
    firing(3, 160, 150, "i-2");
    cr_assert_eq(judge_ended(false, 100, 125, 165), EPISODE_STALE);
    struct record late = about(RECORD_SIGNAL, "resolved", 165, 100, "i-2");
    late.ends_at_ns = 125 * NS_PER_S;
    episodes_apply(t, 4, &late); /* appended before the firing was known, say */
    cr_assert_eq(find()->state, EPISODE_OPEN);
    cr_assert_eq(judge(true, 150, 170), EPISODE_DUPLICATE);
    cr_assert_eq(judge_ended(false, 100, 180, 185), EPISODE_CLOSES, "merged backwards, and ended since");
    cr_assert_eq(judge_ended(false, 150, 180, 185), EPISODE_CLOSES);
}

Test(episode, alerts_that_a_sender_gives_one_fingerprint_are_told_apart)
{
    struct record r = about(RECORD_SIGNAL, "firing", 110, 100, "i-1");
    r.fingerprint_computed = SV("1111111111111111");
    episodes_apply(t, 1, &r);
    struct episode_alert alert = {.source = SOURCE,
                                  .fingerprint = FP,
                                  .fingerprint_computed = SV("1111111111111111"),
                                  .is_firing = true,
                                  .starts_at_ns = 100 * NS_PER_S};
    cr_assert_eq(episodes_judge(t, &alert, 111 * NS_PER_S, LEASE, NULL), EPISODE_DUPLICATE);
    alert.fingerprint_computed = SV("2222222222222222");
    cr_assert_eq(episodes_judge(t, &alert, 111 * NS_PER_S, LEASE, NULL), EPISODE_NEW);
    cr_assert_null(find());
}

static void clock_jumps(uint64_t seq, int64_t now_s, int64_t jump_s)
{
    char detail[64];
    (void)snprintf(detail, sizeof(detail), "{\"jumpNs\":%lld}", (long long)(jump_s * NS_PER_S));
    struct record r = {.kind = RECORD_CLOCK, .on = true, .time_ns = now_s * NS_PER_S, .detail = sv(detail)};
    episodes_apply(t, seq, &r);
}

Test(episode, lease_is_as_long_whichever_way_the_clock_jumps)
{
    enum { YEARS = 1000000000 };
    firing(1, 110, 100, "i-1");
    clock_jumps(2, 120 + YEARS, YEARS);
    cr_assert_null(episodes_next_expired(t, (110 + YEARS) * NS_PER_S + LEASE - 1, LEASE));
    cr_assert_eq(episodes_next_expired(t, (110 + YEARS) * NS_PER_S + LEASE, LEASE), find());
    clock_jumps(3, 130, -YEARS);
    cr_assert_null(episodes_next_expired(t, 110 * NS_PER_S + LEASE - 1, LEASE));
    cr_assert_eq(episodes_next_expired(t, 110 * NS_PER_S + LEASE, LEASE), find());
}

/* A source whose clock was an hour ahead for a moment must not silence its alert for that hour. */
Test(episode, a_start_before_all_times_is_followed_by_a_later_one)
{
    firing(1, 1795356000, -9214560000, "i1"); /* 1678: what lies between is more than an int64_t holds */
    cr_assert_eq(judge(true, 1795356000, 1795356000), EPISODE_RENEWED);
    cr_assert_eq(judge(true, -9214560000, 1795356000), EPISODE_DUPLICATE);
}

Test(episode, a_start_in_the_future_does_not_make_later_firings_stale)
{
    firing(1, 100, 3700, "i-1");
    resolved(2, 130, 3700);
    cr_assert_eq(judge(true, 110, 140), EPISODE_STALE); /* an old firing that comes late is still old */
    cr_assert_eq(judge(true, 135, 140), EPISODE_NEW);
    cr_assert_eq(judge(false, 3700, 140), EPISODE_DUPLICATE); /* the same resolve again */
}

Test(episode, a_resolve_of_nothing_with_a_start_in_the_future_does_not_silence)
{
    resolved(1, 100, 3700);
    cr_assert_eq(judge(true, 120, 130), EPISODE_NEW);
}

Test(episode, missing_is_noted_until_it_is_seen)
{
    firing(1, 100, 90, "i1");
    cr_assert_eq(find()->missing_since_ns, 0);
    episodes_set_missing(t, find(), 7);
    cr_assert_eq(find()->missing_since_ns, 7);
    struct record other = about(RECORD_SIGNAL, "firing", 101, 90, "i2");
    other.fingerprint = SV("0000000000000001");
    episodes_apply(t, 2, &other);
    cr_assert_eq(find()->missing_since_ns, 7);
    apply(3, RECORD_SEEN, "", 102, 90, "i1");
    cr_assert_eq(find()->missing_since_ns, 0);
    episodes_set_missing(t, find(), 8);
    resolved(4, 103, 90);
    firing(5, 104, 104, "i3");
    cr_assert_eq(find()->missing_since_ns, 0, "of an earlier episode");
}

Test(episode, walk_shows_each_open_one_once)
{
    enum { MANY = 300 };
    char fingerprint[17];
    for (int i = 0; i < MANY; i++) {
        (void)snprintf(fingerprint, sizeof(fingerprint), "%016x", (unsigned)i);
        struct record r = about(RECORD_SIGNAL, i % 3 == 0 ? "resolved" : "firing", 100, 90, "i");
        r.fingerprint = sv(fingerprint);
        episodes_apply(t, (uint64_t)i + 1, &r);
    }
    size_t cursor = 0, n = 0;
    const struct episode *e;
    while (episodes_walk(t, &cursor, &e)) {
        if (e == NULL) continue;
        cr_expect_eq(e->state, EPISODE_OPEN);
        cr_expect_eq(e->missing_since_ns, 0, "shown twice");
        episodes_set_missing(t, e, 1);
        n++;
    }
    cr_assert_eq(n, MANY - MANY / 3);
    cr_assert(!episodes_walk(t, &cursor, &e));
}

Test(episode, seen_prolongs_the_lease)
{
    firing(1, 110, 100, "i-1");
    cr_assert_null(episodes_next_expired(t, 110 * NS_PER_S + LEASE - 1, LEASE));
    cr_assert_eq(episodes_next_expired(t, 110 * NS_PER_S + LEASE, LEASE), find());
    apply(2, RECORD_SEEN, "", 300, 100, "i-1");
    cr_assert_eq(find()->seq, 1, "durable with the record that opened it");
    cr_assert_null(episodes_next_expired(t, 110 * NS_PER_S + LEASE, LEASE));
    cr_assert_eq(episodes_next_expired(t, 300 * NS_PER_S + LEASE, LEASE), find());
    apply(3, RECORD_EXPIRED, "", 700, 100, "i-1");
    cr_assert_eq(find()->state, EPISODE_UNKNOWN);
    cr_assert_eq(find()->seq, 3);
    cr_assert_null(episodes_next_expired(t, 9999 * NS_PER_S, LEASE));
}

Test(episode, that_is_closed_is_not_changed_by_seen_or_expired)
{
    firing(1, 110, 100, "i-1");
    resolved(2, 120, 100);
    apply(3, RECORD_SEEN, "", 130, 100, "i-1");
    apply(4, RECORD_EXPIRED, "", 140, 100, "i-1");
    cr_assert_eq(find()->state, EPISODE_RESOLVED);
    cr_assert_eq(find()->seq, 2);
}

Test(episode, records_about_other_things_change_nothing)
{
    for (unsigned kind = RECORD_NONE; kind < RECORD_KINDS; kind++)
        if (kind != RECORD_SIGNAL) apply(1, (enum record_kind)kind, "firing", 110, 100, "i-1");
    apply(2, RECORD_SIGNAL, "puzzled", 110, 100, "i-1");
    cr_assert_null(find());
}

Test(episode, oldest_seen_expires_first_even_if_a_clock_went_back)
{
    static const char *const fps[] = {"0000000000000001", "0000000000000002", "0000000000000003"};
    static const int64_t times_s[] = {300, 100, 200}; /* effective: 300, 300, 300 */
    for (unsigned i = 0; i < 3; i++) {
        struct record r = about(RECORD_SIGNAL, "firing", times_s[i], 50, "i");
        r.fingerprint = sv(fps[i]);
        episodes_apply(t, i + 1, &r);
    }
    cr_assert_null(episodes_next_expired(t, 300 * NS_PER_S + LEASE - 1, LEASE));
    for (unsigned i = 0; i < 3; i++) {
        const struct episode *e = episodes_next_expired(t, 300 * NS_PER_S + LEASE, LEASE);
        cr_assert(sv_eq(e->fingerprint, sv(fps[i])));
        struct record r = about(RECORD_EXPIRED, "", 800, 50, "i");
        r.fingerprint = sv(fps[i]);
        episodes_apply(t, i + 10, &r);
    }
}

static struct record numbered(const char *status, unsigned i, char ret_fp[17])
{
    (void)snprintf(ret_fp, 17, "%016x", i);
    struct record r = about(RECORD_SIGNAL, status, 100 + (int64_t)i, 50, "incident");
    r.fingerprint = sv_n(ret_fp, 16);
    return r;
}

Test(episode, table_is_bounded)
{
    enum { MAX_OPEN = 100, MAX_CLOSED = 10 };
    episodes_free(t);
    t = episodes_new_bounded(MAX_OPEN, MAX_CLOSED);
    char fp[17];
    for (unsigned i = 0; i <= MAX_OPEN; i++) {
        cr_assert_eq(episodes_is_full(t), i == MAX_OPEN);
        struct record r = numbered("firing", i, fp);
        episodes_apply(t, i + 1, &r);
    }
    cr_assert_eq(episodes_open_count(t), MAX_OPEN);
    cr_assert_null(find_of(SOURCE, sv(fp)), "one beyond is not folded");
    for (unsigned i = 0; i < MAX_OPEN; i++) {
        struct record r = numbered("resolved", i, fp);
        episodes_apply(t, 1000 + i, &r);
    }
    cr_assert_eq(episodes_open_count(t), 0);
    for (unsigned i = 0; i < MAX_OPEN; i++) {
        (void)numbered("", i, fp);
        cr_assert_eq(find_of(SOURCE, sv(fp)) != NULL, i >= MAX_OPEN - MAX_CLOSED, "%u", i);
    }
}

Test(episode, many_are_found_again)
{
    char fp[17];
    enum { MANY = 200000 };
    for (unsigned i = 0; i < MANY; i++) {
        struct record r = numbered("firing", i, fp);
        episodes_apply(t, i + 1, &r);
    }
    cr_assert_eq(episodes_open_count(t), MANY);
    for (unsigned i = 0; i < MANY; i++) {
        (void)numbered("", i, fp);
        const struct episode *e = find_of(SOURCE, sv(fp));
        cr_assert_not_null(e);
        cr_assert_eq(e->seq, i + 1);
        cr_assert(sv_eq(e->fingerprint, sv(fp)));
    }
}

/* ---- against a model: the same rules without hash table and lists ---- */

enum { MODEL_KEYS = 40, MODEL_STEPS = 30000, MODEL_MAX_OPEN = 25, MODEL_MAX_CLOSED = 8 };

struct model_episode {
    bool is_known;
    enum episode_state state;
    int64_t starts, last_seen;
    uint64_t seq, closed_at; /* closed_at: order of closing */
    char incident[16];
};

static struct model {
    struct model_episode keys[MODEL_KEYS];
    int64_t latest;
} model;

static unsigned model_count(bool is_open)
{
    unsigned n = 0;
    for (unsigned i = 0; i < MODEL_KEYS; i++)
        n += model.keys[i].is_known && (model.keys[i].state == EPISODE_OPEN) == is_open;
    return n;
}

static void model_close(struct model_episode *m, enum episode_state state, uint64_t seq)
{
    m->state = state;
    m->seq = m->closed_at = seq;
    if (model_count(false) <= MODEL_MAX_CLOSED) return;
    struct model_episode *oldest = NULL;
    for (unsigned i = 0; i < MODEL_KEYS; i++) {
        struct model_episode *c = &model.keys[i];
        if (c->is_known && c->state != EPISODE_OPEN && (oldest == NULL || c->closed_at < oldest->closed_at))
            oldest = c;
    }
    oldest->is_known = false;
}

static void model_apply(unsigned key, uint64_t seq, const struct record *r)
{
    struct model_episode *m = &model.keys[key];
    bool is_open = m->is_known && m->state == EPISODE_OPEN;
    if (r->time_ns > model.latest) model.latest = r->time_ns;
    if (r->kind == RECORD_SEEN) {
        if (is_open) m->last_seen = model.latest;
    } else if (r->kind == RECORD_EXPIRED) {
        if (is_open) model_close(m, EPISODE_UNKNOWN, seq);
    } else if (sv_eq(r->status, SV("firing"))) {
        if (!is_open && model_count(true) >= MODEL_MAX_OPEN) return;
        if (!is_open) {
            *m = (struct model_episode){.is_known = true, .starts = r->starts_at_ns, .seq = seq};
            (void)snprintf(m->incident, sizeof(m->incident), "%.*s", SV_ARG(r->incident));
        }
        m->last_seen = model.latest;
    } else {
        if (!m->is_known) {
            *m = (struct model_episode){.is_known = true, .starts = r->starts_at_ns};
            (void)snprintf(m->incident, sizeof(m->incident), "%.*s", SV_ARG(r->incident));
        }
        if (r->starts_at_ns > m->starts) m->starts = r->starts_at_ns;
        if (m->starts > model.latest) m->starts = model.latest;
        m->last_seen = model.latest;
        model_close(m, EPISODE_RESOLVED, seq);
    }
}

static struct record random_step(struct random_seeded *rng, unsigned *ret_key, char fp[17], char incident[16],
                                 int64_t *now_s)
{
    unsigned kind = (unsigned)random_seeded_below(rng, 10);
    *ret_key = (unsigned)random_seeded_below(rng, MODEL_KEYS);
    *now_s += (int64_t)random_seeded_below(rng, 5) - 1; /* a clock that stumbles */
    struct record r = numbered(kind < 6 ? "firing" : "resolved", *ret_key, fp);
    r.kind = kind < 8 ? RECORD_SIGNAL : kind == 8 ? RECORD_SEEN : RECORD_EXPIRED;
    r.time_ns = *now_s * NS_PER_S;
    r.starts_at_ns =
        (*now_s + 3 - (int64_t)random_seeded_below(rng, 23)) * NS_PER_S; /* some from the future */
    (void)snprintf(incident, 16, "i-%lld", (long long)random_seeded_below(rng, 1000000));
    r.incident = sv(incident);
    return r;
}

static void compare_with_model(struct episodes *table, uint64_t seed, unsigned step)
{
    char fp[17];
    cr_assert_eq(episodes_open_count(table), model_count(true), "seed %llu step %u", (unsigned long long)seed,
                 step);
    for (unsigned i = 0; i < MODEL_KEYS; i++) {
        const struct model_episode *m = &model.keys[i];
        (void)numbered("", i, fp);
        const struct episode *e =
            episodes_find(table, &(struct episode_alert){.source = SOURCE, .fingerprint = sv(fp)});
        cr_assert_eq(e != NULL, m->is_known, "seed %llu step %u key %u", (unsigned long long)seed, step, i);
        if (e == NULL) continue;
        cr_assert(e->state == m->state && e->seq == m->seq && e->starts_at_ns == m->starts &&
                      e->last_seen_ns == m->last_seen && sv_eq(e->incident, sv(m->incident)),
                  "seed %llu step %u key %u", (unsigned long long)seed, step, i);
    }
}

static int64_t model_oldest_seen(void)
{
    int64_t oldest = INT64_MAX;
    for (unsigned i = 0; i < MODEL_KEYS; i++) {
        const struct model_episode *m = &model.keys[i];
        if (m->is_known && m->state == EPISODE_OPEN && m->last_seen < oldest) oldest = m->last_seen;
    }
    return oldest;
}

/* Two tables with different hash seeds fold the same records and agree with the model after each. */
Test(episode, folds_of_random_records_are_the_same_everywhere)
{
    const char *text = getenv("BALM_SEED");
    uint64_t seed = 7;
    if (text != NULL) cr_assert_eq(sv_parse_u64(sv(text), &seed), STATUS_OK);
    struct random_seeded rng = {seed};
    struct episodes *first = episodes_new_bounded(MODEL_MAX_OPEN, MODEL_MAX_CLOSED);
    struct episodes *second = episodes_new_bounded(MODEL_MAX_OPEN, MODEL_MAX_CLOSED);
    int64_t now_s = 1000;
    for (unsigned step = 1; step <= MODEL_STEPS; step++) {
        unsigned key;
        char fp[17], incident[16];
        struct record r = random_step(&rng, &key, fp, incident, &now_s);
        episodes_apply(first, step, &r);
        episodes_apply(second, step, &r);
        model_apply(key, step, &r);
        compare_with_model(step % 2 ? first : second, seed, step);
        const struct episode *a = episodes_next_expired(first, now_s * NS_PER_S, 10 * NS_PER_S);
        const struct episode *b = episodes_next_expired(second, now_s * NS_PER_S, 10 * NS_PER_S);
        int64_t oldest_ns = model_oldest_seen();
        cr_assert_eq(a != NULL, oldest_ns <= (now_s - 10) * NS_PER_S);
        cr_assert_eq(b != NULL, a != NULL);
        cr_assert(a == NULL || (a->last_seen_ns == oldest_ns && sv_eq(a->fingerprint, b->fingerprint)));
    }
    episodes_free(first);
    episodes_free(second);
}

Test(episode, incident_id_names_alert_and_start)
{
    char id[INCIDENT_ID_MAX];
    incident_id(FP, INT64_C(1795356080123456789), id);
    cr_assert_str_eq(id, "a98a96e03b95fa22-1a2038fb7fb");
    incident_id(FP, 0, id);
    cr_assert_str_eq(id, "a98a96e03b95fa22-00000000000");
    incident_id(FP, -NS_PER_S, id);
    cr_assert_eq(strlen(id), 28);
}

Test(episode, incident_id_is_safe_whatever_the_fingerprint)
{
    static const char *const odd[] = {
        "", "../../../etc/pass", "A98A96E03B95FA22", "a98a96e03b95fa2", "a98a96e03b95fa222", "\r\n"};
    char id[INCIDENT_ID_MAX];
    for (size_t i = 0; i < ARRAY_LEN(odd); i++) {
        incident_id(sv(odd[i]), NS_PER_S, id);
        cr_assert_eq(strspn(id, "0123456789abcdef-"), 28, "%s", id);
        cr_assert_eq(strlen(id), 28);
    }
}

/* ---- snapshots ---- */

static struct episodes *copy_by_snapshot(const struct episodes *table, struct pack *ret_saved)
{
    struct episodes *copy = episodes_new_bounded(200, 100);
    struct unpack u;
    struct error err = {0};
    pack_init(ret_saved, NULL, NULL);
    episodes_save(table, ret_saved);
    unpack_init(&u, pack_view(ret_saved));
    cr_assert_eq(episodes_load(copy, &u, &err), STATUS_OK, "%s", err.message);
    cr_assert(unpack_is_good(&u));
    return copy;
}

Test(episode, what_is_loaded_goes_on_as_what_was_saved)
{
    struct random_seeded rng = {.state = 7};
    struct episodes *table = episodes_new_bounded(200, 100), *copy = NULL;
    for (uint64_t seq = 1; seq <= 20000; seq++) {
        char fingerprint[17], incident[32];
        uint64_t n = random_seeded_below(&rng, 500), what = random_seeded_below(&rng, 100);
        (void)snprintf(fingerprint, sizeof(fingerprint), "%016llx", (unsigned long long)n);
        (void)snprintf(incident, sizeof(incident), "i-%llu", (unsigned long long)seq);
        struct record r = {.kind = what < 70   ? RECORD_SIGNAL
                                   : what < 90 ? RECORD_SEEN
                                   : what < 99 ? RECORD_EXPIRED
                                               : RECORD_CLOCK,
                           .time_ns = (int64_t)(1000 + seq) * NS_PER_S,
                           .status = what < 40 ? SV("firing") : SV("resolved"),
                           .source = SV("alertmanager"),
                           .fingerprint = sv(fingerprint),
                           .incident = sv(incident),
                           .starts_at_ns = (int64_t)(1000 + seq) * NS_PER_S,
                           .ends_at_ns = what >= 40 ? (int64_t)(1001 + seq) * NS_PER_S : 0};
        if (r.kind == RECORD_CLOCK) {
            r.on = true;
            r.detail = SV("{\"jumpNs\":-7000000000}");
        }
        episodes_apply(table, seq, &r);
        if (copy != NULL) episodes_apply(copy, seq, &r);
        if (seq % 1000 != 0) continue;
        struct pack saved, again;
        struct episodes *fresh = copy_by_snapshot(table, &saved);
        if (copy != NULL) { /* a thousand records later it is still the same */
            pack_init(&again, NULL, NULL);
            episodes_save(copy, &again);
            cr_assert(sv_eq(pack_view(&saved), pack_view(&again)), "behind record %llu",
                      (unsigned long long)seq);
            pack_release(&again);
        }
        episodes_free(copy);
        copy = fresh;
        pack_release(&saved);
    }
    cr_assert_gt(episodes_open_count(table), 10);
    episodes_free(table);
    episodes_free(copy);
}

Test(episode, a_damaged_snapshot_is_refused_or_harmless)
{
    struct episodes *table = episodes_new_bounded(200, 100);
    for (uint64_t seq = 1; seq <= 50; seq++) {
        char fingerprint[17];
        (void)snprintf(fingerprint, sizeof(fingerprint), "%016llx", (unsigned long long)seq);
        episodes_apply(table, seq,
                       &(struct record){.kind = RECORD_SIGNAL,
                                        .time_ns = (int64_t)seq,
                                        .status = SV("firing"),
                                        .fingerprint = sv(fingerprint),
                                        .incident = sv(fingerprint)});
    }
    struct pack saved;
    episodes_free(copy_by_snapshot(table, &saved));
    struct strview bytes = pack_view(&saved);
    for (size_t i = 0; i < bytes.len; i++) {
        struct unpack u;
        struct episodes *loaded = episodes_new_bounded(200, 100);
        char was = saved.buf[i];
        unpack_init(&u, sv_sub(bytes, 0, i));
        cr_assert_neq(episodes_load(loaded, &u, NULL), STATUS_OK, "cut at %zu", i);
        episodes_free(loaded);
        loaded = episodes_new_bounded(200, 100);
        saved.buf[i] = (char)(was ^ 0x55);
        unpack_init(&u, bytes);
        (void)!episodes_load(loaded, &u, NULL);
        episodes_free(loaded);
        saved.buf[i] = was;
    }
    pack_release(&saved);
    episodes_free(table);
}

Test(episode, oldest_is_found_past_those_of_one_source)
{
    cr_assert_null(episodes_oldest_but_of(t, SV("other")));
    struct record r = {.kind = RECORD_SIGNAL,
                       .time_ns = NS_PER_S,
                       .source = SV("other"),
                       .status = SV("firing"),
                       .fingerprint = FP,
                       .incident = SV("i-0"),
                       .starts_at_ns = NS_PER_S};
    episodes_apply(t, 1, &r);
    cr_assert_null(episodes_oldest_but_of(t, SV("other")));
    firing(2, 5, 5, "i-1");
    cr_assert_eq(episodes_oldest_but_of(t, SV("other")), find());
    cr_assert(sv_eq(episodes_oldest_but_of(t, SOURCE)->source, SV("other")));
}
