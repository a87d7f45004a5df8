/* Alertmanager's API answers on any bytes: what is listed can be folded and judged, whatever it is.
 *
 * Reads: functions/alerts/listing.c functions/alerts/survey.c */
#include "functions/alerts/survey.h"

#include <assert.h>

#include "replay.h"

static void check_listing(const struct listing *l, struct arena *a)
{
    const struct survey_answer answers[] = {{.listing = *l}, {.listing = *l}};
    const struct survey_terms terms = {0};
    struct survey s;
    survey_fold(answers, 2, &terms, a, &s);
    assert(s.n <= l->n && l->n_rejected <= l->n);
    for (size_t i = 0; i < s.n; i++) {
        const struct episode e = {.fingerprint = s.alerts[i].fingerprint,
                                  .fingerprint_computed = s.alerts[i].fingerprint_computed};
        assert(survey_missing(&s, &e, 0) == SURVEY_LISTED);
        assert(s.alerts[i].reason.len == 0 || !s.facts[i].may_open);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct arena arena = {0};
    struct listing l;
    struct listing_status status;
    struct error err = {0};
    struct strview body = sv_n((const char *)bytes, n);
    if (listing_decode(body, SV("balm"), &arena, &l, &err) == STATUS_OK)
        check_listing(&l, &arena);
    else
        assert(err.message[0] != '\0');
    err = (struct error){0};
    if (listing_decode_status(body, &arena, &status, &err) == STATUS_OK)
        assert(status.started_unix_ns != 0);
    else
        assert(err.code == STATUS_INVALID_ARGUMENT && err.message[0] != '\0');
    arena_release(&arena);
    return 0;
}
