#include "functions/alerts/listing.h"

#include <criterion/criterion.h>

#include "base/clock.h"

static struct arena arena;
static struct listing list;
static struct error err;

static void tear_down(void)
{
    arena_release(&arena);
}

TestSuite(listing, .fini = tear_down);

static enum status decode(const char *body)
{
    err = (struct error){0};
    return listing_decode(arena_copy(&arena, sv(body)), SV("bot.main"), &arena, &list, &err);
}

/* What Alertmanager 0.25 answered (measured), shortened. */
static const char real[] =
    "[{\"annotations\":{\"summary\":\"s\"},\"endsAt\":\"2026-11-28T03:50:00.000Z\",\"fingerprint\":\"129c009076f06444\",\"receivers\":[{\"name\":"
    "\"other\"},{\"name\":\"bot.main\"}],\"startsAt\":\"2026-11-28T03:40:00.000Z\",\"status\":{\"inhibitedBy\":[],\"silencedBy\":[],\"state\":"
    "\"active\"},\"updatedAt\":\"2026-11-28T03:45:00.5Z\",\"generatorURL\":\"http://p/g\",\"labels\":{\"alertname\":\"A\",\"kind\":\"r500\"}},"
    "{\"annotations\":{},\"endsAt\":\"2026-11-28T03:50:00.000Z\",\"fingerprint\":\"x\",\"receivers\":[{\"name\":\"bot\"}],\"startsAt\":"
    "\"2026-11-28T03:40:00.000Z\",\"status\":{\"inhibitedBy\":[],\"silencedBy\":[\"1\"],\"mutedBy\":[],\"state\":\"suppressed\"},\"updatedAt\":"
    "\"2026-11-28T03:45:00Z\",\"labels\":{\"alertname\":\"B\"}}]\n";

Test(listing, of_a_real_alertmanager_is_read)
{
    cr_assert_eq(decode(real), STATUS_OK, "%s", err.message);
    cr_assert_eq(list.n, 2);
    cr_assert_eq(list.n_rejected, 0);
    const struct listed *a = &list.alerts[0], *b = &list.alerts[1];
    int64_t updated_ns, starts_ns;
    cr_assert_eq(rfc3339_parse(SV("2026-11-28T03:45:00.5Z"), &updated_ns), STATUS_OK);
    cr_assert_eq(rfc3339_parse(SV("2026-11-28T03:40:00Z"), &starts_ns), STATUS_OK);
    cr_assert(a->is_active && a->is_ours && a->alert.is_firing);
    cr_assert_eq(a->updated_at_ns, updated_ns);
    cr_assert_eq(a->alert.starts_at_ns, starts_ns);
    cr_assert_eq(a->alert.ends_at_ns, 0, "an expectation, not an end");
    cr_assert_eq(a->lapses_at_ns, starts_ns + 600 * NS_PER_S);
    cr_assert_eq(a->alert.fingerprint_computed.len, 0);
    cr_assert(sv_eq(a->alert.generator_url, SV("http://p/g")));
    cr_assert(sv_eq(record_label(&a->alert.annotations, SV("summary")), SV("s")));
    cr_assert(!b->is_active && !b->is_ours && b->alert.is_firing);
    cr_assert_eq(b->alert.fingerprint_computed.len, 16, "checked as the webhook's");
}

Test(listing, alerts_over_a_limit_or_in_another_shape_are_listed_with_their_reason)
{
    cr_assert_eq(
        decode(
            "[{},7,{\"labels\":{\"alertname\":\"A\",\"x\":1},\"startsAt\":\"2026-11-28T03:40:00Z\"},"
            "{\"labels\":{\"alertname\":\"A\"},\"startsAt\":\"2026-11-28T03:40:00Z\",\"status\":\"active\","
            "\"receivers\":{},\"updatedAt\":7,\"endsAt\":null}]"),
        STATUS_OK, "%s", err.message);
    cr_assert_eq(list.n, 4);
    cr_assert_eq(list.n_rejected, 3);
    for (size_t i = 0; i < 3; i++)
        cr_expect(list.alerts[i].alert.reason.len > 0);
    const struct listed *odd = &list.alerts[3];
    cr_assert(odd->alert.reason.len == 0 && !odd->is_active && !odd->is_ours && odd->updated_at_ns == 0);
}

Test(listing, empty_list_is_one)
{
    cr_assert_eq(decode("[]"), STATUS_OK);
    cr_assert_eq(list.n, 0);
}

Test(listing, anything_but_a_list_is_refused)
{
    static const char *const bad[] = {"",      "{}",  "null", "[{}", "[]x", "\"silence not found\"",
                                      "[{}},", "[1,]"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        cr_expect_eq(decode(bad[i]), STATUS_INVALID_ARGUMENT, "%s", bad[i]);
        cr_expect(err.message[0] != '\0');
    }
}

Test(listing, more_than_the_limit_is_no_answer)
{
    struct buf b;
    buf_init(&b, 4 * LISTING_ALERTS_MAX + 8);
    buf_append_char(&b, '[');
    for (size_t i = 0; i < LISTING_ALERTS_MAX; i++)
        buf_append(&b, i > 0 ? SV(",{}") : SV("{}"));
    buf_append_char(&b, ']');
    cr_assert_eq(listing_decode(buf_view(&b), SV(""), &arena, &list, &err), STATUS_OK);
    b.len--;
    buf_append(&b, SV(",{}]"));
    cr_assert_eq(listing_decode(buf_view(&b), SV(""), &arena, &list, &err), STATUS_RESOURCE_EXHAUSTED);
    buf_release(&b);
}

Test(listing, status_tells_since_when_it_runs_and_of_time_intervals)
{
    static const struct {
        const char *body;
        enum status status;
        bool has_time_intervals;
    } rows[] = {
        {"{\"cluster\":{\"peers\":[{}],\"status\":\"ready\"},\"config\":{\"original\":\"route: {}\\n\"},"
         "\"uptime\":\"2026-11-28T03:40:00.123Z\",\"versionInfo\":{}}",
         STATUS_OK, false},
        {"{\"config\":{\"original\":\"  mute_time_intervals: [x]\"},\"uptime\":\"2026-11-28T03:40:00Z\"}",
         STATUS_OK, true},
        {"{\"config\":{\"original\":\"  active_time_intervals: [x]\"},\"uptime\":\"2026-11-28T03:40:00Z\"}",
         STATUS_OK, true},
        {"{\"config\":{}}", STATUS_INVALID_ARGUMENT, false},
        {"{\"uptime\":\"0001-01-01T00:00:00Z\"}", STATUS_INVALID_ARGUMENT, false},
        {"{\"uptime\":7}", STATUS_INVALID_ARGUMENT, false},
        {"[]", STATUS_INVALID_ARGUMENT, false},
        {"<html>", STATUS_INVALID_ARGUMENT, false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct listing_status status = {0};
        cr_expect_eq(listing_decode_status(sv(rows[i].body), &arena, &status, &err), rows[i].status, "%s",
                     rows[i].body);
        cr_expect_eq(status.has_time_intervals, rows[i].has_time_intervals, "%s", rows[i].body);
        cr_expect_eq(status.started_unix_ns != 0, rows[i].status == STATUS_OK);
    }
}
