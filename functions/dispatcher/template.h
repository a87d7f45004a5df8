/* Substitution in runbooks, and nothing more than that: no expressions, no loops, so it always ends.
 *
 *   ${labels.NAME}  ${annotations.NAME}  ${incident}  ${runbook}  ${target}
 *   ${reason} (escalation only)     $${ is a literal ${
 *
 * A label that is missing or empty is never replaced by nothing: the caller is told its name and refuses
 * (actions.md §6.1: an empty target never means all). The result is data, handed on as one JSON text, never
 * parsed again. */
#ifndef BALM_DISPATCHER_TEMPLATE_H
#define BALM_DISPATCHER_TEMPLATE_H

#include "base/json.h"
#include "store/record.h"

#define TEMPLATE_RESULT_MAX (64 * 1024) /* one expanded text: annotations are a peer's */

struct template_vars {
    const struct record_labels *labels, *annotations;
    struct strview incident, runbook, target, reason; /* empty: not allowed here, or not known */
    struct strview
        fallback; /* stands for what is missing, where a person shall be told all the same; empty: refuse */
};

/* Are all variables of `text` known ones? allow_target: ${target} and ${runbook}; allow_reason: ${reason}. */
enum status template_check(struct strview text, bool allow_target, bool allow_reason,
                           struct error *err) MUST_USE;
bool template_has_variables(struct strview text);
/* Text with every variable replaced. STATUS_NOT_FOUND: *ret_missing names the variable that is missing or
 * empty. STATUS_RESOURCE_EXHAUSTED: longer than TEMPLATE_RESULT_MAX. */
enum status template_expand(struct strview text, const struct template_vars *vars, struct arena *a,
                            struct strview *ret_text, struct strview *ret_missing) MUST_USE;
/* Every string value of a JSON tree, keys as they are; canonical JSON. Same errors. */
enum status template_expand_json(json_t *tree, const struct template_vars *vars, struct arena *a,
                                 struct strview *ret_json, struct strview *ret_missing) MUST_USE;

#endif
