#include "functions/dispatcher/decide_impl.h"

#include <string.h>

struct record *decide_emit_plain(struct decision *d, enum record_kind kind)
{
    if (d->n == d->capacity) {
        size_t capacity = d->capacity ? 2 * d->capacity : 8;
        struct record *bigger = arena_alloc(d->arena, capacity * sizeof(*bigger));
        if (d->n > 0) memcpy(bigger, d->out, d->n * sizeof(*bigger));
        d->out = bigger;
        d->capacity = capacity;
    }
    struct record *r = &d->out[d->n++];
    *r = (struct record){.kind = kind,
                         .time_ns = d->in->time_ns,
                         .cause = d->seq,
                         .epoch = d->state->epoch,
                         .tenant = d->in->tenant,
                         .cluster = d->in->cluster};
    return r;
}

struct record *decide_emit(struct decision *d, enum record_kind kind, const struct incident *inc)
{
    struct record *r = decide_emit_plain(d, kind);
    r->tenant = inc->tenant;
    r->cluster = inc->cluster;
    r->incident = inc->id;
    r->fingerprint = inc->fingerprint;
    r->runbook = inc->runbook->name;
    r->runbook_hash = sv(inc->runbook->hash);
    r->target = inc->target_name;
    r->step = inc->step;
    return r;
}

void decide_note_freed(struct decision *d, const struct incident *inc)
{
    d->has_freed_more |= d->freed != NULL && d->freed != inc;
    d->freed = inc;
}

void decide_emit_closed(struct decision *d, const struct incident *inc, const char *state)
{
    decide_emit(d, RECORD_CLOSED, inc)->state = sv(state);
    if (incident_is_busy(inc) || inc->phase == INCIDENT_DELAYED) decide_note_freed(d, inc);
}

void decide_emit_timer(struct decision *d, const struct incident *inc, const char *purpose, int64_t due_ns)
{
    struct record *r = decide_emit(d, RECORD_TIMER, inc);
    r->purpose = sv(purpose);
    r->due_ns = due_ns;
}

void decide_emit_wake_timer(struct decision *d, const struct runbook_slot *slot)
{
    struct record *r = decide_emit_plain(d, RECORD_TIMER);
    r->runbook = slot->name;
    r->purpose = SV("wake");
    r->due_ns = d->in->time_ns;
}

static const struct runbook_step *step_of(const struct incident *inc)
{
    return incident_is_following_up(inc) ? &inc->runbook->follow_up : &inc->runbook->steps[inc->step - 1];
}

void decide_emit_verified(struct decision *d, const struct incident *inc, bool is_ok, const char *how)
{
    struct record *r = decide_emit(d, RECORD_VERIFIED, inc);
    r->function = step_of(inc)->bot;
    r->intent = arena_copy(d->arena, sv(inc->intent));
    r->ok = is_ok;
    r->how = sv(how);
}

void decide_emit_closed_well(struct decision *d, const struct incident *inc)
{
    decide_emit_closed(d, inc, runbook_is_scheduled(inc->runbook) ? "done" : "healed");
}

void decide_emit_healed(struct decision *d, const struct incident *inc, const char *how)
{
    decide_emit_verified(d, inc, true, how);
    if (inc->runbook->follow_up.bot.len == 0) {
        decide_emit_closed_well(d, inc);
        return;
    }
    decide_emit_timer(d, inc, "follow_up", d->in->time_ns + inc->runbook->follow_up_after_ns);
    decide_note_freed(d, inc);
}
