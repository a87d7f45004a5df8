/* How long from exec of a function to the first byte of its answer, and what it costs while idle.
 *
 *   cold_start EXECUTABLE [RUNS]
 *
 * Each run makes a listening unix socket, starts the executable with it (BALM_LISTEN_FD) as the gateway does,
 * sends a POST that waits in the backlog, and stops the clock at the first byte. The page cache is warm.
 * Memory is of the last process, after its answer. */
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"

#define RUNS_DEFAULT 200
#define RUNS_MAX     100000
#define PATIENCE_MS  5000

static const char request[] = "POST / HTTP/1.1\r\nHost: f\r\nContent-Length: 5\r\n\r\nhello";

static int listen_somewhere(struct sockaddr_un *ret_address, socklen_t *ret_len)
{
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    *ret_len = sizeof(a);
    /* Without a name the kernel picks an abstract one: nothing to clean up. */
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a.sun_family)) != 0 || listen(fd, 16) != 0 ||
        getsockname(fd, (struct sockaddr *)ret_address, ret_len) != 0) {
        perror("listen");
        exit(1);
    }
    return fd;
}

static pid_t start(const char *executable, int listen_fd)
{
    char setting[64];
    char *env[] = {setting, (char *)(uintptr_t) "BALM_METRICS=off", (char *)(uintptr_t) "log_level=ERROR",
                   NULL};
    char *argv[] = {(char *)(uintptr_t)executable, NULL};
    pid_t pid = 0;
    (void)snprintf(setting, sizeof(setting), "BALM_LISTEN_FD=%d", listen_fd);
    int rc = posix_spawn(&pid, executable, NULL, NULL, argv, env);
    if (rc == 0) return pid;
    (void)fprintf(stderr, "start %s: %s\n", executable, strerror(rc));
    exit(1);
}

static int connect_and_ask(const struct sockaddr_un *address, socklen_t len)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)address, len) != 0 ||
        send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL) != (ssize_t)sizeof(request) - 1) {
        perror("connect");
        exit(1);
    }
    return fd;
}

static void print_memory(pid_t pid)
{
    static const char *const names[] = {"Rss:", "Pss:", "Private_Clean:", "Private_Dirty:"};
    char path[64], line[256];
    (void)snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
    FILE *f = fopen(path, "re");
    if (f == NULL) return;
    while (fgets(line, sizeof(line), f) != NULL)
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
            if (strncmp(line, names[i], strlen(names[i])) == 0) printf("%s", line);
    (void)fclose(f);
}

/* Time to the first byte in ns; 0 if none came. */
static int64_t measure(const char *executable, bool is_last)
{
    struct sockaddr_un address;
    socklen_t len;
    char byte;
    int64_t took_ns = 0;
    int listen_fd = listen_somewhere(&address, &len);
    int64_t started_ns = clock_monotonic_ns();
    pid_t pid = start(executable, listen_fd);
    int fd = connect_and_ask(&address, len);
    if (poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, PATIENCE_MS) > 0 && recv(fd, &byte, 1, 0) == 1)
        took_ns = clock_monotonic_ns() - started_ns;
    if (is_last && took_ns > 0) {
        (void)poll(NULL, 0, 100);
        print_memory(pid);
    }
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
    (void)close(fd);
    (void)close(listen_fd);
    return took_ns;
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    long runs = argc > 2 ? strtol(argv[2], NULL, 10) : RUNS_DEFAULT;
    if (argc < 2 || runs < 1 || runs > RUNS_MAX) {
        (void)fprintf(stderr, "usage: cold_start EXECUTABLE [RUNS]\n");
        return 2;
    }
    int64_t *took = mem_zalloc((size_t)runs, sizeof(*took));
    for (long i = 0; i < runs; i++) {
        took[i] = measure(argv[1], i == runs - 1);
        if (took[i] == 0) {
            (void)fprintf(stderr, "run %ld: no answer within %d ms\n", i, PATIENCE_MS);
            return 1;
        }
    }
    qsort(took, (size_t)runs, sizeof(*took), by_value);
    int64_t p50 = took[runs / 2], p90 = took[runs * 9 / 10];
    printf("cold start, %ld runs: p50 %.2f ms, p90 %.2f ms, max %.2f ms\n", runs,
           (double)p50 / (double)NS_PER_MS, (double)p90 / (double)NS_PER_MS,
           (double)took[runs - 1] / (double)NS_PER_MS);
    free(took);
    return 0;
}
