/* What disk-clean does to the disk: look, then remove what was seen. Blocking: for worker threads.
 *
 * Nothing here leaves the root. Each folder is opened by openat2 beneath the one above it, without symbolic
 * links and without crossing a mount; each file is removed by its name in a folder opened that way, after its
 * device, inode, type and time of writing were seen to be those of the plan. What another process does
 * between that last look and the unlink can only cost an entry of that same folder. Where the kernel has no
 * openat2 (before 5.6, or a filter) the bot refuses. */
#ifndef BALM_DISK_CLEAN_WALK_H
#define BALM_DISK_CLEAN_WALK_H

#include <sys/types.h>

#include "base/status.h"
#include "base/strview.h"

#define CLEAN_DEPTH_MAX 64 /* one descriptor and one stack frame a level */
#define CLEAN_PATH_BYTES_MAX                                                                                 \
    (32 * 1024 * 1024) /* of all planned files' paths: what a tree of long names could fill */

struct clean_spec {
    const char *root;       /* absolute */
    int64_t cutoff_unix_ns; /* files last written before */
    size_t max_files;       /* the oldest so many are planned */
    uint64_t max_scan;      /* entries */
    int64_t deadline_ns;    /* monotonic; the look ends there */
};

struct clean_file {
    char *path; /* relative to the root; owned */
    dev_t device;
    ino_t inode;
    int64_t modified_unix_ns;
    int64_t bytes; /* occupied; 0 with another hard link */
};

struct clean_counts {
    int64_t entries, matched, open, changed, mounts, unreadable, deep, other, failed, removed, bytes_freed;
};

struct clean_plan {
    int root_fd;
    struct clean_file *files; /* oldest first; at most max_files */
    size_t n, path_bytes;
    struct clean_counts counts;
    bool is_partial; /* max_scan or the deadline ended the look */
    int last_errno;  /* of the last file that could not be removed */
};

struct clean_space {
    int64_t free_bytes;   /* to ordinary users */
    int64_t usable_bytes; /* free and used, without what is reserved for root: as df counts */
    int64_t free_percent;
};

/* Changes nothing. STATUS_FAILED_PRECONDITION: the root is not there, is no folder, has a symbolic link in
 * its path, or there is no openat2. clean_plan_release() on success only. */
enum status clean_plan_make(const struct clean_spec *spec, struct clean_plan *ret_plan,
                            struct error *err) MUST_USE;
/* Removes files [from, to) of the plan that still are what was planned; counts. */
void clean_remove(struct clean_plan *plan, size_t from, size_t to);
enum status clean_space_of(const struct clean_plan *plan, struct clean_space *ret_space,
                           struct error *err) MUST_USE;
void clean_plan_release(struct clean_plan *plan);

#endif
