/* What is deployed: the spec as it was given, the executable that it names, and what that says of itself. */
#include "gateway/gateway_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "config/config.h"
#include "function/api_key.h"

#define DESCRIBE_TIMEOUT_NS (5 * NS_PER_S)
#define DESCRIBE_BYTES_MAX  (256 * 1024)
#define SECRET_NAME_MAX     253 /* DNS subdomain, as Kubernetes */
#define SECRETS_MAX         64
#define CALL_SLACK_NS       (5 * NS_PER_S) /* for a start, and for the answer's way */

/* ---- the spec ---- */

static enum status check_name(const struct gateway *g, struct strview name, struct error *err)
{
    if (!sv_is_dns_label(name))
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "function name '%.*s': 1 to %d lower-case letters, digits and inner '-'",
                         SV_ARG(sv_sub(name, 0, 80)), FUNCTION_NAME_MAX);
    for (unsigned i = 0; i < g->cfg.n_core; i++)
        if (sv_eq(name, sv(g->cfg.core[i]->name)))
            return error_set(err, STATUS_ALREADY_EXISTS,
                             "'%.*s' is a core function of balm and cannot be replaced", SV_ARG(name));
    return STATUS_OK;
}

/* A name becomes a path below DIR/secrets/functions. */
static enum status check_secrets(const struct deployment_spec *spec, struct error *err)
{
    if (spec->n_secrets > SECRETS_MAX)
        return error_set(err, STATUS_INVALID_ARGUMENT, "secrets: %zu, at most %d are allowed",
                         spec->n_secrets, SECRETS_MAX);
    for (size_t i = 0; i < spec->n_secrets; i++) {
        struct strview name = spec->secrets[i];
        bool is_fine = name.len > 0 && name.len <= SECRET_NAME_MAX && name.ptr[0] != '.' &&
                       memchr(name.ptr, '\0', name.len) == NULL;
        if (!is_fine || sv_find(name, '/') < name.len)
            return error_set(err, STATUS_INVALID_ARGUMENT, "secrets: entry %zu is no secret's name", i + 1);
        if (sv_eq(name, SV(INVOCATION_KEY_SECRET)) || sv_eq(name, SV(API_KEY_GATEWAY_SECRET)))
            return error_set(err, STATUS_INVALID_ARGUMENT, "secrets: '%.*s' is the platform's own",
                             SV_ARG(name));
    }
    return STATUS_OK;
}

/* LD_* would have the loader run something else than the executable that the image names. */
static enum status check_env(const struct deployment_spec *spec, struct error *err)
{
    const char *key;
    json_t *value;
    if (json_object_size(spec->env) > FUNCTION_ENV_MAX)
        return error_set(err, STATUS_INVALID_ARGUMENT, "environment: %zu variables, at most %d are allowed",
                         json_object_size(spec->env), FUNCTION_ENV_MAX);
    json_object_foreach(spec->env, key, value)
    {
        if (key[0] == '\0' || strchr(key, '=') != NULL || strncmp(key, "LD_", 3) == 0)
            return error_set(err, STATUS_INVALID_ARGUMENT, "environment: '%.80s' cannot be set", key);
        if (!json_is_string(value) || strlen(json_string_value(value)) != json_string_length(value))
            return error_set(err, STATUS_INVALID_ARGUMENT,
                             "environment: the value of '%.80s' is no text for a variable", key);
    }
    return STATUS_OK;
}

static enum status check_spec(const struct gateway *g, const struct deployment_spec *spec, struct error *err)
{
    enum status s = check_name(g, spec->name, err);
    if (s == STATUS_OK) s = check_secrets(spec, err);
    if (s == STATUS_OK) s = check_env(spec, err);
    if (s == STATUS_OK) s = remote_check(spec, err);
    if (s == STATUS_OK && g->n_deployments >= DEPLOYMENTS_MAX)
        s = error_set(err, STATUS_RESOURCE_EXHAUSTED, "%d functions are deployed", DEPLOYMENTS_MAX);
    return s;
}

