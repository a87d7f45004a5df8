#include <stdlib.h>

#include "base/memory.h"
#include "functions/dispatcher/decide.h"

struct pending {
    struct list node;
    uint64_t seq;
    struct record in; /* views are the caller's while it can be decided at once, else a copy's in `kept`; its
                         time is the effective one */
};

struct decider {
    struct state *state;
    struct list pending;  /* inputs, oldest first */
    struct arena kept;    /* of pending */
    struct arena out;     /* of the last decision */
    size_t n_outstanding; /* decided, not yet folded */
    bool is_active;
};

struct decider *decider_new(void)
{
    struct decider *d = mem_zalloc(1, sizeof(*d));
    d->state = state_new();
    list_init(&d->pending);
    return d;
}

static void drop_pending(struct decider *d)
{
    list_init(&d->pending);
    arena_reset(&d->kept);
    d->n_outstanding = 0;
}

void decider_reset(struct decider *d)
{
    drop_pending(d);
    arena_reset(&d->out);
    state_free(d->state);
    d->state = state_new();
    d->is_active = false;
}

void decider_free(struct decider *d)
{
    if (d == NULL) return;
    state_free(d->state);
    arena_release(&d->kept);
    arena_release(&d->out);
    free(d);
}

void decider_save(const struct decider *d, struct pack *p)
{
    state_save(d->state, p);
}

enum status decider_load(struct decider *d, struct unpack *u, struct error *err)
{
    struct state *loaded = NULL;
    decider_reset(d);
    enum status s = state_load(u, &loaded, err);
    if (s != STATUS_OK) return s;
    state_free(d->state);
    d->state = loaded;
    return STATUS_OK;
}

const struct state *decider_state(const struct decider *d)
{
    return d->state;
}

struct state *decider_state_mutable(struct decider *d)
{
    return d->state;
}

void decider_set_active(struct decider *d, bool is_active)
{
    d->is_active = is_active;
    if (!is_active) drop_pending(d);
}

bool decider_is_active(const struct decider *d)
{
    return d->is_active;
}

static bool may_lead_to_something(const struct record *r)
{
    return r->kind == RECORD_SIGNAL || r->kind == RECORD_EXPIRED || r->kind == RECORD_OUTCOME ||
           r->kind == RECORD_FIRED || r->kind == RECORD_TICK || r->kind == RECORD_FREEZE ||
           r->kind == RECORD_CLOCK || r->kind == RECORD_EPOCH || r->kind == RECORD_CLOSE ||
           record_is_retried_anew(r);
}

void decider_apply(struct decider *d, uint64_t seq, const struct record *r)
{
    state_apply(d->state, seq, r);
    if (!d->is_active) return;
    if (r->cause != 0) {
        if (d->n_outstanding > 0 && r->epoch == d->state->epoch) d->n_outstanding--;
        return;
    }
    if (r->kind == RECORD_EPOCH) drop_pending(d); /* who takes over looks at everything anyway */
    if (!may_lead_to_something(r)) return;
    bool is_deferred = d->n_outstanding > 0 || !list_is_empty(&d->pending);
    if (!is_deferred) arena_reset(&d->kept); /* not earlier: what was decided last may still point into it */
    struct pending *p = arena_zalloc(&d->kept, sizeof(*p));
    p->seq = seq;
    if (is_deferred)
        record_copy(r, &d->kept, &p->in);
    else
        p->in = *r;
    p->in.time_ns = d->state->now_ns;
    list_push_back(&d->pending, &p->node);
}

void decider_next(struct decider *d, struct record **ret_out, size_t *ret_n)
{
    *ret_n = 0;
    if (d->n_outstanding > 0) return;
    arena_reset(&d->out);
    for (struct list *node; *ret_n == 0 && (node = list_pop_front(&d->pending)) != NULL;) {
        const struct pending *p = container_of(node, struct pending, node);
        decide(d->state, p->seq, &p->in, &d->out, ret_out, ret_n);
    }
    d->n_outstanding = *ret_n;
}
