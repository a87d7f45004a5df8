/* Real processes behind the gateway: started, crashed, replaced, removed. */
#include "scene.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

static void deploy_plain(struct scene *s)
{
    CHECK_OK(s, deploy_named(s, "plain", "plain"));
}

static pid_t function_pid(struct scene *s, const char *name)
{
    uint64_t pid = 0;
    struct answer a = ask(s, "GET", arena_printf(&s->arena, "/function/%s/pid", name).ptr, NULL);
    if (a.code != 200)
        (void)fprintf(stderr, "pid: %d %.*s %s\n", a.code, SV_ARG(a.body),
                      a.status != STATUS_OK ? s->err.message : "");
    CHECK(a.status == STATUS_OK && a.code == 200 && sv_parse_u64(a.body, &pid) == STATUS_OK);
    return (pid_t)pid;
}

static bool is_at_zero(void *deployment)
{
    const struct deployment *d = deployment;
    return d->n_routed == 0 && list_is_empty(&d->replicas);
}

static bool has_one(void *deployment)
{
    return ((struct deployment *)deployment)->n_routed == 1;
}

static bool is_gone(void *pid)
{
    return !is_alive(*(pid_t *)pid);
}

static bool has_no_retired(void *gateway)
{
    return list_is_empty(&((struct gateway *)gateway)->retired);
}

/* ---- one function ---- */

static void starts_on_demand(struct scene *s)
{
    deploy_plain(s);
    CHECK(deployment_replicas(deployment_of(s, "plain")) == 0);
    struct answer a = ask(s, "POST", "/function/plain", "{\"a\":1}");
    CHECK(a.status == STATUS_OK && a.code == 200);
    CHECK(sv_eq(a.body, SV("{\"a\":1}")));
    CHECK(deployment_replicas(deployment_of(s, "plain")) == 1);
    pid_t pid = function_pid(s, "plain.openfaas-fn"); /* the suffix that faas-cli adds */
    CHECK(function_pid(s, "plain") == pid);
    CHECK(deployment_of(s, "plain")->invocations == 3);
}

Test(supervisor, a_function_starts_with_its_first_request, .timeout = 30)
{
    play(NULL, starts_on_demand);
}

static void set_secret(struct scene *s)
{
    CHECK_OK(s, dir_make(scene_path(s, "data/secrets/functions"), 0700, &s->err));
}

static bool has_variable(const json_t *list, const char *text)
{
    size_t i;
    json_t *value;
    json_array_foreach(list, i, value) if (strcmp(json_string_value(value), text) == 0) return true;
    return false;
}

static void sees_only_its_own(struct scene *s)
{
    CHECK(setenv("OUR_OWN_SECRET", "x", 1) == 0);
    struct deployment_spec spec = {.arena = &s->arena, .name = SV("plain"), .image = SV("plain")};
    spec.env = json_pack("{s:s, s:s, s:s}", "COLOUR", "red", "OPENFAAS_NAME", "other", "exec_timeout", "3s");
    CHECK_OK(s, supervisor_deploy(s->gateway, &spec, &s->err));
    json_release(spec.env);
    struct answer a = ask(s, "GET", "/function/plain/environment", NULL);
    json_t *list = answer_json(&a);
    CHECK(has_variable(list, "COLOUR=red"));
    CHECK(has_variable(list, "OPENFAAS_NAME=plain"));
    CHECK(!has_variable(list, "OPENFAAS_NAME=other"));
    CHECK(has_variable(list, "exec_timeout=3s"));
    CHECK(!has_variable(list, "exec_timeout=20s"));
    CHECK(has_variable(list, "OPENFAAS_NAMESPACE=openfaas-fn"));
    CHECK(has_variable(list, "BALM_FROZEN=false"));
    CHECK(!has_variable(list, "OUR_OWN_SECRET=x"));
    json_release(list);
}

Test(supervisor, a_function_sees_its_own_environment_and_nothing_of_ours, .timeout = 30)
{
    play(NULL, sees_only_its_own);
}

