#include "walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"

#define BLOCK_BYTES 512 /* st_blocks counts these whatever the file system's block is */

/* No O_NOFOLLOW: RESOLVE_NO_SYMLINKS covers the last name too, and says ELOOP where O_DIRECTORY would say
 * ENOTDIR. */
static int open_beneath(int fd, const char *path, uint64_t flags, uint64_t resolve)
{
    struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = resolve};
    return (int)syscall(SYS_openat2, fd, path, &how, sizeof(how));
}

#define BENEATH (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV)

static int64_t modified_unix_ns(const struct stat *st)
{
    return (int64_t)st->st_mtim.tv_sec * NS_PER_S + st->st_mtim.tv_nsec;
}

static int64_t occupied_bytes(const struct stat *st)
{
    return st->st_nlink == 1 ? (int64_t)st->st_blocks * BLOCK_BYTES : 0;
}

/* ---- the plan: a heap of the oldest files, the youngest of them on top ---- */

static int compare_age(const void *a, const void *b)
{
    const struct clean_file *x = a, *y = b;
    if (x->modified_unix_ns != y->modified_unix_ns) return x->modified_unix_ns < y->modified_unix_ns ? -1 : 1;
    return strcmp(x->path, y->path);
}

static void swap_files(struct clean_file *a, struct clean_file *b)
{
    struct clean_file file = *a;
    *a = *b;
    *b = file;
}

static void sift_up(struct clean_file *files, size_t i)
{
    for (; i > 0 && compare_age(&files[(i - 1) / 2], &files[i]) < 0; i = (i - 1) / 2)
        swap_files(&files[(i - 1) / 2], &files[i]);
}

static void sift_down(struct clean_file *files, size_t n)
{
    for (size_t i = 0, child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && compare_age(&files[child], &files[child + 1]) < 0) child++;
        if (compare_age(&files[i], &files[child]) >= 0) return;
        swap_files(&files[i], &files[child]);
    }
}

static void drop_youngest(struct clean_plan *plan)
{
    plan->path_bytes -= strlen(plan->files[0].path) + 1;
    free(plan->files[0].path);
    plan->files[0] = plan->files[--plan->n];
    sift_down(plan->files, plan->n);
}

struct walk {
    const struct clean_spec *spec;
    struct clean_plan *plan;
    size_t capacity;
    char path[PATH_MAX]; /* of the folder being read, then of the entry */
};

static void plan_file(struct walk *w, const struct stat *st, size_t path_len)
{
    struct clean_plan *plan = w->plan;
    struct clean_file file = {.path = w->path,
                              .device = st->st_dev,
                              .inode = st->st_ino,
                              .modified_unix_ns = modified_unix_ns(st),
                              .bytes = occupied_bytes(st)};
    while (plan->n >= w->spec->max_files || plan->path_bytes + path_len + 1 > CLEAN_PATH_BYTES_MAX) {
        if (plan->n == 0 || compare_age(&file, &plan->files[0]) >= 0) return;
        drop_youngest(plan);
    }
    if (plan->n == w->capacity) {
        w->capacity = w->capacity == 0 ? 256 : 2 * w->capacity;
        plan->files = mem_realloc(plan->files, w->capacity * sizeof(*plan->files));
    }
    file.path = mem_alloc(path_len + 1);
    memcpy(file.path, w->path, path_len + 1);
    plan->path_bytes += path_len + 1;
    plan->files[plan->n] = file;
    sift_up(plan->files, plan->n++);
}

/* ---- the look ---- */

static bool is_over(struct walk *w)
{
    if (w->plan->is_partial) return true;
    bool is_late = w->plan->counts.entries % 256 == 0 && clock_monotonic_ns() >= w->spec->deadline_ns;
    w->plan->is_partial = (uint64_t)w->plan->counts.entries >= w->spec->max_scan || is_late;
    return w->plan->is_partial;
}

static void walk_folder(struct walk *w, int fd, size_t path_len, unsigned depth);

