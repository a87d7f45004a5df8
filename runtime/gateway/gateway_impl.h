/* Shared by the files of the gateway: who owns what.
 *
 *   gateway 1---n deployment 1---n replica
 *
 * A deployment is what somebody deployed (stack.yml or the API); a replica is one running process of it. Both
 * live on the heap and are owned by the one above.
 *
 *   prepare --> [prepared] --commit--> [listed] --replaced, removed--> [retired] --> freed, once nobody
 *                   |                                                  holds it and no replica is left
 *                   +--discard--> freed
 *
 * A replica frees itself in its own fiber, once its process has ended and nobody forwards to it any more. */
#ifndef BALM_GATEWAY_GATEWAY_IMPL_H
#define BALM_GATEWAY_GATEWAY_IMPL_H

#include <sys/types.h>

#include "base/json.h"
#include "base/list.h"
#include "client/forward.h"
#include "config/words.h"
#include "gateway/broker.h"
#include "gateway/cgroup.h"
#include "gateway/gateway.h"
#include "gateway/isolation.h"
#include "gateway/login_limit.h"
#include "gateway/remote.h"
#include "gateway/scaling.h"
#include "loop/loop.h"

#define DEPLOYMENTS_MAX   1000             /* descriptors and processes of one machine */
#define FUNCTION_NAME_MAX SV_DNS_LABEL_MAX /* as OpenFaaS documents */
#define FUNCTION_TIMEOUT_NS                                                                                  \
    (60 * NS_PER_S) /* longest plain call through the gateway, as OpenFaaS's upstream_timeout */
#define FUNCTION_LOG_BYTES (256 * 1024)    /* newest output kept per deployment, for `faas-cli logs` */
#define FUNCTION_ENV_MAX   64              /* variables a deployment may set */
#define STOP_GRACE_NS      (10 * NS_PER_S) /* SIGTERM to SIGKILL */
#define STOP_GRACE_MIN_NS  NS_PER_S        /* the same, where a stop has used up its time */
#define KILL_GRACE_NS      (5 * NS_PER_S)  /* for the shim to kill its tree, before it is killed itself */
#define FUNCTION_PATH      "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define FUNCTION_NAMESPACE "openfaas-fn" /* the only one */

/* ---- secrets ---- */

struct gateway_secrets {
    struct strview user, password, token; /* heap copies, wiped */
    struct strview invocation_key;        /* master: 64 hex digits */
};

/* Reads DIR/secrets; makes what is missing (0600, from getrandom). ret_is_new: the login was made now. */
enum status gateway_secrets_load(const char *dir, struct gateway_secrets *ret_secrets, bool *ret_is_new,
                                 struct error *err) MUST_USE;
/* A secret's file that others may read is made 0600 if it is our own, with a warning; one that belongs to
 * somebody else than root and us is refused. A file that is not there, and what is no file, is fine. */
enum status secret_file_check(const char *path, struct error *err) MUST_USE;
void gateway_secrets_release(struct gateway_secrets *s);
/* Constant time in what is secret. header: the Authorization value. */
bool gateway_secrets_check_basic(const struct gateway_secrets *s, struct strview header);
bool gateway_secrets_check_bearer(const struct gateway_secrets *s, struct strview header);

/* ---- newest output of a function ---- */

struct function_log_line {
    uint64_t number; /* 1, 2, 3 … of this deployment */
    int64_t time_unix_ns;
    unsigned replica;
    struct strview text;
};

struct function_log; /* bounded ring of lines */
struct function_log *function_log_new(void);
void function_log_free(struct function_log *log);
void function_log_add(struct function_log *log, unsigned replica, int64_t time_unix_ns, struct strview line);
/* First line with number >= `number`, or false: none yet. Borrowed until the next add. */
bool function_log_get(struct function_log *log, uint64_t number, struct function_log_line *ret_line);
uint64_t function_log_last(const struct function_log *log);
/* Set at every add: reset it, look, wait. */
struct fiber_event *function_log_event(struct function_log *log);

/* ---- what is deployed ---- */