static void process_limits(struct scene *s)
{
    struct deployment_spec spec = {
        .arena = &s->arena, .name = SV("plain"), .image = SV("plain"), .memory_bytes = MEMORY_LIMIT};
    CHECK_OK(s, supervisor_deploy(s->gateway, &spec, &s->err));
    struct answer a = ask(s, "GET", "/function/plain/limits", NULL);
    json_t *limits = answer_json(&a);
    CHECK(json_integer_value(json_object_get(limits, "core")) == 1); /* 0 does not count for a pipe */
    CHECK(json_integer_value(json_object_get(limits, "data")) == (MEMORY_LIMIT > 0 ? MEMORY_LIMIT : -1));
    CHECK(json_integer_value(json_object_get(limits, "noNewPrivs")) == 1);
    CHECK(json_is_true(json_object_get(limits, "isSessionLeader")));
    json_release(limits);
}

Test(supervisor, a_functions_limits_are_set, .timeout = 30)
{
    play(NULL, process_limits);
}

static void no_foreign_descriptors(struct scene *s)
{
    deploy_plain(s);
    struct answer a = ask(s, "GET", "/function/plain/descriptors", NULL);
    json_t *list = answer_json(&a), *value;
    const char *key;
    json_object_foreach(list, key, value)
    {
        const char *target = json_string_value(value);
        CHECK(strstr(target, "journal") == NULL && strstr(target, "data") == NULL);
        if (strcmp(key, "3") == 0) CHECK(strcmp(target, "/dev/null") == 0); /* it does not act: no broker */
    }
    json_release(list);
}

Test(supervisor, a_function_inherits_no_descriptor_of_the_platform, .timeout = 30)
{
    play(NULL, no_foreign_descriptors);
}

static void reads_secret(struct scene *s)
{
    (void)scene_write(s, "data/secrets/functions/wanted", "42", 0600);
    (void)scene_write(s, "data/secrets/functions/other", "43", 0600);
    struct strview wanted = SV("wanted");
    struct deployment_spec spec = {
        .arena = &s->arena, .name = SV("plain"), .image = SV("plain"), .secrets = &wanted, .n_secrets = 1};
    CHECK_OK(s, supervisor_deploy(s->gateway, &spec, &s->err));
    (void)function_pid(s, "plain");
    struct deployment *d = deployment_of(s, "plain");
    const char *folder = arena_cstr(&s->arena, sv(d->secrets_folder));
    CHECK(access(arena_printf(&s->arena, "%s/wanted", folder).ptr, R_OK) == 0);
    CHECK(access(arena_printf(&s->arena, "%s/other", folder).ptr, F_OK) != 0);
    CHECK_OK(s, supervisor_scale(d, 0, &s->err));
    CHECK(await(is_at_zero, d));
    CHECK(access(folder, F_OK) != 0); /* nothing lies about while nothing runs */
}

Test(supervisor, a_function_gets_the_secrets_it_names_while_it_runs, .timeout = 30)
{
    play(set_secret, reads_secret);
}

static void misses_secret(struct scene *s)
{
    struct strview missing = SV("missing"), outside = SV("../basic-auth-password"), hidden = SV(".x");
    struct deployment_spec spec = {
        .arena = &s->arena, .name = SV("plain"), .image = SV("plain"), .secrets = &missing, .n_secrets = 1};
    CHECK_OK(s, supervisor_deploy(s->gateway, &spec, &s->err));
    struct answer a = ask(s, "GET", "/function/plain", NULL);
    CHECK(a.status == STATUS_OK && a.code == 503 && sv_contains(a.body, SV("cannot be started now")));
    CHECK(!sv_contains(a.body, sv(s->folder)) && !sv_contains(a.body, SV("missing")));
    CHECK(sv_eq(answer_header(&a, "retry-after"), SV("1")));
    spec.secrets = &outside;
    CHECK(supervisor_deploy(s->gateway, &spec, &s->err) == STATUS_INVALID_ARGUMENT);
    spec.secrets = &hidden;
    CHECK(supervisor_deploy(s->gateway, &spec, &s->err) == STATUS_INVALID_ARGUMENT);
}

