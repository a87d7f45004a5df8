/* What state_save.c wrote, read in the same order. A false from any of these: damaged; what is there can be
 * freed all the same. */
#include "functions/dispatcher/state_impl.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"

struct loading {
    struct state *s;
    struct unpack *u;
    struct incident **by_seq; /* owned; ascending, as they were opened */
    size_t n_by_seq;
};

static bool load_runbooks(struct loading *l)
{
    struct state *s = l->s;
    for (size_t n = unpack_count(l->u); n > 0; n--) {
        uint64_t seq = unpack_u64(l->u);
        struct strview hash = unpack_text(l->u), content = unpack_text(l->u);
        state_add_runbook(s, seq, hash, content);
    }
    size_t n = unpack_count(l->u);
    s->active = mem_zalloc(n + 1, sizeof(*s->active));
    for (size_t i = 0; i < n; i++) {
        const struct runbook *rb = state_runbook(s, unpack_text(l->u));
        uint64_t mode = unpack_u64(l->u), since_seq = unpack_u64(l->u);
        if (rb == NULL || mode > RUNBOOK_ACT) return false;
        s->active[s->n_active++] = (struct active_runbook){rb, (enum runbook_mode)mode, since_seq};
    }
    return !l->u->is_bad;
}

static bool load_ticks(struct loading *l, struct runbook_slot *slot)
{
    slot->scheduled_ns = unpack_i64(l->u);
    size_t n = unpack_count(l->u);
    if (n > TICK_RUNS_MAX) return false;
    for (slot->n_ticks = 0; slot->n_ticks < n; slot->n_ticks++) {
        struct tick_run *run = &slot->ticks[slot->n_ticks];
        run->first_ns = unpack_i64(l->u);
        run->last_ns = unpack_i64(l->u);
    }
    return !l->u->is_bad;
}

static bool load_slots(struct loading *l)
{
    for (size_t n = unpack_count(l->u); n > 0; n--) {
        struct runbook_slot *slot = state_slot_get(l->s, unpack_text(l->u));
        slot->n_acting = (size_t)unpack_u64(l->u);
        slot->n_acts = unpack_u64(l->u);
        slot->n_shadowed = unpack_u64(l->u);
        slot->last_act_ns = unpack_i64(l->u);
        if (!load_ticks(l, slot)) return false;
    }
    return !l->u->is_bad;
}

/* In the arena. */
static bool load_labels(struct loading *l, struct arena *a, struct record_labels *ret_labels)
{
    size_t n = unpack_count(l->u);
    if (n > RECORD_LABELS_MAX) return false;
    struct http_header *items = arena_array(a, n + 1, sizeof(*items));
    for (size_t i = 0; i < n; i++) {
        items[i].name = unpack_text(l->u);
        items[i].value = unpack_text(l->u);
    }
    *ret_labels = (struct record_labels){items, n};
    return !l->u->is_bad;
}

static struct timer *load_timer(struct loading *l)
{
    struct record r = {.kind = RECORD_TIMER};
    uint64_t seq = unpack_u64(l->u);
    int64_t set_ns = unpack_i64(l->u);
    r.due_ns = unpack_i64(l->u);
    r.incident = unpack_text(l->u);
    r.purpose = unpack_text(l->u);
    r.runbook = unpack_text(l->u);
    struct timer *t = state_timer_add(l->s, seq, &r);
    t->set_ns = set_ns;
    return t;
}

static bool load_escalation(struct loading *l, struct incident *inc)
{
    bool has_reason = unpack_bool(l->u);
    struct strview reason = unpack_text(l->u);
    if (has_reason) state_note_escalation(inc, reason);
    return !l->u->is_bad;
}

/* As state.c folds it: what has acted or waits has a step, and only an act may be the follow-up. */
static bool is_step_of_phase(const struct incident *inc, enum incident_phase phase)
{
    uint64_t n = inc->runbook->n_steps, step = (uint64_t)inc->step; /* negative: beyond all */
    switch (phase) {
    case INCIDENT_ACTING:
    case INCIDENT_ENDED:
        return n > 0 && step >= 1 && step <= n + 1;
    case INCIDENT_VERIFYING:
    case INCIDENT_HOLDING:
    case INCIDENT_FOLLOWING:
        return step >= 1 && step <= n;
    case INCIDENT_WAITING:
    case INCIDENT_DELAYED:
    case INCIDENT_REFUSED:
        return n == 0 ? step == 0 : step >= 1 && step <= n + 1;
    case INCIDENT_NEW:
    case INCIDENT_ESCALATED:
    case INCIDENT_PHASES:
        break;
    }
    return n == 0 ? step == 0 : step <= n + 1;
}

