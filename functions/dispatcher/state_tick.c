#include "functions/dispatcher/state_impl.h"

#include <string.h>

/* ---- what has come ---- */

const struct tick_run *slot_tick_run(const struct runbook_slot *slot, int64_t due_ns)
{
    for (size_t i = 0; i < slot->n_ticks; i++)
        if (slot->ticks[i].first_ns <= due_ns && due_ns <= slot->ticks[i].last_ns) return &slot->ticks[i];
    return NULL;
}

/* Runs that lie ahead (the clock was set back) do not count, but for their part that is past. */
int64_t slot_ticked_until(const struct runbook_slot *slot, int64_t now_ns)
{
    int64_t until_ns = slot->scheduled_ns;
    for (size_t i = 0; i < slot->n_ticks; i++) {
        const struct tick_run *run = &slot->ticks[i];
        int64_t past_ns = run->last_ns < now_ns ? run->last_ns : now_ns;
        if (run->first_ns <= now_ns && past_ns > until_ns) until_ns = past_ns;
    }
    return until_ns;
}

/* The two oldest become one: what lay between them was passed over long ago. */
static void join_oldest(struct runbook_slot *slot)
{
    slot->ticks[1].first_ns = slot->ticks[0].first_ns;
    memmove(&slot->ticks[0], &slot->ticks[1], (slot->n_ticks - 1) * sizeof(slot->ticks[0]));
    slot->n_ticks--;
}

static void add_run(struct runbook_slot *slot, int64_t due_ns)
{
    if (slot->n_ticks == TICK_RUNS_MAX) join_oldest(slot);
    size_t at = slot->n_ticks;
    for (; at > 0 && slot->ticks[at - 1].first_ns > due_ns; at--)
        slot->ticks[at] = slot->ticks[at - 1];
    slot->ticks[at] = (struct tick_run){due_ns, due_ns};
    slot->n_ticks++;
}

static void note_tick(struct runbook_slot *slot, int64_t due_ns, int64_t before_ns)
{
    for (size_t i = 0; i < slot->n_ticks; i++) {
        if (slot->ticks[i].last_ns != before_ns) continue;
        slot->ticks[i].last_ns = due_ns;
        return;
    }
    add_run(slot, due_ns);
}

static int64_t before_of(const struct record *r)
{
    json_t *detail = NULL;
    int64_t before_ns = 0;
    if (r->detail.len > 0 && json_parse(r->detail, 0, &detail, NULL) == STATUS_OK)
        before_ns = json_integer_value(json_object_get(detail, "beforeNs"));
    json_release(detail);
    return before_ns;
}

/* ---- folding ---- */

void state_apply_tick(struct state *s, uint64_t seq, const struct record *r)
{
    struct runbook_slot *slot = table_get(&s->slots, r->runbook);
    if (slot == NULL || r->due_ns == 0 || slot_tick_run(slot, r->due_ns) != NULL) return;
    note_tick(slot, r->due_ns, before_of(r));
    const struct active_runbook *active = state_active(s, r->runbook);
    if (active == NULL || active->mode == RUNBOOK_OFF || !runbook_is_scheduled(active->runbook)) return;
    if (!sv_eq(sv(active->runbook->hash), r->runbook_hash) || state_incident(s, r->incident) != NULL) return;
    if (!state_is_full(s, r)) state_open_incident(s, seq, r, active->runbook);
}

static const struct active_runbook *find(const struct active_runbook *set, size_t n, struct strview name)
{
    for (size_t i = 0; i < n; i++)
        if (sv_eq(set[i].runbook->name, name)) return &set[i];
    return NULL;
}

static bool is_in_force(const struct active_runbook *active)
{
    return active != NULL && active->mode != RUNBOOK_OFF && runbook_is_scheduled(active->runbook);
}

static bool is_same_schedule(const struct runbook *a, const struct runbook *b)
{
    return sv_eq(a->schedule.text, b->schedule.text) && sv_eq(a->schedule.time_zone, b->schedule.time_zone);
}

/* A schedule that is new, or another one than before, or was off, missed nothing before now. */
void state_schedules_changed(struct state *s, const struct active_runbook *before, size_t n_before)
{
    for (struct list *node = s->slots_list.next; node != &s->slots_list; node = node->next) {
        struct runbook_slot *slot = container_of(node, struct runbook_slot, node);
        if (!is_in_force(state_active(s, slot->name))) slot->scheduled_ns = 0;
    }
    for (size_t i = 0; i < s->n_active; i++) {
        const struct runbook *rb = s->active[i].runbook;
        const struct active_runbook *old = find(before, n_before, rb->name);
        if (!is_in_force(&s->active[i])) continue;
        struct runbook_slot *slot = state_slot_get(s, rb->name);
        bool goes_on = slot->scheduled_ns != 0 && is_in_force(old) && is_same_schedule(old->runbook, rb);
        if (!goes_on) slot->scheduled_ns = s->now_ns;
    }
}
