/* What Alertmanager's API answers (contracts/alertmanager-loki.md §1.9): bytes in, checked alerts out. Pure:
 * no clock, no waits, any thread.
 *
 *   GET /api/v2/alerts   everything it takes for firing: what has ended is not in it
 *   GET /api/v2/status   since when it runs, and its configuration as text
 *
 * An alert becomes what the webhook would have made of it: the same reader with the same limits
 * (webhook_scan_alert()), and no endsAt. One that is over a limit is listed all the same, with its reason. */
#ifndef BALM_FUNCTIONS_ALERTS_LISTING_H
#define BALM_FUNCTIONS_ALERTS_LISTING_H

#include "functions/alerts/webhook.h"

/* Of one answer; a larger one counts as none. A hundred times what one webhook would bring at its default. */
#define LISTING_ALERTS_MAX 100000
/* 700 bytes are usual for an alert. */
#define LISTING_BYTES_MAX ((size_t)64 * 1024 * 1024)

struct listed {
    struct webhook_alert alert; /* as one that fires */
    bool is_active;             /* neither silenced, inhibited nor still being looked at */
    bool is_ours;               /* routed to the receiver that was asked about */
    int64_t updated_at_ns;      /* when it was last told to Alertmanager; 0: not said */
    int64_t lapses_at_ns;       /* when it ends unless it is told again (ms); 0: not said */
};

struct listing {
    struct listed *alerts;
    size_t n, n_rejected;
};

/* Views borrow from `body` or live in the arena. receiver: plain name; empty: none is ours.
 * STATUS_INVALID_ARGUMENT: no array of alerts; STATUS_RESOURCE_EXHAUSTED: more than LISTING_ALERTS_MAX. */
enum status listing_decode(struct strview body, struct strview receiver, struct arena *a,
                           struct listing *ret_listing, struct error *err) MUST_USE;

struct listing_status {
    int64_t started_unix_ns; /* by its own clock */
    /* Its configuration has time intervals: they mute notifications, and the list does not show it. */
    bool has_time_intervals;
};

/* STATUS_INVALID_ARGUMENT: not the status of an Alertmanager. */
enum status listing_decode_status(struct strview body, struct arena *a, struct listing_status *ret_status,
                                  struct error *err) MUST_USE;

#endif