/* Everything behind the texts. */
static bool load_progress(struct loading *l, struct incident *inc)
{
    inc->seq = unpack_u64(l->u);
    inc->needs_seq = unpack_u64(l->u);
    inc->opened_ns = unpack_i64(l->u);
    uint64_t phase = unpack_u64(l->u);
    inc->phase_ns = unpack_i64(l->u);
    uint64_t alert = unpack_u64(l->u);
    inc->step = unpack_i64(l->u);
    struct strview intent = unpack_text(l->u);
    (void)snprintf(inc->intent, sizeof(inc->intent), "%.*s", SV_ARG(intent));
    inc->intent_seq = unpack_u64(l->u);
    inc->deadline_ns = unpack_i64(l->u);
    uint64_t outcome = unpack_u64(l->u);
    if (phase >= INCIDENT_PHASES || alert > ALERT_EXPIRED || outcome > OUTCOME_EXPIRED) return false;
    if (!is_step_of_phase(inc, (enum incident_phase)phase)) return false;
    inc->phase = (enum incident_phase)phase;
    inc->alert = (enum alert_state)alert;
    inc->outcome = (enum outcome_state)outcome;
    inc->hold_broken = unpack_bool(l->u);
    inc->is_escalated = unpack_bool(l->u);
    inc->is_closing = unpack_bool(l->u);
    if (!load_escalation(l, inc)) return false;
    struct strview gate = unpack_text(l->u);
    if (gate.len > 0) (void)state_phase_after(gate, &inc->gate);
    if (unpack_bool(l->u)) inc->timer = load_timer(l);
    return !l->u->is_bad;
}

static void enlist(struct loading *l, struct incident *inc)
{
    struct state *s = l->s;
    list_push_back(&s->incidents_list, &inc->node);
    table_put(&s->incidents, inc->id, inc);
    s->n_incidents++;
    s->incident_bytes += inc->bytes;
    s->n_phase[inc->phase]++;
    l->by_seq[l->n_by_seq++] = inc;
}

static bool load_incident(struct loading *l, struct arena *a)
{
    struct record r = {.kind = RECORD_SIGNAL};
    r.incident = unpack_text(l->u);
    r.fingerprint = unpack_text(l->u);
    r.tenant = unpack_text(l->u);
    r.cluster = unpack_text(l->u);
    struct strview target = unpack_text(l->u), missing = unpack_text(l->u);
    if (!load_labels(l, a, &r.labels) || !load_labels(l, a, &r.annotations)) return false;
    const struct runbook *rb = state_runbook(l->s, unpack_text(l->u));
    if (rb == NULL || r.incident.len == 0 || state_incident(l->s, r.incident) != NULL) return false;
    struct incident *inc = state_incident_new(&r, target, missing);
    inc->runbook = rb;
    inc->slot = state_slot_get(l->s, rb->name);
    bool is_good = load_progress(l, inc);
    enlist(l, inc);
    return is_good;
}

static bool load_incidents(struct loading *l)
{
    struct arena a = {0};
    bool is_good = true;
    size_t n = unpack_count(l->u);
    l->by_seq = mem_zalloc(n + 1, sizeof(struct incident *));
    for (; n > 0 && is_good; n--) {
        is_good = load_incident(l, &a);
        arena_reset(&a);
    }
    arena_release(&a);
    return is_good;
}

static struct incident *incident_of(const struct loading *l, uint64_t seq)
{
    size_t low = 0, high = l->n_by_seq;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (l->by_seq[middle]->seq < seq)
            low = middle + 1;
        else
            high = middle;
    }
    return low < l->n_by_seq && l->by_seq[low]->seq == seq ? l->by_seq[low] : NULL;
}

static bool load_acts(struct loading *l, struct target *t)
{
    size_t n = unpack_count(l->u);
    t->acts = mem_zalloc(n + 1, sizeof(*t->acts));
    t->acts_capacity = n + 1;
    for (; t->n_acts < n; t->n_acts++) {
        struct act *act = &t->acts[t->n_acts];
        act->incident_seq = unpack_u64(l->u);
        act->began_ns = unpack_i64(l->u);
        act->ended_ns = unpack_i64(l->u);
    }
    return !l->u->is_bad;
}

static bool load_target(struct loading *l)
{
    struct target *t = state_target_get(l->s, unpack_text(l->u));
    if (t->acts != NULL || !load_acts(l, t)) return false;
    t->n_busy = (size_t)unpack_u64(l->u);
    for (size_t n = unpack_count(l->u); n > 0; n--) {
        struct incident *inc = incident_of(l, unpack_u64(l->u));
        if (inc == NULL || inc->target != NULL || !sv_eq(inc->target_name, t->name)) return false;
        inc->target = t;
        list_push_back(&t->incidents, &inc->on_target);
        t->n_incidents++;
    }
    return !l->u->is_bad;
}

