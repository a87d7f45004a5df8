#include "functions/dispatcher/runbook_folder.h"

#include <criterion/criterion.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

static char folder[256];
static struct arena arena;
static struct error err;

static const char *path(const char *name)
{
    return arena_printf(&arena, "%s/%s", folder, name).ptr;
}

static int remove_one(const char *name, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(name);
}

static void make_folder(void)
{
    (void)snprintf(folder, sizeof(folder), "/tmp/balm-folder-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
}

static void drop_folder(void)
{
    (void)nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    arena_release(&arena);
}

TestSuite(runbook_folder, .init = make_folder, .fini = drop_folder, .timeout = 60);

static void put(const char *name, const char *text)
{
    cr_assert_eq(file_write_atomic(path(name), sv(text), 0600, &err), STATUS_OK, "%s", err.message);
}

static struct runbook_folder list(void)
{
    struct runbook_folder f;
    cr_assert_eq(runbook_folder_list(folder, &arena, &f, &err), STATUS_OK, "%s", err.message);
    return f;
}

/* As the kubelet does it. */
static void swap(const char *to, const char *text)
{
    cr_assert_eq(mkdir(path(to), 0700), 0);
    put(arena_printf(&arena, "%s/a.yaml", to).ptr, text);
    cr_assert_eq(symlink(to, path("..data_tmp")), 0);
    cr_assert_eq(rename(path("..data_tmp"), path("..data")), 0);
    if (access(path("a.yaml"), F_OK) != 0) cr_assert_eq(symlink("..data/a.yaml", path("a.yaml")), 0);
}

Test(runbook_folder, only_files_that_are_shown_and_named_so_are_listed_by_name)
{
    static const char *const names[] = {"b.yml",   "a.yaml", ".a.yaml.swp", ".x.yaml",
                                        "a.yaml~", "c.txt",  "..x.yaml"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        put(names[i], "x");
    struct runbook_folder f = list();
    cr_assert_eq(f.n, 2);
    cr_assert(sv_eq(f.names[0], SV("a.yaml")) && sv_eq(f.names[1], SV("b.yml")));
}

Test(runbook_folder, a_swap_is_told_from_an_edit)
{
    swap("..1", "one");
    struct runbook_folder before = list(), now;
    cr_assert_eq(before.n, 1, "what lies behind ..data is listed once");
    now = list();
    cr_assert(runbook_mark_eq(&before.mark, &now.mark));
    put("..1/a.yaml", "uno"); /* in place, behind the link */
    now = list();
    cr_assert_not(runbook_mark_eq(&before.mark, &now.mark));
    cr_assert_not(runbook_mark_is_swapped(&before.mark, &now.mark));
    swap("..2", "one");
    now = list();
    cr_assert(runbook_mark_is_swapped(&before.mark, &now.mark));
}

Test(runbook_folder, with_a_plain_file_among_the_links_nothing_is_a_swap)
{
    swap("..1", "one");
    struct runbook_folder before = list(), now;
    put("b.yaml", "half of i");
    now = list();
    cr_assert_not(runbook_mark_is_swapped(&before.mark, &now.mark));
    swap("..2", "two");
    now = list();
    cr_assert_not(runbook_mark_is_swapped(&before.mark, &now.mark));
    cr_assert_not(runbook_mark_eq(&before.mark, &now.mark));
}

Test(runbook_folder, edits_of_every_kind_change_the_mark)
{
    put("a.yaml", "one");
    put("b.yaml", "two");
    struct runbook_folder before = list(), now;
    cr_assert_eq(chmod(path("a.yaml"), 0640), 0);
    now = list();
    cr_assert_not(runbook_mark_eq(&before.mark, &now.mark), "rights");
    before = now;
    put("a.yaml", "eno");
    now = list();
    cr_assert_not(runbook_mark_eq(&before.mark, &now.mark), "a file of the same size");
    before = now;
    cr_assert_eq(unlink(path("b.yaml")), 0);
    now = list();
    cr_assert_not(runbook_mark_eq(&before.mark, &now.mark), "a removal");
    before = now;
    cr_assert_eq(symlink("a.yaml", path("c.yaml")), 0);
    now = list();
    cr_assert_not(runbook_mark_eq(&before.mark, &now.mark), "a link");
    cr_assert_not(runbook_mark_is_swapped(&before.mark, &now.mark));
}

Test(runbook_folder, more_files_than_there_may_be_runbooks_are_not_read)
{
    struct runbook_folder f;
    for (int i = 0; i <= RUNBOOK_FILES_MAX; i++) {
        FILE *file = fopen(path(arena_printf(&arena, "%d.yaml", i).ptr), "w");
        cr_assert_not_null(file);
        (void)fclose(file);
        if (i + 1 == RUNBOOK_FILES_MAX) cr_assert_eq(list().n, (size_t)RUNBOOK_FILES_MAX);
    }
    cr_assert_eq(runbook_folder_list(folder, &arena, &f, &err), STATUS_RESOURCE_EXHAUSTED);
    cr_assert(sv_contains(sv(err.message), SV("more than 1000 files")), "%s", err.message);
}
