#include <stdio.h>

#include "config/config.h"
#include "functions/dispatcher/runbook.h"

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
    return refuse(c, what);
}

/* Lightly: what is plainly of another type. Texts pass everywhere, because bots take numbers and booleans
 * from a text that spells one. */
static bool fits(const json_t *schema, const json_t *value)
{
    struct strview type = json_get_text(schema, "type");
    if (json_is_string(value)) return !sv_eq(type, SV("object"));
    if (sv_eq(type, SV("integer"))) return json_is_integer(value);
    if (sv_eq(type, SV("boolean"))) return json_is_boolean(value);
    if (sv_eq(type, SV("string")))
        return json_is_integer(value); /* "30" may be written as 30: durations, sizes */
    if (sv_eq(type, SV("array"))) return json_is_array(value);
    if (sv_eq(type, SV("object"))) return json_is_object(value);
    return true;
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
        return refuse(c, what);
    }
    for (size_t i = 0; i < json_array_size(required); i++) {
        name = json_string_value(json_array_get(required, i));
        if (name == NULL || json_object_get(c->step->with, name) != NULL) continue;
        (void)snprintf(what, sizeof(what), "bot '%.*s' needs the parameter '%.60s'", SV_ARG(c->step->bot),
                       name);
        return refuse(c, what);
    }
    return STATUS_OK;
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
        if (s == STATUS_OK && rb->escalate.bot.len > 0)
            s = check_step(rb, &rb->escalate, false, invoker, arg, err);
        if (s != STATUS_OK) return s;
    }
    return STATUS_OK;
}
