/* Which runbooks are in force: the files, read and checked as a set, and the record that switches to it. */
#include "functions/dispatcher/dispatcher_impl.h"

#include <stdlib.h>

#include "base/memory.h"
#include "log/log.h"

static bool is_in_force(const struct state *s, const struct runbook_set *set)
{
    if (s->activation_seq == 0 || s->n_active != set->n) return false;
    for (size_t i = 0; i < set->n; i++)
        if (!sv_eq(sv(s->active[i].runbook->hash), sv(set->items[i]->hash)) ||
            s->active[i].mode != set->items[i]->mode)
            return false;
    return true;
}

/* One line at the start and at each change: a person should see at a glance what this process is allowed to
 * do. */
static void log_what_may_act(const struct runbook_set *set)
{
    struct buf names;
    size_t n[RUNBOOK_ACT + 1] = {0};
    buf_init(&names, 4096);
    for (size_t i = 0; i < set->n; i++) {
        const struct runbook *rb = set->items[i];
        n[rb->mode]++;
        if (rb->mode != RUNBOOK_ACT) continue;
        buf_printf(&names, "%s%.*s (", names.len > 0 ? ", " : "", SV_ARG(rb->name));
        for (size_t k = 0; k < rb->n_steps; k++)
            buf_printf(&names, "%s%.*s", k > 0 ? ", " : "", SV_ARG(rb->steps[k].bot));
        if (rb->n_steps == 0) buf_append(&names, rb->escalate.bot);
        if (rb->follow_up.bot.len > 0) buf_printf(&names, ", then %.*s", SV_ARG(rb->follow_up.bot));
        buf_append(&names, SV(")"));
    }
    log_info(
        "dispatcher", "runbooks active", LOG_SV("may_act", names.len > 0 ? buf_view(&names) : SV("nothing")),
        LOG_INT("act", n[RUNBOOK_ACT]), LOG_INT("shadow", n[RUNBOOK_SHADOW]), LOG_INT("off", n[RUNBOOK_OFF]));
    buf_release(&names);
}

enum status activation_append_content(struct dispatcher *d, const struct runbook *rb, struct error *err)
{
    struct record r = {.kind = RECORD_RUNBOOK,
                       .time_ns = clock_unix_ns(),
                       .tenant = d->env.tenant,
                       .cluster = d->env.cluster,
                       .runbook = rb->name,
                       .runbook_hash = sv(rb->hash),
                       .content = rb->content};
    return journal_append(d->env.journal, &r, 1, NULL, err);
}

enum status activation_append(struct dispatcher *d, struct strview actor, struct error *err)
{
    struct arena arena = {0};
    struct record r = {.kind = RECORD_ACTIVATION,
                       .time_ns = clock_unix_ns(),
                       .tenant = d->env.tenant,
                       .cluster = d->env.cluster,
                       .runbooks = runbook_set_json(d->set, &arena),
                       .actor = actor};
    enum status s = journal_append(d->env.journal, &r, 1, NULL, err);
    arena_release(&arena);
    return s;
}

/* A content that retention has removed from the journal is not there for a later fold. */
enum status activation_apply(struct dispatcher *d, struct strview actor, struct error *err)
{
    enum status s = STATUS_OK;
    for (size_t i = 0; i < d->set->n && s == STATUS_OK; i++) {
        const struct runbook *known = state_runbook(dispatcher_state(d), sv(d->set->items[i]->hash));
        if (known == NULL || known->seq < journal_first_seq(d->env.journal))
            s = activation_append_content(d, d->set->items[i], err);
    }
    if (s == STATUS_OK && !is_in_force(dispatcher_state(d), d->set)) s = activation_append(d, actor, err);
    if (s == STATUS_OK) log_what_may_act(d->set);
    return s;
}

/* ---- a reload ---- */

struct read_job {
    const char *dir;
    struct runbook_set *set;
    struct error err;
    enum status status;
};

static void read_set(void *arg)
{
    struct read_job *job = arg;
    job->status = runbook_set_read(job->dir, job->set, &job->err);
}

enum status activation_read_set(struct dispatcher *d, const struct invoker_ops *functions,
                                void *functions_arg, struct runbook_set *ret_set, struct error *err)
{
    *ret_set = (struct runbook_set){.n = 0};
    if (d->env.runbooks_dir == NULL) return STATUS_OK;
    struct read_job job = {.dir = d->env.runbooks_dir, .set = ret_set, .err = {0}};
    if (fiber_current() != NULL)
        work_run(read_set, &job);
    else
        read_set(&job);
    if (job.status != STATUS_OK) {
        if (err != NULL) *err = job.err;
        return job.status;
    }
    enum status s = runbook_set_check(ret_set, functions, functions_arg, err);
    if (s != STATUS_OK) runbook_set_release(ret_set);
    return s;
}

void activation_free_set(struct runbook_set *set)
{
    if (set != NULL) runbook_set_release(set);
    free(set);
}

enum status activation_prepare(void *state, const struct invoker_ops *functions, void *functions_arg,
                               struct error *err)
{
    struct dispatcher *d = state;
    struct runbook_set *fresh = mem_zalloc(1, sizeof(*fresh));
    enum status s = activation_read_set(d, functions, functions_arg, fresh, err);
    d->is_refused = s != STATUS_OK;
    if (s == STATUS_OK)
        d->fresh = fresh;
    else
        activation_free_set(fresh);
    return s;
}

/* What was missed is said once, not at each reload. */
static void carry_over(const struct runbook_set *from, struct runbook_set *to)
{
    for (size_t i = 0; i < from->n; i++) {
        const struct runbook *old = from->items[i];
        for (size_t k = 0; old->schedule.passed_ns != 0 && k < to->n; k++)
            if (sv_eq(to->items[k]->name, old->name))
                to->items[k]->schedule.passed_ns = old->schedule.passed_ns;
    }
}

static enum status apply_durably(struct dispatcher *d, struct strview actor, struct error *err)
{
    enum status s = activation_apply(d, actor, err);
    return s == STATUS_OK ? dispatcher_wait_durable(d, dispatcher_state(d)->activation_seq, err) : s;
}

/* The fold may have gone over to the set that is given up, and its record may still reach the disk, or come
 * back with a journal that is reopened: another one behind it takes that back, now or with the next epoch. */
static void go_back(struct dispatcher *d, struct runbook_set *old, struct strview actor)
{
    d->fresh = d->set;
    d->set = old;
    if (is_in_force(dispatcher_state(d), old)) return;
    if (activation_apply(d, actor, NULL) != STATUS_OK) fiber_event_set(&d->epoch_wanted);
}

enum status activation_commit(void *state, const struct reload_cause *cause, struct error *err)
{
    struct dispatcher *d = state;
    struct runbook_set *old = d->set;
    d->set = d->fresh;
    d->fresh = old;
    enum status s = apply_durably(d, cause->actor, err);
    if (s != STATUS_OK) {
        go_back(d, old, cause->actor);
    } else if (!cause->is_own || d->is_own_error) {
        d->last_reload_error[0] = '\0';
        d->is_own_error = false;
    }
    if (s == STATUS_OK) carry_over(old, d->set);
    activation_free_set(d->fresh);
    d->fresh = NULL;
    return s;
}

void activation_discard(void *state, const struct reload_cause *cause, const struct error *why)
{
    struct dispatcher *d = state;
    activation_free_set(d->fresh);
    d->fresh = NULL;
    d->is_own_error = cause->is_own || d->is_refused;
    d->is_refused = false;
    (void)snprintf(d->last_reload_error, sizeof(d->last_reload_error), "%s", why->message);
}
