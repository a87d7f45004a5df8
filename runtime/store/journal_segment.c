#include "store/journal_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"

enum { NAME_DIGITS = 20, FINISH_TIMEOUT_MS = 20 };
#define SEGMENTS_MAX 100000 /* a folder with more is not one of ours; 25 TiB at the default size */

/* ---- names ---- */

enum status journal_segment_path(const char *dir, uint64_t first_seq, char ret_path[JOURNAL_PATH_MAX],
                                 struct error *err)
{
    int n = snprintf(ret_path, JOURNAL_PATH_MAX, "%s/%020" PRIu64 ".db", dir, first_seq);
    if (n < 0 || n >= JOURNAL_PATH_MAX - 8) /* SQLite appends -wal and -shm */
        return error_set(err, STATUS_INVALID_ARGUMENT, "journal folder '%.64s…' has too long a name", dir);
    return STATUS_OK;
}

static bool parse_name(const char *name, uint64_t *ret_seq)
{
    struct strview s = sv(name);
    if (s.len != NAME_DIGITS + 3 || !sv_ends_with(s, SV(".db"))) return false;
    return sv_parse_u64(sv_sub(s, 0, NAME_DIGITS), ret_seq) == STATUS_OK && *ret_seq > 0;
}

static int compare_seqs(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

enum status journal_segment_list(const char *dir, uint64_t **ret_seqs, size_t *ret_n, struct error *err)
{
    DIR *d = opendir(dir);
    if (d == NULL)
        return error_set(err, status_from_errno(errno), "journal folder '%s': %s", dir, strerror(errno));
    uint64_t *seqs = NULL;
    size_t n = 0, capacity = 0;
    const struct dirent *entry;
    while ((entry = readdir(d)) != NULL && n < SEGMENTS_MAX) {
        uint64_t seq;
        if (!parse_name(entry->d_name, &seq)) continue;
        if (n == capacity) {
            capacity = capacity ? capacity * 2 : 16;
            seqs = mem_realloc(seqs, capacity * sizeof(*seqs));
        }
        seqs[n++] = seq;
    }
    (void)closedir(d);
    if (n > 1) qsort(seqs, n, sizeof(*seqs), compare_seqs);
    *ret_seqs = seqs;
    *ret_n = n;
    return STATUS_OK;
}

static enum status sync_path(const char *path, int flags, struct error *err)
{
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0) return error_set(err, STATUS_UNAVAILABLE, "open '%s': %s", path, strerror(errno));
    int failed = fsync(fd) != 0 ? errno : 0;
    (void)close(fd);
    return failed == 0 ? STATUS_OK
                       : error_set(err, STATUS_UNAVAILABLE, "fsync '%s': %s", path, strerror(failed));
}

static uint64_t file_bytes(const char *path, const char *suffix)
{
    char name[JOURNAL_PATH_MAX + 8];
    struct stat st;
    (void)snprintf(name, sizeof(name), "%s%s", path, suffix);
    return stat(name, &st) == 0 ? (uint64_t)st.st_size : 0;
}

enum status journal_segment_extents(const char *dir, struct arena *a, struct journal_extent **ret_segments,
                                    size_t *ret_n, struct error *err)
{
    uint64_t *seqs = NULL;
    size_t n = 0;
    char path[JOURNAL_PATH_MAX];
    enum status s = journal_segment_list(dir, &seqs, &n, err);
    if (s != STATUS_OK) return s;
    *ret_segments = arena_array(a, n + 1, sizeof(**ret_segments));
    *ret_n = n;
    for (size_t i = 0; i < n && s == STATUS_OK; i++) {
        s = journal_segment_path(dir, seqs[i], path, err);
        (*ret_segments)[i] = (struct journal_extent){.first_seq = seqs[i]};
        if (s == STATUS_OK) (*ret_segments)[i].bytes = file_bytes(path, "") + file_bytes(path, "-wal");
    }
    free(seqs);
    return s;
}

