/* For how long records were written and not sealed: over those behind the newest checkpoint, in their order,
 * by their own times. A platform signs a checkpoint each second, so what a crash leaves is short, whatever
 * time passes until the next start. A gap between two records counts UNSEALED_GAP_MAX_NS at most: in an
 * hour in which the machine slept or was off, nothing could be sealed because nothing ran. Steps back count
 * nothing. */
#ifndef BALM_AUDIT_UNSEALED_H
#define BALM_AUDIT_UNSEALED_H

#include "base/clock.h"

#define UNSEALED_GAP_MAX_NS (10 * NS_PER_S)
/* More than that at a start, or in front of a verifier, is no crash. Sealing waits for three syncs, and they
 * take long on a disk that is busy; a start is judged once and for all, a verifier may come at a bad moment.
 */
#define UNSEALED_START_MAX_NS  (30 * NS_PER_S)
#define UNSEALED_VERIFY_MAX_NS (60 * NS_PER_S)
/* Where nothing at all is sealed, the platform has written its first record this moment, or is suspect. */
#define UNSEALED_FIRST_MAX_NS (10 * NS_PER_S)

struct unsealed {
    int64_t last_ns, span_ns;
};

/* checkpoint_unix_ns: its time; 0: there is none. */
void unsealed_init(struct unsealed *u, int64_t checkpoint_unix_ns);
void unsealed_add(struct unsealed *u, int64_t time_unix_ns);

#endif
