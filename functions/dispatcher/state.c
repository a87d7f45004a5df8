#include "functions/dispatcher/state_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* ---- life cycle ---- */

struct state *state_new(void)
{
    struct state *s = mem_zalloc(1, sizeof(*s));
    list_init(&s->incidents_list);
    list_init(&s->targets_list);
    list_init(&s->slots_list);
    list_init(&s->dismissed_list);
    return s;
}

static void free_incidents_and_targets(struct state *s)
{
    while (!list_is_empty(&s->incidents_list))
        state_free_incident(s, container_of(s->incidents_list.next, struct incident, node));
    for (struct list *node; (node = list_pop_front(&s->targets_list)) != NULL;)
        state_free_target(container_of(node, struct target, node));
    for (struct list *node; (node = list_pop_front(&s->slots_list)) != NULL;)
        free(container_of(node, struct runbook_slot, node));
}

void state_free(struct state *s)
{
    if (s == NULL) return;
    free_incidents_and_targets(s);
    while (s->n_dismissed > 0)
        state_forget_dismissed(s, container_of(s->dismissed_list.next, struct dismissed, node)->incident);
    while (s->n_timers > 0)
        state_timer_remove(s, s->timers[0]);
    for (size_t i = 0; i < s->n_runbooks; i++)
        runbook_free(s->runbook_items[i]);
    for (size_t i = 0; i < CLOSED_MAX; i++)
        free(s->closed[i].text);
    for (size_t i = 0; i < s->n_sources; i++)
        free((void *)(uintptr_t)s->sources[i].name.ptr);
    free(s->timers);
    free(s->runbook_items);
    free(s->active);
    table_release(&s->incidents);
    table_release(&s->targets);
    table_release(&s->runbooks);
    table_release(&s->slots);
    table_release(&s->dismissed);
    free(s);
}

/* ---- looking ---- */

struct incident *state_incident(const struct state *s, struct strview id)
{
    return table_get(&s->incidents, id);
}

const struct runbook *state_runbook(const struct state *s, struct strview hash)
{
    return table_get(&s->runbooks, hash);
}

const struct active_runbook *state_active(const struct state *s, struct strview name)
{
    for (size_t i = 0; i < s->n_active; i++)
        if (sv_eq(s->active[i].runbook->name, name)) return &s->active[i];
    return NULL;
}

enum runbook_mode state_mode(const struct state *s, struct strview name)
{
    const struct active_runbook *active = state_active(s, name);
    return active != NULL ? active->mode : RUNBOOK_OFF;
}

const struct runbook *state_match(const struct state *s, const struct record_labels *labels,
                                  uint64_t *ret_limit_hits)
{
    for (size_t i = 0; i < s->n_active; i++) {
        if (s->active[i].mode == RUNBOOK_OFF) continue;
        enum match_result found = matchers_match(&s->active[i].runbook->match, labels);
        if (found == MATCH_YES) return s->active[i].runbook;
        if (found == MATCH_LIMIT && ret_limit_hits != NULL) ++*ret_limit_hits;
    }
    return NULL;
}

bool state_is_full(const struct state *s, const struct record *signal)
{
    return s->n_incidents >= INCIDENTS_MAX || s->n_targets >= TARGETS_MAX ||
           s->incident_bytes + 2 * RECORD_BYTES_MAX > INCIDENT_BYTES_MAX || signal->incident.len == 0;
}

bool state_uses_runbook(const struct state *s, const struct runbook *rb)
{
    for (size_t i = 0; i < s->n_active; i++)
        if (s->active[i].runbook == rb) return true;
    for (const struct list *node = s->incidents_list.next; node != &s->incidents_list; node = node->next)
        if (container_of(node, const struct incident, node)->runbook == rb) return true;
    return false;
}

static void keep_lower(uint64_t *oldest, uint64_t seq)
{
    if (seq < *oldest) *oldest = seq;
}

