/* What holds of every alert that a reader of the intake gives, whatever it read. */
#ifndef BALM_TESTS_FUZZ_ALERT_CHECK_H
#define BALM_TESTS_FUZZ_ALERT_CHECK_H

#include <assert.h>

#include "functions/alerts/webhook.h"

/* One that is taken gives a record that can be read back and fits its limits, one that is rejected a reason
 * and evidence that are text. */
static inline void check_alert(const struct webhook *w, const struct webhook_alert *alert)
{
    struct arena arena = {0};
    struct buf out;
    struct record back,
        r = {.kind = RECORD_SIGNAL, .time_ns = 1, .receiver = w->receiver, .group_key = w->group_key};
    buf_init(&out, RECORD_BYTES_MAX);
    if (alert->reason.len > 0) {
        assert(alert->evidence.len <= WEBHOOK_EVIDENCE_BYTES_MAX && sv_is_utf8(alert->evidence));
        r.reason = alert->reason;
        r.message = alert->evidence;
    } else {
        assert(alert->labels.n > 0 && alert->starts_at_ns != 0 && alert->fingerprint.len > 0);
        r.labels = alert->labels;
        r.annotations = alert->annotations;
        r.starts_at_ns = alert->starts_at_ns;
        r.ends_at_ns = alert->ends_at_ns;
        r.generator_url = alert->generator_url;
        r.fingerprint = alert->fingerprint;
        r.fingerprint_computed = alert->fingerprint_computed;
        r.detail = alert->detail;
    }
    record_encode(&r, &out);
    assert(buf_status(&out) == STATUS_OK);
    enum status status = record_decode(buf_view(&out), &arena, &back, NULL);
    assert(status == STATUS_OK && record_is_exact(&back, buf_view(&out)));
    buf_release(&out);
    arena_release(&arena);
}

#endif
