#include "base/file.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct arena arena;
static struct error err;
static char folder[512];

static const char *in_folder(const char *name)
{
    return arena_printf(&arena, "%s/%s", folder, name).ptr;
}

static void make_folder(void)
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(folder, sizeof(folder), "%s/balm-file-XXXXXX", tmp && tmp[0] ? tmp : "/tmp");
    cr_assert_not_null(mkdtemp(folder));
}

static size_t remove_content(const char *path)
{
    size_t n = 0;
    DIR *dir = opendir(path);
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        struct strview child = arena_printf(&arena, "%s/%s", path, entry->d_name);
        struct stat info;
        if (lstat(child.ptr, &info) == 0 && S_ISDIR(info.st_mode)) (void)remove_content(child.ptr);
        (void)remove(child.ptr);
        n++;
    }
    closedir(dir);
    return n;
}

static void remove_folder(void)
{
    (void)remove_content(folder);
    (void)rmdir(folder);
    arena_release(&arena);
}

TestSuite(file, .init = make_folder, .fini = remove_folder);

Test(file, written_content_is_read_back_with_a_nul_behind)
{
    const char *path = in_folder("a");
    cr_assert(file_write_atomic(path, SV("one\0two"), 0600, &err) == STATUS_OK, "%s", err.message);
    struct strview content;
    cr_assert(file_read(&arena, path, 7, &content, &err) == STATUS_OK, "%s", err.message);
    cr_assert(sv_eq(content, SV("one\0two")));
    cr_assert_eq(content.ptr[7], '\0');
    struct stat info;
    cr_assert(stat(path, &info) == 0 && (info.st_mode & 0777) == 0600);
}

Test(file, write_replaces_whole_and_leaves_nothing_else_behind)
{
    const char *path = in_folder("a");
    cr_assert(file_write_atomic(path, SV("a long first content"), 0600, &err) == STATUS_OK);
    cr_assert(file_write_atomic(path, SV("short"), 0640, &err) == STATUS_OK);
    struct strview content;
    cr_assert(file_read(&arena, path, 100, &content, &err) == STATUS_OK);
    cr_assert(sv_eq(content, SV("short")));
    struct stat info;
    cr_assert(stat(path, &info) == 0 && (info.st_mode & 0777) == 0640);
    cr_assert_eq(remove_content(folder), 1);
}

Test(file, failed_write_leaves_the_old_content_and_no_temporary_file)
{
    /* The target is a folder that is not empty: everything up to the rename succeeds. */
    const char *path = in_folder("target");
    cr_assert(mkdir(path, 0700) == 0 && mkdir(in_folder("target/inner"), 0700) == 0);
    cr_assert(file_write_atomic(path, SV("x"), 0600, &err) != STATUS_OK);
    cr_assert(strstr(err.message, path) != NULL, "%s", err.message);
    cr_assert_eq(remove_content(folder), 1);
    cr_assert(file_write_atomic(in_folder("missing/x"), SV("x"), 0600, &err) == STATUS_NOT_FOUND);
}

Test(file, maximum_is_read_and_one_more_is_refused)
{
    const char *path = in_folder("a");
    struct strview content = {NULL, 0};
    cr_assert(file_write_atomic(path, SV("12345"), 0600, &err) == STATUS_OK);
    cr_assert(file_read(&arena, path, 5, &content, &err) == STATUS_OK && content.len == 5);
    cr_assert(file_read(&arena, path, 4, &content, &err) == STATUS_RESOURCE_EXHAUSTED);
    cr_assert_eq(content.len, 5); /* outputs are written on success only */
}

Test(file, files_in_proc_have_no_size_but_content)
{
    struct strview content;
    cr_assert(file_read(&arena, "/proc/self/status", 1 << 20, &content, &err) == STATUS_OK, "%s",
              err.message);
    cr_assert(sv_starts_with(content, SV("Name:")));
    cr_assert_eq(strlen(content.ptr), content.len);
    cr_assert(file_read(&arena, "/proc/self/status", 10, &content, &err) == STATUS_RESOURCE_EXHAUSTED);
}

Test(file, only_regular_files_are_read)
{
    struct strview content;
    cr_assert(file_read(&arena, in_folder("none"), 10, &content, &err) == STATUS_NOT_FOUND);
    cr_assert(file_read(&arena, folder, 10, &content, &err) == STATUS_INVALID_ARGUMENT);
    cr_assert(mkfifo(in_folder("pipe"), 0600) == 0);
    cr_assert(file_read(&arena, in_folder("pipe"), 10, &content, &err) == STATUS_INVALID_ARGUMENT);
    cr_assert(file_read(&arena, "/dev/zero", 10, &content, NULL) == STATUS_INVALID_ARGUMENT);
}

Test(file, folders_are_made_with_their_parents)
{
    struct stat info;
    cr_assert(dir_make(in_folder("a/b//c/"), 0700, &err) == STATUS_OK, "%s", err.message);
    cr_assert(stat(in_folder("a/b/c"), &info) == 0 && S_ISDIR(info.st_mode));
    cr_assert(dir_make(in_folder("a/b/c"), 0700, &err) == STATUS_OK);
    cr_assert(file_write_atomic(in_folder("f"), SV(""), 0600, &err) == STATUS_OK);
    cr_assert(dir_make(in_folder("f/sub"), 0700, &err) == STATUS_ALREADY_EXISTS, "%s", err.message);
    cr_assert(dir_make(in_folder("f"), 0700, &err) == STATUS_ALREADY_EXISTS);
    cr_assert(dir_make("", 0700, &err) == STATUS_INVALID_ARGUMENT);
    cr_assert(dir_make("/", 0700, &err) == STATUS_OK);
}

Test(file, relative_names_work_in_the_current_folder)
{
    struct strview content;
    cr_assert_eq(chdir(folder), 0);
    cr_assert(file_write_atomic("plain", SV("x"), 0600, &err) == STATUS_OK, "%s", err.message);
    cr_assert(file_read(&arena, "plain", 1, &content, &err) == STATUS_OK);
    cr_assert(dir_make("d/e", 0700, &err) == STATUS_OK);
    cr_assert_eq(chdir("/"), 0);
}
