#include "functions/dispatcher/runbook_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"

#define DATA_LINK   "..data"
#define MARK_BYTES  ((size_t)(RUNBOOK_FILES_MAX + 2) * 512)
#define LINK_TARGET 4096

static bool is_runbook_file(struct strview name)
{
    return name.ptr[0] != '.' && (sv_ends_with(name, SV(".yaml")) || sv_ends_with(name, SV(".yml")));
}

static int by_name(const void *a, const void *b)
{
    return sv_cmp(*(const struct strview *)a, *(const struct strview *)b); /* whatever the locale */
}

static enum status list_names(DIR *folder, const char *dir, struct arena *a, struct runbook_folder *f,
                              struct error *err)
{
    f->names = arena_array(a, RUNBOOK_FILES_MAX, sizeof(*f->names));
    errno = 0;
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL; errno = 0) {
        if (!is_runbook_file(sv(entry->d_name))) continue;
        if (f->n == RUNBOOK_FILES_MAX)
            return error_set(err, STATUS_RESOURCE_EXHAUSTED, "runbooks in '%s': more than %d files", dir,
                             RUNBOOK_FILES_MAX);
        f->names[f->n++] = sv(arena_cstr(a, sv(entry->d_name)));
    }
    if (errno != 0)
        return error_set(err, status_from_errno(errno), "runbooks in '%s': %s", dir, strerror(errno));
    qsort(f->names, f->n, sizeof(*f->names), by_name);
    return STATUS_OK;
}

/* Who it is and when it last changed, in one line. */
static void describe(struct buf *text, const char *name, int at)
{
    struct stat st;
    if (fstatat(at, name, &st, 0) != 0)
        buf_printf(text, "%s error %d\n", name, errno);
    else
        buf_printf(text, "%s %ju %ju %jd %jd.%09ld %jd.%09ld\n", name, (uintmax_t)st.st_dev,
                   (uintmax_t)st.st_ino, (intmax_t)st.st_size, (intmax_t)st.st_mtim.tv_sec,
                   st.st_mtim.tv_nsec, (intmax_t)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
}

/* Which link it is and where it leads. Empty: no link, nothing that could be switched. */
static void mark_link(const char *name, int at, char ret_mark[SHA256_HEX + 1])
{
    char target[LINK_TARGET];
    struct stat st;
    struct buf text;
    ssize_t n = readlinkat(at, name, target, sizeof(target));
    ret_mark[0] = '\0';
    if (n < 0 || fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) != 0) return;
    buf_init(&text, 2 * LINK_TARGET);
    buf_printf(&text, "%ju %jd.%09ld %.*s", (uintmax_t)st.st_ino, (intmax_t)st.st_ctim.tv_sec,
               st.st_ctim.tv_nsec, (int)n, target);
    sha256_hex(buf_view(&text), ret_mark);
    buf_release(&text);
}

/* One file that is no link into it, and a swap would carry along whatever is half-written in that. */
static bool is_all_behind_data(const struct runbook_folder *f, int fd)
{
    char target[LINK_TARGET];
    for (size_t i = 0; i < f->n; i++) {
        ssize_t n = readlinkat(fd, f->names[i].ptr, target, sizeof(target));
        if (n < 0 || !sv_starts_with(sv_n(target, (size_t)n), SV(DATA_LINK "/"))) return false;
    }
    return true;
}

static void make_mark(const char *dir, int fd, struct runbook_folder *f)
{
    struct runbook_mark *m = &f->mark;
    struct buf text;
    struct stat st;
    mark_link(dir, AT_FDCWD, m->dir_link);
    mark_link(DATA_LINK, fd, m->data_link);
    buf_init(&text, MARK_BYTES);
    buf_printf(&text, "%s\n%s\n", m->dir_link, m->data_link);
    if (fstat(fd, &st) == 0) {
        m->device = st.st_dev;
        m->inode = st.st_ino;
        buf_printf(&text, "%ju %ju\n", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    }
    for (size_t i = 0; i < f->n; i++)
        describe(&text, f->names[i].ptr, fd);
    sha256_hex(buf_view(&text), m->all);
    buf_release(&text);
    if (!is_all_behind_data(f, fd)) m->data_link[0] = '\0';
}

enum status runbook_folder_list(const char *dir, struct arena *a, struct runbook_folder *ret_folder,
                                struct error *err)
{
    struct runbook_folder f = {.n = 0};
    DIR *folder = opendir(dir);
    if (folder == NULL)
        return error_set(err, status_from_errno(errno), "runbooks in '%s': %s", dir, strerror(errno));
    enum status s = list_names(folder, dir, a, &f, err);
    if (s == STATUS_OK) {
        make_mark(dir, dirfd(folder), &f);
        *ret_folder = f;
    }
    (void)closedir(folder);
    return s;
}

bool runbook_mark_eq(const struct runbook_mark *a, const struct runbook_mark *b)
{
    return strcmp(a->all, b->all) == 0;
}

static bool is_switched(const char *before, const char *now)
{
    return now[0] != '\0' && strcmp(before, now) != 0;
}

bool runbook_mark_is_swapped(const struct runbook_mark *before, const struct runbook_mark *now)
{
    return is_switched(before->data_link, now->data_link) || is_switched(before->dir_link, now->dir_link);
}
