/* Runbooks: which alerts or which times, which target, what to do about it. YAML at the border (README.md has
 * the format), struct inside, canonical JSON in the journal.
 *
 *   file --yaml--> runbook --canonical JSON--> RECORD_RUNBOOK {content, hash} --> runbook, in every fold
 *
 * The content is JSON and so YAML as well: one decoder reads both, and what a fold rebuilds is what was
 * checked at the border. The hash is the SHA-256 of the content; an activation names hashes, so it is always
 * clear which text led to an act. */
#ifndef BALM_DISPATCHER_RUNBOOK_H
#define BALM_DISPATCHER_RUNBOOK_H

#include "base/clock.h"
#include "base/hash.h"
#include "base/json.h"
#include "config/yaml.h"
#include "functions/dispatcher/cron.h"
#include "functions/dispatcher/matcher.h"
#include "functions/dispatcher/runbook_folder.h"
#include "function/core.h"

#define RUNBOOK_STEPS_MAX 16
#define RUNBOOK_NAME_MAX  100
#define RUNBOOK_SET_MAX   1000  /* runbooks in a folder */
#define RUNBOOK_RATE_MAX  10000 /* acts a window: bounds what is kept of each target (24 bytes an act) */
/* Of windows and cooldowns: acts older than this are forgotten (state.h: ACTS_KEPT). */
#define RUNBOOK_PERIOD_MAX_NS (7 * 24 * 3600 * NS_PER_S)
#define TARGET_MAX            512

enum runbook_mode { RUNBOOK_OFF, RUNBOOK_SHADOW, RUNBOOK_ACT };
enum runbook_verify { VERIFY_RESOLVE, VERIFY_CHECK };

/* Where a parameter's value stands in the file, for messages. */
struct runbook_place {
    struct strview name;
    unsigned line, column;
};

struct runbook_step {
    struct strview bot;
    json_t *with;                 /* owned; object whose strings are templates; NULL: no parameters */
    struct runbook_place *places; /* of `with`, n_places */
    size_t n_places;
    enum runbook_verify verify;
    int64_t within_ns;     /* resolve: how long the alert may go on after the act */
    int64_t hold_ns;       /* then: no new alert of that name on the target for so long; 0: none */
    int64_t timeout_ns;    /* of one invocation */
    unsigned line, column; /* in the file, for messages */
};

struct runbook_guardrails {
    int64_t cooldown_ns;           /* after an act on the target for another incident */
    int64_t rate_max, rate_per_ns; /* acts on the target in a window */
    int64_t max_in_flight;         /* acts of this runbook at once; on one target it is always one */
};

/* What starts a runbook instead of alerts. */
struct runbook_schedule {
    struct strview text, time_zone; /* text empty: alerts start it */
    struct cron cron;
    int64_t start_deadline_ns; /* what comes later than this after its time is passed over */
    struct zone zone;  /* of a set that was read from files only: a fold knows the time from the tick */
    int64_t passed_ns; /* the ticker's: what was missed up to here it has said */
    unsigned line, column, zone_line, zone_column;
};

struct runbook {
    struct arena arena;
    struct strview file; /* for messages; empty in a fold */
    struct strview name, target;
    struct matchers match; /* empty where it has a schedule */
    struct runbook_schedule schedule;
    enum runbook_mode mode;
    struct runbook_step steps[RUNBOOK_STEPS_MAX];
    size_t n_steps; /* 0: it only tells a person, by `escalate` */
    struct runbook_guardrails guardrails;
    /* Once the act is verified and so long has passed; bot empty: none. Not if the alert has come again. */
    struct runbook_step follow_up;
    int64_t follow_up_after_ns;
    struct runbook_step escalate; /* bot empty: nobody is called, the incident waits for a person */
    struct strview content;       /* canonical JSON */
    char hash[SHA256_HEX + 1];
    uint64_t seq; /* in a fold: of the newest record of this content */
    unsigned line, column;
};

/* One map of a document. Message: FILE:LINE:COLUMN: what (with the nearest name). */
enum status runbook_parse(const struct yaml_document *doc, const struct yaml_node *map,
                          struct runbook **ret_runbook, struct error *err) MUST_USE;
/* The same for who wants all faults: doc->on_fault is told each. As far as it could be read: steps with a
 * fault are left out, and without a name it has none. Never NULL. */
struct runbook *runbook_parse_all(const struct yaml_document *doc, const struct yaml_node *map) MUST_USE;
/* Back from RECORD_RUNBOOK. */
enum status runbook_from_content(struct strview content, struct runbook **ret_runbook,
                                 struct error *err) MUST_USE;
void runbook_free(struct runbook *rb);
bool runbook_is_scheduled(const struct runbook *rb);
/* Labels and annotations of a run at `due_ns`, as an alert would have them: alertname (the runbook's name)
 * and schedule; time (RFC 3339). In the arena. */
struct record_labels runbook_tick_labels(const struct runbook *rb, struct arena *a);
struct record_labels runbook_tick_annotations(int64_t due_ns, struct arena *a);
/* Read the schedule's zone, and hold the schedule against the guardrails: cooldown and rate must leave room
 * for each of its times. Message: FILE:LINE:COLUMN: what. Reads files: start-up and worker threads. */
enum status runbook_prepare_schedule(struct runbook *rb, struct error *err) MUST_USE;
const char *runbook_mode_name(enum runbook_mode mode); /* "off", "shadow", "act" */
bool runbook_mode_from_name(struct strview name, enum runbook_mode *ret_mode);

struct runbook_set {
    struct runbook *items[RUNBOOK_SET_MAX]; /* owned; in the order in which they are tried */
    size_t n;
    struct runbook_mark mark; /* of the folder that it was read from */
};

/* All *.yaml and *.yml of a folder by name, each a runbook or a list of them. Synchronous: start-up and
 * worker threads. On failure the set is empty. A name given twice is refused. Never half of one state of the
 * folder and half of another: what changes while it is read is read again.
 * STATUS_UNAVAILABLE: it did not stop changing. */
enum status runbook_set_read(const char *dir, struct runbook_set *ret_set, struct error *err) MUST_USE;
/* Against what is deployed: every bot is there and takes these parameters, those without variables also by
 * their values; none relies on a resolve that its act can cause by removing the series. A runbook that only
 * tells people, by a function that is not there, is but a warning in the log. Loop thread. */
enum status runbook_set_check(const struct runbook_set *set, const struct invoker_ops *invoker, void *arg,
                              struct error *err) MUST_USE;
/* One file, added to the set, with all its faults and not the first alone. */
void runbook_set_read_all(const char *path, struct runbook_set *set, yaml_fault_cb *on_fault, void *arg);
/* runbook_set_check() with all faults. */
void runbook_set_check_all(const struct runbook_set *set, const struct invoker_ops *invoker,
                           void *invoker_arg, yaml_fault_cb *on_fault, void *arg);
/* The "runbooks" of an activation: [{"hash","mode","name"}…], canonical. */
struct strview runbook_set_json(const struct runbook_set *set, struct arena *a);
void runbook_set_release(struct runbook_set *set);

#endif
