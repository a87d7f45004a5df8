/* The SQLite store: the contract, and what is its own: segments, other processes, damage, a disk that fails.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/random.h"
#include "store/queue.h"
#include "tests/contract/check.h"
#include "tests/contract/disk_faults.h"
#include "tests/contract/journal_contract.h"

#define PATIENCE_NS (20 * NS_PER_S)

static char dir[1024];

static void create(struct journal_contract *c)
{
    (void)c;
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(dir, sizeof(dir), "%s/balm-journal-XXXXXX", tmp != NULL ? tmp : "/tmp");
    CHECK(mkdtemp(dir) != NULL);
}

static void destroy(struct journal_contract *c)
{
    (void)c;
    DIR *d = opendir(dir);
    CHECK(d != NULL);
    const struct dirent *entry;
    while ((entry = readdir(d)) != NULL)
        if (entry->d_name[0] != '.') (void)unlinkat(dirfd(d), entry->d_name, 0);
    (void)closedir(d);
    CHECK(rmdir(dir) == 0);
}

static enum status open_store(struct journal_contract *c, struct journal_cfg cfg,
                              struct journal **ret_journal, struct error *err)
{
    cfg.dir = dir;
    return journal_open_sqlite(c->loop, &cfg, ret_journal, err);
}

static void set_failing(struct journal_contract *c, bool is_failing)
{
    (void)c;
    if (is_failing)
        disk_faults_set(DISK_FAULT_SYNC, EIO, 0, 0);
    else
        disk_faults_clear();
}

static struct journal_contract sqlite = {
    .name = "sqlite", .create = create, .destroy = destroy, .open = open_store, .set_failing = set_failing};

TestSuite(journal_sqlite, .timeout = 120);

#define CONTRACT_TEST(name)                                                                                  \
    Test(journal_sqlite, name)                                                                               \
    {                                                                                                        \
        journal_contract_run(&sqlite, contract_##name);                                                      \
    }
JOURNAL_CONTRACT_TESTS(CONTRACT_TEST)
JOURNAL_CONTRACT_FAILURE_TESTS(CONTRACT_TEST)

#define OWN_TEST(name)                                                                                       \
    Test(journal_sqlite, name)                                                                               \
    {                                                                                                        \
        journal_contract_run(&sqlite, name);                                                                 \
    }

/* For what forks children with loops of their own: not in a fiber. */
#define PLAIN_TEST(name)                                                                                     \
    Test(journal_sqlite, name)                                                                               \
    {                                                                                                        \
        create(&sqlite);                                                                                     \
        name();                                                                                              \
        destroy(&sqlite);                                                                                    \
    }

/* ---- segments ---- */

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* Names of the segments, ascending. */
static size_t list_segments(char names[][32], size_t max)
{
    DIR *d = opendir(dir);
    CHECK(d != NULL);
    size_t n = 0;
    const struct dirent *entry;
    while ((entry = readdir(d)) != NULL && n < max)
        if (strlen(entry->d_name) == 23 && sv_ends_with(sv(entry->d_name), SV(".db")))
            (void)snprintf(names[n++], 32, "%.31s", entry->d_name);
    (void)closedir(d);
    qsort(names, n, 32, compare_names);
    return n;
}

/* About 20 segments of about 10 records each. */
static uint64_t fill_segments(struct journal_contract *c)
{
    struct journal *j;
    struct error err;
    CHECK_OK(open_store(c, (struct journal_cfg){.segment_max_bytes = 32 * 1024}, &j, &err), &err);
    for (uint64_t i = 1; i <= 200; i++)
        CHECK(contract_append(j, i, 3000) == i);
    uint64_t last = journal_last_seq(j);
    journal_close(j);
    return last;
}

