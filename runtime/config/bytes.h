/* Sizes as people write them: "64KiB", "8MiB", "1GiB", "2TiB" or plain bytes. Powers of two only: "8MB" means
 * two things. */
#ifndef BALM_CONFIG_BYTES_H
#define BALM_CONFIG_BYTES_H

#include <stdint.h>

#include "base/strview.h"

/* A whole number without sign and one of the units above. STATUS_INVALID_ARGUMENT otherwise and past
 * INT64_MAX. */
enum status bytes_parse(struct strview text, int64_t *ret_bytes) MUST_USE;
#define BYTES_TEXT_MAX 24
/* The shortest exact form: "8MiB", "1025". Returns ret_text. */
const char *bytes_format(int64_t bytes, char ret_text[BYTES_TEXT_MAX]);

#endif
