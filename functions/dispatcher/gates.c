#include "functions/dispatcher/gates.h"

#include <inttypes.h>

typedef void gate_fn(const struct gate_question *q, struct arena *a, struct gate_result *ret);

/* What needs no escaping. */
static struct strview quoted(struct arena *a, struct strview text)
{
    const struct strview parts[] = {SV("\""), text, SV("\"")};
    return arena_join(a, parts, ARRAY_LEN(parts));
}

static struct strview json_string_view(struct arena *a, struct strview s)
{
    struct buf b;
    buf_init(&b, 8 * TARGET_MAX);
    buf_append_json_string(&b, s);
    struct strview text = arena_copy(a, buf_view(&b));
    buf_release(&b);
    return text;
}

/* No gate counts below 0. */
static struct strview json_number(struct arena *a, int64_t n)
{
    char digits[SV_U64_MAX];
    return arena_copy(a, sv_u64((uint64_t)n, digits));
}

static struct strview json_duration(struct arena *a, int64_t ns)
{
    char text[DURATION_TEXT_MAX];
    return quoted(a, sv(duration_format(ns, text)));
}

static void gate_mode(const struct gate_question *q, struct arena *a, struct gate_result *ret)
{
    const struct runbook *rb = q->incident->runbook;
    enum runbook_mode mode = state_mode(q->state, rb->name);
    ret->is_ok = mode == RUNBOOK_ACT;
    ret->value = quoted(a, sv(runbook_mode_name(mode)));
    ret->limit = SV("\"act\"");
    if (ret->is_ok) return;
    ret->reason = mode == RUNBOOK_SHADOW
                      ? arena_printf(a, "runbook '%.*s' is in shadow: it only records what it would do",
                                     SV_ARG(rb->name))
                      : arena_printf(a, "runbook '%.*s' is switched off", SV_ARG(rb->name));
}

static void gate_freeze(const struct gate_question *q, struct arena *a, struct gate_result *ret)
{
    (void)a;
    ret->is_ok = !q->state->is_frozen;
    ret->value = q->state->is_frozen ? SV("\"frozen\"") : SV("\"off\"");
    ret->limit = SV("\"off\"");
    ret->reason = SV("acting is stopped (balm stop); balm resume lets it go on");
}

static void gate_clock(const struct gate_question *q, struct arena *a, struct gate_result *ret)
{
    (void)a;
    ret->is_ok = !q->state->is_clock_settling;
    ret->value = q->state->is_clock_settling ? SV("\"settling\"") : SV("\"steady\"");
    ret->limit = SV("\"steady\"");
    ret->reason = SV("the clock has jumped and has not settled yet");
}

static void gate_target(const struct gate_question *q, struct arena *a, struct gate_result *ret)
{
    ret->is_ok = q->incident->target != NULL;
    ret->value = json_string_view(a, q->incident->target_name);
    ret->limit = SV("\"not empty\"");
    if (ret->is_ok) return;
    ret->reason = arena_printf(a, "no target: '%.*s' in '%.*s'; an empty target never means all",
                               SV_ARG(q->incident->target_missing), SV_ARG(q->incident->runbook->target));
}

static void gate_params(const struct gate_question *q, struct arena *a, struct gate_result *ret)
{
    ret->is_ok = q->params_missing.len == 0;
    ret->value =
        ret->is_ok ? SV("\"complete\"") : json_string_view(a, sv_sub(q->params_missing, 0, TARGET_MAX));
    ret->limit = SV("\"complete\"");
    if (ret->is_ok) return;
    ret->reason = arena_printf(a, "a parameter cannot be made: '%.*s'", SV_ARG(q->params_missing));
}

/* Since the last act on the target ended that was not this incident's own: the rungs of one ladder are paced
 * by their verification. */
static void gate_cooldown(const struct gate_question *q, struct arena *a, struct gate_result *ret)
{
    const struct target *t = q->incident->target;
    int64_t cooldown = q->incident->runbook->guardrails.cooldown_ns, last = 0;
    for (size_t i = 0; t != NULL && i < t->n_acts; i++) {
        const struct act *act = &t->acts[i];
        bool is_given_up = act->ended_ns == 0 && q->freed != NULL && q->freed->seq == act->incident_seq;
        int64_t ended_ns = is_given_up ? q->now_ns : act->ended_ns;
        if (act->incident_seq != q->incident->seq && ended_ns > last) last = ended_ns;
    }
    int64_t since = clock_elapsed_ns(last, q->now_ns);
    ret->is_ok = last == 0 || since >= cooldown;
    ret->value = last == 0 ? SV("\"no act before\"") : json_duration(a, since);
    ret->limit = json_duration(a, cooldown);
    if (ret->is_ok) return;
    ret->opens_ns = last + cooldown;
    char is[DURATION_TEXT_MAX], wanted[DURATION_TEXT_MAX];
    ret->reason = arena_printf(a, "the last act on this target ended %s ago; %s must lie between",
                               duration_format(since < 0 ? 0 : since, is), duration_format(cooldown, wanted));
}

