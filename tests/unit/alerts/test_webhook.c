#include "functions/alerts/webhook.h"

#include <criterion/criterion.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/list.h"
#include "base/random.h"

static struct arena arena;
static struct webhook hook;
static struct error err;

static void tear_down(void)
{
    arena_release(&arena);
}

TestSuite(webhook, .fini = tear_down);

/* A heap copy of exact size, so that ASan sees a read past the end; freed with the arena's content still
 * borrowed from it only by us. */
static enum status decode(struct strview body)
{
    err = (struct error){0};
    return webhook_decode(arena_copy(&arena, body), &arena, &hook, &err);
}

static enum status decode_text(const char *body)
{
    return decode(sv(body));
}

/* What Alertmanager 0.25 sent (measured): quoting of <, >, & and of the receiver's name, zero endsAt, one
 * final newline. */
static const char real[] =
    "{\"receiver\":\"bot\\\\.main\",\"status\":\"firing\",\"alerts\":[{\"status\":\"firing\",\"labels\":{\"alertname\":\"KubePodCrashLooping\","
    "\"namespace\":\"a\",\"pod\":\"p1\",\"severity\":\"warning\"},\"annotations\":{\"summary\":\"rate \\u003e 5 \\u0026 rising \\u003c 9\"},"
    "\"startsAt\":\"2026-11-22T09:00:00.123456789+01:00\",\"endsAt\":\"0001-01-01T00:00:00Z\",\"generatorURL\":"
    "\"http://p:9090/graph?g0.expr=up+%3D%3D+0\\u0026g0.tab=1\",\"fingerprint\":\"a98a96e03b95fa22\"},"
    "{\"status\":\"resolved\",\"labels\":{\"alertname\":\"A\",\"kind\":\"r500\"},\"annotations\":{},\"startsAt\":\"2026-11-22T08:00:00Z\","
    "\"endsAt\":\"2026-11-22T08:05:00Z\",\"generatorURL\":\"\",\"fingerprint\":\"129c009076f06444\"}],\"groupLabels\":{\"alertname\":\"x\"},"
    "\"commonLabels\":{},\"commonAnnotations\":{},\"externalURL\":\"http://am:9093\",\"version\":\"4\",\"groupKey\":"
    "\"{}:{alertname=\\\"KubePodCrashLooping\\\", namespace=\\\"a\\\"}\",\"truncatedAlerts\":7,\"notification_reason\":\"first notification\"}\n";

Test(webhook, of_a_real_alertmanager_is_read)
{
    cr_assert_eq(decode_text(real), STATUS_OK, "%s", err.message);
    cr_assert(sv_eq(hook.receiver, SV("bot.main")));
    cr_assert(sv_eq(hook.group_key, SV("{}:{alertname=\"KubePodCrashLooping\", namespace=\"a\"}")));
    cr_assert_eq(hook.truncated_alerts, 7);
    cr_assert_eq(hook.n_alerts, 2);
    cr_assert_eq(hook.n_rejected, 0);
    const struct webhook_alert *firing = &hook.alerts[0], *resolved = &hook.alerts[1];
    cr_assert(firing->is_firing);
    cr_assert(sv_eq(record_label(&firing->labels, SV("pod")), SV("p1")));
    cr_assert(sv_eq(record_label(&firing->annotations, SV("summary")), SV("rate > 5 & rising < 9")));
    cr_assert(sv_eq(firing->generator_url, SV("http://p:9090/graph?g0.expr=up+%3D%3D+0&g0.tab=1")));
    cr_assert(sv_eq(firing->fingerprint, SV("a98a96e03b95fa22")));
    cr_assert_eq(firing->fingerprint_computed.len, 0);
    cr_assert_eq(firing->ends_at_ns, 0);
    int64_t starts_at_ns;
    cr_assert_eq(rfc3339_parse(SV("2026-11-22T08:00:00.123456789Z"), &starts_at_ns), STATUS_OK);
    cr_assert_eq(firing->starts_at_ns, starts_at_ns);
    cr_assert_not(resolved->is_firing);
    cr_assert_eq(resolved->ends_at_ns - resolved->starts_at_ns, 300 * NS_PER_S);
    cr_assert_eq(resolved->fingerprint_computed.len, 0);
}

