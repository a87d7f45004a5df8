/* Sealing over a real journal: what a start does with what a crash, a power loss or an attacker left behind.
 */
#include "functions/audit/seal.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "audit/verify.h"
#include "base/clock.h"
#include "loop/loop.h"
#include "metrics/metrics.h"
#include "tests/unit/audit/folder.h"

#define RECORDS 40

static struct arena arena;
static struct loop *loop;
static struct journal *journal;
static struct seal *seal;
static const char *dir;
static struct error err;

static void open_only(size_t segment_max_bytes)
{
    struct journal_cfg cfg = {.dir = arena_printf(&arena, "%s/journal", dir).ptr,
                              .segment_max_bytes = segment_max_bytes};
    cr_assert_eq(journal_open_sqlite(loop, &cfg, &journal, &err), STATUS_OK, "%s", err.message);
    cr_assert_eq(seal_new(journal, dir, SV("a cluster+1"), &seal, &err), STATUS_OK, "%s", err.message);
    cr_assert_eq(journal_fold(journal, &err), STATUS_OK, "%s", err.message);
}

static void open_all(void)
{
    open_only(0);
    cr_assert_eq(seal_start(seal, &err), STATUS_OK, "%s", err.message);
}

static void close_all(void)
{
    seal_free(seal);
    journal_close(journal);
}

static void run_in_fiber(void *arg)
{
    open_all();
    ((void (*)(void))arg)();
    close_all();
}

static void in_fiber(void (*fn)(void))
{
    dir = folder_make(&arena);
    cr_assert_eq(loop_new(&loop, &err), STATUS_OK);
    cr_assert_eq(loop_run_fiber(loop, run_in_fiber, (void *)fn, &err), STATUS_OK);
    loop_free(loop);
    folder_remove(dir);
    arena_release(&arena);
}

#define SEAL_TEST(name)                                                                                      \
    static void name(void);                                                                                  \
    Test(seal, name)                                                                                         \
    {                                                                                                        \
        in_fiber(name);                                                                                      \
    }                                                                                                        \
    static void name(void)

static void append(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct record r = {.kind = RECORD_NOTE, .time_ns = clock_unix_ns(), .message = SV("words")};
        cr_assert_eq(journal_append(journal, &r, 1, NULL, &err), STATUS_OK, "%s", err.message);
    }
    cr_assert_eq(journal_wait_durable(journal, journal_last_seq(journal), 0, &err), STATUS_OK, "%s",
                 err.message);
}

static double failures(void)
{
    return metric_value(metrics_series(
        metrics_family(METRIC_COUNTER, "balm_audit_verify_failures_total", "", NULL, 0, NULL, 0), NULL));
}

static double last_seq(void)
{
    return metric_value(
        metrics_series(metrics_family(METRIC_GAUGE, "balm_audit_last_seq", "", NULL, 0, NULL, 0), NULL));
}

