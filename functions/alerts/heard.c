#include "functions/alerts/heard.h"

#include <stdio.h>

#include "base/clock.h"
#include "functions/alerts/webhook.h"

void heard_init(struct heard *h, const struct core_env *env, int64_t lease_ns)
{
    /* A tenth of what it may be silent: a quarter of four tenths. */
    *h = (struct heard){.watchdog = env->watchdog,
                        .lease_ns = lease_ns,
                        .watchdog_lease_ns = env->watchdog_within_ns / 10 * 4};
    metric_set(catalog_series(CATALOG_ALERT_REPEAT, NULL),
               (double)(env->repeat_interval_ns + env->group_interval_ns) / (double)NS_PER_S);
}

/* NULL: no place for another one. */
static struct heard_from *find_source(struct heard *h, struct strview source)
{
    source = sv_sub(source, 0, sizeof(h->sources[0].name) - 1);
    if (h->newest < h->n_sources && sv_eq(source, sv(h->sources[h->newest].name)))
        return &h->sources[h->newest];
    for (h->newest = 0; h->newest < h->n_sources; h->newest++)
        if (sv_eq(source, sv(h->sources[h->newest].name))) return &h->sources[h->newest];
    if (h->n_sources == HEARD_SOURCES_MAX) return NULL;
    struct heard_from *from = &h->sources[h->n_sources++];
    (void)snprintf(from->name, sizeof(from->name), "%.*s", SV_ARG(source));
    from->series = catalog_series(CATALOG_SOURCE_LAST_SIGNAL, &source);
    return from;
}

void heard_source(struct heard *h, struct strview source, int64_t unix_ns)
{
    struct heard_from *from = find_source(h, source);
    struct metric *series = from != NULL ? from->series : catalog_series(CATALOG_SOURCE_LAST_SIGNAL, &source);
    double seconds = (double)unix_ns / (double)NS_PER_S;
    if (from != NULL && unix_ns > from->last_ns) from->last_ns = unix_ns;
    if (seconds > metric_value(series)) metric_set(series, seconds);
}

void heard_save(const struct heard *h, struct pack *p)
{
    pack_u64(p, h->n_sources);
    for (size_t i = 0; i < h->n_sources; i++) {
        pack_text(p, sv(h->sources[i].name));
        pack_i64(p, h->sources[i].last_ns);
    }
}

void heard_load(struct heard *h, struct unpack *u)
{
    for (size_t n = unpack_count(u); n > 0 && !u->is_bad; n--) {
        struct strview source = unpack_text(u);
        heard_source(h, source, unpack_i64(u));
    }
}

int64_t heard_lease(const struct heard *h, const struct record_labels *labels)
{
    bool is_watchdog = h->watchdog.len > 0 && sv_eq(record_label(labels, SV("alertname")), h->watchdog);
    return is_watchdog && h->watchdog_lease_ns < h->lease_ns ? h->watchdog_lease_ns : h->lease_ns;
}

void heard_collect(const struct episodes *t)
{
    /* An event happens once: that it is not repeated says nothing about who sent it. */
    const struct episode *oldest = episodes_oldest_but_of(t, WEBHOOK_CLOUDEVENTS);
    metric_set(catalog_series(CATALOG_ALERTS_OPEN, NULL), (double)episodes_open_count(t));
    metrics_zero(catalog_family(CATALOG_ALERT_UNSEEN));
    if (oldest == NULL) return;
    double unseen = (double)clock_elapsed_ns(oldest->last_seen_ns, clock_unix_ns()) / (double)NS_PER_S;
    metric_set(catalog_series(CATALOG_ALERT_UNSEEN, &oldest->source), unseen > 0 ? unseen : 0);
}