/* Every record from `first` to `last` is there and what was appended, read from outside the platform. */
static void check_reader(uint64_t first, uint64_t last, size_t len)
{
    struct journal_reader *r;
    struct error err;
    struct arena a = {0};
    uint64_t next = first;
    CHECK_OK(journal_reader_open(dir, &r, &err), &err);
    CHECK(journal_reader_first_seq(r) == first);
    for (;;) {
        struct journal_entry *entries;
        size_t n;
        CHECK_OK(journal_reader_read(r, next, 1000, true, &a, &entries, &n, &err), &err);
        if (n == 0) break;
        for (size_t i = 0; i < n; i++, next++)
            CHECK(entries[i].seq == next && contract_record_is(&entries[i], next, len));
        arena_reset(&a);
    }
    CHECK(next == last + 1);
    arena_release(&a);
    journal_reader_close(r);
}

static void a_new_segment_begins_where_the_last_one_ended(struct journal_contract *c)
{
    char names[64][32];
    uint64_t last = fill_segments(c);
    size_t n = list_segments(names, 64);
    CHECK(n > 5);
    CHECK(strcmp(names[0], "00000000000000000001.db") == 0);
    check_reader(1, last, 3000);
    struct journal *j = contract_open(c);
    CHECK(journal_last_seq(j) == last && journal_first_seq(j) == 1);
    CHECK(contract_append(j, last + 1, 3000) == last + 1);
    journal_close(j);
    check_reader(1, last + 1, 3000);
}
OWN_TEST(a_new_segment_begins_where_the_last_one_ended)

static void removed_oldest_segments_are_out_of_range(struct journal_contract *c)
{
    char names[64][32], path[2048];
    uint64_t last = fill_segments(c), first;
    CHECK(list_segments(names, 64) > 5);
    for (int i = 0; i < 2; i++) {
        (void)snprintf(path, sizeof(path), "%s/%.31s", dir, names[i]);
        CHECK(unlink(path) == 0);
    }
    CHECK(sv_parse_u64(sv_n(names[2], 20), &first) == STATUS_OK);
    check_reader(first, last, 3000);
    struct journal *j = contract_open(c);
    CHECK(journal_first_seq(j) == first && journal_last_seq(j) == last);
    struct arena a = {0};
    struct journal_entry *entries;
    size_t n;
    struct error err;
    CHECK(journal_read(j, first - 1, 1, true, &a, &entries, &n, &err) == STATUS_OUT_OF_RANGE);
    CHECK_OK(journal_fold(j, &err), &err);
    arena_release(&a);
    journal_close(j);
}
OWN_TEST(removed_oldest_segments_are_out_of_range)

/* ---- damage ---- */

static enum status try_open(struct journal_contract *c, struct error *err)
{
    struct journal *j;
    enum status s = open_store(c, (struct journal_cfg){0}, &j, err);
    if (s == STATUS_OK) journal_close(j);
    return s;
}

