/* Shared by doctor*.c: one examination. Each check adds a line, ok, FAIL or skip, as soon as it is known. */
#ifndef BALM_CLI_DOCTOR_H
#define BALM_CLI_DOCTOR_H

#include "cli/alertmanager.h"
#include "cli/preview.h"

struct doctor_cfg {
    struct cli_platform platform;
    struct alertmanager_cfg alertmanager;
    const char *webhook_token_file;
    int64_t timeout_ns; /* of the way through Alertmanager */
    bool is_json;
};

struct doctor {
    const struct doctor_cfg *cfg;
    struct arena arena;
    struct strview url;
    json_t *status;    /* the dispatcher's; NULL: the platform did not answer */
    json_t *functions; /* the gateway's list */
    json_t *checks;    /* [{check, message, next?, result}…] */
    unsigned n_failed, n_skipped;
};

/* One more line of the report. */
void doctor_ok(struct doctor *d, const char *check, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* next: what to do about it, as a sentence without a full stop. */
void doctor_fail(struct doctor *d, const char *check, const char *next, const char *fmt, ...)
    PRINTF_LIKE(4, 5);
/* What could not be looked at, and why; no failure. */
void doctor_skip(struct doctor *d, const char *check, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* doctor_platform.c: what the platform says of itself. */
void doctor_check_platform(struct doctor *d);
void doctor_check_store(struct doctor *d);
void doctor_check_clock(struct doctor *d);
void doctor_check_disk(struct doctor *d);
void doctor_check_acting(struct doctor *d);
void doctor_check_runbooks(struct doctor *d);
/* doctor_functions.c: what bots need. */
void doctor_check_functions(struct doctor *d);
void doctor_check_limits(struct doctor *d);
/* doctor_isolation.c: what keeps functions apart. */
void doctor_check_isolation(struct doctor *d);
/* doctor_alert.c: a test alert, there and back. */
void doctor_check_alert(struct doctor *d);
void doctor_check_alertmanager(struct doctor *d);

#endif
