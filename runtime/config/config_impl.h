/* Shared by config.c and config_print.c alone. */
#ifndef BALM_CONFIG_CONFIG_IMPL_H
#define BALM_CONFIG_CONFIG_IMPL_H

#include "base/clock.h"
#include "config/bytes.h"
#include "config/config.h"

#define NUMBER_TEXT_MAX DURATION_TEXT_MAX
_Static_assert(BYTES_TEXT_MAX <= NUMBER_TEXT_MAX, "one buffer holds any of them");

/* `value` in the form in which an option of this type takes it. */
const char *config_number_format(enum config_type type, int64_t value, char ret_text[NUMBER_TEXT_MAX]);
/* Is a number, and not any number will do. */
bool config_has_range(const struct config_option *o);

#endif