Test(webhook, without_escapes_borrows_from_the_body)
{
    struct strview body = SV(
        "{\"version\":\"4\",\"alerts\":[{\"status\":\"firing\",\"labels\":{\"alertname\":\"A\"},\"startsAt\":\"2026-11-22T08:00:00Z\","
        "\"generatorURL\":\"http://g\"}]}");
    cr_assert_eq(webhook_decode(body, &arena, &hook, &err), STATUS_OK);
    cr_assert(hook.alerts[0].generator_url.ptr > body.ptr &&
              hook.alerts[0].generator_url.ptr < body.ptr + body.len);
}

/* ---- the whole body ---- */

#define GOOD_ALERT                                                                                           \
    "{\"status\":\"firing\",\"labels\":{\"alertname\":\"A\"},\"startsAt\":\"2026-11-22T08:00:00Z\"}"
#define GOOD_BODY "{\"version\":\"4\",\"alerts\":[" GOOD_ALERT "]}"

Test(webhook, that_is_wrong_as_a_whole_says_what_and_where)
{
    static const struct {
        const char *body, *says;
    } bad[] = {
        {"", "JSON: the text ends too early at line 1 column 1"},
        {"   ", "JSON: the text ends too early at line 1 column 4"},
        {"[]", "JSON: an object is expected at line 1 column 1"},
        {"null", "an object is expected"},
        {"alert!", "an object is expected"},
        {"{}", "\"version\" is missing"},
        {"{\"version\":\"4\"}", "\"alerts\" is missing"},
        {"{\"version\":\"4\",\"alerts\":[]}", "\"alerts\" is empty"},
        {"{\"version\":\"4\",\"alerts\":{}}", "\"alerts\" is not an array"},
        {"{\"version\":\"4\",\"alerts\":null}", "\"alerts\" is not an array"},
        {"{\"version\":\"4\",\"alerts\":\"\"}", "\"alerts\" is not an array"},
        {"{\"version\":\"3\",\"alerts\":[" GOOD_ALERT "]}",
         "\"version\" is \"3\", only Alertmanager's \"4\" and Grafana's \"1\""},
        {"{\"version\":4,\"alerts\":[" GOOD_ALERT "]}", "\"version\" is not a string"},
        {"{\"alerts\":[" GOOD_ALERT "]}", "\"version\" is missing"},
        {"{\"version\":\"4\",\"receiver\":7,\"alerts\":[" GOOD_ALERT "]}", "\"receiver\" is not a string"},
        {"{\"version\":\"4\",\"groupKey\":\"a\\u0000b\",\"alerts\":[" GOOD_ALERT "]}",
         "\"groupKey\" has a NUL"},
        {GOOD_BODY "x", "something follows the end of the value at line 1"},
        {GOOD_BODY GOOD_BODY, "something follows"},
        {"{\"version\":\"4\",\n\"alerts\":[" GOOD_ALERT ",\n{\"labels\":{\"\xC3\xA4\":tru}}]}",
         "JSON: a value is expected at line 3 column 16, in alerts[1]"},
        {"{\"version\":\"4\",\"alerts\":[" GOOD_ALERT ",]}", "a value is expected after ','"},
        {"{\"version\":\"4\",\"alerts\":[" GOOD_ALERT, "the text ends too early"},
        {"{\"version\":\"4\",\"alerts\":[{\"labels\":{\"alertname\":\"\xFF\"}}]}",
         "JSON: invalid UTF-8 at line 1 column 50, in alerts[0]"},
        {"{\"version\":\"4\",\"alerts\":[{\"labels\":{\"alertname\":\"\xED\xA0\x80\"}}]}", "invalid UTF-8"},
        {"{\"version\":\"4\",\"alerts\":[{\"labels\":{\"alertname\":\"\\ud800\"}}]}",
         "half of a surrogate pair"},
        {"{\"version\":\"4\",\"alerts\":[{\"labels\":{\"alertname\":\"a\tb\"}}]}",
         "control character in a string"},
        {"{\"version\":\"4\",\"alerts\":[{\"labels\":{\"alertname\":\"a\\x\"}}]}", "unknown escape"},
        {"{\"version\":\"4\",\"alerts\":[{labels:{}}]}", "a member name in quotes is expected"},
        {"{\"version\":\"4\",\"x\":01}", "a number has a leading zero"},
        {"{\"version\":\"4\",\"x\":NaN}", "a value is expected"},
        {"{'version':'4'}", "a member name in quotes is expected"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        cr_expect_eq(decode_text(bad[i].body), STATUS_INVALID_ARGUMENT, "%s", bad[i].body);
        cr_expect_not_null(strstr(err.message, bad[i].says), "%s: %s", bad[i].body, err.message);
    }
}

Test(webhook, nested_deeply_is_refused_wherever_it_nests)
{
    static const char *const places[] = {
        "{\"version\":\"4\",\"x\":", "{\"version\":\"4\",\"alerts\":",
        "{\"version\":\"4\",\"alerts\":[{\"labels\":", "{\"version\":\"4\",\"alerts\":[{\"labels\":{\"a\":",
        "{\"version\":"};
    struct buf body;
    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        buf_init(&body, 4 << 20);
        buf_append(&body, sv(places[i]));
        for (unsigned n = 0; n < 1000000; n++)
            buf_append(&body, n % 2 ? SV("[") : SV("{\"a\":"));
        cr_expect_eq(decode(buf_view(&body)), STATUS_INVALID_ARGUMENT);
        cr_expect_not_null(strstr(err.message, "nested too deep"), "%s", err.message);
        buf_release(&body);
    }
}

