#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "loop/loop.h"

TestSuite(process, .timeout = 60);

static void in_fiber(fiber_fn *fn)
{
    struct loop *l = NULL;
    cr_assert_eq(loop_new(&l, NULL), STATUS_OK);
    cr_assert_eq(loop_run_fiber(l, fn, NULL, NULL), STATUS_OK);
    loop_free(l);
    cr_expect(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD, "a child or zombie is left");
}

static int64_t in_ms(int64_t ms)
{
    return clock_monotonic_ns() + ms * NS_PER_MS;
}

static const char *const path_env[] = {"PATH=/usr/bin:/bin", NULL};

#define SHELL(text)                                                                                          \
    (struct process_spec)                                                                                    \
    {                                                                                                        \
        .argv = (const char *const[]){"/bin/sh", "-c", (text), NULL}, .env = path_env, .stdin_fd = -1,       \
        .stdout_fd = -1, .stderr_fd = -1                                                                     \
    }

static struct process *start(const struct process_spec *spec)
{
    struct process *p = NULL;
    struct error err = {0};
    cr_assert_eq(process_start(loop_current(), spec, &p, &err), STATUS_OK, "%s", err.message);
    return p;
}

static int run_shell(const char *text)
{
    int code = -1;
    struct process *p = start(&SHELL(text));
    cr_assert_eq(process_wait(p, in_ms(10000), &code), STATUS_OK);
    cr_expect(process_has_exited(p));
    cr_expect_eq(process_wait(p, 0, &code), STATUS_OK, "again, at once");
    process_free(p);
    return code;
}

/* ---- ends ---- */

static void exit_codes(void *arg)
{
    (void)arg;
    cr_expect_eq(run_shell("exit 0"), 0);
    cr_expect_eq(run_shell("exit 7"), 7);
    cr_expect_eq(run_shell("kill -9 $$"), 128 + 9);
    cr_expect_eq(run_shell("kill -TERM $$"), 128 + 15);
}

Test(process, exit_code_or_signal_is_told)
{
    in_fiber(exit_codes);
}

static void many_at_once(void *arg)
{
    struct process *p[20];
    (void)arg;
    for (int i = 0; i < 20; i++)
        p[i] = start(&SHELL("exit 3"));
    for (int i = 0; i < 20; i++) {
        int code = 0;
        cr_assert_eq(process_wait(p[i], in_ms(10000), &code), STATUS_OK, "end of child %d went unseen", i);
        cr_expect_eq(code, 3);
        process_free(p[i]);
    }
}

Test(process, many_that_end_together_are_all_seen)
{
    in_fiber(many_at_once);
}

static void failures(void *arg)
{
    struct process *p = NULL;
    struct error err = {0};
    struct process_spec spec = SHELL("");
    (void)arg;
    spec.argv = (const char *const[]){"/nonexistent/program", NULL};
    cr_expect_eq(process_start(loop_current(), &spec, &p, &err), STATUS_NOT_FOUND);
    cr_expect_not_null(strstr(err.message, "/nonexistent/program"), "%s", err.message);
    spec.argv = (const char *const[]){"no-such-program-anywhere", NULL};
    cr_expect_eq(process_start(loop_current(), &spec, &p, &err), STATUS_NOT_FOUND);
    spec.argv = (const char *const[]){"/etc/passwd", NULL};
    cr_expect_eq(process_start(loop_current(), &spec, &p, &err), STATUS_PERMISSION_DENIED);
    spec.argv = (const char *const[]){NULL};
    cr_expect_eq(process_start(loop_current(), &spec, &p, &err), STATUS_INVALID_ARGUMENT);
    spec = SHELL("exit 0");
    spec.cwd = "/nonexistent";
    cr_expect_eq(process_start(loop_current(), &spec, &p, &err), STATUS_NOT_FOUND);
    spec.cwd = NULL;
    spec.n_extra_fds = 1000;
    cr_expect_eq(process_start(loop_current(), &spec, &p, &err), STATUS_INVALID_ARGUMENT);
    cr_expect_null(p);
}

Test(process, one_that_cannot_start_is_an_error_and_not_a_child)
{
    in_fiber(failures);
}

