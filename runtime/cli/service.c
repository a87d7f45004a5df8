#include "cli/cli.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"

void service_tell(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t len = path != NULL ? strlen(path) : 0;
    if (len < 2 || len >= sizeof(to.sun_path) || (path[0] != '/' && path[0] != '@')) return;
    memcpy(to.sun_path, path, len);
    if (path[0] == '@') to.sun_path[0] = '\0'; /* an abstract name */
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return;
    /* Lost means told too late: systemd's own limits deal with that. */
    (void)!sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&to,
                  (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
    (void)close(fd);
}

int64_t service_watchdog_ns(void)
{
    uint64_t us, pid;
    if (sv_parse_u64(sv(getenv("WATCHDOG_USEC")), &us) != STATUS_OK || us == 0 || us > INT64_MAX / NS_PER_US)
        return 0;
    const char *whose = getenv("WATCHDOG_PID"); /* inherited from a parent that is watched itself */
    if (whose != NULL && (sv_parse_u64(sv(whose), &pid) != STATUS_OK || pid != (uint64_t)getpid())) return 0;
    return (int64_t)us * NS_PER_US;
}