static void remove_files(const char *path)
{
    char name[JOURNAL_PATH_MAX + 8];
    static const char *const suffixes[] = {"", "-wal", "-shm", "-journal"};
    for (size_t i = 0; i < ARRAY_LEN(suffixes); i++) {
        (void)snprintf(name, sizeof(name), "%s%s", path, suffixes[i]);
        (void)unlink(name);
    }
}

/* What a kill left beside a removed segment is found when the next one goes: nothing reads it meanwhile. */
static void remove_strays(const char *dir, uint64_t keep_from)
{
    DIR *d = opendir(dir);
    for (const struct dirent *entry; d != NULL && (entry = readdir(d)) != NULL;) {
        char name[NAME_DIGITS + 4];
        uint64_t seq;
        (void)snprintf(name, sizeof(name), "%.*s", NAME_DIGITS + 3, entry->d_name);
        if (entry->d_name[0] == '\0' || strlen(entry->d_name) <= NAME_DIGITS + 3 || !parse_name(name, &seq))
            continue;
        if (seq < keep_from) (void)unlinkat(dirfd(d), entry->d_name, 0);
    }
    if (d != NULL) (void)closedir(d);
}

enum status journal_segment_remove_before(const char *dir, uint64_t keep_from, struct error *err)
{
    uint64_t *seqs = NULL;
    size_t n = 0, kept = 0;
    char path[JOURNAL_PATH_MAX];
    enum status s = journal_segment_list(dir, &seqs, &n, err);
    while (kept < n && seqs[kept] < keep_from)
        kept++;
    if (s == STATUS_OK && (kept == n || seqs[kept] != keep_from))
        s = error_set(err, STATUS_NOT_FOUND, "journal '%s': no segment begins with record %" PRIu64, dir,
                      keep_from);
    for (size_t i = 0; i < kept && s == STATUS_OK; i++) {
        s = journal_segment_path(dir, seqs[i], path, err);
        if (s == STATUS_OK) remove_files(path);
        if (s == STATUS_OK && access(path, F_OK) == 0)
            s = error_set(err, STATUS_UNAVAILABLE, "remove '%s': it is still there", path);
    }
    if (s == STATUS_OK) remove_strays(dir, keep_from);
    if (s == STATUS_OK) s = sync_path(dir, O_RDONLY | O_DIRECTORY, err);
    free(seqs);
    return s;
}

/* ---- checking at the start ---- */

static enum status read_range(sqlite3 *db, uint64_t first_seq, uint64_t *ret_last_seq, struct error *err)
{
    uint64_t low = 0, high = 0, count = 0;
    enum status s = journal_db_get_u64(db, "SELECT count(*) FROM records", &count, err);
    if (s == STATUS_OK) s = journal_db_get_u64(db, "SELECT ifnull(min(seq), 0) FROM records", &low, err);
    if (s == STATUS_OK) s = journal_db_get_u64(db, "SELECT ifnull(max(seq), 0) FROM records", &high, err);
    if (s != STATUS_OK) return s;
    *ret_last_seq = count == 0 ? first_seq - 1 : high;
    if (count > 0 && (low != first_seq || high - low + 1 != count))
        return error_set(err, STATUS_DATA_LOSS,
                         "sequences have a gap: %" PRIu64 " records from %" PRIu64 " to %" PRIu64, count, low,
                         high);
    return STATUS_OK;
}

static enum status check_one(const char *dir, uint64_t first_seq, uint64_t *ret_last_seq, struct error *err)
{
    char path[JOURNAL_PATH_MAX];
    enum status s = journal_segment_path(dir, first_seq, path, err);
    if (s != STATUS_OK) return s;
    sqlite3 *db = NULL;
    s = journal_db_open(path, SQLITE_OPEN_READWRITE, &db, err);
    if (s != STATUS_OK) return s;
    s = journal_db_check_format(db, path, err);
    if (s == STATUS_OK) {
        s = read_range(db, first_seq, ret_last_seq, err);
        if (s != STATUS_OK) s = error_prefix(err, s, "'%s'", path);
    }
    journal_db_close(db);
    return s;
}

