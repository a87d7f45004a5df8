/* DIR/run/clock: how far the wall clock was from the machine's uptime when a platform last ran here, so that
 * one that was set while nobody ran is found, forward as well as back. Of use within one boot alone; whoever
 * lacks it (another machine, an older version) knows only that the clock is behind the newest record.
 *
 * Text, one line: boot=ID offset_ns=N before_ns=M seq=S. N holds if record S is a RECORD_CLOCK, else M: the
 * file is written before the jump that it knows of is on record, and somebody may kill us in between. */
#ifndef BALM_DISPATCHER_CLOCK_ANCHOR_H
#define BALM_DISPATCHER_CLOCK_ANCHOR_H

#include <stdint.h>

#include "base/clock.h"
#include "base/status.h"

struct clock_anchor {
    char boot_id[CLOCK_BOOT_ID_MAX + 1];
    int64_t offset_ns, before_ns;
    uint64_t seq;
};

/* What both clocks show now; seq 0. */
void clock_anchor_look(struct clock_anchor *ret_anchor);
/* STATUS_NOT_FOUND: none that says anything about this boot. */
enum status clock_anchor_read(const char *dir, struct clock_anchor *ret_anchor) MUST_USE;
/* Outlives the process, not a power loss, behind which it says nothing. */
enum status clock_anchor_write(const char *dir, const struct clock_anchor *a, struct error *err) MUST_USE;

#endif
