/* A function as a real process on loopback: function_main() in a child, its environment, signals and log;
 * HTTP by plain sockets. */
#ifndef BALM_TESTS_FUNCTION_PROCESS_H
#define BALM_TESTS_FUNCTION_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "function/function.h"

#define ANSWER_MAX 65536

struct function_process {
    pid_t pid;
    int log_fd; /* its stderr */
    uint16_t port, metrics_port;
    char log[65536]; /* what was read of it */
    size_t log_len;
};

/* Start without waiting. env: NULL-terminated "NAME=value"; nothing else is inherited but TMPDIR. arg: one
 * option or NULL. */
void function_spawn(struct function_process *p, const struct function_def *def, const char *const *env,
                    const char *arg);
/* Start with port 0 and wait for "ready". */
void function_start(struct function_process *p, const struct function_def *def, const char *const *env);
/* Reads the log until `text` is in it. false: not within 10 s, or the process ended without it. */
bool function_log_has(struct function_process *p, const char *text);
/* Waits for its end (10 s): exit code, or 128 + signal. Reads the rest of the log. */
int function_wait(struct function_process *p);
/* SIGKILL and reap, where a test has not. */
void function_kill(struct function_process *p);

/* One request on a connection of its own. Whole answer, NUL-terminated, in `ret_answer`; false: no
 * connection. */
bool http_send(uint16_t port, const char *request, int *ret_fd);
bool http_receive(int fd, char ret_answer[ANSWER_MAX]);
bool http_talk(uint16_t port, const char *request, char ret_answer[ANSWER_MAX]);
/* GET path; the status, 0 without connection. */
int http_get(uint16_t port, const char *path, char ret_answer[ANSWER_MAX]);
int http_status(const char *answer);
const char *http_body(const char *answer);

#endif
