/* What is known of a service on this host, and how it is restarted: systemd where it is PID 1, else argv and
 * pid file. Both suspend. */
#ifndef BALM_GATEWAY_BROKER_SERVICE_H
#define BALM_GATEWAY_BROKER_SERVICE_H

#include "base/json.h"
#include "gateway/broker_list.h"
#include "loop/loop.h"

/* Is systemd PID 1 here (sd_booted(3): /run/systemd/system exists)? */
bool broker_has_systemd(void);
/* {"active","manager","pid","startedAt","state"}; owned. */
enum status broker_service_status(const struct broker_service *s, struct arena *a, json_t **ret_reply,
                                  struct error *err) MUST_USE;
/* {"exit","manager","output"}; owned. A tool that fails is an answer, not an error. */
enum status broker_service_restart(const struct broker_service *s, int64_t deadline_ns, struct arena *a,
                                   json_t **ret_reply, struct error *err) MUST_USE;

#endif