Test(webhook, unknown_members_and_space_are_passed_over)
{
    cr_assert_eq(
        decode_text(
            " {\n \"new\" : {\"deep\":[[1e5,-0.5,true,false,null,\"\\u0041\"],{}]} , \"version\" : \"4\",\r\n\t\"alerts\" : [ {\"x\":[],"
            "\"labels\" : { \"alertname\" : \"A\" } , \"status\" : \"firing\", \"startsAt\" : \"2026-11-22T08:00:00Z\" } ] } \n"),
        STATUS_OK, "%s", err.message);
    cr_assert_eq(hook.n_alerts, 1);
    cr_assert_eq(hook.n_rejected, 0);
}

Test(webhook, alert_count_is_bounded)
{
    struct buf body;
    for (unsigned n = WEBHOOK_ALERTS_MAX; n <= WEBHOOK_ALERTS_MAX + 1; n++) {
        buf_init(&body, 8 << 20);
        buf_append(&body, SV("{\"version\":\"4\",\"alerts\":["));
        for (unsigned i = 0; i < n; i++)
            buf_printf(
                &body,
                "%s{\"status\":\"firing\",\"labels\":{\"alertname\":\"A\",\"n\":\"%u\"},\"startsAt\":\"2026-11-22T08:00:00Z\"}",
                i ? "," : "", i);
        buf_append(&body, SV("]}"));
        bool is_fine = n <= WEBHOOK_ALERTS_MAX;
        cr_assert_eq(decode(buf_view(&body)), is_fine ? STATUS_OK : STATUS_INVALID_ARGUMENT);
        if (is_fine) {
            cr_assert_eq(hook.n_alerts, n);
            cr_assert(sv_eq(record_label(&hook.alerts[n - 1].labels, SV("n")), SV("9999")));
        } else {
            cr_assert_not_null(strstr(err.message, "max_alerts"), "%s", err.message);
        }
        buf_release(&body);
    }
}

Test(webhook, receiver_is_unquoted)
{
    static const char *const names[][2] = {
        {"plain", "plain"},
        {"bot\\\\.main", "bot.main"},
        {"a\\\\+b\\\\(c\\\\)\\\\[d\\\\]", "a+b(c)[d]"},
        {"back\\\\\\\\slash", "back\\slash"},
        {"end\\\\", "end\\"},
        {"\\\\d", "\\d"},
    };
    char body[400];
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        (void)snprintf(body, sizeof(body),
                       "{\"version\":\"4\",\"receiver\":\"%s\",\"alerts\":[" GOOD_ALERT "]}", names[i][0]);
        cr_assert_eq(decode_text(body), STATUS_OK, "%s", err.message);
        cr_assert(sv_eq(hook.receiver, sv(names[i][1])), "%.*s", SV_ARG(hook.receiver));
    }
}

static const char *repeated(char c, size_t n)
{
    char *text = arena_alloc(&arena, n + 1);
    memset(text, c, n);
    text[n] = '\0';
    return text;
}

static struct strview formatted(const char *fmt, const char *part)
{
    size_t size = strlen(fmt) + strlen(part) + 1;
    char *text = arena_alloc(&arena, size);
    const char *at = strstr(fmt, "@");
    (void)snprintf(text, size, "%.*s%s%s", (int)(at - fmt), fmt, part, at + 1);
    return sv(text);
}

