/* Commands on the host with the build's shim behind them, and services that they leave running. */
#include "gateway/host_command.h"
#include "scene.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

/* FOLDER/functions/command with that body; $d is FOLDER. */
static struct host_command *start(struct scene *s, const char *body)
{
    struct host_command *c;
    scene_script(s, "command", arena_printf(&s->arena, "d=${0%%/functions/*}\n%s", body).ptr);
    struct host_command_cfg cfg = {.argv = (const char *const[]){scene_path(s, "functions/command"), NULL},
                                   .shim_path = shim_path(&s->arena),
                                   .files_max = 123,
                                   .pid_fd = open(scene_path(s, "pid"), O_RDWR | O_CREAT | O_TRUNC, 0600)};
    CHECK_OK(s, host_command_start(&cfg, &c, &s->err));
    (void)close(cfg.pid_fd);
    return c;
}

static int end(struct scene *s, struct host_command *c)
{
    int code = -1;
    CHECK_OK(s, host_command_wait(c, clock_monotonic_ns() + 20 * NS_PER_S, &code, &s->err));
    return code;
}

static const char *content(struct scene *s, const char *name)
{
    struct strview text;
    CHECK_OK(s, file_read(&s->arena, scene_path(s, name), 1024 * 1024, &text, &s->err));
    return arena_cstr(&s->arena, text);
}

struct awaited {
    struct scene *s;
    const char *name;
};

static bool is_there(void *arg)
{
    struct awaited *a = arg;
    return scene_has(a->s, a->name);
}

static void words(struct scene *s)
{
    struct host_command *c = start(s, "echo out; echo err >&2; exit 4");
    CHECK(end(s, c) == 4);
    CHECK(sv_eq(host_command_words(c), SV("out\nerr\n")));
    CHECK(read_pid(scene_path(s, "pid")) == host_command_pid(c));
    host_command_free(c);
    /* More than any pipe holds, and only the end of it is kept. */
    c = start(s, "i=0; while test $i -lt 40000; do echo line $i; i=$((i+1)); done; printf 'the end'");
    CHECK(end(s, c) == 0);
    struct strview kept = host_command_words(c);
    CHECK(kept.len == HOST_COMMAND_WORDS_MAX && sv_ends_with(kept, SV("line 39999\nthe end")));
    host_command_free(c);
}

Test(host_command, its_exit_and_the_end_of_its_words_are_known, .timeout = 60)
{
    play_without_gateway(words);
}

/* A service that keeps the command's outputs, as one does that is started by hand: it writes when it is told
 * to, more than a pipe holds, and as most do without looking whether that works. */
#define SERVICE                                                                                              \
    "cat > $d/service <<'END'\n"                                                                             \
    "grep '^Sig\\|^Max open' /proc/self/status /proc/self/limits > $d/own\n"                                 \
    "echo ready > $d/ready.part; mv $d/ready.part $d/ready\n"                                                \
    "while test ! -e $d/speak; do sleep 0.02; done\n"                                                        \
    "i=0; while test $i -lt 3000; do echo a line of log that nobody reads, $i; i=$((i+1)); done\n"           \
    "echo $? > $d/said.part; mv $d/said.part $d/said; exec sleep 1000\n"                                     \
    "END\n"                                                                                                  \
    "export d; setsid sh $d/service & echo $! > $d/pid; echo started"

static void service_writes(struct scene *s)
{
    struct host_command *c = start(s, SERVICE);
    int64_t began_ns = clock_monotonic_ns();
    CHECK(end(s, c) == 0);
    CHECK(clock_monotonic_ns() - began_ns <
          10 * NS_PER_S); /* the service's hold on the pipe is not waited for */
    CHECK(sv_eq(host_command_words(c), SV("started\n")));
    host_command_free(c);
    struct awaited ready = {s, "ready"}, said = {s, "said"};
    pid_t pid = read_pid(scene_path(s, "pid"));
    CHECK(await(is_there, &ready) && is_alive(pid));
    (void)scene_write(s, "speak", "", 0600);
    CHECK(await(is_there, &said) && is_alive(pid)); /* neither SIGPIPE nor a full pipe */
    CHECK(strcmp(content(s, "said"), "0\n") == 0);
    CHECK(kill(pid, SIGKILL) == 0);
}

Test(host_command, a_service_that_writes_after_the_end_lives_on, .timeout = 60)
{
    play_without_gateway(service_writes);
}

static void clean_start(struct scene *s)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGUSR1);
    CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0 && signal(SIGHUP, SIG_IGN) != SIG_ERR);
    struct host_command *c = start(s, SERVICE);
    CHECK(end(s, c) == 0);
    host_command_free(c);
    struct awaited ready = {s, "ready"};
    CHECK(await(is_there, &ready));
    struct strview own = sv(content(s, "own"));
    CHECK(sv_contains(own, SV("SigBlk:\t0000000000000000")));
    const char *ignored = strstr(content(s, "own"), "SigIgn:");
    /* INT and QUIT by the shell, for what it runs behind itself; 32 and 33 are the C library's own. */
    CHECK(ignored != NULL && (strtoull(ignored + strlen("SigIgn:"), NULL, 16) & ~0x180000006ULL) == 0);
    const char *limit = strstr(content(s, "own"), "Max open files");
    CHECK(limit != NULL && strtol(limit + strlen("Max open files"), NULL, 10) == 123);
    CHECK(kill(read_pid(scene_path(s, "pid")), SIGKILL) == 0);
}

Test(host_command, what_it_starts_has_no_signal_blocked_or_ignored_and_its_own_limit, .timeout = 60)
{
    play_without_gateway(clean_start);
}

static bool has_died(void *pid)
{
    return !is_alive(*(pid_t *)pid);
}

static void limit_kills(struct scene *s)
{
    int code;
    struct host_command *c = start(s, "sleep 1000 & echo $! > $d/pid; wait");
    struct awaited pid_file = {s, "pid"};
    CHECK(await(is_there, &pid_file));
    CHECK(host_command_wait(c, clock_monotonic_ns() + 200 * NS_PER_MS, &code, &s->err) ==
          STATUS_DEADLINE_EXCEEDED);
    CHECK(strstr(s->err.message, "its session was killed") != NULL);
    host_command_free(c);
    pid_t pid = read_pid(scene_path(s, "pid"));
    CHECK(pid > 0 && await(has_died, &pid));
}

Test(host_command, at_its_limit_the_whole_session_is_killed, .timeout = 60)
{
    play_without_gateway(limit_kills);
}

static void cannot_start(struct scene *s)
{
    struct host_command *c;
    unsigned before = open_descriptors();
    struct host_command_cfg cfg = {.argv = (const char *const[]){"/nonexistent/tool", NULL},
                                   .shim_path = shim_path(&s->arena),
                                   .files_max = 123};
    CHECK(host_command_start(&cfg, &c, &s->err) == STATUS_NOT_FOUND);
    cfg.argv = (const char *const[]){"/etc/passwd", NULL};
    CHECK(host_command_start(&cfg, &c, &s->err) == STATUS_PERMISSION_DENIED);
    cfg.argv = (const char *const[]){"/bin/true", NULL};
    cfg.shim_path = "/nonexistent/shim"; /* nobody would read behind it */
    CHECK(host_command_start(&cfg, &c, &s->err) == STATUS_NOT_FOUND);
    CHECK(open_descriptors() == before);
}

Test(host_command, what_cannot_be_started_leaves_nothing, .timeout = 30)
{
    play_without_gateway(cannot_start);
}