static void run_sql(const char *name, const char *sql)
{
    char path[2048];
    sqlite3 *db;
    (void)snprintf(path, sizeof(path), "%s/%.31s", dir, name);
    CHECK(sqlite3_open(path, &db) == SQLITE_OK);
    CHECK(sqlite3_busy_timeout(db, 10000) == SQLITE_OK); /* the writer may be looking just then */
    CHECK(sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK);
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

static void a_missing_segment_is_data_loss_and_named(struct journal_contract *c)
{
    char names[64][32], path[2048];
    struct error err;
    (void)fill_segments(c);
    CHECK(list_segments(names, 64) > 5);
    (void)snprintf(path, sizeof(path), "%s/%.31s", dir, names[3]);
    CHECK(unlink(path) == 0);
    CHECK(try_open(c, &err) == STATUS_DATA_LOSS);
    CHECK(strstr(err.message, names[2]) != NULL);
}
OWN_TEST(a_missing_segment_is_data_loss_and_named)

static void a_missing_record_is_data_loss_and_named(struct journal_contract *c)
{
    char names[64][32];
    struct error err;
    (void)fill_segments(c);
    CHECK(list_segments(names, 64) > 5);
    run_sql(names[1], "DELETE FROM records WHERE seq = (SELECT min(seq) + 2 FROM records)");
    CHECK(try_open(c, &err) == STATUS_DATA_LOSS);
    CHECK(strstr(err.message, names[1]) != NULL && strstr(err.message, "gap") != NULL);
}
OWN_TEST(a_missing_record_is_data_loss_and_named)

static void a_damaged_file_is_data_loss_and_named(struct journal_contract *c)
{
    char names[64][32], path[2048], junk[4096];
    struct error err;
    (void)fill_segments(c);
    CHECK(list_segments(names, 64) > 5);
    (void)snprintf(path, sizeof(path), "%s/%.31s", dir, names[2]);
    int fd = open(path, O_WRONLY);
    memset(junk, 0x5a, sizeof(junk));
    CHECK(fd >= 0 && write(fd, junk, sizeof(junk)) == (ssize_t)sizeof(junk) && close(fd) == 0);
    CHECK(try_open(c, &err) == STATUS_DATA_LOSS);
    CHECK(strstr(err.message, names[2]) != NULL);
}
OWN_TEST(a_damaged_file_is_data_loss_and_named)

static void a_newer_format_is_refused(struct journal_contract *c)
{
    struct error err;
    (void)fill_segments(c);
    run_sql("00000000000000000001.db", "PRAGMA user_version = 2");
    CHECK(try_open(c, &err) == STATUS_FAILED_PRECONDITION);
    struct journal_reader *r;
    CHECK(journal_reader_open(dir, &r, &err) == STATUS_OK); /* opens the newest, which is fine */
    struct arena a = {0};
    struct journal_entry *entries;
    size_t n;
    CHECK(journal_reader_read(r, 1, 10, false, &a, &entries, &n, &err) == STATUS_FAILED_PRECONDITION);
    arena_release(&a);
    journal_reader_close(r);
}
OWN_TEST(a_newer_format_is_refused)

static void a_half_made_segment_is_made_again(struct journal_contract *c)
{
    char path[2048];
    uint64_t last = fill_segments(c);
    (void)snprintf(path, sizeof(path), "%s/next.tmp", dir);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    CHECK(fd >= 0 && write(fd, "half", 4) == 4 && close(fd) == 0);
    struct journal *j;
    struct error err;
    CHECK_OK(open_store(c, (struct journal_cfg){.segment_max_bytes = 1}, &j, &err), &err); /* rolls at once */
    CHECK(contract_append(j, last + 1, 3000) == last + 1);
    journal_close(j);
    check_reader(1, last + 1, 3000);
}
OWN_TEST(a_half_made_segment_is_made_again)

/* ---- other processes ---- */

/* Reads all there is in another process, again and again, until `last` has been seen. Exit code 0: no gap,
 * content intact. */
static pid_t start_reader(uint64_t last)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child > 0) return child;
    struct journal_reader *r;
    struct error err;
    struct arena a = {0};
    uint64_t next = 1;
    (void)alarm(60);
    CHECK_OK(journal_reader_open(dir, &r, &err), &err);
    while (next <= last) {
        struct journal_entry *entries;
        size_t n;
        CHECK_OK(journal_reader_read(r, next, 100, true, &a, &entries, &n, &err), &err);
        for (size_t i = 0; i < n; i++, next++)
            CHECK(entries[i].seq == next && contract_record_is(&entries[i], next, 1000));
        if (n == 0) (void)usleep(1000);
        arena_reset(&a);
    }
    arena_release(&a);
    journal_reader_close(r);
    _exit(0);
}

static void wait_child(pid_t child)
{
    int wstatus = 0;
    CHECK(waitpid(child, &wstatus, 0) == child);
    CHECK(WIFEXITED(wstatus) && WEXITSTATUS(wstatus) == 0);
}

