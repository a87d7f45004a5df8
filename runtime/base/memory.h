/* The heap for small bounded pieces: never NULL. Running out ends the process with one line on stderr,
 * because nothing here can go on without them; whatever a peer sizes is limited at the border that reads it
 * instead. */
#ifndef BALM_BASE_MEMORY_H
#define BALM_BASE_MEMORY_H

#include <stddef.h>

/* Freed by free(). size 0 gives a pointer that can be freed. */
void *mem_alloc(size_t size) __attribute__((malloc, returns_nonnull));
/* Of a C string; NULL for NULL. Freed by free(). */
char *mem_copy_text(const char *text);
/* n × size zeroed; an overflow of the product ends the process. */
void *mem_zalloc(size_t n, size_t size) __attribute__((malloc, returns_nonnull));
void *mem_realloc(void *ptr, size_t size) __attribute__((returns_nonnull));
_Noreturn void mem_exhausted(size_t size);
/* Overwrite `size` bytes in a way the compiler keeps: for secrets that are released. NULL with size 0 is
 * fine. */
void mem_wipe(void *ptr, size_t size);

#endif
