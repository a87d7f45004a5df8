/* A function: one executable that serves HTTP under the OpenFaaS watchdog contract (contracts/openfaas.md §1)
 * and Knative's runtime contract (contracts/knative-cloudevents.md §1) at once.
 *
 *   port or PORT (8080)      every path but the private ones -> the handler; with http2 (as a Knative Service
 * without being asked) HTTP/2, too, by prior knowledge or upgrade
 *   /_/health  /_/ready      GET only; 200, 503 (draining), 429 (saturated, /_/ready)
 *   /health/liveness, /health/readiness   GET: the same two, as Knative's func asks; knative_health=false off
 *   /openapi.json            GET, HEAD: what it takes and answers (function/openapi.h)
 *   metrics_port (8081)      /metrics; a busy port is a warning
 *   SIGTERM                  health 503 -> healthcheck_interval (cut short when idle) -> listener closed ->
 * requests end (≤ write_timeout) -> exit 0 idle: nothing in flight and quiet for 1 s after a probe saw the
 * 503, for 3 s where nobody probes, at once with BALM_LISTEN_FD SIGTERM again, SIGINT    exit at once
 *   SIGUSR1, SIGUSR2         freeze, thaw (balm stop): while frozen a signed invocation gets 503 CANCELLED
 * before the handler, invocation_check() fails, and health carries "x-balm-frozen: N" with N invocations not
 * yet ended; 0: nothing can act any more
 *
 * Started by balm: BALM_LISTEN_FD=N is the inherited listening socket (then no port and no lock file),
 * BALM_METRICS=off opens no metrics port, BALM_FROZEN=1 starts frozen.
 *
 * CloudEvents, binary, structured and in batches, reach the handler as binary ones (ce-… headers, the data as
 * the body). What it answers goes back as a reply event in the mode of the request: type dev.balm.NAME.result
 * unless the handler sets ce-type, id and source made here; 202 where it says nothing. Senders try again
 * after 408, 409, 429 and 5xx, so a handler's NOT_FOUND and UNIMPLEMENTED are 400 then. A batch is one
 * request: its events share exec_timeout, and the first failure is the answer to all of it, which then comes
 * again as a whole. Own replies that come back are not handled; `balmhops` counts the events before one.
 *
 * An acting function (`acts`) accepts only invocations signed by the platform for one intent, parameter hash,
 * target, epoch and deadline; anything else is 403. The wire is a CloudEvent in binary mode, see
 * function/invocation.h. Asked with `Prefer: reply`, it answers by a reply event as well. */
#ifndef BALM_FUNCTION_FUNCTION_H
#define BALM_FUNCTION_FUNCTION_H

#include "base/buf.h"
#include "base/json.h"
#include "server/http.h"

struct http_resp;

struct invocation {
    struct strview function; /* this function's name */
    struct strview call_id;  /* X-Call-Id; made here if the caller sent none */
    const struct http_req *req;
    struct arena *arena;
    /* The rest is set for signed invocations only; empty or 0 otherwise. */
    struct strview intent, incident, target;
    uint64_t epoch;
    unsigned attempt;         /* 1 for the first */
    int64_t intent_unix_ns;   /* the intent's time: an effect that happened later is this intent's own, or
                                 somebody's who did the same */
    int64_t deadline_unix_ns; /* no mutation after it */
};

/* What came of an act; the names on the wire are lower case ("done"). A plain function that says one is
 * answered as an acting one would be: {"state", "message", "detail" …}. */
enum result_state {
    RESULT_NONE,      /* a plain function's own reply */
    RESULT_DONE,      /* changed something and checked that it took effect */
    RESULT_UNCHANGED, /* already as wanted */
    RESULT_REFUSED,   /* a precondition says no; nothing was changed; no retry */
};

/* Filled by the handler through the calls below. A handler that returns an error status need not touch it:
 * the platform sees state "failed" with the error's code, sentence and can_retry. */
struct result {
    enum result_state state;
    int http_status;                   /* plain functions; 0: 200 */
    const struct http_header *headers; /* plain functions; more than the content type; in the arena */
    size_t n_headers;
    struct strview content_type; /* plain functions; empty: application/octet-stream */
    struct strview body;         /* plain functions; in the arena or the request's own body */
    struct strview message;      /* one sentence */
    struct strview undo;         /* the command that takes it back, if there is one */
    json_t *detail;              /* owned; what was found and changed, shown by `balm why` */
    struct arena *arena;
    /* The runtime's, for answers in parts. */
    struct http_resp *parts; /* where they go; NULL: they are collected */
    struct buf collected;
    bool is_answered; /* into *parts, whole or begun */
};

