/* Shared by the dispatcher's impure files alone:
 *
 *   dispatcher.c                life cycle, follower, taking the epoch
 *   activation.c                which runbooks are in force
 *   reloader.c                  runbooks that changed on disk
 *   clockwork.c                 fires timers, watches the clock, and (clock_anchor.c) finds that it was set
 *                               while nobody ran
 *   ticker.c                    fires schedules
 *   invoker*.c                  take intents and calls from the queue, reach the bot, record what came of it
 *                               (invoker_impl.h)
 *   handler.c, steer.c, dead.c  the HTTP side (handler_impl.h)
 *   direct.c                    direct calls of functions that act: an alert that a person raises
 *   brake.c                     balm stop and resume, SIGUSR1, the file DIR/stop
 *   observe.c                   metrics and log lines made from records as they come
 *   gauges.c                    metrics that are computed when asked
 *   selfwatch*.c                is the platform itself well? */
#ifndef BALM_DISPATCHER_DISPATCHER_IMPL_H
#define BALM_DISPATCHER_DISPATCHER_IMPL_H

#include "functions/dispatcher/clock_anchor.h"
#include "functions/dispatcher/decide.h"
#include "functions/dispatcher/dispatcher.h"
#include "functions/dispatcher/runbook.h"
#include "functions/dispatcher/selfwatch.h"
#include "metrics/catalog.h"
#include "store/journal.h"
#include "store/queue.h"

#define INVOKERS        16   /* half of them never take calls (queue.h) */
#define DECIDED_TIMES   8192 /* of the newest intents: when they were decided, for their stages */
#define CLOCK_SETTLE_NS (10 * NS_PER_S)
/* Acts under way may end by themselves at least so long, however little the drain has left them. */
#define STOP_GRACE_NS NS_PER_S

struct dispatcher_metrics {
    uint64_t limit_hits_counted;
    int64_t stopped_seen_ns; /* since when acting is seen as stopped; 0: it is not */
};

#define BRAKE_FILE       "stop" /* in the data folder */
#define BRAKE_ACTOR_MAX  200
#define BRAKE_REASON_MAX 1000

struct brake {
    struct fiber_event changed; /* look again: at the file, at what is not recorded */
    uint64_t n_pulled, n_told; /* how often somebody stopped acting; the last of them that bots and log got */
    bool is_file;              /* DIR/stop was there when last looked at */
    bool is_unrecorded;        /* a stop is in force that the journal has not got, by: */
    char actor[BRAKE_ACTOR_MAX + 1], reason[BRAKE_REASON_MAX + 1];
    int64_t record_after_ns;                                 /* monotonic; when it is tried again */
    char by[BRAKE_ACTOR_MAX + 1], why[BRAKE_REASON_MAX + 1]; /* of the last stop that is recorded */
};

struct reloader {
    struct fiber_event changed; /* look at the folder */
    struct folder_watch *watch; /* NULL: the kernel gives none */
    dev_t device;               /* and inode: of the folder that it is on */
    ino_t inode;
    int64_t changed_ns;        /* when it was first seen to differ from what is in force; 0: it does not */
    struct runbook_mark seen;  /* the last change that may be read by itself */
    int64_t quiet_at_ns;       /* monotonic; when it may be */
    struct runbook_mark tried; /* what was last read so */
    int64_t retry_after_ns;    /* monotonic; of a refused one */
    bool is_refused;
    char folder_error[ERROR_MESSAGE_MAX]; /* why it cannot be looked at */
};

struct decided_time {
    uint64_t seq;
    int64_t unix_ns;
};

struct dispatcher {
    struct core_env env;
    struct decider *decider;
    struct queue *queue;
    struct journal_follower follower;
    struct journal_keeper keeper;
    struct journal_usher usher;
    struct fiber_scope workers, invokers;
    struct fiber_event timers_changed, schedules_changed, epoch_wanted;
    struct runbook_set *set;   /* owned; of the files, as last switched to */
    struct runbook_set *fresh; /* owned; read by a reload that is under way, or NULL */
    char actor[300];           /* host:pid, who takes the epoch */
    char last_reload_error[ERROR_MESSAGE_MAX];
    bool is_own_error; /* that is about runbooks, and over once they are read */
    bool is_refused;   /* by reload_prepare(): the discard that follows is about runbooks */
    bool is_live;      /* ready() has begun: records are new ones */
    bool is_braked;    /* somebody asked to stop and nobody to resume since, recorded or not */
    struct brake brake;
    struct reloader reloader;
    struct clock_watch clock;
    struct clock_anchor anchor;  /* as in its file, if that could be written */
    int64_t clock_hold_until_ns; /* monotonic; no invocation starts before it, nor is the clock said to be
                                    settled */
    int64_t unrecorded_jump_ns;  /* there and back before it could be recorded: nothing was moved */
    struct decided_time decided[DECIDED_TIMES];
    struct dispatcher_metrics metrics;
    struct selfwatch watch;
    int64_t log_second;
    unsigned n_logged;
};

const struct state *dispatcher_state(const struct dispatcher *d);