struct deployment_spec {
    struct arena *arena; /* everything below lives here */
    struct strview name, image;
    struct strview process; /* fprocess; empty: the image's executable */
    json_t *env;            /* borrowed objects text -> text; NULL: none */
    json_t *labels, *annotations;
    json_t *limits, *requests, *constraints; /* as they were given, for whoever asks; borrowed, NULL: none */
    const struct strview *secrets;
    size_t n_secrets;
    int64_t memory_bytes; /* 0: no limit */
    int64_t cpu_millis;   /* the same */
    bool is_read_only;    /* its files: kept for whoever asks */
};

struct replica {
    struct list node; /* deployment's */
    struct deployment *deployment;
    unsigned number; /* no other replica of this gateway's life had it */
    char *temp;      /* owned: its TMPDIR */
    struct process *process;
    struct upstream *upstream;
    struct cgroup group;
    int lifeline; /* write end: closed = everything below is killed */
    int output;   /* read end of stdout and stderr */
    unsigned inflight;
    bool is_routed;   /* takes new requests */
    bool is_retiring; /* a fiber is seeing it off: `retired` will be set */
    bool has_exited;
    bool has_answered;              /* it has come up */
    bool is_asked;                  /* in this round of asking */
    bool is_suspect;                /* somebody is finding out whether it hangs */
    bool is_unready;                /* by the last probe: called only if no other one is ready */
    unsigned n_missed;              /* probes in a row without an answer */
    int64_t answered_ns, probed_ns; /* the last call that was answered, the last probe */
    bool is_in_step;                /* it has said that it is stopped, or not, as the gateway is */
    int exit_code;                  /* once it has exited */
    uint64_t roots_print;           /* isolation_roots_print() at its start */
    int64_t started_ns;
    struct fiber_event idle; /* set while inflight is 0 */
    struct fiber_event exited, retired;
};

/* Which build of an executable was deployed: a new one under the same name is a change. */
struct file_identity {
    dev_t device;
    ino_t inode;
    int64_t changed_ns;
};

struct deployment {
    struct list node; /* gateway's `deployments` or `retired` */
    struct gateway *gateway;
    struct arena arena; /* spec and manifest */
    struct deployment_spec spec;
    const char *executable; /* native, or what `program` begins with; NULL: remote, and not known here */
    bool is_remote;         /* no process of ours (remote.h) */
    struct file_identity build;
    /* A program in the function's place (function/program.h); NULL: native. */
    const char *const *program; /* argv */
    const char *folder;         /* where it runs */
    const char *bot_file;       /* its bot.yaml; NULL: it has none */
    struct file_identity bot_build;
    unsigned uid;               /* its user's and group's number; 0: the platform's */
    const char *secrets_folder; /* secrets/NAME-SERIAL (isolation.h): what it may read; gone with it */
    json_t *manifest;           /* owned */
    struct function_info info;
    struct list replicas;
    unsigned n_routed;
    struct scaling_policy scale;
    struct scaling_warnings warnings; /* what of the spec cannot be honoured; in the arena */
    struct scaling_history scale_history;
    uint64_t counted_invocations; /* at the last look, for requests a second */
    unsigned per_s;
    unsigned asked;  /* by POST /system/scale-function; outlives a restart */
    unsigned wanted; /* replicas: fewer are started again after backoff */
    unsigned inflight, acting_inflight;
    uint64_t invocations;
    /* Of plain calls: where they are counted, so that not each has to look for it. NULL: none yet. */
    struct metric *durations, *counts;
    int counted_status; /* which `counts` counts */
    int64_t created_unix_ns, last_used_ns;
    unsigned failures;     /* ends in a row without having served anything: backoff */
    int64_t not_before_ns; /* of the next start */
    int64_t complained_ns; /* when a request last had its failed start logged */
    bool is_listed;        /* in `deployments` */
    bool is_removed;       /* in `retired` */
    bool is_from_stack;    /* goes with its entry in stack.yml */
    unsigned users;        /* fibers that hold a pointer across waits */
    struct function_log *log;
    char gateway_key[65];      /* shown to it, if it asks for an API key (function/api_key.h); wiped */
    int64_t key_complained_ns; /* when it was last logged that nobody can be let in */
    char start_error[ERROR_MESSAGE_MAX]; /* info.start_error is this */
};

