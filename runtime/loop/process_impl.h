/* A child process, for process.c and process_run.c. */
#ifndef BALM_LOOP_PROCESS_IMPL_H
#define BALM_LOOP_PROCESS_IMPL_H

#include "loop/loop_impl.h"

#define PROCESS_EXIT_UNKNOWN 255 /* its status was taken from us */

struct process {
    struct list node; /* in loop->processes until reaped */
    pid_t pid;
    struct fiber_event exited;
    int exit_code; /* once has_exited */
    bool has_exited;
    bool is_abandoned; /* freed by its owner: to be reaped by the loop */
    bool is_leader;    /* of a session and group of its own */
    bool is_status_lost;
};

#endif
