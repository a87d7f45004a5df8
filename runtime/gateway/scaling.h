/* How many replicas a load asks for. One formula, for the processes of one machine and for what KEDA is told
 * in a cluster, so that both behave alike: ceil(load / target), as a HorizontalPodAutoscaler computes it for
 * an AverageValue; of several loads the one that asks for most has its way.
 *
 *   backlog    intents and calls without outcome that are ready or under way: always a load, of target
 *              SCALING_BACKLOG_TARGET (KEDA's targetSize)
 *   capacity   requests under way (com.openfaas.scale.type; without the label this one)
 *   rps        requests a second
 *   queue      the backlog alone, with the label's target
 *
 * What the labels of OpenFaaS mean is in contracts/openfaas.md §2.13. Another default here: a function
 * without scale.min and scale.zero goes to 0. What cannot be honoured is said in a warning, and its default
 * is used.
 *
 * Pure: no clock, no deployment. */
#ifndef BALM_GATEWAY_SCALING_H
#define BALM_GATEWAY_SCALING_H

#include <jansson.h>

#include "base/arena.h"

#define SCALING_REPLICAS_MAX     64 /* of one function, whatever its labels say */
#define SCALING_REPLICAS_DEFAULT 5  /* without scale.max, as OpenFaaS CE */
#define SCALING_BACKLOG_TARGET   10
#define SCALING_TARGET_DEFAULT   50
#define SCALING_TARGET_MAX       100000
#define SCALING_WARNINGS_MAX     10

enum scaling_type { SCALING_CAPACITY, SCALING_RPS, SCALING_QUEUE };

struct scaling_policy {
    enum scaling_type type;
    unsigned floor; /* replicas of a function that nobody uses */
    unsigned wake;  /* at least so many of one that is used; > 0 */
    unsigned max;
    bool has_max;                 /* by a label: a person may ask for no more, either */
    unsigned target;              /* load of one replica; > 0 */
    unsigned proportion_permille; /* of the target that a replica is loaded with; not of a queue's */
    int64_t idle_ns;              /* without requests for so long nobody uses it; 0: never */
};

struct scaling_load {
    uint64_t inflight, per_s, backlog;
};

/* ceil(load / target) within min … max. target 0 counts as 1. */
unsigned scaling_replicas(uint64_t load, uint64_t target, unsigned min, unsigned max);
/* What the load asks for, 0 … max. */
unsigned scaling_wanted(const struct scaling_policy *p, const struct scaling_load *load);

struct scaling_warnings {
    struct strview items[SCALING_WARNINGS_MAX];
    size_t n;
};

/* labels: text -> text; NULL: none. idle_ns: the platform's, for want of a label. The warnings are sentences
 * in the arena. */
void scaling_read_labels(const json_t *labels, int64_t idle_ns, struct arena *a,
                         struct scaling_policy *ret_policy, struct scaling_warnings *ret_warnings);

/* A load that goes up and down must not start and end processes all the time: fewer replicas only once the
 * most that was asked for within SCALING_SETTLE_NS is less. Zeroed at first. */
#define SCALING_SETTLE_NS    (INT64_C(30) * 1000 * 1000 * 1000)
#define SCALING_SETTLE_SLOTS 6
struct scaling_history {
    int64_t slot;                        /* the newest, in SCALING_SETTLE_NS / SCALING_SETTLE_SLOTS */
    unsigned most[SCALING_SETTLE_SLOTS]; /* of slot - i, at [(slot - i) % SCALING_SETTLE_SLOTS] */
};
/* Notes `wanted`; returns the most of the time before. */
unsigned scaling_settle(struct scaling_history *h, int64_t now_ns, unsigned wanted);

#endif
