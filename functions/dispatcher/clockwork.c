#include <inttypes.h>

#include "functions/dispatcher/dispatcher_impl.h"
#include "log/log.h"

#define RETRY_MS      500
#define WATCH_MS      1000
#define ANCHOR_OFF_NS (NS_PER_S / 2)
/* A wait for a timer is cut into pieces of this length at most: cheap, and no arithmetic at the far end of
 * the clock. */
#define WAIT_MAX_NS (3600 * NS_PER_S)

void clockwork_set_wake(const struct state *s, struct timer *t)
{
    int64_t unix_ns = clock_unix_ns();
    int64_t from = s->now_ns > unix_ns ? s->now_ns : unix_ns;
    t->wake_ns = clock_monotonic_ns() + (t->due_ns > from ? t->due_ns - from : 0);
}

/* The record owns nothing of the timer, which is freed while the record is shown to the followers. */
static enum status append_fired(struct dispatcher *d, const struct timer *t, struct error *err)
{
    struct arena arena = {0};
    struct record fired = {
        .kind = RECORD_FIRED,
        .time_ns = clock_unix_ns(),
        .tenant = d->env.tenant,
        .cluster = d->env.cluster,
        .timer = t->seq,
        .incident = arena_copy(&arena, t->incident),
        .runbook = arena_copy(&arena, t->runbook),
        .purpose = arena_copy(&arena, t->purpose),
        .due_ns = t->due_ns,
    };
    enum status s = journal_append(d->env.journal, &fired, 1, NULL, err);
    arena_release(&arena);
    return s;
}

/* Overdue ones go first by the heap's order: due time, then incident. */
void clockwork_timers(void *arg)
{
    struct dispatcher *d = arg;
    enum status s = STATUS_OK;
    while (s != STATUS_CANCELLED) {
        struct error err;
        struct timer *t = decider_is_active(d->decider) ? state_next_timer(dispatcher_state(d)) : NULL;
        int64_t now_ns = clock_monotonic_ns(), wait_until_ns = now_ns + WAIT_MAX_NS;
        if (t != NULL && t->wake_ns <= now_ns) {
            s = append_fired(d, t, &err);
            if (s == STATUS_OK)
                s = fiber_yield(); /* a thousand overdue ones must not hold the loop */
            else if (s != STATUS_CANCELLED)
                s = sleep_ms(RETRY_MS);
            continue;
        }
        if (t != NULL && t->wake_ns < wait_until_ns) wait_until_ns = t->wake_ns;
        fiber_event_reset(&d->timers_changed);
        s = fiber_event_wait(&d->timers_changed, wait_until_ns);
    }
}

static void keep_anchor(struct dispatcher *d)
{
    struct error err;
    if (clock_anchor_write(d->env.dir, &d->anchor, &err) != STATUS_OK)
        log_warn("dispatcher", "a clock that is set while balm does not run will not be noticed",
                 LOG_STR("error", err.message));
}

static enum status append_clock(struct dispatcher *d, bool is_settling, int64_t jump_ns)
{
    char detail[64];
    (void)snprintf(detail, sizeof(detail), "{\"jumpNs\":%" PRId64 "}", jump_ns);
    struct record r = {.kind = RECORD_CLOCK,
                       .time_ns = clock_unix_ns(),
                       .tenant = d->env.tenant,
                       .cluster = d->env.cluster,
                       .on = is_settling};
    if (jump_ns != 0) r.detail = sv(detail);
    struct error err;
    enum status s = journal_append(d->env.journal, &r, 1, NULL, &err);
    if (s != STATUS_OK) log_warn("dispatcher", "clock jump not recorded yet", LOG_STR("error", err.message));
    return s;
}

/* The file first: whichever of the two is there after a kill, the jump is counted once. */
static enum status append_jump(struct dispatcher *d, int64_t jump_ns)
{
    int64_t before_ns = d->anchor.offset_ns;
    clock_anchor_look(&d->anchor);
    d->anchor.before_ns = before_ns;
    d->anchor.seq = journal_last_seq(d->env.journal) + 1;
    keep_anchor(d);
    enum status s = append_clock(d, true, jump_ns);
    if (s != STATUS_OK) d->anchor.offset_ns = before_ns;
    return s;
}

