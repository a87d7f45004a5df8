/* The archive that a builder is sent: tar as POSIX has it (ustar, with pax records or GNU's entries for long
 * names), whole in memory. Files and folders only: a link, a device or a sparse file is refused, and so is
 * every name that is not plainly below where it is unpacked. Pure. Format: POSIX.1-2017, pax, "ustar
 * Interchange Format". */
#ifndef BALM_GATEWAY_BUILDER_TAR_H
#define BALM_GATEWAY_BUILDER_TAR_H

#include "base/arena.h"

#define TAR_ENTRIES_MAX 10000 /* an archive of empty files must not fill the disk with names */
#define TAR_NAME_MAX    255
#define TAR_DEPTH_MAX   32

struct tar_reader {
    struct strview bytes; /* borrowed */
    size_t at;
    unsigned n_entries;
};

struct tar_entry {
    struct strview
        name; /* "a/b": relative, no empty, "." or ".." part; borrowed from the archive or the arena */
    struct strview content; /* borrowed from the archive */
    bool is_folder, is_executable;
};

/* At the first entry of `bytes`. */
void tar_reader_init(struct tar_reader *t, struct strview bytes);
/* STATUS_NOT_FOUND: that was the last. STATUS_INVALID_ARGUMENT: what is wrong with the archive; it cannot be
 * read on. */
enum status tar_next(struct tar_reader *t, struct arena *a, struct tar_entry *ret_entry,
                     struct error *err) MUST_USE;

#endif