struct gateway {
    struct loop *loop;
    struct gateway_cfg
        cfg;               /* strings borrowed from the caller for the gateway's life, but for the next two */
    char *dir, *shim_path; /* owned: absolute, since functions run in another folder; cfg's point here */
    char *watchdog_path;   /* owned: beside the shim */
    struct journal *journal;
    struct server *server;
    struct broker *broker;
    struct builder *builder; /* NULL: nothing is built here */
    struct gateway_secrets secrets;
    struct login_limit *logins;
    struct cgroups groups;
    struct isolation isolation;
    struct list deployments, retired;
    unsigned n_deployments;
    unsigned serial;   /* of replicas and deployments */
    unsigned n_probes; /* under way */
    int run_dir_fd; /* DIR/run: sockets are named through /proc/self/fd, so that a long DIR is no problem */
    bool is_draining, is_frozen, is_reloading;
    bool is_changing;         /* deployed_change_begin() */
    int64_t stop_deadline_ns; /* since the drain: when all should have ended; 0: no drain yet */
    struct fiber_scope scope; /* replicas' and the watcher's fibers */
    struct fiber_event acts_ended, reload_ended, change_ended;
};

/* ---- deployment.c ---- */

/* Not listed yet: spec checked and copied, executable found and asked for its manifest. STATUS_NOT_FOUND: no
 * executable; the message says which path was looked for. Suspends. */
enum status deployment_prepare(struct gateway *g, const struct deployment_spec *spec,
                               struct deployment **ret_deployment, struct error *err) MUST_USE;
/* The executable of the image, functions_dir/NAME, or the program that fprocess names. NAME may be a folder,
 * as `faas-cli build --shrinkwrap` makes them; then
 *
 *   NAME/function/, else NAME/   where the program runs, and where a relative path in fprocess starts
 *   NAME/template.yml            its fprocess, where the deployment gives none
 *   bot.yaml in either           the manifest; none: a plain function
 *
 * An fprocess without any '/' is a name on the function's PATH, or the image's own executable. */
enum status deployment_find(struct deployment *d, struct error *err) MUST_USE;
/* "registry/team/echo:1.2" -> "echo". Borrows. */
enum status deployment_image_name(struct strview image, struct strview *ret_name, struct error *err) MUST_USE;
/* d->manifest of a program. Suspends. */
enum status deployment_read_bot_file(struct deployment *d, struct error *err) MUST_USE;
bool file_identify(const char *path, struct file_identity *ret_identity);
/* What it has of JSON, where that is its own. */
void deployment_spec_release(struct deployment_spec *spec);
/* No replica and no user is left. */
void deployment_free(struct deployment *d);
/* Same spec, same build of the same executable, same bot.yaml: nothing to do. */
bool deployment_is_current(const struct deployment *d, const struct deployment_spec *spec);
unsigned deployment_replicas(const struct deployment *d);
/* Those of them that are ready, as far as is known. */
unsigned deployment_ready_replicas(const struct deployment *d);
/* How long a plain call may take: the function's own limit and a little more, so that it is the function that
 * says so; at most FUNCTION_TIMEOUT_NS. */
int64_t deployment_call_timeout(const struct deployment *d);

/* ---- supervisor.c ---- */

/* A prepared deployment takes its name: new requests at once; the replicas of the one before end what they
 * have. */
void supervisor_commit(struct deployment *d);
/* A prepared deployment that is not wanted after all. */
void supervisor_discard(struct deployment *d);
/* Starts a replica of a prepared deployment and waits until it answers. The message has its last words. */
enum status supervisor_try(struct deployment *d, struct error *err) MUST_USE;
/* Does it answer its health question? A replica is started if none runs: with what it was given, a function
 * that does not come up is found before it is needed. No call of it is counted. Suspends. */
