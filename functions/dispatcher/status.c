#include "functions/dispatcher/status.h"

#include "base/memory.h"
#include "store/retention.h"

static json_t *time_json(int64_t unix_ns)
{
    char text[RFC3339_LEN + 1];
    if (unix_ns == 0) return json_null();
    rfc3339_format(unix_ns, text);
    return json_string(text);
}

static json_t *seconds_since(int64_t unix_ns)
{
    int64_t age_ns = clock_elapsed_ns(unix_ns, clock_unix_ns());
    return unix_ns == 0 ? json_null() : json_integer(age_ns > 0 ? age_ns / NS_PER_S : 0);
}

static json_t *frozen_json(const struct dispatcher *d)
{
    const struct state *s = dispatcher_state(d);
    json_t *o = json_object();
    (void)json_object_set_new(o, "on", json_boolean(s->is_frozen || d->is_braked));
    if (s->is_frozen) (void)json_object_set_new(o, "since", time_json(s->frozen_ns));
    if (!s->is_frozen && !d->is_braked) return o;
    const struct brake *b = &d->brake;
    (void)json_object_set_new(o, "by", json_text(sv(s->is_frozen ? b->by : b->actor)));
    (void)json_object_set_new(o, "reason", json_text(sv(s->is_frozen ? b->why : b->reason)));
    (void)json_object_set_new(o, "recorded", json_boolean(!b->is_unrecorded));
    (void)json_object_set_new(o, "file", json_boolean(b->is_file));
    return o;
}

static json_t *incidents_json(const struct state *s)
{
    json_t *o = json_object();
    (void)json_object_set_new(o, "open", json_integer((json_int_t)s->n_incidents));
    (void)json_object_set_new(o, "closed", json_integer((json_int_t)s->n_closed));
    (void)json_object_set_new(o, "unmatched", json_integer((json_int_t)s->n_unmatched));
    json_t *phases = json_object();
    for (int i = 0; i < INCIDENT_PHASES; i++)
        if (s->n_phase[i] > 0)
            (void)json_object_set_new(phases, incident_phase_name((enum incident_phase)i),
                                      json_integer((json_int_t)s->n_phase[i]));
    (void)json_object_set_new(o, "phases", phases);
    return o;
}

static json_t *depth_json(const struct dispatcher *d, struct strview function)
{
    struct queue_depth depth = queue_depth(d->queue, function);
    json_t *o = json_object();
    if (function.len > 0) (void)json_object_set_new(o, "function", json_text(function));
    (void)json_object_set_new(o, "ready", json_integer((json_int_t)depth.ready));
    (void)json_object_set_new(o, "leased", json_integer((json_int_t)depth.leased));
    (void)json_object_set_new(o, "waiting", json_integer((json_int_t)depth.waiting));
    (void)json_object_set_new(o, "dead", json_integer((json_int_t)depth.dead));
    (void)json_object_set_new(o, "oldestSeconds", seconds_since(depth.oldest_ns));
    return o;
}

static void add_queue(const struct dispatcher *d, json_t *list, struct strview function)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (sv_eq(json_get_text(json_array_get(list, i), "function"), function)) return;
    (void)json_array_append_new(list, depth_json(d, function));
}

/* One row a bot that some runbook names. */
static json_t *queues_json(const struct dispatcher *d)
{
    const struct state *s = dispatcher_state(d);
    json_t *list = json_array();
    for (size_t i = 0; i < s->n_active; i++) {
        const struct runbook *rb = s->active[i].runbook;
        for (size_t k = 0; k < rb->n_steps; k++)
            add_queue(d, list, rb->steps[k].bot);
        if (rb->follow_up.bot.len > 0) add_queue(d, list, rb->follow_up.bot);
        if (rb->escalate.bot.len > 0) add_queue(d, list, rb->escalate.bot);
    }
    return list;
}

static json_t *schedule_json(const struct dispatcher *d, const struct runbook *rb,
                             const struct runbook_slot *slot)
{
    json_t *o = json_object();
    int64_t next_ns = 0, last_ns = 0, now_ns = clock_unix_ns();
    for (size_t i = 0; slot != NULL && i < slot->n_ticks; i++)
        if (slot->ticks[i].first_ns <= now_ns) last_ns = slot->ticks[i].last_ns;
    (void)json_object_set_new(o, "expression", json_text(rb->schedule.text));
    (void)json_object_set_new(o, "timeZone", json_text(rb->schedule.time_zone));
    (void)json_object_set_new(o, "last", time_json(last_ns));
    (void)json_object_set_new(o, "next", time_json(ticker_next(d, rb->name, &next_ns) ? next_ns : 0));
    return o;
}