/* Until it holds; fails after `ms`. */
#define WAIT_UNTIL(claim, ms)                                                                                \
    for (int64_t end_ns = clock_monotonic_ns() + (ms)*NS_PER_MS; !(claim);) {                                \
        cr_assert(clock_monotonic_ns() < end_ns, "not in time: " #claim);                                    \
        cr_assert_eq(sleep_ms(5), STATUS_OK);                                                                \
    }

static struct audit_report verify(void)
{
    struct audit_report r;
    cr_assert_eq(audit_verify(&(struct audit_verify_cfg){.data_dir = dir}, &arena, &r, &err), STATUS_OK, "%s",
                 err.message);
    return r;
}

static void change_row(uint64_t seq, const char *sql)
{
    sqlite3 *db = NULL;
    cr_assert_eq(sqlite3_open(arena_printf(&arena, "%s/journal/00000000000000000001.db", dir).ptr, &db),
                 SQLITE_OK);
    cr_assert_eq(
        sqlite3_exec(db, arena_printf(&arena, "%s%llu", sql, (unsigned long long)seq).ptr, NULL, NULL, NULL),
        SQLITE_OK, "%s", sqlite3_errmsg(db));
    cr_assert_eq(sqlite3_close(db), SQLITE_OK);
}

SEAL_TEST(what_is_durable_is_sealed_within_seconds_and_the_rest_at_the_end)
{
    append(RECORDS);
    WAIT_UNTIL(last_seq() == RECORDS, 5000);
    WAIT_UNTIL(verify().sealed_records == RECORDS, 5000);
    append(3);
    close_all();
    struct audit_report r = verify();
    cr_assert_eq(r.sealed_records, RECORDS + 3);
    cr_assert_eq(r.first_bad_seq, 0);
    struct strview key = folder_read(&arena, dir, "audit/key.pub");
    cr_assert(sv_starts_with(key, SV("balm.dev/audit/a-cluster-1+")), "%.*s", SV_ARG(key));
    open_all();
}

/* A fresh platform that is killed, or looked at, in its first second has a seal. */
SEAL_TEST(the_first_record_of_all_is_sealed_at_once)
{
    cr_assert_eq(sleep_ms(50), STATUS_OK); /* the fiber has nothing to do */
    append(1);
    WAIT_UNTIL(verify().sealed_records == 1, 800);
}

SEAL_TEST(checkpoints_come_at_most_once_a_second_while_records_come)
{
    int64_t began_ns = clock_monotonic_ns();
    while (clock_monotonic_ns() < began_ns + 2500 * NS_PER_MS)
        append(1);
    uint64_t n = verify().checkpoints;
    cr_assert(n >= 3 && n <= 5, "of the empty tree, then about one a second: %llu", (unsigned long long)n);
}

SEAL_TEST(leaves_that_no_checkpoint_covers_are_made_anew)
{
    append(RECORDS);
    close_all();
    struct strview leaves = folder_read(&arena, dir, "audit/leaves");
    cr_assert_eq(leaves.len, RECORDS * SHA256_BYTES);
    folder_write(dir, "audit/leaves", SV("")); /* as if the disk had lost them */
    open_all();
    append(1);
    close_all();
    cr_assert_arr_eq(folder_read(&arena, dir, "audit/leaves").ptr, leaves.ptr, leaves.len);
    cr_assert_eq(verify().sealed_records, RECORDS + 1);
    cr_assert_eq(failures(), 0);
    open_all();
}

SEAL_TEST(a_torn_end_of_either_file_is_cut)
{
    append(RECORDS);
    close_all();
    struct strview leaves = folder_read(&arena, dir, "audit/leaves"),
                   notes = folder_read(&arena, dir, "audit/checkpoints");
    char *torn = arena_zalloc(
        &arena, leaves.len + 45); /* one leaf of zeros, as after a power loss, and a part of another */
    memcpy(torn, leaves.ptr, leaves.len);
    folder_write(dir, "audit/leaves", sv_n(torn, leaves.len + 45));
    folder_write(dir, "audit/checkpoints", arena_printf(&arena, "%.*s%.*s", SV_ARG(notes), 60, notes.ptr));
    cr_assert_eq(verify().first_bad_seq, 0, "a crash is no tampering");
    open_all();
    append(2);
    close_all();
    struct audit_report r = verify();
    cr_assert_eq(r.first_bad_seq, 0, "%.*s", SV_ARG(r.bad_reason));
    cr_assert_eq(r.sealed_records, RECORDS + 2);
    cr_assert_eq(failures(), 0);
    cr_assert(sv_starts_with(folder_read(&arena, dir, "audit/checkpoints"), notes));
    open_all();
}

/* The next size has a digit more, so a note of it that lacks one byte is as long as a whole one of the last
 * size. */
SEAL_TEST(a_checkpoint_torn_at_its_last_byte_is_no_damage)
{
    append(9);
    WAIT_UNTIL(verify().sealed_records == 9, 5000);
    append(1);
    close_all();
    struct strview notes = folder_read(&arena, dir, "audit/checkpoints");
    static const char next_note[] = "\n\nbalm";
    size_t start = (size_t)((char *)memmem(notes.ptr, notes.len, "-1\n10\n", 6) - notes.ptr);
    while (notes.ptr[start - 1] != '\n')
        start--;
    struct strview note = sv_sub(notes, start, notes.len);
    const char *behind = memmem(note.ptr, note.len, next_note, sizeof(next_note) - 1);
    size_t note_bytes = behind != NULL ? (size_t)(behind - note.ptr) + 2 : note.len;
    for (size_t torn = 1; torn < note_bytes; torn++) {
        folder_write(dir, "audit/checkpoints", sv_sub(notes, 0, start + torn));
        cr_assert_eq(verify().first_bad_seq, 0, "%zu of %zu bytes: %.*s", torn, note_bytes,
                     SV_ARG(verify().bad_reason));
    }
    folder_write(dir, "audit/checkpoints", sv_sub(notes, 0, start + note_bytes - 1));
    open_all();
    cr_assert_eq(failures(), 0);
    append(1);
    close_all();
    cr_assert_eq(verify().first_bad_seq, 0, "%.*s", SV_ARG(verify().bad_reason));
    cr_assert_eq(verify().sealed_records, 11);
    open_all();
}

/* A platform that is killed again and again moments after its start: what one life left is signed before the
 * next one accepts anything, or all of them together would look like more than a crash explains. */
SEAL_TEST(what_a_crash_left_is_sealed_before_the_start_is_over)
{
    append(3);
    WAIT_UNTIL(verify().sealed_records == 3, 5000);
    struct strview notes = folder_read(&arena, dir, "audit/checkpoints");
    append(RECORDS - 3);
    close_all();
    folder_write(dir, "audit/checkpoints", notes);
    cr_assert_eq(verify().sealed_records, 3);
    open_all();
    cr_assert_eq(verify().sealed_records, RECORDS);
}

/* Comes before the C library's: the next sync of the leaves fails, and what it was to write is gone. */
static bool leaves_sync_fails;
static off_t leaves_synced;

int fdatasync(int fd)
{
    char link[64], path[4096];
    struct stat st;
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof(path));
    if (len < 0 || !sv_ends_with(sv_n(path, (size_t)len), SV("/audit/leaves")))
        return (int)syscall(SYS_fdatasync, fd);
    cr_assert_eq(fstat(fd, &st), 0);
    if (!leaves_sync_fails) {
        leaves_synced = st.st_size;
        return 0;
    }
    leaves_sync_fails = false;
    static const char zeros[RECORDS * SHA256_BYTES];
    cr_assert_eq(pwrite(fd, zeros, (size_t)(st.st_size - leaves_synced), leaves_synced),
                 st.st_size - leaves_synced);
    errno = EIO;
    return -1;
}