static void walk_into(struct walk *w, int parent_fd, const char *name, size_t path_len, unsigned depth)
{
    struct clean_counts *counts = &w->plan->counts;
    if (depth >= CLEAN_DEPTH_MAX) {
        counts->deep++;
        return;
    }
    int fd = open_beneath(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NONBLOCK, BENEATH);
    if (fd >= 0)
        walk_folder(w, fd, path_len, depth);
    else if (errno == EXDEV)
        counts->mounts++;
    else if (errno == ELOOP || errno == ENOTDIR || errno == ENOENT)
        counts->changed++; /* it was a folder a moment ago */
    else
        counts->unreadable++;
}

static void look_at(struct walk *w, int fd, const char *name, size_t path_len, unsigned depth)
{
    struct clean_counts *counts = &w->plan->counts;
    struct stat st;
    if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0) return; /* gone meanwhile */
    if (S_ISDIR(st.st_mode)) {
        walk_into(w, fd, name, path_len, depth + 1);
    } else if (!S_ISREG(st.st_mode)) {
        counts->other++;
    } else if (modified_unix_ns(&st) < w->spec->cutoff_unix_ns) {
        counts->matched++;
        plan_file(w, &st, path_len);
    }
}

/* fd is moved. */
static void walk_folder(struct walk *w, int fd, size_t path_len, unsigned depth)
{
    DIR *folder = fdopendir(fd);
    if (folder == NULL) {
        w->plan->counts.unreadable++;
        (void)close(fd);
        return;
    }
    while (!is_over(w)) {
        errno = 0;
        const struct dirent *entry = readdir(folder);
        if (entry == NULL && errno != 0) w->plan->counts.unreadable++;
        if (entry == NULL) break;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        w->plan->counts.entries++;
        size_t name_len = strlen(entry->d_name), len = path_len + (path_len > 0) + name_len;
        if (len >= sizeof(w->path)) {
            w->plan->counts.deep++;
            continue;
        }
        if (path_len > 0) w->path[path_len] = '/';
        memcpy(w->path + len - name_len, entry->d_name, name_len + 1);
        look_at(w, dirfd(folder), entry->d_name, len, depth);
        w->path[path_len] = '\0';
    }
    (void)closedir(folder);
}

/* ---- files that are open: removing one frees nothing, and its writer would lose what it writes ---- */

/* A write lease is given only where nobody else has the file open, in whatever process, mapped files and
 * running programs as well. It takes the file's owner or CAP_LEASE, and a file system of this machine;
 * without it the file counts as not open. Whoever opens it within these microseconds waits for the close; the
 * signal that we would get then is one that does nothing. */
static bool is_in_use(int at_fd, const char *path)
{
    int fd = open_beneath(at_fd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, BENEATH);
    if (fd < 0) return errno == EAGAIN; /* somebody has a lease */
    (void)fcntl(fd, F_SETSIG, SIGURG);
    bool is_used = fcntl(fd, F_SETLEASE, F_WRLCK) != 0 && errno == EAGAIN;
    (void)close(fd);
    return is_used;
}

static void drop_open_files(struct clean_plan *plan)
{
    size_t kept = 0;
    for (size_t i = 0; i < plan->n; i++) {
        if (!is_in_use(plan->root_fd, plan->files[i].path)) {
            plan->files[kept++] = plan->files[i];
            continue;
        }
        free(plan->files[i].path);
        plan->counts.open++;
    }
    plan->n = kept;
}

/* ---- the calls ---- */

static enum status cannot_open(const char *root, int errnum, struct error *err)
{
    const char *why = errnum == ENOSYS || errnum == EPERM
                          ? "this kernel offers no openat2 here, and without it links cannot be kept out"
                      : errnum == ELOOP ? "there is a symbolic link in its path; name the real one"
                                        : strerror(errnum);
    return error_set(err, STATUS_FAILED_PRECONDITION, "'%s' cannot be opened: %s", root, why);
}

