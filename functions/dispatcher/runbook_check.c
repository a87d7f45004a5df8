#include <stdio.h>

#include "config/config.h"
#include "function/manifest.h"
#include "functions/dispatcher/runbook.h"
#include "functions/dispatcher/template.h"

#define NAMES_MAX 64

/* Runbooks against what is deployed. A manifest's "schema" is the JSON Schema of its parameters
 * (function/manifest.h). */
struct check {
    const struct runbook *rb;
    const struct runbook_step *step;
    struct error *err;
};

static enum status refuse(const struct check *c, const char *what)
{
    return error_set(c->err, STATUS_INVALID_ARGUMENT, "%.*s:%u:%u: runbook '%.*s': %s", SV_ARG(c->rb->file),
                     c->step->line, c->step->column, SV_ARG(c->rb->name), what);
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
    return refuse(&(struct check){c->rb, &here, c->err}, what);
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
    json_object_foreach(c->step->with, name, value) if (s == STATUS_OK) s = check_literal(c, &m, name, value);
    manifest_release(&m);
    return s;
}

static enum status check_parameters(const struct check *c, const json_t *manifest)
{
    const json_t *schema = json_object_get(manifest, "schema");
    json_t *properties = json_object_get(schema, "properties"), *value;
    const json_t *required = json_object_get(schema, "required");
    const char *name;
    char what[256];
    if (!json_is_object(properties))
        return STATUS_OK; /* a foreign function says nothing about its parameters */
    json_object_foreach(c->step->with, name, value)
    {
        const json_t *property = json_object_get(properties, name);
        if (property == NULL) return unknown_parameter(c, properties, name);
        if (fits(property, value)) continue;
        (void)snprintf(what, sizeof(what), "parameter '%.60s' of bot '%.*s' must be of type %s", name,
                       SV_ARG(c->step->bot), json_string_value(json_object_get(property, "type")));
        return refuse_value(c, name, what);
    }
    for (size_t i = 0; i < json_array_size(required); i++) {
        name = json_string_value(json_array_get(required, i));
        if (name == NULL || json_object_get(c->step->with, name) != NULL) continue;
        (void)snprintf(what, sizeof(what), "bot '%.*s' needs the parameter '%.60s'", SV_ARG(c->step->bot),
                       name);
        return refuse(c, what);
    }
    return check_literals(c, manifest);
}

static enum status check_step(const struct runbook *rb, const struct runbook_step *step, bool is_verified,
                              const struct invoker_ops *invoker, void *arg, struct error *err)
{
    struct check c = {rb, step, err};
    struct function_info info;
    struct error why = {0};
    char what[300];
    enum status s = invoker->info(arg, step->bot, &info, &why);
    if (s == STATUS_NOT_FOUND) {
        (void)snprintf(what, sizeof(what), "no function '%.*s' is deployed (stack.yml lists them)",
                       SV_ARG(step->bot));
        return refuse(&c, what);
    }
    if (s != STATUS_OK) {
        if (err != NULL) *err = why;
        return error_prefix(err, s, "function '%.*s'", SV_ARG(step->bot));
    }
    if (is_verified && info.removes_series && step->verify == VERIFY_RESOLVE) {
        (void)snprintf(
            what, sizeof(what),
            "an act of '%.*s' can itself remove the alerting series, so a resolve proves nothing: write 'verify: check' "
            "or 'verify: {check: {hold: 5m}}'",
            SV_ARG(step->bot));
        return refuse(&c, what);
    }
    if (!is_verified && info.acts && !info.tells_people) {
        (void)snprintf(
            what, sizeof(what),
            "an escalation passes neither cooldown nor rate, so it must only tell people (such as notify); '%.*s' acts: "
            "make it the last step",
            SV_ARG(step->bot));
        return refuse(&c, what);
    }
    json_t *manifest = NULL;
    if (json_parse(info.manifest_json, 0, &manifest, NULL) != STATUS_OK) return STATUS_OK;
    s = check_parameters(&c, manifest);
    json_release(manifest);
    return s;
}

enum status runbook_set_check(const struct runbook_set *set, const struct invoker_ops *invoker, void *arg,
                              struct error *err)
{
    for (size_t i = 0; i < set->n; i++) {
        const struct runbook *rb = set->items[i];
        enum status s = STATUS_OK;
        for (size_t k = 0; k < rb->n_steps && s == STATUS_OK; k++)
            s = check_step(rb, &rb->steps[k], true, invoker, arg, err);
        if (s == STATUS_OK && rb->follow_up.bot.len > 0)
            s = check_step(rb, &rb->follow_up, true, invoker, arg, err);
        if (s == STATUS_OK && rb->escalate.bot.len > 0)
            s = check_step(rb, &rb->escalate, false, invoker, arg, err);
        if (s != STATUS_OK) return s;
    }
    return STATUS_OK;
}
