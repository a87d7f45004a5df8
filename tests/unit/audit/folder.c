#include "tests/unit/audit/folder.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

const char *folder_make(struct arena *a)
{
    const char *tmp = getenv("TMPDIR");
    char *path = arena_cstr(a, arena_printf(a, "%s/balm-audit-XXXXXX", tmp != NULL ? tmp : "/tmp"));
    cr_assert_not_null(mkdtemp(path));
    return path;
}

static void remove_at(int parent, const char *name, unsigned depth)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    cr_assert(fd >= 0 && depth < 8, "%s", name);
    DIR *d = fdopendir(fd);
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        struct stat st;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
            remove_at(fd, e->d_name, depth + 1);
        else
            (void)unlinkat(fd, e->d_name, 0);
    }
    (void)closedir(d);
    (void)unlinkat(parent, name, AT_REMOVEDIR);
}

void folder_remove(const char *path)
{
    remove_at(AT_FDCWD, path, 0);
}

struct strview folder_read(struct arena *a, const char *dir, const char *name)
{
    struct strview content;
    struct error err;
    enum status s = file_read(a, arena_printf(a, "%s/%s", dir, name).ptr, 16 * 1024 * 1024, &content, &err);
    cr_assert_eq(s, STATUS_OK, "%s", err.message);
    return content;
}

void folder_write(const char *dir, const char *name, struct strview content)
{
    char path[4096];
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    cr_assert(fd >= 0 && write(fd, content.ptr, content.len) == (ssize_t)content.len, "%s", path);
    (void)close(fd);
}
