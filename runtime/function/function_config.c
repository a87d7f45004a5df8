#include "function/function_impl.h"

#include <errno.h>
#include <stddef.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/list.h"
#include "config/config.h"

#define PORT_DEFAULT "8080"

/* As the table fills it; what needs more than one setting to be understood is text here. */
struct settings {
    const char *port, *port_openfaas, *port_knative, *listen_address, *healthcheck_interval, *log_level;
    const char *host, *ready_path, *secrets_path, *metrics, *service, *name, *event_source, *webhook_origins;
    int64_t metrics_port, read_timeout_ns, write_timeout_ns, exec_timeout_ns, max_inflight, max_body_bytes,
        listen_fd;
    bool suppress_lock, log_callid, knative_health, http2, jwt_auth, is_frozen;
};

#define AT(member) .offset = offsetof(struct settings, member)
#define HOUR_NS    (3600 * NS_PER_S)

static const struct config_option options[] = {
    {.name = "port",
     .type = CONFIG_TEXT,
     AT(port),
     .value_name = "N",
     .help = "port of the function, over port and PORT (8080 if none is set; 0 picks one)"},
    {.env = "port",
     .type = CONFIG_TEXT,
     AT(port_openfaas),
     .value_name = "N",
     .help = "the same, as OpenFaaS sets it"},
    {.env = "PORT",
     .type = CONFIG_TEXT,
     AT(port_knative),
     .value_name = "N",
     .help = "the same, as Knative sets it; wins over port where K_SERVICE is set"},
    {.env = "LISTEN_ADDRESS",
     .type = CONFIG_TEXT,
     AT(listen_address),
     .value_name = "HOST:PORT",
     .help = "the same, as Knative's func sets it; counts where no other port is set"},
    {.env = "K_SERVICE",
     .type = CONFIG_TEXT,
     AT(service),
     .value_name = "NAME",
     .help = "set by Knative: it runs as this Service"},
    {.env = "OPENFAAS_NAME",
     .type = CONFIG_TEXT,
     AT(name),
     .value_name = "NAME",
     .help = "set by OpenFaaS: it is deployed under this name"},
    {.name = "host",
     .env = "BALM_HOST",
     .type = CONFIG_TEXT,
     AT(host),
     .value_name = "ADDRESS",
     .help = "address to listen on; all interfaces if not set"},
    {.name = "metrics_port",
     .env = "metrics_port",
     .type = CONFIG_INT,
     .default_text = "8081",
     .min = 0,
     .max = 65535,
     AT(metrics_port),
     .help = "port of /metrics; busy is only a warning; 0 picks one"},
    {.name = "read_timeout",
     .env = "read_timeout",
     .type = CONFIG_DURATION,
     .default_text = "30s",
     .min = NS_PER_MS,
     .max = 24 * HOUR_NS,
     AT(read_timeout_ns),
     .help = "limit for a request to arrive, and for a connection to be idle"},
    {.name = "write_timeout",
     .env = "write_timeout",
     .type = CONFIG_DURATION,
     .default_text = "30s",
     .min = NS_PER_MS,
     .max = 24 * HOUR_NS,
     AT(write_timeout_ns),
     .help = "limit for requests to end once the listener is closed"},
    {.name = "exec_timeout",
     .env = "exec_timeout",
     .type = CONFIG_DURATION,
     .default_text = "30s",
     .min = 0,
     .max = 24 * HOUR_NS,
     AT(exec_timeout_ns),
     .help = "limit of one request, 504 beyond; 0 for none; X-Timeout lowers it"},
    {.name = "healthcheck_interval",
     .env = "healthcheck_interval",
     .type = CONFIG_TEXT,
     AT(healthcheck_interval),
     .value_name = "DURATION",
     .help = "how long to go on serving after SIGTERM, less when idle; write_timeout if not set, and where "
             "K_SERVICE is set as long as requests come"},
    {.name = "max_inflight",
     .env = "max_inflight",
     .type = CONFIG_INT,
     .default_text = "0",
     .min = 0,
     .max = 1000000,
     AT(max_inflight),
     .help = "requests at once, 429 beyond; 0 for no limit; on Knative 0 or its containerConcurrency"},
    {.name = "max_body",
     .env = "max_body",
     .type = CONFIG_BYTES,
     .default_text = "8MiB",
     .min = 1024,
     .max = INT64_C(1) << 30,
     AT(max_body_bytes),
     .help = "largest request body, 413 beyond"},
    {.name = "ready_path",
     .env = "ready_path",
     .type = CONFIG_TEXT,
     AT(ready_path),
     .value_name = "PATH",
     .help = "path that the function itself answers for /_/ready"},
    {.name = "suppress_lock",
     .env = "suppress_lock",
     .type = CONFIG_BOOL,
     .default_text = "false",
     AT(suppress_lock),
     .help = "make no lock file ($TMPDIR/.lock or /tmp/.lock)"},
    {.name = "log_callid",
     .env = "log_callid",
     .type = CONFIG_BOOL,
     .default_text = "false",
     AT(log_callid),
     .help = "log a line with the call id for each request"},
    {.name = "log_level",
     .env = "log_level",
     .type = CONFIG_TEXT,
     .default_text = "INFO",
     AT(log_level),
     .value_name = "LEVEL",
     .help = "DEBUG, INFO, WARNING or ERROR"},
    {.name = "secret_mount_path",
     .env = "secret_mount_path",
     .type = CONFIG_PATH,
     .default_text = "/var/openfaas/secrets",
     AT(secrets_path),
     .value_name = "DIR",
     .help = "folder of secrets, one file each"},
    {.name = "knative_health",
     .env = "knative_health",
     .type = CONFIG_BOOL,
     .default_text = "true",
     AT(knative_health),
     .help = "answer GET /health/liveness and /health/readiness too"},
    {.name = "http2",
     .env = "http2",
     .type = CONFIG_BOOL,
     .default_text = "false",
     AT(http2),
     .help = "HTTP/2 by prior knowledge or upgrade on the same port (h2c); on where K_SERVICE is set"},
    {.name = "event_source",
     .env = "event_source",
     .type = CONFIG_TEXT,
     AT(event_source),
     .value_name = "URI",
     .help = "source of reply events; /NAME of K_SERVICE or OPENFAAS_NAME if not set"},
    {.name = "webhook_origins",
     .env = "webhook_origins",
     .type = CONFIG_TEXT,
     AT(webhook_origins),
     .value_name = "LIST",
     .help =
         "senders of events that may ask for leave by OPTIONS (WebHook-Request-Origin), with commas; * for all"},
    {.env = "BALM_LISTEN_FD",
     .type = CONFIG_INT,
     .default_text = "-1",
     .min = -1,
     .max = 1 << 20,
     AT(listen_fd),
     .help = "descriptor of an inherited listening socket: port is not used then"},
    {.env = "BALM_METRICS",
     .type = CONFIG_TEXT,
     .default_text = "on",
     AT(metrics),
     .value_name = "on|off",
     .help = "off opens no metrics port"},
    {.env = "BALM_FROZEN",
     .type = CONFIG_BOOL,
     .default_text = "false",
     AT(is_frozen),
     .help = "start stopped: no signed invocation is executed until SIGUSR2"},
    {.env = "jwt_auth",
     .type = CONFIG_BOOL,
     .default_text = "false",
     AT(jwt_auth),
     .help = "must be false: not offered"},
};

