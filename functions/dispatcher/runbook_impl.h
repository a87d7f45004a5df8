/* Shared by runbook*.c alone. */
#ifndef BALM_DISPATCHER_RUNBOOK_IMPL_H
#define BALM_DISPATCHER_RUNBOOK_IMPL_H

#include "functions/dispatcher/runbook.h"

#define MINUTE_NS (60 * NS_PER_S)
#define HOUR_NS   (60 * MINUTE_NS)

/* What the decoder carries along. */
struct runbook_decoder {
    const struct yaml_document *doc;
    struct runbook *rb;
    struct error *err;
};

/* The first fault ends it, unless all of them are wanted: then the next part is looked at all the same.
 * *ret_worst is kept where there is none. */
bool runbook_ends(const struct runbook_decoder *d, enum status s, enum status *ret_worst);

/* runbook_step.c. The schedule, if there is one, has been decoded before. */
enum runbook_step_kind { STEP_OF_LADDER, STEP_FOLLOW_UP, STEP_ESCALATE };
enum status runbook_check_template(const struct runbook_decoder *d, const struct yaml_node *at,
                                   bool allow_target, bool allow_reason) MUST_USE;
enum status runbook_decode_step(const struct runbook_decoder *d, const struct yaml_node *node,
                                enum runbook_step_kind kind, struct runbook_step *ret_step) MUST_USE;
enum status runbook_decode_steps(const struct runbook_decoder *d, const struct yaml_node *list) MUST_USE;

#endif
