/* Regular expressions of queries: RE2's syntax as Go reads it, on PCRE2 with limits.
 *
 * A pattern that RE2 does not have (back references, look-around, atomic groups, possessive quantifiers,
 * recursion, verbs …) is refused instead of meaning something else here than in Loki. RE2 is linear in time
 * and PCRE2 is not: a match that takes too many steps gives up and the query fails with a sentence, it never
 * answers wrongly. A compiled one is used by one thread at a time. */
#ifndef BALM_FUNCTIONS_AUDIT_REGEX_H
#define BALM_FUNCTIONS_AUDIT_REGEX_H

#include "base/strview.h"

#define REGEX_PATTERN_MAX 4096

struct regex;

/* anchored: the whole text must match, as in selectors. STATUS_INVALID_ARGUMENT: the message says where. */
enum status regex_compile(struct strview pattern, bool anchored, struct regex **ret_regex,
                          struct error *err) MUST_USE;
void regex_free(struct regex *r);
/* STATUS_RESOURCE_EXHAUSTED: gave up. */
enum status regex_match(const struct regex *r, struct strview text, bool *ret_matches,
                        struct error *err) MUST_USE;

#endif
