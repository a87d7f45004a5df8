#include "functions/alerts/survey.h"

#include <stdlib.h>

#include "base/clock.h"

/* Prometheus believes an alert for four times its resend delay (1 min by default). */
#define LAPSE_MIN_NS (3 * NS_PER_S)

/* ---- one list of them all ---- */

/* An alert as one of them lists it. */
struct entry {
    const struct listed *listed;
    bool is_vouched; /* by one who has been told of everything */
    bool may_open;   /* if it were for this one alone */
};

static int compare_keys(const struct webhook_alert *a, const struct webhook_alert *b)
{
    int order = sv_cmp(a->fingerprint, b->fingerprint);
    return order != 0 ? order : sv_cmp(a->fingerprint_computed, b->fingerprint_computed);
}

/* The one told last first: its annotations are the newest. */
static int compare_entries(const void *left, const void *right)
{
    const struct listed *a = ((const struct entry *)left)->listed, *b = ((const struct entry *)right)->listed;
    int order = compare_keys(&a->alert, &b->alert);
    if (order != 0) return order;
    return (a->updated_at_ns < b->updated_at_ns) - (a->updated_at_ns > b->updated_at_ns);
}

static bool is_believable(const struct survey_answer *answer, const struct survey_terms *terms)
{
    return clock_elapsed_ns(answer->status.started_unix_ns, answer->now_ns) >= terms->grace_ns;
}

static bool may_open(const struct survey_answer *answer, const struct listed *l,
                     const struct survey_terms *terms)
{
    return l->is_active && l->is_ours && l->alert.reason.len == 0 &&
           clock_elapsed_ns(l->alert.starts_at_ns, answer->now_ns) >= terms->open_after_ns;
}

static struct entry *collect(const struct survey_answer *answers, size_t n, const struct survey_terms *terms,
                             struct arena *a, size_t *ret_n)
{
    size_t n_entries = 0, at = 0;
    for (size_t i = 0; i < n; i++)
        n_entries += answers[i].listing.n;
    struct entry *entries = arena_array(a, n_entries, sizeof(*entries));
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < answers[i].listing.n; k++) {
            const struct listed *l = &answers[i].listing.alerts[k];
            if (l->alert.fingerprint.len == 0) continue; /* rejected before it could be told apart */
            entries[at++] =
                (struct entry){l, is_believable(&answers[i], terms), may_open(&answers[i], l, terms)};
        }
    qsort(entries, at, sizeof(*entries), compare_entries);
    *ret_n = at;
    return entries;
}

/* All that one alert's entries say, from entries[i] on; returns how many there are. */
static size_t merge(const struct entry *entries, size_t n, struct survey_fact *ret_fact)
{
    bool is_vouched = false, may_all_open = true;
    size_t k = 0;
    for (; k < n && compare_keys(&entries[0].listed->alert, &entries[k].listed->alert) == 0; k++) {
        is_vouched |= entries[k].is_vouched;
        may_all_open &= entries[k].may_open;
    }
    *ret_fact = (struct survey_fact){is_vouched && may_all_open, entries[0].listed->updated_at_ns,
                                     entries[0].listed->lapses_at_ns};
    return k;
}

void survey_fold(const struct survey_answer *answers, size_t n, const struct survey_terms *terms,
                 struct arena *a, struct survey *ret_survey)
{
    bool is_muted = false;
    size_t n_entries;
    struct survey s = {.terms = *terms};
    struct entry *entries = collect(answers, n, terms, a, &n_entries);
    s.alerts = arena_array(a, n_entries, sizeof(*s.alerts));
    s.facts = arena_array(a, n_entries, sizeof(*s.facts));
    for (size_t i = 0; i < n; i++) {
        s.is_believable |= is_believable(&answers[i], terms);
        is_muted |= answers[i].status.has_time_intervals;
    }
    for (size_t i = 0; i < n_entries; s.n++) {
        s.alerts[s.n] = entries[i].listed->alert;
        i += merge(&entries[i], n_entries - i, &s.facts[s.n]);
        s.facts[s.n].may_open &= !is_muted;
    }
    *ret_survey = s;
}

/* ---- what follows ---- */

/* After the end that we know of somebody told Alertmanager that it fires. */
static bool fires_again(const struct survey_fact *fact, const struct episode *e)
{
    return clock_elapsed_ns(e->ended_at_ns, fact->updated_at_ns) > EPISODE_SKEW_NS;
}

enum episode_verdict survey_judge(const struct survey *s, size_t i, enum episode_verdict verdict,
                                  const struct episode *e)
{
    const struct survey_fact *fact = &s->facts[i];
    if (e != NULL && e->last_seen_ns > s->terms.asked_ns) return EPISODE_DUPLICATE;
    switch (verdict) {
    case EPISODE_STALE:
        return fact->may_open && e != NULL && fires_again(fact, e) ? EPISODE_NEW : EPISODE_STALE;
    case EPISODE_NEW:
    case EPISODE_RENEWED:
        return fact->may_open ? verdict : EPISODE_STALE;
    case EPISODE_SEEN:
    case EPISODE_DUPLICATE:
    case EPISODE_CLOSES:
    case EPISODE_UNKNOWN_RESOLVE:
        break;
    }
    return verdict;
}

static int find_key(const void *key, const void *item)
{
    return compare_keys(key, item);
}

static bool is_listed(const struct survey *s, const struct episode *e)
{
    const struct webhook_alert key = {.fingerprint = e->fingerprint,
                                      .fingerprint_computed = e->fingerprint_computed};
    return s->n > 0 && bsearch(&key, s->alerts, s->n, sizeof(s->alerts[0]), find_key) != NULL;
}

enum survey_end survey_missing(const struct survey *s, const struct episode *e, int64_t missing_for_ns)
{
    if (is_listed(s, e)) return SURVEY_LISTED;
    bool was_seen_lately = clock_elapsed_ns(e->last_seen_ns, s->terms.asked_ns) < s->terms.grace_ns;
    return s->is_believable && !was_seen_lately && missing_for_ns >= s->terms.grace_ns ? SURVEY_UNKNOWN
                                                                                       : SURVEY_WAIT;
}

int64_t survey_lapse(const struct survey *s, size_t i)
{
    const struct survey_fact *fact = &s->facts[i];
    return clock_elapsed_ns(fact->updated_at_ns, fact->lapses_at_ns) >= LAPSE_MIN_NS ? fact->lapses_at_ns : 0;
}

/* The list shows milliseconds, a delivery nanoseconds. */
bool survey_has_lapsed(const struct episode *e, int64_t ends_at_ns)
{
    return e->lapses_at_ns != 0 && e->lapses_at_ns / NS_PER_MS == ends_at_ns / NS_PER_MS;
}
