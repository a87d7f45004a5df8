/* Whatever comes in, in whatever order, with the decider dying now and then: the guardrails hold, every
 * incident ends, and the journal folds again to the same bytes (sim.h checks that record by record). The
 * rules are checked here from the records alone, by a second, simpler book-keeping that shares nothing
 * with the dispatcher's. BALM_SEED repeats one run. */
#include "tests/unit/dispatcher/sim.h"

#include <inttypes.h>

#include "base/random.h"
#include "functions/dispatcher/preview.h"

enum { RUNS = 150, STEPS = 400, INCIDENTS = 2000 };

static const char runbook_sets[][2500] = {
    "- {name: a, mode: act, match: [alertname=A], target: 'svc/${labels.service}', steps: [{bot: x}, {bot: y, verify: check}],\n"
    "   guardrails: {cooldown: 20s, rate: {max: 4, per: 5m}, max_in_flight: 2}, escalate: {bot: notify, with: {t: '${reason}'}},\n"
    "   follow_up: {after: 40s, bot: w}}\n"
    "- {name: b, mode: act, match: [alertname=B], target: 'svc/${labels.service}', steps: [{bot: x, verify: {check: {hold: 15s}}}],\n"
    "   guardrails: {cooldown: 1m, rate: {max: 2, per: 10m}, max_in_flight: 1}}\n"
    "- {name: c, mode: act, match: [alertname=C], target: fixed, steps: [{bot: x, verify: {resolve: {within: 10s, hold: 5s}}}, {bot: x}, {bot: z}],\n"
    "   guardrails: {cooldown: 5s, rate: {max: 3, per: 2m}}}\n"
    "- {name: d, match: ['alertname=~\"[A-C]\"'], target: 'svc/${labels.service}', steps: [{bot: x}]}\n"
    "- {name: e, mode: act, match: [alertname=D], target: 'svc/${labels.service}', escalate: {bot: notify}}\n"
    "- {name: f, mode: act, schedule: '@every 5s', target: svc/s1, steps: [{bot: x}, {bot: y}],\n"
    "   guardrails: {cooldown: 1s, rate: {max: 100, per: 1m}}, escalate: {bot: notify}}\n",
    /* a is promoted no more, b is off, c has another ladder */
    "- {name: a, mode: shadow, match: [alertname=A], target: 'svc/${labels.service}', steps: [{bot: x}]}\n"
    "- {name: b, mode: off, match: [alertname=B], target: 'svc/${labels.service}', steps: [{bot: x}]}\n"
    "- {name: c, mode: act, match: ['alertname=~\"B|C\"'], target: 'svc/${labels.service}', steps: [{bot: x, with: {s: '${labels.service}'}}],\n"
    "   guardrails: {cooldown: 1s, rate: {max: 100, per: 1m}, max_in_flight: 100}}\n"
    "- {name: f, schedule: '@every 5s', target: svc/s1, steps: [{bot: x}]}\n",
};

struct open_act {
    struct strview intent, target, runbook;
    uint64_t incident;
    int64_t deadline_ns;
};

struct past_act {
    struct strview target;
    uint64_t incident;
    int64_t began_ns, ended_ns;
};

/* The simple book-keeping. */
struct book {
    size_t n_read;
    int64_t now_ns;              /* effective time of what is being read */
    int64_t effective_ns;        /* the latest so far */
    int64_t effective_at[40000]; /* by sequence */
    bool is_frozen, is_settling;
    const struct record *activation;
    struct open_act open[INCIDENTS];
    struct past_act past[4 * INCIDENTS];
    const struct record *dead[64]; /* outcomes of the newest dead acts, a ring */
    size_t n_dead, n_retried;
    size_t n_open, n_past, n_intents, n_shadow, n_closed, n_healed, n_done, n_followed;
};