static bool is_clock_record(const struct dispatcher *d, uint64_t seq)
{
    struct arena a = {0};
    struct journal_entry *entries = NULL;
    size_t n = 0;
    if (seq < journal_first_seq(d->env.journal)) return true; /* long ago: nobody was killed behind it */
    bool is_one = journal_read(d->env.journal, seq, 1, true, &a, &entries, &n, NULL) == STATUS_OK && n == 1 &&
                  entries[0].record->kind == RECORD_CLOCK;
    arena_release(&a);
    return is_one;
}

/* By how much the clock was set while nobody ran, as far as anybody can tell. */
static int64_t jump_while_down(struct dispatcher *d)
{
    struct clock_anchor then;
    clock_anchor_look(&d->anchor);
    if (clock_anchor_read(d->env.dir, &then) != STATUS_OK) return 0;
    int64_t offset_ns = is_clock_record(d, then.seq) ? then.offset_ns : then.before_ns;
    int64_t jump_ns = d->anchor.offset_ns - offset_ns;
    d->anchor.offset_ns = offset_ns; /* until that jump is on record */
    return jump_ns;
}

static bool is_jump(int64_t by_ns)
{
    return by_ns > CLOCK_JUMP_NS || by_ns < -CLOCK_JUMP_NS;
}

enum status clockwork_check_start(struct dispatcher *d)
{
    int64_t jump_ns = jump_while_down(d), behind_ns = dispatcher_state(d)->now_ns - clock_unix_ns();
    if (!is_jump(jump_ns) && behind_ns > CLOCK_JUMP_NS) jump_ns = -behind_ns;
    if (!is_jump(jump_ns)) {
        clock_anchor_look(&d->anchor);
        keep_anchor(d);
        return STATUS_OK;
    }
    log_warn("dispatcher", "the clock was set while balm did not run; nothing acts until it has settled",
             LOG_INT("jump_ms", jump_ns / NS_PER_MS));
    d->clock_hold_until_ns = clock_monotonic_ns() + CLOCK_SETTLE_NS;
    return append_jump(d, jump_ns);
}

/* Slewing moves it. */
static void renew_anchor(struct dispatcher *d)
{
    struct clock_anchor now;
    clock_anchor_look(&now);
    int64_t apart_ns = now.offset_ns - d->anchor.offset_ns;
    if (d->unrecorded_jump_ns != 0 || (apart_ns < ANCHOR_OFF_NS && apart_ns > -ANCHOR_OFF_NS)) return;
    d->anchor = now;
    keep_anchor(d);
}

void clockwork_look(struct dispatcher *d)
{
    int64_t now_ns = clock_monotonic_ns(), jump_ns = clock_watch_look(&d->clock, now_ns, clock_unix_ns());
    bool is_unsteady = dispatcher_state(d)->is_clock_settling && !clock_watch_is_steady(&d->clock);
    if (jump_ns != 0 || is_unsteady) d->clock_hold_until_ns = now_ns + CLOCK_SETTLE_NS;
    if (jump_ns != 0)
        log_warn("dispatcher", "the clock jumped; nothing acts until it has settled",
                 LOG_INT("jump_ms", jump_ns / NS_PER_MS));
    jump_ns += d->unrecorded_jump_ns;
    d->unrecorded_jump_ns = 0; /* before the append, which looks again */
    if (jump_ns != 0 && append_jump(d, jump_ns) != STATUS_OK) d->unrecorded_jump_ns += jump_ns;
}

/* Both clocks have gone side by side for CLOCK_SETTLE_NS: acts may go on. */
void clockwork_watch(void *arg)
{
    struct dispatcher *d = arg;
    if (dispatcher_state(d)->is_clock_settling) /* the last process ended in the middle of it */
        d->clock_hold_until_ns = clock_monotonic_ns() + CLOCK_SETTLE_NS;
    while (sleep_ms(WATCH_MS) == STATUS_OK) {
        clockwork_look(d);
        renew_anchor(d);
        bool is_settled = d->unrecorded_jump_ns == 0 && clock_monotonic_ns() >= d->clock_hold_until_ns;
        if (is_settled && dispatcher_state(d)->is_clock_settling) (void)append_clock(d, false, 0);
    }
}