static json_t *runbook_json(const struct dispatcher *d, const struct active_runbook *active)
{
    const struct state *s = dispatcher_state(d);
    const struct runbook *rb = active->runbook;
    const struct runbook_slot *slot = table_get(&s->slots, rb->name);
    json_t *o = json_object(), *bots = json_array();
    for (size_t k = 0; k < rb->n_steps; k++)
        (void)json_array_append_new(bots, json_text(rb->steps[k].bot));
    size_t n_waiting = 0;
    for (const struct list *node = slot == NULL ? NULL : slot->waiting.next;
         slot != NULL && node != &slot->waiting; node = node->next)
        n_waiting++;
    (void)json_object_set_new(o, "name", json_text(rb->name));
    (void)json_object_set_new(o, "mode", json_string(runbook_mode_name(active->mode)));
    (void)json_object_set_new(o, "hash", json_string(rb->hash));
    (void)json_object_set_new(o, "target", json_text(rb->target));
    (void)json_object_set_new(o, "bots", bots);
    if (rb->follow_up.bot.len > 0) (void)json_object_set_new(o, "followUp", json_text(rb->follow_up.bot));
    if (rb->escalate.bot.len > 0) (void)json_object_set_new(o, "escalate", json_text(rb->escalate.bot));
    if (runbook_is_scheduled(rb)) (void)json_object_set_new(o, "schedule", schedule_json(d, rb, slot));
    (void)json_object_set_new(o, "inFlight", json_integer(slot == NULL ? 0 : (json_int_t)slot->n_acting));
    (void)json_object_set_new(o, "waiting", json_integer((json_int_t)n_waiting));
    return o;
}

static json_t *sources_json(const struct state *s)
{
    json_t *list = json_array();
    for (size_t i = 0; i < s->n_sources; i++) {
        json_t *o = json_object();
        (void)json_object_set_new(o, "name", json_text(s->sources[i].name));
        (void)json_object_set_new(o, "last", time_json(s->sources[i].last_ns));
        (void)json_object_set_new(o, "ageSeconds", seconds_since(s->sources[i].last_ns));
        (void)json_object_set_new(o, "signals", json_integer((json_int_t)s->sources[i].n));
        (void)json_array_append_new(list, o);
    }
    return list;
}

/* Unhealthy: every alert is answered with 503 until the store is whole again. */
static json_t *store_json(const struct dispatcher *d)
{
    const struct journal *j = d->env.journal;
    json_t *o = json_object();
    (void)json_object_set_new(o, "healthy", json_boolean(journal_is_healthy(j)));
    (void)json_object_set_new(o, "pendingBytes", json_integer((json_int_t)journal_pending_bytes(j)));
    (void)json_object_set_new(o, "durable", json_integer((json_int_t)journal_durable_seq(j)));
    uint64_t size, left = journal_reserve_left(j, &size);
    (void)json_object_set_new(o, "reserveBytes", json_integer((json_int_t)left));
    (void)json_object_set_new(o, "reserveMaxBytes", json_integer((json_int_t)size));
    if (d->env.retention == NULL) return o;
    struct retention_report r;
    retention_report(d->env.retention, &r);
    (void)json_object_set_new(o, "first", json_integer((json_int_t)journal_first_seq(j)));
    (void)json_object_set_new(o, "bytes", json_integer((json_int_t)r.bytes));
    (void)json_object_set_new(o, "maxBytes", json_integer((json_int_t)r.max_bytes));
    if (r.oldest_unix_ns != 0) (void)json_object_set_new(o, "oldest", time_json(r.oldest_unix_ns));
    if (r.kept_by != NULL) (void)json_object_set_new(o, "keptBy", json_string(r.kept_by));
    if (r.kept_by != NULL) (void)json_object_set_new(o, "keptFrom", json_integer((json_int_t)r.kept_from));
    return o;
}

/* What the leases of alerts are reckoned with: Alertmanager's configuration must not be slower. */
static json_t *alertmanager_json(const struct dispatcher *d)
{
    char repeat[DURATION_TEXT_MAX], group[DURATION_TEXT_MAX];
    return json_pack("{s:s, s:s}", "groupInterval", duration_format(d->env.group_interval_ns, group),
                     "repeatInterval", duration_format(d->env.repeat_interval_ns, repeat));
}