struct world {
    struct sim sim;
    struct book book;
    struct random_seeded rng;
    enum { ALIVE_NO, ALIVE_FIRING, ALIVE_RESOLVED, ALIVE_EXPIRED } alert[INCIDENTS];
    bool was_closed[INCIDENTS], is_tick[INCIDENTS], is_healed[INCIDENTS];
    int64_t last_step[INCIDENTS];
    unsigned n_incidents;
    size_t n_previewed[3]; /* act, shadow, refused */
    uint64_t epoch, seed;
};

static struct world world;

static uint64_t below(uint64_t bound)
{
    return random_seeded_below(&world.rng, bound);
}

static uint64_t number_of(struct strview incident)
{
    uint64_t n = 0;
    cr_assert_eq(sv_parse_u64(sv_sub(incident, 1, incident.len), &n), STATUS_OK);
    return n;
}

/* ---- the rules ---- */

static int64_t content_of(struct strview runbook_hash, struct runbook **ret_runbook)
{
    for (size_t i = 0; i < world.sim.n; i++) {
        const struct record *r = &world.sim.log[i]->record;
        if (r->kind != RECORD_RUNBOOK || !sv_eq(r->runbook_hash, runbook_hash)) continue;
        cr_assert_eq(runbook_from_content(r->content, ret_runbook, NULL), STATUS_OK);
        return 1;
    }
    return 0;
}

static void check_gates(const struct record *r)
{
    static const char *const names[] = {"mode",     "freeze", "clock",     "target",           "params",
                                        "cooldown", "rate",   "in_flight", "in_flight_runbook"};
    json_t *gates;
    cr_assert_eq(json_parse(r->gates, 0, &gates, NULL), STATUS_OK);
    bool is_intent = r->kind == RECORD_INTENT;
    size_t n = r->step == 0 ? 2 : ARRAY_LEN(names); /* a runbook that only tells passes mode and freeze */
    cr_assert_eq(json_array_size(gates), n);
    for (size_t i = 0; i < n; i++) {
        const json_t *gate = json_array_get(gates, i);
        cr_assert(sv_eq(json_get_text(gate, "gate"), sv(names[i])));
        bool is_ok = json_is_true(json_object_get(gate, "ok"));
        cr_assert(is_ok || !is_intent, "seed %" PRIu64 ": an intent with a closed gate", world.seed);
        if (is_ok) continue;
        cr_assert(sv_eq(r->gate, sv(names[i])), "the first closed gate refuses");
        break;
    }
    json_decref(gates);
}

static void check_guardrails(const struct record *r, const struct runbook *rb)
{
    const struct book *b = &world.book;
    uint64_t incident = number_of(r->incident);
    int64_t of_runbook = 0, in_window = 0;
    for (size_t i = 0; i < b->n_open; i++) {
        cr_assert(!sv_eq(b->open[i].target, r->target), "seed %" PRIu64 " record %zu: two acts on one target",
                  world.seed, b->n_read);
        cr_assert(!sv_eq(b->open[i].intent, r->intent), "an intent id twice");
        of_runbook += sv_eq(b->open[i].runbook, r->runbook);
    }
    cr_assert_lt(of_runbook, rb->guardrails.max_in_flight, "seed %" PRIu64 ": too many of %.*s", world.seed,
                 SV_ARG(r->runbook));
    for (size_t i = 0; i < b->n_past; i++) {
        const struct past_act *p = &b->past[i];
        if (!sv_eq(p->target, r->target)) continue;
        in_window += p->began_ns > b->now_ns - rb->guardrails.rate_per_ns;
        if (p->incident == incident || p->ended_ns == 0) continue;
        cr_assert_geq(b->now_ns - p->ended_ns, rb->guardrails.cooldown_ns,
                      "seed %" PRIu64 " record %zu: cooldown", world.seed, b->n_read);
    }
    cr_assert_lt(in_window, rb->guardrails.rate_max, "seed %" PRIu64 " record %zu: rate", world.seed,
                 b->n_read);
}