static void wait_and_kill(void *arg)
{
    int code = 0;
    (void)arg;
    struct process *p = start(&SHELL("exec sleep 100"));
    cr_expect_eq(process_wait(p, in_ms(20), &code), STATUS_DEADLINE_EXCEEDED);
    cr_expect_not(process_has_exited(p));
    cr_expect_eq(process_kill_group(p, SIGTERM), STATUS_FAILED_PRECONDITION);
    cr_expect_eq(process_kill(p, SIGTERM), STATUS_OK);
    cr_expect_eq(process_wait(p, in_ms(5000), &code), STATUS_OK);
    cr_expect_eq(code, 128 + SIGTERM);
    cr_expect_eq(process_kill(p, SIGTERM), STATUS_NOT_FOUND);
    pid_t pid = process_pid(p);
    cr_expect_eq(kill(pid, 0), 0, "its pid stays taken");
    process_free(p);
    cr_expect(kill(pid, 0) == -1 && errno == ESRCH, "until it is freed");
    process_free(NULL);
}

Test(process, wait_has_a_deadline_and_kill_ends_it)
{
    in_fiber(wait_and_kill);
}

static void abandon(void *arg)
{
    int ends[2], code;
    (void)arg;
    struct process *p = start(&SHELL("sleep 0.05"));
    pid_t pid = process_pid(p);
    process_free(p);
    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    for (int i = 0; i < 200 && kill(pid, 0) == 0; i++) /* a zombie can be signalled too */
        cr_assert_eq(sleep_ms(10), STATUS_OK);
    cr_expect(kill(pid, 0) == -1 && errno == ESRCH, "an abandoned child was not reaped");
    p = start(&SHELL("exit 5"));
    cr_expect_eq(process_wait(p, in_ms(5000), &code), STATUS_OK);
    cr_expect_eq(code, 5);
    process_free(p);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

Test(process, abandoned_child_is_reaped_by_the_loop)
{
    in_fiber(abandon);
}

struct waiting {
    struct process *process;
    enum status got;
};

static void wait_process(void *arg)
{
    struct waiting *w = arg;
    int code;
    w->got = process_wait(w->process, 0, &code);
}

static void cancel_wait(void *arg)
{
    struct waiting w = {start(&SHELL("exec sleep 100")), STATUS_UNKNOWN};
    struct fiber_scope s;
    int code;
    (void)arg;
    fiber_scope_init(&s);
    cr_assert_eq(fiber_scope_spawn(&s, wait_process, &w, NULL), STATUS_OK);
    cr_assert_eq(sleep_ms(5), STATUS_OK);
    fiber_scope_cancel(&s);
    fiber_scope_join(&s);
    cr_expect_eq(w.got, STATUS_CANCELLED);
    cr_expect_eq(process_kill(w.process, SIGKILL), STATUS_OK);
    cr_expect_eq(process_wait(w.process, in_ms(5000), &code), STATUS_OK);
    process_free(w.process);
}

Test(process, wait_can_be_cancelled)
{
    in_fiber(cancel_wait);
}

/* ---- what the child gets ---- */

struct ran {
    struct arena arena;
    struct process_result result;
    struct error err;
    enum status status;
};

static void run(struct ran *r, const char *text, struct strview input, size_t max_bytes, int64_t deadline_ns)
{
    *r = (struct ran){.status = STATUS_UNKNOWN};
    r->status = process_run(&SHELL(text), input, max_bytes, deadline_ns, &r->arena, &r->result, &r->err);
}

static void expect_output(const char *text, const char *expected)
{
    struct ran r;
    run(&r, text, SV(""), 10000, in_ms(10000));
    cr_assert_eq(r.status, STATUS_OK, "%s", r.err.message);
    cr_expect(sv_eq(r.result.stdout_text, sv(expected)), "%s: '%.*s' is not '%s'", text,
              SV_ARG(r.result.stdout_text), expected);
    cr_expect_eq(r.result.stderr_text.len, 0, "%.*s", SV_ARG(r.result.stderr_text));
    arena_release(&r.arena);
}

static void inheritance(void *arg)
{
    sigset_t some;
    (void)arg;
    int leaked = open("/dev/null", O_RDONLY); /* no O_CLOEXEC: somebody else's library */
    (void)signal(SIGUSR2, SIG_IGN);
    (void)sigemptyset(&some);
    (void)sigaddset(&some, SIGUSR1);
    (void)pthread_sigmask(SIG_BLOCK, &some, NULL);
    expect_output("exec ls /proc/self/fd", "0\n1\n2\n3\n"); /* 3 is the folder that ls reads */
    /* glibc's posix_spawn leaves its two internal signals (32 and 33) ignored; nobody can send those by name.
     */
    expect_output(
        "grep -E 'Sig(Blk|Ign)' /proc/$$/status | cut -f2 | sed s/0000000180000000/0000000000000000/ | sort -u",
        "0000000000000000\n");
    expect_output("env | grep -v -E '^(PWD|_|SHLVL|OLDPWD)='", "PATH=/usr/bin:/bin\n");
    expect_output("readlink /proc/self/fd/0", "/dev/null\n");
    expect_output("[ \"$(cut -d' ' -f6 /proc/$$/stat)\" = $$ ] && echo own session", "own session\n");
    (void)close(leaked);
}

Test(process, child_gets_nothing_but_what_is_named)
{
    in_fiber(inheritance);
}

/* Returns a descriptor at 100 or above from which the one letter is read. */
static int letter_fd(char letter)
{
    int p[2];
    cr_assert_eq(pipe2(p, O_CLOEXEC), 0);
    cr_assert_eq(write(p[1], &letter, 1), 1);
    (void)close(p[1]);
    int fd = fcntl(p[0], F_DUPFD_CLOEXEC, 100);
    (void)close(p[0]);
    return fd;
}

/* Sources that are each other's targets, 5 4 3 to become 3 4 5: naive dup2s would overwrite one before it is
 * used. */
static void crossed_fds(void *arg)
{
    int out[2], kept[3], code;
    char text[8] = "";
    struct process_spec spec = SHELL("cat <&3; cat <&4; cat <&5");
    (void)arg;
    cr_assert_eq(pipe2(out, O_CLOEXEC), 0);
    spec.stdout_fd = fcntl(out[1], F_DUPFD_CLOEXEC, 100);
    int in = fcntl(out[0], F_DUPFD_CLOEXEC, 100);
    for (int i = 0; i < 3; i++) { /* the loop's own are there: put aside meanwhile */
        kept[i] = fcntl(3 + i, F_DUPFD_CLOEXEC, 100);
        cr_assert_neq(kept[i], -1);
    }
    for (int i = 0; i < 3; i++)
        cr_assert_eq(dup3(letter_fd((char)('a' + i)), 5 - i, O_CLOEXEC), 5 - i);
    spec.extra_fds = (const int[]){5, 4, 3};
    spec.n_extra_fds = 3;
    struct process *process = start(&spec);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(dup3(kept[i], 3 + i, O_CLOEXEC), 3 + i);
    cr_assert_eq(process_wait(process, in_ms(5000), &code), STATUS_OK);
    cr_expect_eq(read(in, text, sizeof(text) - 1), 3);
    cr_expect_str_eq(text, "abc");
    process_free(process);
}

Test(process, descriptors_that_cross_arrive_where_they_should)
{
    in_fiber(crossed_fds);
}

static void cwd_and_path(void *arg)
{
    struct arena a = {0};
    struct process_result result;
    struct error err = {0};
    struct process_spec spec = {.argv = (const char *const[]){"pwd", NULL}, .cwd = "/usr"};
    (void)arg;
    cr_assert_eq(process_run(&spec, SV(""), 100, in_ms(10000), &a, &result, &err), STATUS_OK, "%s",
                 err.message);
    cr_expect(sv_eq(result.stdout_text, SV("/usr\n")), "%.*s", SV_ARG(result.stdout_text));
    spec.argv = (const char *const[]){"env", NULL};
    cr_assert_eq(process_run(&spec, SV(""), 100, in_ms(10000), &a, &result, &err), STATUS_OK, "%s",
                 err.message);
    cr_expect_eq(result.stdout_text.len, 0, "no env means none: %.*s", SV_ARG(result.stdout_text));
    arena_release(&a);
}

Test(process, name_is_looked_up_in_path_and_cwd_is_set)
{
    in_fiber(cwd_and_path);
}

/* Two folders with a program of one name: ours says "ours", the child's says "child's". */
static void name_in_the_env_s_path(void *arg)
{
    struct arena a = {0};
    struct process_result result;
    struct error err = {0};
    char folder[] = "/tmp/balm-path-XXXXXX";
    cr_assert_not_null(mkdtemp(folder));
    static const char *const who[] = {"ours", "childs"};
    for (unsigned i = 0; i < 2; i++) {
        const char *sub = arena_printf(&a, "%s/%s", folder, who[i]).ptr;
        cr_assert_eq(mkdir(sub, 0700), 0);
        const char *tool = arena_printf(&a, "%s/balm-tool", sub).ptr;
        cr_assert_eq(file_write_atomic(tool, arena_printf(&a, "#!/bin/sh\necho %s\n", who[i]), 0700, &err),
                     STATUS_OK);
        cr_assert_eq(chmod(tool, 0700), 0);
    }
    const char *before = arena_copy(&a, sv(getenv("PATH"))).ptr;
    (void)setenv("PATH", arena_printf(&a, "%s/ours:/usr/bin:/bin", folder).ptr, 1);
    const char *env[] = {arena_printf(&a, "PATH=relative::/nonexistent:%s/childs", folder).ptr, NULL};
    struct process_spec spec = {.argv = (const char *const[]){"balm-tool", NULL}, .env = env};
    cr_assert_eq(process_run(&spec, SV(""), 100, in_ms(10000), &a, &result, &err), STATUS_OK, "%s",
                 err.message);
    cr_expect(sv_eq(result.stdout_text, SV("childs\n")), "%.*s", SV_ARG(result.stdout_text));
    spec.env = NULL; /* no PATH: not ours either */
    cr_expect_eq(process_run(&spec, SV(""), 100, in_ms(10000), &a, &result, &err), STATUS_NOT_FOUND);
    (void)setenv("PATH", before, 1);
    for (unsigned i = 0; i < 2; i++) {
        (void)unlink(arena_printf(&a, "%s/%s/balm-tool", folder, who[i]).ptr);
        (void)rmdir(arena_printf(&a, "%s/%s", folder, who[i]).ptr);
    }
    (void)rmdir(folder);
    arena_release(&a);
    (void)arg;
}

Test(process, name_is_looked_up_in_the_path_it_is_given_and_not_in_ours)
{
    in_fiber(name_in_the_env_s_path);
}

/* ---- process_run ---- */

static void feed_and_collect(void *arg)
{
    struct ran r;
    size_t len = PROCESS_OUTPUT_MAX;
    char *big = malloc(len);
    (void)arg;
    for (size_t i = 0; i < len; i++)
        big[i] = (char)('a' + i % 26);

    run(&r, "cat; echo oops >&2; exit 4", SV("hello"), 1000, in_ms(10000));
    cr_assert_eq(r.status, STATUS_OK, "%s", r.err.message);
    cr_expect(sv_eq(r.result.stdout_text, SV("hello")));
    cr_expect(sv_eq(r.result.stderr_text, SV("oops\n")));
    cr_expect_eq(r.result.exit_code, 4);
    cr_expect_not(r.result.is_truncated);
    arena_release(&r.arena);

    run(&r, "cat", sv_n(big, len), PROCESS_OUTPUT_MAX,
        in_ms(20000)); /* far more than a pipe holds, both ways */
    cr_assert_eq(r.status, STATUS_OK, "%s", r.err.message);
    cr_expect(sv_eq(r.result.stdout_text, sv_n(big, len)));
    cr_expect_not(r.result.is_truncated, "exactly the maximum");
    arena_release(&r.arena);

    run(&r, "cat; exit 3", sv_n(big, len), 100000, in_ms(20000));
    cr_assert_eq(r.status, STATUS_OK, "%s", r.err.message);
    cr_expect(sv_eq(r.result.stdout_text, sv_n(big, 100000)));
    cr_expect(r.result.is_truncated);
    cr_expect_eq(r.result.exit_code, 3, "the rest was read, so that it could end");
    arena_release(&r.arena);

    run(&r, "exit 2", sv_n(big, len), 1000, in_ms(10000)); /* never reads its input */
    cr_assert_eq(r.status, STATUS_OK, "%s", r.err.message);
    cr_expect_eq(r.result.exit_code, 2);
    arena_release(&r.arena);
    free(big);
}

Test(process, run_feeds_collects_and_cuts)
{
    in_fiber(feed_and_collect);
}

/* ---- stderr, joined and shown ---- */

static void join_and_show(void *arg)
{
    struct arena a = {0};
    struct process_result result;
    struct error err;
    int pipe_ends[2], saved = dup(STDERR_FILENO);
    char shown[20000];
    struct process_spec spec = {
        .argv = (const char *const[]){"sh", "-c", "echo one; echo two >&2; echo three", NULL},
        .run_stderr = PROCESS_STDERR_JOINED};
    cr_assert_eq(process_run(&spec, SV(""), 100, in_ms(10000), &a, &result, &err), STATUS_OK, "%s",
                 err.message);
    cr_expect(sv_eq(result.stdout_text, SV("one\ntwo\nthree\n")), "%.*s", SV_ARG(result.stdout_text));
    cr_expect_eq(result.stderr_text.len, 0);

    cr_assert_eq(pipe(pipe_ends), 0);
    cr_assert_eq(dup2(pipe_ends[1], STDERR_FILENO), STDERR_FILENO);
    spec.argv = (const char *const[]){"sh", "-c",
                                      "printf 'a\\nb' >&2; head -c 9000 /dev/zero | tr '\\0' x >&2", NULL};
    spec.run_stderr = PROCESS_STDERR_SHOWN;
    enum status s = process_run(&spec, SV(""), 100, in_ms(10000), &a, &result, &err);
    (void)dup2(saved, STDERR_FILENO);
    (void)close(pipe_ends[1]);
    cr_assert_eq(s, STATUS_OK, "%s", err.message);
    cr_expect_eq(result.stderr_text.len, 100, "kept up to the limit");
    cr_expect_not(result.is_truncated, "and shown as a whole");
    size_t n = 0;
    for (ssize_t got = 1; got > 0; n += got > 0 ? (size_t)got : 0)
        got = read(pipe_ends[0], shown + n, sizeof(shown) - n);
    cr_expect_eq(n, 2 + 1 + 9000 + 3, "%zu bytes: a line, and one in three pieces", n);
    cr_expect(sv_starts_with(sv_n(shown, n), SV("a\nbxxx")) && shown[n - 1] == '\n');
    (void)close(pipe_ends[0]);
    (void)close(saved);
    arena_release(&a);
    (void)arg;
}

Test(process, stderr_is_joined_to_stdout_or_shown_line_by_line)
{
    in_fiber(join_and_show);
}

static bool is_alive(pid_t pid)
{
    return kill(pid, 0) == 0;
}

/* Reads pids that the child wrote to a file, one a line. */
static unsigned read_pids(const char *path, pid_t *ret_pids, unsigned max)
{
    unsigned n = 0;
    FILE *f = fopen(path, "re");
    for (int pid; f != NULL && n < max && fscanf(f, "%d", &pid) == 1;)
        ret_pids[n++] = pid;
    if (f != NULL) (void)fclose(f);
    return n;
}

/* The grandchildren end as orphans, reaped by init or whoever stands in for it: a zombie counts as dead. */
static bool is_gone(pid_t pid)
{
    char path[64], state = '?';
    if (!is_alive(pid)) return true;
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    FILE *f = fopen(path, "re");
    if (f == NULL) return true;
    if (fscanf(f, "%*d %*s %c", &state) != 1) state = '?';
    (void)fclose(f);
    return state == 'Z' || state == 'X';
}

static void make_temp(char *ret_path, size_t size, char *ret_dir, size_t dir_size)
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(ret_dir, dir_size, "%s/balm-process-XXXXXX", tmp != NULL ? tmp : "/tmp");
    cr_assert_not_null(mkdtemp(ret_dir));
    (void)snprintf(ret_path, size, "%s/pids", ret_dir);
}

