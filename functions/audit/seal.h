/* Sealing: a fiber that follows the durable journal, hashes what is new and signs a checkpoint over it.
 *
 *   wait for a durable record, or a minute --> hash all there are (worker thread) --> checkpoint --> not
 * again for a second --> …
 *
 * Never seals what is not durable. Before the first checkpoint it looks at what an earlier process left
 * without a seal. If that is more than a crash explains, or if there are records and no checkpoint, somebody
 * may have written another past for us to sign: an error in the log, balm_audit_verify_failures_total, and a
 * record of kind "unsealed" that is durable before anything is signed, so that verifying shows it for ever.
 *
 * A second fiber compares the journal with what was sealed before this
 * start; what it finds is logged as an error and counted in balm_audit_verify_failures_total, and everything
 * goes on: a platform that stops healing because somebody touched its past would be the attacker's tool. What
 * was sealed stays as it is, for `balm audit verify` to show. Loop thread only. */
#ifndef BALM_FUNCTIONS_AUDIT_SEAL_H
#define BALM_FUNCTIONS_AUDIT_SEAL_H

#include "store/journal.h"

struct seal;

/* Opens the files; suspends. Nothing is sealed before seal_start(). dir: the data folder. */
enum status seal_new(struct journal *j, const char *dir, struct strview cluster, struct seal **ret_seal,
                     struct error *err) MUST_USE;
/* What an earlier process left unsealed is signed when it returns, if that takes no longer than two seconds:
 * so a platform that is killed moments after each of its starts leaves no more behind than its last life.
 * Suspends. */
enum status seal_start(struct seal *seal, struct error *err) MUST_USE;
/* Seals what is durable by now, signs the last checkpoint, frees. Suspends. */
void seal_free(struct seal *seal);

#endif