static void read_intent(const struct record *r)
{
    struct book *b = &world.book;
    struct runbook *rb = NULL;
    uint64_t incident = number_of(r->incident);
    b->n_intents++;
    cr_assert_not(b->is_frozen, "seed %" PRIu64 " record %zu: acts while frozen", world.seed, b->n_read);
    if (sv_eq(r->purpose, SV("escalate"))) return;
    cr_assert_not(b->is_settling);
    cr_assert_not_null(b->activation);
    cr_assert(
        sv_contains(b->activation->runbooks,
                    arena_printf(&world.sim.arena, "\"mode\":\"act\",\"name\":\"%.*s\"", SV_ARG(r->runbook))),
        "seed %" PRIu64 " record %zu: %.*s may not act", world.seed, b->n_read, SV_ARG(r->runbook));
    cr_assert_gt(r->target.len, 0);
    cr_assert_not(world.was_closed[incident]);
    if (sv_eq(r->purpose, SV("follow_up"))) {
        cr_assert(world.is_healed[incident], "seed %" PRIu64 ": follows what was not healed", world.seed);
        b->n_followed++;
    } else {
        cr_assert_not(world.is_healed[incident], "seed %" PRIu64 ": acts on what is healed", world.seed);
        cr_assert_eq(world.alert[incident], ALIVE_FIRING, "seed %" PRIu64 ": acts on an alert that is over",
                     world.seed);
        cr_assert(r->step == world.last_step[incident] || r->step == world.last_step[incident] + 1,
                  "rungs in order");
    }
    world.last_step[incident] = r->step;
    check_gates(r);
    cr_assert(content_of(r->runbook_hash, &rb));
    check_guardrails(r, rb);
    runbook_free(rb);
    b->open[b->n_open++] = (struct open_act){r->intent, r->target, r->runbook, incident, r->deadline_ns};
    b->past[b->n_past++] = (struct past_act){r->target, incident, b->now_ns, 0};
}

static void end_open(size_t i)
{
    struct book *b = &world.book;
    for (size_t k = b->n_past; k > 0; k--) {
        struct past_act *p = &b->past[k - 1];
        if (p->incident != b->open[i].incident || p->ended_ns != 0) continue;
        p->ended_ns = b->now_ns;
        break;
    }
    b->open[i] = b->open[--b->n_open];
}

static void read_outcome(const struct record *r)
{
    struct book *b = &world.book;
    for (size_t i = 0; i < b->n_open; i++) {
        if (!sv_eq(b->open[i].intent, r->intent)) continue;
        end_open(i);
        if (sv_eq(r->state, SV("dead"))) b->dead[b->n_dead++ % ARRAY_LEN(b->dead)] = r;
        return;
    }
}

static void read_closed(const struct record *r)
{
    uint64_t incident = number_of(r->incident);
    cr_assert_not(world.was_closed[incident], "closed twice");
    world.was_closed[incident] = true;
    world.book.n_closed++;
    bool is_healed = sv_eq(r->state, SV("healed"));
    world.book.n_healed += is_healed;
    world.book.n_done += sv_eq(r->state, SV("done"));
    cr_assert(!world.is_tick[incident] || sv_eq(r->state, SV("done")) || sv_eq(r->state, SV("skipped")) ||
                  sv_eq(r->state, SV("escalated")) || sv_eq(r->state, SV("manual")),
              "seed %" PRIu64 ": a run closed as %.*s", world.seed, SV_ARG(r->state));
    if (world.alert[incident] == ALIVE_EXPIRED && !world.is_healed[incident] &&
        !sv_eq(r->state, SV("manual")))
        cr_assert(sv_eq(r->state, SV("unknown")), "an expired alert proves nothing");
    if (is_healed) cr_assert_gt(world.last_step[incident], 0, "healed without an act");
    for (size_t i = 0; i < world.book.n_open; i++) {
        const struct open_act *act = &world.book.open[i];
        if (act->incident != incident) continue;
        bool is_overdue = world.book.now_ns > act->deadline_ns + 120 * NS_PER_S;
        cr_assert(is_overdue && sv_eq(r->state, SV("manual")), "closed with an act under way");
        end_open(i);
        break;
    }
}

