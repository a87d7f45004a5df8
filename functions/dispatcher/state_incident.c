#include "functions/dispatcher/state_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "functions/dispatcher/template.h"

#define GRACE_NS (120 * NS_PER_S) /* what is awaited may come so much later than it should */

/* ---- one block an incident: the struct, then its label arrays, then its texts ---- */

struct packer {
    char *at;
};

static size_t labels_bytes(const struct record_labels *labels)
{
    size_t n = labels->n * sizeof(struct http_header);
    for (size_t i = 0; i < labels->n; i++)
        n += labels->items[i].name.len + labels->items[i].value.len;
    return n;
}

static struct strview pack(struct packer *p, struct strview s)
{
    char *at = p->at;
    if (s.len > 0) memcpy(at, s.ptr, s.len);
    p->at += s.len;
    return sv_n(at, s.len);
}

static struct record_labels pack_labels(struct packer *p, struct http_header *items,
                                        const struct record_labels *from)
{
    for (size_t i = 0; i < from->n; i++)
        items[i] = (struct http_header){pack(p, from->items[i].name), pack(p, from->items[i].value)};
    return (struct record_labels){items, from->n};
}

struct incident *state_incident_new(const struct record *r, struct strview target, struct strview missing)
{
    const struct strview texts[] = {r->incident, r->fingerprint, r->tenant, r->cluster, target, missing};
    size_t bytes = sizeof(struct incident) + labels_bytes(&r->labels) + labels_bytes(&r->annotations);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        bytes += texts[i].len;
    struct incident *inc = mem_zalloc(1, bytes);
    struct http_header *items = (struct http_header *)(void *)(inc + 1);
    struct packer p = {(char *)(items + r->labels.n + r->annotations.n)};
    inc->bytes = bytes;
    inc->labels = pack_labels(&p, items, &r->labels);
    inc->annotations = pack_labels(&p, items + r->labels.n, &r->annotations);
    struct strview *members[] = {&inc->id,      &inc->fingerprint, &inc->tenant,
                                 &inc->cluster, &inc->target_name, &inc->target_missing};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        *members[i] = pack(&p, texts[i]);
    inc->alertname = record_label(&inc->labels, SV("alertname"));
    return inc;
}

/* ---- targets ---- */

void state_free_target(struct target *t)
{
    free(t->acts);
    free(t);
}

static bool is_past(const struct state *s, const struct target *t, size_t i)
{
    int64_t ended_ns = t->acts[i].ended_ns;
    if (ended_ns == 0) return false;
    int64_t kept_ns = t->n_acts - i > ACTS_KEPT ? s->acts_window_ns : RUNBOOK_PERIOD_MAX_NS;
    return ended_ns < s->now_ns - kept_ns;
}

static void forget_old_acts(const struct state *s, struct target *t)
{
    size_t old = 0;
    while (old < t->n_acts && is_past(s, t, old))
        old++;
    if (old == 0) return;
    t->n_acts -= old;
    memmove(t->acts, t->acts + old, t->n_acts * sizeof(*t->acts));
}

static void forget_target_if_idle(struct state *s, struct target *t)
{
    forget_old_acts(s, t);
    if (t->n_incidents > 0 || t->n_acts > 0) return;
    (void)table_remove(&s->targets, t->name);
    list_remove(&t->node);
    s->n_targets--;
    state_free_target(t);
}

struct target *state_target_get(struct state *s, struct strview name)
{
    struct target *t = table_get(&s->targets, name);
    if (t != NULL) return t;
    t = mem_zalloc(1, sizeof(*t) + name.len);
    memcpy(t + 1, name.ptr, name.len);
    t->name = sv_n((char *)(t + 1), name.len);
    list_init(&t->incidents);
    list_push_back(&s->targets_list, &t->node);
    table_put(&s->targets, t->name, t);
    s->n_targets++;
    return t;
}

