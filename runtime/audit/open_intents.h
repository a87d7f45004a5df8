/* Which acts have no outcome: intents go in, outcomes take them out. For verify.c. */
#ifndef BALM_AUDIT_OPEN_INTENTS_H
#define BALM_AUDIT_OPEN_INTENTS_H

#include "store/record.h"

struct open_intent;
struct open_intents {
    struct open_intent **buckets; /* owned */
    size_t n_buckets, n;
    uint64_t epoch; /* of the newest decider: what older ones decide behind it is void (design §1) */
};

/* Nothing is open. */
void open_intents_init(struct open_intents *t);
void open_intents_release(struct open_intents *t);
/* Look at one stored record. A scan for the kinds that matter to verifying finds candidates, in nested
 * objects too; only those are read, up to their own kind, which is returned; RECORD_NONE for all others.
 * `scratch` is reset. */
enum record_kind open_intents_look(struct open_intents *t, uint64_t seq, struct strview bytes,
                                   struct arena *scratch);
/* The ids of the oldest ones, at most `max`; *ret_n is how many are returned. Arena. */
struct strview *open_intents_list(const struct open_intents *t, size_t max, struct arena *a, size_t *ret_n);

#endif
