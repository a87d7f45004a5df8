#include <inttypes.h>

#include "functions/dispatcher/dispatcher_impl.h"
#include "log/log.h"
#include "store/episode.h"

#define RETRY_MS 500
/* A wait is cut into pieces of this length at most: the wall clock may be slewed meanwhile. */
#define WAIT_MAX_NS (60 * NS_PER_S)
/* So long until a jump of the clock is on record (clockwork_watch() looks every second). */
#define JUMP_WAIT_MS 2500
#define COUNT_MAX    1000

static int64_t floor_s(int64_t unix_ns)
{
    return unix_ns / NS_PER_S - (unix_ns % NS_PER_S < 0 ? 1 : 0);
}

/* ---- one schedule ---- */

/* The files' runbook has the zone, the fold's is in force: the same text, or a reload is half done. */
static const struct runbook_slot *slot_in_force(const struct state *s, const struct runbook *rb)
{
    const struct active_runbook *active = state_active(s, rb->name);
    const struct runbook_slot *slot = table_get(&s->slots, rb->name);
    if (!runbook_is_scheduled(rb) || active == NULL || active->mode == RUNBOOK_OFF) return NULL;
    if (!sv_eq(sv(active->runbook->hash), sv(rb->hash))) return NULL;
    return slot != NULL && slot->scheduled_ns != 0 ? slot : NULL;
}

/* The first time after after_ns that has not come yet. */
static bool next_time(const struct runbook *rb, const struct runbook_slot *slot, int64_t after_ns,
                      int64_t *ret_due_ns)
{
    int64_t at_s = floor_s(after_ns);
    while (cron_next(&rb->schedule.cron, &rb->schedule.zone, at_s, &at_s)) {
        const struct tick_run *run = slot_tick_run(slot, at_s * NS_PER_S);
        if (run == NULL) {
            *ret_due_ns = at_s * NS_PER_S;
            return true;
        }
        at_s = floor_s(run->last_ns); /* the clock was set back: all of these have come */
    }
    return false;
}

bool ticker_next(const struct dispatcher *d, struct strview runbook, int64_t *ret_due_ns)
{
    const struct state *s = dispatcher_state(d);
    for (size_t i = 0; i < d->set->n; i++) {
        const struct runbook *rb = d->set->items[i];
        if (!sv_eq(rb->name, runbook)) continue;
        const struct runbook_slot *slot = slot_in_force(s, rb);
        return slot != NULL && next_time(rb, slot, clock_unix_ns(), ret_due_ns);
    }
    return false;
}

/* Times in (after_ns, until_ns), at most COUNT_MAX. */
static int64_t count_between(const struct runbook *rb, int64_t after_ns, int64_t until_ns)
{
    int64_t n = 0, at_s = floor_s(after_ns);
    while (n < COUNT_MAX && cron_next(&rb->schedule.cron, &rb->schedule.zone, at_s, &at_s) &&
           at_s * NS_PER_S < until_ns)
        n++;
    return n;
}

/* What is due now. */
struct due {
    const struct runbook *rb;
    int64_t due_ns;              /* the newest of them */
    int64_t before_ns;           /* the time before it, if that came; 0: others between were passed over */
    int64_t n_skipped, n_unsaid; /* times passed over since the last; those not counted before */
};

static enum status append_tick(struct dispatcher *d, const struct due *due, struct error *err)
{
    struct arena a = {0};
    char fingerprint[17], incident[INCIDENT_ID_MAX];
    struct record_labels labels = runbook_tick_labels(due->rb, &a);
    record_fingerprint(&labels, fingerprint);
    incident_id(sv(fingerprint), due->due_ns, incident);
    struct record tick = {
        .kind = RECORD_TICK,
        .time_ns = clock_unix_ns(),
        .tenant = d->env.tenant,
        .cluster = d->env.cluster,
        .source = SV("schedule"),
        .incident = sv(incident),
        .fingerprint = sv(fingerprint),
        .runbook = arena_copy(&a, due->rb->name),
        .runbook_hash = arena_copy(&a, sv(due->rb->hash)),
        .due_ns = due->due_ns,
        .labels = labels,
        .annotations = runbook_tick_annotations(due->due_ns, &a),
        .detail = arena_printf(&a, "{\"beforeNs\":%" PRId64 ",\"skipped\":%" PRId64 "}", due->before_ns,
                               due->n_skipped),
    };
    enum status s = journal_append(d->env.journal, &tick, 1, NULL, err);
    arena_release(&a);
    return s;
}

static void count(const struct runbook *rb, struct strview result, int64_t n)
{
    if (n > 0) metric_add(catalog_series(CATALOG_TICKS, (struct strview[]){result, rb->name}), (double)n);
}

