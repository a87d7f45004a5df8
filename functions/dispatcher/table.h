/* Texts to pointers: open addressing with linear probing. Keys are borrowed from the values and must live as
 * long as they are in. The hash is salted per process (keys come from labels of foreign alerts); so there is
 * no iteration: whoever needs an order keeps a list. A zeroed struct is an empty table. */
#ifndef BALM_DISPATCHER_TABLE_H
#define BALM_DISPATCHER_TABLE_H

#include "base/strview.h"

struct table_slot {
    struct strview key;
    uint64_t hash;
    void *value; /* NULL: free */
};

struct table {
    struct table_slot *slots; /* owned */
    size_t capacity, n;
    uint64_t salt;
};

void table_release(struct table *t);
void *table_get(const struct table *t, struct strview key); /* NULL: not there */
void table_put(struct table *t, struct strview key,
               void *value);                             /* value not NULL; the same key again replaces */
void *table_remove(struct table *t, struct strview key); /* the value, or NULL */

#endif
