/* decide(): what follows from a record. Pure: state and record in, records out; no clock, file, network or
 * chance, integers only.
 *
 * It looks at incidents, not at events: what is to be done for an incident follows from where it stands
 * (state.h), and the record only says which incidents to look at. So a decider that takes over (an epoch
 * record) looks at all of them and continues whatever its predecessor left half-way.
 *
 * struct decider holds fold and decisions together and fixes the order: an input is decided once everything
 * decided before it has been folded. The journal may well hold several inputs before the first's decisions (a
 * batch, a store that acknowledges late); without this rule the second would be decided in ignorance of the
 * first, and two acts on one target could pass. */
#ifndef BALM_DISPATCHER_DECIDE_H
#define BALM_DISPATCHER_DECIDE_H

#include "functions/dispatcher/state.h"
#include "store/journal.h"

/* Queue and retries; with the step's timeout this is an intent's deadline. */
#define INTENT_PATIENCE_NS (5 * 60 * NS_PER_S)
/* The same for telling a person, which nothing else makes up for: a receiver may be down for a while. */
#define ESCALATION_PATIENCE_NS (60 * 60 * NS_PER_S)

/* state: with `in` applied, and everything decided before it. in->time_ns: the effective time, which the new
 * records get too. Records are in the arena; cause is seq. */
void decide(const struct state *state, uint64_t seq, const struct record *in, struct arena *a,
            struct record **ret_out, size_t *ret_n);

/* ---- fold and decisions in order ---- */

struct decider;
struct decider *decider_new(void);
void decider_free(struct decider *d);
/* Forget everything: a fold from the beginning follows. Not active then. */
void decider_reset(struct decider *d);
/* The state in a snapshot, and back. Inputs that wait to be decided on are not in it: who loads takes a new
 * epoch, and that looks at everything. Not active after loading; on failure the state is the empty one. */
void decider_save(const struct decider *d, struct pack *p);
enum status decider_load(struct decider *d, struct unpack *u, struct error *err) MUST_USE;
/* Whether decisions are asked for (from the next epoch record on), or records are only folded. */
void decider_set_active(struct decider *d, bool is_active);
bool decider_is_active(const struct decider *d);
const struct state *decider_state(const struct decider *d);
/* The state's timers carry the runner's wake-up time. */
struct state *decider_state_mutable(struct decider *d);
/* Fold one record. If active, decider_next() must be called before `r` goes. */
void decider_apply(struct decider *d, uint64_t seq, const struct record *r);
/* The records that follow now, n 0 for none; valid until the next call. They must be appended and come back
 * through decider_apply() in this order; until they have, there is nothing next. */
void decider_next(struct decider *d, struct record **ret_out, size_t *ret_n);

/* ---- is the journal what decide() makes of it? ---- */

struct decide_report {
    uint64_t n_records, n_decided; /* compared byte for byte */
    uint64_t n_undecided; /* inputs whose decisions are not there, because the decider died or the journal
                             ends; the next epoch made up for them */
    uint64_t bad_seq;     /* first difference; 0: none */
    char expected[2048], found[2048];
};

/* Folds the whole journal again. STATUS_DATA_LOSS: a decided record differs, see *ret_report;
 * STATUS_FAILED_PRECONDITION: the beginning has been cut off, so nothing can be said. */
enum status decide_verify(struct journal_reader *reader, struct decide_report *ret_report,
                          struct error *err) MUST_USE;

/* The same, record by record. */
struct decide_check;
struct decide_check *decide_check_new(void);
void decide_check_free(struct decide_check *c);
/* False at the first difference. */
bool decide_check_add(struct decide_check *c, uint64_t seq, const struct record *r, struct strview bytes);
void decide_check_report(const struct decide_check *c, struct decide_report *ret_report);

#endif
