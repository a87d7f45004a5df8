/* -run-healthcheck, for a HEALTHCHECK that has no shell and no curl beside it: is a function running here? */
#include <netdb.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "function/function_impl.h"

#define WAIT_S 2 /* for each of connect, send and receive; probes commonly give up after 1 to 3 s */

static bool lock_is_there(void)
{
    char path[256];
    const char *folder = getenv("TMPDIR");
    int n = snprintf(path, sizeof(path), "%s/.lock", folder != NULL && folder[0] != '\0' ? folder : "/tmp");
    return n > 0 && (size_t)n < sizeof(path) && access(path, F_OK) == 0;
}

/* To ourselves: "all addresses" leads to loopback. -1: nobody listens. */
static int connect_to(const char *host, uint16_t port)
{
    const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    const struct timeval limit = {.tv_sec = WAIT_S};
    struct addrinfo *address = NULL;
    char service[8];
    (void)snprintf(service, sizeof(service), "%u", port);
    if (getaddrinfo(host, service, &hints, &address) != 0) return -1;
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) != 0 ||
                    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) != 0 ||
                    connect(fd, address->ai_addr, address->ai_addrlen) != 0)) {
        (void)close(fd);
        fd = -1;
    }
    freeaddrinfo(address);
    return fd;
}

static bool answers_200(int fd)
{
    static const char request[] = "GET /_/health HTTP/1.0\r\n\r\n";
    static const char wanted[] = " 200 "; /* after "HTTP/1.x" */
    char head[sizeof("HTTP/1.1 200 ") - 1];
    size_t at = sizeof("HTTP/1.1") - 1;
    return send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL) == (ssize_t)(sizeof(request) - 1) &&
           recv(fd, head, sizeof(head), MSG_WAITALL) == (ssize_t)sizeof(head) &&
           memcmp(head, "HTTP/1.", 7) == 0 && memcmp(head + at, wanted, sizeof(wanted) - 1) == 0;
}

static bool health_answers(const struct function_cfg *cfg)
{
    int fd = connect_to(cfg->host != NULL ? cfg->host : "127.0.0.1", cfg->port);
    bool is_healthy = fd >= 0 && answers_200(fd);
    if (fd >= 0) (void)close(fd);
    return is_healthy;
}

int function_healthcheck(const struct function_cfg *cfg)
{
    bool is_healthy = cfg->suppress_lock ? health_answers(cfg) : lock_is_there();
    return is_healthy ? 0 : 1;
}
