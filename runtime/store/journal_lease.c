/* Leased keys: a table in DIR/leases.db. The revision is one counter for all keys, so it grows even if a
 * key's row has been removed in between. Expiry is wall-clock time, because it has to survive a restart. */
#include "store/journal_impl.h"

#include <inttypes.h>
#include <pthread.h>
#include <sqlite3.h>

#include "base/clock.h"
#include "base/memory.h"

struct journal_leases {
    pthread_mutex_t lock;
    sqlite3 *db;
    sqlite3_stmt *find, *put, *bump, *revision, *release, *purge, *count;
};

static const char schema[] =
    "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
    "CREATE TABLE IF NOT EXISTS leases(key BLOB PRIMARY KEY, holder BLOB NOT NULL, revision INTEGER NOT NULL,"
    " expires_unix_ns INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS revision(id INTEGER PRIMARY KEY CHECK (id = 1), last INTEGER NOT NULL);"
    "INSERT OR IGNORE INTO revision VALUES(1, 0)";

static enum status prepare_all(struct journal_leases *t, struct error *err)
{
    const struct {
        const char *sql;
        sqlite3_stmt **stmt;
    } statements[] = {
        {"SELECT holder, revision, expires_unix_ns FROM leases WHERE key = ?1", &t->find},
        {"INSERT OR REPLACE INTO leases VALUES(?1, ?2, ?3, ?4)", &t->put},
        {"UPDATE revision SET last = last + 1", &t->bump},
        {"SELECT last FROM revision", &t->revision},
        {"DELETE FROM leases WHERE key = ?1 AND holder = ?2", &t->release},
        {"DELETE FROM leases WHERE expires_unix_ns <= ?1", &t->purge},
        {"SELECT count(*) FROM leases", &t->count},
    };
    enum status s = STATUS_OK;
    for (size_t i = 0; i < ARRAY_LEN(statements) && s == STATUS_OK; i++)
        s = journal_db_prepare(t->db, statements[i].sql, statements[i].stmt, err);
    return s;
}

enum status journal_leases_open(const char *dir, struct journal_leases **ret_leases, struct error *err)
{
    char path[JOURNAL_PATH_MAX];
    int n = snprintf(path, sizeof(path), "%s/leases.db", dir);
    if (n < 0 || n >= JOURNAL_PATH_MAX - 8)
        return error_set(err, STATUS_INVALID_ARGUMENT, "journal folder has too long a name");
    struct journal_leases *t = mem_zalloc(1, sizeof(*t));
    (void)pthread_mutex_init(&t->lock, NULL);
    enum status s = journal_db_open(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &t->db, err);
    if (s == STATUS_OK) s = journal_db_exec(t->db, schema, err);
    if (s == STATUS_OK) s = prepare_all(t, err);
    if (s != STATUS_OK) {
        journal_leases_close(t);
        return error_prefix(err, s, "leases '%s'", path);
    }
    *ret_leases = t;
    return STATUS_OK;
}

void journal_leases_close(struct journal_leases *t)
{
    if (t == NULL) return;
    sqlite3_stmt *const statements[] = {t->find,    t->put,   t->bump, t->revision,
                                        t->release, t->purge, t->count};
    for (size_t i = 0; i < ARRAY_LEN(statements); i++)
        (void)sqlite3_finalize(statements[i]);
    if (t->db != NULL) journal_db_close(t->db);
    (void)pthread_mutex_destroy(&t->lock);
    free(t);
}

static void bind_text(sqlite3_stmt *stmt, int at, struct strview s)
{
    (void)sqlite3_bind_blob64(stmt, at, s.len > 0 ? s.ptr : "", s.len, SQLITE_STATIC);
}

static enum status run(struct journal_leases *t, sqlite3_stmt *stmt, struct error *err)
{
    int rc = sqlite3_step(stmt);
    (void)sqlite3_reset(stmt);
    return rc == SQLITE_DONE ? STATUS_OK : journal_db_error(err, t->db, rc, "%s", sqlite3_sql(stmt));
}

static enum status get_u64(struct journal_leases *t, sqlite3_stmt *stmt, uint64_t *ret_value,
                           struct error *err)
{
    int rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW) *ret_value = (uint64_t)sqlite3_column_int64(stmt, 0);
    (void)sqlite3_reset(stmt);
    return rc == SQLITE_ROW ? STATUS_OK : journal_db_error(err, t->db, rc, "%s", sqlite3_sql(stmt));
}

