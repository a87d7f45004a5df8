/* Text as it may stand in a man page: nothing in it is a request or an escape, hyphens can be copied, and
 * what is not ASCII is spelled as groff and mandoc both read it. */
#ifndef BALM_CONFIG_ROFF_H
#define BALM_CONFIG_ROFF_H

#include <stdio.h>

#include "base/strview.h"

/* One line of text without line breaks; it may be the start of a line or go on in one. */
void roff_print(FILE *out, struct strview text);

#endif