/* Every few new targets look at the oldest ones: a few steps each time instead of one long sweep. */
static void sweep_targets(struct state *s)
{
    for (int i = 0; i < 4; i++) {
        struct list *node = list_pop_front(&s->targets_list);
        if (node == NULL) return;
        list_push_back(&s->targets_list, node);
        forget_target_if_idle(s, container_of(node, struct target, node));
    }
}

void state_act_begin(struct state *s, struct incident *inc, int64_t began_ns)
{
    struct target *t = inc->target;
    if (t == NULL) return;
    forget_old_acts(s, t);
    if (t->n_acts == t->acts_capacity) {
        t->acts_capacity = t->acts_capacity ? 2 * t->acts_capacity : 4;
        t->acts = mem_realloc(t->acts, t->acts_capacity * sizeof(*t->acts));
    }
    t->acts[t->n_acts++] = (struct act){.incident_seq = inc->seq, .began_ns = began_ns};
}

void state_act_end(struct state *s, struct incident *inc)
{
    struct target *t = inc->target;
    for (size_t i = t == NULL ? 0 : t->n_acts; i > 0; i--) {
        struct act *a = &t->acts[i - 1];
        if (a->incident_seq != inc->seq || a->ended_ns != 0) continue;
        a->ended_ns = s->now_ns;
        return;
    }
}

/* ---- phases ---- */

bool incident_is_busy(const struct incident *inc)
{
    return inc->phase == INCIDENT_ACTING || inc->phase == INCIDENT_ENDED ||
           inc->phase == INCIDENT_VERIFYING || inc->phase == INCIDENT_HOLDING;
}

bool incident_is_at_front(const struct incident *inc)
{
    return incident_is_busy(inc) || inc->phase == INCIDENT_DELAYED || inc->phase == INCIDENT_FOLLOWING;
}

bool incident_is_following_up(const struct incident *inc)
{
    return inc->runbook->n_steps > 0 && inc->step > (int64_t)inc->runbook->n_steps;
}

static void leave_phase(struct state *s, struct incident *inc)
{
    s->n_phase[inc->phase]--;
    if (incident_is_busy(inc) && inc->target != NULL) inc->target->n_busy--;
    if (inc->phase == INCIDENT_ACTING) inc->slot->n_acting--;
    list_remove(&inc->in_slot);
}

static void enter_phase(struct state *s, struct incident *inc, enum incident_phase phase)
{
    inc->phase = phase;
    inc->phase_ns = s->now_ns;
    s->n_phase[phase]++;
    if (phase == INCIDENT_ACTING) inc->slot->n_acting++;
    if (phase == INCIDENT_WAITING) list_push_back(&inc->slot->waiting, &inc->in_slot);
    if (incident_is_busy(inc) && inc->target != NULL) inc->target->n_busy++;
}

static int rank_on_target(const struct incident *inc)
{
    return incident_is_busy(inc) ? 0 : incident_is_at_front(inc) ? 1 : 2;
}

/* Busy ones first, then those with a timer: both are few, and who looks for them stops early. */
static void move_on_target(struct incident *inc, int rank)
{
    struct list *head = &inc->target->incidents, *before = head;
    list_remove(&inc->on_target);
    if (rank == 2) {
        list_push_back(head, &inc->on_target);
        return;
    }
    while (rank == 1 && before->next != head &&
           incident_is_busy(container_of(before->next, struct incident, on_target)))
        before = before->next;
    list_push_front(before, &inc->on_target);
}

void state_set_phase(struct state *s, struct incident *inc, enum incident_phase phase)
{
    if (phase == inc->phase) return;
    int rank = rank_on_target(inc);
    leave_phase(s, inc);
    enter_phase(s, inc, phase);
    if (inc->target != NULL && rank_on_target(inc) != rank) move_on_target(inc, rank_on_target(inc));
}

const char *incident_refuses_retry(const struct incident *inc, struct strview intent, bool is_escalation)
{
    if (inc->is_closing) return "a person has closed its incident";
    if (inc->alert != ALERT_FIRING) return "its alert is over";
    if (is_escalation)
        return inc->phase == INCIDENT_ESCALATED ? NULL : "its incident has moved on: no person is needed now";
    if (!sv_eq(intent, sv(inc->intent))) return "its incident has gone on to another act since";
    if (inc->phase == INCIDENT_ESCALATED || inc->phase == INCIDENT_REFUSED) return NULL;
    return "its incident is being decided on anyway";
}