static void gate_rate(const struct gate_question *q, struct arena *a, struct gate_result *ret)
{
    const struct target *t = q->incident->target;
    const struct runbook_guardrails *g = &q->incident->runbook->guardrails;
    int64_t n = 0;
    for (size_t i = 0; t != NULL && i < t->n_acts; i++)
        if (t->acts[i].began_ns > q->now_ns - g->rate_per_ns) n++;
    char per[DURATION_TEXT_MAX];
    (void)duration_format(g->rate_per_ns, per);
    ret->is_ok = n < g->rate_max;
    ret->value = json_number(a, n);
    const struct strview limit[] = {SV("\""), json_number(a, g->rate_max), SV(" per "), sv(per), SV("\"")};
    ret->limit = arena_join(a, limit, ARRAY_LEN(limit));
    if (ret->is_ok) return;
    ret->reason = arena_printf(
        a, "%" PRId64 " acts on this target within %s, %" PRId64 " are allowed: it needs a person", n, per,
        g->rate_max);
}

/* A target is taken from the intent until the act is verified: an alert that our own act causes must not lead
 * to the next one. */
static void gate_in_flight(const struct gate_question *q, struct arena *a, struct gate_result *ret)
{
    const struct target *t = q->incident->target;
    size_t n = q->taken_on_target;
    if (t != NULL) {
        n += t->n_busy - (incident_is_busy(q->incident) ? 1 : 0);
        if (q->freed != NULL && q->freed != q->incident && q->freed->target == t &&
            incident_is_busy(q->freed))
            n--;
    }
    ret->is_ok = n == 0;
    ret->value = json_number(a, (int64_t)n);
    ret->limit = SV("1");
    ret->reason = SV("another incident's act on this target is under way or not verified yet");
}

static void gate_in_flight_runbook(const struct gate_question *q, struct arena *a, struct gate_result *ret)
{
    int64_t n = (int64_t)(q->incident->slot->n_acting + q->taken_of_runbook);
    int64_t max = q->incident->runbook->guardrails.max_in_flight;
    ret->is_ok = n < max;
    ret->value = json_number(a, n);
    ret->limit = json_number(a, max);
    if (ret->is_ok) return;
    ret->reason =
        arena_printf(a, "%" PRId64 " acts of this runbook are under way, at most %" PRId64 " may be", n, max);
}

/* The order is the contract. Each gate that is still to come has its line; it is added where its line stands.
 */
static const struct gate {
    const char *name;
    gate_fn *evaluate;
    bool for_escalation;
} gates[] = {
    {"mode", gate_mode, true},
    {"freeze", gate_freeze, true},
    {"clock", gate_clock, false},
    {"target", gate_target, false},
    {"params", gate_params, false},
    /* window: maintenance windows and pauses */
    {"cooldown", gate_cooldown, false},
    {"rate", gate_rate, false},
    /* circuit: failed verifications in a row, per bot */
    /* control_plane: do nothing while it is degraded */
    {"in_flight", gate_in_flight, false},
    {"in_flight_runbook", gate_in_flight_runbook, false},
    /* blast_radius: share and count of the target's group */
    /* human: somebody is logged in on the target */
    /* approval: one or two people, bound to the hash of the request */
};

static const struct gate_result *evaluate(const struct gate_question *q, bool is_escalation, struct arena *a,
                                          struct gate_result *ret_results, size_t *ret_n)
{
    const struct gate_result *first = NULL;
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_LEN(gates); i++) {
        if (is_escalation && !gates[i].for_escalation) continue;
        struct gate_result *result = &ret_results[n++];
        *result = (struct gate_result){.name = gates[i].name};
        gates[i].evaluate(q, a, result);
        if (!result->is_ok && first == NULL) first = result;
    }
    *ret_n = n;
    return first;
}

const struct gate_result *gates_evaluate(const struct gate_question *q, struct arena *a,
                                         struct gate_result ret_results[GATES_MAX], size_t *ret_n)
{
    _Static_assert(ARRAY_LEN(gates) <= GATES_MAX, "GATES_MAX");
    return evaluate(q, false, a, ret_results, ret_n);
}

const struct gate_result *gates_evaluate_escalation(const struct gate_question *q, struct arena *a,
                                                    struct gate_result ret_results[GATES_MAX], size_t *ret_n)
{
    return evaluate(q, true, a, ret_results, ret_n);
}

/* Each intent has nine of them: printf was a tenth of what deciding costs. */
static void append_gate(struct buf *b, const struct gate_result *r)
{
    buf_append(b, b->len > 1 ? SV(",{\"gate\":\"") : SV("{\"gate\":\""));
    buf_append(b, sv(r->name));
    buf_append(b, SV("\",\"limit\":"));
    buf_append(b, r->limit);
    buf_append(b, r->is_ok ? SV(",\"ok\":true,\"value\":") : SV(",\"ok\":false,\"value\":"));
    buf_append(b, r->value);
    buf_append_char(b, '}');
}

struct strview gates_json(const struct gate_result *results, size_t n, struct arena *a)
{
    struct buf b;
    buf_init(&b, 64 * 1024);
    buf_append_char(&b, '[');
    for (size_t i = 0; i < n; i++)
        append_gate(&b, &results[i]);
    buf_append_char(&b, ']');
    struct strview text = arena_copy(a, buf_view(&b));
    buf_release(&b);
    return text;
}
