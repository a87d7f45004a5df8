/* Is the platform itself well? What is not becomes an alert like any other, by a way that does not pass
 * through Alertmanager, and a runbook (runbooks/balm-itself.yaml) tells people about it:
 *
 *   watchdog unheard ---+
 *   dead letters -------+--> signal, source "balm", reporter="balm" --> decide() --> intent for notify
 *   stuck incidents ----+        (resolved once it is over)
 *
 *   the store fails --------> notify, at once and without an intent: nothing can be recorded
 *                                 (a note in the journal once it takes records again)
 *
 * The watchdog is the alert that always fires (--watchdog). The intake records its sightings often enough to
 * tell from the journal when it fell silent; it is expected once it was heard.
 *
 * A fold of its own beside the state: nothing is decided by it, and a signal is an input, so folding the
 * journal again gives the same decisions. */
#ifndef BALM_DISPATCHER_SELFWATCH_H
#define BALM_DISPATCHER_SELFWATCH_H

#include "base/pack.h"
#include "functions/dispatcher/runbook.h"
#include "metrics/catalog.h"
#include "store/episode.h"
#include "store/record.h"

enum self_alert { SELF_WATCHDOG, SELF_DEAD_LETTERS, SELF_STUCK, SELF_STORE, SELF_ALERTS };

#define SELF_LABELS      3 /* alertname, reporter, severity */
#define SELF_ANNOTATIONS 2 /* description, summary */

struct self_episode {
    char fingerprint[17], incident[INCIDENT_ID_MAX];
    bool is_open;
    int64_t starts_at_ns, seen_ns;
};

/* The store's failure, which leaves nothing in the journal while it lasts. Wall clock; 0: not. */
struct self_store {
    int64_t since_ns, told_ns;
    unsigned attempts;
    char incident[INCIDENT_ID_MAX], intent[64], outcome[300];
};

struct selfwatch {
    int64_t heard_ns;                       /* wall clock: newest record of the watchdog; 0: never heard */
    int64_t heard_monotonic_ns, started_ns; /* by this process, and when that began to listen */
    char watchdog[65];                      /* fingerprint */
    struct self_episode episodes[SELF_ALERTS];
    struct self_store store;
    struct metric *last_seen;
};

struct dispatcher;

void selfwatch_init(struct selfwatch *w);
void selfwatch_reset(struct selfwatch *w);
/* Each record in order, the past's too (is_live false). */
void selfwatch_record(struct selfwatch *w, struct strview watchdog, const struct record *r, bool is_live);
/* What is folded, for a snapshot, and back. Another watchdog than the saved one is not heard yet. */
void selfwatch_save(const struct selfwatch *w, struct strview watchdog, struct pack *p);
void selfwatch_load(struct selfwatch *w, struct strview watchdog, struct unpack *u);
/* Looks once a minute, or five times within the watchdog's time. */
void selfwatch_fiber(void *arg);

/* Both arrays must outlive the result. */
struct record_labels self_alert_labels(enum self_alert kind, struct http_header ret_items[SELF_LABELS]);
struct record_labels self_alert_annotations(enum self_alert kind, struct strview description,
                                            struct http_header ret_items[SELF_ANNOTATIONS]);
struct strview self_alert_summary(enum self_alert kind);

/* ---- selfwatch_store.c ---- */

/* The runbook of the files that may act and tells people of this alert, or NULL. */
const struct runbook *selfwatch_teller(const struct dispatcher *d, enum self_alert kind);
/* Tells people once if the store is failing for the second look in a row, and leaves a note when it is over.
 * Suspends. */
void selfwatch_store(struct dispatcher *d);

#endif
