#include "store/journal_copy.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/journal_impl.h"

/* Retention cuts a segment now and then; a folder that changes faster is not worth waiting for. */
#define ATTEMPTS_MAX 10

struct copy {
    const struct journal_copy_cfg *cfg;
    uint64_t *segments; /* owned; first sequences, ascending */
    size_t n;
    uint64_t last_seq; /* where it ends */
    bool is_gone;      /* a segment was removed before its turn came */
    struct error *err;
};

/* ---- one file ---- */

static enum status sync_file(const char *path, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return error_set(err, status_from_errno(errno), "open '%s': %s", path, strerror(errno));
    int failed = fsync(fd) != 0 ? errno : 0;
    (void)close(fd);
    return failed == 0 ? STATUS_OK
                       : error_set(err, status_from_errno(failed), "fsync '%s': %s", path, strerror(failed));
}

/* SQLite's word for a full disk reads like one that passes by itself. */
static enum status write_error(sqlite3 *db, int rc, const char *from, const char *to, struct error *err)
{
    enum status s = journal_db_error(err, db, rc, "copy '%s'", from);
    bool is_full = (rc & 0xff) == SQLITE_FULL || sqlite3_system_errno(db) == ENOSPC;
    return is_full ? error_set(err, STATUS_RESOURCE_EXHAUSTED, "write '%s': %s", to, strerror(ENOSPC)) : s;
}

static enum status open_source(struct copy *c, const char *path, sqlite3 **ret_db)
{
    if (access(path, F_OK) != 0 && errno == ENOENT) {
        c->is_gone = true;
        return error_set(c->err, STATUS_UNAVAILABLE, "'%s' is gone", path);
    }
    if (access(path, R_OK) != 0)
        return error_set(c->err, STATUS_PERMISSION_DENIED, "read '%s': %s", path, strerror(errno));
    enum status s = journal_db_open(path, SQLITE_OPEN_READONLY, ret_db, c->err);
    if (s != STATUS_OK) return s;
    s = journal_db_check_format(*ret_db, path, c->err);
    if (s == STATUS_OK) return s;
    journal_db_close(*ret_db);
    *ret_db = NULL;
    return s;
}

/* A draft may be written as fast as it goes: it is synced as a whole. */
static enum status open_target(struct copy *c, uint64_t first_seq, const char *path, sqlite3 **ret_db)
{
    enum status s = journal_segment_create(c->cfg->to, first_seq, c->err);
    if (s == STATUS_OK) s = journal_db_open(path, SQLITE_OPEN_READWRITE, ret_db, c->err);
    if (s != STATUS_OK) return s;
    return journal_db_exec(*ret_db, "PRAGMA journal_mode = DELETE; PRAGMA synchronous = OFF; BEGIN", c->err);
}

/* ---- one segment ---- */

struct rows {
    sqlite3 *from, *to;
    sqlite3_stmt *select, *insert;
    const char *from_path, *to_path;
    uint64_t seq; /* the next to come */
};

static enum status put_row(struct copy *c, struct rows *r)
{
    uint64_t seq = (uint64_t)sqlite3_column_int64(r->select, 0);
    if (seq != r->seq)
        return error_set(c->err, STATUS_DATA_LOSS,
                         "read '%s': record %" PRIu64 " is missing, the next one is %" PRIu64, r->from_path,
                         r->seq, seq);
    (void)sqlite3_bind_int64(r->insert, 1, (sqlite3_int64)seq);
    (void)sqlite3_bind_value(r->insert, 2, sqlite3_column_value(r->select, 1));
    (void)sqlite3_step(r->insert);
    int rc = sqlite3_reset(r->insert);
    if (rc != SQLITE_OK) return write_error(r->to, rc, r->from_path, r->to_path, c->err);
    r->seq++;
    return STATUS_OK;
}

/* One short read transaction. *ret_n 0: the segment is at its end. */
static enum status copy_batch(struct copy *c, struct rows *r, size_t *ret_n)
{
    enum status s = STATUS_OK;
    uint64_t began = r->seq;
    int rc = SQLITE_DONE;
    (void)sqlite3_bind_int64(r->select, 1, (sqlite3_int64)r->seq);
    (void)sqlite3_bind_int64(r->select, 2, (sqlite3_int64)c->last_seq);
    while (s == STATUS_OK && (rc = sqlite3_step(r->select)) == SQLITE_ROW)
        s = put_row(c, r);
    if (s == STATUS_OK && rc != SQLITE_DONE)
        s = journal_db_error(c->err, r->from, rc, "read '%s' from %" PRIu64, r->from_path, r->seq);
    (void)sqlite3_reset(r->select);
    *ret_n = (size_t)(r->seq - began);
    return s;
}

static enum status copy_rows(struct copy *c, struct rows *r)
{
    size_t n = 1;
    enum status s = journal_db_prepare(
        r->from, "SELECT seq, bytes FROM records WHERE seq >= ?1 AND seq <= ?2 ORDER BY seq LIMIT 1000",
        &r->select, c->err);
    if (s == STATUS_OK)
        s = journal_db_prepare(r->to, "INSERT INTO records(seq, bytes) VALUES(?1, ?2)", &r->insert, c->err);
    while (s == STATUS_OK && n > 0) {
        s = copy_batch(c, r, &n);
        if (s == STATUS_OK && c->cfg->on_progress != NULL)
            c->cfg->on_progress(r->seq - 1, c->last_seq, c->cfg->arg);
    }
    int rc = s == STATUS_OK ? sqlite3_exec(r->to, "COMMIT", NULL, NULL, NULL) : SQLITE_OK;
    if (rc != SQLITE_OK) s = write_error(r->to, rc, r->from_path, r->to_path, c->err);
    (void)sqlite3_finalize(r->select);
    (void)sqlite3_finalize(r->insert);
    return s;
}