static enum status make_room(struct journal_leases *t, int64_t now_unix_ns, struct error *err)
{
    uint64_t count = 0;
    enum status s = get_u64(t, t->count, &count, err);
    if (s != STATUS_OK || count < JOURNAL_LEASES_MAX) return s;
    (void)sqlite3_bind_int64(t->purge, 1, now_unix_ns);
    s = run(t, t->purge, err);
    if (s == STATUS_OK) s = get_u64(t, t->count, &count, err);
    if (s == STATUS_OK && count >= JOURNAL_LEASES_MAX)
        s = error_set(err, STATUS_RESOURCE_EXHAUSTED, "lease: %d keys are held already", JOURNAL_LEASES_MAX);
    return s;
}

/* *ret_revision: of the holder's own lease, 0 if a new one is to be given. */
static enum status look(struct journal_leases *t, struct strview key, struct strview holder,
                        int64_t now_unix_ns, uint64_t *ret_revision, struct error *err)
{
    enum status s = STATUS_OK;
    bind_text(t->find, 1, key);
    *ret_revision = 0;
    int rc = sqlite3_step(t->find);
    if (rc == SQLITE_ROW) {
        struct strview other =
            sv_n(sqlite3_column_blob(t->find, 0), (size_t)sqlite3_column_bytes(t->find, 0));
        bool is_live = sqlite3_column_int64(t->find, 2) > now_unix_ns;
        if (sv_eq(other, holder) && is_live)
            *ret_revision = (uint64_t)sqlite3_column_int64(t->find, 1);
        else if (is_live)
            s = error_set(err, STATUS_ALREADY_EXISTS, "lease '%.*s' is held by '%.*s'", SV_ARG(key),
                          SV_ARG(other));
    } else if (rc != SQLITE_DONE) {
        s = journal_db_error(err, t->db, rc, "lease '%.*s'", SV_ARG(key));
    }
    (void)sqlite3_reset(t->find);
    return s;
}

static enum status acquire(struct journal_leases *t, struct strview key, struct strview holder,
                           int64_t now_unix_ns, int64_t ttl_ns, uint64_t *ret_revision, struct error *err)
{
    uint64_t revision;
    enum status s = look(t, key, holder, now_unix_ns, &revision, err);
    if (s == STATUS_OK && revision == 0) {
        s = make_room(t, now_unix_ns, err);
        if (s == STATUS_OK) s = run(t, t->bump, err);
        if (s == STATUS_OK) s = get_u64(t, t->revision, &revision, err);
    }
    if (s != STATUS_OK) return s;
    bind_text(t->put, 1, key);
    bind_text(t->put, 2, holder);
    (void)sqlite3_bind_int64(t->put, 3, (sqlite3_int64)revision);
    (void)sqlite3_bind_int64(t->put, 4, clock_add_ns(now_unix_ns, ttl_ns));
    s = run(t, t->put, err);
    if (s == STATUS_OK) *ret_revision = revision;
    return s;
}

enum status journal_leases_acquire(struct journal_leases *t, struct strview key, struct strview holder,
                                   int64_t now_unix_ns, int64_t ttl_ns, uint64_t *ret_revision,
                                   struct error *err)
{
    uint64_t revision = 0;
    (void)pthread_mutex_lock(&t->lock);
    enum status s = journal_db_exec(t->db, "BEGIN IMMEDIATE", err);
    if (s == STATUS_OK) {
        s = acquire(t, key, holder, now_unix_ns, ttl_ns, &revision, err);
        if (s == STATUS_OK) s = journal_db_exec(t->db, "COMMIT", err);
        if (s != STATUS_OK) (void)sqlite3_exec(t->db, "ROLLBACK", NULL, NULL, NULL);
    }
    (void)pthread_mutex_unlock(&t->lock);
    if (s == STATUS_OK) *ret_revision = revision;
    return s;
}

enum status journal_leases_release(struct journal_leases *t, struct strview key, struct strview holder,
                                   struct error *err)
{
    (void)pthread_mutex_lock(&t->lock);
    bind_text(t->release, 1, key);
    bind_text(t->release, 2, holder);
    enum status s = run(t, t->release, err);
    if (s == STATUS_OK && sqlite3_changes(t->db) == 0)
        s = error_set(err, STATUS_NOT_FOUND, "lease '%.*s' is not held by '%.*s'", SV_ARG(key),
                      SV_ARG(holder));
    (void)pthread_mutex_unlock(&t->lock);
    return s;
}
