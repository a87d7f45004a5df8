#include "functions/dispatcher/dispatcher_impl.h"

void selfwatch_init(struct dispatcher *d)
{
    struct selfwatch *w = &d->watch;
    *w = (struct selfwatch){.last_seen = catalog_series(CATALOG_WATCHDOG_LAST_SEEN, NULL)};
}

/* A `seen` names no labels, so it is known by the fingerprint of the signal before it. */
void selfwatch_record(struct dispatcher *d, const struct record *r)
{
    struct selfwatch *w = &d->watch;
    bool is_signal = r->kind == RECORD_SIGNAL && sv_eq(r->status, SV("firing")) && d->env.watchdog.len > 0 &&
                     sv_eq(record_label(&r->labels, SV("alertname")), d->env.watchdog);
    bool is_seen = r->kind == RECORD_SEEN && w->heard_ns != 0 && sv_eq(r->fingerprint, sv(w->fingerprint));
    if (is_signal) (void)snprintf(w->fingerprint, sizeof(w->fingerprint), "%.*s", SV_ARG(r->fingerprint));
    if (!is_signal && !is_seen) return;
    w->heard_ns = r->time_ns;
    metric_set(w->last_seen, (double)w->heard_ns / (double)NS_PER_S);
}
