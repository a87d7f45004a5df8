#include "tests/contract/disk_faults.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned armed, skip, left, hits;
static bool is_endless;
static int fault_errno;

void disk_faults_set(unsigned which, int errnum, unsigned after, unsigned times)
{
    (void)pthread_mutex_lock(&lock);
    armed = which;
    fault_errno = errnum;
    skip = after;
    left = times;
    is_endless = times == 0;
    hits = 0;
    (void)pthread_mutex_unlock(&lock);
}

void disk_faults_clear(void)
{
    (void)pthread_mutex_lock(&lock);
    armed = 0;
    (void)pthread_mutex_unlock(&lock);
}

unsigned disk_faults_hits(void)
{
    (void)pthread_mutex_lock(&lock);
    unsigned n = hits;
    (void)pthread_mutex_unlock(&lock);
    return n;
}

static bool fails(enum disk_fault kind)
{
    bool yes = false;
    (void)pthread_mutex_lock(&lock);
    if ((armed & kind) != 0) {
        if (skip > 0) {
            skip--;
        } else if (is_endless || left > 0) {
            yes = true;
            hits++;
            if (!is_endless) left--;
        }
    }
    int errnum = fault_errno;
    (void)pthread_mutex_unlock(&lock);
    if (yes) errno = errnum;
    return yes;
}

static bool is_folder(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
}

int fsync(int fd)
{
    return fails(DISK_FAULT_SYNC) || (is_folder(fd) && fails(DISK_FAULT_FOLDER))
               ? -1
               : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return fails(DISK_FAULT_SYNC) ? -1 : (int)syscall(SYS_fdatasync, fd);
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t offset)
{
    return fails(DISK_FAULT_WRITE) ? -1 : (ssize_t)syscall(SYS_pwrite64, fd, buf, n, offset);
}

ssize_t pwrite64(int fd, const void *buf, size_t n, off64_t offset)
{
    return fails(DISK_FAULT_WRITE) ? -1 : (ssize_t)syscall(SYS_pwrite64, fd, buf, n, offset);
}
