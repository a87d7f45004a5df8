/* The rules of reconciling (README, "Reconciling"): what several Alertmanagers list, folded together, and
 * what follows for each alert and for each open episode. Pure: no clock, no waits, any thread.
 *
 *   listed by one of them            and the episode is   then
 *   ------------------------------   ------------------   ------------------------------------------------
 *   active, ours, not too young      not known            the delivery was lost: open it
 *                                    begun anew           the resolve was lost: expired, and open it
 *                                    resolved             ignored as late, unless Alertmanager was told well
 *                                                         after that end that it fires: then open it
 *   silenced or inhibited anywhere,  not open             nothing: Alertmanager sends nothing of it either
 *   of another receiver, or young
 *   in whatever state                open                 it fires: seen, once a quarter of the lease
 *   by none                          open                 the resolve was lost, or the source fell silent.
 *                                                         Nobody can tell which, so it ends as unknown, and
 *                                                         only after grace_ns of answers without it: the
 *                                                         list forgets an alert at its end, Alertmanager
 *                                                         tells of it up to a group_interval later
 *
 * A resolve whose end is the very time at which the alert was to lapse was said by nobody: its source fell
 * silent (it died, or cannot reach Alertmanager). intake.c asks survey_has_lapsed() and ends it as unknown.
 *
 * One that does not answer says nothing. One that has run for less than grace_ns may not have been told of
 * everything yet: what it lists counts, what it does not list does not, and it opens nothing. What a delivery
 * said after the question went out is fresher than the answer. */
#ifndef BALM_FUNCTIONS_ALERTS_SURVEY_H
#define BALM_FUNCTIONS_ALERTS_SURVEY_H

#include "functions/alerts/listing.h"
#include "store/episode.h"

struct survey_answer {
    struct listing listing;
    struct listing_status status;
    int64_t now_ns; /* by the clock of the one who answers */
};

struct survey_terms {
    int64_t grace_ns;      /* group_interval and a margin */
    int64_t open_after_ns; /* how old an alert has to be: until then its delivery may be on its way */
    int64_t asked_ns;      /* wall clock, when the first question went out */
};

struct survey {
    struct survey_terms terms;
    bool is_believable;           /* what is not listed fires nowhere */
    struct webhook_alert *alerts; /* sorted by fingerprint; one with a reason is known and no more */
    struct survey_fact {
        bool may_open;
        int64_t updated_at_ns, lapses_at_ns;
    } * facts; /* of alerts[i] */
    size_t n;
};

/* Answers of those who did answer; at least one. Views are the answers'. */
void survey_fold(const struct survey_answer *answers, size_t n, const struct survey_terms *terms,
                 struct arena *a, struct survey *ret_survey);
/* What to do with alerts[i], of which the table says `verdict` about the episode e (NULL: none). */
enum episode_verdict survey_judge(const struct survey *s, size_t i, enum episode_verdict verdict,
                                  const struct episode *e);

enum survey_end {
    SURVEY_LISTED, /* somebody lists it */
    SURVEY_WAIT,   /* not listed, or nobody knows; not for long enough */
    SURVEY_UNKNOWN /* record `expired` */
};
/* What of an open episode? missing_for_ns: for how long every answer has been without it, without a gap. */
enum survey_end survey_missing(const struct survey *s, const struct episode *e, int64_t missing_for_ns);
/* When alerts[i] lapses, if it does: for episodes_set_lapse(). 0: it is not said, or so soon that it may be
 * an end that Prometheus's clock, running ahead, has put into the future. */
int64_t survey_lapse(const struct survey *s, size_t i);
/* Is this the end that Alertmanager drew by itself? */
bool survey_has_lapsed(const struct episode *e, int64_t ends_at_ns);

#endif