static void another_process_reads_while_we_write_and_roll(struct journal_contract *c)
{
    struct journal *j;
    struct error err;
    CHECK_OK(open_store(c, (struct journal_cfg){.segment_max_bytes = 256 * 1024}, &j, &err), &err);
    (void)contract_append(j, 1, 1000);
    pid_t readers[2] = {start_reader(2000), start_reader(2000)};
    for (uint64_t i = 2; i <= 2000; i++)
        CHECK(contract_append(j, i, 1000) == i);
    wait_child(readers[0]);
    wait_child(readers[1]);
    journal_close(j);
}
OWN_TEST(another_process_reads_while_we_write_and_roll)

static void write_and_die(void *arg)
{
    struct journal *j;
    struct error err;
    struct journal_cfg cfg = {.dir = dir};
    CHECK_OK(journal_open_sqlite(arg, &cfg, &j, &err), &err);
    for (uint64_t i = 1; i <= 50; i++)
        (void)contract_append(j, i, 1000);
    (void)kill(getpid(), SIGKILL);
}

static void leave_a_wal_behind(void)
{
    char wal[2048];
    struct stat st;
    struct error err;
    pid_t child = fork();
    if (child == 0) {
        struct loop *l;
        CHECK_OK(loop_new(&l, &err), &err);
        CHECK_OK(loop_run_fiber(l, write_and_die, l, &err), &err);
    }
    CHECK(child > 0 && waitpid(child, NULL, 0) == child);
    (void)snprintf(wal, sizeof(wal), "%s/00000000000000000001.db-wal", dir);
    CHECK(stat(wal, &st) == 0 && st.st_size > 0);
}

static void a_reader_finds_what_only_the_wal_holds_after_kill(void)
{
    leave_a_wal_behind();
    check_reader(1, 50, 1000);
}
PLAIN_TEST(a_reader_finds_what_only_the_wal_holds_after_kill)

static void a_reader_without_write_permission_is_told_why(void)
{
    if (geteuid() != 0) cr_skip_test("needs root to become another user");
    leave_a_wal_behind();
    CHECK(chmod(dir, 0555) == 0);
    pid_t child = fork();
    if (child == 0) {
        char shm[2048];
        struct journal_reader *r;
        struct error err;
        (void)snprintf(shm, sizeof(shm), "%s/00000000000000000001.db-shm", dir);
        CHECK(unlink(shm) == 0); /* as after a copy, or a clean close */
        CHECK(setgid(65534) == 0 && setuid(65534) == 0);
        CHECK(journal_reader_open(dir, &r, &err) == STATUS_PERMISSION_DENIED);
        CHECK(strstr(err.message, "write permission") != NULL);
        _exit(0);
    }
    wait_child(child);
    CHECK(chmod(dir, 0700) == 0);
}
PLAIN_TEST(a_reader_without_write_permission_is_told_why)

static void a_missing_folder_is_not_found(struct journal_contract *c)
{
    (void)c;
    char path[2048];
    struct journal_reader *r;
    struct error err;
    (void)snprintf(path, sizeof(path), "%s/none", dir);
    CHECK(journal_reader_open(path, &r, &err) == STATUS_NOT_FOUND);
    CHECK_OK(journal_reader_open(dir, &r, &err), &err); /* an empty one is an empty journal */
    struct arena a = {0};
    struct journal_entry *entries;
    size_t n = 1;
    CHECK_OK(journal_reader_read(r, 1, 10, true, &a, &entries, &n, &err), &err);
    CHECK(n == 0);
    arena_release(&a);
    journal_reader_close(r);
}
OWN_TEST(a_missing_folder_is_not_found)

/* ---- the disk ---- */

static void the_wal_stays_bounded(struct journal_contract *c)
{
    struct journal *j = contract_open(c);
    char wal[2048];
    struct stat st;
    struct error err;
    struct arena a = {0};
    (void)snprintf(wal, sizeof(wal), "%s/00000000000000000001.db-wal", dir);
    for (unsigned group = 0; group < 500; group++) { /* 50 MB */
        for (unsigned i = 0; i < 10; i++) {
            struct record r = contract_record(&a, i, 10000);
            CHECK_OK(journal_append(j, &r, 1, NULL, &err), &err);
        }
        CHECK_OK(journal_wait_durable(j, journal_last_seq(j), 0, &err), &err);
        arena_reset(&a);
        CHECK(stat(wal, &st) == 0 && st.st_size < 16 * 1024 * 1024);
    }
    arena_release(&a);
    journal_close(j);
    CHECK(stat(wal, &st) != 0); /* a clean close leaves none */
}
OWN_TEST(the_wal_stays_bounded)

