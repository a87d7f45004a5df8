/* Shared by zone*.c alone. */
#ifndef BALM_DISPATCHER_ZONE_IMPL_H
#define BALM_DISPATCHER_ZONE_IMPL_H

#include "functions/dispatcher/zone.h"

/* zone_rule.c: "CET-1CEST,M3.5.0,M10.5.0/3" into the rule's members. */
enum status zone_rule_parse(struct strview text, struct zone *z, struct error *err) MUST_USE;
/* The span of the rule alone that unix_s lies in. */
struct zone_span zone_rule_span(const struct zone *z, int64_t unix_s);

#endif