SEAL_TEST(leaves_that_a_failed_sync_lost_are_not_signed_for)
{
    append(3);
    WAIT_UNTIL(verify().sealed_records == 3, 5000);
    leaves_sync_fails = true;
    append(RECORDS - 4);
    WAIT_UNTIL(!leaves_sync_fails, 5000);
    append(1);
    WAIT_UNTIL(verify().sealed_records == RECORDS, 5000);
    struct strview leaves = folder_read(&arena, dir, "audit/leaves");
    close_all();
    folder_write(dir, "audit/leaves", SV(""));
    open_all(); /* made anew from the journal */
    append(1);
    close_all();
    cr_assert_arr_eq(folder_read(&arena, dir, "audit/leaves").ptr, leaves.ptr, leaves.len);
    open_all();
}

static void damage_leaves(void)
{
    struct strview leaves = folder_read(&arena, dir, "audit/leaves");
    char *damaged = arena_cstr(&arena, sv_n(leaves.ptr, leaves.len));
    memcpy(damaged, leaves.ptr, leaves.len);
    damaged[77] = (char)(damaged[77] ^ 4);
    folder_write(dir, "audit/leaves", sv_n(damaged, leaves.len));
}

SEAL_TEST(damaged_leaves_are_made_anew_where_the_journal_is_whole)
{
    append(RECORDS);
    close_all();
    struct strview leaves = folder_read(&arena, dir, "audit/leaves");
    damage_leaves();
    open_all();
    append(1);
    WAIT_UNTIL(last_seq() == RECORDS + 1, 5000); /* a stop at once leaves the mending to the next start */
    close_all();
    cr_assert_arr_eq(folder_read(&arena, dir, "audit/leaves").ptr, leaves.ptr, leaves.len);
    cr_assert_eq(verify().first_bad_seq, 0);
    cr_assert_eq(verify().sealed_records, RECORDS + 1);
    cr_assert_eq(failures(), 0);
    open_all();
}

/* Nothing more can be opened: the journal cannot read a segment that it has not open. Returns the limit of
 * before. */
static rlim_t forbid_opening(void)
{
    struct rlimit limit;
    int lowest_free = dup(0);
    cr_assert(lowest_free > 0 && close(lowest_free) == 0);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = (rlim_t)lowest_free;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    return before;
}

