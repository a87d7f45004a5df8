#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"

static enum status failed(struct error *err, const char *what, const char *path, int errnum)
{
    return error_set(err, status_from_errno(errnum), "%s %s: %s (%d)", what, path, strerrordesc_np(errnum),
                     errnum);
}

/* Up to max_bytes + 1 bytes: one more than allowed tells a file that is too long, whatever its size said. */
static enum status read_whole(struct arena *a, int fd, const char *path, size_t expected, size_t max_bytes,
                              struct strview *ret_content, struct error *err)
{
    size_t capacity = expected + 2, len = 0; /* a byte to see the end by, and the NUL */
    char *bytes = arena_alloc(a, capacity);
    for (;;) {
        if (len + 1 == capacity) { /* longer than fstat said: growing, or in /proc */
            char *larger = arena_alloc(a, capacity * 2 + 4096);
            memcpy(larger, bytes, len);
            bytes = larger;
            capacity = capacity * 2 + 4096;
        }
        ssize_t n = read(fd, bytes + len, capacity - 1 - len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return failed(err, "read", path, errno);
        if (n == 0) break;
        len += (size_t)n;
        if (len > max_bytes)
            return error_set(err, STATUS_RESOURCE_EXHAUSTED, "read %s: more than %zu bytes", path, max_bytes);
    }
    bytes[len] = '\0';
    *ret_content = sv_n(bytes, len);
    return STATUS_OK;
}

enum status file_read(struct arena *a, const char *path, size_t max_bytes, struct strview *ret_content,
                      struct error *err)
{
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO without a writer must not hold us */
    if (fd < 0) return failed(err, "open", path, errno);
    enum status s;
    if (fstat(fd, &info) != 0)
        s = failed(err, "stat", path, errno);
    else if (!S_ISREG(info.st_mode))
        s = error_set(err, STATUS_INVALID_ARGUMENT, "read %s: not a regular file", path);
    else if (info.st_size > 0 && (uintmax_t)info.st_size > max_bytes)
        s = error_set(err, STATUS_RESOURCE_EXHAUSTED, "read %s: %jd bytes, more than %zu", path,
                      (intmax_t)info.st_size, max_bytes);
    else
        s = read_whole(a, fd, path, (size_t)info.st_size, max_bytes, ret_content, err);
    (void)close(fd);
    return s;
}

static int write_all(int fd, struct strview content)
{
    while (content.len > 0) {
        ssize_t n = write(fd, content.ptr, content.len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno;
        content = sv_sub(content, (size_t)n, content.len);
    }
    return 0;
}

static int sync_folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t len = slash == NULL ? 0 : slash == path ? 1 : (size_t)(slash - path);
    char *folder = mem_alloc(len + 2);
    memcpy(folder, len ? path : ".", len ? len : 1);
    folder[len ? len : 1] = '\0';
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(folder);
    if (fd < 0) return errno;
    int errnum = fsync(fd) == 0 ? 0 : errno;
    (void)close(fd);
    return errnum;
}

enum status file_sync_name(const char *path, struct error *err)
{
    int errnum = sync_folder_of(path);
    return errnum == 0 ? STATUS_OK : failed(err, "sync the folder of", path, errnum);
}

enum status file_write_atomic(const char *path, struct strview content, mode_t mode, struct error *err)
{
    static const char suffix[] = FILE_TEMPORARY_MARK "XXXXXX";
    size_t len = strlen(path);
    char *temporary = mem_alloc(len + sizeof(suffix));
    memcpy(temporary, path, len);
    memcpy(temporary + len, suffix, sizeof(suffix));
    enum status s = STATUS_OK;
    int errnum = 0, fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0) {
        s = failed(err, "create temporary file beside", path, errno);
        goto out;
    }
    if (fchmod(fd, mode) != 0)
        errnum = errno;
    else
        errnum = write_all(fd, content);
    if (errnum == 0 && fsync(fd) != 0) errnum = errno;
    if (close(fd) != 0 && errnum == 0) errnum = errno;
    if (errnum == 0 && rename(temporary, path) != 0) errnum = errno;
    if (errnum != 0) {
        (void)unlink(temporary);
        s = failed(err, "write", path, errnum);
        goto out;
    }
    s = file_sync_name(path, err); /* the rename itself is only durable once the folder is */
out:
    free(temporary);
    return s;
}

static enum status make_one(const char *path, mode_t mode, struct error *err)
{
    if (mkdir(path, mode) == 0) {
        enum status s = file_sync_name(path, err);
        if (s != STATUS_OK) (void)rmdir(path); /* or the next call would take it for being there to stay */
        return s;
    }
    int errnum = errno;
    struct stat info;
    if (stat(path, &info) != 0) return failed(err, "make folder", path, errnum);
    if (S_ISDIR(info.st_mode)) return STATUS_OK;
    return error_set(err, STATUS_ALREADY_EXISTS, "make folder %s: exists and is no folder", path);
}

enum status dir_make(const char *path, mode_t mode, struct error *err)
{
    size_t len = strlen(path);
    if (len == 0) return error_set(err, STATUS_INVALID_ARGUMENT, "make folder: empty path");
    char *part = mem_copy_text(path);
    enum status s = STATUS_OK;
    for (size_t i = 1; i < len && s == STATUS_OK; i++) {
        if (part[i] != '/' || part[i - 1] == '/') continue;
        part[i] = '\0';
        s = make_one(part, mode | S_IWUSR | S_IXUSR, err); /* or the next level could not be made */
        part[i] = '/';
    }
    if (s == STATUS_OK) s = make_one(part, mode, err);
    free(part);
    return s;
}

void file_open_standard(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd) _exit(1);
}
