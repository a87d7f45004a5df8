#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Noreturn void mem_exhausted(size_t size)
{
    /* The log module may itself need memory of somebody, so the line is put together here. */
    char line[160];
    int n = snprintf(
        line, sizeof(line),
        "{\"level\":\"ERROR\",\"logger\":\"memory\",\"message\":\"out of memory\",\"bytes\":%zu}\n", size);
    ssize_t ignored = write(STDERR_FILENO, line, (size_t)n);
    (void)ignored;
    abort();
}

void *mem_alloc(size_t size)
{
    void *ptr = malloc(size ? size : 1);
    if (ptr == NULL) mem_exhausted(size);
    return ptr;
}

void *mem_zalloc(size_t n, size_t size)
{
    void *ptr = calloc(n ? n : 1, size ? size : 1);
    if (ptr == NULL) mem_exhausted(n * size);
    return ptr;
}

void *mem_realloc(void *ptr, size_t size)
{
    void *moved = realloc(ptr, size ? size : 1);
    if (moved == NULL) mem_exhausted(size);
    return moved;
}

char *mem_copy_text(const char *text)
{
    if (text == NULL) return NULL;
    size_t n = strlen(text) + 1;
    return memcpy(mem_alloc(n), text, n);
}

void mem_wipe(void *ptr, size_t size)
{
    if (size > 0) explicit_bzero(ptr, size);
}
