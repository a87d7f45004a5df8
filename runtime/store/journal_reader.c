/* A reader holds at most one segment open and one short read transaction at a time, so that it never keeps
 * the writer from reusing the WAL. Segments that appear later are found by listing the folder again at the
 * end of the last one known. */
#include "store/journal_impl.h"

#include <inttypes.h>
#include <sqlite3.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"

struct journal_reader {
    char *dir;
    uint64_t *segments; /* first sequences, ascending */
    size_t n;
    uint64_t open_segment; /* 0: none */
    sqlite3 *db;
    sqlite3_stmt *select;
    char path[JOURNAL_PATH_MAX];
};

static enum status rescan(struct journal_reader *r, struct error *err)
{
    uint64_t *segments = NULL;
    size_t n = 0;
    enum status s = journal_segment_list(r->dir, &segments, &n, err);
    if (s != STATUS_OK) return s;
    free(r->segments);
    r->segments = segments;
    r->n = n;
    return STATUS_OK;
}

static void close_segment(struct journal_reader *r)
{
    if (r->open_segment == 0) return;
    (void)sqlite3_finalize(r->select);
    journal_db_close(r->db);
    r->select = NULL;
    r->db = NULL;
    r->open_segment = 0;
}

/* SQLite says "unable to open database file" for a folder in which it may not make the -shm file; say what is
 * missing. */
static enum status explain_open(const struct journal_reader *r, enum status s, struct error *err)
{
    if (access(r->path, R_OK) != 0)
        return error_set(err, STATUS_PERMISSION_DENIED, "read '%s': not readable by this user", r->path);
    if (access(r->dir, W_OK) != 0)
        return error_set(
            err, STATUS_PERMISSION_DENIED,
            "read '%s': reading needs write permission on the folder for SQLite's index (-shm); run as the "
            "journal's owner or copy the folder",
            r->path);
    return s;
}

static enum status open_segment(struct journal_reader *r, uint64_t first_seq, struct error *err)
{
    if (r->open_segment == first_seq) return STATUS_OK;
    close_segment(r);
    enum status s = journal_segment_path(r->dir, first_seq, r->path, err);
    if (s != STATUS_OK) return s;
    sqlite3 *db = NULL;
    sqlite3_stmt *select = NULL;
    s = journal_db_open(r->path, SQLITE_OPEN_READONLY, &db, err);
    if (s != STATUS_OK) return explain_open(r, s, err);
    s = journal_db_check_format(db, r->path, err);
    if (s == STATUS_OK)
        s = journal_db_prepare(db, "SELECT seq, bytes FROM records WHERE seq >= ?1 ORDER BY seq LIMIT ?2",
                               &select, err);
    if (s != STATUS_OK) {
        journal_db_close(db);
        return s == STATUS_UNAVAILABLE ? explain_open(r, s, err) : s;
    }
    r->db = db;
    r->select = select;
    r->open_segment = first_seq;
    return STATUS_OK;
}

enum status journal_reader_open(const char *dir, struct journal_reader **ret_reader, struct error *err)
{
    struct journal_reader *r = mem_zalloc(1, sizeof(*r));
    r->dir = mem_alloc(strlen(dir) + 1);
    memcpy(r->dir, dir, strlen(dir) + 1);
    enum status s = rescan(r, err);
    if (s == STATUS_OK && r->n > 0) s = open_segment(r, r->segments[r->n - 1], err);
    if (s != STATUS_OK) {
        journal_reader_close(r);
        return s;
    }
    *ret_reader = r;
    return STATUS_OK;
}

void journal_reader_close(struct journal_reader *r)
{
    if (r == NULL) return;
    close_segment(r);
    free(r->segments);
    free(r->dir);
    free(r);
}

uint64_t journal_reader_first_seq(struct journal_reader *r)
{
    if (r->n == 0) (void)!rescan(r, NULL);
    return r->n > 0 ? r->segments[0] : 1;
}

