/* Which events have led to a signal: a sender repeats one until it knows that we have it, and (source, id) is
 * what stays the same (contracts/knative-cloudevents.md §2.1). Folded from the journal, the newest
 * EVENT_IDS_MAX of them. Keys are 64 bits of a SHA-256: that two events share one by chance, among as many as
 * are kept, has odds of one in 10^14. Pure; one owner. */
#ifndef BALM_FUNCTIONS_ALERTS_EVENT_IDS_H
#define BALM_FUNCTIONS_ALERTS_EVENT_IDS_H

#include "base/strview.h"

/* A broker repeats for hours, not days: one event a second for 18 hours. 1.5 MiB. */
#define EVENT_IDS_MAX 65536

struct event_ids;
struct event_ids *event_ids_new(void);
void event_ids_free(struct event_ids *ids);
/* Never 0. */
uint64_t event_ids_key(struct strview source, struct strview id);
/* The oldest is forgotten for it. 0, and one that is known, are passed over. */
void event_ids_add(struct event_ids *ids, uint64_t key);
bool event_ids_has(const struct event_ids *ids, uint64_t key);
/* Oldest first: for a snapshot. The i-th of event_ids_count(). */
size_t event_ids_count(const struct event_ids *ids);
uint64_t event_ids_at(const struct event_ids *ids, size_t i);

#endif
