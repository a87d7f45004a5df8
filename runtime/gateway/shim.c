/* balm-shim: stands between the platform and one function process, so that nothing outlives the platform
 * unknown.
 *
 *   balm-shim LIFELINE-FD [-m MEMORY-BYTES] [-g CONTROL-GROUP]... [SANDBOX] -- PROGRAM [ARG …]
 *
 *   platform --(pipe, write end)--> shim --fork, exec--> function --…--> whatever it starts
 *
 * - The platform holds the write end of the lifeline and never writes. Its end (also by kill -9 of the
 *   platform) means: kill everything below, now. An act that was under way is found without outcome by the
 *   next platform, which must not meet the old process still acting.
 * - As subreaper the shim inherits every orphan below, so "everything" is found through
 *   /proc/self/task/TID/children.
 * - Should the shim itself be killed (kill -9, out of memory), the function dies with it; what that had
 *   started is then beyond reach.
 * - SIGTERM goes on to the function (drain); its exit code becomes ours, 128 + signal if it was killed. What
 *   it left behind is killed.
 * - The function gets its sandbox (shim_sandbox.h), no_new_privs, its limits, its control groups (the shim
 *   stays outside), no protection from the out-of-memory killer, a session of its own, and the descriptors
 *   below the lifeline's.
 *
 *   SANDBOX: -u UID            a user of its own, and a group of that number
 *            -l ABI            Landlock, as far as that version of it goes
 *            -s                seccomp
 *            -r|-w|-d PATH     reads and runs | writes as well, but does not run | reads and removes files
 *            -x                may make unix sockets
 *            -b                may bind TCP ports
 *            -t                may trace itself
 *
 *   balm-shim --confined [SANDBOX] -- PROGRAM [ARG …]
 *
 * - Becomes PROGRAM in the sandbox, with the descriptors 0 to 2.
 *
 *   balm-shim --files N --pid FD -- PROGRAM [ARG …]
 *
 * - Becomes PROGRAM: a command on the host, which may have N descriptors open (0: as many as we). Before
 *   that it writes its pid, which stays the command's, to FD: whoever kills the platform at any instant
 *   leaves either no command or one whose pid is known.
 *
 *   balm-shim --drain LIFELINE-FD
 *
 *   command, and what it leaves running --(pipe: stdout, stderr)--> platform reads, while it waits
 *                                                              +--> drain reads to nowhere, once the
 *                                                                   lifeline ends
 *
 * - A service that was started by hand writes to the pipe for years. If nobody read, it would die of SIGPIPE
 *   at its next line, or stand still once the pipe is full; a file in its place would grow without end. The
 *   drain ends when nobody has the pipe any more.
 *
 * Linked statically and without our libraries, so that it starts in well under a millisecond. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gateway/shim_sandbox.h"

#define GROUPS_MAX      4
#define EXIT_USAGE      125
#define EXIT_CANNOT_RUN 126
#define EXIT_NOT_FOUND  127

int shim_fail(const char *what)
{
    fprintf(stderr, "balm-shim: %s: %s\n", what, strerror(errno));
    return EXIT_USAGE;
}

int shim_fail_exec(const char *program)
{
    int e = errno;
    (void)shim_fail(program);
    return e == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN;
}

static int parse_fd(const char *text)
{
    char *end;
    long v = strtol(text, &end, 10);
    return *text != '\0' && *end == '\0' && v >= 0 && v < 1 << 20 ? (int)v : -1;
}

static void each_child(pid_t parent, void (*visit)(pid_t child, int arg), int arg)
{
    char path[64], text[4096];
    (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)parent, (int)parent);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    (void)close(fd);
    if (n <= 0) return;
    text[n] = '\0';
    char *rest = text;
    for (;;) {
        char *end;
        long pid = strtol(rest, &end, 10);
        if (end == rest) return;
        if (*end != '\0') visit((pid_t)pid, arg); /* a number cut off by the buffer is not a pid */
        rest = end;
    }
}

static void signal_one(pid_t pid, int signo)
{
    (void)kill(pid, signo);
}

/* Orphans of ours become direct children, so repeating it reaches everything. */
static void kill_children(int signo)
{
    each_child(getpid(), signal_one, signo);
}

/* All that have ended are reaped between two looks: one a look would signal the others again for each, and of
 * a fork bomb's thousands most would outlive us, who are given a few seconds. */
static void kill_everything(void)
{
    for (;;) {
        kill_children(SIGKILL);
        int status;
        if (waitpid(-1, &status, 0) < 0 && errno == ECHILD) return;
        while (waitpid(-1, &status, WNOHANG) > 0) {
        }
    }
}

