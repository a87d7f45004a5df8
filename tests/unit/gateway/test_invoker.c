/* Signed invocations of a real bot, and balm stop. */
#include "scene.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/random.h"

static struct invocation make_invocation(struct scene *s, int64_t life_ns)
{
    char uuid[UUID_LEN + 1];
    random_uuid(uuid);
    return (struct invocation){.function = SV("bot"),
                               .arena = &s->arena,
                               .intent = arena_copy(&s->arena, sv(uuid)),
                               .incident = SV("inc-1"),
                               .target = SV("host/web"),
                               .epoch = 1,
                               .attempt = 1,
                               .intent_unix_ns = clock_unix_ns(),
                               .deadline_unix_ns = clock_unix_ns() + life_ns};
}

struct act {
    struct scene *s;
    struct strview params;
    int64_t life_ns;
    enum status status;
    struct invocation_reply reply;
    struct error err;
    bool is_over;
};

static void act_fiber(void *arg)
{
    struct act *a = arg;
    struct invocation inv = make_invocation(a->s, a->life_ns > 0 ? a->life_ns : 20 * NS_PER_S);
    a->status = gateway_invoker.invoke(a->s->gateway, &inv, a->params, &a->s->arena, &a->reply, &a->err);
    a->is_over = true;
}

static void act(struct scene *s, struct act *a, const char *params)
{
    *a = (struct act){.s = s, .params = sv(params)};
    act_fiber(a);
}

static void with_bot(struct scene *s)
{
    s->cfg.stack_file =
        scene_write(s, "stack.yml", "functions:\n  bot: {image: bot}\n  plain: {image: plain}\n", 0644);
    scene_script(s, "restart", "d=${0%/functions/*}; setsid sleep 1000 >/dev/null 2>&1 & echo $! > $d/pid");
    s->cfg.broker_file = scene_write(
        s, "acts.yaml",
        arena_printf(
            &s->arena,
            "services:\n  web: {functions: [bot], restart: [%s/functions/restart], pid_file: %s/pid}\n",
            s->folder, s->folder)
            .ptr,
        0600);
}

/* Files of /proc have no size, so they are read by hand. */
static bool read_proc(struct scene *s, pid_t pid, struct strview *ret_text)
{
    char *text = arena_alloc(&s->arena, 8192);
    int fd = open(arena_printf(&s->arena, "/proc/%d/status", (int)pid).ptr, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, 8192) : -1;
    if (fd >= 0) (void)close(fd);
    *ret_text = sv_n(text, n > 0 ? (size_t)n : 0);
    return n > 0;
}

static void invokes(struct scene *s)
{
    struct act a;
    act(s, &a, "{\"do\":\"sleep\",\"ms\":20}");
    CHECK(a.status == STATUS_OK && sv_eq(a.reply.state, SV("done")) &&
          a.reply.left_unix_ns >= a.reply.entered_unix_ns);
    act(s, &a, "{\"do\":\"service-restart\",\"subject\":\"web\"}");
    CHECK(a.status == STATUS_OK && sv_eq(a.reply.state, SV("done")));
    pid_t pid = read_pid(scene_path(s, "pid"));
    CHECK(pid > 0 && is_alive(pid));
    /* Outside of the bot's confinement: no_new_privs is not inherited, and the service outlives the bot. */
    struct strview text;
    CHECK(read_proc(s, pid, &text) && sv_contains(text, SV("NoNewPrivs:\t0")));
    act(s, &a, "{\"do\":\"service-restart\",\"subject\":\"db\"}");
    CHECK(a.status == STATUS_OK && sv_eq(a.reply.state, SV("failed")) &&
          sv_eq(a.reply.code, SV("PERMISSION_DENIED")));
    CHECK_OK(s, supervisor_remove(s->gateway, SV("bot"), &s->err));
    (void)!sleep_ms(300);
    CHECK(is_alive(pid));
    CHECK(kill(pid, SIGKILL) == 0);
    act(s, &a, "{}");
    CHECK(a.status == STATUS_NOT_FOUND);
}

