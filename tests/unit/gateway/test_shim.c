/* The built shim between this process and shell scripts. */
#include "scene.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

struct shim {
    struct process *process;
    int lifeline;
};

/* Runs `script` by /bin/sh under the shim; its output goes to FOLDER/out, and $D is the folder. */
static struct shim start(struct scene *s, const char *script)
{
    int lifeline[2], null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    int out = open(scene_path(s, "out"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(pipe2(lifeline, O_CLOEXEC) == 0);
    const int extra[] = {null_fd, null_fd, lifeline[0]};
    const char *argv[] = {shim_path(&s->arena), "5", "-m", "0", "--", "/bin/sh", "-c", script, NULL};
    const char *env[] = {"PATH=/usr/bin:/bin", arena_printf(&s->arena, "D=%s", s->folder).ptr, NULL};
    struct process_spec spec = {.argv = argv,
                                .env = env,
                                .stdin_fd = -1,
                                .stdout_fd = out,
                                .stderr_fd = out,
                                .extra_fds = extra,
                                .n_extra_fds = 3,
                                .new_session = true};
    struct shim shim = {.lifeline = lifeline[1]};
    CHECK_OK(s, process_start(s->loop, &spec, &shim.process, &s->err));
    (void)close(lifeline[0]);
    (void)close(null_fd);
    (void)close(out);
    return shim;
}

static int end(struct scene *s, struct shim *shim)
{
    int code = -1;
    CHECK_OK(s, process_wait(shim->process, clock_monotonic_ns() + 10 * NS_PER_S, &code));
    process_free(shim->process);
    if (shim->lifeline >= 0) (void)close(shim->lifeline);
    return code;
}

static int run(struct scene *s, const char *script)
{
    struct shim shim = start(s, script);
    return end(s, &shim);
}

static struct strview output(struct scene *s)
{
    struct strview text;
    CHECK_OK(s, file_read(&s->arena, scene_path(s, "out"), 65536, &text, &s->err));
    return sv_trim(text);
}

static bool has_pid(void *path)
{
    return read_pid(path) > 0;
}

static bool has_ended(void *pid)
{
    return !is_alive(*(pid_t *)pid);
}

static pid_t await_pid(struct scene *s, const char *name)
{
    char *path = arena_cstr(&s->arena, sv(scene_path(s, name)));
    CHECK(await(has_pid, path));
    return read_pid(path);
}

static void exit_codes(struct scene *s)
{
    CHECK(run(s, "exit 0") == 0);
    CHECK(run(s, "exit 7") == 7);
    CHECK(run(s, "kill -KILL $$") == 128 + SIGKILL);
    CHECK(run(s, "kill -SEGV $$") == 128 + SIGSEGV);
}

Test(shim, the_functions_exit_code_becomes_its_own, .timeout = 30)
{
    play_without_gateway(exit_codes);
}

static int run_argv(struct scene *s, const char *const *argv)
{
    struct process *p;
    int code = -1, null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    const int extra[] = {null_fd, null_fd, null_fd};
    struct process_spec spec = {
        .argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1, .extra_fds = extra, .n_extra_fds = 3};
    CHECK_OK(s, process_start(s->loop, &spec, &p, &s->err));
    CHECK_OK(s, process_wait(p, clock_monotonic_ns() + 10 * NS_PER_S, &code));
    process_free(p);
    (void)close(null_fd);
    return code;
}

/* Who waits for the shim kills it after KILL_GRACE_NS, and then nobody kills what is left. How long it may
 * take here depends on how long the machine took to make them. */
static void thousands(struct scene *s)
{
    int code = -1;
    int64_t begun_ns = clock_monotonic_ns();
    struct shim shim = start(s, "mkfifo $D/never; i=0\n"
                                "while [ $i -lt 4000 ]; do read x <$D/never & i=$((i+1)); done\n"
                                "echo $$ >$D/all; wait");
    (void)await_pid(s, "all");
    int64_t made_ns = clock_monotonic_ns();
    (void)close(shim.lifeline);
    shim.lifeline = -1;
    CHECK_OK(s, process_wait(shim.process, made_ns + KILL_GRACE_NS, &code));
    CHECK(code == 128 + SIGKILL);
    CHECK(clock_monotonic_ns() - made_ns < 4 * (made_ns - begun_ns) + NS_PER_S / 2);
    process_free(shim.process);
}

Test(shim, thousands_are_killed_within_the_grace_that_it_has, .timeout = 60)
{
    play_without_gateway(thousands);
}

static void usage(struct scene *s)
{
    const char *shim = shim_path(&s->arena);
    CHECK(run_argv(s, (const char *const[]){shim, NULL}) == 125);
    CHECK(run_argv(s, (const char *const[]){shim, "5", NULL}) == 125);
    CHECK(run_argv(s, (const char *const[]){shim, "5", "--", NULL}) == 125);
    CHECK(run_argv(s, (const char *const[]){shim, "5", "/bin/true", NULL}) == 125);
    CHECK(run_argv(s, (const char *const[]){shim, "-1", "--", "/bin/true", NULL}) == 125);
    CHECK(run_argv(s, (const char *const[]){shim, "five", "--", "/bin/true", NULL}) == 125);
    CHECK(run_argv(s, (const char *const[]){shim, "5", "-m", "--", NULL}) == 125);
}

Test(shim, a_wrong_call_is_125, .timeout = 30)
{
    play_without_gateway(usage);
}

static void no_program(struct scene *s)
{
    int lifeline[2];
    CHECK(pipe2(lifeline, O_CLOEXEC) == 0);
    const int extra[] = {lifeline[0], lifeline[0], lifeline[0]};
    const char *const programs[] = {"/nonexistent/program", "/etc/passwd"};
    const int codes[] = {127, 126};
    for (size_t i = 0; i < 2; i++) {
        const char *argv[] = {shim_path(&s->arena), "5", "--", programs[i], NULL};
        struct process_spec spec = {.argv = argv,
                                    .stdin_fd = -1,
                                    .stdout_fd = -1,
                                    .stderr_fd = -1,
                                    .extra_fds = extra,
                                    .n_extra_fds = 3};
        struct shim shim = {.lifeline = -1};
        CHECK_OK(s, process_start(s->loop, &spec, &shim.process, &s->err));
        CHECK(end(s, &shim) == codes[i]);
    }
    (void)close(lifeline[0]);
    (void)close(lifeline[1]);
}

Test(shim, a_missing_program_is_127_and_one_that_cannot_run_126, .timeout = 30)
{
    play_without_gateway(no_program);
}

static void lifeline_closes(struct scene *s)
{
    struct shim shim =
        start(s, "trap '' TERM HUP INT\n"
                 "setsid sh -c 'setsid sleep 1000 & echo $! > $D/deep; trap \"\" TERM; sleep 1000' &\n"
                 "echo $! > $D/child\n"
                 "(sleep 1000 & echo $! > $D/orphan)\n"
                 "echo $$ > $D/function\n"
                 "while :; do sleep 1000; done");
    pid_t pids[] = {await_pid(s, "deep"), await_pid(s, "child"), await_pid(s, "orphan"),
                    await_pid(s, "function")};
    for (size_t i = 0; i < 4; i++)
        CHECK(is_alive(pids[i]));
    (void)close(shim.lifeline);
    shim.lifeline = -1;
    CHECK(end(s, &shim) == 128 + SIGKILL);
    for (size_t i = 0; i < 4; i++)
        CHECK(!is_alive(pids[i]));
}

Test(shim, the_whole_tree_dies_with_the_lifeline_sessions_and_orphans_too, .timeout = 30)
{
    play_without_gateway(lifeline_closes);
}

static void leaves_behind(struct scene *s)
{
    struct shim shim = start(s, "setsid sleep 1000 & echo $! > $D/left; exit 3");
    pid_t left = await_pid(s, "left");
    CHECK(end(s, &shim) == 3);
    CHECK(!is_alive(left));
}

Test(shim, what_a_function_leaves_behind_is_killed, .timeout = 30)
{
    play_without_gateway(leaves_behind);
}

static void term_goes_on(struct scene *s)
{
    struct shim shim = start(s, "trap 'exit 9' TERM; echo $$ > $D/function; while :; do sleep 0.01; done");
    (void)await_pid(s, "function");
    CHECK(process_kill(shim.process, SIGTERM) == STATUS_OK);
    CHECK(end(s, &shim) == 9);
}

Test(shim, sigterm_goes_on_to_the_function, .timeout = 30)
{
    play_without_gateway(term_goes_on);
}

static void early_stop_signal(struct scene *s)
{
    struct shim shim = start(s, "echo $$ > $D/function; exec sleep 1000"); /* catches nothing */
    (void)await_pid(s, "function");
    CHECK(process_kill(shim.process, SIGUSR1) == STATUS_OK);
    CHECK(process_kill(shim.process, SIGUSR2) == STATUS_OK);
    int code;
    CHECK(process_wait(shim.process, clock_monotonic_ns() + 100 * NS_PER_MS, &code) ==
          STATUS_DEADLINE_EXCEEDED);
    CHECK(!process_has_exited(shim.process));
    (void)close(shim.lifeline);
    shim.lifeline = -1;
    CHECK(end(s, &shim) == 128 + SIGKILL);
}

Test(shim, balm_stop_does_not_end_a_function_that_cannot_catch_it_yet, .timeout = 30)
{
    play_without_gateway(early_stop_signal);
}

static void shim_killed(struct scene *s)
{
    struct shim shim = start(s, "echo $$ > $D/function; exec sleep 1000");
    pid_t function = await_pid(s, "function");
    CHECK(process_kill(shim.process, SIGKILL) == STATUS_OK);
    CHECK(end(s, &shim) == 128 + SIGKILL);
    CHECK(await(has_ended, &function));
}

Test(shim, the_function_does_not_outlive_the_shim, .timeout = 30)
{
    play_without_gateway(shim_killed);
}

static void limits(struct scene *s)
{
    CHECK(
        run(s,
            "grep NoNewPrivs /proc/self/status; ulimit -c; ulimit -H -c; [ $(cut -d' ' -f6 /proc/$$/stat) = $$ ] && echo leader") ==
        0);
    CHECK(sv_eq(output(s), SV("NoNewPrivs:\t1\n0\n0\nleader")));
}

Test(shim, the_function_gets_no_new_privs_no_core_and_a_session, .timeout = 30)
{
    play_without_gateway(limits);
}

/* "0" stays "0" anywhere; a right of the kernel's is needed to begin below it. */
static bool set_oom_score_adj(const char *value)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    bool is_set = write(fd, value, strlen(value)) > 0;
    (void)close(fd);
    return is_set;
}

static void protection(struct scene *s)
{
    CHECK(run(s, "cat /proc/self/oom_score_adj") == 0);
    CHECK(sv_eq(output(s), SV("0")));
}

Test(shim, the_function_is_not_protected_when_memory_runs_out, .timeout = 30)
{
    if (!set_oom_score_adj("-500")) cr_skip_test("protecting a process needs CAP_SYS_RESOURCE");
    play_without_gateway(protection);
}

static void first_to_go(struct scene *s)
{
    CHECK(run(s, "cat /proc/self/oom_score_adj") == 0);
    CHECK(sv_eq(output(s), SV("300")));
}

Test(shim, a_function_of_a_platform_that_goes_first_goes_first, .timeout = 30)
{
    CHECK(set_oom_score_adj("300"));
    play_without_gateway(first_to_go);
}

static void descriptors(struct scene *s)
{
    int leak = open("/etc/passwd", O_RDONLY); /* without O_CLOEXEC, on purpose */
    struct shim shim = start(s, "echo $$ > $D/function; exec sleep 1000");
    (void)close(leak);
    const char *path = arena_printf(&s->arena, "/proc/%d/fd", (int)await_pid(s, "function")).ptr;
    DIR *dir = opendir(path);
    unsigned seen = 0;
    CHECK(dir != NULL);
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        uint64_t fd;
        if (sv_parse_u64(sv(e->d_name), &fd) != STATUS_OK) continue;
        CHECK(fd <= 4); /* neither the lifeline (5) nor the shim's own */
        seen++;
    }
    (void)closedir(dir);
    CHECK(seen == 5);
    CHECK(process_kill(shim.process, SIGTERM) == STATUS_OK);
    CHECK(end(s, &shim) == 128 + SIGTERM);
}

Test(shim, the_function_inherits_its_descriptors_and_no_other, .timeout = 30)
{
    play_without_gateway(descriptors);
}

static void signal_mask(struct scene *s)
{
    CHECK(run(s, "grep SigBlk /proc/self/status") == 0);
    CHECK(sv_ends_with(output(s), SV("0000000000000000")));
}

Test(shim, the_function_starts_with_no_signal_blocked, .timeout = 30)
{
    play_without_gateway(signal_mask);
}
