/* Shared by journal_sqlite.c (the loop's side) and journal_writer.c (the writer thread) alone. */
#ifndef BALM_STORE_JOURNAL_SQLITE_IMPL_H
#define BALM_STORE_JOURNAL_SQLITE_IMPL_H

#include <pthread.h>

#include "loop/loop.h"
#include "store/journal_impl.h"

enum { JOURNAL_IDLE_READERS_MAX = 4 };

enum writer_state { WRITER_RUNNING, WRITER_FAILED, WRITER_REOPENED };

/* What the writer has to tell; newer news replace older ones of the same kind. */
struct news {
    bool has_committed, has_failed, has_reopened;
    unsigned n_commits;
    struct journal_position reached;
    uint64_t reached_seq, reopened_seq;
    int64_t unix_ns;
    char why[ERROR_MESSAGE_MAX];
};

struct sqlite_journal {
    struct journal base;
    char *dir;
    size_t segment_max_bytes;
    pthread_t thread;
    struct journal_leases *leases;
    struct reserve *reserve; /* NULL: none */

    pthread_mutex_t lock;
    pthread_cond_t wake;
    /* under lock */
    enum writer_state state;
    bool is_stopping, is_asleep, is_posted, wants_roll;
    struct journal_position published;
    struct news news;
    struct loop_post post; /* linked while is_posted */

    /* the writer's */
    struct journal_segment *segment;
    struct journal_position taken;
    uint64_t acked_seq;
    int64_t tend_ns; /* when the reserve is looked at next */

    /* the loop's */
    struct loop_deferred publishing; /* linked while something was appended in this turn */
    struct journal_reader *idle_readers[JOURNAL_IDLE_READERS_MAX];
    size_t n_idle_readers;
    uint64_t readers_generation; /* when these were opened: after a reset the files may be others */
};

/* The thread's life: until is_stopping, and all that was published is written. arg: the journal. */
void *journal_writer_main(void *arg);

#endif