enum status supervisor_check(struct deployment *d, struct error *err) MUST_USE;
/* Prepare and commit. */
enum status supervisor_deploy(struct gateway *g, const struct deployment_spec *spec,
                              struct error *err) MUST_USE;
enum status supervisor_remove(struct gateway *g, struct strview name, struct error *err) MUST_USE;
/* Without the suffix ".openfaas-fn". */
struct strview supervisor_bare_name(struct strview name);
/* `name` may carry the suffix ".openfaas-fn". NULL: not deployed. Borrowed until the next wait, unless held.
 */
struct deployment *supervisor_find(struct gateway *g, struct strview name);
/* Somebody wants n replicas, within the labels' bounds (0: as few as they allow): at once, and at least so
 * many as long as the function is used. */
enum status supervisor_scale(struct deployment *d, unsigned n, struct error *err) MUST_USE;
/* A replica that takes requests, started if there is none; counted in flight until supervisor_release().
 * Suspends during restart backoff; if `d` is replaced meanwhile, the replica is its successor's
 * (replica->deployment says whose). Nothing was sent if it fails: STATUS_UNAVAILABLE (no process could be
 * started; the sentence names no path, it goes to anybody), STATUS_CANCELLED, STATUS_NOT_FOUND (removed). */
enum status supervisor_acquire(struct deployment *d, int64_t deadline_ns, struct replica **ret_replica,
                               struct error *err) MUST_USE;
/* has_answered: the replica did answer something; its crashes start to count anew. */
void supervisor_release(struct replica *r, bool has_answered);
/* A call of `r` (held) has ended at its deadline without an answer: one that does not answer its health
 * question either hangs, and is killed, so that the next call gets a new one. Suspends. */
void supervisor_check_hung(struct replica *r);
/* A call of `r` (held) found nobody at its socket: if nobody listens there although the process lives, it is
 * killed and started again after backoff, or, least busy of all, it would get every call. Does not suspend.
 */
void supervisor_check_deaf(struct replica *r);
/* Asks each replica that nobody has called for a while whether it is ready (/_/ready, or the path of the
 * annotation com.openfaas.ready.http.path): one that says no, or nothing, is called only where no other one
 * is ready, and is asked again each second; one that does not answer three times while no call is under way
 * is killed, and started again. No probe while calls are answered: a fiber. */
void health_watch_fiber(void *gateway);
/* Keeps a replica, without its being called: it is not freed until replica_unhold(). */
void replica_hold(struct replica *r);
void replica_unhold(struct replica *r);
/* A process that ended or did not start: the next start is later each time: 1, 2, 4 … 60 s. */
void deployment_note_failure(struct deployment *d);
/* Starts again what has crashed, stops what has been idle for long: a fiber. */
void supervisor_watch_fiber(void *gateway);
/* Ends all replicas; their fibers are in the gateway's scope. */
void supervisor_stop(struct gateway *g);

/* ---- replica.c ---- */

/* Starts one process and its fiber. */
enum status replica_start(struct deployment *d, struct error *err) MUST_USE;
/* No new requests; SIGTERM once it is idle, SIGKILL after the grace; its fiber frees it. Does not wait. */
void replica_retire(struct replica *r);
/* Everything below its shim is killed. Does not wait: `exited` will be set. */
void replica_kill(struct replica *r);
/* Connections of their own to the replica, whatever its pool is busy with. Freed by the caller. */
enum status replica_connect(const struct replica *r, struct upstream **ret_upstream,
                            struct error *err) MUST_USE;
/* Until it answers its health question; if it does not, the message has its last words. Suspends. */
enum status replica_await_up(struct replica *r, struct error *err) MUST_USE;
/* Its socket has lost its listener. A full backlog is none of that. */
bool replica_is_deaf(const struct replica *r);
/* What an earlier platform left in DIR/run. */
void replica_clean_run_dir(struct gateway *g);

/* ---- replica_env.c ---- */

/* Where a function finds what it inherits: HOST_ACT_FD (3), then: */
#define REPLICA_LISTEN_FD   4
#define REPLICA_LIFELINE_FD 5

/* Fills the folder that its secrets are read from: what it was deployed with, and its invocation key if it
 * acts. */
