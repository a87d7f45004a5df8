/* The guardrails that are decided here, one table, in the order of actions.md §5.3 (cheap to dear). Every
 * intent and every refusal lists all of them with value and limit; the first one that is not ok refuses. The
 * bot checks the rest: lease, permission, uid, preconditions. */
#ifndef BALM_DISPATCHER_GATES_H
#define BALM_DISPATCHER_GATES_H

#include "functions/dispatcher/state.h"

/* What is asked: may this incident's step act now? */
struct gate_question {
    const struct state *state;
    const struct incident *incident;
    int64_t now_ns; /* effective time of the input */
    struct strview
        params_missing; /* a variable of the parameters that the alert does not have; empty: none */
    size_t taken_on_target,
        taken_of_runbook; /* by intents decided on the same input, which the state does not know yet */
    const struct incident
        *freed; /* an incident that gives its target up by what is decided on this input; NULL: none */
};

struct gate_result {
    const char *name;
    bool is_ok;
    struct strview value, limit; /* JSON */
    struct strview reason;       /* one sentence if not ok */
    int64_t opens_ns;            /* when time alone will open it; 0: something else must happen */
};

#define GATES_MAX 16

/* Every gate, in order, in the arena. Returns the first that is not ok, or NULL. */
const struct gate_result *gates_evaluate(const struct gate_question *q, struct arena *a,
                                         struct gate_result ret_results[GATES_MAX], size_t *ret_n);
/* Mode and freeze alone: for telling a person, which nothing else must hold up. */
const struct gate_result *gates_evaluate_escalation(const struct gate_question *q, struct arena *a,
                                                    struct gate_result ret_results[GATES_MAX], size_t *ret_n);
/* [{"gate","limit","ok","value"}…], canonical. */
struct strview gates_json(const struct gate_result *results, size_t n, struct arena *a);

#endif
