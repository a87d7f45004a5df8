/* Episodes: one stretch of time in which one alert fired. De-duplication is this table, folded from the
 * journal (design §4).
 *
 *            firing (new)                 resolved
 *   (none) ---------------> open ---------------------> resolved   a firing with startsAt <= its startsAt is
 *      |                     |                            ^   |    ignored for EPISODE_LATE_NS: it may have
 * been |                     |                            |   |    on its way; then, or if later, it is new
 *      |                     | lease ran out, or begun    |   +--> open
 *      |                     | anew (RECORD_EXPIRED)      |
 *      |                     +------------> unknown ------+ resolved: only noted
 *      |                                       +--> open    any firing: never resolved, so a new episode
 *      +-- resolved (of nothing): only noted, so that an older firing that comes late is ignored --> resolved
 *
 * Keyed by (source, fingerprint as sent, our own where it differs: two alerts that a sender gives one
 * fingerprint are two). While it is open, a firing is the same episode and its incident stays (HA pairs merge
 * startsAt backwards, and their members differ by an evaluation), unless it began more than EPISODE_SKEW_NS
 * later: then the resolve in between was lost. A resolve that ended before the open episode began is of an
 * earlier one and comes late. Times are effective times: the latest time up to the record, so last_seen moves
 * backwards only with a clock record that says by how much. Pure: no clock, no waits; feed it records in
 * order. At most EPISODES_MAX open ones (a firing beyond is not folded: whoever appends asks
 * episodes_is_full() first) and EPISODES_CLOSED_MAX closed ones, forgotten oldest first. Loop thread only. */
#ifndef BALM_STORE_EPISODE_H
#define BALM_STORE_EPISODE_H

#include "store/journal.h"

#define EPISODES_MAX        2000000 /* about 200 bytes each; beyond, a new alert gets 503 */
#define EPISODES_CLOSED_MAX 500000  /* for firings that arrive after their resolve: minutes, not days */

/* How long after its resolve an older firing may still arrive: Alertmanager repeats a delivery within a
 * group_interval (5 min by default), and a peer that is cut off from Prometheus holds an alert for
 * four times its resend delay (1 min). A source that fell silent for a while sends the same startsAt again.
 */
#define EPISODE_LATE_NS (INT64_C(600) * 1000000000)
/* How much later a firing may have begun and be the same: two replicas of Prometheus evaluate up to an
 * interval apart. */
#define EPISODE_SKEW_NS (INT64_C(60) * 1000000000)

enum episode_state { EPISODE_OPEN, EPISODE_RESOLVED, EPISODE_UNKNOWN };

struct episode {
    enum episode_state state;
    struct strview incident, fingerprint, fingerprint_computed, source; /* owned by the table */
    int64_t starts_at_ns, last_seen_ns; /* last_seen: time of the last signal or seen record */
    int64_t ended_at_ns; /* endsAt of the resolve, else time of the record that closed it; 0 while open */
    uint64_t seq;        /* of the record that opened it (while open) or closed it */
    /* Not folded: since when its source, asked, does not know of it (clock_monotonic_ns() scale). 0: it does,
     * it has been seen since, or nobody asked. */
    int64_t missing_since_ns;
    /* Not folded: when it ends although nobody says so, unless its source speaks again. 0: not known. */
    int64_t lapses_at_ns;
};

struct episodes;
struct episodes *episodes_new(void);
/* With other limits than EPISODES_MAX and EPISODES_CLOSED_MAX; both at least 1. */
struct episodes *episodes_new_bounded(size_t max_open, size_t max_closed);
void episodes_free(struct episodes *t);
/* What is folded, for a snapshot, and back; an empty table to load into. STATUS_DATA_LOSS: damaged, and the
 * table is in no order: free it. */
void episodes_save(const struct episodes *t, struct pack *p);
enum status episodes_load(struct episodes *t, struct unpack *u, struct error *err) MUST_USE;
/* Fold one record; kinds that are not about episodes are ignored. */
void episodes_apply(struct episodes *t, uint64_t seq, const struct record *r);
/* An alert's identity and times, as a record or a delivery gives them. */
struct episode_alert {
    struct strview source, fingerprint, fingerprint_computed; /* computed: empty where it is the same */
    bool is_firing;
    int64_t starts_at_ns, ends_at_ns; /* 0: not said */
};
/* Borrowed until the next apply; NULL: unknown. */
const struct episode *episodes_find(const struct episodes *t, const struct episode_alert *alert);
/* How many are in state EPISODE_OPEN. */
size_t episodes_open_count(const struct episodes *t);
/* No further episode can be opened. */
bool episodes_is_full(const struct episodes *t);

enum episode_verdict {
    EPISODE_NEW,             /* record it as a signal; it opens an episode */
    EPISODE_DUPLICATE,       /* known and open: durable once episode.seq is */
    EPISODE_SEEN,            /* same, and last seen longer ago than a quarter of the lease: record `seen` */
    EPISODE_RENEWED,         /* its resolve was lost: record `expired` for the episode, then the signal */
    EPISODE_STALE,           /* not later than what is known to have ended: ignore, count as duplicate */
    EPISODE_CLOSES,          /* a resolve of an open episode: record it as a signal */
    EPISODE_UNKNOWN_RESOLVE, /* a resolve of nothing: record it (a second one is a duplicate) */
};
/* What to do with an alert. now_ns and lease_ns decide between DUPLICATE and SEEN. *ret_episode may be
 * NULL. */
enum episode_verdict episodes_judge(const struct episodes *t, const struct episode_alert *alert,
                                    int64_t now_ns, int64_t lease_ns, const struct episode **ret_episode);
/* Oldest-seen open episode whose last_seen_ns + lease_ns <= now_ns, or NULL: for the one who writes
 * RECORD_EXPIRED. */
const struct episode *episodes_next_expired(const struct episodes *t, int64_t now_ns, int64_t lease_ns);
#define EPISODES_LOOK_MAX 4096
/* Oldest-seen open episode that is not of `source`; NULL: there is none among the EPISODES_LOOK_MAX oldest.
 */
const struct episode *episodes_oldest_but_of(const struct episodes *t, struct strview source);
/* The table slot by slot, for who has to look at every open one and may wait in between. *cursor starts as 0;
 * false at the end. *ret_open: NULL where the slot holds none, else borrowed until the next apply. What is
 * opened meanwhile may be shown or not, and whatever grows the table may show one twice or not at all. */
bool episodes_walk(const struct episodes *t, size_t *cursor, const struct episode **ret_open);
/* missing_since_ns of an episode of this table. */
void episodes_set_missing(struct episodes *t, const struct episode *e, int64_t since_ns);
/* lapses_at_ns of an open episode of this table; any other alert is passed over. */
void episodes_set_lapse(struct episodes *t, const struct episode_alert *alert, int64_t lapses_at_ns);
#define INCIDENT_ID_MAX 40
/* The incident id of a new episode: fingerprint, '-', startsAt in ms as hex; 16 + 1 + 11 characters,
 * NUL-terminated. A fingerprint that is not 16 lower-case hex digits is replaced by its hash: the id is
 * safe in paths and headers whatever a sender claims. */
void incident_id(struct strview fingerprint, int64_t starts_at_ns, char ret_id[INCIDENT_ID_MAX]);

#endif