static bool load_slot_list(struct loading *l, struct list *to)
{
    for (size_t n = unpack_count(l->u); n > 0; n--) {
        struct incident *inc = incident_of(l, unpack_u64(l->u));
        if (inc == NULL || list_is_linked(&inc->in_slot)) return false;
        list_push_back(to, &inc->in_slot);
    }
    return !l->u->is_bad;
}

static bool load_slot_lists(struct loading *l)
{
    struct state *s = l->s;
    bool is_good = true;
    for (struct list *node = s->slots_list.next; node != &s->slots_list && is_good; node = node->next) {
        struct runbook_slot *slot = container_of(node, struct runbook_slot, node);
        is_good = load_slot_list(l, &slot->waiting) && load_slot_list(l, &slot->untold);
    }
    return is_good;
}

static bool load_closed(struct loading *l)
{
    struct state *s = l->s;
    s->n_closed = unpack_u64(l->u);
    size_t n = unpack_count(l->u);
    if (n > CLOSED_MAX || n > s->n_closed) return false;
    for (uint64_t i = s->n_closed - n; i < s->n_closed; i++) {
        struct closed_incident c = {.text = NULL};
        struct strview *members[] = {&c.id, &c.alertname, &c.runbook, &c.target, &c.state};
        size_t bytes = 1;
        for (size_t k = 0; k < ARRAY_LEN(members); k++) {
            *members[k] = unpack_text(l->u);
            bytes += members[k]->len;
        }
        char *at = c.text = mem_alloc(bytes);
        for (size_t k = 0; k < ARRAY_LEN(members); k++)
            *members[k] = sv_put(&at, *members[k]);
        c.seq = unpack_u64(l->u);
        c.opened_ns = unpack_i64(l->u);
        c.closed_ns = unpack_i64(l->u);
        free(s->closed[i % CLOSED_MAX].text);
        s->closed[i % CLOSED_MAX] = c;
    }
    return !l->u->is_bad;
}

static bool load_dismissed(struct loading *l)
{
    size_t n = unpack_count(l->u);
    if (n > DISMISSED_MAX) return false;
    for (; n > 0; n--)
        state_dismiss(l->s, unpack_text(l->u));
    return !l->u->is_bad;
}

static bool load_sources(struct loading *l)
{
    size_t n = unpack_count(l->u);
    if (n > SOURCES_MAX + 1) return false;
    for (size_t i = 0; i < n; i++) {
        struct strview name = unpack_text(l->u);
        struct signal_source *source = &l->s->sources[l->s->n_sources++];
        char *at = mem_alloc(name.len + 1);
        source->name = sv_put(&at, name);
        source->last_ns = unpack_i64(l->u);
        source->n = unpack_u64(l->u);
    }
    return !l->u->is_bad;
}

static bool load_all(struct loading *l)
{
    struct state *s = l->s;
    s->last_seq = unpack_u64(l->u);
    s->epoch = unpack_u64(l->u);
    s->epoch_seq = unpack_u64(l->u);
    s->activation_seq = unpack_u64(l->u);
    s->frozen_seq = unpack_u64(l->u);
    s->now_ns = unpack_i64(l->u);
    s->is_frozen = unpack_bool(l->u);
    s->is_clock_settling = unpack_bool(l->u);
    s->frozen_ns = unpack_i64(l->u);
    s->n_unmatched = unpack_u64(l->u);
    s->n_void = unpack_u64(l->u);
    s->n_limit_hits = unpack_u64(l->u);
    if (!load_runbooks(l) || !load_slots(l) || !load_incidents(l)) return false;
    for (size_t n = unpack_count(l->u); n > 0; n--)
        if (!load_target(l)) return false;
    if (!load_slot_lists(l)) return false;
    for (size_t n = unpack_count(l->u); n > 0; n--)
        (void)load_timer(l);
    return load_closed(l) && load_dismissed(l) && load_sources(l);
}

enum status state_load(struct unpack *u, struct state **ret_state, struct error *err)
{
    struct loading l = {.s = state_new(), .u = u};
    bool is_good = load_all(&l) && !u->is_bad;
    free(l.by_seq);
    if (!is_good) {
        state_free(l.s);
        return error_set(err, STATUS_DATA_LOSS, "the dispatcher's state is damaged");
    }
    *ret_state = l.s;
    return STATUS_OK;
}