uint64_t state_oldest_needed(const struct state *s)
{
    uint64_t oldest = UINT64_MAX;
    if (s->epoch_seq > 0) keep_lower(&oldest, s->epoch_seq);
    if (s->activation_seq > 0) keep_lower(&oldest, s->activation_seq);
    if (s->is_frozen) keep_lower(&oldest, s->frozen_seq);
    for (size_t i = 0; i < s->n_active; i++)
        keep_lower(&oldest, s->active[i].runbook->seq);
    for (const struct list *node = s->incidents_list.next; node != &s->incidents_list; node = node->next) {
        const struct incident *inc = container_of(node, const struct incident, node);
        keep_lower(&oldest, inc->needs_seq);
    }
    for (size_t i = 0; i < s->n_timers; i++)
        keep_lower(&oldest, s->timers[i]->seq);
    return oldest;
}

static const char *const phase_names[INCIDENT_PHASES] = {
    [INCIDENT_NEW] = "new",
    [INCIDENT_ACTING] = "acting",
    [INCIDENT_ENDED] = "ended",
    [INCIDENT_VERIFYING] = "verifying",
    [INCIDENT_HOLDING] = "holding",
    [INCIDENT_WAITING] = "waiting",
    [INCIDENT_DELAYED] = "delayed",
    [INCIDENT_REFUSED] = "refused",
    [INCIDENT_ESCALATED] = "escalated",
    [INCIDENT_FOLLOWING] = "following",
};

const char *incident_phase_name(enum incident_phase phase)
{
    return phase_names[phase];
}

/* A dead letter is a failure, unless the last that was heard is that the answer was lost: then nobody knows
 * what happened. */
enum outcome_state outcome_state_from_name(struct strview name, struct strview code)
{
    if (sv_eq(name, SV("done"))) return OUTCOME_DONE;
    if (sv_eq(name, SV("unchanged"))) return OUTCOME_UNCHANGED;
    if (sv_eq(name, SV("refused"))) return OUTCOME_REFUSED;
    if (sv_eq(name, SV("expired"))) return OUTCOME_EXPIRED;
    if (sv_eq(name, SV("unknown"))) return OUTCOME_UNKNOWN;
    return sv_eq(name, SV("dead")) && sv_eq(code, SV("UNKNOWN")) ? OUTCOME_UNKNOWN : OUTCOME_FAILED;
}

/* ---- folding: inputs ---- */

static void note_source(struct state *s, const struct record *r)
{
    struct signal_source *source = NULL;
    for (size_t i = 0; i < s->n_sources; i++)
        if (sv_eq(s->sources[i].name, r->source)) source = &s->sources[i];
    if (source == NULL && s->n_sources <= SOURCES_MAX) {
        struct strview name = s->n_sources == SOURCES_MAX ? SV("other") : r->source;
        source = &s->sources[s->n_sources++];
        char *copy = mem_alloc(name.len + 1);
        if (name.len > 0) memcpy(copy, name.ptr, name.len);
        source->name = sv_n(copy, name.len);
    }
    if (source == NULL) source = &s->sources[SOURCES_MAX];
    source->last_ns = s->now_ns;
    source->n++;
}

static void apply_signal(struct state *s, uint64_t seq, const struct record *r)
{
    note_source(s, r);
    struct incident *inc = state_incident(s, r->incident);
    if (sv_eq(r->status, SV("resolved"))) {
        if (inc != NULL && inc->alert == ALERT_FIRING) inc->alert = ALERT_RESOLVED;
        state_forget_dismissed(s, r->incident);
        return;
    }
    if (inc != NULL || state_is_dismissed(s, r->incident)) return; /* the episode is known: nothing new */
    const struct runbook *rb = state_match(s, &r->labels, &s->n_limit_hits);
    if (rb == NULL) {
        s->n_unmatched++;
        return;
    }
    if (!state_is_full(s, r)) state_open_incident(s, seq, r, rb);
}

