/* How often one address may be wrong about a secret: against guessing.
 *
 * An address (of IPv6 its /64, which one host can have whole) has a budget of points that fills up with time.
 * A wrong guess costs 10, the same one again 2: a client that is merely configured wrongly and tries
 * again and again is not taken for one that searches. Without points for one more guess the address waits.
 *
 *   30 guesses at once, then one in 5 s: 17 000 a day
 *
 * What waiting means is the caller's: gateway.c, which also counts (balm_logins_refused_total). At most
 * LOGIN_ADDRESSES_MAX addresses are remembered; the one whose budget is fullest makes room. Nothing of the
 * secrets is kept, only keyed hashes. Loop thread only. */
#ifndef BALM_GATEWAY_LOGIN_LIMIT_H
#define BALM_GATEWAY_LOGIN_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/strview.h"

#define LOGIN_ADDRESSES_MAX   256
#define LOGIN_BUDGET          300
#define LOGIN_GUESS_COST      10
#define LOGIN_REPEAT_COST     2
#define LOGIN_POINTS_A_SECOND 2

struct login_limit;

/* NULL-safe below: an address of which nothing is known may try. */
struct login_limit *login_limit_new(void);
void login_limit_free(struct login_limit *l);
/* Seconds until `peer` ("192.0.2.1:4711", "[2001:db8::1]:4711", "unix") may try; 0: now. */
unsigned login_limit_wait_s(const struct login_limit *l, struct strview peer, int64_t now_ns);
/* `credentials` of `peer` were wrong. True: this has used up its budget, for the first time in ten minutes.
 */
bool login_limit_failed(struct login_limit *l, struct strview peer, struct strview credentials,
                        int64_t now_ns);

#endif
