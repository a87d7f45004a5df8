/* The wall clock of one process, moved from outside while it runs: LD_PRELOAD this, and name a file by
 * BALM_TEST_CLOCK that holds two int64_t, mapped by whoever turns the clock:
 *
 *   offset_ns    added to the real wall clock
 *   stopped_ns   not 0: the clock stands still there
 *
 * CLOCK_MONOTONIC goes on as it is, as it does when somebody sets the clock of a machine. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S INT64_C(1000000000)

struct turned {
    int64_t offset_ns, stopped_ns;
};

static const struct turned *turned;

__attribute__((constructor)) static void map_file(void)
{
    const char *path = getenv("BALM_TEST_CLOCK");
    int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *at = fd >= 0 ? mmap(NULL, sizeof(*turned), PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (fd >= 0) (void)close(fd);
    if (at != MAP_FAILED) turned = at;
}

static int64_t now_ns(void)
{
    struct timespec real = {0};
    (void)syscall(SYS_clock_gettime, CLOCK_REALTIME, &real);
    int64_t ns = (int64_t)real.tv_sec * NS_PER_S + real.tv_nsec;
    if (turned == NULL) return ns;
    int64_t stopped_ns = __atomic_load_n(&turned->stopped_ns, __ATOMIC_ACQUIRE);
    return stopped_ns != 0 ? stopped_ns : ns + __atomic_load_n(&turned->offset_ns, __ATOMIC_ACQUIRE);
}

int clock_gettime(clockid_t id, struct timespec *ret_time)
{
    if (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE)
        return (int)syscall(SYS_clock_gettime, id, ret_time);
    int64_t ns = now_ns();
    *ret_time = (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = ns % NS_PER_S};
    return 0;
}

int gettimeofday(struct timeval *restrict ret_time, void *restrict zone)
{
    int64_t ns = now_ns();
    (void)zone;
    *ret_time = (struct timeval){.tv_sec = (time_t)(ns / NS_PER_S), .tv_usec = ns % NS_PER_S / 1000};
    return 0;
}

time_t time(time_t *ret_time)
{
    time_t seconds = (time_t)(now_ns() / NS_PER_S);
    if (ret_time != NULL) *ret_time = seconds;
    return seconds;
}
