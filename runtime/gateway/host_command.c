#include "gateway/host_command.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"

#define READ_BYTES 4096
#define DRAIN_GRACE_NS                                                                                       \
    (250 * NS_PER_MS) /* for the last words after the exit; what it left running may hold the pipe for ever  \
                       */
#define ARGV_MAX 256

const char *const host_command_env[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                                        "LANG=C.UTF-8", NULL};

struct host_command {
    const char *name; /* owned */
    struct process *process, *drain;
    int output, lifeline; /* our ends: its outputs, and what the drain waits for */
    struct fiber_scope scope;
    char words[HOST_COMMAND_WORDS_MAX];
    size_t n_words;
};

/* ---- what it says ---- */

static void keep_newest(struct host_command *c, const char *bytes, size_t n)
{
    if (n > sizeof(c->words)) {
        bytes += n - sizeof(c->words);
        n = sizeof(c->words);
    }
    size_t over = c->n_words + n > sizeof(c->words) ? c->n_words + n - sizeof(c->words) : 0;
    memmove(c->words, c->words + over, c->n_words - over);
    c->n_words -= over;
    memcpy(c->words + c->n_words, bytes, n);
    c->n_words += n;
}

static void listen_fiber(void *arg)
{
    struct host_command *c = arg;
    char bytes[READ_BYTES];
    int events;
    while (fd_wait(c->output, POLLIN, 0, &events) == STATUS_OK) {
        ssize_t n = read(c->output, bytes, sizeof(bytes));
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (n <= 0) return;
        keep_newest(c, bytes, (size_t)n);
    }
}

struct strview host_command_words(const struct host_command *c)
{
    return sv_n(c->words, c->n_words);
}

/* ---- start ---- */

static enum status refuse(const char *name, int errnum, struct error *err)
{
    return error_set(err, status_from_errno(errnum), "start '%s': %s", name, strerror(errnum));
}

/* Before the command: one without somebody who reads behind it is not started. */
static enum status start_drain(struct host_command *c, const char *shim_path, struct error *err)
{
    int lifeline[2];
    if (pipe2(lifeline, O_CLOEXEC) != 0) return refuse(c->name, errno, err);
    c->lifeline = lifeline[1];
    struct process_spec spec = {.argv = (const char *const[]){shim_path, "--drain", "3", NULL},
                                .cwd = "/",
                                .stdin_fd = c->output,
                                .stdout_fd = -1,
                                .stderr_fd = -1,
                                .extra_fds = lifeline,
                                .n_extra_fds = 1,
                                .new_session = true};
    enum status s = process_start(loop_current(), &spec, &c->drain, err);
    (void)close(lifeline[0]);
    return s;
}

static enum status start_process(struct host_command *c, const struct host_command_cfg *cfg, int output,
                                 struct error *err)
{
    char files[32];
    const char *argv[ARGV_MAX] = {cfg->shim_path, "--files", files, "--pid", "3", "--"};
    size_t n = 6;
    (void)snprintf(files, sizeof(files), "%llu", (unsigned long long)cfg->files_max);
    for (const char *const *arg = cfg->argv; *arg != NULL; arg++) {
        if (n == ARGV_MAX - 1)
            return error_set(err, STATUS_INVALID_ARGUMENT, "start '%s': more than %d arguments", c->name,
                             ARGV_MAX - 7);
        argv[n++] = *arg;
    }
    struct process_spec spec = {.argv = argv,
                                .env = host_command_env,
                                .cwd = "/",
                                .stdin_fd = -1,
                                .stdout_fd = output,
                                .stderr_fd = output,
                                .extra_fds = &cfg->pid_fd,
                                .n_extra_fds = 1,
                                .new_session = true};
    return process_start(loop_current(), &spec, &c->process, err);
}

static enum status start_all(struct host_command *c, const struct host_command_cfg *cfg, struct error *err)
{
    int ends[2];
    if (access(c->name, X_OK) != 0 || pipe2(ends, O_CLOEXEC) != 0) return refuse(c->name, errno, err);
    c->output = ends[0];
    enum status s = fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0 ? STATUS_OK : refuse(c->name, errno, err);
    if (s == STATUS_OK) s = start_drain(c, cfg->shim_path, err);
    if (s == STATUS_OK) s = fiber_scope_spawn(&c->scope, listen_fiber, c, err);
    if (s == STATUS_OK) s = start_process(c, cfg, ends[1], err);
    (void)close(ends[1]); /* ours would keep the pipe open for ever */
    return s;
}

enum status host_command_start(const struct host_command_cfg *cfg, struct host_command **ret_command,
                               struct error *err)
{
    struct host_command *c = mem_zalloc(1, sizeof(*c));
    size_t len = strlen(cfg->argv[0]) + 1;
    *c = (struct host_command){
        .name = memcpy(mem_alloc(len), cfg->argv[0], len), .output = -1, .lifeline = -1};
    fiber_scope_init(&c->scope);
    enum status s = start_all(c, cfg, err);
    if (s == STATUS_OK)
        *ret_command = c;
    else
        host_command_free(c);
    return s;
}

/* ---- the rest of its life ---- */

pid_t host_command_pid(const struct host_command *c)
{
    return process_pid(c->process);
}

enum status host_command_wait(struct host_command *c, int64_t deadline_ns, int *ret_exit, struct error *err)
{
    enum status s = process_wait(c->process, deadline_ns, ret_exit);
    if (s != STATUS_OK) {
        process_end_session(c->process);
        return error_set(err, s, "'%s' was still running at its limit; its session was killed", c->name);
    }
    (void)!fiber_event_wait(&c->scope.all_done, clock_monotonic_ns() + DRAIN_GRACE_NS);
    return STATUS_OK;
}

void host_command_free(struct host_command *c)
{
    if (c == NULL) return;
    fiber_scope_cancel(&c->scope);
    fiber_scope_join(&c->scope);
    process_free(c->process);
    process_free(c->drain); /* goes on, and is reaped by the loop when it has ended */
    if (c->output >= 0) (void)close(c->output);
    if (c->lifeline >= 0) (void)close(c->lifeline);
    free((char *)(uintptr_t)c->name);
    free(c);
}