static void kill_tree(void *arg)
{
    char dir[256], path[300], text[1200];
    struct ran r;
    pid_t pids[3];
    (void)arg;
    make_temp(path, sizeof(path), dir, sizeof(dir));
    /* One that ignores SIGTERM, and one in a process group of its own; only the session joins them. */
    (void)snprintf(
        text, sizeof(text),
        "echo $$ > %s; (trap '' TERM; while :; do sleep 1; done) & echo $! >> %s;"
        " perl -e 'setpgrp(0, 0); open(F, \">>\", shift); print F \"$$\\n\"; close(F); sleep(100)' %s & wait",
        path, path, path);
    int64_t start_ns = clock_monotonic_ns();
    run(&r, text, SV(""), 1000, in_ms(1000));
    cr_expect_eq(r.status, STATUS_DEADLINE_EXCEEDED);
    cr_expect_not_null(strstr(r.err.message, "/bin/sh"), "%s", r.err.message);
    cr_expect_lt(clock_monotonic_ns() - start_ns, 5000 * NS_PER_MS);
    cr_assert_eq(read_pids(path, pids, 3), 3);
    for (int i = 0; i < 3; i++) {
        for (int n = 0; n < 100 && !is_gone(pids[i]); n++)
            cr_assert_eq(sleep_ms(10), STATUS_OK);
        cr_expect(is_gone(pids[i]), "process %d of the session is alive", i);
    }
    arena_release(&r.arena);
    (void)unlink(path);
    (void)rmdir(dir);
}