/* A content of a newer format, or with another hash, is passed over: the activation will miss it. */
void state_add_runbook(struct state *s, uint64_t seq, struct strview hash, struct strview content)
{
    struct runbook *rb = table_get(&s->runbooks, hash);
    if (rb != NULL) rb->seq = seq;
    if (rb != NULL || runbook_from_content(content, &rb, NULL) != STATUS_OK) return;
    if (!sv_eq(sv(rb->hash), hash)) {
        runbook_free(rb);
        return;
    }
    if (s->n_runbooks == s->runbooks_capacity) {
        s->runbooks_capacity = s->runbooks_capacity ? 2 * s->runbooks_capacity : 16;
        s->runbook_items = mem_realloc(s->runbook_items, s->runbooks_capacity * sizeof(struct runbook *));
    }
    rb->seq = seq;
    if (rb->guardrails.cooldown_ns > s->acts_window_ns) s->acts_window_ns = rb->guardrails.cooldown_ns;
    if (rb->guardrails.rate_per_ns > s->acts_window_ns) s->acts_window_ns = rb->guardrails.rate_per_ns;
    s->runbook_items[s->n_runbooks++] = rb;
    table_put(&s->runbooks, sv(rb->hash), rb);
}

/* What was in force before, with the same text and mode, goes on being so. */
static uint64_t active_since(const struct active_runbook *before, size_t n,
                             const struct active_runbook *active, uint64_t seq)
{
    for (size_t i = 0; i < n; i++)
        if (before[i].mode == active->mode && strcmp(before[i].runbook->hash, active->runbook->hash) == 0)
            return before[i].since_seq;
    return seq;
}

static void apply_activation(struct state *s, uint64_t seq, const struct record *r)
{
    json_t *set = NULL;
    if (json_parse(r->runbooks, 0, &set, NULL) != STATUS_OK || !json_is_array(set)) {
        json_release(set);
        return;
    }
    size_t n = json_array_size(set), n_before = s->n_active;
    struct active_runbook *before = s->active;
    s->active = mem_zalloc(n + 1, sizeof(*s->active));
    s->n_active = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(set, i);
        struct active_runbook active = {.runbook = state_runbook(s, json_get_text(item, "hash"))};
        if (active.runbook == NULL || !runbook_mode_from_name(json_get_text(item, "mode"), &active.mode))
            continue;
        active.since_seq = active_since(before, n_before, &active, seq);
        s->active[s->n_active++] = active;
    }
    s->activation_seq = seq;
    state_schedules_changed(s, before, n_before);
    free(before);
    json_release(set);
}

static void apply_fired(struct state *s, const struct record *r)
{
    struct incident *inc = r->incident.len > 0 ? state_incident(s, r->incident) : NULL;
    if (inc != NULL) {
        if (inc->timer == NULL || inc->timer->seq != r->timer) return; /* cancelled meanwhile */
        state_drop_timer(s, inc);
        return;
    }
    struct timer *t = r->incident.len > 0 ? NULL : state_timer_find(s, r->timer);
    if (t != NULL) state_timer_remove(s, t);
}

static void apply_outcome(struct state *s, const struct record *r)
{
    struct incident *inc = state_incident(s, r->incident);
    if (inc == NULL || inc->phase != INCIDENT_ACTING || !sv_eq(r->intent, sv(inc->intent))) return;
    inc->outcome = outcome_state_from_name(r->state, r->code);
    state_act_end(s, inc);
    state_set_phase(s, inc, INCIDENT_ENDED);
}

static bool is_escalation(const struct record *r)
{
    return sv_eq(r->purpose, SV("escalate"));
}

/* A person has an act decided on once more, or a message sent once more. Who asked has seen an older state.
 */
static void apply_retry(struct state *s, const struct record *r)
{
    struct incident *inc = state_incident(s, r->incident);
    if (inc == NULL || !record_is_retried_anew(r) ||
        incident_refuses_retry(inc, r->intent, is_escalation(r)) != NULL)
        return;
    if (is_escalation(r)) {
        state_keep_untold(inc);
    } else if (r->step >= 1 && r->step <= (int64_t)inc->runbook->n_steps) {
        inc->step = r->step;
        state_set_phase(s, inc, INCIDENT_NEW);
    }
}

