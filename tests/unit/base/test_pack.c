#include "base/pack.h"

#include <criterion/criterion.h>

#include "base/random.h"

static const uint64_t borders[] = {0,          1,         127,        128,        16383,         16384,
                                   UINT32_MAX, INT64_MAX, 1ULL << 63, UINT64_MAX, UINT64_MAX - 1};
#define N_BORDERS (sizeof(borders) / sizeof(borders[0]))

Test(pack, what_goes_in_comes_out)
{
    struct pack p;
    struct unpack u;
    pack_init(&p, NULL, NULL);
    for (size_t i = 0; i < N_BORDERS; i++) {
        pack_u64(&p, borders[i]);
        pack_i64(&p, (int64_t)borders[i]);
    }
    pack_bool(&p, true);
    pack_bool(&p, false);
    pack_text(&p, SV(""));
    pack_text(&p, SV("a\0b"));
    unpack_init(&u, pack_view(&p));
    for (size_t i = 0; i < N_BORDERS; i++) {
        cr_assert_eq(unpack_u64(&u), borders[i]);
        cr_assert_eq(unpack_i64(&u), (int64_t)borders[i]);
    }
    cr_assert(unpack_bool(&u));
    cr_assert(!unpack_bool(&u));
    cr_assert_eq(unpack_text(&u).len, 0);
    cr_assert(!unpack_is_good(&u), "something is left");
    cr_assert(sv_eq(unpack_text(&u), SV("a\0b")));
    cr_assert(unpack_is_good(&u));
    pack_release(&p);
}

static bool collect(void *arg, const void *bytes, size_t n)
{
    pack_bytes(arg, bytes, n);
    return true;
}

static bool refuse(void *arg, const void *bytes, size_t n)
{
    (void)arg, (void)bytes, (void)n;
    return false;
}

Test(pack, a_sink_gets_everything_in_pieces)
{
    struct pack p, all, memory;
    static char large[300000];
    memset(large, 'x', sizeof(large));
    pack_init(&memory, NULL, NULL);
    pack_init(&all, NULL, NULL);
    pack_init(&p, collect, &all);
    for (uint64_t i = 0; i < 100000; i++) {
        pack_u64(&p, i * i);
        pack_u64(&memory, i * i);
    }
    pack_text(&p, sv_n(large, sizeof(large)));
    pack_text(&memory, sv_n(large, sizeof(large)));
    cr_assert_eq(pack_position(&p), pack_position(&memory));
    cr_assert(pack_flush(&p));
    cr_assert(sv_eq(pack_view(&all), pack_view(&memory)));
    pack_release(&p);
    pack_release(&all);
    pack_release(&memory);
    pack_init(&p, refuse, NULL);
    pack_text(&p, sv_n(large, sizeof(large)));
    cr_assert(!pack_flush(&p));
    cr_assert(!pack_flush(&p), "and it stays so");
    pack_release(&p);
}

Test(unpack, what_is_cut_short_gives_zeros_and_is_bad)
{
    struct pack p;
    pack_init(&p, NULL, NULL);
    pack_u64(&p, 1ULL << 40);
    pack_text(&p, SV("hello"));
    struct strview whole = pack_view(&p);
    for (size_t len = 0; len < whole.len; len++) {
        struct unpack u;
        unpack_init(&u, sv_sub(whole, 0, len));
        (void)unpack_u64(&u);
        cr_assert_eq(unpack_text(&u).len, 0);
        cr_assert_eq(unpack_u64(&u), 0);
        cr_assert(!unpack_is_good(&u));
    }
    pack_release(&p);
}

Test(unpack, no_number_is_taken_at_its_word)
{
    static const char too_long[] = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", /* over 64 bits */
        endless[] = "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", count[] = "\xff\xff\xff\x07xyz",
                      not_bool[] = "\x02";
    struct unpack u;
    unpack_init(&u, sv_n(too_long, sizeof(too_long) - 1));
    cr_assert_eq(unpack_u64(&u), 0);
    cr_assert(u.is_bad);
    unpack_init(&u, sv_n(endless, sizeof(endless) - 1));
    cr_assert_eq(unpack_u64(&u), 0);
    cr_assert(u.is_bad);
    unpack_init(&u, sv_n(count, sizeof(count) - 1));
    cr_assert_eq(unpack_count(&u), 0, "more items than bytes");
    cr_assert(u.is_bad);
    unpack_init(&u, sv_n(not_bool, sizeof(not_bool) - 1));
    cr_assert(!unpack_bool(&u));
    cr_assert(u.is_bad);
}
