/* Bots that misbehave, and one that does not: what an executable does is its name, so that copies of this one
 * program are as many functions.
 *
 *   good, segv, exit, hang, spin, memory, fork, bomb, log, slow   in a handler, on the runtime
 *   abort                                                         before anything listens
 *   refuse-term, not-http, bad-json, ...                          on a socket of their own: `wires` below
 *
 * BALM_TEST_MARKS names a file: each act adds "intent attempt monotonic-ns function began|ended" to it, which
 * is what an observer outside the platform counts by. BALM_TEST_PRELOAD: libraries for LD_PRELOAD. */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "balm.h"
#include "base/list.h"
#include "base/memory.h"

#define BIG_BYTES   ((size_t)100 << 20)
#define PIECE_BYTES ((size_t)64 << 10)
#define REQUEST_MAX 65536
#define LOG_BYTES   ((size_t)2 << 20)
#define CHILDREN    8
#define BOMB_MAX    300 /* processes that one bomb may ever make: this machine has other users */
#define ACT_MS      20

static void mark(const char *function, struct strview intent, unsigned attempt, const char *what)
{
    char line[512];
    const char *path = getenv("BALM_TEST_MARKS");
    int fd = path != NULL ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd < 0) return;
    int n = snprintf(line, sizeof(line), "%.*s %u %" PRId64 " %s %s\n", SV_ARG(intent), attempt,
                     clock_monotonic_ns(), function, what);
    if (write(fd, line, (size_t)n) != n) perror(path);
    (void)close(fd);
}

/* ---- in a handler ---- */

static void stand_still(void)
{
    for (;;)
        (void)pause();
}

static void take_all_memory(void)
{
    for (;;) {
        char *piece = malloc(PIECE_BYTES);
        if (piece == NULL) abort();
        memset(piece, 1, PIECE_BYTES);
    }
}

/* A daemon as the books have it: a session of its own, its parent gone. */
static void start_daemon(void)
{
    if (fork() != 0) return;
    (void)setsid();
    (void)signal(SIGTERM, SIG_IGN);
    (void)signal(SIGHUP, SIG_IGN);
    if (fork() != 0) _exit(0);
    stand_still();
}

static void start_children(void)
{
    for (int i = 0; i < CHILDREN; i++) {
        if (fork() == 0) stand_still();
        start_daemon();
    }
}