json_t *status_json(const struct dispatcher *d)
{
    const struct state *s = dispatcher_state(d);
    json_t *o = json_object(), *runbooks = json_array(), *may_act = json_array();
    for (size_t i = 0; i < s->n_active; i++) {
        (void)json_array_append_new(runbooks, runbook_json(d, &s->active[i]));
        if (s->active[i].mode == RUNBOOK_ACT)
            (void)json_array_append_new(may_act, json_text(s->active[i].runbook->name));
    }
    (void)json_object_set_new(o, "epoch", json_integer((json_int_t)s->epoch));
    (void)json_object_set_new(o, "seq", json_integer((json_int_t)s->last_seq));
    (void)json_object_set_new(o, "time", time_json(clock_unix_ns()));
    (void)json_object_set_new(o, "store", store_json(d));
    (void)json_object_set_new(o, "alertmanager", alertmanager_json(d));
    (void)json_object_set_new(o, "deciding", json_boolean(decider_is_active(d->decider)));
    (void)json_object_set_new(o, "frozen", frozen_json(d));
    (void)json_object_set_new(o, "clockSettling", json_boolean(s->is_clock_settling));
    (void)json_object_set_new(o, "incidents", incidents_json(s));
    (void)json_object_set_new(o, "backlog", depth_json(d, (struct strview){0}));
    (void)json_object_set_new(o, "queues", queues_json(d));
    (void)json_object_set_new(o, "runbooks", runbooks);
    (void)json_object_set_new(o, "mayAct", may_act);
    (void)json_object_set_new(o, "sources", sources_json(s));
    if (d->reloader.changed_ns != 0)
        (void)json_object_set_new(o, "runbooksChanged", time_json(d->reloader.changed_ns));
    if (d->reloader.folder_error[0] != '\0')
        (void)json_object_set_new(o, "runbooksError", json_string(d->reloader.folder_error));
    if (d->last_reload_error[0] != '\0')
        (void)json_object_set_new(o, "reloadError", json_string(d->last_reload_error));
    return o;
}

static json_t *open_json(const struct state *s, const struct incident *inc)
{
    json_t *o = json_object();
    (void)json_object_set_new(o, "incident", json_text(inc->id));
    (void)json_object_set_new(o, "state", json_string("open"));
    (void)json_object_set_new(o, "phase", json_string(incident_phase_name(inc->phase)));
    (void)json_object_set_new(o, "since", time_json(inc->phase_ns));
    (void)json_object_set_new(o, "stuck", json_boolean(incident_is_stuck(s, inc, clock_unix_ns())));
    if (inc->is_closing) (void)json_object_set_new(o, "closing", json_true());
    (void)json_object_set_new(o, "alert", json_text(inc->alertname));
    (void)json_object_set_new(o, "target", json_text(inc->target_name));
    (void)json_object_set_new(o, "runbook", json_text(inc->runbook->name));
    (void)json_object_set_new(o, "step", json_integer(inc->step));
    (void)json_object_set_new(o, "steps", json_integer((json_int_t)inc->runbook->n_steps));
    (void)json_object_set_new(o, "opened", time_json(inc->opened_ns));
    (void)json_object_set_new(o, "ageSeconds", seconds_since(inc->opened_ns));
    if (inc->gate != NULL) (void)json_object_set_new(o, "gate", json_string(inc->gate));
    if (inc->timer != NULL) (void)json_object_set_new(o, "due", time_json(inc->timer->due_ns));
    return o;
}

static json_t *closed_json(const struct closed_incident *c)
{
    json_t *o = json_object();
    (void)json_object_set_new(o, "incident", json_text(c->id));
    (void)json_object_set_new(o, "state", json_text(c->state));
    (void)json_object_set_new(o, "alert", json_text(c->alertname));
    (void)json_object_set_new(o, "target", json_text(c->target));
    (void)json_object_set_new(o, "runbook", json_text(c->runbook));
    (void)json_object_set_new(o, "opened", time_json(c->opened_ns));
    (void)json_object_set_new(o, "closed", time_json(c->closed_ns));
    return o;
}

json_t *status_incidents(const struct dispatcher *d, bool with_open, bool with_closed, size_t limit)
{
    const struct state *s = dispatcher_state(d);
    json_t *list = json_array();
    for (struct list *node = s->incidents_list.prev;
         with_open && node != &s->incidents_list && json_array_size(list) < limit; node = node->prev)
        (void)json_array_append_new(list, open_json(s, container_of(node, struct incident, node)));
    for (uint64_t i = s->n_closed;
         with_closed && i > 0 && s->n_closed - i < CLOSED_MAX && json_array_size(list) < limit; i--)
        (void)json_array_append_new(list, closed_json(&s->closed[(i - 1) % CLOSED_MAX]));
    return list;
}
