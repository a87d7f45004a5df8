/* Alertmanager's webhook body, version 4 (contracts/alertmanager-loki.md §1.1): bytes in, checked alerts out.
 * Pure: no clock, no waits, any thread.
 *
 *   the body as a whole is wrong: not JSON, not version 4, no alerts,  -> STATUS_INVALID_ARGUMENT and one
 *   nested too deep, not UTF-8                                            sentence that says what and where
 *   one alert of it is wrong                                           -> its `reason` is set, the others
 *                                                                         stand
 *
 * One pass without a tree; strings borrow from the body where they have no escapes. */
#ifndef BALM_FUNCTIONS_ALERTS_WEBHOOK_H
#define BALM_FUNCTIONS_ALERTS_WEBHOOK_H

#include "base/json_scan.h"
#include "store/record.h"

/* Of one body: an outage of a whole cluster, and 2 MB of our memory. */
#define WEBHOOK_ALERTS_MAX 10000
/* One alert as sent, so that its record stays far below RECORD_BYTES_MAX. */
#define WEBHOOK_ALERT_BYTES_MAX 65536
/* Labels, and annotations, of one alert; a record takes RECORD_LABELS_MAX. */
#define WEBHOOK_LABELS_MAX            128
#define WEBHOOK_NAME_BYTES_MAX        256
#define WEBHOOK_VALUE_BYTES_MAX       4096
#define WEBHOOK_ANNOTATIONS_BYTES_MAX 16384 /* names and values together */
/* It becomes part of messages and log lines. */
#define WEBHOOK_ALERTNAME_BYTES_MAX   1024
#define WEBHOOK_FINGERPRINT_BYTES_MAX 64
#define WEBHOOK_RECEIVER_BYTES_MAX    1024
/* A longer one is kept as "sha256:HEX": it identifies, nobody reads it. */
#define WEBHOOK_GROUP_KEY_BYTES_MAX 4096
#define WEBHOOK_EVIDENCE_BYTES_MAX  200 /* of a rejected alert */

struct webhook_alert {
    bool is_firing;
    struct record_labels labels, annotations; /* sorted */
    int64_t starts_at_ns, ends_at_ns;         /* endsAt: 0 while it fires */
    struct strview generator_url;
    struct strview fingerprint;          /* the sender's; where it sent none, ours */
    struct strview fingerprint_computed; /* ours, only where the sender's differs */
    struct strview reason;   /* empty: it is fine. Else why it is rejected, and nothing above counts */
    struct strview evidence; /* how a rejected one began, at most WEBHOOK_EVIDENCE_BYTES_MAX */
    size_t bytes;            /* as it was sent */
};

struct webhook {
    struct strview receiver; /* without the regexp quoting that Alertmanager adds: "bot.main" */
    struct strview group_key;
    uint64_t truncated_alerts; /* cut off by the sender's max_alerts */
    struct webhook_alert *alerts;
    size_t n_alerts, n_rejected;
};

/* Views borrow from `body` or live in the arena. */
enum status webhook_decode(struct strview body, struct arena *a, struct webhook *ret_webhook,
                           struct error *err) MUST_USE;

/* A member of an alert that the webhook does not have, or has in another form: reads its value and sets
 * *ret_is_taken, or leaves both alone. False only where the JSON itself is broken. */
typedef bool webhook_member_fn(void *arg, struct json_scan *s, struct strview name, bool *ret_is_taken);

/* One alert of a list, with the same limits and checks and into the same form, whoever lists it. other(arg)
 * is shown every member first; NULL: it is the webhook's form. With `other` the list is one of alerts that
 * fire, and "status" need not be there. False: the JSON is broken, and the scan knows how. */
bool webhook_scan_alert(struct json_scan *s, size_t index, webhook_member_fn *other, void *arg,
                        struct webhook_alert *ret_alert);

#endif
