#include "metrics/catalog.h"

#include <assert.h>

#include "base/list.h"

static const double stage_buckets[] = {.001, .0025, .005, .01, .025, .05, .1,  .25, .5,
                                       1,    2.5,   5,    10,  30,   60,  120, 300, 900};

static const struct catalog_entry entries[CATALOG_METRICS] = {
    [CATALOG_ALERTS] = {.name = "balm_alerts_total",
                        .type = METRIC_COUNTER,
                        .labels = {"result"},
                        .help = "Alerts by what became of them: accepted, duplicate, rejected."},
    [CATALOG_ALERTS_REQUESTS] = {.name = "balm_alerts_requests_total",
                                 .type = METRIC_COUNTER,
                                 .labels = {"code"},
                                 .help = "Webhook deliveries by HTTP status; 202 means that it is on disk."},
    [CATALOG_ALERTS_OPEN] = {.name = "balm_alerts_open",
                             .type = METRIC_GAUGE,
                             .help = "Alerts that fire: episodes without a resolve."},
    [CATALOG_ALERT_UNSEEN] =
        {.name = "balm_alert_unseen_seconds",
         .type = METRIC_GAUGE,
         .unit = "seconds",
         .labels = {"source"},
         .help = "How long ago the firing alert that was unseen for longest was last seen; 0 "
                 "without one. Its source should have repeated it."},
    [CATALOG_ALERT_REPEAT] = {.name = "balm_alert_repeat_seconds",
                              .type = METRIC_GAUGE,
                              .unit = "seconds",
                              .help = "How often a firing alert is seen again: --repeat-interval and "
                                      "--group-interval together."},
    [CATALOG_SOURCE_LAST_SIGNAL] =
        {.name = "balm_source_last_signal_timestamp_seconds",
         .type = METRIC_GAUGE,
         .unit = "seconds",
         .labels = {"source"},
         .help = "When a source last sent an alert, also one that was known; as Unix time."},
    [CATALOG_WATCHDOG_LAST_SEEN] =
        {.name = "balm_watchdog_last_seen_timestamp_seconds",
         .type = METRIC_GAUGE,
         .unit = "seconds",
         .help = "When the alert that always fires (--watchdog) was last heard, as Unix "
                 "time; 0: never, so it is not expected."},
    [CATALOG_RECONCILE] = {.name = "balm_reconcile_total",
                           .type = METRIC_COUNTER,
                           .labels = {"result"},
                           .help = "Rounds of asking Alertmanager what fires (--alertmanager): ok, partial "
                                   "(some did not answer), failed."},
    [CATALOG_RECONCILE_ALERTS] = {.name = "balm_reconcile_alerts_total",
                                  .type = METRIC_COUNTER,
                                  .labels = {"change"},
                                  .help = "What deliveries failed to tell: opened (a lost delivery), unknown "
                                          "(an end that nobody told)."},
    [CATALOG_ALERTMANAGER_UP] = {.name = "balm_alertmanager_up",
                                 .type = METRIC_GAUGE,
                                 .labels = {"peer"},
                                 .help = "1: this Alertmanager answered when it was asked last."},
    [CATALOG_ALERTMANAGER_LAST_ANSWER] =
        {.name = "balm_alertmanager_last_answer_timestamp_seconds",
         .type = METRIC_GAUGE,
         .unit = "seconds",
         .labels = {"peer"},
         .help = "When this Alertmanager answered last, as Unix time; 0: not yet."},
    [CATALOG_STAGE] =
        {.name = "balm_stage_seconds",
         .type = METRIC_HISTOGRAM,
         .unit = "seconds",
         .labels = {"stage"},
         .help = "From the receipt of an alert to each stage of its incident: durable, decided, invoked, "
                 "entered, healed, verified, resolved.",
         .buckets = stage_buckets,
         .n_buckets = ARRAY_LEN(stage_buckets)},
    [CATALOG_DECISIONS] = {.name = "balm_decisions_total",
                           .type = METRIC_COUNTER,
                           .labels = {"result"},
                           .help = "Decisions on incidents by result: intent, refusal, shadow."},
    [CATALOG_REFUSALS] = {.name = "balm_refusals_total",
                          .type = METRIC_COUNTER,
                          .labels = {"gate"},
                          .help = "Acts that were refused, by the gate that did; mode is shadow and off."},
    [CATALOG_ESCALATIONS] = {.name = "balm_escalations_total",
                             .type = METRIC_COUNTER,
                             .help = "Incidents that were handed to a person."},
    [CATALOG_INCIDENTS_OPEN] = {.name = "balm_incidents_open",
                                .type = METRIC_GAUGE,
                                .labels = {"phase"},
                                .help = "Open incidents by phase."},
    [CATALOG_INCIDENTS_STUCK] =
        {.name = "balm_incidents_stuck",
         .type = METRIC_GAUGE,
         .help = "Open incidents that should have moved on by themselves and have not; none "
                 "while acting is stopped."},
    [CATALOG_INCIDENT_OLDEST_AGE] =
        {.name = "balm_incident_oldest_age_seconds",
         .type = METRIC_GAUGE,
         .unit = "seconds",
         .labels = {"phase"},
         .help = "How long the incident that has been in this phase for longest has been "
                 "in it; 0 without one."},
    [CATALOG_INCIDENTS_CLOSED] =
        {.name = "balm_incidents_closed_total",
         .type = METRIC_COUNTER,
         .labels = {"state"},
         .help =
             "Incidents that ended, by how: healed, resolved, unknown, escalated, manual (a person closed it)."},
    [CATALOG_RUNBOOKS] = {.name = "balm_runbooks",
                          .type = METRIC_GAUGE,
                          .labels = {"mode"},
                          .help = "Runbooks in force by mode: act, shadow, off."},
    [CATALOG_LIMIT_HITS] = {.name = "balm_matcher_limit_hits_total",
                            .type = METRIC_COUNTER,
                            .help =
                                "Regular expressions of runbooks that gave up on a label: that alert did not "
                                "match."},
    [CATALOG_DECIDING] = {.name = "balm_deciding",
                          .type = METRIC_GAUGE,
                          .help = "1 while this process decides on alerts, 0 while it only follows."},
    [CATALOG_STOPPED] = {.name = "balm_stopped",
                         .type = METRIC_GAUGE,
                         .help = "1 after balm stop: nothing acts; 0 otherwise."},
    [CATALOG_STOPPED_SINCE] = {.name = "balm_stopped_since_timestamp_seconds",
                               .type = METRIC_GAUGE,
                               .unit = "seconds",
                               .help = "Since when acting is stopped, as Unix time; 0: it is not."},
    [CATALOG_QUEUE_DEPTH] =
        {.name = "balm_queue_depth",
         .type = METRIC_GAUGE,
         .labels = {"function", "state"},
         .help = "Intents and calls without outcome: ready, leased, waiting for another attempt; "
                 "and dead ones that can be retried."},
    [CATALOG_QUEUE_OLDEST_AGE] = {.name = "balm_queue_oldest_age_seconds",
                                  .type = METRIC_GAUGE,
                                  .unit = "seconds",
                                  .labels = {"function"},
                                  .help = "Age of the oldest intent or call without outcome; 0 without one."},
    [CATALOG_TICKS] = {.name = "balm_ticks_total",
                       .type = METRIC_COUNTER,
                       .labels = {"result", "runbook"},
                       .help =
                           "Times of schedules: fired, or missed (the platform was down, or several came due "
                           "at once)."},
    [CATALOG_OUTCOMES] = {.name = "balm_outcomes_total",
                          .type = METRIC_COUNTER,
                          .labels = {"function", "state"},
                          .help =
                              "Acts and calls that ended, by how: done, unchanged, refused, failed, unknown, "
                              "expired, dead, dropped (a person gave up a dead one)."},
    [CATALOG_DEAD_LETTERS] = {.name = "balm_dead_letters_total",
                              .type = METRIC_COUNTER,
                              .labels = {"function"},
                              .help = "Acts and calls that were given up after their last attempt."},
    [CATALOG_VERIFICATIONS] = {.name = "balm_verifications_total",
                               .type = METRIC_COUNTER,
                               .labels = {"function", "result"},
                               .help = "Acts by whether they helped: verified, failed."},
    [CATALOG_FUNCTION_INVOCATIONS] = {.name = "balm_function_invocations_total",
                                      .type = METRIC_COUNTER,
                                      .labels = {"code", "function"},
                                      .help =
                                          "Plain calls of deployed functions through the gateway, by HTTP "
                                          "status."},
    [CATALOG_FUNCTION_DURATION] = {.name = "balm_function_duration_seconds",
                                   .type = METRIC_HISTOGRAM,
                                   .unit = "seconds",
                                   .labels = {"function"},
                                   .help = "From a plain call to the end of the function's answer."},
    [CATALOG_FUNCTION_REPLICAS] = {.name = "balm_function_replicas",
                                   .type = METRIC_GAUGE,
                                   .labels = {"function"},
                                   .help = "Processes of a function that take requests."},
    [CATALOG_FUNCTION_CRASHES] =
        {.name = "balm_function_crashes_total",
         .type = METRIC_COUNTER,
         .labels = {"function"},
         .help = "Processes of a function that ended by themselves or did not start; each "
                 "is started again later than the last."},
    [CATALOG_CERTIFICATES_REFUSED] = {.name = "balm_certificates_refused_total",
                                      .type = METRIC_COUNTER,
                                      .labels = {"function"},
                                      .help =
                                          "TLS connections that an acting function, or the platform itself "
                                          "(balm), gave up because of the peer's certificate."},
    [CATALOG_LOGINS_REFUSED] = {.name = "balm_logins_refused_total",
                                .type = METRIC_COUNTER,
                                .labels = {"reason"},
                                .help = "Requests for what needs credentials, by why they were refused: "
                                        "missing and wrong (401), limited (429: too many wrong ones from "
                                        "that address)."},
    [CATALOG_STORE_HEALTHY] = {.name = "balm_store_healthy",
                               .type = METRIC_GAUGE,
                               .help =
                                   "1 while the journal takes records; 0: every alert is answered with 503."},
    [CATALOG_JOURNAL_RECORDS] = {.name = "balm_journal_records",
                                 .type = METRIC_GAUGE,
                                 .help = "Records that are kept."},
    [CATALOG_JOURNAL_BYTES] = {.name = "balm_journal_bytes",
                               .type = METRIC_GAUGE,
                               .unit = "bytes",
                               .help = "Size of the journal's files."},
    [CATALOG_JOURNAL_BYTES_MAX] = {.name = "balm_journal_max_bytes",
                                   .type = METRIC_GAUGE,
                                   .unit = "bytes",
                                   .help = "Size beyond which the oldest records are removed."},
    [CATALOG_JOURNAL_OLDEST] = {.name = "balm_journal_oldest_timestamp_seconds",
                                .type = METRIC_GAUGE,
                                .unit = "seconds",
                                .help = "When the oldest record that is kept was written, as Unix time."},
    [CATALOG_RESERVE] = {.name = "balm_reserve_bytes",
                         .type = METRIC_GAUGE,
                         .unit = "bytes",
                         .help = "What is left of the space that is kept for a full disk."},
    [CATALOG_JOURNAL_REMOVED] = {.name = "balm_journal_removed_records_total",
                                 .type = METRIC_COUNTER,
                                 .help = "Old records removed by this process."},
    [CATALOG_JOURNAL_COMMITS] = {.name = "balm_journal_commits_total",
                                 .type = METRIC_COUNTER,
                                 .help =
                                     "Transactions of this process, each a group of records and one fsync."},
    [CATALOG_JOURNAL_PENDING] = {.name = "balm_journal_pending_bytes",
                                 .type = METRIC_GAUGE,
                                 .unit = "bytes",
                                 .help = "Records that were appended and are not yet on disk."},
    [CATALOG_JOURNAL_LAG] = {.name = "balm_journal_lag_records",
                             .type = METRIC_GAUGE,
                             .help = "How many records were appended and are not yet on disk."},
    [CATALOG_DISK_FREE] = {.name = "balm_disk_free_bytes",
                           .type = METRIC_GAUGE,
                           .unit = "bytes",
                           .help = "What the data folder's file system has left for us."},
    [CATALOG_DISK_SIZE] = {.name = "balm_disk_size_bytes",
                           .type = METRIC_GAUGE,
                           .unit = "bytes",
                           .help = "Size of the data folder's file system."},
    [CATALOG_AUDIT_RECORDS] = {.name = "balm_audit_records_total",
                               .type = METRIC_COUNTER,
                               .help = "Records sealed by this process."},
    [CATALOG_AUDIT_LAST_SEQ] = {.name = "balm_audit_last_seq",
                                .type = METRIC_GAUGE,
                                .help = "Sequence of the newest sealed record."},
    [CATALOG_AUDIT_LAG] = {.name = "balm_audit_lag_records",
                           .type = METRIC_GAUGE,
                           .help = "How many records are on disk and not yet sealed."},
    [CATALOG_AUDIT_LAST_CHECKPOINT] = {.name = "balm_audit_last_checkpoint_timestamp_seconds",
                                       .type = METRIC_GAUGE,
                                       .unit = "seconds",
                                       .help = "When the newest checkpoint was signed, as Unix time."},
    [CATALOG_AUDIT_FAILURES] = {.name = "balm_audit_verify_failures_total",
                                .type = METRIC_COUNTER,
                                .help = "Times that journal and seal did not match."},
    [CATALOG_AUDIT_QUERIES] = {.name = "balm_audit_queries_total",
                               .type = METRIC_COUNTER,
                               .labels = {"route", "code"},
                               .help = "Requests to the Loki query API."},
    [CATALOG_BUILD_INFO] = {.name = "balm_build_info",
                            .type = METRIC_GAUGE,
                            .labels = {"version"},
                            .help = "Always 1; the version that runs."},
};

const struct catalog_entry *catalog_entry(enum catalog_id id)
{
    assert(id < CATALOG_METRICS && entries[id].name != NULL);
    return &entries[id];
}

unsigned catalog_labels(const struct catalog_entry *e)
{
    unsigned n = 0;
    while (n < METRICS_LABELS_MAX && e->labels[n] != NULL)
        n++;
    return n;
}

struct metric_family *catalog_family(enum catalog_id id)
{
    static struct metric_family *families[CATALOG_METRICS];
    const struct catalog_entry *e = catalog_entry(id);
    if (families[id] == NULL)
        families[id] =
            metrics_family(e->type, e->name, e->help, e->labels, catalog_labels(e), e->buckets, e->n_buckets);
    return families[id];
}

struct metric *catalog_series(enum catalog_id id, const struct strview *values)
{
    return metrics_series(catalog_family(id), values);
}
