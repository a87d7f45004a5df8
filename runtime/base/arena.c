#include "base/arena.h"

#include <assert.h>
#include <stdalign.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"

/* Under ASan the unused rest of a chunk is poisoned and pieces lie apart, so that an overrun of one piece and
 * a use after reset are reported as they would be with malloc. */
#if defined(__SANITIZE_ADDRESS__)
#define ARENA_POISON 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_POISON 1
#endif
#endif
#ifdef ARENA_POISON
#include <sanitizer/asan_interface.h>
enum { GAP_BYTES = 16 };
#else
#define ASAN_POISON_MEMORY_REGION(ptr, size)   ((void)(ptr), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(ptr, size) ((void)(ptr), (void)(size))
enum { GAP_BYTES = 0 };
#endif

/* The first chunk holds an ordinary request; each further one doubles up to what a reset may keep. */
enum { ALIGN = alignof(max_align_t), FIRST_CHUNK_BYTES = 4096 };

struct arena_chunk {
    struct arena_chunk *next;
    size_t used, capacity; /* of data[] */
    alignas(max_align_t) char data[];
};

static struct arena_chunk *chunk_new(size_t capacity)
{
    struct arena_chunk *chunk = mem_alloc(sizeof(*chunk) + capacity);
    chunk->next = NULL;
    chunk->used = 0;
    chunk->capacity = capacity;
    ASAN_POISON_MEMORY_REGION(chunk->data, capacity);
    return chunk;
}

static void chunk_free(struct arena_chunk *chunk)
{
    ASAN_UNPOISON_MEMORY_REGION(chunk->data, chunk->capacity);
    free(chunk);
}

void arena_init(struct arena *a)
{
    *a = (struct arena){0};
}

void arena_release(struct arena *a)
{
    struct arena_chunk *chunk = a->chunks;
    while (chunk != NULL) {
        struct arena_chunk *next = chunk->next;
        chunk_free(chunk);
        chunk = next;
    }
    *a = (struct arena){0};
}

void arena_reset(struct arena *a)
{
    /* One chunk stays, the largest that may: the next use of the same size then needs no heap at all. */
    struct arena_chunk *kept = NULL, *next;
    for (struct arena_chunk *chunk = a->chunks; chunk != NULL; chunk = next) {
        next = chunk->next;
        bool is_better = sizeof(*chunk) + chunk->capacity <= ARENA_KEEP_BYTES &&
                         (kept == NULL || chunk->capacity > kept->capacity);
        struct arena_chunk *loser = is_better ? kept : chunk;
        if (is_better) kept = chunk;
        if (loser != NULL) chunk_free(loser);
    }
    if (kept != NULL) {
        ASAN_POISON_MEMORY_REGION(kept->data, kept->capacity);
        kept->next = NULL;
        kept->used = 0;
    }
    a->chunks = kept;
    a->used_bytes = 0;
}

static void *chunk_take(struct arena_chunk *chunk, size_t step, size_t size)
{
    void *piece = chunk->data + chunk->used;
    chunk->used += step;
    ASAN_UNPOISON_MEMORY_REGION(piece, size ? size : 1);
    return piece;
}

static __attribute__((noinline)) void *take_from_new_chunk(struct arena *a, size_t step, size_t size)
{
    size_t total = FIRST_CHUNK_BYTES;
    if (a->chunks != NULL) total = 2 * (sizeof(*a->chunks) + a->chunks->capacity);
    if (total > ARENA_KEEP_BYTES) total = ARENA_KEEP_BYTES;
    size_t capacity = total - sizeof(*a->chunks);
    if (step > capacity / 2 && a->chunks != NULL) {
        /* A big piece gets a chunk to itself, behind the newest, whose free rest stays in use. */
        struct arena_chunk *chunk = chunk_new(step);
        chunk->next = a->chunks->next;
        a->chunks->next = chunk;
        return chunk_take(chunk, step, size);
    }
    struct arena_chunk *chunk = chunk_new(step > capacity ? step : capacity);
    chunk->next = a->chunks;
    a->chunks = chunk;
    return chunk_take(chunk, step, size);
}

void *arena_alloc(struct arena *a, size_t size)
{
    if (size > SIZE_MAX / 2) mem_exhausted(size);
    size_t step = ((size ? size : 1) + GAP_BYTES + (ALIGN - 1)) & ~(size_t)(ALIGN - 1);
    a->used_bytes += step;
    struct arena_chunk *chunk = a->chunks;
    if (chunk != NULL && chunk->capacity - chunk->used >= step) return chunk_take(chunk, step, size);
    return take_from_new_chunk(a, step, size);
}

void *arena_zalloc(struct arena *a, size_t size)
{
    return memset(arena_alloc(a, size), 0, size);
}

void *arena_array(struct arena *a, size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes)) mem_exhausted(SIZE_MAX);
    return arena_zalloc(a, bytes);
}

char *arena_cstr(struct arena *a, struct strview s)
{
    char *copy = arena_alloc(a, s.len + 1);
    if (s.len > 0) memcpy(copy, s.ptr, s.len);
    copy[s.len] = '\0';
    return copy;
}

struct strview arena_copy(struct arena *a, struct strview s)
{
    return (struct strview){arena_cstr(a, s), s.len};
}

struct strview arena_join(struct arena *a, const struct strview parts[], size_t n)
{
    size_t len = 0;
    for (size_t i = 0; i < n; i++)
        len += parts[i].len;
    char *text = arena_alloc(a, len + 1), *at = text;
    for (size_t i = 0; i < n; i++) {
        if (parts[i].len > 0) memcpy(at, parts[i].ptr, parts[i].len);
        at += parts[i].len;
    }
    *at = '\0';
    return sv_n(text, len);
}

struct strview arena_printf(struct arena *a, const char *fmt, ...)
{
    /* Most texts are short: format once on the stack, and a second time only if that was too small. */
    char text[256];
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    assert(n >= 0);
    size_t len = (size_t)n;
    char *copy = arena_alloc(a, len + 1);
    if (len < sizeof(text))
        memcpy(copy, text, len + 1);
    else
        (void)vsnprintf(copy, len + 1, fmt, again);
    va_end(again);
    return (struct strview){copy, len};
}
