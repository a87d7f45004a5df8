/* The command line: one table of subcommands, and what they share. Each command is a plain main-like
 * function: it prints its result on stdout, one clear sentence on stderr when it fails, and returns an
 * exit code of enum cli_exit. */
#ifndef BALM_CLI_CLI_H
#define BALM_CLI_CLI_H

#include "base/arena.h"
#include "base/json.h"
#include "base/list.h"
#include "base/version.h"
#include "config/config.h"

enum cli_exit {
    CLI_OK = 0,
    CLI_FAILED = 1,     /* it ran and the answer is no: verification failed, refused, unreachable */
    CLI_USAGE = 2,      /* the command line or a file is wrong; nothing was done */
    CLI_NOT_FOUND = 3,  /* no such incident, no journal, no running platform */
    CLI_INCOMPLETE = 4, /* audit verify: every record is genuine, but an act has no outcome */
    CLI_UNPROVEN = 5,   /* audit verify: nothing is found, but some records were not sealed in time */
};

#define CLI_N_EXITS 6
/* What each exit code means, for help. */
extern const char *const cli_exit_meanings[CLI_N_EXITS];

struct command {
    const char *name;
    const char *arguments;   /* "INCIDENT", for the usage line */
    const char *summary;     /* one line */
    const char *description; /* paragraphs for --help; NULL: the summary says it */
    const struct config_option *options;
    size_t n_options;
    int (*run)(const struct command *self, int argc, char **argv);
};

extern const struct command command_up, command_status, command_why, command_incident, command_dead,
    command_schedule, command_audit, command_stop, command_resume, command_reload, command_metrics,
    command_receiver, command_explain, command_plan, command_doctor, command_runbook, command_backup,
    command_restore;

/* The usage line, the description and the options on stdout. */
void cli_print_help(const struct command *c);
/* Parses argv by the command's table into ret_cfg. Prints --help and returns false with *ret_exit = 0, or
 * says what is wrong and returns false with CLI_USAGE. Positional arguments are at argv[1] …
 * argv[*ret_n_positional]. */
bool cli_parse(const struct command *self, int argc, char **argv, struct arena *a, void *ret_cfg,
               int *ret_n_positional, int *ret_exit);
/* "balm COMMAND: sentence" on stderr; returns the exit code that fits the error. */
int cli_fail(const struct command *self, const struct error *err);

/* A stranger's words (labels, a bot's message) as they may stand in a line on a terminal: control characters,
 * also U+0080 … U+009F, and bytes that are not UTF-8 become '?', line breaks and tabs spaces. NUL-terminated,
 * in the arena. */
struct strview cli_shown(struct arena *a, struct strview text);
/* The same of an object's member; "" where it has none. */
const char *cli_text(struct arena *a, const json_t *object, const char *key);
/* "12 s", "3 min", "5 h", "2 d": what a person compares at a glance. No integer: "never". */
const char *cli_age(const json_t *seconds, char ret_text[32]);

/* ---- commands that ask something and print the answer ---- */

#define CLI_ARGUMENTS_MAX 4

/* What a command does, or what one of its words ("list", "close") does. cfg: the command's options. */
struct cli_action {
    const char *name; /* the word; NULL: the command has no words, and this action alone */
    const char
        *arguments; /* behind it, "INCIDENT TEXT", "[ID]" for one that may be missing (then NULL); "" */
    /* The answer, a value of the caller's. */
    enum status (*ask)(const void *cfg, char *const *arguments, struct arena *a, json_t **ret_answer,
                       struct error *err);
    /* As text; with --json the answer itself is printed. */
    void (*print)(const void *cfg, const json_t *answer, struct arena *a);
    /* The exit code that the answer means; NULL: CLI_OK. */
    int (*judge)(const json_t *answer);
};

/* All of a command's run(): parses into cfg, finds the action, asks, prints. is_json points into cfg. */
int cli_act(const struct command *self, const struct cli_action *actions, size_t n, int argc, char **argv,
            void *cfg, const bool *is_json);

/* What became of stdout: CLI_FAILED and a sentence on stderr if something that was printed did not get there
 * (disk full), else `code`. Who closed the other end of a pipe has seen enough: no sentence then. */
int cli_finish(int code);

/* No platform holds the folder, though one once did. False also where we may not look. */
bool cli_is_abandoned(const char *data_dir, struct arena *a);
/* The data folder: the one given (may be NULL), else the user's state folder: /var/lib/balm for root, else
 * ${XDG_STATE_HOME:-~/.local/state}/balm, where ~ is HOME or what the system knows of the user. In the arena.
 * STATUS_INVALID_ARGUMENT: there is none. */
enum status cli_data_dir(const char *given, struct arena *a, const char **ret_dir,
                         struct error *err) MUST_USE;
/* The folder of this executable, without a trailing slash. */
const char *cli_executable_dir(struct arena *a);
/* What comes with balm ("balm-shim", "functions", "runbooks", "stack.yml"): beside this executable as it was
 * built, else in ../lib/balm or ../share/balm as `make install` lays it out. NULL: nowhere. In the arena. */
const char *cli_find_part(struct arena *a, const char *name);

/* ---- talking to a running platform ---- */

struct http_call;
struct http_reply;

/* Which platform is meant: the one on a data folder of this machine (DIR/run.json and DIR/secrets say where
 * it listens and how to be let in), or one elsewhere. */
struct cli_platform {
    const char *data_dir;
    const char *url; /* "https://balm.example:8080"; NULL: the one on data_dir */
    /* With url: holds the password of user admin, or USER:PASSWORD. A path, so that no secret is an argument.
     */
    const char *token_file;
    const char *ca_file; /* with an https url: whose signature its certificate has; NULL: the system's */
};

