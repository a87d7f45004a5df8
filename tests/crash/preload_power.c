/* The worst disk POSIX allows, between a program and libc: what would be left of a folder if the power went
 * now.
 *
 *   program and SQLite --write, sync, rename …--> hooks below --> the real folder
 *                                                    |
 *                                                    v  at a sync that succeeds
 *      $BALM_POWER_DISK/  N        bytes of the file with number N
 *                         N.names  names in the folder with number N: "f 7 lock", "d 8 journal"
 *                         control  struct control, shared with who sits at the switch
 *
 * Bytes and lengths are on that disk after a sync of the file, names after a sync of their folder, nothing
 * sooner (but see `early`), and after a sync that failed the pages count as clean and never get there, which
 * is what Linux does. A file whose name is there and whose bytes never were synced is empty. The power is cut
 * by SIGKILL, also in the middle of a sync, which then got a part of it to the disk. $BALM_POWER_FOLDER is
 * the folder, number 0; what it holds when the program starts is on the disk. The other side is
 * tests/crash/power_disk.py.
 *
 * Not seen, and not needed: stores into mapped memory (SQLite's -shm is made anew), stdio, links. */
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "power_shadow.h"

/* Written from outside at any time. Chances are of 1000. */
struct control {
    _Atomic uint32_t sync_faults;   /* fsync and fdatasync of a file fail with EIO */
    _Atomic uint32_t folder_faults; /* of a folder */
    _Atomic uint32_t write_faults;  /* writes fail with ENOSPC */
    _Atomic uint32_t sync_once;     /* so many syncs from now on fail, whatever of */
    _Atomic uint32_t write_once;    /* so many writes from now on */
    _Atomic uint32_t early;    /* what is written or named is on the disk at once: the kernel may do so */
    _Atomic uint32_t lies;     /* LIE_…: succeeds and does nothing */
    _Atomic uint32_t delay_us; /* a sync takes up to so long */
    _Atomic uint32_t n_syncs, n_sync_faults, n_write_faults, n_lies;
    _Atomic uint32_t is_on; /* 1: the disk has what was there at the start, and the power may go */
};

enum {
    LIE_DATA = 1, /* fdatasync in journal/, as with synchronous=OFF */
    LIE_FOLDER = 2,
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of the shadow and of chance */
static _Atomic bool is_watching;
static struct control *control;
static char folder[PATH_MAX_BYTES];
static uint64_t random_state;

/* ---- chance ---- */

static uint32_t random_below(uint32_t limit)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((random_state >> 33) % limit);
}

static bool happens(uint32_t of_1000)
{
    return of_1000 > 0 && random_below(1000) < of_1000;
}

static bool take_one(_Atomic uint32_t *count)
{
    uint32_t left = *count;
    return left > 0 && atomic_compare_exchange_strong(count, &left, left - 1);
}

/* ---- what is ours ---- */

