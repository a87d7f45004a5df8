#include "store/record.h"

#include <criterion/criterion.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/list.h"

#define TIME_TEXT "2026-11-22T14:01:24.123456789Z"
#define HEAD      "{\"format\":1,\"kind\":\"note\",\"time\":\"" TIME_TEXT "\"}"

static int64_t time_of(const char *text)
{
    int64_t ns;
    cr_assert_eq(rfc3339_parse(sv(text), &ns), STATUS_OK);
    return ns;
}

static struct arena arena;
static struct buf out;

static void set_up(void)
{
    buf_init(&out, RECORD_BYTES_MAX);
}

static void tear_down(void)
{
    buf_release(&out);
    arena_release(&arena);
}

TestSuite(record, .init = set_up, .fini = tear_down);

static const char *encoded(const struct record *r)
{
    buf_reset(&out);
    record_encode(r, &out);
    cr_assert_eq(buf_status(&out), STATUS_OK);
    return out.ptr;
}

static enum status decode_text(const char *text, struct record *ret, struct error *err)
{
    return record_decode(sv(text), &arena, ret, err);
}

/* A heap copy of exact size, so that ASan sees a read past the end. */
static enum status decode_exact(const char *text, size_t len, struct record *ret)
{
    char *copy = malloc(len ? len : 1);
    memcpy(copy, text, len);
    enum status status = record_decode(sv_n(copy, len), &arena, ret, NULL);
    free(copy);
    return status;
}

static struct record note(void)
{
    return (struct record){.kind = RECORD_NOTE, .time_ns = time_of(TIME_TEXT)};
}

Test(record, writes_only_members_that_are_set)
{
    struct record r = note();
    cr_assert_str_eq(encoded(&r), HEAD);
}

Test(record, of_a_signal_has_the_documented_bytes)
{
    struct http_header labels[] = {{SV("alertname"), SV("NginxDown")}, {SV("job"), SV("web \"1\"\n")}};
    struct http_header annotations[] = {{SV("summary"), SV("ein Ger\xC3\xA4t")}};
    struct record r = {
        .kind = RECORD_SIGNAL,
        .time_ns = time_of(TIME_TEXT),
        .tenant = SV("default"),
        .cluster = SV("local"),
        .incident = SV("a98a96e03b95fa22-18c8f1b2a00"),
        .fingerprint = SV("a98a96e03b95fa22"),
        .status = SV("firing"),
        .source = SV("alertmanager"),
        .receiver = SV("bot.main"),
        .group_key = SV("{}:{alertname=\"NginxDown\"}"),
        .generator_url = SV("http://p:9090/graph?a=1&b=<2>"),
        .starts_at_ns = time_of("2026-11-22T14:01:20Z"),
        .labels = {labels, 2},
        .annotations = {annotations, 1},
    };
    cr_assert_str_eq(
        encoded(&r),
        "{\"annotations\":{\"summary\":\"ein Ger\xC3\xA4t\"},\"cluster\":\"local\",\"fingerprint\":\"a98a96e03b95fa22\","
        "\"format\":1,\"generatorURL\":\"http://p:9090/graph?a=1&b=<2>\",\"groupKey\":\"{}:{alertname=\\\"NginxDown\\\"}\","
        "\"incident\":\"a98a96e03b95fa22-18c8f1b2a00\",\"kind\":\"signal\",\"labels\":{\"alertname\":\"NginxDown\","
        "\"job\":\"web \\\"1\\\"\\n\"},\"receiver\":\"bot.main\",\"source\":\"alertmanager\","
        "\"startsAt\":\"2026-11-22T14:01:20.000000000Z\",\"status\":\"firing\",\"tenant\":\"default\","
        "\"time\":\"" TIME_TEXT "\"}");
}

