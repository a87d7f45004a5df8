#include "functions/dispatcher/table.h"

#include <criterion/criterion.h>
#include <stdio.h>

#include "base/random.h"

enum { KEYS = 500, STEPS = 100000 };

TestSuite(table, .timeout = 20);

Test(table, an_empty_one_finds_nothing)
{
    struct table t = {0};
    cr_assert_null(table_get(&t, SV("x")));
    cr_assert_null(table_remove(&t, SV("x")));
    table_release(&t);
}

Test(table, agrees_with_a_plain_array_through_random_puts_and_removes)
{
    static char keys[KEYS][16];
    void *expected[KEYS] = {0};
    struct table t = {0};
    struct random_seeded rng = {42};
    size_t n = 0;
    for (int i = 0; i < KEYS; i++)
        (void)snprintf(keys[i], sizeof(keys[i]), "k%d", i);
    for (int step = 0; step < STEPS; step++) {
        size_t i = random_seeded_below(&rng, KEYS);
        if (random_seeded_below(&rng, 2) == 0) {
            n += expected[i] == NULL;
            expected[i] = &keys[random_seeded_below(&rng, KEYS)];
            table_put(&t, sv(keys[i]), expected[i]);
        } else {
            cr_assert_eq(table_remove(&t, sv(keys[i])), expected[i]);
            n -= expected[i] != NULL;
            expected[i] = NULL;
        }
        cr_assert_eq(t.n, n);
        size_t k = random_seeded_below(&rng, KEYS);
        cr_assert_eq(table_get(&t, sv(keys[k])), expected[k]);
    }
    for (int i = 0; i < KEYS; i++)
        cr_assert_eq(table_get(&t, sv(keys[i])), expected[i]);
    table_release(&t);
}