static enum status copy_segment(struct copy *c, size_t i)
{
    char from[JOURNAL_PATH_MAX], to[JOURNAL_PATH_MAX];
    struct rows r = {.from_path = from, .to_path = to, .seq = c->segments[i]};
    uint64_t end = i + 1 < c->n ? c->segments[i + 1] : c->last_seq + 1;
    enum status s = journal_segment_path(c->cfg->from, c->segments[i], from, c->err);
    if (s == STATUS_OK) s = journal_segment_path(c->cfg->to, c->segments[i], to, c->err);
    if (s == STATUS_OK) s = open_source(c, from, &r.from);
    if (s == STATUS_OK) s = open_target(c, c->segments[i], to, &r.to);
    if (s == STATUS_OK) s = copy_rows(c, &r);
    if (r.from != NULL) journal_db_close(r.from);
    if (r.to != NULL) journal_db_close(r.to);
    if (s == STATUS_OK && r.seq != end)
        s = error_set(c->err, STATUS_DATA_LOSS,
                      "'%s' ends at record %" PRIu64 ", and the next segment begins at %" PRIu64, from,
                      r.seq - 1, end);
    return s == STATUS_OK ? sync_file(to, c->err) : s;
}

/* ---- the leased keys ---- */

/* Their revision must not go back: it is a fence. */
static enum status copy_leases(struct copy *c)
{
    char from[JOURNAL_PATH_MAX], to[JOURNAL_PATH_MAX];
    sqlite3 *db = NULL;
    sqlite3_stmt *stmt = NULL;
    if (snprintf(from, sizeof(from), "%s/leases.db", c->cfg->from) >= JOURNAL_PATH_MAX ||
        snprintf(to, sizeof(to), "%s/leases.db", c->cfg->to) >= JOURNAL_PATH_MAX)
        return error_set(c->err, STATUS_INVALID_ARGUMENT, "journal folder has too long a name");
    if (access(from, F_OK) != 0 && errno == ENOENT) return STATUS_OK;
    enum status s = journal_db_open(from, SQLITE_OPEN_READONLY, &db, c->err);
    if (s == STATUS_OK) s = journal_db_prepare(db, "VACUUM INTO ?1", &stmt, c->err);
    if (s == STATUS_OK) {
        (void)sqlite3_bind_text(stmt, 1, to, -1, SQLITE_STATIC);
        int rc = sqlite3_step(stmt);
        if (rc != SQLITE_DONE) s = write_error(db, rc, from, to, c->err);
    }
    (void)sqlite3_finalize(stmt);
    if (db != NULL) journal_db_close(db);
    return s == STATUS_OK ? sync_file(to, c->err) : s;
}

/* ---- all of it ---- */

/* Where the last segment ends now. */
static enum status find_end(struct copy *c)
{
    char path[JOURNAL_PATH_MAX];
    sqlite3 *db = NULL;
    enum status s = journal_segment_path(c->cfg->from, c->segments[c->n - 1], path, c->err);
    if (s == STATUS_OK) s = open_source(c, path, &db);
    if (s == STATUS_OK)
        s = journal_db_get_u64(db, "SELECT ifnull(max(seq), 0) FROM records", &c->last_seq, c->err);
    if (db != NULL) journal_db_close(db);
    if (s == STATUS_OK && c->last_seq == 0) c->last_seq = c->segments[c->n - 1] - 1;
    return s;
}

/* After a start again: what was copied is older than what is kept. */
static void remove_copied(const struct copy *c)
{
    char path[JOURNAL_PATH_MAX];
    for (size_t i = 0; i < c->n; i++)
        if (journal_segment_path(c->cfg->to, c->segments[i], path, NULL) == STATUS_OK) (void)unlink(path);
}

static enum status copy_once(struct copy *c)
{
    c->is_gone = false;
    c->n = 0;
    c->last_seq = 0;
    enum status s = journal_segment_list(c->cfg->from, &c->segments, &c->n, c->err);
    if (s == STATUS_OK && c->n > 0) s = find_end(c);
    for (size_t i = 0; i < c->n && s == STATUS_OK; i++)
        s = copy_segment(c, i);
    return s;
}

enum status journal_copy(const struct journal_copy_cfg *cfg, uint64_t *ret_first_seq, uint64_t *ret_last_seq,
                         struct error *err)
{
    struct copy c = {.cfg = cfg, .err = err};
    enum status s = copy_once(&c);
    for (unsigned attempt = 1; s != STATUS_OK && c.is_gone && attempt < ATTEMPTS_MAX; attempt++) {
        remove_copied(&c);
        free(c.segments);
        c.segments = NULL;
        s = copy_once(&c);
    }
    if (s == STATUS_OK) s = copy_leases(&c);
    if (s == STATUS_OK) {
        *ret_first_seq = c.n > 0 ? c.segments[0] : 1;
        *ret_last_seq = c.last_seq;
    }
    free(c.segments);
    return s;
}
