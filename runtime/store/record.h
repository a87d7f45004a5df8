/* Records: what the journal is made of. One line of canonical JSON each (base/json.h), format 1.
 *
 * One table (record.c, record_fields[]) gives every member its JSON name, type and offset; encoding,
 * decoding and the documentation (`balm audit cat --fields`) are made from it. A member is written only if
 * it is set (non-empty view, non-zero number, true), so the canonical bytes of a record are a function of
 * its content: encode(decode(bytes)) == bytes for every record ever written. The sequence number is not
 * part of the bytes: it is the position.
 *
 *   input records (no `cause`): signal rejected seen expired runbook activation epoch freeze retry outcome
 *                               fired tick call clock note close unsealed cut restored
 *   decided records (`cause` = sequence of the input that led to them): intent refusal timer verified
 *                               escalated closed
 *
 * A decided record carries no clock of its own: its time is the effective time of its cause (the latest
 * time up to it), so folding the inputs again gives the same bytes. */
#ifndef BALM_STORE_RECORD_H
#define BALM_STORE_RECORD_H

#include "base/arena.h"
#include "base/buf.h"
#include "server/http.h"

#define RECORD_FORMAT 1
/* One record; an alert is limited to 64 KiB at the intake. With its headers it has to fit into the 1 MiB that
 * a NATS server takes by default (max_payload). */
#define RECORD_BYTES_MAX  (1024 * 1024 - 16 * 1024)
#define RECORD_LABELS_MAX 256

/* So slow receivers are no backlog of the function, nor take its places in the queue; no function can have
 * such a name. */
#define CALLBACK_FUNCTION_PREFIX "callback/"

enum record_kind {
    RECORD_NONE,
    RECORD_SIGNAL,     /* an accepted alert: firing (opens an episode) or resolved (closes it) */
    RECORD_REJECTED,   /* an alert of a group that could not be taken; reason, detail */
    RECORD_SEEN,       /* an open episode was seen again; at most once per quarter of its lease */
    RECORD_EXPIRED,    /* an episode's lease ran out: closed as unknown, never as healed */
    RECORD_RUNBOOK,    /* content of one runbook, by hash, once per hash and journal segment chain */
    RECORD_ACTIVATION, /* the set of runbooks from here on: runbooks = [{"hash","mode","name"}…] */
    /* A decider takes over; epoch = its number, actor = who. Decided records of older epochs behind it are
     * void. */
    RECORD_EPOCH,
    RECORD_FREEZE,  /* balm stop (on = true) or resume; actor */
    RECORD_INTENT,  /* an act that shall happen: function, target, params, deadline, gates */
    RECORD_REFUSAL, /* an act that shall not: gate, gates, reason (gate "mode", mode "shadow": would have) */
    /* An attempt failed and will be repeated at `due`. Without attempt, and with actor: a person has a dead
     * one retried; state "again": the same call, "anew": its incident is decided on once more. */
    RECORD_RETRY,
    /* How an intent or call ended, for good: state done unchanged refused failed unknown expired dead;
     * dropped (actor, reason): a person gave up a dead one. */
    RECORD_OUTCOME,
    RECORD_TIMER,     /* wake incident at `due` for `purpose` */
    RECORD_FIRED,     /* a timer's time has come; timer = sequence of its record */
    RECORD_VERIFIED,  /* ok true or false; how = resolve | check | hold | timeout */
    RECORD_ESCALATED, /* the ladder is at its end or must not go on; reason, function = who was told */
    RECORD_CLOSED,    /* the incident ended; state healed | resolved | unknown | escalated | manual */
    /* An accepted asynchronous call of a function; purpose "callback": the answer of one, to be posted to
     * where `callback` says (detail = {"call": its id}; function "callback/NAME": no work of NAME's). */
    RECORD_CALL,
    RECORD_CLOCK, /* the wall clock jumped against the monotonic one by detail.jumpNs */
    RECORD_NOTE,  /* a person's remark on an incident; actor, message */
    RECORD_CLOSE, /* a person ends an incident; actor, reason. Decided on it: closed, state "manual" */
    /* Sealing resumed over records that had been without a signature for longer than a crash explains:
     * nothing proves that they are the ones first written. message; detail = {"checkpoint","records"}. */
    RECORD_UNSEALED,
    /* Records up to detail.last are removed from the store by its retention; their hashes stay in the audit
     * log. reason "age" or "size"; message; detail = {"first","last"}. */
    RECORD_CUT,
    /* balm restore made this data folder from a backup: what happened behind the record before is not known.
     * message; detail = {"made","last","balm"}, and "key" and "keyBefore" if it is sealed by a new one. */
    RECORD_RESTORED,
    /* The time of a runbook's schedule has come: runbook, runbookHash, due = the time by the schedule; labels
     * and incident as of a signal. detail = {"beforeNs","skipped"}: the schedule's time before this one (Unix
     * nanoseconds), and how many times were passed over. */
    RECORD_TICK,
    RECORD_KINDS
};

