/* Raw bytes to or from a socket of the loop under test, by the fiber that plays the peer. */
#ifndef BALM_TESTS_FUZZ_WIRE_H
#define BALM_TESTS_FUZZ_WIRE_H

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/strview.h"
#include "loop/loop.h"

static inline struct sockaddr_un wire_address(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = strlen(path);
    assert(len < sizeof(address.sun_path));
    memcpy(address.sun_path, path, len);
    return address;
}

static inline int wire_dial(const char *path)
{
    struct sockaddr_un address = wire_address(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int failed = connect(fd, (const struct sockaddr *)&address, sizeof(address));
    assert(failed == 0);
    return fd;
}

static inline int wire_listen(const char *path)
{
    struct sockaddr_un address = wire_address(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int failed = bind(fd, (const struct sockaddr *)&address, sizeof(address)) | listen(fd, 16);
    assert(failed == 0);
    return fd;
}

/* Ready for `events` before the deadline? */
static inline bool wire_wait(int fd, int events, int64_t deadline_ns)
{
    int ignored;
    return fd_wait(fd, events, deadline_ns, &ignored) == STATUS_OK;
}

/* As far as the peer takes it. */
static inline void wire_send(int fd, struct strview bytes, int64_t deadline_ns)
{
    while (bytes.len > 0) {
        ssize_t n = send(fd, bytes.ptr, bytes.len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0)
            bytes = sv_sub(bytes, (size_t)n, bytes.len);
        else if (errno != EAGAIN || !wire_wait(fd, POLLOUT, deadline_ns))
            return;
    }
}

/* Up to `max` bytes: all that comes until the peer closes (true) or the deadline. */
static inline bool wire_read(int fd, char *to, size_t max, size_t *ret_n, int64_t deadline_ns)
{
    char scrap[4096];
    *ret_n = 0;
    for (;;) {
        bool has_room = *ret_n < max;
        ssize_t n =
            recv(fd, has_room ? to + *ret_n : scrap, has_room ? max - *ret_n : sizeof(scrap), MSG_DONTWAIT);
        if (n > 0)
            *ret_n += has_room ? (size_t)n : 0;
        else if (n == 0 || errno != EAGAIN)
            return true;
        else if (!wire_wait(fd, POLLIN, deadline_ns))
            return false;
    }
}

#endif
