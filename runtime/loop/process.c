#include "loop/process_impl.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* A child that has ended is seen by WNOWAIT and reaped by process_free(): until then its pid, which is also
 * the id of its group and session, cannot become another process's, so killing by it is safe. */

#define PROCESS_FDS_MAX 64 /* of one child; a handful is the use */
#define PATH_DEFAULT    "/usr/bin:/bin"

/* ---- ends ---- */

static void process_note_exit(struct process *p, int exit_code)
{
    p->has_exited = true;
    p->exit_code = exit_code;
    fiber_event_set(&p->exited);
}

static void process_reap(struct process *p)
{
    siginfo_t info;
    if (!p->is_status_lost) (void)waitid(P_PID, (id_t)p->pid, &info, WEXITED | WNOHANG);
    list_remove(&p->node);
    free(p);
}

static void process_look(struct process *p)
{
    siginfo_t info = {0};
    if (waitid(P_PID, (id_t)p->pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0) {
        if (errno != ECHILD) return;
        p->is_status_lost = true; /* somebody else's wait took it */
        process_note_exit(p, PROCESS_EXIT_UNKNOWN);
        return;
    }
    if (info.si_pid != p->pid) return;
    process_note_exit(p, info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status);
}

/* SIGCHLDs coalesce, so each of our children is asked. */
static void on_child_signal(uv_signal_t *handle, int signum)
{
    struct loop *l = container_of(handle, struct loop, child_signal);
    (void)signum;
    for (struct list *node = l->processes.next, *next; node != &l->processes; node = next) {
        struct process *p = container_of(node, struct process, node);
        next = node->next;
        if (!p->has_exited) process_look(p);
        if (p->has_exited && p->is_abandoned) process_reap(p);
    }
}

/* Before the first child starts, or its end might go unseen. */
static enum status watch_children(struct loop *l, struct error *err)
{
    sigset_t set;
    if (l->is_watching_children) return STATUS_OK;
    int rc = uv_signal_init(&l->uv, &l->child_signal);
    if (rc != 0) return error_set(err, status_from_errno(-rc), "catch SIGCHLD: %s", uv_strerror(rc));
    l->is_watching_children = true;
    rc = uv_signal_start(&l->child_signal, on_child_signal, SIGCHLD);
    if (rc != 0) return error_set(err, status_from_errno(-rc), "catch SIGCHLD: %s", uv_strerror(rc));
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGCHLD);
    (void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    return STATUS_OK;
}

void loop_processes_close(struct loop *l)
{
    while (!list_is_empty(&l->processes)) /* one still running falls to init */
        process_reap(container_of(l->processes.next, struct process, node));
    if (l->is_watching_children) uv_close((uv_handle_t *)&l->child_signal, NULL);
}

/* ---- start ---- */

struct spawn_plan { /* what posix_spawn is told, and the duplicates that make descriptors safe to move */
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int fds[PROCESS_FDS_MAX];
    unsigned n_fds;
    const char *step; /* the last one tried, for the message */
};

static int source_fd(const struct process_spec *spec, unsigned target)
{
    switch (target) {
    case 0:
        return spec->stdin_fd;
    case 1:
        return spec->stdout_fd;
    case 2:
        return spec->stderr_fd;
    default:
        return spec->extra_fds[target - 3];
    }
}

/* Duplicates lie above every target, so that moving one never overwrites another's source. */
static int plan_fd(struct spawn_plan *plan, const struct process_spec *spec, unsigned target,
                   unsigned n_targets)
{
    int from = source_fd(spec, target), opened = -1;
    if (from < 0) from = opened = open("/dev/null", O_RDWR | O_CLOEXEC);
    int fd = from < 0 ? -1 : fcntl(from, F_DUPFD_CLOEXEC, (int)n_targets);
    int failed = errno;
    if (opened >= 0) (void)close(opened);
    if (fd < 0) return failed;
    plan->fds[plan->n_fds++] = fd;
    return posix_spawn_file_actions_adddup2(&plan->actions, fd, (int)target);
}

static int plan_actions(struct spawn_plan *plan, const struct process_spec *spec)
{
    unsigned n_targets = 3 + spec->n_extra_fds;
    int rc = 0;
    plan->step = "descriptors";
    for (unsigned target = 0; target < n_targets && rc == 0; target++)
        rc = plan_fd(plan, spec, target, n_targets);
    if (rc == 0) rc = posix_spawn_file_actions_addclosefrom_np(&plan->actions, (int)n_targets);
    if (rc == 0 && spec->cwd != NULL) rc = posix_spawn_file_actions_addchdir_np(&plan->actions, spec->cwd);
    return rc;
}

static int plan_attributes(struct spawn_plan *plan, const struct process_spec *spec)
{
    sigset_t all, none;
    short flags = POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK;
    if (spec->new_session) flags = (short)(flags | POSIX_SPAWN_SETSID);
    (void)sigfillset(&all);
    (void)sigemptyset(&none);
    plan->step = "signals";
    int rc = posix_spawnattr_setsigdefault(&plan->attributes, &all);
    if (rc == 0) rc = posix_spawnattr_setsigmask(&plan->attributes, &none);
    if (rc == 0) rc = posix_spawnattr_setflags(&plan->attributes, flags);
    return rc;
}

static struct strview path_of(const char *const *env)
{
    for (; *env != NULL; env++)
        if (strncmp(*env, "PATH=", 5) == 0) return sv(*env + 5);
    return SV(PATH_DEFAULT);
}

/* By the child's own PATH: ours, which whoever started us chose, has no say in what runs. An empty or
 * relative folder in it counts for nothing: that would be the child's cwd. Returns an errno. */
static int find_program(const char *name, const char *const *env, char ret_path[PATH_MAX])
{
    struct strview rest = path_of(env), folder;
    int failed = ENOENT;
    if (strchr(name, '/') != NULL)
        return (size_t)snprintf(ret_path, PATH_MAX, "%s", name) < PATH_MAX ? 0 : ENAMETOOLONG;
    while (sv_next(&rest, ':', &folder)) {
        if (!sv_starts_with(folder, SV("/"))) continue;
        int n = snprintf(ret_path, PATH_MAX, "%.*s/%s", SV_ARG(folder), name);
        if (n < 0 || n >= PATH_MAX) continue;
        if (access(ret_path, X_OK) == 0) return 0;
        if (errno == EACCES) failed = EACCES;
    }
    return failed;
}

enum status process_find(const char *name, const char *const *env, char ret_path[PATH_MAX], struct error *err)
{
    int failed = find_program(name, env, ret_path);
    if (failed == 0) return STATUS_OK;
    struct strview path = path_of(env);
    return error_set(err, status_from_errno(failed), "no program '%s' in %.*s", name,
                     SV_ARG(sv_sub(path, 0, 200)));
}

/* posix_spawn rather than fork: vfork's speed whatever our size, and the errno of a failed exec. */
static int spawn_child(const struct process_spec *spec, pid_t *ret_pid, const char **ret_step)
{
    static const char *const no_env[] = {NULL};
    const char *const *env = spec->env != NULL ? spec->env : no_env;
    char program[PATH_MAX];
    struct spawn_plan plan = {.step = "memory"};
    *ret_step = "exec";
    int rc = find_program(spec->argv[0], env, program);
    if (rc != 0) return rc;
    rc = posix_spawn_file_actions_init(&plan.actions);
    if (rc != 0) return rc;
    rc = posix_spawnattr_init(&plan.attributes);
    if (rc == 0) rc = plan_actions(&plan, spec);
    if (rc == 0) rc = plan_attributes(&plan, spec);
    if (rc == 0) {
        plan.step = spec->cwd == NULL ? "exec" : "chdir or exec";
        rc = posix_spawn(ret_pid, program, &plan.actions, &plan.attributes, (char *const *)spec->argv,
                         (char *const *)env);
    }
    for (unsigned i = 0; i < plan.n_fds; i++)
        (void)close(plan.fds[i]);
    (void)posix_spawnattr_destroy(&plan.attributes);
    (void)posix_spawn_file_actions_destroy(&plan.actions);
    *ret_step = plan.step;
    return rc;
}

enum status process_start(struct loop *l, const struct process_spec *spec, struct process **ret_process,
                          struct error *err)
{
    if (spec->argv == NULL || spec->argv[0] == NULL || spec->argv[0][0] == '\0')
        return error_set(err, STATUS_INVALID_ARGUMENT, "start a process: no program named");
    if (spec->n_extra_fds > PROCESS_FDS_MAX - 3) {
        return error_set(err, STATUS_INVALID_ARGUMENT, "start '%s': %u extra descriptors, the limit is %d",
                         spec->argv[0], spec->n_extra_fds, PROCESS_FDS_MAX - 3);
    }
    enum status s = watch_children(l, err);
    if (s != STATUS_OK) return s;
    struct process *p = calloc(1, sizeof(*p));
    if (p == NULL)
        return error_set(err, STATUS_RESOURCE_EXHAUSTED, "start '%s': out of memory", spec->argv[0]);
    p->is_leader = spec->new_session;
    fiber_event_init(&p->exited);

    const char *step = "";
    int rc = spawn_child(spec, &p->pid, &step);
    if (rc != 0) {
        free(p);
        s = rc == EAGAIN ? STATUS_RESOURCE_EXHAUSTED : status_from_errno(rc);
        return error_set(err, s, "start '%s' (%s): %s", spec->argv[0], step, strerror(rc));
    }
    list_push_back(&l->processes, &p->node);
    *ret_process = p;
    return STATUS_OK;
}

/* ---- the rest of its life ---- */

pid_t process_pid(const struct process *p)
{
    return p->pid;
}

bool process_has_exited(const struct process *p)
{
    return p->has_exited;
}

enum status process_wait(struct process *p, int64_t deadline_ns, int *ret_exit)
{
    enum status s = fiber_event_wait(&p->exited, deadline_ns);
    if (s == STATUS_OK) *ret_exit = p->exit_code;
    return s;
}

enum status process_kill(struct process *p, int signal)
{
    if (p->has_exited) return STATUS_NOT_FOUND;
    if (kill(p->pid, signal) == 0) return STATUS_OK;
    return errno == ESRCH ? STATUS_NOT_FOUND : status_from_errno(errno);
}

enum status process_kill_group(struct process *p, int signal)
{
    if (!p->is_leader) return STATUS_FAILED_PRECONDITION;
    if (p->is_status_lost) return STATUS_NOT_FOUND; /* the pid may be anybody's */
    if (kill(-p->pid, signal) == 0) return STATUS_OK;
    return errno == ESRCH ? STATUS_NOT_FOUND : status_from_errno(errno);
}

bool process_is_no_more(struct strview pid)
{
    uint64_t number;
    if (sv_parse_u64(pid, &number) != STATUS_OK || number > INT_MAX) return false;
    return number == (uint64_t)getpid() || (kill((pid_t)number, 0) != 0 && errno == ESRCH);
}

void process_free(struct process *p)
{
    if (p == NULL) return;
    assert(list_is_empty(&p->exited.waiters));
    if (p->has_exited)
        process_reap(p);
    else
        p->is_abandoned = true;
}
