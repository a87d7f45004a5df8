#include "function_process.h"

#include <arpa/inet.h>
#include <assert.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"

#define PATIENCE_MS 10000

static void run_child(const struct function_def *def, const char *const *env, const char *arg, int log_fd)
{
    char *argv[] = {(char *)(uintptr_t)def->name, (char *)(uintptr_t)arg, NULL};
    char tmp[4096];
    const char *inherited = getenv("TMPDIR");
    (void)snprintf(tmp, sizeof(tmp), "%s", inherited != NULL ? inherited : P_tmpdir);
    (void)clearenv();
    (void)setenv("TMPDIR", tmp, 1);
    for (; *env != NULL; env++)
        (void)putenv((char *)(uintptr_t)*env);
    (void)dup2(log_fd, STDERR_FILENO);
    (void)close(log_fd);
    int rc = function_main(def, arg != NULL ? 2 : 1, argv);
    (void)fflush(stdout);
    _exit(rc);
}

void function_spawn(struct function_process *p, const struct function_def *def, const char *const *env,
                    const char *arg)
{
    int fds[2];
    int rc = pipe(fds);
    assert(rc == 0);
    (void)rc;
    *p = (struct function_process){.log_fd = fds[0]};
    p->pid = fork();
    assert(p->pid >= 0);
    if (p->pid == 0) {
        (void)close(fds[0]);
        run_child(def, env, arg, fds[1]);
    }
    (void)close(fds[1]);
}

/* false at the end of the log. */
static bool read_log(struct function_process *p)
{
    struct pollfd fd = {.fd = p->log_fd, .events = POLLIN};
    if (p->log_len + 1 >= sizeof(p->log) || poll(&fd, 1, PATIENCE_MS) <= 0) return false;
    ssize_t n = read(p->log_fd, p->log + p->log_len, sizeof(p->log) - 1 - p->log_len);
    if (n <= 0) return false;
    p->log_len += (size_t)n;
    p->log[p->log_len] = '\0';
    return true;
}

bool function_log_has(struct function_process *p, const char *text)
{
    while (strstr(p->log, text) == NULL)
        if (!read_log(p)) return false;
    return true;
}

static uint16_t number_after(const char *log, const char *name)
{
    const char *at = strstr(log, name);
    return at != NULL ? (uint16_t)strtoul(at + strlen(name), NULL, 10) : 0;
}

void function_start(struct function_process *p, const struct function_def *def, const char *const *env)
{
    function_spawn(p, def, env, NULL);
    bool is_ready = function_log_has(p, "\"message\":\"ready\"");
    if (!is_ready) (void)fprintf(stderr, "no ready function: %s\n", p->log);
    assert(is_ready);
    (void)is_ready;
    const char *ready = strstr(p->log, "\"message\":\"ready\"");
    p->port = number_after(ready, "\"port\":");
    p->metrics_port = number_after(ready, "\"metrics_port\":");
}

int function_wait(struct function_process *p)
{
    int status = 0;
    int64_t end_ns = clock_monotonic_ns() + PATIENCE_MS * NS_PER_MS;
    while (read_log(p))
        continue;
    while (waitpid(p->pid, &status, WNOHANG) == 0) {
        if (clock_monotonic_ns() > end_ns) return -1;
        (void)poll(NULL, 0, 2);
    }
    p->pid = 0;
    (void)close(p->log_fd);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void function_kill(struct function_process *p)
{
    if (p->pid <= 0) return;
    (void)kill(p->pid, SIGKILL);
    (void)waitpid(p->pid, NULL, 0);
    (void)close(p->log_fd);
    p->pid = 0;
}

/* ---- HTTP ---- */

bool http_send(uint16_t port, const char *request, int *ret_fd)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = PATIENCE_MS / 1000};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (connect(fd, (struct sockaddr *)&a, sizeof(a)) != 0 ||
        send(fd, request, strlen(request), MSG_NOSIGNAL) != (ssize_t)strlen(request)) {
        (void)close(fd);
        return false;
    }
    *ret_fd = fd;
    return true;
}

bool http_receive(int fd, char ret_answer[ANSWER_MAX])
{
    size_t len = 0;
    ssize_t n;
    while ((n = recv(fd, ret_answer + len, ANSWER_MAX - 1 - len, 0)) > 0)
        len += (size_t)n;
    ret_answer[len] = '\0';
    (void)close(fd);
    return len > 0;
}

bool http_talk(uint16_t port, const char *request, char ret_answer[ANSWER_MAX])
{
    int fd;
    ret_answer[0] = '\0';
    return http_send(port, request, &fd) && http_receive(fd, ret_answer);
}

int http_get(uint16_t port, const char *path, char ret_answer[ANSWER_MAX])
{
    char request[512];
    (void)snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: f\r\nConnection: close\r\n\r\n", path);
    return http_talk(port, request, ret_answer) ? http_status(ret_answer) : 0;
}

int http_status(const char *answer)
{
    return strncmp(answer, "HTTP/1.1 ", 9) == 0 ? (int)strtol(answer + 9, NULL, 10) : 0;
}

const char *http_body(const char *answer)
{
    const char *end = strstr(answer, "\r\n\r\n");
    return end != NULL ? end + 4 : "";
}