Test(supervisor, a_secret_that_is_missing_or_elsewhere_is_refused, .timeout = 30)
{
    play(set_secret, misses_secret);
}

/* ---- names and executables ---- */

static void bad_specs(struct scene *s)
{
    static const char *const names[] = {
        "",    "-a",  "a-",
        "A",   "a_b", "a.b",
        "a/b", "..",  "a123456789012345678901234567890123456789012345678901234567890123"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        CHECK(deploy_named(s, names[i], "plain") == STATUS_INVALID_ARGUMENT);
    CHECK(deploy_named(s, "plain", "nothing-there") == STATUS_NOT_FOUND);
    CHECK(strstr(s->err.message, "functions/nothing-there") != NULL);
    CHECK(deploy_named(s, "plain", "") == STATUS_INVALID_ARGUMENT);
    CHECK(deploy_named(s, "plain", "..") == STATUS_INVALID_ARGUMENT);
    CHECK(deploy_named(s, "plain", "x/..") == STATUS_INVALID_ARGUMENT);
    CHECK(deploy_named(s, "plain", "x/.hidden:1") == STATUS_INVALID_ARGUMENT);
    CHECK(deployment_of(s, "plain") == NULL);
    CHECK_OK(s, deploy_named(s, "plain", "registry.example:5000/team/plain:1.2@sha256:00"));
    CHECK(function_pid(s, "plain") > 0);
}

Test(supervisor, bad_names_and_images_are_refused, .timeout = 30)
{
    play(NULL, bad_specs);
}

static void bad_environment(struct scene *s)
{
    struct deployment_spec spec = {.arena = &s->arena, .name = SV("plain"), .image = SV("plain")};
    static const char *const keys[] = {"", "A=B", "LD_PRELOAD", "LD_LIBRARY_PATH"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        spec.env = json_pack("{s:s}", keys[i], "x");
        CHECK(supervisor_deploy(s->gateway, &spec, &s->err) == STATUS_INVALID_ARGUMENT);
        json_release(spec.env);
    }
    spec.env = json_object();
    for (int i = 0; i <= FUNCTION_ENV_MAX; i++)
        (void)json_object_set_new(spec.env, arena_printf(&s->arena, "V%d", i).ptr, json_string("x"));
    CHECK(supervisor_deploy(s->gateway, &spec, &s->err) == STATUS_INVALID_ARGUMENT);
    (void)json_object_del(spec.env, "V0");
    CHECK_OK(s, supervisor_deploy(s->gateway, &spec, &s->err));
    json_release(spec.env);
}

Test(supervisor, variables_that_would_steer_the_loader_or_are_too_many_are_refused, .timeout = 30)
{
    play(NULL, bad_environment);
}

static void mute_programs(struct scene *s)
{
    scene_script(s, "mute", "exit 0");
    scene_script(s, "angry", "echo no >&2; exit 3");
    scene_script(s, "list", "echo '[1]'");
    scene_script(s, "slow", "echo $$ > $0.pid; exec sleep 1000");
    CHECK(deploy_named(s, "mute", "mute") == STATUS_FAILED_PRECONDITION);
    CHECK(deploy_named(s, "angry", "angry") == STATUS_FAILED_PRECONDITION);
    CHECK(strstr(s->err.message, "exit 3") != NULL && strstr(s->err.message, "(no)") != NULL);
    CHECK(deploy_named(s, "list", "list") == STATUS_FAILED_PRECONDITION);
    int64_t began_ns = clock_monotonic_ns();
    CHECK(deploy_named(s, "slow", "slow") == STATUS_DEADLINE_EXCEEDED);
    CHECK(clock_monotonic_ns() - began_ns < 9 * NS_PER_S);
    pid_t pid = read_pid(scene_path(s, "functions/slow.pid"));
    CHECK(pid > 0 && !is_alive(pid));
}

Test(supervisor, a_program_that_does_not_say_what_it_is_is_not_deployed, .timeout = 40)
{
    play(NULL, mute_programs);
}

/* ---- ends ---- */

static void crashes(struct scene *s)
{
    deploy_plain(s);
    pid_t first = function_pid(s, "plain");
    struct deployment *d = deployment_of(s, "plain");
    struct answer a = ask(s, "GET", "/function/plain/crash", NULL);
    CHECK(a.status == STATUS_OK && a.code == 502); /* it may have run: nobody is asked to repeat it */
    CHECK(answer_header(&a, "x-openfaas-internal").len == 0 && answer_header(&a, "retry-after").len == 0);
    CHECK(sv_contains(a.body, SV("may have run")) && !sv_contains(a.body, SV(".sock")));
    CHECK(await(is_at_zero, d)); /* until then its socket may take a connection that nobody will serve */
    CHECK(!is_alive(first));
    int64_t began_ns = clock_monotonic_ns();
    pid_t second = function_pid(s, "plain"); /* waits for the backoff, then is served */
    CHECK(second != first);
    CHECK(clock_monotonic_ns() - began_ns > 500 * NS_PER_MS);
    CHECK(d->failures == 0);
}

Test(supervisor, a_crash_costs_its_own_request_and_a_pause, .timeout = 30)
{
    play(NULL, crashes);
}

static void keeps_crashing(struct scene *s)
{
    scene_script(s, "dying", "test \"$1\" = --describe && echo '{}' && exit 0; echo last words; exit 5");
    CHECK_OK(s, deploy_named(s, "dying", "dying"));
    struct deployment *d = deployment_of(s, "dying");
    int64_t began_ns = clock_monotonic_ns();
    struct replica *r;
    while (clock_monotonic_ns() - began_ns <
           2500 * NS_PER_MS) { /* starts at 0, 1 and 3 s: whoever asks, and how often */
        if (supervisor_acquire(d, clock_monotonic_ns() + 100 * NS_PER_MS, &r, &s->err) == STATUS_OK) {
            (void)!fiber_event_wait(&r->exited, clock_monotonic_ns() + NS_PER_S);
            supervisor_release(r, false);
        }
        (void)!sleep_ms(5);
    }
    CHECK(d->failures == 2);
    CHECK(supervisor_acquire(d, clock_monotonic_ns() + 50 * NS_PER_MS, &r, &s->err) == STATUS_UNAVAILABLE);
    CHECK(strstr(s->err.message, "2 times in a row") != NULL && s->err.can_retry);
    struct function_log_line line;
    CHECK(function_log_get(d->log, 1, &line) && sv_eq(line.text, SV("last words")));
}

Test(supervisor, a_function_that_keeps_crashing_is_started_ever_later, .timeout = 30)
{
    play(NULL, keeps_crashing);
}

static void restarts_alone(struct scene *s)
{
    deploy_plain(s);
    struct deployment *d = deployment_of(s, "plain");
    CHECK_OK(s, supervisor_scale(d, 1, &s->err));
    pid_t first = function_pid(s, "plain");
    CHECK(kill(first, SIGKILL) == 0);
    CHECK(await(is_at_zero, d));
    CHECK(await(has_one, d)); /* nobody asked */
    CHECK(function_pid(s, "plain") != first);
}

Test(supervisor, a_replica_that_is_wanted_is_started_again, .timeout = 30)
{
    play(NULL, restarts_alone);
}

static void short_idle(struct scene *s)
{
    s->cfg.idle_ns = 300 * NS_PER_MS;
}

static void idles(struct scene *s)
{
    deploy_plain(s);
    pid_t first = function_pid(s, "plain");
    struct deployment *d = deployment_of(s, "plain");
    struct answer a =
        ask(s, "GET", "/function/plain/sleep?800", NULL); /* a request under way is no idleness */
    CHECK(a.code == 200 && function_pid(s, "plain") == first);
    CHECK(await(is_at_zero, d));
    CHECK(!is_alive(first) && d->failures == 0);
    CHECK(function_pid(s, "plain") != first);
}

Test(supervisor, an_idle_function_goes_to_zero_and_comes_back, .timeout = 30)
{
    play(short_idle, idles);
}

static void kept_warm(struct scene *s)
{
    struct deployment_spec spec = {.arena = &s->arena, .name = SV("plain"), .image = SV("plain")};
    spec.labels = json_pack("{s:s, s:s}", "com.openfaas.scale.min", "2", "com.openfaas.scale.max", "3");
    CHECK_OK(s, supervisor_deploy(s->gateway, &spec, &s->err));
    json_release(spec.labels);
    struct deployment *d = deployment_of(s, "plain");
    CHECK(d->n_routed == 2);
    CHECK_OK(s, supervisor_scale(d, 9, &s->err));
    CHECK(d->n_routed == 3);
    (void)!sleep_ms(1000);
    CHECK(d->n_routed == 2);
}

Test(supervisor, labels_bound_the_scale, .timeout = 30)
{
    play(short_idle, kept_warm);
}

static void deaf_at_first(struct scene *s)
{
    struct function_log_line line;
    scene_script(s, "deaf",
                 arena_printf(&s->arena,
                              "test \"$1\" = --describe && echo '{}' && exit 0; test -e $0.ok && exec %s; "
                              "touch $0.ok; exec 4<&-; echo closed; exec sleep 1000",
                              scene_path(s, "functions/plain"))
                     .ptr);
    CHECK_OK(s, deploy_named(s, "deaf", "deaf"));
    struct deployment *d = deployment_of(s, "deaf");
    CHECK_OK(s, supervisor_scale(d, 1, &s->err));
    while (!function_log_get(d->log, 1, &line))
        (void)!sleep_ms(2);
    CHECK(d->n_routed == 1 && d->failures == 0);
    struct answer a = ask(s, "GET", "/function/deaf/pid", NULL); /* waits for the next start */
    CHECK(a.status == STATUS_OK && a.code == 200);
    CHECK(await(has_one, d));
}

Test(supervisor, a_replica_that_listens_no_more_is_replaced, .timeout = 60)
{
    play(NULL, deaf_at_first);
}

/* ---- load ---- */

struct load {
    struct scene *s;
    const char *path;
    struct upstream *door;
    unsigned sent, failed;
    bool is_over;
    int first_bad;
};

static void load_fiber(void *arg)
{
    struct load *l = arg;
    while (!l->is_over) {
        struct arena a = {0};
        struct http_reply reply = {0};
        struct error err;
        struct forward_spec spec = {.method = SV("POST"),
                                    .target = sv(l->path),
                                    .authority = SV("x"),
                                    .body = SV("x"),
                                    .deadline_ns = clock_monotonic_ns() + 20 * NS_PER_S};
        enum status st = http_forward(l->s->door, &spec, &a, &reply, &err);
        l->sent++;
        if (st != STATUS_OK || reply.status != 200) {
            l->failed++;
            if (l->first_bad == 0) l->first_bad = st != STATUS_OK ? -(int)st : reply.status;
        }
        arena_release(&a);
    }
}

static void under_load(struct scene *s, const char *path, unsigned n, void (*meanwhile)(struct scene *s))
{
    struct load l = {.s = s, .path = path};
    struct fiber_scope scope;
    fiber_scope_init(&scope);
    for (unsigned i = 0; i < n; i++)
        CHECK_OK(s, fiber_scope_spawn(&scope, load_fiber, &l, &s->err));
    (void)!sleep_ms(100);
    meanwhile(s);
    (void)!sleep_ms(100);
    l.is_over = true;
    fiber_scope_join(&scope);
    if (l.failed > 0)
        (void)fprintf(stderr, "%u of %u failed, the first with %d\n", l.failed, l.sent, l.first_bad);
    CHECK(l.failed == 0 && l.sent > n);
}

static void replace_often(struct scene *s)
{
    for (int i = 0; i < 8; i++) {
        deploy_plain(s);
        (void)!sleep_ms(60);
    }
}

static void replaces(struct scene *s)
{
    deploy_plain(s);
    under_load(s, "/function/plain", 16, replace_often);
    CHECK(await(has_no_retired, s->gateway));
    CHECK(deployment_of(s, "plain")->invocations > 16);
}

Test(supervisor, replacing_a_function_under_load_fails_no_request, .timeout = 60)
{
    play(NULL, replaces);
}

static void scale_about(struct scene *s)
{
    static const unsigned steps[] = {3, 1, 4, 0, 2, 5, 1};
    struct deployment *d = deployment_of(s, "plain");
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        CHECK_OK(s, supervisor_scale(d, steps[i], &s->err));
        (void)!sleep_ms(50);
    }
}

