#include "base/random.h"

#include <criterion/criterion.h>
#include <sys/wait.h>
#include <unistd.h>
#include <string.h>

Test(random, bytes_fill_any_length)
{
    unsigned char zero[1000] = {0}, bytes[1002] = {0};
    random_bytes(bytes + 1, 1000);
    cr_assert(memcmp(bytes + 1, zero, 1000) != 0);
    cr_assert(bytes[0] == 0 && bytes[1001] == 0);
    random_bytes(bytes, 0);
}

Test(random, below_stays_below_and_reaches_all)
{
    unsigned seen[7] = {0};
    for (int i = 0; i < 7000; i++) {
        uint64_t v = random_below(7);
        cr_assert_lt(v, 7);
        seen[v]++;
    }
    for (int i = 0; i < 7; i++) /* 1000 expected, deviation 29: nine of them */
        cr_assert(seen[i] > 740 && seen[i] < 1260, "%d: %u", i, seen[i]);
    cr_assert_eq(random_below(0), 0);
    cr_assert_eq(random_below(1), 0);
}

Test(random, uuids_are_version_4_and_differ)
{
    char first[UUID_LEN + 1], second[UUID_LEN + 1];
    for (int round = 0; round < 200; round++) {
        random_uuid(first);
        cr_assert_eq(strlen(first), UUID_LEN);
        for (size_t i = 0; i < UUID_LEN; i++) {
            if (i == 8 || i == 13 || i == 18 || i == 23)
                cr_assert_eq(first[i], '-');
            else
                cr_assert(strchr("0123456789abcdef", first[i]) != NULL);
        }
        cr_assert_eq(first[14], '4');
        cr_assert(strchr("89ab", first[19]) != NULL);
    }
    random_uuid(second);
    cr_assert_str_neq(first, second);
}

/* They are fetched several at a time: a child must not go on with its parent's. */
Test(random, a_child_has_other_uuids_than_its_parent)
{
    char ours[UUID_LEN + 1], theirs[UUID_LEN + 1] = "";
    int fds[2];
    random_uuid(ours);
    cr_assert_eq(pipe(fds), 0);
    pid_t child = fork();
    if (child == 0) {
        random_uuid(ours);
        _exit(write(fds[1], ours, UUID_LEN) == UUID_LEN ? 0 : 1);
    }
    cr_assert_eq(read(fds[0], theirs, UUID_LEN), UUID_LEN);
    cr_assert_eq(waitpid(child, NULL, 0), child);
    random_uuid(ours);
    cr_assert_str_neq(ours, theirs);
    (void)close(fds[0]), (void)close(fds[1]);
}

Test(random, seeded_sequence_is_splitmix64)
{
    /* Output of the reference code for the seed 1234567, as listed by the Rosetta Code task. */
    static const uint64_t expected[] = {UINT64_C(6457827717110365317), UINT64_C(3203168211198807973),
                                        UINT64_C(9817491932198370423), UINT64_C(4593380528125082431),
                                        UINT64_C(16408922859458223821)};
    struct random_seeded r = {.state = 1234567};
    for (size_t i = 0; i < 5; i++)
        cr_assert_eq(random_seeded_next(&r), expected[i]);
}

Test(random, seeded_below_is_replayable_and_bounded)
{
    struct random_seeded a = {.state = 42}, b = {.state = 42};
    for (uint64_t bound = 0; bound < 2000; bound++) {
        uint64_t v = random_seeded_below(&a, bound);
        cr_assert_eq(v, random_seeded_below(&b, bound));
        cr_assert(bound == 0 ? v == 0 : v < bound);
    }
    for (int i = 0; i < 1000; i++) /* a bound for which every other draw is rejected */
        cr_assert_lt(random_seeded_below(&a, (UINT64_C(1) << 63) + 1), (UINT64_C(1) << 63) + 1);
}
