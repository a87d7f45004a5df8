#include "functions/dispatcher/runbook_impl.h"

#include "base/list.h"
#include "functions/dispatcher/template.h"

/* Defaults where a step is silent; actions.md §5.2. */
static const struct runbook_step default_step = {
    .verify = VERIFY_RESOLVE, .within_ns = 2 * MINUTE_NS, .timeout_ns = 30 * NS_PER_S};

/* ---- texts with variables ---- */

/* A scheduled run has no alert: what its few labels cannot fill would refuse every run. */
static enum status check_scheduled_template(const struct runbook_decoder *d, const struct yaml_node *at)
{
    struct arena a = {0};
    struct runbook named = {.name = d->rb->name.len > 0 ? d->rb->name : SV("r"), /* else a fault of its own */
                            .schedule.text = d->rb->schedule.text};
    struct record_labels labels = runbook_tick_labels(&named, &a),
                         annotations = runbook_tick_annotations(1, &a);
    struct template_vars vars = {.labels = &labels,
                                 .annotations = &annotations,
                                 .incident = SV("i"),
                                 .runbook = SV("r"),
                                 .target = SV("t"),
                                 .reason = SV("r")};
    struct strview text, missing = {0};
    enum status s = template_expand(at->text, &vars, &a, &text, &missing);
    if (s != STATUS_OK)
        s = yaml_error(
            d->doc, at, d->err,
            "a scheduled run has no alert and so no '${%.*s}' (it has labels.alertname, labels.schedule, "
            "annotations.time)",
            SV_ARG(sv_sub(missing, 0, 100)));
    arena_release(&a);
    return s;
}

enum status runbook_check_template(const struct runbook_decoder *d, const struct yaml_node *at,
                                   bool allow_target, bool allow_reason)
{
    struct error why;
    enum status s = template_check(at->text, allow_target, allow_reason, &why);
    if (s != STATUS_OK) return yaml_error(d->doc, at, d->err, "%s", why.message);
    return runbook_is_scheduled(d->rb) ? check_scheduled_template(d, at) : STATUS_OK;
}

static enum status check_templates(const struct runbook_decoder *d, const struct yaml_node *node,
                                   bool allow_reason)
{
    if (node->type == YAML_SCALAR) return runbook_check_template(d, node, true, allow_reason);
    enum status worst = STATUS_OK;
    for (const struct yaml_node *child = node->first; child != NULL; child = child->next)
        if (runbook_ends(d, check_templates(d, child, allow_reason), &worst)) break;
    return worst;
}

/* ---- steps ---- */

static const struct yaml_field resolve_fields[] = {
    {.name = "within",
     .type = YAML_FIELD_DURATION,
     .offset = offsetof(struct runbook_step, within_ns),
     .min = NS_PER_S,
     .max = 24 * HOUR_NS},
    {.name = "hold",
     .type = YAML_FIELD_DURATION,
     .offset = offsetof(struct runbook_step, hold_ns),
     .max = 24 * HOUR_NS},
};

static const struct yaml_field check_fields[] = {
    {.name = "hold",
     .type = YAML_FIELD_DURATION,
     .offset = offsetof(struct runbook_step, hold_ns),
     .max = 24 * HOUR_NS},
};

/* "resolve", "check", {resolve: {within, hold}} or {check: {hold}}. */
static enum status decode_verify(const struct runbook_decoder *d, const struct yaml_node *node,
                                 struct runbook_step *step)
{
    const struct yaml_node *inside = NULL;
    struct strview word = node->text;
    if (node->type == YAML_MAP && node->n_children == 1) {
        inside = node->first;
        word = inside->key;
    } else if (node->type != YAML_SCALAR) {
        return yaml_error(d->doc, node, d->err, "verify must be resolve, check or a map with one of them");
    }
    if (sv_eq(word, SV("resolve"))) {
        step->verify = VERIFY_RESOLVE;
    } else if (sv_eq(word, SV("check"))) {
        step->verify = VERIFY_CHECK;
        step->within_ns = 0;
    } else {
        return yaml_error(d->doc, node, d->err, "verify: '%.*s' is none of resolve, check",
                          SV_ARG(sv_sub(word, 0, 100)));
    }
    if (inside == NULL) return STATUS_OK;
    if (step->verify == VERIFY_RESOLVE)
        return yaml_decode(d->doc, inside, "verify.resolve", resolve_fields, ARRAY_LEN(resolve_fields),
                           &d->rb->arena, step, d->err);
    return yaml_decode(d->doc, inside, "verify.check", check_fields, ARRAY_LEN(check_fields), &d->rb->arena,
                       step, d->err);
}

/* Nothing fires, so nothing can resolve or come again. */
static enum status decode_scheduled_verify(const struct runbook_decoder *d, const struct yaml_node *node,
                                           struct runbook_step *step)
{
    if (node != NULL && (step->verify == VERIFY_RESOLVE || step->hold_ns > 0))
        return yaml_error(
            d->doc, node, d->err,
            "a scheduled run has no alert that could resolve or come again: write 'verify: check'");
    step->verify = VERIFY_CHECK;
    step->within_ns = 0;
    return STATUS_OK;
}

static enum status decode_verification(const struct runbook_decoder *d, const struct yaml_node *node,
                                       struct runbook_step *step)
{
    enum status s = node != NULL ? decode_verify(d, node, step) : STATUS_OK;
    if (s == STATUS_OK && runbook_is_scheduled(d->rb)) s = decode_scheduled_verify(d, node, step);
    return s;
}

