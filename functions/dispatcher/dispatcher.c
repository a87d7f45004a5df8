#include "functions/dispatcher/dispatcher_impl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/memory.h"
#include "log/log.h"

#define EPOCH_RETRY_MS  200
#define READY_WAIT_NS   (30 * NS_PER_S)
#define DURABLE_WAIT_NS (10 * NS_PER_S)

const struct state *dispatcher_state(const struct dispatcher *d)
{
    return decider_state(d->decider);
}

void dispatcher_stamp(const struct dispatcher *d, struct record *r)
{
    r->time_ns = clock_unix_ns();
    r->tenant = d->env.tenant;
    r->cluster = d->env.cluster;
}

enum status dispatcher_wait_durable(struct dispatcher *d, uint64_t seq, struct error *err)
{
    return journal_wait_durable(d->env.journal, seq, clock_monotonic_ns() + DURABLE_WAIT_NS, err);
}

enum status dispatcher_append_durably(struct dispatcher *d, struct record *r, uint64_t *ret_seq,
                                      struct error *err)
{
    dispatcher_stamp(d, r);
    enum status s = journal_append(d->env.journal, r, 1, ret_seq, err);
    return s == STATUS_OK ? dispatcher_wait_durable(d, *ret_seq, err) : s;
}

/* ---- following ---- */

static void decide_now(struct dispatcher *d)
{
    struct record *out;
    size_t n;
    struct error err;
    decider_next(d->decider, &out, &n);
    if (n == 0) return;
    if (journal_append(d->env.journal, out, n, NULL, &err) == STATUS_OK) return;
    /* What was decided is lost, so this reign ends here; the next one looks at every incident anew. */
    log_error("dispatcher", "decisions not recorded; taking a new epoch", LOG_STR("error", err.message));
    decider_set_active(d->decider, false);
    fiber_event_set(&d->epoch_wanted);
}

static void note_new_timer(struct dispatcher *d, uint64_t seq, const struct record *r)
{
    const struct state *s = dispatcher_state(d);
    const struct incident *inc = r->incident.len > 0 ? state_incident(s, r->incident) : NULL;
    struct timer *t = inc != NULL ? inc->timer : NULL;
    for (size_t i = 0; r->incident.len == 0 && t == NULL && i < s->n_timers; i++)
        if (s->timers[i]->seq == seq) t = s->timers[i];
    if (t != NULL && t->seq == seq) clockwork_set_wake(s, t);
}

static void on_record(struct journal_follower *f, const struct journal_entry *e)
{
    struct dispatcher *d = container_of(f, struct dispatcher, follower);
    struct observed_incident before = {0};
    if (d->is_live) before = observe_before(d, e->record);
    const struct timer *next = state_next_timer(dispatcher_state(d));
    uint64_t next_seq = next != NULL ? next->seq : 0;
    decider_apply(d->decider, e->seq, e->record);
    selfwatch_record(&d->watch, d->env.watchdog, e->record, d->is_live);
    if (e->record->kind == RECORD_FREEZE) brake_note(d, e->record);
    if (!d->is_live) return;
    if (e->record->kind == RECORD_TIMER) note_new_timer(d, e->seq, e->record);
    if (e->record->kind == RECORD_ACTIVATION || e->record->kind == RECORD_CLOCK ||
        e->record->kind == RECORD_EPOCH)
        fiber_event_set(&d->schedules_changed);
    if (e->record->kind == RECORD_INTENT)
        d->decided[e->seq % DECIDED_TIMES] = (struct decided_time){e->seq, clock_unix_ns()};
    next = state_next_timer(dispatcher_state(d));
    if (next != NULL && next->seq != next_seq) fiber_event_set(&d->timers_changed);
    observe_record(d, e->record, &before);
    if (decider_is_active(d->decider)) decide_now(d);
}

static void on_reset(struct journal_follower *f, uint64_t durable_seq)
{
    (void)durable_seq; /* the journal shows its past again from the first record on */
    struct dispatcher *d = container_of(f, struct dispatcher, follower);
    decider_reset(d->decider);
    selfwatch_reset(&d->watch);
    d->is_live = false;
    fiber_event_set(&d->epoch_wanted);
}

