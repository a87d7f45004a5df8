/* Foreign text as it may stand in a message: short, one line, nothing a terminal would act on. */
#ifndef BALM_CONFIG_QUOTE_H
#define BALM_CONFIG_QUOTE_H

#include "base/strview.h"

#define QUOTE_MAX 64 /* leaves room for the sentence around it */

/* `text` cut between characters ("…" is written as "..."), control characters and bytes that are not UTF-8
 * as '?'. No quotes are added. NUL-terminated. Returns ret_text. */
const char *quote_text(struct strview text, char ret_text[QUOTE_MAX]);

#endif
