/* Counters, gauges and histograms in Prometheus text 0.0.4 (contracts/alertmanager-loki.md §5.1).
 *
 * Families are registered once at start-up with fixed label names; a series is found by its label values and
 * kept by the caller, so counting is one add. At most METRICS_SERIES_MAX series a family: beyond, everything
 * goes to one series whose label values are "other" (a peer must not grow our memory by inventing names).
 * Loop thread only. */
#ifndef BALM_METRICS_METRICS_H
#define BALM_METRICS_METRICS_H

#include <stdint.h>

#include "base/buf.h"

#define METRICS_SERIES_MAX 1000
#define METRICS_LABELS_MAX 4

struct metric_family; /* lives until exit */
struct metric;        /* one series; lives until exit */

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };
const char *metric_type_name(enum metric_type type); /* "counter", "gauge", "histogram" */

/* labels: n_labels names (≤ METRICS_LABELS_MAX). Registering the same name again returns the same family.
 * buckets (histograms): ascending upper bounds, copied; NULL = .005 … 10 as Prometheus's clients. */
struct metric_family *metrics_family(enum metric_type type, const char *name, const char *help,
                                     const char *const *labels, unsigned n_labels, const double *buckets,
                                     unsigned n_buckets);
/* Series of these label values (n_labels of them), made at 0 on first use. */
struct metric *metrics_series(struct metric_family *f, const struct strview *values);
void metric_add(struct metric *m, double delta);
void metric_set(struct metric *m, double value);
void metric_observe(struct metric *m, double value); /* histogram */
double metric_value(const struct metric *m);         /* histogram: its count */
/* Every series of a gauge to 0, for one whose series are computed anew: what is gone must not keep its last
 * value. */
void metrics_zero(struct metric_family *f);
/* The whole exposition, families by name, with process_* of this process. */
void metrics_write(struct buf *out);
/* Called before each exposition, for gauges that are computed when asked; until taken back. */
void metrics_on_collect(void (*fn)(void *arg), void *arg);
void metrics_off_collect(void (*fn)(void *arg), void *arg);

#endif