static void on_save(const struct journal_follower *f, struct pack *p)
{
    const struct dispatcher *d = container_of(f, const struct dispatcher, follower);
    decider_save(d->decider, p);
    selfwatch_save(&d->watch, d->env.watchdog, p);
    brake_save(&d->brake, p);
}

static enum status on_load(struct journal_follower *f, unsigned version, struct unpack *u, struct error *err)
{
    (void)version;
    struct dispatcher *d = container_of(f, struct dispatcher, follower);
    enum status s = decider_load(d->decider, u, err);
    if (s != STATUS_OK) return s;
    selfwatch_load(&d->watch, d->env.watchdog, u);
    brake_load(&d->brake, u);
    return unpack_is_good(u) ? STATUS_OK
                             : error_set(err, STATUS_DATA_LOSS, "the dispatcher's state is damaged");
}

/* ---- taking over ---- */

/* Everything this fiber or callback appends from here on is decided by us; whatever an earlier decider still
 * writes is void. */
static enum status take_epoch(struct dispatcher *d, struct error *err)
{
    const struct state *s = dispatcher_state(d);
    for (size_t i = 0; i < s->n_timers; i++)
        if (s->timers[i]->wake_ns == 0) clockwork_set_wake(s, s->timers[i]);
    struct record r = {.kind = RECORD_EPOCH,
                       .time_ns = clock_unix_ns(),
                       .tenant = d->env.tenant,
                       .cluster = d->env.cluster,
                       .epoch = s->epoch + 1,
                       .actor = sv(d->actor)};
    d->is_live = true;
    decider_set_active(d->decider, true);
    enum status st = journal_append(d->env.journal, &r, 1, NULL, err);
    if (st != STATUS_OK) {
        decider_set_active(d->decider, false);
        d->is_live = false;
        return st;
    }
    fiber_event_set(&d->timers_changed);
    return STATUS_OK;
}

/* Takes an epoch again whenever one was lost. */
static void reign_fiber(void *arg)
{
    struct dispatcher *d = arg;
    while (fiber_event_wait(&d->epoch_wanted, 0) == STATUS_OK) {
        struct error err;
        fiber_event_reset(&d->epoch_wanted); /* before: it may be lost again at once */
        enum status s = take_epoch(d, &err);
        if (s == STATUS_OK) {
            log_info("dispatcher", "took the epoch again",
                     LOG_INT("epoch", (int64_t)dispatcher_state(d)->epoch));
            if (activation_apply(d, sv(d->actor), &err) != STATUS_OK)
                log_error("dispatcher", "runbooks not activated", LOG_STR("error", err.message));
            if (dispatcher_apply_freeze(d, &err) != STATUS_OK)
                log_error("dispatcher", "freeze not passed on", LOG_STR("error", err.message));
        } else {
            fiber_event_set(&d->epoch_wanted);
            if (sleep_ms(EPOCH_RETRY_MS) != STATUS_OK) return;
        }
    }
}

/* ---- what retention must leave, or what can be said again ---- */

static uint64_t oldest_needed(struct journal_keeper *k)
{
    return state_oldest_needed(dispatcher_state(container_of(k, struct dispatcher, keeper)));
}

/* So that the past before seq can go and what is kept still folds to runbooks, their activation and the
 * epoch. A failure leaves the old ones in the way: the next look asks again. */
