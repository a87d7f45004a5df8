/* The bot's own file, which no library holds; what follows uses walk.h's calls alone. */
#include "functions/disk-clean/walk.c"

#include <criterion/criterion.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "base/arena.h"
#include "base/buf.h"

static struct arena arena;
static const char *folder, *root, *outside;
static struct clean_plan plan;
static struct error err;

#define HOUR_NS (3600 * NS_PER_S)

static const char *path_of(const char *name)
{
    return arena_printf(&arena, "%s/%s", folder, name).ptr;
}

/* A file of `bytes` that was last written `hours` ago. */
static const char *make_file(const char *name, size_t bytes, int64_t hours)
{
    const char *path = path_of(name);
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    cr_assert_geq(fd, 0, "%s: %s", path, strerror(errno));
    char *content = arena_zalloc(&arena, bytes);
    cr_assert_eq(write(fd, content, bytes), (ssize_t)bytes);
    int64_t then_ns = clock_unix_ns() - hours * HOUR_NS;
    const struct timespec times[] = {{then_ns / NS_PER_S, then_ns % NS_PER_S},
                                     {then_ns / NS_PER_S, then_ns % NS_PER_S}};
    cr_assert_eq(futimens(fd, times), 0);
    (void)close(fd);
    return path;
}

static void make_folder(const char *name)
{
    cr_assert_eq(mkdir(path_of(name), 0755), 0, "%s: %s", name, strerror(errno));
}

static bool is_there(const char *name)
{
    struct stat st;
    return lstat(path_of(name), &st) == 0;
}

static void set_up(void)
{
    const char *parent = getenv("TMPDIR");
    char *real = realpath(parent != NULL ? parent : "/tmp", NULL);
    cr_assert_not_null(real);
    folder = mkdtemp(arena_cstr(&arena, arena_printf(&arena, "%s/balm-clean-XXXXXX", real)));
    free(real);
    cr_assert_not_null(folder);
    make_folder("root");
    make_folder("outside");
    root = path_of("root");
    outside = path_of("outside");
    plan.root_fd = -1;
}

/* By rm's own hands: what the tests leave is of every kind. */
static void remove_tree(const char *path)
{
    pid_t pid = fork();
    if (pid == 0) {
        execl("/bin/rm", "rm", "-rf", "--", path, (char *)NULL);
        _exit(127);
    }
    (void)waitpid(pid, NULL, 0);
}

static void tear_down(void)
{
    if (plan.root_fd >= 0) clean_plan_release(&plan);
    remove_tree(folder);
    arena_release(&arena);
}

TestSuite(walk, .init = set_up, .fini = tear_down, .timeout = 60);

static struct clean_spec spec(void)
{
    return (struct clean_spec){.root = root,
                               .cutoff_unix_ns = clock_unix_ns() - 24 * HOUR_NS,
                               .max_files = 1000,
                               .max_scan = 1000000,
                               .deadline_ns = clock_monotonic_ns() + 30 * NS_PER_S};
}

static void make_plan_of(struct clean_spec s)
{
    cr_assert_eq(clean_plan_make(&s, &plan, &err), STATUS_OK, "%s", err.message);
}

static void look(void)
{
    make_plan_of(spec());
}

static void expect_refused(const char *path, const char *part)
{
    struct clean_spec s = spec();
    s.root = path;
    cr_assert_eq(clean_plan_make(&s, &plan, &err), STATUS_FAILED_PRECONDITION, "%s", path);
    cr_assert(sv_contains(sv(err.message), sv(part)), "'%s' is not in: %s", part, err.message);
}

