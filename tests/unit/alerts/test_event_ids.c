#include "functions/alerts/event_ids.h"

#include <criterion/criterion.h>

static struct event_ids *ids;

static void set_up(void)
{
    ids = event_ids_new();
}

static void tear_down(void)
{
    event_ids_free(ids);
}

TestSuite(event_ids, .init = set_up, .fini = tear_down);

Test(event_ids, event_is_known_by_source_and_id)
{
    uint64_t key = event_ids_key(SV("/a"), SV("1"));
    cr_assert_not(event_ids_has(ids, key));
    event_ids_add(ids, key);
    event_ids_add(ids, key);
    cr_assert(event_ids_has(ids, key));
    cr_assert_eq(event_ids_count(ids), 1);
    cr_assert_eq(event_ids_at(ids, 0), key);
    cr_assert_not(event_ids_has(ids, event_ids_key(SV("/a"), SV("2"))));
    cr_assert_not(event_ids_has(ids, event_ids_key(SV("/a1"), SV(""))));
}

Test(event_ids, no_key_is_never_known)
{
    event_ids_add(ids, 0);
    cr_assert_not(event_ids_has(ids, 0));
    cr_assert_eq(event_ids_count(ids), 0);
}

/* Neighbouring keys: long runs of taken slots, and every gap in them is closed. */
Test(event_ids, oldest_is_forgotten_for_one_more)
{
    for (uint64_t key = 1; key <= 3 * (uint64_t)EVENT_IDS_MAX; key++)
        event_ids_add(ids, key / 3 * ((uint64_t)EVENT_IDS_MAX / 2) + key);
    cr_assert_eq(event_ids_count(ids), EVENT_IDS_MAX);
    for (size_t i = 0; i < EVENT_IDS_MAX; i++)
        cr_assert(event_ids_has(ids, event_ids_at(ids, i)), "%zu", i);
    uint64_t oldest = event_ids_at(ids, 0), next = event_ids_at(ids, 1);
    event_ids_add(ids, UINT64_MAX);
    cr_assert_not(event_ids_has(ids, oldest));
    cr_assert(event_ids_has(ids, next));
    cr_assert(event_ids_has(ids, UINT64_MAX));
}