struct step_nodes {
    struct runbook_step step;
    const struct yaml_node *with, *verify;
    int64_t after_ns;
};

static const struct yaml_field step_fields[] = {
    {.name = "bot",
     .type = YAML_FIELD_TEXT,
     .offset = offsetof(struct step_nodes, step.bot),
     .is_required = true,
     .min = 1,
     .max = 63},
    {.name = "with", .type = YAML_FIELD_NODE, .offset = offsetof(struct step_nodes, with)},
    {.name = "timeout",
     .type = YAML_FIELD_DURATION,
     .offset = offsetof(struct step_nodes, step.timeout_ns),
     .min = NS_PER_S,
     .max = HOUR_NS},
    {.name = "verify", .type = YAML_FIELD_NODE, .offset = offsetof(struct step_nodes, verify)},
};

#define STEP_FIELDS_COMMON 3 /* bot, with, timeout: those of an escalation */

static const struct yaml_field follow_up_fields[] = {
    {.name = "bot",
     .type = YAML_FIELD_TEXT,
     .offset = offsetof(struct step_nodes, step.bot),
     .is_required = true,
     .min = 1,
     .max = 63},
    {.name = "with", .type = YAML_FIELD_NODE, .offset = offsetof(struct step_nodes, with)},
    {.name = "timeout",
     .type = YAML_FIELD_DURATION,
     .offset = offsetof(struct step_nodes, step.timeout_ns),
     .min = NS_PER_S,
     .max = HOUR_NS},
    {.name = "after",
     .type = YAML_FIELD_DURATION,
     .offset = offsetof(struct step_nodes, after_ns),
     .is_required = true,
     .min = NS_PER_S,
     .max = RUNBOOK_PERIOD_MAX_NS},
};

static void note_places(const struct runbook_decoder *d, const struct yaml_node *with,
                        struct runbook_step *step)
{
    struct arena *a = &d->rb->arena;
    step->places = arena_array(a, with->n_children, sizeof(*step->places));
    for (const struct yaml_node *node = with->first; node != NULL; node = node->next)
        step->places[step->n_places++] =
            (struct runbook_place){arena_copy(a, node->key), node->line, node->column};
}

static enum status decode_step_fields(const struct runbook_decoder *d, const struct yaml_node *node,
                                      enum runbook_step_kind kind, struct step_nodes *n)
{
    struct arena *a = &d->rb->arena;
    if (kind == STEP_FOLLOW_UP)
        return yaml_decode(d->doc, node, "follow_up", follow_up_fields, ARRAY_LEN(follow_up_fields), a, n,
                           d->err);
    if (kind == STEP_ESCALATE)
        return yaml_decode(d->doc, node, "escalate", step_fields, STEP_FIELDS_COMMON, a, n, d->err);
    return yaml_decode(d->doc, node, "step", step_fields, ARRAY_LEN(step_fields), a, n, d->err);
}

static enum status check_with(const struct runbook_decoder *d, const struct yaml_node *with,
                              enum runbook_step_kind kind)
{
    if (with->type != YAML_MAP) return yaml_error(d->doc, with, d->err, "with must be a map of parameters");
    return check_templates(d, with, kind == STEP_ESCALATE);
}

/* Only the ladder's are verified by more than the bot's own answer; only an escalation knows the reason. */
enum status runbook_decode_step(const struct runbook_decoder *d, const struct yaml_node *node,
                                enum runbook_step_kind kind, struct runbook_step *ret_step)
{
    struct step_nodes n = {.step = default_step};
    enum status s = STATUS_OK;
    if (runbook_ends(d, decode_step_fields(d, node, kind, &n), &s)) return s;
    if (runbook_ends(d, decode_verification(d, n.verify, &n.step), &s)) return s;
    if (n.with != NULL && runbook_ends(d, check_with(d, n.with, kind), &s)) return s;
    if (s != STATUS_OK) return s;
    if (n.with != NULL) {
        n.step.with = yaml_to_json(n.with);
        note_places(d, n.with, &n.step);
    }
    if (kind == STEP_FOLLOW_UP) {
        n.step.verify = VERIFY_CHECK;
        n.step.within_ns = 0;
        d->rb->follow_up_after_ns = n.after_ns;
    }
    n.step.bot = arena_copy(&d->rb->arena, n.step.bot);
    n.step.line = node->line;
    n.step.column = node->column;
    *ret_step = n.step;
    return STATUS_OK;
}

enum status runbook_decode_steps(const struct runbook_decoder *d, const struct yaml_node *list)
{
    if (list->type != YAML_LIST || list->n_children == 0)
        return yaml_error(d->doc, list, d->err, "steps must be a list with at least one step");
    if (list->n_children > RUNBOOK_STEPS_MAX)
        return yaml_error(d->doc, list, d->err, "%zu steps; at most %d are taken", list->n_children,
                          RUNBOOK_STEPS_MAX);
    enum status worst = STATUS_OK;
    for (const struct yaml_node *node = list->first; node != NULL; node = node->next) {
        enum status s = runbook_decode_step(d, node, STEP_OF_LADDER, &d->rb->steps[d->rb->n_steps]);
        if (runbook_ends(d, s, &worst)) return s;
        if (s == STATUS_OK) d->rb->n_steps++;
    }
    return worst;
}
