/* Loki's query API over the journal: routes and their rules (contracts/alertmanager-loki.md §3.3). Read only.
 * Loop thread, in fibers. */
#ifndef BALM_FUNCTIONS_AUDIT_LOKI_H
#define BALM_FUNCTIONS_AUDIT_LOKI_H

#include "functions/audit/index.h"
#include "server/server.h"

#define LOKI_QUERIES_MAX                                                                                     \
    2 /* at work at once: the worker threads (four) have the journal's work to do too                        \
       */
#define LOKI_WAITING_MAX      32 /* beyond: 429, as Loki's "too many outstanding requests" */
#define LOKI_QUERY_TIMEOUT_NS (60 * NS_PER_S)

struct loki {
    struct journal *journal;         /* borrowed */
    const struct audit_index *index; /* borrowed */
    struct channel slots;            /* a token for each query at work */
    unsigned waiting;
    struct metric_family *requests; /* by route and code */
};

void loki_init(struct loki *l, struct journal *j, const struct audit_index *x);
void loki_release(struct loki *l);
/* path: behind "/loki/api/v1/". */
void loki_handle(struct loki *l, struct strview path, const struct http_req *req, struct http_resp *resp);

#endif
