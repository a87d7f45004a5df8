/* The intake on any request: events in all three modes and webhooks, by their headers and by the text alone.
 * What holds of every alert: alert_check.h. An alert that is an event can be told apart by its record.
 *
 * Input: header lines "name: value" up to an empty line, then the body.
 *
 * Reads: functions/alerts/events.c functions/alerts/body.c */
#include "functions/alerts/events.h"

#include "alert_check.h"
#include "functions/alerts/body.h"
#include "replay.h"
#include "request.h"

static void check_all(const struct webhook *w)
{
    assert(w->n_alerts <= WEBHOOK_ALERTS_MAX && w->n_rejected <= w->n_alerts);
    for (size_t i = 0; i < w->n_alerts; i++) {
        check_alert(w, &w->alerts[i]);
        assert(events_key(w->alerts[i].detail) == w->alerts[i].event_key);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct arena arena = {0};
    struct http_header headers[HTTP_HEADERS_MAX];
    struct http_req req = {.method = SV("POST"), .arena = &arena, .received_unix_ns = 1};
    struct strview rest = sv_n((const char *)bytes, n);
    struct webhook w;
    struct error err = {0};
    read_headers(&rest, &req, headers);
    if (body_decode(&req, &w, &err) == STATUS_OK)
        check_all(&w);
    else
        assert((err.code == STATUS_INVALID_ARGUMENT || err.code == STATUS_UNIMPLEMENTED) &&
               err.message[0] != '\0');
    if (body_decode_text(req.body, 1, &arena, &w, &err) == STATUS_OK) check_all(&w);
    arena_release(&arena);
    return 0;
}
