/* Each rule of reconciling is a row: what the Alertmanagers list, what is known here, what follows. */
#include "functions/alerts/survey.h"

#include <criterion/criterion.h>

#include "base/clock.h"
#include "base/list.h"

#define NOW    (INT64_C(1795356080) * NS_PER_S)
#define SECOND NS_PER_S
#define MINUTE (60 * NS_PER_S)
#define GRACE  (10 * MINUTE)

static struct arena arena;

static void tear_down(void)
{
    arena_release(&arena);
}

TestSuite(survey, .fini = tear_down);

enum { PEERS_MAX = 2 };

/* One alert as one Alertmanager lists it. */
struct view {
    enum { SILENT, WITHOUT, ACTIVE, SUPPRESSED, FOREIGN, REJECTED } is; /* SILENT: it did not answer */
    bool is_young;                                                      /* it runs for less than the grace */
    bool has_intervals;     /* time intervals in its configuration */
    int64_t age_ns;         /* of the alert; 0: an hour */
    int64_t updated_ago_ns; /* 0: 10 s */
};

static struct listed listed_of(const struct view *v)
{
    int64_t age_ns = v->age_ns ? v->age_ns : 60 * MINUTE;
    return (struct listed){
        .alert = {.is_firing = true,
                  .fingerprint = SV("00000000000000aa"),
                  .starts_at_ns = NOW - age_ns,
                  .reason = v->is == REJECTED ? SV("alerts[0]: too long") : SV("")},
        .is_active = v->is != SUPPRESSED,
        .is_ours = v->is != FOREIGN,
        .updated_at_ns = NOW - (v->updated_ago_ns ? v->updated_ago_ns : 10 * SECOND),
    };
}

static struct survey survey_of(const struct view views[PEERS_MAX])
{
    struct survey_answer answers[PEERS_MAX] = {0};
    const struct survey_terms terms = {.grace_ns = GRACE, .open_after_ns = MINUTE, .asked_ns = NOW - SECOND};
    size_t n = 0;
    for (size_t i = 0; i < PEERS_MAX; i++) {
        if (views[i].is == SILENT) continue;
        struct listed *one = arena_zalloc(&arena, sizeof(*one));
        *one = listed_of(&views[i]);
        answers[n++] = (struct survey_answer){
            .listing = {.alerts = one, .n = views[i].is == WITHOUT ? 0 : 1},
            .status = {.started_unix_ns = views[i].is_young ? NOW - MINUTE : NOW - GRACE,
                       .has_time_intervals = views[i].has_intervals},
            .now_ns = NOW};
    }
    struct survey s;
    survey_fold(answers, n, &terms, &arena, &s);
    return s;
}