static void turn_clock(struct state *s, const struct clock_turn *turn)
{
    for (struct list *node = s->targets_list.next; node != &s->targets_list; node = node->next) {
        struct target *t = container_of(node, struct target, node);
        for (size_t i = 0; i < t->n_acts; i++) {
            t->acts[i].began_ns = clock_turn_apply(turn, t->acts[i].began_ns);
            if (t->acts[i].ended_ns != 0) t->acts[i].ended_ns = clock_turn_apply(turn, t->acts[i].ended_ns);
        }
    }
    for (struct list *node = s->incidents_list.next; node != &s->incidents_list; node = node->next) {
        struct incident *inc = container_of(node, struct incident, node);
        inc->phase_ns = clock_turn_apply(turn, inc->phase_ns);
        if (inc->deadline_ns != 0) inc->deadline_ns = clock_turn_ahead(turn, inc->deadline_ns);
    }
    for (struct list *node = s->slots_list.next; node != &s->slots_list; node = node->next) {
        struct runbook_slot *slot = container_of(node, struct runbook_slot, node);
        if (slot->scheduled_ns != 0) slot->scheduled_ns = clock_turn_apply(turn, slot->scheduled_ns);
    }
    state_timers_turn(s, turn);
    for (size_t i = 0; i < s->n_sources; i++)
        s->sources[i].last_ns = clock_turn_apply(turn, s->sources[i].last_ns);
    s->now_ns = turn->now_ns;
}

static void apply_input(struct state *s, uint64_t seq, const struct record *r)
{
    struct incident *inc;
    switch (r->kind) {
    case RECORD_SIGNAL:
        apply_signal(s, seq, r);
        break;
    case RECORD_EXPIRED:
        inc = state_incident(s, r->incident);
        if (inc != NULL && inc->alert == ALERT_FIRING) inc->alert = ALERT_EXPIRED;
        break;
    case RECORD_RUNBOOK:
        state_add_runbook(s, seq, r->runbook_hash, r->content);
        break;
    case RECORD_ACTIVATION:
        apply_activation(s, seq, r);
        break;
    case RECORD_EPOCH:
        if (r->epoch > s->epoch) s->epoch = r->epoch;
        s->epoch_seq = seq;
        break;
    case RECORD_FREEZE:
        s->is_frozen = r->on;
        s->frozen_ns = r->time_ns;
        s->frozen_seq = seq;
        break;
    case RECORD_CLOCK:
        s->is_clock_settling = r->on;
        break;
    case RECORD_FIRED:
        apply_fired(s, r);
        break;
    case RECORD_OUTCOME:
        apply_outcome(s, r);
        break;
    case RECORD_RETRY:
        apply_retry(s, r);
        break;
    case RECORD_CLOSE:
        inc = state_incident(s, r->incident);
        if (inc != NULL) inc->is_closing = true;
        break;
    case RECORD_TICK:
        state_apply_tick(s, seq, r);
        break;
    default: /* rejected, seen, call, note: nothing to decide on */
        break;
    }
}

/* ---- folding: what was decided ---- */

/* A journal is read as it is: a step that the runbook does not have was not decided by us, and is passed
 * over. One more than the last is the follow-up; a runbook without steps is refused at step 0. */
static bool has_step(const struct incident *inc, int64_t step)
{
    return step >= 1 && step <= (int64_t)inc->runbook->n_steps + 1 && inc->runbook->n_steps > 0;
}

static void apply_intent(struct state *s, uint64_t seq, struct incident *inc, const struct record *r)
{
    if (is_escalation(r)) { /* a message to a person: nothing else of the incident hangs on it */
        state_settle_untold(inc);
        return;
    }
    if (!has_step(inc, r->step)) return;
    state_drop_timer(s, inc);
    inc->step = r->step;
    inc->intent_seq = seq;
    inc->deadline_ns = r->deadline_ns;
    inc->outcome = OUTCOME_NONE;
    inc->hold_broken = false;
    inc->gate = NULL;
    (void)snprintf(inc->intent, sizeof(inc->intent), "%.*s", SV_ARG(r->intent));
    inc->slot->n_acts++;
    inc->slot->last_act_ns = r->time_ns;
    state_act_begin(s, inc, r->time_ns);
    state_set_phase(s, inc, INCIDENT_ACTING);
}

