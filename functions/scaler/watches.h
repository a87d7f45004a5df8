/* The streams that KEDA keeps open (StreamIsActive): who watches which function, and what it was told.
 *
 *                    work comes: "true" at once          (a record of an intent or a call)
 *        [idle] ------------------------------------> [told]
 *           ^        the backlog is empty: nothing       |  every WATCH_REPEAT_NS of work: "true" again,
 *           +--------------------------------------------+  since KEDA may drop one (KEDA #8168)
 *
 * "false" is never pushed: KEDA before 2.18 scaled to zero on one, whatever its other triggers said. One
 * message is on its way in a stream at most. Loop thread only. */
#ifndef BALM_FUNCTIONS_SCALER_WATCHES_H
#define BALM_FUNCTIONS_SCALER_WATCHES_H

#include "base/clock.h"
#include "base/list.h"
#include "grpc/grpc.h"

#define WATCHES_MAX     8192
#define WATCHES_BUCKETS 1024
#define WATCH_REPEAT_NS (15 * NS_PER_S)

/* What waits for a function, or is under way in it; empty: for all. */
typedef uint64_t watches_backlog_fn(void *arg, struct strview function);

struct watches {
    watches_backlog_fn *backlog;
    void *arg;
    struct list buckets[WATCHES_BUCKETS]; /* of struct watch, by function */
    struct list everything;               /* those of all functions */
    size_t n;
    struct fiber_event risen; /* some function may have got its first work */
    struct list due;          /* those to look at */
};

void watches_init(struct watches *w, watches_backlog_fn *backlog, void *arg);
/* The server that the streams are of is gone. */
void watches_release(struct watches *w);
/* Detaches the call. function empty: all. STATUS_RESOURCE_EXHAUSTED: WATCHES_MAX are open. */
enum status watches_add(struct watches *w, struct strview function, struct grpc_call *call,
                        struct error *err) MUST_USE;
/* There is work for it: cheap, from a follower. */
void watches_notice(struct watches *w, struct strview function);
/* Tells those that were noticed. */
void watches_tell_due(struct watches *w, int64_t now_ns);
/* Looks at all: what came by time alone, what is to be repeated, what is over. */
void watches_look(struct watches *w, int64_t now_ns);

#endif