Test(record, of_an_intent_embeds_json_as_it_is)
{
    struct record r = note();
    r.kind = RECORD_INTENT;
    r.cause = 7;
    r.epoch = 2;
    r.step = -1;
    r.attempt = 3;
    r.params = SV("{\"unit\":\"nginx.service\"}");
    r.gates = SV("[{\"gate\":\"mode\",\"ok\":true}]");
    r.deadline_ns = r.time_ns + NS_PER_S;
    r.on = r.ok = true;
    r.body_base64 = SV("AA==");
    r.runbook_hash = SV("00");
    cr_assert_str_eq(
        encoded(&r),
        "{\"attempt\":3,\"bodyBase64\":\"AA==\",\"cause\":7,\"deadline\":\"2026-11-22T14:01:25.123456789Z\",\"epoch\":2,"
        "\"format\":1,\"gates\":[{\"gate\":\"mode\",\"ok\":true}],\"kind\":\"intent\",\"ok\":true,\"on\":true,"
        "\"params\":{\"unit\":\"nginx.service\"},\"runbookHash\":\"00\",\"step\":-1,\"time\":\"" TIME_TEXT
        "\"}");
}

Test(record, is_appended_whole_or_not_at_all)
{
    struct record r = note();
    struct buf small;
    buf_init(&small, sizeof(HEAD) + 1);
    buf_append(&small, SV("ab"));
    record_encode(&r, &small);
    cr_assert_eq(buf_status(&small), STATUS_OK);
    cr_assert_str_eq(small.ptr, "ab" HEAD);
    buf_reset(&small);
    buf_append(&small, SV("abc"));
    record_encode(&r, &small);
    cr_assert_eq(buf_status(&small), STATUS_RESOURCE_EXHAUSTED);
    cr_assert(sv_eq(buf_view(&small), SV("abc")));
    buf_release(&small);
}

Test(record, replaces_what_is_not_utf8)
{
    struct record r = note();
    r.message = SV("a\xFF"
                   "b");
    const char *text = encoded(&r);
    struct record back;
    cr_assert_eq(decode_text(text, &back, NULL), STATUS_OK);
    cr_assert(sv_eq(back.message, SV("a\xEF\xBF\xBD"
                                     "b")));
    cr_assert(record_is_exact(&back, buf_view(&out)));
}

Test(record, time_that_could_not_be_read_back_is_not_written)
{
    struct record r = note();
    r.starts_at_ns = INT64_MAX;
    r.ends_at_ns = INT64_MIN;
    cr_assert_str_eq(encoded(&r), HEAD);
    r.starts_at_ns = time_of("2261-12-31T23:59:59.999999999Z");
    r.ends_at_ns = time_of("1678-01-01T00:00:00Z");
    struct record back;
    cr_assert_eq(decode_text(encoded(&r), &back, NULL), STATUS_OK);
    cr_assert_eq(back.starts_at_ns, r.starts_at_ns);
    cr_assert_eq(back.ends_at_ns, r.ends_at_ns);
}

Test(record, decoding_borrows_what_has_no_escapes)
{
    static const char text[] =
        "{\"format\":1,\"kind\":\"note\",\"message\":\"plain\",\"time\":\"" TIME_TEXT "\"}";
    struct record r;
    cr_assert_eq(decode_text(text, &r, NULL), STATUS_OK);
    cr_assert(r.message.ptr > text && r.message.ptr < text + sizeof(text));
    cr_assert_eq(arena.used_bytes, 0);
}

Test(record, decoding_unescapes)
{
    struct record r;
    cr_assert_eq(
        decode_text(
            "{\"format\":1,\"kind\":\"note\",\"message\":\"\\u00e4\\ud83d\\ude00\\/\\b\\f\\n\\r\\t\\\\\\\"\\u0000x\","
            "\"time\":\"" TIME_TEXT "\"}",
            &r, NULL),
        STATUS_OK);
    cr_assert(sv_eq(r.message, SV("\xC3\xA4\xF0\x9F\x98\x80/\b\f\n\r\t\\\"\0x")));
}

