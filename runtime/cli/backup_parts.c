#include "cli/backup.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit/notes.h"
#include "base/file.h"
#include "store/journal.h"
#include "store/journal_copy.h"

#define DEPTH_MAX 3 /* secrets/functions/NAME */

struct copying {
    const char *from, *to;
    struct backup_progress *progress;
    struct arena *arena;
    struct backup_manifest *manifest;
    size_t capacity; /* of manifest->files */
    struct error *err;
};

struct part {
    const char *path; /* below the data folder */
    bool is_secret;   /* left out by --without-secrets */
    enum status (*copy)(struct copying *c, const struct part *p);
};

static enum status copy_file(struct copying *c, const struct part *p);
static enum status copy_past(struct copying *c, const struct part *p);
static enum status copy_checkpoints(struct copying *c, const struct part *p);
static enum status copy_leaves(struct copying *c, const struct part *p);
static enum status copy_newest(struct copying *c, const struct part *p);
static enum status copy_journal(struct copying *c, const struct part *p);
static enum status copy_deployed(struct copying *c, const struct part *p);
static enum status copy_folder(struct copying *c, const struct part *p);

/* A checkpoint is about leaves that were on disk before it, a leaf about a record that was, and a snapshot
 * about records that were: in this order each part is covered by what comes behind it, whatever is written
 * meanwhile. What belongs to one process and one machine (lock, run.json, run/, reserve) stays behind. */
static const struct part parts[] = {
    {.path = "audit/key.pub", .copy = copy_file},
    {.path = "audit/key", .is_secret = true, .copy = copy_file},
    {.path = "audit", .copy = copy_past},
    {.path = "audit/checkpoints", .copy = copy_checkpoints},
    {.path = "audit/leaves", .copy = copy_leaves},
    {.path = "snapshots", .copy = copy_newest},
    {.path = "journal", .copy = copy_journal},
    {.path = "functions", .copy = copy_deployed},
    {.path = "secrets", .is_secret = true, .copy = copy_folder},
};

/* ---- what a manifest may name ---- */

static struct strview top_of(struct strview path)
{
    return sv_sub(path, 0, sv_find(path, '/'));
}

bool backup_parts_know_top(struct strview name)
{
    if (sv_starts_with(name, SV(BACKUP_MANIFEST))) return true; /* its temporary file as well */
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        if (sv_eq(name, top_of(sv(parts[i].path)))) return true;
    return false;
}

bool backup_parts_know(struct strview path)
{
    struct strview rest = path, name;
    unsigned depth = 0;
    if (!backup_parts_know_top(top_of(path)) || memchr(path.ptr, '\0', path.len) != NULL) return false;
    for (; sv_next(&rest, '/', &name); depth++)
        if (name.len == 0 || sv_eq(name, SV(".")) || sv_eq(name, SV(".."))) return false;
    return depth > 1 && depth <= DEPTH_MAX;
}

/* ---- steps ---- */

static const char *source(struct copying *c, const char *path)
{
    return arena_printf(c->arena, "%s/%s", c->from, path).ptr;
}

static const char *target(struct copying *c, const char *path)
{
    return arena_printf(c->arena, "%s/%s", c->to, path).ptr;
}

/* With its hash, from what stands in the copy. */
static enum status list_file(struct copying *c, const char *path)
{
    struct backup_manifest *m = c->manifest;
    if (m->n_files == c->capacity) {
        size_t capacity = c->capacity > 0 ? c->capacity * 2 : 64;
        struct backup_file *files = arena_array(c->arena, capacity, sizeof(*files));
        if (m->n_files > 0) memcpy(files, m->files, m->n_files * sizeof(*files));
        m->files = files;
        c->capacity = capacity;
    }
    if (m->n_files >= BACKUP_FILES_MAX)
        return error_set(c->err, STATUS_RESOURCE_EXHAUSTED, "%s has more than %d files", c->from,
                         BACKUP_FILES_MAX);
    struct backup_file *f = &m->files[m->n_files++];
    f->path = arena_copy(c->arena, sv(path));
    return backup_file_hash(target(c, path), &f->bytes, f->sha256, c->err);
}

/* Not there, or gone since it was listed: nothing. */
static enum status copy_plain(struct copying *c, const char *path, uint64_t max_bytes)
{
    struct error err = {0};
    enum status s = backup_file_copy(source(c, path), target(c, path), max_bytes, &err);
    if (s == STATUS_NOT_FOUND) return STATUS_OK;
    if (s == STATUS_OK) return list_file(c, path);
    *c->err = err;
    return s;
}

