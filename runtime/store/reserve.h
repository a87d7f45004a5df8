/* The reserve: a file that only takes space, so that a full disk can still be recorded, alerted on and
 * healed.
 *
 *   a commit failed and the disk has nothing left --> the file gets shorter by a piece, the store opens again
 *   there is room again                           --> it grows back to its size
 *
 * A piece at a time, and not the next one at once: whoever fills the disk takes what is given up as well, and
 * often ends when he can no longer write.
 *
 * Blocking, a few system calls; any thread, but for opening and closing. */
#ifndef BALM_STORE_RESERVE_H
#define BALM_STORE_RESERVE_H

#include <stdint.h>

#include "base/clock.h"
#include "base/status.h"
#include "base/strview.h"

/* With what little is left on the disk of this folder a commit may fail for want of room. */
bool disk_is_full(const char *dir);

struct reserve;

/* Takes the space at once, as much as a quarter of what is free allows. Never NULL: what cannot be had is
 * logged, and is tried again by reserve_refill(). size 0: none. */
struct reserve *reserve_open(const char *path, uint64_t size);
/* The file stays. NULL does nothing. */
void reserve_close(struct reserve *r);
#define RESERVE_PAUSE_NS (5 * NS_PER_S)
/* The disk is full and a piece was given up: try again. False: it is not, nothing is left, or the last piece
 * was given up within RESERVE_PAUSE_NS. */
bool reserve_give(struct reserve *r);
/* Takes back what was given, once there is half as much room beside it. */
void reserve_refill(struct reserve *r);
uint64_t reserve_left(const struct reserve *r);
uint64_t reserve_size(const struct reserve *r);

#endif
