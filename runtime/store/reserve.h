/* The reserve: a file that only takes space, so that a full disk can still be recorded, alerted on and
 * healed.
 *
 *   a commit failed and the disk has nothing left: the file gets shorter by a piece, and the store opens
 * again. A piece at a time, since whoever filled the disk takes what is freed as well. there is room again:
 * it grows back to its size.
 *
 * Blocking, a few system calls; any thread, but for opening and closing. */
#ifndef BALM_STORE_RESERVE_H
#define BALM_STORE_RESERVE_H

#include <stdint.h>

#include "base/status.h"
#include "base/strview.h"

struct reserve;

/* Takes the space at once, as much as a quarter of what is free allows. Never NULL: what cannot be had is
 * logged, and is tried again by reserve_refill(). size 0: none. */
struct reserve *reserve_open(const char *path, uint64_t size);
/* The file stays. NULL does nothing. */
void reserve_close(struct reserve *r);
/* The disk is full and a piece was given up: try again. False: it is not, or nothing is left. */
bool reserve_give(struct reserve *r);
/* Takes back what was given, once there is half as much room beside it. */
void reserve_refill(struct reserve *r);
uint64_t reserve_left(const struct reserve *r);
uint64_t reserve_size(const struct reserve *r);

#endif
