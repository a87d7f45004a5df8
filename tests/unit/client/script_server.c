#include "script_server.h"

#include <arpa/inet.h>
#include <assert.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct script_server {
    pthread_t thread;
    int listen_fd, stop_fd;
    uint16_t port;
    const struct script_step *steps;
    unsigned n_steps;
    atomic_uint n_requests, n_connections;
    char seen[SCRIPT_MAX][SCRIPT_SEEN_MAX];
    int held[SCRIPT_MAX];
    unsigned n_held;
};

/* false: stopped, or nothing came in 10 s. */
static bool wait_readable(struct script_server *s, int fd)
{
    struct pollfd fds[] = {{.fd = fd, .events = POLLIN}, {.fd = s->stop_fd, .events = POLLIN}};
    return poll(fds, 2, 10000) > 0 && fds[1].revents == 0;
}

static size_t wanted_bytes(const char *request, size_t len)
{
    const char *end = memmem(request, len, "\r\n\r\n", 4);
    if (end == NULL) return SIZE_MAX;
    const char *length = strcasestr(request, "\ncontent-length:");
    size_t body = length != NULL && length < end ? (size_t)strtoul(length + 16, NULL, 10) : 0;
    return (size_t)(end - request) + 4 + body;
}

/* One request into seen[]; false at the end of the connection. */
static bool read_request(struct script_server *s, int fd)
{
    unsigned i = atomic_load(&s->n_requests);
    assert(i < SCRIPT_MAX);
    size_t len = 0;
    while (len < wanted_bytes(s->seen[i], len)) {
        if (len + 1 >= SCRIPT_SEEN_MAX || !wait_readable(s, fd)) return false;
        ssize_t n = read(fd, s->seen[i] + len, SCRIPT_SEEN_MAX - 1 - len);
        if (n <= 0) return false;
        len += (size_t)n;
        s->seen[i][len] = '\0';
    }
    atomic_fetch_add(&s->n_requests, 1);
    return true;
}

static void send_all(int fd, const char *text)
{
    size_t len = strlen(text);
    while (len > 0) {
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
        if (n <= 0) return;
        text += n;
        len -= (size_t)n;
    }
}

/* true: the descriptor is kept. */
static bool follow(struct script_server *s, int fd)
{
    for (;;) {
        if (!read_request(s, fd)) return false;
        unsigned i = atomic_load(&s->n_requests) - 1;
        assert(i < s->n_steps);
        const struct script_step *step = &s->steps[i];
        if (step->delay_ms > 0)
            (void)poll(&(struct pollfd){.fd = s->stop_fd, .events = POLLIN}, 1, step->delay_ms);
        if (step->holds) return true;
        if (step->answer != NULL) send_all(fd, step->answer);
        if (!step->keeps_open) return false;
    }
}

static void *run(void *arg)
{
    struct script_server *s = arg;
    while (wait_readable(s, s->listen_fd)) {
        int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) continue;
        atomic_fetch_add(&s->n_connections, 1);
        if (follow(s, fd))
            s->held[s->n_held++] = fd;
        else
            (void)close(fd);
    }
    for (unsigned i = 0; i < s->n_held; i++)
        (void)close(s->held[i]);
    return NULL;
}

static int listen_unix(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    (void)snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int rc = bind(fd, (struct sockaddr *)&a, sizeof(a));
    assert(rc == 0);
    (void)rc;
    return fd;
}

static int listen_loopback(uint16_t *ret_port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int rc = bind(fd, (struct sockaddr *)&a, sizeof(a));
    assert(rc == 0);
    rc = getsockname(fd, (struct sockaddr *)&a, &len);
    assert(rc == 0);
    (void)rc;
    *ret_port = ntohs(a.sin_port);
    return fd;
}

struct script_server *script_start(const struct script_step *steps, unsigned n, const char *unix_path)
{
    struct script_server *s = calloc(1, sizeof(*s));
    s->steps = steps;
    s->n_steps = n;
    s->stop_fd = eventfd(0, EFD_CLOEXEC);
    s->listen_fd = unix_path != NULL ? listen_unix(unix_path) : listen_loopback(&s->port);
    (void)listen(s->listen_fd, 128);
    (void)pthread_create(&s->thread, NULL, run, s);
    return s;
}

void script_stop(struct script_server *s)
{
    uint64_t one = 1;
    (void)!write(s->stop_fd, &one, sizeof(one));
    (void)pthread_join(s->thread, NULL);
    (void)close(s->listen_fd);
    (void)close(s->stop_fd);
    free(s);
}

uint16_t script_port(const struct script_server *s)
{
    return s->port;
}

const char *script_seen(struct script_server *s, unsigned i)
{
    return i < atomic_load(&s->n_requests) ? s->seen[i] : "";
}

unsigned script_requests(struct script_server *s)
{
    return atomic_load(&s->n_requests);
}

unsigned script_connections(struct script_server *s)
{
    return atomic_load(&s->n_connections);
}
