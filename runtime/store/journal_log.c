#include "store/journal_impl.h"

#include <string.h>

#include "base/memory.h"

static struct journal_chunk *chunk_new(size_t capacity)
{
    struct journal_chunk *c = mem_alloc(sizeof(*c) + capacity);
    c->next = NULL;
    c->used = 0;
    c->capacity = capacity;
    return c;
}

static void chunk_recycle(struct journal_log *log, struct journal_chunk *c)
{
    if (log->spare != NULL || c->capacity != JOURNAL_CHUNK_BYTES) {
        free(c);
        return;
    }
    c->next = NULL;
    c->used = 0;
    log->spare = c;
}

static struct journal_chunk *chunk_take(struct journal_log *log, size_t need)
{
    if (need > JOURNAL_CHUNK_BYTES) return chunk_new(need);
    struct journal_chunk *c = log->spare;
    log->spare = NULL;
    return c != NULL ? c : chunk_new(JOURNAL_CHUNK_BYTES);
}

static size_t frame_size(size_t bytes_len)
{
    size_t align = alignof(struct journal_frame);
    return (sizeof(struct journal_frame) + bytes_len + align - 1) & ~(align - 1);
}

void journal_log_init(struct journal_log *log)
{
    *log = (struct journal_log){.head = chunk_new(JOURNAL_CHUNK_BYTES)};
    log->end.chunk = log->head;
}

void journal_log_release(struct journal_log *log)
{
    for (struct journal_chunk *c = log->head, *next; c != NULL; c = next) {
        next = c->next;
        free(c);
    }
    free(log->spare);
    *log = (struct journal_log){0};
}

struct journal_frame *journal_log_push(struct journal_log *log, uint64_t seq, struct strview bytes)
{
    size_t size = frame_size(bytes.len);
    struct journal_chunk *c = log->end.chunk;
    if (c->capacity - c->used < size) {
        c->next = chunk_take(log, size);
        c = c->next;
    }
    struct journal_frame *f = (struct journal_frame *)(void *)(c->data + c->used);
    *f = (struct journal_frame){.seq = seq, .bytes_len = (uint32_t)bytes.len};
    if (bytes.len > 0) memcpy(f->bytes, bytes.ptr, bytes.len);
    c->used += size;
    log->end = (struct journal_position){c, c->used, log->end.total_bytes + bytes.len};
    return f;
}

void journal_log_cut(struct journal_log *log, struct journal_position end)
{
    for (struct journal_chunk *c = end.chunk->next, *next; c != NULL; c = next) {
        next = c->next;
        chunk_recycle(log, c);
    }
    end.chunk->next = NULL;
    end.chunk->used = end.offset;
    log->end = end;
}

void journal_log_drop(struct journal_log *log, struct journal_position at)
{
    while (log->head != at.chunk) {
        struct journal_chunk *c = log->head;
        log->head = c->next;
        chunk_recycle(log, c);
    }
}

void journal_log_clear(struct journal_log *log)
{
    journal_log_release(log);
    journal_log_init(log);
}

struct journal_frame *journal_log_next(struct journal_position *at, struct journal_position end)
{
    /* `used` of a chunk that is not the last published one is final; of the last one only `end` may be
     * trusted. */
    while (at->chunk != end.chunk && at->offset == at->chunk->used) {
        at->chunk = at->chunk->next;
        at->offset = 0;
    }
    if (at->chunk == end.chunk && at->offset == end.offset) return NULL;
    struct journal_frame *f = (struct journal_frame *)(void *)(at->chunk->data + at->offset);
    at->offset += frame_size(f->bytes_len);
    at->total_bytes += f->bytes_len;
    return f;
}