static void scales(struct scene *s)
{
    deploy_plain(s);
    under_load(s, "/function/plain/sleep?5", 16, scale_about);
}

Test(supervisor, scaling_under_load_fails_no_request, .timeout = 60)
{
    play(NULL, scales);
}

static void nothing_meanwhile(struct scene *s)
{
    (void)!sleep_ms(300);
    CHECK(deployment_of(s, "plain")->n_routed == 3);
}

static void widens(struct scene *s)
{
    struct deployment_spec spec = {.arena = &s->arena, .name = SV("plain"), .image = SV("plain")};
    spec.labels = json_pack("{s:s, s:s}", "com.openfaas.scale.target", "4", "com.openfaas.scale.max", "3");
    CHECK_OK(s, supervisor_deploy(s->gateway, &spec, &s->err));
    json_release(spec.labels);
    under_load(s, "/function/plain/sleep?50", 16, nothing_meanwhile);
}

Test(supervisor, more_in_flight_than_the_target_starts_more_replicas, .timeout = 60)
{
    play(NULL, widens);
}

static void deploy_with(struct scene *s, const char *labels)
{
    struct deployment_spec spec = {.arena = &s->arena, .name = SV("plain"), .image = SV("plain")};
    spec.labels = json_loads(labels, 0, NULL);
    CHECK_OK(s, supervisor_deploy(s->gateway, &spec, &s->err));
    json_release(spec.labels);
}