/* All of them are older than the start deadline. Said once. */
static void pass_over(struct runbook *rb, const struct runbook_slot *slot, int64_t now_ns)
{
    int64_t until_ns = slot_ticked_until(slot, now_ns);
    if (rb->schedule.passed_ns > until_ns) until_ns = rb->schedule.passed_ns;
    int64_t n = count_between(rb, until_ns, now_ns);
    char late[DURATION_TEXT_MAX];
    rb->schedule.passed_ns = now_ns;
    if (n == 0) return;
    count(rb, SV("missed"), n);
    log_warn("dispatcher", "a schedule's times were missed and are too old to be made up for",
             LOG_SV("runbook", rb->name), LOG_INT("times", n),
             LOG_STR("start_deadline", duration_format(rb->schedule.start_deadline_ns, late)));
}

/* Is something due? Of several that are, the newest alone. */
static bool find_due(struct runbook *rb, const struct runbook_slot *slot, int64_t now_ns, struct due *ret_due)
{
    int64_t until_ns = slot_ticked_until(slot, now_ns), first_ns, last_s;
    int64_t oldest_ns = now_ns - rb->schedule.start_deadline_ns;
    if (!next_time(rb, slot, until_ns, &first_ns) || first_ns > now_ns) return false;
    if (oldest_ns < until_ns) oldest_ns = until_ns;
    if (!cron_last(&rb->schedule.cron, &rb->schedule.zone, floor_s(oldest_ns), floor_s(now_ns), &last_s)) {
        pass_over(rb, slot, now_ns);
        return false;
    }
    bool is_next = last_s * NS_PER_S == first_ns;
    *ret_due = (struct due){.rb = rb,
                            .due_ns = last_s * NS_PER_S,
                            .before_ns = is_next ? until_ns : 0,
                            .n_skipped = is_next ? 0 : count_between(rb, until_ns, last_s * NS_PER_S)};
    if (rb->schedule.passed_ns > until_ns) until_ns = rb->schedule.passed_ns;
    ret_due->n_unsaid = is_next ? 0 : count_between(rb, until_ns, last_s * NS_PER_S);
    return true;
}

/* ---- all of them ---- */

/* What is due of the first runbook that has something; else false, and when to look again. */
static bool look(const struct dispatcher *d, struct due *ret_due, int64_t *ret_next_ns)
{
    const struct state *s = dispatcher_state(d);
    int64_t now_ns = clock_unix_ns(), next_ns;
    *ret_next_ns = INT64_MAX;
    for (size_t i = 0; i < d->set->n; i++) {
        struct runbook *rb = d->set->items[i];
        const struct runbook_slot *slot = slot_in_force(s, rb);
        if (slot == NULL) continue;
        if (find_due(rb, slot, now_ns, ret_due)) return true;
        if (next_time(rb, slot, now_ns, &next_ns) && next_ns < *ret_next_ns) *ret_next_ns = next_ns;
    }
    return false;
}

static enum status fire(struct dispatcher *d, const struct due *due)
{
    struct error err;
    const struct runbook *rb = due->rb; /* as long as nothing waits */
    enum status s = append_tick(d, due, &err);
    if (s == STATUS_OK) {
        count(rb, SV("fired"), 1);
        count(rb, SV("missed"), due->n_unsaid);
        return fiber_yield();
    }
    if (s != STATUS_CANCELLED) s = sleep_ms(RETRY_MS);
    return s;
}

/* Has the wall clock left the monotonic one? *offset_ns is what lies between them. */
static bool has_jumped(int64_t *offset_ns)
{
    int64_t before_ns = *offset_ns;
    *offset_ns = clock_unix_ns() - clock_monotonic_ns();
    return *offset_ns - before_ns > CLOCK_JUMP_NS || before_ns - *offset_ns > CLOCK_JUMP_NS;
}

void ticker_run(void *arg)
{
    struct dispatcher *d = arg;
    enum status s = STATUS_OK;
    int64_t offset_ns = clock_unix_ns() - clock_monotonic_ns();
    while (s != STATUS_CANCELLED) {
        struct due due;
        int64_t next_ns = INT64_MAX, wait_ns = WAIT_MAX_NS;
        if (has_jumped(&offset_ns)) { /* on record it holds all that acts until it has settled */
            s = sleep_ms(JUMP_WAIT_MS);
            continue;
        }
        bool may_tick = decider_is_active(d->decider) && !dispatcher_state(d)->is_clock_settling;
        fiber_event_reset(&d->schedules_changed);
        if (may_tick && look(d, &due, &next_ns)) {
            s = fire(d, &due);
            continue;
        }
        int64_t now_ns = clock_unix_ns();
        if (next_ns < now_ns + wait_ns) wait_ns = next_ns > now_ns ? next_ns - now_ns : 0;
        s = fiber_event_wait(&d->schedules_changed, clock_monotonic_ns() + wait_ns);
    }
}
