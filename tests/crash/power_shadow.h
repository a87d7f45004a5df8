/* What a disk holds of a folder, kept in another folder: for preload_power.c, which says when it changes. Not
 * for two threads at once, and never through the names that preload_power.c hooks. */
#ifndef BALM_TESTS_CRASH_POWER_SHADOW_H
#define BALM_TESTS_CRASH_POWER_SHADOW_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PATH_MAX_BYTES = 4096, COPY_BYTES = 64 * 1024 };
#define TO_THE_END INT64_MAX

struct range {
    int64_t from, to;
};

struct file {    /* or folder */
    ino_t inode; /* 0: free */
    unsigned number;
    struct range *dirty; /* written since the last sync */
    size_t n_dirty, dirty_capacity;
};

static int disk_fd = -1; /* the folder with what the disk holds */
static struct file *files;
static size_t n_files;
static unsigned next_number;

static _Noreturn void give_up(const char *what)
{
    (void)fprintf(stderr, "preload_power: %s: %s\n", what, strerror(errno));
    abort();
}

/* ---- which file ---- */

static struct file *find(ino_t inode)
{
    for (size_t i = 0; i < n_files; i++)
        if (files[i].inode == inode) return &files[i];
    return NULL;
}

static void note_dirty(struct file *f, int64_t from, int64_t to)
{
    struct range *last = f->n_dirty > 0 ? &f->dirty[f->n_dirty - 1] : NULL;
    if (last != NULL && last->to == from) {
        last->to = to;
        return;
    }
    if (f->n_dirty == f->dirty_capacity) {
        f->dirty_capacity = f->dirty_capacity > 0 ? f->dirty_capacity * 2 : 16;
        f->dirty = realloc(f->dirty, f->dirty_capacity * sizeof(*f->dirty));
        if (f->dirty == NULL) give_up("dirty ranges");
    }
    f->dirty[f->n_dirty++] = (struct range){from, to};
}

/* One not seen before is dirty from end to end. */
static struct file *file_of(ino_t inode)
{
    struct file *f = find(inode);
    if (f != NULL) return f;
    f = find(0);
    if (f == NULL) {
        files = realloc(files, (n_files + 1) * sizeof(*files));
        if (files == NULL) give_up("files");
        f = &files[n_files++];
        *f = (struct file){0};
    }
    f->inode = inode;
    f->number = next_number++;
    f->n_dirty = 0;
    note_dirty(f, 0, TO_THE_END);
    return f;
}

/* Its last name is gone: the next file with this inode is another one. */
static void forget(const struct stat *st)
{
    struct file *f = S_ISDIR(st->st_mode) || st->st_nlink == 1 ? find(st->st_ino) : NULL;
    if (f != NULL) f->inode = 0;
}

/* ---- onto the disk ---- */

static void copy_range(int from, int to, int64_t at, int64_t end)
{
    static char bytes[COPY_BYTES];
    while (at < end) {
        size_t want = end - at < COPY_BYTES ? (size_t)(end - at) : COPY_BYTES;
        ssize_t got = pread(from, bytes, want, at);
        if (got < 0) give_up("read what is synced");
        if (got == 0) return; /* cut meanwhile */
        if (syscall(SYS_pwrite64, to, bytes, (size_t)got, at) != got) give_up("write to the disk");
        at += got;
    }
}

/* For reading: a descriptor may be for writing alone. Never one of SQLite's, which are for both: closing
 * another descriptor of the file would drop its locks. */
static int readable(int fd)
{
    char link[64];
    if ((fcntl(fd, F_GETFL) & O_ACCMODE) != O_WRONLY) return fd;
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    return (int)syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC);
}

static void copy_ranges(int fd, const struct file *f, const struct range *ranges, size_t n, int64_t size,
                        bool is_cut)
{
    char name[32];
    (void)snprintf(name, sizeof(name), "%u", f->number);
    int to = (int)syscall(SYS_openat, disk_fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    int from = readable(fd);
    if (to < 0 || from < 0) give_up("open what is synced");
    for (size_t i = 0; i < n; i++)
        copy_range(from, to, ranges[i].from, ranges[i].to < size ? ranges[i].to : size);
    if (is_cut && syscall(SYS_ftruncate, to, size) != 0) give_up("cut on the disk");
    if (from != fd) (void)close(from);
    (void)close(to);
}

static void sync_file(int fd, struct file *f, int64_t size)
{
    copy_ranges(fd, f, f->dirty, f->n_dirty, size, true);
    f->n_dirty = 0;
}

/* As of now, in one piece. */
static void sync_names(const char *path, const struct file *of)
{
    char name[32], draft[40];
    unsigned number = of->number; /* file_of() below moves them */
    (void)snprintf(name, sizeof(name), "%u.names", number);
    (void)snprintf(draft, sizeof(draft), "%s.tmp", name);
    int fd = (int)syscall(SYS_openat, disk_fd, draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FILE *out = fd >= 0 ? fdopen(fd, "w") : NULL;
    DIR *d = opendir(path);
    if (out == NULL || d == NULL) give_up(path);
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        bool is_folder = e->d_type == DT_DIR;
        if ((!is_folder && e->d_type != DT_REG) || strcmp(e->d_name, ".") == 0 ||
            strcmp(e->d_name, "..") == 0)
            continue;
        (void)fprintf(out, "%c %u %s\n", is_folder ? 'd' : 'f', file_of(e->d_ino)->number, e->d_name);
    }
    (void)closedir(d);
    if (fclose(out) != 0 || syscall(SYS_renameat, disk_fd, draft, disk_fd, name) != 0) give_up(name);
}

/* What is there now is on the disk. */
static void take_over(const char *path, struct file *of)
{
    sync_names(path, of);
    DIR *d = opendir(path);
    if (d == NULL) give_up(path);
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        char below[PATH_MAX_BYTES];
        struct stat st;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        int n = snprintf(below, sizeof(below), "%s/%s", path, e->d_name);
        if (n >= PATH_MAX_BYTES || lstat(below, &st) != 0) continue;
        if (S_ISDIR(st.st_mode)) take_over(below, file_of(st.st_ino));
        if (!S_ISREG(st.st_mode)) continue;
        int fd = (int)syscall(SYS_openat, AT_FDCWD, below, O_RDONLY | O_CLOEXEC);
        if (fd < 0) give_up(below);
        sync_file(fd, file_of(st.st_ino), st.st_size);
        (void)close(fd);
    }
    (void)closedir(d);
}

#endif
