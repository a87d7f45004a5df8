#include "functions/alerts/heard.h"

#include <stdio.h>

#include "base/clock.h"

void heard_init(struct heard *h, const struct core_env *env, int64_t lease_ns)
{
    /* A tenth of what it may be silent: a quarter of four tenths. */
    *h = (struct heard){.watchdog = env->watchdog,
                        .lease_ns = lease_ns,
                        .watchdog_lease_ns = env->watchdog_within_ns / 10 * 4};
    metric_set(catalog_series(CATALOG_ALERT_REPEAT, NULL),
               (double)(env->repeat_interval_ns + env->group_interval_ns) / (double)NS_PER_S);
}

void heard_source(struct heard *h, struct strview source, int64_t unix_ns)
{
    if (h->last == NULL || !sv_eq(source, sv(h->source))) {
        h->last = catalog_series(CATALOG_SOURCE_LAST_SIGNAL, &source);
        (void)snprintf(h->source, sizeof(h->source), "%.*s",
                       SV_ARG(sv_sub(source, 0, sizeof(h->source) - 1)));
    }
    double seconds = (double)unix_ns / (double)NS_PER_S;
    if (seconds > metric_value(h->last)) metric_set(h->last, seconds);
}

int64_t heard_lease(const struct heard *h, const struct record_labels *labels)
{
    bool is_watchdog = h->watchdog.len > 0 && sv_eq(record_label(labels, SV("alertname")), h->watchdog);
    return is_watchdog && h->watchdog_lease_ns < h->lease_ns ? h->watchdog_lease_ns : h->lease_ns;
}

void heard_collect(const struct episodes *t)
{
    const struct episode *oldest = episodes_next_expired(t, INT64_MAX, 0);
    metric_set(catalog_series(CATALOG_ALERTS_OPEN, NULL), (double)episodes_open_count(t));
    metrics_zero(catalog_family(CATALOG_ALERT_UNSEEN));
    if (oldest == NULL) return;
    double unseen = (double)(clock_unix_ns() - oldest->last_seen_ns) / (double)NS_PER_S;
    metric_set(catalog_series(CATALOG_ALERT_UNSEEN, &oldest->source), unseen > 0 ? unseen : 0);
}