static void allow_opening(rlim_t before)
{
    struct rlimit limit;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = before;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

SEAL_TEST(a_journal_that_cannot_be_read_for_a_while_is_no_tampering)
{
    close_all();
    open_only(2000);
    cr_assert_eq(seal_start(seal, &err), STATUS_OK);
    for (unsigned i = 0; i < RECORDS; i++)
        append(1); /* each in a group of its own, so that there are several segments */
    close_all();
    damage_leaves();
    open_only(2000);
    rlim_t before = forbid_opening();
    cr_assert_eq(seal_start(seal, &err), STATUS_OK);
    cr_assert_eq(sleep_ms(200), STATUS_OK); /* the first try */
    cr_assert_eq(last_seq(), RECORDS);
    cr_assert_eq(failures(), 0);
    allow_opening(before);
    append(1);
    WAIT_UNTIL(last_seq() == RECORDS + 1, 10000);
    WAIT_UNTIL(verify().sealed_records == RECORDS + 1, 5000);
    cr_assert_eq(failures(), 0);
    cr_assert_eq(verify().first_bad_seq, 0);
}

SEAL_TEST(a_changed_record_is_noticed_at_the_start_and_sealing_goes_on)
{
    append(RECORDS);
    close_all();
    change_row(17, "UPDATE records SET bytes = replace(bytes, 'words', 'sword') WHERE seq = ");
    change_row(17, "UPDATE records SET bytes = CAST(bytes AS BLOB) WHERE seq = ");
    open_all();
    WAIT_UNTIL(failures() == 1, 5000);
    append(5);
    WAIT_UNTIL(last_seq() == RECORDS + 5, 5000);
    cr_assert_eq(verify().first_bad_seq, 17);
}

SEAL_TEST(a_cut_journal_is_noticed_at_the_start)
{
    append(RECORDS);
    close_all();
    change_row(RECORDS - 4, "DELETE FROM records WHERE seq >= ");
    open_all();
    WAIT_UNTIL(failures() >= 1, 5000);
    cr_assert_eq(verify().first_bad_seq, RECORDS - 4);
    append(10); /* other records in their places */
    WAIT_UNTIL(last_seq() == RECORDS + 5, 5000);
    cr_assert_eq(verify().first_bad_seq, RECORDS - 4);
}

static unsigned count_set_aside(void)
{
    unsigned n = 0;
    DIR *d = opendir(arena_printf(&arena, "%s/audit", dir).ptr);
    cr_assert_not_null(d);
    for (const struct dirent *e; (e = readdir(d)) != NULL;)
        if (sv_starts_with(sv(e->d_name), SV("leaves.lost-"))) n++;
    (void)closedir(d);
    return n;
}

SEAL_TEST(removed_checkpoints_are_noticed_at_the_start)
{
    append(RECORDS);
    close_all();
    folder_write(dir, "audit/checkpoints", SV(""));
    open_all();
    cr_assert_eq(failures(), 1);
    WAIT_UNTIL(last_seq() == RECORDS + 1, 5000);
    cr_assert_eq(count_set_aside(), 1);
}

/* Whoever can write to the folder and has no key has his past signed by the next start: it says so, in the
 * journal too, and for ever. */
SEAL_TEST(a_past_signed_after_all_of_the_seal_was_removed_is_never_called_genuine)
{
    append(RECORDS);
    close_all();
    folder_write(dir, "audit/checkpoints", SV(""));
    folder_write(dir, "audit/leaves", SV(""));
    change_row(17, "UPDATE records SET bytes = CAST(replace(bytes, 'words', 'sword') AS BLOB) WHERE seq = ");
    for (unsigned start = 0; start < 3; start++) {
        open_all();
        WAIT_UNTIL(last_seq() >= RECORDS + 1, 5000);
        close_all();
        struct audit_report r = verify();
        cr_assert_eq(r.sealed_records, RECORDS + 1);
        cr_assert_eq(r.n_late_seals, 1);
        cr_assert(sv_contains(r.late_seals[0], SV("over 40 unsealed records")), "%.*s",
                  SV_ARG(r.late_seals[0]));
    }
    cr_assert_eq(failures(), 1, "once, not at each start");
    open_all();
}

/* A first start of this version over a journal that has no seal yet. */
SEAL_TEST(an_old_journal_without_any_seal_is_sealed_without_an_alarm)
{
    append(RECORDS);
    close_all();
    static const char *const names[] = {"key", "key.pub", "leaves", "checkpoints"};
    for (size_t i = 0; i < 4; i++)
        cr_assert_eq(unlink(arena_printf(&arena, "%s/audit/%s", dir, names[i]).ptr), 0);
    open_all();
    WAIT_UNTIL(last_seq() == RECORDS, 5000);
    cr_assert_eq(failures(), 0);
    cr_assert_eq(verify().n_late_seals, 0);
}

/* Records `step_ns` apart from now on, and no seal over them. leaves: are they left? */
static void leave_unsealed(unsigned n, int64_t step_ns, bool leaves)
{
    append(RECORDS);
    close_all();
    struct strview notes = folder_read(&arena, dir, "audit/checkpoints");
    open_all();
    int64_t time_ns = clock_unix_ns();
    for (unsigned i = 0; i < n; i++) {
        time_ns += step_ns;
        struct record r = {.kind = RECORD_NOTE, .time_ns = time_ns, .message = SV("words")};
        cr_assert_eq(journal_append(journal, &r, 1, NULL, &err), STATUS_OK, "%s", err.message);
    }
    close_all();
    folder_write(dir, "audit/checkpoints", notes);
    if (!leaves) folder_write(dir, "audit/leaves", SV(""));
}

SEAL_TEST(records_unsealed_for_longer_than_a_crash_explains_are_noticed)
{
    leave_unsealed(50, NS_PER_S, true);
    struct strview leaves = folder_read(&arena, dir, "audit/leaves");
    open_all();
    WAIT_UNTIL(last_seq() == RECORDS + 51, 5000);
    cr_assert_eq(failures(), 1);
    WAIT_UNTIL(verify().sealed_records == RECORDS + 51, 5000);
    cr_assert_eq(verify().first_bad_seq, 0, "%.*s", SV_ARG(verify().bad_reason));
    cr_assert_eq(verify().n_late_seals, 1);
    cr_assert(sv_contains(verify().late_seals[0], SV("over 50 unsealed records after checkpoint 40 of")));
    cr_assert_eq(count_set_aside(), 1, "leaves behind the checkpoint are evidence");
    cr_assert_arr_eq(folder_read(&arena, dir, "audit/leaves").ptr, leaves.ptr, leaves.len);
}

SEAL_TEST(the_same_without_leaves_is_noticed)
{
    leave_unsealed(50, NS_PER_S, false);
    open_all();
    WAIT_UNTIL(last_seq() == RECORDS + 51, 5000);
    cr_assert_eq(failures(), 1);
    cr_assert_eq(count_set_aside(), 0);
}

/* A stop before the fiber has looked must not sign either. */
SEAL_TEST(a_stop_right_after_the_start_does_not_hide_it)
{
    leave_unsealed(50, NS_PER_S, true);
    open_all();
    close_all();
    cr_assert_eq(failures(), 1);
    cr_assert_eq(verify().sealed_records, RECORDS + 51);
    cr_assert_eq(verify().n_late_seals, 1);
    open_all();
}

SEAL_TEST(what_a_crash_leaves_under_load_is_no_alarm)
{
    leave_unsealed(5000, 2 * NS_PER_MS, true); /* ten seconds of a slow disk */
    open_all();
    WAIT_UNTIL(last_seq() == RECORDS + 5000, 5000);
    cr_assert_eq(failures(), 0);
    cr_assert_eq(verify().n_late_seals, 0);
    cr_assert_eq(count_set_aside(), 0);
}

/* Nothing could be sealed in the hours between them: the machine slept. */
SEAL_TEST(records_hours_apart_are_no_alarm)
{
    leave_unsealed(2, 3600 * NS_PER_S, true);
    open_all();
    WAIT_UNTIL(last_seq() == RECORDS + 2, 5000);
    cr_assert_eq(failures(), 0);
}

SEAL_TEST(a_checkpoint_that_does_not_hold_is_noticed_and_kept)
{
    append(RECORDS);
    close_all();
    struct strview notes = folder_read(&arena, dir, "audit/checkpoints");
    char *damaged = arena_cstr(&arena, notes);
    damaged[notes.len - 10] = damaged[notes.len - 10] == 'A' ? 'B' : 'A';
    folder_write(dir, "audit/checkpoints", sv_n(damaged, notes.len));
    open_all();
    cr_assert_eq(failures(), 1);
    append(1);
    WAIT_UNTIL(last_seq() == RECORDS + 2, 5000); /* and the record about it */
    cr_assert(sv_starts_with(folder_read(&arena, dir, "audit/checkpoints"), sv_n(damaged, notes.len)));
    cr_assert_neq(verify().first_bad_seq, 0);
}
