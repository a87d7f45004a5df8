/* The contract of journal.h as tests that any store must pass. A store's program fills a struct journal_contract and calls
 * journal_contract_main(); every test runs in a process and on a loop of its own, in a fiber, on an empty store.
 *
 * Nothing here relies on a sequence being known before the record is durable, nor on followers running before or after that
 * (journal.h: a store may assign sequences with its acknowledgement). */
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
    enum status (*open)(struct journal_contract *c, struct journal_cfg cfg, struct journal **ret_journal, struct error *err);
    /* From now on commits fail, or work again. NULL: cannot be done; those tests are skipped, and it says so. */
    void (*set_failing)(struct journal_contract *c, bool is_failing);
};

struct journal_test {
    const char *name;
    void (*run)(struct journal_contract *c);
    bool needs_failing;
};

/* Runs the contract, then `more` (ended by a NULL name); argv[1], if given, is a part of the names to run. Returns the exit
 * code. Prints a line a test and "N passed, N failed, N skipped". */
int journal_contract_main(struct journal_contract *c, const struct journal_test *more, int argc, char **argv);

/* A note whose message is `len` characters made from `number`, so that content can be checked. */
struct record contract_record(struct arena *a, uint64_t number, size_t len);
/* True if `e` holds contract_record(number, len). */
bool contract_record_is(const struct journal_entry *e, uint64_t number, size_t len);
struct journal *contract_open(struct journal_contract *c);
/* Append contract_record(number, len), wait until it is durable, return its sequence. */
uint64_t contract_append(struct journal *j, uint64_t number, size_t len);

#endif
