#include "store/queue_impl.h"

static int64_t oldest_of(const struct work_function *f, int64_t oldest_ns)
{
    if (list_is_empty(&f->unfinished)) return oldest_ns;
    int64_t time_ns = container_of(f->unfinished.next, struct work, age_node)->time_ns;
    return oldest_ns == 0 || time_ns < oldest_ns ? time_ns : oldest_ns;
}

struct queue_depth queue_depth(const struct queue *q, struct strview function)
{
    const struct work_function *one = function.len > 0 ? work_function_find(&q->index, function) : NULL;
    if (function.len > 0 && one == NULL) return (struct queue_depth){0};
    const size_t *counts = one != NULL ? one->counts : q->index.counts;
    struct queue_depth d = {.ready = counts[WORK_READY],
                            .leased = counts[WORK_LEASED],
                            .waiting = counts[WORK_WAITING],
                            .dead = counts[WORK_DEAD]};
    if (one != NULL) d.oldest_ns = oldest_of(one, 0);
    for (const struct work_function *f = q->index.functions; one == NULL && f != NULL; f = f->next)
        d.oldest_ns = oldest_of(f, d.oldest_ns);
    return d;
}

void queue_each_function(const struct queue *q, void (*fn)(void *arg, struct strview function), void *arg)
{
    for (const struct work_function *f = q->index.functions; f != NULL; f = f->next)
        fn(arg, sv_n(f->name, f->name_len));
}

size_t queue_list_dead(const struct queue *q, struct strview function, size_t max, struct arena *a,
                       struct queue_dead **ret_dead, size_t *ret_total)
{
    size_t n = 0, n_dead = q->index.counts[WORK_DEAD], total = 0;
    struct queue_dead *dead = arena_array(a, (n_dead < max ? n_dead : max) + 1, sizeof(*dead));
    for (struct list *node = q->index.dead.next; node != &q->index.dead; node = node->next) {
        const struct work *w = container_of(node, struct work, state_node);
        struct strview name = sv_n(w->function->name, w->function->name_len);
        if (function.len > 0 && !sv_eq(name, function)) continue;
        if (total++ >= max) continue;
        dead[n++] = (struct queue_dead){.seq = w->seq,
                                        .ended_seq = w->changed_seq,
                                        .id = arena_copy(a, sv_n(w->key, w->key_len)),
                                        .function = arena_copy(a, name),
                                        .is_call = w->kind == WORK_CALL};
    }
    *ret_dead = dead;
    *ret_total = total;
    return n;
}

bool queue_is_dead(const struct queue *q, struct strview id)
{
    const struct work *w = work_find(&q->index, id);
    return w != NULL && w->state == WORK_DEAD;
}

bool queue_is_full(const struct queue *q)
{
    return q->index.n_items >= QUEUE_ITEMS_MAX;
}

enum status queue_admit_call(const struct queue *q, struct strview function, struct error *err)
{
    const struct work_function *f = work_function_find(&q->index, function);
    size_t n = f != NULL ? f->calls[WORK_READY] + f->calls[WORK_WAITING] + f->calls[WORK_LEASED] : 0;
    if (queue_is_full(q))
        return error_set(err, STATUS_RESOURCE_EXHAUSTED, "%d intents and calls wait already",
                         QUEUE_ITEMS_MAX);
    if (n >= QUEUE_CALLS_MAX)
        return error_set(err, STATUS_RESOURCE_EXHAUSTED, "%zu calls of function '%.*s' wait already", n,
                         SV_ARG(function));
    return STATUS_OK;
}
