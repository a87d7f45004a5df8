#include "store/journal_format.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/version.h"
#include "store/journal_impl.h"

/* The database header: https://www.sqlite.org/fileformat.html, section 1.3; numbers are big-endian. */
enum { HEADER_BYTES = 100, USER_VERSION_AT = 60, APPLICATION_ID_AT = 68 };

static uint32_t number_at(const unsigned char *bytes, size_t at)
{
    return (uint32_t)bytes[at] << 24 | (uint32_t)bytes[at + 1] << 16 | (uint32_t)bytes[at + 2] << 8 |
           bytes[at + 3];
}

/* A segment is whole before it has its name, so this is in the file and not only in its WAL. */
static enum status check_header(const char *path, struct error *err)
{
    unsigned char bytes[HEADER_BYTES];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return STATUS_OK;
    ssize_t n = pread(fd, bytes, sizeof(bytes), 0);
    (void)close(fd);
    if (n != HEADER_BYTES || number_at(bytes, APPLICATION_ID_AT) != JOURNAL_APPLICATION_ID) return STATUS_OK;
    uint32_t format = number_at(bytes, USER_VERSION_AT);
    if (format <= JOURNAL_USER_VERSION) return STATUS_OK;
    return error_set(err, STATUS_FAILED_PRECONDITION,
                     "'%s' was written by a newer balm: it has format %" PRIu32
                     ", and this is balm %s, which reads up to %d; nothing was changed",
                     path, format, BALM_VERSION, JOURNAL_USER_VERSION);
}

static enum status decode_newest(sqlite3_stmt *stmt, const char *path, struct error *err)
{
    struct arena a = {0};
    struct record record;
    struct error why = {0};
    if (sqlite3_step(stmt) != SQLITE_ROW) return STATUS_OK;
    struct strview bytes = sv_n(sqlite3_column_blob(stmt, 1), (size_t)sqlite3_column_bytes(stmt, 1));
    enum status s = record_decode(bytes, &a, &record, &why);
    if (s == STATUS_FAILED_PRECONDITION)
        s = error_set(
            err, s,
            "'%s' was written by a newer balm: record %lld: %s (this is balm %s); nothing was changed", path,
            (long long)sqlite3_column_int64(stmt, 0), why.message, BALM_VERSION);
    else
        s = STATUS_OK;
    arena_release(&a);
    return s;
}

static enum status check_newest(const char *path, struct error *err)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *stmt = NULL;
    enum status s = STATUS_OK;
    if (journal_db_open(path, SQLITE_OPEN_READONLY, &db, NULL) != STATUS_OK) return STATUS_OK;
    if (journal_db_check_format(db, path, NULL) == STATUS_OK &&
        journal_db_prepare(db, "SELECT seq, bytes FROM records ORDER BY seq DESC LIMIT 1", &stmt, NULL) ==
            STATUS_OK)
        s = decode_newest(stmt, path, err);
    (void)sqlite3_finalize(stmt);
    journal_db_close(db);
    return s;
}

enum status journal_check_format(const char *dir, struct error *err)
{
    char path[JOURNAL_PATH_MAX];
    uint64_t *seqs = NULL;
    size_t n = 0;
    if (journal_segment_list(dir, &seqs, &n, NULL) != STATUS_OK) return STATUS_OK;
    enum status s = STATUS_OK;
    for (size_t i = n; i > 0 && s == STATUS_OK; i--) { /* the newest first: most likely to be it */
        if (journal_segment_path(dir, seqs[i - 1], path, NULL) != STATUS_OK) break;
        s = check_header(path, err);
    }
    if (s == STATUS_OK && n > 0 && journal_segment_path(dir, seqs[n - 1], path, NULL) == STATUS_OK)
        s = check_newest(path, err);
    free(seqs);
    return s;
}
