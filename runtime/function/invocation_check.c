#include "base/clock.h"
#include "function/function_impl.h"

static bool frozen; /* one function a process, one loop */

void invocation_freeze(bool is_frozen)
{
    frozen = is_frozen;
}

bool invocation_is_frozen(void)
{
    return frozen;
}

enum status invocation_check(const struct invocation *inv, struct error *err)
{
    char deadline[RFC3339_LEN + 1];
    if (frozen) {
        enum status s = error_set(err, STATUS_CANCELLED, "acting is stopped on this platform (balm stop)");
        if (err != NULL) err->can_retry = true; /* once it is started again */
        return s;
    }
    if (inv->deadline_unix_ns != 0 && clock_unix_ns() >= inv->deadline_unix_ns) {
        rfc3339_format(inv->deadline_unix_ns, deadline);
        return error_set(err, STATUS_DEADLINE_EXCEEDED, "the intent's deadline %s has passed", deadline);
    }
    int64_t own_ns = fiber_current() != NULL ? fiber_deadline() : 0;
    if (own_ns != 0 && clock_monotonic_ns() >= own_ns)
        return error_set(err, STATUS_DEADLINE_EXCEEDED, "the time limit of this invocation has passed");
    if (fiber_current() != NULL && fiber_is_cancelled())
        return error_set(err, STATUS_CANCELLED, "this invocation was cancelled");
    return STATUS_OK;
}
