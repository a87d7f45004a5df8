/* Something changed in a folder: the kernel's word for it, where it gives one.
 *
 * It wakes and says nothing: whoever is woken looks for himself, and looks from time to time as well, because
 * not every change is told (network file systems, no watches left, a symbolic link on the way that now leads
 * elsewhere). */
#ifndef BALM_LOOP_FOLDER_WATCH_H
#define BALM_LOOP_FOLDER_WATCH_H

#include "loop/loop.h"

struct folder_watch; /* heap */

/* Sets `changed` (borrowed until the stop) whenever an entry of `dir` is made, written, renamed, removed or
 * gets other rights, or the folder itself goes. Not what happens in folders below. A symbolic link is
 * followed once, now.
 * STATUS_NOT_FOUND: no such folder. STATUS_RESOURCE_EXHAUSTED: no watch is left. */
enum status folder_watch_start(struct loop *l, const char *dir, struct fiber_event *changed,
                               struct folder_watch **ret_watch, struct error *err) MUST_USE;
/* `changed` is not touched from here on. NULL does nothing. */
void folder_watch_stop(struct folder_watch *w);

#endif