static enum status make_folder(struct copying *c, const char *path)
{
    return dir_make(target(c, path), 0700, c->err);
}

typedef bool wants_name(struct strview name);

/* Each wanted entry of a folder; of a folder below it everything, where `depth` allows. */
static enum status copy_entries(struct copying *c, const char *path, wants_name *wants, unsigned depth)
{
    DIR *dir = opendir(source(c, path));
    enum status s = STATUS_OK;
    if (dir == NULL)
        return errno == ENOENT ? STATUS_OK
                               : error_set(c->err, status_from_errno(errno), "read %s: %s", source(c, path),
                                           strerror(errno));
    s = make_folder(c, path);
    for (const struct dirent *e; s == STATUS_OK && (e = readdir(dir)) != NULL;) {
        struct stat st;
        struct strview name = sv(e->d_name);
        const char *below = arena_printf(c->arena, "%s/%s", path, e->d_name).ptr;
        if (sv_eq(name, SV(".")) || sv_eq(name, SV("..")) || stat(source(c, below), &st) != 0) continue;
        if (wants != NULL && !wants(name)) continue;
        if (S_ISDIR(st.st_mode) && depth > 1)
            s = copy_entries(c, below, NULL, depth - 1);
        else if (S_ISREG(st.st_mode))
            s = copy_plain(c, below, UINT64_MAX);
    }
    (void)closedir(dir);
    return s;
}

/* ---- the parts ---- */

static enum status copy_file(struct copying *c, const struct part *p)
{
    return copy_plain(c, p->path, UINT64_MAX);
}

static bool is_of_the_past(struct strview name)
{
    return sv_starts_with(name, SV("leaves.lost-")) || sv_starts_with(name, SV("before-"));
}

/* Evidence of an earlier finding, and what an earlier key signed. */
static enum status copy_past(struct copying *c, const struct part *p)
{
    return copy_entries(c, p->path, is_of_the_past, 2);
}

/* Where the last whole note ends; the whole file, unless a platform is just writing behind it, or died
 * there: damage stays to be found. */
static enum status find_notes_end(struct copying *c, const char *path, uint64_t *ret_end)
{
    struct stat st;
    struct buf note;
    struct audit_key *key = NULL;
    FILE *file = fopen(path, "rbe");
    if (file == NULL || fstat(fileno(file), &st) != 0) {
        enum status s = error_set(c->err, status_from_errno(errno), "read %s: %s", path, strerror(errno));
        if (file != NULL) (void)fclose(file);
        return s;
    }
    uint64_t size = (uint64_t)st.st_size, left = size, end = 0, last_size = 0;
    buf_init(&note, NOTE_MAX);
    while (notes_next(file, &left, &note) && !note.is_full) {
        end = size - left;
        last_size = checkpoint_claimed_size(buf_view(&note));
    }
    enum status s = audit_key_read_public(target(c, "audit/key.pub"), &key, c->err);
    if (s == STATUS_OK) *ret_end = checkpoint_is_torn(key, buf_view(&note), last_size) ? end : size;
    audit_key_free(key);
    buf_release(&note);
    (void)fclose(file);
    return s;
}

static enum status copy_checkpoints(struct copying *c, const struct part *p)
{
    struct error err = {0};
    uint64_t end = 0;
    enum status s = backup_file_copy(source(c, p->path), target(c, p->path), UINT64_MAX, &err);
    if (s == STATUS_NOT_FOUND) return STATUS_OK; /* the log says what that means */
    if (s != STATUS_OK) {
        *c->err = err;
        return s;
    }
    s = find_notes_end(c, target(c, p->path), &end);
    if (s == STATUS_OK && truncate(target(c, p->path), (off_t)end) != 0)
        s = error_set(c->err, status_from_errno(errno), "write %s: %s", target(c, p->path), strerror(errno));
    return s == STATUS_OK ? list_file(c, p->path) : s;
}

/* Whole hashes only. */
static enum status copy_leaves(struct copying *c, const struct part *p)
{
    struct stat st;
    if (stat(source(c, p->path), &st) != 0) return STATUS_OK;
    return copy_plain(c, p->path, (uint64_t)st.st_size / SHA256_BYTES * SHA256_BYTES);
}

/* NUMBER.snapshot with the greatest number: it is renamed to that name when it is whole, and the journal,
 * copied later, reaches at least as far. */
