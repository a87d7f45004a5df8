#include "store/journal_impl.h"

#include <errno.h>
#include <pthread.h>
#include <sqlite3.h>
#include <string.h>
#include <unistd.h>

#define SHM_PAGE_BYTES 4096 /* SQLite's unit of a -shm file, whatever the machine's page is */

enum status status_from_sqlite(int rc)
{
    switch (rc & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
        return STATUS_OK;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return STATUS_DATA_LOSS;
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_READONLY:
        return STATUS_PERMISSION_DENIED;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_CANTOPEN:
    case SQLITE_IOERR:
    case SQLITE_FULL:
    case SQLITE_NOMEM:
    case SQLITE_PROTOCOL:
        return STATUS_UNAVAILABLE;
    case SQLITE_TOOBIG:
        return STATUS_INVALID_ARGUMENT;
    case SQLITE_CONSTRAINT:
        return STATUS_ALREADY_EXISTS;
    default:
        return STATUS_INTERNAL;
    }
}

enum status journal_db_error(struct error *err, sqlite3 *db, int rc, const char *fmt, ...)
{
    char what[ERROR_MESSAGE_MAX];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    int errnum = db != NULL ? sqlite3_system_errno(db) : 0;
    int primary = rc & 0xff;
    bool has_errno =
        errnum != 0 && (primary == SQLITE_IOERR || primary == SQLITE_CANTOPEN || primary == SQLITE_FULL);
    char text[128] = "";
    const char *reason = has_errno ? strerror_r(errnum, text, sizeof(text)) : "";
    return error_set(err, status_from_sqlite(rc), "%s: sqlite: %s (%d)%s%s", what,
                     db != NULL ? sqlite3_errmsg(db) : sqlite3_errstr(rc), rc, has_errno ? ": " : "", reason);
}

/* ---- the index of a WAL on a full disk ---- */

_Static_assert(sizeof(off_t) == 8, "pwrite and pwrite64 are one function");

/* SQLite gives a page of a -shm file its place on the disk by writing the page's last byte. Where a block is
 * smaller than a page (ext4 below 512 MiB: 1 KiB) the rest of it stays a hole, and touching that through the
 * mapping ends the process by SIGBUS when the disk is full. So all of the page is written; nobody has it
 * mapped yet. */
static ssize_t write_whole_page(int fd, const void *data, size_t n, off_t offset)
{
    static const char page[SHM_PAGE_BYTES];
    if (n != 1 || (offset + 1) % SHM_PAGE_BYTES != 0) return pwrite(fd, data, n, offset);
    ssize_t written = pwrite(fd, page, sizeof(page), offset + 1 - SHM_PAGE_BYTES);
    if (written == SHM_PAGE_BYTES) return 1;
    if (written >= 0) errno = ENOSPC; /* a part of it: the next byte would have said so */
    return -1;
}

/* Which of the two it calls is up to how SQLite was built. */
static void set_write(void)
{
    sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
    if (vfs == NULL || vfs->iVersion < 3) return;
    (void)vfs->xSetSystemCall(vfs, "pwrite", (sqlite3_syscall_ptr)write_whole_page);
    (void)vfs->xSetSystemCall(vfs, "pwrite64", (sqlite3_syscall_ptr)write_whole_page);
}

enum status journal_db_open(const char *path, int flags, sqlite3 **ret_db, struct error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    sqlite3 *db = NULL;
    (void)pthread_once(&once, set_write);
    int rc = sqlite3_open_v2(path, &db, flags | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc != SQLITE_OK) {
        enum status s = journal_db_error(err, db, rc, "open '%s'", path);
        (void)sqlite3_close(db);
        return s;
    }
    (void)sqlite3_extended_result_codes(db, 1);
    (void)sqlite3_busy_timeout(db, JOURNAL_BUSY_TIMEOUT_MS);
    *ret_db = db;
    return STATUS_OK;
}

void journal_db_close(sqlite3 *db)
{
    (void)sqlite3_close(db); /* fails only with statements left: ours are finalized first */
}

enum status journal_db_exec(sqlite3 *db, const char *sql, struct error *err)
{
    int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? STATUS_OK : journal_db_error(err, db, rc, "%s", sql);
}

enum status journal_db_prepare(sqlite3 *db, const char *sql, sqlite3_stmt **ret_stmt, struct error *err)
{
    int rc = sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, ret_stmt, NULL);
    return rc == SQLITE_OK ? STATUS_OK : journal_db_error(err, db, rc, "%s", sql);
}

enum status journal_db_get_u64(sqlite3 *db, const char *sql, uint64_t *ret_value, struct error *err)
{
    sqlite3_stmt *stmt = NULL;
    enum status s = journal_db_prepare(db, sql, &stmt, err);
    if (s != STATUS_OK) return s;
    int rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW)
        *ret_value = (uint64_t)sqlite3_column_int64(stmt, 0);
    else
        s = journal_db_error(err, db, rc == SQLITE_DONE ? SQLITE_INTERNAL : rc, "%s", sql);
    (void)sqlite3_finalize(stmt);
    return s;
}

static enum status check_schema(sqlite3 *db, const char *path, struct error *err)
{
    uint64_t is_ours = 0;
    enum status s = journal_db_get_u64(
        db, "SELECT count(*) = 1 AND max(type = 'table' AND sql = '" JOURNAL_TABLE "') FROM sqlite_schema",
        &is_ours, err);
    if (s != STATUS_OK) return error_prefix(err, s, "'%s'", path);
    if (is_ours == 1) return STATUS_OK;
    return error_set(err, STATUS_DATA_LOSS, "'%s' has something else in it than the records", path);
}

enum status journal_db_check_format(sqlite3 *db, const char *path, struct error *err)
{
    uint64_t id = 0, version = 0;
    enum status s = journal_db_get_u64(db, "PRAGMA application_id", &id, err);
    if (s == STATUS_OK) s = journal_db_get_u64(db, "PRAGMA user_version", &version, err);
    if (s != STATUS_OK) return error_prefix(err, s, "'%s'", path);
    if (id != JOURNAL_APPLICATION_ID)
        return error_set(err, STATUS_DATA_LOSS,
                         "'%s' is not a file of this journal: application id %llu, not %d", path,
                         (unsigned long long)id, JOURNAL_APPLICATION_ID);
    if (version > JOURNAL_USER_VERSION)
        return error_set(err, STATUS_FAILED_PRECONDITION, "'%s' has format %llu, this version reads up to %d",
                         path, (unsigned long long)version, JOURNAL_USER_VERSION);
    return check_schema(db, path, err);
}
