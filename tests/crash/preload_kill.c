/* Kills the platform at the Nth call that changes a file of its data folder: LD_PRELOAD=preload_kill.so, and
 *
 *   KILL_DIR     the data folder; its indexes of the WAL (-shm), which are made anew, do not count
 *   KILL_AT      which call, from 1 on; 0: none
 *   KILL_WHEN    before the call, after it, or within: half of what it writes is written (other calls: as
 * before) KILL_COUNT   a file of 4096 bytes: calls so far (8 bytes), then what the last one was, as text
 *
 * Count and number of the platform's process are shared with its forked children (the writer of a snapshot).
 * A call of such a child kills the platform; "after" the child lives on, as one does whose parent was killed,
 * else it is killed as well. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHARED_BYTES 4096
#define PATH_BYTES   2048

struct shared {
    _Atomic uint64_t calls;
    char what[SHARED_BYTES - sizeof(uint64_t)];
};

enum when { BEFORE, AFTER, WITHIN };

static struct shared *shared; /* NULL: not at work */
static const char *dir;
static size_t dir_len;
static uint64_t kill_at;
static enum when when;
static pid_t platform;

__attribute__((constructor)) static void begin(void)
{
    const char *count = getenv("KILL_COUNT"), *at = getenv("KILL_AT"), *word = getenv("KILL_WHEN");
    dir = getenv("KILL_DIR");
    int fd = count != NULL && dir != NULL ? open(count, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *map = mmap(NULL, SHARED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    if (map == MAP_FAILED) return;
    dir_len = strlen(dir);
    kill_at = at != NULL ? strtoull(at, NULL, 10) : 0;
    when = word == NULL || strcmp(word, "before") == 0 ? BEFORE : strcmp(word, "after") == 0 ? AFTER : WITHIN;
    platform = getpid();
    shared = map;
}

/* ---- which calls count ---- */

static int counts(const char *path)
{
    size_t len = strlen(path);
    return strncmp(path, dir, dir_len) == 0 && (path[dir_len] == '/' || path[dir_len] == '\0') &&
           !(len > 4 && strcmp(path + len - 4, "-shm") == 0);
}

/* Where fd, or name in the folder fd, is; empty: elsewhere. errno stays. */
static void find_path(int fd, const char *name, char path[PATH_BYTES])
{
    char link[64], folder[PATH_BYTES / 2] = "";
    int e = errno;
    if (fd >= 0) {
        (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, folder, sizeof(folder) - 1);
        folder[n > 0 ? n : 0] = '\0';
    }
    if (name == NULL || name[0] == '/' || fd < 0)
        (void)snprintf(path, PATH_BYTES, "%s", name != NULL ? name : folder);
    else
        (void)snprintf(path, PATH_BYTES, "%s/%.1000s", folder, name);
    errno = e;
}

/* Is this the call? `name` NULL: on fd itself. */
static int is_it(const char *call, int fd, const char *name)
{
    char path[PATH_BYTES];
    if (shared == NULL) return 0;
    find_path(fd, name, path);
    if (!counts(path)) return 0;
    uint64_t n = atomic_fetch_add(&shared->calls, 1) + 1;
    if (kill_at != 0 && n > kill_at) return 0; /* what dies has no more to say */
    (void)snprintf(shared->what, sizeof(shared->what), "%s %s", call, path + dir_len);
    return n == kill_at;
}

static void die(void)
{
    (void)kill(platform, SIGKILL);
    if (getpid() != platform && when == AFTER) return;
    for (;;)
        (void)kill(getpid(), SIGKILL);
}

static void die_before(int is_this)
{
    if (is_this && when != AFTER) die();
}

static void die_after(int is_this)
{
    if (is_this && when == AFTER) die();
}

/* ---- hooks: these names come before the C library's ---- */

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define HOOK(type, name, parameters, arguments, fd, path)                                                    \
    type name parameters;                                                                                    \
    type name parameters                                                                                     \
    {                                                                                                        \
        int is_this = is_it(#name, fd, path);                                                                \
        die_before(is_this);                                                                                 \
        type ret = REAL(name) arguments;                                                                     \
        die_after(is_this);                                                                                  \
        return ret;                                                                                          \
    }

HOOK(int, fsync, (int fd), (fd), fd, NULL)
HOOK(int, fdatasync, (int fd), (fd), fd, NULL)
HOOK(int, ftruncate, (int fd, off_t len), (fd, len), fd, NULL)
HOOK(int, ftruncate64, (int fd, off64_t len), (fd, len), fd, NULL)
HOOK(int, rename, (const char *from, const char *to), (from, to), -1, to)
HOOK(int, renameat, (int from_fd, const char *from, int to_fd, const char *to), (from_fd, from, to_fd, to),
     to_fd, to)
HOOK(int, unlink, (const char *path), (path), -1, path)
HOOK(int, unlinkat, (int at, const char *path, int flags), (at, path, flags), at, path)
HOOK(int, mkdir, (const char *path, mode_t mode), (path, mode), -1, path)

#define HOOK_WRITE(name, parameters, whole, half)                                                            \
    ssize_t name parameters;                                                                                 \
    ssize_t name parameters                                                                                  \
    {                                                                                                        \
        int is_this = is_it(#name, fd, NULL);                                                                \
        if (is_this && when == WITHIN) (void)!REAL(name) half;                                               \
        die_before(is_this);                                                                                 \
        ssize_t ret = REAL(name) whole;                                                                      \
        die_after(is_this);                                                                                  \
        return ret;                                                                                          \
    }

HOOK_WRITE(write, (int fd, const void *bytes, size_t n), (fd, bytes, n), (fd, bytes, n / 2))
HOOK_WRITE(pwrite, (int fd, const void *bytes, size_t n, off_t at), (fd, bytes, n, at),
           (fd, bytes, n / 2, at))
HOOK_WRITE(pwrite64, (int fd, const void *bytes, size_t n, off64_t at), (fd, bytes, n, at),
           (fd, bytes, n / 2, at))