Test(webhook, long_group_key_is_kept_as_a_hash)
{
    static const char fmt[] = "{\"version\":\"4\",\"groupKey\":\"@\",\"alerts\":[" GOOD_ALERT "]}";
    cr_assert_eq(decode(formatted(fmt, repeated('k', WEBHOOK_GROUP_KEY_BYTES_MAX))), STATUS_OK);
    cr_assert_eq(hook.group_key.len, WEBHOOK_GROUP_KEY_BYTES_MAX);
    cr_assert_eq(decode(formatted(fmt, repeated('k', WEBHOOK_GROUP_KEY_BYTES_MAX + 1))), STATUS_OK);
    cr_assert_eq(hook.group_key.len, 7 + 64);
    cr_assert(sv_starts_with(hook.group_key, SV("sha256:")));
}

Test(webhook, long_receiver_is_refused)
{
    static const char fmt[] = "{\"version\":\"4\",\"receiver\":\"@\",\"alerts\":[" GOOD_ALERT "]}";
    cr_assert_eq(decode(formatted(fmt, repeated('r', WEBHOOK_RECEIVER_BYTES_MAX))), STATUS_OK);
    cr_assert_eq(decode(formatted(fmt, repeated('r', WEBHOOK_RECEIVER_BYTES_MAX + 1))),
                 STATUS_INVALID_ARGUMENT);
}

/* ---- single alerts ---- */

/* `members` of an alert that is otherwise fine, between two that are. */
static const struct webhook_alert *decode_alert(struct strview members)
{
    struct strview body = formatted("{\"version\":\"4\",\"alerts\":[" GOOD_ALERT ",@," GOOD_ALERT "]}",
                                    arena_cstr(&arena, members));
    cr_assert_eq(decode(body), STATUS_OK, "%s", err.message);
    cr_assert_eq(hook.n_alerts, 3);
    cr_assert_eq(hook.alerts[0].reason.len + hook.alerts[2].reason.len, 0, "the others stand");
    cr_assert_eq(hook.n_rejected, hook.alerts[1].reason.len > 0);
    return &hook.alerts[1];
}

#define STARTS ",\"startsAt\":\"2026-11-22T08:00:00Z\""
#define FIRING "\"status\":\"firing\"" STARTS

