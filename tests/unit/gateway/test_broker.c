/* The broker against a scripted bot's end of the pair, with a real daemon that writes a pid file. */
#include "scene.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "gateway/broker_list.h"
#include "gateway/broker_service.h"

/* ---- the allow list ---- */

static enum status read_list(struct scene *s, const char *text, unsigned mode, struct broker_list *ret_list)
{
    return broker_list_read(scene_write(s, "acts.yaml", text, mode), ret_list, &s->err);
}

static const char good[] =
    "services:\n"
    "  nginx:\n    functions: [service-restart, other]\n    unit: nginx.service\n"
    "    restart: [/usr/sbin/nginx, -c, /etc/nginx.conf]\n    pid_file: /run/nginx.pid\n"
    "  db@1.service:\n    functions: service-restart\n    unit: postgresql@15-main.service\n";

static void list_good(struct scene *s)
{
    struct broker_list list;
    CHECK_OK(s, read_list(s, good, 0600, &list));
    CHECK(list.n == 2);
    const struct broker_service *nginx = broker_list_find(&list, SV("nginx"));
    CHECK(nginx != NULL && broker_list_find(&list, SV("ngin")) == NULL &&
          broker_list_find(&list, SV("")) == NULL);
    CHECK(broker_service_allows(nginx, SV("other")) && !broker_service_allows(nginx, SV("othe")) &&
          !broker_service_allows(nginx, SV("")));
    CHECK(strcmp(nginx->restart_argv[2], "/etc/nginx.conf") == 0 && nginx->restart_argv[3] == NULL);
    CHECK(broker_service_allows(broker_list_find(&list, SV("db@1.service")), SV("service-restart")));
    broker_list_release(&list);
    CHECK_OK(s, broker_list_read(NULL, &list, &s->err));
    CHECK(list.n == 0 && broker_list_find(&list, SV("nginx")) == NULL);
    broker_list_release(&list);
}

Test(broker, the_allow_list_names_services_and_who_may, .timeout = 30)
{
    play_without_gateway(list_good);
}

static void list_bad(struct scene *s)
{
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"", "acts.yaml"},
        {"services: [nginx]\n", "services must be a map"},
        {"servces: {}\n", "servces"},
        {"services:\n  nginx: {}\n", "functions"},
        {"services:\n  nginx: {functions: [a]}\n", "neither unit nor restart"},
        {"services:\n  'a b': {functions: [a], unit: x}\n", "letters, digits"},
        {"services:\n  '-rf': {functions: [a], unit: x}\n", "letters, digits"},
        {"services:\n  '../x': {functions: [a], unit: x}\n", "letters, digits"},
        {"services:\n  nginx: {functions: [a], unit: --now}\n", "no unit name"},
        {"services:\n  nginx: {functions: [a], unit: 'x;reboot'}\n", "no unit name"},
        {"services:\n  nginx: {functions: [a], restart: [nginx], pid_file: /p}\n", "absolute path"},
        {"services:\n  nginx: {functions: [a], restart: [./nginx], pid_file: /p}\n", "absolute path"},
        {"services:\n  nginx: {functions: [a], restart: [''], pid_file: /p}\n", "absolute path"},
        {"services:\n  nginx: {functions: [a], restart: [/x]}\n", "needs pid_file"},
        {"services:\n  nginx: {functions: [a], restart: [/x], pid_file: run/p}\n", "needs pid_file"},
        {"services:\n  nginx: {functions: [a], unit: x, shell: 'rm -rf /'}\n", "shell"},
        {"services:\n  nginx: {functions: [a], unit: x}\n  nginx: {functions: [b], unit: y}\n",
         "acts.yaml:3"},
        {"services: &a {nginx: {functions: [a], unit: x}}\nx: *a\n", "acts.yaml"},
        {"services:\n  nginx:\n   functions: {a: b}\n   unit: x\n", "acts.yaml:3"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct broker_list list;
        enum status st = read_list(s, bad[i].text, 0600, &list);
        if (st == STATUS_OK || strstr(s->err.message, bad[i].says) == NULL)
            (void)fprintf(stderr, "%zu: %s\n  says %s, not %s\n", i, bad[i].text,
                          st == STATUS_OK ? "yes" : s->err.message, bad[i].says);
        CHECK(st != STATUS_OK && strstr(s->err.message, bad[i].says) != NULL);
    }
    struct broker_list list;
    char *huge = arena_alloc(&s->arena, 2 * 1024 * 1024);
    memset(huge, '#', 2 * 1024 * 1024 - 1);
    huge[2 * 1024 * 1024 - 1] = '\0';
    CHECK(read_list(s, huge, 0600, &list) != STATUS_OK);
}