Test(survey, listed_alert_is_judged)
{
    static const struct {
        const char *name;
        struct view views[PEERS_MAX];
        enum episode_verdict verdict, expected;
        int64_t ended_ago_ns; /* of the resolved episode */
        int64_t seen_ago_ns;  /* 0: an hour */
    } rows[] = {
        {"lost delivery", {{.is = ACTIVE}}, EPISODE_NEW, EPISODE_NEW, 0, 0},
        {"lost delivery, listed by both", {{.is = ACTIVE}, {.is = ACTIVE}}, EPISODE_NEW, EPISODE_NEW, 0, 0},
        {"lost delivery, the other is down",
         {{.is = ACTIVE}, {.is = SILENT}},
         EPISODE_NEW,
         EPISODE_NEW,
         0,
         0},
        {"lost delivery, the other is restarted and empty",
         {{.is = ACTIVE}, {.is = WITHOUT, .is_young = true}},
         EPISODE_NEW,
         EPISODE_NEW,
         0,
         0},
        {"lost resolve and delivery", {{.is = ACTIVE}}, EPISODE_RENEWED, EPISODE_RENEWED, 0, 0},
        {"as old as needed", {{.is = ACTIVE, .age_ns = MINUTE}}, EPISODE_NEW, EPISODE_NEW, 0, 0},
        {"its delivery may be on its way",
         {{.is = ACTIVE, .age_ns = MINUTE - 1}},
         EPISODE_NEW,
         EPISODE_STALE,
         0,
         0},
        {"silenced", {{.is = SUPPRESSED}}, EPISODE_NEW, EPISODE_STALE, 0, 0},
        {"silenced and begun anew", {{.is = SUPPRESSED}}, EPISODE_RENEWED, EPISODE_STALE, 0, 0},
        {"silenced for one of them", {{.is = ACTIVE}, {.is = SUPPRESSED}}, EPISODE_NEW, EPISODE_STALE, 0, 0},
        {"silenced for a restarted one",
         {{.is = ACTIVE}, {.is = SUPPRESSED, .is_young = true}},
         EPISODE_NEW,
         EPISODE_STALE,
         0,
         0},
        {"of another receiver", {{.is = FOREIGN}}, EPISODE_NEW, EPISODE_STALE, 0, 0},
        {"over a limit", {{.is = REJECTED}}, EPISODE_NEW, EPISODE_STALE, 0, 0},
        {"only a restarted one lists it",
         {{.is = ACTIVE, .is_young = true}},
         EPISODE_NEW,
         EPISODE_STALE,
         0,
         0},
        {"only a restarted one lists it, of two",
         {{.is = ACTIVE, .is_young = true}, {.is = WITHOUT}},
         EPISODE_NEW,
         EPISODE_STALE,
         0,
         0},
        {"muted at times nobody shows",
         {{.is = ACTIVE, .has_intervals = true}},
         EPISODE_NEW,
         EPISODE_STALE,
         0,
         0},
        {"muted at times by the other",
         {{.is = ACTIVE}, {.is = WITHOUT, .has_intervals = true}},
         EPISODE_NEW,
         EPISODE_STALE,
         0,
         0},
        {"open and seen", {{.is = ACTIVE}}, EPISODE_SEEN, EPISODE_SEEN, 0, 0},
        {"open, silenced", {{.is = SUPPRESSED}}, EPISODE_SEEN, EPISODE_SEEN, 0, 0},
        {"open, of another receiver by now", {{.is = FOREIGN}}, EPISODE_SEEN, EPISODE_SEEN, 0, 0},
        {"open, young Alertmanager", {{.is = ACTIVE, .is_young = true}}, EPISODE_SEEN, EPISODE_SEEN, 0, 0},
        {"open and seen lately", {{.is = ACTIVE}}, EPISODE_DUPLICATE, EPISODE_DUPLICATE, 0, 0},
        {"late: told before the resolve",
         {{.is = ACTIVE, .updated_ago_ns = 5 * MINUTE}},
         EPISODE_STALE,
         EPISODE_STALE,
         4 * MINUTE,
         0},
        {"late: told just after the resolve",
         {{.is = ACTIVE, .updated_ago_ns = 3 * MINUTE}},
         EPISODE_STALE,
         EPISODE_STALE,
         4 * MINUTE,
         0},
        {"fires again after the resolve",
         {{.is = ACTIVE, .updated_ago_ns = 3 * MINUTE - 1}},
         EPISODE_STALE,
         EPISODE_NEW,
         4 * MINUTE,
         0},
        {"fires again, silenced", {{.is = SUPPRESSED}}, EPISODE_STALE, EPISODE_STALE, 4 * MINUTE, 0},
        {"a delivery came after the question",
         {{.is = ACTIVE}},
         EPISODE_NEW,
         EPISODE_DUPLICATE,
         4 * MINUTE,
         1},
        {"a resolve came after the question",
         {{.is = ACTIVE}},
         EPISODE_STALE,
         EPISODE_DUPLICATE,
         4 * MINUTE,
         1},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct survey s = survey_of(rows[i].views);
        const struct episode e = {.ended_at_ns = NOW - rows[i].ended_ago_ns,
                                  .last_seen_ns =
                                      NOW - (rows[i].seen_ago_ns ? rows[i].seen_ago_ns : 60 * MINUTE)};
        const struct episode *known = rows[i].ended_ago_ns != 0 ? &e : NULL;
        cr_assert_eq(s.n, 1, "%s: one alert, however many list it", rows[i].name);
        cr_expect_eq(survey_judge(&s, 0, rows[i].verdict, known), rows[i].expected, "%s", rows[i].name);
    }
}

Test(survey, open_episode_that_is_not_listed_ends_as_unknown_in_the_end)
{
    static const struct {
        const char *name;
        struct view views[PEERS_MAX];
        int64_t missing_for_ns, seen_ago_ns;
        enum survey_end expected;
    } rows[] = {
        {"listed", {{.is = ACTIVE}}, GRACE, 2 * GRACE, SURVEY_LISTED},
        {"listed, silenced", {{.is = SUPPRESSED}}, GRACE, 2 * GRACE, SURVEY_LISTED},
        {"listed for another receiver", {{.is = FOREIGN}}, GRACE, 2 * GRACE, SURVEY_LISTED},
        {"listed, over a limit", {{.is = REJECTED}}, GRACE, 2 * GRACE, SURVEY_LISTED},
        {"listed by one of two", {{.is = WITHOUT}, {.is = ACTIVE}}, GRACE, 2 * GRACE, SURVEY_LISTED},
        {"listed by a restarted one",
         {{.is = WITHOUT}, {.is = ACTIVE, .is_young = true}},
         GRACE,
         2 * GRACE,
         SURVEY_LISTED},
        {"missing for long enough", {{.is = WITHOUT}}, GRACE, GRACE, SURVEY_UNKNOWN},
        {"missing at both", {{.is = WITHOUT}, {.is = WITHOUT}}, GRACE, GRACE, SURVEY_UNKNOWN},
        {"missing at the one that answers", {{.is = SILENT}, {.is = WITHOUT}}, GRACE, GRACE, SURVEY_UNKNOWN},
        {"missing, and the other is restarted",
         {{.is = WITHOUT}, {.is = WITHOUT, .is_young = true}},
         GRACE,
         GRACE,
         SURVEY_UNKNOWN},
        {"its resolve may be on its way", {{.is = WITHOUT}}, GRACE - 1, 2 * GRACE, SURVEY_WAIT},
        {"delivered lately", {{.is = WITHOUT}}, GRACE, GRACE - 2 * SECOND, SURVEY_WAIT},
        {"just restarted and empty", {{.is = WITHOUT, .is_young = true}}, 2 * GRACE, 2 * GRACE, SURVEY_WAIT},
        {"both restarted and empty",
         {{.is = WITHOUT, .is_young = true}, {.is = WITHOUT, .is_young = true}},
         2 * GRACE,
         2 * GRACE,
         SURVEY_WAIT},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct survey s = survey_of(rows[i].views);
        const struct episode e = {.fingerprint = SV("00000000000000aa"),
                                  .last_seen_ns = NOW - SECOND - rows[i].seen_ago_ns};
        cr_expect_eq(survey_missing(&s, &e, rows[i].missing_for_ns), rows[i].expected, "%s", rows[i].name);
    }
}