static void wait_until_healthy(struct journal *j)
{
    int64_t deadline = clock_monotonic_ns() + PATIENCE_NS;
    while (!journal_is_healthy(j)) {
        CHECK(clock_monotonic_ns() < deadline);
        CHECK(sleep_ms(5) == STATUS_OK);
    }
}

/* Append until one is refused; all acknowledged ones carry their own sequence as number. Returns how many
 * were acknowledged. */
static uint64_t append_until_refused(struct journal *j, uint64_t max, size_t len)
{
    struct error err;
    struct arena a = {0};
    uint64_t acked = journal_durable_seq(j);
    enum status s = STATUS_OK;
    for (uint64_t i = 0; i < max && s == STATUS_OK; i++) {
        struct record r = contract_record(&a, acked + 1, len);
        uint64_t seq = 0;
        s = journal_append(j, &r, 1, &seq, &err);
        if (s == STATUS_OK) s = journal_wait_durable(j, seq, clock_monotonic_ns() + PATIENCE_NS, &err);
        if (s == STATUS_OK) acked = seq;
        CHECK(s == STATUS_OK || s == STATUS_UNAVAILABLE);
        arena_reset(&a);
    }
    arena_release(&a);
    return acked;
}

/* The first, second, third … disk call fails once, of the kinds and with the errors that disks have. */
static void fail_each_call_in_turn(struct journal_contract *c, unsigned which, int errnum, unsigned turns)
{
    for (unsigned turn = 0; turn < turns; turn++) {
        struct journal *j;
        struct error err;
        CHECK_OK(open_store(c, (struct journal_cfg){.segment_max_bytes = 64 * 1024}, &j, &err), &err);
        uint64_t before = journal_durable_seq(j);
        disk_faults_set(which, errnum, turn, 1);
        uint64_t acked = append_until_refused(j, 12, 2000);
        CHECK(disk_faults_hits() == 1 || acked == before + 12);
        wait_until_healthy(j);
        disk_faults_clear();
        CHECK(journal_durable_seq(j) >= acked);
        CHECK(append_until_refused(j, 1, 2000) == journal_last_seq(j));
        uint64_t last = journal_last_seq(j);
        journal_close(j);
        check_reader(1, last, 2000);
    }
}

static void each_sync_fails_in_turn(struct journal_contract *c)
{
    fail_each_call_in_turn(c, DISK_FAULT_SYNC, EIO, 18);
}
OWN_TEST(each_sync_fails_in_turn)

static void each_write_fails_in_turn(struct journal_contract *c)
{
    fail_each_call_in_turn(c, DISK_FAULT_WRITE, ENOSPC, 40);
}
OWN_TEST(each_write_fails_in_turn)

static void a_full_disk_refuses_and_goes_on_when_there_is_room(struct journal_contract *c)
{
    struct journal *j = contract_open(c);
    struct rlimit before, small = {.rlim_cur = 1024 * 1024, .rlim_max = RLIM_INFINITY};
    CHECK(getrlimit(RLIMIT_FSIZE, &before) == 0);
    small.rlim_max = before.rlim_max;
    CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    CHECK(setrlimit(RLIMIT_FSIZE, &small) == 0);
    uint64_t acked = append_until_refused(j, 10000, 2000);
    CHECK(acked > 20 && acked < 1000);
    CHECK(!journal_is_healthy(j));
    CHECK(sleep_ms(1500) == STATUS_OK); /* one try to reopen in between */
    CHECK(setrlimit(RLIMIT_FSIZE, &before) == 0);
    wait_until_healthy(j);
    CHECK(journal_durable_seq(j) >= acked);
    CHECK(append_until_refused(j, 1000, 2000) == journal_last_seq(j));
    uint64_t last = journal_last_seq(j);
    CHECK(last >= acked + 1000);
    journal_close(j);
    check_reader(1, last, 2000);
}
OWN_TEST(a_full_disk_refuses_and_goes_on_when_there_is_room)