static void read_log(void)
{
    struct book *b = &world.book;
    while (b->n_read < world.sim.n) {
        const struct record *r = &world.sim.log[b->n_read++]->record;
        cr_assert_lt(b->n_read, ARRAY_LEN(b->effective_at));
        if (r->time_ns > b->effective_ns) b->effective_ns = r->time_ns;
        b->effective_at[b->n_read] = b->effective_ns;
        b->now_ns = r->cause != 0 ? b->effective_at[r->cause] : b->effective_ns;
        if (r->cause != 0)
            cr_assert_eq(r->time_ns, b->now_ns, "a decision has the effective time of its cause");
        if (r->kind == RECORD_FREEZE) b->is_frozen = r->on;
        if (r->kind == RECORD_CLOCK) b->is_settling = r->on;
        if (r->kind == RECORD_ACTIVATION) b->activation = r;
        if (r->kind == RECORD_INTENT) read_intent(r);
        if (r->kind == RECORD_OUTCOME) read_outcome(r);
        if (r->kind == RECORD_CLOSED) read_closed(r);
        if (r->kind == RECORD_VERIFIED && r->ok) world.is_healed[number_of(r->incident)] = true;
        if (r->kind == RECORD_REFUSAL && sv_eq(r->mode, SV("shadow"))) b->n_shadow++;
        if (r->kind == RECORD_REFUSAL && r->purpose.len == 0) check_gates(r);
    }
}

/* ---- what may happen ---- */

static const char *incident_name(uint64_t n)
{
    return arena_printf(&world.sim.arena, "i%" PRIu64, n).ptr;
}

static struct record make_signal(uint64_t n, bool is_firing)
{
    static const char *const alerts[] = {"A", "B", "C", "D", "unmatched"}, *const services[] = {
                                                                               "s0", "s1", "s2", "s3", NULL};
    return sim_signal(&world.sim, incident_name(n), is_firing ? "firing" : "resolved", alerts[n % 5],
                      services[(n / 5) % 5]);
}

/* ---- a preview says what decide() will say (preview.h) ---- */

static const struct record *decision_on(struct strview incident)
{
    for (size_t i = world.sim.n; i > 0; i--) {
        const struct record *r = &world.sim.log[i - 1]->record;
        if ((r->kind == RECORD_INTENT || r->kind == RECORD_REFUSAL) && sv_eq(r->incident, incident) &&
            r->purpose.len == 0)
            return r;
    }
    return NULL;
}

static bool is_told(struct strview incident)
{
    for (size_t i = world.sim.n; i > 0; i--) {
        const struct record *r = &world.sim.log[i - 1]->record;
        if (r->kind == RECORD_ESCALATED && sv_eq(r->incident, incident)) return true;
    }
    return false;
}

static void check_preview(const json_t *said, const struct record *signal)
{
    const struct record *r = decision_on(signal->incident);
    struct strview result = json_get_text(said, "result");
    if (r == NULL) {
        struct strview expected = is_told(signal->incident) ? SV("tell") : SV("no_runbook");
        cr_assert(sv_eq(result, expected), "said %.*s, seed %" PRIu64, SV_ARG(result), world.seed);
        return;
    }
    bool is_act = sv_eq(result, SV("act")), is_shadow = sv_eq(result, SV("shadow"));
    cr_assert_eq(is_act, r->kind == RECORD_INTENT, "said %.*s, seed %" PRIu64, SV_ARG(result), world.seed);
    cr_assert(is_act || is_shadow || sv_eq(result, SV("refused")));
    cr_assert(sv_eq(json_get_text(said, "gate"), r->gate), "seed %" PRIu64, world.seed);
    cr_assert(sv_eq(json_get_text(said, "reason"), r->reason), "seed %" PRIu64, world.seed);
    cr_assert(sv_eq(json_get_text(said, "function"), r->function));
    cr_assert(sv_eq(json_get_text(json_object_get(said, "runbook"), "name"), r->runbook));
    cr_assert(sv_eq(json_get_text(said, "target"), r->target));
    struct strview gates = json_canonical(&world.sim.arena, json_object_get(said, "gates"));
    cr_assert(sv_eq(gates, r->gates), "said %.*s, was %.*s", SV_ARG(gates), SV_ARG(r->gates));
    world.n_previewed[is_act ? 0 : is_shadow ? 1 : 2]++;
}