Test(webhook, alert_that_is_wrong_is_rejected_alone)
{
    static const struct {
        const char *alert, *says;
    } bad[] = {
        {"7", "alerts[1]: not an object"},
        {"null", "not an object"},
        {"[]", "not an object"},
        {"{}", "labels are missing"},
        {"{" FIRING "}", "labels are missing"},
        {"{" FIRING ",\"labels\":null}", "labels are missing"},
        {"{" FIRING ",\"labels\":{}}", "labels are missing"},
        {"{" FIRING ",\"labels\":[\"alertname\"]}", "labels is not an object"},
        {"{" FIRING ",\"labels\":{\"job\":\"x\"}}", "label \"alertname\" is missing or empty"},
        {"{" FIRING ",\"labels\":{\"alertname\":\"\"}}", "label \"alertname\" is missing or empty"},
        {"{" FIRING ",\"labels\":{\"alertname\":7}}", "label \"alertname\" is not a string"},
        {"{" FIRING ",\"labels\":{\"alertname\":\"A\",\"x\":{\"y\":[1]}}}", "label \"x\" is not a string"},
        {"{" FIRING ",\"labels\":{\"alertname\":\"A\",\"x\":null}}", "label \"x\" is not a string"},
        {"{" FIRING ",\"labels\":{\"alertname\":\"A\",\"1\\u001fx\":\"\"}}", "is not a label name"},
        {"{" FIRING ",\"labels\":{\"alertname\":\"A\",\"\":\"\"}}", "\"\" is not a label name"},
        {"{" FIRING ",\"labels\":{\"alertname\":\"A\",\"a\\tb\":\"\"}}", "is not a label name"},
        {"{" FIRING ",\"labels\":{\"alertname\":\"A\",\"a\":\"x\\u0000\"}}", "label \"a\" has a NUL"},
        {"{" FIRING ",\"labels\":{\"alertname\":\"A\"},\"annotations\":[]}", "annotations is not an object"},
        {"{" FIRING ",\"labels\":{\"alertname\":\"A\"},\"annotations\":{\"x\":1}}",
         "annotation \"x\" is not a string"},
        {"{" FIRING ",\"labels\":{\"alertname\":\"A\"},\"annotations\":{\"\":\"x\"}}",
         "annotation name \"\""},
        {"{" FIRING ",\"labels\":{\"alertname\":\"A\"},\"annotations\":{\"x\":\"\\u0000\"}}",
         "annotation \"x\" has a NUL"},
        {"{" FIRING ",\"labels\":{\"alertname\":\"A\"},\"generatorURL\":7}", "generatorURL is not a string"},
        {"{" FIRING ",\"labels\":{\"alertname\":\"A\"},\"generatorURL\":\"\\u0000\"}",
         "generatorURL has a NUL"},
        {"{" FIRING ",\"labels\":{\"alertname\":\"A\"},\"fingerprint\":7}", "fingerprint is not a string"},
        {"{" FIRING ",\"labels\":{\"alertname\":\"A\"},\"fingerprint\":\"../etc\"}",
         "fingerprint \"../etc\""},
        {"{" FIRING ",\"labels\":{\"alertname\":\"A\"},\"endsAt\":\"soon\"}",
         "endsAt \"soon\" is not a time"},
        {"{\"status\":\"firing\",\"labels\":{\"alertname\":\"A\"}}", "startsAt is missing"},
        {"{\"status\":\"firing\",\"labels\":{\"alertname\":\"A\"},\"startsAt\":1763798400}",
         "startsAt is not a string"},
        {"{\"status\":\"firing\",\"labels\":{\"alertname\":\"A\"},\"startsAt\":\"2026-11-22\"}",
         "startsAt \"2026-11-22\" is not a time"},
        {"{\"status\":\"firing\",\"labels\":{\"alertname\":\"A\"},\"startsAt\":\"0001-01-01T00:00:00Z\"}",
         "is unset or out of range"},
        {"{\"labels\":{\"alertname\":\"A\"}" STARTS "}", "status is missing"},
        {"{\"status\":\"burning\",\"labels\":{\"alertname\":\"A\"}" STARTS "}", "status is \"burning\""},
        {"{\"status\":true,\"labels\":{\"alertname\":\"A\"}" STARTS "}", "status is not a string"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        const struct webhook_alert *alert = decode_alert(sv(bad[i].alert));
        cr_expect(sv_contains(alert->reason, sv(bad[i].says)), "%s: %.*s", bad[i].alert,
                  SV_ARG(alert->reason));
        cr_expect(sv_starts_with(alert->reason, SV("alerts[1]: ")));
        struct strview evidence = sv_sub(sv(bad[i].alert), 0, WEBHOOK_EVIDENCE_BYTES_MAX);
        cr_expect(sv_eq(alert->evidence, evidence), "%.*s", SV_ARG(alert->evidence));
    }
}

Test(webhook, alert_with_odd_but_fine_members_is_taken)
{
    static const char *const fine[] = {
        "{" FIRING
        ",\"labels\":{\"alertname\":\"A\",\"empty\":\"\",\"_x9\":\"\xF0\x9F\x98\x80 \\ud83d\\ude00\"}}",
        "{" FIRING
        ",\"labels\":{\"alertname\":\"A\"},\"annotations\":null,\"endsAt\":null,\"generatorURL\":null,\"fingerprint\":null}",
        "{" FIRING ",\"labels\":{\"alertname\":\"A\"},\"annotations\":{\"free.text-name \xC3\xA4\":\"\"}}",
        /* Given twice: the last counts, as in Go. */
        "{" FIRING ",\"labels\":{\"alertname\":\"x\",\"alertname\":\"A\"}}",
        "{" FIRING
        ",\"labels\":{\"alertname\":\"A\"},\"endsAt\":\"\",\"silenceURL\":\"x\",\"values\":{\"A\":1.5}}",
    };
    for (size_t i = 0; i < ARRAY_LEN(fine); i++) {
        const struct webhook_alert *alert = decode_alert(sv(fine[i]));
        cr_expect_eq(alert->reason.len, 0, "%s: %.*s", fine[i], SV_ARG(alert->reason));
        cr_expect(sv_eq(record_label(&alert->labels, SV("alertname")), SV("A")));
    }
}

/* Each limit: at it fine, one beyond rejected. */
static void check_limit(const char *fmt, size_t max, const char *says)
{
    const struct webhook_alert *alert = decode_alert(formatted(fmt, repeated('v', max)));
    cr_expect_eq(alert->reason.len, 0, "%.*s", SV_ARG(alert->reason));
    alert = decode_alert(formatted(fmt, repeated('v', max + 1)));
    cr_expect(sv_contains(alert->reason, sv(says)), "%.*s", SV_ARG(alert->reason));
    cr_expect_leq(alert->evidence.len, WEBHOOK_EVIDENCE_BYTES_MAX);
}

Test(webhook, alert_limits_are_exact)
{
    check_limit("{" FIRING ",\"labels\":{\"alertname\":\"A\",\"pod\":\"@\"}}", WEBHOOK_VALUE_BYTES_MAX,
                "label \"pod\" has 4097 bytes, at most 4096");
    check_limit("{" FIRING ",\"labels\":{\"alertname\":\"A\",\"@\":\"x\"}}", WEBHOOK_NAME_BYTES_MAX,
                "has 257 bytes, at most 256");
    check_limit("{" FIRING ",\"labels\":{\"alertname\":\"@\"}}", WEBHOOK_ALERTNAME_BYTES_MAX,
                "label \"alertname\" has 1025 bytes");
    check_limit("{" FIRING ",\"labels\":{\"alertname\":\"A\"},\"annotations\":{\"@\":\"x\"}}",
                WEBHOOK_NAME_BYTES_MAX, "has 257 bytes, 1 to 256");
    check_limit("{" FIRING ",\"labels\":{\"alertname\":\"A\"},\"annotations\":{\"a\":\"b\",\"text\":\"@\"}}",
                WEBHOOK_ANNOTATIONS_BYTES_MAX - 6,
                "annotation \"text\" brings the annotations to 16385 bytes");
    check_limit("{" FIRING ",\"labels\":{\"alertname\":\"A\"},\"fingerprint\":\"@\"}",
                WEBHOOK_FINGERPRINT_BYTES_MAX, "fingerprint has 65 bytes");
    size_t frame = strlen("{" FIRING ",\"labels\":{\"alertname\":\"A\"},\"generatorURL\":\"\"}");
    check_limit("{" FIRING ",\"labels\":{\"alertname\":\"A\"},\"generatorURL\":\"@\"}",
                WEBHOOK_ALERT_BYTES_MAX - frame, "65537 bytes, at most 65536");
}

Test(webhook, label_and_annotation_counts_are_bounded)
{
    struct buf members;
    for (unsigned kind = 0; kind < 2; kind++) {
        for (unsigned n = WEBHOOK_LABELS_MAX; n <= WEBHOOK_LABELS_MAX + 1; n++) {
            buf_init(&members, 1 << 20);
            buf_append(&members,
                       kind == 0
                           ? SV("{" FIRING ",\"labels\":{\"alertname\":\"A\"")
                           : SV("{" FIRING
                                ",\"labels\":{\"alertname\":\"A\"},\"annotations\":{\"alertname\":\"A\""));
            for (unsigned i = 1; i < n; i++)
                buf_printf(&members, ",\"l%u\":\"v\"", i);
            buf_append(&members, SV("}}"));
            const struct webhook_alert *alert = decode_alert(buf_view(&members));
            cr_assert_eq(sv_contains(alert->reason, SV("more than 128 ")), n > WEBHOOK_LABELS_MAX, "%.*s",
                         SV_ARG(alert->reason));
            buf_release(&members);
        }
    }
}

Test(webhook, evidence_is_not_cut_inside_a_character)
{
    const char *filler = repeated('f', WEBHOOK_EVIDENCE_BYTES_MAX - 11);
    const struct webhook_alert *alert =
        decode_alert(formatted("{\"summary@\":\"\xF0\x9F\x98\x80\xF0\x9F\x98\x80\"}", filler));
    cr_assert(alert->reason.len > 0);
    cr_assert(sv_is_utf8(alert->evidence));
    cr_assert_leq(alert->evidence.len, WEBHOOK_EVIDENCE_BYTES_MAX);
    cr_assert_geq(alert->evidence.len, WEBHOOK_EVIDENCE_BYTES_MAX - 3);
}

Test(webhook, fingerprint_that_differs_is_kept_beside_ours)
{
    const struct webhook_alert *alert = decode_alert(
        SV("{" FIRING
           ",\"labels\":{\"kind\":\"r500\",\"alertname\":\"A\"},\"fingerprint\":\"deadbeefdeadbeef\"}"));
    cr_assert_eq(alert->reason.len, 0);
    cr_assert(sv_eq(alert->fingerprint, SV("deadbeefdeadbeef")));
    cr_assert(sv_eq(alert->fingerprint_computed, SV("129c009076f06444")));
    alert = decode_alert(SV("{" FIRING ",\"labels\":{\"kind\":\"r500\",\"alertname\":\"A\"}}"));
    cr_assert(sv_eq(alert->fingerprint, SV("129c009076f06444")));
    cr_assert_eq(alert->fingerprint_computed.len, 0);
}

/* ---- Grafana ---- */

/* The example of Grafana's documentation (webhook notifier), with what its notifier adds beside it. */
static const char grafana[] =
    "{\"receiver\":\"My Super Webhook\",\"status\":\"firing\",\"orgId\":1,\"alerts\":[{\"status\":\"firing\",\"labels\":{\"alertname\":"
    "\"High memory usage\",\"team\":\"blue\",\"zone\":\"us-1\"},\"annotations\":{\"description\":\"The system has high memory usage\","
    "\"runbook_url\":\"https://myrunbook.com/runbook/1234\"},\"startsAt\":\"2021-10-12T09:51:03.157076+02:00\",\"endsAt\":"
    "\"0001-01-01T00:00:00Z\",\"generatorURL\":\"https://play.grafana.org/alerting/1afz29v7z/edit\",\"fingerprint\":\"c6eadffa33fcdf37\","
    "\"silenceURL\":\"https://play.grafana.org/alerting/silence/new\",\"dashboardURL\":\"\",\"panelURL\":\"\",\"values\":{\"B\":"
    "44.23943737541908,\"C\":1},\"valueString\":\"[ var='B' ]\",\"imageURL\":\"https://play.grafana.org/i.png\",\"orgId\":1,\"ruleUID\":\"r\"},"
    "{\"status\":\"resolved\",\"labels\":{\"alertname\":\"Disk\",\"grafana_folder\":\"Alerts\"},\"annotations\":{\"grafana_state_reason\":"
    "\"MissingSeries\"},\"startsAt\":\"2025-10-08T14:33:30Z\",\"endsAt\":\"2025-10-08T16:29:55.933582749Z\",\"values\":null}],"
    "\"groupLabels\":{},\"commonLabels\":{},\"commonAnnotations\":{},\"externalURL\":\"https://play.grafana.org/\",\"version\":\"1\","
    "\"groupKey\":\"{}:{}\",\"truncatedAlerts\":0,\"title\":\"[FIRING:2]\",\"state\":\"alerting\",\"message\":\"**Firing**\"}";

Test(webhook, of_grafana_is_read)
{
    cr_assert_eq(decode_text(grafana), STATUS_OK, "%s", err.message);
    cr_assert(sv_eq(hook.source, SV("grafana")));
    cr_assert(sv_eq(hook.receiver, SV("My Super Webhook")));
    cr_assert_eq(hook.n_alerts, 2);
    cr_assert_eq(hook.n_rejected, 0);
    const struct webhook_alert *alert = &hook.alerts[0];
    cr_assert(alert->is_firing);
    cr_assert_eq(alert->unmeasured.len, 0);
    cr_assert(sv_eq(alert->fingerprint, SV("c6eadffa33fcdf37")));
    cr_assert_eq(alert->fingerprint_computed.len, 16, "Grafana's is of labels too that it does not send");
    alert = &hook.alerts[1];
    cr_assert_not(alert->is_firing);
    cr_assert(sv_contains(alert->unmeasured, SV("\"MissingSeries\"")), "%.*s", SV_ARG(alert->unmeasured));
}

Test(webhook, what_nobody_measured_is_marked)
{
    static const struct {
        const char *members;
        bool is_measured;
    } alerts[] = {
        {"\"status\":\"firing\",\"labels\":{\"alertname\":\"DatasourceNoData\",\"rulename\":\"Disk\",\"datasource_uid\":\"u\"}",
         false},
        {"\"status\":\"firing\",\"labels\":{\"alertname\":\"DatasourceError\",\"rulename\":\"Disk\"}", false},
        {"\"status\":\"resolved\",\"labels\":{\"alertname\":\"DatasourceError\",\"rulename\":\"Disk\"}",
         true},
        {"\"status\":\"firing\",\"labels\":{\"alertname\":\"DatasourceError\"}", true}, /* somebody else's */
        {"\"status\":\"firing\",\"labels\":{\"alertname\":\"A\"},\"annotations\":{\"grafana_state_reason\":\"NoData\"}",
         false},
        {"\"status\":\"firing\",\"labels\":{\"alertname\":\"A\"},\"annotations\":{\"grafana_state_reason\":\"Error, KeepLast\"}",
         false},
        {"\"status\":\"resolved\",\"labels\":{\"alertname\":\"A\"},\"annotations\":{\"grafana_state_reason\":\"Paused\"}",
         false},
        {"\"status\":\"firing\",\"labels\":{\"alertname\":\"A\"},\"annotations\":{\"grafana_state_reason\":\"\"}",
         true},
    };
    for (size_t i = 0; i < ARRAY_LEN(alerts); i++) {
        const struct webhook_alert *alert = decode_alert(
            arena_printf(&arena, "{%s,\"startsAt\":\"2026-11-22T08:00:00Z\"}", alerts[i].members));
        cr_expect_eq(alert->reason.len, 0, "%zu", i);
        cr_expect_eq(alert->unmeasured.len == 0, alerts[i].is_measured, "%zu", i);
    }
}

Test(webhook, incident_of_another_source_is_another_one)
{
    char plain[INCIDENT_ID_MAX], own[INCIDENT_ID_MAX], other[INCIDENT_ID_MAX];
    incident_id(SV("c6eadffa33fcdf37"), NS_PER_S, plain);
    webhook_incident_id(WEBHOOK_ALERTMANAGER, SV("c6eadffa33fcdf37"), NS_PER_S, own);
    webhook_incident_id(WEBHOOK_GRAFANA, SV("c6eadffa33fcdf37"), NS_PER_S, other);
    cr_assert_str_eq(own, plain);
    cr_assert_str_neq(other, plain);
    cr_assert_eq(strlen(other), strlen(plain));
}

/* ---- properties ---- */

Test(webhook, cut_at_any_byte_is_refused)
{
    size_t end = strlen(real) - 1; /* without the newline */
    for (size_t len = 0; len < end; len++) {
        char *copy = malloc(len ? len : 1);
        memcpy(copy, real, len);
        cr_assert_eq(webhook_decode(sv_n(copy, len), &arena, &hook, &err), STATUS_INVALID_ARGUMENT, "%zu",
                     len);
        free(copy);
        arena_reset(&arena);
    }
}

static uint64_t first_seed(void)
{
    const char *text = getenv("BALM_SEED");
    uint64_t seed;
    return text != NULL && sv_parse_u64(sv(text), &seed) == STATUS_OK ? seed : 20261122;
}

/* Random damage never crashes. Whatever is refused as JSON, jansson refuses too; whatever is taken,
 * jansson takes. */
Test(webhook, damaged_is_judged_as_by_another_parser)
{
    enum { ROUNDS = 30000 };
    size_t n_taken = 0;
    for (uint64_t seed = first_seed(), end = seed + ROUNDS; seed < end; seed++) {
        struct random_seeded rng = {seed};
        size_t len = strlen(real);
        char *bytes = malloc(len);
        memcpy(bytes, real, len);
        for (uint64_t n = 1 + random_seeded_below(&rng, 3); n > 0; n--) {
            size_t at = random_seeded_below(&rng, len);
            bytes[at] = random_seeded_below(&rng, 3) ? "\"\\{}[],:0-u\xFF"[random_seeded_below(&rng, 12)]
                                                     : (char)random_seeded_below(&rng, 256);
        }
        enum status status = webhook_decode(sv_n(bytes, len), &arena, &hook, &err);
        json_t *tree = NULL;
        struct error json_err;
        enum status other = json_parse(sv_n(bytes, len), JSON_ALLOW_NUL, &tree, &json_err);
        json_release(tree);
        bool is_json_problem = strncmp(err.message, "JSON:", 5) == 0;
        /* jansson gives up on a NUL in a name, which JSON allows. */
        if (other != STATUS_OK && strstr(json_err.message, "NUL byte in object key") != NULL)
            other = STATUS_OK;
        if (status == STATUS_OK || is_json_problem)
            cr_assert_eq(status == STATUS_OK, other == STATUS_OK, "seed %llu: %s | %s",
                         (unsigned long long)seed, err.message, json_err.message);
        n_taken += status == STATUS_OK;
        err = (struct error){0};
        json_err = (struct error){0};
        free(bytes);
        arena_reset(&arena);
    }
    cr_assert_gt(n_taken, ROUNDS / 100);
}
