/* The state in a snapshot: everything that a fold has and a later record may ask for, in the order of its
 * lists, so that what is loaded decides byte for byte what the original would have. Incidents are named by
 * the sequence that opened them, runbooks by their hash, gates by name. What can be counted is counted again.
 */
#include "functions/dispatcher/state_impl.h"

#include <stdlib.h>

#include "base/memory.h"

static void save_runbooks(const struct state *s, struct pack *p)
{
    pack_u64(p, s->n_runbooks);
    for (size_t i = 0; i < s->n_runbooks; i++) {
        pack_u64(p, s->runbook_items[i]->seq);
        pack_text(p, sv(s->runbook_items[i]->hash));
        pack_text(p, s->runbook_items[i]->content);
    }
    pack_u64(p, s->n_active);
    for (size_t i = 0; i < s->n_active; i++) {
        pack_text(p, sv(s->active[i].runbook->hash));
        pack_u64(p, s->active[i].mode);
        pack_u64(p, s->active[i].since_seq);
    }
}

/* Before the incidents: whoever loads them finds their slots, in this order. */
static void save_slots(const struct state *s, struct pack *p)
{
    size_t n = 0;
    for (const struct list *node = s->slots_list.next; node != &s->slots_list; node = node->next)
        n++;
    pack_u64(p, n);
    for (const struct list *node = s->slots_list.next; node != &s->slots_list; node = node->next) {
        const struct runbook_slot *slot = container_of(node, const struct runbook_slot, node);
        pack_text(p, slot->name);
        pack_u64(p, slot->n_acting);
        pack_u64(p, slot->n_acts);
        pack_u64(p, slot->n_shadowed);
        pack_i64(p, slot->last_act_ns);
        pack_i64(p, slot->scheduled_ns);
        pack_u64(p, slot->n_ticks);
        for (size_t i = 0; i < slot->n_ticks; i++) {
            pack_i64(p, slot->ticks[i].first_ns);
            pack_i64(p, slot->ticks[i].last_ns);
        }
    }
}

static void save_labels(const struct record_labels *labels, struct pack *p)
{
    pack_u64(p, labels->n);
    for (size_t i = 0; i < labels->n; i++) {
        pack_text(p, labels->items[i].name);
        pack_text(p, labels->items[i].value);
    }
}

static void save_timer(const struct timer *t, struct pack *p)
{
    pack_u64(p, t->seq);
    pack_i64(p, t->set_ns);
    pack_i64(p, t->due_ns);
    pack_text(p, t->incident);
    pack_text(p, t->purpose);
    pack_text(p, t->runbook);
}

static void save_incident(const struct incident *inc, struct pack *p)
{
    const struct strview texts[] = {inc->id,      inc->fingerprint, inc->tenant,
                                    inc->cluster, inc->target_name, inc->target_missing};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        pack_text(p, texts[i]);
    save_labels(&inc->labels, p);
    save_labels(&inc->annotations, p);
    pack_text(p, sv(inc->runbook->hash));
    pack_u64(p, inc->seq);
    pack_u64(p, inc->needs_seq);
    pack_i64(p, inc->opened_ns);
    pack_u64(p, inc->phase);
    pack_i64(p, inc->phase_ns);
    pack_u64(p, inc->alert);
    pack_i64(p, inc->step);
    pack_text(p, sv(inc->intent));
    pack_u64(p, inc->intent_seq);
    pack_i64(p, inc->deadline_ns);
    pack_u64(p, inc->outcome);
    pack_bool(p, inc->hold_broken);
    pack_bool(p, inc->is_escalated);
    pack_bool(p, inc->is_closing);
    pack_bool(p, inc->escalation_reason.ptr != NULL);
    pack_text(p, inc->escalation_reason);
    pack_text(p, inc->gate != NULL ? sv(inc->gate) : SV(""));
    pack_bool(p, inc->timer != NULL);
    if (inc->timer != NULL) save_timer(inc->timer, p);
}

static void save_incidents(const struct state *s, struct pack *p)
{
    pack_u64(p, s->n_incidents);
    for (const struct list *node = s->incidents_list.next; node != &s->incidents_list; node = node->next)
        save_incident(container_of(node, const struct incident, node), p);
}