/* Somebody puts an older copy in our place while the store is down: it must not go on as if nothing had been
 * acknowledged. */
static void lost_records_keep_the_journal_closed(struct journal_contract *c)
{
    struct journal *j = contract_open(c);
    for (uint64_t i = 1; i <= 20; i++)
        (void)contract_append(j, i, 100);
    disk_faults_set(DISK_FAULT_SYNC, EIO, 0, 0);
    (void)append_until_refused(j, 1, 100);
    CHECK(!journal_is_healthy(j));
    /* Before the disk is well, or the writer might find all of them. */
    run_sql("00000000000000000001.db", "PRAGMA synchronous = OFF; DELETE FROM records WHERE seq > 15");
    disk_faults_clear();
    CHECK(sleep_ms(2500) == STATUS_OK);
    CHECK(!journal_is_healthy(j));
    struct error err;
    struct arena a = {0};
    struct record r = contract_record(&a, 1, 10);
    CHECK(journal_append(j, &r, 1, NULL, &err) == STATUS_UNAVAILABLE);
    arena_release(&a);
    journal_close(j);
}
OWN_TEST(lost_records_keep_the_journal_closed)

/* SQLite makes the WAL anew after each clean end, and goes on if the folder cannot be synced. */
static void a_wal_whose_name_is_not_on_the_disk_is_not_written_to(struct journal_contract *c)
{
    struct journal *j = contract_open(c);
    (void)contract_append(j, 1, 100);
    journal_close(j);
    struct error err;
    disk_faults_set(DISK_FAULT_FOLDER, EIO, 0, 0);
    CHECK(open_store(c, (struct journal_cfg){0}, &j, &err) == STATUS_UNAVAILABLE);
    CHECK(disk_faults_hits() > 0);
    disk_faults_clear();
    CHECK_OK(open_store(c, (struct journal_cfg){0}, &j, &err), &err);
    disk_faults_set(DISK_FAULT_SYNC, EIO, 0, 1);
    (void)append_until_refused(j, 1, 100);
    disk_faults_set(DISK_FAULT_FOLDER, EIO, 0, 0);
    CHECK(sleep_ms(2500) == STATUS_OK); /* two tries to reopen */
    CHECK(disk_faults_hits() > 0 && !journal_is_healthy(j));
    disk_faults_clear();
    wait_until_healthy(j);
    journal_close(j);
}
OWN_TEST(a_wal_whose_name_is_not_on_the_disk_is_not_written_to)

/* ---- files that vanish ---- */

static void check_refused(struct journal *j)
{
    uint64_t acked = journal_durable_seq(j);
    CHECK(append_until_refused(j, 1, 100) == acked);
    CHECK(!journal_is_healthy(j));
    CHECK(sleep_ms(1500) == STATUS_OK); /* one try to reopen in between */
    CHECK(!journal_is_healthy(j) && journal_durable_seq(j) == acked);
    CHECK(append_until_refused(j, 1, 100) == acked);
}

static void unlink_suffix(const char *suffix)
{
    char path[2048];
    (void)snprintf(path, sizeof(path), "%s/00000000000000000001.db%s", dir, suffix);
    CHECK(unlink(path) == 0);
}

static void nothing_is_acknowledged_after_the_files_are_removed(struct journal_contract *c)
{
    struct journal *j = contract_open(c);
    for (uint64_t i = 1; i <= 5; i++)
        (void)contract_append(j, i, 100);
    unlink_suffix("");
    unlink_suffix("-wal");
    unlink_suffix("-shm");
    check_refused(j);
    char names[8][32];
    CHECK(list_segments(names, 8) == 0); /* no new one in secret */
    journal_close(j);
}
OWN_TEST(nothing_is_acknowledged_after_the_files_are_removed)

