/* The gateway of one machine: OpenFaaS's provider REST API, the way into every function, and the supervisor
 * of their processes.
 *
 *   :8080  /healthz                  200, no credentials
 *          /metrics                  Prometheus text; no credentials on loopback, basic auth elsewhere
 *          /function/NAME[/…]        core functions by table, deployed ones by http_forward();
 *                                    NAME or NAME.openfaas-fn
 *          /function/NAME/openapi.json  its document, made here, or written by hand for a core function;
 *                                    that one, and one that acts, show it to the login only
 *          /docs, /openapi.json      all of them for people, in Swagger UI, and the platform's own
 *                                    document: basic auth
 *          /async-function/NAME[/…]  recorded durably (RECORD_CALL), 202 (what that promises: below);
 *                                    503 while too many of that function wait
 *          /build            a function's sources -> functions_dir/NAME (builder.h), signed with a payload
 * secret; off without one /system/functions, /system/function/NAME, /system/scale-function/NAME,
 * /system/logs, /system/info, /system/namespaces, /system/secrets, /system/reload: basic auth
 *
 *   deployment.c   what is deployed: its spec, executable and manifest (--describe)
 *   deployment_program.c  what an image's name and fprocess name: an executable, or a program of any language
 *   supervisor.c   who has a name, replicas 0..N, wanted count, restart backoff
 *   scaling.c      how many replicas a load asks for
 *   health.c       does a replica answer, and is it ready
 *   cgroup.c       limits of memory and CPU
 *   isolation*.c   what keeps functions apart: their users, what each may read and write
 *   replica.c      one process: listening unix socket in DIR/run (0700) made here and inherited, shim, pool,
 *                  drain, logs
 *   replica_env.c  what it is given: environment and secrets
 *   invoker.c      signed invocations for the dispatcher, balm stop
 *   shim*.c        static little program between platform and function: subreaper, dies with the platform,
 *                  kills its tree; puts the function into its sandbox
 *   broker*.c      acts on the host on behalf of bots, by allow list; host_command.c runs one
 *   stack.c        stack.yml, applied whole or not at all
 *   callback.c     where answers of asynchronous calls may be posted to
 *   reload.c       all files anew, or none
 *   deployed.c     what was deployed through the API, kept over restarts
 *   (the port's public key, where it speaks TLS, stands in DIR/run/tls-pin for this machine's own clients)
 *   builder*.c     functions built from their sources, for faas-cli up --remote-builder
 *   login_limit.c  how often one address may be wrong about a secret
 *   remote.c       functions that run elsewhere, behind a URL
 *   routes_key.c   API keys of functions that ask for one
 *   function_secrets.c  what functions are given: DIR/secrets/functions
 *   routes_*.c     the REST API and the way in
 *
 * A call that was answered 202 is brought to the function and its outcome recorded. It is tried again with
 * backoff, up to five times in all, where nothing was done: the function could not be reached, or answered
 * 429 or 503. What may have run is not repeated, as in OpenFaaS (contracts/openfaas.md §2.11): an answer that
 * was cut or did not come in time ends as "unknown", any other answer as "done" or "failed". The one
 * exception is our own death during the call, as with a queue worker that did not acknowledge: the next
 * process delivers it again, and X-Call-Id, the same in every attempt, tells the function so.
 *
 * With X-Callback-Url the answer is posted there: the function's body and headers, and X-Call-Id,
 * X-Function-Name, X-Function-Status, X-Duration-Seconds, X-Start-Time. What is to be posted is recorded
 * together with the call's outcome, as a call of its own, so no death of ours loses it, and it may arrive
 * twice (X-Call-Id says so). It is tried up to five times with backoff until the receiver answers 2xx; then
 * it is a dead letter, and so is at once one whose address is not allowed. A call that got no answer is told
 * as well, with an empty body and X-Balm-Error: X-Function-Status is 503 where it could not be reached, 504
 * where no answer came in time, 502 where it was cut. A body over 512 KiB is not kept: then X-Balm-Error says
 * so, and the status is the function's. The URL may be a function of this gateway: its call is the answer
 * then. X-Balm-Hops counts them; the eighth in a row is a dead letter.
 *
 * Loop thread only; everything that waits is a fiber. */
#ifndef BALM_GATEWAY_GATEWAY_H
#define BALM_GATEWAY_GATEWAY_H

#include "function/core.h"
#include "store/journal.h"

struct gateway;

