/* A child process writes what the followers hold, as it is at the fork, while this one goes on: the kernel
 * copies only the pages that change meanwhile, and nothing has to be written twice or kept still.
 *
 *   fork --child: parts to snapshot.tmp, exit
 *     |
 *     +-- wait for the child, then until the last record it knew is durable --> hash, fsync, rename
 *
 * The child has this thread alone, so it may take no lock that another one may have held; malloc's are looked
 * after by the C library. It drops every descriptor but its file: the data folder's lock, listening sockets
 * and the ends of pipes that say "the platform lives" must not outlive us in it. */
#include "store/journal_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "log/log.h"

#define DURABLE_WAIT_NS (60 * NS_PER_S)
#define RETRY_NS        (60 * NS_PER_S)
enum { CHILD_SECONDS = 120, OUTPUT_FD = 3 };

/* One that outlived its parent would write into the next platform's draft, which has the same name. */
static _Noreturn void child_main(struct journal *j, int fd, uint64_t seq, pid_t parent)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(ESRCH); /* killed before the line above */
    if (fd != OUTPUT_FD && dup2(fd, OUTPUT_FD) < 0) _exit(errno);
    (void)close_range(OUTPUT_FD + 1, ~0U, 0);
    (void)alarm(CHILD_SECONDS);
    _exit(snapshot_draft_write(OUTPUT_FD, seq, &j->followers) ? 0 : errno);
}

/* Signals stay blocked in the child but for the alarm: our handlers would tell the parent's loop. */
static pid_t fork_child(struct journal *j, int fd, uint64_t seq)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)sigdelset(&all, SIGALRM);
    (void)pthread_sigmask(SIG_BLOCK, &all, &before);
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) child_main(j, fd, seq, parent);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return pid;
}

struct child_work {
    pid_t pid;
    int status;
};

static void do_wait(void *arg)
{
    struct child_work *w = arg;
    w->status = -1; /* no exit code, no signal: unless the child says otherwise, it failed */
    while (waitpid(w->pid, &w->status, 0) < 0 && errno == EINTR) {
    }
}

static enum status run_child(struct journal *j, int fd, uint64_t seq, struct error *err)
{
    struct child_work w = {.pid = fork_child(j, fd, seq)};
    if (w.pid < 0) return error_set(err, STATUS_UNAVAILABLE, "fork: %s", strerror(errno));
    work_run(do_wait, &w);
    if (WIFEXITED(w.status) && WEXITSTATUS(w.status) == 0) return STATUS_OK;
    if (WIFSIGNALED(w.status))
        return error_set(err, STATUS_UNAVAILABLE, "its writer was ended by signal %d", WTERMSIG(w.status));
    return error_set(err, STATUS_UNAVAILABLE, "its writer: %s", strerror(WEXITSTATUS(w.status)));
}

struct file_work {
    struct snapshot_draft *draft;
    const char *dir;
    uint64_t seq;
    uint8_t record_hash[SHA256_BYTES];
    bool is_given_up;
    struct error *err;
    enum status status;
};

static void do_draft(void *arg)
{
    struct file_work *w = arg;
    w->status = snapshot_draft_open(w->dir, w->draft, w->err);
}

static void do_finish(void *arg)
{
    struct file_work *w = arg;
    if (w->is_given_up)
        snapshot_draft_discard(w->draft);
    else
        w->status = snapshot_draft_finish(w->draft, w->dir, w->seq, w->record_hash, w->err);
}

static enum status hash_record(struct journal *j, uint64_t seq, uint8_t ret_hash[SHA256_BYTES],
                               struct error *err)
{
    struct arena a = {0};
    struct journal_entry *entries = NULL;
    size_t n = 0;
    enum status s = journal_read(j, seq, 1, false, &a, &entries, &n, err);
    if (s == STATUS_OK && n == 0)
        s = error_set(err, STATUS_DATA_LOSS, "record %" PRIu64 " cannot be read", seq);
    if (s == STATUS_OK) sha256(entries[0].bytes, ret_hash);
    arena_release(&a);
    return s;
}

static enum status check_is_ready(const struct journal *j, struct error *err)
{
    if (j->snapshots_dir == NULL || !j->is_folded)
        return error_set(err, STATUS_FAILED_PRECONDITION, "the journal is not folded%s",
                         j->snapshots_dir == NULL ? ", and no folder was given" : "");
    if (j->is_healthy && !j->is_folding && !j->is_closing) return STATUS_OK;
    return error_set(err, STATUS_UNAVAILABLE, "the store is not ready");
}

/* After a reset the sequences mean other records. */
static enum status write_and_settle(struct journal *j, struct snapshot_draft *draft, struct file_work *w,
                                    struct error *err)
{
    uint64_t generation = j->generation;
    enum status s = check_is_ready(j, err); /* it may have failed while the file was opened */
    if (s != STATUS_OK) return s;
    w->seq = j->last_seq;
    s = run_child(j, draft->fd, w->seq, err);
    if (s == STATUS_OK) s = journal_wait_durable(j, w->seq, clock_monotonic_ns() + DURABLE_WAIT_NS, err);
    if (s == STATUS_OK && generation != j->generation)
        s = error_set(err, STATUS_UNAVAILABLE, "the store was reopened meanwhile");
    return s == STATUS_OK ? hash_record(j, w->seq, w->record_hash, err) : s;
}

enum status journal_snapshot(struct journal *j, struct error *err)
{
    enum status s = check_is_ready(j, err);
    if (s == STATUS_OK && j->is_snapshotting) s = error_set(err, STATUS_UNAVAILABLE, "one is being written");
    if (s != STATUS_OK) return error_prefix(err, s, "write a snapshot");
    if (j->last_seq <= j->snapshot_seq) return STATUS_OK;
    struct snapshot_draft draft = {.fd = -1};
    struct file_work w = {.draft = &draft, .dir = j->snapshots_dir, .err = err};
    int64_t began_ns = clock_monotonic_ns();
    j->is_snapshotting = true;
    fiber_shield_begin(); /* the child must not outlive the call */
    work_run(do_draft, &w);
    s = w.status;
    if (s == STATUS_OK) {
        s = write_and_settle(j, &draft, &w, err);
        w.is_given_up = s != STATUS_OK;
        work_run(do_finish, &w);
        if (s == STATUS_OK) s = w.status;
    }
    fiber_shield_end();
    j->is_snapshotting = false;
    if (s != STATUS_OK) return error_prefix(err, s, "write a snapshot");
    j->snapshot_seq = w.seq;
    log_debug("journal", "snapshot written", LOG_INT("seq", w.seq),
              LOG_INT("ms", (clock_monotonic_ns() - began_ns) / NS_PER_MS));
    return STATUS_OK;
}

uint64_t journal_snapshot_seq(const struct journal *j)
{
    return j->snapshot_seq;
}

void journal_snapshot_fiber(void *arg)
{
    struct journal *j = arg;
    enum status s = STATUS_OK;
    while (s == STATUS_OK) {
        struct error err;
        s = journal_wait_after(j, j->snapshot_seq + j->snapshot_every - 1, 0);
        if (s != STATUS_OK || !j->is_folded) return; /* we stop */
        if (journal_snapshot(j, &err) == STATUS_OK) continue;
        log_warn("journal", "no snapshot; the next start takes longer", LOG_STR("reason", err.message));
        s = sleep_until(clock_monotonic_ns() + RETRY_NS);
    }
}
