/* A server with its loop, and blocking sockets for a client that runs on a worker thread while the loop
 * turns. */
#ifndef BALM_TESTS_SERVER_HARNESS_H
#define BALM_TESTS_SERVER_HARNESS_H

#include "base/clock.h"
#include "server/server.h"

struct harness {
    struct loop *loop;
    struct server *server;
    uint16_t port;
    void *arg;
};

/* Loop up, server up, script as a fiber, server freed, loop freed (which fails on anything left open). */
void run_with_server(const struct server_cfg *cfg, void (*script)(struct harness *h), void *arg);

/* The rest is for worker threads: work_run(fn, arg). Reads give up after 10 s. */
int dial(uint16_t port);
void send_text(int fd, const char *text);
void send_bytes(int fd, const void *bytes, size_t n);

struct answer {
    int status; /* 0: the connection ended before an answer */
    char head[4096];
    char *body; /* owned by the caller */
    size_t body_bytes;
    bool is_complete; /* framing says that nothing is missing */
};
/* One HTTP/1 answer; what follows it stays unread. */
void read_answer(int fd, struct answer *ret);
void answer_release(struct answer *a);
bool answer_has_header(const struct answer *a, const char *line);
/* True if the peer closes (or resets) within 10 s; what comes before is dropped. */
bool is_closed(int fd);
/* Sends, reads one answer, closes. */
void ask(uint16_t port, const char *request, struct answer *ret);

#endif
