#include "functions/dispatcher/preview.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "functions/dispatcher/decide.h"

/* What is there for an alert already. */
struct known {
    struct strview incident, runbook, target; /* in the preview's arena */
    const char *phase;                        /* of an open one; NULL: none is open */
};

struct preview {
    struct state *copy;
    const struct record *signals;
    size_t n, at;
    struct known *known; /* one a signal */
    struct table by_fingerprint;
    struct arena arena, step; /* of the whole; of one alert */
    int64_t now_ns;
};

/* ---- what is known ---- */

static void note_open(struct preview *p, const struct incident *inc)
{
    struct known *k = table_get(&p->by_fingerprint, inc->fingerprint);
    if (k == NULL || inc->alert != ALERT_FIRING) return;
    k->incident = arena_copy(&p->arena, inc->id);
    k->runbook = arena_copy(&p->arena, inc->runbook->name);
    k->target = arena_copy(&p->arena, inc->target_name);
    k->phase = incident_phase_name(inc->phase);
}

/* One walk over what is open instead of one an alert. */
static void find_open(struct preview *p, const struct state *state)
{
    for (size_t i = 0; i < p->n; i++)
        if (p->signals[i].fingerprint.len > 0 &&
            table_get(&p->by_fingerprint, p->signals[i].fingerprint) == NULL)
            table_put(&p->by_fingerprint, p->signals[i].fingerprint, &p->known[i]);
    for (struct list *node = state->incidents_list.next; node != &state->incidents_list; node = node->next)
        note_open(p, container_of(node, struct incident, node));
}

static const struct closed_incident *find_closed(const struct state *state, struct strview id)
{
    for (size_t i = 0; i < CLOSED_MAX; i++)
        if (state->closed[i].text != NULL && sv_eq(state->closed[i].id, id)) return &state->closed[i];
    return NULL;
}

struct preview *preview_new(const struct state *state, const struct record *signals, size_t n, int64_t now_ns,
                            bool is_braked)
{
    struct preview *p = mem_zalloc(1, sizeof(*p));
    p->copy = state_copy(state);
    p->copy->is_frozen |= is_braked;
    p->signals = signals;
    p->n = n;
    p->now_ns = now_ns > state->now_ns ? now_ns : state->now_ns;
    p->known = arena_array(&p->arena, n, sizeof(*p->known));
    find_open(p, state);
    return p;
}

void preview_free(struct preview *p)
{
    if (p == NULL) return;
    state_free(p->copy);
    table_release(&p->by_fingerprint);
    arena_release(&p->arena);
    arena_release(&p->step);
    free(p);
}

/* ---- one alert ---- */

static void set(json_t *o, const char *key, struct strview value)
{
    if (value.len > 0) (void)json_object_set_new(o, key, json_text(value));
}

static void set_parsed(json_t *o, const char *key, struct strview json)
{
    json_t *value = NULL;
    if (json.len > 0 && json_parse(json, 0, &value, NULL) == STATUS_OK)
        (void)json_object_set_new(o, key, value);
}

static void set_refusals(json_t *o)
{
    json_t *names = json_array(), *gate;
    size_t i;
    json_array_foreach(json_object_get(o, "gates"), i, gate) if (!json_is_true(json_object_get(gate, "ok")))(
        void) json_array_append(names, json_object_get(gate, "gate"));
    (void)json_object_set_new(o, "refusals", names);
}

static void add_other(json_t *o, const struct record *r)
{
    json_t *others = json_object_get(o, "others"), *other = json_object();
    if (others == NULL) {
        others = json_array();
        (void)json_object_set_new(o, "others", others);
    }
    set(other, "incident", r->incident);
    set(other, "kind", sv(record_kind_name(r->kind)));
    set(other, "function", r->function);
    (void)json_array_append_new(others, other);
}

static void set_escalation(json_t *o, const struct record *r)
{
    json_t *escalation = json_object();
    set(escalation, "function", r->function);
    set(escalation, "reason", r->reason);
    set_parsed(escalation, "params", r->params);
    json_t *before = json_object_get(o, "escalation");
    if (before != NULL) /* the record ESCALATED has the reason, the intent behind it what is said */
        (void)json_object_update(before, escalation);
    else
        (void)json_object_set(o, "escalation", escalation);
    json_decref(escalation);
}

