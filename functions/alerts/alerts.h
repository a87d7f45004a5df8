/* The intake: webhooks of Alertmanager and Grafana, and CloudEvents, in; `signal` records out (README.md
 * beside this file).
 *
 *   POST /  body -> body_decode -> each alert judged by the episode table -> journal_append
 *           -> wait until durable -> 202
 *   GET /alertmanagers  whom reconcile.h asks what fires, and what became of it
 *
 * Between judging an alert and appending its record nothing waits, so the same alert delivered twice at
 * once gives one signal, and both deliveries wait for the same sequence. */
#ifndef BALM_FUNCTIONS_ALERTS_ALERTS_H
#define BALM_FUNCTIONS_ALERTS_ALERTS_H

#include "function/core.h"

extern const struct core_function alerts_function;

#endif