Test(invoker, a_bot_acts_by_a_signed_invocation_and_through_the_broker, .timeout = 60)
{
    play(with_bot, invokes);
}

static bool is_at_zero(void *deployment)
{
    return list_is_empty(&((struct deployment *)deployment)->replicas);
}

static void loses(struct scene *s)
{
    struct act a;
    act(s, &a,
        "{\"do\":\"crash\"}"); /* the first call of a process, cut while it ran: not to be repeated blindly */
    CHECK(a.status == STATUS_UNKNOWN && !a.err.can_retry);
    struct deployment *d = deployment_of(s, "bot");
    CHECK(await(is_at_zero, d));
    act(s, &a, "{\"do\":\"sleep\",\"ms\":1}");
    CHECK(a.status == STATUS_OK);
    act(s, &a, "{\"do\":\"crash\"}");
    CHECK(a.status == STATUS_UNKNOWN && !a.err.can_retry);
    CHECK(d->acting_inflight == 0 && d->inflight == 0);
}

Test(invoker, an_answer_that_is_lost_is_unknown, .timeout = 60)
{
    play(with_bot, loses);
}

static void not_started(struct scene *s)
{
    struct act a = {.s = s, .params = SV("{}"), .life_ns = 200 * NS_PER_MS};
    struct deployment *d = deployment_of(s, "bot");
    deployment_note_failure(d); /* in backoff for longer than this invocation lives: it was not sent */
    act_fiber(&a);
    CHECK(a.status == STATUS_UNAVAILABLE && a.err.can_retry);
    CHECK(d->invocations == 0);
}

static void cannot_start(struct scene *s)
{
    struct strview missing = SV("missing");
    struct deployment_spec spec = {
        .arena = &s->arena, .name = SV("bot"), .image = SV("bot"), .secrets = &missing, .n_secrets = 1};
    struct act a;
    CHECK_OK(s, supervisor_deploy(s->gateway, &spec, &s->err));
    act(s, &a, "{}");
    CHECK(a.status == STATUS_UNAVAILABLE && a.err.code == STATUS_UNAVAILABLE && a.err.can_retry);
    CHECK(strstr(a.err.message, s->folder) == NULL);
}

Test(invoker, a_bot_that_cannot_be_started_was_not_reached, .timeout = 60)
{
    play(with_bot, cannot_start);
}

Test(invoker, what_was_not_sent_can_be_tried_again, .timeout = 60)
{
    play(with_bot, not_started);
}

static void plain_calls(struct scene *s)
{
    struct http_req req = {
        .method = SV("POST"), .target = SV("/target?x"), .path = SV("/target"), .arena = &s->arena};
    struct http_reply reply;
    CHECK_OK(s, gateway_invoker.call(s->gateway, SV("plain"), &req, clock_monotonic_ns() + 5 * NS_PER_S,
                                     &s->arena, &reply, &s->err));
    CHECK(reply.status == 200 && sv_eq(reply.body, SV("/target?x")));
    CHECK(gateway_invoker.call(s->gateway, SV("bot"), &req, clock_monotonic_ns() + NS_PER_S, &s->arena,
                               &reply, &s->err) == STATUS_PERMISSION_DENIED);
    CHECK(gateway_invoker.call(s->gateway, SV("none"), &req, clock_monotonic_ns() + NS_PER_S, &s->arena,
                               &reply, &s->err) == STATUS_NOT_FOUND);
    struct function_info info;
    CHECK_OK(s, gateway_invoker.info(s->gateway, SV("bot"), &info, &s->err));
    CHECK(info.acts && info.on_unknown == ON_UNKNOWN_RERUN && info.timeout_ns == 20 * NS_PER_S);
}

Test(invoker, plain_functions_are_called_and_bots_are_not, .timeout = 60)
{
    play(with_bot, plain_calls);
}