/* It alone holds what was acknowledged last: the file may be whole, and fewer records are left. */
static void nothing_is_acknowledged_after_the_wal_is_removed(struct journal_contract *c)
{
    struct journal *j = contract_open(c);
    for (uint64_t i = 1; i <= 5; i++)
        (void)contract_append(j, i, 100);
    unlink_suffix("-wal");
    uint64_t acked = journal_durable_seq(j);
    CHECK(append_until_refused(j, 1, 100) == acked);
    CHECK(!journal_is_healthy(j));
    journal_close(j);
}
OWN_TEST(nothing_is_acknowledged_after_the_wal_is_removed)

static void a_folder_moved_away_is_refused_until_it_is_back(struct journal_contract *c)
{
    char away[2048];
    struct journal *j = contract_open(c);
    for (uint64_t i = 1; i <= 5; i++)
        CHECK(contract_append(j, i, 100) == i);
    (void)snprintf(away, sizeof(away), "%s.away", dir);
    CHECK(rename(dir, away) == 0);
    check_refused(j);
    CHECK(mkdir(dir, 0700) == 0); /* an empty one in its place is no journal of ours */
    check_refused(j);
    CHECK(rmdir(dir) == 0 && rename(away, dir) == 0);
    wait_until_healthy(j);
    CHECK(journal_durable_seq(j) >= 5);
    uint64_t last = append_until_refused(j, 5, 100);
    CHECK(last == journal_last_seq(j) && last >= 10);
    journal_close(j);
}
OWN_TEST(a_folder_moved_away_is_refused_until_it_is_back)

/* Filled to the brim, so that the next append begins a new segment: not in whatever folder is there now. */
static void no_new_segment_is_begun_in_an_empty_folder(struct journal_contract *c)
{
    char away[2048], names[8][32];
    struct journal *j;
    struct error err;
    CHECK_OK(open_store(c, (struct journal_cfg){.segment_max_bytes = 64 * 1024}, &j, &err), &err);
    (void)contract_append(j, 1, 60000);
    (void)snprintf(away, sizeof(away), "%s.away", dir);
    CHECK(rename(dir, away) == 0 && mkdir(dir, 0700) == 0);
    check_refused(j);
    CHECK(list_segments(names, 8) == 0);
    CHECK(rmdir(dir) == 0 && rename(away, dir) == 0);
    journal_close(j);
}
OWN_TEST(no_new_segment_is_begun_in_an_empty_folder)

static void an_older_copy_in_its_place_is_not_taken(struct journal_contract *c)
{
    char from[2048], to[2048], bytes[65536];
    struct journal *j = contract_open(c);
    (void)contract_append(j, 1, 100);
    journal_close(j);
    (void)snprintf(from, sizeof(from), "%s/00000000000000000001.db", dir);
    (void)snprintf(to, sizeof(to), "%s/copy", dir);
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT, 0600);
    ssize_t n = read(in, bytes, sizeof(bytes));
    CHECK(n > 0 && n < (ssize_t)sizeof(bytes) && write(out, bytes, (size_t)n) == n);
    CHECK(close(in) == 0 && close(out) == 0);
    j = contract_open(c);
    (void)contract_append(j, 2, 100);
    (void)contract_append(j, 3, 100);
    unlink_suffix("-wal");
    unlink_suffix("-shm");
    CHECK(rename(to, from) == 0);
    check_refused(j);
    journal_close(j);
}
OWN_TEST(an_older_copy_in_its_place_is_not_taken)

static void a_removed_file_is_noticed_without_an_append(struct journal_contract *c)
{
    struct journal *j = contract_open(c);
    (void)contract_append(j, 1, 100);
    unlink_suffix("");
    int64_t deadline = clock_monotonic_ns() + PATIENCE_NS;
    while (journal_is_healthy(j)) {
        CHECK(clock_monotonic_ns() < deadline);
        CHECK(sleep_ms(20) == STATUS_OK);
    }
    journal_close(j);
}
OWN_TEST(a_removed_file_is_noticed_without_an_append)

