/* When a schedule comes: cron's five fields in a time zone, or a fixed interval.
 *
 *   minute 0-59   hour 0-23   day of month 1-31   month 1-12, JAN-DEC   weekday 0-7, SUN-SAT (0 and 7:
 * Sunday)
 *
 * Each field is a star, a number, a range (8-18, MON-FRI), a star or range with a step (8-18/2), or a list of
 * those with commas. As in Vixie cron a day must fit both day fields if one of them begins with a star, else
 * either of them. @hourly, @daily, @midnight, @weekly, @monthly, @yearly and @annually stand for their five
 * fields. "@every 90s" comes whenever the seconds since 1970-01-01 UTC are a multiple of it.
 *
 * Where the zone's clock leaps or repeats an hour:
 *   hour field begins with a star   comes whenever the clock shows a time that fits: nothing is made up for,
 * and what is shown twice is two times any other                       a time that the clock leaps over comes
 * at the end of the leap, one that it shows twice comes the first time only So "30 2 * * *" comes on every
 * day of the year exactly once, and "0-59/5 * * * *" every five minutes. */
#ifndef BALM_DISPATCHER_CRON_H
#define BALM_DISPATCHER_CRON_H

#include "functions/dispatcher/zone.h"

#define CRON_TEXT_MAX    200
#define CRON_EVERY_MAX_S (366 * INT64_C(86400))

struct cron {
    int64_t every_s; /* "@every"; 0: the fields, a bit a value */
    uint64_t minutes;
    uint32_t hours, days, months, weekdays;          /* weekdays: Sunday is bit 0 */
    bool hour_is_star, day_is_star, weekday_is_star; /* the field begins with one */
};

/* STATUS_INVALID_ARGUMENT: one sentence with the field, what is wrong and the nearest name; also for a date
 * that never comes (30 February). */
enum status cron_parse(struct strview text, struct cron *ret_cron, struct error *err) MUST_USE;
/* The first time after `after_s` (Unix time, both). False: none within 60 years, or past the year 2200. */
bool cron_next(const struct cron *c, const struct zone *z, int64_t after_s, int64_t *ret_s);
/* The last time in (after_s, until_s]. False: none. Walks through all of them. */
bool cron_last(const struct cron *c, const struct zone *z, int64_t after_s, int64_t until_s, int64_t *ret_s);

#endif
