/* All that is read from files, anew, in two steps: no part switches before every part has found its own in
 * order. */
#include "gateway/gateway_impl.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"

#define RELOAD_WAIT_NS (60 * NS_PER_S)

/* Runbooks name functions: they are checked against those that will be there, not those that are. */
static enum status planned_info(void *arg, struct strview function, struct function_info *ret_info,
                                struct error *err)
{
    const struct deployment *d = stack_find(arg, function);
    if (d == NULL) return stack_missing(NULL, arg, function, err);
    *ret_info = d->info;
    return STATUS_OK;
}

static const struct invoker_ops planned_functions = {.name = "planned", .info = planned_info};

static bool can_reload(const struct core_function *f)
{
    return f->reload_prepare != NULL;
}

static enum status prepare(struct gateway *g, const struct reload_cause *cause, struct stack_plan **ret_plan,
                           struct error *err)
{
    const char *stack_file = cause->is_own ? NULL : g->cfg.stack_file; /* NULL: all stays as it is */
    enum status s = cause->is_own ? STATUS_OK : broker_prepare(g->broker, err);
    if (s == STATUS_OK) s = stack_prepare(g, stack_file, ret_plan, err);
    for (unsigned i = 0; i < g->cfg.n_core && s == STATUS_OK; i++)
        if (can_reload(g->cfg.core[i]))
            s = g->cfg.core[i]->reload_prepare(g->cfg.core_states[i], &planned_functions, *ret_plan, err);
    return s;
}

static void discard(struct gateway *g, const struct reload_cause *cause, struct stack_plan *plan,
                    unsigned from_core, const struct error *why)
{
    for (unsigned i = from_core; i < g->cfg.n_core; i++)
        if (can_reload(g->cfg.core[i])) g->cfg.core[i]->reload_discard(g->cfg.core_states[i], cause, why);
    stack_discard(plan);
    broker_discard(g->broker);
}

/* What can still be refused goes first: by the journal, which records the switch. Of the core functions at
 * most one has something to record, so that is all or nothing, too. */
static enum status commit(struct gateway *g, const struct reload_cause *cause, struct stack_plan *plan,
                          struct error *err)
{
    for (unsigned i = 0; i < g->cfg.n_core; i++) {
        if (!can_reload(g->cfg.core[i])) continue;
        enum status s = g->cfg.core[i]->reload_commit(g->cfg.core_states[i], cause, err);
        if (s == STATUS_OK) continue;
        discard(g, cause, plan, i, err);
        return s;
    }
    stack_commit(plan);
    if (!cause->is_own) broker_commit(g->broker);
    return STATUS_OK;
}

/* One at a time: a reload waits, and what it compares with must not change under it. */
enum status gateway_reload(struct gateway *g, const struct reload_cause *cause, struct error *err)
{
    struct stack_plan *plan = NULL;
    struct error why = {0};
    while (g->is_reloading) {
        fiber_event_reset(&g->reload_ended);
        enum status s = fiber_event_wait(&g->reload_ended, clock_monotonic_ns() + RELOAD_WAIT_NS);
        if (s != STATUS_OK) return error_set(err, s, "another reload is under way");
    }
    g->is_reloading = true;
    enum status s = prepare(g, cause, &plan, &why);
    if (s == STATUS_OK)
        s = commit(g, cause, plan, &why);
    else
        discard(g, cause, plan, 0, &why);
    g->is_reloading = false;
    fiber_event_set(&g->reload_ended);
    if (s != STATUS_OK && err != NULL) *err = why;
    return s;
}

/* ---- without a platform ---- */

struct gateway_plan {
    struct gateway gateway; /* has no folder, no port, nothing deployed */
    struct stack_plan *plan;
};

static enum status plan_info(void *arg, struct strview function, struct function_info *ret_info,
                             struct error *err)
{
    const struct gateway_plan *p = arg;
    return planned_info(p->plan, function, ret_info, err);
}

const struct invoker_ops gateway_planned = {.name = "planned", .info = plan_info};

enum status gateway_plan_new(struct loop *l, const struct gateway_cfg *cfg, struct gateway_plan **ret_plan,
                             struct error *err)
{
    struct gateway_plan *p = mem_zalloc(1, sizeof(*p));
    p->gateway = (struct gateway){.loop = l, .cfg = *cfg, .run_dir_fd = -1};
    p->gateway.cfg.dir = p->gateway.isolation.folder = ""; /* of secrets that nobody will be given */
    list_init(&p->gateway.deployments);
    list_init(&p->gateway.retired);
    enum status s = stack_prepare(&p->gateway, cfg->stack_file, &p->plan, err);
    if (s == STATUS_OK)
        *ret_plan = p;
    else
        free(p);
    return s;
}

void gateway_plan_free(struct gateway_plan *p)
{
    if (p != NULL) stack_discard(p->plan);
    free(p);
}
