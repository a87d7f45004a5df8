/* stack.yml as people and their mistakes write it, at the start and at a reload. */
#include "scene.h"

#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

static const struct reload_cause by_test = {.actor = {"test", 4}};

static const char two[] =
    "version: 1.0\nprovider:\n  name: openfaas\n  gateway: http://127.0.0.1:8080\nfunctions:\n"
    "  plain:\n    lang: c-balm\n    handler: ./functions/plain\n    image: plain:latest\n"
    "    environment:\n      COLOUR: red\n      NUMBER: 7\n      YES: true\n"
    "  other:\n    image: team/plain:2\n    skip_build: true\n    labels:\n      a: b\n";

static void with_two(struct scene *s)
{
    s->cfg.stack_file = scene_write(s, "stack.yml", two, 0644);
}

static void set(struct scene *s, const char *text)
{
    (void)scene_write(s, "stack.yml", text, 0644);
}

static struct strview pid_of(struct scene *s, const char *name)
{
    struct answer a = ask(s, "GET", arena_printf(&s->arena, "/function/%s/pid", name).ptr, NULL);
    CHECK(a.status == STATUS_OK && a.code == 200);
    return a.body;
}

static void deployed(struct scene *s)
{
    struct deployment *d = deployment_of(s, "plain");
    CHECK(d != NULL && deployment_of(s, "other") != NULL && s->gateway->n_deployments == 2);
    CHECK(sv_eq(json_get_text(d->spec.env, "NUMBER"), SV("7")) &&
          sv_eq(json_get_text(d->spec.env, "YES"), SV("true")));
    CHECK(d->is_from_stack);
    CHECK(sv_eq(json_get_text(deployment_of(s, "other")->spec.labels, "a"), SV("b")));
    CHECK(pid_of(s, "plain").len > 0 && pid_of(s, "other").len > 0);
}

Test(stack, functions_are_deployed_and_scalars_become_text, .timeout = 30)
{
    play(with_two, deployed);
}

static void limited(struct scene *s)
{
    CHECK(deployment_of(s, "plain")->spec.memory_bytes == (MEMORY_LIMIT > 0 ? 512 << 20 : 0));
}

static void with_limits(struct scene *s)
{
    s->cfg.stack_file = scene_write(s, "stack.yml",
                                    "functions:\n  plain: {image: plain, limits: {memory: " MEMORY_TEXT
                                    ", cpu: 100m}, requests: {memory: 1Mi}}\n",
                                    0644);
}

Test(stack, limits_are_quantities_as_openfaas_has_them, .timeout = 30)
{
    play(with_limits, limited);
}

static void reload_same(struct scene *s)
{
    struct strview before = pid_of(s, "plain");
    CHECK_OK(s, gateway_reload(s->gateway, &by_test, &s->err));
    CHECK(sv_eq(pid_of(s, "plain"), before));
    set(s,
        "functions:\n  other: {image: \"team/plain:2\", labels: {a: b}}\n" /* order and layout are nothing */
        "  plain:\n    image: plain:latest\n    environment: {YES: 'true', NUMBER: '7', COLOUR: \"red\"}\n");
    CHECK_OK(s, gateway_reload(s->gateway, &by_test, &s->err));
    CHECK(sv_eq(pid_of(s, "plain"), before));
}

Test(stack, a_reload_leaves_unchanged_functions_alone, .timeout = 30)
{
    play(with_two, reload_same);
}

static void reload_changed(struct scene *s)
{
    struct strview plain = pid_of(s, "plain"), other = pid_of(s, "other");
    set(s, "functions:\n  plain:\n    image: plain:latest\n    environment: {COLOUR: blue}\n"
           "  other:\n    image: team/plain:2\n    labels: {a: b}\n");
    CHECK_OK(s, gateway_reload(s->gateway, &by_test, &s->err));
    CHECK(!sv_eq(pid_of(s, "plain"), plain));
    CHECK(sv_eq(pid_of(s, "other"), other));
}

Test(stack, a_reload_replaces_what_has_changed, .timeout = 30)
{
    play(with_two, reload_changed);
}

static void reload_rebuilt(struct scene *s)
{
    struct strview plain = pid_of(s, "plain");
    const char *path = scene_path(s, "functions/plain"), *next = scene_path(s, "functions/next");
    CHECK(rename(path, next) == 0 &&
          rename(next, path) == 0); /* as a linker does: same content, changed anew */
    CHECK_OK(s, gateway_reload(s->gateway, &by_test, &s->err));
    CHECK(!sv_eq(pid_of(s, "plain"), plain));
}

