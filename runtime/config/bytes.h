/* Sizes as people write them: "64KiB", "8MiB", "1GiB", "2TiB" or plain bytes. Powers of two only: "8MB" means
 * two things. */
#ifndef BALM_CONFIG_BYTES_H
#define BALM_CONFIG_BYTES_H

#include <stdint.h>

#include "base/strview.h"

/* A whole number without sign and one of the units above. STATUS_INVALID_ARGUMENT otherwise and past
 * INT64_MAX. */
enum status bytes_parse(struct strview text, int64_t *ret_bytes) MUST_USE;
/* The same for memory limits, which are Kubernetes quantities in stack.yml and in the OpenFaaS API: "128Mi",
 * "64M" (10^6), plain bytes. "128m" is taken for megabytes, as Docker's limits have it: a thousandth of a
 * byte (which it is in Kubernetes) is no limit anybody means. */
enum status bytes_parse_quantity(struct strview text, int64_t *ret_bytes) MUST_USE;
#define BYTES_QUANTITY_UNITS "a number of bytes, or with Ki Mi Gi Ti K M G T"
#define BYTES_TEXT_MAX       24
/* The shortest exact form: "8MiB", "1025". Returns ret_text. */
const char *bytes_format(int64_t bytes, char ret_text[BYTES_TEXT_MAX]);

#endif
