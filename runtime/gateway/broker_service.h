/* What is known of a service on this host, and how it is restarted: systemd where it is PID 1, else argv and
 * pid file. */
#ifndef BALM_GATEWAY_BROKER_SERVICE_H
#define BALM_GATEWAY_BROKER_SERVICE_H

#include "base/json.h"
#include "gateway/broker_list.h"
#include "loop/loop.h"

/* Is systemd PID 1 here (sd_booted(3): /run/systemd/system exists)? */
bool broker_has_systemd(void);
/* {"active","manager","pid","startedAt","state"}; owned. Suspends. */
enum status broker_service_status(const struct broker_service *s, struct arena *a, json_t **ret_reply,
                                  struct error *err) MUST_USE;
/* What restarts it; argv[0] is an absolute path. Lives in the arena or is borrowed from `s`.
 * STATUS_FAILED_PRECONDITION: nothing does here. */
enum status broker_service_command(const struct broker_service *s, struct arena *a,
                                   const char *const **ret_argv, struct error *err) MUST_USE;
/* The answer {"exit","manager","output"}; owned. A command that fails is an answer, not an error. */
json_t *broker_service_restarted(const struct broker_service *s, int exit_code, struct strview words);
/* When a process began, in ticks since boot (field 22 of /proc/PID/stat): with its pid it names one process.
 * 0: there is none, or a zombie. */
uint64_t broker_process_ticks(uint64_t pid);
/* The same in wall time, 10 ms coarse and rounded up. 0: there is none. */
int64_t broker_process_started_unix_ns(uint64_t pid);

#endif
