/* The contract of journal.h as tests that any store must pass. A store's file fills a struct journal_contract
 * and names the tests for Criterion through JOURNAL_CONTRACT_TESTS; each runs on a loop of its own, in a
 * fiber, on an empty store:
 *
 *   #define CONTRACT_TEST(name) Test(journal_x, name) { journal_contract_run(&x, contract_##name); }
 *   JOURNAL_CONTRACT_TESTS(CONTRACT_TEST)
 *
 * Nothing here relies on followers running before or after the record is durable (journal.h: a store may
 * assign sequences with its acknowledgement). */
#ifndef BALM_TESTS_CONTRACT_JOURNAL_CONTRACT_H
#define BALM_TESTS_CONTRACT_JOURNAL_CONTRACT_H

#include "store/journal.h"

struct journal_contract {
    const char *name;
    struct loop *loop; /* of the test under way */
    void *arg;         /* the store's */
    /* A new empty place for the test, in its process; and its removal. */
    void (*create)(struct journal_contract *c);
    void (*destroy)(struct journal_contract *c);
    /* Open what is there. `dir` of cfg is filled in by the store. */
    enum status (*open)(struct journal_contract *c, struct journal_cfg cfg, struct journal **ret_journal,
                        struct error *err);
    /* From now on commits fail, or work again. NULL: cannot be done; leave JOURNAL_CONTRACT_FAILURE_TESTS out
     * then. */
    void (*set_failing)(struct journal_contract *c, bool is_failing);
};

#define JOURNAL_CONTRACT_TESTS(X)                                                                            \
    X(sequences_start_at_one_and_have_no_gap)                                                                \
    X(durable_means_readable_and_has_a_time)                                                                 \
    X(tenant_and_cluster_are_filled_in_and_time_is_required)                                                 \
    X(cancelling_a_wait_does_not_cancel_the_append)                                                          \
    X(a_sequence_that_was_never_given_is_not_durable)                                                        \
    X(many_fibers_append_and_wait_at_once)                                                                   \
    X(the_largest_record_fits_and_one_byte_more_does_not)                                                    \
    X(too_much_pending_is_refused_until_the_disk_has_caught_up)                                              \
    X(followers_see_one_order_with_what_they_append_themselves)                                              \
    X(a_follower_may_leave_while_it_is_called)                                                               \
    X(reopening_keeps_everything_and_goes_on_behind_it)                                                      \
    X(nothing_is_appended_while_the_past_is_folded)                                                          \
    X(a_reader_follows_at_its_own_pace)                                                                      \
    X(a_fold_goes_on_behind_the_snapshot)                                                                    \
    X(who_has_no_part_of_a_snapshot_folds_all_of_the_past)                                                   \
    X(snapshots_are_written_by_themselves_and_the_newest_two_stay)                                           \
    X(a_snapshot_of_another_journal_is_not_used)                                                             \
    X(a_queue_serves_each_item_once)                                                                         \
    X(a_lease_has_one_holder_and_its_revision_only_grows)
#define JOURNAL_CONTRACT_FAILURE_TESTS(X)                                                                    \
    X(a_failed_commit_acknowledges_nothing_and_folds_again)                                                  \
    X(no_acknowledged_record_is_lost_over_many_failures)                                                     \
    X(an_outcome_outlives_a_failed_commit)                                                                   \
    X(folding_again_begins_at_the_snapshot)                                                                  \
    X(closing_while_failed_does_not_hang)

#define JOURNAL_CONTRACT_DECLARE(name) void contract_##name(struct journal_contract *c);
JOURNAL_CONTRACT_TESTS(JOURNAL_CONTRACT_DECLARE)
JOURNAL_CONTRACT_FAILURE_TESTS(JOURNAL_CONTRACT_DECLARE)

void journal_contract_run(struct journal_contract *c, void (*run)(struct journal_contract *c));

/* A note whose message is `len` characters made from `number`, so that content can be checked. */
struct record contract_record(struct arena *a, uint64_t number, size_t len);
/* True if `e` holds contract_record(number, len). */
bool contract_record_is(const struct journal_entry *e, uint64_t number, size_t len);
struct journal *contract_open(struct journal_contract *c);
/* With snapshots in `snapshots_dir`, every `every` records (0: the default). */
struct journal *contract_open_saving(struct journal_contract *c, const char *snapshots_dir, uint64_t every);
/* Append contract_record(number, len), wait until it is durable, return its sequence. */
uint64_t contract_append(struct journal *j, uint64_t number, size_t len);

#endif
