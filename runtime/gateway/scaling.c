#include "gateway/scaling.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/list.h"

#define LABEL_PREFIX "com.openfaas.scale."

/* ---- the formula ---- */

unsigned scaling_replicas(uint64_t load, uint64_t target, unsigned min, unsigned max)
{
    if (target == 0) target = 1;
    uint64_t n = load / target + (load % target != 0);
    if (n < min) n = min;
    return n < max ? (unsigned)n : max;
}

/* Loads are counts of what is held in memory: times 1000 they do not overflow. */
static unsigned of_proportion(const struct scaling_policy *p, uint64_t load)
{
    return scaling_replicas(load * 1000, (uint64_t)p->target * p->proportion_permille, 0, p->max);
}

unsigned scaling_wanted(const struct scaling_policy *p, const struct scaling_load *load)
{
    uint64_t backlog_target = p->type == SCALING_QUEUE ? p->target : SCALING_BACKLOG_TARGET;
    unsigned n = scaling_replicas(load->backlog, backlog_target, 0, p->max), own = 0;
    if (p->type == SCALING_CAPACITY) own = of_proportion(p, load->inflight);
    if (p->type == SCALING_RPS) own = of_proportion(p, load->per_s);
    return n > own ? n : own;
}

unsigned scaling_settle(struct scaling_history *h, int64_t now_ns, unsigned wanted)
{
    int64_t slot = now_ns / (SCALING_SETTLE_NS / SCALING_SETTLE_SLOTS);
    for (unsigned i = 0; h->slot < slot && i < SCALING_SETTLE_SLOTS; i++)
        if (slot - i > h->slot) h->most[(slot - i) % SCALING_SETTLE_SLOTS] = 0;
    h->slot = slot;
    unsigned *now = &h->most[slot % SCALING_SETTLE_SLOTS], most = 0;
    if (wanted > *now) *now = wanted;
    for (size_t i = 0; i < SCALING_SETTLE_SLOTS; i++)
        if (h->most[i] > most) most = h->most[i];
    return most;
}

/* ---- labels ---- */

struct reader {
    const json_t *labels;
    struct arena *arena;
    struct scaling_warnings *warnings;
};

static void warn(struct reader *r, const char *name, struct strview value, const char *why)
{
    if (r->warnings->n == SCALING_WARNINGS_MAX) return;
    r->warnings->items[r->warnings->n++] = arena_printf(r->arena, "label " LABEL_PREFIX "%s '%.*s': %s", name,
                                                        SV_ARG(sv_sub(value, 0, 40)), why);
}

static bool find(const struct reader *r, const char *name, struct strview *ret_value)
{
    const json_t *value = json_object_get(r->labels, arena_printf(r->arena, LABEL_PREFIX "%s", name).ptr);
    if (!json_is_string(value)) return false;
    *ret_value = sv_n(json_string_value(value), json_string_length(value));
    return true;
}

static unsigned read_number(struct reader *r, const char *name, unsigned fallback, unsigned min, unsigned max)
{
    struct strview text;
    uint64_t value;
    if (!find(r, name, &text)) return fallback;
    if (sv_parse_u64(text, &value) != STATUS_OK || value < min) {
        warn(r, name, text, arena_printf(r->arena, "no whole number from %u: it is %u", min, fallback).ptr);
        return fallback;
    }
    if (value <= max) return (unsigned)value;
    warn(r, name, text, arena_printf(r->arena, "at most %u: it is that", max).ptr);
    return max;
}

/* "0.9", "0.95", "1": thousandths; what is finer is cut off. */
static bool parse_permille(struct strview text, unsigned *ret_permille)
{
    struct strview rest = text, whole;
    uint64_t ones, decimals = 0;
    (void)sv_next(&rest, '.', &whole);
    rest = sv_sub(rest, 0, 3);
    if (sv_parse_u64(whole, &ones) != STATUS_OK || ones > 1) return false;
    if (rest.len > 0 && sv_parse_u64(rest, &decimals) != STATUS_OK) return false;
    for (size_t i = rest.len; i < 3; i++)
        decimals *= 10;
    uint64_t permille = ones * 1000 + decimals;
    if (permille == 0 || permille > 1000) return false;
    *ret_permille = (unsigned)permille;
    return true;
}