bool incident_is_overdue(const struct incident *inc, int64_t now_ns)
{
    return inc->phase == INCIDENT_ACTING && now_ns > inc->deadline_ns + GRACE_NS;
}

/* What has a deadline or a timer gets a little longer than that, what is decided at once a minute; who waits
 * for others waits as long as they take, but a day is no wait any more. */
bool incident_is_stuck(const struct state *s, const struct incident *inc, int64_t now_ns)
{
    const int64_t day_ns = 86400 * NS_PER_S;
    if (s->is_frozen || s->is_clock_settling) return false;
    switch (inc->phase) {
    case INCIDENT_NEW:
    case INCIDENT_ENDED:
        return now_ns > inc->phase_ns + GRACE_NS;
    case INCIDENT_ACTING:
        return incident_is_overdue(inc, now_ns);
    case INCIDENT_VERIFYING:
    case INCIDENT_HOLDING:
    case INCIDENT_FOLLOWING:
    case INCIDENT_DELAYED:
        return inc->timer != NULL && now_ns > inc->timer->due_ns + GRACE_NS;
    case INCIDENT_WAITING:
        return now_ns > inc->phase_ns + day_ns;
    default: /* refused, escalated: until the alert ends */
        return false;
    }
}

void state_drop_timer(struct state *s, struct incident *inc)
{
    if (inc->timer != NULL) state_timer_remove(s, inc->timer);
    inc->timer = NULL;
}

void state_note_escalation(struct incident *inc, struct strview reason)
{
    char *copy = mem_alloc(reason.len + 1);
    if (reason.len > 0) memcpy(copy, reason.ptr, reason.len);
    free((char *)(uintptr_t)inc->escalation_reason.ptr);
    inc->escalation_reason = sv_n(copy, reason.len);
}

void state_settle_untold(struct incident *inc)
{
    list_remove(&inc->in_slot);
}

void state_keep_untold(struct incident *inc)
{
    list_remove(&inc->in_slot);
    list_push_back(&inc->slot->untold, &inc->in_slot);
}

/* ---- opening and closing ---- */

struct runbook_slot *state_slot_get(struct state *s, struct strview name)
{
    struct runbook_slot *slot = table_get(&s->slots, name);
    if (slot != NULL) return slot;
    slot = mem_zalloc(1, sizeof(*slot) + name.len);
    memcpy(slot + 1, name.ptr, name.len);
    slot->name = sv_n((char *)(slot + 1), name.len);
    list_init(&slot->waiting);
    list_init(&slot->untold);
    list_push_back(&s->slots_list, &slot->node);
    table_put(&s->slots, slot->name, slot);
    return slot;
}

/* The target's text, or empty with the variable that was missing. Control characters make no target: it is
 * shown to people and compared byte for byte. */
static struct strview make_target(const struct record *r, const struct runbook *rb, struct arena *a,
                                  struct strview *ret_missing)
{
    struct template_vars vars = {
        .labels = &r->labels, .annotations = &r->annotations, .incident = r->incident};
    struct strview name = {0};
    *ret_missing = (struct strview){0};
    enum status st = template_expand(rb->target, &vars, a, &name, ret_missing);
    if (st == STATUS_NOT_FOUND) return (struct strview){0};
    if (st != STATUS_OK || name.len > TARGET_MAX) {
        *ret_missing = SV("too long");
        return (struct strview){0};
    }
    for (size_t i = 0; i < name.len; i++) {
        if ((unsigned char)name.ptr[i] >= 0x20 && name.ptr[i] != 0x7F) continue;
        *ret_missing = SV("control character");
        return (struct strview){0};
    }
    return name;
}

