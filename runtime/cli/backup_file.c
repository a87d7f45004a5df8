#include "cli/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"

#define CHUNK_BYTES   (1024 * 1024)
#define PROGRESS_NS   (200 * NS_PER_MS)
#define PROGRESS_WAIT (1 * NS_PER_S) /* what is over sooner needs none */

/* ---- progress ---- */

void backup_progress_init(struct backup_progress *p, bool is_wanted)
{
    p->is_shown = is_wanted && isatty(STDERR_FILENO) == 1;
    p->next_ns = clock_monotonic_ns() + PROGRESS_WAIT;
}

void backup_progress_show(struct backup_progress *p, const char *what, uint64_t done, uint64_t all,
                          const char *unit)
{
    if (!p->is_shown || clock_monotonic_ns() < p->next_ns) return;
    p->next_ns = clock_monotonic_ns() + PROGRESS_NS;
    if (all > 0)
        fprintf(stderr, "\r\033[K%s: %" PRIu64 " of %" PRIu64 " %s", what, done, all, unit);
    else
        fprintf(stderr, "\r\033[K%s: %" PRIu64 " %s", what, done, unit);
}

void backup_progress_clear(const struct backup_progress *p)
{
    if (p->is_shown) fputs("\r\033[K", stderr);
}

/* ---- copying and hashing ---- */

static enum status failed(struct error *err, const char *what, const char *path)
{
    return error_set(err, status_from_errno(errno), "%s %s: %s", what, path, strerror(errno));
}

/* Files only: a FIFO would hold us, a folder has no content. */
static enum status open_source(const char *path, int *ret_fd, struct error *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return failed(err, "read", path);
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        (void)close(fd);
        return error_set(err, STATUS_FAILED_PRECONDITION, "read %s: it is not a regular file", path);
    }
    *ret_fd = fd;
    return STATUS_OK;
}

static enum status read_chunk(int fd, const char *path, char *chunk, size_t max, size_t *ret_n,
                              struct error *err)
{
    ssize_t n;
    do {
        n = read(fd, chunk, max);
    } while (n < 0 && errno == EINTR);
    if (n < 0) return failed(err, "read", path);
    *ret_n = (size_t)n;
    return STATUS_OK;
}

static enum status write_chunk(int fd, const char *path, struct strview rest, struct error *err)
{
    while (rest.len > 0) {
        ssize_t n = write(fd, rest.ptr, rest.len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return failed(err, "write", path);
        rest = sv_sub(rest, (size_t)n, rest.len);
    }
    return STATUS_OK;
}

enum status backup_file_copy(const char *from, const char *to, uint64_t max_bytes, struct error *err)
{
    int in = -1, out = -1;
    size_t n = 1;
    enum status s = open_source(from, &in, err);
    if (s != STATUS_OK) return s;
    char *chunk = mem_alloc(CHUNK_BYTES);
    out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (out < 0) s = failed(err, "write", to);
    for (uint64_t left = max_bytes; s == STATUS_OK && n > 0 && left > 0; left -= n) {
        s = read_chunk(in, from, chunk, left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES, &n, err);
        if (s == STATUS_OK) s = write_chunk(out, to, sv_n(chunk, n), err);
    }
    if (s == STATUS_OK && fsync(out) != 0) s = failed(err, "write", to);
    if (out >= 0 && close(out) != 0 && s == STATUS_OK) s = failed(err, "write", to);
    (void)close(in);
    free(chunk);
    return s;
}

enum status backup_file_hash(const char *path, uint64_t *ret_bytes, char ret_hex[SHA256_HEX + 1],
                             struct error *err)
{
    int fd = -1;
    size_t n = 1;
    uint64_t bytes = 0;
    struct sha256_stream hash;
    enum status s = open_source(path, &fd, err);
    if (s != STATUS_OK) return s;
    char *chunk = mem_alloc(CHUNK_BYTES);
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    sha256_stream_init(&hash);
    while (s == STATUS_OK && n > 0) {
        s = read_chunk(fd, path, chunk, CHUNK_BYTES, &n, err);
        if (s != STATUS_OK) break;
        sha256_stream_add(&hash, sv_n(chunk, n));
        bytes += n;
    }
    (void)close(fd);
    free(chunk);
    if (s != STATUS_OK) return s;
    sha256_stream_end(&hash, ret_hex);
    *ret_bytes = bytes;
    return STATUS_OK;
}

static enum status check_file(const char *path, const struct backup_file *f, struct error *err)
{
    uint64_t bytes = 0;
    char hex[SHA256_HEX + 1];
    enum status s = backup_file_hash(path, &bytes, hex, err);
    if (s == STATUS_NOT_FOUND)
        return error_set(err, STATUS_DATA_LOSS, "the backup is damaged: %s is missing", path);
    if (s != STATUS_OK) return s;
    if (bytes != f->bytes)
        return error_set(err, STATUS_DATA_LOSS,
                         "the backup is damaged: %s has %" PRIu64 " bytes, and had %" PRIu64, path, bytes,
                         f->bytes);
    if (strcmp(hex, f->sha256) != 0)
        return error_set(err, STATUS_DATA_LOSS,
                         "the backup is damaged: %s has another SHA-256 than " BACKUP_MANIFEST " says", path);
    return STATUS_OK;
}

enum status backup_files_check(const char *dir, const struct backup_manifest *m, struct backup_progress *p,
                               struct error *err)
{
    enum status s = STATUS_OK;
    for (size_t i = 0; i < m->n_files && s == STATUS_OK; i++) {
        struct arena a = {0};
        s = check_file(arena_printf(&a, "%s/%.*s", dir, SV_ARG(m->files[i].path)).ptr, &m->files[i], err);
        arena_release(&a);
        backup_progress_show(p, "checking", i + 1, m->n_files, "files");
    }
    return s;
}