/* Each of them has children as long as there may be more, in sessions of their own. */
static void explode(void)
{
    static int *n_made; /* shared by all of them */
    n_made = mmap(NULL, sizeof(*n_made), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (n_made == MAP_FAILED) abort();
    for (;;) {
        if (__atomic_fetch_add(n_made, 1, __ATOMIC_RELAXED) >= BOMB_MAX) stand_still();
        if (fork() == 0) (void)setsid();
    }
}

static void talk(void)
{
    char line[PIECE_BYTES];
    memset(line, 'x', sizeof(line));
    line[sizeof(line) - 1] = '\n';
    for (size_t bytes = 0; bytes < 2 * LOG_BYTES; bytes += sizeof(line)) {
        if (bytes == LOG_BYTES) line[sizeof(line) - 1] = 'x'; /* a line without end from here on */
        if (write(STDERR_FILENO, line, sizeof(line)) < 0) return;
    }
}

static void misbehave(const char *name)
{
    volatile unsigned long turns = 0;
    if (strcmp(name, "segv") == 0) (void)raise(SIGSEGV);
    if (strcmp(name, "exit") == 0) _exit(1);
    if (strcmp(name, "hang") == 0) stand_still();
    if (strcmp(name, "memory") == 0) take_all_memory();
    if (strcmp(name, "fork") == 0) start_children();
    if (strcmp(name, "bomb") == 0) explode();
    if (strcmp(name, "log") == 0) talk();
    while (strcmp(name, "spin") == 0)
        turns++;
}

static enum status act(struct invocation *inv, const void *params, struct result *ret, struct error *err)
{
    const char *name = arena_cstr(inv->arena, inv->function);
    const char *slow_ms = getenv("BALM_TEST_ACT_MS");
    (void)params;
    mark(name, inv->intent, inv->attempt, "began");
    misbehave(name);
    enum status s = sleep_ms(slow_ms != NULL ? strtoul(slow_ms, NULL, 10) : ACT_MS);
    if (s != STATUS_OK) return error_set(err, s, "stopped");
    mark(name, inv->intent, inv->attempt, "ended");
    return result_done(ret, "done");
}

static int run_handler(const char *name, const char *manifest, int argc, char **argv)
{
    struct function_def def = {.name = name,
                               .summary = "a bot of the campaigns",
                               .acts = true,
                               .on_unknown = ON_UNKNOWN_RERUN,
                               .handle = act,
                               .manifest_json = manifest};
    return function_main(&def, argc, argv);
}

/* ---- on a socket of its own ---- */

static bool put(int fd, const char *bytes, size_t len)
{
    for (ssize_t n; len > 0; bytes += n, len -= (size_t)n)
        if ((n = send(fd, bytes, len, MSG_NOSIGNAL)) <= 0) return false;
    return true;
}

static bool put_text(int fd, const char *text)
{
    return put(fd, text, strlen(text));
}

static void put_much(int fd, size_t bytes, bool is_chunked)
{
    static char piece[PIECE_BYTES];
    memset(piece, 'y', sizeof(piece));
    for (; bytes > 0; bytes -= PIECE_BYTES) {
        if (is_chunked && !put_text(fd, "10000\r\n")) return;
        if (!put(fd, piece, sizeof(piece)) || (is_chunked && !put_text(fd, "\r\n"))) return;
    }
    if (is_chunked) (void)put_text(fd, "0\r\n\r\n");
}

static void put_slowly(int fd)
{
    if (!put_text(fd, "HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n")) return;
    while (put_text(fd, "."))
        (void)usleep(50000);
}

static void put_headers_without_end(int fd)
{
    if (!put_text(fd, "HTTP/1.1 200 OK\r\n")) return;
    for (size_t i = 0; i < BIG_BYTES / 64; i++)
        if (!put_text(fd, "x-more: 0123456789012345678901234567890123456789012345678901234\r\n")) return;
}

static const struct wire {
    const char *name, *answer; /* NULL: by hand, in answer_act() */
} wires[] = {
    {"refuse-term", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"},
    {"not-http", "SSH-2.0-OpenSSH_9.2\r\n\001\002\377\376 no HTTP here\r\n\r\n"},
    {"bad-status", "HTTP/1.1 999 What\r\ncontent-length: 0\r\n\r\n"},
    {"bad-json",
     "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{\"state\":\""},
    {"bad-schema", "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 42\r\n\r\n"
                   "{\"state\":[1],\"detail\":7,\"message\":{\"a\":{}}}"},
    {"bad-length", "HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello"},
    {"two-lengths", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 500\r\n\r\nhello"},
    {"bad-chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n"},
    {"close-at-once", ""},
    {"close-in-head", "HTTP/1.1 200 OK\r\ncontent-le"},
    {"close-in-body", "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhello"},
    {"close-in-chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n400\r\nhello"},
    {"no-answer", NULL},
    {"long-head", NULL},
    {"big-length", NULL},
    {"big-chunked", NULL},
    {"big-until-close", NULL},
    {"drip", NULL},
};

static const struct wire *find_wire(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(wires); i++)
        if (strcmp(wires[i].name, name) == 0) return &wires[i];
    return NULL;
}

static void answer_act(const struct wire *w, int fd)
{
    if (w->answer != NULL) {
        (void)put_text(fd, w->answer);
    } else if (strcmp(w->name, "no-answer") == 0) {
        char byte;
        (void)!recv(fd, &byte, 1, 0);
    } else if (strcmp(w->name, "long-head") == 0) {
        put_headers_without_end(fd);
    } else if (strcmp(w->name, "big-length") == 0) {
        if (put_text(fd, "HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n"))
            put_much(fd, BIG_BYTES, false);
    } else if (strcmp(w->name, "big-chunked") == 0) {
        if (put_text(fd, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"))
            put_much(fd, BIG_BYTES, true);
    } else if (strcmp(w->name, "big-until-close") == 0) {
        if (put_text(fd, "HTTP/1.1 200 OK\r\n\r\n")) put_much(fd, BIG_BYTES, false);
    } else {
        put_slowly(fd);
    }
}

/* The value of a header as the platform writes it (lower case, one blank), as text of its own. */
static struct strview header_of(const char *request, const char *name)
{
    const char *at = strstr(request, name);
    if (at == NULL) return SV("");
    at += strlen(name);
    return sv_n(at, strcspn(at, "\r\n"));
}

/* One request a connection; its head and small body come at once. */
static void serve(const struct wire *w, int fd)
{
    char request[REQUEST_MAX];
    ssize_t n = recv(fd, request, sizeof(request) - 1, 0);
    request[n > 0 ? n : 0] = '\0';
    if (strncmp(request, "GET ", 4) == 0) {
        (void)put_text(fd, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    } else if (n > 0) {
        struct strview attempt = header_of(request, "ce-balmattempt: ");
        uint64_t number = 0;
        (void)!sv_parse_u64(attempt, &number);
        mark(w->name, header_of(request, "ce-id: "), (unsigned)number, "began");
        answer_act(w, fd);
    }
    (void)shutdown(fd, SHUT_RDWR);
    (void)close(fd);
}

/* A process a connection: while one answer drips, the next act and the health question are served. */
static int run_wire(const struct wire *w)
{
    const char *listener = getenv("BALM_LISTEN_FD");
    int listen_fd = listener != NULL ? (int)strtol(listener, NULL, 10) : -1;
    (void)fcntl(listen_fd, F_SETFL, 0);
    (void)signal(SIGCHLD, SIG_IGN);
    if (strcmp(w->name, "refuse-term") == 0) (void)signal(SIGTERM, SIG_IGN);
    for (;;) {
        int fd = accept(listen_fd, NULL, NULL);
        if (fd < 0) return 1;
        if (fork() == 0) {
            serve(w, fd);
            _exit(0);
        }
        (void)close(fd);
    }
}

/* A deployment cannot set LD_PRELOAD, so what is to be put between this program and libc is put there by
 * itself.
 */
static void preload(char **argv)
{
    const char *library = getenv("BALM_TEST_PRELOAD");
    if (library == NULL || getenv("LD_PRELOAD") != NULL) return;
    (void)setenv("LD_PRELOAD", library, 1);
    (void)execv("/proc/self/exe", argv);
}

int main(int argc, char **argv)
{
    const char *slash = strrchr(argv[0], '/'), *name = slash != NULL ? slash + 1 : argv[0];
    char manifest[256];
    (void)snprintf(manifest, sizeof(manifest),
                   "{\"acts\":true,\"name\":\"%s\",\"on_unknown\":\"rerun\",\"timeout\":\"20s\"}", name);
    if (argc > 1 && strcmp(argv[1], "--describe") == 0) {
        (void)puts(manifest);
        return 0;
    }
    preload(argv);
    if (strcmp(name, "abort") == 0) abort();
    const struct wire *w = find_wire(name);
    return w != NULL ? run_wire(w) : run_handler(name, manifest, argc, argv);
}
