#include "fiber/fiber_impl.h"

#include <assert.h>
#include <sys/mman.h>
#include <unistd.h>

#if FIBER_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/lsan_interface.h>
#endif
#if FIBER_TSAN
#include <sanitizer/tsan_interface.h>
#endif
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#else
#define VALGRIND_STACK_REGISTER(low, high) 0
#define VALGRIND_STACK_DEREGISTER(id)      ((void)(id))
#endif

#define CACHE_LINE    64
#define SAMPLED_BYTES 4096
#define SAMPLE_BYTES  256 /* one word looked at in so many */

static size_t guard_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* Mapping:   | guard page | stack_low ...  usable stack, grows down ... | struct fiber |
 *              no access    <------------------- FIBER_STACK_BYTES -------------------> */
static struct fiber *at_top_of(char *stack_low)
{
    size_t size = (sizeof(struct fiber) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    return (struct fiber *)(void *)(stack_low + FIBER_STACK_BYTES - size);
}

size_t fiber_stack_bytes(const struct fiber *f)
{
    return (size_t)((const char *)f - f->stack_low);
}

struct fiber *fiber_stack_map(void)
{
    size_t guard = guard_bytes();
    char *base = mmap(NULL, guard + FIBER_STACK_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (base == MAP_FAILED) return NULL;
    if (mprotect(base, guard, PROT_NONE) != 0) {
        (void)munmap(base, guard + FIBER_STACK_BYTES);
        return NULL;
    }
    struct fiber *f = at_top_of(base + guard);
    f->stack_low = base + guard;
    f->valgrind_id = (unsigned)VALGRIND_STACK_REGISTER(f->stack_low, f->stack_low + FIBER_STACK_BYTES);
#if FIBER_TSAN
    f->tsan_fiber = __tsan_create_fiber(0);
#endif
    return f;
}

void fiber_stack_unmap(struct fiber *f)
{
    size_t guard = guard_bytes();
    VALGRIND_STACK_DEREGISTER(f->valgrind_id);
#if FIBER_TSAN
    __tsan_destroy_fiber(f->tsan_fiber);
#endif
    int rc = munmap(f->stack_low - guard, guard + FIBER_STACK_BYTES);
    assert(rc == 0);
    (void)rc;
}

void fiber_stack_drop_far_pages(struct fiber *f)
{
    (void)madvise(f->stack_low, FIBER_STACK_BYTES - FIBER_STACK_KEEP_BYTES, MADV_DONTNEED);
}

/* A deep call leaves addresses all over the first 4 KiB beyond what is kept. A few samples cost about 10 ns
 * and commit nothing (an untouched page reads as the kernel's zero page); an madvise on every return would
 * cost 360 ns. A single frame that skips them unseen is left to trimming. */
__attribute__((no_sanitize("address", "thread", "undefined"))) static bool looks_deep(const struct fiber *f)
{
    const char *end = f->stack_low + FIBER_STACK_BYTES - FIBER_STACK_KEEP_BYTES;
    uint64_t seen = 0;
    for (const char *at = end - SAMPLED_BYTES; at < end; at += SAMPLE_BYTES)
        seen |= *(const volatile uint64_t *)(const volatile void *)at;
    return seen != 0;
}

/* LeakSanitizer scans the stacks of suspended fibers, but not what dead ones left behind in pooled stacks:
 * that would hide leaks. */
void fiber_stack_acquired(struct fiber *f)
{
#if FIBER_ASAN
    __lsan_register_root_region(f->stack_low, FIBER_STACK_BYTES);
#else
    (void)f;
#endif
}

void fiber_stack_returned(struct fiber *f)
{
#if FIBER_ASAN
    __lsan_unregister_root_region(f->stack_low, FIBER_STACK_BYTES);
    __asan_unpoison_memory_region(f->stack_low, fiber_stack_bytes(f)); /* frames that never returned */
#endif
    if (looks_deep(f)) fiber_stack_drop_far_pages(f);
}
