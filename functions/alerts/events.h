/* CloudEvents as alerts: a request in any of the three modes (cloudevents/cloudevents.h) in, checked alerts
 * out, in the form of webhook.h and with its limits. Pure: no clock but the request's, no waits, any thread.
 *
 *   what the event's data is                       what becomes of it
 *   ---------------------------------------------  ---------------------------------------------------------
 *   a webhook body of Alertmanager or Grafana      its alerts, as if they had been posted
 *   one alert: an object with `labels`             that alert; without `status` it fires, without `startsAt`
 *     that has an `alertname`                        it began at the event's time
 *   anything else                                  an alert of its own:
 *                                                    alertname  the event's type
 *                                                    labels     source, subject, extension attributes, then
 *                                                               what else the data has: texts, numbers and
 *                                                               booleans by their name, those of an object
 *                                                               in it as "object.name"
 *                                                    startsAt   the event's time, else when it came
 *                                                    status     `status` (an extension attribute, else of
 *                                                               the data) "resolved" ends it, all else fires
 *                                                    identity   source, type and subject; without a subject
 *                                                               nothing says that two events are about the
 *                                                               same, and each is one of its own
 *
 * An attribute is never replaced by a member of the data: what a runbook matches on is what the sender of the
 * event has set, not what somebody put into its payload. Arrays, deeper objects and values longer than
 * WEBHOOK_VALUE_BYTES_MAX are left out of the labels; more labels than WEBHOOK_LABELS_MAX are refused. */
#ifndef BALM_FUNCTIONS_ALERTS_EVENTS_H
#define BALM_FUNCTIONS_ALERTS_EVENTS_H

#include "functions/alerts/webhook.h"

/* Does the request carry events? Also one that has only some of the attributes: it is a malformed one. */
bool events_are_in(const struct http_req *req);
/* One event that is over a limit is rejected alone (`reason`). STATUS_INVALID_ARGUMENT: one of them is no
 * event, and nothing is taken; STATUS_UNIMPLEMENTED: another format than JSON (HTTP 415). An empty batch has
 * no alerts. */
enum status events_decode(const struct http_req *req, struct webhook *ret_webhook,
                          struct error *err) MUST_USE;
/* What the intake keeps of an event beside its signal (webhook_alert.detail), and the key in it; 0: none. */
uint64_t events_key(struct strview detail);

#endif