/* One after the other, as a preview takes them. */
static void preview_and_feed(struct record *batch, size_t n)
{
    struct preview *p = preview_new(decider_state(world.sim.decider), batch, n, world.sim.now_ns, false);
    json_t *said[6];
    for (size_t i = 0; i < n; i++)
        said[i] = preview_next(p, decider_state(world.sim.decider));
    cr_assert_null(preview_next(p, decider_state(world.sim.decider)));
    preview_free(p);
    for (size_t i = 0; i < n; i++) {
        (void)sim_input(&world.sim, batch[i]);
        check_preview(said[i], &batch[i]);
        json_decref(said[i]);
    }
}

static void do_fire(void)
{
    struct record batch[6];
    size_t n = 1 + (below(3) == 0 ? below(6) : 0);
    for (size_t i = 0; i < n; i++) {
        if (world.n_incidents == INCIDENTS) return;
        /* Alert and service come out of the number; skipping some makes their sequence random. */
        world.n_incidents += (unsigned)below(7);
        if (world.n_incidents >= INCIDENTS) world.n_incidents = INCIDENTS - 1;
        unsigned id = world.n_incidents++;
        world.alert[id] = ALIVE_FIRING;
        batch[i] = make_signal(id, true);
        /* Writers' clocks differ. */
        if (below(10) == 0) batch[i].time_ns = world.sim.now_ns - (int64_t)below(3) * NS_PER_S;
    }
    if (!world.sim.is_deaf && below(2) == 0) {
        for (size_t i = 0; i < n; i++) {
            batch[i].time_ns = 0;
            batch[i].fingerprint = batch[i].incident;
        }
        preview_and_feed(batch, n);
        return;
    }
    (void)sim_feed(&world.sim, batch, n);
}

/* It needs nothing else to end. Now and then it comes again, as a clock that was set back would have it. */
static void do_tick(void)
{
    const struct active_runbook *active = state_active(decider_state(world.sim.decider), SV("f"));
    if (world.n_incidents == INCIDENTS || active == NULL) return;
    unsigned id = world.n_incidents++;
    world.is_tick[id] = true;
    world.alert[id] = ALIVE_FIRING;
    const struct runbook *rb = active->runbook;
    struct record tick = {.kind = RECORD_TICK,
                          .incident = sv(incident_name(id)),
                          .runbook = arena_copy(&world.sim.arena, rb->name),
                          .runbook_hash = arena_copy(&world.sim.arena, sv(rb->hash)),
                          .due_ns = world.sim.now_ns + id, /* none like it */
                          .labels = runbook_tick_labels(rb, &world.sim.arena)};
    struct record batch[] = {tick, tick};
    (void)sim_feed(&world.sim, batch, 1 + below(2));
}

static void end_alert(uint64_t n, bool is_resolve)
{
    if (world.alert[n] != ALIVE_FIRING || world.is_tick[n]) return;
    world.alert[n] = is_resolve ? ALIVE_RESOLVED : ALIVE_EXPIRED;
    struct record r = is_resolve ? make_signal(n, false)
                                 : (struct record){.kind = RECORD_EXPIRED, .incident = sv(incident_name(n))};
    (void)sim_input(&world.sim, r);
}

