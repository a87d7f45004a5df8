#include "store/reserve.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/memory.h"
#include "log/log.h"

#define PIECE_BYTES ((uint64_t)16 * 1024 * 1024)
/* With less than this a commit may have failed for want of room. */
#define FULL_BYTES ((uint64_t)4 * 1024 * 1024)

struct reserve {
    int fd; /* -1: it could not be made */
    uint64_t size;
    pthread_mutex_t lock; /* who changes the file */
    _Atomic uint64_t left;
    int64_t given_ns; /* when the last piece was; 0: never */
    bool has_failed;  /* said once */
    char path[];
};

static uint64_t free_bytes(const struct reserve *r)
{
    struct statvfs fs;
    return fstatvfs(r->fd, &fs) == 0 ? (uint64_t)fs.f_bavail * fs.f_frsize : 0;
}

bool disk_is_full(const char *dir)
{
    struct statvfs fs;
    return statvfs(dir, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize < FULL_BYTES;
}

static void failed(struct reserve *r, const char *what)
{
    if (!r->has_failed)
        log_warn("journal", "the reserve for a full disk cannot be had; trying again",
                 LOG_STR("file", r->path), LOG_STR("reason", what));
    r->has_failed = true;
}

/* The blocks must be there: a file with holes reserves nothing. */
static void grow_to(struct reserve *r, uint64_t size)
{
    if (size <= r->left) return;
    if (fallocate(r->fd, 0, 0, (off_t)size) != 0) {
        failed(r, strerror(errno));
        (void)!ftruncate(r->fd, (off_t)r->left);
        return;
    }
    r->left = size;
    r->has_failed = false;
}

struct reserve *reserve_open(const char *path, uint64_t size)
{
    struct reserve *r = mem_zalloc(1, sizeof(*r) + strlen(path) + 1);
    struct stat st;
    memcpy(r->path, path, strlen(path) + 1);
    r->size = size;
    (void)pthread_mutex_init(&r->lock, NULL);
    r->fd = size > 0 ? open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
    if (size == 0) {
        (void)unlink(path); /* of a start with another setting */
        return r;
    }
    if (r->fd < 0 || fstat(r->fd, &st) != 0) {
        failed(r, strerror(errno));
        return r;
    }
    r->left = (uint64_t)st.st_blocks * 512 < (uint64_t)st.st_size ? (uint64_t)st.st_blocks * 512
                                                                  : (uint64_t)st.st_size;
    if (r->left > size && ftruncate(r->fd, (off_t)size) == 0) r->left = size;
    uint64_t can_have = r->left + free_bytes(r) / 4;
    grow_to(r, can_have < size ? can_have : size);
    return r;
}

void reserve_close(struct reserve *r)
{
    if (r == NULL) return;
    if (r->fd >= 0) (void)close(r->fd);
    (void)pthread_mutex_destroy(&r->lock);
    free(r);
}

/* With the lock, as the next one. */
static bool give(struct reserve *r)
{
    int64_t now_ns = clock_monotonic_ns();
    if (r->fd < 0 || r->left == 0 || free_bytes(r) >= FULL_BYTES) return false;
    if (r->given_ns != 0 && now_ns < r->given_ns + RESERVE_PAUSE_NS) return false;
    uint64_t left = r->left > PIECE_BYTES ? r->left - PIECE_BYTES : 0;
    if (ftruncate(r->fd, (off_t)left) != 0) return false;
    r->left = left;
    r->given_ns = now_ns;
    log_error("journal", "the disk is full: a piece of the reserve is given up", LOG_INT("left_bytes", left),
              LOG_STR("advice", "make room: nothing is accepted once all of it is used"));
    return true;
}

static void refill(struct reserve *r)
{
    if (r->fd < 0 || r->left >= r->size) return;
    uint64_t missing = r->size - r->left;
    if (free_bytes(r) < missing + r->size / 2) return;
    bool was_given = !r->has_failed;
    grow_to(r, r->size);
    if (r->left == r->size && was_given)
        log_info("journal", "the reserve for a full disk is whole again", LOG_INT("bytes", r->size));
}

bool reserve_give(struct reserve *r)
{
    (void)pthread_mutex_lock(&r->lock);
    bool is_given = give(r);
    (void)pthread_mutex_unlock(&r->lock);
    return is_given;
}

void reserve_refill(struct reserve *r)
{
    (void)pthread_mutex_lock(&r->lock);
    refill(r);
    (void)pthread_mutex_unlock(&r->lock);
}

uint64_t reserve_left(const struct reserve *r)
{
    return r->left;
}

uint64_t reserve_size(const struct reserve *r)
{
    return r->size;
}