/* A hold is broken, and a follow-up made idle, by a new alert of the same name on the same target. */
static void break_holds(const struct target *t, const struct incident *newcomer)
{
    for (struct list *node = t->incidents.next; node != &t->incidents; node = node->next) {
        struct incident *inc = container_of(node, struct incident, on_target);
        if (!incident_is_at_front(inc)) return;
        bool is_watched = inc->phase == INCIDENT_HOLDING || inc->phase == INCIDENT_FOLLOWING;
        if (is_watched && sv_eq(inc->alertname, newcomer->alertname)) inc->hold_broken = true;
    }
}

void state_open_incident(struct state *s, uint64_t seq, const struct record *r, const struct runbook *rb)
{
    struct arena arena = {0};
    struct strview missing, target = make_target(r, rb, &arena, &missing);
    struct incident *inc = state_incident_new(r, target, missing);
    arena_release(&arena);
    inc->seq = inc->needs_seq = seq;
    const uint64_t before[] = {rb->seq, s->activation_seq, s->epoch_seq};
    for (size_t i = 0; i < ARRAY_LEN(before); i++)
        if (before[i] < inc->needs_seq) inc->needs_seq = before[i];
    inc->opened_ns = r->time_ns;
    inc->phase_ns = s->now_ns;
    inc->runbook = rb;
    inc->slot = state_slot_get(s, rb->name);
    if (inc->target_name.len > 0) {
        sweep_targets(s);
        inc->target = state_target_get(s, inc->target_name);
        break_holds(inc->target, inc);
        list_push_back(&inc->target->incidents, &inc->on_target);
        inc->target->n_incidents++;
    }
    list_push_back(&s->incidents_list, &inc->node);
    table_put(&s->incidents, inc->id, inc);
    s->n_incidents++;
    s->incident_bytes += inc->bytes;
    s->n_phase[INCIDENT_NEW]++;
}

static void remember_closed(struct state *s, const struct incident *inc, const struct record *r)
{
    struct closed_incident *c = &s->closed[s->n_closed++ % CLOSED_MAX];
    free(c->text);
    const struct strview texts[] = {inc->id, inc->alertname, inc->runbook->name, inc->target_name, r->state};
    size_t bytes = 1;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        bytes += texts[i].len;
    *c = (struct closed_incident){
        .text = mem_alloc(bytes), .seq = inc->seq, .opened_ns = inc->opened_ns, .closed_ns = r->time_ns};
    struct packer p = {c->text};
    struct strview *members[] = {&c->id, &c->alertname, &c->runbook, &c->target, &c->state};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        *members[i] = pack(&p, texts[i]);
}

void state_free_incident(struct state *s, struct incident *inc)
{
    state_drop_timer(s, inc);
    leave_phase(s, inc);
    list_remove(&inc->on_target);
    list_remove(&inc->node);
    (void)table_remove(&s->incidents, inc->id);
    s->n_incidents--;
    s->incident_bytes -= inc->bytes;
    if (inc->target != NULL) {
        inc->target->n_incidents--;
        forget_target_if_idle(s, inc->target);
    }
    free((char *)(uintptr_t)inc->escalation_reason.ptr);
    free(inc);
}

bool state_is_dismissed(const struct state *s, struct strview incident)
{
    return table_get(&s->dismissed, incident) != NULL;
}

void state_forget_dismissed(struct state *s, struct strview incident)
{
    struct dismissed *d = table_remove(&s->dismissed, incident);
    if (d == NULL) return;
    list_remove(&d->node);
    s->n_dismissed--;
    free(d);
}

void state_dismiss(struct state *s, struct strview incident)
{
    state_forget_dismissed(s, incident);
    if (s->n_dismissed == DISMISSED_MAX)
        state_forget_dismissed(s, container_of(s->dismissed_list.next, struct dismissed, node)->incident);
    struct dismissed *d = mem_zalloc(1, sizeof(*d) + incident.len);
    memcpy(d + 1, incident.ptr, incident.len);
    d->incident = sv_n((char *)(d + 1), incident.len);
    list_push_back(&s->dismissed_list, &d->node);
    table_put(&s->dismissed, d->incident, d);
    s->n_dismissed++;
}