static void do_end(void)
{
    if (world.n_incidents == 0) return;
    uint64_t span = world.n_incidents < 60 ? world.n_incidents : 60;
    end_alert(world.n_incidents - 1 - below(span), below(4) > 0);
}

static void do_outcome(void)
{
    static const char *const states[] = {"done",    "done",    "done",    "unchanged", "failed",
                                         "refused", "unknown", "expired", "dead"};
    if (world.book.n_open == 0) return;
    const struct open_act *act = &world.book.open[below(world.book.n_open)];
    (void)sim_input(&world.sim, (struct record){.kind = RECORD_OUTCOME,
                                                .incident = sv(incident_name(act->incident)),
                                                .intent = act->intent,
                                                .state = sv(states[below(ARRAY_LEN(states))])});
}

/* A person closes an incident, has a dead act retried, or a message sent once more; mostly too late. */
static void do_steer(void)
{
    uint64_t span = world.n_incidents < 30 ? world.n_incidents : 30, dice = below(6);
    struct book *b = &world.book;
    if (span == 0) return;
    if (below(20) == 0) world.sim.now_ns += 600 * NS_PER_S; /* acts become overdue */
    struct record r = {.kind = RECORD_CLOSE,
                       .incident = sv(incident_name(world.n_incidents - 1 - below(span))),
                       .actor = SV("alice")};
    if (dice > 0) {
        r.kind = RECORD_RETRY;
        r.state = SV("anew");
        r.purpose = SV("escalate");
    }
    if (dice > 1 && b->n_dead > 0) {
        const struct record *dead = b->dead[(b->n_dead - 1 - below(b->n_dead < 8 ? b->n_dead : 8)) % 64];
        r.incident = dead->incident;
        r.intent = dead->intent;
        r.purpose = sv(NULL);
        r.step = world.last_step[number_of(dead->incident)];
    }
    size_t n_intents = b->n_intents;
    (void)sim_input(&world.sim, r);
    read_log();
    b->n_retried += dice > 1 && b->n_intents > n_intents;
}

static void do_timer(void)
{
    const struct timer *t = state_next_timer(decider_state(world.sim.decider));
    if (!world.sim.is_deaf && t != NULL && t->due_ns < world.sim.now_ns + 10 * NS_PER_S)
        (void)sim_fire(&world.sim);
}

static void take_over(void)
{
    if (below(2) == 0)
        sim_restart_from_snapshot(&world.sim);
    else
        sim_restart(&world.sim);
    sim_epoch(&world.sim, ++world.epoch);
}

static void do_something(void)
{
    world.sim.now_ns += (int64_t)below(4) * NS_PER_S;
    uint64_t dice = below(100);
    if (dice < 25)
        do_fire();
    else if (dice < 30)
        do_tick();
    else if (dice < 50)
        do_end();
    else if (dice < 75)
        do_outcome();
    else if (dice < 88)
        do_timer();
    else if (dice < 91)
        (void)sim_input(&world.sim, (struct record){.kind = RECORD_FREEZE, .on = below(2) == 0});
    else if (dice < 93)
        (void)sim_input(&world.sim, (struct record){.kind = RECORD_CLOCK, .on = below(2) == 0});
    else if (dice < 95)
        sim_activate(&world.sim, runbook_sets[below(ARRAY_LEN(runbook_sets))]);
    else if (dice < 97)
        do_steer();
    else if (dice < 98)
        world.sim.is_deaf = true;
    else
        take_over();
    if (world.sim.is_deaf && below(8) == 0) take_over();
    read_log();
}

static void run_dry(void)
{
    for (int i = 0; i < 200 * INCIDENTS &&
                    (world.book.n_open > 0 || state_next_timer(decider_state(world.sim.decider)) != NULL);
         i++) {
        do_outcome();
        read_log();
        (void)sim_fire(&world.sim);
        read_log();
    }
    cr_assert_eq(world.book.n_open, 0);
    cr_assert_eq(decider_state(world.sim.decider)->n_timers, 0, "seed %" PRIu64 ": timers without end",
                 world.seed);
}