/* ---- hanging ---- */

static struct replica *first_replica(struct scene *s, const char *name)
{
    struct deployment *d = deployment_of(s, name);
    CHECK(!list_is_empty(&d->replicas));
    return container_of(d->replicas.next, struct replica, node);
}

/* The function itself: its shim's only child. */
static pid_t stop_function(struct scene *s, const struct replica *r)
{
    pid_t shim = process_pid(r->process);
    pid_t pid = read_pid(arena_printf(&s->arena, "/proc/%d/task/%d/children", (int)shim, (int)shim).ptr);
    CHECK(pid > 0 && kill(pid, SIGSTOP) == 0);
    return pid;
}

static void bot_hangs(struct scene *s)
{
    struct act a;
    act(s, &a, "{\"do\":\"sleep\",\"ms\":1}");
    CHECK(a.status == STATUS_OK);
    pid_t hung = stop_function(s, first_replica(s, "bot"));
    a = (struct act){.s = s, .params = SV("{\"do\":\"sleep\",\"ms\":1}"), .life_ns = 300 * NS_PER_MS};
    act_fiber(&a);
    CHECK(a.status == STATUS_DEADLINE_EXCEEDED);
    CHECK(!is_alive(hung)); /* before the same act is begun again */
    int64_t began_ns = clock_monotonic_ns();
    act(s, &a, "{\"do\":\"sleep\",\"ms\":1}");
    CHECK(a.status == STATUS_OK && sv_eq(a.reply.state, SV("done")));
    CHECK(clock_monotonic_ns() - began_ns < 5 * NS_PER_S);
    CHECK(deployment_of(s, "bot")->acting_inflight == 0 && deployment_of(s, "bot")->inflight == 0);
}

Test(invoker, a_bot_that_hangs_is_killed_and_the_next_attempt_gets_a_new_one, .timeout = 60)
{
    play(with_bot, bot_hangs);
}

static enum status call_plain(struct scene *s, const char *target, int64_t life_ns, struct strview *ret_body)
{
    struct http_req req = {.method = SV("GET"), .target = sv(target), .path = sv(target), .arena = &s->arena};
    struct http_reply reply;
    enum status status = gateway_invoker.call(s->gateway, SV("plain"), &req, clock_monotonic_ns() + life_ns,
                                              &s->arena, &reply, &s->err);
    if (status == STATUS_OK) *ret_body = reply.body;
    return status;
}

static enum status post_plain(struct scene *s, const char *target, struct strview *ret_body)
{
    struct http_req req = {
        .method = SV("POST"), .target = sv(target), .path = sv(target), .body = SV("x"), .arena = &s->arena};
    struct http_reply reply;
    enum status status = gateway_invoker.call(
        s->gateway, SV("plain"), &req, clock_monotonic_ns() + 20 * NS_PER_S, &s->arena, &reply, &s->err);
    if (status == STATUS_OK) *ret_body = reply.body;
    return status;
}

/* Both ways in, with connections in the pool: a process that dies is closed down step by step, so more than
 * once. */
static void dies_in_calls(struct scene *s)
{
    struct strview body;
    struct deployment *d = deployment_of(s, "plain");
    for (int i = 0; i < 4; i++) {
        d->not_before_ns = 0; /* without the pause after a crash */
        CHECK_OK(s, post_plain(s, "/pid", &body));
        CHECK_OK(s, post_plain(s, "/pid", &body));
        uint64_t before = d->invocations;
        if (i % 2 == 0) {
            CHECK(post_plain(s, "/crash", &body) == STATUS_UNKNOWN && !s->err.can_retry);
        } else {
            struct answer a = ask(s, "POST", "/function/plain/crash", "x");
            CHECK(a.status == STATUS_OK && a.code == 502 && sv_contains(a.body, SV("it may have run")));
        }
        CHECK(d->invocations == before + 1);
        CHECK(await(is_at_zero, d));
    }
}