void state_close_incident(struct state *s, struct incident *inc, const struct record *r)
{
    remember_closed(s, inc, r);
    if (inc->phase == INCIDENT_ACTING) state_act_end(s, inc);
    if (inc->is_closing && inc->alert != ALERT_RESOLVED) state_dismiss(s, inc->id);
    state_free_incident(s, inc);
}

/* ---- a copy to try alerts out on ---- */

struct state *state_copy(const struct state *from)
{
    struct state *s = state_new();
    s->last_seq = from->last_seq;
    s->epoch = from->epoch;
    s->now_ns = from->now_ns;
    s->is_frozen = from->is_frozen;
    s->is_clock_settling = from->is_clock_settling;
    s->active = mem_zalloc(from->n_active + 1, sizeof(*s->active));
    s->n_active = from->n_active;
    if (from->n_active > 0) memcpy(s->active, from->active, from->n_active * sizeof(*s->active));
    for (struct list *node = from->slots_list.next; node != &from->slots_list; node = node->next) {
        const struct runbook_slot *slot = container_of(node, struct runbook_slot, node);
        state_slot_get(s, slot->name)->n_acting = slot->n_acting;
    }
    s->n_incidents = from->n_incidents; /* what state_is_full() counts */
    s->incident_bytes = from->incident_bytes;
    s->n_targets = from->n_targets;
    return s;
}

static void copy_incident(struct state *s, struct target *t, const struct incident *from)
{
    const struct record r = {.incident = from->id,
                             .fingerprint = from->fingerprint,
                             .tenant = from->tenant,
                             .cluster = from->cluster,
                             .labels = from->labels,
                             .annotations = from->annotations};
    struct incident *inc = state_incident_new(&r, from->target_name, from->target_missing);
    inc->seq = from->seq;
    inc->opened_ns = from->opened_ns;
    inc->phase = from->phase;
    inc->alert = from->alert;
    inc->runbook = from->runbook;
    inc->step = from->step;
    memcpy(inc->intent, from->intent, sizeof(inc->intent));
    inc->intent_seq = from->intent_seq;
    inc->outcome = from->outcome;
    inc->hold_broken = from->hold_broken;
    inc->is_escalated = from->is_escalated;
    inc->gate = from->gate;
    inc->slot = state_slot_get(s, from->runbook->name);
    inc->target = t;
    if (from->timer != NULL)
        inc->timer = state_timer_add(s, from->timer->seq,
                                     &(struct record){.incident = from->id,
                                                      .purpose = from->timer->purpose,
                                                      .due_ns = from->timer->due_ns});
    list_push_back(&t->incidents, &inc->on_target);
    list_push_back(&s->incidents_list, &inc->node);
    if (inc->phase == INCIDENT_WAITING) list_push_back(&inc->slot->waiting, &inc->in_slot);
    table_put(&s->incidents, inc->id, inc);
    s->n_phase[inc->phase]++;
}

void state_copy_target(struct state *s, const struct state *from, const struct record *signal)
{
    const struct runbook *rb = state_match(s, &signal->labels, NULL);
    if (rb == NULL) return;
    struct arena arena = {0};
    struct strview missing, name = make_target(signal, rb, &arena, &missing);
    const struct target *old = table_get(&from->targets, name);
    if (old != NULL && table_get(&s->targets, name) == NULL) {
        struct target *t = state_target_get(s, name);
        s->n_targets--; /* it is counted already */
        t->n_incidents = old->n_incidents;
        t->n_busy = old->n_busy;
        t->n_acts = t->acts_capacity = old->n_acts;
        t->acts = mem_zalloc(old->n_acts + 1, sizeof(*t->acts));
        if (old->n_acts > 0) memcpy(t->acts, old->acts, old->n_acts * sizeof(*t->acts));
        for (struct list *node = old->incidents.next; node != &old->incidents; node = node->next)
            copy_incident(s, t, container_of(node, struct incident, on_target));
    }
    arena_release(&arena);
}