Test(record, decoding_ignores_unknown_members_and_says_that_it_is_not_exact)
{
    static const char text[] =
        "{\"aaa\":{\"x\":[1,2.5e-3,null,\"\\u0041\"]},\"format\":1,\"kind\":\"note\",\"time\":\"" TIME_TEXT
        "\",\"zzz\":[]}";
    struct record r;
    cr_assert_eq(decode_text(text, &r, NULL), STATUS_OK);
    cr_assert_eq(r.kind, RECORD_NOTE);
    cr_assert_not(record_is_exact(&r, sv(text)));
    cr_assert_str_eq(encoded(&r), HEAD);
    cr_assert(record_is_exact(&r, SV(HEAD)));
}

Test(record, decoding_takes_members_in_any_order_and_with_space)
{
    struct record r;
    cr_assert_eq(decode_text(" { \"time\" : \"" TIME_TEXT
                             "\" , \"kind\":\"note\",\n\"format\":1,\"actor\":\"me\",\"labels\":"
                             "{\"b\":\"1\",\"a\":\"2\",\"b\":\"3\"}} ",
                             &r, NULL),
                 STATUS_OK);
    cr_assert(sv_eq(r.actor, SV("me")));
    cr_assert_eq(r.labels.n, 2);
    cr_assert(sv_eq(r.labels.items[0].name, SV("a")));
    cr_assert(sv_eq(record_label(&r.labels, SV("b")), SV("3")));
    cr_assert_eq(record_label(&r.labels, SV("c")).len, 0);
}

Test(record, of_a_newer_version_is_refused_as_such)
{
    static const char *const newer[] = {
        "{\"format\":2,\"kind\":\"note\",\"time\":\"" TIME_TEXT "\"}",
        /* A type changed. */
        "{\"actor\":{\"name\":\"me\"},\"format\":2,\"kind\":\"note\",\"time\":\"" TIME_TEXT "\"}",
        "{\"actor\":1,\"format\":99}",
        "{\"format\":1,\"kind\":\"dream\",\"time\":\"" TIME_TEXT "\"}",
    };
    struct record r;
    struct error err;
    for (size_t i = 0; i < ARRAY_LEN(newer); i++) {
        cr_assert_eq(decode_text(newer[i], &r, &err), STATUS_FAILED_PRECONDITION, "%s", newer[i]);
        cr_assert_not_null(strstr(err.message, "newer"));
    }
}

