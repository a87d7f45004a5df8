#include "cli/cli.h"

#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "config/quote.h"
#include "function/core.h"
#include "gateway/callback.h"
#include "gateway/isolation.h"
#include "log/log.h"
#include "server/server.h"

#define CLUSTER_NAME_MAX 63 /* a label of Kubernetes and Loki */

#define MINUTE (60 * NS_PER_S)
#define HOUR   (60 * MINUTE)

static const struct config_option options[] = {
    {.name = "file",
     .short_name = 'f',
     .env = "BALM_STACK",
     .type = CONFIG_PATH,
     .offset = offsetof(struct up_cfg, stack_file),
     .value_name = "FILE",
     .help =
         "functions to deploy at the start (stack.yml in the current folder, else the one that came with balm)"},
    {.name = "data",
     .env = "BALM_DATA",
     .type = CONFIG_PATH,
     .offset = offsetof(struct up_cfg, data_dir),
     .value_name = "DIR",
     .help = "journal, secrets and state (/var/lib/balm for root, else ~/.local/state/balm)"},
    {.name = "listen",
     .env = "BALM_LISTEN",
     .type = CONFIG_TEXT,
     .default_text = "127.0.0.1",
     .offset = offsetof(struct up_cfg, listen),
     .value_name = "ADDR",
     .help = "address to listen on, IPv4 or IPv6; 0.0.0.0 and :: are all"},
    {.name = "port",
     .env = "BALM_PORT",
     .type = CONFIG_INT,
     .default_text = "8080",
     .min = 0,
     .max = 65535,
     .offset = offsetof(struct up_cfg, port),
     .help = "port to listen on; 0 picks a free one"},
    {.name = "tls-cert",
     .env = "BALM_TLS_CERT",
     .type = CONFIG_PATH,
     .offset = offsetof(struct up_cfg, tls_cert_file),
     .value_name = "FILE",
     .help = "serve HTTPS with this certificate (PEM, with its chain); read again when it changes"},
    {.name = "tls-key",
     .env = "BALM_TLS_KEY",
     .type = CONFIG_PATH,
     .offset = offsetof(struct up_cfg, tls_key_file),
     .value_name = "FILE",
     .help = "private key of --tls-cert (PEM, without a passphrase)"},
    {.name = "scaler-port",
     .env = "BALM_SCALER_PORT",
     .type = CONFIG_INT,
     .default_text = "9091",
     .min = 0,
     .max = 65535,
     .offset = offsetof(struct up_cfg, scaler_port),
     .help = "port where KEDA asks how much work waits (gRPC external scaler); 0: off"},
    {.name = "scaler-tls-cert",
     .env = "BALM_SCALER_TLS_CERT",
     .type = CONFIG_PATH,
     .offset = offsetof(struct up_cfg, scaler_tls_cert_file),
     .value_name = "FILE",
     .help = "serve it over TLS with this certificate (PEM, with its chain); read again when it changes"},
    {.name = "scaler-tls-key",
     .env = "BALM_SCALER_TLS_KEY",
     .type = CONFIG_PATH,
     .offset = offsetof(struct up_cfg, scaler_tls_key_file),
     .value_name = "FILE",
     .help = "private key of --scaler-tls-cert (PEM, without a passphrase)"},
    {.name = "scaler-tls-client-ca",
     .env = "BALM_SCALER_TLS_CLIENT_CA",
     .type = CONFIG_PATH,
     .offset = offsetof(struct up_cfg, scaler_tls_client_ca_file),
     .value_name = "FILE",
     .help = "refuse whoever asks without a certificate of this authority"},
    {.name = "scaler-token-file",
     .env = "BALM_SCALER_TOKEN_FILE",
     .type = CONFIG_PATH,
     .offset = offsetof(struct up_cfg, scaler_token_file),
     .value_name = "FILE",
     .help = "refuse whoever asks without this bearer token (KEDA itself can send none)"},
    {.name = "runbooks",
     .env = "BALM_RUNBOOKS",
     .type = CONFIG_PATH,
     .offset = offsetof(struct up_cfg, runbooks_dir),
     .value_name = "DIR",
     .help = "folder of runbooks (functions/dispatcher/runbooks, else those that came with balm)"},
    {.name = "self-reload",
     .env = "BALM_SELF_RELOAD",
     .type = CONFIG_TEXT,
     .default_text = "swap",
     .offset = offsetof(struct up_cfg, self_reload),
     .value_name = "swap|edit|never",
     .help =
         "runbooks are read again without being asked: after a swap (a ConfigMap, a folder that is a link), an edit "
         "(any change that rests for 2s), or never"},
    {.name = "functions",
     .env = "BALM_FUNCTIONS",
     .type = CONFIG_PATH,
     .offset = offsetof(struct up_cfg, functions_dir),
     .value_name = "DIR",
     .help = "folder of function executables (those that came with balm)"},
    {.name = "function-uids",
     .env = "BALM_FUNCTION_UIDS",
     .type = CONFIG_TEXT,
     .default_text = ISOLATION_UIDS_DEFAULT,
     .offset = offsetof(struct up_cfg, function_uids),
     .value_name = "FIRST-LAST|none",
     .help =
         "started by root, each function runs as a user of its own out of this range, which is nobody else's"},
    {.name = "function-read-paths",
     .env = "BALM_FUNCTION_READ_PATHS",
     .type = CONFIG_TEXT,
     .offset = offsetof(struct up_cfg, function_read_paths),
     .value_name = "PATH[:PATH]",
     .help = "what every function may read and run, beyond the system's folders and its own"},
    {.name = "function-write-paths",
     .env = "BALM_FUNCTION_WRITE_PATHS",
     .type = CONFIG_TEXT,
     .offset = offsetof(struct up_cfg, function_write_paths),
     .value_name = "PATH[:PATH]",
     .help = "where every function may write, beyond its TMPDIR; its user must be allowed to as well"},
    {.name = "host-acts",
     .env = "BALM_HOST_ACTS",
     .type = CONFIG_PATH,
     .offset = offsetof(struct up_cfg, host_acts_file),
     .value_name = "FILE",
     .help = "allow list of what bots may do on this host (none: nothing)"},
    {.name = "builder-secret",
     .env = "BALM_BUILDER_SECRET",
     .type = CONFIG_PATH,
     .offset = offsetof(struct up_cfg, builder_secret_file),
     .value_name = "FILE",
     .help =
         "payload secret of faas-cli up --remote-builder: whoever has it builds functions here, that is, runs make (none: nobody)"},
    {.name = "cluster",
     .env = "BALM_CLUSTER",
     .type = CONFIG_TEXT,
     .default_text = "local",
     .offset = offsetof(struct up_cfg, cluster),
     .value_name = "NAME",
     .help = "name of this installation in every record; letters, digits, '.', '_' and '-', at most 63"},
    {.name = "callback-networks",
     .env = "BALM_CALLBACK_NETWORKS",
     .type = CONFIG_TEXT,
     .offset = offsetof(struct up_cfg, callback_networks),
     .value_name = "NETWORK[,NETWORK]",
     .help =
         "where answers of asynchronous calls may be posted (X-Callback-Url): 10.0.0.0/8, 192.0.2.7 (anywhere but "
         "link-local, metadata and reserved addresses, and loopback only while listening on it)"},
    {.name = "repeat-interval",
     .env = "BALM_REPEAT_INTERVAL",
     .type = CONFIG_DURATION,
     .default_text = "4h",
     .min = NS_PER_S,
     .max = 720 * HOUR,
     .offset = offsetof(struct up_cfg, repeat_interval_ns),
     .help = "Alertmanager's repeat_interval: an episode unseen for twice this ends as unknown"},
    {.name = "group-interval",
     .env = "BALM_GROUP_INTERVAL",
     .type = CONFIG_DURATION,
     .default_text = "5m",
     .min = NS_PER_S,
     .max = 24 * HOUR,
     .offset = offsetof(struct up_cfg, group_interval_ns),
     .help = "Alertmanager's group_interval"},
    {.name = "watchdog",
     .env = "BALM_WATCHDOG",
     .type = CONFIG_TEXT,
     .default_text = "Watchdog",
     .offset = offsetof(struct up_cfg, watchdog),
     .value_name = "ALERTNAME",
     .help = "the alert that always fires: once it was heard, its silence is told to people"},
    {.name = "watchdog-within",
     .env = "BALM_WATCHDOG_WITHIN",
     .type = CONFIG_DURATION,
     .default_text = "5m",
     .min = NS_PER_S,
     .max = 24 * HOUR,
     .offset = offsetof(struct up_cfg, watchdog_within_ns),
     .help = "for how long the watchdog may be silent; Alertmanager must repeat it more often"},
    {.name = "alertmanager",
     .env = "BALM_ALERTMANAGER",
     .type = CONFIG_TEXT,
     .offset = offsetof(struct up_cfg, alertmanagers),
     .value_name = "URL[,URL]",
     .help = "every Alertmanager that sends here, to be asked what fires: what deliveries fail to tell"},
    {.name = "alertmanager-token-file",
     .env = "BALM_ALERTMANAGER_TOKEN_FILE",
     .type = CONFIG_PATH,
     .offset = offsetof(struct up_cfg, alertmanager_token_file),
     .value_name = "FILE",
     .help = "bearer token, or USER:PASSWORD, for asking them"},
    {.name = "alertmanager-ca-file",
     .env = "BALM_ALERTMANAGER_CA_FILE",
     .type = CONFIG_PATH,
     .offset = offsetof(struct up_cfg, alertmanager_ca_file),
     .value_name = "FILE",
     .help = "certificate authority of their https (the system's)"},
    {.name = "alertmanager-receiver",
     .env = "BALM_ALERTMANAGER_RECEIVER",
     .type = CONFIG_TEXT,
     .default_text = "balm",
     .offset = offsetof(struct up_cfg, alertmanager_receiver),
     .value_name = "NAME",
     .help = "the receiver that sends here: only its alerts are taken from the list"},
    {.name = "reconcile-interval",
     .env = "BALM_RECONCILE_INTERVAL",
     .type = CONFIG_DURATION,
     .default_text = "1m",
     .min = NS_PER_S,
     .max = HOUR,
     .offset = offsetof(struct up_cfg, reconcile_interval_ns),
     .help = "how often they are asked; a younger alert may still be on its way"},
    {.name = "reconcile-margin",
     .env = "BALM_RECONCILE_MARGIN",
     .type = CONFIG_DURATION,
     .default_text = "5m",
     .min = NS_PER_S,
     .max = 24 * HOUR,
     .offset = offsetof(struct up_cfg, reconcile_margin_ns),
     .help = "an alert missing from every list for this and group_interval ends as unknown"},
    {.name = "retention-age",
     .env = "BALM_RETENTION_AGE",
     .type = CONFIG_DURATION,
     .default_text = "90d",
     .min = NS_PER_S,
     .max = 3650 * 24 * HOUR,
     .offset = offsetof(struct up_cfg, retention_age_ns),
     .help = "older records are removed, unless an open incident needs them"},
    {.name = "retention-size",
     .env = "BALM_RETENTION_SIZE",
     .type = CONFIG_BYTES,
     .default_text = "1GiB",
     .min = 1024 * 1024,
     .max = INT64_C(1) << 44,
     .offset = offsetof(struct up_cfg, retention_bytes),
     .help = "the oldest records are removed while the journal is larger"},
    {.name = "retention-interval",
     .env = "BALM_RETENTION_INTERVAL",
     .type = CONFIG_DURATION,
     .default_text = "1m",
     .min = 100 * NS_PER_MS,
     .max = 24 * HOUR,
     .offset = offsetof(struct up_cfg, retention_interval_ns),
     .help = "how often the journal's age and size are looked at"},
    {.name = "reserve-size",
     .env = "BALM_RESERVE_SIZE",
     .type = CONFIG_BYTES,
     .default_text = "64MiB",
     .min = 0,
     .max = INT64_C(1) << 36,
     .offset = offsetof(struct up_cfg, reserve_bytes),
     .help = "space kept for a full disk, so that its alert is still taken and healed; 0: none"},
    {.name = "snapshot-every",
     .env = "BALM_SNAPSHOT_EVERY",
     .type = CONFIG_INT,
     .default_text = "50000",
     .min = 10,
     .max = 10000000,
     .offset = offsetof(struct up_cfg, snapshot_every),
     .help = "records between two snapshots of the state, from which a start goes on"},
    {.name = "idle",
     .env = "BALM_IDLE",
     .type = CONFIG_DURATION,
     .default_text = "5m",
     .min = 0,
     .max = 24 * HOUR,
     .offset = offsetof(struct up_cfg, idle_ns),
     .help = "a function without requests for so long goes to 0 replicas; 0: never"},
    {.name = "drain-timeout",
     .env = "BALM_DRAIN_TIMEOUT",
     .type = CONFIG_DURATION,
     .default_text = "30s",
     .min = 0,
     .max = HOUR,
     .offset = offsetof(struct up_cfg, drain_timeout_ns),
     .help = "how long work under way may take to end when stopping"},
    {.name = "log-level",
     .env = "BALM_LOG_LEVEL",
     .type = CONFIG_TEXT,
     .default_text = "info",
     .offset = offsetof(struct up_cfg, log_level),
     .value_name = "LEVEL",
     .help = "debug, info, warning or error"},
    {.name = "json",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct up_cfg, is_json),
     .help = "JSON lines on a terminal as well"},
    {.name = "insecure",
     .env = "BALM_INSECURE",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct up_cfg, is_insecure),
     .help = "management API without credentials: on loopback only, never as root"},
};

