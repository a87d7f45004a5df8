#include "store/journal_copy.h"

#include <criterion/criterion.h>
#include <ftw.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/journal_impl.h"

static char dir[1024], from[1100], to[1100];

static int on_remove(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(path);
}

static void set_up(void)
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(dir, sizeof(dir), "%s/balm-copy-XXXXXX", tmp != NULL ? tmp : "/tmp");
    cr_assert_not_null(mkdtemp(dir));
    (void)snprintf(from, sizeof(from), "%s/from", dir);
    (void)snprintf(to, sizeof(to), "%s/to", dir);
    cr_assert(mkdir(from, 0700) == 0 && mkdir(to, 0700) == 0);
}

static void tear_down(void)
{
    cr_assert_eq(nftw(dir, on_remove, 16, FTW_DEPTH | FTW_PHYS), 0);
}

TestSuite(journal_copy, .init = set_up, .fini = tear_down, .timeout = 120);

static char *segment_path(const char *folder, uint64_t first)
{
    static char path[JOURNAL_PATH_MAX];
    cr_assert_eq(journal_segment_path(folder, first, path, NULL), STATUS_OK);
    return path;
}

static void run_sql(const char *path, const char *sql)
{
    sqlite3 *db;
    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK, "%s", sqlite3_errmsg(db));
    (void)sqlite3_close(db);
}

/* Records first … last, each holding its own number. */
static void make_segment(uint64_t first, uint64_t last)
{
    char sql[512];
    struct error err;
    cr_assert_eq(journal_segment_create(from, first, &err), STATUS_OK, "%s", err.message);
    (void)snprintf(sql, sizeof(sql),
                   "WITH RECURSIVE n(i) AS (SELECT %llu UNION ALL SELECT i + 1 FROM n WHERE i < %llu) "
                   "INSERT INTO records SELECT i, CAST(i AS BLOB) FROM n",
                   (unsigned long long)first, (unsigned long long)last);
    if (last >= first) run_sql(segment_path(from, first), sql);
}

static void expect_copy(uint64_t first, uint64_t last)
{
    struct journal_reader *reader = NULL;
    struct journal_entry *entries;
    struct arena a = {0};
    struct error err;
    size_t n;
    cr_assert_eq(journal_reader_open(to, &reader, &err), STATUS_OK, "%s", err.message);
    cr_assert_eq(journal_reader_first_seq(reader), first);
    uint64_t seq = first;
    while (journal_reader_read(reader, seq, 1000, false, &a, &entries, &n, &err) == STATUS_OK && n > 0)
        for (size_t i = 0; i < n; i++, seq++) {
            uint64_t number = 0;
            cr_assert(sv_parse_u64(entries[i].bytes, &number) == STATUS_OK && number == seq);
        }
    cr_assert_eq(seq, last + 1);
    journal_reader_close(reader);
    arena_release(&a);
}

static enum status copy(struct journal_copy_cfg *cfg, uint64_t *ret_first, uint64_t *ret_last,
                        struct error *err)
{
    cfg->from = from;
    cfg->to = to;
    return journal_copy(cfg, ret_first, ret_last, err);
}

Test(journal_copy, segments_keep_their_names_and_have_no_wal)
{
    struct journal_copy_cfg cfg = {0};
    struct error err = {0};
    struct stat st;
    char wal[JOURNAL_PATH_MAX + 8];
    uint64_t first = 0, last = 0;
    make_segment(1, 2500);
    make_segment(2501, 2501);
    make_segment(2502, 2501);
    cr_assert_eq(copy(&cfg, &first, &last, &err), STATUS_OK, "%s", err.message);
    cr_assert(first == 1 && last == 2501);
    expect_copy(1, 2501);
    cr_assert_eq(stat(segment_path(to, 2501), &st), 0);
    (void)snprintf(wal, sizeof(wal), "%s-wal", segment_path(to, 1));
    cr_assert_neq(stat(wal, &st), 0);
}

Test(journal_copy, of_an_empty_folder_is_empty)
{
    struct journal_copy_cfg cfg = {0};
    uint64_t first = 0, last = 9;
    cr_assert_eq(copy(&cfg, &first, &last, NULL), STATUS_OK);
    cr_assert(first == 1 && last == 0);
    cr_assert_eq(rmdir(from), 0);
    cr_assert_eq(copy(&cfg, &first, &last, NULL), STATUS_NOT_FOUND);
}

