/* A command line as one text, as `fprocess` is: cut into the words of an argv. No shell is ever asked, and
 * nothing of one is understood but its quoting:
 *
 *   blanks (space, tab, line feed) separate words
 *   '…'    everything as it stands
 *   "…"    everything as it stands, but for \" and \\
 *   \c     outside of quotes: the byte c as it stands
 *   a'b'c  is one word; '' is an empty one
 *
 * So $x, *, |, ;, > and & are bytes like others. A text without quotes and backslashes is cut as OpenFaaS's
 * watchdogs cut it, except that several blanks in a row separate once. Pure. */
#ifndef BALM_CONFIG_WORDS_H
#define BALM_CONFIG_WORDS_H

#include "base/arena.h"

#define WORDS_MAX       64
#define WORDS_BYTES_MAX 4096

/* *ret_words: NUL-terminated, the list too; in the arena. The first word is not empty.
 * STATUS_INVALID_ARGUMENT: no word, an open quote, a NUL, or more than the above. */
enum status words_split(struct strview text, struct arena *a, const char *const **ret_words, size_t *ret_n,
                        struct error *err) MUST_USE;

#endif
