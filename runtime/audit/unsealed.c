#include "audit/unsealed.h"

void unsealed_init(struct unsealed *u, int64_t checkpoint_unix_ns)
{
    *u = (struct unsealed){.last_ns = checkpoint_unix_ns};
}

void unsealed_add(struct unsealed *u, int64_t time_unix_ns)
{
    if (u->last_ns == 0) u->last_ns = time_unix_ns;
    if (time_unix_ns <= u->last_ns) return;
    int64_t gap_ns = time_unix_ns - u->last_ns;
    u->span_ns += gap_ns < UNSEALED_GAP_MAX_NS ? gap_ns : UNSEALED_GAP_MAX_NS;
    u->last_ns = time_unix_ns;
}
