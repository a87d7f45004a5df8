#include "harness.h"

#include <arpa/inet.h>
#include <assert.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <criterion/criterion.h>

struct run {
    struct harness h;
    const struct server_cfg *cfg;
    void (*script)(struct harness *h);
    struct error err;
    enum status status;
};

static void run_script(void *arg)
{
    struct run *r = arg;
    r->status = server_start(r->h.loop, r->cfg, &r->h.server, &r->err);
    if (r->status != STATUS_OK) return;
    r->h.port = server_port(r->h.server);
    r->script(&r->h);
    server_free(r->h.server);
}

void run_with_server(const struct server_cfg *cfg, void (*script)(struct harness *h), void *arg)
{
    struct run r = {.cfg = cfg, .script = script, .h.arg = arg};
    cr_assert_eq(loop_new(&r.h.loop, &r.err), STATUS_OK, "%s", r.err.message);
    cr_assert_eq(loop_run_fiber(r.h.loop, run_script, &r, &r.err), STATUS_OK, "%s", r.err.message);
    cr_assert_eq(r.status, STATUS_OK, "%s", r.err.message);
    loop_free(r.h.loop);
}

int dial(uint16_t port)
{
    struct sockaddr_in addr = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {.tv_sec = 10};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0) return fd;
    (void)close(fd);
    return -1;
}

void send_bytes(int fd, const void *bytes, size_t n)
{
    for (const char *at = bytes; n > 0;) {
        ssize_t sent = send(fd, at, n, MSG_NOSIGNAL);
        if (sent <= 0) return; /* the peer has refused the rest */
        at += sent;
        n -= (size_t)sent;
    }
}

void send_text(int fd, const char *text)
{
    send_bytes(fd, text, strlen(text));
}

static bool read_exactly(int fd, char *to, size_t n)
{
    while (n > 0) {
        ssize_t got = recv(fd, to, n, 0);
        if (got <= 0) return false;
        to += got;
        n -= (size_t)got;
    }
    return true;
}

/* Byte by byte, so that nothing behind is swallowed. */
static bool read_head(int fd, char *head, size_t capacity)
{
    size_t n = 0;
    while (n + 1 < capacity && recv(fd, head + n, 1, 0) == 1) {
        head[++n] = '\0';
        if (n >= 4 && memcmp(head + n - 4, "\r\n\r\n", 4) == 0) return true;
    }
    return false;
}

static void append(struct answer *a, size_t n)
{
    a->body = realloc(a->body, a->body_bytes + n + 1);
    assert(a->body != NULL);
}

static void read_chunks(int fd, struct answer *a)
{
    char line[32];
    for (;;) {
        size_t n = 0;
        while (n + 1 < sizeof(line) && recv(fd, line + n, 1, 0) == 1 && line[n] != '\n')
            n++;
        if (n == 0 || line[n] != '\n') return;
        size_t bytes = strtoul(line, NULL, 16);
        append(a, bytes + 2);
        if (!read_exactly(fd, a->body + a->body_bytes, bytes + 2)) return;
        a->body_bytes += bytes;
        if (bytes == 0) break;
    }
    a->is_complete = true;
}

static void read_to_end(int fd, struct answer *a)
{
    ssize_t got = 1;
    while (got > 0) {
        append(a, 65536);
        got = recv(fd, a->body + a->body_bytes, 65536, 0);
        if (got > 0) a->body_bytes += (size_t)got;
    }
    a->is_complete = got == 0;
}

void read_answer(int fd, struct answer *ret)
{
    memset(ret, 0, sizeof(*ret));
    append(ret, 0);
    if (!read_head(fd, ret->head, sizeof(ret->head))) return;
    ret->status = (int)strtol(ret->head + strlen("HTTP/1.1 "), NULL, 10);
    const char *length = strcasestr(ret->head, "\r\ncontent-length: ");
    if (ret->status == 204 || ret->status == 304 || ret->status < 200) {
        ret->is_complete = true;
    } else if (strcasestr(ret->head, "\r\ntransfer-encoding: chunked") != NULL) {
        read_chunks(fd, ret);
    } else if (length != NULL) {
        size_t bytes = strtoul(length + strlen("\r\ncontent-length: "), NULL, 10);
        append(ret, bytes);
        while (ret->body_bytes < bytes) {
            ssize_t got = recv(fd, ret->body + ret->body_bytes, bytes - ret->body_bytes, 0);
            if (got <= 0) break;
            ret->body_bytes += (size_t)got;
        }
        ret->is_complete = ret->body_bytes == bytes;
    } else {
        read_to_end(fd, ret);
    }
    ret->body[ret->body_bytes] = '\0';
}

void answer_release(struct answer *a)
{
    free(a->body);
    a->body = NULL;
}

bool answer_has_header(const struct answer *a, const char *line)
{
    return strcasestr(a->head, line) != NULL;
}

bool is_closed(int fd)
{
    char scrap[4096];
    ssize_t got;
    int64_t before_ns = clock_monotonic_ns();
    do {
        got = recv(fd, scrap, sizeof(scrap), 0);
    } while (got > 0);
    return clock_monotonic_ns() - before_ns < 9 * NS_PER_S;
}

void ask(uint16_t port, const char *request, struct answer *ret)
{
    int fd = dial(port);
    send_text(fd, request);
    read_answer(fd, ret);
    (void)close(fd);
}