/* ---- kill -9 ---- */

struct crash_child {
    struct loop *loop;
    int out;
    struct random_seeded rng;
};

/* Groups of random size, from several fibers' worth of appends, each durable sequence told to the parent
 * before the next. */
static void append_until_killed(void *arg)
{
    struct crash_child *child = arg;
    struct journal *j;
    struct error err;
    struct journal_cfg cfg = {.dir = dir, .segment_max_bytes = 512 * 1024};
    CHECK_OK(journal_open_sqlite(child->loop, &cfg, &j, &err), &err);
    struct arena a = {0};
    for (;;) {
        struct record batch[20];
        size_t n = 1 + (size_t)random_seeded_below(&child->rng, 20);
        uint64_t last = 0;
        for (size_t i = 0; i < n; i++)
            batch[i] = contract_record(&a, journal_last_seq(j) + 1 + i, 700);
        CHECK_OK(journal_append(j, batch, n, &last, &err), &err);
        if (random_seeded_below(&child->rng, 3) == 0)
            continue; /* two appends may share a transaction, or not */
        CHECK_OK(journal_wait_durable(j, last, 0, &err), &err);
        CHECK(write(child->out, &last, sizeof(last)) == (ssize_t)sizeof(last));
        arena_reset(&a);
    }
}

static uint64_t run_and_kill(uint64_t seed, useconds_t after_us)
{
    int pipe_fds[2];
    struct error err;
    CHECK(pipe2(pipe_fds, O_CLOEXEC) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        (void)close(pipe_fds[0]);
        struct crash_child child = {.out = pipe_fds[1], .rng.state = seed};
        CHECK_OK(loop_new(&child.loop, &err), &err);
        CHECK_OK(loop_run_fiber(child.loop, append_until_killed, &child, &err), &err);
        _exit(1);
    }
    CHECK(pid > 0);
    (void)close(pipe_fds[1]);
    (void)usleep(after_us);
    CHECK(kill(pid, SIGKILL) == 0);
    uint64_t seq, acked = 0;
    ssize_t got;
    while ((got = read(pipe_fds[0], &seq, sizeof(seq))) == (ssize_t)sizeof(seq))
        acked = seq;
    CHECK(got == 0);
    int wstatus;
    CHECK(waitpid(pid, &wstatus, 0) == pid && WIFSIGNALED(wstatus));
    (void)close(pipe_fds[0]);
    return acked;
}

static void reopen(void *arg)
{
    struct journal *j = contract_open(&sqlite);
    *(uint64_t *)arg = journal_durable_seq(j);
    CHECK(journal_last_seq(j) == journal_durable_seq(j));
    journal_close(j);
}

static uint64_t last_after_reopening(void)
{
    uint64_t last = 0;
    struct error err;
    CHECK_OK(loop_new(&sqlite.loop, &err), &err);
    CHECK_OK(loop_run_fiber(sqlite.loop, reopen, &last, &err), &err);
    loop_free(sqlite.loop);
    return last;
}

static void nothing_acknowledged_is_lost_by_kill_9(void)
{
    const char *given = getenv("BALM_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)clock_unix_ns(), acked = 0;
    struct random_seeded rng = {.state = seed};
    unsigned productive = 0;
    fprintf(stderr, "seed %" PRIu64 "\n", seed);
    for (unsigned round = 0; round < 50; round++) {
        uint64_t reached =
            run_and_kill(random_seeded_next(&rng), (useconds_t)(5000 + random_seeded_below(&rng, 120000)));
        if (reached > acked) {
            acked = reached;
            productive++;
        }
        uint64_t last = last_after_reopening();
        CHECK(last >= acked);
        if (round % 10 == 9) check_reader(1, last, 700);
    }
    CHECK(productive > 10);
}
PLAIN_TEST(nothing_acknowledged_is_lost_by_kill_9)