/* Each returns STATUS_OK so that a handler can end in `return result_done(ret, "…")`. */
enum status result_done(struct result *ret, const char *fmt, ...) PRINTF_LIKE(2, 3);
enum status result_unchanged(struct result *ret, const char *fmt, ...) PRINTF_LIKE(2, 3);
enum status result_refused(struct result *ret, const char *fmt, ...) PRINTF_LIKE(2, 3);
enum status result_reply(struct result *ret, int http_status, struct strview content_type,
                         struct strview body);
/* A plain function's answer in parts, each on its way at once: status, type and ret->headers go out with the
 * first call, the handler's return is the end, and an error breaks it off, so that nobody takes it for whole.
 * Both suspend. What becomes a reply event is collected first. STATUS_CANCELLED: the client is gone;
 * STATUS_RESOURCE_EXHAUSTED: more than RESULT_COLLECTED_MAX of an event. */
enum status result_stream(struct result *ret, int http_status, struct strview content_type) MUST_USE;
enum status result_write(struct result *ret, struct strview part) MUST_USE;
#define RESULT_COLLECTED_MAX (8 * 1024 * 1024)
/* A member of the reply's detail object; a name given twice keeps the last. */
void result_set_text(struct result *ret, const char *name, struct strview value);
void result_set_int(struct result *ret, const char *name, int64_t value);

/* To be called right before each mutation: is this intent still allowed to act? STATUS_DEADLINE_EXCEEDED, or
 * STATUS_CANCELLED once `balm stop` reached us. */
enum status invocation_check(const struct invocation *inv, struct error *err) MUST_USE;

/* Ask the platform's broker to do something on the host that a sandboxed process cannot (design §7), over the
 * inherited socket (descriptor 3). `act` names an entry kind of the allow list ("service-restart",
 * "service-status"), `subject` one entry. The reply's members depend on the act, see gateway/broker.h.
 * STATUS_PERMISSION_DENIED: not on the list. STATUS_FAILED_PRECONDITION: no broker (not started by balm).
 * STATUS_UNKNOWN: it was asked, and may have been or still be done. STATUS_UNAVAILABLE: it was not; again. */
enum status host_act(const struct invocation *inv, struct strview act, struct strview subject,
                     json_t **ret_reply, struct error *err) MUST_USE;
/* The same with arguments (an object, borrowed), for acts that take some: "program-run", "program-show". */
enum status host_act_with(const struct invocation *inv, struct strview act, struct strview subject,
                          const json_t *arguments, json_t **ret_reply, struct error *err) MUST_USE;
#define HOST_ACT_FD 3

enum on_unknown { ON_UNKNOWN_REREAD, ON_UNKNOWN_RERUN, ON_UNKNOWN_ESCALATE };

/* One function, made from its bot.yaml by `balm generate`. All static. */
struct function_def {
    const char *name, *summary;
    bool acts;
    enum on_unknown on_unknown; /* what to do with an act whose answer was lost */
    size_t params_bytes;        /* 0: no parameters, decode is NULL and handle's params too */
    enum status (*decode)(const json_t *body, struct arena *a, void *ret_params, struct error *err);
    enum status (*handle)(struct invocation *inv, const void *params, struct result *ret, struct error *err);
    const char *manifest_json;  /* bot.yaml as canonical JSON: printed by --describe, read by the gateway when
                                   it is deployed */
    const char *api_key_secret; /* what holds the keys that callers must show (function/api_key.h); NULL: none
                                   is asked for */
    const char *openapi_json;   /* what GET /openapi.json answers (function/openapi.h); NULL: the handler's */
    /* For what stands in for something else (function/program.h), else NULL. `attend` is a fiber beside the
     * requests: it begins before the first and is cancelled once the last has ended. If it returns before
     * that, the process ends with exit 1. While is_ready() says no, /_/health and /_/ready answer 503. */
    void (*attend)(void);
    bool (*is_ready)(void);
};

/* main() of a function's executable. Options: --help, --version, --describe (manifest on stdout),
 * -run-healthcheck (exit 0 while it serves: by the lock file, with suppress_lock by asking /_/health).
 * Returns the exit code. */
int function_main(const struct function_def *def, int argc, char **argv);

#endif