/* `in_source` in the current folder, else in the source tree that this executable was built in, else what was
 * installed with it, else NULL. */
static const char *find_default(struct arena *a, const char *in_source, const char *installed)
{
    if (access(in_source, F_OK) == 0) return in_source;
    const char *beside = arena_printf(a, "%s/../%s", cli_executable_dir(a), in_source).ptr;
    return access(beside, F_OK) == 0 ? beside : cli_find_part(a, installed);
}

void cli_complete_defaults(struct up_cfg *cfg, struct arena *a)
{
    const char *exe_dir = cli_executable_dir(a);
    cfg->shim_path = cli_find_part(a, "balm-shim");
    if (cfg->shim_path == NULL) cfg->shim_path = arena_printf(a, "%s/balm-shim", exe_dir).ptr;
    cfg->docs_dir = cli_find_part(a, "docs");
    if (cfg->functions_dir == NULL) cfg->functions_dir = cli_find_part(a, "functions");
    if (cfg->functions_dir == NULL) cfg->functions_dir = arena_printf(a, "%s/functions", exe_dir).ptr;
    if (cfg->runbooks_dir == NULL)
        cfg->runbooks_dir = find_default(a, "functions/dispatcher/runbooks", "runbooks");
    if (cfg->runbooks_dir == NULL) cfg->runbooks_dir = "functions/dispatcher/runbooks";
    if (cfg->stack_file == NULL) cfg->stack_file = find_default(a, "stack.yml", "stack.yml");
}