static void set_decision(json_t *o, const struct record *r)
{
    bool is_intent = r->kind == RECORD_INTENT;
    bool is_shadow = !is_intent && sv_eq(r->gate, SV("mode")) && sv_eq(r->mode, SV("shadow"));
    set(o, "result", is_intent ? SV("act") : is_shadow ? SV("shadow") : SV("refused"));
    if (r->step > 0) (void)json_object_set_new(o, "step", json_integer(r->step));
    set(o, "function", r->function);
    set_parsed(o, "params", r->params);
    set_parsed(o, "gates", r->gates);
    set(o, "gate", r->gate);
    set(o, "reason", r->reason);
    set_refusals(o);
}

static void set_record(json_t *o, struct strview incident, const struct record *r)
{
    bool is_decision = r->kind == RECORD_INTENT || r->kind == RECORD_REFUSAL;
    if (!sv_eq(r->incident, incident)) {
        if (r->incident.len > 0 && r->kind != RECORD_TIMER) add_other(o, r);
    } else if (r->kind == RECORD_ESCALATED || (is_decision && sv_eq(r->purpose, SV("escalate")))) {
        set_escalation(o, r);
    } else if (is_decision) {
        set_decision(o, r);
    }
}

static struct strview after_act(struct preview *p, const struct incident *inc)
{
    const struct runbook_step *step = &inc->runbook->steps[inc->step - 1];
    char within[DURATION_TEXT_MAX];
    if (step->verify == VERIFY_CHECK) return SV("the bot's own check verifies the act");
    return arena_printf(&p->step, "the alert must resolve within %s of the act",
                        duration_format(step->within_ns, within));
}

static struct strview after_refusal(struct preview *p, const struct incident *inc)
{
    static const struct {
        const char *gate, *then;
    } events[] = {
        {"freeze", "decided on again after balm resume"},
        {"clock", "decided on again once the clock has settled"},
        {"in_flight", "decided on again when the other act on this target is over and verified"},
        {"in_flight_runbook", "decided on again after the next outcome of this runbook"},
    };
    if (inc->phase == INCIDENT_ESCALATED) return SV("it waits for a person until the alert ends");
    if (inc->phase == INCIDENT_DELAYED && inc->timer != NULL) {
        char at[RFC3339_LEN + 1];
        rfc3339_format(inc->timer->due_ns, at);
        return arena_printf(&p->step, "decided on again at %s", at);
    }
    for (size_t i = 0; inc->phase == INCIDENT_WAITING && i < ARRAY_LEN(events); i++)
        if (inc->gate != NULL && strcmp(inc->gate, events[i].gate) == 0) return sv(events[i].then);
    if (inc->phase == INCIDENT_WAITING) return SV("decided on again when the cooldown is over");
    return SV("nothing until the alert ends and comes again");
}

static void set_next(struct preview *p, json_t *o, struct strview incident)
{
    const struct incident *inc = state_incident(p->copy, incident);
    if (inc == NULL) {
        set(o, "next", SV("nothing until the alert ends and comes again"));
        return;
    }
    set(o, "target", inc->target_name);
    set(o, "next", inc->phase == INCIDENT_ACTING ? after_act(p, inc) : after_refusal(p, inc));
}

static void set_runbook(struct preview *p, json_t *o, const struct runbook *rb)
{
    (void)json_object_set_new(o, "runbook",
                              json_pack("{s:s, s:s, s:o}", "hash", rb->hash, "mode",
                                        runbook_mode_name(state_mode(p->copy, rb->name)), "name",
                                        json_text(rb->name)));
}

