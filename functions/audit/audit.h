/* The audit log (README.md beside this file): seals the journal and answers questions about it with Loki's
 * query API.
 *
 *   journal --durable records--> seal.c        DIR/audit/leaves, DIR/audit/checkpoints     -> `balm audit
 * verify` journal --every record-----> index.c       times and series of each block of records
 *                                   |
 *   GET …/loki/api/v1/query_range -> loki.c -> query.c: blocks that can match, read, filtered on worker
 * threads
 *
 *   /ready                              200 "ready\n", without credentials
 *   /records                            records as they are stored (records.h)
 *   /loki/api/v1/query_range  query  labels  label  label/NAME/values  series (contracts/alertmanager-loki.md
 * §3.3) */
#ifndef BALM_FUNCTIONS_AUDIT_AUDIT_H
#define BALM_FUNCTIONS_AUDIT_AUDIT_H

#include "function/core.h"

extern const struct core_function audit_function;

#endif
