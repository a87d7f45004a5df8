#include "functions/dispatcher/selfwatch.h"

#include <criterion/criterion.h>
#include <string.h>

#include "base/list.h"

static struct selfwatch watch;

static void set_up(void)
{
    selfwatch_init(&watch);
}

TestSuite(selfwatch, .init = set_up);

static void record(enum record_kind kind, const char *status, const char *alertname, const char *fingerprint,
                   int64_t seconds, bool is_live)
{
    struct http_header items[] = {{SV("alertname"), sv(alertname)}};
    struct record r = {.kind = kind,
                       .time_ns = seconds * NS_PER_S,
                       .source = SV("alertmanager"),
                       .status = sv(status),
                       .fingerprint = sv(fingerprint)};
    if (kind == RECORD_SIGNAL) r.labels = (struct record_labels){items, ARRAY_LEN(items)};
    selfwatch_record(&watch, SV("Watchdog"), &r, is_live);
}

Test(selfwatch, watchdog_is_heard_by_its_signal_and_by_its_sightings)
{
    record(RECORD_SEEN, "", "", "f1", 5, false);
    cr_assert_eq(watch.heard_ns, 0, "nobody knows yet what f1 is");
    record(RECORD_SIGNAL, "firing", "Watchdog", "f1", 10, false);
    cr_assert_eq(watch.heard_ns, 10 * NS_PER_S);
    record(RECORD_SEEN, "", "", "f1", 70, false);
    cr_assert_eq(watch.heard_ns, 70 * NS_PER_S);
    cr_assert_eq(watch.heard_monotonic_ns, 0, "that was the past");
    record(RECORD_SEEN, "", "", "f1", 130, true);
    cr_assert_gt(watch.heard_monotonic_ns, 0);
}

Test(selfwatch, neither_other_alerts_nor_its_end_are_the_watchdog)
{
    record(RECORD_SIGNAL, "firing", "NginxDown", "f2", 10, true);
    record(RECORD_SIGNAL, "resolved", "Watchdog", "f1", 20, true);
    cr_assert_eq(watch.heard_ns, 0);
    record(RECORD_SIGNAL, "firing", "Watchdog", "f1", 30, true);
    record(RECORD_SEEN, "", "", "f2", 40, true);
    record(RECORD_SIGNAL, "resolved", "Watchdog", "f1", 50, true);
    cr_assert_eq(watch.heard_ns, 30 * NS_PER_S);
}

Test(selfwatch, without_a_name_none_is_expected)
{
    struct record r = {.kind = RECORD_SIGNAL, .status = SV("firing"), .time_ns = NS_PER_S};
    selfwatch_record(&watch, (struct strview){0}, &r, true);
    cr_assert_eq(watch.heard_ns, 0);
}

static void own(enum record_kind kind, const char *status, const char *source)
{
    struct record r = {.kind = kind,
                       .time_ns = 10 * NS_PER_S,
                       .starts_at_ns = 7 * NS_PER_S,
                       .source = sv(source),
                       .status = sv(status),
                       .incident = SV("i1"),
                       .fingerprint = sv(watch.episodes[SELF_DEAD_LETTERS].fingerprint)};
    selfwatch_record(&watch, SV("Watchdog"), &r, true);
}

Test(selfwatch, own_alerts_are_open_as_the_journal_says)
{
    const struct self_episode *e = &watch.episodes[SELF_DEAD_LETTERS];
    own(RECORD_SIGNAL, "firing", "alertmanager");
    cr_assert_not(e->is_open, "another's words are not ours");
    own(RECORD_SIGNAL, "firing", "balm");
    cr_assert(e->is_open);
    cr_assert_eq(e->starts_at_ns, 7 * NS_PER_S);
    cr_assert_not(watch.episodes[SELF_STUCK].is_open);
    own(RECORD_SEEN, "", "balm");
    cr_assert(e->is_open);
    own(RECORD_EXPIRED, "", "balm");
    cr_assert_not(e->is_open);
    own(RECORD_SIGNAL, "firing", "balm");
    own(RECORD_SIGNAL, "resolved", "balm");
    cr_assert_not(e->is_open);
    own(RECORD_SIGNAL, "firing", "balm");
    selfwatch_reset(&watch);
    cr_assert_not(e->is_open, "the journal is read again from its beginning");
}

Test(selfwatch, alerts_have_labels_in_order_and_fingerprints_of_their_own)
{
    for (int kind = 0; kind < SELF_ALERTS; kind++) {
        struct http_header items[SELF_LABELS], sorted[SELF_LABELS];
        struct record_labels labels = self_alert_labels((enum self_alert)kind, items);
        size_t n = labels.n;
        memcpy(sorted, items, sizeof(sorted));
        record_labels_sort(sorted, &n);
        cr_assert_eq(n, labels.n);
        for (size_t i = 0; i < n; i++)
            cr_assert(sv_eq(sorted[i].name, items[i].name));
        for (int other = 0; other < kind; other++)
            cr_assert_str_neq(watch.episodes[kind].fingerprint, watch.episodes[other].fingerprint);
    }
}