static void save_targets(const struct state *s, struct pack *p)
{
    pack_u64(p, s->n_targets);
    for (const struct list *node = s->targets_list.next; node != &s->targets_list; node = node->next) {
        const struct target *t = container_of(node, const struct target, node);
        pack_text(p, t->name);
        pack_u64(p, t->n_acts);
        for (size_t i = 0; i < t->n_acts; i++) {
            pack_u64(p, t->acts[i].incident_seq);
            pack_i64(p, t->acts[i].began_ns);
            pack_i64(p, t->acts[i].ended_ns);
        }
        pack_u64(p, t->n_busy);
        pack_u64(p, t->n_incidents);
        for (const struct list *at = t->incidents.next; at != &t->incidents; at = at->next)
            pack_u64(p, container_of(at, const struct incident, on_target)->seq);
    }
}

static void save_slot_list(const struct list *incidents, struct pack *p)
{
    size_t n = 0;
    for (const struct list *at = incidents->next; at != incidents; at = at->next)
        n++;
    pack_u64(p, n);
    for (const struct list *at = incidents->next; at != incidents; at = at->next)
        pack_u64(p, container_of(at, const struct incident, in_slot)->seq);
}

static void save_slot_lists(const struct state *s, struct pack *p)
{
    for (const struct list *node = s->slots_list.next; node != &s->slots_list; node = node->next) {
        const struct runbook_slot *slot = container_of(node, const struct runbook_slot, node);
        save_slot_list(&slot->waiting, p);
        save_slot_list(&slot->untold, p);
    }
}

/* Those of an incident are saved with it. */
static bool is_free_timer(const struct state *s, const struct timer *t)
{
    const struct incident *inc = t->incident.len > 0 ? state_incident(s, t->incident) : NULL;
    return inc == NULL || inc->timer != t;
}

static int by_seq(const void *a, const void *b)
{
    const struct timer *x = *(struct timer *const *)a, *y = *(struct timer *const *)b;
    return (x->seq > y->seq) - (x->seq < y->seq);
}

/* Sorted: the heap's order depends on what has been in it. */
static void save_free_timers(const struct state *s, struct pack *p)
{
    struct timer **timers = mem_zalloc(s->n_timers + 1, sizeof(struct timer *));
    size_t n = 0;
    for (size_t i = 0; i < s->n_timers; i++)
        if (is_free_timer(s, s->timers[i])) timers[n++] = s->timers[i];
    qsort(timers, n, sizeof(struct timer *), by_seq);
    pack_u64(p, n);
    for (size_t i = 0; i < n; i++)
        save_timer(timers[i], p);
    free(timers);
}

static void save_closed(const struct state *s, struct pack *p)
{
    size_t n = s->n_closed < CLOSED_MAX ? (size_t)s->n_closed : CLOSED_MAX;
    pack_u64(p, s->n_closed);
    pack_u64(p, n);
    for (uint64_t i = s->n_closed - n; i < s->n_closed; i++) {
        const struct closed_incident *c = &s->closed[i % CLOSED_MAX];
        const struct strview texts[] = {c->id, c->alertname, c->runbook, c->target, c->state};
        for (size_t k = 0; k < ARRAY_LEN(texts); k++)
            pack_text(p, texts[k]);
        pack_u64(p, c->seq);
        pack_i64(p, c->opened_ns);
        pack_i64(p, c->closed_ns);
    }
}

static void save_dismissed(const struct state *s, struct pack *p)
{
    pack_u64(p, s->n_dismissed);
    for (const struct list *node = s->dismissed_list.next; node != &s->dismissed_list; node = node->next)
        pack_text(p, container_of(node, const struct dismissed, node)->incident);
}

static void save_sources(const struct state *s, struct pack *p)
{
    pack_u64(p, s->n_sources);
    for (size_t i = 0; i < s->n_sources; i++) {
        pack_text(p, s->sources[i].name);
        pack_i64(p, s->sources[i].last_ns);
        pack_u64(p, s->sources[i].n);
    }
}

void state_save(const struct state *s, struct pack *p)
{
    pack_u64(p, s->last_seq);
    pack_u64(p, s->epoch);
    pack_u64(p, s->epoch_seq);
    pack_u64(p, s->activation_seq);
    pack_u64(p, s->frozen_seq);
    pack_i64(p, s->now_ns);
    pack_bool(p, s->is_frozen);
    pack_bool(p, s->is_clock_settling);
    pack_i64(p, s->frozen_ns);
    pack_u64(p, s->n_unmatched);
    pack_u64(p, s->n_void);
    pack_u64(p, s->n_limit_hits);
    save_runbooks(s, p);
    save_slots(s, p);
    save_incidents(s, p);
    save_targets(s, p);
    save_slot_lists(s, p);
    save_free_timers(s, p);
    save_closed(s, p);
    save_dismissed(s, p);
    save_sources(s, p);
}