/* Which way a gate opens again decides what the incident waits for. */
enum incident_phase state_phase_after(struct strview gate, const char **ret_gate)
{
    static const struct {
        const char *gate;
        enum incident_phase phase;
    } ways[] = {
        {"freeze", INCIDENT_WAITING},    {"clock", INCIDENT_WAITING},
        {"in_flight", INCIDENT_WAITING}, {"in_flight_runbook", INCIDENT_WAITING},
        {"cooldown", INCIDENT_WAITING},  {"rate", INCIDENT_REFUSED},
        {"mode", INCIDENT_REFUSED},      {"target", INCIDENT_REFUSED},
        {"params", INCIDENT_REFUSED},
    };
    for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
        if (!sv_eq(gate, sv(ways[i].gate))) continue;
        *ret_gate = ways[i].gate;
        return ways[i].phase;
    }
    *ret_gate = "other";
    return INCIDENT_REFUSED;
}

static void apply_refusal(struct state *s, struct incident *inc, const struct record *r)
{
    if (is_escalation(r)) {
        if (sv_eq(r->gate, SV("freeze")))
            state_keep_untold(inc);
        else
            state_settle_untold(inc);
        return;
    }
    if (!has_step(inc, r->step) && (inc->runbook->n_steps > 0 || r->step != 0)) return;
    state_drop_timer(s, inc);
    inc->step = r->step;
    if (sv_eq(r->gate, SV("mode")) && sv_eq(r->mode, SV("shadow"))) inc->slot->n_shadowed++;
    state_set_phase(s, inc, state_phase_after(r->gate, &inc->gate));
}

/* What waits does so behind a step of its ladder; without a ladder nothing but a gate is waited for. */
static bool may_wait(const struct incident *inc, struct strview purpose)
{
    if (inc->runbook->n_steps == 0) return sv_eq(purpose, SV("recheck"));
    return has_step(inc, inc->step) && !incident_is_following_up(inc);
}

static void apply_timer(struct state *s, uint64_t seq, struct incident *inc, const struct record *r)
{
    if (inc == NULL) {
        if (r->incident.len == 0) (void)state_timer_add(s, seq, r);
        return;
    }
    if (!may_wait(inc, r->purpose)) return;
    state_drop_timer(s, inc);
    inc->timer = state_timer_add(s, seq, r);
    if (sv_eq(r->purpose, SV("verify"))) state_set_phase(s, inc, INCIDENT_VERIFYING);
    if (sv_eq(r->purpose, SV("hold"))) state_set_phase(s, inc, INCIDENT_HOLDING);
    if (sv_eq(r->purpose, SV("follow_up"))) state_set_phase(s, inc, INCIDENT_FOLLOWING);
    if (sv_eq(r->purpose, SV("recheck"))) state_set_phase(s, inc, INCIDENT_DELAYED);
}

static void apply_decided(struct state *s, uint64_t seq, const struct record *r)
{
    if (s->epoch == 0) s->epoch = r->epoch; /* the record of its epoch was removed by retention */
    if (r->epoch != s->epoch) {             /* of a decider that was relieved before it wrote this */
        s->n_void++;
        return;
    }
    struct incident *inc = state_incident(s, r->incident);
    if (r->kind == RECORD_TIMER) apply_timer(s, seq, inc, r);
    if (inc == NULL) return;
    if (r->kind == RECORD_INTENT) apply_intent(s, seq, inc, r);
    if (r->kind == RECORD_REFUSAL) apply_refusal(s, inc, r);
    if (r->kind == RECORD_ESCALATED) {
        state_drop_timer(s, inc);
        inc->is_escalated = true;
        state_note_escalation(inc, r->reason);
        state_set_phase(s, inc, INCIDENT_ESCALATED);
    }
    if (r->kind == RECORD_CLOSED) state_close_incident(s, inc, r);
}

void state_apply(struct state *s, uint64_t seq, const struct record *r)
{
    s->last_seq = seq;
    struct clock_turn turn;
    if (record_clock_turn(r, &turn))
        turn_clock(s, &turn);
    else if (r->time_ns > s->now_ns)
        s->now_ns = r->time_ns;
    if (r->cause != 0)
        apply_decided(s, seq, r);
    else
        apply_input(s, seq, r);
}
