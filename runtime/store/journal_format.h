/* May this version open a journal (SQLite) at all? Asked before a platform takes its data folder: what a
 * newer balm has written is left exactly as it is. */
#ifndef BALM_STORE_JOURNAL_FORMAT_H
#define BALM_STORE_JOURNAL_FORMAT_H

#include "base/strview.h"

/* Looks at the head of every segment without SQLite, which would put a WAL that was left into the file, and
 * at the newest record, read-only: a newer balm begins with a record of its own. Writes nothing. A folder
 * that is not there, or that cannot be read, is for the opening to judge. STATUS_FAILED_PRECONDITION: a newer
 * format; the sentence names both. */
enum status journal_check_format(const char *dir, struct error *err) MUST_USE;

#endif
