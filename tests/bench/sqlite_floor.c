/* The floor under the journal: a bare SQLite program that inserts the same rows in the same groups with the
 * same pragmas, nothing around it. `sqlite_floor DIR [records] [bytes] [group] [page_size]` prints records/s,
 * commits/s and CPU. */
#include <inttypes.h>
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/contract/check.h"

#define PAGES_BETWEEN_CHECKPOINTS 1024

static int wal_pages;

static int on_wal_grown(void *arg, sqlite3 *db, const char *name, int pages)
{
    (void)arg, (void)db, (void)name;
    wal_pages = pages;
    return SQLITE_OK;
}

static double cpu_seconds(void)
{
    struct rusage u;
    (void)getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void run_step(sqlite3_stmt *stmt)
{
    (void)sqlite3_step(stmt);
    CHECK(sqlite3_reset(stmt) == SQLITE_OK);
}

int main(int argc, char **argv)
{
    CHECK(argc > 1);
    uint64_t records = argc > 2 ? strtoull(argv[2], NULL, 10) : 100000;
    int bytes = argc > 3 ? (int)strtol(argv[3], NULL, 10) : 600;
    uint64_t group = argc > 4 ? strtoull(argv[4], NULL, 10) : 64;
    long page_size = argc > 5 ? strtol(argv[5], NULL, 10) : 8192;
    char path[4096], sql[256], *blob = malloc((size_t)bytes);
    sqlite3 *db;
    sqlite3_stmt *begin, *insert, *commit;
    (void)snprintf(path, sizeof(path), "%s/floor.db", argv[1]);
    (void)snprintf(
        sql, sizeof(sql),
        "PRAGMA page_size = %ld; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
        "PRAGMA wal_autocheckpoint = 0; CREATE TABLE records(seq INTEGER PRIMARY KEY, bytes BLOB NOT NULL)",
        page_size);
    CHECK(blob != NULL && access(path, F_OK) != 0);
    memset(blob, 'x', (size_t)bytes);
    CHECK(sqlite3_open(path, &db) == SQLITE_OK && sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK);
    CHECK(sqlite3_prepare_v2(db, "BEGIN IMMEDIATE", -1, &begin, NULL) == SQLITE_OK);
    CHECK(sqlite3_prepare_v2(db, "INSERT INTO records VALUES(?1, ?2)", -1, &insert, NULL) == SQLITE_OK);
    CHECK(sqlite3_prepare_v2(db, "COMMIT", -1, &commit, NULL) == SQLITE_OK);
    (void)sqlite3_wal_hook(db, on_wal_grown, NULL);
    int64_t start = clock_monotonic_ns();
    double cpu = cpu_seconds();
    for (uint64_t seq = 1; seq <= records;) {
        run_step(begin);
        for (uint64_t i = 0; i < group && seq <= records; i++, seq++) {
            (void)sqlite3_bind_int64(insert, 1, (sqlite3_int64)seq);
            (void)sqlite3_bind_blob(insert, 2, blob, bytes, SQLITE_STATIC);
            run_step(insert);
        }
        run_step(commit);
        if (wal_pages >= PAGES_BETWEEN_CHECKPOINTS)
            CHECK(sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL) == SQLITE_OK);
    }
    double seconds = (double)(clock_monotonic_ns() - start) / 1e9;
    cpu = cpu_seconds() - cpu;
    printf("sqlite_floor: %" PRIu64 " records of %d bytes in groups of %" PRIu64
           ", pages of %ld: %.0f records/s, %.0f commits/s, "
           "%.2f us CPU a record\n",
           records, bytes, group, page_size, (double)records / seconds,
           (double)records / (double)group / seconds, cpu * 1e6 / (double)records);
    (void)sqlite3_finalize(begin), (void)sqlite3_finalize(insert), (void)sqlite3_finalize(commit);
    (void)sqlite3_close(db);
    (void)unlink(path);
    free(blob);
    return 0;
}
