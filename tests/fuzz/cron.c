/* Cron expressions and zone files on any bytes. The input is "EXPRESSION\0ZONE": what follows the first NUL
 * is read as a compiled zone file; without one (or one that is refused) the zone is UTC. Times must go
 * forward, lie in the span that is said to hold them, and the same question must be answered the same way.
 *
 * Reads: functions/dispatcher/cron.c functions/dispatcher/cron_next.c functions/dispatcher/zone.c
 * functions/dispatcher/zone_rule.c */
#include "functions/dispatcher/cron.h"

#include <assert.h>

#include "replay.h"

static void check_span(const struct zone *z, int64_t unix_s)
{
    struct zone_span span = zone_span_at(z, unix_s);
    assert(span.begin_s <= unix_s && unix_s < span.end_s);
    if (span.begin_s > INT64_MIN) assert(zone_span_at(z, span.begin_s).offset_s == span.offset_s);
}

static void check(const struct cron *c, const struct zone *z, int64_t from_s)
{
    for (int i = 0; i < 5; i++) {
        int64_t found_s, again_s;
        if (!cron_next(c, z, from_s, &found_s)) return;
        assert(found_s > from_s);
        check_span(z, found_s);
        /* From just before it, it is still the next. */
        assert(cron_next(c, z, found_s - 1, &again_s) && again_s == found_s);
        from_s = found_s;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const int64_t starts_s[] = {-INT64_C(3000000000), 0, 1774659600, 1790000000, INT64_C(4000000000)};
    struct arena arena = {0};
    struct error err;
    struct cron c;
    struct zone z = {0};
    struct strview all = sv_n((const char *)bytes, n), text = sv_sub(all, 0, sv_find(all, '\0'));
    struct strview file = sv_sub(all, text.len + 1, n);
    if (file.len > 0 && zone_parse(&arena, file, &z, &err) != STATUS_OK) assert(err.message[0] != '\0');
    if (cron_parse(text, &c, &err) != STATUS_OK)
        assert(err.message[0] != '\0');
    else
        for (size_t i = 0; i < sizeof(starts_s) / sizeof(starts_s[0]); i++)
            check(&c, &z, starts_s[i]);
    arena_release(&arena);
    return 0;
}