/* It stands in every record, label and signature: nothing in it that any of their readers might take for
 * something else. */
static enum status check_cluster(struct strview name, struct error *err)
{
    char shown[QUOTE_MAX];
    bool is_fine = name.len > 0 && name.len <= CLUSTER_NAME_MAX;
    for (size_t i = 0; i < name.len && is_fine; i++) {
        char c = name.ptr[i];
        is_fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
                  c == '_' || c == '-';
    }
    if (is_fine) return STATUS_OK;
    return error_set(err, STATUS_INVALID_ARGUMENT,
                     "--cluster '%s': 1 to %d letters, digits, '.', '_' and '-'", quote_text(name, shown),
                     CLUSTER_NAME_MAX);
}

static enum status check_self_reload(struct up_cfg *cfg, struct error *err)
{
    static const char *const names[] = {
        [RELOAD_ASKED] = "never", [RELOAD_SWAPS] = "swap", [RELOAD_EDITS] = "edit"};
    char shown[QUOTE_MAX];
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(cfg->self_reload, names[i]) != 0) continue;
        cfg->reloads_itself = (int)i;
        return STATUS_OK;
    }
    return error_set(err, STATUS_INVALID_ARGUMENT, "--self-reload '%s': swap, edit or never",
                     quote_text(sv(cfg->self_reload), shown));
}