static void renew(struct journal_keeper *k, uint64_t seq)
{
    struct dispatcher *d = container_of(k, struct dispatcher, keeper);
    struct error err;
    enum status st = STATUS_OK;
    if (!decider_is_active(d->decider)) return;
    for (size_t i = 0; i < dispatcher_state(d)->n_runbooks && st == STATUS_OK; i++) {
        const struct runbook *rb =
            dispatcher_state(d)->runbook_items[i]; /* an append may fold the state anew */
        if (rb->seq < seq && state_uses_runbook(dispatcher_state(d), rb))
            st = activation_append_content(d, rb, &err);
    }
    if (st == STATUS_OK && dispatcher_state(d)->activation_seq < seq)
        st = activation_append(d, sv(d->actor), &err);
    if (st == STATUS_OK && dispatcher_state(d)->epoch_seq < seq) st = take_epoch(d, &err);
    if (st == STATUS_OK) return;
    log_warn("dispatcher", "not recorded anew for retention", LOG_STR("error", err.message));
    if (!decider_is_active(d->decider)) fiber_event_set(&d->epoch_wanted); /* it was the epoch */
}

static enum status admit_call(void *state, struct strview function, struct error *err)
{
    const struct dispatcher *d = state;
    return queue_admit_call(d->queue, function, err);
}

static struct core_backlog backlog(void *state, struct strview function)
{
    const struct dispatcher *d = state;
    struct queue_depth depth = queue_depth(d->queue, function);
    return (struct core_backlog){depth.ready + depth.leased, depth.oldest_ns};
}

enum status dispatcher_apply_freeze(struct dispatcher *d, struct error *err)
{
    bool is_frozen = dispatcher_state(d)->is_frozen || d->is_braked;
    queue_freeze(d->queue, is_frozen);
    return d->env.invoker->freeze(d->env.invoker_arg, is_frozen, err);
}

/* ---- life cycle ---- */

static void release(struct dispatcher *d)
{
    gauges_release(d);
    queue_free(d->queue);
    activation_free_set(d->set);
    activation_free_set(d->fresh);
    decider_free(d->decider);
    free(d);
}

/* What was dated just before the clock was set back would take the fold's time ahead of it. */
static void before_append(struct journal_usher *u, struct record *records, size_t n)
{
    clockwork_look(container_of(u, struct dispatcher, usher));
    int64_t now_ns = clock_unix_ns();
    for (size_t i = 0; i < n; i++)
        if (records[i].time_ns > now_ns) records[i].time_ns = now_ns;
}

static enum status make_queue(struct dispatcher *d, struct error *err)
{
    struct arena a = {0};
    struct queue_cfg cfg = {.max_inflight = INVOKERS,
                            .taken_file = arena_printf(&a, "%s/run/taken", d->env.dir).ptr};
    enum status s = queue_new(d->env.journal, &cfg, &d->queue, err);
    arena_release(&a);
    return s;
}

static enum status start(const struct core_env *env, void **ret_state, struct error *err)
{
    struct dispatcher *d = mem_zalloc(1, sizeof(*d));
    char host[256];
    d->env = *env;
    if (gethostname(host, sizeof(host)) != 0) host[0] = '\0';
    host[sizeof(host) - 1] = '\0';
    (void)snprintf(d->actor, sizeof(d->actor), "%s:%d", host[0] != '\0' ? host : "localhost", (int)getpid());
    d->decider = decider_new();
    d->set = mem_zalloc(1, sizeof(*d->set));
    d->follower = (struct journal_follower){.on_record = on_record,
                                            .on_reset = on_reset,
                                            .name = "dispatcher",
                                            .version = STATE_SAVED_VERSION,
                                            .on_save = on_save,
                                            .on_load = on_load};
    d->usher = (struct journal_usher){.before_append = before_append};
    fiber_scope_init(&d->workers);
    fiber_scope_init(&d->invokers);
    fiber_event_init(&d->timers_changed);
    fiber_event_init(&d->schedules_changed);
    fiber_event_init(&d->epoch_wanted);
    fiber_event_init(&d->brake.changed);
    fiber_event_init(&d->reloader.changed);
    enum status s = activation_read_set(d, env->invoker, env->invoker_arg, d->set, err);
    if (s == STATUS_OK) s = make_queue(d, err);
    if (s != STATUS_OK) {
        release(d);
        return s;
    }
    gauges_init(d);
    selfwatch_init(&d->watch);
    d->keeper = (struct journal_keeper){.name = "dispatcher", .oldest_needed = oldest_needed, .renew = renew};
    journal_follow(env->journal, &d->follower);
    journal_keep(env->journal, &d->keeper);
    *ret_state = d;
    return STATUS_OK;
}

