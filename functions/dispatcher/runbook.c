#include "functions/dispatcher/runbook.h"

#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "base/memory.h"
#include "functions/dispatcher/runbook_impl.h"

/* A runbook is one record of the journal, with room for the rest of the record. */
#define CONTENT_BYTES_MAX ((size_t)(256 * 1024))

static const char *const mode_names[] = {"off", "shadow", "act", NULL};

/* Defaults where a runbook is silent; actions.md §5.2. */
static const struct runbook_guardrails default_guardrails = {
    .cooldown_ns = 15 * MINUTE_NS, .rate_max = 3, .rate_per_ns = 24 * HOUR_NS, .max_in_flight = 10};
/* Those that refuse no schedule. */
static const struct runbook_guardrails no_guardrails = {
    .rate_max = INT64_MAX, .rate_per_ns = NS_PER_S, .max_in_flight = 1};

const char *runbook_mode_name(enum runbook_mode mode)
{
    return mode_names[mode];
}

bool runbook_mode_from_name(struct strview name, enum runbook_mode *ret_mode)
{
    for (int i = 0; mode_names[i] != NULL; i++) {
        if (!sv_eq(name, sv(mode_names[i]))) continue;
        *ret_mode = (enum runbook_mode)i;
        return true;
    }
    return false;
}

/* ---- all faults, or the first ---- */

bool runbook_ends(const struct runbook_decoder *d, enum status s, enum status *ret_worst)
{
    if (s != STATUS_OK) *ret_worst = s;
    return s != STATUS_OK && d->doc->on_fault == NULL;
}

/* ---- guardrails ---- */

struct guardrail_nodes {
    struct runbook_guardrails values;
    const struct yaml_node *rate;
};

static const struct yaml_field guardrail_fields[] = {
    {.name = "cooldown",
     .type = YAML_FIELD_DURATION,
     .offset = offsetof(struct guardrail_nodes, values.cooldown_ns),
     .min = NS_PER_S,
     .max = RUNBOOK_PERIOD_MAX_NS},
    {.name = "rate", .type = YAML_FIELD_NODE, .offset = offsetof(struct guardrail_nodes, rate)},
    {.name = "max_in_flight",
     .type = YAML_FIELD_INT,
     .offset = offsetof(struct guardrail_nodes, values.max_in_flight),
     .min = 1,
     .max = 100},
};

static const struct yaml_field rate_fields[] = {
    {.name = "max",
     .type = YAML_FIELD_INT,
     .offset = offsetof(struct runbook_guardrails, rate_max),
     .is_required = true,
     .min = 1,
     .max = RUNBOOK_RATE_MAX},
    {.name = "per",
     .type = YAML_FIELD_DURATION,
     .offset = offsetof(struct runbook_guardrails, rate_per_ns),
     .is_required = true,
     .min = NS_PER_S,
     .max = RUNBOOK_PERIOD_MAX_NS},
};

static enum status decode_guardrails(const struct runbook_decoder *d, const struct yaml_node *node)
{
    struct guardrail_nodes n = {.values = default_guardrails};
    enum status s = STATUS_OK;
    if (node != NULL)
        s = yaml_decode(d->doc, node, "guardrails", guardrail_fields, ARRAY_LEN(guardrail_fields),
                        &d->rb->arena, &n, d->err);
    if (n.rate != NULL && (s == STATUS_OK || d->doc->on_fault != NULL)) {
        enum status of_rate = yaml_decode(d->doc, n.rate, "guardrails.rate", rate_fields,
                                          ARRAY_LEN(rate_fields), &d->rb->arena, &n.values, d->err);
        if (of_rate != STATUS_OK) s = of_rate;
    }
    /* What is faulty must not be said to refuse the schedule as well. */
    d->rb->guardrails = s == STATUS_OK ? n.values : no_guardrails;
    return s;
}

/* ---- the whole ---- */

struct runbook_nodes {
    struct strview name, summary, schedule, time_zone;
    int64_t start_deadline_ns;
    int mode;
    const struct yaml_node *match, *target, *steps, *guardrails, *follow_up, *escalate;
};