static enum status check_settings(struct up_cfg *cfg, enum log_level *ret_level, struct error *err)
{
    char shown[QUOTE_MAX];
    if (log_level_parse(sv(cfg->log_level), ret_level) != STATUS_OK)
        return error_set(err, STATUS_INVALID_ARGUMENT, "--log-level '%s': debug, info, warning or error",
                         cfg->log_level);
    if (!server_address_is_valid(cfg->listen))
        return error_set(err, STATUS_INVALID_ARGUMENT, "--listen '%s': not an IPv4 or IPv6 address",
                         quote_text(sv(cfg->listen), shown));
    if ((cfg->tls_cert_file == NULL) != (cfg->tls_key_file == NULL))
        return error_set(err, STATUS_INVALID_ARGUMENT, "--tls-cert and --tls-key belong together");
    if (cfg->scaler_port != 0 && cfg->scaler_port == cfg->port) /* both could be bound, and one not opened */
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "--port %d is --scaler-port's as well: give one of them another (0: no scaler)",
                         (int)cfg->port);
    enum status s = check_self_reload(cfg, err);
    if (s == STATUS_OK && cfg->callback_networks != NULL) {
        s = callback_check_networks(cfg->callback_networks, err);
        if (s != STATUS_OK) s = error_prefix(err, s, "--callback-networks");
    }
    return s == STATUS_OK ? check_cluster(sv(cfg->cluster), err) : s;
}