void function_config_print_help(const struct function_def *def, FILE *out)
{
    fprintf(out,
            "%s: %s\n\nServes HTTP as an OpenFaaS or Knative function.\n\n"
            "  -h, --help          this text\n      --version       print the version\n"
            "      --describe      print the manifest (bot.yaml) as JSON\n"
            "      -run-healthcheck  exit 0 if a function runs here (its lock file exists), else 1\n\n"
            "Settings (command line over environment over default):\n",
            def->name, def->summary);
    config_print_help(options, ARRAY_LEN(options), out);
}

static enum status parse_port(const char *name, const char *text, uint16_t *ret_port, struct error *err)
{
    uint64_t value;
    if (sv_parse_u64(sv(text), &value) != STATUS_OK || value > 65535)
        return error_set(err, STATUS_INVALID_ARGUMENT, "%s: '%s' is no port, allowed are 0 to 65535", name,
                         text);
    *ret_port = (uint16_t)value;
    return STATUS_OK;
}

/* "HOST:PORT", "[::1]:PORT", ":PORT". */
static enum status parse_listen_address(const struct settings *s, struct arena *a, struct function_cfg *cfg,
                                        struct error *err)
{
    struct strview text = sv(s->listen_address), host;
    size_t colon = text.len;
    while (colon > 0 && text.ptr[colon - 1] != ':')
        colon--;
    enum status st = parse_port("LISTEN_ADDRESS", s->listen_address + colon, &cfg->port, err);
    if (st != STATUS_OK) return st;
    if (colon <= 1 || cfg->host != NULL) return STATUS_OK;
    host = sv_sub(text, 0, colon - 1);
    if (sv_starts_with(host, SV("[")) && sv_ends_with(host, SV("]"))) host = sv_sub(host, 1, host.len - 1);
    cfg->host = sv_eq(host, SV("localhost")) ? "127.0.0.1" : arena_cstr(a, host);
    if (server_address_is_valid(cfg->host)) return STATUS_OK;
    return error_set(err, STATUS_INVALID_ARGUMENT, "LISTEN_ADDRESS: '%s' has no address before the port",
                     s->listen_address);
}

