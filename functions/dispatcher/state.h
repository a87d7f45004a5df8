/* What the dispatcher knows: a fold over the journal. state_apply() is the only thing that changes it; the
 * same records in the same order give the same state on every machine. No clock, file or network; integers
 * only.
 *
 *   signal firing, a runbook matches           incident: NEW
 *        | decide()
 *        v
 *   NEW --intent--> ACTING --outcome--> ENDED --timer--> VERIFYING --resolve--> HOLDING --timer--> closed
 *    |                ^                   |                 |                     |
 *    |                |                   +-----------------+---------------------+--> next step,
 *    |                |                                                                escalated, closed
 *    +--refusal--> WAITING (freeze, clock, in flight: an event will wake it)      --intent--> ACTING
 *    |        +--> DELAYED (cooldown: a timer will; one a target and runbook, it
 *    |                      wakes the others, which are WAITING)                  --intent--> ACTING
 *             +--> REFUSED (mode, target …: until the alert ends)
 *   ESCALATED: a person has been told (or will be, once balm resume lets bots act); until the alert ends
 *   REFUSED, ESCALATED --retry "anew" (a person's, of the act that died)--> NEW, at that act's step
 *   any --close (a person's)--> closed; from ACTING once the act has its outcome, or at once if that is
 * overdue
 *
 * A tick of a schedule opens an incident as an alert does. It ends by itself: no alert could end it.
 *
 * An alert that no runbook takes leaves nothing here. Decided records of an older epoch behind a newer epoch
 * record are void. A record's effective time is the latest time up to it, so `now_ns` goes back only at a
 * clock record that says by how much; every time that is kept moves with it, so that ages stay what they
 * were. */
#ifndef BALM_DISPATCHER_STATE_H
#define BALM_DISPATCHER_STATE_H

#include "base/list.h"
#include "base/pack.h"
#include "functions/dispatcher/runbook.h"
#include "functions/dispatcher/table.h"
#include "store/record.h"

/* Open, with a runbook; an alert beyond is refused by the gate "capacity". */
#define INCIDENTS_MAX      100000
#define INCIDENT_BYTES_MAX ((size_t)256 << 20) /* of their labels and annotations together */
#define TARGETS_MAX        200000 /* with an open incident or an act younger than RUNBOOK_PERIOD_MAX_NS */
#define CLOSED_MAX         1000   /* closed incidents remembered for the list */
#define DISMISSED_MAX      10000 /* closed by a person while the alert fired; beyond, the oldest is forgotten */
#define SOURCES_MAX        32
/* Of each target, however old: so a runbook that brings a longer window than all before it knows what
 * happened within it, unless it allows more acts than this. 24 bytes an act. */
#define ACTS_KEPT 100

enum incident_phase {
    INCIDENT_NEW,       /* not decided yet */
    INCIDENT_ACTING,    /* its intent has no outcome */
    INCIDENT_ENDED,     /* the outcome has not been decided on yet */
    INCIDENT_VERIFYING, /* the alert has until the timer to resolve */
    INCIDENT_HOLDING,   /* no new alert of that name may come until the timer */
    INCIDENT_WAITING,   /* refused by a gate that opens by an event, or behind one that is delayed */
    INCIDENT_DELAYED,   /* refused by a gate that opens with time; a timer is set */
    INCIDENT_REFUSED,   /* refused for this episode */
    INCIDENT_ESCALATED,
    INCIDENT_FOLLOWING, /* verified; its follow-up comes with the timer, unless the alert comes first */
    INCIDENT_PHASES
};

enum alert_state { ALERT_FIRING, ALERT_RESOLVED, ALERT_EXPIRED };
enum outcome_state {
    OUTCOME_NONE,
    OUTCOME_DONE,
    OUTCOME_UNCHANGED,
    OUTCOME_REFUSED,
    OUTCOME_FAILED,
    OUTCOME_UNKNOWN,
    OUTCOME_EXPIRED
};

#define INTENT_ID_MAX 128

struct act { /* one intent on a target, for cooldown and rate */
    uint64_t incident_seq;
    int64_t began_ns, ended_ns; /* ended 0: in flight */
};

