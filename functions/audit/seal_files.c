#include "functions/audit/seal_files.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit/notes.h"
#include "base/clock.h"
#include "base/memory.h"

#define LEAF_BATCH  4096
#define RECORDS_MAX 1000 /* of one append or comparison: journal_read() gives no more */

/* ---- plain files ---- */

static enum status file_error(struct error *err, const char *what, const char *name)
{
    return error_set(err, errno == ENOSPC || errno == EDQUOT ? STATUS_UNAVAILABLE : status_from_errno(errno),
                     "%s audit/%s: %s", what, name, strerror(errno));
}

static enum status write_at(int fd, const void *bytes, size_t n, uint64_t at, const char *name,
                            struct error *err)
{
    const char *from = bytes;
    while (n > 0) {
        ssize_t done = pwrite(fd, from, n, (off_t)at);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return file_error(err, "write", name);
        from += done;
        at += (uint64_t)done;
        n -= (size_t)done;
    }
    return STATUS_OK;
}

/* Up to n bytes; fewer at the end of the file. */
static enum status read_at(int fd, void *bytes, size_t n, uint64_t at, const char *name, size_t *ret_n,
                           struct error *err)
{
    size_t done = 0;
    while (done < n) {
        ssize_t got = pread(fd, (char *)bytes + done, n - done, (off_t)(at + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return file_error(err, "read", name);
        if (got == 0) break;
        done += (size_t)got;
    }
    *ret_n = done;
    return STATUS_OK;
}

static enum status cut(int fd, uint64_t size, const char *name, struct error *err)
{
    return ftruncate(fd, (off_t)size) == 0 ? STATUS_OK : file_error(err, "truncate", name);
}

static enum status open_file(struct seal_files *f, const char *name, int *ret_fd, uint64_t *ret_size,
                             struct error *err)
{
    struct stat st;
    int fd = openat(f->folder_fd, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return file_error(err, "open", name);
    *ret_fd = fd;
    if (fstat(fd, &st) != 0) return file_error(err, "look at", name);
    *ret_size = (uint64_t)st.st_size;
    return STATUS_OK;
}

/* New names are there for good only once the folder is. */
static enum status sync_folder(const struct seal_files *f, struct error *err)
{
    return fsync(f->folder_fd) == 0 ? STATUS_OK : file_error(err, "sync", "");
}

/* ---- the newest checkpoint ---- */

static void checkpoint_lost(struct seal_files *f, const char *why)
{
    if (f->is_checkpoint_lost) return;
    f->is_checkpoint_lost = true;
    (void)snprintf(f->why, sizeof(f->why), "%s", why);
}

/* What is left behind the last whole note, from byte `at` of the file on. Torn by a process that died while
 * it wrote: cut. Else damaged: it stays, as evidence. */
static void judge_rest(struct seal_files *f, uint64_t at, struct strview rest)
{
    if (rest.len == 0) return;
    if (checkpoint_is_torn(f->key, rest, f->newest.size))
        f->checkpoints_end = at;
    else
        checkpoint_lost(f, "the newest checkpoint is damaged");
}

static enum status find_newest(struct seal_files *f, uint64_t file_size, struct error *err)
{
    struct arena a = {0};
    uint64_t from = file_size > NOTES_TAIL_MAX ? file_size - NOTES_TAIL_MAX : 0;
    char *bytes = arena_alloc(&a, NOTES_TAIL_MAX);
    size_t n = 0, start = 0;
    enum status s =
        read_at(f->checkpoints_fd, bytes, (size_t)(file_size - from), from, "checkpoints", &n, err);
    struct strview tail = sv_n(bytes, n), text = audit_key_public_text(f->key), note;
    struct strview origin = sv_sub(text, 0, sv_find(text, '+'));
    bool is_last = true;
    f->checkpoints_end = file_size;
    for (size_t before = n;
         s == STATUS_OK && !f->has_checkpoint && notes_find_last(tail, from == 0, before, origin, &start);
         before = start) {
        struct error why = {0};
        if (!notes_take(sv_sub(tail, start, n), &note))
            continue; /* torn, or damaged: judged once a good one is found */
        if (checkpoint_verify(f->key, note, &a, &f->newest, &why) == STATUS_OK) {
            f->has_checkpoint = true;
            if (is_last) judge_rest(f, from + start + note.len + 1, sv_sub(tail, start + note.len + 1, n));
        } else {
            checkpoint_lost(f, why.message);
        }
        is_last = false;
    }
    f->newest.origin = SV(""); /* it lives in the arena */
    if (s == STATUS_OK && file_size > 0 && !f->has_checkpoint) {
        if (is_last && from == 0)
            judge_rest(f, 0, tail);
        else
            checkpoint_lost(f, "no checkpoint of our key is in audit/checkpoints");
    }
    if (s == STATUS_OK && f->checkpoints_end < file_size)
        s = cut(f->checkpoints_fd, f->checkpoints_end, "checkpoints", err);
    arena_release(&a);
    return s;
}

/* ---- opening ---- */

/* The tree over the first `count` leaves of the file. */
static enum status grow_tree(struct seal_files *f, uint64_t count, struct error *err)
{
    struct merkle_hash *batch = mem_alloc(LEAF_BATCH * sizeof(*batch));
    enum status s = STATUS_OK;
    merkle_tree_init(&f->tree);
    while (s == STATUS_OK && f->tree.size < count) {
        size_t want = count - f->tree.size < LEAF_BATCH ? (size_t)(count - f->tree.size) : LEAF_BATCH,
               got = 0;
        s = read_at(f->leaves_fd, batch, want * sizeof(*batch), f->tree.size * sizeof(*batch), "leaves", &got,
                    err);
        if (s == STATUS_OK && got != want * sizeof(*batch))
            s = error_set(err, STATUS_DATA_LOSS, "read audit/leaves: it became shorter while it was read");
        for (size_t i = 0; s == STATUS_OK && i < want; i++)
            merkle_tree_add(&f->tree, batch[i]);
    }
    free(batch);
    return s;
}

static enum status resume_leaves(struct seal_files *f, struct error *err)
{
    uint64_t count = f->leaves_bytes / SHA256_BYTES;
    if (!f->has_checkpoint && count > 0) checkpoint_lost(f, "there are leaves and no checkpoint");
    if (count > f->newest.size) count = f->newest.size;
    enum status s = grow_tree(f, count, err);
    if (s != STATUS_OK) return s;
    f->synced = f->tree;
    struct merkle_hash root = merkle_tree_root(&f->tree);
    f->are_leaves_bad =
        f->has_checkpoint && count == f->newest.size && memcmp(&root, &f->newest.root, sizeof(root)) != 0;
    return STATUS_OK;
}

static enum status open_all(struct seal_files *f, const char *dir, struct strview origin, bool *ret_had_key,
                            struct error *err)
{
    struct arena a = {0};
    const char *folder = arena_printf(&a, "%s/audit", dir).ptr;
    *ret_had_key = access(arena_printf(&a, "%s/key", folder).ptr, F_OK) == 0;
    enum status s = audit_key_load(dir, origin, &f->key, err);
    if (s == STATUS_OK) {
        f->folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (f->folder_fd < 0) s = file_error(err, "open", "");
    }
    arena_release(&a);
    return s;
}

enum status seal_files_open(struct seal_files *f, const char *dir, struct strview origin, uint64_t n_records,
                            struct error *err)
{
    uint64_t checkpoints_size = 0;
    bool had_key = false;
    *f = (struct seal_files){.folder_fd = -1, .leaves_fd = -1, .checkpoints_fd = -1};
    enum status s = open_all(f, dir, origin, &had_key, err);
    if (s == STATUS_OK) s = open_file(f, "leaves", &f->leaves_fd, &f->leaves_bytes, err);
    if (s == STATUS_OK) s = open_file(f, "checkpoints", &f->checkpoints_fd, &checkpoints_size, err);
    if (s == STATUS_OK) s = sync_folder(f, err);
    if (s == STATUS_OK) s = find_newest(f, checkpoints_size, err);
    if (s == STATUS_OK) s = resume_leaves(f, err);
    /* From the first moment on there is a checkpoint, so that none at all always means that somebody removed
     * them. */
    if (s == STATUS_OK && !f->has_checkpoint && had_key && n_records > 0)
        checkpoint_lost(f, "there are records, a key and no checkpoint");
    if (s == STATUS_OK && !f->has_checkpoint && !f->is_checkpoint_lost)
        s = seal_files_checkpoint(f, clock_unix_ns(), err);
    if (s != STATUS_OK) seal_files_close(f);
    return s;
}

void seal_files_close(struct seal_files *f)
{
    if (f->leaves_fd >= 0) (void)close(f->leaves_fd);
    if (f->checkpoints_fd >= 0) (void)close(f->checkpoints_fd);
    if (f->folder_fd >= 0) (void)close(f->folder_fd);
    f->folder_fd = f->leaves_fd = f->checkpoints_fd = -1;
    audit_key_free(f->key);
    f->key = NULL;
}

/* ---- what stands behind the newest checkpoint ---- */

enum status seal_files_cut_rest(struct seal_files *f, struct error *err)
{
    uint64_t size = f->tree.size * SHA256_BYTES;
    return f->leaves_bytes == size ? STATUS_OK : cut(f->leaves_fd, size, "leaves", err);
}

/* The first f->tree.size leaves, whose root is the signed one, go to the new file: the journal may no longer
 * have their records. */
static enum status copy_signed(const struct seal_files *f, int to, struct error *err)
{
    struct merkle_hash *batch = mem_alloc(LEAF_BATCH * sizeof(*batch));
    enum status s = STATUS_OK;
    for (uint64_t at = 0; at < f->tree.size && s == STATUS_OK;) {
        size_t want = f->tree.size - at < LEAF_BATCH ? (size_t)(f->tree.size - at) : LEAF_BATCH, got = 0;
        s = read_at(f->leaves_fd, batch, want * sizeof(*batch), at * sizeof(*batch), "leaves", &got, err);
        if (s == STATUS_OK && got != want * sizeof(*batch))
            s = error_set(err, STATUS_DATA_LOSS, "read audit/leaves: it became shorter while it was read");
        if (s == STATUS_OK)
            s = write_at(to, batch, want * sizeof(*batch), at * sizeof(*batch), "leaves", err);
        at += want;
    }
    if (s == STATUS_OK && fdatasync(to) != 0) s = file_error(err, "sync", "leaves");
    free(batch);
    return s;
}

enum status seal_files_set_aside(struct seal_files *f, int64_t now_unix_ns, struct error *err)
{
    char time[RFC3339_LEN + 1], name[sizeof("leaves.lost-") + RFC3339_LEN];
    uint64_t size = 0;
    int fd = -1;
    if (f->leaves_bytes == f->tree.size * SHA256_BYTES) return STATUS_OK;
    if (f->are_leaves_bad || !f->has_checkpoint) merkle_tree_init(&f->tree); /* nothing of them is signed */
    rfc3339_format(now_unix_ns, time);
    (void)snprintf(name, sizeof(name), "leaves.lost-%s", time);
    (void)unlinkat(f->folder_fd, "leaves.new", 0);
    enum status s = open_file(f, "leaves.new", &fd, &size, err);
    if (s == STATUS_OK) s = copy_signed(f, fd, err);
    if (s == STATUS_OK && renameat(f->folder_fd, "leaves", f->folder_fd, name) != 0 && errno != ENOENT)
        s = file_error(err, "set aside", "leaves");
    if (s == STATUS_OK && renameat(f->folder_fd, "leaves.new", f->folder_fd, "leaves") != 0)
        s = file_error(err, "rename", "leaves.new");
    if (s == STATUS_OK) s = sync_folder(f, err);
    if (s != STATUS_OK) {
        if (fd >= 0) (void)close(fd);
        return s;
    }
    (void)close(f->leaves_fd);
    f->leaves_fd = fd;
    f->leaves_bytes = f->tree.size * SHA256_BYTES;
    f->synced = f->tree;
    f->are_leaves_bad = false;
    return STATUS_OK;
}

/* ---- growing ---- */

enum status seal_files_append(struct seal_files *f, const struct journal_entry *entries, size_t n,
                              struct error *err)
{
    struct merkle_hash leaves[RECORDS_MAX];
    if (n == 0) return STATUS_OK;
    if (n > RECORDS_MAX || entries[0].seq != f->tree.size + 1)
        return error_set(err, STATUS_INTERNAL, "seal %zu records from %llu on after %llu leaves", n,
                         (unsigned long long)entries[0].seq, (unsigned long long)f->tree.size);
    for (size_t i = 0; i < n; i++)
        leaves[i] = merkle_leaf(entries[i].bytes);
    enum status s = write_at(f->leaves_fd, leaves, n * sizeof(leaves[0]), f->tree.size * sizeof(leaves[0]),
                             "leaves", err);
    for (size_t i = 0; s == STATUS_OK && i < n; i++)
        merkle_tree_add(&f->tree, leaves[i]);
    return s;
}

/* After a failed sync the kernel takes the pages for clean: the next one would succeed without them, and a
 * signature would stand over leaves that are gone with the power. */
static enum status sync_leaves(struct seal_files *f, struct error *err)
{
    if (fdatasync(f->leaves_fd) != 0) {
        f->tree = f->synced;
        return file_error(err, "sync", "leaves");
    }
    f->synced = f->tree;
    return STATUS_OK;
}

enum status seal_files_checkpoint(struct seal_files *f, int64_t now_unix_ns, struct error *err)
{
    struct arena a = {0};
    struct strview note;
    enum status s = sync_leaves(f, err);
    if (s != STATUS_OK) return s;
    struct merkle_hash root = merkle_tree_root(&f->tree);
    s = checkpoint_sign(f->key, f->tree.size, root, now_unix_ns, &a, &note, err);
    if (s == STATUS_OK) {
        struct strview block = arena_printf(&a, "%.*s\n", SV_ARG(note));
        s = write_at(f->checkpoints_fd, block.ptr, block.len, f->checkpoints_end, "checkpoints", err);
        if (s == STATUS_OK && fdatasync(f->checkpoints_fd) != 0) s = file_error(err, "sync", "checkpoints");
        if (s == STATUS_OK) {
            f->checkpoints_end += block.len;
            f->newest = (struct checkpoint){.size = f->tree.size, .root = root, .time_unix_ns = now_unix_ns};
            f->has_checkpoint = true;
        }
    }
    arena_release(&a);
    return s;
}

enum status seal_files_compare(const struct seal_files *f, const struct journal_entry *entries, size_t n,
                               uint64_t *ret_bad_seq, struct error *err)
{
    struct merkle_hash leaves[RECORDS_MAX];
    size_t got = 0;
    *ret_bad_seq = 0;
    if (n == 0 || n > RECORDS_MAX) return STATUS_OK;
    enum status s = read_at(f->leaves_fd, leaves, n * sizeof(leaves[0]),
                            (entries[0].seq - 1) * sizeof(leaves[0]), "leaves", &got, err);
    for (size_t i = 0; s == STATUS_OK && i < got / sizeof(leaves[0]) && *ret_bad_seq == 0; i++) {
        struct merkle_hash leaf = merkle_leaf(entries[i].bytes);
        if (memcmp(&leaf, &leaves[i], sizeof(leaf)) != 0) *ret_bad_seq = entries[i].seq;
    }
    return s;
}

enum status seal_files_restart(struct seal_files *f, struct error *err)
{
    enum status s = cut(f->leaves_fd, 0, "leaves", err);
    if (s == STATUS_OK) merkle_tree_init(&f->tree);
    if (s == STATUS_OK) f->synced = f->tree;
    return s;
}