enum status journal_segment_check(const char *dir, uint64_t *ret_first_seq, uint64_t *ret_last_seq,
                                  struct error *err)
{
    uint64_t *seqs = NULL, last = 0;
    size_t n = 0;
    enum status s = journal_segment_list(dir, &seqs, &n, err);
    for (size_t i = 0; i < n && s == STATUS_OK; i++) {
        if (i > 0 && seqs[i] != last + 1)
            s = error_set(err, STATUS_DATA_LOSS,
                          "journal '%s': segment %020" PRIu64 ".db ends at %" PRIu64
                          ", the next one begins at %" PRIu64,
                          dir, seqs[i - 1], last, seqs[i]);
        else
            s = check_one(dir, seqs[i], &last, err);
    }
    if (s == STATUS_OK) {
        *ret_first_seq = n > 0 ? seqs[0] : 1;
        *ret_last_seq = last;
    }
    free(seqs);
    return s;
}

/* ---- creating ---- */

static enum status write_empty(const char *path, struct error *err)
{
    sqlite3 *db = NULL;
    enum status s = journal_db_open(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &db, err);
    if (s != STATUS_OK) return s;
    char sql[256];
    (void)snprintf(sql, sizeof(sql),
                   "BEGIN; PRAGMA application_id = %d; PRAGMA user_version = %d;" JOURNAL_TABLE "; COMMIT",
                   JOURNAL_APPLICATION_ID, JOURNAL_USER_VERSION);
    s = journal_db_exec(db, "PRAGMA page_size = 8192; PRAGMA synchronous = FULL; PRAGMA journal_mode = WAL",
                        err);
    if (s == STATUS_OK) s = journal_db_exec(db, sql, err);
    if (s == STATUS_OK) s = journal_db_exec(db, "PRAGMA wal_checkpoint(TRUNCATE)", err);
    journal_db_close(db);
    return s;
}

enum status journal_segment_create(const char *dir, uint64_t first_seq, struct error *err)
{
    char path[JOURNAL_PATH_MAX], draft[JOURNAL_PATH_MAX];
    enum status s = journal_segment_path(dir, first_seq, path, err);
    if (s != STATUS_OK) return s;
    (void)snprintf(draft, sizeof(draft), "%.*s/next.tmp", JOURNAL_PATH_MAX - 16, dir);
    remove_files(draft); /* of a process that died here */
    s = write_empty(draft, err);
    if (s == STATUS_OK) s = sync_path(draft, O_RDONLY, err);
    if (s == STATUS_OK && rename(draft, path) != 0)
        s = error_set(err, STATUS_UNAVAILABLE, "rename '%s' to '%s': %s", draft, path, strerror(errno));
    if (s == STATUS_OK) s = sync_path(dir, O_RDONLY | O_DIRECTORY, err);
    if (s != STATUS_OK) remove_files(draft);
    return s;
}

/* ---- writing ---- */

static bool find_file(const char *path, const char *suffix, struct journal_file_id *ret_id)
{
    char name[JOURNAL_PATH_MAX + 8];
    struct stat st;
    (void)snprintf(name, sizeof(name), "%s%s", path, suffix);
    if (stat(name, &st) != 0) return false;
    *ret_id = (struct journal_file_id){.device = st.st_dev, .inode = st.st_ino};
    return true;
}

static enum status check_file(const struct journal_segment *g, const char *suffix,
                              struct journal_file_id opened, struct error *err)
{
    struct journal_file_id now;
    if (!find_file(g->path, suffix, &now))
        return error_set(err, STATUS_UNAVAILABLE, "'%s%s' is gone: %s", g->path, suffix, strerror(errno));
    if (now.device != opened.device || now.inode != opened.inode)
        return error_set(err, STATUS_UNAVAILABLE, "'%s%s' has been replaced by another file", g->path,
                         suffix);
    return STATUS_OK;
}