/* Our option, then OpenFaaS's `port`, then Knative's `PORT`, then its func's LISTEN_ADDRESS; Knative reserves
 * PORT, so with K_SERVICE it is the truth. Each port that is set must be one, used or not. */
static enum status resolve_port(const struct settings *s, struct arena *a, struct function_cfg *cfg,
                                struct error *err)
{
    uint16_t openfaas = 0, knative = 0;
    enum status st =
        parse_port("port", s->port_openfaas != NULL ? s->port_openfaas : PORT_DEFAULT, &openfaas, err);
    if (st == STATUS_OK)
        st = parse_port("PORT", s->port_knative != NULL ? s->port_knative : PORT_DEFAULT, &knative, err);
    if (st != STATUS_OK) return st;
    if (s->port != NULL) return parse_port("--port", s->port, &cfg->port, err);
    if (s->port_openfaas == NULL && s->port_knative == NULL && s->listen_address != NULL)
        return parse_listen_address(s, a, cfg, err);
    bool takes_knative = s->port_knative != NULL && (s->service != NULL || s->port_openfaas == NULL);
    cfg->port = takes_knative ? knative : openfaas;
    return STATUS_OK;
}

/* Knative's sidecar goes on sending for as long as requests reach it, and the platform's own grace time is
 * the revision's timeout: both are bounds enough. */
static enum status resolve_drain(const struct settings *s, int64_t *ret_ns, struct error *err)
{
    if (s->healthcheck_interval == NULL) {
        *ret_ns = s->service != NULL ? 24 * HOUR_NS : s->write_timeout_ns;
        return STATUS_OK;
    }
    if (duration_parse(sv(s->healthcheck_interval), ret_ns) == STATUS_OK && *ret_ns <= 24 * HOUR_NS)
        return STATUS_OK;
    return error_set(err, STATUS_INVALID_ARGUMENT,
                     "healthcheck_interval: '%s' is not a duration in the range 0s to 24h",
                     s->healthcheck_interval);
}

/* A URI reference, so that no reply event is refused for it. */
static enum status resolve_event_source(const struct function_def *def, const struct settings *s,
                                        struct arena *a, struct function_cfg *cfg, struct error *err)
{
    const char *name = s->service != NULL ? s->service : s->name != NULL ? s->name : def->name;
    cfg->event_source = s->event_source != NULL ? s->event_source : arena_printf(a, "/%s", name).ptr;
    for (const char *c = cfg->event_source; *c != '\0'; c++)
        if (*c <= ' ' || *c > '~' || strchr("\"<>\\^`{|}", *c) != NULL)
            return error_set(err, STATUS_INVALID_ARGUMENT, "event_source: '%s' is no URI reference",
                             cfg->event_source);
    return STATUS_OK;
}