static bool has_three(void *deployment)
{
    return ((struct deployment *)deployment)->n_routed == 3;
}

static uint64_t backlog; /* what a core function would say */

static struct core_backlog say_backlog(void *state, struct strview function)
{
    (void)state;
    return (struct core_backlog){.n = sv_eq(function, SV("plain")) ? backlog : 0};
}

static const struct core_function with_backlog = {.name = "dispatcher", .backlog = say_backlog};

static void with_core(struct scene *s)
{
    static const struct core_function *const core[] = {&with_backlog};
    static void *states[] = {&backlog};
    s->cfg.core = core;
    s->cfg.core_states = states;
    s->cfg.n_core = 1;
    s->cfg.idle_ns = 500 * NS_PER_MS;
}

static void follows_backlog(struct scene *s)
{
    deploy_with(s, "{\"com.openfaas.scale.max\":\"3\"}");
    struct deployment *d = deployment_of(s, "plain");
    backlog = 25;
    (void)!sleep_ms(600);
    CHECK(d->n_routed == 0); /* whoever takes it from the queue has it started */
    (void)function_pid(s, "plain");
    CHECK(await(has_three, d));
    (void)!sleep_ms(800);
    CHECK(d->n_routed == 3); /* no idleness while something waits */
    backlog = 0;
    CHECK(await(is_at_zero, d));
}

