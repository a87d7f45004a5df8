/* A folder of the process's own, for readers that take a path: made at the first call, gone with the process.
 */
#ifndef BALM_TESTS_FUZZ_FOLDER_H
#define BALM_TESTS_FUZZ_FOLDER_H

#include <assert.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/strview.h"

#define FOLDER_PATH_MAX 512

static char folder_root[256];

static inline int folder_remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static inline void folder_remove(void)
{
    (void)nftw(folder_root, folder_remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static inline const char *folder(void)
{
    if (folder_root[0] != '\0') return folder_root;
    const char *parent = getenv("TMPDIR");
    (void)snprintf(folder_root, sizeof(folder_root), "%s/balm-fuzz-XXXXXX", parent != NULL ? parent : "/tmp");
    if (mkdtemp(folder_root) == NULL) abort();
    (void)atexit(folder_remove);
    return folder_root;
}

/* FOLDER/NAME; good until the next call. */
static inline const char *folder_path(const char *name)
{
    static char path[FOLDER_PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s/%s", folder(), name);
    return path;
}

static inline void folder_make(const char *name)
{
    int failed = mkdir(folder_path(name), 0700);
    assert(failed == 0);
}

/* Written over if it is there. The same path as folder_path(). */
static inline const char *folder_put(const char *name, struct strview content)
{
    const char *path = folder_path(name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert(fd >= 0);
    ssize_t n = write(fd, content.ptr != NULL ? content.ptr : "", content.len);
    assert(n == (ssize_t)content.len);
    (void)close(fd);
    return path;
}

#endif