enum status journal_segment_check_place(const struct journal_segment *g, struct error *err)
{
    enum status s = check_file(g, "", g->id, err);
    if (s == STATUS_OK) s = check_file(g, "-wal", g->wal_id, err);
    return s;
}

/* The WAL file alone is opened here: closing any descriptor of the main file or the -shm would drop SQLite's
 * locks on it. */
static enum status sync_wal(const char *path, struct error *err)
{
    char wal[JOURNAL_PATH_MAX + 8];
    (void)snprintf(wal, sizeof(wal), "%s-wal", path);
    if (access(wal, F_OK) != 0) return STATUS_OK;
    return sync_path(wal, O_RDWR, err);
}

static int on_wal_grown(void *arg, sqlite3 *db, const char *name, int pages)
{
    (void)db, (void)name;
    ((struct journal_segment *)arg)->wal_pages = pages;
    return SQLITE_OK;
}

/* A reader in another process may hold the WAL for a moment; SQLITE_BUSY then comes back after the busy
 * timeout, and that is the only result besides success that leaves everything durable where it is. The WAL is
 * synced once more when it is empty: after a failed fsync the disk has only a part of it, which would be
 * replayed over the newer file. */
static enum status settle_wal(struct journal_segment *g, struct error *err)
{
    enum status s = sync_wal(g->path, err);
    if (s != STATUS_OK) return s;
    int rc = sqlite3_wal_checkpoint_v2(g->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    if (rc != SQLITE_OK) return journal_db_error(err, g->db, rc, "checkpoint of '%s'", g->path);
    return sync_wal(g->path, err);
}

static enum status open_writer(struct journal_segment *g, struct error *err)
{
    enum status s = journal_db_open(g->path, SQLITE_OPEN_READWRITE, &g->db, err);
    if (s != STATUS_OK) return s;
    s = journal_db_check_format(g->db, g->path, err);
    if (s == STATUS_OK)
        s = journal_db_exec(
            g->db,
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;"
            "PRAGMA cache_size = -16384; PRAGMA temp_store = MEMORY",
            err);
    if (s == STATUS_OK) s = settle_wal(g, err);
    if (s == STATUS_OK) s = journal_db_prepare(g->db, "BEGIN IMMEDIATE", &g->begin, err);
    if (s == STATUS_OK)
        s = journal_db_prepare(g->db, "INSERT INTO records(seq, bytes) VALUES(?1, ?2)", &g->insert, err);
    if (s == STATUS_OK) s = journal_db_prepare(g->db, "COMMIT", &g->commit, err);
    return s;
}

enum status journal_segment_open(const char *dir, uint64_t first_seq, struct journal_segment **ret_segment,
                                 struct error *err)
{
    struct journal_segment *g = mem_zalloc(1, sizeof(*g));
    uint64_t pages = 0, page_bytes = 0;
    g->first_seq = first_seq;
    g->checkpoint_at_pages = JOURNAL_CHECKPOINT_PAGES;
    enum status s = journal_segment_path(dir, first_seq, g->path, err);
    if (s == STATUS_OK) s = open_writer(g, err);
    if (s == STATUS_OK)
        s = journal_db_get_u64(g->db, "SELECT ifnull(max(seq), 0) FROM records", &g->last_seq, err);
    if (s == STATUS_OK) s = journal_db_get_u64(g->db, "PRAGMA page_count", &pages, err);
    if (s == STATUS_OK) s = journal_db_get_u64(g->db, "PRAGMA page_size", &page_bytes, err);
    /* Both exist by now: what was read has opened the WAL as well. */
    if (s == STATUS_OK && !(find_file(g->path, "", &g->id) && find_file(g->path, "-wal", &g->wal_id)))
        s = error_set(err, STATUS_UNAVAILABLE, "'%s' or its WAL is gone: %s", g->path, strerror(errno));
    /* SQLite does this as well and takes no notice of a failure: what is committed to a WAL without a name on
     * the disk is lost with the power. */
    if (s == STATUS_OK) s = sync_path(dir, O_RDONLY | O_DIRECTORY, err);
    if (s != STATUS_OK) {
        journal_segment_close(g);
        return s;
    }
    if (g->last_seq == 0) g->last_seq = first_seq - 1;
    g->bytes = (size_t)(pages * page_bytes);
    (void)sqlite3_wal_hook(g->db, on_wal_grown, g);
    *ret_segment = g;
    return STATUS_OK;
}

void journal_segment_close(struct journal_segment *g)
{
    if (g == NULL) return;
    (void)sqlite3_finalize(g->begin);
    (void)sqlite3_finalize(g->insert);
    (void)sqlite3_finalize(g->commit);
    if (g->db != NULL) journal_db_close(g->db);
    free(g);
}

static int step(sqlite3_stmt *stmt)
{
    (void)sqlite3_step(stmt);
    return sqlite3_reset(stmt); /* repeats the code of the step */
}

static int insert_frame(struct journal_segment *g, const struct journal_frame *f)
{
    int rc = sqlite3_bind_int64(g->insert, 1, (sqlite3_int64)f->seq);
    if (rc == SQLITE_OK) rc = sqlite3_bind_blob(g->insert, 2, f->bytes, (int)f->bytes_len, SQLITE_STATIC);
    if (rc == SQLITE_OK) rc = step(g->insert);
    return rc;
}

enum status journal_segment_write(struct journal_segment *g, struct journal_position *at,
                                  struct journal_position end, struct error *err)
{
    struct journal_position reached = *at;
    uint64_t last_seq = g->last_seq;
    bool is_over = false;
    const struct journal_frame *f;
    int rc = step(g->begin);
    while (rc == SQLITE_OK && !is_over && (f = journal_log_next(&reached, end)) != NULL) {
        rc = insert_frame(g, f);
        last_seq = f->seq;
        is_over = f->ends_append && reached.total_bytes - at->total_bytes > JOURNAL_GROUP_BYTES;
    }
    if (rc == SQLITE_OK) rc = step(g->commit);
    if (rc != SQLITE_OK) {
        enum status s = journal_db_error(err, g->db, rc, "write records %" PRIu64 " to %" PRIu64 " to '%s'",
                                         g->last_seq + 1, last_seq, g->path);
        (void)sqlite3_exec(g->db, "ROLLBACK", NULL, NULL, NULL);
        return s;
    }
    g->bytes += (size_t)(reached.total_bytes - at->total_bytes);
    g->last_seq = last_seq;
    *at = reached;
    return STATUS_OK;
}

enum status journal_segment_finish(struct journal_segment *g, struct error *err)
{
    (void)sqlite3_busy_timeout(g->db, FINISH_TIMEOUT_MS);
    int rc = sqlite3_wal_checkpoint_v2(g->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    if (rc != SQLITE_OK && (rc & 0xff) != SQLITE_BUSY)
        return journal_db_error(err, g->db, rc, "checkpoint of '%s'", g->path);
    journal_segment_close(g);
    return STATUS_OK;
}

bool journal_segment_wants_checkpoint(const struct journal_segment *g)
{
    return g->wal_pages >= g->checkpoint_at_pages;
}

enum status journal_segment_checkpoint(struct journal_segment *g, struct error *err)
{
    int in_wal = 0, copied = 0;
    int rc = sqlite3_wal_checkpoint_v2(g->db, NULL, SQLITE_CHECKPOINT_PASSIVE, &in_wal, &copied);
    if (rc != SQLITE_OK && (rc & 0xff) != SQLITE_BUSY && (rc & 0xff) != SQLITE_LOCKED)
        return journal_db_error(err, g->db, rc, "checkpoint of '%s'", g->path);
    bool is_complete = rc == SQLITE_OK && in_wal == copied;
    g->checkpoint_at_pages = (is_complete ? 0 : g->wal_pages) + JOURNAL_CHECKPOINT_PAGES;
    if (is_complete) g->wal_pages = 0;
    return STATUS_OK;
}
