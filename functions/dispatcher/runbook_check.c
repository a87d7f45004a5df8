#include <stdio.h>

#include "config/config.h"
#include "function/manifest.h"
#include "functions/dispatcher/runbook.h"
#include "functions/dispatcher/template.h"
#include "log/log.h"

#define NAMES_MAX 64

/* Runbooks against what is deployed. A manifest's "schema" is the JSON Schema of its parameters
 * (function/manifest.h). */
struct check {
    const struct runbook *rb;
    const struct runbook_step *step;
    struct error *err;
    yaml_fault_cb *on_fault; /* NULL: the first fault ends it */
    void *fault_arg;
};

/* As runbook_ends(). */
static bool ends(const struct check *c, enum status s, enum status *ret_worst)
{
    if (s != STATUS_OK) *ret_worst = s;
    return s != STATUS_OK && c->on_fault == NULL;
}

static enum status refuse(const struct check *c, const char *what)
{
    struct strview name = c->rb->name; /* empty: that is a fault of its own */
    struct error fault;
    enum status s = error_set(&fault, STATUS_INVALID_ARGUMENT, "%.*s:%u:%u: %s%.*s%s%s", SV_ARG(c->rb->file),
                              c->step->line, c->step->column, name.len > 0 ? "runbook '" : "", SV_ARG(name),
                              name.len > 0 ? "': " : "", what);
    if (c->err != NULL) *c->err = fault;
    if (c->on_fault != NULL) c->on_fault(c->fault_arg, &fault);
    return s;
}

/* The same, at the value of one parameter. */
static enum status refuse_value(const struct check *c, const char *parameter, const char *what)
{
    struct runbook_step here = *c->step;
    for (size_t i = 0; i < here.n_places; i++) {
        if (!sv_eq(here.places[i].name, sv(parameter))) continue;
        here.line = here.places[i].line;
        here.column = here.places[i].column;
    }
    struct check at = *c;
    at.step = &here;
    return refuse(&at, what);
}

static enum status unknown_parameter(const struct check *c, json_t *properties, const char *name)
{
    const char *names[NAMES_MAX], *key;
    json_t *value;
    size_t n = 0;
    json_object_foreach(properties, key, value) if (n < NAMES_MAX) names[n++] = key;
    const char *nearest = config_nearest(name, names, n);
    char what[256];
    (void)snprintf(what, sizeof(what), "bot '%.*s' has no parameter '%.60s'%s%s%s", SV_ARG(c->step->bot),
                   name, nearest != NULL ? " (did you mean '" : "", nearest != NULL ? nearest : "",
                   nearest != NULL ? "'?)" : "");
    return refuse_value(c, name, what);
}

/* Lightly: what is plainly of another type. A text passes for any single value, because bots take numbers and
 * booleans from a text that spells one, and a variable's value is known only then. */
static bool fits(const json_t *schema, const json_t *value)
{
    struct strview type = json_get_text(schema, "type");
    if (json_is_string(value)) return !sv_eq(type, SV("object")) && !sv_eq(type, SV("array"));
    if (sv_eq(type, SV("integer"))) return json_is_integer(value);
    if (sv_eq(type, SV("boolean"))) return json_is_boolean(value);
    if (sv_eq(type, SV("string")))
        return json_is_integer(value); /* "30" may be written as 30: durations, sizes */
    if (sv_eq(type, SV("array"))) return json_is_array(value);
    if (sv_eq(type, SV("object"))) return json_is_object(value);
    return true;
}

/* What holds no variable is known now: it must be what the bot's own decoder takes. An alert at 3 a.m. is no
 * time to learn that it does not. */
static enum status check_literal(const struct check *c, const struct manifest *m, const char *name,
                                 json_t *value)
{
    struct arena a = {0};
    struct strview text, missing;
    struct error why;
    json_t *expanded = NULL;
    char what[ERROR_MESSAGE_MAX + 80];
    enum status s = template_expand_json(value, &(struct template_vars){0}, &a, &text, &missing);
    bool is_literal = s == STATUS_OK && json_parse(text, JSON_DECODE_ANY, &expanded, NULL) == STATUS_OK;
    s = is_literal ? manifest_check_value(m, name, expanded, &why) : STATUS_OK;
    if (s != STATUS_OK) {
        (void)snprintf(what, sizeof(what), "bot '%.*s': %s", SV_ARG(c->step->bot), why.message);
        s = refuse_value(c, name, what);
    }
    json_release(expanded);
    arena_release(&a);
    return s;
}

static enum status check_literals(const struct check *c, const json_t *manifest)
{
    struct manifest m;
    const char *name;
    json_t *value;
    if (c->step->with == NULL || manifest_params_parse(manifest, &m, NULL) != STATUS_OK)
        return STATUS_OK; /* a foreign function has only its schema */
    enum status s = STATUS_OK;
    json_object_foreach(c->step->with, name, value)
    {
        if (ends(c, check_literal(c, &m, name, value), &s)) break;
    }
    manifest_release(&m);
    return s;
}

/* Known to the bot, and of its type. */
static enum status check_given(const struct check *c, json_t *properties)
{
    enum status worst = STATUS_OK;
    json_t *value;
    const char *name;
    char what[256];
    json_object_foreach(c->step->with, name, value)
    {
        const json_t *property = json_object_get(properties, name);
        enum status s = STATUS_OK;
        if (property == NULL) {
            s = unknown_parameter(c, properties, name);
        } else if (!fits(property, value)) {
            (void)snprintf(what, sizeof(what), "parameter '%.60s' of bot '%.*s' must be of type %s", name,
                           SV_ARG(c->step->bot), json_string_value(json_object_get(property, "type")));
            s = refuse_value(c, name, what);
        }
        if (ends(c, s, &worst)) break;
    }
    return worst;
}