Test(invoker, what_a_dying_function_had_begun_is_not_begun_by_another, .timeout = 60)
{
    play(with_bot, dies_in_calls);
}

static void call_not_started(struct scene *s)
{
    struct strview body;
    struct deployment *d = deployment_of(s, "plain");
    d->not_before_ns = clock_monotonic_ns() + 3600 * NS_PER_S;
    CHECK(post_plain(s, "/pid", &body) == STATUS_UNAVAILABLE && s->err.can_retry);
    d->not_before_ns = 0;
    CHECK_OK(s, post_plain(s, "/pid", &body));
}

Test(invoker, a_call_of_a_function_that_does_not_start_can_be_tried_again, .timeout = 60)
{
    play(with_bot, call_not_started);
}

static void is_only_slow(struct scene *s)
{
    struct strview before, after, ignored;
    CHECK_OK(s, call_plain(s, "/pid", 5 * NS_PER_S, &before));
    CHECK(call_plain(s, "/sleep?3000", 300 * NS_PER_MS, &ignored) == STATUS_DEADLINE_EXCEEDED);
    CHECK_OK(s, call_plain(s, "/pid", 5 * NS_PER_S, &after));
    CHECK(sv_eq(before, after));
}

Test(invoker, a_function_that_is_slow_and_healthy_is_left_alone, .timeout = 60)
{
    play(with_bot, is_only_slow);
}

static void plain_hangs(struct scene *s)
{
    struct deployment_spec spec = {.arena = &s->arena, .name = SV("plain"), .image = SV("plain")};
    spec.env = json_pack("{s:s}", "exec_timeout", "500ms");
    CHECK_OK(s, supervisor_deploy(s->gateway, &spec, &s->err));
    json_release(spec.env);
    CHECK(deployment_of(s, "plain")->info.timeout_ns == 500 * NS_PER_MS);
    CHECK(ask(s, "GET", "/function/plain/pid", NULL).code == 200);
    pid_t hung = stop_function(s, first_replica(s, "plain"));
    int64_t began_ns = clock_monotonic_ns();
    struct answer a = ask(s, "GET", "/function/plain/pid", NULL);
    CHECK(a.status == STATUS_OK && a.code == 504 && sv_contains(a.body, SV("did not answer in time")));
    CHECK(clock_monotonic_ns() - began_ns < 12 * NS_PER_S); /* its limit and 5 s, then the question */
    CHECK(!is_alive(hung));
    CHECK(ask(s, "GET", "/function/plain/pid", NULL).code == 200);
}

Test(invoker, a_plain_call_lasts_as_long_as_the_function_may_and_a_hung_one_is_replaced, .timeout = 60)
{
    play(with_bot, plain_hangs);
}

/* ---- balm stop ---- */

static void freezes_idle(struct scene *s)
{
    struct act a;
    CHECK_OK(s, gateway_invoker.freeze(s->gateway, true, &s->err));
    act(s, &a, "{\"do\":\"sleep\",\"ms\":1}");
    CHECK(a.status == STATUS_CANCELLED);
    CHECK_OK(s, gateway_invoker.freeze(s->gateway, false, &s->err));
    act(s, &a, "{\"do\":\"sleep\",\"ms\":1}");
    CHECK(a.status == STATUS_OK && sv_eq(a.reply.state, SV("done")));
    pid_t pid =
        process_pid(container_of(deployment_of(s, "bot")->replicas.next, struct replica, node)->process);
    int64_t began_ns = clock_monotonic_ns();
    CHECK_OK(s, gateway_invoker.freeze(s->gateway, true, &s->err));
    CHECK(clock_monotonic_ns() - began_ns < NS_PER_S);
    CHECK(is_alive(pid)); /* a bot that says that it has stopped is not killed */
    CHECK(ask(s, "POST", "/function/plain", "{}").code == 200);
    CHECK_OK(s, gateway_invoker.freeze(s->gateway, false, &s->err));
    act(s, &a, "{\"do\":\"sleep\",\"ms\":1}");
    CHECK(a.status == STATUS_OK && sv_eq(a.reply.state, SV("done")) && is_alive(pid));
}

