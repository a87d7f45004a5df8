/* Two clocks. Durations and deadlines use the monotonic one; wall time only for what leaves the process.
 * Times are int64_t nanoseconds; 0 means "unset" in records and "no deadline" in waits. */
#ifndef BALM_BASE_CLOCK_H
#define BALM_BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/strview.h"

struct arena;

#define NS_PER_US INT64_C(1000)
#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S  INT64_C(1000000000)

#define SECONDS_PER_DAY INT64_C(86400)

/* For durations and deadlines; never goes back, says nothing outside this machine's uptime. */
int64_t clock_monotonic_ns(void);
/* Wall clock, for what leaves the process; may jump. */
int64_t clock_unix_ns(void);

#define CLOCK_BOOT_ID_MAX 36
/* What the monotonic clock counts from: the kernel's name of this boot. Empty: it does not say. */
void clock_boot_id(char ret_id[CLOCK_BOOT_ID_MAX + 1]);

/* Of wall-clock times as records and peers give them: they reach from 1678 to 2261, and the way between two
 * of those is more than an int64_t holds. It ends at INT64_MIN and INT64_MAX. */
int64_t clock_elapsed_ns(int64_t from_ns, int64_t to_ns);
int64_t clock_add_ns(int64_t unix_ns, int64_t ns);

/* The wall clock against the monotonic one: has somebody set it? Slewing by up to a tenth is followed and no
 * jump; small steps, and a clock that stands still, add up to one. Zeroed and then told once by
 * clock_watch_look() whose answer does not matter. */
#define CLOCK_JUMP_NS (5 * NS_PER_S)
struct clock_watch {
    int64_t offset_ns; /* from the monotonic to the wall clock, as far as it was followed */
    int64_t apart_ns;  /* how far it is from there */
    int64_t looked_ns;
};
/* What both clocks show now. Returns by how much the wall clock has jumped since, which is more than
 * CLOCK_JUMP_NS either way, or 0. */
int64_t clock_watch_look(struct clock_watch *w, int64_t monotonic_ns, int64_t unix_ns);
/* When last looked, both went side by side. */
bool clock_watch_is_steady(const struct clock_watch *w);

/* Days since 1970-01-01 of a day in the Gregorian calendar (month and day from 1), and back. Back only within
 * what nanoseconds reach, 1677 to 2262. */
int64_t days_from_civil(int64_t year, unsigned month, unsigned day);
void civil_from_days(int64_t days, unsigned *ret_year, unsigned *ret_month, unsigned *ret_day);

#define RFC3339_LEN 30 /* 2026-11-22T14:01:24.123456789Z */

/* UTC with 9 fraction digits and Z: always RFC3339_LEN characters. NUL-terminated. */
void rfc3339_format(int64_t unix_ns, char ret_text[RFC3339_LEN + 1]);
/* The same in the arena. */
struct strview rfc3339_text(struct arena *a, int64_t unix_ns);
/* RFC 3339 §5.6, 0 to 9 fraction digits (more are cut), Z or offset, upper or lower case letters. Years
 * outside 1678 … 2261, as Go's zero time 0001-01-01T00:00:00Z, give 0 ("unset") and STATUS_OK. */
enum status rfc3339_parse(struct strview text, int64_t *ret_unix_ns) MUST_USE;
/* Go's duration ("1m30s", "250ms", "1.5h"), with Prometheus's "d" of 24 hours as well, or a whole number of
 * seconds, as of-watchdog reads it; not negative. */
enum status duration_parse(struct strview text, int64_t *ret_ns) MUST_USE;
#define DURATION_TEXT_MAX 40
/* Shortest exact form in h m s ms us ns: "1m30s", "250ms", "0s". Returns ret_text. */
const char *duration_format(int64_t ns, char ret_text[DURATION_TEXT_MAX]);

#endif