/* The one place where something is decided: what the follower and the decider do with a new signal. */
static void try_out(struct preview *p, const struct state *state, const struct record *signal, json_t *o)
{
    struct record *out;
    size_t n;
    const struct runbook *rb = state_match(p->copy, &signal->labels, NULL);
    if (rb == NULL) {
        set(o, "result", SV("no_runbook"));
        set(o, "next", SV("nothing: no runbook takes it"));
        return;
    }
    set_runbook(p, o, rb);
    state_copy_target(p->copy, state, signal);
    uint64_t seq = p->copy->last_seq + 1;
    state_apply(p->copy, seq, signal);
    decide(p->copy, seq, signal, &p->step, &out, &n);
    for (size_t i = 0; i < n; i++) {
        set_record(o, signal->incident, &out[i]);
        state_apply(p->copy, seq + 1 + i, &out[i]);
    }
    if (json_object_get(o, "result") == NULL) set(o, "result", SV("tell"));
    set_next(p, o, signal->incident);
}

static void set_known(json_t *o, const struct known *k)
{
    set(o, "incident", k->incident);
    set(o, "phase", sv(k->phase));
    set(o, "target", k->target);
    (void)json_object_set_new(o, "runbook", json_pack("{s:o}", "name", json_text(k->runbook)));
}

/* A firing alert that leads to nothing new, because there is or was an incident for it. */
static bool is_known(const struct preview *p, const struct state *state, struct strview incident,
                     const struct known *k, json_t *o)
{
    const struct closed_incident *closed = find_closed(state, incident);
    bool is_tried = state_incident(p->copy, incident) != NULL;
    if (k->phase == NULL && closed == NULL && !is_tried) return false;
    set(o, "result", closed != NULL && k->phase == NULL ? SV("closed") : SV("open"));
    if (k->phase != NULL) {
        set(o, "next", SV("nothing new: it is the same alert (balm why)"));
    } else if (is_tried) {
        set(o, "next", SV("nothing new: it is in this message already"));
    } else {
        set(o, "incident", closed->id);
        set(o, "phase", closed->state);
        set(o, "next", SV("nothing new until it ends and comes again (balm why)"));
    }
    return true;
}

static void describe(struct preview *p, const struct state *state, const struct record *from,
                     const struct known *k, json_t *o)
{
    char id[64];
    struct record signal = *from;
    signal.time_ns = p->now_ns;
    if (signal.incident.len == 0) { /* ${incident} needs one */
        (void)snprintf(id, sizeof(id), "preview-%zu", p->at);
        signal.incident = sv(id);
    }
    if (k->phase != NULL) set_known(o, k);
    if (!sv_eq(from->status, SV("firing"))) {
        set(o, "result", SV("resolved"));
        set(o, "next",
            k->phase != NULL ? SV("its incident is verified by it, or closed")
                             : SV("nothing: no incident of it is open"));
    } else if (!is_known(p, state, signal.incident, k, o)) {
        try_out(p, state, &signal, o);
    }
}

json_t *preview_next(struct preview *p, const struct state *state)
{
    if (p->at == p->n) return NULL;
    const struct record *signal = &p->signals[p->at];
    const struct known *first = table_get(&p->by_fingerprint, signal->fingerprint);
    json_t *o = json_object();
    set(o, "alert", record_label(&signal->labels, SV("alertname")));
    set(o, "fingerprint", signal->fingerprint);
    set(o, "status", signal->status);
    describe(p, state, signal, first != NULL ? first : &p->known[p->at], o);
    p->at++;
    arena_reset(&p->step);
    return o;
}

/* ---- without a platform ---- */

struct state *preview_state_of(const struct runbook_set *set)
{
    struct state *s = state_new();
    struct arena arena = {0};
    uint64_t seq = 0;
    state_apply(s, ++seq, &(struct record){.kind = RECORD_EPOCH, .epoch = 1});
    for (size_t i = 0; i < set->n; i++) {
        const struct runbook *rb = set->items[i];
        state_apply(s, ++seq,
                    &(struct record){.kind = RECORD_RUNBOOK,
                                     .runbook = rb->name,
                                     .runbook_hash = sv(rb->hash),
                                     .content = rb->content});
    }
    state_apply(s, ++seq,
                &(struct record){.kind = RECORD_ACTIVATION, .runbooks = runbook_set_json(set, &arena)});
    arena_release(&arena);
    return s;
}
