/* When each source was last heard, for /metrics; and the watchdog, the alert that always fires. Its sightings
 * are recorded more often than others', so that the journal itself shows when it fell silent. */
#ifndef BALM_FUNCTIONS_ALERTS_HEARD_H
#define BALM_FUNCTIONS_ALERTS_HEARD_H

#include "base/pack.h"
#include "function/core.h"
#include "metrics/catalog.h"
#include "store/episode.h"
#include "store/record.h"

#define HEARD_SOURCES_MAX 32 /* whose time is kept across a start; others are heard of when they speak */

struct heard_from {
    char name[65];
    int64_t last_ns;
    struct metric *series;
};

struct heard {
    struct strview watchdog; /* its name; empty: none */
    int64_t lease_ns, watchdog_lease_ns;
    struct heard_from sources[HEARD_SOURCES_MAX];
    size_t n_sources, newest; /* newest: the place of the last that spoke, nearly always the same one */
};

void heard_init(struct heard *h, const struct core_env *env, int64_t lease_ns);
/* A source sent this alert. For new records of the fold and for alerts that leave none. */
void heard_source(struct heard *h, struct strview source, int64_t unix_ns);
/* For a snapshot, and back. */
void heard_save(const struct heard *h, struct pack *p);
void heard_load(struct heard *h, struct unpack *u);
/* The lease by which a sighting of this alert is recorded (episodes_judge()): it is, after a quarter of it.
 */
int64_t heard_lease(const struct heard *h, const struct record_labels *labels);
/* The gauges that are computed when asked. */
void heard_collect(const struct episodes *t);

#endif
