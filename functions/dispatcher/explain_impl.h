/* Shared by explain.c (the records, the document) and explain_standing.c (where it stands) alone. */
#ifndef BALM_DISPATCHER_EXPLAIN_IMPL_H
#define BALM_DISPATCHER_EXPLAIN_IMPL_H

#include "functions/dispatcher/explain.h"

struct explained {
    uint64_t seq;
    struct record record; /* in the arena */
};

struct explain {
    struct arena arena;
    struct strview incident;
    struct explained *items; /* owned */
    size_t n, capacity, n_omitted;
    int64_t now_ns; /* when it is looked at */
    /* Acting is stopped, since then, by whom (in the arena). */
    bool is_stopped;
    int64_t stopped_ns;
    struct strview stopped_by;
};

/* For telling a person. */
bool explain_is_escalation(const struct record *r);
/* By the bot that comes after the repair. */
bool explain_is_follow_up(const struct record *r);
bool explain_is_shadow(const struct record *r);
/* Sets "what", "next" and "run" of the document. Texts are made in the arena. */
void explain_put_standing(const struct explain *x, json_t *root, struct arena *a);

#endif