static bool is_below(const char *path)
{
    size_t len = strlen(folder);
    return strncmp(path, folder, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

static bool is_ours(int fd, struct stat *ret_stat, char ret_path[PATH_MAX_BYTES])
{
    char link[64];
    if (!is_watching) return false;
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, ret_path, PATH_MAX_BYTES - 1);
    if (len <= 0 || ret_path[0] != '/') return false;
    ret_path[len] = '\0';
    return is_below(ret_path) && strstr(ret_path, "-shm") == NULL && fstat(fd, ret_stat) == 0 &&
           ret_stat->st_nlink > 0;
}

static void sync_names_of_parent(const char *path)
{
    char parent[PATH_MAX_BYTES];
    struct stat st;
    (void)snprintf(parent, sizeof(parent), "%s", path);
    char *slash = strrchr(parent, '/');
    if (slash == NULL) return;
    *slash = '\0';
    if (is_below(parent) && stat(parent, &st) == 0) sync_names(parent, file_of(st.st_ino));
}

/* ---- what the program does; each takes the lock ---- */

/* True: errno says why. A failed sync of a file: its pages count as clean. */
static bool sync_fails(struct file *f, bool is_folder)
{
    bool yes =
        take_one(&control->sync_once) || happens(is_folder ? control->folder_faults : control->sync_faults);
    if (!yes) return false;
    control->n_sync_faults++;
    if (!is_folder) f->n_dirty = 0;
    errno = EIO;
    return true;
}

static bool is_lied_about(const char *path, bool is_folder, long number)
{
    if (is_folder) return (control->lies & LIE_FOLDER) != 0;
    return (control->lies & LIE_DATA) != 0 && number == SYS_fdatasync && strstr(path, "/journal/") != NULL;
}

static int on_sync(int fd, long number)
{
    struct stat st;
    char path[PATH_MAX_BYTES];
    if (!is_ours(fd, &st, path)) return (int)syscall(number, fd);
    (void)pthread_mutex_lock(&lock);
    uint32_t delay_us = control->delay_us > 0 ? random_below(control->delay_us) : 0;
    (void)pthread_mutex_unlock(&lock);
    if (delay_us > 0) (void)usleep(delay_us);
    (void)pthread_mutex_lock(&lock);
    bool is_folder = S_ISDIR(st.st_mode), has_failed = false;
    struct file *f = file_of(st.st_ino);
    control->n_syncs++;
    if (is_lied_about(path, is_folder, number)) {
        control->n_lies++;
    } else if (sync_fails(f, is_folder)) {
        has_failed = true;
    } else if (is_folder) {
        sync_names(path, f);
    } else if (fstat(fd, &st) == 0) {
        sync_file(fd, f, st.st_size);
    }
    (void)pthread_mutex_unlock(&lock);
    return has_failed ? -1 : 0; /* the real disk need not hold it */
}

/* False: not to be written, the disk is full. */
static bool may_write(int fd)
{
    struct stat st;
    char path[PATH_MAX_BYTES];
    if (!is_watching || (control->write_once == 0 && control->write_faults == 0) || !is_ours(fd, &st, path))
        return true;
    (void)pthread_mutex_lock(&lock);
    bool yes = !take_one(&control->write_once) && !happens(control->write_faults);
    if (!yes) control->n_write_faults++;
    (void)pthread_mutex_unlock(&lock);
    errno = ENOSPC;
    return yes;
}

static void has_written(int fd, int64_t from, ssize_t n)
{
    struct stat st;
    char path[PATH_MAX_BYTES];
    if (n <= 0 || !is_ours(fd, &st, path) || !S_ISREG(st.st_mode)) return;
    (void)pthread_mutex_lock(&lock);
    struct range range = {from, from + n};
    struct file *f = file_of(st.st_ino);
    note_dirty(f, range.from, range.to);
    if (happens(control->early)) copy_ranges(fd, f, &range, 1, range.to, false);
    (void)pthread_mutex_unlock(&lock);
}

/* What is cut off and grows back is zeros. */
static void has_cut(ino_t inode, int64_t from, int64_t to)
{
    (void)pthread_mutex_lock(&lock);
    if (to > from) note_dirty(file_of(inode), from, to);
    (void)pthread_mutex_unlock(&lock);
}

/* `path` as the kernel would find it, symbolic links apart. */
static bool place_of(int at, const char *path, char ret_path[PATH_MAX_BYTES])
{
    char link[64], base[PATH_MAX_BYTES] = "";
    if (!is_watching) return false;
    if (path[0] != '/') {
        (void)snprintf(link, sizeof(link), at == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at);
        ssize_t len = readlink(link, base, sizeof(base) - 1);
        if (len < 0) return false;
        base[len] = '\0';
    }
    int n = snprintf(ret_path, PATH_MAX_BYTES, "%s%s%s", base, path[0] != '/' ? "/" : "", path);
    return n < PATH_MAX_BYTES && is_below(ret_path);
}

struct change { /* of a name below the folder */
    char place[PATH_MAX_BYTES];
    struct stat before;
    bool is_seen, existed;
};

static void begin_change(struct change *c, int at, const char *path)
{
    c->is_seen = place_of(at, path, c->place);
    if (!c->is_seen) return;
    (void)pthread_mutex_lock(&lock);
    c->existed = lstat(c->place, &c->before) == 0;
}

static int end_change(struct change *c, int rc)
{
    int errnum = errno;
    if (!c->is_seen) return rc;
    if (rc == 0 && c->existed) forget(&c->before);
    if (rc == 0 && happens(control->early)) sync_names_of_parent(c->place);
    (void)pthread_mutex_unlock(&lock);
    errno = errnum;
    return rc;
}

static int on_unlink(int at, const char *path, int flags)
{
    struct change c;
    begin_change(&c, at, path);
    return end_change(&c, (int)syscall(SYS_unlinkat, at, path, flags));
}

static int on_rename(int from_at, const char *from, int to_at, const char *to)
{
    struct change c;
    begin_change(&c, to_at, to);
    return end_change(&c, (int)syscall(SYS_renameat, from_at, from, to_at, to));
}

/* A file made by a child that was forked is not seen being written: what is opened anew is dirty as a whole.
 */
static int on_open(int at, const char *path, int flags, mode_t mode)
{
    char place[PATH_MAX_BYTES];
    struct stat st;
    int fd = (int)syscall(SYS_openat, at, path, flags, mode), errnum = errno;
    if (fd >= 0 && (flags & (O_TRUNC | O_CREAT)) != 0 && (flags & O_TMPFILE) != O_TMPFILE &&
        is_ours(fd, &st, place)) {
        (void)pthread_mutex_lock(&lock);
        if (flags & O_TRUNC) note_dirty(file_of(st.st_ino), 0, TO_THE_END);
        if (happens(control->early)) sync_names_of_parent(place);
        (void)pthread_mutex_unlock(&lock);
    }
    errno = errnum;
    return fd;
}

/* ---- hooks: these names come before the C library's ---- */

int fsync(int fd)
{
    return on_sync(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return on_sync(fd, SYS_fdatasync);
}

ssize_t write(int fd, const void *buf, size_t n)
{
    if (!is_watching) return (ssize_t)syscall(SYS_write, fd, buf, n);
    if (!may_write(fd)) return -1;
    int64_t at = lseek(fd, 0, SEEK_CUR); /* nobody appends to one file from two threads here */
    ssize_t written = (ssize_t)syscall(SYS_write, fd, buf, n);
    int errnum = errno;
    if (at >= 0 && written > 0) has_written(fd, lseek(fd, 0, SEEK_CUR) - written, written);
    errno = errnum;
    return written;
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t offset)
{
    if (!may_write(fd)) return -1;
    ssize_t written = (ssize_t)syscall(SYS_pwrite64, fd, buf, n, offset);
    int errnum = errno;
    has_written(fd, offset, written);
    errno = errnum;
    return written;
}

ssize_t pwrite64(int, const void *, size_t, off64_t) __attribute__((alias("pwrite")));

int ftruncate(int fd, off_t size)
{
    struct stat st;
    char path[PATH_MAX_BYTES];
    bool is_seen = is_ours(fd, &st, path);
    int rc = (int)syscall(SYS_ftruncate, fd, size), errnum = errno;
    if (rc == 0 && is_seen) has_cut(st.st_ino, size, st.st_size);
    errno = errnum;
    return rc;
}

int ftruncate64(int, off64_t) __attribute__((alias("ftruncate")));

int unlink(const char *path)
{
    return on_unlink(AT_FDCWD, path, 0);
}

int unlinkat(int at, const char *path, int flags)
{
    return on_unlink(at, path, flags);
}

int rmdir(const char *path)
{
    return on_unlink(AT_FDCWD, path, AT_REMOVEDIR);
}

int rename(const char *from, const char *to)
{
    return on_rename(AT_FDCWD, from, AT_FDCWD, to);
}

int renameat(int from_at, const char *from, int to_at, const char *to)
{
    return on_rename(from_at, from, to_at, to);
}

static mode_t mode_of(int flags, va_list args)
{
    return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(args, mode_t) : 0;
}

int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = mode_of(flags, args);
    va_end(args);
    return on_open(AT_FDCWD, path, flags, mode);
}

int open64(const char *, int, ...) __attribute__((alias("open")));

int openat(int at, const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = mode_of(flags, args);
    va_end(args);
    return on_open(at, path, flags, mode);
}

/* ---- the start ---- */

/* A forked child has this thread alone, and perhaps the lock for ever. */
static void on_child(void)
{
    is_watching = false;
}

__attribute__((constructor)) static void start(void)
{
    const char *of = getenv("BALM_POWER_FOLDER"), *disk = getenv("BALM_POWER_DISK");
    struct stat st;
    if (of == NULL || disk == NULL) return;
    (void)snprintf(folder, sizeof(folder), "%s", of);
    disk_fd = (int)syscall(SYS_openat, AT_FDCWD, disk, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int fd = (int)syscall(SYS_openat, disk_fd, "control", O_RDWR | O_CLOEXEC);
    if (fd < 0 || stat(folder, &st) != 0) give_up(disk);
    control = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (control == MAP_FAILED) give_up("control");
    (void)close(fd);
    random_state = (uint64_t)getpid() * UINT64_C(0x9e3779b97f4a7c15);
    take_over(folder, file_of(st.st_ino));
    (void)pthread_atfork(NULL, NULL, on_child);
    is_watching = true;
    control->is_on = 1;
}