#define GATEWAY_PIN_FILE "tls-pin" /* in DIR/run; curl's form, "sha256//BASE64" */

struct gateway_cfg {
    const char *dir; /* data folder: DIR/secrets, DIR/run, DIR/functions (what was deployed by the API) */
    const char *stack_file;    /* stack.yml; NULL: none */
    const char *functions_dir; /* executables and folders: image NAME:tag -> functions_dir/NAME */
    const char *shim_path;     /* the supervision shim */
    const char *docs_dir;      /* files of the pages below /docs; NULL: none */
    const char *function_uids; /* "FIRST-LAST": users of functions, where we are root; NULL: "none" */
    const char *function_read_paths, *function_write_paths; /* of every function, "PATH[:PATH]"; NULL: none */
    const char *broker_file;                                /* allow list of host acts; NULL: none allowed */
    const char *builder_secret_file; /* payload secret of POST /build; NULL: nothing is built here */
    uint64_t host_files_max;         /* RLIMIT_NOFILE (soft) of what host acts start; 0: as ours is now */
    const char *host;
    uint16_t port;                            /* 0: picked */
    const char *tls_cert_file, *tls_key_file; /* both, or NULL: plain HTTP; read again when they change */
    int listen_fd;    /* bound to them already (server_bind()), moved by gateway_listen(); 0: not yet */
    bool is_insecure; /* management API without credentials: loopback only, never as root, no Origin, no
                         foreign Host */
    const char *callback_networks; /* where answers may be posted (callback.h); NULL or empty: by default */
    struct strview cluster;
    int64_t idle_ns; /* a function without requests goes to 0 replicas after this; 0: never */
    const struct core_function *const
        *core; /* n_core functions and their states (set before gateway_listen) */
    void *const *core_states;
    unsigned n_core;
};

/* Reads secrets (made on the first start: secrets/basic-auth-user, basic-auth-password, webhook-token,
 * invocation-key; 0600), stack.yml and what was deployed earlier, asks each executable for its manifest
 * (--describe). Bad files: FILE:LINE:COLUMN and what is wrong; nothing is started. */
enum status gateway_new(struct loop *l, const struct gateway_cfg *cfg, struct journal *j,
                        struct gateway **ret_gateway, struct error *err) MUST_USE;
/* Opens the port. After the core functions are ready. */
enum status gateway_listen(struct gateway *g, struct error *err) MUST_USE;
uint16_t gateway_port(const struct gateway *g);
struct strview gateway_webhook_token_path(const struct gateway *g);
/* Takes no new requests, lets those under way end (≤ deadline). The functions' own end is to keep to the
 * deadline as well, as far as it leaves them a second. From a fiber. */
void gateway_drain(struct gateway *g, int64_t deadline_ns);
/* Stops all functions (drain, SIGTERM, SIGKILL) and frees. From a fiber, after the core functions' stop(). */
void gateway_free(struct gateway *g);
/* stack.yml, the allow list and what core functions read (cause->is_own: that alone): all are read and
 * checked together, then all are in force, and the journal has that on disk; anything wrong with one of them,
 * or a journal that does not take it, keeps what was there of all. POST /system/reload does the same. From a
 * fiber. */
enum status gateway_reload(struct gateway *g, const struct reload_cause *cause, struct error *err) MUST_USE;

/* What a stack file would deploy, without a platform: for checking runbooks against it. Of cfg, stack_file
 * (NULL: nothing is deployed), functions_dir and the core functions' names are used. From a fiber. */
struct gateway_plan;
enum status gateway_plan_new(struct loop *l, const struct gateway_cfg *cfg, struct gateway_plan **ret_plan,
                             struct error *err) MUST_USE;
/* NULL does nothing. */
void gateway_plan_free(struct gateway_plan *p);
/* arg is the plan; only info() may be asked. */
extern const struct invoker_ops gateway_planned;

/* What a manifest (the JSON of function/manifest.h) says of the function. Borrows from manifest and arena. */
void gateway_manifest_info(const json_t *manifest, struct strview name, struct arena *a,
                           struct function_info *ret_info);

/* For core_env: intents and calls without outcome that are ready or under way, as the core functions say; of
 * all functions where it is empty. */
struct core_backlog gateway_backlog(void *gateway, struct strview function);
/* For core_env: how the dispatcher reaches bots. arg is the gateway. */
extern const struct invoker_ops gateway_invoker;

#endif
