/* GET /records?from=SEQ&limit=N: the journal as it is, for who reads it from elsewhere (balm audit tail,
 * cat).
 *
 *   {"first": 1, "last": 4711, "records": [{"record": {…}, "seq": 12}, …]}
 *
 * first and last: what there is, durable; records: from SEQ (1) on, at most N (1000) of them and about 4 MiB,
 * each with the bytes that are stored. Before what is kept it begins with the first. */
#ifndef BALM_FUNCTIONS_AUDIT_RECORDS_H
#define BALM_FUNCTIONS_AUDIT_RECORDS_H

#include "server/server.h"

struct journal;

/* Suspends. */
void records_handle(struct journal *j, const struct http_req *req, struct http_resp *resp);

#endif
