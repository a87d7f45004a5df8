/* Matcher strings on any bytes, and what they compile to on any label. The input is "MATCHERS\0VALUE" (no
 * NUL: the text is the value too). What is read must be bounded, must match the same way twice, and one
 * matcher negated must say the opposite unless it gave up.
 *
 * Reads: functions/dispatcher/matcher.c */
#include "functions/dispatcher/matcher.h"

#include <assert.h>

#include "replay.h"

static enum match_result opposite(enum match_result r)
{
    return r == MATCH_LIMIT ? MATCH_LIMIT : r == MATCH_YES ? MATCH_NO : MATCH_YES;
}

static void check(const struct matchers *m, struct strview value)
{
    static const enum matcher_op negated[] = {MATCHER_NOT_EQUAL, MATCHER_EQUAL, MATCHER_NOT_REGEX,
                                              MATCHER_REGEX};
    assert(m->n >= 1 && m->n <= MATCHERS_MAX);
    for (size_t i = 0; i < m->n; i++) {
        struct matcher other = m->items[i];
        assert(other.name.len > 0);
        enum match_result found = matcher_test(&m->items[i], value);
        assert(found == matcher_test(&m->items[i], value));
        other.op = negated[other.op];
        assert(matcher_test(&other, value) == opposite(found));
    }
    struct http_header label = {m->items[0].name, value};
    struct record_labels labels = {&label, 1};
    (void)matchers_match(m, &labels);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct arena arena = {0};
    struct matchers m = {.n = 0};
    struct error err;
    struct strview all = sv_n((const char *)bytes, n), text = sv_sub(all, 0, sv_find(all, '\0'));
    struct strview value = text.len < n ? sv_sub(all, text.len + 1, n) : text;
    if (matchers_parse(text, &arena, &m, &err) == STATUS_OK)
        check(&m, value);
    else
        assert(m.n == 0 && err.message[0] != '\0');
    matchers_release(&m);
    arena_release(&arena);
    return 0;
}
