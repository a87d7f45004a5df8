#include "peer.h"

#define MAX 1000

static enum status next(struct grpc_frames *f, struct arena *a, struct strview *io_bytes, struct strview *ret)
{
    struct error err;
    return grpc_frames_next(f, a, io_bytes, ret, &err);
}

/* Three messages, cut at both places. */
static void read_three(const char *bytes, size_t len, size_t first, size_t second)
{
    static const size_t lengths[] = {3, 0, 300};
    const size_t cuts[] = {0, first, second, len};
    struct arena a = {0};
    struct grpc_frames f = {.max_bytes = MAX};
    size_t n = 0;
    for (size_t part = 0; part < 3; part++) {
        struct strview rest = sv_n(bytes + cuts[part], cuts[part + 1] - cuts[part]), message;
        while (next(&f, &a, &rest, &message) == STATUS_OK) {
            cr_assert_lt(n, 3);
            cr_assert_eq(message.len, lengths[n], "%zu, cut at %zu and %zu", n, first, second);
            for (size_t i = 0; i < message.len; i++)
                cr_assert_eq(message.ptr[i], (char)('a' + n));
            n++;
        }
        cr_assert_eq(rest.len, 0);
    }
    cr_assert_eq(n, 3);
    cr_assert_not(grpc_frames_is_inside(&f));
    arena_release(&a);
}

Test(grpc_frames, borders_may_be_anywhere)
{
    char bytes[5 + 3 + 5 + 5 + 300] = {0, 0, 0, 0, 3, 'a', 'a', 'a', 0, 0, 0, 0, 0, 0, 0, 0, 1, 44};
    memset(bytes + 18, 'c', 300);
    for (size_t first = 0; first <= sizeof(bytes); first++)
        for (size_t second = first; second <= sizeof(bytes); second += second < 30 ? 1 : 29)
            read_three(bytes, sizeof(bytes), first, second);
}

static enum status read_prefix(uint8_t flag, uint32_t len, size_t *ret_used)
{
    const char prefix[] = {(char)flag, (char)(len >> 24), (char)(len >> 16), (char)(len >> 8), (char)len};
    struct strview bytes = sv_n(prefix, sizeof(prefix)), message;
    struct arena a = {0};
    struct grpc_frames f = {.max_bytes = MAX};
    enum status s = next(&f, &a, &bytes, &message);
    *ret_used = a.used_bytes;
    arena_release(&a);
    return s;
}

Test(grpc_frames, the_limit_is_checked_before_anything_is_taken)
{
    size_t used;
    cr_assert_eq(read_prefix(0, MAX, &used), STATUS_NOT_FOUND);
    cr_assert_geq(used, MAX);
    cr_assert_eq(read_prefix(0, MAX + 1, &used), STATUS_RESOURCE_EXHAUSTED);
    cr_assert_eq(used, 0);
    cr_assert_eq(read_prefix(0, UINT32_MAX, &used), STATUS_RESOURCE_EXHAUSTED);
    cr_assert_eq(used, 0);
}

Test(grpc_frames, flags_other_than_0_are_refused)
{
    size_t used;
    cr_assert_eq(read_prefix(0, 0, &used), STATUS_OK);
    for (unsigned flag = 1; flag < 256; flag++)
        cr_assert_eq(read_prefix((uint8_t)flag, 1, &used), STATUS_INTERNAL, "%u", flag);
}