Test(process, run_past_its_deadline_kills_the_whole_session)
{
    in_fiber(kill_tree);
}

static void stubborn(void *arg)
{
    struct ran r;
    (void)arg;
    int64_t start_ns = clock_monotonic_ns();
    run(&r, "trap '' TERM; while :; do sleep 1; done", SV(""), 1000, in_ms(100));
    int64_t took_ns = clock_monotonic_ns() - start_ns;
    cr_expect_eq(r.status, STATUS_DEADLINE_EXCEEDED);
    cr_expect_geq(took_ns, 2000 * NS_PER_MS, "SIGTERM gets its two seconds");
    cr_expect_lt(took_ns, 4000 * NS_PER_MS);
    arena_release(&r.arena);
}

Test(process, run_kills_what_ignores_sigterm_after_two_seconds)
{
    in_fiber(stubborn);
}

static void run_long(void *arg)
{
    run(arg, "exec sleep 100", SV(""), 1000, in_ms(60000));
}

static void cancel_run(void *arg)
{
    struct ran r;
    struct fiber_scope s;
    (void)arg;
    int64_t start_ns = clock_monotonic_ns();
    fiber_scope_init(&s);
    cr_assert_eq(fiber_scope_spawn(&s, run_long, &r, NULL), STATUS_OK);
    cr_assert_eq(sleep_ms(50), STATUS_OK);
    fiber_scope_cancel(&s);
    fiber_scope_join(&s);
    cr_expect_eq(r.status, STATUS_CANCELLED);
    cr_expect_lt(clock_monotonic_ns() - start_ns, 2000 * NS_PER_MS);
    arena_release(&r.arena);
    (void)fiber_set_deadline(1);
    run_long(&r);
    cr_expect_eq(r.status, STATUS_DEADLINE_EXCEEDED, "not even started");
    (void)fiber_set_deadline(0);
}

