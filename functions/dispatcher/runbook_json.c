#include "functions/dispatcher/runbook_json.h"

#include "config/config.h"

static void set(json_t *o, const char *key, json_t *value)
{
    (void)json_object_set_new(o, key, value);
}

static json_t *duration_json(int64_t ns)
{
    char text[DURATION_TEXT_MAX];
    return json_string(duration_format(ns, text));
}

static json_t *time_json(int64_t unix_ns)
{
    char text[RFC3339_LEN + 1];
    if (unix_ns == 0) return json_null();
    rfc3339_format(unix_ns, text);
    return json_string(text);
}

/* One text is a list of one. */
static json_t *match_json(const json_t *content)
{
    json_t *match = json_object_get(content, "match");
    return json_is_array(match) ? json_incref(match) : json_pack("[O]", match);
}

static json_t *verify_json(const struct runbook_step *step)
{
    if (step->verify == VERIFY_CHECK)
        return json_pack("{s:{s:o}}", "check", "hold", duration_json(step->hold_ns));
    return json_pack("{s:{s:o, s:o}}", "resolve", "hold", duration_json(step->hold_ns), "within",
                     duration_json(step->within_ns));
}

static json_t *step_json(const struct runbook_step *step, bool is_verified)
{
    json_t *o =
        json_pack("{s:o, s:o}", "bot", json_text(step->bot), "timeout", duration_json(step->timeout_ns));
    set(o, "with", step->with != NULL ? json_incref(step->with) : json_object());
    if (is_verified) set(o, "verify", verify_json(step));
    return o;
}

static json_t *guardrails_json(const struct runbook_guardrails *g)
{
    return json_pack("{s:o, s:I, s:{s:I, s:o}}", "cooldown", duration_json(g->cooldown_ns), "max_in_flight",
                     (json_int_t)g->max_in_flight, "rate", "max", (json_int_t)g->rate_max, "per",
                     duration_json(g->rate_per_ns));
}

static json_t *follow_up_json(const struct runbook *rb)
{
    json_t *o = step_json(&rb->follow_up, false);
    set(o, "after", duration_json(rb->follow_up_after_ns));
    return o;
}

/* What starts it. @every counts in UTC and takes no zone. */
static void add_start(const struct runbook *rb, const json_t *content, json_t *o)
{
    const struct runbook_schedule *schedule = &rb->schedule;
    if (!runbook_is_scheduled(rb)) {
        set(o, "match", match_json(content));
        return;
    }
    set(o, "schedule", json_text(schedule->text));
    if (schedule->cron.every_s == 0) set(o, "time_zone", json_text(schedule->time_zone));
    set(o, "start_deadline", duration_json(schedule->start_deadline_ns));
}

/* The file that it was read from; none of it is known of what only the journal has. */
static void add_file(const struct dispatcher *d, const struct runbook *rb, json_t *o)
{
    for (size_t i = 0; i < d->set->n; i++) {
        const struct runbook *item = d->set->items[i];
        if (!sv_eq(sv(item->hash), sv(rb->hash))) continue;
        set(o, "file", json_text(item->file));
        set(o, "line", json_integer(item->line));
        return;
    }
}

static size_t n_waiting(const struct runbook_slot *slot)
{
    size_t n = 0;
    for (const struct list *node = slot->waiting.next; node != &slot->waiting; node = node->next)
        n++;
    return n;
}

static void add_counts(const struct state *s, const struct runbook *rb, json_t *o)
{
    static const struct runbook_slot none; /* it has taken no alert yet */
    const struct runbook_slot *slot = table_get(&s->slots, rb->name);
    set(o, "waiting", json_integer(slot == NULL ? 0 : (json_int_t)n_waiting(slot)));
    if (slot == NULL) slot = &none;
    set(o, "acts", json_integer((json_int_t)slot->n_acts));
    set(o, "lastActed", time_json(slot->last_act_ns));
    set(o, "shadowed", json_integer((json_int_t)slot->n_shadowed));
    set(o, "inFlight", json_integer((json_int_t)slot->n_acting));
}