Test(broker, a_list_with_a_mistake_is_refused_whole_with_its_place, .timeout = 30)
{
    play_without_gateway(list_bad);
}

static void list_modes(struct scene *s)
{
    struct broker_list list;
    static const unsigned refused[] = {0620, 0602, 0666, 0777, 0660};
    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        CHECK(read_list(s, good, refused[i], &list) == STATUS_PERMISSION_DENIED);
        CHECK(strstr(s->err.message, "can be written by others") != NULL);
    }
    CHECK_OK(s, read_list(s, good, 0644, &list));
    broker_list_release(&list);
    CHECK(broker_list_read(scene_path(s, "none.yaml"), &list, &s->err) == STATUS_NOT_FOUND);
    CHECK(broker_list_read(s->folder, &list, &s->err) == STATUS_INVALID_ARGUMENT);
    CHECK(mkfifo(scene_path(s, "fifo"), 0600) == 0); /* must not hold us up */
    CHECK(broker_list_read(scene_path(s, "fifo"), &list, &s->err) == STATUS_INVALID_ARGUMENT);
    if (geteuid() != 0) return;
    CHECK(chown(scene_write(s, "acts.yaml", good, 0600), 65534, 65534) == 0);
    CHECK(broker_list_read(scene_path(s, "acts.yaml"), &list, &s->err) == STATUS_PERMISSION_DENIED);
    CHECK(strstr(s->err.message, "belongs to uid 65534") != NULL);
    CHECK(symlink("acts.yaml", scene_path(s, "link.yaml")) == 0); /* the owner of what it points at counts */
    CHECK(broker_list_read(scene_path(s, "link.yaml"), &list, &s->err) == STATUS_PERMISSION_DENIED);
}

Test(broker, a_list_that_others_can_write_or_own_is_refused, .timeout = 30)
{
    play_without_gateway(list_modes);
}

/* ---- a bot's end ---- */

struct bot {
    struct scene *s;
    int run_dir_fd;
    struct broker *broker;
    struct fiber_scope scope;
    int fd;
};

/* restart.sh stands for a service's start command: it leaves a daemon in the background that writes its pid
 * file. */
static void start_broker(struct bot *b)
{
    struct scene *s = b->s;
    struct broker_cfg cfg = {.allow_list_file = scene_path(s, "acts.yaml"),
                             .run_dir_fd = b->run_dir_fd,
                             .shim_path = shim_path(&s->arena),
                             .files_max = 256};
    CHECK_OK(s, broker_new(&cfg, &b->broker, &s->err));
}

/* The bot's process, or its next one. */
static void connect_bot(struct bot *b, const char *function)
{
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    CHECK_OK(b->s, broker_serve(b->broker, &b->scope, pair[0], sv(function), &b->s->err));
    b->fd = pair[1];
}