Test(record, that_is_none_is_refused)
{
    static const char *const bad[] = {
        "",
        " ",
        "null",
        "[]",
        "1",
        "{",
        "{}",
        "{\"format\":1}",
        "{\"format\":1,\"kind\":\"note\"}",
        "{\"kind\":\"note\",\"time\":\"" TIME_TEXT "\"}",
        "{\"format\":1,\"time\":\"" TIME_TEXT "\"}",
        "{\"format\":0,\"kind\":\"note\",\"time\":\"" TIME_TEXT "\"}",
        "{\"format\":1.0,\"kind\":\"note\",\"time\":\"" TIME_TEXT "\"}",
        "{\"format\":\"1\",\"kind\":\"note\",\"time\":\"" TIME_TEXT "\"}",
        "{\"format\":-1,\"kind\":\"note\",\"time\":\"" TIME_TEXT "\"}",
        HEAD "x",
        HEAD HEAD,
        "{\"format\":1,\"kind\":\"note\",\"time\":\"yesterday\"}",
        "{\"format\":1,\"kind\":\"note\",\"time\":\"0001-01-01T00:00:00Z\"}",
        "{\"format\":1,\"kind\":1,\"time\":\"" TIME_TEXT "\"}",
        "{\"actor\":null,\"format\":1,\"kind\":\"note\",\"time\":\"" TIME_TEXT "\"}",
        "{\"actor\":\"a\nb\",\"format\":1,\"kind\":\"note\",\"time\":\"" TIME_TEXT "\"}",
        "{\"actor\":\"\\ud800\",\"format\":1,\"kind\":\"note\",\"time\":\"" TIME_TEXT "\"}",
        "{\"actor\":\"\xC0\x80\",\"format\":1,\"kind\":\"note\",\"time\":\"" TIME_TEXT "\"}",
        "{\"cause\":18446744073709551616,\"format\":1,\"kind\":\"note\",\"time\":\"" TIME_TEXT "\"}",
        "{\"cause\":-1,\"format\":1,\"kind\":\"note\",\"time\":\"" TIME_TEXT "\"}",
        "{\"cause\":01,\"format\":1,\"kind\":\"note\",\"time\":\"" TIME_TEXT "\"}",
        "{\"format\":1,\"kind\":\"note\",\"ok\":tru,\"time\":\"" TIME_TEXT "\"}",
        "{\"format\":1,\"kind\":\"note\",\"ok\":1,\"time\":\"" TIME_TEXT "\"}",
        "{\"format\":1,\"kind\":\"note\",\"labels\":[],\"time\":\"" TIME_TEXT "\"}",
        "{\"format\":1,\"kind\":\"note\",\"labels\":{\"a\":1},\"time\":\"" TIME_TEXT "\"}",
        "{\"format\":1,\"kind\":\"note\",\"params\":{\"a\":},\"time\":\"" TIME_TEXT "\"}",
        "{\"format\":1,\"kind\":\"note\",\"params\":[1,],\"time\":\"" TIME_TEXT "\"}",
        "{\"format\":1,\"kind\":\"note\",\"time\":\"" TIME_TEXT "\",}",
    };
    struct record r = {.epoch = 42};
    struct error err;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        cr_assert_eq(decode_text(bad[i], &r, &err), STATUS_INVALID_ARGUMENT, "%s", bad[i]);
        cr_assert(err.message[0] != '\0');
    }
    cr_assert_eq(r.epoch, 42, "nothing is written on failure");
}

Test(record, cut_at_any_byte_is_refused)
{
    static const char text[] =
        "{\"annotations\":{\"s\":\"\\u00e4\xC3\xA4\"},\"cause\":12,\"detail\":{\"a\":[1.5e3,{}]},\"format\":1,"
        "\"kind\":\"signal\",\"labels\":{\"alertname\":\"A\"},\"ok\":true,\"time\":\"" TIME_TEXT "\"}";
    struct record r;
    for (size_t len = 0; len < sizeof(text) - 1; len++)
        cr_assert_eq(decode_exact(text, len, &r), STATUS_INVALID_ARGUMENT, "%zu", len);
    cr_assert_eq(decode_exact(text, sizeof(text) - 1, &r), STATUS_OK);
}

Test(record, nesting_is_bounded)
{
    struct buf deep;
    struct record r;
    for (unsigned levels = JSON_DEPTH_MAX - 1; levels <= JSON_DEPTH_MAX; levels++) {
        buf_init(&deep, RECORD_BYTES_MAX);
        buf_append(&deep, SV("{\"detail\":"));
        for (unsigned i = 0; i < levels; i++)
            buf_append_char(&deep, '[');
        for (unsigned i = 0; i < levels; i++)
            buf_append_char(&deep, ']');
        buf_append(&deep, SV(",\"format\":1,\"kind\":\"note\",\"time\":\"" TIME_TEXT "\"}"));
        enum status expected = levels < JSON_DEPTH_MAX ? STATUS_OK : STATUS_INVALID_ARGUMENT;
        cr_assert_eq(record_decode(buf_view(&deep), &arena, &r, NULL), expected, "%u", levels);
        json_t *tree = NULL; /* what we take, jansson's border takes, and the other way round */
        cr_assert_eq(json_parse(buf_view(&deep), 0, &tree, NULL), expected);
        json_release(tree);
        buf_release(&deep);
    }
}

