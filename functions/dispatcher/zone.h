/* Time zones: which offset from UTC holds when. A zone is a sequence of spans of one offset each, read from
 * the system's compiled zone files (TZif, RFC 8536) and, behind their last transition, from the rule in their
 * footer (POSIX TZ with RFC 8536's extensions). Nothing here looks at the process's own zone (TZ,
 * /etc/localtime), and after it was read a zone needs no file.
 *
 *   ... --+-- CET +1 h --+-- CEST +2 h --+-- CET +1 h --+-- ...
 *         |              |               |
 *      transition     the clock        the clock
 *                     leaps an hour    repeats an hour */
#ifndef BALM_DISPATCHER_ZONE_H
#define BALM_DISPATCHER_ZONE_H

#include "base/arena.h"

#define ZONE_NAME_MAX  64
#define ZONE_BYTES_MAX ((size_t)64 * 1024) /* the largest known one has 4 KiB */

struct zone_transition {
    int64_t at_s;     /* Unix time */
    int32_t offset_s; /* from here on; east of Greenwich is positive */
};

/* A day of a footer's rule. */
struct zone_day {
    enum { ZONE_DAY_JULIAN, ZONE_DAY_OF_YEAR, ZONE_DAY_OF_WEEK } kind; /* Jn, n, Mm.w.d */
    int64_t day, month, week;
    int64_t time_s; /* of that day, on the clock before the change */
};

struct zone {
    const struct zone_transition *transitions; /* arena; ascending */
    size_t n;
    int32_t first_offset_s; /* before the first transition */
    bool has_rule;          /* behind the last one: */
    int32_t standard_s;     /* without summer time (has_summer false) this holds for good */
    bool has_summer;
    int32_t summer_s;
    struct zone_day begin, end; /* of summer time */
};

/* A stretch of one offset, [begin, end) in Unix time; INT64_MIN and INT64_MAX where it has none. */
struct zone_span {
    int64_t begin_s, end_s;
    int32_t offset_s;
};

/* By IANA name ("Europe/Berlin"). "UTC" needs no file. The files are looked for in $TZDIR, else where systems
 * keep them. STATUS_INVALID_ARGUMENT: no such zone, with the nearest name, or the file is none;
 * STATUS_FAILED_PRECONDITION: this system has no zone files. Synchronous: start-up and worker threads. */
enum status zone_read(struct arena *a, struct strview name, struct zone *ret_zone,
                      struct error *err) MUST_USE;
/* The same from a file's bytes. */
enum status zone_parse(struct arena *a, struct strview bytes, struct zone *ret_zone,
                       struct error *err) MUST_USE;
/* The span that unix_s lies in. */
struct zone_span zone_span_at(const struct zone *z, int64_t unix_s);

#endif
