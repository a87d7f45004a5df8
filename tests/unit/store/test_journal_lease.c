#include "store/journal_impl.h"

#include <criterion/criterion.h>
#include <unistd.h>

#include "base/clock.h"

static char dir[1024];
static struct journal_leases *leases;

static void set_up(void)
{
    const char *tmp = getenv("TMPDIR");
    struct error err;
    (void)snprintf(dir, sizeof(dir), "%s/balm-lease-XXXXXX", tmp != NULL ? tmp : "/tmp");
    cr_assert_not_null(mkdtemp(dir));
    cr_assert_eq(journal_leases_open(dir, &leases, &err), STATUS_OK, "%s", err.message);
}

static void tear_down(void)
{
    char path[2048];
    journal_leases_close(leases);
    (void)snprintf(path, sizeof(path), "%s/leases.db", dir);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(rmdir(dir), 0, "a clean close leaves no WAL");
}

TestSuite(journal_lease, .init = set_up, .fini = tear_down, .timeout = 120);

static enum status acquire(unsigned key, int64_t now_ns, int64_t ttl_ns, uint64_t *ret_revision)
{
    char name[16];
    (void)snprintf(name, sizeof(name), "key-%u", key);
    return journal_leases_acquire(leases, sv(name), SV("holder"), now_ns, ttl_ns, ret_revision, NULL);
}

Test(journal_lease, an_expired_lease_gets_a_new_revision_even_for_its_old_holder)
{
    uint64_t one = 0, two = 0, three = 0;
    cr_assert_eq(acquire(1, 1000, 100, &one), STATUS_OK);
    cr_assert_eq(acquire(1, 1099, 100, &two), STATUS_OK);
    cr_assert_eq(two, one, "renewed in time");
    cr_assert_eq(acquire(1, 1199, 100, &three), STATUS_OK);
    cr_assert_gt(three, one, "at 1199 it had run out: somebody else might have had it");
}

Test(journal_lease, a_time_to_live_beyond_all_time_is_kept)
{
    uint64_t revision, other = 0;
    cr_assert_eq(acquire(1, clock_unix_ns(), INT64_MAX, &revision), STATUS_OK);
    cr_assert_eq(journal_leases_acquire(leases, SV("key-1"), SV("b"), clock_unix_ns(), 1, &other, NULL),
                 STATUS_ALREADY_EXISTS);
    cr_assert_eq(other, 0);
}

Test(journal_lease, the_number_of_keys_is_bounded_and_expired_ones_make_room)
{
    uint64_t revision, last = 0;
    for (unsigned i = 0; i < JOURNAL_LEASES_MAX; i++)
        cr_assert_eq(acquire(i, 1000, i == 7 ? 10 : 1000, &revision), STATUS_OK);
    cr_assert_eq(acquire(JOURNAL_LEASES_MAX, 1005, 1000, &last), STATUS_RESOURCE_EXHAUSTED);
    cr_assert_eq(acquire(3, 1005, 1000, &last), STATUS_OK, "a held one can still be renewed");
    cr_assert_eq(acquire(JOURNAL_LEASES_MAX, 1010, 1000, &last), STATUS_OK, "key 7 has expired");
    cr_assert_gt(last, revision);
    cr_assert_eq(acquire(JOURNAL_LEASES_MAX + 1, 1010, 1000, &last), STATUS_RESOURCE_EXHAUSTED);
}