static void copy_spec(struct deployment *d, const struct deployment_spec *from)
{
    struct arena *a = &d->arena;
    d->spec = *from;
    d->spec.arena = a;
    d->spec.name = arena_copy(a, from->name);
    d->spec.image = arena_copy(a, from->image);
    d->spec.process = arena_copy(a, from->process);
    d->spec.env = json_deep_copy(from->env);
    d->spec.labels = json_deep_copy(from->labels);
    d->spec.annotations = json_deep_copy(from->annotations);
    d->spec.limits = json_deep_copy(from->limits);
    d->spec.requests = json_deep_copy(from->requests);
    d->spec.constraints = json_deep_copy(from->constraints);
    struct strview *secrets = arena_array(a, from->n_secrets, sizeof(*secrets));
    for (size_t i = 0; i < from->n_secrets; i++)
        secrets[i] = arena_copy(a, from->secrets[i]);
    d->spec.secrets = secrets;
}

static bool is_same_map(const json_t *a, const json_t *b)
{
    if (json_object_size(a) == 0 && json_object_size(b) == 0) return true;
    return json_equal(a, b) != 0;
}

static bool is_same_list(const json_t *a, const json_t *b)
{
    if (json_array_size(a) == 0 && json_array_size(b) == 0) return true;
    return json_equal(a, b) != 0;
}

static bool is_same_spec(const struct deployment_spec *a, const struct deployment_spec *b)
{
    bool is_same = sv_eq(a->image, b->image) && sv_eq(a->process, b->process) &&
                   a->memory_bytes == b->memory_bytes && a->cpu_millis == b->cpu_millis &&
                   is_same_map(a->env, b->env) && is_same_map(a->labels, b->labels) &&
                   is_same_map(a->annotations, b->annotations) && is_same_map(a->limits, b->limits) &&
                   is_same_map(a->requests, b->requests) && is_same_list(a->constraints, b->constraints) &&
                   a->is_read_only == b->is_read_only && a->n_secrets == b->n_secrets;
    for (size_t i = 0; is_same && i < a->n_secrets; i++)
        is_same = sv_eq(a->secrets[i], b->secrets[i]);
    return is_same;
}

static bool is_same_build(const struct file_identity *a, const struct file_identity *b)
{
    return a->device == b->device && a->inode == b->inode && a->changed_ns == b->changed_ns;
}

static bool is_same_file(const char *path, const struct file_identity *build)
{
    struct file_identity now;
    return file_identify(path, &now) && is_same_build(&now, build);
}

/* ---- the manifest ---- */