/* Nobody is forgotten: with no more alerts, all who wait get their turn. And everything that is open ends
 * once the alerts do. */
static void bring_to_an_end(void)
{
    take_over();
    read_log();
    (void)sim_input(&world.sim, (struct record){.kind = RECORD_FREEZE});
    (void)sim_input(&world.sim, (struct record){.kind = RECORD_CLOCK});
    read_log();
    run_dry();
    const struct state *s = decider_state(world.sim.decider);
    cr_assert_eq(s->n_phase[INCIDENT_WAITING], 0, "seed %" PRIu64 ": %zu wait for ever", world.seed,
                 s->n_phase[INCIDENT_WAITING]);
    cr_assert_eq(s->n_phase[INCIDENT_DELAYED] + s->n_phase[INCIDENT_NEW] + s->n_phase[INCIDENT_ENDED], 0);
    for (uint64_t n = 0; n < world.n_incidents; n++) {
        end_alert(n, below(2) == 0);
        read_log();
    }
    run_dry();
    cr_assert_eq(s->n_incidents, 0, "seed %" PRIu64 ": %zu incidents never end", world.seed, s->n_incidents);
    cr_assert_eq(s->n_closed, world.book.n_closed);
}

static void run(uint64_t seed)
{
    world = (struct world){.rng = {seed}, .seed = seed, .epoch = 1};
    sim_init(&world.sim);
    sim_epoch(&world.sim, 1);
    sim_activate(&world.sim, runbook_sets[0]);
    for (int i = 0; i < STEPS; i++)
        do_something();
    bring_to_an_end();
}

TestSuite(decide_property, .timeout = 300);

Test(decide_property, guardrails_hold_and_incidents_end_whatever_comes)
{
    const char *given = getenv("BALM_SEED");
    uint64_t seed = 0;
    if (given == NULL || sv_parse_u64(sv(given), &seed) != STATUS_OK) random_bytes(&seed, sizeof(seed));
    cr_log_info("BALM_SEED=%" PRIu64, seed);
    size_t n_intents = 0, n_shadow = 0, n_healed = 0, n_retried = 0, n_done = 0, n_followed = 0,
           n_previewed[3] = {0};
    for (int i = 0; i < RUNS; i++) {
        run(seed + (uint64_t)i);
        n_intents += world.book.n_intents;
        n_shadow += world.book.n_shadow;
        n_healed += world.book.n_healed;
        n_retried += world.book.n_retried;
        n_done += world.book.n_done;
        n_followed += world.book.n_followed;
        for (size_t k = 0; k < ARRAY_LEN(n_previewed); k++)
            n_previewed[k] += world.n_previewed[k];
        sim_release(&world.sim);
        if (given != NULL) break;
    }
    /* A test in which nothing happens would hold too. */
    cr_assert(n_intents > 100 * (given != NULL ? 0 : 1) && n_shadow + n_healed > 0,
              "%zu intents, %zu in shadow, %zu healed", n_intents, n_shadow, n_healed);
    cr_assert(given != NULL || n_retried > 3, "%zu acts retried", n_retried);
    cr_assert(n_done > 20 || given != NULL, "%zu scheduled runs done", n_done);
    cr_assert(n_followed > 3 || given != NULL, "%zu follow-ups", n_followed);
    cr_log_info(
        "%zu intents, %zu in shadow, %zu healed, %zu retried, %zu scheduled runs done, %zu follow-ups",
        n_intents, n_shadow, n_healed, n_retried, n_done, n_followed);
    for (size_t k = 0; k < ARRAY_LEN(n_previewed); k++)
        cr_assert(given != NULL || n_previewed[k] > 100, "%zu previews of kind %zu", n_previewed[k], k);
    cr_log_info("previewed: %zu acts, %zu in shadow, %zu refusals", n_previewed[0], n_previewed[1],
                n_previewed[2]);
}
