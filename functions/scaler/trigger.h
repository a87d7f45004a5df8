/* What a ScaledObject's trigger asks for, from its metadata: untrusted, whoever may make a ScaledObject
 * writes it. Pure. */
#ifndef BALM_FUNCTIONS_SCALER_TRIGGER_H
#define BALM_FUNCTIONS_SCALER_TRIGGER_H

#include "base/arena.h"

#define TRIGGER_TARGET_MAX 1e9
#define TRIGGER_SPECS_MAX  2

struct trigger_pair {
    struct strview key, value;
};

enum trigger_metric { TRIGGER_DEPTH, TRIGGER_AGE };

/* One metric of a trigger, as KEDA is told of it. */
struct trigger_spec {
    struct strview name; /* "balm-NAME" or "balm-NAME-age": stable, and safe in a URL */
    enum trigger_metric metric;
    double target; /* for each replica; > 0 */
};

struct trigger {
    struct strview function; /* empty: all of them together ("*") */
    struct trigger_spec specs[TRIGGER_SPECS_MAX];
    size_t n_specs;
};

/* Keys: `function` (a function's name, or "*"), `targetSize` (10), `targetAge` (seconds; without it age is no
 * metric). The last of a key that comes twice counts; others are KEDA's and not looked at. Views are the
 * arena's. STATUS_INVALID_ARGUMENT: one of them cannot be. */
enum status trigger_read(const struct trigger_pair *pairs, size_t n, struct arena *a,
                         struct trigger *ret_trigger, struct error *err) MUST_USE;
/* NULL: the trigger has no such metric. */
const struct trigger_spec *trigger_find(const struct trigger *t, struct strview metric_name);

#endif