struct target {
    struct strview name; /* owned */
    /* Open ones; first the busy ones (acting … holding), then those that are delayed or following. */
    struct list incidents;
    size_t n_incidents, n_busy;
    struct act *acts; /* owned; oldest first: the newest ACTS_KEPT, and those that any window known so far can
                         still ask about; none older than RUNBOOK_PERIOD_MAX_NS */
    size_t n_acts, acts_capacity;
    struct list node; /* state.targets_list, in order of creation */
};

#define TICK_RUNS_MAX 8

/* Times of a schedule that all came, one after the other, with none between them. */
struct tick_run {
    int64_t first_ns, last_ns;
};

/* All runbooks that ever had this name, counted together: a reload does not reset what is in flight. */
struct runbook_slot {
    struct strview name; /* owned */
    size_t n_acting;
    int64_t scheduled_ns; /* since when the schedule in force has been; 0: there is none */
    /* What has come, ascending; by the schedule's own time, which no jump of the clock moves. Not only the
     * newest: a clock that ran ahead for a while must not silence the schedule until that time is there. */
    struct tick_run ticks[TICK_RUNS_MAX];
    size_t n_ticks;
    uint64_t n_acts,
        n_shadowed;      /* ever; and what it would have done in shadow. For people, not for decisions */
    int64_t last_act_ns; /* as recorded, whatever the clock did since; 0: never */
    struct list waiting; /* incidents in WAITING, oldest refusal first */
    struct list untold;  /* those in ESCALATED of which nobody could be told yet: acting was stopped */
    struct list node;    /* state.slots_list */
};

struct timer {
    uint64_t seq; /* of its record */
    int64_t set_ns, due_ns;
    struct strview incident, purpose, runbook; /* owned; incident or runbook is set */
    int64_t wake_ns;                           /* the runner's own (monotonic clock); no part of the fold */
    size_t heap_at;
};

struct incident {
    struct list node, on_target, in_slot;
    uint64_t seq;       /* of the signal that opened it */
    uint64_t needs_seq; /* the first record without which a fold would not open it as it is: its runbook,
                           their activation, the epoch */
    int64_t opened_ns;
    struct strview id, fingerprint, alertname, tenant, cluster,
        target_name;               /* owned; target empty: could not be made */
    struct strview target_missing; /* the variable that was not there */
    struct record_labels labels, annotations;
    size_t bytes;
    enum incident_phase phase;
    int64_t phase_ns; /* since when */
    enum alert_state alert;
    const struct runbook *runbook; /* the state's */
    struct runbook_slot *slot;
    struct target *target;      /* NULL without a target */
    int64_t step;               /* of the last decision, from 1 */
    char intent[INTENT_ID_MAX]; /* of the last act */
    uint64_t intent_seq;
    int64_t deadline_ns; /* of the last act */
    enum outcome_state outcome;
    struct timer *timer; /* owned by the state; NULL in a phase that has one: it has fired */
    bool hold_broken, is_escalated;
    bool is_closing;                  /* a person has ended it, and its act has no outcome yet */
    struct strview escalation_reason; /* owned; of the last one: to be told later, or once more */
    const char *gate;                 /* that refused last; static */
};

/* An incident that a person closed while its alert fired: the episode goes on and must not open it again. */
struct dismissed {
    struct list node;
    struct strview incident; /* owned */
};

struct closed_incident {
    char *text; /* owned; the views point into it */
    struct strview id, alertname, runbook, target, state;
    uint64_t seq;
    int64_t opened_ns, closed_ns;
};

struct signal_source {
    struct strview name; /* owned; "other" past SOURCES_MAX */
    int64_t last_ns;
    uint64_t n;
};

struct active_runbook {
    const struct runbook *runbook;
    enum runbook_mode mode;
    uint64_t since_seq; /* of the activation that brought this text and mode */
};

