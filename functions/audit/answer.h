/* Answers of the query API as Loki writes them (contracts/alertmanager-loki.md §3.3). JSON is built with a
 * bound; anything large is built and compressed on a worker thread. */
#ifndef BALM_FUNCTIONS_AUDIT_ANSWER_H
#define BALM_FUNCTIONS_AUDIT_ANSWER_H

#include "functions/audit/query.h"
#include "server/server.h"

/* Plain text: Loki's errors are no JSON. */
void answer_error(struct http_resp *resp, struct arena *a, int http_status, struct strview sentence);
/* The status's HTTP code as Loki would choose it; 503 with Retry-After. */
void answer_failure(struct http_resp *resp, struct arena *a, const struct error *err);
/* The lines as streams. Suspends. */
void answer_streams(const struct http_req *req, struct http_resp *resp, const struct query *q);
/* {"status":"success","data":DATA} */
void answer_data(const struct http_req *req, struct http_resp *resp, struct strview data);
/* The label set of a record as a JSON object. */
void answer_labels(struct buf *out, enum record_kind kind, struct strview function);

#endif