Test(record, label_count_is_bounded)
{
    struct record r;
    for (unsigned n = RECORD_LABELS_MAX; n <= RECORD_LABELS_MAX + 1; n++) {
        buf_reset(&out);
        buf_append(&out, SV("{\"format\":1,\"kind\":\"note\",\"labels\":{"));
        for (unsigned i = 0; i < n; i++)
            buf_printf(&out, "%s\"l%04u\":\"v\"", i ? "," : "", i);
        buf_append(&out, SV("},\"time\":\"" TIME_TEXT "\"}"));
        enum status expected = n <= RECORD_LABELS_MAX ? STATUS_OK : STATUS_INVALID_ARGUMENT;
        cr_assert_eq(record_decode(buf_view(&out), &arena, &r, NULL), expected);
    }
}

Test(record, kinds_have_names)
{
    for (unsigned kind = RECORD_NONE + 1; kind < RECORD_KINDS; kind++)
        cr_assert_eq(record_kind_from_name(sv(record_kind_name((enum record_kind)kind))), kind);
    cr_assert_str_eq(record_kind_name(RECORD_SIGNAL), "signal");
    cr_assert_eq(record_kind_from_name(SV("none")), RECORD_NONE);
    cr_assert_eq(record_kind_from_name(SV("")), RECORD_NONE);
    cr_assert_str_eq(record_kind_name((enum record_kind)RECORD_KINDS), "none");
}

Test(record, labels_are_sorted_bytewise_and_the_last_value_wins)
{
    struct http_header items[] = {{SV("b"), SV("1")}, {SV("\xC3\xA4"), SV("2")}, {SV("B"), SV("3")},
                                  {SV("b"), SV("4")}, {SV("a"), SV("5")},        {SV("aa"), SV("6")},
                                  {SV("b"), SV("7")}};
    size_t n = ARRAY_LEN(items);
    record_labels_sort(items, &n);
    static const char *const names[] = {"B", "a", "aa", "b", "\xC3\xA4"};
    static const char *const values[] = {"3", "5", "6", "7", "2"};
    cr_assert_eq(n, ARRAY_LEN(names));
    for (size_t i = 0; i < n; i++) {
        cr_assert(sv_eq(items[i].name, sv(names[i])));
        cr_assert(sv_eq(items[i].value, sv(values[i])));
    }
}

Test(record, fingerprint_is_prometheus_s)
{
    /* Measured on a real Alertmanager: contracts/alertmanager-loki.md §1.3. */
    struct http_header crash[] = {{SV("alertname"), SV("KubePodCrashLooping")},
                                  {SV("namespace"), SV("a")},
                                  {SV("pod"), SV("p1")},
                                  {SV("severity"), SV("warning")}};
    struct http_header other[] = {{SV("alertname"), SV("A")}, {SV("kind"), SV("r500")}};
    char hex[17];
    record_fingerprint(&(struct record_labels){crash, 4}, hex);
    cr_assert_str_eq(hex, "a98a96e03b95fa22");
    record_fingerprint(&(struct record_labels){other, 2}, hex);
    cr_assert_str_eq(hex, "129c009076f06444");
    record_fingerprint(&(struct record_labels){NULL, 0}, hex);
    cr_assert_str_eq(hex, "cbf29ce484222325");
}

Test(record, fields_are_documented_in_byte_order)
{
    record_print_fields(&out);
    struct strview rest = buf_view(&out), line, last = SV("");
    size_t n = 0;
    while (sv_next(&rest, '\n', &line)) {
        if (!sv_starts_with(line, SV("| `"))) continue;
        struct strview name = sv_sub(line, 3, 3 + sv_find(sv_sub(line, 3, line.len), '`'));
        cr_assert(sv_cmp(last, name) < 0, "%.*s", SV_ARG(name));
        last = name;
        n++;
    }
    cr_assert_eq(n, 54);
}