static const struct yaml_field runbook_fields[] = {
    {.name = "name",
     .type = YAML_FIELD_TEXT,
     .offset = offsetof(struct runbook_nodes, name),
     .is_required = true,
     .min = 1,
     .max = RUNBOOK_NAME_MAX},
    {.name = "summary", .type = YAML_FIELD_TEXT, .offset = offsetof(struct runbook_nodes, summary)},
    {.name = "match", .type = YAML_FIELD_NODE, .offset = offsetof(struct runbook_nodes, match)},
    {.name = "schedule",
     .type = YAML_FIELD_TEXT,
     .offset = offsetof(struct runbook_nodes, schedule),
     .min = 1,
     .max = CRON_TEXT_MAX},
    {.name = "time_zone",
     .type = YAML_FIELD_TEXT,
     .offset = offsetof(struct runbook_nodes, time_zone),
     .min = 1,
     .max = ZONE_NAME_MAX},
    {.name = "start_deadline",
     .type = YAML_FIELD_DURATION,
     .offset = offsetof(struct runbook_nodes, start_deadline_ns),
     .min = NS_PER_S,
     .max = 24 * HOUR_NS},
    {.name = "target",
     .type = YAML_FIELD_NODE,
     .offset = offsetof(struct runbook_nodes, target),
     .is_required = true},
    {.name = "mode",
     .type = YAML_FIELD_ENUM,
     .offset = offsetof(struct runbook_nodes, mode),
     .names = mode_names},
    {.name = "steps", .type = YAML_FIELD_NODE, .offset = offsetof(struct runbook_nodes, steps)},
    {.name = "guardrails", .type = YAML_FIELD_NODE, .offset = offsetof(struct runbook_nodes, guardrails)},
    {.name = "follow_up", .type = YAML_FIELD_NODE, .offset = offsetof(struct runbook_nodes, follow_up)},
    {.name = "escalate", .type = YAML_FIELD_NODE, .offset = offsetof(struct runbook_nodes, escalate)},
};

static enum status decode_matcher(const struct runbook_decoder *d, const struct yaml_node *node)
{
    if (node->type != YAML_SCALAR)
        return yaml_error(d->doc, node, d->err,
                          "match: each entry must be a text such as 'alertname=\"NginxDown\"'");
    struct error why;
    enum status s = matchers_parse(node->text, &d->rb->arena, &d->rb->match, &why);
    return s == STATUS_OK ? s : yaml_error(d->doc, node, d->err, "match: %s", why.message);
}

/* A list that every alert passes (job!="x") selects by what is absent: "all" by another name. */
static bool selects_something(const struct matchers *m)
{
    for (size_t i = 0; i < m->n; i++)
        if (matcher_test(&m->items[i], (struct strview){0}) == MATCH_NO) return true;
    return false;
}

static enum status decode_match(const struct runbook_decoder *d, const struct yaml_node *node)
{
    enum status s = STATUS_OK;
    if (node->type == YAML_SCALAR) s = decode_matcher(d, node);
    if (node->type == YAML_MAP) return yaml_error(d->doc, node, d->err, "match must be a list of matchers");
    for (const struct yaml_node *item = node->first; item != NULL; item = item->next)
        if (runbook_ends(d, decode_matcher(d, item), &s)) break;
    if (s != STATUS_OK) return s;
    if (!selects_something(&d->rb->match))
        return yaml_error(
            d->doc, node, d->err,
            "match needs at least one matcher that an absent label does not pass; this one would take every alert");
    return STATUS_OK;
}

/* Its text and zone are kept whatever they say: the steps are those of a scheduled run, and the zone is
 * looked up later. */
static void note_schedule(const struct runbook_decoder *d, const struct runbook_nodes *n,
                          const struct yaml_node *at, const struct yaml_node *zone_at)
{
    struct runbook_schedule *schedule = &d->rb->schedule;
    schedule->text = n->schedule.len > 0 ? arena_copy(&d->rb->arena, n->schedule) : SV("?");
    schedule->time_zone = n->time_zone.len > 0 ? arena_copy(&d->rb->arena, n->time_zone) : SV("UTC");
    schedule->start_deadline_ns = n->start_deadline_ns;
    schedule->line = at->line;
    schedule->column = at->column;
    schedule->zone_line = zone_at != NULL ? zone_at->line : 0;
    schedule->zone_column = zone_at != NULL ? zone_at->column : 0;
}

static enum status decode_schedule(const struct runbook_decoder *d, const struct yaml_node *at,
                                   const struct yaml_node *zone_at, const struct runbook_nodes *n)
{
    struct cron cron = {0};
    struct error why;
    if (n->match == NULL) note_schedule(d, n, at, zone_at); /* with both, nobody knows which is meant */
    if (n->schedule.len == 0) return STATUS_OK;             /* told by who read it */
    if (cron_parse(n->schedule, &cron, &why) != STATUS_OK)
        return yaml_error(d->doc, at, d->err, "schedule: %s", why.message);
    d->rb->schedule.cron = cron;
    if (zone_at != NULL && cron.every_s > 0)
        return yaml_error(d->doc, zone_at, d->err, "time_zone means nothing to @every: it counts in UTC");
    return STATUS_OK;
}