static int exit_code_of(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* The platform may be protected when memory runs out (balm.service is); what it runs is not. Raising needs no
 * right. A container may forbid it: then it is as it was. */
static void give_up_protection(void)
{
    int fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
    char now = '0';
    if (fd < 0) return;
    if (pread(fd, &now, 1, 0) == 1 && now == '-') (void)!pwrite(fd, "0", 1, 0);
    (void)close(fd);
}

static void set_limits(unsigned long long memory_bytes)
{
    if (memory_bytes == 0) return;
    struct rlimit memory = {memory_bytes, memory_bytes};
    (void)setrlimit(RLIMIT_DATA, &memory);
}

struct confines {
    unsigned long long memory_bytes;
    const char *groups[GROUPS_MAX];
    size_t n_groups;
    struct sandbox sandbox;
};

/* By its name first: a script's interpreter looks for the script by it. By the descriptor where the folders
 * on the way are closed to its user, as those of a build below /root are. */
static int run_program(char **argv, int program_fd)
{
    (void)execv(argv[0], argv);
    if (errno == EACCES) {
        (void)syscall(SYS_execveat, program_fd, "", argv, environ, AT_EMPTY_PATH);
        if (errno == ENOENT) errno = EACCES; /* a script without its name */
    }
    return shim_fail_exec(argv[0]);
}

static int become_confined(char **argv, const struct confines *confines, int first_fd)
{
    int program_fd;
    int code = sandbox_enter(&confines->sandbox, argv[0], first_fd, &program_fd);
    return code == 0 ? run_program(argv, program_fd) : code;
}

static void become_function(char **argv, pid_t shim, const sigset_t *mask, int lifeline,
                            const struct confines *confines)
{
    int program_fd;
    /* `balm stop` may come before the function can catch its signals: that must not end it. It is told again.
     */
    (void)signal(SIGUSR1, SIG_IGN);
    (void)signal(SIGUSR2, SIG_IGN);
    (void)setsid();
    (void)sigprocmask(SIG_SETMASK, mask, NULL);
    give_up_protection();
    set_limits(confines->memory_bytes);
    int code = sandbox_enter(&confines->sandbox, argv[0], lifeline, &program_fd);
    if (code != 0) _exit(code);
    /* Should the shim itself be killed, the function goes with it. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) _exit(shim_fail("set the death signal"));
    if (getppid() != shim) _exit(128 + SIGKILL);
    _exit(run_program(argv, program_fd));
}

/* Reaps what has ended; true with its exit code once the function itself has. */
static int reap(pid_t function, int *ret_code)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid != function) continue;
        *ret_code = exit_code_of(status);
        return 1;
    }
    return 0;
}

/* The kernel takes some 20 ms to move a process into a group, and no request shall wait for that: the
 * function starts meanwhile, and whatever it has started by then is moved after it. */
static void enter_with_children(pid_t pid, int procs_fd)
{
    (void)dprintf(procs_fd, "%d", (int)pid); /* it may have ended */
    each_child(pid, enter_with_children, procs_fd);
}

static int enter_groups(pid_t function, const struct confines *confines)
{
    for (size_t i = 0; i < confines->n_groups; i++) {
        char path[1024];
        (void)snprintf(path, sizeof(path), "%s/cgroup.procs", confines->groups[i]);
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd < 0 || (dprintf(fd, "%d", (int)function) < 0 && errno != ESRCH)) {
            int code = shim_fail(path);
            kill_everything(); /* not without the limit that was promised */
            return code;
        }
        each_child(function, enter_with_children, fd);
        (void)close(fd);
    }
    return 0;
}

static int watch(pid_t function, int lifeline, int signals)
{
    struct pollfd fds[] = {{.fd = lifeline, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
    int code = 0;
    for (;;) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR) return shim_fail("poll");
        if (fds[0].revents != 0) {
            kill_everything();
            return 128 + SIGKILL;
        }
        struct signalfd_siginfo info;
        while (read(signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
            if (info.ssi_signo != SIGCHLD) (void)kill(function, (int)info.ssi_signo);
        if (reap(function, &code)) {
            kill_everything();
            return code;
        }
    }
}

static int drain(int lifeline)
{
    char bytes[4096];
    struct pollfd fds[] = {{.fd = STDIN_FILENO}, {.fd = lifeline, .events = POLLIN}};
    (void)signal(SIGTERM, SIG_IGN); /* it ends with those it serves, not before them */
    (void)signal(SIGHUP, SIG_IGN);
    (void)signal(SIGINT, SIG_IGN);
    while (fds[1].revents == 0) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR) return shim_fail("poll");
        if (fds[0].revents != 0) return 0; /* nobody writes any more */
    }
    fds[0].events = POLLIN;
    for (;;) {
        ssize_t n = read(STDIN_FILENO, bytes, sizeof(bytes));
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return 0;
        if (n < 0 && poll(fds, 1, -1) < 0 && errno != EINTR) return shim_fail("poll");
    }
}