Test(walk, plans_old_regular_files_oldest_first_and_removes_them)
{
    make_folder("root/a");
    make_folder("root/a/b");
    make_file("root/young", 10, 1);
    make_file("root/old", 5000, 48);
    make_file("root/a/b/oldest", 100, 96);
    make_file("root/a/older", 100, 72);
    look();
    cr_assert_eq(plan.n, 3);
    cr_assert_str_eq(plan.files[0].path, "a/b/oldest");
    cr_assert_str_eq(plan.files[1].path, "a/older");
    cr_assert_str_eq(plan.files[2].path, "old");
    cr_assert_eq(plan.counts.matched, 3);
    cr_assert_eq(plan.counts.entries, 6);
    cr_assert_not(plan.is_partial);
    cr_assert(is_there("root/old"), "a look changes nothing");
    clean_remove(&plan, 0, plan.n);
    cr_assert_eq(plan.counts.removed, 3);
    cr_assert_geq(plan.counts.bytes_freed, 5000);
    cr_assert(!is_there("root/old") && !is_there("root/a/older") && !is_there("root/a/b/oldest"));
    cr_assert(is_there("root/young") && is_there("root/a/b"), "folders stay");
}

Test(walk, age_counts_from_the_very_cutoff)
{
    make_file("root/f", 1, 48);
    struct stat st;
    cr_assert_eq(lstat(path_of("root/f"), &st), 0);
    struct clean_spec s = spec();
    s.cutoff_unix_ns = modified_unix_ns(&st);
    make_plan_of(s);
    cr_assert_eq(plan.n, 0, "a file of exactly that age stays");
    clean_plan_release(&plan);
    s.cutoff_unix_ns++;
    make_plan_of(s);
    cr_assert_eq(plan.n, 1);
}

Test(walk, links_are_never_followed_and_never_removed)
{
    make_file("outside/precious", 100, 96);
    cr_assert_eq(symlink(outside, path_of("root/link-to-folder")), 0);
    cr_assert_eq(symlink(path_of("outside/precious"), path_of("root/link-to-file")), 0);
    cr_assert_eq(symlink("..", path_of("root/up")), 0);
    cr_assert_eq(mkfifo(path_of("root/pipe"), 0644), 0);
    look();
    cr_assert_eq(plan.n, 0);
    cr_assert_eq(plan.counts.other, 4);
    clean_remove(&plan, 0, plan.n);
    cr_assert(is_there("outside/precious") && is_there("root/link-to-file") &&
              is_there("root/link-to-folder"));
}

Test(walk, root_with_a_link_in_its_path_is_refused)
{
    cr_assert_eq(symlink(root, path_of("alias")), 0);
    expect_refused(path_of("alias"), "symbolic link");
    make_folder("root/sub");
    expect_refused(path_of("alias/sub"), "symbolic link");
    expect_refused(path_of("missing"), "No such file");
    make_file("file", 1, 1);
    expect_refused(path_of("file"), "Not a directory");
}

Test(walk, folder_swapped_for_a_link_between_look_and_removal_costs_nothing_outside)
{
    make_folder("root/a");
    make_file("root/a/f", 100, 96);
    look();
    cr_assert_eq(plan.n, 1);
    /* The attacker's move: the planned path now leads to a file of the same name and age elsewhere. */
    cr_assert_eq(rename(path_of("root/a"), path_of("moved")), 0);
    make_file("outside/f", 100, 96);
    cr_assert_eq(symlink(outside, path_of("root/a")), 0);
    clean_remove(&plan, 0, 1);
    cr_assert(is_there("outside/f") && is_there("moved/f"));
    cr_assert_eq(plan.counts.removed, 0);
    cr_assert_eq(plan.counts.changed, 1);
}

Test(walk, folder_moved_out_of_the_root_is_not_reached)
{
    make_folder("root/a");
    make_folder("root/a/b");
    make_file("root/a/b/f", 100, 96);
    look();
    cr_assert_eq(rename(path_of("root/a/b"), path_of("outside/b")), 0);
    clean_remove(&plan, 0, 1);
    cr_assert(is_there("outside/b/f"));
    cr_assert_eq(plan.counts.changed, 1);
}