/* dispatcher.c */
/* Bring queue and bots in line with what the fold says. */
enum status dispatcher_apply_freeze(struct dispatcher *d, struct error *err) MUST_USE;

/* Fill in when, where and whose. */
void dispatcher_stamp(const struct dispatcher *d, struct record *r);
/* As journal_wait_durable(), for as long as somebody who asked may have to wait. */
enum status dispatcher_wait_durable(struct dispatcher *d, uint64_t seq, struct error *err) MUST_USE;
/* Stamp, append and wait until it is on disk. */
enum status dispatcher_append_durably(struct dispatcher *d, struct record *r, uint64_t *ret_seq,
                                      struct error *err) MUST_USE;

/* activation.c */
/* Append the contents that the journal does not have and an activation if the set differs from the one in
 * force. */
enum status activation_apply(struct dispatcher *d, struct strview actor, struct error *err) MUST_USE;
/* The same of one content, and of the set, whatever is in force. */
enum status activation_append_content(struct dispatcher *d, const struct runbook *rb,
                                      struct error *err) MUST_USE;
enum status activation_append(struct dispatcher *d, struct strview actor, struct error *err) MUST_USE;
/* The folder's runbooks, whose bots must be among the functions. Nothing is owned on failure. */
enum status activation_read_set(struct dispatcher *d, const struct invoker_ops *functions,
                                void *functions_arg, struct runbook_set *ret_set, struct error *err) MUST_USE;
void activation_free_set(struct runbook_set *set);
/* The dispatcher's part of a reload (struct core_function). */
enum status activation_prepare(void *state, const struct invoker_ops *functions, void *functions_arg,
                               struct error *err) MUST_USE;
enum status activation_commit(void *state, const struct reload_cause *cause, struct error *err) MUST_USE;
void activation_discard(void *state, const struct reload_cause *cause, const struct error *why);

/* reloader.c: fiber */
void reloader_fiber(void *arg);

/* brake.c */
/* Answers once no mutating request can leave any bot. An error: acting is stopped all the same, but that is
 * not recorded yet, or a bot could not be reached; the message says which. */
enum status brake_stop(struct dispatcher *d, struct strview actor, struct strview reason, uint64_t *ret_seq,
                       struct error *err) MUST_USE;
/* The same at once and without an answer: nothing more is handed out, brake_fiber() does the rest. */
void brake_pull(struct dispatcher *d, struct strview actor, struct strview reason);
/* STATUS_FAILED_PRECONDITION: the file is there. */
enum status brake_resume(struct dispatcher *d, struct strview actor, struct strview reason, uint64_t *ret_seq,
                         struct error *err) MUST_USE;
/* Who stopped it, from RECORD_FREEZE. */
void brake_note(struct dispatcher *d, const struct record *r);
/* The same from a snapshot. */
void brake_save(const struct brake *b, struct pack *p);
void brake_load(struct brake *b, struct unpack *u);
/* Before the epoch is taken: with the file there, nothing is ever handed out. */
enum status brake_check_start(struct dispatcher *d, struct error *err) MUST_USE;
void brake_fiber(void *arg);

/* clockwork.c. Before the epoch is taken: a clock that was set while nobody ran is recorded as a jump. */
enum status clockwork_check_start(struct dispatcher *d) MUST_USE;
/* Has the wall clock jumped? If so nothing is handed out from now on, and the journal has it before anything
 * that is dated by the new time. Called before each record is appended, before each act, and each second. */
void clockwork_look(struct dispatcher *d);
/* Fibers. */
void clockwork_timers(void *arg);
void clockwork_watch(void *arg);
/* A timer's due time on the monotonic clock, so that a jump of the wall clock does not move it. */
void clockwork_set_wake(const struct state *s, struct timer *t);

/* ticker.c: fiber. A time of a schedule is recorded once it has come, and decided on like an alert. */
void ticker_run(void *arg);
/* When a runbook of the set in force comes next; false: it has no schedule, is off, or never. */
bool ticker_next(const struct dispatcher *d, struct strview runbook, int64_t *ret_due_ns);

/* invoker.c: fiber */
void invoker_run(void *arg);

/* handler.c */
void dispatcher_handle(void *state, const struct http_req *req, struct http_resp *resp);

/* direct.c */
void direct_call(void *state, struct strview function, struct strview actor, const struct http_req *req,
                 struct http_resp *resp);

/* observe.c */
/* A record that has just been folded; `inc` is its incident before that, as far as it was open (copied
 * members only). */
struct observed_incident {
    int64_t opened_ns;
    bool is_undecided; /* nothing was decided on it yet, whatever that will be */
    char alertname[128];
};
struct observed_incident observe_before(const struct dispatcher *d, const struct record *r);
void observe_record(struct dispatcher *d, const struct record *r, const struct observed_incident *before);
/* Wall-clock times of the alert; the second may be a bot's own. */
void observe_stage(const char *stage, int64_t from_ns, int64_t to_ns);

/* gauges.c */
void gauges_init(struct dispatcher *d);
void gauges_release(struct dispatcher *d);
void gauges_disk_fiber(void *arg);

#endif
