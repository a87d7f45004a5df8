/* Restarts: one of a service at a time, whoever asks for it, and across the platform's own end.
 *
 *   asked --> [under way] --it ends, or after 90 s its session is killed--> all who wait are answered
 *
 * What was begun is not cut at the deadline of who asked: half a restart leaves the service down, and under
 * systemd the job would go on without its systemctl. So the deadline says until when it may begin and when
 * there must be an answer:
 *   - the same intent again (another attempt, the bot's next process) joins the one under way
 *   - another intent waits for its end, and is then told to look again: the service has just been started
 *   - STATUS_UNKNOWN, a little before the deadline: still under way
 *
 * DIR/run/host-act-SERVICE is there while one is under way: intent, leader of the session, and when both
 * began; DIR/run/host-pid-SERVICE is written by the leader itself before it begins. A platform that is killed
 * leaves them, and the next one takes that restart for its own until its leader has ended (killed 90 s after
 * it began); how it went is not known then: STATUS_UNKNOWN. */
/* Runs of programs go the same way, one of a program at a time: the "service" is then one run, PROGRAM_PREFIX
 * and the program's name, with the argv of that run and a limit of its own. One that was killed at it is
 * STATUS_UNKNOWN. */
#ifndef BALM_GATEWAY_BROKER_RESTART_H
#define BALM_GATEWAY_BROKER_RESTART_H

#include "base/json.h"
#include "gateway/broker.h"
#include "gateway/broker_list.h"

struct broker_restarts;

/* cfg is borrowed for its life. Takes over what an earlier platform left. */
enum status broker_restarts_new(const struct broker_cfg *cfg, struct broker_restarts **ret_restarts,
                                struct error *err) MUST_USE;
/* Waits for the ends of those that were begun here. From a fiber. */
void broker_restarts_free(struct broker_restarts *rs);
/* is_frozen: joins, and begins nothing (STATUS_CANCELLED). ret_reply: {"exit","manager","output"}; owned.
 * Suspends until the answer or shortly before the deadline (monotonic). `service` is copied. */
enum status broker_restarts_ask(struct broker_restarts *rs, const struct broker_service *service,
                                struct strview intent, int64_t deadline_ns, bool is_frozen,
                                json_t **ret_reply, struct error *err) MUST_USE;
/* Suspends until none is under way; cancellation and deadlines do not cut it short. */
void broker_restarts_await_all(struct broker_restarts *rs);

#endif
