/* Retention: old records leave the store, a whole segment at a time, by age and by size.
 *
 *   every minute: segments whose newest record is over max_age old, or the oldest ones while all are over
 *   max_bytes
 *        |  not sealed, wanted by an open incident or an unfinished act: renewed if it can be, else kept
 *        v
 *   snapshot of what was folded --> record "cut" --durable--> files removed, oldest first
 *
 * So nothing goes that was not announced in the journal itself, whatever kills us in between; the hashes of
 * what went stay in the audit log (audit/verify.h), and the state does not change by it. The segment that is
 * being written stays; one that is old is closed, so that little traffic does not keep records for ever. Loop
 * thread only. */
#ifndef BALM_STORE_RETENTION_H
#define BALM_STORE_RETENTION_H

#include "store/journal.h"

/* Of this many segments a full journal is made: what goes at once. */
#define RETENTION_SEGMENTS 16

struct retention_cfg {
    int64_t max_age_ns; /* > 0 */
    uint64_t max_bytes; /* > 0 */
    int64_t look_ns;    /* how often; 0: a minute */
};

struct retention;

/* The size of segment that fits max_bytes, for struct journal_cfg. */
size_t retention_segment_bytes(uint64_t max_bytes);
/* Before anything is appended: a clock that is far ahead of the newest record is not believed at once. */
struct retention *retention_new(struct journal *j, const struct retention_cfg *cfg);
/* Once the journal is folded and all keepers are there; looks for the first time at once. */
enum status retention_start(struct retention *r, struct error *err) MUST_USE;
/* Ends what is under way. NULL does nothing. Suspends. */
void retention_free(struct retention *r);
/* Look now. *ret_removed: records that went. Suspends. STATUS_UNAVAILABLE: store or disk; nothing is lost by
 * it, the next look tries again. */
enum status retention_look(struct retention *r, uint64_t *ret_removed, struct error *err) MUST_USE;

struct retention_report {
    uint64_t bytes, max_bytes;
    int64_t oldest_unix_ns, max_age_ns; /* oldest 0: no record */
    /* Who keeps records that should have gone, and since which; NULL: nobody. */
    const char *kept_by;
    uint64_t kept_from;
};
/* As of the last look; for people. */
void retention_report(const struct retention *r, struct retention_report *ret_report);

#endif