/* The hard limit stays: the service may raise its own, as if it had been started by hand. */
static int become_command(char **argv, unsigned long long files, int pid_fd)
{
    struct rlimit limit;
    char pid[32];
    int n = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
    if (write(pid_fd, pid, (size_t)n) != n) return shim_fail("note the pid");
    (void)close(pid_fd);
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return shim_fail("read the limit of descriptors");
    if (files > 0 && files < limit.rlim_max) limit.rlim_cur = files;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) return shim_fail("set the limit of descriptors");
    (void)execv(argv[0], argv);
    return shim_fail_exec(argv[0]);
}

static int usage(void)
{
    fputs(
        "usage: balm-shim LIFELINE-FD [-m MEMORY-BYTES] [-g CONTROL-GROUP]... [SANDBOX] -- PROGRAM [ARG ...]\n"
        "       balm-shim --confined [SANDBOX] -- PROGRAM [ARG ...]\n"
        "       balm-shim --files N --pid FD -- PROGRAM [ARG ...]\n"
        "       balm-shim --drain LIFELINE-FD\n"
        "SANDBOX: [-u UID] [-l LANDLOCK-ABI] [-s] [-r|-w|-d PATH]... [-x] [-b] [-t]\n",
        stderr);
    return EXIT_USAGE;
}

static bool take_option(struct confines *c, int option, const char *value)
{
    struct sandbox *s = &c->sandbox;
    switch (option) {
    case 'm':
        c->memory_bytes = strtoull(value, NULL, 10);
        return true;
    case 'u':
        s->uid = (unsigned)strtoul(value, NULL, 10);
        return true;
    case 'l':
        s->landlock_abi = (int)strtol(value, NULL, 10);
        return true;
    case 's':
        return s->has_seccomp = true;
    case 'x':
        return s->has_unix_sockets = true;
    case 'b':
        return s->may_bind = true;
    case 't':
        return s->may_trace = true;
    case 'g':
        if (c->n_groups == GROUPS_MAX) return false;
        c->groups[c->n_groups++] = value;
        return true;
    case 'r':
    case 'w':
    case 'd':
        if (s->n_paths == SANDBOX_PATHS_MAX) return false;
        s->paths[s->n_paths++] = (struct sandbox_path){.access = (char)option, .path = value};
        return true;
    default:
        return false;
    }
}

/* Where PROGRAM stands; 0: none, or a wrong option. */
static int take_options(struct confines *ret_confines, int argc, char **argv)
{
    int option;
    opterr = 0;
    for (optind = 2; (option = getopt(argc, argv, "+m:g:u:l:sr:w:d:xbt")) != -1;)
        if (!take_option(ret_confines, option, optarg)) return 0;
    return optind < argc && strcmp(argv[optind - 1], "--") == 0 ? optind : 0;
}

static int supervise(char **argv, int lifeline, const struct confines *confines)
{
    sigset_t mine, before;
    (void)sigemptyset(&mine);
    (void)sigaddset(&mine, SIGCHLD);
    (void)sigaddset(&mine, SIGTERM);
    (void)sigaddset(&mine, SIGINT);
    (void)sigaddset(&mine, SIGUSR1);
    (void)sigaddset(&mine, SIGUSR2);
    (void)sigprocmask(SIG_BLOCK, &mine, &before);
    int signals = signalfd(-1, &mine, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0) return shim_fail("signalfd");
    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0) return shim_fail("become subreaper");
    pid_t shim = getpid(), function = fork();
    if (function < 0) return shim_fail("fork");
    if (function == 0) become_function(argv, shim, &before, lifeline, confines);
    /* The function's descriptors are its own now: an open listener here would keep its port alive after it.
     */
    for (int fd = 3; fd < 1024; fd++)
        if (fd != lifeline && fd != signals) (void)close(fd);
    int code = enter_groups(function, confines);
    return code == 0 ? watch(function, lifeline, signals) : code;
}

int main(int argc, char **argv)
{
    struct confines confines = {0};
    if (argc == 3 && strcmp(argv[1], "--drain") == 0)
        return parse_fd(argv[2]) < 0 ? usage() : drain(parse_fd(argv[2]));
    if (argc > 6 && strcmp(argv[1], "--files") == 0 && strcmp(argv[3], "--pid") == 0 &&
        parse_fd(argv[4]) >= 0 && strcmp(argv[5], "--") == 0)
        return become_command(argv + 6, strtoull(argv[2], NULL, 10), parse_fd(argv[4]));
    int program = argc > 1 ? take_options(&confines, argc, argv) : 0;
    if (program == 0) return usage();
    if (strcmp(argv[1], "--confined") == 0)
        return become_confined(argv + program, &confines, STDERR_FILENO + 1);
    int lifeline = parse_fd(argv[1]);
    return lifeline >= 0 ? supervise(argv + program, lifeline, &confines) : usage();
}