Test(walk, file_replaced_written_or_linked_away_since_the_look_stays)
{
    make_file("root/replaced", 10, 96);
    make_file("root/written", 10, 96);
    make_file("root/became-link", 10, 96);
    make_file("root/gone", 10, 96);
    look();
    cr_assert_eq(plan.n, 4);
    make_file("root/new", 10, 96);
    cr_assert_eq(rename(path_of("root/new"), path_of("root/replaced")), 0);
    make_file("root/written", 20, 0);
    cr_assert_eq(unlink(path_of("root/became-link")), 0);
    cr_assert_eq(symlink(path_of("outside"), path_of("root/became-link")), 0);
    cr_assert_eq(unlink(path_of("root/gone")), 0);
    clean_remove(&plan, 0, plan.n);
    cr_assert_eq(plan.counts.removed, 0);
    cr_assert_eq(plan.counts.changed, 4);
    cr_assert_eq(plan.counts.failed, 0);
    cr_assert(is_there("root/replaced") && is_there("root/written") && is_there("root/became-link"));
}

Test(walk, file_with_another_hard_link_frees_nothing_until_the_last)
{
    make_file("root/one", 8192, 96);
    cr_assert_eq(link(path_of("root/one"), path_of("outside/two")), 0);
    look();
    cr_assert_eq(plan.files[0].bytes, 0);
    clean_remove(&plan, 0, 1);
    cr_assert_eq(plan.counts.removed, 1);
    cr_assert_eq(plan.counts.bytes_freed, 0);
    cr_assert(is_there("outside/two"));
    clean_plan_release(&plan);

    make_file("root/x", 8192, 96);
    cr_assert_eq(link(path_of("root/x"), path_of("root/y")), 0);
    look();
    clean_remove(&plan, 0, 2);
    cr_assert_eq(plan.counts.removed, 2);
    cr_assert_geq(plan.counts.bytes_freed, 8192, "both names were ours: the last one freed it");
}

Test(walk, open_files_stay)
{
    make_file("root/open", 10, 96);
    make_file("root/closed", 10, 96);
    int fd = open(path_of("root/open"), O_RDONLY | O_CLOEXEC);
    look();
    cr_assert_eq(plan.n, 1);
    cr_assert_str_eq(plan.files[0].path, "closed");
    cr_assert_eq(plan.counts.open, 1);
    (void)close(fd);
}

Test(walk, only_the_oldest_are_planned_past_the_limit)
{
    for (int i = 0; i < 50; i++)
        make_file(arena_printf(&arena, "root/f%02d", (i * 37) % 50).ptr, 1, 30 + (i * 37) % 50);
    struct clean_spec s = spec();
    s.max_files = 7;
    make_plan_of(s);
    cr_assert_eq(plan.n, 7);
    cr_assert_eq(plan.counts.matched, 50);
    for (int i = 0; i < 7; i++)
        cr_assert_str_eq(plan.files[i].path, arena_printf(&arena, "f%02d", 49 - i).ptr);
}

Test(walk, look_ends_at_its_limit_of_entries_and_at_its_deadline)
{
    for (int i = 0; i < 30; i++)
        make_file(arena_printf(&arena, "root/f%d", i).ptr, 1, 96);
    struct clean_spec s = spec();
    s.max_scan = 10;
    make_plan_of(s);
    cr_assert_eq(plan.counts.entries, 10);
    cr_assert(plan.is_partial);
    clean_plan_release(&plan);
    s = spec();
    s.deadline_ns = clock_monotonic_ns() - 1;
    make_plan_of(s);
    cr_assert(plan.is_partial);
    cr_assert_eq(plan.n, 0);
}

Test(walk, nesting_past_the_limit_is_counted_not_entered)
{
    struct buf path;
    buf_init(&path, 4096);
    buf_append(&path, SV("root"));
    for (int i = 0; i < CLEAN_DEPTH_MAX + 3; i++) {
        buf_append(&path, SV("/d"));
        make_folder(buf_view(&path).ptr);
    }
    buf_append(&path, SV("/f"));
    make_file(buf_view(&path).ptr, 1, 96);
    look();
    cr_assert_eq(plan.n, 0);
    cr_assert_eq(plan.counts.deep, 1);
    buf_release(&path);
}

