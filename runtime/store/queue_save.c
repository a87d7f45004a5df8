#include "store/queue_impl.h"

/* An item in somebody's hands is saved as the fold alone would have it: what its holder has not recorded has
 * not happened. One whose end is recorded but not known to be durable has ended. */
static enum work_state folded_state(const struct work *w)
{
    if (w->state != WORK_LEASED) return w->state;
    if (w->has_died) return WORK_DEAD;
    return w->due_ns > 0 ? WORK_WAITING : WORK_READY;
}

static bool is_gone(const struct work *w)
{
    return w->state == WORK_LEASED && w->has_ended && !w->has_died;
}

static void save_item(const struct work *w, struct pack *p)
{
    pack_text(p, sv_n(w->key, w->key_len));
    pack_u64(p, folded_state(w));
    pack_u64(p, w->kind);
    pack_u64(p, w->seq);
    pack_u64(p, w->changed_seq);
    pack_i64(p, w->time_ns);
    pack_i64(p, w->due_ns);
    pack_u64(p, w->attempts);
    pack_bool(p, w->has_lost_answer);
    pack_bool(p, w->has_due);
    pack_text(p, w->target != NULL ? sv_n(w->target->name, w->target->name_len) : SV(""));
    pack_text(p, sv_n(w->function->name, w->function->name_len));
}

void work_index_save(const struct work_index *x, struct pack *p)
{
    size_t n = 0;
    for (const struct work_function *f = x->functions; f != NULL; f = f->next)
        for (const struct list *node = f->unfinished.next; node != &f->unfinished; node = node->next)
            n += !is_gone(container_of(node, struct work, age_node));
    pack_u64(p, n + x->counts[WORK_DEAD]);
    for (const struct list *node = x->dead.next; node != &x->dead; node = node->next)
        save_item(container_of(node, struct work, state_node), p);
    for (const struct work_function *f = x->functions; f != NULL; f = f->next)
        for (const struct list *node = f->unfinished.next; node != &f->unfinished; node = node->next) {
            const struct work *w = container_of(node, struct work, age_node);
            if (!is_gone(w)) save_item(w, p);
        }
}

static bool load_item(struct work_index *into, struct unpack *u)
{
    struct strview key = unpack_text(u);
    uint64_t state = unpack_u64(u), kind = unpack_u64(u), seq = unpack_u64(u), changed_seq = unpack_u64(u);
    int64_t time_ns = unpack_i64(u), due_ns = unpack_i64(u);
    uint64_t attempts = unpack_u64(u);
    bool has_lost_answer = unpack_bool(u), has_due = unpack_bool(u);
    struct record r = {.kind = kind == WORK_CALL ? RECORD_CALL : RECORD_INTENT, .time_ns = time_ns};
    r.target = unpack_text(u);
    r.function = unpack_text(u);
    if (u->is_bad || state >= WORK_STATES || state == WORK_LEASED || kind >= WORK_KINDS || key.len == 0 ||
        attempts > UINT32_MAX || work_find(into, key) != NULL)
        return false;
    struct work *w = work_add(into, key, &(struct journal_entry){.seq = seq, .record = &r});
    w->changed_seq = changed_seq;
    w->attempts = (unsigned)attempts;
    w->has_lost_answer = has_lost_answer;
    w->has_due = has_due;
    w->has_ended = w->has_died = state == WORK_DEAD;
    if (state != WORK_READY) work_set_state(into, w, (enum work_state)state, due_ns);
    return true;
}

bool work_index_load(struct work_index *into, struct unpack *u)
{
    for (size_t n = unpack_count(u); n > 0; n--)
        if (!load_item(into, u)) return false;
    return !u->is_bad;
}
