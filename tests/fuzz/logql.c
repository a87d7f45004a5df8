/* LogQL on any bytes: what parses can be matched against any line without a crash, in bounded time, and says
 * the same twice.
 *
 * Reads: functions/audit/logql.c functions/audit/logql_scan.c functions/audit/regex.c */
#include "functions/audit/logql.h"

#include <assert.h>
#include <string.h>

#include "replay.h"

static const char *const lines[] = {
    "",
    "{\"format\":1,\"kind\":\"intent\",\"labels\":{\"alertname\":\"NginxDown\"},\"time\":\"2026-11-22T14:01:24.123456789Z\"}",
    "\xFF\xFE\n\x01"};

/* 0, 1, or 2 where a regular expression gave up. */
static int ask(const struct logql_query *q, struct strview line)
{
    bool matches = false;
    return logql_filter(q, line, &matches, NULL) == STATUS_OK ? matches : 2;
}

static void try_all(const struct logql_query *q)
{
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        int first = ask(q, sv(lines[i]));
        assert(first == ask(q, sv(lines[i])));
        for (size_t k = 0; k < q->n_matchers; k++) {
            bool matches = false;
            if (logql_match(&q->matchers[k], sv(lines[i]), &matches, NULL) != STATUS_OK) continue;
            if (q->matchers[k].op == LOGQL_EQUAL)
                assert(matches == sv_eq(q->matchers[k].value, sv(lines[i])));
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct arena arena = {0};
    struct logql_query q;
    struct error err = {0};
    struct strview text = sv_n((const char *)bytes, n);
    if (logql_parse(text, &arena, &q, &err) == STATUS_OK) {
        assert(q.is_scalar || q.n_matchers > 0);
        try_all(&q);
        logql_release(&q);
    } else {
        assert(err.message[0] != '\0' &&
               (err.code == STATUS_INVALID_ARGUMENT || err.code == STATUS_UNIMPLEMENTED ||
                err.code == STATUS_RESOURCE_EXHAUSTED));
    }
    if (logql_parse_selector(text, &arena, &q, &err) == STATUS_OK) {
        assert(!q.is_scalar && q.n_filters == 0);
        try_all(&q);
        logql_release(&q);
    }
    arena_release(&arena);
    return 0;
}