static bool json_is_yes(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

static enum on_unknown parse_on_unknown(struct strview text)
{
    if (sv_eq(text, SV("rerun"))) return ON_UNKNOWN_RERUN;
    return sv_eq(text, SV("reread")) ? ON_UNKNOWN_REREAD : ON_UNKNOWN_ESCALATE;
}

void gateway_manifest_info(const json_t *m, struct strview name, struct arena *a,
                           struct function_info *ret_info)
{
    *ret_info = (struct function_info){
        .name = name,
        .acts = json_is_yes(m, "acts"),
        .is_destructive = json_is_yes(m, "destructive"),
        .removes_series = json_is_yes(m, "removes_series"),
        .tells_people = json_is_yes(m, "tells_people"),
        .on_unknown = parse_on_unknown(json_get_text(m, "on_unknown")),
        .api_key_secret = api_key_secret(m, a),
        .undo = json_get_text(m, "undo"),
        .manifest_json = json_canonical(a, m),
    };
    if (duration_parse(json_get_text(m, "timeout"), &ret_info->timeout_ns) != STATUS_OK)
        ret_info->timeout_ns = 30 * NS_PER_S;
}

static void info_from_manifest(struct deployment *d)
{
    gateway_manifest_info(d->manifest, d->spec.name, &d->arena, &d->info);
    struct strview limit = json_get_text(d->spec.env, "exec_timeout"); /* what the function will go by */
    int64_t limit_ns;
    if (limit.len > 0 && duration_parse(limit, &limit_ns) == STATUS_OK) d->info.timeout_ns = limit_ns;
    if (d->info.api_key_secret.len > 0)
        api_key_derive(d->gateway->secrets.invocation_key, d->spec.name, d->gateway_key);
}

/* Another one of the same build has said it already: a thousand deployments of one executable, at the
 * platform's start, are not a thousand processes. */
static bool take_known_manifest(struct deployment *d)
{
    for (struct list *n = d->gateway->deployments.next; n != &d->gateway->deployments; n = n->next) {
        const struct deployment *other = container_of(n, struct deployment, node);
        if (other->program != NULL || !is_same_build(&other->build, &d->build)) continue;
        d->manifest = json_incref(other->manifest);
        info_from_manifest(d);
        return true;
    }
    return false;
}

/* A foreign executable is not trusted with more for this than for serving. Without a platform (a stack file
 * is being checked) there is no sandbox for it: it runs as whoever checks. */
static enum status describe_command(struct deployment *d, const char *ret_argv[ISOLATION_ARGS_MAX + 6],
                                    struct error *err)
{
    size_t n = 0;
    enum status s = STATUS_OK;
    if (d->gateway->cfg.shim_path != NULL) {
        ret_argv[n++] = d->gateway->cfg.shim_path;
        ret_argv[n++] = "--confined";
        s = isolation_args(d, NULL, &d->arena, ret_argv + n, err);
        while (s == STATUS_OK && ret_argv[n] != NULL)
            n++;
        ret_argv[n++] = "--";
    }
    ret_argv[n++] = d->executable;
    ret_argv[n++] = "--describe";
    ret_argv[n] = NULL;
    return s;
}

/* What a function may do is known before it first runs: one that cannot say it (--describe) is not deployed.
 */
static enum status read_manifest(struct deployment *d, struct error *err)
{
    if (d->program != NULL || d->executable == NULL) {
        enum status s = deployment_read_bot_file(d, err);
        if (s == STATUS_OK) info_from_manifest(d);
        return s;
    }
    if (take_known_manifest(d)) return STATUS_OK;
    const char *argv[ISOLATION_ARGS_MAX + 6];
    enum status s = describe_command(d, argv, err);
    if (s != STATUS_OK) return s;
    struct process_spec spec = {.argv = argv, .env = (const char *const[]){"LANG=C.UTF-8", NULL}, .cwd = "/"};
    struct process_result r;
    int64_t deadline_ns = clock_monotonic_ns() + DESCRIBE_TIMEOUT_NS;
    s = process_run(&spec, sv(NULL), DESCRIBE_BYTES_MAX, deadline_ns, &d->arena, &r, err);
    if (s != STATUS_OK) return error_prefix(err, s, "%s --describe", d->executable);
    if (r.exit_code == 0 && json_parse(r.stdout_text, 0, &d->manifest, NULL) == STATUS_OK &&
        json_is_object(d->manifest)) {
        info_from_manifest(d);
        return STATUS_OK;
    }
    return error_set(err, STATUS_FAILED_PRECONDITION,
                     "%s does not say what it is: --describe gave exit %d and no manifest (%.*s)",
                     d->executable, r.exit_code, SV_ARG(sv_sub(sv_trim(r.stderr_text), 0, 200)));
}

/* ---- life ---- */

static struct deployment *deployment_new(struct gateway *g, const struct deployment_spec *spec)
{
    struct deployment *d = mem_zalloc(1, sizeof(*d));
    d->gateway = g;
    list_init(&d->replicas);
    copy_spec(d, spec);
    d->secrets_folder =
        arena_printf(&d->arena, "%s/secrets/%.*s-%u", g->isolation.folder, SV_ARG(spec->name), ++g->serial)
            .ptr;
    d->created_unix_ns = clock_unix_ns();
    d->last_used_ns = clock_monotonic_ns();
    d->log = function_log_new();
    scaling_read_labels(spec->labels, g->cfg.idle_ns, &d->arena, &d->scale, &d->warnings);
    d->wanted = d->scale.floor;
    if (spec->cpu_millis > 0 && g->groups.of[CGROUP_CPU].version == 0 && d->warnings.n < SCALING_WARNINGS_MAX)
        d->warnings.items[d->warnings.n++] =
            SV("limits.cpu: no control group can be made here (balm doctor), so it is not limited");
    return d;
}

void deployment_spec_release(struct deployment_spec *spec)
{
    json_t **all[] = {&spec->env,    &spec->labels,   &spec->annotations,
                      &spec->limits, &spec->requests, &spec->constraints};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        json_release(*all[i]);
        *all[i] = NULL;
    }
}