/* Behind Knative's sidecar, and only there: it never meets a client directly, and whether the port is called
 * http1 or h2c is not told to the container. Said aloud, "false" is obeyed. */
static bool resolve_http2(const struct settings *s)
{
    const char *said = getenv("http2");
    return s->http2 || (s->service != NULL && (said == NULL || said[0] == '\0'));
}

static enum status check_listen_fd(int64_t fd, struct error *err)
{
    int is_listening = 0;
    socklen_t len = sizeof(is_listening);
    if (fd < 0) return STATUS_OK;
    if (getsockopt((int)fd, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &len) != 0)
        return error_set(err, STATUS_INVALID_ARGUMENT, "BALM_LISTEN_FD: descriptor %d: %s", (int)fd,
                         strerror(errno));
    if (is_listening) return STATUS_OK;
    return error_set(err, STATUS_INVALID_ARGUMENT, "BALM_LISTEN_FD: descriptor %d is not a listening socket",
                     (int)fd);
}

static enum status check_settings(const struct function_def *def, const struct settings *s, struct error *err)
{
    if (s->jwt_auth) /* ignoring it would leave open what somebody wanted closed */
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "jwt_auth: 'true' is not offered by this runtime, allowed is false");
    if (s->ready_path != NULL && s->ready_path[0] != '/')
        return error_set(err, STATUS_INVALID_ARGUMENT, "ready_path: '%s' must start with /", s->ready_path);
    if (s->ready_path != NULL && def->acts)
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "ready_path: '%s': %s acts, so a probe cannot call it; leave ready_path unset",
                         s->ready_path, def->name);
    if (!sv_eq(sv(s->metrics), SV("on")) && !sv_eq(sv(s->metrics), SV("off")))
        return error_set(err, STATUS_INVALID_ARGUMENT, "BALM_METRICS: '%s' is neither on nor off",
                         s->metrics);
    return check_listen_fd(s->listen_fd, err);
}

enum status function_config_load(const struct function_def *def, int argc, char **argv, struct arena *a,
                                 struct function_cfg *ret_cfg, struct error *err)
{
    struct settings s;
    int n_positional = 0;
    enum status st = config_load(options, ARRAY_LEN(options), argc, argv, a, &s, &n_positional, err);
    if (st != STATUS_OK) return st;
    if (n_positional > 0)
        return error_set(err, STATUS_INVALID_ARGUMENT, "'%s': no arguments are taken", argv[1]);
    struct function_cfg cfg = {
        .metrics_port = (uint16_t)s.metrics_port,
        .read_timeout_ns = s.read_timeout_ns,
        .write_timeout_ns = s.write_timeout_ns,
        .exec_timeout_ns = s.exec_timeout_ns,
        .max_inflight = s.max_inflight,
        .max_body_bytes = s.max_body_bytes,
        .listen_fd = s.listen_fd,
        .host = s.host,
        .ready_path = s.ready_path,
        .secrets_path = s.secrets_path,
        .webhook_origins = s.webhook_origins,
        .suppress_lock = s.suppress_lock,
        .log_callid = s.log_callid,
        .knative_health = s.knative_health,
        .http2 = resolve_http2(&s),
        .is_frozen = s.is_frozen,
        .is_metrics_off = sv_eq(sv(s.metrics), SV("off")),
    };
    if (log_level_parse(sv(s.log_level), &cfg.log_level) != STATUS_OK)
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "log_level: '%s' is none of DEBUG, INFO, WARNING, ERROR", s.log_level);
    st = check_settings(def, &s, err);
    if (st == STATUS_OK) st = resolve_port(&s, a, &cfg, err);
    if (st == STATUS_OK) st = resolve_drain(&s, &cfg.healthcheck_interval_ns, err);
    if (st == STATUS_OK) st = resolve_event_source(def, &s, a, &cfg, err);
    if (st == STATUS_OK) *ret_cfg = cfg;
    return st;
}
