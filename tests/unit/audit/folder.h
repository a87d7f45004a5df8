/* A folder of its own a test, and plain files in it. */
#ifndef BALM_TESTS_UNIT_AUDIT_FOLDER_H
#define BALM_TESTS_UNIT_AUDIT_FOLDER_H

#include "base/arena.h"

/* Path of a new folder; arena. */
const char *folder_make(struct arena *a);
/* With everything in it. */
void folder_remove(const char *path);
struct strview folder_read(struct arena *a, const char *dir, const char *name);
void folder_write(const char *dir, const char *name, struct strview content);

#endif
