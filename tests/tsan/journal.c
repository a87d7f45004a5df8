/* The journal's writer thread, its readers on worker threads and the loop between them, over new segments, a
 * full disk and the recovery from it, for the thread sanitizer. Exits 0 when all that was acknowledged can be
 * read. */
#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "store/journal.h"
#include "tests/contract/check.h"

enum { FIBERS = 32, READERS = 3 };

struct run {
    struct loop *loop;
    struct journal *journal;
    char dir[1024];
    bool is_over;
    uint64_t acked;
};

static void append_fiber(void *arg)
{
    struct run *r = arg;
    char message[2000];
    memset(message, 'x', sizeof(message));
    while (!r->is_over) {
        struct record note = {
            .kind = RECORD_NOTE, .time_ns = clock_unix_ns(), .message = {message, sizeof(message)}};
        uint64_t seq = 0;
        enum status s = journal_append(r->journal, &note, 1, &seq, NULL);
        if (s == STATUS_OK) s = journal_wait_durable(r->journal, seq, 0, NULL);
        if (s == STATUS_OK && seq > r->acked) r->acked = seq;
        if (s != STATUS_OK) CHECK(sleep_ms(20) == STATUS_OK);
    }
}

static void read_fiber(void *arg)
{
    struct run *r = arg;
    uint64_t next = 1;
    while (!r->is_over) {
        struct arena a = {0};
        struct journal_entry *entries;
        size_t n;
        struct error err;
        CHECK_OK(journal_read(r->journal, next, 50, true, &a, &entries, &n, &err), &err);
        next = n > 0 ? next + n : 1;
        arena_release(&a);
        CHECK(fiber_yield() == STATUS_OK);
    }
}

static void limit_files(rlim_t bytes)
{
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    limit.rlim_cur = bytes;
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

static void run(void *arg)
{
    struct run *r = arg;
    struct error err;
    struct fiber_scope scope;
    struct journal_cfg cfg = {.dir = r->dir, .segment_max_bytes = 1024 * 1024};
    CHECK_OK(journal_open_sqlite(r->loop, &cfg, &r->journal, &err), &err);
    fiber_scope_init(&scope);
    for (unsigned i = 0; i < FIBERS + READERS; i++)
        CHECK_OK(fiber_scope_spawn(&scope, i < FIBERS ? append_fiber : read_fiber, r, &err), &err);
    for (unsigned round = 0; round < 2; round++) {
        CHECK(sleep_ms(300) == STATUS_OK);
        limit_files(64 * 1024);
        while (journal_is_healthy(r->journal))
            CHECK(sleep_ms(5) == STATUS_OK);
        limit_files(RLIM_INFINITY);
        while (!journal_is_healthy(r->journal))
            CHECK(sleep_ms(5) == STATUS_OK);
    }
    r->is_over = true;
    fiber_scope_join(&scope);
    CHECK(r->acked > 100 && journal_durable_seq(r->journal) >= r->acked);
    CHECK_OK(journal_fold(r->journal, &err), &err);
    journal_close(r->journal);
}

static void remove_dir(const char *path)
{
    DIR *d = opendir(path);
    CHECK(d != NULL);
    const struct dirent *entry;
    while ((entry = readdir(d)) != NULL)
        if (entry->d_name[0] != '.') (void)unlinkat(dirfd(d), entry->d_name, 0);
    (void)closedir(d);
    CHECK(rmdir(path) == 0);
}

int main(void)
{
    struct run r = {0};
    struct error err;
    const char *tmp = getenv("TMPDIR");
    (void)alarm(200);
    (void)signal(SIGXFSZ, SIG_IGN);
    (void)snprintf(r.dir, sizeof(r.dir), "%s/balm-tsan-XXXXXX", tmp != NULL ? tmp : "/tmp");
    CHECK(mkdtemp(r.dir) != NULL);
    CHECK_OK(loop_new(&r.loop, &err), &err);
    CHECK_OK(loop_run_fiber(r.loop, run, &r, &err), &err);
    loop_free(r.loop);
    remove_dir(r.dir);
    return 0;
}