Test(survey, two_alerts_under_one_foreign_fingerprint_are_two)
{
    struct survey s = survey_of((struct view[PEERS_MAX]){{.is = ACTIVE}, {.is = SILENT}});
    const struct episode other = {.fingerprint = SV("00000000000000aa"),
                                  .fingerprint_computed = SV("00000000000000bb"),
                                  .last_seen_ns = NOW - 2 * GRACE};
    cr_assert_eq(survey_missing(&s, &other, GRACE), SURVEY_UNKNOWN);
}

Test(survey, what_was_told_last_is_taken)
{
    struct survey s =
        survey_of((struct view[PEERS_MAX]){{.is = ACTIVE, .age_ns = 2 * MINUTE, .updated_ago_ns = MINUTE},
                                           {.is = ACTIVE, .age_ns = 3 * MINUTE, .updated_ago_ns = SECOND}});
    cr_assert_eq(s.n, 1);
    cr_assert_eq(s.alerts[0].starts_at_ns, NOW - 3 * MINUTE);
    cr_assert_eq(s.facts[0].updated_at_ns, NOW - SECOND);
}

Test(survey, many_alerts_are_found_again)
{
    enum { MANY = 5000 };
    struct listed *alerts = arena_array(&arena, MANY, sizeof(*alerts));
    for (unsigned i = 0; i < MANY; i++) {
        alerts[i] = listed_of(&(struct view){.is = ACTIVE});
        alerts[i].alert.fingerprint = arena_printf(&arena, "%016x", (i * 7919U) % MANY * 2);
    }
    const struct survey_answer answer = {
        .listing = {.alerts = alerts, .n = MANY}, .status = {.started_unix_ns = NOW - GRACE}, .now_ns = NOW};
    const struct survey_terms terms = {.grace_ns = GRACE, .asked_ns = NOW};
    struct survey s;
    survey_fold(&answer, 1, &terms, &arena, &s);
    cr_assert_eq(s.n, MANY);
    for (unsigned i = 0; i < 2 * MANY; i++) {
        const struct episode e = {.fingerprint = arena_printf(&arena, "%016x", i)};
        enum survey_end expected = i % 2 == 0 ? SURVEY_LISTED : SURVEY_UNKNOWN;
        cr_assert_eq(survey_missing(&s, &e, GRACE), expected, "%u", i);
    }
}

Test(survey, end_at_the_very_time_of_the_lapse_was_said_by_nobody)
{
    static const struct {
        int64_t lapses_in_ns, ended_in_ns; /* from when it was told */
        bool has_lapsed;
    } rows[] = {
        {4 * MINUTE, 4 * MINUTE, true},
        {4 * MINUTE, 4 * MINUTE + 999999, true}, /* the list has milliseconds */
        {4 * MINUTE, 4 * MINUTE + 1000000, false},
        {4 * MINUTE, 30 * SECOND, false},
        {3 * SECOND, 3 * SECOND, true},
        {3 * SECOND - 1, 3 * SECOND - 1, false}, /* a clock that runs ahead */
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct listed l = listed_of(&(struct view){.is = ACTIVE});
        l.lapses_at_ns = l.updated_at_ns + rows[i].lapses_in_ns;
        const struct survey_answer answer = {.listing = {.alerts = &l, .n = 1}, .now_ns = NOW};
        const struct survey_terms terms = {.grace_ns = GRACE, .asked_ns = NOW};
        struct survey s;
        survey_fold(&answer, 1, &terms, &arena, &s);
        const struct episode e = {.lapses_at_ns = survey_lapse(&s, 0)};
        cr_expect_eq(survey_has_lapsed(&e, l.updated_at_ns + rows[i].ended_in_ns), rows[i].has_lapsed,
                     "row %zu", i);
    }
    cr_assert(!survey_has_lapsed(&(struct episode){.lapses_at_ns = 0}, 0), "not said");
}