static int run_up(const struct command *self, int argc, char **argv)
{
    struct arena a = {0};
    struct up_cfg cfg = {0};
    int n = 0, code = CLI_OK;
    if (!cli_parse(self, argc, argv, &a, &cfg, &n, &code)) goto out;
    struct error err = {0};
    enum log_level level;
    enum status s = n > 0 ? error_set(&err, STATUS_INVALID_ARGUMENT, "takes no argument, got '%s'", argv[1])
                          : check_settings(&cfg, &level, &err);
    if (s == STATUS_OK) s = cli_data_dir(cfg.data_dir, &a, &cfg.data_dir, &err);
    if (s != STATUS_OK) {
        code = cli_fail(self, &err);
        goto out;
    }
    log_set_level(level);
    log_set_terminal(isatty(2) == 1 && !cfg.is_json);
    cli_complete_defaults(&cfg, &a);
    code = platform_run(&cfg, &err);
    if (code != CLI_OK && isatty(2) == 1 && !cfg.is_json)
        (void)cli_fail(self, &err);
    else if (code != CLI_OK)
        log_error("balm", err.message);
out:
    arena_release(&a);
    return code;
}

const struct command command_up = {
    .name = "up",
    .arguments = "",
    .summary = "run the platform in the foreground",
    .description =
        "Runs gateway, alert intake, dispatcher and audit log in this one process, and the functions of the stack file as its children.\n"
        "Ctrl-C (or SIGTERM) drains and exits 0; SIGHUP reloads runbooks, stack file and allow list; SIGUSR1 stops acting as balm stop does.",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .run = run_up,
};
