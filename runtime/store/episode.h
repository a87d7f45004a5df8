/* Episodes: one stretch of time in which one alert fired. De-duplication is this table, folded from the
 * journal (design §4).
 *
 *            firing (new)                 resolved
 *   (none) ---------------> open ---------------------> resolved   a firing with startsAt <= its startsAt is
 *      |                     |                            ^   |    ignored from here on; a later one is new
 *      |                     | lease ran out              |   +--> open
 *      |                     | (RECORD_EXPIRED)           |
 *      |                     +------------> unknown ------+ resolved: only noted
 *      |                                       +--> open    any firing: never resolved, so a new episode
 *      +-- resolved (of nothing): only noted, so that an older firing that comes late is ignored --> resolved
 *
 * Keyed by (source, fingerprint). While it is open, a firing with any startsAt is the same episode (HA
 * pairs merge startsAt backwards) and its incident stays. Times are effective times: the latest time up to
 * the record, so last_seen never moves backwards. Pure: no clock, no waits; feed it records in order. At
 * most EPISODES_MAX open ones (a firing beyond is not folded: whoever appends asks episodes_is_full()
 * first) and EPISODES_CLOSED_MAX closed ones, forgotten oldest first. Loop thread only. */
#ifndef BALM_STORE_EPISODE_H
#define BALM_STORE_EPISODE_H

#include "store/journal.h"

#define EPISODES_MAX        2000000 /* about 200 bytes each; beyond, a new alert gets 503 */
#define EPISODES_CLOSED_MAX 500000  /* for firings that arrive after their resolve: minutes, not days */

enum episode_state { EPISODE_OPEN, EPISODE_RESOLVED, EPISODE_UNKNOWN };

struct episode {
    enum episode_state state;
    struct strview incident, fingerprint, source; /* owned by the table */
    int64_t starts_at_ns, last_seen_ns;           /* last_seen: time of the last signal or seen record */
    int64_t ended_at_ns; /* endsAt of the resolve, else time of the record that closed it; 0 while open */
    uint64_t seq;        /* of the record that opened it (while open) or closed it */
};

struct episodes;
struct episodes *episodes_new(void);
/* With other limits than EPISODES_MAX and EPISODES_CLOSED_MAX; both at least 1. */
struct episodes *episodes_new_bounded(size_t max_open, size_t max_closed);
void episodes_free(struct episodes *t);
/* Fold one record; kinds that are not about episodes are ignored. */
void episodes_apply(struct episodes *t, uint64_t seq, const struct record *r);
/* Borrowed until the next apply; NULL: unknown. */
const struct episode *episodes_find(const struct episodes *t, struct strview source,
                                    struct strview fingerprint);
/* How many are in state EPISODE_OPEN. */
size_t episodes_open_count(const struct episodes *t);
/* No further episode can be opened. */
bool episodes_is_full(const struct episodes *t);

enum episode_verdict {
    EPISODE_NEW,             /* record it as a signal; it opens an episode */
    EPISODE_DUPLICATE,       /* known and open: durable once episode.seq is */
    EPISODE_SEEN,            /* same, and last seen longer ago than a quarter of the lease: record `seen` */
    EPISODE_STALE,           /* a firing not later than what was resolved: ignore, count as duplicate */
    EPISODE_CLOSES,          /* a resolve of an open episode: record it as a signal */
    EPISODE_UNKNOWN_RESOLVE, /* a resolve of nothing: record it (a second one is a duplicate) */
};
/* What to do with an alert. now_ns and lease_ns decide between DUPLICATE and SEEN. *ret_episode may be
 * NULL. */
enum episode_verdict episodes_judge(const struct episodes *t, struct strview source,
                                    struct strview fingerprint, bool is_firing, int64_t starts_at_ns,
                                    int64_t now_ns, int64_t lease_ns, const struct episode **ret_episode);
/* Oldest-seen open episode whose last_seen_ns + lease_ns <= now_ns, or NULL: for the one who writes
 * RECORD_EXPIRED. */
const struct episode *episodes_next_expired(const struct episodes *t, int64_t now_ns, int64_t lease_ns);
#define INCIDENT_ID_MAX 40
/* The incident id of a new episode: fingerprint, '-', startsAt in ms as hex; 16 + 1 + 11 characters,
 * NUL-terminated. A fingerprint that is not 16 lower-case hex digits is replaced by its hash: the id is
 * safe in paths and headers whatever a sender claims. */
void incident_id(struct strview fingerprint, int64_t starts_at_ns, char ret_id[INCIDENT_ID_MAX]);

#endif