static enum status check_required(const struct check *c, const json_t *required)
{
    enum status worst = STATUS_OK;
    char what[256];
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *name = json_string_value(json_array_get(required, i));
        if (name == NULL || json_object_get(c->step->with, name) != NULL) continue;
        (void)snprintf(what, sizeof(what), "bot '%.*s' needs the parameter '%.60s'", SV_ARG(c->step->bot),
                       name);
        if (ends(c, refuse(c, what), &worst)) break;
    }
    return worst;
}

static enum status check_parameters(const struct check *c, const json_t *manifest)
{
    const json_t *schema = json_object_get(manifest, "schema");
    json_t *properties = json_object_get(schema, "properties");
    enum status s = STATUS_OK;
    if (!json_is_object(properties))
        return STATUS_OK; /* a foreign function says nothing about its parameters */
    if (ends(c, check_given(c, properties), &s)) return s;
    if (ends(c, check_required(c, json_object_get(schema, "required")), &s)) return s;
    return s == STATUS_OK ? check_literals(c, manifest) : s;
}

/* May it stand where it stands: does what follows it prove anything, may it act there? */
static enum status check_place(const struct check *c, const struct function_info *info, bool is_verified)
{
    char what[300];
    if (is_verified && info->removes_series && c->step->verify == VERIFY_RESOLVE) {
        (void)snprintf(
            what, sizeof(what),
            "an act of '%.*s' can itself remove the alerting series, so a resolve proves nothing: write 'verify: check' "
            "or 'verify: {check: {hold: 5m}}'",
            SV_ARG(c->step->bot));
        return refuse(c, what);
    }
    if (!is_verified && info->acts && !info->tells_people) {
        (void)snprintf(
            what, sizeof(what),
            "an escalation passes neither cooldown nor rate, so it must only tell people (such as notify); '%.*s' acts: "
            "make it the last step",
            SV_ARG(c->step->bot));
        return refuse(c, what);
    }
    return STATUS_OK;
}

/* One that only tells people changes nothing by telling nobody: the platform starts without (as with
 * balm-itself.yaml and a stack that has no notify), and balm doctor says so. Who checks a folder hears of it.
 */
static bool is_only_unheard(const struct check *c)
{
    return c->on_fault == NULL && c->rb->n_steps == 0 && c->step == &c->rb->escalate;
}

static enum status unreachable(const struct check *c, enum status s, const struct error *why)
{
    char what[300];
    if (s == STATUS_NOT_FOUND && is_only_unheard(c)) {
        log_warn("dispatcher", "a runbook tells nobody: its function is not deployed",
                 LOG_SV("runbook", c->rb->name), LOG_STR("error", why->message));
        return STATUS_OK;
    }
    if (s == STATUS_NOT_FOUND) { /* the sentence has the nearest name */
        (void)snprintf(what, sizeof(what), "%.200s; stack.yml lists them", why->message);
        return refuse(c, what);
    }
    (void)snprintf(what, sizeof(what), "function '%.*s': %.200s", SV_ARG(c->step->bot), why->message);
    if (c->on_fault != NULL) return refuse(c, what);
    return error_set(c->err, s, "%s", what);
}

static enum status check_step(const struct check *c, bool is_verified, const struct invoker_ops *invoker,
                              void *arg)
{
    struct function_info info;
    struct error why = {0};
    enum status s = invoker->info(arg, c->step->bot, &info, &why);
    if (s != STATUS_OK) return unreachable(c, s, &why);
    if (ends(c, check_place(c, &info, is_verified), &s)) return s;
    json_t *manifest = NULL;
    if (json_parse(info.manifest_json, 0, &manifest, NULL) != STATUS_OK) return s;
    (void)ends(c, check_parameters(c, manifest), &s);
    json_release(manifest);
    return s;
}

static enum status check_all(const struct runbook_set *set, struct check c, const struct invoker_ops *invoker,
                             void *arg)
{
    enum status s = STATUS_OK;
    for (size_t i = 0; i < set->n; i++) {
        c.rb = set->items[i];
        for (size_t k = 0; k < c.rb->n_steps; k++) {
            c.step = &c.rb->steps[k];
            if (ends(&c, check_step(&c, true, invoker, arg), &s)) return s;
        }
        c.step = &c.rb->follow_up;
        if (c.step->bot.len > 0 && ends(&c, check_step(&c, true, invoker, arg), &s)) return s;
        c.step = &c.rb->escalate;
        if (c.step->bot.len > 0 && ends(&c, check_step(&c, false, invoker, arg), &s)) return s;
    }
    return s;
}

enum status runbook_set_check(const struct runbook_set *set, const struct invoker_ops *invoker, void *arg,
                              struct error *err)
{
    return check_all(set, (struct check){.err = err}, invoker, arg);
}

void runbook_set_check_all(const struct runbook_set *set, const struct invoker_ops *invoker,
                           void *invoker_arg, yaml_fault_cb *on_fault, void *arg)
{
    (void)!check_all(set, (struct check){.on_fault = on_fault, .fault_arg = arg}, invoker, invoker_arg);
}
