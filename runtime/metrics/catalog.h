/* Every metric of the platform (balm_*), in one table: name, type, unit, labels and what it means. Whoever
 * counts registers by its entry, so code, documentation (`balm metrics`, runtime/metrics/README.md), alert
 * rules and dashboard cannot say different things; a test holds them all against what a running platform
 * exposes.
 *
 * To add one: a line in enum catalog_id, its entry in catalog.c, tests/regenerate.sh BUILD --write. Loop
 * thread only. */
#ifndef BALM_METRICS_CATALOG_H
#define BALM_METRICS_CATALOG_H

#include "metrics/metrics.h"

enum catalog_id {
    /* what comes in */
    CATALOG_ALERTS,
    CATALOG_ALERTS_REQUESTS,
    CATALOG_ALERTS_OPEN,
    CATALOG_ALERT_UNSEEN,
    CATALOG_ALERT_REPEAT,
    CATALOG_SOURCE_LAST_SIGNAL,
    CATALOG_WATCHDOG_LAST_SEEN,
    CATALOG_RECONCILE,
    CATALOG_RECONCILE_ALERTS,
    CATALOG_ALERTMANAGER_UP,
    CATALOG_ALERTMANAGER_LAST_ANSWER,
    /* what is decided */
    CATALOG_STAGE,
    CATALOG_DECISIONS,
    CATALOG_REFUSALS,
    CATALOG_ESCALATIONS,
    CATALOG_INCIDENTS_OPEN,
    CATALOG_INCIDENTS_STUCK,
    CATALOG_INCIDENT_OLDEST_AGE,
    CATALOG_INCIDENTS_CLOSED,
    CATALOG_RUNBOOKS,
    CATALOG_LIMIT_HITS,
    CATALOG_DECIDING,
    CATALOG_STOPPED,
    CATALOG_STOPPED_SINCE,
    /* what is done */
    CATALOG_QUEUE_DEPTH,
    CATALOG_QUEUE_OLDEST_AGE,
    CATALOG_TICKS,
    CATALOG_OUTCOMES,
    CATALOG_DEAD_LETTERS,
    CATALOG_VERIFICATIONS,
    CATALOG_FUNCTION_INVOCATIONS,
    CATALOG_FUNCTION_DURATION,
    CATALOG_FUNCTION_REPLICAS,
    CATALOG_FUNCTION_CRASHES,
    CATALOG_CERTIFICATES_REFUSED,
    CATALOG_LOGINS_REFUSED,
    /* what is kept */
    CATALOG_STORE_HEALTHY,
    CATALOG_JOURNAL_RECORDS,
    CATALOG_JOURNAL_BYTES,
    CATALOG_JOURNAL_BYTES_MAX,
    CATALOG_JOURNAL_OLDEST,
    CATALOG_RESERVE,
    CATALOG_JOURNAL_REMOVED,
    CATALOG_JOURNAL_COMMITS,
    CATALOG_JOURNAL_PENDING,
    CATALOG_JOURNAL_LAG,
    CATALOG_DISK_FREE,
    CATALOG_DISK_SIZE,
    CATALOG_AUDIT_RECORDS,
    CATALOG_AUDIT_LAST_SEQ,
    CATALOG_AUDIT_LAG,
    CATALOG_AUDIT_LAST_CHECKPOINT,
    CATALOG_AUDIT_FAILURES,
    CATALOG_AUDIT_QUERIES,
    CATALOG_BUILD_INFO,
    CATALOG_METRICS
};

struct catalog_entry {
    const char *name;
    enum metric_type type;
    const char *unit; /* "seconds", "bytes"; NULL: a count, a sequence or 0 and 1 */
    const char *labels[METRICS_LABELS_MAX];
    const char *help;      /* sentences, for the exposition too */
    const double *buckets; /* histograms; NULL: the usual ones */
    unsigned n_buckets;
};

/* Static; id below CATALOG_METRICS. */
const struct catalog_entry *catalog_entry(enum catalog_id id);
unsigned catalog_labels(const struct catalog_entry *e); /* how many it has */

/* The family of the entry, registered on first use. */
struct metric_family *catalog_family(enum catalog_id id);
/* The series with these label values (none: NULL), made at 0 on first use. */
struct metric *catalog_series(enum catalog_id id, const struct strview *values);

#endif