/* What list and show have in common. */
static json_t *head_json(const struct dispatcher *d, const struct active_runbook *active)
{
    const struct runbook *rb = active->runbook;
    json_t *content = NULL, *o = json_object();
    set(o, "name", json_text(rb->name));
    set(o, "mode", json_string(runbook_mode_name(active->mode)));
    set(o, "hash", json_string(rb->hash));
    set(o, "target", json_text(rb->target));
    if (json_parse(rb->content, 0, &content, NULL) == STATUS_OK) {
        add_start(rb, content, o);
        if (json_object_get(content, "summary") != NULL)
            set(o, "summary", json_incref(json_object_get(content, "summary")));
    }
    json_release(content);
    add_file(d, rb, o);
    add_counts(dispatcher_state(d), rb, o);
    return o;
}

json_t *runbook_list_json(const struct dispatcher *d)
{
    const struct state *s = dispatcher_state(d);
    json_t *list = json_array();
    for (size_t i = 0; i < s->n_active; i++) {
        const struct runbook *rb = s->active[i].runbook;
        json_t *o = head_json(d, &s->active[i]), *steps = json_array();
        for (size_t k = 0; k < rb->n_steps; k++)
            (void)json_array_append_new(steps, json_text(rb->steps[k].bot));
        set(o, "steps", steps);
        if (rb->follow_up.bot.len > 0) set(o, "follow_up", json_text(rb->follow_up.bot));
        if (rb->escalate.bot.len > 0) set(o, "escalate", json_text(rb->escalate.bot));
        (void)json_array_append_new(list, o);
    }
    return list;
}

static enum status not_found(const struct state *s, struct strview name, struct arena *a, struct error *err)
{
    const char **names = arena_array(a, s->n_active + 1, sizeof(*names));
    for (size_t i = 0; i < s->n_active; i++)
        names[i] = arena_cstr(a, s->active[i].runbook->name);
    const char *nearest = config_nearest(arena_cstr(a, name), names, s->n_active);
    return error_set(err, STATUS_NOT_FOUND, "no runbook '%.*s' is in force%s%s%s",
                     SV_ARG(sv_sub(name, 0, RUNBOOK_NAME_MAX)), nearest != NULL ? " (did you mean '" : "",
                     nearest != NULL ? nearest : "", nearest != NULL ? "'?)" : "");
}

/* Its record may have been cut off since: then only the number is left. */
static void add_activation(const struct dispatcher *d, uint64_t seq, struct arena *a, json_t *o)
{
    struct journal_entry *entries;
    struct error ignored;
    size_t n = 0;
    json_t *activated = json_pack("{s:I}", "seq", (json_int_t)seq);
    enum status s = journal_read(d->env.journal, seq, 1, true, a, &entries, &n, &ignored);
    if (s == STATUS_OK && n == 1 && entries[0].seq == seq) {
        set(activated, "actor", json_text(entries[0].record->actor));
        set(activated, "time", time_json(entries[0].record->time_ns));
    }
    set(o, "activated", activated);
}

enum status runbook_show_json(const struct dispatcher *d, struct strview name, struct arena *a,
                              json_t **ret_json, struct error *err)
{
    const struct state *s = dispatcher_state(d);
    size_t i = 0;
    while (i < s->n_active && !sv_eq(s->active[i].runbook->name, name))
        i++;
    if (i == s->n_active) return not_found(s, name, a, err);
    const struct runbook *rb = s->active[i].runbook;
    json_t *o = head_json(d, &s->active[i]), *steps = json_array();
    for (size_t k = 0; k < rb->n_steps; k++)
        (void)json_array_append_new(steps, step_json(&rb->steps[k], true));
    set(o, "steps", steps);
    set(o, "guardrails", guardrails_json(&rb->guardrails));
    if (rb->follow_up.bot.len > 0) set(o, "follow_up", follow_up_json(rb));
    if (rb->escalate.bot.len > 0) set(o, "escalate", step_json(&rb->escalate, false));
    add_activation(d, s->active[i].since_seq, a,
                   o); /* suspends: nothing of the state is looked at any more */
    *ret_json = o;
    return STATUS_OK;
}