Test(walk, unreadable_folder_is_counted_and_the_rest_goes_on)
{
    make_folder("root/closed");
    make_file("root/closed/f", 1, 96);
    make_file("root/f", 1, 96);
    cr_assert_eq(chmod(path_of("root/closed"), 0), 0);
    /* Root reads everything: look as nobody in a child, and tell by its exit code. */
    pid_t pid = fork();
    if (pid == 0) {
        bool is_ready =
            chmod(folder, 0755) == 0 && (geteuid() != 0 || (setgid(65534) == 0 && setuid(65534) == 0));
        struct clean_spec s = spec();
        bool is_fine = is_ready && clean_plan_make(&s, &plan, &err) == STATUS_OK &&
                       plan.counts.unreadable == 1 && plan.n == 1;
        if (is_fine && geteuid() == 65534) { /* and may remove nothing in a folder of another */
            clean_remove(&plan, 0, 1);
            is_fine = plan.counts.failed == 1 && plan.counts.removed == 0 && plan.last_errno == EACCES;
        }
        _exit(is_fine ? 0 : 1);
    }
    int state = -1;
    cr_assert_eq(waitpid(pid, &state, 0), pid);
    cr_assert_eq(state, 0);
    cr_assert_eq(chmod(path_of("root/closed"), 0755), 0);
}

/* A mount namespace of our own, so that nothing of it is seen outside and it ends with this process. */
static bool enter_own_mounts(void)
{
    return unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

Test(walk, other_file_systems_are_not_entered)
{
    make_folder("root/mounted");
    if (!enter_own_mounts()) cr_skip_test("mounting needs root");
    cr_assert_eq(mount("balm-test", path_of("root/mounted"), "tmpfs", 0, "size=1m"), 0);
    make_file("root/mounted/f", 1, 96);
    look();
    cr_assert_eq(plan.n, 0);
    cr_assert_eq(plan.counts.mounts, 1);
    clean_plan_release(&plan);
    cr_assert_eq(umount(path_of("root/mounted")), 0);
    /* The same file system bound to another place is another mount, though its device is the same. */
    make_file("outside/f", 1, 96);
    cr_assert_eq(mount(outside, path_of("root/mounted"), NULL, MS_BIND, NULL), 0);
    look();
    cr_assert_eq(plan.n, 0);
    cr_assert_eq(plan.counts.mounts, 1);
    clean_plan_release(&plan);
    cr_assert_eq(umount(path_of("root/mounted")), 0);
}

Test(walk, file_system_mounted_over_a_planned_folder_is_not_entered)
{
    make_folder("root/a");
    make_file("root/a/f", 1, 96);
    if (!enter_own_mounts()) cr_skip_test("mounting needs root");
    look();
    cr_assert_eq(mount("balm-test", path_of("root/a"), "tmpfs", 0, "size=1m"), 0);
    make_file("root/a/f", 1, 96);
    clean_remove(&plan, 0, 1);
    bool is_untouched = is_there("root/a/f");
    cr_assert_eq(umount2(path_of("root/a"), MNT_DETACH), 0);
    cr_assert(is_untouched && is_there("root/a/f"));
    cr_assert_eq(plan.counts.changed, 1);
}

Test(walk, names_of_every_kind_are_handled)
{
    static const char *const names[] = {"root/ ",        "root/-rf", "root/a\nb",
                                        "root/\xff\xfe", "root/*",   "root/..."};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        make_file(names[i], 1, 96);
    look();
    cr_assert_eq(plan.n, 6);
    clean_remove(&plan, 0, plan.n);
    cr_assert_eq(plan.counts.removed, 6);
    cr_assert(is_there("root"));
}

Test(walk, free_space_is_told_as_df_does)
{
    struct clean_space space;
    look();
    cr_assert_eq(clean_space_of(&plan, &space, &err), STATUS_OK);
    cr_assert_gt(space.usable_bytes, 0);
    cr_assert_leq(space.free_bytes, space.usable_bytes);
    cr_assert(space.free_percent >= 0 && space.free_percent <= 100);
}