/* What is appended to the last segment meanwhile belongs to the next copy. */
static void append_once(uint64_t seq, uint64_t last_seq, void *arg)
{
    (void)seq, (void)last_seq;
    bool *done = arg;
    if (!*done) run_sql(segment_path(from, 1), "INSERT INTO records VALUES(1501, CAST('1501' AS BLOB))");
    *done = true;
}

Test(journal_copy, ends_where_the_journal_ended_when_it_began)
{
    bool done = false;
    struct journal_copy_cfg cfg = {.on_progress = append_once, .arg = &done};
    struct error err = {0};
    uint64_t first = 0, last = 0;
    make_segment(1, 1500);
    cr_assert_eq(copy(&cfg, &first, &last, &err), STATUS_OK, "%s", err.message);
    cr_assert(done && last == 1500);
    expect_copy(1, 1500);
}

/* While the first is copied: it and the second, as retention does. */
static void cut_two(uint64_t seq, uint64_t last_seq, void *arg)
{
    (void)seq, (void)last_seq, (void)arg;
    (void)unlink(segment_path(from, 1));
    (void)unlink(segment_path(from, 2001));
}

Test(journal_copy, begins_again_where_retention_cut_what_was_to_come)
{
    struct journal_copy_cfg cfg = {.on_progress = cut_two};
    struct error err = {0};
    uint64_t first = 0, last = 0;
    make_segment(1, 2000);
    make_segment(2001, 4000);
    make_segment(4001, 5000);
    cr_assert_eq(copy(&cfg, &first, &last, &err), STATUS_OK, "%s", err.message);
    cr_assert(first == 4001 && last == 5000);
    expect_copy(4001, 5000);
}

static void cut_first(uint64_t seq, uint64_t last_seq, void *arg)
{
    (void)seq, (void)last_seq, (void)arg;
    (void)unlink(segment_path(from, 1));
}

Test(journal_copy, goes_on_with_what_is_open_while_retention_cuts_it)
{
    struct journal_copy_cfg cfg = {.on_progress = cut_first};
    struct error err = {0};
    uint64_t first = 0, last = 0;
    make_segment(1, 2000);
    make_segment(2001, 2500);
    cr_assert_eq(copy(&cfg, &first, &last, &err), STATUS_OK, "%s", err.message);
    cr_assert(first == 1 && last == 2500);
    expect_copy(1, 2500);
}

Test(journal_copy, missing_records_and_newer_formats_are_refused)
{
    struct journal_copy_cfg cfg = {0};
    struct error err = {0};
    uint64_t first = 0, last = 0;
    make_segment(1, 100);
    make_segment(102, 200);
    cr_assert_eq(copy(&cfg, &first, &last, &err), STATUS_DATA_LOSS);
    cr_assert(sv_contains(sv(err.message), SV("ends at record 100, and the next segment begins at 102")),
              "%s", err.message);
    (void)unlink(segment_path(from, 102));
    (void)unlink(segment_path(to, 1));
    run_sql(segment_path(from, 1), "DELETE FROM records WHERE seq = 50");
    cr_assert_eq(copy(&cfg, &first, &last, &err), STATUS_DATA_LOSS);
    cr_assert(sv_contains(sv(err.message), SV("record 50 is missing, the next one is 51")), "%s",
              err.message);
    run_sql(segment_path(from, 1), "PRAGMA user_version = 99");
    cr_assert_eq(copy(&cfg, &first, &last, &err), STATUS_FAILED_PRECONDITION);
}

Test(journal_copy, the_fence_of_leased_keys_does_not_go_back)
{
    struct journal_copy_cfg cfg = {0};
    struct journal_leases *leases = NULL;
    struct error err = {0};
    uint64_t first = 0, last = 0, before = 0, after = 0;
    make_segment(1, 1);
    cr_assert_eq(journal_leases_open(from, &leases, &err), STATUS_OK);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(journal_leases_acquire(leases, SV("k"), SV("me"), 1, 100, &before, &err), STATUS_OK);
        cr_assert_eq(journal_leases_release(leases, SV("k"), SV("me"), &err), STATUS_OK);
    }
    cr_assert_eq(copy(&cfg, &first, &last, &err), STATUS_OK, "%s", err.message); /* while it is open */
    journal_leases_close(leases);
    cr_assert_eq(journal_leases_open(to, &leases, &err), STATUS_OK);
    cr_assert_eq(journal_leases_acquire(leases, SV("k"), SV("me"), 1, 100, &after, &err), STATUS_OK);
    cr_assert_gt(after, before);
    journal_leases_close(leases);
}