static enum status ready(void *state, struct error *err)
{
    struct dispatcher *d = state;
    (void)clock_watch_look(&d->clock, clock_monotonic_ns(), clock_unix_ns());
    journal_set_usher(d->env.journal, &d->usher);
    enum status s = clockwork_check_start(d);
    if (s != STATUS_OK) return error_set(err, s, "the clock's jump could not be recorded");
    fiber_event_reset(&d->epoch_wanted); /* by a snapshot that did not load */
    s = brake_check_start(d, err);
    if (s == STATUS_OK) s = take_epoch(d, err);
    if (s == STATUS_OK) s = activation_apply(d, sv(d->actor), err);
    if (s == STATUS_OK)
        s = journal_wait_durable(d->env.journal, journal_last_seq(d->env.journal),
                                 clock_monotonic_ns() + READY_WAIT_NS, err);
    if (s == STATUS_OK) s = dispatcher_apply_freeze(d, err);
    if (s == STATUS_OK) s = fiber_scope_spawn(&d->workers, reign_fiber, d, err);
    if (s == STATUS_OK) s = fiber_scope_spawn(&d->workers, clockwork_timers, d, err);
    if (s == STATUS_OK) s = fiber_scope_spawn(&d->workers, clockwork_watch, d, err);
    if (s == STATUS_OK) s = fiber_scope_spawn(&d->workers, ticker_run, d, err);
    if (s == STATUS_OK) s = fiber_scope_spawn(&d->workers, gauges_disk_fiber, d, err);
    if (s == STATUS_OK) s = fiber_scope_spawn(&d->workers, selfwatch_fiber, d, err);
    if (s == STATUS_OK) s = fiber_scope_spawn(&d->workers, brake_fiber, d, err);
    if (s == STATUS_OK && d->env.runbooks_dir != NULL)
        s = fiber_scope_spawn(&d->workers, reloader_fiber, d, err);
    for (int i = 0; i < INVOKERS && s == STATUS_OK; i++)
        s = fiber_scope_spawn(&d->invokers, invoker_run, d, err);
    if (s == STATUS_OK && dispatcher_state(d)->is_frozen && !d->brake.is_file)
        log_warn("dispatcher", "acting is stopped since an earlier run; balm resume lets it go on");
    return s;
}

/* Acts under way may finish and have their outcome recorded; what takes longer is left without outcome and is
 * handed out again, as interrupted, by the next process. */
static void stop(void *state, int64_t deadline_ns)
{
    struct dispatcher *d = state;
    int64_t least_ns = clock_monotonic_ns() + STOP_GRACE_NS;
    fiber_shield_begin();
    queue_stop(d->queue);
    if (fiber_event_wait(&d->invokers.all_done, deadline_ns > least_ns ? deadline_ns : least_ns) != STATUS_OK)
        log_warn("dispatcher", "acts under way are cut short; the next start finds them");
    fiber_scope_cancel(&d->invokers);
    fiber_scope_join(&d->invokers);
    fiber_scope_cancel(&d->workers);
    fiber_scope_join(&d->workers);
    fiber_shield_end();
    journal_set_usher(d->env.journal, NULL);
    journal_unfollow(d->env.journal, &d->follower);
    journal_unkeep(d->env.journal, &d->keeper);
    release(d);
}

static void stop_acting(void *state, struct strview actor)
{
    brake_pull(state, actor, (struct strview){0});
}

const struct core_function dispatcher_function = {
    .name = "dispatcher",
    .summary = "decides on alerts by runbooks and has bots act",
    .auth = CORE_BASIC,
    .start = start,
    .ready = ready,
    .handle = dispatcher_handle,
    .admit_call = admit_call,
    .act = direct_call,
    .backlog = backlog,
    .stop_acting = stop_acting,
    .reload_prepare = activation_prepare,
    .reload_commit = activation_commit,
    .reload_discard = activation_discard,
    .stop = stop,
};
