/* The webhook body of Alertmanager (version 4, contracts/alertmanager-loki.md §1.1) and of Grafana (version
 * 1, §2.1: the same shape with more in it): bytes in, checked alerts out. Pure: no clock, no waits, any
 * thread.
 *
 *   the body as a whole is wrong: not JSON, another version, no        -> STATUS_INVALID_ARGUMENT and one
 *   alerts, nested too deep, not UTF-8                                    sentence that says what and where
 *   one alert of it is wrong                                           -> its `reason` is set, the others
 *                                                                         stand
 *
 * One pass without a tree; strings borrow from the body where they have no escapes. */
#ifndef BALM_FUNCTIONS_ALERTS_WEBHOOK_H
#define BALM_FUNCTIONS_ALERTS_WEBHOOK_H

#include "base/json_scan.h"
#include "store/episode.h"

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

/* Who sent: the source of the records, and part of an episode's key. All Alertmanagers are one, so are all
 * halves of a pair. */
#define WEBHOOK_ALERTMANAGER SV("alertmanager")
#define WEBHOOK_GRAFANA      SV("grafana")
#define WEBHOOK_CLOUDEVENTS  SV("cloudevents")

struct webhook_alert {
    bool is_firing;
    struct record_labels labels, annotations; /* sorted */
    int64_t starts_at_ns, ends_at_ns;         /* endsAt: 0 while it fires */
    struct strview generator_url;
    struct strview fingerprint;          /* the sender's; where it sent none, ours */
    struct strview fingerprint_computed; /* ours, only where the sender's differs */
    struct strview reason;   /* empty: it is fine. Else why it is rejected, and nothing above counts */
    struct strview evidence; /* how a rejected one began, at most WEBHOOK_EVIDENCE_BYTES_MAX */
    /* Empty: it was measured. Else why its state says nothing of the target: Grafana had no data, or lost
     * sight of the series. Nothing may be healed by it, and nothing counts as healed. */
    struct strview unmeasured;
    struct strview detail; /* of one that came by an event: JSON that names the event; else empty */
    uint64_t event_key;    /* of one that is an event itself: events_key(); else 0 */
    size_t bytes;          /* as it was sent */
};

struct webhook {
    struct strview source;   /* one of the three above */
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

/* How the alerts of a list differ from the webhook's. */
struct webhook_form {
    webhook_member_fn *other; /* shown every member first; NULL: there are no others */
    void *arg;
    bool may_lack_status; /* one without "status" fires */
    int64_t starts_at_ns; /* of one without "startsAt"; 0: it has to say */
};

/* One alert of a list, with the same limits and checks and into the same form, whoever lists it. form NULL:
 * it is the webhook's. False: the JSON is broken, and the scan knows how. */
bool webhook_scan_alert(struct json_scan *s, size_t index, const struct webhook_form *form,
                        struct webhook_alert *ret_alert);
/* The same checks for one that was put together from something else: sorts `items`, which become its labels,
 * and sets its fingerprint, if it has none, and its `reason`. */
void webhook_take_labels(struct webhook_alert *alert, size_t index, struct http_header *items, size_t n,
                         struct arena *a);
/* How `raw` begins: at most WEBHOOK_EVIDENCE_BYTES_MAX bytes, not ending inside a character. */
struct strview webhook_evidence(struct strview raw);
/* incident_id() of an alert of this source. Another source's alert under the same fingerprint is another
 * incident: how one of them ends says nothing about the other. */
void webhook_incident_id(struct strview source, struct strview fingerprint, int64_t starts_at_ns,
                         char ret_id[INCIDENT_ID_MAX]);

#endif
