/* For targets whose reader waits: one loop a process, one fiber an input. */
#ifndef BALM_TESTS_FUZZ_IN_LOOP_H
#define BALM_TESTS_FUZZ_IN_LOOP_H

#include <assert.h>

#include "base/clock.h"
#include "log/log.h"
#include "loop/loop.h"

static inline struct loop *the_loop(void)
{
    static struct loop *loop;
    struct error err;
    if (loop == NULL) {
        log_set_level(LOG_LEVEL_ERROR);
        enum status s = loop_new(&loop, &err);
        assert(s == STATUS_OK);
    }
    return loop;
}

/* Returns when fn has. */
static inline void in_loop(fiber_fn *fn, void *arg)
{
    struct error err;
    enum status s = loop_run_fiber(the_loop(), fn, arg, &err);
    assert(s == STATUS_OK);
}

#endif