/* The options of a command that talks to a running platform, for its table; `member` is the cfg's
 * struct cli_platform. */
#define CLI_PLATFORM_OPTIONS(cfg_type, member)                                                               \
    {.name = "data",                                                                                         \
     .env = "BALM_DATA",                                                                                     \
     .type = CONFIG_PATH,                                                                                    \
     .offset = offsetof(cfg_type, member.data_dir),                                                          \
     .value_name = "DIR",                                                                                    \
     .help = "data folder of the running platform"},                                                         \
        {.name = "url",                                                                                      \
         .env = "BALM_URL",                                                                                  \
         .type = CONFIG_TEXT,                                                                                \
         .offset = offsetof(cfg_type, member.url),                                                           \
         .value_name = "URL",                                                                                \
         .help = "a platform elsewhere, instead of the one on the data folder"},                             \
        {.name = "token-file",                                                                               \
         .env = "BALM_TOKEN_FILE",                                                                           \
         .type = CONFIG_PATH,                                                                                \
         .offset = offsetof(cfg_type, member.token_file),                                                    \
         .value_name = "FILE",                                                                               \
         .help = "with --url: a file with its admin's password (its secrets/basic-auth-password), or "       \
                 "USER:PASSWORD"},                                                                           \
    {                                                                                                        \
        .name = "ca-file", .env = "BALM_CA_FILE", .type = CONFIG_PATH,                                       \
        .offset = offsetof(cfg_type, member.ca_file), .value_name = "FILE",                                  \
        .help = "with an https --url: PEM file of the authority that signed its certificate"                 \
    }

/* Who steers it, for the record. */
#define CLI_ACTOR_OPTION(cfg_type, member)                                                                   \
    {                                                                                                        \
        .name = "actor", .env = "USER", .type = CONFIG_TEXT, .default_text = "operator",                     \
        .offset = offsetof(cfg_type, member), .value_name = "NAME", .help = "who does this, for the record"  \
    }

/* A word of the command line as a member of a request's body. STATUS_INVALID_ARGUMENT: it is not UTF-8. */
enum status cli_put(json_t *body, const char *name, const char *text, struct error *err) MUST_USE;
/* Sends one request and returns the JSON answer (owned). data_dir NULL: the user's own.
 * STATUS_UNAVAILABLE: nothing is running there. The HTTP error's sentence is the message. */
enum status cli_api(const struct cli_platform *platform, const char *method, const char *path,
                    const json_t *body, json_t **ret_answer, struct error *err) MUST_USE;
/* The same with the body's bytes. */
enum status cli_api_text(const struct cli_platform *platform, const char *method, const char *path,
                         struct strview body, json_t **ret_answer, struct error *err) MUST_USE;
/* What a running platform explains of an incident (functions/dispatcher/explain.h), "last" of the last one.
 */
enum status cli_explain_incident(const struct cli_platform *platform, struct strview incident,
                                 struct arena *a, json_t **ret_json, struct error *err) MUST_USE;
/* Where it listens, "http://127.0.0.1:8080" without a slash at the end; in the arena, or borrowed from
 * `platform`. STATUS_UNAVAILABLE: nothing is running on the data folder. */
enum status cli_platform_url(const struct cli_platform *platform, struct arena *a, struct strview *ret_url,
                             struct error *err) MUST_USE;
/* How a call to that URL knows that it is the platform: the key that DIR/run/tls-pin names, or ca_file. */
enum status cli_trust_platform(const struct cli_platform *platform, struct strview url, struct arena *a,
                               struct http_call *call, struct error *err) MUST_USE;
/* As it may stand in a query's value; in the arena. */
struct strview cli_url_encoded(struct arena *a, struct strview text);
/* http_request() for who is no fiber: runs a loop for this one call. */
enum status cli_http(const struct http_call *call, struct arena *a, struct http_reply *ret_reply,
                     struct error *err) MUST_USE;

/* ---- the platform process ---- */

/* Tells systemd, if it started us as a service of Type=notify: "READY=1", "STOPPING=1", "WATCHDOG=1"
 * (sd_notify(3)). Else nothing. */
void service_tell(const char *state);
/* systemd restarts us unless it hears WATCHDOG=1 this often; 0: it does not watch. */
int64_t service_watchdog_ns(void);

struct up_cfg {
    const char *stack_file, *data_dir, *listen, *runbooks_dir, *functions_dir, *host_acts_file, *cluster,
        *callback_networks, *log_level, *watchdog, *alertmanagers, *alertmanager_token_file,
        *alertmanager_ca_file, *alertmanager_receiver, *self_reload, *builder_secret_file;
    const char *tls_cert_file, *tls_key_file;
    const char *scaler_tls_cert_file, *scaler_tls_key_file, *scaler_tls_client_ca_file, *scaler_token_file;
    const char *function_uids, *function_read_paths, *function_write_paths;
    const char *shim_path, *docs_dir; /* found, not set */
    int reloads_itself;               /* enum self_reload, by self_reload */
    int64_t port, scaler_port, repeat_interval_ns, group_interval_ns, watchdog_within_ns,
        reconcile_interval_ns, reconcile_margin_ns, idle_ns, drain_timeout_ns, snapshot_every,
        retention_age_ns, retention_bytes, reserve_bytes, retention_interval_ns;
    bool is_insecure, is_json;
};

/* Where balm up looks for the files and folders that are not given. What is nowhere is named where it would
 * be, for the message; a stack file that is nowhere is NULL. */
void cli_complete_defaults(struct up_cfg *cfg, struct arena *a);
struct core_function;
/* The core functions, *ret_n of them. */
const struct core_function *const *cli_core_functions(unsigned *ret_n);
/* Runs until SIGINT or SIGTERM; returns the exit code. */
int platform_run(const struct up_cfg *cfg, struct error *err);

#endif
