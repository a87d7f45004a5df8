/* One item in work; for the files that bring it to its end alone:
 *
 *   invoker.c       acts, and how an end or a retry is recorded
 *   invoker_call.c  asynchronous calls, and posting their answers */
#ifndef BALM_DISPATCHER_INVOKER_IMPL_H
#define BALM_DISPATCHER_INVOKER_IMPL_H

#include "functions/dispatcher/dispatcher_impl.h"

/* And what came of it. */
struct job {
    struct dispatcher *d;
    struct queue_item *item;
    struct arena *arena;
    struct function_info info;
    int64_t timeout_ns;
    int64_t invoked_unix_ns;
    struct invocation_reply reply;
};

void invoker_finish(const struct job *job, struct strview state, struct strview code, struct strview message);
void invoker_repeat(const struct job *job, bool counts, int64_t after_ns, struct strview code,
                    struct strview reason);
/* An end without a definite answer: if the answer of an attempt before was lost, that one may have taken
 * effect, whatever became of those after it. */
void invoker_give_up(const struct job *job, struct strview state, struct strview code,
                     struct strview message);

/* A call, or an answer that is to be posted: to its end, or to another attempt. */
void invoker_call(struct job *job);

#endif
