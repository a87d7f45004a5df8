/* Shared by cron*.c alone. */
#ifndef BALM_DISPATCHER_CRON_IMPL_H
#define BALM_DISPATCHER_CRON_IMPL_H

#include "functions/dispatcher/cron.h"

/* On a clock without a zone, in its seconds since 1970: the first minute in [from_s, until_s) that fits the
 * fields. */
bool cron_find(const struct cron *c, int64_t from_s, int64_t until_s, int64_t *ret_s);

#endif
