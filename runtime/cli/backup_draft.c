#include "cli/backup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

#define WALK_FDS 16

static enum status failed(struct error *err, const char *what, const char *path)
{
    return error_set(err, status_from_errno(errno), "%s %s: %s", what, path, strerror(errno));
}

/* ---- trees ---- */

static int on_remove(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)at;
    return type == FTW_DP ? rmdir(path) : unlink(path);
}

static int on_empty(const char *path, const struct stat *st, int type, struct FTW *at)
{
    return at->level == 0 ? 0 : on_remove(path, st, type, at);
}

static int on_sync(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)at;
    if (type != FTW_D && type != FTW_DP) return 0;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -1;
    int failure = fsync(fd);
    (void)close(fd);
    return failure;
}

static bool is_empty(const char *path, bool but_for_ours)
{
    bool found = false;
    DIR *dir = opendir(path);
    if (dir == NULL) return false;
    for (const struct dirent *e = readdir(dir); e != NULL && !found; e = readdir(dir)) {
        struct strview name = sv(e->d_name);
        found =
            !sv_eq(name, SV(".")) && !sv_eq(name, SV("..")) && !(but_for_ours && backup_parts_know_top(name));
    }
    (void)closedir(dir);
    return !found;
}

/* ---- names ---- */

static const char *parent_of(const char *path, struct arena *a)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL) return ".";
    return arena_cstr(a, sv_n(path, slash == path ? 1 : (size_t)(slash - path)));
}

/* A link is followed, so that its end is renamed to and not the link. */
static const char *settle_target(const char *given, struct arena *a)
{
    struct strview name = sv(given);
    while (name.len > 1 && name.ptr[name.len - 1] == '/')
        name.len--;
    const char *plain = arena_cstr(a, name);
    char *real = realpath(plain, NULL);
    if (real == NULL) return plain;
    const char *settled = arena_cstr(a, sv(real));
    free(real);
    return settled;
}

static enum status check_target(const char *target, const char *parent, struct error *err)
{
    struct stat st, above;
    if (stat(parent, &above) != 0) return failed(err, "the folder to put it in,", parent);
    if (lstat(target, &st) != 0) return errno == ENOENT ? STATUS_OK : failed(err, "look at", target);
    if (!S_ISDIR(st.st_mode))
        return error_set(err, STATUS_ALREADY_EXISTS, "%s exists and is no folder", target);
    if (!is_empty(target, false))
        return error_set(err, STATUS_ALREADY_EXISTS, "%s is not empty: give a folder that is, or a new name",
                         target);
    if (st.st_dev != above.st_dev || st.st_ino == above.st_ino)
        return error_set(err, STATUS_FAILED_PRECONDITION,
                         "%s is a mount point and cannot be renamed to: give a folder below it", target);
    return STATUS_OK;
}

/*
 * The folder above is locked while names in it change: who finds a draft finds it locked by its writer or
 * left by one who died, not just made or just renamed. ret_fd is to be closed.
 */
static enum status lock_parent(const struct backup_draft *d, int *ret_fd, struct error *err)
{
    int fd = open(d->parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return failed(err, "the folder to put it in,", d->parent);
    int held;
    do
        held = flock(fd, LOCK_EX);
    while (held != 0 && errno == EINTR);
    *ret_fd = fd;
    if (held == 0) return STATUS_OK;
    enum status s = failed(err, "lock", d->parent);
    (void)close(fd);
    return s;
}

/* ---- the draft ---- */

static enum status lock(struct backup_draft *d, struct error *err)
{
    d->fd = open(d->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (d->fd < 0) return failed(err, "open", d->path);
    if (flock(d->fd, LOCK_EX | LOCK_NB) == 0) return STATUS_OK;
    enum status s = errno == EWOULDBLOCK ? error_set(err, STATUS_FAILED_PRECONDITION,
                                                     "%s is being written by another balm", d->path)
                                         : failed(err, "lock", d->path);
    (void)close(d->fd);
    d->fd = -1;
    return s;
}

/* Left by somebody who died. */
static enum status remove_old(struct backup_draft *d, struct error *err)
{
    enum status s = lock(d, err);
    if (s != STATUS_OK) return s;
    if (!is_empty(d->path, true))
        s = error_set(err, STATUS_ALREADY_EXISTS, "%s is in the way and holds what is not ours: move it away",
                      d->path);
    else if (nftw(d->path, on_remove, WALK_FDS, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) != 0)
        s = failed(err, "remove", d->path);
    (void)close(d->fd);
    d->fd = -1;
    return s;
}

static enum status begin(struct backup_draft *d, struct error *err)
{
    enum status s = check_target(d->target, d->parent, err);
    if (s != STATUS_OK) return s;
    if (mkdir(d->path, 0700) != 0) {
        if (errno != EEXIST) return failed(err, "make folder", d->path);
        s = remove_old(d, err);
        if (s == STATUS_OK && mkdir(d->path, 0700) != 0) s = failed(err, "make folder", d->path);
    }
    return s == STATUS_OK ? lock(d, err) : s;
}

enum status backup_draft_begin(struct backup_draft *d, const char *target, struct arena *a, struct error *err)
{
    *d = (struct backup_draft){.target = settle_target(target, a), .fd = -1};
    d->path = arena_printf(a, "%s.partial", d->target).ptr;
    d->parent = parent_of(d->target, a);
    int parent;
    enum status s = lock_parent(d, &parent, err);
    if (s != STATUS_OK) return s;
    s = begin(d, err);
    (void)close(parent);
    return s;
}

enum status backup_draft_empty(const struct backup_draft *d, struct error *err)
{
    return nftw(d->path, on_empty, WALK_FDS, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) == 0
               ? STATUS_OK
               : failed(err, "empty", d->path);
}

enum status backup_draft_finish(struct backup_draft *d, struct error *err)
{
    if (nftw(d->path, on_sync, WALK_FDS, FTW_PHYS | FTW_MOUNT) != 0) return failed(err, "sync", d->path);
    int parent;
    enum status s = lock_parent(d, &parent, err);
    if (s != STATUS_OK) return s;
    if (rename(d->path, d->target) != 0)
        s = error_set(err, status_from_errno(errno), "rename %s to %s: %s", d->path, d->target,
                      strerror(errno));
    (void)close(parent);
    if (s != STATUS_OK) return s;
    (void)close(d->fd);
    d->fd = -1;
    return file_sync_name(d->target, err);
}

void backup_draft_abandon(struct backup_draft *d)
{
    if (d->fd < 0) return;
    (void)nftw(d->path, on_remove, WALK_FDS, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    (void)close(d->fd);
    d->fd = -1;
}