static void read_type(struct reader *r, struct scaling_policy *p)
{
    static const char *const names[] = {
        [SCALING_CAPACITY] = "capacity", [SCALING_RPS] = "rps", [SCALING_QUEUE] = "queue"};
    struct strview text;
    p->target = SCALING_TARGET_DEFAULT;
    if (find(r, "type", &text)) {
        size_t i = 0;
        while (i < ARRAY_LEN(names) && !sv_eq(text, sv(names[i])))
            i++;
        if (i == ARRAY_LEN(names)) { /* its target is of something else */
            warn(r, "type", text, "not measured here (capacity, rps or queue): it is capacity, of target 50");
            return;
        }
        p->type = (enum scaling_type)i;
    }
    if (p->type == SCALING_QUEUE) p->target = SCALING_BACKLOG_TARGET;
    p->target = read_number(r, "target", p->target, 1, SCALING_TARGET_MAX);
}

static void read_bounds(struct reader *r, struct scaling_policy *p)
{
    struct strview text;
    unsigned min = read_number(r, "min", 0, 0, SCALING_REPLICAS_MAX);
    p->max = read_number(r, "max", min > SCALING_REPLICAS_DEFAULT ? min : SCALING_REPLICAS_DEFAULT, 1,
                         SCALING_REPLICAS_MAX);
    if (min > p->max) {
        (void)find(r, "min", &text);
        warn(r, "min", text, arena_printf(r->arena, "more than scale.max: it is %u", p->max).ptr);
        min = p->max;
    }
    p->has_max = find(r, "max", &text);
    p->floor = min;
    p->wake = min > 0 ? min : 1;
    if (!find(r, "zero", &text)) return;
    if (sv_eq(text, SV("true")))
        p->floor = 0; /* whatever the minimum, which is then what it wakes to */
    else if (sv_eq(text, SV("false")))
        p->floor = p->wake;
    else
        warn(r, "zero", text, "neither true nor false: it is not there");
}

static void read_idle(struct reader *r, struct scaling_policy *p)
{
    struct strview text;
    int64_t ns;
    if (!find(r, "zero-duration", &text)) return;
    if (duration_parse(text, &ns) == STATUS_OK && ns > 0)
        p->idle_ns = ns;
    else
        warn(r, "zero-duration", text, "no duration as \"15m\": it is the platform's (--idle)");
}

static bool is_known(const char *name)
{
    static const char *const known[] = {
        "min", "max", "zero", "zero-duration", "target", "type", "target-proportion"};
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (sv_eq(sv(name), sv(known[i]))) return true;
    return false;
}

static void warn_of_others(struct reader *r)
{
    struct strview prefix = SV(LABEL_PREFIX);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)r->labels, key, value)
    {
        if (!sv_starts_with(sv(key), prefix) || is_known(key + prefix.len)) continue;
        warn(r, arena_cstr(r->arena, sv_sub(sv(key), prefix.len, prefix.len + 40)),
             sv(json_string_value(value)), "not known here: it changes nothing");
    }
}

void scaling_read_labels(const json_t *labels, int64_t idle_ns, struct arena *a,
                         struct scaling_policy *ret_policy, struct scaling_warnings *ret_warnings)
{
    struct reader r = {.labels = labels, .arena = a, .warnings = ret_warnings};
    struct scaling_policy p = {.idle_ns = idle_ns, .proportion_permille = 900};
    struct strview text;
    *ret_warnings = (struct scaling_warnings){0};
    read_type(&r, &p);
    read_bounds(&r, &p);
    read_idle(&r, &p);
    if (find(&r, "target-proportion", &text) && !parse_permille(text, &p.proportion_permille))
        warn(&r, "target-proportion", text, "no share of 0.001 to 1: it is 0.9");
    warn_of_others(&r);
    *ret_policy = p;
}
