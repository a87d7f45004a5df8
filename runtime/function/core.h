/* Core functions (alerts, dispatcher, audit) linked into the one `balm` process, and how a bot is reached
 * from there.
 *
 * They meet each other only through the journal. Life cycle, driven by cli:
 *   start() of each, in table order: make state, journal_follow()          (no waiting on others)
 *   journal_fold(): the past goes through all followers once
 *   ready() of each: begin to act (the dispatcher takes its epoch here)
 *   handle() for each request to /function/NAME…, as a fiber
 *   stop() of each, in reverse order; then journal_close() */
#ifndef BALM_FUNCTION_CORE_H
#define BALM_FUNCTION_CORE_H

#include "client/client.h"
#include "function/invocation.h"
#include "server/server.h"

struct journal;

/* What the platform knows of a deployed function, from its manifest. Views are borrowed until it is
 * redeployed. */
struct function_info {
    struct strview name;
    bool acts, is_destructive;
    /* Its act can itself remove the alerting series: a resolve verifies nothing (design §5). */
    bool removes_series;
    bool tells_people; /* all it does: it may end a ladder, past cooldown, rate and target */
    enum on_unknown on_unknown;
    int64_t timeout_ns;
    struct strview api_key_secret; /* what holds the keys that callers must show; empty: none is asked for */
    struct strview undo;           /* how its act is taken back, in its manifest's words */
    struct strview manifest_json;
    /* Why its last start failed, with the paths that are not for callers; empty: it did not. Borrowed until
     * the next wait. */
    struct strview start_error;
};

/* How a bot is reached: local gateway, Kubernetes Service, OpenFaaS, Knative. All members mandatory. */
struct invoker_ops {
    const char *name; /* "local" */
    /* STATUS_NOT_FOUND: no such function. */
    enum status (*info)(void *arg, struct strview function, struct function_info *ret_info,
                        struct error *err);
    /* Sign and send one invocation, starting the function if it is at 0; suspends until its answer or
     * inv's deadline. STATUS_UNAVAILABLE with can_retry: it did not reach the handler. STATUS_UNKNOWN:
     * sent, answer lost. */
    enum status (*invoke)(void *arg, const struct invocation *inv, struct strview params, struct arena *a,
                          struct invocation_reply *ret_reply, struct error *err);
    /* A plain call (asynchronous calls from the queue): method, path, headers, body in req.
     * STATUS_UNAVAILABLE: it did not reach the function. STATUS_UNKNOWN, STATUS_DEADLINE_EXCEEDED: it may
     * have run, or still does. */
    enum status (*call)(void *arg, struct strview function, const struct http_req *req, int64_t deadline_ns,
                        struct arena *a, struct http_reply *ret_reply, struct error *err);
    /* Post to the URL that the caller of an asynchronous call gave, once. STATUS_OK: any answer came.
     * STATUS_PERMISSION_DENIED: nothing may be posted to its address. */
    enum status (*post)(void *arg, struct strview url, const struct http_header *headers, size_t n_headers,
                        struct strview body, struct arena *a, int *ret_http_status, struct error *err);
    /* balm stop: no mutating request leaves any bot once it has returned. */
    enum status (*freeze)(void *arg, bool is_frozen, struct error *err);
};

struct retention;

/* What waits for a function or is under way in it. */
struct core_backlog {
    uint64_t n;
    int64_t oldest_ns; /* when its oldest was recorded (wall clock); 0: none */
};

/* Why files are read anew. */
struct reload_cause {
    struct strview actor; /* who wants it: a person, a signal, the folder that changed */
    bool is_own;          /* only what core functions read: stack file and allow list stay as they are */
};

/* What core functions may read anew without being asked. */
enum self_reload {
    RELOAD_ASKED, /* nothing */
    RELOAD_SWAPS, /* what was switched as a whole: a Kubernetes ConfigMap, a folder that is a link */
    RELOAD_EDITS, /* any file, once it is left alone */
};