Test(supervisor, what_waits_in_the_queue_starts_more_replicas, .timeout = 60)
{
    play(with_core, follows_backlog);
}

static void rate_meanwhile(struct scene *s)
{
    CHECK(await(has_three, deployment_of(s, "plain")));
}

static void follows_rate(struct scene *s)
{
    deploy_with(s, "{\"com.openfaas.scale.max\":\"3\",\"com.openfaas.scale.type\":\"rps\","
                   "\"com.openfaas.scale.target\":\"20\"}");
    under_load(s, "/function/plain/sleep?5", 2,
               rate_meanwhile); /* two at a time, far more than 60 a second */
}

Test(supervisor, requests_a_second_start_more_replicas, .timeout = 60)
{
    play(NULL, follows_rate);
}

static void takes_turns(struct scene *s)
{
    deploy_plain(s);
    struct deployment *d = deployment_of(s, "plain");
    CHECK_OK(s, supervisor_scale(d, 3, &s->err));
    pid_t seen[6];
    for (size_t i = 0; i < 6; i++)
        seen[i] = function_pid(s, "plain");
    CHECK(seen[0] != seen[1] && seen[1] != seen[2] && seen[2] != seen[0]);
    CHECK(seen[3] == seen[0] && seen[4] == seen[1] && seen[5] == seen[2]);
}