enum status clean_plan_make(const struct clean_spec *spec, struct clean_plan *ret_plan, struct error *err)
{
    struct clean_plan plan = {0};
    struct walk w = {.spec = spec, .plan = &plan};
    plan.root_fd =
        open_beneath(AT_FDCWD, spec->root, O_RDONLY | O_DIRECTORY | O_NONBLOCK, RESOLVE_NO_SYMLINKS);
    if (plan.root_fd < 0) return cannot_open(spec->root, errno, err);
    /* Read through a descriptor of its own: the walk moves and closes it. */
    int fd = open_beneath(plan.root_fd, ".", O_RDONLY | O_DIRECTORY, BENEATH);
    if (fd < 0) {
        int errnum = errno;
        (void)close(plan.root_fd);
        return cannot_open(spec->root, errnum, err);
    }
    walk_folder(&w, fd, 0, 0);
    if (plan.n > 0) qsort(plan.files, plan.n, sizeof(*plan.files), compare_age);
    drop_open_files(&plan);
    *ret_plan = plan;
    return STATUS_OK;
}

static void count_failure(struct clean_plan *plan, int errnum)
{
    /* What became a link, moved or left meanwhile is not ours any more. */
    if (errnum == ENOENT || errnum == ELOOP || errnum == ENOTDIR || errnum == EXDEV || errnum == EISDIR) {
        plan->counts.changed++;
        return;
    }
    plan->counts.failed++;
    plan->last_errno = errnum;
}

static void remove_in(struct clean_plan *plan, int folder_fd, const char *name, const struct clean_file *file)
{
    struct stat st;
    if (fstatat(folder_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        count_failure(plan, errno);
        return;
    }
    if (!S_ISREG(st.st_mode) || st.st_dev != file->device || st.st_ino != file->inode ||
        modified_unix_ns(&st) != file->modified_unix_ns) {
        plan->counts.changed++;
        return;
    }
    if (is_in_use(folder_fd, name)) {
        plan->counts.open++;
        return;
    }
    if (unlinkat(folder_fd, name, 0) != 0) {
        count_failure(plan, errno);
        return;
    }
    plan->counts.removed++;
    plan->counts.bytes_freed += occupied_bytes(&st);
}

static void remove_file(struct clean_plan *plan, const struct clean_file *file)
{
    char folder[PATH_MAX] = ".";
    const char *slash = strrchr(file->path, '/');
    if (slash != NULL) {
        memcpy(folder, file->path, (size_t)(slash - file->path));
        folder[slash - file->path] = '\0';
    }
    int fd = open_beneath(plan->root_fd, folder, O_PATH | O_DIRECTORY, BENEATH);
    if (fd < 0) {
        count_failure(plan, errno);
        return;
    }
    remove_in(plan, fd, slash != NULL ? slash + 1 : file->path, file);
    (void)close(fd);
}

void clean_remove(struct clean_plan *plan, size_t from, size_t to)
{
    for (size_t i = from; i < to && i < plan->n; i++)
        remove_file(plan, &plan->files[i]);
}

enum status clean_space_of(const struct clean_plan *plan, struct clean_space *ret_space, struct error *err)
{
    struct statvfs fs;
    if (fstatvfs(plan->root_fd, &fs) != 0)
        return error_set(err, status_from_errno(errno), "the file system's free space cannot be read: %s",
                         strerror(errno));
    uint64_t usable = fs.f_blocks - fs.f_bfree + fs.f_bavail;
    ret_space->free_bytes = (int64_t)(fs.f_bavail * fs.f_frsize);
    ret_space->usable_bytes = (int64_t)(usable * fs.f_frsize);
    ret_space->free_percent = usable > 0 ? (int64_t)(fs.f_bavail * 100 / usable) : 0;
    return STATUS_OK;
}

void clean_plan_release(struct clean_plan *plan)
{
    for (size_t i = 0; i < plan->n; i++)
        free(plan->files[i].path);
    free(plan->files);
    (void)close(plan->root_fd);
    *plan = (struct clean_plan){.root_fd = -1};
}
