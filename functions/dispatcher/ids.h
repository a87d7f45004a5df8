/* Ids as people give them: whole, or a part that fits one alone. Pure. */
#ifndef BALM_DISPATCHER_IDS_H
#define BALM_DISPATCHER_IDS_H

#include "base/arena.h"
#include "base/strview.h"

#define ID_PART_MIN    4   /* a shorter part is met by chance */
#define ID_TEXT_MAX    128 /* of what is looked for */
#define IDS_NEAREST    3
#define IDS_LOOKED_MAX 300 /* the first so many are measured for being near: each costs some 800 steps */

/* Which of the known ones is meant; one may be there twice. *ret_id: one of `known`. STATUS_NOT_FOUND: none,
 * and the message has the nearest, or several, and it has those. `what` ("incident") and `list_command`,
 * which shows them all, are for the message. */
enum status ids_find(struct strview text, const struct strview *known, size_t n, const char *what,
                     const char *list_command, struct strview *ret_id, struct error *err) MUST_USE;

#endif
