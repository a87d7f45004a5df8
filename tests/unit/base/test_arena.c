#include "base/arena.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>

#include "base/random.h"

Test(arena, zeroed_struct_is_an_empty_arena)
{
    struct arena a = {0};
    arena_reset(&a);
    arena_release(&a);
    char *p = arena_alloc(&a, 10);
    memset(p, 1, 10);
    arena_release(&a);
    cr_assert_null(a.chunks);
    cr_assert_eq(a.used_bytes, 0);
    (void)arena_alloc(&a, 1); /* usable again */
    arena_release(&a);
}

Test(arena, pieces_are_aligned_apart_and_unique_even_when_empty)
{
    struct arena a;
    arena_init(&a);
    char *last = NULL;
    for (size_t i = 0; i < 2000; i++) {
        char *p = arena_alloc(&a, i % 7);
        cr_assert_eq((uintptr_t)p % _Alignof(max_align_t), 0);
        cr_assert_neq(p, last);
        last = p;
    }
    arena_release(&a);
}

Test(arena, content_survives_any_mix_of_sizes)
{
    struct random_seeded r = {.state = random_below(UINT64_MAX)};
    uint64_t seed = r.state;
    struct arena a;
    arena_init(&a);
    for (int round = 0; round < 20; round++) {
        unsigned char *pieces[200];
        size_t sizes[200], sum = 0;
        for (size_t i = 0; i < 200; i++) {
            sizes[i] = random_seeded_below(&r, i % 20 == 0 ? 100000 : 300);
            pieces[i] = arena_alloc(&a, sizes[i]);
            memset(pieces[i], (int)i, sizes[i]);
            sum += sizes[i];
        }
        for (size_t i = 0; i < 200; i++)
            for (size_t k = 0; k < sizes[i]; k++)
                cr_assert_eq(pieces[i][k], i, "seed %lu round %d piece %zu", seed, round, i);
        cr_assert_geq(a.used_bytes, sum);
        arena_reset(&a);
        cr_assert_eq(a.used_bytes, 0);
    }
    arena_release(&a);
}

Test(arena, reset_keeps_one_chunk_that_the_next_use_fits_in)
{
    struct arena a;
    arena_init(&a);
    for (int i = 0; i < 300; i++)
        (void)arena_alloc(&a, 100);
    arena_reset(&a);
    struct arena_chunk *kept = a.chunks;
    cr_assert_not_null(kept);
    for (int i = 0; i < 150; i++)
        (void)arena_alloc(&a, 100);
    cr_assert_eq(a.chunks, kept);
    arena_release(&a);
}

Test(arena, reset_does_not_keep_a_big_piece)
{
    struct arena a;
    arena_init(&a);
    (void)arena_alloc(&a, 2 * ARENA_KEEP_BYTES);
    arena_reset(&a);
    cr_assert_null(a.chunks);
    arena_release(&a);
}

Test(arena, zalloc_and_array_are_zeroed_in_reused_memory)
{
    struct arena a;
    arena_init(&a);
    memset(arena_alloc(&a, 1000), 0xAA, 1000);
    arena_reset(&a);
    const char *p = arena_zalloc(&a, 500), *q = arena_array(&a, 25, 20);
    for (size_t i = 0; i < 500; i++)
        cr_assert(p[i] == 0 && q[i] == 0);
    arena_release(&a);
}

Test(arena, copies_end_in_nul_that_is_not_counted)
{
    struct arena a;
    arena_init(&a);
    struct strview copy = arena_copy(&a, sv_n("hello", 3));
    cr_assert(sv_eq(copy, SV("hel")));
    cr_assert_eq(copy.ptr[3], '\0');
    cr_assert_str_eq(arena_cstr(&a, (struct strview){NULL, 0}), "");
    arena_release(&a);
}

Test(arena, printf_gives_short_and_long_texts_whole)
{
    struct arena a;
    arena_init(&a);
    char filler[1000];
    memset(filler, 'x', sizeof(filler));
    for (int n = 250; n < 260; n++) { /* around the size of the stack copy */
        struct strview s = arena_printf(&a, "%.*s%d", n, filler, 7);
        cr_assert_eq(s.len, (size_t)n + 1);
        cr_assert(s.ptr[n - 1] == 'x' && s.ptr[n] == '7' && s.ptr[n + 1] == '\0');
    }
    cr_assert_eq(arena_printf(&a, "%s", "").len, 0);
    arena_release(&a);
}

Test(arena, overflowing_array_ends_the_process, .signal = SIGABRT)
{
    struct arena a = {0};
    (void)arena_array(&a, SIZE_MAX / 2, 3);
}