struct record_labels {               /* sorted by name, bytewise; unique */
    const struct http_header *items; /* name, value */
    size_t n;
};

struct record {
    enum record_kind kind;
    int64_t time_ns;                /* "time", RFC 3339 with 9 digits */
    struct strview tenant, cluster; /* "default", "local" */
    struct strview incident, fingerprint, function;
    /* signal, rejected, seen, expired */
    struct strview status; /* "firing", "resolved" */
    struct strview source; /* "alertmanager" */
    struct strview receiver, group_key, generator_url, trace;
    struct strview fingerprint_computed; /* only where it differs from the sender's */
    int64_t starts_at_ns, ends_at_ns;
    struct record_labels labels, annotations;
    /* runbook, activation */
    struct strview runbook, runbook_hash, content;
    struct strview runbooks; /* JSON */
    /* deciding and acting */
    uint64_t cause; /* sequence of the input that led here; 0: this is an input */
    uint64_t epoch;
    struct strview intent, target, mode, undo;
    int64_t step, attempt;
    struct strview params; /* JSON */
    int64_t deadline_ns, due_ns;
    struct strview gate;  /* the one that refused */
    struct strview gates; /* JSON: [{"gate","limit","ok","value"}…] */
    struct strview facts; /* JSON */
    struct strview reason, code, state, message, how, purpose;
    struct strview detail; /* JSON */
    struct strview stages; /* JSON: times of received, durable, decided, invoked, entered, healed so far */
    uint64_t timer;
    bool on, ok;
    struct strview actor;
    /* call */
    struct strview method, path, callback, body_base64;
    struct strview headers; /* JSON */
};

/* Static name ("signal"), and back; RECORD_NONE for an unknown one. */
const char *record_kind_name(enum record_kind kind);
enum record_kind record_kind_from_name(struct strview name);
/* Append the canonical bytes (no newline). JSON-typed members must be canonical JSON already
 * (json_canonical()). */
void record_encode(const struct record *r, struct buf *out);
/* Members borrow from `bytes` where they can, else live in the arena. STATUS_INVALID_ARGUMENT: not a
 * record; STATUS_FAILED_PRECONDITION: a newer format. Unknown members are ignored (and then
 * encode(decode(x)) != x, which `record_is_exact` says). */
enum status record_decode(struct strview bytes, struct arena *a, struct record *ret_record,
                          struct error *err) MUST_USE;
/* With everything it points at, in the arena. */
void record_copy(const struct record *r, struct arena *a, struct record *ret_copy);
/* Of an intent: is it void behind a record of epoch `newest`? The decider that wrote it had been relieved.
 * What has no epoch (0) is older than any. */
bool record_epoch_is_void(uint64_t epoch, uint64_t newest);
/* Does it have a dead act's incident decided on once more (RECORD_RETRY, state "anew")? */
bool record_is_retried_anew(const struct record *r);
/* Does encoding r give exactly `bytes`? */
bool record_is_exact(const struct record *r, struct strview bytes);
/* The wall clock has jumped by jump_ns, and now_ns is what it shows since: every time folded before lies that
 * much off. */
struct clock_turn {
    int64_t jump_ns, now_ns;
};
/* Is it a record of a jump (RECORD_CLOCK, on, with detail.jumpNs)? */
bool record_clock_turn(const struct record *r, struct clock_turn *ret_turn);
/* A time from before the turn as it would read now, so that what lies between it and now stays as it was;
 * never later than now. */
int64_t clock_turn_apply(const struct clock_turn *turn, int64_t then_ns);
/* The same of a time that may lie ahead: it keeps its distance. */
int64_t clock_turn_ahead(const struct clock_turn *turn, int64_t due_ns);
/* Value of a label, or the empty view. */
struct strview record_label(const struct record_labels *labels, struct strview name);
/* Sorts items bytewise; a name given twice keeps the last value. For whoever builds a label set. */
void record_labels_sort(struct http_header *items, size_t *n);
/* Prometheus's fingerprint of a sorted label set (contracts/alertmanager-loki.md §1.3), 16 hex digits. */
void record_fingerprint(const struct record_labels *labels, char ret_hex[17]);
/* Markdown table of all members, for the documentation. */
void record_print_fields(struct buf *out);

#endif