enum status replica_prepare_secrets(const struct deployment *d, struct arena *a, struct error *err) MUST_USE;
/* The last replica leaves no secrets behind. */
void replica_remove_secrets(const struct deployment *d);
/* Ends in NULL; in the arena. First what must not be changed, then what was deployed, then defaults. Nothing
 * of our own environment goes on: it may hold secrets. */
const char *const *replica_env(const struct replica *r, struct arena *a);
/* What runs behind the shim: the executable, or the watchdog of a program. NULL-terminated. */
#define REPLICA_COMMAND_MAX (WORDS_MAX + 8)
void replica_command(const struct deployment *d, const char *ret_argv[REPLICA_COMMAND_MAX]);
/* What a program's bot.yaml said when it was deployed, for its watchdog's standard input: a file that was
 * changed since must not let the two of us disagree on whether it acts. *ret_fd stays as it is where there is
 * none. */
enum status replica_manifest(const struct deployment *d, struct arena *a, int *ret_fd,
                             struct error *err) MUST_USE;

/* ---- gateway_metrics.c ---- */

void gateway_metrics_init(struct gateway *g);
void gateway_metrics_release(struct gateway *g);
void gateway_count_crash(const struct deployment *d);
void gateway_count_refused_certificates(const struct deployment *d, unsigned n);
/* reason: a label of balm_logins_refused_total. */
void gateway_count_refused_login(struct strview reason);

/* ---- invoker.c ---- */

/* balm stop: nothing may act any more once it has returned STATUS_OK. Suspends. */
enum status gateway_freeze(struct gateway *g, bool is_frozen, struct error *err) MUST_USE;

/* ---- stack.c ---- */

/* What stack.yml asks for, read, checked and prepared; the successor of a function that runs has come up.
 * Nothing has changed yet. Then one of the next two.
 * file NULL: nothing will. Message: FILE:LINE:COLUMN. Suspends. */
struct stack_plan;
enum status stack_prepare(struct gateway *g, const char *file, struct stack_plan **ret_plan,
                          struct error *err) MUST_USE;
/* What is deployed becomes what the file says: unchanged functions are left alone, those that came from the
 * file and are no longer in it are removed. Does not suspend. */
void stack_commit(struct stack_plan *plan);
void stack_discard(struct stack_plan *plan);
/* What will be deployed under the name after the commit. NULL: nothing. Borrowed until commit or discard. */
const struct deployment *stack_find(const struct stack_plan *plan, struct strview name);
/* STATUS_NOT_FOUND, with the nearest name that is deployed (plan NULL), or will be (g NULL: the plan's). */
enum status stack_missing(struct gateway *g, const struct stack_plan *plan, struct strview name,
                          struct error *err);

/* ---- routes ---- */

/* Only who is on this machine can call it. */
bool gateway_is_on_loopback(const struct gateway *g);
/* Has it the login, whether or not the management API asks for one? False: answered. */
bool gateway_has_login(struct gateway *g, const struct http_req *req, struct http_resp *resp);
/* The credentials of this request were wrong: counted and told. wait_s: what login_limit_wait_s() said before
 * they were looked at; not 0: answered with 429. */
void gateway_refuse_wrong(struct gateway *g, const struct http_req *req, struct strview credentials,
                          unsigned wait_s, struct http_resp *resp);
/* Does the request show an API key of the function, if that asks for one? False: answered. */
bool gateway_has_api_key(struct deployment *d, const struct http_req *req, struct http_resp *resp);
/* Everything that comes in at the port. */
void gateway_handle(void *gateway, const struct http_req *req, struct http_resp *resp);
/* /system/…; authorized already. */
void routes_system(struct gateway *g, const struct http_req *req, struct http_resp *resp);
/* /function/NAME… and /async-function/NAME…; rest: after the prefix. */
void routes_function(struct gateway *g, const struct http_req *req, struct strview rest,
                     struct http_resp *resp);
void routes_async_function(struct gateway *g, const struct http_req *req, struct strview rest,
                           struct http_resp *resp);

#endif