struct state {
    uint64_t last_seq, epoch, epoch_seq, activation_seq, frozen_seq;
    int64_t now_ns;
    bool is_frozen, is_clock_settling;
    int64_t frozen_ns;
    struct table incidents, targets, runbooks /* by hash */, slots;
    struct list incidents_list, targets_list, slots_list;
    size_t n_incidents, incident_bytes, n_targets, n_phase[INCIDENT_PHASES];
    struct runbook **runbook_items; /* owned; all contents there ever were */
    size_t n_runbooks, runbooks_capacity;
    int64_t acts_window_ns;        /* the longest cooldown or rate window of all of them */
    struct active_runbook *active; /* owned; in file order */
    size_t n_active;
    struct timer **timers; /* owned heap: due first, then incident, then sequence */
    size_t n_timers, timers_capacity;
    struct closed_incident closed[CLOSED_MAX]; /* ring */
    uint64_t n_closed;
    struct table dismissed;
    struct list dismissed_list; /* oldest first */
    size_t n_dismissed;
    struct signal_source sources[SOURCES_MAX + 1];
    size_t n_sources;
    uint64_t n_unmatched, n_void, n_limit_hits; /* for people, not for decisions */
};

struct state *state_new(void);
void state_free(struct state *s);
/* Fold one record. Sequences grow by one; a record is applied once. */
void state_apply(struct state *s, uint64_t seq, const struct record *r);

struct incident *state_incident(const struct state *s, struct strview id); /* open; NULL: none */
const struct runbook *state_runbook(const struct state *s, struct strview hash);
/* Mode in force for a runbook's name: what the active set says; off if it is no longer in it. */
enum runbook_mode state_mode(const struct state *s, struct strview name);
/* The runbook of that name in the active set, or NULL. */
const struct active_runbook *state_active(const struct state *s, struct strview name);
/* The run that this time of the schedule came in; NULL: it has not come. A time comes once, whatever the
 * clock does. */
const struct tick_run *slot_tick_run(const struct runbook_slot *slot, int64_t due_ns);
/* Up to when the schedule has been looked after: what comes next lies behind it. */
int64_t slot_ticked_until(const struct runbook_slot *slot, int64_t now_ns);
/* First active runbook (not off) that takes these labels, or NULL. *ret_limit_hits may be NULL. */
const struct runbook *state_match(const struct state *s, const struct record_labels *labels,
                                  uint64_t *ret_limit_hits);
/* Is there no room for an incident with this signal? */
bool state_is_full(const struct state *s, const struct record *signal);
bool incident_is_busy(const struct incident *inc);     /* acting … holding: its target is taken */
bool incident_is_at_front(const struct incident *inc); /* of its target's: busy, delayed or following */
/* Is its last decision about the follow-up? */
bool incident_is_following_up(const struct incident *inc);
/* May a person have this dead intent of it decided on anew? NULL: yes; else why not, a static sentence. Only
 * while nothing has been done about the incident since, so that no act runs behind another's back. */
const char *incident_refuses_retry(const struct incident *inc, struct strview intent, bool is_escalation);
/* Has its act no outcome although its deadline is long over? Nothing can be changed by it any more. */
bool incident_is_overdue(const struct incident *inc, int64_t now_ns);
/* Should it have moved on by itself by now? For people, not for decisions. Never while acting is stopped. */
bool incident_is_stuck(const struct state *s, const struct incident *inc, int64_t now_ns);
const char *incident_phase_name(enum incident_phase phase);
enum outcome_state outcome_state_from_name(struct strview name, struct strview code);
/* The first record that is needed to fold this state again, as far as it matters to what is open: incidents,
 * timers, runbooks in force or in use, epoch and freeze. UINT64_MAX: none. */
uint64_t state_oldest_needed(const struct state *s);
/* Is this content in force, or does an open incident go by it? */
bool state_uses_runbook(const struct state *s, const struct runbook *rb);
/* Earliest timer, or NULL. */
struct timer *state_next_timer(const struct state *s);

/* ---- snapshots (state_save.c, state_load.c) ---- */

#define STATE_SAVED_VERSION 1
void state_save(const struct state *s, struct pack *p);
/* *ret_state as it was: folding on from there decides the same. STATUS_DATA_LOSS: damaged. */
enum status state_load(struct unpack *u, struct state **ret_state, struct error *err) MUST_USE;

/* ---- trying out ---- */

/* A state of its own on which new firing alerts are decided as on `from`, whose runbooks it borrows: gates,
 * clock and counts. What is known of a target is brought over by state_copy_target() before the signal that
 * is about it is applied; all else is left out, however large `from` is. */
struct state *state_copy(const struct state *from);
void state_copy_target(struct state *s, const struct state *from, const struct record *signal);

#endif