static void begin(struct scene *s, struct bot *b, const char *function)
{
    *b = (struct bot){.s = s, .run_dir_fd = open(s->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    scene_script(
        s, "restart",
        "d=${0%/functions/*}; echo x >> $d/runs; test -e $d/slow && sleep 0.4;"
        "while test -e $d/hold; do sleep 0.02; done; test -f $d/pid && kill $(cat $d/pid) 2>/dev/null\n"
        "setsid sleep 1000 >/dev/null 2>&1 & echo $! > $d/pid; echo restarted; env > $d/env; exit 0");
    scene_script(s, "failing", "echo bad configuration >&2; exit 4");
    const char *list =
        arena_printf(&s->arena,
                     "services:\n"
                     "  web: {functions: [bot], restart: [%s/functions/restart, -x], pid_file: %s/pid}\n"
                     "  bad: {functions: [bot], restart: [%s/functions/failing], pid_file: %s/none}\n"
                     "  gone: {functions: [bot], restart: [/nonexistent/tool], pid_file: %s/none}\n"
                     "  unit-only: {functions: [bot], unit: x.service}\n"
                     "  others: {functions: [somebody], restart: [/bin/false], pid_file: %s/none}\n",
                     s->folder, s->folder, s->folder, s->folder, s->folder, s->folder)
            .ptr;
    (void)scene_write(s, "acts.yaml", list, 0600);
    fiber_scope_init(&b->scope);
    start_broker(b);
    connect_bot(b, function);
}

static void finish(struct bot *b)
{
    if (b->fd >= 0) (void)close(b->fd);
    fiber_scope_join(&b->scope);
    broker_free(b->broker);
    (void)close(b->run_dir_fd);
    pid_t pid = read_pid(scene_path(b->s, "pid"));
    if (pid > 0) (void)kill(pid, SIGKILL);
}

static void say(struct bot *b, const char *text, size_t len)
{
    int events;
    while (send(b->fd, text, len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
        CHECK(errno == EAGAIN);
        CHECK(fd_wait(b->fd, POLLOUT, clock_monotonic_ns() + 10 * NS_PER_S, &events) == STATUS_OK);
    }
}

static json_t *hear(struct bot *b)
{
    char text[70000];
    int events;
    ssize_t n;
    while ((n = recv(b->fd, text, sizeof(text), MSG_DONTWAIT)) < 0)
        CHECK(errno == EAGAIN &&
              fd_wait(b->fd, POLLIN, clock_monotonic_ns() + 10 * NS_PER_S, &events) == STATUS_OK);
    json_t *reply = NULL;
    CHECK(json_parse(sv_n(text, (size_t)n), 0, &reply, &b->s->err) == STATUS_OK);
    return reply;
}

static json_t *call(struct bot *b, const char *act, const char *subject)
{
    struct strview text = arena_printf(
        &b->s->arena, "{\"act\":\"%s\",\"subject\":\"%s\",\"intent\":\"i-1\",\"id\":7}", act, subject);
    say(b, text.ptr, text.len);
    json_t *reply = hear(b);
    CHECK(json_integer_value(json_object_get(reply, "id")) == 7);
    return reply;
}

static bool is_ok(const json_t *reply)
{
    return json_is_true(json_object_get(reply, "ok"));
}

static void expect_refusal(json_t *reply, const char *code)
{
    CHECK(json_is_false(json_object_get(reply, "ok")) && sv_eq(json_get_text(reply, "code"), sv(code)));
    CHECK(json_get_text(reply, "message").len > 0);
    json_release(reply);
}

/* ---- acts ---- */

static void restarts(struct scene *s)
{
    struct bot b;
    begin(s, &b, "bot");
    CHECK(setenv("OUR_OWN_SECRET", "x", 1) == 0);
    json_t *r = call(&b, "service-status", "web");
    CHECK(is_ok(r) && json_is_false(json_object_get(r, "active")) &&
          sv_eq(json_get_text(r, "state"), SV("inactive")));
    CHECK(sv_eq(json_get_text(r, "manager"), SV("argv")) && json_get_text(r, "startedAt").len == 0);
    json_release(r);
    int64_t before_ns = clock_unix_ns();
    r = call(&b, "service-restart", "web");
    CHECK(is_ok(r) && json_integer_value(json_object_get(r, "exit")) == 0 &&
          sv_eq(json_get_text(r, "output"), SV("restarted")));
    json_release(r);
    r = call(&b, "service-status", "web");
    int64_t started_ns;
    CHECK(is_ok(r) && json_is_true(json_object_get(r, "active")));
    CHECK(rfc3339_parse(json_get_text(r, "startedAt"), &started_ns) == STATUS_OK && started_ns > before_ns);
    CHECK(started_ns < clock_unix_ns() + 20 * NS_PER_MS);
    pid_t pid = (pid_t)json_integer_value(json_object_get(r, "pid"));
    CHECK(pid == read_pid(scene_path(s, "pid")) && is_alive(pid));
    json_release(r);
    struct strview env;
    CHECK_OK(s, file_read(&s->arena, scene_path(s, "env"), 65536, &env, &s->err));
    CHECK(sv_contains(env, SV("PATH=")) && !sv_contains(env, SV("OUR_OWN_SECRET")));
    pid_t first = pid;
    r = call(&b, "service-restart", "web");
    CHECK(is_ok(r));
    json_release(r);
    pid = read_pid(scene_path(s, "pid"));
    CHECK(pid != first && is_alive(pid));
    CHECK(kill(pid, SIGKILL) == 0);
    finish(&b);
}

Test(broker, a_service_is_restarted_by_its_argv_and_its_start_is_later, .timeout = 30)
{
    play_without_gateway(restarts);
}

static bool has_died(void *pid)
{
    return !is_alive(*(pid_t *)pid);
}

static void status_of_dead(struct scene *s)
{
    struct bot b;
    begin(s, &b, "bot");
    json_release(call(&b, "service-restart", "web"));
    pid_t pid = read_pid(scene_path(s, "pid"));
    CHECK(kill(pid, SIGKILL) == 0 && await(has_died, &pid));
    json_t *r = call(&b, "service-status", "web");
    CHECK(is_ok(r) && json_is_false(json_object_get(r, "active")) &&
          json_integer_value(json_object_get(r, "pid")) == 0);
    json_release(r);
    static const char *const pids[] = {"", "x", "0", "1", "-5", "99999999999999999999", "4194305"};
    for (size_t i = 0; i < ARRAY_LEN(pids); i++) {
        (void)scene_write(s, "pid", pids[i], 0644);
        r = call(&b, "service-status", "web");
        CHECK(is_ok(r) && json_is_false(json_object_get(r, "active")));
        json_release(r);
    }
    CHECK(unlink(scene_path(s, "pid")) == 0);
    finish(&b);
}

Test(broker, a_dead_process_or_a_wrong_pid_file_is_inactive, .timeout = 30)
{
    play_without_gateway(status_of_dead);
}

static void refusals(struct scene *s)
{
    struct bot b;
    begin(s, &b, "bot");
    expect_refusal(call(&b, "service-restart", "nginx"), "PERMISSION_DENIED");
    expect_refusal(call(&b, "service-restart", ""), "PERMISSION_DENIED");
    expect_refusal(call(&b, "service-restart", "others"), "PERMISSION_DENIED");
    expect_refusal(call(&b, "service-status", "others"), "PERMISSION_DENIED");
    expect_refusal(call(&b, "reboot", "web"), "INVALID_ARGUMENT");
    expect_refusal(call(&b, "", "web"), "INVALID_ARGUMENT");
    expect_refusal(call(&b, "service-restart", "gone"), "NOT_FOUND");
    if (!broker_has_systemd()) {
        expect_refusal(call(&b, "service-restart", "unit-only"), "FAILED_PRECONDITION");
        expect_refusal(call(&b, "service-status", "unit-only"), "FAILED_PRECONDITION");
    }
    json_t *r = call(&b, "service-restart", "bad"); /* a tool that fails is an answer */
    CHECK(is_ok(r) && json_integer_value(json_object_get(r, "exit")) == 4 &&
          sv_eq(json_get_text(r, "output"), SV("bad configuration")));
    json_release(r);
    CHECK(!scene_has(s, "pid"));
    finish(&b);
}

Test(broker, what_is_not_on_the_list_is_refused, .timeout = 30)
{
    play_without_gateway(refusals);
}

static void wrong_function(struct scene *s)
{
    struct bot b;
    begin(s, &b, "another");
    expect_refusal(call(&b, "service-restart", "web"), "PERMISSION_DENIED");
    expect_refusal(call(&b, "service-status", "web"), "PERMISSION_DENIED");
    CHECK(!scene_has(s, "pid"));
    finish(&b);
}

Test(broker, a_function_that_is_not_named_may_nothing, .timeout = 30)
{
    play_without_gateway(wrong_function);
}

static void while_frozen(struct scene *s)
{
    struct bot b;
    begin(s, &b, "bot");
    broker_freeze(b.broker, true);
    expect_refusal(call(&b, "service-restart", "web"), "CANCELLED");
    json_t *r = call(&b, "service-status", "web"); /* looking is no act */
    CHECK(is_ok(r) && !scene_has(s, "pid"));
    json_release(r);
    broker_freeze(b.broker, false);
    r = call(&b, "service-restart", "web");
    CHECK(is_ok(r));
    json_release(r);
    (void)scene_write(s, "slow", "", 0600);
    static const char text[] = "{\"act\":\"service-restart\",\"subject\":\"web\",\"id\":8}";
    pid_t before = read_pid(scene_path(s, "pid"));
    say(&b, text, sizeof(text) - 1);
    (void)!sleep_ms(100);
    broker_freeze(b.broker, true); /* waits for the one under way */
    CHECK(read_pid(scene_path(s, "pid")) != before);
    r = hear(&b);
    CHECK(is_ok(r) && json_integer_value(json_object_get(r, "id")) == 8);
    json_release(r);
    finish(&b);
}

Test(broker, balm_stop_refuses_restarts_and_waits_for_the_one_under_way, .timeout = 30)
{
    play_without_gateway(while_frozen);
}

static void reloads(struct scene *s)
{
    struct bot b;
    begin(s, &b, "bot");
    (void)scene_write(s, "slow", "", 0600);
    static const char text[] = "{\"act\":\"service-restart\",\"subject\":\"web\",\"id\":8}";
    say(&b, text, sizeof(text) - 1);
    (void)!sleep_ms(100);
    (void)scene_write(s, "acts.yaml", "services: {}\n", 0600);
    int64_t began_ns = clock_monotonic_ns();
    CHECK_OK(s, broker_prepare(b.broker, &s->err));
    broker_commit(b.broker); /* does not wait; the call keeps the list it began with */
    CHECK(clock_monotonic_ns() - began_ns < 200 * NS_PER_MS);
    json_t *r = hear(&b);
    CHECK(is_ok(r));
    json_release(r);
    expect_refusal(call(&b, "service-restart", "web"), "PERMISSION_DENIED");
    (void)scene_write(s, "acts.yaml", "services: 1\n", 0600);
    CHECK(broker_prepare(b.broker, &s->err) == STATUS_INVALID_ARGUMENT);
    broker_discard(b.broker);
    (void)scene_write(s, "acts.yaml", "services:\n  web: {functions: [bot], unit: x}\n", 0600);
    CHECK_OK(s, broker_prepare(b.broker, &s->err)); /* a good one that is not switched to */
    broker_discard(b.broker);
    expect_refusal(call(&b, "service-status", "web"), "PERMISSION_DENIED"); /* the old list stays */
    finish(&b);
}

Test(broker, a_reload_counts_for_what_comes_after_it, .timeout = 30)
{
    play_without_gateway(reloads);
}

/* ---- one restart of a service at a time ---- */

static void ask_restart(struct bot *b, const char *intent, int id, int64_t left_ns)
{
    char deadline[RFC3339_LEN + 1];
    rfc3339_format(clock_unix_ns() + left_ns, deadline);
    struct strview text =
        arena_printf(&b->s->arena,
                     "{\"act\":\"service-restart\",\"subject\":\"web\",\"intent\":\"%s\",\"deadline\":\"%s\","
                     "\"id\":%d}",
                     intent, deadline, id);
    say(b, text.ptr, text.len);
}

static unsigned runs(struct bot *b)
{
    struct strview text;
    struct error ignored;
    if (file_read(&b->s->arena, scene_path(b->s, "runs"), 4096, &text, &ignored) != STATUS_OK) return 0;
    return (unsigned)(text.len / 2);
}

static bool has_run(void *bot)
{
    return runs(bot) > 0;
}

static bool is_noted(void *bot)
{
    return scene_has(((struct bot *)bot)->s, "host-act-web");
}

static bool is_not_noted(void *bot)
{
    return !is_noted(bot);
}

static bool says(const json_t *reply, int id, const char *code)
{
    return json_integer_value(json_object_get(reply, "id")) == id &&
           sv_eq(json_get_text(reply, "code"), sv(code));
}

static void retry_joins(struct scene *s)
{
    struct bot b;
    begin(s, &b, "bot");
    (void)scene_write(s, "hold", "", 0600);
    int64_t began_ns = clock_monotonic_ns();
    ask_restart(&b, "i-1", 1, NS_PER_S);
    json_t *r = hear(&b);
    CHECK(clock_monotonic_ns() - began_ns < NS_PER_S); /* before the deadline: somebody still listens */
    CHECK(says(r, 1, "UNKNOWN") && sv_contains(json_get_text(r, "message"), SV("still running")));
    json_release(r);
    CHECK(is_noted(&b) && !scene_has(s, "pid"));
    ask_restart(&b, "i-1", 2, 10 * NS_PER_S);
    (void)close(b.fd); /* the bot dies, and its next process asks again */
    connect_bot(&b, "bot");
    ask_restart(&b, "i-1", 3, 10 * NS_PER_S);
    ask_restart(&b, "i-2", 4, NS_PER_S / 2); /* another intent waits, and is not served */
    r = hear(&b);
    CHECK(says(r, 4, "UNAVAILABLE"));
    json_release(r);
    ask_restart(&b, "i-2", 5, 10 * NS_PER_S);
    CHECK(sleep_ms(50) == STATUS_OK && unlink(scene_path(s, "hold")) == 0);
    for (int i = 0; i < 2; i++) {
        r = hear(&b);
        if (json_integer_value(json_object_get(r, "id")) == 3)
            CHECK(is_ok(r) && sv_eq(json_get_text(r, "output"), SV("restarted")));
        else
            CHECK(says(r, 5, "UNAVAILABLE") &&
                  sv_contains(json_get_text(r, "message"), SV("just restarted")));
        json_release(r);
    }
    CHECK(runs(&b) == 1 && is_not_noted(&b));
    finish(&b);
}

Test(broker, a_restart_that_outlasts_its_asker_is_joined_by_the_retry_and_none_runs_beside_it, .timeout = 30)
{
    play_without_gateway(retry_joins);
}

static void too_late(struct scene *s)
{
    struct bot b;
    begin(s, &b, "bot");
    ask_restart(&b, "i-1", 1, -1);
    json_t *r = hear(&b);
    CHECK(says(r, 1, "DEADLINE_EXCEEDED") && runs(&b) == 0);
    json_release(r);
    static const char bad[] =
        "{\"act\":\"service-restart\",\"subject\":\"web\",\"deadline\":\"soon\",\"id\":2}";
    say(&b, bad, sizeof(bad) - 1);
    r = hear(&b);
    CHECK(says(r, 2, "INVALID_ARGUMENT") && runs(&b) == 0);
    json_release(r);
    finish(&b);
}

Test(broker, nothing_begins_after_the_deadline, .timeout = 30)
{
    play_without_gateway(too_late);
}

static void freeze_joins(struct scene *s)
{
    struct bot b;
    begin(s, &b, "bot");
    (void)scene_write(s, "slow", "", 0600);
    ask_restart(&b, "i-1", 1, NS_PER_S / 2); /* who asked hears UNKNOWN at once or the end */
    CHECK(await(has_run, &b));
    broker_freeze(b.broker, true);
    CHECK(is_not_noted(&b) && scene_has(s, "pid"));
    json_release(hear(&b));
    finish(&b);
}

Test(broker, balm_stop_waits_for_a_restart_whose_asker_has_given_up, .timeout = 30)
{
    play_without_gateway(freeze_joins);
}

/* What a platform that was killed with SIGKILL leaves: its note, and a session that goes on. */
static pid_t leave_behind(struct bot *b, struct process **ret_process)
{
    struct process_spec spec = {.argv = (const char *const[]){"/bin/sleep", "1000", NULL},
                                .stdin_fd = -1,
                                .stdout_fd = -1,
                                .stderr_fd = -1,
                                .new_session = true};
    CHECK_OK(b->s, process_start(b->s->loop, &spec, ret_process, &b->s->err));
    pid_t pid = process_pid(*ret_process);
    const char *note =
        arena_printf(&b->s->arena, "{\"begunUnixNs\":%lld,\"intent\":\"i-1\",\"pid\":%d,\"ticks\":%llu}",
                     (long long)clock_unix_ns(), (int)pid,
                     (unsigned long long)broker_process_ticks((uint64_t)pid))
            .ptr;
    (void)scene_write(b->s, "host-act-web", note, 0600);
    return pid;
}

static void restart_broker(struct bot *b)
{
    (void)close(b->fd);
    fiber_scope_join(&b->scope);
    broker_free(b->broker);
    start_broker(b);
    connect_bot(b, "bot");
}

static void inherited(struct scene *s)
{
    struct bot b;
    struct process *orphan;
    begin(s, &b, "bot");
    pid_t pid = leave_behind(&b, &orphan);
    restart_broker(&b);
    CHECK(is_noted(&b) && is_alive(pid));
    ask_restart(&b, "i-2", 1, NS_PER_S / 2);
    json_t *r = hear(&b);
    CHECK(says(r, 1, "UNAVAILABLE") && runs(&b) == 0);
    json_release(r);
    ask_restart(&b, "i-1", 2, 10 * NS_PER_S);
    (void)!sleep_ms(100);
    restart_broker(&b); /* an orderly end leaves it as it is, for the next one */
    CHECK(is_noted(&b) && is_alive(pid));
    ask_restart(&b, "i-1", 3, 10 * NS_PER_S);
    (void)!sleep_ms(100);
    CHECK(kill(pid, SIGKILL) == 0);
    r = hear(&b);
    CHECK(says(r, 3, "UNKNOWN") && sv_contains(json_get_text(r, "message"), SV("was killed")));
    json_release(r);
    CHECK(runs(&b) == 0 && is_not_noted(&b));
    process_free(orphan);
    ask_restart(&b, "i-1", 4, 10 * NS_PER_S);
    r = hear(&b);
    CHECK(is_ok(r) && runs(&b) == 1);
    json_release(r);
    finish(&b);
}

Test(broker, a_restart_left_by_a_killed_platform_is_waited_for_and_not_repeated_beside_it, .timeout = 30)
{
    play_without_gateway(inherited);
}

static void stale_notes(struct scene *s)
{
    struct bot b;
    static const char *const stale[] = {
        "", "no json", "{\"begunUnixNs\":1,\"intent\":\"i-1\",\"pid\":1,\"ticks\":1}" /* another's pid */,
        "{\"begunUnixNs\":1,\"intent\":\"i-1\",\"pid\":0,\"ticks\":0}" /* long over */};
    begin(s, &b, "bot");
    for (size_t i = 0; i < ARRAY_LEN(stale); i++) {
        (void)scene_write(s, "host-act-web", stale[i], 0600);
        restart_broker(&b);
        CHECK(await(is_not_noted, &b));
    }
    const char *now =
        arena_printf(&s->arena, "{\"begunUnixNs\":%lld,\"intent\":\"i-1\",\"pid\":0,\"ticks\":0}",
                     (long long)clock_unix_ns())
            .ptr;
    (void)scene_write(s, "host-act-web", now, 0600); /* killed between note and start: about to begin? */
    restart_broker(&b);
    ask_restart(&b, "i-1", 1, NS_PER_S / 2);
    json_t *r = hear(&b);
    CHECK(says(r, 1, "UNKNOWN") && runs(&b) == 0);
    json_release(r);
    CHECK(await(is_not_noted, &b)); /* no: nobody has said within 5 s that it was the one */
    ask_restart(&b, "i-1", 2, 10 * NS_PER_S);
    r = hear(&b);
    CHECK(is_ok(r) && runs(&b) == 1);
    json_release(r);
    finish(&b);
}

Test(broker, a_note_without_its_process_holds_nobody_up, .timeout = 30)
{
    play_without_gateway(stale_notes);
}

/* Killed in the instant between the start and the note of it: the command itself has said who it is. */
static void started_unnoted(struct scene *s)
{
    struct bot b;
    struct process *orphan;
    begin(s, &b, "bot");
    pid_t pid = leave_behind(&b, &orphan);
    const char *note =
        arena_printf(&s->arena, "{\"begunUnixNs\":%lld,\"intent\":\"i-1\",\"pid\":0,\"ticks\":0}",
                     (long long)clock_unix_ns())
            .ptr;
    (void)scene_write(s, "host-act-web", note, 0600);
    (void)scene_write(s, "host-pid-web", arena_printf(&s->arena, "%d\n", (int)pid).ptr, 0600);
    restart_broker(&b);
    ask_restart(&b, "i-1", 1, 10 * NS_PER_S);
    (void)!sleep_ms(100);
    CHECK(is_noted(&b) && is_alive(pid));
    CHECK(kill(pid, SIGKILL) == 0);
    json_t *r = hear(&b);
    CHECK(says(r, 1, "UNKNOWN") && runs(&b) == 0 && is_not_noted(&b));
    json_release(r);
    CHECK(!scene_has(s, "host-pid-web"));
    process_free(orphan);
    finish(&b);
}

Test(broker, a_restart_that_was_begun_and_not_yet_noted_is_found_by_its_own_word, .timeout = 30)
{
    play_without_gateway(started_unnoted);
}

/* ---- hostile peers ---- */

static void garbage(struct scene *s)
{
    struct bot b;
    begin(s, &b, "bot");
    static const char *const bad[] = {"no json",   "[1]", "\"x\"",    "{",
                                      "{\"act\":", "7",   "\xff\xfe", "{\"act\":\"service-status\"} x"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        say(&b, bad[i], strlen(bad[i]));
        expect_refusal(hear(&b), "INVALID_ARGUMENT");
    }
    static const char *const odd[] = {"{}", "{\"act\":7,\"subject\":[],\"intent\":{},\"id\":{}}"};
    for (size_t i = 0; i < ARRAY_LEN(odd); i++) {
        say(&b, odd[i], strlen(odd[i]));
        expect_refusal(hear(&b), "PERMISSION_DENIED");
    }
    /* A subject whose first 64 bytes end within a character. */
    char text[256];
    (void)snprintf(text, sizeof(text), "{\"act\":\"service-restart\",\"subject\":\"%063d\xc3\xa4\"}", 0);
    say(&b, text, strlen(text));
    expect_refusal(hear(&b), "PERMISSION_DENIED");
    json_t *r = call(&b, "service-status", "web");
    CHECK(is_ok(r));
    json_release(r);
    finish(&b);
}

Test(broker, garbage_is_answered_and_harms_nobody, .timeout = 30)
{
    play_without_gateway(garbage);
}

static void oversized(struct scene *s)
{
    struct bot b;
    begin(s, &b, "bot");
    const size_t limit = 64 * 1024;
    char *text = arena_alloc(&s->arena, limit + 1);
    memset(text, ' ', limit + 1);
    memcpy(text, "{\"act\":\"service-status\",\"subject\":\"web\"}", 40);
    say(&b, text, limit + 1);
    expect_refusal(hear(&b), "INVALID_ARGUMENT");
    say(&b, text, limit); /* the largest one */
    json_t *r = hear(&b);
    CHECK(is_ok(r));
    json_release(r);
    finish(&b);
}

Test(broker, a_message_over_64_KiB_is_refused_and_one_of_64_KiB_taken, .timeout = 30)
{
    play_without_gateway(oversized);
}

static void flood(struct scene *s)
{
    struct bot b;
    static const char text[] = "{\"act\":\"service-status\",\"subject\":\"web\",\"id\":1}";
    begin(s, &b, "bot");
    unsigned before = fiber_count(), sent = 0, heard = 0;
    for (; sent < 100000; sent++) /* without reading an answer, until nothing goes out any more */
        if (send(b.fd, text, sizeof(text) - 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
            if (errno != EAGAIN) break;
            (void)!sleep_ms(5);
            if (send(b.fd, text, sizeof(text) - 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && sent > 500) break;
        }
    CHECK(sent < 100000 && fiber_count() <= before + 16 + 1);
    int64_t began_ns = clock_monotonic_ns();
    CHECK(sleep_ms(10) == STATUS_OK &&
          clock_monotonic_ns() - began_ns < 500 * NS_PER_MS); /* the loop still turns */
    char answer[4096];
    while (recv(b.fd, answer, sizeof(answer), MSG_DONTWAIT) > 0)
        heard++;
    CHECK(heard > 0);
    finish(&b);
}

Test(broker, a_peer_that_floods_waits_for_itself, .timeout = 60)
{
    play_without_gateway(flood);
}

static bool has_new_pid(void *arg)
{
    return read_pid(arg) > 0;
}

static void closes(struct scene *s)
{
    struct bot b;
    begin(s, &b, "bot");
    (void)scene_write(s, "slow", "", 0600);
    static const char text[] = "{\"act\":\"service-restart\",\"subject\":\"web\",\"id\":8}";
    say(&b, text, sizeof(text) - 1);
    (void)!sleep_ms(100);
    (void)close(b.fd);
    b.fd = -1;
    (void)!sleep_ms(50);
    fiber_scope_cancel(&b.scope); /* and the platform goes down as well: what was begun is run to its end */
    fiber_scope_join(&b.scope);
    CHECK(await(has_new_pid, arena_cstr(&s->arena, sv(scene_path(s, "pid")))));
    finish(&b);
}

Test(broker, a_restart_that_was_begun_ends_although_its_bot_is_gone, .timeout = 30)
{
    play_without_gateway(closes);
}