static enum status check_only_scheduled(const struct runbook_decoder *d, const struct yaml_node *map)
{
    static const char *const only_scheduled[] = {"time_zone", "start_deadline"};
    enum status worst = STATUS_OK;
    for (size_t i = 0; i < ARRAY_LEN(only_scheduled); i++) {
        const struct yaml_node *at = yaml_get(map, sv(only_scheduled[i]));
        if (at != NULL &&
            runbook_ends(d, yaml_error(d->doc, at, d->err, "%s belongs to a 'schedule'", only_scheduled[i]),
                         &worst))
            break;
    }
    return worst;
}

static enum status check_start(const struct runbook_decoder *d, const struct yaml_node *map,
                               const struct yaml_node *at, const struct runbook_nodes *n)
{
    if (at != NULL && n->match != NULL)
        return yaml_error(d->doc, at, d->err, "a runbook starts by 'match' or by 'schedule', not by both");
    if (at == NULL && n->match == NULL)
        return yaml_error(d->doc, map, d->err,
                          "match is missing in runbook (or 'schedule', to start it by the clock)");
    return STATUS_OK;
}

/* What starts it. */
static enum status decode_start(const struct runbook_decoder *d, const struct yaml_node *map,
                                const struct runbook_nodes *n)
{
    const struct yaml_node *at = yaml_get(map, SV("schedule")), *zone_at = yaml_get(map, SV("time_zone"));
    enum status s = STATUS_OK;
    if (at == NULL && runbook_ends(d, check_only_scheduled(d, map), &s)) return s;
    if (runbook_ends(d, check_start(d, map, at, n), &s)) return s;
    if (at != NULL && runbook_ends(d, decode_schedule(d, at, zone_at, n), &s)) return s;
    if (n->match != NULL) (void)runbook_ends(d, decode_match(d, n->match), &s);
    return s;
}

static enum status decode_target(const struct runbook_decoder *d, const struct yaml_node *node)
{
    if (node->type != YAML_SCALAR || node->text.len == 0)
        return yaml_error(d->doc, node, d->err, "target must be a text such as service/${labels.service}");
    if (node->text.len > TARGET_MAX)
        return yaml_error(d->doc, node, d->err, "target is longer than %d bytes", TARGET_MAX);
    d->rb->target = arena_copy(&d->rb->arena, node->text);
    return runbook_check_template(d, node, false, false);
}

static enum status check_name(const struct runbook_decoder *d, const struct yaml_node *map,
                              struct strview name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        bool is_good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_' || c == '.';
        if (!is_good)
            return yaml_error(d->doc, yaml_get(map, SV("name")), d->err,
                              "name may have letters, digits, '-', '_' and '.' only");
    }
    d->rb->name = arena_copy(&d->rb->arena, name);
    return STATUS_OK;
}

static enum status no_step(const struct runbook_decoder *d, const struct yaml_node *map)
{
    return yaml_error(
        d->doc, map, d->err,
        "steps is missing in runbook; one without any needs 'escalate', which then tells a person at once");
}

static enum status decode_follow_up(const struct runbook_decoder *d, const struct runbook_nodes *n)
{
    enum status s = STATUS_OK;
    if (n->steps == NULL &&
        runbook_ends(d,
                     yaml_error(d->doc, n->follow_up, d->err,
                                "follow_up follows a verified act, and there are no steps"),
                     &s))
        return s;
    (void)runbook_ends(d, runbook_decode_step(d, n->follow_up, STEP_FOLLOW_UP, &d->rb->follow_up), &s);
    return s;
}

/* What it does: each part for itself. */
static enum status decode_acts(const struct runbook_decoder *d, const struct yaml_node *map,
                               const struct runbook_nodes *n)
{
    enum status s = STATUS_OK;
    if (n->steps == NULL && n->escalate == NULL && runbook_ends(d, no_step(d, map), &s)) return s;
    if (n->steps != NULL && runbook_ends(d, runbook_decode_steps(d, n->steps), &s)) return s;
    if (runbook_ends(d, decode_guardrails(d, n->guardrails), &s)) return s;
    if (n->follow_up != NULL && runbook_ends(d, decode_follow_up(d, n), &s)) return s;
    if (n->escalate != NULL)
        (void)runbook_ends(d, runbook_decode_step(d, n->escalate, STEP_ESCALATE, &d->rb->escalate), &s);
    return s;
}