Test(stack, a_reload_replaces_an_executable_that_was_built_anew, .timeout = 30)
{
    play(with_two, reload_rebuilt);
}

static void reload_vanished(struct scene *s)
{
    struct deployment_spec spec = {.arena = &s->arena, .name = SV("by-hand"), .image = SV("plain")};
    CHECK_OK(s, supervisor_deploy(s->gateway, &spec, &s->err));
    set(s, "functions:\n  plain:\n    image: plain:latest\n");
    CHECK_OK(s, gateway_reload(s->gateway, &by_test, &s->err));
    CHECK(deployment_of(s, "plain") != NULL && deployment_of(s, "other") == NULL &&
          deployment_of(s, "by-hand") != NULL);
    set(s, "functions: {}\n");
    CHECK_OK(s, gateway_reload(s->gateway, &by_test, &s->err));
    CHECK(deployment_of(s, "plain") == NULL && deployment_of(s, "by-hand") != NULL);
}

Test(stack, a_reload_removes_what_vanished_from_the_file_and_nothing_else, .timeout = 30)
{
    play(with_two, reload_vanished);
}

static void reload_bad(struct scene *s)
{
    struct strview plain = pid_of(s, "plain");
    set(s,
        "functions:\n  plain:\n    image: plain\n    environment: {COLOUR: blue}\n  third:\n    image: nothing\n");
    CHECK(gateway_reload(s->gateway, &by_test, &s->err) == STATUS_INVALID_ARGUMENT);
    CHECK(strstr(s->err.message, "stack.yml:6:5: image 'nothing': no executable") != NULL);
    CHECK(sv_eq(pid_of(s, "plain"), plain) && deployment_of(s, "other") != NULL &&
          deployment_of(s, "third") == NULL);
    CHECK(unlink(scene_path(s, "stack.yml")) == 0);
    CHECK(gateway_reload(s->gateway, &by_test, &s->err) == STATUS_NOT_FOUND);
    CHECK(sv_eq(pid_of(s, "plain"), plain));
    set(s, two);
    CHECK_OK(s, gateway_reload(s->gateway, &by_test, &s->err));
}

Test(stack, a_bad_reload_keeps_everything, .timeout = 30)
{
    play(with_two, reload_bad);
}

static void prepared_only(struct scene *s)
{
    struct strview plain = pid_of(s, "plain");
    struct stack_plan *plan;
    set(s, "functions:\n  plain: {image: plain, environment: {COLOUR: blue}}\n  third: {image: plain}\n");
    CHECK_OK(s, stack_prepare(s->gateway, s->cfg.stack_file, &plan, &s->err));
    CHECK(stack_find(plan, SV("other")) == NULL && stack_find(plan, SV("third.openfaas-fn")) != NULL);
    CHECK(stack_find(plan, SV("plain")) != deployment_of(s, "plain"));
    CHECK(deployment_of(s, "other") != NULL && deployment_of(s, "third") == NULL);
    stack_discard(plan);
    CHECK(sv_eq(pid_of(s, "plain"), plain) && s->gateway->n_deployments == 2);
    CHECK_OK(s, stack_prepare(s->gateway, NULL, &plan, &s->err)); /* no file: all stays */
    CHECK(stack_find(plan, SV("other")) == deployment_of(s, "other"));
    stack_commit(plan);
    CHECK(sv_eq(pid_of(s, "plain"), plain) && s->gateway->n_deployments == 2);
}

Test(stack, what_is_prepared_can_be_asked_for_and_changes_nothing, .timeout = 30)
{
    play(with_two, prepared_only);
}

static void reload_fiber(void *arg)
{
    struct scene *s = arg;
    struct error err;
    CHECK(gateway_reload(s->gateway, &by_test, &err) == STATUS_OK);
}

static void reload_at_once(struct scene *s)
{
    struct fiber_scope scope;
    fiber_scope_init(&scope);
    set(s, "functions:\n  plain: {image: plain, environment: {A: b}}\n  third: {image: plain}\n");
    for (int i = 0; i < 4; i++)
        CHECK_OK(s, fiber_scope_spawn(&scope, reload_fiber, s, &s->err));
    fiber_scope_join(&scope);
    CHECK(s->gateway->n_deployments == 2 && deployment_of(s, "third") != NULL);
}

