#include "loop/folder_watch.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"

TestSuite(folder_watch, .timeout = 60);

static struct loop *loop;
static char dir[256];
static struct fiber_event changed;

static const char *path(const char *name)
{
    static char text[2][512];
    static unsigned turn;
    char *here = text[turn++ % 2];
    (void)snprintf(here, sizeof(text[0]), "%s/%s", dir, name);
    return here;
}

static void in_folder(fiber_fn *fn)
{
    (void)snprintf(dir, sizeof(dir), "/tmp/balm-watch-XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
    fiber_event_init(&changed);
    cr_assert_eq(loop_new(&loop, NULL), STATUS_OK);
    cr_assert_eq(loop_run_fiber(loop, fn, NULL, NULL), STATUS_OK);
    loop_free(loop);
    cr_assert_eq(rmdir(dir), 0);
}

static void expect_change(const char *what)
{
    cr_expect_eq(fiber_event_wait(&changed, clock_monotonic_ns() + 20 * NS_PER_S), STATUS_OK, "%s", what);
    (void)!sleep_ms(20); /* one change may be told in parts */
    fiber_event_reset(&changed);
}

static void see_changes(void *arg)
{
    struct folder_watch *w;
    struct error err;
    (void)arg;
    cr_assert_eq(folder_watch_start(loop, dir, &changed, &w, &err), STATUS_OK, "%s", err.message);
    cr_expect_not(changed.is_set);
    cr_assert_eq(file_write_atomic(path("a"), SV("1"), 0600, NULL), STATUS_OK);
    expect_change("a file is made");
    cr_assert_eq(chmod(path("a"), 0640), 0);
    expect_change("its rights change");
    cr_assert_eq(symlink("a", path("new")), 0);
    expect_change("a link is made");
    cr_assert_eq(rename(path("new"), path("b")), 0);
    expect_change("a link is renamed");
    cr_assert_eq(unlink(path("a")), 0);
    expect_change("a file is removed");
    folder_watch_stop(w);
    cr_assert_eq(unlink(path("b")), 0);
    cr_assert_eq(sleep_ms(50), STATUS_OK);
    cr_expect_not(changed.is_set, "nothing comes after the stop");
}

Test(folder_watch, every_change_of_an_entry_is_told_until_the_stop)
{
    in_folder(see_changes);
}

static void miss_folder(void *arg)
{
    struct folder_watch *w;
    struct error err;
    (void)arg;
    cr_expect_eq(folder_watch_start(loop, path("none"), &changed, &w, &err), STATUS_NOT_FOUND);
    cr_expect_str_eq(strrchr(err.message, ':'), ": no such file or directory");
    folder_watch_stop(NULL);
}

Test(folder_watch, a_missing_folder_is_not_found)
{
    in_folder(miss_folder);
}
