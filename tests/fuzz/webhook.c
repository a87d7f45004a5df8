/* The webhook of Alertmanager and Grafana on any bytes: every alert that is taken must give a record that can
 * be read back and fits its limits, every one that is rejected a reason and evidence that are text.
 *
 * Reads: functions/alerts/webhook.c */
#include "functions/alerts/webhook.h"

#include "alert_check.h"
#include "replay.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct arena arena = {0};
    struct webhook w;
    struct error err = {0};
    if (webhook_decode(sv_n((const char *)bytes, n), &arena, &w, &err) == STATUS_OK) {
        assert(w.n_alerts > 0 && w.n_alerts <= WEBHOOK_ALERTS_MAX && w.n_rejected <= w.n_alerts);
        for (size_t i = 0; i < w.n_alerts; i++)
            check_alert(&w, &w.alerts[i]);
    } else {
        assert(err.code == STATUS_INVALID_ARGUMENT && err.message[0] != '\0');
    }
    arena_release(&arena);
    return 0;
}