struct core_env {
    struct loop *loop;
    struct journal *journal;
    const char *dir; /* data folder */
    const char *runbooks_dir;
    enum self_reload self_reload;
    /* Has all core functions reload (below); NULL: it cannot be asked for. Suspends. */
    enum status (*reload)(void *arg, const struct reload_cause *cause, struct error *err);
    void *reload_arg;
    struct strview tenant, cluster;
    const struct invoker_ops *invoker;
    void *invoker_arg;
    struct strview public_url; /* "http://127.0.0.1:8080" */
    /* Of the Alertmanager: the episode lease is 2 × repeat + group. */
    int64_t repeat_interval_ns, group_interval_ns;
    /* Name of the alert that always fires, and for how long it may be unheard; empty: none is expected. */
    struct strview watchdog;
    int64_t watchdog_within_ns;
    /* Whom the intake asks what fires (functions/alerts/reconcile.h): URLs with commas; empty: nobody. */
    struct strview alertmanagers;
    const char *alertmanager_token_file, *alertmanager_ca_file; /* NULL: none */
    struct strview alertmanager_receiver; /* whose lost deliveries are made up for; empty: nobody's */
    int64_t reconcile_interval_ns, reconcile_margin_ns;
    /* Of a function, of all where it is empty; for scaling. */
    struct core_backlog (*backlog)(void *arg, struct strview function);
    void *backlog_arg;
    /* Where KEDA asks (functions/scaler); port 0: nowhere. */
    struct core_scaler {
        const char *host;
        uint16_t port;
        const char *tls_cert_file, *tls_key_file, *tls_client_ca_file, *token_file; /* NULL: none */
    } scaler;
    const struct retention *retention; /* for what people are told of the journal's size; NULL: none */
};

enum core_auth {
    CORE_OPEN,   /* anyone */
    CORE_BEARER, /* secrets/webhook-token; to GET, CORE_BASIC's will do as well */
    CORE_BASIC,  /* secrets/basic-auth-user and -password */
};

/* One core function; listed in the one table of cli. ready, act, admit_call, backlog, stop and the three of
 * reload may be NULL. */
struct core_function {
    const char *name, *summary;
    enum core_auth auth;
    /* A path below /function/NAME that needs no credentials ("/ready"), or NULL. */
    const char *open_path;
    enum status (*start)(const struct core_env *env, void **ret_state, struct error *err);
    enum status (*ready)(void *state, struct error *err);
    /* req->path, target: what comes after /function/NAME, at least "/". */
    void (*handle)(void *state, const struct http_req *req, struct http_resp *resp);
    /* A direct call of a function that acts, by `actor`, who has shown the login: it becomes an intent that
     * passes all gates, and is answered with its outcome, or is refused. */
    void (*act)(void *state, struct strview function, struct strview actor, const struct http_req *req,
                struct http_resp *resp);
    /* May one more call of `function` be recorded for later (/async-function)? An error refuses it. */
    enum status (*admit_call)(void *state, struct strview function, struct error *err);
    /* For scaling: of all functions where it is empty; nothing while the past is being folded. */
    struct core_backlog (*backlog)(void *state, struct strview function);
    /* SIGUSR1: nothing acts from now on, as after balm stop; at once, never suspends. May be NULL. */
    void (*stop_acting)(void *state, struct strview actor);
    /* SIGHUP, balm reload: every part of the platform reads and checks what is new, then all switch, or all
     * keep what they have. One reload at a time. All three or none.
     *   prepare   reads and checks, and keeps it aside; `functions`: what will be deployed (only info() may
     *             be asked). Suspends.
     *   commit    what was prepared is in force, and the journal has that on disk; an error: what was before
     *             is. Touches the journal, no file. Suspends.
     *   discard   instead of commit, also after a prepare that failed or did not come about: some part
     *             refused, and `why` is its sentence */
    enum status (*reload_prepare)(void *state, const struct invoker_ops *functions, void *functions_arg,
                                  struct error *err);
    enum status (*reload_commit)(void *state, const struct reload_cause *cause, struct error *err);
    void (*reload_discard)(void *state, const struct reload_cause *cause, const struct error *why);
    /* What is under way may end until then (monotonic). */
    void (*stop)(void *state, int64_t deadline_ns);
};

#endif