/* Index of the segment that holds seq if any does; SIZE_MAX: it lies before the first. */
static size_t find_segment(const struct journal_reader *r, uint64_t seq)
{
    size_t low = 0, high = r->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (r->segments[middle] <= seq)
            low = middle + 1;
        else
            high = middle;
    }
    return low == 0 ? SIZE_MAX : low - 1;
}

static enum status take_row(struct journal_reader *r, uint64_t expected_seq, bool decode, struct arena *a,
                            struct journal_entry *ret_entry, struct error *err)
{
    uint64_t seq = (uint64_t)sqlite3_column_int64(r->select, 0);
    if (seq != expected_seq)
        return error_set(err, STATUS_DATA_LOSS,
                         "read '%s': record %" PRIu64 " is missing, the next one is %" PRIu64, r->path,
                         expected_seq, seq);
    const char *bytes = sqlite3_column_blob(r->select, 1);
    int len = sqlite3_column_bytes(r->select, 1);
    *ret_entry = (struct journal_entry){.seq = seq, .bytes = arena_copy(a, sv_n(bytes, (size_t)len))};
    if (!decode) return STATUS_OK;
    struct record *record = arena_alloc(a, sizeof(*record));
    enum status s = record_decode(ret_entry->bytes, a, record, err);
    if (s != STATUS_OK) return error_prefix(err, s, "read '%s': record %" PRIu64, r->path, seq);
    ret_entry->record = record;
    return STATUS_OK;
}

static enum status take_rows(struct journal_reader *r, uint64_t seq, size_t max, bool decode, struct arena *a,
                             struct journal_entry *entries, size_t *ret_n, struct error *err)
{
    enum status s = STATUS_OK;
    size_t n = 0, bytes = 0;
    int rc = SQLITE_ROW;
    (void)sqlite3_bind_int64(r->select, 1, (sqlite3_int64)seq);
    (void)sqlite3_bind_int64(r->select, 2, (sqlite3_int64)max);
    while (s == STATUS_OK && n < max && bytes < JOURNAL_READ_BYTES &&
           (rc = sqlite3_step(r->select)) == SQLITE_ROW) {
        s = take_row(r, seq + n, decode, a, &entries[n], err);
        if (s == STATUS_OK) bytes += entries[n++].bytes.len;
    }
    if (s == STATUS_OK && rc != SQLITE_ROW && rc != SQLITE_DONE) {
        s = journal_db_error(err, r->db, rc, "read '%s' from %" PRIu64, r->path, seq);
        if (s == STATUS_UNAVAILABLE) s = explain_open(r, s, err);
    }
    (void)sqlite3_reset(r->select);
    *ret_n = n;
    return s;
}

enum status journal_reader_read(struct journal_reader *r, uint64_t seq, size_t max, bool decode,
                                struct arena *a, struct journal_entry **ret_entries, size_t *ret_n,
                                struct error *err)
{
    if (seq == 0) seq = 1;
    if (max > JOURNAL_READ_MAX) max = JOURNAL_READ_MAX;
    struct journal_entry *entries = arena_array(a, max, sizeof(*entries));
    size_t n = 0;
    for (bool has_rescanned = false;; has_rescanned = true) {
        size_t i = find_segment(r, seq);
        if (i == SIZE_MAX && r->n > 0)
            return error_set(err, STATUS_OUT_OF_RANGE,
                             "read '%s': record %" PRIu64 " is gone, the oldest kept is %" PRIu64, r->dir,
                             seq, r->segments[0]);
        enum status s = i == SIZE_MAX ? STATUS_OK : open_segment(r, r->segments[i], err);
        if (s != STATUS_OK && !has_rescanned && access(r->path, F_OK) != 0) { /* retention was faster */
            s = rescan(r, err);
            if (s == STATUS_OK) continue;
        }
        if (s == STATUS_OK && i != SIZE_MAX) s = take_rows(r, seq, max, decode, a, entries, &n, err);
        if (s != STATUS_OK) return s;
        if (n > 0 || has_rescanned || max == 0) break;
        s = rescan(r, err);
        if (s != STATUS_OK) return s;
    }
    *ret_entries = entries;
    *ret_n = n;
    return STATUS_OK;
}