Test(stack, reloads_at_the_same_time_take_their_turn, .timeout = 30)
{
    play(with_two, reload_at_once);
}

static void refused(struct scene *s)
{
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"", "stack.yml"},
        {"functions", "stack.yml:1:1"},
        {"functions: [a]\n", "functions must be a map"},
        {"version: 1.0\n", "functions"},
        {"functions:\n  plain: plain\n", "stack.yml:2"},
        {"functions:\n  plain:\n    image: [a]\n", "stack.yml:3"},
        {"functions:\n  plain: {}\n", "image"},
        {"functions:\n  plain: {image: ''}\n", "names no executable"},
        {"functions:\n  plain: {image: ../plain/..}\n", "leads out of the functions folder"},
        {"functions:\n  Plain: {image: plain}\n", "lower-case"},
        {"functions:\n  '../x': {image: plain}\n", "lower-case"},
        {"functions:\n  plain: {image: plain, secrets: [../basic-auth-password]}\n", "no secret's name"},
        {"functions:\n  plain: {image: plain, secrets: [\"a\\0b\"]}\n", "NUL"},
        {"functions:\n  plain: {image: plain, secrets: [balm-invocation-key]}\n", "the platform's own"},
        {"functions:\n  plain: {image: plain, environment: [a]}\n", "environment must be a map"},
        {"functions:\n  plain: {image: plain, environment: {a: [b]}}\n", "must be a single value"},
        {"functions:\n  plain: {image: plain, environment: {LD_PRELOAD: /x.so}}\n", "cannot be set"},
        {"functions:\n  plain: {image: plain, environment: {A: \"x\\0y\"}}\n", "NUL"},
        {"functions:\n  plain: {image: plain, environment_file: [env.yml]}\n", "environment_file"},
        {"functions:\n  plain: {image: plain, namespace: elsewhere}\n", "namespace 'elsewhere'"},
        {"functions:\n  plain: {image: plain, limits: {memory: lots}}\n", "memory 'lots'"},
        {"functions:\n  plain: {image: plain, limits: {memory: 1.5Gi}}\n", "stack.yml:2"},
        {"functions:\n  plain: {image: plain, imagine: b}\n", "imagine"},
        {"functions:\n  plain: {image: plain}\n  plain: {image: plain}\n", "stack.yml:3"},
        {"provider: {name: docker}\nfunctions: {}\n", "name must be openfaas"},
        {"functions: &a\n  plain: {image: plain}\nx: *a\n", "stack.yml:1"},
        {"functions: {}\n---\nfunctions: {}\n", "stack.yml"},
        {"functions:\n  plain: {image: \"\xff\"}\n", "stack.yml"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        set(s, bad[i].text);
        struct stack_plan *plan;
        enum status st = stack_prepare(s->gateway, s->cfg.stack_file, &plan, &s->err);
        if (st == STATUS_OK || strstr(s->err.message, bad[i].says) == NULL)
            (void)fprintf(stderr, "%zu: %s\n  says %s, not %s\n", i, bad[i].text,
                          st == STATUS_OK ? "yes" : s->err.message, bad[i].says);
        CHECK(st != STATUS_OK && strstr(s->err.message, bad[i].says) != NULL);
    }
    CHECK(s->gateway->n_deployments == 2);
}

Test(stack, what_is_wrong_is_refused_with_its_place, .timeout = 30)
{
    play(with_two, refused);
}

static void too_many(struct scene *s)
{
    struct stack_plan *plan;
    struct buf text;
    buf_init(&text, 1024 * 1024);
    buf_printf(&text, "functions:\n");
    for (int i = 0; i <= DEPLOYMENTS_MAX; i++)
        buf_printf(&text, "  f%d: {image: plain}\n", i);
    set(s, arena_copy(&s->arena, buf_view(&text)).ptr);
    buf_release(&text);
    CHECK(stack_prepare(s->gateway, s->cfg.stack_file, &plan, &s->err) == STATUS_INVALID_ARGUMENT);
    CHECK(strstr(s->err.message, "1001 functions, at most 1000") != NULL);
}

Test(stack, a_thousand_functions_are_the_limit, .timeout = 30)
{
    play(with_two, too_many);
}
