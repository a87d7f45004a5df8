#include "functions/dispatcher/state_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* Overdue timers fire in this order whatever the order in which they were set (design §4). */
static bool is_before(const struct timer *a, const struct timer *b)
{
    if (a->due_ns != b->due_ns) return a->due_ns < b->due_ns;
    int order = sv_cmp(a->incident, b->incident);
    return order != 0 ? order < 0 : a->seq < b->seq;
}

static void place(struct state *s, size_t at, struct timer *t)
{
    s->timers[at] = t;
    t->heap_at = at;
}

static void sift(struct state *s, size_t at)
{
    struct timer *t = s->timers[at];
    while (at > 0 && is_before(t, s->timers[(at - 1) / 2])) {
        place(s, at, s->timers[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (size_t child; (child = 2 * at + 1) < s->n_timers; at = child) {
        if (child + 1 < s->n_timers && is_before(s->timers[child + 1], s->timers[child])) child++;
        if (!is_before(s->timers[child], t)) break;
        place(s, at, s->timers[child]);
    }
    place(s, at, t);
}

static void push(struct state *s, struct timer *t)
{
    s->timers[s->n_timers] = t;
    s->n_timers++;
    sift(s, s->n_timers - 1);
}

struct timer *state_timer_add(struct state *s, uint64_t seq, const struct record *r)
{
    if (s->n_timers == s->timers_capacity) {
        s->timers_capacity = s->timers_capacity ? 2 * s->timers_capacity : 64;
        s->timers = mem_realloc(s->timers, s->timers_capacity * sizeof(struct timer *));
    }
    size_t text_bytes = r->incident.len + r->purpose.len + r->runbook.len;
    struct timer *t = mem_zalloc(1, sizeof(*t) + text_bytes);
    char *text = (char *)(t + 1);
    struct strview *members[] = {&t->incident, &t->purpose, &t->runbook};
    const struct strview from[] = {r->incident, r->purpose, r->runbook};
    for (size_t i = 0; i < ARRAY_LEN(from); i++) {
        if (from[i].len > 0) memcpy(text, from[i].ptr, from[i].len);
        *members[i] = sv_n(text, from[i].len);
        text += from[i].len;
    }
    t->seq = seq;
    t->set_ns = s->now_ns;
    t->due_ns = r->due_ns;
    push(s, t);
    return t;
}

void state_timers_turn(struct state *s, const struct clock_turn *turn)
{
    size_t n = s->n_timers;
    s->n_timers = 0;
    for (size_t i = 0; i < n; i++) {
        struct timer *t = s->timers[i];
        int64_t set_ns = clock_turn_apply(turn, t->set_ns);
        t->due_ns = clock_add_ns(set_ns, clock_elapsed_ns(t->set_ns, t->due_ns));
        t->set_ns = set_ns;
        push(s, t); /* the first i + 1 places are the heap, the others are still to come */
    }
}

/* An incident knows its own timer; this is for the few that belong to none, and for fired records. */
struct timer *state_timer_find(const struct state *s, uint64_t seq)
{
    for (size_t i = 0; i < s->n_timers; i++)
        if (s->timers[i]->seq == seq) return s->timers[i];
    return NULL;
}

void state_timer_remove(struct state *s, struct timer *t)
{
    size_t at = t->heap_at;
    struct timer *last = s->timers[--s->n_timers];
    if (last != t) {
        place(s, at, last);
        sift(s, at);
    }
    free(t);
}

struct timer *state_next_timer(const struct state *s)
{
    return s->n_timers > 0 ? s->timers[0] : NULL;
}