Test(supervisor, replicas_that_are_equally_busy_take_turns, .timeout = 60)
{
    play(NULL, takes_turns);
}

static void zero_duration(struct scene *s)
{
    deploy_with(s, "{\"com.openfaas.scale.zero-duration\":\"300ms\",\"com.openfaas.scale.min\":\"3\","
                   "\"com.openfaas.scale.zero\":\"true\"}");
    struct deployment *d = deployment_of(s, "plain"); /* the platform's own time: never */
    (void)function_pid(s, "plain");
    CHECK(await(has_three, d));
    CHECK(await(is_at_zero, d));
}

Test(supervisor, a_label_says_after_what_time_it_goes_to_zero, .timeout = 60)
{
    play(NULL, zero_duration);
}

struct slow_call {
    struct scene *s;
    struct answer answer;
};

static void slow_fiber(void *arg)
{
    struct slow_call *c = arg;
    c->answer = ask(c->s, "POST", "/function/plain/sleep?700", "{\"slow\":1}");
}

static void removes(struct scene *s)
{
    deploy_plain(s);
    pid_t pid = function_pid(s, "plain");
    struct slow_call c = {.s = s};
    struct fiber_scope scope;
    fiber_scope_init(&scope);
    CHECK_OK(s, fiber_scope_spawn(&scope, slow_fiber, &c, &s->err));
    (void)!sleep_ms(100);
    CHECK_OK(s, supervisor_remove(s->gateway, SV("plain"), &s->err));
    CHECK(ask(s, "GET", "/function/plain", NULL).code == 404);
    CHECK(supervisor_remove(s->gateway, SV("plain"), &s->err) == STATUS_NOT_FOUND);
    deploy_plain(s); /* the name is free at once */
    CHECK(function_pid(s, "plain") != pid);
    fiber_scope_join(&scope);
    CHECK(c.answer.status == STATUS_OK && c.answer.code == 200 && sv_eq(c.answer.body, SV("{\"slow\":1}")));
    CHECK(await(is_gone, &pid));
    CHECK(await(has_no_retired, s->gateway));
}

Test(supervisor, a_removed_function_ends_the_calls_it_has, .timeout = 60)
{
    play(NULL, removes);
}

static void removed_while_waiting(struct scene *s)
{
    deploy_plain(s);
    (void)function_pid(s, "plain");
    CHECK(ask(s, "GET", "/function/plain/crash", NULL).code == 502);
    struct deployment *d = deployment_of(s, "plain");
    CHECK(await(is_at_zero, d));
    struct slow_call c = {.s = s};
    struct fiber_scope scope;
    fiber_scope_init(&scope);
    CHECK_OK(s, fiber_scope_spawn(&scope, slow_fiber, &c, &s->err));
    (void)!sleep_ms(50); /* it waits for the backoff */
    deploy_plain(s);
    fiber_scope_join(&scope);
    CHECK(c.answer.status == STATUS_OK && c.answer.code == 200); /* served by the successor */
}

Test(supervisor, a_request_that_waits_for_a_restart_is_served_by_the_replacement, .timeout = 60)
{
    play(NULL, removed_while_waiting);
}

/* ---- the end of all ---- */

static void stops_promptly(struct scene *s)
{
    deploy_plain(s);
    scene_script(
        s, "deaf",
        "test \"$1\" = --describe && echo '{}' && exit 0; trap '' TERM; while :; do sleep 0.1; done");
    CHECK_OK(s, deploy_named(s, "deaf", "deaf"));
    CHECK_OK(s, supervisor_scale(deployment_of(s, "plain"), 3, &s->err));
    pid_t pid = function_pid(s, "plain");
    int64_t began_ns = clock_monotonic_ns();
    scene_stop(s);
    CHECK(clock_monotonic_ns() - began_ns < 3 * NS_PER_S);
    CHECK(!is_alive(pid));
}

