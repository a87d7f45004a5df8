/* Small files, whole: configuration, secrets, run.json. Synchronous: for start-up and worker threads. */
#ifndef BALM_BASE_FILE_H
#define BALM_BASE_FILE_H

#include <sys/types.h>

#include "base/arena.h"

/* Content of `path`, NUL-terminated beyond its length. STATUS_NOT_FOUND; STATUS_RESOURCE_EXHAUSTED past
 * max_bytes; STATUS_INVALID_ARGUMENT if it is not a regular file. */
enum status file_read(struct arena *a, const char *path, size_t max_bytes, struct strview *ret_content,
                      struct error *err) MUST_USE;
/* What a write that a crash cut leaves behind is NAME~XXXXXX: no name of ours has a '~'. */
#define FILE_TEMPORARY_MARK "~"
/* Temporary file beside it, fsync, rename, fsync of the folder: after success the new content survives power
 * loss, after failure the old content is untouched. */
enum status file_write_atomic(const char *path, struct strview content, mode_t mode,
                              struct error *err) MUST_USE;
/* fsync of the folder that `path` is in: after success the name survives power loss. */
enum status file_sync_name(const char *path, struct error *err) MUST_USE;
/* mkdir -p; existing folders are left as they are. New ones survive power loss; one that may not is removed
 * again. */
enum status dir_make(const char *path, mode_t mode, struct error *err) MUST_USE;

/* Descriptors 0, 1 and 2 that were closed by whoever started us become /dev/null: or the next files opened
 * would take their numbers, and a log line would end up in a database. First thing in main(); ends the
 * process where even /dev/null cannot be opened. */
void file_open_standard(void);

#endif