static enum status decode(const struct runbook_decoder *d, const struct yaml_node *map)
{
    struct runbook_nodes n = {.mode = RUNBOOK_SHADOW, /* nothing acts that was not told to */
                              .start_deadline_ns = 5 * MINUTE_NS};
    enum status s = STATUS_OK;
    d->rb->line = map->line;
    d->rb->column = map->column;
    if (runbook_ends(d,
                     yaml_decode(d->doc, map, "runbook", runbook_fields, ARRAY_LEN(runbook_fields),
                                 &d->rb->arena, &n, d->err),
                     &s))
        return s;
    d->rb->mode = (enum runbook_mode)n.mode;
    if (map->type != YAML_MAP) return s;
    if (n.name.len > 0 && runbook_ends(d, check_name(d, map, n.name), &s)) return s;
    if (runbook_ends(d, decode_start(d, map, &n), &s)) return s;
    if (n.target != NULL && runbook_ends(d, decode_target(d, n.target), &s)) return s;
    (void)runbook_ends(d, decode_acts(d, map, &n), &s);
    return s;
}

static enum status decode_new(const struct yaml_document *doc, const struct yaml_node *map,
                              struct runbook **ret_runbook, struct error *err)
{
    struct runbook *rb = mem_zalloc(1, sizeof(*rb));
    struct runbook_decoder d = {.doc = doc, .rb = rb, .err = err};
    enum status s = decode(&d, map);
    if (s != STATUS_OK) {
        runbook_free(rb);
        return s;
    }
    *ret_runbook = rb;
    return STATUS_OK;
}

enum status runbook_from_content(struct strview content, struct runbook **ret_runbook, struct error *err)
{
    struct arena nodes = {0};
    struct yaml_document doc;
    struct runbook *rb;
    enum status s = yaml_parse(&nodes, "runbook", content, &doc, err);
    if (s == STATUS_OK) s = decode_new(&doc, doc.root, &rb, err);
    if (s == STATUS_OK) {
        rb->content = arena_copy(&rb->arena, content);
        sha256_hex(content, rb->hash);
        *ret_runbook = rb;
    }
    arena_release(&nodes);
    return s;
}

/* What goes to the journal must read back as the same text: characters that JSON takes and YAML does not stop
 * here. */
static enum status check_content(const struct runbook_decoder *d, const struct yaml_node *map)
{
    struct runbook *again;
    struct error why;
    if (d->rb->content.len > CONTENT_BYTES_MAX)
        return yaml_error(d->doc, map, d->err, "runbook of %zu bytes; at most %zu are taken",
                          d->rb->content.len, CONTENT_BYTES_MAX);
    enum status s = runbook_from_content(d->rb->content, &again, &why);
    if (s != STATUS_OK)
        return yaml_error(d->doc, map, d->err, "does not survive being recorded: %s", why.message);
    runbook_free(again);
    return STATUS_OK;
}

enum status runbook_parse(const struct yaml_document *doc, const struct yaml_node *map,
                          struct runbook **ret_runbook, struct error *err)
{
    struct runbook *rb;
    enum status s = decode_new(doc, map, &rb, err);
    if (s != STATUS_OK) return s;
    json_t *tree = yaml_to_json(map);
    rb->content = json_canonical(&rb->arena, tree);
    json_release(tree);
    rb->file = arena_copy(&rb->arena, sv(doc->file));
    sha256_hex(rb->content, rb->hash);
    struct runbook_decoder d = {.doc = doc, .rb = rb, .err = err};
    s = check_content(&d, map);
    if (s != STATUS_OK) {
        runbook_free(rb);
        return s;
    }
    *ret_runbook = rb;
    return STATUS_OK;
}

/* A schedule may be right where other parts are not. */
static enum status prepare_schedule(const struct runbook_decoder *d)
{
    enum status s = runbook_prepare_schedule(d->rb, d->err);
    if (s != STATUS_OK) d->doc->on_fault(d->doc->fault_arg, d->err);
    return s;
}

struct runbook *runbook_parse_all(const struct yaml_document *doc, const struct yaml_node *map)
{
    struct runbook *rb = mem_zalloc(1, sizeof(*rb));
    struct error ignored; /* told to doc->on_fault */
    struct runbook_decoder d = {.doc = doc, .rb = rb, .err = &ignored};
    rb->file = arena_copy(&rb->arena, sv(doc->file));
    enum status s = decode(&d, map);
    if (prepare_schedule(&d) != STATUS_OK || s != STATUS_OK) return rb;
    json_t *tree = yaml_to_json(map);
    rb->content = json_canonical(&rb->arena, tree);
    json_release(tree);
    sha256_hex(rb->content, rb->hash);
    (void)!check_content(&d, map);
    return rb;
}

void runbook_free(struct runbook *rb)
{
    if (rb == NULL) return;
    for (size_t i = 0; i < rb->n_steps; i++)
        json_release(rb->steps[i].with);
    json_release(rb->follow_up.with);
    json_release(rb->escalate.with);
    matchers_release(&rb->match);
    arena_release(&rb->arena);
    free(rb);
}