static enum status copy_newest(struct copying *c, const struct part *p)
{
    DIR *dir = opendir(source(c, p->path));
    uint64_t newest = 0, number = 0;
    const char *path = NULL;
    if (dir == NULL) return STATUS_OK;
    for (const struct dirent *e; (e = readdir(dir)) != NULL;) {
        struct strview name = sv(e->d_name);
        size_t digits = sv_find(name, '.');
        if (!sv_eq(sv_sub(name, digits, name.len), SV(".snapshot")) ||
            sv_parse_u64(sv_sub(name, 0, digits), &number) != STATUS_OK || number < newest)
            continue;
        newest = number;
        path = arena_printf(c->arena, "%s/%s", p->path, e->d_name).ptr;
    }
    (void)closedir(dir);
    enum status s = path != NULL ? make_folder(c, p->path) : STATUS_OK;
    return s == STATUS_OK && path != NULL ? copy_plain(c, path, UINT64_MAX) : s;
}

static void on_records(uint64_t seq, uint64_t last_seq, void *arg)
{
    backup_progress_show(arg, "copying", seq, last_seq, "records");
}

static enum status list_folder(struct copying *c, const char *path)
{
    enum status s = STATUS_OK;
    struct dirent **entries = NULL;
    int n = scandir(target(c, path), &entries, NULL, alphasort);
    if (n < 0)
        return error_set(c->err, status_from_errno(errno), "read %s/%s: %s", c->to, path, strerror(errno));
    for (int i = 0; i < n; i++) {
        if (s == STATUS_OK && entries[i]->d_type != DT_DIR)
            s = list_file(c, arena_printf(c->arena, "%s/%s", path, entries[i]->d_name).ptr);
        free(entries[i]);
    }
    free(entries);
    return s;
}

static enum status copy_journal(struct copying *c, const struct part *p)
{
    struct journal_copy_cfg cfg = {
        .from = source(c, p->path), .to = target(c, p->path), .on_progress = on_records, .arg = c->progress};
    enum status s = make_folder(c, p->path);
    if (s == STATUS_OK) s = journal_copy(&cfg, &c->manifest->first_seq, &c->manifest->last_seq, c->err);
    return s == STATUS_OK ? list_folder(c, p->path) : s;
}

static bool is_deployed(struct strview name)
{
    return sv_ends_with(name, SV(".json")) || sv_ends_with(name, SV(".scale"));
}

static enum status copy_deployed(struct copying *c, const struct part *p)
{
    return copy_entries(c, p->path, is_deployed, 1);
}

static enum status copy_folder(struct copying *c, const struct part *p)
{
    return copy_entries(c, p->path, NULL, DEPTH_MAX - 1);
}

/* ---- all of them ---- */

static int by_path(const void *a, const void *b)
{
    return sv_cmp(((const struct backup_file *)a)->path, ((const struct backup_file *)b)->path);
}

/* UINT64_MAX: it cannot be read, which copying it will say better. */
static uint64_t oldest_kept(struct copying *c)
{
    struct journal_reader *reader;
    if (journal_reader_open(source(c, "journal"), &reader, NULL) != STATUS_OK) return UINT64_MAX;
    uint64_t first = journal_reader_first_seq(reader);
    journal_reader_close(reader);
    return first;
}

/* What was removed after the signatures were copied is announced by a record that those do not cover, and may
 * be needed behind the snapshot that was copied. */
static enum status check_unmoved(const struct copying *c, uint64_t first)
{
    if (c->manifest->first_seq <= first) return STATUS_OK;
    return error_set(c->err, STATUS_ABORTED,
                     "retention removed records before %" PRIu64 " while they were copied",
                     c->manifest->first_seq);
}

enum status backup_parts_copy(const char *from, const char *to, bool is_without_secrets,
                              struct backup_progress *p, struct arena *a,
                              struct backup_manifest *ret_manifest, struct error *err)
{
    struct copying c = {
        .from = from, .to = to, .progress = p, .arena = a, .manifest = ret_manifest, .err = err};
    *ret_manifest = (struct backup_manifest){.n_files = 0};
    uint64_t first = oldest_kept(&c);
    enum status s = make_folder(&c, "audit");
    for (size_t i = 0; i < ARRAY_LEN(parts) && s == STATUS_OK; i++)
        if (!is_without_secrets || !parts[i].is_secret) s = parts[i].copy(&c, &parts[i]);
    if (s == STATUS_OK) s = check_unmoved(&c, first);
    if (s == STATUS_OK && ret_manifest->n_files > 1)
        qsort(ret_manifest->files, ret_manifest->n_files, sizeof(*ret_manifest->files), by_path);
    return s;
}