void deployment_free(struct deployment *d)
{
    deployment_spec_release(&d->spec);
    json_release(d->manifest);
    function_log_free(d->log);
    mem_wipe(d->gateway_key, sizeof(d->gateway_key));
    arena_release(&d->arena);
    free(d);
}

/* A path that it may not have is found when it is deployed, not when it is first called. */
static enum status check_isolation(struct deployment *d, struct error *err)
{
    struct arena a = {0};
    const char *args[ISOLATION_ARGS_MAX];
    enum status s = isolation_args(d, NULL, &a, args, err);
    arena_release(&a);
    return s;
}

enum status deployment_prepare(struct gateway *g, const struct deployment_spec *spec,
                               struct deployment **ret_deployment, struct error *err)
{
    enum status s = check_spec(g, spec, err);
    if (s != STATUS_OK) return s;
    struct deployment *d = deployment_new(g, spec);
    s = deployment_find(d, err);
    if (s == STATUS_OK) s = isolation_user(g, spec->name, &d->uid, err);
    if (s == STATUS_OK) s = read_manifest(d, err);
    if (s == STATUS_OK) s = check_isolation(d, err);
    if (s == STATUS_OK)
        *ret_deployment = d;
    else
        deployment_free(d);
    return s;
}

bool deployment_is_current(const struct deployment *d, const struct deployment_spec *spec)
{
    return is_same_spec(&d->spec, spec) &&
           (d->executable == NULL || is_same_file(d->executable, &d->build)) &&
           (d->bot_file == NULL || is_same_file(d->bot_file, &d->bot_build));
}

struct core_backlog gateway_backlog(void *gateway, struct strview function)
{
    const struct gateway *g = gateway;
    struct core_backlog sum = {0};
    for (unsigned i = 0; i < g->cfg.n_core; i++) {
        if (g->cfg.core[i]->backlog == NULL || g->cfg.core_states[i] == NULL) continue;
        struct core_backlog one = g->cfg.core[i]->backlog(g->cfg.core_states[i], function);
        sum.n += one.n;
        if (sum.oldest_ns == 0 || (one.oldest_ns != 0 && one.oldest_ns < sum.oldest_ns))
            sum.oldest_ns = one.oldest_ns;
    }
    return sum;
}

unsigned deployment_replicas(const struct deployment *d)
{
    return d->is_remote ? 1 : d->n_routed; /* how many there are is not known here */
}

unsigned deployment_ready_replicas(const struct deployment *d)
{
    unsigned n = deployment_replicas(d);
    for (const struct list *m = d->replicas.next; m != &d->replicas; m = m->next) {
        const struct replica *r = container_of(m, struct replica, node);
        n -= r->is_routed && r->is_unready;
    }
    return n;
}

int64_t deployment_call_timeout(const struct deployment *d)
{
    int64_t own_ns = d->info.timeout_ns;
    bool is_limited = own_ns > 0 && own_ns < FUNCTION_TIMEOUT_NS - CALL_SLACK_NS; /* 0: none of its own */
    return is_limited ? own_ns + CALL_SLACK_NS : FUNCTION_TIMEOUT_NS;
}
