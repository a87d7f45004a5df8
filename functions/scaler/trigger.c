#include "functions/scaler/trigger.h"

#include <math.h>
#include <stdlib.h>

#include "gateway/scaling.h"

#define NUMBER_MAX_LEN 32

static struct strview value_of(const struct trigger_pair *pairs, size_t n, struct strview key)
{
    while (n-- > 0)
        if (sv_eq(pairs[n].key, key)) return sv_trim(pairs[n].value);
    return (struct strview){0};
}

static enum status read_number(struct strview key, struct strview text, double *ret_value, struct error *err)
{
    char copy[NUMBER_MAX_LEN + 1], *end = copy;
    double value = 0;
    bool is_short = text.len > 0 && text.len <= NUMBER_MAX_LEN;
    for (size_t i = 0; is_short && i < text.len; i++)
        is_short = (text.ptr[i] >= '0' && text.ptr[i] <= '9') || text.ptr[i] == '.';
    if (is_short) {
        memcpy(copy, text.ptr, text.len);
        copy[text.len] = '\0';
        value = strtod(copy, &end);
    }
    if (!is_short || *end != '\0' || !isfinite(value) || value <= 0 || value > TRIGGER_TARGET_MAX)
        return error_set(err, STATUS_INVALID_ARGUMENT, "metadata %.*s: '%.*s' is no number above 0",
                         SV_ARG(key), (int)(text.len < 64 ? text.len : 64), text.ptr);
    *ret_value = value;
    return STATUS_OK;
}

enum status trigger_read(const struct trigger_pair *pairs, size_t n, struct arena *a,
                         struct trigger *ret_trigger, struct error *err)
{
    struct trigger t = {.function = value_of(pairs, n, SV("function"))};
    struct strview size = value_of(pairs, n, SV("targetSize")), age = value_of(pairs, n, SV("targetAge"));
    double target = SCALING_BACKLOG_TARGET, age_target = 0;
    enum status s = STATUS_OK;
    bool is_all = sv_eq(t.function, SV("*"));
    if (!is_all && !sv_is_dns_label(t.function))
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "metadata function: a function's name, or '*', is needed");
    if (size.len > 0) s = read_number(SV("targetSize"), size, &target, err);
    if (s == STATUS_OK && age.len > 0) s = read_number(SV("targetAge"), age, &age_target, err);
    if (s != STATUS_OK) return s;
    struct strview name = t.function;
    if (is_all) name = SV("all");
    t.function = arena_copy(a, sv_sub(t.function, 0, is_all ? 0 : t.function.len));
    t.specs[t.n_specs++] =
        (struct trigger_spec){arena_printf(a, "balm-%.*s", SV_ARG(name)), TRIGGER_DEPTH, target};
    if (age.len > 0)
        t.specs[t.n_specs++] =
            (struct trigger_spec){arena_printf(a, "balm-%.*s-age", SV_ARG(name)), TRIGGER_AGE, age_target};
    *ret_trigger = t;
    return STATUS_OK;
}

const struct trigger_spec *trigger_find(const struct trigger *t, struct strview metric_name)
{
    for (size_t i = 0; i < t->n_specs; i++)
        if (sv_eq(t->specs[i].name, metric_name)) return &t->specs[i];
    return NULL;
}
