/* The newest output of a function: whole lines in a ring of bytes. A record is a header and its text, never
 * split; the oldest make room. */
#include "gateway/gateway_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

struct entry {
    uint32_t len;
    uint32_t replica;
    int64_t time_unix_ns;
};

struct function_log {
    char *bytes;       /* owned, FUNCTION_LOG_BYTES; made with the first line: most functions say nothing */
    size_t begin, end; /* of the records, which lie one after another without wrapping */
    uint64_t first, last; /* numbers of the oldest and newest line; first > last: none */
    uint64_t seen;        /* a line and where it lies: readers go on from there instead of from the first */
    size_t seen_at;
    struct fiber_event added;
};

struct function_log *function_log_new(void)
{
    struct function_log *log = mem_zalloc(1, sizeof(*log));
    log->first = log->seen = 1;
    fiber_event_init(&log->added);
    return log;
}

void function_log_free(struct function_log *log)
{
    if (log == NULL) return;
    free(log->bytes);
    free(log);
}

static struct entry entry_at(const struct function_log *log, size_t at)
{
    struct entry e;
    memcpy(&e, log->bytes + at, sizeof(e));
    return e;
}

static void drop_oldest(struct function_log *log)
{
    log->begin += sizeof(struct entry) + entry_at(log, log->begin).len;
    log->first++;
    if (log->seen >= log->first) return;
    log->seen = log->first;
    log->seen_at = log->begin;
}

void function_log_add(struct function_log *log, unsigned replica, int64_t time_unix_ns, struct strview line)
{
    size_t need = sizeof(struct entry) + line.len;
    if (need > FUNCTION_LOG_BYTES / 4) return;
    if (log->bytes == NULL) log->bytes = mem_alloc(FUNCTION_LOG_BYTES);
    if (log->end + need > FUNCTION_LOG_BYTES) { /* half of it goes at once, so that moving is rare */
        while (log->first <= log->last && log->end - log->begin + need > FUNCTION_LOG_BYTES / 2)
            drop_oldest(log);
        memmove(log->bytes, log->bytes + log->begin, log->end - log->begin);
        log->end -= log->begin;
        log->seen_at -= log->begin;
        log->begin = 0;
    }
    struct entry e = {.len = (uint32_t)line.len, .replica = replica, .time_unix_ns = time_unix_ns};
    memcpy(log->bytes + log->end, &e, sizeof(e));
    memcpy(log->bytes + log->end + sizeof(e), line.ptr, line.len);
    log->end += need;
    log->last++;
    fiber_event_set(&log->added);
}

bool function_log_get(struct function_log *log, uint64_t number, struct function_log_line *ret_line)
{
    if (number < log->first) number = log->first;
    if (number > log->last) return false;
    if (number < log->seen) {
        log->seen = log->first;
        log->seen_at = log->begin;
    }
    size_t at = log->seen_at;
    for (uint64_t n = log->seen; n < number; n++)
        at += sizeof(struct entry) + entry_at(log, at).len;
    log->seen = number;
    log->seen_at = at;
    struct entry e = entry_at(log, at);
    *ret_line = (struct function_log_line){.number = number,
                                           .time_unix_ns = e.time_unix_ns,
                                           .replica = e.replica,
                                           .text = sv_n(log->bytes + at + sizeof(e), e.len)};
    return true;
}

uint64_t function_log_last(const struct function_log *log)
{
    return log->last;
}

struct fiber_event *function_log_event(struct function_log *log)
{
    return &log->added;
}
