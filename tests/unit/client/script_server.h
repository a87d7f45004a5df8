/* A real HTTP peer on loopback that follows a script: each connection takes the next entry. Runs in a thread
 * of its own. */
#ifndef BALM_TESTS_SCRIPT_SERVER_H
#define BALM_TESTS_SCRIPT_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#define SCRIPT_MAX      128
#define SCRIPT_SEEN_MAX 8192

/* One request and what comes back. */
struct script_step {
    const char *answer; /* sent as it is; NULL: nothing */
    bool keeps_open;    /* the same connection takes the next step too; otherwise it is closed */
    int delay_ms;       /* before the answer */
    bool holds;         /* never answers, keeps the connection until script_stop() */
};

struct script_server;

struct script_server *script_start(const struct script_step *steps, unsigned n, const char *unix_path);
/* Joins the thread. */
void script_stop(struct script_server *s);
uint16_t script_port(const struct script_server *s);
/* Whole request number i (from 0) as it came, or "" */
const char *script_seen(struct script_server *s, unsigned i);
unsigned script_requests(struct script_server *s);
unsigned script_connections(struct script_server *s);

#endif