Test(process, run_that_is_cancelled_kills_and_says_so)
{
    in_fiber(cancel_run);
}

static void kill_orphans(void *arg)
{
    char dir[256], path[300], text[700];
    pid_t pid = 0;
    int code;
    struct process_spec spec;
    (void)arg;
    make_temp(path, sizeof(path), dir, sizeof(dir));
    (void)snprintf(text, sizeof(text), "sleep 100 & echo $! > %s", path);
    spec = SHELL(text);
    spec.new_session = true;
    struct process *p = start(&spec);
    cr_assert_eq(process_wait(p, in_ms(10000), &code), STATUS_OK);
    cr_assert_eq(read_pids(path, &pid, 1), 1);
    cr_expect_not(is_gone(pid));
    cr_expect_eq(process_kill_group(p, SIGKILL), STATUS_OK);
    for (int n = 0; n < 100 && !is_gone(pid); n++)
        cr_assert_eq(sleep_ms(10), STATUS_OK);
    cr_expect(is_gone(pid));
    process_free(p);
    (void)unlink(path);
    (void)rmdir(dir);
}

Test(process, group_can_be_killed_after_its_leader_has_exited)
{
    in_fiber(kill_orphans);
}

static void leaves_a_service(void *arg)
{
    char dir[256], path[300], text[700];
    struct ran r;
    pid_t pid = 0;
    (void)arg;
    make_temp(path, sizeof(path), dir, sizeof(dir));
    (void)snprintf(text, sizeof(text), "sleep 100 & echo $! > %s; echo started", path);
    int64_t start_ns = clock_monotonic_ns();
    run(&r, text, SV(""), 1000, in_ms(30000));
    cr_expect_eq(r.status, STATUS_OK, "%s", r.err.message);
    cr_expect(sv_eq(r.result.stdout_text, SV("started\n")));
    cr_expect_lt(clock_monotonic_ns() - start_ns, 5000 * NS_PER_MS,
                 "it holds the output open, but is not waited for");
    cr_assert_eq(read_pids(path, &pid, 1), 1);
    cr_expect_not(is_gone(pid), "what a child started in time stays");
    (void)kill(pid, SIGKILL);
    arena_release(&r.arena);
    (void)unlink(path);
    (void)rmdir(dir);
}

Test(process, run_leaves_alone_what_a_finished_child_started)
{
    in_fiber(leaves_a_service);
}

static void loud_child(void *arg)
{
    struct ran r;
    (void)arg;
    run(&r, "exec yes", SV(""), 1000, in_ms(100)); /* endless output, and the loop still sees the deadline */
    cr_expect_eq(r.status, STATUS_DEADLINE_EXCEEDED);
    arena_release(&r.arena);
}

Test(process, endless_output_cannot_hold_the_loop)
{
    in_fiber(loud_child);
}