Test(supervisor, idle_functions_stop_at_once, .timeout = 60)
{
    play(NULL, stops_promptly);
}

static void stops_deaf(struct scene *s)
{
    scene_script(
        s, "deaf",
        "test \"$1\" = --describe && echo '{}' && exit 0; trap '' TERM; echo $$ > $0.pid; while :; do sleep 0.1; done");
    CHECK_OK(s, deploy_named(s, "deaf", "deaf"));
    CHECK_OK(s, supervisor_scale(deployment_of(s, "deaf"), 1, &s->err));
    (void)!sleep_ms(300);
    pid_t pid = read_pid(scene_path(s, "functions/deaf.pid"));
    CHECK(pid > 0 && is_alive(pid));
    scene_stop(s);
    CHECK(!is_alive(pid));
}

Test(supervisor, a_function_that_ignores_sigterm_is_killed_after_the_grace, .timeout = 60)
{
    play(NULL, stops_deaf);
}

static void stops_with_calls(struct scene *s)
{
    deploy_plain(s);
    (void)function_pid(s, "plain");
    struct slow_call c = {.s = s};
    struct fiber_scope scope;
    fiber_scope_init(&scope);
    CHECK_OK(s, fiber_scope_spawn(&scope, slow_fiber, &c, &s->err));
    (void)!sleep_ms(100);
    gateway_drain(s->gateway, clock_monotonic_ns() + 10 * NS_PER_S);
    fiber_scope_join(&scope);
    CHECK(c.answer.status == STATUS_OK && c.answer.code == 200);
}

Test(supervisor, a_drain_lets_calls_under_way_end, .timeout = 60)
{
    play(NULL, stops_with_calls);
}

static void refuse_start(struct scene *s)
{
    s->cfg.shim_path = "/nonexistent/shim";
    CHECK(scene_start(s) == STATUS_NOT_FOUND && strstr(s->err.message, "/nonexistent/shim") != NULL);
    s->cfg.shim_path = shim_path(&s->arena);
    s->cfg.broker_file = scene_write(s, "acts.yaml", "services: 1\n", 0600);
    CHECK(scene_start(s) == STATUS_INVALID_ARGUMENT);
    s->cfg.broker_file = NULL;
    s->cfg.stack_file = scene_path(s, "no-such.yml");
    CHECK(scene_start(s) == STATUS_NOT_FOUND);
    s->cfg.stack_file = scene_write(
        s, "stack.yml",
        "version: 1.0\nfunctions:\n  plain:\n    image: plain\n    labels: {com.openfaas.scale.min: 2}\n"
        "  bad:\n    image: nothing\n",
        0644);
    CHECK(scene_start(s) == STATUS_INVALID_ARGUMENT);
    CHECK(strstr(s->err.message, "stack.yml:7:5: image 'nothing'") != NULL);
    s->cfg.stack_file = NULL;
    CHECK_OK(s, scene_start(s));
}

Test(gateway, a_start_that_fails_half_way_leaves_nothing_behind, .timeout = 60)
{
    play_without_gateway(refuse_start);
}

static void leftovers(struct scene *s)
{
    CHECK_OK(s, scene_start(s));
    scene_stop(s);
    (void)scene_write(s, "data/run/plain-7.sock", "", 0600);
    CHECK_OK(s, dir_make(scene_path(s, "data/run/secrets/plain-1"), 0700, &s->err));
    (void)scene_write(s, "data/run/secrets/plain-1/key", "secret", 0400);
    CHECK_OK(s, scene_start(s));
    CHECK(!scene_has(s, "data/run/plain-7.sock") && !scene_has(s, "data/run/secrets/plain-1"));
}

Test(gateway, what_a_killed_platform_left_in_run_is_removed, .timeout = 60)
{
    play_without_gateway(leftovers);
}