Test(invoker, balm_stop_and_resume_of_idle_bots, .timeout = 60)
{
    play(with_bot, freezes_idle);
}

static void freezes_act(struct scene *s)
{
    struct act a = {.s = s, .params = SV("{\"do\":\"sleep\",\"ms\":5000}")};
    struct fiber_scope scope;
    fiber_scope_init(&scope);
    CHECK_OK(s, fiber_scope_spawn(&scope, act_fiber, &a, &s->err));
    (void)!sleep_ms(300);
    int64_t began_ns = clock_monotonic_ns();
    CHECK_OK(s, gateway_invoker.freeze(s->gateway, true, &s->err));
    CHECK(clock_monotonic_ns() - began_ns < 2 * NS_PER_S);
    CHECK(a.is_over && a.status == STATUS_OK && sv_eq(a.reply.state, SV("failed")) &&
          sv_eq(a.reply.code, SV("CANCELLED")));
    fiber_scope_join(&scope);
}

Test(invoker, an_act_under_way_notices_balm_stop, .timeout = 60)
{
    play(with_bot, freezes_act);
}

static void freezes_stubborn(struct scene *s)
{
    struct act a = {.s = s, .params = SV("{\"do\":\"sleep\",\"ms\":18000,\"stubborn\":true}")};
    struct fiber_scope scope;
    fiber_scope_init(&scope);
    CHECK_OK(s, fiber_scope_spawn(&scope, act_fiber, &a, &s->err));
    (void)!sleep_ms(300);
    CHECK_OK(s, supervisor_deploy(
                    s->gateway,
                    &(struct deployment_spec){.arena = &s->arena, .name = SV("bot"), .image = SV("bot")},
                    &s->err));
    struct deployment *old =
        container_of(s->gateway->retired.next, struct deployment, node); /* replaced, and still acting */
    CHECK(!list_is_empty(&s->gateway->retired) && old->acting_inflight == 1);
    struct replica *r = container_of(old->replicas.next, struct replica, node);
    replica_hold(r);
    CHECK_OK(s, gateway_invoker.freeze(s->gateway, true, &s->err));
    CHECK(r->has_exited &&
          r->exit_code == 128 + SIGKILL); /* the shim's code for "all killed": not the shim itself was */
    replica_unhold(r);
    fiber_scope_join(&scope);
    CHECK(a.is_over && a.status == STATUS_UNKNOWN);
}

Test(invoker, a_bot_that_does_not_notice_is_killed_whole_even_if_it_was_replaced, .timeout = 60)
{
    play(with_bot, freezes_stubborn);
}

static void starts_frozen(struct scene *s)
{
    CHECK_OK(s, gateway_invoker.freeze(s->gateway, true, &s->err));
    struct deployment *d = deployment_of(s, "bot");
    CHECK_OK(s, supervisor_scale(d, 1, &s->err));
    struct replica *r = container_of(d->replicas.next, struct replica, node);
    struct http_reply reply;
    struct forward_spec spec = {.method = SV("GET"),
                                .target = SV("/_/health"),
                                .authority = SV("x"),
                                .deadline_ns = clock_monotonic_ns() + 5 * NS_PER_S};
    replica_hold(r);
    CHECK_OK(s, http_forward(r->upstream, &spec, &s->arena, &reply, &s->err));
    CHECK(sv_eq(http_header_get(reply.headers, reply.n_headers, SV("x-balm-frozen")), SV("0")));
    replica_unhold(r);
}

Test(invoker, a_bot_that_starts_while_stopped_is_stopped, .timeout = 60)
{
    play(with_bot, starts_frozen);
}
