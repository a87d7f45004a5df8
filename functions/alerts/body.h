/* What a sender may post to the intake, told apart: events (events.h) or a webhook (webhook.h). Pure. */
#ifndef BALM_FUNCTIONS_ALERTS_BODY_H
#define BALM_FUNCTIONS_ALERTS_BODY_H

#include "functions/alerts/webhook.h"

/* By the request's headers. Errors: events_decode() and webhook_decode(). */
enum status body_decode(const struct http_req *req, struct webhook *ret_webhook, struct error *err) MUST_USE;
/* By the text alone, for one that was saved to a file: a structured event has a specversion, a batch is an
 * array. Events in binary mode have their attributes elsewhere, and cannot be told. now_ns stands for when it
 * came. STATUS_INVALID_ARGUMENT also where there is no alert at all. */
enum status body_decode_text(struct strview text, int64_t now_ns, struct arena *a,
                             struct webhook *ret_webhook, struct error *err) MUST_USE;

#endif
