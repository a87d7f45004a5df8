/* Memory that dies together: one arena an invocation, a request, a parse.
 *
 * Allocation is a pointer bump in chunks from the heap; nothing is freed on its own. Chunks are kept on reset
 * up to ARENA_KEEP_BYTES. arena_alloc never returns NULL: what a peer sizes is limited at the border that
 * read it, and out of memory for the rest ends the process with one line. One thread at a time. */
#ifndef BALM_BASE_ARENA_H
#define BALM_BASE_ARENA_H

#include <stdarg.h>
#include <stddef.h>

#include "base/strview.h"

#define ARENA_KEEP_BYTES (64 * 1024)

struct arena {
    struct arena_chunk *chunks; /* newest first; NULL until first use */
    size_t used_bytes;          /* handed out since init or reset, for limits and tests */
};

/* A zeroed struct is a valid empty arena. */
void arena_init(struct arena *a);
void arena_release(struct arena *a); /* frees all; the arena is empty and usable again */
void arena_reset(struct arena *a);   /* drops the content, keeps some memory */
/* `size` bytes aligned for any type, not zeroed. size 0 gives a unique valid pointer. */
void *arena_alloc(struct arena *a, size_t size);
void *arena_zalloc(struct arena *a, size_t size);
/* n × size with the multiplication checked (overflow ends the process), zeroed. */
void *arena_array(struct arena *a, size_t n, size_t size);
/* Copy that lives in the arena; also NUL-terminated (the NUL is not counted). */
struct strview arena_copy(struct arena *a, struct strview s);
char *arena_cstr(struct arena *a, struct strview s);
/* The parts behind one another, as arena_copy(). */
struct strview arena_join(struct arena *a, const struct strview parts[], size_t n);
struct strview arena_printf(struct arena *a, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
